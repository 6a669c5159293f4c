//! Sessions between a router and its targets: who may have one, how it begins and ends, what travels in it.

#[path = "common/net.rs"]
mod net;

use std::time::{Duration, Instant};

use net::{Router, Target, Wire, authority, config, files};
use phalanx_cluster::messages::{Hello, ToRouter, ToTarget};
use phalanx_fabric::{ClientConfig, ClientEvent, FabricError, ServerEvent, pki};
use phalanx_wire::CoreId;

fn hello(version: u32) -> ToRouter {
    ToRouter::Hello(Hello { version, node: "t1".into(), incarnation: 7, link_mtu: 1600, cores: vec![CoreId(0)] })
}

fn welcome(version: u32) -> ToTarget {
    ToTarget::Welcome { version, node: "r1".into(), incarnation: 9, epochs: vec![] }
}

fn ack(request: u64) -> ToRouter {
    ToRouter::Ack { request, error: None }
}

/// A session in which both have said their first word.
async fn attached(router: &mut Router, target: &mut Target, node: &str) {
    target.expect_connected().await;
    router.expect_connected(node).await;
    target.handle.send(hello(1));
    assert_eq!(router.event().await, ServerEvent::Message(node.into(), hello(1)));
    router.handle.send(node, welcome(1));
    assert_eq!(target.event().await, ClientEvent::Message("r1".into(), welcome(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_travel_both_ways_in_order_and_beats_keep_an_idle_session() {
    let dir = authority(&["r1", "t1", "t2"]);
    let mut router = Router::start(dir.path()).await;
    let mut target = Target::start(dir.path(), "t1", router.address).await;
    attached(&mut router, &mut target, "t1").await;
    for request in 0..500 {
        target.handle.send(ack(request));
        router.handle.send("t1", ToTarget::NoticeAck { id: request });
    }
    for request in 0..500 {
        assert_eq!(router.event().await, ServerEvent::Message("t1".into(), ack(request)));
        assert_eq!(target.event().await, ClientEvent::Message("r1".into(), ToTarget::NoticeAck { id: request }));
    }
    // Longer than a silent peer is believed to live; and no beat is ever shown.
    router.expect_silence(Duration::from_millis(2_500)).await;
    assert!(target.events.try_recv().is_err());
    assert_eq!(target.handle.trouble(), None);
}

#[tokio::test]
async fn each_node_has_its_own_session() {
    let dir = authority(&["r1", "t1", "t2"]);
    let mut router = Router::start(dir.path()).await;
    let mut first = Target::start(dir.path(), "t1", router.address).await;
    attached(&mut router, &mut first, "t1").await;
    let mut second = Target::start(dir.path(), "t2", router.address).await;
    attached(&mut router, &mut second, "t2").await;
    router.handle.send("t2", ToTarget::NoticeAck { id: 2 });
    router.handle.send("t1", ToTarget::NoticeAck { id: 1 });
    router.handle.send("t9", ToTarget::NoticeAck { id: 9 });
    assert_eq!(first.event().await, ClientEvent::Message("r1".into(), ToTarget::NoticeAck { id: 1 }));
    assert_eq!(second.event().await, ClientEvent::Message("r1".into(), ToTarget::NoticeAck { id: 2 }));
}

#[tokio::test]
async fn another_version_is_seen_by_the_caller_on_both_sides() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let mut target = Target::start(dir.path(), "t1", router.address).await;
    target.expect_connected().await;
    router.expect_connected("t1").await;
    target.handle.send(hello(999));
    assert_eq!(router.event().await, ServerEvent::Message("t1".into(), hello(999)));
    router.handle.send("t1", welcome(998));
    assert_eq!(target.event().await, ClientEvent::Message("r1".into(), welcome(998)));
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_and_so_is_such_a_router() {
    let (ours, theirs) = (authority(&["r1", "t1"]), authority(&["r1", "t1"]));
    let mut router = Router::start(ours.path()).await;
    // It believes our router, but was certified by somebody else.
    let mut stranger = config(theirs.path(), "t1", router.address);
    stranger.tls.ca = ours.path().join("ca.pem");
    let mut stranger = Target::with(stranger).await.unwrap();
    // It is certified by ours, but believes somebody else.
    let mut fooled = config(ours.path(), "t1", router.address);
    fooled.tls.ca = theirs.path().join("ca.pem");
    let mut fooled = Target::with(fooled).await.unwrap();
    let trouble = fooled.trouble().await;
    assert!(trouble.contains("certificate"), "{trouble}");
    let trouble = stranger.trouble().await;
    assert!(trouble.contains("alert"), "{trouble}");
    router.expect_silence(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_node_that_is_not_configured_or_of_another_cluster_is_refused_and_told_so() {
    let dir = authority(&["r1", "t1", "t9"]);
    let mut router = Router::start(dir.path()).await;
    let mut unknown = Target::start(dir.path(), "t9", router.address).await;
    let trouble = unknown.trouble().await;
    assert!(trouble.contains("\"t9\" is not configured at this router"), "{trouble}");
    let other = ClientConfig { cluster: "other".into(), ..config(dir.path(), "t1", router.address) };
    let trouble = Target::with(other).await.unwrap().trouble().await;
    assert!(trouble.contains("this is cluster \"test\", t1 asks for \"other\""), "{trouble}");
    router.expect_silence(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_router_that_is_not_the_one_that_was_dialled_is_refused() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let other = ClientConfig { router: "r2".into(), ..config(dir.path(), "t1", router.address) };
    let trouble = Target::with(other).await.unwrap().trouble().await;
    assert!(trouble.contains("r2") || trouble.contains("certificate"), "{trouble}");
    router.expect_silence(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_certificate_of_another_node_or_a_file_that_is_none_is_found_at_the_start() {
    let dir = authority(&["r1", "t1", "t2"]);
    let address = "127.0.0.1:9".parse().unwrap();
    let mut mixed = config(dir.path(), "t1", address);
    mixed.tls = files(dir.path(), "t2");
    let error = Target::with(mixed).await.err().unwrap().to_string();
    assert!(error.contains("t2.pem: is of node \"t2\", this is \"t1\""), "{error}");
    let mut wrong = config(dir.path(), "t1", address);
    wrong.tls.certificate = dir.path().join("t1.key");
    assert!(matches!(Target::with(wrong).await, Err(FabricError::Certificate { .. })));
    let mut absent = config(dir.path(), "t1", address);
    absent.tls.ca = dir.path().join("absent.pem");
    let error = Target::with(absent).await.err().unwrap().to_string();
    assert!(error.contains("absent.pem"), "{error}");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_gone_for_both_sides_within_1200_ms() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let wire = Wire::to(router.address).await;
    let mut target = Target::start(dir.path(), "t1", wire.address).await;
    attached(&mut router, &mut target, "t1").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.freeze();
    let frozen = Instant::now();
    let reason = router.expect_disconnected("t1").await;
    let at_router = frozen.elapsed();
    let reason_there = target.expect_disconnected().await;
    let at_target = frozen.elapsed();
    for (after, reason) in [(at_router, reason), (at_target, reason_there)] {
        assert!(reason.contains("nothing came for 1 s"), "{reason}");
        assert!(after < Duration::from_millis(1_200), "only after {after:?}");
    }
}

#[tokio::test]
async fn a_peer_that_ends_is_gone_at_once() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let mut target = Target::start(dir.path(), "t1", router.address).await;
    attached(&mut router, &mut target, "t1").await;
    let ended = Instant::now();
    drop(target);
    router.expect_disconnected("t1").await;
    assert!(ended.elapsed() < Duration::from_millis(500), "only after {:?}", ended.elapsed());
}

#[tokio::test]
async fn a_node_that_attaches_again_replaces_its_session_in_order() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let wire = Wire::to(router.address).await;
    let mut old = Target::start(dir.path(), "t1", wire.address).await;
    attached(&mut router, &mut old, "t1").await;
    wire.freeze();
    let mut new = Target::start(dir.path(), "t1", router.address).await;
    let reason = router.expect_disconnected("t1").await;
    assert_eq!(reason, "the node attached again");
    router.expect_connected("t1").await;
    new.expect_connected().await;
    // Nothing of the router's old state for the new session: it has not been welcomed.
    router.handle.send("t1", ToTarget::NoticeAck { id: 1 });
    new.handle.send(ack(1));
    new.handle.send(hello(1));
    assert_eq!(router.event().await, ServerEvent::Message("t1".into(), hello(1)));
    router.handle.send("t1", welcome(1));
    assert_eq!(new.event().await, ClientEvent::Message("r1".into(), welcome(1)));
}

#[tokio::test]
async fn a_session_that_is_ended_by_the_router_says_why_and_is_tried_again() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let mut target = Target::start(dir.path(), "t1", router.address).await;
    attached(&mut router, &mut target, "t1").await;
    router.handle.send("t1", ToTarget::NoticeAck { id: 5 });
    router.handle.disconnect("t1", "you speak version 999");
    assert_eq!(target.event().await, ClientEvent::Message("r1".into(), ToTarget::NoticeAck { id: 5 }));
    assert_eq!(target.expect_disconnected().await, "you speak version 999");
    assert_eq!(router.expect_disconnected("t1").await, "you speak version 999");
    attached(&mut router, &mut target, "t1").await;
}

#[tokio::test]
async fn a_target_finds_its_router_again_after_a_restart() {
    let dir = authority(&["r1", "t1"]);
    let mut router = Router::start(dir.path()).await;
    let address = router.address;
    let mut target = Target::start(dir.path(), "t1", address).await;
    attached(&mut router, &mut target, "t1").await;
    drop(router);
    assert_eq!(target.expect_disconnected().await, "the router stops");
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    // Nobody is there: what is sent now is for nobody.
    target.handle.send(ack(1));
    let started = Instant::now();
    let mut router = Router::start_at(dir.path(), address).await;
    target.expect_connected().await;
    assert!(started.elapsed() < Duration::from_millis(1_300), "only after {:?}", started.elapsed());
    router.expect_connected("t1").await;
    target.handle.send(hello(1));
    assert_eq!(router.event().await, ServerEvent::Message("t1".into(), hello(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_does_not_take_its_messages_loses_its_session_and_holds_up_nobody() {
    let dir = authority(&["r1", "t1", "t2"]);
    let mut router = Router::start(dir.path()).await;
    let mut stuck = Target::start(dir.path(), "t1", router.address).await;
    attached(&mut router, &mut stuck, "t1").await;
    let mut quick = Target::start(dir.path(), "t2", router.address).await;
    attached(&mut router, &mut quick, "t2").await;
    // Nobody reads the events of `stuck`.
    let begun = Instant::now();
    for id in 0..600_000 {
        router.handle.send("t1", ToTarget::NoticeAck { id });
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "sending waited: {:?}", begun.elapsed());
    router.handle.send("t2", ToTarget::NoticeAck { id: 1 });
    assert_eq!(quick.event().await, ClientEvent::Message("r1".into(), ToTarget::NoticeAck { id: 1 }));
    let reason = router.expect_disconnected("t1").await;
    assert!(reason.contains("does not take its messages"), "{reason}");
}

#[test]
fn an_authority_and_its_certificates_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let dir = authority(&["r1"]);
    for (file, mode) in [("ca.key", 0o600), ("r1.key", 0o600), ("ca.pem", 0o644), ("r1.pem", 0o644)] {
        let found = dir.path().join(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found & !mode, 0, "{file}: {found:o}");
    }
    let key = std::fs::read(dir.path().join("ca.key")).unwrap();
    assert!(matches!(pki::create_ca(dir.path(), "again"), Err(FabricError::Exists(_))));
    assert!(matches!(pki::issue(dir.path(), "r1", &[]), Err(FabricError::Exists(_))));
    assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), key);
    assert_eq!(pki::node_name(dir.path().join("r1.pem")).unwrap(), "r1");
}

#[test]
fn names_that_are_no_host_names_get_no_certificate() {
    let dir = authority(&[]);
    for name in ["", "ca", "R1", "a b", "-a", "a-", "a/b", "..", "ü", "*", &"x".repeat(64)] {
        assert!(matches!(pki::issue(dir.path(), name, &[]), Err(FabricError::NodeName(_))), "{name:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let error = pki::issue(empty.path(), "r1", &[]).unwrap_err().to_string();
    assert!(error.contains("ca.pem"), "{error}");
}
