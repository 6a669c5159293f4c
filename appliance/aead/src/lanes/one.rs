//! One block.

use std::arch::x86_64::*;

use super::{Lanes, MASK, pin_128, reversed};

/// 16 bytes: AES-NI, PCLMULQDQ, SSE4.1.
#[derive(Clone, Copy)]
pub(crate) struct One(pub(crate) __m128i);

impl One {
    /// As a number, the first byte the lowest.
    #[inline(always)]
    unsafe fn halves(self) -> u128 {
        run! {
            let [low, high] = [_mm_cvtsi128_si64(self.0), _mm_extract_epi64(self.0, 1)];
            u128::from(high as u64) << 64 | u128::from(low as u64)
        }
    }
}

impl Lanes for One {
    const BLOCKS: usize = 1;
    const MOST: usize = 9;

    #[inline(always)]
    unsafe fn zero() -> One {
        run!(One(_mm_setzero_si128()))
    }
    #[inline(always)]
    unsafe fn every(block: __m128i) -> One {
        One(block)
    }
    #[inline(always)]
    unsafe fn first(block: __m128i) -> One {
        One(block)
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> One {
        run!(One(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        run!(_mm_storeu_si128(to.cast(), self.0))
    }
    #[inline(always)]
    unsafe fn load_part(from: *const u8, len: usize) -> One {
        run! {
            if len == 16 {
                return One::load(from);
            }
            // Two reads that overlap.
            let bytes = if len >= 8 {
                let high = u128::from(from.add(len).sub(8).cast::<u64>().read_unaligned());
                u128::from(from.cast::<u64>().read_unaligned()) | high << (8 * (len - 8))
            } else if len >= 4 {
                let high = u128::from(from.add(len).sub(4).cast::<u32>().read_unaligned());
                u128::from(from.cast::<u32>().read_unaligned()) | high << (8 * (len - 4))
            } else {
                (0..len).fold(0, |bytes, at| bytes | u128::from(from.add(at).read()) << (8 * at))
            };
            One(_mm_set_epi64x((bytes >> 64) as i64, bytes as i64))
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        run! {
            if len == 16 {
                return self.store(to);
            }
            let bytes = self.halves();
            if len >= 8 {
                to.cast::<u64>().write_unaligned(bytes as u64);
                to.add(len).sub(8).cast::<u64>().write_unaligned((bytes >> (8 * (len - 8))) as u64);
            } else if len >= 4 {
                to.cast::<u32>().write_unaligned(bytes as u32);
                to.add(len).sub(4).cast::<u32>().write_unaligned((bytes >> (8 * (len - 4))) as u32);
            } else {
                for at in 0..len {
                    to.add(at).write((bytes >> (8 * at)) as u8);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> One {
        run!(One(_mm_and_si128(self.0, _mm_loadu_si128(MASK.as_ptr().add(32 - len).cast()))))
    }
    #[inline(always)]
    unsafe fn pin(self) -> One {
        run!(One(pin_128(self.0)))
    }
    #[inline(always)]
    unsafe fn xor(self, other: One) -> One {
        run!(One(_mm_xor_si128(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn aes(self, round_key: One) -> One {
        run!(One(_mm_aesenc_si128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn aes_last(self, round_key: One) -> One {
        run!(One(_mm_aesenclast_si128(self.0, round_key.0)))
    }
    #[inline(always)]
    unsafe fn reverse(self) -> One {
        run!(One(_mm_shuffle_epi8(self.0, reversed())))
    }
    #[inline(always)]
    unsafe fn swap(self) -> One {
        run!(One(_mm_shuffle_epi32(self.0, 0x4e)))
    }
    #[inline(always)]
    unsafe fn both_low(self, other: One) -> One {
        run!(One(_mm_unpacklo_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn both_high(self, other: One) -> One {
        run!(One(_mm_unpackhi_epi64(self.0, other.0)))
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: One) -> One {
        run!(One(_mm_clmulepi64_si128(self.0, other.0, 0x00)))
    }
    #[inline(always)]
    unsafe fn mul_high(self, other: One) -> One {
        run!(One(_mm_clmulepi64_si128(self.0, other.0, 0x11)))
    }
    #[inline(always)]
    unsafe fn counters(block: u32) -> One {
        run!(One(_mm_set_epi32(0, 0, 0, block as i32)))
    }
    #[inline(always)]
    unsafe fn advance(self, by: u32) -> One {
        run!(One(_mm_add_epi32(self.0, _mm_set_epi32(0, 0, 0, by as i32))))
    }
    #[inline(always)]
    unsafe fn with_upper(self, other: One) -> One {
        other
    }
    #[inline(always)]
    unsafe fn fold(self) -> __m128i {
        self.0
    }
    #[inline(always)]
    unsafe fn mul_cross(self, other: One) -> One {
        run!(One(_mm_clmulepi64_si128(self.0, other.0, 0x01)))
    }
    #[inline(always)]
    unsafe fn with_last(self, other: One) -> One {
        other
    }
    #[inline(always)]
    unsafe fn blocks(of: [__m128i; 4]) -> One {
        One(of[0])
    }
    #[inline(always)]
    unsafe fn sums(of: [One; 4]) -> One {
        of[0]
    }
    #[inline(always)]
    unsafe fn lasts(of: [One; 4]) -> One {
        of[0]
    }
    #[inline(always)]
    unsafe fn each(self) -> [__m128i; 4] {
        run!([self.0, _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()])
    }
    #[inline(always)]
    unsafe fn same(self, other: One) -> u32 {
        run! {
            let differ = _mm_xor_si128(self.0, other.0);
            _mm_testz_si128(differ, differ) as u32
        }
    }
}
