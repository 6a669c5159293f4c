//! Queues of packets between the threads of a process (`rte_ring`).
//!
//! Each end is a handle that may be moved to its thread but not shared. An end made for many
//! ([`Multi`]) can be cloned, one clone per thread. Packets left in a ring are freed with its last end.
//!
//! Ends for many use relaxed tail synchronisation: a thread that is preempted in the middle does not
//! make the others spin.

use std::cell::Cell;
use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_ring;

use crate::burst::Burst;
use crate::eal::{Eal, take_log};
use crate::error::{DpdkError, Errno};
use crate::mbuf::Mbuf;

/// This end exists once.
#[derive(Debug)]
pub enum Single {}

/// This end may be cloned for several threads.
#[derive(Debug)]
pub enum Multi {}

/// The end of a ring that takes packets.
#[derive(Debug)]
pub struct RingSender<S = Single> {
    ring: Arc<Inner>,
    _sharing: PhantomData<(Cell<()>, S)>,
}

/// The end of a ring that hands packets out.
#[derive(Debug)]
pub struct RingReceiver<S = Single> {
    ring: Arc<Inner>,
    _sharing: PhantomData<(Cell<()>, S)>,
}

#[derive(Debug)]
struct Inner {
    raw: NonNull<rte_ring>,
    _eal: Eal,
}

// SAFETY: an rte_ring is made for use by several threads in the roles its flags say; the types above
// give each single role to one value that cannot be shared.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// A ring with one sender and one receiver that holds up to `capacity` packets.
///
/// # Errors
/// [`DpdkError::Memory`] if memory is short or the name is taken, [`DpdkError::BadName`].
pub fn spsc(eal: &Eal, name: &str, capacity: u32) -> Result<(RingSender<Single>, RingReceiver<Single>), DpdkError> {
    make(eal, name, capacity, dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ)
}

/// A ring with many senders and one receiver that holds up to `capacity` packets.
///
/// # Errors
/// As [`spsc`].
pub fn mpsc(eal: &Eal, name: &str, capacity: u32) -> Result<(RingSender<Multi>, RingReceiver<Single>), DpdkError> {
    make(eal, name, capacity, dpdk_sys::RING_F_MP_RTS_ENQ | dpdk_sys::RING_F_SC_DEQ)
}

/// A ring with many senders and many receivers that holds up to `capacity` packets.
///
/// # Errors
/// As [`spsc`].
pub fn mpmc(eal: &Eal, name: &str, capacity: u32) -> Result<(RingSender<Multi>, RingReceiver<Multi>), DpdkError> {
    make(eal, name, capacity, dpdk_sys::RING_F_MP_RTS_ENQ | dpdk_sys::RING_F_MC_RTS_DEQ)
}

fn make<S, R>(eal: &Eal, name: &str, capacity: u32, flags: u32) -> Result<(RingSender<S>, RingReceiver<R>), DpdkError> {
    let bad = |why| DpdkError::BadName { name: name.to_owned(), why };
    let text = CString::new(name).map_err(|_| bad("holds a zero byte"))?;
    if name.is_empty() || name.len() > 25 {
        return Err(bad("is not a ring name: 1 to 25 bytes"));
    }
    take_log();
    // SAFETY: a zero-terminated string that outlives the call; EAL is initialised, as `eal` proves.
    let raw = unsafe { dpdk_sys::rte_ring_create(text.as_ptr(), capacity, -1, flags | dpdk_sys::RING_F_EXACT_SZ) };
    let raw = NonNull::new(raw).ok_or_else(|| DpdkError::Memory {
        what: "ring",
        name: name.to_owned(),
        count: capacity,
        error: Errno::last(),
        log: take_log(),
    })?;
    let ring = Arc::new(Inner { raw, _eal: eal.clone() });
    Ok((RingSender { ring: Arc::clone(&ring), _sharing: PhantomData }, RingReceiver { ring, _sharing: PhantomData }))
}

impl<S> RingSender<S> {
    /// Moves packets from the front of the burst into the ring; those without room stay, in order.
    /// Returns how many were moved.
    #[inline]
    pub fn enqueue_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let count = burst.len();
        // SAFETY: the array holds `count` packets that the burst owns; the ring takes over the first
        // `taken`, which the burst then forgets. A single-producer ring has this one sender.
        unsafe {
            let taken = dpdk_sys::px_ring_enqueue_burst(self.ring.raw.as_ptr(), burst.raw(), count as u32) as usize;
            burst.forget_front(taken);
            taken
        }
    }

    /// Moves one packet into the ring, or hands it back if the ring is full.
    ///
    /// # Errors
    /// The packet.
    #[inline]
    pub fn enqueue(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        let raw = packet.into_raw();
        let one = [raw.as_ptr()];
        // SAFETY: an array of one packet that we own; if the ring did not take it, it is still ours.
        unsafe {
            match dpdk_sys::px_ring_enqueue_burst(self.ring.raw.as_ptr(), one.as_ptr(), 1) {
                0 => Err(Mbuf::from_raw(raw)),
                _ => Ok(()),
            }
        }
    }

    /// How many packets are in the ring, about.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True if there is none, about.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S> RingReceiver<S> {
    /// Adds packets to the burst, as many as it has room for; returns how many.
    #[inline]
    pub fn dequeue_burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (before, room) = (burst.len(), burst.room());
        // SAFETY: the array has room for `room` pointers behind its `before`; what the ring writes
        // there are packets that senders gave up. A single-consumer ring has this one receiver.
        unsafe {
            let at = burst.raw().add(before);
            let got = dpdk_sys::px_ring_dequeue_burst(self.ring.raw.as_ptr(), at, room as u32) as usize;
            burst.set_len(before + got);
            got
        }
    }

    /// How many packets are in the ring, about.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// True if there is none, about.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Clone for RingSender<Multi> {
    fn clone(&self) -> Self {
        RingSender { ring: Arc::clone(&self.ring), _sharing: PhantomData }
    }
}

impl Clone for RingReceiver<Multi> {
    fn clone(&self) -> Self {
        RingReceiver { ring: Arc::clone(&self.ring), _sharing: PhantomData }
    }
}

impl Inner {
    fn len(&self) -> usize {
        // SAFETY: the ring lives as long as `self`; counting reads two positions.
        unsafe { dpdk_sys::px_ring_count(self.raw.as_ptr()) as usize }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the last end is gone, so we are the only producer and consumer; each pointer in the
        // ring is a packet nobody else owns; the ring is not used after it is freed.
        unsafe {
            let mut packet = std::ptr::null_mut();
            while dpdk_sys::px_ring_dequeue_burst(self.raw.as_ptr(), &mut packet, 1) == 1 {
                dpdk_sys::px_pktmbuf_free(packet);
            }
            dpdk_sys::rte_ring_free(self.raw.as_ptr());
        }
    }
}
