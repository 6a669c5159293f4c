//! What somebody asks for, and a new configuration.

use std::net::IpAddr;
use std::sync::Arc;

use super::Endpoint;
use super::contact::initial;
use crate::sa::{IkeSa, Todo};
use crate::{
    Begun, ChildConfig, ChildId, Command, CommandError, Config, Credential, Ending, IkeId, Millis, PeerConfig, Proof,
    Which,
};

const NOT_UP: CommandError = CommandError::NotNow("it is not up: it is being set up, replaced or deleted");

impl Endpoint {
    /// Follows a command.
    ///
    /// # Errors
    /// Why it cannot be followed.
    pub fn command(&mut self, now: Millis, command: Command) -> Result<Begun, CommandError> {
        match command {
            Command::Initiate { peer, child } => self.initiate(now, &peer, child.as_deref(), None),
            Command::Acquire { peer, child, remote } => self.initiate(now, &peer, Some(&child), remote),
            Command::RekeyIke { ike } => self.task(now, ike, Todo::RekeyIke),
            Command::Probe { ike } => self.task(now, ike, Todo::Probe),
            Command::Reauthenticate { ike } => {
                self.sas.get(&ike).ok_or(CommandError::NoIke(ike))?.is_up().then_some(()).ok_or(NOT_UP)?;
                self.reauthenticate(now, ike);
                Ok(one(ike))
            }
            Command::RekeyChild { child } => {
                let ike = self.owner(child)?;
                self.task(now, ike, Todo::RekeyChild(child))
            }
            Command::Terminate(which) => self.terminate(now, which),
        }
    }

    fn owner(&self, child: ChildId) -> Result<IkeId, CommandError> {
        self.names.owners.get(&child).copied().ok_or(CommandError::NoChildSa(child))
    }

    fn task(&mut self, now: Millis, ike: IkeId, what: Todo) -> Result<Begun, CommandError> {
        let sa = self.sas.get(&ike).ok_or(CommandError::NoIke(ike))?;
        if !sa.is_up() {
            return Err(NOT_UP);
        }
        self.with(now, ike, |sa, cx| {
            sa.later(now, what);
            sa.next_task(cx);
        });
        Ok(one(ike))
    }

    fn initiate(
        &mut self,
        now: Millis,
        name: &str,
        child: Option<&str>,
        remote: Option<IpAddr>,
    ) -> Result<Begun, CommandError> {
        let peer = self.config.peer(name).cloned().ok_or_else(|| CommandError::NoPeer(name.to_owned()))?;
        let wanted: Option<Arc<ChildConfig>> = match child {
            None => None,
            Some(child) => Some(
                peer.children
                    .iter()
                    .find(|c| &*c.name == child)
                    .cloned()
                    .ok_or_else(|| CommandError::NoChild { peer: name.to_owned(), child: child.to_owned() })?,
            ),
        };
        let Some(ike) = self.live_with(name) else {
            let remote = peer.remote.address().or(remote).ok_or_else(|| CommandError::NoAddress(name.to_owned()))?;
            let children = match &wanted {
                None => peer.children.iter().map(|c| (c.clone(), None)).collect(),
                Some(_) => initial(&peer, wanted.as_ref()),
            };
            let full = CommandError::Full(self.config.limits.ike_sas);
            return self.begin(now, peer, remote, children, None).map(one).ok_or(full);
        };
        let missing = |sa: &IkeSa, c: &ChildConfig| {
            !sa.is_making(&c.name) && !sa.children.iter().any(|k| k.config.name == c.name && k.is_current())
        };
        let all = peer.children.iter().filter(|c| wanted.as_ref().is_none_or(|w| w.name == c.name));
        let todo: Vec<_> = all.filter(|c| self.sas.get(&ike).is_some_and(|sa| missing(sa, c))).cloned().collect();
        let already = todo.is_empty();
        self.with(now, ike, |sa, cx| {
            todo.into_iter().for_each(|config| sa.later(now, Todo::Child { config, replaces: None }));
            sa.next_task(cx);
        });
        Ok(Begun { already, ..one(ike) })
    }

    fn terminate(&mut self, now: Millis, which: Which) -> Result<Begun, CommandError> {
        let ikes: Vec<IkeId> = match which {
            Which::Child(child) => {
                let ike = self.owner(child)?;
                return self.task(now, ike, Todo::DeleteChild(child, Ending::Command));
            }
            Which::Ike(ike) => {
                self.sas.get(&ike).ok_or(CommandError::NoIke(ike))?;
                vec![ike]
            }
            Which::Peer(name) => {
                self.config.peer(&name).ok_or_else(|| CommandError::NoPeer(name.clone()))?;
                self.starts.remove(&*name);
                self.with_peer(&name)
            }
            Which::All => {
                self.starts.clear();
                self.sas.keys().copied().collect()
            }
        };
        for ike in &ikes {
            self.end(now, *ike, Ending::Command);
        }
        Ok(Begun { already: ikes.is_empty(), ikes })
    }

    fn with_peer(&self, name: &str) -> Vec<IkeId> {
        self.sas.values().filter(|sa| sa.peer.as_ref().is_some_and(|p| &*p.name == name)).map(|sa| sa.id).collect()
    }

    /// Tells the peer, if it knows of anything yet.
    fn end(&mut self, now: Millis, ike: IkeId, ending: Ending) {
        self.with(now, ike, |sa, cx| {
            if sa.is_half_open() {
                sa.close(cx, ending);
            } else {
                sa.later(now, Todo::DeleteIke(ending));
                sa.next_task(cx);
            }
        });
    }

    /// What is in both configurations goes on, what is not there any more or is another now ends; what is to begin begins.
    pub fn reconfigure(&mut self, now: Millis, config: Config) {
        self.config = config;
        self.starts.retain(|name, _| self.config.peer(name).is_some_and(|p| p.start));
        for id in self.sas.keys().copied().collect::<Vec<_>>() {
            let Some(sa) = self.sas.get(&id) else { continue };
            let Some(old) = sa.peer.clone() else { continue };
            let new = self.config.peer(&old.name).filter(|new| is_same(&old, new)).cloned();
            let suits = new.as_ref().is_some_and(|new| sa.suite.is_none_or(|suite| suite.is_in(&new.proposal)));
            match new.filter(|_| suits) {
                None => self.end(now, id, Ending::Configuration),
                Some(new) => {
                    self.with(now, id, |sa, cx| sa.reconfigured(cx, new));
                }
            }
        }
        self.start_peers(now);
    }
}

/// Whether an IKE SA of one could have been made by the other. New certificates count from the next authentication on.
fn is_same(old: &PeerConfig, new: &PeerConfig) -> bool {
    let credential = match (&old.credential, &new.credential) {
        (Credential::Psk(a), Credential::Psk(b)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    };
    let proof = match (&old.proof, &new.proof) {
        (Proof::Psk(a), Proof::Psk(b)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    };
    let names = old.local_id == new.local_id && old.remote_id == new.remote_id;
    credential && proof && names && old.local == new.local && old.remote == new.remote
}

fn one(ike: IkeId) -> Begun {
    Begun { ikes: vec![ike], already: false }
}

impl IkeSa {
    /// The same peer, with other children or other times.
    fn reconfigured(&mut self, cx: &mut crate::sa::Cx, peer: Arc<PeerConfig>) {
        self.peer = Some(peer.clone());
        for child in &mut self.children {
            let known = peer.children.iter().find(|c| **c == child.config);
            if let Some(known) = known {
                child.config = known.clone();
            }
        }
        let gone: Vec<_> = self.children.iter().filter(|c| !peer.children.contains(&c.config)).map(|c| c.id).collect();
        gone.into_iter().for_each(|id| self.later(cx.now, Todo::DeleteChild(id, Ending::Configuration)));
        for config in peer.children.iter().filter(|c| c.start) {
            let here = self.children.iter().any(|c| c.config == *config && c.is_current());
            if self.is_up() && self.is_live() && !here && !self.is_making(&config.name) {
                self.later(cx.now, Todo::Child { config: config.clone(), replaces: None });
            }
        }
        self.next_task(cx);
    }
}
