//! A key, expanded once per SA.

use crate::algorithm::Cipher;
use crate::integrity::IntegrityKey;
use crate::portable::Portable;
#[cfg(not(target_arch = "x86_64"))]
use crate::prefetch;
#[cfg(target_arch = "x86_64")]
use crate::wide::WideKey;
use crate::{Algorithm, Kernel};

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
    /// AES-GCM's, for the kernels.
    aes_256: bool,
    _gap: [u8; 5],
    /// Of the portable kernel, and of what the others have not.
    portable: Option<Box<Portable>>,
}

impl Head {
    pub(crate) const fn new(algorithm: Algorithm, kernel: Kernel, portable: Option<Box<Portable>>) -> Head {
        let aes_256 = algorithm.key_len() == 32;
        Head { algorithm, kernel, aes_256, _gap: [0; 5], portable }
    }
}

/// The key of packets that are nobody's: all its bytes are 0.
#[cfg(target_arch = "x86_64")]
pub(crate) static NOBODY: Key = Key(WideKey::none(Head::new(Algorithm::Aes128Gcm16, Kernel::Avx512, None)));

impl Key {
    /// Expands `key`, which is exactly [`Algorithm::key_len`] bytes, without the salt, for the kernel of this process.
    pub fn new(algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        Key::for_kernel(Kernel::chosen(), algorithm, key)
    }

    /// As [`Key::new`], for the kernel named, or the portable one where the processor has not that one's instructions and for whatever
    /// is not AES-GCM.
    pub fn for_kernel(kernel: Kernel, algorithm: Algorithm, key: &[u8]) -> Result<Key, AeadError> {
        if key.len() != algorithm.key_len() {
            return Err(AeadError::KeyLength { algorithm, len: key.len() });
        }
        #[cfg(target_arch = "x86_64")]
        if kernel != Kernel::Portable
            && algorithm.cipher() == Cipher::Gcm
            && kernel.is_here()
            && let Some(wide) = crate::kernel::wide_key(Head::new(algorithm, kernel, None), key)
        {
            return Ok(Key(wide));
        }
        let portable = Portable::new(algorithm, key).ok_or(AeadError::KeyLength { algorithm, len: key.len() })?;
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

    /// What it is a key for.
    #[inline]
    pub fn algorithm(&self) -> Algorithm {
        self.0.head.algorithm
    }

    /// AES-GCM with a key of 256 bits, which has rounds of its own.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn aes_256(&self) -> bool {
        self.0.head.aes_256
    }

    /// The key of an algorithm of AH.
    #[must_use]
    pub fn integrity(&self) -> Option<&IntegrityKey> {
        match self.portable()? {
            Portable::Ah(key) => Some(key),
            _ => None,
        }
    }

    /// What keys of vector kernels do not have; they do not come here.
    pub(crate) fn portable(&self) -> Option<&Portable> {
        self.0.head.portable.as_deref()
    }
}

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
}
