//! A look ahead over a burst: whatever its packets will need is asked of memory for all of them before the first one is
//! worked on. Only hints: headers are read without any check, and what is guessed wrongly costs nothing but time.
//!
//! It pays once a core has more SAs or connections than its caches hold; below that it is left out.

use std::net::IpAddr;

use phalanx_ipsec::{FlowAhead, InboundIndex, InboundSa, OutboundIndex, OutboundSa, Role, Subject, TunnelIndex};
use phalanx_steering::{Ahead, ConnKey, Seen};
use phalanx_wire::{Buffer, Endpoint, Flow, LinkHeader, PeerId, Spi, VipId, ethernet, gre, protocol, udp};

use crate::engine::{Batch, Engine};
use crate::outbound::Outgoing;
use crate::packet::{Parcel, Source};

/// As many SAs fit a second-level cache with all that belongs to them.
const FEW_SAS: usize = 128;
/// As many connections do.
const FEW_CONNECTIONS: usize = 4096;

/// What packets of a burst begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Ethernet and a peer's packet.
    Network,
    /// Ethernet, GRE, a link header and a peer's packet.
    Link,
    /// A parcel of another core.
    Parcel,
}

impl<S: Source> Engine<S> {
    /// 1. SPIs' places in the index; 2. SAs' places, and what a router has beside; 3. SAs; 4. what these point to.
    pub(crate) fn sas_ahead(&self, begins: Begins, packets: &Batch<S::Packet>) {
        if packets.len() < 2 || self.tables.cache.len().0 < FEW_SAS {
            return;
        }
        let cache = &self.tables.cache;
        let mut last = None;
        let mut spis: Batch<(VipId, Spi)> = Batch::new();
        for packet in packets {
            if let Some((vip, spi)) = self.guess(begins, packet.bytes(), &mut last) {
                cache.spi_ahead(vip, spi);
                spis.push((vip, spi));
            }
        }
        let found: Batch<InboundIndex> = spis.iter().filter_map(|&(vip, spi)| cache.lookup(vip, spi)).collect();
        let routes = begins == Begins::Network;
        for &at in &found {
            cache.inbound_ahead(at);
            if routes {
                self.router.sas[at.0 as usize].ahead();
            }
        }
        let sas = || found.iter().filter_map(|&at| cache.inbound(at));
        if routes {
            sas().for_each(InboundSa::peek_ahead);
        } else {
            sas().for_each(InboundSa::open_ahead);
            sas().for_each(InboundSa::shared_ahead);
        }
    }

    /// The VIP and SPI that the packet seems to have. `last`: see [`Self::vip_at`].
    fn guess(&self, begins: Begins, bytes: &[u8], last: &mut Option<(IpAddr, VipId)>) -> Option<(VipId, Spi)> {
        let link = match begins {
            Begins::Network => {
                let (address, spi) = esp(bytes.get(ethernet::HEADER_LEN..)?)?;
                return Some((self.vip_at(address, last)?, spi));
            }
            Begins::Link => {
                let version = bytes.get(ethernet::HEADER_LEN)? >> 4;
                bytes.get(ethernet::HEADER_LEN + if version == 4 { 20 } else { 40 } + gre::LEN..)?
            }
            Begins::Parcel => bytes.get(Parcel::LEN..)?,
        };
        let vip = VipId(u16::from_be_bytes([*link.get(2)?, *link.get(3)?]));
        Some((vip, esp(link.get(LinkHeader::LEN..)?)?.1))
    }

    /// What the rules said about the flows of frames from the application.
    pub(crate) fn flows_ahead(&self, frames: &Batch<S::Packet>) {
        if frames.len() < 2 || !self.follows_many() {
            return;
        }
        let (filters, mut last) = (&self.tables.filters, None);
        let mut ahead: Batch<FlowAhead> = Batch::new();
        for frame in frames {
            let Some(flow) = frame.bytes().get(ethernet::HEADER_LEN..).and_then(outbound_flow) else { continue };
            if let Some(vip) = self.vip_at(flow.local.addr, &mut last)
                && let Some(one) = filters.ahead_together(vip, &Subject::from(&flow))
            {
                ahead.push(one);
            }
        }
        ahead.into_iter().for_each(|one| filters.flow_ahead(one));
    }

    /// The same for packets whose filters lead to these tunnels. 1. tunnels; 2. SAs' places; 3. SAs; 4. what these point to.
    pub(crate) fn tunnels_ahead(&self, tunnels: impl Iterator<Item = TunnelIndex>) {
        let cache = &self.tables.cache;
        if cache.len().1 < FEW_SAS {
            return;
        }
        let tunnels: Batch<TunnelIndex> = tunnels.collect();
        tunnels.iter().for_each(|&tunnel| cache.tunnel_ahead(tunnel));
        let found: Batch<OutboundIndex> = tunnels.iter().filter_map(|&tunnel| cache.current(tunnel)).collect();
        for &at in &found {
            cache.outbound_ahead(at);
            phalanx_aead::prefetch::all(&self.outbound.sas[at.0 as usize]);
        }
        let sas = || found.iter().filter_map(|&at| cache.outbound(at));
        sas().for_each(OutboundSa::seal_ahead);
        sas().for_each(OutboundSa::shared_ahead);
    }

    /// The router's table entries of what a peek has shown. `who` is the peer of each packet.
    pub(crate) fn routes_ahead(&self, seen: &[Seen], who: impl Fn(usize) -> Option<PeerId>) -> Batch<Option<Ahead>> {
        let table = &self.router.table;
        let many = seen.len() > 1 && table.len() >= FEW_CONNECTIONS;
        let seen = seen.iter().map(|seen| seen.flow().filter(|_| many));
        let ahead = |(at, flow): (usize, Option<Flow>)| Some(table.ahead(&ConnKey { peer: who(at)?, flow: flow? }));
        let ahead: Batch<Option<Ahead>> = seen.enumerate().map(ahead).collect();
        ahead.iter().flatten().for_each(|one| table.entry_ahead(one));
        ahead
    }

    /// A target's entries of packets that were opened just now: their peers and texts.
    pub(crate) fn tracked_ahead<'a>(
        &self,
        role: Role,
        texts: impl Iterator<Item = Option<(PeerId, &'a [u8])>>,
    ) -> Batch<Option<Ahead>> {
        let many = self.follows_many();
        self.connections_ahead(texts.map(|text| {
            let (peer, text) = text.filter(|_| many && role == Role::Target)?;
            Some(ConnKey { peer, flow: inbound_flow(text)? })
        }))
    }

    /// A target's entries of packets that are about to be sealed.
    pub(crate) fn sent_ahead(&self, burst: &Batch<Outgoing<S::Packet>>) -> Batch<Option<Ahead>> {
        let many = burst.len() > 1 && self.follows_many();
        self.connections_ahead(burst.iter().map(|one| {
            let peer = self.tables.cache.outbound(one.sa).filter(|_| many)?.peer();
            Some(ConnKey { peer, flow: outbound_flow(one.packet.bytes())? })
        }))
    }

    /// This core is a target with more connections than fit its caches.
    fn follows_many(&self) -> bool {
        self.target.enabled && self.target.tracker.len() >= FEW_CONNECTIONS
    }

    fn connections_ahead(&self, keys: impl Iterator<Item = Option<ConnKey>>) -> Batch<Option<Ahead>> {
        let tracker = &self.target.tracker;
        let ahead: Batch<Option<Ahead>> = keys.map(|key| Some(tracker.ahead(&key?))).collect();
        ahead.iter().flatten().for_each(|one| tracker.entry_ahead(one));
        ahead
    }

    /// The VIP of an address. `last` is the latest one: mostly there is one.
    fn vip_at(&self, address: IpAddr, last: &mut Option<(IpAddr, VipId)>) -> Option<VipId> {
        if last.is_none_or(|(known, _)| known != address) {
            *last = Some((address, self.tables.vips.by_address(address)?.entry.id));
        }
        last.map(|(_, vip)| vip)
    }
}

/// Destination and SPI of what seems to be ESP, in UDP or not.
#[inline]
fn esp(ip: &[u8]) -> Option<(IpAddr, Spi)> {
    let (proto, at) = upper(ip)?;
    let at = match proto {
        protocol::ESP => at,
        protocol::UDP => at + udp::LEN,
        _ => return None,
    };
    let spi = ip.get(at..at + 4)?;
    Some((addresses(ip)?.1, Spi(u32::from_be_bytes([spi[0], spi[1], spi[2], spi[3]]))))
}

/// The flow of a packet to us that is not encrypted any more.
#[inline]
fn inbound_flow(ip: &[u8]) -> Option<Flow> {
    let (protocol, at) = upper(ip)?;
    let ports = ip.get(at..at + 4)?;
    let (source, destination) = addresses(ip)?;
    Some(Flow {
        protocol,
        local: Endpoint::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
        remote: Endpoint::new(source, u16::from_be_bytes([ports[0], ports[1]])),
    })
}

/// The flow of a packet of ours.
#[inline]
fn outbound_flow(ip: &[u8]) -> Option<Flow> {
    let Flow { protocol, local, remote } = inbound_flow(ip)?;
    Some(Flow { protocol, local: remote, remote: local })
}

/// The protocol behind the IP header, if nothing else is in between, and where it begins.
#[inline]
fn upper(ip: &[u8]) -> Option<(u8, usize)> {
    match ip.first()? >> 4 {
        4 => Some((*ip.get(9)?, usize::from(ip[0] & 15) * 4)),
        6 => Some((*ip.get(6)?, 40)),
        _ => None,
    }
}

#[inline]
fn addresses(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if ip.first()? >> 4 == 4 {
        let at = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<4>()?));
        return Some((at(12)?, at(16)?));
    }
    let at = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<16>()?));
    Some((at(8)?, at(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_packet_is_no_guess() {
        let mut bytes = [0x45; 64];
        for len in 0..bytes.len() {
            assert_eq!(esp(&bytes[..len]), None);
            let _ = inbound_flow(&bytes[..len]);
        }
        bytes[0] = 0x65;
        (0..bytes.len()).for_each(|len| assert_eq!((esp(&bytes[..len]), upper(&[])), (None, None)));
    }

    #[test]
    fn the_spi_is_found_behind_either_ip_header_and_behind_udp() {
        let spi = Spi(0x0102_0304);
        for (version, proto, at) in [(4, 50, 20), (4, 17, 28), (6, 50, 40), (6, 17, 48)] {
            let mut packet = [0u8; 64];
            packet[0] = if version == 4 { 0x45 } else { 0x60 };
            packet[if version == 4 { 9 } else { 6 }] = proto;
            packet[at..at + 4].copy_from_slice(&spi.0.to_be_bytes());
            assert_eq!(esp(&packet).map(|(_, spi)| spi), Some(spi), "IPv{version}, protocol {proto}");
        }
    }
}
