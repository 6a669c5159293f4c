//! The host's side of the application port: which VIPs are on the TAP, and the isolation around it (I9).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::plan;
use crate::config::Config;
use crate::host::{HostError, HostIsolation, HostPlan};

/// The TAP of this node, if it has an application port.
pub struct Tap {
    isolation: Option<HostIsolation>,
    vips: BTreeSet<IpAddr>,
}

impl Tap {
    /// Closes the host, before any port is up.
    pub fn isolate(config: &Config) -> Result<Tap, HostError> {
        let plan = HostPlan::new(config, plan::application_mtu(config));
        Ok(Tap { isolation: plan.map(HostIsolation::apply).transpose()?, vips: BTreeSet::new() })
    }

    /// The data plane runs and has made the TAP.
    pub fn open(&mut self) -> Result<(), HostError> {
        self.isolation.as_mut().map_or(Ok(()), HostIsolation::attach_tap)
    }

    /// Puts a VIP on the TAP.
    pub fn add(&mut self, vip: IpAddr) -> Result<(), HostError> {
        self.vips.insert(vip);
        self.tell()
    }

    /// Takes a VIP from it; the sockets that have it are ended.
    pub fn remove(&mut self, vip: IpAddr) -> Result<(), HostError> {
        self.vips.remove(&vip);
        self.tell()
    }

    /// Opens the host again, after the last socket of a VIP is gone. The data plane should still run: the peers are told.
    pub fn release(self) -> Result<(), HostError> {
        self.isolation.map_or(Ok(()), HostIsolation::remove)
    }

    /// What the host's own stack may send in one packet.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), HostError> {
        self.isolation.as_mut().map_or(Ok(()), |isolation| isolation.set_mtu(mtu))
    }

    fn tell(&mut self) -> Result<(), HostError> {
        let vips = self.vips.iter().copied();
        self.isolation.as_mut().map_or(Ok(()), |isolation| isolation.set_vips(vips))
    }
}
