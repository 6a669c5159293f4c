//! Numbers and ceilings: the router between its sequencer, its targets, its own cores and the coupling facility.

use std::ops::Range;
use std::sync::Arc;

use phalanx_wire::{CoreId, SaId, VipId};

use super::RouterCluster;
use crate::ceiling::Reached;
use crate::coupling::{CouplingError, keys};
use crate::lease_client::Want;
use crate::messages::{LeaseBlock, LeaseRefusal, LeaseReply, LeaseRequest, ToTarget};
use crate::outputs::RouterOutput;
use crate::sequencer::{GrantOutcome, Holder, Reply, Request, SequenceStatus};

/// A ceiling that the coupling facility did not take is offered again after this.
const CEILING_RETRY_US: u64 = 500_000;

impl RouterCluster {
    /// One of the router's own cores wants numbers: `LocalLease` or `LocalRefused` follows, perhaps later.
    pub fn local_lease_wanted(&mut self, core: CoreId, sa: SaId, want: Want, now: u64) {
        let Want { want, done_below, rate_pps } = want;
        let (holder, incarnation) = (Holder::local(core), self.incarnation);
        self.last_request += 1;
        let nonce = self.last_request;
        let request = Request { sa, holder, nonce, incarnation, want, done_below, rate_pps, latency_us: 0 };
        self.sequencer.request(request, now);
        self.pump(now);
    }

    /// The coupling facility's answer to [`RouterOutput::GrantWanted`].
    pub fn granted(&mut self, sa: SaId, result: Result<Range<u64>, CouplingError>, now: u64) {
        if let Err(error) = &result {
            self.outputs.push_back(RouterOutput::Warn(format!("no sequence numbers for SA {sa}: {error}")));
        }
        match self.sequencer.grant(sa, result, now) {
            GrantOutcome::StoreBehind => self.warn_behind(sa),
            GrantOutcome::Exhausted => {
                let warning = format!(
                    "SA {sa}: no sequence numbers are left in the coupling facility (or it was found to be behind), the \
                     SA sends nothing until it has a new key"
                );
                self.outputs.push_back(RouterOutput::Warn(warning));
            }
            GrantOutcome::Taken | GrantOutcome::Unwanted => {}
        }
        self.placed(sa, now);
        self.pump(now);
    }

    /// A router core accepted number `at` itself and wants its ceiling raised.
    pub fn ceiling_wanted(&mut self, sa: SaId, at: u64, now: u64) {
        let Some(to) = self.ceilings.get_mut(&sa).and_then(|ceiling| ceiling.want(at, now)) else {
            return;
        };
        let Some(pair) = self.pairs.get(&sa) else {
            return;
        };
        let key = Arc::from(keys::ceiling(&pair.spec.inbound.key.fingerprint()));
        self.outputs.push_back(RouterOutput::RaiseCeiling { sa, key, to });
    }

    /// The coupling facility's answer to [`RouterOutput::RaiseCeiling`].
    pub fn ceiling_raised(&mut self, sa: SaId, result: Result<u64, CouplingError>) {
        let Some(ceiling) = self.ceilings.get_mut(&sa) else {
            return;
        };
        match result {
            Ok(value) => {
                if let Some(upto) = ceiling.raised(value) {
                    self.outputs.push_back(RouterOutput::Ceiling { sa, upto });
                }
            }
            Err(error) => {
                let at = ceiling.failed();
                self.ceilings_failed.insert(sa, at);
                // The next tick sets the time: this call has none.
                self.ceilings_retry.get_or_insert(0);
                self.outputs.push_back(RouterOutput::Warn(format!("the ceiling of SA {sa} was not raised: {error}")));
            }
        }
    }

    /// A target's window of this SA has that edge.
    pub(super) fn raise_reached(&mut self, sa: SaId, edge: u64) {
        let to = self.reached.get_mut(&sa).and_then(|reached| reached.want(edge));
        if let (Some(to), Some(pair)) = (to, self.pairs.get(&sa)) {
            let key = Arc::from(keys::reached(&pair.spec.inbound.key.fingerprint()));
            self.outputs.push_back(RouterOutput::RaiseReached { sa, key, to });
        }
    }

    /// The coupling facility's answer to [`RouterOutput::RaiseReached`].
    pub fn reached_raised(&mut self, sa: SaId, result: Result<u64, CouplingError>) {
        if let Some(reached) = self.reached.get_mut(&sa) {
            reached.answered(result.ok());
        }
    }

    /// What the store did not take is asked for again after a while.
    pub(super) fn retry_ceilings(&mut self, now: u64) {
        match self.ceilings_retry {
            Some(0) => self.ceilings_retry = Some(now + CEILING_RETRY_US),
            Some(at) if at <= now => {
                self.ceilings_retry = None;
                for (sa, at) in std::mem::take(&mut self.ceilings_failed) {
                    self.ceiling_wanted(sa, at, now);
                }
            }
            _ => {}
        }
    }

    /// The state of an outbound SA's numbers.
    #[must_use]
    pub fn sequence(&self, sa: SaId, now: u64) -> Option<SequenceStatus> {
        self.sequencer.status(sa, now)
    }

    pub(super) fn lease_request(&mut self, at: usize, request: &LeaseRequest, now: u64) {
        let vip = self.outbound.get(&request.sa).and_then(|pair| self.pairs.get(pair)).map(|pair| pair.vip());
        let epoch = vip.and_then(|vip| self.vips.get(&vip)).map(|vip| vip.plan.def.epoch);
        let refusal = if !vip.is_some_and(|vip| self.serves(at, vip)) {
            Some(LeaseRefusal::NoSuchSa)
        } else if request.incarnation != self.members[at].incarnation || request.router_incarnation != self.incarnation
        {
            Some(LeaseRefusal::WrongIncarnation)
        } else if Some(request.epoch) != epoch {
            Some(LeaseRefusal::WrongEpoch)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let reply = LeaseReply {
                sa: request.sa,
                core: request.core,
                nonce: request.nonce,
                incarnation: request.incarnation,
                router_incarnation: self.incarnation,
                epoch: epoch.unwrap_or(request.epoch),
                result: Err(refusal),
            };
            self.send(at, ToTarget::LeaseReply(reply));
            return;
        }
        let request = Request {
            sa: request.sa,
            holder: Holder { node: Self::index(at), core: request.core },
            nonce: request.nonce,
            incarnation: request.incarnation,
            want: request.want,
            done_below: request.done_below,
            rate_pps: request.rate_pps,
            latency_us: request.latency_us,
        };
        self.sequencer.request(request, now);
    }

    pub(super) fn note_seen(&mut self, sa: SaId, number: u64) {
        if self.sequencer.note_seen(sa, number) {
            self.warn_behind(sa);
        }
    }

    fn warn_behind(&mut self, sa: SaId) {
        let warning = format!(
            "SA {sa}: the coupling facility gave sequence numbers that were used before, it was lost or restored; \
             the SA sends nothing until it has a new key"
        );
        self.outputs.push_back(RouterOutput::Warn(warning));
        // The next boot may find a grant above all that is remembered then: it must not get one.
        if let Some(pair) = self.outbound.get(&sa).and_then(|pair| self.pairs.get(pair)) {
            let key = Arc::from(keys::outbound_counter(&pair.spec.outbound.key.fingerprint()));
            self.outputs.push_back(RouterOutput::Burn { sa, key });
        }
    }

    /// Sets floor and ceiling of an inbound SA: its VIP is settled and the router's cores have it.
    pub(super) fn arm(&mut self, sa: SaId, now: u64) {
        let Some(ceiling) = self.ceilings.get_mut(&sa) else {
            return;
        };
        let floor = ceiling.floor();
        ceiling.arm();
        let late = floor.max(self.reached.get(&sa).map_or(0, Reached::before));
        if late > 0 {
            self.outputs.push_back(RouterOutput::RaiseFloor { sa, floor, late });
        }
        self.ceiling_wanted(sa, floor, now);
    }

    /// The numbers of a settled VIP's SAs are given out.
    pub(super) fn open_all(&mut self, vip: VipId, now: u64) {
        let outbound = self.pairs.values().filter(|pair| pair.vip() == vip).map(|pair| pair.spec.outbound.id);
        for sa in outbound.collect::<Vec<_>>() {
            self.sequencer.open(sa, now);
        }
        self.pump(now);
    }

    pub(super) fn arm_all(&mut self, vip: VipId, now: u64) {
        let armed = self.pairs.values().filter(|pair| pair.vip() == vip && pair.local_done());
        let sas: Vec<SaId> = armed.map(|pair| pair.spec.inbound.id).collect();
        for sa in sas {
            self.arm(sa, now);
        }
    }

    /// Moves what the sequencer has to say into the outputs.
    pub(super) fn pump(&mut self, now: u64) {
        while let Some(wanted) = self.sequencer.poll_grant_wanted() {
            self.outputs.push_back(RouterOutput::GrantWanted(wanted));
        }
        while let Some(reply) = self.sequencer.poll_reply() {
            if reply.result.is_ok() {
                self.peers.sends(reply.sa, now);
            }
            if reply.holder.node == Holder::LOCAL {
                self.local_reply(reply, now);
            } else {
                self.remote_reply(reply);
            }
        }
    }

    fn local_reply(&mut self, reply: Reply, now: u64) {
        let (core, sa) = (reply.holder.core, reply.sa);
        self.outputs.push_back(match reply.result {
            Ok((lease, valid)) => RouterOutput::LocalLease { core, sa, lease, valid_until: now + u64::from(valid) },
            Err(refusal) => RouterOutput::LocalRefused { core, sa, refusal },
        });
    }

    fn remote_reply(&mut self, reply: Reply) {
        let at = usize::from(reply.holder.node);
        let vip = self.outbound.get(&reply.sa).and_then(|pair| self.pairs.get(pair)).map(|pair| pair.vip());
        let Some(vip) = vip.and_then(|vip| self.vips.get(&vip)) else {
            return;
        };
        // The lease ends here and lives on as numbers in exactly one message (I1).
        let result = reply.result.map(|(lease, valid_for_us)| {
            let (first, len) = lease.into_wire();
            LeaseBlock { first, len, valid_for_us, waited_us: reply.waited_us }
        });
        let message = LeaseReply {
            sa: reply.sa,
            core: reply.holder.core,
            nonce: reply.nonce,
            incarnation: reply.incarnation,
            router_incarnation: self.incarnation,
            epoch: vip.plan.def.epoch,
            result,
        };
        self.send(at, ToTarget::LeaseReply(message));
    }
}
