//! Steering on arbitrary packets: the peek ends, sees the same with few bytes as with all, and decides without a change;
//! table and tracker keep their counts whatever order things happen in.
#![no_main]

mod mend;

use libfuzzer_sys::fuzz_target;
use mend::mend;
use phalanx_steering::look::{self, Look, Opened, Seen, Shape};
use phalanx_steering::steer::{admit, decide};
use phalanx_steering::{
    Arrival, Candidate, ConnKey, ConnectionTable, Decision, Policy, Protection, Selector, TableLimits, Tracker,
    TrackerLimits,
};
use phalanx_wire::{DropReason, IpHeader, PeerId, Spi, TargetId};

fuzz_target!(|data: &[u8]| {
    let mut bed = Bed::new();
    // Packets, each behind a byte that says how long it is and one that says what happens.
    let mut rest = data;
    while let Some(([len, what], tail)) = rest.split_first_chunk::<2>() {
        let (packet, tail) = tail.split_at(tail.len().min(usize::from(*len) * 4));
        rest = tail;
        bed.step(*what, packet);
    }
});

struct Bed {
    table: ConnectionTable,
    tracker: Tracker,
    selector: Selector,
    now: u64,
}

impl Bed {
    fn new() -> Bed {
        let limits =
            TableLimits { connections: 6, per_peer: 4, half_open_per_peer: 2, peers: 2, ..TableLimits::default() };
        let candidates = [1, 2].map(|id| Candidate { id: TargetId(id), eligible: true, draining: false, weight: 1 });
        Bed {
            table: ConnectionTable::new(limits, [1, 2]).unwrap(),
            tracker: Tracker::new(TrackerLimits { connections: 4, ..TrackerLimits::default() }, [3, 4]).unwrap(),
            selector: Selector::new(Policy::RoundRobin, &candidates),
            now: 0,
        }
    }

    fn step(&mut self, what: u8, packet: &[u8]) {
        let mended = mend(packet);
        let peer = PeerId(u32::from(what & 3));
        self.now += 1 << (what >> 4);
        let seen = see(&mended);
        transport(what, &mended);
        let arrival = Arrival {
            peer,
            spi: Spi(256),
            number: u64::from(what),
            protection: Protection::Esp,
            encrypted: true,
            tunnel: what & 8 != 0,
            outer_is_vip: what & 4 != 0,
            inner_is_vip: what & 16 != 0,
            settled: what & 32 == 0,
        };
        let decision = decide(&arrival, &seen, &self.table, |flow| flow.local.port & 1 == 0);
        self.act(peer, decision, &Opened::packet(&mended), what);
        let _ = self.table.sweep(self.now, 2, |_| ());
        let _ = self.tracker.sweep(self.now, 2, |_, _| ());
        assert!(self.table.len() <= self.table.capacity() && self.table.half_open() <= self.table.len());
        assert!(self.tracker.len() <= self.tracker.capacity() && self.tracker.half_open() <= self.tracker.len());
        let of_targets: u32 = [1, 2].map(|id| self.table.connections_of(TargetId(id))).iter().sum();
        assert_eq!(of_targets as usize, self.table.len());
    }

    fn act(&mut self, peer: PeerId, decision: Decision, opened: &Opened, what: u8) {
        if decision == Decision::OpenThenSelect {
            let choose = |_, table: &ConnectionTable| {
                self.selector.select(|target| table.connections_of(target)).ok_or(DropReason::NoTarget)
            };
            let admitted = admit(peer, opened, &mut self.table, choose, self.now);
            if let (Ok(target), Some(flow)) = (admitted, opened.seen().flow()) {
                let entry = self.table.lookup(&ConnKey { peer, flow }).expect("an entry was made");
                assert_eq!(entry.target, target);
            }
        }
        let Some(flow) = opened.seen().flow() else { return };
        let key = ConnKey { peer, flow };
        if let Decision::Forward { target } = decision {
            assert_eq!(self.table.lookup(&key).map(|c| c.target), Some(target));
        }
        let _ = match (opened.seen(), what & 64 == 0) {
            (Seen::Tcp { tcp, .. }, true) => self.tracker.inbound(&key, tcp, usize::from(what), self.now),
            (Seen::Tcp { tcp, .. }, false) => self.tracker.outbound(&key, tcp, usize::from(what), self.now),
            (_, true) => self.tracker.datagram_in(&key, self.now),
            (_, false) => self.tracker.datagram_out(&key, self.now),
        };
        match what >> 5 {
            5 => drop(self.table.confirm(&key, self.now)),
            6 => drop(self.table.end(&key)),
            7 => drop(self.table.restore(&key, TargetId(2), self.now)),
            _ => {}
        }
    }
}

/// Peeks as a router does; what fewer bytes show, all of them show.
fn see(packet: &[u8]) -> Seen {
    let mut len = packet.len().min(look::FIRST_PEEK);
    loop {
        match look::look(Shape::Packet, &packet[..len], packet.len()) {
            Look::NeedMore(more) => {
                assert!(more > len && more <= packet.len() && more <= look::MAX_PEEK);
                len = more;
            }
            Look::Seen(seen) => {
                if seen != Seen::Opaque {
                    assert_eq!(look::look(Shape::Packet, packet, packet.len()), Look::Seen(seen));
                }
                return seen;
            }
        }
    }
}

/// The same for a payload in transport mode.
fn transport(next_header: u8, packet: &[u8]) {
    let Ok(outer) = IpHeader::parse(packet) else { return };
    let payload = outer.upper_of(packet);
    let mut len = payload.len().min(look::FIRST_PEEK);
    let shape = Shape::Payload { outer: &outer, next_header };
    while let Look::NeedMore(more) = look::look(shape, &payload[..len], payload.len()) {
        assert!(more > len && more <= payload.len() && more <= look::MAX_PEEK);
        len = more;
    }
}
