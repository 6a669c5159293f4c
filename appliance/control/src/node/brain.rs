//! The one task that owns this node's state: everything that happens comes in as an [`Input`], one after the other, and
//! what the state machines want done goes out at once. No lock, no shared state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phalanx_cluster::messages::{NodeName, ToRouter, ToTarget};
use phalanx_cluster::{ClusterError, CouplingError, CouplingFacility, RouterCluster, SaPair, TargetCluster};
use phalanx_dataplane::command::{LinkEnd, TargetEntry, VipEntry};
use phalanx_dataplane::{Command, CoreStats, Dataplane, Event};
use phalanx_fabric::Embedded;
use phalanx_wire::{CoreId, SaId, TargetId, VipId};
use tokio::sync::mpsc;

use super::books::{FilterBook, SaBook};
use super::cores::{Cores, Finished, Purpose};
use super::dumps::Dumps;
use super::listeners::Loads;
use super::lookout::{Lookout, Seen};
use super::looks::Looks;
use super::plan::Numbering;
use super::reload::Wanted;
use super::tap::Tap;
use crate::config::Config;
use crate::status::{Query, Request};

/// How often counters are looked at and what is due is done. Lease deadlines are milliseconds.
pub const TICK: Duration = Duration::from_millis(2);
/// How often use and windows are looked at (R21).
const USE_EVERY: Duration = Duration::from_millis(50);
/// What each child used is told to IKE once in so many of those: about once a second.
const TOLD_EVERY: usize = 20;

/// How long the connections of a target whose session was lost are kept: it may only have been the session. Well below
/// the two seconds after which a dead target's connections are to be forgotten.
pub const GRACE: Duration = Duration::from_millis(800);

/// A target whose session was lost, or just came back.
pub struct Absent {
    /// Its boot then.
    pub incarnation: u64,
    /// When the session was lost; once it is back: when that was.
    pub since: Instant,
    /// It is back, of the same boot: what it does not tell of is over.
    pub back: bool,
}

/// Something happened.
pub enum Input {
    /// A poll core said something.
    Core(Event),
    /// A target's session with this router began.
    TargetConnected(NodeName),
    /// It ended.
    TargetDisconnected(NodeName, String),
    /// A target said something.
    FromTarget(NodeName, ToRouter),
    /// Our session with a router began.
    RouterConnected(NodeName),
    /// It ended.
    RouterDisconnected(NodeName, String),
    /// A router said something.
    FromRouter(NodeName, ToTarget),
    /// The coupling facility's answer to a `fetch_add`.
    Granted(SaId, Result<std::ops::Range<u64>, CouplingError>),
    /// The coupling facility's answer to a `raise`.
    CeilingRaised(SaId, Result<u64, CouplingError>),
    /// The same, for what targets reached.
    ReachedRaised(SaId, Result<u64, CouplingError>),
    /// The same, for the counter of a key that must not be used any more.
    Burned(SaId, Result<u64, CouplingError>),
    /// What the store remembers of a static SA that is to be added.
    Remembered(SaId, Result<SaPair, CouplingError>),
    /// IKE messages wait.
    IkeHeard,
    /// The whole table of rules is made.
    RulesMade(super::rules::Made),
    /// SIGHUP.
    Reload,
    /// The lookout saw something on this host.
    Seen(Seen),
    /// Somebody asks or orders over the status socket.
    Request(Request),
    /// Who traced has seen enough, or is gone.
    TraceOver,
    /// The same of who captured.
    CaptureOver,
    /// SIGTERM or SIGINT.
    Shutdown,
}

/// Who reads a core's tables.
pub enum DumpFor {
    /// A router that gathers what we hold.
    Gather(NodeName, u64),
    /// The status socket.
    Query(Query),
}

/// A VIP on this node.
pub struct VipState {
    /// As the cores know it.
    pub entry: VipEntry,
    /// Its router; none: this node.
    pub router: Option<NodeName>,
    /// All cores have it and all who asked for it know.
    pub settled: bool,
}

/// How far this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not everything is up.
    Starting,
    /// Everything is.
    Running,
    /// No new connections; it ends.
    Draining,
}

impl Phase {
    /// Its name in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Draining => "draining",
        }
    }
}

/// Ways out of this node.
pub struct Ways {
    /// To the targets that attached to us.
    pub targets: Option<phalanx_fabric::ServerHandle>,
    /// To the routers we obey.
    pub routers: BTreeMap<NodeName, phalanx_fabric::ClientHandle>,
}

/// Everything this node knows.
pub struct Brain {
    pub(super) config: Config,
    pub(super) numbering: Numbering,
    pub(super) started: Instant,
    pub(super) incarnation: u64,
    pub(super) no_huge: bool,
    pub(super) stats: Vec<(CoreId, Arc<CoreStats>)>,
    pub(super) cores: Cores,
    pub(super) sas: SaBook,
    pub(super) filters: FilterBook,
    pub(super) rules_due: super::rules::RulesDue,
    pub(super) vips: BTreeMap<VipId, VipState>,
    pub(super) router: Option<RouterCluster>,
    pub(super) ike: Option<super::ike::Ike>,
    pub(super) routers: BTreeMap<NodeName, TargetCluster>,
    pub(super) ways: Ways,
    pub(super) store: Option<Arc<Embedded>>,
    pub(super) tap: Tap,
    pub(super) dumps: Dumps<DumpFor>,
    pub(super) inputs: mpsc::Sender<Input>,
    /// What is still to be looked at of what each SA carried.
    pub(super) looks: Looks,
    /// When the routers were last told what was dropped here.
    pub(super) drops_told: Instant,
    /// Per router: when a message of its session last came.
    pub(super) heard: BTreeMap<NodeName, Instant>,
    pub(super) absent: BTreeMap<TargetId, Absent>,
    /// Looks at this host, where it is a target.
    pub(super) lookout: Option<Lookout>,
    pub(super) loads: Loads,
    pub(super) wanted: Wanted,
    pub(super) warnings: Vec<String>,
    pub(super) coupling: String,
    pub(super) version: &'static str,
    pub(super) phase: Phase,
    pub(super) watching: super::watching::Watching,
    /// Somebody captures.
    pub(super) capturing: bool,
    pub(super) courier: super::start::Courier,
    pub(super) dataplane: Dataplane,
}

impl Brain {
    /// Microseconds since the start: the clock of the sans-IO rooms.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The moment that the sans-IO rooms call `at`.
    pub(super) fn moment(&self, at: u64) -> Instant {
        self.started + Duration::from_micros(at)
    }

    /// One thing happened: take it in, then do everything that follows from it. True: the node ends.
    pub fn handle(&mut self, input: Input) -> bool {
        let now = self.now();
        match input {
            Input::Core(event) => self.core_event(event),
            Input::TargetConnected(node) => self.as_router(|router| router.connected(&node, now)),
            Input::TargetDisconnected(node, why) => self.as_router(|router| router.disconnected(&node, &why, now)),
            Input::FromTarget(node, message) => {
                self.heard.insert(node.clone(), Instant::now());
                self.as_router(|router| router.handle(&node, message, now));
            }
            Input::RouterConnected(node) => self.with_target_of(&node, |target| target.connected(now)),
            Input::RouterDisconnected(node, why) => {
                tracing::warn!(router = %node, %why, "no session with the router; its connections go on as far as leases reach");
                self.with_target_of(&node, |target| target.disconnected(now));
            }
            Input::FromRouter(node, message) => {
                self.heard.insert(node.clone(), Instant::now());
                self.as_target_of(&node, |target| target.handle(message, now));
            }
            Input::Granted(sa, result) => self.with_router(|router| router.granted(sa, result, now)),
            Input::CeilingRaised(sa, result) => self.with_router(|router| router.ceiling_raised(sa, result)),
            Input::ReachedRaised(sa, result) => self.with_router(|router| router.reached_raised(sa, result)),
            Input::Burned(sa, Err(error)) => {
                self.warn(format!("SA {sa}: its key could not be marked as used up: {error}. Give it a new one"));
            }
            Input::Burned(_, Ok(_)) => {}
            Input::Remembered(sa, pair) => self.remembered(sa, pair),
            Input::IkeHeard => self.ike_hear(),
            Input::RulesMade(made) => self.rules_made(made),
            Input::Reload => self.reload().log(),
            Input::Seen(seen) => self.seen(seen),
            Input::Request(Request::Query(query)) => self.query(query),
            Input::Request(Request::Demand(demand)) => self.act(demand),
            Input::Request(Request::Trace(request)) => self.trace(request),
            Input::TraceOver => self.trace_over(),
            Input::Request(Request::Capture(request)) => self.capture(request),
            Input::CaptureOver => self.capture_over(),
            Input::Shutdown => return true,
        }
        self.settle();
        false
    }

    /// Time passed.
    pub fn tick(&mut self) {
        let now = self.now();
        self.cores.flush();
        self.look(now);
        self.ike_tick();
        self.look_for_absent();
        self.step_loads();
        if let Some(router) = &mut self.router {
            router.tick(now);
        }
        for target in self.routers.values_mut() {
            target.tick(now);
        }
        self.settle();
    }

    /// What carried what: all that are due every 50 ms, some of them each tick, so that nothing else waits long for it.
    fn look(&mut self, now: u64) {
        if self.looks.is_done() && self.looks.since.elapsed() >= USE_EVERY {
            let children = self.ike.as_mut().map(|ike| ike.in_turn(TOLD_EVERY)).unwrap_or_default();
            self.looks = Looks::begin(self.sas.in_turn(), children);
            self.look_at_tap_mtu();
            self.tell_drops();
        }
        if !self.looks.is_done() {
            let (sas, children) = self.looks.part();
            let genuine = self.look_at_use(&sas, now);
            self.look_at_children(genuine, children);
        }
    }

    /// Something that the router's state machine takes as it is.
    fn with_router(&mut self, act: impl FnOnce(&mut RouterCluster)) {
        if let Some(router) = &mut self.router {
            act(router);
        }
    }

    /// Something that may be refused: then it changed nothing.
    fn as_router(&mut self, act: impl FnOnce(&mut RouterCluster) -> Result<(), ClusterError>) {
        self.with_router(|router| {
            if let Err(error) = act(router) {
                tracing::warn!(%error, "a message of a target was refused");
            }
        });
    }

    fn with_target_of(&mut self, node: &NodeName, act: impl FnOnce(&mut TargetCluster)) {
        if let Some(target) = self.routers.get_mut(node) {
            act(target);
        }
    }

    fn as_target_of(&mut self, node: &NodeName, act: impl FnOnce(&mut TargetCluster) -> Result<(), ClusterError>) {
        self.with_target_of(node, |target| {
            if let Err(error) = act(target) {
                tracing::warn!(router = %node, %error, "a message of the router was refused");
            }
        });
    }

    /// Does all that the state machines want, until they want nothing more.
    pub(super) fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.router.as_mut().and_then(RouterCluster::poll_output) {
                self.router_output(output);
                idle = false;
            }
            let routers: Vec<NodeName> = self.routers.keys().cloned().collect();
            for node in routers {
                while let Some(output) = self.routers.get_mut(&node).and_then(TargetCluster::poll_output) {
                    self.target_output(&node, output);
                    idle = false;
                }
            }
            idle &= !self.ike_settle();
            if idle {
                return self.make_rules();
            }
        }
    }

    /// All cores have answered an order.
    pub(super) fn finished(&mut self, finished: Finished) {
        let now = self.now();
        if let Purpose::Rules(waiting) = finished.purpose {
            return self.rules_given(waiting, finished.result);
        }
        if let Purpose::Connection(node, record) = &finished.purpose {
            return self.connection_opened(node, *record, finished.result);
        }
        let result = finished.result.map_err(|refused| refused.to_string());
        match finished.purpose {
            Purpose::Rules(_) | Purpose::Connection(..) => {}
            Purpose::Router(request) => self.with_router(|router| router.local_done(request, result, now)),
            Purpose::Target(node, request) => {
                self.with_target_of(&node, |target| target.core_done(request, result));
            }
            Purpose::Nobody(what) => {
                if let Err(refused) = result {
                    tracing::warn!(what, refused, "a core refused");
                }
            }
        }
    }

    /// Sends one piece of work to cores.
    pub(super) fn submit(&mut self, purpose: Purpose, commands: Vec<(CoreId, Command)>) {
        if self.waits_for_rules() {
            let token = self.cores.submit_held(purpose, commands);
            self.wait_for_rules(token);
        } else if let Some(finished) = self.cores.submit(purpose, commands) {
            self.finished(finished);
        }
    }

    /// The core of our end of the link and the way to a target.
    pub(super) fn way_to(&self, target: TargetId, core: CoreId) -> Option<LinkEnd> {
        let name = self.numbering.name(target)?;
        if **name == *self.config.node.name {
            return Some(LinkEnd::Ring(core));
        }
        if let Some(port) = self.memif_to(name) {
            return Some(LinkEnd::Memif(port, core));
        }
        let theirs = &self.config.cluster.nodes.iter().find(|n| *n.name == **name)?.links;
        theirs.iter().find_map(|&remote| Some(LinkEnd::Gre(self.gre_to(remote)?, core)))
    }

    /// Our memif port that leads to a node, if it is another process of this box.
    pub(super) fn memif_to(&self, node: &str) -> Option<usize> {
        self.config.cluster.nodes.iter().find(|n| n.name == node)?.memif
    }

    /// Our end of a link to that address.
    pub(super) fn gre_to(&self, remote: std::net::IpAddr) -> Option<phalanx_dataplane::command::GreEnd> {
        let links = self.config.ports.iter().enumerate().filter(|(_, p)| p.role == crate::config::PortRole::Link);
        let mut ends = links.flat_map(|(port, p)| p.addresses.iter().map(move |net| (port, net)));
        let (port, net) = ends.find(|(_, net)| net.contains(&remote))?;
        Some(phalanx_dataplane::command::GreEnd { port, local: net.addr(), remote })
    }

    /// The targets of a VIP as its router core is to know them now.
    pub(super) fn target_entries(&self, vip: VipId) -> Vec<TargetEntry> {
        let Some(router) = &self.router else { return Vec::new() };
        let rules = self.rules(vip);
        let eligible = router.eligible(vip, None);
        let own = self.cores.targets().first().copied().unwrap_or(CoreId(0));
        let entries = router.members().into_iter().flat_map(|member| {
            let core = member.cores.first().copied().unwrap_or(own);
            member.targets.into_iter().map(move |id| (id, core))
        });
        let entries = entries.filter(|(id, _)| rules.iter().any(|rule| rule.targets.contains(id)));
        let entry = |(id, core)| {
            Some(TargetEntry {
                id,
                link: self.way_to(id, core)?,
                eligible: eligible.contains(&id),
                draining: router.drains(id, vip),
                weight: self.weight(vip, id),
            })
        };
        entries.filter_map(entry).collect()
    }

    /// Runs a request to the coupling facility beside this task; its answer comes back as an input.
    pub(super) fn ask_store<F, T>(
        &self,
        ask: impl FnOnce(Arc<Embedded>) -> F,
        answer: impl FnOnce(T) -> Input + Send + 'static,
    ) where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let Some(store) = self.store.clone() else { return };
        let (asked, inputs) = (ask(store), self.inputs.clone());
        tokio::spawn(async move {
            let _ = inputs.send(answer(asked.await)).await;
        });
    }

    /// `fetch_add` at the coupling facility (R18).
    pub(super) fn ask_grant(&self, wanted: phalanx_cluster::sequencer::GrantWanted) {
        let sa = wanted.sa;
        self.ask_store(
            move |store| async move { store.fetch_add(&wanted.key, wanted.n, wanted.limit).await },
            move |result| Input::Granted(sa, result),
        );
    }

    /// `raise` at the coupling facility.
    pub(super) fn ask_raise(
        &self,
        key: Arc<str>,
        to: u64,
        answer: impl FnOnce(Result<u64, CouplingError>) -> Input + Send + 'static,
    ) {
        self.ask_store(move |store| async move { store.raise(&key, to).await }, answer);
    }

    /// Puts a VIP on the TAP or takes it off.
    pub(super) fn on_tap(&mut self, vip: std::net::IpAddr, on: bool) {
        let result = if on { self.tap.add(vip) } else { self.tap.remove(vip) };
        if let Err(error) = result {
            self.warn(format!("VIP {vip} on the application port: {error}"));
        }
    }

    /// Something for the operator: in the log and in `status`, the latest few.
    pub(super) fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
        let over = self.warnings.len().saturating_sub(20);
        self.warnings.drain(..over);
    }
}
