//! A key, expanded once per SA.

use aes::{
    Aes128Enc, Aes256Enc,
    cipher::{Array, InnerIvInit, KeyInit, StreamCipherCore, consts::U12},
};
use aes_gcm::{AeadInOut, AesGcm};

use crate::{Aad, IV_LEN, NONCE_LEN, TAG_LEN, prefetch};

/// Bytes of the algorithm and AES-128's round keys (FIPS 197 §5.2): where the CPU has AES instructions, all that is used of a
/// cipher's memory. AES-256 has a line more, which comes with its neighbour.
const ROUNDS: usize = 16 + 11 * 16;
/// Where the `ghash` crate's state is: behind the AES-128 cipher.
const HASH_AT: usize = 16 + size_of::<Aes128Enc>();
/// Bytes of the `ghash` crate's powers of the hash key, and its accumulator.
const HASH: usize = 9 * 16;

/// The ciphers an SA may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// AES-GCM, 128-bit key, 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, 16-byte ICV (RFC 4106).
    Aes256Gcm16,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Algorithm; 2] = [Algorithm::Aes128Gcm16, Algorithm::Aes256Gcm16];

    /// Bytes of the key, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Algorithm::Aes128Gcm16 => 16,
            Algorithm::Aes256Gcm16 => 32,
        }
    }

    /// Bytes of the ICV at a packet's end.
    pub const fn icv_len(self) -> usize {
        TAG_LEN
    }

    /// Bytes of the explicit IV in front of the ciphertext.
    pub const fn iv_len(self) -> usize {
        IV_LEN
    }

    /// Its name in configuration and status: `aes128-gcm16`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Aes128Gcm16 => "aes128-gcm16",
            Algorithm::Aes256Gcm16 => "aes256-gcm16",
        }
    }

    /// The algorithm of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// What can be wrong with keying material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    /// The key has the wrong number of bytes for its algorithm.
    #[error("{} takes a key of {} bytes, not {len}", .algorithm.name(), .algorithm.key_len())]
    KeyLength {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// Bytes that were given.
        len: usize,
    },
}

/// Round keys and hash key of one SA. Zeroised on drop; `Debug` prints the algorithm only (I8).
///
/// GCM and plain counter mode hold their own round keys: the crate keeps those of its GCM to itself, and a router peeks
/// where a target opens, so both are rarely hot in one cache.
#[repr(C)]
pub struct Key {
    gcm: Gcm,
    ctr: Ctr,
}

/// The algorithm stands beside the round keys, so that who reads it has them in the same cache line.
// Boxing a variant would put a pointer chase into every packet.
#[allow(clippy::large_enum_variant)]
#[repr(C, u8)]
#[repr(align(64))]
enum Gcm {
    Aes128(AesGcm<Aes128Enc, U12>),
    Aes256(AesGcm<Aes256Enc, U12>),
}

/// As [`Gcm`].
#[allow(clippy::large_enum_variant)]
#[repr(C, u8)]
#[repr(align(64))]
enum Ctr {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

impl Key {
    /// Expands `key`, which is exactly [`Algorithm::key_len`] bytes, without the salt.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        let wrong = |_| AeadError::KeyLength { algorithm, len: key.len() };
        Ok(match algorithm {
            Algorithm::Aes128Gcm16 => {
                let ctr = Aes128Enc::new_from_slice(key).map_err(wrong)?;
                Key { gcm: Gcm::Aes128(ctr.clone().into()), ctr: Ctr::Aes128(ctr) }
            }
            Algorithm::Aes256Gcm16 => {
                let ctr = Aes256Enc::new_from_slice(key).map_err(wrong)?;
                Key { gcm: Gcm::Aes256(ctr.clone().into()), ctr: Ctr::Aes256(ctr) }
            }
        })
    }

    /// What it is a key for.
    pub fn algorithm(&self) -> Algorithm {
        match self.gcm {
            Gcm::Aes128(_) => Algorithm::Aes128Gcm16,
            Gcm::Aes256(_) => Algorithm::Aes256Gcm16,
        }
    }

    /// Asks for the memory that [`crate::peek_burst`] needs of this key; reads nothing of it.
    #[inline]
    pub fn prefetch_peek(&self) {
        prefetch::part(&self.ctr, 0, ROUNDS);
    }

    /// Asks for the memory that [`crate::open_burst`] and [`crate::seal_burst`] need of this key; reads nothing of it.
    #[inline]
    pub fn prefetch_gcm(&self) {
        // Round keys stand in front of a field that is as large as the portable cipher's; what GHASH needs stands behind it.
        prefetch::part(&self.gcm, 0, ROUNDS);
        prefetch::part(&self.gcm, HASH_AT, HASH);
    }

    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Array(*nonce);
        let tag = match &self.gcm {
            Gcm::Aes128(gcm) => gcm.encrypt_inout_detached(&nonce, aad.bytes(), text.into()),
            Gcm::Aes256(gcm) => gcm.encrypt_inout_detached(&nonce, aad.bytes(), text.into()),
        };
        // The only error is a text of 64 GiB.
        tag.expect("a packet is shorter than 2^36 - 32 bytes").0
    }

    /// False leaves `text` as it was: ciphertext.
    pub(crate) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let (nonce, tag) = (Array(*nonce), Array(*tag));
        match &self.gcm {
            Gcm::Aes128(gcm) => gcm.decrypt_inout_detached(&nonce, aad.bytes(), text.into(), &tag),
            Gcm::Aes256(gcm) => gcm.decrypt_inout_detached(&nonce, aad.bytes(), text.into(), &tag),
        }
        .is_ok()
    }

    /// XORs the key stream onto `text`, whose first byte is the first of the ciphertext's block `block`.
    pub(crate) fn stream(&self, nonce: &[u8; NONCE_LEN], block: u32, text: &mut [u8]) {
        // NIST SP 800-38D §7.1: block 1 masks the tag, the text begins at block 2.
        let mut counter = [0; 16];
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[NONCE_LEN..].copy_from_slice(&block.wrapping_add(2).to_be_bytes());
        let counter = Array(counter);
        match &self.ctr {
            Ctr::Aes128(ctr) => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
            Ctr::Aes256(ctr) => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
        }
    }
}

type Ctr32<C> = ctr::CtrCore<C, ctr::flavors::Ctr32BE>;

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, ..)", self.algorithm().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_wrong_length_is_refused_with_both_lengths_named() {
        let error = Key::new(Algorithm::Aes256Gcm16, &[7; 16]).unwrap_err();
        assert_eq!(error.to_string(), "aes256-gcm16 takes a key of 32 bytes, not 16");
    }

    #[test]
    fn debug_shows_no_byte_of_the_key() {
        let key = Key::new(Algorithm::Aes128Gcm16, &[0xab; 16]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(aes128-gcm16, ..)");
    }

    /// So that a prefetch meets them: how large the crates' fields are is not promised anywhere.
    #[test]
    fn behind_the_cipher_stands_only_what_ghash_needs() {
        assert_eq!(size_of::<AesGcm<Aes128Enc, U12>>(), size_of::<Aes128Enc>() + HASH);
    }

    #[test]
    fn algorithm_names_lead_back_to_their_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
    }
}
