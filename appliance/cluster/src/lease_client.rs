//! How a target gets numbers (ARCHITECTURE, "Outbound sequence numbers"; I1): one open request per core and SA, a fresh nonce
//! for every try, and only the answer to the last try is believed. What an answer says about numbers that this node
//! already had, or about another boot or epoch, is thrown away: a number that is lost is a gap, one used twice is a leak.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_ipsec::Lease;
use phalanx_wire::{CoreId, Epoch, SaId};

use crate::messages::{LeaseRefusal, LeaseReply, LeaseRequest};

/// After so many doublings the time between tries grows no more.
const BACKOFF_MAX: u32 = 4;
/// Highest numbers of removed SAs that are remembered.
const RETIRED_MAX: usize = 65_536;

/// What a core wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// How many numbers; 0: none, only say what is done.
    pub want: u32,
    /// It will never again send a number below this one.
    pub done_below: u64,
    /// Packets per second it sends.
    pub rate_pps: u32,
}

#[derive(Debug)]
struct Asking {
    want: Want,
    /// The last try: its nonce and when it was sent.
    sent: Option<(u64, u64)>,
    /// When it is due: its place in `LeaseClient::due`.
    at: u64,
    tries: u32,
}

/// The other side, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// Our boot.
    pub incarnation: u64,
    /// The router's.
    pub router_incarnation: u64,
}

/// What an answer came to.
#[derive(Debug)]
pub enum Accepted {
    /// Numbers, to be thrown away at that time.
    Lease(Lease, u64),
    /// There are none.
    Refused(LeaseRefusal),
    /// The answer is not to be believed, or came too late; the request stands or is tried again.
    Ignored(&'static str),
}

/// All open requests of one node to one router.
#[derive(Debug, Default)]
pub struct LeaseClient {
    retry_us: u64,
    nonce: u64,
    asking: BTreeMap<(SaId, CoreId), Asking>,
    latency: BTreeMap<(SaId, CoreId), u32>,
    /// One above the highest number ever had, by SA.
    had_below: BTreeMap<SaId, u64>,
    retired: BTreeMap<SaId, u64>,
    due: BTreeSet<(u64, SaId, CoreId)>,
}

impl LeaseClient {
    /// A client that tries again after `retry_us`, then after twice that, and so on.
    #[must_use]
    pub fn new(retry_us: u64) -> Self {
        Self { retry_us, ..Self::default() }
    }

    /// A core wants numbers; what it said before is replaced, its open try stands. Send what [`Self::due`] gives.
    pub fn wanted(&mut self, core: CoreId, sa: SaId, want: Want, now: u64) {
        match self.asking.get_mut(&(sa, core)) {
            Some(asking) => asking.want = want,
            None => {
                self.asking.insert((sa, core), Asking { want, sent: None, at: now, tries: 0 });
                self.due.insert((now, sa, core));
            }
        }
    }

    /// The next request to send now.
    pub fn due(
        &mut self,
        session: Session,
        epoch_of: impl Fn(SaId) -> Option<Epoch>,
        now: u64,
    ) -> Option<LeaseRequest> {
        loop {
            let &(at, sa, core) = self.due.first().filter(|(at, _, _)| *at <= now)?;
            self.due.remove(&(at, sa, core));
            let (Some(asking), Some(epoch)) = (self.asking.get_mut(&(sa, core)), epoch_of(sa)) else {
                self.asking.remove(&(sa, core));
                continue;
            };
            self.nonce += 1;
            asking.sent = Some((self.nonce, now));
            let wait = self.retry_us << asking.tries.min(BACKOFF_MAX);
            asking.tries += 1;
            asking.at = now + wait;
            let Want { want, done_below, rate_pps } = asking.want;
            if want == 0 {
                // It has no answer.
                self.asking.remove(&(sa, core));
            } else {
                self.due.insert((asking.at, sa, core));
            }
            return Some(LeaseRequest {
                sa,
                core,
                nonce: self.nonce,
                incarnation: session.incarnation,
                router_incarnation: session.router_incarnation,
                epoch,
                want,
                done_below,
                rate_pps,
                latency_us: self.latency.get(&(sa, core)).copied().unwrap_or(0),
            });
        }
    }

    /// When [`Self::due`] will have something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// An answer came over the authenticated channel.
    pub fn accept(&mut self, reply: &LeaseReply, session: Session, epoch: Option<Epoch>, now: u64) -> Accepted {
        let key = (reply.sa, reply.core);
        let Some(asking) = self.asking.get(&key) else {
            return Accepted::Ignored("it was not asked for");
        };
        let Some((nonce, sent_at)) = asking.sent else {
            return Accepted::Ignored("it was not asked for");
        };
        let current = reply.nonce == nonce
            && reply.incarnation == session.incarnation
            && reply.router_incarnation == session.router_incarnation;
        if !current {
            return Accepted::Ignored("it answers an earlier try or boot");
        }
        if epoch != Some(reply.epoch) {
            return Accepted::Ignored("it is of another epoch");
        }
        let block = match reply.result {
            Ok(block) => block,
            Err(refusal) => {
                self.answered(key);
                return Accepted::Refused(refusal);
            }
        };
        let waited = u64::from(block.waited_us);
        self.measure(key, now.saturating_sub(sent_at).saturating_sub(waited));
        let had_below = self.had_below.get(&reply.sa).copied().unwrap_or(0);
        let end = block.first.saturating_add(u64::from(block.len));
        if block.len == 0 || block.first < had_below {
            self.again(key, now + self.retry_us);
            return Accepted::Ignored("its numbers are not above all that this node had");
        }
        // I1: from here on they were had, used or not.
        self.had_below.insert(reply.sa, end);
        // The router's clock for it started later than ours: it waited after we sent.
        let valid_until = sent_at + waited + u64::from(block.valid_for_us);
        if now >= valid_until {
            self.again(key, now);
            return Accepted::Ignored("it came too late");
        }
        self.answered(key);
        Accepted::Lease(Lease::from_wire(block.first, block.len), valid_until)
    }

    /// The session ended: open tries will not be answered; they are made again in the next one.
    pub fn lost(&mut self, now: u64) {
        self.due.clear();
        for (&(sa, core), asking) in &mut self.asking {
            asking.sent = None;
            asking.tries = 0;
            asking.at = now;
            self.due.insert((now, sa, core));
        }
    }

    /// Starts to remember an outbound SA.
    pub fn add(&mut self, sa: SaId) {
        let had = self.retired.remove(&sa).unwrap_or(0);
        self.had_below.entry(sa).or_insert(had);
    }

    /// Nobody may ask for this SA any more. Its highest number stays known, should it come back (I1).
    pub fn remove(&mut self, sa: SaId) {
        self.asking.retain(|(of, _), _| *of != sa);
        self.latency.retain(|(of, _), _| *of != sa);
        self.due.retain(|(_, of, _)| *of != sa);
        if let Some(had) = self.had_below.remove(&sa) {
            self.retired.insert(sa, had);
            if self.retired.len() > RETIRED_MAX {
                self.retired.pop_first();
            }
        }
    }

    /// The highest number ever had of each SA here; 0: none.
    pub fn highest(&self) -> impl Iterator<Item = (SaId, u64)> {
        self.had_below.iter().map(|(sa, below)| (*sa, below.saturating_sub(1)))
    }

    /// How long requests for this SA take, µs.
    #[must_use]
    pub fn latency_us(&self, sa: SaId, core: CoreId) -> Option<u32> {
        self.latency.get(&(sa, core)).copied()
    }

    fn answered(&mut self, (sa, core): (SaId, CoreId)) {
        if let Some(asking) = self.asking.remove(&(sa, core)) {
            self.due.remove(&(asking.at, sa, core));
        }
    }

    fn again(&mut self, (sa, core): (SaId, CoreId), at: u64) {
        if let Some(asking) = self.asking.get_mut(&(sa, core)) {
            self.due.remove(&(asking.at, sa, core));
            (asking.sent, asking.at) = (None, at);
            self.due.insert((at, sa, core));
        }
    }

    fn measure(&mut self, key: (SaId, CoreId), sample: u64) {
        let sample = u32::try_from(sample).unwrap_or(u32::MAX).max(1);
        let known = self.latency.entry(key).or_insert(sample);
        // An exponential mean, as RFC 6298 §2 does for round trips.
        *known = u32::try_from((u64::from(*known) * 7 + u64::from(sample)) / 8).unwrap_or(u32::MAX).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::LeaseBlock;

    const SA: SaId = SaId(1);
    const CORE: CoreId = CoreId(2);
    const EPOCH: Option<Epoch> = Some(Epoch(3));
    const SESSION: Session = Session { incarnation: 4, router_incarnation: 5 };

    fn asked() -> (LeaseClient, LeaseRequest) {
        let mut client = LeaseClient::new(50_000);
        client.add(SA);
        client.wanted(CORE, SA, Want { want: 8, done_below: 0, rate_pps: 10 }, 0);
        let request = client.due(SESSION, |_| EPOCH, 0).unwrap();
        (client, request)
    }

    fn reply(nonce: u64, first: u64) -> LeaseReply {
        let block = LeaseBlock { first, len: 8, valid_for_us: 1000, waited_us: 500 };
        let Session { incarnation, router_incarnation } = SESSION;
        LeaseReply { sa: SA, core: CORE, nonce, incarnation, router_incarnation, epoch: Epoch(3), result: Ok(block) }
    }

    fn accepts(client: &mut LeaseClient, reply: &LeaseReply, now: u64) -> bool {
        matches!(client.accept(reply, SESSION, EPOCH, now), Accepted::Lease(..))
    }

    #[test]
    fn an_answer_is_believed_once_and_counts_from_the_sending() {
        let (mut client, request) = asked();
        let Accepted::Lease(lease, until) = client.accept(&reply(request.nonce, 9), SESSION, EPOCH, 700) else {
            panic!("refused")
        };
        assert_eq!((lease.first(), lease.end(), until), (9, 17, 1500));
        assert_eq!(client.latency_us(SA, CORE), Some(200), "waiting at the router is not counted");
        assert!(!accepts(&mut client, &reply(request.nonce, 17), 700), "it was not asked for");
    }

    #[test]
    fn answers_of_other_boots_epochs_and_tries_are_not_believed() {
        let (mut client, request) = asked();
        let good = reply(request.nonce, 9);
        let wrong = [
            LeaseReply { incarnation: 9, ..good },
            LeaseReply { router_incarnation: 9, ..good },
            LeaseReply { epoch: Epoch(9), ..good },
            LeaseReply { nonce: request.nonce + 1, ..good },
            LeaseReply { core: CoreId(9), ..good },
            LeaseReply { sa: SaId(9), ..good },
        ];
        for reply in &wrong {
            assert!(!accepts(&mut client, reply, 10), "{reply:?}");
        }
        assert!(accepts(&mut client, &good, 10), "and none of them spoils the good one");
    }

    #[test]
    fn a_late_answer_is_thrown_away_and_its_numbers_are_gone() {
        let (mut client, request) = asked();
        assert!(!accepts(&mut client, &reply(request.nonce, 9), 1500));
        let again = client.due(SESSION, |_| EPOCH, 1500).unwrap();
        assert!(again.nonce > request.nonce && again.latency_us > 0);
        assert!(!accepts(&mut client, &reply(again.nonce, 9), 1600), "they are not above all that was had");
        assert_eq!(client.highest().collect::<Vec<_>>(), [(SA, 16)]);
    }

    #[test]
    fn a_lost_request_is_made_again_more_and_more_slowly() {
        let (mut client, first) = asked();
        assert!(client.due(SESSION, |_| EPOCH, 49_999).is_none());
        let second = client.due(SESSION, |_| EPOCH, 50_000).unwrap();
        assert_eq!(second.nonce, first.nonce + 1);
        assert_eq!(client.next_deadline(), Some(150_000));
        client.lost(60_000);
        assert_eq!(client.next_deadline(), Some(60_000), "a new session asks at once");
        assert!(!accepts(&mut client, &reply(second.nonce, 9), 60_000), "the old one's answers are void");
    }

    #[test]
    fn the_highest_number_of_a_removed_sa_is_remembered() {
        let (mut client, request) = asked();
        assert!(accepts(&mut client, &reply(request.nonce, 9), 10));
        client.remove(SA);
        assert_eq!(client.highest().count(), 0);
        client.add(SA);
        client.wanted(CORE, SA, Want { want: 8, done_below: 0, rate_pps: 10 }, 20);
        let request = client.due(SESSION, |_| EPOCH, 20).unwrap();
        assert!(!accepts(&mut client, &reply(request.nonce, 9), 30));
    }
}
