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

mod four;
mod one;
mod two;

pub(crate) use four::Four;
pub(crate) use one::One;
pub(crate) use two::Two;

/// Some blocks side by side. A block is as it stands in memory unless it is said to be reversed: GHASH works on the bytes of a block
/// in reverse (NIST SP 800-38D §6.3 numbers bits the other way round).
///
/// # Safety
/// Of every method: the processor has the implementation's features. Of those with a pointer: so many bytes may be read or written
/// there.
pub(crate) trait Lanes: Copy {
    /// Blocks in a vector.
    const BLOCKS: usize;
    /// The most vectors of a packet that is worked on as a whole: as the registers allow.
    const MOST: usize;
    /// There are 32 registers, not 16.
    const ROOMY: bool = false;
    /// Bytes in a vector.
    const BYTES: usize = Self::BLOCKS * 16;

    unsafe fn zero() -> Self;
    /// The same block in every lane.
    unsafe fn every(block: __m128i) -> Self;
    /// The block in the first lane, zeros in the others.
    unsafe fn first(block: __m128i) -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// The first `len` bytes, at most a vector; zeros behind.
    unsafe fn load_part(from: *const u8, len: usize) -> Self;
    unsafe fn store_part(self, to: *mut u8, len: usize);
    /// Zeros behind the first `len` bytes, at most a vector.
    unsafe fn part(self, len: usize) -> Self;
    /// The same, at this place of the program.
    unsafe fn pin(self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    #[inline(always)]
    unsafe fn xor3(self, second: Self, third: Self) -> Self {
        run!(self.xor(second).xor(third))
    }
    unsafe fn aes(self, round_key: Self) -> Self;
    unsafe fn aes_last(self, round_key: Self) -> Self;
    /// The bytes of each block in reverse.
    unsafe fn reverse(self) -> Self;
    /// The halves of each block change places.
    unsafe fn swap(self) -> Self;
    /// The low half of each block, and behind it that of the other's.
    unsafe fn both_low(self, other: Self) -> Self;
    /// The high halves.
    unsafe fn both_high(self, other: Self) -> Self;
    /// Carry-less products of the halves of each block: low by low.
    unsafe fn mul_low(self, other: Self) -> Self;
    /// High by high.
    unsafe fn mul_high(self, other: Self) -> Self;
    /// The counters `block`, `block + 1`, ... in the last four bytes of the *reversed* blocks' opposite end: little-endian in the first.
    unsafe fn counters(block: u32) -> Self;
    /// Each counter that many further.
    unsafe fn advance(self, by: u32) -> Self;
    /// The high half of each block by the low half of the other's.
    unsafe fn mul_cross(self, other: Self) -> Self;
    /// The block in the last lane is the other's.
    unsafe fn with_last(self, other: Self) -> Self;
    /// The upper half of the lanes is the other's.
    unsafe fn with_upper(self, other: Self) -> Self;
    /// The sum (XOR) of all lanes.
    unsafe fn fold(self) -> __m128i;
    /// A block in each lane.
    unsafe fn blocks(of: [__m128i; 4]) -> Self;
    /// In each lane the sum of a vector's lanes.
    unsafe fn sums(of: [Self; 4]) -> Self;
    /// The last lanes, side by side.
    unsafe fn lasts(of: [Self; 4]) -> Self;
    /// Each lane; zeros where there are no more.
    unsafe fn each(self) -> [__m128i; 4];
    /// Bit n: lane n is the other's.
    unsafe fn same(self, other: Self) -> u32;
}

/// Bytes of a block in reverse.
#[inline(always)]
unsafe fn reversed() -> __m128i {
    run!(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// Bytes behind the first `len` of a vector: a window of this, at 32 - len, has ones and then zeros.
static MASK: [u8; 64] = {
    let mut mask = [0; 64];
    let mut at = 0;
    while at < 32 {
        mask[at] = 0xff;
        at += 1;
    }
    mask
};

macro_rules! pin {
    ($name:ident, $vector:ty, $class:ident, $feature:literal) => {
        #[inline]
        #[target_feature(enable = $feature)]
        fn $name(mut vector: $vector) -> $vector {
            // SAFETY: does nothing.
            unsafe { std::arch::asm!("/* {0} */", inout($class) vector, options(nomem, nostack, preserves_flags)) };
            vector
        }
    };
}
pin!(pin_128, __m128i, xmm_reg, "sse2");
pin!(pin_256, __m256i, ymm_reg, "avx");
pin!(pin_512, __m512i, zmm_reg, "avx512f");
