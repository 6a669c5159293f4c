//! IKE and the cluster: datagrams between the router core and the state machine; what is negotiated becomes SAs of the
//! router and all targets before the peer may use them (I4, R2, R3), and goes the same way (R6).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use phalanx_cluster::outputs::Missing;
use phalanx_cluster::{CouplingFacility, SaPair, keys};
use phalanx_dataplane::{Command, IkeDatagram, Mailbox};
use phalanx_ike::crypto::Random;
use phalanx_ike::{Answer, ChildId, ChildSa, Endpoint, Output, Path, What, Which};
use phalanx_ipsec::TunnelName;
use phalanx_wire::{SaId, VipId};

use super::brain::Brain;
use super::ike_tell::SetUps;
use super::ike_tunnels::Tunnels;
use super::key_log::KeyLog;
use super::plan;

/// IKE messages that wait for the control core, and how long each may be: what reassembly puts together.
const MESSAGES: usize = 512;
const LONGEST: usize = 9216;
/// Messages taken in one go: leases and acknowledgements must not wait long.
const AT_ONCE: usize = 8;
/// Events remembered for `phalanx ike`.
const EVENTS: usize = 256;

/// A CHILD_SA as the cluster has it.
pub(super) struct Child {
    pub pair: SaPair,
    /// Which it takes the place of.
    replaces: Option<ChildId>,
    state: State,
    /// A genuine packet came on it.
    pub verified: bool,
    /// Bytes that the state machine knows of.
    pub told: u64,
}

impl Child {
    /// The peer may use it.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Installing,
    Up,
    /// The state machine wants it gone, and to be told.
    Removing,
    /// It could not be installed: nobody waits for its end.
    Refused,
}

/// Something that happened, for `phalanx ike`.
pub(super) struct Happened {
    pub at: SystemTime,
    pub bad: bool,
    pub words: String,
}

/// IKE on a router.
pub(super) struct Ike {
    pub endpoint: Endpoint,
    mailbox: Mailbox,
    /// The courier said that something came, and nobody looked yet.
    rung: Arc<AtomicBool>,
    pub children: BTreeMap<ChildId, Child>,
    by_sa: HashMap<SaId, ChildId>,
    tunnels: Tunnels,
    pub events: VecDeque<Happened>,
    pub times: SetUps,
    /// Where keys are written down, if they are.
    pub keys: Option<KeyLog>,
    /// The last child whose turn it was to be looked at.
    turn: Option<ChildId>,
    /// The core hears.
    heard: bool,
}

/// The control core's bell: see [`super::start::Courier`].
#[derive(Clone)]
pub struct Bell {
    mailbox: Mailbox,
    rung: Arc<AtomicBool>,
}

impl Bell {
    /// A mailbox that nobody fills yet.
    pub fn new() -> Bell {
        Bell { mailbox: Mailbox::new(MESSAGES, LONGEST), rung: Arc::default() }
    }

    /// Whether to ring: something came since somebody looked, and nobody rang for it.
    pub fn ring(&self) -> bool {
        !self.mailbox.is_empty() && !self.rung.swap(true, Ordering::AcqRel)
    }
}

/// The operating system's randomness.
struct System;

impl Random for System {
    fn fill(&mut self, out: &mut [u8]) {
        if let Err(error) = getrandom::fill(out) {
            // Keys and nonces of zeroes would be worse than no router.
            tracing::error!(%error, "the operating system gives no randomness");
            std::process::abort();
        }
    }
}

impl Ike {
    /// `epoch`: how often this router started.
    pub fn new(config: phalanx_ike::Config, epoch: u32, bell: Bell) -> Ike {
        Ike {
            endpoint: Endpoint::new(config, epoch, Box::new(System)),
            mailbox: bell.mailbox,
            rung: bell.rung,
            children: BTreeMap::new(),
            by_sa: HashMap::new(),
            tunnels: Tunnels::default(),
            events: VecDeque::new(),
            times: SetUps::default(),
            keys: None,
            turn: None,
            heard: false,
        }
    }

    /// The pairs that are to be there.
    pub fn pairs(&self) -> impl Iterator<Item = &SaPair> {
        let wanted = |child: &&Child| matches!(child.state, State::Installing | State::Up);
        self.children.values().filter(wanted).map(|child| &child.pair)
    }

    /// The child that an SA of either direction belongs to.
    pub fn child_of(&self, sa: SaId) -> Option<ChildId> {
        self.by_sa.get(&sa).copied()
    }

    /// The next children to be looked at: all have had their turn after so many calls.
    pub fn in_turn(&mut self, calls: usize) -> Vec<ChildId> {
        let from = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let count = self.children.len().div_ceil(calls);
        let next: Vec<ChildId> = self.children.range((from, Bound::Unbounded)).take(count).map(|(id, _)| *id).collect();
        self.turn = next.last().copied().filter(|_| next.len() == count);
        next
    }

    fn forget(&mut self, id: ChildId) -> Option<Child> {
        let child = self.children.remove(&id)?;
        for sa in [child.pair.inbound.id, child.pair.outbound.id] {
            self.by_sa.remove(&sa);
        }
        self.tunnels.leave(child.pair.inbound.tunnel);
        Some(child)
    }

    fn happened(&mut self, bad: bool, words: String) {
        self.events.push_back(Happened { at: SystemTime::now(), bad, words });
        let over = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..over);
    }
}

/// Seconds since 1970.
fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Brain {
    /// The state machine's clock.
    pub(super) fn ike_now(&self) -> u64 {
        self.now() / 1000
    }

    /// Begins, or goes on with other peers: those of VIPs that are up.
    pub(super) fn ike_configure(&mut self) {
        self.ike_key_log();
        let (config, now) = (plan::ike(&self.config, &self.wanted.down), self.ike_now());
        let Some(ike) = &mut self.ike else { return };
        let hears = ike.heard || !config.peers.is_empty();
        let slot = (hears && !std::mem::replace(&mut ike.heard, hears)).then(|| ike.mailbox.slot());
        ike.endpoint.reconfigure(now, config);
        if let Some(slot) = slot {
            self.tell_router(Command::HearIke(slot));
        }
    }

    /// Messages came.
    pub(super) fn ike_hear(&mut self) {
        let (now, unix) = (self.ike_now(), unix());
        let Some(Ike { endpoint, mailbox, rung, .. }) = &mut self.ike else { return };
        rung.store(false, Ordering::Release);
        for _ in 0..AT_ONCE {
            let heard = mailbox.next(|message| {
                let path = Path { local: message.local, remote: message.remote };
                endpoint.datagram(now, unix, path, &message.bytes);
            });
            if heard.is_none() {
                break;
            }
        }
    }

    /// Time passed; what did not fit one go is heard now.
    pub(super) fn ike_tick(&mut self) {
        let now = self.ike_now();
        let Some(ike) = &mut self.ike else { return };
        if ike.endpoint.deadline().is_some_and(|at| at <= now) {
            ike.endpoint.tick(now, unix());
        }
        if !ike.mailbox.is_empty() {
            self.ike_hear();
        }
    }

    /// Does what the state machine wants; whether there was anything.
    pub(super) fn ike_settle(&mut self) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        ike.times.note(ike.endpoint.set_up_times());
        let outputs: Vec<Output> = ike.endpoint.outputs().collect();
        let any = !outputs.is_empty();
        for output in outputs {
            self.ike_output(output);
        }
        any
    }

    fn ike_output(&mut self, output: Output) {
        match output {
            Output::Send { path, bytes } => self.ike_send(path, bytes),
            Output::Expect { path, spi, ms } => {
                if let Some(vip) = self.vip_at(path.local.ip()) {
                    self.tell_router(Command::Expect { vip, spi, ms });
                }
            }
            Output::Install(child) => self.ike_install(&child),
            Output::SwitchOutbound { child } => self.ike_switch(child),
            Output::Remove { child } => self.ike_remove(child),
            Output::Moved { children, path } => self.ike_moved(&children, path),
            Output::Keepalive { path } => {
                if let Some(vip) = self.vip_at(path.local.ip()) {
                    self.tell_router(Command::Keepalive(vip, path.remote));
                }
            }
            Output::Event(event) => self.ike_event(&event),
            Output::KeyLog(line) => self.ike_log_line(&line),
        }
    }

    /// What became of something, or what a child went through.
    pub(super) fn ike_answer(&mut self, answer: Answer) {
        let now = self.ike_now();
        if let Some(ike) = &mut self.ike {
            ike.endpoint.answer(now, answer);
        }
    }

    fn vip_at(&self, address: std::net::IpAddr) -> Option<VipId> {
        let ours = self.vips.iter().find(|(_, state)| state.router.is_none() && state.entry.address == address);
        ours.map(|(id, _)| *id)
    }

    fn ike_send(&mut self, path: Path, bytes: Vec<u8>) {
        let Some(vip) = self.vip_at(path.local.ip()) else { return };
        let message = IkeDatagram { vip, local: path.local, remote: path.remote, bytes };
        self.tell_router(Command::SendIke(Box::new(message)));
    }

    /// To the coupling facility, the router, the targets: `SaReady` follows, or it is refused at once.
    fn ike_install(&mut self, child: &ChildSa) {
        self.ike_log_child(child);
        let placed = self.ike_place(child);
        if let Err(why) = placed {
            self.ike_answer(Answer::Refused(child.id, why));
        }
    }

    fn ike_place(&mut self, child: &ChildSa) -> Result<(), String> {
        let vip = self.vip_at(child.path.local.ip()).ok_or("its VIP is not served here")?;
        let at = self.config.peers.iter().position(|peer| *peer.ike.name == *child.peer);
        let at = at.ok_or("the peer is not in the configuration")?;
        let now = self.now();
        let (Some(ike), Some(router)) = (&mut self.ike, &mut self.router) else {
            return Err("this node is no router".to_owned());
        };
        let before = child.replaces.and_then(|old| Some(&ike.children.get(&old)?.pair));
        let tunnel = ike.tunnels.enter(vip, child, before.map(|pair| &*pair.inbound)).map_err(|e| e.to_string())?;
        let pair = plan::negotiated(&self.config.peers[at], at, vip, child, &tunnel);
        let added = pair.map_err(|error| error.to_string()).and_then(|pair| {
            router.add_sa(pair.clone(), now).map_err(|error| error.to_string())?;
            Ok(pair)
        });
        let pair = added.inspect_err(|_| ike.tunnels.leave(tunnel.name))?;
        for sa in [pair.inbound.id, pair.outbound.id] {
            ike.by_sa.insert(sa, child.id);
        }
        let replaces = child.replaces;
        ike.children.insert(child.id, Child { pair, replaces, state: State::Installing, verified: false, told: 0 });
        Ok(())
    }

    /// The application of this node wants to send through a negotiated tunnel that has no SA (R20).
    pub(super) fn sa_wanted(&mut self, vip: VipId, tunnel: TunnelName) {
        let Some(state) = self.vips.get(&vip) else { return };
        match state.router.clone() {
            Some(name) => self.routers.get_mut(&name).into_iter().for_each(|target| target.sa_wanted(vip, tunnel)),
            None => self.ike_acquire(tunnel),
        }
    }

    /// Has one made. A tunnel's name tells of whom.
    pub(super) fn ike_acquire(&mut self, tunnel: TunnelName) {
        let now = self.ike_now();
        let mut names = tunnel.as_str().split(':').map(ToOwned::to_owned);
        let (Some(ike), Some(peer), Some(child)) = (&mut self.ike, names.next(), names.next()) else { return };
        let command = phalanx_ike::Command::Acquire { peer, child, remote: None };
        if let Err(error) = ike.endpoint.command(now, command) {
            ike.happened(true, format!("{tunnel}: a packet wants an SA: {error}"));
        }
    }

    /// All live targets have a negotiated pair, or the time for that is over. False: it is not negotiated.
    pub(super) fn ike_ready(&mut self, sa: SaId, missing: &[Missing]) -> bool {
        let Some((id, child)) = self.child_mut(sa) else { return false };
        if child.state != State::Installing {
            return true;
        }
        if let Some(first) = missing.first() {
            // I4: what a live target lacks the peer must not use.
            child.state = State::Refused;
            self.ike_drop(sa);
            self.ike_answer(Answer::Refused(id, format!("{} does not hold it: {}", first.node, first.why)));
        } else {
            child.state = State::Up;
            self.ike_answer(Answer::Installed(id));
        }
        true
    }

    fn child_mut(&mut self, sa: SaId) -> Option<(ChildId, &mut Child)> {
        let ike = self.ike.as_mut()?;
        let id = *ike.by_sa.get(&sa)?;
        Some((id, ike.children.get_mut(&id)?))
    }

    fn ike_switch(&mut self, id: ChildId) {
        let now = self.now();
        let (Some(ike), Some(router)) = (&self.ike, &mut self.router) else { return };
        let Some(child) = ike.children.get(&id) else { return };
        let old = child.replaces.and_then(|old| Some(ike.children.get(&old)?.pair.inbound.id));
        if let Err(error) = router.use_outbound(child.pair.inbound.id, old, now) {
            tracing::error!(%error, "an outbound SA could not be switched");
        }
    }

    fn ike_remove(&mut self, id: ChildId) {
        let ike = self.ike.as_mut().and_then(|ike| ike.children.get_mut(&id));
        let Some(child) = ike else { return self.ike_answer(Answer::Removed(id)) };
        child.state = State::Removing;
        let sa = child.pair.inbound.id;
        self.ike_drop(sa);
    }

    /// Takes a pair out; when it is gone, [`Brain::ike_gone`] is told.
    fn ike_drop(&mut self, sa: SaId) {
        let now = self.now();
        let removed = self.router.as_mut().map(|router| router.remove_sa(sa, now));
        if !matches!(removed, Some(Ok(()))) {
            self.ike_gone(sa);
        }
    }

    /// A pair is gone everywhere. False: it was not negotiated.
    pub(super) fn ike_gone(&mut self, sa: SaId) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let Some(child) = ike.child_of(sa).and_then(|id| Some((id, ike.forget(id)?))) else { return false };
        let (id, Child { pair, state, .. }) = child;
        match state {
            State::Removing => self.ike_answer(Answer::Removed(id)),
            State::Installing => self.ike_answer(Answer::Refused(id, "it was taken out".to_owned())),
            State::Up => {
                // Somebody else took it out, with its VIP.
                let now = self.ike_now();
                if let Some(ike) = &mut self.ike {
                    let _ = ike.endpoint.command(now, phalanx_ike::Command::Terminate(Which::Child(id)));
                }
            }
            State::Refused => {}
        }
        self.ike_clean(&pair);
        true
    }

    /// A negotiated key never comes again: what the coupling facility kept for it may go (I1).
    fn ike_clean(&self, pair: &SaPair) {
        let (inbound, outbound) = (pair.inbound.key.fingerprint(), pair.outbound.key.fingerprint());
        let names = [keys::ceiling(&inbound), keys::reached(&inbound), keys::outbound_counter(&outbound)];
        let Some(store) = self.store.clone() else { return };
        tokio::spawn(async move {
            for name in names {
                if let Err(error) = store.delete(&name).await {
                    tracing::warn!(%error, "a counter of an SA that is gone could not be deleted");
                }
            }
        });
    }

    /// An authenticated IKE message came from elsewhere: ESP goes there too.
    fn ike_moved(&mut self, children: &[ChildId], path: Path) {
        let (Some(ike), Some(router)) = (&self.ike, &mut self.router) else { return };
        for child in children.iter().filter_map(|id| ike.children.get(id)) {
            router.move_peer(child.pair.inbound.id, path.remote);
        }
    }

    /// A genuine ESP packet came from elsewhere: IKE goes there too.
    pub(super) fn ike_followed(&mut self, sas: &[SaId], remote: std::net::SocketAddr) {
        let Some(ike) = &self.ike else { return };
        let children: std::collections::BTreeSet<ChildId> = sas.iter().filter_map(|sa| ike.child_of(*sa)).collect();
        for child in children {
            self.ike_answer(Answer::Moved { child, remote });
        }
    }

    fn ike_event(&mut self, event: &phalanx_ike::Event) {
        let bad = matches!(event.what, What::Failed(_) | What::RekeyFailed(_) | What::ChildFailed { .. });
        let words = event.to_string();
        if bad {
            tracing::warn!(target: "phalanx::ike", "{words}");
        } else {
            tracing::info!(target: "phalanx::ike", "{words}");
        }
        if let Some(ike) = &mut self.ike {
            ike.happened(bad, words);
        }
    }

    /// Ends a child; false: there is no such one.
    pub(super) fn terminate_child(&mut self, id: ChildId) -> bool {
        let now = self.ike_now();
        let ended =
            self.ike.as_mut().map(|ike| ike.endpoint.command(now, phalanx_ike::Command::Terminate(Which::Child(id))));
        matches!(ended, Some(Ok(_)))
    }

    /// The node ends: peers need not find out by themselves.
    pub(super) fn ike_end(&mut self) {
        let now = self.ike_now();
        if let Some(ike) = &mut self.ike {
            let _ = ike.endpoint.command(now, phalanx_ike::Command::Terminate(Which::All));
            let outputs: Vec<Output> = ike.endpoint.outputs().collect();
            for output in outputs {
                if let Output::Send { path, bytes } = output {
                    self.ike_send(path, bytes);
                }
            }
        }
    }
}
