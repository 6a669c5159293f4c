//! One packet of any length by itself: for those that no other of a burst is like, and as the narrowest kernel does best with all but
//! short ones.
//!
//! The processor overlaps packets as long as none of them stalls it. Keystream and GHASH are made for up to eight vectors at a time,
//! products are reduced once per [`CHUNK`] blocks.

use std::arch::x86_64::*;

use crate::gcm::{self, Stream, Sum};
use crate::lanes::{Lanes, One};
use crate::packet::{Packet, blocks};
use crate::wide::WideKey;

/// Blocks between two reductions.
const CHUNK: usize = 64;

/// A packet on its way through the cipher.
struct Work<'k, V> {
    key: &'k WideKey,
    stream: Stream<V>,
    sum: Sum<V>,
    text: *mut u8,
    /// What is to be hashed next.
    cipher: *const u8,
    /// The power of the next block.
    power: *const u8,
    /// What was hashed before, to be added to the next block; reversed.
    carry: __m128i,
}

impl<V: Lanes> Work<'_, V> {
    /// `N` whole vectors through AES.
    #[inline(always)]
    unsafe fn crypt<const N: usize, const LAST: usize>(&mut self) {
        // SAFETY: so much text is left; features as for the kernel this is part of.
        unsafe {
            let states = self.stream.vectors::<N, LAST>(self.key);
            let last = self.key.round::<V>(LAST);
            for (n, state) in states.into_iter().enumerate() {
                let place = self.text.wrapping_add(n * V::BYTES);
                state.aes_last(last.xor(V::load(place))).store(place);
            }
            self.text = self.text.wrapping_add(N * V::BYTES);
        }
    }

    /// `N` whole vectors of ciphertext through GHASH.
    #[inline(always)]
    unsafe fn hash<const N: usize>(&mut self) {
        // SAFETY: so much text is not hashed, and as many powers are there; features as for the kernel this is part of.
        unsafe {
            let mut ciphers = [V::zero(); N];
            for (n, cipher) in ciphers.iter_mut().enumerate() {
                *cipher = V::load(self.cipher.wrapping_add(n * V::BYTES)).reverse();
            }
            ciphers[0] = ciphers[0].xor(V::first(self.carry));
            let power = |n: usize| V::load(self.power.wrapping_add(n * V::BYTES));
            for n in if V::ROOMY { N / 2 * 2..N } else { 0..N } {
                self.sum.add(ciphers[n], power(n));
            }
            for n in (0..if V::ROOMY { N / 2 * 2 } else { 0 }).step_by(2) {
                self.sum.add_two([ciphers[n], ciphers[n + 1]], [power(n), power(n + 1)]);
            }
            self.carry = _mm_setzero_si128();
            self.cipher = self.cipher.wrapping_add(N * V::BYTES);
            self.power = self.power.wrapping_add(N * V::BYTES);
        }
    }

    /// `N` whole vectors.
    #[inline(always)]
    unsafe fn whole<const N: usize, const LAST: usize, const OPEN: bool>(&mut self) {
        // SAFETY: as of both.
        unsafe {
            if OPEN {
                self.hash::<N>();
                self.crypt::<N, LAST>();
            } else {
                self.crypt::<N, LAST>();
                self.hash::<N>();
            }
        }
    }

    /// As many times eight whole vectors as there are. When sealing, eight are hashed beside AES of the next.
    #[inline(always)]
    unsafe fn eights<const LAST: usize, const OPEN: bool>(&mut self, mut len: usize) -> usize {
        // SAFETY: as of both.
        unsafe {
            if !OPEN && len >= 8 * V::BYTES {
                self.crypt::<8, LAST>();
                len = len.wrapping_sub(8 * V::BYTES);
                while len >= 8 * V::BYTES {
                    self.hash::<8>();
                    self.crypt::<8, LAST>();
                    len = len.wrapping_sub(8 * V::BYTES);
                }
                self.hash::<8>();
            }
            while OPEN && len >= 8 * V::BYTES {
                self.whole::<8, LAST, OPEN>();
                len = len.wrapping_sub(8 * V::BYTES);
            }
            len
        }
    }

    /// The last `len` bytes, less than a vector.
    #[inline(always)]
    unsafe fn rest<const LAST: usize, const OPEN: bool>(&mut self, len: usize) {
        // SAFETY: `len` bytes of text are left, and a vector can be read from any power on; features as for the kernel this is part of.
        unsafe {
            let [state] = self.stream.vectors::<1, LAST>(self.key);
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
            len = self.eights::<LAST, OPEN>(len);
            if len >= 4 * V::BYTES {
                self.whole::<4, LAST, OPEN>();
                len = len.wrapping_sub(4 * V::BYTES);
            }
            if len >= 2 * V::BYTES {
                self.whole::<2, LAST, OPEN>();
                len = len.wrapping_sub(2 * V::BYTES);
            }
            if len >= V::BYTES {
                self.whole::<1, LAST, OPEN>();
                len = len.wrapping_sub(V::BYTES);
            }
            if len > 0 {
                self.rest::<LAST, OPEN>(len);
            }
        }
    }
}

/// Seals or opens a packet.
#[inline(always)]
pub(crate) unsafe fn single<V: Lanes, P: Packet, const LAST: usize>(packet: *mut P) {
    // SAFETY: the caller's pointer is to an operation, all whose text is ours to change; the power that each chunk begins with is one
    // for each of its blocks and those behind; features as for the kernel this is part of.
    unsafe {
        let this = &*packet.cast_const();
        let (key, len) = (this.key().wide(), this.len());
        let nonce = gcm::nonce_block(this.nonce());
        // SP 800-38D §7.1: block 1 masks the tag, the text begins at block 2.
        let mask = gcm::encrypt(key, LAST, _mm_or_si128(nonce, _mm_set_epi32(1 << 24, 0, 0, 0)));
        let mut work = Work::<V> {
            key,
            stream: Stream::new(key, nonce, 2),
            sum: Sum::new(),
            text: P::text(packet),
            cipher: P::text(packet),
            power: key.power(1),
            carry: _mm_setzero_si128(),
        };
        let mut data = One(gcm::aad_block(this.aad())).reverse().0;
        let mut left = len;
        while left > CHUNK * 16 {
            work.power = key.power(CHUNK);
            if P::OPEN {
                work.chunk::<LAST, true>(CHUNK * 16)
            } else {
                work.chunk::<LAST, false>(CHUNK * 16)
            }
            left = left.wrapping_sub(CHUNK * 16);
            // Associated data go with the first chunk.
            work.sum.add_block(data, key.power(CHUNK + 1));
            data = _mm_setzero_si128();
            work.carry = work.sum.total();
            work.sum = Sum::new();
        }
        work.power = key.power(blocks(left).wrapping_add(1));
        if P::OPEN {
            work.chunk::<LAST, true>(left)
        } else {
            work.chunk::<LAST, false>(left)
        }
        let lengths = _mm_set_epi64x(8 * this.aad().len() as i64, len.wrapping_mul(8) as i64);
        work.sum.add_block(data, key.power(blocks(left).wrapping_add(2)));
        work.sum.add_block(lengths, key.power(1));
        P::settle_one::<V>(packet, _mm_xor_si128(mask, One(work.sum.total()).reverse().0));
    }
}
