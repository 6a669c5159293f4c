//! `phalanx trace` on a running node: cores are told what to watch, and their notes become a line for each packet.
//!
//! One trace at a time; it ends with its last packet, when who asked is gone, or after an hour.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use phalanx_dataplane::{Command, End, Note, NoteReader, Watch};
use phalanx_wire::{CoreId, DropReason, Spi, TargetId};
use serde::Serialize;
use tokio::sync::mpsc;

use super::brain::{Brain, Input};
use crate::explain::story::{Connection, Names, Story, Verdict};
use crate::status::{Ends, Trace, TraceRequest};

/// The longest trace.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often notes are gathered.
const EVERY: Duration = Duration::from_millis(1);
/// Notes taken in one go, so that other work gets its turn.
const BATCH: usize = 4096;
/// Packets followed at a time.
const FOLLOWED: usize = 8192;
/// A packet that came to its end may have others: it was cut, or answered.
const SETTLED: Duration = Duration::from_millis(20);
/// A packet of which nothing was heard for so long waits, or was swallowed.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether somebody traces.
#[derive(Default)]
pub struct Watching {
    on: bool,
    generation: u8,
}

/// A packet that is followed.
struct Followed {
    story: Story,
    cores: Vec<CoreId>,
    heard: Instant,
}

/// The line about one packet.
#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since 1970 when its end was heard of.
    at: f64,
    verdict: Verdict,
    spi: Option<String>,
    seq: Option<u64>,
    connection: Option<&'a Connection>,
    target: Option<String>,
    reason: Option<DropReason>,
    decisions: Vec<Decision<'a>>,
}

#[derive(Serialize)]
struct Decision<'a> {
    core: u16,
    what: &'a str,
}

/// Gathers notes for one trace.
struct Gatherer {
    trace: Trace,
    generation: u8,
    notes: NoteReader,
    lines: mpsc::Sender<Vec<u8>>,
    targets: HashMap<TargetId, String>,
    ports: Vec<String>,
    /// The peers of our SAs.
    peers: HashMap<Spi, IpAddr>,
    router: bool,
}

impl Brain {
    /// Somebody wants a trace.
    pub(super) fn trace(&mut self, request: TraceRequest) {
        let TraceRequest { trace, lines, reply } = request;
        if self.watching.on {
            let _ = reply.send(Err("another trace goes on; there is one at a time".to_owned()));
            return;
        }
        if let Err(why) = trace.check() {
            let _ = reply.send(Err(why));
            return;
        }
        self.watching = Watching { on: true, generation: (self.watching.generation + 1) & 0xf };
        let notes = self.dataplane.notes();
        while notes.try_next().is_some() {} // of packets that were still under way when an earlier trace ended
        let end = |ends: Ends| End { address: ends.address, port: ends.port };
        let watch = Watch {
            generation: self.watching.generation,
            spi: trace.spi.map(Spi),
            peer: trace.peer,
            local: trace.local.map(end),
            remote: trace.remote.map(end),
        };
        self.watch(Some(watch));
        let gatherer = Gatherer {
            generation: watch.generation,
            notes,
            lines,
            targets: self.numbering.targets().into_iter().map(|plan| (plan.id, plan.node.to_string())).collect(),
            ports: self.config.ports.iter().map(|port| port.name.clone()).collect(),
            peers: self.sas.iter().map(|(_, entry)| (entry.params.spi, entry.params.remote)).collect(),
            router: self.router.is_some(),
            trace,
        };
        let _ = reply.send(Ok(()));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            gatherer.run().await;
            let _ = inputs.send(Input::TraceOver).await;
        });
    }

    /// It ended, one way or another.
    pub(super) fn trace_over(&mut self) {
        self.watching.on = false;
        self.watch(None);
    }

    fn watch(&mut self, watch: Option<Watch>) {
        for core in self.cores.all() {
            self.cores.tell(core, Command::Watch(watch));
        }
    }
}

impl Gatherer {
    async fn run(self) {
        let end = Instant::now() + LONGEST;
        let mut followed = HashMap::new();
        let mut left = self.trace.count;
        while left > 0 && !self.lines.is_closed() && Instant::now() < end {
            let now = Instant::now();
            self.gather(&mut followed, now);
            let silent =
                |packet: &Followed| now - packet.heard >= if packet.story.is_over() { SETTLED } else { SILENCE };
            let over: Vec<Followed> =
                followed.extract_if(|_, packet| silent(packet)).map(|(_, packet)| packet).collect();
            for packet in over.into_iter().filter(|packet| self.wanted(&packet.story)).take(left as usize) {
                if self.lines.send(self.line(&packet)).await.is_err() {
                    return;
                }
                left -= 1;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Takes in what was noted.
    fn gather(&self, followed: &mut HashMap<u32, Followed>, now: Instant) {
        for Note { mark, core, fact } in std::iter::from_fn(|| self.notes.try_next()).take(BATCH) {
            let known = followed.contains_key(&mark);
            if Watch::generation_of(mark) != self.generation || (!known && followed.len() >= FOLLOWED) {
                continue;
            }
            let new = || Followed { story: Story::default(), cores: Vec::new(), heard: now };
            let packet = followed.entry(mark).or_insert_with(new);
            packet.story.add(&fact, &self.names());
            packet.cores.push(core);
            packet.heard = now;
        }
    }

    fn names(&self) -> Names<impl Fn(TargetId) -> String, impl Fn(usize) -> String> {
        Names {
            target: |id: TargetId| self.targets.get(&id).cloned().unwrap_or_else(|| id.to_string()),
            port: |at: usize| self.ports.get(at).cloned().unwrap_or_else(|| at.to_string()),
        }
    }

    /// Whether it is one of those that were asked for.
    fn wanted(&self, story: &Story) -> bool {
        let Trace { spi, peer, local, remote, dropped, reason, .. } = &self.trace;
        let is = |ends: &Option<Ends>, ours: bool| {
            ends.is_none_or(|ends| {
                let subject =
                    story.subject.map(|s| if ours { (s.local, s.local_port) } else { (s.remote, s.remote_port) });
                subject.is_some_and(|(addr, port)| End { address: ends.address, port: ends.port }.is(addr, port))
            })
        };
        // Who sent it was looked at when it came; where it goes to, its SA says.
        let with = |peer: &IpAddr| match story.spi.and_then(|spi| self.peers.get(&spi)) {
            Some(theirs) => theirs == peer,
            None => story.subject.is_none_or(|subject| subject.remote == *peer),
        };
        story.verdict(self.router) != Verdict::Ignore
            && spi.is_none_or(|spi| story.spi == Some(Spi(spi)))
            && peer.as_ref().is_none_or(with)
            && is(local, true)
            && is(remote, false)
            && (!(*dropped || reason.is_some()) || story.reason.is_some())
            && reason.as_ref().is_none_or(|name| story.reason.is_some_and(|why| why.name() == name))
    }

    fn line(&self, packet: &Followed) -> Vec<u8> {
        let Followed { story, cores, .. } = packet;
        let what = cores.iter().zip(&story.decisions).map(|(core, what)| Decision { core: core.0, what });
        let line = Line {
            at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |at| at.as_secs_f64()),
            verdict: story.verdict(self.router),
            spi: story.spi.map(|spi| spi.to_string()),
            seq: story.seq,
            connection: story.connection.as_ref(),
            target: story.target.map(self.names().target),
            reason: story.reason,
            decisions: what.collect(),
        };
        // Plain strings and numbers: this cannot fail.
        serde_json::to_vec(&line).unwrap_or_default()
    }
}
