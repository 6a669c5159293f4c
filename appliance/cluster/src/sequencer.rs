//! The sequencer: tier 2 of outbound sequence numbers (ARCHITECTURE, "Outbound sequence numbers"; R18, I1).
//!
//! It takes large grants from the coupling facility and hands small blocks to *holders*: cores of targets and of the
//! router itself. Beyond uniqueness it keeps one promise to the peer's replay window `W`: **no number is late**. A block
//! is *live* until its holder says that it will send nothing below some number, or until it aged out; a number is handed
//! out only if it lies within `W` less a margin of the oldest live one. So whoever sends with the oldest live number still
//! finds it inside the peer's window, however uneven the senders are.
//!
//! sans-IO: `request` / `grant` / `expire` in, `poll_reply` / `poll_grant_wanted` / `next_deadline` out; µs everywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use phalanx_ipsec::Lease;
use phalanx_wire::{CoreId, SaId};

use crate::coupling::CouplingError;
use crate::error::ClusterError;
use crate::messages::LeaseRefusal;
use crate::sequence::{Sequence, reply_to};

/// Who may hold a block: one core of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder {
    /// The node: its place in the router's list, or [`Holder::LOCAL`].
    pub node: u16,
    /// Its core.
    pub core: CoreId,
}

impl Holder {
    /// The router's own node.
    pub const LOCAL: u16 = u16::MAX;

    /// A core of the router itself.
    #[must_use]
    pub fn local(core: CoreId) -> Self {
        Self { node: Self::LOCAL, core }
    }
}

/// Sizes and times; the defaults suit a cluster whose control channel answers in milliseconds.
#[derive(Debug, Clone)]
pub struct SequencerConfig {
    /// The smallest grant taken from the coupling facility.
    pub grant_min: u64,
    /// The largest.
    pub grant_max: u64,
    /// A grant should last this long at the measured rate.
    pub grant_span_us: u64,
    /// A block is valid at least this long …
    pub valid_min_us: u64,
    /// … and at most this long, before what the way of the reply takes is added …
    pub valid_max_us: u64,
    /// … or this long, where a slow sender has a small part of the window …
    pub valid_slow_us: u64,
    /// … and never longer than this. A restarted router is quiet for so long (and the slack).
    pub valid_cap_us: u64,
    /// From a number's last permitted use to its arrival at the peer.
    pub transit_slack_us: u64,
    /// A request waits at most this long.
    pub waiting_us: u64,
    /// A holder that did not ask for so long shares no window any more.
    pub active_us: u64,
    /// How long to wait before a failed grant is asked for again.
    pub grant_retry_us: u64,
    /// SAs at most.
    pub sas_max: usize,
    /// Holders per SA at most.
    pub holders_max: usize,
    /// Live blocks per SA at most.
    pub live_max: usize,
}

impl Default for SequencerConfig {
    fn default() -> Self {
        Self {
            grant_min: 4096,
            grant_max: 1 << 24,
            grant_span_us: 10_000_000,
            valid_min_us: 2_000,
            valid_max_us: 20_000,
            valid_slow_us: 60_000,
            valid_cap_us: 200_000,
            transit_slack_us: 5_000,
            waiting_us: 100_000,
            active_us: 1_000_000,
            grant_retry_us: 100_000,
            sas_max: 65_536,
            holders_max: 1024,
            live_max: 4096,
        }
    }
}

/// What a holder asks; see [`crate::messages::LeaseRequest`] for the meaning of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The outbound SA.
    pub sa: SaId,
    /// Who asks.
    pub holder: Holder,
    /// Greater than in every earlier request of this holder's boot.
    pub nonce: u64,
    /// The holder's boot: its nonces start anew with it.
    pub incarnation: u64,
    /// How many numbers.
    pub want: u32,
    /// The holder will never again send a number below this one.
    pub done_below: u64,
    /// Packets per second.
    pub rate_pps: u32,
    /// The way of a request and its answer, µs.
    pub latency_us: u32,
}

/// An answer to one [`Request`].
#[derive(Debug)]
pub struct Reply {
    /// The SA.
    pub sa: SaId,
    /// Who asked.
    pub holder: Holder,
    /// The request's nonce.
    pub nonce: u64,
    /// The holder's boot.
    pub incarnation: u64,
    /// How long it waited, µs.
    pub waited_us: u32,
    /// The numbers and for how long they are valid from now on (µs), or why there are none.
    pub result: Result<(Lease, u32), LeaseRefusal>,
}

/// A grant to be taken from the coupling facility by `fetch_add(key, n, limit)`, then [`Sequencer::grant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantWanted {
    /// The SA.
    pub sa: SaId,
    /// Its counter.
    pub key: Arc<str>,
    /// How many numbers.
    pub n: u64,
    /// Exclusive end of all numbers of this SA.
    pub limit: u64,
}

/// What came of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantOutcome {
    /// It is in use.
    Taken,
    /// There are no more numbers: the SA will stop.
    Exhausted,
    /// The store gave numbers that may have been used already: it was lost or restored. The SA is refused (I1).
    StoreBehind,
    /// No such SA any more, or it was not asked for.
    Unwanted,
}

/// What fits a peer's window, for `status`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The peer's window.
    pub window: u32,
    /// Holders that share it.
    pub holders: u32,
    /// Numbers per block.
    pub block: u32,
    /// How long a refill takes, µs.
    pub latency_us: u32,
    /// Packets per second that can be sent on the SA.
    pub fits_pps: u64,
    /// Packets per second that are sent.
    pub measured_pps: u64,
}

impl Prediction {
    /// Whether what is sent fits.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.measured_pps <= self.fits_pps
    }
}

/// Refill latency assumed until one was measured.
const LATENCY_UNKNOWN_US: u32 = 2_000;

/// The largest block that `holders` may have of a window (ARCHITECTURE: active senders × block ≤ W / 2).
#[must_use]
pub fn block_size(window: u32, holders: u32) -> u32 {
    (window / 2 / holders.max(1)).max(1)
}

/// Predicts what fits: half the window is on loan at any time, and each loan takes one refill.
#[must_use]
pub fn predict(window: u32, holders: u32, latency_us: u32, measured_pps: u64) -> Prediction {
    let holders = holders.max(1);
    let latency_us = if latency_us == 0 { LATENCY_UNKNOWN_US } else { latency_us };
    let block = block_size(window, holders);
    let fits_pps = u64::from(block) * u64::from(holders) * 1_000_000 / u64::from(latency_us);
    Prediction { window, holders, block, latency_us, fits_pps, measured_pps }
}

/// State of one SA, for `status`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceStatus {
    /// The next number to hand out, if any grant is there.
    pub next: Option<u64>,
    /// Numbers left in the grants.
    pub granted: u64,
    /// Live blocks.
    pub live: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Blocks handed out.
    pub blocks: u64,
    /// No numbers are left at all.
    pub exhausted: bool,
    /// The store was behind.
    pub store_behind: bool,
    /// What fits.
    pub prediction: Prediction,
}

/// The sequencer of a router. See the module.
#[derive(Debug)]
pub struct Sequencer {
    config: SequencerConfig,
    sequences: BTreeMap<SaId, Sequence>,
    deadlines: BTreeSet<(u64, SaId)>,
    scheduled: BTreeMap<SaId, u64>,
    replies: VecDeque<Reply>,
    wanted: VecDeque<GrantWanted>,
}

impl Sequencer {
    /// A sequencer without SAs.
    #[must_use]
    pub fn new(config: SequencerConfig) -> Self {
        Self {
            config,
            sequences: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            replies: VecDeque::new(),
            wanted: VecDeque::new(),
        }
    }

    /// Starts an SA: its counter's name, whether it has 64-bit numbers, the peer's window. It asks for a grant at once (R3).
    ///
    /// # Errors
    /// [`ClusterError::Limit`].
    pub fn add(&mut self, sa: SaId, key: Arc<str>, esn: bool, window: u32, now: u64) -> Result<(), ClusterError> {
        if self.sequences.len() >= self.config.sas_max {
            return Err(ClusterError::Limit { what: "outbound SAs", limit: self.config.sas_max });
        }
        self.sequences.entry(sa).or_insert_with(|| Sequence::new(key, esn, window));
        self.turn(sa, now);
        Ok(())
    }

    /// Requests wait until [`Self::open`]: some node may yet tell that the store is behind (I1).
    pub fn hold(&mut self, sa: SaId) {
        if let Some(sequence) = self.sequences.get_mut(&sa) {
            sequence.set_open(false);
        }
    }

    /// From now on numbers are given.
    pub fn open(&mut self, sa: SaId, now: u64) {
        if let Some(sequence) = self.sequences.get_mut(&sa) {
            sequence.set_open(true);
            self.turn(sa, now);
        }
    }

    /// Forgets an SA. What is left of its grants is a gap in its counter.
    pub fn remove(&mut self, sa: SaId) {
        self.sequences.remove(&sa);
        if let Some(at) = self.scheduled.remove(&sa) {
            self.deadlines.remove(&(at, sa));
        }
    }

    /// Takes a request. The answer comes by [`Self::poll_reply`], now or later; a repeated or delayed request gets none.
    pub fn request(&mut self, request: Request, now: u64) {
        let sa = request.sa;
        let Some(sequence) = self.sequences.get_mut(&sa) else {
            self.replies.push_back(reply_to(request, 0, Err(LeaseRefusal::NoSuchSa)));
            return;
        };
        if sequence.request(request, now, &self.config) {
            self.turn(sa, now);
        }
    }

    /// The coupling facility's answer to a [`GrantWanted`].
    pub fn grant(&mut self, sa: SaId, result: Result<Range<u64>, CouplingError>, now: u64) -> GrantOutcome {
        let Some(sequence) = self.sequences.get_mut(&sa) else {
            return GrantOutcome::Unwanted;
        };
        let outcome = sequence.grant(result, now, &self.config);
        self.turn(sa, now);
        outcome
    }

    /// A node says that it held this number of an SA. True if that shows the store to be behind (I1): the SA is refused.
    pub fn note_seen(&mut self, sa: SaId, number: u64) -> bool {
        self.sequences.get_mut(&sa).is_some_and(|sequence| sequence.note_seen(number))
    }

    /// A node is gone: its requests are forgotten, its blocks live on until they age out.
    pub fn holder_gone(&mut self, node: u16) {
        for sequence in self.sequences.values_mut() {
            sequence.holder_gone(node);
        }
    }

    /// Does what is due.
    pub fn expire(&mut self, now: u64) {
        while let Some(&(at, sa)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            self.scheduled.remove(&sa);
            self.turn(sa, now);
        }
    }

    /// When to call [`Self::expire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The next answer.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// The next grant to take from the coupling facility.
    pub fn poll_grant_wanted(&mut self) -> Option<GrantWanted> {
        self.wanted.pop_front()
    }

    /// Whether the SA's counter is in the coupling facility, so that the SA may be distributed (R3).
    #[must_use]
    pub fn placed(&self, sa: SaId) -> bool {
        self.sequences.get(&sa).is_some_and(Sequence::placed)
    }

    /// An SA's state.
    #[must_use]
    pub fn status(&self, sa: SaId, now: u64) -> Option<SequenceStatus> {
        self.sequences.get(&sa).map(|sequence| sequence.status(now, &self.config))
    }

    /// Everything that may follow a change of one SA.
    fn turn(&mut self, sa: SaId, now: u64) {
        let Some(sequence) = self.sequences.get_mut(&sa) else {
            return;
        };
        let replies = &mut self.replies;
        sequence
            .serve(now, &self.config, |request, waited, answer| replies.push_back(reply_to(request, waited, answer)));
        sequence
            .expire(now, &self.config, |request, waited, answer| replies.push_back(reply_to(request, waited, answer)));
        if let Some((key, n, limit)) = sequence.grant_wanted(now, &self.config) {
            self.wanted.push_back(GrantWanted { sa, key, n, limit });
        }
        let deadline = sequence.deadline(&self.config);
        if let Some(at) = self.scheduled.remove(&sa) {
            self.deadlines.remove(&(at, sa));
        }
        if let Some(at) = deadline {
            self.scheduled.insert(sa, at);
            self.deadlines.insert((at, sa));
        }
    }
}
