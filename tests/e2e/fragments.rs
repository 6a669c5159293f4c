//! Packets in fragments: large ones of the client, and those of an attacker.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::client::Client;
use crate::looks::{assert_invariants, drops, network_mac};
use crate::raw::RawSender;
use crate::wire::{ATTACKER, fix_ipv4};
use std::time::Duration;

/// A packet counter of a node, over all its cores.
fn stage(bed: &Bed, node: &str, name: &str) -> u64 {
    let status = bed.query(node, "status");
    let cores = status["cores"].as_array().expect("a list");
    cores.iter().filter_map(|core| core["stages"][name].as_u64()).sum()
}

/// Echo requests of 4,028 bytes, and answers as large.
fn ping(bed: &Bed, count: u32) -> String {
    format!("ping -M dont -n -c {count} -i 0.05 -W 10 -s 4000 {}", bed.host().trim_matches(['[', ']']))
}

fn assert_all_answered(output: &str) {
    assert!(output.contains(" 0% packet loss"), "{output}");
}

#[test]
fn large_pings_come_through_over_ipv6_whichever_way_linux_cuts_them() {
    // IPv4 inside: the ESP packet is cut. IPv6 inside: what goes into the tunnel is.
    for inner in [4, 6] {
        let bed = Bed::up(Tunnel { outer: 6, inner, ..Tunnel::PLAIN });
        assert_all_answered(&bed.guest_ok(&ping(&bed, 5)));
        assert_eq!(stage(&bed, "r", "reassembled") > 0, inner == 4, "the ESP packets were in fragments");
        assert_invariants(&bed);
        assert_eq!(bed.xfrm_errors(), []);
    }
}

/// An IPv4 fragment to the VIP that says it is ESP. Offset and length in bytes.
fn fragment(source: [u8; 4], id: u16, offset: u16, more: bool, len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(34 + len);
    frame.extend(network_mac("r"));
    frame.extend(ATTACKER);
    let word = (u16::from(more) << 13) | (offset / 8);
    let ([a, b], [c, d]) = (id.to_be_bytes(), word.to_be_bytes());
    frame.extend([8, 0, 0x45, 0, 0, 0, a, b, c, d, 64, 50, 0, 0]);
    frame.extend(source);
    frame.extend([10, 77, 0, 100]);
    frame.resize(34 + len, id as u8);
    fix_ipv4(&mut frame);
    frame
}

/// Sends the frames, and waits until the router has counted at least so many under that name.
fn attack(bed: &Bed, sender: &RawSender, rate: u32, frames: &[Vec<u8>], (reason, least): (&str, u64)) {
    let counted = || drops(bed, "r").get(reason).copied().unwrap_or(0);
    let before = counted();
    sender.send_at(rate, frames.iter().map(Vec::as_slice));
    wait_until(reason, Duration::from_secs(10), || counted() - before >= least);
    bed.progress(&format!("{} frames: {} {reason}", frames.len(), counted() - before));
}

#[test]
fn large_pings_come_through_over_ipv4_and_hostile_fragments_take_nothing_from_anybody() {
    let bed = Bed::up(Tunnel { driver: "net_af_xdp", window: 1024, ..Tunnel::PLAIN });
    assert_all_answered(&bed.guest_ok(&ping(&bed, 5)));
    assert!(stage(&bed, "r", "reassembled") >= 5, "the ESP packets were in fragments");

    let client = Client::new(&bed);
    let stream = client.stream();
    let pings = bed.guest_start(&ping(&bed, 100));
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let (peer, other) = ([10, 77, 0, 10], [10, 77, 0, 66]);
    let each = |n: u16, one: &dyn Fn(u16) -> Vec<Vec<u8>>| (0..n).flat_map(one).collect::<Vec<_>>();
    let overlapping = |id| vec![fragment(other, id, 0, true, 800), fragment(other, id, 400, true, 800)];
    attack(&bed, &sender, 1000, &each(200, &overlapping), ("fragment-overlap", 400));
    let tiny = |id| (0..40).map(|n| fragment(other, id, n * 8, true, 8)).collect();
    attack(&bed, &sender, 1000, &each(20, &tiny), ("fragment-too-many", 600));
    let endless = |id| (0..10).map(|n| fragment(other, id, n * 1400, true, 1400)).collect();
    attack(&bed, &sender, 1000, &each(20, &endless), ("fragment-too-big", 160));
    // Never completed, in the name of the client itself and of thousands: so slowly that the client's own, of which three
    // pieces follow each other, are whole before theirs is the oldest.
    let of_peer = |id| vec![fragment(peer, 40_000 + id, 0, true, 1400)];
    attack(&bed, &sender, 250, &each(150, &of_peer), ("fragment-limit", 100));
    let of_many = |id: u16| vec![fragment([10, 77, 1 + (id >> 8) as u8, id as u8], id, 0, true, 1400)];
    attack(&bed, &sender, 1000, &each(1500, &of_many), ("fragment-limit", 1400));
    wait_until("what is left is given up", Duration::from_secs(10), || drops(&bed, "r")["fragment-timeout"] >= 16);

    stream.goes_on(Duration::from_secs(10));
    stream.stop();
    let (_, output) = pings.finish(Duration::from_secs(60));
    assert_all_answered(&output);
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), []);
}
