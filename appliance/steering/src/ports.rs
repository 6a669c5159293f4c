//! Which new connections of a VIP are distributed, and to whom: a list of ports (R24).

use std::ops::RangeInclusive;

use phalanx_wire::{DropReason, TargetId, protocol};

use crate::SteeringError;
use crate::listeners::{Among, Listeners};
use crate::select::{Candidate, Policy, Selector};

/// Of which protocol a rule's ports are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP connections.
    #[default]
    Tcp,
    /// UDP flows.
    Udp,
    /// Either.
    Both,
}

impl Transport {
    /// Whether it is this IP protocol, or one of it.
    pub fn has(self, protocol: u8) -> bool {
        match self {
            Transport::Tcp => protocol == protocol::TCP,
            Transport::Udp => protocol == protocol::UDP,
            Transport::Both => matches!(protocol, protocol::TCP | protocol::UDP),
        }
    }

    /// Whether some protocol is of both.
    pub fn overlaps(self, other: Transport) -> bool {
        self == other || self == Transport::Both || other == Transport::Both
    }
}

/// New connections to these local ports go to these targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRule {
    /// Of which protocol.
    pub protocol: Transport,
    /// Which ports; at most [`Distribution::RANGES`].
    pub ports: Vec<RangeInclusive<u16>>,
    /// To whom.
    pub targets: Vec<TargetId>,
}

/// The rules of one VIP: the first that names a port decides, and a port that none names is the router's own. Control
/// makes it, for it takes memory; its poll core asks it once per new connection.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    rules: Box<[Rule]>,
    /// None: every target listens on every port.
    listeners: Option<Box<Listeners>>,
}

#[derive(Clone, Debug)]
struct Rule {
    protocol: Transport,
    ports: Box<[RangeInclusive<u16>]>,
    /// All candidates of the VIP, so that their places are the same for all rules; those that this one does not name are
    /// not eligible.
    selector: Selector,
    /// Those that it names.
    members: Among,
}

impl Distribution {
    /// Most targets of one VIP.
    pub const TARGETS: usize = 32;
    /// Most rules of one VIP.
    pub const RULES: usize = 16;
    /// Most ranges of one rule.
    pub const RANGES: usize = 16;

    /// Distribution to those of `candidates` that the rules name; each rule has its own turn.
    ///
    /// # Errors
    /// [`SteeringError::TooManyTargets`], [`SteeringError::TooManyRules`], [`SteeringError::TooManyRanges`].
    pub fn new(policy: Policy, candidates: &[Candidate], rules: &[PortRule]) -> Result<Distribution, SteeringError> {
        if candidates.len() > Distribution::TARGETS {
            return Err(SteeringError::TooManyTargets(candidates.len()));
        }
        if rules.len() > Distribution::RULES {
            return Err(SteeringError::TooManyRules(rules.len()));
        }
        if let Some(long) = rules.iter().find(|rule| rule.ports.len() > Distribution::RANGES) {
            return Err(SteeringError::TooManyRanges(long.ports.len()));
        }
        let rule = |rule: &PortRule| {
            let names = |c: &Candidate| rule.targets.contains(&c.id);
            let all: Vec<Candidate> =
                candidates.iter().map(|c| Candidate { eligible: c.eligible && names(c), ..*c }).collect();
            let bits = candidates.iter().zip(0..).filter(|(c, _)| names(c));
            let members = bits.fold(0, |members: Among, (_, at)| members | 1 << at);
            let (protocol, ports) = (rule.protocol, rule.ports.clone().into());
            Rule { protocol, ports, selector: Selector::new(policy, &all), members }
        };
        Ok(Distribution { rules: rules.iter().map(rule).collect(), listeners: None })
    }

    /// Takes the place of `old`: a rule for the same ports goes on with its turn.
    pub fn succeed(&mut self, old: &Distribution) {
        for rule in &mut self.rules {
            let same = |other: &&Rule| other.protocol == rule.protocol && other.ports == rule.ports;
            if let Some(same) = old.rules.iter().find(same) {
                rule.selector.succeed(&same.selector);
            }
        }
    }

    /// Whether a rule names the port of an IP protocol.
    pub fn names(&self, protocol: u8, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.names(protocol, port))
    }

    /// From now on only targets that listen on a port are chosen for it (R25). Bit *n* is candidate *n* of [`Self::new`].
    #[must_use]
    pub fn with_listeners(mut self, listeners: Listeners) -> Distribution {
        self.listeners = Some(Box::new(listeners));
        self
    }

    /// Chooses a target for a new connection or flow of an IP protocol to the port; `connections` tells how many a target has.
    ///
    /// # Errors
    /// [`DropReason::NoTarget`]: nobody is there for it, or nobody wants it now. [`DropReason::NoListener`]: the targets are
    /// there, and none of them listens: the peer is to be refused.
    pub fn choose(
        &mut self,
        protocol: u8,
        port: u16,
        connections: impl Fn(TargetId) -> u32,
    ) -> Result<TargetId, DropReason> {
        let rule = self.rules.iter_mut().find(|rule| rule.names(protocol, port)).ok_or(DropReason::NoTarget)?;
        let who = self.listeners.as_ref().map_or(Among::MAX, |listeners| listeners.of(protocol).who(port));
        let refuse = || self.listeners.as_ref().is_some_and(|listeners| listeners.refuse(rule.members, who));
        let reason = || if refuse() { DropReason::NoListener } else { DropReason::NoTarget };
        rule.selector.select_among(who, connections).ok_or_else(reason)
    }
}

impl Rule {
    fn names(&self, protocol: u8, port: u16) -> bool {
        self.protocol.has(protocol) && self.ports.iter().any(|range| range.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::protocol::{TCP, UDP};
    use proptest::prelude::*;

    fn candidates(ids: &[u16]) -> Vec<Candidate> {
        let one = |id: &u16| Candidate { id: TargetId(*id), eligible: true, draining: false, weight: 1 };
        ids.iter().map(one).collect()
    }

    fn rule(ports: &[RangeInclusive<u16>], targets: &[u16]) -> PortRule {
        let targets = targets.iter().map(|id| TargetId(*id)).collect();
        PortRule { ports: ports.to_vec(), targets, ..PortRule::default() }
    }

    fn distribution(targets: &[u16], rules: &[PortRule]) -> Distribution {
        Distribution::new(Policy::RoundRobin, &candidates(targets), rules).expect("within bounds")
    }

    fn choice(distribution: &mut Distribution, port: u16) -> Option<u16> {
        distribution.choose(TCP, port, |_| 0).ok().map(|id| id.0)
    }

    #[test]
    fn the_first_rule_that_names_a_port_decides() {
        let rules = [rule(&[80..=80, 1000..=2000], &[1]), rule(&[1500..=3000], &[2]), rule(&[0..=90], &[3])];
        let mut distribution = distribution(&[1, 2, 3], &rules);
        let cases = [(80, 1), (1000, 1), (2000, 1), (1500, 1), (2001, 2), (3000, 2), (0, 3), (81, 3)];
        for (port, target) in cases {
            assert!(distribution.names(TCP, port));
            assert_eq!(choice(&mut distribution, port), Some(target), "port {port}");
        }
        for port in [91, 999, 3001, u16::MAX] {
            assert!(!distribution.names(TCP, port) && choice(&mut distribution, port).is_none(), "port {port}");
        }
    }

    #[test]
    fn no_rules_name_no_port_and_a_rule_may_name_all() {
        assert!(!Distribution::default().names(TCP, 80));
        let all = distribution(&[1], &[rule(&[0..=u16::MAX], &[1])]);
        assert!(all.names(TCP, 0) && all.names(TCP, u16::MAX));
    }

    #[test]
    fn each_rule_has_its_own_turn() {
        let mut distribution = distribution(&[1, 2], &[rule(&[80..=80], &[1, 2]), rule(&[443..=443], &[1, 2])]);
        let chosen = [80, 443, 80, 443].map(|port| choice(&mut distribution, port));
        assert_eq!(chosen, [Some(1), Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn a_rule_keeps_its_turn_when_the_targets_change_and_another_rule_does_not_take_it() {
        let (web, tls) = (rule(&[80..=80], &[1, 2, 3]), rule(&[443..=443], &[1, 2, 3]));
        let mut old = distribution(&[1, 2, 3], &[web.clone(), tls.clone()]);
        assert_eq!(choice(&mut old, 80), Some(1));
        let mut new = distribution(&[1, 2], &[tls, web]);
        new.succeed(&old);
        assert_eq!([80, 443].map(|port| choice(&mut new, port)), [Some(2), Some(1)]);
    }

    #[test]
    fn a_rule_whose_targets_are_not_there_names_its_ports_and_chooses_nobody() {
        let mut distribution = distribution(&[1], &[rule(&[80..=80], &[2])]);
        assert!(distribution.names(TCP, 80));
        assert_eq!(choice(&mut distribution, 80), None);
    }

    #[test]
    fn only_targets_that_listen_on_the_port_are_chosen_for_it() {
        let mut listeners = Listeners { known: 0b111, ..Listeners::default() };
        listeners.tcp.add(80, 0b011);
        listeners.tcp.add(443, 0b100);
        let rules = [rule(&[80..=80], &[1, 2, 3]), rule(&[443..=444], &[1, 2])];
        let mut all = distribution(&[1, 2, 3], &rules).with_listeners(listeners.clone());
        assert_eq!([80; 4].map(|port| choice(&mut all, port)), [Some(1), Some(2), Some(1), Some(2)]);
        // Target 3 listens on 443, but the rule does not name it: for the peer nobody is there.
        assert_eq!([443, 444].map(|port| all.choose(TCP, port, |_| 0)), [Err(DropReason::NoListener); 2]);
        assert_eq!(all.choose(TCP, 22, |_| 0), Err(DropReason::NoTarget), "no rule: not for targets");
        // One that is about to tell may be the one that listens.
        let waiting = Listeners { known: 0b110, pending: 0b001, ..listeners.clone() };
        let mut all = distribution(&[1, 2, 3], &rules).with_listeners(waiting);
        assert_eq!(all.choose(TCP, 444, |_| 0), Err(DropReason::NoTarget));
        // One that listens and drains does not refuse.
        let mut drained = candidates(&[1, 2]);
        drained.iter_mut().for_each(|c| c.draining = true);
        let all = Distribution::new(Policy::RoundRobin, &drained, &[rule(&[80..=80], &[1, 2])]).expect("within bounds");
        let mut all = all.with_listeners(Listeners { known: 0b11, ..listeners });
        assert_eq!(all.choose(TCP, 80, |_| 0), Err(DropReason::NoTarget));
    }

    #[test]
    fn a_rule_names_the_ports_of_its_protocol_only_and_asks_that_ones_listeners() {
        let of = |protocol, port: u16, target| PortRule { protocol, ..rule(&[port..=port], &[target]) };
        let rules = [of(Transport::Udp, 443, 1), of(Transport::Tcp, 443, 2), of(Transport::Both, 53, 1)];
        let mut listeners = Listeners { known: 0b11, ..Listeners::default() };
        listeners.udp.add(443, 0b11);
        listeners.tcp.add(53, 0b01);
        let mut all = distribution(&[1, 2], &rules).with_listeners(listeners);
        assert_eq!(all.choose(UDP, 443, |_| 0), Ok(TargetId(1)));
        assert_eq!(all.choose(TCP, 443, |_| 0), Err(DropReason::NoListener));
        assert_eq!(all.choose(TCP, 53, |_| 0), Ok(TargetId(1)));
        assert_eq!(all.choose(UDP, 53, |_| 0), Err(DropReason::NoListener));
        assert!(all.names(UDP, 53) && !all.names(protocol::SCTP, 53) && !all.names(UDP, 80));
        assert!(Transport::Both.overlaps(Transport::Udp) && !Transport::Tcp.overlaps(Transport::Udp));
    }

    #[test]
    fn more_than_a_core_may_have_to_look_at_is_refused() {
        let new =
            |targets: &[u16], rules: &[PortRule]| Distribution::new(Policy::RoundRobin, &candidates(targets), rules);
        let refused = |rules: &[PortRule]| new(&[], rules).err();
        let long = rule(&vec![80..=80; 17], &[]);
        assert_eq!(refused(&[long]), Some(SteeringError::TooManyRanges(17)));
        assert_eq!(refused(&vec![rule(&[], &[]); 17]), Some(SteeringError::TooManyRules(17)));
        assert_eq!(refused(&vec![rule(&vec![80..=80; 16], &[]); 16]), None);
        let ids: Vec<u16> = (0..33).collect();
        assert_eq!(new(&ids, &[]).err(), Some(SteeringError::TooManyTargets(33)));
        assert!(new(&ids[1..], &[]).is_ok());
    }

    proptest! {
        #[test]
        fn a_port_is_named_if_one_of_all_ranges_has_it(
            ranges in prop::collection::vec(prop::collection::vec((any::<u16>(), any::<u16>()), 0..5), 0..8),
            port: u16,
        ) {
            let rules: Vec<PortRule> = ranges
                .iter()
                .map(|all| rule(&all.iter().map(|&(a, b)| a.min(b)..=a.max(b)).collect::<Vec<_>>(), &[1]))
                .collect();
            let named = ranges.iter().flatten().any(|&(a, b)| a.min(b) <= port && port <= a.max(b));
            let mut distribution = distribution(&[1], &rules);
            prop_assert_eq!(distribution.names(TCP, port), named);
            prop_assert!(!distribution.names(UDP, port));
            prop_assert_eq!(choice(&mut distribution, port).is_some(), named);
        }
    }
}
