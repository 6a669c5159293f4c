//! What the status socket is told. Everything is read here and now; what only the cores know is dumped first.

use phalanx_cluster::{PairStatus, Prediction};
use phalanx_dataplane::command::DumpWhat;
use phalanx_dataplane::{CoreStats, Stage};
use phalanx_ipsec::{Direction, Mode, SaParams};
use phalanx_wire::{CoreId, DropReason, SaId, VipId};

use super::books::{SaEntry, Used};
use super::brain::{Brain, DumpFor};
use super::dumps::Rows;
use crate::config::{Core, PortRole};
use crate::status::model::{
    ConnRow, CoreStatus, DropRow, Invariant, LeaseHolder, LeaseRow, PortStatus, SaRow, SaShare, Status, VipRow,
};
use crate::status::{Answer, Query, What, model};

impl Brain {
    /// Answers at once where control knows, else when the cores have told.
    pub(super) fn query(&mut self, query: Query) {
        let wanted: Vec<(CoreId, DumpWhat)> = match query.what {
            What::Conn | What::Target => self.connection_tables(),
            What::Lease => self.cores.all().into_iter().map(|core| (core, DumpWhat::Leases)).collect(),
            _ => Vec::new(),
        };
        if let Some((DumpFor::Query(query), rows)) = self.dumps.start(&mut self.cores, &wanted, DumpFor::Query(query)) {
            self.answer_rows(query, rows);
        }
    }

    fn connection_tables(&self) -> Vec<(CoreId, DumpWhat)> {
        let routed = self.cores.router().filter(|_| self.router.is_some()).map(|core| (core, DumpWhat::Routed));
        let tracked = self.cores.targets().into_iter().map(|core| (core, DumpWhat::Tracked));
        routed.into_iter().chain(tracked).collect()
    }

    pub(super) fn answer_rows(&mut self, query: Query, rows: Rows) {
        let answer = match query.what {
            What::Status => Answer::Status(Box::new(self.status())),
            What::Sa => Answer::Sa(self.sas.iter().map(|(id, entry)| self.sa_row(*id, entry)).collect()),
            What::Conn => Answer::Conn(self.conn_rows(&rows)),
            What::Vip => Answer::Vip(self.vip_rows()),
            What::Target => Answer::Target(self.target_rows(&rows)),
            What::Lease => Answer::Lease(self.lease_rows(&rows)),
            What::Ike => Answer::Ike(Box::new(self.ike_status())),
            What::Drop => Answer::Drop(self.drop_rows()),
            What::Runtime => Answer::Runtime(self.runtime_rows()),
            What::Latency => Answer::Latency(self.latency_rows()),
            What::Overview => Answer::Overview(Box::new(self.overview())),
        };
        // Whoever asked may be gone.
        let _ = query.reply.send(answer);
    }

    pub(super) fn drop_rows(&self) -> Vec<DropRow> {
        let of = |stats: &CoreStats| DropReason::ALL.iter().map(|reason| stats.drops(*reason)).collect();
        let mut rows = DropRow::all(&self.stats.iter().map(|(_, stats)| of(stats)).collect::<Vec<_>>());
        for (node, reasons) in self.router.iter().flat_map(phalanx_cluster::RouterCluster::dropped) {
            for row in &mut rows {
                let told = reasons.iter().find(|(reason, _)| *reason == row.reason).map_or(0, |(_, packets)| *packets);
                row.told(&[(node, told)]);
            }
        }
        rows
    }

    fn status(&self) -> Status {
        Status { predictions: self.predictions(), ..self.status_without_predictions() }
    }

    pub(super) fn status_without_predictions(&self) -> Status {
        let cores: Vec<CoreStatus> = self.stats.iter().map(|(id, stats)| self.core_status(*id, stats)).collect();
        let mut roles = Vec::new();
        roles.extend(self.router.is_some().then(|| "router".to_owned()));
        roles.extend((!self.routers.is_empty()).then(|| "target".to_owned()));
        let mut warnings = self.config.warnings.clone();
        warnings.extend(self.warnings.iter().cloned());
        Status {
            node: self.config.node.name.clone(),
            cluster: self.config.cluster.name.clone(),
            version: self.version.to_owned(),
            state: self.phase.name().to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            roles,
            warnings,
            memory: if self.no_huge { "no-huge" } else { "hugepages" }.to_owned(),
            cipher_kernel: phalanx_aead::Kernel::chosen().name().to_owned(),
            coupling: self.coupling.clone(),
            drops: cores.iter().map(|core| core.drops).sum(),
            cores,
            ports: self.port_rows(),
            invariants: Invariant::all(self.violations()),
            predictions: Vec::new(),
        }
    }

    /// What was seen broken. Most invariants are types and cannot be seen broken at all; a lost event could break I2 and I4.
    fn violations(&self) -> [u64; 9] {
        let lost: u64 = self.stats.iter().map(|(_, stats)| stats.events_lost.value()).sum();
        [0, lost, 0, 0, 0, 0, 0, 0, 0]
    }

    fn core_status(&self, id: CoreId, stats: &CoreStats) -> CoreStatus {
        let config: &Core = &self.config.cores[usize::from(id.0)];
        let mut roles = Vec::new();
        roles.extend(config.router.then(|| "router".to_owned()));
        roles.extend(config.target.then(|| "target".to_owned()));
        let loops = stats.loops.value();
        CoreStatus {
            core: id.0,
            cpu: config.cpu,
            roles,
            loops,
            busy: loops.saturating_sub(stats.idle.value()),
            rx: stats.ports.iter().map(|port| port.rx.value()).sum(),
            tx: stats.ports.iter().map(|port| port.tx.value()).sum(),
            drops: DropReason::ALL.iter().map(|reason| stats.drops(*reason)).sum(),
            connections: stats.connections.value(),
            tracked: stats.tracked.value(),
            waiting: stats.waiting.value(),
            stages: Stage::ALL.iter().map(|stage| (stage.name().to_owned(), stats.stage(*stage))).collect(),
        }
    }

    fn port_rows(&self) -> Vec<PortStatus> {
        let row = |(at, port): (usize, &crate::config::Port)| {
            let core = self.config.cores.iter().position(|core| core.ports.contains(&at)).unwrap_or(0);
            let facts = self.dataplane.ports().get(at);
            let mut status = PortStatus {
                name: port.name.clone(),
                role: match port.role {
                    PortRole::Network => "network",
                    PortRole::Link => "link",
                    PortRole::Application => "application",
                }
                .to_owned(),
                device: port.device.eal_argument(at),
                core: core as u16,
                ..PortStatus::default()
            };
            if let Some(port) = facts {
                status.up = port.link().up;
                status.mtu = port.mtu();
                status.mac = phalanx_wire::Mac(port.mac()).to_string();
                if let Ok(stats) = port.stats() {
                    (status.rx_missed, status.tx_refused) = (stats.rx_missed, stats.tx_errors);
                }
            }
            for (_, stats) in &self.stats {
                let port = &stats.ports[at];
                status.rx_packets += port.rx.value();
                status.rx_bytes += port.rx_bytes.value();
                status.tx_packets += port.tx.value();
                status.tx_bytes += port.tx_bytes.value();
                status.tx_refused += port.tx_full.value();
            }
            status
        };
        self.config.ports.iter().enumerate().map(row).collect()
    }

    fn predictions(&self) -> Vec<model::Prediction> {
        let Some(router) = &self.router else { return Vec::new() };
        let now = self.now();
        let row = |pair: PairStatus| {
            let sa = &pair.spec.outbound;
            let Prediction { window, holders, block, fits_pps, measured_pps, .. } =
                router.sequence(sa.id, now)?.prediction;
            let verdict = if measured_pps <= fits_pps { "shared" } else { "waits" };
            Some(model::Prediction {
                sa: hex(sa.id),
                tunnel: sa.tunnel.to_string(),
                window,
                senders: holders,
                block,
                rate_pps: measured_pps,
                fits_pps,
                verdict: verdict.to_owned(),
            })
        };
        router.pairs().filter_map(row).collect()
    }

    pub(super) fn sa_row(&self, id: SaId, entry: &SaEntry) -> SaRow {
        let params: &SaParams = &entry.params;
        let all = self.router.as_ref().and_then(|router| router.used(id)).filter(|_| entry.router);
        let here = entry.used(|_| true);
        let router = self.router.as_ref().filter(|_| entry.router);
        let others: Vec<SaShare> = router.into_iter().flat_map(|router| router.shares(id)).map(remote_share).collect();
        let elsewhere = |count: fn(&SaShare) -> u64| others.iter().map(count).fold(0, u64::saturating_add);
        let (failed, replayed) = (elsewhere(|share| share.failed), elsewhere(|share| share.replayed));
        let share = |(core, _): &(CoreId, _)| {
            let Used { packets, bytes, failed, replayed } = entry.used(|on| on == *core);
            SaShare { holder: format!("core {}", core.0), packets, bytes, failed, replayed }
        };
        let outbound = params.direction == Direction::Outbound;
        let limit = |bytes| (bytes != u64::MAX).then_some(bytes);
        SaRow {
            id: hex(id),
            direction: match params.direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            }
            .to_owned(),
            spi: format!("{:#010x}", params.spi.0),
            vip: self.vip_name(params.vip),
            tunnel: params.tunnel.to_string(),
            peer: entry.remote.ip().to_string(),
            udp: params.encap.map(|_| entry.remote.port()),
            mode: match params.mode {
                Mode::Tunnel { .. } => "tunnel",
                Mode::Transport => "transport",
            }
            .to_owned(),
            within: params.within.map(|tunnel| tunnel.to_string()),
            algorithm: params.algorithm.name().to_owned(),
            esn: params.esn,
            packets: all.map_or(here.packets, |used| used.packets),
            bytes: all.map_or(here.bytes, |used| used.bytes),
            failed: here.failed.saturating_add(failed),
            replayed: here.replayed.saturating_add(replayed),
            edge: entry.edge(),
            window: params.window,
            path_mtu: if outbound { entry.path_mtu } else { 0 },
            path_mtu_configured: if outbound { params.path_mtu } else { 0 },
            path_mtu_refused: self.router.as_ref().map_or(0, |router| router.path_mtu_refused(id)),
            soft_bytes: limit(params.lifesize.soft),
            hard_bytes: limit(params.lifesize.hard),
            shares: entry.shared.iter().map(share).chain(others).collect(),
        }
    }

    fn conn_rows(&self, rows: &Rows) -> Vec<ConnRow> {
        let own = &self.config.node.name;
        let row = |side: &str, c: &phalanx_dataplane::command::ConnRow| ConnRow {
            side: side.to_owned(),
            vip: self.vip_name(c.vip),
            peer: self.peer_name(c.key.peer),
            protocol: protocol_name(c.key.flow.protocol),
            local: c.key.flow.local.to_string(),
            remote: c.key.flow.remote.to_string(),
            target: c.target.map_or_else(|| own.clone(), |id| self.target_name(id)),
            state: if c.established { "established" } else { "half-open" }.to_owned(),
            age_ms: c.age_ms,
        };
        let routed = rows.routed.iter().map(|(_, c)| row("router", c));
        routed.chain(rows.tracked.iter().map(|(_, c)| row("target", c))).collect()
    }

    pub(super) fn vip_rows(&self) -> Vec<VipRow> {
        let row = |(id, state): (&VipId, &super::brain::VipState)| {
            let own = state.router.is_none();
            let targets = if own {
                self.target_entries(*id).iter().map(|t| self.target_name(t.id)).collect()
            } else {
                Vec::new()
            };
            let served = if own { self.routers.contains_key(self.config.node.name.as_str()) } else { true };
            let mut roles = Vec::new();
            roles.extend(own.then(|| "router".to_owned()));
            roles.extend(served.then(|| "target".to_owned()));
            let count = |(_, stats): &(CoreId, _)| {
                let stats: &std::sync::Arc<CoreStats> = stats;
                if own { stats.connections.value() } else { stats.tracked.value() }
            };
            VipRow {
                name: self.vip_name(*id),
                id: id.0,
                address: state.entry.address.to_string(),
                epoch: state.entry.epoch.0,
                owner: self.router_of(state).to_owned(),
                roles,
                targets,
                ports: self.rules_in_words(*id),
                connections: self.stats.iter().map(count).sum(),
                settled: state.settled,
            }
        };
        self.vips.iter().map(row).collect()
    }

    fn lease_rows(&self, rows: &Rows) -> Vec<LeaseRow> {
        let now = self.now();
        let row = |(id, entry): (&SaId, &SaEntry)| {
            let sequence = self.router.as_ref().and_then(|router| router.sequence(*id, now)).filter(|_| entry.router);
            let on_cores = rows.leases.iter().filter(|(_, lease)| lease.sa == *id);
            let own = on_cores.clone().map(|(core, lease)| LeaseHolder {
                holder: format!("core {}", core.0),
                blocks: u64::from(lease.left > 0),
                numbers: lease.left,
            });
            let mut row = LeaseRow {
                sa: hex(*id),
                tunnel: entry.params.tunnel.to_string(),
                holders: own.collect(),
                thrown_away: on_cores.clone().map(|(_, lease)| lease.thrown_away).sum(),
                ..LeaseRow::default()
            };
            if let Some(s) = sequence {
                row.next = s.next.unwrap_or(0);
                row.grant_first = row.next;
                row.grant_end = row.next + s.granted;
                row.waits = s.waiting as u64;
                row.rate_pps = s.prediction.measured_pps;
            }
            row
        };
        self.sas.iter().filter(|(_, e)| e.params.direction == Direction::Outbound).map(row).collect()
    }

    pub(super) fn vip_name(&self, id: VipId) -> String {
        let configured = self.configured(id).map(|vip| vip.name.clone());
        let address = || self.vips.get(&id).map(|state| state.entry.address.to_string());
        configured.or_else(address).unwrap_or_else(|| id.0.to_string())
    }

    fn peer_name(&self, peer: phalanx_wire::PeerId) -> String {
        let sa = self.sas.iter().find(|(_, entry)| entry.params.peer == peer);
        sa.map_or_else(|| format!("{:08x}", peer.0), |(_, entry)| entry.params.tunnel.to_string())
    }

    pub(super) fn target_name(&self, id: phalanx_wire::TargetId) -> String {
        self.numbering.name(id).map_or_else(|| id.0.to_string(), ToString::to_string)
    }
}

/// What another node did on an SA.
fn remote_share((node, used): (&phalanx_cluster::NodeName, phalanx_cluster::ledger::Use)) -> SaShare {
    let phalanx_cluster::ledger::Use { packets, bytes, failed, replayed } = used;
    SaShare { holder: node.to_string(), packets, bytes, failed, replayed }
}

/// The protocols that flows have, by name.
fn protocol_name(protocol: u8) -> String {
    match protocol {
        phalanx_wire::protocol::TCP => "tcp".to_owned(),
        phalanx_wire::protocol::UDP => "udp".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn hex(id: SaId) -> String {
    format!("{:016x}", id.0)
}
