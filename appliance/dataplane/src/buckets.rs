//! How long something took, how often: buckets of fixed memory that one core fills and control reads.
//!
//! Log-linear as in an HDR histogram: the first 16 values have a bucket each, from there on every power of two has 16 of
//! them, so a value is known to 1/16 of itself. Nothing is allocated, locked or waited for (I7).

use crate::stats::Count;

/// Buckets of each power of two: 2 to the...
const BITS: u32 = 4;
const EACH: usize = 1 << BITS;
/// Values from here on go to the last bucket: six minutes of a 3 GHz clock.
const LIMIT_BITS: u32 = 40;
const BUCKETS: usize = EACH * (LIMIT_BITS - BITS + 1) as usize;

/// A distribution of values, written by one core alone.
#[derive(Debug)]
pub struct Buckets {
    counts: Box<[Count]>,
    highest: Count,
}

/// The values of one bucket that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The lowest value in it.
    pub from: u64,
    /// The highest value in it.
    pub to: u64,
    /// How many there were.
    pub count: u64,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { counts: (0..BUCKETS).map(|_| Count::default()).collect(), highest: Count::default() }
    }
}

impl Buckets {
    /// Counts a value `n` times.
    #[inline]
    pub(crate) fn add(&self, value: u64, n: u64) {
        self.counts[index(value)].add(n);
        if value > self.highest.value() {
            self.highest.set(value);
        }
    }

    /// The highest value so far.
    pub fn highest(&self) -> u64 {
        self.highest.value()
    }

    /// The buckets that are not empty, lowest first. While the core counts on, the newest values may be missing.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.counts.iter().enumerate().filter_map(|(at, count)| {
            let count = count.value();
            let (from, to) = range(at);
            (count > 0).then_some(Bucket { from, to, count })
        })
    }
}

#[inline]
fn index(value: u64) -> usize {
    let value = value.min((1 << LIMIT_BITS) - 1);
    if value < EACH as u64 {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    let shift = power - BITS;
    (shift as usize + 1) * EACH + ((value >> shift) as usize & (EACH - 1))
}

/// The first and the last value of a bucket.
fn range(at: usize) -> (u64, u64) {
    if at < EACH {
        return (at as u64, at as u64);
    }
    let shift = at / EACH - 1;
    let from = ((EACH + at % EACH) as u64) << shift;
    (from, from + (1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_is_in_the_range_of_its_bucket_and_that_is_narrow(bits in 0u32..LIMIT_BITS, low in any::<u64>()) {
            let value = (1 << bits) | (low & ((1 << bits) - 1));
            let (from, to) = range(index(value));
            prop_assert!((from..=to).contains(&value));
            prop_assert!(to - from <= value / 16);
        }

        #[test]
        fn what_was_counted_is_read(values in proptest::collection::vec((0u64..1 << 41, 1u64..100), 0..50)) {
            let buckets = Buckets::default();
            values.iter().for_each(|(value, n)| buckets.add(*value, *n));
            let counted: u64 = values.iter().map(|(_, n)| n).sum();
            prop_assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), counted);
            prop_assert_eq!(buckets.highest(), values.iter().map(|(value, _)| *value).max().unwrap_or(0));
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        let mut next = 0;
        for at in 0..BUCKETS {
            let (from, to) = range(at);
            assert_eq!((from, index(from), index(to)), (next, at, at));
            next = to + 1;
        }
        assert_eq!(next, 1 << LIMIT_BITS);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }
}
