//! Peers: who they are, where, and what goes through their tunnels.

use super::selectors::sound;
use super::{known, unique, unique_names};
use crate::config::read::Sink;
use crate::config::report::Problem;
use crate::config::section::{ChildDraft, Draft, LifeDraft, PeerDraft, VipDraft, place, text};
use crate::config::{SaMode, Selectors, build};
use ipnet::IpNet;
use phalanx_ike::Remote;
use std::net::IpAddr;

/// The names of a peer and a child make a tunnel's name, of 31 bytes, with room for a number.
const NAMES: usize = 24;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    unique_names(draft.peers.iter().map(|p| p.name.as_ref()), "peers", sink);
    for peer in &draft.peers {
        let names = peer.children.iter().filter_map(|c| Some((text(&c.name)?, c.name.as_ref()?.span.clone())));
        unique(names, |name| format!("two children of this peer are called `{name}`"), sink);
        life(&peer.life, sink);
        let Some(vip) = vip_of(draft, peer, sink) else { continue };
        at(draft, peer, vip, sink);
        for child in &peer.children {
            life(&child.life, sink);
            lengths(peer, child, sink);
            ah(peer, child, sink);
            hides_nothing(child, sink);
            selectors(draft, peer, child, vip, sink);
        }
    }
}

/// What a peer may choose, it may choose: each algorithm is named.
fn hides_nothing(child: &ChildDraft, sink: &Sink) {
    let Some(proposal) = &child.proposal else { return };
    proposal.value.algorithms.iter().for_each(|one| super::sas::hides_nothing(*one, &proposal.span, sink));
}

/// RFC 3948 §1.
fn ah(peer: &PeerDraft, child: &ChildDraft, sink: &Sink) {
    let (Some(udp), Some(proposal)) = (&peer.udp, &child.proposal) else { return };
    if udp.value && proposal.value.algorithms.iter().any(|a| a.is_ah()) {
        let problem = Problem::error("AH cannot travel in UDP: it covers the very addresses that a NAT changes");
        sink.push(problem.at(proposal.span.clone(), "AH").at(udp.span.clone(), "in UDP"));
    }
}

/// The VIP, if it is one and this node's.
fn vip_of<'a>(draft: &'a Draft, peer: &PeerDraft, sink: &Sink) -> Option<&'a VipDraft> {
    let name = peer.vip.as_ref()?;
    if !known(name, draft.vips.iter().filter_map(|v| text(&v.name)), "VIP", sink) {
        return None;
    }
    let vip = draft.vips.iter().find(|v| text(&v.name) == Some(&name.value))?;
    if vip.owner.is_some() && draft.me().is_some() && text(&vip.owner) != draft.me() {
        let problem = Problem::error(format!("this node does not own `{}`", name.value)).at(name.span.clone(), "");
        sink.push(problem.help("peers stand in the router's configuration only; targets get their SAs from it"));
        return None;
    }
    Some(vip)
}

/// Where the peer is, and who.
fn at(draft: &Draft, peer: &PeerDraft, vip: &VipDraft, sink: &Sink) {
    let remote = peer.remote.as_ref().map_or(Remote::Any, |r| r.value.clone());
    if peer.remote_id.is_none() && remote.address().is_none() {
        let problem = Problem::error("`remote_id` is missing: where the peer has no address it needs a name");
        sink.push(problem.at(peer.span.clone(), "here"));
    }
    let first = match &remote {
        Remote::Any => None,
        Remote::Address(address) => Some(*address),
        Remote::Block(block) => Some(block.address()),
    };
    let place = place(&peer.remote, &peer.span);
    if let (Some(first), Some(address)) = (first, &vip.address)
        && first.is_ipv4() != address.value.addr().is_ipv4()
    {
        let message = format!("the peer {first} and the VIP {} are of different families", address.value.addr());
        sink.push(Problem::error(message).at(place.clone(), "").at(address.span.clone(), "the VIP"));
    }
    let ours = draft.vips.iter().filter_map(|v| v.address.as_ref());
    let ours = ours.chain(draft.ports.iter().flat_map(|p| &p.addresses));
    for own in ours.filter(|a| remote.address() == Some(a.value.addr())) {
        let problem =
            Problem::error(format!("the peer {} is this node itself", own.value.addr())).at(place.clone(), "");
        sink.push(problem.at(own.span.clone(), "own address"));
    }
    if let Some(start) = peer.start.as_ref().filter(|s| s.value && remote.address().is_none()) {
        let problem = Problem::error("`start` needs a `remote` address to begin with").at(start.span.clone(), "");
        sink.push(problem.at(place, ""));
    }
}

fn lengths(peer: &PeerDraft, child: &ChildDraft, sink: &Sink) {
    let (Some(name), Some(of)) = (&child.name, &peer.name) else { return };
    if name.value.len() + of.value.len() > NAMES {
        let message = format!("the names of a peer and its child have at most {NAMES} letters together");
        sink.push(Problem::error(message).at(name.span.clone(), "").at(of.span.clone(), "the peer"));
    }
}

fn life(life: &LifeDraft, sink: &Sink) {
    let seconds = |s: &Option<crate::config::read::At<u32>>| s.as_ref().map(|s| (u64::from(s.value), s.span.clone()));
    let count = |s: &Option<crate::config::read::At<u64>>| s.as_ref().map(|s| (s.value, s.span.clone()));
    let pairs = [
        (seconds(&life.rekey_seconds), seconds(&life.life_seconds)),
        (count(&life.rekey_bytes), count(&life.life_bytes)),
        (count(&life.rekey_packets), count(&life.life_packets)),
    ];
    for (rekey, end) in pairs {
        let (Some((rekey, at)), Some((end, until))) = (rekey, end) else { continue };
        if end != 0 && end < rekey {
            let problem = Problem::error("the end of its life is before its successor is made").at(until, "end");
            sink.push(problem.at(at, "successor"));
        }
    }
}

fn selectors(draft: &Draft, peer: &PeerDraft, child: &ChildDraft, vip: &VipDraft, sink: &Sink) {
    let Some(address) = vip.address.as_ref().map(|a| a.value.addr()) else { return };
    let at = peer.remote.as_ref().and_then(|r| r.value.address()).map(IpNet::from);
    let anywhere =
        IpNet::new_assert(if address.is_ipv4() { IpAddr::from([0u8; 4]) } else { IpAddr::from([0u8; 16]) }, 0);
    let whole: Selectors = build::selectors(&child.selectors, address, at.unwrap_or(anywhere));
    if !sound(&child.selectors, &whole, &child.span, sink) {
        return;
    }
    if child.mode.as_ref().map(|m| m.value) == Some(SaMode::Transport) {
        for block in [&child.selectors.local, &child.selectors.remote].into_iter().flatten() {
            let problem = Problem::error("in transport mode the ends are the VIP and the peer themselves");
            sink.push(problem.at(block.span.clone(), "").help("leave it out, or use mode = \"tunnel\""));
        }
        return;
    }
    let vips = || draft.vips.iter().filter_map(|v| v.address.as_ref()).map(|a| a.value.addr());
    if !vips().any(|ip: IpAddr| whole.local.contains(&ip)) {
        let at = place(&child.selectors.local, &child.span);
        let problem = Problem::error(format!("`local` {} holds no VIP: nothing that comes through fits", whole.local));
        sink.push(problem.at(at, "").help(format!("the VIP of this peer is {address}")));
    }
}
