//! The replay window: RFC 4303 §3.4.3, and appendix A for 64-bit numbers.
//!
//! One core writes a window, its [`ReplayWindow`]; any thread may read its [`SharedWindow`]. The bits live in a ring of
//! words (as RFC 6479): moving on clears whole words, so the cost of a packet does not depend on the window's size.

use phalanx_aead::prefetch;
use phalanx_wire::DropReason;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::Role;
use crate::sync::{AtomicU64, Ordering, fence};

/// The smallest window (RFC 4303 §3.4.3 demands it).
pub const MIN_WINDOW: u32 = 32;
/// The largest.
pub const MAX_WINDOW: u32 = 65536;
/// How far a bound that is told to [`ReplayWindow::infer_above`] may be ahead of the peer's numbers.
const AHEAD: u32 = 1 << 20;

pub(crate) const fn valid_size(size: u32) -> bool {
    size.is_multiple_of(32) && size >= MIN_WINDOW && size <= MAX_WINDOW
}

/// The window of one inbound SA on the one core that writes it.
#[derive(Debug)]
pub struct ReplayWindow {
    /// What readers see lags behind these two copies, which only the writer has.
    edge: u64,
    floor: u64,
    size: u32,
    /// Words of the ring, less one.
    mask: u16,
    esn: bool,
    /// Which of the shared ones it is.
    role: Role,
    shared: Arc<SharedWindows>,
}

const _: () = assert!(size_of::<ReplayWindow>() == 32);

/// Both windows of an inbound SA as other threads see them.
#[derive(Debug)]
pub struct SharedWindows {
    own: SharedWindow,
    verified: SharedWindow,
}

impl SharedWindows {
    /// That of a role on this core.
    #[inline]
    #[must_use]
    pub fn of(&self, role: Role) -> &SharedWindow {
        match role {
            Role::Target => &self.own,
            Role::Router => &self.verified,
        }
    }
}

/// A window's memory as other threads see it: one cache line of a small window.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SharedWindow {
    /// The highest number accepted; everything that belongs to it is in the words.
    edge: AtomicU64,
    /// The edge that the writer is moving to: at or ahead of `edge`, and visible before any word is reused for it.
    claim: AtomicU64,
    floor: AtomicU64,
    words: Words,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SharedWindow>() == 64);

/// The bits of a small window stand beside its edges, those of a larger one in memory of their own; with them how many numbers it spans.
#[derive(Debug)]
enum Words {
    Few(u32, [AtomicU64; Words::FEW]),
    Many(u32, Box<[AtomicU64]>),
}

impl Words {
    const FEW: usize = 4;

    fn new(size: u32, words: u32) -> Words {
        match words as usize {
            Words::FEW => Words::Few(size, std::array::from_fn(|_| AtomicU64::new(0))),
            _ => Words::Many(size, (0..words).map(|_| AtomicU64::new(0)).collect()),
        }
    }

    fn size(&self) -> u32 {
        let (Words::Few(size, _) | Words::Many(size, _)) = self;
        *size
    }
}

impl std::ops::Deref for Words {
    type Target = [AtomicU64];
    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        match self {
            Words::Few(_, words) => words,
            Words::Many(_, words) => words,
        }
    }
}

/// A window at one moment, to be sent and merged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSnapshot {
    /// The highest number accepted.
    pub edge: u64,
    /// Everything up to here is refused.
    pub floor: u64,
    /// Bit `b` of word `i` is number `(edge / 64 - i) * 64 + b`; a set bit is an accepted number. No trailing zeros.
    pub words: Vec<u64>,
}

impl WindowSnapshot {
    /// An empty one that can be filled from a window of that size without allocating.
    #[must_use]
    pub fn with_room_for(size: u32) -> WindowSnapshot {
        WindowSnapshot { edge: 0, floor: 0, words: Vec::with_capacity(size as usize / 64 + 2) }
    }

    /// The number is marked as accepted.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        (self.edge / 64)
            .checked_sub(seq / 64)
            .and_then(|i| self.words.get(usize::try_from(i).ok()?))
            .is_some_and(|word| word >> (seq % 64) & 1 == 1)
    }
}

impl ReplayWindow {
    /// A window over `size` numbers: a multiple of 32 from 32 to 65536; anything else is brought there.
    #[must_use]
    pub fn new(size: u32, esn: bool) -> ReplayWindow {
        let [window, _] = ReplayWindow::pair(size, esn);
        window
    }

    /// The windows of an inbound SA on a core, as a target and as a router.
    pub(crate) fn pair(size: u32, esn: bool) -> [ReplayWindow; 2] {
        let size = size.clamp(MIN_WINDOW, MAX_WINDOW).next_multiple_of(32);
        // One word more than the window touches, and a quarter again so that a reader rarely has to retry.
        let touched = size.div_ceil(64) + 1;
        let words = (touched + touched.div_ceil(4)).next_power_of_two().max(Words::FEW as u32);
        let shared = || SharedWindow {
            edge: AtomicU64::new(0),
            claim: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            words: Words::new(size, words),
        };
        let shared = Arc::new(SharedWindows { own: shared(), verified: shared() });
        let window = |role| ReplayWindow {
            edge: 0,
            floor: 0,
            size,
            mask: (words - 1) as u16,
            esn,
            role,
            shared: shared.clone(),
        };
        [Role::Target, Role::Router].map(window)
    }

    /// The memory that other threads may read, with that of the SA's other window; [`ReplayWindow::new`] makes a target's.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedWindows> {
        &self.shared
    }

    /// Its own part of it.
    #[inline]
    pub(crate) fn seen(&self) -> &SharedWindow {
        self.shared.of(self.role)
    }

    /// How many numbers it spans.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The highest number accepted, or the floor if that is higher.
    #[inline]
    #[must_use]
    pub fn edge(&self) -> u64 {
        self.edge
    }

    /// Everything up to here is refused.
    #[inline]
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The whole number of a packet that shows the low half only (RFC 4303 appendix A2.2): the one number with that
    /// low half in the 2^32 numbers from the window's left edge on. `None` if there is none in the number space.
    #[inline]
    #[must_use]
    pub fn infer(&self, low: u32) -> Option<u64> {
        self.infer_above(low, 0)
    }

    /// As [`ReplayWindow::infer`], for a window that knows less than its caller: one that began empty after a restart,
    /// while the peer's numbers are known to have come near `reached` (a durable ceiling, a floor).
    ///
    /// Such a bound runs ahead of the peer, by far more than a small window: genuine numbers are looked for from
    /// 2^20 below it on, or each of them would be taken for one of the next 2^32.
    #[inline]
    #[must_use]
    pub fn infer_above(&self, low: u32, reached: u64) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let (edge, size) = if reached > self.edge { (reached, self.size.max(AHEAD)) } else { (self.edge, self.size) };
        let (high, top) = ((edge >> 32) as u32, edge as u32);
        let high = if top >= size - 1 {
            // Case A: the window lies within one subspace.
            if low >= top - (size - 1) { Some(high) } else { high.checked_add(1) }
        } else {
            // Case B: it spans two.
            if low >= top.wrapping_sub(size - 1) { high.checked_sub(1) } else { Some(high) }
        }?;
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// The whole number where the high half came along (in the link header). Only the ICV can tell whether it is
    /// true; a wrong one fails there. Without 64-bit numbers the hint means nothing.
    #[inline]
    #[must_use]
    pub fn infer_with_hint(&self, low: u32, high_hint: u32) -> u64 {
        let high = if self.esn { high_hint } else { 0 };
        u64::from(high) << 32 | u64::from(low)
    }

    /// As [`ReplayWindow::infer_with_hint`], where of the high half only its low half came along: the least such number that is not
    /// 2^48 behind the window.
    #[must_use]
    pub fn infer_with_half(&self, low: u32, half: u16) -> u64 {
        let known = (self.edge >> 32).saturating_sub(1);
        let ahead = u64::from(half).wrapping_sub(known) & 0xffff;
        self.infer_with_hint(low, u32::try_from(known + ahead).unwrap_or(u32::MAX))
    }

    /// Whether a packet of this number could still be accepted. Changes nothing (I5).
    ///
    /// # Errors
    /// `SequenceWrap` for a number that no packet of this SA has, `TooOld` left of the window or not above the floor,
    /// `Replay` for one that was accepted.
    #[inline]
    pub fn check(&self, seq: u64) -> Result<(), DropReason> {
        if seq == 0 || (!self.esn && seq > u64::from(u32::MAX)) {
            return Err(DropReason::SequenceWrap);
        }
        if seq <= self.floor {
            return Err(DropReason::TooOld);
        }
        if seq > self.edge {
            return Ok(());
        }
        if self.edge - seq >= u64::from(self.size) {
            return Err(DropReason::TooOld);
        }
        if self.word(seq).load(Ordering::Relaxed) >> (seq % 64) & 1 == 1 {
            return Err(DropReason::Replay);
        }
        Ok(())
    }

    /// Marks the number of an *authenticated* packet, unless it is not acceptable any more.
    ///
    /// # Errors
    /// Those of [`ReplayWindow::check`], which a packet of the same burst may have brought about.
    #[inline]
    pub fn commit(&mut self, seq: u64) -> Result<(), DropReason> {
        self.check(seq)?;
        if seq > self.edge {
            self.advance(seq);
            self.mark(seq / 64, 1 << (seq % 64));
            self.seen().edge.store(seq, Ordering::Release);
        } else {
            self.mark(seq / 64, 1 << (seq % 64));
        }
        Ok(())
    }

    /// Marks so many numbers of *authenticated* packets from `first` on, which nothing came behind yet: [`ReplayWindow::commit`] of one
    /// after the other. False, and nothing changes, where one of them is not ahead of the window, or they are more than it spans.
    #[inline]
    pub fn commit_row(&mut self, first: u64, count: u32) -> bool {
        let Some(last) = count.checked_sub(1).and_then(|more| first.checked_add(more.into())) else { return false };
        if first <= self.edge || count > self.size || self.check(last).is_err() {
            return false;
        }
        self.advance(last);
        for at in first / 64..=last / 64 {
            let (from, to) = (first.max(at * 64) % 64, last.min(at * 64 + 63) % 64);
            self.mark(at, u64::MAX << from & u64::MAX >> (63 - to));
        }
        self.seen().edge.store(last, Ordering::Release);
        true
    }

    /// Takes over what another window accepted: nothing that either accepted is acceptable afterwards.
    pub fn merge(&mut self, other: &WindowSnapshot) {
        if !self.esn && other.edge.max(other.floor) > u64::from(u32::MAX) {
            return; // not a window of this SA
        }
        if other.edge > self.edge {
            self.advance(other.edge);
        }
        let oldest = (self.edge / 64).saturating_sub(u64::from(self.mask));
        for (word, i) in other.words.iter().zip(0u64..) {
            let Some(at) = (other.edge / 64).checked_sub(i).filter(|at| *at >= oldest) else { break };
            // Whatever the sender says, nothing above its edge was accepted.
            let valid = if i == 0 { u64::MAX >> (63 - other.edge % 64) } else { u64::MAX };
            self.mark(at, word & valid);
        }
        self.seen().edge.store(self.edge, Ordering::Release);
        self.raise_floor(other.floor);
    }

    /// From now on everything up to `seq` is refused.
    pub fn raise_floor(&mut self, seq: u64) {
        if seq <= self.floor {
            return;
        }
        self.floor = seq;
        if seq > self.edge {
            // The edge goes along, so that the high half of what comes next is inferred from there.
            self.advance(seq);
        }
        self.seen().floor.store(seq, Ordering::Relaxed);
        self.seen().edge.store(self.edge, Ordering::Release);
    }

    /// The window now. Allocates; see [`ReplayWindow::snapshot_into`].
    #[must_use]
    pub fn snapshot(&self) -> WindowSnapshot {
        self.seen().snapshot()
    }

    /// The window now, into memory that was made with [`WindowSnapshot::with_room_for`] its size: does not allocate.
    pub fn snapshot_into(&self, out: &mut WindowSnapshot) {
        // Called by the writer, so nothing moves and the first attempt holds.
        self.seen().try_snapshot(out);
    }

    /// Asks memory for the word of the next number, if words are not beside the edges.
    #[inline]
    pub(crate) fn word_ahead(&self) {
        // The mask is here and says so; what threads share may still be on its way.
        if usize::from(self.mask) >= Words::FEW
            && let Words::Many(_, words) = &self.seen().words
        {
            let at = (self.edge.wrapping_add(1) / 64) & u64::from(self.mask);
            prefetch::all(&words[at as usize]);
        }
    }

    /// Moves the edge to `to`, which is ahead, and clears the words in between. Readers see the new edge later, when
    /// it is stored.
    #[inline]
    fn advance(&mut self, to: u64) {
        self.seen().claim.store(to, Ordering::Relaxed);
        // Whoever reads a word cleared below also sees the claim (pairs with the fence in `try_snapshot`).
        fence(Ordering::Release);
        let from = self.edge / 64;
        let words = (to / 64 - from).min(u64::from(self.mask) + 1);
        for i in 1..=words {
            self.seen().words[((from + i) & u64::from(self.mask)) as usize].store(0, Ordering::Relaxed);
        }
        self.edge = to;
    }

    /// Sets bits of the word that holds numbers `at * 64` and up. A plain read and write: there is one writer.
    #[inline]
    fn mark(&mut self, at: u64, bits: u64) {
        let word = &self.seen().words[(at & u64::from(self.mask)) as usize];
        word.store(word.load(Ordering::Relaxed) | bits, Ordering::Relaxed);
    }

    #[inline]
    fn word(&self, seq: u64) -> &AtomicU64 {
        &self.seen().words[((seq / 64) & u64::from(self.mask)) as usize]
    }
}

impl SharedWindow {
    /// The highest number accepted a moment ago.
    #[inline]
    #[must_use]
    pub fn edge(&self) -> u64 {
        self.edge.load(Ordering::Acquire)
    }

    /// Everything up to here is refused.
    #[inline]
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// How many numbers it spans.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.words.size()
    }

    /// The window at one moment, from any thread: no number that was not accepted is in it, and every number is whose
    /// acceptance happened before the call. Allocates, and waits while the writer runs round the ring.
    #[must_use]
    pub fn snapshot(&self) -> WindowSnapshot {
        let mut out = WindowSnapshot::with_room_for(self.size());
        while !self.try_snapshot(&mut out) {
            crate::sync::spin();
        }
        out
    }

    /// False if the writer reused words meanwhile.
    fn try_snapshot(&self, out: &mut WindowSnapshot) -> bool {
        // Acquire: the words of everything up to this edge are as they were when it was stored, or newer.
        let edge = self.edge.load(Ordering::Acquire);
        let oldest = edge.saturating_sub(u64::from(self.size()) - 1);
        let mask = self.words.len() as u64 - 1;
        out.edge = edge;
        out.floor = self.floor.load(Ordering::Relaxed);
        out.words.clear();
        for at in (oldest / 64..=edge / 64).rev() {
            out.words.push(self.words[(at & mask) as usize].load(Ordering::Relaxed));
        }
        fence(Ordering::Acquire);
        let claim = self.claim.load(Ordering::Relaxed);
        // Numbers above the edge may be there already: they belong to a later snapshot.
        if let Some(newest) = out.words.first_mut() {
            *newest &= u64::MAX >> (63 - edge % 64);
        }
        while out.words.last() == Some(&0) {
            out.words.pop();
        }
        claim / 64 <= oldest / 64 + mask
    }
}
