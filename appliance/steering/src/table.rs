//! The router's connection table (R10): which target has which connection.
//!
//! Entries are made by an authenticated SYN or by a target's word, and end by a target's word, its death, or, as long
//! as the handshake is not complete, by time. A look-up changes nothing (I5). All memory is taken at construction.

use phalanx_wire::{DropReason, PeerId, Spi, TargetId};

use crate::fifo::{Links, Queue};
use crate::hash::Seed;
use crate::key::{ConnKey, Stamp, split};
use crate::peers::{PeerCount, Peers};
use crate::store::{Slot, Sought, Store};
use crate::{Cursor, Progress, SteeringError};

/// How far a connection's handshake is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ConnState {
    /// A verified SYN was seen; no target has confirmed the connection.
    #[default]
    HalfOpen,
    /// The target saw the handshake complete.
    Established,
}

/// An entry as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conn {
    /// Which connection.
    pub key: ConnKey,
    /// Who has it.
    pub target: TargetId,
    /// How far it is.
    pub state: ConnState,
    /// When it came into this state: milliseconds of the caller's clock.
    pub since: u64,
    /// The SA that its first SYN came through, and 48 bits of that packet's number; `None` for what a target told.
    pub began: Option<(Spi, u64)>,
}

impl Conn {
    /// The packet is older than the connection's first SYN: a copy of one from an earlier connection of these addresses
    /// and ports, which another target may have accepted (I2). Of packets through another SA nothing can be said.
    #[inline]
    #[must_use]
    pub fn is_older(&self, spi: Spi, number: u64) -> bool {
        self.began.is_some_and(|(of, first)| of == spi && is_behind(number, first))
    }
}

/// Where packets of a connection go that come through one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whose the connection is.
    pub target: TargetId,
    /// 48 bits of its first SYN's number, if that came through the same SA.
    began: Option<u64>,
}

impl Route {
    /// [`Conn::is_older`], of the packet with that number.
    #[inline]
    #[must_use]
    pub fn is_older(&self, number: u64) -> bool {
        self.began.is_some_and(|first| is_behind(number, first))
    }
}

/// Of numbers of which one has only 48 bits.
#[inline]
fn is_behind(number: u64, first: u64) -> bool {
    number.wrapping_sub(first) >> (Stamp::BITS - 1) & 1 == 1
}

/// Bounds of a [`ConnectionTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Connections in all; a slot and a third of one is reserved for each, with its links and tag: 98 bytes.
    pub connections: usize,
    /// Connections of one peer.
    pub per_peer: u32,
    /// Connections of one peer whose handshake is not complete.
    pub half_open_per_peer: u32,
    /// Peers that may have connections at a time.
    pub peers: usize,
    /// How long an entry may stay half-open, in milliseconds.
    pub half_open_ms: u64,
}

impl Default for TableLimits {
    fn default() -> Self {
        TableLimits {
            connections: 1 << 17,
            per_peer: 1 << 16,
            half_open_per_peer: 256,
            peers: 4096,
            // Longer than a target remembers a half-open connection (TrackerLimits: 10 s): its notice, which carries
            // the window, comes before the entry goes (I2).
            half_open_ms: 12_000,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Value {
    since: Stamp,
    /// The first SYN's number, and its SPI in two halves; no SA has SPI 0.
    began: Stamp,
    spi: [u16; 2],
    target: u16,
    state: ConnState,
}

/// The connection table. One owner; time is an argument.
pub struct ConnectionTable {
    limits: TableLimits,
    store: Store<Value>,
    links: Links,
    half_open: Queue,
    peers: Peers,
    per_target: Box<[u32]>,
}

impl ConnectionTable {
    /// An empty table; `seed` must be random, so that nobody can choose connections that collide.
    ///
    /// # Errors
    /// A limit of zero, or more connections than a slot number can name.
    pub fn new(limits: TableLimits, seed: Seed) -> Result<Self, SteeringError> {
        let zero = [limits.connections, limits.peers, limits.per_peer as usize, limits.half_open_per_peer as usize];
        if zero.contains(&0) {
            return Err(SteeringError::ZeroLimit);
        }
        let store = Store::new(limits.connections, seed)?;
        Ok(ConnectionTable {
            limits,
            links: Links::new(store.slots()),
            half_open: Queue::new(),
            peers: Peers::new(limits.peers, seed),
            per_target: vec![0; 1 << 16].into_boxed_slice(),
            store,
        })
    }

    /// The entry of `key`. Refreshes nothing: who asks may be unauthenticated (I5).
    #[inline]
    pub fn lookup(&self, key: &ConnKey) -> Option<Conn> {
        self.store.find(&key.into()).map(|slot| self.show(slot))
    }

    /// As [`Self::lookup`], of what [`Self::seek`] gave.
    #[inline]
    pub fn lookup_sought(&self, sought: &Sought) -> Option<Conn> {
        self.store.find_sought(sought).map(|slot| self.show(slot))
    }

    /// Where packets of a known connection go that come through that SA.
    #[inline]
    pub fn route(&self, sought: &Sought, spi: Spi) -> Option<Route> {
        let value = self.store.value(self.store.find_sought(sought)?);
        let began = if value.spi == split(spi.0) { Some(value.began.ms()) } else { None };
        Some(Route { target: TargetId(value.target), began })
    }

    /// Whether a new half-open connection of `peer` would be let in.
    ///
    /// # Errors
    /// [`DropReason::TableFull`], [`DropReason::HalfOpenLimit`].
    pub fn admits(&self, peer: PeerId) -> Result<(), DropReason> {
        let count = self.peers.get(peer);
        if self.len() >= self.capacity() || count.total >= self.limits.per_peer || !self.peers.has_room_for(peer) {
            Err(DropReason::TableFull)
        } else if count.half_open >= self.limits.half_open_per_peer {
            Err(DropReason::HalfOpenLimit)
        } else {
            Ok(())
        }
    }

    /// A new half-open connection, for a verified SYN. An entry that exists is left as it is, its target given back.
    ///
    /// # Errors
    /// As [`Self::admits`]; nothing has changed then.
    pub fn insert(&mut self, key: &ConnKey, target: TargetId, now: u64) -> Result<TargetId, DropReason> {
        let packed = key.into();
        if let Some(slot) = self.store.find(&packed) {
            return Ok(TargetId(self.store.value(slot).target));
        }
        self.admits(key.peer)?;
        let value = Value {
            since: Stamp::at(now),
            began: Stamp::at(0),
            spi: [0; 2],
            target: target.0,
            state: ConnState::HalfOpen,
        };
        let slot = self.store.insert(&packed, value).ok_or(DropReason::TableFull)?;
        self.links.push(&mut self.half_open, slot);
        self.per_target[usize::from(target.0)] += 1;
        self.peers.update(key.peer, |count| {
            count.total += 1;
            count.half_open += 1;
        });
        Ok(target)
    }

    /// Another verified SYN of a connection: half-open, it has its full time again. Its target, if there is such an entry.
    pub fn renew(&mut self, key: &ConnKey, now: u64) -> Option<TargetId> {
        let slot = self.store.find(&key.into())?;
        let value = self.store.value_mut(slot);
        let target = TargetId(value.target);
        if value.state == ConnState::HalfOpen {
            value.since = Stamp::at(now);
            self.links.remove(&mut self.half_open, slot);
            self.links.push(&mut self.half_open, slot);
        }
        Some(target)
    }

    /// Notes the packet that the connection begins with; of several SYNs the first.
    pub fn begin(&mut self, key: &ConnKey, spi: Spi, number: u64) {
        if let Some(slot) = self.store.find(&key.into()) {
            let value = self.store.value_mut(slot);
            if value.spi == [0; 2] && value.state == ConnState::HalfOpen {
                value.spi = [spi.0 as u16, (spi.0 >> 16) as u16];
                value.began = Stamp::at(number);
            }
        }
    }

    /// An established connection as a target reports it, after this router or the target's link came back; its time
    /// begins anew. An entry of another target stays as it is: it was made by a newer SYN, after this target was given
    /// up, and who has it may have accepted what this target must not accept again (I2).
    ///
    /// # Errors
    /// [`DropReason::TableFull`].
    pub fn restore(&mut self, key: &ConnKey, target: TargetId, now: u64) -> Result<(), DropReason> {
        let packed = key.into();
        if let Some(slot) = self.store.find(&packed) {
            if self.store.value(slot).target == target.0 {
                self.confirm_slot(slot, now);
                self.store.value_mut(slot).since = Stamp::at(now);
            }
            return Ok(());
        }
        if self.peers.get(key.peer).total >= self.limits.per_peer || !self.peers.has_room_for(key.peer) {
            return Err(DropReason::TableFull);
        }
        let value = Value {
            since: Stamp::at(now),
            began: Stamp::at(0),
            spi: [0; 2],
            target: target.0,
            state: ConnState::Established,
        };
        self.store.insert(&packed, value).ok_or(DropReason::TableFull)?;
        self.per_target[usize::from(target.0)] += 1;
        self.peers.update(key.peer, |count| count.total += 1);
        Ok(())
    }

    /// The target says that the handshake is complete. Whether there is such an entry.
    pub fn confirm(&mut self, key: &ConnKey, now: u64) -> bool {
        let slot = self.store.find(&key.into());
        slot.inspect(|slot| self.confirm_slot(*slot, now)).is_some()
    }

    /// The target says that the connection is over; its window was merged before.
    pub fn end(&mut self, key: &ConnKey) -> Option<Conn> {
        let slot = self.store.find(&key.into())?;
        Some(self.remove(slot))
    }

    /// Gives a connection to another target. Whether there is such an entry.
    pub fn retarget(&mut self, key: &ConnKey, target: TargetId) -> bool {
        let slot = self.store.find(&key.into());
        slot.inspect(|slot| self.retarget_slot(*slot, target)).is_some()
    }

    /// Ends all connections of a target that is gone, looking at no more than `budget` slots per call. To be called
    /// with the same cursor until [`Progress::Done`], which means that it has none; the target must not be selected
    /// meanwhile.
    pub fn purge_target(
        &mut self,
        target: TargetId,
        cursor: &mut Cursor,
        budget: usize,
        mut ended: impl FnMut(Conn),
    ) -> Progress {
        // What came in behind the cursor, by a restore that was under way, is met in another round.
        cursor.0 = if cursor.0 >= self.store.slots() { 0 } else { cursor.0 };
        let end = cursor.0.saturating_add(budget.max(1)).min(self.store.slots());
        while self.connections_of(target) > 0 && cursor.0 < end {
            let (next, slot) = self.store.next_used(cursor.0, end - cursor.0);
            cursor.0 = next;
            if let Some(slot) = slot.filter(|slot| self.store.value(*slot).target == target.0) {
                ended(self.remove(slot));
            }
        }
        Progress::after(self.connections_of(target) == 0)
    }

    /// Ends all connections that `gone` names (those of a VIP that is withdrawn, of one target of it), in one pass from
    /// the cursor's start, looking at no more than `budget` slots per call. None of them may be made meanwhile.
    pub fn purge(
        &mut self,
        cursor: &mut Cursor,
        budget: usize,
        gone: impl Fn(&Conn) -> bool,
        mut ended: impl FnMut(Conn),
    ) -> Progress {
        let end = cursor.0.saturating_add(budget.max(1)).min(self.store.slots());
        while cursor.0 < end {
            let (next, slot) = self.store.next_used(cursor.0, end - cursor.0);
            cursor.0 = next;
            if let Some(slot) = slot.filter(|slot| gone(&self.show(*slot))) {
                ended(self.remove(slot));
            }
        }
        Progress::after(cursor.0 >= self.store.slots())
    }

    /// Ends what has been half-open for too long, at most `budget` entries. Touches nothing that has not expired.
    pub fn sweep(&mut self, now: u64, budget: usize, mut ended: impl FnMut(Conn)) -> Progress {
        for _ in 0..budget {
            let Some(slot) = self.half_open.oldest().filter(|slot| self.expired(*slot, now)) else {
                return Progress::Done;
            };
            ended(self.remove(slot));
        }
        Progress::after(!self.half_open.oldest().is_some_and(|slot| self.expired(slot, now)))
    }

    /// Shows entries, looking at no more than `budget` slots per call. Entries that are there throughout are shown
    /// exactly once.
    pub fn scan(&self, cursor: &mut Cursor, budget: usize, mut show: impl FnMut(Conn)) -> Progress {
        let end = cursor.0.saturating_add(budget.max(1)).min(self.store.slots());
        while cursor.0 < end {
            let (next, slot) = self.store.next_used(cursor.0, end - cursor.0);
            cursor.0 = next;
            slot.into_iter().for_each(|slot| show(self.show(slot)));
        }
        Progress::after(cursor.0 >= self.store.slots())
    }

    /// How many connections a target has, half-open ones among them.
    #[inline]
    pub fn connections_of(&self, target: TargetId) -> u32 {
        self.per_target[usize::from(target.0)]
    }

    /// Hashes a key, and asks memory for what a look-up compares first; then [`Self::entry_ahead`], then [`Self::lookup_sought`].
    #[inline(always)]
    pub fn seek(&self, key: &ConnKey) -> Sought {
        self.store.seek(key.into())
    }

    /// Asks memory for the entry that the first step leads to.
    #[inline]
    pub fn entry_ahead(&self, sought: &Sought) {
        self.store.entry_ahead(sought);
    }

    /// How many cache lines a look-up of this key reads, found or not: bounded, and the same however many there are.
    pub fn reads(&self, key: &ConnKey) -> usize {
        self.store.reads(&key.into())
    }

    /// How many connections a peer has.
    pub fn peer(&self, peer: PeerId) -> PeerCount {
        self.peers.get(peer)
    }

    /// How many connections there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are half-open.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// How many connections it holds at most.
    pub fn capacity(&self) -> usize {
        self.store.capacity()
    }

    #[inline]
    fn show(&self, slot: Slot) -> Conn {
        let value = self.store.value(slot);
        let spi = Spi(u32::from(value.spi[1]) << 16 | u32::from(value.spi[0]));
        Conn {
            key: self.store.key(slot).into(),
            target: TargetId(value.target),
            state: value.state,
            since: value.since.ms(),
            began: (spi != Spi(0)).then_some((spi, value.began.ms())),
        }
    }

    fn expired(&self, slot: Slot, now: u64) -> bool {
        now.saturating_sub(self.store.value(slot).since.ms()) >= self.limits.half_open_ms
    }

    fn confirm_slot(&mut self, slot: Slot, now: u64) {
        let value = self.store.value_mut(slot);
        if value.state == ConnState::HalfOpen {
            value.state = ConnState::Established;
            value.since = Stamp::at(now);
            self.links.remove(&mut self.half_open, slot);
            let peer = self.store.key(slot).peer();
            self.peers.update(peer, |count| count.half_open -= 1);
        }
    }

    fn retarget_slot(&mut self, slot: Slot, target: TargetId) {
        let old = std::mem::replace(&mut self.store.value_mut(slot).target, target.0);
        self.per_target[usize::from(old)] -= 1;
        self.per_target[usize::from(target.0)] += 1;
    }

    fn remove(&mut self, slot: Slot) -> Conn {
        let conn = self.show(slot);
        let half_open = u32::from(conn.state == ConnState::HalfOpen);
        if half_open == 1 {
            self.links.remove(&mut self.half_open, slot);
        }
        self.per_target[usize::from(conn.target.0)] -= 1;
        self.peers.update(conn.key.peer, |count| {
            count.total -= 1;
            count.half_open -= half_open;
        });
        self.store.remove(slot);
        conn
    }
}
