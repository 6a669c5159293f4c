//! ESP in UDP (RFC 3948): what stands behind a UDP header of port 4500, and the header that we put in front of ESP. IKE has
//! port 500 to itself, where it stands without a marker.
//!
//! ```text
//! ESP         | UDP | SPI, never 0 | sequence number | ...
//! IKE         | UDP | 0 0 0 0      | IKE header ...
//! keepalive   | UDP | 0xff
//! ```

use crate::{IpHeader, WireError, protocol, udp};
use std::net::IpAddr;

/// The port of IKE and ESP behind NATs (RFC 3948 §2.1, RFC 7296 §2.23); ours always.
pub const PORT: u16 = 4500;
/// The port of IKE where no NAT was found (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// What the encapsulation adds to an ESP packet.
pub const LEN: usize = udp::LEN;
/// Stands where an SPI would in front of IKE messages (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one byte of a keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: u8 = 0xff;

/// What an IP packet is to IPsec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// ESP, bare or in UDP.
    Esp(Carried<'a>),
    /// An IKE message.
    Ike(Ike<'a>),
    /// It keeps a NAT's mapping alive and says nothing.
    Keepalive,
    /// Neither ESP nor to one of the two ports.
    Other,
}

/// An IKE message in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ike<'a> {
    /// Without the marker.
    pub message: &'a [u8],
    /// The sender's port.
    pub from: u16,
    /// [`IKE_PORT`] or [`PORT`].
    pub to: u16,
}

/// An ESP packet in an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried<'a> {
    /// From the SPI on.
    pub esp: &'a [u8],
    /// Where it begins in the packet.
    pub offset: usize,
    /// The source port, if it is in UDP.
    pub port: Option<u16>,
}

impl<'a> Content<'a> {
    /// Looks into `packet`, which `ip` was parsed from; it is whole, and no fragment.
    ///
    /// A checksum in the UDP header is not looked at: the ICV covers what it would, and RFC 3948 §2.1 forbids to depend on
    /// it. Over IPv6 none is as good (RFC 6935 §5: it is a tunnel's).
    ///
    /// # Errors
    /// [`WireError::Short`] and [`WireError::Upper`]: a datagram to port 4500 or 500 that is cut short or holds nothing of these.
    #[inline]
    pub fn of(ip: &IpHeader, packet: &'a [u8]) -> Result<Content<'a>, WireError> {
        let upper = ip.upper_of(packet);
        match ip.upper {
            protocol::ESP => Ok(Content::Esp(Carried { esp: upper, offset: ip.upper_offset, port: None })),
            protocol::UDP => of_datagram(upper, ip.upper_offset),
            _ => Ok(Content::Other),
        }
    }
}

/// The ESP packet in `packet`, bare or in UDP.
///
/// # Errors
/// Those of [`Content::of`]; [`WireError::Protocol`] if there is none.
#[inline]
pub fn esp_of<'a>(ip: &IpHeader, packet: &'a [u8]) -> Result<Carried<'a>, WireError> {
    match Content::of(ip, packet)? {
        Content::Esp(carried) => Ok(carried),
        _ => Err(WireError::Protocol),
    }
}

fn of_datagram(datagram: &[u8], at: usize) -> Result<Content<'_>, WireError> {
    // Someone else's port may have any header behind it.
    let Ok(udp) = udp::UdpHeader::parse_prefix(datagram) else { return Ok(Content::Other) };
    let ike = |message| Content::Ike(Ike { message, from: udp.src_port, to: udp.dst_port });
    if !matches!(udp.dst_port, PORT | IKE_PORT) {
        return Ok(Content::Other);
    }
    let payload = datagram.get(udp::LEN..usize::from(udp.len)).ok_or(WireError::Short)?;
    if udp.dst_port == IKE_PORT {
        return Ok(ike(payload));
    }
    if payload == [KEEPALIVE] {
        return Ok(Content::Keepalive);
    }
    match payload.split_first_chunk::<4>().ok_or(WireError::Upper)? {
        (&NON_ESP_MARKER, message) => Ok(ike(message)),
        _ => Ok(Content::Esp(Carried { esp: payload, offset: at + LEN, port: Some(udp.src_port) })),
    }
}

/// Writes the UDP header of an ESP packet of `len` bytes, from our port to the peer's, without a checksum: over IPv4 it is to
/// be 0 (RFC 3948 §2.1); over IPv6 [`set_checksum`] follows once the packet is sealed.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] for a length that no datagram has.
pub fn write_header(out: &mut [u8], to: u16, len: usize) -> Result<(), WireError> {
    let len = u16::try_from(LEN + len).map_err(|_| WireError::Ip)?;
    udp::UdpHeader { src_port: PORT, dst_port: to, len, checksum: 0 }.write(out)
}

/// Sets the checksum where it should not be 0: over IPv6. RFC 6935 would allow zero there too, but a receiver has to be told
/// to take it, and Linux by default is not.
///
/// # Errors
/// [`WireError::Short`], [`WireError::Ip`].
pub fn set_checksum(packet: &mut [u8]) -> Result<(), WireError> {
    let ip = IpHeader::parse(packet)?;
    if ip.version == 6 && ip.upper == protocol::UDP {
        udp::set_checksum(ip.src, ip.dst, &mut packet[ip.upper_offset..ip.total_len])?;
    }
    Ok(())
}

/// A keepalive from our port (RFC 3948 §2.3): an IP packet in `out`; gives its length.
///
/// # Errors
/// [`WireError::NoRoom`]; [`WireError::Ip`] for addresses of different families.
pub fn write_keepalive(out: &mut [u8], from: IpAddr, to: IpAddr, port: u16) -> Result<usize, WireError> {
    let fields = crate::ip::Fields {
        src: from,
        dst: to,
        protocol: protocol::UDP,
        payload_len: LEN + 1,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    let at = crate::ip::write_header(out, &fields)?;
    let len = at + LEN + 1;
    let out = out.get_mut(..len).ok_or(WireError::NoRoom)?;
    write_header(&mut out[at..], port, 1)?;
    out[len - 1] = KEEPALIVE;
    set_checksum(out)?;
    Ok(len)
}
