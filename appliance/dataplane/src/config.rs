//! What a data plane is made of: ports, cores and the limits everything is allocated to at start.
//!
//! Nothing here changes while it runs; what changes comes as a [`Command`](crate::command::Command).

use std::net::IpAddr;
use std::time::Duration;

pub use dpdk_ffi::{EalConfig, EalLog, HugePages};
use phalanx_wire::{CoreId, Mac, ReassemblyLimits};

/// Everything [`Dataplane::start`](crate::Dataplane::start) needs.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// DPDK's environment. Memory below what the packets of [`Limits`] need is raised to that, and PCI devices of
    /// the ports are allowed without being named here.
    pub eal: EalConfig,
    /// Ports by index: a "port" in every other type of this crate is an index into this list.
    pub ports: Vec<PortConfig>,
    /// One poll loop each.
    pub cores: Vec<CoreConfig>,
    /// Sizes of all tables and queues.
    pub limits: Limits,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// The network of the peers: ESP in and out, ARP and ND for the VIPs of a router.
    Network,
    /// The trusted link between the boxes of a cluster: GRE with link headers. Or, if the device is a `net_memif`, to one
    /// other process of this box: frames with link headers and nothing else.
    Link,
    /// The host's own stack (a TAP): inner packets only.
    Application,
}

/// One DPDK port.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Its name in status and logs.
    pub name: String,
    /// A vdev string (`net_af_packet0,iface=veth0`) or a PCI address.
    pub device: String,
    /// What it is for.
    pub role: PortRole,
    /// Largest IP packet in bytes, without the Ethernet header.
    pub mtu: u16,
    /// Its own addresses with prefix lengths: senders of ARP and ND and, on a link, of GRE. Never a VIP.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Next hops for what is not on the port's own prefixes, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Application ports: the host side's MAC address; none means the port's own, which a TAP shares with its host side.
    pub host_mac: Option<Mac>,
}

/// One pinned poll loop.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Its number in commands, events and link headers; unique in the process.
    pub id: CoreId,
    /// The CPU it is pinned to; none leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// Steers inbound packets of VIPs whose router this core is.
    pub router: bool,
    /// Opens and delivers what a router forwards to it.
    pub target: bool,
    /// Ports it receives from and sends to. A port belongs to exactly one core.
    pub ports: Vec<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
}

/// What a loop does when a round brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Poll again at once.
    Spin,
    /// Poll again after some CPU pause instructions.
    Pause,
    /// Sleep for a short time after some empty rounds: for tests and shared machines.
    Sleep(Duration),
}

impl Idle {
    /// [`Idle::Sleep`] with the usual time.
    pub const SLEEP: Idle = Idle::Sleep(Duration::from_micros(60));
}

/// Sizes of everything a core allocates at start; each core gets all of it unless said otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Packet buffers of the process.
    pub packets: u32,
    /// Largest frame a buffer holds, headroom not counted.
    pub frame: u16,
    /// Large packet buffers of the process, for packets put together from fragments.
    pub large_packets: u32,
    /// Largest packet in one of those, headroom not counted. Larger ones are not put together.
    pub large_frame: u16,
    /// What fragments may hold on to; its `size` is at most `large_frame`.
    pub reassembly: ReassemblyLimits,
    /// First fragments remembered for those that follow them, in each direction.
    pub fragments: usize,
    /// VIPs.
    pub vips: usize,
    /// Inbound SAs.
    pub inbound: usize,
    /// Outbound SAs.
    pub outbound: usize,
    /// Entries of the router's connection table.
    pub connections: usize,
    /// Of them for one peer.
    pub connections_per_peer: u32,
    /// Half-open entries of one peer in the router's connection table.
    pub half_open_per_peer: u32,
    /// Peers with entries in the router's connection table at a time.
    pub peers: usize,
    /// Connections followed by a target.
    pub tracked: usize,
    /// Next hops known per port.
    pub neighbours: usize,
    /// Packets that wait for a sequence number, a ceiling or a next hop, each.
    pub held: usize,
    /// Of them for one SA or one next hop.
    pub held_each: usize,
    /// Commands under way to one core.
    pub commands: usize,
    /// Events under way from one core.
    pub events: usize,
    /// Packets in the ring to one core; a power of two.
    pub ring: u32,
    /// Descriptors of each port queue.
    pub descriptors: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            packets: 16_383,
            frame: 2048,
            large_packets: 255,
            large_frame: 9216,
            reassembly: ReassemblyLimits::default(),
            fragments: 1024,
            vips: 64,
            inbound: 1024,
            outbound: 1024,
            connections: 65_536,
            connections_per_peer: 65_536,
            half_open_per_peer: 1024,
            peers: 4096,
            tracked: 65_536,
            neighbours: 256,
            held: 1024,
            held_each: 64,
            commands: 1024,
            events: 8192,
            ring: 4096,
            descriptors: 1024,
        }
    }
}

impl PortConfig {
    /// A link to one other process of this box.
    pub fn is_memif_link(&self) -> bool {
        self.role == PortRole::Link && self.device.starts_with("net_memif")
    }
}

impl DataplaneConfig {
    /// Refuses what no loop could run: a port without exactly one core, a core number twice, a missing port.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut owners = vec![0usize; self.ports.len()];
        for (at, core) in self.cores.iter().enumerate() {
            if self.cores[..at].iter().any(|other| other.id == core.id) {
                return Err(ConfigError::CoreTwice(core.id));
            }
            for &port in &core.ports {
                *owners.get_mut(port).ok_or(ConfigError::NoSuchPort { core: core.id, port })? += 1;
            }
        }
        if self.cores.is_empty() {
            return Err(ConfigError::NoCore);
        }
        if let Some(port) = owners.iter().position(|&count| count != 1) {
            return Err(ConfigError::PortOwners { port: self.ports[port].name.clone(), owners: owners[port] });
        }
        if !self.limits.ring.is_power_of_two() {
            return Err(ConfigError::RingSize(self.limits.ring));
        }
        Ok(())
    }
}

/// Why a configuration cannot run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// No core at all.
    #[error("no core is configured")]
    NoCore,
    /// Two cores of one number.
    #[error("core {} is configured twice", .0.0)]
    CoreTwice(CoreId),
    /// A core names a port that does not exist.
    #[error("core {} names port {port}, which does not exist", core.0)]
    NoSuchPort {
        /// The core.
        core: CoreId,
        /// The index it names.
        port: usize,
    },
    /// A port with no core or with several.
    #[error("port {port} belongs to {owners} cores; it must be exactly one")]
    PortOwners {
        /// The port's name.
        port: String,
        /// How many cores name it.
        owners: usize,
    },
    /// The ring size is no power of two.
    #[error("the ring size {0} is not a power of two")]
    RingSize(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(id: u16, ports: &[usize]) -> CoreConfig {
        CoreConfig { id: CoreId(id), cpu: None, router: true, target: true, ports: ports.to_vec(), idle: Idle::Spin }
    }

    fn config(cores: Vec<CoreConfig>, ports: usize) -> DataplaneConfig {
        let port = |at| PortConfig {
            name: format!("p{at}"),
            device: "net_null0".into(),
            role: PortRole::Network,
            mtu: 1500,
            addresses: vec![],
            gateways: vec![],
            host_mac: None,
        };
        DataplaneConfig {
            eal: EalConfig::default(),
            ports: (0..ports).map(port).collect(),
            cores,
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_port_belongs_to_exactly_one_core() {
        assert_eq!(config(vec![core(0, &[0, 1])], 2).check(), Ok(()));
        let twice = config(vec![core(0, &[0]), core(1, &[0])], 1).check();
        assert_eq!(twice, Err(ConfigError::PortOwners { port: "p0".into(), owners: 2 }));
        let none = config(vec![core(0, &[])], 1).check();
        assert_eq!(none, Err(ConfigError::PortOwners { port: "p0".into(), owners: 0 }));
    }

    #[test]
    fn cores_have_different_numbers_and_existing_ports() {
        assert_eq!(config(vec![core(0, &[0]), core(0, &[])], 1).check(), Err(ConfigError::CoreTwice(CoreId(0))));
        let missing = config(vec![core(0, &[3])], 1).check();
        assert_eq!(missing, Err(ConfigError::NoSuchPort { core: CoreId(0), port: 3 }));
        assert_eq!(config(vec![], 0).check(), Err(ConfigError::NoCore));
    }
}
