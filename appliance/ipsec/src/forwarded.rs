//! What a router keeps of an inbound SA beside the window of what it knows to be accepted. It lies with the SA, so that a packet
//! needs one page of memory for both.

use phalanx_wire::TargetId;

/// A router's bounds on the numbers of an inbound SA; without meaning on a core that only is a target.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RouterNotes {
    /// The router itself accepts nothing at or below...
    pub floor: u64,
    /// ...and of what it sends to targets once it knows the connection, TCP without SYN and UDP, nothing at or below this: a
    /// target that is gone may have accepted it.
    pub late: u64,
    /// Not all targets have the SA: what comes waits (I4).
    pub early: bool,
}

/// The highest number of an inbound SA that was forwarded to each target, for the floor should the target die (I2).
///
/// Bounded: of more than four targets at once those behind are remembered as one, for which the highest of them stands. So a bound
/// may be higher than it had to be, and never lower.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Forwarded {
    targets: [TargetId; Self::EACH],
    /// 0 where there is none.
    highest: [u64; Self::EACH],
    others: u64,
}

const _: () = assert!(size_of::<Forwarded>() == 64);

impl Forwarded {
    const EACH: usize = 4;

    /// A packet of that number goes to the target.
    #[inline]
    pub fn note(&mut self, target: TargetId, seq: u64) {
        if let Some(at) = self.place(target) {
            self.highest[at] = seq.max(self.highest[at]);
            return;
        }
        let behind = (0..Self::EACH).min_by_key(|&at| self.highest[at]).unwrap_or(0);
        self.others = self.others.max(self.highest[behind]);
        (self.targets[behind], self.highest[behind]) = (target, seq);
    }

    /// The target is gone: no number above this was sent to it. `None` if none was.
    pub fn take(&mut self, target: TargetId) -> Option<u64> {
        let known = self.place(target).map_or(0, |at| std::mem::take(&mut self.highest[at]));
        Some(known.max(self.others)).filter(|highest| *highest > 0)
    }

    #[inline]
    fn place(&self, target: TargetId) -> Option<usize> {
        (0..Self::EACH).find(|&at| self.targets[at] == target && self.highest[at] > 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn no_bound_is_below_what_was_forwarded_and_of_few_targets_each_is_exact(
            targets in 1u16..9,
            ops in prop::collection::vec((0u16..9, 1u64..1000, 0u8..10), 1..300),
        ) {
            let (mut forwarded, mut model) = (Forwarded::default(), HashMap::new());
            let mut overall = 0;
            for (target, seq, op) in ops {
                let target = target % targets;
                if op > 0 {
                    forwarded.note(TargetId(target), seq);
                    let highest = model.entry(target).or_insert(0);
                    *highest = seq.max(*highest);
                    overall = seq.max(overall);
                } else {
                    let (bound, truth) = (forwarded.take(TargetId(target)), model.remove(&target));
                    prop_assert!(bound >= truth && bound <= Some(overall).filter(|_| bound.is_some()));
                    if usize::from(targets) <= Forwarded::EACH {
                        prop_assert_eq!(bound, truth);
                    }
                }
            }
        }
    }
}
