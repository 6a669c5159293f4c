//! One IKE SA: its state, its exchanges, its CHILD_SAs. What it does to the world goes through [`Cx`].

mod auth;
mod child;
mod create;
mod exchange;
mod inform;
mod offer;
mod rekey;
mod setup;
mod show;
mod timers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use phalanx_wire::Spi;

pub use child::Child;
use exchange::Asked;
pub use setup::{Begin, Refusal, clear, respond, respond_again};

use crate::codec::ChildSpi;
use crate::crypto::{Random, Secret, sha1};
use crate::noise::Noise;
use crate::shield::{Partial, Shield};
use crate::suite::IkeSuite;
use crate::{
    ChildConfig, ChildId, Config, Counters, Ending, Event, IkeId, Millis, Output, Path, PeerConfig, Reason, What,
};

/// What an IKE SA works with while something is done to it.
pub struct Cx<'a> {
    pub now: Millis,
    /// Seconds since 1970.
    pub unix: u64,
    pub config: &'a Config,
    pub epoch: u32,
    pub random: &'a mut dyn Random,
    pub out: &'a mut VecDeque<Output>,
    pub counters: &'a mut Counters,
    pub names: &'a mut Names,
    pub noise: &'a mut Noise,
    pub effects: &'a mut Vec<Effect>,
}

impl Cx<'_> {
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }

    /// An SPI of an IKE SA: never 0.
    pub fn ike_spi(&mut self) -> IkeId {
        loop {
            let spi = u64::from_be_bytes(self.bytes());
            if spi != 0 && !self.names.ikes.contains(&spi) {
                self.names.ikes.insert(spi);
                return IkeId(spi);
            }
        }
    }

    /// An inbound SPI that is nobody else's.
    pub fn esp_spi(&mut self) -> Spi {
        loop {
            let spi = u32::from_be_bytes(self.bytes());
            let free = spi >= Spi::FIRST.0 && !self.config.taken_spis.contains(&spi);
            if free && self.names.spis.insert(spi) {
                return Spi(spi);
            }
        }
    }

    /// One that we are about to offer.
    pub fn offered_spi(&mut self, path: Path) -> Spi {
        let spi = self.esp_spi();
        self.out.push_back(Output::Expect { path, spi, ms: self.config.retransmission.whole_ms() });
        spi
    }

    /// From 0 to `most`, by chance.
    pub fn chance(&mut self, most: u64) -> u64 {
        let number = u128::from(u64::from_be_bytes(self.bytes()));
        ((number * (u128::from(most) + 1)) >> 64) as u64
    }
}

/// Names that must not be given twice, and who bears them.
#[derive(Default)]
pub struct Names {
    pub last_child: u64,
    pub ikes: HashSet<u64>,
    pub spis: HashSet<u32>,
    pub owners: HashMap<ChildId, IkeId>,
    /// Children whose IKE SA is gone, until they are removed.
    pub orphans: HashMap<ChildId, Spi>,
}

/// What an IKE SA does to others.
pub enum Effect {
    /// A new one, in place of this one.
    Born(Box<IkeSa>),
    /// Children and what is left to do go to another one.
    Inherit(Box<Inheritance>),
    /// Its peer is authenticated: what else is there of the same one may be over.
    Contact { by: IkeId, initial: bool },
    /// It was made to take this one's place, and did.
    Reauthenticated { old: IkeId },
    /// Make another one of the same kind from the beginning, then end this one.
    Reauthenticate,
    /// It came up, after so many milliseconds.
    Up(Millis),
    /// It failed, or the peer ended it: begin again if the configuration says so.
    Lost { peer: Arc<str> },
}

/// What an IKE SA leaves to the one that takes its place.
pub struct Inheritance {
    pub from: IkeId,
    pub to: IkeId,
    pub peer: Option<Arc<PeerConfig>>,
    pub path: Path,
    pub children: Vec<Child>,
    pub tasks: VecDeque<Task>,
}

impl Inheritance {
    /// The heir ended first: with it ends what it would have had.
    pub fn lapse(self, cx: &mut Cx) {
        let mut last = IkeSa::new(self.to, true, self.path, Stage::Gone, cx.now);
        (last.peer, last.children) = (self.peer, self.children);
        last.drop_children(cx, Ending::WithIke);
    }
}

/// Where it is in its life.
pub enum Stage {
    /// We sent IKE_SA_INIT.
    Init(Box<setup::Setup>),
    /// IKE_SA_INIT is done: as initiator we sent IKE_AUTH, as responder we wait for it or for its child to be installed.
    Auth(Box<setup::Setup>),
    /// Both ends are authenticated.
    Up,
    /// Another one took its place; it waits for a delete.
    Replaced,
    /// We said that it ends.
    Closing,
    /// Over: nothing is left but to forget it.
    Gone,
}

/// What is to be done when the window is free.
pub struct Task {
    /// Not before.
    pub at: Millis,
    pub what: Todo,
}

/// What there may be to do.
#[derive(Clone)]
pub enum Todo {
    Child {
        config: Arc<ChildConfig>,
        replaces: Option<ChildId>,
    },
    RekeyChild(ChildId),
    RekeyIke,
    DeleteChild(ChildId, Ending),
    /// Tells the peer to forget an SA that we do not have.
    Disclaim(ChildSpi),
    DeleteIke(Ending),
    Probe,
}

/// Who is behind a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    pub us: bool,
    pub peer: bool,
}

/// One IKE SA.
pub struct IkeSa {
    pub id: IkeId,
    pub peer_spi: u64,
    /// We are the original initiator: of this IKE SA, not of the one it took the place of.
    pub initiator: bool,
    pub peer: Option<Arc<PeerConfig>>,
    /// Who the peer proved to be: the body of its identification payload, and in words.
    pub identity: Option<Box<(Vec<u8>, String)>>,
    pub path: Path,
    pub nat: Nat,
    pub stage: Stage,
    pub suite: Option<IkeSuite>,
    /// SK_d.
    pub d: Secret,
    pub shield: Option<Box<Shield>>,
    /// Both can put fragments together.
    pub fragments: bool,
    /// ID of our next request.
    pub next_id: u32,
    /// ID of the peer's next request.
    pub expected: u32,
    pub asked: Option<Box<Asked>>,
    /// Our answer to the peer's latest request.
    pub answered: Vec<Vec<u8>>,
    pub working: Option<Box<exchange::Working>>,
    pub reply_path: Path,
    pub partial: [Option<Box<Partial>>; 2],
    pub tasks: VecDeque<Task>,
    pub children: Vec<Child>,
    pub began: Millis,
    pub heard_at: Millis,
    pub sent_at: Millis,
    /// The peer made it while we asked for another: who inherits the children is not known yet.
    pub undecided: bool,
    /// When it gets new keys; the greatest number: never.
    pub rekey_at: Millis,
    /// When it ends, whatever happens.
    pub end_at: Millis,
    /// What its deadline is in the endpoint's list.
    pub listed: Option<Millis>,
    /// Its place among the half-open ones.
    pub half_open: Option<(SocketAddr, u64)>,
    /// Its place among the authenticated ones.
    pub known_as: Option<u64>,
}

impl IkeSa {
    pub fn new(id: IkeId, initiator: bool, path: Path, stage: Stage, now: Millis) -> IkeSa {
        IkeSa {
            id,
            peer_spi: 0,
            initiator,
            peer: None,
            identity: None,
            path,
            nat: Nat::default(),
            stage,
            suite: None,
            d: Secret::default(),
            shield: None,
            fragments: false,
            next_id: 0,
            expected: 0,
            asked: None,
            answered: Vec::new(),
            working: None,
            reply_path: path,
            partial: [None, None],
            tasks: VecDeque::new(),
            children: Vec::new(),
            began: now,
            heard_at: now,
            sent_at: now,
            undecided: false,
            rekey_at: Millis::MAX,
            end_at: Millis::MAX,
            listed: None,
            half_open: None,
            known_as: None,
        }
    }

    /// The initiator's and the responder's SPI.
    pub fn spis(&self) -> (u64, u64) {
        if self.initiator { (self.id.0, self.peer_spi) } else { (self.peer_spi, self.id.0) }
    }

    pub fn is_half_open(&self) -> bool {
        matches!(self.stage, Stage::Init(_) | Stage::Auth(_))
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.stage, Stage::Gone)
    }

    pub fn event(&self, cx: &mut Cx, what: What) {
        // Anybody can begin one and not end it.
        if self.is_half_open() && !self.initiator && !cx.noise.allows(cx.now) {
            return;
        }
        let peer = self.peer.as_ref().map(|p| p.name.clone());
        let event = Event { at: cx.now, peer, ike: Some(self.id), remote: self.path.remote, what };
        cx.out.push_back(Output::Event(event));
    }

    /// Something is to be done as soon as it can.
    pub fn later(&mut self, at: Millis, what: Todo) {
        self.tasks.push_back(Task { at, what });
    }

    /// It is over, without a word to the peer. Its children go.
    pub fn fail(&mut self, cx: &mut Cx, reason: Reason) {
        if self.is_gone() {
            return;
        }
        if self.is_half_open() {
            cx.counters.failed += 1;
        } else {
            cx.counters.lost += 1;
        }
        self.event(cx, What::Failed(reason));
        self.drop_children(cx, Ending::WithIke);
        self.stage = Stage::Gone;
        self.lost(cx);
    }

    /// It is over as it was meant to be. Its children go.
    pub fn close(&mut self, cx: &mut Cx, ending: Ending) {
        if self.is_gone() {
            return;
        }
        self.event(cx, What::Closed(ending));
        self.drop_children(cx, Ending::WithIke);
        self.stage = Stage::Gone;
        if matches!(ending, Ending::Peer | Ending::HardLimit) {
            self.lost(cx);
        }
    }

    fn lost(&self, cx: &mut Cx) {
        cx.effects.extend(self.peer.as_ref().map(|p| Effect::Lost { peer: p.name.clone() }));
    }

    pub fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up) && !self.undecided
    }

    /// It is up or on its way, and will not end soon.
    pub fn is_live(&self) -> bool {
        let ends = self.tasks.iter().any(|t| matches!(t.what, Todo::DeleteIke(_)));
        matches!(self.stage, Stage::Init(_) | Stage::Auth(_) | Stage::Up) && !ends && !self.undecided
    }

    /// Takes what another one had, whose place it takes.
    pub fn inherit(&mut self, cx: &mut Cx, left: Inheritance) {
        if std::mem::take(&mut self.undecided) {
            self.lives(cx);
        }
        self.children.extend(left.children);
        self.tasks.extend(left.tasks);
        self.event(cx, What::Rekeyed { old: left.from });
        self.next_task(cx);
    }

    /// A genuine ESP packet of a child came from elsewhere (RFC 7296 §2.23).
    pub fn esp_moved(&mut self, cx: &mut Cx, child: ChildId, remote: SocketAddr) {
        let moves = self.nat.peer && !self.nat.us && self.path.remote != remote;
        if moves && self.child(child).is_some_and(|c| c.is_installed()) {
            let from = std::mem::replace(&mut self.path.remote, remote);
            self.moved(cx, from);
        }
    }

    /// Bytes that an IKE datagram may have, where messages may be cut.
    pub fn datagram_room(&self) -> Option<usize> {
        let most = self.peer.as_ref().map_or(0, |p| p.fragment);
        if !self.fragments || most == 0 {
            return None;
        }
        let ip = if self.path.remote.is_ipv4() { 20 } else { 40 };
        let marker = if self.path.local.port() == 500 { 0 } else { 4 };
        Some(usize::from(most).saturating_sub(ip + 8 + marker))
    }
}

/// What a NAT detection payload has for an address (RFC 7296 §2.23).
pub fn nat_hash((spi_i, spi_r): (u64, u64), address: SocketAddr) -> [u8; 20] {
    let port = address.port().to_be_bytes();
    let spis = [spi_i.to_be_bytes(), spi_r.to_be_bytes()];
    match address.ip() {
        IpAddr::V4(a) => sha1(&[spis.as_flattened(), &a.octets(), &port]),
        IpAddr::V6(a) => sha1(&[spis.as_flattened(), &a.octets(), &port]),
    }
}
