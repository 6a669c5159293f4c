//! NIST's CAVP vectors for GCM (`cavp/`, response files as published) on every kernel: what IPsec uses of them, which is
//! IVs of 96 bits and tags of 128 bits, with no more associated data than a block.

mod published;

use published::Case;

/// The cases of a response file: `Key = value` lines, a blank line between cases, `FAIL` in place of a plaintext.
fn cases(name: &str, text: &str) -> Vec<Case> {
    let groups = text.split("\n\n").skip(1).enumerate();
    groups.map(|(at, group)| case(format!("{name} {at}"), group)).collect()
}

fn case(name: String, group: &str) -> Case {
    let field = |key: &str| {
        let line = group.lines().find_map(|line| line.split_once(" =").filter(|(name, _)| *name == key));
        hex(line.map_or("", |(_, value)| value.trim()))
    };
    Case {
        key: field("Key"),
        nonce: field("IV").try_into().expect("96 bits"),
        aad: field("AAD"),
        plain: field("PT"),
        cipher: field("CT"),
        tag: field("Tag").try_into().expect("128 bits"),
        genuine: !group.lines().any(|line| line == "FAIL"),
        name,
    }
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_kernel_seals_what_nist_sealed() {
    for text in [include_str!("cavp/gcmEncryptExtIV128.rsp"), include_str!("cavp/gcmEncryptExtIV256.rsp")] {
        let cases = cases("encryption", text);
        assert_eq!((cases.len(), cases.iter().filter(|case| case.genuine).count()), (150, 150));
        published::check(&cases);
    }
}

#[test]
fn every_kernel_opens_what_nist_opens_and_refuses_what_it_refuses() {
    for text in [include_str!("cavp/gcmDecrypt128.rsp"), include_str!("cavp/gcmDecrypt256.rsp")] {
        let cases = cases("decryption", text);
        assert_eq!(cases.len(), 150);
        assert!((60..120).contains(&cases.iter().filter(|case| case.genuine).count()));
        published::check(&cases);
    }
}

#[test]
fn keys_of_both_lengths_share_bursts() {
    let [small, large] = [include_str!("cavp/gcmDecrypt128.rsp"), include_str!("cavp/gcmDecrypt256.rsp")];
    let pairs = cases("AES-128, ", small).into_iter().zip(cases("AES-256, ", large));
    published::check(&pairs.flat_map(|(a, b)| [a, b]).collect::<Vec<_>>());
}
