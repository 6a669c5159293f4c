//! IKE_SA_INIT, from both sides (RFC 7296 §1.2, §2.6, §2.7, §2.23).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::exchange::{Asking, syntax};
use super::{Cx, IkeSa, Nat, Stage, nat_hash};
use crate::auth::HashAlgorithm;
use crate::codec::{
    Body, CodecError, Exchange, HEADER_LEN, Header, NONCE_LEN, NotifyKind, PayloadKind, Payloads, parse_proposals,
};
use crate::crypto::{self, Group, IkeKeys, PrivateKey, Secret};
use crate::shield::Shield;
use crate::suite::{IkeSuite, choose_ike, describe, is_choice, offer_ike};
use crate::{ChildConfig, ChildId, IkeId, Path, PeerConfig, Reason, prove};

/// How often IKE_SA_INIT may begin again, for a cookie or another group.
const MOST_ATTEMPTS: u32 = 5;

/// What is known only until both ends are authenticated.
pub struct Setup {
    pub nonce: Vec<u8>,
    pub peer_nonce: Vec<u8>,
    /// Our IKE_SA_INIT message: AUTH covers it.
    pub message: Vec<u8>,
    pub peer_message: Vec<u8>,
    /// Initiator: the key of the group that is tried.
    private: Option<PrivateKey>,
    cookie: Vec<u8>,
    attempts: u32,
    /// Answers that may still come to messages that were sent more than once, before the one that counts now.
    stale: u32,
    pub keys: Option<IkeKeys>,
    /// Secrets of the key exchanges so far: one, as long as nothing of RFC 9370 is agreed.
    pub secrets: Vec<Secret>,
    /// What the peer can verify (RFC 7427 §4).
    pub hashes: Vec<u16>,
    /// The peer asked for certificates.
    pub certificates_wanted: bool,
    /// Initiator: what comes with IKE_AUTH, and after it.
    pub children: Vec<(Arc<ChildConfig>, Option<ChildId>)>,
    /// Initiator: the SPI of the child that comes with IKE_AUTH.
    pub child_spi: Option<phalanx_wire::Spi>,
    pub initial_contact: bool,
    pub reauthenticates: Option<IkeId>,
}

impl Setup {
    fn new(cx: &mut Cx) -> Setup {
        Setup {
            nonce: cx.bytes::<NONCE_LEN>().to_vec(),
            peer_nonce: Vec::new(),
            message: Vec::new(),
            peer_message: Vec::new(),
            private: None,
            cookie: Vec::new(),
            attempts: 0,
            stale: 0,
            keys: None,
            secrets: Vec::new(),
            hashes: Vec::new(),
            certificates_wanted: false,
            children: Vec::new(),
            child_spi: None,
            initial_contact: false,
            reauthenticates: None,
        }
    }
}

/// What an initiator begins with.
pub struct Begin {
    pub peer: Arc<PeerConfig>,
    pub remote: IpAddr,
    pub children: Vec<(Arc<ChildConfig>, Option<ChildId>)>,
    pub initial_contact: bool,
    pub reauthenticates: Option<IkeId>,
}

impl IkeSa {
    /// A new IKE SA that we begin.
    pub fn begin(cx: &mut Cx, begin: Begin) -> Box<IkeSa> {
        let mut setup = Setup::new(cx);
        setup.private = begin.peer.proposal.groups.first().map(|group| group.generate(cx.random));
        setup.children = begin.children;
        setup.initial_contact = begin.initial_contact;
        setup.reauthenticates = begin.reauthenticates;
        let path = Path { local: SocketAddr::new(begin.peer.local, 500), remote: SocketAddr::new(begin.remote, 500) };
        let id = cx.ike_spi();
        let mut sa = Box::new(IkeSa::new(id, true, path, Stage::Init(Box::new(setup)), cx.now));
        sa.peer = Some(begin.peer);
        sa.send_init(cx);
        sa
    }

    fn send_init(&mut self, cx: &mut Cx) {
        let (spis, path) = (self.spis(), self.path);
        let (Some(peer), Stage::Init(setup)) = (&self.peer, &mut self.stage) else { return };
        let Some(private) = &setup.private else { return };
        let mut body = Body::new();
        if !setup.cookie.is_empty() {
            body.notify(NotifyKind::COOKIE, &setup.cookie);
        }
        body.sa(&offer_ike(&peer.proposal, None));
        body.key_exchange(private.group().id(), private.public());
        body.nonce(&setup.nonce);
        extras(cx, &mut body, peer, (spis.0, 0), &path);
        let header =
            Header { spi_i: spis.0, spi_r: 0, exchange: Exchange::Init, initiator: true, response: false, id: 0 };
        setup.message = clear(&header, &body);
        let datagrams = vec![setup.message.clone()];
        self.ask_as(cx, datagrams, Asking::Init);
    }

    /// An answer to IKE_SA_INIT. It is not authenticated: only AUTH will tell.
    pub fn init_answer(&mut self, cx: &mut Cx, header: &Header, first: u8, bytes: &[u8]) {
        let fits = header.response && !header.initiator && header.id == 0 && header.spi_i == self.id.0;
        if !fits || !matches!(self.stage, Stage::Init(_)) {
            return cx.counters.unexpected += 1;
        }
        let Ok(payloads) = Payloads::of_message(first, bytes) else { return cx.counters.malformed += 1 };
        if self.begin_again(cx, &payloads) {
            return;
        }
        if let Some(error) = payloads.notifies().find(|n| n.kind.is_error()) {
            let offered = self.peer.as_ref().map_or(String::new(), |p| describe(&offer_ike(&p.proposal, None)));
            let reason = match error.kind {
                NotifyKind::NO_PROPOSAL_CHOSEN => Reason::ProposalRefused { offered },
                other => Reason::Notified(other.to_string()),
            };
            return self.fail(cx, reason);
        }
        match self.agreed(cx, header, &payloads, bytes) {
            Ok(()) => self.send_auth(cx),
            Err(reason) => self.fail(cx, reason),
        }
    }

    /// The peer wants a cookie (§2.6), or a key exchange of another group (§1.2). False: it is about something else.
    fn begin_again(&mut self, cx: &mut Cx, payloads: &Payloads) -> bool {
        let sent = self.asked.as_ref().map_or(1, |asked| asked.tries);
        let (Some(peer), Stage::Init(setup)) = (self.peer.clone(), &mut self.stage) else { return false };
        let (mut again, mut ignored) = (false, false);
        for notify in payloads.notifies() {
            match notify.kind {
                // Each message that went out has an answer: those to the repetitions of the last one ask for what is done.
                NotifyKind::COOKIE if setup.stale > 0 => {
                    (setup.stale, ignored) = (setup.stale - 1, true);
                }
                NotifyKind::COOKIE if (1..=64).contains(&notify.data.len()) => {
                    setup.cookie = notify.data.to_vec();
                    again = true;
                }
                NotifyKind::INVALID_KE_PAYLOAD => {
                    let wanted = notify.data.try_into().ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
                    let now = setup.private.as_ref().map(PrivateKey::group);
                    if let Some(group) = wanted.filter(|g| Some(*g) != now && peer.proposal.groups.contains(g)) {
                        setup.private = Some(group.generate(cx.random));
                        again = true;
                    } else {
                        ignored |= wanted.is_some() && wanted == now && setup.attempts > 0;
                    }
                }
                _ => {}
            }
        }
        if again && setup.attempts < MOST_ATTEMPTS {
            setup.attempts += 1;
            setup.stale += sent - 1;
            self.asked = None;
            self.send_init(cx);
        }
        // Whoever asks for ever gets what was sent last, when its time comes: anybody may have said it.
        again || ignored
    }

    /// Takes what the responder chose.
    fn agreed(&mut self, cx: &mut Cx, header: &Header, payloads: &Payloads, bytes: &[u8]) -> Result<(), Reason> {
        let Some(peer) = self.peer.clone() else { return Ok(()) };
        let body = payloads.need(PayloadKind::Sa, "no proposal").map_err(syntax)?;
        let answer = parse_proposals(body).map_err(syntax)?;
        let nonce = payloads.nonce().map_err(syntax)?;
        let (group, public) =
            payloads.key_exchange().and_then(|ke| ke.ok_or(CodecError::Field("no key exchange"))).map_err(syntax)?;
        let other = || Reason::ChoseOther(describe(&answer));
        let (suite, _) = choose_ike(&peer.proposal, &answer).ok_or_else(other)?;
        let Stage::Init(setup) = &mut self.stage else { return Ok(()) };
        let private = setup.private.take().filter(|p| p.group() == suite.group && suite.group.id() == group);
        let private = private.filter(|_| is_choice(&answer, &offer_ike(&peer.proposal, None))).ok_or_else(other)?;
        if header.spi_r == 0 {
            return Err(Reason::Syntax("the responder has no SPI".to_owned()));
        }
        let shared = private.agree(public).map_err(|e| Reason::KeyExchange(e.to_string()))?;
        self.peer_spi = header.spi_r;
        setup.peer_nonce = nonce.to_vec();
        setup.peer_message = bytes.to_vec();
        let spis = (self.id.0, header.spi_r);
        self.nat = nat(payloads, spis, &self.path);
        self.nat.us |= peer.force_encapsulation;
        let Stage::Init(setup) = std::mem::replace(&mut self.stage, Stage::Gone) else { return Ok(()) };
        self.stage = Stage::Auth(setup);
        self.learn(payloads);
        self.keyed(cx, suite, shared)?;
        // §2.23: both from 4500 on once a NAT was seen.
        if self.nat != Nat::default() {
            self.path.local.set_port(4500);
            self.path.remote.set_port(4500);
        }
        self.asked = None;
        (self.next_id, self.expected) = (1, 0);
        Ok(())
    }

    /// What the peer says about itself in either direction.
    fn learn(&mut self, payloads: &Payloads) {
        let wanted = payloads.find(PayloadKind::CertificateRequest).is_some();
        let may_cut = payloads.notifies().any(|n| n.is(NotifyKind::FRAGMENTATION_SUPPORTED));
        self.fragments = may_cut;
        let Stage::Auth(setup) = &mut self.stage else { return };
        setup.certificates_wanted |= wanted;
        let hashes = payloads.notifies().filter(|n| n.is(NotifyKind::SIGNATURE_HASH_ALGORITHMS));
        setup.hashes = hashes.flat_map(|n| n.data.as_chunks::<2>().0.iter().map(|h| u16::from_be_bytes(*h))).collect();
    }

    /// Makes the keys.
    fn keyed(&mut self, cx: &mut Cx, suite: IkeSuite, shared: Secret) -> Result<(), Reason> {
        let (initiator, (spi_i, spi_r)) = (self.initiator, self.spis());
        let Stage::Auth(setup) = &mut self.stage else { return Ok(()) };
        let (nonce_i, nonce_r) =
            if initiator { (&setup.nonce, &setup.peer_nonce) } else { (&setup.peer_nonce, &setup.nonce) };
        let (spi_i, spi_r) = (spi_i.to_be_bytes(), spi_r.to_be_bytes());
        let exchange = crypto::Exchange { nonce_i, nonce_r, spi_i, spi_r };
        let keys = IkeKeys::initial(suite.prf, suite.cipher, &shared, &exchange);
        setup.secrets = vec![shared];
        let broken = |e: crypto::CryptoError| Reason::KeyExchange(e.to_string());
        self.shield = Some(Box::new(Shield::new(suite.cipher, &keys, initiator, cx.epoch).map_err(broken)?));
        self.d = keys.d.clone();
        self.suite = Some(suite);
        super::show::log_keys(cx, (spi_i, spi_r), suite.cipher, &keys);
        setup.keys = Some(keys);
        Ok(())
    }
}

/// Why an IKE_SA_INIT made no IKE SA, and what the peer is told.
pub enum Refusal {
    /// One error, in clear.
    Notify(NotifyKind, Vec<u8>, Option<Reason>),
    /// Nothing.
    Silence,
}

/// The peer's IKE_SA_INIT, after the cookie. `candidates`: peers of the configuration that may be there, the likeliest first.
pub fn respond(
    cx: &mut Cx,
    candidates: &[Arc<PeerConfig>],
    path: Path,
    header: &Header,
    payloads: &Payloads,
    bytes: &[u8],
) -> Result<Box<IkeSa>, Refusal> {
    let wrong = |_| Refusal::Notify(NotifyKind::INVALID_SYNTAX, Vec::new(), None);
    let theirs = payloads.need(PayloadKind::Sa, "no proposal").and_then(parse_proposals).map_err(wrong)?;
    let nonce = payloads.nonce().map_err(wrong)?;
    let (group, public) = payloads.key_exchange().map_err(wrong)?.ok_or(CodecError::Length).map_err(wrong)?;
    let found = candidates.iter().find_map(|peer| choose_ike(&peer.proposal, &theirs).map(|found| (peer, found)));
    let Some((peer, (suite, answer))) = found else {
        let accepted =
            candidates.iter().map(|p| describe(&offer_ike(&p.proposal, None))).collect::<Vec<_>>().join(", or ");
        let reason = Reason::NoProposal { offered: describe(&theirs), accepted };
        return Err(Refusal::Notify(NotifyKind::NO_PROPOSAL_CHOSEN, Vec::new(), Some(reason)));
    };
    if suite.group.id() != group {
        let data = suite.group.id().to_be_bytes().to_vec();
        return Err(Refusal::Notify(NotifyKind::INVALID_KE_PAYLOAD, data, None));
    }
    let mut setup = Setup::new(cx);
    let private = suite.group.generate(cx.random);
    // RFC 7296 §2.7 and RFC 6989 §2.4: a public value that cannot be one.
    let shared = private.agree(public).map_err(|_| Refusal::Notify(NotifyKind::INVALID_SYNTAX, Vec::new(), None))?;
    setup.peer_nonce = nonce.to_vec();
    setup.peer_message = bytes.to_vec();
    let id = cx.ike_spi();
    let mut body = Body::new();
    body.sa(&[answer]);
    body.key_exchange(group, private.public());
    body.nonce(&setup.nonce);
    extras(cx, &mut body, peer, (header.spi_i, id.0), &path);
    let authorities: Vec<u8> = candidates.iter().flat_map(|p| prove::authorities(&p.proof)).copied().collect();
    if !authorities.is_empty() {
        body.certificate_request(&authorities);
    }
    let answer = Header { spi_r: id.0, initiator: false, response: true, ..*header };
    setup.message = clear(&answer, &body);
    let message = setup.message.clone();
    let mut sa = Box::new(IkeSa::new(id, false, path, Stage::Auth(Box::new(setup)), cx.now));
    sa.peer_spi = header.spi_i;
    sa.nat = nat(payloads, (header.spi_i, 0), &path);
    sa.nat.us |= peer.force_encapsulation;
    sa.expected = 1;
    sa.learn(payloads);
    if sa.keyed(cx, suite, shared).is_err() {
        cx.names.ikes.remove(&id.0);
        return Err(Refusal::Silence);
    }
    sa.end_at = cx.now + cx.config.limits.half_open_ms;
    sa.send(cx, path, std::slice::from_ref(&message));
    sa.answered = vec![message];
    Ok(sa)
}

/// The same answer to the same request (RFC 7296 §2.1).
pub fn respond_again(sa: &mut IkeSa, cx: &mut Cx, path: Path, bytes: &[u8]) {
    match &sa.stage {
        Stage::Auth(setup) if !sa.initiator && setup.peer_message == bytes => {
            cx.counters.answered_again += 1;
            let answer = setup.message.clone();
            sa.send(cx, path, &[answer]);
        }
        _ => cx.counters.unexpected += 1,
    }
}

/// What both ends say in IKE_SA_INIT.
fn extras(cx: &mut Cx, body: &mut Body, peer: &PeerConfig, spis: (u64, u64), path: &Path) {
    // Whoever wants ESP in UDP says that it is elsewhere than it is: the peer then sees a NAT.
    let source = if peer.force_encapsulation { cx.bytes() } else { nat_hash(spis, path.local) };
    body.notify(NotifyKind::NAT_DETECTION_SOURCE_IP, &source);
    body.notify(NotifyKind::NAT_DETECTION_DESTINATION_IP, &nat_hash(spis, path.remote));
    if peer.fragment > 0 {
        body.notify(NotifyKind::FRAGMENTATION_SUPPORTED, &[]);
    }
    let hashes: Vec<u8> = HashAlgorithm::ALL.iter().flat_map(|h| h.id().to_be_bytes()).collect();
    body.notify(NotifyKind::SIGNATURE_HASH_ALGORITHMS, &hashes);
}

/// Who is behind a NAT, by what the peer's message says of the addresses it was sent between.
fn nat(payloads: &Payloads, spis: (u64, u64), path: &Path) -> Nat {
    let has = |kind, address| {
        let mut all = payloads.notifies().filter(|n| n.is(kind)).peekable();
        // Who says nothing has no NAT traversal.
        all.peek().is_none() || all.any(|n| n.data == nat_hash(spis, address))
    };
    Nat {
        us: !has(NotifyKind::NAT_DETECTION_DESTINATION_IP, path.local),
        peer: !has(NotifyKind::NAT_DETECTION_SOURCE_IP, path.remote),
    }
}

/// A message in clear.
pub fn clear(header: &Header, body: &Body) -> Vec<u8> {
    let len = HEADER_LEN + body.bytes().len();
    let mut message = Vec::with_capacity(len);
    header.write(body.first(), len, &mut message);
    message.extend(body.bytes());
    message
}
