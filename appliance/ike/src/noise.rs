//! Events that anybody can cause: only so many.

use crate::Millis;

/// So many a second.
const MOST: u32 = 10;

/// Counts what is said in a second.
#[derive(Default)]
pub struct Noise {
    second: Millis,
    said: u32,
}

impl Noise {
    /// Whether one more may be said.
    pub fn allows(&mut self, now: Millis) -> bool {
        if now / 1000 != self.second {
            *self = Noise { second: now / 1000, said: 0 };
        }
        self.said = self.said.saturating_add(1);
        self.said <= MOST
    }
}
