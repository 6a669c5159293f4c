//! What a peer's request for a CHILD_SA comes to (RFC 7296 §1.3, §2.9, §2.23.1).

use std::sync::Arc;

use phalanx_ipsec::{Original, Prefix, Selectors};
use phalanx_wire::Spi;

use super::child::NewChild;
use super::{Cx, IkeSa};
use crate::codec::{Body, CodecError, NotifyKind, PayloadKind, Payloads, Proposal, Protocol, TrafficSelector};
use crate::codec::{parse_proposals, parse_selectors};
use crate::crypto::{Secret, child_keys};
use crate::suite::{EspSuite, choose_esp, describe, esp_key_len, offer_esp, protocol};
use crate::{ChildConfig, ChildId, ChildMode, Reason, narrow};

/// What is agreed.
pub struct Agreed {
    pub config: Arc<ChildConfig>,
    pub suite: EspSuite,
    /// How to say so; the SPI in it is the peer's.
    pub answer: Proposal,
    pub mode: ChildMode,
    pub selectors: Selectors,
    /// There would have been more to agree to.
    pub more: bool,
    pub original: Option<Original>,
    pub replaces: Option<ChildId>,
}

/// Why nothing is.
pub struct Denied {
    pub notify: NotifyKind,
    pub data: Vec<u8>,
    pub reason: Reason,
    pub name: Option<Arc<str>>,
}

/// What both ends contributed to a child's keys.
pub struct Contributions<'a> {
    /// The nonce of who asked.
    pub nonce_i: &'a [u8],
    pub nonce_r: &'a [u8],
    /// Secrets of its own key exchanges, if there were any.
    pub shared: &'a [&'a Secret],
}

/// The parts of a request for a child.
struct Wanted {
    proposals: Vec<Proposal>,
    /// Of our side.
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    transport: bool,
}

impl IkeSa {
    /// Looks for a child of the configuration that fits what the peer wants. `replaces`: that one's configuration and no other.
    /// `first`: it comes with IKE_AUTH, without a key exchange.
    pub(super) fn agree_child(
        &self,
        cx: &Cx,
        payloads: &Payloads,
        replaces: Option<ChildId>,
        first: bool,
    ) -> Result<Result<Agreed, Denied>, CodecError> {
        let wanted = Wanted {
            proposals: parse_proposals(payloads.need(PayloadKind::Sa, "no proposal")?)?,
            local: parse_selectors(payloads.need(PayloadKind::SelectorsResponder, "no selectors")?)?,
            remote: parse_selectors(payloads.need(PayloadKind::SelectorsInitiator, "no selectors")?)?,
            transport: payloads.notifies().any(|n| n.is(NotifyKind::USE_TRANSPORT_MODE)),
        };
        let denied = |notify, reason, name| Denied { notify, data: Vec::new(), reason, name };
        if self.children.len() >= cx.config.limits.children_per_ike {
            let reason = Reason::Limit("CHILD_SAs of one IKE SA");
            return Ok(Err(denied(NotifyKind::NO_ADDITIONAL_SAS, reason, None)));
        }
        let known = replaces.and_then(|old| self.children.iter().find(|c| c.id == old)).map(|c| c.config.clone());
        let configs = match (&known, &self.peer) {
            (Some(config), _) => std::slice::from_ref(config),
            (None, Some(peer)) => &peer.children[..],
            (None, None) => &[],
        };
        // The error of the configuration that came nearest.
        let mut error = denied(NotifyKind::TS_UNACCEPTABLE, self.no_selectors(configs, &wanted), None);
        let mut came = 0;
        for config in configs {
            let (distance, denial) = match self.fits(config, &wanted, first) {
                Ok(agreed) => return Ok(Ok(Agreed { replaces, ..agreed })),
                Err(found) => found,
            };
            if distance > came {
                (came, error) = (distance, denial);
            }
        }
        Ok(Err(error))
    }

    /// Whether one configuration fits; if not, how far it did.
    fn fits(&self, config: &Arc<ChildConfig>, wanted: &Wanted, first: bool) -> Result<Agreed, (u8, Denied)> {
        let name = Some(config.name.clone());
        let ours = narrow::configured(config, &self.path);
        let transport = config.mode == ChildMode::Transport;
        let (local, remote) =
            if transport { self.seen_here(&wanted.local, &wanted.remote) } else { Default::default() };
        let (local, remote) = if transport { (&local, &remote) } else { (&wanted.local, &wanted.remote) };
        let Some((selectors, more)) = narrow::narrow(&ours, local, remote) else {
            let reason = self.no_selectors(std::slice::from_ref(config), wanted);
            return Err((0, Denied { notify: NotifyKind::TS_UNACCEPTABLE, data: Vec::new(), reason, name }));
        };
        if transport && !wanted.transport {
            let reason = Reason::Mode { peer: "does not want", configured: "transport" };
            return Err((1, Denied { notify: NotifyKind::NO_PROPOSAL_CHOSEN, data: Vec::new(), reason, name }));
        }
        if !self.can_carry(config) {
            let reason = Reason::AhThroughNat;
            return Err((2, Denied { notify: NotifyKind::NO_PROPOSAL_CHOSEN, data: Vec::new(), reason, name }));
        }
        let Some((suite, answer)) = choose_esp(&config.proposal, &wanted.proposals, !first) else {
            let accepted = describe(&offer_esp(&config.proposal, 0, !first));
            let reason = Reason::NoProposal { offered: describe(&wanted.proposals), accepted };
            return Err((2, Denied { notify: NotifyKind::NO_PROPOSAL_CHOSEN, data: Vec::new(), reason, name }));
        };
        let original = transport.then(|| self.original(&wanted.local, &wanted.remote)).flatten();
        Ok(Agreed {
            config: config.clone(),
            suite,
            answer,
            mode: config.mode,
            selectors,
            more,
            original,
            replaces: None,
        })
    }

    /// AH covers the addresses that a NAT changes, and has no way of its own through one (RFC 3948 §1).
    pub(super) fn can_carry(&self, config: &ChildConfig) -> bool {
        protocol(&config.proposal) != Protocol::Ah || !(self.nat.us || self.nat.peer)
    }

    fn no_selectors(&self, configs: &[Arc<ChildConfig>], wanted: &Wanted) -> Reason {
        let accepted = configs.iter().map(|c| narrow::show(&narrow::configured(c, &self.path)));
        Reason::NoSelectors {
            offered: narrow::describe(&wanted.local, &wanted.remote),
            accepted: accepted.collect::<Vec<_>>().join(", or "),
        }
    }

    /// Transport mode through a NAT: who is behind it calls itself by an address that is not that of its packets here (§2.23.1).
    pub(super) fn seen_here(
        &self,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let side = |list: &[TrafficSelector], nat: bool, here: std::net::IpAddr| {
            let shown = |ts: &TrafficSelector| match nat && ts.first == ts.last {
                true => TrafficSelector { first: here, last: here, ..*ts },
                false => *ts,
            };
            list.iter().map(shown).collect()
        };
        let any = self.nat.us || self.nat.peer;
        (side(local, any, self.path.local.ip()), side(remote, any, self.path.remote.ip()))
    }

    /// The addresses that the peer sees, where they are not those of its packets here.
    pub(super) fn original(&self, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<Original> {
        let one = |list: &[TrafficSelector]| list.first().filter(|ts| ts.first == ts.last).map(|ts| ts.first);
        let behind = self.nat.us || self.nat.peer;
        behind.then(|| Some(Original { local: one(local)?, remote: one(remote)? })).flatten()
    }

    /// Has installed what was agreed. The other half of the answer comes back: SA, what is in `own` (nonce and key exchange),
    /// selectors.
    pub(super) fn accept_child(
        &mut self,
        cx: &mut Cx,
        agreed: Agreed,
        own: &Body,
        from: &Contributions,
    ) -> (ChildId, Body) {
        let spi_in = cx.esp_spi();
        let mut answer = agreed.answer;
        let spi_out = Spi(answer.spi.first_chunk::<4>().map_or(0, |spi| u32::from_be_bytes(*spi)));
        answer.spi = spi_in.0.to_be_bytes().to_vec();
        let mut body = Body::new();
        if agreed.mode == ChildMode::Transport {
            body.notify(NotifyKind::USE_TRANSPORT_MODE, &[]);
        }
        body.sa(&[answer]);
        body.append(own);
        let (local, remote) = narrow::as_pair(&agreed.selectors);
        body.selectors(&[remote], &[local]);
        if agreed.more {
            body.notify(NotifyKind::ADDITIONAL_TS_POSSIBLE, &[]);
        }
        let keys = self.child_keys(agreed.suite, from);
        let child = self.install(
            cx,
            NewChild {
                config: agreed.config,
                initiator: false,
                spi_in,
                spi_out,
                mode: agreed.mode,
                suite: agreed.suite,
                selectors: agreed.selectors,
                original: agreed.original,
                replaces: agreed.replaces,
                keys,
            },
        );
        (child, body)
    }

    /// Keys of both directions.
    pub(super) fn child_keys(&self, suite: EspSuite, from: &Contributions) -> Secret {
        let prf = self.suite.map_or(crate::crypto::Prf::HmacSha256, |s| s.prf);
        child_keys(prf, &self.d, from.shared, from.nonce_i, from.nonce_r, 2 * esp_key_len(suite.algorithm))
    }

    /// Transport mode: the selectors of one end of the path or none.
    pub(super) fn transport_selectors(&self, of: &Selectors) -> Selectors {
        Selectors { local: Prefix::host(self.path.local.ip()), remote: Prefix::host(self.path.remote.ip()), ..*of }
    }
}
