//! The asking side of the socket.

use super::{Action, What, action};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::http::request::Builder;
use hyper_util::rt::TokioIo;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The largest answer: a full connection table fits.
const LARGEST_ANSWER: usize = 1 << 30;
/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No file.
    #[error("there is no socket {0}: is `phalanx run` running? (--socket or PHALANX_SOCKET names another one)")]
    NoSocket(PathBuf),
    /// A file without a process.
    #[error("nobody answers at {0}: `phalanx run` has ended without removing it; start it again")]
    Stale(PathBuf),
    /// Not allowed.
    #[error("no permission for {0}: run this as the user or with the group of `phalanx run`, or as root")]
    Permission(PathBuf),
    /// Any other refusal.
    #[error("cannot talk to {path}: {why}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The node said no.
    #[error("the node refuses: {0}")]
    Refused(String),
}

/// Asks the node at `socket`; the answer is JSON.
pub async fn fetch(socket: &Path, what: What) -> Result<Vec<u8>, ClientError> {
    talk(socket, hyper::Request::get(what.path()), Bytes::new()).await
}

/// Tells the node at `socket` to do something; the answer is [`Done`](super::Done) as JSON.
pub async fn order(socket: &Path, action: &Action) -> Result<Vec<u8>, ClientError> {
    let broken = |why: serde_json::Error| ClientError::Broken { path: socket.to_owned(), why: why.to_string() };
    let body = serde_json::to_vec(action).map_err(broken)?;
    talk(socket, hyper::Request::post(action::PATH), body.into()).await
}

/// Asks the node at `socket` for a stream of lines, and gives each to `each` until there are no more.
///
/// # Errors
/// There is no node, or it refuses, or it is gone in the middle.
pub async fn stream(socket: &Path, path: &str, body: Vec<u8>, mut each: impl FnMut(&[u8])) -> Result<(), ClientError> {
    let mut rest = Vec::new();
    let lines = |data: &[u8]| {
        rest.extend_from_slice(data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            each(&rest[..end]);
            rest.drain(..=end);
        }
        ControlFlow::Continue(())
    };
    chunks(socket, path, body, lines).await
}

/// Asks the node at `socket` for a stream of bytes, and gives each piece to `each` until there are no more, or it wants none.
///
/// # Errors
/// There is no node, or it refuses, or it is gone in the middle.
pub async fn chunks(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let broken = |why: String| ClientError::Broken { path: socket.to_owned(), why };
    let (mut sender, driver) = connect(socket).await?;
    let request = hyper::Request::post(path).header("host", "phalanx").body(Full::new(Bytes::from(body)));
    let request = request.map_err(|e| broken(e.to_string()))?;
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    let response = answer.map_err(|_| broken("no answer in time".to_owned()))?.map_err(|e| broken(e.to_string()))?;
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|e| broken(e.to_string()))?;
        return Err(ClientError::Refused(reason(&body.to_bytes(), status.as_u16())));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(e.to_string()))?;
        if frame.data_ref().is_some_and(|data| each(data).is_break()) {
            break;
        }
    }
    driver.abort();
    Ok(())
}

async fn talk(socket: &Path, request: Builder, body: Bytes) -> Result<Vec<u8>, ClientError> {
    match tokio::time::timeout(PATIENCE, exchange(socket, request, body)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Broken { path: socket.to_owned(), why: "no answer in time".to_owned() }),
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn connect(socket: &Path) -> Result<(Sender, tokio::task::JoinHandle<hyper::Result<()>>), ClientError> {
    let path = || socket.to_owned();
    let broken = |why: String| ClientError::Broken { path: path(), why };
    let stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket(path()),
        io::ErrorKind::ConnectionRefused => ClientError::Stale(path()),
        io::ErrorKind::PermissionDenied => ClientError::Permission(path()),
        _ => broken(e.to_string()),
    })?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.to_string()))?;
    Ok((sender, tokio::spawn(connection)))
}

async fn exchange(socket: &Path, request: Builder, body: Bytes) -> Result<Vec<u8>, ClientError> {
    let broken = |why: String| ClientError::Broken { path: socket.to_owned(), why };
    let (mut sender, driver) = connect(socket).await?;
    let request = request.header("host", "phalanx").body(Full::new(body)).map_err(|e| broken(e.to_string()))?;
    let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|e| broken(e.to_string()))?;
    driver.abort();
    let body = body.to_bytes().to_vec();
    if status.is_success() { Ok(body) } else { Err(ClientError::Refused(reason(&body, status.as_u16()))) }
}

fn reason(body: &[u8], status: u16) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match json.as_ref().and_then(|j| j["error"].as_str()) {
        Some(error) => error.to_owned(),
        None => format!("HTTP {status}"),
    }
}
