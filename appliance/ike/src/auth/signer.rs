//! Our own private key: AUTH data that a peer will accept (RFC 7427 §3, §4).

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        self as lc, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroize;

use super::{
    algorithm::Scheme,
    credentials::CredentialsError,
    method,
    signature::{AuthError, HashAlgorithm, KeyKind, PublicKey},
};

/// A private key that signs. `Debug` prints what kind it is (I8).
///
/// The library draws the random part of a signature itself, from the operating system: a foreseeable one would give the
/// private key away, so it is not ours to choose.
pub struct Signer {
    key: Key,
    pkcs1: bool,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ecdsa { kind: KeyKind, asn1: Vec<(HashAlgorithm, EcdsaKeyPair)>, fixed: EcdsaKeyPair },
    Ed25519(Box<Ed25519KeyPair>),
}

/// AUTH's method and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The method.
    pub method: u8,
    /// The payload's data.
    pub auth: Vec<u8>,
}

impl Signer {
    /// Of the first private key in a PEM text: PKCS #8, or OpenSSL's older `RSA` and `EC PRIVATE KEY`.
    ///
    /// # Errors
    /// No private key, an encrypted one, one that is not RSA of 2048 bits or more, ECDSA on P-256, P-384, P-521 or Ed25519.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CredentialsError> {
        let Ok(mut der) = PrivateKeyDer::from_pem_slice(pem) else {
            let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
            return Err(if encrypted { CredentialsError::Encrypted } else { CredentialsError::NoKey });
        };
        let key = Key::from_der(der.secret_der());
        der.zeroize();
        Ok(Self { key: key.ok_or(CredentialsError::Key)?, pkcs1: false })
    }

    /// Signs with RSASSA-PKCS1-v1_5 instead of PSS, for peers that know only this. Nothing changes for other keys.
    #[must_use]
    pub fn with_pkcs1(mut self) -> Self {
        self.pkcs1 = true;
        self
    }

    /// What kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match &self.key {
            Key::Rsa(_) => KeyKind::Rsa,
            Key::Ecdsa { kind, .. } => *kind,
            Key::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// The public key beside it.
    pub fn public_key(&self) -> PublicKey {
        match &self.key {
            Key::Rsa(key) => PublicKey::new(KeyKind::Rsa, key.public_key().as_ref()),
            Key::Ecdsa { kind, fixed, .. } => PublicKey::new(*kind, fixed.public_key().as_ref()),
            Key::Ed25519(key) => PublicKey::new(KeyKind::Ed25519, key.public_key().as_ref()),
        }
    }

    /// AUTH over the octets, by a method that the peer accepts: `hashes` is what its SIGNATURE_HASH_ALGORITHMS announced.
    /// Without that, an ECDSA key signs by the older method of its curve; RSA's older method would need SHA-1 (RFC 8247 §4).
    ///
    /// # Errors
    /// [`AuthError::NoHash`].
    pub fn sign(&self, octets: &[u8], hashes: &[u16]) -> Result<Signed, AuthError> {
        let accepts = |hash: &HashAlgorithm| hashes.contains(&hash.id());
        let identified = |scheme: Scheme, signature: &[u8]| {
            let identifier = scheme.identifier();
            let auth = [&[identifier.len() as u8], &*identifier, signature].concat(); // below 128 bytes
            Signed { method: method::SIGNATURE, auth }
        };
        match &self.key {
            Key::Rsa(key) => {
                let hash =
                    rsa_hashes(key.public_modulus_len()).into_iter().find(accepts).ok_or_else(|| self.none(hashes))?;
                let scheme = if self.pkcs1 { Scheme::Pkcs1(hash) } else { Scheme::Pss(hash) };
                let mut signature = vec![0; key.public_modulus_len()];
                let signed = key.sign(rsa_encoding(scheme), &SystemRandom::new(), octets, &mut signature);
                signed.map(|()| identified(scheme, &signature)).map_err(|_| AuthError::Sign)
            }
            Key::Ecdsa { asn1, fixed, kind } => {
                let (key, scheme) = match asn1.iter().find(|(hash, _)| accepts(hash)) {
                    Some((hash, key)) => (key, Some(Scheme::Ecdsa(*hash))),
                    None if hashes.is_empty() => (fixed, None),
                    None => return Err(self.none(hashes)),
                };
                let signature = key.sign(&SystemRandom::new(), octets).map_err(|_| AuthError::Sign)?;
                Ok(match scheme {
                    Some(scheme) => identified(scheme, signature.as_ref()),
                    None => Signed { method: old_method(*kind), auth: signature.as_ref().to_vec() },
                })
            }
            Key::Ed25519(key) if accepts(&HashAlgorithm::Identity) => {
                Ok(identified(Scheme::Ed25519, key.sign(octets).as_ref()))
            }
            Key::Ed25519(_) => Err(self.none(hashes)),
        }
    }

    fn none(&self, hashes: &[u16]) -> AuthError {
        let name = |&id: &u16| match HashAlgorithm::from_id(id) {
            Some(hash) => hash.name().to_owned(),
            None if id == 1 => "SHA-1".to_owned(),
            None => format!("hash {id}"),
        };
        let accepted = match hashes {
            [] => "no signatures of RFC 7427".to_owned(),
            _ => hashes.iter().take(8).map(name).collect::<Vec<_>>().join(", "),
        };
        AuthError::NoHash { key: self.kind(), accepted }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.kind()).finish()
    }
}

impl Key {
    fn from_der(der: &[u8]) -> Option<Key> {
        if let Ok(key) = Ed25519KeyPair::from_pkcs8(der) {
            return Some(Key::Ed25519(key.into()));
        }
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        type Algorithm = &'static EcdsaSigningAlgorithm;
        // The hash of the curve's strength first.
        let p256: (_, Algorithm, &[(_, Algorithm)]) = (
            KeyKind::EcdsaP256,
            &lc::ECDSA_P256_SHA256_FIXED_SIGNING,
            &[(Sha256, &lc::ECDSA_P256_SHA256_ASN1_SIGNING)],
        );
        let p384: (_, Algorithm, &[(_, Algorithm)]) = (
            KeyKind::EcdsaP384,
            &lc::ECDSA_P384_SHA384_FIXED_SIGNING,
            &[(Sha384, &lc::ECDSA_P384_SHA384_ASN1_SIGNING)],
        );
        let p521: (_, Algorithm, &[(_, Algorithm)]) = (
            KeyKind::EcdsaP521,
            &lc::ECDSA_P521_SHA512_FIXED_SIGNING,
            &[
                (Sha512, &lc::ECDSA_P521_SHA512_ASN1_SIGNING),
                (Sha384, &lc::ECDSA_P521_SHA384_ASN1_SIGNING),
                (Sha256, &lc::ECDSA_P521_SHA256_ASN1_SIGNING),
            ],
        );
        for (kind, fixed, asn1) in [p256, p384, p521] {
            if let Ok(fixed) = EcdsaKeyPair::from_private_key_der(fixed, der) {
                let pair = |&(hash, algorithm)| Some((hash, EcdsaKeyPair::from_private_key_der(algorithm, der).ok()?));
                return Some(Key::Ecdsa { kind, asn1: asn1.iter().map(pair).collect::<Option<_>>()?, fixed });
            }
        }
        let key = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok()?;
        (256..=1024).contains(&key.public_modulus_len()).then(|| Key::Rsa(key.into()))
    }
}

/// Hashes for a modulus of so many bytes: that of its strength first.
fn rsa_hashes(modulus_len: usize) -> [HashAlgorithm; 3] {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    match modulus_len {
        0..384 => [Sha256, Sha384, Sha512],
        384..512 => [Sha384, Sha256, Sha512],
        _ => [Sha512, Sha384, Sha256],
    }
}

fn rsa_encoding(scheme: Scheme) -> &'static dyn RsaEncoding {
    match scheme {
        Scheme::Pss(HashAlgorithm::Sha384) => &lc::RSA_PSS_SHA384,
        Scheme::Pss(HashAlgorithm::Sha512) => &lc::RSA_PSS_SHA512,
        Scheme::Pkcs1(HashAlgorithm::Sha256) => &lc::RSA_PKCS1_SHA256,
        Scheme::Pkcs1(HashAlgorithm::Sha384) => &lc::RSA_PKCS1_SHA384,
        Scheme::Pkcs1(_) => &lc::RSA_PKCS1_SHA512,
        Scheme::Pss(_) | Scheme::Ecdsa(_) | Scheme::Ed25519 => &lc::RSA_PSS_SHA256,
    }
}

fn old_method(kind: KeyKind) -> u8 {
    match kind {
        KeyKind::EcdsaP256 => method::ECDSA_P256,
        KeyKind::EcdsaP384 => method::ECDSA_P384,
        KeyKind::EcdsaP521 => method::ECDSA_P521,
        KeyKind::Rsa | KeyKind::Ed25519 => method::SIGNATURE,
    }
}
