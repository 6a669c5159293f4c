//! ESP (RFC 4303): what sealing and opening have in common.
//!
//! ```text
//! tunnel     | outer IP      | SPI, number | IV | inner IP packet ......... | padding, length, next header | ICV |
//! transport  | IP, ext. hdrs | SPI, number | IV | upper-layer header, data  | padding, length, next header | ICV |
//!                            '--- 8 -------'-*--'------------------- encrypted --------------------------'-- * --'
//! ```
//!
//! How long IV and ICV are and what the encrypted part is a multiple of is the algorithm's: 8, 16 and 4 bytes for AES-GCM (RFC 4106).

pub(crate) mod ecn;
pub(crate) mod glance;
pub(crate) mod open;
pub(crate) mod peek;
pub(crate) mod seal;

use phalanx_aead::{Aad, Algorithm, IV_LEN, NONCE_LEN, SALT_LEN, TAG_LEN};
use phalanx_wire::Spi;

/// SPI and low half of the number. RFC 4303 §2.
pub(crate) const HEADER_LEN: usize = 8;
/// Padding length and next header. RFC 4303 §2.4, §2.6.
pub(crate) const TRAILER_LEN: usize = 2;
/// AES's, and with it the longest IV: that of AES-CBC.
pub(crate) const BLOCK: usize = 16;
/// The longest padding, ours being no longer than needed.
const MAX_PAD: usize = BLOCK - 1;
/// The longest ICV: HMAC-SHA-512-256 (RFC 4868 §2.6).
const MAX_ICV: usize = 32;

/// The most that sealing adds in front of a packet: an IPv6 header, AH, ESP header and IV.
pub const MAX_FRONT: usize = 40 + crate::ah::MAX_LEN + HEADER_LEN + BLOCK;
const _: () = assert!(crate::ah::MAX_LEN >= phalanx_wire::natt::LEN + HEADER_LEN + BLOCK);
/// The most that sealing adds behind a packet: padding, trailer, ICV.
pub const MAX_BACK: usize = MAX_PAD + TRAILER_LEN + MAX_ICV;

/// What an algorithm asks of its packets, in the two bytes that an SA's cache line has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Of AH, the whole header.
    front: u8,
    /// 0 for AH.
    icv: u8,
}

impl Shape {
    /// Of an SA over IPv6 or not.
    pub(crate) const fn of(algorithm: Algorithm, v6: bool) -> Shape {
        if algorithm.is_ah() { crate::ah::shape(algorithm, v6) } else { Shape::of_esp(algorithm) }
    }

    /// AH of so many bytes.
    pub(crate) const fn ah(len: usize) -> Shape {
        Shape { front: len as u8, icv: 0 }
    }

    const fn of_esp(algorithm: Algorithm) -> Shape {
        let shape = Shape { front: (HEADER_LEN + algorithm.iv_len()) as u8, icv: algorithm.icv_len() as u8 };
        // What is not said in so many words here.
        assert!(shape.alignment() == algorithm.alignment());
        assert!(shape.lead() == algorithm.text_front() && shape.rest() == algorithm.text_back());
        shape
    }

    #[inline]
    pub(crate) const fn is_ah(self) -> bool {
        self.icv == 0
    }

    /// Bytes between IP header and ciphertext; of AH, padding included.
    #[inline]
    pub(crate) const fn front(self) -> usize {
        self.front as usize
    }

    /// Bytes of the ICV.
    #[inline]
    pub(crate) const fn icv(self) -> usize {
        self.icv as usize
    }

    /// A stream cipher with the IV in front of its text and an ICV of the usual length behind.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        !self.is_ah() && self.shows_nonce() && self.rest() == 0
    }

    #[inline]
    const fn is_cbc(self) -> bool {
        self.front as usize == HEADER_LEN + BLOCK
    }

    /// The packet's number is its IV (RFC 4106 §3.1, of our packets).
    #[inline]
    const fn shows_nonce(self) -> bool {
        self.front as usize == HEADER_LEN + IV_LEN
    }

    /// What the encrypted part is a multiple of: a power of 2.
    #[inline]
    pub(crate) const fn alignment(self) -> usize {
        if self.is_cbc() { BLOCK } else { 4 }
    }

    /// [`Algorithm::text_front`]
    #[inline]
    const fn lead(self) -> usize {
        if self.is_cbc() { BLOCK } else { 0 }
    }

    /// [`Algorithm::text_back`]
    #[inline]
    const fn rest(self) -> usize {
        self.icv as usize - TAG_LEN
    }

    /// How many bytes of padding bring payload and trailer to a multiple of the alignment. RFC 4303 §2.4.
    #[inline]
    const fn pad_len(self, payload: usize) -> usize {
        (payload + TRAILER_LEN).wrapping_neg() & (self.alignment() - 1)
    }
}

/// RFC 4106 §5: SPI and number, of 32 or 64 bits.
#[inline]
pub(crate) fn aad(spi: Spi, seq: u64, esn: bool) -> Aad {
    Aad::esp(spi.0, seq, esn)
}

/// RFC 4106 §4: salt, then the packet's IV.
#[inline]
pub(crate) fn nonce(salt: [u8; SALT_LEN], iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
    // In one piece: what is copied next would wait for the stores of two.
    let whole = u128::from(u32::from_le_bytes(salt)) | u128::from(u64::from_le_bytes(iv)) << (8 * SALT_LEN);
    let bytes = whole.to_le_bytes();
    std::array::from_fn(|at| bytes[at])
}
