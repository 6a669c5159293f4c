//! Every kernel that this processor has gives the same bytes as the portable one.

use phalanx_aead::{
    Aad, Algorithm, Kernel, KernelError, Key, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst,
};
use proptest::prelude::*;

/// A packet in a buffer that is longer on both sides: nothing but the packet may change.
#[derive(Clone, Debug)]
struct Packet {
    sa: usize,
    nonce: [u8; 12],
    aad: Vec<u8>,
    misaligned: usize,
    plain: Vec<u8>,
}

const AROUND: usize = 80;

fn packet(longest: usize) -> impl Strategy<Value = Packet> {
    let bytes = |n| prop::collection::vec(any::<u8>(), n);
    let aad = prop_oneof![bytes(8), bytes(12), bytes(0), bytes(16)];
    // Small ones, those around a whole chunk, and all others.
    let len = prop_oneof![0usize..200, 1000usize..1100, 0..longest];
    let plain = len.prop_flat_map(bytes);
    (0usize..4, any::<[u8; 12]>(), aad, 0usize..64, plain).prop_map(|(sa, nonce, aad, misaligned, plain)| Packet {
        sa,
        nonce,
        aad,
        misaligned,
        plain,
    })
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_here())
}

/// Two SAs with keys of 128 bits, two with 256.
fn keys(kernel: Kernel, seed: u8) -> Vec<Key> {
    let key = |sa: u8| {
        let algorithm = if sa < 2 { Algorithm::Aes128Gcm16 } else { Algorithm::Aes256Gcm16 };
        let bytes: Vec<u8> = (0..algorithm.key_len() as u8).map(|at| at.wrapping_mul(31) ^ sa ^ seed).collect();
        Key::for_kernel(kernel, algorithm, &bytes).unwrap()
    };
    (0..4).map(key).collect()
}

/// The packet's text in the middle of other bytes.
fn laid_out(packet: &Packet, text: &[u8]) -> Vec<u8> {
    [vec![0xa5; AROUND + packet.misaligned], text.to_vec(), vec![0x5a; AROUND]].concat()
}

fn text<'a>(packet: &Packet, memory: &'a mut [u8]) -> &'a mut [u8] {
    let start = AROUND + packet.misaligned;
    &mut memory[start..start + packet.plain.len()]
}

fn sealed(keys: &[Key], packets: &[Packet]) -> Vec<(Vec<u8>, [u8; 16])> {
    let mut out: Vec<_> = packets.iter().map(|p| (laid_out(p, &p.plain), [0; 16])).collect();
    let mut ops = Vec::new();
    for (p, (memory, tag)) in packets.iter().zip(&mut out) {
        ops.push(SealOp { key: &keys[p.sa], nonce: p.nonce, aad: Aad::new(&p.aad), text: text(p, memory), tag });
    }
    seal_burst(&mut ops);
    out
}

fn opened(keys: &[Key], packets: &[Packet], sealed: &[(Vec<u8>, [u8; 16])]) -> (Vec<Vec<u8>>, Vec<bool>) {
    let mut memory: Vec<_> = sealed.iter().map(|(memory, _)| memory.clone()).collect();
    let mut ops = Vec::new();
    for ((p, memory), (_, tag)) in packets.iter().zip(&mut memory).zip(sealed) {
        let (key, nonce, aad) = (&keys[p.sa], p.nonce, Aad::new(&p.aad));
        ops.push(OpenOp { key, nonce, aad, text: text(p, memory), tag, authentic: false });
    }
    open_burst(&mut ops);
    let authentic = ops.iter().map(|op| op.authentic).collect();
    (memory, authentic)
}

/// What becomes of a packet on its way: a bit of its text, tag, associated data or nonce; or nothing.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    Text(usize),
    Tag(usize),
    Aad(usize),
    Nonce(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        3 => Just(Damage::None),
        1 => at().prop_map(Damage::Text),
        1 => at().prop_map(Damage::Tag),
        1 => at().prop_map(Damage::Aad),
        1 => at().prop_map(Damage::Nonce),
    ]
}

/// False where there is nothing to damage.
fn flip(bytes: &mut [u8], at: usize) -> bool {
    let bits = 8 * bytes.len();
    if bits > 0 {
        bytes[at % bits / 8] ^= 1 << (at % 8);
    }
    bits > 0
}

impl Damage {
    /// Whether the packet is no longer genuine.
    fn befalls(self, packet: &mut Packet, (memory, tag): &mut (Vec<u8>, [u8; 16])) -> bool {
        match self {
            Damage::None => false,
            Damage::Text(at) => flip(text(packet, memory), at),
            Damage::Tag(at) => flip(tag, at),
            Damage::Aad(at) => flip(&mut packet.aad, at),
            Damage::Nonce(at) => flip(&mut packet.nonce, at),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_kernels_seal_and_open_alike(
        burst in prop::collection::vec((packet(9000), damage()), 1..=64), seed: u8,
    ) {
        let packets: Vec<Packet> = burst.iter().map(|(packet, _)| packet.clone()).collect();
        let expected = sealed(&keys(Kernel::Portable, seed), &packets);
        let (mut received, mut on_the_way) = (packets.clone(), expected.clone());
        let with = received.iter_mut().zip(&mut on_the_way).zip(&burst);
        let spoilt: Vec<bool> = with.map(|((packet, sealed), (_, damage))| damage.befalls(packet, sealed)).collect();
        for kernel in kernels() {
            let keys = keys(kernel, seed);
            prop_assert!(keys.iter().all(|key| key.kernel() == kernel));
            prop_assert!(sealed(&keys, &packets) == expected, "{} seals otherwise", kernel.name());
            let (memory, authentic) = opened(&keys, &received, &on_the_way);
            for (n, p) in packets.iter().enumerate() {
                prop_assert_eq!(authentic[n], !spoilt[n], "{}", kernel.name());
                // A failed packet is the ciphertext that it was, and no byte around any packet changed.
                let wanted = if spoilt[n] { on_the_way[n].0.clone() } else { laid_out(p, &p.plain) };
                prop_assert!(memory[n] == wanted, "{} opens packet {} otherwise", kernel.name(), n);
            }
        }
    }

    #[test]
    fn all_kernels_peek_alike(
        burst in prop::collection::vec((packet(700), any::<u32>(), 0usize..900), 1..=64), seed: u8,
    ) {
        let peeked = |kernel| {
            let keys = keys(kernel, seed);
            let mut out: Vec<_> = burst.iter().map(|(packet, _, room)| vec![0xee; packet.misaligned + room]).collect();
            let mut ops = Vec::new();
            for ((p, block, _), out) in burst.iter().zip(&mut out) {
                // Room for less than all, or for more: what is behind stays.
                let (_, out) = out.split_at_mut(p.misaligned);
                ops.push(PeekOp { key: &keys[p.sa], nonce: p.nonce, block: *block, cipher: &p.plain, out });
            }
            peek_burst(&mut ops);
            out
        };
        let expected = peeked(Kernel::Portable);
        for kernel in kernels() {
            prop_assert!(peeked(kernel) == expected, "{}", kernel.name());
        }
    }
}

#[test]
fn keys_of_several_kernels_in_one_burst_each_run_on_their_own() {
    let packets: Vec<Packet> = (0..40)
        .map(|n: usize| Packet { sa: 0, nonce: [n as u8; 12], aad: vec![1; 8], misaligned: 0, plain: vec![7; 30 * n] })
        .collect();
    let all: Vec<Key> = kernels().map(|kernel| keys(kernel, 9).swap_remove(0)).collect();
    let expected = sealed(&keys(Kernel::Portable, 9), &packets);
    let mut out: Vec<_> = packets.iter().map(|p| (p.plain.clone(), [0; 16])).collect();
    let mut ops = Vec::new();
    for (n, (p, (text, tag))) in packets.iter().zip(&mut out).enumerate() {
        ops.push(SealOp { key: &all[n % all.len()], nonce: p.nonce, aad: Aad::new(&p.aad), text, tag });
    }
    seal_burst(&mut ops);
    for ((p, (text, tag)), (memory, expected)) in packets.iter().zip(&out).zip(expected) {
        assert_eq!((laid_out(p, text), tag), (memory, &expected));
    }
}

#[test]
fn the_kernel_of_this_process_is_one_it_has_and_names_lead_to_kernels() {
    assert!(Kernel::chosen().is_here());
    assert!(Kernel::Portable.is_here());
    let names: std::collections::HashSet<_> = Kernel::ALL.iter().map(|kernel| kernel.name()).collect();
    assert_eq!(names.len(), Kernel::ALL.len());
    for kernel in Kernel::ALL {
        assert_eq!(kernel.name().parse(), Ok(kernel));
    }
    assert_eq!("aes".parse::<Kernel>(), Err(KernelError::Unknown("aes".into())));
}

/// In a process that has no key yet: what is forced there is no other test's business.
fn forced(environment: Option<&str>, wanted: &str) -> Result<Kernel, KernelError> {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["the_child_of_another_test", "--exact", "--nocapture"]).env("PHALANX_WANTED", wanted);
    child.env_remove("PHALANX_CIPHER").envs(environment.map(|name| ("PHALANX_CIPHER", name)));
    let said = String::from_utf8(child.output().unwrap().stdout).unwrap();
    let line = said.lines().find_map(|line| line.split_once("chosen: ")).expect("the child says what it chose").1;
    line.parse()
}

#[test]
fn the_child_of_another_test() {
    let Some(wanted) = std::env::var("PHALANX_WANTED").ok() else { return };
    let chosen = Kernel::choose(wanted.parse().ok());
    println!("\nchosen: {}", chosen.as_ref().map_or("an error", |kernel| kernel.name()));
    if let Ok(kernel) = chosen {
        // It stays: keys are made for it.
        assert_eq!((Kernel::chosen(), Kernel::choose(Some(kernel))), (kernel, Ok(kernel)));
        if std::env::var_os("PHALANX_CIPHER").is_none() && kernel != Kernel::Portable {
            let late = KernelError::Late { wanted: Kernel::Portable, taken: kernel };
            assert_eq!(Kernel::choose(Some(Kernel::Portable)), Err(late));
        }
    }
}

#[test]
fn a_process_runs_on_what_the_environment_names_else_on_what_is_wanted_else_on_the_best() {
    let best = kernels().last().unwrap();
    assert_eq!(forced(None, "auto"), Ok(best));
    for kernel in kernels() {
        assert_eq!(forced(None, kernel.name()), Ok(kernel));
        assert_eq!(forced(Some(kernel.name()), "portable"), Ok(kernel));
    }
    assert!(forced(Some("aes"), "portable").is_err());
}
