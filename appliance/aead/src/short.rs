//! Short packets, as many at a time as fill the processor: AES of some while others, which are ciphertext already, are hashed.
//!
//! All packets of a call have `W` vectors: those of the text and, in the last lane of the last one, the block that masks the tag. A
//! step works on `S` packets. When sealing, what is hashed is the step before; when opening, the same packets before they are
//! plaintext.

#![allow(clippy::needless_range_loop)] // of several arrays at once

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::gcm::{self, Sum};
use crate::lanes::Lanes;
use crate::packet::{Packet, blocks, finish, opaque};
use crate::wide::{WideKey, last_round};

/// The most vectors that [`short`] is made for, of any width.
pub(crate) const MOST: usize = 12;

/// A vector of counter blocks may be read from any multiple of its length on. The first block of text has counter 2.
#[repr(align(64))]
struct Counters([u8; 16 * 4 * MOST]);

/// `mask` is the place of the block that masks the tag (SP 800-38D §7.1: counter 1).
const fn counters(mask: usize) -> Counters {
    let mut counters = [0; 16 * 4 * MOST];
    let mut block = 0;
    while block < 4 * MOST {
        let number = if block == mask { 1 } else { block as u32 + 2 };
        let bytes = number.to_be_bytes();
        let mut at = 0;
        while at < 4 {
            counters[16 * block + 12 + at] = bytes[at];
            at += 1;
        }
        block += 1;
    }
    Counters(counters)
}

/// Of packets of `W` vectors.
struct Table<V, const W: usize, const SAME: bool>(std::marker::PhantomData<V>);
impl<V: Lanes, const W: usize, const SAME: bool> Table<V, W, SAME> {
    const COUNTERS: &'static Counters = &counters(if SAME { usize::MAX } else { V::BLOCKS * W - 1 });
}

/// Where a step finds a packet.
#[derive(Clone, Copy)]
struct Slot<'k> {
    key: &'k WideKey,
    text: *mut u8,
    /// Bytes of text in the last vector but one, and in the last one.
    ends: [usize; 2],
    power: *const u8,
}

impl<'k> Slot<'k> {
    #[inline(always)]
    unsafe fn of<V: Lanes, P: Packet + 'k, const W: usize>(packet: *mut P) -> Slot<'k> {
        // SAFETY: the caller's pointer is to an operation, whose key outlives the call.
        unsafe {
            let (len, key) = ((*packet).len(), (*packet.cast_const()).key().wide());
            let last = len.saturating_sub(V::BYTES * (W - 1));
            let before = if W > 1 { len.wrapping_sub(V::BYTES * (W - 2)).min(V::BYTES) } else { 0 };
            let power = key.power(blocks(len).wrapping_add(1));
            Slot { key, text: P::text(packet), ends: [before, last], power }
        }
    }

    #[inline(always)]
    unsafe fn load<V: Lanes, const W: usize, const EXACT: bool, const SAME: bool>(&self, at: usize) -> V {
        // SAFETY: the text has so many bytes; features as for the kernel this is part of.
        unsafe {
            let from = self.text.wrapping_add(at * V::BYTES);
            if EXACT && !SAME && at + 1 == W {
                V::zero()
            } else if at + 2 < W || EXACT || at + 2 == W && self.ends[0] == V::BYTES {
                V::load(from)
            } else {
                V::load_part(from, self.ends[at + 2 - W])
            }
        }
    }

    #[inline(always)]
    unsafe fn store<V: Lanes, const W: usize, const EXACT: bool, const SAME: bool>(&self, at: usize, text: V) {
        // SAFETY: as for loading.
        unsafe {
            let to = self.text.wrapping_add(at * V::BYTES);
            if EXACT && !SAME && at + 1 == W {
                // Nothing but the block that masks the tag.
            } else if at + 2 < W || EXACT {
                text.store(to)
            } else {
                text.store_part(to, self.ends[at + 2 - W])
            }
        }
    }
}

/// One step: the texts of the packets that went through AES, and the sums of those that were hashed. `done` are those when sealing.
#[inline(always)]
unsafe fn step<
    V: Lanes,
    P: Packet,
    const S: usize,
    const W: usize,
    const EXACT: bool,
    const SAME: bool,
    const AES: bool,
    const HASH: bool,
>(
    aes: [*mut P; S],
    hash: [*mut P; S],
    done: &[[V; W]; S],
    aes_256: bool,
) -> ([[V; W]; S], [Sum<V>; S]) {
    // SAFETY: the caller's pointers are to operations of `W` vectors; features as for the kernel this is part of.
    unsafe {
        let mut states = [[V::zero(); W]; S];
        let mut sums = [Sum::new(); S];
        let mut from = aes.map(|packet| Slot::of::<V, P, W>(packet));
        let mut hashed = hash.map(|packet| Slot::of::<V, P, W>(packet));
        if SAME {
            // The compiler does not know.
            for s in 1..S {
                (from[s].key, hashed[s].power) = (from[0].key, hashed[0].power);
            }
        }
        if AES {
            let counters = Table::<V, W, SAME>::COUNTERS.0.as_ptr();
            for s in 0..S {
                let base = V::every(gcm::nonce_block((*aes[s]).nonce())).xor(from[s].key.round(0));
                for w in 0..W {
                    states[s][w] = base.xor(V::load(counters.add(w * V::BYTES)));
                }
            }
        }
        macro_rules! round {
            ($($round:literal)*) => { $({
                if AES {
                    for s in 0..S {
                        let key = from[s].key.round::<V>($round);
                        for w in 0..W {
                            states[s][w] = states[s][w].aes(key);
                        }
                    }
                }
                if HASH {
                    let vectors = if EXACT && !SAME { W - 1 } else { W };
                    let pairs = vectors.div_ceil(2);
                    for unit in S * pairs * ($round - 1) / 9..S * pairs * $round / 9 {
                        let (s, w) = (unit / pairs, unit % pairs * 2);
                        let mut texts = [V::zero(); 2];
                        let mut powers = [V::zero(); 2];
                        for n in 0..2.min(vectors - w) {
                            powers[n] = V::load(hashed[s].power.wrapping_add((w + n) * V::BYTES));
                            let text = if P::OPEN { hashed[s].load::<V, W, EXACT, SAME>(w + n) } else { done[s][w + n] };
                            texts[n] = text.reverse();
                        }
                        if vectors - w > 1 {
                            sums[s].add_two(texts, powers);
                        } else {
                            sums[s].add(texts[0], powers[0]);
                        }
                        sums[s].pin();
                    }
                }
                if AES {
                    for s in 0..S {
                        for w in 0..W {
                            states[s][w] = states[s][w].pin();
                        }
                    }
                }
            })* };
        }
        round!(1 2 3 4 5 6 7 8 9);
        if AES && aes_256 {
            for round in 10..14 {
                for s in 0..S {
                    let key = from[s].key.round::<V>(round);
                    for w in 0..W {
                        states[s][w] = states[s][w].aes(key);
                    }
                }
            }
        }
        if AES {
            for s in 0..S {
                let key = from[s].key.round::<V>(last_round(aes_256));
                let slot = Slot { text: opaque(from[s].text), ..from[s] };
                for w in 0..W {
                    states[s][w] = states[s][w].aes_last(key.xor(slot.load::<V, W, EXACT, SAME>(w)));
                }
            }
            for s in 0..S {
                for w in 0..W {
                    from[s].store::<V, W, EXACT, SAME>(w, states[s][w]);
                }
            }
        }
        (states, sums)
    }
}

/// Packets whose sums wait for others: as many as a vector has lanes are finished together.
struct Group<'m, V, P> {
    packets: *const *mut P,
    sums: [Sum<V>; 4],
    lasts: [V; 4],
    /// What masks the tags of packets of one key.
    masks: &'m Masks,
}

impl<V: Lanes, P: Packet> Group<'_, V, P> {
    /// A step is hashed.
    #[inline(always)]
    unsafe fn settle<const S: usize, const W: usize, const SAME: bool>(
        &mut self,
        step: usize,
        is_last: bool,
        texts: &[[V; W]; S],
        sums: [Sum<V>; S],
    ) {
        const GROUP: usize = 4;
        let first = step.wrapping_mul(S);
        for s in 0..S {
            let at = first.wrapping_add(s) % GROUP;
            self.sums[at] = sums[s];
            self.lasts[at] = texts[s][W - 1];
        }
        if first.wrapping_add(S).is_multiple_of(GROUP) || is_last {
            // SAFETY: the list goes on to a multiple of a group; features as for the kernel this is part of.
            unsafe {
                let group = self.packets.add(first / GROUP * GROUP);
                for at in (0..GROUP).step_by(V::BLOCKS) {
                    let mut packets = [*group.add(at); GROUP];
                    let (mut sums, mut lasts) = (self.sums, self.lasts);
                    for n in 0..V::BLOCKS {
                        packets[n] = *group.add(at + n);
                        sums[n] = self.sums[at + n];
                        lasts[n] = self.lasts[at + n];
                    }
                    let masks = if SAME {
                        V::load(self.masks.0.as_ptr().add((first / GROUP * GROUP + at) % MOST_PACKETS).cast())
                    } else {
                        V::lasts(lasts)
                    };
                    finish::<V, P, SAME>(packets, sums, masks, usize::MAX);
                }
            }
        }
    }
}

/// The packets of a step.
#[inline(always)]
unsafe fn slots<P, const S: usize>(packets: *const *mut P, step: usize) -> [*mut P; S] {
    // SAFETY: the list has so many.
    unsafe { *packets.add(step.wrapping_mul(S)).cast() }
}

/// The most packets of one key that [`short`] takes.
pub(crate) const MOST_PACKETS: usize = 64;

/// The blocks that mask the tags of packets of one key.
#[repr(align(64))]
struct Masks([MaybeUninit<gcm::Block>; MOST_PACKETS]);

impl Masks {
    /// Of packets in a list that goes on to a multiple of 4.
    #[inline(always)]
    unsafe fn of<V: Lanes, P: Packet>(&mut self, packets: *const *mut P, count: usize, aes_256: bool) {
        // SAFETY: the caller's pointers are to operations; features as for the kernel this is part of.
        unsafe {
            let mut at = 0usize;
            while at < count {
                if count.wrapping_sub(at) >= 4 * V::BLOCKS {
                    self.some::<V, P, 4>(packets, at, aes_256);
                    at = at.wrapping_add(4 * V::BLOCKS);
                } else {
                    self.some::<V, P, 1>(packets, at, aes_256);
                    at = at.wrapping_add(V::BLOCKS);
                }
            }
        }
    }

    /// `N` vectors of them.
    #[inline(always)]
    unsafe fn some<V: Lanes, P: Packet, const N: usize>(
        &mut self,
        packets: *const *mut P,
        first: usize,
        aes_256: bool,
    ) {
        // SAFETY: as for all of them.
        unsafe {
            let key = (*(*packets).cast_const()).key().wide();
            let one = V::every(_mm_set_epi32(1 << 24, 0, 0, 0)).xor(key.round(0));
            let mut states = [V::zero(); N];
            for (n, state) in states.iter_mut().enumerate() {
                let mut nonces = [_mm_setzero_si128(); 4];
                for (lane, nonce) in nonces.iter_mut().enumerate().take(V::BLOCKS) {
                    let packet = *packets.add(first.wrapping_add(n * V::BLOCKS + lane));
                    *nonce = gcm::nonce_block((*packet.cast_const()).nonce());
                }
                *state = one.xor(V::blocks(nonces));
            }
            for round in 1..last_round(aes_256) {
                let key = key.round::<V>(round);
                for state in &mut states {
                    *state = state.aes(key);
                }
            }
            let key = key.round::<V>(last_round(aes_256));
            for (n, state) in states.into_iter().enumerate() {
                state.aes_last(key).store(self.0.as_mut_ptr().add((first + n * V::BLOCKS) % MOST_PACKETS).cast());
            }
        }
    }
}

/// Seals or opens `count` packets of `W` vectors each. The list goes on behind them up to a multiple of 4, with packets that may be
/// worked on too, of as many vectors. `SAME`: they are of one key and one length, which fills `W` vectors, and at most [`MOST_PACKETS`];
/// the blocks that mask the tags are made by themselves.
#[inline(always)]
pub(crate) unsafe fn short<V: Lanes, P: Packet, const S: usize, const W: usize, const EXACT: bool, const SAME: bool>(
    packets: *const *mut P,
    count: usize,
    aes_256: bool,
) {
    // SAFETY: the list is as long as said above; features as for the kernel this is part of.
    unsafe {
        let steps = count.div_ceil(S);
        let end = steps.wrapping_sub(1);
        let mut masks = Masks([MaybeUninit::uninit(); MOST_PACKETS]);
        if SAME {
            masks.of::<V, P>(packets, count, aes_256);
        }
        let mut group = Group { packets, sums: [Sum::<V>::new(); 4], lasts: [V::zero(); 4], masks: &masks };
        let none = [[V::zero(); W]; S];
        if P::OPEN {
            for at in 0..steps {
                let these = slots(packets, at);
                let (texts, sums) = step::<V, P, S, W, EXACT, SAME, true, true>(these, these, &none, aes_256);
                group.settle::<S, W, SAME>(at, at == end, &texts, sums);
            }
            return;
        }
        let mut before: [*mut P; S] = slots(packets, 0);
        let (mut texts, _) = step::<V, P, S, W, EXACT, SAME, true, false>(before, before, &none, aes_256);
        for at in 0..end {
            let done = sealed::<V, P, S, W, EXACT>(&texts, before);
            let these = slots(packets, at.wrapping_add(1));
            let (new, sums) = step::<V, P, S, W, EXACT, SAME, true, true>(these, before, &done, aes_256);
            group.settle::<S, W, SAME>(at, false, &texts, sums);
            (texts, before) = (new, these);
        }
        let done = sealed::<V, P, S, W, EXACT>(&texts, before);
        let (_, sums) = step::<V, P, S, W, EXACT, SAME, false, true>(before, before, &done, aes_256);
        group.settle::<S, W, SAME>(end, true, &texts, sums);
    }
}

/// Texts with zeros behind their ends.
#[inline(always)]
unsafe fn sealed<V: Lanes, P: Packet, const S: usize, const W: usize, const EXACT: bool>(
    texts: &[[V; W]; S],
    packets: [*mut P; S],
) -> [[V; W]; S] {
    let mut texts = *texts;
    if EXACT {
        return texts;
    }
    for (texts, packet) in texts.iter_mut().zip(packets) {
        // SAFETY: the caller's pointers are to operations; features as for the kernel this is part of.
        unsafe {
            let slot = Slot::of::<V, P, W>(packet);
            for at in W.saturating_sub(2)..W {
                let end = slot.ends[at + 2 - W];
                if end != V::BYTES {
                    texts[at] = texts[at].part(end);
                }
            }
        }
    }
    texts
}
