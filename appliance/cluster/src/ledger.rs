//! The lifesize ledger of a router: how much each SA protected, on all nodes together (R21-R23, I3).
//!
//! Nodes report what they used since their boot. So a report that is lost or comes twice does no harm, and what a dead
//! boot reported stays counted when its successor starts at nought.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_wire::SaId;

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Use {
    /// Packets.
    pub packets: u64,
    /// Bytes of ESP payload.
    pub bytes: u64,
    /// Packets whose ICV was bad; no limit looks at them.
    pub failed: u64,
    /// Replays and too old ones; no limit looks at them.
    pub replayed: u64,
}

/// What a report crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossed {
    /// The soft limit: rekey.
    Soft,
    /// The hard limit: stop.
    Hard,
}

/// Of the hard limit, what each node may have used since its last report: it reports by a twentieth of it (R21).
const UNREPORTED: u64 = 20;

#[derive(Debug)]
struct Account {
    soft: u64,
    hard: u64,
    told: Option<Crossed>,
    /// Used by boots that are gone, and what a record brought.
    settled: Use,
    /// By node: its boot and what that boot reported.
    current: BTreeMap<u16, (u64, Use)>,
}

impl Account {
    /// What may have been used and is not reported yet.
    fn outstanding(&self) -> u64 {
        if self.hard == u64::MAX {
            return 0;
        }
        (self.hard / UNREPORTED).saturating_mul(self.current.len() as u64)
    }

    fn total(&self) -> Use {
        self.current.values().fold(self.settled, |sum, (_, used)| add(sum, *used))
    }
}

fn add(a: Use, b: Use) -> Use {
    Use {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
        failed: a.failed.saturating_add(b.failed),
        replayed: a.replayed.saturating_add(b.replayed),
    }
}

impl Use {
    fn max(self, other: Use) -> Use {
        Use {
            packets: self.packets.max(other.packets),
            bytes: self.bytes.max(other.bytes),
            failed: self.failed.max(other.failed),
            replayed: self.replayed.max(other.replayed),
        }
    }

    /// What was added to `before`, which is nowhere more.
    fn since(self, before: Use) -> Use {
        Use {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            failed: self.failed - before.failed,
            replayed: self.replayed - before.replayed,
        }
    }
}

/// The sums of all SAs.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<SaId, Account>,
    /// By node, over all SAs and boots.
    nodes: BTreeMap<u16, Use>,
    /// Whose use grew since somebody asked.
    grown: BTreeSet<SaId>,
}

impl Ledger {
    /// Starts an SA; `before` is what was used before this ledger knew it.
    pub fn add(&mut self, sa: SaId, soft: u64, hard: u64, before: Use) {
        let account = Account { soft, hard, told: None, settled: before, current: BTreeMap::new() };
        self.accounts.entry(sa).or_insert(account);
    }

    /// Forgets an SA; what it used.
    pub fn remove(&mut self, sa: SaId) -> Option<Use> {
        self.grown.remove(&sa);
        self.accounts.remove(&sa).map(|account| account.total())
    }

    /// A node's report. Numbers of one boot only grow, so an older report changes nothing.
    pub fn report(&mut self, node: u16, incarnation: u64, sa: SaId, used: Use) -> Option<Crossed> {
        let account = self.accounts.get_mut(&sa)?;
        let entry = account.current.entry(node).or_insert((incarnation, Use::default()));
        if entry.0 != incarnation {
            account.settled = add(account.settled, entry.1);
            *entry = (incarnation, Use::default());
        }
        let before = entry.1;
        entry.1 = before.max(used);
        if entry.1 != before {
            self.grown.insert(sa);
        }
        let of_node = self.nodes.entry(node).or_default();
        *of_node = add(*of_node, entry.1.since(before));
        let total = account.total().bytes;
        // I3: nobody may find out afterwards that it was exceeded.
        let crossed = match total {
            total if total.saturating_add(account.outstanding()) >= account.hard => Crossed::Hard,
            total if total >= account.soft => Crossed::Soft,
            _ => return None,
        };
        // Each is told once.
        if account.told == Some(crossed) || account.told == Some(Crossed::Hard) {
            return None;
        }
        account.told = Some(crossed);
        Some(crossed)
    }

    /// What an SA used, as far as reported.
    #[must_use]
    pub fn total(&self, sa: SaId) -> Option<Use> {
        self.accounts.get(&sa).map(Account::total)
    }

    /// Whose use grew since this was last asked.
    pub fn take_grown(&mut self) -> BTreeSet<SaId> {
        std::mem::take(&mut self.grown)
    }

    /// What each node's present boot used of an SA.
    pub fn shares(&self, sa: SaId) -> impl Iterator<Item = (u16, Use)> + '_ {
        let current = self.accounts.get(&sa).into_iter().flat_map(|account| &account.current);
        current.map(|(node, (_, used))| (*node, *used))
    }

    /// What a node used of all SAs, also of those that are gone.
    #[must_use]
    pub fn of_node(&self, node: u16) -> Use {
        self.nodes.get(&node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SA: SaId = SaId(7);

    fn used(bytes: u64) -> Use {
        Use { packets: bytes / 100, bytes, failed: bytes / 200, replayed: 0 }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add(SA, 1000, 2000, Use::default());
        ledger
    }

    #[test]
    fn the_sum_over_nodes_reaches_the_limits_and_each_is_told_once() {
        let mut ledger = ledger();
        assert_eq!(ledger.report(0, 1, SA, used(600)), None);
        assert_eq!(ledger.report(1, 1, SA, used(400)), Some(Crossed::Soft));
        assert_eq!(ledger.report(1, 1, SA, used(500)), None);
        assert_eq!(ledger.report(0, 1, SA, used(1500)), Some(Crossed::Hard));
        assert_eq!(ledger.report(0, 1, SA, used(1600)), None);
        assert_eq!(ledger.total(SA), Some(used(2100)));
    }

    #[test]
    fn what_nodes_may_not_have_told_yet_counts_as_used_up() {
        let mut ledger = Ledger::default();
        ledger.add(SA, 1000, 2000, Use::default());
        assert_eq!(ledger.report(0, 1, SA, used(900)), None);
        // Each of the two may be a twentieth further.
        assert_eq!(ledger.report(1, 1, SA, used(890)), Some(Crossed::Soft));
        assert_eq!(ledger.report(1, 1, SA, used(900)), Some(Crossed::Hard));
    }

    #[test]
    fn repeated_and_reordered_reports_change_nothing() {
        let mut ledger = ledger();
        ledger.report(0, 1, SA, used(500));
        ledger.report(0, 1, SA, used(500));
        ledger.report(0, 1, SA, used(300));
        assert_eq!(ledger.total(SA), Some(used(500)));
    }

    #[test]
    fn a_restarted_target_adds_to_what_the_dead_one_used() {
        let mut ledger = ledger();
        ledger.report(0, 1, SA, used(500));
        ledger.report(0, 2, SA, used(200));
        assert_eq!(ledger.total(SA), Some(used(700)));
    }

    #[test]
    fn a_node_is_known_by_what_it_did_on_all_sas_and_in_all_boots() {
        let mut ledger = ledger();
        ledger.add(SaId(8), 1000, 2000, used(300));
        ledger.report(0, 1, SA, used(400));
        ledger.report(0, 1, SA, used(200));
        ledger.report(0, 1, SaId(8), used(600));
        ledger.report(0, 2, SA, used(200));
        ledger.report(1, 1, SA, used(800));
        assert_eq!((ledger.of_node(0), ledger.of_node(1), ledger.of_node(2)), (used(1200), used(800), used(0)));
        assert_eq!(ledger.shares(SA).collect::<Vec<_>>(), [(0, used(200)), (1, used(800))]);
        ledger.remove(SA);
        assert_eq!((ledger.of_node(0), ledger.shares(SA).count()), (used(1200), 0));
    }

    #[test]
    fn sums_do_not_wrap() {
        let mut ledger = ledger();
        ledger.report(0, 1, SA, used(u64::MAX));
        ledger.report(1, 1, SA, used(u64::MAX));
        assert_eq!(ledger.total(SA).map(|used| used.bytes), Some(u64::MAX));
    }

    #[test]
    fn the_hard_limit_may_be_crossed_before_the_soft_one_was_told() {
        let mut ledger = ledger();
        assert_eq!(ledger.report(0, 1, SA, used(5000)), Some(Crossed::Hard));
    }
}
