//! Strings and numbers with a meaning: names, port ranges, protocols, devices.

use super::{Algorithm, Device, PortRange};
use ipnet::IpNet;
use std::net::IpAddr;
use std::str::FromStr;

/// The algorithm of an SA, which says its protocol, too; hyphens are nobody's business.
pub(super) struct Cipher(pub Algorithm);

impl FromStr for Cipher {
    type Err = String;
    fn from_str(s: &str) -> Result<Cipher, String> {
        let plain = |s: &str| s.replace('-', "");
        let found = Algorithm::ALL.into_iter().find(|a| plain(a.name()) == plain(s));
        found.map(Cipher).ok_or_else(|| format!("must be one of {}", Algorithm::ALL.map(Algorithm::name).join(", ")))
    }
}

/// A block of addresses, or one address.
pub(super) struct Block(pub IpNet);

impl FromStr for Block {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<Block, &'static str> {
        let one = s.parse::<IpAddr>().map(IpNet::from).map_err(drop);
        let net = one.or_else(|()| s.parse()).map_err(|_| "is no address or block such as \"10.99.0.0/24\"")?;
        Ok(Block(net))
    }
}

/// A node's name: a DNS label, since it is also the name in the node's certificate.
pub(super) struct NodeName(pub String);

impl FromStr for NodeName {
    type Err = String;
    fn from_str(s: &str) -> Result<NodeName, String> {
        let ok = !s.is_empty()
            && s.len() <= 63
            && !s.starts_with('-')
            && !s.ends_with('-')
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(NodeName(s.to_owned()))
        } else {
            Err("a node's name is 1 to 63 of a-z, 0-9 and inner `-`".to_owned())
        }
    }
}

/// Where a node is on the trusted link.
pub(super) enum NodeLink {
    /// Its address, over GRE.
    Address(IpAddr),
    /// Our port that leads there.
    Memif(String),
}

impl FromStr for NodeLink {
    type Err = String;
    fn from_str(s: &str) -> Result<NodeLink, String> {
        match s.strip_prefix("memif:") {
            Some(port) => Ok(NodeLink::Memif(port.parse::<Name>()?.0)),
            None => s.parse().map(NodeLink::Address).map_err(|e: std::net::AddrParseError| e.to_string()),
        }
    }
}

/// Any other name. A tunnel's travels in messages of fixed size: 31 bytes.
pub(super) struct Name(pub String);

impl FromStr for Name {
    type Err = String;
    fn from_str(s: &str) -> Result<Name, String> {
        let ok = !s.is_empty() && s.len() <= 31 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if ok { Ok(Name(s.to_owned())) } else { Err("a name is 1 to 31 letters, digits, `-`, `_` or `.`".to_owned()) }
    }
}

impl PortRange {
    /// Every port.
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    /// Whether the two have a port in common.
    pub fn overlaps(&self, other: &PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(s: &str) -> Result<PortRange, String> {
        let wrong = || format!("`{s}` is no port or range of ports such as \"1000-2000\"");
        let (first, last) = match s.split_once('-') {
            Some((a, b)) => (a.trim(), b.trim()),
            None => (s.trim(), s.trim()),
        };
        let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last {
            return Err(format!("the range `{s}` ends before it begins"));
        }
        Ok(PortRange { first, last })
    }
}

/// IP protocol by name or number; `any` is `None`.
pub(super) fn protocol(s: &str) -> Result<Option<u8>, String> {
    Ok(Some(match s {
        "any" => return Ok(None),
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "icmpv6" => 58,
        "sctp" => 132,
        _ => return Err("must be `any`, `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or a number up to 255".to_owned()),
    }))
}

impl FromStr for Device {
    type Err = String;
    fn from_str(s: &str) -> Result<Device, String> {
        if let Some(pci) = pci(s) {
            return Ok(Device::Pci(pci));
        }
        let mut parts = s.split(',');
        let driver = parts.next().unwrap_or("").trim_end_matches(|c: char| c.is_ascii_digit());
        if !driver.starts_with("net_")
            || driver.len() < 6
            || !driver.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            let example = "`0000:01:00.0`, `net_af_packet,iface=eth1` or `net_tap,iface=px0`";
            return Err(format!("is neither a PCI address nor a DPDK virtual device: {example}"));
        }
        let mut args = Vec::new();
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("the argument `{part}` has no `=`"));
            };
            if key.is_empty() || value.is_empty() || part.contains(char::is_whitespace) {
                return Err(format!("the argument `{part}` must read `key=value`, without blanks"));
            }
            args.push((key.to_owned(), value.to_owned()));
        }
        Ok(Device::Vdev { driver: driver.to_owned(), args })
    }
}

/// `[dddd:]bb:dd.f` with its domain, or nothing.
fn pci(s: &str) -> Option<String> {
    let (rest, function) = s.split_once('.')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let (domain, bus, device) = match parts.as_slice() {
        [b, d] => ("0000", *b, *d),
        [dom, b, d] => (*dom, *b, *d),
        _ => return None,
    };
    let hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
    let good = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7']);
    good.then(|| format!("{domain}:{bus}:{device}.{function}").to_lowercase())
}

impl Device {
    /// The kernel's interface behind a software device (`iface=…`).
    pub fn netdev(&self) -> Option<&str> {
        match self {
            Device::Pci(_) => None,
            Device::Vdev { args, .. } => args.iter().find(|a| a.0 == "iface").map(|a| a.1.as_str()),
        }
    }

    /// The driver of a virtual device.
    pub fn driver(&self) -> Option<&str> {
        match self {
            Device::Pci(_) => None,
            Device::Vdev { driver, .. } => Some(driver),
        }
    }

    /// What EAL is told (`--vdev` or `--allow`). `index` makes virtual devices' names unique.
    pub fn eal_argument(&self, index: usize) -> String {
        match self {
            Device::Pci(address) => address.clone(),
            Device::Vdev { driver, args } => {
                let mut out = format!("{driver}{index}");
                for (key, value) in args {
                    out.push_str(&format!(",{key}={value}"));
                }
                // What we send must pass beside the host's egress filter, which is for what the kernel sends (I9).
                if driver == "net_af_packet" && !args.iter().any(|a| a.0 == "qdisc_bypass") {
                    out.push_str(",qdisc_bypass=1");
                }
                out
            }
        }
    }

    /// The name DPDK then knows the device by.
    pub fn eal_name(&self, index: usize) -> String {
        match self {
            Device::Pci(address) => address.clone(),
            Device::Vdev { driver, .. } => format!("{driver}{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_pci_addresses_or_virtual_ones() {
        assert_eq!("01:00.0".parse::<Device>().unwrap(), Device::Pci("0000:01:00.0".to_owned()));
        let tap: Device = "net_tap0,iface=px0".parse().unwrap();
        assert_eq!(tap.netdev(), Some("px0"));
        assert_eq!(tap.eal_argument(3), "net_tap3,iface=px0");
        let veth: Device = "net_af_packet,iface=eth1".parse().unwrap();
        assert_eq!(veth.eal_argument(0), "net_af_packet0,iface=eth1,qdisc_bypass=1");
        assert!("eth1".parse::<Device>().is_err());
        assert!("net_tap,px0".parse::<Device>().unwrap_err().contains("px0"));
    }

    #[test]
    fn a_range_of_ports_must_not_run_backwards() {
        assert_eq!("80".parse(), Ok(PortRange { first: 80, last: 80 }));
        assert_eq!("1000-2000".parse(), Ok(PortRange { first: 1000, last: 2000 }));
        assert!("2000-1000".parse::<PortRange>().is_err());
        assert!("70000".parse::<PortRange>().is_err());
    }
}
