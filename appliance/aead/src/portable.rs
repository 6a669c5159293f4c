//! Ciphers packet by packet, of libraries: the portable kernel of AES-GCM, and whatever no vector kernel is made for.

use aes::cipher::{Array, InnerIvInit, KeyInit, StreamCipherCore, consts::U12};
use aes::{Aes128Enc, Aes256Enc};
use aes_gcm::{AeadInOut, AesGcm};

use crate::algorithm::Cipher;
use crate::chacha::ChaCha;
use crate::etm::{EncryptThenMac, copy};
use crate::integrity::IntegrityKey;
use crate::{Aad, Algorithm, Icv, NONCE_LEN, SALT_LEN, TAG_LEN};

/// GCM and plain counter mode hold their own round keys: the crate keeps those of its GCM to itself.
#[allow(clippy::large_enum_variant, reason = "it is boxed as a whole, once per SA")]
pub(crate) enum Portable {
    Aes128 {
        gcm: AesGcm<Aes128Enc, U12>,
        ctr: Aes128Enc,
    },
    Aes256 {
        gcm: AesGcm<Aes256Enc, U12>,
        ctr: Aes256Enc,
    },
    ChaCha(ChaCha),
    /// AES-GMAC in ESP.
    Gmac(IntegrityKey),
    EncryptThenMac(EncryptThenMac),
    /// Nothing is sealed, opened or peeked at under it.
    Ah(IntegrityKey),
}

type Ctr32<C> = ctr::CtrCore<C, ctr::flavors::Ctr32BE>;

impl Portable {
    /// Nothing where the key is not as long as the algorithm's.
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Portable> {
        Some(match algorithm.cipher() {
            Cipher::Gcm if key.len() == 16 => {
                let ctr = Aes128Enc::new_from_slice(key).ok()?;
                Portable::Aes128 { gcm: ctr.clone().into(), ctr }
            }
            Cipher::Gcm => {
                let ctr = Aes256Enc::new_from_slice(key).ok()?;
                Portable::Aes256 { gcm: ctr.clone().into(), ctr }
            }
            Cipher::ChaCha => Portable::ChaCha(ChaCha::new(key)?),
            Cipher::Gmac => Portable::Gmac(IntegrityKey::gmac(algorithm, key).ok()?),
            Cipher::Ah => Portable::Ah(match algorithm.hash() {
                Some(hash) => IntegrityKey::hmac(hash, key),
                None => IntegrityKey::gmac(algorithm, key).ok()?,
            }),
            Cipher::Cbc | Cipher::Null => Portable::EncryptThenMac(EncryptThenMac::new(algorithm, key)?),
        })
    }

    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8]) -> [u8; TAG_LEN] {
        let block = aad.block();
        let data = &block[..aad.len()];
        let tag = match self {
            Portable::Aes128 { gcm, .. } => gcm.encrypt_inout_detached(&Array(*nonce), data, text.into()),
            Portable::Aes256 { gcm, .. } => gcm.encrypt_inout_detached(&Array(*nonce), data, text.into()),
            Portable::ChaCha(chacha) => return chacha.seal(nonce, data, text),
            Portable::Gmac(key) => return *gmac(key, nonce, data, text).bytes().first_chunk().unwrap_or(&[0; TAG_LEN]),
            Portable::EncryptThenMac(both) => return both.seal(nonce, aad, text),
            Portable::Ah(_) => return [0; TAG_LEN],
        };
        // The only error is a text of 64 GiB.
        tag.expect("a packet is shorter than 2^36 - 32 bytes").0
    }

    /// False leaves no plaintext in `text`: ciphertext, or zeros.
    pub(crate) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &Aad, text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let block = aad.block();
        let data = &block[..aad.len()];
        match self {
            Portable::Aes128 { gcm, .. } => {
                gcm.decrypt_inout_detached(&Array(*nonce), data, text.into(), &Array(*tag)).is_ok()
            }
            Portable::Aes256 { gcm, .. } => {
                gcm.decrypt_inout_detached(&Array(*nonce), data, text.into(), &Array(*tag)).is_ok()
            }
            Portable::ChaCha(chacha) => chacha.open(nonce, data, text, tag),
            Portable::Gmac(key) => gmac(key, nonce, data, text).fits(tag),
            Portable::EncryptThenMac(both) => both.open(aad, text, tag),
            Portable::Ah(_) => false,
        }
    }

    /// As [`PeekOp`](crate::PeekOp) says.
    pub(crate) fn peek(&self, nonce: &[u8; NONCE_LEN], block: u32, cipher: &[u8], out: &mut [u8]) {
        // NIST SP 800-38D §7.1: block 1 masks the tag, the text begins at block 2.
        let mut counter = [0; 16];
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[NONCE_LEN..].copy_from_slice(&block.wrapping_add(2).to_be_bytes());
        let counter = Array(counter);
        let len = cipher.len().min(out.len());
        match self {
            Portable::Aes128 { ctr, .. } => {
                copy(cipher, out);
                Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial((&mut out[..len]).into());
            }
            Portable::Aes256 { ctr, .. } => {
                copy(cipher, out);
                Ctr32::inner_iv_init(ctr, &counter).apply_keystream_partial((&mut out[..len]).into());
            }
            Portable::ChaCha(chacha) => {
                copy(cipher, out);
                chacha.stream(nonce, block, &mut out[..len]);
            }
            Portable::Gmac(_) => copy(cipher, out),
            Portable::Ah(_) => {}
            Portable::EncryptThenMac(both) => both.peek(cipher, out),
        }
    }
}

/// RFC 4543 §3.3: the string that is authenticated is SPI, number, IV, and all that ESP carries. No text is encrypted.
fn gmac(key: &IntegrityKey, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &[u8]) -> Icv {
    let mut mac = key.begin(nonce);
    mac.update(aad);
    mac.update(&nonce[SALT_LEN..]);
    mac.update(text);
    mac.finish()
}
