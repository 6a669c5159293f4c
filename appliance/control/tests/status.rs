//! The status socket, asked as a user asks it.

use phalanx_control::status::model::{DropRow, Status};
use phalanx_control::status::{
    Action, Answer, CAPTURE_PATH, Capture, ClientError, Done, OneTarget, Request, Server, StatusError, Trace, What,
    channel, chunks, fetch, order, stream,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A control core that knows its name and drops.
async fn core(mut questions: mpsc::Receiver<Request>) {
    while let Some(request) = questions.recv().await {
        let query = match request {
            Request::Query(query) => query,
            Request::Demand(demand) => {
                let done = match demand.action {
                    Action::TargetDrain(OneTarget { node: Some(node), .. }) => {
                        Ok(Done { done: format!("{node} drains"), notes: Vec::new() })
                    }
                    _ => Err("name a target".to_owned()),
                };
                let _ = demand.reply.send(done);
                continue;
            }
            Request::Capture(request) => {
                let _ = request.reply.send(request.capture.check());
                let _ = request.pieces.send(vec![b'\n', 0, 255]).await;
                continue;
            }
            Request::Trace(request) => {
                let _ = request.reply.send(if request.trace.count > 9 { Err("too many".into()) } else { Ok(()) });
                for n in 0..request.trace.count {
                    let _ = request.lines.send(format!("{{\"n\":{n}}}").into_bytes()).await;
                }
                continue;
            }
        };
        let answer = match query.what {
            What::Status => Answer::Status(Box::new(Status { node: "r1".into(), drops: 7, ..Status::default() })),
            What::Drop => Answer::Drop(DropRow::all(&[vec![1; 99], vec![2; 99]])),
            _ => Answer::Sa(Vec::new()),
        };
        let _ = query.reply.send(answer);
    }
}

async fn start(path: &Path) -> tokio::task::JoinHandle<()> {
    let server = Server::bind(path).await.unwrap();
    let (source, questions) = channel();
    tokio::spawn(core(questions));
    tokio::spawn(server.serve(source))
}

#[tokio::test]
async fn a_question_gets_its_answer_and_the_socket_is_for_the_group_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/r1.sock");
    let server = start(&path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let json = fetch(&path, What::Status).await.unwrap();
    let Answer::Status(status) = Answer::parse(What::Status, &json).unwrap() else { panic!() };
    assert_eq!((status.node.as_str(), status.drops), ("r1", 7));
    let json = fetch(&path, What::Drop).await.unwrap();
    let Answer::Drop(drops) = Answer::parse(What::Drop, &json).unwrap() else { panic!() };
    assert_eq!((drops[0].packets, drops[0].reason.as_str()), (3, "runt"));
    server.abort();
    let _ = server.await;
    assert!(!path.exists(), "the file goes with the server");
    assert!(matches!(fetch(&path, What::Status).await, Err(ClientError::NoSocket(_))));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    // A process that died leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(fetch(&path, What::Status).await, Err(ClientError::Stale(_))));
    let _server = start(&path).await;
    assert!(fetch(&path, What::Status).await.is_ok());
    assert!(matches!(Server::bind(&path).await, Err(StatusError::InUse(_))));
    assert!(fetch(&path, What::Status).await.is_ok(), "the first one goes on");
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Server::bind(&file).await, Err(StatusError::NotASocket(_))));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

async fn raw(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn wrong_paths_methods_and_sizes_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let _server = start(&path).await;
    let answer = raw(&path, b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("/v1/lease"), "{answer}");
    assert!(raw(&path, b"POST /v1/sa HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    let mut long = b"GET /v1/sa HTTP/1.1\r\nhost: x\r\nx-filler: ".to_vec();
    long.resize(40 << 10, b'x');
    let answer = raw(&path, &long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(fetch(&path, What::Sa).await.is_ok());
}

#[tokio::test]
async fn an_order_is_carried_out_or_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let _server = start(&path).await;
    let drain = |node: Option<&str>| Action::TargetDrain(OneTarget { node: node.map(Into::into), vip: None });
    let done = order(&path, &drain(Some("t1"))).await.unwrap();
    assert_eq!(String::from_utf8(done).unwrap(), r#"{"done":"t1 drains"}"#);
    let refused = order(&path, &drain(None)).await.unwrap_err().to_string();
    assert_eq!(refused, "the node refuses: name a target");
    let post =
        |body: &str| format!("POST /v1/action HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = raw(&path, post(r#"{"action":"dance"}"#).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("target-drain"), "{answer}");
    assert!(raw(&path, post(&" ".repeat(20 << 10)).as_bytes()).await.starts_with("HTTP/1.1 413"));
    assert!(raw(&path, b"GET /v1/action HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_trace_is_a_stream_of_lines_and_a_refusal_comes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let _server = start(&path).await;
    let trace = |count| serde_json::to_vec(&Trace { count, ..Trace::default() }).unwrap();
    let mut lines = Vec::new();
    stream(&path, "/v1/trace", trace(3), |line| lines.push(String::from_utf8_lossy(line).into_owned())).await.unwrap();
    assert_eq!(lines, [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#]);
    let refused = stream(&path, "/v1/trace", trace(10), |_| unreachable!()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the node refuses: too many");
    let nonsense = stream(&path, "/v1/trace", b"{".to_vec(), |_| unreachable!()).await.unwrap_err();
    assert!(nonsense.to_string().contains("no trace"), "{nonsense}");
}

#[tokio::test]
async fn a_capture_is_a_stream_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let _server = start(&path).await;
    let capture = |snaplen| serde_json::to_vec(&Capture { snaplen, ..Capture::default() }).unwrap();
    let mut bytes = Vec::new();
    let take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        std::ops::ControlFlow::Continue(())
    };
    chunks(&path, CAPTURE_PATH, capture(96), take).await.unwrap();
    assert_eq!(bytes, [b'\n', 0, 255]);
    let refused = chunks(&path, CAPTURE_PATH, capture(0), |_| unreachable!()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the node refuses: 1 to 65535 bytes of a packet are kept");
}

#[tokio::test]
async fn idle_connections_cannot_shut_others_out_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let _server = start(&path).await;
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    // The head of a request must come within 10 s: then a slot is free.
    assert!(fetch(&path, What::Status).await.is_ok());
}

#[tokio::test]
async fn a_core_that_is_gone_or_silent_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r1.sock");
    let server = Server::bind(&path).await.unwrap();
    let (source, questions) = channel();
    tokio::spawn(server.serve(source));
    let silent = fetch(&path, What::Status).await.unwrap_err().to_string();
    assert_eq!(silent, "the node refuses: the control core did not answer in time");
    drop(questions);
    let gone = fetch(&path, What::Status).await.unwrap_err().to_string();
    assert_eq!(gone, "the node refuses: the node is starting or stopping");
}
