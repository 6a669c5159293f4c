//! Logging by rule (R16): what a core says about connections and flows whose rule asks for it. Control writes it down.
//!
//! A connection that this core follows is told of once, when it is established. What has no such moment (other protocols,
//! what the router keeps, whatever a rule denies) is told of when its flow is a new one to the table of rules. In both
//! cases so often and no more: the rest is counted.

use phalanx_ipsec::Subject;
use phalanx_wire::VipId;

use crate::clock::Now;
use crate::command::Event;
use crate::engine::Engine;
use crate::packet::Source;
use crate::stats::Stage;

/// Entries in a row...
pub(crate) const AT_ONCE: u64 = 100;
/// ...and per second after that, of each core.
pub(crate) const PER_SECOND: u64 = 50;

/// A rule that wants its packets logged: whose it is, and its place among its router's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId {
    /// The VIP it is about.
    pub vip: VipId,
    /// Its rank.
    pub rank: u32,
}

/// What was done, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// By this rule.
    pub rule: RuleId,
    /// Addresses, protocol and ports; local is our side.
    pub subject: Subject,
    /// It came in; otherwise it went out.
    pub inbound: bool,
    /// It was dropped for what the rule says.
    pub denied: bool,
}

impl<S: Source> Engine<S> {
    /// Tells control, unless too much was told of late.
    pub(crate) fn log(&mut self, logged: Option<Logged>, now: Now) {
        let Some(logged) = logged else { return };
        if self.gate.take(now) {
            self.out.passed(Stage::Logged, 1);
            self.mail.tell(Event::Log { core: self.id, logged });
        } else {
            self.out.passed(Stage::LogsSuppressed, 1);
        }
    }
}
