//! A network or link port as a station of its Ethernet: sending to next hops, answering for our addresses, announcing.
//!
//! It asks with its own address as the sender, never with a VIP (ARCHITECTURE "A VIP on many hosts"). For a VIP it speaks
//! only where this process is the VIP's router (I9).

use std::net::{IpAddr, Ipv6Addr};

use arrayvec::ArrayVec;
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Arp, Buffer, DropReason, Frame, Icmp4, Icmp6, IpHeader, Mac, arp, nd, protocol};

use crate::clock::Now;
use crate::config::PortRole;
use crate::engine::Engine;
use crate::laps::Span;
use crate::neighbour::{Due, Neighbours, Resolved};
use crate::notes::{Fact, For};
use crate::packet::{Marked, Parcel, Source, filled, prepend};
use crate::stats::Stage;

/// A new VIP is announced so often...
const ANNOUNCEMENTS: u8 = 3;
/// ...with this pause between (RFC 5227 §2.3: two seconds; a takeover should be quicker than that).
const ANNOUNCE_MS: u64 = 1000;
/// Neighbour entries looked at in one round.
const LOOK_AT: usize = 8;

pub(crate) struct Station<P> {
    pub(crate) neighbours: Neighbours<P>,
    announcing: ArrayVec<Announcement, 32>,
}

struct Announcement {
    address: IpAddr,
    left: u8,
    at: u64,
}

/// A port of this core, the longest packet that goes by it in one piece, and the Ethernet header of those that go one way.
pub(crate) struct Way {
    port: usize,
    pub(crate) most: usize,
    to: Mac,
    v4: bool,
    front: [u8; ethernet::HEADER_LEN],
}

impl Way {
    /// From the second station to the first, of IPv4 or IPv6.
    pub(crate) fn new(port: usize, most: usize, (to, from): (Mac, Mac), v4: bool) -> Option<Way> {
        let mut front = [0; ethernet::HEADER_LEN];
        ethernet::write(&mut front, to, from, if v4 { ethertype::IPV4 } else { ethertype::IPV6 }).ok()?;
        Some(Way { port, most, to, v4, front })
    }

    /// It is the way of such packets by that port to that station.
    #[inline]
    pub(crate) fn is(&self, port: usize, to: Mac, v4: bool) -> bool {
        self.port == port && self.to == to && self.v4 == v4
    }

    #[inline(always)]
    pub(crate) fn takes(&self, packet: &impl Buffer) -> bool {
        packet.bytes().len() <= self.most
    }
}

impl<P> Station<P> {
    pub(crate) fn new(neighbours: Neighbours<P>) -> Station<P> {
        Station { neighbours, announcing: ArrayVec::new() }
    }
}

impl<S: Source> Engine<S> {
    /// Sends an IP packet by a network or link port: its next hop is found here if the port is this core's.
    #[inline]
    pub(crate) fn send(&mut self, port: usize, packet: S::Packet, now: Now) {
        let facts = &self.world.ports[port];
        if facts.owner != self.me {
            return self.out.parcel(facts.owner, Parcel::Send(port), packet);
        }
        if facts.memif {
            return self.send_memif(port, packet);
        }
        if packet.bytes().len() > facts.mtu {
            if facts.role != PortRole::Link {
                return self.out.drop(packet, DropReason::TooBig);
            }
            // Between boxes of ours: put together there, if we are believed (R14).
            let mtu = facts.mtu;
            return self.cut(packet, mtu, |engine, piece| engine.send(port, piece, now));
        }
        let hop = destination(packet.bytes()).and_then(|to| facts.next_hop(to));
        let (Some(hop), Some(station)) = (hop, &mut self.stations[port]) else {
            return self.out.drop(packet, DropReason::NoNeighbour);
        };
        let mark = packet.mark();
        match station.neighbours.resolve(hop, packet, now) {
            Resolved::To(mac, packet) => self.frame(port, mac, packet),
            Resolved::Held { ask } => {
                self.out.passed(Stage::HeldForNeighbour, 1);
                self.out.notes.note(mark, || Fact::Held(For::Neighbour));
                if ask {
                    self.ask(port, hop, None);
                }
            }
            Resolved::Full(packet) => self.out.drop(packet, DropReason::NeighbourWaitFull),
        }
    }

    /// Gives an inner packet to the host's stack.
    #[inline]
    pub(crate) fn deliver(&mut self, packet: S::Packet) {
        let Some(port) = self.application else {
            return self.out.drop(packet, DropReason::NoApplication);
        };
        self.deliver_by(port, packet);
    }

    #[inline(always)]
    pub(crate) fn deliver_by(&mut self, port: usize, packet: S::Packet) {
        let facts = &self.world.ports[port];
        if facts.owner != self.me {
            return self.out.parcel(facts.owner, Parcel::Deliver(port), packet);
        }
        // Its driver takes nothing larger, ever; the host's stack puts the pieces together.
        if packet.bytes().len() > facts.mtu {
            return self.deliver_pieces(port, packet);
        }
        self.out.passed(Stage::Delivered, 1);
        self.out.note(&packet, || Fact::Delivered);
        self.frame(port, facts.host_mac, packet);
    }

    /// How inner packets of IPv4 go to the host's stack, if by a port of this core.
    pub(crate) fn way_to_application(&self) -> Option<Way> {
        let port = self.application?;
        let facts = Some(&self.world.ports[port]).filter(|facts| facts.owner == self.me)?;
        Way::new(port, facts.mtu, (facts.host_mac, facts.mac), true)
    }

    /// A packet that the way takes.
    #[inline(always)]
    pub(crate) fn frame_by(&mut self, way: &Way, mut packet: S::Packet) {
        match prepend(&mut packet, &way.front) {
            Ok(()) => self.out.frame(way.port, packet),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    #[inline(never)]
    fn deliver_pieces(&mut self, port: usize, packet: S::Packet) {
        let mtu = self.world.ports[port].mtu;
        self.cut(packet, mtu, |engine, piece| engine.deliver_by(port, piece));
    }

    /// Puts the Ethernet header in front and queues the frame.
    #[inline(always)]
    pub(crate) fn frame(&mut self, port: usize, to: Mac, mut packet: S::Packet) {
        let ethertype = match packet.bytes().first().map(|first| first >> 4) {
            Some(6) => ethertype::IPV6,
            _ => ethertype::IPV4,
        };
        let from = self.world.ports[port].mac;
        let room = packet.grow_front(ethernet::HEADER_LEN).map_err(DropReason::from);
        match room.and_then(|()| Ok(ethernet::write(packet.bytes_mut(), to, from, ethertype)?)) {
            Ok(()) => self.out.frame(port, packet),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// An ARP message that came in by `port`.
    pub(crate) fn on_arp(&mut self, port: usize, packet: S::Packet, now: Now) {
        let arp = match Arp::parse(&packet.bytes()[ethernet::HEADER_LEN..]) {
            Ok(arp) => arp,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        let mac = self.world.ports[port].mac;
        let sender = IpAddr::V4(arp.sender_ip);
        if arp.operation == arp::Operation::Reply {
            if self.world.ports[port].has(IpAddr::V4(arp.target_ip)) {
                self.on_answer(port, sender, arp.sender_mac, now);
            }
        } else if self.answers_for(port, IpAddr::V4(arp.target_ip)) && arp.sender_ip != arp.target_ip {
            self.emit(port, &arp::reply_frame(mac, &arp));
        } else {
            self.out.drop(packet, DropReason::NotForUs);
        }
    }

    /// A neighbour discovery message that came in by `port`; `asker` is its frame's sender.
    pub(crate) fn on_nd(&mut self, port: usize, packet: S::Packet, ip: &IpHeader, asker: Mac, now: Now) {
        let mac = self.world.ports[port].mac;
        match nd::Nd::parse(ip, packet.bytes()) {
            Ok(nd::Nd::Solicitation(asked)) if self.answers_for(port, IpAddr::V6(asked.target)) => {
                let asker = asked.source_mac.unwrap_or(asker);
                self.emit(port, &nd::advertisement_frame(mac, &asked, asker));
            }
            Ok(nd::Nd::Advertisement(told)) => {
                let to_us = told.solicited && self.world.ports[port].has(ip.dst);
                if let (true, Some(mac)) = (to_us, told.target_mac) {
                    self.on_answer(port, IpAddr::V6(told.target), mac, now);
                }
            }
            Ok(_) => self.out.drop(packet, DropReason::NotForUs),
            Err(error) => self.out.drop(packet, error.into()),
        }
    }

    /// An ICMP echo request to one of the port's own addresses is answered in place; the rest is nobody's.
    pub(crate) fn on_own(&mut self, port: usize, mut packet: S::Packet, ip: &IpHeader, asker: Mac) {
        if !is_echo_request(ip, packet.bytes()) || ip.fragment.is_some() {
            return self.out.drop(packet, DropReason::NotForUs);
        }
        if let Err(error) = echo_reply(ip, packet.bytes_mut()) {
            return self.out.drop(packet, error);
        }
        self.out.passed(Stage::EchoAnswered, 1);
        self.frame(port, asker, packet);
    }

    fn on_answer(&mut self, port: usize, address: IpAddr, mac: Mac, now: Now) {
        let Some(station) = &mut self.stations[port] else { return };
        let Some((entry, mac)) = station.neighbours.answer(address, mac, now) else { return };
        while let Some((packet, since)) = self.stations[port].as_mut().and_then(|s| s.neighbours.waiting_since(entry)) {
            self.out.stats.measures.waited(Span::Neighbour, since, now.us());
            self.frame(port, mac, packet);
        }
    }

    /// Whether `address` is the port's, or a VIP whose router this process is.
    fn answers_for(&self, port: usize, address: IpAddr) -> bool {
        let facts = &self.world.ports[port];
        let vip = || self.tables.vips.by_address(address).is_some_and(|vip| vip.entry.router_core.is_some());
        facts.has(address) || (facts.role == crate::config::PortRole::Network && vip())
    }

    /// Announces a VIP on the network ports of this core, now and a little later again.
    pub(crate) fn announce(&mut self, address: IpAddr, now: Now) {
        for (facts, station) in self.world.ports.iter().zip(&mut self.stations) {
            if let (crate::config::PortRole::Network, Some(station)) = (facts.role, station) {
                station.announcing.retain(|other| other.address != address);
                // One that finds no room is announced by its first packet.
                let _ = station.announcing.try_push(Announcement { address, left: ANNOUNCEMENTS, at: now.ms() });
            }
        }
    }

    /// Stops announcing an address that is no longer ours.
    pub(crate) fn stop_announcing(&mut self, address: IpAddr) {
        for station in self.stations.iter_mut().flatten() {
            station.announcing.retain(|other| other.address != address);
        }
    }

    /// Requests, refreshes, announcements and given-up next hops that are due.
    pub(crate) fn tend_station(&mut self, port: usize, now: Now) {
        let Some(station) = &mut self.stations[port] else { return };
        let due_announcement = station.announcing.iter_mut().find(|one| one.at <= now.ms());
        if let Some(one) = due_announcement {
            let (address, mac) = (one.address, self.world.ports[port].mac);
            (one.left, one.at) = (one.left - 1, now.ms() + ANNOUNCE_MS);
            station.announcing.retain(|one| one.left > 0);
            match address {
                IpAddr::V4(address) => self.emit(port, &arp::announcement_frame(mac, address)),
                IpAddr::V6(address) => self.emit(port, &nd::announcement_frame(mac, address)),
            }
        }
        let Some(station) = &mut self.stations[port] else { return };
        match station.neighbours.due(now, LOOK_AT) {
            Some(Due::Ask(address, mac)) => self.ask(port, address, mac),
            Some(Due::GiveUp(entry)) => {
                while let Some(packet) = self.stations[port].as_mut().and_then(|s| s.neighbours.waiting(entry)) {
                    self.out.drop(packet, DropReason::NoNeighbour);
                }
            }
            None => {}
        }
    }

    /// Asks who has `address`: everybody, or the station that had it.
    fn ask(&mut self, port: usize, address: IpAddr, known: Option<Mac>) {
        let facts = &self.world.ports[port];
        let mac = facts.mac;
        match (facts.sender(address), address) {
            (Some(IpAddr::V4(sender)), IpAddr::V4(address)) => {
                let mut frame = arp::request_frame(mac, sender, address);
                known.inspect(|known| frame[..6].copy_from_slice(&known.0));
                self.emit(port, &frame);
            }
            (Some(IpAddr::V6(sender)), IpAddr::V6(address)) => {
                let mut frame = nd::solicitation_frame(mac, sender, address);
                known.inspect(|known| frame[..6].copy_from_slice(&known.0));
                self.emit(port, &frame);
            }
            _ => {}
        }
    }

    /// Sends a frame of our own making.
    fn emit(&mut self, port: usize, frame: &[u8]) {
        match filled(&mut self.source, frame) {
            Ok(packet) => {
                self.out.passed(Stage::NeighbourSent, 1);
                self.out.frame(port, packet);
            }
            Err(reason) => self.out.stats.dropped(reason, 1),
        }
    }
}

/// Where an IP packet goes, without the checks of a full parse: it is ours, or was checked before.
#[inline]
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20).and_then(<[u8]>::first_chunk::<4>).map(|&octets| IpAddr::from(octets)),
        6 => packet.get(24..40).and_then(<[u8]>::first_chunk::<16>).map(|&octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn is_echo_request(ip: &IpHeader, packet: &[u8]) -> bool {
    let message = ip.upper_of(packet);
    match ip.upper {
        protocol::ICMP => matches!(Icmp4::parse(message), Ok(Icmp4::EchoRequest(_))),
        protocol::ICMPV6 => matches!(Icmp6::parse(ip.src, ip.dst, message), Ok(Icmp6::EchoRequest(_))),
        _ => false,
    }
}

/// 1. change places; 2. the type, and the message's checksum by the difference; the header's checksum stays as it is.
fn echo_reply(ip: &IpHeader, packet: &mut [u8]) -> Result<(), DropReason> {
    let (at, len) = if ip.version == 4 { (12, 4) } else { (8, 16) };
    let (front, back) = packet.split_at_mut(at + len);
    front[at..].swap_with_slice(back.get_mut(..len).ok_or(DropReason::Runt)?);
    let (request, reply) = if ip.version == 4 { (8u16, 0u16) } else { (128, 129) };
    let message = packet.get_mut(ip.upper_offset..ip.upper_offset + 4).ok_or(DropReason::Runt)?;
    message[0] = reply as u8;
    let sum = u16::from_be_bytes([message[2], message[3]]);
    let sum = phalanx_wire::checksum::update16(sum, request << 8, reply << 8);
    message[2..].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// The header of a frame, if it is for this port.
#[inline]
pub(crate) fn addressed_to(bytes: &[u8], mac: Mac) -> Result<Frame, DropReason> {
    let frame = Frame::parse(bytes)?;
    if frame.dst != mac && !frame.dst.is_multicast() { Err(DropReason::NotForUs) } else { Ok(frame) }
}
