//! Two blocks.

use std::arch::x86_64::*;

use super::{Lanes, MASK, One, pin_256, reversed};

/// 32 bytes: VAES, VPCLMULQDQ, AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Two(pub(super) __m256i);

impl Lanes for Two {
    const BLOCKS: usize = 2;
    const MOST: usize = 9;

    #[inline(always)]
    unsafe fn zero() -> Two {
        run!(Two(_mm256_setzero_si256()))
    }
    #[inline(always)]
    unsafe fn every(block: __m128i) -> Two {
        run!(Two(_mm256_broadcastsi128_si256(block)))
    }
    #[inline(always)]
    unsafe fn first(block: __m128i) -> Two {
        run!(Two(_mm256_zextsi128_si256(block)))
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> Two {
        run!(Two(_mm256_loadu_si256(from.cast())))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        run!(_mm256_storeu_si256(to.cast(), self.0))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const u8, len: usize) -> Two {
        run! {
            if len == 32 {
                return Two::load(from);
            }
            if len >= 16 {
                let high = One::load_part(from.add(16), len - 16);
                Two(_mm256_set_m128i(high.0, One::load(from).0))
            } else {
                Two(_mm256_zextsi128_si256(One::load_part(from, len).0))
            }
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        run! {
            if len == 32 {
                return self.store(to);
            }
            let [low, high] = [_mm256_castsi256_si128(self.0), _mm256_extracti128_si256(self.0, 1)];
            if len >= 16 {
                One(low).store(to);
                One(high).store_part(to.add(16), len - 16);
            } else {
                One(low).store_part(to, len);
            }
        }
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> Two {
        run!(Two(_mm256_and_si256(self.0, _mm256_loadu_si256(MASK.as_ptr().add(32 - len).cast()))))
    }
    #[inline(always)]
    unsafe fn pin(self) -> Two {
        run!(Two(pin_256(self.0)))
    }
    #[inline(always)]
    unsafe fn xor(self, other: Two) -> Two {
        run!(Two(_mm256_xor_si256(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn aes(self, round_key: Two) -> Two {
        run!(Two(_mm256_aesenc_epi128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn aes_last(self, round_key: Two) -> Two {
        run!(Two(_mm256_aesenclast_epi128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn reverse(self) -> Two {
        run!(Two(_mm256_shuffle_epi8(self.0, _mm256_broadcastsi128_si256(reversed()))))
    }
    #[inline(always)]
    unsafe fn swap(self) -> Two {
        run!(Two(_mm256_shuffle_epi32(self.0, 0x4e)))
    }
    #[inline(always)]
    unsafe fn both_low(self, other: Two) -> Two {
        run!(Two(_mm256_unpacklo_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn both_high(self, other: Two) -> Two {
        run!(Two(_mm256_unpackhi_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Two) -> Two {
        run!(Two(_mm256_clmulepi64_epi128(self.0, other.0, 0x00)))
    }
    #[inline(always)]
    unsafe fn mul_high(self, other: Two) -> Two {
        run!(Two(_mm256_clmulepi64_epi128(self.0, other.0, 0x11)))
    }
    #[inline(always)]
    unsafe fn counters(block: u32) -> Two {
        let [a, b] = [block, block.wrapping_add(1)].map(|n| n as i32);
        run!(Two(_mm256_set_epi32(0, 0, 0, b, 0, 0, 0, a)))
    }
    #[inline(always)]
    unsafe fn advance(self, by: u32) -> Two {
        run!(Two(_mm256_add_epi32(self.0, Two::every(_mm_set_epi32(0, 0, 0, by as i32)).0)))
    }
    #[inline(always)]
    unsafe fn with_upper(self, other: Two) -> Two {
        run!(Two(_mm256_blend_epi32(self.0, other.0, 0xf0)))
    }
    #[inline(always)]
    unsafe fn fold(self) -> __m128i {
        run!(_mm_xor_si128(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256(self.0, 1)))
    }
    #[inline(always)]
    unsafe fn mul_cross(self, other: Two) -> Two {
        run!(Two(_mm256_clmulepi64_epi128(self.0, other.0, 0x01)))
    }
    #[inline(always)]
    unsafe fn with_last(self, other: Two) -> Two {
        run!(Two(_mm256_blend_epi32(self.0, other.0, 0xf0)))
    }
    #[inline(always)]
    unsafe fn blocks(of: [__m128i; 4]) -> Two {
        run!(Two(_mm256_set_m128i(of[1], of[0])))
    }
    #[inline(always)]
    unsafe fn sums(of: [Two; 4]) -> Two {
        run! {
            let (a, b) = (of[0].0, of[1].0);
            let crossed = _mm256_permute2x128_si256(a, b, 0x21);
            Two(_mm256_xor_si256(_mm256_blend_epi32(a, b, 0xf0), crossed))
        }
    }
    #[inline(always)]
    unsafe fn lasts(of: [Two; 4]) -> Two {
        run!(Two(_mm256_permute2x128_si256(of[0].0, of[1].0, 0x31)))
    }
    #[inline(always)]
    unsafe fn each(self) -> [__m128i; 4] {
        run! {
            let [low, high] = [_mm256_castsi256_si128(self.0), _mm256_extracti128_si256(self.0, 1)];
            [low, high, _mm_setzero_si128(), _mm_setzero_si128()]
        }
    }
    #[inline(always)]
    unsafe fn same(self, other: Two) -> u32 {
        run! {
            let same = _mm256_movemask_epi8(_mm256_cmpeq_epi8(self.0, other.0)) as u32;
            u32::from(same & 0xffff == 0xffff) | u32::from(same >> 16 == 0xffff) << 1
        }
    }
}
