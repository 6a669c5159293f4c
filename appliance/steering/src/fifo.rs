//! Doubly linked queues threaded through the slots of a store: deadlines in order, without a timer each.
//!
//! All entries of one queue share one timeout, so the order of arrival is the order of expiry and a sweep
//! looks only at what has expired. A slot is in one queue of a [`Links`] at most.

const NONE: u32 = u32::MAX;

/// One slot's neighbours.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

/// The links of all slots of a store.
pub(crate) struct Links(Box<[Link]>);

/// Head and tail of one queue.
pub(crate) struct Queue {
    head: u32,
    tail: u32,
    len: u32,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Queue { head: NONE, tail: NONE, len: 0 }
    }

    /// The slot that has waited longest.
    pub(crate) fn oldest(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }
}

impl Links {
    pub(crate) fn new(slots: usize) -> Self {
        Links(vec![Link { previous: NONE, next: NONE }; slots].into_boxed_slice())
    }

    /// Puts `slot`, which is in no queue, at the end of `queue`.
    pub(crate) fn push(&mut self, queue: &mut Queue, slot: u32) {
        self.0[slot as usize] = Link { previous: queue.tail, next: NONE };
        match queue.tail {
            NONE => queue.head = slot,
            tail => self.0[tail as usize].next = slot,
        }
        queue.tail = slot;
        queue.len += 1;
    }

    /// Takes `slot`, which is in `queue`, out of it.
    pub(crate) fn remove(&mut self, queue: &mut Queue, slot: u32) {
        let link = self.0[slot as usize];
        match link.previous {
            NONE => queue.head = link.next,
            previous => self.0[previous as usize].next = link.next,
        }
        match link.next {
            NONE => queue.tail = link.previous,
            next => self.0[next as usize].previous = link.previous,
        }
        queue.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn a_queue_keeps_the_order_of_arrival_whatever_leaves_it(steps in prop::collection::vec((0u32..16, any::<bool>()), 0..200)) {
            let (mut links, mut queue, mut model) = (Links::new(16), Queue::new(), VecDeque::new());
            for (slot, push) in steps {
                match model.iter().position(|s| *s == slot) {
                    None if push => {
                        links.push(&mut queue, slot);
                        model.push_back(slot);
                    }
                    Some(at) if !push => {
                        links.remove(&mut queue, slot);
                        model.remove(at);
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.oldest(), model.front().copied());
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
