//! AUTH payloads by certificate: what one end signs the other verifies, and nothing else.

mod pki;

use aws_lc_rs::{encoding::AsDer, signature as lc};
use phalanx_ike::auth::{
    AuthError, Credentials, CredentialsError, HashAlgorithm, Identity, KeyKind, PublicKey, Signer, method, verify,
};
use pki::{Ca, id, key, params};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};

const OCTETS: &[u8] = b"message, nonce, prf";
const EVERY: [u16; 5] = [1, 2, 3, 4, 5];
const KINDS: [(&SignatureAlgorithm, KeyKind); 5] = [
    (&PKCS_RSA_SHA256, KeyKind::Rsa),
    (&PKCS_ECDSA_P256_SHA256, KeyKind::EcdsaP256),
    (&PKCS_ECDSA_P384_SHA384, KeyKind::EcdsaP384),
    (&PKCS_ECDSA_P521_SHA512, KeyKind::EcdsaP521),
    (&PKCS_ED25519, KeyKind::Ed25519),
];

fn signer(kind: &'static SignatureAlgorithm) -> Signer {
    Signer::from_pem(key(kind).serialize_pem().as_bytes()).expect("a key")
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | u32::from(*chunk.get(n).unwrap_or(&0)));
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= chunk.len() { char::from(digit) } else { '=' });
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn every_kind_of_key_signs_what_its_public_key_verifies() {
    for (algorithm, kind) in KINDS {
        for signer in [signer(algorithm), signer(algorithm).with_pkcs1()] {
            let signed = signer.sign(OCTETS, &EVERY).expect("signs");
            let public = signer.public_key();
            assert_eq!((signer.kind(), public.kind(), signed.method), (kind, kind, method::SIGNATURE));
            assert_eq!(verify(&public, signed.method, OCTETS, &signed.auth), Ok(()));
            assert_eq!(verify(&public, signed.method, b"another", &signed.auth), Err(AuthError::Signature));
            let other = self::signer(algorithm).public_key();
            assert_eq!(verify(&other, signed.method, OCTETS, &signed.auth), Err(AuthError::Signature));
            for len in 0..signed.auth.len() {
                assert!(verify(&public, signed.method, OCTETS, &signed.auth[..len]).is_err());
            }
        }
    }
}

#[test]
fn the_hash_is_one_that_the_peer_announced() {
    let (rsa, p521) = (signer(&PKCS_RSA_SHA256), signer(&PKCS_ECDSA_P521_SHA512));
    for hash in [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
        for signer in [&rsa, &p521] {
            let signed = signer.sign(OCTETS, &[1, hash.id()]).expect("signs");
            assert_eq!(verify(&signer.public_key(), signed.method, OCTETS, &signed.auth), Ok(()));
            // The last byte of the hash's OID, or of ecdsa-with-SHA2's.
            let at = if signer.kind() == KeyKind::Rsa { 30 } else { 12 };
            let sha256 = if signer.kind() == KeyKind::Rsa { 1 } else { 2 };
            assert_eq!(u16::from(signed.auth[at]), sha256 + hash.id() - 2);
        }
    }
}

#[test]
fn a_peer_without_rfc_7427_gets_the_old_method_of_a_curve() {
    for (algorithm, old) in [
        (&PKCS_ECDSA_P256_SHA256, method::ECDSA_P256),
        (&PKCS_ECDSA_P384_SHA384, method::ECDSA_P384),
        (&PKCS_ECDSA_P521_SHA512, method::ECDSA_P521),
    ] {
        let signer = signer(algorithm);
        let signed = signer.sign(OCTETS, &[]).expect("signs");
        assert_eq!(signed.method, old);
        assert_eq!(verify(&signer.public_key(), old, OCTETS, &signed.auth), Ok(()));
        assert_eq!(verify(&signer.public_key(), old, b"another", &signed.auth), Err(AuthError::Signature));
        for other in [method::ECDSA_P256, method::ECDSA_P384, method::ECDSA_P521, method::RSA] {
            let expected =
                if other == old { Ok(()) } else { Err(AuthError::Key { method: other, key: signer.kind() }) };
            assert_eq!(verify(&signer.public_key(), other, OCTETS, &signed.auth), expected);
        }
    }
}

#[test]
fn where_the_peer_takes_nothing_we_can_make_the_reason_says_so() {
    let why = |algorithm, hashes: &[u16]| signer(algorithm).sign(OCTETS, hashes).expect_err("refused").to_string();
    assert_eq!(
        why(&PKCS_RSA_SHA256, &[]),
        "our RSA key cannot sign for this peer: it accepts no signatures of RFC 7427"
    );
    assert_eq!(why(&PKCS_RSA_SHA256, &[1]), "our RSA key cannot sign for this peer: it accepts SHA-1");
    assert_eq!(why(&PKCS_ED25519, &[2, 3]), "our Ed25519 key cannot sign for this peer: it accepts SHA-256, SHA-384");
    assert_eq!(
        why(&PKCS_ECDSA_P384_SHA384, &[2, 9]),
        "our ECDSA P-384 key cannot sign for this peer: it accepts SHA-256, hash 9"
    );
}

#[test]
fn proofs_that_are_not_accepted_say_why() {
    let (rsa, p256) = (signer(&PKCS_RSA_SHA256), signer(&PKCS_ECDSA_P256_SHA256));
    let why =
        |key: &PublicKey, method, auth: &[u8]| verify(key, method, OCTETS, auth).expect_err("refused").to_string();
    let (rsa, p256_key) = (rsa.public_key(), p256.public_key());
    let sha1 = [&[15, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0][..], &[7; 256]].concat();
    assert_eq!(why(&rsa, method::SIGNATURE, &sha1), "the peer signs with RSA with SHA-1, which is not accepted");
    assert!(why(&rsa, method::RSA, &[7; 256]).contains("let the peer use method 14 (RFC 7427)"));
    assert_eq!(why(&rsa, 3, &[]), "authentication method 3 is not supported");
    assert_eq!(why(&rsa, method::SHARED_KEY, &[]), "authentication method 2 is not supported");
    assert_eq!(why(&rsa, method::SIGNATURE, &[]), "the AUTH payload cannot be read");
    assert_eq!(why(&rsa, method::SIGNATURE, &[9, 1]), "the AUTH payload cannot be read");
    let ecdsa = p256.sign(OCTETS, &EVERY).expect("signs").auth;
    assert_eq!(
        why(&rsa, method::SIGNATURE, &ecdsa),
        "the peer says that it signs with ECDSA, and its certificate has an RSA key"
    );
    assert_eq!(
        why(&p256_key, method::RSA, &[7; 256]),
        "authentication method 1 does not go with the certificate's ECDSA P-256 key"
    );
}

#[test]
fn private_keys_come_in_the_forms_that_openssl_writes() {
    // "EC PRIVATE KEY", RFC 5915.
    let p256 = lc::EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der = p256.private_key().as_der().expect("DER");
    assert_eq!(
        Signer::from_pem(pem("EC PRIVATE KEY", sec1.as_ref()).as_bytes()).expect("a key").kind(),
        KeyKind::EcdsaP256
    );
    // PKCS #8 version 1 without a public key, RFC 8410.
    let ed25519 = lc::Ed25519KeyPair::generate().expect("a key").to_pkcs8v1().expect("DER");
    assert_eq!(
        Signer::from_pem(pem("PRIVATE KEY", ed25519.as_ref()).as_bytes()).expect("a key").kind(),
        KeyKind::Ed25519
    );
    // "RSA PRIVATE KEY", RFC 8017: what is inside of PKCS #8, behind 26 bytes.
    let rsa = key(&PKCS_RSA_SHA256).serialize_der();
    assert_eq!(Signer::from_pem(pem("RSA PRIVATE KEY", &rsa[26..]).as_bytes()).expect("a key").kind(), KeyKind::Rsa);
    // Certificates in front of it do not matter.
    let issued = Ca::new("CA").issue(&params("carol"));
    assert!(Signer::from_pem(format!("{}{}", issued.pem, issued.key.serialize_pem()).as_bytes()).is_ok());
}

#[test]
fn what_is_wrong_with_a_private_key_is_said() {
    let error = |text: &str| Signer::from_pem(text.as_bytes()).expect_err("refused");
    assert_eq!(error(""), CredentialsError::NoKey);
    assert_eq!(error(&pem("ENCRYPTED PRIVATE KEY", &[7; 99])), CredentialsError::Encrypted);
    assert_eq!(error(&pem("PRIVATE KEY", &[7; 99])), CredentialsError::Key);
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let ca = Ca::new("CA");
    let (carol, dave) = (ca.issue(&params("carol")), ca.issue(&params("dave")));
    let credentials = |pem: &str, key: &KeyPair| Credentials::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes());
    assert!(credentials(&carol.pem, &carol.key).is_ok());
    assert_eq!(
        credentials(&carol.pem, &dave.key).expect_err("refused").to_string(),
        "the private key is not that of the certificate of \"O=Example, CN=carol\""
    );
    let both = credentials(&format!("{}{}", carol.pem, ca.pem), &carol.key).expect("a chain");
    assert_eq!(both.chain(), [carol.der.clone(), ca.der.clone()]);
    assert_eq!(credentials("", &carol.key).expect_err("refused"), CredentialsError::Chain(0));
    assert_eq!(credentials(&carol.pem.repeat(11), &carol.key).expect_err("refused"), CredentialsError::Chain(11));
}

#[test]
fn our_identity_is_one_that_our_certificate_names() {
    let carol = Ca::new("CA").issue(&params("carol")).credentials();
    let subject = carol.identity(None).expect("the subject");
    assert_eq!(subject.to_string(), "O=Example, CN=carol");
    // As the certificate writes it: peers compare bytes.
    assert_eq!(carol.identity(Some(&id("O=EXAMPLE, CN=Carol"))), Ok(subject));
    assert_eq!(carol.identity(Some(&id("carol.example.org"))), Ok(Identity::Fqdn("carol.example.org".into())));
    let error = carol.identity(Some(&id("dave.example.org"))).expect_err("refused").to_string();
    assert!(error.contains("dave.example.org"), "{error}");
}

#[test]
fn nothing_prints_a_private_key() {
    let carol = Ca::new("CA").issue(&params("carol")).credentials();
    assert_eq!(format!("{:?}", carol.signer()), "Signer(EcdsaP256)");
}
