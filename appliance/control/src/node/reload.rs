//! Change while the node runs: the configuration is read again (SIGHUP), a VIP goes down and up, an SA is deleted. There is one
//! way to all of it: say what is wanted, then [`Brain::converge`]. What is as it should be is not touched.
//!
//! VIPs, static SAs and filters can change. Ports, cores, memory, limits and the cluster's nodes are what everything was
//! allocated for; they are compared and named, and wait for a restart.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_cluster::{CouplingError, PairPhase, PairStatus, SaPair, VipPlan};
use phalanx_dataplane::Command;
use phalanx_wire::{SaId, VipId};
use serde::{Deserialize, Serialize};

use super::books::RuleSource;
use super::brain::{Brain, Input};
use super::{plan, start};
use crate::config::{self, Config};

/// What is wanted otherwise than the configuration says, and what is on its way.
#[derive(Default)]
pub struct Wanted {
    /// VIPs that were taken down.
    pub down: BTreeSet<VipId>,
    /// Pairs, by their inbound SA, that were deleted or used up: they come back with another key or after a restart.
    pub deleted: BTreeSet<SaId>,
    /// Pairs whose ceilings are being read.
    reading: BTreeSet<SaId>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// What changed, a sentence each.
    pub changed: Vec<String>,
    /// What is different in the file and needs a restart.
    pub needs_restart: Vec<String>,
    /// Why nothing changed at all.
    pub refused: Option<String>,
}

impl Reloaded {
    fn refused(why: String) -> Reloaded {
        Reloaded { refused: Some(why), ..Reloaded::default() }
    }

    /// For the log: nobody else hears of a signal.
    pub(super) fn log(&self) {
        if let Some(why) = &self.refused {
            return tracing::error!("the configuration was not reloaded, everything stays as it is: {why}");
        }
        tracing::info!(changes = self.changed.len(), "the configuration was reloaded");
        self.changed.iter().for_each(|change| tracing::info!("{change}"));
        self.needs_restart.iter().for_each(|part| tracing::warn!("cannot change while the node runs: {part}"));
    }
}

impl Brain {
    /// Reads the configuration again and makes it so, as far as a running node can. A file with a mistake changes nothing.
    pub(super) fn reload(&mut self) -> Reloaded {
        let new = match config::load(&self.config.path) {
            Ok(checked) => checked.config,
            Err(report) => return Reloaded::refused(report.render(false)),
        };
        if let Some(why) = moved(&self.config, &new) {
            return Reloaded::refused(why);
        }
        let mut needs_restart = fixed(&self.config, &new);
        if self.router.is_none() && !new.vips.is_empty() {
            needs_restart.push("[[vip]]: this node owned none when it started".to_owned());
        }
        let old = self.config.clone();
        let Config { vips, peers, ike, sas, filters, warnings, .. } = new;
        let merged = Config { vips, peers, ike, sas, filters, warnings, ..old };
        let planned = plan::vips(&merged, &self.numbering).and_then(|_| plan::pairs(&merged));
        if let Err(error) = planned {
            return Reloaded::refused(error.to_string());
        }
        let names = |config: &Config| config.peers.iter().map(|peer| peer.ike.name.clone()).collect::<BTreeSet<_>>();
        let (before, after) = (names(&self.config), names(&merged));
        self.config = merged;
        let mut changed = self.converge();
        changed.extend(after.difference(&before).map(|name| format!("peer {name} begins")));
        changed.extend(before.difference(&after).map(|name| format!("peer {name} ends")));
        self.settle();
        Reloaded { changed, needs_restart, refused: None }
    }

    /// The VIPs that this router is to serve.
    pub(super) fn planned_vips(&self) -> Vec<VipPlan> {
        // The configuration was planned once before it was taken.
        let plans = plan::vips(&self.config, &self.numbering).unwrap_or_default();
        plans.into_iter().filter(|plan| !self.wanted.down.contains(&plan.def.vip)).collect()
    }

    fn planned_pairs(&self) -> Vec<SaPair> {
        let wanted = |pair: &SaPair| {
            !self.wanted.down.contains(&pair.inbound.vip) && !self.wanted.deleted.contains(&pair.inbound.id)
        };
        plan::pairs(&self.config).unwrap_or_default().into_iter().filter(wanted).collect()
    }

    /// Makes this router's VIPs and static SAs those that are wanted; what it changes, a sentence each.
    pub(super) fn converge(&mut self) -> Vec<String> {
        if self.router.is_none() {
            return Vec::new();
        }
        let (plans, pairs) = (self.planned_vips(), self.planned_pairs());
        self.ike_configure();
        self.ike_settle();
        let negotiated = self.ike.as_ref().into_iter().flat_map(|ike| ike.pairs().cloned());
        let wanted: Vec<SaPair> = pairs.iter().cloned().chain(negotiated).collect();
        let mut said = self.end_pairs(&wanted);
        said.extend(self.end_vips(&plans));
        said.extend(self.begin_vips(plans));
        self.become_own_target();
        said.extend(self.begin_pairs(pairs));
        said
    }

    /// An SA changes by being taken out and put in again: its numbers go on by its key, its windows by its id.
    fn end_pairs(&mut self, wanted: &[SaPair]) -> Vec<String> {
        let now = self.now();
        let Some(router) = &mut self.router else { return Vec::new() };
        let wanted: BTreeMap<SaId, &SaPair> = wanted.iter().map(|pair| (pair.inbound.id, pair)).collect();
        let here = router.pairs().filter(|pair| pair.phase != PairPhase::Removing).map(|pair| pair.spec);
        let over: Vec<SaPair> =
            here.filter(|spec| wanted.get(&spec.inbound.id).is_none_or(|one| !same(one, spec))).collect();
        let mut said = Vec::new();
        for pair in over {
            let what = if wanted.contains_key(&pair.inbound.id) { "changes" } else { "ends" };
            match router.remove_sa(pair.inbound.id, now) {
                Ok(()) => said.push(format!("SA {} {what}", pair.inbound.tunnel)),
                Err(error) => tracing::error!(%error, "an SA could not be removed"),
            }
        }
        said
    }

    fn end_vips(&mut self, wanted: &[VipPlan]) -> Vec<String> {
        let ours = self.vips.iter().filter(|(_, state)| state.router.is_none());
        let over = ours.filter(|(id, _)| !wanted.iter().any(|plan| plan.def.vip == **id));
        let over: Vec<(VipId, std::net::IpAddr)> = over.map(|(id, state)| (*id, state.entry.address)).collect();
        let mut said = Vec::new();
        for (vip, address) in over {
            // First the sockets, which say goodbye through SAs that are still there.
            self.on_tap(address, false);
            let now = self.now();
            if let Some(Err(error)) = self.router.as_mut().map(|router| router.remove_vip(vip, now)) {
                tracing::error!(%error, "a VIP could not be removed");
            }
            self.settle();
            self.close_vip(vip);
            said.push(format!("VIP {address} ends"));
        }
        said
    }

    fn begin_vips(&mut self, wanted: Vec<VipPlan>) -> Vec<String> {
        let mut said = Vec::new();
        for plan in wanted {
            let (vip, address, filters) = (plan.def.vip, plan.def.address, plan.def.filters.clone());
            let known = self.router.as_ref().and_then(|router| router.vip_plan(vip));
            if known == Some(&plan) {
                // How a target is chosen is not part of the plan.
                self.set_targets(vip);
                continue;
            }
            let what = if known.is_some() { "changes" } else { "begins" };
            let left = known.map(|known| known.targets.clone()).unwrap_or_default();
            if known.is_none() {
                self.open_vip(&plan.def);
            }
            // I2: what a target that leaves may have accepted is never told any more.
            for target in left.into_iter().filter(|target| !plan.targets.contains(target)) {
                self.tell_router(Command::PurgeTarget(vip, target));
            }
            let now = self.now();
            if let Some(router) = &mut self.router {
                router.set_vip(plan, now);
            }
            self.set_rules(RuleSource::Vip(vip), filters);
            said.push(format!("VIP {address} {what}"));
        }
        said
    }

    fn begin_pairs(&mut self, wanted: Vec<SaPair>) -> Vec<String> {
        let now = self.now();
        let Some(router) = &mut self.router else { return Vec::new() };
        let known: BTreeMap<SaId, PairStatus> = router.pairs().map(|pair| (pair.spec.inbound.id, pair)).collect();
        let (mut said, mut fresh) = (Vec::new(), Vec::new());
        for pair in wanted {
            let (id, tunnel) = (pair.inbound.id, pair.inbound.tunnel);
            match known.get(&id) {
                None => fresh.push(pair),
                // On its way out: see `sa_gone`.
                Some(known) if known.phase == PairPhase::Removing || known.spec.filters == pair.filters => {}
                Some(_) => match router.set_rules(id, pair.filters, now) {
                    Ok(()) => said.push(format!("the rule of SA {tunnel} changes")),
                    Err(error) => tracing::error!(%error, "an SA's rule could not be changed"),
                },
            }
        }
        for mut pair in fresh {
            let id = pair.inbound.id;
            if self.wanted.reading.insert(id) {
                said.push(format!("SA {} begins", pair.inbound.tunnel));
                self.ask_store(
                    move |store| async move { start::remember(&mut pair, &store).await.map(|()| pair) },
                    move |pair| Input::Remembered(id, pair),
                );
            }
        }
        said
    }

    /// The store told what it remembers of a pair: it may begin, if it is still wanted as it was.
    pub(super) fn remembered(&mut self, id: SaId, pair: Result<SaPair, CouplingError>) {
        self.wanted.reading.remove(&id);
        match pair {
            Ok(pair) => {
                if self.planned_pairs().iter().any(|one| same(one, &pair)) {
                    self.open_sas(vec![pair]);
                } else {
                    self.converge();
                }
            }
            Err(error) => self.warn(format!("SA {id} does not begin: the coupling store: {error}")),
        }
    }

    /// A pair is gone everywhere. One that only changed comes again.
    pub(super) fn sa_gone(&mut self, id: SaId) {
        if self.planned_pairs().iter().any(|pair| pair.inbound.id == id) {
            self.converge();
        }
    }
}

/// The same SAs, whatever rules lead to them.
fn same(a: &SaPair, b: &SaPair) -> bool {
    (&a.inbound, &a.outbound, a.keepalive_us) == (&b.inbound, &b.outbound, b.keepalive_us)
}

/// Why the new configuration cannot even be begun: a VIP's number is what packets and nodes know it by.
fn moved(old: &Config, new: &Config) -> Option<String> {
    let clash = |vip: &config::Vip| {
        let known = old.vips.iter().find(|known| known.id == vip.id)?;
        let words = format!(
            "VIP {} has the number {} of VIP {}, which is {}: give it another id, or restart the node",
            vip.name, vip.id, known.name, known.address
        );
        (known.address != vip.address).then_some(words)
    };
    new.vips.iter().find_map(clash)
}

/// The parts of the file that differ and cannot change while the node runs.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let sections = [
        ("[node]", old.node != new.node),
        ("[cluster]", old.cluster != new.cluster),
        ("[memory]", old.memory != new.memory),
        ("[limits]", old.limits != new.limits),
        ("[[core]]", old.cores != new.cores),
    ];
    let sections = sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned());
    let names: BTreeSet<&str> = old.ports.iter().chain(&new.ports).map(|port| port.name.as_str()).collect();
    let port = |config: &'_ Config, name: &str| config.ports.iter().find(|port| port.name == name).cloned();
    let ports = names.into_iter().filter(|name| port(old, name) != port(new, name));
    sections.chain(ports.map(|name| format!("[[port]] {name}"))).collect()
}
