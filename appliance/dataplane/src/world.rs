//! What all cores know and none changes: ports with their owners and addresses, and the way to a destination.

use std::net::{IpAddr, Ipv6Addr};

use phalanx_wire::{CoreId, Mac};

use crate::config::{DataplaneConfig, Limits, PortRole};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ports: Box<[PortFacts]>,
    /// By position: the index of rings between cores.
    pub(crate) cores: Box<[CoreId]>,
    pub(crate) limits: Limits,
}

#[derive(Debug)]
pub(crate) struct PortFacts {
    pub(crate) role: PortRole,
    /// A link to one other process of this box, without addresses.
    pub(crate) memif: bool,
    pub(crate) mtu: usize,
    pub(crate) mac: Mac,
    /// Application ports: the MAC of the host's side.
    pub(crate) host_mac: Mac,
    pub(crate) addresses: Box<[(IpAddr, u8)]>,
    pub(crate) gateways: Box<[IpAddr]>,
    /// Position of the core it belongs to.
    pub(crate) owner: usize,
}

impl World {
    /// `macs` are the ports' own addresses, by index. The configuration was checked.
    pub(crate) fn new(config: &DataplaneConfig, macs: &[Mac]) -> World {
        let ports = config.ports.iter().enumerate().map(|(at, port)| PortFacts {
            role: port.role,
            memif: port.is_memif_link(),
            mtu: usize::from(port.mtu),
            mac: macs[at],
            host_mac: port.host_mac.unwrap_or(macs[at]),
            addresses: with_link_local(&port.addresses, macs[at]),
            gateways: port.gateways.clone().into(),
            owner: config.cores.iter().position(|core| core.ports.contains(&at)).unwrap_or(0),
        });
        let cores = config.cores.iter().map(|core| core.id).collect();
        World { ports: ports.collect(), cores, limits: config.limits.clone() }
    }

    #[inline]
    pub(crate) fn core(&self, id: CoreId) -> Option<usize> {
        self.cores.iter().position(|&core| core == id)
    }

    /// The network port and next hop towards `destination`.
    #[inline]
    pub(crate) fn route(&self, destination: IpAddr) -> Option<(usize, IpAddr)> {
        let network = || self.ports.iter().enumerate().filter(|(_, port)| port.role == PortRole::Network);
        let on_link = network().find(|(_, port)| port.is_on_link(destination)).map(|(at, _)| (at, destination));
        on_link.or_else(|| network().find_map(|(at, port)| Some((at, port.gateway(destination)?))))
    }

    /// The application port to deliver to: the core's own if it has one.
    pub(crate) fn application(&self, core: usize) -> Option<usize> {
        let application = || self.ports.iter().enumerate().filter(|(_, port)| port.role == PortRole::Application);
        application().find(|(_, port)| port.owner == core).or_else(|| application().next()).map(|(at, _)| at)
    }
}

impl PortFacts {
    #[inline]
    pub(crate) fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.is_on_link(destination) { Some(destination) } else { self.gateway(destination) }
    }

    #[inline]
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, _)| own == address)
    }

    /// Our address as the sender of a question about `target`: one on the same prefix, else any of the family.
    pub(crate) fn sender(&self, target: IpAddr) -> Option<IpAddr> {
        let near = self.addresses.iter().find(|&&(own, len)| within(target, own, len));
        let any = || self.addresses.iter().find(|(own, _)| own.is_ipv4() == target.is_ipv4());
        near.or_else(any).map(|&(own, _)| own)
    }

    #[inline]
    fn is_on_link(&self, destination: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, len)| within(destination, own, len))
    }

    #[inline]
    fn gateway(&self, destination: IpAddr) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == destination.is_ipv4())
    }
}

/// IPv6 ports have their link-local address too (RFC 4291 §2.5.6, appendix A).
fn with_link_local(addresses: &[(IpAddr, u8)], mac: Mac) -> Box<[(IpAddr, u8)]> {
    let mut all = addresses.to_vec();
    if addresses.iter().any(|(address, _)| address.is_ipv6()) {
        let [a, b, c, d, e, f] = mac.0;
        let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        octets[2..8].fill(0);
        all.push((IpAddr::V6(Ipv6Addr::from(octets)), 64));
    }
    all.into()
}

#[inline]
fn within(address: IpAddr, prefix: IpAddr, len: u8) -> bool {
    // As many bits as the prefix has are the same.
    match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(len.min(32)),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(len.min(128)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(role: PortRole, addresses: &[(&str, u8)], gateways: &[&str]) -> PortFacts {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let addresses: Vec<_> = addresses.iter().map(|(a, len)| (a.parse().unwrap(), *len)).collect();
        PortFacts {
            role,
            memif: false,
            mtu: 1500,
            mac,
            host_mac: mac,
            addresses: with_link_local(&addresses, mac),
            gateways: gateways.iter().map(|g| g.parse().unwrap()).collect(),
            owner: 0,
        }
    }

    #[test]
    fn what_is_on_a_prefix_goes_there_and_the_rest_by_the_gateway_of_its_family() {
        let ports = Box::new([
            port(PortRole::Link, &[("10.78.0.1", 24)], &["10.78.0.254"]),
            port(PortRole::Network, &[("10.77.0.1", 24), ("fd77::1", 64)], &["10.77.0.254"]),
        ]);
        let world = World { ports, cores: Box::new([CoreId(0)]), limits: Limits::default() };
        let route = |to: &str| world.route(to.parse().unwrap()).map(|(port, hop)| (port, hop.to_string()));
        assert_eq!(route("10.77.0.10"), Some((1, "10.77.0.10".into())));
        assert_eq!(route("192.0.2.1"), Some((1, "10.77.0.254".into())));
        assert_eq!(route("fd77::10"), Some((1, "fd77::10".into())));
        assert_eq!(route("2001:db8::1"), None);
        let sender = |to: &str| world.ports[1].sender(to.parse().unwrap()).unwrap().to_string();
        assert_eq!(sender("fe80::9"), "fe80::ff:fe00:1");
        assert_eq!(sender("fd77::9"), "fd77::1");
        assert_eq!(sender("192.0.2.1"), "10.77.0.1");
    }

    #[test]
    fn a_prefix_of_length_zero_holds_everything_of_its_family() {
        let within = |a: &str, b: &str, len| within(a.parse().unwrap(), b.parse().unwrap(), len);
        assert!(within("192.0.2.1", "10.0.0.1", 0));
        assert!(within("2001:db8::1", "fd77::1", 0));
        assert!(!within("2001:db8::1", "10.0.0.1", 0));
        assert!(within("10.0.0.1", "10.0.0.1", 32));
        assert!(!within("10.0.0.2", "10.0.0.1", 32));
    }
}
