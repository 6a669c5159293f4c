//! What a target holds for a router: told to it when it comes, changed when it asks, acknowledged when the cores did it.

use std::sync::Arc;

use phalanx_ipsec::{Direction, SaParams};
use phalanx_wire::{Epoch, SaId, VipId};

use super::{HeldSa, HeldVip, Job, Reported, TargetCluster};
use crate::messages::{ConnRecord, Gathered, RankedFilter, ToRouter, VipDef, WindowRecord};
use crate::outputs::{TargetOutput, Turn};

/// Connections in one part of what is told to a router.
const PART_CONNECTIONS: usize = 4096;
/// Windows in one part; each has up to 8 KiB.
const PART_WINDOWS: usize = 64;

impl TargetCluster {
    /// The cores did what an output asked, or why not.
    pub fn core_done(&mut self, request: u64, result: Result<(), String>) {
        let Some((job, asked)) = self.jobs.remove(&request) else {
            return;
        };
        match (job, &result) {
            (Job::InstallVip(vip), Ok(())) => {
                if let Some(held) = self.vips.get_mut(&vip) {
                    held.confirmed = true;
                }
            }
            (Job::InstallVip(vip), Err(_)) => drop(self.vips.remove(&vip)),
            (Job::InstallSa(sa), Ok(())) => {
                if let Some(held) = self.sas.get_mut(&sa) {
                    held.confirmed = true;
                }
            }
            (Job::InstallSa(sa), Err(_)) => {
                self.sas.remove(&sa);
                self.leases.remove(sa);
            }
            (Job::Remove, _) => {}
        }
        if let Some(request) = asked {
            self.send(ToRouter::Ack { request, error: result.err() });
        }
    }

    pub(super) fn tell_held(&mut self, connections: Vec<ConnRecord>, windows: Vec<WindowRecord>) {
        let (vips, sas) = (&self.vips, &self.sas);
        let mut connections = connections.into_iter().filter(|record| vips.contains_key(&record.vip)).peekable();
        let mut windows = windows.into_iter().filter(|record| sas.contains_key(&record.sa)).peekable();
        let epoch = |vip: &VipId| (*vip, self.epochs.get(vip).copied().unwrap_or(Epoch(0)));
        let mut part = Gathered {
            vips: self.vips.keys().map(epoch).collect(),
            highest_out: self.leases.highest().collect(),
            ..Gathered::default()
        };
        let mut parts = Vec::new();
        loop {
            part.connections = connections.by_ref().take(PART_CONNECTIONS).collect();
            part.windows = windows.by_ref().take(PART_WINDOWS).collect();
            part.last = connections.peek().is_none() && windows.peek().is_none();
            let last = part.last;
            parts.push(std::mem::take(&mut part));
            if last {
                break;
            }
        }
        self.outputs.extend(parts.into_iter().map(|part| TargetOutput::Send(ToRouter::Gathered(part))));
    }

    fn job(&mut self, job: Job, request: u64) -> u64 {
        self.last_job += 1;
        self.jobs.insert(self.last_job, (job, Some(request)));
        self.last_job
    }

    fn ack(&mut self, request: u64, error: Option<String>) {
        self.send(ToRouter::Ack { request, error });
    }

    pub(super) fn install_vip(&mut self, request: u64, def: VipDef) {
        let vip = def.vip;
        if !self.see_epoch(vip, def.epoch) {
            let known = self.epochs.get(&vip).copied().unwrap_or_default();
            let error = format!("VIP {vip}: epoch {} is over, {known} was seen", def.epoch);
            return self.ack(request, Some(error));
        }
        if self.vips.get(&vip).is_some_and(|held| held.confirmed && held.def == def) {
            return self.ack(request, None);
        }
        self.vips.insert(vip, HeldVip { def: def.clone(), confirmed: false });
        let request = self.job(Job::InstallVip(vip), request);
        self.outputs.push_back(TargetOutput::InstallVip { request, vip: def });
    }

    pub(super) fn remove_vip(&mut self, request: u64, vip: VipId) {
        let gone = self.sas.values().filter(|held| held.params.vip == vip);
        let gone: Vec<SaId> = gone.map(|held| held.params.id).collect();
        for sa in &gone {
            self.sas.remove(sa);
            self.leases.remove(*sa);
        }
        self.listening.remove(&vip);
        if self.vips.remove(&vip).is_none() && gone.is_empty() {
            return self.ack(request, None);
        }
        let request = self.job(Job::Remove, request);
        self.outputs.push_back(TargetOutput::RemoveVip { request, vip, sas: gone });
    }

    pub(super) fn install_sa(&mut self, request: u64, params: Arc<SaParams>, filters: Vec<RankedFilter>, waits: bool) {
        let sa = params.id;
        if !self.vips.contains_key(&params.vip) {
            return self.ack(request, Some(format!("SA {sa}: VIP {} is not served here", params.vip)));
        }
        if self.sas.len() >= self.config.sas_max && !self.sas.contains_key(&sa) {
            return self.ack(request, Some(format!("SA {sa}: the limit of {} SAs is reached", self.config.sas_max)));
        }
        // What is held as it is keeps its window and costs nothing.
        let same =
            |held: &HeldSa| held.confirmed && held.params == params && held.filters == filters && held.waits == waits;
        let lowered = self.sas.get(&sa).is_some_and(|held| held.lowered);
        if self.sas.get(&sa).is_some_and(same) {
            // The router may be another boot, or the path have risen meanwhile: if it is low still, that is said next.
            if lowered {
                self.path_mtu(sa, params.path_mtu);
            }
            return self.ack(request, None);
        }
        if params.direction == Direction::Outbound {
            self.leases.add(sa);
        }
        let turn = match self.sas.get(&sa) {
            _ if waits => Turn::Later,
            Some(held) if held.waits => Turn::Now,
            _ => Turn::AtOnce,
        };
        let (reported, confirmed) = (Reported::default(), false);
        let held =
            HeldSa { params: Arc::clone(&params), filters: filters.clone(), confirmed, reported, waits, lowered };
        self.sas.insert(sa, held);
        let request = self.job(Job::InstallSa(sa), request);
        let mtu = params.path_mtu;
        self.outputs.push_back(TargetOutput::InstallSa { request, sa: params, filters, turn });
        if lowered {
            self.path_mtu(sa, mtu);
        }
    }

    /// The router's word on an SA's path; what it cannot be is brought to what is nearest.
    pub(super) fn path_mtu(&mut self, sa: SaId, mtu: u16) {
        let outbound = self.sas.get_mut(&sa).filter(|held| held.params.direction == Direction::Outbound);
        let Some(held) = outbound else { return };
        let mtu = mtu.max(held.params.least_path_mtu()).min(held.params.path_mtu);
        held.lowered = mtu < held.params.path_mtu;
        self.outputs.push_back(TargetOutput::PathMtu { sa, mtu });
    }

    pub(super) fn remove_sa(&mut self, request: u64, sa: SaId) {
        self.leases.remove(sa);
        if self.sas.remove(&sa).is_none() {
            return self.ack(request, None);
        }
        let request = self.job(Job::Remove, request);
        self.outputs.push_back(TargetOutput::RemoveSa { request, sa });
    }
}
