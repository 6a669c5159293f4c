//! IKEv2 (RFC 7296) as a state machine: datagrams, commands and time in; datagrams, SAs and events out.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod api;
mod codec;
mod config;
mod cookie;
mod endpoint;
mod event;
mod narrow;
mod noise;
mod prove;
mod row;
mod sa;
mod shield;
mod suite;

pub mod auth;
pub mod crypto;

pub use api::{
    Answer, Begun, ChildId, ChildMode, ChildSa, Command, CommandError, IkeId, KeyLine, Keyed, Millis, Output, Path,
    Which,
};
pub use codec::parse_fuzz;
pub use config::{
    ChildConfig, Config, Credential, EspProposal, IkeProposal, Lifetime, Limits, PeerConfig, Proof, Remote,
    Retransmission,
};
pub use endpoint::{Endpoint, ExchangeState};
pub use event::{Ending, Event, Reason, What};
pub use row::{ChildRow, Counters, IkeRow};
