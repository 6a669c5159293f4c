//! What IPv4 and IPv6 headers have in common: one view of both, and the changes made to them on the way.

use crate::{WireError, checksum, ipv4, ipv6};
use std::net::IpAddr;

/// Protocol numbers (IANA), which are IPv6 next header values too.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows; in ESP, a dummy packet (RFC 4303 §2.6).
    pub const NO_NEXT: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Where its bytes belong, from the start of the fragmentable part, in bytes.
    pub offset: u16,
    /// It is not the last one.
    pub more: bool,
    /// Names the packet, together with source, destination and (IPv4) protocol.
    pub id: u32,
}

/// What an IP header and its extension headers say.
///
/// Always `upper_field < upper_offset <= total_len`, and `upper_offset` lies inside (or at the end of) the bytes parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// 4 or 6.
    pub version: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The upper-layer protocol: what follows the extension headers. ESP and AH count as upper.
    pub upper: u8,
    /// Offset of the upper-layer header. In a fragment other than the first, of the fragment's data.
    pub upper_offset: usize,
    /// Offset of the byte that names `upper`.
    pub upper_field: usize,
    /// Length of the packet, header included; bytes beyond are link padding.
    pub total_len: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// DSCP << 2 | ECN.
    pub traffic_class: u8,
    /// IPv6 flow label; 0 for IPv4.
    pub flow_label: u32,
    /// IPv4's flag; always true for IPv6.
    pub dont_fragment: bool,
    /// Set in fragments. An atomic fragment (RFC 6946) is a whole packet, and none.
    pub fragment: Option<Fragment>,
    /// IPv4's identification; 0 for IPv6.
    pub identification: u16,
}

/// How much of a packet to believe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A whole packet.
    Whole,
    /// The first bytes of a packet.
    Prefix,
    /// As quoted in an ICMP error: cut short, and routers on its way may have left the header's checksum stale.
    Quoted,
}

impl Trust {
    /// # Errors
    /// [`WireError::Short`] if `b` should be whole and is not.
    #[inline(always)]
    pub(crate) fn whole(self, b: &[u8], total_len: usize) -> Result<(), WireError> {
        if self == Trust::Whole && total_len > b.len() { Err(WireError::Short) } else { Ok(()) }
    }
}

impl IpHeader {
    /// Reads the IP header of the packet in `b`, which is whole; bytes after `total_len` are padding.
    ///
    /// # Errors
    /// [`WireError::Short`] if the packet is cut short, [`WireError::Ip`] if malformed, [`WireError::Checksum`] if the
    /// IPv4 header's is wrong.
    #[inline(always)]
    pub fn parse(b: &[u8]) -> Result<IpHeader, WireError> {
        parse(b, Trust::Whole)
    }

    /// Reads the IP header at the start of `b`, the first bytes of a packet: its payload may be cut short.
    ///
    /// # Errors
    /// [`WireError::Short`] if more bytes are needed to reach the upper-layer header; else as [`IpHeader::parse`].
    #[inline(always)]
    pub fn parse_prefix(b: &[u8]) -> Result<IpHeader, WireError> {
        parse(b, Trust::Prefix)
    }

    /// Reads the IP header of a packet quoted in an ICMP error: cut short, and its IPv4 header checksum is not looked at.
    ///
    /// # Errors
    /// [`WireError::Short`], [`WireError::Ip`].
    #[inline(never)]
    pub fn parse_quoted(b: &[u8]) -> Result<IpHeader, WireError> {
        parse(b, Trust::Quoted)
    }

    /// Length of the upper-layer header and its data.
    #[inline]
    #[must_use]
    pub const fn upper_len(&self) -> usize {
        self.total_len - self.upper_offset
    }

    /// The upper-layer header and data in `packet`, the bytes that this was parsed from: all of it if they were whole.
    #[inline]
    #[must_use]
    pub fn upper_of<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let end = self.total_len.min(packet.len());
        packet.get(self.upper_offset..end).unwrap_or_default()
    }
}

#[inline(always)]
fn parse(b: &[u8], trust: Trust) -> Result<IpHeader, WireError> {
    // Each writes its result where it is wanted: nothing is asked of it here.
    match b.first().map(|first| first >> 4) {
        Some(4) => ipv4::parse(b, trust),
        Some(6) => ipv6::parse(b, trust),
        Some(_) => Err(WireError::Ip),
        None => Err(WireError::Short),
    }
}

/// What goes into a plain IP header of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source address; decides the version together with `dst`.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What follows the header.
    pub protocol: u8,
    /// How many bytes follow the header.
    pub payload_len: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// DSCP << 2 | ECN.
    pub traffic_class: u8,
    /// IPv6 only.
    pub flow_label: u32,
    /// IPv4 only.
    pub dont_fragment: bool,
    /// IPv4 only.
    pub identification: u16,
}

/// Length of a plain header for packets between addresses like this one.
#[inline]
#[must_use]
pub const fn header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => ipv4::MIN_LEN,
        IpAddr::V6(_) => ipv6::LEN,
    }
}

/// Writes a plain header at the start of `out` and gives its length.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if the addresses are of different versions or the packet is too long.
#[inline]
pub fn write_header(out: &mut [u8], f: &Fields) -> Result<usize, WireError> {
    match (f.src, f.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let fields = ipv4::Fields {
                src,
                dst,
                protocol: f.protocol,
                total_len: u16::try_from(ipv4::MIN_LEN + f.payload_len).map_err(|_| WireError::Ip)?,
                ttl: f.hop_limit,
                tos: f.traffic_class,
                identification: f.identification,
                dont_fragment: f.dont_fragment,
            };
            ipv4::write_header(out, &fields).map(|()| ipv4::MIN_LEN)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let fields = ipv6::Fields {
                src,
                dst,
                next_header: f.protocol,
                payload_len: u16::try_from(f.payload_len).map_err(|_| WireError::Ip)?,
                hop_limit: f.hop_limit,
                traffic_class: f.traffic_class,
                flow_label: f.flow_label,
            };
            ipv6::write_header(out, &fields).map(|()| ipv6::LEN)
        }
        _ => Err(WireError::Ip),
    }
}

/// Sets the packet's length, header included, in the header at the start of `b`.
///
/// # Errors
/// [`WireError::Short`]; [`WireError::Ip`] for a length that the header cannot say.
#[inline]
pub fn set_total_len(b: &mut [u8], total_len: usize) -> Result<(), WireError> {
    if version(b)? == 4 {
        let len = u16::try_from(total_len).map_err(|_| WireError::Ip)?;
        ipv4::change_word(b, 2, len)
    } else {
        let len = total_len.checked_sub(ipv6::LEN).and_then(|n| u16::try_from(n).ok()).ok_or(WireError::Ip)?;
        let h = b.first_chunk_mut::<{ ipv6::LEN }>().ok_or(WireError::Short)?;
        h[4..6].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

/// Sets the byte at `upper_field` ([`IpHeader::upper_field`]), which names the upper-layer protocol.
///
/// # Errors
/// [`WireError::Short`]; [`WireError::Ip`] if that byte cannot be such a field.
pub fn set_upper(b: &mut [u8], upper_field: usize, upper: u8) -> Result<(), WireError> {
    if version(b)? == 4 {
        if upper_field != ipv4::PROTOCOL_FIELD {
            return Err(WireError::Ip);
        }
        let ttl = *b.get(8).ok_or(WireError::Short)?;
        ipv4::change_word(b, 8, u16::from_be_bytes([ttl, upper]))
    } else {
        if upper_field != ipv6::NEXT_HEADER_FIELD && upper_field < ipv6::LEN {
            return Err(WireError::Ip);
        }
        *b.get_mut(upper_field).ok_or(WireError::Short)? = upper;
        Ok(())
    }
}

/// Takes one off the TTL or hop limit and gives what is left, which is at least 1.
///
/// # Errors
/// [`WireError::TtlExpired`] if nothing would be left, the packet is unchanged then; [`WireError::Short`], [`WireError::Ip`].
pub fn decrement_ttl(b: &mut [u8]) -> Result<u8, WireError> {
    if version(b)? == 4 {
        let (ttl, protocol) = (*b.get(8).ok_or(WireError::Short)?, *b.get(9).ok_or(WireError::Short)?);
        let left = ttl.checked_sub(1).filter(|n| *n > 0).ok_or(WireError::TtlExpired)?;
        ipv4::change_word(b, 8, u16::from_be_bytes([left, protocol]))?;
        Ok(left)
    } else {
        let hop_limit = b.get_mut(7).ok_or(WireError::Short)?;
        let left = hop_limit.checked_sub(1).filter(|n| *n > 0).ok_or(WireError::TtlExpired)?;
        *hop_limit = left;
        Ok(left)
    }
}

/// Sets DSCP << 2 | ECN.
///
/// # Errors
/// [`WireError::Short`], [`WireError::Ip`].
pub fn set_traffic_class(b: &mut [u8], traffic_class: u8) -> Result<(), WireError> {
    if version(b)? == 4 {
        let first = b[0];
        ipv4::change_word(b, 0, u16::from_be_bytes([first, traffic_class]))
    } else {
        let h = b.first_chunk_mut::<2>().ok_or(WireError::Short)?;
        h[0] = (h[0] & 0xf0) | (traffic_class >> 4);
        h[1] = (h[1] & 0x0f) | (traffic_class << 4);
        Ok(())
    }
}

/// Sets the source address; checksums of the upper layer are the caller's affair.
///
/// # Errors
/// [`WireError::Short`]; [`WireError::Ip`] for an address of the other family.
pub fn set_source(b: &mut [u8], address: IpAddr) -> Result<(), WireError> {
    set_address(b, address, 12, 8)
}

/// Sets the destination address; checksums of the upper layer are the caller's affair.
///
/// # Errors
/// [`WireError::Short`]; [`WireError::Ip`] for an address of the other family.
pub fn set_destination(b: &mut [u8], address: IpAddr) -> Result<(), WireError> {
    set_address(b, address, 16, 24)
}

fn set_address(b: &mut [u8], address: IpAddr, at_v4: usize, at_v6: usize) -> Result<(), WireError> {
    match (version(b)?, address) {
        (4, IpAddr::V4(address)) => {
            let [a, b2, c, d] = address.octets();
            ipv4::change_word(b, at_v4, u16::from_be_bytes([a, b2]))?;
            ipv4::change_word(b, at_v4 + 2, u16::from_be_bytes([c, d]))
        }
        (6, IpAddr::V6(address)) => {
            let h = b.first_chunk_mut::<{ ipv6::LEN }>().ok_or(WireError::Short)?;
            h[at_v6..at_v6 + 16].copy_from_slice(&address.octets());
            Ok(())
        }
        _ => Err(WireError::Ip),
    }
}

#[inline]
fn version(b: &[u8]) -> Result<u8, WireError> {
    match b.first().map(|first| first >> 4) {
        Some(v @ (4 | 6)) => Ok(v),
        Some(_) => Err(WireError::Ip),
        None => Err(WireError::Short),
    }
}

/// The partial sum of the pseudo-header of a packet's upper-layer message, which is whole.
#[must_use]
pub fn pseudo_header(ip: &IpHeader) -> u32 {
    checksum::pseudo_header(ip.src, ip.dst, ip.upper, ip.upper_len())
}
