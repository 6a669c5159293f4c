//! Counters of a core: written by its loop alone, read by control at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;
use phalanx_wire::DropReason;

use crate::laps::Measures;

/// A count with one writer: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds; only the core that owns it may.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets; only the core that owns it may.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// Where in the loop packets were counted: the index of its counter and its name in status.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Received from a network port.
    RxNetwork,
    /// Received from a link port.
    RxLink,
    /// Received from an application port.
    RxApplication,
    /// Of these, by the fast path.
    SentFast,
    /// Received from the ring of another core.
    RxRing,
    /// Peeked by the router.
    Peeked,
    /// Sent on to a target, still encrypted.
    Forwarded,
    /// Of these, by the router's fast path.
    RoutedFast,
    /// Connection openings (SYNs) that the router opened before it chose a target.
    SynOpened,
    /// ESP packets opened: authentic and accepted by the window.
    Opened,
    /// Of these, by the target's fast path.
    OpenedFast,
    /// ESP packets the router processed itself, as an ordinary endpoint.
    RouterLocal,
    /// Inner packets delivered to an application port.
    Delivered,
    /// ESP packets sealed.
    Sealed,
    /// Packets sent or delivered in clear because a filter permits them.
    ClearPermitted,
    /// Packets put aside until a lease brings sequence numbers.
    HeldForLease,
    /// Packets put aside until a ceiling is durable.
    HeldForCeiling,
    /// Packets put aside until a next hop answers.
    HeldForNeighbour,
    /// Leases taken in.
    Leases,
    /// Leases refused: stale, expired, or one too many.
    LeasesRefused,
    /// ARP and ND packets answered or sent.
    NeighbourSent,
    /// ICMP echoes answered for a port's own address.
    EchoAnswered,
    /// Messages that an ESP packet was too big for a router on its way, handed to control.
    MtuHeard,
    /// Packets of the application that were too big once sealed, answered with an ICMP error.
    TooBigTold,
    /// Packets of the application cut in pieces before they were sealed.
    CutInner,
    /// Sealed packets cut in pieces.
    CutOuter,
    /// Packets put together from fragments.
    Reassembled,
    /// Packets cut into fragments.
    Cut,
    /// NAT keepalives received and ignored.
    NatKeepaliveEaten,
    /// NAT keepalives sent.
    NatKeepaliveSent,
    /// Genuine packets from where their peer was not, told to the router.
    PeerSeen,
    /// Log entries that rules asked for.
    Logged,
    /// Log entries left out because there were too many of late.
    LogsSuppressed,
    /// Connection openings refused because no target listens on the port.
    Refused,
    /// IKE messages handed to control.
    IkeHeard,
    /// IKE messages sent.
    IkeSent,
    /// Packets put aside until all targets have their SA.
    HeldForSa,
    /// First packets of connections put aside until the router knows of them.
    HeldForConnection,
}

impl Stage {
    /// All of them, in the order of their counters.
    pub const ALL: &[Stage] = &[
        Stage::RxNetwork,
        Stage::RxLink,
        Stage::RxApplication,
        Stage::SentFast,
        Stage::RxRing,
        Stage::Peeked,
        Stage::Forwarded,
        Stage::RoutedFast,
        Stage::SynOpened,
        Stage::Opened,
        Stage::OpenedFast,
        Stage::RouterLocal,
        Stage::Delivered,
        Stage::Sealed,
        Stage::ClearPermitted,
        Stage::HeldForLease,
        Stage::HeldForCeiling,
        Stage::HeldForNeighbour,
        Stage::Leases,
        Stage::LeasesRefused,
        Stage::NeighbourSent,
        Stage::EchoAnswered,
        Stage::MtuHeard,
        Stage::TooBigTold,
        Stage::CutInner,
        Stage::CutOuter,
        Stage::Reassembled,
        Stage::Cut,
        Stage::NatKeepaliveEaten,
        Stage::NatKeepaliveSent,
        Stage::PeerSeen,
        Stage::Logged,
        Stage::LogsSuppressed,
        Stage::Refused,
        Stage::IkeHeard,
        Stage::IkeSent,
        Stage::HeldForSa,
        Stage::HeldForConnection,
    ];
    /// How many there are.
    pub const COUNT: usize = Stage::ALL.len();

    /// Its name in status.
    pub fn name(self) -> &'static str {
        match self {
            Stage::RxNetwork => "rx-network",
            Stage::RxLink => "rx-link",
            Stage::RxApplication => "rx-application",
            Stage::SentFast => "sent-fast",
            Stage::RxRing => "rx-ring",
            Stage::Peeked => "peeked",
            Stage::Forwarded => "forwarded",
            Stage::RoutedFast => "routed-fast",
            Stage::SynOpened => "syn-opened",
            Stage::Opened => "opened",
            Stage::OpenedFast => "opened-fast",
            Stage::RouterLocal => "router-local",
            Stage::Delivered => "delivered",
            Stage::Sealed => "sealed",
            Stage::ClearPermitted => "clear-permitted",
            Stage::HeldForLease => "held-for-lease",
            Stage::HeldForCeiling => "held-for-ceiling",
            Stage::HeldForNeighbour => "held-for-neighbour",
            Stage::Leases => "leases",
            Stage::LeasesRefused => "leases-refused",
            Stage::NeighbourSent => "neighbour-sent",
            Stage::EchoAnswered => "echo-answered",
            Stage::Logged => "logged",
            Stage::LogsSuppressed => "logs-suppressed",
            Stage::MtuHeard => "mtu-heard",
            Stage::TooBigTold => "too-big-told",
            Stage::CutInner => "cut-inner",
            Stage::CutOuter => "cut-outer",
            Stage::Reassembled => "reassembled",
            Stage::Cut => "cut",
            Stage::NatKeepaliveEaten => "nat-keepalive-eaten",
            Stage::NatKeepaliveSent => "nat-keepalive-sent",
            Stage::PeerSeen => "peer-seen",
            Stage::Refused => "refused",
            Stage::IkeHeard => "ike-heard",
            Stage::IkeSent => "ike-sent",
            Stage::HeldForSa => "held-for-sa",
            Stage::HeldForConnection => "held-for-connection",
        }
    }
}

/// What a core counts about one port.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx: Count,
    /// Bytes of them.
    pub rx_bytes: Count,
    /// Frames handed to the driver.
    pub tx: Count,
    /// Bytes of them.
    pub tx_bytes: Count,
    /// Frames the driver did not take.
    pub tx_full: Count,
}

/// Everything one core counts.
#[derive(Debug)]
pub struct CoreStats {
    drops: Box<[CachePadded<Count>]>,
    stages: Box<[CachePadded<Count>]>,
    /// By port index; ports of other cores stay 0.
    pub ports: Box<[CachePadded<PortStats>]>,
    /// Rounds of the loop.
    pub loops: CachePadded<Count>,
    /// Rounds that brought nothing.
    pub idle: CachePadded<Count>,
    /// Events that found the queue to control full and were lost; none may be: after one, ask for a dump.
    pub events_lost: CachePadded<Count>,
    /// Connections in the router's table.
    pub connections: CachePadded<Count>,
    /// Connections this core follows as a target.
    pub tracked: CachePadded<Count>,
    /// Packets that passed unwatched because whoever reads the notes was behind.
    pub unwatched: CachePadded<Count>,
    /// Packets that wait for a lease now.
    pub waiting: CachePadded<Count>,
    /// Where its time goes.
    pub measures: Measures,
}

impl CoreStats {
    pub(crate) fn new(ports: usize) -> CoreStats {
        let counts = |n| (0..n).map(|_| CachePadded::default()).collect();
        CoreStats {
            drops: counts(DropReason::COUNT),
            stages: counts(Stage::COUNT),
            ports: (0..ports).map(|_| CachePadded::default()).collect(),
            loops: CachePadded::default(),
            idle: CachePadded::default(),
            events_lost: CachePadded::default(),
            connections: CachePadded::default(),
            tracked: CachePadded::default(),
            unwatched: CachePadded::default(),
            waiting: CachePadded::default(),
            measures: Measures::default(),
        }
    }

    /// Packets dropped for a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].value()
    }

    /// Packets counted at a stage.
    pub fn stage(&self, stage: Stage) -> u64 {
        self.stages[stage as usize].value()
    }

    #[inline]
    pub(crate) fn dropped(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    #[inline]
    pub(crate) fn passed(&self, stage: Stage, n: u64) {
        self.stages[stage as usize].add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_own_counter_and_name() {
        let stats = CoreStats::new(1);
        for (at, &stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage as usize, at);
            stats.passed(stage, at as u64 + 1);
        }
        for (at, &stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stats.stage(stage), at as u64 + 1);
            assert_eq!(Stage::ALL.iter().filter(|other| other.name() == stage.name()).count(), 1);
        }
    }

    #[test]
    fn every_drop_reason_has_its_own_counter() {
        let stats = CoreStats::new(0);
        for &reason in DropReason::ALL {
            stats.dropped(reason, 1);
        }
        assert!(DropReason::ALL.iter().all(|&reason| stats.drops(reason) == 1));
    }
}
