//! A packet's memory: bytes with room in front and behind, so that headers come and go without a copy.

use thiserror::Error;

/// The buffer has no room for that many more bytes; it is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no room in the packet buffer")]
pub struct NoRoom;

/// One packet in one piece of memory. An mbuf on the data path, a [`VecBuffer`] in tests.
pub trait Buffer {
    /// The packet.
    fn bytes(&self) -> &[u8];
    /// The packet, to change.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Adds `n` bytes in front; what they hold is unspecified.
    ///
    /// # Errors
    /// [`NoRoom`] when less than `n` bytes are free in front; nothing is changed then.
    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom>;
    /// Adds `n` bytes behind; what they hold is unspecified.
    ///
    /// # Errors
    /// [`NoRoom`] when less than `n` bytes are free behind; nothing is changed then.
    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom>;
    /// Takes `n` bytes away in front, or all there are.
    fn cut_front(&mut self, n: usize);
    /// Takes `n` bytes away behind, or all there are.
    fn cut_back(&mut self, n: usize);
}

impl<B: Buffer + ?Sized> Buffer for &mut B {
    #[inline]
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }
    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        (**self).bytes_mut()
    }
    #[inline]
    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        (**self).grow_front(n)
    }
    #[inline]
    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        (**self).grow_back(n)
    }
    #[inline]
    fn cut_front(&mut self, n: usize) {
        (**self).cut_front(n);
    }
    #[inline]
    fn cut_back(&mut self, n: usize) {
        (**self).cut_back(n);
    }
}

/// A [`Buffer`] over a `Vec` of fixed size, for everything that is not a poll loop.
#[derive(Clone, Debug, Default)]
pub struct VecBuffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl VecBuffer {
    /// An empty packet with `front` bytes of room before it and `back` behind.
    #[must_use]
    pub fn with_room(front: usize, back: usize) -> Self {
        Self { memory: vec![0; front + back], start: front, end: front }
    }

    /// A packet that holds `data`, with `front` bytes of room before it and `back` behind.
    #[must_use]
    pub fn from_slice(front: usize, data: &[u8], back: usize) -> Self {
        let mut memory = vec![0; front + data.len() + back];
        memory[front..front + data.len()].copy_from_slice(data);
        Self { memory, start: front, end: front + data.len() }
    }
}

impl Buffer for VecBuffer {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }

    fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        let end = self.end.checked_add(n).ok_or(NoRoom)?;
        if end > self.memory.len() {
            return Err(NoRoom);
        }
        self.end = end;
        Ok(())
    }

    fn cut_front(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
    }

    fn cut_back(&mut self, n: usize) {
        self.end -= n.min(self.end - self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_into_its_room_and_no_further() {
        let mut b = VecBuffer::from_slice(3, b"abc", 2);
        assert_eq!(b.grow_front(4), Err(NoRoom));
        assert_eq!(b.grow_back(3), Err(NoRoom));
        assert_eq!(b.grow_back(usize::MAX), Err(NoRoom));
        assert_eq!(b.bytes(), b"abc");
        b.grow_front(3).unwrap();
        b.grow_back(2).unwrap();
        assert_eq!(b.bytes().len(), 8);
        assert_eq!(&b.bytes()[3..6], b"abc");
    }

    #[test]
    fn cutting_more_than_there_is_leaves_an_empty_packet() {
        let mut b = VecBuffer::from_slice(1, b"abc", 1);
        b.cut_front(1);
        b.cut_back(1);
        assert_eq!(b.bytes(), b"b");
        b.cut_front(9);
        assert_eq!(b.bytes(), b"");
        b.cut_back(9);
        assert_eq!(b.bytes(), b"");
        b.grow_front(3).unwrap();
        assert_eq!(b.bytes().len(), 3);
    }
}
