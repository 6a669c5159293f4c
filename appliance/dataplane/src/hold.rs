//! Packets that wait: for a sequence number, a ceiling, a next hop. One bounded pool, many short queues in it.

#[derive(Debug)]
pub(crate) struct HoldPool<P> {
    slots: Box<[Slot<P>]>,
    free: u32,
    held: usize,
    each: u32,
}

#[derive(Debug)]
struct Slot<P> {
    packet: Option<P>,
    next: u32,
    /// When it began to wait, on its owner's clock.
    since: u64,
}

/// One queue in a [`HoldPool`]. Emptied with [`HoldPool::pop`] before it is dropped, or its slots stay taken.
#[derive(Debug)]
pub(crate) struct Held {
    head: u32,
    tail: u32,
    len: u32,
}

const NONE: u32 = u32::MAX;

impl Default for Held {
    fn default() -> Held {
        Held { head: NONE, tail: NONE, len: 0 }
    }
}

impl Held {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<P> HoldPool<P> {
    /// A pool for `limit` packets, at most `each` in one queue.
    pub(crate) fn new(limit: usize, each: usize) -> HoldPool<P> {
        let limit = limit as u32;
        let next = |at: u32| if at + 1 < limit { at + 1 } else { NONE };
        let slots = (0..limit).map(|at| Slot { packet: None, next: next(at), since: 0 }).collect();
        HoldPool { slots, free: if limit == 0 { NONE } else { 0 }, held: 0, each: each as u32 }
    }

    /// Packets in all queues.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Appends; gives the packet back when the queue or the pool is full.
    pub(crate) fn push(&mut self, queue: &mut Held, packet: P, since: u64) -> Result<(), P> {
        if self.free == NONE || queue.len == self.each {
            return Err(packet);
        }
        let at = self.free;
        let slot = &mut self.slots[at as usize];
        self.free = slot.next;
        *slot = Slot { packet: Some(packet), next: NONE, since };
        match queue.tail {
            NONE => queue.head = at,
            tail => self.slots[tail as usize].next = at,
        }
        queue.tail = at;
        queue.len += 1;
        self.held += 1;
        Ok(())
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self, queue: &mut Held) -> Option<P> {
        self.pop_since(queue).map(|(packet, _)| packet)
    }

    /// Takes the oldest, and since when it waited.
    pub(crate) fn pop_since(&mut self, queue: &mut Held) -> Option<(P, u64)> {
        if queue.head == NONE {
            return None;
        }
        let at = queue.head;
        let slot = &mut self.slots[at as usize];
        queue.head = slot.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        slot.next = self.free;
        self.free = at;
        queue.len -= 1;
        self.held -= 1;
        slot.packet.take().map(|packet| (packet, slot.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn queues_are_first_in_first_out_and_bounded(steps in proptest::collection::vec((0usize..3, any::<bool>()), 0..300)) {
            let mut pool = HoldPool::new(8, 5);
            let mut queues = [Held::default(), Held::default(), Held::default()];
            let mut model = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
            for (at, (queue, push)) in steps.into_iter().enumerate() {
                let all: usize = model.iter().map(VecDeque::len).sum();
                if push {
                    let fits = all < 8 && model[queue].len() < 5;
                    prop_assert_eq!(pool.push(&mut queues[queue], at, 0).is_ok(), fits);
                    if fits {
                        model[queue].push_back(at);
                    }
                } else {
                    prop_assert_eq!(pool.pop(&mut queues[queue]), model[queue].pop_front());
                }
                prop_assert_eq!(pool.held(), model.iter().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(queues[queue].len() as usize, model[queue].len());
                prop_assert_eq!(queues[queue].is_empty(), model[queue].is_empty());
            }
        }
    }
}
