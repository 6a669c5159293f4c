//! An overview as metrics in the OpenMetrics text format, which Prometheus reads. Names and labels are an interface:
//! docs/OPERATION.md lists them. Labels come from the configuration and from lists in the program; of SAs only as many as an
//! overview has, and a gauge tells how many more there are. Nothing here knows a key (I8).

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::figures::{BOUNDS_US, HistogramRow, Overview, RuntimeRow, StepRow};
use super::ike::IkeFigures;
use super::model::{CoreStatus, PortStatus, SaRow, SaShare, TargetRow};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
/// One sample: its labels and its value.
type Sample<N> = (Labels, N);

/// The overview as text.
///
/// # Errors
/// A name that the format does not allow: a mistake of ours.
pub fn text(overview: Overview) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("phalanx");
    registry.register_collector(Box::new(Collected(overview)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Collected(Overview);

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families(encoder);
        let overview = &self.0;
        node(&mut to, overview)?;
        cores(&mut to, &overview.status.cores)?;
        ports(&mut to, &overview.status.ports)?;
        sas(&mut to, overview)?;
        targets(&mut to, &overview.targets)?;
        if let Some(figures) = &overview.ike {
            ike(&mut to, figures)?;
        }
        runtime(&mut to, &overview.runtime)?;
        durations(&mut to, &overview.histograms)
    }
}

/// Writes families of metrics.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<u64>>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<f64>>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge with one sample and no labels.
    fn figure(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn set_ups(&mut self, sum_s: f64, count: u64, buckets: &[(f64, u64)]) -> fmt::Result {
        let help = "From the first message of an IKE SA's set-up to its last";
        let mut family = self.0.encode_descriptor("ike_set_up_seconds", help, None, MetricType::Histogram)?;
        let exemplars: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
        family.encode_histogram(sum_s, count, buckets, exemplars)
    }

    fn seconds<'r>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        rows: impl IntoIterator<Item = &'r HistogramRow>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = || BOUNDS_US.iter().map(|us| us / 1e6).chain([f64::INFINITY]);
        for row in rows {
            let buckets: Vec<(f64, u64)> = bounds().zip(row.counts.iter().copied()).collect();
            let count = row.counts.iter().sum();
            let exemplars: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
            let labels = vec![(label, row.what.clone())];
            family.encode_family(&labels)?.encode_histogram(row.sum_s, count, &buckets, exemplars)?;
        }
        Ok(())
    }
}

fn count(n: u64) -> f64 {
    n as f64
}

fn node(to: &mut Families<'_>, overview: &Overview) -> fmt::Result {
    let s = &overview.status;
    let mut build = vec![("node", s.node.clone()), ("cluster", s.cluster.clone()), ("version", s.version.clone())];
    build.push(("cipher_kernel", s.cipher_kernel.clone()));
    to.gauge("build_info", "What runs here; its value is 1", [(build, 1.0)])?;
    to.figure("uptime_seconds", "Since the node's start", s.uptime_ms as f64 / 1e3)?;
    let states = ["starting", "running", "draining"].map(|state| (vec![("state", state.to_owned())], state));
    let states = states.map(|(labels, state)| (labels, f64::from(u8::from(state == s.state))));
    to.gauge("state", "1 for the state that the node is in", states)?;
    let broken = s.invariants.iter().map(|i| (vec![("invariant", i.name.clone())], i.violations));
    to.counter("invariant_violations", "How often what must hold was seen broken", broken)?;
    let drops = overview.drops.iter().flat_map(|row| {
        let of = move |(core, n): (usize, &u64)| (vec![("reason", row.reason.clone()), ("core", core.to_string())], *n);
        row.cores.iter().enumerate().map(of)
    });
    to.counter("drops", "Dropped packets; reasons that never happened are left out", drops)?;
    let vips = overview.vips.iter().map(|vip| (vec![("vip", vip.name.clone())], count(vip.connections)));
    to.gauge("vip_connections", "Connections of a VIP that are known here", vips)
}

fn cores(to: &mut Families<'_>, cores: &[CoreStatus]) -> fmt::Result {
    let core = |c: &CoreStatus| vec![("core", c.core.to_string())];
    let mut gauge = |name: &str, help: &str, value: fn(&CoreStatus) -> u64| {
        to.gauge(name, help, cores.iter().map(|c| (core(c), count(value(c)))))
    };
    gauge("connections", "Connections in the table of a core that is a router", |c| c.connections)?;
    gauge("served_connections", "Connections that a core serves as a target", |c| c.tracked)?;
    gauge("waiting_packets", "Packets that wait for a sequence number or a ceiling", |c| c.waiting)?;
    to.counter("core_loops", "Rounds of a poll loop", cores.iter().map(|c| (core(c), c.loops)))?;
    let stages = cores.iter().flat_map(|c| {
        let of = move |(stage, n): (&String, &u64)| (vec![("stage", stage.clone()), ("core", c.core.to_string())], *n);
        c.stages.iter().map(of)
    });
    to.counter("stage_packets", "Packets by what was done with them", stages)
}

fn ports(to: &mut Families<'_>, ports: &[PortStatus]) -> fmt::Result {
    let port = |p: &PortStatus| vec![("port", p.name.clone()), ("role", p.role.clone())];
    to.gauge("port_up", "1 if the port has a link", ports.iter().map(|p| (port(p), f64::from(u8::from(p.up)))))?;
    let mut counter = |name: &str, help: &str, value: fn(&PortStatus) -> u64| {
        to.counter(name, help, ports.iter().map(|p| (port(p), value(p))))
    };
    counter("port_receive_packets", "Frames received", |p| p.rx_packets)?;
    counter("port_receive_bytes", "Bytes received", |p| p.rx_bytes)?;
    counter("port_transmit_packets", "Frames handed to the driver", |p| p.tx_packets)?;
    counter("port_transmit_bytes", "Bytes handed to the driver", |p| p.tx_bytes)?;
    counter("port_receive_missed", "Frames the driver lost because nobody fetched them in time", |p| p.rx_missed)?;
    counter("port_transmit_refused", "Frames the driver did not take", |p| p.tx_refused)
}

fn sas(to: &mut Families<'_>, overview: &Overview) -> fmt::Result {
    let all = overview.sas.len() as u64 + overview.sas_left_out;
    to.figure("sas", "Security associations, both directions counted", count(all))?;
    let help = "Security associations without a series of their own: the others carried more";
    to.figure("sas_left_out", help, count(overview.sas_left_out))?;
    let labels = |sa: &SaRow, share: &SaShare| {
        vec![
            ("sa", sa.id.clone()),
            ("tunnel", sa.tunnel.clone()),
            ("direction", sa.direction.clone()),
            ("holder", share.holder.clone()),
        ]
    };
    let mut counter = |name: &str, help: &str, value: fn(&SaShare) -> u64| {
        let shares = overview.sas.iter().flat_map(|sa| sa.shares.iter().map(move |share| (sa, share)));
        to.counter(name, help, shares.map(|(sa, share)| (labels(sa, share), value(share))))
    };
    counter("sa_packets", "Packets protected or verified, by who did it", |s| s.packets)?;
    counter("sa_bytes", "Bytes of ESP payload of them", |s| s.bytes)?;
    counter("sa_failed", "Packets whose integrity check failed", |s| s.failed)?;
    counter("sa_replayed", "Packets whose number was known or too old", |s| s.replayed)
}

fn targets(to: &mut Families<'_>, targets: &[TargetRow]) -> fmt::Result {
    let target = |t: &TargetRow| vec![("target", t.name.clone())];
    let ready = targets.iter().map(|t| (target(t), f64::from(u8::from(t.ready))));
    to.gauge("target_ready", "1 if the target gets new connections", ready)?;
    let packets = targets.iter().map(|t| (target(t), t.packets));
    to.counter("target_packets", "Packets a target protected or verified, as reported to this router", packets)?;
    let bytes = targets.iter().map(|t| (target(t), t.bytes));
    to.counter("target_bytes", "Bytes of ESP payload of them", bytes)
}

fn ike(to: &mut Families<'_>, figures: &IkeFigures) -> fmt::Result {
    to.figure("ike_sas", "IKE SAs, half-open ones among them", count(figures.sas))?;
    to.figure(
        "ike_half_open",
        "IKE SAs that peers began and that are not authenticated yet",
        count(figures.half_open),
    )?;
    to.figure("ike_children", "SA pairs that IKE negotiated", count(figures.children))?;
    let counted = figures.counters.iter().map(|(name, n)| (vec![("what", name.clone())], *n));
    to.counter("ike_counted", "What happened in IKE, by what it was", counted)?;
    let took = &figures.set_up;
    let bound = |ms: Option<u64>| ms.map_or(f64::INFINITY, |ms| ms as f64 / 1e3);
    let buckets: Vec<(f64, u64)> = took.buckets.iter().map(|b| (bound(b.up_to_ms), b.count)).collect();
    to.set_ups(took.sum_ms as f64 / 1e3, took.count, &buckets)
}

fn runtime(to: &mut Families<'_>, cores: &[RuntimeRow]) -> fmt::Result {
    let core = |c: &RuntimeRow| vec![("core", c.core.to_string())];
    let hertz = cores.iter().map(|c| (core(c), c.clocks_per_second));
    to.gauge("clock_hertz", "Rate of the clocks that steps are measured in", hertz)?;
    let mut counter = |name: &str, help: &str, value: fn(&StepRow) -> u64| {
        let steps = cores.iter().flat_map(|c| c.steps.iter().map(move |step| (c, step)));
        let labels = |c: &RuntimeRow, step: &StepRow| vec![("step", step.step.clone()), ("core", c.core.to_string())];
        to.counter(name, help, steps.map(|(c, step)| (labels(c, step), value(step))))
    };
    counter("step_calls", "Bursts that a step of a poll loop worked on", |s| s.calls)?;
    counter("step_packets", "Packets of them", |s| s.packets)?;
    counter("step_clocks", "Clocks they took; all steps together are all of the core's time", |s| s.clocks)
}

fn durations(to: &mut Families<'_>, rows: &[HistogramRow]) -> fmt::Result {
    let of = |of: &'static str| rows.iter().filter(move |row| row.of == of);
    to.seconds("packet_seconds", "How long packets stay on a core, or wait for something", "span", of("packet"))?;
    to.seconds("step_seconds", "How long a step takes for a burst", "step", of("burst"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ike::{SetUp, SetUpBucket};
    use crate::status::model::{DropRow, Invariant, Status, VipRow};
    use std::collections::{BTreeMap, BTreeSet};

    fn overview() -> Overview {
        let share = |holder: &str, packets| SaShare { holder: holder.into(), packets, ..SaShare::default() };
        let sa = SaRow {
            id: "00ab".into(),
            tunnel: "say \"hi\"\\".into(),
            direction: "inbound".into(),
            shares: vec![share("core 0", 7), share("t1", 9)],
            ..SaRow::default()
        };
        let mut counts = vec![0; BOUNDS_US.len() + 1];
        (counts[0], counts[3], counts[20]) = (4, 2, 1);
        let histogram = |what: &str, of: &str| HistogramRow {
            what: what.into(),
            of: of.into(),
            counts: counts.clone(),
            sum_s: 2.5,
        };
        let up = |up_to_ms, count| SetUpBucket { up_to_ms, count };
        let step = StepRow { step: "open".into(), calls: 1, packets: 2, clocks: 3, rest: false };
        Overview {
            status: Status {
                node: "r1".into(),
                state: "running".into(),
                invariants: Invariant::all([0; 9]),
                cores: vec![CoreStatus { stages: BTreeMap::from([("opened".into(), 5)]), ..CoreStatus::default() }],
                ports: vec![PortStatus {
                    name: "net".into(),
                    role: "network".into(),
                    up: true,
                    ..PortStatus::default()
                }],
                ..Status::default()
            },
            drops: DropRow::all(&[vec![0, 3], vec![0, 4]]).into_iter().filter(DropRow::happened).collect(),
            sas: vec![sa],
            sas_left_out: 12,
            vips: vec![VipRow { name: "web".into(), connections: 6, ..VipRow::default() }],
            targets: vec![TargetRow { name: "t1".into(), ready: true, packets: 9, ..TargetRow::default() }],
            ike: Some(IkeFigures {
                sas: 3,
                counters: BTreeMap::from([("cookies-sent".to_owned(), 2)]),
                set_up: SetUp {
                    count: 3,
                    sum_ms: 1500,
                    buckets: vec![up(Some(5), 2), up(None, 1)],
                    ..SetUp::default()
                },
                ..IkeFigures::default()
            }),
            runtime: vec![RuntimeRow { clocks_per_second: 2e9, steps: vec![step], ..RuntimeRow::default() }],
            histograms: vec![histogram("residence", "packet"), histogram("open", "burst")],
            ..Overview::default()
        }
    }

    /// A sample's series, without its value: checks the line by the rules of the format.
    fn series<'t>(line: &'t str, families: &BTreeMap<&str, &str>) -> &'t str {
        let (series, value) = line.rsplit_once(' ').expect("a series and its value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let ends = [
            ("counter", "_total"),
            ("gauge", ""),
            ("histogram", "_bucket"),
            ("histogram", "_sum"),
            ("histogram", "_count"),
        ];
        let fits = |(kind, end): &(&str, &str)| name.strip_suffix(end).is_some_and(|f| families.get(f) == Some(kind));
        assert!(ends.iter().any(fits), "{name} is of no family, or ends wrongly");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        series
    }

    #[test]
    fn the_text_is_what_open_metrics_allows() {
        let text = text(overview()).unwrap();
        let (body, end) = text.rsplit_once("# EOF\n").expect("the end is marked");
        assert_eq!(end, "");
        let (mut families, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for line in body.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "TYPE", family, kind] => {
                    assert!(families.insert(family, kind).is_none(), "{family} comes twice");
                    assert!(family.starts_with("phalanx_"), "{family}");
                }
                ["#", "HELP", ..] => {}
                _ => assert!(seen.insert(series(line, &families).to_owned()), "{line} comes twice"),
            }
        }
        assert!(families.len() > 25 && seen.len() > 60, "{} {}", families.len(), seen.len());
    }

    #[test]
    fn figures_are_where_their_labels_say() {
        let text = text(overview()).unwrap();
        for line in [
            "phalanx_drops_total{reason=\"bad-ethernet\",core=\"1\"} 4",
            "phalanx_sa_packets_total{sa=\"00ab\",tunnel=\"say \\\"hi\\\"\\\\\",direction=\"inbound\",holder=\"t1\"} 9",
            "phalanx_sas_left_out 12.0",
            "phalanx_sas 13.0",
            "phalanx_target_ready{target=\"t1\"} 1.0",
            "phalanx_state{state=\"running\"} 1.0",
            "phalanx_stage_packets_total{stage=\"opened\",core=\"0\"} 5",
            "phalanx_step_clocks_total{step=\"open\",core=\"0\"} 3",
            "phalanx_invariant_violations_total{invariant=\"I1\"} 0",
            "phalanx_ike_counted_total{what=\"cookies-sent\"} 2",
            "phalanx_ike_sas 3.0",
            "phalanx_ike_set_up_seconds_bucket{le=\"0.005\"} 2",
            "phalanx_ike_set_up_seconds_bucket{le=\"+Inf\"} 3",
            "phalanx_ike_set_up_seconds_sum 1.5",
            "phalanx_packet_seconds_count{span=\"residence\"} 7",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn buckets_add_up_to_the_count() {
        let text = text(overview()).unwrap();
        let of = |line: &&str| line.starts_with("phalanx_step_seconds_bucket");
        let buckets: Vec<u64> =
            text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        assert_eq!(buckets.len(), BOUNDS_US.len() + 1);
        assert!(buckets.is_sorted());
        assert_eq!((buckets[0], buckets[3], buckets[20]), (4, 6, 7));
        assert!(text.contains("le=\"+Inf\""));
    }
}
