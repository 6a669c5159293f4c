//! All IKE SAs of one router: which of them a datagram, a command or an answer is for, and when each wants to be looked at.

mod command;
mod contact;
mod receive;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::cookie::Cookies;
use crate::crypto::Random;
use crate::noise::Noise;
use crate::sa::{Cx, Effect, IkeSa, Names};
use crate::{Answer, ChildId, Config, Counters, IkeId, IkeRow, Millis, Output};

/// So many set-up times are kept until somebody asks.
const MOST_TIMES: usize = 4096;

/// All IKE SAs of one router. Does nothing by itself: give it datagrams, commands and time, and do what [`Endpoint::outputs`] says.
///
/// ```text
/// datagram(), command(), answer(), tick() at deadline()  ──►  outputs()
/// ```
pub struct Endpoint {
    config: Config,
    epoch: u32,
    random: Box<dyn Random + Send>,
    /// The latest that we were told, for what comes without it.
    unix: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
    names: Names,
    sas: HashMap<IkeId, Box<IkeSa>>,
    deadlines: BTreeSet<(Millis, IkeId)>,
    /// Half-open ones that peers began, by where they came from.
    half_open: HashMap<(SocketAddr, u64), IkeId>,
    sources: HashMap<IpAddr, usize>,
    /// Authenticated ones, by a hash of peer and identity.
    known: HashMap<u64, Vec<IkeId>>,
    cookies: Cookies,
    /// Peers to begin with: when, and how often it failed.
    starts: BTreeMap<Arc<str>, (Millis, u32)>,
    times: VecDeque<Millis>,
    noise: Noise,
}

/// What is needed to go on with an IKE SA elsewhere, besides its keys: no message ID is used twice with another message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeState {
    /// ID of our next request.
    pub next_request: u32,
    /// ID of the peer's next request.
    pub expected_request: u32,
    /// The datagrams of our latest answer.
    pub answer: Vec<Vec<u8>>,
    /// The datagrams of our request that has no answer yet.
    pub request: Vec<Vec<u8>>,
}

impl Endpoint {
    /// `epoch` never comes twice in the life of a router: the IVs of IKE's own messages begin with it.
    #[must_use]
    pub fn new(config: Config, epoch: u32, mut random: Box<dyn Random + Send>) -> Endpoint {
        let cookies = Cookies::new(&mut *random);
        let mut endpoint = Endpoint {
            config: Config::default(),
            epoch,
            random,
            unix: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            names: Names::default(),
            sas: HashMap::new(),
            deadlines: BTreeSet::new(),
            half_open: HashMap::new(),
            sources: HashMap::new(),
            known: HashMap::new(),
            cookies,
            starts: BTreeMap::new(),
            times: VecDeque::new(),
            noise: Noise::default(),
        };
        endpoint.config = config;
        endpoint.start_peers(0);
        endpoint
    }

    /// To be called when [`Endpoint::deadline`] is reached. `unix`: seconds since 1970.
    pub fn tick(&mut self, now: Millis, unix: u64) {
        self.unix = unix;
        self.start_due(now);
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            self.with(now, id, IkeSa::tick);
            // What is still due now waits for a moment that comes.
            if let Some(sa) = self.sas.get_mut(&id).filter(|sa| sa.listed.is_some_and(|at| at <= now)) {
                if let Some(at) = sa.listed.replace(now + 1) {
                    self.deadlines.remove(&(at, id));
                }
                self.deadlines.insert((now + 1, id));
            }
        }
    }

    /// When something is to be done next.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let start = self.starts.values().map(|(at, _)| *at).min();
        let sa = self.deadlines.first().map(|(at, _)| *at);
        start.into_iter().chain(sa).min().filter(|at| *at < Millis::MAX)
    }

    /// What became of an output, or what a child went through. What is not known any more is ignored.
    pub fn answer(&mut self, now: Millis, answer: Answer) {
        match answer {
            Answer::Installed(child) => self.of_child(now, child, |sa, cx| sa.installed(cx, child)),
            Answer::Refused(child, why) => {
                self.free_orphan(child);
                self.of_child(now, child, |sa, cx| sa.refused(cx, child, why));
            }
            Answer::Removed(child) => {
                self.free_orphan(child);
                self.of_child(now, child, |sa, cx| sa.removed(cx, child));
            }
            Answer::Used { child, inbound_bytes, inbound_packets, outbound_bytes, outbound_packets } => {
                let carried = (inbound_bytes.max(outbound_bytes), inbound_packets.max(outbound_packets));
                self.of_child(now, child, |sa, cx| sa.used(cx, child, carried, inbound_packets));
            }
            Answer::Exhausted { child } => self.of_child(now, child, |sa, cx| sa.hard_limit(cx, child)),
            Answer::Verified { child } => self.of_child(now, child, |sa, cx| sa.switch(cx, child)),
            Answer::Moved { child, remote } => self.of_child(now, child, |sa, cx| sa.esp_moved(cx, child, remote)),
        }
    }

    fn free_orphan(&mut self, child: ChildId) {
        if let Some(spi) = self.names.orphans.remove(&child) {
            self.names.spis.remove(&spi.0);
        }
    }

    fn of_child(&mut self, now: Millis, child: ChildId, what: impl FnOnce(&mut IkeSa, &mut Cx)) {
        if let Some(id) = self.names.owners.get(&child).copied() {
            self.with(now, id, what);
        }
    }

    /// What is to be done, in order.
    pub fn outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }

    /// Every IKE SA.
    #[must_use]
    pub fn list(&self, now: Millis) -> Vec<IkeRow> {
        let mut rows: Vec<_> = self.sas.values().map(|sa| sa.row(now)).collect();
        rows.sort_by(|a, b| (&a.peer, a.id).cmp(&(&b.peer, b.id)));
        rows
    }

    /// How many IKE SAs there are, and how many of them peers have begun and not finished.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.sas.len(), self.half_open.len())
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Milliseconds that set-ups took, from the first message to the last, since the last call; the latest 4096.
    pub fn set_up_times(&mut self) -> Vec<Millis> {
        self.times.drain(..).collect()
    }

    /// What whoever takes an IKE SA over has to know besides its keys.
    #[must_use]
    pub fn exchange_state(&self, ike: IkeId) -> Option<ExchangeState> {
        let sa = self.sas.get(&ike)?;
        Some(ExchangeState {
            next_request: sa.next_id,
            expected_request: sa.expected,
            answer: sa.answered.clone(),
            request: sa.asked.as_ref().map_or(Vec::new(), |asked| asked.datagrams.clone()),
        })
    }

    /// As if the peer of an IKE SA, which has the keys, sent these payloads in its next message.
    #[cfg(feature = "fuzzing")]
    pub fn inject(&mut self, now: Millis, ike: IkeId, exchange: u8, response: bool, first: u8, plain: &[u8]) {
        self.with(now, ike, |sa, cx| sa.inject(cx, exchange, response, first, plain));
    }

    /// Names that are taken: IKE SAs, inbound SPIs, children with an owner, children that wait for their removal.
    #[cfg(feature = "fuzzing")]
    #[must_use]
    pub fn taken(&self) -> [usize; 4] {
        [self.names.ikes.len(), self.names.spis.len(), self.names.owners.len(), self.names.orphans.len()]
    }

    /// Does something to one IKE SA, and what follows from it.
    fn with<R>(&mut self, now: Millis, id: IkeId, what: impl FnOnce(&mut IkeSa, &mut Cx) -> R) -> Option<R> {
        let mut sa = self.sas.remove(&id)?;
        let mut effects = Vec::new();
        let result = what(&mut sa, &mut self.cx(now, &mut effects));
        self.settle(sa);
        self.follow(now, id, effects);
        Some(result)
    }

    fn cx<'a>(&'a mut self, now: Millis, effects: &'a mut Vec<Effect>) -> Cx<'a> {
        Cx {
            now,
            unix: self.unix,
            config: &self.config,
            epoch: self.epoch,
            random: &mut *self.random,
            out: &mut self.outputs,
            counters: &mut self.counters,
            names: &mut self.names,
            noise: &mut self.noise,
            effects,
        }
    }

    /// Puts an IKE SA where it belongs: into the table and the list of deadlines, or nowhere.
    fn settle(&mut self, mut sa: Box<IkeSa>) {
        if let Some(at) = sa.listed.take() {
            self.deadlines.remove(&(at, sa.id));
        }
        if !sa.is_half_open() {
            self.not_half_open(&mut sa);
        }
        if sa.is_gone() {
            return self.forget(&sa);
        }
        if let (None, Some(peer), Some(identity)) = (sa.known_as, &sa.peer, &sa.identity) {
            let hash = hash(&peer.name, &identity.0);
            sa.known_as = Some(hash);
            self.known.entry(hash).or_default().push(sa.id);
        }
        let at = sa.deadline();
        if at < Millis::MAX {
            sa.listed = Some(at);
            self.deadlines.insert((at, sa.id));
        }
        self.sas.insert(sa.id, sa);
    }

    fn not_half_open(&mut self, sa: &mut IkeSa) {
        let Some(key) = sa.half_open.take() else { return };
        self.half_open.remove(&key);
        if let Some(count) = self.sources.get_mut(&key.0.ip()) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&key.0.ip());
            }
        }
    }

    fn forget(&mut self, sa: &IkeSa) {
        self.names.ikes.remove(&sa.id.0);
        if let Some(hash) = sa.known_as
            && let Some(list) = self.known.get_mut(&hash)
        {
            list.retain(|id| *id != sa.id);
            if list.is_empty() {
                self.known.remove(&hash);
            }
        }
    }

    /// What one IKE SA does to others.
    fn follow(&mut self, now: Millis, id: IkeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Born(sa) => self.settle(sa),
                Effect::Inherit(left) if self.sas.contains_key(&left.to) => {
                    for child in &left.children {
                        self.names.owners.insert(child.id, left.to);
                    }
                    self.with(now, left.to, |sa, cx| sa.inherit(cx, *left));
                }
                Effect::Inherit(left) => left.lapse(&mut self.cx(now, &mut Vec::new())),
                Effect::Contact { by, initial } => self.contact(now, by, initial),
                Effect::Reauthenticated { old } => self.reauthenticated(now, old),
                Effect::Reauthenticate => self.reauthenticate(now, id),
                Effect::Up(took) => {
                    if self.times.len() == MOST_TIMES {
                        self.times.pop_front();
                    }
                    self.times.push_back(took);
                }
                Effect::Lost { peer } => self.lost(now, &peer),
            }
        }
    }
}

fn hash(peer: &str, identity: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (peer, identity).hash(&mut hasher);
    hasher.finish()
}
