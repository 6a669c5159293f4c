//! Rings between threads, and threads that register.

mod common;

use std::thread;

use common::lab;
use dpdk_ffi::{Burst, DpdkError, MempoolConfig, PoolOps, ring};

#[test]
fn a_ring_keeps_order_and_is_bounded() {
    let lab = lab();
    let pool = lab.pool(255);
    let (mut sender, mut receiver) = ring::spsc(&lab.eal, "order", 5).unwrap();
    let mut burst = Burst::<8>::new();
    for number in 0..8_u8 {
        burst.push(pool.alloc_with(&[number]).unwrap()).unwrap();
    }
    assert_eq!(sender.enqueue_burst(&mut burst), 5);
    assert_eq!(burst.as_slice()[0].data(), [5], "those without room stay, in order");
    assert_eq!(sender.enqueue(burst.pop().unwrap()).unwrap_err().data(), [7]);
    let mut got = Burst::<3>::new();
    assert_eq!(receiver.dequeue_burst(&mut got), 3);
    assert_eq!(got.iter().map(|packet| packet.data()[0]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((sender.len(), receiver.is_empty()), (2, false));
    drop((got, burst, sender, receiver));
    assert_eq!(pool.in_use(), 0, "a ring frees what is left in it");
}

#[test]
fn packets_of_many_senders_reach_one_receiver_once_each() {
    const SENDERS: u32 = 3;
    const EACH: u32 = 20_000;
    let lab = lab();
    let pool = lab.pool_with(MempoolConfig {
        count: 2047,
        cache: 64,
        ops: PoolOps::RelaxedTailSync,
        ..MempoolConfig::default()
    });
    let (sender, mut receiver) = ring::mpsc(&lab.eal, "many", 256).unwrap();
    let mut next = [0_u32; SENDERS as usize];
    thread::scope(|threads| {
        for id in 0..SENDERS {
            let (mut sender, pool, eal) = (sender.clone(), pool.clone(), lab.eal.clone());
            threads.spawn(move || {
                let _registration = eal.register_thread().unwrap();
                let mut number = 0;
                while number < EACH {
                    let Some(mut packet) = pool.alloc() else {
                        thread::yield_now();
                        continue;
                    };
                    packet.append(8).unwrap().copy_from_slice(&(u64::from(id) << 32 | u64::from(number)).to_be_bytes());
                    while let Err(back) = sender.enqueue(packet) {
                        packet = back;
                        thread::yield_now();
                    }
                    number += 1;
                }
            });
        }
        let mut burst = Burst::<32>::new();
        while next.iter().any(|count| *count < EACH) {
            if receiver.dequeue_burst(&mut burst) == 0 {
                thread::yield_now();
            }
            for packet in burst.drain() {
                let word = u64::from_be_bytes(packet.data().try_into().unwrap());
                let (id, number) = ((word >> 32) as usize, word as u32);
                assert_eq!(number, next[id], "in order, once");
                next[id] += 1;
            }
        }
    });
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_thread_registers_once_and_its_place_is_free_again_afterwards() {
    let lab = lab();
    for _ in 0..300 {
        let eal = lab.eal.clone();
        thread::spawn(move || {
            let registration = eal.register_thread().unwrap();
            assert!(matches!(eal.register_thread(), Err(DpdkError::Register { .. })));
            drop(registration);
            drop(eal.register_thread().unwrap());
        })
        .join()
        .unwrap();
    }
}
