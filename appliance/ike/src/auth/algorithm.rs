//! AlgorithmIdentifiers of signatures (RFC 7427 appendix A): a list of the few encodings that are accepted, instead of a parser.

use x509_parser::{prelude::FromDer, x509::AlgorithmIdentifier};

use super::signature::HashAlgorithm;

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RSASSA-PSS with MGF1, one hash for both, salt as long as the hash.
    Pss(HashAlgorithm),
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(HashAlgorithm),
    /// ECDSA; the curve is the key's.
    Ecdsa(HashAlgorithm),
    /// Ed25519 (RFC 8420).
    Ed25519,
}

const SHA2: [HashAlgorithm; 3] = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
const SEQUENCE: u8 = 0x30;
const NULL: &[u8] = &[5, 0];
/// 1.2.840.113549.1.1, PKCS #1.
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
/// 1.2.840.10045.4.3, ecdsa-with-SHA2.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
/// 2.16.840.1.101.3.4.2, NIST's hashes.
const HASHES: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
/// 1.3.101.112 (RFC 8410).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

impl Scheme {
    /// Its AlgorithmIdentifier, in DER.
    pub(super) fn identifier(self) -> Vec<u8> {
        match self {
            Scheme::Pss(hash) => pss(hash, true, true, false),
            Scheme::Pkcs1(hash) => pkcs1(hash, NULL),
            Scheme::Ecdsa(hash) => sequence(&[oid(ECDSA, last(hash, 2))]),
            Scheme::Ed25519 => sequence(&[tlv(6, ED25519)]),
        }
    }

    /// The one that an AlgorithmIdentifier names, in any of the encodings that are in use.
    pub(super) fn of(identifier: &[u8]) -> Option<Scheme> {
        if identifier == Scheme::Ed25519.identifier() {
            return Some(Scheme::Ed25519);
        }
        SHA2.into_iter().find_map(|hash| {
            // RFC 4055 §5 wants NULL, RFC 7427 §3 lets it be absent.
            let is_pkcs1 = || [NULL, &[]].into_iter().any(|null| pkcs1(hash, null) == identifier);
            // RFC 4055 §2.1: parameters of a hash may be absent or NULL. The trailer is the default and should be absent.
            let is_pss = || {
                let flags = (0..8).map(|n| [n & 1 > 0, n & 2 > 0, n & 4 > 0]);
                flags
                    .into_iter()
                    .any(|[hash_null, mgf_null, trailer]| pss(hash, hash_null, mgf_null, trailer) == identifier)
            };
            if Scheme::Ecdsa(hash).identifier() == identifier {
                Some(Scheme::Ecdsa(hash))
            } else if is_pkcs1() {
                Some(Scheme::Pkcs1(hash))
            } else {
                is_pss().then_some(Scheme::Pss(hash))
            }
        })
    }
}

/// What an AlgorithmIdentifier that is not accepted names, in words.
pub(super) fn describe(identifier: &[u8]) -> String {
    let Ok((_, parsed)) = AlgorithmIdentifier::from_der(identifier) else { return "something unreadable".to_owned() };
    let name = parsed.algorithm.to_id_string();
    match name.as_str() {
        "1.2.840.113549.1.1.5" => "RSA with SHA-1".to_owned(),
        "1.2.840.113549.1.1.4" => "RSA with MD5".to_owned(),
        "1.2.840.113549.1.1.10" => "RSASSA-PSS with SHA-1 or with a salt that is not as long as the hash".to_owned(),
        "1.2.840.10045.4.1" => "ECDSA with SHA-1".to_owned(),
        "1.2.840.10040.4.3" | "2.16.840.1.101.3.4.3.2" => "DSA".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        _ => format!("algorithm {name}"),
    }
}

fn pkcs1(hash: HashAlgorithm, parameters: &[u8]) -> Vec<u8> {
    sequence(&[oid(PKCS1, last(hash, 11)), parameters.to_vec()])
}

/// RFC 8017 §A.2.3: hash, mask generation, salt length, trailer.
fn pss(hash: HashAlgorithm, hash_null: bool, mgf_null: bool, trailer: bool) -> Vec<u8> {
    let identifier = |null: bool| sequence(&[oid(HASHES, last(hash, 1)), if null { NULL } else { &[] }.to_vec()]);
    let mgf1 = sequence(&[oid(PKCS1, 8), identifier(mgf_null)]);
    let salt = [2, 1, hash.len() as u8]; // at most 64
    let mut parameters = vec![tlv(0xa0, &identifier(hash_null)), tlv(0xa1, &mgf1), tlv(0xa2, &salt)];
    if trailer {
        parameters.push(tlv(0xa3, &[2, 1, 1]));
    }
    sequence(&[oid(PKCS1, 10), sequence(&parameters)])
}

/// SHA-256, -384 and -512 have consecutive numbers everywhere.
fn last(hash: HashAlgorithm, sha256: u8) -> u8 {
    match hash {
        HashAlgorithm::Sha256 | HashAlgorithm::Identity => sha256,
        HashAlgorithm::Sha384 => sha256 + 1,
        HashAlgorithm::Sha512 => sha256 + 2,
    }
}

fn oid(arc: &[u8], last: u8) -> Vec<u8> {
    tlv(6, &[arc, &[last]].concat())
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}

/// All of these are shorter than 128 bytes.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, content.len() as u8], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::testing::hex;

    #[test]
    fn identifiers_are_those_of_rfc_7427() {
        // RFC 7427 §A.1, §A.3, §A.4.2; RFC 8410 §3.
        let cases = [
            (Scheme::Pkcs1(HashAlgorithm::Sha256), "300d06092a864886f70d01010b0500"),
            (Scheme::Pkcs1(HashAlgorithm::Sha384), "300d06092a864886f70d01010c0500"),
            (Scheme::Pkcs1(HashAlgorithm::Sha512), "300d06092a864886f70d01010d0500"),
            (Scheme::Ecdsa(HashAlgorithm::Sha256), "300a06082a8648ce3d040302"),
            (Scheme::Ecdsa(HashAlgorithm::Sha384), "300a06082a8648ce3d040303"),
            (Scheme::Ecdsa(HashAlgorithm::Sha512), "300a06082a8648ce3d040304"),
            (Scheme::Ed25519, "300506032b6570"),
            (
                Scheme::Pss(HashAlgorithm::Sha256),
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500
                 a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
            ),
        ];
        for (scheme, expected) in cases {
            assert_eq!(scheme.identifier(), hex(expected));
        }
    }

    #[test]
    fn every_scheme_is_found_again_in_each_of_its_encodings() {
        for hash in SHA2 {
            for scheme in [Scheme::Pss(hash), Scheme::Pkcs1(hash), Scheme::Ecdsa(hash), Scheme::Ed25519] {
                assert_eq!(Scheme::of(&scheme.identifier()), Some(scheme));
            }
            assert_eq!(Scheme::of(&pkcs1(hash, &[])), Some(Scheme::Pkcs1(hash)));
            assert_eq!(Scheme::of(&pss(hash, false, true, true)), Some(Scheme::Pss(hash)));
            assert_eq!(Scheme::of(&pss(hash, true, false, false)), Some(Scheme::Pss(hash)));
        }
    }

    #[test]
    fn weak_and_broken_identifiers_are_not_found_and_named() {
        for (identifier, name) in [
            ("300d06092a864886f70d0101050500", "RSA with SHA-1"),
            ("300d06092a864886f70d0101040500", "RSA with MD5"),
            ("300906072a8648ce3d0401", "ECDSA with SHA-1"),
            ("300906072a8648ce380403", "DSA"),
            ("300d06092a864886f70d01010a3000", "RSASSA-PSS with SHA-1 or with a salt that is not as long as the hash"),
            ("300506032b6571", "Ed448"),
            ("300506032b6579", "algorithm 1.3.101.121"),
            ("3005", "something unreadable"),
            ("", "something unreadable"),
        ] {
            assert_eq!(Scheme::of(&hex(identifier)), None);
            assert_eq!(describe(&hex(identifier)), name);
        }
        let mut behind = Scheme::Ed25519.identifier();
        behind.push(0);
        assert_eq!(Scheme::of(&behind), None);
    }
}
