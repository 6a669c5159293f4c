//! Who there is in a bed: clients, their SAs and connections, a router, a target, and what both are told.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use phalanx_dataplane::command::{GreEnd, LinkEnd, TargetEntry, TargetSet, VipEntry};
use phalanx_dataplane::config::{CoreConfig, EalConfig, Idle, Limits, PortConfig, PortRole};
use phalanx_dataplane::{Command, DataplaneConfig};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Filter, FilterTable, InboundSa, Lease, Lifesize, Mode, OutboundSa, Prefix, SaParams,
    SecretKey, Selectors, TunnelName,
};
use phalanx_steering::{Policy, PortRule};
use phalanx_wire::{CoreId, Epoch, Mac, PeerId, SaId, Spi, TargetId, TcpFlags, TcpHeader, VipId, ip, protocol, tcp};

pub const NETWORK: usize = 0;
pub const LINK: usize = 1;
pub const APPLICATION: usize = 2;
pub const VIP: VipId = VipId(1);
pub const TARGET_ID: TargetId = TargetId(1);
const VIP_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
pub const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
/// The connection table counts for so many peers.
const PEERS: u32 = 4096;
pub const ROUTER: u8 = 1;
pub const TARGET: u8 = 11;
pub const SYN: u8 = TcpFlags::SYN;
pub const ACK: u8 = TcpFlags::ACK;

/// How many of what.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Inbound SAs, each with addresses of its own.
    pub sas: usize,
    /// Tunnels: outbound SAs, each with its filter.
    pub tunnels: usize,
    /// TCP connections, of the clients in turn.
    pub connections: usize,
    /// Numbers that replay windows span.
    pub window: u32,
}

/// A client's connection.
#[derive(Clone, Copy)]
pub struct Connection {
    pub sa: usize,
    client_port: u16,
    server_port: u16,
}

/// Which core.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Router,
    Target,
}

impl Side {
    pub fn host(self) -> u8 {
        if self == Side::Router { ROUTER } else { TARGET }
    }
}

impl Shape {
    pub const ONE: Shape = Shape { sas: 1, tunnels: 1, connections: 1, window: 64 };

    /// So many SAs, each with a connection and a filter.
    pub fn each(n: usize) -> Shape {
        Shape { sas: n, tunnels: n, connections: n, ..Shape::ONE }
    }

    pub fn client(&self, sa: usize) -> (IpAddr, IpAddr) {
        let (outer, inner) = (0x0a50_0000 + sa as u32, 0x0a80_0000 + sa as u32); // 10.80.0.0/12, 10.128.0.0/9
        (Ipv4Addr::from_bits(outer).into(), Ipv4Addr::from_bits(inner).into())
    }

    pub fn connection(&self, at: usize) -> Connection {
        let (sa, port) = (at % self.sas, at / self.sas);
        Connection { sa, client_port: 1024 + (port % 50_000) as u16, server_port: 80 + (port / 50_000) as u16 }
    }

    fn tunnel(&self, sa: usize) -> TunnelName {
        TunnelName::new(&format!("t{}", sa % self.tunnels)).expect("a name")
    }

    /// One tunnel for all leads to all clients; else each to its own.
    fn selectors(&self, sa: usize) -> Selectors {
        let all = Prefix::new(Ipv4Addr::new(10, 128, 0, 0).into(), 9).expect("a prefix");
        let remote = if self.tunnels == 1 { all } else { Prefix::host(self.client(sa).1) };
        Selectors::between(Prefix::host(VIP_ADDRESS), remote)
    }

    /// What a core is told of an SA: the router of the inbound one, the target of both.
    pub fn sa_commands(&self, sa: usize, side: Side) -> Vec<Command> {
        let inbound = self.params(sa, Direction::Inbound);
        let ceiling = Command::Ceiling(inbound.id, 1 << 40);
        let mut commands = vec![Command::AddInbound(Box::new(InboundSa::new(inbound).expect("an SA")))];
        if side == Side::Router {
            commands.push(ceiling);
        } else if sa < self.tunnels {
            let outbound = self.params(sa, Direction::Outbound);
            let id = outbound.id;
            commands.push(Command::AddOutbound(Box::new(OutboundSa::new(outbound).expect("an SA"))));
            let expires = std::time::Instant::now() + std::time::Duration::from_secs(3600);
            commands.push(Command::Lease { sa: id, lease: Lease::from_wire(1, 1 << 30), expires });
        }
        commands
    }

    /// Every tunnel's.
    pub fn filters(&self) -> FilterTable {
        let filter = |sa| Filter {
            vip: VIP,
            selectors: self.selectors(sa),
            action: Action::Protect(self.tunnel(sa)),
            log: false,
        };
        FilterTable::new((0..self.tunnels).map(filter).collect())
    }

    /// An SA as the VIP's side sees it.
    pub fn params(&self, sa: usize, direction: Direction) -> SaParams {
        let (local, remote) = (VIP_ADDRESS, self.client(sa).0);
        let inbound = direction == Direction::Inbound;
        let key = key(sa, direction);
        SaParams {
            id: SaId(2 * sa as u64 + u64::from(inbound)),
            direction,
            vip: VIP,
            peer: PeerId(sa as u32 % PEERS),
            tunnel: self.tunnel(sa),
            spi: Spi(0x1000 + sa as u32),
            mode: Mode::Tunnel { local, remote },
            local,
            remote,
            algorithm: Algorithm::Aes128Gcm16,
            key: SecretKey::new(Algorithm::Aes128Gcm16, &key).expect("a key"),
            esn: true,
            window: self.window,
            selectors: self.selectors(sa),
            lifesize: Lifesize::UNLIMITED,
            path_mtu: 1500,
            mss_clamp: phalanx_ipsec::MssClamp::None,
            copy_dscp: true,
            ecn: true,
            encap: None,
            within: None,
        }
    }
}

/// Key and salt.
pub fn key(sa: usize, direction: Direction) -> [u8; 20] {
    let mut key = [u8::from(direction == Direction::Inbound); 20];
    key[..8].copy_from_slice(&(sa as u64).to_be_bytes());
    key
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |n| if n == 1 { "" } else { "s" };
        write!(f, "{} SA{}, {} connection{}", self.sas, s(self.sas), self.connections, s(self.connections))?;
        if self.tunnels > 1 {
            write!(f, ", {} filters", self.tunnels)?;
        }
        if self.window > Shape::ONE.window { write!(f, ", windows of {}", self.window) } else { Ok(()) }
    }
}

impl Connection {
    /// An inner packet of `size` bytes to or from the VIP.
    pub fn packet(&self, direction: Direction, size: usize, flags: u8) -> ArrayVec<u8, 2048> {
        let shape = Shape::ONE;
        let (client, vip) = ((shape.client(self.sa).1, self.client_port), (VIP_ADDRESS, self.server_port));
        let inbound = direction == Direction::Inbound;
        let ((src, src_port), (dst, dst_port)) = if inbound { (client, vip) } else { (vip, client) };
        let mut packet = ArrayVec::from([0; 2048]);
        packet.truncate(size);
        let at = ip::header_len(src);
        let fields = ip::Fields {
            src,
            dst,
            protocol: protocol::TCP,
            payload_len: size - at,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            dont_fragment: true,
            identification: 0,
        };
        ip::write_header(&mut packet, &fields).expect("room");
        let seq = u32::from(flags & SYN == 0);
        let (data_offset, flags) = (tcp::MIN_LEN, TcpFlags(flags));
        let header = TcpHeader { src_port, dst_port, seq, ack: 1, data_offset, flags, window: 1000 };
        header.write(&mut packet[at..]).expect("room");
        packet
    }
}

/// Of a host's port.
pub fn mac(host: u8, port: usize) -> Mac {
    Mac([2, 0, 0, port as u8, 1, host])
}

fn link_address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 78, 0, host).into()
}

/// What a core is told of the VIP.
pub fn vip_commands(side: Side) -> Vec<Command> {
    let link = |port, local, remote| GreEnd { port, local: link_address(local), remote: link_address(remote) };
    let router_core = Some(CoreId(0)).filter(|_| side == Side::Router);
    let vip = Command::SetVip(Box::new(VipEntry {
        id: VIP,
        address: VIP_ADDRESS,
        epoch: Epoch(1),
        router_core,
        served: true,
        filter_at_router: false,
    }));
    if side == Side::Target {
        return vec![vip, Command::SetRouter(VIP, link(LINK, TARGET, ROUTER))];
    }
    let link = LinkEnd::Gre(link(LINK, ROUTER, TARGET), CoreId(0));
    let entry = TargetEntry { id: TARGET_ID, link, eligible: true, draining: false, weight: 1 };
    let rule = PortRule { ports: vec![0..=u16::MAX], targets: vec![entry.id], ..PortRule::default() };
    let targets = TargetSet::new(vec![entry], Policy::RoundRobin, &[rule]).expect("a rule");
    vec![vip, Command::SetTargets(VIP, Box::new(targets)), Command::Settled(VIP)]
}

/// A core with three ports, whose devices are yet to be named.
pub fn config(shape: Shape, side: Side) -> DataplaneConfig {
    let host = side.host();
    let port = |name: &str, role, addresses: &[Ipv4Addr], gateways: &[Ipv4Addr]| PortConfig {
        name: name.into(),
        device: "none".into(),
        role,
        mtu: if role == PortRole::Link { 1600 } else { 1500 },
        addresses: addresses.iter().map(|&address| (address.into(), 24)).collect(),
        gateways: gateways.iter().map(|&gateway| gateway.into()).collect(),
        host_mac: Some(CLIENT_MAC).filter(|_| role == PortRole::Application),
    };
    let (network, gateway) = (Ipv4Addr::new(10, 77, 0, host), Ipv4Addr::new(10, 77, 0, 10));
    DataplaneConfig {
        eal: EalConfig::default(),
        ports: vec![
            port("network", PortRole::Network, &[network], &[gateway]),
            port("link", PortRole::Link, &[Ipv4Addr::new(10, 78, 0, host)], &[]),
            port("application", PortRole::Application, &[], &[]),
        ],
        cores: vec![CoreConfig {
            id: CoreId(0),
            cpu: None,
            router: host == ROUTER,
            target: host == TARGET,
            ports: vec![NETWORK, LINK, APPLICATION],
            idle: Idle::Spin,
        }],
        limits: Limits {
            inbound: shape.sas,
            outbound: shape.tunnels,
            connections: shape.connections,
            connections_per_peer: shape.connections as u32,
            tracked: shape.connections,
            ..Limits::default()
        },
    }
}

/// The same SA as its client sees it.
pub fn turned(mut params: SaParams) -> SaParams {
    (params.local, params.remote) = (params.remote, params.local);
    params.mode = Mode::Tunnel { local: params.local, remote: params.remote };
    (params.selectors.local, params.selectors.remote) = (params.selectors.remote, params.selectors.local);
    params.direction = Direction::Outbound;
    params
}
