//! Every algorithm of ESP that Linux has, by static SAs, one after the other on one bed: the router is told of each by SIGHUP.
//!
//! Linux has no implicit IVs (RFC 8750): those are between us and `oracle.py`.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::{NODES, assert_invariants, pages};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Name and whether numbers have 64 bits: the other of it is in [`TRANSPORT`].
const TUNNEL: [(&str, bool); 14] = [
    ("aes256-gcm16", true),
    ("chacha20-poly1305", false),
    ("aes128-gmac", true),
    ("aes256-gmac", false),
    ("aes128-cbc-sha256", true),
    ("aes128-cbc-sha384", false),
    ("aes128-cbc-sha512", true),
    ("aes256-cbc-sha256", false),
    ("aes256-cbc-sha384", true),
    ("aes256-cbc-sha512", false),
    ("null-sha256", true),
    ("null-sha384", false),
    ("null-sha512", true),
    ("aes128-gcm16", false),
];

#[test]
fn linux_and_we_understand_each_other_by_every_algorithm_in_tunnel_mode() {
    all(Tunnel::PLAIN, &TUNNEL);
}

#[test]
fn linux_and_we_understand_each_other_by_every_algorithm_in_transport_mode_over_ipv6() {
    all(Tunnel { outer: 6, inner: 6, mode: "transport", ..Tunnel::PLAIN }, &TUNNEL.map(|(name, esn)| (name, !esn)));
}

fn all(tunnel: Tunnel, rows: &[(&'static str, bool)]) {
    let bed = Bed::up(tunnel);
    for &(algorithm, esn) in rows {
        bed.progress(&format!("{algorithm}{}", if esn { ", 64-bit numbers" } else { "" }));
        change(&bed, Tunnel { algorithm, esn, ..tunnel });
        pages(&bed, 6);
        let host = bed.host();
        let size = bed
            .guest_ok(&format!("curl -sS --max-time 20 -o /dev/null -w '%{{size_download}}' http://{host}/megabyte"));
        assert_eq!(size, "1000000", "{algorithm}");
        // Each length of padding up to a block, and packets that fill the path.
        let lengths = "$(seq 56 72) 1200 1300";
        let host = host.trim_matches(['[', ']']);
        let pings = bed.guest_ok(&format!(
            "for n in {lengths}; do ping -c 1 -W 2 -s $n {host} || exit 1; done >/dev/null; echo all"
        ));
        assert_eq!(pings.trim(), "all", "{algorithm}");
        assert_eq!(bed.xfrm_errors(), [], "{algorithm}: the client's kernel has nothing to complain about");
    }
    assert_invariants(&bed);
}

/// Other keys and another algorithm, at both ends.
fn change(bed: &Bed, tunnel: Tunnel) {
    let reloads = || {
        let log = fs::read_to_string(bed.file("log/r.log")).expect("the router's log");
        log.matches("the configuration was reloaded").count()
    };
    let before = reloads();
    bed.script_for(tunnel, "cluster.sh", &["configure_router"]);
    bed.hangup("r");
    wait_until("the router has read it", SOON, || reloads() > before);
    let has = |node: &str| {
        let all = bed.query(node, "sa");
        all.as_array().is_some_and(|all| {
            all.iter().any(|sa| sa["algorithm"] == tunnel.algorithm && sa["esn"] == tunnel.esn)
                && all.iter().all(|sa| sa["algorithm"] == tunnel.algorithm)
        })
    };
    wait_until("every node has it", SOON, || NODES.iter().all(|node| has(node)));
    bed.wait_ready();
    bed.script_for(tunnel, "cluster.sh", &["client_sa"]);
}
