//! A lease request and its answer between two nodes: the numbers that a core waits for (ARCHITECTURE, "Outbound sequence numbers").

mod common;
#[path = "common/net.rs"]
mod net;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use net::{Router, Target, authority};
use phalanx_cluster::messages::{Hello, LeaseBlock, LeaseReply, LeaseRequest, ToRouter, ToTarget};
use phalanx_fabric::{ClientEvent, ServerEvent, ServerHandle};
use phalanx_ipsec::SaParams;
use phalanx_wire::{CoreId, Epoch, SaId};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const ROUNDS: u64 = 5_000;

fn request(nonce: u64) -> LeaseRequest {
    LeaseRequest {
        sa: SaId(0x0123_4567_89ab_cdef),
        core: CoreId(3),
        nonce,
        incarnation: u64::MAX / 3,
        router_incarnation: u64::MAX / 5,
        epoch: Epoch(1),
        want: 16,
        done_below: nonce * 16,
        rate_pps: 100_000,
        latency_us: 150,
    }
}

fn reply(r: &LeaseRequest) -> LeaseReply {
    LeaseReply {
        sa: r.sa,
        core: r.core,
        nonce: r.nonce,
        incarnation: r.incarnation,
        router_incarnation: r.router_incarnation,
        epoch: r.epoch,
        result: Ok(LeaseBlock { first: r.done_below, len: r.want, valid_for_us: 5_000, waited_us: 0 }),
    }
}

/// A router whose brain answers each lease request, with threads of its own as another process would have.
fn router(dir: &Path) -> (ServerHandle, SocketAddr) {
    let (tell, told) = std::sync::mpsc::channel();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let Router { handle, mut events, address } = Router::start(&dir).await;
            tell.send((handle.clone(), address)).unwrap();
            while let Some(event) = events.recv().await {
                match event {
                    ServerEvent::Message(node, ToRouter::LeaseRequest(r)) => {
                        handle.send(&node, ToTarget::LeaseReply(reply(&r)));
                    }
                    ServerEvent::Message(node, ToRouter::Hello(_)) => handle.send(&node, welcome()),
                    _ => {}
                }
            }
        });
    });
    told.recv().unwrap()
}

fn welcome() -> ToTarget {
    ToTarget::Welcome { version: 1, node: "r1".into(), incarnation: 1, epochs: vec![] }
}

/// That router, and a target that is attached to it.
async fn pair(dir: &Path) -> (ServerHandle, Target) {
    let (handle, address) = router(dir);
    let mut target = Target::start(dir, "t1", address).await;
    target.expect_connected().await;
    let hello = Hello { version: 1, node: "t1".into(), incarnation: 1, link_mtu: 1600, cores: vec![CoreId(0)] };
    target.handle.send(ToRouter::Hello(hello));
    assert!(matches!(target.event().await, ClientEvent::Message(_, ToTarget::Welcome { .. })));
    (handle, target)
}

/// Round trips in µs; what else arrives is ignored.
async fn measure(target: &mut Target, rounds: u64) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    for nonce in 0..rounds {
        let asked = Instant::now();
        target.handle.send(ToRouter::LeaseRequest(request(nonce)));
        loop {
            if let ClientEvent::Message(_, ToTarget::LeaseReply(answer)) = target.event().await {
                assert_eq!(answer, reply(&request(nonce)));
                break;
            }
        }
        histogram.record(asked.elapsed().as_micros() as u64).unwrap();
    }
    histogram
}

fn show(what: &str, h: &Histogram<u64>) {
    let at = |q| h.value_at_quantile(q);
    println!("{what}: median {} µs, 90 % {} µs, 99 % {} µs, most {} µs", at(0.5), at(0.9), at(0.99), h.max());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_travels_in_a_fraction_of_a_window() {
    let dir = authority(&["r1", "t1"]);
    let (_router, mut target) = pair(dir.path()).await;
    measure(&mut target, 200).await;
    let times = measure(&mut target, ROUNDS).await;
    show("lease round trip, idle", &times);
    // 300 µs is the aim, on a machine that does nothing else; this one may be full of other tests.
    assert!(times.value_at_quantile(0.5) < 3_000, "median {} µs", times.value_at_quantile(0.5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_go_on_while_a_thousand_sas_a_second_are_installed() {
    let dir = authority(&["r1", "t1"]);
    let (router, mut target) = pair(dir.path()).await;
    let sa: Arc<SaParams> = Arc::new(common::sa().new_tree(&mut TestRunner::deterministic()).unwrap().current());
    let installing = tokio::spawn(async move {
        for request in 0.. {
            router.send("t1", ToTarget::InstallSa { request, sa: sa.clone(), filters: vec![], waits: false });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let times = measure(&mut target, ROUNDS).await;
    installing.abort();
    show("lease round trip, while SAs are installed", &times);
    assert!(times.value_at_quantile(0.5) < 3_000, "median {} µs", times.value_at_quantile(0.5));
}
