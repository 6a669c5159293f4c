//! What happened between two looks at a node, per second of the node's own clock.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::status::figures::{Overview, RuntimeRow, StepRow};
use crate::status::model::{CoreStatus, SaRow, TargetRow};

/// Everything that `top` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// The node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// `starting`, `running`, `draining`.
    pub state: String,
    /// Since its start.
    pub uptime_ms: u64,
    /// What lay between the two looks.
    pub seconds: f64,
    /// Frames received per second, over all ports.
    pub in_pps: f64,
    /// Frames sent per second.
    pub out_pps: f64,
    /// Packets dropped per second.
    pub drops_pps: f64,
    /// Connections known now.
    pub connections: u64,
    /// Packets that wait now.
    pub waiting: u64,
    /// What must be 0.
    pub violations: u64,
    /// By core.
    pub cores: Vec<CoreRate>,
    /// By reason; those that happened meanwhile, most first.
    pub drops: Vec<DropRate>,
    /// Busiest first.
    pub sas: Vec<SaRate>,
    /// SAs that are not among them.
    pub sas_left_out: u64,
    /// Targets.
    pub targets: Vec<TargetRate>,
    /// Steps of all poll loops together, the one that takes most of the time first.
    pub steps: Vec<StepRate>,
}

/// A poll loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CoreRate {
    /// Its number.
    pub core: u16,
    /// `router`, `target`.
    pub roles: Vec<String>,
    /// Frames received per second.
    pub in_pps: f64,
    /// Frames sent per second.
    pub out_pps: f64,
    /// Packets dropped per second.
    pub drops_pps: f64,
    /// Part of its time with something to do.
    pub busy_percent: f64,
}

/// A reason for dropping.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DropRate {
    /// Its name.
    pub reason: String,
    /// Packets per second.
    pub pps: f64,
    /// Since the node's start.
    pub packets: u64,
}

/// An SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SaRate {
    /// Its id.
    pub sa: String,
    /// Its tunnel.
    pub tunnel: String,
    /// `inbound`, `outbound`.
    pub direction: String,
    /// Packets per second.
    pub pps: f64,
    /// Bits of ESP payload per second.
    pub bps: f64,
    /// Since its start.
    pub packets: u64,
    /// Who does it now.
    pub holders: Vec<String>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetRate {
    /// Its name.
    pub target: String,
    /// `ready`, `down`, …
    pub state: String,
    /// Packets per second, in both directions, as reported.
    pub pps: f64,
    /// Bits of ESP payload per second.
    pub bps: f64,
}

/// A step of the poll loops.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepRate {
    /// Its name.
    pub step: String,
    /// Packets per second.
    pub pps: f64,
    /// Packets of a burst.
    pub packets_per_call: Option<f64>,
    /// Clocks of a packet.
    pub clocks_per_packet: Option<f64>,
    /// Part of the cores' time.
    pub percent: f64,
}

impl Rates {
    /// What happened from one look to the next. `None`: they are not two looks at one run of a node.
    pub fn between(before: &Overview, after: &Overview) -> Option<Rates> {
        let us = after.taken_us.checked_sub(before.taken_us).filter(|us| *us > 0)?;
        let per = Per(us as f64 / 1e6);
        let status = &after.status;
        let cores: Vec<CoreRate> = status.cores.iter().map(|core| per.core(core, before, after)).collect();
        let sum = |of: fn(&CoreRate) -> f64| cores.iter().map(of).sum();
        Some(Rates {
            node: status.node.clone(),
            cluster: status.cluster.clone(),
            state: status.state.clone(),
            uptime_ms: status.uptime_ms,
            seconds: per.0,
            in_pps: sum(|core| core.in_pps),
            out_pps: sum(|core| core.out_pps),
            drops_pps: sum(|core| core.drops_pps),
            connections: status.cores.iter().map(|core| core.connections + core.tracked).sum(),
            waiting: status.cores.iter().map(|core| core.waiting).sum(),
            violations: status.invariants.iter().map(|invariant| invariant.violations).sum(),
            drops: per.drops(before, after),
            sas: per.sas(&before.sas, &after.sas),
            sas_left_out: after.sas_left_out,
            targets: per.targets(&before.targets, &after.targets),
            steps: per.steps(&before.runtime, &after.runtime),
            cores,
        })
    }
}

/// So many seconds.
struct Per(f64);

impl Per {
    /// What a counter did per second. One that began anew counts from nought.
    fn rate(&self, before: u64, after: u64) -> f64 {
        grown(before, after) as f64 / self.0
    }

    fn core(&self, core: &CoreStatus, before: &Overview, after: &Overview) -> CoreRate {
        let old = before.status.cores.iter().find(|old| old.core == core.core).cloned().unwrap_or_default();
        let steps = |overview: &Overview| steps_of(&overview.runtime, |row| row.core == core.core);
        CoreRate {
            core: core.core,
            roles: core.roles.clone(),
            in_pps: self.rate(old.rx, core.rx),
            out_pps: self.rate(old.tx, core.tx),
            drops_pps: self.rate(old.drops, core.drops),
            busy_percent: RuntimeRow::busy(&meanwhile(&steps(before), steps(after))),
        }
    }

    fn drops(&self, before: &Overview, after: &Overview) -> Vec<DropRate> {
        let old: BTreeMap<&str, u64> = before.drops.iter().map(|d| (d.reason.as_str(), d.packets)).collect();
        let rate = |now: &crate::status::model::DropRow| DropRate {
            reason: now.reason.clone(),
            pps: self.rate(old.get(now.reason.as_str()).copied().unwrap_or(0), now.packets),
            packets: now.packets,
        };
        let mut drops: Vec<DropRate> = after.drops.iter().map(rate).filter(|drop| drop.packets > 0).collect();
        drops.sort_by(|a, b| b.pps.total_cmp(&a.pps).then(b.packets.cmp(&a.packets)));
        drops
    }

    fn sas(&self, before: &[SaRow], after: &[SaRow]) -> Vec<SaRate> {
        let old: BTreeMap<&str, &SaRow> = before.iter().map(|sa| (sa.id.as_str(), sa)).collect();
        let rate = |sa: &SaRow| {
            // One that was not shown before may have carried much already: no rate yet.
            let old = old.get(sa.id.as_str()).copied().unwrap_or(sa);
            let share = |holder: &str| old.shares.iter().find(|s| s.holder == holder).map_or(0, |s| s.packets);
            let active = sa.shares.iter().filter(|now| now.packets > share(&now.holder));
            SaRate {
                sa: sa.id.clone(),
                tunnel: sa.tunnel.clone(),
                direction: sa.direction.clone(),
                pps: self.rate(old.packets, sa.packets),
                bps: 8.0 * self.rate(old.bytes, sa.bytes),
                packets: sa.packets,
                holders: active.map(|now| now.holder.clone()).collect(),
            }
        };
        let mut sas: Vec<SaRate> = after.iter().map(rate).collect();
        sas.sort_by(|a, b| b.pps.total_cmp(&a.pps).then(b.packets.cmp(&a.packets)));
        sas
    }

    fn targets(&self, before: &[TargetRow], after: &[TargetRow]) -> Vec<TargetRate> {
        let rate = |now: &TargetRow| {
            let old = before.iter().find(|old| old.name == now.name).unwrap_or(now);
            TargetRate {
                target: now.name.clone(),
                state: now.state.clone(),
                pps: self.rate(old.packets, now.packets),
                bps: 8.0 * self.rate(old.bytes, now.bytes),
            }
        };
        after.iter().map(rate).collect()
    }

    fn steps(&self, before: &[RuntimeRow], after: &[RuntimeRow]) -> Vec<StepRate> {
        let steps = meanwhile(&steps_of(before, |_| true), steps_of(after, |_| true));
        let all = steps.iter().map(|step| step.clocks).sum::<u64>().max(1);
        let rate = |step: &StepRow| StepRate {
            step: step.step.clone(),
            pps: step.packets as f64 / self.0,
            packets_per_call: step.packets_per_call().filter(|_| step.packets > 0),
            clocks_per_packet: step.clocks_per_packet(),
            percent: 100.0 * step.clocks as f64 / all as f64,
        };
        let mut rates: Vec<StepRate> = steps.iter().filter(|step| step.calls > 0).map(rate).collect();
        rates.sort_by(|a, b| b.percent.total_cmp(&a.percent));
        rates
    }
}

fn grown(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

/// The steps of some cores, summed.
fn steps_of(rows: &[RuntimeRow], which: impl Fn(&RuntimeRow) -> bool) -> Vec<StepRow> {
    let mut sum: Vec<StepRow> = Vec::new();
    for step in rows.iter().filter(|row| which(row)).flat_map(|row| &row.steps) {
        match sum.iter_mut().find(|other| other.step == step.step) {
            Some(other) => {
                other.calls += step.calls;
                other.packets += step.packets;
                other.clocks += step.clocks;
            }
            None => sum.push(step.clone()),
        }
    }
    sum
}

/// What the steps did since `before`.
fn meanwhile(before: &[StepRow], mut after: Vec<StepRow>) -> Vec<StepRow> {
    for step in &mut after {
        if let Some(old) = before.iter().find(|old| old.step == step.step) {
            step.calls = grown(old.calls, step.calls);
            step.packets = grown(old.packets, step.packets);
            step.clocks = grown(old.clocks, step.clocks);
        }
    }
    after
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::model::{DropRow, SaShare, Status};

    /// A node that has done `n` of everything after `seconds`.
    pub fn overview(seconds: u64, n: u64) -> Overview {
        let core = |core| CoreStatus {
            core,
            roles: vec!["router".into()],
            rx: 100 * n,
            tx: 50 * n,
            drops: n,
            connections: 3,
            ..CoreStatus::default()
        };
        let step = |step: &str, clocks, rest| StepRow { step: step.into(), calls: n, packets: 4 * n, clocks, rest };
        let steps = vec![step("open", 300 * n, false), step("idle", 100 * n, true)];
        let runtime = |core| RuntimeRow { core, steps: steps.clone(), ..RuntimeRow::default() };
        let share = |holder: &str, packets| SaShare { holder: holder.into(), packets, ..SaShare::default() };
        let sa = |id: &str, packets| SaRow {
            id: id.into(),
            tunnel: format!("tunnel-{id}"),
            direction: "inbound".into(),
            packets,
            bytes: 100 * packets,
            shares: vec![share("t1", packets), share("core 0", 7)],
            ..SaRow::default()
        };
        Overview {
            taken_us: seconds * 1_000_000,
            status: Status {
                node: "r1".into(),
                cluster: "demo".into(),
                state: "running".into(),
                uptime_ms: seconds * 1000,
                cores: vec![core(0), core(1)],
                ..Status::default()
            },
            drops: DropRow::all(&[vec![0, n, 2 * n]]),
            sas: vec![sa("a", n), sa("b", 10 * n)],
            targets: vec![TargetRow {
                name: "t1".into(),
                state: "ready".into(),
                packets: 30 * n,
                bytes: 3000 * n,
                ..TargetRow::default()
            }],
            runtime: vec![runtime(0), runtime(1)],
            ..Overview::default()
        }
    }

    #[test]
    fn rates_are_differences_over_the_nodes_own_time() {
        let rates = Rates::between(&overview(10, 100), &overview(14, 300)).unwrap();
        assert_eq!((rates.seconds, rates.in_pps, rates.out_pps, rates.drops_pps), (4.0, 10_000.0, 5_000.0, 100.0));
        assert_eq!((rates.connections, rates.cores.len(), rates.cores[1].busy_percent), (6, 2, 75.0));
        assert_eq!((rates.drops[0].pps, rates.drops[0].packets, rates.drops.len()), (100.0, 600, 2));
        let sa = &rates.sas[0];
        assert_eq!((sa.tunnel.as_str(), sa.pps, sa.bps), ("tunnel-b", 500.0, 400_000.0));
        assert_eq!(sa.holders, ["t1"], "the core has done nothing meanwhile");
        assert_eq!((rates.targets[0].pps, rates.targets[0].bps), (1500.0, 1_200_000.0));
        let open = &rates.steps[0];
        assert_eq!((open.step.as_str(), open.percent, open.clocks_per_packet), ("open", 75.0, Some(75.0)));
        assert_eq!((open.pps, open.packets_per_call), (400.0, Some(4.0)));
    }

    #[test]
    fn a_node_that_was_started_again_has_no_rates_yet() {
        assert_eq!(Rates::between(&overview(10, 100), &overview(2, 5)), None);
        assert_eq!(Rates::between(&overview(10, 100), &overview(10, 100)), None);
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_nought_and_a_new_sa_has_no_rate() {
        let mut after = overview(11, 50);
        after.sas[0].id = "new".into();
        let rates = Rates::between(&overview(10, 100), &after).unwrap();
        assert_eq!(rates.drops[0].pps, 100.0);
        assert_eq!(rates.sas.iter().find(|sa| sa.sa == "new").unwrap().pps, 0.0);
    }
}
