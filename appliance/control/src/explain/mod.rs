//! `phalanx explain`: a capture goes through the data plane of a configuration, packet by packet, and each is told of.
//!
//! The same code as the poll loops does the work ([`LoneCore`](phalanx_dataplane::LoneCore)), in memory of its own and with
//! the clock of the capture, so the same capture always gives the same lines. Nothing else is touched: no port, no store.

mod capture;
mod lone_node;
pub mod story;
#[cfg(test)]
mod tests;

pub use capture::{CaptureError, Link, Packet, Reader, Writer};
pub use lone_node::{Arrival, LoneNode, Output, Side};

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use phalanx_dataplane::{Fact, Note};
use phalanx_wire::DropReason;
use serde::Serialize;

use crate::config::Config;
use story::{Connection, Names, Story, Verdict};

/// As whom packets are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Steers, as the owner of the VIPs; all targets of the configuration are there.
    Router,
    /// Opens what it is sent, as a target of the VIPs.
    Target,
    /// Does everything itself.
    Endpoint,
}

/// How to explain.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// As whom.
    pub role: Role,
    /// Where packets that come out are written.
    pub out: Option<&'a Path>,
    /// Sealing begins with this number.
    pub first_seq: u64,
    /// As a router: the TCP ports that somebody listens on at every target (R25); none: all ports.
    pub listening: Option<&'a [u16]>,
}

/// The largest [`Options::first_seq`]: behind it there is room for as many packets as are read.
pub const LAST_FIRST_SEQ: u64 = u64::MAX >> 1;

/// So many packets may wait for their end before lines are written all the same.
const WAITING: usize = 65_536;
/// At the end of the capture time goes on for so long, for what still waits.
const AFTER: Duration = Duration::from_secs(120);

/// Why a capture cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The configuration has nothing to explain packets with.
    #[error("{0}")]
    Config(String),
    /// The capture cannot be read.
    #[error("{0}")]
    Capture(CaptureError),
    /// The resulting capture cannot be written.
    #[error("{0}")]
    Out(CaptureError),
    /// The lines cannot be written.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

/// What was done in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets read.
    pub packets: u64,
    /// Of them, sealed.
    pub sealed: u64,
}

/// The line about one packet.
#[derive(Debug, Serialize)]
struct Line<'a> {
    n: u64,
    direction: Side,
    verdict: Verdict,
    spi: Option<String>,
    seq: Option<u64>,
    connection: Option<&'a Connection>,
    target: Option<String>,
    reason: Option<DropReason>,
    /// Numbers of the packets in OUT.pcap that came of it.
    out: &'a [u64],
    decisions: &'a [String],
}

/// A packet whose line is not written yet.
struct Pending {
    n: u64,
    arrival: Arrival,
    story: Story,
    out: Vec<u64>,
}

/// Reads a capture and writes a line of JSON for each packet.
///
/// # Errors
/// See [`ExplainError`]; lines of the packets before were written.
pub fn explain<R: Read>(
    config: &Config,
    from: R,
    options: &Options<'_>,
    lines: &mut impl Write,
) -> Result<Summary, ExplainError> {
    let node = LoneNode::new(config, options).map_err(ExplainError::Config)?;
    let mut reader = Reader::new(from).map_err(ExplainError::Capture)?;
    let mut explainer =
        Explainer { node, options: *options, writer: None, pending: VecDeque::new(), summary: Summary::default() };
    if let Some(link) = reader.link() {
        explainer.begin_out(link)?;
    }
    loop {
        match reader.packet() {
            Ok(Some(packet)) => explainer.take(&packet, lines)?,
            Ok(None) => break,
            Err(error) => {
                explainer.finish(lines)?;
                return Err(ExplainError::Capture(error));
            }
        }
    }
    explainer.finish(lines)
}

struct Explainer<'a> {
    node: LoneNode,
    options: Options<'a>,
    writer: Option<Writer>,
    /// In order of arrival; a line is written when those before are.
    pending: VecDeque<Pending>,
    summary: Summary,
}

impl Explainer<'_> {
    fn begin_out(&mut self, link: Link) -> Result<(), ExplainError> {
        if let (Some(path), None) = (self.options.out, &self.writer) {
            self.writer = Some(Writer::new(path, link).map_err(ExplainError::Out)?);
        }
        Ok(())
    }

    fn take(&mut self, packet: &Packet, lines: &mut impl Write) -> Result<(), ExplainError> {
        self.begin_out(packet.link)?;
        self.summary.packets += 1;
        let n = self.summary.packets;
        let waited = self.node.until(packet.time);
        self.note(&waited, packet.time)?;
        // More packets than marks: the earliest ones' lines are long written.
        let mark = mark_of(n);
        let arrival = self.node.look(packet.link, &packet.bytes);
        let story = Story::new(arrival.spi, arrival.connection.clone());
        self.pending.push_back(Pending { n, arrival, story, out: Vec::new() });
        let outputs = self.node.receive(packet.link, &packet.bytes, mark);
        self.note(&outputs, packet.time)?;
        self.write(lines, false)
    }

    /// Notes go to the stories of their packets, frames to the resulting capture.
    fn note(&mut self, outputs: &[Output], time: Duration) -> Result<(), ExplainError> {
        while let Some(Note { mark, fact, .. }) = self.node.note() {
            let Some(at) = self.place(mark) else { continue };
            let names = Names {
                target: |target| self.node.target_name(target),
                port: |port: usize| LoneNode::PORTS[port].to_owned(),
            };
            let story = &mut self.pending[at].story;
            story.add(&fact, &names);
            if let (Fact::Forwarded(target), Some(key)) = (fact, story.goes_on) {
                self.node.confirm(key, target);
            }
        }
        for output in outputs {
            let Some(writer) = &mut self.writer else { continue };
            let number = writer.add(time, &output.frame).map_err(ExplainError::Out)?;
            if let Some(at) = self.place(output.mark) {
                self.pending[at].out.push(number);
            }
        }
        Ok(())
    }

    fn place(&self, mark: u32) -> Option<usize> {
        let first = self.pending.front()?.n;
        let at = mark.wrapping_sub(mark_of(first)) as usize;
        (mark != 0 && at < self.pending.len()).then_some(at)
    }

    /// Writes lines up to the first packet that still waits; all of them at the end.
    fn write(&mut self, lines: &mut impl Write, end: bool) -> Result<(), ExplainError> {
        while let Some(first) = self.pending.front() {
            let verdict = match first.story.verdict(self.options.role == Role::Router) {
                Verdict::Ignore if first.arrival.fragment => Verdict::Hold,
                verdict => verdict,
            };
            if verdict == Verdict::Hold && !end && self.pending.len() <= WAITING {
                break;
            }
            self.summary.sealed += u64::from(verdict == Verdict::Seal);
            let line = Line {
                n: first.n,
                direction: first.arrival.side,
                verdict,
                spi: first.story.spi.map(|spi| spi.to_string()),
                seq: first.story.seq,
                connection: first.story.connection.as_ref(),
                target: first.story.target.map(|target| self.node.target_name(target)),
                reason: first.story.reason,
                out: &first.out,
                decisions: &first.story.decisions,
            };
            serde_json::to_writer(&mut *lines, &line).map_err(std::io::Error::from)?;
            lines.write_all(b"\n")?;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Time goes on a little, so that what waits comes to its end.
    fn finish(mut self, lines: &mut impl Write) -> Result<Summary, ExplainError> {
        if !self.pending.is_empty() {
            let end = self.node.time() + AFTER;
            let outputs = self.node.until(end);
            self.note(&outputs, end)?;
        }
        self.write(lines, true)?;
        if self.writer.is_none() {
            self.begin_out(Link::Ethernet)?;
        }
        if let Some(writer) = self.writer {
            writer.finish().map_err(ExplainError::Out)?;
        }
        Ok(self.summary)
    }
}

/// Never 0.
fn mark_of(n: u64) -> u32 {
    (n % u64::from(u32::MAX)) as u32 + 1 // below the modulus
}
