//! What the control core remembers of what it gave to the poll cores.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use phalanx_cluster::ledger::Use;
use phalanx_cluster::messages::RankedFilter;
use phalanx_ipsec::{Direction, Filter, FilterTable, SaParams, SaShared, WindowSnapshot};
use phalanx_wire::{CoreId, SaId, VipId};

/// One SA on this node.
pub struct SaEntry {
    /// As it was configured or came from the router.
    pub params: Arc<SaParams>,
    /// Where the peer is by now; port 0 without UDP.
    pub remote: SocketAddr,
    /// Counters and window of each core that holds it; written there, read here.
    pub shared: Vec<(CoreId, Arc<SaShared>)>,
    /// Outbound: what its path carries now.
    pub path_mtu: u16,
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

impl Used {
    /// All that were seen, good and bad.
    pub fn seen(&self) -> u64 {
        self.packets + self.failed + self.replayed
    }
}

impl From<Used> for Use {
    fn from(Used { packets, bytes, failed, replayed }: Used) -> Use {
        Use { packets, bytes, failed, replayed }
    }
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

/// Windows of removed SAs that are remembered: for each SA and core.
const RETIRED: usize = 4096;

/// All SAs of this node by id.
#[derive(Default)]
pub struct SaBook {
    sas: BTreeMap<SaId, SaEntry>,
    /// What cores accepted on inbound SAs that they do not hold any more, the latest last.
    retired: VecDeque<(SaId, CoreId, Arc<SaShared>)>,
    /// An SA came, went, or has another path MTU.
    paths_changed: bool,
}

impl SaBook {
    /// Notes that an SA is held as router or as target; the entry, for its cores to be added.
    pub fn hold(&mut self, params: &Arc<SaParams>, router: bool) -> &mut SaEntry {
        let (path_mtu, remote) = (params.path_mtu, params.remote_end());
        let shared = Vec::new;
        let fresh =
            || SaEntry { params: params.clone(), remote, shared: shared(), path_mtu, router: false, target: false };
        self.paths_changed = true;
        let entry = self.sas.entry(params.id).or_insert_with(fresh);
        if router {
            entry.router = true
        } else {
            entry.target = true
        }
        entry
    }

    /// No longer held in that role; true when it is held in none and gone.
    pub fn release(&mut self, sa: SaId, router: bool) -> bool {
        let Some(entry) = self.sas.get_mut(&sa) else { return true };
        if router {
            entry.router = false
        } else {
            entry.target = false
        }
        let gone = !entry.router && !entry.target;
        self.paths_changed |= gone;
        if gone && let Some(entry) = self.sas.remove(&sa) {
            entry.shared.into_iter().for_each(|(core, shared)| self.retire(sa, core, shared));
        }
        gone
    }

    /// A core does not hold it any more; others do.
    pub fn leave(&mut self, sa: SaId, core: CoreId) {
        let Some(entry) = self.sas.get_mut(&sa) else { return };
        if let Some(at) = entry.shared.iter().position(|(on, _)| *on == core) {
            let (_, shared) = entry.shared.remove(at);
            self.retire(sa, core, shared);
        }
    }

    fn retire(&mut self, sa: SaId, core: CoreId, shared: Arc<SaShared>) {
        if shared.window().is_some() {
            self.retired.retain(|(of, on, _)| (*of, *on) != (sa, core));
            self.retired.push_back((sa, core, shared));
            let over = self.retired.len().saturating_sub(RETIRED);
            self.retired.drain(..over);
        }
    }

    /// What a core that gets an SA anew accepted on it before: as a target, and as a router.
    pub fn accepted_before(&self, sa: SaId, core: CoreId) -> Option<(WindowSnapshot, WindowSnapshot)> {
        let (_, _, shared) = self.retired.iter().find(|(of, on, _)| (*of, *on) == (sa, core))?;
        Some((shared.window()?.snapshot(), shared.verified()?.snapshot()))
    }

    /// Notes the path MTU of an outbound SA; the entry, if that is another one than it was.
    pub fn path_mtu(&mut self, sa: SaId, mtu: u16) -> Option<&SaEntry> {
        let entry = self.sas.get_mut(&sa).filter(|entry| entry.path_mtu != mtu)?;
        entry.path_mtu = mtu;
        self.paths_changed = true;
        Some(entry)
    }

    /// Whether paths may be others than when this was last asked.
    pub fn paths_changed(&mut self) -> bool {
        std::mem::take(&mut self.paths_changed)
    }

    /// One of them.
    pub fn find(&self, sa: SaId) -> Option<&SaEntry> {
        self.sas.get(&sa)
    }

    /// One of them, to be changed.
    pub fn find_mut(&mut self, sa: SaId) -> Option<&mut SaEntry> {
        self.sas.get_mut(&sa)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&SaId, &SaEntry)> {
        self.sas.iter()
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

    /// A rule by its VIP and rank, as long as it is in force.
    pub fn find(&self, vip: VipId, rank: u32) -> Option<&RankedFilter> {
        self.0.values().flatten().find(|rule| rule.rank == rank && rule.filter.vip == vip)
    }

    /// The table for all cores, by rank. `vips`: all there are, each with a number of its router.
    pub fn table(&self, vips: &[(VipId, usize)]) -> FilterTable {
        let mut all: Vec<(u32, Filter)> = self.0.values().flatten().map(|f| (f.rank, f.filter)).collect();
        all.sort_by_key(|(rank, _)| *rank);
        FilterTable::ranked(all, vips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_ipsec::{Action, Algorithm, InboundSa, Lifesize, Mode, Prefix, SecretKey, Selectors, TunnelName};
    use phalanx_wire::{PeerId, Spi};

    fn rule(rank: u32, action: Action) -> RankedFilter {
        let selectors = Selectors::between("10.0.0.1".parse().unwrap(), Prefix::ANY_V4);
        RankedFilter { rank, filter: Filter { vip: VipId(1), selectors, action, log: false }, name: None }
    }

    fn inbound() -> InboundSa {
        let [local, remote] = ["10.77.0.100", "10.77.0.10"].map(|a| a.parse::<std::net::IpAddr>().unwrap());
        InboundSa::new(SaParams {
            id: SaId(7),
            direction: Direction::Inbound,
            vip: VipId(1),
            peer: PeerId(1),
            tunnel: TunnelName::new("client").unwrap(),
            spi: Spi(0xc0de),
            mode: Mode::Tunnel { local, remote },
            local,
            remote,
            algorithm: Algorithm::Aes128Gcm16,
            key: SecretKey::new(Algorithm::Aes128Gcm16, &[1; 20]).unwrap(),
            esn: true,
            window: 64,
            selectors: Selectors::between(Prefix::host(local), Prefix::ANY_V4),
            lifesize: Lifesize::UNLIMITED,
            path_mtu: 1500,
            mss_clamp: phalanx_ipsec::MssClamp::None,
            copy_dscp: true,
            ecn: true,
            encap: None,
        })
        .unwrap()
    }

    #[test]
    fn a_core_that_gets_an_sa_again_learns_what_it_accepted_before() {
        let (mut book, mut sa, core) = (SaBook::default(), inbound(), CoreId(3));
        book.hold(&Arc::new(sa.params().clone()), false).shared.push((core, sa.shared().clone()));
        assert!(book.accepted_before(SaId(7), core).is_none(), "it has it");
        sa.window.commit(40).unwrap();
        sa.verified.commit(41).unwrap();
        assert!(book.release(SaId(7), false));
        // Accepted after control had given the order, before the core carried it out.
        sa.window.commit(50).unwrap();
        let (window, verified) = book.accepted_before(SaId(7), core).unwrap();
        assert!(window.contains(40) && window.contains(50) && verified.contains(41));
        assert!(book.accepted_before(SaId(7), CoreId(4)).is_none());
    }

    #[test]
    fn a_core_may_lose_an_sa_that_another_role_keeps() {
        let (mut book, sa, params) = (SaBook::default(), inbound(), Arc::new(inbound().params().clone()));
        for (core, router) in [(CoreId(0), true), (CoreId(1), false)] {
            book.hold(&params, router).shared.push((core, sa.shared().clone()));
        }
        assert!(!book.release(SaId(7), false), "it is the router's still");
        book.leave(SaId(7), CoreId(1));
        assert_eq!(book.find(SaId(7)).unwrap().shared.len(), 1);
        assert!(book.accepted_before(SaId(7), CoreId(1)).is_some());
        assert!(book.release(SaId(7), true));
    }

    #[test]
    fn rules_stand_by_rank_whatever_their_order_of_arrival() {
        let mut book = FilterBook::default();
        assert!(book.set(RuleSource::Sa(SaId(7)), vec![rule(9, Action::Permit)]));
        assert!(book.set(RuleSource::Vip(VipId(1)), vec![rule(1, Action::Deny)]));
        let actions: Vec<Action> = book.table(&[]).filters().iter().map(|f| f.action).collect();
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
