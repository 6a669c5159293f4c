//! This node as a router: what its state machine wants done, and how its VIPs and SAs get to its own core.

use std::sync::Arc;
use std::time::Instant;

use phalanx_cluster::messages::{NodeName, RankedFilter, ToTarget, VipDef};
use phalanx_cluster::outputs::Connection;
use phalanx_cluster::{MemberState, MemberStatus, RouterCluster, RouterOutput, SaPair};
use phalanx_dataplane::Command;
use phalanx_dataplane::command::{TargetSet, VipEntry};
use phalanx_ipsec::{Direction, InboundSa, OutboundSa, SaParams};
use phalanx_steering::ConnKey;
use phalanx_wire::{CoreId, SaId, TargetId, VipId};

use super::books::RuleSource;
use super::brain::{Absent, Brain, GRACE, Input, VipState};
use super::cores::Purpose;
use super::plan;

/// How an SA is put on a core.
#[derive(Clone, Copy)]
pub(super) struct Placing {
    /// Held as router; else as target.
    pub router: bool,
    /// Inbound, and not all targets have it (I4).
    pub early: bool,
    /// Outbound, and another one has its tunnel's packets.
    pub waits: bool,
}

impl Brain {
    /// Puts this router's VIPs on the cores and their addresses on the TAP.
    pub fn open_vips(&mut self) {
        let vips: Vec<VipDef> = self.planned_vips().into_iter().map(|plan| plan.def).collect();
        vips.iter().for_each(|def| self.open_vip(def));
    }

    /// One of them.
    pub(super) fn open_vip(&mut self, def: &VipDef) {
        let Some(router_core) = self.cores.router() else { return };
        let (id, address, epoch) = (def.vip, def.address, def.epoch);
        let entry = VipEntry {
            id,
            address,
            epoch,
            router_core: Some(router_core),
            served: true,
            filter_at_router: def.filter_at_router,
        };
        self.on_tap(address, true);
        let set = |core| (core, Command::SetVip(Box::new(entry.clone())));
        let commands = self.cores.all().into_iter().map(set).collect();
        self.vips.insert(id, VipState { entry, router: None, settled: false });
        self.rules_are_stale();
        self.submit(Purpose::Nobody("a VIP"), commands);
        self.set_targets(id);
    }

    /// Takes one of this router's VIPs from its cores and from the TAP. Its targets and SAs were seen to before.
    pub(super) fn close_vip(&mut self, vip: VipId) {
        self.set_rules(RuleSource::Vip(vip), Vec::new());
        let commands = self.cores.all().into_iter().map(|core| (core, Command::RemoveVip(vip))).collect();
        self.vips.remove(&vip);
        self.rules_are_stale();
        self.look_for_vips();
        self.submit(Purpose::Nobody("the end of a VIP"), commands);
    }

    /// Adds the static SAs. Their ceilings come from the coupling facility.
    pub fn open_sas(&mut self, pairs: Vec<SaPair>) {
        let now = self.now();
        for pair in pairs {
            let Some(router) = &mut self.router else { return };
            let tunnel = pair.inbound.tunnel;
            if let Err(error) = router.add_sa(pair, now) {
                self.warn(format!("static SA {tunnel}: {error}"));
            }
        }
        self.settle();
    }

    pub(super) fn router_output(&mut self, output: RouterOutput) {
        match output {
            RouterOutput::Send { node, message } => self.send_to_target(&node, message),
            RouterOutput::Disconnect { node, reason } => {
                self.warn(format!("the session with {node} was ended: {reason}"));
                if let Some(targets) = &self.ways.targets {
                    targets.disconnect(&node, &reason);
                }
            }
            RouterOutput::InstallLocal { request, sa, filters, early, waits } => {
                self.install_local(request, &sa, filters, Placing { router: true, early, waits });
            }
            RouterOutput::UseLocal(sa) => self.tell_router(Command::UseOutbound(sa)),
            RouterOutput::LocalRules { sa, filters } => self.set_rules(RuleSource::Sa(sa), filters),
            RouterOutput::RemoveLocal { request, sa } => self.remove_local(request, sa),
            RouterOutput::TargetUp { target } => self.target_up(target),
            RouterOutput::TargetDown { target, reason } => self.target_down(target, &reason),
            RouterOutput::EligibleChanged(vip) => self.set_targets(vip),
            RouterOutput::Listens { node, vip } => self.log_listeners(&node, vip),
            RouterOutput::Loaded { node, permille } => self.loads.report(node, permille),
            RouterOutput::RestoreConnections(all) => all.iter().for_each(|c| self.restore(c)),
            RouterOutput::MergeWindows(records) => {
                for record in records {
                    self.tell_router(Command::MergeWindow(record.sa, Box::new(record.snapshot)));
                }
            }
            RouterOutput::ConnOpened(c) => self.tell_router(Command::Confirm(c.vip, key(&c), c.target)),
            RouterOutput::ConnClosed(c) => self.tell_router(Command::EndConn(c.vip, key(&c), c.target)),
            RouterOutput::OpenConnection { node, record, conn, inbound } => {
                self.open_connection(node, record, &conn, inbound);
            }
            RouterOutput::SaReady { sa, missing } if self.ike_ready(sa, &missing) => {
                self.tell_router(Command::Spread(sa));
            }
            RouterOutput::SaGone { sa, .. } if self.ike_gone(sa) => {}
            RouterOutput::SaReady { sa, missing } => {
                for one in &missing {
                    self.warn(format!("SA {sa} is ready, but {} does not hold it: {}", one.node, one.why));
                }
                tracing::info!(%sa, "the SA is in place");
                self.tell_router(Command::Spread(sa));
            }
            RouterOutput::SaGone { sa, missing } => {
                for one in &missing {
                    self.warn(format!("SA {sa} is gone, but {} did not confirm: {}", one.node, one.why));
                }
                tracing::info!(%sa, "the SA is gone");
                self.sa_gone(sa);
            }
            RouterOutput::Settled { vip, missing } => self.settled(vip, &missing),
            RouterOutput::RaiseFloor { sa, floor, late } => {
                self.tell_router(Command::RaiseFloor(sa, floor));
                self.tell_router(Command::RaiseLate(sa, late));
            }
            RouterOutput::Ceiling { sa, upto } => self.tell_router(Command::Ceiling(sa, upto)),
            RouterOutput::RaiseCeiling { sa, key, to } => {
                self.ask_raise(key, to, move |result| Input::CeilingRaised(sa, result));
            }
            RouterOutput::RaiseReached { sa, key, to } => {
                self.ask_raise(key, to, move |result| Input::ReachedRaised(sa, result));
            }
            RouterOutput::Burn { sa, key } => {
                self.ask_raise(key, u64::MAX, move |result| Input::Burned(sa, result));
            }
            RouterOutput::GrantWanted(wanted) => self.ask_grant(wanted),
            RouterOutput::LocalLease { core, sa, lease, valid_until } => {
                let expires = self.moment(valid_until);
                self.cores.tell(core, Command::Lease { sa, lease, expires });
            }
            RouterOutput::LocalRefused { core, sa, refusal } => {
                tracing::debug!(core = core.0, %sa, %refusal, "no sequence numbers");
            }
            RouterOutput::PathMtu { sa, mtu } => self.set_path_mtu(sa, mtu),
            RouterOutput::PeerMoved { sas, remote } => {
                let cores: Vec<CoreId> = self.cores.router().into_iter().collect();
                self.move_peer(&sas, remote, &cores);
                self.ike_followed(&sas, remote);
            }
            RouterOutput::Keepalive { vip, remote } => self.tell_router(Command::Keepalive(vip, remote)),
            RouterOutput::SaWanted { tunnel, .. } => self.ike_acquire(tunnel),
            // The state machine sees it by itself.
            RouterOutput::LifesizeSoft(sa) if self.ike.as_ref().is_some_and(|ike| ike.child_of(sa).is_some()) => {}
            RouterOutput::LifesizeSoft(sa) => {
                self.warn(format!("SA {sa} reached its soft lifesize: give it a successor"))
            }
            RouterOutput::LifesizeHard(sa) => self.lifesize_over(sa),
            RouterOutput::Warn(warning) => self.warn(warning),
        }
    }

    pub(super) fn send_to_target(&mut self, node: &NodeName, message: ToTarget) {
        if **node != *self.config.node.name {
            if let Some(targets) = &self.ways.targets {
                targets.send(node, message);
            }
            return;
        }
        let now = self.now();
        if let Some(Err(error)) = self.routers.get_mut(node).map(|own| own.handle(message, now)) {
            tracing::error!(%error, "this node refused its own router");
        }
    }

    pub(super) fn tell_router(&mut self, command: Command) {
        if let Some(core) = self.cores.router() {
            self.cores.tell(core, command);
        }
    }

    fn install_local(&mut self, request: u64, sa: &Arc<SaParams>, filters: Vec<RankedFilter>, how: Placing) {
        let Some(core) = self.cores.router() else { return };
        self.set_rules(RuleSource::Sa(sa.id), filters);
        let commands = match self.sa_command(core, sa, how) {
            Ok(command) => vec![(core, command)],
            Err(error) => {
                let now = self.now();
                if let Some(router) = &mut self.router {
                    router.local_done(request, Err(error), now);
                }
                return;
            }
        };
        self.submit(Purpose::Router(request), commands);
    }

    /// An SA for a core, with its counters noted here.
    pub(super) fn sa_command(&mut self, core: CoreId, sa: &Arc<SaParams>, how: Placing) -> Result<Command, String> {
        let within = self.sas.path_within(sa);
        let (command, shared) = match sa.direction {
            Direction::Inbound => {
                let mut inbound = InboundSa::new(sa.clone()).map_err(|e| e.to_string())?;
                // ARCHITECTURE: who gets an SA again, with the same SPI and key, keeps its window.
                if let Some((window, verified)) = self.sas.accepted_before(sa.id, core) {
                    inbound.window.merge(&window);
                    inbound.verified.merge(&verified);
                }
                let shared = inbound.shared().clone();
                let inbound = Box::new(inbound);
                (if how.early { Command::AddEarly(inbound) } else { Command::AddInbound(inbound) }, shared)
            }
            Direction::Outbound => {
                let mut outbound = OutboundSa::new(sa.clone()).map_err(|e| e.to_string())?;
                // Other cores of this node may know already that its path fell.
                self.sas.find(sa.id).inspect(|entry| outbound.set_path_mtu(entry.path_mtu));
                within.into_iter().for_each(|mtu| outbound.set_path_mtu(mtu));
                let shared = outbound.shared().clone();
                let outbound = Box::new(outbound);
                (if how.waits { Command::AddSuccessor(outbound) } else { Command::AddOutbound(outbound) }, shared)
            }
        };
        let entry = self.sas.hold(sa, how.router);
        // The core keeps the SA it has; its counters go on.
        if !entry.shared.iter().any(|(on, _)| *on == core) {
            entry.shared.push((core, shared));
        }
        within.into_iter().for_each(|mtu| _ = self.sas.path_mtu(sa.id, mtu));
        Ok(command)
    }

    fn remove_local(&mut self, request: u64, sa: SaId) {
        let cores: Vec<CoreId> = self.cores.router().into_iter().collect();
        let commands = self.release_sa(sa, true, &cores, &self.cores.targets());
        self.submit(Purpose::Router(request), commands);
    }

    /// The commands that take an SA from the cores that had it in a role, but for those that keep it in the `other`
    /// role; and its rules, when no role is left.
    pub(super) fn release_sa(
        &mut self,
        sa: SaId,
        router: bool,
        cores: &[CoreId],
        other: &[CoreId],
    ) -> Vec<(CoreId, Command)> {
        let gone = self.sas.release(sa, router);
        if gone {
            self.set_rules(RuleSource::Sa(sa), Vec::new());
        }
        let mut commands = Vec::new();
        for core in cores.iter().filter(|core| gone || !other.contains(core)) {
            self.sas.leave(sa, *core);
            commands.push((*core, Command::RemoveSa(sa)));
        }
        commands
    }

    /// A target introduced itself. Of the same boot it still has its connections and is about to tell; of another it has none.
    fn target_up(&mut self, target: TargetId) {
        tracing::info!(target = self.named(target), "target up");
        let incarnation = self.incarnation_of(target);
        match self.absent.get_mut(&target) {
            Some(absent) if absent.incarnation == incarnation => {
                (absent.since, absent.back) = (Instant::now(), true);
            }
            Some(_) => self.forget_target(target),
            None => {}
        }
        self.own_vips().into_iter().for_each(|vip| self.set_targets(vip));
    }

    /// A target's session is lost: it gets no new connections, and soon it has none.
    fn target_down(&mut self, target: TargetId, reason: &str) {
        tracing::warn!(target = self.named(target), reason, "target down");
        let absent = Absent { incarnation: self.incarnation_of(target), since: Instant::now(), back: false };
        self.absent.insert(target, absent);
        self.own_vips().into_iter().for_each(|vip| self.set_targets(vip));
    }

    /// Ends the connections of targets that stayed away, and those that a target which is back does not have any more.
    pub(super) fn look_for_absent(&mut self) {
        let told = |member: &MemberStatus| member.state >= MemberState::Joining;
        let members = self.router.as_ref().filter(|_| !self.absent.is_empty()).map(RouterCluster::members);
        let told: Vec<TargetId> = members.into_iter().flatten().filter(|m| told(m)).flat_map(|m| m.targets).collect();
        let due = |(id, absent): (&TargetId, &Absent)| {
            let due = if absent.back { told.contains(id) } else { absent.since.elapsed() >= GRACE };
            due.then_some((*id, absent.back, absent.since))
        };
        let due: Vec<(TargetId, bool, Instant)> = self.absent.iter().filter_map(due).collect();
        for (target, back, since) in due {
            if back {
                self.absent.remove(&target);
                for vip in self.own_vips() {
                    self.tell_router(Command::PurgeStale(vip, target, since));
                }
            } else {
                self.forget_target(target);
            }
        }
    }

    fn forget_target(&mut self, target: TargetId) {
        tracing::warn!(target = self.named(target), "its connections are purged");
        self.absent.remove(&target);
        for vip in self.own_vips() {
            self.tell_router(Command::PurgeTarget(vip, target));
        }
    }

    fn named(&self, target: TargetId) -> &str {
        self.numbering.name(target).map_or("?", |name| name)
    }

    fn incarnation_of(&self, target: TargetId) -> u64 {
        let members = self.router.as_ref().map(RouterCluster::members).unwrap_or_default();
        members.iter().find(|m| m.targets.contains(&target)).map_or(0, |m| m.incarnation)
    }

    fn own_vips(&self) -> Vec<VipId> {
        self.vips.iter().filter(|(_, state)| state.router.is_none()).map(|(id, _)| *id).collect()
    }

    pub(super) fn set_targets(&mut self, vip: VipId) {
        let Some(configured) = self.configured(vip) else { return };
        let policy = plan::policy(configured);
        let entries = self.target_entries(vip);
        let listeners = self.listeners(vip, &entries);
        match TargetSet::new(entries, policy, &self.rules(vip)).map(|set| set.with_listeners(listeners)) {
            Ok(set) => self.tell_router(Command::SetTargets(vip, Box::new(set))),
            Err(error) => self.warn(format!("VIP {}: {error}", self.vip_name(vip))),
        }
    }

    fn restore(&mut self, c: &Connection) {
        self.tell_router(Command::RestoreConn(c.vip, key(c), c.target));
        if c.established {
            self.tell_router(Command::Confirm(c.vip, key(c), c.target));
        }
    }

    fn settled(&mut self, vip: VipId, missing: &[NodeName]) {
        if !missing.is_empty() {
            self.warn(format!("VIP {} starts without having heard {}", vip.0, missing.join(", ")));
        }
        if let Some(state) = self.vips.get_mut(&vip) {
            state.settled = true;
        }
        self.tell_router(Command::Settled(vip));
        tracing::info!(vip = vip.0, "settled: new connections are welcome");
    }

    /// I3: nobody uses it any more.
    fn lifesize_over(&mut self, sa: SaId) {
        if self.ike_hard_limit(sa) {
            return;
        }
        self.warn(format!("SA {sa} reached its hard lifesize and stops"));
        let now = self.now();
        let Some(router) = &mut self.router else { return };
        let pair =
            router.pairs().find(|p| p.spec.inbound.id == sa || p.spec.outbound.id == sa).map(|p| p.spec.inbound.id);
        if let Some(Err(error)) = pair.map(|id| router.remove_sa(id, now)) {
            tracing::error!(%error, "the SA could not be removed");
        }
        self.wanted.deleted.extend(pair);
    }
}

pub(super) fn key(c: &Connection) -> ConnKey {
    ConnKey { peer: c.peer, flow: c.flow }
}
