//! Where peers of encapsulated SAs are by now, and what keeps their NATs' mappings alive.
//!
//! The router alone decides where a peer is: targets tell what they saw, and are told where to send. Who keeps a mapping alive is
//! the end behind the NAT (RFC 7296 §2.23, RFC 3948 §4); of a static SA nobody knows whether that is us, so its configuration says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use phalanx_ipsec::SaParams;
use phalanx_wire::{PeerId, SaId, VipId};

use super::RouterCluster;
use super::member::MemberState;
use super::pairs::Pair;
use crate::messages::{PeerAt, ToTarget};
use crate::outputs::RouterOutput;

/// All that is remembered of peers. Everything in here belongs to a pair and goes with it: that bounds it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Those that are not where they were when their SAs began.
    moved: BTreeMap<(VipId, PeerId), SocketAddr>,
    /// By inbound SA: the number of the packet that told of a place last.
    newest: BTreeMap<SaId, u64>,
    /// By outbound SA.
    alive: BTreeMap<SaId, Alive>,
    due: BTreeSet<(u64, SaId)>,
}

#[derive(Debug)]
struct Alive {
    every_us: u64,
    /// When something was last sent: numbers were handed out, which live for milliseconds, or a keepalive.
    sent: u64,
}

impl Peers {
    /// Somebody sends through that outbound SA.
    pub(super) fn sends(&mut self, outbound: SaId, now: u64) {
        if let Some(alive) = self.alive.get_mut(&outbound) {
            alive.sent = now;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    fn end(&self, params: &SaParams) -> SocketAddr {
        self.moved.get(&(params.vip, params.peer)).copied().unwrap_or(params.remote_end())
    }
}

impl RouterCluster {
    /// One of the router's own cores saw a genuine packet from elsewhere.
    pub fn local_peer_seen(&mut self, told: &PeerAt) {
        let Some(pair) = self.pairs.get(&told.sa) else { return };
        let params = &pair.spec.inbound;
        let speaks = !told.remote.ip().is_multicast() && !told.remote.ip().is_unspecified() && told.remote.port() != 0;
        if params.encap.is_none() || !speaks || told.remote.is_ipv4() != params.remote.is_ipv4() {
            return;
        }
        // RFC 7296 §2.23: only by a packet newer than the last one that did.
        let newest = self.peers.newest.entry(told.sa).or_default();
        if told.number <= *newest {
            return;
        }
        *newest = told.number;
        if self.peers.end(params) == told.remote {
            return;
        }
        let (vip, peer) = (params.vip, params.peer);
        self.moved(vip, peer, told.remote);
    }

    /// Another proof than a packet's shows that the peer of an encapsulated SA is there now.
    pub fn move_peer(&mut self, sa: SaId, remote: SocketAddr) {
        let Some(pair) = self.pair_of(sa).and_then(|id| self.pairs.get(&id)) else { return };
        let params = &pair.spec.inbound;
        if params.encap.is_none() || remote.is_ipv4() != params.remote.is_ipv4() || self.peers.end(params) == remote {
            return;
        }
        let (vip, peer) = (params.vip, params.peer);
        self.moved(vip, peer, remote);
    }

    fn moved(&mut self, vip: VipId, peer: PeerId, remote: SocketAddr) {
        self.peers.moved.insert((vip, peer), remote);
        for at in 0..self.members.len() {
            if self.members[at].state >= MemberState::Joining && self.serves(at, vip) {
                self.send(at, ToTarget::PeerMoved { vip, peer, remote });
            }
        }
        let sas = self.encapsulated(vip, peer);
        self.outputs.push_back(RouterOutput::PeerMoved { sas, remote });
    }

    /// Where a peer is by now.
    #[must_use]
    pub fn peer_end(&self, sa: SaId) -> Option<SocketAddr> {
        let pair = self.pairs.get(&self.pair_of(sa)?)?;
        pair.spec.inbound.encap.map(|_| self.peers.end(&pair.spec.inbound))
    }

    /// A target saw it.
    pub(super) fn peer_seen(&mut self, at: usize, told: &PeerAt) {
        // R2: who does not have the SA cannot have opened its packets.
        if self.pairs.get(&told.sa).is_some_and(|pair| self.serves(at, pair.vip())) {
            self.local_peer_seen(told);
        }
    }

    /// A node that gets an SA learns where its peer is, if it moved.
    pub(super) fn tell_where(&mut self, at: usize, sa: SaId) {
        let pair = self.pair_of(sa).and_then(|id| self.pairs.get(&id));
        let Some((vip, peer)) = pair.map(|pair| (pair.spec.inbound.vip, pair.spec.inbound.peer)) else { return };
        if let Some(&remote) = self.peers.moved.get(&(vip, peer)) {
            self.send(at, ToTarget::PeerMoved { vip, peer, remote });
        }
    }

    /// A pair begins: its keepalives too.
    pub(super) fn keep_alive(&mut self, inbound: SaId, now: u64) {
        let Some(spec) = self.pairs.get(&inbound).map(|pair| &pair.spec) else { return };
        let (sa, every_us) = (spec.outbound.id, spec.keepalive_us);
        if spec.outbound.encap.is_some() && every_us > 0 {
            self.peers.alive.insert(sa, Alive { every_us, sent: now });
            self.peers.due.insert((now + every_us, sa));
        }
    }

    /// RFC 3948 §4: where nothing was sent for a while, a keepalive.
    pub(super) fn send_keepalives(&mut self, now: u64) {
        while let Some(&(at, sa)) = self.peers.due.first().filter(|(at, _)| *at <= now) {
            self.peers.due.remove(&(at, sa));
            let pair = self.outbound.get(&sa).and_then(|id| self.pairs.get(id));
            let place = pair.map(|pair| (pair.vip(), self.peers.end(&pair.spec.outbound)));
            let (Some((vip, remote)), Some(alive)) = (place, self.peers.alive.get_mut(&sa)) else { continue };
            if alive.sent + alive.every_us <= now {
                alive.sent = now;
                self.outputs.push_back(RouterOutput::Keepalive { vip, remote });
            }
            self.peers.due.insert((alive.sent + alive.every_us, sa));
        }
    }

    /// A pair is gone. Its peer may have others.
    pub(super) fn forget_peer(&mut self, pair: &Pair) {
        let (inbound, outbound) = (&pair.spec.inbound, &pair.spec.outbound);
        self.peers.newest.remove(&inbound.id);
        self.peers.alive.remove(&outbound.id);
        if self.encapsulated(inbound.vip, inbound.peer).is_empty() {
            self.peers.moved.remove(&(inbound.vip, inbound.peer));
        }
    }

    fn encapsulated(&self, vip: VipId, peer: PeerId) -> Vec<SaId> {
        let of_peer = self.pairs.values().map(|pair| &pair.spec);
        let of_peer = of_peer.filter(|spec| (spec.inbound.vip, spec.inbound.peer) == (vip, peer));
        let sas = of_peer.flat_map(|spec| [&spec.inbound, &spec.outbound]).filter(|sa| sa.encap.is_some());
        sas.map(|sa| sa.id).collect()
    }
}
