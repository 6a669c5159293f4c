//! What targets tell of what they hold: windows and connections, when they come and whenever those change
//! (ARCHITECTURE, "Inbound replay"). Windows always go first, so that no entry ends before its window is known (I2).

use phalanx_wire::{SaId, VipId};

use super::RouterCluster;
use super::member::MemberState;
use crate::messages::{ConnRecord, Gathered, Notice, ToTarget, WindowRecord};
use crate::outputs::{Connection, RouterOutput};

impl RouterCluster {
    /// Windows before connections, connections before anything is installed or settled.
    pub(super) fn gathered(&mut self, at: usize, part: Gathered, now: u64) {
        for (vip, epoch) in &part.vips {
            if let Some(ours) = self.vips.get(vip).filter(|ours| ours.plan.def.epoch < *epoch) {
                let (node, ours) = (&self.members[at].node, ours.plan.def.epoch);
                let warning =
                    format!("{node} obeys epoch {epoch} of VIP {vip}, this router's is {ours}: another owns it");
                self.outputs.push_back(RouterOutput::Warn(warning));
            }
        }
        let told = part.windows.iter().map(|record| record.sa).chain(part.highest_out.iter().map(|(sa, _)| *sa));
        self.members[at].told.extend(told);
        self.members[at].told_vips.extend(part.vips.iter().map(|(vip, _)| *vip));
        self.merge(at, part.windows);
        for (sa, highest) in part.highest_out {
            self.note_seen(sa, highest);
        }
        let restored = self.connections(at, &part.connections);
        if !restored.is_empty() {
            self.outputs.push_back(RouterOutput::RestoreConnections(restored));
        }
        if part.last {
            self.members[at].state = MemberState::Joining;
            self.members[at].gathered_once = true;
            self.install_all(at, now);
            self.settle(now);
        }
    }

    /// Windows of this router's own SAs, from targets that hold them.
    pub(super) fn merge(&mut self, at: usize, windows: Vec<WindowRecord>) {
        let mut good = Vec::with_capacity(windows.len());
        for record in windows {
            let Some(pair) = self.pairs.get(&record.sa) else {
                continue;
            };
            if !self.serves(at, pair.vip()) {
                continue;
            }
            if let Some(ceiling) = self.ceilings.get_mut(&record.sa) {
                ceiling.note_edge(record.snapshot.edge);
            }
            self.raise_reached(record.sa, record.snapshot.edge);
            good.push(record);
        }
        if !good.is_empty() {
            self.outputs.push_back(RouterOutput::MergeWindows(good));
        }
    }

    /// Records of connections that this node can have.
    pub(super) fn connections(&self, at: usize, records: &[ConnRecord]) -> Vec<Connection> {
        let mine = records.iter().filter(|record| self.serves(at, record.vip));
        let known = |record: &ConnRecord| {
            Some(Connection {
                vip: record.vip,
                peer: record.peer,
                flow: record.flow,
                target: self.members[at].target_on(record.core)?,
                established: record.established,
            })
        };
        mine.filter_map(known).collect()
    }

    /// The windows are merged *before* an entry goes (ARCHITECTURE, "Inbound replay"): the order of the outputs.
    pub(super) fn notice(&mut self, at: usize, notice: Notice) {
        let id = notice.id;
        // A repetition was acted on already; only its acknowledgement was lost.
        if id > self.members[at].last_notice {
            self.members[at].last_notice = id;
            self.merge(at, notice.windows);
            let opened = self.connections(at, &notice.opened);
            self.outputs.extend(opened.into_iter().map(RouterOutput::ConnOpened));
            let closed = self.connections(at, &notice.closed);
            self.outputs.extend(closed.into_iter().map(RouterOutput::ConnClosed));
        }
        self.send(at, ToTarget::NoticeAck { id });
    }

    /// A target opens a connection. Of one that it cannot have nothing is said: its first packet waits in vain.
    pub(super) fn conn_wanted(&mut self, at: usize, record: ConnRecord, outbound: SaId) {
        if let Some(conn) = self.connections(at, &[record]).pop() {
            let (node, inbound) = (self.members[at].node.clone(), self.pair_of(outbound));
            self.outputs.push_back(RouterOutput::OpenConnection { node, record, conn, inbound });
        }
    }

    /// A VIP is settled when all its targets were gathered, or the time is over. Then floors and ceilings are set, and
    /// numbers are given: only now is it known what any node remembers of them (I1).
    pub(super) fn settle(&mut self, now: u64) {
        let open: Vec<VipId> = self.vips.values().filter(|vip| !vip.settled).map(|vip| vip.plan.def.vip).collect();
        for vip in open {
            let mut missing = Vec::new();
            for at in 0..self.members.len() {
                if self.serves(at, vip) && !self.members[at].gathered_once {
                    missing.push(self.members[at].node.clone());
                }
            }
            if !missing.is_empty() && now < self.settle_at {
                continue;
            }
            if let Some(entry) = self.vips.get_mut(&vip) {
                entry.settled = true;
            }
            self.open_all(vip, now);
            self.arm_all(vip, now);
            self.outputs.push_back(RouterOutput::Settled { vip, missing });
        }
    }
}
