//! What ESP and AH have in common: a packet names its SA and number in clear.

use crate::{AhHeader, EspHeader, IpHeader, Spi, WireError, natt, protocol};

/// The SA that an inbound packet says it came through: with the VIP, what it is looked up by (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protected {
    /// Names the SA among those of its protocol.
    pub spi: Spi,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
    /// AH (RFC 4302) rather than ESP.
    pub ah: bool,
}

impl Protected {
    /// Of the packet in `packet`, whose header `ip` is: AH, ESP, or ESP in UDP.
    ///
    /// # Errors
    /// [`WireError::Protocol`] for anything else; [`WireError::Short`] and [`WireError::Upper`] for one that is cut short.
    #[inline]
    pub fn of(ip: &IpHeader, packet: &[u8]) -> Result<Protected, WireError> {
        if ip.upper == protocol::AH {
            let AhHeader { spi, seq, .. } = AhHeader::parse(ip.upper_of(packet))?;
            return Ok(Protected { spi, seq, ah: true });
        }
        let EspHeader { spi, seq } = EspHeader::parse(natt::esp_of(ip, packet)?.esp)?;
        Ok(Protected { spi, seq, ah: false })
    }
}
