//! Connections that a target opens to a peer (R20): its core holds the first packet and says so, the VIP's router makes the entry
//! in its core's table and says so, the packet goes.

use phalanx_cluster::messages::{ConnRecord, ConnRefusal, NodeName, ToTarget};
use phalanx_cluster::outputs::Connection;
use phalanx_dataplane::Command;
use phalanx_dataplane::command::Refused;
use phalanx_steering::ConnKey;
use phalanx_wire::{CoreId, DropReason, SaId, VipId};

use super::brain::Brain;
use super::cores::Purpose;
use super::router_side::key;

impl Brain {
    /// As a target: a core's application opens a connection.
    pub(super) fn connection_wanted(&mut self, core: CoreId, vip: VipId, key: ConnKey, sa: SaId) {
        let Some(state) = self.vips.get(&vip) else { return };
        let (name, ours): (NodeName, bool) = (self.router_of(state).into(), state.router.is_none());
        let record = ConnRecord { vip, peer: key.peer, flow: key.flow, core, established: false };
        let asked = self.routers.get_mut(&name).is_some_and(|target| target.conn_wanted(record, sa));
        if !asked && ours {
            // The router itself, as an ordinary endpoint: what it has no entry of is its own.
            self.cores.tell(core, Command::ConnAnswer(key, None));
        }
    }

    /// As a target: the router answered.
    pub(super) fn connection_answered(&mut self, conn: &ConnRecord, refused: Option<ConnRefusal>) {
        let key = ConnKey { peer: conn.peer, flow: conn.flow };
        let reason = refused.map(|refusal| match refusal {
            ConnRefusal::PortTaken => DropReason::PortTaken,
            ConnRefusal::NoRoom => DropReason::TableFull,
        });
        self.cores.tell(conn.core, Command::ConnAnswer(key, reason));
    }

    /// As the router: a target opens a connection.
    pub(super) fn open_connection(
        &mut self,
        node: NodeName,
        record: ConnRecord,
        conn: &Connection,
        inbound: Option<SaId>,
    ) {
        let Some(core) = self.cores.router() else { return };
        let command = Command::OpenConn { key: key(conn), target: conn.target, inbound };
        if let Some(finished) = self.cores.submit(Purpose::Connection(node, record), vec![(core, command)]) {
            self.finished(finished);
        }
    }

    /// As the router: its core has the entry, or not.
    pub(super) fn connection_opened(&mut self, node: &NodeName, conn: ConnRecord, result: Result<(), Refused>) {
        let refused = result.err().map(|refused| match refused {
            Refused::PortTaken => ConnRefusal::PortTaken,
            _ => ConnRefusal::NoRoom,
        });
        self.send_to_target(node, ToTarget::ConnAnswer { conn, refused });
    }
}
