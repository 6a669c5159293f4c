//! Packets that are too big for their path, and who is told.

use super::*;
use phalanx_ipsec::MssClamp;
use phalanx_wire::icmp::{Complaint, write_complaint};
use phalanx_wire::{Icmp4, Icmp6, quoted};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const V6: Shape = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd99::10", ..TUNNEL };
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];

/// A router that serves its own VIP, with numbers.
fn serving(shape: Shape) -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    bench.route_vip(&SELF);
    bench.lease(1, 40);
    (bench, Client::of(shape))
}

/// A UDP packet of the application, `len` bytes long.
fn datagram(shape: Shape, len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut packet = inner(shape.vip, shape.inner, protocol::UDP, &vec![7; len - ip::header_len(addr(shape.vip))]);
    if packet[0] >> 4 == 4 {
        packet[4..6].copy_from_slice(&[0x12, 0x34]);
        packet[6] = if dont_fragment { 0x40 } else { 0 };
        packet[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// What a router with that address says of a packet.
fn told(from: &str, about: &[u8], mtu: u16) -> Vec<u8> {
    let mut out = vec![0; 1280];
    let len = write_complaint(&mut out, addr(from), about, Complaint::TooBig { mtu }).unwrap();
    out.truncate(len);
    out
}

/// An outer packet that the bench sent: large.
fn sent_outer(bench: &mut Bench) -> Vec<u8> {
    let shape = bench.shape;
    bench.receive(APPLICATION, &datagram(shape, 1300, true));
    bench.client_receives().pop().expect("an ESP packet")
}

#[test]
fn the_host_is_told_what_fits_when_its_packet_may_not_be_fragmented() {
    for shape in [TUNNEL, V6, Shape { inner: TUNNEL.client, transport: true, ..TUNNEL }] {
        let (mut bench, _) = serving(shape);
        bench.order(Command::PathMtu(OUT, 1400));
        let packet = datagram(shape, 1390, true);
        bench.receive(APPLICATION, &packet);
        assert!(bench.client_receives().is_empty());
        let messages = bench.delivered();
        let ip = IpHeader::parse(&messages[0]).unwrap();
        assert_eq!((ip.src, ip.dst), (addr(shape.inner), addr(shape.vip)), "as if from a router behind the tunnel");
        let message = ip.upper_of(&messages[0]);
        let mtu = match Icmp4::parse(message) {
            Ok(told) => usize::from(told.too_big().unwrap()),
            Err(_) => Icmp6::parse(ip.src, ip.dst, message).unwrap().too_big().unwrap() as usize,
        };
        let fits = bench.engine.tables.cache.outbound(phalanx_ipsec::OutboundIndex(0)).unwrap().inner_mtu();
        assert_eq!(mtu, fits);
        assert!(messages[0].len() <= if ip.version == 4 { 576 } else { 1280 });
        assert_eq!(quoted::flow(&ip, &messages[0]).unwrap().remote.addr, addr(shape.inner));
        // What was told fits.
        bench.receive(APPLICATION, &datagram(shape, mtu, true));
        assert_eq!(bench.client_receives().len(), 1);
        bench.only_dropped(&[(DropReason::TooBig, 1)]);
    }
}

#[test]
fn the_host_is_told_at_a_bounded_rate() {
    let (mut bench, _) = serving(TUNNEL);
    for _ in 0..150 {
        bench.receive(APPLICATION, &datagram(TUNNEL, 1490, true));
        bench.sent(APPLICATION);
    }
    assert_eq!((bench.drops(DropReason::TooBig), bench.stats.stage(Stage::TooBigTold)), (150, 100));
    bench.pass(20);
    bench.receive(APPLICATION, &datagram(TUNNEL, 1490, true));
    assert_eq!(bench.delivered().len(), 1);
}

#[test]
fn a_packet_that_may_be_fragmented_is_cut_before_it_is_sealed_each_piece_with_its_own_number() {
    let (mut bench, mut client) = serving(TUNNEL);
    bench.order(Command::PathMtu(OUT, 576));
    let packet = datagram(TUNNEL, 1490, false);
    bench.receive(APPLICATION, &packet);
    let outer = bench.client_receives();
    assert!(outer.len() == 3 && outer.iter().all(|packet| packet.len() <= 576));
    let mut data = Vec::new();
    for packet in &outer {
        let piece = client.open(packet).unwrap();
        let ip = IpHeader::parse(&piece).unwrap();
        let fragment = ip.fragment.unwrap();
        assert_eq!((usize::from(fragment.offset), fragment.id), (data.len(), 0x1234));
        data.extend_from_slice(&piece[20..]);
        assert_eq!(fragment.more, data.len() < 1470);
    }
    assert_eq!(data, packet[20..]);
    assert_eq!(client.inbound.window.edge(), 3);
    bench.only_dropped(&[]);
}

#[test]
fn a_burst_of_packets_to_cut_is_more_than_one_burst() {
    let (mut bench, _) = serving(TUNNEL);
    bench.order(Command::PathMtu(OUT, 576));
    let frame = framed(&datagram(TUNNEL, 1490, false), bench.mac(APPLICATION), CLIENT_MAC);
    let frames = (0..30).map(|_| VecBuffer::from_slice(128, &frame, 256));
    bench.engine.receive(APPLICATION, frames, bench.now);
    // 40 numbers were there, and 64 packets may wait for one SA.
    assert_eq!(bench.stats.stage(Stage::Sealed) + bench.stats.stage(Stage::HeldForLease), 90);
    bench.only_dropped(&[]);
}

/// IPv6 hosts do not go below 1280 bytes whatever they are told, and transport mode takes no fragments.
#[test]
fn what_no_host_would_send_shorter_is_sealed_whole_and_cut_outside() {
    let transport = Shape { inner: TUNNEL.client, transport: true, ..TUNNEL };
    for (shape, dont_fragment, path) in [(V6, true, 1280), (transport, false, 1280)] {
        let (mut bench, mut client) = serving(shape);
        bench.order(Command::PathMtu(OUT, path));
        let packet = datagram(shape, 1280, dont_fragment);
        bench.receive(APPLICATION, &packet);
        let pieces = bench.client_receives();
        assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece.len() <= 1280), "{shape:?}", shape = shape.vip);
        let mut whole = Vec::new();
        for piece in &pieces {
            let ip = IpHeader::parse(piece).unwrap();
            assert_eq!(usize::from(ip.fragment.unwrap().offset), whole.len());
            assert!(!ip.dont_fragment || ip.version == 6);
            whole.extend_from_slice(&piece[ip.upper_offset..]);
        }
        assert_eq!(client.open(&inner(shape.vip, shape.client, protocol::ESP, &whole)).map(|p| p.len()), Ok(1280));
        assert_eq!(bench.stats.stage(Stage::CutOuter), 1);
        bench.only_dropped(&[]);
    }
}

#[test]
fn a_router_on_the_way_says_what_was_too_big_and_control_hears_of_it_once() {
    for (shape, router) in [(TUNNEL, "192.0.2.1"), (V6, "2001:db8::1")] {
        let (mut bench, _) = serving(shape);
        let outer = sent_outer(&mut bench);
        bench.events();
        bench.receive(NETWORK, &told(router, &outer, 1300));
        let events = bench.events();
        assert!(matches!(events[..], [Event::TooBig { sa: OUT, mtu: 1300, seq: 1, .. }]), "{events:?}");
        bench.order(Command::PathMtu(OUT, 1300));
        bench.receive(NETWORK, &told(router, &outer, 1300));
        assert!(bench.events().is_empty() && bench.delivered().is_empty());
        bench.only_dropped(&[(DropReason::MtuNotLower, 1)]);
    }
}

#[test]
fn a_lie_about_our_packets_is_told_from_the_truth() {
    let (mut bench, _) = serving(TUNNEL);
    let outer = sent_outer(&mut bench);
    bench.events();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = outer.clone();
        change(&mut packet);
        packet[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let router = "192.0.2.1";
    // Another SPI, another peer: nothing that we sent.
    for at in [20, 19] {
        bench.receive(NETWORK, &told(router, &changed(&|packet| packet[at] ^= 1), 1300));
    }
    // It would have fitted; it is longer than any of ours.
    bench.receive(NETWORK, &told(router, &outer, 1400));
    bench.receive(
        NETWORK,
        &told(router, &changed(&|packet| packet[2..4].copy_from_slice(&1501u16.to_be_bytes())), 1300),
    );
    // Below what every host receives.
    for mtu in [0, 68, 575] {
        bench.receive(NETWORK, &told(router, &outer, mtu));
    }
    assert!(bench.events().is_empty());
    bench.only_dropped(&[(DropReason::MtuUnknownSa, 2), (DropReason::MtuImplausible, 2), (DropReason::MtuFloor, 3)]);
    // About a packet that is no ESP, and no "too big" at all: as any other packet in clear.
    bench.receive(NETWORK, &told(router, &answer(4000, ACK), 1300));
    bench.receive(NETWORK, &inner(router, "10.77.0.100", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]));
    assert_eq!(bench.drops(DropReason::ClearToVip), 2);
}

#[test]
fn control_is_told_of_paths_at_a_bounded_rate() {
    let (mut bench, _) = serving(TUNNEL);
    let outer = sent_outer(&mut bench);
    bench.events();
    for _ in 0..150 {
        bench.receive(NETWORK, &told("192.0.2.1", &outer, 1300));
    }
    assert_eq!(bench.events().len(), 100);
    bench.only_dropped(&[(DropReason::MtuRate, 50)]);
}

#[test]
fn a_path_never_leaves_its_bounds_whatever_control_says() {
    let (mut bench, _) = serving(V6);
    let path = |bench: &Bench| bench.engine.tables.cache.outbound(phalanx_ipsec::OutboundIndex(0)).unwrap().path_mtu();
    for (said, is) in [(1400, 1400), (100, 1280), (9000, 1500)] {
        bench.order(Command::PathMtu(OUT, said));
        assert_eq!(path(&bench), is);
    }
}

/// A SYN that announces 1460 bytes.
fn syn(from: &str, src_port: u16, to: &str, dst_port: u16, flags: u8) -> Vec<u8> {
    let mut packet = segment(from, src_port, to, dst_port, flags);
    packet.extend([2, 4, 1460u16.to_be_bytes()[0], 1460u16.to_be_bytes()[1]]);
    let (at, len) = (ip::header_len(addr(from)), packet.len());
    packet[at + 12] = 6 << 4;
    ip::set_total_len(&mut packet, len).unwrap();
    tcp::set_checksum(addr(from), addr(to), &mut packet[at..]).unwrap();
    packet
}

#[test]
fn segment_sizes_are_clamped_both_ways_to_what_fits_the_path() {
    for (clamp, path, expected) in [
        (MssClamp::None, 1400, 1460),
        (MssClamp::Path, 1500, 1406),
        (MssClamp::Path, 1400, 1306),
        (MssClamp::Most(1200), 1500, 1200),
        (MssClamp::Most(9000), 1500, 1460),
    ] {
        let (mut bench, mut client) = (Bench::new(1), Client::new());
        bench.set_vip(Some(CoreId(0)));
        bench.set_targets(&SELF, &[(0..=u16::MAX, &[1])]);
        bench.order(Command::Settled(VIP));
        let with = |params| SaParams { mss_clamp: clamp, ..params };
        let filter = Filter {
            vip: VIP,
            selectors: TUNNEL.selectors(),
            action: Action::Protect(TunnelName::new("client").unwrap()),
            log: false,
        };
        bench.order(Command::AddInbound(Box::new(InboundSa::new(with(sa(IN, Direction::Inbound))).unwrap())));
        bench.order(Command::AddOutbound(Box::new(OutboundSa::new(with(sa(OUT, Direction::Outbound))).unwrap())));
        bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
        bench.order(Command::Ceiling(IN, 1 << 30));
        bench.order(Command::PathMtu(OUT, path));
        bench.lease(1, 10);
        let checked = |packet: &[u8], flags| {
            let segment = &packet[20..];
            assert!(tcp::checksum_ok(addr("10.77.0.100"), addr("10.99.0.10"), segment));
            assert_eq!(TcpHeader::parse(segment).unwrap().flags, TcpFlags(flags));
            tcp::mss(segment).unwrap()
        };
        bench.receive(NETWORK, &client.seal(&syn("10.99.0.10", 4000, "10.77.0.100", 80, SYN)));
        assert_eq!(checked(&bench.delivered()[0], SYN), expected);
        bench.receive(APPLICATION, &syn("10.77.0.100", 80, "10.99.0.10", 4000, SYN | ACK));
        assert_eq!(checked(&client.open(&bench.client_receives()[0]).unwrap(), SYN | ACK), expected);
        bench.only_dropped(&[]);
    }
}

#[test]
fn an_error_inside_a_tunnel_goes_to_the_target_of_the_connection_that_it_quotes_still_sealed() {
    for shape in [TUNNEL, V6, Shape { inner: TUNNEL.client, transport: true, ..TUNNEL }] {
        let (mut bench, mut client) = serving(shape);
        let port = |n: u16| segment(shape.vip, 80, shape.inner, n, ACK);
        bench.receive(NETWORK, &client.seal(&segment(shape.inner, 4000, shape.vip, 80, SYN)));
        bench.delivered();
        let error = told(shape.inner, &port(4000), 1280);
        bench.receive(NETWORK, &client.seal(&error));
        assert_eq!(bench.delivered(), [error]);
        assert_eq!((bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::RouterLocal)), (2, 0));
        // Of a connection that nobody knows it is the router's.
        let stranger = told(shape.inner, &port(4001), 1280);
        let sealed = client.seal(&stranger);
        bench.receive(NETWORK, &sealed);
        assert_eq!(bench.delivered(), [stranger]);
        assert_eq!(bench.stats.stage(Stage::RouterLocal), 1);
        bench.receive(NETWORK, &sealed);
        bench.only_dropped(&[(DropReason::Replay, 1)]);
    }
}

#[test]
fn an_error_about_a_connection_that_just_ended_is_nobodys() {
    let (mut bench, mut client) = serving(TUNNEL);
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.delivered();
    let mut key = None;
    let _ = bench.engine.router.table.scan(&mut Default::default(), usize::MAX, |conn| key = Some(conn.key));
    bench.order(Command::EndConn(VIP, key.unwrap(), TargetId(1)));
    bench.receive(NETWORK, &client.seal(&told("10.99.0.10", &answer(4000, ACK), 1280)));
    assert!(bench.delivered().is_empty());
    bench.only_dropped(&[(DropReason::UnknownConnection, 1)]);
}
