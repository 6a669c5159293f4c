//! One core without driver, thread and control: what `phalanx explain` and the benchmarks run. All it adds to the engine
//! is memory and a clock that stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use phalanx_steering::SteeringError;
use phalanx_wire::{Buffer, DropReason, Epoch, IpHeader, LinkHeader, Mac, NoRoom, Protected, VipId};

use crate::clock::Now;
use crate::command::{Command, Event, Order};
use crate::config::DataplaneConfig;
use crate::engine::Engine;
use crate::mail::Mail;
use crate::notes::{Note, NoteBook, Notes};
use crate::outbox::Outbox;
use crate::packet::{Marked, Parcel, Source, prepend};
use crate::stats::CoreStats;

/// What an mbuf has in front, and room for a frame with all that is put around it.
const FRONT: usize = 128;
const ROOM: usize = FRONT + 2304;
/// Notes that wait to be read.
const NOTES: usize = 4096;

/// Room of a packet that is put together from fragments.
const LARGE: usize = FRONT + 9216;

/// A packet in memory of its own: as an mbuf, a pointer to move.
pub struct LonePacket(Box<Memory>);

#[repr(align(64))]
struct Memory<B: ?Sized = [u8]> {
    start: usize,
    end: usize,
    mark: u32,
    bytes: B,
}

/// The first core of a configuration. Its time stands still unless it is let [`pass`](LoneCore::pass).
pub struct LoneCore {
    engine: Engine<Heap>,
    events: Arc<ArrayQueue<Event>>,
    stats: Arc<CoreStats>,
    notes: Arc<NoteBook>,
    start: Instant,
    now: Now,
}

struct Heap;

impl LoneCore {
    /// `macs` are those of the ports, by index.
    ///
    /// # Errors
    /// Limits that no table can be made of.
    pub fn new(config: &DataplaneConfig, macs: &[Mac]) -> Result<LoneCore, SteeringError> {
        let world = Arc::new(crate::world::World::new(config, macs));
        let stats = Arc::new(CoreStats::new(config.ports.len()));
        let events = Arc::new(ArrayQueue::new(config.limits.events));
        let mail = Mail::new(events.clone(), stats.clone());
        let notes = NoteBook::new(NOTES);
        let out = Outbox::new(config.ports.len(), config.cores.len(), stats.clone());
        let out = out.watched(Notes::new(notes.clone(), config.cores[0].id));
        let engine = Engine::new(&config.cores[0], world, Heap, mail, out, [[1, 2], [3, 4]])?;
        let start = Instant::now();
        Ok(LoneCore { engine, events, stats, notes, start, now: Now::new(start, start + Duration::from_secs(1)) })
    }

    /// Carries a command out; its answer is an [`event`](LoneCore::event).
    pub fn obey(&mut self, command: Command) {
        self.engine.obey(Order { token: 0, command }, self.now);
    }

    /// A burst of up to 32 frames comes in by a port.
    pub fn receive(&mut self, port: usize, frames: impl Iterator<Item = LonePacket>) {
        self.engine.out.laps.restart();
        self.engine.receive(port, frames, self.now);
    }

    /// An IP packet comes in as a router of another box forwards it to this core as a target (R14); the high half of its
    /// number is what this core's own window makes of it.
    pub fn linked(&mut self, vip: VipId, mut packet: LonePacket) {
        let epoch = self.engine.tables.vips.by_id(vip).map_or_else(Epoch::default, |vip| vip.entry.epoch);
        let seq_high = self.seq_high(vip, packet.bytes()).unwrap_or_default();
        let header =
            LinkHeader { vip, epoch, seq_high, around: 0, core: self.engine.id, filtered: false, clear: false };
        let mut bytes = [0; LinkHeader::LEN];
        let written = header.write(&mut bytes).map_err(DropReason::from);
        match written.and_then(|()| prepend(&mut packet, &bytes)).and_then(|()| Parcel::Link.wrap(&mut packet)) {
            Ok(()) => self.engine.receive_ring(std::iter::once(packet), self.now),
            Err(reason) => self.engine.out.drop(packet, reason),
        }
    }

    fn seq_high(&self, vip: VipId, packet: &[u8]) -> Option<u32> {
        let ip = IpHeader::parse(packet).ok()?;
        let named = Protected::of(&ip, packet).ok()?;
        let cache = &self.engine.tables.cache;
        let sa = cache.inbound(cache.find(vip, &named)?)?;
        sa.window.infer(named.seq).map(|seq| (seq >> 32) as u32)
    }

    /// The frames that wait to leave by a port.
    pub fn sent(&mut self, port: usize) -> impl Iterator<Item = LonePacket> + '_ {
        self.engine.out.frames[port].drain(..)
    }

    /// What the core has to tell.
    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.pop();
        self.engine.mail.flush();
        event
    }

    /// What happened to packets that were [`watch`](LonePacket::watch)ed, in order; up to 4096 notes are kept.
    pub fn note(&mut self) -> Option<Note> {
        self.notes.next()
    }

    /// Notes that found no room.
    pub fn notes_lost(&self) -> u64 {
        self.notes.lost()
    }

    /// Its counters.
    pub fn stats(&self) -> &CoreStats {
        &self.stats
    }

    /// Lets time pass, and the core do what is due.
    pub fn pass(&mut self, time: Duration) {
        self.now = Now::new(self.start, self.start + Duration::from_micros(self.now.us()) + time);
        self.engine.tend(self.now);
    }
}

impl LonePacket {
    /// An empty one.
    #[must_use]
    pub fn new() -> LonePacket {
        LonePacket(Box::new(Memory { start: FRONT, end: FRONT, mark: 0, bytes: [0; ROOM] }))
    }

    /// The largest frame it takes.
    pub const LARGEST: usize = ROOM - FRONT;

    /// Puts `bytes` in the place of whatever it held; panics if they do not fit.
    pub fn set(&mut self, bytes: &[u8]) {
        (self.0.start, self.0.end) = (FRONT, FRONT + bytes.len());
        self.bytes_mut().copy_from_slice(bytes);
        self.0.mark = 0;
    }

    /// Lets the packet leave notes under this number; 0 ends that.
    pub fn watch(&mut self, mark: u32) {
        self.0.mark = mark;
    }

    /// The number it is watched under.
    #[must_use]
    pub fn watched(&self) -> u32 {
        self.0.mark
    }
}

impl Marked for LonePacket {
    #[inline]
    fn mark(&self) -> u32 {
        self.0.mark
    }
    #[inline]
    fn set_mark(&mut self, mark: u32) {
        self.0.mark = mark;
    }
}

impl Default for LonePacket {
    fn default() -> LonePacket {
        LonePacket::new()
    }
}

impl Buffer for LonePacket {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0.bytes[self.0.start..self.0.end]
    }
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[self.0.start..self.0.end]
    }
    #[inline]
    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.0.start = self.0.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }
    #[inline]
    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        let end = self.0.end.checked_add(n).filter(|end| *end <= self.0.bytes.len()).ok_or(NoRoom)?;
        self.0.end = end;
        Ok(())
    }
    #[inline]
    fn cut_front(&mut self, n: usize) {
        self.0.start += n.min(self.0.end - self.0.start);
    }
    #[inline]
    fn cut_back(&mut self, n: usize) {
        self.0.end -= n.min(self.0.end - self.0.start);
    }
}

impl Source for Heap {
    type Packet = LonePacket;
    fn fresh(&mut self) -> Option<LonePacket> {
        Some(LonePacket::new())
    }
    fn fresh_large(&mut self) -> Option<LonePacket> {
        Some(LonePacket(Box::new(Memory { start: FRONT, end: FRONT, mark: 0, bytes: [0; LARGE] })))
    }
}
