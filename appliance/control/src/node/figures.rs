//! What the poll cores measured, put together for those who ask: `runtime`, `latency`, the overview of `top` and metrics.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use phalanx_cluster::messages::ToRouter;
use phalanx_dataplane::{Buckets, CoreStats, Span, Step};
use phalanx_wire::{CoreId, SaId};

use super::books::SaEntry;
use super::brain::Brain;
use super::dumps::Rows;
use crate::status::figures::{BOUNDS_US, HistogramRow, LatencyRow, Overview, RuntimeRow, StepRow};
use crate::status::model::{DropRow, SaRow};

/// SAs of an overview at most.
const SAS: usize = 200;
/// How often routers are told what was dropped here.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// A distribution in nanoseconds.
struct Distribution {
    values: Histogram<u64>,
    max: u64,
}

/// Everything whose duration is measured.
#[derive(Clone, Copy)]
enum Measured {
    Span(Span),
    Step(Step),
}

impl Measured {
    fn all() -> impl Iterator<Item = Measured> {
        let steps = Step::ALL.iter().filter(|step| !step.is_rest());
        Span::ALL.iter().map(|span| Measured::Span(*span)).chain(steps.map(|step| Measured::Step(*step)))
    }

    fn name(self) -> &'static str {
        match self {
            Measured::Span(span) => span.name(),
            Measured::Step(step) => step.name(),
        }
    }

    fn of(self) -> &'static str {
        match self {
            Measured::Span(_) => "packet",
            Measured::Step(_) => "burst",
        }
    }

    /// A core's buckets, and what their unit is in nanoseconds.
    fn on(self, stats: &CoreStats) -> (&Buckets, f64) {
        let clock = 1e9 / stats.measures.clocks_per_second();
        match self {
            Measured::Span(span) => (stats.measures.span(span), if span.in_clocks() { clock } else { 1e3 }),
            Measured::Step(step) => (&stats.measures.step(step).took, clock),
        }
    }

    fn gather<'a>(self, cores: impl Iterator<Item = &'a CoreStats>) -> Distribution {
        let mut sum = Distribution::new();
        for stats in cores {
            let (buckets, unit) = self.on(stats);
            sum.add(buckets, unit);
        }
        sum
    }
}

impl Distribution {
    fn new() -> Distribution {
        // Three digits: finer than the cores' own buckets. It grows by itself, and 64 bits hold every duration.
        let values = Histogram::new(3).expect("three digits are allowed");
        Distribution { values, max: 0 }
    }

    fn add(&mut self, buckets: &Buckets, unit_ns: f64) {
        for bucket in buckets.iter() {
            let middle = (bucket.from as f64 + bucket.to as f64) / 2.0 * unit_ns;
            self.record(middle as u64, bucket.count);
        }
        self.max = self.max.max((buckets.highest() as f64 * unit_ns) as u64);
    }

    fn record(&mut self, ns: u64, count: u64) {
        // Not the saturating way: that one does not grow, and all beyond 2 us would be 2 us.
        self.values.record_n(ns, count).expect("it grows up to 64 bits");
    }

    fn row(&self, measured: Measured, core: Option<CoreId>) -> LatencyRow {
        let us = |ns: u64| ns.min(self.max) as f64 / 1e3;
        let quantile = |q| us(self.values.value_at_quantile(q));
        LatencyRow {
            what: measured.name().to_owned(),
            of: measured.of().to_owned(),
            core: core.map(|core| core.0),
            count: self.values.len(),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: us(self.max),
        }
    }

    fn histogram(&self, measured: Measured) -> HistogramRow {
        let mut counts = vec![0; BOUNDS_US.len() + 1];
        for value in self.values.iter_recorded() {
            let us = value.value_iterated_to() as f64 / 1e3;
            counts[BOUNDS_US.partition_point(|bound| *bound < us)] += value.count_at_value();
        }
        let sum_s = self.values.mean() * self.values.len() as f64 / 1e9;
        HistogramRow { what: measured.name().to_owned(), of: measured.of().to_owned(), counts, sum_s }
    }
}

/// Where one core's time went.
fn runtime(core: CoreId, stats: &CoreStats) -> RuntimeRow {
    let step = |step: &Step| {
        let figures = stats.measures.step(*step);
        StepRow {
            step: step.name().to_owned(),
            calls: figures.calls.value(),
            packets: figures.packets.value(),
            clocks: figures.clocks.value(),
            rest: step.is_rest(),
        }
    };
    let steps: Vec<StepRow> = Step::ALL.iter().map(step).collect();
    RuntimeRow {
        core: core.0,
        clocks_per_second: stats.measures.clocks_per_second(),
        loops: stats.loops.value(),
        busy_percent: RuntimeRow::busy(&steps),
        steps,
    }
}

impl Brain {
    pub(super) fn runtime_rows(&self) -> Vec<RuntimeRow> {
        self.stats.iter().map(|(core, stats)| runtime(*core, stats)).collect()
    }

    /// Each distribution over all cores, then by core.
    pub(super) fn latency_rows(&self) -> Vec<LatencyRow> {
        let rows = |measured: Measured| {
            let all = measured.gather(self.stats.iter().map(|(_, stats)| &**stats)).row(measured, None);
            let each = self
                .stats
                .iter()
                .map(move |(core, stats)| measured.gather(std::iter::once(&**stats)).row(measured, Some(*core)));
            std::iter::once(all).chain(each)
        };
        Measured::all().flat_map(rows).collect()
    }

    /// Tells the routers what was dropped here, all of it each time: what is lost or repeated does no harm.
    pub(super) fn tell_drops(&mut self) {
        if self.drops_told.elapsed() < DROPS_EVERY {
            return;
        }
        self.drops_told = Instant::now();
        let happened = self.drop_rows().into_iter().filter(|row| row.packets > 0);
        let reasons: Vec<(String, u64)> = happened.map(|row| (row.reason, row.packets)).collect();
        for (name, way) in &self.ways.routers {
            if self.routers.get(name).is_some_and(phalanx_cluster::TargetCluster::attached) {
                way.send(ToRouter::Dropped(reasons.clone()));
            }
        }
    }

    /// What is told without asking the cores for their tables, bounded whatever the node holds.
    pub(super) fn overview(&self) -> Overview {
        let targets = self.router.as_ref().map(|router| self.seen_by(router, &Rows::default())).unwrap_or_default();
        let sas = self.busiest_sas();
        let all = self.stats.iter().map(|(_, stats)| &**stats);
        Overview {
            taken_us: self.now(),
            status: self.status_without_predictions(),
            drops: self.drop_rows().into_iter().filter(DropRow::happened).collect(),
            sas_left_out: (self.sas.iter().count() - sas.len()) as u64,
            sas,
            vips: self.vip_rows(),
            targets,
            ike: self.ike_figures(),
            runtime: self.runtime_rows(),
            histograms: Measured::all().map(|m| m.gather(all.clone()).histogram(m)).collect(),
        }
    }

    fn busiest_sas(&self) -> Vec<SaRow> {
        let packets = |(id, entry): (&SaId, &SaEntry)| {
            let all = self.router.as_ref().filter(|_| entry.router).and_then(|router| router.used(*id));
            (all.map_or_else(|| entry.used(|_| true).packets, |used| used.packets), *id)
        };
        let mut busiest: Vec<(u64, SaId)> = self.sas.iter().map(packets).collect();
        if busiest.len() > SAS {
            busiest.select_nth_unstable_by_key(SAS, |(packets, id)| (u64::MAX - packets, *id));
            busiest.truncate(SAS);
        }
        busiest.sort_unstable_by_key(|(_, id)| *id);
        busiest.into_iter().filter_map(|(_, id)| Some(self.sa_row(id, self.sas.find(id)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_what_was_counted_and_never_exceed_the_highest() {
        let mut values = Distribution::new();
        for (ns, count) in [(1_000, 90), (10_000, 9), (2_000_000, 1)] {
            values.record(ns, count);
        }
        values.max = 1_999_000;
        let row = values.row(Measured::Span(Span::Lease), None);
        assert_eq!(row.count, 100);
        assert!((0.99..1.02).contains(&row.p50_us) && (0.99..1.02).contains(&row.p90_us), "{row:?}");
        assert!((9.9..10.2).contains(&row.p99_us), "{row:?}");
        assert_eq!((row.p999_us, row.max_us), (1999.0, 1999.0));
    }

    #[test]
    fn every_value_is_in_one_bucket_of_the_histogram() {
        let mut values = Distribution::new();
        for (ns, count) in [(100, 1), (1_500, 2), (999_000_000, 4), (5_000_000_000, 8)] {
            values.record(ns, count);
        }
        let row = values.histogram(Measured::Step(Step::Open));
        assert_eq!(row.counts.iter().sum::<u64>(), 15);
        assert_eq!((row.counts[0], row.counts[2], row.counts[19], row.counts[20]), (1, 2, 4, 8));
        assert!((row.sum_s - 43.996).abs() < 0.1, "{}", row.sum_s);
        assert_eq!((row.what.as_str(), row.of.as_str()), ("open", "burst"));
    }

    #[test]
    fn what_nothing_was_measured_of_is_nought() {
        let row = Distribution::new().row(Measured::Span(Span::Residence), Some(CoreId(1)));
        assert_eq!((row.count, row.p50_us, row.max_us, row.core), (0, 0.0, 0.0, Some(1)));
    }
}
