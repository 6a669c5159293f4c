//! whole paths of a packet through the engine, without I/O: router in, target in, target out; against the cipher alone

#[path = "path/bed.rs"]
mod bed;
#[path = "path/cipher.rs"]
mod cipher;
#[path = "path/cold.rs"]
mod cold;
#[path = "path/counting.rs"]
mod counting;
mod harness;
#[path = "path/shape.rs"]
mod shape;

use bed::{Bed, STAGES};
use cipher::{Alone, Op};
use cold::Cold;
use harness::{Report, Samples, Unit, measure, measure_by, note};
use shape::Shape;

/// Inner packets, IP header included.
const SIZES: [usize; 3] = [64, 512, 1420];
const BURSTS: usize = 48;
/// In turn: no packet is of the connection of the one before, and all are in the caches.
const FEW: usize = 64;
const THOUSAND: usize = 1000;
const MANY: usize = 100_000;
/// A window as those that IKE negotiates have; its bits are not beside its edges.
const LARGE: u32 = 1024;
/// More than fit any cache.
const MILLION: usize = 1_000_000;
/// What so many SAs take, at their clients too, in kB.
const OF_A_MILLION: u64 = 13_000_000;

/// Cache lines that a packet of 64 bytes needs of its SA, connection and filter, by path; a run of lines lies together. *router-in*:
/// the SA's round keys, constants, verified window and what was forwarded; the connection. *target-in*: the end of the key and the
/// constants, the window, its bits, counters, the connection. *target-out*: the flow's filter, the end of the key with constants, meter and
/// lease, counters, the connection.
const LINES: [&[usize]; 3] = [&[6, 1], &[6, 1, 1, 1, 1], &[1, 9, 1, 1]];

/// Where a packet goes, and the cipher it needs there.
const PATHS: [(&str, Op, &str); 3] = [
    ("router-in", Op::Peek, "the peek alone"),
    ("target-in", Op::Open, "the open alone"),
    ("target-out", Op::Seal, "the seal alone"),
];

fn main() {
    let report = Report::new("path");
    let shapes = [
        Shape::ONE,
        Shape { connections: FEW, ..Shape::ONE },
        Shape { connections: MILLION, ..Shape::ONE },
        Shape::each(THOUSAND),
        Shape::each(MANY),
        Shape { window: LARGE, ..Shape::each(MANY) },
        Shape::each(MILLION),
    ];
    let mut small = Vec::new();
    for (at, shape) in shapes.into_iter().enumerate() {
        if shape.sas == MILLION && available() < OF_A_MILLION {
            note(&format!("left out, as it takes {} GB of memory: {shape}", OF_A_MILLION / 1_000_000));
            continue;
        }
        note(&format!("setting up {shape}"));
        let mut bed = Bed::new(shape);
        if at == 0 {
            sizes(&report, &bed);
        }
        for size in SIZES {
            let whole = compare(&report, &mut bed, size);
            small.extend((size == SIZES[0]).then_some(whole));
        }
    }
    if let [_, few, _, _, many, ..] = &small[..] {
        against_memory(&report, few, many);
    }
}

/// Memory that may be taken, in kB; 0 if the system does not say.
fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What many SAs cost more than one with a few connections in turn, beside what memory takes for as many lines that are in no cache.
fn against_memory(report: &Report, few: &[Samples], many: &[Samples]) {
    for (at, (path, ..)) in PATHS.into_iter().enumerate() {
        let mut cold = Cold::new(LINES[at]);
        let limit = measure(|| [cold.round(BURSTS)]);
        let (lines, more) = (LINES[at].iter().sum::<usize>(), many[at].above(&few[at]));
        let name = format!("{path} {} B, what {MANY} SAs cost more than one", SIZES[0]);
        report.row(&name, Unit::NsPerPacket, &more, &format!("{lines} cold cache lines"), &limit[0]);
    }
}

/// What each path took as a whole.
fn compare(report: &Report, bed: &mut Bed, size: usize) -> Vec<Samples> {
    let text = bed.text_len(size);
    let mut alone = PATHS.map(|(_, op, _)| Alone::new(op, bed.shape().sas.min(MANY), text));
    let packets = (BURSTS * phalanx_aead::BURST) as f64;
    let mut samples = measure_by(2 * PATHS.len(), || {
        let before = bed.stages();
        let [a, b, c] = bed.round(size, BURSTS);
        let stages = bed.stages();
        let [x, y, z] = alone.each_mut().map(|cipher| cipher.round(BURSTS));
        let mut all = vec![a, b, c, x, y, z];
        all.extend(stages.iter().zip(before).map(|(after, before)| (after - before) / packets));
        all
    });
    let (whole, rest) = samples.split_at(PATHS.len());
    let (cipher, stages) = rest.split_at(PATHS.len());
    let shape = bed.shape();
    for (at, (path, _, peer)) in PATHS.into_iter().enumerate() {
        report.row(&format!("{path} {size} B, {shape}"), Unit::NsPerPacket, &whole[at], peer, &cipher[at]);
        for ((stage, _, _), samples) in STAGES.iter().zip(stages).filter(|((stage, ..), _)| stage.starts_with(path)) {
            report.row(&format!("{stage} {size} B, {shape}"), Unit::NsPerPacket, samples, peer, &cipher[at]);
        }
    }
    samples.drain(..PATHS.len()).collect()
}

/// Memory of one more.
fn sizes(report: &Report, bed: &Bed) {
    let (memory, key) = (bed.memory(), size_of::<phalanx_aead::Key>());
    report.bytes("memory of an inbound SA", memory.inbound, "its expanded key", key);
    report.bytes("memory of an outbound SA", memory.outbound, "its expanded key", key);
    report.bytes("memory of an SA's parameters, once for all cores", memory.params, "its expanded key", key);
    report.bytes("memory of a connection at the router", memory.routed, "a cache line", 64);
    report.bytes("memory of a connection at a target", memory.tracked, "a cache line", 64);
}
