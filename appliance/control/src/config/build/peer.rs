//! Peers.

use super::{IpNet, Peer, SaMode, Vip, selectors};
use crate::config::read::At;
use crate::config::section::{ChildDraft, LifeDraft, PeerDraft, ProofDraft};
use crate::config::{MssClamp, proposal};
use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::{ChildConfig, ChildMode, Credential, EspProposal, IkeProposal, Lifetime, PeerConfig, Proof, Remote};
use phalanx_ipsec::{PortRange, Prefix};
use std::net::IpAddr;
use std::sync::Arc;

/// Without a word: IKE's own keys for four hours, a child's for one.
const IKE_REKEY_S: u32 = 14_400;
const CHILD_REKEY_S: u32 = 3_600;
/// A child's keys for three quarters of what 32-bit numbers can count.
const REKEY_PACKETS: u64 = 3 << 30;
/// Percent by which soft limits come earlier, by chance.
const JITTER: u8 = 10;
/// The name of the one child of a peer that names none.
const ONLY_CHILD: &str = "all";

pub(super) fn peer(p: PeerDraft, vips: &[Vip]) -> Option<Peer> {
    let vip = vips.iter().position(|v| Some(&v.name) == p.vip.as_ref().map(|v| &v.value))?;
    let local = vips[vip].address.addr();
    let remote = p.remote.map_or(Remote::Any, |r| r.value);
    let start = p.start.is_some_and(|s| s.value);
    let (credential, proof) = match p.proof?.value {
        ProofDraft::Secret(secret) => (Credential::Psk(secret.clone()), Proof::Psk(secret)),
        ProofDraft::Certificate(ours, theirs) => (Credential::Certificate(ours), Proof::Certificate(theirs)),
    };
    let children = if p.children.is_empty() {
        vec![Arc::new(only_child(start)?)]
    } else {
        let at = remote.address();
        p.children.into_iter().map(|c| Some(Arc::new(child(c, local, at, start)?))).collect::<Option<Vec<_>>>()?
    };
    let ike = PeerConfig {
        name: p.name?.value.into(),
        local,
        local_id: p.local_id.map_or_else(|| Identity::from(local), |id| id.value),
        remote_id: p
            .remote_id
            .map(|id| id.value)
            .or_else(|| remote.address().map(|at| IdentityPattern::Exactly(at.into())))?,
        remote,
        credential,
        proof,
        proposal: p.proposal.map_or_else(default_ike, |p| Some(p.value))?,
        children,
        lifetime: life(&p.life, IKE_REKEY_S),
        reauthenticate: p.reauthenticate.is_some_and(|r| r.value),
        liveness_ms: u64::from(p.liveness.map_or(30, |s| s.value)) * 1000,
        keepalive_ms: u64::from(p.nat_keepalive.as_ref().map_or(20, |s| s.value)) * 1000,
        // RFC 7383 §2.5.1: 1280 bytes fit every path of IPv6, and nearly every one of IPv4.
        fragment: p.fragment.map_or(1280, |s| s.value),
        start,
        unique: p.unique.is_none_or(|u| u.value),
        force_encapsulation: p.udp.is_some_and(|u| u.value),
    };
    Some(Peer {
        vip,
        ike: Arc::new(ike),
        path_mtu: p.path_mtu.map_or(1500, |m| m.value),
        mss_clamp: p.mss_clamp.map_or(MssClamp::None, |m| m.value),
        copy_dscp: p.copy_dscp.is_none_or(|c| c.value),
        ecn: p.ecn.is_none_or(|e| e.value),
        nat_keepalive: p.nat_keepalive.map_or(20, |s| s.value),
    })
}

fn default_ike() -> Option<IkeProposal> {
    proposal::IKE.parse::<proposal::Ike>().ok().map(|p| p.0)
}

fn default_esp() -> Option<EspProposal> {
    proposal::ESP.parse::<proposal::Esp>().ok().map(|p| p.0)
}

/// Tunnel mode, everything between the VIP and the peer.
fn only_child(start: bool) -> Option<ChildConfig> {
    Some(ChildConfig {
        name: ONLY_CHILD.into(),
        mode: ChildMode::Tunnel,
        local: None,
        remote: None,
        protocol: None,
        local_ports: PortRange::ANY,
        remote_ports: PortRange::ANY,
        proposal: default_esp()?,
        lifetime: child_life(&LifeDraft::default()),
        window: 32,
        start,
    })
}

fn child(c: ChildDraft, vip: IpAddr, peer: Option<IpAddr>, start: bool) -> Option<ChildConfig> {
    let prefix = |net: IpNet| Prefix::new(net.network(), net.prefix_len()).ok();
    let anywhere = IpNet::from(vip);
    let ports = |r: &super::PortRange| PortRange::new(r.first, r.last).ok();
    let whole = selectors(&c.selectors, vip, peer.map_or(anywhere, IpNet::from));
    let transport = c.mode.as_ref().is_some_and(|m| m.value == SaMode::Transport);
    // In transport mode the ends are those of the path; in tunnel mode what is not said is.
    let block = |said: &Option<At<IpNet>>| said.as_ref().filter(|_| !transport).and_then(|net| prefix(net.value));
    Some(ChildConfig {
        name: c.name?.value.into(),
        mode: if transport { ChildMode::Transport } else { ChildMode::Tunnel },
        local: block(&c.selectors.local),
        remote: block(&c.selectors.remote),
        protocol: whole.protocol,
        local_ports: ports(&whole.local_ports)?,
        remote_ports: ports(&whole.remote_ports)?,
        proposal: c.proposal.map_or_else(default_esp, |p| Some(p.value))?,
        lifetime: child_life(&c.life),
        window: c.window.map_or(32, |w| w.value),
        start: c.start.map_or(start, |s| s.value),
    })
}

fn child_life(l: &LifeDraft) -> Lifetime {
    let value = |key: &Option<At<u64>>| key.as_ref().map(|k| k.value);
    let (soft_bytes, hard_bytes) = both(value(&l.rekey_bytes), value(&l.life_bytes), 0);
    let (soft_packets, hard_packets) = both(value(&l.rekey_packets), value(&l.life_packets), REKEY_PACKETS);
    // Packets have an end of their own: that of their numbers.
    let hard_packets = if l.life_packets.is_some() || l.rekey_packets.is_some() { hard_packets } else { 0 };
    Lifetime { soft_bytes, hard_bytes, soft_packets, hard_packets, ..life(l, CHILD_REKEY_S) }
}

fn life(l: &LifeDraft, rekey: u32) -> Lifetime {
    let ms = |key: &Option<At<u32>>| key.as_ref().map(|s| u64::from(s.value) * 1000);
    let (soft_ms, hard_ms) = both(ms(&l.rekey_seconds), ms(&l.life_seconds), u64::from(rekey) * 1000);
    let jitter_percent = l.jitter.as_ref().map_or(JITTER, |j| j.value);
    Lifetime { soft_ms, hard_ms, jitter_percent, ..Lifetime::default() }
}

/// A soft and a hard limit; what is not said is a tenth apart from what is, or the default. 0: none.
fn both(soft: Option<u64>, hard: Option<u64>, default: u64) -> (u64, u64) {
    let above = |soft: u64| soft.saturating_add(soft.div_ceil(10));
    match (soft, hard) {
        (Some(soft), Some(hard)) => (soft, hard),
        (Some(soft), None) => (soft, above(soft)),
        (None, Some(0)) => (default, 0),
        (None, Some(hard)) => (hard - hard / 10, hard),
        (None, None) => (default, above(default)),
    }
}
