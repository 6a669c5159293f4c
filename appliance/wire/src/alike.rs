//! Packets that begin alike. Nearly all of a sender's do, but for lengths and numbers: what was found out of one by the rest of its front
//! is so of those behind it, and only the fields that were left out need a look at each.

use crate::TcpFlags;

/// Which bits at the front of two packets, `N` bytes of each and 8 or more, are the same where they are alike.
#[derive(Clone, Copy, Debug)]
pub struct Likeness<const N: usize> {
    mask: [u8; N],
}

const WORD: usize = size_of::<u64>();

impl<const N: usize> Likeness<N> {
    /// All of them.
    pub const ALL: Likeness<N> = Likeness { mask: [0xff; N] };

    /// But for `len` bytes from there on.
    #[must_use]
    pub const fn but(mut self, at: usize, len: usize) -> Likeness<N> {
        let mut i = at;
        while i < at + len {
            self.mask[i] = 0;
            i += 1;
        }
        self
    }

    /// But for what [`ipv4::plain_len`](crate::ipv4::plain_len) looks at and the identification, in the IPv4 header that begins there.
    #[must_use]
    pub const fn but_ipv4(self, at: usize) -> Likeness<N> {
        self.but(at + 2, 4).but(at + 10, 2)
    }

    /// But for sequence and acknowledgement number and PSH in the TCP header that begins there: the rest of its first 14 bytes is the same in
    /// most segments of one direction.
    #[must_use]
    pub const fn but_tcp(self, at: usize) -> Likeness<N> {
        let mut rest = self.but(at + 4, 8);
        rest.mask[at + 13] &= !TcpFlags::PSH;
        rest
    }

    /// Whether they are alike; nothing shorter is.
    #[inline(always)]
    #[must_use]
    pub fn holds(&self, a: &[u8; N], b: &[u8]) -> bool {
        const { assert!(N >= WORD) };
        let Some(b) = b.first_chunk::<N>() else { return false };
        let mut differ = 0;
        for at in (0..N / WORD).map(|i| i * WORD) {
            differ |= (word(a, at) ^ word(b, at)) & word(&self.mask, at);
        }
        // The last one, of which a part was looked at already.
        let last = N - WORD;
        differ |= (word(a, last) ^ word(b, last)) & word(&self.mask, last);
        differ == 0
    }
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..].first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_alike_unless_they_differ_where_it_matters() {
        const KIND: Likeness<38> = Likeness::ALL.but_ipv4(14);
        let one: [u8; 38] = std::array::from_fn(|at| at as u8);
        for at in 0..38 {
            for bit in 0..8 {
                let mut other = [one, one].concat();
                other[at] ^= 1 << bit;
                assert_eq!(
                    KIND.holds(&one, &other),
                    matches!(at - at.min(14), 2..=5 | 10..=11),
                    "byte {at}, bit {bit}"
                );
            }
        }
        assert!(KIND.holds(&one, &one) && !KIND.holds(&one, &one[..37]));
    }

    #[test]
    fn segments_of_one_direction_are_alike_unless_flags_other_than_psh_differ() {
        const SEGMENT: Likeness<34> = Likeness::ALL.but_ipv4(0).but_tcp(20);
        let one = [0x55; 34];
        for bit in 0..34 * 8 {
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            let free = matches!(bit / 8, 2..=5 | 10..=11 | 24..=31) || (bit / 8, 1 << (bit % 8)) == (33, TcpFlags::PSH);
            assert_eq!(SEGMENT.holds(&one, &other), free, "bit {bit}");
        }
    }

    #[test]
    fn fronts_of_whole_words_are_looked_at_to_their_end() {
        let one = [7; 32];
        for at in 0..32 {
            let mut other = one;
            other[at] = 8;
            assert!(!Likeness::ALL.holds(&one, &other));
            assert!(Likeness::ALL.but(at, 1).holds(&one, &other));
        }
    }
}
