//! The limit of the core as a contestant: the AES and GHASH instructions of a burst, and its loads and stores, waiting for nothing.

use std::arch::x86_64::*;

use phalanx_aead::Algorithm;

use super::{Bed, Cipher, Wanted, clock};

pub const NAME: &str = "limit of the core: its instructions alone";

/// Vectors of four blocks that are worked on at a time.
const WIDE: usize = 8;

pub struct Roofline {
    aes_256: bool,
    vectors: usize,
}

impl Roofline {
    /// Nothing where there are no such vectors.
    pub fn new(bed: &Bed) -> Option<Roofline> {
        // Besides text, a block masks the tag, one is associated data, one lengths: the last two are hashed instead of it.
        let blocks: usize = bed.packets.iter().map(|packet| packet.text.len().div_ceil(16) + 1).sum();
        let here = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        let here = here && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        here.then(|| Roofline { aes_256: bed.algorithm == Algorithm::Aes256Gcm16, vectors: blocks.div_ceil(4) })
    }

    fn run(&self, bed: &mut Bed) -> f64 {
        let longest = bed.packets.iter_mut().max_by_key(|packet| packet.text.len()).expect("a packet");
        let steps = self.vectors.div_ceil(WIDE);
        // SAFETY: the features were detected.
        let ns = clock(|| unsafe {
            if self.aes_256 {
                instructions::<14>(steps, &mut longest.text)
            } else {
                instructions::<10>(steps, &mut longest.text)
            }
        });
        ns * self.vectors as f64 / (steps * WIDE) as f64
    }
}

/// All of a step is independent of all else. What it makes is of no use.
#[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
fn instructions<const ROUNDS: usize>(steps: usize, text: &mut [u8]) {
    let key = _mm512_set1_epi64(0x0123_4567_89ab_cdef);
    let mut sums = [_mm512_setzero_si512(); 3];
    for step in 0..steps {
        let mut states: [__m512i; WIDE] = std::array::from_fn(|w| _mm512_set1_epi64((WIDE * step + w) as i64));
        macro_rules! rounds {
            ($($hashes:literal)*) => { $(
                for state in &mut states {
                    *state = _mm512_aesenc_epi128(*state, key);
                }
                if $hashes {
                    // The compiler must not know that it is the same each time.
                    let from = std::hint::black_box(text.as_ptr());
                    // SAFETY: of a text shorter than a vector nothing but zeros is loaded.
                    let data = unsafe { _mm512_maskz_loadu_epi64(if text.len() < 64 { 0 } else { 255 }, from.cast()) };
                    sums[0] = _mm512_xor_si512(sums[0], _mm512_clmulepi64_epi128(data, key, 0x00));
                    sums[1] = _mm512_xor_si512(sums[1], _mm512_clmulepi64_epi128(data, key, 0x11));
                    sums[2] = _mm512_xor_si512(sums[2], _mm512_clmulepi64_epi128(data, key, 0x10));
                }
            )* };
        }
        // As many vectors are hashed as go through AES.
        if ROUNDS == 10 {
            rounds!(true true true true true true true true false false);
        } else {
            rounds!(true false true true false true false true true false true false true false);
        }
        for state in states {
            std::hint::black_box(state);
        }
    }
    std::hint::black_box(sums);
}

impl Cipher for Roofline {
    fn name(&self, _: Wanted) -> &'static str {
        NAME
    }

    fn seal(&mut self, bed: &mut Bed) -> f64 {
        self.run(bed)
    }

    fn open(&mut self, bed: &mut Bed) -> (f64, usize) {
        (self.run(bed), super::BURST)
    }

    fn peek(&mut self, bed: &mut Bed) -> f64 {
        self.run(bed)
    }
}
