//! From the checked configuration to what each room wants to be told. Pure: no I/O, no clock, no randomness.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use phalanx_cluster::messages::{NodeName, RankedFilter, VipDef};
use phalanx_cluster::{SaPair, TargetPlan, VipPlan};
use phalanx_dataplane::config as dp;
use phalanx_ike::{ChildMode, ChildSa, Keyed};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Encap, Filter, IpsecError, Lifesize, Mode, MssClamp, Original, PortRange, Prefix,
    SaParams, SecretKey, Selectors, TunnelName, ah_header_len,
};
use phalanx_steering::Policy;
use phalanx_wire::{CoreId, Epoch, PeerId, ReassemblyLimits, Spi, TargetId, VipId};

use super::distribution;
use super::ike_tunnels::Tunnel;
use crate::config::{self, Config};

/// What an SA of the algorithm adds to a packet at most: IPv6 header, UDP header, SPI and sequence number, IV, padding and its length,
/// next header, ICV.
const fn overhead(algorithm: Algorithm) -> u16 {
    40 + 8 + 8 + (algorithm.iv_len() + algorithm.alignment() - 1 + 2 + algorithm.icv_len()) as u16
}
/// In this version the embedded store knows one owner, so a VIP has one epoch for ever; takeover will count.
pub const FIRST_EPOCH: Epoch = Epoch(1);
/// Dynamic rules that come with SAs stand behind everything the operator wrote.
const DYNAMIC_RANK: u32 = 1 << 20;
/// Those of negotiated ones, in the order of their peers, behind the static ones.
const NEGOTIATED_RANK: u32 = 1 << 24;
/// Those that stand while there are none.
const STANDING_RANK: u32 = 1 << 28;
/// Our replay window where the peer sends: it costs little, and no reordering on the way reaches it.
const OUR_WINDOW: u32 = 1024;

/// What the host's stack is given in one piece: no TAP driver takes more. What the stack itself may send is [`application_mtu`].
pub(super) const HOST_MTU: u16 = 1500;
/// One source may have so much of what is kept in fragments.
const SHARE_OF_SOURCE: usize = 4;

/// The data plane of this node.
pub fn dataplane(config: &Config) -> dp::DataplaneConfig {
    let ports = config.ports.iter().enumerate().map(|(at, port)| self::port(at, port)).collect();
    let cores = config.cores.iter().enumerate().map(|(at, core)| self::core(at, core)).collect();
    let sas = config.limits.sas as usize;
    dp::DataplaneConfig {
        eal: dp::EalConfig {
            memory_mb: config.memory.megabytes.unwrap_or(0),
            huge: match config.memory.hugepages {
                config::Hugepages::Never => dp::HugePages::Off,
                config::Hugepages::Auto => dp::HugePages::Auto,
            },
            ..dp::EalConfig::default()
        },
        ports,
        cores,
        limits: dp::Limits {
            inbound: sas,
            outbound: sas,
            connections: config.limits.connections as usize,
            tracked: config.limits.connections as usize,
            connections_per_peer: config.limits.connections_per_peer,
            half_open_per_peer: config.limits.half_open_per_peer,
            reassembly: reassembly(&config.limits),
            peers: config.limits.peers as usize,
            ..dp::Limits::default()
        },
    }
}

fn reassembly(limits: &config::Limits) -> ReassemblyLimits {
    let datagrams = limits.fragmented_packets as usize;
    let datagrams_per_source = (datagrams / SHARE_OF_SOURCE).max(1);
    ReassemblyLimits {
        timeout_ms: u64::from(limits.fragment_ms),
        datagrams,
        datagrams_per_source,
        ..ReassemblyLimits::default()
    }
}

fn port(at: usize, port: &config::Port) -> dp::PortConfig {
    let addresses = port.addresses.iter().map(|net| (net.addr(), net.prefix_len())).collect();
    dp::PortConfig {
        name: port.name.clone(),
        device: port.device.eal_argument(at),
        role: match port.role {
            config::PortRole::Network => dp::PortRole::Network,
            config::PortRole::Link => dp::PortRole::Link,
            config::PortRole::Application => dp::PortRole::Application,
        },
        mtu: port.mtu.unwrap_or(HOST_MTU),
        addresses,
        gateways: port.next_hops.clone(),
        host_mac: None,
    }
}

/// What the host's own stack may send so that it still fits the network once it is sealed.
pub fn application_mtu(config: &Config) -> u16 {
    let network = config.ports.iter().filter(|p| p.role == config::PortRole::Network).filter_map(|p| p.mtu);
    let paths = config.sas.iter().map(|sa| sa.path_mtu);
    let negotiated =
        config.peers.iter().flat_map(|peer| &peer.ike.children).flat_map(|child| &child.proposal.algorithms);
    let algorithms = config.sas.iter().map(|sa| sa.algorithm).chain(negotiated.copied());
    let worst = algorithms.map(overhead).max().unwrap_or(overhead(Algorithm::Aes128Gcm16));
    let around = config.sas.iter().filter_map(|sa| sa.within).map(|at| ah_header_len(config.sas[at].algorithm, true));
    let worst = worst + around.max().unwrap_or(0) as u16;
    network.chain(paths).min().unwrap_or(1500) - worst
}

fn core(at: usize, core: &config::Core) -> dp::CoreConfig {
    dp::CoreConfig {
        id: CoreId(at as u16),
        cpu: Some(core.cpu as usize),
        router: core.router,
        target: core.target,
        ports: core.ports.clone(),
        idle: match core.idle {
            config::Idle::Spin => dp::Idle::Spin,
            config::Idle::Pause => dp::Idle::Pause,
            config::Idle::Sleep => dp::Idle::SLEEP,
        },
    }
}

/// The nodes of the cluster by number: their place in the alphabet, so that a restart gives the same numbers.
pub struct Numbering(Vec<NodeName>);

impl Numbering {
    /// Numbers for all nodes that the configuration names.
    pub fn new(config: &Config) -> Numbering {
        let mut names: BTreeSet<&str> = config.cluster.nodes.iter().map(|n| n.name.as_str()).collect();
        names.insert(&config.node.name);
        Numbering(names.into_iter().map(NodeName::from).collect())
    }

    /// A node's number as a target.
    pub fn id(&self, name: &str) -> Option<TargetId> {
        self.0.iter().position(|n| &**n == name).map(|at| TargetId(at as u16))
    }

    /// The node with that number.
    pub fn name(&self, id: TargetId) -> Option<&NodeName> {
        self.0.get(usize::from(id.0))
    }

    /// All of them as targets.
    pub fn targets(&self) -> Vec<TargetPlan> {
        let plan =
            |(at, node): (usize, &NodeName)| TargetPlan { id: TargetId(at as u16), node: node.clone(), core: None };
        self.0.iter().enumerate().map(plan).collect()
    }
}

/// The VIPs of this router, as their targets will learn them (R24).
pub fn vips(config: &Config, numbering: &Numbering) -> Result<Vec<VipPlan>, IpsecError> {
    let filters = filters(config)?;
    let router_link = links(config);
    config
        .vips
        .iter()
        .map(|vip| {
            let mut own: Vec<RankedFilter> =
                filters.iter().filter(|f| f.filter.vip == VipId(vip.id)).cloned().collect();
            own.extend(standing(config, vip)?);
            Ok(VipPlan {
                def: VipDef {
                    vip: VipId(vip.id),
                    address: vip.address.addr(),
                    prefix_len: vip.address.prefix_len(),
                    epoch: FIRST_EPOCH,
                    router_link: router_link.clone(),
                    filters: own,
                    filter_at_router: vip.filter_at == config::FilterAt::Router,
                },
                targets: distribution::targets(config, vip, numbering),
            })
        })
        .collect()
}

/// What peers whose address is known are there for: until there is an SA, packets wait for one or are dropped, and never go in
/// clear (R20, I9). Behind the rules that come with SAs.
fn standing(config: &Config, vip: &config::Vip) -> Result<Vec<RankedFilter>, IpsecError> {
    let mut rules = Vec::new();
    for (at, peer) in config.peers.iter().enumerate().filter(|(_, peer)| config.vips[peer.vip].id == vip.id) {
        let Some(remote) = peer.ike.remote.address() else { continue };
        for (which, child) in peer.ike.children.iter().enumerate() {
            let selectors = Selectors {
                local: child.local.unwrap_or(Prefix::host(vip.address.addr())),
                remote: child.remote.unwrap_or(Prefix::host(remote)),
                protocol: child.protocol,
                local_ports: child.local_ports,
                remote_ports: child.remote_ports,
            };
            let action = Action::Protect(TunnelName::new(&format!("{}:{}", peer.ike.name, child.name))?);
            let filter = Filter { vip: VipId(vip.id), selectors, action, log: false };
            rules.push(RankedFilter { rank: STANDING_RANK + rank_of(at, which), filter, name: None });
        }
    }
    Ok(rules)
}

/// In the order of peers and their children.
fn rank_of(peer: usize, child: usize) -> u32 {
    (peer as u32) * 256 + child.min(255) as u32
}

/// Our addresses on the trusted link.
pub fn links(config: &Config) -> Vec<IpAddr> {
    let ports = config.ports.iter().filter(|p| p.role == config::PortRole::Link);
    ports.flat_map(|p| p.addresses.iter().map(IpNet::addr)).collect()
}

/// How the router chooses among a VIP's targets.
pub fn policy(vip: &config::Vip) -> Policy {
    match vip.select {
        config::Select::RoundRobin => Policy::RoundRobin,
        config::Select::LeastConnections => Policy::LeastConnections,
        config::Select::Load => Policy::Load,
    }
}

/// The rules the operator wrote, first match first.
fn filters(config: &Config) -> Result<Vec<RankedFilter>, IpsecError> {
    config
        .filters
        .iter()
        .zip(0..)
        .map(|(filter, rank)| {
            let action = match &filter.action {
                config::Action::Permit => Action::Permit,
                config::Action::Deny => Action::Deny,
                config::Action::Protect(tunnel) => Action::Protect(TunnelName::new(tunnel)?),
            };
            let vip = VipId(config.vips[filter.vip].id);
            Ok(RankedFilter {
                rank,
                filter: Filter { vip, selectors: selectors(&filter.selectors)?, action, log: filter.log },
                name: filter.name.as_deref().map(Into::into),
            })
        })
        .collect()
}

fn selectors(s: &config::Selectors) -> Result<Selectors, IpsecError> {
    Ok(Selectors {
        local: Prefix::new(s.local.network(), s.local.prefix_len())?,
        remote: Prefix::new(s.remote.network(), s.remote.prefix_len())?,
        protocol: s.protocol,
        local_ports: PortRange::new(s.local_ports.first, s.local_ports.last)?,
        remote_ports: PortRange::new(s.remote_ports.first, s.remote_ports.last)?,
    })
}

/// The static SAs, each with the rule that leads to it unless the operator wrote one (R2).
pub fn pairs(config: &Config) -> Result<Vec<SaPair>, IpsecError> {
    config.sas.iter().zip(0..).map(|(sa, at)| pair(config, sa, DYNAMIC_RANK + at)).collect()
}

fn pair(config: &Config, sa: &config::Sa, rank: u32) -> Result<SaPair, IpsecError> {
    let vip = &config.vips[sa.vip];
    let selectors = selectors(&sa.selectors)?;
    let tunnel = TunnelName::new(&sa.name)?;
    let around = sa.within.map(|at| &config.sas[at]);
    let half = |direction, half: &config::HalfSa| -> Result<Arc<SaParams>, IpsecError> {
        let algorithm = sa.algorithm;
        let (local, remote) = (vip.address.addr(), sa.peer);
        let key = SecretKey::new(algorithm, half.key.bytes())?;
        let params = SaParams {
            id: SaParams::static_id(local, Spi(half.spi), direction, &key),
            direction,
            vip: VipId(vip.id),
            peer: peer_id(local, remote, &sa.name),
            tunnel,
            spi: Spi(half.spi),
            mode: match sa.mode {
                config::SaMode::Tunnel => Mode::Tunnel { local, remote },
                config::SaMode::Transport => Mode::Transport,
            },
            local,
            remote,
            algorithm,
            key,
            esn: sa.esn,
            window: half.window,
            selectors,
            lifesize: Lifesize { soft: sa.soft_bytes, hard: sa.hard_bytes },
            path_mtu: path_mtu(sa, around, local.is_ipv6()),
            mss_clamp: mss_clamp(sa.mss_clamp),
            copy_dscp: sa.copy_dscp,
            ecn: sa.ecn,
            encap: sa.encap.map(|udp| Encap {
                remote_port: udp.peer_port,
                original: udp.original.map(|(local, remote)| Original { local, remote }),
            }),
            within: around.map(|ah| TunnelName::new(&ah.name)).transpose()?,
        };
        params.check()?;
        Ok(Arc::new(params))
    };
    let rule = Filter { vip: VipId(vip.id), selectors, action: Action::Protect(tunnel), log: false };
    let written = config.filters.iter().any(|f| matches!(&f.action, config::Action::Protect(name) if *name == sa.name));
    // What goes around another SA's packets does not get packets by a rule of its own.
    let wraps = config.sas.iter().any(|other| other.within.is_some_and(|at| config.sas[at].name == sa.name));
    Ok(SaPair {
        inbound: half(Direction::Inbound, &sa.inbound)?,
        outbound: half(Direction::Outbound, &sa.outbound)?,
        filters: if written || wraps { Vec::new() } else { vec![RankedFilter { rank, filter: rule, name: None }] },
        ceiling: 0,
        reached: 0,
        keepalive_us: sa.encap.map_or(0, |udp| u64::from(udp.nat_keepalive) * 1_000_000),
        early: false,
        waits: false,
    })
}

/// What an SA's packets may measure: within AH the path carries that much less of them.
fn path_mtu(sa: &config::Sa, around: Option<&config::Sa>, v6: bool) -> u16 {
    around.map_or(sa.path_mtu, |ah| sa.path_mtu.min(ah.path_mtu) - ah_header_len(ah.algorithm, v6) as u16)
}

/// The peers whose VIPs are not down, as the state machine is to know them.
pub(super) fn ike(config: &Config, down: &BTreeSet<VipId>) -> phalanx_ike::Config {
    let up = |peer: &&config::Peer| !down.contains(&VipId(config.vips[peer.vip].id));
    phalanx_ike::Config {
        peers: config.peers.iter().filter(up).map(|peer| peer.ike.clone()).collect(),
        taken_spis: config.sas.iter().map(|sa| sa.inbound.spi).collect(),
        limits: config.ike.limits.clone(),
        retransmission: config.ike.retransmission.clone(),
        key_log: config.ike.key_log.is_some(),
    }
}

/// A CHILD_SA as the cluster knows it, with the rule that leads to it (R2, R4). `at`: the peer's place in the configuration.
pub(super) fn negotiated(
    peer: &config::Peer,
    at: usize,
    vip: VipId,
    child: &ChildSa,
    tunnel: &Tunnel,
) -> Result<SaPair, IpsecError> {
    let (local, remote) = (child.path.local.ip(), child.path.remote.ip());
    let encap = child.encapsulated.then(|| Encap { remote_port: child.path.remote.port(), original: child.original });
    let limit = |bytes: u64| if bytes == 0 { u64::MAX } else { bytes };
    let half = |direction, keyed: &Keyed| -> Result<Arc<SaParams>, IpsecError> {
        let window = if direction == Direction::Inbound { child.window.max(OUR_WINDOW) } else { child.window };
        let params = SaParams {
            id: SaParams::static_id(local, keyed.spi, direction, &keyed.key),
            direction,
            vip,
            peer: tunnel.peer,
            tunnel: tunnel.name,
            spi: keyed.spi,
            mode: match child.mode {
                ChildMode::Tunnel => Mode::Tunnel { local, remote },
                ChildMode::Transport => Mode::Transport,
            },
            local,
            remote,
            algorithm: child.algorithm,
            key: keyed.key.clone(),
            esn: child.esn,
            window,
            selectors: child.selectors,
            lifesize: Lifesize { soft: limit(child.soft_bytes), hard: limit(child.hard_bytes) },
            path_mtu: peer.path_mtu,
            mss_clamp: mss_clamp(peer.mss_clamp),
            copy_dscp: peer.copy_dscp,
            ecn: peer.ecn,
            encap,
            within: None,
        };
        params.check()?;
        Ok(Arc::new(params))
    };
    let rule = Filter { vip, selectors: child.selectors, action: Action::Protect(tunnel.name), log: false };
    let which = peer.ike.children.iter().position(|one| *one.name == *child.name).unwrap_or_default();
    let rank = NEGOTIATED_RANK + rank_of(at, which);
    Ok(SaPair {
        inbound: half(Direction::Inbound, &child.inbound)?,
        outbound: half(Direction::Outbound, &child.outbound)?,
        filters: vec![RankedFilter { rank, filter: rule, name: None }],
        ceiling: 0,
        reached: 0,
        keepalive_us: if child.keepalive { u64::from(peer.nat_keepalive) * 1_000_000 } else { 0 },
        early: true,
        waits: child.replaces.is_some(),
    })
}

fn mss_clamp(clamp: config::MssClamp) -> MssClamp {
    match clamp {
        config::MssClamp::None => MssClamp::None,
        config::MssClamp::Path => MssClamp::Path,
        config::MssClamp::Most(most) => MssClamp::Most(most),
    }
}

/// The same peer has the same number after a restart, whatever else the configuration gained: FNV-1a over its names.
fn peer_id(vip: IpAddr, remote: IpAddr, tunnel: &str) -> PeerId {
    let name = format!("{vip} {remote} {tunnel}");
    PeerId(name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
}
