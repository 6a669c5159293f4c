//! What IKE measured, and the keys it writes down where it is told to.

use std::collections::VecDeque;

use phalanx_ike::{ChildSa, KeyLine};

use super::brain::Brain;
use super::key_log::KeyLog;
use crate::status::ike::{IkeFigures, SET_UP_BOUNDS_MS, SetUp, SetUpBucket};

/// Set-up times remembered one by one.
const LATEST: usize = 4096;

/// How long set-ups took.
#[derive(Default)]
pub(super) struct SetUps {
    latest: VecDeque<u64>,
    /// All since the start, by [`SET_UP_BOUNDS_MS`]; the last is above all of them.
    counts: [u64; SET_UP_BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl SetUps {
    /// More of them, in milliseconds.
    pub fn note(&mut self, times: Vec<u64>) {
        for ms in times {
            self.counts[SET_UP_BOUNDS_MS.partition_point(|bound| *bound < ms)] += 1;
            self.sum_ms += ms;
            self.latest.push_back(ms);
        }
        let over = self.latest.len().saturating_sub(LATEST);
        self.latest.drain(..over);
    }

    /// As it is shown.
    pub fn shown(&self) -> SetUp {
        let mut sorted: Vec<u64> = self.latest.iter().copied().collect();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let of = |percent: usize| sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default();
        let bounds = SET_UP_BOUNDS_MS.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(self.counts).map(|(up_to_ms, count)| SetUpBucket { up_to_ms, count });
        SetUp {
            count: self.counts.iter().sum(),
            sum_ms: self.sum_ms,
            p50_ms: of(50),
            p99_ms: of(99),
            max_ms: of(100),
            buckets: buckets.collect(),
        }
    }
}

impl Brain {
    /// What collectors of figures get, of a router.
    pub(super) fn ike_figures(&self) -> Option<IkeFigures> {
        let ike = self.ike.as_ref()?;
        let (sas, half_open) = ike.endpoint.count();
        let counters = ike.endpoint.counters().named();
        Some(IkeFigures {
            sas: sas as u64,
            half_open: half_open as u64,
            children: ike.children.len() as u64,
            counters: counters.into_iter().map(|(name, n)| (name.replace('_', "-"), n)).collect(),
            set_up: ike.times.shown(),
        })
    }

    /// Opens or closes the key log, as the configuration says.
    pub(super) fn ike_key_log(&mut self) {
        let folder = self.config.ike.key_log.clone();
        let Some(ike) = &mut self.ike else { return };
        let Some(folder) = folder else { return ike.keys = None };
        if ike.keys.is_some() {
            return;
        }
        match KeyLog::open(&folder) {
            Ok(log) => {
                ike.keys = Some(log);
                tracing::warn!("KEYS ARE WRITTEN DOWN in {}: the configuration asks for it", folder.display());
            }
            Err(error) => self.warn(format!("no keys are written down in {}: {error}", folder.display())),
        }
    }

    pub(super) fn ike_log_line(&mut self, line: &KeyLine) {
        self.ike_logs(|log| log.ike(line));
    }

    pub(super) fn ike_log_child(&mut self, child: &ChildSa) {
        self.ike_logs(|log| log.esp(child));
    }

    fn ike_logs(&mut self, write: impl FnOnce(&mut KeyLog) -> std::io::Result<()>) {
        let Some(log) = self.ike.as_mut().and_then(|ike| ike.keys.as_mut()) else { return };
        if let Err(error) = write(log) {
            self.warn(format!("a key could not be written down: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_up_is_in_one_bucket_and_percentiles_are_of_the_latest() {
        let mut times = SetUps::default();
        times.note(vec![100_000; 10]);
        times.note(vec![1; 4050]);
        times.note(vec![7; 46]);
        let shown = times.shown();
        assert_eq!((shown.count, shown.sum_ms), (4106, 1_000_000 + 4050 + 46 * 7));
        assert_eq!((shown.p50_ms, shown.p99_ms, shown.max_ms), (1, 7, 7));
        let filled: Vec<_> = shown.buckets.iter().filter(|b| b.count > 0).map(|b| (b.up_to_ms, b.count)).collect();
        assert_eq!(filled, [(Some(1), 4050), (Some(10), 46), (None, 10)]);
        assert_eq!(SetUps::default().shown().max_ms, 0);
    }
}
