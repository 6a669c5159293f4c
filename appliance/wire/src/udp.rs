//! UDP (RFC 768).

use crate::{WireError, checksum, protocol};
use std::net::IpAddr;

/// Length of the header.
pub const LEN: usize = 8;

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHeader {
    /// Sender's port.
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
    /// Length of header and data.
    pub len: u16,
    /// Checksum; zero over IPv4 means none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Reads the header at the start of `b`, whose datagram is whole: `len` bytes of it are there.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Upper`] if the length does not cover the header.
    pub fn parse(b: &[u8]) -> Result<UdpHeader, WireError> {
        let udp = Self::parse_prefix(b)?;
        if usize::from(udp.len) > b.len() { Err(WireError::Short) } else { Ok(udp) }
    }

    /// Reads the header at the start of `b`, whose datagram may be cut short.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Upper`] if the length does not cover the header.
    #[inline]
    pub fn parse_prefix(b: &[u8]) -> Result<UdpHeader, WireError> {
        let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
        let len = u16::from_be_bytes([h[4], h[5]]);
        if usize::from(len) < LEN {
            return Err(WireError::Upper);
        }
        Ok(UdpHeader {
            src_port: u16::from_be_bytes([h[0], h[1]]),
            dst_port: u16::from_be_bytes([h[2], h[3]]),
            len,
            checksum: u16::from_be_bytes([h[6], h[7]]),
        })
    }

    /// Writes the header at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
        h[..2].copy_from_slice(&self.src_port.to_be_bytes());
        h[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        h[4..6].copy_from_slice(&self.len.to_be_bytes());
        h[6..].copy_from_slice(&self.checksum.to_be_bytes());
        Ok(())
    }
}

/// Sets the checksum of a whole datagram that is sent between these addresses.
///
/// # Errors
/// [`WireError::Short`].
pub fn set_checksum(src: IpAddr, dst: IpAddr, datagram: &mut [u8]) -> Result<(), WireError> {
    datagram.get_mut(6..8).ok_or(WireError::Short)?.fill(0);
    let sum = match checksum::upper(src, dst, protocol::UDP, datagram) {
        0 => 0xffff, // RFC 768: zero says that there is none
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Whether the checksum of a whole datagram is right, or absent where it may be (IPv4).
#[must_use]
pub fn checksum_ok(src: IpAddr, dst: IpAddr, datagram: &[u8]) -> bool {
    match datagram.get(6..8) {
        None => false,
        Some([0, 0]) => src.is_ipv4(), // RFC 8200 §8.1: not without one over IPv6
        Some(_) => checksum::upper(src, dst, protocol::UDP, datagram) == 0,
    }
}
