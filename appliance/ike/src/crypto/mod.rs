//! Primitives of IKEv2 and what is made of them: key exchange, keys, the Encrypted payload.
//!
//! Only what RFC 8247 allows and the appliance offers is here, so a weak algorithm cannot be configured by accident: it has no
//! name. Randomness comes in as an argument; keys are [`Secret`]s, which wipe themselves and print nothing (I8).

mod cipher;
mod group;
mod keys;
mod modp;
mod prf;
mod seal;
#[cfg(test)]
mod wycheproof;

use std::fmt;

use zeroize::Zeroizing;

pub use cipher::{AesBits, Cipher, Integrity};
pub use group::{Group, PrivateKey};
pub use keys::{Exchange, IkeKeys, child_keys};
pub use prf::{Prf, sha1};
pub use seal::{Opener, Sealer};

/// Where random bytes come from: the operating system in a node, a seed in a test.
pub trait Random {
    /// Fills `out` with bytes that nobody can predict.
    fn fill(&mut self, out: &mut [u8]);
}

/// Bytes that must stay secret: wiped when dropped, never printed, compared in constant time (I8).
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes them over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it, as an integrity key beside an AEAD.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `len` random bytes.
    pub fn random(len: usize, random: &mut dyn Random) -> Self {
        let mut bytes = Zeroizing::new(vec![0; len]);
        random.fill(&mut bytes);
        Self(bytes)
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        same(self.as_bytes(), other.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.len())
    }
}

/// Whether two byte strings are equal, in a time that depends on nothing but their lengths.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// What can be wrong with keys and with what a peer sends under them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// A public value is not as long as its group says.
    #[error("a public value of {} has {expected} bytes, not {got}", group.name())]
    PublicLength {
        /// The group asked for.
        group: Group,
        /// Bytes it takes.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A public value that no honest peer sends: not on the curve, of low order, 0, 1, p - 1 or above (RFC 6989 §2, RFC 8031 §3).
    #[error("not a valid public value of {}", .0.name())]
    InvalidPublic(Group),
    /// A key has the wrong length for its algorithm.
    #[error("the key has {got} bytes, the algorithm takes {expected}")]
    KeyLength {
        /// Bytes the algorithm takes.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// Too short for IV and ICV, or no whole number of blocks.
    #[error("the encrypted payload has a length that cannot be")]
    Length,
    /// Not sent by who has the key, or changed on the way.
    #[error("the integrity check failed")]
    Integrity,
    /// Authentic, but its padding is longer than itself.
    #[error("the padding is longer than the payload")]
    Padding,
    /// All 2^32 IVs of this key and epoch are used: the SA must end (RFC 5282 §3, I1).
    #[error("all IVs of this IKE SA are used")]
    Exhausted,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Bytes for tests.

    use super::Random;

    /// A source that repeats itself from its seed.
    pub struct Seeded(pub u64);

    impl Random for Seeded {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                // splitmix64
                self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.0;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *byte = (z ^ (z >> 31)) as u8;
            }
        }
    }

    /// The bytes that hexadecimal digits stand for; blanks are skipped.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
        digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_no_byte_of_itself() {
        let secret = Secret::from(&[0xab, 0xcd][..]);
        assert_eq!(format!("{secret:?}"), "Secret(2 bytes)");
    }

    #[test]
    fn secrets_are_equal_when_their_bytes_are() {
        let secret = Secret::new(vec![1, 2, 3]);
        assert_eq!(secret, Secret::new(vec![1, 2, 3]));
        assert_ne!(secret, Secret::new(vec![1, 2, 4]));
        assert_ne!(secret, Secret::new(vec![1, 2]));
    }
}
