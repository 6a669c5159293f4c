//! A target's side: it dials its router for as long as it runs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phalanx_cluster::messages::{NodeName, ToRouter, ToTarget};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::codec::{self, MESSAGE_MAX};
use crate::proto::RouterMessage;
use crate::proto::fabric_client::FabricClient;
use crate::session::{CLUSTER, Ending, HANDSHAKE, Outbox, Owned, PING, QUEUE, chain, next, why};
use crate::{FabricError, TlsFiles, pki};

/// The first attempt after a session comes this much later; each further one twice as much.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// But no more than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lived so long was a good one: after it, attempts start quickly again.
const GOOD: Duration = Duration::from_secs(2);

/// Which router a target obeys.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Its name, which its certificate must carry.
    pub router: NodeName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who we are.
    pub tls: TlsFiles,
    /// The cluster's name.
    pub cluster: String,
    /// Our name, which our certificate must carry.
    pub node: NodeName,
}

/// What happens at a target's side, in order. `Connected` and `Disconnected` alternate.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// Attached to the router.
    Connected(NodeName),
    /// No longer, and why.
    Disconnected(NodeName, String),
    /// The router said something.
    Message(NodeName, ToTarget),
}

/// A target's connection to one router.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Dials until the last handle is dropped or nobody reads the events any more.
    ///
    /// # Errors
    /// [`FabricError::File`], [`FabricError::Certificate`], [`FabricError::Tls`]: what no further attempt would mend.
    #[allow(clippy::unused_async)] // It must be called on a runtime, and says so.
    pub async fn start(config: ClientConfig, events: mpsc::Sender<ClientEvent>) -> Result<ClientHandle, FabricError> {
        let ClientConfig { router, address, tls, cluster, node } = config;
        let wrong = |why: String| FabricError::Certificate { path: tls.certificate.clone(), why };
        let certified = pki::node_name(&tls.certificate)?;
        if certified != *node {
            return Err(wrong(format!("is of node {certified:?}, this is {node:?}")));
        }
        let cluster = cluster.parse().map_err(|_| wrong(format!("cluster name {cluster:?} is not plain text")))?;
        let believed = tls.client(&router)?;
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(believed))
            .map_err(|e| tls.wrong(&e))?
            .connect_timeout(HANDSHAKE)
            // A lease request must not wait for another packet to travel with.
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(HANDSHAKE)
            .keep_alive_while_idle(true);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (alive, gone) = watch::channel(());
        let dialer = Dialer { router, endpoint, cluster, events, shared: shared.clone() };
        tokio::spawn(dialer.run(gone));
        Ok(ClientHandle { shared, _alive: alive })
    }
}

/// Sends to the router while it is attached.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    shared: Arc<Mutex<Shared>>,
    _alive: watch::Sender<()>,
}

impl ClientHandle {
    /// Sends, without waiting. Nothing happens while no session lives: the next one starts anew, with `Hello`.
    pub fn send(&self, message: ToRouter) {
        let mut shared = lock(&self.shared);
        // What is still on its way from the state of an earlier session does not belong to this one.
        shared.greeted |= matches!(message, ToRouter::Hello(_));
        if let (true, Some(outbox)) = (shared.greeted, &shared.outbox) {
            outbox.send(message);
        }
    }

    /// Why there is no session, if there is none.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared).trouble.clone()
    }
}

#[derive(Debug, Default)]
struct Shared {
    outbox: Option<Outbox<ToRouter>>,
    greeted: bool,
    trouble: Option<String>,
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Dialer {
    router: NodeName,
    endpoint: Endpoint,
    cluster: MetadataValue<Ascii>,
    events: mpsc::Sender<ClientEvent>,
    shared: Arc<Mutex<Shared>>,
}

/// Nobody reads the events any more.
struct Unheard;

impl Dialer {
    async fn run(self, mut gone: watch::Receiver<()>) {
        let events = self.events.clone();
        tokio::select! {
            // Nothing is ever sent: it ends when the last handle is dropped.
            _ = gone.changed() => {}
            () = events.closed() => {}
            _ = self.dial() => {}
        }
    }

    async fn dial(&self) -> Result<(), Unheard> {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            self.attempt().await?;
            if begun.elapsed() >= GOOD {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One session, if there comes one of it.
    async fn attempt(&self) -> Result<(), Unheard> {
        let ending = Ending::new();
        let _owned = Owned(ending.clone());
        let (outbox, outgoing) = Outbox::new(QUEUE, ending.clone());
        let requests = outgoing.filter_map(|message| {
            // Nobody but us is at fault. What the message was about stays unanswered, which its owner notices.
            codec::from_to_router(&message).inspect_err(|error| tracing::error!(%error, "not sent")).ok()
        });
        let mut request = Request::new(requests);
        request.metadata_mut().insert(CLUSTER, self.cluster.clone());
        let attached = timeout(2 * HANDSHAKE, self.attach(request)).await;
        let incoming = match attached.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(incoming) => incoming,
            Err(trouble) => {
                self.note(trouble);
                return Ok(());
            }
        };
        tracing::info!(router = %self.router, "attached");
        tokio::spawn(outbox.clone().beat(|| ToRouter::Beat));
        *lock(&self.shared) = Shared { outbox: Some(outbox), greeted: false, trouble: None };
        self.tell(ClientEvent::Connected(self.router.clone())).await?;
        let reason = self.listen(incoming, &ending).await;
        ending.end(reason);
        let reason = ending.reason().unwrap_or_default();
        self.note(reason.clone());
        self.tell(ClientEvent::Disconnected(self.router.clone(), reason)).await
    }

    async fn attach(
        &self,
        request: Request<impl tokio_stream::Stream<Item = crate::proto::TargetMessage> + Send + 'static>,
    ) -> Result<Streaming<RouterMessage>, String> {
        let channel = self.endpoint.connect().await.map_err(|e| chain(&e))?;
        let mut client =
            FabricClient::new(channel).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX);
        Ok(client.attach(request).await.map_err(|status| why(&status))?.into_inner())
    }

    /// Passes messages on until the session ends; answers why it did.
    async fn listen(&self, mut incoming: Streaming<RouterMessage>, ending: &Ending) -> String {
        loop {
            let message = match next(&mut incoming, ending).await {
                Ok(message) => message,
                Err(reason) => return reason,
            };
            match codec::to_target(message) {
                Ok(ToTarget::Beat) => {}
                Ok(message) => {
                    if self.tell(ClientEvent::Message(self.router.clone(), message)).await.is_err() {
                        return "the target stops".to_owned();
                    }
                }
                // The router learns which request failed and why; the session goes on.
                Err(codec::Undecodable { request: Some(request), error }) => {
                    tracing::error!(router = %self.router, %error, "refused");
                    self.answer(ToRouter::Ack { request, error: Some(error.to_string()) });
                }
                Err(codec::Undecodable { request: None, error }) => return error.to_string(),
            }
        }
    }

    fn answer(&self, message: ToRouter) {
        if let Some(outbox) = &lock(&self.shared).outbox {
            outbox.send(message);
        }
    }

    /// No session, and why: in the log once, not at every attempt.
    fn note(&self, trouble: String) {
        let mut shared = lock(&self.shared);
        if shared.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(router = %self.router, reason = %trouble, "not attached");
        }
        *shared = Shared { trouble: Some(trouble), ..Shared::default() };
    }

    async fn tell(&self, event: ClientEvent) -> Result<(), Unheard> {
        self.events.send(event).await.map_err(|_| Unheard)
    }
}
