//! An IKE SA that takes another one's place (RFC 7296 §1.3.2, §2.8, §2.18, §2.25.2).

use std::collections::VecDeque;

use super::exchange::{Asked, Asking};
use super::{Cx, Effect, IkeSa, Inheritance, Stage, Todo};
use crate::codec::{
    Body, CodecError, Exchange, NONCE_LEN, NotifyKind, PayloadKind, Payloads, Proposal, parse_proposals,
};
use crate::crypto::{self, Group, IkeKeys, PrivateKey, Secret};
use crate::shield::Shield;
use crate::suite::{IkeSuite, choose_ike, describe, is_choice, offer_ike};
use crate::{Ending, IkeId, Reason, What};

/// When it is tried again after a refusal.
const RETRY_MS: u64 = 30_000;

/// An IKE SA that we ask for.
pub struct IkeAsk {
    pub id: IkeId,
    private: PrivateKey,
    nonce: Vec<u8>,
    /// The peer asked at the same time: its new IKE SA, and the lower one of that exchange's nonces.
    pub rival: Option<(IkeId, Vec<u8>)>,
    attempts: u32,
}

/// What both ends contributed.
struct Parts<'a> {
    id: IkeId,
    peer_spi: u64,
    initiator: bool,
    nonce_i: &'a [u8],
    nonce_r: &'a [u8],
    shared: Secret,
}

impl IkeSa {
    /// Asks for a successor.
    pub(super) fn rekey_ike(&mut self, cx: &mut Cx) {
        let Some(peer) = self.peer.clone() else { return };
        if peer.reauthenticate && (self.initiator || peer.remote.address().is_some()) {
            self.rekey_at = cx.now + RETRY_MS;
            return cx.effects.push(Effect::Reauthenticate);
        }
        // The group that served is offered first: it will not have to be asked twice.
        let group = self.suite.map(|s| s.group).filter(|g| peer.proposal.groups.contains(g));
        let Some(group) = group.or(peer.proposal.groups.first().copied()) else { return };
        self.ask_ike(cx, group, 0);
    }

    fn ask_ike(&mut self, cx: &mut Cx, group: Group, attempts: u32) {
        let Some(peer) = self.peer.clone() else { return };
        let (id, nonce, private) = (cx.ike_spi(), cx.bytes::<NONCE_LEN>().to_vec(), group.generate(cx.random));
        let mut body = Body::new();
        body.sa(&offer_ike(&peer.proposal, Some(id.0)));
        body.nonce(&nonce);
        body.key_exchange(group.id(), private.public());
        let ask = IkeAsk { id, private, nonce, rival: None, attempts };
        self.ask(cx, Exchange::CreateChild, &body, Asking::RekeyIke(Box::new(ask)));
    }

    /// The answer to what we asked for.
    pub(super) fn rekey_answer(&mut self, cx: &mut Cx, ask: IkeAsk, payloads: &Payloads) -> Result<(), CodecError> {
        if let Some(error) = payloads.notifies().find(|n| n.kind.is_error()) {
            cx.names.ikes.remove(&ask.id.0);
            if let Some((rival, _)) = ask.rival {
                // Ours came to nothing, the peer's did not.
                self.bequeath(cx, Some(rival));
                return Ok(());
            }
            let wanted = error.data.try_into().ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
            let may = |g: &Group| self.peer.as_ref().is_some_and(|p| p.proposal.groups.contains(g)) && ask.attempts < 3;
            match (error.kind, wanted.filter(may)) {
                (NotifyKind::INVALID_KE_PAYLOAD, Some(group)) => self.ask_ike(cx, group, ask.attempts + 1),
                (NotifyKind::TEMPORARY_FAILURE, _) => {
                    let at = cx.now + 1000 + cx.chance(2000);
                    self.rekey_at = at;
                }
                (kind, _) => {
                    self.rekey_at = cx.now + RETRY_MS;
                    let offered =
                        || self.peer.as_ref().map_or(String::new(), |p| describe(&offer_ike(&p.proposal, None)));
                    let reason = match kind {
                        NotifyKind::NO_PROPOSAL_CHOSEN => Reason::ProposalRefused { offered: offered() },
                        other => Reason::Notified(other.to_string()),
                    };
                    self.event(cx, What::RekeyFailed(reason));
                }
            }
            return Ok(());
        }
        let answer = parse_proposals(payloads.need(PayloadKind::Sa, "no proposal")?)?;
        let peer_nonce = payloads.nonce()?;
        let (group, public) = payloads.key_exchange()?.ok_or(CodecError::Field("no key exchange"))?;
        let Some(peer) = self.peer.clone() else { return Ok(()) };
        let offered = offer_ike(&peer.proposal, Some(ask.id.0));
        let chosen =
            choose_ike(&peer.proposal, &answer).filter(|(s, _)| is_choice(&answer, &offered) && s.group.id() == group);
        let Some((suite, choice)) = chosen.filter(|(s, _)| s.group == ask.private.group()) else {
            cx.names.ikes.remove(&ask.id.0);
            self.fail(cx, Reason::ChoseOther(describe(&answer)));
            return Ok(());
        };
        let peer_spi = choice.spi.first_chunk::<8>().map_or(0, |spi| u64::from_be_bytes(*spi));
        let shared = ask.private.agree(public).map_err(|_| CodecError::Field("a public value that cannot be one"))?;
        let parts = Parts { id: ask.id, peer_spi, initiator: true, nonce_i: &ask.nonce, nonce_r: peer_nonce, shared };
        let new = self.successor(cx, suite, parts).ok_or(CodecError::Field("an SPI that cannot be one"))?;
        let lost = |low: &Vec<u8>| ask.nonce.as_slice().min(peer_nonce) < low.as_slice();
        match ask.rival {
            // §2.25.2, §2.8.1: the one with the lowest nonce goes, deleted by who asked for it.
            Some((rival, low)) if lost(&low) => {
                let mut new = new;
                new.later(cx.now, Todo::DeleteIke(Ending::Replaced));
                cx.effects.push(Effect::Born(new));
                self.bequeath(cx, Some(rival));
            }
            _ => {
                let id = new.id;
                cx.effects.push(Effect::Born(new));
                self.bequeath(cx, Some(id));
                self.later(cx.now, Todo::DeleteIke(Ending::Replaced));
            }
        }
        Ok(())
    }

    /// The peer wants a successor.
    pub(super) fn rekey_request(
        &mut self,
        cx: &mut Cx,
        id: u32,
        payloads: &Payloads,
        proposals: &[Proposal],
    ) -> Result<(), CodecError> {
        // §2.25.2: not while we create, rekey or close a child, nor while we close the IKE SA.
        if self.asked.as_ref().is_some_and(|asked| !matches!(asked.what, Asking::RekeyIke(_) | Asking::Probe)) {
            self.refuse(cx, Exchange::CreateChild, id, NotifyKind::TEMPORARY_FAILURE, &[]);
            return Ok(());
        }
        let peer_nonce = payloads.nonce()?;
        let (group, public) = payloads.key_exchange()?.ok_or(CodecError::Field("no key exchange"))?;
        let Some(peer) = self.peer.clone() else { return Ok(()) };
        let with_spi: Vec<_> = proposals.iter().filter(|p| p.spi.len() == 8).cloned().collect();
        let Some((suite, mut answer)) = choose_ike(&peer.proposal, &with_spi) else {
            self.refuse(cx, Exchange::CreateChild, id, NotifyKind::NO_PROPOSAL_CHOSEN, &[]);
            let accepted = describe(&offer_ike(&peer.proposal, None));
            let reason = Reason::NoProposal { offered: describe(proposals), accepted };
            self.event(cx, What::RekeyFailed(reason));
            return Ok(());
        };
        if suite.group.id() != group {
            let wanted = suite.group.id().to_be_bytes();
            self.refuse(cx, Exchange::CreateChild, id, NotifyKind::INVALID_KE_PAYLOAD, &wanted);
            return Ok(());
        }
        let private = suite.group.generate(cx.random);
        let shared = private.agree(public).map_err(|_| CodecError::Field("a public value that cannot be one"))?;
        let nonce = cx.bytes::<NONCE_LEN>();
        let new_id = cx.ike_spi();
        let peer_spi = answer.spi.first_chunk::<8>().map_or(0, |spi| u64::from_be_bytes(*spi));
        answer.spi = new_id.0.to_be_bytes().to_vec();
        let parts = Parts { id: new_id, peer_spi, initiator: false, nonce_i: peer_nonce, nonce_r: &nonce, shared };
        let Some(mut new) = self.successor(cx, suite, parts) else {
            return Err(CodecError::Field("an SPI that cannot be one"));
        };
        let mut body = Body::new();
        body.sa(&[answer]);
        body.nonce(&nonce);
        body.key_exchange(group, private.public());
        self.reply(cx, Exchange::CreateChild, id, &body);
        if self.is_rekeying() {
            new.undecided = true;
            // Long enough for the decision.
            (new.rekey_at, new.end_at) = (u64::MAX, cx.now + 2 * cx.config.limits.replaced_ms);
        }
        cx.effects.push(Effect::Born(new));
        match self.asked.as_deref_mut() {
            // Both asked: the nonces will tell who inherits.
            Some(Asked { what: Asking::RekeyIke(ask), .. }) => {
                ask.rival = Some((new_id, peer_nonce.min(&nonce).to_vec()));
            }
            _ => self.bequeath(cx, Some(new_id)),
        }
        Ok(())
    }

    /// The new IKE SA, which has nothing yet but its keys.
    fn successor(&mut self, cx: &mut Cx, suite: IkeSuite, parts: Parts) -> Option<Box<IkeSa>> {
        let old = self.suite?;
        if parts.peer_spi == 0 {
            cx.names.ikes.remove(&parts.id.0);
            return None;
        }
        let mut new = Box::new(IkeSa::new(parts.id, parts.initiator, self.path, Stage::Up, cx.now));
        new.peer_spi = parts.peer_spi;
        let (spi_i, spi_r) = new.spis();
        let (spi_i, spi_r) = (spi_i.to_be_bytes(), spi_r.to_be_bytes());
        let exchange = crypto::Exchange { nonce_i: parts.nonce_i, nonce_r: parts.nonce_r, spi_i, spi_r };
        let none = Secret::default;
        let before =
            IkeKeys { d: self.d.clone(), ai: none(), ar: none(), ei: none(), er: none(), pi: none(), pr: none() };
        let keys = before.rekey(old.prf, suite.prf, suite.cipher, &[&parts.shared], &exchange);
        super::show::log_keys(cx, (spi_i, spi_r), suite.cipher, &keys);
        new.shield = Shield::new(suite.cipher, &keys, parts.initiator, cx.epoch).ok().map(Box::new);
        new.d = keys.d;
        new.suite = Some(suite);
        new.peer = self.peer.clone();
        new.identity = self.identity.clone();
        new.nat = self.nat;
        new.fragments = self.fragments;
        new.lives(cx);
        cx.counters.ike_rekeyed += 1;
        Some(new)
    }

    /// Children, and what is to be done for them, belong to another one from now on.
    pub(super) fn bequeath(&mut self, cx: &mut Cx, to: Option<IkeId>) {
        let Some(to) = to else { return };
        let children = std::mem::take(&mut self.children);
        let (stays, tasks): (VecDeque<_>, _) =
            std::mem::take(&mut self.tasks).into_iter().partition(|t| matches!(t.what, Todo::RekeyIke));
        drop(stays);
        self.stage = Stage::Replaced;
        (self.rekey_at, self.end_at) = (u64::MAX, cx.now + cx.config.limits.replaced_ms);
        let (from, peer, path) = (self.id, self.peer.clone(), self.path);
        cx.effects.push(Effect::Inherit(Box::new(Inheritance { from, to, peer, path, children, tasks })));
    }

    pub(super) fn is_rekeying(&self) -> bool {
        matches!(self.asked.as_deref(), Some(Asked { what: Asking::RekeyIke(_), .. }))
    }

    /// The IKE SA that the peer made while we asked for one.
    pub(super) fn rival(what: &Asking) -> Option<IkeId> {
        match what {
            Asking::RekeyIke(ask) => ask.rival.as_ref().map(|r| r.0),
            _ => None,
        }
    }
}
