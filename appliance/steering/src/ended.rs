//! Connections that ended a moment ago.
//!
//! The window that comes with the notice of an end is of the moment at which the target knew of it. Packets that were
//! forwarded after that, until the entry went, are in a later one. Until that has come too, nobody may take a packet of
//! the connection for an unknown one (I2).

use crate::SteeringError;
use crate::fifo::{Links, Queue};
use crate::hash::Seed;
use crate::key::{ConnKey, PackedKey, Stamp};
use crate::store::{Slot, Store};

/// Bounded; when it is full the oldest makes room. One owner; time, in milliseconds, is an argument.
pub struct Ended {
    store: Store<Value>,
    links: Links,
    queue: Queue,
    keep_ms: u64,
}

#[derive(Clone, Copy, Default)]
struct Value {
    since: Stamp,
    /// A table entry fills a cache line.
    _line: [u16; 7],
}

impl Ended {
    /// Room for `connections`, each remembered for `keep_ms`; `seed` must be random.
    ///
    /// # Errors
    /// Room for nothing, or for more than a slot number can name.
    pub fn new(connections: usize, keep_ms: u64, seed: Seed) -> Result<Self, SteeringError> {
        if connections == 0 {
            return Err(SteeringError::ZeroLimit);
        }
        let store = Store::new(connections, seed)?;
        Ok(Ended { links: Links::new(store.slots()), store, queue: Queue::new(), keep_ms })
    }

    /// The connection ends now.
    pub fn note(&mut self, key: &ConnKey, now: u64) {
        let packed: PackedKey = key.into();
        if let Some(slot) = self.store.find(&packed) {
            self.forget(slot);
        }
        let value = Value { since: Stamp::at(now), ..Value::default() };
        let mut slot = self.store.insert(&packed, value);
        while let (None, Some(oldest)) = (slot, self.queue.oldest()) {
            self.forget(oldest);
            slot = self.store.insert(&packed, value);
        }
        if let Some(slot) = slot {
            self.links.push(&mut self.queue, slot);
        }
    }

    /// It ended not long ago.
    #[inline]
    #[must_use]
    pub fn has(&self, key: &ConnKey, now: u64) -> bool {
        let slot = self.store.find(&key.into());
        slot.is_some_and(|slot| now.saturating_sub(self.store.value(slot).since.ms()) < self.keep_ms)
    }

    fn forget(&mut self, slot: Slot) {
        self.links.remove(&mut self.queue, slot);
        self.store.remove(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::{Endpoint, Flow, PeerId};

    fn key(port: u16) -> ConnKey {
        let end = |port| Endpoint::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
        ConnKey { peer: PeerId(1), flow: Flow { protocol: 6, local: end(80), remote: end(port) } }
    }

    #[test]
    fn an_end_is_remembered_for_its_time_and_counts_from_the_last() {
        let mut ended = Ended::new(4, 100, [1, 2]).unwrap();
        assert!(!ended.has(&key(1), 0));
        ended.note(&key(1), 10);
        assert!(ended.has(&key(1), 109) && !ended.has(&key(1), 110) && !ended.has(&key(2), 20));
        ended.note(&key(1), 50);
        assert!(ended.has(&key(1), 149));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut ended = Ended::new(8, 1000, [1, 2]).unwrap();
        (0..100).for_each(|port| ended.note(&key(port), u64::from(port)));
        assert!((92..100).all(|port| ended.has(&key(port), 100)));
        assert!((0..92).all(|port| !ended.has(&key(port), 100)));
    }
}
