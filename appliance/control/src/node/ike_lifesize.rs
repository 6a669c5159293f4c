//! What CHILD_SAs carry, for IKE: the first genuine packet of each, the share of its lifesize that is used, the end of one that is
//! used up (R22, I3).

use std::collections::BTreeMap;

use phalanx_cluster::ledger::Use;
use phalanx_ike::{Answer, ChildId};
use phalanx_wire::SaId;

use super::brain::Brain;

/// The state machine learns what each of its SAs used about once a second; and at once, when so much of a lifesize was: one of so many
/// parts.
const USED_SHARE: u64 = 20;

impl Brain {
    /// First packets of new SAs, and now and then what each of them used (R22). `genuine`: inbound SAs that had genuine packets, known
    /// ones among them. `turn`: whose turn it is, used or not.
    pub(super) fn look_at_children(&mut self, genuine: Vec<SaId>, turn: Vec<ChildId>) {
        let now = self.now();
        let (Some(ike), Some(router)) = (&mut self.ike, &mut self.router) else { return };
        let (mut answers, grown) = (Vec::new(), router.take_used());
        let packets = |sa: &SaId| router.used(*sa).is_some_and(|used| used.packets > 0);
        for sa in genuine.into_iter().chain(grown.iter().copied().filter(packets)) {
            let id = ike.child_of(sa);
            let child = id.and_then(|id| ike.children.get_mut(&id)).filter(|child| child.pair.inbound.id == sa);
            if let (Some(id), Some(child)) = (id, child.filter(|child| !child.verified)) {
                child.verified = true;
                answers.push(Answer::Verified { child: id });
            }
        }
        // One that may carry only so many bytes is looked at whenever it is used: a successor wants its time.
        let mut due: BTreeMap<_, _> = grown.iter().filter_map(|sa| Some((ike.child_of(*sa)?, false))).collect();
        due.extend(turn.into_iter().map(|id| (id, true)));
        let used = |sa| router.used(sa).unwrap_or_default();
        for (id, all) in due {
            let Some(child) = ike.children.get_mut(&id).filter(|child| child.is_up()) else { continue };
            let (pair, hard) = (&child.pair, child.pair.outbound.lifesize.hard);
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
