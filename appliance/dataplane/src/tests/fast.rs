//! The fast paths do what the ordinary way does: two routers, or two targets, get the same bursts, and one of them has no fast path.

use super::links::gre;
use super::udp::datagram;
use super::*;
use crate::fast_target::Latest;
use phalanx_steering::Transport;
use proptest::prelude::*;

/// One target is this core, which has no fast path; the others are other boxes.
const TARGETS: [(u16, u8); 3] = [(1, 0), (2, 11), (3, 12)];

/// What the client does, on its flow of that number.
#[derive(Clone, Debug)]
enum Act {
    Tcp {
        flow: u16,
        flags: u8,
        len: u16,
    },
    Udp {
        flow: u16,
    },
    Ping,
    /// Numbers are lost.
    Skip(u8),
    /// An earlier packet again, so many before.
    Again(u8),
    /// The frame is another than it should be.
    Spoilt(Spoilt, Box<Act>),
}

#[derive(Clone, Debug)]
pub(super) enum Spoilt {
    /// One byte of it.
    Byte { at: u16, by: u8 },
    /// One byte of its outer IP header, whose checksum is right again.
    Header { field: u8, value: u8 },
    /// It is longer than its packet, or shorter.
    Resized(i8),
    /// It is for another station.
    To(u8),
}

impl Spoilt {
    pub(super) fn spoil(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let len = frame.len();
        match *self {
            Spoilt::Byte { at, by } => frame[usize::from(at) % len] ^= by,
            Spoilt::Header { field, value } if len >= ethernet::HEADER_LEN + 20 => {
                let header = &mut frame[ethernet::HEADER_LEN..][..20];
                header[usize::from(field)] = value;
                set_checksum(header);
            }
            Spoilt::Header { .. } => {}
            Spoilt::Resized(by) => frame.resize(len.saturating_add_signed(isize::from(by)).max(1), 0),
            Spoilt::To(to) => frame[0] = to,
        }
        frame
    }
}

/// An IPv4 header's is right again.
pub(super) fn set_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn spoilt() -> impl Strategy<Value = Spoilt> {
    prop_oneof![
        (0u16..220, 1u8..).prop_map(|(at, by)| Spoilt::Byte { at, by }),
        (0u8..20, any::<u8>()).prop_map(|(field, value)| Spoilt::Header { field, value }),
        any::<i8>().prop_map(Spoilt::Resized),
        any::<u8>().prop_map(Spoilt::To),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let flags = prop::sample::select(vec![
        TcpFlags::SYN,
        TcpFlags::ACK,
        TcpFlags::ACK,
        TcpFlags::ACK | TcpFlags::FIN,
        TcpFlags::RST,
        0x12,
    ]);
    let simple = prop_oneof![
        12 => (0u16..6, flags, 0u16..200).prop_map(|(flow, flags, len)| Act::Tcp { flow, flags, len }),
        3 => (0u16..4).prop_map(|flow| Act::Udp { flow }),
        1 => Just(Act::Ping),
        1 => (1u8..90).prop_map(Act::Skip),
        2 => (1u8..80).prop_map(Act::Again),
    ];
    simple
        .prop_recursive(1, 4, 1, |act| (spoilt(), act.prop_map(Box::new)).prop_map(|(how, act)| Act::Spoilt(how, act)))
}

pub(super) fn shapes() -> impl Strategy<Value = Shape> {
    let v6 = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd99::10", ..TUNNEL };
    prop::sample::select(vec![
        TUNNEL,
        TUNNEL,
        TUNNEL,
        Shape { esn: false, ..TUNNEL },
        Shape { algorithm: Algorithm::ChaCha20Poly1305, ..TUNNEL },
        Shape { algorithm: Algorithm::Aes128Gmac, ..TUNNEL },
        Shape { algorithm: Algorithm::Aes128CbcSha256, ..TUNNEL },
        Shape { algorithm: Algorithm::NullSha256, ..TUNNEL },
        Shape { inner: "10.77.0.10", transport: true, ..TUNNEL },
        v6,
    ])
}

/// The client's frames, as they come to both routers.
struct Sender {
    client: Client,
    shape: Shape,
    sent: Vec<Vec<u8>>,
}

impl Sender {
    fn frame(&mut self, act: &Act) -> Option<Vec<u8>> {
        let Shape { inner: from, vip: to, .. } = self.shape;
        let packet = match act {
            Act::Tcp { flow, flags, len } => {
                let mut packet = segment(from, 4000 + flow, to, 80, *flags);
                packet.extend(vec![9; usize::from(*len)]);
                let whole = packet.len();
                ip::set_total_len(&mut packet, whole).unwrap();
                packet
            }
            Act::Udp { flow } => datagram(from, 5000 + flow, to, 443),
            Act::Ping => inner(from, to, protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
            Act::Skip(n) => {
                self.client.skip(u64::from(*n));
                return None;
            }
            Act::Again(before) => return self.sent.iter().rev().nth(usize::from(*before)).cloned(),
            Act::Spoilt(how, then) => return Some(how.spoil(self.frame(then)?)),
        };
        let frame = framed(&self.client.seal(&packet), Bench::mac_of(1, NETWORK), CLIENT_MAC);
        self.sent.push(frame.clone());
        Some(frame)
    }
}

fn router(shape: Shape) -> Bench {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    let link = |box_: u8| if box_ == 0 { LinkEnd::Ring(CoreId(0)) } else { LinkEnd::Gre(gre(1, box_), CoreId(0)) };
    let targets = TARGETS.map(|(id, box_)| (id, link(box_)));
    bench.route_vip(&targets);
    let rule = |protocol, ports| PortRule {
        protocol,
        ports: vec![ports],
        targets: TARGETS.map(|(id, _)| TargetId(id)).into(),
    };
    let rules = [rule(Transport::Tcp, 0..=u16::MAX), rule(Transport::Udp, 443..=443)];
    let entries = targets.iter().map(|&(id, link)| entry(id, link)).collect();
    bench.order(Command::SetTargets(VIP, Box::new(TargetSet::new(entries, Policy::RoundRobin, &rules).unwrap())));
    bench
}

/// A router of one target, on another box.
pub(super) fn router_of_one(shape: Shape) -> Bench {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    bench.route_vip(&[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))]);
    bench
}

/// That target.
pub(super) fn target(shape: Shape) -> Bench {
    let mut bench = Bench::new(11);
    bench.shape = shape;
    bench.set_vip(None);
    bench.add_sas();
    bench.order(Command::SetRouter(VIP, gre(11, 1)));
    bench.lease(1, 1 << 20);
    bench
}

/// What of a frame of the client the router sends to its target.
pub(super) fn crossed(router: &mut Bench, frame: &[u8]) -> Vec<Vec<u8>> {
    router.receive_frame(NETWORK, frame);
    answer_arp(router, true);
    router.sent(LINK).into_iter().filter(|frame| frame[12..14] != ethertype::ARP.to_be_bytes()).collect()
}

/// A forged packet that is old by now may be found out as either.
pub(super) fn old_or_forged(why: DropReason) -> DropReason {
    if matches!(why, DropReason::TooOld | DropReason::Replay) { DropReason::BadIcv } else { why }
}

/// Everything that can be seen of a core afterwards.
pub(super) fn picture(bench: &mut Bench, alike: fn(DropReason) -> DropReason) -> String {
    let mut frames = [NETWORK, LINK, APPLICATION].map(|port| bench.sent(port));
    // Packets of one burst are in the order of their steps.
    frames.iter_mut().for_each(|frames| frames.sort());
    let fast = [Stage::RoutedFast, Stage::OpenedFast, Stage::SentFast];
    let told = Stage::ALL.iter().filter(|stage| !fast.contains(stage));
    let stages: Vec<_> = told.map(|stage| (stage.name(), bench.stats.stage(*stage))).filter(|(_, n)| *n > 0).collect();
    let mut drops = std::collections::BTreeMap::<_, u64>::new();
    DropReason::ALL.iter().for_each(|&why| *drops.entry(format!("{:?}", alike(why))).or_default() += bench.drops(why));
    drops.retain(|_, count| *count > 0);
    let sas = bench.engine.tables.cache.iter_inbound();
    let of_sa = |sa: &InboundSa| format!("{:?} {:?} {:?} {:?}", sa.forwarded, sa.verified, sa.window, sa.meter);
    let counted = |sa: &InboundSa| (sa.shared().packets(), sa.shared().bytes());
    let sas: Vec<_> = sas.map(|(_, sa)| (of_sa(sa), counted(sa))).collect();
    let connections = (bench.engine.router.table.len(), bench.engine.target.tracker.len());
    format!("{frames:02x?} {stages:?} {drops:?} {sas:?} {connections:?} {:?}", bench.events())
}

proptest! {
    #[test]
    fn both_ways_do_the_same(shape in shapes(), bursts in prop::collection::vec((prop::collection::vec(acts(), 1..=32), any::<bool>()), 1..12)) {
        let (mut fast, mut ordinary) = (router(shape), router(shape));
        ordinary.engine.ordinary = true;
        let mut sender = Sender { client: Client::of(shape), shape, sent: Vec::new() };
        for (burst, all_answer) in bursts {
            let frames: Vec<_> = burst.iter().filter_map(|act| sender.frame(act)).take(32).collect();
            let packets = || frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
            fast.engine.receive(NETWORK, packets(), fast.now);
            ordinary.engine.receive(NETWORK, packets(), ordinary.now);
            for bench in [&mut fast, &mut ordinary] {
                answer_arp(bench, all_answer);
                bench.pass(1);
            }
            prop_assert_eq!(picture(&mut fast, |why| why), picture(&mut ordinary, |why| why));
        }
    }

    #[test]
    fn both_targets_do_the_same(
        shape in shapes(),
        bursts in prop::collection::vec(prop::collection::vec((acts(), prop::option::weighted(0.2, spoilt())), 1..=32), 1..12),
    ) {
        let (mut router, mut fast, mut ordinary) = (router_of_one(shape), target(shape), target(shape));
        ordinary.engine.ordinary = true;
        let mut sender = Sender { client: Client::of(shape), shape, sent: Vec::new() };
        for burst in bursts {
            let mut spoils = Vec::new();
            for (act, how) in &burst {
                let Some(frame) = sender.frame(act) else { continue };
                spoils.extend(crossed(&mut router, &frame).into_iter().map(|frame| how.iter().fold(frame, |frame, how| how.spoil(frame))));
            }
            spoils.truncate(32);
            let packets = || spoils.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
            fast.engine.receive(LINK, packets(), fast.now);
            ordinary.engine.receive(LINK, packets(), ordinary.now);
            for bench in [&mut fast, &mut ordinary] {
                // The server answers whatever began, so that connections are established.
                for flow in 0..6 {
                    bench.receive(APPLICATION, &segment(shape.vip, 80, shape.inner, 4000 + flow, TcpFlags::SYN | TcpFlags::ACK));
                }
                bench.client_receives();
                bench.pass(1);
            }
            prop_assert_eq!(picture(&mut fast, old_or_forged), picture(&mut ordinary, old_or_forged));
        }
    }
}

/// The next hops of the link answer, so that what waits for them goes; or one of them only.
fn answer_arp(bench: &mut Bench, all: bool) {
    let arps = bench.engine.out.frames[LINK].iter();
    let asked: Vec<_> = arps.filter_map(|frame| Arp::parse(frame.bytes().get(ethernet::HEADER_LEN..)?).ok()).collect();
    for asked in asked.iter().filter(|asked| all || asked.target_ip.octets()[3] == 11) {
        let mac = Bench::mac_of(asked.target_ip.octets()[3], LINK);
        bench.receive_frame(LINK, &arp::reply_frame(mac, asked));
    }
}

#[test]
fn packets_of_a_known_connection_take_the_fast_path_and_go_as_they_came() {
    let mut bench = router(TUNNEL);
    let mut sender = Sender { client: Client::of(TUNNEL), shape: TUNNEL, sent: Vec::new() };
    let tcp = |flow, flags| Act::Tcp { flow, flags, len: 0 };
    let mut send = |bench: &mut Bench, acts: &[Act]| {
        let frames: Vec<_> = acts.iter().filter_map(|act| sender.frame(act)).collect();
        let packets = frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
        bench.engine.receive(NETWORK, packets, bench.now);
        frames
    };
    send(&mut bench, &[tcp(0, TcpFlags::SYN), tcp(1, TcpFlags::SYN)]);
    let asked = bench.sent(LINK);
    let asked = Arp::parse(&asked[0][ethernet::HEADER_LEN..]).unwrap();
    bench.receive_frame(LINK, &arp::reply_frame(Bench::mac_of(11, LINK), &asked));
    assert_eq!(bench.sent(LINK).len(), 1, "round robin: one of two");
    let burst: Vec<_> =
        (0..32).map(|n| if n % 8 == 5 { tcp(2 + n, TcpFlags::SYN) } else { tcp(1, TcpFlags::ACK) }).collect();
    let frames = send(&mut bench, &burst);
    let (fast, all) = (bench.stats.stage(Stage::RoutedFast), bench.sent(LINK));
    assert_eq!(fast, 28, "all but the SYNs");
    // Ethernet, IP, GRE, link header; then the packet as it came.
    let inside = |frame: &Vec<u8>| frame[ethernet::HEADER_LEN + phalanx_wire::link::OVERHEAD_V4..].to_vec();
    let acks =
        frames.iter().zip(0..).filter(|(_, n)| n % 8 != 5).map(|(frame, _)| frame[ethernet::HEADER_LEN..].to_vec());
    assert_eq!(all.iter().map(inside).take(28).collect::<Vec<_>>(), acks.collect::<Vec<_>>());
}

#[test]
fn a_packet_that_waits_for_its_next_hop_lends_nothing_to_those_behind_it() {
    let mut bench = router(TUNNEL);
    let boxes = [(1, LinkEnd::Gre(gre(1, 11), CoreId(0))), (2, LinkEnd::Gre(gre(1, 12), CoreId(0)))];
    bench.set_targets(&boxes, &[(0..=u16::MAX, &[1, 2])]);
    let mut sender = Sender { client: Client::of(TUNNEL), shape: TUNNEL, sent: Vec::new() };
    let mut send = |bench: &mut Bench, acts: &[(u16, u8)]| {
        let acts = acts.iter().map(|&(flow, flags)| Act::Tcp { flow, flags, len: 0 });
        let frames: Vec<_> = acts.filter_map(|act| sender.frame(&act)).collect();
        let packets = frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
        bench.engine.receive(NETWORK, packets, bench.now);
    };
    // One connection each; only the first target's next hop answers.
    send(&mut bench, &[(0, TcpFlags::SYN), (1, TcpFlags::SYN)]);
    let asked = bench.sent(LINK);
    let asked: Vec<_> = asked.iter().map(|frame| Arp::parse(&frame[ethernet::HEADER_LEN..]).unwrap()).collect();
    let first = asked.iter().find(|asked| asked.target_ip.to_string() == "10.78.0.11").unwrap();
    bench.receive_frame(LINK, &arp::reply_frame(Bench::mac_of(11, LINK), first));
    bench.sent(LINK);
    // All as long as each other, in turn: what is for the second target waits.
    send(
        &mut bench,
        &[(0, TcpFlags::ACK), (1, TcpFlags::ACK), (1, TcpFlags::ACK), (0, TcpFlags::ACK), (1, TcpFlags::ACK)],
    );
    assert_eq!(bench.sent(LINK).len(), 2, "only what the first target is to have");
    assert_eq!(bench.stats.stage(Stage::HeldForNeighbour), 2 + 3);
}

#[test]
fn segments_of_a_known_connection_take_the_fast_path_of_the_target() {
    segments_take_the_fast_path(router_of_one(TUNNEL), target(TUNNEL));
}

#[test]
fn segments_over_memif_take_the_fast_path_of_the_target_in_gre_or_without() {
    let (router, mut target, _) = super::memif::pair();
    target.lease(1, 1 << 20);
    segments_take_the_fast_path(router, target);
    let mut target = self::target(TUNNEL);
    Arc::get_mut(&mut target.engine.world).expect("nobody else's").ports[LINK].memif = true;
    segments_take_the_fast_path(router_of_one(TUNNEL), target);
}

fn segments_take_the_fast_path(mut router: Bench, mut target: Bench) {
    let mut sender = Sender { client: Client::of(TUNNEL), shape: TUNNEL, sent: Vec::new() };
    let mut send = |target: &mut Bench, acts: &[Act]| {
        let frames: Vec<_> =
            acts.iter().filter_map(|act| sender.frame(act)).flat_map(|frame| crossed(&mut router, &frame)).collect();
        let mut latest = Latest::nothing();
        let begins = |frame: &Vec<u8>| target.engine.begin_fast(LINK, frame, &mut latest).is_some();
        assert!(frames.iter().all(begins), "all the way");
        target.engine.receive(LINK, frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256)), target.now);
        target.delivered().len()
    };
    let tcp = |flow, flags| Act::Tcp { flow, flags, len: 9 };
    for flow in 0..2 {
        assert_eq!(send(&mut target, &[tcp(flow, TcpFlags::SYN)]), 1);
        target.receive(APPLICATION, &answer(4000 + flow, TcpFlags::SYN | TcpFlags::ACK));
        // The handshake's end is the first packet that the filters' answer could be remembered of; the next one that it is.
        assert_eq!(send(&mut target, &[tcp(flow, TcpFlags::ACK)]), 1);
        assert_eq!(send(&mut target, &[tcp(flow, TcpFlags::ACK)]), 1);
    }
    let before = target.stats.stage(Stage::OpenedFast);
    let acks = [
        tcp(0, TcpFlags::ACK),
        tcp(0, TcpFlags::ACK),
        tcp(1, TcpFlags::ACK),
        tcp(2, TcpFlags::SYN),
        tcp(0, TcpFlags::ACK),
    ];
    assert_eq!(send(&mut target, &acks), 5);
    assert_eq!(target.stats.stage(Stage::OpenedFast) - before, 4);
    target.only_dropped(&[]);
}

#[test]
fn congestion_on_the_way_of_one_packet_of_a_run_is_not_overlooked() {
    let (mut router, mut target) = (router_of_one(TUNNEL), target(TUNNEL));
    let mut sender = Sender { client: Client::of(TUNNEL), shape: TUNNEL, sent: Vec::new() };
    let mut send = |target: &mut Bench, acts: &[Act]| {
        let frames: Vec<_> =
            acts.iter().filter_map(|act| sender.frame(act)).flat_map(|frame| crossed(&mut router, &frame)).collect();
        burst(target, LINK, &frames);
        target.delivered().len()
    };
    let tcp = |flags| Act::Tcp { flow: 0, flags, len: 9 };
    send(&mut target, &[tcp(TcpFlags::SYN)]);
    target.receive(APPLICATION, &answer(4000, TcpFlags::SYN | TcpFlags::ACK));
    send(&mut target, &[tcp(TcpFlags::ACK)]);
    send(&mut target, &[tcp(TcpFlags::ACK)]);
    // RFC 6040 §4.2: who says that it does not know of congestion must not be told in any other way than by a loss.
    let marked = Act::Spoilt(Spoilt::Header { field: 1, value: 0b11 }, Box::new(tcp(TcpFlags::ACK)));
    let acks = [tcp(TcpFlags::ACK), tcp(TcpFlags::ACK), marked, tcp(TcpFlags::ACK)];
    assert_eq!(send(&mut target, &acks), 3);
    target.only_dropped(&[(DropReason::BadInner, 1)]);
}

/// The SA of another peer, behind which the network has the same addresses; its client's tunnel ends at 10.77.0.20.
pub(super) fn of_another_peer(id: SaId, direction: Direction) -> SaParams {
    let shape = Shape { client: "10.77.0.20", ..TUNNEL };
    SaParams { peer: PeerId(2), tunnel: TunnelName::new("other").unwrap(), ..shape.sa(id, direction) }
}

/// That peer's client, and ours, on one flow: their frames.
fn two_peers() -> (SaParams, impl FnMut(bool, u8) -> Vec<u8>) {
    let inbound = of_another_peer(SaId(3), Direction::Inbound);
    let mut clients = [Client::new(), Client::at(inbound.clone(), of_another_peer(SaId(4), Direction::Outbound))];
    let frame = move |other: bool, flags| {
        framed(&clients[usize::from(other)].tcp(4000, flags), Bench::mac_of(1, NETWORK), CLIENT_MAC)
    };
    (inbound, frame)
}

pub(super) fn burst(bench: &mut Bench, port: usize, frames: &[Vec<u8>]) {
    let packets = frames.iter().map(|frame| VecBuffer::from_slice(128, frame, 256));
    bench.engine.receive(port, packets, bench.now);
}

/// Runs of one flow: whose packets they are.
const TURNS: [bool; 7] = [true, false, false, true, true, false, true];

#[test]
fn a_frame_that_is_cut_short_lends_nothing_to_those_behind_it() {
    let (inbound, mut frame) = two_peers();
    let (mut router, mut fast, _) = memif::pair();
    let (_, mut ordinary, _) = memif::pair();
    ordinary.engine.ordinary = true;
    for bench in [&mut router, &mut fast, &mut ordinary] {
        bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound.clone()).unwrap())));
        bench.order(Command::Ceiling(inbound.id, 1 << 30));
    }
    let mut frames: Vec<_> = [false, false, true, true, false, false]
        .iter()
        .flat_map(|other| crossed(&mut router, &frame(*other, TcpFlags::SYN)))
        .collect();
    assert_eq!(frames.len(), 6);
    // Its headers are whole, and say what is not there.
    frames[3].truncate(70);
    burst(&mut fast, LINK, &frames);
    burst(&mut ordinary, LINK, &frames);
    assert_eq!(picture(&mut fast, |why| why), picture(&mut ordinary, |why| why));
}

#[test]
fn numbers_that_follow_each_other_are_no_row_where_they_are_of_two_sas() {
    let (mut router, mut target) = (router_of_one(TUNNEL), target(TUNNEL));
    let (inbound, outbound) =
        (of_another_peer(SaId(3), Direction::Inbound), of_another_peer(SaId(4), Direction::Outbound));
    for bench in [&mut router, &mut target] {
        bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound.clone()).unwrap())));
        bench.order(Command::Ceiling(inbound.id, 1 << 30));
    }
    let (mut ours, mut other) = (Client::new(), Client::at(inbound, outbound));
    other.skip(1);
    let frames = [ours.tcp(4000, TcpFlags::SYN), other.tcp(4000, TcpFlags::SYN)];
    let framed = frames.map(|packet| framed(&packet, Bench::mac_of(1, NETWORK), CLIENT_MAC));
    burst(&mut target, LINK, &framed.map(|frame| crossed(&mut router, &frame)).concat());
    let edge = |id| target.engine.tables.cache.find_inbound(id).and_then(|at| target.engine.tables.cache.inbound(at));
    assert_eq!([IN, SaId(3)].map(|id| edge(id).map(|sa| sa.window.edge())), [Some(1), Some(2)]);
}

#[test]
fn one_flow_of_two_peers_is_two_connections_on_the_fast_path_of_a_router() {
    let (inbound, mut frame) = two_peers();
    let mut bench = router(TUNNEL);
    let boxes = [(1, LinkEnd::Gre(gre(1, 11), CoreId(0))), (2, LinkEnd::Gre(gre(1, 12), CoreId(0)))];
    bench.set_targets(&boxes, &[(0..=u16::MAX, &[1, 2])]);
    bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound.clone()).unwrap())));
    bench.order(Command::Ceiling(inbound.id, 1 << 30));
    // In turn: each peer's connection has a target of its own.
    burst(&mut bench, NETWORK, &[frame(false, TcpFlags::SYN), frame(true, TcpFlags::SYN)]);
    answer_arp(&mut bench, true);
    bench.sent(LINK);
    let acks: Vec<_> = TURNS.iter().map(|other| frame(*other, TcpFlags::ACK)).collect();
    burst(&mut bench, NETWORK, &acks);
    assert_eq!(bench.stats.stage(Stage::RoutedFast), TURNS.len() as u64);
    let front = ethernet::HEADER_LEN + phalanx_wire::link::OVERHEAD_V4;
    let sent: Vec<_> = bench.sent(LINK).iter().map(|frame| (frame[33], frame[front..].to_vec())).collect();
    let expected =
        TURNS.iter().zip(&acks).map(|(other, ack)| (11 + u8::from(*other), ack[ethernet::HEADER_LEN..].to_vec()));
    assert_eq!(sent, expected.collect::<Vec<_>>());
}

#[test]
fn one_flow_of_two_peers_is_two_connections_on_the_fast_path_of_a_target() {
    let (inbound, mut frame) = two_peers();
    let (mut router, mut target) = (router_of_one(TUNNEL), target(TUNNEL));
    for bench in [&mut router, &mut target] {
        bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound.clone()).unwrap())));
        bench.order(Command::Ceiling(inbound.id, 1 << 30));
    }
    let mut cross = |router: &mut Bench, other, flags| crossed(router, &frame(other, flags));
    let opening = [false, true].map(|other| cross(&mut router, other, TcpFlags::SYN));
    // Ours is established and ruled on.
    burst(&mut target, LINK, &opening.concat());
    target.receive(APPLICATION, &answer(4000, TcpFlags::SYN | TcpFlags::ACK));
    for _ in 0..2 {
        let ack = cross(&mut router, false, TcpFlags::ACK);
        burst(&mut target, LINK, &ack);
    }
    let before = target.stats.stage(Stage::OpenedFast);
    let acks: Vec<_> = TURNS.iter().flat_map(|other| cross(&mut router, *other, TcpFlags::ACK)).collect();
    burst(&mut target, LINK, &acks);
    let ours = TURNS.iter().filter(|other| !**other).count() as u64;
    assert_eq!(target.stats.stage(Stage::OpenedFast) - before, ours);
    // No rule sends that flow through the other one's tunnel.
    target.only_dropped(&[(DropReason::WrongTunnel, 1 + TURNS.len() as u64 - ours)]);
}
