//! A small PKI in memory, for tests.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::net::IpAddr;

use phalanx_ike::auth::{Credentials, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// 2025-06-15 12:00 UTC: all certificates are valid from 2020 to 2030.
pub const NOW: u64 = 1_749_988_800;

/// Somebody who issues certificates.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub der: Vec<u8>,
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    pub der: Vec<u8>,
    pub pem: String,
    pub key: KeyPair,
}

pub fn id(text: &str) -> Identity {
    text.parse().expect("an identity")
}

/// Parameters for `O=Example, CN=name`, with `name.example.org`, a mail address and two addresses.
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    let ip = |text: &str| SanType::IpAddress(text.parse::<IpAddr>().expect("an address"));
    params.subject_alt_names = vec![
        SanType::DnsName(format!("{name}.example.org").try_into().expect("ASCII")),
        SanType::Rfc822Name(format!("{name}@example.org").try_into().expect("ASCII")),
        ip("10.1.2.3"),
        ip("2001:db8::7"),
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Parameters of a CA of that name.
pub fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A key of a kind; of RSA with 2048 bits.
pub fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    let rsa = || KeyPair::generate_rsa_for(algorithm, rcgen::RsaKeySize::_2048);
    KeyPair::generate_for(algorithm).or_else(|_| rsa()).expect("a key")
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::of(ca_params(name), &PKCS_ECDSA_P256_SHA256)
    }

    pub fn of(params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = key(algorithm);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// A CA below this one.
    pub fn below(&self, params: CertificateParams) -> Self {
        let key = key(&PKCS_ECDSA_P256_SHA256);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, params: &CertificateParams) -> Issued {
        self.issue_for(params, key(&PKCS_ECDSA_P256_SHA256))
    }

    pub fn issue_for(&self, params: &CertificateParams, key: KeyPair) -> Issued {
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { der: certificate.der().to_vec(), pem: certificate.pem(), key }
    }

    /// A CRL over serial numbers, valid from 2020 to the begin of a year.
    pub fn crl(&self, serials: &[u8], until: i32) -> Vec<u8> {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a CRL").der().to_vec()
    }
}

impl Issued {
    pub fn credentials(&self) -> Credentials {
        Credentials::from_pem(self.pem.as_bytes(), self.key.serialize_pem().as_bytes()).expect("they belong together")
    }
}

pub fn numbered(name: &str, serial: u8) -> CertificateParams {
    let mut params = params(name);
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    params
}

pub fn usages(key: &[KeyUsagePurpose], extended: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = params("carol");
    params.key_usages = key.to_vec();
    params.extended_key_usages = extended.to_vec();
    params
}
