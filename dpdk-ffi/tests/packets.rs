//! Packets, bursts, pools, rings and software ports without a host.

mod common;

use std::collections::VecDeque;

use common::{lab, poll};
use dpdk_ffi::{Burst, DpdkError, Eal, EalConfig, Mbuf, Mempool, MempoolConfig, NoRoom, Port, PortConfig};
use proptest::prelude::*;

#[test]
fn a_packet_starts_empty_with_headroom_and_goes_back_when_dropped() {
    let lab = lab();
    let pool = lab.pool(63);
    let packet = pool.alloc().unwrap();
    assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (0, 128, 2048));
    assert_eq!((packet.is_empty(), packet.port(), pool.in_use()), (true, u16::MAX, 1));
    drop(packet);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_packet_grows_and_shrinks_at_both_ends() {
    let lab = lab();
    let pool = lab.pool(63);
    let mut packet = pool.alloc_with(b"payload").unwrap();
    packet.prepend(4).unwrap().copy_from_slice(b"head");
    packet.append(4).unwrap().copy_from_slice(b"tail");
    assert_eq!(packet.data(), b"headpayloadtail");
    packet.trim_front(4);
    packet.trim_back(4);
    assert_eq!(packet.data(), b"payload");
    assert_eq!(packet.prepend(129).unwrap_err(), NoRoom);
    assert_eq!(packet.append(2048).unwrap_err(), NoRoom);
    assert_eq!(packet.data(), b"payload", "what did not fit changed nothing");
    packet.trim_front(1000);
    assert_eq!(packet.data(), b"", "more than there is cuts all there is");
}

#[derive(Clone, Debug)]
enum Step {
    Prepend(usize),
    Append(usize),
    TrimFront(usize),
    TrimBack(usize),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_packet_behaves_as_a_queue_of_bytes(steps in proptest::collection::vec(prop_oneof![
        (0_usize..200).prop_map(Step::Prepend),
        (0_usize..900).prop_map(Step::Append),
        (0_usize..300).prop_map(Step::TrimFront),
        (0_usize..300).prop_map(Step::TrimBack),
    ], 0..40)) {
        let lab = lab();
        let pool = lab.pool(3);
        let mut packet = pool.alloc().unwrap();
        let mut model = VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            let byte = number as u8;
            let (front, back) = (packet.headroom(), packet.tailroom());
            match step {
                Step::Prepend(n) => match packet.prepend(n) {
                    Ok(bytes) => { bytes.fill(byte); for _ in 0..n { model.push_front(byte) } }
                    Err(NoRoom) => prop_assert!(n > front),
                },
                Step::Append(n) => match packet.append(n) {
                    Ok(bytes) => { bytes.fill(byte); model.extend(std::iter::repeat_n(byte, n)) }
                    Err(NoRoom) => prop_assert!(n > back),
                },
                Step::TrimFront(n) => { packet.trim_front(n); model.drain(..n.min(model.len())); }
                Step::TrimBack(n) => { packet.trim_back(n); model.truncate(model.len() - n.min(model.len())); }
            }
            prop_assert_eq!(packet.headroom() + packet.len() + packet.tailroom(), 128 + 2048);
            prop_assert!(packet.data().iter().eq(model.iter()));
        }
        let copy = pool.copy(&packet).unwrap();
        prop_assert_eq!((copy.data(), copy.headroom()), (packet.data(), packet.headroom()));
    }
}

#[test]
fn a_copy_goes_where_it_fits_or_nowhere() {
    let lab = lab();
    let (large, small) =
        (lab.pool(7), lab.pool_with(MempoolConfig { count: 7, data_room: 256, ..MempoolConfig::default() }));
    let packet = large.alloc_with(&[7; 300]).unwrap();
    let copy = small.copy(&packet).unwrap();
    assert_eq!((copy.data(), copy.headroom()), (packet.data(), 84), "less headroom rather than none");
    assert!(small.copy(&large.alloc_with(&[7; 400]).unwrap()).is_none());
    assert_eq!((large.in_use(), small.in_use()), (1, 1));
}

#[test]
fn an_exhausted_pool_says_so_and_recovers() {
    let lab = lab();
    let pool = lab.pool(31);
    let held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((held.len(), pool.available()), (31, 0));
    assert_eq!(pool.alloc_burst(&mut Burst::<8>::new(), 1), Err(NoRoom));
    drop(held);
    assert_eq!(pool.available(), 31);
}

#[test]
fn a_burst_takes_n_and_frees_what_is_left_in_it() {
    let lab = lab();
    let pool = lab.pool(63);
    let mut burst = Burst::<4>::new();
    pool.alloc_burst(&mut burst, 3).unwrap();
    assert_eq!(pool.alloc_burst(&mut burst, 2), Err(NoRoom), "all or none");
    burst.push(pool.alloc_with(b"last").unwrap()).unwrap();
    assert!(burst.is_full());
    let refused = burst.push(pool.alloc_with(b"more").unwrap()).unwrap_err();
    assert_eq!(refused.data(), b"more");
    drop(refused);
    assert_eq!(burst.pop().unwrap().data(), b"last");
    for packet in &mut burst {
        packet.append(1).unwrap()[0] = 1;
    }
    assert!(burst.iter().all(|packet| packet.data() == [1]));
    assert_eq!(burst.drain().take(1).count(), 1);
    assert_eq!(pool.in_use(), 0, "what a drain does not hand out is freed");
    pool.alloc_burst(&mut burst, 4).unwrap();
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn packets_move_from_burst_to_burst_while_there_is_room() {
    let lab = lab();
    let pool = lab.pool(63);
    let (mut from, mut to) = (Burst::<8>::new(), Burst::<4>::new());
    pool.alloc_burst(&mut from, 6).unwrap();
    pool.alloc_burst(&mut to, 1).unwrap();
    assert_eq!((to.take_from(&mut from), to.len(), from.len()), (3, 4, 3));
    assert_eq!(to.into_iter().count() + from.into_iter().count(), 7);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn net_ring_hands_back_what_was_sent_without_copying() {
    let lab = lab();
    let pool = lab.pool(255);
    let mut port = Port::open(&lab.eal, "net_ring0").unwrap();
    port.configure(&PortConfig { mtu: Some(1500), promiscuous: true, ..PortConfig::default() }, &pool).unwrap();
    let mut queues = port.start().unwrap();
    let mut burst = Burst::<32>::new();
    for number in 0..32_u8 {
        burst.push(pool.alloc_with(&[number; 60]).unwrap()).unwrap();
    }
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 32);
    assert!(burst.is_empty());
    assert_eq!(pool.in_use(), 32, "they are in the ring");
    assert!(poll(&mut queues.rx[0], &mut burst, Burst::is_full));
    assert!(burst.iter().enumerate().all(|(number, packet)| packet.data() == [number as u8; 60]));
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets), (32, 32));
    assert_eq!(port.driver(), "net_ring");
    drop((burst, queues, port));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn what_a_full_device_does_not_take_stays_in_the_burst_in_order() {
    let lab = lab();
    let pool = lab.pool(4095);
    let mut port = Port::open(&lab.eal, "net_ring1").unwrap();
    port.configure(&PortConfig::default(), &pool).unwrap();
    let mut queues = port.start().unwrap();
    let mut total = 0_usize;
    let mut burst = Burst::<64>::new();
    loop {
        while !burst.is_full() {
            burst.push(pool.alloc_with(&(total + burst.len()).to_be_bytes()).unwrap()).unwrap();
        }
        let sent = queues.tx[0].tx_burst(&mut burst);
        total += sent;
        if sent < 64 {
            break;
        }
    }
    assert_eq!(burst.len(), 64 - total % 64);
    assert_eq!(burst.as_slice()[0].data(), total.to_be_bytes());
    burst.clear();
    let mut seen = 0;
    while queues.rx[0].rx_burst(&mut burst) > 0 {
        for packet in burst.drain() {
            assert_eq!(packet.data(), usize::to_be_bytes(seen));
            seen += 1;
        }
    }
    assert_eq!((seen, pool.in_use(), queues.rx[0].rejected()), (total, 0, 0));
}

#[test]
fn net_null_swallows_and_invents() {
    let lab = lab();
    let pool = lab.pool(255);
    let mut port = Port::open(&lab.eal, "net_null0,size=64").unwrap();
    port.configure(&PortConfig::default(), &pool).unwrap();
    let mut queues = port.start().unwrap();
    let mut burst = Burst::<32>::new();
    assert_eq!(queues.rx[0].rx_burst(&mut burst), 32);
    assert!(burst.iter().all(|packet| packet.len() == 64));
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 32);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_port_stops_only_without_queues_and_starts_again() {
    let lab = lab();
    let pool = lab.pool(255);
    let mut port = Port::open(&lab.eal, "net_ring2").unwrap();
    assert!(matches!(port.start(), Err(DpdkError::WrongState { .. })));
    port.configure(&PortConfig::default(), &pool).unwrap();
    let queues = port.start().unwrap();
    assert!(matches!(port.stop(), Err(DpdkError::QueuesInUse { .. })));
    assert!(matches!(port.configure(&PortConfig::default(), &pool), Err(DpdkError::WrongState { .. })));
    drop(queues);
    port.stop().unwrap();
    port.configure(&PortConfig::default(), &pool).unwrap();
    let mut queues = port.start().unwrap();
    drop(port);
    // The queues keep the port alive.
    let mut burst = Burst::<8>::new();
    burst.push(pool.alloc_with(b"x").unwrap()).unwrap();
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 1);
    drop(queues);
    assert_eq!(pool.in_use(), 0, "the last queue closed the port and freed what was in it");
    Port::open(&lab.eal, "net_ring2").expect("the name is free again");
}

#[test]
fn a_port_has_one_handle() {
    let lab = lab();
    let port = Port::open(&lab.eal, "net_null1").unwrap();
    assert!(matches!(Port::open(&lab.eal, "net_null1"), Err(DpdkError::WrongState { .. })));
    drop(port);
    Port::open(&lab.eal, "net_null1").unwrap();
}

#[test]
fn too_many_queues_and_too_large_an_mtu_are_refused_with_numbers() {
    let lab = lab();
    let pool = lab.pool(255);
    let mut port = Port::open(&lab.eal, "net_ring3").unwrap();
    let config = PortConfig { rx_queues: 1000, ..PortConfig::default() };
    assert!(matches!(port.configure(&config, &pool), Err(DpdkError::TooManyQueues { wanted: 1000, .. })));
    let config = PortConfig { mtu: Some(2031), ..PortConfig::default() };
    assert!(matches!(port.configure(&config, &pool), Err(DpdkError::MtuTooLarge { most: 2030, .. })));
}

#[test]
fn a_missing_driver_is_named_with_its_package() {
    let lab = lab();
    let error = Port::open(&lab.eal, "net_nosuch0,iface=x").unwrap_err();
    assert!(matches!(&error, DpdkError::NoDriver { driver, .. } if driver == "net_nosuch"), "{error}");
    let text = error.to_string();
    assert!(text.contains("net_nosuch0") && text.contains("apt-get install dpdk librte-net-nosuch23"), "{text}");
}

#[test]
fn a_driver_that_refuses_is_quoted() {
    let lab = lab();
    let error = Port::open(&lab.eal, "net_null7,nonsense=1").unwrap_err();
    assert!(matches!(error, DpdkError::Port { step: "be attached", .. }), "{error}");
    assert!(error.to_string().contains("DPDK says"), "{error}");
}

#[test]
fn a_pci_device_that_is_not_there_is_named() {
    let lab = lab();
    let error = Port::open(&lab.eal, "ffff:ff:1f.7").unwrap_err();
    assert!(matches!(error, DpdkError::NoDevice { .. }), "{error}");
    assert!(error.to_string().contains("lspci"), "{error}");
}

#[test]
fn names_are_checked_and_unique() {
    let lab = lab();
    let config = MempoolConfig { name: "twice".into(), count: 7, cache: 0, ..MempoolConfig::default() };
    let _first = Mempool::new(&lab.eal, &config).unwrap();
    let error = Mempool::new(&lab.eal, &config).unwrap_err();
    assert!(error.to_string().contains("the name is taken"), "{error}");
    let config = MempoolConfig { name: "much too long for the name of a pool".into(), ..config };
    assert!(matches!(Mempool::new(&lab.eal, &config), Err(DpdkError::BadName { .. })));
}

#[test]
fn too_large_a_pool_says_that_memory_is_short() {
    let lab = lab();
    let config = MempoolConfig { name: "huge".into(), count: 1 << 20, ..MempoolConfig::default() };
    let error = Mempool::new(&lab.eal, &config).unwrap_err();
    assert!(error.to_string().contains("raise the memory"), "{error}");
}

#[test]
fn dpdk_starts_once() {
    let _lab = lab();
    assert!(matches!(Eal::init(&EalConfig::default()), Err(DpdkError::AlreadyInitialised)));
}

#[test]
fn the_caller_keeps_its_processors() {
    let _lab = lab();
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    let init = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(init.contains(own), "{own}");
}
