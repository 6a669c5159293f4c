//! AH around ESP on one packet, against Linux's: two templates in one policy there, `within` here.

use crate::bed::{Bed, Gateway, TO_CLIENT, TO_VIP, Tunnel, wait_until};
use crate::looks::{NODES, Wire, all_drops, assert_invariants, delivered, delivered_on, pages};
use crate::raw::RawSender;
use crate::wire::{Frame, What, fix_ipv4, readdress};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const PAGES: usize = 20;
/// Over IPv4 with HMAC-SHA-256.
const AH_LEN: usize = 28;

const BUNDLE: Tunnel = Tunnel { around: "ah-hmac-sha256", ..Tunnel::PLAIN };

#[test]
fn pages_come_over_ah_around_esp_in_transport_mode_and_neither_comes_without_the_other() {
    let bed = served(Tunnel { mode: "transport", ..BUNDLE });
    attacked(&bed);
}

#[test]
fn pages_come_over_ah_around_esp_in_tunnel_mode_with_64_bit_numbers_and_other_keys_after_a_reload() {
    let tunnel = Tunnel { esn: true, ..BUNDLE };
    let bed = served(tunnel);
    bed.progress("other keys and algorithms");
    let tunnel = Tunnel { algorithm: "aes128-cbc-sha256", around: "ah-hmac-sha512", ..tunnel };
    bed.script_for(tunnel, "cluster.sh", &["configure_router"]);
    bed.hangup("r");
    let changed = |node: &str| bed.try_query(node, "sa").is_some_and(|sas| algorithms(&sas) == both(&tunnel));
    wait_until("every node has them", SOON, || NODES.iter().all(|node| changed(node)));
    bed.wait_ready();
    bed.script_for(tunnel, "cluster.sh", &["client_sa"]);
    pages(&bed, PAGES);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

#[test]
fn pages_come_over_ah_around_esp_and_ipv6() {
    for mode in ["tunnel", "transport"] {
        served(Tunnel { algorithm: "chacha20-poly1305", around: "ah-hmac-sha384", outer: 6, inner: 6, mode, ..BUNDLE });
    }
}

/// "Too big" quotes AH: what ESP may measure follows.
#[test]
fn a_path_that_is_narrower_is_followed_by_both() {
    let bed = Bed::up(Tunnel { gateway: Gateway::Route { mtu: 1400 }, ..BUNDLE });
    let downloads = || {
        let url = format!("http://{}/megabyte", bed.host());
        for _ in 0..2 {
            let get = format!("curl -sS --max-time 30 -o /dev/null -w '%{{size_download}}' {url}");
            assert_eq!(bed.guest_ok(&get), "1000000");
        }
    };
    downloads();
    let paths = |node: &str| {
        let sas = bed.try_query(node, "sa");
        let rows = sas.as_ref().and_then(|sas| sas.as_array()).into_iter().flatten();
        let mut paths: Vec<u64> = rows.filter_map(|sa| sa["path_mtu"].as_u64().filter(|mtu| *mtu > 0)).collect();
        paths.sort_unstable();
        paths
    };
    let known = [1400 - AH_LEN as u64, 1400];
    wait_until("every node knows the path", SOON, || NODES.iter().all(|node| paths(node) == known));
    bed.capture("sw", "n-t1", "t1", &["-s", "128"]);
    downloads();
    bed.capture_end("t1");
    let ours = |frame: &Vec<u8>| matches!(Frame::parse(frame).what, What::Ah { spi: TO_CLIENT, .. });
    let longest = bed.frames("t1").filter(ours).map(|frame| u16::from_be_bytes([frame[16], frame[17]])).max();
    assert!(longest.is_some_and(|longest| (1380..=1400).contains(&longest)), "{longest:?}");
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

fn algorithms(sas: &serde_json::Value) -> Vec<String> {
    let rows = sas.as_array().into_iter().flatten();
    let mut all: Vec<String> = rows.filter_map(|sa| Some(sa["algorithm"].as_str()?.to_owned())).collect();
    all.sort_unstable();
    all
}

/// In both directions.
fn both(tunnel: &Tunnel) -> Vec<String> {
    let mut all = [tunnel.algorithm, tunnel.algorithm, tunnel.around, tunnel.around].map(str::to_owned).to_vec();
    all.sort_unstable();
    all
}

fn served(tunnel: Tunnel) -> Bed {
    let bed = Bed::up(tunnel);
    let host = bed.host();
    bed.capture("sw", "n-cl", "client", &["-s", "160"]);
    bed.progress("pages from both targets");
    pages(&bed, PAGES);
    bed.progress("a megabyte, in packets as large as the path carries");
    let size =
        bed.guest_ok(&format!("curl -sS --max-time 10 -o /dev/null -w '%{{size_download}}' http://{host}/megabyte"));
    assert_eq!(size, "1000000");
    bed.progress("the router answers ping itself");
    let before = delivered_on(&bed, "r");
    let ping = bed.guest_ok(&format!("ping -c 5 -i 0.2 -W 2 {}", host.trim_matches(['[', ']'])));
    assert!(ping.contains(" 5 received"), "{ping}");
    assert!(delivered_on(&bed, "r") >= before + 5, "the router's own host saw the requests");

    let client = Wire::of(&bed.capture_end("client"));
    assert!(client.to_vip > 100 && client.answers("t1") > 30 && client.answers("t2") > 30, "{client:?}");
    assert!(client.clear.is_empty(), "in clear at the client: {:?}", client.clear);
    // Both directions: AH, and behind it ESP.
    let at = if tunnel.outer == 4 { 34 } else { 54 };
    let ours = |frame: &Vec<u8>| matches!(Frame::parse(frame).what, What::Ah { .. });
    assert!(bed.frames("client").filter(ours).all(|frame| frame[at] == 50), "something else than ESP within AH");
    assert!(bed.frames("client").all(|frame| !matches!(Frame::parse(&frame).what, What::Esp { .. })));
    assert_eq!(algorithms(&bed.query("r", "sa")), both(&tunnel));
    let used = bed.query("r", "sa");
    let each = used.as_array().expect("a list");
    assert!(each.iter().all(|sa| sa["packets"].as_u64().is_some_and(|packets| packets > 50)), "{used}");
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    bed
}

/// What the client sent comes again; with a bit changed in AH, and in ESP; and without AH.
fn attacked(bed: &Bed) {
    bed.progress("an attacker on the wire");
    bed.capture("sw", "n-r", "again", &[]);
    pages(bed, 8);
    bed.capture_end("again");
    let (before, dropped) = (delivered(bed), all_drops(bed));
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let ours = |frame: &Vec<u8>| matches!(Frame::parse(frame).what, What::Ah { spi: TO_VIP, .. });
    let frames: Vec<_> = bed.frames("again").filter(ours).collect();
    assert!(frames.len() > 20);
    for frame in &frames {
        sender.send(&readdress(frame.clone()));
        // Other numbers of both, whose ICVs would be others.
        let mut changed = readdress(frame.clone());
        changed[14 + 20 + 10] ^= 0x10;
        changed[14 + 20 + AH_LEN + 6] ^= 0x10;
        sender.send(&changed);
        let mut bare = readdress(frame.clone());
        bare.drain(34..34 + AH_LEN);
        bare[23] = 50;
        let len = (bare.len() - 14) as u16;
        bare[16..18].copy_from_slice(&len.to_be_bytes());
        fix_ipv4(&mut bare);
        sender.send(&bare);
    }
    let more = |reason: &str| all_drops(bed)[reason] - dropped[reason];
    let sent = frames.len() as u64;
    wait_until("each is dropped for its reason", SOON, || {
        more("replay") + more("too-old") >= sent
            && more("bad-icv") + more("unknown-connection") >= sent / 2
            && more("missing-ah") == sent
    });
    assert_eq!(delivered(bed), before, "something got in");
    pages(bed, 4);
    assert!(fs::read_to_string(bed.file("log/r.log")).is_ok_and(|log| !log.contains("panicked")));
}
