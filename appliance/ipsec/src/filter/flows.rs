//! What the rules said about flows seen of late: a flow's packets after the first cost one look, however many rules there
//! are. The memory is a core's and outlives its tables of rules; each answer bears the number of the table that gave it,
//! and is worth nothing under another.
//!
//! A flow has a set of eight places, each with two bytes of its hash in a row that is compared as a whole. So a look takes
//! that row and, nearly always, one cache line.

use std::cell::Cell;

use phalanx_aead::prefetch;

use super::{NOTHING, Verdict};
use crate::selectors::number;
use crate::{Subject, TunnelIndex};

/// Places of a set. A set has four flows on average at capacity, so that nearly all flows find a place.
const WAYS: usize = 8;
const FILL: usize = 4;
/// The tag of a free place.
const FREE: u16 = 0;

/// A flow and the list of rules that was asked, whole: flows are never mistaken for each other.
#[derive(Clone, Copy, Debug, Eq)]
pub(super) struct Key([u64; 5]);

/// Word by word, and no branch between: where tags are the same, keys nearly always are.
impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    found: u32,
    generation: u32,
    /// Which entry of all.
    number: u32,
    beside: Beside,
}

/// What is kept of a flow beside the rule: whatever a packet of ours needs up to its SA, so that it looks nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    /// Of the outbound SA whose selectors it was found to fit; SAs count from 1.
    pub(super) serial: u32,
    pub(super) leads: Leads,
    /// Where its connection was found last, in numbers of the caller's; [`NOTHING`] where it was not.
    pub(super) connection: u32,
}

impl Beside {
    pub(super) const NOTHING: Beside = Beside { serial: 0, leads: Leads(Leads::TUNNEL), connection: NOTHING };
}

/// Where its rule leads: the number of the tunnel in 29 bits, all of them set as long as nobody asked; above it what the rule does and
/// whether it logs, 0 likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leads(u32);

impl Leads {
    const BITS: u32 = 29;
    const TUNNEL: u32 = (1 << Self::BITS) - 1;

    #[inline]
    pub(super) fn tunnel(self) -> Option<TunnelIndex> {
        Some(self.0 & Self::TUNNEL).filter(|tunnel| *tunnel != Self::TUNNEL).map(TunnelIndex)
    }

    #[inline]
    pub(super) fn head(self) -> Option<(Verdict, bool)> {
        let head = (self.0 >> Self::BITS).checked_sub(1)?;
        let verdict = [Verdict::Permit, Verdict::Deny, Verdict::Protect].get(head as usize / 2)?;
        Some((*verdict, head % 2 == 1))
    }

    /// A number that does not fit is asked for again.
    pub(super) fn to_tunnel(self, TunnelIndex(tunnel): TunnelIndex) -> Leads {
        Leads(self.0 & !Self::TUNNEL | tunnel.min(Self::TUNNEL))
    }

    pub(super) fn with_head(self, (verdict, log): (Verdict, bool)) -> Leads {
        Leads(self.0 & Self::TUNNEL | (1 + 2 * verdict as u32 + u32::from(log)) << Self::BITS)
    }
}

/// Where a flow is remembered: good as long as no other took its place, which shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    entry: u32,
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(16))]
struct Tags([u16; WAYS]);

/// See the module.
#[derive(Clone, Debug)]
pub struct Flows {
    tags: Box<[Cell<Tags>]>,
    entries: Box<[Cell<Entry>]>,
    generation: u32,
    /// Entries so far; says where the next flow goes that finds its set full.
    count: Cell<u32>,
}

/// A flow and where it is looked up: for several steps, some packets apart.
#[derive(Clone, Copy, Debug)]
pub struct SoughtFlow {
    pub(super) key: Key,
    pub(super) list: u16,
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    set: u32,
    tag: u16,
}

const EMPTY: Entry = Entry { key: Key([0; 5]), found: NOTHING, generation: 0, number: 0, beside: Beside::NOTHING };

const _: () = assert!(size_of::<Entry>() == prefetch::LINE);

impl Key {
    #[inline(always)]
    pub(super) fn new(list: u16, subject: &Subject) -> Key {
        let (local, remote) = (number(subject.local), number(subject.remote));
        let ports = u64::from(subject.local_port.unwrap_or(0)) << 16 | u64::from(subject.remote_port.unwrap_or(0));
        let families = u64::from(subject.local.is_ipv4()) << 1 | u64::from(subject.remote.is_ipv4());
        let known = u64::from(subject.local_port.is_some()) << 1 | u64::from(subject.remote_port.is_some());
        let rest = ports << 32 | u64::from(list) << 16 | u64::from(subject.protocol) << 8 | families << 3 | known << 1;
        Key([(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64, rest])
    }

    #[inline]
    fn hash(&self) -> u64 {
        let [a, b, c, d, e] = self.0;
        let addresses = super::fold(a ^ 0xa076_1d64_78bd_642f, c ^ 0xe703_7ed1_a0b4_28db)
            ^ super::fold(b ^ 0x8ebc_6af0_9c88_c6e3, d ^ 0x5899_65cc_7537_4cc3);
        super::fold(addresses ^ e, 0x1d8e_4e27_c47d_124f)
    }
}

impl Flows {
    /// Memory for so many flows: 132 bytes for each.
    #[must_use]
    pub fn new(flows: usize) -> Flows {
        let sets = flows.div_ceil(FILL);
        Flows {
            tags: (0..sets).map(|_| Cell::new(Tags([FREE; WAYS]))).collect(),
            entries: (0..sets * WAYS).map(|_| Cell::new(EMPTY)).collect(),
            generation: 0,
            count: Cell::new(0),
        }
    }

    /// The same memory for another table of rules: nothing is known.
    #[must_use]
    pub(super) fn renewed(mut self) -> Flows {
        self.generation = self.generation.wrapping_add(1);
        self
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// What was found for the flow, and where that is remembered.
    #[inline]
    pub(super) fn get(&self, key: &Key) -> Option<(u32, At)> {
        self.get_at(self.place(key)?, key)
    }

    /// As [`Self::get`], of what [`Self::seek`] gave.
    #[inline]
    pub(super) fn get_sought(&self, sought: &SoughtFlow) -> Option<(u32, At)> {
        self.get_at(sought.place?, &sought.key)
    }

    /// What is kept beside it of what [`Self::seek`] gave.
    #[inline]
    pub(super) fn beside_sought(&self, sought: &SoughtFlow) -> Option<Beside> {
        let at = self.find_at(sought.place?, &sought.key)?;
        Some(self.entries[at].get().beside)
    }

    /// Where its connection was found last.
    pub(super) fn set_connection(&self, sought: &SoughtFlow, connection: u32) {
        if let Some(at) = sought.place.and_then(|place| self.find_at(place, &sought.key)) {
            let entry = self.entries[at].get();
            self.entries[at].set(Entry { beside: Beside { connection, ..entry.beside }, ..entry });
        }
    }

    #[inline]
    fn get_at(&self, place: Place, key: &Key) -> Option<(u32, At)> {
        let at = self.find_at(place, key)?;
        let entry = self.entries[at].get();
        Some((entry.found, At { entry: at as u32, number: entry.number }))
    }

    #[inline]
    fn find_at(&self, place: Place, key: &Key) -> Option<usize> {
        self.hits(place).find(|at| self.is(&self.entries[*at].get(), key))
    }

    /// `None`: another flow took its place.
    #[inline]
    pub(super) fn beside(&self, at: At) -> Option<Beside> {
        let entry = self.entries[at.entry as usize].get();
        (entry.number == at.number).then_some(entry.beside)
    }

    #[inline]
    pub(super) fn set_beside(&self, at: At, beside: Beside) {
        let cell = &self.entries[at.entry as usize];
        let entry = cell.get();
        if entry.number == at.number {
            cell.set(Entry { beside, ..entry });
        }
    }

    /// Remembers it: in its own place if it had one under another table, else in a free one, else in that of another flow. Where.
    #[inline]
    pub(super) fn put(&self, key: Key, found: u32) -> Option<At> {
        let place = self.place(&key)?;
        let number = self.count.get().wrapping_add(1);
        self.count.set(number);
        let tags = &self.tags[place.set as usize];
        let mut row = tags.get();
        let own = self.hits(place).find(|at| self.entries[*at].get().key == key).map(|at| at % WAYS);
        let way = own.or_else(|| row.0.iter().position(|tag| *tag == FREE)).unwrap_or(number as usize % WAYS);
        row.0[way] = place.tag;
        tags.set(row);
        let at = place.set as usize * WAYS + way;
        self.entries[at].set(Entry { key, found, generation: self.generation, number, beside: Beside::NOTHING });
        Some(At { entry: at as u32, number })
    }

    /// Asks memory for what a look-up compares first; then [`Self::entry_ahead`].
    #[inline(always)]
    pub(super) fn seek(&self, list: u16, key: Key) -> SoughtFlow {
        let place = self.place(&key);
        place.into_iter().for_each(|place| prefetch::all(&self.tags[place.set as usize]));
        SoughtFlow { key, list, place }
    }

    /// Asks memory for the answer.
    #[inline]
    pub(super) fn entry_ahead(&self, sought: &SoughtFlow) {
        let at = sought.place.and_then(|place| self.hits(place).next());
        at.into_iter().for_each(|at| prefetch::all(&self.entries[at]));
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.tags) + size_of_val(&*self.entries)
    }

    /// How many flows it is made for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.tags.len() * FILL
    }

    #[inline]
    fn is(&self, entry: &Entry, key: &Key) -> bool {
        entry.generation == self.generation && entry.key == *key
    }

    /// None where there is no room for any flow.
    #[inline(always)]
    fn place(&self, key: &Key) -> Option<Place> {
        if self.tags.is_empty() {
            return None;
        }
        let hash = key.hash();
        let set = ((hash >> 32) * self.tags.len() as u64) >> 32;
        Some(Place { set: set as u32, tag: (hash as u16).max(1) })
    }

    /// The entries whose tag is that of the flow.
    #[inline]
    fn hits(&self, place: Place) -> impl Iterator<Item = usize> {
        let row = self.tags[place.set as usize].get().0;
        let mut hits = (0..WAYS).fold(0u8, |hits, way| hits | u8::from(row[way] == place.tag) << way);
        std::iter::from_fn(move || {
            let way = (hits != 0).then(|| hits.trailing_zeros() as usize)?;
            hits &= hits - 1;
            Some(place.set as usize * WAYS + way)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let remote = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into();
        let local = std::net::Ipv4Addr::new(10, 77, 0, 100).into();
        Key::new(0, &Subject { local, remote, protocol: 6, local_port: Some(80), remote_port: Some(n as u16) })
    }

    #[test]
    fn as_many_flows_as_it_is_made_for_nearly_all_find_a_place() {
        let flows = Flows::new(10_000);
        (0..10_000).for_each(|n| _ = flows.put(key(n), n));
        let known = (0..10_000).filter(|&n| flows.get(&key(n)).is_some()).count();
        assert!(known > 9_800, "{known}");
        assert!((0..10_000).all(|n| flows.get(&key(n)).is_none_or(|(found, _)| found == n)));
        assert!(flows.bytes() <= 10_000 * 144, "{}", flows.bytes());
    }

    #[test]
    fn under_another_table_nothing_is_known_and_a_flow_keeps_its_place() {
        let flows = Flows::new(1);
        flows.put(key(1), 7);
        let flows = flows.renewed();
        assert!(flows.get(&key(1)).is_none());
        flows.put(key(1), 8);
        assert_eq!(flows.get(&key(1)).map(|(found, _)| found), Some(8));
        assert_eq!(flows.tags[0].get().0.iter().filter(|tag| **tag != FREE).count(), 1);
    }

    #[test]
    fn where_another_flow_took_the_place_nothing_is_said_of_the_first() {
        let flows = Flows::new(1);
        let first = flows.put(key(0), 0).unwrap();
        let of = |serial| Beside { serial, ..Beside::NOTHING };
        flows.set_beside(first, of(5));
        assert_eq!(flows.beside(first), Some(of(5)));
        (1..100).for_each(|n| _ = flows.put(key(n), n));
        flows.set_beside(first, of(6));
        assert_eq!(flows.beside(first), None);
        assert!(flows.entries.iter().all(|entry| entry.get().beside != of(6)));
    }

    #[test]
    fn where_a_rule_leads_fits_one_word() {
        let nothing = Beside::NOTHING.leads;
        assert_eq!((nothing.tunnel(), nothing.head()), (None, None));
        for tunnel in [0, 1, Leads::TUNNEL - 1].map(TunnelIndex) {
            for head in
                [Verdict::Permit, Verdict::Deny, Verdict::Protect].map(|verdict| [(verdict, false), (verdict, true)])
            {
                for head in head {
                    for leads in [nothing.to_tunnel(tunnel).with_head(head), nothing.with_head(head).to_tunnel(tunnel)]
                    {
                        assert_eq!((leads.tunnel(), leads.head()), (Some(tunnel), Some(head)));
                    }
                    assert_eq!((nothing.with_head(head).tunnel(), nothing.to_tunnel(tunnel).head()), (None, None));
                }
            }
        }
        let beyond = nothing.with_head((Verdict::Protect, true)).to_tunnel(TunnelIndex(u32::MAX));
        assert_eq!((beyond.tunnel(), beyond.head()), (None, Some((Verdict::Protect, true))));
    }

    #[test]
    fn a_connection_is_remembered_with_its_flow_and_with_no_other() {
        let flows = Flows::new(8);
        (0..2).for_each(|n| _ = flows.put(key(n), n));
        let sought = [0, 1, 2].map(|n| flows.seek(0, key(n)));
        flows.set_connection(&sought[0], 77);
        flows.set_connection(&sought[2], 78);
        let known = sought.map(|sought| flows.beside_sought(&sought).map(|beside| beside.connection));
        assert_eq!(known, [Some(77), Some(NOTHING), None]);
    }

    #[test]
    fn without_memory_nothing_is_remembered() {
        let flows = Flows::new(0);
        let sought = flows.seek(0, key(1));
        flows.entry_ahead(&sought);
        assert!(flows.get_sought(&sought).is_none());
        assert!(flows.put(key(1), 7).is_none() && flows.get(&key(1)).is_none());
    }
}
