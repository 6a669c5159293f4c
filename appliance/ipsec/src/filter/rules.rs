//! The rules that one table is made of, as all cores of a process share them: by number, and a tree for each list that is asked.

use std::collections::{BTreeMap, HashMap};

use phalanx_wire::VipId;

use super::tree::Tree;
use super::{Filter, Verdict};
use crate::Selectors;

#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) filters: Box<[Filter]>,
    /// By rule, in two bytes, what each packet asks for.
    pub(super) heads: Box<[(Verdict, bool)]>,
    /// By rule: its place among its router's rules.
    pub(super) ranks: Box<[u32]>,
    /// By rule, apart, so that a look takes one place in memory.
    pub(super) selectors: Box<[Selectors]>,
    /// By VIP, ascending: its list, and the list of all rules of its router.
    vips: Box<[(VipId, u16, u16)]>,
    pub(super) lists: Box<[Tree]>,
    /// By list: the VIPs whose rules are in it, had they any.
    members: Box<[Vec<VipId>]>,
    /// Also of VIPs that have no rules.
    pub(super) one_router: bool,
}

impl Rules {
    /// See [`super::FilterTable::ranked`].
    pub(super) fn new(rules: Vec<(u32, Filter)>, vips: &[(VipId, usize)], one_router: bool) -> Rules {
        let mut made = Rules::numbered(rules, one_router);
        let mut by_vip: BTreeMap<VipId, Vec<u32>> = vips.iter().map(|(vip, _)| (*vip, Vec::new())).collect();
        for (filter, at) in made.filters.iter().zip(0..) {
            by_vip.entry(filter.vip).or_default().push(at);
        }
        let routers: HashMap<VipId, usize> = vips.iter().copied().collect();
        let mut by_router: BTreeMap<Option<usize>, Vec<(VipId, Vec<u32>)>> = BTreeMap::new();
        for (vip, rules) in by_vip {
            by_router.entry(routers.get(&vip).copied()).or_default().push((vip, rules));
        }
        let (mut lists, mut members, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for of_router in by_router.into_values() {
            let mut all: Vec<u32> = of_router.iter().flat_map(|(_, rules)| rules).copied().collect();
            all.sort_unstable();
            let (together, count) = (lists.len() as u16, all.len());
            lists.push(Tree::new(&made.selectors, all));
            members.push(of_router.iter().map(|(vip, _)| *vip).collect());
            for (vip, rules) in of_router {
                // One with all rules there are needs no list of its own.
                let own = if rules.len() == count { together } else { lists.len() as u16 };
                if own != together {
                    lists.push(Tree::new(&made.selectors, rules));
                    members.push(vec![vip]);
                }
                places.push((vip, own, together));
            }
        }
        places.sort_unstable();
        (made.vips, made.lists, made.members) = (places.into(), lists.into(), members.into());
        made
    }

    /// Without lists.
    fn numbered(rules: Vec<(u32, Filter)>, one_router: bool) -> Rules {
        let (ranks, filters): (Vec<u32>, Vec<Filter>) = rules.into_iter().unzip();
        let heads = filters.iter().map(|filter| (Verdict::from(&filter.action), filter.log)).collect();
        let selectors = filters.iter().map(|filter| filter.selectors).collect();
        Rules { filters: filters.into(), heads, ranks: ranks.into(), selectors, one_router, ..Rules::default() }
    }

    /// Further rules, in lists of the same numbers. None: a VIP that they are not of would find them in its own list, which is also
    /// that of all, or there is no such VIP.
    pub(super) fn behind(&self, mut newer: Vec<(u32, Filter)>) -> Option<Rules> {
        newer.sort_by_key(|(rank, _)| *rank);
        let mut made = Rules::numbered(newer, self.one_router);
        let mut known: Vec<VipId> = made.filters.iter().map(|filter| filter.vip).collect();
        known.sort_unstable();
        known.dedup();
        let apart = |of: VipId| {
            let others =
                |(vip, own, _): &(VipId, u16, u16)| *vip == of || !self.members[usize::from(*own)].contains(&of);
            self.lists_of(of).is_some() && self.vips.iter().all(others)
        };
        if !known.into_iter().all(apart) {
            return None;
        }
        let list = |members: &Vec<VipId>| {
            let theirs = made.filters.iter().zip(0..).filter(|(filter, _)| members.contains(&filter.vip));
            Tree::new(&made.selectors, theirs.map(|(_, at)| at).collect())
        };
        made.lists = self.members.iter().map(list).collect();
        Some(made)
    }

    pub(super) fn len(&self) -> usize {
        self.filters.len()
    }

    #[inline]
    pub(super) fn lists_of(&self, vip: VipId) -> Option<(VipId, u16, u16)> {
        let at = self.vips.binary_search_by_key(&vip, |(vip, ..)| *vip).ok()?;
        Some(self.vips[at])
    }

    /// No packet takes more steps.
    pub(super) fn worst(&self) -> u32 {
        self.lists.iter().map(Tree::worst).max().unwrap_or(0)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(|list| size_of_val(list) + list.bytes()).sum();
        size_of_val(&*self.filters) + size_of_val(&*self.ranks) + size_of_val(&*self.selectors) + lists
    }
}
