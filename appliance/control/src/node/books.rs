//! What the control core remembers of what it gave to the poll cores.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use phalanx_cluster::messages::RankedFilter;
use phalanx_ipsec::{Direction, FilterTable, SaParams, SaShared, WindowSnapshot};
use phalanx_wire::{CoreId, SaId, VipId};

/// One SA on this node.
pub struct SaEntry {
    /// As it was configured or came from the router.
    pub params: Arc<SaParams>,
    /// Counters and window of each core that holds it; written there, read here.
    pub shared: Vec<(CoreId, Arc<SaShared>)>,
    /// Held as its router.
    pub router: bool,
    /// Held as a target.
    pub target: bool,
}

/// Packets, bytes and failures of an SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Protected or verified.
    pub packets: u64,
    /// Bytes of ESP payload of them.
    pub bytes: u64,
    /// Bad ICVs.
    pub failed: u64,
    /// Replays and too old ones.
    pub replayed: u64,
}

impl SaEntry {
    /// The sum over the cores that `count` chooses.
    pub fn used(&self, count: impl Fn(CoreId) -> bool) -> Used {
        let mut used = Used::default();
        for (_, shared) in self.shared.iter().filter(|(core, _)| count(*core)) {
            used.packets += shared.packets();
            used.bytes += shared.bytes();
            used.failed += shared.failed();
            used.replayed += shared.replayed();
        }
        used
    }

    /// The highest number verified or sent by any core of this node.
    pub fn edge(&self) -> u64 {
        let edge = |shared: &SaShared| {
            let window = |w: Option<&Arc<phalanx_ipsec::SharedWindow>>| w.map_or(0, |w| w.edge());
            window(shared.window()).max(window(shared.verified())).max(shared.highest_sent())
        };
        self.shared.iter().map(|(_, shared)| edge(shared)).max().unwrap_or(0)
    }

    /// The window of each core that `count` chooses; outbound SAs have none.
    pub fn windows(&self, count: impl Fn(CoreId) -> bool) -> Vec<WindowSnapshot> {
        if self.params.direction == Direction::Outbound {
            return Vec::new();
        }
        let windows = self.shared.iter().filter(|(core, _)| count(*core)).filter_map(|(_, shared)| shared.window());
        windows.map(|window| window.snapshot()).collect()
    }
}

/// All SAs of this node by id.
#[derive(Default)]
pub struct SaBook(BTreeMap<SaId, SaEntry>);

impl SaBook {
    /// Notes that an SA is held as router or as target; the entry, for its cores to be added.
    pub fn hold(&mut self, params: &Arc<SaParams>, router: bool) -> &mut SaEntry {
        let fresh = || SaEntry { params: params.clone(), shared: Vec::new(), router: false, target: false };
        let entry = self.0.entry(params.id).or_insert_with(fresh);
        if router {
            entry.router = true
        } else {
            entry.target = true
        }
        entry
    }

    /// No longer held in that role; true when it is held in none and gone.
    pub fn release(&mut self, sa: SaId, router: bool) -> bool {
        let Some(entry) = self.0.get_mut(&sa) else { return true };
        if router {
            entry.router = false
        } else {
            entry.target = false
        }
        let gone = !entry.router && !entry.target;
        if gone {
            self.0.remove(&sa);
        }
        gone
    }

    /// One of them.
    pub fn find(&self, sa: SaId) -> Option<&SaEntry> {
        self.0.get(&sa)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&SaId, &SaEntry)> {
        self.0.iter()
    }
}

/// Where a rule came from: a VIP's definition or an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSource {
    /// Standing rules.
    Vip(VipId),
    /// Dynamic rules (R2).
    Sa(SaId),
}

/// All rules of this node, whoever they came from.
#[derive(Default)]
pub struct FilterBook(HashMap<RuleSource, Vec<RankedFilter>>);

impl FilterBook {
    /// Replaces what came from there; whether the table is another one now.
    pub fn set(&mut self, source: RuleSource, rules: Vec<RankedFilter>) -> bool {
        if rules.is_empty() {
            return self.0.remove(&source).is_some();
        }
        self.0.insert(source, rules.clone()).is_none_or(|old| old != rules)
    }

    /// The table for a core, by rank.
    pub fn table(&self) -> FilterTable {
        let mut all: Vec<&RankedFilter> = self.0.values().flatten().collect();
        all.sort_by_key(|f| f.rank);
        FilterTable::new(all.into_iter().map(|f| f.filter).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_ipsec::{Action, Filter, Prefix, Selectors};

    fn rule(rank: u32, action: Action) -> RankedFilter {
        let selectors = Selectors::between("10.0.0.1".parse().unwrap(), Prefix::ANY_V4);
        RankedFilter { rank, filter: Filter { vip: VipId(1), selectors, action, log: false } }
    }

    #[test]
    fn rules_stand_by_rank_whatever_their_order_of_arrival() {
        let mut book = FilterBook::default();
        assert!(book.set(RuleSource::Sa(SaId(7)), vec![rule(9, Action::Permit)]));
        assert!(book.set(RuleSource::Vip(VipId(1)), vec![rule(1, Action::Deny)]));
        let actions: Vec<Action> = book.table().filters().iter().map(|f| f.action).collect();
        assert_eq!(actions, [Action::Deny, Action::Permit]);
    }

    #[test]
    fn the_same_rules_again_change_nothing() {
        let mut book = FilterBook::default();
        assert!(book.set(RuleSource::Sa(SaId(7)), vec![rule(9, Action::Permit)]));
        assert!(!book.set(RuleSource::Sa(SaId(7)), vec![rule(9, Action::Permit)]));
        assert!(book.set(RuleSource::Sa(SaId(7)), vec![]));
        assert!(!book.set(RuleSource::Sa(SaId(7)), vec![]));
    }
}
