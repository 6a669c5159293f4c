//! Peers that negotiate.

use super::*;
use phalanx_ike::{ChildMode, Remote};

const FILTER: &str = "[[filter]]\naction = \"protect\"";

/// The router with a peer in front of its filter.
fn with(peer: &str) -> String {
    ROUTER.replace(FILTER, &format!("{peer}\n{FILTER}"))
}

/// What is wrong, by lines counted from the peer's first one.
fn wrong_with(peer: &str) -> Vec<String> {
    let before = ROUTER.split(FILTER).next().unwrap().matches('\n').count();
    let Err(report) = run(&with(peer)) else { return Vec::new() };
    let line = |line: &String| {
        let (number, text) = line.strip_prefix("px.toml:").unwrap().split_once(':').unwrap();
        format!("{}:{text}", number.parse::<usize>().unwrap() - before)
    };
    report.lines().iter().map(line).collect()
}

const PEER: &str =
    "[[peer]]\nname = \"branch\"\nvip = \"web\"\nremote = \"10.77.0.20\"\nsecret = \"swordfish, always\"\n";

#[test]
fn a_peer_needs_an_address_and_a_secret_and_has_one_child_unless_told_otherwise() {
    let config = run(&with(PEER)).unwrap().config;
    let (peer, ike) = (&config.peers[0], &config.peers[0].ike);
    assert_eq!((peer.vip, peer.path_mtu, peer.nat_keepalive), (0, 1500, 20));
    assert_eq!((ike.local.to_string(), ike.local_id.to_string()), ("10.77.0.100".into(), "10.77.0.100".into()));
    assert_eq!(
        (ike.remote.clone(), ike.remote_id.to_string()),
        (Remote::Address([10, 77, 0, 20].into()), "10.77.0.20".into())
    );
    assert_eq!((ike.lifetime.soft_ms, ike.lifetime.hard_ms), (14_400_000, 15_840_000));
    assert_eq!((ike.start, ike.unique, ike.liveness_ms, ike.fragment), (false, true, 30_000, 1280));
    let child = &ike.children[0];
    assert_eq!((&*child.name, child.mode, child.local, child.window), ("all", ChildMode::Tunnel, None, 32));
    assert_eq!((child.lifetime.soft_packets, child.lifetime.hard_packets), (3 << 30, 0));
    assert!(!format!("{config:?}").contains("swordfish"), "I8");
}

#[test]
fn children_have_selectors_proposals_and_lives_of_their_own() {
    let text = "proposal = \"aes128gcm16-prfsha256-x25519\"\nremote_id = \"branch.example\"\nrekey_seconds = 600\n\
                [[peer.child]]\nname = \"pages\"\nremote = \"10.99.0.0/24\"\nprotocol = \"tcp\"\nlocal_ports = 80\n\
                proposal = \"aes256gcm16-ecp256-esn\"\nrekey_bytes = 1000\nlife_seconds = 100\nwindow = 4096\n\
                [[peer.child]]\nname = \"host\"\nmode = \"transport\"\n";
    let config = run(&with(&format!("{PEER}{text}"))).unwrap().config;
    let ike = &config.peers[0].ike;
    assert_eq!((ike.lifetime.soft_ms, ike.lifetime.hard_ms, ike.proposal.groups.len()), (600_000, 660_000, 1));
    let [pages, host] = [&ike.children[0], &ike.children[1]];
    assert_eq!(pages.remote.map(|r| r.to_string()), Some("10.99.0.0/24".into()));
    assert_eq!(
        (pages.protocol, pages.local_ports.to_string(), pages.proposal.esn.as_slice()),
        (Some(6), "80".into(), &[true][..])
    );
    assert_eq!((pages.lifetime.soft_bytes, pages.lifetime.hard_bytes), (1000, 1100));
    assert_eq!((pages.lifetime.soft_ms, pages.lifetime.hard_ms, pages.window), (90_000, 100_000, 4096));
    assert_eq!((host.mode, host.local, host.remote), (ChildMode::Transport, None, None));
}

#[test]
fn what_is_wrong_with_a_peer_is_shown_with_its_line() {
    let lines = |change: (&str, &str), more: &str| wrong_with(&format!("{}{more}", PEER.replace(change.0, change.1)));
    let same = ("", "");
    let cases = [
        (("swordfish, always", ""), "", "5: `secret` must be a string in quotes, not empty"),
        (
            ("secret = \"swordfish, always\"", ""),
            "",
            "1: `secret_file` (or `secret`, or `certificate`, `key` and `ca`) is missing",
        ),
        (
            ("remote = \"10.77.0.20\"\n", ""),
            "",
            "1: `remote_id` is missing: where the peer has no address it needs a name",
        ),
        (("10.77.0.20", "10.77.0.100"), "", "4: the peer 10.77.0.100 is this node itself"),
        (("10.77.0.20", "fd77::20"), "", "4: the peer fd77::20 and the VIP 10.77.0.100 are of different families"),
        (("\"web\"", "\"wep\""), "", "3: there is no VIP `wep` (did you mean `web`?)"),
        (same, "proposal = \"aes128-sha1-modp1024\"", "6: [[peer]]: `proposal`: `sha1` is too weak (RFC 8247)"),
        (same, "fragment = 100", "6: [[peer]]: `fragment` must be 576 to 9000 bytes, or 0 (never cut)"),
        (same, "rekey_seconds = 10\nlife_seconds = 5", "7: the end of its life is before its successor is made"),
        (same, "secret_file = \"/nowhere\"", "6: `secret` and `secret_file` are both given"),
        (
            same,
            "encapsulation = \"udp\"\n[[peer.child]]\nname = \"c\"\nproposal = \"ah-sha256\"",
            "9: AH cannot travel in UDP: it covers the very addresses that a NAT changes",
        ),
        (
            same,
            "[[peer.child]]\nname = \"c\"\nlocal = \"10.1.0.0/24\"",
            "8: `local` 10.1.0.0/24 holds no VIP: nothing that comes through fits (the VIP of this peer is 10.77.0.100)",
        ),
        (
            same,
            "[[peer.child]]\nname = \"c\"\nmode = \"transport\"\nremote = \"10.99.0.1\"",
            "9: in transport mode the ends are the VIP and the peer themselves (leave it out, or use mode = \"tunnel\")",
        ),
        (
            same,
            "[[peer.child]]\nname = \"a-child-with-a-name-of-its-own\"",
            "7: the names of a peer and its child have at most 24 letters together",
        ),
    ];
    for (change, more, line) in cases {
        assert_eq!(lines(change, more), [line], "{change:?} {more}");
    }
    let any = lines(("\"10.77.0.20\"", "\"any\"\nremote_id = \"a.b\"\nstart = true"), "");
    assert_eq!(any, ["6: `start` needs a `remote` address to begin with"]);
}

#[test]
fn a_secret_file_ends_where_its_line_does_and_is_not_everybodys() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "swordfish\n").unwrap();
    let peer = PEER.replace("secret = \"swordfish, always\"", &format!("secret_file = {:?}", file.path()));
    let config = run(&with(&peer)).unwrap().config;
    let phalanx_ike::Credential::Psk(secret) = &config.peers[0].ike.credential else { panic!("a secret") };
    assert_eq!(secret.as_bytes(), b"swordfish");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(wrong_with(&peer)[0].contains("everybody on this machine can get at /"));
}

#[test]
fn a_proposal_that_may_end_without_encryption_is_warned_of() {
    let child = |proposal: &str| {
        let text = format!("{PEER}[[peer.child]]\nname = \"pages\"\nproposal = \"{proposal}\"\n");
        run(&with(&text)).unwrap().config.warnings
    };
    let warnings = child("aes128gcm16-aes128gmac");
    assert!(matches!(&warnings[..], [one] if one.contains("aes128-gmac encrypts nothing")), "{warnings:?}");
    assert!(matches!(&child("aes128-null-sha256")[..], [one] if one.contains("null-sha256 encrypts nothing")));
    assert_eq!((child("aes128gcm16"), child("ah-sha256-aes128gmac")), (vec![], vec![]));
}
