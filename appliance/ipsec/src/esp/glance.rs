//! A short way to peek and to open, for packets as most are: what [`InboundSa::peek_job`] and [`InboundSa::begin`] find out of any
//! packet, of these in a few steps.

use phalanx_aead::{IV_LEN, PeekOp};
use phalanx_wire::ipv4::{self, Plain};

use super::open::OpenJob;
use super::{HEADER_LEN, TRAILER_LEN};
use crate::sa::InboundSa;

/// Bytes that a glance shows: an IPv4 header and a TCP header without options, in whole blocks.
pub const GLANCE: usize = 48;

/// Offset of the ciphertext in a plain packet.
const TEXT: usize = ipv4::MIN_LEN + HEADER_LEN + IV_LEN;

/// Where the parts of a plain packet are; its IP header is plain too.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    text_len: u16,
}

impl InboundSa {
    /// Whether there is a short way for packets with such a header: of an SA in tunnel mode over IPv4, with the IV in the packet and nothing
    /// around ESP, between the SA's ends.
    #[inline]
    #[must_use]
    pub fn is_plain(&self, outer: &Plain) -> bool {
        let hot = &self.hot;
        hot.rare.is_plain() && hot.remote == outer.src && hot.local == outer.dst
    }

    /// Of a packet of so many bytes that [`InboundSa::is_plain`] is true of and that names this SA. `None` if its length is wrong: the long way
    /// says how.
    #[inline(always)]
    #[must_use]
    pub fn glance(&self, packet_len: usize) -> Option<Glance> {
        let shape = self.hot.shape;
        let text_len = packet_len.checked_sub(TEXT + shape.icv()).filter(|len| *len >= TRAILER_LEN)?;
        (text_len & (shape.alignment() - 1) == 0).then_some(Glance { text_len: text_len as u16 })
    }

    /// What decrypts the packet's first bytes, as many as there are and [`GLANCE`] at most.
    #[inline]
    pub fn glance_op<'a>(&'a self, glance: &Glance, packet: &'a [u8], out: &'a mut [u8; GLANCE]) -> PeekOp<'a> {
        let cipher = &packet[TEXT..][..usize::from(glance.text_len).min(GLANCE)];
        PeekOp { key: self.key(), nonce: self.nonce(packet, TEXT, 0), block: 0, cipher, out }
    }
}

impl Glance {
    /// The packet, waiting for its cipher: what [`InboundSa::begin`] says of it.
    #[inline]
    #[must_use]
    pub fn begin(&self, packet: &[u8], seq: u64) -> OpenJob {
        OpenJob::plain(seq, TEXT, self.text_len, packet[1])
    }

    /// Whether an inner packet of that length could be in it: one that could not is none.
    #[inline]
    #[must_use]
    pub fn holds(&self, len: usize) -> bool {
        len + TRAILER_LEN <= usize::from(self.text_len)
    }
}
