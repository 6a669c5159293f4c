//! A key, expanded once per SA.

use aes::{
    Aes128Enc, Aes256Enc,
    cipher::{Array, InnerIvInit, KeyInit, StreamCipherCore, consts::U12},
};
use aes_gcm::{AeadInOut, AesGcm};

use crate::integrity::{Hash, IntegrityKey};
#[cfg(not(target_arch = "x86_64"))]
use crate::prefetch;
#[cfg(target_arch = "x86_64")]
use crate::wide::WideKey;
use crate::{Aad, IV_LEN, Kernel, NONCE_LEN, SALT_LEN, TAG_LEN};

/// The ciphers an SA may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-GCM, 128-bit key, 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, 16-byte ICV (RFC 4106).
    Aes256Gcm16,
    /// AH with HMAC-SHA2-256-128 (RFC 4868).
    AhHmacSha256,
    /// AH with HMAC-SHA2-384-192 (RFC 4868).
    AhHmacSha384,
    /// AH with HMAC-SHA2-512-256 (RFC 4868).
    AhHmacSha512,
    /// AH with AES-GMAC, 128-bit key (RFC 4543 §4).
    AhGmac128,
    /// AH with AES-GMAC, 256-bit key (RFC 4543 §4).
    AhGmac256,
}

impl Algorithm {
    /// Every algorithm there is.
    pub const ALL: [Algorithm; 7] = [
        Algorithm::Aes128Gcm16,
        Algorithm::Aes256Gcm16,
        Algorithm::AhHmacSha256,
        Algorithm::AhHmacSha384,
        Algorithm::AhHmacSha512,
        Algorithm::AhGmac128,
        Algorithm::AhGmac256,
    ];

    /// Those that the kernels are for.
    pub const GCM: [Algorithm; 2] = [Algorithm::Aes128Gcm16, Algorithm::Aes256Gcm16];

    /// It is for AH, which encrypts nothing: its keys are [`Key::integrity`].
    #[inline]
    pub const fn is_ah(self) -> bool {
        use Algorithm::{AhGmac128, AhGmac256, AhHmacSha256, AhHmacSha384, AhHmacSha512};
        matches!(self, AhHmacSha256 | AhHmacSha384 | AhHmacSha512 | AhGmac128 | AhGmac256)
    }

    /// Bytes of the key, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Algorithm::Aes128Gcm16 | Algorithm::AhGmac128 => 16,
            Algorithm::Aes256Gcm16 | Algorithm::AhGmac256 => 32,
            Algorithm::AhHmacSha256 => Hash::Sha256.len(),
            Algorithm::AhHmacSha384 => Hash::Sha384.len(),
            Algorithm::AhHmacSha512 => Hash::Sha512.len(),
        }
    }

    /// Bytes of the salt behind the key: what makes a nonce has one.
    pub const fn salt_len(self) -> usize {
        match self {
            Algorithm::AhHmacSha256 | Algorithm::AhHmacSha384 | Algorithm::AhHmacSha512 => 0,
            _ => SALT_LEN,
        }
    }

    /// Bytes of the ICV at a packet's end, or in its authentication header.
    pub const fn icv_len(self) -> usize {
        match self {
            Algorithm::AhHmacSha384 => Hash::Sha384.icv_len(),
            Algorithm::AhHmacSha512 => Hash::Sha512.icv_len(),
            _ => TAG_LEN,
        }
    }

    /// Bytes of the explicit IV in front of the ciphertext, or of AH's ICV.
    pub const fn iv_len(self) -> usize {
        match self {
            Algorithm::AhHmacSha256 | Algorithm::AhHmacSha384 | Algorithm::AhHmacSha512 => 0,
            _ => IV_LEN,
        }
    }

    /// Its name in configuration and status: `aes128-gcm16`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Aes128Gcm16 => "aes128-gcm16",
            Algorithm::Aes256Gcm16 => "aes256-gcm16",
            Algorithm::AhHmacSha256 => "ah-hmac-sha256",
            Algorithm::AhHmacSha384 => "ah-hmac-sha384",
            Algorithm::AhHmacSha512 => "ah-hmac-sha512",
            Algorithm::AhGmac128 => "ah-aes128-gmac",
            Algorithm::AhGmac256 => "ah-aes256-gmac",
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
pub struct Key(Inner);

#[cfg(target_arch = "x86_64")]
type Inner = WideKey;
#[cfg(not(target_arch = "x86_64"))]
type Inner = NarrowKey;

/// Where there is only the portable kernel.
#[cfg(not(target_arch = "x86_64"))]
struct NarrowKey {
    head: Head,
}

/// What every key has. Without a gap: vectors are read across it.
#[repr(C)]
pub(crate) struct Head {
    algorithm: Algorithm,
    kernel: Kernel,
    _gap: [u8; 6],
    /// Of the portable kernel.
    portable: Option<Box<Portable>>,
}

impl Head {
    pub(crate) const fn new(algorithm: Algorithm, kernel: Kernel, portable: Option<Box<Portable>>) -> Head {
        Head { algorithm, kernel, _gap: [0; 6], portable }
    }
}

/// The key of packets that are nobody's: all its bytes are 0.
#[cfg(target_arch = "x86_64")]
pub(crate) static NOBODY: Key = Key(WideKey::none(Head::new(Algorithm::Aes128Gcm16, Kernel::Avx512, None)));

/// GCM and plain counter mode hold their own round keys: the crate keeps those of its GCM to itself.
pub(crate) enum Portable {
    Aes128 {
        gcm: AesGcm<Aes128Enc, U12>,
        ctr: Aes128Enc,
    },
    Aes256 {
        gcm: AesGcm<Aes256Enc, U12>,
        ctr: Aes256Enc,
    },
    /// Nothing is sealed, opened or peeked at under it.
    Integrity(Box<IntegrityKey>),
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
            && !algorithm.is_ah()
            && kernel.is_here()
            && let Some(wide) = crate::kernel::wide_key(Head::new(algorithm, kernel, None), key)
        {
            return Ok(Key(wide));
        }
        let wrong = |_| AeadError::KeyLength { algorithm, len: key.len() };
        let integrity = |key| Portable::Integrity(Box::new(key));
        let portable = match algorithm {
            Algorithm::Aes128Gcm16 => {
                let ctr = Aes128Enc::new_from_slice(key).map_err(wrong)?;
                Portable::Aes128 { gcm: ctr.clone().into(), ctr }
            }
            Algorithm::Aes256Gcm16 => {
                let ctr = Aes256Enc::new_from_slice(key).map_err(wrong)?;
                Portable::Aes256 { gcm: ctr.clone().into(), ctr }
            }
            Algorithm::AhHmacSha256 => integrity(IntegrityKey::hmac(Hash::Sha256, key)),
            Algorithm::AhHmacSha384 => integrity(IntegrityKey::hmac(Hash::Sha384, key)),
            Algorithm::AhHmacSha512 => integrity(IntegrityKey::hmac(Hash::Sha512, key)),
            Algorithm::AhGmac128 | Algorithm::AhGmac256 => integrity(IntegrityKey::gmac(algorithm, key)?),
        };
        let head = Head::new(algorithm, Kernel::Portable, Some(Box::new(portable)));
        #[cfg(target_arch = "x86_64")]
        return Ok(Key(WideKey::none(head)));
        #[cfg(not(target_arch = "x86_64"))]
        return Ok(Key(NarrowKey { head }));
    }

    /// What runs it.
    #[inline]
    pub fn kernel(&self) -> Kernel {
        self.0.head.kernel
    }

    /// For a kernel that is not portable.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn wide(&self) -> &WideKey {
        &self.0
    }

    /// Asks for what a peek reads of it, ahead of its use.
    #[inline]
    pub fn prefetch_peek(&self) {
        #[cfg(target_arch = "x86_64")]
        self.0.prefetch_rounds();
        #[cfg(not(target_arch = "x86_64"))]
        prefetch::all(self);
    }

    /// Asks for what sealing or opening a packet of about `len` bytes reads of it, ahead of its use.
    #[inline]
    pub fn prefetch_gcm(&self, len: usize) {
        // Of whatever kernel: which it is would have to be read here, too.
        #[cfg(target_arch = "x86_64")]
        self.0.prefetch_for(len);
        #[cfg(not(target_arch = "x86_64"))]
        {
            _ = len;
            prefetch::all(self);
        }
    }

    /// The key of an algorithm of AH.
    #[must_use]
    pub fn integrity(&self) -> Option<&IntegrityKey> {
        match self.0.head.portable.as_deref()? {
            Portable::Integrity(key) => Some(key),
            _ => None,
        }
    }

    /// What it is a key for.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        self.0.head.algorithm
    }

    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8]) -> [u8; TAG_LEN] {
        let (nonce, block) = (Array(*nonce), aad.block());
        let aad = &block[..aad.len()];
        // Keys of other kernels do not come here.
        let Some(portable) = &self.0.head.portable else { return [0; TAG_LEN] };
        let tag = match &**portable {
            Portable::Aes128 { gcm, .. } => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
            Portable::Aes256 { gcm, .. } => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
            Portable::Integrity(_) => return [0; TAG_LEN],
        };
        // The only error is a text of 64 GiB.
        tag.expect("a packet is shorter than 2^36 - 32 bytes").0
    }

    /// False leaves `text` as it was: ciphertext.
    pub(crate) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let (nonce, tag, block) = (Array(*nonce), Array(*tag), aad.block());
        let aad = &block[..aad.len()];
        let Some(portable) = &self.0.head.portable else { return false };
        match &**portable {
            Portable::Aes128 { gcm, .. } => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
            Portable::Aes256 { gcm, .. } => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
            Portable::Integrity(_) => return false,
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
        let Some(portable) = &self.0.head.portable else { return };
        match &**portable {
            Portable::Aes128 { ctr, .. } => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
            Portable::Aes256 { ctr, .. } => Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial(text.into()),
            Portable::Integrity(_) => {}
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
