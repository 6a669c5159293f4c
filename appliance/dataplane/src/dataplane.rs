//! Starting and stopping: EAL, packets, ports, rings, and one pinned thread per core.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;
use dpdk_ffi::ring::{self, Multi, RingReceiver, RingSender};
use dpdk_ffi::{DpdkError, Eal, EalConfig, Mempool, MempoolConfig, Port, PortConfig as DpdkPort, Queues};
use phalanx_steering::{Seed, SteeringError};
use phalanx_wire::{CoreId, Mac};

use crate::command::{Command, Event, Order};
use crate::config::{ConfigError, DataplaneConfig, Idle, PortRole};
use crate::core::{Core, OwnPort, Pool};
use crate::engine::Engine;
use crate::mail::Mail;
use crate::notes::{NoteBook, NoteReader, Notes};
use crate::outbox::Outbox;
use crate::stats::CoreStats;
use crate::world::World;

/// Notes about watched packets that wait to be read.
const NOTES: usize = 16_384;
/// Packets each core keeps for itself out of the pool.
const CACHE: u32 = 256;
/// DPDK's memory beyond packets: rings, descriptors, drivers.
const OTHER_MEMORY_MB: u32 = 48;
/// What a packet takes beyond its frame: headroom, its descriptor, alignment.
const PACKET_OVERHEAD: u32 = 512;

/// A running data plane. Stop it with [`Dataplane::stop`]; when dropped it stops too.
pub struct Dataplane {
    running: Vec<Running>,
    ports: Vec<Port>,
    pool: Mempool,
    large: Mempool,
    eal: Eal,
    notes: Arc<NoteBook>,
}

struct Running {
    id: CoreId,
    thread: Option<JoinHandle<Core>>,
    orders: Arc<ArrayQueue<Order>>,
    events: Arc<ArrayQueue<Event>>,
    stats: Arc<CoreStats>,
}

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// DPDK, with its own words.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// A table's limits.
    #[error("limits: {0}")]
    Limits(#[from] SteeringError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A core could not be pinned, or DPDK knows too many threads.
    #[error("core {} cannot run on CPU {cpu:?}: {why}", .core.0)]
    Core {
        /// The core.
        core: CoreId,
        /// The CPU it asks for.
        cpu: Option<usize>,
        /// What failed.
        why: String,
    },
}

impl Dataplane {
    /// Starts DPDK, then as [`Dataplane::start_on`]. A process can do this once.
    ///
    /// # Errors
    /// See [`DataplaneError`]; nothing runs then.
    pub fn start(config: &DataplaneConfig) -> Result<Dataplane, DataplaneError> {
        config.check()?;
        Self::start_on(&Eal::init(&eal_config(config))?, config)
    }

    /// Makes pool, ports and rings on a DPDK that runs, and starts the cores.
    ///
    /// # Errors
    /// See [`DataplaneError`]; nothing runs then.
    pub fn start_on(eal: &Eal, config: &DataplaneConfig) -> Result<Dataplane, DataplaneError> {
        config.check()?;
        // Names of DPDK's objects are unique in a process; data planes may follow each other.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let limits = &config.limits;
        let pool = Mempool::new(
            eal,
            &MempoolConfig {
                name: format!("packets{number}"),
                count: limits.packets,
                cache: CACHE,
                data_room: limits.frame,
                ..MempoolConfig::default()
            },
        )?;
        let large = Mempool::new(
            eal,
            &MempoolConfig {
                name: format!("large{number}"),
                count: limits.large_packets,
                cache: 0,
                data_room: limits.large_frame,
                ..MempoolConfig::default()
            },
        )?;
        let (ports, mut queues) = start_ports(eal, config, &pool)?;
        let macs: Vec<Mac> = ports.iter().zip(0..).map(|(port, at)| own_mac(port, at)).collect();
        let world = Arc::new(World::new(config, &macs));
        let rings: Result<Vec<_>, DpdkError> =
            (0..config.cores.len()).map(|core| ring::mpsc(eal, &format!("core{number}.{core}"), limits.ring)).collect();
        let (senders, receivers): (Vec<RingSender<Multi>>, Vec<RingReceiver>) = rings?.into_iter().unzip();

        let notes = NoteBook::new(NOTES);
        let mut dataplane = Dataplane { running: Vec::new(), ports, pool, large, eal: eal.clone(), notes };
        for (config_at, receiver) in receivers.into_iter().enumerate() {
            let rings = senders.iter().map(clone_sender).collect();
            let own = own_ports(&config.cores[config_at].ports, &mut queues);
            dataplane.start_core(config, config_at, &world, own, receiver, rings)?;
        }
        Ok(dataplane)
    }

    fn start_core(
        &mut self,
        config: &DataplaneConfig,
        at: usize,
        world: &Arc<World>,
        ports: Vec<OwnPort>,
        ring: RingReceiver,
        rings: Vec<RingSender<Multi>>,
    ) -> Result<(), DataplaneError> {
        let (core_config, limits) = (&config.cores[at], &config.limits);
        let stats = Arc::new(CoreStats::new(config.ports.len()));
        let orders = Arc::new(ArrayQueue::new(limits.commands.max(1)));
        let events = Arc::new(ArrayQueue::new(limits.events.max(1)));
        let mail = Mail::new(events.clone(), stats.clone());
        let out = Outbox::new(config.ports.len(), config.cores.len(), stats.clone());
        let out = out.watched(Notes::new(self.notes.clone(), core_config.id));
        let source = Pool { packets: self.pool.clone(), large: self.large.clone() };
        let engine = Engine::new(core_config, world.clone(), source, mail, out, [random_seed(), random_seed()])?;
        let core =
            Core { engine, ports, ring, rings, orders: orders.clone(), idle: core_config.idle, stats: stats.clone() };

        let (id, cpu, eal, idle) = (core_config.id, core_config.cpu, self.eal.clone(), core_config.idle);
        let (report, reported) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("phalanx-core{}", id.0)).spawn(move || {
            let mut core = core;
            let ready = settle_in(cpu, idle, &eal);
            let failed = ready.as_ref().err().cloned();
            let _ = report.send(failed); // the starter waits for it
            if let Ok(_registration) = ready {
                core.run();
            }
            core
        })?;
        let failed = reported.recv().unwrap_or(Some("the thread ended".into()));
        self.running.push(Running { id, thread: Some(thread), orders, events, stats });
        match failed {
            Some(why) => Err(DataplaneError::Core { core: id, cpu, why }),
            None => Ok(()),
        }
    }

    /// The cores that run.
    pub fn cores(&self) -> impl Iterator<Item = CoreId> + '_ {
        self.running.iter().map(|running| running.id)
    }

    /// The way of commands to a core; `None` if there is no such core.
    pub fn commands(&self, core: CoreId) -> Option<CommandSender> {
        self.of(core).map(|running| CommandSender(running.orders.clone()))
    }

    /// The events of all cores.
    pub fn events(&self) -> EventReceiver {
        EventReceiver { queues: self.running.iter().map(|running| running.events.clone()).collect(), next: 0 }
    }

    /// What happens to watched packets: see [`Command::Watch`].
    pub fn notes(&self) -> NoteReader {
        NoteReader(self.notes.clone())
    }

    /// What a core counts.
    pub fn stats(&self, core: CoreId) -> Option<Arc<CoreStats>> {
        self.of(core).map(|running| running.stats.clone())
    }

    /// The DPDK ports by index: link state, driver statistics, the host's interface name.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Packets of the pools that are under way somewhere.
    pub fn packets_in_use(&self) -> u32 {
        self.pool.in_use() + self.large.in_use()
    }

    /// What DPDK had to warn about at start: no huge pages.
    pub fn warning(&self) -> Option<&str> {
        self.eal.warning()
    }

    /// Whether packets live in huge pages.
    pub fn has_huge_pages(&self) -> bool {
        self.eal.has_huge_pages()
    }

    /// Stops all cores after what is under way was sent, and frees everything they had.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for running in &self.running {
            let mut stop = Order { token: 0, command: Command::Stop };
            // The queue may be full for the moment; a core that ended takes nothing more.
            while let (Err(back), false) = (running.orders.push(stop), running.ended()) {
                stop = back;
                while running.events.pop().is_some() {}
                std::thread::yield_now();
            }
        }
        let cores: Vec<Core> = self.running.iter_mut().filter_map(Running::join).collect();
        self.running.clear();
        drop(cores); // queues of the ports among them: before the ports
        self.ports.clear();
    }

    fn of(&self, core: CoreId) -> Option<&Running> {
        self.running.iter().find(|running| running.id == core)
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) -> Option<Core> {
        self.thread.take()?.join().ok()
    }
}

/// Sends commands to one core.
#[derive(Clone, Debug)]
pub struct CommandSender(Arc<ArrayQueue<Order>>);

impl CommandSender {
    /// Queues a command; gives it back when the queue is full, to be tried again after a while.
    ///
    /// # Errors
    /// The command.
    pub fn try_send(&self, token: u64, command: Command) -> Result<(), Command> {
        self.0.push(Order { token, command }).map_err(|order| order.command)
    }
}

/// Receives the events of all cores, in turn. Each event is received once, by whichever receiver asks first.
#[derive(Clone, Debug)]
pub struct EventReceiver {
    queues: Vec<Arc<ArrayQueue<Event>>>,
    next: usize,
}

impl EventReceiver {
    /// The next event, if there is one. Cores cannot wake anybody: ask about every millisecond.
    pub fn try_recv(&mut self) -> Option<Event> {
        for _ in 0..self.queues.len() {
            let at = self.next;
            self.next = (self.next + 1) % self.queues.len();
            if let Some(event) = self.queues[at].pop() {
                return Some(event);
            }
        }
        None
    }
}

/// Pins the thread and makes it known to DPDK. One that sleeps shares its CPU.
fn settle_in(cpu: Option<usize>, idle: Idle, eal: &Eal) -> Result<dpdk_ffi::Registration, String> {
    if let Some(id) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err("the CPU does not exist or is not allowed".into());
    }
    if matches!(idle, Idle::Sleep(_)) {
        dpdk_ffi::take_short_turns();
    }
    eal.register_thread().map_err(|error| error.to_string())
}

fn eal_config(config: &DataplaneConfig) -> EalConfig {
    let each = u32::from(config.limits.frame) + PACKET_OVERHEAD;
    let large = u32::from(config.limits.large_frame) + PACKET_OVERHEAD;
    let bytes = |count: u32, each: u32| u64::from(count) * u64::from(each);
    let packets = bytes(config.limits.packets, each) + bytes(config.limits.large_packets, large);
    let packets_mb = packets.div_ceil(1 << 20) as u32;
    let mut eal = config.eal.clone();
    eal.memory_mb = eal.memory_mb.max(packets_mb + OTHER_MEMORY_MB);
    // A vdev has a driver's name in front; a PCI address begins with digits and has colons.
    let is_pci = |device: &str| device.split(',').next().is_some_and(|address| address.contains(':'));
    eal.pci_allow.extend(config.ports.iter().map(|port| port.device.clone()).filter(|device| is_pci(device)));
    eal
}

fn start_ports(
    eal: &Eal,
    config: &DataplaneConfig,
    pool: &Mempool,
) -> Result<(Vec<Port>, HashMap<usize, Queues>), DpdkError> {
    let (mut ports, mut queues) = (Vec::new(), HashMap::new());
    for (at, facts) in config.ports.iter().enumerate() {
        let mut port = Port::open(eal, &facts.device)?;
        let settings = DpdkPort {
            rx_descriptors: config.limits.descriptors,
            tx_descriptors: config.limits.descriptors,
            mtu: Some(facts.mtu),
            // Neighbour solicitations come to multicast addresses.
            all_multicast: facts.role != PortRole::Application,
            ..DpdkPort::default()
        };
        port.configure(&settings, pool)?;
        queues.insert(at, port.start()?);
        ports.push(port);
    }
    Ok((ports, queues))
}

fn own_ports(indexes: &[usize], queues: &mut HashMap<usize, Queues>) -> Vec<OwnPort> {
    let take = |&index: &usize| {
        let Queues { mut rx, mut tx } = queues.remove(&index)?;
        Some(OwnPort { index, rx: rx.pop()?, tx: tx.pop()? })
    };
    indexes.iter().filter_map(take).collect()
}

fn clone_sender(sender: &RingSender<Multi>) -> RingSender<Multi> {
    sender.clone()
}

/// The port's address; a locally administered one for a device that has none (`net_ring`, `net_null`).
fn own_mac(port: &Port, at: u16) -> Mac {
    let [high, low] = at.to_be_bytes();
    Some(Mac(port.mac())).filter(|mac| mac.is_unicast()).unwrap_or(Mac([0x02, b'p', b'h', b'x', high, low]))
}

/// The standard library seeds its hashers with random keys of the operating system.
fn random_seed() -> Seed {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let word = || RandomState::new().build_hasher().finish();
    [word(), word()]
}
