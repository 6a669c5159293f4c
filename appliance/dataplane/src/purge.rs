//! Ending the connections of a target or a VIP that is gone, a piece at a time.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use phalanx_steering::{Conn, ConnKey, Cursor, Progress};
use phalanx_wire::{TargetId, VipId};

use crate::clock::Now;
use crate::command::{Event, Outcome, Refused};
use crate::engine::Engine;
use crate::packet::Source;

/// Table slots looked at in one step.
const STEP: usize = 256;
/// Purges under way at a time: one for each VIP of each target that went.
const PURGES: usize = 256;
/// How far beyond what is verified a floor may rise: an unauthenticated number counts for no more (I5). Targets report
/// 20 times a second, so it holds up to a million packets per second on an SA.
const LEAP: u64 = 65_536;

/// Purges under way.
#[derive(Default)]
pub(crate) struct Purges(ArrayVec<Purge, PURGES>);

struct Purge {
    token: u64,
    address: IpAddr,
    whose: Whose,
    cursor: Cursor,
}

/// Whose connections end. Times are milliseconds of the loop's clock.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    /// The VIP itself goes: everybody's.
    All,
    /// A dead target's. What it is given after this moment belongs to its next life.
    Dead(TargetId, u64),
    /// What a target that is back did not tell of: older than this moment.
    Stale(TargetId, u64),
}

impl Whose {
    fn has(self, conn: &Conn) -> bool {
        match self {
            Whose::All => true,
            Whose::Dead(target, at) => conn.target == target && conn.since <= at,
            Whose::Stale(target, since) => conn.target == target && conn.since < since,
        }
    }
}

impl Purges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Source> Engine<S> {
    /// Starts a purge; it is answered when it is through.
    pub(crate) fn purge(&mut self, token: u64, vip: VipId, address: IpAddr, whose: Whose) -> Result<(), Refused> {
        // Before the first entry goes: from then on its packets would be the router's own.
        if let Whose::Dead(target, _) = whose {
            self.raise_floors(vip, target);
        }
        let purge = Purge { token, address, whose, cursor: Cursor::default() };
        self.router.purges.0.try_push(purge).map_err(|_| Refused::TableFull)
    }

    /// The connection is about to be purged. Its packets go nowhere: the target's next life, which knows nothing of what
    /// this one accepted, may be there already (I2).
    pub(crate) fn is_purged(&self, key: &ConnKey) -> bool {
        let purges = &self.router.purges.0;
        if purges.is_empty() {
            return false;
        }
        let Some(conn) = self.router.table.lookup(key) else { return false };
        purges.iter().any(|purge| key.flow.local.addr == purge.address && purge.whose.has(&conn))
    }

    /// A target says that its connection is over; its window was merged before. What was forwarded since then is in a
    /// later window: until that has come nobody takes packets of the connection (I2).
    pub(crate) fn end_connection(&mut self, key: &ConnKey, target: TargetId, now: Now) -> bool {
        let conn = self.router.table.lookup(key);
        if conn.is_some_and(|conn| conn.target != target) {
            return false;
        }
        self.router.ended.note(key, now.ms());
        self.router.table.end(key).is_some()
    }

    /// One step of the oldest purge.
    pub(crate) fn tend_purges(&mut self, now: Now) {
        // A purge through answers a command that came a while ago.
        if !self.mail.has_room() {
            return;
        }
        let Some(purge) = self.router.purges.0.first_mut() else { return };
        let (address, whose) = (purge.address, purge.whose);
        let mut ended: ArrayVec<ConnKey, STEP> = ArrayVec::new();
        let progress = self.router.table.scan(&mut purge.cursor, STEP, |conn| {
            if conn.key.flow.local.addr == address && whose.has(&conn) {
                ended.push(conn.key);
            }
        });
        for key in &ended {
            self.router.table.end(key);
            if matches!(whose, Whose::Stale(..)) {
                self.router.ended.note(key, now.ms());
            }
        }
        if progress == Progress::Done {
            let purge = self.router.purges.0.remove(0);
            let (core, token) = (self.id, purge.token);
            self.mail.answer(Event::Done { core, token, result: Ok(Outcome::Applied) });
        }
    }

    /// What a dead target may have accepted without telling, the router does not accept itself any more. A target gets
    /// nothing but TCP and UDP. Of TCP the router has opened each SYN itself, so no new connection is held up by it; new UDP
    /// flows are, until the SA's numbers have passed it.
    fn raise_floors(&mut self, vip: VipId, target: TargetId) {
        for sa in self.tables.cache.each_inbound_mut().filter(|sa| sa.params().vip == vip) {
            if let Some(highest) = sa.forwarded.take(target) {
                sa.notes.late = sa.notes.late.max(highest.min(sa.verified.edge().saturating_add(LEAP)));
            }
        }
    }
}
