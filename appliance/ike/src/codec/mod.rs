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
pub use proposal::{ChildSpi, Proposal, Protocol, Transform, TransformKind, parse_proposals, write_proposals};
pub use selector::{TrafficSelector, parse_selectors, write_selectors};

/// What arbitrary bytes come to, for fuzzing: refused, or parts that stay what they are when they are written again.
///
/// # Panics
/// If they do not.
pub fn parse_fuzz(bytes: &[u8]) {
    let _ = Header::parse(bytes);
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let Ok(all) = payloads(*first, rest, 0) else { return };
    let _ = (all.nonce(), all.key_exchange(), all.auth(), all.certificates(), all.deletes(), all.notifies().count());
    for body in all.all(PayloadKind::Sa) {
        let Ok(proposals) = parse_proposals(body) else { continue };
        // What we do not know is not written again.
        let known = proposals.iter().all(|p| p.protocol.is_some() && p.transforms.iter().all(|t| !t.unknown_attribute));
        let mut again = Vec::new();
        write_proposals(&proposals, &mut again);
        assert!(!known || parse_proposals(&again) == Ok(proposals));
    }
    for body in all.all(PayloadKind::SelectorsInitiator) {
        let Ok(selectors) = parse_selectors(body) else { continue };
        let mut again = Vec::new();
        write_selectors(&selectors, &mut again);
        assert!(selectors.is_empty() || parse_selectors(&again) == Ok(selectors));
    }
    for body in all.all(PayloadKind::IdInitiator) {
        let _ = crate::auth::Identity::decode(body).map(|id| id.to_string());
    }
}

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
