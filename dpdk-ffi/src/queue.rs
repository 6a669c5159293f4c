//! What a poll loop holds of a started port.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use dpdk_sys::{rte_eth_fp_ops, rte_mbuf};

use crate::burst::Burst;
use crate::port::PortInner;

/// The port's entry in DPDK's exported table of fast-path functions.
#[derive(Clone, Copy, Debug)]
struct Ops(*const rte_eth_fp_ops);

impl Ops {
    fn of(port: u16) -> Ops {
        // SAFETY: DPDK's port numbers are below RTE_MAX_ETHPORTS, the length of the table.
        Ops(unsafe { (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port)) })
    }
}

// SAFETY: points into a static table that drivers write when the port starts, stops or resets, as
// DPDK's own inline functions expect.
unsafe impl Send for Ops {}

/// Receives packets of one queue. May be moved to the thread that polls it, not shared.
#[derive(Debug)]
pub struct RxQueue {
    ops: Ops,
    queue: u16,
    rejected: u64,
    port: Arc<PortInner>,
    _one_thread: PhantomData<Cell<()>>,
}

/// Transmits packets on one queue. May be moved to the thread that polls it, not shared.
#[derive(Debug)]
pub struct TxQueue {
    ops: Ops,
    queue: u16,
    port: Arc<PortInner>,
    _one_thread: PhantomData<Cell<()>>,
}

/// Receives and frees until there is nothing left.
///
/// # Safety
/// The port is started, has this receive queue, and no [`RxQueue`] of it exists.
pub(crate) unsafe fn drain(port: u16, queue: u16) {
    let mut packets = [ptr::null_mut::<rte_mbuf>(); 32];
    let ops = Ops::of(port).0;
    // SAFETY: as the caller promises, the table entry holds the driver's function and this queue's
    // data; the array has room for 32 pointers; what is received is ours to free.
    unsafe {
        let Some(function) = (*ops).rx_pkt_burst else {
            return;
        };
        let data = *(*ops).rxq.data.add(usize::from(queue));
        loop {
            let count = function(data, packets.as_mut_ptr(), 32);
            if count == 0 {
                return;
            }
            dpdk_sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr(), u32::from(count));
        }
    }
}

impl RxQueue {
    pub(crate) fn new(port: &Arc<PortInner>, queue: u16) -> Self {
        RxQueue { ops: Ops::of(port.id()), queue, rejected: 0, port: Arc::clone(port), _one_thread: PhantomData }
    }

    /// Adds received packets to the burst, as many as it has room for; returns how many were added.
    /// Packets in several segments, or with a second owner, are freed and counted in
    /// [`rejected`](Self::rejected). Some hardware drivers want room for at least 4 or 8.
    #[inline]
    pub fn rx_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (before, room) = (burst.len(), burst.room());
        let Some(inside) = self.port.enter() else { return 0 };
        // SAFETY: while this queue exists and `inside` does, the port is started and the queue is set up, so the table
        // entry holds the driver's function and an array with this queue's data; `&mut self` makes
        // this thread the only one in it. The array behind `len` has room for `room` pointers.
        let received = unsafe {
            let ops = self.ops.0;
            let Some(function) = ptr::read_volatile(&raw const (*ops).rx_pkt_burst) else {
                return 0;
            };
            let data = *(*ops).rxq.data.add(usize::from(self.queue));
            usize::from(function(data, burst.raw().add(before), room as u16)) // room <= 512
        };
        drop(inside);
        if received == 0 {
            return 0;
        }
        self.accept(burst, before, received)
    }

    /// Keeps the packets that can be an `Mbuf`: one segment, one owner.
    #[inline]
    fn accept<const N: usize>(&mut self, burst: &mut Burst<N>, before: usize, received: usize) -> usize {
        let first = burst.raw();
        let mut kept = before;
        for index in before..before + received {
            // SAFETY: the driver wrote `received` live packets behind the first `before`; each is
            // kept once, moved forward over rejected ones, or freed.
            unsafe {
                let packet: *mut rte_mbuf = *first.add(index);
                if (*packet).refcnt == 1 && (*packet).nb_segs == 1 {
                    *first.add(kept) = packet;
                    kept += 1;
                } else {
                    dpdk_sys::px_pktmbuf_free(packet);
                    self.rejected += 1;
                }
            }
        }
        // SAFETY: the first `kept` entries are packets with one segment and one owner: the burst.
        unsafe { burst.set_len(kept) };
        kept - before
    }

    /// Packets freed at once because they came in several segments or had a second owner.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// The queue's number on its port.
    pub fn id(&self) -> u16 {
        self.queue
    }

    /// The port's number, as in [`crate::Mbuf::port`].
    pub fn port(&self) -> u16 {
        self.port.id()
    }
}

impl TxQueue {
    pub(crate) fn new(port: &Arc<PortInner>, queue: u16) -> Self {
        TxQueue { ops: Ops::of(port.id()), queue, port: Arc::clone(port), _one_thread: PhantomData }
    }

    /// Sends from the front of the burst; what was sent is gone from it, what the device had no
    /// room for stays, in order. Returns how many were sent.
    #[inline]
    pub fn tx_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let count = burst.len();
        if count == 0 {
            return 0;
        }
        let Some(_inside) = self.port.enter() else { return 0 };
        // SAFETY: as in `RxQueue::rx_burst`. The first `count` pointers are packets that the burst
        // owns; the driver takes over the first `sent` of them, which the burst then forgets.
        unsafe {
            let ops = self.ops.0;
            let Some(function) = ptr::read_volatile(&raw const (*ops).tx_pkt_burst) else {
                return 0;
            };
            let data = *(*ops).txq.data.add(usize::from(self.queue));
            let sent = usize::from(function(data, burst.raw(), count as u16)).min(count); // count <= 512
            burst.forget_front(sent);
            sent
        }
    }

    /// Whether the device says that its link is up: asks the driver, but waits for nothing.
    pub fn link_is_up(&self) -> bool {
        self.port.link_up()
    }

    /// The queue's number on its port.
    pub fn id(&self) -> u16 {
        self.queue
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.id()
    }
}
