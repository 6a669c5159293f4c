//! What a running node tells: HTTP and JSON over a unix socket.
//!
//! [`model`] is what is told, used by the server and by the command line alike. The [`Server`] asks the control core by
//! [`Query`] and waits for its [`Answer`]; it has no view of anything by itself. `curl --unix-socket` works too.
//! What it can be told to do is an [`Action`].

pub mod action;
mod capture;
mod client;
pub mod figures;
pub mod ike;
pub mod metrics;
mod metrics_port;
pub mod model;
mod server;
mod trace;

pub use action::{Action, Demand, Done, OneIke, OnePeer, OneSa, OneTarget, OneVip};
pub use capture::{Capture, CaptureRequest, LONGEST as LONGEST_COPY, PATH as CAPTURE_PATH, SNAPLEN};
pub use client::{ClientError, chunks, fetch, order, stream};
pub use metrics_port::MetricsPort;
pub use server::{Server, StatusError};
pub use trace::{Ends, MOST, Trace, TraceRequest};

use figures::{LatencyRow, Overview, RuntimeRow};
use ike::IkeStatus;
use model::{ConnRow, DropRow, LeaseRow, SaRow, Status, TargetRow, VipRow};
use tokio::sync::{mpsc, oneshot};

/// What can be asked for: `GET /v1/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The node as a whole.
    Status,
    /// SAs.
    Sa,
    /// Connections.
    Conn,
    /// VIPs.
    Vip,
    /// Targets.
    Target,
    /// Outbound sequence numbers.
    Lease,
    /// IKE SAs, events, counters.
    Ike,
    /// Dropped packets by reason.
    Drop,
    /// Where the cores' time goes.
    Runtime,
    /// How long things take.
    Latency,
    /// Much of it at one moment.
    Overview,
}

impl What {
    /// Everything there is.
    pub const ALL: [What; 11] = [
        What::Status,
        What::Sa,
        What::Conn,
        What::Vip,
        What::Target,
        What::Lease,
        What::Ike,
        What::Drop,
        What::Runtime,
        What::Latency,
        What::Overview,
    ];

    /// Its name in paths and commands.
    pub const fn name(self) -> &'static str {
        match self {
            What::Status => "status",
            What::Sa => "sa",
            What::Conn => "conn",
            What::Vip => "vip",
            What::Target => "target",
            What::Lease => "lease",
            What::Ike => "ike",
            What::Drop => "drop",
            What::Runtime => "runtime",
            What::Latency => "latency",
            What::Overview => "overview",
        }
    }

    /// Its path on the socket.
    pub fn path(self) -> String {
        format!("/v1/{}", self.name())
    }
}

/// What the control core answers; the variant must be the one that was asked for.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`What::Status`].
    Status(Box<Status>),
    /// To [`What::Sa`].
    Sa(Vec<SaRow>),
    /// To [`What::Conn`].
    Conn(Vec<ConnRow>),
    /// To [`What::Vip`].
    Vip(Vec<VipRow>),
    /// To [`What::Target`].
    Target(Vec<TargetRow>),
    /// To [`What::Lease`].
    Lease(Vec<LeaseRow>),
    /// To [`What::Ike`].
    Ike(Box<IkeStatus>),
    /// To [`What::Drop`].
    Drop(Vec<DropRow>),
    /// To [`What::Runtime`].
    Runtime(Vec<RuntimeRow>),
    /// To [`What::Latency`].
    Latency(Vec<LatencyRow>),
    /// To [`What::Overview`].
    Overview(Box<Overview>),
}

impl Answer {
    /// Reads the JSON that answered `what`.
    pub fn parse(what: What, json: &[u8]) -> Result<Answer, serde_json::Error> {
        Ok(match what {
            What::Status => Answer::Status(serde_json::from_slice(json)?),
            What::Sa => Answer::Sa(serde_json::from_slice(json)?),
            What::Conn => Answer::Conn(serde_json::from_slice(json)?),
            What::Vip => Answer::Vip(serde_json::from_slice(json)?),
            What::Target => Answer::Target(serde_json::from_slice(json)?),
            What::Lease => Answer::Lease(serde_json::from_slice(json)?),
            What::Ike => Answer::Ike(serde_json::from_slice(json)?),
            What::Drop => Answer::Drop(serde_json::from_slice(json)?),
            What::Runtime => Answer::Runtime(serde_json::from_slice(json)?),
            What::Latency => Answer::Latency(serde_json::from_slice(json)?),
            What::Overview => Answer::Overview(serde_json::from_slice(json)?),
        })
    }
}

/// A question to the control core.
#[derive(Debug)]
pub struct Query {
    /// What is asked.
    pub what: What,
    /// Where the answer goes; whoever asked may be gone, then sending fails and nothing is lost.
    pub reply: oneshot::Sender<Answer>,
}

/// Something came over the socket.
#[derive(Debug)]
pub enum Request {
    /// A question.
    Query(Query),
    /// An order.
    Demand(Demand),
    /// A wish for a stream of packets.
    Trace(TraceRequest),
    /// A wish for a capture.
    Capture(CaptureRequest),
}

/// How many of them may wait for the control core.
const QUEUE: usize = 16;

/// The two ends between the server and the control core.
pub fn channel() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}
