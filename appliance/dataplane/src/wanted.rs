//! Packets of the application for a negotiated tunnel that has no SA (R20): they wait, bounded, while control has one made.

use arrayvec::ArrayVec;
use phalanx_ipsec::{Action, OutboundIndex, TunnelName};
use phalanx_wire::{Buffer, DropReason, IpHeader, VipId};

use crate::clock::Now;
use crate::command::Event;
use crate::engine::Engine;
use crate::notes::{Fact, For};
use crate::packet::Source;
use crate::stats::Stage;
use crate::waiting::Waiting;

/// Packets that wait in all, and for one tunnel.
const PACKETS: usize = 64;
const EACH: usize = 16;
/// A packet waits no longer than this: its sender repeats it.
const WAIT_MS: u64 = 3000;
/// What was told is told again after this.
const REPEAT_MS: u64 = 1000;
/// Tunnels that were told of of late; one more has to wait.
const TOLD: usize = 32;

type Tunnel = (VipId, TunnelName);

/// See the module.
pub(crate) struct Wanted<P> {
    waiting: Waiting<Tunnel, P, PACKETS>,
    told: ArrayVec<(Tunnel, u64), TOLD>,
}

impl<P> Default for Wanted<P> {
    fn default() -> Self {
        Wanted { waiting: Waiting::default(), told: ArrayVec::new() }
    }
}

impl<P> Wanted<P> {
    /// Packets that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl<S: Source> Engine<S> {
    /// A packet whose tunnel has no SA.
    pub(crate) fn want_sa(&mut self, packet: S::Packet, now: Now) {
        let Some(tunnel) = self.negotiable(packet.bytes()) else { return self.out.drop(packet, DropReason::NoSa) };
        if !self.wanted.waiting.has_room(&tunnel, EACH) {
            return self.out.drop(packet, DropReason::SaWait);
        }
        self.out.passed(Stage::HeldForSa, 1);
        self.out.note(&packet, || Fact::Held(For::Sa));
        self.wanted.waiting.push(tunnel, packet, now.ms());
        let told = &mut self.wanted.told;
        told.retain(|(_, until)| *until > now.ms());
        let known = told.iter().any(|(of, _)| *of == tunnel);
        if !known && told.try_push((tunnel, now.ms() + REPEAT_MS)).is_ok() {
            let (vip, tunnel) = tunnel;
            self.mail.tell(Event::SaWanted { core: self.id, vip, tunnel });
        }
    }

    /// The tunnel that the filters lead a packet to, if its SAs are negotiated.
    fn negotiable(&mut self, packet: &[u8]) -> Option<Tunnel> {
        let ip = IpHeader::parse(packet).ok()?;
        let subject = phalanx_ipsec::Subject::outbound(&ip, packet);
        let slot = self.served(ip.src)?;
        let (vip, filters) = (self.tables.vips.at(slot)?.entry.id, &self.tables.filters);
        let filter = *filters.filter(filters.seek_together(vip, &subject).0?);
        let Action::Protect(tunnel) = filter.action else { return None };
        tunnel.is_negotiated().then_some((filter.vip, tunnel))
    }

    /// An outbound SA came: what waited for its tunnel goes.
    pub(crate) fn sa_came(&mut self, at: OutboundIndex, now: Now) {
        let Some(sa) = self.tables.cache.outbound(at) else { return };
        let tunnel = (sa.params().vip, sa.params().tunnel);
        while let Some(packet) = self.wanted.waiting.take(&tunnel) {
            self.send_waited(packet, now);
        }
        self.wanted.told.retain(|(of, _)| *of != tunnel);
    }

    /// Gives up what waited too long.
    pub(crate) fn tend_wanted(&mut self, now: Now) {
        while let Some(packet) = self.wanted.waiting.expired(now.ms(), WAIT_MS) {
            self.out.drop(packet, DropReason::SaWait);
        }
    }
}
