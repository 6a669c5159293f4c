//! The numbers one core holds for one outbound SA: the lease in use and the next one, each with its deadline (R18).
//!
//! A number that is sent late is a packet lost: the peer's window has moved on. So a lease is good for a time only, and
//! what is left of it then is thrown away. Time is in microseconds of any clock that does not go backwards.

use crate::{Lease, SeqNo};

/// A request that was not answered is repeated after this long.
const RETRY_US: u64 = 50_000;
/// Nobody took a number for this long: the SA is idle, and its leases run out unrenewed.
const IDLE_US: u64 = 10_000;
/// A packet that found no number keeps the SA asking for this long.
const STARVED_US: u64 = 1_000_000;
/// The rate is measured over at least this long.
const RATE_US: u64 = 2_000;
/// Numbers are asked for to last so long: a control core that has a thousand SAs to set up may answer late, and what an SA's window has no
/// room for is not given anyway.
const SPAN_US: u64 = 20_000;
/// Fewer numbers than this are not worth a message.
const LEAST_WANT: u32 = 16;
/// More at once is never asked for.
const MOST_WANT: u32 = 1 << 16;

/// Ask the sequencer: what `Event::LeaseWanted` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// How many numbers.
    pub want: u32,
    /// Every number below this is used or thrown away.
    pub done_below: u64,
    /// Packets per second of late.
    pub rate: u32,
}

/// Why an offered lease was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It begins below a number that was held before: a repeated or delayed reply, or worse.
    Stale,
    /// Its time is over already.
    Expired,
    /// Two leases are held.
    Full,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// How many numbers it had at first.
    len: u64,
    /// Half of its time is over then.
    renew_at: u64,
    until: u64,
}

/// The leases of one outbound SA on one core. What each packet reads comes first: two cache lines.
#[derive(Debug, Default)]
#[repr(C)]
pub struct LeaseSlot {
    current: Option<Held>,
    rate: Rate,
    requested_at: Option<u64>,
    starved_at: Option<u64>,
    latency_us: u64,
    /// How far answers are from that, on average.
    spread_us: u64,
    next: Option<Held>,
    /// Every number ever offered and believed is below this.
    ceiling: u64,
    thrown_away: u64,
    refused: u64,
}

impl LeaseSlot {
    /// Holds nothing.
    #[must_use]
    pub fn new() -> LeaseSlot {
        LeaseSlot::default()
    }

    /// A slot whose SA already used every number below `first` on this core: a lease below is refused.
    #[must_use]
    pub fn above(first: u64) -> LeaseSlot {
        LeaseSlot { ceiling: first, ..LeaseSlot::default() }
    }

    /// The number for the packet that is about to be sealed. `None`: hold the packet, and see [`LeaseSlot::wants`].
    #[inline]
    pub fn take(&mut self, now: u64) -> Option<SeqNo> {
        loop {
            let Some(held) = &mut self.current else {
                self.starved_at = Some(now);
                return None;
            };
            if now < held.until
                && let Some(seq) = held.lease.take()
            {
                self.rate.count(now);
                return Some(seq);
            }
            self.drop_current();
        }
    }

    /// Takes over a lease that may be used until `valid_until`; for a lease that is valid for some time, that is the
    /// time since its request was sent ([`LeaseSlot::requested_at`]), as its reply may have been long on its way.
    ///
    /// # Errors
    /// The lease is thrown away then, unused.
    pub fn offer(&mut self, now: u64, lease: Lease, valid_until: u64) -> Result<(), Refusal> {
        // ARCHITECTURE, "Outbound sequence numbers": a target accepts only numbers above all it ever had.
        if lease.first() < self.ceiling {
            self.refused += 1;
            return Err(Refusal::Stale);
        }
        self.ceiling = lease.end();
        let asked = self.requested_at.take();
        self.starved_at = None;
        if let Some(at) = asked {
            let took = now.saturating_sub(at);
            let first = self.latency_us == 0;
            self.spread_us = if first { took / 4 } else { (3 * self.spread_us + took.abs_diff(self.latency_us)) / 4 };
            self.latency_us = if first { took } else { (3 * self.latency_us + took) / 4 };
        }
        let (len, until) = (lease.remaining(), valid_until);
        let refusal = if now >= until {
            Refusal::Expired
        } else {
            let held = Held { lease, len, renew_at: now.midpoint(until), until };
            let place = if self.current.is_none() { &mut self.current } else { &mut self.next };
            if place.is_none() {
                *place = Some(held);
                return Ok(());
            }
            Refusal::Full
        };
        self.thrown_away += len;
        Err(refusal)
    }

    /// When the request that is still unanswered was sent.
    #[must_use]
    pub fn requested_at(&self) -> Option<u64> {
        self.requested_at
    }

    /// Throws away what is past its time.
    pub fn age(&mut self, now: u64) {
        while self.current.as_ref().is_some_and(|held| now >= held.until) {
            self.drop_current();
        }
        if self.next.as_ref().is_some_and(|held| now >= held.until) {
            let held = self.next.take();
            self.thrown_away += held.map_or(0, |h| h.lease.remaining());
        }
    }

    /// Throws away everything, as when the epoch changed.
    pub fn clear(&mut self) {
        self.drop_current();
        self.drop_current();
        self.requested_at = None;
    }

    /// Whether to ask for numbers now. Once it said so it stays silent until a lease is offered or time for a retry.
    pub fn wants(&mut self, now: u64) -> Option<Want> {
        self.age(now);
        if self.requested_at.is_some_and(|at| now.saturating_sub(at) < RETRY_US) || self.next.is_some() {
            return None;
        }
        let starved = self.starved_at.is_some_and(|at| now.saturating_sub(at) < STARVED_US);
        if !starved && !self.runs_low(now) {
            return None;
        }
        self.requested_at = Some(now);
        Some(Want {
            want: self.ahead((self.answered_within() + RATE_US).max(SPAN_US)),
            done_below: self.done_below(),
            rate: self.rate.pps,
        })
    }

    /// The numbers below this are used or thrown away.
    #[must_use]
    pub fn done_below(&self) -> u64 {
        let held = self.current.as_ref().or(self.next.as_ref());
        held.map_or(self.ceiling, |held| held.lease.first())
    }

    /// How many numbers are held.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        [&self.current, &self.next].into_iter().flatten().map(|held| held.lease.remaining()).sum()
    }

    /// How many numbers were thrown away because their time was over.
    #[must_use]
    pub fn thrown_away(&self) -> u64 {
        self.thrown_away
    }

    /// How many leases were refused because they were not above all others.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The lease in use is nearly used up, or its time nearly over, and somebody uses it.
    fn runs_low(&self, now: u64) -> bool {
        let Some(held) = &self.current else { return false };
        if self.rate.idle(now) {
            return false;
        }
        let left = held.lease.remaining();
        left <= held.len / 2
            || now >= held.renew_at
            || left <= self.uses(self.answered_within()).min(held.len)
            || held.until - now <= self.answered_within()
    }

    /// The time in which an answer is nearly always here: a control core with much to do answers now soon, now late (RFC 6298 §2
    /// reckons the same way).
    fn answered_within(&self) -> u64 {
        self.latency_us + self.latency_us.max(4 * self.spread_us)
    }

    /// How many numbers the rate uses in that time.
    fn uses(&self, us: u64) -> u64 {
        u64::from(self.rate.pps).saturating_mul(us).div_ceil(1_000_000)
    }

    /// How many to ask for, for that time.
    fn ahead(&self, us: u64) -> u32 {
        u32::try_from(self.uses(us)).unwrap_or(MOST_WANT).clamp(LEAST_WANT, MOST_WANT)
    }

    fn drop_current(&mut self) {
        let held = self.current.take();
        self.thrown_away += held.map_or(0, |h| h.lease.remaining());
        self.current = self.next.take();
    }
}

/// Packets per second, over the last few milliseconds in which there were any.
#[derive(Debug, Default)]
struct Rate {
    since: u64,
    taken: u32,
    last: u64,
    pps: u32,
}

impl Rate {
    #[inline]
    fn count(&mut self, now: u64) {
        if self.idle(now) {
            (self.since, self.taken) = (now, 0);
        }
        self.last = now;
        self.taken += 1;
        let elapsed = now - self.since;
        if elapsed >= RATE_US {
            let pps = u64::from(self.taken) * 1_000_000 / elapsed;
            self.pps = u32::try_from((u64::from(self.pps) + pps) / 2).unwrap_or(u32::MAX);
            (self.since, self.taken) = (now, 0);
        }
    }

    fn idle(&self, now: u64) -> bool {
        now.saturating_sub(self.last) >= IDLE_US
    }
}
