//! Time on a core: read once per round, so that everything in a round happens at the same moment.

use std::time::{Duration, Instant};

/// A moment, counted from the start of its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now {
    since_start: Duration,
    instant: Instant,
}

impl Now {
    /// The moment `instant` on a core that started at `start`.
    pub(crate) fn new(start: Instant, instant: Instant) -> Now {
        Now { since_start: instant.saturating_duration_since(start), instant }
    }

    #[inline]
    pub(crate) fn ms(self) -> u64 {
        self.since_start.as_millis() as u64
    }

    #[inline]
    pub(crate) fn us(self) -> u64 {
        self.since_start.as_micros() as u64
    }

    /// Another moment on the same scale as [`Now::us`].
    pub(crate) fn us_at(self, other: Instant) -> u64 {
        let ahead = other.saturating_duration_since(self.instant).as_micros() as u64;
        let behind = self.instant.saturating_duration_since(other).as_micros() as u64;
        (self.us() + ahead).saturating_sub(behind)
    }

    #[cfg(test)]
    pub(crate) fn from_ms(ms: u64) -> Now {
        let start = Instant::now();
        Now::new(start, start + Duration::from_millis(ms))
    }
}
