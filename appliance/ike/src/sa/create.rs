//! CREATE_CHILD_SA for CHILD_SAs: new ones and those in place of others, from both sides (RFC 7296 §1.3.1, §1.3.3, §2.8).

use std::sync::Arc;

use phalanx_wire::Spi;

use super::child::{Child, LINGER_MS, Life, NewChild, RETRY_MS};
use super::exchange::{Asked, Asking, Work};
use super::offer::{Contributions, Denied};
use super::{Cx, IkeSa, Stage, Todo};
use crate::codec::{Body, ChildSpi, CodecError, Exchange, NONCE_LEN, Notify, NotifyKind, PayloadKind, Payloads};
use crate::codec::{Protocol, parse_proposals, parse_selectors};
use crate::crypto::{Group, PrivateKey, Secret};
use crate::suite::{choose_esp, describe, is_choice, offer_esp, protocol};
use crate::{ChildConfig, ChildId, ChildMode, Ending, Millis, Reason, What, narrow};

/// How often one request may begin again with another group.
const MOST_ATTEMPTS: u32 = 3;

/// A child that we ask for.
pub struct ChildAsk {
    pub config: Arc<ChildConfig>,
    /// The one it takes the place of, by REKEY_SA.
    pub rekeys: Option<ChildId>,
    /// The one it takes the place of, of this or another IKE SA.
    pub replaces: Option<ChildId>,
    pub spi: Spi,
    pub nonce: Vec<u8>,
    pub private: Option<PrivateKey>,
    /// The peer replaced the same one meanwhile: its child, and the lower one of that exchange's nonces.
    pub rival: Option<(ChildId, Vec<u8>)>,
    /// SPIs that the peer deleted meanwhile and we did not know: one may be that of its answer, which comes later.
    pub gone: Vec<ChildSpi>,
    /// The peer asked for the same meanwhile and got it: one is enough.
    spare: bool,
    /// It came with IKE_AUTH.
    first: bool,
    attempts: u32,
}

impl ChildAsk {
    /// What came with IKE_AUTH.
    pub fn first(config: Arc<ChildConfig>, replaces: Option<ChildId>, spi: Spi, nonce: Vec<u8>) -> ChildAsk {
        let (rekeys, private, rival) = (None, None, None);
        ChildAsk {
            config,
            rekeys,
            replaces,
            spi,
            nonce,
            private,
            rival,
            gone: Vec::new(),
            spare: false,
            first: true,
            attempts: 0,
        }
    }

    /// What the peer calls the SA that it may have made.
    fn name(&self) -> ChildSpi {
        (protocol(&self.config.proposal), self.spi)
    }
}

impl Asking {
    /// The inbound SPI that is kept for what we asked for.
    pub fn reserved(&self) -> Option<Spi> {
        match self {
            Asking::Child(ask) => Some(ask.spi),
            Asking::Disclaim((_, spi)) => Some(*spi),
            _ => None,
        }
    }
}

impl IkeSa {
    /// Asks for a child, if there is none of that name.
    pub(super) fn create_child(&mut self, cx: &mut Cx, config: Arc<ChildConfig>, replaces: Option<ChildId>) {
        if self.children.iter().any(|c| c.config.name == config.name && c.is_current()) {
            return;
        }
        self.ask_child(cx, config, None, replaces, None, 0);
    }

    /// Asks for a successor.
    pub(super) fn rekey_child(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(child) = self.child(id).filter(|c| c.life == Life::Up && c.successor.is_none()) else { return };
        child.rekeying = true;
        // One step at a time: there are peers that send through it only when the one before is deleted.
        if self.predecessor(id).is_some() {
            return self.later(cx.now + LINGER_MS, Todo::RekeyChild(id));
        }
        let Some(child) = self.child(id) else { return };
        let config = child.config.clone();
        self.ask_child(cx, config, Some(id), Some(id), None, 0);
    }

    fn ask_child(
        &mut self,
        cx: &mut Cx,
        config: Arc<ChildConfig>,
        rekeys: Option<ChildId>,
        replaces: Option<ChildId>,
        group: Option<Group>,
        attempts: u32,
    ) {
        if !self.can_carry(&config) {
            cx.counters.children_failed += 1;
            let name = Some(config.name.clone());
            return self.event(cx, What::ChildFailed { name, reason: Reason::AhThroughNat });
        }
        let (spi, nonce) = (cx.offered_spi(self.path), cx.bytes::<NONCE_LEN>().to_vec());
        let group = group.or(config.proposal.groups.first().copied());
        let private = group.map(|group| group.generate(cx.random));
        let mut body = Body::new();
        let old = rekeys.and_then(|id| self.child(id));
        let old_selectors = old.as_ref().map(|c| c.selectors);
        if let Some(old) = old {
            // RFC 7296 §1.3.3: by the SPI that we receive with.
            body.notify_child(NotifyKind::REKEY_SA, old.name_in());
        }
        if config.mode == ChildMode::Transport {
            body.notify(NotifyKind::USE_TRANSPORT_MODE, &[]);
        }
        body.sa(&offer_esp(&config.proposal, spi.0, true));
        body.nonce(&nonce);
        if let Some(private) = &private {
            body.key_exchange(private.group().id(), private.public());
        }
        let (local, remote) = narrow::as_pair(&self.offered(&config, old_selectors));
        body.selectors(&[local], &[remote]);
        let (rival, gone) = (None, Vec::new());
        let ask = ChildAsk {
            config,
            rekeys,
            replaces,
            spi,
            nonce,
            private,
            rival,
            gone,
            spare: false,
            first: false,
            attempts,
        };
        self.ask(cx, Exchange::CreateChild, &body, Asking::Child(Box::new(ask)));
    }

    /// The one it took the place of, while the delete that ends that replacement is not answered.
    fn predecessor(&self, id: ChildId) -> Option<&Child> {
        let old = self.children.iter().find(|c| c.id == id)?.replaces?;
        let old = self.children.iter().find(|c| c.id == old)?;
        let deleted = old.life == Life::Removing || old.life == Life::Deleting && old.remove_at < Millis::MAX;
        Some(old).filter(|_| !deleted)
    }

    /// What we offer: of a successor what the old one had (§2.9.2).
    fn offered(&self, config: &ChildConfig, old: Option<phalanx_ipsec::Selectors>) -> phalanx_ipsec::Selectors {
        let all = old.unwrap_or_else(|| narrow::configured(config, &self.path));
        if config.mode == ChildMode::Transport { self.transport_selectors(&all) } else { all }
    }

    /// The answer to what we asked for.
    pub(super) fn child_answer(&mut self, cx: &mut Cx, ask: ChildAsk, payloads: &Payloads) -> Result<(), CodecError> {
        let error = payloads.notifies().find(|n| n.kind.is_error());
        if let Some(error) = error.filter(|_| payloads.find(PayloadKind::Sa).is_none()) {
            self.child_denied(cx, ask, &error);
            return Ok(());
        }
        let nonce = payloads.nonce()?;
        self.child_made(cx, ask, payloads, nonce)
    }

    /// The peer said no.
    fn child_denied(&mut self, cx: &mut Cx, ask: ChildAsk, error: &Notify) {
        cx.names.spis.remove(&ask.spi.0);
        let old = ask.rekeys.and_then(|id| self.child(id)).filter(|c| c.life == Life::Up && c.successor.is_none());
        // §2.25: what we wanted to replace was replaced or deleted by the peer meanwhile.
        if ask.rekeys.is_some() && old.is_none() {
            return;
        }
        let reason = match error.kind {
            NotifyKind::INVALID_KE_PAYLOAD => {
                let wanted = error.data.try_into().ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
                let wanted = wanted.filter(|g| ask.config.proposal.groups.contains(g) && ask.attempts < MOST_ATTEMPTS);
                if wanted.is_some() {
                    return self.ask_child(cx, ask.config, ask.rekeys, ask.replaces, wanted, ask.attempts + 1);
                }
                Reason::Notified(error.kind.to_string())
            }
            NotifyKind::TEMPORARY_FAILURE => {
                let at = cx.now + 500 + cx.chance(1500);
                let again = match ask.rekeys {
                    Some(old) => Todo::RekeyChild(old),
                    None => Todo::Child { config: ask.config, replaces: ask.replaces },
                };
                return self.later(at, again);
            }
            NotifyKind::CHILD_SA_NOT_FOUND if ask.rekeys.is_some() => {
                // §2.25: the peer has it no more. What is left of it goes, and another one is made.
                if let Some(old) = ask.rekeys {
                    self.remove(cx, old, Ending::Peer);
                }
                let fresh = Todo::Child { config: ask.config, replaces: None };
                return self.later(cx.now, fresh);
            }
            NotifyKind::NO_PROPOSAL_CHOSEN => {
                Reason::ProposalRefused { offered: describe(&offer_esp(&ask.config.proposal, 0, !ask.first)) }
            }
            NotifyKind::TS_UNACCEPTABLE => {
                Reason::SelectorsRefused { offered: narrow::show(&self.offered(&ask.config, None)) }
            }
            NotifyKind::AUTHENTICATION_FAILED => Reason::AuthenticationRefused(String::new()),
            other => Reason::Notified(other.to_string()),
        };
        let no_more = error.kind == NotifyKind::NO_ADDITIONAL_SAS;
        self.child_failed(cx, &ask, reason);
        if no_more && ask.rekeys.is_some() {
            // §1.3: such a peer wants the whole IKE SA made anew.
            cx.effects.push(super::Effect::Reauthenticate);
        }
    }

    fn child_failed(&mut self, cx: &mut Cx, ask: &ChildAsk, reason: Reason) {
        cx.counters.children_failed += 1;
        let retry = cx.now + RETRY_MS;
        if let Some(old) = ask.rekeys.and_then(|id| self.child(id)) {
            (old.rekeying, old.rekey_at) = (false, retry);
        }
        let name = Some(ask.config.name.clone());
        self.event(cx, What::ChildFailed { name, reason });
    }

    /// The peer has it installed: what did it agree to?
    pub(super) fn child_made(
        &mut self,
        cx: &mut Cx,
        ask: ChildAsk,
        payloads: &Payloads,
        peer_nonce: &[u8],
    ) -> Result<(), CodecError> {
        if payloads.find(PayloadKind::Sa).is_none() {
            // With IKE_AUTH: the IKE SA is up and the child is not (§1.2).
            let error = payloads.notifies().find(|n| n.kind.is_error());
            let none = Notify { kind: NotifyKind::NO_PROPOSAL_CHOSEN, spi: None, data: &[] };
            self.child_denied(cx, ask, &error.unwrap_or(none));
            return Ok(());
        }
        match self.take_choice(&ask, payloads, peer_nonce)? {
            Ok(new) => self.finish_child(cx, ask, new, peer_nonce),
            Err(reason) => {
                self.later(cx.now, Todo::Disclaim(ask.name()));
                self.child_failed(cx, &ask, reason);
            }
        }
        Ok(())
    }

    fn take_choice(
        &mut self,
        ask: &ChildAsk,
        payloads: &Payloads,
        peer_nonce: &[u8],
    ) -> Result<Result<NewChild, Reason>, CodecError> {
        let answer = parse_proposals(payloads.need(PayloadKind::Sa, "no proposal")?)?;
        let mut local = parse_selectors(payloads.need(PayloadKind::SelectorsInitiator, "no selectors")?)?;
        let mut remote = parse_selectors(payloads.need(PayloadKind::SelectorsResponder, "no selectors")?)?;
        let offered = offer_esp(&ask.config.proposal, ask.spi.0, !ask.first);
        let chosen = choose_esp(&ask.config.proposal, &answer, !ask.first).filter(|_| is_choice(&answer, &offered));
        let Some((suite, choice)) = chosen else { return Ok(Err(Reason::ChoseOther(describe(&answer)))) };
        let transport = payloads.notifies().any(|n| n.is(NotifyKind::USE_TRANSPORT_MODE));
        match (transport, ask.config.mode) {
            (false, ChildMode::Transport) => {
                return Ok(Err(Reason::Mode { peer: "refuses", configured: "transport" }));
            }
            (true, ChildMode::Tunnel) => return Ok(Err(Reason::Mode { peer: "wants", configured: "tunnel" })),
            _ => {}
        }
        let mut original = None;
        if transport {
            original = self.original(&local, &remote);
            (local, remote) = self.seen_here(&local, &remote);
        }
        let old = ask.rekeys.and_then(|id| self.child(id)).map(|c| c.selectors);
        let Some(selectors) = narrow::answered(&self.offered(&ask.config, old), &local, &remote) else {
            return Ok(Err(Reason::ChoseOther(narrow::describe(&local, &remote))));
        };
        let shared = match (&ask.private, suite.group) {
            (Some(private), Some(group)) if private.group() == group => match payloads.key_exchange()? {
                Some((id, public)) if id == group.id() => match private.agree(public) {
                    Ok(shared) => Some(shared),
                    Err(error) => return Ok(Err(Reason::KeyExchange(error.to_string()))),
                },
                _ => return Ok(Err(Reason::KeyExchange("the answer has no public value of the group".to_owned()))),
            },
            (_, None) => None,
            _ => return Ok(Err(Reason::ChoseOther(describe(&answer)))),
        };
        let shared: Vec<&Secret> = shared.iter().collect();
        let from = Contributions { nonce_i: &ask.nonce, nonce_r: peer_nonce, shared: &shared };
        Ok(Ok(NewChild {
            config: ask.config.clone(),
            initiator: true,
            spi_in: ask.spi,
            spi_out: Spi(choice.spi.first_chunk::<4>().map_or(0, |spi| u32::from_be_bytes(*spi))),
            mode: ask.config.mode,
            suite,
            selectors,
            original,
            replaces: ask.replaces,
            keys: self.child_keys(suite, &from),
        }))
    }

    /// Both have it. If both replaced the same one, one of the two new ones is too many.
    fn finish_child(&mut self, cx: &mut Cx, ask: ChildAsk, new: NewChild, peer_nonce: &[u8]) {
        if ask.gone.contains(&(new.suite.protocol(), new.spi_out)) {
            cx.names.spis.remove(&ask.spi.0);
            return self.child_failed(cx, &ask, Reason::Unknown);
        }
        if ask.spare && self.children.iter().any(|c| c.config.name == ask.config.name && c.is_current()) {
            return self.later(cx.now, Todo::Disclaim(ask.name()));
        }
        if let Some((rival, low)) = &ask.rival {
            if ask.nonce.as_slice().min(peer_nonce) < low.as_slice() {
                // §2.8.1: the one with the lowest nonce goes, deleted by who asked for it. The peer deletes the old one.
                return self.later(cx.now, Todo::Disclaim(ask.name()));
            }
            // Ours is the one that stays; the peer's will be deleted by the peer.
            let (until, rival) = (cx.now + cx.config.limits.replaced_ms, *rival);
            if let Some(child) = self.child(rival) {
                child.switched = true;
                child.ending = Ending::Replaced;
                child.end_at = child.end_at.min(until);
            }
            let id = self.install(cx, new);
            if let Some(child) = self.child(rival) {
                child.successor = Some(id);
            }
            return;
        }
        let gone = ask.rekeys.is_some_and(|old| self.child(old).is_none_or(|c| !c.is_installed()));
        // The peer deleted the old one while we were replacing it: there is nothing to take the place of.
        let new = if gone { NewChild { replaces: None, ..new } } else { new };
        self.install(cx, new);
    }

    /// The peer wants a child, or a new IKE SA.
    pub(super) fn create_request(&mut self, cx: &mut Cx, id: u32, payloads: &Payloads) -> Result<(), CodecError> {
        let busy = |sa: &mut IkeSa, cx: &mut Cx| {
            sa.refuse(cx, Exchange::CreateChild, id, NotifyKind::TEMPORARY_FAILURE, &[]);
            Ok(())
        };
        if self.undecided {
            return self.not_yet(id);
        }
        // §2.25.2: we are about to close it, or it is replaced.
        if !matches!(self.stage, Stage::Up) {
            return busy(self, cx);
        }
        let proposals = parse_proposals(payloads.need(PayloadKind::Sa, "no proposal")?)?;
        if proposals.iter().any(|p| p.protocol == Some(Protocol::Ike)) {
            return self.rekey_request(cx, id, payloads, &proposals);
        }
        if matches!(self.asked.as_deref(), Some(Asked { what: Asking::RekeyIke(_) | Asking::DeleteIke(_), .. })) {
            return busy(self, cx);
        }
        let nonce = payloads.nonce()?;
        let mut replaces = None;
        if let Some(rekey) = payloads.notifies().find(|n| n.is(NotifyKind::REKEY_SA)) {
            let old = rekey.spi.and_then(|spi| self.children.iter().find(|c| (c.protocol(), c.spi_out) == spi));
            match old.map(|old| (old.id, old.life, old.successor)) {
                // We replaced another one with it and did not delete that yet: until then some peers do not send through it, and
                // lose packets when it goes before it was used.
                Some((old, Life::Up, None))
                    if self.child(old).is_some_and(|c| c.initiator) && self.predecessor(old).is_some() =>
                {
                    return busy(self, cx);
                }
                Some((old, Life::Up, None)) => replaces = Some(old),
                // §2.25.1: being deleted, or replaced already.
                Some((_, Life::Up | Life::Deleting | Life::Installing, _)) => return busy(self, cx),
                // It may be what we asked for: the peer has it, and its answer is still on its way.
                None if matches!(self.asked.as_deref(), Some(Asked { what: Asking::Child(_), .. })) => {
                    return busy(self, cx);
                }
                Some((_, Life::Removing, _)) | None => {
                    let mut body = Body::new();
                    body.notify_child(NotifyKind::CHILD_SA_NOT_FOUND, rekey.spi.unwrap_or((Protocol::Esp, Spi(0))));
                    self.reply(cx, Exchange::CreateChild, id, &body);
                    return Ok(());
                }
            }
        }
        match self.agree_child(cx, payloads, replaces, false)? {
            // Both want the same at once: the initiator of the IKE SA gets its way, else there would be two.
            Ok(agreed) if replaces.is_none() && self.initiator && self.is_asking_for(&agreed.config.name) => {
                busy(self, cx)
            }
            Ok(agreed) => {
                let name = agreed.config.name.clone();
                if let Some(Asked { what: Asking::Child(ask), .. }) = self.asked.as_deref_mut() {
                    ask.spare |= replaces.is_none() && ask.rekeys.is_none() && ask.config.name == name;
                }
                self.grant_child(cx, id, payloads, nonce, agreed)
            }
            Err(denied) => {
                self.deny_child(cx, id, denied);
                Ok(())
            }
        }
    }

    fn is_asking_for(&self, name: &str) -> bool {
        let ask = self.asked.as_deref().map(|asked| &asked.what);
        matches!(ask, Some(Asking::Child(ask)) if ask.rekeys.is_none() && &*ask.config.name == name)
    }

    fn deny_child(&mut self, cx: &mut Cx, id: u32, denied: Denied) {
        if matches!(denied.reason, Reason::Limit(_)) {
            cx.counters.child_limit += 1;
        }
        cx.counters.children_failed += 1;
        self.refuse(cx, Exchange::CreateChild, id, denied.notify, &denied.data);
        self.event(cx, What::ChildFailed { name: denied.name, reason: denied.reason });
    }

    fn grant_child(
        &mut self,
        cx: &mut Cx,
        id: u32,
        payloads: &Payloads,
        peer_nonce: &[u8],
        agreed: super::offer::Agreed,
    ) -> Result<(), CodecError> {
        let nonce = cx.bytes::<NONCE_LEN>();
        let mut own = Body::new();
        own.nonce(&nonce);
        let mut shared = None;
        if let Some(group) = agreed.suite.group {
            let offered = payloads.key_exchange()?;
            let Some((_, public)) = offered.filter(|(id, _)| *id == group.id()) else {
                self.refuse(cx, Exchange::CreateChild, id, NotifyKind::INVALID_KE_PAYLOAD, &group.id().to_be_bytes());
                return Ok(());
            };
            let private = group.generate(cx.random);
            let agreed = private.agree(public).map_err(|_| CodecError::Field("a public value that cannot be one"))?;
            own.key_exchange(group.id(), private.public());
            shared = Some(agreed);
        }
        let shared: Vec<&Secret> = shared.iter().collect();
        let from = Contributions { nonce_i: peer_nonce, nonce_r: &nonce, shared: &shared };
        let replaces = agreed.replaces;
        let (child, good) = self.accept_child(cx, agreed, &own, &from);
        // §2.8.1: we asked for the same at the same time. The nonces will tell whose stays.
        if let Some(Asked { what: Asking::Child(ask), .. }) = self.asked.as_deref_mut()
            && ask.rekeys.is_some()
            && ask.rekeys == replaces
        {
            ask.rival = Some((child, peer_nonce.min(&nonce).to_vec()));
        }
        self.wait_for(cx, id, Exchange::CreateChild, Work::Install { child, base: Body::new(), good });
        Ok(())
    }

    /// Tells the peer that a child ends.
    pub(super) fn delete_child(&mut self, cx: &mut Cx, id: ChildId, ending: Ending) {
        let Some(child) = self.child(id).filter(|c| matches!(c.life, Life::Up | Life::Installing)) else { return };
        child.life = Life::Deleting;
        child.ending = ending;
        let mut body = Body::new();
        body.delete_children(&[child.name_in()]);
        self.ask(cx, Exchange::Informational, &body, Asking::DeleteChild(id, ending));
    }

    /// The peer knows that a child ends.
    pub(super) fn deleted(&mut self, cx: &mut Cx, id: ChildId, ending: Ending) {
        let linger = cx.now + LINGER_MS;
        match self.child(id).filter(|c| c.life == Life::Deleting) {
            // What it sent before may still be on its way.
            Some(child) if ending == Ending::Replaced => child.remove_at = linger,
            Some(_) => self.remove(cx, id, ending),
            None => {}
        }
    }

    /// Tells the peer that it may forget an SA that we never had, or have no more.
    pub(super) fn disclaim(&mut self, cx: &mut Cx, spi: ChildSpi) {
        let mut body = Body::new();
        body.delete_children(&[spi]);
        self.ask(cx, Exchange::Informational, &body, Asking::Disclaim(spi));
    }
}
