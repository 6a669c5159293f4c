//! Key exchange methods (RFC 7296 §3.4, RFC 5903, RFC 8031, RFC 3526).

use std::fmt;

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{CryptoError, Random, Secret, modp};

/// In front of an uncompressed point of SEC 1; IKE leaves it out (RFC 5903 §7).
const UNCOMPRESSED: u8 = 4;
/// How often a random number may be above a curve's order, which for a sound source happens once in 2^32 at most.
const TRIES: usize = 64;

/// A key exchange method that both ends agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Curve25519 (RFC 8031).
    X25519,
    /// 256-bit random ECP group, P-256 (RFC 5903).
    Ecp256,
    /// 384-bit random ECP group, P-384 (RFC 5903).
    Ecp384,
    /// 521-bit random ECP group, P-521 (RFC 5903).
    Ecp521,
    /// 2048-bit MODP group (RFC 3526 §3).
    Modp2048,
    /// 3072-bit MODP group (RFC 3526 §4).
    Modp3072,
    /// 4096-bit MODP group (RFC 3526 §5).
    Modp4096,
}

impl Group {
    /// Every one there is, the cheapest first.
    pub const ALL: [Group; 7] =
        [Group::X25519, Group::Ecp256, Group::Ecp384, Group::Ecp521, Group::Modp2048, Group::Modp3072, Group::Modp4096];

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.name() == name)
    }

    /// The one of a transform ID of type 4 (IANA, "IKEv2 Transform Type 4").
    pub const fn from_id(id: u16) -> Option<Group> {
        match id {
            14 => Some(Group::Modp2048),
            15 => Some(Group::Modp3072),
            16 => Some(Group::Modp4096),
            19 => Some(Group::Ecp256),
            20 => Some(Group::Ecp384),
            21 => Some(Group::Ecp521),
            31 => Some(Group::X25519),
            _ => None,
        }
    }

    /// Its transform ID.
    pub const fn id(self) -> u16 {
        match self {
            Group::Modp2048 => 14,
            Group::Modp3072 => 15,
            Group::Modp4096 => 16,
            Group::Ecp256 => 19,
            Group::Ecp384 => 20,
            Group::Ecp521 => 21,
            Group::X25519 => 31,
        }
    }

    /// Its name in configuration and events.
    pub const fn name(self) -> &'static str {
        match self {
            Group::X25519 => "x25519",
            Group::Ecp256 => "ecp256",
            Group::Ecp384 => "ecp384",
            Group::Ecp521 => "ecp521",
            Group::Modp2048 => "modp2048",
            Group::Modp3072 => "modp3072",
            Group::Modp4096 => "modp4096",
        }
    }

    /// Bytes of a public value in a KE payload.
    pub const fn public_len(self) -> usize {
        match self {
            Group::X25519 => 32,
            Group::Ecp256 => 64,
            Group::Ecp384 => 96,
            Group::Ecp521 => 132,
            Group::Modp2048 => 256,
            Group::Modp3072 => 384,
            Group::Modp4096 => 512,
        }
    }

    /// The curve's algorithm and the bytes of a private key; none of a MODP group.
    fn curve(self) -> Option<(&'static agreement::Algorithm, usize)> {
        match self {
            Group::X25519 => Some((&agreement::X25519, 32)),
            Group::Ecp256 => Some((&agreement::ECDH_P256, 32)),
            Group::Ecp384 => Some((&agreement::ECDH_P384, 48)),
            Group::Ecp521 => Some((&agreement::ECDH_P521, 66)),
            Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => None,
        }
    }

    /// A fresh private key. It should serve one exchange (RFC 7296 §2.12).
    ///
    /// # Panics
    /// If the random source is broken: of 64 numbers none is in the curve's range.
    pub fn generate(self, random: &mut dyn Random) -> PrivateKey {
        let Some((_, len)) = self.curve() else {
            return PrivateKey::modp(self, Secret::random(modp::EXPONENT_LEN, random));
        };
        let mut bytes = Zeroizing::new(vec![0; len]);
        for _ in 0..TRIES {
            random.fill(&mut bytes);
            if self == Group::Ecp521 {
                bytes[0] &= 1; // 521 bits
            }
            // FIPS 186-5 §A.2.2: what is 0 or not below the order is thrown away.
            if let Ok(key) = PrivateKey::from_bytes(self, &bytes) {
                return key;
            }
        }
        panic!("the random source is broken: no private key of {} in {TRIES} tries", self.name());
    }
}

/// Our half of a key exchange. Wiped when dropped; `Debug` prints the group only (I8).
pub struct PrivateKey {
    group: Group,
    public: Box<[u8]>,
    private: Private,
}

enum Private {
    Curve(agreement::PrivateKey),
    Modp(Secret),
}

impl PrivateKey {
    /// A private key of given bytes, big-endian (X25519: as RFC 7748 has them).
    pub(crate) fn from_bytes(group: Group, bytes: &[u8]) -> Result<Self, CryptoError> {
        let Some((algorithm, len)) = group.curve() else {
            return Ok(Self::modp(group, Secret::from(bytes)));
        };
        let wrong = CryptoError::KeyLength { expected: len, got: bytes.len() };
        let key = agreement::PrivateKey::from_private_key(algorithm, bytes).map_err(|_| wrong)?;
        let public = key.compute_public_key().map_err(|_| wrong)?;
        let public = match group {
            Group::X25519 => public.as_ref(),
            _ => &public.as_ref()[1..],
        };
        Ok(Self { group, public: public.into(), private: Private::Curve(key) })
    }

    fn modp(group: Group, exponent: Secret) -> Self {
        Self { group, public: modp::public(group, exponent.as_bytes()).into(), private: Private::Modp(exponent) }
    }

    /// Its group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The public value, as it goes into a KE payload.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir with a peer's public value: of a MODP group as long as the prime (RFC 7296 §2.14), of a
    /// curve the x coordinate (RFC 5903 §7, RFC 8031 §2).
    ///
    /// # Errors
    /// [`CryptoError::PublicLength`], [`CryptoError::InvalidPublic`]: a point off the curve, one of low order, of a MODP
    /// group 0, 1, p - 1 and everything above.
    pub fn agree(&self, peer: &[u8]) -> Result<Secret, CryptoError> {
        let expected = self.group.public_len();
        if peer.len() != expected {
            return Err(CryptoError::PublicLength { group: self.group, expected, got: peer.len() });
        }
        let invalid = CryptoError::InvalidPublic(self.group);
        let key = match &self.private {
            Private::Modp(exponent) => return modp::agree(self.group, exponent.as_bytes(), peer).ok_or(invalid),
            Private::Curve(key) => key,
        };
        let mut point = [UNCOMPRESSED; 133];
        point[1..=peer.len()].copy_from_slice(peer);
        let encoded = if self.group == Group::X25519 { peer } else { &point[..=peer.len()] };
        agreement::agree(key, UnparsedPublicKey::new(key.algorithm(), encoded), invalid, |secret| {
            Ok(Secret::from(secret))
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("group", &self.group).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Seeded, hex},
        *,
    };

    #[test]
    fn two_ends_of_every_group_agree_on_a_secret_nobody_else_has() {
        let mut random = Seeded(1);
        for group in Group::ALL {
            let [a, b, c] = [(); 3].map(|()| group.generate(&mut random));
            assert_eq!(a.public().len(), group.public_len());
            let secret = a.agree(b.public()).expect("valid");
            assert_eq!(secret, b.agree(a.public()).expect("valid"));
            assert_ne!(secret, c.agree(a.public()).expect("valid"));
            let expected = if matches!(group, Group::X25519) || group.curve().is_none() { 1 } else { 2 };
            assert_eq!(secret.len() * expected, group.public_len());
        }
    }

    #[test]
    fn a_public_value_of_another_length_is_refused_by_every_group() {
        for group in Group::ALL {
            let key = group.generate(&mut Seeded(2));
            for got in [0, 1, group.public_len() - 1, group.public_len() + 1, 1024] {
                let expected = CryptoError::PublicLength { group, expected: group.public_len(), got };
                assert_eq!(key.agree(&vec![2; got]), Err(expected));
            }
        }
    }

    #[test]
    fn zero_is_nobodys_public_value() {
        for group in Group::ALL {
            let key = group.generate(&mut Seeded(3));
            assert_eq!(key.agree(&vec![0; group.public_len()]), Err(CryptoError::InvalidPublic(group)));
        }
    }

    #[test]
    fn transform_ids_are_ianas_and_weak_groups_have_none() {
        assert_eq!(Group::ALL.map(Group::id), [31, 19, 20, 21, 14, 15, 16]);
        for id in 0..=u16::MAX {
            assert!(Group::from_id(id).is_none_or(|group| group.id() == id));
        }
        // RFC 8247 §2.4: 768, 1024 and 1536 bits, and the groups with a small subgroup.
        assert!([1, 2, 5, 22, 23, 24].into_iter().all(|id| Group::from_id(id).is_none()));
    }

    #[test]
    fn p256_is_that_of_rfc_5903() {
        // RFC 5903 §8.1.
        let i = hex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433");
        let r = hex("C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53");
        let (i, r) = (
            PrivateKey::from_bytes(Group::Ecp256, &i).expect("valid"),
            PrivateKey::from_bytes(Group::Ecp256, &r).expect("valid"),
        );
        assert_eq!(
            i.public(),
            hex("DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3")
        );
        assert_eq!(
            i.agree(r.public()).expect("valid").as_bytes(),
            hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE")
        );
    }
}
