//! What a core's SA shows to other threads, and the bytes it may still protect (R21-R23).

use phalanx_wire::DropReason;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, add};
use crate::{Lifesize, Role, SharedWindow, SharedWindows};

/// Counters and windows of one SA on one core: that core alone writes, anybody reads.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SaShared {
    packets: AtomicU64,
    bytes: AtomicU64,
    highest: AtomicU64,
    failed: AtomicU64,
    replayed: AtomicU64,
    /// Of an inbound SA.
    windows: Option<Arc<SharedWindows>>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SaShared>() == 64);

impl SaShared {
    pub(crate) fn inbound(windows: Arc<SharedWindows>) -> SaShared {
        SaShared { windows: Some(windows), ..SaShared::default() }
    }

    /// Packets protected, or opened and accepted.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Bytes that the cipher was applied to in these packets: payload, padding, trailer (RFC 4301 §4.4.2.1).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
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
    pub fn window(&self) -> Option<&SharedWindow> {
        self.windows.as_ref().map(|windows| windows.of(Role::Target))
    }

    /// What this core, as a router, knows to have been accepted. None for outbound SAs.
    #[must_use]
    pub fn verified(&self) -> Option<&SharedWindow> {
        self.windows.as_ref().map(|windows| windows.of(Role::Router))
    }

    /// So many packets were sealed, or opened and accepted.
    #[inline]
    pub(crate) fn count(&self, packets: u64, bytes: u64) {
        add(&self.packets, packets);
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

/// The bytes that one SA may still protect on this core: up to its hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LifesizeMeter {
    used: u64,
    hard: u64,
}

impl LifesizeMeter {
    /// Nothing used yet.
    #[must_use]
    pub const fn new(limits: Lifesize) -> LifesizeMeter {
        LifesizeMeter { used: 0, hard: limits.hard }
    }

    /// Takes the bytes of one packet.
    ///
    /// # Errors
    /// `HardLifesize` if they are more than what is left; nothing is taken then.
    #[inline]
    pub fn charge(&mut self, bytes: u64) -> Result<(), DropReason> {
        let used = self.used.checked_add(bytes).filter(|used| *used <= self.hard);
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
        self.hard.saturating_sub(self.used)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_meter_stops_at_its_hard_limit_exactly() {
        let mut meter = LifesizeMeter::new(Lifesize { soft: 60, hard: 100 });
        assert_eq!(meter.charge(59), Ok(()));
        assert_eq!(meter.charge(42), Err(DropReason::HardLifesize));
        assert_eq!(meter.charge(41), Ok(()));
        assert_eq!(meter.charge(1), Err(DropReason::HardLifesize));
        assert_eq!(meter.charge(u64::MAX), Err(DropReason::HardLifesize));
        assert_eq!((meter.used(), meter.left()), (100, 0));
    }
}
