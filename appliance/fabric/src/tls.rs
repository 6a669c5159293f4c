//! Mutual TLS from three files.

use std::fs;
use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use zeroize::Zeroizing;

use crate::session::HANDSHAKE;
use crate::{FabricError, pki};

/// Who we are and whom we believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// This node's certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The cluster's authority, PEM.
    pub ca: PathBuf,
}

impl TlsFiles {
    /// TLS 1.3 or 1.2; no peer without a certificate of this authority gets past the handshake.
    pub(crate) fn server(&self) -> Result<ServerTlsConfig, FabricError> {
        let (identity, ca) = self.read()?;
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(ca).timeout(HANDSHAKE))
    }

    /// The router must prove that it is `router`.
    pub(crate) fn client(&self, router: &str) -> Result<ClientTlsConfig, FabricError> {
        let (identity, ca) = self.read()?;
        Ok(ClientTlsConfig::new().identity(identity).ca_certificate(ca).domain_name(router).timeout(HANDSHAKE))
    }

    pub(crate) fn wrong(&self, error: &tonic::transport::Error) -> FabricError {
        FabricError::Tls { certificate: self.certificate.clone(), why: crate::session::chain(error) }
    }

    fn read(&self) -> Result<(Identity, Certificate), FabricError> {
        // Says which file it is when one is not a certificate; TLS itself would not.
        pki::node_name(&self.certificate)?;
        let read = |path: &PathBuf| fs::read(path).map_err(FabricError::file(path));
        let (certificate, ca) = (read(&self.certificate)?, read(&self.ca)?);
        let key = Zeroizing::new(read(&self.key)?);
        Ok((Identity::from_pem(certificate, &key), Certificate::from_pem(ca)))
    }
}
