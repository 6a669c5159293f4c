//! A peer that has a good certificate and sends nonsense.

#[path = "common/net.rs"]
mod net;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use net::{CLUSTER, Router, Target, authority, files};
use phalanx_cluster::messages::{Drained, ToRouter, ToTarget};
use phalanx_fabric::codec::{decode_to_router, encode_to_router, encode_to_target};
use phalanx_fabric::{ClientEvent, ServerEvent};
use phalanx_wire::{SaId, VipId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const PATH: &str = "/phalanx.fabric.v1.Fabric/Attach";

/// gRPC messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

/// A target that says what it is told to, byte by byte.
async fn raw_target(
    dir: &std::path::Path,
    router: std::net::SocketAddr,
) -> (mpsc::UnboundedSender<Vec<u8>>, Streaming<Vec<u8>>) {
    let read = |path| std::fs::read(path).unwrap();
    let own = files(dir, "t1");
    let tls = ClientTlsConfig::new()
        .identity(Identity::from_pem(read(own.certificate), read(own.key)))
        .ca_certificate(Certificate::from_pem(read(own.ca)))
        .domain_name("r1");
    let endpoint = Endpoint::from_shared(format!("https://{router}")).unwrap().tls_config(tls).unwrap();
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let (say, said) = mpsc::unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(said));
    request.metadata_mut().insert("phalanx-cluster", CLUSTER.parse().unwrap());
    let answer = grpc.streaming(request, http::uri::PathAndQuery::from_static(PATH), Raw).await.unwrap();
    (say, answer.into_inner())
}

async fn end_of(mut answers: Streaming<Vec<u8>>) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session ended without a reason"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_target_that_sends_nonsense_is_told_what_is_wrong_and_what_came_before_counts() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let good = ToRouter::Draining(Drained::Vips(vec![VipId(7)]));
    let nonsense: [(&[u8], &str); 4] = [
        (&[], "kind: missing"),
        (&[0xff; 40], "decode"),
        (&[0x3a, 4, 8, 0x80, 0x80, 4], "Listening, vip: 65536 is out of range"),
        (&[0x12, 4, 0x1a, 2, 0x12, 9], "decode"),
    ];
    for (bytes, expected) in nonsense {
        let (say, answers) = raw_target(dir.path(), router.address).await;
        router.expect_connected("t1").await;
        say.send(encode_to_router(&good).unwrap()).unwrap();
        say.send(bytes.to_vec()).unwrap();
        assert_eq!(router.event().await, ServerEvent::Message("t1".into(), good.clone()));
        let reason = router.expect_disconnected("t1").await;
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(end_of(answers).await.message(), reason);
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_session_unread() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let (say, _answers) = raw_target(dir.path(), router.address).await;
    router.expect_connected("t1").await;
    say.send(vec![0; phalanx_fabric::codec::MESSAGE_MAX + 1]).unwrap();
    let reason = router.expect_disconnected("t1").await;
    assert!(reason.contains("too large"), "{reason}");
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_as_far_as_asking() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let ca = Certificate::from_pem(std::fs::read(dir.path().join("ca.pem")).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("r1");
    let endpoint = Endpoint::from_shared(format!("https://{}", router.address)).unwrap().tls_config(tls).unwrap();
    let (_say, said) = mpsc::unbounded_channel::<Vec<u8>>();
    // TLS 1.3 lets the client find out late; but it finds out.
    if let Ok(channel) = endpoint.connect().await {
        let mut grpc = tonic::client::Grpc::new(channel);
        let path = http::uri::PathAndQuery::from_static(PATH);
        let refused = match grpc.ready().await {
            Ok(()) => grpc.streaming(Request::new(UnboundedReceiverStream::new(said)), path, Raw).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    router.expect_silence(Duration::from_millis(300)).await;
}

/// A router that says what it is told to, byte by byte, and shows what it hears.
#[derive(Clone)]
struct RawRouter {
    say: Arc<Mutex<Option<mpsc::UnboundedReceiver<Vec<u8>>>>>,
    heard: mpsc::UnboundedSender<Vec<u8>>,
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl NamedService for RawRouter {
    const NAME: &'static str = "phalanx.fabric.v1.Fabric";
}

impl tonic::codegen::Service<http::Request<Body>> for RawRouter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = Attach(self.clone());
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(service, request).await) })
    }
}

struct Attach(RawRouter);

impl tonic::codegen::Service<Request<Streaming<Vec<u8>>>> for Attach {
    type Response = Response<Pin<Box<dyn tokio_stream::Stream<Item = Result<Vec<u8>, Status>> + Send>>>;
    type Error = Status;
    type Future = Answer<Result<Self::Response, Status>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        use tokio_stream::StreamExt;
        let (said, heard) = (self.0.say.lock().unwrap().take(), self.0.heard.clone());
        Box::pin(async move {
            let mut incoming = request.into_inner();
            tokio::spawn(async move {
                while let Ok(Some(bytes)) = incoming.message().await {
                    let _ = heard.send(bytes);
                }
            });
            let said = said.ok_or_else(|| Status::unavailable("once only"))?;
            Ok(Response::new(Box::pin(UnboundedReceiverStream::new(said).map(Ok)) as _))
        })
    }
}

struct RawSession {
    say: mpsc::UnboundedSender<Vec<u8>>,
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
    target: Target,
}

async fn raw_router(dir: &std::path::Path) -> RawSession {
    let read = |path| std::fs::read(path).unwrap();
    let own = files(dir, "r1");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(own.certificate), read(own.key)))
        .client_ca_root(Certificate::from_pem(read(own.ca)));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let ((say, said), (told, heard)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let service = RawRouter { say: Arc::new(Mutex::new(Some(said))), heard: told };
    let mut server = tonic::transport::Server::builder().tls_config(tls).unwrap();
    tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
    let mut target = Target::start(dir, "t1", address).await;
    target.expect_connected().await;
    RawSession { say, heard, target }
}

#[tokio::test]
async fn an_installation_that_is_not_understood_is_refused_by_name_and_the_session_goes_on() {
    let dir = authority(&["r1", "t1"]);
    let RawSession { say, mut heard, mut target } = raw_router(dir.path()).await;
    // InstallSa (4) with request (1) = 42 and nothing else.
    say.send(vec![0x22, 2, 8, 42]).unwrap();
    let after = ToTarget::RemoveSa { request: 43, sa: SaId(1) };
    say.send(encode_to_target(&after).unwrap()).unwrap();
    assert_eq!(target.event().await, ClientEvent::Message("r1".into(), after));
    loop {
        let bytes = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
        match decode_to_router(&bytes).unwrap() {
            ToRouter::Beat => {}
            ToRouter::Ack { request: 42, error: Some(error) } => {
                assert!(error.contains("InstallSa, sa: missing"), "{error}");
                return;
            }
            other => panic!("{other:?} instead of the refusal"),
        }
    }
}

#[tokio::test]
async fn a_router_that_sends_nonsense_loses_its_target_for_a_while() {
    let dir = authority(&["r1", "t1"]);
    let RawSession { say, heard: _heard, mut target } = raw_router(dir.path()).await;
    // LeaseReply (6) without a result.
    say.send(vec![0x32, 0]).unwrap();
    let reason = target.expect_disconnected().await;
    assert!(reason.contains("LeaseReply, result: missing"), "{reason}");
}
