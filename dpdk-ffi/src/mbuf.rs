//! One packet, owned.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::rte_mbuf;

/// There is not that much room in front of, or behind, the packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet buffer")]
pub struct NoRoom;

/// One packet in one segment. Owned: dropping it gives its buffer back to its pool, transmitting it
/// consumes it. The bytes sit in the buffer with headroom in front and tailroom behind:
///
/// ```text
/// | headroom (128 at first) | data: len() bytes | tailroom |
/// ```
#[repr(transparent)]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an `Mbuf` is the only reference to its buffer (receive and allocation guarantee it), and
// freeing is allowed on any thread: with a registered thread's cache or directly into the pool's ring.
unsafe impl Send for Mbuf {}
// SAFETY: through `&Mbuf` memory is only read, and the driver does not write to a packet it gave away.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// # Safety
    /// `raw` is a live mbuf of one segment with one reference, and the caller gives that one away.
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Mbuf(raw)
    }

    /// Gives the packet away; who takes the pointer must free it.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<rte_mbuf> {
        ManuallyDrop::new(self).0
    }

    #[inline]
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: the pointer is to a live mbuf that only `self` refers to.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `raw`, and `&mut self` makes the borrow exclusive.
        unsafe { self.0.as_mut() }
    }

    /// The number of bytes in the packet.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    /// True if the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packet's bytes.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: data_off + data_len <= buf_len is kept by every method here and by the drivers;
        // the buffer is initialised memory (zeroed when mapped) that lives as long as the mbuf.
        unsafe {
            slice::from_raw_parts(raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off)), usize::from(raw.data_len))
        }
    }

    /// The packet's bytes, to be changed.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let raw = self.raw_mut();
        // SAFETY: as in `data`, and `&mut self` makes the borrow exclusive.
        unsafe {
            slice::from_raw_parts_mut(
                raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off)),
                usize::from(raw.data_len),
            )
        }
    }

    /// Bytes free in front.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    /// Bytes free behind.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let raw = self.raw();
        usize::from(raw.buf_len) - usize::from(raw.data_off) - usize::from(raw.data_len)
    }

    /// Makes the packet `n` bytes longer at the front and returns those bytes; their content is unspecified.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.headroom() {
            return Err(NoRoom);
        }
        let raw = self.raw_mut();
        raw.data_off -= n as u16; // n <= headroom, a u16
        self.set_len(self.len() + n)?;
        Ok(&mut self.data_mut()[..n])
    }

    /// Makes the packet `n` bytes longer at the end and returns those bytes; their content is unspecified.
    #[inline]
    pub fn append(&mut self, n: usize) -> Result<&mut [u8], NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom);
        }
        let old = self.len();
        self.set_len(old + n)?;
        Ok(&mut self.data_mut()[old..])
    }

    /// Cuts `n` bytes off the front, or all there are.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len()) as u16; // len() is a u16
        let raw = self.raw_mut();
        raw.data_off += n;
        raw.data_len -= n;
        raw.pkt_len = u32::from(raw.data_len);
    }

    /// Cuts `n` bytes off the end, or all there are.
    #[inline]
    pub fn trim_back(&mut self, n: usize) {
        let n = n.min(self.len()) as u16; // len() is a u16
        let raw = self.raw_mut();
        raw.data_len -= n;
        raw.pkt_len = u32::from(raw.data_len);
    }

    /// Empties the packet and puts the largest possible headroom, up to `headroom`, in front.
    pub fn reset(&mut self, headroom: usize) {
        let raw = self.raw_mut();
        raw.data_off = usize::from(raw.buf_len).min(headroom) as u16; // at most buf_len, a u16
        raw.data_len = 0;
        raw.pkt_len = 0;
    }

    /// The port it came from; `u16::MAX` for a packet that was not received.
    #[inline]
    pub fn port(&self) -> u16 {
        self.raw().port
    }

    /// A word that travels with the packet's buffer: what [`set_user`](Self::set_user) wrote. Of a packet just received or
    /// allocated it is unspecified, as NICs put the RSS hash there and buffers are used again.
    #[inline]
    pub fn user(&self) -> u32 {
        // SAFETY: every field of the union is plain bits, and a 32-bit one.
        unsafe { self.raw().__bindgen_anon_2.hash.usr }
    }

    /// Sets the word; no driver looks at it when it transmits (`hash.usr`: "user defined tags", rte_mbuf_core.h).
    #[inline]
    pub fn set_user(&mut self, user: u32) {
        self.raw_mut().__bindgen_anon_2.hash.usr = user;
    }

    /// Asks the processor to fetch the packet's first bytes; worth it a few packets ahead of use.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let raw = self.raw();
            let at = raw.buf_addr.cast::<i8>().wrapping_add(usize::from(raw.data_off));
            // SAFETY: SSE is part of x86_64, and a prefetch of any address has no effect but on caches.
            unsafe { _mm_prefetch(at, _MM_HINT_T0) };
        }
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        let raw = self.raw_mut();
        raw.data_len = u16::try_from(len).map_err(|_| NoRoom)?;
        raw.pkt_len = u32::from(raw.data_len);
        Ok(())
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this value owns the mbuf's only reference and is not used again.
        unsafe { dpdk_sys::px_pktmbuf_free(self.0.as_ptr()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish_non_exhaustive()
    }
}
