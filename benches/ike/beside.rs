//! Set-ups beside a flow: a cluster on the test bed, a client whose requests go through the VIP to both targets and back, alone and then
//! while so many others negotiate with the same router each second, each an IKE SA and a child on router and targets.
//!
//! Client, initiators and the servers on the targets stand for other machines: they are threads of this process, in the bed's
//! namespaces. Those of the flow are real-time threads, so that what is measured is not their own waiting; the initiators are not, or the
//! flow would wait for them. See docs/BENCHMARKS.md.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{geteuid, gettid};
use phalanx_ike::crypto::Secret;
use phalanx_ike::{Config, Credential, Proof};

use super::harness::{Report, note};
use super::{config, flow, initiators};
use flow::{Flow, Seen};
use initiators::SetUps;

/// Of the bed; the demo's and the tests' are others.
const PREFIX: &str = "pxb";
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Of the flow's client, and the way to all initiators.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// UDP, on the targets.
pub(super) const PORT: u16 = 8080;
const RATE: u32 = 1000;
const SECONDS: u32 = 10;
const NODES: [&str; 3] = ["r", "t1", "t2"];

/// Where namespaces can be made.
pub fn run(report: &Report) {
    if !geteuid().is_root() {
        return note("set-ups beside a flow need network namespaces, hence root: left out");
    }
    let bed = Bed::up();
    let secret = bed.secret();
    let servers = ["t1", "t2"].map(|target| flow::serve(bed.door(target)));
    let mut client = Flow::new(bed.door("cl"), &secret);
    client.wait_until_answered();
    let alone = client.run(SECONDS);
    let (before, begun) = (bed.cpu(), Instant::now());
    let (beside, set_ups) = std::thread::scope(|scope| {
        let others = scope.spawn(|| initiators::begin(bed.door("cl"), &secret, RATE, RATE * SECONDS));
        let beside = client.run(SECONDS);
        (beside, others.join().expect("it ends"))
    });
    let (after, took) = (bed.cpu(), begun.elapsed());
    drop(servers);
    rows(report, &alone, &beside, &set_ups);
    for (flow, when) in [(&alone, "alone"), (&beside, "beside set-ups")] {
        let [half, most, max] = [50.0, 99.0, 100.0].map(|part| flow.percentile(part));
        let (sent, lost) = (flow.sent, flow.sent - flow.answered);
        note(&format!("flow {when}: {sent} requests, {lost} lost, {half:.0} us median, {most:.0} p99, {max:.0} most"));
    }
    let SetUps { up, failed, in_time, again, .. } = set_ups;
    let [half, most, max] = [50.0, 99.0, 100.0].map(|part| set_ups.percentile(part));
    note(&format!(
        "set-ups: {} wanted in {SECONDS} s, {in_time} up by then, {up} in the end, {failed} failed; {half} ms median, {most} p99, {max} \
         most; {again} requests sent again",
        RATE * SECONDS
    ));
    for ((node, now), then) in NODES.iter().zip(after).zip(before) {
        let [poll, rest] = [0, 1].map(|at| (now[at] - then[at]) / took.as_nanos() as f64 * 100.0);
        note(&format!("{node}: CPU of its poll loop {poll:.0} %, of all else {rest:.0} %"));
    }
    note(&format!("on {} CPUs: {}", std::thread::available_parallelism().map_or(0, usize::from), bed.pinned()));
}

fn rows(report: &Report, alone: &Seen, beside: &Seen, set_ups: &SetUps) {
    let (flow, wanted) = ("a flow beside 1,000 set-ups/s", f64::from(RATE * SECONDS));
    for (what, percent) in [("p99", 99.0), ("median", 50.0)] {
        let [ours, peer] = [beside, alone].map(|seen| seen.percentile(percent));
        report.count(&format!("{flow}: {what}"), "us", ours, "alone", peer);
    }
    let [answered, sent] = [beside.answered, beside.sent].map(f64::from);
    report.count(&format!("{flow}: answers"), "packets", answered, "requests", sent);
    let [up, in_time] = [set_ups.up, set_ups.in_time].map(f64::from);
    report.count("1,000 set-ups/s beside a flow: came up", "set-ups", up, "wanted", wanted);
    report.count("1,000 set-ups/s beside a flow: by the end of 10 s", "set-ups", in_time, "wanted", wanted);
}

/// Who the initiators and the client have to do with, and what both know.
pub(super) fn peers(local: Ipv4Addr, inside: Ipv4Addr, secret: &str) -> Config {
    let router = IpAddr::from(VIP);
    let mut config = config(
        local.into(),
        phalanx_ike::Remote::Address(router),
        phalanx_ike::auth::IdentityPattern::Exactly(router.into()),
    );
    let mut peer = (*config.peers[0]).clone();
    let known = || Secret::new(secret.as_bytes().to_vec());
    (peer.credential, peer.proof) = (Credential::Psk(known()), Proof::Psk(known()));
    let mut child = (*peer.children[0]).clone();
    child.local = Some(phalanx_ipsec::Prefix::host(inside.into()));
    child.remote = Some(phalanx_ipsec::Prefix::host(router));
    peer.children = vec![child.into()];
    config.peers = vec![peer.into()];
    config
}

/// This thread stands for another machine, whose answers are waited for: it waits for none that has its time from the fair scheduler.
pub(super) fn elsewhere() {
    let _ = Program::new("chrt").args(["-f", "-p", "20", &gettid().to_string()]).stderr(Stdio::null()).status();
}

/// The test bed with a cluster on it and no guest.
struct Bed {
    keeper: Child,
    _one_at_a_time: Flock<File>,
}

impl Bed {
    fn up() -> Bed {
        let lock = File::create("/run/phalanx-bed.lock").expect("a lock file in /run");
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).expect("the lock");
        let mut keeper =
            script("bed.sh", &["hold"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n", "bed.sh did not make the bed");
        let bed = Bed { keeper, _one_at_a_time: lock };
        ip(&format!("-n {PREFIX}-cl address add {CLIENT}/24 dev net0"));
        ip(&format!("-n {PREFIX}-cl route add local {} dev lo", initiators::NET));
        bed.script(&["configure"]);
        NODES.iter().for_each(|node| bed.script(&["start", node]));
        bed.script(&["ready"]);
        bed
    }

    fn script(&self, arguments: &[&str]) {
        let status = script("cluster.sh", arguments).stdin(Stdio::null()).status().expect("bash");
        assert!(status.success(), "cluster.sh {arguments:?}");
    }

    fn door(&self, host: &str) -> File {
        File::open(format!("/run/netns/{PREFIX}-{host}")).expect("it was made")
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/run/phalanx-bed/{PREFIX}/{name}")).expect("a file of the bed")
    }

    fn secret(&self) -> String {
        self.file("etc/client.psk").trim_end().to_owned()
    }

    /// Nanoseconds that each node's poll loops ran so far, and all its other threads.
    fn cpu(&self) -> [[f64; 2]; 3] {
        NODES.map(|node| {
            let mut sums = [0.0; 2];
            for (name, _, ran) in self.threads(node) {
                sums[usize::from(!name.starts_with("phalanx-core"))] += ran;
            }
            sums
        })
    }

    fn poll_loops(&self, node: &str) -> Vec<(String, String, f64)> {
        self.threads(node).into_iter().filter(|(name, ..)| name.starts_with("phalanx-core")).collect()
    }

    /// Name, identity and nanoseconds run.
    fn threads(&self, node: &str) -> Vec<(String, String, f64)> {
        let record = self.file(&format!("pids/{node}"));
        let pid = record.split(' ').next().expect("a pid");
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").filter_map(Result::ok);
        let thread = |task: fs::DirEntry| {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).ok();
            let ran = read("schedstat")?.split(' ').next()?.parse().ok()?;
            Some((read("comm")?, task.file_name().into_string().ok()?, ran))
        };
        tasks.filter_map(thread).collect()
    }

    /// Where poll loops are.
    fn pinned(&self) -> String {
        let cpus = |node: &&str| {
            let cores = self.poll_loops(node).into_iter();
            let cpu = |(_, id, _): (String, String, f64)| {
                let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
                line.unwrap_or("?").trim().to_owned()
            };
            format!("poll loop of {node} on {}", cores.map(cpu).collect::<Vec<_>>().join(","))
        };
        NODES.iter().map(cpus).collect::<Vec<_>>().join(", ")
    }
}

impl Drop for Bed {
    /// The keeper removes everything when its standard input ends.
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn script(name: &str, arguments: &[&str]) -> Program {
    let path = format!("{}/scripts/lib/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut program = Program::new(path);
    program.arg(arguments[0]).arg(PREFIX).args(&arguments[1..]);
    let peer = "remote = \"10.0.0.0/8\"\nremote_id = \"*\"\nsecret_file = \"client.psk\"\n[[peer.child]]\nname = \"net\"\n\
                remote = \"10.0.0.0/8\"\nwindow = 1024";
    program.env("PHALANX", env!("CARGO_BIN_EXE_phalanx")).env("PEER", peer);
    program.env("DISTRIBUTE", format!(r#"{{ ports = [{PORT}], targets = ["t1", "t2"], protocol = "udp" }}"#));
    program.env("NEXT_HOPS", format!("\"{CLIENT}\"")).env("MORE", "[limits]\nsas = 65536").env("BED_ONE_SESSION", "1");
    program
}

fn ip(arguments: &str) {
    let status = Program::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// How long anything of the bed may take.
pub(super) const LONG: Duration = Duration::from_secs(30);
