//! Where the time of a core goes: clocks, calls and packets of each step of its loop, and how long packets waited.
//!
//! A core reads the time stamp counter once at the end of a step over a burst, never per packet. What passed since the end
//! of the step before is this step's, so that all of them together are all of the core's time.

use std::time::Instant;

use crossbeam::utils::CachePadded;
use dpdk_ffi::tsc;

use crate::buckets::Buckets;
use crate::stats::Count;

/// Steps of the loop: the index of their figures and their names in `runtime`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The driver of a network port gives a burst.
    RxNetwork,
    /// The driver of a link port gives a burst.
    RxLink,
    /// The driver of an application port gives a burst.
    RxApplication,
    /// The ring from other cores gives a burst.
    RxRing,
    /// Frames from network and link ports, parcels from the ring: Ethernet, IP, whose they are; ARP and ND; link headers.
    Sort,
    /// Router: SA, number, verified window.
    LookUp,
    /// Router: decrypting up to the end of the TCP header.
    Peek,
    /// Router: the connection, and forwarding what belongs to a target.
    Decide,
    /// Router: SYNs opened on a copy, targets chosen.
    ProveSyn,
    /// ESP packets: layout and cipher.
    Open,
    /// Opened packets: window, decapsulation, filter, tracker, to the application port.
    Deliver,
    /// Packets of the application: filter, tunnel, SA.
    WayOut,
    /// Packets of the application: sequence numbers, tracker, layout.
    Lease,
    /// Packets of the application: cipher.
    Seal,
    /// Sealed packets: next hop and Ethernet header.
    NextHop,
    /// Handing frames to drivers and parcels to rings.
    Tx,
    /// Timers, once a millisecond.
    Tend,
    /// Commands from control.
    Orders,
    /// Ports and rings that had nothing.
    Poll,
    /// Rest between two rounds without work.
    Idle,
}

impl Step {
    /// All of them, in the order of their figures.
    pub const ALL: &[Step] = &[
        Step::RxNetwork,
        Step::RxLink,
        Step::RxApplication,
        Step::RxRing,
        Step::Sort,
        Step::LookUp,
        Step::Peek,
        Step::Decide,
        Step::ProveSyn,
        Step::Open,
        Step::Deliver,
        Step::WayOut,
        Step::Lease,
        Step::Seal,
        Step::NextHop,
        Step::Tx,
        Step::Tend,
        Step::Orders,
        Step::Poll,
        Step::Idle,
    ];

    /// Its name in `runtime`.
    pub fn name(self) -> &'static str {
        match self {
            Step::RxNetwork => "rx-network",
            Step::RxLink => "rx-link",
            Step::RxApplication => "rx-application",
            Step::RxRing => "rx-ring",
            Step::Sort => "sort",
            Step::LookUp => "look-up",
            Step::Peek => "peek",
            Step::Decide => "decide",
            Step::ProveSyn => "prove-syn",
            Step::Open => "open",
            Step::Deliver => "deliver",
            Step::WayOut => "way-out",
            Step::Lease => "lease",
            Step::Seal => "seal",
            Step::NextHop => "next-hop",
            Step::Tx => "tx",
            Step::Tend => "tend",
            Step::Orders => "orders",
            Step::Poll => "poll",
            Step::Idle => "idle",
        }
    }

    /// Nothing was done: the rest of a core's time is its load.
    pub fn is_rest(self) -> bool {
        matches!(self, Step::Poll | Step::Idle)
    }
}

/// What packets spend time with: the index of its distribution and its name in `latency`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From the receipt of a packet's burst until all of it was sent, put aside or dropped. In clocks.
    Residence,
    /// An outbound packet's wait for sequence numbers. In µs, as the others below.
    Lease,
    /// An inbound packet's wait for a durable ceiling.
    Ceiling,
    /// A packet's wait for the answer of its next hop.
    Neighbour,
}

impl Span {
    /// All of them, in the order of their distributions.
    pub const ALL: &[Span] = &[Span::Residence, Span::Lease, Span::Ceiling, Span::Neighbour];

    /// Its name in `latency`.
    pub fn name(self) -> &'static str {
        match self {
            Span::Residence => "residence",
            Span::Lease => "lease-wait",
            Span::Ceiling => "ceiling-wait",
            Span::Neighbour => "neighbour-wait",
        }
    }

    /// Its values are clocks, not microseconds.
    pub fn in_clocks(self) -> bool {
        self == Span::Residence
    }
}

/// The figures of one step.
#[derive(Debug, Default)]
pub struct StepStats {
    /// Bursts.
    pub calls: Count,
    /// Packets of them.
    pub packets: Count,
    /// Clocks they took.
    pub clocks: Count,
    /// Clocks of each burst.
    pub took: Buckets,
}

/// Everything that is measured of one core.
#[derive(Debug)]
pub struct Measures {
    steps: Box<[CachePadded<StepStats>]>,
    spans: Box<[Buckets]>,
    /// One moment on both clocks: their ratio since then is the rate of the time stamp counter.
    start: (u64, Instant),
}

impl Default for Measures {
    fn default() -> Measures {
        Measures {
            steps: Step::ALL.iter().map(|_| CachePadded::default()).collect(),
            spans: Span::ALL.iter().map(|_| Buckets::default()).collect(),
            start: (tsc(), Instant::now()),
        }
    }
}

impl Measures {
    /// The figures of a step.
    pub fn step(&self, step: Step) -> &StepStats {
        &self.steps[step as usize]
    }

    /// The distribution of a span.
    pub fn span(&self, span: Span) -> &Buckets {
        &self.spans[span as usize]
    }

    /// Clocks of the time stamp counter per second, measured since the start: the longer, the better.
    pub fn clocks_per_second(&self) -> f64 {
        let (clocks, seconds) = (tsc().saturating_sub(self.start.0), self.start.1.elapsed().as_secs_f64());
        if seconds > 0.0 && clocks > 0 { clocks as f64 / seconds } else { 1e9 }
    }

    /// A packet waited.
    pub(crate) fn waited(&self, span: Span, since_us: u64, now_us: u64) {
        self.spans[span as usize].add(now_us.saturating_sub(since_us), 1);
    }
}

/// The stop watch of a core's loop.
#[derive(Debug)]
pub(crate) struct Laps {
    last: u64,
    /// When the burst that is under way was received.
    received: u64,
}

impl Laps {
    pub(crate) fn new() -> Laps {
        let now = tsc();
        Laps { last: now, received: now }
    }

    /// Time that is nobody's ends here.
    pub(crate) fn restart(&mut self) {
        *self = Laps::new();
    }

    /// A step over `packets` ends here.
    #[inline]
    pub(crate) fn lap(&mut self, measures: &Measures, step: Step, packets: usize) {
        let now = tsc();
        let took = now.saturating_sub(self.last);
        self.last = now;
        let stats = &measures.steps[step as usize];
        stats.calls.add(1);
        stats.packets.add(packets as u64);
        stats.clocks.add(took);
        stats.took.add(took, 1);
    }

    /// The step that ended last brought a burst.
    #[inline]
    pub(crate) fn burst_begins(&mut self) {
        self.received = self.last;
    }

    /// With the step that ended last all of a burst of `packets` was done.
    #[inline]
    pub(crate) fn burst_ends(&mut self, measures: &Measures, packets: usize) {
        measures.spans[Span::Residence as usize].add(self.last - self.received, packets as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_spans_have_places_and_names_of_their_own() {
        for (at, step) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, at);
            assert_eq!(Step::ALL.iter().filter(|other| other.name() == step.name()).count(), 1);
        }
        for (at, span) in Span::ALL.iter().enumerate() {
            assert_eq!(*span as usize, at);
            assert_eq!(Span::ALL.iter().filter(|other| other.name() == span.name()).count(), 1);
        }
    }

    #[test]
    fn all_of_the_time_is_some_steps_time() {
        let (measures, mut laps) = (Measures::default(), Laps::new());
        let first = laps.last;
        for &step in Step::ALL {
            laps.lap(&measures, step, 3);
        }
        let sum: u64 = Step::ALL.iter().map(|step| measures.step(*step).clocks.value()).sum();
        assert_eq!(sum, laps.last - first);
        assert!(Step::ALL.iter().all(|step| measures.step(*step).packets.value() == 3));
    }

    #[test]
    fn a_burst_stays_from_its_receipt_to_the_end_of_its_last_step() {
        let (measures, mut laps) = (Measures::default(), Laps::new());
        laps.lap(&measures, Step::RxNetwork, 2);
        laps.burst_begins();
        laps.lap(&measures, Step::Sort, 2);
        laps.lap(&measures, Step::Tx, 2);
        laps.burst_ends(&measures, 2);
        let inside = measures.step(Step::Sort).clocks.value() + measures.step(Step::Tx).clocks.value();
        let residence = measures.span(Span::Residence);
        assert_eq!(residence.highest(), inside);
        assert_eq!(residence.iter().map(|bucket| bucket.count).sum::<u64>(), 2);
    }

    #[test]
    fn the_rate_of_the_counter_is_found() {
        let measures = Measures::default();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(measures.clocks_per_second() > 5e7, "{}", measures.clocks_per_second());
    }
}
