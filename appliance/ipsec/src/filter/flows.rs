//! What the rules said about flows seen of late: a flow's packets after the first cost one look, however many rules there
//! are. It belongs to one table of rules and goes with it, so it never says what another table would.

use std::cell::Cell;

use super::NOTHING;
use crate::Subject;
use crate::selectors::number;

const SETS: usize = 2048;
/// Flows of one set. A thousand flows, scattered over the sets, all find a place.
const WAYS: usize = 4;

/// A flow and the list of rules that was asked, whole: flows are never mistaken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; 5]);

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    found: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Flows(Box<[[Cell<Entry>; WAYS]]>);

/// No key: one of a flow has its lowest bit set.
const FREE: Entry = Entry { key: Key([0; 5]), found: NOTHING };

impl Key {
    #[inline]
    pub(super) fn new(list: u16, subject: &Subject) -> Key {
        let (local, remote) = (number(subject.local), number(subject.remote));
        let ports = u64::from(subject.local_port.unwrap_or(0)) << 16 | u64::from(subject.remote_port.unwrap_or(0));
        let families = u64::from(subject.local.is_ipv4()) << 1 | u64::from(subject.remote.is_ipv4());
        let known = u64::from(subject.local_port.is_some()) << 1 | u64::from(subject.remote_port.is_some());
        let rest =
            ports << 32 | u64::from(list) << 16 | u64::from(subject.protocol) << 8 | families << 3 | known << 1 | 1;
        Key([(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64, rest])
    }

    #[inline]
    fn set(&self) -> usize {
        let [a, b, c, d, e] = self.0;
        let addresses = super::fold(a ^ 0xa076_1d64_78bd_642f, c ^ 0xe703_7ed1_a0b4_28db)
            ^ super::fold(b ^ 0x8ebc_6af0_9c88_c6e3, d ^ 0x5899_65cc_7537_4cc3);
        super::fold(addresses ^ e, 0x1d8e_4e27_c47d_124f) as usize % SETS
    }
}

impl Flows {
    pub(super) fn new() -> Flows {
        Flows((0..SETS).map(|_| [const { Cell::new(FREE) }; WAYS]).collect())
    }

    /// What was found for the flow.
    #[inline]
    pub(super) fn get(&self, key: &Key) -> Option<u32> {
        let set = &self.0[key.set()];
        set.iter().map(Cell::get).find(|entry| entry.key == *key).map(|entry| entry.found)
    }

    /// Remembers it, in the place of the oldest of its set.
    #[inline]
    pub(super) fn put(&self, key: Key, found: u32) {
        let set = &self.0[key.set()];
        for way in (1..WAYS).rev() {
            set[way].set(set[way - 1].get());
        }
        set[0].set(Entry { key, found });
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}
