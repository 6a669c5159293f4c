//! The router's side of the cluster: membership of its targets, distribution of VIPs and SAs with acknowledgements
//! (R2, R6, I4), numbers (R18), lifesize (R21), windows and connections of its targets (ARCHITECTURE, "Inbound replay").
//!
//! sans-IO: everything that happens is a call with the time in µs; everything to be done comes out of
//! [`RouterCluster::poll_output`] in the order in which to do it; [`RouterCluster::tick`] at
//! [`RouterCluster::next_deadline`]. Static SAs are added before the first target connects: what a target holds and
//! the router does not know is removed from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use phalanx_wire::{SaId, TargetId, VipId};

use crate::ceiling::{Ceiling, Reached};
use crate::error::ClusterError;
use crate::ledger::{Crossed, Ledger, Use};
use crate::messages::{Drained, Hello, NodeName, SaReport, ToRouter, ToTarget, VERSION, WindowRecord};
use crate::outputs::{RouterConfig, RouterOutput, RouterTimes, VipPlan};
use crate::sequencer::Sequencer;

mod gather;
mod leases;
mod member;
mod pairs;
mod path_mtu;
mod peers;
mod vips;

pub use member::{Listened, MemberState, MemberStatus};
pub use pairs::{PairPhase, PairStatus};

use member::Member;
use pairs::Pair;

/// A VIP and how far its start came.
#[derive(Debug)]
struct Vip {
    plan: VipPlan,
    settled: bool,
}

/// A router. See the module.
#[derive(Debug)]
pub struct RouterCluster {
    node: crate::messages::NodeName,
    incarnation: u64,
    times: RouterTimes,
    settle_at: u64,
    members: Vec<Member>,
    vips: BTreeMap<VipId, Vip>,
    pairs: BTreeMap<SaId, Pair>,
    /// From an outbound SA to its pair.
    outbound: BTreeMap<SaId, SaId>,
    ceilings: BTreeMap<SaId, Ceiling>,
    reached: BTreeMap<SaId, Reached>,
    /// Ceilings that the store did not take: at which number, and when to ask again.
    ceilings_failed: BTreeMap<SaId, u64>,
    ceilings_retry: Option<u64>,
    sequencer: Sequencer,
    ledger: Ledger,
    peers: peers::Peers,
    last_request: u64,
    /// Requests to the router's own cores: the pair each belongs to.
    local: BTreeMap<u64, SaId>,
    /// When pairs on their way in or out are not waited for any longer.
    due: BTreeSet<(u64, SaId)>,
    paths: path_mtu::Paths,
    outputs: VecDeque<RouterOutput>,
}

impl RouterCluster {
    /// A router that starts now.
    #[must_use]
    pub fn new(config: RouterConfig, now: u64) -> Self {
        let mut members: Vec<Member> = Vec::new();
        for plan in config.targets {
            let at = members.iter().position(|member| member.node == plan.node).unwrap_or(members.len());
            if at == members.len() {
                members.push(Member::new(plan.node));
            }
            members[at].ids.push((plan.core, plan.id));
        }
        let vips = config.vips.into_iter().map(|plan| (plan.def.vip, Vip { plan, settled: false })).collect();
        let mut router = Self {
            node: config.node,
            incarnation: config.incarnation,
            settle_at: now + config.times.settle_us,
            times: config.times,
            members,
            vips,
            pairs: BTreeMap::new(),
            outbound: BTreeMap::new(),
            ceilings: BTreeMap::new(),
            reached: BTreeMap::new(),
            ceilings_failed: BTreeMap::new(),
            ceilings_retry: None,
            sequencer: Sequencer::new(config.sequencer),
            ledger: Ledger::default(),
            peers: peers::Peers::default(),
            last_request: 0,
            local: BTreeMap::new(),
            due: BTreeSet::new(),
            paths: path_mtu::Paths::default(),
            outputs: VecDeque::new(),
        };
        router.settle(now);
        router
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<RouterOutput> {
        self.outputs.pop_front()
    }

    /// A session with this node began. It speaks first.
    ///
    /// # Errors
    /// [`ClusterError::UnknownNode`]: end the session.
    pub fn connected(&mut self, node: &str, now: u64) -> Result<(), ClusterError> {
        let at = self.member_of(node)?;
        if self.members[at].state != MemberState::Down {
            self.lost(at, "it connected again", now);
        }
        self.members[at].state = MemberState::Connected;
        Ok(())
    }

    /// The session ended. Nobody waits for that node any more.
    ///
    /// # Errors
    /// [`ClusterError::UnknownNode`].
    pub fn disconnected(&mut self, node: &str, reason: &str, now: u64) -> Result<(), ClusterError> {
        let at = self.member_of(node)?;
        self.lost(at, reason, now);
        Ok(())
    }

    /// A message from a node.
    ///
    /// # Errors
    /// The message is not to be believed and changed nothing.
    pub fn handle(&mut self, node: &str, message: ToRouter, now: u64) -> Result<(), ClusterError> {
        let at = self.member_of(node)?;
        let state = self.members[at].state;
        let in_turn = match &message {
            ToRouter::Hello(_) => state == MemberState::Connected,
            ToRouter::Gathered(_) => state == MemberState::Gathering,
            ToRouter::Beat => true,
            ToRouter::Draining(_) | ToRouter::Listening { .. } | ToRouter::Load(_) | ToRouter::Dropped(_) => {
                state >= MemberState::Gathering
            }
            _ => state >= MemberState::Joining,
        };
        if !in_turn {
            return Err(ClusterError::OutOfTurn { node: node.to_owned(), what: message.name() });
        }
        match message {
            ToRouter::Hello(hello) => self.hello(at, hello)?,
            ToRouter::Gathered(part) => self.gathered(at, part, now),
            ToRouter::Ack { request, error } => self.acknowledged(at, request, error, now),
            ToRouter::LeaseRequest(request) => self.lease_request(at, &request, now),
            ToRouter::Report(reports) => self.reports(at, reports),
            ToRouter::Notice(notice) => self.notice(at, notice),
            ToRouter::Listening { vip, ports, udp } => {
                if self.serves(at, vip) {
                    let (member, told) = (&mut self.members[at], Listened::new(ports, udp));
                    if member.listening.get(&vip).is_none_or(|known| known.tcp != told.tcp) {
                        self.outputs.push_back(RouterOutput::Listens { node: member.node.clone(), vip });
                    }
                    member.listening.insert(vip, told);
                    self.outputs.push_back(RouterOutput::EligibleChanged(vip));
                }
            }
            ToRouter::Load(permille) => {
                let node = self.members[at].node.clone();
                self.outputs.push_back(RouterOutput::Loaded { node, permille });
            }
            ToRouter::Draining(drained) => self.draining(at, drained),
            ToRouter::PeerMoved(told) => self.peer_seen(at, &told),
            // R2: who does not serve the VIP sends nothing from it.
            ToRouter::SaWanted { vip, tunnel } if self.serves(at, vip) => {
                self.outputs.push_back(RouterOutput::SaWanted { vip, tunnel });
            }
            ToRouter::SaWanted { .. } => {}
            ToRouter::ConnWanted { conn, sa } => self.conn_wanted(at, conn, sa),
            ToRouter::Dropped(reasons) => self.members[at].dropped = reasons,
            ToRouter::Beat => {}
        }
        self.pump(now);
        Ok(())
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        self.sequencer.expire(now);
        self.settle(now);
        self.overdue(now);
        self.retry_ceilings(now);
        self.age_paths(now);
        self.send_keepalives(now);
        self.pump(now);
    }

    /// When to call [`Self::tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let settle = self.vips.values().any(|vip| !vip.settled).then_some(self.settle_at);
        let paths = self.paths.next_deadline();
        let all = [settle, self.sequencer.next_deadline(), self.acks_deadline(), self.ceilings_retry, paths];
        all.into_iter().flatten().chain(self.peers.next_deadline()).min()
    }

    /// The targets that may be selected for a new connection to this VIP (and TCP port, when it is known): those that hold
    /// everything and told on which ports they listen (R25).
    #[must_use]
    pub fn eligible(&self, vip: VipId, port: Option<u16>) -> Vec<TargetId> {
        let Some(entry) = self.vips.get(&vip) else {
            return Vec::new();
        };
        let listens = |member: &Member| match (port, member.listening.get(&vip)) {
            (Some(port), Some(listened)) => listened.tcp.binary_search(&port).is_ok(),
            (None, listened) => listened.is_some(),
            (Some(_), None) => false,
        };
        let good = |member: &&Member| member.state == MemberState::Ready && !member.drains(vip) && listens(member);
        let ids = self.members.iter().filter(good).flat_map(|member| member.ids.iter().map(|(_, id)| *id));
        ids.filter(|id| entry.plan.targets.contains(id)).collect()
    }

    /// On which ports of a VIP a target listens (R25). `Err`: it did not tell yet; whether it is about to.
    ///
    /// # Errors
    /// See above.
    pub fn listened(&self, target: TargetId, vip: VipId) -> Result<&Listened, bool> {
        let member = self.members.iter().find(|member| member.ids.iter().any(|(_, id)| *id == target)).ok_or(false)?;
        member.listening.get(&vip).ok_or(member.state != MemberState::Down)
    }

    /// Whether a target gets no new connections for a VIP because it, or this router's operator, wants none.
    #[must_use]
    pub fn drains(&self, target: TargetId, vip: VipId) -> bool {
        self.members.iter().any(|member| member.ids.iter().any(|(_, id)| *id == target) && member.drains(vip))
    }

    /// All nodes.
    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        let status = |(at, member): (usize, &Member)| MemberStatus {
            node: member.node.clone(),
            targets: member.ids.iter().map(|(_, id)| *id).collect(),
            state: member.state,
            incarnation: member.incarnation,
            outstanding: member.outstanding.len(),
            error: member.outstanding.iter().find_map(|(_, open)| open.failed.as_ref().map(|(_, why)| why.clone())),
            drained: self.vips_of(at).into_iter().filter(|vip| member.draining.has(*vip)).collect(),
            ordered: member.ordered.iter().copied().collect(),
            link_mtu: member.link_mtu,
            cores: member.cores.clone(),
        };
        self.members.iter().enumerate().map(status).collect()
    }

    /// What an SA used on all nodes, as far as reported (R21).
    #[must_use]
    pub fn used(&self, sa: SaId) -> Option<Use> {
        self.ledger.total(sa)
    }

    /// The SAs that somebody used since this was last asked, as far as reported.
    pub fn take_used(&mut self) -> BTreeSet<SaId> {
        self.ledger.take_grown()
    }

    /// What the other nodes reported of an SA, each of its present boot.
    pub fn shares(&self, sa: SaId) -> impl Iterator<Item = (&NodeName, Use)> + '_ {
        let named = |(at, used)| Some((&self.members.get(usize::from(at))?.node, used));
        self.ledger.shares(sa).filter_map(named).filter(|(node, _)| **node != self.node)
    }

    /// What a node reported of all SAs since our boot.
    #[must_use]
    pub fn used_by(&self, node: &str) -> Use {
        self.member_of(node).map(|at| self.ledger.of_node(Self::index(at))).unwrap_or_default()
    }

    /// What the other nodes told that they dropped since their own boots, by the reason's name.
    pub fn dropped(&self) -> impl Iterator<Item = (&NodeName, &[(String, u64)])> + '_ {
        let others = self.members.iter().filter(|member| member.node != self.node && !member.dropped.is_empty());
        others.map(|member| (&member.node, &*member.dropped))
    }

    fn member_of(&self, node: &str) -> Result<usize, ClusterError> {
        let at = self.members.iter().position(|member| &*member.node == node);
        at.ok_or_else(|| ClusterError::UnknownNode(node.to_owned()))
    }

    /// A node's place, as the sequencer and the ledger know it.
    fn index(at: usize) -> u16 {
        // The configuration has at most 65,535 targets: a `TargetId` has 16 bits.
        u16::try_from(at).unwrap_or(u16::MAX - 1)
    }

    fn send(&mut self, at: usize, message: ToTarget) {
        self.outputs.push_back(RouterOutput::Send { node: self.members[at].node.clone(), message });
    }

    /// The VIPs that this node is a target of.
    fn vips_of(&self, at: usize) -> Vec<VipId> {
        let ids = &self.members[at].ids;
        let served = |vip: &&Vip| vip.plan.targets.iter().any(|target| ids.iter().any(|(_, id)| id == target));
        self.vips.values().filter(served).map(|vip| vip.plan.def.vip).collect()
    }

    fn serves(&self, at: usize, vip: VipId) -> bool {
        let Some(vip) = self.vips.get(&vip) else {
            return false;
        };
        vip.plan.targets.iter().any(|target| self.members[at].ids.iter().any(|(_, id)| id == target))
    }

    fn hello(&mut self, at: usize, hello: Hello) -> Result<(), ClusterError> {
        let node = self.members[at].node.clone();
        let refused = if hello.version != VERSION {
            Err(ClusterError::Version { node: node.to_string(), ours: VERSION, theirs: hello.version })
        } else if *hello.node != *node {
            Err(ClusterError::Name { certificate: node.to_string(), message: hello.node })
        } else {
            Ok(())
        };
        if let Err(error) = refused {
            self.outputs.push_back(RouterOutput::Disconnect { node, reason: error.to_string() });
            return Err(error);
        }
        let member = &mut self.members[at];
        if member.incarnation != hello.incarnation {
            member.last_notice = 0;
        }
        member.incarnation = hello.incarnation;
        member.link_mtu = hello.link_mtu;
        member.cores = hello.cores;
        member.state = MemberState::Gathering;
        let epochs = self.vips_of(at).into_iter().filter_map(|vip| Some((vip, self.vips.get(&vip)?.plan.def.epoch)));
        let welcome = ToTarget::Welcome {
            version: VERSION,
            node: self.node.to_string(),
            incarnation: self.incarnation,
            epochs: epochs.collect(),
        };
        self.send(at, welcome);
        for (_, target) in self.members[at].ids.clone() {
            self.outputs.push_back(RouterOutput::TargetUp { target });
        }
        Ok(())
    }

    fn reports(&mut self, at: usize, reports: Vec<SaReport>) {
        let incarnation = self.members[at].incarnation;
        let mut windows = Vec::new();
        for report in reports {
            let SaReport { packets, bytes, failed, replayed, .. } = report;
            let used = Use { packets, bytes, failed, replayed };
            match self.ledger.report(Self::index(at), incarnation, report.sa, used) {
                Some(Crossed::Soft) => self.outputs.push_back(RouterOutput::LifesizeSoft(report.sa)),
                Some(Crossed::Hard) => self.outputs.push_back(RouterOutput::LifesizeHard(report.sa)),
                None => {}
            }
            windows.extend(report.window.map(|snapshot| WindowRecord { sa: report.sa, snapshot }));
        }
        self.merge(at, windows);
    }

    /// What the router's own cores used, cumulative since its boot.
    pub fn local_use(&mut self, sa: SaId, used: Use) {
        match self.ledger.report(crate::sequencer::Holder::LOCAL, self.incarnation, sa, used) {
            Some(Crossed::Soft) => self.outputs.push_back(RouterOutput::LifesizeSoft(sa)),
            Some(Crossed::Hard) => self.outputs.push_back(RouterOutput::LifesizeHard(sa)),
            None => {}
        }
    }

    /// The operator's word about a node: no new connections for it, or its share again; for one VIP, or all it serves.
    /// It outlives the node's sessions and boots, not this router's. The VIPs it is about.
    ///
    /// # Errors
    /// [`ClusterError::UnknownNode`], [`ClusterError::UnknownVip`] when the node does not serve it.
    pub fn order_drain(&mut self, node: &str, vip: Option<VipId>, drain: bool) -> Result<Vec<VipId>, ClusterError> {
        let at = self.member_of(node)?;
        let about = match vip {
            Some(vip) if !self.serves(at, vip) => return Err(ClusterError::UnknownVip(vip)),
            Some(vip) => vec![vip],
            None => self.vips_of(at),
        };
        for vip in &about {
            if drain {
                self.members[at].ordered.insert(*vip);
            } else {
                self.members[at].ordered.remove(vip);
            }
        }
        self.outputs.extend(about.iter().copied().map(RouterOutput::EligibleChanged));
        Ok(about)
    }

    fn draining(&mut self, at: usize, drained: Drained) {
        self.members[at].draining = drained;
        let vips = self.vips_of(at);
        self.outputs.extend(vips.into_iter().map(RouterOutput::EligibleChanged));
    }

    fn lost(&mut self, at: usize, reason: &str, now: u64) {
        if self.members[at].state == MemberState::Down {
            return;
        }
        let was_up = self.members[at].state >= MemberState::Gathering;
        self.members[at].lost();
        self.sequencer.holder_gone(Self::index(at));
        if was_up {
            for (_, target) in self.members[at].ids.clone() {
                self.outputs.push_back(RouterOutput::TargetDown { target, reason: reason.to_owned() });
            }
            let vips: BTreeSet<VipId> = self.vips_of(at).into_iter().collect();
            self.outputs.extend(vips.into_iter().map(RouterOutput::EligibleChanged));
        }
        // It is not waited for any more.
        self.review_pairs(now);
        self.pump(now);
    }
}
