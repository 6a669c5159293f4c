//! Looks at what the SAs carried, in parts: however many SAs are in use, no look keeps control from its other work, nor the CPU from a
//! poll loop that shares it, for longer than a fraction of a millisecond.

use std::time::Instant;

use phalanx_ike::ChildId;
use phalanx_wire::SaId;

/// A round is over after about so many parts, which are a tick apart.
const PARTS: usize = 20;
/// So few make no part of their own.
const LEAST: usize = 64;

/// A round of looks.
pub struct Looks {
    /// When it began.
    pub since: Instant,
    sas: Vec<SaId>,
    children: Vec<ChildId>,
    part: usize,
}

impl Default for Looks {
    /// A round that is over.
    fn default() -> Looks {
        Looks::begin([], Vec::new())
    }
}

impl Looks {
    /// A round of all these, which starts now.
    pub fn begin(sas: impl IntoIterator<Item = SaId>, children: Vec<ChildId>) -> Looks {
        let sas: Vec<SaId> = sas.into_iter().collect();
        let part = sas.len().max(children.len()).div_ceil(PARTS).max(LEAST);
        Looks { since: Instant::now(), sas, children, part }
    }

    /// All were looked at.
    pub fn is_done(&self) -> bool {
        self.sas.is_empty() && self.children.is_empty()
    }

    /// The next ones.
    pub fn part(&mut self) -> (Vec<SaId>, Vec<ChildId>) {
        let rest = |all: usize| all.saturating_sub(self.part);
        (self.sas.split_off(rest(self.sas.len())), self.children.split_off(rest(self.children.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sas: u64) -> Vec<usize> {
        let mut looks = Looks::begin((0..sas).map(SaId), Vec::new());
        std::iter::from_fn(|| (!looks.is_done()).then(|| looks.part().0.len())).collect()
    }

    #[test]
    fn a_few_sas_are_one_part_and_any_number_is_so_many_at_most() {
        assert!(parts(0).is_empty());
        assert_eq!(parts(64), [64]);
        assert_eq!(parts(65).len(), 2);
        for sas in [1_000, 20_000, 1_000_003] {
            let parts = parts(sas);
            assert!(parts.len() <= PARTS && parts.iter().sum::<usize>() as u64 == sas, "{sas}: {parts:?}");
        }
    }
}
