//! Which target gets a packet: the distributability table, the peek, the connection table, target selection, and, on
//! the targets, the tracking of connections that the table lives on.
//!
//! Free of I/O, threads and clocks: packets, milliseconds and random seeds are arguments. What a poll loop calls takes
//! no memory: everything is allocated at construction (I7).
//!
//! The way of one inbound packet through here: [`look::look`] says what a decrypted prefix shows, [`steer::decide`]
//! what to do with it; for a SYN that the router has opened and verified, [`steer::admit`] has a target selected by the
//! [`ports::Distribution`] and makes the entry. On the target [`tracker::Tracker`] watches both directions and says when a connection opened and closed.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod distribute;
pub mod ended;
mod fifo;
pub mod fragments;
mod hash;
mod key;
pub mod listeners;
pub mod look;
mod peers;
pub mod ports;
pub mod select;
pub mod steer;
mod store;
pub mod table;
pub mod tracker;
pub mod weight;

pub use distribute::{Protection, Situation, Verdict};
pub use ended::Ended;
pub use fragments::{Firsts, Follow, FragmentKey, Piece};
pub use hash::Seed;
pub use key::ConnKey;
pub use listeners::{Among, Listeners, PortMasks};
pub use look::{Look, Opened, Seen};
pub use peers::PeerCount;
pub use ports::{Distribution, PortRule, Transport};
pub use select::{Candidate, Policy, Selector};
pub use steer::{Arrival, Decision};
pub use store::Sought;
pub use table::{Conn, ConnState, ConnectionTable, Route, TableLimits};
pub use tracker::{ConnEvent, Found, Ruling, Tracker, TrackerLimits};
pub use weight::LoadWeight;

/// Where an incremental walk over a table stands. Starts at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(usize);

/// Whether an incremental walk is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Call again.
    More,
    /// Nothing is left to do.
    Done,
}

impl Progress {
    fn after(done: bool) -> Self {
        if done { Progress::Done } else { Progress::More }
    }
}

/// What is wrong with the limits a table is to be built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SteeringError {
    /// A table that can hold nothing.
    #[error("a limit of zero: the table could hold nothing")]
    ZeroLimit,
    /// More entries than this machine or a slot number can address.
    #[error("{0} entries are more than a table can have")]
    TooMany(usize),
    /// More than [`Distribution::TARGETS`].
    #[error("{0} targets of one VIP are more than {max}", max = Distribution::TARGETS)]
    TooManyTargets(usize),
    /// More than [`Distribution::RULES`].
    #[error("{0} rules for ports are more than {max}", max = Distribution::RULES)]
    TooManyRules(usize),
    /// More than [`Distribution::RANGES`].
    #[error("{0} ranges of ports in one rule are more than {max}", max = Distribution::RANGES)]
    TooManyRanges(usize),
}
