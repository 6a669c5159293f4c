//! The Encrypted payload (RFC 7296 §3.14, RFC 5282, RFC 7383 §2.5): one direction of one IKE SA.

use std::fmt;

use aes::{
    Aes128, Aes256,
    cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit},
};
use aws_lc_rs::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};

use super::{AesBits, Cipher, CryptoError, Integrity, Prf, Random, Secret, prf, same};

/// AES's block, and the IV of CBC.
const BLOCK: usize = 16;

/// What protects our messages. It never uses an IV twice: those of an AEAD are the epoch and a counter, and who takes an IKE
/// SA over does so under a higher epoch (I1).
pub struct Sealer {
    cipher: Cipher,
    keys: Keys,
    epoch: u32,
    next: u64,
}

/// What opens the peer's messages.
pub struct Opener {
    cipher: Cipher,
    keys: Keys,
}

impl Sealer {
    /// With SK_ei and SK_ai, or SK_er and SK_ar; `epoch` is that of the router's ownership of the VIP.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(cipher: Cipher, encryption: &Secret, integrity: &Secret, epoch: u32) -> Result<Self, CryptoError> {
        Ok(Self { cipher, keys: Keys::new(cipher, encryption, integrity)?, epoch, next: 0 })
    }

    /// The algorithm.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The body of an Encrypted or Encrypted Fragment payload: IV, ciphertext, ICV. `aad` is everything in front of it: the IKE
    /// header with its final length, payloads in clear, the payload's own header (with fragment numbers). The body will have
    /// [`Cipher::sealed_len`] bytes. `random` gives the IV of CBC, which must be unpredictable.
    ///
    /// # Errors
    /// [`CryptoError::Exhausted`] after 2^32 messages.
    pub fn seal(&mut self, aad: &[u8], plain: &[u8], random: &mut dyn Random) -> Result<Vec<u8>, CryptoError> {
        let counter = u32::try_from(self.next).map_err(|_| CryptoError::Exhausted)?;
        self.next += 1;
        let len = self.cipher.sealed_len(plain.len());
        let mut body = Vec::with_capacity(len);
        match &self.keys {
            Keys::Aead(_) => body.extend([self.epoch.to_be_bytes(), counter.to_be_bytes()].as_flattened()),
            Keys::Cbc(_) => {
                body.resize(BLOCK, 0);
                random.fill(&mut body);
            }
        }
        body.extend_from_slice(plain);
        let pad = len - body.len() - 1 - self.cipher.icv_len();
        body.resize(body.len() + pad, 0);
        body.push(pad as u8); // below the block length
        match &self.keys {
            Keys::Aead(key) => key.seal(aad, &mut body)?,
            Keys::Cbc(key) => key.seal(aad, &mut body),
        }
        Ok(body)
    }
}

impl Opener {
    /// With SK_ei and SK_ai, or SK_er and SK_ar.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`].
    pub fn new(cipher: Cipher, encryption: &Secret, integrity: &Secret) -> Result<Self, CryptoError> {
        Ok(Self { cipher, keys: Keys::new(cipher, encryption, integrity)? })
    }

    /// The algorithm.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The payloads inside a body, without padding; `aad` as of [`Sealer::seal`].
    ///
    /// # Errors
    /// [`CryptoError::Length`], [`CryptoError::Integrity`]: drop it, it says nothing about the peer (I5);
    /// [`CryptoError::Padding`]: the peer is at fault.
    pub fn open(&self, aad: &[u8], body: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (iv_len, icv_len) = (self.cipher.iv_len(), self.cipher.icv_len());
        let inner = body.len().checked_sub(iv_len + icv_len).ok_or(CryptoError::Length)?;
        if inner == 0 || !inner.is_multiple_of(self.cipher.block_len()) {
            return Err(CryptoError::Length);
        }
        let (iv, sealed) = body.split_at(iv_len);
        let mut plain = match &self.keys {
            Keys::Aead(key) => key.open(aad, iv, sealed)?,
            Keys::Cbc(key) => key.open(aad, iv, sealed)?,
        };
        let pad = plain.pop().ok_or(CryptoError::Length)?;
        let len = plain.len().checked_sub(pad.into()).ok_or(CryptoError::Padding)?;
        plain.truncate(len);
        Ok(plain)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("cipher", &self.cipher).field("next", &self.next).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

enum Keys {
    Aead(Aead),
    Cbc(Box<Cbc>),
}

impl Keys {
    fn new(cipher: Cipher, encryption: &Secret, integrity: &Secret) -> Result<Self, CryptoError> {
        let fits = |expected: usize, key: &Secret| match key.len() {
            got if got == expected => Ok(()),
            got => Err(CryptoError::KeyLength { expected, got }),
        };
        fits(cipher.encryption_key_len(), encryption)?;
        fits(cipher.integrity_key_len(), integrity)?;
        let algorithm = match cipher {
            Cipher::AesGcm16 { bits: AesBits::B128 } => &aead::AES_128_GCM,
            Cipher::AesGcm16 { bits: AesBits::B256 } => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            Cipher::AesCbc { bits, integrity: algorithm } => {
                return Ok(Keys::Cbc(Box::new(Cbc::new(bits, encryption.as_bytes(), algorithm, integrity.as_bytes()))));
            }
        };
        Ok(Keys::Aead(Aead::new(algorithm, encryption.as_bytes())))
    }
}

/// An AEAD's key and the salt that IVs are put behind (RFC 5282 §4).
pub(super) struct Aead {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl Aead {
    /// Of a key with its salt, whose length was looked at.
    pub(super) fn new(algorithm: &'static aead::Algorithm, key: &[u8]) -> Self {
        let (key, salt) = key.split_last_chunk().expect("length was looked at");
        Self { key: LessSafeKey::new(UnboundKey::new(algorithm, key).expect("length was looked at")), salt: *salt }
    }

    fn nonce(&self, iv: &[u8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(iv);
        Nonce::assume_unique_for_key(nonce)
    }

    /// `body` is IV and plaintext, and becomes IV, ciphertext and ICV.
    pub(super) fn seal(&self, aad: &[u8], body: &mut Vec<u8>) -> Result<(), CryptoError> {
        let (iv, plain) = body.split_at_mut(8);
        let tag = self.key.seal_in_place_separate_tag(self.nonce(iv), Aad::from(aad), plain);
        body.extend_from_slice(tag.map_err(|_| CryptoError::Length)?.as_ref());
        Ok(())
    }

    /// The plaintext of ciphertext and ICV.
    pub(super) fn open(&self, aad: &[u8], iv: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut plain = sealed.to_vec();
        let opened = self.key.open_in_place(self.nonce(iv), Aad::from(aad), &mut plain);
        let len = opened.map_err(|_| CryptoError::Integrity)?.len();
        plain.truncate(len);
        Ok(plain)
    }
}

/// AES-CBC's key and that of the integrity algorithm beside it.
pub(super) struct Cbc {
    aes: Aes,
    integrity: hmac::Key,
    icv_len: usize,
}

enum Aes {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl Cbc {
    /// Of keys whose lengths were looked at.
    pub(super) fn new(bits: AesBits, key: &[u8], integrity: Integrity, integrity_key: &[u8]) -> Self {
        let prf = match integrity {
            Integrity::HmacSha256_128 => Prf::HmacSha256,
            Integrity::HmacSha384_192 => Prf::HmacSha384,
            Integrity::HmacSha512_256 => Prf::HmacSha512,
        };
        let aes = match bits {
            AesBits::B128 => Aes::Aes128(Aes128::new_from_slice(key).expect("length was looked at")),
            AesBits::B256 => Aes::Aes256(Aes256::new_from_slice(key).expect("length was looked at")),
        };
        Self { aes, integrity: hmac::Key::new(prf.algorithm(), integrity_key), icv_len: integrity.icv_len() }
    }

    /// `body` is IV and padded plaintext, and becomes IV, ciphertext and ICV: encrypt, then authenticate.
    pub(super) fn seal(&self, aad: &[u8], body: &mut Vec<u8>) {
        let (iv, plain) = body.split_at_mut(BLOCK);
        self.encrypt(iv, plain);
        let tag = prf::tag(&self.integrity, &[aad, body]);
        body.extend_from_slice(&tag.as_ref()[..self.icv_len]);
    }

    /// The padded plaintext of ciphertext and ICV. Nothing is decrypted that is not authentic.
    pub(super) fn open(&self, aad: &[u8], iv: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (sealed, icv) = sealed.split_at(sealed.len() - self.icv_len);
        let tag = prf::tag(&self.integrity, &[aad, iv, sealed]);
        if !same(&tag.as_ref()[..self.icv_len], icv) {
            return Err(CryptoError::Integrity);
        }
        let mut plain = sealed.to_vec();
        self.decrypt(iv, &mut plain);
        Ok(plain)
    }

    /// Whole blocks.
    pub(super) fn encrypt(&self, iv: &[u8], data: &mut [u8]) {
        let iv = iv.try_into().expect("a block");
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        match &self.aes {
            Aes::Aes128(aes) => cbc::Encryptor::inner_iv_init(aes, iv).encrypt_blocks(blocks),
            Aes::Aes256(aes) => cbc::Encryptor::inner_iv_init(aes, iv).encrypt_blocks(blocks),
        }
    }

    /// Whole blocks.
    pub(super) fn decrypt(&self, iv: &[u8], data: &mut [u8]) {
        let iv = iv.try_into().expect("a block");
        let (blocks, _) = Array::slice_as_chunks_mut(data);
        match &self.aes {
            Aes::Aes128(aes) => cbc::Decryptor::inner_iv_init(aes, iv).decrypt_blocks(blocks),
            Aes::Aes256(aes) => cbc::Decryptor::inner_iv_init(aes, iv).decrypt_blocks(blocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Seeded, hex},
        *,
    };

    const HEADERS: &[u8] = b"the IKE header and that of the payload";

    fn pair(cipher: Cipher) -> (Sealer, Opener) {
        let encryption = Secret::random(cipher.encryption_key_len(), &mut Seeded(1));
        let integrity = Secret::random(cipher.integrity_key_len(), &mut Seeded(2));
        let sealer = Sealer::new(cipher, &encryption, &integrity, 7).expect("lengths fit");
        (sealer, Opener::new(cipher, &encryption, &integrity).expect("lengths fit"))
    }

    #[test]
    fn what_one_end_seals_the_other_opens_whatever_its_length() {
        for cipher in Cipher::ALL {
            let (mut sealer, opener) = pair(cipher);
            for len in 0..70 {
                let plain = Secret::random(len, &mut Seeded(len as u64));
                let body = sealer.seal(HEADERS, plain.as_bytes(), &mut Seeded(3)).expect("seals");
                assert_eq!(body.len(), cipher.sealed_len(len));
                assert_eq!(opener.open(HEADERS, &body).expect("opens"), plain.as_bytes());
            }
        }
    }

    #[test]
    fn one_bit_anywhere_or_a_byte_less_breaks_it() {
        for cipher in Cipher::ALL {
            let (mut sealer, opener) = pair(cipher);
            let body = sealer.seal(HEADERS, &[5; 20], &mut Seeded(3)).expect("seals");
            for at in 0..body.len() * 8 {
                let mut changed = body.clone();
                changed[at / 8] ^= 1 << (at % 8);
                assert_eq!(opener.open(HEADERS, &changed), Err(CryptoError::Integrity), "{}, bit {at}", cipher.name());
            }
            for len in 0..body.len() {
                assert!(matches!(
                    opener.open(HEADERS, &body[..len]),
                    Err(CryptoError::Integrity | CryptoError::Length)
                ));
            }
            assert_eq!(opener.open(&HEADERS[1..], &body), Err(CryptoError::Integrity));
        }
    }

    #[test]
    fn ivs_of_an_aead_are_epoch_and_counter_and_end() {
        let (mut sealer, _) = pair(Cipher::ChaCha20Poly1305);
        let iv = |sealer: &mut Sealer| sealer.seal(HEADERS, b"", &mut Seeded(3)).map(|body| body[..8].to_vec());
        assert_eq!(iv(&mut sealer), Ok(vec![0, 0, 0, 7, 0, 0, 0, 0]));
        assert_eq!(iv(&mut sealer), Ok(vec![0, 0, 0, 7, 0, 0, 0, 1]));
        sealer.next = u32::MAX.into();
        assert_eq!(iv(&mut sealer), Ok(vec![0, 0, 0, 7, 255, 255, 255, 255]));
        assert_eq!(iv(&mut sealer), Err(CryptoError::Exhausted));
        assert_eq!(iv(&mut sealer), Err(CryptoError::Exhausted));
    }

    #[test]
    fn authentic_padding_longer_than_its_payload_is_an_error_of_the_peer() {
        for cipher in Cipher::ALL {
            let (sealer, opener) = pair(cipher);
            let mut body = vec![9; cipher.iv_len()];
            body.extend([0xff; 16]);
            match &sealer.keys {
                Keys::Aead(key) => key.seal(HEADERS, &mut body).expect("seals"),
                Keys::Cbc(key) => key.seal(HEADERS, &mut body),
            }
            assert_eq!(opener.open(HEADERS, &body), Err(CryptoError::Padding), "{}", cipher.name());
        }
    }

    #[test]
    fn padding_may_have_any_bytes_and_be_longer_than_needed() {
        // RFC 7296 §3.14: the recipient must accept any length that results in proper alignment.
        for cipher in Cipher::ALL {
            let (sealer, opener) = pair(cipher);
            let mut body = vec![9; cipher.iv_len()];
            body.extend([0xaa; 31]);
            body.push(28);
            match &sealer.keys {
                Keys::Aead(key) => key.seal(HEADERS, &mut body).expect("seals"),
                Keys::Cbc(key) => key.seal(HEADERS, &mut body),
            }
            assert_eq!(opener.open(HEADERS, &body), Ok(vec![0xaa; 3]), "{}", cipher.name());
        }
    }

    #[test]
    fn a_message_is_that_of_rfc_7634() {
        // RFC 7634 appendix B: a Notify payload in an INFORMATIONAL request.
        let key = Secret::new((0x80..0xa4).collect());
        let aad = hex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000452900 0029");
        let body = hex("1011121314151617 610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2");
        let plain = hex("0000000c000040010000000a");
        let cipher = Cipher::ChaCha20Poly1305;
        let opener = Opener::new(cipher, &key, &Secret::default()).expect("lengths fit");
        assert_eq!(opener.open(&aad, &body), Ok(plain.clone()));
        let mut sealer = Sealer::new(cipher, &key, &Secret::default(), 0x1011_1213).expect("lengths fit");
        sealer.next = 0x1415_1617;
        assert_eq!(sealer.seal(&aad, &plain, &mut Seeded(0)), Ok(body));
    }

    #[test]
    fn keys_of_another_length_are_refused_and_none_is_printed() {
        let cipher = Cipher::AesGcm16 { bits: AesBits::B128 };
        let (key, none) = (Secret::new(vec![0xee; 20]), Secret::default());
        let wrong = |expected, got| Some(CryptoError::KeyLength { expected, got });
        assert_eq!(Opener::new(cipher, &Secret::new(vec![0; 16]), &none).err(), wrong(20, 16));
        assert_eq!(Sealer::new(cipher, &key, &key, 0).err(), wrong(0, 20));
        let sealer = Sealer::new(cipher, &key, &none, 0).expect("lengths fit");
        assert_eq!(format!("{sealer:?}"), "Sealer { cipher: AesGcm16 { bits: B128 }, next: 0, .. }");
    }
}
