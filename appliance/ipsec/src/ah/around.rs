//! AH around ESP on one packet (RFC 4301 §4.4.2.1): two SAs, ESP applied first, AH in transport mode around what came of it.
//!
//! ```text
//! | IP, ext. hdrs | AH of one SA | ESP of the other: SPI, number, IV, encrypted part, ICV |
//! ```
//!
//! One AH and one ESP, and nothing deeper. Here is only what one SA has to know of the other; which two belong together is
//! [`SaParams::within`].

use phalanx_wire::{AhHeader, DropReason, EspHeader, IpHeader, Protected, protocol};

use crate::esp::peek::PeekJob;
use crate::sa::{InboundSa, OutboundSa};
use crate::{IpsecError, SaParams};

/// What is behind AH, where that is ESP: *not authenticated* (I5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// The SA of ESP that it names.
    pub esp: Protected,
    /// The header as one in front of ESP, AH being a part of it.
    pub ip: IpHeader,
}

impl SaParams {
    pub(crate) fn check_within(&self) -> Result<(), IpsecError> {
        match self.within {
            Some(_) if self.algorithm.is_ah() => Err(IpsecError::AhInAh),
            Some(_) if self.encap.is_some() => Err(IpsecError::UdpInAh),
            _ => Ok(()),
        }
    }
}

impl InboundSa {
    /// Its packets come with AH around them.
    #[inline]
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.hot.rare.within()
    }

    /// The ESP in a packet of this SA of AH, if that is what is in it; of an SA of ESP or in tunnel mode none.
    ///
    /// # Errors
    /// Those of [`InboundSa::show`]; `Runt` where ESP is cut short.
    #[inline]
    pub fn bundled(&self, packet: &[u8], ip: &IpHeader) -> Result<Option<Bundled>, DropReason> {
        if !self.is_ah() || self.is_tunnel() { Ok(None) } else { self.behind(packet, ip) }
    }

    fn behind(&self, packet: &[u8], ip: &IpHeader) -> Result<Option<Bundled>, DropReason> {
        let AhHeader { next_header, header_len, .. } = self.locate_ah(packet, ip)?;
        if next_header != protocol::ESP {
            return Ok(None);
        }
        let (upper_offset, upper_field) = (ip.upper_offset + header_len, ip.upper_offset);
        let EspHeader { spi, seq } = EspHeader::parse(&packet[upper_offset..ip.total_len])?;
        let ip = IpHeader { upper: protocol::ESP, upper_offset, upper_field, ..*ip };
        Ok(Some(Bundled { esp: Protected { spi, seq, ah: false }, ip }))
    }

    /// [`InboundSa::peek_job`] of an SA of ESP, for a packet with AH around it: what shows is what is left without both.
    ///
    /// # Errors
    /// Those of [`InboundSa::peek_job`].
    pub fn peek_job_within(
        &self,
        packet: &[u8],
        ip: &IpHeader,
        bundled: &Bundled,
        seq: u64,
    ) -> Result<PeekJob, DropReason> {
        Ok(self.peek_job(packet, &bundled.ip, seq)?.without_ah(ip))
    }
}

impl OutboundSa {
    /// AH goes around its packets.
    #[inline]
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.hot.rare.within()
    }

    /// It could go around those of another SA.
    pub(crate) fn is_transport_ah(&self) -> bool {
        self.hot.shape.is_ah() && !self.hot.tunnel
    }
}
