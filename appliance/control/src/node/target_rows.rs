//! `phalanx target`: at a router its targets, at a target itself.

use phalanx_cluster::{Drained, MemberState, MemberStatus, RouterCluster, TargetCluster};
use phalanx_dataplane::command::ConnRow;
use phalanx_wire::{CoreId, VipId};

use super::brain::Brain;
use super::dumps::Rows;
use super::listeners::in_words;
use crate::status::model::TargetRow;

impl Brain {
    pub(super) fn target_rows(&self, rows: &Rows) -> Vec<TargetRow> {
        let seen = self.router.as_ref().map(|router| self.seen_by(router, rows)).unwrap_or_default();
        let own = |name: &phalanx_cluster::NodeName| **name == *self.config.node.name;
        let here = self.routers.iter().filter(|(router, _)| !own(router));
        seen.into_iter().chain(here.map(|(router, target)| self.own_row(router, target, rows))).collect()
    }

    /// The targets as this node, their router, sees them.
    pub(super) fn seen_by(&self, router: &RouterCluster, rows: &Rows) -> Vec<TargetRow> {
        let served: Vec<(VipId, _)> = self.vips.keys().map(|vip| (*vip, self.target_entries(*vip))).collect();
        let row = |member: MemberStatus| {
            let mine = |c: &&(CoreId, ConnRow)| c.1.target.is_some_and(|t| member.targets.contains(&t));
            let all = served
                .iter()
                .filter_map(|(vip, all)| Some((*vip, all.iter().find(|t| member.targets.contains(&t.id))?)));
            let all: Vec<_> = all.collect();
            let mut wanted = all.iter().filter(|(_, entry)| !entry.draining).peekable();
            let drains = wanted.peek().is_none();
            let node = self.config.cluster.nodes.iter().find(|n| *n.name == *member.node);
            let link = match self.memif_to(&member.node) {
                Some(port) => Some(format!("memif:{}", self.config.ports[port].name)),
                None => node.and_then(|n| n.links.first()).map(ToString::to_string),
            };
            TargetRow {
                name: member.node.to_string(),
                state: if drains && member.state == MemberState::Ready { "draining" } else { member.state.name() }
                    .to_owned(),
                ready: !drains && wanted.all(|(_, entry)| entry.eligible),
                vips: all.iter().map(|(vip, _)| self.vip_name(*vip)).collect(),
                draining: all.iter().filter(|(_, entry)| entry.draining).map(|(vip, _)| self.vip_name(*vip)).collect(),
                listening: match member.targets.first() {
                    Some(target) => self.listening_in_words(*target, all.iter().map(|(vip, _)| *vip)),
                    None => Vec::new(),
                },
                load: self.loads.of(&member.node).0,
                weights: all.iter().map(|(_, entry)| entry.weight).collect(),
                connections: rows.routed.iter().filter(mine).count() as u64,
                packets: router.used_by(&member.node).packets,
                bytes: router.used_by(&member.node).bytes,
                leases: 0,
                incarnation: format!("{:016x}", member.incarnation),
                last_seen_ms: self.heard.get(&member.node).map(|at| at.elapsed().as_millis() as u64),
                link: link.unwrap_or_default(),
            }
        };
        router.members().into_iter().filter(|m| !m.targets.is_empty()).map(row).filter(|r| !r.vips.is_empty()).collect()
    }

    /// This node as the target of another router: what it knows of itself. Whether it is given connections the router says.
    fn own_row(&self, router: &str, target: &TargetCluster, rows: &Rows) -> TargetRow {
        let vips: Vec<VipId> = target.vips().map(|def| def.vip).collect();
        let draining = vips.iter().filter(|vip| target.draining().has(**vip));
        TargetRow {
            name: self.config.node.name.clone(),
            state: match (target.attached(), target.draining()) {
                (false, _) => "down",
                (true, Drained::All) => "draining",
                (true, _) => "attached",
            }
            .to_owned(),
            ready: target.attached() && *target.draining() != Drained::All,
            vips: vips.iter().map(|vip| self.vip_name(*vip)).collect(),
            draining: draining.map(|vip| self.vip_name(*vip)).collect(),
            listening: vips.iter().filter_map(|vip| self.own_listeners(target, *vip)).collect(),
            load: None,
            weights: Vec::new(),
            connections: rows.tracked.iter().filter(|(_, c)| vips.contains(&c.vip)).count() as u64,
            packets: 0,
            bytes: 0,
            leases: 0,
            incarnation: format!("{:016x}", self.incarnation),
            last_seen_ms: self.heard.get(router).map(|at| at.elapsed().as_millis() as u64),
            link: router.to_owned(),
        }
    }

    fn own_listeners(&self, target: &TargetCluster, vip: VipId) -> Option<String> {
        Some(format!("{}: {}", self.vip_name(vip), in_words(&target.listens(vip)?.0)))
    }
}
