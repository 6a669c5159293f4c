//! ESP in UDP.

use super::*;

const MODE: &str = "mode = \"tunnel\"\nremote = \"10.99.0.10\"";
const UDP: &str = "mode = \"tunnel\"\nremote = \"10.99.0.10\"\nencapsulation = \"udp\"";
const TRANSPORT: &str = "mode = \"transport\"\nencapsulation = \"udp\"\noriginal = { remote = \"10.88.0.10\" }";

/// The SA, and a filter for what is shown inside.
fn sa_with(change: &str, shown: &str) -> Sa {
    let text = ROUTER.replace(MODE, change);
    assert_ne!(text, ROUTER);
    let filter = "tunnel = \"client\"\nremote = ";
    let text = text.replace(&format!("{filter}\"10.99.0.10\""), &format!("{filter}\"{shown}\""));
    run(&text).unwrap().config.sas.remove(0)
}

#[test]
fn an_sa_in_udp_has_port_4500_and_a_keepalive_every_20_seconds_unless_told_otherwise() {
    assert_eq!(sa_with(UDP, "10.99.0.10").encap, Some(Udp { peer_port: 4500, original: None, nat_keepalive: 20 }));
    let other = sa_with(&format!("{UDP}\npeer_port = 20001\nnat_keepalive = 0"), "10.99.0.10");
    assert_eq!(other.encap, Some(Udp { peer_port: 20001, original: None, nat_keepalive: 0 }));
    assert_eq!(run(ROUTER).unwrap().config.sas[0].encap, None);
}

#[test]
fn transport_mode_says_what_the_peer_calls_itself_and_may_show_any_one_address() {
    let (vip, client) = ("10.77.0.100".parse().unwrap(), "10.88.0.10".parse().unwrap());
    assert_eq!(sa_with(TRANSPORT, "10.77.0.10").encap.unwrap().original, Some((vip, client)));
    let shown = sa_with(&format!("{TRANSPORT}\nremote = \"10.88.0.10\""), "10.88.0.10");
    assert_eq!(shown.selectors.remote.to_string(), "10.88.0.10/32");
}

#[test]
fn what_does_not_go_together_is_named() {
    let cases: &[(&str, &str)] = &[
        ("peer_port = 1", "54: `peer_port` is for ESP in UDP (add encapsulation = \"udp\")"),
        ("original = { remote = \"10.88.0.10\" }", "54: `original` is for ESP in UDP (add encapsulation = \"udp\")"),
        ("nat_keepalive = 5", "54: `nat_keepalive` is for ESP in UDP (add encapsulation = \"udp\")"),
        (
            "encapsulation = \"udp\"\nalgorithm = \"ah-aes-128-gmac\"",
            "55: AH cannot travel in UDP: it covers the very addresses that a NAT changes",
        ),
        ("encapsulation = \"tcp\"", "54: [[sa]]: `encapsulation` must be one of `none` or `udp` (did you mean `udp`?)"),
        ("encapsulation = \"udp\"\npeer_port = 0", "55: [[sa]]: `peer_port` must be 1 to 65535"),
        (
            "encapsulation = \"udp\"\nnat_keepalive = 3601",
            "55: [[sa]]: `nat_keepalive` must be 0 (never) to 3600 seconds",
        ),
        (
            "encapsulation = \"udp\"\noriginal = { remote = \"10.88.0.10\" }",
            "55: `original` is for transport mode: what is in a tunnel stays as it is",
        ),
    ];
    for (extra, line) in cases {
        expect(ROUTER, &[("mode = \"tunnel\"", &format!("mode = \"tunnel\"\n{extra}"))], &[line]);
    }
}
