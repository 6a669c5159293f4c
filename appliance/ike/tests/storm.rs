//! A million datagrams of somebody without keys, at a responder whose SAs are up.

mod common;

use common::*;
use phalanx_ike::*;

/// What both ends said in a life with everything in it.
fn recorded() -> (Bed, Vec<Vec<u8>>) {
    let (a, mut b) = (peer(A, B), peer(B, A));
    (b.remote, b.liveness_ms) = (Remote::Any, 0);
    let mut bed = Bed::with(a, b);
    bed.record = true;
    bed.initiate(0);
    bed.run(1000);
    for n in [0, 1, 0, 1] {
        let (ike, child) = (bed.ike(n), bed.only_child(n));
        bed.command(n, Command::Probe { ike });
        bed.command(n, Command::RekeyChild { child });
        bed.run(5_000);
        bed.command(n, Command::RekeyIke { ike });
        bed.run(5_000);
    }
    for n in [0, 0, 1] {
        let ike = bed.ike(n);
        bed.command(n, Command::Probe { ike });
        bed.run(1000);
    }
    bed.is_up(1);
    let all = bed.wire.iter().map(|(_, bytes)| bytes.clone()).collect();
    (bed, all)
}

/// One datagram as an attacker makes it of real ones.
fn spoiled(random: &mut Seeded, all: &[Vec<u8>]) -> Vec<u8> {
    // Half of them are of late: of the IKE SA that is up.
    let from = if random.below(2) == 0 { all.len() - 8 } else { 0 };
    let mut bytes = all[from + random.below((all.len() - from) as u64) as usize].clone();
    match random.below(8) {
        // As it was: late, twice, in any order.
        0 => {}
        1 | 2 => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        3 => {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            mend(&mut bytes);
        }
        4 => {
            let other = &all[random.below(all.len() as u64) as usize];
            let (cut, from) = (random.below(bytes.len() as u64), random.below(other.len() as u64));
            bytes.truncate(cut as usize);
            bytes.extend(&other[from as usize..]);
            mend(&mut bytes);
        }
        5 => {
            // Another message ID, exchange or flags for what is sealed.
            let at = 17 + random.below(7) as usize;
            bytes[at] = random.next() as u8;
        }
        6 => {
            // A new one each time.
            let at = random.below(8) as usize;
            bytes[at] = random.next() as u8;
        }
        _ => {
            let len = random.below(200) as usize;
            bytes = (0..len).map(|_| random.next() as u8).collect();
            mend(&mut bytes);
        }
    }
    bytes
}

/// The length that the header says is right.
fn mend(bytes: &mut [u8]) {
    let len = (bytes.len() as u32).to_be_bytes();
    if let Some(field) = bytes.get_mut(24..28) {
        field.copy_from_slice(&len);
    }
}

#[test]
fn a_million_datagrams_without_keys_change_nothing() {
    let (mut bed, all) = recorded();
    let before = bed.nodes[1].ikes(bed.now).remove(0);
    let installed: Vec<_> = bed.nodes[1].installed.keys().copied().collect();
    let limits = Limits::default();
    let mut random = Seeded(42);
    for n in 0..1_000_000u64 {
        let bytes = spoiled(&mut random, &all);
        let source = match random.below(4) {
            0 => before.path.remote,
            _ => format!("198.51.100.{}:{}", random.below(250), 500 + random.below(4)).parse().unwrap(),
        };
        let local = before.path.local;
        bed.now += u64::from(n % 50 == 0);
        let responder = &mut bed.nodes[1].endpoint;
        responder.datagram(bed.now, 1_800_000_000, Path { local, remote: source }, &bytes);
        if n % 100 == 0 {
            responder.tick(bed.now, 1_800_000_000);
        }
        let (sas, half_open) = responder.count();
        assert!(half_open <= limits.half_open && sas == half_open + 1, "{sas} {half_open}");
        for output in responder.outputs() {
            assert!(matches!(output, Output::Send { .. } | Output::Event(_)), "{output:?}");
        }
    }
    let after = bed.nodes[1].ikes(bed.now).into_iter().find(|row| row.id == before.id).unwrap();
    assert_eq!((after.path, after.message_ids, after.state), (before.path, before.message_ids, before.state));
    assert!(bed.nodes[1].installed.keys().copied().eq(installed));
    // And it works.
    let child = bed.only_child(0);
    bed.command(0, Command::RekeyChild { child });
    bed.run(60_000);
    bed.is_up(1);
    let counters = bed.nodes[1].endpoint.counters();
    assert!(counters.integrity > 1000 && counters.message_id > 1000 && counters.unknown_sa > 1000, "{counters:?}");
    assert!(counters.cookies_sent > 1000 && counters.malformed > 1000, "{counters:?}");
}
