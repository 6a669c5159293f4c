//! Two ends of a memif: whichever starts first, ends or is killed, under whatever traffic, they find each other again.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use dpdk_ffi::{Burst, Eal, EalConfig, HugePages, Mempool, MempoolConfig, Port, PortConfig, Queues};

/// More than the 1,500 bytes that the driver states.
const MTU: u16 = 1600;
const KILLS: u64 = 20;
/// Says to a process of this test which device it is to have.
const DEVICE: &str = "PHALANX_TEST_MEMIF";

fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| Eal::init(&EalConfig { huge: HugePages::Off, ..EalConfig::default() }).expect("DPDK starts"))
}

fn pool(name: &str) -> Mempool {
    Mempool::new(eal(), &MempoolConfig { name: name.into(), count: 8191, ..MempoolConfig::default() }).expect("a pool")
}

fn device(n: u8, role: &str, name: &str) -> String {
    let file = std::env::temp_dir().join(format!("phalanx-memif-{name}-{}", std::process::id()));
    format!("net_memif{n},role={role},socket={}", file.display())
}

fn open(pool: &Mempool, device: &str) -> (Port, Queues) {
    let mut port = Port::open(eal(), device).expect("opens");
    port.configure(&PortConfig { mtu: Some(MTU), ..PortConfig::default() }, pool).expect("configured");
    let queues = port.start().expect("starts");
    (port, queues)
}

fn wait_until(what: &str, mut it: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !it() {
        assert!(Instant::now() < until, "not in 20 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A frame of the largest size goes from one end to the other.
fn crosses(pool: &Mempool, from: &mut Queues, to: &mut Queues) {
    let mut burst = Burst::<32>::new();
    let mut frame = pool.alloc().expect("there are some");
    frame.append(usize::from(MTU) + 14).expect("fits").fill(7);
    assert!(burst.push(frame).is_ok());
    let mut received = Burst::<32>::new();
    wait_until("it arrives", || {
        // A server may send what the client has made room for, which it does when it polls.
        from.tx[0].tx_burst(&mut burst);
        to.rx[0].rx_burst(&mut received);
        !received.is_empty()
    });
    assert_eq!(received.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [usize::from(MTU) + 14]);
}

#[test]
fn a_client_waits_for_its_server_and_finds_it_again() {
    let pool = pool("restarts");
    let (mut client, mut client_queues) = open(&pool, &device(1, "client", "restarts"));
    assert!(client.stop().is_err(), "its queues exist");
    let mut lost = Burst::<32>::new();
    assert!(lost.push(pool.alloc().expect("there are some")).is_ok());
    assert_eq!((client_queues.tx[0].tx_burst(&mut lost), client_queues.tx[0].link_is_up()), (0, false));
    drop(lost);
    for _ in 0..2 {
        let (server, mut server_queues) = open(&pool, &device(0, "server", "restarts"));
        crosses(&pool, &mut client_queues, &mut server_queues);
        crosses(&pool, &mut server_queues, &mut client_queues);
        assert!(client_queues.tx[0].link_is_up());
        drop((server_queues, server));
        wait_until("the end of the server is seen", || !client.link().up);
    }
    drop(client_queues);
    client.stop().expect("stops");
    let mut client_queues = client.start().expect("starts again");
    let (server, mut server_queues) = open(&pool, &device(0, "server", "restarts"));
    crosses(&pool, &mut client_queues, &mut server_queues);
    drop((client_queues, client));
    wait_until("the end of the client is seen", || !server.link().up);
    drop((server_queues, server));
    assert_eq!(pool.in_use(), 0);
}

/// Sends and receives as fast as it can.
struct Traffic {
    queues: Queues,
    pool: Mempool,
    burst: Burst<32>,
}

impl Traffic {
    /// How many were received and sent.
    fn turn(&mut self) -> (u64, u64) {
        let mut received = Burst::<32>::new();
        self.queues.rx[0].rx_burst(&mut received);
        while !self.burst.is_full() {
            let Some(mut frame) = self.pool.alloc() else { break };
            frame.append(usize::from(MTU)).expect("fits").fill(1);
            let _ = self.burst.push(frame);
        }
        let sent = self.queues.tx[0].tx_burst(&mut self.burst);
        (received.len() as u64, sent as u64)
    }
}

/// In a process of its own: floods the link until it is killed.
#[test]
fn the_other_end() {
    let Ok(device) = std::env::var(DEVICE) else { return };
    let (pool, parent) = (pool("other"), std::os::unix::process::parent_id());
    let (_port, queues) = open(&pool, &device);
    let mut traffic = Traffic { queues, pool, burst: Burst::new() };
    while std::os::unix::process::parent_id() == parent {
        for _ in 0..1000 {
            traffic.turn();
        }
    }
}

/// Ends the traffic, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn spawn_other_end(device: &str) -> Child {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(["--exact", "the_other_end"]).env(DEVICE, device);
    // DPDK's descriptors are inherited, and with them the other test's ends of sockets.
    // SAFETY: plain numbers; descriptors are closed when the program changes, which nobody uses any more.
    let close = || match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe { program.pre_exec(close) };
    program.spawn().expect("runs")
}

fn killed_again_and_again(name: &str, ours: &str, theirs: &str) {
    let (pool, end) = (pool(name), AtomicBool::new(false));
    let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    let (port, queues) = open(&pool, ours);
    let guard = Ends(&end);
    std::thread::scope(|threads| {
        let _guard = guard;
        threads.spawn(|| {
            let mut traffic = Traffic { queues, pool: pool.clone(), burst: Burst::new() };
            while !end.load(Ordering::Relaxed) {
                let (in_, out) = traffic.turn();
                received.fetch_add(in_, Ordering::Relaxed);
                sent.fetch_add(out, Ordering::Relaxed);
            }
        });
        for _ in 0..KILLS {
            let mut other = spawn_other_end(theirs);
            let before = [&received, &sent].map(|n| n.load(Ordering::Relaxed));
            wait_until("there is traffic", || {
                [&received, &sent].iter().zip(before).all(|(n, before)| n.load(Ordering::Relaxed) > before + 10_000)
            });
            // A moment that nobody chose.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            std::thread::sleep(Duration::from_micros(u64::from(now.subsec_nanos() % 20_000)));
            other.kill().expect("killed");
            other.wait().expect("ended");
            wait_until("its end is seen", || !port.link().up);
        }
    });
    println!("{name}: received {received:?}, sent {sent:?}");
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_server_survives_that_its_client_is_killed_under_full_traffic() {
    let ends = ["server", "client"].map(|role| device(2, role, "client-killed"));
    killed_again_and_again("client-killed", &ends[0], &ends[1]);
}

#[test]
fn a_client_survives_that_its_server_is_killed_under_full_traffic() {
    let ends = ["client", "server"].map(|role| device(3, role, "server-killed"));
    killed_again_and_again("server-killed", &ends[0], &ends[1]);
}
