//! Packets for SAs that this router asked for and does not have yet (I4): as soon as the peer heard of an SPI that we offered it may
//! send with it, while its keys are still on their way here. They wait, bounded, as they came: nothing of them is known to be
//! genuine, so nothing lasts of them but their place (I5).

use phalanx_wire::{Buffer, DropReason, Protected, Spi, VipId};

use crate::clock::Now;
use crate::engine::{Batch, Engine};
use crate::fixed_map::FixedMap;
use crate::inbound_router::Arrived;
use crate::notes::{Fact, For};
use crate::packet::Source;
use crate::stats::Stage;
use crate::waiting::Waiting;

/// SPIs that may be offered at a time; of more the oldest are forgotten.
const SPIS: usize = 2048;
/// Packets that wait in all, and with one SPI.
const PACKETS: usize = 64;
const EACH: usize = 8;
/// A packet waits no longer than this.
const WAIT_MS: u64 = 1000;

type Name = (VipId, Spi);

/// See the module.
pub(crate) struct Expected<P> {
    /// Until when.
    spis: FixedMap<Name, u64>,
    /// The same in the order in which they came; `next` is the oldest.
    order: Box<[Option<Name>]>,
    next: usize,
    waiting: Waiting<Name, Arrived<P>, PACKETS>,
}

impl<P> Expected<P> {
    pub(crate) fn new(enabled: bool) -> Expected<P> {
        let most = if enabled { SPIS } else { 1 };
        Expected { spis: FixedMap::new(most), order: vec![None; most].into(), next: 0, waiting: Waiting::default() }
    }

    /// Packets that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn expect(&mut self, name: Name, until: u64) {
        if let Some(oldest) = self.order[self.next].replace(name) {
            self.spis.remove(&oldest);
        }
        self.next = (self.next + 1) % self.order.len();
        // There is room: what was in its place is gone.
        let _ = self.spis.insert(name, until);
    }
}

impl<S: Source> Engine<S> {
    /// The peer is about to hear of this SPI.
    pub(crate) fn expect(&mut self, vip: VipId, spi: Spi, ms: u64, now: Now) {
        self.router.expected.expect((vip, spi), now.ms().saturating_add(ms));
    }

    /// A packet that no SA here has the SPI of.
    pub(crate) fn unknown_spi(&mut self, arrived: Arrived<S::Packet>, now: Now) {
        let Some(name) = self.expected_name(&arrived, now) else {
            return self.out.drop(arrived.packet, DropReason::UnknownSpi);
        };
        let waiting = &mut self.router.expected.waiting;
        if !waiting.has_room(&name, EACH) {
            return self.out.drop(arrived.packet, DropReason::SaWait);
        }
        self.out.passed(Stage::HeldForSa, 1);
        self.out.note(&arrived.packet, || Fact::Held(For::Sa));
        waiting.push(name, arrived, now.ms());
    }

    fn expected_name(&self, arrived: &Arrived<S::Packet>, now: Now) -> Option<Name> {
        let vip = self.tables.vips.at(arrived.vip)?.entry.id;
        let spi = Protected::of(&arrived.ip, arrived.packet.bytes()).ok()?.spi;
        let until = self.router.expected.spis.value(&(vip, spi))?;
        (now.ms() < *until).then_some((vip, spi))
    }

    /// The SA is here: what waited for it goes the way of its packets.
    pub(crate) fn expected_came(&mut self, vip: VipId, spi: Spi, now: Now) {
        self.router.expected.spis.remove(&(vip, spi));
        let mut burst = Batch::new();
        while let Some(arrived) = self.router.expected.waiting.take(&(vip, spi)) {
            burst.push(arrived);
        }
        self.route(&mut burst, now);
    }

    /// Gives up what waited too long.
    pub(crate) fn tend_expected(&mut self, now: Now) {
        while let Some(arrived) = self.router.expected.waiting.expired(now.ms(), WAIT_MS) {
            self.out.drop(arrived.packet, DropReason::SaWait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_spis_than_there_is_room_for_the_oldest_are_forgotten() {
        let mut expected = Expected::<()>::new(true);
        let name = |n: usize| (VipId(1), Spi(n as u32));
        (0..SPIS + 10).for_each(|n| expected.expect(name(n), 5));
        // One that came meanwhile leaves its place to nobody.
        expected.spis.remove(&name(20));
        (0..15).for_each(|n| expected.expect(name(SPIS + 10 + n), 5));
        for n in 0..SPIS + 25 {
            assert_eq!(expected.spis.value(&name(n)).is_some(), n >= 25, "{n}");
        }
    }
}
