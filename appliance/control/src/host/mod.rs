//! Keeps a VIP's clear packets off every wire (I9), whatever process dies.
//!
//! A target's own stack has the VIP on a TAP and nowhere else. This module tells the host so, with tools that every host has:
//! - `nft`, netdev: what a software port receives is ours, the host's stack sees nothing of it;
//! - `nft`, inet and arp: the host sends nothing through a software port; packets from or to a VIP pass by the TAP only; nobody
//!   speaks ARP or ND for a VIP;
//! - `ip rule`: what comes from a VIP is routed by a table of its own, into the TAP or, when that is gone, nowhere.
//!
//! All of it stays when the process is killed, and the next start takes it over. [`HostIsolation::remove`] ends it, after the
//! sockets that could still send from a VIP. The rules themselves are made by pure functions in `rules`.

mod record;
mod rules;
pub mod sock_diag;
mod tools;

pub use tools::HostError;

use crate::config::{Config, PortRole};
use record::{PortState, Record};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tools::{ip, nft, sysctl};

/// What is isolated.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// The node's name; names the rules.
    pub node: String,
    /// Where the way back is kept.
    pub state_dir: PathBuf,
    /// The kernel's name of the application port.
    pub tap: String,
    /// MTU of the TAP: what still fits the path once it is sealed.
    pub tap_mtu: u16,
    /// Interfaces of the kernel that the data plane uses as network and link ports.
    pub software_ports: Vec<String>,
}

impl HostPlan {
    /// From the configuration. `None` without an application port.
    pub fn new(config: &Config, tap_mtu: u16) -> Option<HostPlan> {
        let tap = config.ports.iter().find(|p| p.role == PortRole::Application)?.device.netdev()?.to_owned();
        let wires = config.ports.iter().filter(|p| p.role != PortRole::Application);
        let software_ports = wires.filter_map(|p| p.device.netdev().map(str::to_owned)).collect();
        let (node, state_dir) = (config.node.name.clone(), config.node.state_dir.clone());
        Some(HostPlan { node, state_dir, tap, tap_mtu, software_ports })
    }
}

/// The isolation of this host. Dropping it leaves everything in place: only [`HostIsolation::remove`] ends it.
#[derive(Debug)]
pub struct HostIsolation {
    plan: HostPlan,
    /// VIPs on the TAP.
    vips: BTreeSet<IpAddr>,
    record: Record,
    tap_up: bool,
    /// What the TAP has.
    tap_mtu_set: u16,
}

impl HostIsolation {
    /// Closes the host before the data plane opens its ports. Of an earlier life everything stays closed.
    pub fn apply(plan: HostPlan) -> Result<HostIsolation, HostError> {
        for port in &plan.software_ports {
            withdrawn(port)?;
        }
        let mut record = Record::load(&plan.state_dir)?;
        for port in &plan.software_ports {
            if !record.ports.contains_key(port) {
                let disable_ipv6 = sysctl::read(&sysctl::ipv6(port, "disable_ipv6"));
                record.ports.insert(port.clone(), PortState { disable_ipv6, up: tools::is_up(port)? });
            }
        }
        record.save(&plan.state_dir)?;
        let isolation = HostIsolation { plan, vips: BTreeSet::new(), record, tap_up: false, tap_mtu_set: 0 };
        isolation.close()?;
        for port in &isolation.plan.software_ports {
            sysctl::write(&sysctl::ipv6(port, "disable_ipv6"), "1")?;
            ip(&["link", "set", "dev", port, "up"])?;
        }
        Ok(isolation)
    }

    /// The TAP exists now: gives it its MTU and the VIPs. To be called after the data plane started.
    pub fn attach_tap(&mut self) -> Result<(), HostError> {
        let tap = self.plan.tap.as_str();
        // Its neighbour is the data plane, which takes every frame: nothing to resolve (and no ARP or ND for the VIP).
        sysctl::write(&sysctl::ipv4(tap, "rp_filter"), "0")?;
        for (key, value) in [("accept_ra", "0"), ("autoconf", "0"), ("addr_gen_mode", "1"), ("accept_dad", "0")] {
            sysctl::write(&sysctl::ipv6(tap, key), value)?;
        }
        let mtu = self.tap_mtu();
        ip(&["link", "set", "dev", tap, "arp", "off", "multicast", "off", "mtu", &mtu.to_string(), "up"])?;
        (self.tap_up, self.tap_mtu_set) = (true, mtu);
        self.open_tap()
    }

    /// From now on the TAP carries packets of at most `mtu` bytes, but never less than IPv6 asks for while there is an IPv6
    /// VIP: the kernel would take IPv6 away from it.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), HostError> {
        self.plan.tap_mtu = mtu;
        let mtu = self.tap_mtu();
        if self.tap_up && self.tap_mtu_set != mtu {
            ip(&["link", "set", "dev", &self.plan.tap, "mtu", &mtu.to_string()])?;
            self.tap_mtu_set = mtu;
        }
        Ok(())
    }

    fn tap_mtu(&self) -> u16 {
        // RFC 8200 §5.
        let least = if self.vips.iter().any(IpAddr::is_ipv6) { 1280 } else { 0 };
        self.plan.tap_mtu.max(least)
    }

    /// These VIPs are served here, and no others. Sockets of those that are not served any more are ended.
    pub fn set_vips(&mut self, vips: impl IntoIterator<Item = IpAddr>) -> Result<(), HostError> {
        let vips: BTreeSet<IpAddr> = vips.into_iter().collect();
        let gone: Vec<IpAddr> = self.vips.difference(&vips).copied().collect();
        self.record.vips.extend(vips.iter().copied());
        self.record.save(&self.plan.state_dir)?;
        // First closed, then on the TAP: there is no moment in which the host knows the VIP and may leak it.
        self.vips = vips;
        self.close()?;
        if self.tap_up {
            self.set_mtu(self.plan.tap_mtu)?;
            self.open_tap()?;
        }
        for vip in gone {
            end_sockets(vip)?;
            if self.tap_up {
                ip::quiet(&["addr", "del", &rules::host_prefix(vip), "dev", &self.plan.tap])?;
            }
            self.record.vips.remove(&vip);
            rules::close_routes(&self.plan, vip).undo()?;
            self.record.save(&self.plan.state_dir)?;
            nft(&rules::ruleset(&self.plan, &self.guarded()))?;
        }
        Ok(())
    }

    /// Ends the isolation: sockets first, so that nothing is left that could send from a VIP. If some cannot be ended the
    /// host stays closed and the error says so. Call it while the data plane still runs, or after.
    pub fn remove(mut self) -> Result<(), HostError> {
        for vip in self.guarded() {
            end_sockets(vip)?;
        }
        for vip in self.guarded() {
            ip::quiet(&["addr", "del", &rules::host_prefix(vip), "dev", &self.plan.tap])?;
            // Between the two lines above somebody may have opened another.
            end_sockets(vip)?;
            rules::close_routes(&self.plan, vip).undo()?;
        }
        for family in ["-4", "-6"] {
            ip::quiet(&[family, "route", "flush", "table", &rules::route_table(&self.plan.node)])?;
        }
        for (port, state) in &self.record.ports {
            if let Some(value) = &state.disable_ipv6 {
                // The port itself may be gone.
                let _ = sysctl::write(&sysctl::ipv6(port, "disable_ipv6"), value);
            }
            if !state.up {
                ip::quiet(&["link", "set", "dev", port, "down"])?;
            }
        }
        nft(&rules::nothing(&self.plan))?;
        self.record.forget(&self.plan.state_dir)?;
        self.vips.clear();
        Ok(())
    }

    /// VIPs of this life and of earlier ones, whose sockets may still be there.
    fn guarded(&self) -> Vec<IpAddr> {
        self.record.vips.union(&self.vips).copied().collect()
    }

    fn close(&self) -> Result<(), HostError> {
        nft(&rules::ruleset(&self.plan, &self.guarded()))?;
        self.guarded().iter().try_for_each(|vip| rules::close_routes(&self.plan, *vip).make())
    }

    fn open_tap(&self) -> Result<(), HostError> {
        let tap = self.plan.tap.as_str();
        // Without an IPv6 VIP the TAP needs no IPv6, and says nothing by it.
        let v6 = self.vips.iter().any(IpAddr::is_ipv6);
        sysctl::write(&sysctl::ipv6(tap, "disable_ipv6"), if v6 { "0" } else { "1" })?;
        for vip in &self.vips {
            let prefix = rules::host_prefix(*vip);
            let mut add = vec!["addr", "replace", &prefix, "dev", tap];
            if vip.is_ipv6() {
                add.push("nodad");
            }
            ip(&add)?;
            rules::open_route(&self.plan, *vip).make()?;
        }
        Ok(())
    }
}

/// A network or link port has no address of the host's: its addresses are the data plane's.
fn withdrawn(port: &str) -> Result<(), HostError> {
    let addresses = ip::output(&["-o", "addr", "show", "dev", port, "scope", "global"])?;
    let found: Vec<String> = addresses.lines().filter_map(|l| l.split_whitespace().nth(3).map(str::to_owned)).collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(HostError::PortInUse { port: port.to_owned(), addresses: found.join(", ") })
}

/// How long sockets may take to end.
const SOCKETS: Duration = Duration::from_secs(2);

/// Ends all connected sockets whose local address is `vip`. Those that listen stay: they send nothing by themselves.
fn end_sockets(vip: IpAddr) -> Result<(), HostError> {
    let start = Instant::now();
    loop {
        tools::kill_sockets(vip)?;
        let left = tools::sockets(vip)?;
        if left == 0 {
            return Ok(());
        }
        if start.elapsed() > SOCKETS {
            return Err(HostError::SocketsRemain { vip, left });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
