//! A hash table from 64-bit keys to places: open addressing, linear probes, never more than half full, never grown.

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Box<[Slot]>,
    home: fn(u64) -> u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    /// [`EMPTY`] if nothing is here.
    value: u32,
}

const EMPTY: u32 = u32::MAX;
const FREE: Slot = Slot { key: 0, value: EMPTY };

impl Index {
    /// A table for up to `limit` keys; `home` gives where the search for a key begins.
    pub(crate) fn new(limit: usize, home: fn(u64) -> u64) -> Index {
        Index { slots: vec![FREE; (2 * limit).next_power_of_two().max(2)].into_boxed_slice(), home }
    }

    /// Asks for the memory where the search for a key begins.
    #[inline]
    pub(crate) fn ahead(&self, key: u64) {
        phalanx_aead::prefetch::all(&self.slots[self.home(key)]);
    }

    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        self.slot_of(key).map(|at| self.slots[at].value)
    }

    /// The caller has seen that the key is not there and that the limit is kept.
    pub(crate) fn insert(&mut self, key: u64, value: u32) {
        let mut at = self.home(key);
        while self.slots[at].value != EMPTY {
            at = self.next(at);
        }
        self.slots[at] = Slot { key, value };
    }

    /// What the key led to.
    pub(crate) fn remove(&mut self, key: u64) -> Option<u32> {
        let mut gap = self.slot_of(key)?;
        let value = self.slots[gap].value;
        // What was pushed on by this key moves back, so that no search stops at the gap before it.
        let mut at = self.next(gap);
        while self.slots[at].value != EMPTY {
            let home = self.home(self.slots[at].key);
            let mask = self.slots.len() - 1;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
            at = self.next(at);
        }
        self.slots[gap] = FREE;
        Some(value)
    }

    #[inline]
    fn slot_of(&self, key: u64) -> Option<usize> {
        let mut at = self.home(key);
        loop {
            let slot = self.slots[at];
            if slot.value == EMPTY {
                return None;
            }
            if slot.key == key {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn home(&self, key: u64) -> usize {
        (self.home)(key) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn an_index_finds_what_a_map_finds(ops in prop::collection::vec((0u64..40, any::<bool>()), 0..400)) {
            // Homes collide on purpose.
            let mut index = Index::new(16, |key| key / 4);
            let mut model = HashMap::new();
            for (i, (key, insert)) in ops.into_iter().enumerate() {
                if insert && model.len() < 16 && !model.contains_key(&key) {
                    index.insert(key, i as u32);
                    model.insert(key, i as u32);
                } else {
                    prop_assert_eq!(index.remove(key), model.remove(&key));
                }
                for key in 0..40 {
                    prop_assert_eq!(index.find(key), model.get(&key).copied());
                }
            }
        }
    }
}
