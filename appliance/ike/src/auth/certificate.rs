//! The peer's certificates: chain, validity, revocation, usage, and whether they name who the peer claims to be
//! (RFC 5280 §6, RFC 4945 §5).

use std::time::Duration;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeId, KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    dn,
    error::CertificateError,
    identity::{Identity, same_host, same_mail},
    signature::PublicKey,
};
use crate::crypto::sha1;

/// The most certificates that are taken from a peer.
pub const MAX_CHAIN: usize = 10;
/// id-kp-ipsecIKE (RFC 4945 §5.1.3.12).
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];
/// anyExtendedKeyUsage (RFC 5280 §4.2.1.12).
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0];

/// Whom we believe: CAs and their CRLs.
#[derive(Debug)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<String>,
    /// SHA-1 of each CA's public key, one after the other.
    requests: Vec<u8>,
    crls: Vec<CertRevocationList<'static>>,
    require_crl: bool,
    any_usage: bool,
}

impl Trust {
    /// CAs and CRLs in DER. A CRL counts for the CA that signed it, which may also be one below ours.
    ///
    /// # Errors
    /// No CA at all, a certificate that is not a CA's, what cannot be read.
    pub fn new<'a>(
        cas: impl IntoIterator<Item = &'a [u8]>,
        crls: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, CertificateError> {
        let mut trust = Self {
            anchors: Vec::new(),
            names: Vec::new(),
            requests: Vec::new(),
            crls: Vec::new(),
            require_crl: false,
            any_usage: false,
        };
        for ca in cas {
            trust.add_ca(ca)?;
        }
        if trust.anchors.is_empty() {
            return Err(CertificateError::Pem("CA certificate"));
        }
        for crl in crls {
            trust.crls.push(
                OwnedCertRevocationList::from_der(crl).map_err(|why| CertificateError::of_crl(&why, crl))?.into(),
            );
        }
        Ok(trust)
    }

    /// The same of PEM texts, each with any number of certificates or CRLs.
    ///
    /// # Errors
    /// As [`Trust::new`].
    pub fn from_pem(cas: &[u8], crls: &[u8]) -> Result<Self, CertificateError> {
        let cas: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cas).collect();
        let crls: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(crls).collect();
        let cas = cas.map_err(|_| CertificateError::Pem("readable CA certificate"))?;
        let crls = crls.map_err(|_| CertificateError::Pem("readable CRL"))?;
        Self::new(cas.iter().map(AsRef::as_ref), crls.iter().map(AsRef::as_ref))
    }

    fn add_ca(&mut self, der: &[u8]) -> Result<(), CertificateError> {
        let unreadable = || CertificateError::Unreadable("a CA's certificate".to_owned());
        let certificate = parse(der).ok_or_else(unreadable)?;
        let name = dn::text(certificate.subject().as_raw());
        if !is_issuer(&certificate) {
            return Err(CertificateError::NotCa(name));
        }
        let anchor = CertificateDer::from(der);
        self.anchors.push(anchor_from_trusted_cert(&anchor).map_err(|_| unreadable())?.to_owned());
        self.names.push(name);
        self.requests.extend(sha1(&[certificate.public_key().raw]));
        Ok(())
    }

    /// Refuses certificates about which no CRL tells. Otherwise CRLs count where there are some.
    #[must_use]
    pub fn require_crl(mut self) -> Self {
        self.require_crl = true;
        self
    }

    /// Takes certificates whatever their extendedKeyUsage says, as RFC 4945 §5.1.3.12 lets a configuration ask for.
    #[must_use]
    pub fn any_extended_key_usage(mut self) -> Self {
        self.any_usage = true;
        self
    }

    /// The CAs' subjects, for status.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The data of a CERTREQ payload that asks for certificates of these CAs, without its encoding byte: the SHA-1 hashes of
    /// their public keys (RFC 7296 §3.7).
    pub fn certificate_request(&self) -> &[u8] {
        &self.requests
    }

    /// The public key of a peer that claims to be somebody, of the certificates that it sent: its own first, then those
    /// between it and our CAs, in any order. `now` in seconds since 1970. The key still has to verify AUTH.
    ///
    /// # Errors
    /// Each in words that an administrator can act on.
    pub fn verify<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        now: u64,
        claimed: &Identity,
    ) -> Result<PublicKey, CertificateError> {
        let (end, others) = chain.split_first().ok_or(CertificateError::None)?;
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::TooMany(chain.len()));
        }
        let certificate =
            parse(end.as_ref()).ok_or_else(|| CertificateError::Unreadable("the peer's certificate".to_owned()))?;
        let subject = subject_of(&certificate);
        self.verify_chain(end.as_ref(), others, now).map_err(|error| match error {
            Error::UnknownIssuer => self.unknown_issuer(&certificate, &subject, chain.len()),
            other => CertificateError::of_chain(&other, &subject),
        })?;
        if !may_sign(&certificate) {
            return Err(CertificateError::KeyUsage(subject));
        }
        verify_identity(&certificate, &subject, claimed)?;
        PublicKey::from_spki(certificate.public_key()).map_err(|key| CertificateError::Key { subject, key })
    }

    fn verify_chain<C: AsRef<[u8]>>(&self, end: &[u8], others: &[C], now: u64) -> Result<(), Error> {
        let end = CertificateDer::from(end);
        let end = EndEntityCert::try_from(&end)?;
        // What may not issue, or cannot be read, is as good as not sent.
        let others = others.iter().map(AsRef::as_ref).filter(|der| parse(der).is_some_and(|c| is_issuer(&c)));
        let others: Vec<_> = others.map(CertificateDer::from).collect();
        let crls: Vec<_> = self.crls.iter().collect();
        let unknown = if self.require_crl { UnknownStatusPolicy::Deny } else { UnknownStatusPolicy::Allow };
        let revocation = match RevocationOptionsBuilder::new(&crls) {
            Ok(options) => {
                let options = options.with_status_policy(unknown);
                Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
            }
            Err(_) if self.require_crl => return Err(Error::UnknownRevocationStatus),
            Err(_) => None,
        };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let usage = Usage { any: self.any_usage };
        end.verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, &others, time, usage, revocation, None).map(drop)
    }

    fn unknown_issuer(&self, certificate: &X509Certificate, subject: &str, sent: usize) -> CertificateError {
        let trusted: Vec<_> = self.names.iter().take(8).map(|name| format!("\"{name}\"")).collect();
        let known = match sent {
            1 => format!("trusted are {}, and the peer sent no certificate in between", trusted.join(", ")),
            _ => format!("trusted are {}, and the peer sent {} more", trusted.join(", "), sent - 1),
        };
        let issuer = dn::text(certificate.issuer().as_raw());
        CertificateError::UnknownIssuer { subject: subject.to_owned(), issuer, known }
    }
}

/// extendedKeyUsage: absent, ipsecIKE or any (RFC 4945 §5.1.3.12).
struct Usage {
    any: bool,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, mut purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut none = true;
        for purpose in purposes.by_ref() {
            let purpose = purpose?;
            if [IPSEC_IKE, ANY_USAGE].into_iter().any(|oid| purpose == KeyPurposeId::new(oid)) {
                return Ok(());
            }
            none = false;
        }
        if none || self.any { Ok(()) } else { KeyUsage::required(IPSEC_IKE).validate(purposes) }
    }
}

/// One whole certificate.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// Whom it is about, for messages.
pub(super) fn subject_of(certificate: &X509Certificate) -> String {
    match dn::text(certificate.subject().as_raw()) {
        empty if empty.is_empty() => names_of(certificate),
        subject => subject,
    }
}

/// A CA's certificate (RFC 5280 §4.2.1.3, §4.2.1.9).
fn is_issuer(certificate: &X509Certificate) -> bool {
    let ca = certificate.basic_constraints().is_ok_and(|found| found.is_some_and(|it| it.value.ca));
    ca && certificate.key_usage().is_ok_and(|found| found.is_none_or(|it| it.value.key_cert_sign()))
}

/// RFC 4945 §5.1.3.2.
fn may_sign(certificate: &X509Certificate) -> bool {
    let signs = |usage: &x509_parser::extensions::KeyUsage| usage.digital_signature() || usage.non_repudiation();
    certificate.key_usage().is_ok_and(|found| found.is_none_or(|it| signs(it.value)))
}

/// RFC 4945 §3.1: an identity is one of the certificate's subjectAltNames, or its subject.
pub(super) fn verify_identity(
    certificate: &X509Certificate,
    subject: &str,
    claimed: &Identity,
) -> Result<(), CertificateError> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let any =
        |fits: &dyn Fn(&GeneralName) -> bool| names.as_ref().is_some_and(|it| it.value.general_names.iter().any(fits));
    let found = match claimed {
        Identity::DerDn(name) => dn::same(name, certificate.subject().as_raw()),
        Identity::Fqdn(host) => any(&|name| matches!(name, GeneralName::DNSName(it) if same_host(it, host))),
        Identity::Rfc822(mail) => any(&|name| matches!(name, GeneralName::RFC822Name(it) if same_mail(it, mail))),
        Identity::Ipv4(address) => any(&|name| matches!(name, GeneralName::IPAddress(it) if *it == address.octets())),
        Identity::Ipv6(address) => any(&|name| matches!(name, GeneralName::IPAddress(it) if *it == address.octets())),
        // No place in a certificate.
        Identity::KeyId(_) => false,
    };
    if found {
        return Ok(());
    }
    let named = names_of(certificate);
    Err(CertificateError::Identity { claimed: claimed.to_string(), subject: subject.to_owned(), named })
}

/// Whom a certificate names, for messages.
fn names_of(certificate: &X509Certificate) -> String {
    let names = certificate.subject_alternative_name().ok().flatten();
    let mut named: Vec<String> = Vec::new();
    let subject = dn::text(certificate.subject().as_raw());
    if !subject.is_empty() {
        named.push(format!("\"{subject}\""));
    }
    let names = names.iter().flat_map(|it| &it.value.general_names);
    named.extend(names.take(8).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some(visible(name)),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(Identity::Ipv4(v4.into()).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| Identity::Ipv6(v6.into()).to_string()),
        },
        _ => None,
    }));
    if named.is_empty() { "nobody".to_owned() } else { named.join(", ") }
}

/// A name that a log may show.
fn visible(name: &str) -> String {
    name.chars().take(256).map(|c| if c.is_ascii_graphic() { c } else { '\u{fffd}' }).collect()
}
