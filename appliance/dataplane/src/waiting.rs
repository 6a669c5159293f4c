//! Packets that wait for something by its name, in the order in which they came: bounded in all, for each name, and in time.

use arrayvec::ArrayVec;

/// Up to `N` of them. Few names wait at a time, so they are looked for one by one.
pub(crate) struct Waiting<K, T, const N: usize>(ArrayVec<(K, T, u64), N>);

impl<K, T, const N: usize> Default for Waiting<K, T, N> {
    fn default() -> Self {
        Waiting(ArrayVec::new())
    }
}

impl<K: PartialEq, T, const N: usize> Waiting<K, T, N> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// One more may wait under that name, if no more than `each` do.
    pub(crate) fn has_room(&self, name: &K, each: usize) -> bool {
        !self.0.is_full() && self.0.iter().filter(|(of, ..)| of == name).count() < each
    }

    /// The caller has seen that there is room.
    pub(crate) fn push(&mut self, name: K, packet: T, now_ms: u64) {
        self.0.push((name, packet, now_ms));
    }

    /// The first that waits under that name.
    pub(crate) fn take(&mut self, name: &K) -> Option<T> {
        let at = self.0.iter().position(|(of, ..)| of == name)?;
        Some(self.0.remove(at).1)
    }

    /// One that has waited for so many milliseconds.
    pub(crate) fn expired(&mut self, now_ms: u64, wait_ms: u64) -> Option<T> {
        let (.., since) = self.0.first()?;
        (now_ms >= since + wait_ms).then(|| self.0.remove(0).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_in_the_order_in_which_they_came_by_name_or_by_time() {
        let mut waiting = Waiting::<char, u32, 4>::default();
        for (at, name) in ['a', 'b', 'a', 'a'].into_iter().enumerate() {
            assert!(waiting.has_room(&name, 3));
            waiting.push(name, at as u32, 10 * at as u64);
        }
        assert!(!waiting.has_room(&'c', 3), "full");
        assert_eq!((waiting.expired(9, 10), waiting.expired(10, 10), waiting.expired(10, 10)), (None, Some(0), None));
        assert!(waiting.has_room(&'a', 3) && !waiting.has_room(&'a', 2) && waiting.has_room(&'c', 1));
        assert_eq!((waiting.take(&'a'), waiting.take(&'a'), waiting.take(&'a')), (Some(2), Some(3), None));
        assert_eq!((waiting.len(), waiting.expired(20, 10), waiting.len()), (1, Some(1), 0));
    }
}
