//! Neighbour discovery: neighbour solicitation and advertisement (RFC 4861), as whole IPv6 packets.

use crate::ethernet::{self, Frame, Mac, ethertype};
use crate::ip::{IpHeader, protocol};
use crate::{WireError, checksum, ipv6};
use std::net::{IpAddr, Ipv6Addr};

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Length of an IPv6 packet with one of these messages and its link-layer address option: the longest made here.
pub const PACKET_LEN: usize = ipv6::LEN + MESSAGE_LEN + OPTION_LEN;
/// Length of a frame with such a packet.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

const MESSAGE_LEN: usize = 24;
const OPTION_LEN: usize = 8;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Who has this address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// Who asks; unspecified when looking for duplicates of its own address.
    pub src: Ipv6Addr,
    /// The target itself, or its solicited-node group.
    pub dst: Ipv6Addr,
    /// The address in question.
    pub target: Ipv6Addr,
    /// Where the asker is.
    pub source_mac: Option<Mac>,
}

/// I have this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// Who answers.
    pub src: Ipv6Addr,
    /// Who asked, or all nodes.
    pub dst: Ipv6Addr,
    /// The address in question.
    pub target: Ipv6Addr,
    /// The sender is an IPv6 router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// It replaces what was known.
    pub override_: bool,
    /// Where the target is.
    pub target_mac: Option<Mac>,
}

/// A neighbour discovery message that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// Who has this address?
    Solicitation(NeighborSolicitation),
    /// I have this address.
    Advertisement(NeighborAdvertisement),
}

impl Nd {
    /// Reads the message of an ICMPv6 packet, whose header is `ip`, and does the checks of RFC 4861 §7.1.
    ///
    /// # Errors
    /// [`WireError::Protocol`] for other ICMPv6 messages; [`WireError::Nd`], [`WireError::Checksum`], [`WireError::Short`].
    pub fn parse(ip: &IpHeader, packet: &[u8]) -> Result<Nd, WireError> {
        let (IpAddr::V6(src), IpAddr::V6(dst), protocol::ICMPV6, None) = (ip.src, ip.dst, ip.upper, ip.fragment) else {
            return Err(WireError::Protocol);
        };
        let message = ip.upper_of(packet);
        let kind = *message.first().ok_or(WireError::Short)?;
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return Err(WireError::Protocol);
        }
        let h = message.first_chunk::<MESSAGE_LEN>().ok_or(WireError::Short)?;
        if message.len() != ip.upper_len() {
            return Err(WireError::Short);
        }
        if checksum::upper(ip.src, ip.dst, protocol::ICMPV6, message) != 0 {
            return Err(WireError::Checksum);
        }
        let mut octets = [0; 16];
        octets.copy_from_slice(&h[8..]);
        let target = Ipv6Addr::from(octets);
        // RFC 4861 §7.1; RFC 6980 §5: nothing between the headers, an atomic fragment included.
        if ip.hop_limit != 255 || h[1] != 0 || ip.upper_offset != ipv6::LEN || target.is_multicast() {
            return Err(WireError::Nd);
        }
        if kind == SOLICITATION {
            solicitation(src, dst, target, &message[MESSAGE_LEN..])
        } else {
            advertisement(src, dst, target, h[4], &message[MESSAGE_LEN..])
        }
    }
}

// RFC 4861 §7.1.1
fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Result<Nd, WireError> {
    let source_mac = link_address(options, OPTION_SOURCE)?;
    if src.is_unspecified() && (source_mac.is_some() || dst != ipv6::solicited_node(target)) {
        return Err(WireError::Nd);
    }
    Ok(Nd::Solicitation(NeighborSolicitation { src, dst, target, source_mac }))
}

// RFC 4861 §7.1.2
fn advertisement(src: Ipv6Addr, dst: Ipv6Addr, target: Ipv6Addr, flags: u8, options: &[u8]) -> Result<Nd, WireError> {
    let target_mac = link_address(options, OPTION_TARGET)?;
    let solicited = flags & SOLICITED != 0;
    if solicited && dst.is_multicast() {
        return Err(WireError::Nd);
    }
    let (router, override_) = (flags & ROUTER != 0, flags & OVERRIDE != 0);
    Ok(Nd::Advertisement(NeighborAdvertisement { src, dst, target, router, solicited, override_, target_mac }))
}

/// The link-layer address option of this kind, if there is one; all options must be well formed.
fn link_address(mut options: &[u8], kind: u8) -> Result<Option<Mac>, WireError> {
    let mut found = None;
    while let [option, units, ..] = *options {
        let len = usize::from(units) * 8;
        // RFC 4861 §4.6: a length of zero is discarded, which also bounds this loop.
        if len == 0 || len > options.len() {
            return Err(WireError::Nd);
        }
        if option == kind && len == OPTION_LEN {
            let mut mac = [0; 6];
            mac.copy_from_slice(&options[2..8]);
            if !Mac(mac).is_unicast() {
                return Err(WireError::Nd);
            }
            found = Some(Mac(mac));
        }
        options = &options[len..];
    }
    if options.is_empty() { Ok(found) } else { Err(WireError::Nd) }
}

impl NeighborSolicitation {
    /// Reads a solicitation. See [`Nd::parse`].
    ///
    /// # Errors
    /// Those of [`Nd::parse`]; [`WireError::Protocol`] for an advertisement too.
    pub fn parse(ip: &IpHeader, packet: &[u8]) -> Result<Self, WireError> {
        match Nd::parse(ip, packet)? {
            Nd::Solicitation(s) => Ok(s),
            Nd::Advertisement(_) => Err(WireError::Protocol),
        }
    }

    /// Writes the whole IPv6 packet at the start of `out` and gives its length, at most [`PACKET_LEN`].
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let option = self.source_mac.map(|mac| (OPTION_SOURCE, mac));
        write_packet(out, (self.src, self.dst), (SOLICITATION, 0), self.target, option)
    }
}

impl NeighborAdvertisement {
    /// Reads an advertisement. See [`Nd::parse`].
    ///
    /// # Errors
    /// Those of [`Nd::parse`]; [`WireError::Protocol`] for a solicitation too.
    pub fn parse(ip: &IpHeader, packet: &[u8]) -> Result<Self, WireError> {
        match Nd::parse(ip, packet)? {
            Nd::Advertisement(a) => Ok(a),
            Nd::Solicitation(_) => Err(WireError::Protocol),
        }
    }

    /// Writes the whole IPv6 packet at the start of `out` and gives its length, at most [`PACKET_LEN`].
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let flags = [(self.router, ROUTER), (self.solicited, SOLICITED), (self.override_, OVERRIDE)];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        let option = self.target_mac.map(|mac| (OPTION_TARGET, mac));
        write_packet(out, (self.src, self.dst), (ADVERTISEMENT, flags), self.target, option)
    }
}

fn write_packet(
    out: &mut [u8],
    (src, dst): (Ipv6Addr, Ipv6Addr),
    (kind, flags): (u8, u8),
    target: Ipv6Addr,
    option: Option<(u8, Mac)>,
) -> Result<usize, WireError> {
    let message_len = MESSAGE_LEN + if option.is_some() { OPTION_LEN } else { 0 };
    let packet = out.get_mut(..ipv6::LEN + message_len).ok_or(WireError::NoRoom)?;
    let fields = ipv6::Fields {
        src,
        dst,
        next_header: protocol::ICMPV6,
        payload_len: message_len as u16,
        hop_limit: 255,
        traffic_class: 0,
        flow_label: 0,
    };
    ipv6::write_header(packet, &fields)?;
    let message = &mut packet[ipv6::LEN..];
    message[..8].copy_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    message[8..MESSAGE_LEN].copy_from_slice(&target.octets());
    if let Some((option, mac)) = option {
        message[MESSAGE_LEN..MESSAGE_LEN + 2].copy_from_slice(&[option, 1]);
        message[MESSAGE_LEN + 2..].copy_from_slice(&mac.0);
    }
    let sum = checksum::upper(IpAddr::V6(src), IpAddr::V6(dst), protocol::ICMPV6, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(ipv6::LEN + message_len)
}

/// The frame that asks the target's solicited-node group who has `target`, from us.
#[must_use]
pub fn solicitation_frame(our_mac: Mac, our_ip: Ipv6Addr, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    let dst = ipv6::solicited_node(target);
    let message = NeighborSolicitation { src: our_ip, dst, target, source_mac: Some(our_mac) };
    let mut out = [0; FRAME_LEN];
    let frame = Frame { dst: ipv6::solicited_node_mac(target), src: our_mac, ethertype: ethertype::IPV6 };
    let _ = frame.write(&mut out); // both fit: FRAME_LEN is their sum
    let _ = message.write(&mut out[ethernet::HEADER_LEN..]);
    out
}

/// The frame that answers `asked` with `our_mac`. `asker_mac` is the source of the frame it came in, for askers that do
/// not name their own. Who looks for duplicates is answered to all nodes (RFC 4861 §7.2.4).
#[must_use]
pub fn advertisement_frame(our_mac: Mac, asked: &NeighborSolicitation, asker_mac: Mac) -> [u8; FRAME_LEN] {
    let probe = asked.src.is_unspecified();
    let (dst, dst_mac) = if probe {
        (ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1]))
    } else {
        (asked.src, asked.source_mac.unwrap_or(asker_mac))
    };
    advertise(our_mac, asked.target, dst, dst_mac, !probe)
}

/// The frame that tells all nodes that `our_mac` has `our_ip` now (RFC 4861 §7.2.6).
#[must_use]
pub fn announcement_frame(our_mac: Mac, our_ip: Ipv6Addr) -> [u8; FRAME_LEN] {
    advertise(our_mac, our_ip, ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1]), false)
}

fn advertise(our_mac: Mac, our_ip: Ipv6Addr, dst: Ipv6Addr, dst_mac: Mac, solicited: bool) -> [u8; FRAME_LEN] {
    let message = NeighborAdvertisement {
        src: our_ip,
        dst,
        target: our_ip,
        router: false,
        solicited,
        override_: true,
        target_mac: Some(our_mac),
    };
    let mut out = [0; FRAME_LEN];
    let _ = Frame { dst: dst_mac, src: our_mac, ethertype: ethertype::IPV6 }.write(&mut out); // both fit
    let _ = message.write(&mut out[ethernet::HEADER_LEN..]);
    out
}
