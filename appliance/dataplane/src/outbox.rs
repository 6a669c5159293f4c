//! What a core sends: frames by port, parcels by core, gathered while a burst goes through the stages.

use std::sync::Arc;

use arrayvec::ArrayVec;
use phalanx_wire::{Buffer, DropReason};

use crate::capture::{Place, Tap};
use crate::laps::{Laps, Step};
use crate::notes::{Fact, Notes};
use crate::packet::{BURST, Marked, Parcel};
use crate::stats::{CoreStats, Stage};

/// One burst may go to one output with what waited there, and with what it let loose.
pub(crate) const QUEUE: usize = 4 * BURST;

pub(crate) struct Outbox<P> {
    /// By port index: frames, complete.
    pub(crate) frames: Box<[ArrayVec<P, QUEUE>]>,
    /// By core position: parcels.
    pub(crate) parcels: Box<[ArrayVec<P, QUEUE>]>,
    pub(crate) stats: Arc<CoreStats>,
    pub(crate) notes: Notes,
    /// Somebody captures.
    pub(crate) tap: Option<Tap>,
    pub(crate) laps: Laps,
}

impl<P: Buffer + Marked> Outbox<P> {
    pub(crate) fn new(ports: usize, cores: usize, stats: Arc<CoreStats>) -> Outbox<P> {
        let queues = |n| (0..n).map(|_| ArrayVec::new()).collect();
        Outbox {
            frames: queues(ports),
            parcels: queues(cores),
            stats,
            notes: Notes::nobody(),
            tap: None,
            laps: Laps::new(),
        }
    }

    /// Writes down what happens to watched packets.
    pub(crate) fn watched(self, notes: Notes) -> Outbox<P> {
        Outbox { notes, ..self }
    }

    /// Something was decided about a packet, which matters to whoever watches it.
    #[inline]
    pub(crate) fn note(&self, packet: &P, fact: impl FnOnce() -> Fact) {
        self.notes.note(packet.mark(), fact);
    }

    /// A complete frame for a port of this core.
    #[inline]
    pub(crate) fn frame(&mut self, port: usize, frame: P) {
        let mark = frame.mark();
        match self.frames[port].try_push(frame) {
            Ok(()) => self.notes.note(mark, || Fact::Sent(port)),
            Err(full) => self.drop(full.element(), DropReason::QueueFull),
        }
    }

    /// A packet for another core.
    #[inline]
    pub(crate) fn parcel(&mut self, core: usize, parcel: Parcel, mut packet: P) {
        if let Err(reason) = parcel.wrap(&mut packet) {
            return self.drop(packet, reason);
        }
        let mark = packet.mark();
        match self.parcels[core].try_push(packet) {
            Ok(()) => self.notes.note(mark, || Fact::Handed(core)),
            Err(full) => self.drop(full.element(), DropReason::QueueFull),
        }
    }

    /// The end of a packet.
    #[inline]
    pub(crate) fn drop(&self, packet: P, reason: DropReason) {
        self.note(&packet, || Fact::Dropped(reason));
        if let Some(tap) = &self.tap {
            tap.take(Place::Dropped(reason), packet.bytes());
        }
        drop(packet);
        self.stats.dropped(reason, 1);
    }

    /// A step over `packets` of a burst ends here, unless there were none for it.
    #[inline]
    pub(crate) fn lap(&mut self, step: Step, packets: usize) {
        if packets > 0 {
            self.laps.lap(&self.stats.measures, step, packets);
        }
    }

    /// A step that is not about packets ends here.
    #[inline]
    pub(crate) fn turn(&mut self, step: Step) {
        self.laps.lap(&self.stats.measures, step, 0);
    }

    #[inline]
    pub(crate) fn passed(&self, stage: Stage, n: usize) {
        self.stats.passed(stage, n as u64);
    }
}
