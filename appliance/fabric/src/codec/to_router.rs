//! What targets say.

use phalanx_cluster::messages::{Drained, Gathered, Hello, LeaseRequest, Notice, PeerAt, SaReport, ToRouter};
use phalanx_wire::{Epoch, SaId, VipId};
use prost::Message;

use super::fits;
use super::parts::{
    Bad, LIST_MAX, NAME_MAX, Part, WINDOWS_MAX, connection, core, from_connection, from_peer_end, from_sa_window,
    from_vip_epoch, from_window, list, needed, peer_end, sa_window, small, text, tunnel_name, vip, vip_epoch, window,
};
use crate::proto::target_message::Kind;
use crate::{FabricError, proto};

/// Bytes of an error text at most; longer ones are cut.
const ERROR_MAX: usize = 1024;
/// Reasons to drop of one message at most: more than there are.
const REASONS_MAX: usize = 256;
/// Reports of one message at most; each may have a window.
const REPORTS_MAX: usize = WINDOWS_MAX;

pub(crate) fn decode(message: proto::TargetMessage) -> Result<ToRouter, FabricError> {
    let kind = needed(message.kind, "kind").map_err(|bad| bad.of("(unknown)"))?;
    let name = kind_name(&kind);
    parse(kind).map_err(|bad| bad.of(name))
}

pub(crate) fn encode(message: &ToRouter) -> Result<proto::TargetMessage, FabricError> {
    let kind = build(message).map_err(|bad| bad.of(message.name()))?;
    let encoded = proto::TargetMessage { kind: Some(kind) };
    fits(message.name(), encoded.encoded_len())?;
    Ok(encoded)
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Hello(_) => "Hello",
        Kind::Gathered(_) => "Gathered",
        Kind::Ack(_) => "Ack",
        Kind::LeaseRequest(_) => "LeaseRequest",
        Kind::Report(_) => "Report",
        Kind::Notice(_) => "Notice",
        Kind::Listening(_) => "Listening",
        Kind::Draining(_) => "Draining",
        Kind::PeerMoved(_) => "PeerMoved",
        Kind::Dropped(_) => "Dropped",
        Kind::Beat(_) => "Beat",
        Kind::Load(_) => "Load",
        Kind::SaWanted(_) => "SaWanted",
        Kind::ConnWanted(_) => "ConnWanted",
    }
}

fn parse(kind: Kind) -> Part<ToRouter> {
    Ok(match kind {
        Kind::Hello(m) => ToRouter::Hello(hello(m)?),
        Kind::Gathered(m) => ToRouter::Gathered(gathered(m)?),
        Kind::Ack(m) => {
            let error = m.error.map(|e| text(e, ERROR_MAX, "error")).transpose()?;
            ToRouter::Ack { request: m.request, error }
        }
        Kind::LeaseRequest(m) => ToRouter::LeaseRequest(lease_request(m)?),
        Kind::Report(m) => ToRouter::Report(list(m.uses, REPORTS_MAX, "uses", sa_use)?),
        Kind::Notice(m) => ToRouter::Notice(Notice {
            id: m.id,
            opened: list(m.opened, LIST_MAX, "opened", connection)?,
            closed: list(m.closed, LIST_MAX, "closed", connection)?,
            windows: list(m.windows, WINDOWS_MAX, "windows", sa_window)?,
        }),
        Kind::Listening(m) => ToRouter::Listening {
            vip: vip(m.vip)?,
            ports: list(m.ports, LIST_MAX, "ports", |p| small(p, "port"))?,
            udp: list(m.udp_ports, LIST_MAX, "ports", |p| small(p, "port"))?,
        },
        Kind::Load(m) => ToRouter::Load(small(m.permille, "load")?),
        Kind::Draining(m) => ToRouter::Draining(match list(m.vips, LIST_MAX, "vips", vip)? {
            vips if vips.is_empty() && m.nothing => Drained::Nothing,
            vips if vips.is_empty() => Drained::All,
            vips => Drained::Vips(vips),
        }),
        Kind::PeerMoved(m) => {
            ToRouter::PeerMoved(PeerAt { sa: SaId(m.sa), remote: peer_end(m.remote)?, number: m.number })
        }
        Kind::Dropped(m) => ToRouter::Dropped(list(m.reasons, REASONS_MAX, "reasons", |r| {
            Ok((text(r.reason, NAME_MAX, "reason")?, r.packets))
        })?),
        Kind::SaWanted(m) => ToRouter::SaWanted { vip: vip(m.vip)?, tunnel: tunnel_name(&m.tunnel)? },
        Kind::ConnWanted(m) => {
            ToRouter::ConnWanted { conn: connection(needed(m.connection, "connection")?)?, sa: SaId(m.sa) }
        }
        Kind::Beat(_) => ToRouter::Beat,
    })
}

fn hello(m: proto::Hello) -> Part<Hello> {
    Ok(Hello {
        version: m.version,
        node: text(m.node, NAME_MAX, "node")?,
        incarnation: m.incarnation,
        link_mtu: small(m.link_mtu, "link MTU")?,
        cores: list(m.cores, LIST_MAX, "cores", core)?,
    })
}

fn gathered(m: proto::Gathered) -> Part<Gathered> {
    Ok(Gathered {
        vips: list(m.vips, LIST_MAX, "vips", vip_epoch)?,
        connections: list(m.connections, LIST_MAX, "connections", connection)?,
        windows: list(m.windows, WINDOWS_MAX, "windows", sa_window)?,
        highest_out: list(m.highest_out, 2 * LIST_MAX, "highest numbers", |n| Ok((SaId(n.sa), n.number)))?,
        last: m.last,
    })
}

fn lease_request(m: proto::LeaseRequest) -> Part<LeaseRequest> {
    Ok(LeaseRequest {
        sa: SaId(m.sa),
        core: core(m.core)?,
        nonce: m.nonce,
        incarnation: m.incarnation,
        router_incarnation: m.router_incarnation,
        epoch: Epoch(m.epoch),
        want: m.want,
        done_below: m.done_below,
        rate_pps: m.rate_pps,
        latency_us: m.latency_us,
    })
}

fn sa_use(m: proto::SaUse) -> Part<SaReport> {
    let window = m.window.map(window).transpose()?;
    let (packets, bytes, failed, replayed) = (m.packets, m.bytes, m.failed, m.replayed);
    Ok(SaReport { sa: SaId(m.sa), packets, bytes, failed, replayed, window })
}

fn build(message: &ToRouter) -> Part<Kind> {
    Ok(match message {
        ToRouter::Hello(m) => Kind::Hello(proto::Hello {
            version: m.version,
            node: text(m.node.clone(), NAME_MAX, "node")?,
            incarnation: m.incarnation,
            link_mtu: m.link_mtu.into(),
            cores: m.cores.iter().map(|c| c.0.into()).collect(),
        }),
        ToRouter::Gathered(m) => Kind::Gathered(from_gathered(m)?),
        ToRouter::Ack { request, error } => {
            Kind::Ack(proto::Ack { request: *request, error: error.as_deref().map(|e| cut(e, ERROR_MAX).to_owned()) })
        }
        ToRouter::LeaseRequest(m) => Kind::LeaseRequest(from_lease_request(m)),
        ToRouter::Report(reports) => {
            limit(reports, REPORTS_MAX, "uses")?;
            Kind::Report(proto::Report { uses: reports.iter().map(from_sa_use).collect() })
        }
        ToRouter::Notice(m) => Kind::Notice(from_notice(m)?),
        ToRouter::Listening { vip: VipId(vip), ports, udp } => {
            limit(ports, LIST_MAX, "ports")?;
            limit(udp, LIST_MAX, "ports")?;
            let [ports, udp_ports] = [ports, udp].map(|ports| ports.iter().map(|p| u32::from(*p)).collect());
            Kind::Listening(proto::Listening { vip: u32::from(*vip), ports, udp_ports })
        }
        ToRouter::Load(permille) => Kind::Load(proto::Load { permille: (*permille).into() }),
        ToRouter::Draining(drained) => {
            let vips = if let Drained::Vips(vips) = drained { &vips[..] } else { &[] };
            limit(vips, LIST_MAX, "vips")?;
            let nothing = vips.is_empty() && *drained != Drained::All;
            Kind::Draining(proto::Draining { vips: vips.iter().map(|v| v.0.into()).collect(), nothing })
        }
        &ToRouter::PeerMoved(PeerAt { sa, remote, number }) => {
            Kind::PeerMoved(proto::PeerAt { sa: sa.0, remote: from_peer_end(remote), number })
        }
        ToRouter::Dropped(reasons) => {
            limit(reasons, REASONS_MAX, "reasons")?;
            let count =
                |(reason, packets): &(String, u64)| proto::DropCount { reason: reason.clone(), packets: *packets };
            Kind::Dropped(proto::Dropped { reasons: reasons.iter().map(count).collect() })
        }
        ToRouter::SaWanted { vip, tunnel } => {
            Kind::SaWanted(proto::SaWanted { vip: vip.0.into(), tunnel: tunnel.as_str().to_owned() })
        }
        ToRouter::ConnWanted { conn, sa } => {
            Kind::ConnWanted(proto::ConnWanted { connection: Some(from_connection(conn)), sa: sa.0 })
        }
        ToRouter::Beat => Kind::Beat(proto::Beat {}),
    })
}

fn from_gathered(m: &Gathered) -> Part<proto::Gathered> {
    limit(&m.vips, LIST_MAX, "vips")?;
    limit(&m.connections, LIST_MAX, "connections")?;
    limit(&m.windows, WINDOWS_MAX, "windows")?;
    limit(&m.highest_out, 2 * LIST_MAX, "highest numbers")?;
    Ok(proto::Gathered {
        vips: m.vips.iter().map(from_vip_epoch).collect(),
        connections: m.connections.iter().map(from_connection).collect(),
        windows: m.windows.iter().map(from_sa_window).collect(),
        highest_out: m.highest_out.iter().map(|&(sa, number)| proto::SaNumber { sa: sa.0, number }).collect(),
        last: m.last,
    })
}

fn from_notice(m: &Notice) -> Part<proto::Notice> {
    limit(&m.opened, LIST_MAX, "opened")?;
    limit(&m.closed, LIST_MAX, "closed")?;
    limit(&m.windows, WINDOWS_MAX, "windows")?;
    Ok(proto::Notice {
        id: m.id,
        opened: m.opened.iter().map(from_connection).collect(),
        closed: m.closed.iter().map(from_connection).collect(),
        windows: m.windows.iter().map(from_sa_window).collect(),
    })
}

fn from_lease_request(m: &LeaseRequest) -> proto::LeaseRequest {
    proto::LeaseRequest {
        sa: m.sa.0,
        core: m.core.0.into(),
        nonce: m.nonce,
        incarnation: m.incarnation,
        router_incarnation: m.router_incarnation,
        epoch: m.epoch.0,
        want: m.want,
        done_below: m.done_below,
        rate_pps: m.rate_pps,
        latency_us: m.latency_us,
    }
}

fn from_sa_use(m: &SaReport) -> proto::SaUse {
    let window = m.window.as_ref().map(from_window);
    let (packets, bytes, failed, replayed) = (m.packets, m.bytes, m.failed, m.replayed);
    proto::SaUse { sa: m.sa.0, packets, bytes, window, failed, replayed }
}

fn limit<T>(values: &[T], max: usize, field: &'static str) -> Part<()> {
    if values.len() > max {
        return Err(Bad::new(field, format!("{} entries, at most {max}", values.len())));
    }
    Ok(())
}

/// The text's first `max` bytes, or a little less where a character would be cut.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_text_is_cut_between_characters_and_arrives() {
        let error = Some("ü".repeat(ERROR_MAX));
        let sent = encode(&ToRouter::Ack { request: 1, error }).unwrap();
        let ToRouter::Ack { error: Some(error), .. } = decode(sent).unwrap() else {
            panic!("not an Ack with an error")
        };
        assert_eq!(error, "ü".repeat(ERROR_MAX / 2));
    }
}
