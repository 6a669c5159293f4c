//! Peers behind NATs: what cores saw goes to the router, what the router decided goes to the cores.

use std::net::SocketAddr;

use phalanx_cluster::messages::PeerAt;
use phalanx_dataplane::Command;
use phalanx_wire::{CoreId, SaId};

use super::brain::Brain;

impl Brain {
    /// A core opened a genuine packet from where its peer was not: to the VIP's router, which may be here.
    pub(super) fn peer_seen(&mut self, told: PeerAt) {
        let Some(vip) = self.sas.find(told.sa).map(|entry| entry.params.vip) else { return };
        let Some(state) = self.vips.get(&vip) else { return };
        if let Some(name) = state.router.clone() {
            if let Some(target) = self.routers.get_mut(&name) {
                target.peer_seen(told);
            }
        } else if let Some(router) = &mut self.router {
            router.local_peer_seen(&told);
        }
    }

    /// A peer is there now: its SAs on these cores send there.
    pub(super) fn move_peer(&mut self, sas: &[SaId], remote: SocketAddr, cores: &[CoreId]) {
        for &sa in sas {
            if let Some(entry) = self.sas.find_mut(sa) {
                tracing::info!(tunnel = %entry.params.tunnel, %sa, from = %entry.remote, to = %remote, "the peer moved");
                entry.remote = remote;
            }
            for &core in cores {
                self.cores.tell(core, Command::MovePeer(sa, remote));
            }
        }
    }
}
