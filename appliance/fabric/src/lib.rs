//! What the cluster's state machines need of the world.
//!
//! * [`Embedded`]: the coupling facility in one file, durable before every answer.
//! * [`Server`] and [`Client`]: the messages of `phalanx-cluster` over gRPC and mutual TLS. The target dials the router;
//!   a node is who its certificate says it is. Keys travel here and nowhere else (I8).
//! * [`pki`]: the cluster's own certificate authority.
//! * [`codec`]: messages to protobuf and back, with every length, number and choice checked.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(feature = "node")]
mod client;
pub mod codec;
#[cfg(feature = "node")]
mod embedded;
mod error;
#[cfg(feature = "node")]
pub mod pki;
mod proto;
#[cfg(feature = "node")]
mod server;
#[cfg(feature = "node")]
mod session;
#[cfg(feature = "node")]
mod store;
#[cfg(feature = "node")]
mod tls;

pub use codec::decode_fuzz;
pub use error::FabricError;
#[cfg(feature = "node")]
pub use {
    client::{Client, ClientConfig, ClientEvent, ClientHandle},
    embedded::Embedded,
    server::{Server, ServerConfig, ServerEvent, ServerHandle},
    tls::TlsFiles,
};
