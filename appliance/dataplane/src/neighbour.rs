//! Next hops of one port: who has which MAC address, who is being asked, and the packets that wait for an answer.
//!
//! An entry is made only by a packet of ours that needs it, and an answer is believed only for an entry: a request
//! from the network makes none (I5).

use std::net::IpAddr;

use phalanx_wire::Mac;

use crate::clock::Now;
use crate::fixed_map::FixedMap;
use crate::hold::{Held, HoldPool};

/// An answer is good for so long...
const GOOD_MS: u64 = 30_000;
/// ...and asked for again this long before, if the entry was used meanwhile.
const REFRESH_MS: u64 = 10_000;
/// Pauses between requests; after the last one the hop counts as unreachable.
const RETRY_MS: [u64; 4] = [100, 300, 1000, 1000];
/// Pause between requests for an entry that is still good.
const REFRESH_RETRY_MS: u64 = 2000;
/// Somebody else claims a known address: who had it is asked so often...
const DOUBT_ASKS: u8 = 3;
/// ...with this pause, and believed as soon as it answers. Else the address is anybody's.
const DOUBT_RETRY_MS: u64 = 300;

pub(crate) struct Neighbours<P> {
    entries: Box<[Option<Entry>]>,
    index: FixedMap<IpAddr, u16>,
    waiting: HoldPool<P>,
    cursor: usize,
}

struct Entry {
    address: IpAddr,
    mac: Option<Mac>,
    /// Known: when it was answered. Not known: when it was first asked.
    since: u64,
    /// When to ask next.
    ask_at: u64,
    asked: u8,
    /// Known, but somebody else claims it.
    doubted: bool,
    used: bool,
    held: Held,
}

/// What became of a packet for a next hop.
#[derive(Debug)]
pub(crate) enum Resolved<P> {
    /// Send it there.
    To(Mac, P),
    /// It waits; ask for the address now if true.
    Held { ask: bool },
    /// No room to wait.
    Full(P),
}

/// What is due for an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask everybody, or the MAC known so far.
    Ask(IpAddr, Option<Mac>),
    /// It never answered: take its packets with [`Neighbours::waiting`], then it is gone.
    GiveUp(u16),
}

impl<P> Neighbours<P> {
    pub(crate) fn new(limit: usize, held: usize, held_each: usize) -> Neighbours<P> {
        Neighbours {
            entries: (0..limit).map(|_| None).collect(),
            index: FixedMap::new(limit),
            waiting: HoldPool::new(held, held_each),
            cursor: 0,
        }
    }

    /// Finds the MAC for a packet's next hop, or keeps the packet until it is known.
    #[inline]
    pub(crate) fn resolve(&mut self, address: IpAddr, packet: P, now: Now) -> Resolved<P> {
        if let Some(&at) = self.index.value(&address)
            && let Some(entry) = &mut self.entries[usize::from(at)]
        {
            entry.used = true;
            if let Some(mac) = entry.mac {
                return Resolved::To(mac, packet);
            }
            return match self.waiting.push(&mut entry.held, packet, now.us()) {
                Ok(()) => Resolved::Held { ask: false },
                Err(packet) => Resolved::Full(packet),
            };
        }
        let Some(at) = self.entries.iter().position(Option::is_none) else {
            return Resolved::Full(packet);
        };
        let mut held = Held::default();
        if let Err(packet) = self.waiting.push(&mut held, packet, now.us()) {
            return Resolved::Full(packet);
        }
        if self.index.insert(address, at as u16).is_err() {
            return self.waiting.pop(&mut held).map_or(Resolved::Held { ask: false }, Resolved::Full);
        }
        let (since, ask_at) = (now.ms(), now.ms() + RETRY_MS[0]);
        self.entries[at] =
            Some(Entry { address, mac: None, since, ask_at, asked: 1, doubted: false, used: true, held });
        Resolved::Held { ask: true }
    }

    /// The MAC of a next hop, if it is known: it is used then.
    #[inline]
    pub(crate) fn known(&mut self, address: IpAddr) -> Option<Mac> {
        let entry = self.entries[usize::from(*self.index.value(&address)?)].as_mut()?;
        entry.used |= entry.mac.is_some();
        entry.mac
    }

    /// Takes in an answer. Gives the entry whose packets may go now.
    ///
    /// A different MAC is not believed as long as the known one answers: anybody on the network could draw our packets to
    /// itself, with one lie to make us ask and another as the answer.
    pub(crate) fn answer(&mut self, address: IpAddr, mac: Mac, now: Now) -> Option<(u16, Mac)> {
        let at = *self.index.value(&address)?;
        let entry = self.entries[usize::from(at)].as_mut()?;
        if entry.mac.is_some_and(|known| known != mac) {
            if !entry.doubted {
                (entry.doubted, entry.asked, entry.ask_at) = (true, 0, now.ms());
            }
            return None;
        }
        if entry.mac.is_some() && entry.asked == 0 {
            return None; // nothing new; only an answer to us makes it younger
        }
        entry.mac = Some(mac);
        entry.since = now.ms();
        entry.ask_at = now.ms() + GOOD_MS - REFRESH_MS;
        entry.asked = 0;
        (entry.doubted, entry.used) = (false, false);
        Some((at, mac))
    }

    /// A packet that waits for an entry.
    pub(crate) fn waiting(&mut self, at: u16) -> Option<P> {
        self.waiting_since(at).map(|(packet, _)| packet)
    }

    /// The same, and since when in µs.
    pub(crate) fn waiting_since(&mut self, at: u16) -> Option<(P, u64)> {
        let entry = self.entries[usize::from(at)].as_mut()?;
        let packet = self.waiting.pop_since(&mut entry.held);
        if packet.is_none() && entry.mac.is_none() {
            self.index.remove(&entry.address);
            self.entries[usize::from(at)] = None;
        }
        packet
    }

    /// Looks at some entries and gives the first that needs something.
    pub(crate) fn due(&mut self, now: Now, budget: usize) -> Option<Due> {
        for _ in 0..budget.min(self.entries.len()) {
            let at = self.cursor;
            self.cursor = (self.cursor + 1) % self.entries.len();
            let Some(entry) = &mut self.entries[at] else { continue };
            if entry.mac.is_some() && now.ms() >= entry.since + GOOD_MS {
                self.index.remove(&entry.address);
                self.entries[at] = None;
                continue;
            }
            if now.ms() < entry.ask_at || (entry.mac.is_some() && !entry.used && !entry.doubted) {
                continue;
            }
            if entry.doubted && entry.asked == DOUBT_ASKS {
                // Silent: now the first answer to a question to everybody counts.
                (entry.mac, entry.since, entry.asked, entry.doubted) = (None, now.ms(), 0, false);
            }
            if entry.mac.is_none() && usize::from(entry.asked) == RETRY_MS.len() {
                return Some(Due::GiveUp(at as u16));
            }
            let pause = match entry.mac {
                None => RETRY_MS[usize::from(entry.asked).min(3)],
                Some(_) if entry.doubted => DOUBT_RETRY_MS,
                Some(_) => REFRESH_RETRY_MS,
            };
            entry.ask_at = now.ms() + pause;
            entry.asked = entry.asked.saturating_add(1);
            return Some(Due::Ask(entry.address, entry.mac));
        }
        None
    }

    /// All entries: address, MAC, since when in ms.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, Option<Mac>, u64)> + '_ {
        self.entries.iter().flatten().map(|entry| (entry.address, entry.mac, entry.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 10));
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 10]);
    const LIAR: Mac = Mac([2, 0, 0, 0, 0, 66]);

    fn at(ms: u64) -> Now {
        Now::from_ms(ms)
    }

    fn due(table: &mut Neighbours<u8>, ms: u64) -> Option<Due> {
        table.due(at(ms), usize::MAX)
    }

    #[test]
    fn a_packet_waits_for_the_answer_and_then_goes() {
        let mut table = Neighbours::new(4, 8, 4);
        assert!(matches!(table.resolve(HOP, 1u8, at(0)), Resolved::Held { ask: true }));
        assert!(matches!(table.resolve(HOP, 2, at(0)), Resolved::Held { ask: false }));
        let (entry, mac) = table.answer(HOP, MAC, at(5)).unwrap();
        assert_eq!(mac, MAC);
        assert_eq!((table.waiting(entry), table.waiting(entry), table.waiting(entry)), (Some(1), Some(2), None));
        assert!(matches!(table.resolve(HOP, 3, at(6)), Resolved::To(MAC, 3)));
    }

    #[test]
    fn an_answer_nobody_asked_for_makes_no_entry_and_changes_none() {
        let mut table = Neighbours::new(4, 8, 4);
        assert!(table.answer(HOP, LIAR, at(0)).is_none());
        table.resolve(HOP, 1u8, at(0));
        let (entry, _) = table.answer(HOP, MAC, at(0)).unwrap();
        while table.waiting(entry).is_some() {}
        assert!(table.answer(HOP, LIAR, at(10)).is_none());
        assert!(matches!(table.resolve(HOP, 2, at(11)), Resolved::To(MAC, 2)));
        // Who had it is asked. A second lie is no answer to that.
        assert_eq!(due(&mut table, 12), Some(Due::Ask(HOP, Some(MAC))));
        assert!(table.answer(HOP, LIAR, at(13)).is_none());
        assert_eq!(table.answer(HOP, MAC, at(14)).map(|(_, mac)| mac), Some(MAC));
        assert!(matches!(table.resolve(HOP, 3, at(15)), Resolved::To(MAC, 3)));
        assert_eq!(due(&mut table, 400), None, "the doubt is over");
    }

    #[test]
    fn a_station_that_took_an_address_over_is_believed_when_the_one_before_is_silent() {
        let mut table = Neighbours::new(4, 8, 4);
        table.resolve(HOP, 1u8, at(0));
        let (entry, _) = table.answer(HOP, MAC, at(0)).unwrap();
        while table.waiting(entry).is_some() {}
        table.answer(HOP, LIAR, at(1000));
        for ms in [1000, 1300, 1600] {
            assert_eq!(due(&mut table, ms), Some(Due::Ask(HOP, Some(MAC))));
        }
        assert_eq!(due(&mut table, 1900), Some(Due::Ask(HOP, None)));
        assert_eq!(table.answer(HOP, LIAR, at(1901)).map(|(_, mac)| mac), Some(LIAR));
    }

    #[test]
    fn a_hop_that_never_answers_is_asked_four_times_and_given_up() {
        let mut table = Neighbours::new(4, 8, 4);
        table.resolve(HOP, 1u8, at(0));
        assert_eq!(due(&mut table, 99), None);
        for ms in [100, 400, 1400] {
            assert_eq!(due(&mut table, ms), Some(Due::Ask(HOP, None)));
        }
        let Some(Due::GiveUp(entry)) = due(&mut table, 2400) else { panic!("not given up") };
        assert_eq!((table.waiting(entry), table.waiting(entry)), (Some(1), None));
        assert!(matches!(table.resolve(HOP, 2, at(2401)), Resolved::Held { ask: true }));
    }

    #[test]
    fn a_hop_in_use_is_refreshed_before_it_expires_and_an_unused_one_goes() {
        let mut table = Neighbours::new(4, 8, 4);
        table.resolve(HOP, 1u8, at(0));
        let (entry, _) = table.answer(HOP, MAC, at(0)).unwrap();
        while table.waiting(entry).is_some() {}
        assert_eq!(due(&mut table, GOOD_MS - REFRESH_MS), None, "not used");
        table.resolve(HOP, 2, at(100));
        assert_eq!(due(&mut table, GOOD_MS - REFRESH_MS), Some(Due::Ask(HOP, Some(MAC))));
        table.answer(HOP, MAC, at(GOOD_MS - REFRESH_MS)).unwrap();
        assert_eq!(due(&mut table, 2 * GOOD_MS - REFRESH_MS), None);
        assert!(table.index.value(&HOP).is_none(), "expired");
    }

    #[test]
    fn waiting_is_bounded() {
        let mut table = Neighbours::new(1, 8, 2);
        table.resolve(HOP, 1u8, at(0));
        table.resolve(HOP, 2, at(0));
        assert!(matches!(table.resolve(HOP, 3, at(0)), Resolved::Full(3)));
        assert!(matches!(table.resolve("10.77.0.11".parse().unwrap(), 4, at(0)), Resolved::Full(4)));
    }
}
