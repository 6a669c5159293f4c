//! Why a certificate is not accepted, in words that an administrator can act on.

use webpki::Error;
use x509_parser::{der_parser::asn1_rs::Any, prelude::FromDer, time::ASN1Time};

const SEQUENCE: u8 = 0x30;

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The peer sent none.
    #[error("the peer sent no certificate")]
    None,
    /// More than [`MAX_CHAIN`](super::MAX_CHAIN).
    #[error("the peer sent {0} certificates, which is too many")]
    TooMany(usize),
    /// Not DER, or not X.509 version 3.
    #[error("{0} cannot be read")]
    Unreadable(String),
    /// Nobody whom we trust issued it.
    #[error("no trusted CA issued the certificate of \"{subject}\": its issuer is \"{issuer}\"; {known}")]
    UnknownIssuer {
        /// Whose.
        subject: String,
        /// Who says to have issued it.
        issuer: String,
        /// What there is to build a chain from.
        known: String,
    },
    /// After its end.
    #[error("the certificate of \"{subject}\", or of a CA above it, expired on {when}")]
    Expired {
        /// Whose.
        subject: String,
        /// When.
        when: String,
    },
    /// Before its begin.
    #[error("the certificate of \"{subject}\", or of a CA above it, is not valid before {when}: is the clock right?")]
    NotYet {
        /// Whose.
        subject: String,
        /// When.
        when: String,
    },
    /// On a CRL.
    #[error("the certificate of \"{0}\", or of a CA above it, is revoked")]
    Revoked(String),
    /// A CRL is too old to tell.
    #[error("the CRL that tells about \"{subject}\" should have been renewed on {when}: install a newer one")]
    CrlExpired {
        /// About whom.
        subject: String,
        /// When.
        when: String,
    },
    /// A CRL is demanded, and none tells.
    #[error("no CRL tells whether the certificate of \"{0}\", or of a CA above it, is revoked")]
    NoCrl(String),
    /// A signature in the chain is wrong.
    #[error("a signature in the chain of \"{0}\" is wrong: a CA of that name has another key")]
    Signature(String),
    /// A signature in the chain is by a weak or unknown algorithm.
    #[error("the certificate of \"{subject}\", or of a CA above it, is signed with {algorithm}, which is not accepted")]
    Algorithm {
        /// Whose.
        subject: String,
        /// What.
        algorithm: String,
    },
    /// Its key is weak or of an unknown kind.
    #[error("the certificate of \"{subject}\" has {key}")]
    Key {
        /// Whose.
        subject: String,
        /// In words.
        key: String,
    },
    /// keyUsage without digitalSignature and nonRepudiation (RFC 4945 §5.1.3.2).
    #[error(
        "the certificate of \"{0}\" is not for signatures: its keyUsage has neither digitalSignature nor nonRepudiation"
    )]
    KeyUsage(String),
    /// extendedKeyUsage without IKE (RFC 4945 §5.1.3.12).
    #[error(
        "the certificate of \"{0}\", or of a CA above it, is not for IKE: its extendedKeyUsage has neither ipsecIKE (1.3.6.1.5.5.7.3.17) nor any"
    )]
    ExtendedKeyUsage(String),
    /// A CA's certificate where an end's should be.
    #[error("the certificate of \"{0}\" is that of a CA")]
    IsCa(String),
    /// Forbidden by a CA: name constraints, path length, a CA that is none.
    #[error("the certificate of \"{subject}\" breaks what a CA above it lays down: {what}")]
    Constraint {
        /// Whose.
        subject: String,
        /// In words.
        what: String,
    },
    /// It does not name who the peer claims to be.
    #[error("the peer claims to be {claimed}; the certificate of \"{subject}\" is for {named}")]
    Identity {
        /// Who the peer claims to be.
        claimed: String,
        /// Whose.
        subject: String,
        /// Whom it names.
        named: String,
    },
    /// In the words of the library.
    #[error("the certificate of \"{subject}\" is not valid: {what}")]
    Other {
        /// Whose.
        subject: String,
        /// In words.
        what: String,
    },
    /// A CRL that cannot be used.
    #[error("a CRL cannot be used: {0}")]
    Crl(String),
    /// A configured CA that is none.
    #[error("\"{0}\" is not a CA: its certificate lacks basicConstraints CA, or keyCertSign in its keyUsage")]
    NotCa(String),
    /// A PEM text without what it should have, or that cannot be read.
    #[error("no {0} in PEM form was found")]
    Pem(&'static str),
}

/// A time in seconds since 1970, for humans.
pub(super) fn date(unix: u64) -> String {
    let date = i64::try_from(unix).ok().and_then(|unix| ASN1Time::from_timestamp(unix).ok());
    date.map_or_else(|| format!("second {unix} since 1970"), |date| date.to_string())
}

impl CertificateError {
    /// What a library's error says about a CRL.
    pub(super) fn of_crl(error: &Error, der: &[u8]) -> Self {
        // The library does not tell version 1 from garbage: where others have a number, it goes on with the algorithm
        // (RFC 5280 §5.1).
        let inside = |der| Any::from_der(der).map_or(&[][..], |(_, any)| any.data);
        let version1 = inside(inside(der)).first() == Some(&SEQUENCE);
        Self::Crl(match error {
            _ if version1 => "it is of version 1; version 2 is needed (openssl ca: crl_extensions)".to_owned(),
            Error::UnsupportedDeltaCrl => "it is a delta CRL; a whole one is needed".to_owned(),
            Error::UnsupportedIndirectCrl => {
                "it is about certificates of other CAs, too; one for each CA is needed".to_owned()
            }
            Error::BadDer | Error::TrailingData(_) => "it cannot be read".to_owned(),
            other => other.to_string(),
        })
    }

    /// What a library's error says about a subject's chain. [`Error::UnknownIssuer`] needs more and is not for here.
    pub(super) fn of_chain(error: &Error, subject: &str) -> Self {
        let subject = subject.to_owned();
        let constraint = |what: &str| Self::Constraint { subject: subject.clone(), what: what.to_owned() };
        match error {
            Error::CertExpired { not_after, .. } => Self::Expired { when: date(not_after.as_secs()), subject },
            Error::CertNotValidYet { not_before, .. } => Self::NotYet { when: date(not_before.as_secs()), subject },
            Error::CertRevoked => Self::Revoked(subject),
            Error::CrlExpired { next_update, .. } => Self::CrlExpired { when: date(next_update.as_secs()), subject },
            Error::UnknownRevocationStatus => Self::NoCrl(subject),
            Error::InvalidSignatureForPublicKey | Error::InvalidCrlSignatureForPublicKey => Self::Signature(subject),
            Error::UnsupportedSignatureAlgorithmContext(context) => {
                let algorithm = super::algorithm::describe(&sequence(&context.signature_algorithm_id));
                Self::Algorithm { subject, algorithm }
            }
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Self::ExtendedKeyUsage(subject),
            Error::CaUsedAsEndEntity => Self::IsCa(subject),
            Error::NameConstraintViolation => constraint("its names are outside of the CA's name constraints"),
            Error::PathLenConstraintViolated => constraint("there are too many CAs in between"),
            Error::EndEntityUsedAsCa => constraint("a certificate in between is not that of a CA"),
            Error::IssuerNotCrlSigner => constraint("the CA of its CRL may not sign CRLs"),
            other => Self::Other { subject, what: other.to_string() },
        }
    }
}

/// The library leaves the frame out.
fn sequence(content: &[u8]) -> Vec<u8> {
    match u8::try_from(content.len()) {
        Ok(len) if len < 128 => [&[SEQUENCE, len], content].concat(),
        _ => Vec::new(),
    }
}
