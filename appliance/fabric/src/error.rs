//! What can go wrong between a node and its world.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of this crate. Each says what to do about it where that is known.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// There is no store. It is never made silently: numbers would start again from 0 (I1).
    #[error(
        "{0}: there is no coupling store here. First start? `phalanx store create --config FILE`. \
         Lost? Give every static SA a new key first"
    )]
    StoreMissing(PathBuf),
    /// A store is never overwritten (I1).
    #[error("{0}: exists; a coupling store is never overwritten, because its numbers must never be given out again")]
    StoreExists(PathBuf),
    /// One process at a time.
    #[error("{0}: another process has this coupling store open")]
    StoreLocked(PathBuf),
    /// Not a store, or a damaged one.
    #[error(
        "{path}: not a coupling store, or a damaged one: {why}. If it is lost: give every static SA a new key, \
         move the file away, `phalanx store create --config FILE`"
    )]
    StoreUnusable {
        /// The store.
        path: PathBuf,
        /// What the engine says.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate is never overwritten.
    #[error("{0}: exists, and is not overwritten")]
    Exists(PathBuf),
    /// A certificate or key that cannot be used.
    #[error("{path}: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot be a node's name: 1 to 63 of a-z, 0-9 and inner `-`; `ca` is the authority's")]
    NodeName(String),
    /// TLS cannot be set up with these files.
    #[error("TLS with {certificate}: {why}")]
    Tls {
        /// Our certificate.
        certificate: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A message that cannot be sent or was not understood.
    #[error("message {message}, {field}: {why}")]
    Message {
        /// Its name.
        message: &'static str,
        /// What of it.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
}

#[cfg(feature = "node")]
impl FabricError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}
