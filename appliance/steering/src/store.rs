//! The memory below both connection tables: bounded, allocated once, entries that never move.
//!
//! Every key has two buckets of sixteen slots, each with a byte of the key's hash in a row of tags that is
//! compared as a whole; a new entry goes into the emptier bucket. So a look-up reads two rows of tags and, nearly
//! always, one 64-byte entry; it is bounded whatever was inserted; a deletion leaves no tombstone; and because no
//! entry is ever displaced, a cursor over the slots sees each entry that is there throughout exactly once.

use std::cell::Cell;

use phalanx_aead::prefetch;

use crate::SteeringError;
use crate::hash::Seed;
use crate::key::{ConnKey, PackedKey};

/// Slots of a bucket.
const WAYS: usize = 16;
/// Entries per bucket at capacity: three quarters, so that the emptier of two buckets has room (the fullest of n
/// buckets holds the average + log2(ln n), here 12 + 4, with a probability that can be neglected).
const FILL: usize = 12;
/// Most entries of one store: 8 GiB of slots, and far from the last number that a slot can have.
const MOST: usize = 100_000_000;
/// The tag of a free slot.
const FREE: u8 = 0;
/// No slot.
const NOWHERE: Slot = Slot::MAX;

/// Where an entry stands; valid until the entry is removed.
pub(crate) type Slot = u32;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Entry<V> {
    key: PackedKey,
    value: V,
}

/// A bounded map from connection keys to `V`.
pub(crate) struct Store<V> {
    seed: Seed,
    tags: Box<[[u8; WAYS]]>,
    entries: Box<[Entry<V>]>,
    len: usize,
    capacity: usize,
    /// Entries that went, ever.
    removals: u64,
}

/// A key and where it is looked up: for several steps, some packets apart, in the table that gave it and in no other.
#[derive(Clone)]
pub struct Sought {
    key: PackedKey,
    /// None where a slot was named to begin with.
    place: Option<Place>,
    /// Looked at first: the slot that was named, or the first one with its tag when its tags came; [`NOWHERE`] before that, or if
    /// there was none.
    first: Cell<Slot>,
    /// Where it was found, after how many removals.
    found: Cell<(Slot, u64)>,
}

impl Sought {
    /// The key.
    #[must_use]
    pub fn key(&self) -> ConnKey {
        ConnKey::from(&self.key)
    }

    #[inline]
    pub(crate) fn packed(&self) -> &PackedKey {
        &self.key
    }

    /// The slot that it was found in last.
    #[inline]
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        Some(self.found.get().0).filter(|slot| *slot != NOWHERE)
    }
}

/// A key's two buckets and its tag.
#[derive(Clone, Copy)]
struct Place {
    buckets: [u32; 2],
    tag: u8,
}

impl<V: Copy + Default> Store<V> {
    /// One cache line per entry: what STYLE asks of hot structures, checked where a table is instantiated.
    const LINE: () = assert!(size_of::<Entry<V>>() == 64);

    /// Room for `capacity` entries; the only allocation.
    pub(crate) fn new(capacity: usize, seed: Seed) -> Result<Self, SteeringError> {
        let () = Self::LINE;
        let buckets = capacity.div_ceil(FILL).max(2);
        if capacity > MOST {
            return Err(SteeringError::TooMany(capacity));
        }
        Ok(Store {
            seed,
            tags: vec![[FREE; WAYS]; buckets].into_boxed_slice(),
            entries: vec![Entry { key: PackedKey::default(), value: V::default() }; buckets * WAYS].into_boxed_slice(),
            len: 0,
            capacity,
            removals: 0,
        })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn slots(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn find(&self, key: &PackedKey) -> Option<Slot> {
        self.find_at(self.place(key), key)
    }

    /// As [`Self::find`]; what was found is there until an entry goes, and not looked for again.
    #[inline]
    pub(crate) fn find_sought(&self, sought: &Sought) -> Option<Slot> {
        let (slot, at) = sought.found.get();
        if at == self.removals && slot != NOWHERE {
            return Some(slot);
        }
        let slot = self.find_anew(sought)?;
        sought.found.set((slot, self.removals));
        Some(slot)
    }

    fn find_anew(&self, sought: &Sought) -> Option<Slot> {
        let (first, key) = (sought.first.get(), &sought.key);
        // What is free has no key; whatever took its place has another.
        if self.entries.get(first as usize).is_some_and(|entry| entry.key == *key) {
            return Some(first);
        }
        self.find_at(sought.place.unwrap_or_else(|| self.place(key)), key)
    }

    #[inline]
    fn find_at(&self, place: Place, key: &PackedKey) -> Option<Slot> {
        place.buckets.into_iter().find_map(|bucket| self.find_in(bucket, place.tag, key))
    }

    /// Asks memory for the tags that a look-up of this key compares first; then [`Self::entry_ahead`].
    #[inline(always)]
    pub(crate) fn seek(&self, key: PackedKey) -> Sought {
        let place = self.place(&key);
        place.buckets.into_iter().for_each(|bucket| prefetch::all(&self.tags[bucket as usize]));
        Sought { key, place: Some(place), first: Cell::new(NOWHERE), found: Cell::new((NOWHERE, 0)) }
    }

    /// As [`Self::seek`], where the key was in that slot before: asks memory for the entry there, and for nothing else unless it is gone.
    #[inline(always)]
    pub(crate) fn seek_in(&self, key: PackedKey, slot: Slot) -> Sought {
        self.entries.get(slot as usize).into_iter().for_each(prefetch::all);
        Sought { key, place: None, first: Cell::new(slot), found: Cell::new((NOWHERE, 0)) }
    }

    /// Asks memory for the entry that these tags lead to.
    #[inline]
    pub(crate) fn entry_ahead(&self, sought: &Sought) {
        if sought.first.get() != NOWHERE {
            return;
        }
        let Some(Place { buckets, tag }) = sought.place else { return };
        let hits = buckets.map(|bucket| matches(&self.tags[bucket as usize], tag));
        let (bucket, hits) = if hits[0] != 0 { (buckets[0], hits[0]) } else { (buckets[1], hits[1]) };
        if hits != 0 {
            let slot = bucket as usize * WAYS + hits.trailing_zeros() as usize;
            prefetch::all(&self.entries[slot]);
            sought.first.set(slot as Slot);
        }
    }

    /// How many cache lines a look-up of this key reads: rows of tags, and entries whose tag is the key's.
    pub(crate) fn reads(&self, key: &PackedKey) -> usize {
        let place = self.place(key);
        let mut reads = 0;
        for bucket in place.buckets {
            reads += 1;
            let mut hits = matches(&self.tags[bucket as usize], place.tag);
            while hits != 0 {
                reads += 1;
                if self.entries[bucket as usize * WAYS + hits.trailing_zeros() as usize].key == *key {
                    return reads;
                }
                hits &= hits - 1;
            }
        }
        reads
    }

    /// A new entry; `None` if there is no room. The caller knows that the key is absent.
    pub(crate) fn insert(&mut self, key: &PackedKey, value: V) -> Option<Slot> {
        if self.len == self.capacity {
            return None;
        }
        let place = self.place(key);
        let [first, second] = place.buckets.map(|bucket| (self.used(bucket), bucket));
        let (used, bucket) = first.min(second);
        if used == WAYS {
            return None;
        }
        let way = self.tags[bucket as usize].iter().position(|tag| *tag == FREE)?;
        self.tags[bucket as usize][way] = place.tag;
        let slot = bucket as usize * WAYS + way;
        self.entries[slot] = Entry { key: *key, value };
        self.len += 1;
        Some(slot as Slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let tag = &mut self.tags[slot as usize / WAYS][slot as usize % WAYS];
        debug_assert_ne!(*tag, FREE);
        *tag = FREE;
        self.entries[slot as usize].key = PackedKey::default();
        self.len -= 1;
        self.removals += 1;
    }

    #[inline]
    pub(crate) fn key(&self, slot: Slot) -> &PackedKey {
        &self.entries[slot as usize].key
    }

    #[inline]
    pub(crate) fn value(&self, slot: Slot) -> &V {
        &self.entries[slot as usize].value
    }

    #[inline]
    pub(crate) fn value_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.entries[slot as usize].value
    }

    /// The first used slot at or after `from`, looking at `budget` slots (at least a bucket) and no more: where to go on, and the slot.
    pub(crate) fn next_used(&self, from: usize, budget: usize) -> (usize, Option<Slot>) {
        let end = from.saturating_add(budget).min(self.slots());
        let found = (from..end).find(|at| self.tags[at / WAYS][at % WAYS] != FREE);
        (found.map_or(end, |at| at + 1), found.map(|at| at as Slot))
    }

    #[inline(always)]
    fn place(&self, key: &PackedKey) -> Place {
        let hash = key.hash(self.seed);
        let buckets = self.tags.len() as u64;
        // Each half of the hash picks a bucket by multiplication: any number of buckets will do, and none is favoured.
        let first = ((hash >> 32) * buckets) >> 32;
        let second = ((hash & 0xffff_ffff) * buckets) >> 32;
        // The low byte of the low half moves its bucket least, so it is nearly independent of both.
        let tag = (hash as u8).max(1);
        Place { buckets: [first as u32, second as u32], tag }
    }

    #[inline]
    fn find_in(&self, bucket: u32, tag: u8, key: &PackedKey) -> Option<Slot> {
        let mut hits = matches(&self.tags[bucket as usize], tag);
        while hits != 0 {
            let slot = bucket as usize * WAYS + hits.trailing_zeros() as usize;
            if self.entries[slot].key == *key {
                return Some(slot as Slot);
            }
            hits &= hits - 1;
        }
        None
    }

    fn used(&self, bucket: u32) -> usize {
        WAYS - matches(&self.tags[bucket as usize], FREE).count_ones() as usize
    }
}

/// One bit per way whose tag is `tag`: eight tags at a time, in a few instructions of any CPU.
#[inline]
fn matches(tags: &[u8; WAYS], tag: u8) -> u16 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let (halves, _) = tags.as_chunks::<8>();
    let half = |half: &[u8; 8]| {
        let differs = u64::from_le_bytes(*half) ^ u64::from_le_bytes([tag; 8]);
        // The high bit of each byte that is zero, and of no other: nothing is carried from byte to byte.
        let same = !(((differs & LOW) + LOW) | differs | LOW);
        // Bit 8i + 7 goes to bit 56 + i.
        ((same >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u16
    };
    half(&halves[0]) | half(&halves[1]) << 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::{Endpoint, Flow, PeerId};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn key(number: u8) -> PackedKey {
        // All zeros is a connection as any other.
        let end = |last| Endpoint { addr: Ipv4Addr::new(0, 0, 0, last).into(), port: 0 };
        let flow = Flow { protocol: 0, local: end(0), remote: end(number) };
        PackedKey::from(&ConnKey { peer: PeerId(0), flow })
    }

    proptest! {
        /// Entries come and go after it was sought, and others take their slots; where one is said to be, another may be, or none.
        #[test]
        fn what_is_sought_is_found_where_its_key_is(
            steps in prop::collection::vec((0u8..5, 0u8..12), 1..80),
            slots: [Option<u8>; 12],
        ) {
            let mut store: Store<[u16; 11]> = Store::new(8, [1, 2]).unwrap();
            let seek = |(number, slot): (u8, Option<u8>)| match slot {
                Some(slot) => store.seek_in(key(number), Slot::from(slot % 40)),
                None => store.seek(key(number)),
            };
            let all: Vec<Sought> = (0..12).zip(slots).map(seek).collect();
            for (step, number) in steps {
                let (key, sought) = (key(number), &all[usize::from(number)]);
                match (step, store.find(&key)) {
                    (0, None) => prop_assert!(store.insert(&key, [0; 11]).is_some() || store.len() == 8),
                    (1, Some(slot)) => store.remove(slot),
                    (2, _) => store.entry_ahead(sought),
                    _ => {}
                }
                if step != 1 {
                    let found = store.find_sought(sought);
                    prop_assert_eq!(found, store.find(&key));
                    prop_assert!(found.is_none() || sought.slot() == found);
                }
            }
            for (sought, number) in all.iter().zip(0..) {
                prop_assert_eq!(store.find_sought(sought), store.find(&key(number)));
            }
        }

        #[test]
        fn a_bit_is_set_for_each_tag_that_is_the_same(mut tags: [u8; WAYS], tag: u8, same: u16) {
            for (way, other) in tags.iter_mut().enumerate() {
                *other = if same >> way & 1 == 1 { tag } else { *other };
            }
            let bits = tags.iter().enumerate().map(|(way, other)| u16::from(*other == tag) << way).sum::<u16>();
            prop_assert_eq!(matches(&tags, tag), bits);
        }
    }
}
