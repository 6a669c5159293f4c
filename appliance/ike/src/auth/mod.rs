//! Who a peer is and how it proves it (RFC 7296 §2.15, §3.5, §3.8).

mod dn;
mod identity;
mod pattern;

pub use identity::{Identity, IdentityError, MAX_IDENTITY};
pub use pattern::IdentityPattern;
