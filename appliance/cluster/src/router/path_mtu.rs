//! Path MTUs that fell (RFC 1191, RFC 8201; RFC 4301 §8.2): what a router on the way said is believed for a time, if it is about
//! a packet that was sent lately, and all targets of the VIP are told.

use std::collections::BTreeMap;

use phalanx_wire::SaId;

use super::RouterCluster;
use crate::messages::ToTarget;
use crate::outputs::RouterOutput;

/// So many numbers back a packet may have been sent: a second at a million packets per second.
const LATELY: u32 = 1 << 20;

/// The paths that are not as configured.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Outbound SAs whose path MTU fell: to what, and until when.
    lowered: BTreeMap<SaId, (u16, u64)>,
    /// What was not believed.
    refused: BTreeMap<SaId, u64>,
}

impl Paths {
    pub(super) fn forget(&mut self, sa: SaId) {
        self.lowered.remove(&sa);
        self.refused.remove(&sa);
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.lowered.values().map(|(_, until)| *until).min()
    }
}

impl RouterCluster {
    /// A router core heard that a packet of this outbound SA, `seq` the low half of its number, was too big for a path that
    /// carries `mtu`. It lowers the path MTU, or nothing: never below what the IP version guarantees, and never up (I5).
    pub fn path_mtu_told(&mut self, sa: SaId, mtu: u16, seq: u32, now: u64) {
        let Some(pair) = self.outbound.get(&sa).and_then(|pair| self.pairs.get(pair)) else {
            return;
        };
        let params = &pair.spec.outbound;
        let known = self.path_mtu(sa).unwrap_or(params.path_mtu);
        if mtu >= known || mtu < params.least_path_mtu() {
            return;
        }
        // All numbers that were ever sent are below the next one to be handed out.
        let next = self.sequencer.status(sa, now).and_then(|status| status.next);
        let back = next.map_or(0, |next| (next as u32).wrapping_sub(seq));
        if !(1..=LATELY).contains(&back) {
            *self.paths.refused.entry(sa).or_default() += 1;
            return;
        }
        self.paths.lowered.insert(sa, (mtu, now + self.times.path_mtu_us));
        self.tell_path_mtu(sa, mtu);
    }

    /// The path MTU of an outbound SA now.
    #[must_use]
    pub fn path_mtu(&self, sa: SaId) -> Option<u16> {
        let pair = self.pairs.get(self.outbound.get(&sa)?)?;
        Some(self.paths.lowered.get(&sa).map_or(pair.spec.outbound.path_mtu, |(mtu, _)| *mtu))
    }

    /// How often somebody said that a packet of this outbound SA was too big, and named one that was not sent lately.
    #[must_use]
    pub fn path_mtu_refused(&self, sa: SaId) -> u64 {
        self.paths.refused.get(&sa).copied().unwrap_or(0)
    }

    /// What fell long ago rises again: whether the path is better now is found out by trying (RFC 1191 §6.3).
    pub(super) fn age_paths(&mut self, now: u64) {
        if self.paths.next_deadline().is_none_or(|due| now < due) {
            return;
        }
        let due = self.paths.lowered.iter().filter(|(_, (_, until))| *until <= now).map(|(sa, _)| *sa);
        for sa in due.collect::<Vec<_>>() {
            self.paths.lowered.remove(&sa);
            if let Some(mtu) = self.path_mtu(sa) {
                self.tell_path_mtu(sa, mtu);
            }
        }
    }

    /// A node was just told to install this SA.
    pub(super) fn tell_lowered(&mut self, at: usize, sa: SaId) {
        if let Some((mtu, _)) = self.paths.lowered.get(&sa).copied() {
            self.send(at, ToTarget::PathMtu { sa, mtu });
        }
    }

    fn tell_path_mtu(&mut self, sa: SaId, mtu: u16) {
        let Some(pair) = self.outbound.get(&sa).and_then(|pair| self.pairs.get(pair)) else {
            return;
        };
        let (vip, spreads) = (pair.vip(), pair.spreads());
        self.outputs.push_back(RouterOutput::PathMtu { sa, mtu });
        for at in 0..self.members.len() {
            if spreads && self.members[at].live() && self.serves(at, vip) {
                self.send(at, ToTarget::PathMtu { sa, mtu });
            }
        }
    }
}
