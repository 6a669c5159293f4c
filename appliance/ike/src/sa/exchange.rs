//! Requests and answers of one IKE SA: message IDs, a window of one, repetitions, fragments (RFC 7296 §2.1 - §2.3).

use super::{Cx, IkeSa, Stage, Todo, create::ChildAsk, rekey::IkeAsk};

use crate::codec::{Body, ChildSpi, CodecError, Exchange, Header, NotifyKind, Payloads, Sealed, payloads};
use crate::config::longer;
use crate::crypto::CryptoError;
use crate::shield::{Gathered, Partial};
use crate::{ChildId, Ending, Millis, Output, Path, Reason, What};

/// A request of ours that has no answer yet.
pub struct Asked {
    pub id: u32,
    pub datagrams: Vec<Vec<u8>>,
    pub tries: u32,
    /// When it is sent again.
    pub next: Millis,
    pub wait: Millis,
    pub began: Millis,
    pub what: Asking,
}

/// What we asked for.
pub enum Asking {
    Init,
    Auth,
    Child(Box<ChildAsk>),
    RekeyIke(Box<IkeAsk>),
    DeleteChild(ChildId, Ending),
    /// An SA of ours that was never installed, or is no more.
    Disclaim(ChildSpi),
    DeleteIke(Ending),
    Probe,
}

/// A request of the peer whose answer waits for somebody else.
pub struct Working {
    pub id: u32,
    pub exchange: Exchange,
    /// Not longer than this.
    pub until: Millis,
    pub what: Work,
}

/// What the answer waits for.
pub enum Work {
    /// A child to be installed. `base` goes with either answer, `good` if it is.
    Install { child: ChildId, base: Body, good: Body },
    /// Children to be removed. Then the IKE SA ends, if it is to.
    Remove { children: Vec<ChildId>, answer: Body, close: Option<Ending> },
}

impl IkeSa {
    fn header(&self, exchange: Exchange, response: bool, id: u32) -> Header {
        let (spi_i, spi_r) = self.spis();
        Header { spi_i, spi_r, exchange, initiator: self.initiator, response, id }
    }

    /// Sends a message that is protected.
    fn seal(&mut self, cx: &mut Cx, header: &Header, body: &Body) -> Vec<Vec<u8>> {
        let room = self.datagram_room();
        let Some(shield) = self.shield.as_mut() else { return Vec::new() };
        match shield.seal(header, body, room, cx.random) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                self.fail(cx, Reason::KeyExchange(error.to_string()));
                Vec::new()
            }
        }
    }

    pub(super) fn send(&mut self, cx: &mut Cx, path: Path, datagrams: &[Vec<u8>]) {
        self.sent_at = cx.now;
        cx.counters.sent += datagrams.len() as u64;
        cx.out.extend(datagrams.iter().map(|bytes| Output::Send { path, bytes: bytes.clone() }));
    }

    /// Sends a request. There must be none without an answer.
    pub(super) fn ask(&mut self, cx: &mut Cx, exchange: Exchange, body: &Body, what: Asking) {
        let header = self.header(exchange, false, self.next_id);
        let datagrams = self.seal(cx, &header, body);
        if !self.is_gone() {
            self.ask_as(cx, datagrams, what);
        }
    }

    /// Sends a request that is ready.
    pub(super) fn ask_as(&mut self, cx: &mut Cx, datagrams: Vec<Vec<u8>>, what: Asking) {
        self.send(cx, self.path, &datagrams);
        let wait = cx.config.retransmission.first_ms;
        let next = cx.now + wait;
        self.asked = Some(Box::new(Asked { id: self.next_id, datagrams, tries: 1, next, wait, began: cx.now, what }));
    }

    /// No answer came in time.
    pub(super) fn ask_again(&mut self, cx: &mut Cx) {
        let Some(mut asked) = self.asked.take() else { return };
        if asked.tries > cx.config.retransmission.tries {
            let ms = cx.now.saturating_sub(asked.began);
            let rival = IkeSa::rival(&asked.what);
            match asked.what {
                // Told often enough that it is over.
                Asking::DeleteIke(ending) => self.close(cx, ending),
                // The peer has another one in its place, which it made itself.
                _ if rival.is_some() => {
                    self.bequeath(cx, rival);
                    self.close(cx, Ending::Replaced);
                }
                _ => self.fail(cx, Reason::NoAnswer { tries: asked.tries, ms }),
            }
            return;
        }
        cx.counters.retransmitted += 1;
        self.send(cx, self.path, &asked.datagrams);
        asked.tries += 1;
        asked.wait = longer(asked.wait);
        asked.next = cx.now + asked.wait;
        self.asked = Some(asked);
    }

    /// Answers the latest request, and remembers how.
    pub(super) fn reply(&mut self, cx: &mut Cx, exchange: Exchange, id: u32, body: &Body) {
        let header = self.header(exchange, true, id);
        let datagrams = self.seal(cx, &header, body);
        self.send(cx, self.reply_path, &datagrams);
        self.answered = datagrams;
    }

    /// The same with one error and nothing else.
    pub(super) fn refuse(&mut self, cx: &mut Cx, exchange: Exchange, id: u32, kind: NotifyKind, data: &[u8]) {
        let mut body = Body::new();
        body.notify(kind, data);
        self.reply(cx, exchange, id, &body);
    }

    /// A datagram for this IKE SA, anything but IKE_SA_INIT.
    pub fn message(&mut self, cx: &mut Cx, path: Path, header: &Header, first: u8, bytes: &[u8]) {
        if self.shield.is_none() || header.initiator == self.initiator {
            cx.counters.unexpected += 1;
            return;
        }
        let sealed = match Payloads::of_message(first, bytes) {
            Ok(Payloads { sealed: Some(sealed), .. }) => sealed,
            _ => return cx.counters.malformed += 1,
        };
        let again = !header.response && header.id.checked_add(1) == Some(self.expected);
        let fits = if header.response {
            self.asked.as_ref().is_some_and(|asked| asked.id == header.id)
        } else {
            again || (header.id == self.expected && self.working.is_none())
        };
        if !fits {
            return cx.counters.message_id += 1;
        }
        let Some(plain) = self.open(cx, bytes, &sealed) else { return };
        if again {
            // RFC 7383 §2.6.1: a request in fragments is answered once again, not once for each of them.
            if sealed.fragment.is_none_or(|(number, _)| number == 1) && self.working.is_none() {
                cx.counters.answered_again += 1;
                let answer = std::mem::take(&mut self.answered);
                self.send(cx, path, &answer);
                self.answered = answer;
            }
            return;
        }
        let (first, plain) = match sealed.fragment {
            None => (sealed.first, plain),
            Some(numbers) => {
                let place = &mut self.partial[usize::from(header.response)];
                match Partial::gather(place, header.id, sealed.first, numbers, plain) {
                    Gathered::Whole(first, whole) => (first, whole),
                    Gathered::Waiting => return,
                    Gathered::Useless => return cx.counters.fragments += 1,
                }
            }
        };
        self.partial[usize::from(header.response)] = None;
        self.opened(cx, path, header, first, &plain);
    }

    /// An authentic message that was not here before.
    fn opened(&mut self, cx: &mut Cx, path: Path, header: &Header, first: u8, plain: &[u8]) {
        self.heard(cx, path);
        if header.response {
            self.answer(cx, first, plain);
        } else {
            self.reply_path = path;
            self.request(cx, header, first, plain);
        }
        self.next_task(cx);
    }

    /// What a peer that has the keys could say: payloads in clear, in place of its next message.
    #[cfg(feature = "fuzzing")]
    pub fn inject(&mut self, cx: &mut Cx, exchange: u8, response: bool, first: u8, plain: &[u8]) {
        let id = if response { self.asked.as_ref().map_or(0, |asked| asked.id) } else { self.expected };
        let fits = if response { self.asked.is_some() } else { self.working.is_none() };
        if self.shield.is_some() && fits {
            let header = self.header(Exchange::from_id(exchange), response, id);
            self.opened(cx, self.path, &header, first, plain);
        }
    }

    fn open(&mut self, cx: &mut Cx, bytes: &[u8], sealed: &Sealed) -> Option<Vec<u8>> {
        match self.shield.as_ref()?.open(bytes, sealed) {
            Ok(plain) => Some(plain),
            Err(CryptoError::Padding) => {
                cx.counters.malformed += 1;
                None
            }
            Err(_) => {
                cx.counters.integrity += 1;
                None
            }
        }
    }

    /// An authentic and new message came from there (RFC 7296 §2.23).
    fn heard(&mut self, cx: &mut Cx, path: Path) {
        self.heard_at = cx.now;
        if path == self.path {
            return;
        }
        // The peer floats to port 4500 in its first protected message, and may do so whenever it likes.
        let setting_up = self.is_half_open() && path.remote.ip() == self.path.remote.ip();
        let moves = self.nat.peer && !self.nat.us;
        if !setting_up && !moves || path.local.ip() != self.path.local.ip() {
            return;
        }
        let from = std::mem::replace(&mut self.path, path).remote;
        if !setting_up {
            self.moved(cx, from);
        }
    }

    /// The path is another one: whoever uses it is told.
    pub(super) fn moved(&mut self, cx: &mut Cx, from: std::net::SocketAddr) {
        let children: Vec<_> = self.children.iter().filter(|c| c.is_installed()).map(|c| c.id).collect();
        self.event(cx, What::Moved { from });
        if !children.is_empty() {
            cx.out.push_back(Output::Moved { children, path: self.path });
        }
    }

    fn request(&mut self, cx: &mut Cx, header: &Header, first: u8, plain: &[u8]) {
        self.expected = self.expected.saturating_add(1);
        let (exchange, id) = (header.exchange, header.id);
        let done = payloads(first, plain, 0).and_then(|inner| match (&self.stage, exchange) {
            (Stage::Auth(_), Exchange::Auth) if !self.initiator => self.auth_request(cx, id, &inner),
            (Stage::Auth(_) | Stage::Init(_) | Stage::Gone, _) => {
                cx.counters.unexpected += 1;
                self.expected = id;
                Ok(())
            }
            (_, Exchange::CreateChild) => self.create_request(cx, id, &inner),
            (_, Exchange::Informational) => self.inform_request(cx, id, &inner),
            (_, _) => Err(CodecError::Field("an exchange that has no place here")),
        });
        let Err(error) = done else { return };
        // RFC 7296 §2.5, §2.21
        match error {
            CodecError::UnknownCritical(kind) => {
                self.refuse(cx, exchange, id, NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]);
            }
            _ => self.refuse(cx, exchange, id, NotifyKind::INVALID_SYNTAX, &[]),
        }
        if self.is_half_open() {
            self.fail(cx, syntax(error));
        }
    }

    /// What the children are asked for cannot be answered before they are here: as if it had not come, it comes again.
    pub(super) fn not_yet(&mut self, id: u32) -> Result<(), CodecError> {
        self.expected = id;
        Ok(())
    }

    fn answer(&mut self, cx: &mut Cx, first: u8, plain: &[u8]) {
        let Some(asked) = self.asked.take() else { return };
        self.next_id = self.next_id.saturating_add(1);
        let reserved = asked.what.reserved();
        let done = payloads(first, plain, 0).and_then(|inner| match asked.what {
            Asking::Init => Ok(()),
            Asking::Auth => self.auth_answer(cx, &inner),
            Asking::Child(ask) => self.child_answer(cx, *ask, &inner),
            Asking::RekeyIke(ask) => self.rekey_answer(cx, *ask, &inner),
            Asking::DeleteChild(child, ending) => {
                self.deleted(cx, child, ending);
                Ok(())
            }
            Asking::Disclaim((_, spi)) => {
                cx.names.spis.remove(&spi.0);
                Ok(())
            }
            Asking::DeleteIke(ending) => {
                self.close(cx, ending);
                Ok(())
            }
            Asking::Probe => Ok(()),
        });
        if let Err(error) = done {
            reserved.map(|spi| cx.names.spis.remove(&spi.0));
            // An authentic answer that makes no sense: nothing that was agreed with this peer can be relied upon.
            self.fail(cx, syntax(error));
        }
    }

    /// Begins what is due, if nothing is in the way.
    pub fn next_task(&mut self, cx: &mut Cx) {
        // The answer to IKE_AUTH is the first thing that the peer may hear of this IKE SA.
        if self.undecided || self.working.as_ref().is_some_and(|w| w.exchange == Exchange::Auth) {
            return;
        }
        while self.asked.is_none() && matches!(self.stage, Stage::Up | Stage::Replaced) {
            let Some(at) = self.tasks.iter().position(|task| task.at <= cx.now) else { return };
            let Some(task) = self.tasks.remove(at) else { return };
            match task.what {
                Todo::DeleteIke(ending) => self.delete_ike(cx, ending),
                // All else belongs to the one that took its place.
                _ if matches!(self.stage, Stage::Replaced) => {}
                Todo::Child { config, replaces } => self.create_child(cx, config, replaces),
                Todo::RekeyChild(child) => self.rekey_child(cx, child),
                Todo::RekeyIke => self.rekey_ike(cx),
                Todo::DeleteChild(child, ending) => self.delete_child(cx, child, ending),
                Todo::Disclaim(spi) => self.disclaim(cx, spi),
                Todo::Probe => self.ask(cx, Exchange::Informational, &Body::new(), Asking::Probe),
            }
        }
    }
}

pub(super) fn syntax(error: CodecError) -> Reason {
    match error {
        CodecError::UnknownCritical(kind) => Reason::UnknownCritical(kind),
        other => Reason::Syntax(other.to_string()),
    }
}
