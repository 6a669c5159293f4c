//! Vectors of 16-byte blocks: the few operations that AES-GCM needs, in each width that a processor may have.
//!
//! The methods are safe to *inline* anywhere and safe to *run* only where the processor has the features that the type names: the
//! kernels are entered through functions with those features enabled, and only after they were detected.

use std::arch::x86_64::*;

/// The body of a method of [`Lanes`]: an instruction or a few.
macro_rules! run {
    ($($body:tt)*) => {
        // SAFETY: the contract of the trait, which whoever calls a method keeps: the features, and so many bytes behind a pointer.
        unsafe { $($body)* }
    };
}

/// Some blocks side by side. A block is as it stands in memory unless it is said to be reversed: GHASH works on the bytes of a block
/// in reverse (NIST SP 800-38D §6.3 numbers bits the other way round).
///
/// # Safety
/// Of every method: the processor has the implementation's features. Of those with a pointer: so many bytes may be read or written
/// there.
pub(crate) trait Lanes: Copy {
    /// Blocks in a vector.
    const BLOCKS: usize;
    /// Bytes in a vector.
    const BYTES: usize = Self::BLOCKS * 16;

    unsafe fn zero() -> Self;
    /// The same block in every lane.
    unsafe fn every(block: __m128i) -> Self;
    /// The block in the first lane, zeros in the others.
    unsafe fn first(block: __m128i) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// The first `len` bytes, less than a vector; zeros behind.
    unsafe fn load_part(from: *const u8, len: usize) -> Self;
    unsafe fn store_part(self, to: *mut u8, len: usize);
    /// Zeros behind the first `len` bytes, less than a vector.
    unsafe fn part(self, len: usize) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn aes(self, round_key: Self) -> Self;
    unsafe fn aes_last(self, round_key: Self) -> Self;
    /// The bytes of each block in reverse.
    unsafe fn reverse(self) -> Self;
    /// The halves of each block change places.
    unsafe fn swap(self) -> Self;
    /// Carry-less products of the halves of each block: low by low.
    unsafe fn mul_low(self, other: Self) -> Self;
    /// High by high.
    unsafe fn mul_high(self, other: Self) -> Self;
    /// The counters `block`, `block + 1`, ... in the last four bytes of the *reversed* blocks' opposite end: little-endian in the first.
    unsafe fn counters(block: u32) -> Self;
    /// Each counter that many further.
    unsafe fn advance(self, by: u32) -> Self;
    /// The sum (XOR) of all lanes.
    unsafe fn fold(self) -> __m128i;
    /// Low, middle and high products (Karatsuba) of `a` by `x` and `b` by `y`, added up.
    unsafe fn two_products(a: __m128i, x: __m128i, b: __m128i, y: __m128i) -> (__m128i, __m128i, __m128i);
}

/// Bytes of a block in reverse.
#[inline(always)]
unsafe fn reversed() -> __m128i {
    run!(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// Bytes behind the first `len` of a vector: a window of this, at 64 - len, has ones and then zeros.
static MASK: [u8; 64] = {
    let mut mask = [0; 64];
    let mut at = 0;
    while at < 32 {
        mask[at] = 0xff;
        at += 1;
    }
    mask
};

/// 16 bytes: AES-NI, PCLMULQDQ, SSE4.1.
#[derive(Clone, Copy)]
pub(crate) struct One(pub(crate) __m128i);

impl Lanes for One {
    const BLOCKS: usize = 1;

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
            let mut bytes = [0; 16];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len);
            One::load(bytes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        run! {
            let mut bytes = [0; 16];
            self.store(bytes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len);
        }
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> One {
        run!(One(_mm_and_si128(self.0, _mm_loadu_si128(MASK.as_ptr().add(32 - len).cast()))))
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
    unsafe fn fold(self) -> __m128i {
        self.0
    }
    #[inline(always)]
    unsafe fn two_products(a: __m128i, x: __m128i, b: __m128i, y: __m128i) -> (__m128i, __m128i, __m128i) {
        run! {
            let ((a, x), (b, y)) = ((One(a), One(x)), (One(b), One(y)));
            let low = a.mul_low(x).xor(b.mul_low(y));
            let high = a.mul_high(x).xor(b.mul_high(y));
            let sums = |v: One| v.xor(v.swap());
            let middle = sums(a).mul_low(sums(x)).xor(sums(b).mul_low(sums(y)));
            (low.0, middle.0, high.0)
        }
    }
}

/// 32 bytes: VAES, VPCLMULQDQ, AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Two(__m256i);

impl Lanes for Two {
    const BLOCKS: usize = 2;

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
            let mut bytes = [0; 32];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len);
            Two::load(bytes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        run! {
            let mut bytes = [0; 32];
            self.store(bytes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len);
        }
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> Two {
        run!(Two(_mm256_and_si256(self.0, _mm256_loadu_si256(MASK.as_ptr().add(32 - len).cast()))))
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
    unsafe fn fold(self) -> __m128i {
        run!(_mm_xor_si128(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256(self.0, 1)))
    }
    #[inline(always)]
    unsafe fn two_products(a: __m128i, x: __m128i, b: __m128i, y: __m128i) -> (__m128i, __m128i, __m128i) {
        run! {
            let (ab, xy) = (Two(_mm256_set_m128i(b, a)), Two(_mm256_set_m128i(y, x)));
            let middle = ab.xor(ab.swap()).mul_low(xy.xor(xy.swap()));
            (ab.mul_low(xy).fold(), middle.fold(), ab.mul_high(xy).fold())
        }
    }
}

/// 64 bytes: VAES, VPCLMULQDQ, AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Four(__m512i);

#[inline(always)]
fn bits(len: usize) -> __mmask64 {
    // len is below 64.
    (1 << len) - 1
}

impl Lanes for Four {
    const BLOCKS: usize = 4;

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
        run!(Four(_mm512_maskz_loadu_epi8(bits(len), from.cast())))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        run!(_mm512_mask_storeu_epi8(to.cast(), bits(len), self.0))
    }
    #[inline(always)]
    unsafe fn part(self, len: usize) -> Four {
        run!(Four(_mm512_maskz_mov_epi8(bits(len), self.0)))
    }
    #[inline(always)]
    unsafe fn xor(self, other: Four) -> Four {
        run!(Four(_mm512_xor_si512(self.0, other.0)))
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
    unsafe fn fold(self) -> __m128i {
        run!(Two(_mm256_xor_si256(_mm512_castsi512_si256(self.0), _mm512_extracti64x4_epi64(self.0, 1))).fold())
    }
    #[inline(always)]
    unsafe fn two_products(a: __m128i, x: __m128i, b: __m128i, y: __m128i) -> (__m128i, __m128i, __m128i) {
        run!(Two::two_products(a, x, b, y))
    }
}
