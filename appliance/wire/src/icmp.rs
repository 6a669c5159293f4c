//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and errors with the packet they quote.

use crate::ip::{self, IpHeader, protocol};
use crate::{Flow, WireError, checksum, ipv6};
use std::net::IpAddr;

/// Length of the header before the data or the quoted packet.
pub const LEN: usize = 8;
/// The longest ICMPv4 error packet that is made here (RFC 1812 §4.3.2.3).
pub const MAX_ERROR_V4: usize = 576;
/// The longest ICMPv6 error packet (RFC 4443 §2.4 c).
pub const MAX_ERROR_V6: usize = ipv6::MIN_MTU;

/// An echo request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Chosen by who asks.
    pub identifier: u16,
    /// Counts requests.
    pub sequence: u16,
    /// Comes back as it was.
    pub data: &'a [u8],
}

/// An error about a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Bytes 4 to 8 of the message.
    pub info: u32,
    /// The start of the packet that it is about.
    pub quoted: &'a [u8],
}

impl<'a> IcmpError<'a> {
    /// IP header and upper-layer bytes (8 or more, as a rule) of the quoted packet.
    ///
    /// # Errors
    /// Those of [`IpHeader::parse_quoted`].
    pub fn quoted_packet(&self) -> Result<(IpHeader, &'a [u8]), WireError> {
        let ip = IpHeader::parse_quoted(self.quoted)?;
        Ok((ip, ip.upper_of(self.quoted)))
    }

    /// The flow that the quoted packet, which we are said to have sent, belongs to.
    ///
    /// # Errors
    /// Those of [`IpHeader::parse_quoted`] and [`Flow::of_outbound`].
    pub fn flow(&self) -> Result<Flow, WireError> {
        let (ip, l4) = self.quoted_packet()?;
        Flow::of_outbound(&ip, l4)
    }
}

/// An ICMP message for IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp4<'a> {
    /// Are you there?
    EchoRequest(Echo<'a>),
    /// I am.
    EchoReply(Echo<'a>),
    /// Destination unreachable (3), time exceeded (11), parameter problem (12).
    Error(IcmpError<'a>),
    /// Anything else.
    Other {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// An ICMP message for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp6<'a> {
    /// Are you there?
    EchoRequest(Echo<'a>),
    /// I am.
    EchoReply(Echo<'a>),
    /// Types below 128: destination unreachable (1), packet too big (2), time exceeded (3), parameter problem (4), ...
    Error(IcmpError<'a>),
    /// Anything else, neighbour discovery included ([`crate::nd`]).
    Other {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

const V4_ECHO_REPLY: u8 = 0;
const V4_UNREACHABLE: u8 = 3;
const V4_ECHO_REQUEST: u8 = 8;
const V4_TIME_EXCEEDED: u8 = 11;
const V4_PARAMETER: u8 = 12;
const V4_FRAGMENTATION_NEEDED: u8 = 4;
const V6_UNREACHABLE: u8 = 1;
const V6_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;
const V6_REDIRECT: u8 = 137;

struct Raw<'a> {
    kind: u8,
    code: u8,
    info: u32,
    rest: &'a [u8],
}

impl<'a> Raw<'a> {
    fn parse(message: &'a [u8]) -> Result<Raw<'a>, WireError> {
        let (h, rest) = message.split_first_chunk::<LEN>().ok_or(WireError::Short)?;
        Ok(Raw { kind: h[0], code: h[1], info: u32::from_be_bytes([h[4], h[5], h[6], h[7]]), rest })
    }

    fn echo(&self) -> Echo<'a> {
        Echo { identifier: (self.info >> 16) as u16, sequence: self.info as u16, data: self.rest }
    }

    fn error(&self) -> IcmpError<'a> {
        IcmpError { kind: self.kind, code: self.code, info: self.info, quoted: self.rest }
    }
}

impl<'a> Icmp4<'a> {
    /// Reads the whole ICMP message in `message`.
    ///
    /// # Errors
    /// [`WireError::Short`], [`WireError::Checksum`].
    pub fn parse(message: &'a [u8]) -> Result<Icmp4<'a>, WireError> {
        let raw = Raw::parse(message)?;
        if checksum::internet(message) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(match (raw.kind, raw.code) {
            (V4_ECHO_REQUEST, 0) => Icmp4::EchoRequest(raw.echo()),
            (V4_ECHO_REPLY, 0) => Icmp4::EchoReply(raw.echo()),
            (V4_UNREACHABLE | V4_TIME_EXCEEDED | V4_PARAMETER, _) => Icmp4::Error(raw.error()),
            (kind, code) => Icmp4::Other { kind, code },
        })
    }

    /// The MTU that a "fragmentation needed" tells (RFC 1191 §4); 0 from routers that do not.
    #[must_use]
    pub fn too_big(&self) -> Option<u16> {
        match self {
            Icmp4::Error(e) if (e.kind, e.code) == (V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED) => Some(e.info as u16),
            _ => None,
        }
    }

    /// Writes the message, checksum included, at the start of `out` and gives its length.
    ///
    /// # Errors
    /// [`WireError::NoRoom`]; [`WireError::Protocol`] for [`Icmp4::Other`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let len = match self {
            Icmp4::EchoRequest(e) => write_echo(out, V4_ECHO_REQUEST, e),
            Icmp4::EchoReply(e) => write_echo(out, V4_ECHO_REPLY, e),
            Icmp4::Error(e) => write_raw(out, [e.kind, e.code], e.info, e.quoted),
            Icmp4::Other { .. } => Err(WireError::Protocol),
        }?;
        let sum = checksum::internet(&out[..len]);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(len)
    }
}

impl<'a> Icmp6<'a> {
    /// Reads the whole ICMPv6 message in `message`, sent between these addresses.
    ///
    /// # Errors
    /// [`WireError::Short`], [`WireError::Checksum`].
    pub fn parse(src: IpAddr, dst: IpAddr, message: &'a [u8]) -> Result<Icmp6<'a>, WireError> {
        let raw = Raw::parse(message)?;
        if checksum::upper(src, dst, protocol::ICMPV6, message) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(match (raw.kind, raw.code) {
            (V6_ECHO_REQUEST, 0) => Icmp6::EchoRequest(raw.echo()),
            (V6_ECHO_REPLY, 0) => Icmp6::EchoReply(raw.echo()),
            (kind, _) if kind < 128 => Icmp6::Error(raw.error()),
            (kind, code) => Icmp6::Other { kind, code },
        })
    }

    /// The MTU that a "packet too big" tells (RFC 4443 §3.2).
    #[must_use]
    pub fn too_big(&self) -> Option<u32> {
        match self {
            Icmp6::Error(e) if e.kind == V6_TOO_BIG => Some(e.info),
            _ => None,
        }
    }

    /// Writes the message, checksum included, at the start of `out` and gives its length.
    ///
    /// # Errors
    /// [`WireError::NoRoom`]; [`WireError::Protocol`] for [`Icmp6::Other`].
    pub fn write(&self, src: IpAddr, dst: IpAddr, out: &mut [u8]) -> Result<usize, WireError> {
        let len = match self {
            Icmp6::EchoRequest(e) => write_echo(out, V6_ECHO_REQUEST, e),
            Icmp6::EchoReply(e) => write_echo(out, V6_ECHO_REPLY, e),
            Icmp6::Error(e) => write_raw(out, [e.kind, e.code], e.info, e.quoted),
            Icmp6::Other { .. } => Err(WireError::Protocol),
        }?;
        let sum = checksum::upper(src, dst, protocol::ICMPV6, &out[..len]);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(len)
    }
}

fn write_echo(out: &mut [u8], kind: u8, e: &Echo<'_>) -> Result<usize, WireError> {
    write_raw(out, [kind, 0], u32::from(e.identifier) << 16 | u32::from(e.sequence), e.data)
}

fn write_raw(out: &mut [u8], [kind, code]: [u8; 2], info: u32, rest: &[u8]) -> Result<usize, WireError> {
    let len = LEN + rest.len();
    let m = out.get_mut(..len).ok_or(WireError::NoRoom)?;
    m[..4].copy_from_slice(&[kind, code, 0, 0]);
    m[4..LEN].copy_from_slice(&info.to_be_bytes());
    m[LEN..].copy_from_slice(rest);
    Ok(len)
}

/// What to tell the sender of a packet that cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// The packet is longer than this and may not be fragmented.
    TooBig {
        /// The longest packet that fits.
        mtu: u16,
    },
    /// The hop limit was used up on the way.
    TimeExceeded,
    /// Policy forbids it.
    Prohibited,
    /// The host does not answer.
    Unreachable,
    /// Nobody listens on the port.
    NoPort,
}

impl Complaint {
    fn v4(self) -> ([u8; 2], u32) {
        match self {
            Complaint::TooBig { mtu } => ([V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED], u32::from(mtu)),
            Complaint::TimeExceeded => ([V4_TIME_EXCEEDED, 0], 0),
            Complaint::Prohibited => ([V4_UNREACHABLE, 13], 0),
            Complaint::Unreachable => ([V4_UNREACHABLE, 1], 0),
            Complaint::NoPort => ([V4_UNREACHABLE, 3], 0),
        }
    }

    fn v6(self) -> ([u8; 2], u32) {
        match self {
            Complaint::TooBig { mtu } => ([V6_TOO_BIG, 0], u32::from(mtu)),
            Complaint::TimeExceeded => ([V6_TIME_EXCEEDED, 0], 0),
            Complaint::Prohibited => ([V6_UNREACHABLE, 1], 0),
            Complaint::Unreachable => ([V6_UNREACHABLE, 3], 0),
            Complaint::NoPort => ([V6_UNREACHABLE, 4], 0),
        }
    }
}

/// Writes the whole IP packet with which `from` complains about `packet` to its source; gives its length.
///
/// # Errors
/// [`WireError::Protocol`] if there must be no error about such a packet, [`WireError::NoRoom`], and what is wrong with
/// `packet` itself.
pub fn write_complaint(out: &mut [u8], from: IpAddr, packet: &[u8], complaint: Complaint) -> Result<usize, WireError> {
    let ip = IpHeader::parse_prefix(packet)?;
    if !may_complain(&ip, packet, complaint) || from.is_ipv4() != ip.src.is_ipv4() {
        return Err(WireError::Protocol);
    }
    let header_len = ip::header_len(from);
    let max = if from.is_ipv4() { MAX_ERROR_V4 } else { MAX_ERROR_V6 };
    let quoted_len = packet.len().min(ip.total_len).min(max - header_len - LEN);
    let (start, info) = if from.is_ipv4() { complaint.v4() } else { complaint.v6() };
    let error = IcmpError { kind: start[0], code: start[1], info, quoted: &packet[..quoted_len] };
    let fields = ip::Fields {
        src: from,
        dst: ip.src,
        protocol: if from.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 },
        payload_len: LEN + quoted_len,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: false,
        identification: 0,
    };
    ip::write_header(out, &fields)?;
    let message = &mut out[header_len..];
    let len = if from.is_ipv4() {
        Icmp4::Error(error).write(message)?
    } else {
        Icmp6::Error(error).write(from, ip.src, message)?
    };
    Ok(header_len + len)
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4 e: no errors about errors, groups, later fragments, or to nobody.
fn may_complain(ip: &IpHeader, packet: &[u8], complaint: Complaint) -> bool {
    let group_is_fine = ip.version == 6 && matches!(complaint, Complaint::TooBig { .. });
    let to_group = ip.dst.is_multicast() || matches!(ip.dst, IpAddr::V4(a) if a.is_broadcast());
    let from_nobody = ip.src.is_unspecified() || ip.src.is_loopback();
    let later = ip.fragment.is_some_and(|f| f.offset != 0);
    let about_error = match (ip.upper, ip.upper_of(packet).first()) {
        (protocol::ICMP, kind) => !matches!(kind, Some(&(V4_ECHO_REQUEST | V4_ECHO_REPLY))),
        (protocol::ICMPV6, kind) => !kind.is_some_and(|k| *k >= 128 && *k != V6_REDIRECT),
        _ => false,
    };
    !(from_nobody || later || about_error || (to_group && !group_is_fine))
}
