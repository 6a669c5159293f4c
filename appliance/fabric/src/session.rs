//! What both ends of a session have in common: how it ends, how it shows that it lives, how it is sent on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// A sign of life is sent this often, whatever else is sent.
const BEAT: Duration = Duration::from_millis(200);
/// Without anything from the peer for so long, it is dead.
const DEAD: Duration = Duration::from_secs(1);
/// Messages wait and none gets out for so long: the session is of no use.
const STUCK: Duration = Duration::from_secs(5);
/// TCP, TLS and the answer to `Attach` each take no longer.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);
/// Messages that may wait in a session. A router's first installation of everything must fit: what waits is small,
/// and shares what is large.
pub(crate) const QUEUE: usize = 1 << 18;
/// The name of the cluster, in the head of an `Attach`.
pub(crate) const CLUSTER: &str = "phalanx-cluster";
/// HTTP/2's own signs of life: they only close connections whose session is gone already.
pub(crate) const PING: Duration = Duration::from_secs(5);

/// Why a session ends. Whoever says so first is right.
#[derive(Clone, Debug)]
pub(crate) struct Ending(watch::Sender<Option<String>>);

impl Ending {
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub fn end(&self, reason: impl Into<String>) {
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason.into());
            }
            first
        });
    }

    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    pub async fn ended(&self) -> String {
        let mut watched = self.0.subscribe();
        // We hold the sender, so the wait cannot fail.
        watched.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}

/// Ends the session when its owner is dropped, wherever that happens to be waiting: nothing goes on beating then.
#[derive(Debug)]
pub(crate) struct Owned(pub Ending);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.end("this node stops");
    }
}

/// The sending side of a session's queue. Never waits.
#[derive(Debug)]
pub(crate) struct Outbox<M> {
    queue: mpsc::Sender<M>,
    ending: Ending,
    taken: Arc<AtomicU64>,
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), ending: self.ending.clone(), taken: self.taken.clone() }
    }
}

impl<M> Outbox<M> {
    /// A queue for `max` messages, and what takes them out.
    pub fn new(max: usize, ending: Ending) -> (Self, Outgoing<M>) {
        let (queue, waiting) = mpsc::channel(max);
        let taken = Arc::new(AtomicU64::new(0));
        let outgoing = Outgoing { queue: waiting, taken: taken.clone() };
        (Self { queue, ending, taken }, outgoing)
    }

    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// A session whose queue is full does not drain, and ends.
    pub fn send(&self, message: M) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.ending.end("it does not take its messages: the queue is full");
        }
    }

    /// Sends `beat` every 200 ms until the session ends, and ends it when nothing gets out any more.
    pub async fn beat(self, beat: impl Fn() -> M) {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut since) = (0, tokio::time::Instant::now());
        loop {
            tokio::select! {
                _ = self.ending.ended() => return,
                _ = ticks.tick() => {}
            }
            let taken = self.taken.load(Ordering::Relaxed);
            if taken != seen || self.queue.capacity() == self.queue.max_capacity() {
                (seen, since) = (taken, tokio::time::Instant::now());
            } else if since.elapsed() > STUCK {
                self.ending.end(format!("it does not take its messages: none for {} s", STUCK.as_secs()));
            }
            self.send(beat());
        }
    }
}

/// The other end of an [`Outbox`]: what HTTP/2 takes messages from when it can send them. Ends when the outboxes are gone.
#[derive(Debug)]
pub(crate) struct Outgoing<M> {
    queue: mpsc::Receiver<M>,
    taken: Arc<AtomicU64>,
}

impl<M> Stream for Outgoing<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        let polled = self.queue.poll_recv(cx);
        if polled.is_ready() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

/// The peer's next message, or why there is none.
pub(crate) async fn next<M>(incoming: &mut Streaming<M>, ending: &Ending) -> Result<M, String> {
    tokio::select! {
        // A message that is there comes before the end.
        biased;
        received = tokio::time::timeout(DEAD, incoming.message()) => match received {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err("the peer ended the session".to_owned()),
            Ok(Err(status)) => Err(why(&status)),
            Err(_) => Err(format!("nothing came for {} s", DEAD.as_secs())),
        },
        reason = ending.ended() => Err(reason),
    }
}

/// A status in words: what the peer said, or how the connection broke.
pub(crate) fn why(status: &Status) -> String {
    use std::error::Error;
    match (status.source(), status.message()) {
        (Some(cause), _) => format!("the connection broke: {}", root(cause)),
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

/// The first cause of an error: what TLS or the kernel said. Pointers to a library's manual help no operator.
fn root(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    let text = first.to_string();
    text.split(": https://").next().unwrap_or(&text).to_owned()
}

/// An error and its causes, which is where TLS says what is wrong.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
