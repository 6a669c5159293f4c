//! A packet's headers as AH's integrity check sees them (RFC 4302 §3.3.3.1, appendix A): what may change on the way counts as zero,
//! what changes in a way that the sender can tell counts as what it will be.
//!
//! On a copy of bounded size: the packet stays as it is, and nothing is allocated.

use crate::{IpHeader, WireError, ipv4, ipv6, protocol};

/// In the type of an IPv6 option: its data may change on the way (RFC 8200 §4.2).
const MAY_CHANGE: u8 = 0x20;

/// The headers in front of AH.
#[derive(Clone)]
pub struct Immutable {
    bytes: [u8; Immutable::MAX],
    len: usize,
}

impl Immutable {
    /// More in front of AH than this and the packet is refused.
    pub const MAX: usize = 512;

    /// Of the packet in `packet`, whose header `ip` is: all that stands in front of `ip.upper_offset`.
    ///
    /// # Errors
    /// [`WireError::Ip`] for options that are malformed or more than [`Immutable::MAX`]; [`WireError::Fragment`] for a fragment
    /// header: AH is made for, and checked on, whole packets (RFC 4302 §3.3.4, §3.4.1).
    pub fn of(ip: &IpHeader, packet: &[u8]) -> Result<Immutable, WireError> {
        let headers = packet.get(..ip.upper_offset).ok_or(WireError::Short)?;
        let mut copy = Immutable { bytes: [0; Immutable::MAX], len: headers.len() };
        copy.bytes.get_mut(..headers.len()).ok_or(WireError::Ip)?.copy_from_slice(headers);
        let headers = &mut copy.bytes[..headers.len()];
        if ip.version == 4 {
            v4(headers)?;
        } else {
            v6(headers)?;
        }
        Ok(copy)
    }

    /// What the integrity check value is made over.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// RFC 4302 §3.3.3.1.1.1: TOS, flags, fragment offset, TTL and checksum are mutable.
fn v4(headers: &mut [u8]) -> Result<(), WireError> {
    let (fixed, options) = headers.split_first_chunk_mut::<{ ipv4::MIN_LEN }>().ok_or(WireError::Short)?;
    fixed[1] = 0;
    fixed[6..9].fill(0);
    fixed[10..12].fill(0);
    if let Some(last) = v4_options(options)? {
        fixed[16..20].copy_from_slice(&last);
    }
    Ok(())
}

/// RFC 4302 §A.1: an option is taken whole, or zeroed whole, as what is not listed there. Gives the last stop of a source route
/// that has stops left: the destination is mutable, but it will be that one.
fn v4_options(options: &mut [u8]) -> Result<Option<[u8; 4]>, WireError> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    // Security, extended and commercial security, router alert, sender directed multi-destination delivery.
    const IMMUTABLE: [u8; 5] = [130, 133, 134, 148, 149];
    let (mut at, mut last) = (0, None);
    while let Some(&kind) = options.get(at) {
        match kind {
            END => break,
            NOTHING => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = options.get(at + 1).map_or(0, |len| usize::from(*len));
        let option = options.get_mut(at..at + len).filter(|option| option.len() >= 2).ok_or(WireError::Ip)?;
        if matches!(kind, LOOSE_ROUTE | STRICT_ROUTE) {
            // RFC 791 §3.1: the pointer, from 4, is beyond the option once the route is used up.
            let pointer = usize::from(*option.get(2).ok_or(WireError::Ip)?);
            if pointer <= len {
                last = Some(*option.last_chunk::<4>().filter(|_| len >= 7).ok_or(WireError::Ip)?);
            }
        }
        if !IMMUTABLE.contains(&kind) {
            option.fill(0);
        }
        at += len;
    }
    Ok(last)
}

/// RFC 4302 §3.3.3.1.2: class, flow label and hop limit are mutable; the extension headers have options that say so of themselves.
fn v6(headers: &mut [u8]) -> Result<(), WireError> {
    let (fixed, extensions) = headers.split_first_chunk_mut::<{ ipv6::LEN }>().ok_or(WireError::Short)?;
    fixed[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    fixed[7] = 0;
    let (mut next, mut at) = (fixed[ipv6::NEXT_HEADER_FIELD], 0);
    while at < extensions.len() {
        let len = extensions.get(at + 1).map_or(0, |len| (usize::from(*len) + 1) * 8);
        let header = extensions.get_mut(at..at + len).filter(|header| !header.is_empty()).ok_or(WireError::Ip)?;
        match next {
            protocol::HOP_BY_HOP | protocol::DESTINATION => v6_options(&mut header[2..])?,
            protocol::ROUTING => routing(fixed, header)?,
            protocol::FRAGMENT => return Err(WireError::Fragment),
            _ => return Err(WireError::Ip),
        }
        (next, at) = (header[0], at + len);
    }
    Ok(())
}

/// RFC 4302 §A.2: type and length of a mutable option stay, its data is zeroed.
fn v6_options(options: &mut [u8]) -> Result<(), WireError> {
    const PAD_1: u8 = 0;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == PAD_1 {
            at += 1;
            continue;
        }
        let len = usize::from(*options.get(at + 1).ok_or(WireError::Ip)?);
        let data = options.get_mut(at + 2..at + 2 + len).ok_or(WireError::Ip)?;
        if kind & MAY_CHANGE != 0 {
            data.fill(0);
        }
        at += 2 + len;
    }
    Ok(())
}

/// A routing header as it arrives (RFC 4302 §3.3.3.1.2.2): no stops left, the last one the destination, and each stop where the one
/// before it was, as every stop on the way exchanges its own address for the destination (RFC 2460 §4.4).
fn routing(fixed: &mut [u8; ipv6::LEN], header: &mut [u8]) -> Result<(), WireError> {
    const LIST: usize = 8;
    const DESTINATION: usize = 24;
    let left = usize::from(header[3]);
    if left == 0 {
        return Ok(());
    }
    // Only types 0 and 2 (RFC 6275 §6.4) are lists of addresses; what others become nobody can tell here.
    let list = header.len() - LIST;
    if !matches!(header[2], 0 | 2) || !list.is_multiple_of(16) || left > list / 16 {
        return Err(WireError::Ip);
    }
    header[3] = 0;
    let to_come = &mut header[LIST + list - 16 * left..];
    // The destination comes to stand first, the last stop is the destination.
    for stop in to_come.chunks_exact_mut(16) {
        fixed[DESTINATION..DESTINATION + 16].swap_with_slice(stop);
    }
    Ok(())
}
