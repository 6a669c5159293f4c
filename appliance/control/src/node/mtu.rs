//! How large packets may be: what the router core hears of its paths, what all cores are told, and the MTU of the TAP, which
//! keeps the host's own stack below what fits every outbound SA.

use phalanx_dataplane::Command;
use phalanx_wire::SaId;

use super::brain::Brain;
use super::plan;
use crate::config::PortRole;

impl Brain {
    /// A router core heard of a path that is narrower than it was.
    pub(super) fn too_big_heard(&mut self, sa: SaId, mtu: u16, seq: u32) {
        let now = self.now();
        if let Some(router) = &mut self.router {
            router.path_mtu_told(sa, mtu, seq, now);
        }
    }

    /// Every core of this node that seals with the SA, in whatever role.
    pub(super) fn set_path_mtu(&mut self, sa: SaId, mtu: u16) {
        let Some(entry) = self.sas.path_mtu(sa, mtu) else { return };
        let params = entry.params.clone();
        let cores: Vec<_> = entry.shared.iter().map(|(core, _)| *core).collect();
        tracing::info!(%sa, tunnel = %entry.params.tunnel, mtu, "the path MTU changed");
        for core in cores {
            self.cores.tell(core, Command::PathMtu(sa, mtu));
        }
        for inside in self.sas.inside(&params) {
            let mtu = self.sas.find(inside).and_then(|entry| self.sas.path_within(&entry.params));
            mtu.into_iter().for_each(|mtu| self.set_path_mtu(inside, mtu));
        }
    }

    /// The TAP carries what fits every outbound SA.
    pub(super) fn look_at_tap_mtu(&mut self) {
        let Some(fits) = self.sas.fits_all() else { return };
        let configured = self.config.ports.iter().find(|port| port.role == PortRole::Application);
        let most = configured.and_then(|port| port.mtu).unwrap_or(plan::HOST_MTU);
        let mtu = u16::try_from(fits).unwrap_or(u16::MAX).min(most);
        if let Err(error) = self.tap.set_mtu(mtu) {
            self.warn(format!("MTU {mtu} on the application port: {error}"));
        }
    }
}
