//! Keeps poll loops out of a driver while what they would touch there comes and goes.

use std::sync::atomic::{AtomicU8, Ordering};

/// Somebody is inside the driver.
const INSIDE: u8 = 1;
/// Nobody more may come in.
const CLOSED: u8 = 2;

#[derive(Debug)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    pub(crate) fn closed() -> Gate {
        Gate(AtomicU8::new(CLOSED))
    }

    /// Lets bursts in until the answer is dropped, which waits until none is inside. For the one that closed it.
    pub(crate) fn open(&self) -> Open<'_> {
        self.0.store(0, Ordering::Release);
        Open(self)
    }

    /// A burst's way in. Never waits: one that comes while the gate is closed does without.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        self.0.compare_exchange(0, INSIDE, Ordering::Acquire, Ordering::Relaxed).is_ok().then_some(Inside(self))
    }
}

/// Bursts come in as long as this lives.
pub(crate) struct Open<'a>(&'a Gate);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.fetch_or(CLOSED, Ordering::Acquire);
        // A burst is inside for microseconds, or until its thread runs again.
        while state & INSIDE != 0 {
            std::thread::yield_now();
            state = self.0.0.load(Ordering::Acquire);
        }
    }
}

/// A burst is inside as long as this lives.
pub(crate) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.fetch_and(!INSIDE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    #[test]
    fn nobody_is_inside_once_the_gate_is_closed() {
        let (gate, inside, bursts) = (Gate::closed(), AtomicU64::new(0), AtomicU64::new(0));
        assert!(gate.enter().is_none());
        let end = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !end.load(Ordering::Acquire) {
                    let Some(_inside) = gate.enter() else { continue };
                    inside.store(1, Ordering::Relaxed);
                    bursts.fetch_add(1, Ordering::Relaxed);
                    inside.store(0, Ordering::Relaxed);
                }
            });
            for _ in 0..1000 {
                let open = gate.open();
                let before = bursts.load(Ordering::Relaxed);
                while bursts.load(Ordering::Relaxed) == before {
                    std::thread::yield_now();
                }
                drop(open);
                assert_eq!(inside.load(Ordering::Relaxed), 0);
            }
            end.store(true, Ordering::Release);
        });
    }
}
