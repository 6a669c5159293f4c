//! Ports on interfaces of a real kernel: AF_PACKET on a veth pair and TAP, in a network namespace.

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::OnceLock;

use common::{Lab, is_root, lab, poll};
use dpdk_ffi::{Burst, DpdkError, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Queues};

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
        let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(code, 0, "a network namespace can be made");
        File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
    });
    // SAFETY: a descriptor of a network namespace; affects this thread only.
    let code = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(code, 0, "a thread may enter it");
    Some(lab())
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("package iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn veth(a: &str, b: &str, mtu: u16) {
    ip(&format!("link add {a} mtu {mtu} type veth peer name {b} mtu {mtu}"));
    for end in [a, b] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").expect("IPv6 can be turned off");
        ip(&format!("link set {end} up"));
    }
}

fn started(lab: &Lab, device: &str, config: &PortConfig, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::open(&lab.eal, device).unwrap_or_else(|error| panic!("{error}"));
    port.configure(config, pool).unwrap_or_else(|error| panic!("{error}"));
    let queues = port.start().unwrap_or_else(|error| panic!("{error}"));
    (port, queues)
}

fn frame(pool: &Mempool, len: usize) -> Mbuf {
    let mut bytes = vec![0x5a; len];
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb6]);
    pool.alloc_with(&bytes).expect("the pool has packets and they are large enough")
}

#[test]
fn af_packet_carries_frames_of_a_link_with_mtu_1600() {
    let Some(lab) = host() else { return };
    veth("ap0", "ap1", 1500);
    let pool = lab.pool(2047);
    let config = PortConfig { mtu: Some(1600), all_multicast: true, ..PortConfig::default() };
    let (a, mut aq) = started(&lab, "net_af_packet0,iface=ap0,qdisc_bypass=1", &config, &pool);
    let (b, mut bq) = started(&lab, "net_af_packet1,iface=ap1,qdisc_bypass=1", &config, &pool);
    assert_eq!((a.mtu(), b.mtu()), (1600, 1600));
    assert_eq!(a.interface().as_deref(), Some("ap0"));
    assert_eq!(mac_of("ap0"), a.mac());
    assert!(a.link().up);

    let mut burst = Burst::<32>::new();
    for len in [60, 1514, 1614] {
        burst.push(frame(&pool, len)).unwrap();
    }
    assert_eq!(aq.tx[0].tx_burst(&mut burst), 3);
    let mut got = Burst::<32>::new();
    assert!(poll(&mut bq.rx[0], &mut got, |burst| burst.len() >= 3));
    assert_eq!(got.iter().map(Mbuf::len).collect::<Vec<_>>(), [60, 1514, 1614]);
    assert_eq!(b.stats().unwrap().rx_packets, 3);
    got.clear();
    assert_eq!(pool.in_use(), 0, "this driver copies, so it holds no packet");
}

#[test]
fn af_packet_goes_on_after_a_frame_larger_than_the_mtu() {
    let Some(lab) = host() else { return };
    veth("big0", "big1", 1500);
    let pool = lab.pool(2047);
    let config = PortConfig { mtu: Some(1500), ..PortConfig::default() };
    let (_a, mut aq) = started(&lab, "net_af_packet2,iface=big0,qdisc_bypass=1", &config, &pool);
    let (_b, mut bq) = started(&lab, "net_af_packet3,iface=big1,qdisc_bypass=1", &config, &pool);
    let mut burst = Burst::<32>::new();
    for len in [60, 1900, 61, 2040, 62] {
        burst.push(frame(&pool, len)).unwrap();
    }
    assert_eq!(aq.tx[0].tx_burst(&mut burst), 5, "those too large are lost, not stuck");
    let mut got = Burst::<32>::new();
    assert!(poll(&mut bq.rx[0], &mut got, |burst| burst.len() >= 3));
    assert_eq!(got.iter().map(Mbuf::len).collect::<Vec<_>>(), [60, 61, 62]);
}

#[test]
fn af_packet_counts_what_nobody_fetched() {
    let Some(lab) = host() else { return };
    veth("drop0", "drop1", 1500);
    let pool = lab.pool(2047);
    let config = PortConfig::default();
    let (_a, mut aq) = started(&lab, "net_af_packet4,iface=drop0,qdisc_bypass=1", &config, &pool);
    let (b, bq) = started(&lab, "net_af_packet5,iface=drop1,framecnt=64", &config, &pool);
    for _ in 0..10 {
        let mut burst = Burst::<32>::new();
        for _ in 0..32 {
            burst.push(frame(&pool, 60)).unwrap();
        }
        aq.tx[0].tx_burst(&mut burst);
    }
    let missed = b.stats().unwrap().rx_missed;
    assert!((200..=256).contains(&missed), "320 sent into 64 slots, {missed} missed");
    assert_eq!(b.stats().unwrap().rx_missed, missed, "asking does not forget");
    drop(bq);
}

#[test]
fn af_packet_refuses_an_mtu_that_its_slots_would_cut() {
    let Some(lab) = host() else { return };
    veth("cut0", "cut1", 1500);
    let pool = lab.pool_with(MempoolConfig { count: 255, data_room: 16384, ..MempoolConfig::default() });
    let mut port = Port::open(&lab.eal, "net_af_packet6,iface=cut0").unwrap();
    let config = PortConfig { mtu: Some(3000), ..PortConfig::default() };
    let error = port.configure(&config, &pool).unwrap_err();
    assert!(matches!(error, DpdkError::MtuTooLarge { most: 1964, .. }), "{error}");
    assert!(error.to_string().contains("framesz="), "{error}");
    drop(port);

    let mut port = Port::open(&lab.eal, "net_af_packet6,iface=cut0,framesz=4096,blocksz=4096").unwrap();
    port.configure(&config, &pool).unwrap();
    assert_eq!(port.mtu(), 3000);
}

#[test]
fn af_packet_frames_up_to_the_limit_arrive_whole() {
    let Some(lab) = host() else { return };
    veth("lim0", "lim1", 1500);
    let pool = lab.pool(2047);
    let config = PortConfig { mtu: Some(1964), ..PortConfig::default() };
    let (_a, mut aq) = started(&lab, "net_af_packet8,iface=lim0,qdisc_bypass=1", &config, &pool);
    let (_b, mut bq) = started(&lab, "net_af_packet9,iface=lim1,qdisc_bypass=1", &config, &pool);
    let mut burst = Burst::<32>::new();
    burst.push(frame(&pool, 1964 + 14)).unwrap();
    assert_eq!(aq.tx[0].tx_burst(&mut burst), 1);
    let mut got = Burst::<32>::new();
    assert!(poll(&mut bq.rx[0], &mut got, |burst| !burst.is_empty()));
    assert_eq!(got.pop().unwrap().len(), 1978);
}

#[test]
fn af_packet_cannot_be_started_again_and_says_so() {
    let Some(lab) = host() else { return };
    veth("again0", "again1", 1500);
    let pool = lab.pool(1023);
    let device = "net_af_packet10,iface=again0";
    let (mut port, queues) = started(&lab, device, &PortConfig::default(), &pool);
    drop(queues);
    port.stop().unwrap();
    assert!(matches!(port.start(), Err(DpdkError::WrongState { .. })));
    drop(port);
    started(&lab, device, &PortConfig::default(), &pool);
}

#[test]
fn a_tap_port_is_a_network_interface_of_the_host() {
    let Some(lab) = host() else { return };
    let pool = lab.pool(2047);
    let config = PortConfig { mtu: Some(1400), ..PortConfig::default() };
    let device = "net_tap0,iface=phx0,mac=02:00:00:00:00:07";
    let (port, mut queues) = started(&lab, device, &config, &pool);
    assert_eq!((port.interface().as_deref(), port.mtu()), (Some("phx0"), 1400));
    assert_eq!(port.mac(), [2, 0, 0, 0, 0, 7]);
    assert_eq!(mac_of("phx0"), port.mac(), "host and port have one address");
    assert!(ip("link show phx0").contains("mtu 1400"));
    assert!(port.link().up);

    // The host answers an ARP request.
    ip("addr add 10.1.2.1/24 dev phx0");
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([2, 0, 0, 0, 0, 9, 10, 1, 2, 2, 0, 0, 0, 0, 0, 0, 10, 1, 2, 1]);
    let mut burst = Burst::<32>::new();
    burst.push(pool.alloc_with(&arp).unwrap()).unwrap();
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 1);
    let is_answer = |packet: &Mbuf| packet.data().starts_with(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7, 8, 6]);
    let mut got = Burst::<32>::new();
    assert!(poll(&mut queues.rx[0], &mut got, |burst| burst.iter().any(is_answer)));

    drop((port, queues));
    let shown = Command::new("ip").args(["link", "show", "phx0"]).output().unwrap();
    assert!(!shown.status.success(), "the interface goes with the port");
    got.clear();
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn taps_signals_do_not_interrupt_a_poll_thread() {
    let Some(lab) = host() else { return };
    let pool = lab.pool(2047);
    let (_port, mut queues) = started(&lab, "net_tap1,iface=phx1", &PortConfig::default(), &pool);
    ip("addr add 10.1.3.1/24 brd 10.1.3.255 dev phx1");
    let _registration = lab.eal.register_thread().unwrap();
    // Twenty datagrams to a neighbour that needs no resolution.
    let socket = std::net::UdpSocket::bind("10.1.3.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    for _ in 0..20 {
        socket.send_to(b"x", "10.1.3.255:9").unwrap();
    }
    let mut got = Burst::<64>::new();
    assert!(poll(&mut queues.rx[0], &mut got, |burst| burst.len() >= 20));
    let blocked = status_line("/proc/thread-self/status", "SigBlk:");
    // All real-time signals, numbers 34 to 64, are bits 33 to 63.
    assert_eq!(blocked >> 33, u64::MAX >> 33, "{blocked:x}");
    let ignored = status_line("/proc/self/status", "SigIgn:");
    assert_ne!(ignored & 1 << (libc::SIGIO - 1), 0, "an overflow of TAP's signals does not end the process");
}

#[test]
fn a_tap_that_is_down_keeps_the_packets_and_a_fitting_one_is_not_blocked_forever() {
    let Some(lab) = host() else { return };
    let pool = lab.pool(2047);
    let config = PortConfig { mtu: Some(1400), ..PortConfig::default() };
    let (_port, mut queues) = started(&lab, "net_tap2,iface=phx2", &config, &pool);
    let mut burst = Burst::<4>::new();
    burst.push(frame(&pool, 1600)).unwrap();
    burst.push(frame(&pool, 60)).unwrap();
    // What is too large for the MTU stays in front: who sends must not try it for ever.
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 0);
    assert_eq!(burst.len(), 2);
    drop(burst.swap_remove(0));
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 1);

    ip("link set phx2 down");
    burst.push(frame(&pool, 60)).unwrap();
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 0);
    assert_eq!(burst.len(), 1);
}

#[test]
fn a_missing_interface_is_named() {
    let Some(lab) = host() else { return };
    let error = Port::open(&lab.eal, "net_af_packet7,iface=nothere").unwrap_err();
    assert!(matches!(&error, DpdkError::NoInterface { interface, .. } if interface == "nothere"));
    let text = error.to_string();
    assert!(text.contains("net_af_packet7,iface=nothere") && text.contains("ip link"), "{text}");
}

#[test]
fn a_tap_that_would_not_be_what_was_asked_for_is_refused() {
    let Some(lab) = host() else { return };
    veth("taken0", "taken1", 1500);
    let refused = |device: &str| Port::open(&lab.eal, device).unwrap_err();
    assert!(matches!(refused("net_tap5,iface=taken0"), DpdkError::InterfaceTaken { .. }));
    assert!(matches!(refused("net_tap5,iface=much_too_long_name"), DpdkError::BadName { .. }));
    assert!(matches!(refused("net_tap5,ifaec=phx5"), DpdkError::BadName { .. }));
    assert!(matches!(refused("net_af_packet5,framesz=4096"), DpdkError::BadName { .. }));
    let mut port = Port::open(&lab.eal, "net_tap5,iface=phx5").unwrap();
    let config = PortConfig { mtu: Some(1600), ..PortConfig::default() };
    let error = port.configure(&config, &lab.pool(1023)).unwrap_err();
    assert!(matches!(error, DpdkError::MtuTooLarge { most: 1504, .. }), "{error}");
}

fn mac_of(interface: &str) -> [u8; 6] {
    let text = ip(&format!("-o link show {interface}"));
    let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an Ethernet address");
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().expect("six bytes")
}

fn status_line(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap()
}
