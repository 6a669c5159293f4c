//! What a device string means, and why a device could not be had.

use std::path::Path;

use crate::eal::Eal;
use crate::error::DpdkError;
use crate::host::interface_index;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Vdev,
    Pci,
}

impl Bus {
    pub(crate) fn name(self) -> &'static std::ffi::CStr {
        match self {
            Bus::Vdev => c"vdev",
            Bus::Pci => c"pci",
        }
    }
}

/// `net_tap0,iface=phx0` or `0000:01:00.0,arg=value`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub text: String,
    pub bus: Bus,
    /// What DPDK calls it: `net_tap0`, `0000:01:00.0`.
    pub name: String,
    /// The rest, as key=value.
    pub args: String,
}

impl Device {
    pub(crate) fn parse(text: &str) -> Result<Device, DpdkError> {
        let bad = |why| Err(DpdkError::BadName { name: text.to_owned(), why });
        let (name, args) = text.split_once(',').unwrap_or((text, ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if name.is_empty() || name.len() > 60 || !name.chars().all(fits) {
            return bad("is not a device: a vdev such as net_tap0,iface=phx0 or a PCI address such as 0000:01:00.0");
        }
        if !args.chars().all(|c| c.is_ascii_graphic()) {
            return bad("has a space or a control character among its arguments");
        }
        let (bus, name) = match canonical_pci(name) {
            Some(address) => (Bus::Pci, address),
            None if name.contains(':') => return bad("is not a PCI address such as 0000:01:00.0"),
            None => (Bus::Vdev, name.to_owned()),
        };
        Ok(Device { text: text.to_owned(), bus, name, args: args.to_owned() })
    }

    /// The driver that a vdev's name asks for: `net_tap` of `net_tap0`.
    pub(crate) fn driver(&self) -> &str {
        self.name.trim_end_matches(|c: char| c.is_ascii_digit())
    }

    /// AF_PACKET: the host's interface, whose MTU is the port's.
    pub(crate) fn packet_interface(&self) -> Option<&str> {
        matches!(self.driver(), "net_af_packet" | "eth_af_packet").then(|| self.argument("iface")).flatten()
    }

    /// AF_PACKET: the largest MTU whose frames the kernel does not cut to fit the driver's slots.
    /// A slot begins with 66 bytes of the kernel's own (TPACKET_V2 header, address, alignment for
    /// a 14-byte Ethernet header), then the frame with a VLAN tag.
    pub(crate) fn packet_mtu_limit(&self) -> u16 {
        let slot = self.argument("framesz").and_then(|size| size.parse::<u32>().ok()).unwrap_or(2048);
        u16::try_from(slot.saturating_sub(66 + 18)).unwrap_or(u16::MAX)
    }

    /// memif: packets are copied to buffers that the client made, and larger ones would go over several of them.
    pub(crate) fn memif_mtu_limit(&self) -> Option<u16> {
        let buffer = || self.argument("bsize").and_then(|size| size.parse::<u16>().ok()).unwrap_or(2048);
        (self.driver() == "net_memif").then(|| buffer().saturating_sub(18))
    }

    /// memif: whether it is the client, and the file of the socket that both ends name.
    pub(crate) fn memif(&self) -> Option<(bool, &str)> {
        let client = !matches!(self.argument("role"), Some("server" | "master"));
        self.argument("socket").filter(|_| self.driver() == "net_memif").map(|socket| (client, socket))
    }

    pub(crate) fn argument(&self, key: &str) -> Option<&str> {
        self.args.split(',').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// What DPDK would only report as "failed", or not at all: the host interface is not there, or
    /// in the way, or an argument of the TAP driver is mistyped.
    pub(crate) fn check_host(&self) -> Result<(), DpdkError> {
        let bad = |why| Err(DpdkError::BadName { name: self.text.clone(), why });
        let needed = match self.driver() {
            "net_af_packet" | "eth_af_packet" | "net_af_xdp" => match self.argument("iface") {
                None => return bad("does not name a network interface of the host: add iface=NAME"),
                interface => interface,
            },
            "net_pcap" => self.argument("iface"),
            "net_tap" => {
                let known = |pair: &str| ["iface=", "mac=", "remote="].iter().any(|key| pair.starts_with(key));
                if !self.args.split(',').all(|pair| pair.is_empty() || known(pair)) {
                    return bad("has an argument that net_tap would ignore; it knows iface=, mac= and remote=");
                }
                self.check_tap_name()?;
                self.argument("remote")
            }
            "net_memif" => match self.argument("socket") {
                Some(file) if file.starts_with('/') && self.argument("socket-abstract") != Some("yes") => None,
                _ => return bad("does not say where the two ends meet: add socket=/PATH"),
            },
            _ => None,
        };
        match needed {
            Some(name) if interface_index(name).is_none() => {
                Err(DpdkError::NoInterface { device: self.text.clone(), interface: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// A TAP of the same name would be joined rather than refused, and its packets shared.
    fn check_tap_name(&self) -> Result<(), DpdkError> {
        let Some(name) = self.argument("iface") else { return Ok(()) };
        if name.is_empty() || name.len() > 15 || name.contains('/') {
            let why = "has an interface name that the host cannot take: 1 to 15 bytes without a slash";
            return Err(DpdkError::BadName { name: self.text.clone(), why });
        }
        match interface_index(name) {
            Some(_) => Err(DpdkError::InterfaceTaken { device: self.text.clone(), interface: name.to_owned() }),
            None => Ok(()),
        }
    }

    pub(crate) fn no_driver(&self) -> DpdkError {
        let driver = self.driver().to_owned();
        let package = package(&driver);
        DpdkError::NoDriver { device: self.text.clone(), driver, package }
    }

    /// Why a PCI device is not among DPDK's ports.
    pub(crate) fn no_pci_device(&self, eal: &Eal, log: String) -> DpdkError {
        let folder = Path::new("/sys/bus/pci/devices").join(&self.name);
        let driver = std::fs::read_link(folder.join("driver"))
            .ok()
            .and_then(|link| link.file_name().map(|name| name.to_string_lossy().into_owned()));
        let bind = format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {}  (package dpdk)", self.name);
        let why = if !folder.exists() {
            "there is no such PCI device; lspci -D lists what there is".to_owned()
        } else if !eal.allows_pci(&self.name) {
            "it is not in the list of PCI devices that DPDK was started with".to_owned()
        } else {
            match driver.as_deref() {
                Some("vfio-pci" | "uio_pci_generic" | "igb_uio") => {
                    "no DPDK driver takes it; install them all:  apt-get install dpdk librte-meta-net".to_owned()
                }
                Some(kernel) => format!("the kernel's driver {kernel} holds it; hand it over:  {bind}"),
                None => format!("no driver is bound to it; bind one:  {bind}"),
            }
        };
        DpdkError::NoDevice { device: self.text.clone(), why, log }
    }
}

/// Debian's package of a driver: `net_tap` is in librte-net-tap23, `net_mlx5` in librte-net-mlx5-23.
fn package(driver: &str) -> String {
    let name = driver.replace("eth_", "net_").replace('_', "-");
    let dash = if name.ends_with(|c: char| c.is_ascii_digit()) { "-" } else { "" };
    format!("librte-{name}{dash}{}", abi())
}

/// The number of the driver interface is the year of the long-term release plus one: 22.11 has 23.
fn abi() -> u32 {
    let version = Eal::version();
    let year = version.trim_start_matches("DPDK ").split('.').next().and_then(|year| year.parse::<u32>().ok());
    year.unwrap_or(22) + 1
}

/// `1:0.0`, `01:00.0` and `0000:01:00.0` name the same device; DPDK knows the last form.
fn canonical_pci(text: &str) -> Option<String> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let hex = |part: &str, digits: usize| {
        (!part.is_empty() && part.len() <= digits).then(|| u32::from_str_radix(part, 16).ok()).flatten()
    };
    let device = hex(parts.next()?, 2)?;
    let bus = hex(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |part| hex(part, 8))?;
    let function = hex(function, 1)?;
    if parts.next().is_some() || device > 0x1f || function > 7 {
        return None;
    }
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vdev_string_is_taken_apart() {
        let device = Device::parse("net_af_packet1,iface=veth0,qdisc_bypass=1").unwrap();
        assert_eq!((device.bus, device.name.as_str()), (Bus::Vdev, "net_af_packet1"));
        assert_eq!(device.driver(), "net_af_packet");
        assert_eq!(device.argument("iface"), Some("veth0"));
        assert_eq!(device.argument("mac"), None);
    }

    #[test]
    fn every_spelling_of_a_pci_address_is_the_same_device() {
        for text in ["1:0.0", "01:00.0", "0000:01:00.0"] {
            let device = Device::parse(text).unwrap();
            assert_eq!((device.bus, device.name.as_str()), (Bus::Pci, "0000:01:00.0"));
        }
    }

    #[test]
    fn nonsense_is_refused_before_dpdk_sees_it() {
        for text in ["", "net tap", "0000:01:20.0", "0000:01:00.8", "a:b:c:d.0", "net_tap0,iface=a b", "x\0"] {
            assert!(matches!(Device::parse(text), Err(DpdkError::BadName { .. })), "{text:?}");
        }
    }

    #[test]
    fn the_package_of_a_driver_is_debians_name() {
        assert_eq!(package("net_af_packet"), format!("librte-net-af-packet{}", abi()));
        assert_eq!(package("net_mlx5"), format!("librte-net-mlx5-{}", abi()));
    }
}
