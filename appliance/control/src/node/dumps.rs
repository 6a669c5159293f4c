//! Tables of the cores, read piece by piece: a core fills a bounded piece between two bursts, control asks for the next.

use std::collections::HashMap;

use phalanx_dataplane::Command;
use phalanx_dataplane::command::{ConnRow, DumpRequest, DumpWhat, LeaseRow, NeighbourRow};
use phalanx_wire::CoreId;

use super::cores::Cores;

/// Rows of one piece.
const PIECE: usize = 256;

/// Everything that was asked for, with the core it came from.
#[derive(Debug, Default)]
pub struct Rows {
    /// Of [`DumpWhat::Routed`].
    pub routed: Vec<(CoreId, ConnRow)>,
    /// Of [`DumpWhat::Tracked`].
    pub tracked: Vec<(CoreId, ConnRow)>,
    /// Of [`DumpWhat::Leases`].
    pub leases: Vec<(CoreId, LeaseRow)>,
    /// Of [`DumpWhat::Neighbours`].
    pub neighbours: Vec<(CoreId, NeighbourRow)>,
}

struct Job<T> {
    rows: Rows,
    waiting: usize,
    /// Who asked.
    purpose: T,
}

/// All readings under way; `T` says who gets the rows.
pub struct Dumps<T> {
    jobs: HashMap<u64, Job<T>>,
    /// A core's answer carries the token of its order, which leads to the job.
    tokens: HashMap<u64, u64>,
    next: u64,
}

impl<T> Default for Dumps<T> {
    fn default() -> Self {
        Dumps { jobs: HashMap::new(), tokens: HashMap::new(), next: 0 }
    }
}

impl<T> Dumps<T> {
    /// Starts reading `what` of each core. With nothing to read the answer is immediate.
    pub fn start(&mut self, cores: &mut Cores, wanted: &[(CoreId, DumpWhat)], purpose: T) -> Option<(T, Rows)> {
        if wanted.is_empty() {
            return Some((purpose, Rows::default()));
        }
        let job = self.next;
        self.next += 1;
        self.jobs.insert(job, Job { rows: Rows::default(), waiting: wanted.len(), purpose });
        for &(core, what) in wanted {
            let token = cores.ask(core, Command::Dump(DumpRequest::new(what, PIECE)));
            self.tokens.insert(token, job);
        }
        None
    }

    /// A piece came. The answer is everything, once the last piece of the last core is there.
    pub fn piece(
        &mut self,
        cores: &mut Cores,
        core: CoreId,
        token: u64,
        mut dump: Box<DumpRequest>,
    ) -> Option<(T, Rows)> {
        let id = self.tokens.remove(&token)?;
        let job = self.jobs.get_mut(&id)?;
        let rows = &mut job.rows;
        match dump.what {
            DumpWhat::Routed => rows.routed.extend(dump.connections.drain(..).map(|row| (core, row))),
            DumpWhat::Tracked => rows.tracked.extend(dump.connections.drain(..).map(|row| (core, row))),
            DumpWhat::Leases => rows.leases.extend(dump.leases.drain(..).map(|row| (core, row))),
            DumpWhat::Neighbours => rows.neighbours.extend(dump.neighbours.drain(..).map(|row| (core, row))),
        }
        if !dump.complete {
            let token = cores.ask(core, Command::Dump(dump));
            self.tokens.insert(token, id);
            return None;
        }
        job.waiting -= 1;
        if job.waiting > 0 {
            return None;
        }
        let Job { rows, purpose, .. } = self.jobs.remove(&id)?;
        Some((purpose, rows))
    }
}
