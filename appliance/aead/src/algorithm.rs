//! The algorithms of ESP and AH and what each of them asks of a packet: one table.

use crate::integrity::Hash;
use crate::{SALT_LEN, TAG_LEN};

/// The algorithms an SA may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Algorithm {
    /// AES-GCM, 128-bit key, 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, 16-byte ICV (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20 and Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-GCM whose nonce is the packet's number, which is not sent twice (RFC 8750); 128-bit key.
    Aes128Gcm16Iiv,
    /// The same with a 256-bit key.
    Aes256Gcm16Iiv,
    /// ChaCha20 and Poly1305 whose nonce is the packet's number (RFC 8750).
    ChaCha20Poly1305Iiv,
    /// Clear text that AES-GMAC authenticates, 128-bit key (RFC 4543).
    Aes128Gmac,
    /// The same with a 256-bit key.
    Aes256Gmac,
    /// AES-CBC with a 128-bit key (RFC 3602), then HMAC-SHA-256-128 (RFC 4868).
    Aes128CbcSha256,
    /// The same, then HMAC-SHA-384-192.
    Aes128CbcSha384,
    /// The same, then HMAC-SHA-512-256.
    Aes128CbcSha512,
    /// AES-CBC with a 256-bit key (RFC 3602), then HMAC-SHA-256-128 (RFC 4868).
    Aes256CbcSha256,
    /// The same, then HMAC-SHA-384-192.
    Aes256CbcSha384,
    /// The same, then HMAC-SHA-512-256.
    Aes256CbcSha512,
    /// Clear text (RFC 2410) that HMAC-SHA-256-128 authenticates (RFC 4868).
    NullSha256,
    /// The same with HMAC-SHA-384-192.
    NullSha384,
    /// The same with HMAC-SHA-512-256.
    NullSha512,
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

/// What encrypts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    Gcm,
    ChaCha,
    Gmac,
    Cbc,
    Null,
    /// None: AH.
    Ah,
}

impl Algorithm {
    /// Every algorithm of ESP.
    pub const ESP: [Algorithm; 17] = [
        Algorithm::Aes128Gcm16,
        Algorithm::Aes256Gcm16,
        Algorithm::ChaCha20Poly1305,
        Algorithm::Aes128Gcm16Iiv,
        Algorithm::Aes256Gcm16Iiv,
        Algorithm::ChaCha20Poly1305Iiv,
        Algorithm::Aes128Gmac,
        Algorithm::Aes256Gmac,
        Algorithm::Aes128CbcSha256,
        Algorithm::Aes128CbcSha384,
        Algorithm::Aes128CbcSha512,
        Algorithm::Aes256CbcSha256,
        Algorithm::Aes256CbcSha384,
        Algorithm::Aes256CbcSha512,
        Algorithm::NullSha256,
        Algorithm::NullSha384,
        Algorithm::NullSha512,
    ];

    /// Every algorithm of AH.
    pub const AH: [Algorithm; 5] = [
        Algorithm::AhHmacSha256,
        Algorithm::AhHmacSha384,
        Algorithm::AhHmacSha512,
        Algorithm::AhGmac128,
        Algorithm::AhGmac256,
    ];

    /// Those that the kernels are for.
    pub const GCM: [Algorithm; 2] = [Algorithm::Aes128Gcm16, Algorithm::Aes256Gcm16];

    /// Every algorithm there is.
    pub const ALL: [Algorithm; Algorithm::ESP.len() + Algorithm::AH.len()] = {
        let (mut all, mut at) = ([Algorithm::Aes128Gcm16; Algorithm::ESP.len() + Algorithm::AH.len()], 0);
        while at < all.len() {
            let esp = Algorithm::ESP.len();
            all[at] = if at < esp { Algorithm::ESP[at] } else { Algorithm::AH[at - esp] };
            at += 1;
        }
        all
    };

    /// Cipher, bytes of its key, hash of the integrity algorithm beside it, bytes of the IV in the packet, and the name.
    const fn row(self) -> (Cipher, usize, Option<Hash>, usize, &'static str) {
        const S256: Option<Hash> = Some(Hash::Sha256);
        const S384: Option<Hash> = Some(Hash::Sha384);
        const S512: Option<Hash> = Some(Hash::Sha512);
        match self {
            Algorithm::Aes128Gcm16 => (Cipher::Gcm, 16, None, 8, "aes128-gcm16"),
            Algorithm::Aes256Gcm16 => (Cipher::Gcm, 32, None, 8, "aes256-gcm16"),
            Algorithm::ChaCha20Poly1305 => (Cipher::ChaCha, 32, None, 8, "chacha20-poly1305"),
            Algorithm::Aes128Gcm16Iiv => (Cipher::Gcm, 16, None, 0, "aes128-gcm16-iiv"),
            Algorithm::Aes256Gcm16Iiv => (Cipher::Gcm, 32, None, 0, "aes256-gcm16-iiv"),
            Algorithm::ChaCha20Poly1305Iiv => (Cipher::ChaCha, 32, None, 0, "chacha20-poly1305-iiv"),
            Algorithm::Aes128Gmac => (Cipher::Gmac, 16, None, 8, "aes128-gmac"),
            Algorithm::Aes256Gmac => (Cipher::Gmac, 32, None, 8, "aes256-gmac"),
            Algorithm::Aes128CbcSha256 => (Cipher::Cbc, 16, S256, 16, "aes128-cbc-sha256"),
            Algorithm::Aes128CbcSha384 => (Cipher::Cbc, 16, S384, 16, "aes128-cbc-sha384"),
            Algorithm::Aes128CbcSha512 => (Cipher::Cbc, 16, S512, 16, "aes128-cbc-sha512"),
            Algorithm::Aes256CbcSha256 => (Cipher::Cbc, 32, S256, 16, "aes256-cbc-sha256"),
            Algorithm::Aes256CbcSha384 => (Cipher::Cbc, 32, S384, 16, "aes256-cbc-sha384"),
            Algorithm::Aes256CbcSha512 => (Cipher::Cbc, 32, S512, 16, "aes256-cbc-sha512"),
            Algorithm::NullSha256 => (Cipher::Null, 0, S256, 0, "null-sha256"),
            Algorithm::NullSha384 => (Cipher::Null, 0, S384, 0, "null-sha384"),
            Algorithm::NullSha512 => (Cipher::Null, 0, S512, 0, "null-sha512"),
            Algorithm::AhHmacSha256 => (Cipher::Ah, 0, S256, 0, "ah-hmac-sha256"),
            Algorithm::AhHmacSha384 => (Cipher::Ah, 0, S384, 0, "ah-hmac-sha384"),
            Algorithm::AhHmacSha512 => (Cipher::Ah, 0, S512, 0, "ah-hmac-sha512"),
            Algorithm::AhGmac128 => (Cipher::Ah, 16, None, 8, "ah-aes128-gmac"),
            Algorithm::AhGmac256 => (Cipher::Ah, 32, None, 8, "ah-aes256-gmac"),
        }
    }

    pub(crate) const fn cipher(self) -> Cipher {
        self.row().0
    }

    /// That of an HMAC; none where AES authenticates.
    pub(crate) const fn hash(self) -> Option<Hash> {
        self.row().2
    }

    /// It is for AH, which encrypts nothing: its keys are [`Key::integrity`](crate::Key::integrity).
    #[inline]
    #[must_use]
    pub const fn is_ah(self) -> bool {
        matches!(self.cipher(), Cipher::Ah)
    }

    /// Bytes of the key of encryption.
    #[must_use]
    pub const fn encryption_key_len(self) -> usize {
        self.row().1
    }

    /// Bytes of the key of an integrity algorithm beside the cipher: as its hash has (RFC 4868 §2.1.1).
    #[must_use]
    pub const fn integrity_key_len(self) -> usize {
        match self.hash() {
            Some(hash) => hash.len(),
            None => 0,
        }
    }

    /// Bytes of the key without the salt: of encryption, then of integrity (RFC 7296 §2.17).
    #[must_use]
    pub const fn key_len(self) -> usize {
        self.encryption_key_len() + self.integrity_key_len()
    }

    /// Bytes of the salt behind the key (RFC 4106 §8.1, RFC 4543 §5, RFC 7634 §2).
    #[must_use]
    pub const fn salt_len(self) -> usize {
        if self.hash().is_none() { SALT_LEN } else { 0 }
    }

    /// Bytes of keying material that one direction of an SA takes.
    #[must_use]
    pub const fn material_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    /// Bytes of the ICV at a packet's end, or in its authentication header.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self.hash() {
            Some(hash) => hash.icv_len(),
            None => TAG_LEN,
        }
    }

    /// Bytes of the IV between header and ciphertext, or in front of AH's ICV.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        self.row().3
    }

    /// What the length of payload and trailer is a multiple of: RFC 4303 §2.4, and RFC 3602 §2.4 for AES-CBC's blocks.
    #[must_use]
    pub const fn alignment(self) -> usize {
        if matches!(self.cipher(), Cipher::Cbc) { 16 } else { 4 }
    }

    /// Bytes in front of the ciphertext that belong to an operation's text: the IV of AES-CBC, which sealing writes.
    #[must_use]
    pub const fn text_front(self) -> usize {
        if matches!(self.cipher(), Cipher::Cbc) { self.iv_len() } else { 0 }
    }

    /// Bytes behind the ciphertext that belong to an operation's text: what an ICV has more than a tag.
    #[must_use]
    pub const fn text_back(self) -> usize {
        self.icv_len() - TAG_LEN
    }

    /// What it protects can be read by anyone.
    #[must_use]
    pub const fn is_clear(self) -> bool {
        matches!(self.cipher(), Cipher::Gmac | Cipher::Null | Cipher::Ah)
    }

    /// Nonces are numbers that are not sent a second time (RFC 8750).
    #[must_use]
    pub const fn has_implicit_iv(self) -> bool {
        matches!(self.cipher(), Cipher::Gcm | Cipher::ChaCha) && self.iv_len() == 0
    }

    /// Its name in configuration and status: `aes128-gcm16`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().4
    }

    /// The algorithm of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// The longest [`Algorithm::material_len`].
pub const MAX_MATERIAL: usize = 32 + 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithm_names_lead_back_to_their_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
    }

    #[test]
    fn lengths_are_those_of_the_standards() {
        // Key and salt or integrity key, IV, ICV, alignment: RFC 4106 §8, RFC 7634 §2, RFC 4543 §5, RFC 3602 §2, RFC 4868 §2.
        let lengths = |name: &str| {
            let a = Algorithm::from_name(name).unwrap();
            (a.material_len(), a.iv_len(), a.icv_len(), a.alignment())
        };
        assert_eq!(lengths("aes128-gcm16"), (16 + 4, 8, 16, 4));
        assert_eq!(lengths("chacha20-poly1305"), (32 + 4, 8, 16, 4));
        assert_eq!(lengths("aes256-gcm16-iiv"), (32 + 4, 0, 16, 4));
        assert_eq!(lengths("aes256-gmac"), (32 + 4, 8, 16, 4));
        assert_eq!(lengths("aes128-cbc-sha256"), (16 + 32, 16, 16, 16));
        assert_eq!(lengths("aes256-cbc-sha384"), (32 + 48, 16, 24, 16));
        assert_eq!(lengths("aes256-cbc-sha512"), (32 + 64, 16, 32, 16));
        assert_eq!(lengths("null-sha512"), (64, 0, 32, 4));
        assert_eq!(lengths("ah-hmac-sha384"), (48, 0, 24, 4));
        assert_eq!(lengths("ah-aes128-gmac"), (16 + 4, 8, 16, 4));
        assert!(Algorithm::ALL.into_iter().all(|a| a.material_len() <= MAX_MATERIAL && a.icv_len() >= TAG_LEN));
    }
}
