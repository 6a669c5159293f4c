//! IPv6 (RFC 8200) and its extension headers: hop-by-hop, routing, fragment, destination options.

use crate::WireError;
use crate::ethernet::Mac;
use crate::ip::{Fragment, IpHeader, Trust, protocol};
use std::net::{IpAddr, Ipv6Addr};

/// Length of the header without extension headers.
pub const LEN: usize = 40;
/// Offset of the byte that names what follows the header.
pub const NEXT_HEADER_FIELD: usize = 6;
/// Length of the fragment extension header.
pub const FRAGMENT_LEN: usize = 8;
/// More extension headers than this and the packet is malformed: the walk is bounded (I7).
pub const MAX_EXTENSIONS: usize = 8;
/// Every link carries packets of this size (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

#[inline(never)]
pub(crate) fn parse(b: &[u8], trust: Trust) -> Result<IpHeader, WireError> {
    let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
    let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
    let (src, dst) = (address(h, 8), address(h, 24));
    // RFC 4291 §2.7: a group is never a source.
    if first >> 28 != 6 || src.is_multicast() {
        return Err(WireError::Ip);
    }
    let mut ip = IpHeader {
        version: 6,
        src: IpAddr::V6(src),
        dst: IpAddr::V6(dst),
        upper: h[NEXT_HEADER_FIELD],
        upper_offset: LEN,
        upper_field: NEXT_HEADER_FIELD,
        total_len: LEN + usize::from(u16::from_be_bytes([h[4], h[5]])),
        hop_limit: h[7],
        traffic_class: (first >> 20) as u8,
        flow_label: first & 0x000f_ffff,
        dont_fragment: true,
        fragment: None,
        identification: 0,
    };
    if is_extension(ip.upper) {
        walk(b, &mut ip, trust)?;
    }
    trust.whole(b, ip.total_len)?;
    Ok(ip)
}

fn address(h: &[u8; LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&h[at..at + 16]);
    Ipv6Addr::from(octets)
}

const fn is_extension(next: u8) -> bool {
    matches!(next, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION)
}

/// Moves `upper` past the extension headers, at most [`MAX_EXTENSIONS`] of them.
#[cold]
fn walk(b: &[u8], ip: &mut IpHeader, trust: Trust) -> Result<(), WireError> {
    let mut fragmented = false;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(ip.upper) {
            return Ok(());
        }
        let at = ip.upper_offset;
        // Every extension header is at least 8 bytes long.
        let h = bytes_at(b, ip.total_len, at, 8)?;
        let len = match ip.upper {
            // RFC 8200 §4.1: only directly after the IPv6 header.
            protocol::HOP_BY_HOP if at != LEN => return Err(WireError::Ip),
            protocol::FRAGMENT if fragmented => return Err(WireError::Ip),
            protocol::FRAGMENT => FRAGMENT_LEN,
            // RFC 8200 §4.4, RFC 5095: no routing type is understood here, so none with stops ahead is taken.
            protocol::ROUTING if h[3] != 0 && trust != Trust::Quoted => return Err(WireError::Ip),
            _ => (usize::from(h[1]) + 1) * 8,
        };
        bytes_at(b, ip.total_len, at, len)?;
        let is_fragment = ip.upper == protocol::FRAGMENT;
        ip.upper = h[0];
        ip.upper_field = at;
        ip.upper_offset = at + len;
        if is_fragment {
            fragmented = true;
            let word = u16::from_be_bytes([h[2], h[3]]);
            let (offset, more) = (word & 0xfff8, word & 1 == 1);
            // RFC 8200 §4.5: not beyond the longest packet; all but the last in units of 8 bytes.
            let data = ip.total_len - ip.upper_offset;
            if usize::from(offset) + data > 0xffff || (more && !data.is_multiple_of(8)) {
                return Err(WireError::Ip);
            }
            if offset != 0 || more {
                let id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
                ip.fragment = Some(Fragment { offset, more, id });
            }
            if offset != 0 {
                return Ok(()); // what follows is data, whatever it looks like
            }
        }
    }
    if is_extension(ip.upper) { Err(WireError::Ip) } else { Ok(()) }
}

/// `len` bytes at `at`: inside the packet, else malformed; and inside `b`, else short.
fn bytes_at(b: &[u8], total_len: usize, at: usize, len: usize) -> Result<&[u8], WireError> {
    if at + len > total_len {
        return Err(WireError::Ip);
    }
    b.get(at..at + len).ok_or(WireError::Short)
}

/// The fragment header of a packet whose header [`crate::IpHeader`] could read: its offset, and that of the byte that names it.
pub(crate) fn fragment_header(b: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut field) = (LEN, NEXT_HEADER_FIELD);
    for _ in 0..MAX_EXTENSIONS {
        match *b.get(field)? {
            protocol::FRAGMENT => return Some((at, field)),
            next if is_extension(next) => (at, field) = (at + (usize::from(*b.get(at + 1)?) + 1) * 8, at),
            _ => return None,
        }
    }
    None
}

/// Where a fragment header goes into a packet that has none, and the byte that will name it: behind the headers that
/// nodes on the way look at (RFC 8200 §4.5), which a routing header ends, or else hop-by-hop options.
pub(crate) fn unfragmentable(b: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut field) = (LEN, NEXT_HEADER_FIELD);
    let mut end = (at, field);
    for _ in 0..MAX_EXTENSIONS {
        let next = *b.get(field)?;
        if !is_extension(next) || next == protocol::FRAGMENT {
            break;
        }
        (at, field) = (at + (usize::from(*b.get(at + 1)?) + 1) * 8, at);
        if next != protocol::DESTINATION {
            end = (at, field);
        }
    }
    (end.0 <= b.len()).then_some(end)
}

/// What goes into an IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What follows the header.
    pub next_header: u8,
    /// How many bytes follow the header, extension headers included.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
    /// DSCP << 2 | ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
}

/// Writes a header at the start of `out`.
///
/// # Errors
/// [`WireError::NoRoom`].
pub fn write_header(out: &mut [u8], f: &Fields) -> Result<(), WireError> {
    let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
    let first = 6 << 28 | u32::from(f.traffic_class) << 20 | (f.flow_label & 0x000f_ffff);
    h[..4].copy_from_slice(&first.to_be_bytes());
    h[4..6].copy_from_slice(&f.payload_len.to_be_bytes());
    h[NEXT_HEADER_FIELD] = f.next_header;
    h[7] = f.hop_limit;
    h[8..24].copy_from_slice(&f.src.octets());
    h[24..].copy_from_slice(&f.dst.octets());
    Ok(())
}

/// Writes an options header (hop-by-hop or destination) of `len` bytes that holds only padding.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if `len` is not a multiple of 8 from 8 to 2048.
pub fn write_padding_options(out: &mut [u8], next_header: u8, len: usize) -> Result<(), WireError> {
    if !len.is_multiple_of(8) || !(8..=2048).contains(&len) {
        return Err(WireError::Ip);
    }
    let h = out.get_mut(..len).ok_or(WireError::NoRoom)?;
    h.fill(0);
    h[0] = next_header;
    h[1] = (len / 8 - 1) as u8;
    // PadN options (RFC 8200 §4.2): type 1, length, zeros; at most 257 bytes each. What one leaves is at least 2 bytes
    // or filled by Pad1, which is a zero.
    let mut at = 2;
    while len - at >= 2 {
        let option = (len - at).min(257);
        h[at] = 1;
        h[at + 1] = (option - 2) as u8;
        at += option;
    }
    Ok(())
}

/// Writes a fragment header.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if the offset is not a multiple of 8.
pub fn write_fragment(out: &mut [u8], next_header: u8, f: &Fragment) -> Result<(), WireError> {
    if !f.offset.is_multiple_of(8) {
        return Err(WireError::Ip);
    }
    let h = out.first_chunk_mut::<FRAGMENT_LEN>().ok_or(WireError::NoRoom)?;
    h[0] = next_header;
    h[1] = 0;
    h[2..4].copy_from_slice(&(f.offset | u16::from(f.more)).to_be_bytes());
    h[4..].copy_from_slice(&f.id.to_be_bytes());
    Ok(())
}

/// The solicited-node multicast address of `address` (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

/// The Ethernet address of the solicited-node group of `address` (RFC 2464 §7).
#[must_use]
pub fn solicited_node_mac(address: Ipv6Addr) -> Mac {
    let o = address.octets();
    Mac([0x33, 0x33, 0xff, o[13], o[14], o[15]])
}
