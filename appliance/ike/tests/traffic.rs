//! Packets go both ways all the time while SAs are replaced: none is sent with an SA that the other end has not, or has no more.

mod common;

use common::*;
use phalanx_ike::*;
use phalanx_wire::Spi;
use std::collections::VecDeque;

/// A packet that travels as long as a message does: who sent it, with which SPI, when it arrives.
type Packet = (usize, Spi, Millis);

/// The SA that a data plane sends with: the one it was switched to last, of those that are there.
fn outbound(bed: &Bed, n: usize) -> Option<Spi> {
    let node = &bed.nodes[n];
    let switched = node.switched.iter().rev().find_map(|id| node.installed.get(id));
    switched.map(|i| i.sa.outbound.spi)
}

/// So many milliseconds with a packet each way every millisecond; how many arrived at nobody.
fn packets(bed: &mut Bed, ms: Millis) -> (usize, usize) {
    let mut way: VecDeque<Packet> = VecDeque::new();
    let (mut sent, mut lost) = (0, 0);
    for _ in 0..ms {
        bed.run(1);
        for n in 0..2 {
            if let Some(spi) = outbound(bed, n) {
                way.push_back((n, spi, bed.now + bed.weather.delay));
                sent += 1;
            }
        }
        while let Some((from, spi, _)) = way.front().copied().filter(|(_, _, at)| *at <= bed.now) {
            way.pop_front();
            let there = &mut bed.nodes[1 - from];
            match there.installed.values().find(|i| i.sa.inbound.spi == spi).map(|i| i.sa.id) {
                // The first one on a new SA shows that the peer uses it.
                Some(child) => there.endpoint.answer(bed.now, Answer::Verified { child }),
                None => lost += 1,
            }
        }
    }
    (sent, lost)
}

fn rekeying(jitter_percent: u8) -> Bed {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    for p in [&mut a, &mut b] {
        let life = |soft_ms| Lifetime { soft_ms, hard_ms: 10 * soft_ms, jitter_percent, ..Lifetime::default() };
        p.lifetime = life(10_000);
        change(p, |c| c.lifetime = life(2_000));
    }
    Bed::with(a, b)
}

#[test]
fn no_packet_is_lost_while_both_ends_replace_everything_all_the_time() {
    for (jitter, delay, install) in [(0, 5, 0), (0, 1, 20), (0, 40, 60), (20, 5, 5), (50, 20, 100)] {
        let mut bed = rekeying(jitter);
        bed.weather.delay = delay;
        for node in &mut bed.nodes {
            node.install = Install::After(install);
        }
        bed.initiate(0);
        bed.run(1_000);
        let (sent, lost) = packets(&mut bed, 120_000);
        assert!(sent == 240_000, "{sent} sent");
        assert_eq!(lost, 0, "of {sent}, jitter {jitter}, delay {delay}\n{}", bed.told());
        let counters = bed.nodes[0].endpoint.counters();
        assert!(counters.children_rekeyed > 30 && counters.ike_rekeyed > 8, "{counters:?}");
        assert!(bed.nodes.iter().all(|n| n.installed.len() <= 3), "{}", bed.told());
        assert!(bed.nodes.iter().all(|n| !n.says("hard limit")), "{}", bed.told());
    }
}
