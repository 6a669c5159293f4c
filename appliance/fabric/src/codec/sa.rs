//! A security association. Its key travels only inside mutual TLS and is wiped on both sides as soon as it was copied (I8).

use phalanx_ipsec::{Algorithm, Direction, Encap, Lifesize, Mode, MssClamp, Original, SaParams, SecretKey};
use phalanx_wire::{PeerId, SaId, Spi};

use super::parts::{Bad, Part, address, from_address, from_selectors, needed, selectors, small, tunnel_name, vip};
use crate::proto;
use crate::proto::security_association::Mode as WireMode;

pub(super) fn security_association(value: proto::SecurityAssociation) -> Part<SaParams> {
    let algorithm = algorithm(value.algorithm)?;
    // `Secret` wipes itself when it is dropped, here.
    let key = SecretKey::new(algorithm, &needed(value.key, "key")?.key_and_salt)
        .map_err(|e| Bad::new("key", e.to_string()))?;
    let params = SaParams {
        id: SaId(value.id),
        direction: direction(value.direction)?,
        vip: vip(value.vip)?,
        peer: PeerId(value.peer),
        tunnel: tunnel_name(&value.tunnel)?,
        spi: Spi(value.spi),
        mode: mode(value.mode)?,
        local: address(&value.local, "local address")?,
        remote: address(&value.remote, "remote address")?,
        algorithm,
        key,
        esn: value.esn,
        window: value.window,
        selectors: selectors(value.selectors)?,
        lifesize: Lifesize { soft: value.soft_bytes, hard: value.hard_bytes },
        path_mtu: small(value.path_mtu, "path MTU")?,
        mss_clamp: match small(value.mss_clamp, "MSS clamp")? {
            0 => MssClamp::None,
            1 => MssClamp::Path,
            most => MssClamp::Most(most),
        },
        copy_dscp: value.copy_dscp,
        ecn: value.ecn,
        encap: encap(value.encap, value.original)?,
        within: if value.within.is_empty() { None } else { Some(tunnel_name(&value.within)?) },
    };
    params.check().map_err(|e| Bad::new("sa", e.to_string()))?;
    Ok(params)
}

pub(super) fn from_security_association(value: &SaParams) -> Part<proto::SecurityAssociation> {
    value.check().map_err(|e| Bad::new("sa", e.to_string()))?;
    Ok(proto::SecurityAssociation {
        id: value.id.0,
        direction: from_direction(value.direction).into(),
        vip: value.vip.0.into(),
        peer: value.peer.0,
        tunnel: value.tunnel.as_str().to_owned(),
        spi: value.spi.0,
        mode: Some(from_mode(value.mode)),
        local: from_address(value.local),
        remote: from_address(value.remote),
        algorithm: from_algorithm(value.algorithm).into(),
        key: Some(proto::Secret { key_and_salt: value.key.expose().to_vec() }),
        esn: value.esn,
        window: value.window,
        selectors: from_selectors(&value.selectors),
        soft_bytes: value.lifesize.soft,
        hard_bytes: value.lifesize.hard,
        path_mtu: value.path_mtu.into(),
        mss_clamp: match value.mss_clamp {
            MssClamp::None => 0,
            MssClamp::Path => 1,
            MssClamp::Most(most) => most.max(2).into(),
        },
        copy_dscp: value.copy_dscp,
        ecn: value.ecn,
        encap: value.encap.map(|encap| proto::Encap { remote_port: encap.remote_port.into() }),
        original: value.encap.and_then(|encap| encap.original).map(from_original),
        within: value.within.map(|name| name.as_str().to_owned()).unwrap_or_default(),
    })
}

fn encap(encap: Option<proto::Encap>, original: Option<proto::Original>) -> Part<Option<Encap>> {
    let original = original.map(|original| {
        let local = address(&original.local, "original local address")?;
        Ok(Original { local, remote: address(&original.remote, "original remote address")? })
    });
    match (encap, original.transpose()?) {
        (Some(encap), original) => Ok(Some(Encap { remote_port: small(encap.remote_port, "peer's port")?, original })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Bad::new("original addresses", "without encapsulation")),
    }
}

fn from_original(value: Original) -> proto::Original {
    proto::Original { local: from_address(value.local), remote: from_address(value.remote) }
}

fn algorithm(value: i32) -> Part<Algorithm> {
    match proto::Algorithm::try_from(value) {
        Ok(proto::Algorithm::Aes128Gcm16) => Ok(Algorithm::Aes128Gcm16),
        Ok(proto::Algorithm::Aes256Gcm16) => Ok(Algorithm::Aes256Gcm16),
        Ok(proto::Algorithm::Chacha20Poly1305) => Ok(Algorithm::ChaCha20Poly1305),
        Ok(proto::Algorithm::Aes128Gcm16Iiv) => Ok(Algorithm::Aes128Gcm16Iiv),
        Ok(proto::Algorithm::Aes256Gcm16Iiv) => Ok(Algorithm::Aes256Gcm16Iiv),
        Ok(proto::Algorithm::Chacha20Poly1305Iiv) => Ok(Algorithm::ChaCha20Poly1305Iiv),
        Ok(proto::Algorithm::Aes128Gmac) => Ok(Algorithm::Aes128Gmac),
        Ok(proto::Algorithm::Aes256Gmac) => Ok(Algorithm::Aes256Gmac),
        Ok(proto::Algorithm::Aes128CbcSha256) => Ok(Algorithm::Aes128CbcSha256),
        Ok(proto::Algorithm::Aes128CbcSha384) => Ok(Algorithm::Aes128CbcSha384),
        Ok(proto::Algorithm::Aes128CbcSha512) => Ok(Algorithm::Aes128CbcSha512),
        Ok(proto::Algorithm::Aes256CbcSha256) => Ok(Algorithm::Aes256CbcSha256),
        Ok(proto::Algorithm::Aes256CbcSha384) => Ok(Algorithm::Aes256CbcSha384),
        Ok(proto::Algorithm::Aes256CbcSha512) => Ok(Algorithm::Aes256CbcSha512),
        Ok(proto::Algorithm::NullSha256) => Ok(Algorithm::NullSha256),
        Ok(proto::Algorithm::NullSha384) => Ok(Algorithm::NullSha384),
        Ok(proto::Algorithm::NullSha512) => Ok(Algorithm::NullSha512),
        Ok(proto::Algorithm::AhHmacSha256) => Ok(Algorithm::AhHmacSha256),
        Ok(proto::Algorithm::AhHmacSha384) => Ok(Algorithm::AhHmacSha384),
        Ok(proto::Algorithm::AhHmacSha512) => Ok(Algorithm::AhHmacSha512),
        Ok(proto::Algorithm::AhGmac128) => Ok(Algorithm::AhGmac128),
        Ok(proto::Algorithm::AhGmac256) => Ok(Algorithm::AhGmac256),
        Ok(proto::Algorithm::Unspecified) | Err(_) => Err(unknown("algorithm", value)),
    }
}

fn from_algorithm(value: Algorithm) -> proto::Algorithm {
    match value {
        Algorithm::Aes128Gcm16 => proto::Algorithm::Aes128Gcm16,
        Algorithm::Aes256Gcm16 => proto::Algorithm::Aes256Gcm16,
        Algorithm::ChaCha20Poly1305 => proto::Algorithm::Chacha20Poly1305,
        Algorithm::Aes128Gcm16Iiv => proto::Algorithm::Aes128Gcm16Iiv,
        Algorithm::Aes256Gcm16Iiv => proto::Algorithm::Aes256Gcm16Iiv,
        Algorithm::ChaCha20Poly1305Iiv => proto::Algorithm::Chacha20Poly1305Iiv,
        Algorithm::Aes128Gmac => proto::Algorithm::Aes128Gmac,
        Algorithm::Aes256Gmac => proto::Algorithm::Aes256Gmac,
        Algorithm::Aes128CbcSha256 => proto::Algorithm::Aes128CbcSha256,
        Algorithm::Aes128CbcSha384 => proto::Algorithm::Aes128CbcSha384,
        Algorithm::Aes128CbcSha512 => proto::Algorithm::Aes128CbcSha512,
        Algorithm::Aes256CbcSha256 => proto::Algorithm::Aes256CbcSha256,
        Algorithm::Aes256CbcSha384 => proto::Algorithm::Aes256CbcSha384,
        Algorithm::Aes256CbcSha512 => proto::Algorithm::Aes256CbcSha512,
        Algorithm::NullSha256 => proto::Algorithm::NullSha256,
        Algorithm::NullSha384 => proto::Algorithm::NullSha384,
        Algorithm::NullSha512 => proto::Algorithm::NullSha512,
        Algorithm::AhHmacSha256 => proto::Algorithm::AhHmacSha256,
        Algorithm::AhHmacSha384 => proto::Algorithm::AhHmacSha384,
        Algorithm::AhHmacSha512 => proto::Algorithm::AhHmacSha512,
        Algorithm::AhGmac128 => proto::Algorithm::AhGmac128,
        Algorithm::AhGmac256 => proto::Algorithm::AhGmac256,
    }
}

fn direction(value: i32) -> Part<Direction> {
    match proto::Direction::try_from(value) {
        Ok(proto::Direction::Inbound) => Ok(Direction::Inbound),
        Ok(proto::Direction::Outbound) => Ok(Direction::Outbound),
        Ok(proto::Direction::Unspecified) | Err(_) => Err(unknown("direction", value)),
    }
}

fn from_direction(value: Direction) -> proto::Direction {
    match value {
        Direction::Inbound => proto::Direction::Inbound,
        Direction::Outbound => proto::Direction::Outbound,
    }
}

fn mode(value: Option<WireMode>) -> Part<Mode> {
    match needed(value, "mode")? {
        WireMode::TransportMode(_) => Ok(Mode::Transport),
        WireMode::TunnelMode(ends) => Ok(Mode::Tunnel {
            local: address(&ends.local, "local end of the tunnel")?,
            remote: address(&ends.remote, "remote end of the tunnel")?,
        }),
    }
}

fn from_mode(value: Mode) -> WireMode {
    match value {
        Mode::Transport => WireMode::TransportMode(proto::Transport {}),
        Mode::Tunnel { local, remote } => {
            WireMode::TunnelMode(proto::Tunnel { local: from_address(local), remote: from_address(remote) })
        }
    }
}

fn unknown(field: &'static str, value: i32) -> Bad {
    Bad::new(field, format!("this version does not know number {value}"))
}
