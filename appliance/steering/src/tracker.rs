//! On a target: what becomes of each TCP connection (of UDP flows: `datagrams`), seen in verified packets of both directions.
//!
//! Targets own the truth about connections (ARCHITECTURE "Who gets a new connection"): this is where "opened" and "closed" come from
//! that the router's table lives on. Every packet here has passed its integrity check and window, or comes from our own
//! stack, so nothing is doubted that TCP itself would believe; whether a reset lies in the window is the stacks' affair.
//!
//! Both directions are treated alike (either side may open, or both at once): each has sent a SYN, had it acknowledged,
//! sent a FIN, had it acknowledged. Open is when both SYNs are acknowledged, closed when both FINs are, or after a reset.

mod datagrams;

use phalanx_wire::{TcpHeader, protocol};

use crate::fifo::{Links, Queue};
use crate::hash::Seed;
use crate::key::{ConnKey, PackedKey, Stamp, join, split};
use crate::store::{Slot, Sought, Store};
use crate::table::ConnState;
use crate::{Cursor, Progress, SteeringError};

/// What a packet, or time, did to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnEvent {
    /// The three-way handshake is complete.
    Opened,
    /// It is over: reset, closed from both sides, or silent for too long. Reported once, also for one that never opened.
    Closed,
    /// It would be new and there is no room: the packet must be dropped ([`TableFull`]), since the router would forget
    /// a connection that nobody reports.
    ///
    /// [`TableFull`]: phalanx_wire::DropReason::TableFull
    Refused,
}

/// Bounds of a [`Tracker`]; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerLimits {
    /// Connections in all, those that linger among them.
    pub connections: usize,
    /// How long a handshake may take from its first SYN.
    pub half_open_ms: u64,
    /// How long an established connection may be silent.
    pub idle_ms: u64,
    /// How long an established UDP flow may be.
    pub udp_idle_ms: u64,
    /// How long the last acknowledgements of a close may take.
    pub closing_ms: u64,
    /// How long a closed connection is remembered, so that its late packets are not taken for anything else.
    pub linger_ms: u64,
}

impl Default for TrackerLimits {
    fn default() -> Self {
        TrackerLimits {
            connections: 1 << 17,
            half_open_ms: 10_000,
            idle_ms: 2 * 60 * 60 * 1000,
            udp_idle_ms: 180_000,
            closing_ms: 60_000,
            linger_ms: 5_000,
        }
    }
}

/// The queue, and so the timeout, of a connection.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    #[default]
    HalfOpen,
    Established,
    /// An established UDP flow.
    Flowing,
    /// Both sides have sent a FIN.
    Closing,
    /// Closed, and said so.
    Lingering,
}

const PHASES: usize = 5;

/// Marks of one direction in [`Value::marks`]; those of the other are four bits higher.
const SYN: u8 = 1;
const SYN_ACKED: u8 = 2;
const FIN: u8 = 4;
const FIN_ACKED: u8 = 8;

/// A direction: its place in `awaited`, and by how much its marks are shifted.
const INBOUND: usize = 0;
const OUTBOUND: usize = 1;

#[derive(Clone, Copy, Default)]
struct Value {
    /// When it was put into its queue.
    seen: Stamp,
    /// By direction of sending: the acknowledgement number that covers the SYN or, once sent, the FIN; in halves.
    awaited: [[u16; 2]; 2],
    marks: u8,
    phase: Phase,
    ruling: Stamp,
}

impl Value {
    fn awaited(&self, of: usize) -> u32 {
        join(self.awaited[of])
    }

    fn await_of(&mut self, of: usize, ack: u32) {
        self.awaited[of] = split(ack);
    }

    /// Both SYNs are acknowledged, and no FIN was seen.
    #[inline]
    fn flows(&self) -> bool {
        self.phase == Phase::Established && self.marks & (FIN | FIN << 4) == 0
    }

    fn both(&self, marks: u8) -> bool {
        let wanted = marks | marks << 4;
        self.marks & wanted == wanted
    }

    fn has(&self, direction: usize, marks: u8) -> bool {
        self.marks >> (4 * direction) & marks == marks
    }

    fn mark(&mut self, direction: usize, marks: u8) {
        self.marks |= marks << (4 * direction);
    }
}

/// What rules said about the packets of a connection, in words of the caller's own: 48 bits, of which 0 is nothing. It is
/// remembered with the connection once that is established (R16), until other words are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruling(u64);

impl Ruling {
    /// Two numbers of 24 and 23 bits; what is above those is cut off. Never nothing.
    #[inline]
    #[must_use]
    pub const fn new(a: u32, b: u32) -> Ruling {
        Ruling((a as u64 & 0xff_ffff) << 24 | (b as u64 & 0x7f_ffff) << 1 | 1)
    }
}

/// Where a connection is, or that it is nowhere; good until the tracker changes.
#[derive(Clone, Copy, Debug)]
pub struct Found(Option<Slot>);

impl Found {
    /// It is nowhere.
    #[inline]
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0.is_none()
    }
}

/// Tracks the connections of one target core.
pub struct Tracker {
    limits: TrackerLimits,
    store: Store<Value>,
    links: Links,
    queues: [Queue; PHASES],
}

impl Tracker {
    /// An empty tracker; `seed` must be random, so that nobody can choose connections that collide.
    ///
    /// # Errors
    /// Room for nothing, or for more than a slot number can name.
    pub fn new(limits: TrackerLimits, seed: Seed) -> Result<Self, SteeringError> {
        if limits.connections == 0 {
            return Err(SteeringError::ZeroLimit);
        }
        let store = Store::new(limits.connections, seed)?;
        Ok(Tracker { limits, links: Links::new(store.slots()), queues: [const { Queue::new() }; PHASES], store })
    }

    /// A packet from the peer: its integrity check was good and the window has taken its number. `payload_len` is the
    /// number of bytes behind the TCP header and its options.
    pub fn inbound(&mut self, key: &ConnKey, tcp: &TcpHeader, payload_len: usize, now: u64) -> Option<ConnEvent> {
        self.inbound_found(self.find(key), key, tcp, payload_len, now)
    }

    /// As [`Self::inbound`], of a key that was looked up just now.
    #[inline]
    pub fn inbound_found(
        &mut self,
        found: Found,
        key: &ConnKey,
        tcp: &TcpHeader,
        payload_len: usize,
        now: u64,
    ) -> Option<ConnEvent> {
        self.packet(INBOUND, found, || key.into(), tcp, payload_len, now)
    }

    /// The same of a connection that was found by what [`Self::seek`] gave.
    #[inline(always)]
    pub fn inbound_sought(
        &mut self,
        (found, sought): (Found, &Sought),
        tcp: &TcpHeader,
        payload_len: usize,
        now: u64,
    ) -> Option<ConnEvent> {
        self.packet(INBOUND, found, || *sought.packed(), tcp, payload_len, now)
    }

    /// Looks a connection up.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &ConnKey) -> Found {
        Found(self.store.find(&key.into()))
    }

    /// As [`Self::find`], of what [`Self::seek`] gave.
    #[inline]
    #[must_use]
    pub fn find_sought(&self, sought: &Sought) -> Found {
        Found(self.store.find_sought(sought))
    }

    /// The words that are remembered with the connection, if there is one.
    #[inline]
    #[must_use]
    pub fn ruling(&self, found: Found) -> Ruling {
        found.0.map_or(Ruling(0), |slot| Ruling(self.store.value(slot).ruling.ms()))
    }

    /// Remembers them, if it is established and neither side has closed it.
    #[inline]
    pub fn rule(&mut self, found: Found, ruling: Ruling) {
        if let Some(slot) = found.0
            && matches!(self.store.value(slot).phase, Phase::Established | Phase::Flowing)
        {
            self.store.value_mut(slot).ruling = Stamp::at(ruling.0);
        }
    }

    /// A packet from our own stack.
    pub fn outbound(&mut self, key: &ConnKey, tcp: &TcpHeader, payload_len: usize, now: u64) -> Option<ConnEvent> {
        self.outbound_found(self.find(key), key, tcp, payload_len, now)
    }

    /// As [`Self::outbound`], of a key that was looked up just now.
    #[inline]
    pub fn outbound_found(
        &mut self,
        found: Found,
        key: &ConnKey,
        tcp: &TcpHeader,
        payload_len: usize,
        now: u64,
    ) -> Option<ConnEvent> {
        self.packet(OUTBOUND, found, || key.into(), tcp, payload_len, now)
    }

    /// The same of a connection that was found by what [`Self::seek`] gave.
    #[inline(always)]
    pub fn outbound_sought(
        &mut self,
        (found, sought): (Found, &Sought),
        tcp: &TcpHeader,
        payload_len: usize,
        now: u64,
    ) -> Option<ConnEvent> {
        self.packet(OUTBOUND, found, || *sought.packed(), tcp, payload_len, now)
    }

    /// A segment without FIN and RST, of either direction: whether its connection is established and nobody ends it, so that nothing
    /// else is to be done for it.
    #[inline(always)]
    pub fn flows_on(&mut self, found: Found, now: u64) -> bool {
        let Some(slot) = found.0.filter(|slot| self.store.value(*slot).flows()) else { return false };
        self.refresh(slot, now);
        true
    }

    /// An established connection whose beginning was not seen here: one that moved from elsewhere. From now on it is
    /// as any other, and expires when idle. Whether there was room.
    pub fn restore(&mut self, key: &ConnKey, now: u64) -> bool {
        let packed = key.into();
        if self.store.find(&packed).is_some() {
            return true;
        }
        let syns = SYN | SYN_ACKED;
        let udp = key.flow.protocol == protocol::UDP;
        let phase = if udp { Phase::Flowing } else { Phase::Established };
        let value = Value { marks: syns | syns << 4, phase, ..Value::default() };
        self.enter(&packed, value, now).is_some()
    }

    /// Ends what has been silent for too long, at most `budget` connections, and forgets what has lingered long enough.
    pub fn sweep(&mut self, now: u64, budget: usize, mut out: impl FnMut(ConnKey, ConnEvent)) -> Progress {
        let mut left = budget;
        for phase in [Phase::Lingering, Phase::HalfOpen, Phase::Closing, Phase::Flowing, Phase::Established] {
            while let Some(slot) = self.expired(phase, now) {
                if left == 0 {
                    return Progress::More;
                }
                left -= 1;
                let key = ConnKey::from(self.store.key(slot));
                if phase != Phase::Lingering {
                    out(key, ConnEvent::Closed);
                }
                match key.flow.protocol {
                    protocol::UDP if phase != Phase::Lingering => self.queue(slot, Phase::Lingering, now),
                    _ => self.forget(slot),
                }
            }
        }
        Progress::Done
    }

    /// Forgets a connection, whatever its state: the router told that it is another target's. Whether there was one.
    pub fn forget_connection(&mut self, key: &ConnKey) -> bool {
        let slot = self.store.find(&key.into());
        slot.inspect(|slot| self.forget(*slot)).is_some()
    }

    /// Shows the connections that are not over, looking at no more than `budget` slots per call: what a restarted router
    /// gathers. Those that are there throughout are shown exactly once.
    pub fn scan(&self, cursor: &mut Cursor, budget: usize, mut show: impl FnMut(ConnKey, ConnState)) -> Progress {
        let end = cursor.0.saturating_add(budget.max(1)).min(self.store.slots());
        while cursor.0 < end {
            let (next, slot) = self.store.next_used(cursor.0, end - cursor.0);
            cursor.0 = next;
            let Some(slot) = slot else { continue };
            match self.store.value(slot).phase {
                Phase::HalfOpen => show(self.store.key(slot).into(), ConnState::HalfOpen),
                Phase::Established | Phase::Flowing | Phase::Closing => {
                    show(self.store.key(slot).into(), ConnState::Established)
                }
                Phase::Lingering => {}
            }
        }
        Progress::after(cursor.0 >= self.store.slots())
    }

    /// How far a connection is; `None` if it is unknown or over.
    pub fn state(&self, key: &ConnKey) -> Option<ConnState> {
        match self.store.value(self.store.find(&key.into())?).phase {
            Phase::HalfOpen => Some(ConnState::HalfOpen),
            Phase::Established | Phase::Flowing | Phase::Closing => Some(ConnState::Established),
            Phase::Lingering => None,
        }
    }

    /// How many connections are not over.
    #[inline]
    pub fn len(&self) -> usize {
        self.store.len() - self.queues[Phase::Lingering as usize].len()
    }

    /// Whether all are over.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hashes a key, and asks memory for what a look-up compares first; then [`Self::entry_ahead`], then [`Self::find_sought`].
    #[inline(always)]
    pub fn seek(&self, key: &ConnKey) -> Sought {
        self.store.seek(key.into())
    }

    /// The same of a connection that was found in that [`Sought::slot`] before, which is looked at first.
    #[inline(always)]
    pub fn seek_in(&self, key: &ConnKey, slot: u32) -> Sought {
        self.store.seek_in(key.into(), slot)
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

    /// How many of them have not completed their handshake.
    pub fn half_open(&self) -> usize {
        self.queues[Phase::HalfOpen as usize].len()
    }

    /// How many it holds at most, those that linger among them.
    pub fn capacity(&self) -> usize {
        self.store.capacity()
    }

    #[inline(always)]
    fn packet(
        &mut self,
        from: usize,
        found: Found,
        key: impl FnOnce() -> PackedKey,
        tcp: &TcpHeader,
        payload: usize,
        now: u64,
    ) -> Option<ConnEvent> {
        match found.0 {
            // As nearly all are: both SYNs are acknowledged, and nobody ends it.
            Some(_) if !tcp.flags.ends() && self.flows_on(found, now) => None,
            // A SYN on a connection that is over is a new connection; any other packet of it is late.
            Some(slot) if self.store.value(slot).phase == Phase::Lingering && tcp.flags.opens() => {
                self.forget(slot);
                self.open(from, &key(), tcp, now)
            }
            Some(slot) => self.known(slot, from, tcp, payload, now),
            // Only a SYN begins anything: not a late packet, and not our own stack's reset for one.
            None if tcp.flags.opens() => self.open(from, &key(), tcp, now),
            None => None,
        }
    }

    fn open(&mut self, from: usize, key: &PackedKey, tcp: &TcpHeader, now: u64) -> Option<ConnEvent> {
        let mut value = Value::default();
        value.mark(from, SYN);
        value.await_of(from, tcp.seq.wrapping_add(1));
        match self.enter(key, value, now) {
            Some(_) => None,
            None => Some(ConnEvent::Refused),
        }
    }

    fn known(&mut self, slot: Slot, from: usize, tcp: &TcpHeader, payload: usize, now: u64) -> Option<ConnEvent> {
        let value = self.store.value_mut(slot);
        let before = value.phase;
        if before == Phase::Lingering {
            return None;
        }
        if tcp.flags.rst() {
            self.queue(slot, Phase::Lingering, now);
            return Some(ConnEvent::Closed);
        }
        note_sent(value, from, tcp, payload);
        note_acknowledged(value, 1 - from, tcp);
        let phase = match before {
            _ if value.both(FIN_ACKED) => Phase::Lingering,
            Phase::HalfOpen if !value.both(SYN_ACKED) => Phase::HalfOpen,
            _ if value.both(FIN) => Phase::Closing,
            _ => Phase::Established,
        };
        if phase != before {
            self.queue(slot, phase, now);
        } else {
            self.refresh(slot, now);
        }
        match phase {
            Phase::Lingering => Some(ConnEvent::Closed),
            _ if before == Phase::HalfOpen && phase != before => Some(ConnEvent::Opened),
            _ => None,
        }
    }

    /// Moves an active connection to the end of its queue, but only when a sixteenth of its time has passed: most
    /// packets touch nothing but their own entry. A half-open connection is not kept alive by packets.
    #[inline]
    fn refresh(&mut self, slot: Slot, now: u64) {
        let value = self.store.value(slot);
        let waited = now.saturating_sub(value.seen.ms());
        if value.phase != Phase::HalfOpen && waited > self.timeout(value.phase) / 16 {
            self.queue(slot, value.phase, now);
        }
    }

    fn enter(&mut self, key: &PackedKey, mut value: Value, now: u64) -> Option<Slot> {
        value.seen = Stamp::at(now);
        let slot = self.store.insert(key, value).or_else(|| {
            // What only lingers makes room.
            let oldest = self.queues[Phase::Lingering as usize].oldest()?;
            self.forget(oldest);
            self.store.insert(key, value)
        })?;
        self.links.push(&mut self.queues[value.phase as usize], slot);
        Some(slot)
    }

    fn queue(&mut self, slot: Slot, phase: Phase, now: u64) {
        let value = self.store.value_mut(slot);
        let before = std::mem::replace(&mut value.phase, phase);
        value.seen = Stamp::at(now);
        self.links.remove(&mut self.queues[before as usize], slot);
        self.links.push(&mut self.queues[phase as usize], slot);
    }

    fn forget(&mut self, slot: Slot) {
        let phase = self.store.value(slot).phase;
        self.links.remove(&mut self.queues[phase as usize], slot);
        self.store.remove(slot);
    }

    fn expired(&self, phase: Phase, now: u64) -> Option<Slot> {
        let oldest = self.queues[phase as usize].oldest()?;
        let waited = now.saturating_sub(self.store.value(oldest).seen.ms());
        (waited >= self.timeout(phase)).then_some(oldest)
    }

    #[inline]
    fn timeout(&self, phase: Phase) -> u64 {
        match phase {
            Phase::HalfOpen => self.limits.half_open_ms,
            Phase::Established => self.limits.idle_ms,
            Phase::Flowing => self.limits.udp_idle_ms,
            Phase::Closing => self.limits.closing_ms,
            Phase::Lingering => self.limits.linger_ms,
        }
    }
}

/// Takes down a SYN or FIN of the sender.
#[inline]
fn note_sent(value: &mut Value, from: usize, tcp: &TcpHeader, payload: usize) {
    // Until it is acknowledged, another SYN (of the same client, which forgot the first) takes its place.
    if tcp.flags.syn() && !value.has(from, SYN_ACKED) {
        value.mark(from, SYN);
        value.await_of(from, tcp.seq.wrapping_add(1));
    }
    if tcp.flags.fin() && !value.has(from, FIN) {
        value.mark(from, FIN);
        // RFC 9293 §3.4: the FIN comes after the data and takes a number of its own.
        value.await_of(from, tcp.seq.wrapping_add(payload as u32).wrapping_add(1));
    }
}

/// Takes down what this packet acknowledges of the SYN or FIN that `of` sent.
#[inline]
fn note_acknowledged(value: &mut Value, of: usize, tcp: &TcpHeader) {
    let covered = tcp.ack.wrapping_sub(value.awaited(of)) as i32 >= 0;
    if !tcp.flags.ack() || !covered {
        return;
    }
    if value.has(of, FIN) {
        // Also a FIN that came with or right after the SYN: what covers it covers the SYN.
        value.mark(of, SYN_ACKED | FIN_ACKED);
    } else if value.has(of, SYN) {
        value.mark(of, SYN_ACKED);
    }
}
