//! A router and its targets on loopback, with real certificates, and a wire between them that can be frozen.
#![allow(dead_code)] // Not every test file uses all of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use phalanx_fabric::{
    Client, ClientConfig, ClientEvent, ClientHandle, FabricError, Server, ServerConfig, ServerEvent, ServerHandle,
    TlsFiles, pki,
};
use tempfile::TempDir;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub const CLUSTER: &str = "test";
const SOON: Duration = Duration::from_secs(10);

/// An authority with certificates for `nodes`.
pub fn authority(nodes: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::create_ca(dir.path(), CLUSTER).unwrap();
    for node in nodes {
        pki::issue(dir.path(), node, &[[127, 0, 0, 1].into()]).unwrap();
    }
    dir
}

pub fn files(dir: &Path, node: &str) -> TlsFiles {
    TlsFiles {
        certificate: dir.join(format!("{node}.pem")),
        key: dir.join(format!("{node}.key")),
        ca: dir.join("ca.pem"),
    }
}

pub struct Router {
    pub handle: ServerHandle,
    pub events: mpsc::Receiver<ServerEvent>,
    pub address: SocketAddr,
}

impl Router {
    pub async fn start(dir: &Path) -> Router {
        Router::start_at(dir, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(dir: &Path, listen: SocketAddr) -> Router {
        let nodes = vec!["t1".to_owned(), "t2".to_owned()];
        let config = ServerConfig { listen, tls: files(dir, "r1"), nodes, cluster: CLUSTER.to_owned() };
        let (sender, events) = mpsc::channel(1024);
        let handle = Server::start(config, sender).await.unwrap();
        let address = handle.address();
        Router { handle, events, address }
    }

    pub async fn event(&mut self) -> ServerEvent {
        timeout(SOON, self.events.recv()).await.expect("an event within ten seconds").expect("a server that lives")
    }

    pub async fn expect_connected(&mut self, node: &str) {
        assert_eq!(self.event().await, ServerEvent::Connected(node.into()));
    }

    pub async fn expect_disconnected(&mut self, node: &str) -> String {
        match self.event().await {
            ServerEvent::Disconnected(from, reason) if *from == *node => reason,
            other => panic!("{other:?} instead of the end of {node}'s session"),
        }
    }

    /// No event comes for that long.
    pub async fn expect_silence(&mut self, during: Duration) {
        if let Ok(event) = timeout(during, self.events.recv()).await {
            panic!("{event:?} instead of silence");
        }
    }
}

pub struct Target {
    pub handle: ClientHandle,
    pub events: mpsc::Receiver<ClientEvent>,
}

impl Target {
    pub async fn start(dir: &Path, node: &str, router: SocketAddr) -> Target {
        Target::with(config(dir, node, router)).await.unwrap()
    }

    pub async fn with(config: ClientConfig) -> Result<Target, FabricError> {
        let (sender, events) = mpsc::channel(1024);
        Ok(Target { handle: Client::start(config, sender).await?, events })
    }

    pub async fn event(&mut self) -> ClientEvent {
        timeout(SOON, self.events.recv()).await.expect("an event within ten seconds").expect("a client that lives")
    }

    pub async fn expect_connected(&mut self) {
        assert_eq!(self.event().await, ClientEvent::Connected("r1".into()));
    }

    pub async fn expect_disconnected(&mut self) -> String {
        match self.event().await {
            ClientEvent::Disconnected(_, reason) => reason,
            other => panic!("{other:?} instead of the session's end"),
        }
    }

    /// Why it is not attached, as soon as it knows.
    pub async fn trouble(&mut self) -> String {
        for _ in 0..500 {
            if let Some(trouble) = self.handle.trouble() {
                assert!(self.events.try_recv().is_err(), "an event of a session that never was");
                return trouble;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no trouble within ten seconds");
    }
}

pub fn config(dir: &Path, node: &str, router: SocketAddr) -> ClientConfig {
    ClientConfig {
        router: "r1".into(),
        address: router,
        tls: files(dir, node),
        cluster: CLUSTER.to_owned(),
        node: node.into(),
    }
}

/// A wire: connections to `address` go on to `to`, until it is frozen; then nothing moves and nothing is closed.
pub struct Wire {
    pub address: SocketAddr,
    frozen: Arc<watch::Sender<bool>>,
}

impl Wire {
    pub async fn to(to: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = Arc::new(watch::Sender::new(false));
        let watched = frozen.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                tokio::spawn(carry(near, far, watched.subscribe()));
            }
        });
        Wire { address, frozen }
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn carry(near: TcpStream, far: TcpStream, mut frozen: watch::Receiver<bool>) {
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let ended = tokio::select! {
        _ = copy(&mut near_in, &mut far_out) => true,
        _ = copy(&mut far_in, &mut near_out) => true,
        _ = frozen.wait_for(|frozen| *frozen) => false,
    };
    if !ended {
        // The sockets stay open: neither side hears anything, not even an end.
        std::future::pending::<()>().await;
    }
}
