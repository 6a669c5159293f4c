//! The router's side: targets attach here.
//!
//! Of each node there is one session at a time. A new one replaces the old one, and the old one's
//! [`ServerEvent::Disconnected`] comes before the new one's [`ServerEvent::Connected`], always.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_cluster::messages::{NodeName, ToRouter, ToTarget};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::codec::{self, MESSAGE_MAX};
use crate::proto::fabric_server::{Fabric, FabricServer};
use crate::proto::{RouterMessage, TargetMessage};
use crate::session::{CLUSTER, Ending, HANDSHAKE, Outbox, Outgoing, Owned, PING, QUEUE, next};
use crate::{FabricError, TlsFiles, pki};

/// Streams of one connection: one is used.
const STREAMS: u32 = 4;

/// What a router listens with.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where.
    pub listen: SocketAddr,
    /// Who we are.
    pub tls: TlsFiles,
    /// The nodes that may attach, by the names in their certificates.
    pub nodes: Vec<String>,
    /// The cluster's name; a node that is configured for another one is refused.
    pub cluster: String,
}

/// What happens at the router's side, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// The node attached.
    Connected(NodeName),
    /// Its session ended, and why.
    Disconnected(NodeName, String),
    /// It said something.
    Message(NodeName, ToRouter),
}

/// The gRPC server of a router.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Listens until the last handle is dropped or nobody reads the events any more.
    ///
    /// # Errors
    /// [`FabricError::File`], [`FabricError::Certificate`], [`FabricError::Tls`], [`FabricError::Listen`].
    #[allow(clippy::unused_async)] // It must be called on a runtime, and says so.
    pub async fn start(config: ServerConfig, events: mpsc::Sender<ServerEvent>) -> Result<ServerHandle, FabricError> {
        let ServerConfig { listen, tls, nodes, cluster } = config;
        let listening = |source| FabricError::Listen { address: listen, source };
        let mut server = tonic::transport::Server::builder()
            .tls_config(tls.server()?)
            .map_err(|e| tls.wrong(&e))?
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(HANDSHAKE));
        // A lease request must not wait for another packet to travel with.
        let incoming = TcpIncoming::bind(listen).map_err(listening)?.with_nodelay(Some(true));
        let address = incoming.local_addr().map_err(listening)?;
        let slots = nodes.iter().map(|name| (NodeName::from(name.as_str()), Slot::default())).collect();
        let hub = Arc::new(Hub { cluster, events, slots });
        let (alive, gone) = watch::channel(());
        let service = FabricServer::new(Door(hub.clone()))
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let signal = stopped(hub.clone(), gone);
        let router = server.add_service(service);
        tokio::spawn(async move {
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, signal).await {
                tracing::error!(%error, "the cluster's server stopped");
            }
        });
        Ok(ServerHandle { hub, address, _alive: alive })
    }
}

/// Waits until nobody uses the server any more, then ends its sessions.
async fn stopped(hub: Arc<Hub>, mut gone: watch::Receiver<()>) {
    tokio::select! {
        // Nothing is ever sent: it ends when the last handle is dropped.
        _ = gone.changed() => {}
        () = hub.events.closed() => {}
    }
    for slot in hub.slots.values() {
        slot.lock().newest.end("the router stops");
    }
}

/// Sends to the nodes that are attached.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    hub: Arc<Hub>,
    address: SocketAddr,
    _alive: watch::Sender<()>,
}

impl ServerHandle {
    /// Sends, without waiting. Nothing happens if the node is not attached: its next session starts anew.
    pub fn send(&self, node: &str, message: ToTarget) {
        let Some(slot) = self.hub.slots.get(node) else { return };
        let mut slot = slot.lock();
        let Some(session) = &mut slot.current else { return };
        // What is still on its way from the state of an earlier session does not belong to this one.
        session.greeted |= matches!(message, ToTarget::Welcome { .. });
        if session.greeted {
            session.outbox.send(message);
        }
    }

    /// Ends the node's session, which may attach again.
    pub fn disconnect(&self, node: &str, reason: &str) {
        if let Some(slot) = self.hub.slots.get(node) {
            slot.lock().newest.end(reason);
        }
    }

    /// Where it listens: the port, if the configuration said 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What all sessions share.
#[derive(Debug)]
struct Hub {
    cluster: String,
    events: mpsc::Sender<ServerEvent>,
    /// One per configured node; no other will ever have one.
    slots: HashMap<NodeName, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Held by the session that lives, from before its `Connected` until after its `Disconnected`.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    /// The session that came last, be it waiting for its turn or living.
    newest: Ending,
    /// The one that lives.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    outbox: Outbox<ToTarget>,
    greeted: bool,
}

impl Default for SlotState {
    fn default() -> Self {
        Self { newest: Ending::new(), current: None }
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where requests come in.
struct Door(Arc<Hub>);

#[tonic::async_trait]
impl Fabric for Door {
    type AttachStream = std::pin::Pin<Box<dyn Stream<Item = Result<RouterMessage, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<TargetMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let from = request.remote_addr().map_or_else(String::new, |a| a.to_string());
        let node = self.0.admit(&request).inspect_err(|status| {
            tracing::warn!(%from, reason = status.message(), "a node was refused");
        })?;
        let ending = Ending::new();
        let (outbox, outgoing) = Outbox::new(QUEUE, ending.clone());
        tokio::spawn(outbox.clone().beat(|| ToTarget::Beat));
        tokio::spawn(session(self.0.clone(), node.clone(), request.into_inner(), outbox));
        Ok(Response::new(Box::pin(encoded(outgoing, node, ending))))
    }
}

/// Messages as they go out; the last thing said is why the session ends.
fn encoded(
    outgoing: Outgoing<ToTarget>,
    node: NodeName,
    ending: Ending,
) -> impl Stream<Item = Result<RouterMessage, Status>> + Send {
    let messages = outgoing.filter_map(move |message| match codec::from_to_target(&message) {
        Ok(message) => Some(Ok(message)),
        Err(error) => {
            // Nobody but us is at fault. The request stays unacknowledged, which its owner notices.
            tracing::error!(%node, %error, "not sent");
            None
        }
    });
    let farewell = tokio_stream::once(()).map(move |()| Err(Status::aborted(ending.reason().unwrap_or_default())));
    messages.chain(farewell)
}

impl Hub {
    /// Who asks, if it may: the certificate says who it is, the configuration whether it belongs here.
    fn admit<T>(&self, request: &Request<T>) -> Result<NodeName, Status> {
        let certificates = request.peer_certs().unwrap_or_default();
        let leaf = certificates.first().ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let name = pki::peer_name(leaf).map_err(Status::unauthenticated)?;
        let Some((node, _)) = self.slots.get_key_value(name.as_str()) else {
            return Err(Status::permission_denied(format!("node {name:?} is not configured at this router")));
        };
        let theirs = request.metadata().get(CLUSTER).and_then(|c| c.to_str().ok()).unwrap_or_default();
        if theirs != self.cluster {
            let ours = &self.cluster;
            return Err(Status::failed_precondition(format!("this is cluster {ours:?}, {name} asks for {theirs:?}")));
        }
        Ok(node.clone())
    }
}

/// One session from its turn to its end.
async fn session(hub: Arc<Hub>, node: NodeName, incoming: Streaming<TargetMessage>, outbox: Outbox<ToTarget>) {
    let Some(slot) = hub.slots.get(&node) else { return };
    let ending = outbox.ending().clone();
    let _owned = Owned(ending.clone());
    std::mem::replace(&mut slot.lock().newest, ending.clone()).end("the node attached again");
    let _turn = slot.turn.lock().await;
    // A newer one came while this one waited: nobody ever hears of this one.
    if ending.reason().is_some() {
        return;
    }
    slot.lock().current = Some(Current { outbox: outbox.clone(), greeted: false });
    if hub.events.send(ServerEvent::Connected(node.clone())).await.is_ok() {
        let reason = listen(&hub, &node, incoming, &ending).await;
        ending.end(reason);
    }
    slot.lock().current = None;
    drop(outbox);
    let reason = ending.reason().unwrap_or_default();
    tracing::info!(%node, %reason, "session ended");
    // If nobody listens any more, nobody needs to know.
    let _ = hub.events.send(ServerEvent::Disconnected(node, reason)).await;
}

/// Passes messages on until the session ends; answers why it did.
async fn listen(hub: &Hub, node: &NodeName, mut incoming: Streaming<TargetMessage>, ending: &Ending) -> String {
    loop {
        let message = match next(&mut incoming, ending).await {
            Ok(message) => message,
            Err(reason) => return reason,
        };
        match codec::to_router(message) {
            Ok(ToRouter::Beat) => {}
            Ok(message) => {
                if hub.events.send(ServerEvent::Message(node.clone(), message)).await.is_err() {
                    return "the router stops".to_owned();
                }
            }
            // What it meant is unknown, so what follows cannot be trusted to make sense. It attaches and says all anew.
            Err(error) => return error.to_string(),
        }
    }
}
