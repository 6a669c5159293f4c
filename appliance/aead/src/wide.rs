//! What a vector kernel needs of a key: round keys, and powers of the hash key.

use std::arch::x86_64::*;

use crate::gcm::{self, Block};
use crate::key::Head;
use crate::lanes::Lanes;

/// H^1 to this: enough for what is hashed without a reduction, with associated data before and lengths behind it.
pub(crate) const POWERS: usize = 72;
/// Of AES-256; AES-128 has 11.
pub(crate) const ROUND_KEYS: usize = 15;

/// An expanded key. Wiped on drop.
///
/// In the order of use, and of cache lines of 64 bytes: a short packet reads the last powers, which end with a line, and the round
/// keys, which end with one for AES-128. Behind H^1 a vector may be read that begins with it: there is no packing.
#[repr(C, align(64))]
pub(crate) struct WideKey {
    /// H^POWERS .. H^1, each reversed and times x (Gueron's form, in which a reduction needs no shift).
    powers: [Block; POWERS],
    pub(crate) head: Head,
    /// FIPS 197 §5.2: 11 of them for AES-128, 15 for AES-256.
    rounds: [Block; ROUND_KEYS],
}

const _: () = assert!(size_of::<WideKey>() == 1408 && size_of::<Head>() == 16);

impl Drop for WideKey {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.powers.zeroize();
        self.rounds.zeroize();
    }
}

impl WideKey {
    /// Of no key.
    pub(crate) const fn none(head: Head) -> WideKey {
        WideKey { powers: [[0; 16]; POWERS], head, rounds: [[0; 16]; ROUND_KEYS] }
    }

    /// Of a cipher key of 16 or 32 bytes.
    #[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
    pub(crate) fn new(head: Head, cipher_key: &[u8]) -> WideKey {
        let last = last_round(cipher_key.len() == 32);
        let mut key = WideKey::none(head);
        // SAFETY: this function has the features.
        unsafe {
            expand(cipher_key, &mut key.rounds.as_flattened_mut()[..16 * (last + 1)]);
            let h = gcm::encrypt(&key, last, _mm_setzero_si128());
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
                power = gcm::multiply(power, h);
            }
        }
        key
    }

    /// Asks for what a packet of that many bytes needs: a power of the hash key for each block, as far as there are powers, and for
    /// what stands around them; the round keys.
    #[inline(always)]
    pub(crate) fn prefetch_for(&self, len: usize) {
        let powers = 16 * (len / 16 + 3).next_multiple_of(4).min(POWERS);
        crate::prefetch::part(self, POWERS * 16 - powers, powers + 3 * crate::prefetch::LINE);
    }

    /// Asks for what a peek needs. Of AES-256 one line more; but which it is would have to be read here, and waited for.
    #[inline(always)]
    pub(crate) fn prefetch_rounds(&self) {
        crate::prefetch::part(self, POWERS * 16, 3 * crate::prefetch::LINE);
    }

    #[inline(always)]
    pub(crate) fn round<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: of a round key 16 bytes can be read; features as for the kernel this is part of.
        unsafe { V::every(_mm_loadu_si128(self.rounds.as_ptr().add(at).cast())) }
    }

    /// H to the power of `exponent`, at most [`POWERS`], and those below behind it. From H^1 on a vector of any width can be read.
    #[inline(always)]
    pub(crate) fn power(&self, exponent: usize) -> *const u8 {
        // Of the whole key, for what is behind the powers.
        std::ptr::from_ref(self).cast::<u8>().wrapping_add(POWERS.wrapping_sub(exponent).wrapping_mul(16))
    }
}

/// The place of the last round key.
#[inline(always)]
pub(crate) const fn last_round(aes_256: bool) -> usize {
    if aes_256 { 14 } else { 10 }
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
