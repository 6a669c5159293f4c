//! Set-ups over real sockets: the same initiators against our state machine and against strongSwan's charon, each in a network
//! namespace of its own. What counts is the CPU time of the responder, by the scheduler's account of its threads.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{geteuid, getpid, gettid};
use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::{Answer, Command, Config, Endpoint, Limits, Output, Path, PeerConfig, Remote};

use super::harness::{Report, Samples, Unit, measure, note};
use super::{Seeded, config};

const CHARON: &str = "/usr/lib/ipsec/charon";
/// Set-ups of a round, and how many are under way at a time.
const ROUND: usize = 64;
const AT_ONCE: usize = 8;
const LONG: Duration = Duration::from_secs(30);

/// Over UDP, where namespaces can be made.
pub fn run(report: &Report) {
    if !geteuid().is_root() {
        return note("set-ups over UDP need network namespaces, hence root: left out");
    }
    let net = Net::new();
    let ours = Ours::start(&net);
    let mut client = Client::new(&net);
    let mut charon = Charon::start(&net);
    let samples = measure(|| {
        let us = spent(|| ours.cpu(), || client.round(OURS, ROUND, AT_ONCE));
        let swan = charon.as_ref().map(|charon| spent(|| charon.cpu(), || client.round(SWAN, ROUND, AT_ONCE)));
        [us, swan.unwrap_or(f64::NAN)].map(|ns| ns / ROUND as f64)
    });
    if let Some(charon) = charon.take() {
        let name = "set-up as responder over UDP: CPU, with child";
        report.row(name, Unit::PerSecond("set-ups"), &samples[0], "strongSwan's charon", &samples[1]);
        let [us, swan] = [&samples[0], &samples[1]].map(|samples| samples.best() / 1e3);
        note(&format!("one set-up over UDP takes {us:.1} us of our CPU, {swan:.1} of charon's"));
        let peer = each(500, || client.round(SWAN, 500, 1));
        drop(charon);
        let mine = each(20_000, || (0..40).for_each(|_| client.round(OURS, 500, 1)));
        report.row("20,000 set-ups one after another", Unit::PerSecond("set-ups"), &mine, "charon, 500", &peer);
    } else {
        note("strongSwan is not here and is left out as a peer; scripts/setup has it");
        (0..40).for_each(|_| client.round(OURS, 500, 1));
    }
    client.round(OURS, 1000, 1000);
    note("20,500 set-ups one after another and 1,000 at a time: none failed");
}

/// CPU nanoseconds that something costs somebody.
fn spent(cpu: impl Fn() -> f64, work: impl FnOnce()) -> f64 {
    let before = cpu();
    work();
    cpu() - before
}

/// Time per item of all of them.
fn each(count: usize, work: impl FnOnce()) -> Samples {
    let start = Instant::now();
    work();
    Samples::once(start.elapsed().as_nanos() as f64 / count as f64)
}

/// Nanoseconds that threads ran, from the scheduler (`/proc/PID/task/TID/schedstat`).
fn ran(tasks: impl Iterator<Item = PathBuf>) -> f64 {
    let of = |task: PathBuf| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse::<f64>().ok();
    tasks.filter_map(of).sum()
}

fn ip(arguments: &str) {
    let status = Program::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// A responder's place: its number in addresses.
type At = u8;
const SWAN: At = 1;
const OURS: At = 2;

fn address(of: At, end: u8) -> IpAddr {
    [10, 9, of, end].into()
}

/// The initiators' namespace, and one for each responder.
struct Net(String);

impl Net {
    fn new() -> Net {
        let net = Net(format!("pxbench{}", getpid()));
        ip(&format!("netns add {}", net.name(0)));
        for of in [SWAN, OURS] {
            let (there, here) = (net.name(of), net.name(0));
            ip(&format!("netns add {there}"));
            ip(&format!("-n {there} link add v{of} type veth peer name v{of} netns {here}"));
            ip(&format!("-n {there} link set lo up"));
            for (netns, end) in [(there, 1), (here, 2)] {
                ip(&format!("-n {netns} address add {}/24 dev v{of}", address(of, end)));
                ip(&format!("-n {netns} link set v{of} up"));
            }
        }
        net
    }

    fn name(&self, of: At) -> String {
        format!("{}-{of}", self.0)
    }

    fn door(&self, of: At) -> File {
        File::open(format!("/run/netns/{}", self.name(of))).expect("it was made")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for of in [0, SWAN, OURS] {
            let _ = Program::new("ip").args(["netns", "del", &self.name(of)]).status();
        }
    }
}

/// This thread goes there, for good.
pub fn enter(door: File) {
    setns(door, CloneFlags::CLONE_NEWNET).expect("root may");
}

fn socket(of: At, end: u8) -> UdpSocket {
    let socket = UdpSocket::bind((address(of, end), 500)).expect("port 500 is free there");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    socket
}

/// Does what a state machine wants; children are there at once.
fn settle(endpoint: &mut Endpoint, now: u64, socket: &UdpSocket) {
    loop {
        let outputs: Vec<Output> = endpoint.outputs().collect();
        if outputs.is_empty() {
            return;
        }
        for output in outputs {
            match output {
                // What the socket does not take is lost as on any network.
                Output::Send { path, bytes } => drop(socket.send_to(&bytes, path.remote)),
                Output::Install(sa) => endpoint.answer(now, Answer::Installed(sa.id)),
                Output::Remove { child } => endpoint.answer(now, Answer::Removed(child)),
                _ => {}
            }
        }
    }
}

/// Takes a datagram, if there is one, and lets time go on.
fn hear(endpoint: &mut Endpoint, start: Instant, local: SocketAddr, socket: &UdpSocket, buffer: &mut [u8]) {
    let heard = socket.recv_from(buffer);
    let now = start.elapsed().as_millis() as u64;
    if let Ok((len, remote)) = heard {
        endpoint.datagram(now, 1_800_000_000, Path { local, remote }, &buffer[..len]);
    }
    if endpoint.deadline().is_some_and(|at| at <= now) {
        endpoint.tick(now, 1_800_000_000);
    }
    settle(endpoint, now, socket);
}

/// Our state machine behind a socket, on a thread.
struct Ours {
    task: PathBuf,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    fn start(net: &Net) -> Ours {
        let (door, end) = (net.door(OURS), Arc::new(AtomicBool::new(false)));
        let (tell, told) = mpsc::channel();
        let stop = end.clone();
        let thread = std::thread::spawn(move || {
            enter(door);
            let (socket, local) = (socket(OURS, 1), address(OURS, 1));
            let mut config = config(local, Remote::Any, IdentityPattern::Any);
            config.limits = Limits { ike_sas: 1 << 20, half_open_per_source: 1 << 13, ..config.limits };
            let mut endpoint = Endpoint::new(config, 1, Box::new(Seeded(11)));
            tell.send(gettid()).expect("it waits");
            let (start, mut buffer) = (Instant::now(), vec![0; 65_536]);
            while !stop.load(Ordering::Relaxed) {
                hear(&mut endpoint, start, SocketAddr::new(local, 500), &socket, &mut buffer);
            }
        });
        let task = format!("/proc/self/task/{}", told.recv().expect("it started")).into();
        Ours { task, end, thread: Some(thread) }
    }

    fn cpu(&self) -> f64 {
        ran(std::iter::once(self.task.clone()))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// strongSwan's daemon with its user-space IPsec, without policies and routes.
struct Charon {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Charon {
    /// None: it is not installed.
    fn start(net: &Net) -> Option<Charon> {
        if !FilePath::new(CHARON).exists() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (conf, vici, connections) = (file("strongswan.conf"), file("vici"), file("swanctl.conf"));
        let many = 1_000_000;
        let plugins = "random nonce aes sha1 sha2 hmac kdf gcm curve25519 openssl socket-default kernel-libipsec \
                       kernel-netlink vici";
        let settings = format!(
            "charon {{\n load = {plugins}\n cookie_threshold = {many}\n cookie_threshold_ip = {many}\n\
             block_threshold = {many}\n init_limit_half_open = 0\n install_routes = no\n ikesa_table_size = 16384\n\
             ikesa_table_segments = 16\n plugins {{ vici {{ socket = unix://{vici} }} }} }}\n"
        );
        let connection = format!(
            "connections {{ any {{ version = 2\n local_addrs = %any\n remote_addrs = %any\n unique = never\n\
             proposals = aes128gcm16-prfsha256-x25519\n local {{ auth = psk\n id = {} }}\n\
             remote {{ auth = psk\n id = %any }}\n children {{ net {{ local_ts = 10.0.0.0/8\n remote_ts = 10.0.0.0/8\n\
             esp_proposals = aes128gcm16-noesn\n policies = no }} }} }} }}\n\
             secrets {{ ike-1 {{ secret = \"a secret of a good length, both know\" }} }}\n",
            address(SWAN, 1)
        );
        fs::write(&conf, settings).and_then(|()| fs::write(&connections, connection)).expect("two files");
        let within = |program: &mut Program| {
            program.env("STRONGSWAN_CONF", &conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            program.spawn().expect("iproute2 and util-linux")
        };
        // Its files in /run are its own.
        let alone = format!("mount -t tmpfs tmpfs /run && exec {CHARON}");
        let netns = net.name(SWAN);
        let child =
            within(Program::new("ip").args(["netns", "exec", &netns, "unshare", "--mount", "sh", "-c", &alone]));
        let charon = Charon { child, _folder: folder };
        wait("charon listens", || FilePath::new(&vici).exists());
        let uri = format!("unix://{vici}");
        let load = ["netns", "exec", &netns, "swanctl", "--load-all", "--uri", &uri, "--file", &connections];
        let loaded = within(Program::new("ip").args(load)).wait().expect("swanctl");
        assert!(loaded.success(), "charon does not take its configuration");
        Some(charon)
    }

    fn cpu(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        ran(tasks.filter_map(|task| Some(task.ok()?.path())))
    }
}

impl Drop for Charon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < LONG, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The initiators: each another identity, all at one address.
struct Client {
    sockets: [(At, UdpSocket); 2],
    peers: u32,
    start: Instant,
}

impl Client {
    /// From now on this thread is in the initiators' namespace.
    fn new(net: &Net) -> Client {
        enter(net.door(0));
        Client { sockets: [SWAN, OURS].map(|of| (of, socket(of, 2))), peers: 0, start: Instant::now() }
    }

    /// So many set-ups, so many at a time. None fails.
    fn round(&mut self, of: At, count: usize, at_once: usize) {
        let (local, router) = (address(of, 2), address(of, 1));
        let one = config(local, Remote::Address(router), IdentityPattern::Exactly(router.into()));
        let peers: Vec<Arc<PeerConfig>> = (0..count).map(|n| self.peer(&one, n)).collect();
        let seed = u64::from(self.peers) << 20;
        let mut endpoint = Endpoint::new(Config { peers, ..one }, 1, Box::new(Seeded(seed)));
        let socket = &self.sockets.iter().find(|(at, _)| *at == of).expect("one of two").1;
        let (mut begun, mut buffer, began) = (0, vec![0; 65_536], Instant::now());
        loop {
            let counters = endpoint.counters();
            assert_eq!((counters.failed, counters.children_failed), (0, 0), "of {count}, {at_once} at a time");
            let up = counters.established_as_initiator as usize;
            if up == count && counters.children as usize == count {
                return;
            }
            assert!(began.elapsed() < LONG, "{up} of {count} are up");
            let now = self.start.elapsed().as_millis() as u64;
            while begun < count && begun - up < at_once {
                let command = Command::Initiate { peer: begun.to_string(), child: None };
                endpoint.command(now, command).expect("it begins");
                begun += 1;
            }
            settle(&mut endpoint, now, socket);
            hear(&mut endpoint, self.start, SocketAddr::new(local, 500), socket, &mut buffer);
        }
    }

    fn peer(&mut self, one: &Config, n: usize) -> Arc<PeerConfig> {
        self.peers += 1;
        let mut peer = PeerConfig::clone(&one.peers[0]);
        let mut child = (*peer.children[0]).clone();
        // What charon's user-space IPsec can do.
        child.proposal.esn = vec![false];
        (peer.name, peer.children) = (n.to_string().into(), vec![Arc::new(child)]);
        peer.local_id = Identity::from(IpAddr::from((0x0a80_0000 + self.peers).to_be_bytes()));
        Arc::new(peer)
    }
}
