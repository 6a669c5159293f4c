//! Peers: when to begin with them, and what becomes of their other IKE SAs (RFC 7296 §2.4, §2.8.3).

use std::net::IpAddr;
use std::sync::Arc;

use super::Endpoint;
use crate::sa::{Begin, IkeSa, Todo};
use crate::{ChildConfig, ChildId, Ending, IkeId, Millis, PeerConfig};

/// The first and the longest time after which a peer that failed is tried again.
const AGAIN_MS: Millis = 1_000;
const LONGEST_MS: Millis = 60_000;
/// Two IKE SAs made at the same time, one from each side: no further apart than this.
const SAME_TIME_MS: Millis = 10_000;
/// How long an IKE SA lives beside the one that was made anew, until that one's children are there.
const BESIDE_MS: Millis = 2_000;

impl Endpoint {
    /// Peers that are to be begun with, and have nothing yet.
    pub(super) fn start_peers(&mut self, now: Millis) {
        for peer in self.config.peers.iter().filter(|p| p.start && p.remote.address().is_some()) {
            let up = self.sas.values().any(|sa| sa.peer.as_ref().is_some_and(|p| p.name == peer.name));
            if !up {
                self.starts.entry(peer.name.clone()).or_insert((now, 0));
            }
        }
    }

    pub(super) fn start_due(&mut self, now: Millis) {
        let due: Vec<_> = self.starts.iter().filter(|(_, (at, _))| *at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            // Until it is lost again, or is up.
            if let Some(start) = self.starts.get_mut(&name) {
                start.0 = Millis::MAX;
            }
            let Some(peer) = self.config.peer(&name).cloned() else {
                self.starts.remove(&name);
                continue;
            };
            let children = initial(&peer, None);
            if let Some(remote) = peer.remote.address()
                && self.live_with(&name).is_none()
            {
                self.begin(now, peer, remote, children, None);
            }
        }
    }

    /// An IKE SA with a peer that is up or on its way.
    pub(super) fn live_with(&self, peer: &str) -> Option<IkeId> {
        let with = |sa: &IkeSa| sa.peer.as_ref().is_some_and(|p| &*p.name == peer) && sa.is_live();
        self.sas.values().filter(|sa| with(sa)).map(|sa| sa.id).min()
    }

    pub(super) fn begin(
        &mut self,
        now: Millis,
        peer: Arc<PeerConfig>,
        remote: IpAddr,
        children: Vec<(Arc<ChildConfig>, Option<ChildId>)>,
        reauthenticates: Option<IkeId>,
    ) -> Option<IkeId> {
        if self.sas.len() >= self.config.limits.ike_sas {
            self.counters.sa_limit += 1;
            self.lost(now, &peer.name.clone());
            return None;
        }
        // RFC 7296 §2.4: nothing else is left of this peer that we know of.
        let initial_contact = reauthenticates.is_none() && self.live_with(&peer.name).is_none();
        let begin = Begin { peer, remote, children, initial_contact, reauthenticates };
        let mut effects = Vec::new();
        let sa = IkeSa::begin(&mut self.cx(now, &mut effects), begin);
        let id = sa.id;
        self.settle(sa);
        self.follow(now, id, effects);
        Some(id)
    }

    /// An IKE SA with a peer failed, or ended without our doing.
    pub(super) fn lost(&mut self, now: Millis, name: &Arc<str>) {
        let wanted = self.config.peer(name).is_some_and(|p| p.start && p.remote.address().is_some());
        if !wanted || self.live_with(name).is_some() {
            return;
        }
        let failures = self.starts.get(name).map_or(0, |(_, failures)| *failures);
        let wait = (AGAIN_MS << failures.min(6)).min(LONGEST_MS);
        let mut byte = [0; 1];
        self.random.fill(&mut byte);
        // Up to a quarter more: not all at once.
        let at = now + wait + wait * u64::from(byte[0]) / 1024;
        self.starts.insert(name.clone(), (at, failures + 1));
    }

    /// A peer is authenticated: what becomes of its other IKE SAs?
    pub(super) fn contact(&mut self, now: Millis, by: IkeId, initial: bool) {
        let Some(new) = self.sas.get(&by) else { return };
        let (Some(peer), Some(hash)) = (new.peer.clone(), new.known_as) else { return };
        self.starts.remove(&peer.name);
        let (ours, spi) = (new.initiator, new.spis().0);
        let identity = new.identity.as_ref().map(|i| i.0.clone());
        let others: Vec<_> = self.known.get(&hash).map_or(Vec::new(), |list| list.clone());
        for other in others.into_iter().filter(|id| *id != by) {
            let Some(old) = self.sas.get(&other) else { continue };
            if old.identity.as_ref().map(|i| &i.0) != identity.as_ref() || !old.is_live() {
                continue;
            }
            let together = old.initiator != ours && now.saturating_sub(old.began) < SAME_TIME_MS;
            if initial && !together {
                // It has forgotten all others: nothing needs to be said about them.
                self.with(now, other, |sa, cx| sa.close(cx, Ending::NewContact));
            } else if peer.unique {
                // Both began at once: both ends have to let the same one go.
                let loser = if together && old.spis().0 < spi { by } else { other };
                let at = now + BESIDE_MS;
                self.with(now, loser, |sa, _| sa.later(at, Todo::DeleteIke(Ending::NewContact)));
            }
        }
    }

    /// The same peer from the beginning, with what it has now.
    pub(super) fn reauthenticate(&mut self, now: Millis, old: IkeId) {
        let Some(sa) = self.sas.get(&old) else { return };
        let Some(peer) = sa.peer.clone() else { return };
        let remote = sa.path.remote.ip();
        let current = sa.children.iter().filter(|c| c.is_current());
        let mut children: Vec<_> = current.map(|c| (c.config.clone(), Some(c.id))).collect();
        if children.is_empty() {
            children = initial(&peer, None);
        }
        self.begin(now, peer, remote, children, Some(old));
    }

    pub(super) fn reauthenticated(&mut self, now: Millis, old: IkeId) {
        let at = now + BESIDE_MS;
        self.with(now, old, |sa, _| sa.later(at, Todo::DeleteIke(Ending::Replaced)));
    }
}

/// The children that come with an IKE SA: the one asked for, else those that are to be there, else the first.
pub fn initial(peer: &PeerConfig, wanted: Option<&Arc<ChildConfig>>) -> Vec<(Arc<ChildConfig>, Option<ChildId>)> {
    let mut children: Vec<_> = match wanted {
        Some(child) => vec![child.clone()],
        None => peer.children.iter().filter(|c| c.start).cloned().collect(),
    };
    if children.is_empty() {
        children.extend(peer.children.first().cloned());
    }
    children.into_iter().map(|c| (c, None)).collect()
}
