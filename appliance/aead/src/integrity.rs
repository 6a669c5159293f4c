//! Integrity without encryption: HMAC-SHA2 (RFC 4868) from `aws-lc-rs`, AES-GMAC (RFC 4543) on `ghash`. A packet is fed in pieces,
//! nothing is allocated for it, and what depends on the key alone is worked out once per SA.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc};
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use ghash::{GHash, universal_hash::UniversalHash};
use zeroize::Zeroize;

use crate::{AeadError, Algorithm, NONCE_LEN, TAG_LEN};

const BLOCK: usize = 16;

/// A key for integrity alone. Wiped on drop; `Debug` shows nothing of it (I8).
pub struct IntegrityKey(Kind);

#[allow(clippy::large_enum_variant)] // one per SA
enum Kind {
    /// And bytes of the ICV.
    Hmac(hmac::Key, usize),
    Gmac(Gmac),
}

struct Gmac {
    aes: Aes,
    /// GHASH of nothing yet, under the key.
    hash: GHash,
}

enum Aes {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

/// An integrity check value in the making.
pub struct Mac(State);

#[allow(clippy::large_enum_variant)] // on the stack of whoever feeds it
enum State {
    Hmac(hmac::Context, usize),
    Gmac(GmacState),
}

struct GmacState {
    hash: GHash,
    /// What does not fill a block yet.
    rest: [u8; BLOCK],
    rest_len: usize,
    len: u64,
    /// What the hash is hidden under: AES of the nonce's first counter block.
    mask: [u8; TAG_LEN],
}

/// An integrity check value.
#[derive(Clone, Copy)]
pub struct Icv {
    bytes: [u8; Icv::MAX],
    len: usize,
}

impl Icv {
    /// The longest: half of SHA-512.
    pub const MAX: usize = 32;

    /// What goes into the packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Writes it where there is as much room, and wipes it here: it is a key.
    pub(crate) fn reveal(mut self, to: &mut [u8]) {
        to.copy_from_slice(self.bytes());
        self.bytes.zeroize();
    }

    /// Whether a packet's is this one, in a time that does not depend on where they differ.
    #[must_use]
    pub fn fits(&self, icv: &[u8]) -> bool {
        verify_slices_are_equal(self.bytes(), icv).is_ok()
    }
}

impl IntegrityKey {
    /// HMAC with this hash; the ICV is half of its output (RFC 4868 §2.3).
    #[must_use]
    pub fn hmac(hash: Hash, key: &[u8]) -> IntegrityKey {
        let algorithm = match hash {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        IntegrityKey(Kind::Hmac(hmac::Key::new(algorithm, key), hash.icv_len()))
    }

    /// AES-GMAC.
    ///
    /// # Errors
    /// [`AeadError::KeyLength`], which names `algorithm`, for a key of neither 16 nor 32 bytes.
    pub fn gmac(algorithm: Algorithm, key: &[u8]) -> Result<IntegrityKey, AeadError> {
        let wrong = |_| AeadError::KeyLength { algorithm, len: key.len() };
        let aes = match key.len() {
            32 => Aes::Aes256(Aes256Enc::new_from_slice(key).map_err(wrong)?),
            _ => Aes::Aes128(Aes128Enc::new_from_slice(key).map_err(wrong)?),
        };
        let mut h = Array(aes.encrypt([0; BLOCK]));
        let hash = GHash::new(&h);
        h.0.zeroize();
        Ok(IntegrityKey(Kind::Gmac(Gmac { aes, hash })))
    }

    /// Begins with a packet. The nonce is GMAC's, which may never see one twice (I1); HMAC has none.
    #[must_use]
    pub fn begin(&self, nonce: &[u8; NONCE_LEN]) -> Mac {
        match &self.0 {
            Kind::Hmac(key, len) => Mac(State::Hmac(hmac::Context::with_key(key), *len)),
            Kind::Gmac(gmac) => {
                // NIST SP 800-38D §7.1: J0 of a nonce of 96 bits.
                let mut first = [0; BLOCK];
                first[..NONCE_LEN].copy_from_slice(nonce);
                first[BLOCK - 1] = 1;
                let mask = gmac.aes.encrypt(first);
                let hash = gmac.hash.clone();
                Mac(State::Gmac(GmacState { hash, rest: [0; BLOCK], rest_len: 0, len: 0, mask }))
            }
        }
    }

    /// Bytes of its ICV.
    #[must_use]
    pub fn icv_len(&self) -> usize {
        match &self.0 {
            Kind::Hmac(_, len) => *len,
            Kind::Gmac(_) => TAG_LEN,
        }
    }
}

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

impl Aes {
    fn encrypt(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        let mut block = Array(block);
        match self {
            Aes::Aes128(aes) => aes.encrypt_block(&mut block),
            Aes::Aes256(aes) => aes.encrypt_block(&mut block),
        }
        block.0
    }
}

/// A member of SHA-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl Hash {
    /// Bytes of its output, and of a key for it: RFC 4868 §2.1.1 has no other.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Bytes of an ICV: RFC 4868 §2.3.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        self.len() / 2
    }
}

impl Mac {
    /// The packet's next bytes.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Hmac(context, _) => context.update(bytes),
            State::Gmac(state) => state.update(bytes),
        }
    }

    /// All was fed.
    #[must_use]
    pub fn finish(self) -> Icv {
        let mut bytes = [0; Icv::MAX];
        match self.0 {
            State::Hmac(context, len) => {
                bytes[..len].copy_from_slice(&context.sign().as_ref()[..len]);
                Icv { bytes, len }
            }
            State::Gmac(state) => {
                bytes[..TAG_LEN].copy_from_slice(&state.finish());
                Icv { bytes, len: TAG_LEN }
            }
        }
    }
}

impl GmacState {
    fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.rest_len > 0 {
            let take = bytes.len().min(BLOCK - self.rest_len);
            let (now, later) = bytes.split_at(take);
            self.rest[self.rest_len..self.rest_len + take].copy_from_slice(now);
            (self.rest_len, bytes) = (self.rest_len + take, later);
            if self.rest_len < BLOCK {
                return;
            }
            self.hash.update(&[Array(self.rest)]);
            self.rest_len = 0;
        }
        let (blocks, rest) = Array::slice_as_chunks(bytes);
        self.hash.update(blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    /// NIST SP 800-38D §7.1, with no plaintext: the lengths, in bits, are the last block.
    fn finish(mut self) -> [u8; TAG_LEN] {
        if self.rest_len > 0 {
            self.rest[self.rest_len..].fill(0);
            self.hash.update(&[Array(self.rest)]);
        }
        let lengths = u128::from(8 * self.len) << 64;
        self.hash.update(&[Array(lengths.to_be_bytes())]);
        let tag = self.hash.finalize();
        std::array::from_fn(|n| tag[n] ^ self.mask[n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm};
    use proptest::prelude::*;

    /// RFC 4231 §4.2 to §4.8 give the whole output; half of it is the ICV.
    #[test]
    fn hmacs_are_halves_of_those_of_rfc_4231() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let cases = [
            (Hash::Sha256, "5bdcc146bf60754e6a042426089575c7"),
            (Hash::Sha384, "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47"),
            (Hash::Sha512, "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"),
        ];
        for (hash, icv) in cases {
            let key = IntegrityKey::hmac(hash, b"Jefe");
            let mut mac = key.begin(&[0; NONCE_LEN]);
            mac.update(b"what do ya want ");
            mac.update(b"for nothing?");
            let made = mac.finish();
            assert_eq!((made.bytes(), key.icv_len()), (&hex(icv)[..], hash.icv_len()));
            assert!(made.fits(&hex(icv)));
            assert!(!made.fits(&hex(icv)[1..]));
            let mut other = hex(icv);
            *other.last_mut().unwrap() ^= 1;
            assert!(!made.fits(&other));
        }
    }

    /// RFC 4868 §2.7.2.1: what makes it not RFC 4231 is the length of the key.
    #[test]
    fn the_icv_of_rfc_4868_comes_out() {
        let key: Vec<u8> = (1..=32u8).collect();
        let mut mac = IntegrityKey::hmac(Hash::Sha256, &key).begin(&[0; NONCE_LEN]);
        mac.update(&[0xcd; 50]);
        // AUTH256-4 of the RFC.
        let first: [u8; 8] = [0x37, 0x2e, 0xfc, 0xf9, 0xb4, 0x0b, 0x35, 0xc2];
        assert_eq!(mac.finish().bytes()[..8], first);
    }

    proptest! {
        #[test]
        fn gmac_is_gcm_without_text(
            key in prop::collection::vec(any::<u8>(), 32),
            short: bool,
            nonce: [u8; 12],
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..8),
        ) {
            let whole = parts.concat();
            let expected = if short {
                Aes128Gcm::new_from_slice(&key[..16]).unwrap().encrypt_inout_detached(&Array(nonce), &whole, (&mut [][..]).into())
            } else {
                Aes256Gcm::new_from_slice(&key).unwrap().encrypt_inout_detached(&Array(nonce), &whole, (&mut [][..]).into())
            };
            let ours = IntegrityKey::gmac(Algorithm::AhGmac128, if short { &key[..16] } else { &key }).unwrap();
            let mut mac = ours.begin(&nonce);
            parts.iter().for_each(|part| mac.update(part));
            let made = mac.finish();
            prop_assert_eq!(made.bytes(), &expected.unwrap()[..]);
        }
    }
}
