//! Filters: the SPD as an ordered list, first match decides (RFC 4301 §4.4.1, R4, R16, R17).
//!
//! The order is what the operator sees. A look-up goes through a tree that is made of the rules when they change, with
//! what was found for the flows of late in front of it: see the modules below.

mod flows;
mod prefixes;
mod rules;
mod tree;

use std::cell::Cell;
use std::sync::Arc;

use phalanx_wire::VipId;
use serde::{Deserialize, Serialize};

use self::flows::{At, Beside, Key};
pub use self::flows::{Flows, SoughtFlow};
use self::rules::Rules;
use self::tree::{Meter, NOTHING};
use crate::cache::{ShadowCache, TunnelIndex};
use crate::{Selectors, Subject, TunnelName};

/// Rules that may make a packet take more steps than this to look up are not for a fast path: see [`FilterTable::worst`].
pub const MANY_STEPS: u32 = 1024;

/// What happens to a packet that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Pass in clear.
    Permit,
    /// Drop.
    Deny,
    /// Only through this tunnel's SAs, in both directions.
    Protect(TunnelName),
}

impl From<&Action> for Verdict {
    fn from(action: &Action) -> Verdict {
        match action {
            Action::Permit => Verdict::Permit,
            Action::Deny => Verdict::Deny,
            Action::Protect(_) => Verdict::Protect,
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Whose packets.
    pub vip: VipId,
    /// Which of them.
    pub selectors: Selectors,
    /// What to do.
    pub action: Action,
    /// Log the connection (R16).
    pub log: bool,
}

/// The rules of one core in order. Replaced as a whole, never changed in place.
///
/// The rules themselves are shared by all cores of a process; what a core finds out for itself is its own. A new table
/// remembers no flows until it is given memory to: see [`FilterTable::remembering`].
#[derive(Clone, Debug)]
pub struct FilterTable {
    rules: Arc<Rules>,
    /// Those that came since: their numbers go on behind.
    newer: Arc<Rules>,
    /// By rule: the tunnel it leads to, once its first packet asked for it.
    tunnels: Box<[Cell<Option<TunnelIndex>>]>,
    flows: Flows,
}

/// What a packet of ours is told by the rules: [`FilterTable::way_out`].
#[derive(Clone, Copy, Debug)]
pub struct WayOut {
    /// The rule, for [`FilterTable::filter`] and [`FilterTable::tunnel`].
    pub rule: usize,
    /// What it does, but for the tunnel's name.
    pub verdict: Verdict,
    /// It asks for a log entry.
    pub log: bool,
    /// The flow is a new one, as far as is remembered.
    pub new: bool,
    /// Where it is remembered, and what with it.
    flow: Option<At>,
    beside: Beside,
}

/// What is remembered of the way of a flow that goes through a tunnel: [`FilterTable::known_way`].
#[derive(Clone, Copy, Debug)]
pub struct KnownWay {
    /// The tunnel.
    pub tunnel: TunnelIndex,
    /// Its rule asks for a log entry.
    pub log: bool,
    /// Of the outbound SA that its packets were found to fit; SAs count from 1.
    pub serial: u32,
    /// Where its connection was last, as [`FilterTable::set_connection`] was told; it may have gone.
    pub connection: Option<u32>,
}

/// [`Action`] without the tunnel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass in clear.
    Permit,
    /// Drop.
    Deny,
    /// Through a tunnel.
    Protect,
}

impl FilterTable {
    /// Rules in the order in which they are tried, all of one router, as all VIPs are.
    #[must_use]
    pub fn new(filters: Vec<Filter>) -> FilterTable {
        FilterTable::made((0..).zip(filters).collect(), &[], true)
    }

    /// Rules with their ranks, in the order in which they are tried, and all VIPs there are, each with a number of its
    /// router.
    ///
    /// Takes 4 to 8 µs for each rule and some 360 bytes; at most some 15 kB for a rule, of sets made for it.
    #[must_use]
    pub fn ranked(rules: Vec<(u32, Filter)>, vips: &[(VipId, usize)]) -> FilterTable {
        FilterTable::made(rules, vips, false)
    }

    fn made(rules: Vec<(u32, Filter)>, vips: &[(VipId, usize)], one_router: bool) -> FilterTable {
        FilterTable::of(Arc::new(Rules::new(rules, vips, one_router)), Rules::default())
    }

    fn of(rules: Arc<Rules>, newer: Rules) -> FilterTable {
        let tunnels = vec![Cell::new(None); rules.len() + newer.len()].into();
        FilterTable { rules, newer: Arc::new(newer), tunnels, flows: Flows::new(0) }
    }

    /// These rules, and others that came since, which have ranks too: a packet asks both, and the lower rank decides. Takes what
    /// making a table of the newer ones takes, however many there were before. Of a table that has newer ones already these take
    /// their place. None: there are VIPs that the new ones make a difference to in a way that only a whole table knows.
    #[must_use]
    pub fn extended(&self, newer: Vec<(u32, Filter)>) -> Option<FilterTable> {
        Some(FilterTable::of(self.rules.clone(), self.rules.behind(newer)?))
    }

    /// With memory for flows.
    #[must_use]
    pub fn remembering(mut self, flows: Flows) -> FilterTable {
        self.flows = flows.renewed();
        self
    }

    /// Takes over the memory of the table that it replaces; allocates nothing.
    pub fn succeed(&mut self, old: &mut FilterTable) {
        self.flows = std::mem::replace(&mut old.flows, Flows::new(0)).renewed();
    }

    /// A number that changes with each [`FilterTable::succeed`].
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.flows.generation()
    }

    /// What the rules of all VIPs of that VIP's router will be asked about a packet of ours; asks memory for what that compares
    /// first. Then [`FilterTable::flow_ahead`], then [`FilterTable::way_out`].
    #[inline(always)]
    #[must_use]
    pub fn seek_way_out(&self, vip: VipId, subject: &Subject) -> Option<SoughtFlow> {
        let together = self.together(vip)?;
        Some(self.flows.seek(together, Key::new(together, subject)))
    }

    /// Asks memory for the answer.
    #[inline]
    pub fn flow_ahead(&self, sought: &SoughtFlow) {
        self.flows.entry_ahead(sought);
    }

    /// How many flows it may remember.
    #[must_use]
    pub fn remembers(&self) -> usize {
        self.flows.room()
    }

    /// The first rule of this VIP that matches.
    #[must_use]
    pub fn lookup(&self, vip: VipId, subject: &Subject) -> Option<&Filter> {
        self.find(vip, subject).map(|at| self.filter(at))
    }

    /// The index of the first rule that matches, for [`FilterTable::tunnel`].
    #[inline]
    #[must_use]
    pub fn find(&self, vip: VipId, subject: &Subject) -> Option<usize> {
        self.seek(vip, subject).0
    }

    /// As [`FilterTable::find`], and whether the flow is a new one, as far as is remembered.
    #[inline]
    #[must_use]
    pub fn seek(&self, vip: VipId, subject: &Subject) -> (Option<usize>, bool) {
        match self.rules.lists_of(vip) {
            Some((_, list, _)) => self.find_in(list, subject),
            None => (None, false),
        }
    }

    /// What they say; none matches: `None`.
    #[inline]
    #[must_use]
    pub fn way_out(&self, sought: &SoughtFlow, subject: &Subject) -> Option<WayOut> {
        let (found, flow, new) = match self.flows.get_sought(sought) {
            Some((found, at)) => (found, Some(at), false),
            None => {
                let found = self.first(sought.list, subject, &mut ());
                (found, self.flows.put(sought.key, found), true)
            }
        };
        let rule = (found != NOTHING).then_some(found as usize)?;
        let mut beside = flow.and_then(|flow| self.flows.beside(flow)).unwrap_or(Beside::NOTHING);
        let head = beside.leads.head().unwrap_or_else(|| self.head(rule));
        if beside.leads.head().is_none() {
            beside.leads = beside.leads.with_head(head);
            flow.into_iter().for_each(|flow| self.flows.set_beside(flow, beside));
        }
        let (verdict, log) = head;
        Some(WayOut { rule, verdict, log, new, flow, beside })
    }

    /// What [`FilterTable::way_out`] and those behind it found of an earlier packet of the flow, if that went through a tunnel.
    #[inline]
    #[must_use]
    pub fn known_way(&self, sought: &SoughtFlow) -> Option<KnownWay> {
        let Beside { serial, leads, connection } = self.flows.beside_sought(sought)?;
        let (verdict, log) = leads.head()?;
        let tunnel = leads.tunnel().filter(|_| verdict == Verdict::Protect)?;
        Some(KnownWay { tunnel, log, serial, connection: Some(connection).filter(|at| *at != NOTHING) })
    }

    /// Where the connection of the flow is, in numbers of the caller's, or that it is nowhere: [`KnownWay::connection`] from now on.
    pub fn set_connection(&self, sought: &SoughtFlow, at: Option<u32>) {
        self.flows.set_connection(sought, at.unwrap_or(NOTHING));
    }

    /// The flow's packets fit the selectors of the outbound SA of this serial number: it was asked under these rules.
    #[inline]
    #[must_use]
    pub fn fits(&self, way: &WayOut, serial: u32) -> bool {
        way.beside.serial == serial
    }

    /// They do: not to be asked again.
    #[inline]
    pub fn set_fits(&self, way: &WayOut, serial: u32) {
        way.flow.into_iter().for_each(|flow| self.flows.set_beside(flow, Beside { serial, ..way.beside }));
    }

    /// As [`FilterTable::find`], for a packet that has proved nothing: what it is of is not remembered.
    #[inline]
    #[must_use]
    pub fn find_unproved(&self, vip: VipId, subject: &Subject) -> Option<usize> {
        let (_, list, _) = self.rules.lists_of(vip)?;
        let known = self.flows.get(&Key::new(list, subject)).map(|(found, _)| found);
        let found = known.unwrap_or_else(|| self.first(list, subject, &mut ()));
        (found != NOTHING).then_some(found as usize)
    }

    /// As [`FilterTable::seek`], among the rules of all VIPs of that VIP's router.
    #[inline]
    #[must_use]
    pub fn seek_together(&self, vip: VipId, subject: &Subject) -> (Option<usize>, bool) {
        self.together(vip).map_or((None, false), |together| self.find_in(together, subject))
    }

    /// The list of all rules of the VIP's router.
    #[inline]
    fn together(&self, vip: VipId) -> Option<u16> {
        match self.rules.lists_of(vip) {
            Some((_, _, together)) => Some(together),
            None => (self.rules.one_router && !self.rules.lists.is_empty()).then_some(0),
        }
    }

    /// The index of the rule, and whether the flow is a new one, as far as is remembered.
    #[inline]
    fn find_in(&self, list: u16, subject: &Subject) -> (Option<usize>, bool) {
        let key = Key::new(list, subject);
        let (found, new) = match self.flows.get(&key) {
            Some((found, _)) => (found, false),
            None => {
                let found = self.first(list, subject, &mut ());
                let _ = self.flows.put(key, found);
                (found, true)
            }
        };
        ((found != NOTHING).then_some(found as usize), new)
    }

    /// As [`FilterTable::find`], and how many steps it takes when the flow is a new one: each about one place in memory.
    #[must_use]
    pub fn find_counted(&self, vip: VipId, subject: &Subject) -> (Option<usize>, u32) {
        let Some((_, list, _)) = self.rules.lists_of(vip) else { return (None, 1) };
        let mut steps = 1;
        let found = self.first(list, subject, &mut steps);
        ((found != NOTHING).then_some(found as usize), steps)
    }

    /// No packet of a new flow takes more steps than this.
    #[must_use]
    pub fn worst(&self) -> u32 {
        self.rules.worst() + self.newer.worst() + 1
    }

    /// Memory of the rules, which cores share, and of one core's own, in bytes.
    #[must_use]
    pub fn bytes(&self) -> (usize, usize) {
        (self.rules.bytes() + self.newer.bytes(), size_of_val(&*self.tunnels) + self.flows.bytes())
    }

    /// The tunnel that its rule leads to; none before it had an SA.
    #[inline]
    #[must_use]
    pub fn tunnel(&self, way: &mut WayOut, cache: &ShadowCache) -> Option<TunnelIndex> {
        if let Some(tunnel) = way.beside.leads.tunnel() {
            return Some(tunnel);
        }
        // A number is good for the life of the cache.
        let tunnel = self.tunnel_of(way.rule, cache)?;
        way.beside.leads = way.beside.leads.to_tunnel(tunnel);
        way.flow.into_iter().for_each(|flow| self.flows.set_beside(flow, way.beside));
        Some(tunnel)
    }

    fn tunnel_of(&self, rule: usize, cache: &ShadowCache) -> Option<TunnelIndex> {
        let tunnel = self.tunnels.get(rule)?;
        if tunnel.get().is_none() {
            let filter = self.filter(rule);
            let Action::Protect(name) = filter.action else { return None };
            tunnel.set(cache.tunnel(filter.vip, name));
        }
        tunnel.get()
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tunnels.len()
    }

    /// All rules with their ranks.
    pub fn all(&self) -> impl Iterator<Item = (u32, Filter)> + '_ {
        [&self.rules, &self.newer]
            .into_iter()
            .flat_map(|part| part.ranks.iter().copied().zip(part.filters.iter().copied()))
    }

    /// Rule `at`.
    ///
    /// # Panics
    /// It is none that a look-up in this table found.
    #[must_use]
    pub fn filter(&self, at: usize) -> &Filter {
        let (rules, at) = self.part(at);
        &rules.filters[at]
    }

    /// The rank of rule `at`.
    #[must_use]
    pub fn rank(&self, at: usize) -> u32 {
        let (rules, at) = self.part(at);
        rules.ranks.get(at).copied().unwrap_or(u32::MAX)
    }

    fn head(&self, at: usize) -> (Verdict, bool) {
        let (rules, at) = self.part(at);
        rules.heads[at]
    }

    /// Where rule `at` is.
    #[inline]
    fn part(&self, at: usize) -> (&Rules, usize) {
        match at.checked_sub(self.rules.len()) {
            None => (&self.rules, at),
            Some(at) => (&self.newer, at),
        }
    }

    /// The first rule of a list that matches, newer ones among them.
    #[inline]
    fn first(&self, list: u16, subject: &Subject, meter: &mut impl Meter) -> u32 {
        let found = self.rules.lists[usize::from(list)].find(&self.rules.selectors, subject, meter);
        match self.newer.lists.get(usize::from(list)) {
            None => found,
            Some(tree) => self.sooner(found, tree.find(&self.newer.selectors, subject, meter)),
        }
    }

    /// Which of two rules decides, one of those that were there and one of the newer ones, by its number among them.
    fn sooner(&self, found: u32, newer: u32) -> u32 {
        if newer == NOTHING
            || (found != NOTHING && self.rules.ranks[found as usize] <= self.newer.ranks[newer as usize])
        {
            return found;
        }
        self.rules.len() as u32 + newer
    }
}

impl Default for FilterTable {
    fn default() -> FilterTable {
        FilterTable::new(Vec::new())
    }
}

/// The two halves of the product: every bit of both decides about every bit.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Limits, PortRange, Prefix};

    fn rule(vip: u16, port: Option<u16>, action: Action) -> Filter {
        let mut selectors = Selectors::between("10.77.0.100".parse().unwrap(), Prefix::ANY_V4);
        selectors.local_ports = port.map_or(PortRange::ANY, PortRange::one);
        Filter { vip: VipId(vip), selectors, action, log: false }
    }

    fn to_port(port: u16) -> Subject {
        Subject {
            local: "10.77.0.100".parse().unwrap(),
            remote: "10.99.0.10".parse().unwrap(),
            protocol: 6,
            local_port: Some(port),
            remote_port: Some(40000),
        }
    }

    fn way_out(table: &FilterTable, port: u16) -> WayOut {
        let sought = table.seek_way_out(VipId(1), &to_port(port)).unwrap();
        table.flow_ahead(&sought);
        table.way_out(&sought, &to_port(port)).unwrap()
    }

    #[test]
    fn the_first_match_of_the_right_vip_decides() {
        let tunnel = TunnelName::new("client").unwrap();
        let table = FilterTable::new(vec![
            rule(2, None, Action::Permit),
            rule(1, Some(22), Action::Deny),
            rule(1, None, Action::Protect(tunnel)),
        ]);
        assert_eq!(table.lookup(VipId(1), &to_port(22)).unwrap().action, Action::Deny);
        assert_eq!(table.lookup(VipId(1), &to_port(80)).unwrap().action, Action::Protect(tunnel));
        assert_eq!(table.lookup(VipId(3), &to_port(80)), None);
    }

    #[test]
    fn a_rule_finds_its_tunnel_once_that_has_an_sa() {
        let [a, b] = ["a", "b"].map(|n| TunnelName::new(n).unwrap());
        let [to_a, to_b] = [a, b].map(Action::Protect);
        let table = FilterTable::new(vec![rule(1, Some(1), to_a), rule(1, Some(2), to_b), rule(1, Some(3), to_a)]);
        let table = table.remembering(Flows::new(2));
        let mut cache = ShadowCache::new(Limits { inbound: 1, outbound: 1, tunnels: 2 });
        let tunnel = |port, cache: &ShadowCache| {
            let mut way = way_out(&table, port);
            assert_eq!((way.rule, way.verdict), (usize::from(port) - 1, Verdict::Protect));
            table.tunnel(&mut way, cache)
        };
        assert_eq!(tunnel(1, &cache), None);
        let at = [a, b].map(|name| cache.intern(VipId(1), name).unwrap());
        for _ in 0..2 {
            assert_eq!([1, 2, 3].map(|port| tunnel(port, &cache)), [Some(at[0]), Some(at[1]), Some(at[0])]);
        }
    }

    #[test]
    fn what_was_found_beside_a_flows_rule_stays_with_it_until_the_rules_change() {
        let to = Action::Protect(TunnelName::new("a").unwrap());
        let table = FilterTable::new(vec![rule(1, None, to)]).remembering(Flows::new(2));
        let mut cache = ShadowCache::new(Limits { inbound: 1, outbound: 1, tunnels: 2 });
        let at = cache.intern(VipId(1), TunnelName::new("a").unwrap()).unwrap();
        let mut way = way_out(&table, 80);
        assert!(!table.fits(&way, 7));
        assert_eq!(table.tunnel(&mut way, &cache), Some(at));
        table.set_fits(&way, 7);
        let way = way_out(&table, 80);
        assert!(table.fits(&way, 7) && !table.fits(&way, 8) && way.beside.leads.tunnel() == Some(at));
        let mut next = FilterTable::new(vec![rule(1, None, Action::Deny)]);
        next.succeed(&mut { table });
        let way = way_out(&next, 80);
        assert_eq!((way.verdict, next.fits(&way, 7), way.beside.leads.tunnel()), (Verdict::Deny, false, None));
    }

    #[test]
    fn of_several_vips_that_one_router_made_rules_for_the_first_rule_of_any_decides() {
        let rules = vec![rule(2, Some(22), Action::Deny), rule(1, None, Action::Permit), rule(3, None, Action::Deny)];
        let table = FilterTable::ranked(
            (0..).zip(rules).collect(),
            &[(VipId(1), 0), (VipId(2), 0), (VipId(3), 1), (VipId(4), 0)],
        );
        assert_eq!(table.seek_together(VipId(1), &to_port(22)).0, Some(0));
        assert_eq!(table.seek_together(VipId(1), &to_port(80)).0, Some(1));
        assert_eq!(table.find(VipId(1), &to_port(22)), Some(1));
        assert_eq!(table.seek_together(VipId(3), &to_port(22)).0, Some(2));
        assert_eq!(table.seek_together(VipId(4), &to_port(22)).0, Some(0), "it has no rules of its own");
        assert_eq!(table.find(VipId(4), &to_port(22)), None);
        assert_eq!(table.seek_together(VipId(9), &to_port(80)).0, None);
        let late = |vip| vec![(0, rule(vip, Some(80), Action::Deny)), (9, rule(vip, None, Action::Deny))];
        let more = table.extended(late(1)).unwrap();
        let found = |vip, port| more.seek_together(VipId(vip), &to_port(port)).0.map(|at| more.rank(at));
        assert_eq!([found(1, 22), found(1, 80), found(2, 80), found(3, 80)], [Some(0), Some(0), Some(0), Some(2)]);
        assert_eq!(more.find(VipId(2), &to_port(80)), None, "it is another VIP's");
        assert_eq!((more.count(), more.all().map(|(rank, _)| rank).max()), (5, Some(9)));
        // VIP 3's own list is that of all of its router's.
        let alone = FilterTable::ranked(vec![(0, rule(3, None, Action::Deny))], &[(VipId(3), 1), (VipId(4), 1)]);
        assert!(
            alone.extended(late(3)).is_some() && alone.extended(late(4)).is_none() && alone.extended(late(5)).is_none()
        );
    }
}
