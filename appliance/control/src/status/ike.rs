//! What IKE tells of itself. Names of fields are an interface, as in [`super::model`].

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// IKE on a router.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IkeStatus {
    /// Names of the peers in the configuration.
    pub peers: Vec<String>,
    /// IKE SAs.
    pub sas: Vec<IkeSa>,
    /// What was counted since the start, by name.
    pub counters: BTreeMap<String, u64>,
    /// How long set-ups took: milliseconds at some percentiles of the latest.
    pub set_up: SetUp,
    /// The latest events, the newest last.
    pub events: Vec<IkeEvent>,
}

/// An IKE SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IkeSa {
    /// Its SPI on our side, in hexadecimal.
    pub id: String,
    /// The initiator's SPI.
    pub spi_initiator: String,
    /// The responder's SPI.
    pub spi_responder: String,
    /// `initiator` or `responder`: what we are.
    pub role: String,
    /// The peer's name in the configuration, once it is known.
    pub peer: Option<String>,
    /// Who the peer proved to be.
    pub identity: Option<String>,
    /// Our address and port.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// `connecting`, `established`, `rekeying`, `replaced`, `deleting`.
    pub state: String,
    /// What protects it.
    pub suite: String,
    /// Since it is up.
    pub age_ms: u64,
    /// Until it gets new keys.
    pub rekey_in_ms: Option<u64>,
    /// Since the peer was heard.
    pub silent_ms: u64,
    /// There is a NAT in front of us.
    pub nat_here: bool,
    /// There is one in front of the peer.
    pub nat_there: bool,
    /// The next message ID that we send.
    pub next_out: u32,
    /// The next that we expect.
    pub next_in: u32,
    /// Its CHILD_SAs.
    pub children: Vec<IkeChild>,
}

/// A CHILD_SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IkeChild {
    /// Its number here.
    pub id: u64,
    /// Its name in the configuration.
    pub name: String,
    /// The tunnel that its packets take, as in `phalanx sa`.
    pub tunnel: String,
    /// `installing`, `up`, `rekeying`, `replaced`, `deleting`.
    pub state: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// SPI that the peer sends with.
    pub inbound: String,
    /// SPI that we send with.
    pub outbound: String,
    /// What may go through it.
    pub selectors: String,
    /// Its cipher.
    pub suite: String,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Since it is up.
    pub age_ms: u64,
    /// Until it is replaced.
    pub rekey_in_ms: Option<u64>,
    /// The one it takes the place of.
    pub replaces: Option<u64>,
}

/// What is counted of IKE, for those who collect figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IkeFigures {
    /// IKE SAs, half-open ones among them.
    pub sas: u64,
    /// Of them those that peers began and that are not authenticated yet.
    pub half_open: u64,
    /// CHILD_SAs.
    pub children: u64,
    /// As in [`IkeStatus`].
    pub counters: BTreeMap<String, u64>,
    /// How long set-ups took.
    pub set_up: SetUp,
}

/// Upper bounds of [`SetUp`]'s buckets in milliseconds; one more is above all of them.
pub const SET_UP_BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// Milliseconds from the first message of a set-up to its last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetUp {
    /// How many since the start.
    pub count: u64,
    /// Their sum.
    pub sum_ms: u64,
    /// Half of the latest 4,096 took no longer.
    pub p50_ms: u64,
    /// 99 of 100 of them took no longer.
    pub p99_ms: u64,
    /// The longest of them.
    pub max_ms: u64,
    /// All since the start, each in one bucket.
    pub buckets: Vec<SetUpBucket>,
}

/// How many set-ups took so long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetUpBucket {
    /// At most, in milliseconds, and more than the bucket before says; none: longer than all others.
    pub up_to_ms: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IkeEvent {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Something failed.
    pub failure: bool,
    /// In words.
    pub words: String,
}
