//! Sets of rules for tests: what an operator with many peers has, and what only an enemy of the tree would write.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use phalanx_ipsec::{Action, Filter, PortRange, Prefix, Selectors, Subject, TunnelName};
use phalanx_wire::VipId;

pub const VIP: VipId = VipId(1);

pub fn local() -> IpAddr {
    "10.77.0.100".parse().unwrap()
}

pub fn filter(selectors: Selectors, action: Action) -> Filter {
    Filter { vip: VIP, selectors, action, log: false }
}

fn tunnel(n: usize) -> Action {
    Action::Protect(TunnelName::new(&format!("t{n}")).unwrap())
}

fn block(address: u32, len: u8) -> Prefix {
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(address & mask)), len).unwrap()
}

/// The n-th peer's inner address or network: half of them hosts, the others networks of three sizes.
pub fn peer(n: usize) -> Prefix {
    let at = 0x0a80_0000 + (n as u32) * 256;
    match n % 8 {
        0..4 => Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(at + 7))),
        4..6 => block(at, 24),
        6 => block(at, 28),
        _ => block(at, 30),
    }
}

/// `n` rules as an operator with many peers has them: of every twenty, one names a service (a port or a range of them, for
/// everybody or for one network), one denies a network something, the others are a peer's tunnel each. The last one says
/// what happens to the rest.
pub fn realistic(n: usize) -> Vec<Filter> {
    let mut rules = Vec::with_capacity(n);
    let ours = Prefix::host(local());
    for at in 0..n.saturating_sub(1) {
        let any = Selectors::between(ours, Prefix::ANY_V4);
        let port = 1024 + (at % 40_000) as u16;
        rules.push(match at % 20 {
            0 if at % 40 == 0 => {
                filter(Selectors { protocol: Some(6), local_ports: PortRange::one(port), ..any }, Action::Deny)
            }
            0 => {
                let local_ports = PortRange::new(port, port + 15).unwrap();
                filter(
                    Selectors { protocol: Some(17), local_ports, remote: block(0x0a00_0000, 8), ..any },
                    Action::Permit,
                )
            }
            1 => filter(
                Selectors { protocol: Some(6), remote: block(0xac10_0000 + at as u32 * 64, 26), ..any },
                Action::Deny,
            ),
            _ => filter(Selectors::between(ours, peer(at)), tunnel(at)),
        });
    }
    rules.push(filter(Selectors::between(ours, Prefix::ANY_V4), tunnel(0)));
    rules
}

/// A packet of rule `at`: each of its values at one of the ends, as the bits of `corner` say.
pub fn packet_of(rule: &Filter, corner: u32) -> Subject {
    let s = &rule.selectors;
    let pick = |bit: u32| corner >> bit & 1 == 1;
    let port = |range: PortRange, bit| if pick(bit) { range.first() } else { range.last() };
    let protocol = s.protocol.unwrap_or(6);
    Subject {
        local: end(&s.local, pick(0)),
        remote: end(&s.remote, pick(1)),
        protocol,
        local_port: Some(port(s.local_ports, 2)),
        remote_port: Some(port(s.remote_ports, 3)),
    }
}

fn end(prefix: &Prefix, last: bool) -> IpAddr {
    let len = u32::from(prefix.prefix_len());
    match prefix.address() {
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() | if last { host } else { 0 }))
        }
        IpAddr::V6(a) => {
            let host = u128::MAX.checked_shr(len).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() | if last { host } else { 0 }))
        }
    }
}

/// The oracle: first match of all, one after the other.
pub fn first_match(rules: &[Filter], of: impl Fn(VipId) -> bool, subject: &Subject) -> Option<usize> {
    rules.iter().position(|rule| of(rule.vip) && rule.selectors.matches(subject))
}
