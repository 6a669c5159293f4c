//! The cluster as state machines: who owns which VIP, who holds which SA, who may use which sequence number.
//!
//! Nothing here does I/O, reads a clock or draws a random number: messages, times (µs since any fixed point) and boot
//! incarnations come in; messages, commands and deadlines go out as values. [`RouterCluster`] is one node as router,
//! [`TargetCluster`] one node as target of one router, [`Sequencer`] hands out numbers (I1, R18),
//! [`CouplingFacility`] is the durable store that all of it leans on.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod ceiling;
pub mod contract;
pub mod coupling;
pub mod error;
pub mod lease_client;
pub mod ledger;
pub mod messages;
pub mod outputs;
pub mod router;
mod sequence;
pub mod sequencer;
pub mod target;

pub use coupling::{CouplingError, CouplingFacility, InMemory, keys};
pub use error::ClusterError;
pub use lease_client::Want;
pub use messages::{
    ConnRecord, ConnRefusal, Drained, Gathered, Hello, LeaseBlock, LeaseRefusal, LeaseReply, LeaseRequest, NodeName,
    Notice, RankedFilter, SaReport, ToRouter, ToTarget, VERSION, VipDef, WindowRecord,
};
pub use outputs::{
    Connection, Missing, ReportPolicy, RouterConfig, RouterOutput, RouterTimes, SaPair, TargetConfig, TargetOutput,
    TargetPlan, Turn, VipPlan,
};
pub use router::{Listened, MemberState, MemberStatus, PairPhase, PairStatus, RouterCluster};
pub use sequencer::{GrantWanted, Prediction, SequenceStatus, Sequencer, SequencerConfig};
pub use target::TargetCluster;
