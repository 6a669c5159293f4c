//! Messages survive the wire, and nothing that arrives there does harm.

mod common;

use phalanx_cluster::messages::{LeaseBlock, LeaseReply, ToRouter, ToTarget, WindowRecord};
use phalanx_cluster::{Gathered, Hello};
use phalanx_fabric::codec::{MESSAGE_MAX, decode_to_router, decode_to_target, encode_to_router, encode_to_target};
use phalanx_fabric::decode_fuzz;
use phalanx_ipsec::WindowSnapshot;
use phalanx_wire::{CoreId, Epoch, SaId};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_a_target_says_arrives_as_it_was_said(message in common::to_router()) {
        let bytes = encode_to_router(&message).unwrap();
        prop_assert_eq!(decode_to_router(&bytes).unwrap(), message);
    }

    #[test]
    fn what_a_router_says_arrives_as_it_was_said(message in common::to_target()) {
        let bytes = encode_to_target(&message).unwrap();
        prop_assert_eq!(decode_to_target(&bytes).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_fuzz(&bytes);
    }

    #[test]
    fn a_message_with_a_byte_changed_is_a_message_or_an_error(
        message in common::to_target(),
        other in common::to_router(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        for mut bytes in [encode_to_target(&message).unwrap(), encode_to_router(&other).unwrap()] {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
                decode_fuzz(&bytes);
                decode_fuzz(&bytes[..at]);
            }
        }
    }
}

/// Protobuf by hand: a field of number `field` that holds bytes.
fn nested(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    let mut len = content.len();
    while len >= 128 {
        bytes.push((len % 128) as u8 | 128);
        len /= 128;
    }
    bytes.push(len as u8);
    bytes.extend(content);
    bytes
}

fn refused_by_router(bytes: &[u8]) -> String {
    decode_to_router(bytes).expect_err("it should be refused").to_string()
}

fn refused_by_target(bytes: &[u8]) -> String {
    decode_to_target(bytes).expect_err("it should be refused").to_string()
}

#[test]
fn a_kind_that_is_not_known_is_named_as_such() {
    for text in [refused_by_router(&[]), refused_by_router(&nested(13, b"")), refused_by_target(&nested(15, b""))] {
        assert!(text.contains("kind") && text.contains("does not know"), "{text}");
    }
}

#[test]
fn a_hello_of_another_version_is_understood_so_that_the_caller_can_say_so() {
    let hello = Hello { version: 999, node: "t1".into(), incarnation: 1, link_mtu: 1600, cores: vec![CoreId(1)] };
    let mut bytes = encode_to_router(&ToRouter::Hello(hello.clone())).unwrap();
    // A later version says more in it: field 14, "later".
    bytes[1] += 7;
    bytes.extend(nested(14, b"later"));
    assert_eq!(decode_to_router(&bytes).unwrap(), ToRouter::Hello(hello));
}

#[test]
fn an_unknown_choice_is_an_error_that_names_it() {
    // LeaseReply (6) with refusal (8) = 77.
    let text = refused_by_target(&nested(6, &[8 << 3, 77]));
    assert!(text.contains("LeaseReply, refusal") && text.contains("77"), "{text}");
    // LeaseReply without a result.
    let text = refused_by_target(&nested(6, &[]));
    assert!(text.contains("LeaseReply, result: missing"), "{text}");
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    // Listening (7): vip (1) = 65536.
    let text = refused_by_router(&nested(7, &[1 << 3, 0x80, 0x80, 0x04]));
    assert!(text.contains("Listening, vip: 65536 is out of range"), "{text}");
    let reply = LeaseReply {
        sa: SaId(1),
        core: CoreId(0),
        nonce: 1,
        incarnation: 1,
        router_incarnation: 1,
        epoch: Epoch(1),
        result: Ok(LeaseBlock { first: u64::MAX, len: 1, valid_for_us: 1, waited_us: 0 }),
    };
    let text = refused_by_target(&encode_to_target(&ToTarget::LeaseReply(reply)).unwrap());
    assert!(text.contains("block: goes beyond the last number"), "{text}");
}

#[test]
fn addresses_have_four_or_sixteen_bytes() {
    // InstallVip (2) { vip (2) { address (2) = 5 bytes } }.
    let text = refused_by_target(&nested(2, &nested(2, &nested(2, &[1, 2, 3, 4, 5]))));
    assert!(text.contains("InstallVip, address: an address has 4 or 16 bytes, not 5"), "{text}");
}

#[test]
fn an_sa_without_a_key_or_with_one_of_another_length_is_refused() {
    // InstallSa (4) { sa (2) { algorithm (11) = 1, key (12) { bytes (1) } } }.
    let with_key = |key: &[u8]| {
        let mut sa = vec![11 << 3, 1];
        sa.extend(nested(12, &nested(1, key)));
        nested(4, &nested(2, &sa))
    };
    let text = refused_by_target(&with_key(&[0xab; 7]));
    assert!(text.contains("InstallSa, key") && !text.contains("171"), "{text}");
    let text = refused_by_target(&nested(4, &nested(2, &[11 << 3, 1])));
    assert!(text.contains("InstallSa, key: missing"), "{text}");
}

#[test]
fn lists_have_limits_on_both_sides() {
    let empty = WindowRecord { sa: SaId(1), snapshot: WindowSnapshot::default() };
    let held = |n| ToRouter::Gathered(Gathered { windows: vec![empty.clone(); n], ..Gathered::default() });
    assert_eq!(decode_to_router(&encode_to_router(&held(1024)).unwrap()).unwrap(), held(1024));
    let text = encode_to_router(&held(1025)).unwrap_err().to_string();
    assert!(text.contains("Gathered, windows: 1025 entries, at most 1024"), "{text}");
    // Gathered (2) { windows (3) } by hand: the receiver does not believe the sender.
    let window = nested(3, &nested(2, &[]));
    let text = refused_by_router(&nested(2, &window.repeat(1025)));
    assert!(text.contains("Gathered, windows: 1025 entries, at most 1024"), "{text}");
}

#[test]
fn a_message_beyond_the_largest_is_refused_where_it_is_made() {
    let full = WindowSnapshot { edge: u64::MAX - 63, floor: 0, words: vec![1; 1025] };
    let windows = vec![WindowRecord { sa: SaId(1), snapshot: full }; 600];
    let text =
        encode_to_router(&ToRouter::Gathered(Gathered { windows, ..Gathered::default() })).unwrap_err().to_string();
    assert!(text.contains("length") && text.contains(&MESSAGE_MAX.to_string()), "{text}");
}

#[test]
fn windows_that_no_node_can_have_are_refused() {
    let says = |edge, words: &[u64]| {
        let snapshot = WindowSnapshot { edge, floor: 0, words: words.to_vec() };
        let windows = vec![WindowRecord { sa: SaId(1), snapshot }];
        refused_by_router(&encode_to_router(&ToRouter::Gathered(Gathered { windows, ..Gathered::default() })).unwrap())
    };
    assert!(says(10, &[1, 1]).contains("below number 0"));
    assert!(says(10, &[1 << 11]).contains("above its edge"));
    assert!(says(1 << 20, &[1, 0]).contains("zeros"));
    assert!(says(1 << 40, &vec![1; 1026]).contains("longer than the largest"));
}
