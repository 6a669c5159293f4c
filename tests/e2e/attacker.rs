//! Must show 4: an attacker on the network, and what becomes of its packets.

use crate::bed::{Bed, TO_VIP, Tunnel, wait_until};
use crate::client::Client;
use crate::looks::{
    all_drops, assert_invariants, connections, delivered, delivered_twice, link_mac, network_mac, number,
};
use crate::raw::RawSender;
use crate::wire::{Capture, ForgedLink, Frame, What, clear_syn, esp_offset, fix_ipv4, readdress};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Attack packets per second: far below a fifth of what the bed's ports carry.
const RATE: u32 = 1000;
/// Packets of each kind.
const EACH: usize = 3000;

/// What the bed looks like while it is attacked.
struct Scene {
    bed: Rc<Bed>,
    sender: RawSender,
    /// The capture at the client's port, as far as it was read.
    wire: Capture,
    /// The client's latest packet.
    latest: Vec<u8>,
    /// Client packets so far, genuine ones only: the attacker's do not pass the client's port.
    genuine: u64,
    /// Fixed seed: the same attack every time.
    random: u64,
    drops: BTreeMap<String, u64>,
}

impl Scene {
    fn set() -> Scene {
        let bed = Rc::new(Bed::up(Tunnel { window: 1024, ..Tunnel::PLAIN }));
        for target in ["r", "t1", "t2"] {
            bed.capture(target, "vip0", &format!("tap-{target}"), &[]);
        }
        bed.capture("sw", "n-cl", "n-cl", &["esp", "and", "dst", "host", "10.77.0.100"]);
        let sender = RawSender::open(&bed.namespace("at"), "net0");
        let wire = bed.frames("n-cl");
        let drops = all_drops(&bed);
        Scene { bed, sender, wire, latest: Vec::new(), genuine: 0, random: 0x9e37_79b9_7f4a_7c15, drops }
    }

    /// xorshift64
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    /// Reads what the client sent meanwhile.
    fn look(&mut self) {
        for captured in self.wire.by_ref() {
            if matches!(Frame::parse(&captured).what, What::Esp { spi: TO_VIP, .. }) {
                self.genuine += 1;
                self.latest = captured;
            }
        }
    }

    /// A genuine packet of just now, with the number it would have `ahead` packets later.
    fn ahead(&mut self, ahead: u32) -> Vec<u8> {
        self.look();
        let mut frame = readdress(self.latest.clone());
        let at = esp_offset(&frame) + 4;
        let number = u32::from_be_bytes(frame[at..at + 4].try_into().expect("4 bytes")) + ahead;
        frame[at..at + 4].copy_from_slice(&number.to_be_bytes());
        frame
    }

    /// Sends `EACH` frames evenly, each made at its moment from what is on the wire then; then says which reasons counted them.
    fn attack(&mut self, name: &str, mut make: impl FnMut(&mut Scene) -> Vec<u8>, reasons: &[&str]) {
        let start = Instant::now();
        for i in 0..EACH {
            let frame = make(self);
            let due = start + Duration::from_secs(1) * u32::try_from(i).expect("few") / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.sender.send(&frame);
        }
        std::thread::sleep(Duration::from_millis(300));
        self.judge_drops(name, reasons);
    }

    fn judge_drops(&mut self, name: &str, reasons: &[&str]) {
        let now = all_drops(&self.bed);
        let counted: BTreeMap<String, u64> = now
            .iter()
            .map(|(reason, n)| (reason.clone(), n - self.drops.get(reason).copied().unwrap_or(0)))
            .filter(|(_, n)| *n > 0)
            .collect();
        self.bed.progress(&format!("{name}: {counted:?}"));
        let expected: u64 = reasons.iter().filter_map(|r| counted.get(*r)).sum();
        let total: u64 = counted.values().sum();
        assert!(
            expected * 100 >= EACH as u64 * 99,
            "{name}: {expected} of {EACH} were counted under {reasons:?}: {counted:?}"
        );
        assert!(total <= EACH as u64 + 20, "{name}: more was dropped than was sent: {counted:?}");
        self.drops = now;
    }
}

#[test]
fn an_attacker_delivers_nothing_makes_no_state_and_costs_no_packet() {
    let mut scene = Scene::set();
    let bed = scene.bed.clone();
    let client = Client::new(&bed);
    let delivered_before = delivered(&bed);
    let streams = ["t1", "t2"].map(|target| client.stream_from(target));
    scene.look();
    let syn = first_packet(&scene);
    wait_until("one stream to each target is left", Duration::from_secs(10), || connections(&bed) == 2);

    scene.attack("replays of captured packets", |s| s.ahead(0), &["replay", "too-old"]);
    scene.attack("genuine packets, renumbered ahead of the genuine ones", forge_ahead, &["bad-icv"]);
    scene.attack("bits flipped", flip, &["bad-icv"]);
    scene.attack("packets cut short", truncate, &["bad-icv", "bad-padding", "runt"]);
    scene.attack("unknown SPIs", unknown_spi, &["unknown-spi"]);
    scene.attack("SYNs with a bad ICV", |s| renumber_syn(s, &syn), &["bad-icv"]);
    scene.attack(
        "SYNs in clear",
        |s| clear_syn(network_mac(["r", "t1", "t2"][s.random(3)]), 80),
        &["clear-to-vip", "not-for-us"],
    );
    scene.attack("link packets on the network", link_from_network, &["link-forged", "not-for-us"]);
    scene.sender = RawSender::open(&scene.bed.namespace("at"), "link0");
    scene.attack("link packets from a stranger", link_from_stranger, &["link-forged"]);
    scene.attack("link headers", link_headers, &["link-version", "link-vip", "link-epoch"]);

    assert_eq!(connections(&bed), 2, "no connection was made or lost");
    for stream in streams {
        stream.goes_on(Duration::from_secs(5));
        stream.stop();
    }
    std::thread::sleep(Duration::from_millis(500));
    scene.look();
    // The one sum that proves both halves: more would be something forged or repeated, less something genuine lost.
    assert_eq!(delivered(&scene.bed) - delivered_before, scene.genuine, "exactly the client's packets were delivered");
    let taps = ["r", "t1", "t2"].map(|n| scene.bed.capture_end(&format!("tap-{n}")));
    assert_eq!(delivered_twice(&taps.each_ref().map(|p| p.as_path())), Vec::<Vec<u8>>::new());
    assert_invariants(&scene.bed);
    assert_eq!(scene.bed.xfrm_errors(), [], "nothing of it reached the client either");
}

/// The first ESP packet the client ever sent through this tunnel is a SYN.
fn first_packet(scene: &Scene) -> Vec<u8> {
    readdress(scene.bed.frames("n-cl").next().expect("the stream's SYN"))
}

fn forge_ahead(scene: &mut Scene) -> Vec<u8> {
    let ahead = 1 + scene.random(32) as u32;
    scene.ahead(ahead)
}

/// One bit of the ciphertext or ICV, in a packet whose number is fresh.
fn flip(scene: &mut Scene) -> Vec<u8> {
    let mut frame = scene.ahead(40);
    let from = esp_offset(&frame) + 8;
    let at = from + scene.random(frame.len() - from);
    frame[at] ^= 1 << scene.random(8);
    frame
}

fn truncate(scene: &mut Scene) -> Vec<u8> {
    let mut frame = scene.ahead(41);
    let keep = esp_offset(&frame) + scene.random(frame.len() - esp_offset(&frame));
    frame.truncate(keep);
    fix_ipv4(&mut frame);
    frame
}

fn unknown_spi(scene: &mut Scene) -> Vec<u8> {
    let mut frame = scene.ahead(42);
    let at = esp_offset(&frame);
    let spi = 0x4000_0000 | scene.random(1 << 29) as u32;
    frame[at..at + 4].copy_from_slice(&spi.to_be_bytes());
    frame
}

fn renumber_syn(scene: &mut Scene, syn: &[u8]) -> Vec<u8> {
    let fresh = scene.ahead(43);
    let at = esp_offset(&fresh) + 4;
    let mut frame = syn.to_vec();
    frame[at..at + 4].copy_from_slice(&fresh[at..at + 4]);
    frame
}

/// From the network, with the router's link address: only the link may bring such.
fn link_from_network(scene: &mut Scene) -> Vec<u8> {
    let target = ["t1", "t2"][scene.random(2)];
    let forged =
        ForgedLink { to: network_mac(target), source: 1, target: number(target), version: 1, vip: 4, epoch: 1 };
    forged.frame(&scene.latest[14..])
}

/// Onto the link, from an address that is no router's.
fn link_from_stranger(scene: &mut Scene) -> Vec<u8> {
    let target = ["t1", "t2"][scene.random(2)];
    let forged = ForgedLink { to: link_mac(target), source: 66, target: number(target), version: 1, vip: 4, epoch: 1 };
    forged.frame(&scene.latest[14..])
}

/// Onto the link and from the router's address, with a header that is wrong in one of three ways.
fn link_headers(scene: &mut Scene) -> Vec<u8> {
    let target = ["t1", "t2"][scene.random(2)];
    let good = ForgedLink { to: link_mac(target), source: 1, target: number(target), version: 1, vip: 4, epoch: 1 };
    let forged = match scene.random(3) {
        0 => ForgedLink { version: 9, ..good },
        1 => ForgedLink { vip: 999, ..good },
        _ => ForgedLink { epoch: 0, ..good },
    };
    forged.frame(&scene.latest[14..])
}
