//! The two ends of a conversation, seen from our side.

use crate::{IpHeader, WireError, protocol};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address and a port; the port is 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// An end of a flow.
    #[inline]
    #[must_use]
    pub const fn new(addr: IpAddr, port: u16) -> Self {
        Self { addr, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(a: SocketAddr) -> Self {
        Self::new(a.ip(), a.port())
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(e: Endpoint) -> Self {
        SocketAddr::new(e.addr, e.port)
    }
}

/// As a socket address: `10.77.0.100:80`, `[fd77::100]:80`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SocketAddr::from(*self), f)
    }
}

/// One conversation: an upper-layer protocol and its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Our end: the VIP's.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
}

impl Flow {
    /// The flow of a packet that comes to us. `l4` is its upper-layer header, of which 4 bytes are enough.
    ///
    /// # Errors
    /// [`WireError::Fragment`] for any fragment but the first, [`WireError::Short`] if the ports are not there.
    #[inline]
    pub fn of_inbound(ip: &IpHeader, l4: &[u8]) -> Result<Flow, WireError> {
        let (src, dst) = ports(ip, l4)?;
        Ok(Flow { protocol: ip.upper, local: Endpoint::new(ip.dst, dst), remote: Endpoint::new(ip.src, src) })
    }

    /// The flow of a packet that we send, or that we sent and an ICMP error quotes. `l4` as for [`Flow::of_inbound`].
    ///
    /// # Errors
    /// Those of [`Flow::of_inbound`].
    #[inline]
    pub fn of_outbound(ip: &IpHeader, l4: &[u8]) -> Result<Flow, WireError> {
        let (src, dst) = ports(ip, l4)?;
        Ok(Flow { protocol: ip.upper, local: Endpoint::new(ip.src, src), remote: Endpoint::new(ip.dst, dst) })
    }
}

/// A flow between two IPv4 addresses: of each packet it is compared with that of the packet before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow4 {
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Our address and port.
    pub local: (Ipv4Addr, u16),
    /// The peer's.
    pub remote: (Ipv4Addr, u16),
}

impl From<Flow4> for Flow {
    #[inline]
    fn from(Flow4 { protocol, local, remote }: Flow4) -> Flow {
        let end = |(addr, port): (Ipv4Addr, u16)| Endpoint { addr: IpAddr::V4(addr), port };
        Flow { protocol, local: end(local), remote: end(remote) }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} <-> {}", self.protocol, self.local, self.remote)
    }
}

/// Whether the protocol's header starts with a source and a destination port.
#[inline]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE)
}

#[inline]
fn ports(ip: &IpHeader, l4: &[u8]) -> Result<(u16, u16), WireError> {
    if ip.fragment.is_some_and(|f| f.offset != 0) {
        return Err(WireError::Fragment);
    }
    if !has_ports(ip.upper) {
        return Ok((0, 0));
    }
    let p = l4.first_chunk::<4>().ok_or(WireError::Short)?;
    Ok((u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]])))
}
