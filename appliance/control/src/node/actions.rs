//! What the node is told to do over its socket. An action is done when it is answered, or was refused and changed nothing.

use phalanx_cluster::{MemberStatus, RouterCluster};
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
            Action::VipDown(which) => self.vip_down(&which.vip),
            Action::VipUp(which) => self.vip_up(&which.vip),
            Action::SaDelete(which) => self.delete_sa(&which.sa),
            Action::IkeInitiate(which) => self.ike_initiate(which),
            Action::IkeRekey(which) => self.ike_rekey(&which),
            Action::IkeTerminate(which) => self.ike_terminate(&which),
            Action::Reload => self.reload_by_order(),
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

    fn vip_down(&mut self, text: &str) -> Result<Done, String> {
        let vip = self.own_vip(text)?;
        let name = self.vip_name(vip);
        if !self.wanted.down.insert(vip) {
            return Err(format!("VIP {name} is down already; `phalanx vip up {name}` brings it up"));
        }
        self.converge();
        self.settle();
        self.warn(down_words(&name));
        let notes = vec!["it comes up again when this router restarts, or with `phalanx vip up`".to_owned()];
        Ok(Done { done: format!("VIP {name} is down: its connections are over, its SAs are gone everywhere"), notes })
    }

    fn vip_up(&mut self, text: &str) -> Result<Done, String> {
        let vip = self.own_vip(text)?;
        let name = self.vip_name(vip);
        if !self.wanted.down.remove(&vip) {
            return Err(format!("VIP {name} is up"));
        }
        let words = down_words(&name);
        self.warnings.retain(|warning| *warning != words);
        self.converge();
        self.settle();
        Ok(Done { done: format!("VIP {name} is up; its targets get its SAs"), notes: Vec::new() })
    }

    /// R6: from every shadow cache too.
    fn delete_sa(&mut self, text: &str) -> Result<Done, String> {
        let Some(router) = &self.router else {
            let routers: Vec<&str> = self.routers.keys().map(|name| &**name).collect();
            return Err(format!("SAs are their router's to delete: ask at {}", routers.join(", ")));
        };
        let number = text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        let is = |sa: &phalanx_ipsec::SaParams| {
            sa.tunnel.to_string() == text || number == Some(sa.spi.0) || super::answers::hex(sa.id) == text
        };
        let all: Vec<_> = router.pairs().map(|pair| pair.spec).collect();
        let meant: Vec<_> = all.iter().filter(|spec| is(&spec.inbound) || is(&spec.outbound)).collect();
        let spec = match meant[..] {
            [spec] => spec,
            [] => return Err(format!("there is no SA {text}; `phalanx sa` shows those that are")),
            _ => return Err(format!("{text} means {} pairs of SAs: name one by its id", meant.len())),
        };
        let name = spec.inbound.tunnel;
        if let Some(child) = self.ike.as_ref().and_then(|ike| ike.child_of(spec.inbound.id)) {
            self.terminate_child(child);
            self.settle();
            let notes = vec!["its peer was told; it may be negotiated again at any time".to_owned()];
            return Ok(Done { done: format!("SA {name} is deleted here and on its targets"), notes });
        }
        self.wanted.deleted.insert(spec.inbound.id);
        self.converge();
        self.settle();
        let notes =
            vec!["it comes back with another key in the configuration, or when this router restarts".to_owned()];
        Ok(Done { done: format!("SA {name} is deleted here and on its targets"), notes })
    }

    fn reload_by_order(&mut self) -> Result<Done, String> {
        let reloaded = self.reload();
        reloaded.log();
        if let Some(why) = reloaded.refused {
            return Err(format!("everything stays as it is: {why}"));
        }
        let done = if reloaded.changed.is_empty() { "nothing changes".to_owned() } else { reloaded.changed.join("; ") };
        let notes = reloaded.needs_restart.iter().map(|part| format!("waits for a restart: {part}")).collect();
        Ok(Done { done, notes })
    }

    /// A VIP of this router, up or down.
    fn own_vip(&self, text: &str) -> Result<VipId, String> {
        let is = |vip: &&crate::config::Vip| {
            vip.name == text || vip.address.addr().to_string() == text || vip.id.to_string() == text
        };
        if let Some(vip) = self.config.vips.iter().find(is) {
            return Ok(VipId(vip.id));
        }
        let names: Vec<&str> = self.config.vips.iter().map(|vip| vip.name.as_str()).collect();
        let own = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(format!("{text} is no VIP of this router, which owns {own}; ask at the router of the VIP"))
    }

    fn members(&self) -> Vec<MemberStatus> {
        self.router.as_ref().map(RouterCluster::members).unwrap_or_default()
    }

    fn target_names(&self) -> Vec<String> {
        let serving: Vec<_> =
            self.vips.keys().flat_map(|vip| self.target_entries(*vip)).map(|entry| entry.id).collect();
        let serves = |member: &MemberStatus| member.targets.iter().any(|id| serving.contains(id));
        self.members().into_iter().filter(serves).map(|member| member.node.to_string()).collect()
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

fn down_words(name: &str) -> String {
    format!("VIP {name} is down by order; `phalanx vip up {name}` brings it up")
}
