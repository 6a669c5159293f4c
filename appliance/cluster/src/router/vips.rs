//! VIPs and requests: what each node should hold, what it was asked and what it confirmed (R2, R4-R6, R24).

use std::sync::Arc;

use phalanx_wire::{SaId, VipId};

use super::member::{MemberState, Outstanding, What};
use super::pairs::PairPhase;
use super::{RouterCluster, Vip};
use crate::error::ClusterError;
use crate::messages::ToTarget;
use crate::outputs::{RouterOutput, VipPlan};

impl RouterCluster {
    /// Defines a VIP or changes its definition or targets; its live targets are told, and so are those that were.
    pub fn set_vip(&mut self, plan: VipPlan, now: u64) {
        let vip = plan.def.vip;
        let before: Vec<bool> = (0..self.members.len()).map(|at| self.serves(at, vip)).collect();
        let settled = self.vips.get(&vip).is_some_and(|known| known.settled);
        self.vips.insert(vip, Vip { plan, settled });
        for (at, served) in before.into_iter().enumerate() {
            if !self.members[at].live() {
                continue;
            }
            match (served, self.serves(at, vip)) {
                (_, true) => {
                    self.ask(at, What::InstallVip(vip), now);
                    if !served {
                        self.install_sas(at, Some(vip), now);
                    }
                }
                (true, false) => self.ask(at, What::RemoveVip(vip), now),
                (false, false) => {}
            }
        }
        self.outputs.push_back(RouterOutput::EligibleChanged(vip));
        self.settle(now);
    }

    /// A VIP as it was last defined.
    #[must_use]
    pub fn vip_plan(&self, vip: VipId) -> Option<&VipPlan> {
        self.vips.get(&vip).map(|known| &known.plan)
    }

    /// Gives a VIP up: its SAs end, its targets forget it.
    ///
    /// # Errors
    /// [`ClusterError::UnknownVip`].
    pub fn remove_vip(&mut self, vip: VipId, now: u64) -> Result<(), ClusterError> {
        if !self.vips.contains_key(&vip) {
            return Err(ClusterError::UnknownVip(vip));
        }
        let pairs: Vec<SaId> =
            self.pairs.values().filter(|pair| pair.vip() == vip).map(|p| p.spec.inbound.id).collect();
        for sa in pairs {
            self.remove_sa(sa, now)?;
        }
        for at in 0..self.members.len() {
            if self.members[at].live() && self.serves(at, vip) {
                self.members[at].outstanding.forget(What::InstallVip(vip));
                self.ask(at, What::RemoveVip(vip), now);
            }
        }
        self.vips.remove(&vip);
        self.outputs.push_back(RouterOutput::EligibleChanged(vip));
        Ok(())
    }

    /// Asks a node for something and remembers that.
    pub(super) fn ask(&mut self, at: usize, what: What, now: u64) {
        self.last_request += 1;
        let request = self.last_request;
        let Some(message) = self.message(request, what) else {
            return;
        };
        self.members[at].outstanding.insert(request, Outstanding { what, since: now, failed: None });
        self.send(at, message);
        if let What::InstallSa(sa) = what {
            self.tell_lowered(at, sa);
            self.tell_where(at, sa);
        }
    }

    fn message(&self, request: u64, what: What) -> Option<ToTarget> {
        Some(match what {
            What::InstallVip(vip) => ToTarget::InstallVip { request, vip: self.vips.get(&vip)?.plan.def.clone() },
            What::RemoveVip(vip) => ToTarget::RemoveVip { request, vip },
            What::RemoveSa(sa) => ToTarget::RemoveSa { request, sa },
            What::InstallSa(sa) => {
                let pair = self.pairs.get(&self.pair_of(sa)?)?;
                let filters = if sa == pair.spec.outbound.id { pair.spec.filters.clone() } else { Vec::new() };
                let waits = pair.spec.waits && sa == pair.spec.outbound.id;
                ToTarget::InstallSa { request, sa: Arc::clone(pair.params(sa)), filters, waits }
            }
        })
    }

    /// A node was gathered: it gets all it should hold, and loses all it should not.
    pub(super) fn install_all(&mut self, at: usize, now: u64) {
        let vips = self.vips_of(at);
        let stale_vips: Vec<VipId> =
            self.members[at].told_vips.iter().filter(|vip| !vips.contains(vip)).copied().collect();
        for vip in stale_vips {
            self.ask(at, What::RemoveVip(vip), now);
        }
        let told = std::mem::take(&mut self.members[at].told);
        let stale: Vec<SaId> = told.into_iter().filter(|sa| !self.should_hold(at, *sa)).collect();
        self.forget_at(at, &stale, now);
        for vip in vips {
            self.ask(at, What::InstallVip(vip), now);
        }
        self.install_sas(at, None, now);
        self.advance(at);
    }

    fn should_hold(&self, at: usize, sa: SaId) -> bool {
        let pair = self.pair_of(sa).and_then(|id| self.pairs.get(&id));
        pair.is_some_and(|pair| pair.phase != PairPhase::Removing && self.serves(at, pair.vip()))
    }

    fn install_sas(&mut self, at: usize, vip: Option<VipId>, now: u64) {
        let wanted = self.pairs.values().filter(|pair| pair.spreads());
        let wanted = wanted.filter(|pair| vip.is_none_or(|vip| pair.vip() == vip) && self.serves(at, pair.vip()));
        let sas: Vec<SaId> = wanted.flat_map(|pair| [pair.spec.inbound.id, pair.spec.outbound.id]).collect();
        for sa in sas {
            self.ask(at, What::InstallSa(sa), now);
        }
    }

    pub(super) fn acknowledged(&mut self, at: usize, request: u64, error: Option<String>, now: u64) {
        // An answer to what was taken back meanwhile, or to an earlier session.
        let Some(mut open) = self.members[at].outstanding.remove(request) else {
            return;
        };
        let what = open.what;
        if let Some(error) = error {
            let node = &self.members[at].node;
            self.outputs.push_back(RouterOutput::Warn(format!("{node}: {what:?} failed: {error}")));
            let retry = now + self.times.retry_us;
            open.failed = Some((retry, error));
            let member = &mut self.members[at];
            member.retry_at = Some(member.retry_at.map_or(retry, |at| at.min(retry)));
            member.outstanding.insert(request, open);
        }
        if let What::InstallSa(sa) | What::RemoveSa(sa) = what
            && let Some(pair) = self.pair_of(sa)
        {
            self.review(pair, now);
        }
        self.advance(at);
    }

    /// A node that confirmed everything is ready.
    fn advance(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.state == MemberState::Joining && member.outstanding.is_empty() {
            member.state = MemberState::Ready;
            self.tell_eligible(at);
        }
    }

    fn tell_eligible(&mut self, at: usize) {
        let vips = self.vips_of(at);
        self.outputs.extend(vips.into_iter().map(RouterOutput::EligibleChanged));
    }

    /// What was not confirmed in time: pairs go on without it, a node that lacks something gets no new connections.
    pub(super) fn overdue(&mut self, now: u64) {
        while let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            self.review(id, now);
        }
        for at in 0..self.members.len() {
            let late = self.members[at].first_since().is_some_and(|since| since + self.times.ack_us <= now);
            if late && self.members[at].state == MemberState::Ready {
                self.members[at].state = MemberState::Joining;
                self.tell_eligible(at);
            }
            if self.members[at].retry_at.is_some_and(|retry| retry <= now) {
                self.members[at].retry_at = None;
                self.retry(at, now);
            }
        }
    }

    fn retry(&mut self, at: usize, now: u64) {
        let failed = self.members[at].outstanding.iter().filter(|(_, open)| open.failed.is_some());
        let failed: Vec<(u64, What)> = failed.map(|(request, open)| (request, open.what)).collect();
        for (request, what) in failed {
            self.members[at].outstanding.remove(request);
            self.ask(at, what, now);
        }
        self.advance(at);
    }

    pub(super) fn acks_deadline(&self) -> Option<u64> {
        let members = self.members.iter().flat_map(|member| {
            let ready = member.state == MemberState::Ready;
            let late = member.first_since().filter(|_| ready).map(|since| since + self.times.ack_us);
            [late, member.retry_at]
        });
        members.flatten().chain(self.due.first().map(|(at, _)| *at)).min()
    }
}
