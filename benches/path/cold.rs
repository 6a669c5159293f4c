//! What memory takes for what is in no cache: the limit of a core with more SAs and connections than its caches hold.

use std::hint::black_box;

use phalanx_aead::{BURST, prefetch};

use crate::bed::scattered;
use crate::harness::clock;

/// Bytes between two objects: no two share a page, and they spread over all sets of a cache.
const APART: usize = 4096 + 64;
/// Far more than a cache holds.
const OBJECTS: usize = 1 << 17;

/// Cache lines that a packet needs of its SA, connection and filter: runs of lines that lie together, each run somewhere else.
pub struct Cold {
    runs: &'static [usize],
    memory: Vec<u8>,
    next: usize,
}

impl Cold {
    pub fn new(runs: &'static [usize]) -> Cold {
        Cold { runs, memory: vec![1; APART * OBJECTS], next: 0 }
    }

    /// Nanoseconds per packet of asking for all lines of a burst, and then reading them: nothing else is done.
    pub fn round(&mut self, bursts: usize) -> f64 {
        let ns = clock(|| (0..bursts).for_each(|_| self.burst()));
        ns / (bursts * BURST) as f64
    }

    fn burst(&mut self) {
        let first = self.next;
        for run in self.runs.iter().cycle().take(BURST * self.runs.len()) {
            let at = scattered(&mut self.next, OBJECTS) * APART;
            prefetch::part(&self.memory[at..], 0, run * prefetch::LINE);
        }
        self.next = first;
        for run in self.runs.iter().cycle().take(BURST * self.runs.len()) {
            let at = scattered(&mut self.next, OBJECTS) * APART;
            (0..*run).for_each(|line| _ = black_box(self.memory[at + line * prefetch::LINE]));
        }
    }
}
