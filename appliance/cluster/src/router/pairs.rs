//! The life of a pair of SAs (I4, R2, R3, R6): placed in the coupling facility, then on the router's own cores, then on
//! the targets of its VIP and on nobody else; each acknowledged; and the same way out.

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_ipsec::{Direction, SaParams};
use phalanx_wire::{SaId, VipId};

use super::RouterCluster;
use super::member::What;
use crate::ceiling::{Ceiling, Reached};
use crate::coupling::keys;
use crate::error::ClusterError;
use crate::ledger::Use;
use crate::messages::{NodeName, RankedFilter};
use crate::outputs::{Missing, RouterOutput, SaPair};

/// How far a pair came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PairPhase {
    /// Its outbound counter is not in the coupling facility yet (R3).
    Placing,
    /// The router's own cores install it.
    Local,
    /// The targets install it.
    Spreading,
    /// Whoever is there holds it.
    Ready,
    /// All forget it.
    Removing,
}

impl PairPhase {
    /// Its name in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Placing => "placing",
            Self::Local => "local",
            Self::Spreading => "spreading",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

/// A pair, for `status`.
#[derive(Debug, Clone)]
pub struct PairStatus {
    /// What it is.
    pub spec: SaPair,
    /// How far it came.
    pub phase: PairPhase,
    /// Live targets that do not hold it.
    pub missing: Vec<Missing>,
    /// What the inbound SA used, as far as reported.
    pub inbound: Use,
    /// What the outbound SA used, as far as reported.
    pub outbound: Use,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub spec: SaPair,
    pub phase: PairPhase,
    began: u64,
    /// Requests to the router's own cores that are open.
    local: BTreeSet<u64>,
    local_error: Option<String>,
}

impl Pair {
    pub(super) fn vip(&self) -> VipId {
        self.spec.inbound.vip
    }

    /// The router's own cores have it.
    pub(super) fn local_done(&self) -> bool {
        matches!(self.phase, PairPhase::Spreading | PairPhase::Ready)
    }

    /// A target may be told of it.
    pub(super) fn spreads(&self) -> bool {
        self.local_done() && self.local_error.is_none()
    }

    pub(super) fn params(&self, sa: SaId) -> &Arc<SaParams> {
        if sa == self.spec.outbound.id { &self.spec.outbound } else { &self.spec.inbound }
    }

    fn ids(&self) -> [SaId; 2] {
        [self.spec.inbound.id, self.spec.outbound.id]
    }
}

/// The two SAs must be two directions of one thing.
fn check_pair(spec: &SaPair) -> Result<(), ClusterError> {
    let (a, b) = (&spec.inbound, &spec.outbound);
    let differ = if (a.direction, b.direction) != (Direction::Inbound, Direction::Outbound) {
        "direction"
    } else if a.vip != b.vip {
        "VIP"
    } else if a.peer != b.peer {
        "peer"
    } else if a.tunnel != b.tunnel {
        "tunnel"
    } else if a.id == b.id {
        "their number, which is the same"
    } else {
        return Ok(());
    };
    Err(ClusterError::MixedPair(differ))
}

impl RouterCluster {
    /// Starts a pair of SAs: `SaReady` follows. A pair that is there already is left alone.
    ///
    /// # Errors
    /// An unknown VIP, a pair that does not belong together, a limit.
    pub fn add_sa(&mut self, spec: SaPair, now: u64) -> Result<(), ClusterError> {
        check_pair(&spec)?;
        let (inbound, outbound) = (spec.inbound.id, spec.outbound.id);
        if let Some(pair) = self.pairs.get(&inbound) {
            let same = pair.phase != PairPhase::Removing
                && (&pair.spec.inbound, &pair.spec.outbound) == (&spec.inbound, &spec.outbound);
            return if same { Ok(()) } else { Err(ClusterError::SaExists(inbound)) };
        }
        if self.outbound.contains_key(&outbound) || self.pairs.contains_key(&outbound) {
            return Err(ClusterError::SaExists(outbound));
        }
        if !self.vips.contains_key(&spec.inbound.vip) {
            return Err(ClusterError::UnknownVip(spec.inbound.vip));
        }
        if self.pairs.len() >= self.times.pairs_max {
            return Err(ClusterError::Limit { what: "pairs of SAs", limit: self.times.pairs_max });
        }
        // I1: the counter belongs to the key, not to the SA.
        let key = Arc::from(keys::outbound_counter(&spec.outbound.key.fingerprint()));
        self.sequencer.add(outbound, key, spec.outbound.esn, spec.outbound.window, now)?;
        for sa in [&spec.inbound, &spec.outbound] {
            self.ledger.add(sa.id, sa.lifesize.soft, sa.lifesize.hard, Use::default());
        }
        self.ceilings.insert(inbound, Ceiling::new(spec.ceiling));
        self.reached.insert(inbound, Reached::new(spec.reached));
        let settled = self.vips.get(&spec.inbound.vip).is_some_and(|vip| vip.settled);
        self.outbound.insert(outbound, inbound);
        let pair = Pair { spec, phase: PairPhase::Placing, began: now, local: BTreeSet::new(), local_error: None };
        self.pairs.insert(inbound, pair);
        self.raise_reached(inbound, 0);
        self.keep_alive(inbound, now);
        if !settled {
            self.sequencer.hold(outbound);
        }
        self.placed(outbound, now);
        self.pump(now);
        Ok(())
    }

    /// Ends the pair that this SA (of either direction) belongs to: `SaGone` follows.
    ///
    /// # Errors
    /// [`ClusterError::UnknownSa`].
    pub fn remove_sa(&mut self, sa: SaId, now: u64) -> Result<(), ClusterError> {
        let id = self.pair_of(sa).ok_or(ClusterError::UnknownSa(sa))?;
        let Some(pair) = self.pairs.get_mut(&id) else {
            return Err(ClusterError::UnknownSa(sa));
        };
        if pair.phase == PairPhase::Removing {
            return Ok(());
        }
        let (was, ids, vip) = (pair.phase, pair.ids(), pair.vip());
        (pair.phase, pair.began) = (PairPhase::Removing, now);
        pair.local_error = None;
        for request in std::mem::take(&mut pair.local) {
            self.local.remove(&request);
        }
        for at in 0..self.members.len() {
            if self.members[at].live() && self.serves(at, vip) {
                self.forget_at(at, &ids, now);
            }
        }
        if was > PairPhase::Placing {
            for sa in ids {
                let request = self.local_request(id);
                self.outputs.push_back(RouterOutput::RemoveLocal { request, sa });
            }
        }
        self.due.insert((now + self.times.ack_us, id));
        self.review(id, now);
        Ok(())
    }

    /// Gives a pair other rules; its SAs, windows and numbers stay as they are.
    ///
    /// # Errors
    /// [`ClusterError::UnknownSa`].
    pub fn set_rules(&mut self, sa: SaId, filters: Vec<RankedFilter>, now: u64) -> Result<(), ClusterError> {
        let id = self.pair_of(sa).ok_or(ClusterError::UnknownSa(sa))?;
        let pair = self.pairs.get_mut(&id).filter(|pair| pair.phase != PairPhase::Removing);
        let pair = pair.ok_or(ClusterError::UnknownSa(sa))?;
        if pair.spec.filters == filters {
            return Ok(());
        }
        pair.spec.filters.clone_from(&filters);
        let (vip, outbound, phase, spreads) = (pair.vip(), pair.spec.outbound.id, pair.phase, pair.spreads());
        // Before that they come with the SA.
        if phase > PairPhase::Placing {
            self.outputs.push_back(RouterOutput::LocalRules { sa: outbound, filters });
        }
        for at in 0..self.members.len() {
            if spreads && self.members[at].live() && self.serves(at, vip) {
                self.ask(at, What::InstallSa(outbound), now);
            }
        }
        Ok(())
    }

    /// The turn of a pair's outbound SA has come: from now on its tunnel's packets take it, here and on all targets, instead
    /// of the one it replaces, if there is one.
    ///
    /// # Errors
    /// [`ClusterError::UnknownSa`].
    pub fn use_outbound(&mut self, sa: SaId, instead_of: Option<SaId>, now: u64) -> Result<(), ClusterError> {
        let id = self.pair_of(sa).ok_or(ClusterError::UnknownSa(sa))?;
        let pair = self.pairs.get_mut(&id).filter(|pair| pair.phase != PairPhase::Removing);
        let pair = pair.ok_or(ClusterError::UnknownSa(sa))?;
        if !std::mem::take(&mut pair.spec.waits) {
            return Ok(());
        }
        let (vip, outbound, phase, spreads) = (pair.vip(), pair.spec.outbound.id, pair.phase, pair.spreads());
        // Who joins from now on gets the old one as one whose turn is not.
        let old = instead_of.and_then(|old| self.pair_of(old)).filter(|old| *old != id);
        old.and_then(|old| self.pairs.get_mut(&old)).into_iter().for_each(|old| old.spec.waits = true);
        if phase > PairPhase::Placing {
            self.outputs.push_back(RouterOutput::UseLocal(outbound));
        }
        for at in 0..self.members.len() {
            if spreads && self.members[at].live() && self.serves(at, vip) {
                self.ask(at, What::InstallSa(outbound), now);
            }
        }
        Ok(())
    }

    /// The router's own cores did what `InstallLocal` or `RemoveLocal` asked, or why not.
    pub fn local_done(&mut self, request: u64, result: Result<(), String>, now: u64) {
        let Some(id) = self.local.remove(&request) else {
            return;
        };
        let Some(pair) = self.pairs.get_mut(&id) else {
            return;
        };
        pair.local.remove(&request);
        if let Err(error) = result {
            self.outputs.push_back(RouterOutput::Warn(format!("SA pair {id} on this router's own cores: {error}")));
            pair.local_error = Some(error);
        }
        if pair.phase == PairPhase::Local && pair.local.is_empty() {
            (pair.phase, pair.began) = (PairPhase::Spreading, now);
            self.due.insert((now + self.times.ack_us, id));
            let (vip, ids, spreads) = (pair.vip(), pair.ids(), pair.spreads());
            if self.vips.get(&vip).is_some_and(|vip| vip.settled) {
                self.arm(id, now);
            }
            for at in 0..self.members.len() {
                // R2: to the targets of the VIP and to nobody else.
                if spreads && self.members[at].live() && self.serves(at, vip) {
                    for sa in ids {
                        self.ask(at, What::InstallSa(sa), now);
                    }
                }
            }
        }
        self.review(id, now);
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = PairStatus> {
        self.pairs.values().map(|pair| PairStatus {
            spec: pair.spec.clone(),
            phase: pair.phase,
            missing: self.missing(pair),
            inbound: self.ledger.total(pair.spec.inbound.id).unwrap_or_default(),
            outbound: self.ledger.total(pair.spec.outbound.id).unwrap_or_default(),
        })
    }

    pub(super) fn pair_of(&self, sa: SaId) -> Option<SaId> {
        self.outbound.get(&sa).copied().or_else(|| self.pairs.contains_key(&sa).then_some(sa))
    }

    /// The outbound counter may be in the coupling facility now: then the router's own cores come first (R2, R3).
    pub(super) fn placed(&mut self, outbound: SaId, now: u64) {
        let Some(id) = self.outbound.get(&outbound).copied() else {
            return;
        };
        if !self.sequencer.placed(outbound) {
            return;
        }
        let Some(pair) = self.pairs.get_mut(&id).filter(|pair| pair.phase == PairPhase::Placing) else {
            return;
        };
        (pair.phase, pair.began) = (PairPhase::Local, now);
        let (inbound, outbound) = (Arc::clone(&pair.spec.inbound), Arc::clone(&pair.spec.outbound));
        let (filters, early, waits) = (pair.spec.filters.clone(), pair.spec.early, pair.spec.waits);
        for (sa, filters, early, waits) in [(inbound, Vec::new(), early, false), (outbound, filters, false, waits)] {
            let request = self.local_request(id);
            self.outputs.push_back(RouterOutput::InstallLocal { request, sa, filters, early, waits });
        }
    }

    /// Tells one node to forget these SAs, whatever it was asked about them before.
    pub(super) fn forget_at(&mut self, at: usize, sas: &[SaId], now: u64) {
        sas.iter().for_each(|sa| self.members[at].outstanding.forget(What::InstallSa(*sa)));
        for sa in sas {
            self.ask(at, What::RemoveSa(*sa), now);
        }
    }

    /// Whether the pair is done with its phase; after its time it is anyway.
    pub(super) fn review(&mut self, id: SaId, now: u64) {
        let Some(pair) = self.pairs.get(&id) else {
            return;
        };
        if !matches!(pair.phase, PairPhase::Local | PairPhase::Spreading | PairPhase::Removing) {
            return;
        }
        let due = pair.began + self.times.ack_us;
        let missing = self.missing(pair);
        let failed = pair.phase == PairPhase::Spreading && pair.local_error.is_some();
        // Before the router's own cores have it nobody may use it, however long that takes (I4).
        if pair.phase == PairPhase::Local || (!missing.is_empty() && now < due && !failed) {
            return;
        }
        self.due.remove(&(due, id));
        if pair.phase == PairPhase::Spreading {
            if let Some(pair) = self.pairs.get_mut(&id) {
                pair.phase = PairPhase::Ready;
            }
            self.outputs.push_back(RouterOutput::SaReady { sa: id, missing });
            return;
        }
        if let Some(pair) = self.pairs.remove(&id) {
            self.outbound.remove(&pair.spec.outbound.id);
            self.sequencer.remove(pair.spec.outbound.id);
            self.paths.forget(pair.spec.outbound.id);
            self.ceilings.remove(&id);
            self.reached.remove(&id);
            self.forget_peer(&pair);
            for request in &pair.local {
                self.local.remove(request);
            }
            for sa in pair.ids() {
                self.ledger.remove(sa);
            }
        }
        self.outputs.push_back(RouterOutput::SaGone { sa: id, missing });
    }

    /// A node left or joined: whoever waited for it looks again.
    pub(super) fn review_pairs(&mut self, now: u64) {
        let waiting: Vec<SaId> = self.due.iter().map(|(_, id)| *id).collect();
        for id in waiting {
            self.review(id, now);
        }
    }

    fn missing(&self, pair: &Pair) -> Vec<Missing> {
        let ids = pair.ids();
        let whats = || ids.into_iter().flat_map(|sa| [What::InstallSa(sa), What::RemoveSa(sa)]);
        let local = match (&pair.local_error, pair.local.is_empty()) {
            (Some(error), _) => Some(error.clone()),
            (None, false) => Some("no answer from its cores".to_owned()),
            (None, true) => None,
        };
        let own = local.map(|why| Missing { node: NodeName::clone(&self.node), why });
        let others = self
            .members
            .iter()
            .filter(|member| member.live())
            .filter_map(|member| Some(Missing { node: member.node.clone(), why: member.why_missing(whats())? }));
        own.into_iter().chain(others).collect()
    }

    fn local_request(&mut self, pair: SaId) -> u64 {
        self.last_request += 1;
        self.local.insert(self.last_request, pair);
        if let Some(pair) = self.pairs.get_mut(&pair) {
            pair.local.insert(self.last_request);
        }
        self.last_request
    }
}
