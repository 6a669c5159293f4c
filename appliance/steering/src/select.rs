//! Which target gets a new connection: deterministic, weighted, without allocation per choice.

use phalanx_wire::TargetId;

use crate::listeners::Among;

/// How targets are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// In turn, in proportion to the weights.
    #[default]
    RoundRobin,
    /// The one with the fewest connections per weight; among equals, in turn.
    LeastConnections,
    /// In turn, in proportion to weights that follow the load that targets report.
    Load,
}

/// A target as the selector sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub id: TargetId,
    /// It is alive, holds the VIP's current SAs and has a listener (I4, R25).
    pub eligible: bool,
    /// It keeps its connections and gets no new one.
    pub draining: bool,
    /// Its share; 0 is as good as not eligible.
    pub weight: u16,
}

impl Candidate {
    fn takes_new(&self) -> bool {
        self.eligible && !self.draining && self.weight > 0
    }
}

#[derive(Clone, Debug)]
struct Share {
    candidate: Candidate,
    /// What smooth weighted round robin owes this target.
    credit: i64,
}

/// Chooses among targets. Control makes it, the poll loop asks it once per new connection.
#[derive(Clone, Debug)]
pub struct Selector {
    policy: Policy,
    shares: Vec<Share>,
}

impl Selector {
    /// A selector over `candidates`.
    pub fn new(policy: Policy, candidates: &[Candidate]) -> Self {
        let shares = candidates.iter().map(|&candidate| Share { candidate, credit: 0 }).collect();
        Selector { policy, shares }
    }

    /// Takes the place of `old`: targets that both have keep their place in the turn, so frequent updates skew nothing.
    pub fn succeed(&mut self, old: &Selector) {
        for share in &mut self.shares {
            let same = old.shares.iter().find(|other| other.candidate.id == share.candidate.id);
            share.credit = same.map_or(0, |other| other.credit);
        }
    }

    /// The target for one new connection; `None` if none takes new ones. `connections` tells how many a target has.
    pub fn select(&mut self, connections: impl Fn(TargetId) -> u32) -> Option<TargetId> {
        self.select_among(Among::MAX, connections)
    }

    /// The same, of those candidates whose bit is set: the first has bit 0.
    pub fn select_among(&mut self, among: Among, connections: impl Fn(TargetId) -> u32) -> Option<TargetId> {
        let chosen = match self.policy {
            Policy::RoundRobin | Policy::Load => self.next_in_turn(among, |_| true),
            Policy::LeastConnections => {
                let least = self.least(among, &connections)?;
                self.next_in_turn(among, |candidate| !less(least, load(candidate, &connections)))
            }
        }?;
        Some(self.shares[chosen].candidate.id)
    }

    /// Smooth weighted round robin: each earns its weight, the richest is chosen and pays what all earned. Weights
    /// 5, 1, 1 give `a a b a c a a`: in proportion, and never in bunches.
    fn next_in_turn(&mut self, among: Among, wanted: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let (mut total, mut richest) = (0, None::<(i64, usize)>);
        for (at, share) in self.shares.iter_mut().enumerate() {
            if !is_among(among, at) || !share.candidate.takes_new() || !wanted(&share.candidate) {
                continue;
            }
            share.credit += i64::from(share.candidate.weight);
            total += i64::from(share.candidate.weight);
            if richest.is_none_or(|(most, _)| share.credit > most) {
                richest = Some((share.credit, at));
            }
        }
        let (_, at) = richest?;
        self.shares[at].credit -= total;
        Some(at)
    }

    fn least(&self, among: Among, connections: &impl Fn(TargetId) -> u32) -> Option<(u32, u16)> {
        let these = self.shares.iter().enumerate().filter(|(at, _)| is_among(among, *at)).map(|(_, share)| share);
        let loads = these.filter(|s| s.candidate.takes_new()).map(|s| load(&s.candidate, connections));
        loads.reduce(|least, other| if less(other, least) { other } else { least })
    }
}

fn is_among(among: Among, at: usize) -> bool {
    among.checked_shr(at as u32).unwrap_or(0) & 1 == 1
}

/// Connections and weight: a fraction, compared without dividing.
fn load(candidate: &Candidate, connections: &impl Fn(TargetId) -> u32) -> (u32, u16) {
    (connections(candidate.id), candidate.weight)
}

fn less(a: (u32, u16), b: (u32, u16)) -> bool {
    u64::from(a.0) * u64::from(b.1) < u64::from(b.0) * u64::from(a.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn candidate(id: u16, weight: u16) -> Candidate {
        Candidate { id: TargetId(id), eligible: true, draining: false, weight }
    }

    fn choices(selector: &mut Selector, n: usize) -> Vec<u16> {
        (0..n).map(|_| selector.select(|_| 0).expect("a target").0).collect()
    }

    #[test]
    fn round_robin_takes_equal_targets_in_turn() {
        let mut selector = Selector::new(Policy::RoundRobin, &[candidate(1, 1), candidate(2, 1), candidate(3, 1)]);
        assert_eq!(choices(&mut selector, 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn round_robin_respects_weights_without_bunches() {
        let mut selector = Selector::new(Policy::RoundRobin, &[candidate(1, 5), candidate(2, 1), candidate(3, 1)]);
        assert_eq!(choices(&mut selector, 7), [1, 1, 2, 1, 3, 1, 1]);
    }

    #[test]
    fn draining_ineligible_and_weightless_targets_get_nothing() {
        let draining = Candidate { draining: true, ..candidate(1, 1) };
        let dead = Candidate { eligible: false, ..candidate(2, 1) };
        for policy in [Policy::RoundRobin, Policy::LeastConnections] {
            let mut selector = Selector::new(policy, &[draining, dead, candidate(3, 0)]);
            assert_eq!(selector.select(|_| 0), None);
            let mut selector = Selector::new(policy, &[draining, dead, candidate(3, 0), candidate(4, 1)]);
            assert_eq!(choices(&mut selector, 3), [4, 4, 4]);
        }
    }

    #[test]
    fn an_update_with_the_same_targets_does_not_restart_the_turn() {
        let all = [candidate(1, 1), candidate(2, 1)];
        let mut selector = Selector::new(Policy::RoundRobin, &all);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.extend(choices(&mut selector, 1));
            let mut next = Selector::new(Policy::RoundRobin, &all);
            next.succeed(&selector);
            selector = next;
        }
        assert_eq!(seen, [1, 2, 1, 2]);
    }

    #[test]
    fn only_those_among_whom_is_chosen_take_part_in_the_turn() {
        let all = [candidate(1, 1), candidate(2, 1), candidate(3, 1)];
        for policy in [Policy::RoundRobin, Policy::LeastConnections, Policy::Load] {
            let mut selector = Selector::new(policy, &all);
            let mut among = |mask| selector.select_among(mask, |_| 0).map(|id| id.0);
            assert_eq!([0b110; 4].map(&mut among), [Some(2), Some(3), Some(2), Some(3)]);
            assert_eq!([0b001; 2].map(&mut among), [Some(1); 2]);
            assert_eq!(among(0), None);
            assert_eq!([0b111; 3].map(&mut among), [Some(1), Some(2), Some(3)], "nobody lost or won by it");
        }
    }

    #[test]
    fn least_connections_among_equals_goes_in_turn() {
        let mut selector = Selector::new(Policy::LeastConnections, &[candidate(1, 1), candidate(2, 1)]);
        assert_eq!(choices(&mut selector, 4), [1, 2, 1, 2]);
    }

    proptest! {
        #[test]
        fn least_connections_keeps_every_target_near_its_share(weights in prop::collection::vec(1u16..20, 1..8)) {
            let all: Vec<_> = (0u16..).zip(&weights).map(|(id, weight)| candidate(id, *weight)).collect();
            let mut selector = Selector::new(Policy::LeastConnections, &all);
            let mut held = HashMap::<u16, u32>::new();
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            for _ in 0..total * 10 {
                let id = selector.select(|id| held.get(&id.0).copied().unwrap_or(0)).unwrap();
                *held.entry(id.0).or_default() += 1;
            }
            for (id, weight) in (0u16..).zip(&weights) {
                let off = i64::from(held[&id]) - i64::from(*weight) * 10;
                prop_assert!(off.unsigned_abs() <= u64::from(*weight), "{held:?}");
            }
        }

        #[test]
        fn round_robin_gives_each_exactly_its_weight_per_round(weights in prop::collection::vec(1u16..20, 1..8)) {
            let all: Vec<_> = (0u16..).zip(&weights).map(|(id, weight)| candidate(id, *weight)).collect();
            let mut selector = Selector::new(Policy::RoundRobin, &all);
            let round = weights.iter().map(|w| usize::from(*w)).sum();
            let chosen = choices(&mut selector, round);
            for (id, weight) in (0u16..).zip(&weights) {
                prop_assert_eq!(chosen.iter().filter(|c| **c == id).count(), usize::from(*weight));
            }
        }
    }
}
