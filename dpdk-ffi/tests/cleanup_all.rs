//! The end of DPDK when nothing is held: its memory and threads go.

use dpdk_ffi::{Eal, EalConfig, HugePages, Mempool, MempoolConfig};

#[test]
fn nothing_of_dpdk_stays_when_nothing_is_held() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let eal = Eal::init(&EalConfig { memory_mb: 64, huge: HugePages::Off, ..EalConfig::default() }).unwrap();
    let pool = Mempool::new(&eal, &MempoolConfig { count: 63, ..MempoolConfig::default() }).unwrap();
    let registration = eal.register_thread().unwrap();
    drop(pool.alloc());
    drop(eal);
    assert!(threads() > before, "a pool handle and a registration keep it");
    drop((registration, pool));
    assert!(threads() <= before + 1, "{} threads, {before} before", threads());
}
