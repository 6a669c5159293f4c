//! Where measurements stand: DPDK, the two CPUs, and the far ends of a core's ports.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dpdk_ffi::{Burst, Eal, EalConfig, Mempool, MempoolConfig, Port, PortConfig, Queues, Registration};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use phalanx_aead::BURST;
use phalanx_wire::{Mac, arp};
use tempfile::TempDir;

use super::bed::question;
use super::feed::Feed;
use super::harness::{Samples, note};

/// Intervals that are measured, and how long each is, behind a longer one for the caches.
const INTERVALS: usize = 15;
const INTERVAL: Duration = Duration::from_millis(20);
/// A link's, without GRE and outer headers.
const MTU: u16 = 1600;
const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

pub struct Lab {
    pub eal: Eal,
    pub pool: Mempool,
    /// Of the core that is measured; this thread is on the other one.
    pub cpu: usize,
    pub other_cpu: usize,
    /// Of sockets.
    folder: TempDir,
    captures: PathBuf,
    devices: u32,
    _registration: Registration,
}

/// What came of it.
pub struct Measured {
    /// Of a packet.
    pub times: Samples,
    /// The share of rounds in which the core had nothing to do.
    pub idle: f64,
}

impl Lab {
    /// The first CPU that this process may have is this thread's, the last one the core's. `--captures FOLDER` says where captures
    /// stay.
    ///
    /// # Errors
    /// Words, where there are not two, or no DPDK.
    pub fn new() -> Result<Lab, String> {
        let mine = sched_getaffinity(Pid::from_raw(0)).map_err(|error| error.to_string())?;
        let mut cpus = (0..CpuSet::count()).filter(|&cpu| mine.is_set(cpu).unwrap_or(false));
        let (first, last) = (cpus.next(), cpus.next_back());
        let (Some(first), Some(cpu)) = (first, last) else {
            return Err("two CPUs are needed: one for the core, one for who sends to it".into());
        };
        let config = EalConfig { memory_mb: 512, ..EalConfig::default() };
        let eal = Eal::init(&config).map_err(|error| error.to_string())?;
        note(if eal.has_huge_pages() { "packets are in huge pages" } else { "packets are in ordinary pages" });
        pin(first)?;
        let registration = eal.register_thread().map_err(|error| error.to_string())?;
        let config = MempoolConfig { name: "world".into(), count: 16_383, ..MempoolConfig::default() };
        let pool = Mempool::new(&eal, &config).map_err(|error| error.to_string())?;
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let given = std::env::args().skip_while(|argument| argument != "--captures").nth(1);
        let captures = given.map_or_else(|| folder.path().to_owned(), PathBuf::from);
        std::fs::create_dir_all(&captures).map_err(|error| format!("{}: {error}", captures.display()))?;
        Ok(Lab { eal, pool, cpu, other_cpu: first, folder, captures, devices: 0, _registration: registration })
    }

    /// For whatever ends with this.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn number(&mut self) -> u32 {
        self.devices += 1;
        self.devices
    }

    /// A memif: the device for the core, and this end of it.
    pub fn memif(&mut self) -> (String, End) {
        let (ours, theirs) = (self.number(), self.number());
        let socket = self.folder.path().join(format!("m{ours}"));
        let device = |number, role| format!("net_memif{number},role={role},socket={}", socket.display());
        let end = self.open(&device(ours, "server"));
        (device(theirs, "client"), end)
    }

    /// A device that replays a capture, endlessly or once, and drops what it is given.
    pub fn replay(&mut self, capture: &Path, endless: bool) -> String {
        let number = self.number();
        format!("net_pcap{number},rx_pcap={},infinite_rx={}", capture.display(), u8::from(endless))
    }

    /// A capture of Ethernet frames, as tcpdump writes it.
    pub fn write(&self, name: &str, frames: &[Vec<u8>]) -> PathBuf {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
        for frame in frames {
            bytes.extend(words(&[0, 0, frame.len() as u32, frame.len() as u32]));
            bytes.extend(frame);
        }
        let path = self.captures.join(format!("{name}.pcap"));
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    pub fn open(&self, device: &str) -> End {
        let mut port = Port::open(&self.eal, device).unwrap_or_else(|error| panic!("{error}"));
        let config = PortConfig { mtu: Some(MTU), rx_descriptors: 1024, tx_descriptors: 1024, ..PortConfig::default() };
        port.configure(&config, &self.pool).unwrap_or_else(|error| panic!("{error}"));
        let queues = port.start().unwrap_or_else(|error| panic!("{error}"));
        End { queues, waiting: Burst::new(), _port: port }
    }

    /// Sends and receives for some intervals, and reads `count` between them.
    pub fn measure(&self, mut turn: impl FnMut(), count: impl Fn() -> Counts) -> Measured {
        let mut interval = |length: Duration| {
            let (start, before) = (Instant::now(), count());
            while start.elapsed() < length {
                turn();
            }
            let (wall, after) = (start.elapsed().as_nanos() as f64, count());
            let more = |of: fn(&Counts) -> u64| (of(&after) - of(&before)) as f64;
            let ns = if after.busy == 0 { wall } else { more(|counts| counts.busy) };
            (ns / more(|counts| counts.packets), more(|counts| counts.idle) / more(|counts| counts.rounds).max(1.0))
        };
        interval(4 * INTERVAL);
        let all: Vec<(f64, f64)> = (0..INTERVALS).map(|_| interval(INTERVAL)).collect();
        let idle = all.iter().map(|(_, idle)| idle).sum::<f64>() / INTERVALS as f64;
        Measured { times: Samples::of(all.into_iter().map(|(ns, _)| ns).collect()), idle }
    }
}

/// What a core or loop counts.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// That came through.
    pub packets: u64,
    /// Rounds without any.
    pub idle: u64,
    pub rounds: u64,
    /// Nanoseconds of rounds with some; 0: all time counts.
    pub busy: u64,
}

/// This end of a device.
pub struct End {
    queues: Queues,
    /// Frames that the other side has no room for yet.
    waiting: Burst<BURST>,
    _port: Port,
}

impl End {
    /// The queues, for somebody else's thread.
    pub fn into_parts(self) -> (Queues, Port) {
        (self.queues, self._port)
    }

    /// Sends as much of the feed as the other side takes, at most `count` at a time. Answers how many.
    pub fn send(&mut self, pool: &Mempool, feed: &mut Feed, count: usize) -> usize {
        if self.waiting.is_empty() {
            feed.fill(pool, &mut self.waiting, count);
        }
        self.queues.tx[0].tx_burst(&mut self.waiting)
    }

    /// Takes what came, and says who has an address that is asked for.
    pub fn receive(&mut self, pool: &Mempool) {
        let mut burst = Burst::<BURST>::new();
        while self.queues.rx[0].rx_burst(&mut burst) > 0 {
            for asked in burst.iter().filter_map(|frame| question(frame.data())) {
                let mut answer = Burst::<1>::new();
                let _ = answer.push(pool.alloc_with(&arp::reply_frame(NEIGHBOUR, &asked)).expect("a packet"));
                self.queues.tx[0].tx_burst(&mut answer);
            }
            burst.clear();
        }
    }
}

/// Puts the calling thread on a CPU.
///
/// # Errors
/// Words, where it may not go there.
pub fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(|error| error.to_string())
}
