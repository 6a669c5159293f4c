//! What routers say.

use std::sync::Arc;

use phalanx_cluster::messages::{ConnRefusal, LeaseBlock, LeaseRefusal, LeaseReply, ToTarget, VipDef};
use phalanx_wire::{Epoch, PeerId, SaId, VipId};
use prost::Message;

use super::fits;
use super::parts::{
    Bad, LIST_MAX, NAME_MAX, Part, address, connection, core, from_address, from_connection, from_peer_end,
    from_ranked_filter, from_vip_epoch, list, needed, peer_end, ranked_filter, small, text, vip, vip_epoch,
};
use super::sa::{from_security_association, security_association};
use crate::proto::lease_reply::Result as WireResult;
use crate::proto::router_message::Kind;
use crate::{FabricError, proto};

/// Filters of one VIP or SA at most.
const FILTERS_MAX: usize = 16_384;
/// Link addresses of one router at most.
const LINKS_MAX: usize = 64;

/// A message that was not understood, and the request in it that can be refused by name.
#[derive(Debug)]
pub(crate) struct Undecodable {
    /// The request, if it is one.
    #[cfg_attr(not(feature = "node"), allow(dead_code))]
    pub request: Option<u64>,
    /// What is wrong.
    pub error: FabricError,
}

pub(crate) fn decode(message: proto::RouterMessage) -> Result<ToTarget, Undecodable> {
    let kind = needed(message.kind, "kind").map_err(|bad| Undecodable { request: None, error: bad.of("(unknown)") })?;
    let (name, request) = about(&kind);
    parse(kind).map_err(|bad| Undecodable { request, error: bad.of(name) })
}

pub(crate) fn encode(message: &ToTarget) -> Result<proto::RouterMessage, FabricError> {
    let kind = build(message).map_err(|bad| bad.of(message.name()))?;
    let encoded = proto::RouterMessage { kind: Some(kind) };
    fits(message.name(), encoded.encoded_len())?;
    Ok(encoded)
}

fn about(kind: &Kind) -> (&'static str, Option<u64>) {
    match kind {
        Kind::Welcome(_) => ("Welcome", None),
        Kind::InstallVip(m) => ("InstallVip", Some(m.request)),
        Kind::RemoveVip(m) => ("RemoveVip", Some(m.request)),
        Kind::InstallSa(m) => ("InstallSa", Some(m.request)),
        Kind::RemoveSa(m) => ("RemoveSa", Some(m.request)),
        Kind::LeaseReply(_) => ("LeaseReply", None),
        Kind::PathMtu(_) => ("PathMtu", None),
        Kind::NoticeAck(_) => ("NoticeAck", None),
        Kind::ConnAnswer(_) => ("ConnAnswer", None),
        Kind::PeerMoved(_) => ("PeerMoved", None),
        Kind::Beat(_) => ("Beat", None),
    }
}

fn parse(kind: Kind) -> Part<ToTarget> {
    Ok(match kind {
        Kind::Welcome(m) => ToTarget::Welcome {
            version: m.version,
            node: text(m.node, NAME_MAX, "node")?,
            incarnation: m.incarnation,
            epochs: list(m.epochs, LIST_MAX, "epochs", vip_epoch)?,
        },
        Kind::InstallVip(m) => ToTarget::InstallVip { request: m.request, vip: vip_def(needed(m.vip, "vip")?)? },
        Kind::RemoveVip(m) => ToTarget::RemoveVip { request: m.request, vip: vip(m.vip)? },
        Kind::InstallSa(m) => install_sa(m)?,
        Kind::RemoveSa(m) => ToTarget::RemoveSa { request: m.request, sa: SaId(m.sa) },
        Kind::LeaseReply(m) => ToTarget::LeaseReply(lease_reply(m)?),
        Kind::PathMtu(m) => ToTarget::PathMtu { sa: SaId(m.sa), mtu: small(m.mtu, "path MTU")? },
        Kind::NoticeAck(m) => ToTarget::NoticeAck { id: m.id },
        Kind::PeerMoved(m) => {
            ToTarget::PeerMoved { vip: vip(m.vip)?, peer: PeerId(m.peer), remote: peer_end(m.remote)? }
        }
        Kind::ConnAnswer(m) => ToTarget::ConnAnswer {
            refused: conn_refusal(m.refused)?,
            conn: connection(needed(m.connection, "connection")?)?,
        },
        Kind::Beat(_) => ToTarget::Beat,
    })
}

fn vip_def(m: proto::Vip) -> Part<VipDef> {
    let vip = vip(m.vip)?;
    let at = address(&m.address, "address")?;
    let prefix_len: u8 = small(m.prefix_len, "prefix length")?;
    if prefix_len > if at.is_ipv4() { 32 } else { 128 } {
        return Err(Bad::new("prefix length", format!("{prefix_len} is more than the address has bits")));
    }
    Ok(VipDef {
        vip,
        address: at,
        prefix_len,
        epoch: Epoch(m.epoch),
        router_link: list(m.router_link, LINKS_MAX, "link addresses", |a| address(&a, "link address"))?,
        filters: list(m.filters, FILTERS_MAX, "filters", |f| ranked_filter(f, vip))?,
        filter_at_router: m.filter_at_router,
    })
}

fn install_sa(m: proto::InstallSa) -> Part<ToTarget> {
    let sa = security_association(needed(m.sa, "sa")?)?;
    let filters = list(m.filters, FILTERS_MAX, "filters", |f| ranked_filter(f, sa.vip))?;
    Ok(ToTarget::InstallSa { request: m.request, sa: Arc::new(sa), filters, waits: m.waits })
}

fn lease_reply(m: proto::LeaseReply) -> Part<LeaseReply> {
    let result = match needed(m.result, "result")? {
        WireResult::Block(b) => {
            if b.first.checked_add(b.len.into()).is_none() {
                return Err(Bad::new("block", "goes beyond the last number"));
            }
            let proto::LeaseBlock { first, len, valid_for_us, waited_us } = b;
            Ok(LeaseBlock { first, len, valid_for_us, waited_us })
        }
        WireResult::Refusal(r) => Err(refusal(r)?),
    };
    Ok(LeaseReply {
        sa: SaId(m.sa),
        core: core(m.core)?,
        nonce: m.nonce,
        incarnation: m.incarnation,
        router_incarnation: m.router_incarnation,
        epoch: Epoch(m.epoch),
        result,
    })
}

fn refusal(value: i32) -> Part<LeaseRefusal> {
    use proto::LeaseRefusal as Wire;
    Ok(match Wire::try_from(value) {
        Ok(Wire::Exhausted) => LeaseRefusal::Exhausted,
        Ok(Wire::NoSuchSa) => LeaseRefusal::NoSuchSa,
        Ok(Wire::WrongEpoch) => LeaseRefusal::WrongEpoch,
        Ok(Wire::WrongIncarnation) => LeaseRefusal::WrongIncarnation,
        Ok(Wire::NoCoupling) => LeaseRefusal::NoCoupling,
        Ok(Wire::StoreBehind) => LeaseRefusal::StoreBehind,
        Ok(Wire::Unspecified) | Err(_) => {
            return Err(Bad::new("refusal", format!("this version does not know number {value}")));
        }
    })
}

fn conn_refusal(value: i32) -> Part<Option<ConnRefusal>> {
    use proto::ConnRefusal as Wire;
    match Wire::try_from(value) {
        Ok(Wire::None) => Ok(None),
        Ok(Wire::PortTaken) => Ok(Some(ConnRefusal::PortTaken)),
        Ok(Wire::NoRoom) => Ok(Some(ConnRefusal::NoRoom)),
        Err(_) => Err(Bad::new("refusal", format!("this version does not know number {value}"))),
    }
}

fn from_conn_refusal(value: Option<ConnRefusal>) -> proto::ConnRefusal {
    use proto::ConnRefusal as Wire;
    value.map_or(Wire::None, |refusal| match refusal {
        ConnRefusal::PortTaken => Wire::PortTaken,
        ConnRefusal::NoRoom => Wire::NoRoom,
    })
}

fn from_refusal(value: LeaseRefusal) -> proto::LeaseRefusal {
    use proto::LeaseRefusal as Wire;
    match value {
        LeaseRefusal::Exhausted => Wire::Exhausted,
        LeaseRefusal::NoSuchSa => Wire::NoSuchSa,
        LeaseRefusal::WrongEpoch => Wire::WrongEpoch,
        LeaseRefusal::WrongIncarnation => Wire::WrongIncarnation,
        LeaseRefusal::NoCoupling => Wire::NoCoupling,
        LeaseRefusal::StoreBehind => Wire::StoreBehind,
    }
}

fn build(message: &ToTarget) -> Part<Kind> {
    Ok(match message {
        ToTarget::Welcome { version, node, incarnation, epochs } => Kind::Welcome(proto::Welcome {
            version: *version,
            node: text(node.clone(), NAME_MAX, "node")?,
            incarnation: *incarnation,
            epochs: epochs.iter().map(from_vip_epoch).collect(),
        }),
        ToTarget::InstallVip { request, vip } => {
            Kind::InstallVip(proto::InstallVip { request: *request, vip: Some(from_vip_def(vip)?) })
        }
        ToTarget::RemoveVip { request, vip: VipId(vip) } => {
            Kind::RemoveVip(proto::RemoveVip { request: *request, vip: u32::from(*vip) })
        }
        ToTarget::InstallSa { request, sa, filters, waits } => Kind::InstallSa(proto::InstallSa {
            request: *request,
            sa: Some(from_security_association(sa)?),
            filters: list(filters.iter().collect(), FILTERS_MAX, "filters", |f| from_ranked_filter(f, sa.vip))?,
            waits: *waits,
        }),
        ToTarget::RemoveSa { request, sa } => Kind::RemoveSa(proto::RemoveSa { request: *request, sa: sa.0 }),
        ToTarget::LeaseReply(m) => Kind::LeaseReply(from_lease_reply(m)),
        ToTarget::PathMtu { sa, mtu } => Kind::PathMtu(proto::PathMtu { sa: sa.0, mtu: u32::from(*mtu) }),
        ToTarget::NoticeAck { id } => Kind::NoticeAck(proto::NoticeAck { id: *id }),
        ToTarget::PeerMoved { vip, peer, remote } => {
            Kind::PeerMoved(proto::PeerMoved { vip: vip.0.into(), peer: peer.0, remote: from_peer_end(*remote) })
        }
        ToTarget::ConnAnswer { conn, refused } => Kind::ConnAnswer(proto::ConnAnswer {
            connection: Some(from_connection(conn)),
            refused: from_conn_refusal(*refused).into(),
        }),
        ToTarget::Beat => Kind::Beat(proto::Beat {}),
    })
}

fn from_vip_def(m: &VipDef) -> Part<proto::Vip> {
    Ok(proto::Vip {
        vip: m.vip.0.into(),
        address: from_address(m.address),
        prefix_len: m.prefix_len.into(),
        epoch: m.epoch.0,
        router_link: list(m.router_link.clone(), LINKS_MAX, "link addresses", |a| Ok(from_address(a)))?,
        filters: list(m.filters.iter().collect(), FILTERS_MAX, "filters", |f| from_ranked_filter(f, m.vip))?,
        filter_at_router: m.filter_at_router,
    })
}

fn from_lease_reply(m: &LeaseReply) -> proto::LeaseReply {
    let result = match m.result {
        Ok(LeaseBlock { first, len, valid_for_us, waited_us }) => {
            WireResult::Block(proto::LeaseBlock { first, len, valid_for_us, waited_us })
        }
        Err(refusal) => WireResult::Refusal(from_refusal(refusal).into()),
    };
    proto::LeaseReply {
        sa: m.sa.0,
        core: m.core.0.into(),
        nonce: m.nonce,
        incarnation: m.incarnation,
        router_incarnation: m.router_incarnation,
        epoch: m.epoch.0,
        result: Some(result),
    }
}
