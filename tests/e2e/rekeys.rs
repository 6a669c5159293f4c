//! New keys all the time, from both ends and at once, under load: no packet is lost and no SA left over (I4).

use crate::bed::{Bed, Job, Tunnel, amount, wait_until};
use crate::looks::{NODES, all_drops, assert_invariants};
use crate::negotiated::{SOON, events, peer, sas, spis, wait_gone, wait_up};
use crate::pace;
use crate::swan::{Connection, Swan};
use crate::wire::sequences;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long there are rekeys.
fn seconds() -> u32 {
    amount(120, 60)
}

/// New keys for the CHILD_SA every 2 s and for the IKE SA every 10 s; by chance hardly earlier, and with key exchanges that take their
/// time, so that both ends often begin at once.
macro_rules! restless {
    ($window:literal) => {
        Tunnel {
            esn: true,
            window: $window,
            peer: peer!(
                "remote = \"10.77.0.10\"\nrekey_seconds = 10\nlife_seconds = 60\njitter = 1\n\
                 proposal = \"aes128gcm16-prfsha256-modp3072\"",
                "remote = \"10.99.0.10\"\nrekey_seconds = 2\nlife_seconds = 30\njitter = 1\n\
                 proposal = \"aes128gcm16-modp3072-esn\"\nwindow = ",
                $window
            ),
            ..Tunnel::PLAIN
        }
    };
}

/// The same at the client.
const IKE: &str = "rekey_time = 10s\n over_time = 50s\n rand_time = 0s";
const CHILD: &str = "rekey_time = 2s\n life_time = 30s\n rand_time = 0s\n";
/// How long the client keeps an inbound SA that was replaced.
const CHARON: &str = "delete_rekeyed_delay = 1\n";

#[test]
fn new_keys_every_two_seconds_from_both_ends_lose_nothing_at_1000_packets_a_second_with_a_window_of_32() {
    let storm = Storm::begin(restless!(32));
    let bed = &storm.bed;
    bed.capture("sw", "n-cl", "n-cl", &["-s", "120"]);
    let (rate, size, seconds) = (450, 400, seconds());
    let url = format!("http://{}:{}/{rate}/{}/{size}", bed.host(), pace::PORT, rate * seconds);
    // Even writes from both targets: one SA, three senders.
    let limit = seconds + 60;
    let fetch = format!("curl -sS --max-time {limit} -o /dev/null -w '%{{size_download}}' {url}");
    let streams = [bed.guest_start(&fetch), bed.guest_start(&fetch)];
    storm.blow();
    for stream in streams {
        let (code, bytes) = stream.finish(Duration::from_secs(70));
        assert_eq!((code, bytes), (0, (rate * seconds * size).to_string()), "every byte arrives");
    }
    storm.assert_nothing_lost();
    let sequences = sequences(&bed.capture_end("n-cl"));
    let packets: u64 = sequences.values().map(|sequence| sequence.packets).sum();
    let latest = sequences.values().map(|sequence| sequence.latest).max().expect("some");
    bed.progress(&format!("{packets} packets on {} SAs, the latest {latest} behind", sequences.len()));
    assert!(packets > u64::from(rate * seconds), "that was no load");
    sequences.values().for_each(|sequence| sequence.assert_unique());
    assert_eq!(bed.xfrm_errors(), [], "the client's replay and integrity counters stay 0");
    storm.end();
}

#[test]
fn new_keys_every_two_seconds_from_both_ends_lose_no_ping_at_full_rate_with_a_window_of_4096() {
    let storm = Storm::begin(restless!(4096));
    let bed = &storm.bed;
    // As much as there is room for in the queue of the client's port: beyond, TCP fills that until pings are lost there.
    bed.guest_ok("echo 4096 49152 49152 >/proc/sys/net/ipv4/tcp_rmem");
    let before = received(bed);
    let (host, seconds) = (bed.host(), seconds());
    let fetch = format!(
        "end=$((SECONDS + {seconds})); while [ $SECONDS -lt $end ]; do curl -sS --max-time 60 -o /dev/null -w '%{{size_download}}\\n' \
         -H 'Connection: close' 'http://{host}/megabyte?[1-4]' || exit 1; done | sort | uniq -c"
    );
    let _server = Iperf::serve(bed, "t1");
    let downloads = [bed.guest_start(&fetch), bed.guest_start(&fetch)];
    let iperf = bed.guest_start(&format!("iperf3 -c {host} -R -t {seconds} --json"));
    storm.blow();
    for download in downloads {
        let (code, sizes) = download.finish(Duration::from_secs(70));
        let (count, size) = sizes.trim().split_once(' ').unwrap_or_default();
        bed.progress(&format!("{count} megabytes"));
        assert_eq!((code, size), (0, "1000000"), "every byte arrives: {sizes}");
    }
    let (code, said) = iperf.finish(Duration::from_secs(30));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let sum = &report["end"]["sum_sent"];
    bed.progress(&format!("iperf3: {} bits/s, {} retransmits", sum["bits_per_second"], sum["retransmits"]));
    assert_eq!(code, 0, "{said}");
    storm.assert_nothing_lost();
    let (packets, errors) = (received(bed) - before, bed.xfrm_errors());
    let late: u64 = errors.iter().map(|(_, n)| n).sum();
    bed.progress(&format!("{packets} packets, {late} late: {errors:?}"));
    assert!(errors.iter().all(|(name, _)| name == "XfrmInStateSeqError"), "{errors:?}");
    assert!(packets > u64::from(1_500 * seconds), "that was no load: {packets} packets");
    assert!(late * 1000 < packets, "{late} of {packets} were late");
    storm.end();
}

/// Packets that the client's port received.
fn received(bed: &Bed) -> u64 {
    bed.guest_ok("cat /sys/class/net/vec0/statistics/rx_packets").trim().parse().expect("a number")
}

/// A bed whose SAs are replaced all the time, and a ping through them.
struct Storm {
    bed: Bed,
    ping: std::cell::Cell<Option<Job>>,
}

impl Storm {
    fn begin(tunnel: Tunnel) -> Storm {
        let bed = Bed::up(tunnel);
        let child = format!("{CHILD} replay_window = {}", tunnel.window);
        let (ike, esp) = ("aes128gcm16-prfsha256-modp3072", "aes128gcm16-modp3072-esn");
        let connection = Connection { ike, esp, more: IKE, child: &child, ..Connection::PLAIN };
        let swan = Swan::start_with(&bed, &connection, CHARON);
        swan.initiate();
        let count = seconds() * 20;
        let ping = bed.guest_start(&format!("ping -q -i 0.05 -c {count} -W 5 {}", bed.host()));
        Storm { bed, ping: std::cell::Cell::new(Some(ping)) }
    }

    fn swan(&self) -> Swan<'_> {
        Swan::of(&self.bed)
    }

    /// Both ends replace by themselves when it is time; now and then both are told to, at the same moment.
    fn blow(&self) {
        let (bed, start) = (&self.bed, Instant::now());
        for round in 1u64.. {
            if start.elapsed() > Duration::from_secs(seconds().into()) {
                break;
            }
            std::thread::sleep(Duration::from_secs(3));
            // What is being replaced just now cannot be told to: that is no failure.
            if round.is_multiple_of(3) {
                let theirs = bed.guest_start(&self.swan().command("--rekey --ike vip"));
                let ike = wait_up(bed).0["id"].as_str().expect("an id").to_owned();
                bed.tell("r", &["ike", "rekey", &ike]);
                theirs.finish(SOON);
            } else {
                let theirs = bed.guest_start(&self.swan().command("--rekey --child c"));
                bed.tell("r", &["ike", "rekey", "client"]);
                theirs.finish(SOON);
            }
            if round.is_multiple_of(8) {
                bed.progress(&format!("{} s: {}", start.elapsed().as_secs(), self.figures()));
            }
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.bed.query("r", "ike")["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    fn figures(&self) -> String {
        let [children, ikes] = ["children-rekeyed", "ike-rekeyed"].map(|name| self.counter(name));
        format!("{children} successors of CHILD_SAs, {ikes} of IKE SAs, {} at once", self.collisions())
    }

    /// How often the client noticed that both had begun at once.
    fn collisions(&self) -> usize {
        self.swan().log().lines().filter(|line| line.contains("collision")).count()
    }

    fn assert_nothing_lost(&self) {
        let bed = &self.bed;
        let ping = self.ping.take().expect("once");
        let (code, said) = ping.finish(Duration::from_secs(60));
        let summary = said.lines().find(|line| line.contains("packet loss")).unwrap_or(&said).to_owned();
        bed.progress(&summary);
        bed.progress(&self.figures());
        assert!(code == 0 && summary.contains(" 0% packet loss"), "{said}\n{}", events(bed));
        let drops = all_drops(bed);
        let harmless = ["not-for-us"];
        let lost: Vec<_> = drops.iter().filter(|(why, n)| **n > 0 && !harmless.contains(&why.as_str())).collect();
        bed.progress(&format!("dropped: {lost:?}"));
        for reason in ["bad-icv", "unknown-spi", "replay", "too-old", "no-sa", "hard-lifesize", "sequence-exhausted"] {
            assert_eq!(drops[reason], 0, "{reason}: {lost:?}");
        }
        let seconds = u64::from(seconds());
        assert!(self.counter("children-rekeyed") >= seconds / 3, "{}", self.figures());
        assert!(self.counter("ike-rekeyed") >= seconds / 15, "{}", self.figures());
        assert!(self.collisions() as u64 >= seconds / 40, "{}", self.figures());
        assert_invariants(bed);
    }

    /// What there was is replaced everywhere, nobody gathers SAs, and nothing stays behind the end.
    fn end(&self) {
        let (bed, swan) = (&self.bed, self.swan());
        let everything = || -> BTreeSet<String> { NODES.iter().flat_map(|node| spis(bed, node)).collect() };
        let old = everything();
        wait_until("what there was is replaced everywhere", SOON, || everything().is_disjoint(&old));
        // New ones come every second or so, and a look at everybody takes as long: more than one that goes and one that comes would
        // have been left behind by earlier ones.
        wait_until("nobody has more than a pair and its successor", SOON, || {
            let kernel = bed.guest_ok("ip xfrm state | grep -c ^src").trim().parse::<usize>().expect("a number");
            let ours = sas(bed);
            let children = ours.iter().filter_map(|ike| ike["children"].as_array()).map(Vec::len).sum::<usize>();
            kernel <= 4
                && swan.sas().matches("INSTALLED").count() <= 2
                && ours.len() <= 2
                && children <= 2
                && NODES.iter().all(|node| spis(bed, node).len() <= 4)
        });
        // What is being replaced at that moment does not end, but has a successor: it is told again.
        wait_until("the client has none", SOON, || {
            swan.ctl("--terminate --ike vip");
            bed.guest_ok("ip xfrm state").trim().is_empty() && swan.sas().trim().is_empty()
        });
        wait_gone(bed);
        assert_invariants(bed);
    }
}

/// `iperf3 -s` on a target: its connections all go there, as nobody else listens.
struct Iperf(Child);

impl Iperf {
    fn serve(bed: &Bed, target: &str) -> Iperf {
        let namespace = bed.namespace(target);
        let arguments = ["netns", "exec", &namespace, "iperf3", "-s"];
        let server = Command::new("ip").args(arguments).stdout(Stdio::null()).spawn().expect("ip can be run");
        wait_until("the router knows of iperf3", SOON, || {
            let targets = bed.query("r", "target");
            targets.as_array().expect("a list").iter().any(|row| row.to_string().contains("5201"))
        });
        Iperf(server)
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
