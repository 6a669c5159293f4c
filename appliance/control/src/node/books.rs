//! What the control core remembers of what it gave to the poll cores.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;

use phalanx_cluster::ledger::Use;
use phalanx_cluster::messages::RankedFilter;
use phalanx_ipsec::{Direction, Filter, FilterTable, SaParams, SaShared, WindowSnapshot, ah_header_len};
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
    /// Outbound: the largest packet that fits in it then.
    fits: Option<usize>,
    /// Held as its router.
    pub router: bool,
    /// Held as a target.
    pub target: bool,
    /// What the last look at it saw, and how many looks have seen the same.
    seen: u64,
    quiet: u8,
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
            let window = |w: Option<&phalanx_ipsec::SharedWindow>| w.map_or(0, |w| w.edge());
            window(shared.window()).max(window(shared.verified())).max(shared.highest_sent())
        };
        self.shared.iter().map(|(_, shared)| edge(shared)).max().unwrap_or(0)
    }

    /// Counts an outbound SA among those that carry as much as it does now.
    fn fit(&mut self, all: &mut BTreeMap<usize, usize>) {
        self.fits_no_more(all);
        if self.params.direction == Direction::Outbound {
            let fits = self.params.inner_mtu(self.path_mtu);
            *all.entry(fits).or_default() += 1;
            self.fits = Some(fits);
        }
    }

    fn fits_no_more(&mut self, all: &mut BTreeMap<usize, usize>) {
        if let Some(fits) = self.fits.take()
            && let Some(count) = all.get_mut(&fits)
        {
            *count -= 1;
            if *count == 0 {
                all.remove(&fits);
            }
        }
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

/// So many of the SAs that nobody seems to use are looked at in one go.
const AT_ONCE: usize = 1024;
/// So many looks that see nothing new, and an SA seems to be used by nobody: reports of the last packets are out by then.
const QUIET: u8 = 4;

/// All SAs of this node by id.
#[derive(Default)]
pub struct SaBook {
    sas: BTreeMap<SaId, SaEntry>,
    /// What cores accepted on inbound SAs that they do not hold any more, the latest last.
    retired: VecDeque<(SaId, CoreId, Arc<SaShared>)>,
    /// How many outbound SAs carry packets of at most so many bytes.
    fits: BTreeMap<usize, usize>,
    /// Those that are looked at each time: that are used, or may carry only so many bytes.
    watched: BTreeSet<SaId>,
    /// The last of the others whose turn it was.
    turn: Option<SaId>,
}

impl SaBook {
    /// Notes that an SA is held as router or as target; the entry, for its cores to be added.
    pub fn hold(&mut self, params: &Arc<SaParams>, router: bool) -> &mut SaEntry {
        let (path_mtu, remote) = (params.path_mtu, params.remote_end());
        let shared = Vec::new;
        let fresh = || SaEntry {
            params: params.clone(),
            remote,
            shared: shared(),
            path_mtu,
            fits: None,
            router: false,
            target: false,
            seen: 0,
            quiet: 0,
        };
        // A new SA's first genuine packet is waited for (I4): it is looked at as if it were used.
        self.watched.insert(params.id);
        let entry = self.sas.entry(params.id).or_insert_with(fresh);
        if router {
            entry.router = true
        } else {
            entry.target = true
        }
        entry.fit(&mut self.fits);
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
        if gone && let Some(mut entry) = self.sas.remove(&sa) {
            self.watched.remove(&sa);
            entry.fits_no_more(&mut self.fits);
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
        entry.fit(&mut self.fits);
        Some(entry)
    }

    /// The path MTU of an outbound SA of ESP that AH is around: what the path of that one leaves of it now.
    pub fn path_within(&self, params: &SaParams) -> Option<u16> {
        let around =
            (Direction::Outbound, params.vip, params.within.filter(|_| params.direction == Direction::Outbound)?);
        let is_it = |ah: &SaParams| (ah.direction, ah.vip, ah.tunnel) == around;
        let ah = self.sas.values().find(|entry| is_it(&entry.params))?;
        let len = ah_header_len(ah.params.algorithm, ah.params.local.is_ipv6()) as u16;
        Some(ah.path_mtu.saturating_sub(len).min(params.path_mtu))
    }

    /// Outbound SAs of ESP that this one of AH is around.
    pub fn inside(&self, ah: &SaParams) -> Vec<SaId> {
        if !ah.algorithm.is_ah() {
            return Vec::new();
        }
        let is_inside =
            |esp: &SaParams| (esp.vip, esp.within) == (ah.vip, Some(ah.tunnel)) && esp.direction == ah.direction;
        self.sas.iter().filter(|(_, entry)| is_inside(&entry.params)).map(|(sa, _)| *sa).collect()
    }

    /// The largest packet that fits every outbound SA.
    pub fn fits_all(&self) -> Option<usize> {
        self.fits.first_key_value().map(|(fits, _)| *fits)
    }

    /// Whose counters are to be read now: of those that are used or limited all, of the others the next ones in turn. So a
    /// look costs what is in use, however many SAs there are.
    pub fn in_turn(&mut self) -> BTreeSet<SaId> {
        let from = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<SaId> = self.sas.range((from, Bound::Unbounded)).take(AT_ONCE).map(|(sa, _)| *sa).collect();
        self.turn = next.last().copied().filter(|_| next.len() == AT_ONCE);
        self.watched.iter().copied().chain(next).collect()
    }

    /// A look at an SA saw this, which only grows. False: so did the looks before, and there is nothing to be told of it.
    pub fn looked(&mut self, sa: SaId, seen: u64) -> bool {
        let Some(entry) = self.sas.get_mut(&sa) else { return false };
        entry.quiet = if entry.seen == seen { entry.quiet.saturating_add(1) } else { 0 };
        entry.seen = seen;
        if entry.quiet < QUIET {
            self.watched.insert(sa);
        } else if entry.params.lifesize.hard == u64::MAX {
            self.watched.remove(&sa);
        }
        entry.quiet <= QUIET
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

/// What became of the rules from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are what they were.
    Nothing,
    /// There were none, and now there are.
    Came,
    /// Others than there were, or none.
    Changed,
}

/// All rules of this node, whoever they came from.
#[derive(Default)]
pub struct FilterBook(HashMap<RuleSource, Vec<RankedFilter>>);

impl FilterBook {
    /// Replaces what came from there.
    pub fn set(&mut self, source: RuleSource, rules: Vec<RankedFilter>) -> Change {
        let old = if rules.is_empty() { self.0.remove(&source) } else { self.0.insert(source, rules.clone()) };
        match old {
            None if rules.is_empty() => Change::Nothing,
            None => Change::Came,
            Some(old) if old == rules => Change::Nothing,
            Some(_) => Change::Changed,
        }
    }

    /// A rule by its VIP and rank, as long as it is in force.
    pub fn find(&self, vip: VipId, rank: u32) -> Option<&RankedFilter> {
        self.0.values().flatten().find(|rule| rule.rank == rank && rule.filter.vip == vip)
    }

    /// All of them with their ranks.
    pub fn all(&self) -> Vec<(u32, Filter)> {
        self.0.values().flatten().map(|rule| (rule.rank, rule.filter)).collect()
    }

    /// The same, of these sources.
    pub fn from(&self, sources: &[RuleSource]) -> Vec<(u32, Filter)> {
        let rules = sources.iter().filter_map(|source| self.0.get(source)).flatten();
        rules.map(|rule| (rule.rank, rule.filter)).collect()
    }
}

/// The table for all cores, by rank. `vips`: all there are, each with a number of its router.
pub fn table(mut rules: Vec<(u32, Filter)>, vips: &[(VipId, usize)]) -> FilterTable {
    rules.sort_by_key(|(rank, _)| *rank);
    FilterTable::ranked(rules, vips)
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
            within: None,
        })
        .unwrap()
    }

    #[test]
    fn a_core_that_gets_an_sa_again_learns_what_it_accepted_before() {
        let (mut book, mut sa, core) = (SaBook::default(), inbound(), CoreId(3));
        book.hold(sa.params(), false).shared.push((core, sa.shared().clone()));
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
        let (mut book, sa, params) = (SaBook::default(), inbound(), inbound().params().clone());
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
    fn sas_that_are_used_are_looked_at_each_time_and_all_others_in_turn() {
        let (mut book, count) = (SaBook::default(), 2 * AT_ONCE as u64 + 10);
        for id in 0..count {
            let params = SaParams { id: SaId(id), ..SaParams::clone(inbound().params()) };
            book.hold(&Arc::new(params), true);
        }
        let limited = SaParams {
            id: SaId(count),
            lifesize: Lifesize { soft: 10, hard: 20 },
            ..SaParams::clone(inbound().params())
        };
        book.hold(&Arc::new(limited), true);
        for _ in 0..QUIET {
            let due = book.in_turn();
            assert_eq!(due.len() as u64, count + 1, "new ones are watched");
            due.iter().for_each(|sa| assert!(book.looked(*sa, 0)));
        }
        let mut looks = Vec::new();
        for look in 0..8 {
            let due = book.in_turn();
            assert!(due.contains(&SaId(count)) && due.len() <= AT_ONCE + 2);
            // One is used for a while.
            for sa in &due {
                let used = *sa == SaId(5);
                assert_eq!(
                    book.looked(*sa, if used { look.min(2) + 1 } else { 0 }),
                    used,
                    "what nobody uses is not told of"
                );
            }
            looks.push(due);
        }
        let all: BTreeSet<SaId> = looks[..3].iter().flatten().copied().collect();
        assert_eq!(all.len() as u64, count + 1, "three looks are enough for all");
        let seen: Vec<bool> = looks.iter().map(|due| due.contains(&SaId(5))).collect();
        // In its turn it is found to be used, and then each time until it was quiet for long enough.
        assert_eq!(seen, [false, false, true, true, true, true, true, false]);
    }

    #[test]
    fn what_fits_all_outbound_sas_is_known_whichever_come_go_or_change() {
        let (mut book, sa) = (SaBook::default(), |id, path_mtu| {
            let params = SaParams::clone(inbound().params());
            Arc::new(SaParams { id: SaId(id), direction: Direction::Outbound, path_mtu, ..params })
        });
        book.hold(inbound().params(), true);
        assert_eq!(book.fits_all(), None, "an inbound SA carries whatever comes");
        let [wide, narrow] = [sa(1, 1500), sa(2, 1400)];
        let [fits_wide, fits_narrow] = [&wide, &narrow].map(|sa| Some(sa.inner_mtu(sa.path_mtu)));
        book.hold(&wide, true);
        assert_eq!(book.fits_all(), fits_wide);
        book.hold(&narrow, true);
        book.hold(&narrow, false);
        assert_eq!(book.fits_all(), fits_narrow);
        assert!(book.path_mtu(SaId(1), 1300).is_some() && book.path_mtu(SaId(1), 1300).is_none());
        assert_eq!(book.fits_all(), Some(wide.inner_mtu(1300)));
        assert!(book.release(SaId(1), true));
        assert_eq!(book.fits_all(), fits_narrow);
        assert!(!book.release(SaId(2), true) && book.release(SaId(2), false));
        assert_eq!(book.fits_all(), None);
    }

    #[test]
    fn what_esp_within_ah_may_measure_follows_the_path_of_ah() {
        let (mut book, params) = (SaBook::default(), SaParams::clone(inbound().params()));
        let within = Some(TunnelName::new("around").unwrap());
        let esp = SaParams { id: SaId(1), direction: Direction::Outbound, within, path_mtu: 1472, ..params.clone() };
        assert_eq!(book.path_within(&esp), None, "AH is not there yet");
        let algorithm = Algorithm::AhHmacSha256;
        let ah = Arc::new(SaParams {
            id: SaId(2),
            direction: Direction::Outbound,
            tunnel: TunnelName::new("around").unwrap(),
            algorithm,
            key: SecretKey::new(algorithm, &[1; 32]).unwrap(),
            ..params
        });
        book.hold(&ah, true);
        book.hold(&Arc::new(esp.clone()), true);
        assert_eq!((book.path_within(&esp), book.inside(&ah), book.inside(&esp)), (Some(1472), vec![SaId(1)], vec![]));
        book.path_mtu(SaId(2), 1400);
        assert_eq!(book.path_within(&esp), Some(1400 - 28));
        assert_eq!(book.path_within(&ah), None);
    }

    #[test]
    fn rules_stand_by_rank_whatever_their_order_of_arrival() {
        let mut book = FilterBook::default();
        book.set(RuleSource::Sa(SaId(7)), vec![rule(9, Action::Permit)]);
        book.set(RuleSource::Vip(VipId(1)), vec![rule(1, Action::Deny)]);
        let table = table(book.all(), &[]);
        assert_eq!([0, 1].map(|at| table.filter(at).action), [Action::Deny, Action::Permit]);
        assert_eq!(book.from(&[RuleSource::Sa(SaId(8)), RuleSource::Sa(SaId(7))])[0].0, 9);
    }

    #[test]
    fn the_same_rules_again_change_nothing() {
        let mut book = FilterBook::default();
        let mut set = |rules| book.set(RuleSource::Sa(SaId(7)), rules);
        assert_eq!(set(vec![rule(9, Action::Permit)]), Change::Came);
        assert_eq!(set(vec![rule(9, Action::Permit)]), Change::Nothing);
        assert_eq!(set(vec![rule(9, Action::Deny)]), Change::Changed);
        assert_eq!(set(vec![]), Change::Changed);
        assert_eq!(set(vec![]), Change::Nothing);
    }
}
