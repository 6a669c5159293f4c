//! Algorithms by name.

use zeroize::Zeroizing;

/// Where randomness comes from.
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// Bytes that nobody is shown (I8).
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes them.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// In clear.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Pseudorandom functions (transform type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// HMAC-SHA2-256.
    HmacSha256,
    /// HMAC-SHA2-384.
    HmacSha384,
    /// HMAC-SHA2-512.
    HmacSha512,
}

/// Key exchanges (transform type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 31.
    X25519,
    /// 19.
    Ecp256,
    /// 20.
    Ecp384,
    /// 21.
    Ecp521,
    /// 14.
    Modp2048,
    /// 15.
    Modp3072,
    /// 16.
    Modp4096,
}

/// Integrity algorithms (transform type 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// 12.
    HmacSha256_128,
    /// 13.
    HmacSha384_192,
    /// 14.
    HmacSha512_256,
}

/// What encrypts IKE (transform type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-GCM, 16 byte tag.
    AesGcm16 {
        /// 128 or 256.
        bits: u16,
    },
    /// RFC 7634.
    ChaCha20Poly1305,
    /// AES-CBC.
    AesCbc {
        /// 128 or 256.
        bits: u16,
        /// Over what is encrypted.
        integrity: Integrity,
    },
}

/// Who somebody is (RFC 7296 §3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An IPv4 address.
    Ipv4(std::net::Ipv4Addr),
    /// An IPv6 address.
    Ipv6(std::net::Ipv6Addr),
    /// A host name.
    Fqdn(String),
    /// A mail address.
    Rfc822(String),
    /// A distinguished name, DER.
    DerDn(Vec<u8>),
    /// Any bytes.
    KeyId(Vec<u8>),
}
