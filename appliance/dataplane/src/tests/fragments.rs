//! Packets in pieces: outside of tunnels, on the link, towards the host, and inside of tunnels.

use super::links::{carry, gre, two_boxes};
use super::natt::natted;
use super::*;
use phalanx_ipsec::PortRange;
use phalanx_wire::fragment::Cut;
use phalanx_wire::{Reassembly, ReassemblyLimits};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const V6: Shape = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd99::10", ..TUNNEL };

/// A packet in fragments of at most `mtu` bytes.
fn cut(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let ip = IpHeader::parse(packet).unwrap();
    let cut = Cut::new(packet, &ip, mtu, id).unwrap();
    let one = |n| {
        let mut out = vec![0; cut.len_of(n)];
        cut.write(packet, n, &mut out).unwrap();
        out
    };
    (0..cut.count()).map(one).collect()
}

/// What a host makes of fragments; whole packets pass.
fn together(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut table = Reassembly::new(ReassemblyLimits::default());
    let mut whole = Vec::new();
    for packet in packets {
        assert!(packet.len() <= 1500, "{} bytes", packet.len());
        let ip = IpHeader::parse(packet).unwrap();
        if ip.fragment.is_none() {
            whole.push(packet.clone());
            continue;
        }
        let buffer = VecBuffer::from_slice(0, packet, 0);
        let large = |_: &VecBuffer, len| Some(VecBuffer::with_room(0, len));
        let done = table.add(buffer, &ip, 0, large, |_, reason| panic!("{reason}"));
        whole.extend(done.map(|packet| packet.bytes().to_vec()));
    }
    assert_eq!(table.datagrams(), 0);
    whole
}

/// What is behind the IP header.
fn payload(packet: &[u8]) -> &[u8] {
    IpHeader::parse(packet).unwrap().upper_of(packet)
}

fn large_inner(shape: Shape, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    inner(shape.inner, shape.vip, protocol::UDP, &data)
}

/// A client whose kernel encrypts first and cuts then.
fn client(shape: Shape) -> Client {
    let mut client = Client::of(shape);
    let mut params = shape.sa(IN, Direction::Inbound);
    (params.local, params.remote) = (params.remote, params.local);
    params.mode = shape.mode(params.local, params.remote);
    (params.selectors.local, params.selectors.remote) = (params.selectors.remote, params.selectors.local);
    (params.direction, params.path_mtu) = (Direction::Outbound, 9000);
    client.out = OutboundSa::new(params).unwrap();
    client
}

/// A TCP segment with so much data.
fn long_segment(port: u16, flags: u8, len: usize) -> Vec<u8> {
    let short = segment("10.99.0.10", port, "10.77.0.100", 80, flags);
    let data: Vec<u8> = payload(&short).iter().copied().chain((0..len).map(|n| n as u8)).collect();
    inner("10.99.0.10", "10.77.0.100", protocol::TCP, &data)
}

impl Bench {
    /// All in one burst.
    fn receive_all(&mut self, port: usize, packets: &[Vec<u8>]) {
        let frames: Vec<_> = packets
            .iter()
            .map(|packet| VecBuffer::from_slice(128, &framed(packet, self.mac(port), CLIENT_MAC), 256))
            .collect();
        self.engine.receive(port, frames.into_iter(), self.now);
    }

    fn router_of(shape: Shape) -> Bench {
        let mut bench = Bench::new(1);
        bench.shape = shape;
        bench.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
        bench
    }
}

#[test]
fn an_esp_packet_in_fragments_is_put_together_and_its_content_given_to_the_host_in_pieces_it_takes() {
    for shape in [TUNNEL, V6] {
        let (mut router, mut client) = (Bench::router_of(shape), client(shape));
        let inner = large_inner(shape, 4008);
        let mut fragments = cut(&client.seal(&inner), 1500, 77);
        assert_eq!(fragments.len(), 3);
        fragments.rotate_left(1);
        for fragment in &fragments {
            assert!(router.delivered().is_empty());
            router.receive(NETWORK, fragment);
        }
        let delivered = router.delivered();
        assert_eq!(delivered.len(), 3);
        let whole = together(&delivered);
        assert_eq!((whole.len(), payload(&whole[0])), (1, payload(&inner)));
        router.only_dropped(&[]);
        assert_eq!(router.stats.stage(Stage::Reassembled), 1);
    }
}

#[test]
fn fragments_that_come_in_by_another_core_are_put_together_at_the_router_core() {
    let cores: [(u16, &[usize]); 2] = [(0, &[APPLICATION]), (1, &[NETWORK, LINK])];
    let (mut router, mut other) = (Bench::of(1, &cores, 0), Bench::of(1, &cores, 1));
    router.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
    other.set_vip(Some(CoreId(0)));
    let inner = large_inner(TUNNEL, 1440);
    let fragments = cut(&client(TUNNEL).seal(&inner), 1280, 1);
    other.receive_all(NETWORK, &fragments);
    assert_eq!(other.engine.fragments.held(), 0);
    let parcels: Vec<_> = other.engine.out.parcels[0].drain(..).collect();
    assert_eq!(parcels.len(), 2);
    router.engine.receive_ring(parcels.into_iter(), router.now);
    assert_eq!(router.delivered(), [inner]);
}

#[test]
fn esp_in_udp_is_put_together_before_anybody_looks_for_its_ports() {
    let (mut router, mut client) = natted();
    let inner = large_inner(TUNNEL, 1300);
    let fragments = cut(&client.seal(&inner), 1280, 1);
    assert_eq!(fragments.len(), 2);
    router.receive_all(NETWORK, &fragments);
    assert_eq!(router.delivered(), [inner]);
    router.only_dropped(&[]);
}

#[test]
fn what_does_not_fit_the_link_crosses_it_in_fragments() {
    let (mut router, mut target, _) = two_boxes();
    let mut client = client(TUNNEL);
    router.receive(NETWORK, &client.seal(&segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)));
    carry(&mut router, &mut target);
    target.delivered();
    let segment = long_segment(4000, ACK, 4000);
    router.receive_all(NETWORK, &cut(&client.seal(&segment), 1280, 9));
    let crossed = carry(&mut router, &mut target);
    assert_eq!(crossed.len(), 3);
    assert!(crossed.iter().all(|frame| frame.len() <= 1600 + ethernet::HEADER_LEN));
    let whole = together(&target.delivered());
    assert_eq!((whole.len(), payload(&whole[0])), (1, payload(&segment)));
    router.only_dropped(&[]);
    target.only_dropped(&[]);
}

#[test]
fn fragments_on_the_link_are_believed_only_from_a_router() {
    let (mut router, mut target, _) = two_boxes();
    let mut client = client(TUNNEL);
    router.receive(NETWORK, &client.seal(&segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)));
    carry(&mut router, &mut target);
    router.receive_all(NETWORK, &cut(&client.seal(&long_segment(4000, ACK, 4000)), 1280, 9));
    let genuine: Vec<Vec<u8>> = router.sent(LINK).iter().map(|frame| frame[ethernet::HEADER_LEN..].to_vec()).collect();
    let stranger = |packet: &Vec<u8>| {
        let mut packet = packet.clone();
        packet[15] = 66;
        packet[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let forged: Vec<_> = genuine.iter().map(stranger).collect();
    target.receive_all(LINK, &forged);
    target.receive_all(NETWORK, &genuine); // not on the link
    assert_eq!(target.engine.fragments.held(), 0, "nobody else takes memory");
    target.only_dropped(&[(DropReason::NotForUs, 3), (DropReason::LinkForged, 3)]);
}

#[test]
fn hostile_fragments_are_counted_by_what_they_do_and_hold_no_more_than_the_limits() {
    let (mut router, mut client) = (Bench::router_of(TUNNEL), client(TUNNEL));
    let esp = client.seal(&large_inner(TUNNEL, 2000));
    let (good, other) = (cut(&esp, 1280, 1), cut(&esp, 1272, 1));
    router.receive_all(NETWORK, &[good[0].clone(), other[1].clone(), good[1].clone()]);
    router.only_dropped(&[(DropReason::FragmentOverlap, 3)]);
    // Tiny ones, more than are kept of one packet.
    let tiny = cut(&esp, 44, 2);
    router.receive_all(NETWORK, &tiny[..30]);
    assert_eq!(router.drops(DropReason::FragmentTooMany), 30);
    // Endless: always one more behind the last.
    let huge = cut(&inner("10.77.0.10", "10.77.0.100", protocol::ESP, &[0; 12_000]), 1500, 3);
    router.receive_all(NETWORK, &huge);
    assert_eq!(router.drops(DropReason::FragmentTooBig), huge.len() as u64);
    // Never completed, of one source and of many.
    for n in 0..1000u32 {
        let from = format!("10.77.{}.{}", n % 250, n / 250 + 1);
        let source = if n < 500 { "10.77.0.66" } else { &from };
        let first = &cut(&inner(source, "10.77.0.100", protocol::ESP, &[0; 3000]), 1500, n)[0];
        router.receive(NETWORK, first);
        let limits = ReassemblyLimits::default();
        let most = if n < 500 { limits.datagrams_per_source } else { limits.datagrams };
        assert!(router.engine.fragments.held() <= most);
        // What comes whole amid all this is not held up.
        if n % 100 == 0 {
            router.receive_all(NETWORK, &cut(&client.seal(&large_inner(TUNNEL, 2000)), 1280, 5000 + n));
        }
    }
    assert_eq!(router.stats.stage(Stage::Reassembled), 10);
    assert_eq!(together(&router.delivered()).len(), 10);
    let held = router.engine.fragments.held() as u64;
    assert_eq!(router.drops(DropReason::FragmentLimit) + held, 1000);
    (0..30).for_each(|_| router.pass(100));
    assert_eq!(router.drops(DropReason::FragmentTimeout), held);
    assert_eq!(router.engine.fragments.held(), 0);
}

#[test]
fn a_large_syn_is_proved_on_a_copy_like_any_other() {
    let (mut router, mut client) = (Bench::router_of(TUNNEL), client(TUNNEL));
    let syn = long_segment(4000, SYN, 3000);
    router.receive_all(NETWORK, &cut(&client.seal(&syn), 1500, 1));
    assert_eq!(router.engine.router.table.len(), 1);
    assert_eq!(payload(&together(&router.delivered())[0]), payload(&syn));
    router.only_dropped(&[]);
}

/// A router with a connection to the target in the other box.
fn connected() -> (Bench, Bench, Client) {
    let (mut router, mut target, mut client) = two_boxes();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    target.delivered();
    (router, target, client)
}

#[test]
fn inner_fragments_follow_their_first_to_its_target_and_reach_its_host_as_they_are() {
    for one_burst in [true, false] {
        let (mut router, mut target, mut client) = connected();
        let whole = long_segment(4000, ACK, 3000);
        let inner = cut(&whole, 1400, 7);
        let sealed: Vec<_> = inner.iter().map(|piece| client.seal(piece)).collect();
        if one_burst {
            router.receive_all(NETWORK, &sealed);
        } else {
            sealed.iter().for_each(|piece| router.receive(NETWORK, piece));
        }
        assert_eq!(carry(&mut router, &mut target).len(), 3);
        assert_eq!(target.delivered(), inner);
        assert!(router.delivered().is_empty());
        router.only_dropped(&[]);
        target.only_dropped(&[]);
        // The first one again: the router's window knows it, and it makes no entry.
        router.pass(2500);
        router.receive_all(NETWORK, &sealed);
        router.only_dropped(&[(DropReason::FragmentWithoutFirst, 2), (DropReason::Replay, 1)]);
    }
}

#[test]
fn an_inner_fragment_without_an_authentic_first_one_is_dropped_by_name_and_makes_nothing() {
    let (mut router, mut target, mut client) = connected();
    let pieces = cut(&long_segment(4000, ACK, 3000), 1400, 7);
    let mut forged = client.seal(&pieces[0]);
    *forged.last_mut().unwrap() ^= 1;
    let late = client.seal(&pieces[2]); // sealed before its first one
    let rest = [client.seal(&pieces[1])];
    router.receive(NETWORK, &forged);
    router.receive_all(NETWORK, &rest);
    router.only_dropped(&[(DropReason::FragmentWithoutFirst, 1), (DropReason::BadIcv, 1)]);
    let first = client.seal(&pieces[0]);
    router.receive_all(NETWORK, &[first, late]);
    assert_eq!(router.drops(DropReason::FragmentWithoutFirst), 2, "a number below the first one's");
    client.skip(1000);
    router.receive(NETWORK, &client.seal(&pieces[1]));
    assert_eq!(router.drops(DropReason::FragmentWithoutFirst), 3, "a number far above");
    assert_eq!(carry(&mut router, &mut target).len(), 1);
    // A SYN in pieces, a header cut apart.
    router.receive(NETWORK, &client.seal(&cut(&long_segment(4001, SYN, 3000), 1400, 8)[0]));
    router.receive(NETWORK, &client.seal(&cut(&long_segment(4000, ACK, 100), 36, 9)[0]));
    assert_eq!((router.drops(DropReason::Fragment), router.drops(DropReason::TinyFragment)), (1, 1));
    assert_eq!(router.engine.router.table.len(), 1);
}

#[test]
fn inner_fragments_of_what_the_router_serves_itself_stay_with_it() {
    let (mut router, mut target, mut client) = connected();
    router.set_targets(&[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))], &[(80..=80, &[1])]);
    let ping = cut(&inner("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8; 3000]), 1400, 7);
    let mut whole = long_segment(4000, ACK, 3000);
    whole[22..24].copy_from_slice(&[0, 22]); // port 22
    let ssh = cut(&whole, 1400, 8);
    let pieces: Vec<_> = ping.iter().chain(&ssh).cloned().collect();
    let sealed: Vec<_> = pieces.iter().map(|piece| client.seal(piece)).collect();
    router.receive_all(NETWORK, &sealed);
    assert_eq!(carry(&mut router, &mut target).len(), 0);
    let mut delivered = router.delivered();
    delivered.sort();
    let mut expected = pieces;
    expected.sort();
    assert_eq!(delivered, expected);
    router.only_dropped(&[]);
}

#[test]
fn in_transport_mode_what_the_host_cut_is_sealed_whole_and_cut_outside() {
    let shape = Shape { inner: TUNNEL.client, transport: true, ..TUNNEL };
    let (mut bench, mut client) = (Bench::new(11), Client::of(shape));
    bench.shape = shape;
    bench.set_vip(None);
    bench.add_sas();
    bench.lease(1, 8);
    let mut reply = inner(shape.vip, shape.client, protocol::ICMP, &[7; 4008]);
    reply[6] = 0; // may be fragmented
    reply[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&reply[..20]);
    reply[10..12].copy_from_slice(&sum.to_be_bytes());
    bench.receive_all(APPLICATION, &cut(&reply, 1400, 7));
    let sent = bench.client_receives();
    assert_eq!(sent.len(), 3);
    let whole = together(&sent);
    assert_eq!(payload(&client.open(&whole[0]).unwrap()), payload(&reply));
    assert_eq!(bench.stats.stage(Stage::Sealed), 1);
    bench.only_dropped(&[]);
}

/// Only port 80, by its SAs and its filter.
fn only_port_80(bench: &mut Bench) {
    let ports = |mut params: SaParams| {
        params.selectors.local_ports = PortRange::one(80);
        params.selectors.protocol = Some(protocol::TCP);
        params
    };
    [IN, OUT].into_iter().for_each(|sa| bench.order(Command::RemoveSa(sa)));
    let inbound = InboundSa::new(ports(sa(IN, Direction::Inbound))).unwrap();
    bench.order(Command::AddInbound(Box::new(inbound)));
    let outbound = OutboundSa::new(ports(sa(OUT, Direction::Outbound))).unwrap();
    bench.order(Command::AddOutbound(Box::new(outbound)));
    let selectors = ports(sa(IN, Direction::Inbound)).selectors;
    let tunnel = TunnelName::new("client").unwrap();
    let filter = Filter { vip: VIP, selectors, action: Action::Protect(tunnel), log: false };
    let rest = Filter { selectors: TUNNEL.selectors(), action: Action::Permit, ..filter };
    bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter, rest]))));
}

#[test]
fn where_ports_are_selected_fragments_are_taken_by_the_ports_of_their_first() {
    let (mut router, mut target, mut client) = connected();
    only_port_80(&mut target);
    let pieces = cut(&long_segment(4000, ACK, 3000), 1400, 7);
    let sealed: Vec<_> = pieces.iter().map(|piece| client.seal(piece)).collect();
    router.receive_all(NETWORK, &sealed);
    carry(&mut router, &mut target);
    assert_eq!(target.delivered(), pieces);
    target.only_dropped(&[]);
}

#[test]
fn what_the_host_sends_in_fragments_goes_through_one_sa_and_never_in_clear_by_another_rule() {
    let (mut bench, mut client) = (Bench::new(11), Client::new());
    bench.set_vip(None);
    bench.add_sas();
    only_port_80(&mut bench);
    bench.lease(1, 30);
    let short = answer(4000, ACK);
    let data: Vec<u8> = payload(&short).iter().copied().chain([7; 3000]).collect();
    let pieces = cut(&inner("10.77.0.100", "10.99.0.10", protocol::TCP, &data), 1400, 7);
    bench.receive_all(APPLICATION, &pieces[1..2]);
    bench.only_dropped(&[(DropReason::FragmentWithoutFirst, 1)]);
    bench.receive_all(APPLICATION, &pieces);
    let opened: Vec<_> = bench.client_receives().iter().map(|packet| client.open(packet).unwrap()).collect();
    assert_eq!(opened, pieces);
    assert_eq!(bench.stats.stage(Stage::ClearPermitted), 0);
}
