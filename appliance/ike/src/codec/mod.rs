//! Messages as bytes (RFC 7296 §3, RFC 7383): what is parsed is checked for its shape alone, nothing here knows a state.

mod body;
mod header;
mod notify;
mod payload;
mod proposal;
mod selector;

pub use body::{Body, NONCE_LEN};
pub use header::{Exchange, HEADER_LEN, Header};
pub use notify::{Notify, NotifyKind};
pub use payload::{Delete, PayloadKind, Payloads, Sealed, payloads};
pub use proposal::{Proposal, Protocol, Transform, TransformKind, parse_proposals, write_proposals};
pub use selector::{TrafficSelector, parse_selectors, write_selectors};

/// What makes bytes not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Too short, or a length inside that does not fit.
    #[error("a length that does not fit")]
    Length,
    /// Another major version than 2.
    #[error("IKE version {0}")]
    Version(u8),
    /// A payload that is unknown and critical (RFC 7296 §2.5).
    #[error("payload {0} is critical and unknown")]
    UnknownCritical(u8),
    /// More payloads, proposals or the like than anybody needs.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A field with a value it cannot have.
    #[error("{0}")]
    Field(&'static str),
}
