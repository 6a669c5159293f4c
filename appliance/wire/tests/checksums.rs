//! Checksums against a naive oracle and against known packets.

use phalanx_wire::checksum::{add, finish, internet, partial, pseudo_header, update16, update32, upper};
use phalanx_wire::{tcp, udp};
use proptest::prelude::*;
use std::net::IpAddr;

/// RFC 1071 §1, word by word.
fn naive(data: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in data.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u64::from(*b));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn any_addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn octets(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

proptest! {
    #[test]
    fn the_checksum_is_that_of_the_naive_oracle(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(internet(&data), naive(&data));
    }

    #[test]
    fn extreme_bytes_do_not_lose_a_carry(byte in prop_oneof![Just(0u8), Just(0xff)], len in 0usize..70_000) {
        let data = vec![byte; len];
        prop_assert_eq!(internet(&data), naive(&data));
    }

    #[test]
    fn partial_sums_of_even_pieces_add_up(a in prop::collection::vec(any::<u16>(), 0..50), b in prop::collection::vec(any::<u8>(), 0..50)) {
        let a: Vec<u8> = a.iter().flat_map(|w| w.to_be_bytes()).collect();
        let whole = [a.clone(), b.clone()].concat();
        prop_assert_eq!(finish(add(partial(&a), partial(&b))), naive(&whole));
    }

    #[test]
    fn a_changed_word_changes_the_checksum_as_if_it_were_made_anew(
        mut data in prop::collection::vec(any::<u8>(), 20..60), at in 0usize..8, new in any::<u16>(),
    ) {
        // A header with its checksum inside is never all zeros, which is what RFC 1624 relies on.
        data[0] |= 0x40;
        let at = at * 2 + 2;
        let before = internet(&data);
        let old = u16::from_be_bytes([data[at], data[at + 1]]);
        data[at..at + 2].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(update16(before, old, new), naive(&data));
    }

    #[test]
    fn a_changed_double_word_changes_the_checksum_as_if_it_were_made_anew(
        mut data in prop::collection::vec(any::<u8>(), 20..60), new in any::<u32>(),
    ) {
        data[0] |= 0x40;
        let before = internet(&data);
        let old = u32::from_be_bytes([data[6], data[7], data[8], data[9]]);
        data[6..10].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(update32(before, old, new), naive(&data));
    }

    #[test]
    fn the_pseudo_header_is_the_one_spelled_out_by_the_rfcs(
        (src, dst) in any_addresses(), protocol in any::<u8>(), data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut bytes = [octets(src), octets(dst)].concat();
        if src.is_ipv4() {
            bytes.extend([0, protocol]);
            bytes.extend((data.len() as u16).to_be_bytes());
        } else {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
        }
        bytes.extend(&data);
        prop_assert_eq!(upper(src, dst, protocol, &data), naive(&bytes));
        prop_assert_eq!(finish(add(pseudo_header(src, dst, protocol, data.len()), partial(&data))), naive(&bytes));
    }

    #[test]
    fn a_checksum_that_was_set_is_right_and_a_flipped_bit_makes_it_wrong(
        (src, dst) in any_addresses(), mut data in prop::collection::vec(any::<u8>(), 20..200), bit in any::<prop::sample::Index>(),
    ) {
        let bit = bit.index(data.len() * 8);
        let flip = |d: &mut [u8]| d[bit / 8] ^= 1 << (bit % 8);
        tcp::set_checksum(src, dst, &mut data).unwrap();
        prop_assert!(tcp::checksum_ok(src, dst, &data));
        flip(&mut data);
        prop_assert!(!tcp::checksum_ok(src, dst, &data));
        flip(&mut data);
        udp::set_checksum(src, dst, &mut data).unwrap();
        prop_assert!(udp::checksum_ok(src, dst, &data));
        flip(&mut data);
        prop_assume!(data[6..8] != [0, 0]);
        prop_assert!(!udp::checksum_ok(src, dst, &data));
    }
}

#[test]
fn the_example_of_rfc_1071_comes_out() {
    // RFC 1071 §3: 0001 f203 f4f5 f6f7 sums to ddf2.
    assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
}

#[test]
fn the_example_of_rfc_1624_comes_out() {
    // RFC 1624 §4: HC = dd2f, m = 5555, m' = 3285, HC' = 0000.
    assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn udp_without_a_checksum_is_good_over_ipv4_and_bad_over_ipv6() {
    let datagram = [0, 1, 0, 2, 0, 8, 0, 0];
    let v4: IpAddr = "10.0.0.1".parse().unwrap();
    let v6: IpAddr = "fd77::1".parse().unwrap();
    assert!(udp::checksum_ok(v4, v4, &datagram));
    assert!(!udp::checksum_ok(v6, v6, &datagram));
    assert!(!udp::checksum_ok(v4, v4, &datagram[..7]));
}
