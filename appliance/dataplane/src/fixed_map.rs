//! A hash map that never allocates after it was made: for a core's small private tables.
//!
//! Open addressing, linear probing, at most half full; removal shifts back, so there are no tombstones and no rehash.
//! Keys come from configuration or from control, never unchecked from the network: the hash is fast, not keyed.

use std::net::IpAddr;

use phalanx_wire::{Spi, VipId};

#[derive(Debug)]
pub(crate) struct FixedMap<K, V> {
    slots: Box<[Option<(K, V)>]>,
    len: usize,
    limit: usize,
}

/// The map holds as many entries as it was made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A key as a word to be mixed: a packet asks for several, so it takes a few instructions.
pub(crate) trait Key: Copy + Eq {
    fn word(&self) -> u64;
}

impl Key for IpAddr {
    #[inline]
    fn word(&self) -> u64 {
        match self {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (bits >> 64) as u64 ^ (bits as u64).rotate_left(5)
            }
        }
    }
}

impl Key for VipId {
    #[inline]
    fn word(&self) -> u64 {
        u64::from(self.0)
    }
}

impl Key for (VipId, Spi) {
    #[inline]
    fn word(&self) -> u64 {
        u64::from(self.0.0) << 32 | u64::from(self.1.0)
    }
}

impl<K: Key, V> FixedMap<K, V> {
    pub(crate) fn new(limit: usize) -> FixedMap<K, V> {
        let slots = (limit.max(1) * 2).next_power_of_two();
        FixedMap { slots: (0..slots).map(|_| None).collect(), len: 0, limit }
    }

    #[inline]
    fn home(&self, key: &K) -> usize {
        // The product's high bits are the mixed ones.
        (key.word().wrapping_mul(0x517c_c1b7_2722_0a95) >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline]
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

    #[inline]
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

    impl Key for u16 {
        fn word(&self) -> u64 {
            // Many share a home.
            u64::from(*self / 4) << 32
        }
    }

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
