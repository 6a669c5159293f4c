//! MODP groups (RFC 3526): constant-time modular exponentiation.

use std::sync::LazyLock;

use crypto_bigint::{
    Encoding, Odd, U512, U2048, U3072, U4096, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use zeroize::Zeroize;

use super::{Group, Secret};

/// Bytes of a private exponent. RFC 3526 §8 asks for twice the group's strength, at most 480 bits for 4096; p is a safe
/// prime, so a short exponent is as good as a long one and several times faster.
pub(super) const EXPONENT_LEN: usize = 64;
/// Every group's generator.
const GENERATOR: u64 = 2;

/// A prime in Montgomery form.
struct Prime<const LIMBS: usize>(FixedMontyParams<LIMBS>);

static P2048: LazyLock<Prime<{ U2048::LIMBS }>> = LazyLock::new(|| Prime::new(MODP2048));
static P3072: LazyLock<Prime<{ U3072::LIMBS }>> = LazyLock::new(|| Prime::new(MODP3072));
static P4096: LazyLock<Prime<{ U4096::LIMBS }>> = LazyLock::new(|| Prime::new(MODP4096));

/// The public value of an exponent, as long as the prime.
pub(super) fn public(group: Group, exponent: &[u8]) -> Vec<u8> {
    match group {
        Group::Modp2048 => P2048.power(&Uint::from_u64(GENERATOR), exponent),
        Group::Modp3072 => P3072.power(&Uint::from_u64(GENERATOR), exponent),
        Group::Modp4096 => P4096.power(&Uint::from_u64(GENERATOR), exponent),
        Group::X25519 | Group::Ecp256 | Group::Ecp384 | Group::Ecp521 => unreachable!("a curve"),
    }
    .as_bytes()
    .to_vec()
}

/// The shared secret, as long as the prime; nothing for a peer's value that is 0, 1, p - 1 or above (RFC 6989 §2.1).
pub(super) fn agree(group: Group, exponent: &[u8], peer: &[u8]) -> Option<Secret> {
    match group {
        Group::Modp2048 => P2048.agree(peer, exponent),
        Group::Modp3072 => P3072.agree(peer, exponent),
        Group::Modp4096 => P4096.agree(peer, exponent),
        Group::X25519 | Group::Ecp256 | Group::Ecp384 | Group::Ecp521 => None,
    }
}

impl<const LIMBS: usize> Prime<LIMBS>
where
    Uint<LIMBS>: Encoding,
{
    fn new(hex: &str) -> Self {
        Self(FixedMontyParams::new_vartime(Odd::new(Uint::from_be_hex(hex)).expect("a prime is odd")))
    }

    fn agree(&self, peer: &[u8], exponent: &[u8]) -> Option<Secret> {
        let peer = Uint::from_be_slice(peer);
        // A safe prime's other values generate at least its large subgroup.
        let last = self.0.modulus().as_ref().wrapping_sub(&Uint::ONE);
        (peer > Uint::ONE && peer < last).then(|| self.power(&peer, exponent))
    }

    fn power(&self, base: &Uint<LIMBS>, exponent: &[u8]) -> Secret {
        let mut exponent = U512::from_be_slice(exponent);
        let mut power = FixedMontyForm::new(base, &self.0).pow_bounded_exp(&exponent, U512::BITS).retrieve();
        let mut bytes = power.to_be_bytes();
        let secret = Secret::from(bytes.as_ref());
        exponent.zeroize();
        power.zeroize();
        bytes.as_mut().zeroize();
        secret
    }
}

/// 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476) (RFC 3526 §3).
const MODP2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";
/// 2^3072 - 2^3008 - 1 + 2^64 * ([2^2942 pi] + 1690314) (RFC 3526 §4).
const MODP3072: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";
/// 2^4096 - 2^4032 - 1 + 2^64 * ([2^3966 pi] + 240904) (RFC 3526 §5).
const MODP4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
    88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
    287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use super::{
        super::{sha1, testing::hex},
        *,
    };

    fn with(group: Group, low: u8, high: u8) -> Option<Secret> {
        let mut peer = vec![high; group.public_len()];
        *peer.last_mut().expect("not empty") = low;
        agree(group, &[7; EXPONENT_LEN], &peer)
    }

    #[test]
    fn values_of_small_order_and_above_the_prime_are_refused() {
        for (group, prime) in [(Group::Modp2048, MODP2048), (Group::Modp3072, MODP3072), (Group::Modp4096, MODP4096)] {
            let prime = hex(prime);
            let minus = |n: u8| {
                let mut value = prime.clone();
                *value.last_mut().expect("not empty") -= n; // ends in ff
                agree(group, &[7; EXPONENT_LEN], &value)
            };
            assert!([minus(0), minus(1)].iter().all(Option::is_none), "p and p - 1");
            assert!(minus(2).is_some(), "p - 2");
            assert!([0, 1].iter().all(|&low| with(group, low, 0).is_none()), "0 and 1");
            assert!(with(group, 2, 0).is_some(), "2");
            assert!(with(group, 0xff, 0xff).is_none(), "2^n - 1");
        }
    }

    #[test]
    fn a_secret_with_leading_zeros_is_as_long_as_the_prime() {
        // 2^1, 2^2: what RFC 7296 §2.14 says about padding matters here.
        let mut exponent = [0; EXPONENT_LEN];
        exponent[EXPONENT_LEN - 1] = 1;
        for group in [Group::Modp2048, Group::Modp3072, Group::Modp4096] {
            let mut two = vec![0; group.public_len()];
            two[group.public_len() - 1] = 2;
            assert_eq!(public(group, &exponent), two);
            assert_eq!(agree(group, &exponent, &two).expect("valid").as_bytes(), two);
        }
    }

    #[test]
    fn powers_are_those_that_another_library_computes() {
        // Python's pow, of primes made by RFC 3526's formula: SHA-1 of 2^x mod p and of 2^xy mod p.
        let [x, y] = [1, 101].map(|first| std::array::from_fn::<u8, EXPONENT_LEN, _>(|n| first + n as u8));
        for (group, one, both) in [
            (Group::Modp2048, "e106a1e5f7c06ac73c123a9bc5f6301279e8cd88", "6c7afefc58b0073c36211b206c599cdcf8f871d1"),
            (Group::Modp3072, "ab47f07064c5007024b15612a55dddb981fee633", "50d9cbec3d8764d1c1ad245f00f53dd09cf9c0f2"),
            (Group::Modp4096, "c43e3df133db40a7408df17b9ae4e46446874731", "2d04c284d3638a29cf87a0de8407a4f32bf17d47"),
        ] {
            assert_eq!(sha1(&[&public(group, &x)]).to_vec(), hex(one));
            let shared = agree(group, &x, &public(group, &y)).expect("valid");
            assert_eq!(sha1(&[shared.as_bytes()]).to_vec(), hex(both));
        }
    }
}
