//! From the load that a target reports to its share of new connections: smoothed, so that nobody swings, and with a floor,
//! so that nobody starves (and a target that nobody asks any more can show that it recovered).

/// The largest load: nothing is left.
pub const FULL: u16 = 1000;
/// The largest weight, of a target without load.
pub const MOST: u16 = 1000;
/// The smallest weight.
pub const LEAST: u16 = 50;
/// A step moves the smoothed load by this part of the way: with four steps a second it takes a second to follow.
const PART: i32 = 4;
/// Weights are multiples of this: a router core is not told of less.
const GRAIN: u16 = 25;

/// One target's load as its router thinks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadWeight {
    reported: Option<u16>,
    /// In 1/16 of a permille.
    smoothed: i32,
}

impl LoadWeight {
    /// It reports a load in permille; more than [`FULL`] counts as that. The first one counts at once.
    pub fn report(&mut self, permille: u16) {
        let permille = permille.min(FULL);
        if self.reported.replace(permille).is_none() {
            self.smoothed = i32::from(permille) * 16;
        }
    }

    /// A step of time, always the same: the load follows what was reported last.
    pub fn step(&mut self) {
        if let Some(reported) = self.reported {
            let way = i32::from(reported) * 16 - self.smoothed;
            // The last bit of the way too, or it would never arrive.
            self.smoothed += if way.abs() < PART { way } else { way / PART };
        }
    }

    /// What it reported last, in permille.
    #[must_use]
    pub fn reported(&self) -> Option<u16> {
        self.reported
    }

    /// Its weight, [`LEAST`] to [`MOST`]: what is left of it. Half of that before it reported anything.
    #[must_use]
    pub fn weight(&self) -> u16 {
        let load = if self.reported.is_some() { (self.smoothed / 16) as u16 } else { FULL / 2 };
        let left = u32::from(MOST) * u32::from(FULL - load.min(FULL)) / u32::from(FULL);
        ((left as u16 + GRAIN / 2) / GRAIN * GRAIN).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Candidate, Policy, Selector};
    use phalanx_wire::TargetId;
    use proptest::prelude::*;

    #[test]
    fn a_weight_follows_the_load_in_about_a_second_and_never_reaches_zero() {
        let mut load = LoadWeight::default();
        assert_eq!(load.weight(), 500, "nobody knows yet");
        load.report(0);
        assert_eq!(load.weight(), MOST);
        load.report(2000);
        let weights: Vec<u16> = (0..24).map(|_| (load.step(), load.weight()).1).collect();
        assert!(weights.is_sorted_by(|a, b| a >= b) && weights[0] == 750 && weights[3] < 350, "{weights:?}");
        assert_eq!(weights[23], LEAST);
    }

    /// Targets of different strength behind one selector: a connection keeps one part of a target busy for some steps. Their
    /// shares over the last half of the run, and how far each target's load moved in it.
    fn simulate(strength: &[u32], arrivals: u32, steps: usize) -> (Vec<f64>, Vec<u16>) {
        const LASTS: usize = 8;
        let mut loads = vec![LoadWeight::default(); strength.len()];
        let mut selector = Selector::new(Policy::Load, &[]);
        let mut active = vec![vec![0u32; LASTS]; strength.len()];
        let (mut got, mut low, mut high) =
            (vec![0u32; strength.len()], vec![FULL; strength.len()], vec![0; strength.len()]);
        for step in 0..steps {
            for (load, (busy, strength)) in loads.iter_mut().zip(active.iter().zip(strength)) {
                let busy: u32 = busy.iter().sum();
                load.report((busy * 1000 / strength).min(1000) as u16);
                load.step();
            }
            let candidate = |(at, load): (usize, &LoadWeight)| Candidate {
                id: TargetId(at as u16),
                eligible: true,
                draining: false,
                weight: load.weight(),
            };
            let candidates: Vec<Candidate> = loads.iter().enumerate().map(candidate).collect();
            let mut next = Selector::new(Policy::Load, &candidates);
            next.succeed(&selector);
            selector = next;
            active.iter_mut().for_each(|busy| busy[step % LASTS] = 0);
            for _ in 0..arrivals {
                let at = usize::from(selector.select(|_| 0).expect("a target").0);
                active[at][step % LASTS] += 1;
                if step >= steps / 2 {
                    got[at] += 1;
                }
            }
            if step >= steps / 2 {
                for (at, load) in loads.iter().enumerate() {
                    let now = load.reported().expect("reported");
                    (low[at], high[at]) = (low[at].min(now), high[at].max(now));
                }
            }
        }
        let all: u32 = got.iter().sum();
        let shares = got.iter().map(|n| f64::from(*n) / f64::from(all)).collect();
        (shares, low.into_iter().zip(high).map(|(low, high)| high - low).collect())
    }

    #[test]
    fn the_weaker_of_two_targets_gets_less_and_the_shares_come_to_rest() {
        // Eight steps of 50 connections are 400 at a time. At rest the share is in proportion to what is left of each.
        let (shares, swing) = simulate(&[1000, 300], 50, 400);
        assert!((0.57..0.66).contains(&shares[0]), "{shares:?}");
        assert!(swing.iter().all(|swing| *swing <= 60), "{swing:?}");
        let (shares, swing) = simulate(&[500, 500, 500], 60, 400);
        assert!(shares.iter().all(|share| (share - 1.0 / 3.0).abs() < 0.02), "{shares:?}");
        assert!(swing.iter().all(|swing| *swing <= 60), "{swing:?}");
    }

    #[test]
    fn nobody_starves_and_nobody_swings_when_all_are_overloaded() {
        let (shares, _) = simulate(&[100, 10], 100, 400);
        assert!(shares.iter().all(|share| *share > 0.2), "{shares:?}");
    }

    proptest! {
        #[test]
        fn any_reports_give_a_weight_within_bounds_that_settles_at_what_is_left(
            reports in prop::collection::vec(any::<u16>(), 1..50), last in 0u16..=1000,
        ) {
            let mut load = LoadWeight::default();
            for report in reports {
                load.report(report);
                load.step();
                prop_assert!((LEAST..=MOST).contains(&load.weight()));
            }
            load.report(last);
            (0..60).for_each(|_| load.step());
            let left = (1000 - last).clamp(LEAST, MOST);
            prop_assert!(load.weight().abs_diff(left) <= GRAIN);
        }
    }
}
