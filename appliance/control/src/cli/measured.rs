//! `runtime` and `latency` as tables.

use comfy_table::{Cell, CellAlignment, Table};

use super::table::{number, table};
use crate::status::figures::{LatencyRow, RuntimeRow, StepRow};

/// Where the time of a core went: a line above the table, and the table.
pub(super) fn runtime(row: &RuntimeRow, all: bool) -> (String, Table) {
    let head = format!(
        "core {}: busy {:.1} %, {} rounds, {:.0} MHz",
        row.core,
        row.busy_percent,
        row.loops,
        row.clocks_per_second / 1e6
    );
    let clocks = row.clocks().max(1);
    let mut t = table(&["step", "calls", "packets", "packets/call", "clocks/packet", "clocks/call", "time"]);
    for step in row.steps.iter().filter(|step| all || step.calls > 0) {
        t.add_row([
            Cell::new(&step.step),
            number(step.calls),
            number(step.packets),
            average(step.packets_per_call().filter(|_| step.packets > 0), 1),
            average(step.clocks_per_packet(), 0),
            average(step.clocks_per_call(), 0),
            average(Some(share(step, clocks)), 1),
        ]);
    }
    (head, t)
}

fn share(step: &StepRow, of: u64) -> f64 {
    100.0 * step.clocks as f64 / of as f64
}

/// How long things took; of each core only with `all`.
pub(super) fn latency(rows: &[LatencyRow], all: bool) -> Table {
    let mut t = table(&["µs", "of", "core", "count", "p50", "p90", "p99", "p99.9", "max"]);
    for r in rows.iter().filter(|r| shown(r, all)) {
        let head = [
            Cell::new(&r.what),
            Cell::new(&r.of),
            Cell::new(r.core.map_or_else(|| "all".to_owned(), |core| core.to_string())),
            number(r.count),
        ];
        let times = [r.p50_us, r.p90_us, r.p99_us, r.p999_us, r.max_us].map(|us| average(Some(us), 1));
        t.add_row(head.into_iter().chain(times));
    }
    t
}

/// Whether a row is told of: where something was measured, unless everything is wanted.
pub(super) fn shown(row: &LatencyRow, all: bool) -> bool {
    all || (row.core.is_none() && row.count > 0)
}

fn average(value: Option<f64>, digits: usize) -> Cell {
    let text = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::super::table::render;
    use super::*;
    use crate::status::Answer;

    #[test]
    fn runtime_shows_averages_and_shares() {
        let step =
            |step: &str, calls, packets, clocks, rest| StepRow { step: step.into(), calls, packets, clocks, rest };
        let steps =
            vec![step("open", 2, 8, 4000, false), step("tend", 1, 0, 1000, false), step("idle", 9, 0, 5000, true)];
        let row = RuntimeRow { core: 3, clocks_per_second: 2e9, loops: 7, busy_percent: 50.0, steps };
        let text = render(&Answer::Runtime(vec![row]), false, false);
        let expected = "\
core 3: busy 50.0 %, 7 rounds, 2000 MHz
\x20STEP  CALLS  PACKETS  PACKETS/CALL  CLOCKS/PACKET  CLOCKS/CALL  TIME
\x20open      2        8           4.0            500         2000  40.0
\x20tend      1        0             -              -         1000  10.0
\x20idle      9        0             -              -          556  50.0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn latency_shows_all_cores_together_and_each_on_demand() {
        let row = |core, count| LatencyRow {
            what: "residence".into(),
            of: "packet".into(),
            core,
            count,
            ..LatencyRow::default()
        };
        let rows =
            vec![row(None, 5), row(Some(0), 5), LatencyRow { what: "lease-wait".into(), ..LatencyRow::default() }];
        let text = render(&Answer::Latency(rows.clone()), false, false);
        assert!(text.lines().count() == 2 && text.contains("residence") && text.contains("all"), "{text}");
        assert_eq!(render(&Answer::Latency(rows), true, false).lines().count(), 4);
        assert_eq!(render(&Answer::Latency(Vec::new()), false, false), "nothing was measured yet\n");
    }
}
