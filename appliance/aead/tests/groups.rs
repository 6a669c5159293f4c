//! Kernels work on packets of a length class together: bursts of few lengths and many failures, so that groups are full, partly
//! filled and spoilt in any place.

use phalanx_aead::{Aad, Algorithm, Kernel, Key, OpenOp, SealOp, open_burst, seal_burst};
use proptest::prelude::*;

fn key(kernel: Kernel, algorithm: Algorithm, sa: u8) -> Key {
    let bytes: Vec<u8> = (0..algorithm.key_len() as u8).map(|at| at.wrapping_mul(29) ^ sa).collect();
    Key::for_kernel(kernel, algorithm, &bytes).unwrap()
}

struct Packet {
    key: Key,
    nonce: [u8; 12],
    aad: Aad,
    text: Vec<u8>,
    tag: [u8; 16],
}

/// Of every length in turn, on SAs in turn: everything about a packet follows from its place.
fn packets(kernel: Kernel, lens: &[usize], algorithms: &[Algorithm]) -> Vec<Packet> {
    let packet = |(at, &len): (usize, &usize)| Packet {
        key: key(kernel, algorithms[at % algorithms.len()], (at % 5) as u8),
        nonce: std::array::from_fn(|n| (7 * at + n) as u8),
        aad: Aad::esp(at as u32, 1 << 33 | at as u64, at % 3 == 0),
        text: (0..len).map(|n| (n * n + at) as u8).collect(),
        tag: [0; 16],
    };
    lens.iter().enumerate().map(packet).collect()
}

fn seal(packets: &mut [Packet]) {
    let mut ops = Vec::new();
    for Packet { key, nonce, aad, text, tag } in packets {
        ops.push(SealOp { key, nonce: *nonce, aad: *aad, text, tag });
    }
    seal_burst(&mut ops);
}

/// Which are authentic.
fn open(packets: &mut [Packet]) -> Vec<bool> {
    let mut ops = Vec::new();
    for Packet { key, nonce, aad, text, tag } in packets {
        ops.push(OpenOp { key, nonce: *nonce, aad: *aad, text, tag, authentic: false });
    }
    open_burst(&mut ops);
    ops.iter().map(|op| op.authentic).collect()
}

/// Every kernel against the portable one; packets whose bit is set in `spoilt` have a bit of their tag flipped.
fn check(lens: &[usize], algorithms: &[Algorithm], spoilt: u64) {
    let mut expected = packets(Kernel::Portable, lens, algorithms);
    seal(&mut expected);
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
        let plain = packets(kernel, lens, algorithms);
        let mut ours = packets(kernel, lens, algorithms);
        seal(&mut ours);
        for (at, (ours, expected)) in ours.iter_mut().zip(&expected).enumerate() {
            assert!(ours.text == expected.text, "{}: text {at} of {lens:?}", kernel.name());
            assert!(ours.tag == expected.tag, "{}: tag {at} of {lens:?}", kernel.name());
            if spoilt >> at & 1 == 1 {
                ours.tag[at % 16] ^= 1 << (at % 8);
            }
        }
        let authentic = open(&mut ours);
        for (at, packet) in ours.iter().enumerate() {
            let genuine = spoilt >> at & 1 == 0;
            assert!(authentic[at] == genuine, "{}: packet {at} of {lens:?}", kernel.name());
            let text = if genuine { &plain[at].text } else { &expected[at].text };
            assert!(packet.text == *text, "{}: opened text {at} of {lens:?}", kernel.name());
        }
    }
}

#[test]
fn every_length_of_short_packets_alone_and_in_groups() {
    for len in 0..=900 {
        let algorithm = Algorithm::GCM[len % 2];
        check(&[len], &[algorithm], 0);
        check(&vec![len; 1 + len % 9], &[algorithm], 0b0101_1010_0110 << (len % 4));
    }
}

#[test]
fn lengths_around_every_step_and_reduction_of_long_packets() {
    for vectors in 8..=150 {
        for len in [64 * vectors - 49, 64 * vectors - 16, 64 * vectors - 1, 64 * vectors, 64 * vectors + 4] {
            check(&vec![len; 1 + vectors % 6], &[Algorithm::GCM[vectors % 2]], 0b10);
        }
    }
}

#[test]
fn every_length_up_to_9000() {
    // Each beside lengths far from it, so that it is alone, and beside its neighbours, so that it is not.
    for (at, first) in (0..=9000).step_by(40).enumerate() {
        let near: Vec<usize> = (first..first + 40).map(|len: usize| len.min(9000)).collect();
        check(&near, &[Algorithm::GCM[at % 2]], 0x0842_1084_2108 << (at % 5));
        let far: Vec<usize> = (0..32).map(|n| (first + 281 * n) % 9001).collect();
        check(&far, &Algorithm::GCM, 0x1111_1111 << (at % 4));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn few_lengths_and_many_failures_in_one_burst(
        few in prop::collection::vec(prop_oneof![0usize..200, 0usize..1600, 0usize..9000], 1..=4),
        which in prop::collection::vec(any::<prop::sample::Index>(), 1..=64),
        spoilt: u64, both: bool,
    ) {
        let lens: Vec<usize> = which.iter().map(|index| *index.get(&few)).collect();
        let algorithms = if both { &Algorithm::GCM[..] } else { &Algorithm::GCM[..1] };
        check(&lens, algorithms, spoilt);
    }
}
