//! IPv4 (RFC 791), options included.

use crate::ip::{Fragment, IpHeader, Trust};
use crate::{WireError, checksum};
use std::net::{IpAddr, Ipv4Addr};

/// Length of the header without options.
pub const MIN_LEN: usize = 20;
/// Length of the header with all the options that fit.
pub const MAX_LEN: usize = 60;
/// Offset of the byte that names the upper-layer protocol.
pub const PROTOCOL_FIELD: usize = 9;

const DONT_FRAGMENT: u16 = 0x4000;
/// First byte of the lowest address that is no host's (RFC 1112 §4).
const FIRST_MULTICAST: u8 = 224;
const MORE_FRAGMENTS: u16 = 0x2000;

#[inline(always)]
pub(crate) fn parse(b: &[u8], trust: Trust) -> Result<IpHeader, WireError> {
    let h = b.first_chunk::<MIN_LEN>().ok_or(WireError::Short)?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] >> 4 != 4 || header_len < MIN_LEN || total_len < header_len {
        return Err(WireError::Ip);
    }
    let sum = if header_len == MIN_LEN {
        checksum::plain_header(h)
    } else {
        checksum::internet(b.get(..header_len).ok_or(WireError::Short)?)
    };
    if trust != Trust::Quoted && sum != 0 {
        return Err(WireError::Checksum);
    }
    let src = Ipv4Addr::new(h[12], h[13], h[14], h[15]);
    // RFC 1122 §3.2.1.3: neither is ever a source.
    if src.is_multicast() || src.is_broadcast() {
        return Err(WireError::Ip);
    }
    let flags = u16::from_be_bytes([h[6], h[7]]);
    let identification = u16::from_be_bytes([h[4], h[5]]);
    let offset = (flags & 0x1fff) << 3;
    let more = flags & MORE_FRAGMENTS != 0;
    // A fragment that ends beyond the longest packet there can be is an attack on reassembly.
    if trust != Trust::Quoted && usize::from(offset) + total_len > 0xffff {
        return Err(WireError::Ip);
    }
    trust.whole(b, total_len)?;
    let fragment = (more || offset != 0).then_some(Fragment { offset, more, id: u32::from(identification) });
    Ok(IpHeader {
        version: 4,
        src: IpAddr::V4(src),
        dst: IpAddr::V4(Ipv4Addr::new(h[16], h[17], h[18], h[19])),
        upper: h[PROTOCOL_FIELD],
        upper_offset: header_len,
        upper_field: PROTOCOL_FIELD,
        total_len,
        hop_limit: h[8],
        traffic_class: h[1],
        flow_label: 0,
        dont_fragment: flags & DONT_FRAGMENT != 0,
        fragment,
        identification,
    })
}

/// The header of a packet as most are: whole, without options, its checksum right. For a shorter way that these take;
/// [`IpHeader::parse`] is for all, and says what is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source address: a host's.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// What follows.
    pub protocol: u8,
    /// Length of the packet, header included; there may be fewer bytes in sight.
    pub total_len: usize,
}

impl Plain {
    /// Reads the header at the start of `b`, if it is such a one.
    #[inline(always)]
    #[must_use]
    pub fn of(b: &[u8]) -> Option<Plain> {
        let (h, total_len) = (b.first_chunk::<MIN_LEN>()?, plain_len(b)?);
        let fragment = u16::from_be_bytes([h[6], h[7]]) & (MORE_FRAGMENTS | 0x1fff);
        let plain = h[0] == 0x45 && fragment == 0 && h[12] < FIRST_MULTICAST;
        plain.then(|| Plain {
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
            protocol: h[PROTOCOL_FIELD],
            total_len,
        })
    }
}

/// What is left to look at of a header that is like one of [`Plain`] but for length, identification and checksum: the length of its packet,
/// header included, if both may be.
#[inline(always)]
#[must_use]
pub fn plain_len(b: &[u8]) -> Option<usize> {
    let h = b.first_chunk::<MIN_LEN>()?;
    let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
    (total_len >= MIN_LEN && checksum::is_right(h)).then_some(total_len)
}

/// The length of a packet, header included, as its header says. Nothing else is looked at.
#[inline(always)]
#[must_use]
pub fn total_len(b: &[u8]) -> Option<usize> {
    let h = b.first_chunk::<MIN_LEN>()?;
    Some(usize::from(u16::from_be_bytes([h[2], h[3]])))
}

/// What goes into an IPv4 header of a whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// What follows.
    pub protocol: u8,
    /// Length of the packet, header included.
    pub total_len: u16,
    /// Time to live.
    pub ttl: u8,
    /// DSCP << 2 | ECN.
    pub tos: u8,
    /// Identification.
    pub identification: u16,
    /// Routers may not fragment it.
    pub dont_fragment: bool,
}

/// What a header says of whether routers may fragment the packet.
#[inline]
#[must_use]
pub fn dont_fragment(header: &[u8; MIN_LEN]) -> bool {
    u16::from_be_bytes([header[6], header[7]]) & DONT_FRAGMENT != 0
}

/// Writes a header without options, checksum included, at the start of `out`.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if `total_len` does not cover the header.
#[inline(always)]
pub fn write_header(out: &mut [u8], f: &Fields) -> Result<(), WireError> {
    let h = out.first_chunk_mut::<MIN_LEN>().ok_or(WireError::NoRoom)?;
    if usize::from(f.total_len) < MIN_LEN {
        return Err(WireError::Ip);
    }
    // Summed up before it is written: bytes that were just written are slow to read by more at a time.
    let mut words = f.words(MIN_LEN);
    words[2] |= u32::from(checksum::of_words(words));
    put(h, words);
    Ok(())
}

impl Fields {
    /// All but the checksum.
    #[inline(always)]
    fn words(&self, header_len: usize) -> [u32; MIN_LEN / 4] {
        let [tos, len, id, ttl, proto] =
            [self.tos.into(), self.total_len, self.identification, self.ttl.into(), self.protocol.into()]
                .map(u32::from);
        let version = 0x40 | (header_len as u32 / 4);
        let flags = u32::from(if self.dont_fragment { DONT_FRAGMENT } else { 0 });
        let addresses = [self.src, self.dst].map(Ipv4Addr::to_bits);
        [version << 24 | tos << 16 | len, id << 16 | flags, ttl << 24 | proto << 16, addresses[0], addresses[1]]
    }
}

#[inline(always)]
fn put(h: &mut [u8; MIN_LEN], words: [u32; MIN_LEN / 4]) {
    for (to, word) in h.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_be_bytes();
    }
}

/// Of headers without options that differ in their lengths and identifications only: the sum of all else.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    sum: u32,
}

impl Template {
    /// Of headers like this one.
    #[must_use]
    pub fn of(header: &[u8; MIN_LEN]) -> Template {
        let mut rest = *header;
        rest[2..6].fill(0);
        rest[10..12].fill(0);
        Template { sum: checksum::partial(&rest) }
    }

    /// Of headers of these fields, and writes one; what they say of length and identification does not matter.
    #[inline(always)]
    pub fn write(header: &mut [u8; MIN_LEN], fields: &Fields) -> Template {
        let words = Fields { total_len: 0, identification: 0, ..*fields }.words(MIN_LEN);
        put(header, words);
        Template { sum: words.iter().map(|word| (word >> 16) + (word & 0xffff)).sum() }
    }

    /// Makes a copy of such a header that of a packet of so many bytes, header included.
    #[inline(always)]
    pub fn set(self, header: &mut [u8; MIN_LEN], total_len: u16, identification: u16) {
        let sum = checksum::finish(self.sum + u32::from(total_len) + u32::from(identification));
        let [a, b] = total_len.to_be_bytes();
        let [c, d] = identification.to_be_bytes();
        header[2..6].copy_from_slice(&[a, b, c, d]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Writes a header with options, which are a multiple of 4 bytes long and at most 40, and gives its length.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if `total_len` does not cover the header or the options have another length.
pub fn write_header_with_options(out: &mut [u8], f: &Fields, options: &[u8]) -> Result<usize, WireError> {
    let len = MIN_LEN + options.len();
    if !len.is_multiple_of(4) || len > MAX_LEN || usize::from(f.total_len) < len {
        return Err(WireError::Ip);
    }
    let header = out.get_mut(..len).ok_or(WireError::NoRoom)?;
    let (fixed, rest) = header.split_first_chunk_mut().ok_or(WireError::NoRoom)?;
    put(fixed, f.words(len));
    rest.copy_from_slice(options);
    set_checksum(header);
    Ok(len)
}

/// Makes the header at the start of `b` that of a fragment; `offset` in bytes, a multiple of 8.
///
/// # Errors
/// [`WireError::Short`]; [`WireError::Ip`] for another offset.
pub fn set_fragment(b: &mut [u8], offset: u16, more: bool) -> Result<(), WireError> {
    if !offset.is_multiple_of(8) {
        return Err(WireError::Ip);
    }
    let old = b.get(6..8).ok_or(WireError::Short)?;
    let keep = u16::from_be_bytes([old[0], old[1]]) & !(MORE_FRAGMENTS | 0x1fff);
    let more = if more { MORE_FRAGMENTS } else { 0 };
    change_word(b, 6, keep | more | (offset >> 3))
}

/// In fragments other than the first: options that are not copied into them (RFC 791 §3.1) become padding.
pub(crate) fn blank_options(header: &mut [u8]) {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = MIN_LEN;
    while let Some(&kind) = header.get(at).filter(|kind| **kind != END) {
        let len = if kind == NOTHING { 1 } else { header.get(at + 1).map_or(1, |len| usize::from(*len).max(2)) };
        let end = (at + len).min(header.len());
        if kind & COPIED == 0 {
            header[at..end].fill(NOTHING);
        }
        at = end;
    }
    if header.len() > MIN_LEN {
        set_checksum(header);
    }
}

fn set_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Changes one 16-bit word of the header and its checksum with it (RFC 1624).
#[inline]
pub(crate) fn change_word(b: &mut [u8], at: usize, new: u16) -> Result<(), WireError> {
    let h = b.first_chunk_mut::<MIN_LEN>().ok_or(WireError::Short)?;
    let old = u16::from_be_bytes([h[at], h[at + 1]]);
    let sum = u16::from_be_bytes([h[10], h[11]]);
    h[at..at + 2].copy_from_slice(&new.to_be_bytes());
    h[10..12].copy_from_slice(&checksum::update16(sum, old, new).to_be_bytes());
    Ok(())
}
