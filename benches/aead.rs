//! ciphers on bursts of 32 packets: seal, open and peek against the aes-gcm crate and intel-ipsec-mb

mod harness;
#[cfg(feature = "peer-ipsec-mb")]
#[path = "peer/ipsec_mb.rs"]
mod ipsec_mb;

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit, Nonce, Tag};
use arrayvec::ArrayVec;
use phalanx_aead::{
    Aad, Algorithm, BURST, Key, NONCE_LEN, OpenOp, PeekOp, SealOp, TAG_LEN, open_burst, peek_burst, seal_burst,
};

use harness::{Report, Unit, clock, measure, note};

const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1420, 8192];
/// What a router decrypts of a packet in tunnel mode.
const PEEK: usize = phalanx_ipsec::FIRST_PEEK;
/// Bytes that one contestant works through in a round.
const ROUND_BYTES: usize = 1 << 18;

#[derive(Clone, Copy, PartialEq)]
enum Wanted {
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
    /// Of the SAs, which the packets use in turn.
    keys: Vec<Vec<u8>>,
    packets: Vec<Packet>,
    seen: Box<[[u8; PEEK]; BURST]>,
}

/// A contestant.
trait Cipher {
    fn name(&self, wanted: Wanted) -> &'static str;
    fn seal(&mut self, bed: &mut Bed);
    /// How many were authentic.
    fn open(&mut self, bed: &mut Bed) -> usize;
    fn peek(&mut self, bed: &mut Bed);
}

fn main() {
    let report = Report::new("aead");
    if cfg!(not(feature = "peer-ipsec-mb")) {
        note("without intel-ipsec-mb: that peer is left out");
    }
    let cases = [(Algorithm::Aes128Gcm16, 1), (Algorithm::Aes128Gcm16, 32), (Algorithm::Aes256Gcm16, 32)];
    for (algorithm, sas) in cases {
        for wanted in [Wanted::Seal, Wanted::Open, Wanted::Peek] {
            for size in SIZES {
                compare(&report, algorithm, sas, wanted, size);
            }
        }
    }
}

fn compare(report: &Report, algorithm: Algorithm, sas: usize, wanted: Wanted, size: usize) {
    let mut bed = Bed::new(algorithm, sas, size);
    let mut contestants = contestants(&bed);
    for cipher in &mut contestants {
        bed.check(cipher.as_mut());
    }
    let samples =
        measure(|| contestants.iter_mut().map(|cipher| bed.round(cipher.as_mut(), wanted)).collect::<Vec<_>>());
    let what = match wanted {
        Wanted::Seal => "seal",
        Wanted::Open => "open",
        Wanted::Peek => "peek",
    };
    let s = if sas == 1 { "" } else { "s" };
    let name = format!("{} {what} {size} B, {sas} SA{s}", algorithm.name());
    for (peer, times) in contestants.iter().zip(&samples).skip(1) {
        report.row(&name, Unit::NsPerPacket, &samples[0], peer.name(wanted), times);
    }
}

/// Ours is the first.
fn contestants(bed: &Bed) -> Vec<Box<dyn Cipher>> {
    let ours = Box::new(Ours(bed.keys.iter().map(|key| Key::new(bed.algorithm, key).expect("a key")).collect()));
    vec![
        ours,
        crate_of(bed),
        #[cfg(feature = "peer-ipsec-mb")]
        Box::new(ipsec_mb::IpsecMb::new(bed)),
    ]
}

impl Bed {
    /// The contents do not matter; that keys and nonces differ does.
    fn new(algorithm: Algorithm, sas: usize, size: usize) -> Bed {
        let keys = (0..sas).map(|sa| (0..algorithm.key_len()).map(|at| (7 * sa + at) as u8).collect()).collect();
        let packet = |at: usize| Packet {
            nonce: [at as u8; NONCE_LEN],
            aad: [at as u8; 8],
            text: vec![at as u8; size],
            tag: [0; TAG_LEN],
            sealed: Vec::new(),
        };
        let packets = (0..BURST).map(packet).collect();
        let mut bed = Bed { algorithm, keys, packets, seen: Box::new([[0; PEEK]; BURST]) };
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
    fn check(&mut self, cipher: &mut dyn Cipher) {
        let tags: Vec<_> = self.packets.iter().map(|packet| packet.tag).collect();
        self.restore();
        assert_eq!(cipher.open(self), BURST);
        for packet in &self.packets {
            assert!(packet.text == vec![packet.nonce[0]; packet.text.len()]);
        }
        cipher.seal(self);
        assert!(self.packets.iter().zip(&tags).all(|(packet, tag)| packet.text == packet.sealed && packet.tag == *tag));
    }

    /// Nanoseconds per packet.
    fn round(&mut self, cipher: &mut dyn Cipher, wanted: Wanted) -> f64 {
        let size = self.packets[0].text.len();
        let bursts = (ROUND_BYTES / (BURST * size)).max(4);
        let tags: ArrayVec<_, BURST> = self.packets.iter().map(|packet| packet.tag).collect();
        let mut ns = 0.0;
        for _ in 0..bursts {
            self.restore();
            ns += match wanted {
                Wanted::Seal => clock(|| cipher.seal(self)),
                Wanted::Open => clock(|| assert_eq!(cipher.open(self), BURST)),
                Wanted::Peek => clock(|| cipher.peek(self)),
            };
            // A seal of what was sealed already makes other tags.
            self.packets.iter_mut().zip(&tags).for_each(|(packet, tag)| packet.tag = *tag);
        }
        ns / (bursts * BURST) as f64
    }
}

struct Ours(Vec<Key>);

impl Cipher for Ours {
    fn name(&self, _: Wanted) -> &'static str {
        "phalanx-aead"
    }

    fn seal(&mut self, bed: &mut Bed) {
        let mut ops = ArrayVec::<SealOp<'_>, BURST>::new();
        for (Packet { nonce, aad, text, tag, .. }, key) in bed.packets.iter_mut().zip(self.0.iter().cycle()) {
            ops.push(SealOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag });
        }
        seal_burst(&mut ops);
    }

    fn open(&mut self, bed: &mut Bed) -> usize {
        let mut ops = ArrayVec::<OpenOp<'_>, BURST>::new();
        for (Packet { nonce, aad, text, tag, .. }, key) in bed.packets.iter_mut().zip(self.0.iter().cycle()) {
            ops.push(OpenOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag, authentic: false });
        }
        open_burst(&mut ops);
        ops.iter().filter(|op| op.authentic).count()
    }

    fn peek(&mut self, bed: &mut Bed) {
        let mut ops = ArrayVec::<PeekOp<'_>, BURST>::new();
        for ((packet, key), out) in bed.packets.iter().zip(self.0.iter().cycle()).zip(bed.seen.iter_mut()) {
            let cipher = &packet.text[..packet.text.len().min(PEEK)];
            ops.push(PeekOp { key, nonce: packet.nonce, block: 0, cipher, out });
        }
        peek_burst(&mut ops);
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
        Algorithm::Aes256Gcm16 => Box::new(Crate::<Aes256Gcm>::new(bed)),
    }
}

impl<G: KeyInit + AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>> Cipher
    for Crate<G>
{
    fn name(&self, wanted: Wanted) -> &'static str {
        match wanted {
            Wanted::Peek => "aes-gcm crate, packet opened",
            _ => "aes-gcm crate, per packet",
        }
    }

    fn seal(&mut self, bed: &mut Bed) {
        for (Packet { nonce, aad, text, tag, .. }, gcm) in bed.packets.iter_mut().zip(self.0.iter().cycle()) {
            let sealed = gcm.encrypt_inout_detached(&(*nonce).into(), aad, text.as_mut_slice().into());
            tag.copy_from_slice(&sealed.expect("a short text"));
        }
    }

    fn open(&mut self, bed: &mut Bed) -> usize {
        let mut authentic = 0;
        for (Packet { nonce, aad, text, tag, .. }, gcm) in bed.packets.iter_mut().zip(self.0.iter().cycle()) {
            let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
            authentic += usize::from(gcm.decrypt_inout_detached(&nonce, aad, text.as_mut_slice().into(), &tag).is_ok());
        }
        authentic
    }

    /// What a router would have to do without a peek.
    fn peek(&mut self, bed: &mut Bed) {
        self.open(bed);
    }
}
