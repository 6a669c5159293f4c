//! The poll loops of Phalanx: router and target on DPDK ports, links and rings.
//!
//! [`Dataplane::start`] makes everything; from then on control talks to each core by [`command`]s and [`Event`]s and
//! reads its [`CoreStats`]. The way of a packet:
//!
//! ```text
//! core.rs: the loop ──► engine.rs: sort ──► inbound_router.rs ──► router_own.rs ──┐
//!    ▲                         │                  │ link                          ▼
//!    │                         ├────────► inbound_target.rs ──────────────► opening.rs ──► station.rs: deliver
//!    │                         └────────► outbound.rs ───────────────────────────────────► station.rs: next hop
//!    └── obey.rs: commands, tend.rs: timers
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod ahead;
mod bucket;
mod buckets;
mod bundle;
mod capture;
mod clock;
pub mod command;
pub mod config;
mod core;
mod dataplane;
mod engine;
mod expected;
mod fast_outbound;
mod fast_router;
mod fast_target;
mod fixed_map;
mod fragments;
mod hold;
mod ike;
mod inbound_router;
mod inbound_target;
mod inner_fragments;
mod laps;
mod logging;
mod lone;
mod mail;
mod memif;
mod neighbour;
mod new_connections;
mod notes;
mod obey;
mod opening;
mod outbound;
mod outbox;
mod packet;
mod path_mtu;
mod peers;
mod purge;
mod refuse;
mod router_filter;
mod router_own;
mod station;
pub mod stats;
mod tables;
mod tend;
#[cfg(test)]
mod tests;
mod too_big;
mod vips;
mod waiting;
mod wanted;
mod watcher;
mod world;

pub use buckets::{Bucket, Buckets};
pub use capture::{Film, Place, Shot, Tap};
pub use command::{Command, Event, Trash};
pub use config::DataplaneConfig;
pub use dataplane::{CommandSender, Dataplane, DataplaneError, EventReceiver};
pub use ike::{IkeDatagram, MailSlot, Mailbox};
pub use laps::{Measures, Span, Step, StepStats};
pub use lone::{LoneCore, LonePacket};
pub use notes::{Fact, For, Note, NoteReader, Segment};
pub use stats::{CoreStats, Stage};
pub use watcher::{End, Watch};
