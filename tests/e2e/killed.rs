//! Must show 3: kill -9 at random moments under load, twenty times each.

use crate::bed::{Bed, TO_CLIENT, TO_VIP, Tunnel, wait_until};
use crate::looks::{Wire, assert_invariants, connections_of, delivered, delivered_twice, network_mac, target_of};
use crate::pace;
use crate::raw::RawSender;
use crate::wire::{Frame, What, clear_syn, readdress, sequences};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const KILLS: usize = 20;

/// 0 to `below` milliseconds, from the clock's lowest digits: a moment that nobody chose.
fn random_moment(below: u32) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Duration::from_millis(u64::from(now.subsec_micros() % below))
}

/// A download that never ends by itself, into a file of the guest's memory. Its name is its local port.
fn endless(bed: &Bed, port: u16) {
    let url = format!("http://{}:{}/100/1000000/400", bed.host(), pace::PORT);
    let curl = format!("curl -sS --local-port {port} --keepalive-time 1 --connect-timeout 5 -o /tmp/{port} {url}");
    bed.guest_start(&format!("{curl} 2>/tmp/{port}.err; echo ended >>/tmp/{port}.err"));
    wait_until("the stream runs", Duration::from_secs(10), || size(bed, port) > 1000);
}

/// A download from that target, however the others are spread.
fn endless_from(bed: &Bed, target: &str, ports: &mut impl Iterator<Item = u16>) -> u16 {
    loop {
        let port = ports.next().expect("there are many");
        endless(bed, port);
        if target_of(bed, port).as_deref() == Some(target) {
            return port;
        }
        stop(bed, port);
    }
}

fn stop(bed: &Bed, port: u16) {
    bed.guest(&format!("pkill -f -- '--local-port {port} '; rm -f /tmp/{port}"));
}

fn ended(bed: &Bed, port: u16) -> bool {
    bed.guest(&format!("grep -q ended /tmp/{port}.err")).0 == 0
}

fn size(bed: &Bed, port: u16) -> u64 {
    bed.guest(&format!("stat -c %s /tmp/{port} 2>/dev/null || echo 0")).1.trim().parse().expect("a size")
}

/// Fetches pages one after the other until `/tmp/stop` exists.
fn page_load(bed: &Bed) {
    bed.guest_ok("rm -f /tmp/stop");
    bed.guest_start(&format!(
        "while [ ! -e /tmp/stop ]; do curl -sS --connect-timeout 2 --max-time 3 -o /dev/null 'http://{}/?[1-20]' -H 'Connection: close'; done",
        bed.host()
    ));
}

#[test]
fn a_killed_target_is_forgotten_and_nothing_leaves_its_host_in_clear() {
    let bed = Bed::up(Tunnel::PLAIN);
    for port in ["n-cl", "n-t1", "n-t2"] {
        bed.capture("sw", port, port, &["-s", "160"]);
    }
    let attacker = RawSender::open(&bed.namespace("at"), "net0");
    page_load(&bed);
    let (mut slowest, mut ports) = (Duration::ZERO, 20_000..30_000);
    for round in 0..KILLS {
        let (victim, other) = if round % 2 == 0 { ("t1", "t2") } else { ("t2", "t1") };
        let (dies, lives) = (endless_from(&bed, victim, &mut ports), endless_from(&bed, other, &mut ports));
        std::thread::sleep(random_moment(500));

        bed.kill_hard(victim);
        let killed = Instant::now();
        let forgotten = wait_until("the router forgets the dead target", Duration::from_secs(2), || {
            connections_of(&bed, victim) == 0
        });
        let fetch = format!("curl -sS --connect-timeout 0.3 --max-time 1 -D - -o /dev/null http://{}/", bed.host());
        let head = bed.guest_ok(&format!("for i in 1 2 3 4 5 6 7 8 9; do {fetch} && break; done"));
        let served_after = killed.elapsed();
        slowest = slowest.max(served_after);
        assert!(head.contains(&format!("Served-By: {other}")), "the other target serves: {head}");
        assert!(served_after < Duration::from_secs(2), "a new connection was served after {served_after:?}");

        // In clear, to the dead target, to the living one and to the router.
        for node in [victim, other, "r"] {
            attacker.send(&clear_syn(network_mac(node), 80));
        }
        wait_until("the dead target's connection ends", Duration::from_secs(15), || ended(&bed, dies));
        let before = size(&bed, lives);
        wait_until("the other's goes on", Duration::from_secs(5), || size(&bed, lives) > before);
        stop(&bed, lives);
        bed.start(victim);
        bed.wait_ready();
        let (forgotten, served) = (forgotten.as_millis(), served_after.as_millis());
        bed.progress(&format!(
            "kill {} of {KILLS}: {victim}, forgotten after {forgotten} ms, {other} served after {served}",
            round + 1
        ));
    }
    bed.progress(&format!("slowest: {} ms", slowest.as_millis()));
    bed.guest_ok("touch /tmp/stop");
    assert_invariants(&bed);
    judge_targets(&bed);
}

fn judge_targets(bed: &Bed) {
    let at_client = bed.capture_end("n-cl");
    for sequence in sequences(&at_client).values() {
        sequence.assert_unique();
    }
    for target in ["t1", "t2"] {
        let mac = network_mac(target);
        let wire = Wire::of(&bed.capture_end(&format!("n-{target}")).to_path_buf());
        let clear: Vec<_> = wire.clear.iter().filter(|f| f.from == mac).collect();
        assert!(clear.is_empty(), "in clear from {target}: {clear:?}");
        assert!(!wire.claims.contains_key(&mac), "{target} spoke for the VIP in ARP or ND");
        assert!(wire.answers(target) > 100, "{target} did work: {wire:?}");
    }
}

#[test]
fn a_restarted_router_goes_on_and_takes_nothing_twice() {
    let bed = Bed::up(Tunnel::PLAIN);
    bed.capture("sw", "n-cl", "n-cl", &[]);
    let mut taps: Vec<PathBuf> = Vec::new();
    for target in ["t1", "t2"] {
        bed.capture(target, "vip0", &format!("tap-{target}"), &[]);
    }
    let attacker = RawSender::open(&bed.namespace("at"), "net0");
    let mut ports = 20_000..30_000;
    let streams = ["t1", "t2"].map(|target| endless_from(&bed, target, &mut ports));
    page_load(&bed);
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(200) + random_moment(800));
        bed.kill_hard("r");
        let killed = Instant::now();
        let before = streams.map(|port| size(&bed, port));
        let old = to_vip(&bed, 300);
        bed.start("r");
        // While it gathers, and then when it has: nothing of the past may get in.
        attacker.send_at(2000, old.iter().map(|f| f.as_slice()));
        wait_until("the established connections go on", Duration::from_secs(20), || {
            streams.iter().zip(before).all(|(port, then)| size(&bed, *port) > then)
        });
        let resumed = killed.elapsed();
        bed.wait_ready();
        let tap = format!("tap-r-{round}");
        bed.capture("r", "vip0", &tap, &[]);
        taps.push(bed.file(&format!("pcap/{tap}.pcap")));
        bed.guest_ok(&format!("curl -sS --connect-timeout 5 --max-time 9 -o /dev/null http://{}/", bed.host()));
        attacker.send_at(2000, old.iter().map(|f| f.as_slice()));
        bed.progress(&format!("kill {} of {KILLS}: streams went on after {} ms", round + 1, resumed.as_millis()));
    }
    bed.guest_ok("touch /tmp/stop");
    assert!(!streams.iter().any(|port| ended(&bed, *port)), "the first connections lived through all of it");
    bed.guest_ok("pkill curl; sleep 1");
    std::thread::sleep(Duration::from_secs(1));

    assert_invariants(&bed);
    bed.progress("the whole capture, replayed");
    let everything = to_vip(&bed, usize::MAX);
    let before = delivered(&bed);
    let sent = attacker.send_at(5000, everything.iter().map(|f| f.as_slice()));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(delivered(&bed), before, "of {sent} replayed packets something was delivered");

    for target in ["t1", "t2"] {
        taps.push(bed.capture_end(&format!("tap-{target}")));
    }
    let twice = delivered_twice(&taps.iter().map(PathBuf::as_path).collect::<Vec<&Path>>());
    assert!(twice.is_empty(), "{} packets were delivered twice; the first: {:02x?}", twice.len(), twice[0]);
    let sequence = &sequences(&bed.capture_end("n-cl"))[&TO_CLIENT];
    bed.progress(&format!("{} packets to the client, the highest number {}", sequence.packets, sequence.highest));
    sequence.assert_unique();
}

/// The client's last `most` ESP packets so far, as the attacker sends them on: from its own MAC address, or the bridge would send
/// it what is for the client.
fn to_vip(bed: &Bed, most: usize) -> Vec<Vec<u8>> {
    let mine = |c: &Vec<u8>| matches!(Frame::parse(c).what, What::Esp { spi: TO_VIP, .. });
    let mut frames: Vec<Vec<u8>> = bed.frames("n-cl").filter(mine).map(readdress).collect();
    frames.drain(..frames.len().saturating_sub(most));
    frames
}
