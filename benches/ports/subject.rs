//! Who is measured: a core of the data plane between its ports, or nothing but a loop between two.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dpdk_ffi::Burst;
use phalanx_aead::BURST;
use phalanx_dataplane::config::PortRole;
use phalanx_dataplane::{Command, CoreStats, Dataplane, EventReceiver};
use phalanx_wire::{Arp, CoreId, DropReason, Mac, arp};

use super::Way;
use super::feed::Feed;
use super::lab::{Counts, End, Lab, Measured, pin};
use super::shape::{APPLICATION, LINK, NETWORK, Shape, Side, config, vip_commands};

/// Answers to a question that was not yet asked: a core takes some milliseconds until it asks.
const ANSWERS: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Subject {
    pub side: Side,
    stats: Arc<CoreStats>,
    events: EventReceiver,
    /// The far ends of its ports, where they are here.
    ends: [Option<End>; 3],
    macs: [[u8; 6]; 3],
    _dataplane: Dataplane,
}

impl Subject {
    /// All of its ports lead here.
    pub fn on_memifs(lab: &mut Lab, side: Side) -> Subject {
        let wires: [(String, End); 3] = std::array::from_fn(|_| lab.memif());
        let devices = std::array::from_fn(|port| wires[port].0.clone());
        Subject::start(lab, side, devices, wires.map(|(_, end)| Some(end)))
    }

    /// A target whose application is a capture, and which sends to a port that drops what it is given. Only its link leads here.
    pub fn on_captures(lab: &mut Lab, capture: &Path) -> Subject {
        let (link, end) = lab.memif();
        let facts = config(Shape::ONE, Side::Target).ports.swap_remove(NETWORK);
        let (Some((std::net::IpAddr::V4(sender_ip), _)), Some(std::net::IpAddr::V4(target_ip))) =
            (facts.addresses.first().copied(), facts.gateways.first().copied())
        else {
            unreachable!("the bed is of IPv4")
        };
        let (operation, nobody) = (arp::Operation::Request, Mac([0; 6]));
        let asked = Arp { operation, sender_mac: Mac([0xff; 6]), sender_ip, target_mac: nobody, target_ip };
        let answer = arp::reply_frame(Mac([2, 0, 0, 0, 0, 0x77]), &asked).to_vec();
        let answers = lab.write("answers", &vec![answer; ANSWERS]);
        let network = lab.replay(&answers, false);
        let devices = [network, link, lab.replay(capture, true)];
        Subject::start(lab, Side::Target, devices, [None, Some(end), None])
    }

    fn start(lab: &Lab, side: Side, devices: [String; 3], ends: [Option<End>; 3]) -> Subject {
        let mut config = config(Shape::ONE, side);
        for (port, device) in config.ports.iter_mut().zip(devices) {
            // A driver with a number of bytes that it takes has more of them than this.
            (port.device, port.mtu) = (device, if port.role == PortRole::Link { 1600 } else { 1500 });
        }
        config.cores[0].cpu = Some(lab.cpu);
        let dataplane = Dataplane::start_on(&lab.eal, &config).unwrap_or_else(|error| panic!("{error}"));
        let stats = dataplane.stats(CoreId(0)).expect("a core");
        let macs = std::array::from_fn(|port| dataplane.ports()[port].mac());
        let sender = dataplane.commands(CoreId(0)).expect("a core");
        let mut commands = vip_commands(side);
        commands.extend(Shape::ONE.sa_commands(0, side));
        if side == Side::Target {
            commands.push(Command::SetFilters(Box::new(Shape::ONE.filters())));
        }
        for command in commands {
            assert!(sender.try_send(0, command).is_ok(), "a queue has room for a few");
        }
        Subject { side, stats, events: dataplane.events(), ends, macs, _dataplane: dataplane }
    }

    /// Whether what comes by that port is sent from here.
    pub fn has(&self, port: usize) -> bool {
        self.ends[port].is_some()
    }

    /// Sends, and takes whatever comes.
    fn turn(&mut self, lab: &Lab, from: usize, feed: &mut Feed, count: usize) -> usize {
        let sent = self.ends[from].as_mut().map_or(0, |end| end.send(&lab.pool, feed, count));
        self.ends.iter_mut().flatten().for_each(|end| end.receive(&lab.pool));
        while self.events.try_recv().is_some() {}
        sent
    }

    /// Sends packets one at a time until one comes through.
    pub fn once(&mut self, lab: &Lab, way: Way, feed: &mut Feed) {
        feed.address(self.macs[way.from]);
        let (stats, start) = (self.stats.clone(), Instant::now());
        let before = stats.stage(way.done);
        let mut sent = 0;
        while stats.stage(way.done) == before {
            assert!(start.elapsed() < PATIENCE, "{}: nothing came through; {}", way.name, self.words());
            // A link comes up, commands are obeyed, a next hop answers: all of it takes some time.
            let due = start.elapsed().as_millis() as usize / 100 + 1;
            sent += self.turn(lab, way.from, feed, usize::from(sent < due));
            rest();
        }
    }

    /// Sends as much as it takes.
    pub fn measure(&mut self, lab: &Lab, way: Way, feed: &mut Feed) -> Measured {
        feed.address(self.macs[way.from]);
        let stats = self.stats.clone();
        let counts = || Counts {
            packets: stats.stage(way.done),
            idle: stats.idle.value(),
            rounds: stats.loops.value(),
            busy: 0,
        };
        let turn = || {
            self.turn(lab, way.from, feed, BURST);
        };
        let measured = lab.measure(turn, counts);
        assert!(measured.times.best().is_finite(), "{}: nothing came through; {}", way.name, self.words());
        measured
    }

    /// What became of packets.
    fn words(&self) -> String {
        let ports = [NETWORK, LINK, APPLICATION].map(|port| {
            let counts = &self.stats.ports[port];
            (counts.rx.value(), counts.tx.value(), counts.tx_full.value())
        });
        let drops = DropReason::ALL.iter().map(|&why| (why.name(), self.stats.drops(why)));
        let drops: Vec<_> = drops.filter(|(_, count)| *count > 0).collect();
        format!("ports (in, out, full): {ports:?}, dropped: {drops:?}")
    }
}

/// Between two looks: the drivers' own threads may share this CPU, and find no time there if this one has real-time priority.
fn rest() {
    std::thread::sleep(Duration::from_micros(100));
}

/// A loop that sends by one port what it receives from another.
pub struct Forwarder {
    ends: Option<(End, End)>,
    /// Packets, and nanoseconds of the rounds that had some: who sends may be slower.
    counts: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    pub fn on_memifs(lab: &mut Lab) -> Forwarder {
        let [(from, sends), (to, takes)] = std::array::from_fn(|_| lab.memif());
        Forwarder::start(lab, &from, &to, Some((sends, takes)))
    }

    pub fn on_captures(lab: &mut Lab, capture: &Path) -> Forwarder {
        let nothing = lab.write("nothing", &[]);
        let [from, to] = [lab.replay(capture, true), lab.replay(&nothing, false)];
        Forwarder::start(lab, &from, &to, None)
    }

    fn start(lab: &Lab, from: &str, to: &str, ends: Option<(End, End)>) -> Forwarder {
        let [from, to] = [from, to].map(|device| lab.open(device).into_parts());
        let (counts, stop) = (Arc::<[AtomicU64; 2]>::default(), Arc::new(AtomicBool::new(false)));
        let (counted, stopped, eal, cpu) = (counts.clone(), stop.clone(), lab.eal.clone(), lab.cpu);
        let thread = std::thread::spawn(move || {
            let ((mut from, _from), (mut to, _to)) = (from, to);
            pin(cpu).expect("the core's CPU");
            let _registration = eal.register_thread().expect("DPDK knows few threads");
            let mut burst = Burst::<BURST>::new();
            while !stopped.load(Relaxed) {
                let start = Instant::now();
                let received = from.rx[0].rx_burst(&mut burst);
                if received == 0 {
                    continue;
                }
                to.tx[0].tx_burst(&mut burst);
                burst.clear();
                for (count, more) in counted.iter().zip([received as u64, start.elapsed().as_nanos() as u64]) {
                    count.store(count.load(Relaxed) + more, Relaxed);
                }
            }
        });
        Forwarder { ends, counts, stop, thread: Some(thread) }
    }

    pub fn measure(&mut self, lab: &Lab, feed: &mut Feed) -> Measured {
        let (ends, start) = (&mut self.ends, Instant::now());
        let counts = || {
            let [packets, busy] = std::array::from_fn(|n| self.counts[n].load(Relaxed));
            Counts { packets, busy, ..Counts::default() }
        };
        let mut turn = || {
            if let Some((sends, takes)) = ends {
                sends.send(&lab.pool, feed, BURST);
                takes.receive(&lab.pool);
            }
        };
        while counts().packets == 0 {
            assert!(start.elapsed() < PATIENCE, "nothing comes through two ports");
            turn();
            rest();
        }
        lab.measure(turn, counts)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
