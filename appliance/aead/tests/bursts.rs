//! Properties of bursts: what is sealed is opened, what is changed is not, and packets leave each other alone.

use phalanx_aead::{Aad, Algorithm, BURST, Key, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Packet {
    key: Vec<u8>,
    nonce: [u8; 12],
    aad: Vec<u8>,
    plain: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Sealed {
    text: Vec<u8>,
    tag: [u8; 16],
}

fn packet() -> impl Strategy<Value = Packet> {
    let bytes = |n| prop::collection::vec(any::<u8>(), n);
    let key = prop_oneof![bytes(16), bytes(32)];
    let aad = prop_oneof![bytes(8), bytes(12)];
    let plain = (0usize..400).prop_flat_map(move |quads| bytes(4 * quads));
    (key, any::<[u8; 12]>(), aad, plain).prop_map(|(key, nonce, aad, plain)| Packet { key, nonce, aad, plain })
}

fn burst() -> impl Strategy<Value = Vec<Packet>> {
    prop::collection::vec(packet(), 1..=BURST)
}

impl Packet {
    fn key(&self) -> Key {
        let algorithm = if self.key.len() == 16 { Algorithm::Aes128Gcm16 } else { Algorithm::Aes256Gcm16 };
        Key::new(algorithm, &self.key).unwrap()
    }
}

fn seal(packets: &[Packet], keys: &[Key]) -> Vec<Sealed> {
    let mut sealed: Vec<_> = packets.iter().map(|p| Sealed { text: p.plain.clone(), tag: [0; 16] }).collect();
    let with = packets.iter().zip(keys).zip(&mut sealed);
    let mut ops: Vec<_> = with
        .map(|((p, key), s)| SealOp { key, nonce: p.nonce, aad: Aad::new(&p.aad), text: &mut s.text, tag: &mut s.tag })
        .collect();
    seal_burst(&mut ops);
    sealed
}

/// Which of the burst are authentic; their texts are opened in place.
fn open(packets: &[Packet], keys: &[Key], sealed: &mut [Sealed]) -> Vec<bool> {
    let with = packets.iter().zip(keys).zip(sealed);
    let mut ops: Vec<_> = with
        .map(|((p, key), s)| OpenOp {
            key,
            nonce: p.nonce,
            aad: Aad::new(&p.aad),
            text: &mut s.text,
            tag: &s.tag,
            authentic: false,
        })
        .collect();
    open_burst(&mut ops);
    ops.iter().map(|op| op.authentic).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_sealed_is_opened(packets in burst()) {
        let keys: Vec<_> = packets.iter().map(Packet::key).collect();
        let mut sealed = seal(&packets, &keys);
        prop_assert!(open(&packets, &keys, &mut sealed).into_iter().all(|authentic| authentic));
        for (packet, opened) in packets.iter().zip(sealed) {
            prop_assert_eq!(&packet.plain, &opened.text);
        }
    }

    #[test]
    fn a_flipped_bit_fails_its_packet_leaves_no_plaintext_and_disturbs_no_other(
        packets in burst(), which in any::<prop::sample::Index>(), part in 0..4, at in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let keys: Vec<_> = packets.iter().map(Packet::key).collect();
        let mut sealed = seal(&packets, &keys);
        let which = which.index(packets.len());
        let mut spoilt = packets.clone();
        let bytes = match part {
            0 => &mut sealed[which].text[..],
            1 => &mut spoilt[which].aad[..],
            2 => &mut spoilt[which].nonce[..],
            _ => &mut sealed[which].tag[..],
        };
        prop_assume!(!bytes.is_empty());
        bytes[at.index(bytes.len())] ^= 1u8 << bit;
        let before = sealed.clone();
        let authentic = open(&spoilt, &keys, &mut sealed);
        for (i, packet) in packets.iter().enumerate() {
            prop_assert_eq!(authentic[i], i != which);
            prop_assert_eq!(&sealed[i].text, if i == which { &before[i].text } else { &packet.plain });
        }
    }

    #[test]
    fn a_peek_sees_what_opening_yields(packet in packet(), from in 0u32..20, len in 0usize..200) {
        let keys = [packet.key()];
        let sealed = seal(std::slice::from_ref(&packet), &keys);
        let start = (16 * from as usize).min(packet.plain.len() / 16 * 16);
        let cipher = &sealed[0].text[start..];
        let cipher = &cipher[..len.min(cipher.len())];
        // Room for more than asked: what is behind stays.
        let mut out = [0xee; 256];
        peek_burst(&mut [PeekOp { key: &keys[0], nonce: packet.nonce, block: start as u32 / 16, cipher, out: &mut out }]);
        prop_assert_eq!(&out[..cipher.len()], &packet.plain[start..start + cipher.len()]);
        prop_assert!(out[cipher.len()..].iter().all(|b| *b == 0xee));
    }
}
