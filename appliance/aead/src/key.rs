//! A key, expanded once per SA.

use aes::{
    Aes128Enc, Aes256Enc,
    cipher::{Array, InnerIvInit, KeyInit, StreamCipherCore, consts::U12},
};
use aes_gcm::{AeadInOut, AesGcm};

#[cfg(target_arch = "x86_64")]
use crate::gcm::WideKey;
use crate::{Aad, IV_LEN, Kernel, NONCE_LEN, TAG_LEN, prefetch};

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

/// Bytes at the beginning of a key with the round keys of AES-256, and what says how many there are.
const ROUNDS: usize = 64 + 15 * 16;

/// Round keys and hash key of one SA. Zeroised on drop; `Debug` prints the algorithm only (I8).
#[repr(C)]
pub struct Key {
    algorithm: Algorithm,
    kernel: Kernel,
    schedule: Schedule,
}

/// GCM and plain counter mode of the portable kernel hold their own round keys: the crate keeps those of its GCM to itself.
// Boxing a variant would put a pointer chase into every packet.
#[allow(clippy::large_enum_variant)]
enum Schedule {
    #[cfg(target_arch = "x86_64")]
    Wide(WideKey),
    Aes128 {
        gcm: AesGcm<Aes128Enc, U12>,
        ctr: Aes128Enc,
    },
    Aes256 {
        gcm: AesGcm<Aes256Enc, U12>,
        ctr: Aes256Enc,
    },
}

impl Key {
    /// Expands `key`, which is exactly [`Algorithm::key_len`] bytes, without the salt, for the kernel of this process.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        Key::for_kernel(Kernel::chosen(), algorithm, key)
    }

    /// As [`Key::new`], for the kernel named, or the portable one where the processor has not that one's instructions.
    pub fn for_kernel(kernel: Kernel, algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        if key.len() != algorithm.key_len() {
            return Err(AeadError::KeyLength { algorithm, len: key.len() });
        }
        #[cfg(target_arch = "x86_64")]
        if kernel != Kernel::Portable
            && kernel.is_here()
            && let Some(wide) = crate::kernel::wide_key(key)
        {
            return Ok(Key { algorithm, kernel, schedule: Schedule::Wide(wide) });
        }
        let wrong = |_| AeadError::KeyLength { algorithm, len: key.len() };
        let schedule = match algorithm {
            Algorithm::Aes128Gcm16 => {
                let ctr = Aes128Enc::new_from_slice(key).map_err(wrong)?;
                Schedule::Aes128 { gcm: ctr.clone().into(), ctr }
            }
            Algorithm::Aes256Gcm16 => {
                let ctr = Aes256Enc::new_from_slice(key).map_err(wrong)?;
                Schedule::Aes256 { gcm: ctr.clone().into(), ctr }
            }
        };
        Ok(Key { algorithm, kernel: Kernel::Portable, schedule })
    }

    /// What runs it.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The key of a kernel that is not portable, and the place of its last round key.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn wide(&self) -> Option<(&WideKey, usize)> {
        match &self.schedule {
            Schedule::Wide(wide) => Some((wide, crate::gcm::last_round(self.algorithm.key_len()))),
            _ => None,
        }
    }

    /// Asks for what a peek reads of it, ahead of its use.
    #[inline]
    pub fn prefetch_peek(&self) {
        prefetch::part(self, 0, ROUNDS);
    }

    /// Asks for what sealing or opening a short packet reads of it, ahead of its use.
    #[inline]
    pub fn prefetch_gcm(&self) {
        prefetch::part(self, 0, ROUNDS);
        #[cfg(target_arch = "x86_64")]
        if let Some((wide, _)) = self.wide() {
            wide.prefetch_short();
        }
    }

    /// What it is a key for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8]) -> [u8; TAG_LEN] {
        let (nonce, block) = (Array(*nonce), aad.block());
        let aad = &block[..aad.len()];
        let tag = match &self.schedule {
            #[cfg(target_arch = "x86_64")]
            Schedule::Wide(_) => return [0; TAG_LEN],
            Schedule::Aes128 { gcm, .. } => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
            Schedule::Aes256 { gcm, .. } => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
        };
        // The only error is a text of 64 GiB.
        tag.expect("a packet is shorter than 2^36 - 32 bytes").0
    }

    /// False leaves `text` as it was: ciphertext.
    pub(crate) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let (nonce, tag, block) = (Array(*nonce), Array(*tag), aad.block());
        let aad = &block[..aad.len()];
        match &self.schedule {
            #[cfg(target_arch = "x86_64")]
            Schedule::Wide(_) => return false,
            Schedule::Aes128 { gcm, .. } => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
            Schedule::Aes256 { gcm, .. } => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
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
        match &self.schedule {
            #[cfg(target_arch = "x86_64")]
            Schedule::Wide(_) => {}
            Schedule::Aes128 { ctr, .. } => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
            Schedule::Aes256 { ctr, .. } => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
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

    #[test]
    fn algorithm_names_lead_back_to_their_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
    }
}
