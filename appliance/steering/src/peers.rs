//! How many connections each peer has: bounded counters, so that one peer cannot take a table from the others.

use phalanx_wire::PeerId;

use crate::hash::{Seed, keyed};

/// One peer's share of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCount {
    /// Entries, half-open ones among them.
    pub total: u32,
    /// Entries whose handshake is not complete.
    pub half_open: u32,
}

#[derive(Clone, Copy, Default)]
struct Place {
    peer: u32,
    count: PeerCount,
}

/// Counters of the peers that have entries; a peer without any takes no room. Linear probing at half load.
pub(crate) struct Peers {
    seed: Seed,
    places: Box<[Place]>,
    len: usize,
    capacity: usize,
}

impl Peers {
    pub(crate) fn new(capacity: usize, seed: Seed) -> Self {
        let places = vec![Place::default(); (capacity * 2).next_power_of_two().max(2)].into_boxed_slice();
        Peers { seed, places, len: 0, capacity }
    }

    pub(crate) fn get(&self, peer: PeerId) -> PeerCount {
        self.places[self.find(peer)].count
    }

    /// Whether one more entry of `peer` can be counted.
    pub(crate) fn has_room_for(&self, peer: PeerId) -> bool {
        self.len < self.capacity || self.get(peer).total > 0
    }

    /// Changes the counters of `peer`, for whom there is room.
    pub(crate) fn update(&mut self, peer: PeerId, change: impl FnOnce(&mut PeerCount)) {
        let at = self.find(peer);
        let place = &mut self.places[at];
        let before = place.count.total;
        place.peer = peer.0;
        change(&mut place.count);
        match (before, place.count.total) {
            (0, 1..) => self.len += 1,
            (1.., 0) => {
                self.len -= 1;
                self.free(at);
            }
            _ => {}
        }
    }

    /// The place of `peer`, or the free one where it belongs: a place is free when it counts nothing.
    fn find(&self, peer: PeerId) -> usize {
        let mut at = self.home(peer.0);
        while self.places[at].count.total != 0 && self.places[at].peer != peer.0 {
            at = self.after(at);
        }
        at
    }

    /// Fills the hole at `hole` with those that would no longer be found behind it.
    fn free(&mut self, mut hole: usize) {
        let mut at = self.after(hole);
        while self.places[at].count.total != 0 {
            let home = self.home(self.places[at].peer);
            let mask = self.places.len() - 1;
            // How far `at` is from home, and from the hole: if home is at or before the hole, it may move there.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.places[hole] = Place::default();
    }

    fn home(&self, peer: u32) -> usize {
        keyed(self.seed, [u64::from(peer)], 0) as usize & (self.places.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn counters_agree_with_a_map_and_empty_ones_take_no_room(steps in prop::collection::vec((0u32..40, any::<bool>()), 0..400), seed: [u64; 2]) {
            let (mut peers, mut model) = (Peers::new(16, seed), HashMap::<u32, u32>::new());
            for (peer, up) in steps {
                let held = model.get(&peer).copied().unwrap_or(0);
                prop_assert_eq!(peers.has_room_for(PeerId(peer)), held > 0 || model.len() < 16);
                if up && peers.has_room_for(PeerId(peer)) {
                    peers.update(PeerId(peer), |count| count.total += 1);
                    model.insert(peer, held + 1);
                } else if !up && held > 0 {
                    peers.update(PeerId(peer), |count| count.total -= 1);
                    if held == 1 { model.remove(&peer); } else { model.insert(peer, held - 1); }
                }
                for peer in 0..40 {
                    prop_assert_eq!(peers.get(PeerId(peer)).total, model.get(&peer).copied().unwrap_or(0));
                }
            }
        }
    }
}
