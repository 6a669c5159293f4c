//! What can go wrong between nodes.

use phalanx_wire::{SaId, VipId};

/// An error of a cluster state machine. It never ends the machine: the message that caused it changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A message from a node that the configuration does not name.
    #[error("node {0:?} is not one of this cluster's configured targets")]
    UnknownNode(String),
    /// The other side speaks another version of the messages.
    #[error("{node} speaks message version {theirs}, this node speaks {ours}")]
    Version {
        /// Who sent it.
        node: String,
        /// Our version.
        ours: u32,
        /// Theirs.
        theirs: u32,
    },
    /// A message that does not belong here now, e.g. a lease request before `Hello`.
    #[error("{node} sent {what} out of turn")]
    OutOfTurn {
        /// Who sent it.
        node: String,
        /// The message's name.
        what: &'static str,
    },
    /// The node's name in `Hello` is not the one of its certificate.
    #[error("the certificate says {certificate:?}, the message says {message:?}")]
    Name {
        /// From the certificate.
        certificate: String,
        /// From the message.
        message: String,
    },
    /// A limit of the state machine is reached.
    #[error("{what}: the limit of {limit} is reached")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No such SA.
    #[error("SA {:016x} is not known", .0.0)]
    UnknownSa(SaId),
    /// No such VIP.
    #[error("VIP {} is not known", .0.0)]
    UnknownVip(VipId),
    /// An SA that is there already, with other contents.
    #[error("SA {:016x} exists with another key or SPI", .0.0)]
    SaExists(SaId),
    /// The pair of SAs does not belong together.
    #[error("the inbound and the outbound SA of a pair differ in {0}")]
    MixedPair(&'static str),
}
