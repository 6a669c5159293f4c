//! AH around ESP.

use super::*;

const AH: &str = "\n[[sa]]\nname = \"around\"\nvip = \"web\"\npeer = \"10.77.0.10\"\nmode = \"transport\"\n\
    algorithm = \"ah-hmac-sha256\"\n";

/// The router with an SA of AH behind its own, which is within it.
fn bundle(more: &str) -> String {
    let keys = ["33", "44"].map(|byte| byte.repeat(32));
    let halves = format!(
        "inbound = {{ spi = 0x1001, key = \"{}\" }}\noutbound = {{ spi = 0x2001, key = \"{}\" }}\n",
        keys[0], keys[1]
    );
    let text = ROUTER.replace("hard_bytes = 1000000", "within = \"around\"");
    assert_ne!(text, ROUTER);
    format!("{text}{AH}{halves}{more}")
}

#[test]
fn esp_may_be_within_ah_whose_spis_are_others() {
    let config = run(&bundle("")).unwrap().config;
    assert_eq!((config.sas[0].within, config.sas[1].within), (Some(1), None));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn what_cannot_be_around_is_named_with_its_line() {
    let cases: &[(&str, &str, &str)] = &[
        ("within = \"around\"", "within = \"arond\"", "57: there is no SA `arond` (did you mean `around`?)"),
        ("within = \"around\"", "within = \"client\"", "57: `client` is no SA of AH: only that goes around another"),
        (
            "mode = \"transport\"",
            "mode = \"tunnel\"",
            "57: `around` is in tunnel mode: AH goes around ESP in transport mode",
        ),
        (
            "peer = \"10.77.0.10\"\nmode = \"transport\"",
            "peer = \"10.77.0.11\"\nmode = \"transport\"",
            "57: `around` has another peer",
        ),
        (
            "mode = \"transport\"",
            "mode = \"transport\"\nprotocol = \"tcp\"",
            "57: `around` is for one protocol, and not for ESP",
        ),
        (
            "mode = \"tunnel\"\nremote",
            "mode = \"tunnel\"\nencapsulation = \"udp\"\nremote",
            "58: ESP in UDP cannot be within AH: it covers the very addresses that a NAT changes",
        ),
        (
            "algorithm = \"ah-hmac-sha256\"",
            "algorithm = \"ah-hmac-sha256\"\nwithin = \"client\"",
            "71: AH is around ESP, not around AH",
        ),
    ];
    for (from, to, line) in cases {
        expect(&bundle(""), &[(from, to)], &[line]);
    }
}

#[test]
fn another_vip_and_ports_are_named_too() {
    let vip = "[[vip]]\nname = \"w2\"\nowner = \"r1\"\naddress = \"10.77.0.101/24\"\n";
    let text = bundle(vip).replace("name = \"around\"\nvip = \"web\"", "name = \"around\"\nvip = \"w2\"");
    expect(&text, &[], &["57: `around` is of another VIP"]);
    let ports = "mode = \"transport\"\nprotocol = \"tcp\"\nlocal_ports = 80";
    let lines =
        ["57: `around` is for one protocol, and not for ESP", "57: `around` is for some ports, and ESP has none"];
    expect(&bundle(""), &[("mode = \"transport\"", ports)], &lines);
}
