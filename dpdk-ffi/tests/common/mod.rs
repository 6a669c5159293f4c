//! One DPDK per process, and pools with names of their own. `cargo nextest` gives each test a
//! process; under `cargo test` the tests of a file take turns.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dpdk_ffi::{Burst, Eal, EalConfig, HugePages, Mempool, MempoolConfig, RxQueue};

static EAL: OnceLock<Eal> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());
static POOLS: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub eal: Eal,
    _turn: MutexGuard<'static, ()>,
}

pub fn lab() -> Lab {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = EAL.get_or_init(|| {
        let config = EalConfig { memory_mb: 96, huge: HugePages::Off, ..EalConfig::default() };
        Eal::init(&config).expect("DPDK starts without huge pages")
    });
    Lab { eal: eal.clone(), _turn: turn }
}

impl Lab {
    pub fn pool(&self, count: u32) -> Mempool {
        self.pool_with(MempoolConfig { count, cache: 0, ..MempoolConfig::default() })
    }

    pub fn pool_with(&self, config: MempoolConfig) -> Mempool {
        let name = format!("pool{}", POOLS.fetch_add(1, Ordering::Relaxed));
        Mempool::new(&self.eal, &MempoolConfig { name, ..config }).expect("a small pool fits")
    }
}

pub fn is_root() -> bool {
    // SAFETY: no arguments, no effects.
    unsafe { libc::geteuid() == 0 }
}

/// Polls until `enough` says so, for two seconds at most.
pub fn poll<const N: usize>(rx: &mut RxQueue, burst: &mut Burst<N>, enough: impl Fn(&Burst<N>) -> bool) -> bool {
    for _ in 0..2000 {
        rx.rx_burst(burst);
        if enough(burst) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    false
}
