//! Where packets come from.

use std::ffi::CString;
use std::fmt;
use std::ptr::NonNull;

use dpdk_sys::rte_mempool;

use crate::burst::Burst;
use crate::eal::{Eal, take_log};
use crate::error::{DpdkError, Errno};
use crate::mbuf::{Mbuf, NoRoom};

/// Bytes in front of a received packet.
pub(crate) const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;

/// How the pool's common store is shared. It matters when poll threads can be preempted: with
/// `Classic` a thread stopped in the middle makes all others spin until it runs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolOps {
    /// `ring_mt_rts`: others go on while one is stopped in the middle. The default.
    #[default]
    RelaxedTailSync,
    /// `ring_mt_hts`: fully serialised.
    HeadTailSync,
    /// `ring_mp_mc`: the fastest where each poll thread has a processor to itself.
    Classic,
}

impl PoolOps {
    fn name(self) -> &'static str {
        match self {
            PoolOps::RelaxedTailSync => "ring_mt_rts",
            PoolOps::HeadTailSync => "ring_mt_hts",
            PoolOps::Classic => "ring_mp_mc",
        }
    }
}

/// The size of a pool. A packet takes about `data_room + 384` bytes of DPDK memory.
#[derive(Clone, Debug)]
pub struct MempoolConfig {
    /// Unique in the process, at most 25 bytes.
    pub name: String,
    /// Packets in the pool; 2^n - 1 wastes the least.
    pub count: u32,
    /// Packets a registered thread keeps for itself; clipped to 512 and to two thirds of the pool.
    /// Threads that are not registered have no cache.
    pub cache: u32,
    /// Bytes for a packet; 128 bytes of headroom come on top.
    pub data_room: u16,
    /// How the pool is shared.
    pub ops: PoolOps,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        MempoolConfig { name: "packets".into(), count: 8191, cache: 256, data_room: 2048, ops: PoolOps::default() }
    }
}

/// A pool of packets; a handle that may be cloned and used on any thread. Its memory goes back when
/// DPDK is cleaned up (the last [`Eal`] handle), because packets may outlive the handle.
#[derive(Clone)]
pub struct Mempool {
    raw: NonNull<rte_mempool>,
    data_room: u16,
    name: String,
    // Keeps the memory mapped.
    _eal: Eal,
}

// SAFETY: a DPDK pool is made to be used by many threads: registered ones through a cache of their
// own, others directly through its multi-producer, multi-consumer ring.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool.
    ///
    /// # Errors
    /// [`DpdkError::Memory`] if there is not enough memory or the name is taken, [`DpdkError::BadName`].
    pub fn new(eal: &Eal, config: &MempoolConfig) -> Result<Self, DpdkError> {
        let bad = |why| DpdkError::BadName { name: config.name.clone(), why };
        let name = CString::new(config.name.as_str()).map_err(|_| bad("holds a zero byte"))?;
        if config.name.is_empty() || config.name.len() > 25 {
            return Err(bad("is not a pool name: 1 to 25 bytes"));
        }
        let ops = CString::new(config.ops.name()).map_err(|_| bad("holds a zero byte"))?;
        let room = config.data_room.checked_add(HEADROOM).ok_or(bad("has packets that are too large"))?;
        let cache = config.cache.min(dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE).min(config.count / 3 * 2);
        take_log();
        // SAFETY: both strings are zero-terminated and outlive the call; EAL is initialised, as `eal` proves.
        let raw = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create_by_ops(name.as_ptr(), config.count, cache, 0, room, -1, ops.as_ptr())
        };
        let raw = NonNull::new(raw).ok_or_else(|| DpdkError::Memory {
            what: "packet pool",
            name: config.name.clone(),
            count: config.count,
            error: Errno::last(),
            log: take_log(),
        })?;
        eal.remember_pool(raw);
        Ok(Mempool { raw, data_room: config.data_room, name: config.name.clone(), _eal: eal.clone() })
    }

    /// An empty packet with 128 bytes of headroom, or `None` if the pool is exhausted.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as EAL. What comes back has one segment and one reference, ours.
        unsafe { NonNull::new(dpdk_sys::px_pktmbuf_alloc(self.raw.as_ptr())).map(|raw| Mbuf::from_raw(raw)) }
    }

    /// A packet with these bytes; `None` if the pool is exhausted or they do not fit.
    pub fn alloc_with(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut packet = self.alloc()?;
        packet.append(bytes.len()).ok()?.copy_from_slice(bytes);
        Some(packet)
    }

    /// A copy of `packet`, with the same headroom if it fits here; `None` if the pool is exhausted
    /// or the packet does not fit.
    pub fn copy(&self, packet: &Mbuf) -> Option<Mbuf> {
        let mut copy = self.alloc()?;
        let spare = copy.tailroom() + copy.headroom();
        copy.reset(packet.headroom().min(spare.checked_sub(packet.len())?));
        copy.append(packet.len()).ok()?.copy_from_slice(packet.data());
        Some(copy)
    }

    /// Adds `count` empty packets to the burst: all of them, or none and an error.
    ///
    /// # Errors
    /// [`NoRoom`] if the pool has fewer or the burst has no room for them.
    pub fn alloc_burst<const N: usize>(&self, burst: &mut Burst<N>, count: usize) -> Result<(), NoRoom> {
        if count > burst.room() {
            return Err(NoRoom);
        }
        let len = burst.len();
        // SAFETY: the array has room for `count` more pointers behind its `len`. On success all of
        // them are packets with one segment and one reference, on failure none was written.
        unsafe {
            let code = dpdk_sys::px_pktmbuf_alloc_bulk(self.raw.as_ptr(), burst.raw().add(len), count as u32);
            if code != 0 {
                return Err(NoRoom);
            }
            burst.set_len(len + count);
        }
        Ok(())
    }

    /// How many packets are out. Walks all caches: for status and tests, not for a poll loop.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives as long as EAL; counting reads it only.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// How many packets are there to be had. Walks all caches: for status and tests.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as EAL; counting reads it only.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Bytes for a packet without its headroom, as configured.
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    /// As configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for Mempool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mempool").field("name", &self.name).field("data_room", &self.data_room).finish_non_exhaustive()
    }
}
