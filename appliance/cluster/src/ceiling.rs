//! The durable ceiling of what a router accepted itself on an inbound SA (DESIGN, "Inbound replay"; I2).
//!
//! A router may accept (open a SYN, deliver to itself) only numbers up to a ceiling that is durable. After a restart it
//! refuses everything up to max(ceiling, its targets' edges), so nothing it accepted before is accepted again.

/// How far the ceiling is raised ahead at least.
pub const HEADROOM: u64 = 32;
/// And at most.
pub const HEADROOM_MAX: u64 = 65_536;
/// What counts as recent.
const RECENT_US: u64 = 1_000_000;

/// The ceiling of one inbound SA.
#[derive(Debug, Clone)]
pub struct Ceiling {
    durable: u64,
    edges: u64,
    asked: Option<u64>,
    at: u64,
    recent_from: u64,
    recent_at: u64,
}

impl Ceiling {
    /// With what the coupling facility holds: 0 for a new SA.
    #[must_use]
    pub fn new(durable: u64) -> Self {
        Self { durable, edges: 0, asked: None, at: durable, recent_from: durable, recent_at: 0 }
    }

    /// A target's window has this edge.
    pub fn note_edge(&mut self, edge: u64) {
        self.edges = self.edges.max(edge);
    }

    /// What a restarted router refuses: everything up to this number.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.durable.max(self.edges)
    }

    /// What is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The router works at number `at`: what to raise the ceiling to, unless that is under way or done.
    /// Ahead by max(32, 2 × what was accepted in the last second), so that the store is asked a few times a second at most.
    pub fn want(&mut self, at: u64, now: u64) -> Option<u64> {
        let recent = at.saturating_sub(self.recent_from);
        if now.saturating_sub(self.recent_at) >= RECENT_US {
            (self.recent_from, self.recent_at) = (at, now);
        }
        let to = at.saturating_add((2 * recent.min(HEADROOM_MAX)).clamp(HEADROOM, HEADROOM_MAX));
        // Half of the headroom is still there: it can wait.
        if to <= self.durable.max(self.asked.unwrap_or(0)) || at.saturating_add(HEADROOM / 2) <= self.durable {
            return None;
        }
        (self.asked, self.at) = (Some(to), at);
        Some(to)
    }

    /// The store answered; the new ceiling if it rose.
    pub fn raised(&mut self, value: u64) -> Option<u64> {
        if self.asked.is_some_and(|asked| asked <= value) {
            self.asked = None;
        }
        (value > self.durable).then(|| {
            self.durable = value;
            value
        })
    }

    /// The store did not answer: the next wish asks again. At which number the router was.
    pub fn failed(&mut self) -> u64 {
        self.asked = None;
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sa_gets_the_smallest_headroom() {
        let mut ceiling = Ceiling::new(0);
        assert_eq!(ceiling.want(0, 0), Some(32));
        assert_eq!(ceiling.want(0, 1), None, "it is under way");
        assert_eq!(ceiling.raised(32), Some(32));
        assert_eq!(ceiling.want(15, 2), None, "half is still there");
        assert_eq!(ceiling.want(17, 3), Some(51));
    }

    #[test]
    fn a_fast_sa_is_raised_further_ahead() {
        let mut ceiling = Ceiling::new(0);
        assert_eq!(ceiling.want(10_000, 10), Some(30_000));
        assert_eq!(ceiling.raised(30_000), Some(30_000));
        assert_eq!(ceiling.want(u64::MAX - 3, 2_000_000), Some(u64::MAX), "it never wraps");
    }

    #[test]
    fn the_floor_is_the_greater_of_ceiling_and_edges() {
        let mut ceiling = Ceiling::new(64);
        assert_eq!(ceiling.floor(), 64);
        ceiling.note_edge(900);
        ceiling.note_edge(70);
        assert_eq!(ceiling.floor(), 900);
    }

    #[test]
    fn a_store_that_did_not_answer_is_asked_again() {
        let mut ceiling = Ceiling::new(0);
        assert_eq!(ceiling.want(0, 0), Some(32));
        ceiling.failed();
        assert_eq!(ceiling.want(0, 1), Some(32));
    }
}
