//! A keyed hash (SipHash-1-3) for tables whose keys a peer may choose.
//!
//! Ports and addresses of connections come from outside. With a hash that is known, a peer could pick
//! ports that all meet in one bucket; with a random seed it cannot tell which ports do.

/// The secret of one table: 128 random bits, drawn by whoever builds the table.
pub type Seed = [u64; 2];

/// Hashes `N` words and up to seven bytes more with SipHash-1-3, whose own padding carries the length in bytes.
#[inline(always)]
pub(crate) fn keyed<const N: usize>(seed: Seed, words: [u64; N], rest: u64) -> u64 {
    debug_assert!(rest >> 56 == 0);
    sip::<1, 3, N>(seed, words, ((8 * N as u64 + 7) & 0xff) << 56 | rest)
}

#[inline(always)]
fn sip<const C: usize, const D: usize, const N: usize>(seed: Seed, words: [u64; N], last: u64) -> u64 {
    let mut v = [
        seed[0] ^ 0x736f_6d65_7073_6575,
        seed[1] ^ 0x646f_7261_6e64_6f6d,
        seed[0] ^ 0x6c79_6765_6e65_7261,
        seed[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        (0..C).for_each(|_| round(&mut v));
        v[0] ^= word;
    };
    for word in words {
        take(word);
    }
    take(last);
    v[2] ^= 0xff;
    (0..D).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permutation_matches_the_vector_of_the_siphash_paper() {
        // Aumasson, Bernstein: "SipHash: a fast short-input PRF", appendix A: SipHash-2-4, key 00..0f, input 00..0e.
        let seed = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let first = 0x0706_0504_0302_0100;
        let last = 0x0f0e_0d0c_0b0a_0908;
        assert_eq!(sip::<2, 4, 1>(seed, [first], last), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn another_seed_gives_another_order() {
        assert_ne!(keyed([1, 2], [7, 8], 9), keyed([1, 3], [7, 8], 9));
        assert_ne!(keyed([1, 2], [7, 8], 9), keyed([1, 2], [8, 7], 9));
        assert_ne!(keyed([1, 2], [7, 8], 9), keyed([1, 2], [7, 8], 8));
    }
}
