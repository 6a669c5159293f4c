//! Bursts of packets on every kernel that the processor has, and on several at once: the same bytes as the portable one gives, no
//! byte changed around a packet, and of a packet that is not genuine nothing but the ciphertext that it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_aead::{Aad, Algorithm, Kernel, Key, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst};

/// Bytes on either side of each packet, which are nobody's to change.
const AROUND: usize = 80;
const SAS: usize = 8;
const PACKETS: usize = 64;
/// Of all packets of a burst.
const BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let seed = input.byte();
    let algorithms = input.byte();
    // Which kernel each SA has where they differ.
    let mixed: Vec<Kernel> = (0..SAS).map(|_| Kernel::ALL[usize::from(input.byte() % 4)]).collect();
    let packets = packets(&mut input);

    let expected = Burst::new(&packets, &[Kernel::Portable; SAS], algorithms, seed);
    let sealed = expected.seal();
    let damaged: Vec<_> = packets.iter().zip(&sealed).map(|(packet, sealed)| packet.damaged(sealed)).collect();
    let opened = expected.open(&damaged);
    for ((packet, (genuine, memory)), damaged) in packets.iter().zip(&opened).zip(&damaged) {
        assert_eq!(*genuine, damaged.genuine);
        assert!(*memory == if *genuine { packet.laid_out() } else { damaged.memory.clone() }, "the oracle itself");
    }
    let peeked = expected.peek();

    let all = Kernel::ALL.map(|kernel| vec![kernel; SAS]);
    for kernels in all.iter().chain([&mixed]).filter(|kernels| kernels.iter().all(|kernel| kernel.is_here())) {
        let burst = Burst::new(&packets, kernels, algorithms, seed);
        assert!(burst.seal() == sealed, "sealed otherwise: {kernels:?} {packets:?}");
        assert!(burst.open(&damaged) == opened, "opened otherwise: {kernels:?} {packets:?}");
        assert!(burst.peek() == peeked, "peeked otherwise: {kernels:?} {packets:?}");
    }
});

/// Reads numbers as long as there are some, then zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }
}

#[derive(Debug)]
struct Packet {
    sa: usize,
    nonce: [u8; 12],
    aad: Vec<u8>,
    misaligned: usize,
    len: usize,
    /// What the plaintext is made of.
    fill: u8,
    /// What happens to it, and to which bit.
    damage: u8,
    bit: usize,
    /// Where a peek begins, and for how much it has room.
    block: u32,
    room: usize,
}

/// Twelve bytes of input each: where, how long, what is wrong with it.
fn packets(input: &mut Input<'_>) -> Vec<Packet> {
    let (mut packets, mut bytes) = (Vec::new(), 0);
    while !input.0.is_empty() && packets.len() < PACKETS && bytes < BYTES {
        let shape = input.byte();
        let len = match shape & 7 {
            0..=3 => usize::from(input.byte()),
            4..=6 => input.number() % 1_600,
            _ => input.number() % 9_001,
        };
        bytes += len;
        let count = packets.len() as u8;
        let nonce = std::array::from_fn(|n| if n < 4 { shape } else { count.wrapping_mul(n as u8) });
        let sa = usize::from(shape >> 3) % SAS;
        let aad = vec![shape; [8, 12, 0, 16][usize::from(shape >> 6)]];
        let (misaligned, fill) = (usize::from(input.byte() % 64), input.byte());
        let (damage, bit) = (input.byte(), input.number());
        let (block, room) = (input.byte().into(), input.number() % 1_600);
        // Blocks that wrap around, too.
        let block = if block > 250 { u32::MAX - (block - 250) } else { block };
        packets.push(Packet { sa, nonce, aad, misaligned, len, fill, damage, bit, block, room });
    }
    packets
}

/// A sealed packet as it arrives.
#[derive(Clone)]
struct Arrived {
    memory: Vec<u8>,
    tag: [u8; 16],
    nonce: [u8; 12],
    aad: Vec<u8>,
    genuine: bool,
}

impl Packet {
    /// The plaintext in the middle of other bytes.
    fn laid_out(&self) -> Vec<u8> {
        let mut memory = vec![0xa5; AROUND + self.misaligned + self.len + AROUND];
        for (at, byte) in self.text(&mut memory).iter_mut().enumerate() {
            *byte = self.fill.wrapping_mul(at as u8) ^ (at >> 8) as u8;
        }
        memory
    }

    fn text<'a>(&self, memory: &'a mut [u8]) -> &'a mut [u8] {
        &mut memory[AROUND + self.misaligned..][..self.len]
    }

    fn damaged(&self, (memory, tag): &(Vec<u8>, [u8; 16])) -> Arrived {
        let mut it =
            Arrived { memory: memory.clone(), tag: *tag, nonce: self.nonce, aad: self.aad.clone(), genuine: true };
        let part = match self.damage & 15 {
            0..=2 => &mut it.tag[..],
            3..=5 => self.text(&mut it.memory),
            6 => &mut it.aad[..],
            7 => &mut it.nonce[..],
            _ => return it,
        };
        if !part.is_empty() {
            part[self.bit / 8 % part.len()] ^= 1 << (self.bit % 8);
            it.genuine = false;
        }
        it
    }
}

struct Burst<'a> {
    packets: &'a [Packet],
    keys: Vec<Key>,
}

impl<'a> Burst<'a> {
    /// `algorithms`: a bit for each SA.
    fn new(packets: &'a [Packet], kernels: &[Kernel], algorithms: u8, seed: u8) -> Burst<'a> {
        let key = |(sa, kernel): (usize, &Kernel)| {
            let long = algorithms >> sa & 1 == 1;
            let algorithm = if long { Algorithm::Aes256Gcm16 } else { Algorithm::Aes128Gcm16 };
            let bytes: Vec<u8> =
                (0..algorithm.key_len()).map(|at| seed.wrapping_mul(at as u8 | 1) ^ sa as u8).collect();
            Key::for_kernel(*kernel, algorithm, &bytes).unwrap()
        };
        Burst { packets, keys: kernels.iter().enumerate().map(key).collect() }
    }

    fn seal(&self) -> Vec<(Vec<u8>, [u8; 16])> {
        let mut sealed: Vec<_> = self.packets.iter().map(|packet| (packet.laid_out(), [0; 16])).collect();
        let mut ops = Vec::new();
        for (packet, (memory, tag)) in self.packets.iter().zip(&mut sealed) {
            let (key, nonce, aad) = (&self.keys[packet.sa], packet.nonce, Aad::new(&packet.aad));
            ops.push(SealOp { key, nonce, aad, text: packet.text(memory), tag });
        }
        seal_burst(&mut ops);
        sealed
    }

    /// Whether each is genuine, and its memory afterwards.
    fn open(&self, arrived: &[Arrived]) -> Vec<(bool, Vec<u8>)> {
        let mut memory: Vec<_> = arrived.iter().map(|arrived| arrived.memory.clone()).collect();
        let mut ops = Vec::new();
        for ((packet, it), memory) in self.packets.iter().zip(arrived).zip(&mut memory) {
            let (key, nonce, aad) = (&self.keys[packet.sa], it.nonce, Aad::new(&it.aad));
            ops.push(OpenOp { key, nonce, aad, text: packet.text(memory), tag: &it.tag, authentic: false });
        }
        open_burst(&mut ops);
        let authentic: Vec<bool> = ops.iter().map(|op| op.authentic).collect();
        authentic.into_iter().zip(memory).collect()
    }

    fn peek(&self) -> Vec<Vec<u8>> {
        let texts: Vec<_> = self.packets.iter().map(Packet::laid_out).collect();
        let mut seen: Vec<_> = self.packets.iter().map(|packet| vec![0x5a; packet.room + AROUND]).collect();
        let mut ops = Vec::new();
        for ((packet, cipher), out) in self.packets.iter().zip(&texts).zip(&mut seen) {
            let (key, nonce, block) = (&self.keys[packet.sa], packet.nonce, packet.block);
            ops.push(PeekOp { key, nonce, block, cipher, out: &mut out[..packet.room] });
        }
        peek_burst(&mut ops);
        seen
    }
}
