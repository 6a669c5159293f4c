//! `POST /v1/trace`: what is asked, and the stream of lines that answers.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use phalanx_wire::DropReason;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// The most packets of one trace.
pub const MOST: u32 = 10_000;

/// Which packets are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// How many; at most [`MOST`].
    pub count: u32,
    /// Of this SA.
    pub spi: Option<u32>,
    /// Of SAs with this peer, or from there.
    pub peer: Option<IpAddr>,
    /// Of connections with this end on our side.
    pub local: Option<Ends>,
    /// Of connections with this end on the peer's side.
    pub remote: Option<Ends>,
    /// Only those that are dropped.
    pub dropped: bool,
    /// And only for this reason.
    pub reason: Option<String>,
}

/// An address, perhaps with a port: `10.77.0.100`, `10.77.0.100:80`, `[fd77::100]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// The address.
    pub address: IpAddr,
    /// The port; none: every port.
    pub port: Option<u16>,
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Ends, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Ends { address: address.ip(), port: Some(address.port()) });
        }
        match text.parse() {
            Ok(address) => Ok(Ends { address, port: None }),
            Err(_) => Err("an address, ADDR:PORT or [ADDR]:PORT".to_owned()),
        }
    }
}

impl Trace {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.count == 0 || self.count > MOST {
            return Err(format!("a trace is of 1 to {MOST} packets"));
        }
        match &self.reason {
            Some(reason) if DropReason::from_name(reason).is_none() => {
                Err(format!("there is no drop reason `{reason}`: `phalanx drop --all` lists them"))
            }
            _ => Ok(()),
        }
    }
}

/// A trace that somebody wants.
#[derive(Debug)]
pub struct TraceRequest {
    /// Which packets.
    pub trace: Trace,
    /// A line for each, without its end; closed when there are no more. Who asked is gone when it is closed there.
    pub lines: mpsc::Sender<Vec<u8>>,
    /// Whether it began.
    pub reply: oneshot::Sender<Result<(), String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_addresses_with_or_without_a_port() {
        let ends = |text: &str| text.parse::<Ends>().map(|ends| (ends.address.to_string(), ends.port));
        assert_eq!(ends("10.77.0.100"), Ok(("10.77.0.100".into(), None)));
        assert_eq!(ends("10.77.0.100:80"), Ok(("10.77.0.100".into(), Some(80))));
        assert_eq!(ends("fd77::100"), Ok(("fd77::100".into(), None)));
        assert_eq!(ends("[fd77::100]:80"), Ok(("fd77::100".into(), Some(80))));
        assert!(ends("nowhere:80").is_err() && ends("").is_err());
    }

    #[test]
    fn a_trace_is_bounded_and_names_reasons_that_exist() {
        let trace = |count, reason: Option<&str>| Trace { count, reason: reason.map(Into::into), ..Trace::default() };
        assert!(trace(1, None).check().is_ok() && trace(MOST, Some("replay")).check().is_ok());
        assert!(trace(0, None).check().is_err() && trace(MOST + 1, None).check().is_err());
        assert!(trace(1, Some("no-such-reason")).check().unwrap_err().contains("phalanx drop"));
    }
}
