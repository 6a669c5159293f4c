//! No allocation, lock or system call per packet on a poll core (I7), with traffic through every stage.
//!
//! One core is router, target and sender: segments from the application are sealed, go out by a looped `net_ring`, come
//! back in as ESP to the other VIP, are peeked at, proved or forwarded, opened and delivered. The application port
//! replays a capture from memory without end (`net_pcap` with `infinite_rx`), as `net_null` only makes zeros.
//!
//! Watched on the core's thread, from the moment the watch is set: every call of C's allocator (Rust's goes through it
//! too), whoever calls it, DPDK's libraries included; and every system call, which a seccomp filter reports to a
//! supervisor. A lock that has to wait is a system call (futex).

mod common;

use std::cell::Cell;
use std::ffi::c_void;
use std::io::Write;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{Control, End, framed, params, protect, segment};
use phalanx_dataplane::command::VipEntry;
use phalanx_dataplane::config::{CoreConfig, EalConfig, HugePages, Idle, Limits, PortConfig, PortRole};
use phalanx_dataplane::{Command, CoreStats, Dataplane, DataplaneConfig, Stage};
use phalanx_ipsec::{Direction, FilterTable, InboundSa, OutboundSa};
use phalanx_wire::{CoreId, DropReason, Epoch, Mac, TcpFlags, VipId};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static SYSTEM_CALLS: AtomicU64 = AtomicU64::new(0);
static FIRST_SYSTEM_CALL: AtomicI32 = AtomicI32::new(-1);
static LISTENER: AtomicI32 = AtomicI32::new(-1);
static ARMED: AtomicI32 = AtomicI32::new(0);

fn note_allocator_call() {
    if WATCHED.get() {
        ALLOCATIONS.fetch_add(1, SeqCst);
    }
}

/// C's allocator, for the whole process: the same as before, but counted on a watched thread.
mod allocator {
    use super::{c_void, note_allocator_call};

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
        fn __libc_free(old: *mut c_void);
    }

    #[unsafe(no_mangle)]
    extern "C" fn malloc(size: usize) -> *mut c_void {
        note_allocator_call();
        // SAFETY: the function of the same contract that this one stands for.
        unsafe { __libc_malloc(size) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
        note_allocator_call();
        // SAFETY: as in `malloc`.
        unsafe { __libc_calloc(count, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
        note_allocator_call();
        // SAFETY: as in `malloc`; `old` is what the caller vouches for.
        unsafe { __libc_realloc(old, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(old: *mut c_void) {
        note_allocator_call();
        // SAFETY: as in `malloc`; `old` is what the caller vouches for.
        unsafe { __libc_free(old) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
        note_allocator_call();
        // SAFETY: as in `malloc`.
        unsafe { __libc_memalign(align, size) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
        memalign(align, size)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> i32 {
        let memory = memalign(align, size);
        if memory.is_null() {
            return libc::ENOMEM;
        }
        // SAFETY: the caller gives a place for the result.
        unsafe { *out = memory };
        0
    }
}

/// On the core's thread: from here on its system calls are reported, and its allocations counted.
fn watch() {
    // SECCOMP_RET_USER_NOTIF for every call.
    let mut everything = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0x7fc0_0000 };
    let program = libc::sock_fprog { len: 1, filter: &mut everything };
    WATCHED.set(true);
    // SAFETY: a filter program of one instruction, which the call copies.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    LISTENER.store(listener as i32, SeqCst);
}

fn misbehave() {
    drop(std::hint::black_box(Box::new(1u64)));
    // SAFETY: has no arguments and no effect.
    unsafe { libc::getppid() };
}

fn stop_watching() {
    WATCHED.set(false);
}

/// Lets every reported system call go on, and counts those made while armed.
fn supervise() {
    let listener = loop {
        match LISTENER.load(SeqCst) {
            -1 => std::thread::sleep(Duration::from_millis(1)),
            listener => break listener,
        }
    };
    loop {
        // SAFETY: plain structures of numbers; zero is what the kernel asks for.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let mut poll = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor; the notification is written into our structure.
        let received = unsafe {
            libc::poll(&mut poll, 1, -1) == 1
                && poll.revents & libc::POLLIN != 0
                && libc::ioctl(listener, 0xc050_2100, &raw mut call) == 0 // SECCOMP_IOCTL_NOTIF_RECV
        };
        if !received {
            return; // the thread is gone
        }
        if ARMED.load(SeqCst) == 1 {
            SYSTEM_CALLS.fetch_add(1, SeqCst);
            let _ = FIRST_SYSTEM_CALL.compare_exchange(-1, call.data.nr, SeqCst, SeqCst);
        }
        let go_on = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: go_on };
        // SAFETY: the answer to the call just received.
        unsafe { libc::ioctl(listener, 0xc018_2101, &raw mut answer) }; // SECCOMP_IOCTL_NOTIF_SEND
    }
}

const A: &str = "10.77.0.100";
const B: &str = "10.77.0.101";
const SENDER: End =
    End { id: 1, vip: VipId(1), spi: 0xc0de, key: 7, window: 4096, outer: ["10.77.0.50", B], inner: [A, B] };
const RECEIVER: End =
    End { id: 2, vip: VipId(2), spi: 0xc0de, key: 7, window: 4096, outer: [B, "10.77.0.50"], inner: [B, A] };

/// What the application sends: eight connections, each a SYN and segments of several sizes.
fn capture() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".pcap").unwrap();
    let word = |file: &mut tempfile::NamedTempFile, n: u32| file.write_all(&n.to_le_bytes()).unwrap();
    for n in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1] {
        word(&mut file, n);
    }
    for port in 4000..4008 {
        for (flags, payload) in [(TcpFlags::SYN, 0), (TcpFlags::ACK, 0), (TcpFlags::ACK, 200), (TcpFlags::ACK, 1300)] {
            let packet = segment((A, port), (B, 80), flags, payload);
            let frame = framed(&packet, Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            for n in [0, 0, frame.len() as u32, frame.len() as u32] {
                word(&mut file, n);
            }
            file.write_all(&frame).unwrap();
        }
    }
    file
}

fn config(capture: &str) -> DataplaneConfig {
    let port = |name: &str, device: String, role, addresses: &[&str]| PortConfig {
        name: name.into(),
        device,
        role,
        mtu: 1500,
        addresses: addresses.iter().map(|address| (common::addr(address), 24)).collect(),
        gateways: vec![],
        host_mac: None,
    };
    let application = format!("net_pcap0,rx_pcap={capture},infinite_rx=1");
    DataplaneConfig {
        eal: EalConfig { huge: HugePages::Off, ..EalConfig::default() },
        ports: vec![
            port("network", "net_ring0".into(), PortRole::Network, &["10.77.0.1"]),
            port("application", application, PortRole::Application, &[]),
        ],
        cores: vec![CoreConfig {
            id: CoreId(0),
            cpu: None,
            router: true,
            target: true,
            ports: vec![0, 1],
            idle: Idle::Spin,
        }],
        limits: Limits { packets: 8191, connections: 1024, tracked: 1024, ..Limits::default() },
    }
}

fn set_up(control: &mut Control) {
    for (id, address) in [(1, A), (2, B)] {
        control.order(Command::SetVip(Box::new(VipEntry {
            id: VipId(id),
            address: common::addr(address),
            epoch: Epoch(1),
            router_core: Some(CoreId(0)),
            served: true,
            filter_at_router: false,
        })));
    }
    control.order(Command::SetTargets(VipId(2), common::all_ports_to(CoreId(0))));
    control.order(Command::Settled(VipId(2)));
    control.order(Command::AddInbound(Box::new(InboundSa::new(params(Direction::Inbound, &RECEIVER)).unwrap())));
    control.order(Command::AddOutbound(Box::new(OutboundSa::new(params(Direction::Outbound, &SENDER)).unwrap())));
    let filters = FilterTable::new(vec![protect(&SENDER), protect(&RECEIVER)]);
    control.order(Command::SetFilters(Box::new(filters)));
}

fn stages(stats: &CoreStats) -> Vec<(Stage, u64)> {
    Stage::ALL.iter().map(|&stage| (stage, stats.stage(stage))).collect()
}

#[test]
fn a_poll_core_neither_allocates_nor_waits_nor_calls_the_system() {
    let capture = capture();
    let dataplane = Dataplane::start(&config(capture.path().to_str().unwrap())).expect("starts");
    let stats = dataplane.stats(CoreId(0)).unwrap();
    let mut control = Control::new(dataplane.commands(CoreId(0)).unwrap(), dataplane.events(), 1 << 16);
    set_up(&mut control);
    control.serve_for(Duration::from_millis(500));

    let supervisor = std::thread::spawn(supervise);
    control.order(Command::Call(watch));
    assert!(LISTENER.load(SeqCst) >= 0, "seccomp needs root: {}", std::io::Error::last_os_error());
    let before = stages(&stats);
    ARMED.store(1, SeqCst);
    control.serve_for(Duration::from_secs(1));
    // New targets amid the traffic: what they replace is given back, not freed.
    control.order(Command::SetTargets(VipId(2), common::all_ports_to(CoreId(0))));
    control.serve_for(Duration::from_secs(1));
    ARMED.store(0, SeqCst);
    let (allocations, calls) = (ALLOCATIONS.load(SeqCst), SYSTEM_CALLS.load(SeqCst));
    let after = stages(&stats);

    // The watch sees what it should: one allocation and its end, one system call.
    ARMED.store(1, SeqCst);
    control.order(Command::Call(misbehave));
    ARMED.store(0, SeqCst);
    let seen = (ALLOCATIONS.load(SeqCst) - allocations, SYSTEM_CALLS.load(SeqCst) - calls);
    control.order(Command::Call(stop_watching));

    let passed = |stage| after[stage as usize].1 - before[stage as usize].1;
    for stage in [Stage::Sealed, Stage::Opened, Stage::Peeked, Stage::Forwarded, Stage::SynOpened, Stage::Delivered] {
        assert!(passed(stage) > 1000, "{stage:?}: only {} packets, {after:?}, {:?}", passed(stage), drops(&stats));
    }
    assert!(passed(Stage::Leases) > 0, "no lease was taken in while watched");
    println!("{} packets sealed, {} delivered in 2 s", passed(Stage::Sealed), passed(Stage::Delivered));
    assert_eq!(allocations, 0, "calls of the allocator");
    assert_eq!(calls, 0, "system calls; the first was number {}", FIRST_SYSTEM_CALL.load(SeqCst));

    assert_eq!(seen, (2, 1), "the watch is blind");
    dataplane.stop();
    supervisor.join().unwrap();
}

fn drops(stats: &CoreStats) -> Vec<(DropReason, u64)> {
    DropReason::ALL.iter().map(|&reason| (reason, stats.drops(reason))).filter(|(_, count)| *count > 0).collect()
}
