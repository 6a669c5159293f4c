//! A hash map that never allocates after it was made: for a core's small private tables.
//!
//! Open addressing, linear probing, at most half full; removal shifts back, so there are no tombstones and no rehash.
//! Keys come from configuration or from control, never unchecked from the network: the hash is fast, not keyed.

use std::hash::{Hash, Hasher};

#[derive(Debug)]
pub(crate) struct FixedMap<K, V> {
    slots: Box<[Option<(K, V)>]>,
    len: usize,
    limit: usize,
}

/// The map holds as many entries as it was made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

struct Fx(u64);

impl Hasher for Fx {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }
}

impl<K: Copy + Eq + Hash, V> FixedMap<K, V> {
    pub(crate) fn new(limit: usize) -> FixedMap<K, V> {
        let slots = (limit.max(1) * 2).next_power_of_two();
        FixedMap { slots: (0..slots).map(|_| None).collect(), len: 0, limit }
    }

    fn home(&self, key: &K) -> usize {
        let mut hasher = Fx(0);
        key.hash(&mut hasher);
        // The product's high bits are the mixed ones.
        (hasher.finish() >> 32) as usize & (self.slots.len() - 1)
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut at = self.home(key);
        loop {
            match &self.slots[at] {
                Some((k, _)) if k == key => return Ok(at),
                Some(_) => at = (at + 1) & mask,
                None => return Err(at),
            }
        }
    }

    pub(crate) fn value(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        self.slots[at].as_ref().map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<V>, Full> {
        match self.find(&key) {
            Ok(at) => Ok(self.slots[at].replace((key, value)).map(|(_, old)| old)),
            Err(_) if self.len == self.limit => Err(Full),
            Err(at) => {
                self.slots[at] = Some((key, value));
                self.len += 1;
                Ok(None)
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let mut hole = self.find(key).ok()?;
        let removed = self.slots[hole].take();
        self.len -= 1;
        let mask = self.slots.len() - 1;
        let mut at = (hole + 1) & mask;
        while let Some((k, _)) = &self.slots[at] {
            // Move an entry back only if the hole lies between its home and itself, on the circle.
            let home = self.home(k);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at].take();
                hole = at;
            }
            at = (at + 1) & mask;
        }
        removed.map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_behaves_like_a_hash_map_with_a_limit(steps in proptest::collection::vec((0u16..40, any::<bool>()), 0..400)) {
            let mut model = HashMap::new();
            let mut map = FixedMap::new(16);
            for (at, (key, insert)) in steps.into_iter().enumerate() {
                if insert {
                    let fits = model.len() < 16 || model.contains_key(&key);
                    prop_assert_eq!(map.insert(key, at).is_ok(), fits);
                    if fits {
                        model.insert(key, at);
                    }
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                for key in 0..40 {
                    prop_assert_eq!(map.value(&key), model.get(&key));
                }
            }
        }
    }
}
