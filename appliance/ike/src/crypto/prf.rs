//! Pseudo-random functions (RFC 7296 §2.13, RFC 4868).

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::Secret;

/// A pseudo-random function that both ends agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
    /// PRF_HMAC_SHA2_512.
    HmacSha512,
}

impl Prf {
    /// Every one there is, the cheapest first.
    pub const ALL: [Prf; 3] = [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512];

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Prf> {
        Prf::ALL.into_iter().find(|prf| prf.name() == name)
    }

    /// The one of a transform ID of type 2 (IANA, "IKEv2 Transform Type 2").
    pub const fn from_id(id: u16) -> Option<Prf> {
        match id {
            5 => Some(Prf::HmacSha256),
            6 => Some(Prf::HmacSha384),
            7 => Some(Prf::HmacSha512),
            _ => None,
        }
    }

    /// Its transform ID.
    pub const fn id(self) -> u16 {
        match self {
            Prf::HmacSha256 => 5,
            Prf::HmacSha384 => 6,
            Prf::HmacSha512 => 7,
        }
    }

    /// Bytes of its output, and of the keys it prefers (RFC 4868 §2.4).
    pub const fn len(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }

    /// Never: an output has at least 32 bytes.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Its name in configuration and events.
    pub const fn name(self) -> &'static str {
        match self {
            Prf::HmacSha256 => "prf-sha256",
            Prf::HmacSha384 => "prf-sha384",
            Prf::HmacSha512 => "prf-sha512",
        }
    }

    pub(crate) fn algorithm(self) -> hmac::Algorithm {
        match self {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        }
    }

    /// prf(key, parts one after the other).
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        Secret::from(tag(&hmac::Key::new(self.algorithm(), key), parts).as_ref())
    }

    /// The first `len` bytes of prf+(key, parts one after the other) (RFC 7296 §2.13).
    ///
    /// # Panics
    /// If more than 255 outputs are asked for: prf+ ends there, and no set of keys comes near.
    pub fn plus(self, key: &[u8], parts: &[&[u8]], len: usize) -> Secret {
        assert!(len <= 255 * self.len(), "prf+ gives at most 255 outputs, not {len} bytes");
        let key = hmac::Key::new(self.algorithm(), key);
        let mut out = Zeroizing::new(Vec::with_capacity(len + self.len()));
        let mut number = 0;
        while out.len() < len {
            number += 1;
            let mut context = hmac::Context::with_key(&key);
            context.update(&out[out.len().saturating_sub(self.len())..]);
            parts.iter().for_each(|part| context.update(part));
            context.update(&[number]);
            out.extend_from_slice(context.sign().as_ref());
        }
        out.truncate(len);
        Secret(out)
    }
}

/// The HMAC of parts one after the other.
pub(super) fn tag(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

/// SHA-1, for the two places where IKEv2 fixes it and nothing depends on its strength: NAT detection (RFC 7296 §2.23) and
/// the names of authorities in CERTREQ (§3.7). Never for a signature or a key (RFC 8247).
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-1 has 20 bytes")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::hex, *};

    #[test]
    fn outputs_are_those_of_rfc_4231() {
        // RFC 4231 §4.3, test case 2.
        let mac = |prf: Prf| prf.mac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(
            mac(Prf::HmacSha256).as_bytes(),
            hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(
            mac(Prf::HmacSha384).as_bytes(),
            hex("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649")
        );
        assert_eq!(
            mac(Prf::HmacSha512).as_bytes(),
            hex(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
            )
        );
    }

    #[test]
    fn prf_plus_is_a_chain_of_outputs_that_starts_with_number_one() {
        // RFC 7296 §2.13: T1 = prf(K, S | 0x01), T2 = prf(K, T1 | S | 0x02), T3 = ...
        let (key, seed): (&[u8], &[u8]) = (b"key", b"seed");
        for prf in Prf::ALL {
            let t1 = prf.mac(key, &[seed, &[1]]);
            let t2 = prf.mac(key, &[t1.as_bytes(), seed, &[2]]);
            let t3 = prf.mac(key, &[t2.as_bytes(), seed, &[3]]);
            let whole = [t1.as_bytes(), t2.as_bytes(), t3.as_bytes()].concat();
            for len in [0, 1, prf.len(), prf.len() + 1, 3 * prf.len()] {
                assert_eq!(prf.plus(key, &[b"se", b"ed"], len).as_bytes(), &whole[..len]);
            }
        }
    }

    #[test]
    fn transform_ids_are_ianas() {
        assert_eq!(Prf::ALL.map(Prf::id), [5, 6, 7]);
        for id in 0..=u16::MAX {
            assert!(Prf::from_id(id).is_none_or(|prf| prf.id() == id));
        }
    }

    #[test]
    fn sha1_is_that_of_rfc_3174() {
        assert_eq!(sha1(&[b"a", b"bc"]).to_vec(), hex("a9993e364706816aba3e25717850c26c9cd0d89d"));
    }
}
