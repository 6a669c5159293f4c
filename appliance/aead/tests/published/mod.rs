//! Cases of others, run on every kernel that this processor has: alone, and with others in bursts.
//!
//! Which kernels those are hangs on the processor: one with AVX-512 has all. `PHALANX_CIPHER` changes nothing here.

use phalanx_aead::{Aad, Algorithm, Kernel, Key, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst};

/// A packet, and whether its tag is right.
pub struct Case {
    /// For messages.
    pub name: String,
    pub key: Vec<u8>,
    pub nonce: [u8; 12],
    pub aad: Vec<u8>,
    /// Of a case that is not genuine nobody knows it.
    pub plain: Vec<u8>,
    pub cipher: Vec<u8>,
    pub tag: [u8; 16],
    pub genuine: bool,
}

/// Sealed where they are genuine, opened where they are and refused where they are not, and peeked at.
pub fn check(cases: &[Case]) {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
        let key = |case: &Case| {
            let algorithm = if case.key.len() == 16 { Algorithm::Aes128Gcm16 } else { Algorithm::Aes256Gcm16 };
            Key::for_kernel(kernel, algorithm, &case.key).unwrap()
        };
        let keys: Vec<Key> = cases.iter().map(key).collect();
        assert!(keys.iter().all(|key| key.kernel() == kernel));
        for burst in [1, 3, 32, 64] {
            for (cases, keys) in cases.chunks(burst).zip(keys.chunks(burst)) {
                opened(kernel, cases, keys);
                sealed(kernel, cases, keys);
                peeked(kernel, cases, keys);
            }
        }
    }
}

fn opened(kernel: Kernel, cases: &[Case], keys: &[Key]) {
    let mut texts: Vec<_> = cases.iter().map(|case| case.cipher.clone()).collect();
    let mut ops = Vec::new();
    for ((Case { nonce, aad, tag, .. }, key), text) in cases.iter().zip(keys).zip(&mut texts) {
        ops.push(OpenOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag, authentic: false });
    }
    open_burst(&mut ops);
    let authentic: Vec<_> = ops.iter().map(|op| op.authentic).collect();
    for ((case, text), authentic) in cases.iter().zip(texts).zip(authentic) {
        assert_eq!(authentic, case.genuine, "{} opens {} otherwise", kernel.name(), case.name);
        let expected = if case.genuine { &case.plain } else { &case.cipher };
        assert_eq!(text, *expected, "{}: text of {}", kernel.name(), case.name);
    }
}

fn sealed(kernel: Kernel, cases: &[Case], keys: &[Key]) {
    let mut sealed: Vec<_> = cases.iter().map(|case| (case.plain.clone(), [0; 16])).collect();
    let mut ops = Vec::new();
    for ((Case { nonce, aad, .. }, key), (text, tag)) in cases.iter().zip(keys).zip(&mut sealed) {
        ops.push(SealOp { key, nonce: *nonce, aad: Aad::new(aad), text, tag });
    }
    seal_burst(&mut ops);
    for (case, (text, tag)) in cases.iter().zip(sealed).filter(|(case, _)| case.genuine) {
        assert_eq!((text, tag), (case.cipher.clone(), case.tag), "{} seals {} otherwise", kernel.name(), case.name);
    }
}

fn peeked(kernel: Kernel, cases: &[Case], keys: &[Key]) {
    let mut seen: Vec<_> = cases.iter().map(|case| vec![0; case.cipher.len()]).collect();
    let mut ops = Vec::new();
    for ((case, key), out) in cases.iter().zip(keys).zip(&mut seen) {
        ops.push(PeekOp { key, nonce: case.nonce, block: 0, cipher: &case.cipher, out });
    }
    peek_burst(&mut ops);
    for (case, seen) in cases.iter().zip(seen).filter(|(case, _)| case.genuine) {
        assert_eq!(seen, case.plain, "{} peeks into {} otherwise", kernel.name(), case.name);
    }
}
