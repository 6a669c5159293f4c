//! A look ahead over a burst: what a packet will need is asked of memory some packets before it is worked on, so that memory
//! answers while the core works on those. Each step needs what the step before has brought, and runs some packets behind it.
//! Only hints: headers are read without any check, and what is guessed wrongly costs nothing but time.
//!
//! It pays once a core has more SAs or connections than its caches hold; below that it is left out.

use std::net::IpAddr;
use std::ops::Range;

use phalanx_ipsec::{InboundIndex, InboundSa, OutboundIndex, OutboundSa, SoughtFlow, TunnelIndex};
use phalanx_steering::Sought;
use phalanx_wire::{Buffer, LinkHeader, Spi, VipId, ethernet, gre, protocol, udp};

use crate::engine::{Batch, Engine};
use crate::packet::{Parcel, Source};

/// As many SAs fit a second-level cache with all that belongs to them.
const FEW_SAS: usize = 128;
/// As many connections do beside the packets of a burst.
const FEW_CONNECTIONS: usize = 256;

/// So many packets of ours take longer than memory does.
const LEAD: usize = 8;
/// So many connections are asked for at once.
const TOGETHER: usize = 8;

/// How far ahead a step is of the next one, and how many packets it does at once: where each lies in a page of its own, the page
/// tables are then walked for all of them at once. More than a core's first-level cache holds beside the burst drives itself out.
#[derive(Clone, Copy)]
struct Pace {
    lead: usize,
    together: usize,
}

/// A router does little with each packet.
const ROUTER: Pace = Pace { lead: 8, together: 8 };
/// A target needs the whole key of each.
const TARGET: Pace = Pace { lead: 4, together: 4 };

/// Bytes around what is sealed.
const AROUND: usize = 80;

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

/// The SAs of packets that came in; goes on with [`Engine::sas_ahead`].
#[derive(Default)]
pub(crate) struct SasAhead {
    routes: bool,
    /// With the length of what is sealed, about.
    spis: Batch<(VipId, Spi, usize)>,
    found: Batch<Option<InboundIndex>>,
}

/// The SAs of packets of our own; goes on with [`Engine::tunnels_ahead`].
#[derive(Default)]
pub(crate) struct OutboundAhead {
    /// Of each packet so far.
    pub(crate) tunnels: Batch<Option<TunnelIndex>>,
    found: Batch<Option<OutboundIndex>>,
}

/// The item that stands so far before the `at`-th.
#[inline]
fn before<T: Copy>(items: &Batch<T>, at: usize, lead: usize) -> Option<T> {
    items.get(at.checked_sub(lead)?).copied()
}

/// The items whose turn in a step it is once `known` of `n` items are through the step before: some at once, and what is left at
/// the end.
#[inline]
fn behind(known: usize, n: usize) -> Range<usize> {
    let through = |known: usize| (known / TOGETHER * TOGETHER).saturating_sub(TOGETHER);
    through(known.saturating_sub(1))..if known == n { n } else { through(known) }
}

impl Pace {
    /// The items of `n` that a step has to do before the work on the `at`-th, which it leads by so many steps.
    #[inline]
    fn due(self, at: usize, n: usize, steps: usize) -> Range<usize> {
        if !at.is_multiple_of(self.together) {
            return 0..0;
        }
        let from = at + steps * self.lead;
        n.min(if at == 0 { 0 } else { from })..n.min(from + self.together)
    }
}

impl<S: Source> Engine<S> {
    /// Asks for SPIs' places in the index.
    #[inline(always)]
    pub(crate) fn spis_ahead(&self, begins: Begins, packets: &Batch<S::Packet>, ahead: &mut SasAhead) {
        if packets.len() > 1 && self.tables.cache.len().0 >= FEW_SAS {
            self.many_spis_ahead(begins, packets, ahead);
        }
    }

    #[inline(never)]
    fn many_spis_ahead(&self, begins: Begins, packets: &Batch<S::Packet>, ahead: &mut SasAhead) {
        let (cache, mut last) = (&self.tables.cache, None);
        ahead.routes = begins == Begins::Network;
        for packet in packets {
            if let Some((vip, spi)) = self.guess(begins, packet.bytes(), &mut last) {
                cache.spi_ahead(vip, spi);
                ahead.spis.push((vip, spi, packet.bytes().len().saturating_sub(AROUND)));
            }
        }
    }

    /// Before the `at`-th packet is sorted: 1. SAs' places; 2. SAs; 3. what these point to; 4. of large windows what that points to.
    #[inline(always)]
    pub(crate) fn sas_ahead(&self, ahead: &mut SasAhead, at: usize) {
        if !ahead.spis.is_empty() {
            self.more_sas_ahead(ahead, at);
        }
    }

    #[inline(never)]
    fn more_sas_ahead(&self, ahead: &mut SasAhead, at: usize) {
        let (cache, n) = (&self.tables.cache, ahead.spis.len());
        let pace = if ahead.routes { ROUTER } else { TARGET };
        for i in pace.due(at, n, 3) {
            let (vip, spi, _) = ahead.spis[i];
            let found = cache.lookup(vip, spi);
            found.into_iter().for_each(|found| cache.inbound_ahead(found));
            ahead.found.push(found);
        }
        let sa = |i: usize| ahead.found[i].and_then(|found| cache.inbound(found));
        if ahead.routes {
            pace.due(at, n, 2).filter_map(sa).for_each(InboundSa::check_ahead);
        } else {
            pace.due(at, n, 2).filter_map(sa).for_each(InboundSa::open_ahead);
            let with_len = |i: usize| Some((sa(i)?, ahead.spis[i].2));
            pace.due(at, n, 1).filter_map(with_len).for_each(|(sa, len)| sa.accept_ahead(len));
            pace.due(at, n, 0).filter_map(sa).for_each(InboundSa::mark_ahead);
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

    /// The SAs of packets that the rules sent through these tunnels, the last one just now: 1. its tunnel; of earlier ones 2. SAs'
    /// places; 3. SAs; 4. what these point to. Once all packets are there it goes on with `at` beyond them.
    pub(crate) fn tunnels_ahead(&self, ahead: &mut OutboundAhead, at: usize) {
        let cache = &self.tables.cache;
        if cache.len().1 < FEW_SAS {
            return;
        }
        if let Some(Some(tunnel)) = ahead.tunnels.get(at) {
            cache.tunnel_ahead(*tunnel);
        }
        if let Some(tunnel) = before(&ahead.tunnels, at, LEAD) {
            let found = tunnel.and_then(|tunnel| cache.current(tunnel));
            if let Some(found) = found {
                cache.outbound_ahead(found);
            }
            ahead.found.push(found);
        }
        let sa = |lead: usize| cache.outbound(before(&ahead.found, at, lead)??);
        sa(2 * LEAD).into_iter().for_each(OutboundSa::begin_ahead);
        sa(3 * LEAD).into_iter().for_each(OutboundSa::shared_ahead);
    }

    /// Entries of the router's table, of those of `n` connections whose places are known by now.
    pub(crate) fn routes_ahead<'a>(&self, known: usize, n: usize, sought: impl Fn(usize) -> Option<&'a Sought>) {
        if self.router.table.len() >= FEW_CONNECTIONS {
            behind(known, n).filter_map(sought).for_each(|one| self.router.table.entry_ahead(one));
        }
    }

    /// The same of a target's tracker.
    pub(crate) fn tracked_ahead<'a>(&self, known: usize, n: usize, sought: impl Fn(usize) -> Option<&'a Sought>) {
        if self.follows_many() {
            behind(known, n).filter_map(sought).for_each(|one| self.target.tracker.entry_ahead(one));
        }
    }

    /// The same of what the rules said about flows.
    pub(crate) fn flows_ahead<'a>(&self, known: usize, n: usize, sought: impl Fn(usize) -> Option<&'a SoughtFlow>) {
        if self.follows_many() {
            behind(known, n).filter_map(sought).for_each(|one| self.tables.filters.flow_ahead(one));
        }
    }

    /// The key of a packet of a burst that will be peeked into.
    pub(crate) fn peek_ahead(&self, at: InboundIndex) {
        if self.tables.cache.len().0 >= FEW_SAS {
            self.tables.cache.inbound(at).into_iter().for_each(InboundSa::peek_ahead);
        }
    }

    /// The key of a packet of a burst that will be sealed.
    pub(crate) fn seal_ahead(&self, at: OutboundIndex, len: usize) {
        if self.tables.cache.len().1 >= FEW_SAS {
            self.tables.cache.outbound(at).into_iter().for_each(|sa| sa.seal_ahead(len));
        }
    }

    /// This core is a target with more connections than fit its caches.
    fn follows_many(&self) -> bool {
        self.target.enabled && self.target.tracker.len() >= FEW_CONNECTIONS
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
    fn each_item_is_due_once_and_no_later_than_it_is_worked_on() {
        for pace in [ROUTER, TARGET, Pace { lead: 0, together: 1 }, Pace { lead: 5, together: 3 }] {
            for (n, steps) in [(0, 1), (1, 1), (5, 0), (32, 1), (32, 3), (3, 3), (31, 2)] {
                let done: Vec<usize> = (0..n).flat_map(|at| pace.due(at, n, steps)).collect();
                assert_eq!(done, (0..n).collect::<Vec<_>>());
                assert!((0..n).all(|at| (0..=at).flat_map(|at| pace.due(at, n, steps)).any(|item| item == at)));
            }
        }
    }

    #[test]
    fn each_item_is_behind_once_and_all_are_at_the_end() {
        for n in 0..=32 {
            let done: Vec<usize> = (1..=n).flat_map(|known| behind(known, n)).collect();
            assert_eq!(done, (0..n).collect::<Vec<_>>());
            assert!((1..=n).all(|known| behind(known, n).end <= known), "nothing that is not known yet");
        }
    }

    #[test]
    fn what_is_no_packet_is_no_guess() {
        let mut bytes = [0x45; 64];
        for len in 0..bytes.len() {
            assert_eq!(esp(&bytes[..len]), None);
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
