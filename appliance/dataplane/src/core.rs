//! The poll loop of one core.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use dpdk_ffi::ring::{Multi, RingReceiver, RingSender};
use dpdk_ffi::{Burst, Mbuf, Mempool, RxQueue, TxQueue};
use phalanx_wire::{Buffer, DropReason, NoRoom};

use crate::capture::{Place, Tap};
use crate::clock::Now;
use crate::command::{Command, Order};
use crate::config::{Idle, PortRole};
use crate::engine::Engine;
use crate::laps::Step;
use crate::notes::Fact;
use crate::outbox::QUEUE;
use crate::packet::{BURST, Marked, Parcel, Source};
use crate::stats::CoreStats;

/// Commands carried out in one round.
const COMMANDS: usize = 16;
/// Rounds without work before [`Idle::Sleep`] sleeps.
const EMPTY_ROUNDS: u32 = 16;
/// Attempts to hand frames to a driver whose queue is full.
const ATTEMPTS: usize = 4;

/// An mbuf as the stages see it.
pub(crate) struct Packet(Mbuf);

/// The pools that packets of our own come from.
pub(crate) struct Pool {
    pub(crate) packets: Mempool,
    /// Few, for packets put together from fragments.
    pub(crate) large: Mempool,
}

/// A core with everything it owns. It is made by the starter, runs on its thread, and comes back when it ends, so that
/// nothing is freed on the thread.
pub(crate) struct Core {
    pub(crate) engine: Engine<Pool>,
    pub(crate) ports: Vec<OwnPort>,
    pub(crate) ring: RingReceiver,
    /// By core position.
    pub(crate) rings: Vec<RingSender<Multi>>,
    pub(crate) orders: Arc<ArrayQueue<Order>>,
    pub(crate) idle: Idle,
    pub(crate) stats: Arc<CoreStats>,
}

/// A port that this core receives from and sends to.
pub(crate) struct OwnPort {
    pub(crate) index: usize,
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
}

#[derive(PartialEq, Eq)]
enum Orders {
    GoOn,
    Stop,
}

impl Core {
    /// Until it is told to stop: commands, ports, ring, timers, output; rest if there was nothing.
    pub(crate) fn run(&mut self) {
        let start = Instant::now();
        let mut empty = 0;
        loop {
            let now = Now::new(start, Instant::now());
            if self.take_orders(now) == Orders::Stop {
                break;
            }
            let packets = self.poll_ports(now) + self.poll_ring(now);
            self.engine.tend(now);
            self.flush();
            self.stats.loops.add(1);
            empty = if packets == 0 { self.rest(empty) } else { 0 };
        }
        self.finish(start);
    }

    /// What was under way goes out; what came in meanwhile is taken in a last time.
    fn finish(&mut self, start: Instant) {
        for _ in 0..EMPTY_ROUNDS {
            let now = Now::new(start, Instant::now());
            if self.poll_ports(now) + self.poll_ring(now) == 0 {
                break;
            }
            self.flush();
        }
    }

    fn take_orders(&mut self, now: Now) -> Orders {
        for _ in 0..COMMANDS {
            if !self.engine.mail.has_room() {
                break;
            }
            match self.orders.pop() {
                Some(Order { command: Command::Stop, .. }) => return Orders::Stop,
                Some(order) => {
                    self.engine.obey(order, now);
                    // A lease may let loose all that waited for it.
                    self.flush();
                    self.engine.out.turn(Step::Orders);
                }
                None => break,
            }
        }
        Orders::GoOn
    }

    fn poll_ports(&mut self, now: Now) -> usize {
        let mut received = 0;
        for at in 0..self.ports.len() {
            let mut burst = Burst::<BURST>::new();
            let port = &mut self.ports[at];
            let index = port.index;
            let count = port.rx.rx_burst(&mut burst);
            if count == 0 {
                self.engine.out.turn(Step::Poll);
                continue;
            }
            self.engine.out.lap(step_of(self.engine.world.ports[index].role), count);
            self.engine.out.laps.burst_begins();
            burst.iter().for_each(Mbuf::prefetch);
            self.watch(index, &mut burst);
            capture(&self.engine.out.tap, Place::Received(index), &burst, 0);
            let bytes: usize = burst.iter().map(Mbuf::len).sum();
            self.stats.ports[index].rx.add(count as u64);
            self.stats.ports[index].rx_bytes.add(bytes as u64);
            self.engine.receive(index, burst.drain().map(Packet), now);
            self.end_burst(count);
            received += count;
        }
        received
    }

    /// Whatever a buffer's word holds, nobody watches a packet just received, unless it matches.
    #[inline]
    fn watch(&mut self, port: usize, burst: &mut Burst<BURST>) {
        burst.iter_mut().for_each(|mbuf| mbuf.set_user(0));
        if let Some(watcher) = &mut self.engine.watcher {
            let from_application = self.engine.world.ports[port].role == PortRole::Application;
            for mbuf in burst.iter_mut() {
                // Who reads the notes comes first: what he cannot keep up with passes unwatched.
                if self.engine.out.notes.is_busy() {
                    self.stats.unwatched.add(1);
                    continue;
                }
                let mark = watcher.mark(from_application, mbuf.data());
                mbuf.set_user(mark);
                self.engine.out.notes.note(mark, || Fact::Arrived(port));
            }
        }
    }

    fn poll_ring(&mut self, now: Now) -> usize {
        let mut burst = Burst::<BURST>::new();
        let count = self.ring.dequeue_burst(&mut burst);
        if count == 0 {
            self.engine.out.turn(Step::Poll);
            return 0;
        }
        self.engine.out.lap(Step::RxRing, count);
        self.engine.out.laps.burst_begins();
        self.engine.receive_ring(burst.drain().map(Packet), now);
        self.end_burst(count);
        count
    }

    fn end_burst(&mut self, packets: usize) {
        self.flush();
        self.engine.out.laps.burst_ends(&self.stats.measures, packets);
    }

    /// Sends what the stages gathered. What neither driver nor ring takes is dropped: a core never waits (I7).
    fn flush(&mut self) {
        let mut handed = 0;
        for port in &mut self.ports {
            let frames = &mut self.engine.out.frames[port.index];
            if frames.is_empty() {
                continue;
            }
            handed += frames.len();
            let mut burst = Burst::<QUEUE>::new();
            let mut bytes = 0;
            for Packet(frame) in frames.drain(..) {
                bytes += frame.len();
                let _ = burst.push(frame); // as long as the queue it comes from
            }
            capture(&self.engine.out.tap, Place::Sent(port.index), &burst, 0);
            let attempts = (0..ATTEMPTS).map(|_| if burst.is_empty() { 0 } else { port.tx.tx_burst(&mut burst) });
            let sent: usize = attempts.sum();
            let left: usize = burst.iter().map(Mbuf::len).sum();
            let stats = &self.stats.ports[port.index];
            stats.tx.add(sent as u64);
            stats.tx_bytes.add((bytes - left) as u64);
            stats.tx_full.add(burst.len() as u64);
            if !burst.is_empty() {
                let down = self.engine.world.ports[port.index].memif && !port.tx.link_is_up();
                let reason = if down { DropReason::LinkDown } else { DropReason::QueueFull };
                capture(&self.engine.out.tap, Place::Dropped(reason), &burst, 0);
                self.stats.dropped(reason, burst.len() as u64);
            }
        }
        for (ring, parcels) in self.rings.iter_mut().zip(&mut self.engine.out.parcels) {
            if parcels.is_empty() {
                continue;
            }
            handed += parcels.len();
            let mut burst = Burst::<QUEUE>::new();
            for Packet(parcel) in parcels.drain(..) {
                let _ = burst.push(parcel); // as long as the queue it comes from
            }
            ring.enqueue_burst(&mut burst);
            capture(&self.engine.out.tap, Place::Dropped(DropReason::QueueFull), &burst, Parcel::LEN);
            self.stats.dropped(DropReason::QueueFull, burst.len() as u64);
        }
        self.engine.out.lap(Step::Tx, handed);
    }

    fn rest(&mut self, empty: u32) -> u32 {
        self.stats.idle.add(1);
        match self.idle {
            Idle::Spin => {}
            Idle::Pause => (0..32).for_each(|_| std::hint::spin_loop()),
            Idle::Sleep(time) if empty >= EMPTY_ROUNDS => std::thread::sleep(time),
            Idle::Sleep(_) => std::hint::spin_loop(),
        }
        self.engine.out.turn(Step::Idle);
        empty.saturating_add(1)
    }
}

impl Packet {
    /// Fresh from the pool: whatever the buffer's word holds, nobody watches the packet.
    #[inline]
    fn unwatched(mbuf: Mbuf) -> Packet {
        let mut packet = Packet(mbuf);
        packet.set_mark(0);
        packet
    }
}

impl Marked for Packet {
    #[inline]
    fn mark(&self) -> u32 {
        self.0.user()
    }
    #[inline]
    fn set_mark(&mut self, mark: u32) {
        self.0.set_user(mark);
    }
}

/// Copies what is in a burst behind `skip` bytes, if somebody captures.
#[inline]
fn capture<const N: usize>(tap: &Option<Tap>, place: Place, burst: &Burst<N>, skip: usize) {
    if let Some(tap) = tap {
        burst.iter().for_each(|mbuf| tap.take(place, mbuf.data().get(skip..).unwrap_or_default()));
    }
}

fn step_of(role: PortRole) -> Step {
    match role {
        PortRole::Network => Step::RxNetwork,
        PortRole::Link => Step::RxLink,
        PortRole::Application => Step::RxApplication,
    }
}

impl Source for Pool {
    type Packet = Packet;

    fn fresh(&mut self) -> Option<Packet> {
        self.packets.alloc().map(Packet::unwatched)
    }

    fn fresh_large(&mut self) -> Option<Packet> {
        self.large.alloc().map(Packet::unwatched)
    }
}

impl Buffer for Packet {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.data()
    }
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }
    #[inline]
    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.0.prepend(n).map(|_| ()).map_err(|_| NoRoom)
    }
    #[inline]
    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        self.0.append(n).map(|_| ()).map_err(|_| NoRoom)
    }
    #[inline]
    fn cut_front(&mut self, n: usize) {
        self.0.trim_front(n);
    }
    #[inline]
    fn cut_back(&mut self, n: usize) {
        self.0.trim_back(n);
    }
}
