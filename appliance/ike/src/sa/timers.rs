//! What an IKE SA does when time goes by.

use super::child::Life;
use super::exchange::{Asked, Asking, Work};
use super::{Cx, IkeSa, Stage, Todo};
use crate::{Ending, Millis, Output, Reason};

impl IkeSa {
    /// When something is to be done next.
    pub fn deadline(&self) -> Millis {
        let mut at = self.end_at;
        if let Some(asked) = &self.asked {
            at = at.min(asked.next);
        } else if matches!(self.stage, Stage::Up | Stage::Replaced) && !self.undecided {
            at = self.tasks.iter().map(|t| t.at).fold(at, Millis::min);
        }
        if let Some(working) = &self.working {
            at = at.min(working.until);
        }
        if matches!(self.stage, Stage::Up) {
            at = at.min(self.rekey_at).min(self.probe_at()).min(self.keepalive_at());
        }
        self.children.iter().map(|c| c.deadline()).fold(at, Millis::min)
    }

    /// When the peer is asked whether it lives.
    fn probe_at(&self) -> Millis {
        let every = self.peer.as_ref().map_or(0, |p| p.liveness_ms);
        let waits = self.asked.is_some() || self.tasks.iter().any(|t| matches!(t.what, Todo::Probe));
        if every == 0 || waits { Millis::MAX } else { self.heard_at + every }
    }

    fn keepalive_at(&self) -> Millis {
        let every = self.peer.as_ref().map_or(0, |p| p.keepalive_ms);
        if every == 0 || !self.nat.us { Millis::MAX } else { self.sent_at + every }
    }

    /// Does what is due.
    pub fn tick(&mut self, cx: &mut Cx) {
        if self.end_at <= cx.now && !self.is_gone() {
            self.end(cx);
        }
        if self.is_gone() {
            return;
        }
        if self.asked.as_ref().is_some_and(|asked| asked.next <= cx.now) {
            self.ask_again(cx);
        }
        if self.working.as_ref().is_some_and(|w| w.until <= cx.now) {
            self.waited(cx);
        }
        for at in (0..self.children.len()).rev() {
            if let Some(id) = self.children.get(at).filter(|c| c.deadline() <= cx.now).map(|c| c.id) {
                self.tend(cx, id);
            }
        }
        if matches!(self.stage, Stage::Up) {
            if self.rekey_at <= cx.now {
                self.rekey_at = Millis::MAX;
                self.later(cx.now, Todo::RekeyIke);
            }
            if self.probe_at() <= cx.now {
                self.later(cx.now, Todo::Probe);
            }
            if self.keepalive_at() <= cx.now {
                self.sent_at = cx.now;
                cx.out.push_back(Output::Keepalive { path: self.path });
            }
        }
        self.next_task(cx);
    }

    /// Its time is over.
    fn end(&mut self, cx: &mut Cx) {
        match self.stage {
            Stage::Init(_) | Stage::Auth(_) => self.fail(cx, Reason::HalfOpen(cx.config.limits.half_open_ms)),
            Stage::Replaced => self.close(cx, Ending::Replaced),
            Stage::Up if self.undecided => self.close(cx, Ending::Replaced),
            Stage::Up if self.asked.is_none() => {
                // A hard limit ends it at once; one datagram says so.
                self.delete_ike(cx, Ending::HardLimit);
                self.close(cx, Ending::HardLimit);
            }
            Stage::Up | Stage::Closing => self.close(cx, self.ends_anyway().unwrap_or(Ending::HardLimit)),
            Stage::Gone => {}
        }
    }

    /// What an answer waits for did not come.
    fn waited(&mut self, cx: &mut Cx) {
        match self.working.as_ref().map(|w| &w.what) {
            Some(Work::Install { child, .. }) => {
                let child = *child;
                self.install_timeout(cx, child);
            }
            Some(Work::Remove { .. }) => self.check_removed(cx),
            None => {}
        }
    }

    /// Something is due for one child.
    fn tend(&mut self, cx: &mut Cx, id: crate::ChildId) {
        let Some(child) = self.child(id) else { return };
        let (life, ending) = (child.life, child.ending);
        if life == Life::Installing && child.install_by <= cx.now {
            return self.install_timeout(cx, id);
        }
        if child.remove_at <= cx.now {
            child.remove_at = Millis::MAX;
            return self.remove(cx, id, ending);
        }
        if child.end_at <= cx.now {
            child.end_at = Millis::MAX;
            return self.hard_limit(cx, id);
        }
        if !child.switched && child.switch_at <= cx.now {
            return self.switch(cx, id);
        }
        if child.rekey_at <= cx.now && life == Life::Up && !child.rekeying && child.successor.is_none() {
            child.rekeying = true;
            self.later(cx.now, Todo::RekeyChild(id));
        }
    }

    /// A child that is asked for is not asked for twice.
    pub fn is_making(&self, name: &str) -> bool {
        let asked =
            matches!(self.asked.as_deref(), Some(Asked { what: Asking::Child(ask), .. }) if &*ask.config.name == name);
        let first = match &self.stage {
            Stage::Init(setup) | Stage::Auth(setup) => setup.children.iter().any(|(c, _)| &*c.name == name),
            _ => false,
        };
        asked
            || first
            || self.tasks.iter().any(|t| matches!(&t.what, Todo::Child { config, .. } if &*config.name == name))
    }
}
