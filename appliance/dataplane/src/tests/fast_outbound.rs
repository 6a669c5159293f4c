//! What the application sends goes as it would on the ordinary way: two targets get the same bursts, and one has no fast path.

use super::fast::{self, Spoilt, picture, set_checksum, shapes, spoilt};
use super::udp::datagram;
use super::*;
use phalanx_ipsec::{Encap, MssClamp};
use phalanx_steering::{ConnKey, ConnState, Tracker, TrackerLimits};
use phalanx_wire::{Endpoint, Flow};
use proptest::prelude::*;

/// Of the flows to as many ports of the client the first ones are known connections.
pub(super) const KNOWN: u16 = 4;

/// What the application sends, on its flow of that number.
#[derive(Clone, Debug)]
enum Act {
    Tcp {
        flow: u16,
        flags: u8,
        len: u16,
        /// Type of service, flags and time to live, where it is IPv4.
        header: (u8, bool, u8),
    },
    Udp(u16),
    Ping,
    /// From an address that is no VIP here.
    Strange,
    /// So many segments of a flow, one behind the other.
    Run(u16, u8),
    Spoilt(Spoilt, Box<Act>),
}

/// What happens between two bursts.
#[derive(Clone, Debug)]
enum Between {
    /// So many numbers come.
    Lease(u32),
    /// The client answers questions about its address.
    Answers,
    /// The same rules again.
    Rules,
    /// Another SA takes the place of the one that there is.
    Rekey(Sa),
    /// There is none any more.
    NoSa,
}

/// What is not the same of all outbound SAs.
#[derive(Clone, Copy, Debug)]
struct Sa {
    path_mtu: u16,
    copies: bool,
    clamps: bool,
    encap: bool,
    /// It carries nothing but UDP.
    narrow: bool,
    /// It ends soon.
    short: bool,
}

fn acts() -> impl Strategy<Value = Act> {
    const ACK: u8 = TcpFlags::ACK;
    let flags = prop::sample::select(vec![ACK, ACK, ACK, ACK | 8, ACK | 1, TcpFlags::RST, TcpFlags::SYN, 0x12, 0]);
    let header = (any::<u8>(), any::<bool>(), 0u8..4);
    let simple = prop_oneof![
        12 => (0u16..6, flags, 0u16..700, header).prop_map(|(flow, flags, len, header)| Act::Tcp { flow, flags, len, header }),
        6 => (0u16..6, 1u8..9).prop_map(|(flow, n)| Act::Run(flow, n)),
        2 => (0u16..4).prop_map(Act::Udp),
        1 => Just(Act::Ping),
        1 => Just(Act::Strange),
    ];
    simple
        .prop_recursive(1, 4, 1, |act| (spoilt(), act.prop_map(Box::new)).prop_map(|(how, act)| Act::Spoilt(how, act)))
}

fn sas() -> impl Strategy<Value = Sa> {
    let one_in = |n: u32| prop::bool::weighted(1.0 / f64::from(n));
    let path_mtu = prop::sample::select(vec![1500, 1500, 1500, 600]);
    (path_mtu, any::<bool>(), one_in(3), one_in(4), one_in(6), one_in(4)).prop_map(
        |(path_mtu, copies, clamps, encap, narrow, short)| Sa { path_mtu, copies, clamps, encap, narrow, short },
    )
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        5 => (1u32..60).prop_map(Between::Lease),
        3 => Just(Between::Answers),
        1 => Just(Between::Rules),
        2 => sas().prop_map(Between::Rekey),
        1 => Just(Between::NoSa),
    ]
}

/// Its packets.
fn packets(shape: Shape, act: &Act) -> Vec<Vec<u8>> {
    let Shape { vip: from, inner: to, .. } = shape;
    match act {
        Act::Tcp { flow, flags, len, header: (tos, may_be_cut, ttl) } => {
            let mut packet = segment(from, 80, to, 4000 + flow, *flags);
            packet.extend(vec![9; usize::from(*len)]);
            let whole = packet.len();
            ip::set_total_len(&mut packet, whole).unwrap();
            if packet[0] >> 4 == 4 {
                (packet[1], packet[6], packet[8]) = (*tos, if *may_be_cut { 0 } else { 0x40 }, *ttl);
                set_checksum(&mut packet[..20]);
            }
            vec![packet]
        }
        Act::Udp(flow) => vec![datagram(from, 443, to, 5000 + flow)],
        Act::Ping => vec![inner(from, to, protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])],
        Act::Strange => vec![segment("10.1.1.1", 80, "10.99.0.10", 4000, TcpFlags::ACK)],
        Act::Run(flow, n) => vec![segment(from, 80, to, 4000 + flow, TcpFlags::ACK); usize::from(*n)],
        Act::Spoilt(_, act) => packets(shape, act),
    }
}

fn frames(shape: Shape, act: &Act) -> Vec<Vec<u8>> {
    let frames =
        packets(shape, act).into_iter().map(|packet| framed(&packet, Bench::mac_of(11, APPLICATION), CLIENT_MAC));
    match act {
        Act::Spoilt(how, _) => frames.map(|frame| how.spoil(frame)).collect(),
        _ => frames.collect(),
    }
}

/// A target that follows the first connections.
fn target(shape: Shape) -> Bench {
    let mut bench = fast::target(shape);
    for flow in 0..KNOWN {
        assert!(bench.engine.target.tracker.restore(&key(shape, flow), 0));
    }
    bench
}

/// The connection of a flow.
pub(super) fn key(shape: Shape, flow: u16) -> ConnKey {
    let (local, remote) = (Endpoint::new(addr(shape.vip), 80), Endpoint::new(addr(shape.inner), 4000 + flow));
    ConnKey { peer: PeerId(1), flow: Flow { protocol: protocol::TCP, local, remote } }
}

/// As if it had been asked just now: it is believed as long as somebody waits for it.
pub(super) fn client_answers(bench: &mut Bench) {
    let asked = arp::request_frame(bench.mac(NETWORK), "10.77.0.11".parse().unwrap(), "10.77.0.10".parse().unwrap());
    let asked = Arp::parse(&asked[ethernet::HEADER_LEN..]).unwrap();
    bench.receive_frame(NETWORK, &arp::reply_frame(CLIENT_MAC, &asked));
}

impl Sa {
    fn params(self, shape: Shape) -> SaParams {
        let mut params = shape.sa(OUT, Direction::Outbound);
        (params.path_mtu, params.copy_dscp, params.ecn) = (self.path_mtu, self.copies, self.copies);
        if shape.client.contains(':') {
            params.path_mtu = params.path_mtu.max(1500);
        }
        params.mss_clamp = if self.clamps { MssClamp::Most(500) } else { MssClamp::None };
        params.lifesize = if self.short { Lifesize { soft: 2000, hard: 3000 } } else { Lifesize::UNLIMITED };
        params.encap = (self.encap && !shape.transport).then_some(Encap { remote_port: 4500, original: None });
        if self.narrow {
            params.selectors.protocol = Some(protocol::UDP);
        }
        params
    }
}

/// Everything that can be seen of it afterwards.
pub(super) fn seen(bench: &mut Bench, alike: fn(DropReason) -> DropReason) -> String {
    let sa = bench.engine.tables.cache.find_outbound(OUT).and_then(|at| bench.engine.tables.cache.outbound(at));
    let sa = sa.map(|sa| {
        let (shared, lease) = (sa.shared(), &sa.lease);
        (shared.packets(), shared.bytes(), shared.highest_sent(), sa.meter, lease.remaining(), lease.done_below())
    });
    format!("{sa:?} {} {}", bench.engine.outbound.held.held(), picture(bench, alike))
}

proptest! {
    #[test]
    fn both_ways_out_do_the_same(
        shape in shapes(),
        first in sas(),
        bursts in prop::collection::vec((prop::collection::vec(acts(), 1..=32), prop::collection::vec(between(), 0..3)), 1..12),
    ) {
        let (mut fast, mut ordinary) = (target(shape), target(shape));
        ordinary.engine.ordinary = true;
        let mut next = 1;
        let opening = [Between::Rekey(first), Between::Lease(200)];
        for (burst, between) in std::iter::once((Vec::new(), opening.to_vec())).chain(bursts) {
            let frames: Vec<_> = burst.iter().flat_map(|act| frames(shape, act)).take(32).collect();
            let numbers = next;
            for bench in [&mut fast, &mut ordinary] {
                next = numbers;
                let packets = frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
                let now = bench.now;
                bench.engine.receive(APPLICATION, packets, now);
                for between in &between {
                    match between {
                        Between::Lease(n) => {
                            bench.lease(next, *n);
                            next += u64::from(*n);
                        }
                        Between::Answers => client_answers(bench),
                        Between::Rules => {
                            let table = bench.engine.tables.filters.all().map(|(_, filter)| filter).collect();
                            bench.order(Command::SetFilters(Box::new(FilterTable::new(table))));
                        }
                        Between::Rekey(sa) => {
                            bench.order(Command::RemoveSa(OUT));
                            let sa = OutboundSa::new(sa.params(shape)).unwrap();
                            bench.order(Command::AddOutbound(Box::new(sa)));
                        }
                        Between::NoSa => bench.order(Command::RemoveSa(OUT)),
                    }
                }
                bench.pass(1);
            }
            prop_assert_eq!(seen(&mut fast, |why| why), seen(&mut ordinary, |why| why));
        }
        prop_assert_eq!(ordinary.stats.stage(Stage::SentFast), 0);
    }
}

#[test]
fn segments_of_a_known_flow_take_the_fast_path_out() {
    let mut bench = target(TUNNEL);
    let segments = |flags: &[(u16, u8)]| -> Vec<Vec<u8>> {
        flags.iter().map(|&(flow, flags)| answer(4000 + flow, flags)).collect()
    };
    let mut send = |packets: &[Vec<u8>]| {
        let frames: Vec<_> =
            packets.iter().map(|packet| framed(packet, Bench::mac_of(11, APPLICATION), CLIENT_MAC)).collect();
        let frames = frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
        bench.engine.receive(APPLICATION, frames, bench.now);
        bench.stats.stage(Stage::SentFast)
    };
    // The first of each flow is asked about; so is a SYN, whatever is known.
    const ACK: u8 = TcpFlags::ACK;
    let first = segments(&[(0, ACK), (1, ACK)]);
    assert_eq!(send(&first), 0);
    let rest = segments(&[(0, ACK), (0, ACK), (1, ACK | TcpFlags::FIN), (0, TcpFlags::SYN | ACK), (1, ACK), (0, ACK)]);
    assert_eq!(send(&rest), 5);
    let mut client = Client::new();
    let opened: Vec<_> = bench.client_receives().iter().map(|packet| client.open(packet).unwrap()).collect();
    assert_eq!(opened, [first, rest].concat());
    bench.only_dropped(&[]);
}

#[test]
fn where_a_connection_was_another_one_may_be_by_now() {
    const ACK: u8 = TcpFlags::ACK;
    let mut bench = target(TUNNEL);
    // So few places that the next connections take that of the first one.
    let limits = TrackerLimits { connections: 8, ..TrackerLimits::default() };
    bench.engine.target.tracker = Tracker::new(limits, [1, 2]).unwrap();
    let send = |bench: &mut Bench, flags: u8| {
        let frame = framed(&answer(4000, flags), Bench::mac_of(11, APPLICATION), CLIENT_MAC);
        let before = bench.stats.stage(Stage::SentFast);
        bench.engine.receive(APPLICATION, std::iter::once(VecBuffer::from_slice(128, &frame, 256)), bench.now);
        bench.stats.stage(Stage::SentFast) - before
    };
    assert!(bench.engine.target.tracker.restore(&key(TUNNEL, 0), 0));
    assert_eq!([ACK; 3].map(|flags| send(&mut bench, flags)), [0, 1, 1], "where it is is known");
    assert!(bench.engine.target.tracker.forget_connection(&key(TUNNEL, 0)));
    (1..8).for_each(|flow| assert!(bench.engine.target.tracker.restore(&key(TUNNEL, flow), 0)));
    assert_eq!(send(&mut bench, TcpFlags::RST), 1);
    let states = (1..8).map(|flow| bench.engine.target.tracker.state(&key(TUNNEL, flow)));
    assert!(states.into_iter().all(|state| state == Some(ConnState::Established)), "it is nobody else's reset");
    // It comes again, elsewhere.
    assert!(bench.engine.target.tracker.restore(&key(TUNNEL, 0), 0));
    assert_eq!([ACK, TcpFlags::RST].map(|flags| send(&mut bench, flags)), [1, 1]);
    assert_eq!(bench.engine.target.tracker.state(&key(TUNNEL, 0)), None);
}

#[test]
fn segments_to_two_peers_in_one_burst_each_go_to_their_own_next_hop() {
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x20]);
    let mut bench = target(TUNNEL);
    let other = fast::of_another_peer(SaId(4), Direction::Outbound);
    let selectors = Selectors::between(Prefix::host(addr("10.77.0.100")), Prefix::host(addr("10.99.0.20")));
    let other = SaParams { selectors, ..other };
    let filter = Filter { vip: VIP, selectors, action: Action::Protect(other.tunnel), log: false };
    let mut filters: Vec<_> = bench.engine.tables.filters.all().map(|(_, filter)| filter).collect();
    filters.push(filter);
    bench.order(Command::AddOutbound(Box::new(OutboundSa::new(other).unwrap())));
    bench.order(Command::SetFilters(Box::new(FilterTable::new(filters))));
    let expires = bench.start + Duration::from_millis(bench.now.ms() + 100);
    bench.order(Command::Lease { sa: SaId(4), lease: Lease::from_wire(1, 100), expires });
    let mut send = |turns: &[bool]| {
        let inner = |other: &bool| if *other { "10.99.0.20" } else { "10.99.0.10" };
        let packets = turns.iter().map(|other| segment("10.77.0.100", 80, inner(other), 4000, TcpFlags::ACK));
        let frames: Vec<_> =
            packets.map(|packet| framed(&packet, Bench::mac_of(11, APPLICATION), CLIENT_MAC)).collect();
        bench.engine.receive(APPLICATION, frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256)), bench.now);
        for (ip, mac) in [("10.77.0.10", CLIENT_MAC), ("10.77.0.20", OTHER)] {
            let asked = arp::request_frame(bench.mac(NETWORK), "10.77.0.11".parse().unwrap(), ip.parse().unwrap());
            let asked = Arp::parse(&asked[ethernet::HEADER_LEN..]).unwrap();
            bench.receive_frame(NETWORK, &arp::reply_frame(mac, &asked));
        }
        bench.sent(NETWORK)
    };
    send(&[false, true]);
    const TURNS: [bool; 6] = [false, true, true, false, false, true];
    let sent: Vec<_> = send(&TURNS).iter().map(|frame| (Frame::parse(frame).unwrap().dst, frame[33])).collect();
    assert_eq!(sent, TURNS.map(|other| if other { (OTHER, 20) } else { (CLIENT_MAC, 10) }));
    assert_eq!(bench.stats.stage(Stage::SentFast), TURNS.len() as u64);
}
