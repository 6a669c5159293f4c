//! Sequence numbers: where they come from and that none is used twice (I1, R18).
//!
//! ```text
//! coupling facility ──► Grant ──► GrantCell ──► Lease ──► SeqNo ──► one sealed packet
//!    (durable)                  (many cores)   (one core)
//! ```
//! Each arrow consumes or splits what it starts from. None of these types is `Copy` or `Clone`, none can be made from
//! a number except by the two constructors that say what must be true: [`Grant::new`], [`Lease::from_wire`].

use std::fmt;

use crate::sync::{AtomicU64, Ordering};

/// No number at or above this is handed out. It keeps a cell's counter far from wrapping, however many cores
/// overshoot its end at once: each does so by less than 2^32.
pub const SEQUENCE_LIMIT: u64 = u64::MAX - (1 << 48);

/// A range of numbers that the coupling facility gave to one sequencer, and to nobody else, ever.
#[derive(PartialEq, Eq)]
pub struct Grant {
    next: u64,
    end: u64,
}

impl Grant {
    /// `first..end`. Only for a range that a durable fetch-and-add returned to this very caller.
    ///
    /// 0 is left out, as no ESP packet bears it (RFC 4303 §2.2), and so is what is beyond [`SEQUENCE_LIMIT`].
    #[must_use]
    pub fn new(first: u64, end: u64) -> Grant {
        let end = end.min(SEQUENCE_LIMIT);
        Grant { next: first.max(1).min(end.max(1)), end: end.max(1) }
    }

    /// The next number it would hand out.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.next
    }

    /// The first number that is not of it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.next
    }

    /// Up to `n` numbers off its front; `None` when it is empty or `n` is 0.
    #[inline]
    pub fn take(&mut self, n: u32) -> Option<Lease> {
        let n = u64::from(n).min(self.remaining());
        if n == 0 {
            return None;
        }
        let lease = Lease { next: self.next, end: self.next + n };
        self.next += n;
        Some(lease)
    }

    /// Throws away what is below `first`.
    pub fn skip_to(&mut self, first: u64) {
        self.next = self.next.max(first.min(self.end));
    }
}

/// A grant that several cores take from. Its end never changes: a new grant is a new cell, so that no core compares
/// a number fetched from one with the end of another.
#[derive(Debug)]
pub struct GrantCell {
    next: AtomicU64,
    end: u64,
}

impl GrantCell {
    /// A cell over what is left of the grant.
    #[must_use]
    pub fn new(grant: Grant) -> GrantCell {
        GrantCell { next: AtomicU64::new(grant.next), end: grant.end }
    }

    /// Up to `n` numbers that no other call gets; `None` when the cell is exhausted or `n` is 0.
    pub fn take(&self, n: u32) -> Option<Lease> {
        // The load keeps an exhausted cell's counter from creeping on with every call.
        // Relaxed: the counter alone decides who gets what; nothing else is published through it.
        if n == 0 || self.next.load(Ordering::Relaxed) >= self.end {
            return None;
        }
        let first = self.next.fetch_add(u64::from(n), Ordering::Relaxed);
        let left = self.end.checked_sub(first).filter(|left| *left > 0)?;
        Some(Lease { next: first, end: first + left.min(u64::from(n)) })
    }

    /// How many were left a moment ago.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// The first number that is not of it.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// A run of numbers that one holder, and no other, may use.
#[derive(PartialEq, Eq)]
pub struct Lease {
    next: u64,
    end: u64,
}

impl Lease {
    /// `len` numbers from `first` on, as a sequencer sent them.
    ///
    /// The only way to make a lease from outside. It may be called for nothing but an authenticated reply to one's
    /// own request, with the request's nonce and both incarnations as they were, and once for each reply (I1).
    #[must_use]
    pub fn from_wire(first: u64, len: u32) -> Lease {
        let end = first.saturating_add(u64::from(len)).clamp(1, SEQUENCE_LIMIT);
        Lease { next: first.max(1).min(end), end }
    }

    /// Gives the lease up for its wire form, first number and length, to be sent to exactly one holder.
    ///
    /// A lease longer than `u32::MAX` is cut; the numbers behind are lost.
    #[must_use]
    pub fn into_wire(self) -> (u64, u32) {
        (self.next, u32::try_from(self.remaining()).unwrap_or(u32::MAX))
    }

    /// The next number, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<SeqNo> {
        if self.next == self.end {
            return None;
        }
        let seq = SeqNo(self.next);
        self.next += 1;
        Some(seq)
    }

    /// Keeps the first `n` and gives away the rest.
    #[must_use]
    pub fn split_off(&mut self, n: u64) -> Lease {
        let middle = self.next + n.min(self.remaining());
        let rest = Lease { next: middle, end: self.end };
        self.end = middle;
        rest
    }

    /// How many are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.next
    }

    /// The next number it would give.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.next
    }

    /// The first number that is not of it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// One number, to seal one packet with. Made by [`Lease::take`], used up by `OutboundSa::begin`.
#[derive(PartialEq, Eq)]
pub struct SeqNo(u64);

impl SeqNo {
    /// The number.
    #[inline]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({}..{})", self.next, self.end)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}..{})", self.next, self.end)
    }
}

impl fmt::Debug for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeqNo({})", self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn zero_and_what_is_beyond_the_limit_are_never_handed_out() {
        let mut grant = Grant::new(0, 3);
        let mut lease = grant.take(10).unwrap();
        assert_eq!([1, 2].map(Some), [(); 2].map(|()| lease.take().map(|s| s.value())));
        assert_eq!(lease.take(), None);
        assert_eq!(grant.take(1), None);
        assert_eq!(Grant::new(u64::MAX - 5, u64::MAX).remaining(), 0);
        assert_eq!(Grant::new(9, 3).remaining(), 0);
        assert_eq!(Grant::new(0, 0).remaining(), 0);
        assert_eq!(Lease::from_wire(0, 0).take(), None);
        assert_eq!(Lease::from_wire(0, 1).take(), None);
        assert_eq!(Lease::from_wire(u64::MAX, 7).take(), None);
    }

    #[test]
    fn an_exhausted_cell_stays_exhausted() {
        let cell = GrantCell::new(Grant::new(1, 5));
        assert_eq!(cell.take(3).unwrap().remaining(), 3);
        assert_eq!(cell.take(u32::MAX).unwrap().remaining(), 1);
        for _ in 0..1000 {
            assert_eq!(cell.take(u32::MAX), None);
        }
        assert_eq!(cell.remaining(), 0);
    }

    #[test]
    fn cores_that_take_at_once_get_every_number_exactly_once() {
        let cell = GrantCell::new(Grant::new(1, 10_001));
        let mut taken: Vec<u64> = std::thread::scope(|s| {
            let core = |n| {
                let cell = &cell;
                s.spawn(move || {
                    let mut mine = vec![];
                    while let Some(mut lease) = cell.take(n) {
                        mine.extend(std::iter::from_fn(|| lease.take()).map(|s| s.value()));
                    }
                    mine
                })
            };
            let cores: Vec<_> = [1, 3, 7, 32].map(core).into_iter().collect();
            cores.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        taken.sort_unstable();
        assert!(taken.into_iter().eq(1..10_001));
    }

    proptest! {
        #[test]
        fn leases_of_a_grant_are_disjoint_and_inside_it(
            first in 0u64..1000, len in 0u64..2000, takes in prop::collection::vec((0u32..200, 0u64..200, any::<bool>()), 0..40),
        ) {
            let mut grant = Grant::new(first, first + len);
            let mut seen = BTreeSet::new();
            for (n, keep, skip) in takes {
                if skip {
                    let to = grant.first() + keep;
                    grant.skip_to(to);
                }
                let Some(mut lease) = grant.take(n) else { continue };
                prop_assert!(lease.remaining() <= u64::from(n));
                let rest = lease.split_off(keep);
                prop_assert!(lease.remaining() <= keep);
                let (start, count) = rest.into_wire();
                let mut wired = Lease::from_wire(start, count);
                for seq in std::iter::from_fn(|| lease.take()).chain(std::iter::from_fn(|| wired.take())) {
                    prop_assert!(seq.value() >= first.max(1) && seq.value() < first + len);
                    prop_assert!(seen.insert(seq.value()), "{} came twice", seq.value());
                }
            }
        }
    }
}
