//! The end of DPDK: one test, because a process has one.

use dpdk_ffi::{DpdkError, Eal, EalConfig, HugePages, Mempool, MempoolConfig, Port, PortConfig};

#[test]
fn dpdk_is_cleaned_up_with_its_last_handle_and_a_held_packet_stays_valid() {
    let config = EalConfig { memory_mb: 64, huge: HugePages::Auto, ..EalConfig::default() };
    let eal = Eal::init(&config).unwrap();
    assert_eq!(eal.warning().is_none(), eal.has_huge_pages(), "{:?}", eal.warning());
    let pool = Mempool::new(&eal, &MempoolConfig { count: 63, cache: 0, ..MempoolConfig::default() }).unwrap();
    let mut port = Port::open(&eal, "net_ring0").unwrap();
    port.configure(&PortConfig::default(), &pool).unwrap();
    let queues = port.start().unwrap();
    let packet = pool.alloc_with(b"held").unwrap();
    drop((eal, pool, port, queues));
    assert_eq!(packet.data(), b"held", "a packet outlives everything else");
    drop(packet);
    assert!(matches!(Eal::init(&config), Err(DpdkError::AlreadyInitialised)));
}
