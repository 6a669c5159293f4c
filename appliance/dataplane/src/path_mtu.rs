//! What routers between us and a peer say of our ESP and AH packets: "too big". The one thing in clear that lasts (I5): it lowers an
//! SA's path MTU for a time, never below what the IP version guarantees.
//!
//! It is believed only if it quotes a packet that we could have sent: from the VIP, to the peer, with the SPI of an SA of
//! ours, longer than what it says fits, and no longer than what was configured. Control then looks at the sequence number.

use phalanx_ipsec::OutboundIndex;
use phalanx_wire::quoted::EspTooBig;
use phalanx_wire::{Buffer, DropReason, SaId};

use crate::clock::Now;
use crate::command::{Event, Outcome, Refused};
use crate::engine::Engine;
use crate::inbound_router::Arrived;
use crate::packet::Source;
use crate::stats::Stage;

/// Told to control at most so often...
pub(crate) const PER_SECOND: u64 = 100;
/// ...and so many at once: of one broken path every SA may hear.
pub(crate) const AT_ONCE: u64 = 100;

impl<S: Source> Engine<S> {
    /// Takes a "too big" about one of our ESP packets; gives back what is none.
    pub(crate) fn hear_too_big(&mut self, arrived: Arrived<S::Packet>, now: Now) -> Option<Arrived<S::Packet>> {
        let Some(told) = EspTooBig::parse(&arrived.ip, arrived.packet.bytes()) else { return Some(arrived) };
        let verdict = self.plausible(&arrived, &told).and_then(|(at, mtu)| {
            let sa = self.tables.cache.outbound(at).ok_or(DropReason::MtuUnknownSa)?;
            if self.router.mtu_bucket.take(now) { Ok((sa.id(), mtu)) } else { Err(DropReason::MtuRate) }
        });
        match verdict {
            Ok((sa, mtu)) => {
                self.out.passed(Stage::MtuHeard, 1);
                self.mail.tell(Event::TooBig { core: self.id, sa, mtu, seq: told.seq });
            }
            Err(reason) => self.out.drop(arrived.packet, reason),
        }
        None
    }

    fn plausible(&self, arrived: &Arrived<S::Packet>, told: &EspTooBig) -> Result<(OutboundIndex, u16), DropReason> {
        let vip = self.tables.vips.at(arrived.vip).ok_or(DropReason::MtuUnknownSa)?;
        if told.src != vip.entry.address {
            return Err(DropReason::MtuUnknownSa);
        }
        let at =
            self.tables.cache.sent_by(vip.entry.id, told.dst, told.spi, told.ah).ok_or(DropReason::MtuUnknownSa)?;
        let sa = self.tables.cache.outbound(at).ok_or(DropReason::MtuUnknownSa)?;
        let configured = usize::from(sa.params().path_mtu);
        if told.len > configured || told.mtu as usize >= told.len {
            return Err(DropReason::MtuImplausible);
        }
        // RFC 8201 §4: less than 1280 is not to be heeded. RFC 1191 knows no such floor: ours is what every host receives.
        let mtu = u16::try_from(told.mtu).map_err(|_| DropReason::MtuImplausible)?;
        if mtu < sa.params().least_path_mtu() {
            return Err(DropReason::MtuFloor);
        }
        // It never raises; after the first packet of a window the rest of them say the same.
        if mtu >= sa.path_mtu() { Err(DropReason::MtuNotLower) } else { Ok((at, mtu)) }
    }

    /// Control's word on an outbound SA's path.
    pub(crate) fn set_path_mtu(&mut self, id: SaId, mtu: u16) -> Result<Outcome, Refused> {
        let at = self.tables.cache.find_outbound(id).ok_or(Refused::NoSuchSa)?;
        self.tables.cache.outbound_mut(at).ok_or(Refused::NoSuchSa)?.set_path_mtu(mtu);
        Ok(Outcome::Applied)
    }
}
