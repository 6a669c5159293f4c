//! VIPs: one owner, one place each, and targets that exist.

use super::{known, unique, unique_names};
use crate::config::build::default_vip_id;
use crate::config::read::{At, Sink, Span};
use crate::config::report::Problem;
use crate::config::section::{Draft, PortsDraft, TargetsDraft, VipDraft, place, text};
use crate::config::{PortRange, PortRole, Transport};
use ipnet::IpNet;
use phalanx_steering::Distribution;
use std::collections::HashSet;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    unique_names(draft.vips.iter().map(|v| v.name.as_ref()), "VIPs", sink);
    let addresses = draft.vips.iter().filter_map(|v| v.address.as_ref()).map(|a| (a.value.addr(), a.span.clone()));
    unique(addresses, |a| format!("two VIPs have the address {a}"), sink);
    numbers(draft, sink);
    for vip in &draft.vips {
        owner(draft, vip, sink);
        backups(draft, vip, sink);
        distribution(draft, vip, sink);
        bounds(draft, vip, sink);
        if let Some(address) = &vip.address {
            address_of(draft, address, sink);
        }
    }
}

/// The number in the link header, given or derived.
fn numbers(draft: &Draft, sink: &Sink) {
    let number = |v: &VipDraft| match (&v.id, &v.address) {
        (Some(id), _) => Some((id.value, id.span.clone())),
        (None, Some(a)) => Some((default_vip_id(a.value.addr()), a.span.clone())),
        (None, None) => None,
    };
    let message = |id: &u16| format!("two VIPs have the number {id}; set another `id` for one of them");
    // Twice the same address has the same number: that was said already.
    let mut seen = HashSet::new();
    let distinct = draft.vips.iter().filter(|v| v.address.as_ref().is_none_or(|a| seen.insert(a.value.addr())));
    unique(distinct.filter_map(number), message, sink);
}

fn owner(draft: &Draft, vip: &VipDraft, sink: &Sink) {
    let (Some(owner), Some(me)) = (&vip.owner, draft.me()) else { return };
    if known(owner, draft.node_names(), "node", sink) && owner.value != me {
        let problem =
            Problem::error(format!("`{}` owns this VIP, not this node", owner.value)).at(owner.span.clone(), "");
        let help = format!(
            "define it in {0}'s configuration; a target learns it from there: `routers = [\"{0}\"]`",
            owner.value
        );
        sink.push(problem.help(help));
    }
}

fn backups(draft: &Draft, vip: &VipDraft, sink: &Sink) {
    if let Some(first) = vip.backups.first()
        && draft.cluster.etcd.is_none()
    {
        let problem = Problem::error("backups need a coupling facility that outlives the owner: etcd");
        let help = "this version has the embedded one only, so a VIP stays with its owner: leave `backups` out";
        sink.push(problem.at(first.span.clone(), "").help(help));
    }
    let ranks = vip.backups.iter().filter_map(|b| b.rank.as_ref()).map(|r| (r.value, r.span.clone()));
    unique(ranks, |rank| format!("two backups have rank {rank}"), sink);
    for node in vip.backups.iter().filter_map(|b| b.node.as_ref()) {
        if known(node, draft.node_names(), "node", sink) && Some(node.value.as_str()) == text(&vip.owner) {
            sink.push(Problem::error("the owner is its own backup").at(node.span.clone(), ""));
        }
    }
}

fn distribution(draft: &Draft, vip: &VipDraft, sink: &Sink) {
    let mut taken: Vec<(Transport, At<PortRange>)> = Vec::new();
    for entry in &vip.distribute {
        let protocol = entry.protocol.as_ref().map_or(Transport::Tcp, |p| p.value);
        let ranges = match &entry.ports {
            PortsDraft::Wrong => Vec::new(),
            PortsDraft::All(span) => vec![At::new(PortRange::ALL, span.clone())],
            PortsDraft::Ranges(ranges) => ranges.clone(),
        };
        for range in ranges {
            let same = |(of, t): &&(Transport, At<PortRange>)| of.overlaps(protocol) && t.value.overlaps(&range.value);
            if let Some((_, before)) = taken.iter().find(same) {
                let problem = Problem::error("these ports are distributed already").at(range.span.clone(), "");
                sink.push(problem.at(before.span.clone(), "here"));
            }
            taken.push((protocol, range));
        }
        let TargetsDraft::Named(names) = &entry.targets else { continue };
        unique(
            names.iter().map(|n| (n.value.as_str(), n.span.clone())),
            |n| format!("target `{n}` is named twice"),
            sink,
        );
        for name in names {
            if !known(name, draft.node_names(), "node", sink) || Some(name.value.as_str()) == draft.me() {
                continue;
            }
            if let Some(node) = draft.node(&name.value)
                && !node.is_linked()
            {
                let problem = Problem::error(format!("target `{}` has no `link` address", name.value));
                sink.push(problem.at(node.span.clone(), "this node").at(name.span.clone(), "named as a target here"));
            }
        }
    }
}

/// What a poll core looks at for a new connection is bounded.
fn bounds(draft: &Draft, vip: &VipDraft, sink: &Sink) {
    let error = |what: String, span: &Span| Problem::error(what).at(span.clone(), "");
    if let Some(entry) = vip.distribute.get(Distribution::RULES) {
        let what = format!("`distribute` has at most {} entries", Distribution::RULES);
        sink.push(error(what, &entry.span));
    }
    for entry in &vip.distribute {
        if let PortsDraft::Ranges(ranges) = &entry.ports
            && let Some(range) = ranges.get(Distribution::RANGES)
        {
            let what = format!("`ports` has at most {} ports and ranges", Distribution::RANGES);
            sink.push(error(what, &range.span).help("put the others into another entry with the same targets"));
        }
    }
    let names = vip.distribute.iter().flat_map(|entry| match &entry.targets {
        TargetsDraft::Wrong => Vec::new(),
        TargetsDraft::All => draft.node_names().collect(),
        TargetsDraft::Named(names) => names.iter().map(|n| n.value.as_str()).collect(),
    });
    let targets = names.collect::<HashSet<&str>>().len();
    if targets > Distribution::TARGETS {
        let what = format!("a VIP has at most {} targets, these are {targets}", Distribution::TARGETS);
        sink.push(error(what, &vip.distribute[0].span));
    }
}

/// A VIP is nobody's own address, and stands where peers can reach it.
fn address_of(draft: &Draft, vip: &At<IpNet>, sink: &Sink) {
    let ip = vip.value.addr();
    let error = |message: String| Problem::error(message).at(vip.span.clone(), "");
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        sink.push(error(format!("{ip} cannot be a VIP")));
        return;
    }
    let hosts = if ip.is_ipv4() { 32 } else { 128 } - vip.value.prefix_len();
    if hosts >= 2 && (ip == vip.value.network() || (ip.is_ipv4() && ip == vip.value.broadcast())) {
        sink.push(error(format!("{ip} is the network's own or its broadcast address, not a host's")));
        return;
    }
    for port in &draft.ports {
        for own in port.addresses.iter().filter(|a| a.value.addr() == ip) {
            let problem = error(format!("{ip} is this port's own address and cannot be a VIP"));
            sink.push(problem.at(own.span.clone(), "port address"));
        }
        for hop in port.next_hops.iter().filter(|h| h.value == ip) {
            sink.push(error(format!("{ip} is a next hop and cannot be a VIP")).at(hop.span.clone(), "next hop"));
        }
    }
    let nodes = draft.cluster.nodes.iter();
    for link in nodes.flat_map(|n| &n.links).filter(|l| l.value == ip) {
        sink.push(
            error(format!("{ip} is a node's link address and cannot be a VIP")).at(link.span.clone(), "link address"),
        );
    }
    let family: Vec<_> = draft.ports.iter().filter(|p| p.is(PortRole::Network)).flat_map(|p| &p.addresses).collect();
    let links = draft.ports.iter().filter(|p| p.is(PortRole::Link)).flat_map(|p| &p.addresses);
    for link in links.filter(|l| l.value.contains(&ip) && l.value.addr() != ip) {
        sink.push(error("a VIP cannot stand on the trusted link".to_owned()).at(link.span.clone(), "link port"));
    }
    reachable(draft, vip, &family, sink);
}

fn reachable(draft: &Draft, vip: &At<IpNet>, own: &[&At<IpNet>], sink: &Sink) {
    let ip = vip.value.addr();
    if own.is_empty() || own.iter().any(|a| a.value.contains(&ip)) {
        return;
    }
    let version = if ip.is_ipv4() { 4 } else { 6 };
    let Some(near) = own.iter().find(|a| a.value.addr().is_ipv4() == ip.is_ipv4()) else {
        let first = draft.ports.iter().find(|p| p.is(PortRole::Network)).map_or(0..0, |p| place(&p.name, &p.span));
        let problem =
            Problem::error(format!("no network port has an IPv{version} address, so nobody reaches this VIP"));
        sink.push(problem.at(vip.span.clone(), "").at(first, "network port"));
        return;
    };
    let problem = Problem::warning(format!("{ip} is in no network port's subnet"))
        .at(vip.span.clone(), "")
        .at(near.span.clone(), "network port")
        .help("peers then need a route to it by this node: nobody will ask for it by ARP or ND");
    sink.push(problem);
}
