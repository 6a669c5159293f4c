//! The fast path of a router.
//!
//! Nearly all that comes to a router is alike: ESP in tunnel mode over IPv4, and inside TCP or UDP over IPv4 of a connection that has its
//! target. Of such a packet a few fields say where it goes, and it is forwarded. Whatever is different in any way takes the ordinary way
//! ([`Engine::receive_frames`]), and so does what would have to be opened or dropped: only there is anything decided, counted or
//! changed. So this path says nothing that the ordinary one does not say, sooner (`tests/fast.rs`). Within a burst it comes first, as on
//! the ordinary way what is known goes before what has to be opened; so a packet of a known connection that is not as most are may go
//! behind later ones of its burst, 31 at most, which any window has room for.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use phalanx_aead::{PeekOp, peek_burst};
use phalanx_ipsec::{Glance, InboundIndex};
use phalanx_steering::{ConnKey, Route, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{
    Buffer, DropReason, EspHeader, Flow4, Frame, Likeness, LinkHeader, Mac, TargetId, TcpHeader, UdpHeader, VipId,
    link, protocol, tcp, udp,
};

use crate::ahead::{Begins, SasAhead};
use crate::clock::Now;
use crate::command::LinkEnd;
use crate::config::PortRole;
use crate::engine::{Batch, Engine};
use crate::laps::Step;
use crate::packet::{Marked, Source, trim};
use crate::stats::Stage;

/// Ethernet, and IPv4, GRE and link header: the longest that there is a short way for.
const FRONT: usize = ethernet::HEADER_LEN + link::OVERHEAD_V4;
/// Targets with a short way in one burst.
const LEGS: usize = 4;

type Legs = ArrayVec<Leg, LEGS>;

/// Ethernet, IPv4 and SPI: packets that are alike in these are of one kind.
const FRONT_OF_KIND: usize = ethernet::HEADER_LEN + ipv4::MIN_LEN + 4;
const OF_ONE_KIND: Likeness<FRONT_OF_KIND> = Likeness::ALL.but_ipv4(ethernet::HEADER_LEN);
/// IPv4 and ports: packets that are alike in these show one connection.
const FRONT_OF_RUN: usize = ipv4::MIN_LEN + 4;
const OF_ONE_RUN: Likeness<FRONT_OF_RUN> = Likeness::ALL.but_ipv4(0);

/// A packet whose SA and number are known.
#[derive(Clone, Copy)]
struct Glanced {
    seq: u64,
    sa: InboundIndex,
    vip: u16,
    /// Of the IP packet; what is behind is padding of Ethernet.
    len: u16,
    glance: Glance,
}

/// What is in front of packets to a target on another box or in another process: that of the one before, but for lengths and numbers.
struct Leg {
    vip: u16,
    target: TargetId,
    port: usize,
    front: ArrayVec<u8, FRONT>,
    /// Of the IPv4 header in there.
    outer: Option<ipv4::Template>,
    /// The longest packet that goes in one piece.
    most: usize,
}

/// What the packet before had, and any of its kind has.
#[derive(Clone, Copy)]
struct Kind {
    vip: u16,
    sa: InboundIndex,
}

/// What packets before had.
struct Latest {
    vip: Option<RoutedVip>,
    sa: Option<InboundIndex>,
    kind: Option<Kind>,
    /// What packets of that kind are alike in.
    front: [u8; FRONT_OF_KIND],
}

/// A VIP whose router this core is, by its address: its slot.
type RoutedVip = (Ipv4Addr, u16, VipId);

/// Packets through one SA that show one connection, one behind the other: what there is to look up is so for the first.
struct Run {
    /// Place of that one in the burst.
    first: u8,
    vip: u16,
    sa: InboundIndex,
    local: Ipv4Addr,
    sought: Sought,
    /// If that is another core's.
    route: Option<Route>,
}

/// Packets of a burst by runs.
#[derive(Default)]
struct Runs {
    /// Of each packet, if it has one.
    of: Batch<Option<u8>>,
    runs: Batch<Run>,
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
        let mut glanced = Batch::new();
        let fast = self.glance(port, frames, &mut glanced);
        if fast == 0 {
            return self.receive_frames(port, frames, now);
        }
        self.out.lap(Step::Sort, fast);
        self.glimpse(frames, &glanced);
        self.out.lap(Step::Peek, fast);
        let mut runs = Runs::default();
        self.runs(&glanced, &mut runs);
        let (mut forwarded, mut ordinary, mut legs) = (0, Batch::new(), Legs::new());
        for ((frame, one), run) in frames.drain(..).zip(&glanced).zip(&runs.of) {
            let route = run.and_then(|run| runs.runs[usize::from(run)].route);
            match one.as_ref().zip(route) {
                Some((one, route)) if !route.is_older(one.seq) => {
                    forwarded += 1;
                    self.forward_fast(one, route.target, frame, &mut legs, now);
                }
                _ => ordinary.push(frame),
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

    /// Step 1, and of how many.
    fn glance(&self, port: usize, frames: &Batch<S::Packet>, glanced: &mut Batch<Option<Glanced>>) -> usize {
        let (mac, mut count) = (self.world.ports[port].mac, 0);
        let mut latest = Latest { vip: None, sa: None, kind: None, front: [0; FRONT_OF_KIND] };
        let mut ahead = SasAhead::default();
        self.spis_ahead(Begins::Network, frames, &mut ahead);
        for (at, frame) in frames.iter().enumerate() {
            self.sas_ahead(&mut ahead, at);
            // What is watched is told about step by step.
            let one = if frame.mark() == 0 { self.glance_at(frame.bytes(), mac, &mut latest) } else { None };
            if let Some(one) = &one {
                self.peek_ahead(one.sa);
                count += 1;
            }
            glanced.push(one);
        }
        count
    }

    #[inline(always)]
    fn glance_at(&self, frame: &[u8], mac: Mac, latest: &mut Latest) -> Option<Glanced> {
        let kind = match latest.kind {
            Some(kind) if OF_ONE_KIND.holds(&latest.front, frame) => kind,
            _ => {
                let kind = self.kind_of_routed(frame, mac, &mut latest.vip)?;
                // The second one of an SA in a row: there may be more. Where SAs take turns nothing is kept, and nothing compared.
                latest.kind = None;
                if latest.sa == Some(kind.sa) {
                    latest.front = *frame.first_chunk()?;
                    latest.kind = Some(kind);
                }
                latest.sa = Some(kind.sa);
                kind
            }
        };
        let (Kind { vip, sa: at }, packet) = (kind, &frame[ethernet::HEADER_LEN..]);
        let len = ipv4::plain_len(packet).filter(|len| *len <= packet.len())?;
        let sa = self.tables.cache.inbound(at)?;
        let glance = sa.glance(len)?;
        let EspHeader { seq, .. } = EspHeader::parse(&packet[ipv4::MIN_LEN..]).ok()?;
        let seq = sa.verified.infer_above(seq, sa.notes.floor.max(sa.notes.late))?;
        sa.verified.check(seq).ok()?;
        Some(Glanced { seq, sa: at, vip, len: len as u16, glance })
    }

    #[inline(always)]
    fn kind_of_routed(&self, frame: &[u8], mac: Mac, latest: &mut Option<RoutedVip>) -> Option<Kind> {
        Frame::parse(frame).ok().filter(|header| header.dst == mac && header.ethertype == ethertype::IPV4)?;
        let packet = &frame[ethernet::HEADER_LEN..];
        let ip = Plain::of(packet).filter(|ip| ip.protocol == protocol::ESP)?;
        let (vip, id) = self.routed_vip(ip.dst, latest)?;
        let sa = self.tables.esp_sa(id, EspHeader::parse(&packet[ipv4::MIN_LEN..]).ok()?.spi)?;
        self.tables.cache.inbound(sa).filter(|sa| !sa.notes.early && sa.is_plain(&ip))?;
        Some(Kind { vip, sa })
    }

    /// The VIP's slot and number, if this core is its router and leaves filters to targets.
    #[inline(always)]
    fn routed_vip(&self, address: Ipv4Addr, latest: &mut Option<RoutedVip>) -> Option<(u16, VipId)> {
        if let Some((_, slot, id)) = latest.filter(|(known, ..)| *known == address) {
            return Some((slot, id));
        }
        let slot = self.tables.vips.slot_of(IpAddr::V4(address)).filter(|slot| self.routes(*slot))?;
        let entry = self.tables.vips.at(slot).map(|vip| &vip.entry).filter(|entry| !entry.filter_at_router)?;
        *latest = Some((address, slot, entry.id));
        Some((slot, entry.id))
    }

    /// Step 2.
    fn glimpse(&mut self, frames: &Batch<S::Packet>, glanced: &Batch<Option<Glanced>>) {
        let mut ops: Batch<PeekOp<'_>> = Batch::new();
        for ((one, frame), out) in glanced.iter().zip(frames).zip(&mut self.router.glances) {
            if let Some(one) = one
                && let Some(sa) = self.tables.cache.inbound(one.sa)
            {
                ops.push(sa.glance_op(&one.glance, &frame.bytes()[ethernet::HEADER_LEN..], out));
            }
        }
        peek_burst(&mut ops);
    }

    /// Step 3.
    fn runs(&self, glanced: &Batch<Option<Glanced>>, Runs { of, runs }: &mut Runs) {
        for (at, one) in glanced.iter().enumerate() {
            let before = runs.len();
            of.push(one.as_ref().and_then(|one| self.run(one, at, runs)));
            if runs.len() > before {
                self.routes_ahead(runs.len(), glanced.len(), |at| Some(&runs[at].sought));
            }
        }
        self.routes_ahead(runs.len(), runs.len(), |at| Some(&runs[at].sought));
        for run in runs {
            run.route = self.route_of(run);
        }
    }

    /// The run of the connection that a packet shows, if it is one with a VIP and the packet begins none: it is the last one.
    #[inline(always)]
    fn run(&self, one: &Glanced, at: usize, runs: &mut Batch<Run>) -> Option<u8> {
        let shown = &self.router.glances[at];
        let total_len = ipv4::plain_len(shown).filter(|len| one.glance.holds(*len))?;
        let (upper, upper_len) = (&shown[ipv4::MIN_LEN..], total_len - ipv4::MIN_LEN);
        let right = match shown[ipv4::PROTOCOL_FIELD] {
            protocol::TCP => upper_len >= tcp::MIN_LEN && !TcpHeader::parse_prefix(upper).ok()?.flags.opens(),
            protocol::UDP => upper_len >= udp::LEN && UdpHeader::parse_prefix(upper).is_ok(),
            _ => false,
        };
        if !right {
            return None;
        }
        let front = |run: &Run| self.router.glances[usize::from(run.first)].first_chunk();
        let before = runs.last().filter(|run| run.sa == one.sa).and_then(front);
        if !before.is_some_and(|front| OF_ONE_RUN.holds(front, shown)) {
            let run = self.new_run(one, at, runs.last())?;
            runs.push(run);
        }
        Some(runs.len() as u8 - 1)
    }

    #[inline(always)]
    fn new_run(&self, &Glanced { sa, vip, .. }: &Glanced, at: usize, before: Option<&Run>) -> Option<Run> {
        let front = &self.router.glances[at];
        let inner = Plain::of(front)?;
        if before.is_none_or(|run| run.local != inner.dst) {
            self.tables.vips.slot_of(IpAddr::V4(inner.dst))?;
        }
        let [from, to] = [ipv4::MIN_LEN, ipv4::MIN_LEN + 2].map(|at| u16::from_be_bytes([front[at], front[at + 1]]));
        let flow = Flow4 { protocol: inner.protocol, local: (inner.dst, to), remote: (inner.src, from) };
        let peer = self.tables.cache.inbound(sa)?.peer();
        let sought = self.router.table.seek(&ConnKey { peer, flow: flow.into() });
        Some(Run { first: at as u8, vip, sa, local: inner.dst, sought, route: None })
    }

    #[inline(always)]
    fn route_of(&self, Run { vip, sa, sought, .. }: &Run) -> Option<Route> {
        let route = self.router.table.route(sought, self.tables.cache.inbound(*sa)?.spi())?;
        let (_, entry) = self.tables.vips.at(*vip)?.target(route.target)?;
        (entry.link != LinkEnd::Ring(self.id)).then_some(route)
    }

    /// Step 4: as it came (R14).
    #[inline(always)]
    fn forward_fast(&mut self, one: &Glanced, target: TargetId, mut frame: S::Packet, legs: &mut Legs, now: Now) {
        let len = usize::from(one.len);
        trim(&mut frame, ethernet::HEADER_LEN + len);
        if let Some(sa) = self.tables.cache.inbound_mut(one.sa) {
            sa.forwarded.note(target, one.seq);
        }
        match legs.iter().find(|leg| leg.vip == one.vip && leg.target == target && len <= leg.most) {
            Some(leg) => match leg.put_in_front(one, &mut frame) {
                Ok(()) => self.out.frame(leg.port, frame),
                Err(reason) => self.out.drop(frame, reason),
            },
            None => {
                frame.cut_front(ethernet::HEADER_LEN);
                self.forward_first(one, target, frame, legs, now);
            }
        }
    }

    /// The first of a burst to its target: the next ones go as it went.
    #[inline(never)]
    fn forward_first(&mut self, one: &Glanced, target: TargetId, packet: S::Packet, legs: &mut Legs, now: Now) {
        let vip = self.tables.vips.at(one.vip);
        let Some((vip, link)) = vip.and_then(|vip| Some((vip, vip.target(target)?.1.link))) else {
            return self.out.drop(packet, DropReason::NoTarget);
        };
        let header = vip.link_header(link, one.seq);
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
            let _ = self.leg(one, target, link, port).map(|leg| legs.try_push(leg));
        }
    }

    /// By the last frame to the port, if it is the packet: not a question about its next hop.
    fn leg(&self, one: &Glanced, target: TargetId, link: LinkEnd, port: usize) -> Option<Leg> {
        let frame = self.out.frames[port].last()?.bytes();
        let front = frame.len().checked_sub(one.len.into())?;
        let right = match link {
            LinkEnd::Gre(..) => front == FRONT && frame[12..14] == ethertype::IPV4.to_be_bytes(),
            _ => front == ethernet::HEADER_LEN + LinkHeader::LEN && frame[12..14] == ethertype::LINK.to_be_bytes(),
        };
        let most = self.world.ports[port].mtu.checked_sub(front - ethernet::HEADER_LEN)?;
        let front: ArrayVec<u8, FRONT> = frame[..front].try_into().ok().filter(|_| right)?;
        let outer = front.first_chunk::<FRONT>().and_then(|front| front[ethernet::HEADER_LEN..].first_chunk());
        Some(Leg { vip: one.vip, target, port, outer: outer.map(ipv4::Template::of), front, most })
    }
}

impl Leg {
    /// In the place of the frame's own Ethernet header.
    #[inline(always)]
    fn put_in_front(&self, one: &Glanced, frame: &mut impl Buffer) -> Result<(), DropReason> {
        let front = &self.front[..];
        frame.grow_front(front.len() - ethernet::HEADER_LEN)?;
        let bytes = frame.bytes_mut();
        // Changed where it is to be: what is changed first and copied then is waited for.
        match (self.outer, front.first_chunk::<FRONT>(), bytes.first_chunk_mut::<FRONT>()) {
            (Some(outer), Some(front), Some(bytes)) => {
                *bytes = *front;
                let header = bytes[ethernet::HEADER_LEN..].first_chunk_mut().ok_or(DropReason::NoRoom)?;
                outer.set(header, link::OVERHEAD_V4 as u16 + one.len, 0);
            }
            _ => bytes[..front.len()].copy_from_slice(front),
        }
        Ok(link::set_seq_high(&mut bytes[..front.len()], (one.seq >> 32) as u32)?)
    }
}
