//! Must show 3: kill -9 at random moments under load, many times each.

use crate::bed::{Bed, TO_CLIENT, TO_VIP, Tunnel, amount, wait_until};
use crate::client::{Client, now};
use crate::looks::{Wire, assert_invariants, connections_of, delivered, delivered_twice, network_mac};
use crate::raw::RawSender;
use crate::wire::{Frame, What, clear_syn, readdress, sequences};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn kills() -> usize {
    amount(20, 10) as usize
}

/// 0 to `below` milliseconds, from the clock's lowest digits: a moment that nobody chose.
fn random_moment(below: u32) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Duration::from_millis(u64::from(now.subsec_micros() % below))
}

#[test]
fn a_killed_target_is_forgotten_and_nothing_leaves_its_host_in_clear() {
    let bed = Bed::up(Tunnel::PLAIN);
    for port in ["n-cl", "n-t1", "n-t2"] {
        bed.capture("sw", port, port, &["-s", "160"]);
    }
    let attacker = RawSender::open(&bed.namespace("at"), "net0");
    let client = Client::new(&bed);
    let loads = [client.pages(), client.pages()];
    let mut slowest = 0;
    let kills = kills();
    for round in 1..=kills {
        let (victim, other) = if round % 2 == 0 { ("t2", "t1") } else { ("t1", "t2") };
        let (dies, lives) = (client.stream_from(victim), client.stream_from(other));
        std::thread::sleep(random_moment(500));

        bed.kill_hard(victim);
        let killed = now();
        let forgotten = wait_until("the router forgets the dead target", Duration::from_secs(2), || {
            connections_of(&bed, victim) == 0
        });
        // A load that had just been given the dead target knows it only when its SYN is repeated: any of them will do.
        let first = || loads.iter().flat_map(|load| load.after(killed)).min_by_key(|page| page.there);
        wait_until("new connections are served", Duration::from_secs(5), || first().is_some());
        let page = first().expect("there is one");
        assert_eq!(page.by, other, "the other target serves");
        slowest = slowest.max(page.there - killed);
        assert!(page.there - killed < 2_000_000, "a new connection was served after {} µs", page.there - killed);

        // In clear, to the dead target, to the living one and to the router.
        for node in [victim, other, "r"] {
            attacker.send(&clear_syn(network_mac(node), 80));
        }
        wait_until("the dead target's connection ends", Duration::from_secs(15), || dies.ended());
        lives.goes_on(Duration::from_secs(5));
        lives.stop();
        bed.start(victim);
        bed.wait_ready();
        let (forgotten, slowest) = (forgotten.as_millis(), slowest / 1000);
        bed.progress(&format!(
            "kill {round} of {kills}: {victim} forgotten after {forgotten} ms; new pages after {slowest} at most"
        ));
    }
    let pages: usize = loads.map(|load| load.stop().len()).iter().sum();
    bed.progress(&format!("{pages} pages in all"));
    assert!(pages > 50 * kills, "that was no load: {pages} pages");
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
    let client = Client::new(&bed);
    let streams = ["t1", "t2"].map(|target| client.stream_from(target));
    let load = client.pages();
    let kills = kills();
    for round in 1..=kills {
        std::thread::sleep(Duration::from_millis(200) + random_moment(800));
        bed.kill_hard("r");
        let killed = Instant::now();
        let old = to_vip(&bed, 300);
        bed.start("r");
        // While it gathers, and then when it has: nothing of the past may get in.
        attacker.send_at(2000, old.iter().map(|f| f.as_slice()));
        for stream in &streams {
            stream.goes_on(Duration::from_secs(20));
        }
        let resumed = killed.elapsed().as_millis();
        bed.wait_ready();
        let tap = format!("tap-r-{round}");
        bed.capture("r", "vip0", &tap, &[]);
        taps.push(bed.file(&format!("pcap/{tap}.pcap")));
        let ready = now();
        // A SYN is taken once the client's numbers are above the durable ceiling.
        let served =
            wait_until("new connections are served", Duration::from_secs(20), || !load.after(ready).is_empty())
                .as_millis();
        attacker.send_at(2000, old.iter().map(|f| f.as_slice()));
        bed.progress(&format!(
            "kill {round} of {kills}: streams went on after {resumed} ms, new pages came {served} ms later"
        ));
    }
    assert!(!streams.iter().any(|stream| stream.ended()), "the first connections lived through all of it");
    streams.into_iter().for_each(|stream| stream.stop());
    bed.progress(&format!("{} pages in all", load.stop().len()));
    std::thread::sleep(Duration::from_secs(1));
    assert_invariants(&bed);

    let everything = to_vip(&bed, usize::MAX);
    bed.progress(&format!("the whole capture, {} packets, replayed", everything.len()));
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
