//! From drafts without a mistake to the configuration.

use super::key::KeyText;
use super::read::{At, Sink};
use super::report::Problem;
use super::section::{
    ActionDraft, CoreDraft, CoreRole, DistributeDraft, Draft, FilterDraft, HalfDraft, KEEPALIVE_S, NattDraft,
    PortDraft, PortsDraft, SaDraft, SelectorsDraft, TargetsDraft, VipDraft, text,
};
use super::*;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

mod peer;

/// The configuration. `None` only if a draft lacks what it must have, which is then reported (it would be our mistake, not
/// the administrator's: whatever is missing was reported before).
pub(super) fn config(path: &Path, draft: Draft, sink: &Sink) -> Option<Config> {
    let config = assemble(path, draft);
    if config.is_none() {
        sink.push(Problem::error("the checker let an incomplete section pass; please report this"));
    }
    config
}

fn assemble(path: &Path, draft: Draft) -> Option<Config> {
    let name = draft.node.name?.value;
    let value = |p: Option<At<_>>| p.map(|p: At<std::path::PathBuf>| p.value);
    let node = Node {
        status_socket: value(draft.node.status_socket).unwrap_or_else(|| format!("/run/phalanx/{name}.sock").into()),
        state_dir: value(draft.node.state_dir).unwrap_or_else(|| format!("/var/lib/phalanx/{name}").into()),
        metrics: draft.node.metrics.map(|m| m.value),
        load_file: value(draft.node.load_file),
        cipher_kernel: draft.node.cipher_kernel.and_then(|k| k.value),
        name,
    };
    let c = draft.cluster;
    let tls = match (c.certificate, c.key, c.ca) {
        (Some(certificate), Some(key), Some(ca)) => {
            Some(Tls { certificate: certificate.value, key: key.value, ca: ca.value })
        }
        _ => None,
    };
    let mut nodes = Vec::new();
    for n in c.nodes {
        let links = n.links.into_iter().map(|l| l.value).collect();
        let port = |memif: &At<String>| draft.ports.iter().position(|p| text(&p.name) == Some(&memif.value));
        let memif = n.memifs.first().and_then(port);
        nodes.push(ClusterNode { name: n.name?.value, address: n.address.map(|a| a.value), links, memif });
    }
    let own_address = nodes.iter().find(|n| n.name == node.name).and_then(|n| n.address);
    let cluster = Cluster {
        name: c.name?.value,
        listen: c.listen.map(|l| l.value).or(own_address),
        tls,
        coupling: Coupling::Embedded,
        nodes,
        routers: c.routers.into_iter().map(|r| r.value).collect(),
    };
    let ports = draft.ports.into_iter().map(port).collect::<Option<Vec<_>>>()?;
    let vips = draft.vips.into_iter().map(vip).collect::<Option<Vec<_>>>()?;
    let names: Vec<Option<String>> = draft.sas.iter().map(|s| text(&s.name).map(ToOwned::to_owned)).collect();
    let sas = draft.sas.into_iter().map(|s| sa(s, &vips, &names)).collect::<Option<Vec<_>>>()?;
    let peers = draft.peers.into_iter().map(|p| peer::peer(p, &vips)).collect::<Option<Vec<_>>>()?;
    let largest = |key: Option<At<u32>>, default| key.map_or(default, |k: At<u32>| k.value);
    let sas_most = largest(draft.limits.sas, 1_024);
    Some(Config {
        path: path.to_owned(),
        node,
        cluster,
        memory: Memory {
            megabytes: draft.memory.megabytes.map(|m| m.value),
            hugepages: draft.memory.hugepages.map_or(Hugepages::Auto, |h| h.value),
        },
        limits: Limits {
            connections: largest(draft.limits.connections, 65_536),
            connections_per_peer: largest(draft.limits.connections_per_peer, 65_536),
            half_open_per_peer: largest(draft.limits.half_open_per_peer, 256),
            // A peer has an SA for each direction.
            peers: largest(draft.limits.peers, (sas_most / 2).max(4_096)),
            sas: sas_most,
            // RFC 1191 §6.3, RFC 8201 §4: ten minutes.
            path_mtu_age: largest(draft.limits.path_mtu_age, 600),
            fragmented_packets: largest(draft.limits.fragmented_packets, 64),
            fragment_ms: largest(draft.limits.fragment_ms, 2_000),
        },
        ike: Ike {
            limits: draft.ike.limits,
            retransmission: draft.ike.retransmission,
            key_log: value(draft.ike.key_log),
        },
        cores: draft.cores.into_iter().map(|c| core(c, &ports)).collect::<Option<Vec<_>>>()?,
        filters: draft.filters.into_iter().map(|f| filter(f, &vips)).collect::<Option<Vec<_>>>()?,
        ports,
        vips,
        peers,
        sas,
        warnings: Vec::new(),
    })
}

fn port(p: PortDraft) -> Option<Port> {
    Some(Port {
        mtu: p.mtu(),
        name: p.name?.value,
        device: p.device?.value,
        role: p.role?.value,
        addresses: p.addresses.into_iter().map(|a| a.value).collect(),
        next_hops: p.next_hops.into_iter().map(|a| a.value).collect(),
    })
}

fn core(c: CoreDraft, ports: &[Port]) -> Option<Core> {
    Some(Core {
        cpu: c.cpu.as_ref()?.value,
        router: c.is(CoreRole::Router),
        target: c.is(CoreRole::Target),
        ports: c.ports.iter().map(|n| ports.iter().position(|p| p.name == n.value)).collect::<Option<Vec<_>>>()?,
        idle: c.idle.map_or(Idle::Pause, |i| i.value),
    })
}

fn vip(v: VipDraft) -> Option<Vip> {
    let address = v.address?.value;
    Some(Vip {
        name: v.name?.value,
        id: v.id.map_or_else(|| default_vip_id(address.addr()), |i| i.value),
        address,
        owner: v.owner?.value,
        movable: v.movable.map_or(Movable::No, |m| m.value),
        distribute: v.distribute.into_iter().map(distribute).collect::<Option<Vec<_>>>()?,
        select: v.select.map_or(Select::RoundRobin, |s| s.value),
        filter_at: v.filter_at.map_or(FilterAt::Target, |f| f.value),
    })
}

/// A VIP's number where none is configured: from its address, so that it is the same after a restart and on every router.
pub(super) fn default_vip_id(address: IpAddr) -> u16 {
    let digest = Sha256::digest(address.to_string().as_bytes());
    u16::from_be_bytes([digest[0], digest[1]]).max(1)
}

fn distribute(d: DistributeDraft) -> Option<Distribute> {
    let ports = match d.ports {
        PortsDraft::Wrong => return None,
        PortsDraft::All(_) => Ports::All,
        PortsDraft::Ranges(ranges) => {
            let mut ranges: Vec<PortRange> = ranges.into_iter().map(|r| r.value).collect();
            ranges.sort_unstable();
            Ports::Ranges(ranges)
        }
    };
    let targets = match d.targets {
        TargetsDraft::Wrong => return None,
        TargetsDraft::All => Targets::All,
        TargetsDraft::Named(names) => Targets::Named(names.into_iter().map(|n| n.value).collect()),
    };
    let protocol = d.protocol.map_or(Transport::Tcp, |p| p.value);
    Some(Distribute { protocol, ports, targets })
}

fn sa(s: SaDraft, vips: &[Vip], names: &[Option<String>]) -> Option<Sa> {
    let vip = vips.iter().position(|v| Some(&v.name) == s.vip.as_ref().map(|v| &v.value))?;
    let peer = s.peer?.value;
    let hard_bytes = s.hard_bytes.map_or(u64::MAX, |b| b.value);
    Some(Sa {
        name: s.name?.value,
        vip,
        peer,
        mode: s.mode?.value,
        algorithm: s.algorithm.map_or(Algorithm::Aes128Gcm16, |a| a.value),
        esn: s.esn.is_none_or(|e| e.value),
        inbound: half(s.inbound?)?,
        outbound: half(s.outbound?)?,
        selectors: selectors(&s.selectors, vips[vip].address.addr(), IpNet::from(peer)),
        // Without a word, a tenth before the end is soon enough.
        soft_bytes: s.soft_bytes.map_or(hard_bytes - hard_bytes / 10, |b| b.value),
        hard_bytes,
        path_mtu: s.path_mtu.map_or(1500, |m| m.value),
        mss_clamp: s.mss_clamp.map_or(MssClamp::None, |m| m.value),
        copy_dscp: s.copy_dscp.is_none_or(|c| c.value),
        ecn: s.ecn.is_none_or(|e| e.value),
        encap: udp(&s.natt, vips[vip].address.addr()),
        within: s.within.and_then(|within| names.iter().position(|name| name.as_ref() == Some(&within.value))),
    })
}

fn udp(n: &NattDraft, vip: IpAddr) -> Option<Udp> {
    n.is_udp().then(|| Udp {
        peer_port: n.peer_port.as_ref().map_or(phalanx_wire::natt::PORT, |p| p.value),
        original: n
            .original
            .as_ref()
            .and_then(|o| Some((o.local.as_ref().map_or(vip, |l| l.value), o.remote.as_ref()?.value))),
        nat_keepalive: n.nat_keepalive.as_ref().map_or(KEEPALIVE_S, |k| k.value),
    })
}

fn half(h: HalfDraft) -> Option<HalfSa> {
    let key: KeyText = h.key?.value;
    // RFC 4303 §3.4.3: 32 must, 64 should be supported.
    Some(HalfSa { spi: h.spi?.value, key, window: h.window.map_or(32, |w| w.value) })
}

/// What the drafts say, else the VIP itself and `remote`, any protocol, any port.
pub(super) fn selectors(s: &SelectorsDraft, vip: IpAddr, remote: IpNet) -> Selectors {
    let range = |r: &Option<At<PortRange>>| r.as_ref().map_or(PortRange::ALL, |r| r.value);
    Selectors {
        local: s.local.as_ref().map_or_else(|| IpNet::from(vip), |l| l.value).trunc(),
        remote: s.remote.as_ref().map_or(remote, |r| r.value).trunc(),
        protocol: s.protocol.as_ref().and_then(|p| p.value),
        local_ports: range(&s.local_ports),
        remote_ports: range(&s.remote_ports),
    }
}

/// What a filter matches.
pub(super) fn filter_selectors(f: &FilterDraft, vip: IpAddr) -> Selectors {
    let local_is_v4 = f.selectors.local.as_ref().map_or(vip.is_ipv4(), |l| l.value.addr().is_ipv4());
    let everyone = if local_is_v4 { IpNet::V4(Default::default()) } else { IpNet::V6(Default::default()) };
    selectors(&f.selectors, vip, everyone)
}

fn filter(f: FilterDraft, vips: &[Vip]) -> Option<Filter> {
    let vip = vips.iter().position(|v| Some(&v.name) == f.vip.as_ref().map(|v| &v.value))?;
    let action = match f.action.as_ref()?.value {
        ActionDraft::Permit => Action::Permit,
        ActionDraft::Deny => Action::Deny,
        ActionDraft::Protect => Action::Protect(f.tunnel.as_ref()?.value.clone()),
    };
    let selectors = filter_selectors(&f, vips[vip].address.addr());
    Some(Filter { vip, selectors, action, log: f.log.is_some_and(|l| l.value), name: f.name.map(|n| n.value) })
}
