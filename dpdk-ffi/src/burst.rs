//! Up to `N` packets in place.

use std::mem;
use std::slice;

use arrayvec::ArrayVec;
use dpdk_sys::rte_mbuf;

use crate::mbuf::Mbuf;

/// Up to `N` packets, stored in place: making, filling and emptying one allocates nothing.
/// Packets left in it are freed, in bulk, when it goes.
#[derive(Debug, Default)]
pub struct Burst<const N: usize>(ArrayVec<Mbuf, N>);

// What lies in the array is what DPDK takes: pointers to mbufs.
const _: () =
    assert!(size_of::<Mbuf>() == size_of::<*mut rte_mbuf>() && align_of::<Mbuf>() == align_of::<*mut rte_mbuf>());

impl<const N: usize> Burst<N> {
    /// Empty.
    #[inline]
    pub fn new() -> Self {
        const { assert!(N > 0 && N <= 512, "a burst is 1 to 512 packets") };
        Burst(ArrayVec::new())
    }

    /// The number of packets in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if there are `N`.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// How many more fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.0.remaining_capacity()
    }

    /// Adds one at the end, or hands it back if the burst is full.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        self.0.try_push(packet).map_err(|full| full.element())
    }

    /// Takes the last one.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.0.pop()
    }

    /// Takes the packet at `index`; the last one takes its place.
    #[inline]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        self.0.swap_pop(index)
    }

    /// Takes all of them, first to last; what the iterator does not hand out is freed.
    #[inline]
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Mbuf> + '_ {
        self.0.drain(..)
    }

    /// Moves packets from the end of `other` to the end of this one while there is room; how many.
    pub fn take_from<const M: usize>(&mut self, other: &mut Burst<M>) -> usize {
        let before = self.len();
        let count = self.room().min(other.len());
        self.0.extend(other.0.drain(other.0.len() - count..));
        self.len() - before
    }

    /// Looks at each.
    #[inline]
    pub fn iter(&self) -> slice::Iter<'_, Mbuf> {
        self.0.iter()
    }

    /// Changes each.
    #[inline]
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, Mbuf> {
        self.0.iter_mut()
    }

    /// All as a slice.
    #[inline]
    pub fn as_slice(&self) -> &[Mbuf] {
        &self.0
    }

    /// All as a slice, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        &mut self.0
    }

    /// Frees all, in bulk.
    #[inline]
    pub fn clear(&mut self) {
        let count = self.0.len();
        if count == 0 {
            return;
        }
        // SAFETY: the first `count` entries are owned packets. Their number is set to 0 before they
        // are freed, so that nothing can reach them afterwards.
        unsafe {
            self.0.set_len(0);
            dpdk_sys::rte_pktmbuf_free_bulk(self.raw(), count as u32); // count <= N <= 512
        }
    }

    /// The array as DPDK sees it: `len()` packets, then room.
    #[inline]
    pub(crate) fn raw(&mut self) -> *mut *mut rte_mbuf {
        self.0.as_mut_ptr().cast()
    }

    /// # Safety
    /// The first `len` entries of `raw()` are packets that the burst owns from now on, and what else
    /// it owned has been given away.
    #[inline]
    pub(crate) unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: what the caller promises is what `ArrayVec::set_len` demands.
        unsafe { self.0.set_len(len) }
    }

    /// Somebody else owns the first `count` packets now; closes the gap.
    ///
    /// # Safety
    /// `count <= len()`, and those packets have a new owner.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        let rest = self.len() - count;
        // SAFETY: entries `count..count + rest` are initialised; moving them to the front overwrites
        // only entries that have a new owner, and the new length covers exactly the moved ones.
        unsafe {
            let first = self.0.as_mut_ptr();
            self.0.set_len(0);
            std::ptr::copy(first.add(count), first, rest);
            self.0.set_len(rest);
        }
    }
}

impl<const N: usize> Drop for Burst<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> IntoIterator for Burst<N> {
    type Item = Mbuf;
    type IntoIter = arrayvec::IntoIter<Mbuf, N>;

    fn into_iter(mut self) -> Self::IntoIter {
        mem::take(&mut self.0).into_iter()
    }
}

impl<'a, const N: usize> IntoIterator for &'a mut Burst<N> {
    type Item = &'a mut Mbuf;
    type IntoIter = slice::IterMut<'a, Mbuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<'a, const N: usize> IntoIterator for &'a Burst<N> {
    type Item = &'a Mbuf;
    type IntoIter = slice::Iter<'a, Mbuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
