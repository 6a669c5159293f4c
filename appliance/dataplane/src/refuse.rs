//! The answer of an ordinary host where no target listens on a port (R25): a reset, from the router, through its own SA and
//! with a number of its own lease, like everything it sends. Only after the peer proved that it sent the SYN (I5).

use phalanx_wire::{Buffer, refusal};

use crate::clock::Now;
use crate::engine::Engine;
use crate::packet::{Source, filled};
use crate::stats::Stage;

/// Refusals per second, and at once: a host limits what it says of its own accord.
pub(crate) const PER_SECOND: u64 = 1000;
pub(crate) const AT_ONCE: u64 = 100;

impl<S: Source> Engine<S> {
    /// Refuses the genuine packet whose plaintext is the router's copy number `copy`.
    pub(crate) fn refuse(&mut self, copy: usize, now: Now) {
        if !self.router.refusals.take(now) {
            return;
        }
        let mut bytes = [0; refusal::MAX_LEN];
        let refused = refusal::write(&mut bytes, self.router.scratch[copy].bytes());
        let Ok(packet) = refused.map_err(Into::into).and_then(|len| filled(&mut self.source, &bytes[..len])) else {
            return;
        };
        self.out.passed(Stage::Refused, 1);
        self.send_own(packet, now);
    }
}
