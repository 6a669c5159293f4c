//! ChaCha20 and Poly1305 as RFC 7634 uses them (RFC 8439): the AEAD of `aws-lc-rs`, and for a peek the key stream alone.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::Zeroizing;

use crate::{NONCE_LEN, TAG_LEN};

const KEY_LEN: usize = 32;
/// RFC 8439 §2.8: block 0 of 64 bytes makes Poly1305's key, the text begins with block 1.
const TEXT: u64 = 64;

pub(crate) struct ChaCha {
    aead: LessSafeKey,
    /// For peeks: the library gives out no key stream.
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl ChaCha {
    /// Nothing where the key is not 32 bytes long.
    pub(crate) fn new(key: &[u8]) -> Option<ChaCha> {
        let aead = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        Some(ChaCha { aead, key: Zeroizing::new(*key.first_chunk()?) })
    }

    pub(crate) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.aead.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        // The only error is a text of 256 GiB.
        let tag = tag.expect("a packet is shorter than 2^38 - 64 bytes");
        *tag.as_ref().first_chunk().expect("Poly1305 has tags of 16 bytes")
    }

    /// False leaves zeros in `text`: the library wipes what it decrypted.
    pub(crate) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.aead.open_in_place_separate_tag(nonce, Aad::from(aad), tag, text).is_ok()
    }

    /// XORs the key stream onto `text`, which begins with that 16-byte block of a packet's text.
    pub(crate) fn stream(&self, nonce: &[u8; NONCE_LEN], block: u32, text: &mut [u8]) {
        let mut stream = ChaCha20::new((&*self.key).into(), nonce.into());
        stream.seek(TEXT + 16 * u64::from(block));
        stream.apply_keystream(text);
    }
}
