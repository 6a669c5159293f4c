//! A target's side of the cluster towards one router: what it was told to hold, acknowledged when its cores hold it
//! (R2, R4-R6), numbers (I1), reports of use (R21), notices of connections and windows (ARCHITECTURE, "Inbound replay").
//!
//! sans-IO like [`crate::RouterCluster`]. When the router is lost everything stays: SAs, VIPs, connections; numbers age
//! out. When a router comes back, it is told what is here before it installs anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use phalanx_ipsec::{Direction, SaParams, TunnelName};
use phalanx_wire::{CoreId, Epoch, SaId, VipId};

use crate::error::ClusterError;
use crate::lease_client::{Accepted, LeaseClient, Session, Want};
use crate::messages::{
    ConnRecord, Drained, Hello, Notice, PeerAt, RankedFilter, SaReport, ToRouter, ToTarget, VERSION, VipDef,
    WindowRecord,
};
use crate::outputs::{ReportPolicy, TargetConfig, TargetOutput};

/// Reports in one message.
const PART_REPORTS: usize = 64;
/// Notices that wait for the end of gathering; more of them and gathering starts anew.
const NOTICES_MAX: usize = 16_384;

mod held;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Greeting,
    Gathering(u64),
    Attached,
}

#[derive(Debug)]
struct HeldVip {
    def: VipDef,
    confirmed: bool,
}

#[derive(Debug)]
struct HeldSa {
    params: Arc<SaParams>,
    filters: Vec<RankedFilter>,
    confirmed: bool,
    reported: Reported,
    /// Outbound: its turn has not come.
    waits: bool,
    /// Its path MTU fell.
    lowered: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Reported {
    packets: u64,
    bytes: u64,
    at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    InstallVip(VipId),
    InstallSa(SaId),
    Remove,
}

/// A target, towards one router. See the module.
#[derive(Debug)]
pub struct TargetCluster {
    config: TargetConfig,
    state: State,
    router_incarnation: Option<u64>,
    /// The highest epoch ever seen of each VIP, from whatever router (I6).
    epochs: BTreeMap<VipId, Epoch>,
    vips: BTreeMap<VipId, HeldVip>,
    sas: BTreeMap<SaId, HeldSa>,
    leases: LeaseClient,
    /// What the cores are doing: our number for it, and the router's if that session still lasts.
    jobs: BTreeMap<u64, (Job, Option<u64>)>,
    last_job: u64,
    notices: VecDeque<Notice>,
    last_notice: u64,
    acked_notice: u64,
    /// TCP and UDP ports.
    listening: BTreeMap<VipId, (Vec<u16>, Vec<u16>)>,
    load: Option<u16>,
    draining: Drained,
    outputs: VecDeque<TargetOutput>,
}

impl TargetCluster {
    /// A target that has nothing.
    #[must_use]
    pub fn new(config: TargetConfig) -> Self {
        Self {
            leases: LeaseClient::new(config.lease_retry_us),
            config,
            state: State::Down,
            router_incarnation: None,
            epochs: BTreeMap::new(),
            vips: BTreeMap::new(),
            sas: BTreeMap::new(),
            jobs: BTreeMap::new(),
            last_job: 0,
            notices: VecDeque::new(),
            last_notice: 0,
            acked_notice: 0,
            listening: BTreeMap::new(),
            load: None,
            draining: Drained::Nothing,
            outputs: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<TargetOutput> {
        self.outputs.pop_front()
    }

    /// A session with the router began: we introduce ourselves.
    pub fn connected(&mut self, now: u64) {
        self.disconnected(now);
        self.state = State::Greeting;
        let hello = Hello {
            version: VERSION,
            node: self.config.node.to_string(),
            incarnation: self.config.incarnation,
            link_mtu: self.config.link_mtu,
            cores: self.config.cores.clone(),
        };
        self.send(ToRouter::Hello(hello));
    }

    /// The session ended. What is held stays.
    pub fn disconnected(&mut self, now: u64) {
        if self.state == State::Down {
            return;
        }
        self.state = State::Down;
        self.leases.lost(now);
        // The cores finish what they do, but nobody waits for it.
        for (_, request) in self.jobs.values_mut() {
            *request = None;
        }
        self.notices.clear();
        self.outputs.push_back(TargetOutput::RouterDown);
    }

    /// A message from the router.
    ///
    /// # Errors
    /// The message is not to be believed and changed nothing.
    pub fn handle(&mut self, message: ToTarget, now: u64) -> Result<(), ClusterError> {
        let in_turn = match &message {
            ToTarget::Welcome { .. } => self.state == State::Greeting,
            ToTarget::Beat => true,
            _ => self.state == State::Attached,
        };
        if !in_turn {
            return Err(ClusterError::OutOfTurn { node: self.config.router.to_string(), what: message.name() });
        }
        match message {
            ToTarget::Welcome { version, node, incarnation, epochs } => {
                self.welcome(version, node, incarnation, &epochs)?;
            }
            ToTarget::InstallVip { request, vip } => self.install_vip(request, vip),
            ToTarget::RemoveVip { request, vip } => self.remove_vip(request, vip),
            ToTarget::InstallSa { request, sa, filters, waits } => self.install_sa(request, sa, filters, waits),
            ToTarget::RemoveSa { request, sa } => self.remove_sa(request, sa),
            ToTarget::LeaseReply(reply) => self.lease_reply(&reply, now),
            ToTarget::PathMtu { sa, mtu } => self.path_mtu(sa, mtu),
            ToTarget::NoticeAck { id } => self.acked_notice = self.acked_notice.max(id),
            ToTarget::ConnAnswer { conn, refused } => {
                self.outputs.push_back(TargetOutput::ConnAnswer { conn, refused });
            }
            ToTarget::PeerMoved { vip, peer, remote } => {
                let theirs = self.sas.values().map(|held| &held.params).filter(|sa| sa.encap.is_some());
                let theirs =
                    theirs.filter(|sa| (sa.vip, sa.peer) == (vip, peer) && sa.remote.is_ipv4() == remote.is_ipv4());
                let sas = theirs.map(|sa| sa.id).collect();
                self.outputs.push_back(TargetOutput::PeerMoved { sas, remote });
            }
            ToTarget::Beat => {}
        }
        self.send_leases(now);
        Ok(())
    }

    /// The cores told what they hold, after [`TargetOutput::Gather`] with the same token.
    pub fn gathered(&mut self, token: u64, connections: Vec<ConnRecord>, windows: Vec<WindowRecord>, now: u64) {
        if self.state != State::Gathering(token) {
            return;
        }
        self.state = State::Attached;
        self.tell_held(connections, windows);
        for (vip, (ports, udp)) in self.listening.clone() {
            self.send(ToRouter::Listening { vip, ports, udp });
        }
        if let Some(load) = self.load {
            self.send(ToRouter::Load(load));
        }
        if self.draining != Drained::Nothing {
            self.send(ToRouter::Draining(self.draining.clone()));
        }
        for notice in std::mem::take(&mut self.notices) {
            self.send(ToRouter::Notice(notice));
        }
        self.send_leases(now);
    }

    /// A core wants numbers of an outbound SA, or (`want` 0) says what it is done with.
    pub fn lease_wanted(&mut self, core: CoreId, sa: SaId, want: Want, now: u64) {
        if self.sas.get(&sa).is_none_or(|held| held.params.direction != Direction::Outbound) {
            let refusal = crate::messages::LeaseRefusal::NoSuchSa;
            self.outputs.push_back(TargetOutput::LeaseRefused { core, sa, refusal });
            return;
        }
        self.leases.wanted(core, sa, want, now);
        self.send_leases(now);
    }

    /// Connections came or went; for those that went, their SAs' windows up to now.
    pub fn notice(&mut self, opened: Vec<ConnRecord>, closed: Vec<ConnRecord>, windows: Vec<WindowRecord>) {
        // Without a session there is nothing to say: what is here when one begins is told then.
        if !matches!(self.state, State::Gathering(_) | State::Attached) {
            return;
        }
        self.last_notice += 1;
        let notice = Notice { id: self.last_notice, opened, closed, windows };
        if self.state == State::Attached {
            self.send(ToRouter::Notice(notice));
        } else if self.notices.len() < NOTICES_MAX {
            self.notices.push_back(notice);
        } else {
            self.gather();
        }
    }

    /// A core opened a genuine packet whose source is not where its peer was. It tells again as long as nobody told it otherwise.
    pub fn peer_seen(&mut self, told: PeerAt) {
        if self.state == State::Attached {
            self.send(ToRouter::PeerMoved(told));
        }
    }

    /// The application wants to send through a negotiated tunnel that has no SA (R20). The cores tell again while it does.
    pub fn sa_wanted(&mut self, vip: VipId, tunnel: TunnelName) {
        if self.state == State::Attached {
            self.send(ToRouter::SaWanted { vip, tunnel });
        }
    }

    /// The application opens a connection, whose first packet waits (R20). Whether the router was asked: if not, nobody answers.
    pub fn conn_wanted(&mut self, conn: ConnRecord, sa: SaId) -> bool {
        let asked = self.state == State::Attached && self.vips.contains_key(&conn.vip);
        if asked {
            self.send(ToRouter::ConnWanted { conn, sa });
        }
        asked
    }

    /// Notices that the router did not acknowledge.
    #[must_use]
    pub fn unacknowledged_notices(&self) -> u64 {
        self.last_notice - self.acked_notice
    }

    /// The use of an SA since our boot, `packets` being all that were seen, good and bad; true if it is to be reported now, with [`Self::report`] (R21).
    #[must_use]
    pub fn report_due(&self, sa: SaId, packets: u64, bytes: u64, now: u64) -> bool {
        let Some(held) = self.sas.get(&sa).filter(|_| self.state == State::Attached) else {
            return false;
        };
        let ReportPolicy { share_permille, packets: many, interval_us } = self.config.reports;
        let (new_packets, new_bytes) =
            (packets.saturating_sub(held.reported.packets), bytes.saturating_sub(held.reported.bytes));
        let share = held.params.lifesize.hard / 1000 * u64::from(share_permille);
        let old = now >= held.reported.at + interval_us;
        new_packets > 0 && (new_bytes >= share.max(1) || new_packets >= many || old)
    }

    /// Reports the use of SAs, and the windows of inbound ones.
    pub fn report(&mut self, reports: Vec<SaReport>, now: u64) {
        if self.state != State::Attached {
            return;
        }
        for report in &reports {
            if let Some(held) = self.sas.get_mut(&report.sa) {
                let packets = report.packets + report.failed + report.replayed;
                held.reported = Reported { packets, bytes: report.bytes, at: now };
            }
        }
        let mut reports = reports.into_iter().peekable();
        while reports.peek().is_some() {
            let part = reports.by_ref().take(PART_REPORTS).collect();
            self.send(ToRouter::Report(part));
        }
    }

    /// On these TCP ports of the VIP somebody listens now, and to these UDP ports somebody is bound (R25).
    pub fn listening(&mut self, vip: VipId, ports: Vec<u16>, udp: Vec<u16>) {
        if !self.vips.contains_key(&vip) {
            return;
        }
        self.listening.insert(vip, (ports.clone(), udp.clone()));
        if self.state == State::Attached {
            self.send(ToRouter::Listening { vip, ports, udp });
        }
    }

    /// What [`Self::listening`] was told last.
    #[must_use]
    pub fn listens(&self, vip: VipId) -> Option<&(Vec<u16>, Vec<u16>)> {
        self.listening.get(&vip)
    }

    /// This node is so busy, in permille.
    pub fn load(&mut self, permille: u16) {
        self.load = Some(permille);
        if self.state == State::Attached {
            self.send(ToRouter::Load(permille));
        }
    }

    /// No new connections for this VIP (none named: any) from now on, whatever becomes of the session.
    pub fn drain(&mut self, vip: Option<VipId>) {
        let drained = match (std::mem::take(&mut self.draining), vip) {
            (Drained::All, _) | (_, None) => Drained::All,
            (Drained::Nothing, Some(vip)) => Drained::Vips(vec![vip]),
            (Drained::Vips(mut vips), Some(vip)) => {
                vips.retain(|other| *other != vip);
                vips.push(vip);
                Drained::Vips(vips)
            }
        };
        self.set_draining(drained);
    }

    /// New connections for this VIP (none named: all) are welcome again.
    pub fn resume(&mut self, vip: Option<VipId>) {
        let left: Vec<VipId> = match (std::mem::take(&mut self.draining), vip) {
            (Drained::Nothing, _) | (_, None) => Vec::new(),
            (Drained::Vips(vips), Some(vip)) => vips.into_iter().filter(|other| *other != vip).collect(),
            (Drained::All, Some(vip)) => self.vips.keys().copied().filter(|other| *other != vip).collect(),
        };
        self.set_draining(if left.is_empty() { Drained::Nothing } else { Drained::Vips(left) });
    }

    /// For which VIPs no new connections are wanted.
    #[must_use]
    pub fn draining(&self) -> &Drained {
        &self.draining
    }

    fn set_draining(&mut self, drained: Drained) {
        self.draining = drained;
        if self.state == State::Attached {
            self.send(ToRouter::Draining(self.draining.clone()));
        }
    }

    /// Another router's session showed this epoch.
    pub fn note_epoch(&mut self, vip: VipId, epoch: Epoch) {
        let known = self.epochs.entry(vip).or_insert(epoch);
        *known = (*known).max(epoch);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        self.send_leases(now);
    }

    /// When to call [`Self::tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.leases.next_deadline().filter(|_| self.state == State::Attached)
    }

    /// The router is there and knows what we hold.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.state == State::Attached
    }

    /// The router's boot, once welcomed.
    #[must_use]
    pub fn router_incarnation(&self) -> Option<u64> {
        self.router_incarnation
    }

    /// The SAs held for this router.
    pub fn sas(&self) -> impl Iterator<Item = &Arc<SaParams>> {
        self.sas.values().map(|held| &held.params)
    }

    /// The VIPs served for this router.
    pub fn vips(&self) -> impl Iterator<Item = &VipDef> {
        self.vips.values().map(|held| &held.def)
    }

    fn send(&mut self, message: ToRouter) {
        self.outputs.push_back(TargetOutput::Send(message));
    }

    fn session(&self) -> Option<Session> {
        let router_incarnation = self.router_incarnation.filter(|_| self.state == State::Attached)?;
        Some(Session { incarnation: self.config.incarnation, router_incarnation })
    }

    fn epoch_of(&self, sa: SaId) -> Option<Epoch> {
        self.epochs.get(&self.sas.get(&sa)?.params.vip).copied()
    }

    fn send_leases(&mut self, now: u64) {
        let Some(session) = self.session() else {
            return;
        };
        let (sas, epochs) = (&self.sas, &self.epochs);
        let epoch_of = |sa: SaId| epochs.get(&sas.get(&sa)?.params.vip).copied();
        while let Some(request) = self.leases.due(session, epoch_of, now) {
            self.outputs.push_back(TargetOutput::Send(ToRouter::LeaseRequest(request)));
        }
    }

    fn welcome(
        &mut self,
        version: u32,
        node: String,
        incarnation: u64,
        epochs: &[(VipId, Epoch)],
    ) -> Result<(), ClusterError> {
        if version != VERSION {
            return Err(ClusterError::Version { node, ours: VERSION, theirs: version });
        }
        if *node != *self.config.router {
            return Err(ClusterError::Name { certificate: self.config.router.to_string(), message: node });
        }
        let restarted = self.router_incarnation.replace(incarnation).is_some_and(|known| known != incarnation);
        if restarted {
            // Before a number of the new one is sent (ARCHITECTURE, "Outbound sequence numbers").
            let outbound = self.sas.values().filter(|held| held.params.direction == Direction::Outbound);
            let sas = outbound.map(|held| held.params.id).collect();
            self.outputs.push_back(TargetOutput::DropLeases(sas));
        }
        for held in self.sas.values_mut() {
            held.reported = Reported::default();
        }
        for (vip, epoch) in epochs {
            self.see_epoch(*vip, *epoch);
        }
        self.outputs.push_back(TargetOutput::RouterUp { incarnation, restarted });
        self.gather();
        Ok(())
    }

    fn gather(&mut self) {
        self.notices.clear();
        self.last_job += 1;
        self.state = State::Gathering(self.last_job);
        self.outputs.push_back(TargetOutput::Gather { token: self.last_job });
    }

    /// False: it is lower than one seen (I6).
    fn see_epoch(&mut self, vip: VipId, epoch: Epoch) -> bool {
        let known = self.epochs.get(&vip).copied();
        if known.is_some_and(|known| epoch < known) {
            return false;
        }
        self.epochs.insert(vip, epoch);
        if known != Some(epoch) {
            self.outputs.push_back(TargetOutput::EpochSeen { vip, epoch });
        }
        true
    }

    fn lease_reply(&mut self, reply: &crate::messages::LeaseReply, now: u64) {
        let Some(session) = self.session() else {
            return;
        };
        let (sa, core) = (reply.sa, reply.core);
        match self.leases.accept(reply, session, self.epoch_of(sa), now) {
            Accepted::Lease(lease, valid_until) => {
                self.outputs.push_back(TargetOutput::Lease { core, sa, lease, valid_until });
            }
            Accepted::Refused(refusal) => self.outputs.push_back(TargetOutput::LeaseRefused { core, sa, refusal }),
            Accepted::Ignored(_) => {}
        }
    }
}
