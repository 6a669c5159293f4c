//! Peers behind NATs: what comes by port 4500 of a VIP, genuine packets from where their peer was not, and keepalives (RFC 3948).
//!
//! A core moves no peer on its own: it tells, and the VIP's router decides for all (RFC 7296 §2.23). Until it did, answers go where
//! the peer was.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use phalanx_ipsec::InboundIndex;
use phalanx_wire::natt::{self, Content};
use phalanx_wire::{Buffer, DropReason, SaId, VipId, protocol};

use crate::clock::Now;
use crate::command::Event;
use crate::engine::Engine;
use crate::inbound_router::Arrived;
use crate::packet::{Source, filled};
use crate::stats::Stage;

/// What was told is told again after this if nothing came of it.
const REPEAT_US: u64 = 20_000;
/// Peers that may be on the move at a time. One more has to wait, for 20 ms at most.
const MOVING: usize = 64;
/// An IPv6 header, a UDP header, one byte.
const KEEPALIVE_LEN: usize = 40 + natt::LEN + 1;

/// Moves that were told of, each until when it is not told again.
#[derive(Default)]
pub(crate) struct Movers {
    told: ArrayVec<(InboundIndex, u64), MOVING>,
}

impl Movers {
    /// Whether to tell of this one now.
    pub(crate) fn tell(&mut self, at: InboundIndex, now: Now) -> bool {
        self.told.retain(|(_, until)| *until > now.us());
        let known = self.told.iter().any(|(other, _)| *other == at);
        !known && self.told.try_push((at, now.us() + REPEAT_US)).is_ok()
    }

    /// It was heard.
    pub(crate) fn done(&mut self, at: InboundIndex) {
        self.told.retain(|(other, _)| *other != at);
    }
}

/// ESP, bare or in UDP, or AH (R8); no fragment.
#[inline]
pub(crate) fn is_protected<P: Buffer>(arrived: &Arrived<P>) -> bool {
    let Arrived { packet, ip, .. } = arrived;
    let named = || ip.upper == protocol::AH || matches!(Content::of(ip, packet.bytes()), Ok(Content::Esp(_)));
    ip.fragment.is_none() && named()
}

impl<S: Source> Engine<S> {
    /// The rest of what comes to a VIP.
    #[inline(never)]
    pub(crate) fn take_unprotected(&mut self, arrived: Arrived<S::Packet>, now: Now) {
        if arrived.ip.fragment.is_some() {
            return self.take_clear(arrived, now);
        }
        match Content::of(&arrived.ip, arrived.packet.bytes()) {
            // RFC 3948 §2.3: it is ignored.
            Ok(Content::Keepalive) => self.out.passed(Stage::NatKeepaliveEaten, 1),
            Ok(Content::Ike(_)) => self.hear_ike(arrived, now),
            Ok(Content::Esp(_) | Content::Other) => self.take_clear(arrived, now),
            Err(error) => self.out.drop(arrived.packet, error.into()),
        }
    }

    /// A packet that is genuine and newer than all before came from elsewhere than its peer was.
    pub(crate) fn peer_seen(&mut self, at: InboundIndex, remote: SocketAddr, number: u64, now: Now) {
        let Some(sa) = self.tables.cache.inbound(at).map(|sa| sa.id()) else { return };
        if self.movers.tell(at, now) {
            self.out.passed(Stage::PeerSeen, 1);
            self.mail.tell(Event::PeerSeen { core: self.id, sa, remote, number });
        }
    }

    /// The router says where the peer is.
    pub(crate) fn move_peer(&mut self, id: SaId, to: SocketAddr) {
        if let Some(at) = self.tables.cache.find_inbound(id) {
            self.movers.done(at);
            self.tables.cache.inbound_mut(at).into_iter().for_each(|sa| sa.move_peer(to));
        }
        if let Some(at) = self.tables.cache.find_outbound(id) {
            self.tables.cache.move_outbound(at, to);
        }
    }

    /// RFC 3948 §2.3, from the VIP: the NAT's mapping is with that.
    pub(crate) fn send_keepalive(&mut self, vip: VipId, to: SocketAddr, now: Now) {
        let Some(from) = self.tables.vips.by_id(vip).map(|vip| vip.entry.address) else { return };
        let mut bytes = [0; KEEPALIVE_LEN];
        let written = natt::write_keepalive(&mut bytes, from, to.ip(), to.port()).map_err(DropReason::from);
        match written.and_then(|len| filled(&mut self.source, &bytes[..len])) {
            Ok(packet) => {
                self.out.passed(Stage::NatKeepaliveSent, 1);
                self.send_to_network(packet, now);
            }
            Err(reason) => self.out.stats.dropped(reason, 1),
        }
    }
}
