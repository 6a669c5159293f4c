//! A node without a machine: one core with all that its configuration says of VIPs, SAs, filters and targets.
//!
//! Its neighbours always answer, every destination has a way, its targets are there, and numbers are as many as it takes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use phalanx_cluster::SaPair;
use phalanx_dataplane::command::{GreEnd, LinkEnd, TargetEntry, TargetSet, VipEntry};
use phalanx_dataplane::config as dp;
use phalanx_dataplane::{Command, Event, LoneCore, LonePacket, Note};
use phalanx_ipsec::{InboundSa, Lease, OutboundSa, Subject};
use phalanx_steering::{Among, Listeners};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{
    AhHeader, Arp, Buffer, CoreId, EspHeader, Frame, IpHeader, Mac, NeighborSolicitation, Spi, TargetId, VipId, arp,
    nd, protocol,
};
use serde::Serialize;

use super::story::Connection;
use super::{Link, Options, Role};
use crate::config::Config;
use crate::node::books::{self, FilterBook, RuleSource};
use crate::node::{distribution, plan};

const NETWORK: usize = 0;
const LINK: usize = 1;
const APPLICATION: usize = 2;
const PORTS: [usize; 3] = [NETWORK, LINK, APPLICATION];
const CORE: CoreId = CoreId(0);
/// Whoever is not this node.
const NEIGHBOUR: Mac = Mac([2, b'p', b'x', 0, 0, 0xff]);
/// Where everything goes that is on no link.
const GATEWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 255, 254)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfffe))];
/// A sender for questions of a family in which the configuration gives the port no address.
const SENDERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 255, 1)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1))];
/// A pause is gone through in at most so many steps, none shorter than a millisecond.
const STEPS: u32 = 128;
/// What is sealed needs numbers for the length of any capture.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// From where to where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the network: to a VIP, or to nobody here.
    Inbound,
    /// From the application: its source is a VIP or an address behind one.
    Outbound,
}

/// What a packet shows before the data plane sees it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which way it goes.
    pub side: Side,
    /// Of ESP, also inside UDP, and of AH.
    pub spi: Option<Spi>,
    /// Of packets that are not encrypted.
    pub connection: Option<Connection>,
    /// It is a fragment.
    pub fragment: bool,
}

/// A frame that came out.
#[derive(Debug)]
pub struct Output {
    /// Of the packet that it came of.
    pub mark: u32,
    /// With its Ethernet header.
    pub frame: Vec<u8>,
}

/// The node.
pub struct LoneNode {
    core: LoneCore,
    role: Role,
    me: Option<TargetId>,
    numbering: plan::Numbering,
    vips: HashMap<IpAddr, VipId>,
    /// Inner addresses on our side.
    locals: Vec<IpNet>,
    /// Of the packet that came last.
    time: Option<Duration>,
}

impl LoneNode {
    /// The names of its ports.
    pub const PORTS: [&str; 3] = ["network", "link", "application"];

    /// Makes the core and gives it everything.
    ///
    /// # Errors
    /// In words: there is nothing to explain packets with, or a table cannot be made.
    pub fn new(config: &Config, options: &Options<'_>) -> Result<LoneNode, String> {
        let &Options { role, first_seq, listening, .. } = options;
        if config.vips.is_empty() {
            let why = "this node owns no VIP: what it knows of SAs comes from its routers";
            return Err(format!("{why}; use a router's configuration, with --role target"));
        }
        let macs = PORTS.map(mac);
        let core = LoneCore::new(&dataplane(config, role), &macs).map_err(|error| error.to_string())?;
        let numbering = plan::Numbering::new(config);
        let mut node = LoneNode {
            core,
            role,
            me: numbering.id(&config.node.name),
            numbering,
            vips: config.vips.iter().map(|vip| (vip.address.addr(), VipId(vip.id))).collect(),
            locals: config.sas.iter().map(|sa| sa.selectors.local).collect(),
            time: None,
        };
        node.locals.sort_unstable();
        node.locals.dedup();
        node.open_vips(config, listening)?;
        node.open_sas(plan::pairs(config).map_err(|error| error.to_string())?, config, first_seq)?;
        Ok(node)
    }

    fn open_vips(&mut self, config: &Config, listening: Option<&[u16]>) -> Result<(), String> {
        for vip in &config.vips {
            let (id, address) = (VipId(vip.id), vip.address.addr());
            let router_core = (self.role != Role::Target).then_some(CORE);
            let filter_at_router = vip.filter_at == crate::config::FilterAt::Router;
            let entry = VipEntry { id, address, epoch: plan::FIRST_EPOCH, router_core, served: true, filter_at_router };
            self.obey(Command::SetVip(Box::new(entry)));
            if self.role == Role::Router {
                let targets = distribution::targets(config, vip, &self.numbering);
                let targets = targets.into_iter().map(|id| self.target(config, id)).collect();
                let rules = distribution::rules(config, vip, &self.numbering);
                let set = TargetSet::new(targets, plan::policy(vip), &rules).map_err(|error| error.to_string())?;
                let set = match listening {
                    Some(ports) => set.with_listeners(everywhere(ports)),
                    None => set,
                };
                self.obey(Command::SetTargets(id, Box::new(set)));
            }
            self.obey(Command::Settled(id));
        }
        Ok(())
    }

    /// A target that takes new connections: over the link, or this very core.
    fn target(&self, config: &Config, id: TargetId) -> TargetEntry {
        let name = self.target_name(id);
        let remote = config.cluster.nodes.iter().find(|node| node.name == name).and_then(|node| node.links.first());
        let remote = remote.copied().unwrap_or(GATEWAYS[0]);
        let own = || plan::links(config).into_iter().find(|own| own.is_ipv4() == remote.is_ipv4());
        let local = own().unwrap_or(SENDERS[usize::from(remote.is_ipv6())]);
        let link = match self.me {
            Some(me) if me == id => LinkEnd::Ring(CORE),
            _ => LinkEnd::Gre(GreEnd { port: LINK, local, remote }, CORE),
        };
        TargetEntry { id, link, eligible: true, draining: false, weight: 1 }
    }

    fn open_sas(&mut self, pairs: Vec<SaPair>, config: &Config, first_seq: u64) -> Result<(), String> {
        let vips = plan::vips(config, &self.numbering).map_err(|error| error.to_string())?;
        let mut rules = FilterBook::default();
        for vip in vips {
            rules.set(RuleSource::Vip(vip.def.vip), vip.def.filters);
        }
        for pair in pairs {
            let inbound = InboundSa::new(pair.inbound).map_err(|error| error.to_string())?;
            let outbound = OutboundSa::new(pair.outbound).map_err(|error| error.to_string())?;
            let (inbound_id, outbound_id) = (inbound.id(), outbound.id());
            rules.set(RuleSource::Sa(inbound_id), pair.filters);
            self.obey(Command::AddInbound(Box::new(inbound)));
            self.obey(Command::Ceiling(inbound_id, u64::MAX));
            self.obey(Command::AddOutbound(Box::new(outbound)));
            let (lease, expires) = (Lease::from_wire(first_seq, u32::MAX), Instant::now() + FOR_EVER);
            self.obey(Command::Lease { sa: outbound_id, lease, expires });
        }
        let vips: Vec<(VipId, usize)> = self.vips.values().map(|vip| (*vip, 0)).collect(); // one router: us
        self.obey(Command::SetFilters(Box::new(books::table(rules.all(), &vips))));
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        self.core.obey(command);
        self.events();
    }

    /// What the node's control would do: as a target confirm and end connections, as a router take note of it.
    fn events(&mut self) {
        while let Some(event) = self.core.event() {
            match (event, self.me) {
                (Event::ConnOpened { vip, key, .. }, Some(me)) => self.core.obey(Command::Confirm(vip, key, me)),
                // A router elsewhere would say the same.
                (Event::ConnWanted { key, .. }, me) => {
                    if let Some(target) = me {
                        self.core.obey(Command::OpenConn { key, target, inbound: None });
                    }
                    self.core.obey(Command::ConnAnswer(key, None));
                }
                (Event::ConnClosed { vip, key, .. }, Some(me)) => self.core.obey(Command::EndConn(vip, key, me)),
                _ => {}
            }
        }
    }

    /// What is known of a packet from the outside.
    pub fn look(&self, link: Link, bytes: &[u8]) -> Arrival {
        let packet = ip_of(link, bytes).unwrap_or(&[]);
        let parsed = IpHeader::parse(packet);
        let side = self.side(packet, parsed.as_ref().ok());
        let mut arrival = Arrival { side, spi: None, connection: None, fragment: false };
        let Ok(ip) = parsed else { return arrival };
        arrival.fragment = ip.fragment.is_some();
        let first = ip.fragment.is_none_or(|fragment| fragment.offset == 0);
        match esp_of(&ip, packet) {
            _ if ip.upper == protocol::AH => {
                arrival.spi = AhHeader::parse(ip.upper_of(packet)).ok().filter(|_| first).map(|ah| ah.spi);
            }
            Some(esp) if first => arrival.spi = EspHeader::parse(esp).ok().map(|esp| esp.spi),
            Some(_) => {}
            None if side == Side::Inbound => arrival.connection = Some(Connection::of(&Subject::inbound(&ip, packet))),
            None => arrival.connection = Some(Connection::of(&Subject::outbound(&ip, packet))),
        }
        arrival
    }

    fn side(&self, packet: &[u8], ip: Option<&IpHeader>) -> Side {
        let Some((src, dst)) = addresses(packet) else { return Side::Inbound };
        let protects = ip.is_some_and(|ip| ip.upper == protocol::AH || esp_of(ip, packet).is_some());
        let inner = |address: &IpAddr| self.locals.iter().any(|net| net.contains(address));
        let is_vip = |address| self.vips.contains_key(address);
        if is_vip(&dst) && (protects || !is_vip(&src)) || !(is_vip(&src) || inner(&src)) {
            Side::Inbound
        } else {
            Side::Outbound
        }
    }

    /// Time goes on to a moment; never back. Gives what came of packets that waited.
    pub fn until(&mut self, time: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        let before = *self.time.get_or_insert(time);
        let pause = time.saturating_sub(before);
        let steps = pause.as_millis().clamp(u128::from(!pause.is_zero()), u128::from(STEPS)) as u32; // at most STEPS
        for _ in 0..steps {
            self.core.pass(pause / steps);
            self.settle(None, &mut outputs);
        }
        self.time = Some(before + pause);
        outputs
    }

    /// The moment of the last packet, or what time went on to.
    pub fn time(&self) -> Duration {
        self.time.unwrap_or_default()
    }

    /// A packet comes in, watched under a mark that is not 0; everything that it causes happens.
    pub fn receive(&mut self, link: Link, bytes: &[u8], mark: u32) -> Vec<Output> {
        let mut outputs = Vec::new();
        let ip = ip_of(link, bytes);
        let port = match self.look(link, bytes).side {
            Side::Inbound => NETWORK,
            Side::Outbound => APPLICATION,
        };
        let mut packet = LonePacket::new();
        let frame = match ip {
            Some(ip) => framed(port, ip),
            None => addressed(port, bytes),
        };
        // What no buffer of a running node holds is not received there either.
        packet.set(&frame[..frame.len().min(LonePacket::LARGEST)]);
        packet.watch(mark);
        match ip.and_then(|ip| self.for_target(port, ip)) {
            Some(vip) => {
                packet.cut_front(ethernet::HEADER_LEN);
                let surplus = ip.map_or(0, surplus);
                packet.cut_back(surplus);
                self.core.linked(vip, packet);
            }
            None => self.core.receive(port, std::iter::once(packet)),
        }
        self.settle(Some(mark), &mut outputs);
        outputs
    }

    /// The VIP of a packet that only a router would have sent here.
    fn for_target(&self, port: usize, packet: &[u8]) -> Option<VipId> {
        let (_, dst) = addresses(packet).filter(|_| self.role == Role::Target && port == NETWORK)?;
        let ip = IpHeader::parse(packet).ok()?;
        let vip = self.vips.get(&dst).copied()?;
        (ip.upper == protocol::AH || esp_of(&ip, packet).is_some()).then_some(vip)
    }

    /// Neighbours answer until there is no question left; the rest came of some packet: of `cause`, if nobody says more.
    fn settle(&mut self, cause: Option<u32>, outputs: &mut Vec<Output>) {
        loop {
            self.events();
            let mut answers = Vec::new();
            for port in PORTS {
                for frame in self.core.sent(port) {
                    match (of_neighbours(frame.bytes()), frame.watched()) {
                        (Some(answer), _) => answers.extend(answer.map(|answer| (port, answer))),
                        (None, 0) => outputs.extend(cause.map(|mark| Output { mark, frame: frame.bytes().to_vec() })),
                        (None, mark) => outputs.push(Output { mark, frame: frame.bytes().to_vec() }),
                    }
                }
            }
            if answers.is_empty() {
                return;
            }
            for (port, answer) in answers {
                let mut packet = LonePacket::new();
                packet.set(&answer);
                self.core.receive(port, std::iter::once(packet));
            }
        }
    }

    /// The next note about a watched packet.
    pub fn note(&mut self) -> Option<Note> {
        self.core.note()
    }

    /// A connection goes on at a target of another box, so that target has told of it.
    pub fn confirm(&mut self, key: phalanx_steering::ConnKey, target: TargetId) {
        let vip = self.vips.get(&key.flow.local.addr).copied().unwrap_or_default();
        self.obey(Command::Confirm(vip, key, target));
    }

    /// A target's node.
    pub fn target_name(&self, target: TargetId) -> String {
        self.numbering.name(target).map_or_else(|| target.to_string(), ToString::to_string)
    }
}

/// These ports are listened on at every target, and no others.
fn everywhere(ports: &[u16]) -> Listeners {
    let mut listeners = Listeners { known: Among::MAX, ..Listeners::default() };
    ports.iter().for_each(|&port| listeners.tcp.add(port, Among::MAX));
    listeners
}

fn mac(port: usize) -> Mac {
    Mac([2, b'p', b'x', 0, 0, port as u8]) // one of three
}

/// All ports and roles on one core. Ports keep their addresses, but all ways lead by a gateway that answers.
fn dataplane(config: &Config, role: Role) -> dp::DataplaneConfig {
    let mut real = plan::dataplane(config);
    let port = |name: &str, role: dp::PortRole| {
        let like = || real.ports.iter().filter(|port| port.role == role);
        let own = like().flat_map(|port| port.addresses.iter().map(|(address, _)| *address));
        let own = own.map(|address| (address, if address.is_ipv4() { 32 } else { 128 }));
        let mut addresses: Vec<(IpAddr, u8)> = own.collect();
        for (sender, len) in SENDERS.into_iter().zip([32, 128]) {
            if !addresses.iter().any(|(address, _)| address.is_ipv4() == sender.is_ipv4()) {
                addresses.push((sender, len));
            }
        }
        let wired = role != dp::PortRole::Application;
        dp::PortConfig {
            name: name.into(),
            device: "none".into(),
            role,
            mtu: like().map(|port| port.mtu).max().unwrap_or(u16::MAX),
            addresses: if wired { addresses } else { Vec::new() },
            gateways: if wired { GATEWAYS.to_vec() } else { Vec::new() },
            host_mac: (!wired).then_some(NEIGHBOUR),
        }
    };
    let ports = vec![
        port("network", dp::PortRole::Network),
        port("link", dp::PortRole::Link),
        port("application", dp::PortRole::Application),
    ];
    let serves_itself = config.cores.iter().any(|core| core.target);
    real.cores = vec![dp::CoreConfig {
        id: CORE,
        cpu: None,
        router: role != Role::Target,
        target: role == Role::Target || (role == Role::Router && serves_itself),
        ports: PORTS.to_vec(),
        idle: dp::Idle::Spin,
    }];
    real.ports = ports;
    real.limits.vips = real.limits.vips.max(config.vips.len());
    real
}

/// The IP packet in a captured one; none where it is something else or ends before it.
fn ip_of(link: Link, bytes: &[u8]) -> Option<&[u8]> {
    match link {
        Link::Raw(_) => Some(bytes),
        Link::Ethernet => {
            let frame = Frame::parse(bytes).ok()?;
            let is_ip = matches!(frame.ethertype, ethertype::IPV4 | ethertype::IPV6);
            is_ip.then(|| &bytes[ethernet::HEADER_LEN..])
        }
    }
}

/// A packet in a frame for this port.
fn framed(port: usize, packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let ethertype = if is_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let mut frame = [&mac(port).0[..], &NEIGHBOUR.0, &ethertype.to_be_bytes()].concat();
    frame.extend_from_slice(packet);
    frame
}

/// A frame as it was captured, but for this port, whoever it was for.
fn addressed(port: usize, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(to) = frame.first_chunk_mut::<6>()
        && to[0] & 1 == 0
    {
        *to = mac(port).0;
    }
    frame
}

/// Source and destination, if that much is there.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
    let v6 = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// Bytes behind the IP packet.
fn surplus(packet: &[u8]) -> usize {
    IpHeader::parse(packet).map_or(0, |ip| packet.len().saturating_sub(ip.total_len))
}

/// ESP, bare or in UDP (RFC 3948 §2.2: a keepalive or four zero bytes for IKE are none).
fn esp_of<'a>(ip: &IpHeader, packet: &'a [u8]) -> Option<&'a [u8]> {
    let upper = ip.upper_of(packet);
    match ip.upper {
        protocol::ESP => Some(upper),
        protocol::UDP => {
            let is_port = |at: usize| upper.get(at..at + 2) == Some(&4500u16.to_be_bytes());
            let inside = upper.get(8..)?;
            let esp = inside.len() > 1 && inside.get(..4) != Some(&[0; 4]);
            (esp && (is_port(0) || is_port(2))).then_some(inside)
        }
        _ => None,
    }
}

/// Whether a frame of ours is about neighbours, and the answer if it is a question.
fn of_neighbours(bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    let frame = Frame::parse(bytes).ok()?;
    let packet = &bytes[ethernet::HEADER_LEN..];
    match frame.ethertype {
        ethertype::ARP => {
            let asked = Arp::parse(packet).ok().filter(|arp| arp.operation == arp::Operation::Request);
            // An announcement asks for its own sender.
            let asked = asked.filter(|arp| arp.sender_ip != arp.target_ip);
            Some(asked.map(|asked| arp::reply_frame(NEIGHBOUR, &asked).to_vec()))
        }
        ethertype::IPV6 => {
            let ip = IpHeader::parse(packet).ok()?;
            let kind = ip.upper_of(packet).first().copied();
            if ip.upper != protocol::ICMPV6 || !matches!(kind, Some(133..=137)) {
                return None;
            }
            let asked = NeighborSolicitation::parse(&ip, packet).ok();
            Some(asked.map(|asked| nd::advertisement_frame(NEIGHBOUR, &asked, frame.src).to_vec()))
        }
        _ => None,
    }
}
