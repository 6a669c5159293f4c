//! The link header: what a router tells a target about a packet that it forwards (R14), and the GRE around it between boxes.
//!
//! In a ring of one process the packet is `LinkHeader ++ IP packet`; between boxes it is
//! `Ethernet ++ IP ++ GRE ++ LinkHeader ++ IP packet`.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |  version = 1  |     flags     |              VIP              |
//! |                             epoch                             |
//! |                                                               |
//! |                high half of the sequence number               |
//! |        destination core       |     of the number of AH       |
//! ```

use crate::ip::{self, IpHeader, protocol};
use crate::{Buffer, CoreId, Epoch, VipId, WireError, ethernet::ethertype, gre, ipv4, ipv6};
use std::net::IpAddr;

/// Length of the link header.
pub const LEN: usize = 20;
/// The version spoken here.
pub const VERSION: u8 = 1;
/// What a link over IPv4 adds to a packet.
pub const OVERHEAD_V4: usize = ipv4::MIN_LEN + gre::LEN + LEN;
/// What a link over IPv6 adds to a packet.
pub const OVERHEAD_V6: usize = ipv6::LEN + gre::LEN + LEN;

const FILTERED: u8 = 1;
const CLEAR: u8 = 2;
// Links are one hop long as a rule: 255 lets a receiver see that (RFC 5082).
const LINK_HOP_LIMIT: u8 = 255;

/// What a router tells a target about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHeader {
    /// The VIP that the packet came to.
    pub vip: VipId,
    /// The epoch of the router's ownership; a target drops lower ones than it has seen (I6).
    pub epoch: Epoch,
    /// High half of the packet's sequence number: a hint that the integrity check confirms.
    pub seq_high: u32,
    /// Where AH is around ESP the number above is ESP's, and this is the low half of the same of AH's; else 0.
    pub around: u16,
    /// The core of the target that serves the connection.
    pub core: CoreId,
    /// The router has done the inbound filter.
    pub filtered: bool,
    /// What follows is the inner packet, opened by the router, instead of the protected one.
    pub clear: bool,
}

impl LinkHeader {
    /// Length of the header.
    pub const LEN: usize = LEN;

    /// Reads the header at the start of `b`.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::LinkVersion`] if version or flags are not those known here.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<LinkHeader, WireError> {
        let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
        if h[0] != VERSION || h[1] & !(FILTERED | CLEAR) != 0 {
            return Err(WireError::LinkVersion);
        }
        Ok(LinkHeader {
            vip: VipId(u16::from_be_bytes([h[2], h[3]])),
            epoch: Epoch(u64::from_be_bytes([h[4], h[5], h[6], h[7], h[8], h[9], h[10], h[11]])),
            seq_high: u32::from_be_bytes([h[12], h[13], h[14], h[15]]),
            core: CoreId(u16::from_be_bytes([h[16], h[17]])),
            around: u16::from_be_bytes([h[18], h[19]]),
            filtered: h[1] & FILTERED != 0,
            clear: h[1] & CLEAR != 0,
        })
    }

    /// Writes the header at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
        h[0] = VERSION;
        h[1] = if self.filtered { FILTERED } else { 0 } | if self.clear { CLEAR } else { 0 };
        h[2..4].copy_from_slice(&self.vip.0.to_be_bytes());
        h[4..12].copy_from_slice(&self.epoch.0.to_be_bytes());
        h[12..16].copy_from_slice(&self.seq_high.to_be_bytes());
        h[16..18].copy_from_slice(&self.core.0.to_be_bytes());
        h[18..].copy_from_slice(&self.around.to_be_bytes());
        Ok(())
    }
}

/// Another packet's number in the link header that `front`, what is in front of a packet, ends with: [`LinkHeader::seq_high`].
///
/// # Errors
/// [`WireError::NoRoom`].
#[inline]
pub fn set_seq_high(front: &mut [u8], seq_high: u32) -> Result<(), WireError> {
    let h = front.last_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
    h[12..16].copy_from_slice(&seq_high.to_be_bytes());
    Ok(())
}

/// What a link between addresses like this one adds to a packet.
#[inline]
#[must_use]
pub const fn overhead(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => OVERHEAD_V4,
        IpAddr::V6(_) => OVERHEAD_V6,
    }
}

/// Puts IP, GRE and `header` before the packet in `buf`, from `local` to `remote`. On an error `buf` is unchanged.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] if the addresses are of two versions or the packet gets too long.
#[inline]
pub fn encapsulate<B: Buffer>(
    buf: &mut B,
    local: IpAddr,
    remote: IpAddr,
    header: &LinkHeader,
) -> Result<(), WireError> {
    let before = buf.bytes().len();
    buf.grow_front(overhead(local))?;
    let fields = ip::Fields {
        src: local,
        dst: remote,
        protocol: protocol::GRE,
        payload_len: gre::LEN + LEN + before,
        hop_limit: LINK_HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    let written = write_outer(buf.bytes_mut(), &fields, header);
    if written.is_err() {
        buf.cut_front(overhead(local));
    }
    written
}

#[inline]
fn write_outer(out: &mut [u8], fields: &ip::Fields, header: &LinkHeader) -> Result<(), WireError> {
    let at = ip::write_header(out, fields)?;
    gre::write(&mut out[at..], ethertype::LINK)?;
    header.write(&mut out[at + gre::LEN..])
}

/// Reads GRE and link header of a packet, and gives the offset of what is inside.
/// Whether it came in on its link, from the link's other end, is for the caller to check (R14).
///
/// # Errors
/// [`WireError::Link`] for a fragment, or if it is not plain GRE with a link packet inside; those of [`LinkHeader::parse`].
#[inline]
pub fn decapsulate(ip: &IpHeader, packet: &[u8]) -> Result<(LinkHeader, usize), WireError> {
    let inside = ip.upper_of(packet);
    if ip.upper != protocol::GRE || ip.fragment.is_some() || gre::parse(inside)?.ethertype != ethertype::LINK {
        return Err(WireError::Link);
    }
    let header = LinkHeader::parse(&inside[gre::LEN..])?;
    Ok((header, ip.upper_offset + gre::LEN + LEN))
}
