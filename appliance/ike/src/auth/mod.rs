//! Who a peer is and how it proves it (RFC 7296 §2.15, §3.5, §3.8).
//!
//! ```text
//! signed_octets ─► psk_auth                                 AUTH by secret
//!              ├─► Signer::sign                              AUTH by certificate, ours
//!              └─► Trust::verify ─► PublicKey ─► verify      the peer's
//! ```

mod algorithm;
mod certificate;
mod credentials;
mod dn;
mod error;
mod identity;
mod pattern;
mod signature;
mod signer;
#[cfg(test)]
mod wycheproof;

pub use certificate::{MAX_CHAIN, Trust};
pub use credentials::{Credentials, CredentialsError};
pub use error::CertificateError;
pub use identity::{Identity, IdentityError, MAX_IDENTITY};
pub use pattern::IdentityPattern;
pub use signature::{AuthError, HashAlgorithm, KeyKind, PublicKey, verify};
pub use signer::{Signed, Signer};

use crate::crypto::{Prf, Secret, same};

/// What is in front of an AUTH payload's data (RFC 7296 §3.8, RFC 7427 §3).
pub mod method {
    /// RSA Digital Signature: verified with SHA-2, never made.
    pub const RSA: u8 = 1;
    /// Shared Key Message Integrity Code.
    pub const SHARED_KEY: u8 = 2;
    /// ECDSA with SHA-256 on P-256 (RFC 4754).
    pub const ECDSA_P256: u8 = 9;
    /// ECDSA with SHA-384 on P-384 (RFC 4754).
    pub const ECDSA_P384: u8 = 10;
    /// ECDSA with SHA-512 on P-521 (RFC 4754).
    pub const ECDSA_P521: u8 = 11;
    /// Digital Signature (RFC 7427).
    pub const SIGNATURE: u8 = 14;
}

/// What an end's AUTH covers (RFC 7296 §2.15): its first message as it was sent, the other end's nonce, and prf(SK_p, its ID
/// payload's body as it was sent, reserved bytes too). Behind it comes what IKE_INTERMEDIATE adds (RFC 9242 §3.3.2).
pub fn signed_octets(prf: Prf, sk_p: &Secret, message: &[u8], other_nonce: &[u8], id_body: &[u8]) -> Vec<u8> {
    [message, other_nonce, prf.mac(sk_p.as_bytes(), &[id_body]).as_bytes()].concat()
}

/// AUTH of a shared secret: prf(prf(secret, "Key Pad for IKEv2"), octets) (RFC 7296 §2.15).
pub fn psk_auth(prf: Prf, secret: &Secret, octets: &[u8]) -> Secret {
    prf.mac(prf.mac(secret.as_bytes(), &[b"Key Pad for IKEv2"]).as_bytes(), &[octets])
}

/// Whether the peer has our shared secret: compared in constant time.
///
/// # Errors
/// [`AuthError::Secret`].
pub fn verify_psk(prf: Prf, secret: &Secret, octets: &[u8], auth: &[u8]) -> Result<(), AuthError> {
    let expected = psk_auth(prf, secret, octets);
    if same(expected.as_bytes(), auth) { Ok(()) } else { Err(AuthError::Secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_secret_proves_itself_and_no_other() {
        let (prf, secret) = (Prf::HmacSha256, Secret::new(b"one".to_vec()));
        let octets = signed_octets(prf, &Secret::new(vec![7; 32]), b"message", b"nonce", &[2, 0, 0, 0, b'a']);
        assert_eq!(octets.len(), 7 + 5 + 32);
        let auth = psk_auth(prf, &secret, &octets);
        assert_eq!(verify_psk(prf, &secret, &octets, auth.as_bytes()), Ok(()));
        assert_eq!(verify_psk(prf, &secret, &octets[1..], auth.as_bytes()), Err(AuthError::Secret));
        assert_eq!(verify_psk(prf, &secret, &octets, &auth.as_bytes()[1..]), Err(AuthError::Secret));
        assert_eq!(verify_psk(prf, &Secret::new(b"two".to_vec()), &octets, auth.as_bytes()), Err(AuthError::Secret));
    }

    #[test]
    fn reserved_bytes_of_the_identity_are_covered() {
        // RFC 7296 §2.15: RestOfInitIDPayload = IDType | RESERVED | InitIDData.
        let octets = |body: &[u8]| signed_octets(Prf::HmacSha256, &Secret::new(vec![7; 32]), b"m", b"n", body);
        assert_ne!(octets(&[2, 0, 0, 0, b'a']), octets(&[2, 0, 0, 1, b'a']));
    }
}
