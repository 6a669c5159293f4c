//! The burst interface: operations as data, one function per direction.

use crate::{Key, NONCE_LEN, TAG_LEN};

/// How many operations a burst of packets makes; longer slices are served too.
pub const BURST: usize = 32;

/// Associated data of one packet, by value so that an operation can be made from a consumed job.
///
/// ESP has 8 bytes (SPI, 32-bit number) or 12 (SPI, 64-bit number; RFC 4106 §5); a block of 16 is the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aad {
    block: [u8; 16],
    len: u8,
}

impl Aad {
    /// The first up to 16 bytes of `bytes`; more is a programming error and panics.
    pub fn new(bytes: &[u8]) -> Aad {
        let mut block = [0; 16];
        block[..bytes.len()].copy_from_slice(bytes);
        Aad { block, len: bytes.len() as u8 }
    }

    /// The data that is authenticated.
    pub fn bytes(&self) -> &[u8] {
        &self.block[..usize::from(self.len)]
    }

    /// The data padded with zeros to GHASH's block.
    pub fn block(&self) -> &[u8; 16] {
        &self.block
    }
}

/// One packet to be sealed.
#[derive(Debug)]
pub struct SealOp<'a> {
    /// The SA's key.
    pub key: &'a Key,
    /// Salt and IV. Must never have been used with this key before (I1).
    pub nonce: [u8; NONCE_LEN],
    /// What is authenticated but not encrypted.
    pub aad: Aad,
    /// Plaintext in, ciphertext out.
    pub text: &'a mut [u8],
    /// Where the tag goes.
    pub tag: &'a mut [u8; TAG_LEN],
}

/// One packet to be opened.
#[derive(Debug)]
pub struct OpenOp<'a> {
    /// The SA's key.
    pub key: &'a Key,
    /// Salt and the packet's IV.
    pub nonce: [u8; NONCE_LEN],
    /// What is authenticated but not encrypted.
    pub aad: Aad,
    /// Ciphertext in; plaintext out if it is genuine, else left as it was.
    pub text: &'a mut [u8],
    /// The packet's tag.
    pub tag: &'a [u8; TAG_LEN],
    /// Out: the tag fits. Whoever makes the operation says `false`.
    pub authentic: bool,
}

/// A part of one packet to be decrypted without authentication.
#[derive(Debug)]
pub struct PeekOp<'a> {
    /// The SA's key.
    pub key: &'a Key,
    /// Salt and the packet's IV.
    pub nonce: [u8; NONCE_LEN],
    /// Which 16-byte block of the ciphertext `cipher` begins with; 0 is a prefix.
    pub block: u32,
    /// Ciphertext.
    pub cipher: &'a [u8],
    /// Where its plaintext goes: `cipher.len()` bytes; shorter of the two decides.
    pub out: &'a mut [u8],
}

/// Seals each packet. Order of work is unspecified.
pub fn seal_burst(ops: &mut [SealOp<'_>]) {
    for op in ops {
        *op.tag = op.key.seal(&op.nonce, &op.aad, op.text);
    }
}

/// Opens each packet whose tag fits and says so in [`OpenOp::authentic`]; one that does not fit disturbs no other.
pub fn open_burst(ops: &mut [OpenOp<'_>]) {
    for op in ops {
        op.authentic = op.key.open(&op.nonce, &op.aad, op.text, op.tag);
    }
}

/// Decrypts each part. What comes out is not authenticated: anybody could have written it (I5).
pub fn peek_burst(ops: &mut [PeekOp<'_>]) {
    for op in ops {
        let len = op.cipher.len().min(op.out.len());
        let out = &mut op.out[..len];
        out.copy_from_slice(&op.cipher[..len]);
        op.key.stream(&op.nonce, op.block, out);
    }
}
