//! AH (RFC 4302): integrity of a packet and of the headers in front of it, nothing is encrypted.
//!
//! ```text
//! tunnel     | outer IP      | next, length, SPI, number | ICV | padding | inner IP packet ......... |
//! transport  | IP, ext. hdrs | next, length, SPI, number | ICV | padding | upper-layer header, data  |
//!            '-- immutable --'------------ 12 ----------'- as 0 -'-------- as it is ----------------'-- high half of the number
//! ```
//!
//! Beside ESP it is rare: its packets leave ESP's stages at their beginning and come back at their end. The integrity check is made
//! at once, in [`InboundSa::begin`](crate::InboundSa::begin) and [`OutboundSa::begin`](crate::OutboundSa::begin), and there is no
//! operation for a burst.

pub(crate) mod around;
pub(crate) mod open;
pub(crate) mod seal;

use phalanx_aead::{Algorithm, Icv, Key};
use phalanx_wire::{DropReason, Immutable, IpHeader, ah};

use crate::esp::Shape;
use crate::sa::Constants;

/// The longest AH: HMAC-SHA2-512-256 over IPv6.
pub(crate) const MAX_LEN: usize = ah::header_len(Icv::MAX, true);

/// Bytes of an authentication header of that algorithm, of an SA over IPv6 or not; 0 for one of ESP.
#[must_use]
pub const fn header_len(algorithm: Algorithm, v6: bool) -> usize {
    if algorithm.is_ah() { ah::header_len(field_len(algorithm), v6) } else { 0 }
}

/// Of an SA's packets.
pub(crate) const fn shape(algorithm: Algorithm, v6: bool) -> Shape {
    Shape::ah(ah::header_len(field_len(algorithm), v6))
}

/// Bytes of the field of the ICV, which with GMAC begins with the IV (RFC 4543 §4).
pub(crate) const fn field_len(algorithm: Algorithm) -> usize {
    algorithm.iv_len() + algorithm.icv_len()
}

/// Where AH is in a packet.
#[derive(Clone, Copy)]
struct Place<'a> {
    packet: &'a [u8],
    ip: &'a IpHeader,
    header_len: usize,
}

/// The ICV of a packet (RFC 4302 §3.3.3.2): headers, AH with the ICV as zero, what follows, and of a number of 64 bits the half that
/// is not sent.
fn icv(hot: &Constants, key: &Key, seq: u64, iv: [u8; 8], place: Place<'_>) -> Result<Icv, DropReason> {
    let Place { packet, ip, header_len } = place;
    let field = field_len(key.algorithm());
    let key = key.integrity().ok_or(DropReason::BadAh)?;
    let headers = Immutable::of(ip, packet)?;
    let behind = packet.get(ip.upper_offset..ip.total_len).ok_or(DropReason::Runt)?;
    let (fixed, rest) = behind.split_first_chunk::<{ ah::FIXED_LEN }>().ok_or(DropReason::Runt)?;
    if header_len < ah::FIXED_LEN + field || behind.len() < header_len {
        return Err(DropReason::BadAh);
    }
    let mut mac = key.begin(&crate::esp::nonce(hot.salt, iv));
    mac.update(headers.bytes());
    mac.update(fixed);
    mac.update(&[0; MAX_LEN][..field]);
    // RFC 4302 §3.3.3.2.1: padding is part of it, whatever it is.
    mac.update(&rest[field..]);
    if hot.esn {
        mac.update(&((seq >> 32) as u32).to_be_bytes());
    }
    Ok(mac.finish())
}
