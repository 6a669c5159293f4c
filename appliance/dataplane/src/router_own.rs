//! What a router opens itself: copies of SYNs and of datagrams that begin a flow, before they make an entry, and what it keeps as an ordinary endpoint.
//!
//! Only numbers above the SA's floor and up to its durable ceiling are accepted here, so that a restarted router never
//! accepts one twice (I2, ARCHITECTURE "Inbound replay"). What is above the ceiling waits, once it is known to be genuine.

use arrayvec::ArrayVec;
use phalanx_aead::{OpenOp, open_burst};
use phalanx_ipsec::{InboundIndex, OpenJob, Role, Subject};
use phalanx_steering::{ConnKey, Opened, steer};
use phalanx_wire::{Buffer, DropReason, IpHeader, NoRoom, TargetId};

use crate::clock::Now;
use crate::command::Event;
use crate::engine::{Batch, Engine};
use crate::inbound_router::Arrived;
use crate::laps::{Span, Step};
use crate::notes::{Fact, For};
use crate::opening::Opening;
use crate::packet::{Marked, Source};
use crate::stats::Stage;

/// Control makes ceilings at least this far above what it was asked for; half of it used, and the next is asked for.
pub(crate) const HEADROOM: u64 = 32;
/// An unanswered request is repeated after this.
const REPEAT_US: u64 = 20_000;
/// A packet waits no longer than this for a ceiling.
const WAIT_MS: u64 = 1000;
/// SAs whose packets may wait at a time.
const WAITING: usize = 64;

/// SAs with packets above their ceiling, and since when.
#[derive(Default)]
pub(crate) struct Above {
    waiting: ArrayVec<(InboundIndex, u64), WAITING>,
}

/// A packet with its VIP's slot.
pub(crate) type Slotted<P> = (u16, Opening<P>);

/// A genuine packet: the integrity check of its copy was good.
pub(crate) struct Genuine<P> {
    pub(crate) slot: u16,
    pub(crate) opening: Opening<P>,
    pub(crate) job: OpenJob,
    /// Where its copy is, in plaintext.
    pub(crate) copy: usize,
}

impl<S: Source> Engine<S> {
    /// Stage 5: 1. open copies; 2. within floor and ceiling, not accepted before, fits its tunnel; 3. select a target
    /// and make the entry; 4. forward the packet as it came.
    #[inline(never)]
    pub(crate) fn prove_syns(
        &mut self,
        syns: &mut Batch<Slotted<S::Packet>>,
        now: Now,
        linked: &mut Batch<Opening<S::Packet>>,
    ) {
        let count = syns.len();
        if count == 0 {
            return;
        }
        for genuine in self.open_copies(syns) {
            match self.admit(&genuine, now) {
                Ok(target) => {
                    self.out.passed(Stage::SynOpened, 1);
                    self.out.note(&genuine.opening.packet, || Fact::Proved);
                    let filtered = self.tables.filters_at_router(genuine.opening.vip);
                    self.forward(genuine.slot, target, Opening { filtered, ..genuine.opening }, now, linked);
                }
                Err(DropReason::CeilingWait) => self.wait_for_ceiling(genuine.opening, now),
                Err(reason) => {
                    if reason == DropReason::NoListener {
                        self.refuse(genuine.copy, now);
                    }
                    self.out.drop(genuine.opening.packet, reason);
                }
            }
        }
        self.out.lap(Step::ProveSyn, count);
    }

    /// Stage 6: as an ordinary endpoint (R10, R11).
    #[inline(never)]
    pub(crate) fn take_own(&mut self, own: &mut Batch<Slotted<S::Packet>>, now: Now) {
        if own.is_empty() {
            return;
        }
        let (mut inside, mut above) = (Batch::new(), Batch::new());
        for (slot, opening) in own.drain(..) {
            self.out.note(&opening.packet, || Fact::Local);
            match self.both_within(&opening) {
                Ok(()) => inside.push(opening),
                Err(DropReason::CeilingWait) => above.push((slot, opening)),
                Err(reason) => self.out.drop(opening.packet, reason),
            }
        }
        self.out.passed(Stage::RouterLocal, inside.len());
        self.open(&mut inside, Role::Router, now);
        for genuine in self.open_copies(&mut above) {
            self.wait_for_ceiling(genuine.opening, now);
        }
    }

    /// Opens a copy of each packet; what is not genuine is dropped here.
    pub(crate) fn open_copies(&mut self, burst: &mut Batch<Slotted<S::Packet>>) -> Batch<Genuine<S::Packet>> {
        let mut copied: Batch<Genuine<S::Packet>> = Batch::new();
        for (slot, opening) in burst.drain(..) {
            let copy = copied.len();
            match self.begin_copy(&opening, copy) {
                Ok(job) => copied.push(Genuine { slot, opening, job, copy }),
                Err(reason) => self.out.drop(opening.packet, reason),
            }
        }
        let mut ops: Batch<OpenOp<'_>> = Batch::new();
        for (one, copy) in copied.iter().zip(&mut self.router.scratch).filter(|(one, _)| one.job.verdict().is_none()) {
            if let Some(sa) = self.tables.cache.inbound(one.opening.sa) {
                ops.push(one.job.op(sa, copy.bytes_mut()));
            }
        }
        open_burst(&mut ops);
        let opened: Batch<bool> = ops.iter().map(|op| op.authentic).collect();
        let (mut opened, mut genuine) = (opened.into_iter(), Batch::new());
        for one in copied {
            if one.job.verdict().unwrap_or_else(|| opened.next().unwrap_or(false)) {
                genuine.push(one);
            } else {
                self.tables.cache.inbound(one.opening.sa).into_iter().for_each(|sa| sa.count_failed());
                self.out.drop(one.opening.packet, DropReason::BadIcv);
            }
        }
        genuine
    }

    fn admit(&mut self, one: &Genuine<S::Packet>, now: Now) -> Result<TargetId, DropReason> {
        let at = one.opening.sa;
        self.both_within(&one.opening)?;
        self.commit_around(&one.opening, now)?;
        let sa = self.tables.cache.inbound_mut(at).ok_or(DropReason::UnknownSpi)?;
        let from = sa.elsewhere(one.opening.packet.bytes(), &one.opening.ip)?;
        let news = from.filter(|_| one.job.seq > sa.edge(Role::Router));
        if let Err(reason) = sa.verified.commit(one.job.seq) {
            sa.count_replayed();
            return Err(reason);
        }
        if let Some(from) = news {
            self.peer_seen(at, from, one.job.seq, now);
        }
        let sa = self.tables.cache.inbound(at).ok_or(DropReason::UnknownSpi)?;
        let copy = &mut self.router.scratch[one.copy];
        let inner = sa.finish(copy, &one.job)?;
        let subject = Subject::inbound(&inner.header, copy.bytes());
        self.out.note(&one.opening.packet, || Fact::Opened(subject));
        sa.fits(&subject)?;
        let (peer, spi, opened) = (sa.params().peer, sa.params().spi, Opened::packet(copy.bytes()));
        self.near_ceiling(at, one.job.seq, now);
        if self.router.draining {
            return Err(DropReason::NoTarget);
        }
        self.filter_opening(one.opening.vip, at, &opened, &subject, now)?;
        let vips = &mut self.tables.vips;
        let slot = opened.seen().local().and_then(|local| vips.slot_of(local));
        let connects_to = slot.and_then(|slot| vips.at_mut(slot));
        let choose = |flow, table: &_| connects_to.ok_or(DropReason::NoTarget)?.choose(flow, table);
        let target = steer::admit(peer, &opened, &mut self.router.table, choose, now.ms())?;
        if let Some(flow) = opened.seen().flow() {
            self.router.table.begin(&ConnKey { peer, flow }, spi, one.job.seq);
        }
        Ok(target)
    }

    /// Whether this router may accept the number itself.
    pub(crate) fn within(&self, at: InboundIndex, seq: u64) -> Result<(), DropReason> {
        if self.tables.cache.inbound(at).is_none_or(|sa| seq <= sa.notes.floor) {
            Err(DropReason::TooOld)
        } else if seq > self.router.sas[at.0 as usize].ceiling {
            Err(DropReason::CeilingWait)
        } else {
            Ok(())
        }
    }

    /// After a number was accepted: asks for a higher ceiling before this one is reached.
    pub(crate) fn near_ceiling(&mut self, at: InboundIndex, accepted: u64, now: Now) {
        let sa = &self.router.sas[at.0 as usize];
        if sa.ceiling.saturating_sub(accepted) < sa.room.max(HEADROOM) / 2 {
            self.want_ceiling(at, accepted, now);
        }
    }

    /// I4: the peer may use an SA before all targets have it. What is genuine waits for them.
    #[inline(never)]
    pub(crate) fn keep_early(&mut self, early: &mut Batch<Slotted<S::Packet>>, now: Now) {
        if early.is_empty() {
            return;
        }
        for genuine in self.open_copies(early) {
            self.keep(genuine.opening.sa, genuine.opening, Stage::HeldForSa, DropReason::SaWait, now);
        }
    }

    pub(crate) fn wait_for_ceiling(&mut self, opening: Opening<S::Packet>, now: Now) {
        let (at, seq) = self.above(&opening);
        self.keep(at, opening, Stage::HeldForCeiling, DropReason::CeilingWait, now);
        self.want_ceiling(at, seq, now);
    }

    fn keep(&mut self, at: InboundIndex, opening: Opening<S::Packet>, stage: Stage, full: DropReason, now: Now) {
        let RouterSideParts { sa, held, above } = parts(&mut self.router, at);
        let known = above.waiting.iter().any(|(other, _)| *other == at);
        let listed = known || above.waiting.try_push((at, now.ms())).is_ok();
        let mark = opening.packet.mark();
        let kept = if listed { held.push(&mut sa.held, opening.packet, now.us()) } else { Err(opening.packet) };
        match kept {
            Ok(()) => {
                self.out.passed(stage, 1);
                self.out.notes.note(mark, || Fact::Held(For::Ceiling));
            }
            Err(packet) => self.out.drop(packet, full),
        }
    }

    fn want_ceiling(&mut self, at: InboundIndex, accepted: u64, now: Now) {
        let Some(id) = self.tables.cache.inbound(at).map(|sa| sa.id()) else { return };
        let sa = &mut self.router.sas[at.0 as usize];
        sa.wanted = sa.wanted.max(accepted);
        if sa.asked_us.is_none_or(|asked| now.us() >= asked + REPEAT_US) {
            sa.asked_us = Some(now.us());
            self.mail.tell(Event::CeilingWanted { core: self.id, sa: id, at: sa.wanted });
        }
    }

    /// The ceiling is durable now: what waited for it is routed again.
    pub(crate) fn raise_ceiling(&mut self, at: InboundIndex, upto: u64, now: Now) {
        let floor = self.tables.cache.inbound(at).map_or(0, |sa| sa.notes.floor);
        let sa = &mut self.router.sas[at.0 as usize];
        sa.ceiling = sa.ceiling.max(upto);
        sa.room = sa.ceiling.saturating_sub(sa.wanted.max(floor));
        sa.asked_us = None;
        self.route_held(at, now);
    }

    /// Routes once more what waited for an SA: as many as there were, since some may have to wait again.
    pub(crate) fn route_held(&mut self, at: InboundIndex, now: Now) {
        let mut left = self.router.sas[at.0 as usize].held.len();
        while left > 0 {
            let mut again = Batch::new();
            while left > 0 && !again.is_full() {
                left -= 1;
                let RouterSideParts { sa, held, .. } = parts(&mut self.router, at);
                let Some((packet, since)) = held.pop_since(&mut sa.held) else { continue };
                self.out.stats.measures.waited(Span::Ceiling, since, now.us());
                let ip = IpHeader::parse(packet.bytes());
                match ip.ok().and_then(|ip| Some((ip, self.tables.vips.slot_of(ip.dst)?))) {
                    Some((ip, vip)) => again.push(Arrived { packet, ip, vip }),
                    None => self.out.drop(packet, DropReason::NotForUs),
                }
            }
            self.route(&mut again, now);
        }
        if self.router.sas[at.0 as usize].held.is_empty() {
            self.router.above.waiting.retain(|(other, _)| *other != at);
        }
    }

    /// Asks again for ceilings, and gives up what waited too long.
    pub(crate) fn tend_ceilings(&mut self, now: Now) {
        let mut at = 0;
        while let Some(&(sa, since)) = self.router.above.waiting.get(at) {
            let early = self.tables.cache.inbound(sa).is_some_and(|sa| sa.notes.early);
            if now.ms() >= since + WAIT_MS {
                self.drop_above(sa, if early { DropReason::SaWait } else { DropReason::CeilingWait });
            } else if early {
                at += 1;
            } else {
                self.want_ceiling(sa, 0, now);
                at += 1;
            }
        }
    }

    /// Drops what waits for an SA's ceiling.
    pub(crate) fn drop_above(&mut self, at: InboundIndex, reason: DropReason) {
        self.router.above.waiting.retain(|(other, _)| *other != at);
        loop {
            let RouterSideParts { sa, held, .. } = parts(&mut self.router, at);
            let Some(packet) = held.pop(&mut sa.held) else { return };
            self.out.drop(packet, reason);
        }
    }
}

struct RouterSideParts<'a, P> {
    sa: &'a mut crate::inbound_router::RouterSa,
    held: &'a mut crate::hold::HoldPool<P>,
    above: &'a mut Above,
}

fn parts<P>(router: &mut crate::inbound_router::RouterSide<P>, at: InboundIndex) -> RouterSideParts<'_, P> {
    RouterSideParts { sa: &mut router.sas[at.0 as usize], held: &mut router.held, above: &mut router.above }
}

/// A copy of a packet that is opened only to be looked at.
pub(crate) struct Scratch {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Scratch {
    pub(crate) fn new(size: usize) -> Scratch {
        Scratch { memory: vec![0; size].into(), start: 0, end: 0 }
    }

    pub(crate) fn fill(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.memory.get_mut(..bytes.len()).ok_or(NoRoom)?.copy_from_slice(bytes);
        (self.start, self.end) = (0, bytes.len());
        Ok(())
    }
}

impl Buffer for Scratch {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }
    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }
    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        self.end = self.end.checked_add(n).filter(|end| *end <= self.memory.len()).ok_or(NoRoom)?;
        Ok(())
    }
    fn cut_front(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
    }
    fn cut_back(&mut self, n: usize) {
        self.end -= n.min(self.end - self.start);
    }
}
