//! Peek, decision and admission, on real packets.

mod common;

use common::{ACK, FIN, RST, SYN, key, segment};
use phalanx_steering::look::{FIRST_PEEK, MAX_PEEK, Shape, look};
use phalanx_steering::{
    Arrival, Candidate, Conn, ConnKey, ConnectionTable, Cursor, Decision, Look, Opened, Policy, Progress, Protection,
    Seen, Selector, TableLimits, steer,
};
use phalanx_wire::ip::{Fields, write_header};
use phalanx_wire::{DropReason, Flow, IpHeader, PeerId, Spi, TargetId, protocol};
use proptest::prelude::*;
use std::net::IpAddr;

const ARRIVAL: Arrival = Arrival {
    peer: PeerId(1),
    spi: Spi(0x1001),
    number: 100,
    protection: Protection::Esp,
    encrypted: true,
    tunnel: true,
    outer_is_vip: true,
    inner_is_vip: true,
    settled: true,
};

fn header(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let fields = Fields {
        src: src.parse().expect("an address"),
        dst: dst.parse().expect("an address"),
        protocol,
        payload_len: payload.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 7,
    };
    let mut packet = vec![0; 40];
    let len = write_header(&mut packet, &fields).expect("room");
    packet.truncate(len);
    packet.extend_from_slice(payload);
    packet
}

fn tcp_bytes(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    segment(flags, 1, 2).write(&mut bytes).expect("room");
    bytes
}

/// IPv6 with a chain of destination options of `lens` bytes each (multiples of 8) before a TCP header.
fn v6_with_options(lens: &[usize], flags: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, len) in lens.iter().enumerate() {
        let next = if at + 1 == lens.len() { 6 } else { 60 };
        let mut option = vec![0; *len];
        option[..2].copy_from_slice(&[next, (len / 8 - 1) as u8]);
        // PadN options of at most 255 + 2 bytes; Pad1 (zero) fills the rest.
        payload.extend(option);
    }
    payload.extend(tcp_bytes(flags));
    let first = if lens.is_empty() { 6 } else { 60 };
    header("fd99::10", "fd77::100", first, &payload)
}

fn look_in_rounds(shape: Shape<'_>, packet: &[u8]) -> (Seen, usize) {
    let mut len = FIRST_PEEK.min(packet.len());
    for _ in 0..packet.len() + 2 {
        match look(shape, &packet[..len], packet.len()) {
            Look::Seen(seen) => return (seen, len),
            Look::NeedMore(more) => {
                assert!(more > len && more <= packet.len().min(MAX_PEEK));
                len = more;
            }
        }
    }
    panic!("no end");
}

fn table() -> ConnectionTable {
    let limits = TableLimits { connections: 1000, half_open_per_peer: 4, ..TableLimits::default() };
    ConnectionTable::new(limits, [5, 6]).expect("limits are good")
}

fn selector() -> Selector {
    let target = |id| Candidate { id: TargetId(id), eligible: true, draining: false, weight: 1 };
    Selector::new(Policy::RoundRobin, &[target(1), target(2)])
}

/// Where every port is distributed.
fn decide(arrival: &Arrival, seen: &Seen, table: &ConnectionTable) -> Decision {
    steer::decide(arrival, seen, table, |_| true)
}

fn admit(
    peer: PeerId,
    opened: &Opened,
    table: &mut ConnectionTable,
    selector: &mut Selector,
    now: u64,
) -> Result<TargetId, DropReason> {
    let choose =
        |_, table: &ConnectionTable| selector.select(|target| table.connections_of(target)).ok_or(DropReason::NoTarget);
    steer::admit(peer, opened, table, choose, now)
}

fn contents(table: &ConnectionTable) -> Vec<Conn> {
    let (mut cursor, mut all) = (Cursor::default(), Vec::new());
    while table.scan(&mut cursor, 64, |conn| all.push(conn)) == Progress::More {}
    all
}

fn seen(flags: u8) -> Seen {
    of_packet(&header("10.99.0.10", "10.77.0.100", 6, &tcp_bytes(flags)))
}

fn of_packet(packet: &[u8]) -> Seen {
    *Opened::packet(packet).seen()
}

fn opened(flags: u8) -> Opened {
    Opened::packet(&header("10.99.0.10", "10.77.0.100", 6, &tcp_bytes(flags)))
}

fn key_of(seen: &Seen) -> ConnKey {
    let Seen::Tcp { flow, .. } = seen else { panic!("not TCP: {seen:?}") };
    ConnKey { peer: PeerId(1), flow: *flow }
}

#[test]
fn an_icmp_error_belongs_to_the_connection_that_it_quotes() {
    let quoted = header("10.77.0.100", "10.99.0.10", 6, &[0, 80, 0x9c, 0x40, 0, 0, 0, 0]);
    let error = header("10.99.0.1", "10.77.0.100", 1, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat());
    let Look::Seen(Seen::Error { flow }) = look(Shape::Packet, &error, error.len()) else { panic!("an error") };
    assert_eq!((flow.local.port, flow.remote.port), (80, 40_000));
    // Not an error, or about somebody else's packet: another ICMP packet.
    for (at, byte) in [(20, 8), (20 + 8 + 15, 9)] {
        let mut other = error.clone();
        other[at] = byte;
        assert!(matches!(look(Shape::Packet, &other, other.len()), Look::Seen(Seen::Other { protocol: 1, .. })));
    }
    // Cut within the ports: on its way to us, or only in what was decrypted so far.
    assert!(matches!(look(Shape::Packet, &error[..51], 51), Look::Seen(Seen::Other { protocol: 1, .. })));
    assert_eq!(look(Shape::Packet, &error[..51], error.len()), Look::NeedMore(error.len()));
}

#[test]
fn ports_that_stand_behind_options_of_a_quoted_packet_are_asked_for() {
    let plain = header("10.77.0.100", "10.99.0.10", 6, &[0, 80, 0x9c, 0x40, 0, 0, 0, 0]);
    let mut quoted = [&plain[..20], &[1; 40], &plain[20..]].concat();
    quoted[0] = 0x4f;
    quoted[3] += 40;
    let error = header("10.99.0.1", "10.77.0.100", 1, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &quoted].concat());
    assert_eq!(look(Shape::Packet, &error[..FIRST_PEEK], error.len()), Look::NeedMore(error.len()));
    let Look::Seen(Seen::Error { flow }) = look(Shape::Packet, &error, error.len()) else { panic!("an error") };
    assert_eq!((flow.local.port, flow.remote.port), (80, 40_000));
}

#[test]
fn the_first_peek_shows_a_plain_connection_of_either_version() {
    for (src, dst) in [("10.99.0.10", "10.77.0.100"), ("fd99::10", "fd77::100")] {
        let packet = header(src, dst, 6, &[tcp_bytes(SYN), vec![0; 100]].concat());
        let Look::Seen(Seen::Tcp { flow, tcp }) = look(Shape::Packet, &packet[..FIRST_PEEK], packet.len()) else {
            panic!("not seen at once");
        };
        assert_eq!((flow.remote.to_string(), flow.local.port), (format_end(src, 40000), 80));
        assert_eq!(flow.local.addr, dst.parse::<IpAddr>().expect("an address"));
        assert!(tcp.flags.opens());
    }
}

fn format_end(addr: &str, port: u16) -> String {
    std::net::SocketAddr::new(addr.parse().expect("an address"), port).to_string()
}

#[test]
fn extension_headers_are_followed_by_decrypting_more_and_more() {
    for lens in [&[][..], &[8], &[64], &[8, 8, 8, 8], &[128, 64], &[256]] {
        let packet = v6_with_options(lens, SYN);
        let (seen, _) = look_in_rounds(Shape::Packet, &packet);
        assert!(matches!(seen, Seen::Tcp { tcp, .. } if tcp.flags.opens()), "{lens:?}: {seen:?}");
    }
}

#[test]
fn a_chain_that_is_too_long_is_left_to_the_router() {
    let packet = v6_with_options(&[800], SYN);
    let (seen, peeked) = look_in_rounds(Shape::Packet, &packet);
    assert_eq!((seen, peeked), (Seen::Opaque, MAX_PEEK));
    assert_eq!(decide(&Arrival { inner_is_vip: false, ..ARRIVAL }, &seen, &table()), Decision::Local);
}

#[test]
fn in_transport_mode_the_addresses_are_those_of_the_outer_header() {
    let outer = header("10.77.0.10", "10.77.0.100", 50, &[0; 60]);
    let outer = IpHeader::parse(&outer).expect("a header");
    let arrival = Arrival { tunnel: false, inner_is_vip: false, ..ARRIVAL };
    let options = [&[6, 1][..], &[0; 14], &tcp_bytes(SYN)].concat();
    for (next_header, payload) in [(6, tcp_bytes(SYN)), (60, options)] {
        let shape = Shape::Payload { outer: &outer, next_header };
        let (seen, _) = look_in_rounds(shape, &payload);
        let key = key_of(&seen);
        assert_eq!((key.flow.remote.addr, key.flow.local.addr), (outer.src, outer.dst));
        assert_eq!(decide(&arrival, &seen, &table()), Decision::OpenThenSelect);
    }
    let udp = look_in_rounds(Shape::Payload { outer: &outer, next_header: 17 }, &tcp_bytes(SYN)).0;
    assert_eq!(decide(&arrival, &udp, &table()), Decision::Local);
}

#[test]
fn a_syn_is_opened_and_gets_the_next_target_and_what_follows_is_forwarded_unopened() {
    let (mut table, mut selector) = (table(), selector());
    assert_eq!(decide(&ARRIVAL, &seen(SYN), &table), Decision::OpenThenSelect);
    assert_eq!(admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 0), Ok(TargetId(1)));
    for flags in [ACK, FIN | ACK, RST, SYN | ACK] {
        assert_eq!(decide(&ARRIVAL, &seen(flags), &table), Decision::Forward { target: TargetId(1) });
    }
    let other = Arrival { peer: PeerId(2), ..ARRIVAL };
    assert_eq!(decide(&other, &seen(ACK), &table), Decision::Local, "another peer's address is another connection");
}

#[test]
fn each_syn_is_opened_whatever_is_known_of_its_connection() {
    let (mut table, mut selector) = (table(), selector());
    admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 0).expect("a target");
    assert_eq!(decide(&ARRIVAL, &seen(SYN), &table), Decision::OpenThenSelect);
    assert_eq!(admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 9_000), Ok(TargetId(1)), "the same target");
    assert_eq!(table.lookup(&key_of(&seen(SYN))).map(|conn| conn.since), Some(9_000));
    table.confirm(&key_of(&seen(SYN)), 9_500);
    // I2: forwarded unopened its number would be known to the target alone, and a copy of it, once the connection is over,
    // would begin another.
    assert_eq!(decide(&ARRIVAL, &seen(SYN), &table), Decision::OpenThenSelect);
    assert_eq!(admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 9_600), Ok(TargetId(1)), "the same target");
}

#[test]
fn packets_from_before_a_connections_first_syn_are_not_of_it() {
    let (mut table, mut selector) = (table(), selector());
    let key = key_of(&seen(SYN));
    let at = |number| Arrival { number, ..ARRIVAL };
    admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 0).expect("a target");
    table.begin(&key, ARRIVAL.spi, (1 << 32) + 50);
    table.begin(&key, ARRIVAL.spi, (1 << 32) + 60);
    let forward = Decision::Forward { target: TargetId(1) };
    for (number, expected) in [
        ((1 << 32) + 49, Decision::Drop(DropReason::TooOld)),
        ((1 << 32) - 1, Decision::Drop(DropReason::TooOld)),
        (1, Decision::Drop(DropReason::TooOld)),
        ((1 << 32) + 51, forward),
        ((1 << 32) + 55, forward),
        ((2 << 32) + 20, forward),
        (1 << 46, forward),
    ] {
        assert_eq!(decide(&at(number), &seen(ACK), &table), expected, "{number:#x}");
    }
    let rekeyed = Arrival { spi: Spi(0x1002), number: 1, ..ARRIVAL };
    assert_eq!(decide(&rekeyed, &seen(ACK), &table), forward, "another SA counts from 1");
}

#[test]
fn unknown_packets_other_than_a_syn_are_the_routers() {
    for flags in [ACK, RST, RST | ACK, SYN | ACK, SYN | FIN, SYN | RST, FIN | ACK, 0] {
        assert_eq!(decide(&ARRIVAL, &seen(flags), &table()), Decision::Local);
    }
}

#[test]
fn before_it_is_settled_the_router_forwards_what_is_known_and_answers_nothing() {
    let mut table = table();
    let unsettled = Arrival { settled: false, ..ARRIVAL };
    let ping = of_packet(&header("10.99.0.10", "10.77.0.100", 1, &[8, 0, 0, 0, 0, 0, 0, 0]));
    for what in [seen(SYN), seen(ACK), seen(RST), ping] {
        assert_eq!(decide(&unsettled, &what, &table), Decision::Drop(DropReason::Settling));
    }
    table.restore(&key_of(&seen(ACK)), TargetId(2), 0).expect("room");
    assert_eq!(decide(&unsettled, &seen(ACK), &table), Decision::Forward { target: TargetId(2) });
}

#[test]
fn fragments_and_other_protocols_are_the_routers_even_in_a_known_connection() {
    let mut table = table();
    table.restore(&key_of(&seen(ACK)), TargetId(2), 0).expect("room");
    let mut packet = header("10.99.0.10", "10.77.0.100", 6, &tcp_bytes(ACK));
    packet[6] = 0x20; // more fragments
    packet[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let fragment = of_packet(&packet);
    assert!(matches!(fragment, Seen::Other { fragment: true, .. }), "{fragment:?}");
    assert_eq!(decide(&ARRIVAL, &fragment, &table), Decision::Local);
}

#[test]
fn a_connection_through_a_tunnel_that_does_not_end_at_the_vip_is_forwarded_opened() {
    let mut table = table();
    let arrival = Arrival { outer_is_vip: false, ..ARRIVAL };
    assert_eq!(decide(&arrival, &seen(SYN), &table), Decision::OpenThenSelect);
    table.restore(&key_of(&seen(ACK)), TargetId(2), 0).expect("room");
    assert_eq!(decide(&arrival, &seen(ACK), &table), Decision::OpenThenForward { target: TargetId(2) });
    let inner = Arrival { inner_is_vip: false, ..ARRIVAL };
    assert_eq!(decide(&inner, &seen(ACK), &table), Decision::Local);
}

#[test]
fn a_port_that_is_not_distributed_is_the_routers_unless_its_connection_is_known() {
    let (mut table, mut selector) = (table(), selector());
    let not_80 = |flow: Flow| flow.local.port != 80;
    assert_eq!(steer::decide(&ARRIVAL, &seen(SYN), &table, not_80), Decision::Local);
    let unsettled = Arrival { settled: false, ..ARRIVAL };
    let settling = Decision::Drop(DropReason::Settling);
    assert_eq!(steer::decide(&unsettled, &seen(SYN), &table, not_80), settling);
    let nobody = |_: Flow, _: &ConnectionTable| Err(DropReason::NoTarget);
    assert_eq!(steer::admit(PeerId(1), &opened(SYN), &mut table, nobody, 0), Err(DropReason::NoTarget));
    assert!(table.is_empty());
    admit(PeerId(1), &opened(SYN), &mut table, &mut selector, 0).expect("a target");
    assert_eq!(steer::decide(&ARRIVAL, &seen(SYN), &table, not_80), Decision::OpenThenSelect);
    assert_eq!(steer::admit(PeerId(1), &opened(SYN), &mut table, nobody, 5), Ok(TargetId(1)));
    assert_eq!(steer::decide(&ARRIVAL, &seen(ACK), &table, not_80), Decision::Forward { target: TargetId(1) });
}

/// From this port of the client, over either IP version.
fn datagram(version: u8, port: u16) -> Vec<u8> {
    let bytes = [&port.to_be_bytes()[..], &[1, 187, 0, 9, 0, 0, 7]].concat();
    match version {
        4 => header("10.99.0.10", "10.77.0.100", 17, &bytes),
        _ => header("fd99::10", "fd77::100", 17, &bytes),
    }
}

#[test]
fn a_datagram_of_an_unknown_flow_begins_one_where_its_port_is_distributed() {
    let (mut table, mut selector) = (table(), selector());
    let udp_443 = |flow: Flow| (flow.protocol, flow.local.port) == (protocol::UDP, 443);
    for version in [4, 6] {
        let opened = [4000, 4001].map(|port| Opened::packet(&datagram(version, port)));
        let [first, second] = opened.map(|opened| *opened.seen());
        assert!(matches!(first, Seen::Udp { flow } if flow.remote.port == 4000), "{first:?}");
        assert_eq!(steer::decide(&ARRIVAL, &first, &table, |_| false), Decision::Local, "off by default");
        assert_eq!(steer::decide(&ARRIVAL, &first, &table, udp_443), Decision::OpenThenSelect);
        let unsettled = Arrival { settled: false, ..ARRIVAL };
        assert_eq!(steer::decide(&unsettled, &first, &table, udp_443), Decision::Drop(DropReason::Settling));
        let chosen = opened.map(|opened| admit(PeerId(1), &opened, &mut table, &mut selector, 0));
        assert_eq!(chosen, [Ok(TargetId(1)), Ok(TargetId(2))]);
        assert_eq!(admit(PeerId(1), &opened[0], &mut table, &mut selector, 5), Ok(TargetId(1)), "known by now");
        for (seen, target) in [(first, TargetId(1)), (second, TargetId(2))] {
            assert_eq!(steer::decide(&unsettled, &seen, &table, |_| false), Decision::Forward { target });
            table.begin(&ConnKey { peer: PeerId(1), flow: seen.flow().expect("a flow") }, ARRIVAL.spi, 100);
            let older = Arrival { number: 99, ..ARRIVAL };
            assert_eq!(steer::decide(&older, &seen, &table, udp_443), Decision::Drop(DropReason::TooOld));
        }
    }
    let cut = header("10.99.0.10", "10.77.0.100", 17, &[0; 7]);
    assert_eq!(steer::decide(&ARRIVAL, &of_packet(&cut), &table, udp_443), Decision::Local);
}

#[test]
fn a_peek_at_udp_sees_the_same_in_tunnel_and_transport_mode() {
    for version in [4, 6] {
        let packet = datagram(version, 4000);
        let (seen, _) = look_in_rounds(Shape::Packet, &packet);
        let outer = IpHeader::parse(&packet).expect("a header");
        let shape = Shape::Payload { outer: &outer, next_header: 17 };
        assert_eq!(look_in_rounds(shape, outer.upper_of(&packet)).0, seen);
        assert!(matches!(seen, Seen::Udp { .. }));
    }
}

#[test]
fn what_turns_out_not_to_be_a_syn_makes_no_entry() {
    let (mut table, mut selector) = (table(), selector());
    for opened in [opened(ACK), opened(SYN | ACK), Opened::packet(&[])] {
        let refused = admit(PeerId(1), &opened, &mut table, &mut selector, 0);
        assert_eq!(refused, Err(DropReason::UnknownConnection));
    }
    let mut nobody = Selector::new(Policy::RoundRobin, &[]);
    assert_eq!(admit(PeerId(1), &opened(SYN), &mut table, &mut nobody, 0), Err(DropReason::NoTarget));
    assert!(table.is_empty());
}

#[test]
fn admission_stops_at_the_half_open_limit_of_the_peer() {
    let (mut table, mut selector) = (table(), selector());
    let syn = |port: u16| {
        let mut bytes = tcp_bytes(SYN);
        bytes[..2].copy_from_slice(&port.to_be_bytes());
        Opened::packet(&header("10.99.0.10", "10.77.0.100", 6, &bytes))
    };
    let targets: Vec<_> = (0..5).map(|port| admit(PeerId(1), &syn(port), &mut table, &mut selector, 0)).collect();
    let (one, two) = (Ok(TargetId(1)), Ok(TargetId(2)));
    assert_eq!(targets, [one, two, one, two, Err(DropReason::HalfOpenLimit)]);
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let protection = prop_oneof![Just(Protection::Ah), Just(Protection::Esp), Just(Protection::AhEsp)];
    (0u32..4, protection, any::<[bool; 5]>(), any::<u64>()).prop_map(|(peer, protection, b, number)| Arrival {
        peer: PeerId(peer),
        spi: Spi(0x1001),
        number,
        protection,
        encrypted: b[0],
        tunnel: b[1],
        outer_is_vip: b[2],
        inner_is_vip: b[3],
        settled: b[4],
    })
}

proptest! {
    /// I5: decide takes the table by shared reference, so that it changes nothing is a type; that nothing inside it is
    /// mutable all the same is what this shows.
    #[test]
    fn no_sequence_of_decisions_changes_the_table(
        packets in prop::collection::vec((arrival(), 0u8..64, 0u32..40), 0..200),
        held in prop::collection::vec((0u32..4, 0u32..40, any::<bool>()), 0..30),
    ) {
        let mut table = table();
        for (peer, n, established) in held {
            if table.insert(&key(peer, n), TargetId((n % 2) as u16), 1).is_ok() && established {
                table.confirm(&key(peer, n), 2);
            }
        }
        let before = contents(&table);
        for (arrival, flags, n) in packets {
            let flow = key(arrival.peer.0, n).flow;
            let udp = Seen::Udp { flow: Flow { protocol: protocol::UDP, ..flow } };
            let seen = if flags & 32 == 0 { Seen::Tcp { flow, tcp: segment(flags, 1, 2) } } else { udp };
            let decision = decide(&arrival, &seen, &table);
            if !arrival.settled {
                prop_assert!(!matches!(decision, Decision::Local | Decision::OpenThenSelect));
            }
        }
        prop_assert_eq!(contents(&table), before);
        prop_assert_eq!(table.sweep(12_000, 1, |_| ()), Progress::Done);
    }

    #[test]
    fn looking_at_any_bytes_ends_and_asks_only_for_bytes_that_exist(
        bytes in prop::collection::vec(any::<u8>(), 0..700), version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()], next: u8,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        if let Some(field) = bytes.get_mut(6) {
            *field = [0, 43, 60, 6, next][usize::from(next) % 5];
        }
        look_in_rounds(Shape::Packet, &bytes);
        let outer = header("10.77.0.10", "10.77.0.100", 50, &[0; 60]);
        let outer = IpHeader::parse(&outer).expect("a header");
        look_in_rounds(Shape::Payload { outer: &outer, next_header: next }, &bytes);
    }

    /// What a whole packet shows does not depend on how the prefix grew.
    #[test]
    fn a_peek_in_rounds_sees_what_the_whole_packet_shows(lens in prop::collection::vec((1usize..12).prop_map(|n| n * 8), 0..4), flags: u8) {
        let packet = v6_with_options(&lens, flags);
        let (peeked, _) = look_in_rounds(Shape::Packet, &packet);
        prop_assert_eq!(peeked, of_packet(&packet));
    }
}
