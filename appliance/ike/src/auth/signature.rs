//! Public keys and the signatures that they verify (RFC 7427, RFC 4754, RFC 8420).

use aws_lc_rs::signature::{self as lc, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{public_key::PublicKey as Parsed, x509::SubjectPublicKeyInfo};

use super::{
    algorithm::{self, Scheme},
    method,
};

/// A hash of a SIGNATURE_HASH_ALGORITHMS notification (RFC 7427 §4). SHA-1 is none of them (RFC 8247 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgorithm {
    /// SHA2-256.
    Sha256,
    /// SHA2-384.
    Sha384,
    /// SHA2-512.
    Sha512,
    /// None: the signature hashes by itself, as Ed25519 (RFC 8420 §2).
    Identity,
}

impl HashAlgorithm {
    /// What we accept, and so announce.
    pub const ALL: [HashAlgorithm; 4] =
        [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512, HashAlgorithm::Identity];

    /// Its number (IANA, "IKEv2 Hash Algorithms").
    pub const fn id(self) -> u16 {
        match self {
            HashAlgorithm::Sha256 => 2,
            HashAlgorithm::Sha384 => 3,
            HashAlgorithm::Sha512 => 4,
            HashAlgorithm::Identity => 5,
        }
    }

    /// The one of a number.
    pub const fn from_id(id: u16) -> Option<HashAlgorithm> {
        match id {
            2 => Some(HashAlgorithm::Sha256),
            3 => Some(HashAlgorithm::Sha384),
            4 => Some(HashAlgorithm::Sha512),
            5 => Some(HashAlgorithm::Identity),
            _ => None,
        }
    }

    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Sha256 => "SHA-256",
            HashAlgorithm::Sha384 => "SHA-384",
            HashAlgorithm::Sha512 => "SHA-512",
            HashAlgorithm::Identity => "identity",
        }
    }

    /// Bytes of a hash.
    pub(super) const fn len(self) -> usize {
        match self {
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha384 => 48,
            HashAlgorithm::Sha512 => 64,
            HashAlgorithm::Identity => 0,
        }
    }
}

/// Kinds of keys that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA of 2048 to 8192 bits.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            KeyKind::Rsa => "RSA",
            KeyKind::EcdsaP256 => "ECDSA P-256",
            KeyKind::EcdsaP384 => "ECDSA P-384",
            KeyKind::EcdsaP521 => "ECDSA P-521",
            KeyKind::Ed25519 => "Ed25519",
        }
    }
}

/// A public key: RSAPublicKey in DER, an uncompressed point, or Ed25519's 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    bytes: Box<[u8]>,
}

impl PublicKey {
    pub(super) fn new(kind: KeyKind, bytes: &[u8]) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// That of a certificate.
    ///
    /// # Errors
    /// In words why it cannot be used.
    pub(super) fn from_spki(info: &SubjectPublicKeyInfo) -> Result<Self, String> {
        let algorithm = info.algorithm.algorithm.to_id_string();
        let bytes = &*info.subject_public_key.data;
        let kind = match algorithm.as_str() {
            "1.2.840.113549.1.1.1" => match info.parsed() {
                Ok(Parsed::RSA(key)) => match modulus_bits(key.modulus) {
                    2048..=8192 => KeyKind::Rsa,
                    bits => return Err(format!("an RSA key of {bits} bits; 2048 to 8192 are accepted")),
                },
                _ => return Err("an RSA key that cannot be read".to_owned()),
            },
            "1.2.840.10045.2.1" => {
                let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                let curve = curve.map_or_else(|| "no named curve".to_owned(), |oid| oid.to_id_string());
                let (kind, len) = match curve.as_str() {
                    "1.2.840.10045.3.1.7" => (KeyKind::EcdsaP256, 65),
                    "1.3.132.0.34" => (KeyKind::EcdsaP384, 97),
                    "1.3.132.0.35" => (KeyKind::EcdsaP521, 133),
                    _ => return Err(format!("an ECDSA key on a curve that is not P-256, P-384 or P-521 ({curve})")),
                };
                match bytes.first() {
                    Some(4) if bytes.len() == len => kind,
                    _ => return Err("an ECDSA key that is not an uncompressed point".to_owned()),
                }
            }
            "1.3.101.112" if bytes.len() == 32 => KeyKind::Ed25519,
            "1.2.840.113549.1.1.10" => return Err("an RSA key that is bound to PSS, which is not supported".to_owned()),
            _ => return Err(format!("a key of algorithm {algorithm}; RSA, ECDSA and Ed25519 are accepted")),
        };
        Ok(Self::new(kind, bytes))
    }

    /// What kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    fn verifies(&self, algorithm: &'static dyn VerificationAlgorithm, octets: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(octets, signature).is_ok()
    }
}

/// Bits of a big-endian number.
fn modulus_bits(modulus: &[u8]) -> usize {
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    modulus.get(zeros).map_or(0, |first| (modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// Why a proof is not accepted, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The MIC is not that of our shared secret.
    #[error("the shared secret (PSK) is another one than ours")]
    Secret,
    /// A method that we do not know.
    #[error("authentication method {0} is not supported")]
    Method(u8),
    /// A method that the key cannot have signed with.
    #[error("authentication method {method} does not go with the certificate's {} key", key.name())]
    Key {
        /// The method.
        method: u8,
        /// The certificate's key.
        key: KeyKind,
    },
    /// An algorithm that is too weak or unknown.
    #[error("the peer signs with {0}, which is not accepted")]
    Algorithm(String),
    /// An algorithm that the certificate's key cannot have signed with.
    #[error("the peer says that it signs with {signed}, and its certificate has {} key", article(key))]
    Scheme {
        /// What it says.
        signed: &'static str,
        /// The certificate's key.
        key: KeyKind,
    },
    /// Method 1 with a signature that is none of SHA-2.
    #[error(
        "the signature by authentication method 1 is not RSA with SHA-2: with SHA-1, its usual hash, it is not accepted; let the peer use method 14 (RFC 7427)"
    )]
    OldRsa,
    /// Too short to be what it says.
    #[error("the AUTH payload cannot be read")]
    Format,
    /// Not made with the certificate's private key, or over something else.
    #[error("the signature is not by the certificate's key")]
    Signature,
    /// The peer verifies nothing that we can make.
    #[error("our {} key cannot sign for this peer: it accepts {accepted}", key.name())]
    NoHash {
        /// Our key.
        key: KeyKind,
        /// What it announced.
        accepted: String,
    },
    /// The library refused.
    #[error("our private key could not sign")]
    Sign,
}

fn article(key: &KeyKind) -> String {
    format!("an {}", key.name())
}

/// Whether AUTH is the key's signature of the octets (RFC 7296 §2.15).
///
/// # Errors
/// What an administrator can act on; [`AuthError::Signature`] if it is just wrong.
pub fn verify(key: &PublicKey, auth_method: u8, octets: &[u8], auth: &[u8]) -> Result<(), AuthError> {
    let valid = match (auth_method, key.kind) {
        (method::SIGNATURE, _) => return verify_identified(key, octets, auth),
        (method::RSA, KeyKind::Rsa) => {
            let algorithms =
                [&lc::RSA_PKCS1_2048_8192_SHA256, &lc::RSA_PKCS1_2048_8192_SHA384, &lc::RSA_PKCS1_2048_8192_SHA512];
            let valid = algorithms.into_iter().any(|algorithm| key.verifies(algorithm, octets, auth));
            return if valid { Ok(()) } else { Err(AuthError::OldRsa) };
        }
        (method::ECDSA_P256, KeyKind::EcdsaP256) => key.verifies(&lc::ECDSA_P256_SHA256_FIXED, octets, auth),
        (method::ECDSA_P384, KeyKind::EcdsaP384) => key.verifies(&lc::ECDSA_P384_SHA384_FIXED, octets, auth),
        (method::ECDSA_P521, KeyKind::EcdsaP521) => key.verifies(&lc::ECDSA_P521_SHA512_FIXED, octets, auth),
        (method::RSA | method::ECDSA_P256 | method::ECDSA_P384 | method::ECDSA_P521, kind) => {
            return Err(AuthError::Key { method: auth_method, key: kind });
        }
        (other, _) => return Err(AuthError::Method(other)),
    };
    if valid { Ok(()) } else { Err(AuthError::Signature) }
}

/// RFC 7427 §3: length and bytes of an AlgorithmIdentifier, then the signature.
fn verify_identified(key: &PublicKey, octets: &[u8], auth: &[u8]) -> Result<(), AuthError> {
    let (&len, rest) = auth.split_first().ok_or(AuthError::Format)?;
    let (identifier, signature) = rest.split_at_checked(len.into()).ok_or(AuthError::Format)?;
    let scheme = Scheme::of(identifier).ok_or_else(|| AuthError::Algorithm(algorithm::describe(identifier)))?;
    let algorithm = verifier(scheme, key.kind)?;
    if key.verifies(algorithm, octets, signature) { Ok(()) } else { Err(AuthError::Signature) }
}

fn verifier(scheme: Scheme, kind: KeyKind) -> Result<&'static dyn VerificationAlgorithm, AuthError> {
    use HashAlgorithm::{Identity, Sha256, Sha384, Sha512};
    let signed = match (scheme, kind) {
        (Scheme::Pss(Sha256), KeyKind::Rsa) => return Ok(&lc::RSA_PSS_2048_8192_SHA256),
        (Scheme::Pss(Sha384), KeyKind::Rsa) => return Ok(&lc::RSA_PSS_2048_8192_SHA384),
        (Scheme::Pss(Sha512), KeyKind::Rsa) => return Ok(&lc::RSA_PSS_2048_8192_SHA512),
        (Scheme::Pkcs1(Sha256), KeyKind::Rsa) => return Ok(&lc::RSA_PKCS1_2048_8192_SHA256),
        (Scheme::Pkcs1(Sha384), KeyKind::Rsa) => return Ok(&lc::RSA_PKCS1_2048_8192_SHA384),
        (Scheme::Pkcs1(Sha512), KeyKind::Rsa) => return Ok(&lc::RSA_PKCS1_2048_8192_SHA512),
        (Scheme::Ecdsa(Sha256), KeyKind::EcdsaP256) => return Ok(&lc::ECDSA_P256_SHA256_ASN1),
        (Scheme::Ecdsa(Sha384), KeyKind::EcdsaP256) => return Ok(&lc::ECDSA_P256_SHA384_ASN1),
        (Scheme::Ecdsa(Sha512), KeyKind::EcdsaP256) => return Ok(&lc::ECDSA_P256_SHA512_ASN1),
        (Scheme::Ecdsa(Sha256), KeyKind::EcdsaP384) => return Ok(&lc::ECDSA_P384_SHA256_ASN1),
        (Scheme::Ecdsa(Sha384), KeyKind::EcdsaP384) => return Ok(&lc::ECDSA_P384_SHA384_ASN1),
        (Scheme::Ecdsa(Sha512), KeyKind::EcdsaP384) => return Ok(&lc::ECDSA_P384_SHA512_ASN1),
        (Scheme::Ecdsa(Sha256), KeyKind::EcdsaP521) => return Ok(&lc::ECDSA_P521_SHA256_ASN1),
        (Scheme::Ecdsa(Sha384), KeyKind::EcdsaP521) => return Ok(&lc::ECDSA_P521_SHA384_ASN1),
        (Scheme::Ecdsa(Sha512), KeyKind::EcdsaP521) => return Ok(&lc::ECDSA_P521_SHA512_ASN1),
        (Scheme::Ed25519, KeyKind::Ed25519) => return Ok(&lc::ED25519),
        (Scheme::Pss(Identity) | Scheme::Pkcs1(Identity) | Scheme::Ecdsa(Identity), _) => "no hash",
        (Scheme::Pss(_) | Scheme::Pkcs1(_), _) => "RSA",
        (Scheme::Ecdsa(_), _) => "ECDSA",
        (Scheme::Ed25519, _) => "Ed25519",
    };
    Err(AuthError::Scheme { signed, key: kind })
}
