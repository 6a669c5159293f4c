//! What a core's SA shows to other threads, and the bytes it may still protect (R21-R23).

use phalanx_wire::DropReason;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, add};
use crate::{Lifesize, SharedWindow};

/// Counters and windows of one SA on one core: that core alone writes, anybody reads.
///
/// What an inbound SA's good packets count stands beside the window that took them.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SaShared {
    packets: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    replayed: AtomicU64,
    highest: AtomicU64,
    windows: Option<Windows>,
}

/// The two windows of an inbound SA.
#[derive(Debug)]
struct Windows {
    own: Arc<SharedWindow>,
    verified: Arc<SharedWindow>,
}

impl SaShared {
    pub(crate) fn inbound(own: Arc<SharedWindow>, verified: Arc<SharedWindow>) -> SaShared {
        SaShared { windows: Some(Windows { own, verified }), ..SaShared::default() }
    }

    /// Packets protected, or opened and accepted.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed) + self.of_windows(SharedWindow::packets)
    }

    /// Bytes that the cipher was applied to in these packets: payload, padding, trailer (RFC 4301 §4.4.2.1).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.of_windows(SharedWindow::bytes)
    }

    fn of_windows(&self, what: impl Fn(&SharedWindow) -> u64) -> u64 {
        self.windows.as_ref().map_or(0, |windows| what(&windows.own) + what(&windows.verified))
    }

    /// Packets whose ICV was wrong.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Packets whose number was accepted before or too old.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// The highest sequence number that this core sealed with; 0 for inbound SAs.
    #[must_use]
    pub fn highest_sent(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// What this core accepted as a target. None for outbound SAs.
    #[must_use]
    pub fn window(&self) -> Option<&Arc<SharedWindow>> {
        self.windows.as_ref().map(|w| &w.own)
    }

    /// What this core, as a router, knows to have been accepted. None for outbound SAs.
    #[must_use]
    pub fn verified(&self) -> Option<&Arc<SharedWindow>> {
        self.windows.as_ref().map(|w| &w.verified)
    }

    /// A packet was sealed.
    #[inline]
    pub(crate) fn count_sent(&self, bytes: u64) {
        add(&self.packets, 1);
        add(&self.bytes, bytes);
    }

    pub(crate) fn count_failed(&self) {
        add(&self.failed, 1);
    }

    pub(crate) fn count_replayed(&self) {
        add(&self.replayed, 1);
    }

    #[inline]
    pub(crate) fn saw_sent(&self, seq: u64) {
        if seq > self.highest.load(Ordering::Relaxed) {
            self.highest.store(seq, Ordering::Relaxed);
        }
    }
}

/// The bytes that one SA may still protect on this core.
///
/// A core starts with the SA's whole hard limit; where a ledger grants credit (I3), [`LifesizeMeter::set_allowance`]
/// lowers it to what was granted and raises it with each further grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LifesizeMeter {
    used: u64,
    allowance: u64,
    limits: Lifesize,
}

const _: () = assert!(size_of::<LifesizeMeter>() == 32);

impl LifesizeMeter {
    /// Nothing used, everything allowed.
    #[must_use]
    pub const fn new(limits: Lifesize) -> LifesizeMeter {
        LifesizeMeter { used: 0, allowance: limits.hard, limits }
    }

    /// Takes the bytes of one packet.
    ///
    /// # Errors
    /// `HardLifesize` if they are more than what is left; nothing is taken then.
    #[inline]
    pub fn charge(&mut self, bytes: u64) -> Result<(), DropReason> {
        let used = self.used.checked_add(bytes).filter(|used| *used <= self.allowance);
        self.used = used.ok_or(DropReason::HardLifesize)?;
        Ok(())
    }

    /// Bytes used on this core.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Bytes that may still be used.
    #[inline]
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.allowance.saturating_sub(self.used)
    }

    /// This core alone has used up the soft limit.
    #[must_use]
    pub const fn soft_reached(&self) -> bool {
        self.used >= self.limits.soft
    }

    /// From now on this core may use `total` bytes since the SA began, and never more than the hard limit.
    pub const fn set_allowance(&mut self, total: u64) {
        self.allowance = if total < self.limits.hard { total } else { self.limits.hard };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_meter_stops_at_its_hard_limit_exactly() {
        let mut meter = LifesizeMeter::new(Lifesize { soft: 60, hard: 100 });
        assert_eq!(meter.charge(59), Ok(()));
        assert!(!meter.soft_reached());
        assert_eq!(meter.charge(42), Err(DropReason::HardLifesize));
        assert_eq!(meter.charge(41), Ok(()));
        assert!(meter.soft_reached());
        assert_eq!(meter.charge(1), Err(DropReason::HardLifesize));
        assert_eq!(meter.charge(u64::MAX), Err(DropReason::HardLifesize));
        assert_eq!((meter.used(), meter.left()), (100, 0));
    }

    #[test]
    fn credit_lowers_the_limit_and_never_raises_it_above_the_hard_one() {
        let mut meter = LifesizeMeter::new(Lifesize { soft: 60, hard: 100 });
        meter.set_allowance(10);
        assert_eq!(meter.charge(11), Err(DropReason::HardLifesize));
        meter.set_allowance(1000);
        assert_eq!(meter.charge(101), Err(DropReason::HardLifesize));
        assert_eq!(meter.charge(100), Ok(()));
    }
}
