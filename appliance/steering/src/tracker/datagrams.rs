//! UDP flows. They have no handshake and no end, so time says both: a flow is half-open from its first datagram, for as long
//! as a TCP handshake may take; established once both sides have sent, or the peer goes on sending for half of that time; over
//! when nobody says anything for [`udp_idle_ms`](super::TrackerLimits::udp_idle_ms).

use super::{ConnEvent, Found, INBOUND, Phase, SYN, Tracker, Value};
use crate::key::ConnKey;
use crate::store::Slot;

/// What comes sooner after a flow's end was sent on before the router knew of that, and begins no new one. The router
/// itself lets none begin for longer than this.
const LATE_MS: u64 = 1000;

impl Tracker {
    /// A datagram from the peer: its integrity check was good and the window has taken its number. It is here because the
    /// router steered it here, so it begins a flow where there is none.
    pub fn datagram_in(&mut self, key: &ConnKey, now: u64) -> Option<ConnEvent> {
        self.datagram_in_found(self.find(key), key, now)
    }

    /// As [`Self::datagram_in`], of a key that was looked up just now.
    pub fn datagram_in_found(&mut self, found: Found, key: &ConnKey, now: u64) -> Option<ConnEvent> {
        if let Some(slot) = found.0 {
            let waited = now.saturating_sub(self.store.value(slot).seen.ms());
            let over = self.store.value(slot).phase == Phase::Lingering;
            if !over || waited < LATE_MS {
                return self.flows(slot, waited >= self.limits.half_open_ms / 2, now);
            }
            self.forget(slot);
        }
        let mut value = Value::default();
        value.mark(INBOUND, SYN);
        match self.enter(&key.into(), value, now) {
            Some(_) => None,
            None => Some(ConnEvent::Refused),
        }
    }

    /// A datagram from our own stack. Of an unknown flow it begins nothing: the router would not send the answers here.
    pub fn datagram_out(&mut self, key: &ConnKey, now: u64) -> Option<ConnEvent> {
        self.datagram_out_found(self.find(key), now)
    }

    /// As [`Self::datagram_out`], of a key that was looked up just now.
    pub fn datagram_out_found(&mut self, found: Found, now: u64) -> Option<ConnEvent> {
        self.flows(found.0?, true, now)
    }

    fn flows(&mut self, slot: Slot, lasts: bool, now: u64) -> Option<ConnEvent> {
        match self.store.value(slot).phase {
            Phase::HalfOpen if lasts => {
                self.queue(slot, Phase::Flowing, now);
                Some(ConnEvent::Opened)
            }
            Phase::Lingering => None,
            _ => {
                self.refresh(slot, now);
                None
            }
        }
    }
}
