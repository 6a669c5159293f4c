//! UDP flows are distributed where the router says so: both targets answer, each flow has one target; without it the router's own host does.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::{Wire, assert_invariants};
use crate::raw;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Where the echo servers are.
const PORT: u16 = 7;
/// Where nobody is.
const CLOSED: u16 = 9;
const FLOWS: usize = 20;

const RULE: &str = r#"ports = [80, 5201, 8080], targets = ["t1", "t2"] }"#;

/// Answers each datagram with the name of its host, until the test ends.
fn serve(bed: &Bed, host: &'static str) {
    let socket = raw::datagrams(&bed.namespace(host), bed.host().trim_matches(['[', ']']), PORT);
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(host.as_bytes(), from);
        }
    });
}

/// Who answered each of some flows, whose ports begin at `from`: three datagrams each, in turn.
fn asked(bed: &Bed, from: u16) -> BTreeMap<String, Vec<String>> {
    let host = bed.host().trim_matches(['[', ']']);
    let said = bed.guest_ok(&format!("/usr/bin/python3 /mnt/udp.py {host} {PORT} {from} {FLOWS}"));
    serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn by(flows: &BTreeMap<String, Vec<String>>, host: &str) -> usize {
    flows.values().filter(|answers| answers.len() == 3 && answers.iter().all(|by| by == host)).count()
}

fn distributes_udp(tunnel: Tunnel) {
    let bed = Bed::up_with(tunnel, |bed| {
        let file = bed.file("etc/r.toml");
        let text = fs::read_to_string(&file).expect("the router's configuration");
        assert!(text.contains(RULE));
        let more = format!(r#"{RULE}, {{ ports = [{PORT}, {CLOSED}], targets = ["t1", "t2"], protocol = "udp" }}"#);
        fs::write(&file, text.replace(RULE, &more)).expect("the configuration can be written");
    });
    for port in ["n-cl", "n-r"] {
        bed.capture("sw", port, port, &["-s", "160"]);
    }
    fs::write(bed.file("guest/udp.py"), include_str!("udp.py")).expect("the guest's folder");
    ["r", "t1", "t2"].into_iter().for_each(|host| serve(&bed, host));
    let rules = bed.query("r", "vip")[0]["ports"].to_string();
    assert!(rules.contains("udp 7,9 -> t1,t2"), "{rules}");
    let listens = |row: &Value| row["listening"].to_string().contains("udp 7");
    wait_until("the router knows who listens", SOON, || {
        bed.query("r", "target").as_array().is_some_and(|rows| rows.len() == 2 && rows.iter().all(listens))
    });

    bed.progress("many flows");
    let flows = asked(&bed, 20_000);
    assert_eq!((by(&flows, "t1"), by(&flows, "t2")), (FLOWS / 2, FLOWS / 2), "in turn, and each stays: {flows:?}");
    let established = |bed: &Bed| {
        let rows = bed.query("r", "conn");
        let rows = rows.as_array().expect("rows").iter();
        rows.filter(|row| row["protocol"] == "udp" && row["state"] == "established").count()
    };
    wait_until("the router hears of them", SOON, || established(&bed) == FLOWS);

    bed.progress("nobody listens");
    let host = bed.host().trim_matches(['[', ']']);
    let (_, words) = bed.guest(&format!("/usr/bin/python3 /mnt/udp.py {host} {CLOSED} 30000 1"));
    assert!(words.contains("refused"), "{words}");
    let no_listener = |row: &Value| row["reason"] == "no-listener" && row["packets"].as_u64() > Some(0);
    assert!(bed.query("r", "drop").as_array().expect("rows").iter().any(no_listener));

    bed.progress("without the rule: known flows go on, new ones are the router's");
    let file = bed.file("etc/r.toml");
    let text = fs::read_to_string(&file).expect("the router's configuration");
    fs::write(&file, text.replace("protocol = \"udp\"", "protocol = \"tcp\"")).expect("it can be written");
    bed.hangup("r");
    wait_until("reloaded", SOON, || !bed.query("r", "vip").to_string().contains("udp"));
    assert_eq!(asked(&bed, 20_000), flows);
    assert_eq!(by(&asked(&bed, 25_000), "r"), FLOWS);

    assert_eq!(bed.xfrm_errors(), [], "no number came twice");
    assert_invariants(&bed);
    bed.capture_end("n-r");
    let wire = Wire::of(&bed.capture_end("n-cl"));
    assert!(wire.clear.is_empty(), "in clear: {:?}", wire.clear);
    assert!(wire.answers("t1") > 0 && wire.answers("t2") > 0, "straight to the client: {wire:?}");
}

#[test]
fn udp_flows_go_to_both_targets_and_each_stays_at_its_own() {
    distributes_udp(Tunnel::PLAIN);
}

#[test]
fn udp_flows_over_ipv6_in_transport_mode_too() {
    distributes_udp(Tunnel { outer: 6, inner: 6, mode: "transport", esn: true, ..Tunnel::PLAIN });
}
