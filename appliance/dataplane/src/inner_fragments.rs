//! Fragments inside of tunnels: they follow their first one, which alone has ports (RFC 4301 §7).
//!
//! * At the router: the first fragment of a segment of a distributed connection is opened on a copy, as SYNs are, and
//!   forwarded; the later ones are forwarded to the same connection's target as they come. A later one that no authentic
//!   first one came before is dropped: what was only peeked at makes no entry (I5), and nothing waits for it.
//! * Where fragments are opened: the ports of the first decide about the others, for selectors and filters.
//! * Outbound: the host's stack cuts what is larger than its MTU; the first fragment says which SA the others go through.

use phalanx_ipsec::{Role, Subject};
use phalanx_steering::{
    ConnKey, Decision, Firsts, Follow, FragmentKey, Piece, Seed, Seen, SteeringError, fragments::is_tiny,
};
use phalanx_wire::flow::has_ports;
use phalanx_wire::{Buffer, DropReason, IpHeader, PeerId, TargetId, protocol};

use crate::clock::Now;
use crate::config::Limits;
use crate::engine::{Batch, Engine};
use crate::inbound_router::Peeking;
use crate::opening::Opening;
use crate::packet::Source;
use crate::router_own::{Genuine, Slotted};

/// Local and remote port.
type Ports = (u16, u16);

/// What first fragments showed.
pub(crate) struct InnerFragments {
    /// Where the router sent them.
    routed: Firsts<Follow>,
    /// The ports of those that were opened here.
    opened: Firsts<Ports>,
    /// The ports of those that the host sent.
    sent: Firsts<Ports>,
}

impl InnerFragments {
    pub(crate) fn new(limits: &Limits, seed: Seed) -> Result<InnerFragments, SteeringError> {
        let n = limits.fragments;
        Ok(InnerFragments { routed: Firsts::new(n, seed)?, opened: Firsts::new(n, seed)?, sent: Firsts::new(n, seed)? })
    }

    /// What selectors and filters see of an inner packet that was opened: authentic, its number taken.
    #[inline]
    pub(crate) fn opened(
        &mut self,
        role: Role,
        peer: PeerId,
        number: u64,
        (ip, packet): (&IpHeader, &[u8]),
        now: Now,
    ) -> Result<Subject, DropReason> {
        let mut subject = Subject::inbound(ip, packet);
        let (Some(key), Some(fragment)) = (FragmentKey::of(peer, ip), ip.fragment) else { return Ok(subject) };
        if is_tiny(ip) {
            return Err(DropReason::TinyFragment);
        }
        if fragment.offset > 0 {
            add_ports(&mut subject, self.opened.find(&key, now.ms()));
            return Ok(subject);
        }
        if let Some(ports) = ports(&subject) {
            self.opened.note(key, ports, now.ms());
        }
        if role == Role::Router && ip.upper == protocol::TCP {
            self.routed.note(key, Follow { number, flow: None }, now.ms());
        }
        Ok(subject)
    }

    /// The same of a packet that the host sends. Without its first one a fragment could leave by another rule.
    #[inline]
    pub(crate) fn sent(&mut self, ip: &IpHeader, packet: &[u8], now: Now) -> Result<Subject, DropReason> {
        let mut subject = Subject::outbound(ip, packet);
        let host = PeerId(0);
        let (Some(key), Some(fragment)) = (FragmentKey::of(host, ip), ip.fragment) else { return Ok(subject) };
        if fragment.offset == 0 {
            if let Some(ports) = ports(&subject) {
                self.sent.note(key, ports, now.ms());
            }
        } else if has_ports(ip.upper) {
            let first = self.sent.find(&key, now.ms()).ok_or(DropReason::FragmentWithoutFirst)?;
            add_ports(&mut subject, Some(first));
        }
        Ok(subject)
    }
}

fn ports(subject: &Subject) -> Option<Ports> {
    Some((subject.local_port?, subject.remote_port?))
}

fn add_ports(subject: &mut Subject, ports: Option<Ports>) {
    if let Some((local, remote)) = ports {
        (subject.local_port, subject.remote_port) = (Some(local), Some(remote));
    }
}

/// Fragments of one burst, put aside until the others of the burst are where they belong.
pub(crate) struct FragmentBatches<P> {
    /// First ones of segments of known connections.
    firsts: Batch<Slotted<P>>,
    later: Batch<(Slotted<P>, FragmentKey, u8)>,
}

impl<P> Default for FragmentBatches<P> {
    fn default() -> FragmentBatches<P> {
        FragmentBatches { firsts: Batch::new(), later: Batch::new() }
    }
}

impl<S: Source> Engine<S> {
    /// Whether the packet at this place of the burst holds a fragment, and which. The first one of a TCP segment is then
    /// `seen` as the segment.
    #[inline]
    pub(crate) fn piece(&self, one: &Peeking<S::Packet>, seen: &mut Seen, at: usize) -> Option<(Piece, u8)> {
        let &mut Seen::Other { fragment: true, protocol, .. } = seen else { return None };
        let peer = self.tables.cache.inbound(one.sa)?.params().peer;
        let piece = Piece::of(peer, self.router.peeked[at].bytes())?;
        if let Piece::First(whole) = piece {
            *seen = whole;
        }
        Some((piece, protocol))
    }

    /// Puts fragments aside; gives back what is none, or stays with the router whatever its first one does.
    #[inline]
    pub(crate) fn sort_fragment(
        &self,
        piece: Option<(Piece, u8)>,
        decision: &Decision,
        (slot, opening): Slotted<S::Packet>,
        into: &mut FragmentBatches<S::Packet>,
    ) -> Option<Slotted<S::Packet>> {
        match (piece, decision) {
            (None, _) => return Some((slot, opening)),
            (Some((Piece::Tiny, _)), _) => self.out.drop(opening.packet, DropReason::TinyFragment),
            (Some((Piece::Later(key), protocol)), _) => into.later.push(((slot, opening), key, protocol)),
            (Some((Piece::First(_), _)), Decision::Forward { .. }) => into.firsts.push((slot, opening)),
            // Nobody has reason to send a SYN in pieces.
            (Some((Piece::First(_), _)), Decision::OpenThenSelect) => {
                self.out.drop(opening.packet, DropReason::Fragment);
            }
            (Some((Piece::First(_), _)), _) => return Some((slot, opening)),
        }
        None
    }

    /// 1. open copies; 2. within floor and ceiling, not accepted before, fits its tunnel, of a known connection;
    /// 3. remember whose the others are; 4. forward it as it came.
    #[inline(never)]
    pub(crate) fn prove_firsts(
        &mut self,
        batches: &mut FragmentBatches<S::Packet>,
        now: Now,
        linked: &mut Batch<Opening<S::Packet>>,
    ) {
        if batches.firsts.is_empty() {
            return;
        }
        for genuine in self.open_copies(&mut batches.firsts) {
            match self.admit_first(&genuine, now) {
                Ok(target) => self.forward(genuine.slot, target, genuine.opening, now, linked),
                Err(DropReason::CeilingWait) => self.wait_for_ceiling(genuine.opening, now),
                Err(reason) => self.out.drop(genuine.opening.packet, reason),
            }
        }
    }

    fn admit_first(&mut self, one: &Genuine<S::Packet>, now: Now) -> Result<TargetId, DropReason> {
        let (at, number) = (one.opening.sa, one.job.seq);
        self.both_within(&one.opening)?;
        self.commit_around(&one.opening, now)?;
        let sa = self.tables.cache.inbound_mut(at).ok_or(DropReason::UnknownSpi)?;
        if let Err(reason) = sa.verified.commit(number) {
            sa.count_replayed();
            return Err(reason);
        }
        let copy = &mut self.router.scratch[one.copy];
        let inner = sa.finish(copy, &one.job)?;
        sa.fits(&Subject::inbound(&inner.header, copy.bytes()))?;
        let peer = sa.params().peer;
        let (piece, key) = (Piece::of(peer, copy.bytes()), FragmentKey::of(peer, &inner.header));
        self.near_ceiling(at, number, now);
        let (Some(Piece::First(Seen::Tcp { flow, .. })), Some(key)) = (piece, key) else {
            return Err(DropReason::UnknownConnection);
        };
        let conn = self.router.table.lookup(&ConnKey { peer, flow }).ok_or(DropReason::UnknownConnection)?;
        self.inner.routed.note(key, Follow { number, flow: Some(flow) }, now.ms());
        Ok(conn.target)
    }

    /// Later fragments, after the first ones of the same burst: to the target of their connection, or to ourselves.
    #[inline(never)]
    pub(crate) fn follow(
        &mut self,
        batches: &mut FragmentBatches<S::Packet>,
        now: Now,
        linked: &mut Batch<Opening<S::Packet>>,
    ) {
        if batches.later.is_empty() {
            return;
        }
        let mut own = Batch::new();
        for ((slot, opening), key, protocol) in batches.later.drain(..) {
            match self.followed(slot, &opening, &key, protocol, now) {
                Ok(Some(target)) => self.forward(slot, target, opening, now, linked),
                Ok(None) => own.push((slot, opening)),
                Err(reason) => self.out.drop(opening.packet, reason),
            }
        }
        self.take_own(&mut own, now);
    }

    /// The target that a later fragment goes to; none for ourselves. What holds of a segment holds of its fragments.
    fn followed(
        &self,
        slot: u16,
        opening: &Opening<S::Packet>,
        key: &FragmentKey,
        upper: u8,
        now: Now,
    ) -> Result<Option<TargetId>, DropReason> {
        let first = self.inner.routed.find(key, now.ms()).filter(|first| first.is_near(opening.seq));
        let Some(flow) = first.and_then(|first| first.flow) else {
            if first.is_none() && upper == protocol::TCP {
                return Err(DropReason::FragmentWithoutFirst);
            }
            let settled = self.tables.vips.at(slot).is_some_and(|vip| vip.settled);
            return if settled { Ok(None) } else { Err(DropReason::Settling) };
        };
        let key = ConnKey { peer: key.peer, flow };
        let conn = self.router.table.lookup(&key).ok_or(DropReason::UnknownConnection)?;
        let spi = self.tables.cache.inbound(opening.sa).map(|sa| sa.params().spi);
        if spi.is_some_and(|spi| conn.is_older(spi, opening.seq)) {
            return Err(DropReason::TooOld);
        }
        if self.is_purged(&key) { Err(DropReason::NoTarget) } else { Ok(Some(conn.target)) }
    }
}
