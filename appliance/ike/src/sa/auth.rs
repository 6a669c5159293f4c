//! IKE_AUTH, from both sides (RFC 7296 §1.2, §2.15).

use std::sync::Arc;

use super::create::ChildAsk;
use super::exchange::{Asking, Work, Working};
use super::offer::{Contributions, Denied};
use super::setup::Setup;
use super::{Cx, Effect, IkeSa, Stage, Todo};
use crate::auth::{Identity, signed_octets};
use crate::codec::{Body, CodecError, Exchange, NotifyKind, PayloadKind, Payloads};
use crate::suite::offer_esp;
use crate::{ChildMode, Millis, PeerConfig, Proof, Reason, What, narrow, prove};

/// Nothing is ever compared with a proof over nothing.
const EARLY: CodecError = CodecError::Field("a proof before there are keys");

impl Setup {
    /// What the AUTH payload of an end covers: its IKE_SA_INIT, the other's nonce, its identity.
    fn octets(&self, ours: bool, we_initiate: bool, prf: crate::crypto::Prf, id: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let (message, nonce) = if ours { (&self.message, &self.peer_nonce) } else { (&self.peer_message, &self.nonce) };
        let key = if ours == we_initiate { &keys.pi } else { &keys.pr };
        Some(signed_octets(prf, key, message, nonce, id))
    }
}

impl IkeSa {
    /// Initiator: who we are, and the first child.
    pub(super) fn send_auth(&mut self, cx: &mut Cx) {
        match self.auth_body(cx) {
            Ok(body) => self.ask(cx, Exchange::Auth, &body, Asking::Auth),
            Err(reason) => self.fail(cx, reason),
        }
    }

    fn auth_body(&mut self, cx: &mut Cx) -> Result<Body, Reason> {
        let path = self.path;
        self.leave_out_ah(cx)?;
        let (Some(peer), Some(suite), Stage::Auth(setup)) = (self.peer.clone(), self.suite, &mut self.stage) else {
            return Err(Reason::Syntax("out of order".to_owned()));
        };
        let mut body = Body::new();
        let id = peer.local_id.encode();
        body.add(PayloadKind::IdInitiator, |out| out.extend(&id));
        prove::chain(&peer.credential).iter().for_each(|der| body.certificate(der));
        if !matches!(peer.proof, Proof::Psk(_)) {
            body.certificate_request(prove::authorities(&peer.proof));
        }
        if let Some(wanted) = peer.remote_id.exactly() {
            body.add(PayloadKind::IdResponder, |out| out.extend(wanted.encode()));
        }
        let octets = setup.octets(true, true, suite.prf, &id);
        let octets = octets.ok_or_else(|| Reason::Syntax("out of order".to_owned()))?;
        let (method, data) =
            prove::prove(&peer.credential, suite.prf, &octets, &setup.hashes).map_err(Reason::Credential)?;
        body.auth(method, &data);
        if setup.initial_contact {
            body.notify(NotifyKind::INITIAL_CONTACT, &[]);
        }
        if let Some((child, _)) = setup.children.first() {
            let spi = cx.offered_spi(path);
            setup.child_spi = Some(spi);
            if child.mode == ChildMode::Transport {
                body.notify(NotifyKind::USE_TRANSPORT_MODE, &[]);
            }
            body.sa(&offer_esp(&child.proposal, spi.0, false));
            let (local, remote) = narrow::as_pair(&narrow::configured(child, &path));
            body.selectors(&[local], &[remote]);
        }
        Ok(body)
    }

    /// Through a NAT there are no children of AH. If there are no others, there is nothing to speak about.
    fn leave_out_ah(&mut self, cx: &mut Cx) -> Result<(), Reason> {
        let Stage::Auth(setup) = &mut self.stage else { return Ok(()) };
        let all = std::mem::take(&mut setup.children);
        let any = !all.is_empty();
        let (kept, out): (Vec<_>, Vec<_>) = all.into_iter().partition(|(child, _)| self.can_carry(child));
        let none = kept.is_empty() && any;
        if let Stage::Auth(setup) = &mut self.stage {
            setup.children = kept;
        }
        cx.counters.children_failed += out.len() as u64;
        for (child, _) in out {
            self.event(cx, What::ChildFailed { name: Some(child.name.clone()), reason: Reason::AhThroughNat });
        }
        if none { Err(Reason::AhThroughNat) } else { Ok(()) }
    }

    /// Initiator: who the peer is, and what became of the first child.
    pub(super) fn auth_answer(&mut self, cx: &mut Cx, payloads: &Payloads) -> Result<(), CodecError> {
        let (Some(peer), Some(suite), Stage::Auth(setup)) = (self.peer.clone(), self.suite, &self.stage) else {
            return Ok(());
        };
        let error = payloads.notifies().find(|n| n.kind.is_error());
        let Some((method, data)) = payloads.auth()? else {
            let reason = match error.map(|n| n.kind) {
                Some(NotifyKind::AUTHENTICATION_FAILED) => Reason::AuthenticationRefused(peer.local_id.to_string()),
                Some(kind) => Reason::Notified(kind.to_string()),
                None => Reason::Syntax("no AUTH payload: the peer wants EAP, which is not supported".to_owned()),
            };
            self.fail(cx, reason);
            return Ok(());
        };
        let id = payloads.need(PayloadKind::IdResponder, "no identity")?;
        let identity = Identity::decode(id).map_err(|_| CodecError::Field("an identity that cannot be read"))?;
        let octets = setup.octets(false, true, suite.prf, id).ok_or(EARLY)?;
        let chain = payloads.certificates();
        let checked = if peer.remote_id.matches(&identity) {
            prove::check(&peer.proof, suite.prf, &octets, (method, data), &chain, &identity, cx.unix)
        } else {
            Err(format!("it is not {}", peer.remote_id))
        };
        if let Err(why) = checked {
            return self.disown(cx, Reason::NotAuthenticated { identity: identity.to_string(), why });
        }
        self.identity = Some(Box::new((id.to_vec(), identity.to_string())));
        let Stage::Auth(setup) = std::mem::replace(&mut self.stage, Stage::Up) else { return Ok(()) };
        self.established(cx);
        cx.effects.push(Effect::Contact { by: self.id, initial: false });
        if let Some(old) = setup.reauthenticates {
            cx.effects.push(Effect::Reauthenticated { old });
        }
        let mut children = setup.children.into_iter();
        if let (Some((config, replaces)), Some(spi)) = (children.next(), setup.child_spi) {
            let nonce = setup.nonce;
            let peer_nonce = setup.peer_nonce;
            let ask = ChildAsk::first(config, replaces, spi, nonce);
            self.child_made(cx, ask, payloads, &peer_nonce)?;
        }
        children.for_each(|(config, replaces)| self.later(cx.now, Todo::Child { config, replaces }));
        Ok(())
    }

    /// The responder is not who it says, or we do not believe it: it is told (RFC 7296 §2.21.2).
    fn disown(&mut self, cx: &mut Cx, reason: Reason) -> Result<(), CodecError> {
        let mut body = Body::new();
        body.notify(NotifyKind::AUTHENTICATION_FAILED, &[]);
        self.ask(cx, Exchange::Informational, &body, Asking::Probe);
        self.fail(cx, reason);
        Ok(())
    }

    /// Responder: who the peer is, and its first child.
    pub(super) fn auth_request(&mut self, cx: &mut Cx, id: u32, payloads: &Payloads) -> Result<(), CodecError> {
        let claimed = payloads.need(PayloadKind::IdInitiator, "no identity")?;
        let identity = Identity::decode(claimed).map_err(|_| CodecError::Field("an identity that cannot be read"))?;
        let wanted = payloads.find(PayloadKind::IdResponder).and_then(|body| Identity::decode(body).ok());
        let made = match self.believe(cx, payloads, (claimed, &identity), wanted.as_ref())? {
            Ok(made) => made,
            Err(reason) => {
                self.refuse(cx, Exchange::Auth, id, NotifyKind::AUTHENTICATION_FAILED, &[]);
                self.fail(cx, reason);
                return Ok(());
            }
        };
        let (peer, base) = made;
        self.identity = Some(Box::new((claimed.to_vec(), identity.to_string())));
        self.peer = Some(peer);
        let initial = payloads.notifies().any(|n| n.is(NotifyKind::INITIAL_CONTACT));
        cx.effects.push(Effect::Contact { by: self.id, initial });
        let Stage::Auth(setup) = std::mem::replace(&mut self.stage, Stage::Up) else { return Ok(()) };
        self.established(cx);
        // RFC 6023: it need not want a child now.
        if payloads.find(PayloadKind::Sa).is_none() {
            self.reply(cx, Exchange::Auth, id, &base);
            return Ok(());
        }
        match self.agree_child(cx, payloads, None, true)? {
            Ok(agreed) => {
                let from = Contributions { nonce_i: &setup.peer_nonce, nonce_r: &setup.nonce, shared: &[] };
                let (child, good) = self.accept_child(cx, agreed, &Body::new(), &from);
                self.wait_for(cx, id, Exchange::Auth, Work::Install { child, base, good });
            }
            Err(Denied { notify, data, reason, name }) => {
                let mut body = base;
                body.notify(notify, &data);
                self.reply(cx, Exchange::Auth, id, &body);
                cx.counters.children_failed += 1;
                self.event(cx, What::ChildFailed { name, reason });
            }
        }
        Ok(())
    }

    /// Finds the peer in the configuration and checks its proof. The answer begins with ours.
    #[allow(clippy::type_complexity)]
    fn believe(
        &mut self,
        cx: &mut Cx,
        payloads: &Payloads,
        (claimed, identity): (&[u8], &Identity),
        wanted: Option<&Identity>,
    ) -> Result<Result<(Arc<PeerConfig>, Body), Reason>, CodecError> {
        let (Some(suite), Stage::Auth(setup)) = (self.suite, &self.stage) else { return Err(CodecError::Length) };
        let Some((method, data)) = payloads.auth()? else {
            let why = "it wants EAP, which is not supported".to_owned();
            return Ok(Err(Reason::NotAuthenticated { identity: identity.to_string(), why }));
        };
        let here = cx.config.candidates(&self.path);
        let mut known = here.into_iter().filter(|p| suite.is_in(&p.proposal) && p.remote_id.matches(identity));
        let ours = |p: &Arc<PeerConfig>| wanted.is_none_or(|id| p.local_id.same_as(id));
        let Some(any) = known.next() else {
            return Ok(Err(Reason::UnknownIdentity(identity.to_string())));
        };
        let Some(peer) = std::iter::once(any.clone()).chain(known).find(ours) else {
            let wanted = wanted.map_or(String::new(), ToString::to_string);
            return Ok(Err(Reason::OtherIdentity { wanted, we: any.local_id.to_string() }));
        };
        let octets = setup.octets(false, false, suite.prf, claimed).ok_or(EARLY)?;
        let chain = payloads.certificates();
        if let Err(why) = prove::check(&peer.proof, suite.prf, &octets, (method, data), &chain, identity, cx.unix) {
            return Ok(Err(Reason::NotAuthenticated { identity: identity.to_string(), why }));
        }
        let mut body = Body::new();
        let id = peer.local_id.encode();
        body.add(PayloadKind::IdResponder, |out| out.extend(&id));
        prove::chain(&peer.credential).iter().for_each(|der| body.certificate(der));
        let octets = setup.octets(true, false, suite.prf, &id).ok_or(EARLY)?;
        Ok(prove::prove(&peer.credential, suite.prf, &octets, &setup.hashes)
            .map(|(method, data)| {
                body.auth(method, &data);
                (peer, body)
            })
            .map_err(Reason::Credential))
    }

    /// Both ends are authenticated: from now on it has a life of its own.
    fn established(&mut self, cx: &mut Cx) {
        let took = cx.now.saturating_sub(self.began);
        self.lives(cx);
        self.partial = [None, None];
        let counter = match self.initiator {
            true => &mut cx.counters.established_as_initiator,
            false => &mut cx.counters.established_as_responder,
        };
        *counter += 1;
        let identity = self.identity.as_ref().map_or(String::new(), |i| i.1.clone());
        let suite = self.suite.map_or(String::new(), |s| s.name());
        self.event(cx, What::Established { initiator: self.initiator, identity, suite, took_ms: took });
        cx.effects.push(Effect::Up(took));
    }

    /// Sets when it gets new keys and when it ends.
    pub(super) fn lives(&mut self, cx: &mut Cx) {
        let Some(peer) = &self.peer else { return };
        let life = &peer.lifetime;
        let earlier = cx.chance(life.soft_ms / 100 * u64::from(life.jitter_percent.min(90)));
        let after = |ms: Millis| if ms == 0 { Millis::MAX } else { cx.now.saturating_add(ms) };
        self.rekey_at = after(life.soft_ms - earlier);
        self.end_at = after(life.hard_ms);
        self.began = cx.now;
    }

    /// The answer to a request waits, but not for ever.
    pub(super) fn wait_for(&mut self, cx: &mut Cx, id: u32, exchange: Exchange, what: Work) {
        let until = cx.now + cx.config.limits.install_ms;
        self.working = Some(Box::new(Working { id, exchange, until, what }));
    }
}
