//! Which traffic: our selectors as a peer's, and what both have in common (RFC 7296 §2.9).
//!
//! An SA here has one selector for each side, with one block of addresses. A peer may list several and any range, so that of what both
//! accept the largest pair is taken that holds the packet the peer began with, if it told one.

use phalanx_ipsec::{PortRange, Prefix, Selectors};
use std::net::IpAddr;

use crate::codec::TrafficSelector;
use crate::{ChildConfig, Path};

/// What the configuration says, with the addresses that it leaves to the path.
pub fn configured(child: &ChildConfig, path: &Path) -> Selectors {
    Selectors {
        local: child.local.unwrap_or(Prefix::host(path.local.ip())),
        remote: child.remote.unwrap_or(Prefix::host(path.remote.ip())),
        protocol: child.protocol,
        local_ports: child.local_ports,
        remote_ports: child.remote_ports,
    }
}

/// The local and the remote side as a peer gets to know them.
pub fn as_pair(selectors: &Selectors) -> (TrafficSelector, TrafficSelector) {
    let side = |prefix: &Prefix, ports: &PortRange| {
        let (first, last) = ends(prefix);
        let protocol = selectors.protocol.unwrap_or(0);
        TrafficSelector { protocol, first_port: ports.first(), last_port: ports.last(), first, last }
    };
    (side(&selectors.local, &selectors.local_ports), side(&selectors.remote, &selectors.remote_ports))
}

/// The part of `ours` that the peer's lists have too, and whether there would have been more.
pub fn narrow(ours: &Selectors, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<(Selectors, bool)> {
    let (our_local, our_remote) = as_pair(ours);
    let begun_with = local.first().zip(remote.first()).filter(|(l, r)| l.first == l.last && r.first == r.last);
    let mut best: Option<(Selectors, (bool, u32))> = None;
    let mut possible = 0;
    for l in local {
        for r in remote {
            let (Some(l), Some(r)) = (common(&our_local, l), common(&our_remote, r)) else { continue };
            let Some(protocol) = either(l.protocol, r.protocol) else { continue };
            // The packet that the peer began with, if it is in here.
            let packet = begun_with.filter(|(bl, br)| common(&l, bl).is_some() && common(&r, br).is_some());
            let (Some(l_block), Some(r_block)) =
                (block(l.first, l.last, packet.map(|p| p.0.first)), block(r.first, r.last, packet.map(|p| p.1.first)))
            else {
                continue;
            };
            let (Ok(local_ports), Ok(remote_ports)) =
                (PortRange::new(l.first_port, l.last_port), PortRange::new(r.first_port, r.last_port))
            else {
                continue;
            };
            possible += 1 + u32::from((ends(&l_block), ends(&r_block)) != ((l.first, l.last), (r.first, r.last)));
            let protocol = (protocol != 0).then_some(protocol);
            let found = Selectors { local: l_block, remote: r_block, protocol, local_ports, remote_ports };
            let score = (packet.is_some(), size(&found));
            if best.as_ref().is_none_or(|(_, known)| score > *known) {
                best = Some((found, score));
            }
        }
    }
    best.map(|(found, _)| (found, possible > 1))
}

/// What a peer answered to our offer: exactly what one SA can carry and nothing that was not offered, else none.
pub fn answered(offered: &Selectors, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<Selectors> {
    // It may repeat a part of a larger one: the packet that we began with.
    let largest =
        |list: &[TrafficSelector]| list.iter().copied().find(|one| list.iter().all(|t| common(one, t) == Some(*t)));
    let (l, r) = (largest(local)?, largest(remote)?);
    let (found, _) = narrow(offered, &[l], &[r])?;
    let (local, remote) = as_pair(&found);
    let same = |a: &TrafficSelector, b: &TrafficSelector| {
        (a.first, a.last, a.first_port, a.last_port) == (b.first, b.last, b.first_port, b.last_port)
    };
    (same(&local, &l) && same(&remote, &r)).then_some(found)
}

/// As [`TrafficSelector`]s are shown.
pub fn describe(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let side = |list: &[TrafficSelector]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} with {}", side(local), side(remote))
}

/// Selectors in words, our side first.
pub fn show(selectors: &Selectors) -> String {
    let (local, remote) = as_pair(selectors);
    let side = |prefix: &Prefix, ts: &TrafficSelector| {
        let plain = TrafficSelector { first: prefix.address(), last: prefix.address(), ..*ts };
        let text = plain.to_string();
        text.replacen(&prefix.address().to_string(), &prefix.to_string(), 1)
    };
    format!("{} with {}", side(&selectors.local, &local), side(&selectors.remote, &remote))
}

fn either(a: u8, b: u8) -> Option<u8> {
    match (a, b) {
        (0, other) | (other, 0) => Some(other),
        (a, b) => (a == b).then_some(a),
    }
}

fn common(a: &TrafficSelector, b: &TrafficSelector) -> Option<TrafficSelector> {
    if a.first.is_ipv4() != b.first.is_ipv4() {
        return None;
    }
    let found = TrafficSelector {
        protocol: either(a.protocol, b.protocol)?,
        first_port: a.first_port.max(b.first_port),
        last_port: a.last_port.min(b.last_port),
        first: a.first.max(b.first),
        last: a.last.min(b.last),
    };
    (found.first <= found.last && found.first_port <= found.last_port).then_some(found)
}

/// Less of everything is smaller; for comparisons only.
fn size(s: &Selectors) -> u32 {
    let bits = if s.local.address().is_ipv4() { 32 } else { 128 };
    let addresses = 2 * bits - u32::from(s.local.prefix_len()) - u32::from(s.remote.prefix_len());
    let ports = |range: &PortRange| u32::from(range.last() - range.first()).checked_ilog2().map_or(0, |n| n + 1);
    addresses * 64 + ports(&s.local_ports) + ports(&s.remote_ports) + u32::from(s.protocol.is_none()) * 8
}

fn ends(prefix: &Prefix) -> (IpAddr, IpAddr) {
    let first = bits(prefix.address());
    let last = first | host_mask(prefix.address().is_ipv4(), prefix.prefix_len());
    (prefix.address(), address(prefix.address().is_ipv4(), last))
}

/// The largest block of addresses from `first` to `last`, with `holds` in it.
fn block(first: IpAddr, last: IpAddr, holds: Option<IpAddr>) -> Option<Prefix> {
    let v4 = first.is_ipv4();
    let (low, high) = (bits(first), bits(last));
    for len in 0..=if v4 { 32 } else { 128 } {
        let mask = host_mask(v4, len);
        let start = match holds {
            Some(inside) => bits(inside) & !mask,
            // The first multiple of the block's size that is not below.
            None => match low.checked_add(mask) {
                Some(sum) => sum & !mask,
                None => continue,
            },
        };
        if start >= low && start | mask <= high {
            return Prefix::new(address(v4, start), len).ok();
        }
    }
    None
}

fn host_mask(v4: bool, len: u8) -> u128 {
    let bits = if v4 { 32 } else { 128 };
    u128::MAX.checked_shr(128 - bits + u32::from(len)).unwrap_or(0)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(v4: bool, bits: u128) -> IpAddr {
    if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(range: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let [first, last] = [first, last].map(|a| a.parse().unwrap());
        TrafficSelector { protocol, first_port: ports.0, last_port: ports.1, first, last }
    }

    const ANY: (u16, u16) = (0, 65535);

    fn ours() -> Selectors {
        Selectors::between("10.77.0.100".parse().unwrap(), "10.99.0.0/16".parse().unwrap())
    }

    #[test]
    fn what_both_have_is_taken() {
        let (found, more) =
            narrow(&ours(), &[ts("0.0.0.0-255.255.255.255", 0, ANY)], &[ts("10.99.1.0-10.99.1.255", 0, ANY)]).unwrap();
        assert_eq!(found, Selectors::between("10.77.0.100".parse().unwrap(), "10.99.1.0/24".parse().unwrap()));
        assert!(!more);
    }

    #[test]
    fn a_range_that_is_no_block_becomes_the_largest_block_in_it() {
        let (found, more) =
            narrow(&ours(), &[ts("10.77.0.100", 0, ANY)], &[ts("10.99.0.5-10.99.0.20", 0, ANY)]).unwrap();
        assert_eq!(found.remote, "10.99.0.8/29".parse().unwrap());
        assert!(more);
    }

    #[test]
    fn of_several_the_one_with_the_packet_that_began_it_is_taken() {
        let local = [ts("10.77.0.100", 6, (80, 80)), ts("10.77.0.0-10.77.0.255", 0, ANY)];
        let remote = [
            ts("10.99.0.19", 6, (4000, 4000)),
            ts("10.99.0.16-10.99.0.31", 0, ANY),
            ts("10.99.8.0-10.99.15.255", 0, ANY),
        ];
        let (found, more) = narrow(&ours(), &local, &remote).unwrap();
        assert_eq!(found, Selectors::between("10.77.0.100".parse().unwrap(), "10.99.0.16/28".parse().unwrap()));
        assert!(more);
    }

    #[test]
    fn nothing_in_common_is_nothing() {
        let other = [ts("10.98.0.0-10.98.255.255", 0, ANY)];
        assert_eq!(narrow(&ours(), &[ts("10.77.0.100", 0, ANY)], &other), None);
        assert_eq!(narrow(&ours(), &[ts("10.77.0.100", 6, ANY)], &[ts("10.99.0.1", 17, ANY)]), None);
        assert_eq!(narrow(&ours(), &[ts("::1", 0, ANY)], &[ts("10.99.0.1", 0, ANY)]), None);
        // OPAQUE, which is for packets that show no port
        assert_eq!(narrow(&ours(), &[ts("10.77.0.100", 6, (65535, 0))], &[ts("10.99.0.1", 6, ANY)]), None);
    }

    #[test]
    fn an_answer_is_part_of_the_offer_and_one_pair() {
        let yes = answered(&ours(), &[ts("10.77.0.100", 6, (80, 80))], &[ts("10.99.0.0-10.99.0.255", 6, ANY)]).unwrap();
        assert_eq!((yes.protocol, yes.local_ports), (Some(6), PortRange::one(80)));
        let whole = ts("10.99.0.0-10.99.255.255", 0, ANY);
        assert!(answered(&ours(), &[ts("10.77.0.100", 0, ANY)], &[ts("10.99.0.7", 6, (1, 1)), whole]).is_some());
        assert_eq!(answered(&ours(), &[ts("10.77.0.0-10.77.0.255", 0, ANY)], &[whole]), None, "more than was offered");
        assert_eq!(
            answered(&ours(), &[ts("10.77.0.100", 0, ANY)], &[ts("10.99.0.1-10.99.0.2", 0, ANY)]),
            None,
            "no block"
        );
    }

    #[test]
    fn selectors_survive_being_written_for_a_peer() {
        for (local, remote) in [("0.0.0.0/0", "10.0.0.0/8"), ("::/0", "fd77::/64"), ("fd77::1", "fd77::2")] {
            let selectors = Selectors::between(local.parse().unwrap(), remote.parse().unwrap());
            let (l, r) = as_pair(&selectors);
            assert_eq!(narrow(&selectors, &[l], &[r]), Some((selectors, false)));
        }
    }
}
