//! whether ciphers take the same time whatever keys, texts and tags are: Welch's t-test over two classes of inputs, as dudect does
//!
//! A word that is no option picks the rows that have it in their names.

#[path = "constant-time/welch.rs"]
mod welch;

use std::process::ExitCode;
use std::time::Instant;

use phalanx_aead::{
    Aad, Algorithm, Kernel, Key, NONCE_LEN, OpenOp, PeekOp, SealOp, TAG_LEN, open_burst, peek_burst, seal_burst,
};

/// Beyond this nobody believes in chance: the bound of the literature (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant
/// time?", 2017; ISO/IEC 17825).
const BOUND: f64 = 4.5;
/// Measurements of a row. One that is beyond the bound is repeated with more: what is a leak grows, what was chance goes.
const MEASUREMENTS: usize = 200_000;
const MORE: usize = 4;
/// Packets that are measured together, so that the clock's own time matters little.
const PACKETS: usize = 8;
/// Bytes of a packet: several vectors and a part of one. With AES-CBC and HMAC-SHA-512, IV and half of the ICV and whole blocks.
const LEN: usize = 208;
/// Of the algorithms that are not AES-GCM, each kind once.
const OTHERS: [Algorithm; 4] =
    [Algorithm::ChaCha20Poly1305, Algorithm::Aes128Gmac, Algorithm::Aes256CbcSha512, Algorithm::NullSha384];
/// The longest key of them.
const KEY: usize = 96;
/// Inputs of a class.
const ROWS: usize = 64;

/// One input: every packet of a measurement is the same.
#[derive(Clone)]
struct Row {
    key: [u8; KEY],
    nonce: [u8; NONCE_LEN],
    plain: [u8; LEN],
    cipher: [u8; LEN],
    tag: [u8; TAG_LEN],
}

/// What is to be seen.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    /// The time says nothing about what is different.
    Same,
    /// Shows that this program sees a difference where there is one.
    Different,
    /// It may: it is no secret.
    Either,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Of a key.
    Expand,
    Seal,
    Open,
    Peek,
    /// A comparison as nobody should write it: it ends where the first difference is.
    Naive,
}

struct Trial<'a> {
    name: String,
    expected: Expected,
    kernel: Kernel,
    algorithm: Algorithm,
    work: Work,
    classes: [&'a [Row]; 2],
}

fn main() -> ExitCode {
    let json = std::env::args().any(|arg| arg == "--json");
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut ok = true;
    if !json {
        println!("{:<66} {:>8} {:>8} {:>9}  verdict", "name", "t", "ns apart", "measured");
    }
    for algorithm in Algorithm::GCM.into_iter().chain(OTHERS) {
        let inputs = Inputs::new(algorithm, &mut random);
        for trial in inputs.trials(algorithm).into_iter().filter(|trial| trial.name.contains(&wanted)) {
            ok &= trial.judge(&mut random, json);
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The classes that are compared.
struct Inputs {
    fixed: Vec<Row>,
    random: Vec<Row>,
    /// As `random`, with tags that are wrong in the first byte, in the last one, in one bit, and all over.
    first: Vec<Row>,
    last: Vec<Row>,
    bit: Vec<Row>,
    all: Vec<Row>,
}

impl Inputs {
    fn new(algorithm: Algorithm, random: &mut Random) -> Inputs {
        let fixed = vec![Row::new(algorithm, &mut Random(7)); ROWS];
        let rows: Vec<Row> = (0..ROWS).map(|_| Row::new(algorithm, random)).collect();
        let mut spoilt = |spoil: &mut dyn FnMut(&mut [u8; TAG_LEN], u64)| {
            let mut rows = rows.clone();
            rows.iter_mut().for_each(|row| spoil(&mut row.tag, random.next()));
            rows
        };
        Inputs {
            fixed,
            first: spoilt(&mut |tag, by| tag[0] ^= by as u8 | 1),
            last: spoilt(&mut |tag, by| tag[15] ^= by as u8 | 1),
            bit: spoilt(&mut |tag, by| tag[by as usize % 16] ^= 1 << (by >> 8 & 7)),
            all: spoilt(&mut |tag, by| tag.iter_mut().enumerate().for_each(|(at, b)| *b ^= (by >> (4 * at)) as u8 | 1)),
            random: rows,
        }
    }

    fn trials(&self, algorithm: Algorithm) -> Vec<Trial<'_>> {
        use Expected::{Different, Either, Same};
        let Inputs { fixed, random, first, last, bit, all } = self;
        let cases: [(&str, Expected, Work, [&[Row]; 2]); 7] = [
            ("expand, key fixed / random", Same, Work::Expand, [fixed, random]),
            ("seal, key and text fixed / random", Same, Work::Seal, [fixed, random]),
            ("open, key and text fixed / random", Same, Work::Open, [fixed, random]),
            ("peek, key and text fixed / random", Same, Work::Peek, [fixed, random]),
            ("open, first / last byte of the tag wrong", Same, Work::Open, [first, last]),
            ("open, one bit / every byte of the tag wrong", Same, Work::Open, [bit, all]),
            ("open, tag right / wrong, no secret", Either, Work::Open, [random, bit]),
        ];
        let mut trials = Vec::new();
        if algorithm == Algorithm::GCM[0] {
            let name = "control: a comparison that ends at the first difference".into();
            let (expected, work, classes) = (Different, Work::Naive, [&first[..], &last[..]]);
            trials.push(Trial { name, expected, kernel: Kernel::Portable, algorithm, work, classes });
        }
        // What is not AES-GCM has one kernel.
        let here = |kernel: &Kernel| kernel.is_here() && (*kernel == Kernel::Portable || !OTHERS.contains(&algorithm));
        for kernel in Kernel::ALL.into_iter().filter(here) {
            for (what, expected, work, classes) in cases {
                let name = format!("{} {}, {what}", algorithm.name(), kernel.name());
                trials.push(Trial { name, expected, kernel, algorithm, work, classes });
            }
        }
        trials
    }
}

impl Row {
    fn new(algorithm: Algorithm, random: &mut Random) -> Row {
        let mut row = Row {
            key: random.bytes(),
            nonce: random.bytes(),
            plain: random.bytes(),
            cipher: [0; LEN],
            tag: [0; TAG_LEN],
        };
        row.cipher = row.plain;
        let key = expanded(&row.key, Kernel::chosen(), algorithm);
        let (text, tag) = (&mut row.cipher, &mut row.tag);
        seal_burst(&mut [SealOp { key: &key, nonce: row.nonce, aad: aad(), text, tag }]);
        row
    }
}

fn expanded(key: &[u8; KEY], kernel: Kernel, algorithm: Algorithm) -> Key {
    Key::for_kernel(kernel, algorithm, &key[..algorithm.key_len()]).expect("a key of this length")
}

fn aad() -> Aad {
    Aad::esp(0x1001, 7, false)
}

/// What is measured works on this: all of an input is copied into the same memory for both classes, the key is expanded in the same
/// place. Where an input came from would show, by the cache lines that it has.
struct Bed {
    bytes: [u8; KEY],
    texts: [[u8; LEN]; PACKETS],
    tags: [[u8; TAG_LEN]; PACKETS],
    key: Key,
    nonce: [u8; NONCE_LEN],
    /// A naive comparison's other side.
    right: [u8; TAG_LEN],
}

impl Trial<'_> {
    /// Measures, shows what came out, and says whether it is as it should be.
    fn judge(&self, random: &mut Random, json: bool) -> bool {
        let mut worst = self.measure(MEASUREMENTS, random);
        if self.expected == Expected::Same && worst.t.abs() > BOUND {
            worst = self.measure(MORE * MEASUREMENTS, random);
        }
        let beyond = worst.t.abs() > BOUND;
        let (ok, verdict) = match (self.expected, beyond) {
            (Expected::Same, false) => (true, "no difference seen"),
            (Expected::Same, true) => (false, "DIFFERS"),
            (Expected::Different, true) => (true, "seen, as it should be"),
            (Expected::Different, false) => (false, "NOT SEEN: this machine is too busy to tell anything"),
            (Expected::Either, true) => (true, "differs, and may"),
            (Expected::Either, false) => (true, "no difference seen"),
        };
        if json {
            let row = serde_json::json!({
                "group": "constant-time", "name": self.name, "t": worst.t, "bound": BOUND, "ns_apart": worst.apart,
                "measurements": worst.measured, "cropped": worst.cropped, "verdict": verdict, "ok": ok,
            });
            println!("{row}");
        } else {
            let welch::Worst { t, apart, measured, .. } = worst;
            println!("{:<66} {t:>8.2} {apart:>8.2} {measured:>9}  {verdict}", self.name);
        }
        ok
    }

    /// Each measurement is of a class that chance chooses.
    fn measure(&self, count: usize, random: &mut Random) -> welch::Worst {
        let first = &self.classes[0][0];
        let mut bed = Bed {
            texts: [[0; LEN]; PACKETS],
            tags: [[0; TAG_LEN]; PACKETS],
            bytes: first.key,
            key: expanded(&first.key, self.kernel, self.algorithm),
            nonce: first.nonce,
            right: [0; TAG_LEN],
        };
        let mut samples = Vec::with_capacity(count);
        for at in 0..count + count / 20 {
            let chance = random.next();
            let class = (chance >> 63) as usize;
            let row = (chance >> 32) as usize % ROWS;
            let ns = self.once(&mut bed, class, row);
            // The first are for the caches.
            if at >= count / 20 {
                samples.push(welch::Sample { class, ns });
            }
        }
        welch::worst(samples)
    }

    /// Nanoseconds.
    fn once(&self, bed: &mut Bed, class: usize, row: usize) -> f64 {
        let row = &self.classes[class][row];
        let text = if self.work == Work::Seal { &row.plain } else { &row.cipher };
        bed.texts.iter_mut().for_each(|to| to.copy_from_slice(text));
        bed.tags.iter_mut().for_each(|to| to.copy_from_slice(&row.tag));
        (bed.nonce, bed.bytes) = (row.nonce, row.key);
        if self.work == Work::Naive {
            // One byte at most is wrong in either class, so that all others are those of the right tag.
            bed.right = row.tag;
            bed.right[if class == 0 { 0 } else { TAG_LEN - 1 }] ^= 1;
            return naive(bed);
        }
        if self.work == Work::Expand {
            return clock(|| bed.key = expanded(&bed.bytes, self.kernel, self.algorithm));
        }
        bed.key = expanded(&bed.bytes, self.kernel, self.algorithm);
        match self.work {
            Work::Seal => seal(bed),
            Work::Open => open(bed),
            Work::Peek | Work::Naive | Work::Expand => peek(bed),
        }
    }
}

fn clock(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

#[inline(never)]
fn seal(Bed { texts, tags, key, nonce, .. }: &mut Bed) -> f64 {
    let mut pairs = texts.iter_mut().zip(tags);
    let mut ops: [SealOp<'_>; PACKETS] = std::array::from_fn(|_| {
        let (text, tag) = pairs.next().expect("one for each packet");
        SealOp { key, nonce: *nonce, aad: aad(), text, tag }
    });
    clock(|| seal_burst(&mut ops))
}

#[inline(never)]
fn open(Bed { texts, tags, key, nonce, .. }: &mut Bed) -> f64 {
    let mut pairs = texts.iter_mut().zip(tags);
    let mut ops: [OpenOp<'_>; PACKETS] = std::array::from_fn(|_| {
        let (text, tag) = pairs.next().expect("one for each packet");
        OpenOp { key, nonce: *nonce, aad: aad(), text, tag, authentic: false }
    });
    clock(|| open_burst(&mut ops))
}

#[inline(never)]
fn peek(Bed { texts, key, nonce, .. }: &mut Bed) -> f64 {
    let mut seen = [[0; LEN]; PACKETS];
    let mut pairs = texts.iter().zip(&mut seen);
    let mut ops: [PeekOp<'_>; PACKETS] = std::array::from_fn(|_| {
        let (cipher, out) = pairs.next().expect("one for each packet");
        PeekOp { key, nonce: *nonce, block: 0, cipher, out }
    });
    clock(|| peek_burst(&mut ops))
}

#[inline(never)]
fn naive(Bed { tags, right, .. }: &mut Bed) -> f64 {
    let mut same = 0;
    let ns = clock(|| {
        for tag in tags.iter() {
            same += usize::from(std::hint::black_box(tag).iter().zip(right.iter()).all(|(a, b)| a == b));
        }
    });
    assert_eq!(same, 0);
    ns
}

/// Splitmix64: which inputs there are should be the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}
