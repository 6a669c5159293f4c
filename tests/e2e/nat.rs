//! A client behind a gateway: one that routes, and one that translates addresses. Behind the latter its ESP travels in UDP, and the
//! NAT may give it another port or address at any time.

use crate::bed::{Bed, Gateway, TO_VIP, Tunnel, wait_until};
use crate::client::Client;
use crate::looks::{all_drops, assert_invariants, pages};
use crate::raw::RawSender;
use crate::wire::{fix_ipv4, readdress};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
const NAT: Tunnel = Tunnel { gateway: Gateway::Nat { mtu: 1500 }, udp: Some(20), ..Tunnel::PLAIN };

#[test]
fn pages_come_over_ipv6_through_a_router_in_between() {
    let bed = Bed::up(Tunnel { outer: 6, inner: 6, gateway: Gateway::Route { mtu: 1500 }, ..Tunnel::PLAIN });
    pages(&bed, 20);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

/// Where a node sends the client's packets: every SA of the tunnel says the same.
fn client_at(bed: &Bed, node: &str) -> Option<(String, u64)> {
    let sas = bed.query(node, "sa");
    let mut ends: Vec<(String, u64)> = sas
        .as_array()?
        .iter()
        .map(|sa| Some((sa["peer"].as_str()?.to_owned(), sa["udp"].as_u64()?)))
        .collect::<Option<_>>()?;
    ends.dedup();
    (ends.len() == 1).then(|| ends.remove(0))
}

/// Waits until all nodes send to that address and a port of that range.
fn all_know(bed: &Bed, address: &str, ports: std::ops::RangeInclusive<u64>) {
    for node in ["r", "t1", "t2"] {
        wait_until(&format!("{node} knows where the client is"), SOON, || {
            client_at(bed, node).is_some_and(|(at, port)| at == address && ports.contains(&port))
        });
    }
}

/// UDP and IP checksums are not touched: the former is 0.
fn ports_of(frame: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([frame[34], frame[35]]), u16::from_be_bytes([frame[36], frame[37]]))
}

#[test]
fn a_client_behind_a_nat_is_served_in_udp_and_followed_wherever_its_nat_puts_it() {
    let bed = Bed::up(NAT);
    bed.capture("sw", "n-gw", "n-gw", &["host", "10.77.0.100"]);
    pages(&bed, 20);
    all_know(&bed, "10.77.0.20", 20000..=24999);
    let client = Client::new(&bed);
    let streams = ["t1", "t2"].map(|target| client.stream_from(target));

    bed.progress("the NAT forgets its mapping and gives another port");
    bed.script("cluster.sh", &["bed_nat", "30000-34999"]);
    pages(&bed, 20);
    all_know(&bed, "10.77.0.20", 30000..=34999);
    streams.iter().for_each(|stream| stream.goes_on(SOON));

    bed.progress("the NAT gets another address");
    bed.script("cluster.sh", &["bed_nat", "40000-44999", "10.77.0.21", "fd77::21"]);
    pages(&bed, 20);
    all_know(&bed, "10.77.0.21", 40000..=44999);
    streams.iter().for_each(|stream| stream.goes_on(SOON));

    hostile(&bed);
    streams.iter().for_each(|stream| stream.goes_on(SOON));
    only_udp(&bed);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    assert_invariants(&bed);
}

/// Packets of the client sent again from elsewhere, as they were and with a bit or the number changed: nobody moves.
fn hostile(bed: &Bed) {
    bed.progress("an attacker sends from another address and port");
    let genuine: Vec<Vec<u8>> = bed.frames("n-gw").filter(|f| f.len() > 60 && ports_of(f).1 == 4500).collect();
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let (place, before) = (client_at(bed, "r"), all_drops(bed));
    let sent = genuine.len().min(300) as u64;
    assert!(sent > 100);
    for (i, frame) in genuine.iter().rev().take(300).enumerate() {
        let mut frame = readdress(frame.clone());
        frame[26..30].copy_from_slice(&[10, 77, 0, 66]);
        frame[34..36].copy_from_slice(&5555u16.to_be_bytes());
        let last = frame.len() - 1;
        match i % 3 {
            0 => {}
            1 => frame[last] ^= 1,
            // A number far ahead of all, which no window knows.
            _ => frame[47] ^= 1,
        }
        fix_ipv4(&mut frame);
        sender.send(&frame);
        // A port of the bed carries no more at once.
        std::thread::sleep(Duration::from_millis(1));
    }
    // Which reason it is depends on how old the packet is and whether its connection is over; there is none but these.
    let fallen = || {
        let after = all_drops(bed);
        ["replay", "too-old", "bad-icv", "unknown-connection"]
            .map(|reason| (reason, after.get(reason).unwrap_or(&0) - before.get(reason).unwrap_or(&0)))
    };
    let sum = || fallen().iter().map(|(_, n)| n).sum::<u64>();
    wait_until("all of it is dropped", SOON, || sum() >= sent);
    bed.progress(&format!("of {sent} packets: {:?}", fallen()));
    let [_, _, bad_icv, unknown] = fallen().map(|(_, n)| n);
    assert_eq!(sum(), sent, "{:?}", fallen());
    assert!(bad_icv > 0 && bad_icv + unknown >= sent / 3, "new numbers pass the windows: {:?}", fallen());
    for node in ["r", "t1", "t2"] {
        assert_eq!(client_at(bed, node), place, "a packet that proves nothing moved the client at {node}");
    }
}

/// Between the NAT and the VIP nothing but UDP with our port, and the targets' answers.
fn only_udp(bed: &Bed) {
    bed.capture_end("n-gw");
    let mut answers = 0;
    // The gateway itself says so when an answer finds its mapping gone: that is ICMP.
    for frame in bed.frames("n-gw").filter(|f| f[12..14] == [8, 0] && f[23] != 1) {
        let (from, to) = ports_of(&frame);
        assert_eq!((frame[23], from == 4500 || to == 4500), (17, true), "{frame:02x?}");
        let payload = &frame[42..];
        if to == 4500 && payload.len() > 8 {
            assert_eq!(payload[..4], TO_VIP.to_be_bytes());
        } else if from == 4500 && payload.len() > 8 {
            answers += 1;
            assert_eq!(frame[40..42], [0, 0], "RFC 3948 §2.1: no checksum");
        }
    }
    assert!(answers > 100);
}

#[test]
fn pages_come_in_udp_over_ipv6() {
    let bed = Bed::up(Tunnel { outer: 6, inner: 4, esn: true, ..NAT });
    pages(&bed, 20);
    all_know(&bed, "fd77::20", 20000..=24999);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

#[test]
fn transport_mode_works_behind_a_nat_and_connections_survive_its_moves() {
    let bed = Bed::up(Tunnel { mode: "transport", udp: Some(1), ..NAT });
    bed.capture("sw", "n-gw", "n-gw", &["udp", "src", "port", "4500"]);
    pages(&bed, 20);
    let size = bed.guest_ok(&format!("curl -sS -o /dev/null -w '%{{size_download}}' http://{}/megabyte", bed.host()));
    assert_eq!(size, "1000000");
    let client = Client::new(&bed);
    let stream = client.stream();
    bed.script("cluster.sh", &["bed_nat", "30000-34999", "10.77.0.21"]);
    pages(&bed, 20);
    all_know(&bed, "10.77.0.21", 30000..=34999);
    stream.goes_on(SOON);
    stream.stop();

    bed.progress("silence: after a second the router keeps the mapping alive, and only the router");
    let router = crate::looks::network_mac("r");
    let keepalive = |frame: &Vec<u8>| frame.len() >= 43 && frame[38..40] == [0, 9] && frame[42] == 0xff;
    let before = bed.frames("n-gw").filter(keepalive).count();
    wait_until("keepalives come", SOON, || bed.frames("n-gw").filter(keepalive).count() >= before + 2);
    for frame in bed.frames("n-gw").filter(keepalive) {
        assert_eq!(frame[6..12], router);
    }
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    assert_invariants(&bed);
}
