//! A router core, a target core and clients: packets go around, and each core's part is timed.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::sync::Arc;

use arrayvec::ArrayVec;
use phalanx_dataplane::{Command, Event, LoneCore, LonePacket, Step};
use phalanx_ipsec::{Direction, InboundSa, Lease, OutboundSa};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Arp, Buffer, DropReason, Frame, Mac, arp};

use super::shape::{
    ACK, APPLICATION, CLIENT_MAC, Connection, LINK, NETWORK, ROUTER, SYN, Shape, Side, TARGET, TARGET_ID, config, mac,
    turned, vip_commands,
};
use crate::counting::counted;
use crate::harness::clock;

const BURST: usize = phalanx_aead::BURST;

/// Everything is set up and every connection established; [`Bed::round`] sends packets.
pub struct Bed {
    shape: Shape,
    router: LoneCore,
    target: LoneCore,
    clients: Vec<(OutboundSa, Lease)>,
    next: usize,
    /// 32 packets, going around.
    packets: Vec<LonePacket>,
    memory: Memory,
    /// Of the time stamp counter.
    hertz: f64,
}

/// The steps of each path, as `phalanx runtime` has them. A target's `sort` is of packets from the link.
pub const STAGES: [(&str, Side, Step); 10] = [
    ("router-in/sort", Side::Router, Step::Sort),
    ("router-in/peek", Side::Router, Step::Peek),
    ("router-in/decide", Side::Router, Step::Decide),
    ("target-in/sort", Side::Target, Step::Sort),
    ("target-in/open", Side::Target, Step::Open),
    ("target-in/deliver", Side::Target, Step::Deliver),
    ("target-out/way-out", Side::Target, Step::WayOut),
    ("target-out/lease", Side::Target, Step::Lease),
    ("target-out/seal", Side::Target, Step::Seal),
    ("target-out/next-hop", Side::Target, Step::NextHop),
];

/// Bytes that a core takes, by what for; both cores are given room for as many as the shape has.
pub struct Memory {
    /// An inbound SA, with its places in tables, without its parameters.
    pub inbound: usize,
    /// An outbound SA, likewise.
    pub outbound: usize,
    /// The parameters of either, which all cores of a node and its control share.
    pub params: usize,
    /// A connection in the router's table.
    pub routed: usize,
    /// A connection in a target's tracker.
    pub tracked: usize,
}

type Frames = ArrayVec<LonePacket, BURST>;

impl Bed {
    pub fn new(shape: Shape) -> Bed {
        let mut router = core(shape, Side::Router);
        let mut target = core(shape, Side::Target);
        let mut clients = Vec::with_capacity(shape.sas);
        vip_commands(Side::Router).into_iter().for_each(|command| router.obey(command));
        vip_commands(Side::Target).into_iter().for_each(|command| target.obey(command));
        for sa in 0..shape.sas {
            shape.sa_commands(sa, Side::Router).into_iter().for_each(|command| router.obey(command));
            shape.sa_commands(sa, Side::Target).into_iter().for_each(|command| target.obey(command));
            let client = turned(shape.params(sa, Direction::Inbound));
            clients.push((OutboundSa::new(client).expect("an SA"), Lease::from_wire(1, 1 << 30)));
            drain(&mut router);
            drain(&mut target);
        }
        target.obey(Command::SetFilters(Box::new(shape.filters())));
        let packets = (0..BURST).map(|_| LonePacket::new()).collect();
        let memory = Memory::of(shape);
        let mut bed = Bed { shape, router, target, clients, next: 0, packets, memory, hertz: 1e9 };
        bed.connect();
        bed.hertz = bed.router.stats().measures.clocks_per_second();
        bed
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Nanoseconds that each of [`STAGES`] took so far, by the clocks of the cores' own loops.
    pub fn stages(&self) -> [f64; STAGES.len()] {
        STAGES.map(|(_, side, step)| {
            let core = if side == Side::Router { &self.router } else { &self.target };
            let measures = &core.stats().measures;
            measures.step(step).clocks.value() as f64 * 1e9 / self.hertz
        })
    }

    /// Bytes that each core took for an SA of a direction and for a connection.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the cipher works on for an inner packet of `size` bytes: RFC 4303 §2.4, two bytes of trailer, padded to four.
    pub fn text_len(&self, size: usize) -> usize {
        (size + 2).next_multiple_of(4)
    }

    /// Bursts of inner packets of `size` bytes in, and as many out: nanoseconds per packet of router in, target in,
    /// target out.
    pub fn round(&mut self, size: usize, bursts: usize) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for _ in 0..bursts {
            let connections: ArrayVec<Connection, BURST> =
                (0..BURST).map(|_| self.shape.connection(scattered(&mut self.next, self.shape.connections))).collect();
            let times = self.around(&connections, size, ACK, ACK);
            sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
        sum.map(|sum| sum / (bursts * BURST) as f64)
    }

    /// A packet of each connection to the target, and its answer to the network.
    fn around(&mut self, connections: &[Connection], size: usize, flags: u8, answer: u8) -> [f64; 3] {
        let n = connections.len();
        let mut frames: Frames = self.packets.drain(..n).collect();
        self.seal(connections, &mut frames, size, flags);
        let router_in = clock(|| self.router.receive(NETWORK, frames.drain(..)));
        let mut frames = sent(&mut self.router, LINK, mac(TARGET, LINK), n);
        let target_in = clock(|| self.target.receive(LINK, frames.drain(..)));
        let mut frames = sent(&mut self.target, APPLICATION, CLIENT_MAC, n);
        for (frame, connection) in frames.iter_mut().zip(connections) {
            frame.set(&connection.packet(Direction::Outbound, size, answer));
            to_port(frame, mac(TARGET, APPLICATION));
        }
        let target_out = clock(|| self.target.receive(APPLICATION, frames.drain(..)));
        self.packets.extend(sent(&mut self.target, NETWORK, CLIENT_MAC, n));
        [router_in, target_in, target_out]
    }

    /// A frame of each path as it comes in, with an inner packet of `size` bytes: to the router, to the target, from the application.
    pub fn frames(&mut self, size: usize, flags: u8, answer: u8) -> [Vec<u8>; 3] {
        let connection = self.shape.connection(0);
        let mut frames: Frames = self.packets.drain(..1).collect();
        self.seal(&[connection], &mut frames, size, flags);
        let to_router = frames[0].bytes().to_vec();
        self.router.receive(NETWORK, frames.drain(..));
        let mut frames = sent(&mut self.router, LINK, mac(TARGET, LINK), 1);
        let to_target = frames[0].bytes().to_vec();
        frames[0].set(&connection.packet(Direction::Outbound, size, answer));
        to_port(&mut frames[0], mac(TARGET, APPLICATION));
        let from_application = frames[0].bytes().to_vec();
        self.packets.extend(frames);
        [to_router, to_target, from_application]
    }

    /// As the clients: inner packets become frames to the router.
    fn seal(&mut self, connections: &[Connection], frames: &mut Frames, size: usize, flags: u8) {
        for (frame, connection) in frames.iter_mut().zip(connections) {
            let (sa, numbers) = &mut self.clients[connection.sa];
            frame.set(&connection.packet(Direction::Inbound, size, flags));
            sa.seal(frame, numbers.take().expect("numbers enough")).expect("sealed");
            to_port(frame, mac(ROUTER, NETWORK));
        }
    }

    /// Each connection's handshake; the target says when it is established, and the router confirms.
    fn connect(&mut self) {
        let all: Vec<Connection> = (0..self.shape.connections).map(|at| self.shape.connection(at)).collect();
        for some in all.chunks(BURST) {
            self.around(some, 64, SYN, SYN | ACK);
            self.around(some, 64, ACK, ACK);
            // What is decided once for a connection is.
            self.around(some, 64, ACK, ACK);
            drain(&mut self.router);
            while let Some(event) = self.target.event() {
                if let Event::ConnOpened { vip, key, .. } = event {
                    self.router.obey(Command::Confirm(vip, key, TARGET_ID));
                }
            }
        }
        drain(&mut self.router);
    }
}

impl Memory {
    /// What tables take for one more, and what an SA takes by itself.
    fn of(shape: Shape) -> Memory {
        const MORE: usize = 1 << 16;
        let one = Shape::ONE;
        let per = |side, more: Shape| {
            let taken = |shape| counted(|| core(shape, side)).1;
            taken(more).saturating_sub(taken(one)) / MORE
        };
        let [(of_inbound, params), (of_outbound, _)] =
            [Direction::Inbound, Direction::Outbound].map(|direction| counted(|| Arc::new(shape.params(0, direction))));
        let inbound = counted(|| Box::new(InboundSa::new(of_inbound).expect("an SA"))).1;
        let outbound = counted(|| Box::new(OutboundSa::new(of_outbound).expect("an SA"))).1;
        Memory {
            inbound: inbound + per(Side::Router, Shape { sas: MORE, ..one }),
            outbound: outbound + per(Side::Target, Shape { tunnels: MORE, ..one }),
            params,
            routed: per(Side::Router, Shape { connections: MORE, ..one }),
            tracked: per(Side::Target, Shape { connections: MORE, ..one }),
        }
    }
}

/// The next of `n` things, in an order that no prefetcher guesses; each comes once before any comes again.
pub fn scattered(next: &mut usize, n: usize) -> usize {
    *next = (*next + 48_271) % n;
    *next
}

fn core(shape: Shape, side: Side) -> LoneCore {
    let host = side.host();
    LoneCore::new(&config(shape, side), &[NETWORK, LINK, APPLICATION].map(|port| mac(host, port))).expect("tables")
}

fn to_port(packet: &mut LonePacket, port: Mac) {
    packet.grow_front(ethernet::HEADER_LEN).expect("room");
    ethernet::write(packet.bytes_mut(), port, CLIENT_MAC, ethertype::IPV4).expect("room");
}

/// What was sent by a port: all `n` of the burst. Where the core asks for its next hop, as it does at first and every ten seconds, it is told.
fn sent(core: &mut LoneCore, port: usize, hop: Mac, n: usize) -> Frames {
    let (mut frames, mut asked) = (Frames::new(), None);
    for _ in 0..2 {
        for frame in core.sent(port) {
            match question(frame.bytes()) {
                Some(question) => asked = Some(question),
                None => frames.push(frame),
            }
        }
        if let Some(asked) = asked.take() {
            let mut answer = LonePacket::new();
            answer.set(&arp::reply_frame(hop, &asked));
            core.receive(port, std::iter::once(answer));
        }
    }
    if frames.len() != n {
        let drops: Vec<_> = DropReason::ALL.iter().map(|&why| (why.name(), core.stats().drops(why))).collect();
        panic!("{} of {n}; dropped: {:?}", frames.len(), drops.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>());
    }
    frames
}

/// What an ARP request asks.
pub fn question(frame: &[u8]) -> Option<Arp> {
    let is_arp = Frame::parse(frame).is_ok_and(|frame| frame.ethertype == ethertype::ARP);
    is_arp.then(|| Arp::parse(&frame[ethernet::HEADER_LEN..]).ok()).flatten()
}

fn drain(core: &mut LoneCore) {
    while core.event().is_some() {}
}
