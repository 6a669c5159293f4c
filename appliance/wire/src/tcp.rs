//! TCP (RFC 9293): what steering and connection tracking need of it.

use crate::{WireError, checksum, protocol};
use std::fmt;
use std::net::IpAddr;

/// Length of the header without options.
pub const MIN_LEN: usize = 20;
/// Offset of the control bits.
pub const FLAGS_FIELD: usize = 13;

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent field counts.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// All of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
    /// FIN is set.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.has(Self::FIN)
    }
    /// SYN is set.
    #[inline]
    #[must_use]
    pub const fn syn(self) -> bool {
        self.has(Self::SYN)
    }
    /// RST is set.
    #[inline]
    #[must_use]
    pub const fn rst(self) -> bool {
        self.has(Self::RST)
    }
    /// ACK is set.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.has(Self::ACK)
    }
    /// PSH is set.
    #[must_use]
    pub const fn psh(self) -> bool {
        self.has(Self::PSH)
    }
    /// Ends a direction, or all.
    #[inline]
    #[must_use]
    pub const fn ends(self) -> bool {
        self.0 & (Self::RST | Self::FIN) != 0
    }
    /// Asks for a new connection: SYN without ACK, RST or FIN. ECN bits may be set (RFC 3168 §6.1.1).
    #[inline]
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut between = "";
        for (bit, name) in names.iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                write!(f, "{between}{name}")?;
                between = "|";
            }
        }
        Ok(())
    }
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Sender's port.
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts if the flag says so.
    pub ack: u32,
    /// Where the data starts, in **bytes** from the start of the header: a multiple of 4, 20..=60.
    pub data_offset: usize,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window as written: not scaled.
    pub window: u16,
}

impl TcpHeader {
    /// Reads the header at the start of `b`, which holds its options too.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Upper`] if the data offset lies inside the fixed header.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<TcpHeader, WireError> {
        let tcp = Self::parse_prefix(b)?;
        if tcp.data_offset > b.len() { Err(WireError::Short) } else { Ok(tcp) }
    }

    /// Reads the header at the start of `b`, which may end after the fixed 20 bytes.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Upper`] if the data offset lies inside the fixed header.
    #[inline]
    pub fn parse_prefix(b: &[u8]) -> Result<TcpHeader, WireError> {
        let h = b.first_chunk::<MIN_LEN>().ok_or(WireError::Short)?;
        let data_offset = usize::from(h[12] >> 4) * 4;
        if data_offset < MIN_LEN {
            return Err(WireError::Upper);
        }
        Ok(TcpHeader {
            src_port: u16::from_be_bytes([h[0], h[1]]),
            dst_port: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            data_offset,
            flags: TcpFlags(h[13]),
            window: u16::from_be_bytes([h[14], h[15]]),
        })
    }

    /// Writes the header at the start of `out`: checksum and urgent pointer zero, options up to `data_offset` as
    /// no-operations. [`set_checksum`] comes after the data.
    ///
    /// # Errors
    /// [`WireError::NoRoom`]; [`WireError::Upper`] if `data_offset` cannot be written.
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        if !self.data_offset.is_multiple_of(4) || !(MIN_LEN..=60).contains(&self.data_offset) {
            return Err(WireError::Upper);
        }
        let h = out.get_mut(..self.data_offset).ok_or(WireError::NoRoom)?;
        h[..2].copy_from_slice(&self.src_port.to_be_bytes());
        h[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        h[4..8].copy_from_slice(&self.seq.to_be_bytes());
        h[8..12].copy_from_slice(&self.ack.to_be_bytes());
        h[12] = (self.data_offset as u8 / 4) << 4;
        h[13] = self.flags.0;
        h[14..16].copy_from_slice(&self.window.to_be_bytes());
        h[16..20].fill(0);
        h[20..].fill(OPTION_NOP);
        Ok(())
    }
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// The maximum segment size option of the segment at the start of `b` (RFC 9293 §3.2), if it is there whole.
#[must_use]
pub fn mss(b: &[u8]) -> Option<u16> {
    mss_offset(b).map(|at| u16::from_be_bytes([b[at], b[at + 1]]))
}

/// Where the value of the maximum segment size option lies in the segment at the start of `b`: both its bytes are there.
#[must_use]
pub fn mss_offset(b: &[u8]) -> Option<usize> {
    let tcp = TcpHeader::parse(b).ok()?;
    let mut at = MIN_LEN;
    while at < tcp.data_offset {
        match b[at] {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*b.get(at + 1)?);
                if len < 2 || at + len > tcp.data_offset {
                    return None;
                }
                if kind == OPTION_MSS && len == 4 {
                    return Some(at + 2);
                }
                at += len;
            }
        }
    }
    None
}

/// Lowers the maximum segment size that the segment at the start of `b` announces to `most`, its checksum with it
/// (RFC 1624). It is never raised; true if it changed.
pub fn clamp_mss(b: &mut [u8], most: u16) -> bool {
    let Some(at) = mss_offset(b) else { return false };
    let old = u16::from_be_bytes([b[at], b[at + 1]]);
    if old <= most {
        return false;
    }
    b[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // At an odd offset its bytes lie in two words of the sum, each in the other's place (RFC 1071 §2 B).
    let (old, new) = if at.is_multiple_of(2) { (old, most) } else { (old.swap_bytes(), most.swap_bytes()) };
    let sum = checksum::update16(u16::from_be_bytes([b[16], b[17]]), old, new);
    b[16..18].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Sets the checksum of a whole segment that is sent between these addresses.
///
/// # Errors
/// [`WireError::Short`].
pub fn set_checksum(src: IpAddr, dst: IpAddr, segment: &mut [u8]) -> Result<(), WireError> {
    segment.get_mut(16..18).ok_or(WireError::Short)?.fill(0);
    let sum = checksum::upper(src, dst, protocol::TCP, segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Whether the checksum of a whole segment is right.
#[must_use]
pub fn checksum_ok(src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
    segment.len() >= MIN_LEN && checksum::upper(src, dst, protocol::TCP, segment) == 0
}
