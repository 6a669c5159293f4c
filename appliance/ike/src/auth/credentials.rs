//! What proves who we are by certificate.

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    certificate::{MAX_CHAIN, parse, subject_of, verify_identity},
    error::CertificateError,
    identity::Identity,
    signature::PublicKey,
    signer::Signer,
};

/// What is wrong with our own certificate or private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No private key in the text.
    #[error("no private key in PEM form was found")]
    NoKey,
    /// A private key that needs a passphrase.
    #[error("the private key is encrypted; it has to be in clear (openssl pkey -in FILE -out FILE)")]
    Encrypted,
    /// A private key that cannot be read or is of another kind.
    #[error("the private key is not one of RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519")]
    Key,
    /// No certificate in the text, or too many.
    #[error("1 to {MAX_CHAIN} certificates in PEM form are needed, {0} were found")]
    Chain(usize),
    /// The key does not belong to the certificate.
    #[error("the private key is not that of the certificate of \"{0}\"")]
    Mismatch(String),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Our certificate, those between it and the CA, and the private key.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<Vec<u8>>,
    signer: Signer,
}

impl Credentials {
    /// Of PEM texts: our own certificate comes first.
    ///
    /// # Errors
    /// What cannot be read; a key that does not belong to the certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain: Vec<Vec<u8>> =
            chain.map_err(|_| CredentialsError::Chain(0))?.iter().map(|der| der.to_vec()).collect();
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(CredentialsError::Chain(chain.len()));
        }
        let signer = Signer::from_pem(key)?;
        let unreadable = || CertificateError::Unreadable("our certificate".to_owned());
        let certificate = parse(&chain[0]).ok_or_else(unreadable)?;
        let subject = subject_of(&certificate);
        let public = PublicKey::from_spki(certificate.public_key());
        if public.map_err(|key| CertificateError::Key { subject: subject.clone(), key })? != signer.public_key() {
            return Err(CredentialsError::Mismatch(subject));
        }
        Ok(Self { chain, signer })
    }

    /// Signs RSA with PKCS #1 v1.5 instead of PSS.
    #[must_use]
    pub fn with_pkcs1(mut self) -> Self {
        self.signer = self.signer.with_pkcs1();
        self
    }

    /// What goes into CERT payloads, in this order.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// What makes AUTH.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Who we are: what the configuration says, as the certificate writes it; its subject where nothing is said.
    ///
    /// # Errors
    /// [`CertificateError::Identity`]: the certificate does not name that; no peer would accept it.
    pub fn identity(&self, configured: Option<&Identity>) -> Result<Identity, CertificateError> {
        let unreadable = || CertificateError::Unreadable("our certificate".to_owned());
        let certificate = parse(&self.chain[0]).ok_or_else(unreadable)?;
        let subject = Identity::DerDn(certificate.subject().as_raw().to_vec());
        let Some(configured) = configured else { return Ok(subject) };
        verify_identity(&certificate, &subject_of(&certificate), configured)?;
        // Peers compare names byte by byte: as written in the certificate, it fits.
        Ok(if matches!(configured, Identity::DerDn(_)) { subject } else { configured.clone() })
    }
}
