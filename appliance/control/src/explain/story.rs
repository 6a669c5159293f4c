//! What happened to one packet, put together from its notes.

use std::net::{IpAddr, SocketAddr};

use phalanx_dataplane::{Fact, For, Segment};
use phalanx_ipsec::Subject;
use phalanx_steering::ConnKey;
use phalanx_wire::{DropReason, Flow, Spi, TargetId, protocol};
use serde::Serialize;

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Sent on to a target, still encrypted.
    Forward,
    /// Opened and delivered by a target, or by an endpoint.
    Open,
    /// Opened and delivered by the router itself.
    Local,
    /// Delivered in clear, as a filter permits.
    Deliver,
    /// Sealed and sent.
    Seal,
    /// Sent in clear, as a filter permits.
    Send,
    /// Answered by the port itself.
    Answer,
    /// It still waits.
    Hold,
    /// Dropped for a reason.
    Drop,
    /// Nothing that this is about: ARP, neighbour discovery.
    Ignore,
}

/// A connection as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or a number.
    pub protocol: String,
    /// Our end.
    pub local: String,
    /// The peer's.
    pub remote: String,
}

/// How targets and ports are called.
pub struct Names<T, P> {
    /// A target.
    pub target: T,
    /// A port, by its index.
    pub port: P,
}

/// The story so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Of its SA, once that is known or the packet itself shows it.
    pub spi: Option<Spi>,
    /// Its whole sequence number.
    pub seq: Option<u64>,
    /// Peeked at, or what was inside.
    pub connection: Option<Connection>,
    /// The same, as selectors see it.
    pub subject: Option<Subject>,
    /// Who it went to.
    pub target: Option<TargetId>,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Each decision in words.
    pub decisions: Vec<String>,
    /// The connection it was peeked to be of, unless it opens one.
    pub goes_on: Option<ConnKey>,
    waits: Option<For>,
    local: bool,
    clear: bool,
    sealed: bool,
    sent: bool,
    delivered: bool,
}

impl Story {
    /// Of a packet that shows this much from the outside.
    pub fn new(spi: Option<Spi>, connection: Option<Connection>) -> Story {
        Story { spi, connection, ..Story::default() }
    }

    /// Goes on with what a note says.
    pub fn add(&mut self, fact: &Fact, names: &Names<impl Fn(TargetId) -> String, impl Fn(usize) -> String>) {
        self.decisions.push(words(fact, names));
        match *fact {
            Fact::Numbered(_, spi, seq) | Fact::Sealed(_, spi, seq) => {
                (self.spi, self.seq, self.waits) = (Some(spi), Some(seq), None);
                self.sealed |= matches!(fact, Fact::Sealed(..));
            }
            Fact::Peeked(key, segment) => {
                self.inside(Subject::from(&key.flow));
                self.goes_on = (segment == Segment::Other).then_some(key);
            }
            Fact::Forwarded(target) => self.target = Some(target),
            Fact::Local => self.local = true,
            Fact::Opened(subject) => self.inside(subject),
            Fact::Protect(_, spi, subject) => {
                self.spi = Some(spi);
                self.inside(subject);
            }
            Fact::Clear => self.clear = true,
            Fact::Held(what) => self.waits = Some(what),
            Fact::Delivered => (self.delivered, self.waits) = (true, None),
            Fact::Sent(_) => (self.sent, self.waits) = (true, None),
            Fact::Dropped(reason) => (self.reason, self.waits) = (Some(reason), None),
            Fact::Arrived(_) | Fact::Proved | Fact::Handed(_) => {}
        }
    }

    fn inside(&mut self, subject: Subject) {
        (self.connection, self.subject) = (Some(Connection::of(&subject)), Some(subject));
    }

    /// Nothing more will be heard of it.
    pub fn is_over(&self) -> bool {
        self.reason.is_some() || self.sent
    }

    /// What came of it. `router`: the node is more than an endpoint, so that what it opens itself is worth a word.
    pub fn verdict(&self, router: bool) -> Verdict {
        match self {
            Story { reason: Some(_), .. } => Verdict::Drop,
            Story { waits: Some(_), .. } => Verdict::Hold,
            Story { delivered: true, clear: true, .. } => Verdict::Deliver,
            Story { delivered: true, local: true, .. } if router => Verdict::Local,
            Story { delivered: true, .. } => Verdict::Open,
            Story { sealed: true, .. } => Verdict::Seal,
            Story { target: Some(_), .. } => Verdict::Forward,
            Story { sent: true, clear: true, .. } => Verdict::Send,
            Story { sent: true, .. } => Verdict::Answer,
            _ => Verdict::Ignore,
        }
    }
}

impl Connection {
    /// What selectors see of a packet.
    pub fn of(subject: &Subject) -> Connection {
        let end = |addr: IpAddr, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(addr, port).to_string(),
            None => addr.to_string(),
        };
        Connection {
            protocol: protocol_name(subject.protocol),
            local: end(subject.local, subject.local_port),
            remote: end(subject.remote, subject.remote_port),
        }
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        other => other.to_string(),
    }
}

/// A decision in words.
fn words(fact: &Fact, names: &Names<impl Fn(TargetId) -> String, impl Fn(usize) -> String>) -> String {
    let flow = |flow: &Flow| subject_in_words(&Subject::from(flow));
    match fact {
        Fact::Arrived(port) => format!("received from port {}", (names.port)(*port)),
        Fact::Numbered(_, spi, seq) => format!("its SA is {spi}, its number {seq}"),
        Fact::Peeked(key, Segment::Opens) => format!("peeked: opens {}", flow(&key.flow)),
        Fact::Peeked(key, Segment::Other) => format!("peeked: of {}", flow(&key.flow)),
        Fact::Forwarded(target) => format!("forwarded to target {}", (names.target)(*target)),
        Fact::Local => "opened by the router itself".into(),
        Fact::Proved => "genuine and new: a target was selected".into(),
        Fact::Opened(subject) => format!("authentic; inside: {}", subject_in_words(subject)),
        Fact::Protect(_, spi, subject) => format!("{}: the filter leads to SA {spi}", subject_in_words(subject)),
        Fact::Sealed(_, spi, seq) => format!("sealed with SA {spi}, number {seq}"),
        Fact::Clear => "a filter permits it in clear".into(),
        Fact::Held(what) => match what {
            For::Lease => "waits for sequence numbers".into(),
            For::Sa => "waits for an SA".into(),
            For::Connection => "waits until the router knows of its connection".into(),
            For::Ceiling => "waits for a ceiling".into(),
            For::Neighbour => "waits for its next hop".into(),
        },
        Fact::Handed(core) => format!("handed to core {core}"),
        Fact::Delivered => "delivered to the application".into(),
        Fact::Sent(port) => format!("sent by port {}", (names.port)(*port)),
        Fact::Dropped(reason) => format!("dropped: {reason}: {}", reason.help()),
    }
}

fn subject_in_words(subject: &Subject) -> String {
    let Connection { protocol, local, remote } = Connection::of(subject);
    format!("{protocol} {remote} with {local}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::SaId;

    fn verdict(facts: &[Fact]) -> Verdict {
        let mut story = Story::default();
        let names = Names { target: |id: TargetId| id.to_string(), port: |at: usize| at.to_string() };
        facts.iter().for_each(|fact| story.add(fact, &names));
        assert_eq!(story.decisions.len(), facts.len());
        story.verdict(true)
    }

    #[test]
    fn the_verdict_is_what_came_of_the_packet_in_the_end() {
        let (sa, spi) = (SaId(1), Spi(4097));
        let (numbered, sealed) = (Fact::Numbered(sa, spi, 7), Fact::Sealed(sa, spi, 7));
        assert_eq!(verdict(&[]), Verdict::Ignore);
        assert_eq!(verdict(&[numbered, Fact::Local, Fact::Delivered, Fact::Sent(2)]), Verdict::Local);
        assert_eq!(verdict(&[numbered, Fact::Delivered, Fact::Sent(2)]), Verdict::Open);
        assert_eq!(verdict(&[numbered, Fact::Forwarded(TargetId(3)), Fact::Sent(1)]), Verdict::Forward);
        assert_eq!(verdict(&[numbered, Fact::Forwarded(TargetId(3)), Fact::Held(For::Neighbour)]), Verdict::Hold);
        assert_eq!(
            verdict(&[Fact::Held(For::Lease), sealed, Fact::Held(For::Neighbour), Fact::Sent(0)]),
            Verdict::Seal
        );
        assert_eq!(verdict(&[Fact::Clear, Fact::Sent(0)]), Verdict::Send);
        assert_eq!(verdict(&[Fact::Clear, Fact::Delivered, Fact::Sent(2)]), Verdict::Deliver);
        assert_eq!(
            verdict(&[numbered, Fact::Forwarded(TargetId(3)), Fact::Dropped(DropReason::QueueFull)]),
            Verdict::Drop
        );
        assert_eq!(verdict(&[Fact::Sent(0)]), Verdict::Answer);
    }
}
