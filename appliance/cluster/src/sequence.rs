//! The sequence of one outbound SA: its grants, its live blocks and who waits. The rules of [`crate::sequencer`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use phalanx_ipsec::{Grant, Lease, SEQUENCE_LIMIT};

use crate::coupling::CouplingError;
use crate::messages::LeaseRefusal;
use crate::sequencer::{GrantOutcome, Holder, Reply, Request, SequenceStatus, SequencerConfig, block_size, predict};

/// Exclusive end of the numbers of an SA without 64-bit numbers (RFC 4303 §3.3.3).
const LIMIT_32: u64 = 1 << 32;
/// Exclusive end of 64-bit numbers.
const LIMIT_64: u64 = SEQUENCE_LIMIT;
/// A holder without blocks is forgotten after so many times `active_us`.
const FORGET_AFTER: u64 = 60;

/// Numbers that somebody may still send.
#[derive(Debug)]
struct Block {
    first: u64,
    end: u64,
    holder: Holder,
    expires: u64,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    /// When this request came, and when the first of those that it replaced.
    at: u64,
    since: u64,
}

#[derive(Debug)]
struct HolderState {
    incarnation: u64,
    nonce: u64,
    asked_at: u64,
    rate_pps: u32,
    latency_us: u32,
}

/// One outbound SA.
#[derive(Debug)]
pub(crate) struct Sequence {
    key: Arc<str>,
    limit: u64,
    window: u32,
    grants: VecDeque<Grant>,
    /// Nothing at or above was handed out.
    handed_below: u64,
    /// A node told of this number before we handed it out.
    seen: u64,
    asked: bool,
    ask_size: u64,
    ask_at: u64,
    granted_once: bool,
    no_more: bool,
    behind: bool,
    /// Numbers are given.
    open: bool,
    quiet_until: u64,
    live: VecDeque<Block>,
    waiting: VecDeque<Waiting>,
    holders: BTreeMap<Holder, HolderState>,
    blocks: u64,
}

impl Sequence {
    pub(crate) fn new(key: Arc<str>, esn: bool, window: u32) -> Self {
        Self {
            key,
            limit: if esn { LIMIT_64 } else { LIMIT_32 },
            window: window.max(1),
            grants: VecDeque::new(),
            handed_below: 0,
            seen: 0,
            asked: false,
            ask_size: 0,
            ask_at: 0,
            granted_once: false,
            no_more: false,
            behind: false,
            open: true,
            quiet_until: 0,
            live: VecDeque::new(),
            waiting: VecDeque::new(),
            holders: BTreeMap::new(),
            blocks: 0,
        }
    }

    /// See [`crate::Sequencer::hold`].
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Takes a request; false: it is a repetition or the limit of holders is reached.
    pub(crate) fn request(&mut self, request: Request, now: u64, config: &SequencerConfig) -> bool {
        if let Some(known) = self.holders.get(&request.holder) {
            // A repeated or delayed request must neither burn numbers nor replace a newer one.
            if known.incarnation == request.incarnation && request.nonce <= known.nonce {
                return false;
            }
        } else if self.holders.len() >= config.holders_max {
            return false;
        }
        let state = HolderState {
            incarnation: request.incarnation,
            nonce: request.nonce,
            asked_at: now,
            rate_pps: request.rate_pps,
            latency_us: request.latency_us,
        };
        self.holders.insert(request.holder, state);
        for block in self.live.iter_mut().filter(|block| block.holder == request.holder) {
            block.first = block.first.max(request.done_below.min(block.end));
        }
        if request.want == 0 {
            self.waiting.retain(|waiting| waiting.request.holder != request.holder);
            return true;
        }
        // One waiting request per holder: a newer one replaces the older, in its place.
        match self.waiting.iter_mut().find(|waiting| waiting.request.holder == request.holder) {
            Some(waiting) => *waiting = Waiting { request, at: now, since: waiting.since },
            None => self.waiting.push_back(Waiting { request, at: now, since: now }),
        }
        true
    }

    /// Takes the coupling facility's answer.
    pub(crate) fn grant(
        &mut self,
        result: Result<Range<u64>, CouplingError>,
        now: u64,
        config: &SequencerConfig,
    ) -> GrantOutcome {
        if !std::mem::take(&mut self.asked) {
            return GrantOutcome::Unwanted;
        }
        let Ok(range) = result else {
            self.ask_at = now + config.grant_retry_us;
            return GrantOutcome::Unwanted;
        };
        // The first packet of an SA has number 1 (RFC 4303 §2.2).
        let (first, end) = (range.start.max(1), range.end.min(self.limit));
        if first >= end {
            self.no_more = true;
            return GrantOutcome::Exhausted;
        }
        self.no_more = end == self.limit;
        let granted_below = self.grants.back().map_or(self.handed_below, Grant::end);
        if first < granted_below || first <= self.seen {
            // I1: numbers that were given before. The store is another one, or an old copy of it.
            self.behind = true;
            self.grants.clear();
            return GrantOutcome::StoreBehind;
        }
        if !self.granted_once && first > 1 {
            // Blocks of an earlier boot may still be in use: their numbers would come late if we started at once.
            self.quiet_until = now + config.valid_cap_us + config.transit_slack_us;
        }
        self.granted_once = true;
        self.grants.push_back(Grant::new(first, end));
        GrantOutcome::Taken
    }

    /// A node holds or held `number`. True if that shows that the store is behind (I1).
    pub(crate) fn note_seen(&mut self, number: u64) -> bool {
        let ours = if self.granted_once { self.handed_below } else { u64::MAX };
        let not_ours = self.granted_once && number >= self.next().unwrap_or(ours).max(ours);
        if !self.granted_once {
            self.seen = self.seen.max(number);
        }
        if not_ours {
            self.behind = true;
            self.grants.clear();
        }
        not_ours
    }

    /// Answers whoever can be answered now.
    pub(crate) fn serve(&mut self, now: u64, config: &SequencerConfig, mut reply: impl FnMut(Request, u64, Answer)) {
        self.live.retain(|block| block.first < block.end && now < block.expires);
        while let Some(front) = self.waiting.front() {
            let (request, at) = (front.request, front.at);
            let answer = if self.behind {
                Err(LeaseRefusal::StoreBehind)
            } else if let Some(next) = self.next() {
                let room = self.room(next, request.want, now, config);
                let Some(block) = room.and_then(|n| self.hand_out(n, &request, now, config)) else {
                    break;
                };
                Ok(block)
            } else if self.no_more && !self.asked {
                Err(LeaseRefusal::Exhausted)
            } else {
                break;
            };
            self.waiting.pop_front();
            reply(request, now - at, answer);
        }
    }

    /// Requests that waited too long. Those that the store keeps waiting are told so.
    pub(crate) fn expire(&mut self, now: u64, config: &SequencerConfig, mut reply: impl FnMut(Request, u64, Answer)) {
        let starving = self.grants.is_empty();
        while let (true, Some(front)) = (self.open, self.waiting.front()) {
            if now < front.since + config.waiting_us {
                break;
            }
            let (request, at) = (front.request, front.at);
            self.waiting.pop_front();
            if starving {
                reply(request, now - at, Err(LeaseRefusal::NoCoupling));
            }
        }
        let forget = config.active_us * FORGET_AFTER;
        let live = &self.live;
        self.holders
            .retain(|holder, state| now < state.asked_at + forget || live.iter().any(|block| block.holder == *holder));
    }

    /// The node is gone: nobody waits there. Its blocks stay live until they age out, for its packets may be under way.
    pub(crate) fn holder_gone(&mut self, node: u16) {
        self.waiting.retain(|waiting| waiting.request.holder.node != node);
        self.holders.retain(|holder, _| holder.node != node);
    }

    /// The next grant to ask for: the first at once, then as soon as half of the last one is used.
    pub(crate) fn grant_wanted(&mut self, now: u64, config: &SequencerConfig) -> Option<(Arc<str>, u64, u64)> {
        if self.asked || self.no_more || self.behind || now < self.ask_at || self.remaining() > self.ask_size / 2 {
            return None;
        }
        let span = self.rate_pps(now, config).saturating_mul(config.grant_span_us) / 1_000_000;
        self.ask_size = span.clamp(config.grant_min, config.grant_max).next_power_of_two();
        self.asked = true;
        Some((Arc::clone(&self.key), self.ask_size, self.limit))
    }

    /// When to call `serve`, `expire` or `grant_wanted` again without being asked.
    pub(crate) fn deadline(&self, config: &SequencerConfig) -> Option<u64> {
        let retry = (!self.asked && self.ask_at > 0 && self.grants.is_empty() && !self.no_more && !self.behind)
            .then_some(self.ask_at);
        let front = self.waiting.front().filter(|_| self.open).map(|front| {
            let expiry = self.live.iter().map(|block| block.expires).min().unwrap_or(u64::MAX);
            // While quiet, nothing else can help.
            expiry.max(self.quiet_until).min(front.since + config.waiting_us)
        });
        [retry, front].into_iter().flatten().min()
    }

    pub(crate) fn status(&self, now: u64, config: &SequencerConfig) -> SequenceStatus {
        let active = self.active(now, config);
        let latency = self.holders.values().map(|state| state.latency_us).max().unwrap_or(0);
        SequenceStatus {
            next: self.next(),
            granted: self.remaining(),
            live: self.live.iter().filter(|block| block.first < block.end && now < block.expires).count(),
            waiting: self.waiting.len(),
            blocks: self.blocks,
            exhausted: self.no_more && self.grants.is_empty(),
            store_behind: self.behind,
            prediction: predict(self.window, active, latency, self.rate_pps(now, config)),
        }
    }

    /// Whether the counter is placed in the coupling facility, or never will be (R3).
    pub(crate) fn placed(&self) -> bool {
        self.granted_once || self.no_more || self.behind
    }

    fn next(&self) -> Option<u64> {
        self.grants.front().map(Grant::first)
    }

    fn remaining(&self) -> u64 {
        self.grants.iter().map(Grant::remaining).sum()
    }

    fn active(&self, now: u64, config: &SequencerConfig) -> u32 {
        let active = self.holders.values().filter(|state| now < state.asked_at + config.active_us).count();
        u32::try_from(active).unwrap_or(u32::MAX)
    }

    fn rate_pps(&self, now: u64, config: &SequencerConfig) -> u64 {
        let active = self.holders.values().filter(|state| now < state.asked_at + config.active_us);
        active.map(|state| u64::from(state.rate_pps)).sum()
    }

    /// How many numbers from `next` may be handed out now so that none can be late at the peer; None: wait.
    fn room(&self, next: u64, want: u32, now: u64, config: &SequencerConfig) -> Option<u64> {
        if !self.open || now < self.quiet_until || self.live.len() >= config.live_max {
            return None;
        }
        let want = u64::from(want.min(block_size(self.window, self.active(now, config))));
        // For what is on its way: a holder is done with a number when it seals, and a busy machine may send much later.
        let margin = u64::from(self.window / 4);
        // `live` is in the order of its numbers: the front has the oldest.
        let oldest = self.live.front().map_or(next, |block| block.first);
        let bound = oldest.saturating_add(u64::from(self.window) - margin);
        let room = bound.saturating_sub(next);
        // Crumbs would cost a round trip each: rather wait until a block dies.
        (room >= want.div_ceil(2).max(1)).then(|| room.min(want))
    }

    fn hand_out(&mut self, n: u64, request: &Request, now: u64, config: &SequencerConfig) -> Option<(Lease, u32)> {
        let grant = self.grants.front_mut()?;
        let lease = grant.take(u32::try_from(n).unwrap_or(u32::MAX))?;
        if grant.remaining() == 0 {
            self.grants.pop_front();
        }
        let valid = self.valid_for(n, request, now, config);
        self.handed_below = lease.end();
        self.blocks += 1;
        let expires = now + valid + config.transit_slack_us;
        self.live.push_back(Block { first: lease.first(), end: lease.end(), holder: request.holder, expires });
        Some((lease, u32::try_from(valid).unwrap_or(u32::MAX)))
    }

    /// A block of `n` ages out by the time the SA moves on by a quarter of the window; the reply's way comes on top.
    ///
    /// One that is little of the window keeps nobody from sending: it lasts longer in the hands of a slow sender, or a late answer to
    /// its next request would keep packets waiting.
    fn valid_for(&self, n: u64, request: &Request, now: u64, config: &SequencerConfig) -> u64 {
        let quarter = u64::from(self.window / 4) * 1_000_000 / self.rate_pps(now, config).max(1);
        let twice_used = (2 * n * 1_000_000).checked_div(u64::from(request.rate_pps)).unwrap_or(0);
        let most = if n <= u64::from(self.window / 8) { config.valid_slow_us } else { config.valid_max_us };
        let valid = twice_used.clamp(config.valid_max_us, most).min(quarter).max(config.valid_min_us);
        (valid + 2 * u64::from(request.latency_us)).min(config.valid_cap_us)
    }
}

/// What a request gets.
pub(crate) type Answer = Result<(Lease, u32), LeaseRefusal>;

/// A reply out of a request and its answer.
pub(crate) fn reply_to(request: Request, waited: u64, result: Answer) -> Reply {
    Reply {
        sa: request.sa,
        holder: request.holder,
        nonce: request.nonce,
        incarnation: request.incarnation,
        waited_us: u32::try_from(waited).unwrap_or(u32::MAX),
        result,
    }
}
