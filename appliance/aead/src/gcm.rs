//! AES-GCM (NIST SP 800-38D) on vectors of blocks: one body for every width and both directions.
//!
//! A packet is independent work, and the processor overlaps packets by itself as long as none of them stalls it. Within a packet:
//! * keystream and GHASH are made for [`WIDE`] vectors at a time;
//! * the powers of H stand in descending order, so that a packet of n blocks begins n + 1 places before their end whatever its
//!   length, and blocks that are missing in the last vector are zeros, which add nothing;
//! * products are summed up unreduced (Karatsuba: three multiplications) and reduced once per [`CHUNK`] blocks.
//!
//! No branch and no index depends on a key, a plaintext or a computed tag: on lengths only, and on whether a tag was right.

use std::arch::x86_64::*;

use crate::lanes::{Lanes, One};
use crate::{Aad, NONCE_LEN, TAG_LEN};

/// Vectors that are worked on at a time.
const WIDE: usize = 8;
/// Blocks between two reductions.
pub(crate) const CHUNK: usize = 64;
/// H^2 more than a chunk's: associated data come before the text, lengths behind it.
const POWERS: usize = CHUNK + 2;
/// Readable behind H^1: a vector may begin with it.
const BEHIND: usize = 3;
const ROUND_KEYS: usize = 15;

type Block = [u8; 16];

/// Round keys and powers of the hash key. Wiped on drop.
///
/// Behind the 16 bytes of [`Key`](crate::Key)'s own that stand before it, the round keys of AES-128 end with a cache line, and so
/// does what is read behind H^1: a short packet takes three lines of each.
#[repr(C, align(16))]
pub(crate) struct WideKey {
    /// FIPS 197 §5.2: 11 of them for AES-128, 15 for AES-256.
    rounds: [Block; ROUND_KEYS],
    _apart: [Block; 3],
    /// H^POWERS .. H^1, each reversed and times x (Gueron's form, in which a reduction needs no shift), then zeros.
    powers: [Block; POWERS + BEHIND],
}

impl Drop for WideKey {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.rounds.zeroize();
        self.powers.zeroize();
    }
}

impl WideKey {
    /// Of no key.
    pub(crate) const NONE: WideKey =
        WideKey { rounds: [[0; 16]; ROUND_KEYS], _apart: [[0; 16]; 3], powers: [[0; 16]; POWERS + BEHIND] };

    /// Of a cipher key of 16 or 32 bytes.
    #[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
    pub(crate) fn new(cipher_key: &[u8]) -> WideKey {
        let last = last_round(cipher_key.len());
        let mut key = WideKey::NONE;
        // SAFETY: this function has the features.
        unsafe {
            expand(cipher_key, &mut key.rounds.as_flattened_mut()[..16 * (last + 1)]);
            let h = encrypt(&key.rounds, last, _mm_setzero_si128());
            let mut block = [0; 16];
            _mm_storeu_si128(block.as_mut_ptr().cast(), h);
            let h = u128::from_be_bytes(block);
            // Times x; what is shifted out is x^128 = x^127 + x^126 + x^121 + 1 in reversed notation.
            const OVER: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
            let over = 0u128.wrapping_sub(h >> 127);
            let h = ((h << 1) ^ (over & OVER)).to_le_bytes();
            let h = _mm_loadu_si128(h.as_ptr().cast());
            let mut power = h;
            for at in (0..POWERS).rev() {
                _mm_storeu_si128(key.powers[at].as_mut_ptr().cast(), power);
                let (low, middle, high) = One::two_products(power, h, _mm_setzero_si128(), h);
                power = reduce(low, middle, high);
            }
        }
        key
    }

    /// Asks for the powers that a short packet needs.
    #[inline(always)]
    pub(crate) fn prefetch_short(&self) {
        const SHORT: usize = 7;
        crate::prefetch::part(&self.powers, (POWERS - SHORT) * 16, (SHORT + BEHIND) * 16);
    }

    #[inline(always)]
    fn round<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: of a round key 16 bytes can be read; features as for the kernel this is part of.
        unsafe { V::every(_mm_loadu_si128(self.rounds[at].as_ptr().cast())) }
    }

    #[inline(always)]
    fn power(&self, exponent: usize) -> *const u8 {
        self.powers[POWERS - exponent].as_ptr()
    }
}

/// The place of the last round key.
pub(crate) const fn last_round(key_len: usize) -> usize {
    key_len / 4 + 6
}

/// FIPS 197 §5.2, in words of four bytes.
#[inline(always)]
unsafe fn expand(key: &[u8], rounds: &mut [u8]) {
    let words = key.len() / 4;
    rounds[..key.len()].copy_from_slice(key);
    let mut constant = 1u32;
    for at in words..rounds.len() / 4 {
        let word = |at: usize| rounds[4 * at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let mut new = word(at - 1);
        if at % words == 0 {
            // SAFETY: as this function's.
            new = unsafe { substitute(new) }.rotate_right(8) ^ constant;
            // Times x in AES's field; what would go over is only reached after the last use but for 128-bit keys.
            constant = (constant << 1) ^ if constant & 0x80 == 0 { 0 } else { 0x11b };
        } else if words == 8 && at % words == 4 {
            // SAFETY: as this function's.
            new = unsafe { substitute(new) };
        }
        new ^= word(at - words);
        rounds[4 * at..4 * at + 4].copy_from_slice(&new.to_le_bytes());
    }
}

/// The S-box on each byte. The last round of AES with a key of 0, on a state whose columns are alike: no table, constant time.
#[inline(always)]
unsafe fn substitute(word: u32) -> u32 {
    // SAFETY: features as for the kernel this is part of.
    unsafe { _mm_cvtsi128_si32(_mm_aesenclast_si128(_mm_set1_epi32(word as i32), _mm_setzero_si128())) as u32 }
}

/// One block by AES.
#[inline(always)]
unsafe fn encrypt(rounds: &[Block; ROUND_KEYS], last: usize, block: __m128i) -> __m128i {
    // SAFETY: features as for the kernel this is part of; of a round key 16 bytes can be read.
    unsafe {
        let key = |at: usize| _mm_loadu_si128(rounds[at].as_ptr().cast());
        let mut state = _mm_xor_si128(block, key(0));
        for at in 1..last {
            state = _mm_aesenc_si128(state, key(at));
        }
        _mm_aesenclast_si128(state, key(last))
    }
}

/// A product of 255 bits, in three parts by Karatsuba, modulo GCM's polynomial: two folds of 64 bits each.
#[inline(always)]
unsafe fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    // SAFETY: features as for the kernel this is part of.
    unsafe {
        let polynomial = _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1);
        let middle = _mm_xor_si128(middle, _mm_xor_si128(low, high));
        let fold = |part| _mm_xor_si128(_mm_shuffle_epi32(part, 0x4e), _mm_clmulepi64_si128(polynomial, part, 0x01));
        _mm_xor_si128(high, fold(_mm_xor_si128(middle, fold(low))))
    }
}

/// Products that are not reduced yet.
#[derive(Clone, Copy)]
struct Sum<V> {
    low: V,
    middle: V,
    high: V,
}

impl<V: Lanes> Sum<V> {
    #[inline(always)]
    unsafe fn new() -> Sum<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe { Sum { low: V::zero(), middle: V::zero(), high: V::zero() } }
    }

    /// Adds reversed blocks, each by its power.
    #[inline(always)]
    unsafe fn add(&mut self, blocks: V, powers: V) {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            self.low = self.low.xor(blocks.mul_low(powers));
            self.high = self.high.xor(blocks.mul_high(powers));
            self.middle = self.middle.xor(blocks.xor(blocks.swap()).mul_low(powers.xor(powers.swap())));
        }
    }
}

/// What a packet's counter blocks have in common, and the next counters.
struct Stream<V> {
    /// Nonce and first round key.
    base: V,
    counters: V,
}

impl<V: Lanes> Stream<V> {
    #[inline(always)]
    unsafe fn new(key: &WideKey, nonce: __m128i, block: u32) -> Stream<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe { Stream { base: V::every(nonce).xor(key.round(0)), counters: V::counters(block) } }
    }

    /// The keystream of the next `N` vectors, but for the last round key.
    #[inline(always)]
    unsafe fn next<const N: usize, const LAST: usize>(&mut self, key: &WideKey) -> [V; N] {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let mut states = [V::zero(); N];
            for state in &mut states {
                // A counter stands first in the reversed block, last in the block.
                *state = self.base.xor(self.counters.reverse());
                self.counters = self.counters.advance(V::BLOCKS as u32);
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

/// A packet on its way through the cipher.
struct Work<'k, V> {
    key: &'k WideKey,
    stream: Stream<V>,
    sum: Sum<V>,
    text: *mut u8,
    /// The power of the next block.
    power: *const u8,
    /// What was hashed before, to be added to the next block; reversed.
    carry: __m128i,
}

impl<V: Lanes> Work<'_, V> {
    /// `N` whole vectors.
    #[inline(always)]
    unsafe fn whole<const N: usize, const LAST: usize, const OPEN: bool>(&mut self) {
        // SAFETY: so much text is left, and as many powers; features as for the kernel this is part of.
        unsafe {
            let states = self.stream.next::<N, LAST>(self.key);
            let last = self.key.round::<V>(LAST);
            let mut carry = V::first(self.carry);
            for (n, state) in states.into_iter().enumerate() {
                let place = self.text.add(n * V::BYTES);
                let before = V::load(place);
                let after = state.aes_last(last.xor(before));
                after.store(place);
                let cipher = if OPEN { before } else { after };
                self.sum.add(cipher.reverse().xor(carry), V::load(self.power.add(n * V::BYTES)));
                carry = V::zero();
            }
            self.carry = _mm_setzero_si128();
            self.text = self.text.add(N * V::BYTES);
            self.power = self.power.add(N * V::BYTES);
        }
    }

    /// The last `len` bytes, less than a vector.
    #[inline(always)]
    unsafe fn rest<const LAST: usize, const OPEN: bool>(&mut self, len: usize) {
        // SAFETY: `len` bytes of text are left, and a vector can be read from any power on; features as for the kernel this is part of.
        unsafe {
            let [state] = self.stream.next::<1, LAST>(self.key);
            let before = V::load_part(self.text, len);
            let after = state.aes_last(self.key.round::<V>(LAST).xor(before));
            after.store_part(self.text, len);
            let cipher = if OPEN { before } else { after.part(len) };
            self.sum.add(cipher.reverse().xor(V::first(self.carry)), V::load(self.power));
        }
    }

    /// All of a chunk: up to [`CHUNK`] blocks.
    #[inline(always)]
    unsafe fn chunk<const LAST: usize, const OPEN: bool>(&mut self, mut len: usize) {
        // SAFETY: `len` bytes of text are left, and as many powers as they have blocks.
        unsafe {
            while len >= WIDE * V::BYTES {
                self.whole::<WIDE, LAST, OPEN>();
                len -= WIDE * V::BYTES;
            }
            if len >= 4 * V::BYTES {
                self.whole::<4, LAST, OPEN>();
                len -= 4 * V::BYTES;
            }
            if len >= 2 * V::BYTES {
                self.whole::<2, LAST, OPEN>();
                len -= 2 * V::BYTES;
            }
            if len >= V::BYTES {
                self.whole::<1, LAST, OPEN>();
                len -= V::BYTES;
            }
            if len > 0 {
                self.rest::<LAST, OPEN>(len);
            }
        }
    }
}

/// Encrypts or decrypts a packet in place; its tag.
#[inline(always)]
pub(crate) unsafe fn packet<V: Lanes, const LAST: usize, const OPEN: bool>(
    key: &WideKey,
    nonce: &[u8; NONCE_LEN],
    aad: &Aad,
    text: &mut [u8],
) -> __m128i {
    // SAFETY: `text` is ours to change; the power that each chunk begins with is one for each of its blocks and those behind; features as for the kernel this is part of.
    unsafe {
        let nonce = nonce_block(nonce);
        // SP 800-38D §7.1: block 1 masks the tag, the text begins at block 2.
        let mask = encrypt(&key.rounds, LAST, _mm_or_si128(nonce, _mm_set_epi32(1 << 24, 0, 0, 0)));
        let zero = _mm_setzero_si128();
        let mut work = Work::<V> {
            key,
            stream: Stream::new(key, nonce, 2),
            sum: Sum::new(),
            text: text.as_mut_ptr(),
            power: key.power(1),
            carry: zero,
        };
        let mut data = aad_block(aad);
        let mut left = text.len();
        while left > CHUNK * 16 {
            work.power = key.power(CHUNK);
            work.chunk::<LAST, OPEN>(CHUNK * 16);
            left -= CHUNK * 16;
            // Associated data go with the first chunk.
            let first = V::two_products(data, load(key.power(CHUNK + 1)), zero, zero);
            work.carry = total(&work.sum, first);
            work.sum = Sum::new();
            data = zero;
        }
        let blocks = left.div_ceil(16);
        work.power = key.power(blocks + 1);
        work.chunk::<LAST, OPEN>(left);
        let lengths = _mm_set_epi64x(8 * i64::from(aad.len), 8 * text.len() as i64);
        let around = V::two_products(data, load(key.power(blocks + 2)), lengths, load(key.power(1)));
        _mm_xor_si128(mask, One(total(&work.sum, around)).reverse().0)
    }
}

/// Everything that was multiplied, added up and reduced.
#[inline(always)]
unsafe fn total<V: Lanes>(sum: &Sum<V>, more: (__m128i, __m128i, __m128i)) -> __m128i {
    // SAFETY: features as for the kernel this is part of.
    unsafe {
        let with = |part: V, more| _mm_xor_si128(part.fold(), more);
        reduce(with(sum.low, more.0), with(sum.middle, more.1), with(sum.high, more.2))
    }
}

#[inline(always)]
unsafe fn load(from: *const u8) -> __m128i {
    // SAFETY: the caller's pointer is to a block.
    unsafe { _mm_loadu_si128(from.cast()) }
}

/// The nonce in front of a counter of 0. Loads as narrow as the stores that made it: a wider one would wait for them.
#[inline(always)]
unsafe fn nonce_block(nonce: &[u8; NONCE_LEN]) -> __m128i {
    let (low, high) = nonce.split_at(8);
    let low = low.try_into().map_or(0, u64::from_le_bytes);
    let high = high.try_into().map_or(0, u32::from_le_bytes);
    // SAFETY: features as for the kernel this is part of.
    unsafe { _mm_set_epi64x(i64::from(high), low as i64) }
}

/// Associated data as a reversed block.
#[inline(always)]
unsafe fn aad_block(aad: &Aad) -> __m128i {
    let [first, second] = aad.words;
    // SAFETY: features as for the kernel this is part of.
    unsafe { _mm_set_epi64x(first.swap_bytes() as i64, second.swap_bytes() as i64) }
}

/// XORs the keystream from block `block` of a packet on onto `len` bytes, from one place to another or to the same.
#[inline(always)]
pub(crate) unsafe fn stream<V: Lanes, const LAST: usize>(
    key: &WideKey,
    nonce: &[u8; NONCE_LEN],
    block: u32,
    mut from: *const u8,
    mut to: *mut u8,
    mut len: usize,
) {
    // SAFETY: the caller's pointers are to `len` bytes; features as for the kernel this is part of.
    unsafe {
        let mut stream = Stream::<V>::new(key, nonce_block(nonce), block.wrapping_add(2));
        let last = key.round::<V>(LAST);
        while len >= V::BYTES {
            let [state] = stream.next::<1, LAST>(key);
            state.aes_last(last.xor(V::load(from))).store(to);
            (from, to) = (from.add(V::BYTES), to.add(V::BYTES));
            len -= V::BYTES;
        }
        if len > 0 {
            let [state] = stream.next::<1, LAST>(key);
            state.aes_last(last.xor(V::load_part(from, len))).store_part(to, len);
        }
    }
}

/// Whether two tags are the same, without telling where they differ.
#[inline(always)]
pub(crate) unsafe fn same(tag: __m128i, other: &[u8; TAG_LEN]) -> bool {
    // SAFETY: features as for the kernel this is part of; a tag is a block.
    unsafe {
        let differ = _mm_xor_si128(tag, load(other.as_ptr()));
        _mm_testz_si128(differ, differ) == 1
    }
}
