//! The part of ESP that is in clear (RFC 4303 §2): the transforms are another room's.

use crate::{Spi, WireError};

/// Length of the header.
pub const LEN: usize = 8;

/// SPI and sequence number, the first bytes of an ESP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspHeader {
    /// Names the SA.
    pub spi: Spi,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
}

impl EspHeader {
    /// Reads the header at the start of `b`.
    ///
    /// # Errors
    /// [`WireError::Short`].
    #[inline]
    pub fn parse(b: &[u8]) -> Result<EspHeader, WireError> {
        let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
        Ok(EspHeader {
            spi: Spi(u32::from_be_bytes([h[0], h[1], h[2], h[3]])),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        })
    }

    /// Writes the header at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
        h[..4].copy_from_slice(&self.spi.0.to_be_bytes());
        h[4..].copy_from_slice(&self.seq.to_be_bytes());
        Ok(())
    }
}
