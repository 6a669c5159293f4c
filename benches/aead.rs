//! ciphers on bursts of 32 packets: seal, open and peek against the aes-gcm crate, intel-ipsec-mb and the limit of the core

mod harness;
#[cfg(feature = "peer-ipsec-mb")]
#[path = "peer/ipsec_mb.rs"]
mod ipsec_mb;
#[path = "aead/picture.rs"]
mod picture;
#[path = "peer/roofline.rs"]
mod roofline;

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit, Nonce, Tag};
use arrayvec::ArrayVec;
use phalanx_aead::{
    Aad, Algorithm, BURST, Kernel, Key, NONCE_LEN, OpenOp, PeekOp, SealOp, TAG_LEN, open_burst, peek_burst, seal_burst,
};

use harness::{Report, Unit, clock, measure, note};
use picture::Pictures;

const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1420, 8192];
/// What an IP packet of 64 bytes comes to in a tunnel: no multiple of a block, as most are.
const SMALLEST: usize = 68;
/// Of the narrower kernels.
const FEW_SIZES: [usize; 4] = [64, 256, 1420, 8192];
/// The Internet mix: of twelve packets seven are small, four middling, one large.
const IMIX: [usize; 12] = [64, 576, 64, 576, 64, 1420, 64, 576, 64, 576, 64, 64];
/// What a router decrypts of a packet in tunnel mode.
const PEEK: usize = phalanx_ipsec::FIRST_PEEK;
/// What contestants are called.
const OURS: &str = "phalanx-aead";
const CRATE: &str = "aes-gcm crate, per packet";
const IPSEC_MB: &str = "intel-ipsec-mb, direct API";
/// Bytes that one contestant works through in a round.
const ROUND_BYTES: usize = 1 << 18;

#[derive(Clone, Copy, PartialEq)]
pub enum Wanted {
    Seal,
    Open,
    Peek,
}

/// One packet; every contestant works on the same memory.
struct Packet {
    nonce: [u8; NONCE_LEN],
    aad: [u8; 8],
    text: Vec<u8>,
    tag: [u8; TAG_LEN],
    /// What `text` is when sealed.
    sealed: Vec<u8>,
}

struct Bed {
    algorithm: Algorithm,
    /// Ours, and the instructions that the peer is held to.
    kernel: Kernel,
    /// Of the SAs, which the packets use in turn.
    keys: Vec<Vec<u8>>,
    /// The SA of the first packet. More SAs than packets have the same key, each in memory of its own: texts stay what they are.
    first: usize,
    packets: Vec<Packet>,
    seen: Box<[[u8; PEEK]; BURST]>,
}

/// A contestant. What it says to its cipher is made before the clock runs: whoever has packets has them in this form.
trait Cipher {
    fn name(&self, wanted: Wanted) -> &'static str;
    /// Nanoseconds of a burst.
    fn seal(&mut self, bed: &mut Bed) -> f64;
    /// As well, and how many were authentic.
    fn open(&mut self, bed: &mut Bed) -> (f64, usize);
    /// Nanoseconds of a burst.
    fn peek(&mut self, bed: &mut Bed) -> f64;
}

fn main() {
    let report = Report::new("aead");
    if cfg!(not(feature = "peer-ipsec-mb")) {
        note("without intel-ipsec-mb: that peer is left out");
    }
    let mut pictures = Pictures::default();
    let (small, large) = (Algorithm::Aes128Gcm16, Algorithm::Aes256Gcm16);
    let best = Kernel::chosen();
    for (algorithm, sas) in [(small, 1), (small, 32), (small, 1024), (large, 32)] {
        for wanted in [Wanted::Seal, Wanted::Open, Wanted::Peek] {
            for size in SIZES {
                let times = compare(&report, Bed::new(algorithm, best, sas, &[size]), wanted, &format!("{size} B"));
                if (algorithm, sas) == (small, BURST) {
                    times.into_iter().for_each(|(contestant, ns)| pictures.add(wanted, contestant, size, ns));
                }
            }
            if wanted != Wanted::Peek {
                compare(&report, Bed::new(algorithm, best, sas, &[SMALLEST]), wanted, &format!("{SMALLEST} B"));
                compare(&report, Bed::new(algorithm, best, sas, &IMIX), wanted, "IMIX");
            }
        }
    }
    for kernel in [Kernel::Avx2, Kernel::AesNi].into_iter().filter(|kernel| kernel.is_here() && *kernel != best) {
        for wanted in [Wanted::Seal, Wanted::Open] {
            for size in FEW_SIZES {
                compare(&report, Bed::new(small, kernel, 32, &[size]), wanted, &format!("{size} B"));
            }
        }
    }
    draw(&pictures, best);
}

/// `--pictures FOLDER` says where to.
fn draw(pictures: &Pictures, kernel: Kernel) {
    let folder = std::env::args().skip_while(|argument| argument != "--pictures").nth(1);
    let folder = folder.unwrap_or_else(|| "target/pictures".to_owned());
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    match pictures.write(folder.as_ref(), &format!("{model}, kernel {}", kernel.name())) {
        Ok(paths) => paths.iter().for_each(|path| note(&format!("drawn: {}", path.display()))),
        Err(error) => note(&format!("no pictures in {folder}: {error}")),
    }
}

/// Answers each contestant's best time in nanoseconds per packet, ours first.
fn compare(report: &Report, mut bed: Bed, wanted: Wanted, size: &str) -> Vec<(&'static str, f64)> {
    let mut contestants = contestants(&bed, wanted);
    for cipher in &mut contestants {
        bed.check(cipher.as_mut(), wanted);
    }
    let samples =
        measure(|| contestants.iter_mut().map(|cipher| bed.round(cipher.as_mut(), wanted)).collect::<Vec<_>>());
    let what = match wanted {
        Wanted::Seal => "seal",
        Wanted::Open => "open",
        Wanted::Peek => "peek",
    };
    let s = if bed.keys.len() == 1 { "" } else { "s" };
    let forced = if bed.kernel == Kernel::chosen() { String::new() } else { format!(", {}", bed.kernel.name()) };
    let name = format!("{} {what} {size}, {} SA{s}{forced}", bed.algorithm.name(), bed.keys.len());
    for (peer, times) in contestants.iter().zip(&samples).skip(1) {
        report.row(&name, Unit::NsPerPacket, &samples[0], peer.name(wanted), times);
    }
    contestants.iter().zip(&samples).map(|(cipher, times)| (cipher.name(wanted), times.best())).collect()
}

/// Ours is the first.
fn contestants(bed: &Bed, wanted: Wanted) -> Vec<Box<dyn Cipher>> {
    let key = |key: &Vec<u8>| Key::for_kernel(bed.kernel, bed.algorithm, key).expect("a key");
    let mut all: Vec<Box<dyn Cipher>> = vec![Box::new(Ours(bed.keys.iter().map(key).collect()))];
    if bed.kernel == Kernel::chosen() {
        all.push(crate_of(bed));
    }
    if wanted != Wanted::Peek && bed.kernel == Kernel::Avx512 {
        all.extend(roofline::Roofline::new(bed).map(|limit| Box::new(limit) as Box<dyn Cipher>));
    }
    #[cfg(feature = "peer-ipsec-mb")]
    all.push(Box::new(ipsec_mb::IpsecMb::new(bed)));
    all
}

impl Bed {
    /// The contents do not matter; that keys and nonces differ does.
    fn new(algorithm: Algorithm, kernel: Kernel, sas: usize, sizes: &[usize]) -> Bed {
        let differ = if sas > BURST { 0 } else { 7 };
        let keys = (0..sas).map(|sa| (0..algorithm.key_len()).map(|at| (differ * sa + at) as u8).collect()).collect();
        let packet = |at: usize| Packet {
            nonce: [at as u8; NONCE_LEN],
            aad: [at as u8; 8],
            text: vec![at as u8; sizes[at % sizes.len()]],
            tag: [0; TAG_LEN],
            sealed: Vec::new(),
        };
        let packets = (0..BURST).map(packet).collect();
        let mut bed = Bed { algorithm, kernel, keys, first: 0, packets, seen: Box::new([[0; PEEK]; BURST]) };
        crate_of(&bed).seal(&mut bed);
        for packet in &mut bed.packets {
            packet.sealed.clone_from(&packet.text);
        }
        bed
    }

    /// Every text is ciphertext again.
    fn restore(&mut self) {
        for packet in &mut self.packets {
            packet.text.copy_from_slice(&packet.sealed);
        }
    }

    /// All contestants do the same.
    fn check(&mut self, cipher: &mut dyn Cipher, wanted: Wanted) {
        if cipher.name(wanted) == roofline::NAME {
            return;
        }
        let tags: Vec<_> = self.packets.iter().map(|packet| packet.tag).collect();
        self.restore();
        assert_eq!(cipher.open(self).1, BURST);
        for packet in &self.packets {
            assert!(packet.text == vec![packet.nonce[0]; packet.text.len()]);
        }
        cipher.seal(self);
        assert!(self.packets.iter().zip(&tags).all(|(packet, tag)| packet.text == packet.sealed && packet.tag == *tag));
    }

    /// Nanoseconds per packet.
    fn round(&mut self, cipher: &mut dyn Cipher, wanted: Wanted) -> f64 {
        let bytes: usize = self.packets.iter().map(|packet| packet.text.len()).sum();
        let bursts = (ROUND_BYTES / bytes).max(4);
        let tags: ArrayVec<_, BURST> = self.packets.iter().map(|packet| packet.tag).collect();
        let mut ns = 0.0;
        for _ in 0..bursts {
            self.restore();
            ns += match wanted {
                Wanted::Seal => cipher.seal(self),
                Wanted::Open => {
                    let (ns, authentic) = cipher.open(self);
                    assert_eq!(authentic, BURST);
                    ns
                }
                Wanted::Peek => cipher.peek(self),
            };
            self.first = (self.first + BURST) % self.keys.len();
            // A seal of what was sealed already makes other tags.
            self.packets.iter_mut().zip(&tags).for_each(|(packet, tag)| packet.tag = *tag);
        }
        ns / (bursts * BURST) as f64
    }
}

struct Ours(Vec<Key>);

impl Cipher for Ours {
    fn name(&self, _: Wanted) -> &'static str {
        OURS
    }

    fn seal(&mut self, bed: &mut Bed) -> f64 {
        let mut ops = ArrayVec::<SealOp<'_>, BURST>::new();
        let keys = self.0.iter().cycle().skip(bed.first);
        for (Packet { nonce, aad, text, tag, .. }, key) in bed.packets.iter_mut().zip(keys) {
            ops.push(SealOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag });
        }
        clock(|| seal_burst(&mut ops))
    }

    fn open(&mut self, bed: &mut Bed) -> (f64, usize) {
        let mut ops = ArrayVec::<OpenOp<'_>, BURST>::new();
        let keys = self.0.iter().cycle().skip(bed.first);
        for (Packet { nonce, aad, text, tag, .. }, key) in bed.packets.iter_mut().zip(keys) {
            ops.push(OpenOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag, authentic: false });
        }
        let ns = clock(|| open_burst(&mut ops));
        (ns, ops.iter().filter(|op| op.authentic).count())
    }

    fn peek(&mut self, bed: &mut Bed) -> f64 {
        let mut ops = ArrayVec::<PeekOp<'_>, BURST>::new();
        let keys = self.0.iter().cycle().skip(bed.first);
        for ((packet, key), out) in bed.packets.iter().zip(keys).zip(bed.seen.iter_mut()) {
            let cipher = &packet.text[..packet.text.len().min(PEEK)];
            ops.push(PeekOp { key, nonce: packet.nonce, block: 0, cipher, out });
        }
        clock(|| peek_burst(&mut ops))
    }
}

/// The aes-gcm crate, packet by packet.
struct Crate<G>(Vec<G>);

impl<G: KeyInit + AeadInOut> Crate<G> {
    fn new(bed: &Bed) -> Crate<G> {
        Crate(bed.keys.iter().map(|key| G::new_from_slice(key).expect("a key")).collect())
    }
}

/// It for the bed's algorithm.
fn crate_of(bed: &Bed) -> Box<dyn Cipher> {
    match bed.algorithm {
        Algorithm::Aes128Gcm16 => Box::new(Crate::<Aes128Gcm>::new(bed)),
        _ => Box::new(Crate::<Aes256Gcm>::new(bed)),
    }
}

impl<G: KeyInit + AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>> Cipher
    for Crate<G>
{
    fn name(&self, wanted: Wanted) -> &'static str {
        match wanted {
            Wanted::Peek => "aes-gcm crate, packet opened",
            _ => CRATE,
        }
    }

    fn seal(&mut self, bed: &mut Bed) -> f64 {
        let packets = bed.packets.iter_mut().zip(self.0.iter().cycle().skip(bed.first));
        clock(|| {
            for (Packet { nonce, aad, text, tag, .. }, gcm) in packets {
                let sealed = gcm.encrypt_inout_detached(&(*nonce).into(), aad, text.as_mut_slice().into());
                tag.copy_from_slice(&sealed.expect("a short text"));
            }
        })
    }

    fn open(&mut self, bed: &mut Bed) -> (f64, usize) {
        let mut authentic = 0;
        let packets = bed.packets.iter_mut().zip(self.0.iter().cycle().skip(bed.first));
        let ns = clock(|| {
            for (Packet { nonce, aad, text, tag, .. }, gcm) in packets {
                let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
                let opened = gcm.decrypt_inout_detached(&nonce, aad, text.as_mut_slice().into(), &tag);
                authentic += usize::from(opened.is_ok());
            }
        });
        (ns, authentic)
    }

    /// What a router would have to do without a peek.
    fn peek(&mut self, bed: &mut Bed) -> f64 {
        self.open(bed).0
    }
}
