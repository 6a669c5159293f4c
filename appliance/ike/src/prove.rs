//! Who we are and who the peer is, proved as the configuration wants it (RFC 7296 §2.15, RFC 7427).

use crate::auth::{Identity, method, psk_auth, verify, verify_psk};
use crate::crypto::Prf;
use crate::{Credential, Proof};

/// The certificates that go with our proof, DER, our own first.
pub fn chain(credential: &Credential) -> &[Vec<u8>] {
    match credential {
        Credential::Psk(_) => &[],
        Credential::Certificate(credentials) => credentials.chain(),
    }
}

/// Whose certificates are believed: SHA-1 of each CA's public key, one behind the other (RFC 7296 §3.7).
pub fn authorities(proof: &Proof) -> &[u8] {
    match proof {
        Proof::Psk(_) => &[],
        Proof::Certificate(trust) => trust.certificate_request(),
    }
}

/// Our proof: method and data. `hashes` is what the peer can verify. The error is for an administrator.
pub fn prove(credential: &Credential, prf: Prf, octets: &[u8], hashes: &[u16]) -> Result<(u8, Vec<u8>), String> {
    match credential {
        Credential::Psk(secret) => Ok((method::SHARED_KEY, psk_auth(prf, secret, octets).as_bytes().to_vec())),
        Credential::Certificate(credentials) => {
            let signed = credentials.signer().sign(octets, hashes).map_err(|e| e.to_string())?;
            Ok((signed.method, signed.auth))
        }
    }
}

/// The peer's proof. `unix`: seconds since 1970. The error is for an administrator.
pub fn check(
    proof: &Proof,
    prf: Prf,
    octets: &[u8],
    (used, data): (u8, &[u8]),
    chain: &[&[u8]],
    identity: &Identity,
    unix: u64,
) -> Result<(), String> {
    match proof {
        Proof::Psk(secret) if used == method::SHARED_KEY => {
            verify_psk(prf, secret, octets, data).map_err(|e| e.to_string())
        }
        Proof::Psk(_) => Err(format!("it signs (method {used}), and the configuration expects a shared secret")),
        Proof::Certificate(_) if used == method::SHARED_KEY => {
            Err("it has a shared secret, and the configuration expects a certificate".to_owned())
        }
        Proof::Certificate(trust) => {
            let key = trust.verify(chain, unix, identity).map_err(|e| e.to_string())?;
            verify(&key, used, octets, data).map_err(|e| e.to_string())
        }
    }
}
