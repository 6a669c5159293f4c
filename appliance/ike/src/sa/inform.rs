//! INFORMATIONAL: deletes, errors, signs of life (RFC 7296 §1.4).

use super::child::Life;
use super::exchange::{Asking, Work};
use super::{Cx, IkeSa, Stage, Todo};
use crate::codec::{Body, CodecError, Delete, Exchange, NotifyKind, Payloads};
use crate::{ChildId, Ending, Millis, Reason};

/// When a child that should be there is made again after the peer deleted it.
const AGAIN_MS: Millis = 1_000;

/// More unknown SPIs in deletes than there can be answers on their way.
const MOST_GONE: usize = 16;

impl IkeSa {
    pub(super) fn inform_request(&mut self, cx: &mut Cx, id: u32, payloads: &Payloads) -> Result<(), CodecError> {
        let deletes = payloads.deletes()?;
        if payloads.notifies().any(|n| n.is(NotifyKind::AUTHENTICATION_FAILED)) {
            // RFC 7296 §2.21.2: as initiator it did not believe us.
            self.reply(cx, Exchange::Informational, id, &Body::new());
            let we = self.peer.as_ref().map_or(String::new(), |p| p.local_id.to_string());
            self.fail(cx, Reason::AuthenticationRefused(we));
            return Ok(());
        }
        if deletes.contains(&Delete::Ike) {
            self.delete_all(cx, id);
            return Ok(());
        }
        if self.undecided && !deletes.is_empty() {
            return self.not_yet(id);
        }
        let mut spis = Vec::new();
        let mut gone: Vec<ChildId> = Vec::new();
        for theirs in deletes.iter().flat_map(|d| if let Delete::Children(spis) = d { &spis[..] } else { &[] }) {
            let mut named = self.children.iter().filter(|c| (c.protocol(), c.spi_out) == *theirs);
            let Some(child) = named.find(|c| c.is_installed()) else {
                if let Some(Asking::Child(ask)) = self.asked.as_deref_mut().map(|asked| &mut asked.what)
                    && ask.gone.len() < MOST_GONE
                {
                    ask.gone.push(*theirs);
                }
                continue;
            };
            let (child, ours, told) = (child.id, child.name_in(), child.life == Life::Deleting);
            // §1.4.1: where both delete at once neither answers with a delete.
            if !told {
                spis.push(ours);
            }
            gone.push(child);
        }
        for child in &gone {
            self.peer_deletes(cx, *child);
        }
        let mut answer = Body::new();
        if !spis.is_empty() {
            answer.delete_children(&spis);
        }
        if gone.is_empty() {
            self.reply(cx, Exchange::Informational, id, &answer);
        } else {
            let what = Work::Remove { children: gone, answer, close: None };
            self.wait_for(cx, id, Exchange::Informational, what);
        }
        Ok(())
    }

    /// The peer ends one child.
    fn peer_deletes(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        let (successor, config, ending, told) =
            (child.successor, child.config.clone(), child.ending, child.life == Life::Deleting);
        match successor {
            // The old one of a rekey: from now on the new one it is.
            Some(new) => {
                self.switch(cx, new);
                self.remove(cx, id, Ending::Replaced);
            }
            None if told => self.remove(cx, id, ending),
            None if ending == Ending::Replaced => self.remove(cx, id, ending),
            None => {
                self.remove(cx, id, Ending::Peer);
                let rekeying = matches!(self.asked.as_deref(), Some(a) if matches!(&a.what, Asking::Child(c) if c.rekeys == Some(id)));
                if config.start && !rekeying {
                    self.later(cx.now + AGAIN_MS, Todo::Child { config, replaces: None });
                }
            }
        }
    }

    /// The peer ends the IKE SA.
    fn delete_all(&mut self, cx: &mut Cx, id: u32) {
        // §2.25.2: our own request to replace it is forgotten; the one that the peer made inherits.
        self.bequeath(cx, self.asked.as_ref().and_then(|asked| IkeSa::rival(&asked.what)));
        // §2.25.2: where both end it at once, ours was not for want of the peer.
        let ending = self.ends_anyway().unwrap_or(Ending::Peer);
        self.forget_asked(cx);
        let children: Vec<_> = self.children.iter().map(|c| c.id).collect();
        for child in &children {
            self.remove(cx, *child, Ending::WithIke);
        }
        if children.is_empty() {
            self.reply(cx, Exchange::Informational, id, &Body::new());
            return self.close(cx, ending);
        }
        self.stage = Stage::Closing;
        let what = Work::Remove { children, answer: Body::new(), close: Some(ending) };
        self.wait_for(cx, id, Exchange::Informational, what);
    }

    /// Why it would end without anything more from the peer.
    pub(super) fn ends_anyway(&self) -> Option<Ending> {
        match self.asked.as_deref().map(|asked| &asked.what) {
            Some(Asking::DeleteIke(ending)) => Some(*ending),
            _ => matches!(self.stage, Stage::Replaced).then_some(Ending::Replaced),
        }
    }

    /// Tells the peer that all of it ends.
    pub(super) fn delete_ike(&mut self, cx: &mut Cx, ending: Ending) {
        let mut body = Body::new();
        body.delete_ike();
        self.stage = Stage::Closing;
        self.ask(cx, Exchange::Informational, &body, Asking::DeleteIke(ending));
    }
}
