//! Traffic selectors (RFC 7296 §3.13).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::CodecError;

/// More than anybody needs.
const MOST: usize = 64;

/// One range of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficSelector {
    /// 0: any.
    pub protocol: u8,
    pub first_port: u16,
    pub last_port: u16,
    pub first: IpAddr,
    pub last: IpAddr,
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        if self.protocol != 0 {
            write!(f, " protocol {}", self.protocol)?;
        }
        match (self.first_port, self.last_port) {
            (0, u16::MAX) => Ok(()),
            (first, last) if first == last => write!(f, " port {first}"),
            (first, last) => write!(f, " ports {first}-{last}"),
        }
    }
}

/// The body of a Traffic Selector payload. Selectors that are no address ranges are left out.
pub fn parse_selectors(body: &[u8]) -> Result<Vec<TrafficSelector>, CodecError> {
    let (head, mut rest) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
    let count = usize::from(head[0]);
    if count == 0 || count > MOST {
        return Err(CodecError::TooMany("traffic selectors"));
    }
    let mut selectors = Vec::with_capacity(count);
    for _ in 0..count {
        let head = rest.first_chunk::<8>().ok_or(CodecError::Length)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (selector, behind) = rest.split_at_checked(len).ok_or(CodecError::Length)?;
        rest = behind;
        let addresses = selector.get(8..).ok_or(CodecError::Length)?;
        let (first, last) = match head[0] {
            7 => both::<4>(addresses).map(|(a, b)| (Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into()))?,
            8 => both::<16>(addresses).map(|(a, b)| (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into()))?,
            _ => continue,
        };
        let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        selectors.push(TrafficSelector { protocol: head[1], first_port: port(4), last_port: port(6), first, last });
    }
    if rest.is_empty() { Ok(selectors) } else { Err(CodecError::Length) }
}

fn both<const N: usize>(bytes: &[u8]) -> Result<([u8; N], [u8; N]), CodecError> {
    match bytes.as_chunks() {
        ([first, last], []) => Ok((*first, *last)),
        _ => Err(CodecError::Length),
    }
}

/// The body of a Traffic Selector payload.
pub fn write_selectors(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    out.extend([selectors.len() as u8, 0, 0, 0]);
    for s in selectors {
        let (kind, len) = if s.first.is_ipv4() { (7, 16) } else { (8, 40) };
        out.extend([kind, s.protocol, 0, len]);
        out.extend(s.first_port.to_be_bytes());
        out.extend(s.last_port.to_be_bytes());
        for address in [s.first, s.last] {
            match address {
                IpAddr::V4(a) => out.extend(a.octets()),
                IpAddr::V6(a) => out.extend(a.octets()),
            }
        }
    }
}
