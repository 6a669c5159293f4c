//! looking a packet's filter up among many; against a table of one

mod harness;
#[path = "../appliance/ipsec/tests/rules/mod.rs"]
mod rules;

use harness::{Report, Unit, clock, measure, note};
use phalanx_ipsec::{Filter, FilterTable, Flows, Subject};
use rules::{VIP, packet_of, realistic};

/// Flows that a table remembers here; a core's remembers as many as the core follows connections.
const REMEMBERED: usize = 8192;
/// Flows under way, all remembered.
const KNOWN: usize = 1024;
/// Flows that come again only after four times as many as a core remembers.
const NEW: usize = 32_768;
const COUNTS: [usize; 4] = [100, 1000, 10_000, 100_000];

fn main() {
    let report = Report::new("filters");
    for count in COUNTS {
        let rules = realistic(count);
        let mut table = FilterTable::default();
        let made = clock(|| table = FilterTable::new(rules.clone()).remembering(Flows::new(REMEMBERED)));
        let (shared, own) = table.bytes();
        note(&format!(
            "{count} filters: made in {:.1} ms, {shared} bytes and {own} of each core, {} steps at most",
            made / 1e6,
            table.worst()
        ));
        let one = FilterTable::new(realistic(1)).remembering(Flows::new(REMEMBERED));
        for (name, flows) in [("known flows", KNOWN), ("new flows", NEW)] {
            let packets = packets(&rules, flows);
            let samples = measure(|| [&table, &one].map(|table| lookups(table, &packets)));
            report.row(&format!("{name}, {count} filters"), Unit::NsPerPacket, &samples[0], "one filter", &samples[1]);
        }
    }
}

/// Nanoseconds per look-up.
fn lookups(table: &FilterTable, packets: &[Subject]) -> f64 {
    let mut sum = 0;
    let ns = clock(|| {
        for packet in packets {
            sum += table.find(VIP, packet).unwrap_or(0);
        }
    });
    std::hint::black_box(sum);
    ns / packets.len() as f64
}

/// Packets of different flows, of rules from all over the set.
fn packets(rules: &[Filter], flows: usize) -> Vec<Subject> {
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let packet = |at: usize| {
        let packet = packet_of(&rules[next() % rules.len()], next() as u32);
        // No two flows are one.
        Subject { remote_port: Some(at as u16), ..packet }
    };
    (0..flows).map(packet).collect()
}
