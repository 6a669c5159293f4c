//! The internet checksum (RFC 1071), whole and incremental (RFC 1624).
//!
//! A *partial* sum is an `u32` that is not yet complemented; partial sums of even-length pieces add up.

use std::net::IpAddr;

/// The partial sum of `data`, taken as big-endian 16-bit words; an odd last byte is padded with zero.
#[must_use]
pub fn partial(data: &[u8]) -> u32 {
    let (words, rest) = data.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|w| u64::from(u32::from_be_bytes(*w))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    u32::from(fold(narrow(sum)))
}

/// 2^16 = 1 in one's complement arithmetic, so wider words fold into narrower ones (RFC 1071 §2).
#[inline]
const fn narrow(mut sum: u64) -> u32 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum >> 16) as u32 + (sum & 0xffff) as u32
}

/// As [`internet`], of an IPv4 header without options: each packet has several.
#[inline(always)]
#[must_use]
pub fn plain_header(header: &[u8; crate::ipv4::MIN_LEN]) -> u16 {
    u16::from_be(finish(narrow(sum_as_it_stands(header))))
}

/// Of words as this machine reads them: the sum of swapped words is the swapped sum (RFC 1071 §2 B).
#[inline(always)]
fn sum_as_it_stands(header: &[u8; crate::ipv4::MIN_LEN]) -> u64 {
    let word = |at: usize| u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    word(0) + word(4) + word(8) + word(12) + word(16)
}

/// Whether [`plain_header`] says 0, in fewer steps.
#[inline(always)]
#[must_use]
pub fn is_right(header: &[u8; crate::ipv4::MIN_LEN]) -> bool {
    let sum = sum_as_it_stands(header);
    // Folding keeps what is left modulo 2^16 - 1, and makes 0 of nothing but 0.
    sum != 0 && sum.is_multiple_of(0xffff)
}

/// As [`plain_header`], of one that is not written yet.
#[inline(always)]
#[must_use]
pub fn of_words([a, b, c, d, e]: [u32; crate::ipv4::MIN_LEN / 4]) -> u16 {
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    finish(halves(a) + halves(b) + halves(c) + halves(d) + halves(e))
}

/// Adds partial sums; does not overflow.
#[must_use]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// Folds a partial sum into 16 bits, not complemented.
#[inline]
#[must_use]
pub const fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field for a partial sum.
#[inline]
#[must_use]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The internet checksum of `data`: with the checksum field inside as zero, the value for the field;
/// with the right value inside, zero.
#[must_use]
pub fn internet(data: &[u8]) -> u16 {
    finish(partial(data))
}

/// The partial sum of the pseudo-header that TCP, UDP and ICMPv6 are summed with (RFC 9293 §3.1, RFC 8200 §8.1).
/// `len` is the length of the upper-layer header and its data.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u32 {
    let addresses = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => add(partial(&s.octets()), partial(&d.octets())),
        (s, d) => add(partial(&v6_octets(s)), partial(&v6_octets(d))),
    };
    let len = len as u32;
    add(add(addresses, u32::from(protocol)), (len >> 16) + (len & 0xffff))
}

fn v6_octets(a: IpAddr) -> [u8; 16] {
    match a {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// The checksum of an upper-layer message under its pseudo-header; zero if the right one is already inside.
#[must_use]
pub fn upper(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    finish(add(pseudo_header(src, dst, protocol, message.len()), partial(message)))
}

/// The checksum after a 16-bit word that it covers changed from `old` to `new`.
#[inline]
#[must_use]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    // RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m').
    finish(!checksum as u32 + !old as u32 + new as u32)
}

/// The checksum after a 32-bit word that it covers, at an even offset, changed from `old` to `new`.
#[must_use]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    let high = update16(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update16(high, old as u16, new as u16)
}
