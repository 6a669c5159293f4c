//! The peek (R9): the router decrypts just so much of a packet that it sees the connection, and believes nothing of it.
//!
//! Counter mode lets any block be decrypted alone, and AES-CBC any block with the one before it or the IV. Clear text (AES-GMAC, NULL)
//! is read as it is. In tunnel mode the inner packet's first bytes tell everything. In transport mode the protocol stands in the
//! trailer, so the last block is decrypted too. Where IPv6 extension headers push the TCP header out of the first bytes, a second round
//! decrypts more.

use phalanx_aead::{Key, NONCE_LEN, PeekOp, peek_burst};
use phalanx_wire::{DropReason, IpHeader, WireError, ip, protocol};
use std::net::IpAddr;

use super::open::Located;
use super::{BLOCK, TRAILER_LEN};
use crate::sa::InboundSa;

/// Bytes of ciphertext that the first round decrypts: an IPv6 header, a TCP header with all its options, and some.
pub const FIRST_PEEK: usize = 128;
/// Bytes that a peek can hold, the clear headers of transport mode included.
pub const MAX_PEEK: usize = 512;
/// A peek that can be had whole is made so: the TCP header without options.
const UPPER_LEN: usize = 20;

/// The first bytes of a packet as they may be, if it is genuine: *not authenticated*. For looking up a connection, and
/// nothing that lasts (I5).
#[derive(Clone)]
pub struct Peeked {
    bytes: [u8; MAX_PEEK],
    /// What stands in `bytes` by now.
    len: usize,
    /// The ciphertext's last block.
    last: [u8; BLOCK],
}

/// What to decrypt of one packet.
#[derive(Clone, Copy, Debug)]
pub struct PeekJob {
    nonce: [u8; NONCE_LEN],
    /// Offset of the ciphertext in the packet.
    start: u16,
    text_len: u16,
    /// Bytes before a block that are needed to decrypt it: AES-CBC's.
    lead: u16,
    /// Bytes of clear header in front of the plaintext; transport mode.
    clear: u16,
    field: u16,
    /// How many bytes of the plaintext to have.
    wanted: u16,
    /// Transport mode in UDP: the source address that is shown inside.
    shown: Option<IpAddr>,
}

/// What a round of peeking came to.
#[derive(Debug)]
pub enum Peek {
    /// The upper-layer header is in sight.
    Ready(IpHeader),
    /// Extension headers hide it: another round.
    More(PeekJob),
}

impl InboundSa {
    /// What to decrypt in order to see the packet's connection. The window is not touched.
    ///
    /// `seq` is what a cipher with an implicit IV (RFC 8750) makes its nonce from.
    ///
    /// # Errors
    /// Those of [`InboundSa::begin`]; `UnsupportedProtocol` for clear headers that leave no room for a peek.
    #[inline]
    pub fn peek_job(&self, packet: &[u8], ip: &IpHeader, seq: u64) -> Result<PeekJob, DropReason> {
        let Located { start, text_len, .. } = self.locate(packet, ip)?;
        let nonce = self.nonce(packet, start, seq);
        let clear = if self.hot.tunnel { 0 } else { ip.upper_offset };
        if clear > MAX_PEEK - FIRST_PEEK {
            return Err(DropReason::UnsupportedProtocol);
        }
        let lead = self.hot.shape.lead();
        let shown = (self.hot.encap && !self.hot.tunnel).then(|| self.params.shown());
        let wanted = text_len.min(FIRST_PEEK);
        // `locate` saw to it that no offset is longer.
        let [start, text_len, lead, clear, field, wanted] =
            [start, text_len, lead, clear, ip.upper_field, wanted].map(|offset| offset as u16);
        Ok(PeekJob { nonce, start, text_len, lead, clear, field, wanted, shown })
    }

    /// All rounds for one packet.
    ///
    /// # Errors
    /// Those of [`InboundSa::peek_job`] and [`PeekJob::read`].
    pub fn peek(&self, packet: &[u8], ip: &IpHeader, seq: u64, into: &mut Peeked) -> Result<IpHeader, DropReason> {
        if self.hot.shape.is_ah() {
            return self.show(packet, ip, into);
        }
        let mut job = self.peek_job(packet, ip, seq)?;
        loop {
            job.ops(self.key(), packet, into, |op| peek_burst(&mut [op]));
            match job.read(into)? {
                Peek::Ready(header) => return Ok(header),
                Peek::More(next) => job = next,
            }
        }
    }
}

impl PeekJob {
    /// For a packet in which AH stands between this IP header and ESP: it is left out of what is shown.
    pub(crate) fn without_ah(self, ip: &IpHeader) -> PeekJob {
        if self.clear == 0 {
            return self;
        }
        // Shorter than the one it has.
        let [clear, field] = [ip.upper_offset, ip.upper_field].map(|offset| offset as u16);
        PeekJob { clear, field, ..self }
    }

    /// The operations for `peek_burst`: the first bytes, and the last block in transport mode.
    #[inline]
    pub fn ops<'a>(&self, key: &'a Key, packet: &'a [u8], into: &'a mut Peeked, mut each: impl FnMut(PeekOp<'a>)) {
        let PeekJob { nonce, start, .. } = *self;
        let [start, text_len, lead, wanted] = [start, self.text_len, self.lead, self.wanted].map(usize::from);
        // Any block stands behind `lead` bytes here.
        let text = &packet[start - lead..start + text_len];
        let (clear, plain) = into.bytes.split_at_mut(usize::from(self.clear));
        into.len = clear.len() + wanted;
        each(PeekOp { key, nonce, block: 0, cipher: &text[..lead + wanted], out: &mut plain[..wanted] });
        if !clear.is_empty() {
            clear.copy_from_slice(&packet[..clear.len()]);
            let block = (text_len - 1) / BLOCK;
            let cipher = &text[block * BLOCK..];
            each(PeekOp { key, nonce, block: block as u32, cipher, out: &mut into.last[..cipher.len() - lead] });
        }
    }

    /// Reads what the operations decrypted.
    ///
    /// # Errors
    /// `BadInner`, `BadNextHeader`, `BadPadding`: what is there is no packet, so the ICV would not be good either, or
    /// the peer sends rubbish.
    #[inline]
    pub fn read(&self, peeked: &mut Peeked) -> Result<Peek, DropReason> {
        if self.clear > 0 {
            self.complete_header(peeked)?;
        }
        let whole = self.wanted == self.text_len;
        // Whole blocks: AES-CBC has no others.
        let more = self.text_len.min((MAX_PEEK as u16 - self.clear) / BLOCK as u16 * BLOCK as u16);
        let header = match IpHeader::parse_prefix(peeked.bytes()) {
            Ok(header) => header,
            Err(WireError::Short) if !whole && more > self.wanted => {
                return Ok(Peek::More(PeekJob { wanted: more, ..*self }));
            }
            Err(_) => return Err(DropReason::BadInner),
        };
        let hidden = header.upper_offset + UPPER_LEN > peeked.len;
        if hidden && !whole && more > self.wanted {
            return Ok(Peek::More(PeekJob { wanted: more, ..*self }));
        }
        // Of the whole packet in sight, the inner part must be what its header says; a prefix cannot tell.
        if self.clear == 0 && header.total_len > usize::from(self.text_len) - TRAILER_LEN {
            return Err(DropReason::BadInner);
        }
        Ok(Peek::Ready(header))
    }

    /// Transport mode: the clear header gets the protocol and length that it would have after opening.
    fn complete_header(&self, peeked: &mut Peeked) -> Result<(), DropReason> {
        let (clear, text_len) = (usize::from(self.clear), usize::from(self.text_len));
        let last_len = (text_len - 1) % BLOCK + 1;
        let [pad, next_header] = *peeked.last[..last_len].last_chunk().ok_or(DropReason::BadPadding)?;
        let payload = (text_len - TRAILER_LEN).checked_sub(usize::from(pad)).ok_or(DropReason::BadPadding)?;
        if next_header == protocol::NO_NEXT {
            return Err(DropReason::BadNextHeader);
        }
        let bytes = &mut peeked.bytes[..];
        ip::set_upper(bytes, usize::from(self.field), next_header).map_err(|_| DropReason::BadInner)?;
        ip::set_total_len(bytes, clear + payload).map_err(|_| DropReason::BadInner)?;
        if let Some(shown) = self.shown {
            ip::set_source(bytes, shown)?;
        }
        peeked.len = peeked.len.min(clear + payload);
        Ok(())
    }
}

impl Peeked {
    /// Room for a peek.
    #[must_use]
    pub const fn empty() -> Peeked {
        Peeked { bytes: [0; MAX_PEEK], len: 0, last: [0; BLOCK] }
    }

    /// What needs no decryption: headers, and of what follows as much as there is room for.
    pub(crate) fn fill(&mut self, headers: &[u8], rest: &[u8]) {
        let (front, behind) = self.bytes.split_at_mut(headers.len().min(MAX_PEEK));
        front.copy_from_slice(&headers[..front.len()]);
        let len = rest.len().min(behind.len());
        behind[..len].copy_from_slice(&rest[..len]);
        self.len = front.len() + len;
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The packet's first bytes, from its (inner) IP header on.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What is in sight of the upper-layer header and data.
    #[inline]
    #[must_use]
    pub fn upper(&self, header: &IpHeader) -> &[u8] {
        header.upper_of(self.bytes())
    }
}

impl Default for Peeked {
    fn default() -> Peeked {
        Peeked::empty()
    }
}

/// Shows no plaintext.
impl std::fmt::Debug for Peeked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peeked({} bytes)", self.len)
    }
}

const _: () = assert!(FIRST_PEEK.is_multiple_of(BLOCK));
