//! The arithmetic of AES-GCM (NIST SP 800-38D) on vectors of blocks: sums of products by powers of the hash key, their reduction,
//! and plain counter mode.
//!
//! The powers of H stand in descending order, so that a packet of n blocks begins n + 1 places before their end whatever its length,
//! and blocks that are missing in the last vector are zeros, which add nothing. Products are summed up unreduced (Karatsuba: three
//! multiplications).

use std::arch::x86_64::*;

use crate::lanes::{Lanes, One};
use crate::wide::WideKey;
use crate::{Aad, Key, NONCE_LEN};

pub(crate) type Block = [u8; 16];

/// Products that are not reduced yet.
#[derive(Clone, Copy)]
pub(crate) struct Sum<V> {
    pub(crate) low: V,
    pub(crate) middle: V,
    pub(crate) high: V,
}

impl<V: Lanes> Sum<V> {
    #[inline(always)]
    pub(crate) unsafe fn new() -> Sum<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe { Sum { low: V::zero(), middle: V::zero(), high: V::zero() } }
    }

    /// Adds reversed blocks, each by its power.
    #[inline(always)]
    pub(crate) unsafe fn add(&mut self, blocks: V, powers: V) {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            self.low = self.low.xor(blocks.mul_low(powers));
            self.high = self.high.xor(blocks.mul_high(powers));
            self.middle = self.middle.xor(blocks.xor(blocks.swap()).mul_low(powers.xor(powers.swap())));
        }
    }

    /// Adds two vectors of reversed blocks: of three to be added up the processor makes one instruction.
    #[inline(always)]
    pub(crate) unsafe fn add_two(&mut self, blocks: [V; 2], powers: [V; 2]) {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let ([a, b], [x, y]) = (blocks, powers);
            self.low = self.low.xor3(a.mul_low(x), b.mul_low(y));
            self.high = self.high.xor3(a.mul_high(x), b.mul_high(y));
            if V::BLOCKS == 2 {
                // With few registers it does not pay.
                let [a, b, x, y] = [a.xor(a.swap()), b.xor(b.swap()), x.xor(x.swap()), y.xor(y.swap())];
                self.middle = self.middle.xor3(a.mul_low(x), b.mul_low(y));
                return;
            }
            // Of both blocks in one: their halves added up.
            let blocks = a.both_low(b).xor(a.both_high(b));
            let powers = x.both_low(y).xor(x.both_high(y));
            self.middle = self.middle.xor3(blocks.mul_low(powers), blocks.mul_high(powers));
        }
    }

    /// What was added is added now: the compiler moves it no further.
    #[inline(always)]
    pub(crate) unsafe fn pin(&mut self) {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            self.low = self.low.pin();
            self.middle = self.middle.pin();
            self.high = self.high.pin();
        }
    }

    /// A block by a power.
    #[inline(always)]
    pub(crate) unsafe fn add_block(&mut self, block: __m128i, power: *const u8) {
        // SAFETY: features as for the kernel this is part of; a power is a block.
        unsafe {
            let mut sum = Sum::<One>::new();
            sum.add(One(block), One::load(power));
            self.low = self.low.xor(V::first(sum.low.0));
            self.middle = self.middle.xor(V::first(sum.middle.0));
            self.high = self.high.xor(V::first(sum.high.0));
        }
    }

    /// The lanes of each of some sums added up.
    #[inline(always)]
    pub(crate) unsafe fn of_each([a, b, c, d]: [Sum<V>; 4]) -> Sum<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let low = V::sums([a.low, b.low, c.low, d.low]);
            let middle = V::sums([a.middle, b.middle, c.middle, d.middle]);
            Sum { low, middle, high: V::sums([a.high, b.high, c.high, d.high]) }
        }
    }

    /// All lanes added up, and reduced.
    #[inline(always)]
    pub(crate) unsafe fn total(&self) -> __m128i {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            Sum { low: One(self.low.fold()), middle: One(self.middle.fold()), high: One(self.high.fold()) }.reduce().0
        }
    }

    /// Products of 255 bits modulo GCM's polynomial, lane by lane: two folds of 64 bits each.
    #[inline(always)]
    pub(crate) unsafe fn reduce(&self) -> V {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let polynomial = V::every(_mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1));
            let middle = self.middle.xor(self.low.xor(self.high));
            let low = self.low.swap().xor(polynomial.mul_cross(self.low));
            let middle = middle.xor(low);
            self.high.xor(middle.swap().xor(polynomial.mul_cross(middle)))
        }
    }
}

/// The product of two reversed blocks.
#[inline(always)]
pub(crate) unsafe fn multiply(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: features as for the kernel this is part of.
    unsafe {
        let mut sum = Sum::<One>::new();
        sum.add(One(a), One(b));
        sum.reduce().0
    }
}

/// The nonce in front of a counter of 0. Loads as narrow as the stores that made it: a wider one would wait for them.
#[inline(always)]
pub(crate) unsafe fn nonce_block(nonce: &[u8; NONCE_LEN]) -> __m128i {
    let (low, high) = nonce.split_at(8);
    let low = low.try_into().map_or(0, u64::from_le_bytes);
    let high = high.try_into().map_or(0, u32::from_le_bytes);
    // SAFETY: features as for the kernel this is part of.
    unsafe { _mm_set_epi64x(i64::from(high), low as i64) }
}

/// Associated data as a block, not reversed.
#[inline(always)]
pub(crate) unsafe fn aad_block(aad: &Aad) -> __m128i {
    let [first, second] = aad.words;
    // SAFETY: features as for the kernel this is part of.
    unsafe { _mm_set_epi64x(second as i64, first as i64) }
}

/// What a packet's counter blocks have in common, and the next counters.
pub(crate) struct Stream<V> {
    /// Nonce and first round key.
    base: V,
    counters: V,
}

impl<V: Lanes> Stream<V> {
    #[inline(always)]
    pub(crate) unsafe fn new(key: &WideKey, nonce: __m128i, block: u32) -> Stream<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe { Stream { base: V::every(nonce).xor(key.round(0)), counters: V::counters(block) } }
    }

    /// The next counter blocks with the first round key.
    #[inline(always)]
    unsafe fn next(&mut self) -> V {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            // A counter stands first in the reversed block, last in the block.
            let state = self.base.xor(self.counters.reverse());
            self.counters = self.counters.advance(V::BLOCKS as u32);
            state
        }
    }
}

impl<V: Lanes> Stream<V> {
    /// The keystream of the next `N` vectors, but for the last round key.
    #[inline(always)]
    pub(crate) unsafe fn vectors<const N: usize, const LAST: usize>(&mut self, key: &WideKey) -> [V; N] {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let mut states = [V::zero(); N];
            for state in &mut states {
                *state = self.next();
            }
            for at in 1..LAST {
                let round = key.round::<V>(at);
                for state in &mut states {
                    *state = state.aes(round);
                }
            }
            states
        }
    }
}

/// One block by AES.
#[inline(always)]
pub(crate) unsafe fn encrypt(key: &WideKey, last: usize, block: __m128i) -> __m128i {
    // SAFETY: features as for the kernel this is part of.
    unsafe {
        let mut state = One(block).xor(key.round(0));
        for at in 1..last {
            state = state.aes(key.round(at));
        }
        state.aes_last(key.round(last)).0
    }
}

/// XORs the keystream from block `block` of a packet on onto `len` bytes, from one place to another or to the same.
#[inline(always)]
pub(crate) unsafe fn stream<V: Lanes>(
    key: &Key,
    nonce: &[u8; NONCE_LEN],
    block: u32,
    from: *const u8,
    to: *mut u8,
    len: usize,
) {
    // SAFETY: the caller's pointers are to `len` bytes; features as for the kernel this is part of.
    unsafe {
        let stream = Stream::<V>::new(key.wide(), nonce_block(nonce), block.wrapping_add(2));
        if key.aes_256() {
            stream.onto::<14>(key.wide(), from, to, len);
        } else {
            stream.onto::<10>(key.wide(), from, to, len);
        }
    }
}

impl<V: Lanes> Stream<V> {
    /// Two vectors at a time while there are more than one.
    #[inline(always)]
    unsafe fn onto<const LAST: usize>(mut self, key: &WideKey, mut from: *const u8, mut to: *mut u8, mut len: usize) {
        // SAFETY: the caller's pointers are to `len` bytes; features as for the kernel this is part of.
        unsafe {
            let last = key.round::<V>(LAST);
            while len > V::BYTES {
                let [first, second] = self.vectors::<2, LAST>(key);
                let part = len.wrapping_sub(V::BYTES).min(V::BYTES);
                let (from_second, to_second) = (from.add(V::BYTES), to.add(V::BYTES));
                first.aes_last(last.xor(V::load(from))).store(to);
                second.aes_last(last.xor(V::load_part(from_second, part))).store_part(to_second, part);
                (from, to) = (from_second.add(part), to_second.add(part));
                len = len.wrapping_sub(V::BYTES).wrapping_sub(part);
            }
            if len > 0 {
                let [state] = self.vectors::<1, LAST>(key);
                state.aes_last(last.xor(V::load_part(from, len))).store_part(to, len);
            }
        }
    }
}
