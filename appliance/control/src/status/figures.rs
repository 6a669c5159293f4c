//! What was measured, as it is told: where a core's time goes, how long things take, and all of it at one moment.

use serde::{Deserialize, Serialize};

use super::ike::IkeFigures;
use super::model::{DropRow, SaRow, Status, TargetRow, VipRow};

/// Where the time of one poll loop went since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeRow {
    /// Its number.
    pub core: u16,
    /// Rate of the processor's time stamp counter, in which clocks are counted.
    pub clocks_per_second: f64,
    /// Rounds.
    pub loops: u64,
    /// Part of its time in which it had something to do, in percent.
    pub busy_percent: f64,
    /// What it did, in the order of the loop.
    pub steps: Vec<StepRow>,
}

/// One step of a poll loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRow {
    /// Its name.
    pub step: String,
    /// Bursts.
    pub calls: u64,
    /// Packets of them.
    pub packets: u64,
    /// Clocks they took.
    pub clocks: u64,
    /// Nothing was done: `poll`, `idle`.
    pub rest: bool,
}

impl StepRow {
    /// Packets of a burst on average.
    pub fn packets_per_call(&self) -> Option<f64> {
        per(self.packets, self.calls)
    }

    /// Clocks of a packet on average; none where packets are not what it is about.
    pub fn clocks_per_packet(&self) -> Option<f64> {
        per(self.clocks, self.packets)
    }

    /// Clocks of a burst on average.
    pub fn clocks_per_call(&self) -> Option<f64> {
        per(self.clocks, self.calls)
    }
}

fn per(amount: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| amount as f64 / of as f64)
}

impl RuntimeRow {
    /// All clocks of its steps.
    pub fn clocks(&self) -> u64 {
        self.steps.iter().map(|step| step.clocks).sum()
    }

    /// A core's time without polls that brought nothing and rests, in percent of all of it.
    pub fn busy(steps: &[StepRow]) -> f64 {
        let all: u64 = steps.iter().map(|step| step.clocks).sum();
        let rest: u64 = steps.iter().filter(|step| step.rest).map(|step| step.clocks).sum();
        per(all - rest, all).map_or(0.0, |share| 100.0 * share)
    }
}

/// How long something took, all cores together or one of them. Known to about a sixteenth; `max` exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyRow {
    /// `residence`, `lease-wait`, …, or the name of a step.
    pub what: String,
    /// `packet`: each packet counts; `burst`: each burst.
    pub of: String,
    /// `None`: all cores.
    pub core: Option<u16>,
    /// How many.
    pub count: u64,
    /// Half of them took no longer. In microseconds, as the others.
    pub p50_us: f64,
    /// 90 % of them.
    pub p90_us: f64,
    /// 99 % of them.
    pub p99_us: f64,
    /// 99.9 % of them.
    pub p999_us: f64,
    /// All of them.
    pub max_us: f64,
}

/// Upper bounds of [`HistogramRow`]'s buckets in microseconds; one more bucket is above all of them.
pub const BOUNDS_US: [f64; 20] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 50e3, 100e3, 200e3, 500e3,
    1e6,
];

/// A distribution over all cores in few buckets, for those who collect figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistogramRow {
    /// As in [`LatencyRow`].
    pub what: String,
    /// As in [`LatencyRow`].
    pub of: String,
    /// How many per bucket; each counts once.
    pub counts: Vec<u64>,
    /// Their sum in seconds.
    pub sum_s: f64,
}

/// Everything that is quickly told of a node, at one moment: what `top` and collectors of metrics look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// The moment, on the node's own clock.
    pub taken_us: u64,
    /// The node. Its predictions are left out.
    pub status: Status,
    /// Reasons for which something was dropped.
    pub drops: Vec<DropRow>,
    /// Those SAs that carried the most packets.
    pub sas: Vec<SaRow>,
    /// How many more SAs there are.
    pub sas_left_out: u64,
    /// VIPs.
    pub vips: Vec<VipRow>,
    /// Targets; their connections are not counted here.
    pub targets: Vec<TargetRow>,
    /// IKE, on a router.
    pub ike: Option<IkeFigures>,
    /// Where the cores' time went.
    pub runtime: Vec<RuntimeRow>,
    /// How long things took.
    pub histograms: Vec<HistogramRow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, calls: u64, packets: u64, clocks: u64) -> StepRow {
        StepRow { step: name.into(), calls, packets, clocks, rest: name == "idle" }
    }

    #[test]
    fn the_busy_share_is_what_is_not_rest() {
        assert_eq!(RuntimeRow::busy(&[step("open", 1, 4, 25), step("idle", 1, 0, 75)]), 25.0);
        assert_eq!(RuntimeRow::busy(&[]), 0.0);
    }

    #[test]
    fn averages_need_something_to_divide_by() {
        let open = step("open", 2, 8, 400);
        assert_eq!(open.packets_per_call(), Some(4.0));
        assert_eq!((open.clocks_per_packet(), open.clocks_per_call()), (Some(50.0), Some(200.0)));
        assert_eq!(step("tend", 3, 0, 9).clocks_per_packet(), None);
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b));
    }
}
