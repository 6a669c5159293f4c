//! The AH header (RFC 4302 §2): read and written here, verified by a later room. What stands in front of it counts for the
//! integrity check as [`crate::Immutable`].

use crate::{Spi, WireError};

/// Length of the header before its integrity check value.
pub const FIXED_LEN: usize = 12;

/// Length of the header with an integrity check value of so many bytes: padded to the alignment of its IP version and no further
/// (RFC 4302 §2.6).
#[must_use]
pub const fn header_len(icv_len: usize, v6: bool) -> usize {
    (FIXED_LEN + icv_len).next_multiple_of(if v6 { 8 } else { 4 })
}

/// An AH header without its integrity check value, which is `b[FIXED_LEN..header_len]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AhHeader {
    /// The protocol that follows.
    pub next_header: u8,
    /// Length of the whole header in bytes, integrity check value included: a multiple of 4, 12..=1028.
    pub header_len: usize,
    /// Names the SA.
    pub spi: Spi,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
}

impl AhHeader {
    /// Reads the header at the start of `b`, which holds it to the end of the integrity check value.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Upper`] if its length does not even cover the fixed fields.
    pub fn parse(b: &[u8]) -> Result<AhHeader, WireError> {
        let h = b.first_chunk::<FIXED_LEN>().ok_or(WireError::Short)?;
        // RFC 4302 §2.2: in 32-bit words, minus 2.
        let header_len = (usize::from(h[1]) + 2) * 4;
        if header_len < FIXED_LEN {
            return Err(WireError::Upper);
        }
        if header_len > b.len() {
            return Err(WireError::Short);
        }
        Ok(AhHeader {
            next_header: h[0],
            header_len,
            spi: Spi(u32::from_be_bytes([h[4], h[5], h[6], h[7]])),
            seq: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        })
    }

    /// Writes the header at the start of `out`, with an integrity check value of zeros.
    ///
    /// # Errors
    /// [`WireError::NoRoom`]; [`WireError::Upper`] if `header_len` cannot be written.
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        if !self.header_len.is_multiple_of(4) || !(FIXED_LEN..=1028).contains(&self.header_len) {
            return Err(WireError::Upper);
        }
        let h = out.get_mut(..self.header_len).ok_or(WireError::NoRoom)?;
        h.fill(0);
        h[0] = self.next_header;
        h[1] = (self.header_len / 4 - 2) as u8;
        h[4..8].copy_from_slice(&self.spi.0.to_be_bytes());
        h[8..12].copy_from_slice(&self.seq.to_be_bytes());
        Ok(())
    }
}
