//! A cipher and then HMAC-SHA-2 (RFC 4868) over what it made: AES-CBC (RFC 3602) or NULL (RFC 2410).
//!
//! The text of such an operation is `IV of AES-CBC | payload and trailer | what the ICV has more than a tag`; the tag is the ICV's end.
//!
//! **IVs.** CBC is broken by IVs that somebody can foretell (RFC 3602 §3). Ours are the packet's number, encrypted by AES under a key
//! that does nothing else and nobody is shown (NIST SP 800-38A, appendix C, with a key of its own): under one key no number comes twice
//! (I1), so the IVs are values of a secret permutation at points of their own, which nobody can tell from random ones, whatever others
//! he saw. All targets of an SA have that key, and no randomness has to be asked for on a poll core (I7).

use aes::cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes256};
use zeroize::Zeroizing;

use crate::algorithm::Cipher;
use crate::integrity::{Hash, Icv, IntegrityKey};
use crate::{Aad, Algorithm, NONCE_LEN, TAG_LEN};

const BLOCK: usize = 16;

pub(crate) struct EncryptThenMac {
    cbc: Option<Cbc>,
    integrity: IntegrityKey,
}

#[allow(clippy::large_enum_variant, reason = "it is in a box, once per SA")]
enum Cbc {
    Aes128(Keys<Aes128>),
    Aes256(Keys<Aes256>),
}

struct Keys<A> {
    text: A,
    iv: A,
}

impl<A: KeyInit + BlockCipherEncrypt> Keys<A> {
    fn new(key: &[u8]) -> Option<Keys<A>> {
        // Half of a hash each is as much as an AES key has, and no half tells of another.
        let part = |label: &[u8], to: &mut [u8]| {
            let mut mac = IntegrityKey::hmac(Hash::Sha256, key).begin(&[0; NONCE_LEN]);
            mac.update(label);
            mac.finish().reveal(to);
        };
        let mut iv = Zeroizing::new([0; 32]);
        part(b"phalanx esp aes-cbc iv v1", &mut iv[..16]);
        part(b"phalanx esp aes-cbc iv v1 256", &mut iv[16..]);
        Some(Keys { text: A::new_from_slice(key).ok()?, iv: A::new_from_slice(&iv[..key.len()]).ok()? })
    }
}

impl EncryptThenMac {
    /// Nothing where `key`, of encryption and then of integrity, is not as long as the algorithm's.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<EncryptThenMac> {
        let (encryption, integrity) = key.split_at_checked(algorithm.encryption_key_len())?;
        let cbc = match (algorithm.cipher(), encryption.len()) {
            (Cipher::Null, _) => None,
            (_, 16) => Some(Cbc::Aes128(Keys::new(encryption)?)),
            _ => Some(Cbc::Aes256(Keys::new(encryption)?)),
        };
        Some(EncryptThenMac { cbc, integrity: IntegrityKey::hmac(algorithm.hash()?, integrity) })
    }

    /// Writes the IV, encrypts and authenticates. The nonce is the packet's number, from which the IV is made.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8]) -> [u8; TAG_LEN] {
        let (body, icv) = text.split_at_mut(text.len() - (self.integrity.icv_len() - TAG_LEN));
        match &self.cbc {
            None => {}
            Some(Cbc::Aes128(keys)) => encrypt(keys, nonce, body),
            Some(Cbc::Aes256(keys)) => encrypt(keys, nonce, body),
        }
        let whole = self.icv(aad, body);
        let (front, tag) = whole.bytes().split_last_chunk().unwrap_or((&[], &[0; TAG_LEN]));
        icv.copy_from_slice(front);
        *tag
    }

    /// Decrypts what is genuine only: all else stays as it came.
    pub(crate) fn open(&self, aad: &Aad, text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let icv_len = self.integrity.icv_len();
        let more = icv_len - TAG_LEN;
        let Some(len) = text.len().checked_sub(more) else { return false };
        let (body, icv) = text.split_at_mut(len);
        let mut given = [0; Icv::MAX];
        given[..more].copy_from_slice(icv);
        given[more..icv_len].copy_from_slice(tag);
        if !self.icv(aad, body).fits(&given[..icv_len]) {
            return false;
        }
        match &self.cbc {
            None => {}
            Some(Cbc::Aes128(keys)) => decrypt(&keys.text, body),
            Some(Cbc::Aes256(keys)) => decrypt(&keys.text, body),
        }
        true
    }

    /// Decrypts whole blocks of `cipher` but the first, which is the block before (or the IV); clear text is copied.
    pub(crate) fn peek(&self, cipher: &[u8], out: &mut [u8]) {
        match &self.cbc {
            None => copy(cipher, out),
            Some(Cbc::Aes128(keys)) => decrypt_to(&keys.text, cipher, out),
            Some(Cbc::Aes256(keys)) => decrypt_to(&keys.text, cipher, out),
        }
    }

    /// RFC 4303 §2.8 and §3.3.2.1: over SPI, low half of the number, IV, ciphertext; behind them the half that is not sent.
    fn icv(&self, aad: &Aad, body: &[u8]) -> Icv {
        let mut mac = self.integrity.begin(&[0; NONCE_LEN]);
        let (block, len) = (aad.block(), aad.len());
        // The high half stands between SPI and low half (RFC 4106 §5), where there is one.
        mac.update(&block[..4]);
        mac.update(&block[len - 4..len]);
        mac.update(body);
        if len > 8 {
            mac.update(&block[4..8]);
        }
        mac.finish()
    }
}

/// Clear text as far as there is room.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
}

fn encrypt<A>(keys: &Keys<A>, nonce: &[u8; NONCE_LEN], body: &mut [u8])
where
    A: BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let Some((place, text)) = body.split_first_chunk_mut::<BLOCK>() else { return };
    let mut iv = Array([0; BLOCK]);
    iv[BLOCK - NONCE_LEN..].copy_from_slice(nonce);
    keys.iv.encrypt_block(&mut iv);
    *place = iv.0;
    let (blocks, _) = Array::slice_as_chunks_mut(text);
    cbc::Encryptor::inner_iv_init(&keys.text, &iv).encrypt_blocks(blocks);
}

fn decrypt<A>(key: &A, body: &mut [u8])
where
    A: aes::cipher::BlockCipherDecrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let Some((iv, text)) = body.split_first_chunk_mut::<BLOCK>() else { return };
    let (blocks, _) = Array::slice_as_chunks_mut(text);
    cbc::Decryptor::inner_iv_init(key, &Array(*iv)).decrypt_blocks(blocks);
}

fn decrypt_to<A>(key: &A, cipher: &[u8], out: &mut [u8])
where
    A: aes::cipher::BlockCipherDecrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let Some((before, text)) = cipher.split_first_chunk::<BLOCK>() else { return };
    let len = text.len().min(out.len()) / BLOCK * BLOCK;
    out[..len].copy_from_slice(&text[..len]);
    let (blocks, _) = Array::slice_as_chunks_mut(&mut out[..len]);
    cbc::Decryptor::inner_iv_init(key, &Array(*before)).decrypt_blocks(blocks);
}
