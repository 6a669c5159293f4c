//! Inbound at the router: find the SA, check the number against what is verified, peek, decide, forward.
//!
//! Until a packet was opened nothing it says changes anything (I5): look-ups, peeks and forwarding only read.

use arrayvec::ArrayVec;
use phalanx_aead::{PeekOp, peek_burst};
use phalanx_ipsec::{GLANCE, InboundIndex, InboundSa, Peek, PeekJob, Peeked, Subject};
use phalanx_steering::look::{Look, Seen, Shape, look};
use phalanx_steering::{
    Arrival, ConnKey, ConnectionTable, Decision, Ended, Protection, Seed, Sought, SteeringError, TableLimits, steer,
};
use phalanx_wire::{Buffer, DropReason, Flow, IpHeader, LinkHeader, Protected, TargetId, link, protocol};

use crate::bucket::Bucket;
use crate::bundle::{Around, Layers, peek_job};
use crate::clock::Now;
use crate::command::LinkEnd;
use crate::config::Limits;
use crate::engine::{Batch, Engine};
use crate::expected::Expected;
use crate::hold::{Held, HoldPool};
use crate::inner_fragments::FragmentBatches;
use crate::laps::Step;
use crate::notes::{Fact, Segment};
use crate::opening::Opening;
use crate::packet::{BURST, Parcel, Source, prepend};
use crate::peers::is_protected;
use crate::purge::Purges;
use crate::router_own::{Above, Scratch};
use crate::stats::Stage;
use crate::tables::Ruled;

/// Ends of connections are remembered until the windows of their targets have come, or the target is given up: reports
/// come every 100 ms, a session without a sign of life ends after 1 s, and its target is waited for for 0.8 s.
const ENDED_MS: u64 = 3000;
/// So many at least.
const ENDED_LEAST: usize = 64;
/// Rounds of peeking: the first, and one more for IPv6 extension headers.
const PEEK_ROUNDS: usize = 2;

/// The router role of a core.
pub(crate) struct RouterSide<P> {
    pub(crate) table: ConnectionTable,
    /// Beside [`phalanx_ipsec::ShadowCache`], by [`InboundIndex`].
    pub(crate) sas: Box<[RouterSa]>,
    /// Packets that wait for a ceiling.
    pub(crate) held: HoldPool<P>,
    /// SAs that have some.
    pub(crate) above: Above,
    /// Packets whose SA is still being negotiated.
    pub(crate) expected: Expected<P>,
    pub(crate) scratch: Box<[Scratch]>,
    pub(crate) purges: Purges,
    /// Connections that ended a moment ago.
    pub(crate) ended: Ended,
    /// No new connections.
    pub(crate) draining: bool,
    /// How often control is told of paths that fell.
    pub(crate) mtu_bucket: Bucket,
    pub(crate) refusals: Bucket,
    pub(crate) peeked: Box<[Peeked]>,
    /// The same of the fast path.
    pub(crate) glances: Box<[[u8; GLANCE]]>,
}

/// What a router keeps of an inbound SA beside [`phalanx_ipsec::RouterNotes`], for the few packets that it accepts itself.
#[derive(Default)]
pub(crate) struct RouterSa {
    /// The router itself accepts nothing above this, which is durable.
    pub(crate) ceiling: u64,
    /// The highest genuine number so far that came near it or waits for it.
    pub(crate) wanted: u64,
    /// How far above that the ceiling was raised.
    pub(crate) room: u64,
    /// When a higher ceiling was asked for.
    pub(crate) asked_us: Option<u64>,
    pub(crate) held: Held,
}

/// An IP packet to a VIP whose router this core is.
pub(crate) struct Arrived<P> {
    pub(crate) packet: P,
    pub(crate) ip: IpHeader,
    /// The VIP's slot.
    pub(crate) vip: u16,
}

/// A packet that passed the window's check; what [`Arrived`] does not say.
pub(crate) struct Peeking<P> {
    arrived: Arrived<P>,
    pub(crate) sa: InboundIndex,
    seq: u64,
    /// AH around ESP.
    around: Option<Around>,
}

impl<P> RouterSide<P> {
    pub(crate) fn new(enabled: bool, limits: &Limits, seed: Seed) -> Result<RouterSide<P>, SteeringError> {
        // A core that is no router holds next to nothing.
        let connections = if enabled { limits.connections } else { 1 };
        let table = TableLimits {
            connections,
            per_peer: limits.connections_per_peer,
            half_open_per_peer: limits.half_open_per_peer,
            peers: if enabled { limits.peers } else { 1 },
            ..TableLimits::default()
        };
        let burst = if enabled { BURST } else { 0 };
        Ok(RouterSide {
            table: ConnectionTable::new(table, seed)?,
            sas: (0..limits.inbound).map(|_| RouterSa::default()).collect(),
            held: HoldPool::new(limits.held, limits.held_each),
            above: Above::default(),
            expected: Expected::new(enabled),
            scratch: (0..burst).map(|_| Scratch::new(usize::from(limits.frame.max(limits.large_frame)))).collect(),
            purges: Purges::default(),
            ended: Ended::new((connections / 8).max(ENDED_LEAST), ENDED_MS, seed)?,
            draining: false,
            mtu_bucket: Bucket::new(crate::path_mtu::PER_SECOND, crate::path_mtu::AT_ONCE),
            refusals: Bucket::new(crate::refuse::PER_SECOND, crate::refuse::AT_ONCE),
            peeked: (0..burst).map(|_| Peeked::empty()).collect(),
            glances: (0..burst).map(|_| [0; GLANCE]).collect(),
        })
    }
}

impl<S: Source> Engine<S> {
    /// 1. SA, number, verified window; 2. peek; 3. decide; 4. forward; 5. prove what opens a connection on a copy; 6. open our own.
    pub(crate) fn route(&mut self, arrived: &mut Batch<Arrived<S::Packet>>, now: Now) {
        if arrived.is_empty() {
            return;
        }
        let asked = arrived.len();
        if arrived.iter().any(|one| one.ip.fragment.is_some()) {
            self.make_whole(arrived, now);
        }
        let mut burst = self.look_up(arrived, now);
        self.out.lap(Step::LookUp, asked);
        let mut seen = self.peek(&burst);
        let peeked = burst.len();
        self.out.passed(Stage::Peeked, peeked);
        self.out.lap(Step::Peek, peeked);
        let (mut linked, mut syns, mut own) = (Batch::new(), Batch::new(), Batch::new());
        let mut sought: Batch<Option<Sought>> = Batch::new();
        for (one, seen) in burst.iter().zip(&seen) {
            sought.push(self.seek(one.sa, seen));
            self.routes_ahead(sought.len(), peeked, |at| sought[at].as_ref());
        }
        let (mut fragments, mut early) = (FragmentBatches::default(), Batch::new());
        for (at, (one, seen)) in burst.drain(..).zip(&mut seen).enumerate() {
            let piece = self.piece(&one, seen, at);
            let decision = self.decide(&one, seen, sought[at].as_ref(), now);
            let Some(vip) = self.tables.vips.at(one.arrived.vip).map(|vip| vip.entry.id) else { continue };
            let Peeking { arrived: Arrived { packet, ip, vip: slot }, sa, seq, around, .. } = one;
            let opening = Opening { packet, ip, vip, sa, seq, around, filtered: false };
            if self.tables.cache.inbound(sa).is_some_and(|sa| sa.notes.early) {
                early.push((slot, opening));
                continue;
            }
            let Some((slot, mut opening)) = self.sort_fragment(piece, &decision, (slot, opening), &mut fragments)
            else {
                continue;
            };
            match decision {
                Decision::Forward { target } => match self.filter_peeked(vip, sa, seen) {
                    Ok(filtered) => {
                        opening.filtered = filtered;
                        self.forward(slot, target, opening, now, &mut linked);
                    }
                    Err(reason) => self.out.drop(opening.packet, reason),
                },
                Decision::OpenThenSelect => syns.push((slot, opening)),
                Decision::Local => own.push((slot, opening)),
                // R11's "outer not VIP": what is not sent to a VIP does not come here.
                Decision::OpenThenForward { .. } => self.out.drop(opening.packet, DropReason::UnsupportedProtocol),
                Decision::Drop(reason) => self.out.drop(opening.packet, reason),
            }
        }
        self.out.lap(Step::Decide, peeked);
        self.keep_early(&mut early, now);
        self.prove_syns(&mut syns, now, &mut linked);
        self.prove_firsts(&mut fragments, now, &mut linked);
        self.take_own(&mut own, now);
        self.follow(&mut fragments, now, &mut linked);
        self.open_linked(&mut linked, now);
    }

    /// Stage 1.
    fn look_up(&mut self, arrived: &mut Batch<Arrived<S::Packet>>, now: Now) -> Batch<Peeking<S::Packet>> {
        let mut burst = Batch::new();
        for arrived in arrived.drain(..) {
            if !is_protected(&arrived) {
                self.take_unprotected(arrived, now);
                continue;
            }
            match self.acceptable(&arrived) {
                Ok(Layers { sa, seq, around }) => {
                    self.peek_ahead(sa);
                    burst.push(Peeking { arrived, sa, seq, around });
                }
                Err(DropReason::UnknownSpi) => self.unknown_spi(arrived, now),
                Err(reason) => self.out.drop(arrived.packet, reason),
            }
        }
        burst
    }

    /// The SA of an ESP or AH packet, or of both, and its whole number if the verified window could still take it (R13).
    #[inline]
    fn acceptable(&self, arrived: &Arrived<S::Packet>) -> Result<Layers, DropReason> {
        let vip = self.tables.vips.at(arrived.vip).ok_or(DropReason::NotForUs)?.entry.id;
        let number = |sa: &_, named: &_, _| self.number(arrived, sa, named);
        self.layers(vip, (&arrived.ip, arrived.packet.bytes()), number)
    }

    #[inline]
    fn number(&self, arrived: &Arrived<S::Packet>, sa: &InboundSa, named: &Protected) -> Result<u64, DropReason> {
        // Who is behind a NAT may be elsewhere by now: the ICV will tell.
        sa.elsewhere(arrived.packet.bytes(), &arrived.ip)?;
        // After a restart the window may know less than the floors do.
        let known = sa.notes.floor.max(sa.notes.late);
        let seq = sa.verified.infer_above(named.seq, known).ok_or(DropReason::SequenceWrap)?;
        self.out.note(&arrived.packet, || Fact::Numbered(sa.id(), named.spi, seq));
        sa.verified.check(seq).inspect_err(|_| sa.count_replayed())?;
        Ok(seq)
    }

    /// Stage 2: decrypts just so much of each packet that its connection shows (R9).
    fn peek(&mut self, burst: &Batch<Peeking<S::Packet>>) -> Batch<Seen> {
        let (mut seen, mut jobs) = (Batch::new(), Batch::new());
        for (one, peeked) in burst.iter().zip(&mut self.router.peeked) {
            let (packet, ip) = (one.arrived.packet.bytes(), &one.arrived.ip);
            let sa = self.tables.cache.inbound(one.sa);
            let ah = sa.filter(|sa| sa.is_ah()).and_then(|sa| sa.show(packet, ip, peeked).ok());
            seen.push(ah.map_or(Seen::Opaque, |ip| see(&ip, peeked)));
            let esp = sa.filter(|sa| !sa.is_ah());
            let layers = Layers { sa: one.sa, seq: one.seq, around: one.around };
            jobs.push(esp.and_then(|esp| peek_job(&self.tables.cache, esp, (packet, ip), layers)));
        }
        // In each round only those that need it; a packet that is not done after the last one is left to ourselves.
        for _ in 0..PEEK_ROUNDS {
            if jobs.iter().all(Option::is_none) {
                break;
            }
            self.decrypt_prefixes(burst, &jobs);
            for ((seen, job), peeked) in seen.iter_mut().zip(&mut jobs).zip(&mut self.router.peeked) {
                *job = match job.as_ref().map(|job| job.read(peeked)) {
                    Some(Ok(Peek::Ready(ip))) => {
                        *seen = see(&ip, peeked);
                        None
                    }
                    Some(Ok(Peek::More(next))) => Some(next),
                    // What makes no sense is opened by the router itself: then the ICV says what it is.
                    Some(Err(_)) | None => None,
                };
            }
        }
        seen
    }

    fn decrypt_prefixes(&mut self, burst: &Batch<Peeking<S::Packet>>, jobs: &Batch<Option<PeekJob>>) {
        let mut ops: ArrayVec<PeekOp<'_>, { 2 * BURST }> = ArrayVec::new();
        for ((one, job), into) in burst.iter().zip(jobs).zip(&mut self.router.peeked) {
            if let (Some(job), Some(sa)) = (job, self.tables.cache.inbound(one.sa)) {
                job.ops(sa.key(), one.arrived.packet.bytes(), into, |op| ops.push(op));
            }
        }
        peek_burst(&mut ops);
    }

    /// The connection that a packet shows.
    fn seek(&self, sa: InboundIndex, seen: &Seen) -> Option<Sought> {
        let (flow, peer) = (seen.flow()?, self.tables.cache.inbound(sa)?.peer());
        Some(self.router.table.seek(&ConnKey { peer, flow }))
    }

    /// Stage 3.
    fn decide(&self, one: &Peeking<S::Packet>, seen: &Seen, sought: Option<&Sought>, now: Now) -> Decision {
        let (vip, sa) = (self.tables.vips.at(one.arrived.vip), self.tables.cache.inbound(one.sa));
        let (Some(vip), Some(sa)) = (vip, sa) else { return Decision::Drop(DropReason::UnknownSpi) };
        // The connection's VIP may be another than the tunnel's: IPv6 through a tunnel over IPv4.
        let connects_to = seen.local().and_then(|local| self.tables.vips.by_address(local));
        let arrival = Arrival {
            peer: sa.peer(),
            spi: sa.spi(),
            number: one.seq,
            protection: match one.around {
                _ if sa.is_ah() => Protection::Ah,
                Some(_) => Protection::AhEsp,
                None => Protection::Esp,
            },
            encrypted: !sa.is_ah(),
            tunnel: sa.is_tunnel(),
            outer_is_vip: true,
            inner_is_vip: connects_to.is_some(),
            settled: vip.settled,
        };
        // While draining no new connection is welcome, ours no more than a target's: the SYN is refused once it is proved.
        let distributes = |flow| connects_to.is_some_and(|vip| vip.distributes(flow));
        let distributed = |flow: Flow| self.router.draining && flow.protocol == protocol::TCP || distributes(flow);
        let decision = steer::decide(&arrival, seen, (&self.router.table, sought), distributed);
        let (flow, opens) = match seen {
            Seen::Tcp { flow, tcp } => (flow, tcp.flags.opens()),
            Seen::Udp { flow } => (flow, decision == Decision::OpenThenSelect),
            Seen::Error { flow } => (flow, false),
            _ => return decision,
        };
        let key = ConnKey { peer: arrival.peer, flow: *flow };
        let segment = || if opens { Segment::Opens } else { Segment::Other };
        self.out.note(&one.arrived.packet, || Fact::Peeked(key, segment()));
        match decision {
            Decision::Local if !opens && distributes(*flow) => self.unless_accepted(one, &key, now).unwrap_or(decision),
            // There is no telling the first datagram of a flow from a late one of a flow that is over.
            Decision::OpenThenSelect if flow.protocol == protocol::UDP => {
                self.unless_accepted(one, &key, now).unwrap_or(decision)
            }
            Decision::Forward { .. } if self.is_purged(&key) => Decision::Drop(DropReason::NoTarget),
            _ => decision,
        }
    }

    /// I2: unknown now, but a target may have accepted it as one of a connection that is over.
    fn unless_accepted(&self, one: &Peeking<S::Packet>, key: &ConnKey, now: Now) -> Option<Decision> {
        let late = |sa, seq| self.tables.cache.inbound(sa).is_some_and(|sa| seq <= sa.notes.late);
        if late(one.sa, one.seq) || one.around.is_some_and(|around| late(around.sa, around.seq)) {
            Some(Decision::Drop(DropReason::TooOld))
        } else if self.router.ended.has(key, now.ms()) {
            Some(Decision::Drop(DropReason::UnknownConnection))
        } else {
            None
        }
    }

    /// Stage 4: sends an encrypted packet as it came to a target (R14); to this very core without a detour.
    pub(crate) fn forward(
        &mut self,
        slot: u16,
        target: TargetId,
        opening: Opening<S::Packet>,
        now: Now,
        linked: &mut Batch<Opening<S::Packet>>,
    ) {
        let Some(vip) = self.tables.vips.at(slot) else { return };
        let Some((_, entry)) = vip.target(target) else {
            return self.out.drop(opening.packet, DropReason::NoTarget);
        };
        let (end, hint) = (entry.link, Self::around_hint(opening.around));
        let header = LinkHeader { around: hint, filtered: opening.filtered, ..vip.link_header(end, opening.seq) };
        if let Some(around) = opening.around
            && let Some(sa) = self.tables.cache.inbound_mut(around.sa)
        {
            sa.forwarded.note(target, around.seq);
        }
        if let Some(sa) = self.tables.cache.inbound_mut(opening.sa) {
            sa.forwarded.note(target, opening.seq);
        }
        self.out.passed(Stage::Forwarded, 1);
        self.out.note(&opening.packet, || Fact::Forwarded(target));
        match end {
            LinkEnd::Ring(core) if core == self.id => self.link_to_self(opening, linked),
            end => self.send_linked(end, &header, opening.packet, now),
        }
    }

    /// To another core than this one.
    #[inline]
    pub(crate) fn send_linked(&mut self, end: LinkEnd, header: &LinkHeader, mut packet: S::Packet, now: Now) {
        match end {
            LinkEnd::Ring(core) => {
                let mut bytes = [0; LinkHeader::LEN];
                let written = header.write(&mut bytes).map_err(DropReason::from);
                let at = self.world.core(core).ok_or(DropReason::LinkDown);
                match written.and_then(|()| prepend(&mut packet, &bytes)).and(at) {
                    Ok(at) => self.out.parcel(at, Parcel::Link, packet),
                    Err(reason) => self.out.drop(packet, reason),
                }
            }
            LinkEnd::Gre(gre, _) => match link::encapsulate(&mut packet, gre.local, gre.remote, header) {
                Ok(()) => self.send(gre.port, packet, now),
                Err(error) => self.out.drop(packet, error.into()),
            },
            LinkEnd::Memif(port, _) => self.forward_memif(port, packet, header, now),
        }
    }

    /// This core as the target: its own window decides, as on any other.
    fn link_to_self(&self, opening: Opening<S::Packet>, linked: &mut Batch<Opening<S::Packet>>) {
        let Some(sa) = self.tables.cache.inbound(opening.sa).filter(|_| self.target.enabled) else {
            return self.out.drop(opening.packet, DropReason::LinkVip);
        };
        let around = opening.around.and_then(|around| Some((self.tables.cache.inbound(around.sa)?, around.seq)));
        let fresh = |(sa, seq): (&InboundSa, u64)| sa.window.check(seq).inspect_err(|_| sa.count_replayed());
        match around.map_or(Ok(()), fresh).and_then(|()| fresh((sa, opening.seq))) {
            Ok(()) => linked.push(opening),
            Err(reason) => self.out.drop(opening.packet, reason),
        }
    }

    /// Neither ESP nor AH: only what a filter permits in clear comes in (I9).
    pub(crate) fn take_clear(&mut self, arrived: Arrived<S::Packet>, now: Now) {
        let Some(arrived) = self.hear_too_big(arrived, now) else { return };
        if arrived.ip.fragment.is_some() {
            return self.out.drop(arrived.packet, DropReason::Fragment);
        }
        let vip = self.tables.vips.at(arrived.vip).map(|vip| vip.entry.id);
        let subject = Subject::inbound(&arrived.ip, arrived.packet.bytes());
        let ruled = vip.map(|vip| self.tables.permits_clear(vip, &subject));
        self.log(ruled.as_ref().and_then(Ruled::at_first_sight), now);
        if ruled.is_none_or(|ruled| ruled.verdict.is_err()) {
            return self.out.drop(arrived.packet, DropReason::ClearToVip);
        }
        self.out.passed(Stage::ClearPermitted, 1);
        self.out.note(&arrived.packet, || Fact::Clear);
        self.deliver(arrived.packet);
    }
}

/// What the peek shows.
#[inline]
fn see(ip: &IpHeader, peeked: &Peeked) -> Seen {
    let shown = peeked.bytes();
    match look(Shape::Behind(ip), shown, shown.len()) {
        Look::Seen(seen) => seen,
        Look::NeedMore(_) => Seen::Opaque,
    }
}
