//! What armed cores see, copied: frames received and sent, and packets dropped with the reason.
//!
//! Control allocates all copies before it arms a core. They go round: free, filled by a core, read by control, free
//! again. A core that finds none free counts what it could not copy and goes on (I7).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use phalanx_wire::{CoreId, DropReason};

/// Where a core saw a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A frame that this port's driver received.
    Received(usize),
    /// A frame for this port's driver.
    Sent(usize),
    /// Its end. It may have lost its Ethernet header by then, or not.
    Dropped(DropReason),
}

/// A packet as a core saw it.
#[derive(Debug)]
pub struct Shot {
    /// Which core.
    pub core: CoreId,
    /// Where.
    pub place: Place,
    /// When.
    pub at: Instant,
    /// Its length in bytes; more than there are of [`bytes`](Shot::bytes) when it was cut.
    pub len: usize,
    /// Its beginning. Allocated once, as long as the film's copies may be.
    pub bytes: Vec<u8>,
}

struct Roll {
    free: ArrayQueue<Box<Shot>>,
    filled: ArrayQueue<Box<Shot>>,
    snaplen: usize,
    lost: AtomicU64,
}

impl fmt::Debug for Roll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roll").field("filled", &self.filled.len()).field("lost", &self.lost).finish()
    }
}

/// The copies of one capture: control's end.
#[derive(Debug)]
pub struct Film(Arc<Roll>);

impl Film {
    /// Allocates so many copies of up to `snaplen` bytes.
    pub fn new(shots: usize, snaplen: usize) -> Film {
        let shots = shots.max(1);
        let (free, filled) = (ArrayQueue::new(shots), ArrayQueue::new(shots));
        for _ in 0..shots {
            let bytes = Vec::with_capacity(snaplen);
            let shot = Shot { core: CoreId(0), place: Place::Received(0), at: Instant::now(), len: 0, bytes };
            let _ = free.push(Box::new(shot)); // as long as that many
        }
        Film(Arc::new(Roll { free, filled, snaplen, lost: AtomicU64::new(0) }))
    }

    /// What arms a core: see [`Command::Capture`](crate::Command::Capture). With a port only what this port receives and sends.
    pub fn tap(&self, core: CoreId, port: Option<usize>) -> Tap {
        Tap { roll: self.0.clone(), core, port }
    }

    /// Shows the next copy, if there is one. Cores cannot wake anybody: ask about every millisecond.
    pub fn next<T>(&self, look: impl FnOnce(&Shot) -> T) -> Option<T> {
        let shot = self.0.filled.pop()?;
        let seen = look(&shot);
        let _ = self.0.free.push(shot); // it came from there
        Some(seen)
    }

    /// Packets that found no free copy.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

/// The end of a core that captures.
#[derive(Debug)]
pub struct Tap {
    roll: Arc<Roll>,
    core: CoreId,
    port: Option<usize>,
}

impl Tap {
    /// Copies a packet.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&self, place: Place, bytes: &[u8]) {
        let wanted = match (self.port, place) {
            (None, _) => true,
            (Some(port), Place::Received(at) | Place::Sent(at)) => port == at,
            (Some(_), Place::Dropped(_)) => false,
        };
        if !wanted {
            return;
        }
        let Some(mut shot) = self.roll.free.pop() else {
            self.roll.lost.fetch_add(1, Relaxed);
            return;
        };
        (shot.core, shot.place, shot.at, shot.len) = (self.core, place, Instant::now(), bytes.len());
        shot.bytes.clear();
        // Not more than it has room for: no allocation (I7).
        shot.bytes.extend_from_slice(&bytes[..bytes.len().min(self.roll.snaplen)]);
        let _ = self.roll.filled.push(shot); // there are as many places as copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(film: &Film) -> Vec<Place> {
        std::iter::from_fn(|| film.next(|shot| shot.place)).collect()
    }

    #[test]
    fn a_copy_is_cut_and_knows_how_long_the_packet_was() {
        let film = Film::new(2, 4);
        let tap = film.tap(CoreId(3), None);
        tap.take(Place::Sent(1), b"longer");
        tap.take(Place::Dropped(DropReason::Runt), b"abc");
        let seen = |shot: &Shot| (shot.core, shot.place, shot.len, shot.bytes.clone());
        assert_eq!(film.next(seen), Some((CoreId(3), Place::Sent(1), 6, b"long".to_vec())));
        assert_eq!(film.next(seen), Some((CoreId(3), Place::Dropped(DropReason::Runt), 3, b"abc".to_vec())));
        assert_eq!((film.next(seen), film.lost()), (None, 0));
    }

    #[test]
    fn what_finds_no_free_copy_is_counted_and_copies_are_used_again_without_growing() {
        let film = Film::new(2, 8);
        let tap = film.tap(CoreId(0), None);
        for round in 1..=3 {
            (0..5).for_each(|port| tap.take(Place::Received(port), &[7; 100]));
            assert_eq!(film.lost(), 3 * round);
            let room: Vec<usize> = std::iter::from_fn(|| film.next(|shot| shot.bytes.capacity())).collect();
            assert_eq!(room, [8, 8]);
        }
    }

    #[test]
    fn a_tap_of_one_port_takes_what_it_receives_and_sends() {
        let film = Film::new(8, 8);
        let tap = film.tap(CoreId(0), Some(1));
        for place in
            [Place::Received(0), Place::Received(1), Place::Sent(2), Place::Sent(1), Place::Dropped(DropReason::Runt)]
        {
            tap.take(place, b"x");
        }
        assert_eq!((places(&film), film.lost()), (vec![Place::Received(1), Place::Sent(1)], 0));
    }
}
