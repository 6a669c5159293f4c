//! What the node is told to do over its socket. An action is done when it is answered, or was refused and changed nothing.

use phalanx_cluster::{MemberStatus, NodeName, RouterCluster};
use phalanx_wire::VipId;

use super::brain::Brain;
use crate::status::{Action, Demand, Done, OneTarget};

impl Brain {
    pub(super) fn act(&mut self, demand: Demand) {
        let Demand { action, reply } = demand;
        tracing::info!(?action, "told over the status socket");
        let result = match action {
            Action::TargetDrain(which) => self.drain_target(&which, true),
            Action::TargetResume(which) => self.drain_target(&which, false),
        };
        // Whoever asked may be gone.
        let _ = reply.send(result);
    }

    /// `phalanx target drain` and `resume`: at a router for any of its targets, at a target for itself.
    fn drain_target(&mut self, which: &OneTarget, drain: bool) -> Result<Done, String> {
        let vip = which.vip.as_deref().map(|name| self.vip_named(name)).transpose()?;
        let own = self.config.node.name.clone();
        match which.node.as_deref() {
            None if self.routers.is_empty() => {
                Err(format!("{own} is no target itself; name one of its targets: {}", self.target_names().join(", ")))
            }
            None => Ok(self.drain_myself(vip, drain)),
            Some(node) if self.router.is_some() => self.drain_member(node, vip, drain),
            Some(node) if *node == own => Ok(self.drain_myself(vip, drain)),
            Some(node) => {
                let routers: Vec<&str> = self.routers.keys().map(|name| &**name).collect();
                Err(format!("{own} is no router: ask at {node} itself, or at the router ({})", routers.join(", ")))
            }
        }
    }

    fn drain_myself(&mut self, vip: Option<VipId>, drain: bool) -> Done {
        for target in self.routers.values_mut() {
            if drain {
                target.drain(vip);
            } else {
                target.resume(vip);
            }
        }
        let vips: Vec<VipId> = vip.map_or_else(|| self.vips.keys().copied().collect(), |vip| vec![vip]);
        let away: Vec<String> =
            self.routers.iter().filter(|(_, t)| !t.attached()).map(|(name, _)| name.to_string()).collect();
        let note = (!away.is_empty()).then(|| format!("router {} is not reachable and is told later", away.join(", ")));
        self.drained_words(&self.config.node.name, &vips, drain, note)
    }

    fn drain_member(&mut self, node: &str, vip: Option<VipId>, drain: bool) -> Result<Done, String> {
        let known = self.target_names();
        let result = self.router.as_mut().map(|router| router.order_drain(node, vip, drain));
        let vips = match result {
            Some(Ok(vips)) => vips,
            Some(Err(phalanx_cluster::ClusterError::UnknownVip(vip))) => {
                return Err(format!("{node} is no target of {}", self.vip_name(vip)));
            }
            _ => return Err(format!("there is no target {node}; there is {}", known.join(", "))),
        };
        let member = self.members().into_iter().find(|member| *member.node == *node);
        let own_word = member.filter(|m| !drain && vips.iter().any(|vip| m.drained.contains(vip)));
        let note = own_word.map(|_| format!("{node} itself wants none: run `phalanx target resume` there too"));
        Ok(self.drained_words(node, &vips, drain, note))
    }

    fn drained_words(&self, node: &str, vips: &[VipId], drain: bool, note: Option<String>) -> Done {
        let vips: Vec<String> = vips.iter().map(|vip| self.vip_name(*vip)).collect();
        let vips = if vips.is_empty() { "any VIP".to_owned() } else { vips.join(", ") };
        let done = if drain {
            format!("{node} gets no new connections for {vips}; those it has go on")
        } else {
            format!("{node} takes new connections for {vips}")
        };
        Done { done, notes: note.into_iter().collect() }
    }

    fn members(&self) -> Vec<MemberStatus> {
        self.router.as_ref().map(RouterCluster::members).unwrap_or_default()
    }

    fn target_names(&self) -> Vec<String> {
        let name = |node: NodeName| node.to_string();
        self.members().into_iter().filter(|m| !m.targets.is_empty()).map(|m| name(m.node)).collect()
    }

    /// A VIP by its name, or, where it has none, by its address; or by its number.
    fn vip_named(&self, text: &str) -> Result<VipId, String> {
        let address = |vip: &VipId| self.vips.get(vip).map(|state| state.entry.address.to_string());
        let is = |vip: &&VipId| {
            self.vip_name(**vip) == text || address(vip).as_deref() == Some(text) || vip.0.to_string() == text
        };
        let names = || self.vips.keys().map(|vip| self.vip_name(*vip)).collect::<Vec<_>>().join(", ");
        self.vips.keys().find(is).copied().ok_or_else(|| format!("there is no VIP {text} here; there is {}", names()))
    }
}
