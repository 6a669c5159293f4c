//! Selectors: which packets an SA or a filter is about (RFC 4301 §4.4.1.1), and what of a packet they look at.

use phalanx_wire::{Endpoint, Flow, IpHeader, flow::has_ports, protocol};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::IpsecError;

/// An address block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Everything of IPv4.
    pub const ANY_V4: Prefix = Prefix { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 };
    /// Everything of IPv6.
    pub const ANY_V6: Prefix = Prefix { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), len: 0 };

    /// `address/len`; bits behind the length must be 0.
    ///
    /// # Errors
    /// [`IpsecError::Prefix`].
    pub fn new(address: IpAddr, len: u8) -> Result<Prefix, IpsecError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = Prefix { address, len };
        if len > bits || (number(address) & !prefix.mask()) != 0 {
            return Err(IpsecError::Prefix(format!("{address}/{len}")));
        }
        Ok(prefix)
    }

    /// One address alone.
    #[must_use]
    pub const fn host(address: IpAddr) -> Prefix {
        Prefix { address, len: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits are fixed.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The address is of this block.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                (number(address) ^ number(self.address)) & self.mask() == 0
            }
            _ => false,
        }
    }

    /// One of the two contains the other.
    #[must_use]
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Both families fill the high bits, so one mask serves them.
    #[inline]
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0)
    }
}

/// The address as a number whose highest bit is the address's first.
#[inline]
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Prefix::host(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.len)
        }
    }
}

impl FromStr for Prefix {
    type Err = IpsecError;
    fn from_str(s: &str) -> Result<Prefix, IpsecError> {
        let bad = || IpsecError::Prefix(s.to_owned());
        match s.split_once('/') {
            None => Ok(Prefix::host(s.parse().map_err(|_| bad())?)),
            Some((address, len)) => {
                Prefix::new(address.parse().map_err(|_| bad())?, len.parse().map_err(|_| bad())?).map_err(|_| bad())
            }
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = IpsecError;
    fn try_from(s: String) -> Result<Self, IpsecError> {
        s.parse()
    }
}

impl From<Prefix> for String {
    #[inline]
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, and packets that have none.
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    /// `first..=last`.
    ///
    /// # Errors
    /// [`IpsecError::PortRange`] if the first is above the last.
    pub fn new(first: u16, last: u16) -> Result<PortRange, IpsecError> {
        if first > last { Err(IpsecError::PortRange(format!("{first}-{last}"))) } else { Ok(PortRange { first, last }) }
    }

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// The first port.
    #[must_use]
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The last port.
    #[must_use]
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// The port is of this range. A packet without ports is only of the range of all (RFC 4301 §4.4.1.1, OPAQUE).
    #[inline]
    #[must_use]
    pub fn contains(&self, port: Option<u16>) -> bool {
        match port {
            Some(port) => self.first <= port && port <= self.last,
            None => *self == Self::ANY,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => f.pad("any"),
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for PortRange {
    type Err = IpsecError;
    fn from_str(s: &str) -> Result<PortRange, IpsecError> {
        let bad = || IpsecError::PortRange(s.to_owned());
        if s == "any" {
            return Ok(Self::ANY);
        }
        let (first, last) = s.split_once('-').unwrap_or((s, s));
        Self::new(first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?)
    }
}

impl TryFrom<String> for PortRange {
    type Error = IpsecError;
    fn try_from(s: String) -> Result<Self, IpsecError> {
        s.parse()
    }
}

impl From<PortRange> for String {
    #[inline]
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

/// Which packets: local is our side, whatever the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selectors {
    /// Our addresses (of the inner packet in tunnel mode).
    pub local: Prefix,
    /// The peer's addresses.
    pub remote: Prefix,
    /// One upper-layer protocol, or all.
    pub protocol: Option<u8>,
    /// Our ports.
    pub local_ports: PortRange,
    /// The peer's ports.
    pub remote_ports: PortRange,
}

impl Selectors {
    /// Every packet between two blocks.
    #[must_use]
    pub const fn between(local: Prefix, remote: Prefix) -> Selectors {
        Selectors { local, remote, protocol: None, local_ports: PortRange::ANY, remote_ports: PortRange::ANY }
    }

    /// The packet is one of these.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        self.protocol.is_none_or(|p| p == subject.protocol)
            && self.local.contains(subject.local)
            && self.remote.contains(subject.remote)
            && self.local_ports.contains(subject.local_port)
            && self.remote_ports.contains(subject.remote_port)
    }

    /// Some packet could be of both.
    #[must_use]
    pub fn overlaps(&self, other: &Selectors) -> bool {
        let protocols = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let ports = |a: &PortRange, b: &PortRange| a.first <= b.last && b.first <= a.last;
        protocols
            && self.local.overlaps(&other.local)
            && self.remote.overlaps(&other.remote)
            && ports(&self.local_ports, &other.local_ports)
            && ports(&self.remote_ports, &other.remote_ports)
    }
}

/// What selectors and filters look at: addresses, protocol, and ports where the packet shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Our side's address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Our port; none in a later fragment or a protocol without ports.
    pub local_port: Option<u16>,
    /// The peer's port.
    pub remote_port: Option<u16>,
}

impl Subject {
    /// Its flow, of TCP or UDP whose ports are seen.
    #[inline]
    #[must_use]
    pub fn flow(&self) -> Option<Flow> {
        if !matches!(self.protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let local = Endpoint::new(self.local, self.local_port?);
        Some(Flow { protocol: self.protocol, local, remote: Endpoint::new(self.remote, self.remote_port?) })
    }

    /// Of a packet that comes in: its destination is ours. `packet` begins with the IP header `ip` describes.
    #[inline]
    #[must_use]
    pub fn inbound(ip: &IpHeader, packet: &[u8]) -> Subject {
        let ports = ports(ip, packet);
        Subject {
            local: ip.dst,
            remote: ip.src,
            protocol: ip.upper,
            local_port: ports.map(|p| p.1),
            remote_port: ports.map(|p| p.0),
        }
    }

    /// Of a packet that goes out: its source is ours.
    #[inline]
    #[must_use]
    pub fn outbound(ip: &IpHeader, packet: &[u8]) -> Subject {
        let ports = ports(ip, packet);
        Subject {
            local: ip.src,
            remote: ip.dst,
            protocol: ip.upper,
            local_port: ports.map(|p| p.0),
            remote_port: ports.map(|p| p.1),
        }
    }
}

impl From<&Flow> for Subject {
    #[inline]
    fn from(flow: &Flow) -> Subject {
        let has_ports = has_ports(flow.protocol);
        Subject {
            local: flow.local.addr,
            remote: flow.remote.addr,
            protocol: flow.protocol,
            local_port: has_ports.then_some(flow.local.port),
            remote_port: has_ports.then_some(flow.remote.port),
        }
    }
}

/// Source and destination port, where the packet shows them.
#[inline]
fn ports(ip: &IpHeader, packet: &[u8]) -> Option<(u16, u16)> {
    if !has_ports(ip.upper) || ip.fragment.is_some_and(|f| f.offset > 0) {
        return None;
    }
    let b = packet.get(ip.upper_offset..)?.first_chunk::<4>()?;
    Some((u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]])))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn subject(local: &str, remote: &str, ports: Option<(u16, u16)>) -> Subject {
        Subject {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            protocol: 6,
            local_port: ports.map(|p| p.0),
            remote_port: ports.map(|p| p.1),
        }
    }

    #[test]
    fn a_prefix_contains_its_addresses_and_no_others() {
        let p: Prefix = "10.77.0.0/24".parse().unwrap();
        assert!(p.contains("10.77.0.255".parse().unwrap()));
        assert!(!p.contains("10.77.1.0".parse().unwrap()));
        assert!(!p.contains("::a4d:0:1".parse().unwrap()));
        assert!(Prefix::ANY_V6.contains("fd77::1".parse().unwrap()));
        assert!(!Prefix::ANY_V4.contains("fd77::1".parse().unwrap()));
        assert!("::1".parse::<Prefix>().unwrap().contains("::1".parse().unwrap()));
        assert!(!"::1".parse::<Prefix>().unwrap().contains("::2".parse().unwrap()));
    }

    #[test]
    fn prefixes_and_ranges_survive_their_own_text() {
        for text in ["10.0.0.0/8", "10.1.2.3", "fd77::/64", "0.0.0.0/0", "::/0", "fd77::1"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        for text in ["any", "80", "8000-8999"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "x", "fd77::/129", ""] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        for bad in ["9-8", "", "x", "70000"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_packet_without_ports_matches_only_where_every_port_does() {
        let mut s = Selectors::between("10.77.0.100".parse().unwrap(), Prefix::ANY_V4);
        let fragment = subject("10.77.0.100", "10.99.0.10", None);
        assert!(s.matches(&fragment));
        s.local_ports = PortRange::one(80);
        assert!(!s.matches(&fragment));
        assert!(s.matches(&subject("10.77.0.100", "10.99.0.10", Some((80, 4000)))));
        assert!(!s.matches(&subject("10.77.0.100", "10.99.0.10", Some((81, 4000)))));
        assert!(!s.matches(&subject("10.77.0.101", "10.99.0.10", Some((80, 4000)))));
    }

    #[test]
    fn selectors_overlap_when_one_packet_could_be_of_both() {
        let a = Selectors::between("10.0.0.0/8".parse().unwrap(), Prefix::ANY_V4);
        let mut b = Selectors::between("10.1.0.0/16".parse().unwrap(), Prefix::ANY_V4);
        assert!(a.overlaps(&b) && b.overlaps(&a));
        b.protocol = Some(17);
        let tcp = Selectors { protocol: Some(6), ..a };
        assert!(!tcp.overlaps(&b));
        assert!(!a.overlaps(&Selectors::between("11.0.0.0/8".parse().unwrap(), Prefix::ANY_V4)));
    }
}
