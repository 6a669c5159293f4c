//! Which certificates are believed, and what is said about the others.

mod pki;

use phalanx_ike::auth::{CertificateError, Identity, KeyKind, MAX_CHAIN, Trust};
use pki::{Ca, NOW, ca_params, id, key, numbered, params, usages};
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    PKCS_RSA_SHA512, SanType,
};

/// Seconds of 100 years.
const CENTURY: u64 = 3_155_760_000;

fn trust(ca: &Ca) -> Trust {
    Trust::new([&ca.der[..]], []).expect("a CA")
}

fn with_crls(ca: &Ca, crls: &[Vec<u8>]) -> Trust {
    Trust::new([&ca.der[..]], crls.iter().map(|crl| &crl[..])).expect("a CA and CRLs")
}

/// What is said about a chain whose end claims to be carol.
fn refusal(trust: &Trust, chain: &[&[u8]]) -> String {
    trust.verify(chain, NOW, &id("carol.example.org")).expect_err("refused").to_string()
}

fn accepted(trust: &Trust, chain: &[&[u8]]) {
    trust.verify(chain, NOW, &id("carol.example.org")).expect("accepted");
}

#[test]
fn a_certificate_of_our_ca_is_believed_whatever_the_kinds_of_keys() {
    let kinds = [
        (&PKCS_ECDSA_P256_SHA256, KeyKind::EcdsaP256),
        (&PKCS_ECDSA_P384_SHA384, KeyKind::EcdsaP384),
        (&PKCS_ECDSA_P521_SHA512, KeyKind::EcdsaP521),
        (&PKCS_ED25519, KeyKind::Ed25519),
        (&PKCS_RSA_SHA256, KeyKind::Rsa),
        (&PKCS_RSA_SHA512, KeyKind::Rsa),
    ];
    for (ca_kind, _) in kinds {
        let ca = Ca::of(ca_params("CA"), ca_kind);
        let trust = trust(&ca);
        for (kind, expected) in kinds.iter().take(5) {
            let carol = ca.issue_for(&params("carol"), key(kind));
            let found = trust.verify(&[&carol.der], NOW, &id("carol.example.org")).expect("believed");
            assert_eq!(found.kind(), *expected);
            assert_eq!(found, carol.credentials().signer().public_key());
        }
    }
}

#[test]
fn every_name_of_a_certificate_is_an_identity_and_no_other_is() {
    let ca = Ca::new("CA");
    let (trust, carol) = (trust(&ca), ca.issue(&params("carol")));
    let fits = |identity: &str| trust.verify(&[&carol.der], NOW, &id(identity));
    for identity in [
        "carol.example.org",
        "CAROL.example.ORG.",
        "carol@example.org",
        "carol@EXAMPLE.org",
        "10.1.2.3",
        "2001:db8::7",
        "O=Example, CN=carol",
        "O=example, CN=Carol",
    ] {
        assert!(fits(identity).is_ok(), "{identity}");
    }
    for identity in [
        "dave.example.org",
        "example.org",
        "a.carol.example.org",
        "Carol@example.org",
        "fqdn:10.1.2.3",
        "10.1.2.4",
        "2001:db8::8",
        "CN=carol",
        "CN=carol, O=Example",
        "O=Example, CN=*",
        "key:carol",
    ] {
        assert!(matches!(fits(identity), Err(CertificateError::Identity { .. })), "{identity}");
    }
    assert_eq!(
        fits("dave.example.org").expect_err("refused").to_string(),
        "the peer claims to be dave.example.org; the certificate of \"O=Example, CN=carol\" is for \
         \"O=Example, CN=carol\", carol.example.org, carol@example.org, 10.1.2.3, 2001:db8::7"
    );
}

#[test]
fn a_star_in_a_certificate_is_no_pattern() {
    let ca = Ca::new("CA");
    let mut wild = params("carol");
    wild.subject_alt_names = vec![SanType::DnsName("*.example.org".try_into().expect("ASCII"))];
    let wild = ca.issue(&wild);
    assert!(refusal(&trust(&ca), &[&wild.der]).contains("is for \"O=Example, CN=carol\", *.example.org"));
}

#[test]
fn a_common_name_is_no_host_name() {
    let ca = Ca::new("CA");
    let mut bare = params("carol.example.org");
    bare.subject_alt_names.clear();
    let bare = ca.issue(&bare);
    assert!(refusal(&trust(&ca), &[&bare.der]).starts_with("the peer claims to be carol.example.org"));
    assert!(trust(&ca).verify(&[&bare.der], NOW, &id("O=Example, CN=carol.example.org")).is_ok());
}

#[test]
fn before_and_after_its_time_a_certificate_is_refused() {
    let ca = Ca::new("CA");
    let (trust, carol) = (trust(&ca), ca.issue(&params("carol")));
    let at = |now| trust.verify(&[&carol.der], now, &id("carol.example.org")).map(drop);
    let (begin, end) = (1_577_836_800, 1_893_456_000); // 2020, 2030
    assert_eq!([at(begin), at(end)], [Ok(()), Ok(())]);
    assert_eq!(
        at(end + 1).expect_err("refused").to_string(),
        "the certificate of \"O=Example, CN=carol\", or of a CA above it, expired on Jan  1 00:00:00 2030 +00:00"
    );
    assert_eq!(
        at(begin - 1).expect_err("refused").to_string(),
        "the certificate of \"O=Example, CN=carol\", or of a CA above it, is not valid before Jan  1 00:00:00 2020 +00:00: is the clock right?"
    );
    assert!(at(0).is_err());
    assert!(at(u64::MAX).is_err());
}

#[test]
fn a_ca_that_we_do_not_have_is_unknown_even_if_it_has_our_cas_name() {
    let (ca, other, same_name) = (Ca::new("CA"), Ca::new("Other CA"), Ca::new("CA"));
    let trust = trust(&ca);
    assert_eq!(
        refusal(&trust, &[&other.issue(&params("carol")).der]),
        "no trusted CA issued the certificate of \"O=Example, CN=carol\": its issuer is \"O=Example, CN=Other CA\"; \
         trusted are \"O=Example, CN=CA\", and the peer sent no certificate in between"
    );
    // To send the CA along does not help.
    assert!(refusal(&trust, &[&other.issue(&params("carol")).der, &other.der]).contains("sent 1 more"));
    assert_eq!(
        refusal(&trust, &[&same_name.issue(&params("carol")).der]),
        "a signature in the chain of \"O=Example, CN=carol\" is wrong: a CA of that name has another key"
    );
    let selfsigned = params("carol").self_signed(&key(&PKCS_ECDSA_P256_SHA256)).expect("a certificate");
    assert!(refusal(&trust, &[selfsigned.der()]).starts_with("no trusted CA issued"));
}

#[test]
fn a_chain_may_come_in_any_order_and_with_more_than_is_needed() {
    let root = Ca::new("Root");
    let first = root.below(ca_params("First"));
    let second = first.below(ca_params("Second"));
    let carol = second.issue(&params("carol"));
    let stranger = Ca::new("Stranger");
    let trust = trust(&root);
    accepted(&trust, &[&carol.der, &second.der, &first.der]);
    accepted(&trust, &[&carol.der, &first.der, &second.der]);
    accepted(&trust, &[&carol.der, &root.der, &first.der, &stranger.der, &second.der]);
    accepted(&trust, &[&carol.der, b"no certificate", &first.der, &second.der]);
    assert!(refusal(&trust, &[&carol.der, &first.der]).contains("its issuer is \"O=Example, CN=Second\""));
    // A CA in between may be trusted for itself.
    let second = Trust::new([&second.der[..]], []).expect("a CA");
    accepted(&second, &[&carol.der]);
}

#[test]
fn who_is_no_ca_issues_nothing() {
    let root = Ca::new("Root");
    let trust = trust(&root);
    for (case, usage) in [
        (IsCa::ExplicitNoCa, vec![]),
        (IsCa::NoCa, vec![]),
        (IsCa::Ca(BasicConstraints::Unconstrained), vec![KeyUsagePurpose::CrlSign]),
    ] {
        let mut false_ca = ca_params("False CA");
        (false_ca.is_ca, false_ca.key_usages) = (case, usage);
        let false_ca = root.below(false_ca);
        let carol = false_ca.issue(&params("carol"));
        assert!(refusal(&trust, &[&carol.der, &false_ca.der]).starts_with("no trusted CA issued"), "{case:?}");
        let error = Trust::new([&false_ca.der[..]], []).expect_err("not a CA");
        assert_eq!(error, CertificateError::NotCa("O=Example, CN=False CA".to_owned()));
    }
    assert!(refusal(&trust, &[&root.der]).contains("is that of a CA"));
}

#[test]
fn what_a_ca_lays_down_holds_below_it() {
    let mut narrow = ca_params("Narrow");
    narrow.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let narrow = Ca::of(narrow, &PKCS_ECDSA_P256_SHA256);
    let below = narrow.below(ca_params("Below"));
    accepted(&trust(&narrow), &[&narrow.issue(&params("carol")).der]);

    let root = Ca::new("Root");
    let mut short = ca_params("Short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root.below(short);
    let too_deep = short.below(ca_params("Too deep"));
    let carol = too_deep.issue(&params("carol"));
    assert!(refusal(&trust(&root), &[&carol.der, &too_deep.der, &short.der]).contains("too many CAs in between"));
    drop(below);

    let mut named = ca_params("Named");
    let permitted = vec![GeneralSubtree::DnsName("example.net".to_owned())];
    named.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: vec![] });
    let named = root.below(named);
    let mut carol = params("carol");
    carol.subject_alt_names.truncate(1);
    let outside = named.issue(&carol);
    assert!(refusal(&trust(&root), &[&outside.der, &named.der]).contains("name constraints"));
}

#[test]
fn key_usage_must_allow_signatures() {
    use KeyUsagePurpose::{ContentCommitment, DigitalSignature, KeyAgreement, KeyEncipherment};
    let ca = Ca::new("CA");
    let trust = trust(&ca);
    // RFC 4945 §5.1.3.2.
    for usage in [&[][..], &[DigitalSignature], &[ContentCommitment], &[KeyEncipherment, DigitalSignature]] {
        accepted(&trust, &[&ca.issue(&usages(usage, &[])).der]);
    }
    for usage in [&[KeyEncipherment][..], &[KeyAgreement, KeyEncipherment]] {
        assert_eq!(
            refusal(&trust, &[&ca.issue(&usages(usage, &[])).der]),
            "the certificate of \"O=Example, CN=carol\" is not for signatures: its keyUsage has neither digitalSignature nor nonRepudiation"
        );
    }
}

#[test]
fn extended_key_usage_must_allow_ike_unless_told_otherwise() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, Other, ServerAuth};
    let ca = Ca::new("CA");
    let ike = Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    // RFC 4945 §5.1.3.12.
    for usage in [&[][..], &[Any], std::slice::from_ref(&ike), &[ServerAuth, ike.clone()]] {
        accepted(&trust(&ca), &[&ca.issue(&usages(&[], usage)).der]);
    }
    for usage in [&[ServerAuth][..], &[ClientAuth, ServerAuth], &[Other(vec![1, 3, 6, 1, 5, 5, 8, 2, 2])]] {
        let carol = ca.issue(&usages(&[], usage));
        assert!(refusal(&trust(&ca), &[&carol.der]).contains("is not for IKE: its extendedKeyUsage"));
        accepted(&trust(&ca).any_extended_key_usage(), &[&carol.der]);
    }
}

#[test]
fn what_a_crl_names_is_revoked() {
    let ca = Ca::new("CA");
    let (good, bad) = (ca.issue(&numbered("carol", 7)), ca.issue(&numbered("carol", 8)));
    let trust = with_crls(&ca, &[ca.crl(&[8, 9], 2030)]);
    accepted(&trust, &[&good.der]);
    assert_eq!(
        refusal(&trust, &[&bad.der]),
        "the certificate of \"O=Example, CN=carol\", or of a CA above it, is revoked"
    );
}

#[test]
fn a_ca_in_between_may_be_revoked() {
    let root = Ca::new("Root");
    let mut between = ca_params("Between");
    between.serial_number = Some(5u64.into());
    let between = root.below(between);
    let carol = between.issue(&params("carol"));
    accepted(&with_crls(&root, &[root.crl(&[4], 2030)]), &[&carol.der, &between.der]);
    let revoked = with_crls(&root, &[root.crl(&[5], 2030)]);
    assert!(refusal(&revoked, &[&carol.der, &between.der]).ends_with("is revoked"));
}

#[test]
fn a_crl_counts_for_its_own_ca_and_only_while_it_is_fresh() {
    let (ca, other) = (Ca::new("CA"), Ca::new("Other"));
    let carol = ca.issue(&numbered("carol", 8));
    // Another CA's list says nothing about ours, and one that only has its name has another key.
    accepted(&with_crls(&ca, &[other.crl(&[8], 2030)]), &[&carol.der]);
    assert!(refusal(&with_crls(&ca, &[Ca::new("CA").crl(&[], 2030)]), &[&carol.der]).contains("is wrong"));
    assert_eq!(
        refusal(&with_crls(&ca, &[ca.crl(&[], 2024)]), &[&carol.der]),
        "the CRL that tells about \"O=Example, CN=carol\" should have been renewed on Jan  1 00:00:00 2024 +00:00: install a newer one"
    );
}

#[test]
fn where_a_crl_is_demanded_its_absence_is_a_refusal() {
    let (ca, other) = (Ca::new("CA"), Ca::new("Other"));
    let carol = ca.issue(&numbered("carol", 8));
    for crls in [vec![], vec![other.crl(&[], 2030)]] {
        let trust = with_crls(&ca, &crls).require_crl();
        assert!(refusal(&trust, &[&carol.der]).starts_with("no CRL tells whether"));
    }
    accepted(&with_crls(&ca, &[ca.crl(&[], 2030)]).require_crl(), &[&carol.der]);
}

#[test]
fn crls_and_certificates_of_openssl_are_understood() {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let ca = include_bytes!("data/ca.pem");
    let trust = Trust::from_pem(ca, include_bytes!("data/crl.pem")).expect("a CA and its CRL").require_crl();
    let verdict = |pem: &[u8], name: &str| {
        let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
        trust.verify(&[der], NOW + CENTURY / 50, &id(name)).map(|key| key.kind())
    };
    assert_eq!(verdict(include_bytes!("data/good.pem"), "good.example.org"), Ok(KeyKind::EcdsaP256));
    assert_eq!(verdict(include_bytes!("data/rsa.pem"), "O=Example, CN=rsa"), Ok(KeyKind::Rsa));
    let revoked = verdict(include_bytes!("data/revoked.pem"), "revoked.example.org");
    assert_eq!(revoked, Err(CertificateError::Revoked("O=Example, CN=revoked".to_owned())));
    assert_eq!(
        Trust::from_pem(ca, include_bytes!("data/crl-version-1.pem")).expect_err("too old").to_string(),
        "a CRL cannot be used: it is of version 1; version 2 is needed (openssl ca: crl_extensions)"
    );
}

#[test]
fn weak_signatures_and_keys_are_refused_by_name() {
    let trust = Trust::from_pem(include_bytes!("data/ca.pem"), b"").expect("a CA");
    let why = |pem: &str, name: &str| {
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let claimed = Identity::Fqdn(format!("{name}.example.org"));
        trust.verify(&[&der], NOW + CENTURY / 50, &claimed).expect_err("refused").to_string()
    };
    assert_eq!(
        why(include_str!("data/sha1.pem"), "sha1"),
        "the certificate of \"O=Example, CN=sha1\", or of a CA above it, is signed with ECDSA with SHA-1, which is not accepted"
    );
    assert_eq!(
        why(include_str!("data/rsa1024.pem"), "rsa1024"),
        "the certificate of \"O=Example, CN=rsa1024\" has an RSA key of 1024 bits; 2048 to 8192 are accepted"
    );
    assert!(why(include_str!("data/p224.pem"), "p224").contains("not P-256, P-384 or P-521"));
}

#[test]
fn no_certificates_and_too_many_and_garbage_are_refused() {
    let ca = Ca::new("CA");
    let (trust, carol) = (trust(&ca), ca.issue(&params("carol")));
    assert_eq!(refusal(&trust, &[]), "the peer sent no certificate");
    accepted(&trust, &[&carol.der[..]; MAX_CHAIN]);
    assert_eq!(refusal(&trust, &[&carol.der[..]; MAX_CHAIN + 1]), "the peer sent 11 certificates, which is too many");
    assert_eq!(refusal(&trust, &[b"garbage"]), "the peer's certificate cannot be read");
    for len in 0..carol.der.len() {
        assert!(trust.verify(&[&carol.der[..len]], NOW, &id("carol.example.org")).is_err());
    }
}

#[test]
fn one_changed_byte_anywhere_is_noticed() {
    let ca = Ca::new("CA");
    let (trust, carol) = (trust(&ca), ca.issue(&params("carol")));
    for at in 0..carol.der.len() {
        let mut changed = carol.der.clone();
        changed[at] ^= 1;
        assert!(trust.verify(&[changed], NOW, &id("carol.example.org")).is_err(), "byte {at}");
    }
}

#[test]
fn a_request_for_certificates_names_each_ca_by_its_key() {
    let (one, two) = (Ca::new("One"), Ca::new("Two"));
    let both = Trust::from_pem(format!("{}{}", one.pem, two.pem).as_bytes(), b"").expect("two CAs");
    let request = |ca: &Ca| trust(ca).certificate_request().to_vec();
    assert_eq!(both.certificate_request(), [request(&one), request(&two)].concat());
    assert_eq!(request(&one).len(), 20);
    assert_eq!(both.names(), ["O=Example, CN=One", "O=Example, CN=Two"]);
}

#[test]
fn trust_needs_a_ca() {
    assert_eq!(Trust::from_pem(b"", b"").expect_err("none").to_string(), "no CA certificate in PEM form was found");
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(Trust::from_pem(cut.as_bytes(), b"").is_err());
    let ca = Ca::new("CA");
    let crl = Trust::new([&ca.der[..]], [&b"garbage"[..]]).expect_err("no CRL");
    assert_eq!(crl.to_string(), "a CRL cannot be used: it cannot be read");
}
