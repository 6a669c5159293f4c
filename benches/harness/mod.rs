//! What the benchmarks share: a clock, samples, and the table or the JSON of what came out.
//!
//! Ours and its peers are measured in turn, in short rounds, until nobody gets better any more. Whatever else the machine
//! does only adds to a time, so the best is what is compared; the median tells how quiet the machine was.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Instant;

/// So many rounds without anybody getting better by a hundredth are enough.
const STEADY: usize = 40;
const MOST_ROUNDS: usize = 600;

/// Calls `round`, which gives each contestant's nanoseconds per item, until it is enough. The first one is for the caches.
pub fn measure<T: AsRef<[f64]>>(round: impl FnMut() -> T) -> Vec<Samples> {
    measure_by(usize::MAX, round)
}

/// As [`measure`], where only the first `judges` of them say when it is enough: others are too short to become steady.
pub fn measure_by<T: AsRef<[f64]>>(judges: usize, mut round: impl FnMut() -> T) -> Vec<Samples> {
    let mut all: Vec<Samples> = round().as_ref().iter().map(|_| Samples::default()).collect();
    let mut steady = 0;
    for _ in 0..MOST_ROUNDS {
        steady += 1;
        for (at, (samples, &ns)) in all.iter_mut().zip(round().as_ref()).enumerate() {
            if at < judges && ns < 0.99 * samples.best() {
                steady = 0;
            }
            samples.0.push(ns);
        }
        if steady == STEADY {
            break;
        }
    }
    all
}

/// Nanoseconds that `work` takes; what reading the clock takes is not of them.
pub fn clock(work: impl FnOnce()) -> f64 {
    static COST: OnceLock<f64> = OnceLock::new();
    let cost = *COST.get_or_init(|| (0..10_000).map(|_| raw(|| {})).fold(f64::MAX, f64::min));
    (raw(work) - cost).max(0.0)
}

fn raw(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// Nanoseconds per item, one sample a round.
#[derive(Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// These.
    pub fn of(ns: Vec<f64>) -> Samples {
        Samples(ns)
    }

    /// One that is not repeated.
    pub fn once(ns: f64) -> Samples {
        Samples(vec![ns])
    }

    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::MAX, f64::min)
    }

    /// By how much these are above others: best above best, median above median.
    pub fn above(&self, others: &Samples) -> Samples {
        let (best, median) = (self.best() - others.best(), self.median() - others.median());
        Samples(vec![best, median.max(best), median.max(best)])
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// What is shown of a time per item.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Less is better.
    NsPerPacket,
    /// More is better.
    PerSecond(&'static str),
    /// More is better. A disk is slow by itself, not only because of others: its median stands for it.
    DurablePerSecond(&'static str),
}

impl Unit {
    fn of(self, ns: f64) -> f64 {
        if matches!(self, Unit::NsPerPacket) { ns } else { 1e9 / ns }
    }

    /// What is compared.
    fn typical(self, samples: &Samples) -> f64 {
        let durable = matches!(self, Unit::DurablePerSecond(_));
        self.of(if durable { samples.median() } else { samples.best() })
    }

    fn name(self) -> String {
        match self {
            Unit::NsPerPacket => "ns/packet".into(),
            Unit::PerSecond(what) | Unit::DurablePerSecond(what) => format!("{what}/s"),
        }
    }
}

/// Where results go: a table for people, or with `--json` one object per line.
pub struct Report {
    group: &'static str,
    json: bool,
    titled: Cell<bool>,
}

impl Report {
    /// For a benchmark's `main`.
    pub fn new(group: &'static str) -> Report {
        Report { group, json: std::env::args().any(|arg| arg == "--json"), titled: Cell::new(false) }
    }

    /// Ours beside one peer of the same rounds. The ratio is ours / peer, whatever the unit.
    pub fn row(&self, name: &str, unit: Unit, ours: &Samples, peer_name: &str, peer: &Samples) {
        let [a, c] = [ours, peer].map(|samples| unit.typical(samples));
        let [b, d] = [ours, peer].map(|samples| unit.of(samples.median()));
        self.show(name, &unit.name(), [a, b], peer_name, [c, d]);
    }

    /// A size, which is the same each time.
    pub fn bytes(&self, name: &str, ours: usize, peer_name: &str, peer: usize) {
        self.show(name, "bytes", [ours as f64; 2], peer_name, [peer as f64; 2]);
    }

    /// Something that is counted or measured as a whole.
    pub fn count(&self, name: &str, unit: &str, ours: f64, peer_name: &str, peer: f64) {
        self.show(name, unit, [ours; 2], peer_name, [peer; 2]);
    }

    /// What is compared, and the median.
    fn show(&self, name: &str, unit: &str, [a, b]: [f64; 2], peer_name: &str, [c, d]: [f64; 2]) {
        let ratio = a / c;
        if self.json {
            let row = serde_json::json!({
                "group": self.group, "name": name, "ours": rounded(a), "peer": rounded(c), "peer_name": peer_name,
                "ratio": rounded(ratio), "unit": unit, "ours_median": rounded(b), "peer_median": rounded(d),
            });
            println!("{row}");
            return;
        }
        if !self.titled.replace(true) {
            let [name, ours, median, peer, ratio, unit, is] =
                ["name", "ours", "median", "peer", "ratio", "unit", "peer is"];
            println!("{name:<58} {ours:>10} {median:>10} {peer:>10} {median:>10} {ratio:>7}  {unit:<14} {is}");
        }
        let [a, b, c, d] = [a, b, c, d].map(shown);
        println!("{name:<58} {a:>10} {b:>10} {c:>10} {d:>10} {ratio:>7.2}  {unit:<14} {peer_name}");
    }
}

/// Progress and remarks, apart from results.
pub fn note(text: &str) {
    eprintln!("    {text}");
}

fn shown(value: f64) -> String {
    if value < 10_000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
