//! Must show 1: pages come through the VIP over ESP, from both targets, and the wire carries nothing else of them.

use crate::bed::{Bed, Tunnel};
use crate::looks::{Wire, assert_invariants, delivered_on, network_mac};
use crate::wire::{Frame, What};

const PAGES: usize = 60;

#[test]
fn pages_come_over_ipv4_in_tunnel_mode() {
    served(Tunnel::PLAIN);
}

#[test]
fn pages_come_over_ipv6_in_tunnel_mode_with_64_bit_numbers() {
    served(Tunnel { outer: 6, inner: 6, esn: true, ..Tunnel::PLAIN });
}

#[test]
fn pages_come_over_ipv4_in_transport_mode_with_64_bit_numbers() {
    served(Tunnel { mode: "transport", esn: true, ..Tunnel::PLAIN });
}

#[test]
fn pages_come_over_ipv6_in_transport_mode() {
    served(Tunnel { outer: 6, inner: 6, mode: "transport", ..Tunnel::PLAIN });
}

#[test]
fn pages_come_over_ipv6_within_ipv4() {
    served(Tunnel { inner: 6, ..Tunnel::PLAIN });
}

#[test]
fn pages_come_over_ipv4_within_ipv6_with_64_bit_numbers() {
    served(Tunnel { outer: 6, esn: true, ..Tunnel::PLAIN });
}

#[test]
fn pages_come_by_chacha20_poly1305_over_ipv4_within_ipv6() {
    served(Tunnel { outer: 6, esn: true, algorithm: "chacha20-poly1305", ..Tunnel::PLAIN });
}

#[test]
fn pages_come_by_aes_cbc_and_hmac_in_tunnel_mode_with_64_bit_numbers() {
    served(Tunnel { esn: true, algorithm: "aes256-cbc-sha512", ..Tunnel::PLAIN });
}

#[test]
fn pages_come_by_aes_cbc_and_hmac_in_transport_mode() {
    served(Tunnel { mode: "transport", algorithm: "aes128-cbc-sha384", ..Tunnel::PLAIN });
}

#[test]
fn pages_come_by_gmac_over_ipv6_in_transport_mode_with_64_bit_numbers() {
    served(Tunnel { outer: 6, inner: 6, mode: "transport", esn: true, algorithm: "aes128-gmac", ..Tunnel::PLAIN });
}

#[test]
fn pages_come_by_hmac_alone_over_ipv6() {
    served(Tunnel { outer: 6, inner: 6, algorithm: "null-sha256", ..Tunnel::PLAIN });
}

fn served(tunnel: Tunnel) {
    let bed = Bed::up(tunnel);
    let host = bed.host();
    for port in ["n-cl", "n-r", "n-t1", "n-t2", "l-r"] {
        bed.capture("sw", port, port, &["-s", "160"]);
    }

    bed.progress("a new connection for each page");
    let pages = bed.guest_ok(&format!("curl -sS --max-time 10 'http://{host}/?[1-{PAGES}]' -H 'Connection: close'"));
    assert_eq!(pages.matches("served by").count(), PAGES, "{pages}");
    let (t1, t2) = (bed.served("t1"), bed.served("t2"));
    assert_eq!((t1, t2), (PAGES / 2, PAGES / 2), "round robin");

    bed.progress("a megabyte, in packets as large as the path carries");
    let size =
        bed.guest_ok(&format!("curl -sS --max-time 10 -o /dev/null -w '%{{size_download}}' http://{host}/megabyte"));
    assert_eq!(size, "1000000");
    bed.capture_end("n-r");

    bed.progress("the router answers ping itself");
    let before = delivered_on(&bed, "r");
    let ping = bed.guest_ok(&format!("ping -c 5 -i 0.2 -W 2 {}", host.trim_matches(['[', ']'])));
    assert!(ping.contains(" 5 received"), "{ping}");
    assert!(delivered_on(&bed, "r") >= before + 5, "the router's own host saw the requests");

    judge_wire(&bed);
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

/// What the bridges' captures must show after the pages.
fn judge_wire(bed: &Bed) {
    for port in ["n-cl", "n-t1", "n-t2", "l-r"] {
        bed.capture_end(port);
    }
    let client = Wire::of(&bed.file("pcap/n-cl.pcap"));
    assert!(client.to_vip > 200 && client.answers("t1") > 100 && client.answers("t2") > 100, "{client:?}");
    assert!(client.clear.is_empty(), "in clear at the client: {:?}", client.clear);
    assert_eq!(client.claims.keys().collect::<Vec<_>>(), [&network_mac("r")], "the router alone answers for the VIP");

    let router = Wire::of(&bed.file("pcap/n-r.pcap"));
    assert_eq!(router.answers("r"), 0, "an answer left through the router");
    for target in ["t1", "t2"] {
        let wire = Wire::of(&bed.file(&format!("pcap/n-{target}.pcap")));
        assert!(wire.clear.is_empty(), "in clear at {target}: {:?}", wire.clear);
        assert!(wire.answers(target) > 100, "{target} answered from its own MAC address: {wire:?}");
    }
    // On the link only whole ESP packets in GRE, and only away from the router.
    let link = bed.frames("l-r");
    let gre = link.filter_map(|c| match Frame::parse(&c).what {
        What::Clear { source, protocol: 47, .. } => Some(source.to_string()),
        _ => None,
    });
    assert!(gre.into_iter().all(|source| source == "10.78.0.1"), "a target sent over the link");
}
