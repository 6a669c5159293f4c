//! What CHILD_SAs carry, for IKE: the first genuine packet of each, the share of its lifesize that is used, the end of one that is
//! used up (R22, I3).

use std::time::{Duration, Instant};

use phalanx_cluster::ledger::Use;
use phalanx_ike::Answer;
use phalanx_wire::SaId;

use super::brain::Brain;

/// How often the state machine learns what its SAs used; and at once, when so much of a lifesize was: one of so many parts.
const USED_EVERY: Duration = Duration::from_secs(1);
const USED_SHARE: u64 = 20;

impl Brain {
    /// First packets of new SAs, and now and then what all of them used (R22).
    pub(super) fn look_at_children(&mut self) {
        let now = self.now();
        let (Some(ike), Some(router)) = (&mut self.ike, &self.router) else { return };
        let mut answers = Vec::new();
        for (&id, child) in ike.children.iter_mut().filter(|(_, child)| !child.verified) {
            let sa = child.pair.inbound.id;
            let here = self.sas.find(sa).is_some_and(|entry| entry.edge() > 0);
            if here || router.used(sa).is_some_and(|used| used.packets > 0) {
                child.verified = true;
                answers.push(Answer::Verified { child: id });
            }
        }
        let all = ike.used_told.elapsed() >= USED_EVERY;
        if all {
            ike.used_told = Instant::now();
        }
        let used = |sa| router.used(sa).unwrap_or_default();
        for (&id, child) in ike.children.iter_mut().filter(|(_, child)| child.is_up()) {
            let (pair, hard) = (&child.pair, child.pair.outbound.lifesize.hard);
            // One that may carry only so many bytes is looked at more often: a successor wants its time.
            if !all && hard == u64::MAX {
                continue;
            }
            let (inbound, outbound): (Use, Use) = (used(pair.inbound.id), used(pair.outbound.id));
            let most = inbound.bytes.max(outbound.bytes);
            if !all && most < child.told.saturating_add(hard / USED_SHARE) {
                continue;
            }
            // Numbers that were handed out and not used are gone too.
            let given = router.sequence(pair.outbound.id, now).and_then(|sequence| sequence.next);
            child.told = most;
            answers.push(Answer::Used {
                child: id,
                inbound_bytes: inbound.bytes,
                inbound_packets: inbound.packets,
                outbound_bytes: outbound.bytes,
                outbound_packets: outbound.packets.max(given.unwrap_or_default()),
            });
        }
        answers.into_iter().for_each(|answer| self.ike_answer(answer));
    }

    /// The hard lifesize of a negotiated SA: it ends, and its peer is told. False: it is not negotiated.
    pub(super) fn ike_hard_limit(&mut self, sa: SaId) -> bool {
        let Some(child) = self.ike.as_ref().and_then(|ike| ike.child_of(sa)) else { return false };
        self.ike_answer(Answer::Exhausted { child });
        true
    }
}
