//! Four blocks.

use std::arch::x86_64::*;

use super::{Lanes, Two, pin_512, reversed};

/// 64 bytes: VAES, VPCLMULQDQ, AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Four(__m512i);

/// The first `len` bits, all from 64 on.
#[inline(always)]
fn bits(len: usize) -> __mmask64 {
    // SAFETY: features as for the kernel this is part of.
    unsafe { _bzhi_u64(u64::MAX, len as u32) }
}

impl Lanes for Four {
    const BLOCKS: usize = 4;
    const MOST: usize = 12;
    const ROOMY: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Four {
        run!(Four(_mm512_setzero_si512()))
    }
    #[inline(always)]
    unsafe fn every(block: __m128i) -> Four {
        run!(Four(_mm512_broadcast_i32x4(block)))
    }
    #[inline(always)]
    unsafe fn first(block: __m128i) -> Four {
        run!(Four(_mm512_zextsi128_si512(block)))
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Four {
        run!(Four(_mm512_loadu_si512(from.cast())))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        run!(_mm512_storeu_si512(to.cast(), self.0))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const u8, len: usize) -> Four {
        // What is not loaded is waited for nevertheless if it was stored just now.
        static NOTHING: [u8; 64] = [0; 64];
        let from = if len == 0 { NOTHING.as_ptr() } else { from };
        run!(Four(_mm512_maskz_loadu_epi8(bits(len), from.cast())))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        // A masked store is slow, and slower for whoever reads the same bytes soon.
        run! {
            if len == 64 {
                self.store(to);
            } else if len != 0 {
                _mm512_mask_storeu_epi8(to.cast(), bits(len), self.0);
            }
        }
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> Four {
        run!(Four(_mm512_maskz_mov_epi8(bits(len), self.0)))
    }
    #[inline(always)]
    unsafe fn pin(self) -> Four {
        run!(Four(pin_512(self.0)))
    }
    #[inline(always)]
    unsafe fn xor(self, other: Four) -> Four {
        run!(Four(_mm512_xor_si512(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn xor3(self, second: Four, third: Four) -> Four {
        run!(Four(_mm512_ternarylogic_epi64(self.0, second.0, third.0, 0x96)))
    }
    #[inline(always)]
    unsafe fn aes(self, round_key: Four) -> Four {
        run!(Four(_mm512_aesenc_epi128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn aes_last(self, round_key: Four) -> Four {
        run!(Four(_mm512_aesenclast_epi128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn reverse(self) -> Four {
        run!(Four(_mm512_shuffle_epi8(self.0, _mm512_broadcast_i32x4(reversed()))))
    }
    #[inline(always)]
    unsafe fn swap(self) -> Four {
        run!(Four(_mm512_shuffle_epi32(self.0, 0x4e)))
    }
    #[inline(always)]
    unsafe fn both_low(self, other: Four) -> Four {
        run!(Four(_mm512_unpacklo_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn both_high(self, other: Four) -> Four {
        run!(Four(_mm512_unpackhi_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Four) -> Four {
        run!(Four(_mm512_clmulepi64_epi128(self.0, other.0, 0x00)))
    }
    #[inline(always)]
    unsafe fn mul_high(self, other: Four) -> Four {
        run!(Four(_mm512_clmulepi64_epi128(self.0, other.0, 0x11)))
    }
    #[inline(always)]
    unsafe fn counters(block: u32) -> Four {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| block.wrapping_add(n) as i32);
        run!(Four(_mm512_set_epi32(0, 0, 0, d, 0, 0, 0, c, 0, 0, 0, b, 0, 0, 0, a)))
    }
    #[inline(always)]
    unsafe fn advance(self, by: u32) -> Four {
        run!(Four(_mm512_add_epi32(self.0, Four::every(_mm_set_epi32(0, 0, 0, by as i32)).0)))
    }
    #[inline(always)]
    unsafe fn with_upper(self, other: Four) -> Four {
        run!(Four(_mm512_mask_mov_epi64(self.0, 0xf0, other.0)))
    }
    #[inline(always)]
    unsafe fn fold(self) -> __m128i {
        run!(Two(_mm256_xor_si256(_mm512_castsi512_si256(self.0), _mm512_extracti64x4_epi64(self.0, 1))).fold())
    }
    #[inline(always)]
    unsafe fn mul_cross(self, other: Four) -> Four {
        run!(Four(_mm512_clmulepi64_epi128(self.0, other.0, 0x01)))
    }
    #[inline(always)]
    unsafe fn with_last(self, other: Four) -> Four {
        run!(Four(_mm512_mask_mov_epi64(self.0, 0xc0, other.0)))
    }
    #[inline(always)]
    unsafe fn blocks(of: [__m128i; 4]) -> Four {
        run! {
            let [low, high] = [_mm256_set_m128i(of[1], of[0]), _mm256_set_m128i(of[3], of[2])];
            Four(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1))
        }
    }
    #[inline(always)]
    unsafe fn sums(of: [Four; 4]) -> Four {
        run! {
            // Halves of two vectors each, then quarters of both.
            let [a, b, c, d] = [of[0].0, of[1].0, of[2].0, of[3].0];
            let ab = _mm512_xor_si512(_mm512_mask_mov_epi64(a, 0xf0, b), _mm512_shuffle_i64x2(a, b, 0x4e));
            let cd = _mm512_xor_si512(_mm512_mask_mov_epi64(c, 0xf0, d), _mm512_shuffle_i64x2(c, d, 0x4e));
            Four(_mm512_xor_si512(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd)))
        }
    }
    #[inline(always)]
    unsafe fn lasts(of: [Four; 4]) -> Four {
        run! {
            let (ab, cd) = (_mm512_shuffle_i64x2(of[0].0, of[1].0, 0xff), _mm512_shuffle_i64x2(of[2].0, of[3].0, 0xff));
            Four(_mm512_shuffle_i64x2(ab, cd, 0x88))
        }
    }
    #[inline(always)]
    unsafe fn each(self) -> [__m128i; 4] {
        run! {
            let [first, second] = [_mm512_castsi512_si128(self.0), _mm512_extracti32x4_epi32(self.0, 1)];
            [first, second, _mm512_extracti32x4_epi32(self.0, 2), _mm512_extracti32x4_epi32(self.0, 3)]
        }
    }
    #[inline(always)]
    unsafe fn same(self, other: Four) -> u32 {
        run! {
            let same = u32::from(_mm512_cmpeq_epi64_mask(self.0, other.0));
            let both = same & same >> 1;
            both & 1 | both >> 1 & 2 | both >> 2 & 4 | both >> 3 & 8
        }
    }
}
