//! A router core, a target core and clients: packets go around, and each core's part is timed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use phalanx_dataplane::command::{GreEnd, LinkEnd, TargetEntry, TargetSet, VipEntry};
use phalanx_dataplane::config::{CoreConfig, EalConfig, Idle, Limits, PortConfig, PortRole};
use phalanx_dataplane::{Command, DataplaneConfig, Event, LoneCore, LonePacket, Step};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Filter, FilterTable, InboundSa, Lease, Lifesize, Mode, OutboundSa, Prefix, SaParams,
    SecretKey, Selectors, TunnelName,
};
use phalanx_steering::{Policy, PortRule};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{
    Arp, Buffer, CoreId, DropReason, Epoch, Frame, Mac, PeerId, SaId, Spi, TargetId, TcpFlags, TcpHeader, VipId, arp,
    ip, protocol, tcp,
};

use crate::counting::counted;
use crate::harness::clock;

const BURST: usize = phalanx_aead::BURST;
const NETWORK: usize = 0;
const LINK: usize = 1;
const APPLICATION: usize = 2;
const VIP: VipId = VipId(1);
const TARGET_ID: TargetId = TargetId(1);
const VIP_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
/// The connection table counts for so many peers.
const PEERS: u32 = 4096;
const ROUTER: u8 = 1;
const TARGET: u8 = 11;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

/// How many of what.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Inbound SAs, each with addresses of its own.
    pub sas: usize,
    /// Tunnels: outbound SAs, each with its filter.
    pub tunnels: usize,
    /// TCP connections, of the clients in turn.
    pub connections: usize,
}

/// Everything is set up and every connection established; [`Bed::round`] sends packets.
pub struct Bed {
    shape: Shape,
    router: LoneCore,
    target: LoneCore,
    clients: Vec<(OutboundSa, Lease)>,
    next: usize,
    /// 32 packets, going around.
    packets: Vec<LonePacket>,
    memory: Memory,
    /// Of the time stamp counter.
    hertz: f64,
}

/// A client's connection.
#[derive(Clone, Copy)]
struct Connection {
    sa: usize,
    client_port: u16,
    server_port: u16,
}

/// Which core.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Router,
    Target,
}

/// The steps of each path, as `phalanx runtime` has them. A target's `sort` is of packets from the link.
pub const STAGES: [(&str, Side, Step); 11] = [
    ("router-in/sort", Side::Router, Step::Sort),
    ("router-in/look-up", Side::Router, Step::LookUp),
    ("router-in/peek", Side::Router, Step::Peek),
    ("router-in/decide", Side::Router, Step::Decide),
    ("target-in/sort", Side::Target, Step::Sort),
    ("target-in/open", Side::Target, Step::Open),
    ("target-in/deliver", Side::Target, Step::Deliver),
    ("target-out/way-out", Side::Target, Step::WayOut),
    ("target-out/lease", Side::Target, Step::Lease),
    ("target-out/seal", Side::Target, Step::Seal),
    ("target-out/next-hop", Side::Target, Step::NextHop),
];

/// Bytes that a core takes, by what for; both cores are given room for as many as the shape has.
pub struct Memory {
    /// An inbound SA, with its places in tables.
    pub inbound: usize,
    /// An outbound SA, likewise.
    pub outbound: usize,
    /// A connection in the router's table.
    pub routed: usize,
    /// A connection in a target's tracker.
    pub tracked: usize,
}

type Frames = ArrayVec<LonePacket, BURST>;

impl Bed {
    pub fn new(shape: Shape) -> Bed {
        let mut router = core(shape, ROUTER);
        let mut target = core(shape, TARGET);
        let mut clients = Vec::with_capacity(shape.sas);
        let link = |port, local, remote| GreEnd { port, local: link_address(local), remote: link_address(remote) };
        set_vip(&mut router, Some(CoreId(0)));
        set_vip(&mut target, None);
        target.obey(Command::SetRouter(VIP, link(LINK, TARGET, ROUTER)));
        let link = LinkEnd::Gre(link(LINK, ROUTER, TARGET), CoreId(0));
        let entry = TargetEntry { id: TARGET_ID, link, eligible: true, draining: false, weight: 1 };
        let rule = PortRule { ports: vec![0..=u16::MAX], targets: vec![entry.id], ..PortRule::default() };
        let targets = TargetSet::new(vec![entry], Policy::RoundRobin, &[rule]).expect("a rule");
        router.obey(Command::SetTargets(VIP, Box::new(targets)));
        router.obey(Command::Settled(VIP));
        for sa in 0..shape.sas {
            let inbound = shape.params(sa, Direction::Inbound);
            for core in [&mut router, &mut target] {
                core.obey(Command::AddInbound(Box::new(InboundSa::new(inbound.clone()).expect("an SA"))));
            }
            router.obey(Command::Ceiling(inbound.id, 1 << 40));
            clients.push((OutboundSa::new(turned(inbound)).expect("an SA"), Lease::from_wire(1, 1 << 30)));
            if sa < shape.tunnels {
                let outbound = shape.params(sa, Direction::Outbound);
                let id = outbound.id;
                target.obey(Command::AddOutbound(Box::new(OutboundSa::new(outbound).expect("an SA"))));
                let expires = std::time::Instant::now() + std::time::Duration::from_secs(3600);
                target.obey(Command::Lease { sa: id, lease: Lease::from_wire(1, 1 << 30), expires });
            }
            drain(&mut router);
            drain(&mut target);
        }
        target.obey(Command::SetFilters(Box::new(shape.filters())));
        let packets = (0..BURST).map(|_| LonePacket::new()).collect();
        let memory = Memory::of(shape);
        let mut bed = Bed { shape, router, target, clients, next: 0, packets, memory, hertz: 1e9 };
        bed.connect();
        bed.hertz = bed.router.stats().measures.clocks_per_second();
        bed
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Nanoseconds that each of [`STAGES`] took so far, by the clocks of the cores' own loops.
    pub fn stages(&self) -> [f64; STAGES.len()] {
        STAGES.map(|(_, side, step)| {
            let core = if side == Side::Router { &self.router } else { &self.target };
            let measures = &core.stats().measures;
            measures.step(step).clocks.value() as f64 * 1e9 / self.hertz
        })
    }

    /// Bytes that each core took for an SA of a direction and for a connection.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the cipher works on for an inner packet of `size` bytes: RFC 4303 §2.4, two bytes of trailer, padded to four.
    pub fn text_len(&self, size: usize) -> usize {
        (size + 2).next_multiple_of(4)
    }

    /// Bursts of inner packets of `size` bytes in, and as many out: nanoseconds per packet of router in, target in,
    /// target out.
    pub fn round(&mut self, size: usize, bursts: usize) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for _ in 0..bursts {
            let connections: ArrayVec<Connection, BURST> =
                (0..BURST).map(|_| self.shape.connection(scattered(&mut self.next, self.shape.connections))).collect();
            let times = self.around(&connections, size, ACK, ACK);
            sum.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        }
        sum.map(|sum| sum / (bursts * BURST) as f64)
    }

    /// A packet of each connection to the target, and its answer to the network.
    fn around(&mut self, connections: &[Connection], size: usize, flags: u8, answer: u8) -> [f64; 3] {
        let n = connections.len();
        let mut frames: Frames = self.packets.drain(..n).collect();
        self.seal(connections, &mut frames, size, flags);
        let router_in = clock(|| self.router.receive(NETWORK, frames.drain(..)));
        let mut frames = sent(&mut self.router, LINK, mac(TARGET, LINK), n);
        let target_in = clock(|| self.target.receive(LINK, frames.drain(..)));
        let mut frames = sent(&mut self.target, APPLICATION, CLIENT_MAC, n);
        for (frame, connection) in frames.iter_mut().zip(connections) {
            frame.set(&connection.packet(Direction::Outbound, size, answer));
            to_port(frame, mac(TARGET, APPLICATION));
        }
        let target_out = clock(|| self.target.receive(APPLICATION, frames.drain(..)));
        self.packets.extend(sent(&mut self.target, NETWORK, CLIENT_MAC, n));
        [router_in, target_in, target_out]
    }

    /// As the clients: inner packets become frames to the router.
    fn seal(&mut self, connections: &[Connection], frames: &mut Frames, size: usize, flags: u8) {
        for (frame, connection) in frames.iter_mut().zip(connections) {
            let (sa, numbers) = &mut self.clients[connection.sa];
            frame.set(&connection.packet(Direction::Inbound, size, flags));
            sa.seal(frame, numbers.take().expect("numbers enough")).expect("sealed");
            to_port(frame, mac(ROUTER, NETWORK));
        }
    }

    /// Each connection's handshake; the target says when it is established, and the router confirms.
    fn connect(&mut self) {
        let all: Vec<Connection> = (0..self.shape.connections).map(|at| self.shape.connection(at)).collect();
        for some in all.chunks(BURST) {
            self.around(some, 64, SYN, SYN | ACK);
            self.around(some, 64, ACK, ACK);
            // What is decided once for a connection is.
            self.around(some, 64, ACK, ACK);
            drain(&mut self.router);
            while let Some(event) = self.target.event() {
                if let Event::ConnOpened { vip, key, .. } = event {
                    self.router.obey(Command::Confirm(vip, key, TARGET_ID));
                }
            }
        }
        drain(&mut self.router);
    }
}

impl Memory {
    /// What tables take for one more, and what an SA takes by itself.
    fn of(shape: Shape) -> Memory {
        const MORE: usize = 1 << 16;
        let one = Shape { sas: 1, tunnels: 1, connections: 1 };
        let per = |side: u8, more: Shape| {
            let taken = |shape| counted(|| core(shape, side)).1;
            taken(more).saturating_sub(taken(one)) / MORE
        };
        let inbound = counted(|| Box::new(InboundSa::new(shape.params(0, Direction::Inbound)).expect("an SA"))).1;
        let outbound = counted(|| Box::new(OutboundSa::new(shape.params(0, Direction::Outbound)).expect("an SA"))).1;
        Memory {
            inbound: inbound + per(ROUTER, Shape { sas: MORE, ..one }),
            outbound: outbound + per(TARGET, Shape { tunnels: MORE, ..one }),
            routed: per(ROUTER, Shape { connections: MORE, ..one }),
            tracked: per(TARGET, Shape { connections: MORE, ..one }),
        }
    }
}

impl Shape {
    fn client(&self, sa: usize) -> (IpAddr, IpAddr) {
        let (outer, inner) = (0x0a40_0000 + sa as u32, 0x0a80_0000 + sa as u32); // 10.64.0.0/10, 10.128.0.0/9
        (Ipv4Addr::from_bits(outer).into(), Ipv4Addr::from_bits(inner).into())
    }

    fn connection(&self, at: usize) -> Connection {
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

    fn filters(&self) -> FilterTable {
        let filter = |sa| Filter {
            vip: VIP,
            selectors: self.selectors(sa),
            action: Action::Protect(self.tunnel(sa)),
            log: false,
        };
        FilterTable::new((0..self.tunnels).map(filter).collect())
    }

    /// An SA as the VIP's side sees it.
    fn params(&self, sa: usize, direction: Direction) -> SaParams {
        let (local, remote) = (VIP_ADDRESS, self.client(sa).0);
        let inbound = direction == Direction::Inbound;
        let mut key = [u8::from(inbound); 20];
        key[..8].copy_from_slice(&(sa as u64).to_be_bytes());
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
            window: 64,
            selectors: self.selectors(sa),
            lifesize: Lifesize::UNLIMITED,
            path_mtu: 1500,
            mss_clamp: phalanx_ipsec::MssClamp::None,
            copy_dscp: true,
            ecn: true,
            encap: None,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |n| if n == 1 { "" } else { "s" };
        write!(f, "{} SA{}, {} connection{}", self.sas, s(self.sas), self.connections, s(self.connections))?;
        if self.tunnels > 1 { write!(f, ", {} filters", self.tunnels) } else { Ok(()) }
    }
}

impl Connection {
    /// An inner packet of `size` bytes to or from the VIP.
    fn packet(&self, direction: Direction, size: usize, flags: u8) -> ArrayVec<u8, 2048> {
        let shape = Shape { sas: 1, tunnels: 1, connections: 1 };
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

/// The next of `n` things, in an order that no prefetcher guesses; each comes once before any comes again.
pub fn scattered(next: &mut usize, n: usize) -> usize {
    *next = (*next + 48_271) % n;
    *next
}

fn mac(host: u8, port: usize) -> Mac {
    Mac([2, 0, 0, port as u8, 1, host])
}

fn link_address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 78, 0, host).into()
}

fn core(shape: Shape, host: u8) -> LoneCore {
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
    let config = DataplaneConfig {
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
    };
    LoneCore::new(&config, &[NETWORK, LINK, APPLICATION].map(|port| mac(host, port))).expect("tables")
}

fn set_vip(core: &mut LoneCore, router_core: Option<CoreId>) {
    core.obey(Command::SetVip(Box::new(VipEntry {
        id: VIP,
        address: VIP_ADDRESS,
        epoch: Epoch(1),
        router_core,
        served: true,
        filter_at_router: false,
    })));
}

/// The same SA as its client sees it.
fn turned(mut params: SaParams) -> SaParams {
    (params.local, params.remote) = (params.remote, params.local);
    params.mode = Mode::Tunnel { local: params.local, remote: params.remote };
    (params.selectors.local, params.selectors.remote) = (params.selectors.remote, params.selectors.local);
    params.direction = Direction::Outbound;
    params
}

fn to_port(packet: &mut LonePacket, port: Mac) {
    packet.grow_front(ethernet::HEADER_LEN).expect("room");
    ethernet::write(packet.bytes_mut(), port, CLIENT_MAC, ethertype::IPV4).expect("room");
}

/// What was sent by a port: all `n` of the burst. The first time the core asks for its next hop, and is told.
fn sent(core: &mut LoneCore, port: usize, hop: Mac, n: usize) -> Frames {
    let mut frames: Frames = core.sent(port).collect();
    if let Some(asked) = frames.iter().find_map(|frame| question(frame.bytes())) {
        let mut answer = LonePacket::new();
        answer.set(&arp::reply_frame(hop, &asked));
        core.receive(port, std::iter::once(answer));
        frames = core.sent(port).filter(|frame| question(frame.bytes()).is_none()).collect();
    }
    if frames.len() != n {
        let drops: Vec<_> = DropReason::ALL.iter().map(|&why| (why.name(), core.stats().drops(why))).collect();
        panic!("{} of {n}; dropped: {:?}", frames.len(), drops.iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>());
    }
    frames
}

fn question(frame: &[u8]) -> Option<Arp> {
    let is_arp = Frame::parse(frame).is_ok_and(|frame| frame.ethertype == ethertype::ARP);
    is_arp.then(|| Arp::parse(&frame[ethernet::HEADER_LEN..]).ok()).flatten()
}

fn drain(core: &mut LoneCore) {
    while core.event().is_some() {}
}
