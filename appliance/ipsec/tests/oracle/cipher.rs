//! The oracle's ciphers: a table restated from the RFCs, AEADs of other crates called directly, AES-CBC block by block, HMAC by hand.

use aes_gcm::aead::array::Array;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256, Sha384, Sha512};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gcm,
    ChaCha,
    Gmac,
    Cbc,
    Null,
}

/// One of ESP's algorithms; lengths in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cipher {
    /// What we call it.
    pub name: &'static str,
    pub kind: Kind,
    /// Of encryption.
    pub key: usize,
    /// Of integrity, where that has a key of its own.
    pub integrity: usize,
    pub iv: usize,
    pub icv: usize,
    /// What payload and trailer are a multiple of.
    pub align: usize,
}

const fn row(name: &'static str, kind: Kind, [key, integrity, iv, icv, align]: [usize; 5]) -> Cipher {
    Cipher { name, kind, key, integrity, iv, icv, align }
}

/// RFC 4106, 7634, 8750, 4543, 3602 and 2410 with 4868.
pub const ALL: [Cipher; 17] = [
    row("aes128-gcm16", Kind::Gcm, [16, 0, 8, 16, 4]),
    row("aes256-gcm16", Kind::Gcm, [32, 0, 8, 16, 4]),
    row("chacha20-poly1305", Kind::ChaCha, [32, 0, 8, 16, 4]),
    row("aes128-gcm16-iiv", Kind::Gcm, [16, 0, 0, 16, 4]),
    row("aes256-gcm16-iiv", Kind::Gcm, [32, 0, 0, 16, 4]),
    row("chacha20-poly1305-iiv", Kind::ChaCha, [32, 0, 0, 16, 4]),
    row("aes128-gmac", Kind::Gmac, [16, 0, 8, 16, 4]),
    row("aes256-gmac", Kind::Gmac, [32, 0, 8, 16, 4]),
    row("aes128-cbc-sha256", Kind::Cbc, [16, 32, 16, 16, 16]),
    row("aes128-cbc-sha384", Kind::Cbc, [16, 48, 16, 24, 16]),
    row("aes128-cbc-sha512", Kind::Cbc, [16, 64, 16, 32, 16]),
    row("aes256-cbc-sha256", Kind::Cbc, [32, 32, 16, 16, 16]),
    row("aes256-cbc-sha384", Kind::Cbc, [32, 48, 16, 24, 16]),
    row("aes256-cbc-sha512", Kind::Cbc, [32, 64, 16, 32, 16]),
    row("null-sha256", Kind::Null, [0, 32, 0, 16, 4]),
    row("null-sha384", Kind::Null, [0, 48, 0, 24, 4]),
    row("null-sha512", Kind::Null, [0, 64, 0, 32, 4]),
];

/// What is beside the text of one packet.
pub struct Around<'a> {
    /// Encryption key, then integrity key.
    pub key: &'a [u8],
    pub salt: [u8; 4],
    pub spi: u32,
    pub seq: u64,
    pub esn: bool,
    pub iv: &'a [u8],
}

impl Around<'_> {
    /// RFC 4106 §5.
    fn aad(&self) -> Vec<u8> {
        let mut aad = self.spi.to_be_bytes().to_vec();
        if self.esn {
            aad.extend(((self.seq >> 32) as u32).to_be_bytes());
        }
        aad.extend((self.seq as u32).to_be_bytes());
        aad
    }

    /// RFC 4106 §4; RFC 8750 §4 where there is no IV.
    fn nonce(&self) -> [u8; 12] {
        let number = self.seq.to_be_bytes();
        [&self.salt[..], if self.iv.is_empty() { &number } else { self.iv }].concat().try_into().unwrap()
    }

    /// RFC 4303 §3.3.2.1: SPI, low half, IV, ciphertext, high half.
    fn icv(&self, cipher: &Cipher, text: &[u8]) -> Vec<u8> {
        let (low, high) = ((self.seq as u32).to_be_bytes(), ((self.seq >> 32) as u32).to_be_bytes());
        let high = if self.esn { &high[..] } else { &[] };
        let all = [&self.spi.to_be_bytes(), &low, self.iv, text, high].concat();
        let key = &self.key[cipher.key..];
        let mut icv = match cipher.integrity {
            32 => hmac::<Sha256>(64, key, &all),
            48 => hmac::<Sha384>(128, key, &all),
            _ => hmac::<Sha512>(128, key, &all),
        };
        icv.truncate(cipher.icv);
        icv
    }
}

/// RFC 2104.
fn hmac<D: Digest>(block: usize, key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; block];
    padded[..key.len()].copy_from_slice(key);
    let pad = |with: u8| padded.iter().map(|b| b ^ with).collect::<Vec<_>>();
    let inner = D::digest([pad(0x36), data.to_vec()].concat());
    D::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}

impl Cipher {
    pub fn material(&self) -> usize {
        self.key + self.integrity
    }

    /// Ciphertext and ICV.
    pub fn seal(&self, with: &Around, text: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Gcm => self.gcm(with, |gcm, nonce, aad| gcm.seal(nonce, aad, text)),
            Kind::ChaCha => {
                let mut sealed = text.to_vec();
                let (nonce, aad) = (Nonce::assume_unique_for_key(with.nonce()), with.aad());
                chacha(with.key).seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).unwrap();
                sealed
            }
            Kind::Gmac => [text, &self.gmac(with, text)].concat(),
            Kind::Cbc => {
                let mut before: [u8; 16] = with.iv.try_into().unwrap();
                let mut sealed = vec![];
                for block in text.chunks(16) {
                    before.iter_mut().zip(block).for_each(|(b, t)| *b ^= t);
                    before = encrypt(&with.key[..self.key], before);
                    sealed.extend(before);
                }
                sealed.extend(with.icv(self, &sealed));
                sealed
            }
            Kind::Null => [text, &with.icv(self, text)].concat(),
        }
    }

    /// The text of ciphertext and ICV.
    pub fn open(&self, with: &Around, sealed: &[u8]) -> Option<Vec<u8>> {
        let (text, icv) = sealed.split_at(sealed.len() - self.icv);
        match self.kind {
            Kind::Gcm => self.gcm(with, |gcm, nonce, aad| gcm.open(nonce, aad, sealed)),
            Kind::ChaCha => {
                let mut opened = sealed.to_vec();
                let (nonce, aad) = (Nonce::assume_unique_for_key(with.nonce()), with.aad());
                Some(chacha(with.key).open_in_place(nonce, Aad::from(aad), &mut opened).ok()?.to_vec())
            }
            Kind::Gmac => (self.gmac(with, text) == icv).then(|| text.to_vec()),
            Kind::Null => (with.icv(self, text) == icv).then(|| text.to_vec()),
            Kind::Cbc if with.icv(self, text) != icv => None,
            Kind::Cbc => {
                let all = [with.iv, text].concat();
                let blocks: Vec<_> = all.chunks(16).collect();
                let plain = blocks.windows(2).flat_map(|two| {
                    let opened = decrypt(&with.key[..self.key], two[1].try_into().unwrap());
                    opened.into_iter().zip(two[0]).map(|(o, b)| o ^ b).collect::<Vec<_>>()
                });
                Some(plain.collect())
            }
        }
    }

    fn gcm<T>(&self, with: &Around, run: impl Fn(&dyn Gcm, [u8; 12], &[u8]) -> T) -> T {
        match self.key {
            16 => run(&Aes128Gcm::new_from_slice(with.key).unwrap(), with.nonce(), &with.aad()),
            _ => run(&Aes256Gcm::new_from_slice(with.key).unwrap(), with.nonce(), &with.aad()),
        }
    }

    /// RFC 4543 §3.3: AES-GCM without plaintext.
    fn gmac(&self, with: &Around, text: &[u8]) -> Vec<u8> {
        self.gcm(with, |gcm, nonce, aad| gcm.seal(nonce, &[aad, with.iv, text].concat(), &[]))
    }
}

trait Gcm {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &[u8]) -> Vec<u8>;
    fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

impl<A: Aead<NonceSize = aes_gcm::aead::consts::U12>> Gcm for A {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
        self.encrypt(&Array(nonce), Payload { msg, aad }).unwrap()
    }
    fn open(&self, nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
        self.decrypt(&Array(nonce), Payload { msg, aad }).ok()
    }
}

fn chacha(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap())
}

fn encrypt(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    use aes_gcm::aes::cipher::BlockCipherEncrypt;
    let mut block = Array(block);
    match key.len() {
        16 => aes_gcm::aes::Aes128::new_from_slice(key).unwrap().encrypt_block(&mut block),
        _ => aes_gcm::aes::Aes256::new_from_slice(key).unwrap().encrypt_block(&mut block),
    }
    block.0
}

fn decrypt(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    use aes_gcm::aes::cipher::BlockCipherDecrypt;
    let mut block = Array(block);
    match key.len() {
        16 => aes_gcm::aes::Aes128::new_from_slice(key).unwrap().decrypt_block(&mut block),
        _ => aes_gcm::aes::Aes256::new_from_slice(key).unwrap().decrypt_block(&mut block),
    }
    block.0
}
