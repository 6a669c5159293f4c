//! What a core does besides packets: timers, in small steps, and showing its tables.

use phalanx_steering::{ConnKey, ConnState, Progress};
use phalanx_wire::VipId;

use crate::clock::Now;
use crate::command::{ConnRow, DumpRequest, DumpWhat, Event, LeaseRow, NeighbourRow};
use crate::engine::Engine;
use crate::laps::Step;
use crate::packet::Source;

/// Connections ended by time in one step.
const SWEEP: usize = 32;
/// Table slots shown in one go: rows must have room for all of them.
const SHOW: usize = 64;
/// Table slots looked at for one dump request.
const LOOK_AT: usize = 8192;

impl<S: Source> Engine<S> {
    /// Once a round; most of it once a millisecond.
    pub(crate) fn tend(&mut self, now: Now) {
        self.tend_purges(now);
        if now.ms() == self.tended_ms {
            return;
        }
        self.tended_ms = now.ms();
        self.mail.flush();
        for port in 0..self.stations.len() {
            self.tend_station(port, now);
        }
        let (table, ended) = (&mut self.router.table, &mut self.router.ended);
        let _ = table.sweep(now.ms(), SWEEP, |conn| ended.note(&conn.key, now.ms()));
        self.tend_ceilings(now);
        self.sweep_tracker(now);
        self.tend_leases(now);
        self.tend_wanted(now);
        self.tend_expected(now);
        self.tend_new_connections(now);
        self.tend_fragments(now);
        self.gauge();
        self.out.turn(Step::Tend);
    }

    /// A connection that fell silent is over: control is told as of any other end.
    fn sweep_tracker(&mut self, now: Now) {
        let (core, mail, vips) = (self.id, &mut self.mail, &self.tables.vips);
        let _ = self.target.tracker.sweep(now.ms(), SWEEP, |key, _| {
            if let Some(vip) = vips.by_address(key.flow.local.addr) {
                mail.tell(Event::ConnClosed { core, vip: vip.entry.id, key });
            }
        });
    }

    fn gauge(&self) {
        let stats = &self.out.stats;
        stats.connections.set(self.router.table.len() as u64);
        stats.tracked.set(self.target.tracker.len() as u64);
        let held = self.outbound.held.held() + self.router.held.held();
        stats.waiting.set((held + self.router.expected.len() + self.wanted.len() + self.new.len()) as u64);
    }

    /// Fills as many rows as there is room for and sends the request back.
    pub(crate) fn dump(&mut self, token: u64, mut dump: Box<DumpRequest>, now: Now) {
        match dump.what {
            DumpWhat::Routed => self.dump_routed(&mut dump, now),
            DumpWhat::Tracked => self.dump_tracked(&mut dump),
            DumpWhat::Leases => self.dump_leases(&mut dump),
            DumpWhat::Neighbours => self.dump_neighbours(&mut dump, now),
        }
        self.mail.answer(Event::Dumped { core: self.id, token, dump });
    }

    fn vip_of(&self, key: &ConnKey) -> Option<VipId> {
        self.tables.vips.by_address(key.flow.local.addr).map(|vip| vip.entry.id)
    }

    fn dump_routed(&self, dump: &mut DumpRequest, now: Now) {
        let DumpRequest { table, connections, complete, .. } = dump;
        let mut looked = 0;
        while !*complete && looked < LOOK_AT && connections.capacity() - connections.len() >= SHOW {
            looked += SHOW;
            let progress = self.router.table.scan(table, SHOW, |conn| {
                let established = conn.state == ConnState::Established;
                let age_ms = now.ms().saturating_sub(conn.since);
                let row = |vip| ConnRow { vip, key: conn.key, target: Some(conn.target), established, age_ms };
                connections.extend(self.vip_of(&conn.key).map(row));
            });
            *complete = progress == Progress::Done;
        }
    }

    fn dump_tracked(&self, dump: &mut DumpRequest) {
        let DumpRequest { table, connections, complete, .. } = dump;
        let mut looked = 0;
        while !*complete && looked < LOOK_AT && connections.capacity() - connections.len() >= SHOW {
            looked += SHOW;
            let progress = self.target.tracker.scan(table, SHOW, |key, state| {
                let established = state == ConnState::Established;
                let row = |vip| ConnRow { vip, key, target: None, established, age_ms: 0 };
                connections.extend(self.vip_of(&key).map(row));
            });
            *complete = progress == Progress::Done;
        }
    }

    fn dump_leases(&self, dump: &mut DumpRequest) {
        let mut shown = 0;
        for (at, sa) in self.tables.cache.iter_outbound().skip(dump.row) {
            if dump.leases.len() == dump.leases.capacity() {
                break;
            }
            shown += 1;
            dump.leases.push(LeaseRow {
                sa: sa.id(),
                left: sa.lease.remaining(),
                highest: sa.shared().highest_sent(),
                done_below: sa.lease.done_below(),
                thrown_away: sa.lease.thrown_away(),
                waiting: self.outbound.sas[at.0 as usize].held.len(),
            });
        }
        dump.row += shown;
        dump.complete = dump.row >= self.tables.cache.len().1;
    }

    fn dump_neighbours(&self, dump: &mut DumpRequest, now: Now) {
        let all = self.stations.iter().enumerate().filter_map(|(port, station)| Some((port, station.as_ref()?)));
        let rows = all.flat_map(|(port, station)| station.neighbours.iter().map(move |row| (port, row)));
        dump.complete = true;
        for (port, (address, mac, since)) in rows.skip(dump.row) {
            if dump.neighbours.len() == dump.neighbours.capacity() {
                dump.complete = false;
                break;
            }
            let age_ms = now.ms().saturating_sub(since);
            dump.neighbours.push(NeighbourRow { port, address, mac, age_ms });
        }
        dump.row += dump.neighbours.len();
    }
}
