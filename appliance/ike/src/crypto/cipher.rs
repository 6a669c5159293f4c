//! What may protect an IKE SA's messages (RFC 7296 §3.14, RFC 5282, RFC 7634, RFC 4868).

/// Bits of an AES key. RFC 8247 §2.1 asks for these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AesBits {
    /// AES-128.
    B128,
    /// AES-256.
    B256,
}

impl AesBits {
    /// Those of a key length attribute (RFC 7296 §3.3.5).
    pub const fn from_bits(bits: u16) -> Option<AesBits> {
        match bits {
            128 => Some(AesBits::B128),
            256 => Some(AesBits::B256),
            _ => None,
        }
    }

    /// As a key length attribute.
    pub const fn bits(self) -> u16 {
        match self {
            AesBits::B128 => 128,
            AesBits::B256 => 256,
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.bits() as usize / 8
    }
}

/// Integrity beside a cipher that has none (RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Integrity {
    /// AUTH_HMAC_SHA2_256_128.
    HmacSha256_128,
    /// AUTH_HMAC_SHA2_384_192.
    HmacSha384_192,
    /// AUTH_HMAC_SHA2_512_256.
    HmacSha512_256,
}

impl Integrity {
    /// Every one there is.
    pub const ALL: [Integrity; 3] = [Integrity::HmacSha256_128, Integrity::HmacSha384_192, Integrity::HmacSha512_256];

    /// The one of a transform ID of type 3 (IANA, "IKEv2 Transform Type 3").
    pub const fn from_id(id: u16) -> Option<Integrity> {
        match id {
            12 => Some(Integrity::HmacSha256_128),
            13 => Some(Integrity::HmacSha384_192),
            14 => Some(Integrity::HmacSha512_256),
            _ => None,
        }
    }

    /// Its transform ID.
    pub const fn id(self) -> u16 {
        match self {
            Integrity::HmacSha256_128 => 12,
            Integrity::HmacSha384_192 => 13,
            Integrity::HmacSha512_256 => 14,
        }
    }

    /// Its name in configuration and events.
    pub const fn name(self) -> &'static str {
        match self {
            Integrity::HmacSha256_128 => "sha256",
            Integrity::HmacSha384_192 => "sha384",
            Integrity::HmacSha512_256 => "sha512",
        }
    }

    /// Bytes of its key (RFC 4868 §2.1.1).
    pub const fn key_len(self) -> usize {
        self.icv_len() * 2
    }

    /// Bytes of its ICV: half of the hash.
    pub const fn icv_len(self) -> usize {
        match self {
            Integrity::HmacSha256_128 => 16,
            Integrity::HmacSha384_192 => 24,
            Integrity::HmacSha512_256 => 32,
        }
    }
}

/// What encrypts and authenticates an IKE SA's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cipher {
    /// ENCR_AES_GCM_16 (RFC 5282).
    AesGcm16 {
        /// Bits of the key.
        bits: AesBits,
    },
    /// ENCR_CHACHA20_POLY1305 (RFC 7634).
    ChaCha20Poly1305,
    /// ENCR_AES_CBC and an integrity algorithm.
    AesCbc {
        /// Bits of the key.
        bits: AesBits,
        /// What authenticates.
        integrity: Integrity,
    },
}

impl Cipher {
    /// Every one there is: AEADs first.
    pub const ALL: [Cipher; 9] = {
        use {AesBits::*, Integrity::*};
        [
            Cipher::AesGcm16 { bits: B128 },
            Cipher::AesGcm16 { bits: B256 },
            Cipher::ChaCha20Poly1305,
            Cipher::AesCbc { bits: B128, integrity: HmacSha256_128 },
            Cipher::AesCbc { bits: B128, integrity: HmacSha384_192 },
            Cipher::AesCbc { bits: B128, integrity: HmacSha512_256 },
            Cipher::AesCbc { bits: B256, integrity: HmacSha256_128 },
            Cipher::AesCbc { bits: B256, integrity: HmacSha384_192 },
            Cipher::AesCbc { bits: B256, integrity: HmacSha512_256 },
        ]
    };

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Cipher> {
        Cipher::ALL.into_iter().find(|cipher| cipher.name() == name)
    }

    /// Its transform ID of type 1 (IANA, "IKEv2 Transform Type 1").
    pub const fn id(self) -> u16 {
        match self {
            Cipher::AesCbc { .. } => 12,
            Cipher::AesGcm16 { .. } => 20,
            Cipher::ChaCha20Poly1305 => 28,
        }
    }

    /// Its key length attribute; none where RFC 7634 §3 forbids one.
    pub const fn key_bits(self) -> Option<u16> {
        match self {
            Cipher::AesGcm16 { bits } | Cipher::AesCbc { bits, .. } => Some(bits.bits()),
            Cipher::ChaCha20Poly1305 => None,
        }
    }

    /// The integrity algorithm beside it; none of an AEAD.
    pub const fn integrity(self) -> Option<Integrity> {
        match self {
            Cipher::AesCbc { integrity, .. } => Some(integrity),
            Cipher::AesGcm16 { .. } | Cipher::ChaCha20Poly1305 => None,
        }
    }

    /// The one of a proposal's transforms: encryption, its key length and integrity (0 and nothing are the same).
    pub fn from_ids(encryption: u16, key_bits: Option<u16>, integrity: Option<u16>) -> Option<Cipher> {
        let aead = integrity.is_none_or(|id| id == 0);
        match (encryption, key_bits.and_then(AesBits::from_bits)) {
            (12, Some(bits)) => Some(Cipher::AesCbc { bits, integrity: Integrity::from_id(integrity?)? }),
            (20, Some(bits)) if aead => Some(Cipher::AesGcm16 { bits }),
            (28, _) if aead && key_bits.is_none() => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Its name in configuration and events: `aes256-gcm16`, `aes128-cbc-sha256`.
    pub const fn name(self) -> &'static str {
        use {AesBits::*, Integrity::*};
        match self {
            Cipher::AesGcm16 { bits: B128 } => "aes128-gcm16",
            Cipher::AesGcm16 { bits: B256 } => "aes256-gcm16",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
            Cipher::AesCbc { bits: B128, integrity: HmacSha256_128 } => "aes128-cbc-sha256",
            Cipher::AesCbc { bits: B128, integrity: HmacSha384_192 } => "aes128-cbc-sha384",
            Cipher::AesCbc { bits: B128, integrity: HmacSha512_256 } => "aes128-cbc-sha512",
            Cipher::AesCbc { bits: B256, integrity: HmacSha256_128 } => "aes256-cbc-sha256",
            Cipher::AesCbc { bits: B256, integrity: HmacSha384_192 } => "aes256-cbc-sha384",
            Cipher::AesCbc { bits: B256, integrity: HmacSha512_256 } => "aes256-cbc-sha512",
        }
    }

    /// Bytes of SK_ei and SK_er: the key, and of an AEAD the salt behind it (RFC 5282 §7.1, RFC 7634 §2).
    pub const fn encryption_key_len(self) -> usize {
        match self {
            Cipher::AesGcm16 { bits } => bits.bytes() + 4,
            Cipher::ChaCha20Poly1305 => 32 + 4,
            Cipher::AesCbc { bits, .. } => bits.bytes(),
        }
    }

    /// Bytes of SK_ai and SK_ar: none of an AEAD (RFC 5282 §7).
    pub const fn integrity_key_len(self) -> usize {
        match self.integrity() {
            Some(integrity) => integrity.key_len(),
            None => 0,
        }
    }

    /// Bytes of the IV in front of the ciphertext.
    pub const fn iv_len(self) -> usize {
        match self {
            Cipher::AesGcm16 { .. } | Cipher::ChaCha20Poly1305 => 8,
            Cipher::AesCbc { .. } => 16,
        }
    }

    /// Bytes of the ICV behind it.
    pub const fn icv_len(self) -> usize {
        match self.integrity() {
            Some(integrity) => integrity.icv_len(),
            None => 16,
        }
    }

    /// Bytes that the ciphertext is a multiple of.
    pub const fn block_len(self) -> usize {
        match self {
            Cipher::AesGcm16 { .. } | Cipher::ChaCha20Poly1305 => 1,
            Cipher::AesCbc { .. } => 16,
        }
    }

    /// Bytes of an Encrypted payload's body (IV, payloads, padding, its length, ICV) with `plain` bytes of payloads. What
    /// its header must say before it is sealed, as that is authenticated too.
    pub const fn sealed_len(self, plain: usize) -> usize {
        self.iv_len() + (plain + 1).next_multiple_of(self.block_len()) + self.icv_len()
    }

    /// The most bytes of payloads whose body has at most `sealed` bytes; none if not even an empty one fits.
    pub const fn plain_len(self, sealed: usize) -> Option<usize> {
        match sealed.checked_sub(self.iv_len() + self.icv_len()) {
            Some(room) => (room / self.block_len() * self.block_len()).checked_sub(1),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cipher_is_found_by_its_transforms() {
        for cipher in Cipher::ALL {
            let integrity = cipher.integrity().map(Integrity::id);
            assert_eq!(Cipher::from_ids(cipher.id(), cipher.key_bits(), integrity), Some(cipher));
            assert_eq!(Cipher::from_name(cipher.name()), Some(cipher));
        }
    }

    #[test]
    fn what_rfc_8247_forbids_is_not_found() {
        // DES, 3DES, NULL; CBC without integrity or with MD5, SHA-1; AES without a key length; an AEAD with integrity.
        let none = [
            (2, None, Some(12)),
            (3, None, Some(12)),
            (11, None, Some(12)),
            (12, Some(128), None),
            (12, Some(128), Some(0)),
            (12, Some(128), Some(1)),
            (12, Some(128), Some(2)),
            (12, None, Some(12)),
            (12, Some(64), Some(12)),
            (20, None, None),
            (20, Some(128), Some(12)),
            (18, Some(128), None),
            (28, Some(256), None),
            (28, None, Some(12)),
        ];
        assert!(
            none.into_iter()
                .all(|(encryption, bits, integrity)| Cipher::from_ids(encryption, bits, integrity).is_none())
        );
    }

    #[test]
    fn the_largest_plaintext_that_fits_is_the_largest() {
        for cipher in Cipher::ALL {
            for sealed in 0..200 {
                let fits = (0..200).rev().find(|&plain| cipher.sealed_len(plain) <= sealed);
                assert_eq!(cipher.plain_len(sealed), fits, "{}, {sealed}", cipher.name());
            }
        }
    }
}
