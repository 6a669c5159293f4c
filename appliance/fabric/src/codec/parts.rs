//! What several messages have in common: addresses, flows, windows, selectors, filters.

use std::net::{IpAddr, SocketAddr};

use phalanx_cluster::messages::{ConnRecord, RankedFilter, WindowRecord};
use phalanx_ipsec::{Action, Filter, MAX_WINDOW, PortRange, Prefix, Selectors, TunnelName, WindowSnapshot};
use phalanx_wire::flow::Endpoint;
use phalanx_wire::{CoreId, Epoch, Flow, PeerId, SaId, VipId};

use crate::{FabricError, proto};

/// Entries of a list of connections, VIPs, ports or numbers at most.
pub(super) const LIST_MAX: usize = 65_536;
/// Windows of one message at most.
pub(super) const WINDOWS_MAX: usize = 1_024;
/// Words of a window at most: the largest window may touch one more than it fills.
const WORDS_MAX: usize = MAX_WINDOW as usize / 64 + 1;
/// Bytes of a DNS name at most (RFC 1035 §2.3.4).
pub(super) const NAME_MAX: usize = 253;

/// A part of a message that is not as it must be.
#[derive(Debug)]
pub(super) struct Bad {
    field: &'static str,
    why: String,
}

impl Bad {
    pub(super) fn new(field: &'static str, why: impl Into<String>) -> Bad {
        Bad { field, why: why.into() }
    }

    pub(super) fn of(self, message: &'static str) -> FabricError {
        FabricError::Message { message, field: self.field, why: self.why }
    }
}

pub(super) type Part<T> = Result<T, Bad>;

/// A number that must fit a smaller type.
pub(super) fn small<T: TryFrom<u32>>(value: u32, field: &'static str) -> Part<T> {
    T::try_from(value).map_err(|_| Bad::new(field, format!("{value} is out of range")))
}

pub(super) fn needed<T>(value: Option<T>, field: &'static str) -> Part<T> {
    value.ok_or_else(|| Bad::new(field, "missing, or of a kind that this version does not know"))
}

pub(super) fn text(value: String, max: usize, field: &'static str) -> Part<String> {
    if value.len() <= max {
        Ok(value)
    } else {
        Err(Bad::new(field, format!("{} bytes of text, at most {max}", value.len())))
    }
}

pub(super) fn list<T, U>(
    values: Vec<T>,
    max: usize,
    field: &'static str,
    each: impl FnMut(T) -> Part<U>,
) -> Part<Vec<U>> {
    if values.len() > max {
        return Err(Bad::new(field, format!("{} entries, at most {max}", values.len())));
    }
    values.into_iter().map(each).collect()
}

pub(super) fn address(bytes: &[u8], field: &'static str) -> Part<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(v6.into())
    } else {
        Err(Bad::new(field, format!("an address has 4 or 16 bytes, not {}", bytes.len())))
    }
}

pub(super) fn from_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn vip(value: u32) -> Part<VipId> {
    Ok(VipId(small(value, "vip")?))
}

pub(super) fn core(value: u32) -> Part<CoreId> {
    Ok(CoreId(small(value, "core")?))
}

pub(super) fn vip_epoch(value: proto::VipEpoch) -> Part<(VipId, Epoch)> {
    Ok((vip(value.vip)?, Epoch(value.epoch)))
}

pub(super) fn from_vip_epoch(&(vip, epoch): &(VipId, Epoch)) -> proto::VipEpoch {
    proto::VipEpoch { vip: vip.0.into(), epoch: epoch.0 }
}

fn endpoint(value: Option<proto::Endpoint>, field: &'static str) -> Part<Endpoint> {
    let value = needed(value, field)?;
    Ok(Endpoint::new(address(&value.address, field)?, small(value.port, field)?))
}

fn from_endpoint(value: Endpoint) -> Option<proto::Endpoint> {
    Some(proto::Endpoint { address: from_address(value.addr), port: value.port.into() })
}

/// Where a peer is; never a port 0.
pub(super) fn peer_end(value: Option<proto::Endpoint>) -> Part<SocketAddr> {
    let Endpoint { addr, port } = endpoint(value, "peer's address")?;
    if port == 0 { Err(Bad::new("peer's address", "port 0")) } else { Ok(SocketAddr::new(addr, port)) }
}

pub(super) fn from_peer_end(value: SocketAddr) -> Option<proto::Endpoint> {
    from_endpoint(Endpoint::new(value.ip(), value.port()))
}

pub(super) fn connection(value: proto::Connection) -> Part<ConnRecord> {
    let flow = Flow {
        protocol: small(value.protocol, "protocol")?,
        local: endpoint(value.local, "local end")?,
        remote: endpoint(value.remote, "remote end")?,
    };
    if flow.local.addr.is_ipv4() != flow.remote.addr.is_ipv4() {
        return Err(Bad::new("connection", "its ends are of two families"));
    }
    Ok(ConnRecord {
        vip: vip(value.vip)?,
        peer: PeerId(value.peer),
        flow,
        core: core(value.core)?,
        established: value.established,
    })
}

pub(super) fn from_connection(value: &ConnRecord) -> proto::Connection {
    proto::Connection {
        vip: value.vip.0.into(),
        peer: value.peer.0,
        protocol: value.flow.protocol.into(),
        local: from_endpoint(value.flow.local),
        remote: from_endpoint(value.flow.remote),
        core: value.core.0.into(),
        established: value.established,
    }
}

pub(super) fn window(value: proto::Window) -> Part<WindowSnapshot> {
    let proto::Window { edge, floor, words } = value;
    let bad = |why: &str| Err(Bad::new("window", why));
    if words.len() > WORDS_MAX {
        return bad("longer than the largest window");
    }
    // Word 0 ends at the edge, and nothing is below number 0.
    if words.len() as u64 > edge / 64 + 1 {
        return bad("reaches below number 0");
    }
    if words.first().is_some_and(|newest| newest & !(u64::MAX >> (63 - edge % 64)) != 0) {
        return bad("has numbers above its edge");
    }
    if words.last() == Some(&0) {
        return bad("ends in a word of zeros");
    }
    Ok(WindowSnapshot { edge, floor, words })
}

pub(super) fn from_window(value: &WindowSnapshot) -> proto::Window {
    proto::Window { edge: value.edge, floor: value.floor, words: value.words.clone() }
}

pub(super) fn sa_window(value: proto::SaWindow) -> Part<WindowRecord> {
    Ok(WindowRecord { sa: SaId(value.sa), snapshot: window(needed(value.window, "window")?)? })
}

pub(super) fn from_sa_window(value: &WindowRecord) -> proto::SaWindow {
    proto::SaWindow { sa: value.sa.0, window: Some(from_window(&value.snapshot)) }
}

pub(super) fn tunnel_name(value: &str) -> Part<TunnelName> {
    // The library's error shows the whole text; an unbounded one must not get into a log.
    TunnelName::new(value).map_err(|_| Bad::new("tunnel name", "1 to 31 letters, digits and . _ : -"))
}

fn prefix(value: Option<proto::Prefix>, field: &'static str) -> Part<Prefix> {
    let value = needed(value, field)?;
    Prefix::new(address(&value.address, field)?, small(value.len, field)?).map_err(|e| Bad::new(field, e.to_string()))
}

fn from_prefix(value: &Prefix) -> Option<proto::Prefix> {
    Some(proto::Prefix { address: from_address(value.address()), len: value.prefix_len().into() })
}

fn port_range(value: Option<proto::PortRange>, field: &'static str) -> Part<PortRange> {
    let value = needed(value, field)?;
    PortRange::new(small(value.first, field)?, small(value.last, field)?).map_err(|e| Bad::new(field, e.to_string()))
}

fn from_port_range(value: &PortRange) -> Option<proto::PortRange> {
    Some(proto::PortRange { first: value.first().into(), last: value.last().into() })
}

pub(super) fn selectors(value: Option<proto::Selectors>) -> Part<Selectors> {
    let value = needed(value, "selectors")?;
    Ok(Selectors {
        local: prefix(value.local, "local selector")?,
        remote: prefix(value.remote, "remote selector")?,
        protocol: value.protocol.map(|p| small(p, "selected protocol")).transpose()?,
        local_ports: port_range(value.local_ports, "local ports")?,
        remote_ports: port_range(value.remote_ports, "remote ports")?,
    })
}

pub(super) fn from_selectors(value: &Selectors) -> Option<proto::Selectors> {
    Some(proto::Selectors {
        local: from_prefix(&value.local),
        remote: from_prefix(&value.remote),
        protocol: value.protocol.map(u32::from),
        local_ports: from_port_range(&value.local_ports),
        remote_ports: from_port_range(&value.remote_ports),
    })
}

/// The VIP of a filter is that of the message around it: a filter of another one cannot be said.
pub(super) fn ranked_filter(value: proto::RankedFilter, vip: VipId) -> Part<RankedFilter> {
    use proto::ranked_filter::Action as Wire;
    let action = match needed(value.action, "filter action")? {
        Wire::Permit(_) => Action::Permit,
        Wire::Deny(_) => Action::Deny,
        Wire::Protect(protect) => Action::Protect(tunnel_name(&protect.tunnel)?),
    };
    let filter = Filter { vip, selectors: selectors(value.selectors)?, action, log: value.log };
    let name = (!value.name.is_empty()).then(|| text(value.name, NAME_MAX, "filter name")).transpose()?;
    Ok(RankedFilter { rank: value.rank, filter, name: name.map(Into::into) })
}

pub(super) fn from_ranked_filter(value: &RankedFilter, vip: VipId) -> Part<proto::RankedFilter> {
    use proto::ranked_filter::Action as Wire;
    if value.filter.vip != vip {
        return Err(Bad::new("filters", format!("a filter of VIP {}, not {vip}", value.filter.vip)));
    }
    let action = match value.filter.action {
        Action::Permit => Wire::Permit(proto::Permit {}),
        Action::Deny => Wire::Deny(proto::Deny {}),
        Action::Protect(tunnel) => Wire::Protect(proto::Protect { tunnel: tunnel.as_str().to_owned() }),
    };
    Ok(proto::RankedFilter {
        rank: value.rank,
        selectors: from_selectors(&value.filter.selectors),
        action: Some(action),
        log: value.filter.log,
        name: value.name.as_deref().unwrap_or_default().to_owned(),
    })
}
