//! How large packets of an SA may be: the path's MTU, which may fall and rise again (RFC 4301 §8.2), and what TCP is told of it.

use phalanx_wire::{IpHeader, TcpHeader, protocol, tcp};

use crate::sa::Constants;
use crate::{InboundSa, MssClamp, OutboundSa, SaParams};

impl SaParams {
    /// The least path MTU there may be: RFC 791, every IPv4 host receives 576 bytes in one piece; RFC 8200 §5, every IPv6
    /// link carries 1280. Within AH there is that much less.
    #[must_use]
    pub const fn least_path_mtu(&self) -> u16 {
        let least = if self.local.is_ipv4() { 576 } else { 1280 };
        if self.within.is_some() { least - crate::ah::MAX_LEN as u16 } else { least }
    }

    /// [`OutboundSa::inner_mtu`] of such an SA over a path of that MTU.
    #[must_use]
    pub fn inner_mtu(&self, path_mtu: u16) -> usize {
        Constants { path_mtu, ..Constants::new(self) }.inner_mtu()
    }
}

impl OutboundSa {
    /// The largest outer packet now, in bytes from its IP header on.
    #[must_use]
    pub fn path_mtu(&self) -> u16 {
        self.hot.path_mtu
    }

    /// From now on outer packets are at most so long; never more than configured, never less than the IP version asks for.
    pub fn set_path_mtu(&mut self, mtu: u16) {
        self.hot.path_mtu = mtu.clamp(self.params().least_path_mtu(), self.params().path_mtu);
    }

    /// Lowers the largest segment that a SYN among this SA's packets announces, both ways: `packet` is an inner packet that
    /// goes out through it, or one that came in through its other half. What is no SYN stays as it is. True if it changed.
    pub fn clamp_mss(&self, packet: &mut [u8]) -> bool {
        let Ok(ip) = IpHeader::parse(packet) else { return false };
        let most = match self.params().mss_clamp {
            MssClamp::None => return false,
            MssClamp::Most(most) => most,
            // RFC 6691 §2: the plain IP and TCP headers count, options do not.
            MssClamp::Path => {
                let most = self.inner_mtu().saturating_sub(phalanx_wire::ip::header_len(ip.src) + tcp::MIN_LEN);
                u16::try_from(most).unwrap_or(u16::MAX)
            }
        };
        if ip.upper != protocol::TCP || ip.fragment.is_some_and(|f| f.offset != 0) {
            return false;
        }
        let segment = &mut packet[ip.upper_offset..ip.total_len];
        let syn = TcpHeader::parse_prefix(segment).is_ok_and(|tcp| tcp.flags.syn());
        syn && tcp::clamp_mss(segment, most)
    }

    /// Whether [`OutboundSa::clamp_mss`] would look at packets.
    #[inline]
    #[must_use]
    pub fn clamps(&self) -> bool {
        self.hot.rare.clamps()
    }
}

impl InboundSa {
    /// Whether packets that come through are for [`OutboundSa::clamp_mss`] of its other half.
    #[inline]
    #[must_use]
    pub fn clamps(&self) -> bool {
        self.hot.rare.clamps()
    }
}
