//! whole paths of a packet through the engine, without I/O: router in, target in, target out; against the cipher alone

#[path = "path/bed.rs"]
mod bed;
#[path = "path/cipher.rs"]
mod cipher;
mod harness;

use bed::{Bed, Shape};
use cipher::{Alone, Op};
use harness::{Report, Unit, measure, note};

/// Inner packets, IP header included.
const SIZES: [usize; 3] = [64, 512, 1420];
const BURSTS: usize = 48;
const MANY: usize = 100_000;
/// What the connection table takes of one peer.
const OF_ONE_PEER: usize = 65_536;

/// Where a packet goes, and the cipher it needs there.
const PATHS: [(&str, Op, &str); 3] = [
    ("router-in", Op::Peek, "the peek alone"),
    ("target-in", Op::Open, "the open alone"),
    ("target-out", Op::Seal, "the seal alone"),
];

fn main() {
    let report = Report::new("path");
    if std::env::var_os("QUICK").is_some() {
        for shape in [Shape { sas: 1, tunnels: 1, connections: 1 }, Shape { sas: MANY, tunnels: 1, connections: MANY }]
        {
            note(&format!("setting up {shape}"));
            let mut bed = Bed::new(shape);
            for _ in 0..std::env::var("QUICK").unwrap().parse().unwrap_or(1) {
                compare(&report, &mut bed, 64);
            }
        }
        return;
    }
    let shapes = [
        Shape { sas: 1, tunnels: 1, connections: 1 },
        Shape { sas: 1, tunnels: 1, connections: OF_ONE_PEER },
        Shape { sas: MANY, tunnels: 1, connections: MANY },
        Shape { sas: 1000, tunnels: 1000, connections: 1000 },
    ];
    for shape in shapes {
        note(&format!("setting up {shape}"));
        let mut bed = Bed::new(shape);
        for size in SIZES {
            compare(&report, &mut bed, size);
        }
    }
}

fn compare(report: &Report, bed: &mut Bed, size: usize) {
    let text = bed.text_len(size);
    let mut alone = PATHS.map(|(_, op, _)| Alone::new(op, bed.shape().sas, text));
    let samples = measure(|| {
        let [a, b, c] = bed.round(size, BURSTS);
        let [x, y, z] = alone.each_mut().map(|cipher| cipher.round(BURSTS));
        [a, b, c, x, y, z]
    });
    let (whole, cipher) = samples.split_at(PATHS.len());
    let shape = bed.shape();
    for (at, (path, op, peer)) in PATHS.into_iter().enumerate() {
        // An SA that no tunnel of its own leads to carries nothing out.
        if op == Op::Seal && shape.sas != shape.tunnels {
            continue;
        }
        report.row(&format!("{path} {size} B, {shape}"), Unit::NsPerPacket, &whole[at], peer, &cipher[at]);
    }
}
