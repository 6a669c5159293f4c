//! The keys of an IKE SA and of its CHILD SAs (RFC 7296 §2.14, §2.17, §2.18; RFC 9370 §2.2).

use super::{Cipher, Prf, Secret};

/// What both ends contributed to an exchange, besides the shared secrets.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The initiator's nonce, without payload header.
    pub nonce_i: &'a [u8],
    /// The responder's.
    pub nonce_r: &'a [u8],
    /// The initiator's SPI of the new IKE SA.
    pub spi_i: [u8; 8],
    /// The responder's.
    pub spi_r: [u8; 8],
}

/// An IKE SA's keys. For an AEAD `ai` and `ar` are empty, `ei` and `er` have the salt behind the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeKeys {
    /// SK_d: where further keys come from.
    pub d: Secret,
    /// SK_ai: integrity of the initiator's messages.
    pub ai: Secret,
    /// SK_ar: of the responder's.
    pub ar: Secret,
    /// SK_ei: encryption of the initiator's messages.
    pub ei: Secret,
    /// SK_er: of the responder's.
    pub er: Secret,
    /// SK_pi: what the initiator's AUTH covers its identity with.
    pub pi: Secret,
    /// SK_pr: the responder's.
    pub pr: Secret,
}

impl IkeKeys {
    /// Those of a new IKE SA (RFC 7296 §2.14): SKEYSEED = prf(Ni | Nr, g^ir).
    pub fn initial(prf: Prf, cipher: Cipher, shared: &Secret, exchange: &Exchange) -> Self {
        let nonces = [exchange.nonce_i, exchange.nonce_r].concat();
        Self::expand(prf, cipher, &prf.mac(&nonces, &[shared.as_bytes()]), exchange)
    }

    /// Those after one more key exchange of the same IKE SA, by IKE_INTERMEDIATE (RFC 9370 §2.2.2):
    /// SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr). Nonces and SPIs are those of IKE_SA_INIT.
    pub fn next(&self, prf: Prf, cipher: Cipher, shared: &Secret, exchange: &Exchange) -> Self {
        self.rekey(prf, prf, cipher, &[shared], exchange)
    }

    /// Those of an IKE SA that takes this one's place (RFC 7296 §2.18): SKEYSEED = prf(SK_d, g^ir | Ni | Nr) with this one's
    /// prf, then the new one's. Further shared secrets come behind the nonces (RFC 9370 §2.2.4).
    ///
    /// # Panics
    /// Without a shared secret: a rekeyed IKE SA always has a key exchange of its own.
    pub fn rekey(&self, old: Prf, prf: Prf, cipher: Cipher, shared: &[&Secret], exchange: &Exchange) -> Self {
        let (first, more) = shared.split_first().expect("an IKE SA is rekeyed with a key exchange");
        let mut parts = vec![first.as_bytes(), exchange.nonce_i, exchange.nonce_r];
        parts.extend(more.iter().map(|secret| secret.as_bytes()));
        Self::expand(prf, cipher, &old.mac(self.d.as_bytes(), &parts), exchange)
    }

    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).
    fn expand(prf: Prf, cipher: Cipher, seed: &Secret, exchange: &Exchange) -> Self {
        let (integrity, encryption) = (cipher.integrity_key_len(), cipher.encryption_key_len());
        let lengths = [prf.len(), integrity, integrity, encryption, encryption, prf.len(), prf.len()];
        let parts: [&[u8]; 4] = [exchange.nonce_i, exchange.nonce_r, &exchange.spi_i, &exchange.spi_r];
        let all = prf.plus(seed.as_bytes(), &parts, lengths.iter().sum());
        let mut rest = all.as_bytes();
        let [d, ai, ar, ei, er, pi, pr] = lengths.map(|len| {
            let (key, behind) = rest.split_at(len);
            rest = behind;
            Secret::from(key)
        });
        Self { d, ai, ar, ei, er, pi, pr }
    }
}

/// KEYMAT of a CHILD SA: `len` bytes, the initiator's outbound keys first, encryption before integrity (RFC 7296 §2.17).
/// `shared` are the secrets of the CREATE_CHILD_SA's own key exchanges, if it had any: the first one in front of the nonces,
/// further ones behind them (RFC 9370 §2.2.4).
pub fn child_keys(prf: Prf, d: &Secret, shared: &[&Secret], nonce_i: &[u8], nonce_r: &[u8], len: usize) -> Secret {
    let (first, more) = shared.split_at(shared.len().min(1));
    let mut parts: Vec<&[u8]> = first.iter().map(|secret| secret.as_bytes()).collect();
    parts.extend([nonce_i, nonce_r]);
    parts.extend(more.iter().map(|secret| secret.as_bytes()));
    prf.plus(d.as_bytes(), &parts, len)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AesBits, Integrity},
        *,
    };

    const EXCHANGE: Exchange = Exchange { nonce_i: b"initiator", nonce_r: b"responder", spi_i: [1; 8], spi_r: [2; 8] };

    #[test]
    fn keys_have_the_lengths_that_their_algorithms_take() {
        let cbc = Cipher::AesCbc { bits: AesBits::B256, integrity: Integrity::HmacSha512_256 };
        for (cipher, integrity, encryption) in
            [(Cipher::AesGcm16 { bits: AesBits::B128 }, 0, 20), (Cipher::ChaCha20Poly1305, 0, 36), (cbc, 64, 32)]
        {
            let keys = IkeKeys::initial(Prf::HmacSha384, cipher, &Secret::new(vec![3; 32]), &EXCHANGE);
            assert_eq!([&keys.d, &keys.pi, &keys.pr].map(Secret::len), [48; 3]);
            assert_eq!([&keys.ai, &keys.ar].map(Secret::len), [integrity; 2]);
            assert_eq!([&keys.ei, &keys.er].map(Secret::len), [encryption; 2]);
        }
    }

    #[test]
    fn a_rekey_seeds_with_the_old_prf_and_expands_with_the_new_one() {
        // RFC 7296 §2.18.
        let (old, new) = (Prf::HmacSha256, Prf::HmacSha512);
        let cipher = Cipher::ChaCha20Poly1305;
        let (first, second) = (Secret::new(vec![4; 32]), Secret::new(vec![5; 32]));
        let keys = IkeKeys::initial(old, cipher, &first, &EXCHANGE);
        let seed = old.mac(keys.d.as_bytes(), &[second.as_bytes(), b"initiator", b"responder"]);
        let expected = new.plus(seed.as_bytes(), &[b"initiator", b"responder", &[1; 8], &[2; 8]], 64);
        assert_eq!(keys.rekey(old, new, cipher, &[&second], &EXCHANGE).d, expected);
    }

    #[test]
    fn further_secrets_come_behind_the_nonces() {
        // RFC 9370 §2.2.4.
        let prf = Prf::HmacSha256;
        let [d, one, two] = [6, 7, 8].map(|byte| Secret::new(vec![byte; 32]));
        let expected = prf.plus(d.as_bytes(), &[one.as_bytes(), b"i", b"r", two.as_bytes()], 72);
        assert_eq!(child_keys(prf, &d, &[&one, &two], b"i", b"r", 72), expected);
        assert_eq!(child_keys(prf, &d, &[], b"i", b"r", 72), prf.plus(d.as_bytes(), &[b"i", b"r"], 72));
    }
}
