//! The limit of a path: its cipher work and nothing else.

use arrayvec::ArrayVec;
use phalanx_aead::{Aad, Algorithm, BURST, Key, OpenOp, PeekOp, SealOp, TAG_LEN, open_burst, peek_burst, seal_burst};

use phalanx_ipsec::FIRST_PEEK;

use super::bed::scattered;
use crate::harness::clock;

type Tag = [u8; TAG_LEN];

#[derive(Clone, Copy, PartialEq)]
pub enum Op {
    Peek,
    Open,
    Seal,
}

/// As many keys as the path has SAs, so that as many miss the caches; of more than fit those, fewer do.
pub struct Alone {
    op: Op,
    keys: Vec<Key>,
    /// The same again in other memory: what is to be opened is sealed with these, which leaves `keys` cold.
    twins: Vec<Key>,
    next: usize,
    texts: Vec<Vec<u8>>,
    tags: [Tag; BURST],
    seen: Box<[[u8; FIRST_PEEK]; BURST]>,
}

impl Alone {
    /// `text` is the length of what the cipher works on.
    pub fn new(op: Op, sas: usize, text: usize) -> Alone {
        let key = |sa: usize| Key::new(Algorithm::Aes128Gcm16, &(sa as u128).to_be_bytes()).expect("16 bytes");
        Alone {
            op,
            keys: (0..sas).map(key).collect(),
            twins: (0..sas).filter(|_| op == Op::Open).map(key).collect(),
            next: 0,
            texts: vec![vec![0; text]; BURST],
            tags: [[0; TAG_LEN]; BURST],
            seen: Box::new([[0; FIRST_PEEK]; BURST]),
        }
    }

    /// Nanoseconds per packet.
    pub fn round(&mut self, bursts: usize) -> f64 {
        let ns: f64 = (0..bursts).map(|_| self.burst()).sum();
        ns / (bursts * BURST) as f64
    }

    fn burst(&mut self) -> f64 {
        let keys: ArrayVec<usize, BURST> = (0..BURST).map(|_| scattered(&mut self.next, self.keys.len())).collect();
        let Alone { keys: all, twins, texts, tags, seen, .. } = self;
        match self.op {
            Op::Seal => clock(|| seal(all, &keys, texts, tags)),
            Op::Open => {
                seal(twins, &keys, texts, tags);
                clock(|| open(all, &keys, texts, tags))
            }
            Op::Peek => clock(|| peek(all, &keys, texts, &mut seen[..])),
        }
    }
}

fn seal(all: &[Key], keys: &[usize], texts: &mut [Vec<u8>], tags: &mut [Tag]) {
    let mut ops = ArrayVec::<SealOp<'_>, BURST>::new();
    for ((text, tag), &key) in texts.iter_mut().zip(tags).zip(keys) {
        ops.push(SealOp { key: &all[key], nonce: [1; 12], aad: Aad::esp(2, 2, true), text, tag });
    }
    seal_burst(&mut ops);
}

fn open(all: &[Key], keys: &[usize], texts: &mut [Vec<u8>], tags: &[Tag]) {
    let mut ops = ArrayVec::<OpenOp<'_>, BURST>::new();
    for ((text, tag), &key) in texts.iter_mut().zip(tags).zip(keys) {
        ops.push(OpenOp { key: &all[key], nonce: [1; 12], aad: Aad::esp(2, 2, true), text, tag, authentic: false });
    }
    open_burst(&mut ops);
    assert!(ops.iter().all(|op| op.authentic));
}

fn peek(all: &[Key], keys: &[usize], texts: &[Vec<u8>], seen: &mut [[u8; FIRST_PEEK]]) {
    let mut ops = ArrayVec::<PeekOp<'_>, BURST>::new();
    for ((text, out), &key) in texts.iter().zip(seen).zip(keys) {
        ops.push(PeekOp { key: &all[key], nonce: [1; 12], block: 0, cipher: &text[..text.len().min(FIRST_PEEK)], out });
    }
    peek_burst(&mut ops);
}
