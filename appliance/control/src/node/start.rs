//! Starting a node; see the order in [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use phalanx_cluster::{
    CouplingError, CouplingFacility, NodeName, ReportPolicy, RouterCluster, RouterConfig, RouterTimes, SaPair,
    SequencerConfig, TargetCluster, TargetConfig, keys,
};
use phalanx_dataplane::{Dataplane, EventReceiver};
use phalanx_fabric::{
    Client, ClientConfig, ClientEvent, ClientHandle, Embedded, Server, ServerConfig, ServerEvent, TlsFiles,
};
use phalanx_wire::CoreId;
use tokio::sync::mpsc;

use super::books::{FilterBook, SaBook};
use super::brain::{Brain, Input, Phase, Ways};
use super::cores::Cores;
use super::dumps::Dumps;
use super::ike::{Bell, Ike};
use super::listeners::Loads;
use super::lookout::{Lookout, View};
use super::looks::Looks;
use super::plan::{self, Numbering};
use super::reload::Wanted;
use super::tap::Tap;
use super::{COURIER_NAP, NodeError};
use crate::config::{Config, PortRole};

/// What the fabric may have waiting for the brain.
const SESSION_EVENTS: usize = 4096;

pub(super) async fn node(
    config: Config,
    version: &'static str,
    inputs: mpsc::Sender<Input>,
) -> Result<Brain, NodeError> {
    let store = if config.vips.is_empty() { None } else { Some(Arc::new(Embedded::open(store_path(&config))?)) };
    let coupling = match &store {
        Some(store) => format!("embedded, store {:016x}", store.incarnation().await?),
        None => "none: this node owns no VIP".to_owned(),
    };
    let mut tap = Tap::isolate(&config)?;
    let dataplane = Dataplane::start(&plan::dataplane(&config))?;
    tap.open()?;

    let numbering = Numbering::new(&config);
    let incarnation = random()?;
    let ways = Ways { targets: None, routers: BTreeMap::new() };
    let pairs = pairs(&config, store.as_deref()).await?;
    // The IVs of IKE's own messages begin with it: as long as the store is the same, no start has the number of another.
    let epoch = store.as_ref().map(|store| store.generation() as u32);
    let bell = epoch.map(|_| Bell::new());
    let mut brain = Brain {
        started: Instant::now(),
        incarnation,
        no_huge: !dataplane.has_huge_pages(),
        stats: stats(&dataplane),
        cores: cores(&config, &dataplane),
        sas: SaBook::default(),
        filters: FilterBook::default(),
        rules_due: super::rules::RulesDue::new(),
        vips: BTreeMap::new(),
        router: None,
        ike: None,
        routers: BTreeMap::new(),
        ways,
        store,
        coupling,
        version,
        tap,
        dumps: Dumps::default(),
        inputs: inputs.clone(),
        looks: Looks::default(),
        drops_told: Instant::now(),
        heard: BTreeMap::new(),
        absent: BTreeMap::new(),
        lookout: None,
        loads: Loads::default(),
        wanted: Wanted::default(),
        warnings: dataplane.warning().map(ToOwned::to_owned).into_iter().collect(),
        phase: Phase::Starting,
        watching: Default::default(),
        capturing: false,
        courier: Courier::start(dataplane.events(), bell.clone(), inputs.clone())?,
        dataplane,
        numbering,
        config,
    };
    for warning in &brain.warnings {
        tracing::warn!("{warning}");
    }
    brain.look_out()?;
    brain.become_target();
    brain.become_router(pairs)?;
    if let (Some(epoch), Some(bell)) = (epoch, bell) {
        let peers = plan::ike(&brain.config, &brain.wanted.down);
        brain.ike = Some(Ike::new(peers, epoch, bell));
        brain.ike_configure();
    }
    serve_targets(&mut brain, inputs.clone()).await?;
    dial_routers(&mut brain, inputs).await?;
    Ok(brain)
}

fn stats(dataplane: &Dataplane) -> Vec<(CoreId, Arc<phalanx_dataplane::CoreStats>)> {
    dataplane.cores().filter_map(|core| Some((core, dataplane.stats(core)?))).collect()
}

fn cores(config: &Config, dataplane: &Dataplane) -> Cores {
    let core = |(at, core): (usize, &crate::config::Core)| {
        let id = CoreId(at as u16);
        Some((id, core.router, core.target, dataplane.commands(id)?))
    };
    Cores::new(config.cores.iter().enumerate().filter_map(core))
}

/// The static SAs with the ceilings that the store remembers.
async fn pairs(config: &Config, store: Option<&Embedded>) -> Result<Vec<SaPair>, NodeError> {
    let mut pairs = plan::pairs(config)?;
    if let Some(store) = store {
        for pair in &mut pairs {
            remember(pair, store).await?;
        }
    }
    Ok(pairs)
}

/// Gives a pair what the store remembers of its inbound SA.
pub(super) async fn remember(pair: &mut SaPair, store: &Embedded) -> Result<(), CouplingError> {
    let key = pair.inbound.key.fingerprint();
    pair.ceiling = store.read(&keys::ceiling(&key)).await?;
    pair.reached = store.read(&keys::reached(&key)).await?;
    Ok(())
}

impl Brain {
    /// One counterpart for each router we obey, ourselves among them if we serve our own VIPs.
    fn become_target(&mut self) {
        if self.cores.targets().is_empty() {
            return;
        }
        for router in self.config.cluster.routers.clone() {
            self.obey(router.as_str().into());
        }
        if self.serves_itself() {
            self.obey(self.config.node.name.as_str().into());
        }
    }

    /// Begins to look at this host, if it can be a target.
    fn look_out(&mut self) -> Result<(), NodeError> {
        let (config, targets) = (&self.config, self.cores.targets());
        let tap = config.ports.iter().find(|p| p.role == PortRole::Application).and_then(|p| p.device.netdev());
        let view = View {
            tap: tap.map(ToOwned::to_owned),
            polled: config.cores.iter().map(|core| core.cpu).collect(),
            cores: self.stats.iter().filter(|(id, _)| targets.contains(id)).map(|(_, stats)| stats.clone()).collect(),
            load_file: config.node.load_file.clone(),
        };
        if !targets.is_empty() {
            self.lookout = Some(Lookout::start(view, self.inputs.clone())?);
        }
        Ok(())
    }

    /// Whether a VIP of ours has this node among its targets.
    fn serves_itself(&self) -> bool {
        let own = self.numbering.id(&self.config.node.name);
        let targets = self.planned_vips().into_iter().flat_map(|vip| vip.targets);
        !self.cores.targets().is_empty() && targets.into_iter().any(|id| Some(id) == own)
    }

    /// Our counterpart for a router.
    fn obey(&mut self, router: NodeName) {
        let link_mtu = self.config.ports.iter().filter(|p| p.role == PortRole::Link).filter_map(|p| p.mtu).max();
        let config = TargetConfig {
            node: self.config.node.name.as_str().into(),
            incarnation: self.incarnation,
            router: router.clone(),
            link_mtu: link_mtu.unwrap_or(0),
            cores: self.cores.targets(),
            // Windows travel with use: what a router does not know yet is what a death of this node can leave open.
            reports: ReportPolicy { packets: 512, interval_us: 100_000, ..ReportPolicy::default() },
            lease_retry_us: 50_000,
            sas_max: self.config.limits.sas as usize,
        };
        self.routers.insert(router, TargetCluster::new(config));
    }

    /// If a VIP has this node among its targets, as none had before.
    pub(super) fn become_own_target(&mut self) {
        let own: NodeName = self.config.node.name.as_str().into();
        if self.serves_itself() && !self.routers.contains_key(&own) {
            self.obey(own);
            self.attach_to_itself();
        }
    }

    fn attach_to_itself(&mut self) {
        let own: NodeName = self.config.node.name.as_str().into();
        if self.routers.contains_key(&own) {
            self.handle(Input::TargetConnected(own.clone()));
            self.handle(Input::RouterConnected(own));
        }
    }

    /// VIPs, then SAs, then our own targets: nobody attaches before all is there.
    fn become_router(&mut self, pairs: Vec<SaPair>) -> Result<(), NodeError> {
        if self.config.vips.is_empty() {
            return Ok(());
        }
        let config = RouterConfig {
            node: self.config.node.name.as_str().into(),
            incarnation: self.incarnation,
            targets: self.numbering.targets(),
            vips: plan::vips(&self.config, &self.numbering)?,
            sequencer: SequencerConfig::default(),
            times: RouterTimes {
                path_mtu_us: u64::from(self.config.limits.path_mtu_age) * 1_000_000,
                ..RouterTimes::default()
            },
        };
        let rules: Vec<_> = config.vips.iter().map(|vip| (vip.def.vip, vip.def.filters.clone())).collect();
        let now = self.now();
        self.router = Some(RouterCluster::new(config, now));
        self.open_vips();
        for (vip, rules) in rules {
            self.set_rules(super::books::RuleSource::Vip(vip), rules);
        }
        self.open_sas(pairs);
        self.attach_to_itself();
        Ok(())
    }
}

fn tls(config: &Config) -> Option<TlsFiles> {
    let tls = config.cluster.tls.as_ref()?;
    Some(TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), ca: tls.ca.clone() })
}

/// Lets targets attach, if we own VIPs and have an address for it.
async fn serve_targets(brain: &mut Brain, inputs: mpsc::Sender<Input>) -> Result<(), NodeError> {
    let config = &brain.config;
    let (Some(listen), Some(tls), Some(_)) = (config.cluster.listen, tls(config), &brain.router) else { return Ok(()) };
    let (events, mut received) = mpsc::channel(SESSION_EVENTS);
    let nodes = config.cluster.nodes.iter().map(|n| n.name.clone()).collect();
    let server = ServerConfig { listen, tls, nodes, cluster: config.cluster.name.clone() };
    brain.ways.targets = Some(Server::start(server, events).await?);
    tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            let input = match event {
                ServerEvent::Connected(node) => Input::TargetConnected(node),
                ServerEvent::Disconnected(node, why) => Input::TargetDisconnected(node, why),
                ServerEvent::Message(node, message) => Input::FromTarget(node, message),
            };
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Keeps a session with each router that this node obeys.
async fn dial_routers(brain: &mut Brain, inputs: mpsc::Sender<Input>) -> Result<(), NodeError> {
    let config = &brain.config;
    let mut routers: BTreeMap<NodeName, ClientHandle> = BTreeMap::new();
    for name in brain.routers.keys().filter(|name| ***name != *config.node.name) {
        let node = config.cluster.nodes.iter().find(|n| *n.name == **name);
        let (Some(address), Some(tls)) = (node.and_then(|n| n.address), tls(config)) else { continue };
        let (events, mut received) = mpsc::channel(SESSION_EVENTS);
        let client = ClientConfig {
            router: name.clone(),
            address,
            tls,
            cluster: config.cluster.name.clone(),
            node: config.node.name.as_str().into(),
        };
        routers.insert(name.clone(), Client::start(client, events).await?);
        let inputs = inputs.clone();
        tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                let input = match event {
                    ClientEvent::Connected(node) => Input::RouterConnected(node),
                    ClientEvent::Disconnected(node, why) => Input::RouterDisconnected(node, why),
                    ClientEvent::Message(node, message) => Input::FromRouter(node, message),
                };
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
        });
    }
    brain.ways.routers = routers;
    Ok(())
}

/// Carries the cores' events to the brain: a thread of its own, because a poll core can wake nobody.
pub struct Courier {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Courier {
    fn start(mut events: EventReceiver, bell: Option<Bell>, inputs: mpsc::Sender<Input>) -> std::io::Result<Courier> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("phalanx-courier".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if bell.as_ref().is_some_and(Bell::ring) && inputs.blocking_send(Input::IkeHeard).is_err() {
                    return;
                }
                let Some(event) = events.try_recv() else {
                    std::thread::sleep(COURIER_NAP);
                    continue;
                };
                if inputs.blocking_send(Input::Core(event)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Courier { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It naps for 100 µs at most, unless the brain does not read: then nobody waits for it.
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
    }
}

/// Where the embedded coupling store of a node is.
pub fn store_path(config: &Config) -> std::path::PathBuf {
    config.node.state_dir.join("coupling.redb")
}

fn random() -> Result<u64, std::io::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}
