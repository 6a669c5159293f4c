//! What is sent to a core: the same frame again and again, or an ESP packet with a new number each time, as its peer would send it.

use arrayvec::ArrayVec;
use dpdk_ffi::{Burst, Mempool};
use phalanx_aead::{Aad, Algorithm, BURST, Key, OpenOp, SealOp, TAG_LEN, open_burst, seal_burst};
use phalanx_ipsec::Direction;

use super::bed::Bed;
use super::shape::{APPLICATION, NETWORK, key};

/// Ethernet and IPv4 headers in front of ESP on the network.
const OUTER: usize = 14 + 20;
/// SPI, number, IV.
const ESP: usize = 16;

pub enum Feed {
    /// Somebody else does.
    None,
    /// What the application sends.
    Same(Vec<u8>),
    /// What has an ESP packet at its end.
    Fresh(Box<Fresh>),
}

pub struct Fresh {
    /// Not yet encrypted.
    frame: Vec<u8>,
    /// Where the ESP packet begins.
    at: usize,
    key: Key,
    salt: [u8; 4],
    number: u64,
}

impl Feed {
    /// Packets with TCP flags for a port of a bed's core, ESP numbers from `number` on.
    pub fn new(bed: &mut Bed, port: usize, size: usize, flags: u8, number: u64) -> Feed {
        let mut frames = bed.frames(size, flags, flags);
        let len = frames[NETWORK].len() - OUTER;
        let frame = std::mem::take(&mut frames[port]);
        if port == APPLICATION { Feed::Same(frame) } else { Feed::Fresh(Box::new(Fresh::new(frame, len, number))) }
    }

    /// The number after the last one that was made.
    pub fn number(&self) -> Option<u64> {
        if let Feed::Fresh(fresh) = self { Some(fresh.number) } else { None }
    }

    /// Whose address a frame is for.
    pub fn address(&mut self, mac: [u8; 6]) {
        match self {
            Feed::None => {}
            Feed::Same(frame) => frame[..6].copy_from_slice(&mac),
            Feed::Fresh(fresh) => fresh.frame[..6].copy_from_slice(&mac),
        }
    }

    /// Puts up to `count` frames into an empty burst.
    pub fn fill(&mut self, pool: &Mempool, burst: &mut Burst<BURST>, count: usize) {
        match self {
            Feed::None => {}
            Feed::Same(frame) => {
                while burst.len() < count {
                    let Some(packet) = pool.alloc_with(frame) else { return };
                    let _ = burst.push(packet);
                }
            }
            Feed::Fresh(fresh) => fresh.fill(pool, burst, count),
        }
    }
}

impl Fresh {
    /// `len` bytes of ESP at the end of `frame`.
    fn new(mut frame: Vec<u8>, len: usize, number: u64) -> Fresh {
        let bytes = key(0, Direction::Inbound);
        let (bytes, salt) = bytes.split_first_chunk::<16>().expect("20 bytes");
        let key = Key::new(Algorithm::Aes128Gcm16, bytes).expect("16 bytes");
        let (at, salt) = (frame.len() - len, salt.try_into().expect("4 bytes"));
        let iv = u64::from_be_bytes(frame[at + 8..][..8].try_into().expect("8 bytes"));
        let aad = aad(&frame[at..], iv);
        let (text, tag) = frame[at + ESP..].split_last_chunk_mut::<TAG_LEN>().expect("an ICV");
        let mut ops = [OpenOp { key: &key, nonce: nonce(salt, iv), aad, text, tag, authentic: false }];
        open_burst(&mut ops);
        assert!(ops[0].authentic, "the bed's own packet");
        Fresh { frame, at, key, salt, number }
    }

    fn fill(&mut self, pool: &Mempool, burst: &mut Burst<BURST>, count: usize) {
        while burst.len() < count {
            let Some(packet) = pool.alloc_with(&self.frame) else { break };
            let _ = burst.push(packet);
        }
        let mut ops = ArrayVec::<SealOp<'_>, BURST>::new();
        for packet in burst.iter_mut() {
            let number = self.number;
            self.number += 1;
            let (head, body) = packet.data_mut()[self.at..].split_at_mut(ESP);
            head[4..8].copy_from_slice(&(number as u32).to_be_bytes());
            head[8..].copy_from_slice(&number.to_be_bytes());
            let aad = aad(head, number);
            let (text, tag) = body.split_last_chunk_mut::<TAG_LEN>().expect("an ICV");
            ops.push(SealOp { key: &self.key, nonce: nonce(self.salt, number), aad, text, tag });
        }
        seal_burst(&mut ops);
    }
}

/// RFC 4106 §5, with 64-bit numbers.
fn aad(esp: &[u8], number: u64) -> Aad {
    Aad::esp(u32::from_be_bytes(esp[..4].try_into().expect("an SPI")), number, true)
}

/// RFC 4106 §4.
fn nonce(salt: [u8; 4], iv: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&iv.to_be_bytes());
    nonce
}
