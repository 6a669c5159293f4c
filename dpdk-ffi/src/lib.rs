//! A safe, small face on DPDK.
//!
//! | type | is |
//! |---|---|
//! | [`Eal`] | the process's one DPDK environment; a counted handle, cleaned up when the last one goes |
//! | [`Registration`] | says that this thread polls: it gets packet-pool caches of its own |
//! | [`Mempool`] | where packets come from |
//! | [`Mbuf`] | one packet, owned: not `Clone`, freed on drop, consumed by transmit |
//! | [`Burst`] | up to `N` packets in place, no allocation |
//! | [`Port`] | a device: a vdev string such as `net_tap0,iface=phx0`, or a PCI address |
//! | [`RxQueue`], [`TxQueue`] | what a poll loop holds of a started port: may be moved to a thread, not shared |
//! | [`ring`] | queues of packets between the threads of a process |
//! | [`tsc`] | the processor's clock |
//!
//! ```no_run
//! use dpdk_ffi::{Burst, Eal, EalConfig, Mempool, MempoolConfig, Port, PortConfig};
//!
//! # fn main() -> Result<(), dpdk_ffi::DpdkError> {
//! let eal = Eal::init(&EalConfig::default())?;
//! if let Some(warning) = eal.warning() {
//!     eprintln!("{warning}");
//! }
//! let pool = Mempool::new(&eal, &MempoolConfig { name: "packets".into(), ..MempoolConfig::default() })?;
//! let mut port = Port::open(&eal, "net_ring0")?;
//! port.configure(&PortConfig::default(), &pool)?;
//! let mut queues = port.start()?;
//!
//! std::thread::scope(|threads| {
//!     threads.spawn(|| {
//!         let _registration = eal.register_thread();
//!         let mut burst = Burst::<32>::new();
//!         queues.rx[0].rx_burst(&mut burst);
//!         queues.tx[0].tx_burst(&mut burst); // what was not sent stays in the burst
//!     });
//! });
//! # Ok(()) }
//! ```
//!
//! # What makes it sound
//! - A pool's memory goes back only when the last [`Eal`] handle goes, and not even then if a packet
//!   of it is still held somewhere: an [`Mbuf`] may outlive everything else.
//! - A packet handed out is never shared: receive refuses (frees and counts) chained packets and those
//!   with a second reference, and nothing here makes either.
//! - Queues exist only while their port runs, and a port stops only when no queue is left. A memif port, whose other end
//!   comes and goes, lets no burst into the driver meanwhile.
#![deny(missing_docs)]

mod burst;
mod device;
mod eal;
mod error;
mod gate;
mod host;
mod interrupts;
mod mbuf;
mod memif;
mod mempool;
mod port;
mod queue;
pub mod ring;
mod seqpacket;
mod setup;
mod thread;
mod tsc;

pub use burst::Burst;
pub use eal::{Eal, EalConfig, EalLog, HugePages};
pub use error::{DpdkError, Errno};
pub use mbuf::{Mbuf, NoRoom};
pub use mempool::{Mempool, MempoolConfig, PoolOps};
pub use port::{Link, Port, PortStats, Queues};
pub use queue::{RxQueue, TxQueue};
pub use setup::PortConfig;
pub use thread::{Registration, take_short_turns};
pub use tsc::tsc;
