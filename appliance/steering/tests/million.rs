//! A million connections, opened, used and ended: memory that is taken once, look-ups that stay flat, limits that hold.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{ACK, FIN, SYN, key, segment};
use phalanx_steering::{
    ConnEvent, ConnKey, ConnState, ConnectionTable, Cursor, Ended, PeerCount, Progress, TableLimits, Tracker,
    TrackerLimits,
};
use phalanx_wire::{DropReason, PeerId, Spi, TargetId};

const MILLION: u32 = 1_000_000;
/// Half-open connections that one peer may have.
const HALF_OPEN: u32 = 1000;
/// The peer that has nearly all connections: a NAT gateway, say.
const GATEWAY: u32 = 7;
const FLOODER: u32 = 8;
const SEED: [u64; 2] = [0x1234, 0x5678];

/// Counts what each thread takes.
struct Counting;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; the counter takes no memory itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.set(TAKEN.get() + size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `make` makes, and the bytes it took.
fn counted<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get();
    let made = make();
    (made, TAKEN.get() - before)
}

/// A router with room for so many connections, and the target that has them.
struct World {
    table: ConnectionTable,
    ended: Ended,
    tracker: Tracker,
    now: u64,
}

impl World {
    fn new(connections: u32) -> World {
        let limits = TableLimits {
            connections: connections as usize,
            per_peer: connections,
            half_open_per_peer: HALF_OPEN,
            peers: 16,
            ..TableLimits::default()
        };
        let tracker = TrackerLimits { connections: connections as usize, ..TrackerLimits::default() };
        World {
            table: ConnectionTable::new(limits, SEED).expect("limits"),
            ended: Ended::new(connections as usize / 8, 3000, SEED).expect("limits"),
            tracker: Tracker::new(tracker, SEED).expect("limits"),
            now: 1,
        }
    }

    /// The whole handshake; the router confirms what the target says.
    fn open(&mut self, key: &ConnKey, n: u32) -> Result<(), DropReason> {
        self.table.insert(key, target(n), self.now)?;
        self.table.begin(key, Spi(0x1000), u64::from(n));
        assert_eq!(self.tracker.inbound(key, &segment(SYN, 0, 0), 0, self.now), None);
        assert_eq!(self.tracker.outbound(key, &segment(SYN | ACK, 100, 1), 0, self.now), None);
        let opened = self.tracker.inbound(key, &segment(ACK, 1, 101), 0, self.now);
        assert_eq!(opened, Some(ConnEvent::Opened), "connection {n}");
        assert!(self.table.confirm(key, self.now));
        Ok(())
    }

    /// A packet each way.
    fn use_it(&mut self, key: &ConnKey, n: u32) {
        assert_eq!(self.table.lookup(key).map(|conn| conn.target), Some(target(n)), "connection {n}");
        assert_eq!(self.tracker.inbound(key, &segment(ACK, 1, 101), 10, self.now), None);
        assert_eq!(self.tracker.outbound(key, &segment(ACK, 101, 11), 10, self.now), None);
    }

    /// Closed from both sides; the router is told.
    fn end(&mut self, key: &ConnKey) {
        assert_eq!(self.tracker.inbound(key, &segment(FIN | ACK, 11, 111), 0, self.now), None);
        assert_eq!(self.tracker.outbound(key, &segment(FIN | ACK, 111, 12), 0, self.now), None);
        assert_eq!(self.tracker.inbound(key, &segment(ACK, 12, 112), 0, self.now), Some(ConnEvent::Closed));
        self.ended.note(key, self.now);
        assert!(self.table.end(key).is_some());
    }

    /// The most cache lines that a look-up of one of these reads, and their sum, in both tables.
    fn reads(&self, keys: impl Iterator<Item = ConnKey>) -> (usize, usize) {
        let each = keys.flat_map(|key| [self.table.reads(&key), self.tracker.reads(&key)]);
        each.fold((0, 0), |(most, sum), reads| (most.max(reads), sum + reads))
    }
}

fn target(n: u32) -> TargetId {
    TargetId((n % 4) as u16)
}

#[test]
fn a_million_connections_of_one_peer_open_are_used_and_end_in_memory_that_was_taken_once() {
    let (mut world, bytes) = counted(|| World::new(MILLION));
    // Slots for a million and a third of them, with links and tags: of the table, the tracker, and an eighth for the ended.
    assert!(bytes < 210 * MILLION as usize, "{} bytes per connection", bytes / MILLION as usize);
    let ((), later) = counted(|| {
        (0..MILLION).for_each(|n| world.open(&key(GATEWAY, n), n).expect("room"));
        assert_eq!((world.table.len(), world.tracker.len()), (MILLION as usize, MILLION as usize));
        assert_eq!(world.table.peer(PeerId(GATEWAY)), PeerCount { total: MILLION, half_open: 0 });
        (0..MILLION).for_each(|n| world.use_it(&key(GATEWAY, n), n));
        world.now += 10;
        (0..MILLION).for_each(|n| world.end(&key(GATEWAY, n)));
    });
    assert_eq!(later, 0, "bytes taken after the start");
    assert!(world.table.is_empty() && world.tracker.is_empty());
    assert_eq!(world.table.peer(PeerId(GATEWAY)), PeerCount::default());
    assert!((0..4).all(|n| world.table.connections_of(target(n)) == 0));
    // Those that ended last are remembered, and those of the target go with time.
    assert!((MILLION - 1000..MILLION).all(|n| world.ended.has(&key(GATEWAY, n), world.now)));
    while world.tracker.sweep(world.now + 60_000, 4096, |_, _| panic!("ended already")) == Progress::More {}
}

#[test]
fn a_full_table_refuses_new_connections_and_leaves_the_old_ones_as_they_are() {
    let mut world = World::new(MILLION);
    (0..MILLION).for_each(|n| world.open(&key(GATEWAY, n), n).expect("room"));
    for n in MILLION..MILLION + 10_000 {
        let new = key(GATEWAY + n % 3, n);
        assert_eq!(world.open(&new, n), Err(DropReason::TableFull));
        assert_eq!(world.table.restore(&new, target(n), 5), Err(DropReason::TableFull));
        assert_eq!(world.tracker.inbound(&new, &segment(SYN, 0, 0), 0, 5), Some(ConnEvent::Refused));
    }
    assert_eq!((world.table.len(), world.tracker.len()), (MILLION as usize, MILLION as usize));
    for n in 0..MILLION {
        let conn = world.table.lookup(&key(GATEWAY, n)).expect("it was there");
        assert_eq!((conn.target, conn.state, conn.since), (target(n), ConnState::Established, 1));
        assert_eq!(conn.began, Some((Spi(0x1000), u64::from(n))));
        assert_eq!(world.tracker.state(&conn.key), Some(ConnState::Established));
    }
    // One leaves, one comes, two times over, and there is always room for it.
    for n in MILLION..3 * MILLION {
        assert!(world.table.end(&key(GATEWAY, n - MILLION)).is_some());
        assert_eq!(world.table.insert(&key(GATEWAY, n), target(n), 1), Ok(target(n)), "connection {n}");
        assert!(world.table.confirm(&key(GATEWAY, n), 1));
    }
    let mut cursor = Cursor::default();
    while world.table.purge_target(TargetId(1), &mut cursor, 4096, |_| ()) == Progress::More {}
    assert_eq!(world.table.len(), 750_000);
}

#[test]
fn a_look_up_reads_as_little_among_a_million_as_among_a_thousand() {
    let mut costs = Vec::new();
    for size in [1000, MILLION] {
        let mut world = World::new(size);
        (0..size).for_each(|n| world.open(&key(GATEWAY, n), n).expect("room"));
        let (most, sum) = world.reads((0..size).map(|n| key(GATEWAY, n)));
        let (most_unknown, _) = world.reads((size..size + 1000).map(|n| key(GATEWAY, n)));
        // Both buckets' tags, the entry, and a few whose tag happens to be the same.
        assert!(most <= 8 && most_unknown <= 8, "{most} and {most_unknown} cache lines");
        costs.push(sum as f64 / f64::from(2 * size));
    }
    assert!(costs[1] < 2.7 && costs[1] < 1.05 * costs[0], "cache lines per look-up: {costs:?}");
}

#[test]
fn a_flood_of_half_open_connections_hinders_nobody_else_and_goes_with_time() {
    let mut world = World::new(MILLION);
    for n in 0..MILLION / 10 {
        let half_open = world.table.insert(&key(FLOODER, n), target(n), world.now);
        assert_eq!(half_open.is_ok(), n < HALF_OPEN, "connection {n}: {half_open:?}");
        world.open(&key(GATEWAY, n), n).expect("room");
    }
    assert_eq!(world.table.peer(PeerId(FLOODER)), PeerCount { total: HALF_OPEN, half_open: HALF_OPEN });
    let mut gone = 0;
    while world.table.sweep(world.now + 12_000, 64, |conn| gone += u32::from(conn.key.peer == PeerId(FLOODER)))
        == Progress::More
    {}
    assert_eq!((gone, world.table.half_open()), (HALF_OPEN, 0));
    assert_eq!(world.table.len(), MILLION as usize / 10);
}
