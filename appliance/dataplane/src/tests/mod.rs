//! One core or several without a driver: frames in, frames out, events out; and a client with SAs of its own.

mod ah;
mod bundle;
mod capturing;
mod fast;
mod fast_bits;
mod fast_outbound;
mod filtering;
mod fragments;
mod ike;
mod inbound;
mod links;
mod listeners;
mod many;
mod memif;
mod modes;
mod mtu;
mod natt;
mod new_connections;
mod outbound;
mod ports;
mod stations;
mod udp;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use phalanx_ipsec::{
    Action, Algorithm, Direction, Filter, FilterTable, InboundSa, Lease, Lifesize, Mode, OutboundSa, Prefix, Role,
    SaParams, SecretKey, Selectors, TunnelName,
};
use phalanx_steering::{Policy, PortRule};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{
    Arp, Buffer, CoreId, DropReason, Epoch, Frame, IpHeader, Mac, NeighborSolicitation, PeerId, SaId, Spi, TargetId,
    TcpFlags, TcpHeader, VecBuffer, VipId, arp, ip, nd, protocol, tcp,
};

use crate::clock::Now;
use crate::command::{Command, Event, GreEnd, LinkEnd, Order, TargetEntry, TargetSet, VipEntry};
use crate::config::{CoreConfig, DataplaneConfig, EalConfig, Idle, Limits, PortConfig, PortRole};
use crate::engine::Engine;
use crate::mail::Mail;
use crate::outbox::Outbox;
use crate::packet::Source;
use crate::stats::{CoreStats, Stage};
use crate::world::World;

const NETWORK: usize = 0;
const LINK: usize = 1;
const APPLICATION: usize = 2;
const VIP: VipId = VipId(1);
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
const IN: SaId = SaId(1);
const OUT: SaId = SaId(2);

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Who talks to whom, and how it is protected.
#[derive(Clone, Copy, Debug)]
struct Shape {
    vip: &'static str,
    /// The client's outer address.
    client: &'static str,
    /// The client's address in its packets.
    inner: &'static str,
    transport: bool,
    esn: bool,
    algorithm: Algorithm,
}

/// What most tests use.
const TUNNEL: Shape = Shape {
    vip: "10.77.0.100",
    client: "10.77.0.10",
    inner: "10.99.0.10",
    transport: false,
    esn: true,
    algorithm: Algorithm::Aes128Gcm16,
};

struct Memory;

impl Source for Memory {
    type Packet = VecBuffer;
    fn fresh(&mut self) -> Option<VecBuffer> {
        Some(VecBuffer::with_room(128, 2048))
    }
    fn fresh_large(&mut self) -> Option<VecBuffer> {
        Some(VecBuffer::with_room(128, 9216))
    }
}

/// One core of a box, with network, link and application port.
struct Bench {
    engine: Engine<Memory>,
    events: Arc<ArrayQueue<Event>>,
    stats: Arc<CoreStats>,
    start: Instant,
    now: Now,
    host: u8,
    shape: Shape,
}

impl Bench {
    /// `10.77.0.host`, `10.78.0.host`.
    fn new(host: u8) -> Bench {
        Bench::of(host, &[(0, &[NETWORK, LINK, APPLICATION])], 0)
    }

    /// One of several cores, each with its ports.
    fn of(host: u8, cores: &[(u16, &[usize])], which: usize) -> Bench {
        let limits = Limits { connections: 256, tracked: 256, held: 128, held_each: 64, ..Limits::default() };
        Bench::limited(host, cores, which, limits)
    }

    /// With tables of other sizes.
    fn limited(host: u8, cores: &[(u16, &[usize])], which: usize, limits: Limits) -> Bench {
        let port = |name: &str, role, addresses: &[(String, u8)]| PortConfig {
            name: name.into(),
            device: "none".into(),
            role,
            mtu: if role == PortRole::Link { 1600 } else { 1500 },
            addresses: addresses.iter().map(|(address, len)| (addr(address), *len)).collect(),
            gateways: vec![],
            host_mac: None,
        };
        let network = [(format!("10.77.0.{host}"), 24), (format!("fd77::{host}"), 64)];
        let config = DataplaneConfig {
            eal: EalConfig::default(),
            ports: vec![
                port("network", PortRole::Network, &network),
                port("link", PortRole::Link, &[(format!("10.78.0.{host}"), 24)]),
                port("application", PortRole::Application, &[]),
            ],
            cores: cores
                .iter()
                .map(|(id, ports)| CoreConfig {
                    id: CoreId(*id),
                    cpu: None,
                    router: true,
                    target: true,
                    ports: ports.to_vec(),
                    idle: Idle::Spin,
                })
                .collect(),
            limits,
        };
        config.check().unwrap();
        let macs: Vec<Mac> = (0..3).map(|port| Bench::mac_of(host, port)).collect();
        let world = Arc::new(World::new(&config, &macs));
        let stats = Arc::new(CoreStats::new(3));
        let events = Arc::new(ArrayQueue::new(256));
        let mail = Mail::new(events.clone(), stats.clone());
        let out = Outbox::new(3, cores.len(), stats.clone());
        let engine = Engine::new(&config.cores[which], world, Memory, mail, out, [[1, 2], [3, 4]]).unwrap();
        let start = Instant::now();
        Bench {
            engine,
            events,
            stats,
            start,
            now: Now::new(start, start + Duration::from_secs(1)),
            host,
            shape: TUNNEL,
        }
    }

    fn mac_of(host: u8, port: usize) -> Mac {
        Mac([2, 0, 0, port as u8, 1, host])
    }

    fn mac(&self, port: usize) -> Mac {
        Bench::mac_of(self.host, port)
    }

    fn pass(&mut self, ms: u64) {
        self.now = Now::new(self.start, self.start + Duration::from_millis(self.now.ms() + ms));
        self.engine.tend(self.now);
    }

    fn order(&mut self, command: Command) {
        self.engine.obey(Order { token: 7, command }, self.now);
    }

    /// A router of the VIP that is settled, with these targets; its ceiling is far away.
    fn route_vip(&mut self, targets: &[(u16, LinkEnd)]) {
        self.set_vip(Some(CoreId(0)));
        self.set_targets(targets, &[(0..=u16::MAX, &[1, 2])]);
        self.order(Command::Settled(VIP));
        self.add_sas();
        self.order(Command::Ceiling(IN, 1 << 30));
    }

    /// These targets, in turn, and which ports go to which of them.
    fn set_targets(&mut self, targets: &[(u16, LinkEnd)], rules: &[(RangeInclusive<u16>, &[u16])]) {
        let target = |&(id, link)| entry(id, link);
        let rule = |(ports, targets): &(RangeInclusive<u16>, &[u16])| PortRule {
            ports: vec![ports.clone()],
            targets: targets.iter().map(|&id| TargetId(id)).collect(),
            ..PortRule::default()
        };
        let rules: Vec<PortRule> = rules.iter().map(rule).collect();
        let set = TargetSet::new(targets.iter().map(target).collect(), Policy::RoundRobin, &rules).unwrap();
        self.order(Command::SetTargets(VIP, Box::new(set)));
    }

    fn set_vip(&mut self, router_core: Option<CoreId>) {
        self.order(Command::SetVip(Box::new(VipEntry {
            id: VIP,
            address: addr(self.shape.vip),
            epoch: Epoch(5),
            router_core,
            served: true,
            filter_at_router: false,
        })));
    }

    fn add_sas(&mut self) {
        self.order(Command::AddInbound(Box::new(InboundSa::new(self.shape.sa(IN, Direction::Inbound)).unwrap())));
        self.order(Command::AddOutbound(Box::new(OutboundSa::new(self.shape.sa(OUT, Direction::Outbound)).unwrap())));
        let tunnel = TunnelName::new("client").unwrap();
        let selectors = self.shape.selectors();
        let filter = Filter { vip: VIP, selectors, action: Action::Protect(tunnel), log: false };
        self.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
    }

    fn lease(&mut self, first: u64, len: u32) {
        let expires = self.start + Duration::from_millis(self.now.ms() + 100);
        self.order(Command::Lease { sa: OUT, lease: Lease::from_wire(first, len), expires });
    }

    /// An IP packet in a frame to the port.
    fn receive(&mut self, port: usize, packet: &[u8]) {
        let frame = framed(packet, self.mac(port), CLIENT_MAC);
        self.receive_frame(port, &frame);
    }

    fn receive_frame(&mut self, port: usize, frame: &[u8]) {
        let frame = VecBuffer::from_slice(128, frame, 256);
        self.engine.receive(port, std::iter::once(frame), self.now);
    }

    /// Frames sent by a port.
    fn sent(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.engine.out.frames[port].drain(..).map(|frame| frame.bytes().to_vec()).collect()
    }

    /// IP packets delivered to the application.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let host_mac = self.mac(APPLICATION);
        let frames = self.sent(APPLICATION);
        assert!(frames.iter().all(|frame| Frame::parse(frame).unwrap().dst == host_mac));
        frames.iter().map(|frame| frame[ethernet::HEADER_LEN..].to_vec()).collect()
    }

    /// Lets the client's ARP answer arrive; ESP packets that went to it.
    fn client_receives(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for _ in 0..3 {
            for frame in self.sent(NETWORK) {
                match Frame::parse(&frame).unwrap().ethertype {
                    ethertype::ARP => {
                        let asked = Arp::parse(&frame[ethernet::HEADER_LEN..]).unwrap();
                        if asked.target_ip.to_string() == "10.77.0.10" {
                            assert_eq!(IpAddr::V4(asked.sender_ip), addr(&format!("10.77.0.{}", self.host)));
                            self.receive_frame(NETWORK, &arp::reply_frame(CLIENT_MAC, &asked));
                        }
                    }
                    _ => {
                        let packet = &frame[ethernet::HEADER_LEN..];
                        let ip = IpHeader::parse(packet).unwrap();
                        if let Ok(asked) = NeighborSolicitation::parse(&ip, packet) {
                            let mac = self.mac(NETWORK);
                            self.receive_frame(NETWORK, &nd::advertisement_frame(CLIENT_MAC, &asked, mac));
                            continue;
                        }
                        assert_eq!(Frame::parse(&frame).unwrap().dst, CLIENT_MAC);
                        packets.push(frame[ethernet::HEADER_LEN..].to_vec());
                    }
                }
            }
        }
        packets
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop())
            .filter(|e| !matches!(e, Event::Done { .. } | Event::Trash(_)))
            .collect()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.stats.drops(reason)
    }

    /// Nothing was dropped but for these reasons.
    fn only_dropped(&self, expected: &[(DropReason, u64)]) {
        let all: Vec<_> = DropReason::ALL.iter().map(|&r| (r, self.drops(r))).filter(|&(_, count)| count > 0).collect();
        assert_eq!(all, expected);
    }
}

/// A target that takes new connections.
fn entry(id: u16, link: LinkEnd) -> TargetEntry {
    TargetEntry { id: TargetId(id), link, eligible: true, draining: false, weight: 1 }
}

fn framed(packet: &[u8], to: Mac, from: Mac) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::write(&mut frame, to, from, ethertype).unwrap();
    frame.extend_from_slice(packet);
    frame
}

/// The SAs between the VIP and the client, seen from the VIP.
fn sa(id: SaId, direction: Direction) -> SaParams {
    TUNNEL.sa(id, direction)
}

impl Shape {
    fn selectors(&self) -> Selectors {
        Selectors::between(Prefix::host(addr(self.vip)), Prefix::host(addr(self.inner)))
    }

    fn mode(&self, local: IpAddr, remote: IpAddr) -> Mode {
        if self.transport { Mode::Transport } else { Mode::Tunnel { local, remote } }
    }

    fn sa(&self, id: SaId, direction: Direction) -> SaParams {
        let (local, remote) = (addr(self.vip), addr(self.client));
        let len = self.algorithm.key_len() + self.algorithm.salt_len();
        let key = &[if direction == Direction::Inbound { 1 } else { 2 }; 64][..len];
        SaParams {
            id,
            direction,
            vip: VIP,
            peer: PeerId(1),
            tunnel: TunnelName::new("client").unwrap(),
            spi: Spi(0xc0de + id.0 as u32),
            mode: self.mode(local, remote),
            local,
            remote,
            algorithm: self.algorithm,
            key: SecretKey::new(self.algorithm, key).unwrap(),
            esn: self.esn,
            window: 64,
            selectors: self.selectors(),
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

/// The other end of the SAs.
struct Client {
    out: OutboundSa,
    inbound: InboundSa,
    numbers: Lease,
}

impl Client {
    fn new() -> Client {
        Client::of(TUNNEL)
    }

    fn of(shape: Shape) -> Client {
        Client::at(shape.sa(IN, Direction::Inbound), shape.sa(OUT, Direction::Outbound))
    }

    /// At the other end of these.
    fn at(inbound: SaParams, outbound: SaParams) -> Client {
        let turned = |mut params: SaParams, direction| {
            (params.local, params.remote) = (params.remote, params.local);
            if let Mode::Tunnel { local, remote } = &mut params.mode {
                std::mem::swap(local, remote);
            }
            (params.selectors.local, params.selectors.remote) = (params.selectors.remote, params.selectors.local);
            params.direction = direction;
            params
        };
        Client {
            out: OutboundSa::new(turned(inbound, Direction::Outbound)).unwrap(),
            inbound: InboundSa::new(turned(outbound, Direction::Inbound)).unwrap(),
            numbers: Lease::from_wire(1, 1 << 20),
        }
    }

    /// Loses some numbers.
    fn skip(&mut self, n: u64) {
        self.numbers = self.numbers.split_off(n);
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = VecBuffer::from_slice(128, packet, 128);
        let seq = self.numbers.take().unwrap();
        self.out.seal(&mut buffer, seq).unwrap();
        buffer.bytes().to_vec()
    }

    fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut buffer = VecBuffer::from_slice(0, packet, 0);
        self.inbound.open(&mut buffer, Role::Target)?;
        Ok(buffer.bytes().to_vec())
    }

    fn tcp(&mut self, port: u16, flags: u8) -> Vec<u8> {
        self.tcp_to(80, port, flags)
    }

    /// From a port of the client to a port of the VIP.
    fn tcp_to(&mut self, to: u16, from: u16, flags: u8) -> Vec<u8> {
        let packet = segment("10.99.0.10", from, "10.77.0.100", to, flags);
        self.seal(&packet)
    }
}

/// A TCP segment in an IP packet.
fn segment(from: &str, src_port: u16, to: &str, dst_port: u16, flags: u8) -> Vec<u8> {
    let mut packet = inner(from, to, protocol::TCP, &[0; tcp::MIN_LEN]);
    let (ack, seq) = if src_port == 80 { (101, 500) } else { (501, 100 + u32::from(flags & TcpFlags::SYN == 0)) };
    let seq = seq + u32::from(src_port == 80 && flags & TcpFlags::SYN == 0);
    let header = TcpHeader {
        src_port,
        dst_port,
        seq,
        ack: if flags & TcpFlags::ACK != 0 { ack } else { 0 },
        data_offset: tcp::MIN_LEN,
        flags: TcpFlags(flags),
        window: 1000,
    };
    let at = ip::header_len(addr(from));
    header.write(&mut packet[at..]).unwrap();
    tcp::set_checksum(addr(from), addr(to), &mut packet[at..]).unwrap();
    packet
}

/// The server's answer to a segment of the client.
fn answer(port: u16, flags: u8) -> Vec<u8> {
    segment("10.77.0.100", 80, "10.99.0.10", port, flags)
}

fn inner(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ip::header_len(addr(from))];
    packet.extend_from_slice(payload);
    let fields = ip::Fields {
        src: addr(from),
        dst: addr(to),
        protocol,
        payload_len: payload.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).unwrap();
    packet
}
