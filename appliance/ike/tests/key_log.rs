//! The key log: a line of it opens what was captured, with nothing else known. The oracle is RFC 7296 §3.14 and RFC 5282 §3 to §5,
//! and the columns of Wireshark's `ikev2_decryption_table`.

mod common;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::*;
use phalanx_ike::Config;

/// Where an encrypted message of one payload begins to be secret: header, payload header (4 bytes), IV (8 bytes).
const HEADER: usize = 28;
const IKE_AUTH: u8 = 35;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// What is inside, by the key of its direction.
fn opened(message: &[u8], key_and_salt: &[u8]) -> Option<Vec<u8>> {
    let (key, salt) = key_and_salt.split_at(32);
    let nonce: [u8; 12] = [salt, &message[HEADER + 4..HEADER + 12]].concat().try_into().unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut sealed = message[HEADER + 12..].to_vec();
    let aad = Aad::from(&message[..HEADER + 4]);
    let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
    Some(plain.to_vec())
}

#[test]
fn a_line_opens_what_was_captured_and_is_written_only_when_asked_for() {
    let mut bed = Bed::new(Config { key_log: true, ..config(peer(A, B)) }, config(peer(B, A)));
    bed.record = true;
    bed.initiate(0);
    bed.run(1000);
    bed.is_up(1);
    assert!(bed.nodes[1].key_lines.is_empty(), "nobody asked the responder");
    let [line] = &bed.nodes[0].key_lines[..] else { panic!("one IKE SA, one line") };
    let columns: Vec<&str> = line.split(',').collect();
    let [spi_i, spi_r, ei, er, cipher, "", "", integrity] = columns[..] else { panic!("columns: {}", columns.len()) };
    assert_eq!((cipher, integrity), ("\"AES-GCM-256 with 16 octet ICV [RFC5282]\"", "\"NONE [RFC4306]\""));

    let auth: Vec<&(usize, Vec<u8>)> = bed.wire.iter().filter(|(_, message)| message[18] == IKE_AUTH).collect();
    for (from, message) in &auth {
        assert_eq!((&message[..8], &message[8..16]), (&bytes(spi_i)[..], &bytes(spi_r)[..]));
        let (key, other, address) = if *from == 0 { (ei, er, A) } else { (er, ei, B) };
        assert!(opened(message, &bytes(other)).is_none(), "each direction has its own key");
        let inside = opened(message, &bytes(key)).expect("the line's key opens it");
        let std::net::IpAddr::V4(address) = ip(address) else { unreachable!() };
        // An ID payload: ID_IPV4_ADDR, three reserved bytes, the address.
        let id = [&[1, 0, 0, 0][..], &address.octets()].concat();
        assert!(inside.windows(8).any(|part| part == id), "who speaks");
    }
    assert_eq!(auth.len(), 2);
}
