//! Every algorithm of ESP in one burst: packets of up to 9000 bytes at whatever address, and failures in between. What is sealed
//! together is what is sealed alone, whoever is genuine is opened, of others nothing is opened, and nothing beside them is written.

use phalanx_aead::{Aad, Algorithm, Key, OpenOp, SealOp, open_burst, seal_burst};
use proptest::prelude::*;

/// What stands between packets.
const FENCE: u8 = 0xa5;
const FENCES: usize = 64;

/// What happens to a packet between sealing and opening.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    None,
    /// A bit of what lies between header and tag: of the IV of AES-CBC, of the ciphertext, of the front of a long ICV.
    Text(usize),
    Tag(usize),
    Aad,
}

#[derive(Clone, Debug)]
struct Packet {
    algorithm: Algorithm,
    sa: u8,
    number: u64,
    /// Of the plaintext.
    len: usize,
    /// Bytes after the fence where it begins.
    shift: usize,
    fate: Fate,
}

impl Packet {
    fn key(&self) -> Key {
        let byte = |at: usize| (at as u8).wrapping_mul(29) ^ self.sa;
        Key::new(self.algorithm, &(0..self.algorithm.key_len()).map(byte).collect::<Vec<_>>()).unwrap()
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [self.sa; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        nonce
    }

    fn aad(&self, as_sent: bool) -> Aad {
        Aad::esp(0x1001 ^ u32::from(!as_sent), self.number, self.sa.is_multiple_of(2))
    }

    fn plain(&self) -> Vec<u8> {
        (0..self.len).map(|at| (at ^ at >> 7) as u8 ^ self.number as u8).collect()
    }

    /// With room around the plaintext for what sealing writes there.
    fn text(&self) -> Vec<u8> {
        [vec![0; self.algorithm.text_front()], self.plain(), vec![0; self.algorithm.text_back()]].concat()
    }
}

/// The texts one after the other, each at its address, with fences around all of them.
struct Field {
    bytes: Vec<u8>,
    /// Where each begins, and its length.
    places: Vec<(usize, usize)>,
}

impl Field {
    fn new(texts: &[Vec<u8>], packets: &[Packet]) -> Field {
        let mut field = Field { bytes: vec![FENCE; FENCES], places: vec![] };
        for (text, packet) in texts.iter().zip(packets) {
            field.bytes.resize(field.bytes.len() + packet.shift, FENCE);
            field.places.push((field.bytes.len(), text.len()));
            field.bytes.extend(text);
            field.bytes.resize(field.bytes.len() + FENCES, FENCE);
        }
        field
    }

    fn texts(&mut self) -> Vec<&mut [u8]> {
        let (mut rest, mut at, mut texts) = (&mut self.bytes[..], 0, vec![]);
        for (begin, len) in &self.places {
            let (text, behind) = rest.split_at_mut(begin - at).1.split_at_mut(*len);
            texts.push(text);
            (rest, at) = (behind, begin + len);
        }
        texts
    }

    fn has_its_fences(&self) -> bool {
        let mut at = 0;
        self.places.iter().chain([&(self.bytes.len(), 0)]).all(|(begin, len)| {
            let whole = self.bytes[at..*begin].iter().all(|byte| *byte == FENCE);
            at = begin + len;
            whole
        })
    }
}

fn alone(packet: &Packet) -> (Vec<u8>, [u8; 16]) {
    let (key, mut text, mut tag) = (packet.key(), packet.text(), [0; 16]);
    let (nonce, aad) = (packet.nonce(), packet.aad(true));
    seal_burst(&mut [SealOp { key: &key, nonce, aad, text: &mut text, tag: &mut tag }]);
    (text, tag)
}

fn check(packets: &[Packet]) {
    let keys: Vec<_> = packets.iter().map(Packet::key).collect();
    let mut field = Field::new(&packets.iter().map(Packet::text).collect::<Vec<_>>(), packets);
    let mut tags = vec![[0; 16]; packets.len()];
    let mut ops = Vec::new();
    for (((packet, key), text), tag) in packets.iter().zip(&keys).zip(field.texts()).zip(&mut tags) {
        ops.push(SealOp { key, nonce: packet.nonce(), aad: packet.aad(true), text, tag });
    }
    seal_burst(&mut ops);
    assert!(field.has_its_fences(), "sealing writes beside its packets: {packets:?}");
    for ((packet, text), tag) in packets.iter().zip(field.texts()).zip(&tags) {
        let (text_alone, tag_alone) = alone(packet);
        assert!(text[..] == text_alone && *tag == tag_alone, "not sealed as alone: {packet:?}");
    }

    for ((packet, text), tag) in packets.iter().zip(field.texts()).zip(&mut tags) {
        match packet.fate {
            Fate::Text(at) if !text.is_empty() => text[at / 8 % text.len()] ^= 1 << (at % 8),
            Fate::Text(at) | Fate::Tag(at) => tag[at / 8 % 16] ^= 1 << (at % 8),
            Fate::None | Fate::Aad => {}
        }
    }
    let came: Vec<Vec<u8>> = field.texts().into_iter().map(|text| text.to_vec()).collect();
    let mut ops = Vec::new();
    for (((packet, key), text), tag) in packets.iter().zip(&keys).zip(field.texts()).zip(&tags) {
        let aad = packet.aad(packet.fate != Fate::Aad);
        ops.push(OpenOp { key, nonce: packet.nonce(), aad, text, tag, authentic: false });
    }
    open_burst(&mut ops);
    let authentic: Vec<bool> = ops.iter().map(|op| op.authentic).collect();
    assert!(field.has_its_fences(), "opening writes beside its packets: {packets:?}");
    for (((packet, text), came), authentic) in packets.iter().zip(field.texts()).zip(came).zip(authentic) {
        assert_eq!(authentic, packet.fate == Fate::None, "{packet:?}");
        if authentic {
            let front = packet.algorithm.text_front();
            assert!(text[front..front + packet.len] == packet.plain(), "not what was sealed: {packet:?}");
        } else {
            assert!(text[..] == came || text.iter().all(|byte| *byte == 0), "something is left of {packet:?}");
        }
    }
}

fn whole(algorithm: Algorithm, len: usize) -> usize {
    // Elsewhere ESP has multiples of 4 (RFC 4303 §2.4); ciphers take any.
    if algorithm.text_front() > 0 { len / algorithm.alignment() * algorithm.alignment() } else { len }
}

fn packet() -> impl Strategy<Value = Packet> {
    let fate = prop_oneof![
        3 => Just(Fate::None),
        1 => any::<usize>().prop_map(Fate::Text),
        1 => any::<usize>().prop_map(Fate::Tag),
        1 => Just(Fate::Aad),
    ];
    let len = prop_oneof![0usize..200, 0usize..=1600, 0usize..=9000];
    let all = (prop::sample::select(&Algorithm::ESP[..]), 0u8..4, 1u64..1 << 40, len, 0usize..64, fate);
    all.prop_map(|(algorithm, sa, number, len, shift, fate)| Packet {
        algorithm,
        sa,
        number,
        len: whole(algorithm, len),
        shift,
        fate,
    })
}

#[test]
fn every_length_up_to_9000_of_every_algorithm() {
    for first in (0..=9000).step_by(3) {
        let lens = first..(first + 3).min(9001);
        let packets: Vec<_> = lens
            .flat_map(|len| Algorithm::ESP.iter().map(move |algorithm| (*algorithm, len)))
            .filter(|(algorithm, len)| whole(*algorithm, *len) == *len)
            .enumerate()
            .map(|(at, (algorithm, len))| Packet {
                algorithm,
                sa: (at % 3) as u8,
                number: 1 << 33 | at as u64,
                len,
                shift: (len + at) % 64,
                fate: [Fate::None, Fate::Tag(len), Fate::None, Fate::Text(7 * len + at)][(at + first) % 4],
            })
            .collect();
        check(&packets);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whoever_fails_in_a_burst_fails_alone_and_leaves_no_plaintext(packets in prop::collection::vec(packet(), 1..=64)) {
        check(&packets);
    }
}
