//! Events on their way to control.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::command::Event;
use crate::stats::CoreStats;

/// Kept free in the backlog for what commands answer and give back: that is never lost.
const RESERVED: usize = 64;

pub(crate) struct Mail {
    queue: Arc<ArrayQueue<Event>>,
    /// What found the queue full, in order.
    backlog: VecDeque<Event>,
    limit: usize,
    stats: Arc<CoreStats>,
}

impl Mail {
    pub(crate) fn new(queue: Arc<ArrayQueue<Event>>, stats: Arc<CoreStats>) -> Mail {
        let limit = queue.capacity() + 2 * RESERVED;
        Mail { queue, backlog: VecDeque::with_capacity(limit), limit, stats }
    }

    /// Room for all that one command can cause. A core takes no command without it.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.len() + RESERVED <= self.limit
    }

    /// Something control can do without, if need be: it is counted when lost.
    pub(crate) fn tell(&mut self, event: Event) {
        if self.has_room() {
            self.answer(event);
        } else {
            self.stats.events_lost.add(1);
        }
    }

    /// What a command answers or gives back; there is room, as the command was taken.
    pub(crate) fn answer(&mut self, event: Event) {
        if self.backlog.is_empty() {
            if let Err(event) = self.queue.push(event) {
                self.backlog.push_back(event);
            }
        } else {
            self.backlog.push_back(event);
        }
    }

    /// Tries again what found the queue full.
    pub(crate) fn flush(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(event) = self.queue.push(event) {
                return self.backlog.push_front(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::{CoreId, SaId};

    fn event(at: u64) -> Event {
        Event::CeilingWanted { core: CoreId(0), sa: SaId(0), at }
    }

    fn arrived(queue: &ArrayQueue<Event>) -> Vec<u64> {
        let at = |event| if let Event::CeilingWanted { at, .. } = event { at } else { unreachable!() };
        std::iter::from_fn(|| queue.pop()).map(at).collect()
    }

    #[test]
    fn events_arrive_in_order_however_slow_control_is() {
        let queue = Arc::new(ArrayQueue::new(4));
        let mut mail = Mail::new(queue.clone(), Arc::new(CoreStats::new(0)));
        (0..10).for_each(|at| mail.tell(event(at)));
        let mut seen = arrived(&queue);
        mail.flush();
        mail.tell(event(10));
        seen.extend(arrived(&queue));
        mail.flush();
        seen.extend(arrived(&queue));
        assert_eq!(seen, (0..=10).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_lost_is_counted_and_there_is_always_room_for_answers() {
        let stats = Arc::new(CoreStats::new(0));
        let mut mail = Mail::new(Arc::new(ArrayQueue::new(4)), stats.clone());
        (0..200).for_each(|at| mail.tell(event(at)));
        assert!(!mail.has_room());
        assert!(stats.events_lost.value() > 0);
        let before = mail.backlog.capacity();
        (0..RESERVED as u64 - 1).for_each(|at| mail.answer(event(at)));
        assert_eq!(mail.backlog.capacity(), before, "no allocation");
    }
}
