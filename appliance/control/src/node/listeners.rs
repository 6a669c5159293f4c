//! Listeners and load (R25): what this node as a target sees of its host goes to its routers; what its targets tell this node
//! as a router goes to its core.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use phalanx_cluster::NodeName;
use phalanx_dataplane::command::TargetEntry;
use phalanx_steering::{Listeners, LoadWeight, Policy};
use phalanx_wire::{TargetId, VipId, protocol};

use super::brain::Brain;
use super::lookout::Seen;
use super::plan;

/// How often weights follow the loads.
const STEP: Duration = Duration::from_millis(250);

/// The loads of a router's targets.
pub struct Loads {
    of: BTreeMap<NodeName, LoadWeight>,
    stepped: Instant,
}

impl Default for Loads {
    fn default() -> Self {
        Loads { of: BTreeMap::new(), stepped: Instant::now() }
    }
}

impl Loads {
    pub(super) fn report(&mut self, node: NodeName, permille: u16) {
        self.of.entry(node).or_default().report(permille);
    }

    /// What a node reported last, in permille, and its weight.
    pub(super) fn of(&self, node: &str) -> (Option<u16>, u16) {
        let load = self.of.get(node).copied().unwrap_or_default();
        (load.reported(), load.weight())
    }

    /// Whether some weight changed.
    fn step(&mut self) -> bool {
        let mut changed = false;
        for load in self.of.values_mut() {
            let before = load.weight();
            load.step();
            changed |= load.weight() != before;
        }
        changed
    }
}

impl Brain {
    /// The lookout saw something.
    pub(super) fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Ports(vip, tcp, udp) => {
                let Some(router) = self.vips.get(&vip).map(|state| self.router_of(state).to_owned()) else { return };
                let name = self.vip_name(vip);
                let Some(target) = self.routers.get_mut(router.as_str()) else { return };
                if target.listens(vip).is_none_or(|(before, _)| *before != tcp) {
                    tracing::info!(vip = name, ports = in_words(&tcp), "listeners here");
                }
                target.listening(vip, tcp, udp);
            }
            Seen::Load(permille) => self.routers.values_mut().for_each(|target| target.load(permille)),
            Seen::Blind(why) => self.warn(why),
        }
    }

    pub(super) fn log_listeners(&self, node: &str, vip: VipId) {
        let ports = self.numbering.id(node).and_then(|id| self.router.as_ref()?.listened(id, vip).ok());
        if let Some(listened) = ports {
            tracing::info!(node, vip = self.vip_name(vip), ports = in_words(&listened.tcp), "listeners of a target");
        }
    }

    /// The VIPs that this node serves changed.
    pub(super) fn look_for_vips(&mut self) {
        let mine = self.vips.iter().filter(|(_, state)| self.routers.contains_key(self.router_of(state)));
        let vips: Vec<(VipId, IpAddr)> = mine.map(|(vip, state)| (*vip, state.entry.address)).collect();
        if let Some(lookout) = &self.lookout {
            lookout.look_for(vips);
        }
    }

    /// Who listens where, with `entries` as the order of the bits.
    pub(super) fn listeners(&self, vip: VipId, entries: &[TargetEntry]) -> Listeners {
        let mut all = Listeners::default();
        let Some(router) = &self.router else { return all };
        for (entry, at) in entries.iter().zip(0..u32::BITS) {
            let bit = 1 << at;
            match router.listened(entry.id, vip) {
                Ok(listened) => {
                    all.known |= bit;
                    listened.tcp.iter().for_each(|port| all.tcp.add(*port, bit));
                    listened.udp.iter().for_each(|port| all.udp.add(*port, bit));
                }
                // Nobody is refused on account of a target that is about to tell, or may be back at once.
                Err(soon) if soon || self.absent.contains_key(&entry.id) => all.pending |= bit,
                Err(_) => {}
            }
        }
        all
    }

    /// The share of a VIP's new connections that a target is to have.
    pub(super) fn weight(&self, vip: VipId, target: TargetId) -> u16 {
        let by_load = self.configured(vip).is_some_and(|vip| plan::policy(vip) == Policy::Load);
        if by_load { self.loads.of(&self.target_name(target)).1 } else { 1 }
    }

    /// Weights follow the loads.
    pub(super) fn step_loads(&mut self) {
        if self.loads.stepped.elapsed() < STEP {
            return;
        }
        self.loads.stepped = Instant::now();
        if self.loads.step() {
            let by_load = |vip: &crate::config::Vip| plan::policy(vip) == Policy::Load;
            let vips: Vec<VipId> = self.config.vips.iter().filter(|v| by_load(v)).map(|v| VipId(v.id)).collect();
            vips.into_iter().for_each(|vip| self.set_targets(vip));
        }
    }

    /// On which ports of its VIPs a target listens, as `web: 80,443,8000-8999`.
    pub(super) fn listening_in_words(&self, target: TargetId, vips: impl Iterator<Item = VipId>) -> Vec<String> {
        let Some(router) = &self.router else { return Vec::new() };
        let listened = |vip| {
            let (name, listened) = (self.vip_name(vip), router.listened(target, vip).ok()?);
            let udp = self.rules(vip).iter().any(|rule| rule.protocol.has(protocol::UDP));
            let udp = if udp { format!(" udp {}", in_words(&listened.udp)) } else { String::new() };
            Some(format!("{name}: {}{udp}", in_words(&listened.tcp)))
        };
        vips.filter_map(listened).collect()
    }
}

/// `80,443,8000-8999`; `-` for none. `ports` are ascending.
pub(super) fn in_words(ports: &[u16]) -> String {
    let range = |range: &[u16]| match *range {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    let ranges: Vec<String> = ports.chunk_by(|a, b| a.checked_add(1) == Some(*b)).map(range).collect();
    if ranges.is_empty() { "-".to_owned() } else { ranges.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_ranges() {
        assert_eq!(in_words(&[]), "-");
        assert_eq!(in_words(&[80]), "80");
        assert_eq!(in_words(&[22, 80, 81, 8000, 8001, 8002, 65534, 65535]), "22,80-81,8000-8002,65534-65535");
    }

    #[test]
    fn weights_follow_what_is_reported_and_rest_then() {
        let mut loads = Loads::default();
        assert_eq!(loads.of("t1"), (None, 500));
        loads.report("t1".into(), 0);
        assert_eq!(loads.of("t1"), (Some(0), 1000));
        assert!(!loads.step());
        loads.report("t1".into(), 800);
        assert!(loads.step());
        (0..40).for_each(|_| _ = loads.step());
        assert!(!loads.step());
        assert_eq!(loads.of("t1"), (Some(800), 200));
    }
}
