//! A router and its targets with a perfect network and obedient cores between them, on a virtual clock.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use phalanx_cluster::{
    CouplingError, NodeName, ReportPolicy, RouterCluster, RouterConfig, RouterOutput, RouterTimes, SaPair,
    SequencerConfig, TargetCluster, TargetConfig, TargetOutput, TargetPlan, ToRouter, ToTarget, VipDef, VipPlan,
};
use phalanx_ipsec::{Algorithm, Direction, Lifesize, Mode, Prefix, SaParams, SecretKey, Selectors, TunnelName};
use phalanx_wire::{CoreId, Endpoint, Epoch, Flow, PeerId, SaId, Spi, TargetId, VipId};

pub const VIP: VipId = VipId(1);
pub const PEER: PeerId = PeerId(9);
pub const MS: u64 = 1000;

pub fn vip_address(vip: VipId) -> IpAddr {
    IpAddr::from([10, 77, 0, 100 + vip.0 as u8])
}

pub fn sa(id: u64, vip: VipId, direction: Direction) -> Arc<SaParams> {
    let remote: IpAddr = "10.77.0.10".parse().unwrap();
    let local = vip_address(vip);
    let params = SaParams {
        id: SaId(id),
        direction,
        vip,
        peer: PEER,
        tunnel: TunnelName::new("client").unwrap(),
        spi: Spi(0x1000 + id as u32),
        mode: Mode::Tunnel { local, remote },
        local,
        remote,
        algorithm: Algorithm::Aes128Gcm16,
        key: SecretKey::new(Algorithm::Aes128Gcm16, &[id as u8; 20]).unwrap(),
        esn: true,
        window: 64,
        selectors: Selectors::between(Prefix::host(local), Prefix::ANY_V4),
        lifesize: Lifesize { soft: 10_000, hard: 20_000 },
        path_mtu: 1500,
        mss_clamp: phalanx_ipsec::MssClamp::None,
        copy_dscp: true,
        ecn: true,
        encap: None,
        within: None,
    };
    Arc::new(params)
}

/// The inbound SA has number `2 * n`, the outbound one `2 * n + 1`.
pub fn pair(n: u64, vip: VipId) -> SaPair {
    SaPair {
        inbound: sa(2 * n, vip, Direction::Inbound),
        outbound: sa(2 * n + 1, vip, Direction::Outbound),
        filters: Vec::new(),
        ceiling: 0,
        reached: 0,
        keepalive_us: 0,
        early: false,
        waits: false,
    }
}

pub fn flow(port: u16) -> Flow {
    let remote = Endpoint::new("10.99.0.10".parse().unwrap(), port);
    Flow { protocol: 6, local: Endpoint::new(vip_address(VIP), 80), remote }
}

pub fn vip(id: VipId, targets: &[u16]) -> VipPlan {
    let def = VipDef {
        vip: id,
        address: vip_address(id),
        prefix_len: 32,
        epoch: Epoch(1),
        router_link: vec!["10.78.0.1".parse().unwrap()],
        filters: Vec::new(),
        filter_at_router: false,
    };
    VipPlan { def, targets: targets.iter().copied().map(TargetId).collect() }
}

pub fn router_config(incarnation: u64, targets: u16, vips: Vec<VipPlan>) -> RouterConfig {
    let plan = |n: u16| TargetPlan { id: TargetId(n), node: name(n), core: None };
    RouterConfig {
        node: "r1".into(),
        incarnation,
        targets: (1..=targets).map(plan).collect(),
        vips,
        sequencer: SequencerConfig::default(),
        times: RouterTimes::default(),
    }
}

pub fn name(n: u16) -> NodeName {
    format!("t{n}").into()
}

pub fn target_config(n: u16, incarnation: u64) -> TargetConfig {
    TargetConfig {
        node: name(n),
        incarnation,
        router: "r1".into(),
        link_mtu: 1600,
        cores: vec![CoreId(0)],
        reports: ReportPolicy::default(),
        lease_retry_us: 50 * MS,
        sas_max: 100,
    }
}

/// The whole cluster. What the machines want done beyond the network and the cores is kept for the tests to look at.
pub struct World {
    pub now: u64,
    pub router: RouterCluster,
    pub targets: BTreeMap<NodeName, TargetCluster>,
    pub up: BTreeMap<NodeName, bool>,
    pub counters: BTreeMap<String, u64>,
    pub log: Vec<RouterOutput>,
    pub target_log: Vec<(NodeName, TargetOutput)>,
    /// Every message, in the order of sending.
    pub to_targets: Vec<(NodeName, ToTarget)>,
    pub to_router: Vec<(NodeName, ToRouter)>,
    /// Nodes whose cores do not answer.
    pub deaf: Vec<NodeName>,
    /// Nodes whose cores fail.
    pub failing: Vec<NodeName>,
    pub local_deaf: bool,
    pub store_down: bool,
    pub held: VecDeque<(NodeName, u64)>,
    pub connections: BTreeMap<NodeName, Vec<phalanx_cluster::ConnRecord>>,
    pub windows: BTreeMap<NodeName, Vec<phalanx_cluster::WindowRecord>>,
    /// Gathering takes until the test says so.
    pub slow_gather: bool,
    pub gathers: Vec<(NodeName, u64)>,
}

impl World {
    pub fn new(config: RouterConfig, targets: u16) -> Self {
        let all = (1..=targets).map(|n| (name(n), TargetCluster::new(target_config(n, u64::from(n)))));
        let mut world = Self {
            now: 1_000_000,
            router: RouterCluster::new(config, 1_000_000),
            targets: all.collect(),
            up: BTreeMap::new(),
            counters: BTreeMap::new(),
            log: Vec::new(),
            target_log: Vec::new(),
            to_targets: Vec::new(),
            to_router: Vec::new(),
            deaf: Vec::new(),
            failing: Vec::new(),
            local_deaf: false,
            store_down: false,
            held: VecDeque::new(),
            connections: BTreeMap::new(),
            windows: BTreeMap::new(),
            slow_gather: false,
            gathers: Vec::new(),
        };
        world.settle();
        world
    }

    /// Two targets, one VIP, one pair of SAs, everything up.
    pub fn ready() -> Self {
        let mut world = Self::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
        world.add(pair(1, VIP));
        world.connect(1);
        world.connect(2);
        world
    }

    pub fn add(&mut self, pair: SaPair) {
        self.router.add_sa(pair, self.now).unwrap();
        self.settle();
    }

    pub fn connect(&mut self, n: u16) {
        self.up.insert(name(n), true);
        self.router.connected(&name(n), self.now).unwrap();
        let now = self.now;
        self.target(n).connected(now);
        self.settle();
    }

    pub fn disconnect(&mut self, n: u16) {
        self.up.insert(name(n), false);
        let now = self.now;
        self.target(n).disconnected(now);
        self.router.disconnected(&name(n), "pulled", now).unwrap();
        self.settle();
    }

    pub fn target(&mut self, n: u16) -> &mut TargetCluster {
        self.targets.get_mut(&name(n)).unwrap()
    }

    /// The router dies and comes back with another boot; the store and the targets live on.
    pub fn restart_router(&mut self, config: RouterConfig, pairs: Vec<SaPair>) {
        for node in self.targets.keys().cloned().collect::<Vec<_>>() {
            if self.up.insert(node.clone(), false) == Some(true) {
                self.targets.get_mut(&node).unwrap().disconnected(self.now);
            }
        }
        self.router = RouterCluster::new(config, self.now);
        for mut pair in pairs {
            let key = phalanx_cluster::keys::ceiling(&pair.inbound.key.fingerprint());
            pair.ceiling = self.counters.get(&key).copied().unwrap_or(0);
            let key = phalanx_cluster::keys::reached(&pair.inbound.key.fingerprint());
            pair.reached = self.counters.get(&key).copied().unwrap_or(0);
            self.router.add_sa(pair, self.now).unwrap();
        }
        self.settle();
    }

    pub fn advance(&mut self, us: u64) {
        let end = self.now + us;
        loop {
            let targets = self.targets.values().filter_map(TargetCluster::next_deadline);
            let next = targets.chain(self.router.next_deadline()).min().unwrap_or(end).max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            self.tick();
            if next == end {
                break;
            }
            self.now += 1;
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.router.tick(self.now);
        for target in self.targets.values_mut() {
            target.tick(self.now);
        }
        self.settle();
    }

    pub fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.router.poll_output() {
                idle = false;
                self.router_output(output);
            }
            let nodes: Vec<NodeName> = self.targets.keys().cloned().collect();
            for node in nodes {
                while let Some(output) = self.targets.get_mut(&node).unwrap().poll_output() {
                    idle = false;
                    self.target_output(&node, output);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn router_output(&mut self, output: RouterOutput) {
        let now = self.now;
        match output {
            RouterOutput::Send { node, message } => {
                self.to_targets.push((node.clone(), message.clone()));
                if self.up.get(&node) == Some(&true) {
                    self.targets.get_mut(&node).unwrap().handle(message, now).unwrap();
                }
            }
            RouterOutput::InstallLocal { request, .. } | RouterOutput::RemoveLocal { request, .. }
                if !self.local_deaf =>
            {
                self.log.push(output);
                self.router.local_done(request, Ok(()), now);
            }
            RouterOutput::GrantWanted(wanted) => {
                let result = if self.store_down {
                    Err(CouplingError::Unavailable("down".to_owned()))
                } else {
                    let counter = self.counters.entry(wanted.key.to_string()).or_default();
                    let range = phalanx_cluster::coupling::advance(*counter, wanted.n, wanted.limit);
                    *counter = range.end;
                    Ok(range)
                };
                self.router.granted(wanted.sa, result, now);
            }
            RouterOutput::RaiseCeiling { sa, ref key, to } => {
                let result = self.raise(key, to);
                self.log.push(output);
                self.router.ceiling_raised(sa, result);
            }
            RouterOutput::RaiseReached { sa, ref key, to } => {
                let result = self.raise(key, to);
                self.log.push(output);
                self.router.reached_raised(sa, result);
            }
            RouterOutput::Burn { ref key, .. } => {
                let _ = self.raise(key, u64::MAX);
                self.log.push(output);
            }
            output => self.log.push(output),
        }
    }

    fn raise(&mut self, key: &str, to: u64) -> Result<u64, CouplingError> {
        if self.store_down {
            return Err(CouplingError::Unavailable("down".to_owned()));
        }
        let counter = self.counters.entry(key.to_owned()).or_default();
        *counter = (*counter).max(to);
        Ok(*counter)
    }

    fn target_output(&mut self, node: &NodeName, output: TargetOutput) {
        let now = self.now;
        match output {
            TargetOutput::Send(message) => {
                self.to_router.push((node.clone(), message.clone()));
                if self.up.get(node) == Some(&true) {
                    self.router.handle(node, message, now).unwrap();
                }
            }
            TargetOutput::Gather { token } if self.slow_gather => self.gathers.push((node.clone(), token)),
            TargetOutput::Gather { token } => self.gathered(node, token),
            TargetOutput::InstallVip { request, .. }
            | TargetOutput::InstallSa { request, .. }
            | TargetOutput::RemoveVip { request, .. }
            | TargetOutput::RemoveSa { request, .. } => {
                self.target_log.push((node.clone(), output));
                if self.deaf.contains(node) {
                    self.held.push_back((node.clone(), request));
                } else {
                    let failed = self.failing.contains(node);
                    let result = if failed { Err("the table is full".to_owned()) } else { Ok(()) };
                    self.targets.get_mut(node).unwrap().core_done(request, result);
                }
                // Its host is looked at for the VIP from then on.
                if let Some((_, TargetOutput::InstallVip { vip, .. })) = self.target_log.last() {
                    let (vip, target) = (vip.vip, self.targets.get_mut(node).unwrap());
                    if target.listens(vip).is_none() {
                        target.listening(vip, vec![80], Vec::new());
                    }
                }
            }
            output => self.target_log.push((node.clone(), output)),
        }
    }

    pub fn gathered(&mut self, node: &NodeName, token: u64) {
        let connections = self.connections.get(node).cloned().unwrap_or_default();
        let windows = self.windows.get(node).cloned().unwrap_or_default();
        self.targets.get_mut(node).unwrap().gathered(token, connections, windows, self.now);
    }

    /// Cores that did not answer do so now.
    pub fn release(&mut self) {
        for (node, request) in std::mem::take(&mut self.held) {
            self.targets.get_mut(&node).unwrap().core_done(request, Ok(()));
        }
        self.settle();
    }

    pub fn log_position(&self, find: impl Fn(&RouterOutput) -> bool) -> Option<usize> {
        self.log.iter().position(find)
    }

    pub fn is_ready(&self, sa: u64) -> bool {
        self.log.iter().any(|output| matches!(output, RouterOutput::SaReady { sa: of, .. } if of.0 == sa))
    }
}
