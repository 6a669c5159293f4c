//! Prefixes as a dimension of the rule tree: which of them an address is in, from the longest to the shortest.
//!
//! The longest is found by binary search over the lengths that occur, with a hash table of the prefixes and of markers
//! that say "longer ones go on from here" (Waldvogel, Varghese, Turner, Plattner, SIGCOMM 1997): one to three probes where
//! rules have up to seven different lengths, eight where they have all 128. From there each knows the next shorter one.

use std::collections::HashMap;

use super::tree::{Child, Meter};

/// No node.
pub(super) const NONE: u32 = u32::MAX;
/// Hash tables are at most half full.
const SPARSE: usize = 2;
/// Seeds that are tried for short searches, and for how many keys: more have long runs under every seed.
const SEEDS: u64 = 16;
const FEW: usize = 128;

/// The prefixes of both families.
#[derive(Clone, Debug)]
pub(super) struct Prefixes {
    v4: Family,
    v6: Family,
    nodes: Box<[Node]>,
}

/// A prefix that rules have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Its own rules.
    pub(super) child: Child,
    /// The next shorter prefix around it.
    pub(super) parent: u32,
    /// The first rule of its own and of all around it.
    pub(super) first_around: u32,
}

#[derive(Clone, Debug)]
struct Family {
    /// Lengths that occur, ascending, 0 left out.
    lens: Box<[u8]>,
    slots: Box<[Slot]>,
    seed: u64,
    /// What has length 0.
    root: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    bits: u128,
    /// 0: nothing is here.
    len: u8,
    /// The longest real prefix that these bits are in.
    node: u32,
}

const FREE: Slot = Slot { bits: 0, len: 0, node: NONE };

/// A prefix of a set that is about to be built: family, bits from the highest on, length, rules of its own.
pub(super) struct Item {
    pub(super) v4: bool,
    pub(super) bits: u128,
    pub(super) len: u8,
    pub(super) child: Child,
}

impl Prefixes {
    /// `items` are all different; they ascend by family, length and bits.
    pub(super) fn new(items: &[Item]) -> Prefixes {
        let mut nodes: Vec<Node> =
            items.iter().map(|item| Node { child: item.child, parent: NONE, first_around: item.child.first }).collect();
        let [v4, v6] = [true, false].map(|family| Family::new(items, family, &mut nodes));
        Prefixes { v4, v6, nodes: nodes.into() }
    }

    /// The longest prefix that the address is in.
    #[inline]
    pub(super) fn find(&self, v4: bool, bits: u128, meter: &mut impl Meter) -> Option<&Node> {
        let family = if v4 { &self.v4 } else { &self.v6 };
        self.nodes.get(family.find(bits, meter) as usize)
    }

    /// The prefix around that one.
    #[inline]
    pub(super) fn around(&self, node: &Node) -> Option<&Node> {
        self.nodes.get(node.parent as usize)
    }

    /// Steps of the longest search: probes, then the nodes with what `below` says of their own.
    pub(super) fn worst(&self, below: impl Fn(&Child) -> u32) -> u32 {
        let mut sums: Vec<u32> = vec![0; self.nodes.len()];
        // A parent is shorter: going by length, it is there already.
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_cached_key(|&at| self.depth(at));
        for at in order {
            let node = &self.nodes[at];
            let around = sums.get(node.parent as usize).copied().unwrap_or(0);
            sums[at] = around.saturating_add(below(&node.child)).saturating_add(1);
        }
        let probes = self.v4.worst().max(self.v6.worst());
        sums.into_iter().max().unwrap_or(0).saturating_add(probes)
    }

    fn depth(&self, at: usize) -> usize {
        std::iter::successors(self.nodes.get(at), |node| self.around(node)).count()
    }

    /// Bytes of memory beyond the struct itself.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.v4.slots) + size_of_val(&*self.v6.slots)
    }
}

impl Family {
    fn new(items: &[Item], v4: bool, nodes: &mut [Node]) -> Family {
        let of_v4 = items.partition_point(|item| !item.v4);
        let (begin, ours) = if v4 { (of_v4, &items[of_v4..]) } else { (0, &items[..of_v4]) };
        let real = |len: u8, bits: u128| {
            let at = ours.binary_search_by_key(&(len, bits), |item| (item.len, item.bits)).ok()?;
            Some((begin + at) as u32)
        };
        let root = real(0, 0).unwrap_or(NONE);
        let mut lens: Vec<u8> = ours.iter().map(|item| item.len).filter(|len| *len > 0).collect();
        lens.dedup();
        // The longest real prefix of these bits that is not longer than the `shorter`-th length.
        let longest = |bits: u128, shorter: usize| {
            lens[..shorter].iter().rev().find_map(|&len| real(len, bits & mask(len))).unwrap_or(root)
        };
        let (mut slots, mut markers) = (Vec::with_capacity(ours.len()), HashMap::new());
        for (&Item { len, bits, .. }, at) in ours.iter().zip(begin as u32..) {
            let Ok(place) = lens.binary_search(&len) else { continue };
            let node = &mut nodes[at as usize];
            node.parent = longest(bits, place);
            slots.push(((len, bits), at));
            // Where the search for it passes by, it must be sent on.
            let (mut low, mut high) = (0, lens.len());
            while low < high {
                let middle = low.midpoint(high);
                if middle >= place {
                    high = middle;
                } else {
                    let (len, marker) = (lens[middle], bits & mask(lens[middle]));
                    if real(len, marker).is_none() {
                        markers.entry((len, marker)).or_insert_with(|| longest(marker, middle + 1));
                    }
                    low = middle + 1;
                }
            }
            // Those around it are shorter, hence done.
            let around = nodes.get(nodes[at as usize].parent as usize).map_or(NONE, |parent| parent.first_around);
            let node = &mut nodes[at as usize];
            node.first_around = node.first_around.min(around);
        }
        slots.extend(markers);
        let (slots, seed) = hashed(&slots);
        Family { lens: lens.into(), slots, seed, root }
    }

    #[inline]
    fn find(&self, bits: u128, meter: &mut impl Meter) -> u32 {
        let mut best = self.root;
        let (mut low, mut high) = (0, self.lens.len());
        while low < high {
            let middle = low.midpoint(high);
            let len = self.lens[middle];
            match self.probe(bits & mask(len), len, meter) {
                Some(node) => {
                    best = node;
                    low = middle + 1;
                }
                None => high = middle,
            }
        }
        best
    }

    #[inline]
    fn probe(&self, bits: u128, len: u8, meter: &mut impl Meter) -> Option<u32> {
        let mut at = hash(bits, len, self.seed) as usize & (self.slots.len() - 1);
        loop {
            meter.step();
            let slot = &self.slots[at];
            if slot.len == len && slot.bits == bits {
                return Some(slot.node);
            }
            if slot.len == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Probes of the longest search.
    fn worst(&self) -> u32 {
        (self.lens.len() + 1).next_power_of_two().ilog2() * longest_run(&self.slots)
    }
}

/// A hash table of these keys, and the seed of its hashes: of some the one with the shortest searches.
fn hashed(keys: &[((u8, u128), u32)]) -> (Box<[Slot]>, u64) {
    let size = (SPARSE * keys.len()).next_power_of_two().max(2);
    let table = |seed| {
        let mut slots = vec![FREE; size].into_boxed_slice();
        for &((len, bits), node) in keys {
            let mut at = hash(bits, len, seed) as usize & (size - 1);
            while slots[at].len != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = Slot { bits, len, node };
        }
        (slots, seed)
    };
    let mut best = table(0);
    for seed in 1..SEEDS {
        if keys.len() > FEW || longest_run(&best.0) <= 2 {
            break;
        }
        let other = table(seed);
        if longest_run(&other.0) < longest_run(&best.0) {
            best = other;
        }
    }
    best
}

/// Slots that a search looks at, at most: the longest run of full ones, and the free one behind it.
fn longest_run(slots: &[Slot]) -> u32 {
    let (mut longest, mut run) = (0, 0);
    for slot in slots.iter().chain(slots) {
        run = if slot.len == 0 { 0 } else { run + 1 };
        longest = longest.max(run);
    }
    longest + 1
}

#[inline]
fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[inline]
fn hash(bits: u128, len: u8, seed: u64) -> u64 {
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(len);
    super::fold(high ^ 0xa076_1d64_78bd_642f ^ seed, low ^ 0xe703_7ed1_a0b4_28db)
}
