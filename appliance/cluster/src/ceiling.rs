//! What is durable of the numbers accepted on an inbound SA (ARCHITECTURE, "Inbound replay"; I2).
//!
//! A router may accept (open a SYN, deliver to itself) only numbers up to a *ceiling* that is durable. After a restart it
//! refuses everything up to max(ceiling, its targets' edges), so nothing it accepted before is accepted again.
//!
//! Targets do not wait for anything durable, and their windows die with them. So that a router which restarts together
//! with them still knows what they may have accepted, the numbers they *reached* are made durable too, far ahead. Only
//! what targets take is refused up to there: TCP without SYN, of connections that nobody knows any more.

/// How far the ceiling is raised ahead at least.
pub const HEADROOM: u64 = 32;
/// And at most: after a restart so many packets of a peer may be refused that began nothing yet.
pub const HEADROOM_MAX: u64 = 1024;
/// How far ahead of its targets' edges a router makes durable what they reached. Half of it is more than they accept
/// before their reports are durable.
pub const REACH: u64 = 65_536;
/// What counts as recent.
const RECENT_US: u64 = 1_000_000;

/// The ceiling of one inbound SA.
#[derive(Debug, Clone)]
pub struct Ceiling {
    durable: u64,
    edges: u64,
    asked: Option<u64>,
    at: u64,
    /// When the recent past began, and with which number.
    recent: Option<(u64, u64)>,
    armed: bool,
}

impl Ceiling {
    /// With what the coupling facility holds: 0 for a new SA.
    #[must_use]
    pub fn new(durable: u64) -> Self {
        Self { durable, edges: 0, asked: None, at: durable, recent: None, armed: false }
    }

    /// The router's cores know the floor: from now on, and not before, they may accept up to the ceiling.
    pub fn arm(&mut self) {
        self.armed = true;
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
        if !self.armed {
            return None;
        }
        let (since, from) = *self.recent.get_or_insert((now, at));
        let passed = now.saturating_sub(since);
        let a_second = u128::from(at.saturating_sub(from)) * u128::from(RECENT_US) / u128::from(passed.max(RECENT_US));
        if passed >= RECENT_US {
            self.recent = Some((now, at));
        }
        let ahead = u64::try_from(2 * a_second).unwrap_or(u64::MAX);
        let ahead = ahead.clamp(HEADROOM, HEADROOM_MAX);
        let to = at.saturating_add(ahead);
        // Half of the headroom is still there: it can wait.
        if to <= self.durable.max(self.asked.unwrap_or(0)) || at.saturating_add(ahead / 2) <= self.durable {
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
        let risen = value > self.durable;
        self.durable = self.durable.max(value);
        (risen && self.armed).then_some(value)
    }

    /// The store did not answer: the next wish asks again. At which number the router was.
    pub fn failed(&mut self) -> u64 {
        self.asked = None;
        self.at
    }
}

/// What the targets of one inbound SA reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// When this router began: no target accepted more then.
    before: u64,
    durable: u64,
    asked: Option<u64>,
}

impl Reached {
    /// With what the coupling facility holds: 0 for a new SA.
    #[must_use]
    pub fn new(durable: u64) -> Self {
        Self { before: durable, durable, asked: None }
    }

    /// What targets that nobody hears of any more may have accepted.
    #[must_use]
    pub fn before(&self) -> u64 {
        self.before
    }

    /// A target's window has this edge: what to raise the durable number to, unless that is under way or done.
    pub fn want(&mut self, edge: u64) -> Option<u64> {
        if edge.saturating_add(REACH / 2) <= self.durable.max(self.asked.unwrap_or(0)) {
            return None;
        }
        self.asked = Some(edge.saturating_add(REACH));
        self.asked
    }

    /// The store answered, or did not: then the next report asks again.
    pub fn answered(&mut self, value: Option<u64>) {
        self.asked = None;
        self.durable = self.durable.max(value.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(durable: u64) -> Ceiling {
        let mut ceiling = Ceiling::new(durable);
        ceiling.arm();
        ceiling
    }

    #[test]
    fn a_new_sa_gets_the_smallest_headroom() {
        let mut ceiling = armed(0);
        assert_eq!(ceiling.want(0, 0), Some(32));
        assert_eq!(ceiling.want(0, 1), None, "it is under way");
        assert_eq!(ceiling.raised(32), Some(32));
        assert_eq!(ceiling.want(15, 2), None, "half is still there");
        assert_eq!(ceiling.want(17, 3), Some(51));
    }

    #[test]
    fn a_fast_sa_is_raised_further_ahead() {
        let mut ceiling = armed(0);
        assert_eq!(ceiling.want(100, 0), Some(132));
        assert_eq!(ceiling.raised(132), Some(132));
        assert_eq!(ceiling.want(400, 1_500_000), Some(800));
        assert_eq!(ceiling.raised(800), Some(800));
        assert_eq!(ceiling.want(1_000_400, 3_000_000), Some(1_001_424), "but not too far");
        assert_eq!(ceiling.want(u64::MAX - 3, 4_000_000), Some(u64::MAX), "it never wraps");
    }

    #[test]
    fn a_long_rest_and_a_restart_are_not_taken_for_speed() {
        let mut ceiling = armed(50);
        // What the targets reached while the router was away.
        assert_eq!(ceiling.want(70_000, 10), Some(70_032));
        assert_eq!(ceiling.raised(70_032), Some(70_032));
        assert_eq!(ceiling.want(73_600, 3_600_000_010), Some(73_632), "one packet a second");
    }

    #[test]
    fn nothing_may_be_accepted_before_the_floor_is_known() {
        let mut ceiling = Ceiling::new(64);
        assert_eq!(ceiling.want(64, 0), None);
        ceiling.arm();
        assert_eq!(ceiling.want(64, 0), Some(96));
    }

    #[test]
    fn what_targets_reached_is_durable_long_before_they_get_there() {
        let mut reached = Reached::new(0);
        assert_eq!(reached.want(0), Some(65_536));
        assert_eq!(reached.want(100), None, "it is under way");
        reached.answered(Some(65_536));
        assert_eq!(reached.want(32_768), None);
        assert_eq!(reached.want(32_769), Some(98_305));
        reached.answered(None);
        assert_eq!(reached.want(32_770), Some(98_306), "the store failed");
        assert_eq!(reached.before(), 0);
        assert_eq!(Reached::new(98_306).before(), 98_306);
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
        let mut ceiling = armed(0);
        assert_eq!(ceiling.want(0, 0), Some(32));
        ceiling.failed();
        assert_eq!(ceiling.want(0, 1), Some(32));
    }
}
