//! The rules of one list as a tree: each level asks one thing of a packet (remote address, local address, protocol, local
//! port, remote port) and leads to the few groups of rules that fit it, however many there are. A rule stands in one
//! group for each prefix or protocol, and in at most 32 for a range of ports, so the tree stays small whatever the rules
//! are; a packet is looked for in all groups it belongs to, unless their first rule comes behind one that is found.

use std::collections::{BTreeMap, HashMap};

use super::prefixes::{Item, Prefixes};
use crate::selectors::number;
use crate::{PortRange, Prefix, Selectors, Subject};

/// Groups of up to so many rules are not divided further.
const LEAF: usize = 4;
/// References to rules that the tree may have for each rule; when they are used up, groups stay undivided: slow, but right.
const REFERENCES: usize = 64;
/// No group: one rule alone, which saves two looks into memory.
const ALONE: u32 = u32::MAX;
/// No rule.
pub(super) const NOTHING: u32 = u32::MAX;

/// The rules of one list.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    groups: Box<[Group]>,
    root: Child,
    worst: u32,
}

/// A group of rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    /// [`ALONE`]: it is its first rule and nothing else.
    at: u32,
    /// The number of its first rule.
    pub(super) first: u32,
}

#[derive(Clone, Debug)]
enum Group {
    /// Rules by number.
    Rules(Box<[u32]>),
    Remote(Box<Prefixes>),
    Local(Box<Prefixes>),
    Protocol {
        any: Option<Child>,
        each: Box<[(u8, Child)]>,
    },
    LocalPort(Box<Ports>),
    RemotePort(Box<Ports>),
}

/// Ranges of ports cut at all their ends: a binary search finds the piece, which names the groups that cover it.
#[derive(Clone, Debug)]
struct Ports {
    /// Of every port, and of packets without any.
    any: Option<Child>,
    /// Where each piece starts, ascending; the first at 0.
    starts: Box<[u16]>,
    /// Where the groups of each piece begin in `groups`, and one past the end.
    from: Box<[u32]>,
    groups: Box<[Child]>,
}

/// Counts steps, where somebody wants to know: each is about one place in memory.
pub(super) trait Meter {
    fn step(&mut self);
}

/// Nobody wants to know.
impl Meter for () {
    #[inline]
    fn step(&mut self) {}
}

impl Meter for u32 {
    fn step(&mut self) {
        *self += 1;
    }
}

/// The things asked, in this order.
const LEVELS: u8 = 5;

impl Tree {
    /// Of the rules with these numbers, which ascend.
    pub(super) fn new(selectors: &[Selectors], rules: Vec<u32>) -> Tree {
        let left = REFERENCES.saturating_mul(rules.len()).saturating_add(1024);
        let mut builder = Builder { selectors, groups: Vec::new(), worst: Vec::new(), left };
        let root = builder.group(rules, 0);
        let worst = builder.worst(&root);
        Tree { groups: builder.groups.into(), root, worst }
    }

    /// The first rule that matches.
    #[inline]
    pub(super) fn find(&self, selectors: &[Selectors], subject: &Subject, meter: &mut impl Meter) -> u32 {
        let mut best = NOTHING;
        self.search(self.root, selectors, subject, &mut best, meter);
        best
    }

    /// No packet takes more steps.
    pub(super) fn worst(&self) -> u32 {
        self.worst
    }

    /// Bytes of memory beyond the struct itself.
    pub(super) fn bytes(&self) -> usize {
        let each = |group: &Group| match group {
            Group::Rules(rules) => size_of_val(&**rules),
            Group::Remote(prefixes) | Group::Local(prefixes) => size_of_val(&**prefixes) + prefixes.bytes(),
            Group::Protocol { each, .. } => size_of_val(&**each),
            Group::LocalPort(ports) | Group::RemotePort(ports) => {
                size_of_val(&**ports)
                    + size_of_val(&*ports.starts)
                    + size_of_val(&*ports.from)
                    + size_of_val(&*ports.groups)
            }
        };
        size_of_val(&*self.groups) + self.groups.iter().map(each).sum::<usize>()
    }

    /// Recursion is as deep as there are levels.
    fn search(&self, child: Child, selectors: &[Selectors], subject: &Subject, best: &mut u32, meter: &mut impl Meter) {
        if child.first >= *best {
            return;
        }
        meter.step();
        if child.at == ALONE {
            if selectors[child.first as usize].matches(subject) {
                *best = child.first;
            }
            return;
        }
        match &self.groups[child.at as usize] {
            Group::Rules(rules) => {
                for &rule in rules.iter().take_while(|rule| **rule < *best) {
                    meter.step();
                    if selectors[rule as usize].matches(subject) {
                        *best = rule;
                        return;
                    }
                }
            }
            Group::Remote(prefixes) => {
                self.among(prefixes, subject.remote.is_ipv4(), number(subject.remote), selectors, subject, best, meter);
            }
            Group::Local(prefixes) => {
                self.among(prefixes, subject.local.is_ipv4(), number(subject.local), selectors, subject, best, meter);
            }
            Group::Protocol { any, each } => {
                if let Some(any) = any {
                    self.search(*any, selectors, subject, best, meter);
                }
                meter.step();
                if let Ok(at) = each.binary_search_by_key(&subject.protocol, |(protocol, _)| *protocol) {
                    self.search(each[at].1, selectors, subject, best, meter);
                }
            }
            Group::LocalPort(ports) => self.covering(ports, subject.local_port, selectors, subject, best, meter),
            Group::RemotePort(ports) => self.covering(ports, subject.remote_port, selectors, subject, best, meter),
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "a search in the middle of itself")]
    fn among(
        &self,
        prefixes: &Prefixes,
        v4: bool,
        bits: u128,
        selectors: &[Selectors],
        subject: &Subject,
        best: &mut u32,
        meter: &mut impl Meter,
    ) {
        let mut next = prefixes.find(v4, bits, meter);
        while let Some(node) = next {
            meter.step();
            if node.first_around >= *best {
                return;
            }
            self.search(node.child, selectors, subject, best, meter);
            next = prefixes.around(node);
        }
    }

    #[inline]
    fn covering(
        &self,
        ports: &Ports,
        port: Option<u16>,
        selectors: &[Selectors],
        subject: &Subject,
        best: &mut u32,
        meter: &mut impl Meter,
    ) {
        if let Some(any) = ports.any {
            self.search(any, selectors, subject, best, meter);
        }
        let Some(port) = port else { return };
        let piece = ports.starts.partition_point(|start| {
            meter.step();
            *start <= port
        }) - 1;
        let groups = &ports.groups[ports.from[piece] as usize..ports.from[piece + 1] as usize];
        for group in groups {
            meter.step();
            self.search(*group, selectors, subject, best, meter);
        }
    }
}

struct Builder<'a> {
    selectors: &'a [Selectors],
    groups: Vec<Group>,
    /// Beside `groups`: steps of the longest search in each.
    worst: Vec<u32>,
    /// References left.
    left: usize,
}

impl Builder<'_> {
    /// A group of these rules, whose numbers ascend; they are alike in all levels before `level`.
    fn group(&mut self, rules: Vec<u32>, level: u8) -> Child {
        if let (&[first], _) | (&[first, ..], LEVELS) = (&rules[..], level) {
            // Of rules that are alike in everything only the first is ever reached.
            self.left = self.left.saturating_sub(1);
            return Child { at: ALONE, first };
        }
        if rules.len() > LEAF && rules.len() <= self.left {
            let divided = match level {
                0 => self.prefixes(&rules, level, |s| s.remote, Group::Remote),
                1 => self.prefixes(&rules, level, |s| s.local, Group::Local),
                2 => self.protocols(&rules, level),
                3 => self.ports(&rules, level, |s| s.local_ports, Group::LocalPort),
                _ => self.ports(&rules, level, |s| s.remote_ports, Group::RemotePort),
            };
            return divided.unwrap_or_else(|| self.group(rules, level + 1));
        }
        self.add(Group::Rules(rules.clone().into()), rules.len(), &rules)
    }

    fn add(&mut self, group: Group, worst: usize, rules: &[u32]) -> Child {
        self.left = self.left.saturating_sub(rules.len());
        self.groups.push(group);
        self.worst.push(u32::try_from(worst).unwrap_or(u32::MAX).saturating_add(1));
        Child { at: self.groups.len() as u32 - 1, first: rules.first().copied().unwrap_or(NOTHING) }
    }

    /// Steps of the longest search in there.
    fn worst(&self, child: &Child) -> u32 {
        self.worst.get(child.at as usize).copied().unwrap_or(1)
    }

    fn prefixes(
        &mut self,
        rules: &[u32],
        level: u8,
        of: fn(&Selectors) -> Prefix,
        group: fn(Box<Prefixes>) -> Group,
    ) -> Option<Child> {
        let keyed = |&rule: &u32| {
            let prefix = of(&self.selectors[rule as usize]);
            ((prefix.address().is_ipv4(), prefix.prefix_len(), number(prefix.address())), rule)
        };
        let mut by_prefix: Vec<((bool, u8, u128), u32)> = rules.iter().map(keyed).collect();
        by_prefix.sort_unstable();
        if by_prefix.first().map(|(key, _)| key) == by_prefix.last().map(|(key, _)| key) {
            return None;
        }
        let mut items = Vec::new();
        for alike in by_prefix.chunk_by(|a, b| a.0 == b.0) {
            let (v4, len, bits) = alike[0].0;
            let child = self.group(alike.iter().map(|(_, rule)| *rule).collect(), level + 1);
            items.push(Item { v4, bits, len, child });
        }
        let prefixes = Prefixes::new(&items);
        let worst = prefixes.worst(|child| self.worst(child)) as usize;
        Some(self.add(group(Box::new(prefixes)), worst, &rules[..1]))
    }

    fn protocols(&mut self, rules: &[u32], level: u8) -> Option<Child> {
        let mut by_protocol: BTreeMap<Option<u8>, Vec<u32>> = BTreeMap::new();
        for &rule in rules {
            by_protocol.entry(self.selectors[rule as usize].protocol).or_default().push(rule);
        }
        if by_protocol.len() == 1 {
            return None;
        }
        let any = by_protocol.remove(&None).map(|rules| self.group(rules, level + 1));
        let named = by_protocol.into_iter().filter_map(|(protocol, rules)| Some((protocol?, rules)));
        let each: Vec<(u8, Child)> = named.map(|(protocol, rules)| (protocol, self.group(rules, level + 1))).collect();
        let longest = each.iter().map(|(_, child)| self.worst(child)).max().unwrap_or(0);
        let worst = any.map_or(0, |any| self.worst(&any)).saturating_add(longest).saturating_add(1);
        Some(self.add(Group::Protocol { any, each: each.into() }, worst as usize, &rules[..1]))
    }

    /// A range stands in the nodes of a segment tree over the pieces that make it up: at most two of each size.
    fn ports(
        &mut self,
        rules: &[u32],
        level: u8,
        of: fn(&Selectors) -> PortRange,
        group: fn(Box<Ports>) -> Group,
    ) -> Option<Child> {
        let range = |rule: u32| of(&self.selectors[rule as usize]);
        if rules.iter().all(|&rule| range(rule) == range(rules[0])) {
            return None;
        }
        let (any, ranges): (Vec<u32>, Vec<u32>) = rules.iter().partition(|&&rule| range(rule) == PortRange::ANY);
        let ends = ranges.iter().flat_map(|&rule| [Some(range(rule).first()), range(rule).last().checked_add(1)]);
        let mut starts: Vec<u16> = std::iter::once(0).chain(ends.flatten()).collect();
        starts.sort_unstable();
        starts.dedup();
        let size = starts.len().next_power_of_two();
        let piece = |port: u16| starts.partition_point(|start| *start <= port) - 1;
        let mut segments: HashMap<usize, Vec<u32>> = HashMap::new();
        for &rule in &ranges {
            let (mut low, mut high) = (piece(range(rule).first()) + size, piece(range(rule).last()) + size + 1);
            while low < high {
                if low % 2 == 1 {
                    segments.entry(low).or_default().push(rule);
                    low += 1;
                }
                if high % 2 == 1 {
                    high -= 1;
                    segments.entry(high).or_default().push(rule);
                }
                (low, high) = (low / 2, high / 2);
            }
        }
        // No room for so many references: the group stays one.
        let references: usize = segments.values().map(Vec::len).sum();
        if references > self.left {
            return Some(self.add(Group::Rules(rules.into()), rules.len(), rules));
        }
        let any = (!any.is_empty()).then(|| self.group(any, level + 1));
        let mut keys: Vec<usize> = segments.keys().copied().collect();
        keys.sort_unstable();
        let mut children: HashMap<usize, Child> = HashMap::new();
        for key in keys {
            let rules = segments.remove(&key).unwrap_or_default();
            children.insert(key, self.group(rules, level + 1));
        }
        Some(self.cover(any, starts, &children, rules, group))
    }

    /// The groups of each piece: those on the way from its leaf to the segment tree's root, by their first rules.
    fn cover(
        &mut self,
        any: Option<Child>,
        starts: Vec<u16>,
        children: &HashMap<usize, Child>,
        rules: &[u32],
        group: fn(Box<Ports>) -> Group,
    ) -> Child {
        let size = starts.len().next_power_of_two();
        let (mut from, mut groups, mut longest) = (vec![0], Vec::new(), 0);
        for piece in 0..starts.len() {
            let way = std::iter::successors(Some(piece + size), |node| Some(node / 2).filter(|node| *node > 0));
            let mut here: Vec<Child> = way.filter_map(|node| children.get(&node).copied()).collect();
            here.sort_by_key(|child| child.first);
            let steps = here.iter().fold(0u32, |sum, child| sum.saturating_add(self.worst(child)).saturating_add(1));
            longest = longest.max(steps);
            groups.extend(here);
            from.push(groups.len() as u32);
        }
        let worst = any.map_or(0, |any| self.worst(&any)).saturating_add(longest);
        let worst = worst.saturating_add(size.ilog2() + 1);
        let ports = Ports { any, starts: starts.into(), from: from.into(), groups: groups.into() };
        self.add(group(Box::new(ports)), worst as usize, &rules[..1])
    }
}
