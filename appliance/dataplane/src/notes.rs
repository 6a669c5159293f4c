//! Watched packets: who carries a mark leaves a note wherever the data plane decides about it.
//!
//! A mark is 32 bits that travel with a packet's memory ([`Marked`](crate::packet::Marked)): through waiting queues and
//! rings between cores, not over a link to another box. 0 is a packet that nobody watches, which costs one branch a note.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;
use phalanx_ipsec::Subject;
use phalanx_steering::ConnKey;
use phalanx_wire::{CoreId, DropReason, SaId, Spi, TargetId};

/// Something was found out or decided about a watched packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of the packet.
    pub mark: u32,
    /// Where.
    pub core: CoreId,
    /// What.
    pub fact: Fact,
}

/// What a [`Note`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Received from this port.
    Arrived(usize),
    /// Inbound: its SA, and its whole sequence number as inferred (RFC 4303 appendix A). Not authenticated.
    Numbered(SaId, Spi, u64),
    /// Inbound at the router: the connection it claims to be of, before anything was authenticated.
    Peeked(ConnKey, Segment),
    /// Inbound at the router: sent on to a target, still encrypted.
    Forwarded(TargetId),
    /// Inbound at the router: opened as an ordinary endpoint.
    Local,
    /// Inbound at the router: the copy of a connection opening was genuine.
    Proved,
    /// Inbound: authentic, its number committed; what was inside.
    Opened(Subject),
    /// Outbound: the SA that the filter leads what is inside to.
    Protect(SaId, Spi, Subject),
    /// Outbound: the number it is sealed with.
    Sealed(SaId, Spi, u64),
    /// A filter lets it pass in clear.
    Clear,
    /// It waits.
    Held(For),
    /// To another core of the process, by its position.
    Handed(usize),
    /// Goes to the application.
    Delivered,
    /// A frame for the driver of this port.
    Sent(usize),
    /// Its end.
    Dropped(DropReason),
}

/// What a TCP segment may do to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// SYN without ACK.
    Opens,
    /// Anything else.
    Other,
}

/// What a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Sequence numbers.
    Lease,
    /// A durable ceiling.
    Ceiling,
    /// An SA that is on its way.
    Sa,
    /// The router's entry of the connection that it opens.
    Connection,
    /// The next hop's MAC address.
    Neighbour,
}

/// All notes of a process, in an order that no packet's way contradicts: written by any core, read by control.
pub(crate) struct NoteBook {
    queue: ArrayQueue<Note>,
    lost: AtomicU64,
}

impl fmt::Debug for NoteBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteBook").field("notes", &self.queue.len()).field("lost", &self.lost).finish()
    }
}

impl NoteBook {
    /// Room for so many; what finds none is counted.
    pub(crate) fn new(room: usize) -> Arc<NoteBook> {
        Arc::new(NoteBook { queue: ArrayQueue::new(room.max(1)), lost: AtomicU64::new(0) })
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn write(&self, note: Note) {
        if self.queue.push(note).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn next(&self) -> Option<Note> {
        self.queue.pop()
    }

    /// Notes that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// More than half of the room is taken.
    fn is_busy(&self) -> bool {
        self.queue.len() > self.queue.capacity() / 2
    }
}

/// Reads the notes of a data plane. Each is read once, by whichever reader asks first.
#[derive(Clone, Debug)]
pub struct NoteReader(pub(crate) Arc<NoteBook>);

impl NoteReader {
    /// The next note, if there is one. Cores cannot wake anybody: ask about every millisecond.
    pub fn try_next(&self) -> Option<Note> {
        self.0.next()
    }

    /// Notes that found no room, ever.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

/// A core's pen.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    book: Arc<NoteBook>,
    core: CoreId,
}

impl Notes {
    pub(crate) fn new(book: Arc<NoteBook>, core: CoreId) -> Notes {
        Notes { book, core }
    }

    /// Where nobody reads.
    pub(crate) fn nobody() -> Notes {
        Notes { book: NoteBook::new(1), core: CoreId(0) }
    }

    /// A good moment to watch no further packet.
    pub(crate) fn is_busy(&self) -> bool {
        self.book.is_busy()
    }

    /// What happened to the packet with this mark, unless nobody watches it.
    #[inline]
    pub(crate) fn note(&self, mark: u32, fact: impl FnOnce() -> Fact) {
        if mark != 0 {
            self.book.write(Note { mark, core: self.core, fact: fact() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_packets_leave_notes_and_what_finds_no_room_is_counted() {
        let book = NoteBook::new(2);
        let notes = Notes::new(book.clone(), CoreId(3));
        notes.note(0, || unreachable!("nobody watches"));
        (1..=3).for_each(|mark| notes.note(mark, || Fact::Local));
        assert_eq!(book.next(), Some(Note { mark: 1, core: CoreId(3), fact: Fact::Local }));
        assert_eq!(book.next().map(|note| note.mark), Some(2));
        assert_eq!((book.next(), book.lost()), (None, 1));
    }
}
