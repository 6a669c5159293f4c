//! Ports on interfaces of a real kernel: AF_PACKET on a veth pair and TAP, in a network namespace.

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::OnceLock;

use common::{Lab, is_root, lab, poll};
use dpdk_ffi::{Burst, DpdkError, Mbuf, Mempool, Port, PortConfig, Queues};

static NAMESPACE: OnceLock<File> = OnceLock::new();

/// The lab with this thread in a fresh network namespace that the whole file shares.
/// `None`, with a word about it, for those who may not make one.
fn host() -> Option<Lab> {
    if !is_root() {
        eprintln!("SKIPPED: needs root for a network namespace");
        return None;
    }
    let namespace = NAMESPACE.get_or_init(|| {
        // SAFETY: affects this thread's network namespace only.
        assert_eq!(
            unsafe { libc::unshare(libc::CLONE_NEWNET) },
            0,
            "a network namespace can be made"
        );
        File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
    });
    // SAFETY: a descriptor of a network namespace; affects this thread only.
    assert_eq!(
        unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) },
        0
    );
    Some(lab())
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("package iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn veth(a: &str, b: &str, mtu: u16) {
    ip(&format!(
        "link add {a} mtu {mtu} type veth peer name {b} mtu {mtu}"
    ));
    for end in [a, b] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1")
            .expect("IPv6 can be turned off");
        ip(&format!("link set {end} up"));
    }
}

fn started(lab: &Lab, device: &str, config: &PortConfig, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::open(&lab.eal, device).unwrap_or_else(|error| panic!("{error}"));
    port.configure(config, pool)
        .unwrap_or_else(|error| panic!("{error}"));
    let queues = port.start().unwrap_or_else(|error| panic!("{error}"));
    (port, queues)
}

fn frame(pool: &Mempool, len: usize) -> Mbuf {
    let mut bytes = vec![0x5a; len];
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb6]);
    pool.alloc_with(&bytes)
        .expect("the pool has packets and they are large enough")
}

#[test]
fn af_packet_carries_frames_of_a_link_with_mtu_1600() {
    let Some(lab) = host() else { return };
    veth("ap0", "ap1", 1600);
    let pool = lab.pool(2047);
    let config = PortConfig {
        mtu: Some(1600),
        ..PortConfig::default()
    };
    let (a, mut aq) = started(
        &lab,
        "net_af_packet0,iface=ap0,qdisc_bypass=1",
        &config,
        &pool,
    );
    let (b, mut bq) = started(
        &lab,
        "net_af_packet1,iface=ap1,qdisc_bypass=1",
        &config,
        &pool,
    );
    eprintln!(
        "mtu {} {} link {:?} {:?}",
        a.mtu(),
        b.mtu(),
        a.link(),
        a.interface()
    );
    let mut burst = Burst::<32>::new();
    for len in [60, 1514, 1614] {
        burst.push(frame(&pool, len)).unwrap();
    }
    assert_eq!(aq.tx[0].tx_burst(&mut burst), 3);
    let mut got = Burst::<32>::new();
    assert!(
        poll(&mut bq.rx[0], &mut got, |burst| burst.len() >= 3),
        "{:?} {:?}",
        a.stats(),
        b.stats()
    );
    assert_eq!(
        got.iter().map(Mbuf::len).collect::<Vec<_>>(),
        [60, 1514, 1614]
    );
}

#[test]
fn tap_behaviour() {
    let Some(lab) = host() else { return };
    let pool = lab.pool(2047);
    let config = PortConfig {
        mtu: Some(1400),
        ..PortConfig::default()
    };
    let (a, mut q) = started(
        &lab,
        "net_tap0,iface=phx0,mac=02:00:00:00:00:07",
        &config,
        &pool,
    );
    eprintln!(
        "mtu {} link {:?} {:?} mac {:x?} {}",
        a.mtu(),
        a.link(),
        a.interface(),
        a.mac(),
        a.driver()
    );
    eprintln!("{}", ip("-d link show phx0"));
    ip("addr add 10.1.2.1/24 dev phx0");
    let _ = Command::new("ping")
        .args(["-c1", "-W1", "10.1.2.2"])
        .output();
    let mut got = Burst::<32>::new();
    assert!(
        poll(&mut q.rx[0], &mut got, |burst| burst.len() >= 1),
        "{:?}",
        a.stats()
    );
    for p in &got {
        eprintln!("{:02x?}", p.data());
    }
    drop((a, q));
    let o = Command::new("ip")
        .args(["link", "show", "phx0"])
        .output()
        .unwrap();
    assert!(!o.status.success());
}

#[test]
fn a_missing_interface_is_named() {
    let Some(lab) = host() else { return };
    let error = Port::open(&lab.eal, "net_af_packet7,iface=nothere").unwrap_err();
    assert!(
        matches!(&error, DpdkError::NoInterface { interface, .. } if interface == "nothere"),
        "{error}"
    );
}
