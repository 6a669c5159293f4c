//! What the poll cores say, and what control reads from them on its own.

use std::collections::BTreeMap;

use phalanx_cluster::Want;
use phalanx_cluster::ledger::Use;
use phalanx_cluster::messages::{ConnRecord, NodeName, PeerAt, SaReport, WindowRecord};
use phalanx_dataplane::Event;
use phalanx_steering::ConnKey;
use phalanx_wire::{CoreId, SaId, VipId};

use super::books::Used;
use super::brain::{Brain, DumpFor};
use super::dumps::Rows;

impl Brain {
    pub(super) fn core_event(&mut self, event: Event) {
        match event {
            Event::Done { core, token, result } => {
                if let Some(finished) = self.cores.done(core, token, result) {
                    self.finished(finished);
                }
            }
            Event::LeaseWanted { core, sa, want, done_below, rate_pps } => {
                self.lease_wanted(core, sa, want, done_below, rate_pps);
            }
            Event::ConnWanted { core, vip, key, sa } => self.connection_wanted(core, vip, key, sa),
            Event::ConnOpened { core, vip, key } => self.connection(core, vip, key, true),
            Event::ConnClosed { core, vip, key } => self.connection(core, vip, key, false),
            Event::CeilingWanted { sa, at, .. } => {
                let now = self.now();
                if let Some(router) = &mut self.router {
                    router.ceiling_wanted(sa, at, now);
                }
            }
            Event::TooBig { sa, mtu, seq, .. } => self.too_big_heard(sa, mtu, seq),
            Event::Dumped { core, token, dump } => {
                if let Some((purpose, rows)) = self.dumps.piece(&mut self.cores, core, token, dump) {
                    self.dumped(purpose, rows);
                }
            }
            Event::PeerSeen { sa, remote, number, .. } => self.peer_seen(PeerAt { sa, remote, number }),
            Event::SaWanted { vip, tunnel, .. } => self.sa_wanted(vip, tunnel),
            Event::Log { core, logged } => self.log_by_rule(core, &logged),
            // Freed here, where it does not hurt (I7).
            Event::Trash(trash) => drop(trash),
        }
    }

    pub(super) fn dumped(&mut self, purpose: DumpFor, rows: Rows) {
        match purpose {
            DumpFor::Gather(router, token) => self.gathered(&router, token, rows),
            DumpFor::Query(query) => self.answer_rows(query, rows),
        }
    }

    /// Numbers come from this node's sequencer if it owns the VIP, else from the router that does (R18).
    fn lease_wanted(&mut self, core: CoreId, sa: SaId, want: u32, done_below: u64, rate_pps: u32) {
        let now = self.now();
        let Some(vip) = self.sas.find(sa).map(|entry| entry.params.vip) else { return };
        let Some(state) = self.vips.get(&vip) else { return };
        if let Some(name) = state.router.clone() {
            if let Some(target) = self.routers.get_mut(&name) {
                target.lease_wanted(core, sa, Want { want, done_below, rate_pps }, now);
            }
        } else if let Some(router) = &mut self.router {
            router.local_lease_wanted(core, sa, Want { want, done_below, rate_pps }, now);
        }
    }

    /// A connection of this node as a target came or went. Its end carries the windows up to then: they are read after
    /// the core said so, hence hold everything the connection accepted.
    fn connection(&mut self, core: CoreId, vip: VipId, key: ConnKey, opened: bool) {
        let Some(state) = self.vips.get(&vip) else { return };
        let name: NodeName = self.router_of(state).into();
        let record = ConnRecord { vip, peer: key.peer, flow: key.flow, core, established: opened };
        let windows = if opened { Vec::new() } else { self.windows_of(core, key) };
        let Some(target) = self.routers.get_mut(&name) else { return };
        if opened {
            target.notice(vec![record], Vec::new(), windows);
        } else {
            target.notice(Vec::new(), vec![record], windows);
        }
    }

    /// The windows of a peer's inbound SAs on one core, whichever VIP they are of: a tunnel of one VIP may carry another.
    fn windows_of(&self, core: CoreId, key: ConnKey) -> Vec<WindowRecord> {
        let of_peer = self.sas.iter().filter(|(_, e)| e.params.peer == key.peer);
        let record = |(&sa, entry): (&SaId, &super::books::SaEntry)| {
            let snapshot = entry.windows(|on| on == core).pop()?;
            Some(WindowRecord { sa, snapshot })
        };
        of_peer.filter_map(record).collect()
    }

    /// Reads use and windows from the cores' shared counters and passes them on: to the routers in batches (R21), to this
    /// node's own ledger directly. Inbound SAs of this router's that had genuine packets, of those that were looked at.
    pub(super) fn look_at_use(&mut self, sas: &[SaId], now: u64) -> Vec<SaId> {
        let targets = self.cores.targets();
        let mut reports: BTreeMap<NodeName, Vec<SaReport>> = BTreeMap::new();
        let mut genuine = Vec::new();
        for &sa in sas {
            let Some(entry) = self.sas.find(sa) else { continue };
            let (edge, seen) = (entry.edge(), entry.used(|_| true).seen());
            let news = self.sas.looked(sa, seen.wrapping_add(edge));
            let Some(entry) = self.sas.find(sa) else { continue };
            if news
                && entry.router
                && let Some(router) = &mut self.router
            {
                if edge > 0 {
                    genuine.push(sa);
                }
                // What its target cores do is reported by this node as a target.
                let used = entry.used(|core| !entry.target || !targets.contains(&core));
                router.local_use(sa, Use::from(used));
            }
            // Also what is no news: its router may have been away.
            if entry.target {
                let Some(state) = self.vips.get(&entry.params.vip) else { continue };
                let name = self.router_of(state);
                let Some(target) = self.routers.get(name) else { continue };
                let used = entry.used(|core| targets.contains(&core));
                if target.report_due(sa, used.seen(), used.bytes, now) {
                    // Each core has a window of its own. The same use in several reports is counted once.
                    let Used { packets, bytes, failed, replayed } = used;
                    let report = |window| SaReport { sa, packets, bytes, failed, replayed, window };
                    let windows = entry.windows(|core| targets.contains(&core));
                    let reports = reports.entry(name.into()).or_default();
                    if windows.is_empty() {
                        reports.push(report(None));
                    }
                    reports.extend(windows.into_iter().map(|window| report(Some(window))));
                }
            }
        }
        for (name, reports) in reports {
            if let Some(target) = self.routers.get_mut(&name) {
                target.report(reports, now);
            }
        }
        genuine
    }
}
