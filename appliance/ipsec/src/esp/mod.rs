//! ESP (RFC 4303) with AES-GCM (RFC 4106): what sealing and opening have in common.
//!
//! ```text
//! tunnel     | outer IP      | SPI, number | IV | inner IP packet ......... | padding, length, next header | ICV |
//! transport  | IP, ext. hdrs | SPI, number | IV | upper-layer header, data  | padding, length, next header | ICV |
//!                            '--- 8 -------'-8--'------------------- encrypted --------------------------'-- 16 -'
//! ```

pub(crate) mod ecn;
pub(crate) mod open;
pub(crate) mod peek;
pub(crate) mod seal;

use phalanx_aead::{Aad, IV_LEN, NONCE_LEN, SALT_LEN, TAG_LEN};
use phalanx_wire::Spi;

/// SPI and low half of the number. RFC 4303 §2.
pub(crate) const HEADER_LEN: usize = 8;
/// What stands between IP header and ciphertext.
pub(crate) const FRONT_LEN: usize = HEADER_LEN + IV_LEN;
/// Padding length and next header. RFC 4303 §2.4, §2.6.
pub(crate) const TRAILER_LEN: usize = 2;
/// The ICV.
pub(crate) const ICV_LEN: usize = TAG_LEN;

/// The most that sealing adds in front of a packet: an IPv6 header, UDP header, ESP header, IV.
pub const MAX_FRONT: usize = 40 + phalanx_wire::natt::LEN + FRONT_LEN;
/// The most that sealing adds behind a packet: 3 bytes of padding, trailer, ICV.
pub const MAX_BACK: usize = 3 + TRAILER_LEN + ICV_LEN;

/// RFC 4106 §5: SPI and number, of 32 or 64 bits.
pub(crate) fn aad(spi: Spi, seq: u64, esn: bool) -> Aad {
    Aad::esp(spi.0, seq, esn)
}

/// RFC 4106 §4: salt, then the packet's IV.
pub(crate) fn nonce(salt: [u8; SALT_LEN], iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..SALT_LEN].copy_from_slice(&salt);
    nonce[SALT_LEN..].copy_from_slice(&iv);
    nonce
}

/// How many bytes of padding bring payload and trailer to a multiple of 4. RFC 4303 §2.4.
pub(crate) const fn pad_len(payload: usize) -> usize {
    (payload + TRAILER_LEN).next_multiple_of(4) - payload - TRAILER_LEN
}
