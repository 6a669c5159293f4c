//! Proposals in the notation that IKE daemons share: `aes128gcm16-prfsha256-x25519`. Words of one kind are alternatives, the
//! first one preferred.

use phalanx_aead::Algorithm;
use phalanx_ike::crypto::{AesBits, Cipher, Group, Integrity, Prf};
use phalanx_ike::{EspProposal, IkeProposal};
use std::str::FromStr;

/// What every peer of ours can be expected to take, and nothing else (RFC 8247).
pub(super) const IKE: &str =
    "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-x25519-ecp256-ecp384-modp3072-modp2048";
/// ESP where nothing is said.
pub(super) const ESP: &str = "aes128gcm16-aes256gcm16";

/// `proposal` of a peer.
pub(super) struct Ike(pub IkeProposal);

/// `proposal` of a child.
pub(super) struct Esp(pub EspProposal);

/// A word of a proposal.
enum Word {
    Aead(Cipher),
    /// Of ESP, and of AH.
    Gmac(AesBits),
    /// Of ESP alone.
    Esp(Algorithm),
    /// The proposal is for AH.
    Ah,
    Null,
    Cbc(AesBits),
    Hash(Integrity, Prf),
    Prf(Prf),
    Group(Group),
    Esn(bool),
}

impl FromStr for Word {
    type Err = String;
    fn from_str(word: &str) -> Result<Word, String> {
        use AesBits::{B128, B256};
        Ok(match word {
            "aes128gcm16" | "aes128gcm" | "aes128gcm128" => Word::Aead(Cipher::AesGcm16 { bits: B128 }),
            "aes256gcm16" | "aes256gcm" | "aes256gcm128" => Word::Aead(Cipher::AesGcm16 { bits: B256 }),
            "chacha20poly1305" => Word::Aead(Cipher::ChaCha20Poly1305),
            "aes128gmac" => Word::Gmac(B128),
            "aes256gmac" => Word::Gmac(B256),
            "ah" => Word::Ah,
            // Nobody else has words for these.
            "aes128gcm16iiv" => Word::Esp(Algorithm::Aes128Gcm16Iiv),
            "aes256gcm16iiv" => Word::Esp(Algorithm::Aes256Gcm16Iiv),
            "chacha20poly1305iiv" => Word::Esp(Algorithm::ChaCha20Poly1305Iiv),
            "null" => Word::Null,
            "aes128" | "aes" => Word::Cbc(B128),
            "aes256" => Word::Cbc(B256),
            "sha256" | "sha2_256" => Word::Hash(Integrity::HmacSha256_128, Prf::HmacSha256),
            "sha384" | "sha2_384" => Word::Hash(Integrity::HmacSha384_192, Prf::HmacSha384),
            "sha512" | "sha2_512" => Word::Hash(Integrity::HmacSha512_256, Prf::HmacSha512),
            "prfsha256" => Word::Prf(Prf::HmacSha256),
            "prfsha384" => Word::Prf(Prf::HmacSha384),
            "prfsha512" => Word::Prf(Prf::HmacSha512),
            "x25519" | "curve25519" => Word::Group(Group::X25519),
            "ecp256" => Word::Group(Group::Ecp256),
            "ecp384" => Word::Group(Group::Ecp384),
            "ecp521" => Word::Group(Group::Ecp521),
            "modp2048" => Word::Group(Group::Modp2048),
            "modp3072" => Word::Group(Group::Modp3072),
            "modp4096" => Word::Group(Group::Modp4096),
            "esn" => Word::Esn(true),
            "noesn" => Word::Esn(false),
            "md5" | "sha1" | "sha" | "3des" | "des" | "modp768" | "modp1024" | "modp1536" | "prfmd5" | "prfsha1" => {
                return Err(format!("`{word}` is too weak (RFC 8247)"));
            }
            _ => return Err(format!("`{word}` is no algorithm of this version")),
        })
    }
}

/// Once each, in the order of their first mention.
fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

impl FromStr for Ike {
    type Err = String;
    fn from_str(text: &str) -> Result<Ike, String> {
        let (mut ciphers, mut prfs, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let words = text.split('-').map(str::parse).collect::<Result<Vec<Word>, String>>()?;
        let hashes: Vec<(Integrity, Prf)> =
            words.iter().filter_map(|w| if let Word::Hash(i, p) = w { Some((*i, *p)) } else { None }).collect();
        for (word, text) in words.into_iter().zip(text.split('-')) {
            match word {
                Word::Aead(cipher) => add(&mut ciphers, cipher),
                Word::Esp(_) | Word::Null => return Err(format!("`{text}` is for ESP, not for IKE itself")),
                Word::Gmac(_) | Word::Ah => return Err(format!("`{text}` is for ESP and AH, not for IKE itself")),
                Word::Cbc(_) if hashes.is_empty() => {
                    return Err("AES-CBC needs an integrity algorithm such as `sha256`".to_owned());
                }
                Word::Cbc(bits) => {
                    hashes.iter().for_each(|(integrity, _)| {
                        add(&mut ciphers, Cipher::AesCbc { bits, integrity: *integrity });
                    });
                }
                Word::Prf(prf) => add(&mut prfs, prf),
                Word::Group(group) => add(&mut groups, group),
                Word::Hash(..) => {}
                Word::Esn(_) => return Err("`esn` and `noesn` are of a child's proposal".to_owned()),
            }
        }
        // The hash of the integrity algorithm, where nothing else is said.
        if prfs.is_empty() {
            hashes.iter().for_each(|(_, prf)| add(&mut prfs, *prf));
        }
        let lacks = |what: &str, such: &str| Err(format!("names no {what} such as `{such}`"));
        match (ciphers.is_empty(), prfs.is_empty(), groups.is_empty()) {
            (true, ..) => lacks("cipher", "aes128gcm16"),
            (_, true, _) => lacks("pseudorandom function", "prfsha256"),
            (.., true) => lacks("key exchange", "x25519"),
            _ => Ok(Ike(IkeProposal { ciphers, prfs, groups })),
        }
    }
}

impl FromStr for Esp {
    type Err = String;
    fn from_str(text: &str) -> Result<Esp, String> {
        let (mut algorithms, mut groups, mut esn) = (Vec::new(), Vec::new(), Vec::new());
        let words = text.split('-').map(str::parse).collect::<Result<Vec<Word>, String>>()?;
        let hashes: Vec<Integrity> =
            words.iter().filter_map(|w| if let Word::Hash(i, _) = w { Some(*i) } else { None }).collect();
        let (ah, mut beside) = (words.iter().any(|w| matches!(w, Word::Ah)), false);
        for (word, text) in words.into_iter().zip(text.split('-')) {
            match word {
                Word::Ah => {}
                Word::Hash(hash, _) if ah => add(&mut algorithms, ah_hmac(hash)),
                Word::Gmac(bits) => add(&mut algorithms, gmac(bits, ah)),
                Word::Aead(_) | Word::Esp(_) | Word::Null | Word::Cbc(_) if ah => {
                    return Err(format!("`{text}` is for ESP: AH encrypts nothing"));
                }
                Word::Aead(Cipher::AesGcm16 { bits: AesBits::B128 }) => add(&mut algorithms, Algorithm::Aes128Gcm16),
                Word::Aead(Cipher::AesGcm16 { bits: AesBits::B256 }) => add(&mut algorithms, Algorithm::Aes256Gcm16),
                Word::Aead(Cipher::ChaCha20Poly1305) => add(&mut algorithms, Algorithm::ChaCha20Poly1305),
                Word::Esp(algorithm) => add(&mut algorithms, algorithm),
                Word::Cbc(_) | Word::Null if hashes.is_empty() => {
                    return Err(format!("`{text}` needs an integrity algorithm such as `sha256`"));
                }
                Word::Cbc(bits) => hashes.iter().for_each(|hash| add(&mut algorithms, cbc(bits, *hash))),
                Word::Null => hashes.iter().for_each(|hash| add(&mut algorithms, null(*hash))),
                Word::Hash(..) => {}
                Word::Group(group) => add(&mut groups, group),
                Word::Esn(with) => add(&mut esn, with),
                Word::Aead(_) | Word::Prf(_) => return Err(format!("`{text}` is for IKE itself, not for ESP")),
            }
            beside |= matches!(word, Word::Cbc(_) | Word::Null);
        }
        if ah && algorithms.is_empty() {
            return Err("names no integrity algorithm such as `sha256`".to_owned());
        }
        if !hashes.is_empty() && !beside && !ah {
            return Err(
                "names an integrity algorithm, but no cipher that needs one: `aes128`, `aes256` or `null`".to_owned()
            );
        }
        if algorithms.is_empty() {
            return Err("names no cipher such as `aes128gcm16`".to_owned());
        }
        // RFC 7296 §3.3.2: either, rather the longer one.
        if esn.is_empty() {
            esn = vec![true, false];
        }
        Ok(Esp(EspProposal { algorithms, groups, esn }))
    }
}

fn cbc(bits: AesBits, hash: Integrity) -> Algorithm {
    match (bits, hash) {
        (AesBits::B128, Integrity::HmacSha256_128) => Algorithm::Aes128CbcSha256,
        (AesBits::B128, Integrity::HmacSha384_192) => Algorithm::Aes128CbcSha384,
        (AesBits::B128, Integrity::HmacSha512_256) => Algorithm::Aes128CbcSha512,
        (AesBits::B256, Integrity::HmacSha256_128) => Algorithm::Aes256CbcSha256,
        (AesBits::B256, Integrity::HmacSha384_192) => Algorithm::Aes256CbcSha384,
        (AesBits::B256, Integrity::HmacSha512_256) => Algorithm::Aes256CbcSha512,
    }
}

fn ah_hmac(hash: Integrity) -> Algorithm {
    match hash {
        Integrity::HmacSha256_128 => Algorithm::AhHmacSha256,
        Integrity::HmacSha384_192 => Algorithm::AhHmacSha384,
        Integrity::HmacSha512_256 => Algorithm::AhHmacSha512,
    }
}

fn gmac(bits: AesBits, ah: bool) -> Algorithm {
    match (bits, ah) {
        (AesBits::B128, false) => Algorithm::Aes128Gmac,
        (AesBits::B256, false) => Algorithm::Aes256Gmac,
        (AesBits::B128, true) => Algorithm::AhGmac128,
        (AesBits::B256, true) => Algorithm::AhGmac256,
    }
}

fn null(hash: Integrity) -> Algorithm {
    match hash {
        Integrity::HmacSha256_128 => Algorithm::NullSha256,
        Integrity::HmacSha384_192 => Algorithm::NullSha384,
        Integrity::HmacSha512_256 => Algorithm::NullSha512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong<T: FromStr<Err = String>>(text: &str) -> String {
        text.parse::<T>().err().unwrap_or_default()
    }

    #[test]
    fn words_of_one_kind_are_alternatives_in_their_order() {
        let Ike(p) = "aes256-aes128gcm16-sha384-sha256-ecp384-x25519".parse().unwrap();
        let cbc = |integrity| Cipher::AesCbc { bits: AesBits::B256, integrity };
        let gcm = Cipher::AesGcm16 { bits: AesBits::B128 };
        assert_eq!(p.ciphers, [cbc(Integrity::HmacSha384_192), cbc(Integrity::HmacSha256_128), gcm]);
        assert_eq!((p.prfs, p.groups), (vec![Prf::HmacSha384, Prf::HmacSha256], vec![Group::Ecp384, Group::X25519]));
        let Ike(p) = "aes128gcm16-prfsha512-modp2048".parse().unwrap();
        assert_eq!((p.ciphers, p.prfs), (vec![gcm], vec![Prf::HmacSha512]));
        assert!(IKE.parse::<Ike>().is_ok() && ESP.parse::<Esp>().is_ok());
    }

    #[test]
    fn esp_takes_either_kind_of_numbers_unless_told() {
        let Esp(p) = "aes256gcm16-x25519".parse().unwrap();
        assert_eq!(
            (p.algorithms, p.groups, p.esn),
            (vec![Algorithm::Aes256Gcm16], vec![Group::X25519], vec![true, false])
        );
        let Esp(p) = "aes128gcm16-noesn".parse().unwrap();
        assert_eq!((p.groups, p.esn), (vec![], vec![false]));
    }

    #[test]
    fn esp_has_a_word_for_each_of_its_algorithms() {
        let algorithms = |text: &str| text.parse::<Esp>().unwrap_or_else(|e| panic!("{text}: {e}")).0.algorithms;
        let alone = "aes128gcm16-aes256gcm16-chacha20poly1305-aes128gmac-aes256gmac-\
                     aes128gcm16iiv-aes256gcm16iiv-chacha20poly1305iiv";
        let both = "aes128-aes256-null-sha256-sha384-sha512";
        let mut all = [algorithms(alone), algorithms(both)].concat();
        all.sort();
        assert_eq!(all, Algorithm::ESP);
        assert_eq!(
            algorithms("null-aes256-sha512-aes128gcm16-sha384"),
            [
                Algorithm::NullSha512,
                Algorithm::NullSha384,
                Algorithm::Aes256CbcSha512,
                Algorithm::Aes256CbcSha384,
                Algorithm::Aes128Gcm16
            ]
        );
    }

    #[test]
    fn a_proposal_of_ah_has_integrity_algorithms_alone() {
        let Esp(p) = "ah-sha512-sha384-sha256-aes256gmac-aes128gmac-x25519-esn".parse().unwrap();
        assert_eq!((p.groups, p.esn), (vec![Group::X25519], vec![true]));
        assert!(Algorithm::AH.iter().all(|a| p.algorithms.contains(a)) && p.algorithms.len() == Algorithm::AH.len());
        assert_eq!(p.algorithms[0], Algorithm::AhHmacSha512);
        assert_eq!(wrong::<Esp>("ah-aes128gcm16"), "`aes128gcm16` is for ESP: AH encrypts nothing");
        assert_eq!(wrong::<Esp>("sha256-null-ah"), "`null` is for ESP: AH encrypts nothing");
        assert_eq!(wrong::<Esp>("ah-x25519"), "names no integrity algorithm such as `sha256`");
        assert_eq!(wrong::<Ike>("ah-sha256-x25519"), "`ah` is for ESP and AH, not for IKE itself");
    }

    #[test]
    fn what_is_weak_missing_or_unknown_is_named() {
        assert_eq!(wrong::<Ike>("aes128-sha1-modp1024"), "`sha1` is too weak (RFC 8247)");
        assert_eq!(wrong::<Ike>("aes128-x25519"), "AES-CBC needs an integrity algorithm such as `sha256`");
        assert_eq!(wrong::<Ike>("aes128gcm16-x25519"), "names no pseudorandom function such as `prfsha256`");
        assert_eq!(wrong::<Ike>("aes128gcm16-prfsha256"), "names no key exchange such as `x25519`");
        assert_eq!(wrong::<Ike>("blowfish-x25519"), "`blowfish` is no algorithm of this version");
        assert_eq!(wrong::<Esp>("aes128-x25519"), "`aes128` needs an integrity algorithm such as `sha256`");
        assert_eq!(wrong::<Esp>("null"), "`null` needs an integrity algorithm such as `sha256`");
        assert!(wrong::<Esp>("aes128gcm16-sha256").contains("no cipher that needs one"));
        assert_eq!(wrong::<Esp>("aes128gcm16-prfsha256"), "`prfsha256` is for IKE itself, not for ESP");
        assert_eq!(wrong::<Ike>("null-sha256-x25519"), "`null` is for ESP, not for IKE itself");
    }
}
