//! The test bed from Rust: `scripts/lib/bed.sh` makes it and, however the test ends, removes it; `scripts/lib/cluster.sh` runs the nodes.

use crate::wire::Capture;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The prefix of the tests' bed; the demo's is another, so both can stand at once.
const PREFIX: &str = "pxt";

/// What is between the client and the network; `scripts/lib/bed.sh` has the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// A wire to the bridge.
    None,
    /// A router whose wire to the client has this MTU.
    Route { mtu: u16 },
    /// The same, masquerading.
    Nat { mtu: u16 },
}

/// The client's end and the tunnel between it and the VIP.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// IP version of the ESP packets.
    pub outer: u8,
    /// IP version inside.
    pub inner: u8,
    /// `tunnel` or `transport`.
    pub mode: &'static str,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Of the static SAs, as the configuration calls it.
    pub algorithm: &'static str,
    /// Of AH around ESP, or `none`.
    pub around: &'static str,
    /// The client's replay window.
    pub window: u32,
    /// What the client is behind.
    pub gateway: Gateway,
    /// DPDK's driver of the nodes' network ports.
    pub driver: &'static str,
    /// ESP in UDP, with a NAT keepalive after so many seconds of silence.
    pub udp: Option<u32>,
    /// Further lines of the router's `[[sa]]`.
    pub sa: &'static str,
    /// `gre` or `memif`: the nodes' links.
    pub link: &'static str,
    /// Lines of the router's `[[peer]]`: then nothing is static, and the client runs strongSwan.
    pub peer: &'static str,
}

impl Tunnel {
    /// IPv4 in IPv4, 32-bit numbers, the client on the bridge.
    pub const PLAIN: Tunnel = Tunnel {
        outer: 4,
        inner: 4,
        mode: "tunnel",
        esn: false,
        algorithm: "aes128-gcm16",
        around: "none",
        window: 64,
        gateway: Gateway::None,
        driver: "net_af_packet",
        udp: None,
        sa: "",
        link: "gre",
        peer: "",
    };

    /// The VIP as it stands in a URL.
    pub fn host(&self) -> &'static str {
        if self.inner == 4 { "10.77.0.100" } else { "[fd77::100]" }
    }
}

/// SPI of the SA towards the VIP, and of the one towards the client.
pub const TO_VIP: u32 = 4097;
/// See [`TO_VIP`].
pub const TO_CLIENT: u32 = 8193;

/// A standing bed with its cluster; one at a time on a machine.
pub struct Bed {
    tunnel: Tunnel,
    keeper: Child,
    guest_commands: AtomicU32,
    start: Instant,
    _one_at_a_time: Flock<File>,
}

/// A command that runs in the guest.
pub struct Job {
    path: PathBuf,
}

impl Bed {
    /// Namespaces, wires, guest, three nodes, a web server and a pacing server on each target; the client's SAs.
    pub fn up(tunnel: Tunnel) -> Bed {
        Bed::up_with(tunnel, |_| ())
    }

    /// The same, with something done to the configurations before they are used.
    pub fn up_with(tunnel: Tunnel, configured: impl FnOnce(&Bed)) -> Bed {
        let bed = Bed::wired(tunnel);
        bed.progress(&format!("cluster for {tunnel:?}"));
        crate::swan::authority(&bed);
        bed.script("cluster.sh", &["configure"]);
        configured(&bed);
        for target in ["t1", "t2"] {
            bed.script("cluster.sh", &["web", target]);
            crate::pace::serve(&bed.namespace(target), target);
        }
        for node in ["r", "t1", "t2"] {
            bed.start(node);
        }
        bed.script("bed.sh", &["booted"]);
        bed.script("cluster.sh", &["ready"]);
        if tunnel.peer.is_empty() {
            bed.script("cluster.sh", &["client_sa"]);
        }
        bed
    }

    /// Namespaces, wires and the guest only.
    pub fn bare(tunnel: Tunnel) -> Bed {
        let bed = Bed::wired(tunnel);
        bed.script("bed.sh", &["booted"]);
        bed
    }

    /// The same, with a guest that boots yet.
    fn wired(tunnel: Tunnel) -> Bed {
        assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests make network namespaces: run them as root");
        let lock = File::create("/run/phalanx-bed.lock").expect("a lock file in /run");
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).expect("the lock");
        let mut keeper = script_command(tunnel, "bed.sh", &["hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bed.sh can be run");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n", "bed.sh did not make the bed");
        let bed =
            Bed { tunnel, keeper, guest_commands: AtomicU32::new(0), start: Instant::now(), _one_at_a_time: lock };
        bed.script("bed.sh", &["boot"]);
        bed
    }

    /// Says where a test is: the longest of them take minutes.
    pub fn progress(&self, what: &str) {
        eprintln!("    {:6.1} s  {what}", self.start.elapsed().as_secs_f32());
    }

    /// The name of a host's network namespace.
    pub fn namespace(&self, host: &str) -> String {
        format!("{PREFIX}-{host}")
    }

    /// A file of the bed's own folder.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new("/run/phalanx-bed").join(PREFIX).join(name)
    }

    /// The VIP as it stands in a URL.
    pub fn host(&self) -> &'static str {
        self.tunnel.host()
    }

    /// What it was made for.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Runs one of the bed's scripts to its end; a failure of it is one of the test.
    pub fn script(&self, script: &str, arguments: &[&str]) {
        self.script_for(self.tunnel, script, arguments);
    }

    /// The same for another tunnel than the one that it was made for.
    pub fn script_for(&self, tunnel: Tunnel, script: &str, arguments: &[&str]) {
        let status = script_command(tunnel, script, arguments).stdin(Stdio::null()).status().expect("it can be run");
        assert!(status.success(), "{script} {arguments:?}: {status}");
    }

    // ---- nodes

    /// Starts a node and waits until its status socket answers.
    pub fn start(&self, node: &str) {
        self.script("cluster.sh", &["start", node]);
    }

    /// Ends a node's process as a crash would.
    pub fn kill_hard(&self, node: &str) {
        let pid = self.pid(node);
        kill(pid, Signal::SIGKILL).expect("the node runs");
        wait_until("the node is gone", Duration::from_secs(5), || kill(pid, None).is_err() || zombie(pid));
    }

    /// Lets a node stand still, or go on.
    pub fn freeze(&self, node: &str, still: bool) {
        kill(self.pid(node), if still { Signal::SIGSTOP } else { Signal::SIGCONT }).expect("the node runs");
    }

    /// Asks a node to end; answers how long it took.
    pub fn terminate(&self, node: &str) -> Duration {
        let (pid, start) = (self.pid(node), Instant::now());
        kill(pid, Signal::SIGTERM).expect("the node runs");
        wait_until("the node ends on SIGTERM", Duration::from_secs(10), || kill(pid, None).is_err() || zombie(pid));
        start.elapsed()
    }

    /// Asks a node to read its configuration again.
    pub fn hangup(&self, node: &str) {
        kill(self.pid(node), Signal::SIGHUP).expect("the node runs");
    }

    fn pid(&self, node: &str) -> Pid {
        let record = fs::read_to_string(self.file("pids").join(node)).expect("the node was started");
        Pid::from_raw(record.split(' ').next().expect("a pid").parse().expect("a pid"))
    }

    /// What `phalanx COMMAND --json` says on a node.
    pub fn query(&self, node: &str, command: &str) -> Value {
        self.try_query(node, command).unwrap_or_else(|| panic!("`phalanx {command}` on {node} gave no JSON"))
    }

    /// As [`query`](Bed::query), `None` while the node does not answer.
    pub fn try_query(&self, node: &str, command: &str) -> Option<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .args([command, "--json", "--socket"])
            .arg(self.file(&format!("{node}.sock")))
            .stderr(Stdio::null())
            .output()
            .expect("phalanx can be run");
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Tells a node to do something: what it says. It must obey.
    pub fn order(&self, node: &str, words: &[&str]) -> String {
        let (obeyed, said) = self.tell(node, words);
        assert!(obeyed, "{words:?} on {node}: {said}");
        said
    }

    /// Tells a node to do something that it must refuse: what it says.
    pub fn refused(&self, node: &str, words: &[&str]) -> String {
        let (obeyed, said) = self.tell(node, words);
        assert!(!obeyed, "{words:?} on {node}: {said}");
        said
    }

    /// Tells a node to do something: whether it obeys, and what it says.
    pub fn tell(&self, node: &str, words: &[&str]) -> (bool, String) {
        let socket = self.file(&format!("{node}.sock"));
        let output = Command::new(env!("CARGO_BIN_EXE_phalanx")).args(words).arg("--socket").arg(socket).output();
        let output = output.expect("phalanx can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The same of a command of several words.
    pub fn look(&self, node: &str, words: &[&str]) -> Value {
        let (answered, said) = self.tell(node, &[words, &["--json"]].concat());
        assert!(answered, "{words:?} on {node}: {said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?} on {node}: {error}: {said}"))
    }

    /// Waits until the router gives connections to both targets.
    pub fn wait_ready(&self) {
        self.script("cluster.sh", &["ready"]);
    }

    // ---- the guest

    /// Starts a shell command in the guest.
    pub fn guest_start(&self, command: &str) -> Job {
        let id = format!("e{}", self.guest_commands.fetch_add(1, Ordering::Relaxed));
        let path = self.file("guest").join(&id);
        fs::write(path.with_extension("cmd"), command).expect("the guest's folder");
        let console = self.file("guest/console");
        let mut console = File::options().write(true).open(console).expect("the guest's console");
        console.write_all(format!("{id}\n").as_bytes()).expect("the guest listens");
        // Its kernel now and then sleeps over what came on its console, until more comes. An empty line is more.
        let mut told = Instant::now();
        wait_until("the guest takes a command", Duration::from_secs(20), || {
            if told.elapsed() > Duration::from_millis(60) {
                console.write_all(b"\n").expect("the guest listens");
                told = Instant::now();
            }
            path.with_extension("out").exists()
        });
        Job { path }
    }

    /// Runs a shell command in the guest: its exit code and output.
    pub fn guest(&self, command: &str) -> (i32, String) {
        self.guest_start(command).finish(Duration::from_secs(60))
    }

    /// As [`guest`](Bed::guest), and the command must succeed.
    pub fn guest_ok(&self, command: &str) -> String {
        let (code, output) = self.guest(command);
        assert_eq!(code, 0, "in the guest: {command}: {output}");
        output
    }

    /// The guest kernel's IPsec error counters that are not 0.
    pub fn xfrm_errors(&self) -> Vec<(String, u64)> {
        let text = self.guest_ok("cat /proc/net/xfrm_stat");
        let lines = text.lines().filter_map(|l| l.split_once(char::is_whitespace));
        lines.map(|(name, n)| (name.to_owned(), n.trim().parse().expect("a counter"))).filter(|(_, n)| *n > 0).collect()
    }

    /// Connections the web server of a target answered.
    pub fn served(&self, target: &str) -> usize {
        fs::read_to_string(self.file(&format!("web-{target}/access.log"))).expect("its log").lines().count()
    }

    // ---- captures

    /// Starts a capture on an interface of a host (`sw` is the switch); `filter` in tcpdump's words, options before it.
    pub fn capture(&self, host: &str, interface: &str, name: &str, filter: &[&str]) {
        let mut arguments = vec!["capture", host, interface, name];
        arguments.extend(filter);
        self.script("cluster.sh", &arguments);
    }

    /// Ends a capture; answers its file. What the kernel could not give it would be a gap in the proof.
    pub fn capture_end(&self, name: &str) -> PathBuf {
        self.script("cluster.sh", &["capture_end", name]);
        let log = fs::read_to_string(self.file(&format!("log/tcpdump-{name}.log"))).expect("tcpdump's log");
        assert!(log.contains("\n0 packets dropped by kernel"), "the capture {name} has gaps: {log}");
        self.file(&format!("pcap/{name}.pcap"))
    }

    /// The frames of a capture, which may still be going on.
    pub fn frames(&self, name: &str) -> Capture {
        Capture::open(&self.file(&format!("pcap/{name}.pcap")))
    }
}

impl Drop for Bed {
    /// The keeper removes everything once its standard input closes; a failed test's logs stay readable in `target/`.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
            let _ = fs::remove_dir_all(&kept);
            let copied = Command::new("cp").arg("-r").arg(self.file("")).arg(&kept).stderr(Stdio::null()).status();
            eprintln!("    logs and captures of the failed bed: {} ({copied:?})", kept.display());
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Job {
    /// Whether the command has ended.
    pub fn ended(&self) -> bool {
        fs::metadata(self.path.with_extension("rc")).is_ok_and(|m| m.len() > 0)
    }

    /// Waits for the command's end: its exit code and output.
    pub fn finish(self, limit: Duration) -> (i32, String) {
        wait_until("the guest's command ends", limit, || self.ended());
        let code = fs::read_to_string(self.path.with_extension("rc")).expect("its exit code");
        let output = fs::read(self.path.with_extension("out")).unwrap_or_default();
        (code.trim().parse().expect("a number"), String::from_utf8_lossy(&output).into_owned())
    }
}

/// How often or how long: the first where `E2E=long` asks for it, the second in every other run.
pub fn amount(long: u32, short: u32) -> u32 {
    if std::env::var("E2E").is_ok_and(|how| how == "long") { long } else { short }
}

/// Waits for something that must happen within `limit`; answers how long it took.
pub fn wait_until(what: &str, limit: Duration, mut happened: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// A process that ended, with all its threads, but was not waited for by its parent, which is not us.
fn zombie(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    threads == 0 || threads == 1 && state.contains(") Z ")
}

fn script_command(tunnel: Tunnel, script: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib").join(script);
    let mut command = Command::new(path);
    command.arg(arguments[0]).arg(PREFIX).args(&arguments[1..]);
    command.env("PHALANX", env!("CARGO_BIN_EXE_phalanx")).env("MODE", tunnel.mode);
    command.env("OUTER", tunnel.outer.to_string()).env("INNER", tunnel.inner.to_string());
    if let Some(keepalive) = tunnel.udp {
        command.env("ENCAP", "udp").env("KEEPALIVE", keepalive.to_string());
    }
    match tunnel.gateway {
        Gateway::None => command.env("GATEWAY", "none"),
        Gateway::Route { mtu } => command.env("GATEWAY", "route").env("GATEWAY_MTU", mtu.to_string()),
        Gateway::Nat { mtu } => command.env("GATEWAY", "nat").env("GATEWAY_MTU", mtu.to_string()),
    };
    command
        .env("ESN", u8::from(tunnel.esn).to_string())
        .env("ALGORITHM", tunnel.algorithm)
        .env("AROUND", tunnel.around)
        .env("WINDOW", tunnel.window.to_string())
        .env("NETWORK_DRIVER", tunnel.driver)
        .env("SA", tunnel.sa)
        .env("LINK", tunnel.link)
        .env("PEER", tunnel.peer);
    command
}
