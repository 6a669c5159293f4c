//! Messages as protobuf and back.
//!
//! Whatever arrives is checked as a whole before anything is made of it: lengths and list sizes have limits, numbers
//! must fit, choices must be known, addresses must be addresses. A message that fails is an error that names the
//! message, the field and what is wrong with it; nothing of it is used.

mod parts;
mod sa;
mod to_router;
mod to_target;

use phalanx_cluster::messages::{ToRouter, ToTarget};
use prost::Message;

use crate::FabricError;
use crate::proto;

pub(crate) use to_router::{decode as to_router, encode as from_to_router};
#[cfg(feature = "node")]
pub(crate) use to_target::Undecodable;
pub(crate) use to_target::{decode as to_target, encode as from_to_target};

/// The largest message in bytes, encoded.
pub const MESSAGE_MAX: usize = 4 << 20;

/// A message to a router as bytes.
///
/// # Errors
/// [`FabricError::Message`] when it is over a limit that the other side would refuse.
pub fn encode_to_router(message: &ToRouter) -> Result<Vec<u8>, FabricError> {
    Ok(from_to_router(message)?.encode_to_vec())
}

/// A message to a router from bytes.
///
/// # Errors
/// [`FabricError::Message`] when anything of it is not as it must be.
pub fn decode_to_router(bytes: &[u8]) -> Result<ToRouter, FabricError> {
    to_router(proto::TargetMessage::decode(bytes).map_err(|e| not_protobuf(&e))?)
}

/// A message to a target as bytes. Those of an SA hold its key: wipe them.
///
/// # Errors
/// [`FabricError::Message`] when it is over a limit that the other side would refuse.
pub fn encode_to_target(message: &ToTarget) -> Result<Vec<u8>, FabricError> {
    Ok(from_to_target(message)?.encode_to_vec())
}

/// A message to a target from bytes.
///
/// # Errors
/// [`FabricError::Message`] when anything of it is not as it must be.
pub fn decode_to_target(bytes: &[u8]) -> Result<ToTarget, FabricError> {
    to_target(proto::RouterMessage::decode(bytes).map_err(|e| not_protobuf(&e))?).map_err(|u| u.error)
}

/// Arbitrary bytes as a message of either kind; what is understood survives being encoded and decoded once more.
///
/// # Panics
/// When it does not: this is for tests.
pub fn decode_fuzz(bytes: &[u8]) {
    if let Ok(message) = decode_to_router(bytes) {
        let again = encode_to_router(&message).and_then(|bytes| decode_to_router(&bytes));
        assert_eq!(again.ok(), Some(message), "a message to a router changes when it is sent on");
    }
    if let Ok(message) = decode_to_target(bytes) {
        let again = encode_to_target(&message).and_then(|bytes| decode_to_target(&bytes));
        assert_eq!(again.ok(), Some(message), "a message to a target changes when it is sent on");
    }
}

fn not_protobuf(error: &prost::DecodeError) -> FabricError {
    FabricError::Message { message: "(unknown)", field: "encoding", why: error.to_string() }
}

/// A sender checks as the receiver will: what would end the session is found where the mistake is.
fn fits(message: &'static str, len: usize) -> Result<(), FabricError> {
    if len <= MESSAGE_MAX {
        return Ok(());
    }
    Err(FabricError::Message { message, field: "length", why: format!("{len} bytes, at most {MESSAGE_MAX}") })
}
