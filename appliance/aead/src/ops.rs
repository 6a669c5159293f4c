//! The burst interface: operations as data, one function per direction.

#[cfg(target_arch = "x86_64")]
use crate::kernel;
use crate::{Kernel, Key, NONCE_LEN, TAG_LEN};

/// How many operations a burst of packets makes; longer slices are served too.
pub const BURST: usize = 32;

/// Associated data of one packet, by value so that an operation can be made from a consumed job.
///
/// ESP has 8 bytes (SPI, 32-bit number) or 12 (SPI, 64-bit number; RFC 4106 §5); a block of 16 is the limit.
///
/// Held as numbers, in registers from where it is made to where it is used: bytes written one by one and read together are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aad {
    /// The block's two halves, little-endian.
    pub(crate) words: [u64; 2],
    pub(crate) len: u8,
}

impl Aad {
    /// The first up to 16 bytes of `bytes`; more is a programming error and panics.
    pub fn new(bytes: &[u8]) -> Aad {
        let mut block = [0; 16];
        block[..bytes.len()].copy_from_slice(bytes);
        let word = |at| u64::from_le_bytes(std::array::from_fn(|n| block[at + n]));
        Aad { words: [word(0), word(8)], len: bytes.len() as u8 }
    }

    /// ESP's: the SPI, and the number, all of it where numbers have 64 bits (RFC 4106 §5).
    #[inline]
    #[must_use]
    pub fn esp(spi: u32, number: u64, extended: bool) -> Aad {
        let spi = u64::from(spi) << 32;
        if extended {
            let low = (number as u32).swap_bytes();
            Aad { words: [(spi | number >> 32).swap_bytes(), u64::from(low)], len: 12 }
        } else {
            Aad { words: [(spi | number & 0xffff_ffff).swap_bytes(), 0], len: 8 }
        }
    }

    /// Bytes that are authenticated.
    #[allow(clippy::len_without_is_empty)] // never empty in ESP
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The data padded with zeros to GHASH's block.
    #[must_use]
    pub fn block(&self) -> [u8; 16] {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&self.words[0].to_le_bytes());
        block[8..].copy_from_slice(&self.words[1].to_le_bytes());
        block
    }
}

/// One packet to be sealed.
#[derive(Debug)]
pub struct SealOp<'a> {
    /// The SA's key.
    pub key: &'a Key,
    /// Salt and IV; the packet's number where there is no such IV. Must never have been used with this key before (I1).
    pub nonce: [u8; NONCE_LEN],
    /// What is authenticated but not encrypted.
    pub aad: Aad,
    /// Plaintext in, ciphertext out; with [`Algorithm::text_front`](crate::Algorithm::text_front) and
    /// [`Algorithm::text_back`](crate::Algorithm::text_back) bytes around it, whose content is written here.
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
    /// Ciphertext in; plaintext out if it is genuine, else no plaintext: left as it was, or zeros. Around it stands what stands around
    /// the text of a [`SealOp`].
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
    /// Ciphertext; behind [`Algorithm::text_front`](crate::Algorithm::text_front) bytes that stand before it in the packet. Of those
    /// algorithms whole blocks are decrypted.
    pub cipher: &'a [u8],
    /// Where its plaintext goes: as many bytes; shorter of the two decides.
    pub out: &'a mut [u8],
}

/// Seals each packet. Order of work is unspecified.
pub fn seal_burst(mut ops: &mut [SealOp<'_>]) {
    while let Some(first) = ops.first_mut() {
        let done = match first.key.kernel() {
            Kernel::Portable => {
                seal_portable(first);
                1
            }
            #[cfg(target_arch = "x86_64")]
            wide => kernel::seal_run(wide, ops),
            #[cfg(not(target_arch = "x86_64"))]
            _ => 1,
        };
        ops = &mut ops[done..];
    }
}

/// Opens each packet whose tag fits and says so in [`OpenOp::authentic`]; one that does not fit disturbs no other.
pub fn open_burst(mut ops: &mut [OpenOp<'_>]) {
    while let Some(first) = ops.first_mut() {
        let done = match first.key.kernel() {
            Kernel::Portable => {
                open_portable(first);
                1
            }
            #[cfg(target_arch = "x86_64")]
            wide => kernel::open_run(wide, ops),
            #[cfg(not(target_arch = "x86_64"))]
            _ => 1,
        };
        ops = &mut ops[done..];
    }
}

/// Decrypts each part. What comes out is not authenticated: anybody could have written it (I5).
pub fn peek_burst(ops: &mut [PeekOp<'_>]) {
    for run in ops.chunk_by_mut(|a, b| a.key.kernel() == b.key.kernel()) {
        match run.first().map_or(Kernel::Portable, |op| op.key.kernel()) {
            Kernel::Portable => run.iter_mut().for_each(peek_portable),
            #[cfg(target_arch = "x86_64")]
            wide => kernel::peek_run(wide, run),
            #[cfg(not(target_arch = "x86_64"))]
            _ => {}
        }
    }
}

fn seal_portable(op: &mut SealOp<'_>) {
    if let Some(cipher) = op.key.portable() {
        *op.tag = cipher.seal(&op.nonce, &op.aad, op.text);
    }
}

fn open_portable(op: &mut OpenOp<'_>) {
    op.authentic = op.key.portable().is_some_and(|cipher| cipher.open(&op.nonce, &op.aad, op.text, op.tag));
}

fn peek_portable(op: &mut PeekOp<'_>) {
    if let Some(cipher) = op.key.portable() {
        cipher.peek(&op.nonce, op.block, op.cipher, op.out);
    }
}
