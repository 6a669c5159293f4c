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
    for word in words {
        v = taken::<C>(v, word);
    }
    v = taken::<C>(v, last);
    v[2] ^= 0xff;
    let [a, b, c, d] = rounds::<D>(v);
    a ^ b ^ c ^ d
}

#[inline(always)]
fn taken<const C: usize>([a, b, c, d]: [u64; 4], word: u64) -> [u64; 4] {
    let [a, b, c, d] = rounds::<C>([a, b, c, d ^ word]);
    [a ^ word, b, c, d]
}

/// By value, so that all of it stays in registers.
#[inline(always)]
fn rounds<const N: usize>(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    for _ in 0..N {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
    }
    [a, b, c, d]
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
