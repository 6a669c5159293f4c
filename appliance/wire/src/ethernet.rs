//! Ethernet II.

use crate::WireError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Length of the header.
pub const HEADER_LEN: usize = 14;
/// Shortest frame without its check sequence; shorter payloads are padded with zeros (IEEE 802.3 §4.2.3.3).
pub const MIN_LEN: usize = 60;

/// Ethertypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802 local experimental ethertype 1: names a link packet inside GRE.
    pub const LINK: u16 = 0x88b5;
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// No address yet.
    pub const ZERO: Mac = Mac([0; 6]);

    /// A group address: multicast or broadcast.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// May stand as the address of one station: neither a group nor zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// The group address that a multicast IP address is sent to (RFC 1112 §6.4, RFC 2464 §7); `None` for others.
    #[must_use]
    pub fn of_multicast(address: IpAddr) -> Option<Mac> {
        match address {
            IpAddr::V4(a) if a.is_broadcast() => Some(Self::BROADCAST),
            IpAddr::V4(a) if a.is_multicast() => {
                let [_, b, c, d] = a.octets();
                Some(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V6(a) if a.is_multicast() => {
                let o = a.octets();
                Some(Mac([0x33, 0x33, o[12], o[13], o[14], o[15]]))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six pairs of hexadecimal digits with colons between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address (expected like 02:00:00:00:00:01)")]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(s: &str) -> Result<Self, BadMac> {
        let mut parts = s.split(':');
        let mut mac = [0; 6];
        for byte in &mut mac {
            let part = parts.next().ok_or(BadMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadMac)?;
        }
        if parts.next().is_some() { Err(BadMac) } else { Ok(Mac(mac)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(s: String) -> Result<Self, BadMac> {
        s.parse()
    }
}

impl From<Mac> for String {
    fn from(m: Mac) -> String {
        m.to_string()
    }
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// To whom.
    pub dst: Mac,
    /// From whom.
    pub src: Mac,
    /// What the payload is; never a length. A VLAN tag is just a payload we do not speak.
    pub ethertype: u16,
}

impl Frame {
    /// Reads the header at the start of `b`; the payload starts at [`HEADER_LEN`].
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Ethernet`] for a length instead of a type or a group as sender.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<Frame, WireError> {
        let h = b.first_chunk::<HEADER_LEN>().ok_or(WireError::Short)?;
        let dst = Mac([h[0], h[1], h[2], h[3], h[4], h[5]]);
        let src = Mac([h[6], h[7], h[8], h[9], h[10], h[11]]);
        let ethertype = u16::from_be_bytes([h[12], h[13]]);
        // IEEE 802.3 §3.2.6: below 0x0600 the field is a length.
        if src.is_multicast() || ethertype < 0x0600 {
            return Err(WireError::Ethernet);
        }
        Ok(Frame { dst, src, ethertype })
    }

    /// Writes the header at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<HEADER_LEN>().ok_or(WireError::NoRoom)?;
        h[..6].copy_from_slice(&self.dst.0);
        h[6..12].copy_from_slice(&self.src.0);
        h[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        Ok(())
    }
}

/// Writes an Ethernet header at the start of `out`.
///
/// # Errors
/// [`WireError::NoRoom`].
#[inline]
pub fn write(out: &mut [u8], dst: Mac, src: Mac, ethertype: u16) -> Result<(), WireError> {
    Frame { dst, src, ethertype }.write(out)
}
