//! SAs, packets and a stand-in for control, shared by tests on real ports.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use phalanx_dataplane::command::{LinkEnd, Outcome, Refused, TargetEntry, TargetSet};
use phalanx_dataplane::{Command, CommandSender, Event, EventReceiver};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Filter, Lease, Lifesize, Mode, Prefix, SaParams, SecretKey, Selectors, TunnelName,
};
use phalanx_steering::{Policy, PortRule};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{CoreId, Mac, PeerId, SaId, Spi, TargetId, TcpFlags, TcpHeader, VipId, ip, protocol, tcp};

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One target, on a core of this box, for every port.
pub fn all_ports_to(core: CoreId) -> Box<TargetSet> {
    let id = TargetId(1);
    let target = TargetEntry { id, link: LinkEnd::Ring(core), eligible: true, draining: false, weight: 1 };
    let rule = PortRule { ports: vec![0..=u16::MAX], targets: vec![id], ..PortRule::default() };
    Box::new(TargetSet::new(vec![target], Policy::RoundRobin, &[rule]).unwrap())
}

/// An SA in tunnel mode between outer and inner addresses; the same `key` and `spi` make the two ends fit.
pub struct End {
    pub id: u64,
    pub vip: VipId,
    pub spi: u32,
    pub key: u8,
    pub window: u32,
    /// Ours and the peer's.
    pub outer: [&'static str; 2],
    pub inner: [&'static str; 2],
}

pub fn params(direction: Direction, end: &End) -> SaParams {
    let [local, remote] = end.outer.map(addr);
    SaParams {
        id: SaId(end.id),
        direction,
        vip: end.vip,
        peer: PeerId(u32::from(end.vip.0)),
        tunnel: TunnelName::new("tunnel").unwrap(),
        spi: Spi(end.spi),
        mode: Mode::Tunnel { local, remote },
        local,
        remote,
        algorithm: Algorithm::Aes128Gcm16,
        key: SecretKey::new(Algorithm::Aes128Gcm16, &[end.key; 20]).unwrap(),
        esn: true,
        window: end.window,
        selectors: selectors(end),
        lifesize: Lifesize::UNLIMITED,
        path_mtu: 1500,
        mss_clamp: phalanx_ipsec::MssClamp::None,
        copy_dscp: true,
        ecn: true,
        encap: None,
        within: None,
    }
}

fn selectors(end: &End) -> Selectors {
    let [local, remote] = end.inner.map(|address| Prefix::host(addr(address)));
    Selectors::between(local, remote)
}

/// The filter that leads through the SA.
pub fn protect(end: &End) -> Filter {
    let action = Action::Protect(TunnelName::new("tunnel").unwrap());
    Filter { vip: end.vip, selectors: selectors(end), action, log: false }
}

/// A TCP segment in an IPv4 packet.
pub fn segment(from: (&str, u16), to: (&str, u16), flags: u8, payload: usize) -> Vec<u8> {
    let len = tcp::MIN_LEN + payload;
    let mut packet = vec![0; 20 + len];
    let fields = ip::Fields {
        src: addr(from.0),
        dst: addr(to.0),
        protocol: protocol::TCP,
        payload_len: len,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).unwrap();
    let header = TcpHeader {
        src_port: from.1,
        dst_port: to.1,
        seq: 1,
        ack: if flags & TcpFlags::ACK != 0 { 2 } else { 0 },
        data_offset: tcp::MIN_LEN,
        flags: TcpFlags(flags),
        window: 1000,
    };
    header.write(&mut packet[20..]).unwrap();
    tcp::set_checksum(fields.src, fields.dst, &mut packet[20..]).unwrap();
    packet
}

pub fn framed(packet: &[u8], to: Mac, from: Mac) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN];
    ethernet::write(&mut frame, to, from, ethertype::IPV4).unwrap();
    frame.extend_from_slice(packet);
    frame
}

/// Answers what a core asks control for: leases without end, ceilings far away.
pub struct Control {
    pub sender: CommandSender,
    pub events: EventReceiver,
    next: HashMap<SaId, u64>,
    pub block: u32,
    done: HashMap<u64, Result<Outcome, Refused>>,
    token: u64,
    pub opened: usize,
}

impl Control {
    pub fn new(sender: CommandSender, events: EventReceiver, block: u32) -> Control {
        Control { sender, events, next: HashMap::new(), block, done: HashMap::new(), token: 0, opened: 0 }
    }

    /// Sends a command and waits for its answer.
    pub fn order(&mut self, command: Command) -> Outcome {
        self.token += 1;
        let token = self.token;
        self.sender.try_send(token, command).expect("room for a command");
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            self.serve();
            if let Some(result) = self.done.remove(&token) {
                return result.expect("carried out");
            }
            assert!(Instant::now() < until, "no answer");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn serve_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.serve();
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    pub fn serve(&mut self) {
        while let Some(event) = self.events.try_recv() {
            let answer = match event {
                Event::Done { token, result, .. } => {
                    self.done.insert(token, result);
                    continue;
                }
                Event::LeaseWanted { sa, .. } => {
                    let next = self.next.entry(sa).or_insert(1);
                    let first = *next;
                    *next += u64::from(self.block);
                    let lease = Lease::from_wire(first, self.block);
                    Command::Lease { sa, lease, expires: Instant::now() + Duration::from_secs(2) }
                }
                Event::CeilingWanted { sa, at, .. } => Command::Ceiling(sa, at + (1 << 32)),
                Event::ConnOpened { vip, key, .. } => {
                    self.opened += 1;
                    Command::Confirm(vip, key, TargetId(1))
                }
                Event::ConnWanted { key, .. } => Command::ConnAnswer(key, None),
                _ => continue,
            };
            self.sender.try_send(0, answer).expect("room for a command");
        }
    }
}
