//! The poll loops of Phalanx: router and target on DPDK ports, links and rings.
//!
//! [`Dataplane::start`] makes everything; from then on control talks to each core by [`command`]s and [`Event`]s and
//! reads its [`CoreStats`].

#![deny(missing_docs)]

pub mod command;
pub mod config;
pub mod stats;

pub use command::{Command, Event, Trash};
pub use config::DataplaneConfig;
pub use stats::{CoreStats, Stage};
