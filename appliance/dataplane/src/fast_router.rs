//! The fast path of a router.
//!
//! Nearly all that comes to a router is alike: ESP in tunnel mode over IPv4, and inside TCP or UDP over IPv4 of a connection that has its
//! target. Of such a packet a few fields say where it goes, and it is forwarded. Whatever is different in any way takes the ordinary way
//! ([`Engine::receive_frames`]), and so does what would have to be opened or dropped: only there is anything decided, counted or
//! changed. So this path says nothing that the ordinary one does not say, sooner (`tests/fast.rs`). Within a burst it comes first, as on
//! the ordinary way what is known goes before what has to be opened.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use phalanx_aead::{PeekOp, peek_burst};
use phalanx_ipsec::{GLANCE, Glance, InboundIndex};
use phalanx_steering::{ConnKey, Route, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{
    Buffer, DropReason, EspHeader, Flow4, Frame, LinkHeader, Mac, TargetId, TcpHeader, UdpHeader, VipId, ip, link,
    protocol, tcp, udp,
};

use crate::ahead::Begins;
use crate::clock::Now;
use crate::command::LinkEnd;
use crate::config::PortRole;
use crate::engine::{Batch, Engine};
use crate::laps::Step;
use crate::packet::{Marked, Source, trim};
use crate::stats::Stage;
use crate::tables::LatestSa;

/// Ethernet, and IPv4, GRE and link header: the longest that there is a short way for.
const FRONT: usize = ethernet::HEADER_LEN + link::OVERHEAD_V4;
/// Targets with a short way in one burst.
const LEGS: usize = 4;

type Legs = ArrayVec<Leg, LEGS>;

/// Where a packet goes that needs nothing else.
pub(crate) struct Way {
    vip: u16,
    target: TargetId,
    sa: InboundIndex,
    seq: u64,
    /// Of the IP packet; what is behind is padding of Ethernet.
    len: usize,
}

/// A packet whose SA and number are known.
struct Glanced {
    /// Its place in the burst.
    at: usize,
    vip: u16,
    sa: InboundIndex,
    seq: u64,
    len: usize,
    glance: Glance,
}

/// What is in front of packets to a target on another box or in another process: that of the one before, but for lengths and numbers.
struct Leg {
    vip: u16,
    target: TargetId,
    port: usize,
    front: ArrayVec<u8, FRONT>,
    /// The longest packet that goes in one piece.
    most: usize,
}

/// What the packet before had.
#[derive(Default)]
struct Latest {
    /// A VIP whose router this core is, by its address: its slot.
    vip: Option<(Ipv4Addr, u16, VipId)>,
    sa: LatestSa,
}

/// Packets through one SA that show one connection, one behind the other: what there is to look up is so for the first.
struct Run {
    vip: u16,
    sa: InboundIndex,
    flow: Flow4,
    sought: Sought,
    /// If that is another core's.
    route: Option<Route>,
}

impl<S: Source> Engine<S> {
    /// Whether packets from the port have a fast path: not while somebody looks at each, nor while connections are being taken out.
    pub(crate) fn has_fast_path(&self, port: usize) -> bool {
        let routes = !self.router.glances.is_empty() && self.world.ports[port].role == PortRole::Network;
        routes
            && !self.is_ordinary()
            && self.watcher.is_none()
            && self.out.tap.is_none()
            && self.router.purges.is_empty()
    }

    /// Frames from a network port: 1. SA and number; 2. peek; 3. connection and target; 4. forwarded, or the ordinary way.
    pub(crate) fn receive_fast(&mut self, port: usize, frames: &mut Batch<S::Packet>, now: Now) {
        let glanced = self.glance(port, frames);
        let fast = glanced.len();
        if fast == 0 {
            return self.receive_frames(port, frames, now);
        }
        self.out.lap(Step::Sort, fast);
        self.glimpse(frames, &glanced);
        self.out.lap(Step::Peek, fast);
        let mut ways = self.ways(&glanced, frames.len());
        let (mut forwarded, mut ordinary, mut legs) = (0, Batch::new(), Legs::new());
        for (frame, way) in frames.drain(..).zip(ways.drain(..)) {
            match way {
                Some(way) => {
                    forwarded += 1;
                    self.forward_fast(&way, frame, &mut legs, now);
                }
                None => ordinary.push(frame),
            }
        }
        for stage in [Stage::RxNetwork, Stage::Peeked, Stage::Forwarded, Stage::RoutedFast] {
            self.out.passed(stage, forwarded);
        }
        self.out.lap(Step::Decide, forwarded);
        if !ordinary.is_empty() {
            self.receive_frames(port, &mut ordinary, now);
        }
    }

    /// Step 1.
    fn glance(&self, port: usize, frames: &Batch<S::Packet>) -> Batch<Glanced> {
        let (mac, mut latest, mut glanced) = (self.world.ports[port].mac, Latest::default(), Batch::new());
        let mut ahead = self.spis_ahead(Begins::Network, frames);
        for (at, frame) in frames.iter().enumerate() {
            self.sas_ahead(&mut ahead, at);
            // What is watched is told about step by step.
            if frame.mark() == 0
                && let Some(one) = self.glance_at(frame.bytes(), mac, &mut latest)
            {
                self.peek_ahead(one.sa);
                glanced.push(Glanced { at, ..one });
            }
        }
        glanced
    }

    #[inline(always)]
    fn glance_at(&self, frame: &[u8], mac: Mac, latest: &mut Latest) -> Option<Glanced> {
        Frame::parse(frame).ok().filter(|header| header.dst == mac && header.ethertype == ethertype::IPV4)?;
        let packet = &frame[ethernet::HEADER_LEN..];
        let ip = Plain::of(packet).filter(|ip| ip.protocol == protocol::ESP)?;
        let packet = packet.get(..ip.total_len)?;
        let (vip, id) = self.routed_vip(ip.dst, latest)?;
        let EspHeader { spi, seq } = EspHeader::parse(&packet[ipv4::MIN_LEN..]).ok()?;
        let at = self.tables.esp_sa(id, spi, &mut latest.sa)?;
        let sa = self.tables.cache.inbound(at).filter(|sa| !sa.notes.early)?;
        let glance = sa.glance(&ip, packet)?;
        let seq = sa.verified.infer_above(seq, sa.notes.floor.max(sa.notes.late))?;
        sa.verified.check(seq).ok()?;
        Some(Glanced { at: 0, vip, sa: at, seq, len: ip.total_len, glance })
    }

    /// The VIP's slot and number, if this core is its router and leaves filters to targets.
    #[inline(always)]
    fn routed_vip(&self, address: Ipv4Addr, latest: &mut Latest) -> Option<(u16, VipId)> {
        if let Some((_, slot, id)) = latest.vip.filter(|(known, ..)| *known == address) {
            return Some((slot, id));
        }
        let slot = self.tables.vips.slot_of(IpAddr::V4(address)).filter(|slot| self.routes(*slot))?;
        let entry = self.tables.vips.at(slot).map(|vip| &vip.entry).filter(|entry| !entry.filter_at_router)?;
        latest.vip = Some((address, slot, entry.id));
        Some((slot, entry.id))
    }

    /// Step 2.
    fn glimpse(&mut self, frames: &Batch<S::Packet>, glanced: &Batch<Glanced>) {
        let mut ops: Batch<PeekOp<'_>> = Batch::new();
        for (one, out) in glanced.iter().zip(&mut self.router.glances) {
            if let Some(sa) = self.tables.cache.inbound(one.sa) {
                ops.push(sa.glance_op(&one.glance, &frames[one.at].bytes()[ethernet::HEADER_LEN..], out));
            }
        }
        peek_burst(&mut ops);
    }

    /// Step 3: of each of `n` packets.
    fn ways(&self, glanced: &Batch<Glanced>, n: usize) -> Batch<Option<Way>> {
        let (mut runs, mut of): (Batch<Run>, Batch<Option<usize>>) = (Batch::new(), Batch::new());
        for (one, shown) in glanced.iter().zip(&self.router.glances) {
            let before = runs.len();
            of.push(self.run(one, shown, &mut runs));
            if runs.len() > before {
                self.routes_ahead(runs.len(), glanced.len(), |at| Some(&runs[at].sought));
            }
        }
        self.routes_ahead(runs.len(), runs.len(), |at| Some(&runs[at].sought));
        for run in &mut runs {
            run.route = self.route_of(run);
        }
        let mut ways: Batch<Option<Way>> = (0..n).map(|_| None).collect();
        for (&Glanced { at, vip, sa, seq, len, .. }, run) in glanced.iter().zip(of) {
            let route = run.and_then(|run| runs[run].route).filter(|route| !route.is_older(seq));
            ways[at] = route.map(|Route { target, .. }| Way { vip, target, sa, seq, len });
        }
        ways
    }

    /// The connection that a packet shows, if it is one with a VIP and the packet begins none: its run is the last one.
    #[inline(always)]
    fn run(&self, one: &Glanced, shown: &[u8; GLANCE], runs: &mut Batch<Run>) -> Option<usize> {
        let inner = Plain::of(shown).filter(|inner| one.glance.holds(inner.total_len))?;
        let upper_len = inner.total_len - ipv4::MIN_LEN;
        let upper = &shown[ipv4::MIN_LEN..];
        let (from, to) = match inner.protocol {
            protocol::TCP if upper_len >= tcp::MIN_LEN => {
                let tcp = TcpHeader::parse_prefix(upper).ok().filter(|tcp| !tcp.flags.opens())?;
                (tcp.src_port, tcp.dst_port)
            }
            protocol::UDP if upper_len >= udp::LEN => {
                let udp = UdpHeader::parse_prefix(upper).ok()?;
                (udp.src_port, udp.dst_port)
            }
            _ => return None,
        };
        let flow = Flow4 { protocol: inner.protocol, local: (inner.dst, to), remote: (inner.src, from) };
        if runs.last().is_none_or(|run| run.sa != one.sa || run.flow != flow) {
            if runs.last().is_none_or(|run| run.flow.local.0 != inner.dst) {
                self.tables.vips.slot_of(IpAddr::V4(inner.dst))?;
            }
            let peer = self.tables.cache.inbound(one.sa)?.peer();
            let sought = self.router.table.seek(&ConnKey { peer, flow: flow.into() });
            runs.push(Run { vip: one.vip, sa: one.sa, flow, sought, route: None });
        }
        Some(runs.len() - 1)
    }

    #[inline(always)]
    fn route_of(&self, Run { vip, sa, sought, .. }: &Run) -> Option<Route> {
        let route = self.router.table.route(sought, self.tables.cache.inbound(*sa)?.spi())?;
        let (_, entry) = self.tables.vips.at(*vip)?.target(route.target)?;
        (entry.link != LinkEnd::Ring(self.id)).then_some(route)
    }

    /// Step 4: as it came (R14).
    #[inline(always)]
    fn forward_fast(&mut self, way: &Way, mut packet: S::Packet, legs: &mut Legs, now: Now) {
        packet.cut_front(ethernet::HEADER_LEN);
        trim(&mut packet, way.len);
        if let Some(sa) = self.tables.cache.inbound_mut(way.sa) {
            sa.forwarded.note(way.target, way.seq);
        }
        match legs.iter().find(|leg| leg.vip == way.vip && leg.target == way.target && way.len <= leg.most) {
            Some(leg) => match leg.put_in_front(way, &mut packet) {
                Ok(()) => self.out.frame(leg.port, packet),
                Err(reason) => self.out.drop(packet, reason),
            },
            None => self.forward_first(way, packet, legs, now),
        }
    }

    /// The first of a burst to its target: the next ones go as it went.
    #[inline(never)]
    fn forward_first(&mut self, way: &Way, packet: S::Packet, legs: &mut Legs, now: Now) {
        let vip = self.tables.vips.at(way.vip);
        let Some((vip, link)) = vip.and_then(|vip| Some((vip, vip.target(way.target)?.1.link))) else {
            return self.out.drop(packet, DropReason::NoTarget);
        };
        let header = vip.link_header(link, way.seq);
        let port = match link {
            LinkEnd::Gre(gre, _) => Some(gre.port),
            LinkEnd::Memif(port, _) => Some(port),
            LinkEnd::Ring(_) => None,
        };
        let queued = |engine: &Self| port.map(|port| (port, engine.out.frames[port].len()));
        let before = queued(self);
        self.send_linked(link, &header, packet, now);
        // What waits for its next hop, or goes in pieces, says nothing of those behind it.
        if let Some((port, count)) = before
            && queued(self) == Some((port, count + 1))
        {
            let _ = self.leg(way, link, port).map(|leg| legs.try_push(leg));
        }
    }

    /// By the last frame to the port, if it is the packet: not a question about its next hop.
    fn leg(&self, way: &Way, link: LinkEnd, port: usize) -> Option<Leg> {
        let frame = self.out.frames[port].last()?.bytes();
        let front = frame.len().checked_sub(way.len)?;
        let right = match link {
            LinkEnd::Gre(..) => front == FRONT && frame[12..14] == ethertype::IPV4.to_be_bytes(),
            _ => front == ethernet::HEADER_LEN + LinkHeader::LEN && frame[12..14] == ethertype::LINK.to_be_bytes(),
        };
        let most = self.world.ports[port].mtu.checked_sub(front - ethernet::HEADER_LEN)?;
        let front = frame[..front].try_into().ok().filter(|_| right)?;
        Some(Leg { vip: way.vip, target: way.target, port, front, most })
    }
}

impl Leg {
    #[inline(always)]
    fn put_in_front(&self, way: &Way, packet: &mut impl Buffer) -> Result<(), DropReason> {
        let front = &self.front[..];
        packet.grow_front(front.len())?;
        let bytes = packet.bytes_mut();
        // Changed where it is to be: what is changed first and copied then is waited for.
        match (front.first_chunk::<FRONT>(), bytes.first_chunk_mut::<FRONT>()) {
            (Some(front), Some(bytes)) => {
                *bytes = *front;
                ip::set_total_len(&mut bytes[ethernet::HEADER_LEN..], link::OVERHEAD_V4 + way.len)?;
            }
            _ => bytes[..front.len()].copy_from_slice(front),
        }
        Ok(link::set_seq_high(&mut bytes[..front.len()], (way.seq >> 32) as u32)?)
    }
}
