//! This node as a target of routers: what each counterpart's state machine wants done, and what a router gathers.

use std::sync::Arc;

use phalanx_cluster::messages::{ConnRecord, NodeName, RankedFilter, ToRouter, VipDef, WindowRecord};
use phalanx_cluster::{TargetOutput, Turn};
use phalanx_dataplane::Command;
use phalanx_dataplane::command::{DumpWhat, VipEntry};
use phalanx_ipsec::SaParams;
use phalanx_wire::{CoreId, SaId, VipId};

use super::books::RuleSource;
use super::brain::{Brain, DumpFor, VipState};
use super::cores::Purpose;
use super::dumps::Rows;
use super::router_side::Placing;

impl Brain {
    pub(super) fn target_output(&mut self, router: &NodeName, output: TargetOutput) {
        match output {
            TargetOutput::Send(message) => self.send_to_router(router, message),
            TargetOutput::Gather { token } => self.gather(router, token),
            TargetOutput::InstallVip { request, vip } => self.install_vip(router, request, vip),
            TargetOutput::RemoveVip { request, vip, sas } => self.remove_vip(router, request, vip, &sas),
            TargetOutput::InstallSa { request, sa, filters, turn } => {
                self.install_sa(router, request, &sa, (filters, turn))
            }
            TargetOutput::RemoveSa { request, sa } => self.remove_sa(router, request, sa),
            TargetOutput::EpochSeen { vip, epoch } => {
                for (name, other) in &mut self.routers {
                    if name != router {
                        other.note_epoch(vip, epoch);
                    }
                }
            }
            TargetOutput::DropLeases(sas) => {
                for sa in sas {
                    for core in self.cores.targets() {
                        self.cores.tell(core, Command::DropLeases(sa));
                    }
                }
            }
            TargetOutput::Lease { core, sa, lease, valid_until } => {
                let expires = self.moment(valid_until);
                self.cores.tell(core, Command::Lease { sa, lease, expires });
            }
            TargetOutput::LeaseRefused { core, sa, refusal } => {
                self.warn(format!("core {}: no sequence numbers for SA {sa}: {refusal}", core.0));
            }
            TargetOutput::ConnAnswer { conn, refused } => self.connection_answered(&conn, refused),
            TargetOutput::PathMtu { sa, mtu } => self.set_path_mtu(sa, mtu),
            TargetOutput::PeerMoved { sas, remote } => {
                let cores = self.cores.targets();
                self.move_peer(&sas, remote, &cores);
            }
            TargetOutput::RouterUp { restarted, .. } => {
                tracing::info!(%router, restarted, "session with the router");
            }
            TargetOutput::RouterDown => {
                tracing::warn!(%router, "the router is not reachable; SAs and connections stay")
            }
            TargetOutput::Warn(warning) => self.warn(warning),
        }
    }

    fn send_to_router(&mut self, router: &NodeName, message: ToRouter) {
        if let Some(way) = self.ways.routers.get(router) {
            way.send(message);
        } else if **router == *self.config.node.name {
            let now = self.now();
            let own = router.clone();
            if let Some(Err(error)) = self.router.as_mut().map(|r| r.handle(&own, message, now)) {
                tracing::error!(%error, "this node's router refused its own target");
            }
        }
    }

    fn gather(&mut self, router: &NodeName, token: u64) {
        let wanted: Vec<(CoreId, DumpWhat)> =
            self.cores.targets().into_iter().map(|core| (core, DumpWhat::Tracked)).collect();
        let purpose = DumpFor::Gather(router.clone(), token);
        if let Some((purpose, rows)) = self.dumps.start(&mut self.cores, &wanted, purpose) {
            self.dumped(purpose, rows);
        }
    }

    /// What this node holds of a router's VIPs.
    pub(super) fn gathered(&mut self, router: &NodeName, token: u64, rows: Rows) {
        let mine = |vip: VipId| self.vips.get(&vip).is_some_and(|v| *self.router_of(v) == **router);
        let record = |(core, row): (CoreId, phalanx_dataplane::command::ConnRow)| ConnRecord {
            vip: row.vip,
            peer: row.key.peer,
            flow: row.key.flow,
            core,
            established: row.established,
        };
        let connections = rows.tracked.into_iter().filter(|(_, r)| mine(r.vip)).map(record).collect();
        let targets = self.cores.targets();
        let mut windows = Vec::new();
        for (&sa, entry) in self.sas.iter().filter(|(_, e)| e.target && mine(e.params.vip)) {
            let snapshots = entry.windows(|core| targets.contains(&core));
            windows.extend(snapshots.into_iter().map(|snapshot| WindowRecord { sa, snapshot }));
        }
        let now = self.now();
        if let Some(target) = self.routers.get_mut(router) {
            target.gathered(token, connections, windows, now);
        }
    }

    /// The node that owns a VIP.
    pub(super) fn router_of<'a>(&'a self, vip: &'a VipState) -> &'a str {
        vip.router.as_deref().unwrap_or(&self.config.node.name)
    }

    fn install_vip(&mut self, router: &NodeName, request: u64, def: VipDef) {
        // I6: one owner per VIP and epoch. With two of them, each with a store of its own, numbers would come twice (I1).
        let owner = self.vips.get(&def.vip).map(|known| (self.router_of(known).to_owned(), known.entry.epoch));
        if let Some((owner, epoch)) = owner.filter(|(owner, epoch)| *owner != **router && def.epoch <= *epoch) {
            let refused = format!("VIP {} is router {owner}'s in epoch {epoch}; {router} claims it too", def.address);
            self.warn(refused.clone());
            if let Some(target) = self.routers.get_mut(router) {
                target.core_done(request, Err(refused));
            }
            return;
        }
        let purpose = Purpose::Target(router.clone(), request);
        self.set_rules(RuleSource::Vip(def.vip), def.filters);
        let mut commands = Vec::new();
        // Its own VIPs are on the cores already, with this node as their router.
        if **router != *self.config.node.name {
            let entry = VipEntry {
                id: def.vip,
                address: def.address,
                epoch: def.epoch,
                router_core: None,
                served: true,
                filter_at_router: def.filter_at_router,
            };
            self.on_tap(def.address, true);
            let end = def.router_link.iter().find_map(|&remote| self.gre_to(remote));
            let memif = self.memif_to(router);
            if end.is_none() && memif.is_none() {
                self.warn(format!("no link port of this node reaches router {router} for VIP {}", def.address));
            }
            for core in self.cores.all() {
                commands.push((core, Command::SetVip(Box::new(entry.clone()))));
                commands.extend(match (memif, end) {
                    (Some(port), _) => Some((core, Command::SetRouterPort(def.vip, port))),
                    (None, end) => end.map(|end| (core, Command::SetRouter(def.vip, end))),
                });
            }
            self.vips.insert(def.vip, VipState { entry, router: Some(router.clone()), settled: true });
            self.rules_are_stale();
        }
        self.look_for_vips();
        self.submit(purpose, commands);
    }

    fn remove_vip(&mut self, router: &NodeName, request: u64, vip: VipId, sas: &[SaId]) {
        let mut commands = Vec::new();
        for &sa in sas {
            commands.extend(self.forget_sa(sa));
        }
        // Another router's by now, or our own: then that one says how long.
        let theirs = self.vips.get(&vip).is_some_and(|state| state.router.as_ref() == Some(router));
        if theirs && let Some(state) = self.vips.remove(&vip) {
            self.set_rules(RuleSource::Vip(vip), Vec::new());
            self.rules_are_stale();
            self.on_tap(state.entry.address, false);
            commands.extend(self.cores.all().into_iter().map(|core| (core, Command::RemoveVip(vip))));
        }
        self.look_for_vips();
        self.submit(Purpose::Target(router.clone(), request), commands);
    }

    fn install_sa(&mut self, router: &NodeName, request: u64, sa: &Arc<SaParams>, how: (Vec<RankedFilter>, Turn)) {
        let ((filters, turn), mut commands) = (how, Vec::new());
        let placing = Placing { router: false, early: false, waits: turn == Turn::Later };
        for core in self.cores.targets() {
            match self.sa_command(core, sa, placing) {
                Ok(command) => commands.push((core, command)),
                Err(error) => {
                    if let Some(target) = self.routers.get_mut(router) {
                        target.core_done(request, Err(error));
                    }
                    return;
                }
            }
        }
        if turn == Turn::Now {
            commands.extend(self.cores.targets().into_iter().map(|core| (core, Command::UseOutbound(sa.id))));
        }
        // A rule may lead to the SA only once it is there.
        self.set_rules(RuleSource::Sa(sa.id), filters);
        self.submit(Purpose::Target(router.clone(), request), commands);
    }

    fn remove_sa(&mut self, router: &NodeName, request: u64, sa: SaId) {
        let commands = self.forget_sa(sa);
        self.submit(Purpose::Target(router.clone(), request), commands);
    }

    /// The commands that take an SA and its rules from the target cores, unless it is held as router too.
    fn forget_sa(&mut self, sa: SaId) -> Vec<(CoreId, Command)> {
        let router: Vec<CoreId> = self.cores.router().into_iter().collect();
        self.release_sa(sa, false, &self.cores.targets(), &router)
    }
}
