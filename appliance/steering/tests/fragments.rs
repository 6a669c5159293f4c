//! What is remembered of first fragments, against a plain list; and what the beginning of a fragment shows.

use std::collections::HashMap;

use phalanx_steering::fragments::{KEEP_MS, NEAR};
use phalanx_steering::{Firsts, Follow, FragmentKey, Piece, Seen};
use phalanx_wire::{PeerId, TcpFlags, TcpHeader, ip, ipv4, protocol, tcp};
use proptest::prelude::*;

fn key(peer: u32, id: u32, host: u8) -> FragmentKey {
    let src = format!("10.99.0.{host}").parse().unwrap();
    FragmentKey { peer: PeerId(peer), src, dst: "10.77.0.100".parse().unwrap(), id, protocol: protocol::TCP }
}

proptest! {
    #[test]
    fn it_remembers_as_a_list_does_for_a_time_and_never_mixes_packets_up(
        steps in proptest::collection::vec((0u32..3, 0u32..40, 0u8..3, any::<bool>(), 0u64..300), 0..300),
    ) {
        let mut small = Firsts::new(16, [1, 2]).unwrap();
        let mut large = Firsts::new(1 << 14, [3, 4]).unwrap();
        prop_assert_eq!(small.capacity(), 16);
        let (mut model, mut now) = (HashMap::new(), 0u64);
        for (n, (peer, id, host, note, wait)) in steps.into_iter().enumerate() {
            now += wait;
            let key = key(peer, id, host);
            let known = model.get(&(peer, id, host)).filter(|(_, since)| now - since < KEEP_MS).map(|(n, _)| *n);
            prop_assert_eq!(large.find(&key, now), known, "room for all of them");
            let found = small.find(&key, now);
            prop_assert!(found.is_none() || found == known);
            if note {
                small.note(key, n, now);
                large.note(key, n, now);
                model.insert((peer, id, host), (n, now));
                prop_assert_eq!(small.find(&key, now), Some(n), "the newest always has room");
            }
        }
    }
}

#[test]
fn a_later_fragment_has_a_number_soon_after_its_first() {
    let follow = Follow { number: 100, flow: None };
    assert!(follow.is_near(101) && follow.is_near(100 + NEAR));
    assert!(!follow.is_near(100) && !follow.is_near(99) && !follow.is_near(101 + NEAR));
}

/// A fragment of a TCP segment: `len` bytes from `offset` on.
fn fragment(upper: u8, offset: u16, len: usize) -> Vec<u8> {
    let mut whole = vec![0; 4000];
    let header = TcpHeader {
        src_port: 4000,
        dst_port: 80,
        seq: 1,
        ack: 1,
        data_offset: tcp::MIN_LEN,
        flags: TcpFlags(TcpFlags::ACK),
        window: 1000,
    };
    header.write(&mut whole).unwrap();
    let fields = ip::Fields {
        src: "10.99.0.10".parse().unwrap(),
        dst: "10.77.0.100".parse().unwrap(),
        protocol: upper,
        payload_len: len,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: false,
        identification: 7,
    };
    let mut packet = vec![0; 20];
    ip::write_header(&mut packet, &fields).unwrap();
    packet.extend_from_slice(&whole[usize::from(offset)..usize::from(offset) + len]);
    ipv4::set_fragment(&mut packet, offset, true).unwrap();
    packet
}

#[test]
fn the_first_fragment_shows_its_connection_and_the_others_whose_they_are() {
    let Some(Piece::First(Seen::Tcp { flow, .. })) = Piece::of(PeerId(1), &fragment(protocol::TCP, 0, 1000)) else {
        panic!("not the first one");
    };
    assert_eq!((flow.local.port, flow.remote.port), (80, 4000));
    assert_eq!(Piece::of(PeerId(1), &fragment(protocol::TCP, 1000, 1000)), Some(Piece::Later(key(1, 7, 10))));
    let icmp = FragmentKey { protocol: protocol::ICMP, ..key(1, 7, 10) };
    assert_eq!(Piece::of(PeerId(1), &fragment(protocol::ICMP, 1000, 1000)), Some(Piece::Later(icmp)));
    assert_eq!(Piece::of(PeerId(1), &fragment(protocol::ICMP, 0, 1000)), None);
}

#[test]
fn a_fragment_that_cuts_the_tcp_header_apart_is_told() {
    for (offset, len, tiny) in [(0, 16, true), (8, 1000, true), (16, 1000, true), (0, 24, false), (24, 8, false)] {
        let piece = Piece::of(PeerId(1), &fragment(protocol::TCP, offset, len));
        assert_eq!(piece == Some(Piece::Tiny), tiny, "{offset} {len}");
    }
    assert_ne!(Piece::of(PeerId(1), &fragment(protocol::UDP, 8, 1000)), Some(Piece::Tiny));
}
