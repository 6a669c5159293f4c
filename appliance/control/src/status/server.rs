//! The server's side of the socket. Everything is bounded: connections, sizes, times.

use super::{
    Action, Answer, CAPTURE_PATH, CaptureRequest, Demand, Query, Request, TraceRequest, What, action, metrics,
};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Connections at one time; more wait in the socket's own queue.
const CONNECTIONS: usize = 16;
/// Bytes of a request's head; of an order too.
const LARGEST_REQUEST: usize = 16 << 10;
/// For a request to arrive, and for an answer to be fetched.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a stream to end.
const LONGEST_STREAM: Duration = Duration::from_secs(3700);
/// Lines of a stream that wait to be fetched.
const LINES: usize = 64;
/// Pieces of a capture that wait to be fetched.
const PIECES: usize = 8;
/// For the control core to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Why there is no status socket.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A process serves it already.
    #[error("another process answers at {0}: is this node running already? (`phalanx status --socket {0}`)")]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{0} exists and is no socket; move it away or set [node] status_socket")]
    NotASocket(PathBuf),
    /// The metrics cannot be served there.
    #[error("cannot listen at {address} for metrics: {error}; set [node] metrics to a free address of this host")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The operating system's refusal.
    #[error("cannot make the status socket {path}: {error}; set [node] status_socket to a place this user may write")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A socket that listens. Dropping it removes the file.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Ours, so that we never remove a successor's.
    inode: u64,
}

impl Server {
    /// Listens at `path` with mode 0660. A file left by a process that is gone is replaced; one that is served is not.
    /// Must be called inside a tokio runtime.
    pub async fn bind(path: &Path) -> Result<Server, StatusError> {
        let fail = |error| StatusError::Io { path: path.to_owned(), error };
        if let Ok(meta) = fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(StatusError::NotASocket(path.to_owned()));
            }
            if UnixStream::connect(path).await.is_ok() {
                return Err(StatusError::InUse(path.to_owned()));
            }
        }
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        // Bound under another name first: nobody ever sees it with the wrong mode, and the rename replaces a stale one.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(fail)?;
        let ready = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))
            .and_then(|()| fs::metadata(&fresh))
            .and_then(|meta| fs::rename(&fresh, path).map(|()| meta.ino()));
        match ready {
            Ok(inode) => Ok(Server { listener, path: path.to_owned(), inode }),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(fail(error))
            }
        }
    }

    /// Answers until the future is dropped. Questions and orders go to `source`.
    pub async fn serve(self, source: mpsc::Sender<Request>) {
        let app = router(source);
        answer(app, &self.listener).await;
    }
}

/// Where connections come in.
pub(super) trait Accept: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves whoever connects, a bounded number at a time, until the future is dropped.
pub(super) async fn answer(app: Router, listener: &impl Accept) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "status: accept failed");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let streams = Streams::default();
        let service = TowerToHyperService::new(app.clone().layer(Extension(streams.clone())));
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(LARGEST_REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is slower than this has lost interest; its errors are its own.
            tokio::select! { _ = connection => {}, () = streams.patience() => {} }
            drop(slot);
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn router(source: mpsc::Sender<Request>) -> Router {
    let mut router = Router::new().route("/metrics", get(metrics_text));
    for what in What::ALL {
        router = router.route(&what.path(), get(move |State(source): State<mpsc::Sender<Request>>| told(source, what)));
    }
    let actions = post(act).layer(DefaultBodyLimit::max(LARGEST_REQUEST));
    let traces = post(trace).layer(DefaultBodyLimit::max(LARGEST_REQUEST));
    let captures = post(capture).layer(DefaultBodyLimit::max(LARGEST_REQUEST));
    let router = router.route(action::PATH, actions).route("/v1/trace", traces).route(CAPTURE_PATH, captures);
    router.fallback(unknown).with_state(source)
}

/// Metrics and nothing else.
pub(super) fn metrics_router(source: mpsc::Sender<Request>) -> Router {
    Router::new().route("/metrics", get(metrics_text)).with_state(source)
}

async fn unknown() -> Response {
    let paths: Vec<String> = What::ALL.iter().map(|w| w.path()).collect();
    problem(StatusCode::NOT_FOUND, &format!("there is {}, /metrics, and {} to post to", paths.join(", "), action::PATH))
}

async fn told(source: mpsc::Sender<Request>, what: What) -> Response {
    match ask(source, what).await {
        Ok(answer) => json(&answer),
        Err(problem) => *problem,
    }
}

async fn metrics_text(State(source): State<mpsc::Sender<Request>>) -> Response {
    let overview = match ask(source, What::Overview).await {
        Ok(Answer::Overview(overview)) => overview,
        Ok(_) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "the control core answered something else"),
        Err(problem) => return *problem,
    };
    match metrics::text(*overview) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The control core's answer, or what to tell who asked.
async fn ask(source: mpsc::Sender<Request>, what: What) -> Result<Answer, Box<Response>> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        source.send(Request::Query(Query { what, reply })).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Box::new(nobody())),
        Err(_) => Err(Box::new(late())),
    }
}

/// Whether the answer on a connection is a stream, which may take its time.
#[derive(Clone, Default)]
struct Streams(Arc<AtomicBool>);

impl Streams {
    async fn patience(&self) {
        tokio::time::sleep(2 * PATIENCE).await;
        if self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(LONGEST_STREAM).await;
        }
    }
}

/// A line for each packet, as they come; who goes away ends the trace.
async fn trace(
    State(source): State<mpsc::Sender<Request>>,
    Extension(streams): Extension<Streams>,
    body: Bytes,
) -> Response {
    let trace = match serde_json::from_slice(&body) {
        Ok(trace) => trace,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("no trace: {error}")),
    };
    let (lines, received) = mpsc::channel(LINES);
    let (reply, answer) = oneshot::channel();
    if let Some(problem) = refusal(source, Request::Trace(TraceRequest { trace, lines, reply }), answer).await {
        return problem;
    }
    streams.0.store(true, Ordering::Relaxed);
    let line = |mut line: Vec<u8>| {
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(line)
    };
    let body = axum::body::Body::from_stream(ReceiverStream::new(received).map(line));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// A pcapng file as it grows; who goes away ends the capture.
async fn capture(
    State(source): State<mpsc::Sender<Request>>,
    Extension(streams): Extension<Streams>,
    body: Bytes,
) -> Response {
    let capture = match serde_json::from_slice(&body) {
        Ok(capture) => capture,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("no capture: {error}")),
    };
    let (pieces, received) = mpsc::channel(PIECES);
    let (reply, answer) = oneshot::channel();
    if let Some(problem) = refusal(source, Request::Capture(CaptureRequest { capture, pieces, reply }), answer).await {
        return problem;
    }
    streams.0.store(true, Ordering::Relaxed);
    let body = axum::body::Body::from_stream(ReceiverStream::new(received).map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

/// Why a stream does not begin, if it does not.
async fn refusal(
    source: mpsc::Sender<Request>,
    request: Request,
    answer: oneshot::Receiver<Result<(), String>>,
) -> Option<Response> {
    let asked = async {
        source.send(request).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Some(Ok(()))) => None,
        Ok(Some(Err(why))) => Some(problem(StatusCode::CONFLICT, &why)),
        Ok(None) => Some(nobody()),
        Err(_) => Some(late()),
    }
}

async fn act(State(source): State<mpsc::Sender<Request>>, body: Bytes) -> Response {
    let action: Action = match serde_json::from_slice(&body) {
        Ok(action) => action,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("no action: {error}")),
    };
    let (reply, answer) = oneshot::channel();
    let told = async {
        source.send(Request::Demand(Demand { action, reply })).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, told).await {
        Ok(Some(Ok(done))) => json(&done),
        Ok(Some(Err(why))) => problem(StatusCode::CONFLICT, &why),
        Ok(None) => nobody(),
        Err(_) => late(),
    }
}

fn json(answer: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn nobody() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the node is starting or stopping")
}

fn late() -> Response {
    problem(StatusCode::GATEWAY_TIMEOUT, "the control core did not answer in time")
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "error": message }))).into_response()
}
