//! How busy a target is, in permille, for its routers' weights: what its poll cores and its host's CPUs have left, or what
//! somebody who knows better wrote into a file.

use std::path::PathBuf;
use std::sync::Arc;

use phalanx_dataplane::{CoreStats, Step};

/// Busy and all clocks of each target core, busy and all ticks of the host's CPUs: since their start.
struct Sample {
    cores: Vec<(u64, u64)>,
    cpus: Option<(u64, u64)>,
}

/// Samples the load.
pub struct Busy {
    polled: Vec<u32>,
    stats: Vec<Arc<CoreStats>>,
    file: Option<PathBuf>,
    last: Sample,
    /// It was said that the file is no good.
    said: bool,
}

impl Busy {
    /// CPUs in `polled` belong to poll loops, which are busy by nature: for those `stats` tell.
    pub fn new(polled: Vec<u32>, stats: Vec<Arc<CoreStats>>, file: Option<PathBuf>) -> Busy {
        let last = Sample::take(&polled, &stats);
        Busy { polled, stats, file, last, said: false }
    }

    /// The load since the last sample, and, once, what is wrong with the file.
    pub fn sample(&mut self) -> (u16, Option<String>) {
        let now = Sample::take(&self.polled, &self.stats);
        let measured = now.since(&self.last);
        self.last = now;
        let Some(file) = &self.file else { return (measured, None) };
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let load = text.and_then(|text| parse(&text).ok_or_else(|| format!("{:?} is no number", text.trim())));
        match load {
            Ok(load) => {
                self.said = false;
                (load, None)
            }
            Err(why) => {
                let first = !std::mem::replace(&mut self.said, true);
                let problem = format!("load_file {}: {why}; the load is what was measured", file.display());
                (measured, first.then_some(problem))
            }
        }
    }
}

/// What is written into a load file: 0 to 1000, more counts as that.
fn parse(text: &str) -> Option<u16> {
    Some(text.trim().parse::<u64>().ok()?.min(1000) as u16)
}

impl Sample {
    fn take(polled: &[u32], stats: &[Arc<CoreStats>]) -> Sample {
        let cpus = std::fs::read_to_string("/proc/stat").ok().and_then(|text| cpus(&text, polled));
        Sample { cores: stats.iter().map(|stats| clocks(stats)).collect(), cpus }
    }

    /// What the busiest core and the host have left, multiplied: a connection needs both.
    fn since(&self, last: &Sample) -> u16 {
        let cores = self.cores.iter().zip(&last.cores).map(|(now, then)| share(*now, *then)).max();
        let cpus = self.cpus.zip(last.cpus).map(|(now, then)| share(now, then));
        let left = |load: Option<u16>| 1000 - u32::from(load.unwrap_or(0));
        (1000 - left(cores) * left(cpus) / 1000) as u16
    }
}

/// The busy part of what passed between two samples, in permille.
fn share(now: (u64, u64), then: (u64, u64)) -> u16 {
    let (part, of) = (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
    (u128::from(part) * 1000 / u128::from(of.max(1))).min(1000) as u16
}

/// Clocks of a loop's steps: of those with something to do, and of all.
fn clocks(stats: &CoreStats) -> (u64, u64) {
    let clocks = |step: &Step| (stats.measures.step(*step).clocks.value(), step.is_rest());
    let all = Step::ALL.iter().map(clocks);
    all.fold((0, 0), |(busy, all), (clocks, rest)| (busy + if rest { 0 } else { clocks }, all + clocks))
}

/// Busy and total ticks of the CPUs that no loop polls, from `/proc/stat` (proc_stat(5)); of all where every one is polled.
fn cpus(stat: &str, polled: &[u32]) -> Option<(u64, u64)> {
    // The first line, of all together, has no number.
    let lines = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    let lines = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let cpu = |line: &str| {
        let mut fields = line.split_whitespace();
        let number = fields.next()?.parse::<u32>().ok()?;
        // user nice system idle iowait irq softirq steal; guest time is in user.
        let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let total: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
        Some((number, total - idle, total))
    };
    let all: Vec<(u32, u64, u64)> = lines.filter_map(cpu).collect();
    let free = all.iter().any(|(number, ..)| !polled.contains(number));
    let counted = all.iter().filter(|(number, ..)| !free || !polled.contains(number));
    counted.map(|(_, busy, total)| (*busy, *total)).reduce(|a, b| (a.0 + b.0, a.1 + b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 90 0 90 15 5 0 0 0 0 0\ncpu1 10 0 10 685 95 0 0 0 0 0\nintr 1\n";

    #[test]
    fn cpus_that_a_loop_polls_do_not_count_unless_there_are_no_others() {
        assert_eq!(cpus(STAT, &[]), Some((200, 1000)));
        assert_eq!(cpus(STAT, &[0]), Some((20, 800)));
        assert_eq!(cpus(STAT, &[0, 1]), Some((200, 1000)));
        assert_eq!(cpus("nonsense", &[]), None);
    }

    #[test]
    fn the_load_is_what_the_busiest_core_and_the_host_do_not_have_left() {
        let then = Sample { cores: vec![(10, 1000); 2], cpus: Some((0, 0)) };
        let after = |cores: [u64; 2], cpus| Sample { cores: cores.map(|c| (10 + c, 2000)).to_vec(), cpus }.since(&then);
        assert_eq!(after([0, 0], Some((0, 100))), 0);
        assert_eq!(after([200, 500], Some((0, 100))), 500);
        assert_eq!(after([500, 0], Some((50, 100))), 750);
        assert_eq!(after([2000, 0], None), 1000);
    }

    #[test]
    fn a_file_says_better_and_a_bad_one_is_complained_about_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load");
        let mut busy = Busy::new(Vec::new(), Vec::new(), Some(path.clone()));
        assert!(busy.sample().1.expect("no file").contains("load_file"));
        assert_eq!(busy.sample().1, None);
        for (text, load) in [("700\n", 700), (" 0", 0), ("99999", 1000)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(busy.sample(), (load, None));
        }
        std::fs::write(&path, "much").unwrap();
        assert!(busy.sample().1.expect("nonsense").contains("much"));
    }
}
