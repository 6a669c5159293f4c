//! AH's view of headers: what routers may change does not count, everything else does, and what the sender predicts is what arrives.

use phalanx_wire::ipv4::{Fields, write_header_with_options};
use phalanx_wire::{AhHeader, Immutable, IpHeader, Protected, Spi, WireError, ah, checksum::internet, ip};
use proptest::prelude::*;

/// An IPv4 packet with these options, AH behind it.
fn v4(options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20 + options.len() + 28];
    let fields = Fields {
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 9].into(),
        protocol: 51,
        total_len: packet.len() as u16,
        ttl: 64,
        tos: 0xb8,
        identification: 0x1234,
        dont_fragment: true,
    };
    let len = write_header_with_options(&mut packet, &fields, options).unwrap();
    AhHeader { next_header: 6, header_len: 28, spi: Spi(0x1001), seq: 7 }.write(&mut packet[len..]).unwrap();
    packet
}

/// An IPv6 packet with these extension headers, each a number and a body from the third byte on; AH behind them.
fn v6(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[..8].copy_from_slice(&[0x6b, 0x8a, 0xbc, 0xde, 0, 0, 51, 64]);
    packet[8..24].copy_from_slice(&[0xfd; 16]);
    packet[24..40].copy_from_slice(&[0x11; 16]);
    let mut field = 6;
    for (number, body) in extensions {
        packet[field] = *number;
        field = packet.len();
        packet.extend([51, (body.len() / 8) as u8]);
        packet.extend(body);
    }
    let at = packet.len();
    packet.resize(at + 32, 0);
    AhHeader { next_header: 6, header_len: 32, spi: Spi(0x1001), seq: 7 }.write(&mut packet[at..]).unwrap();
    let payload = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

fn mend(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let len = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = internet(&packet[..len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn seen(packet: &[u8]) -> Vec<u8> {
    Immutable::of(&IpHeader::parse(packet).unwrap(), packet).unwrap().bytes().to_vec()
}

#[test]
fn an_ipv4_header_without_its_mutable_fields_is_the_one_of_the_rfc() {
    // RFC 4302 §3.3.3.1.1.1, byte for byte.
    let expected = [0x45, 0, 0, 48, 0x12, 0x34, 0, 0, 0, 51, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
    assert_eq!(seen(&v4(&[])), expected);
}

#[test]
fn an_ipv6_header_without_its_mutable_fields_is_the_one_of_the_rfc() {
    let mut expected = vec![0x60, 0, 0, 0, 0, 32, 51, 0];
    expected.extend([0xfd; 16]);
    expected.extend([0x11; 16]);
    assert_eq!(seen(&v6(&[])), expected);
}

#[test]
fn each_class_of_ipv4_options_counts_as_appendix_a_says() {
    // RFC 4302 appendix A.1: router alert and security as they are, record route and timestamp zeroed, also what is unknown.
    for (option, counts) in [
        (&[148, 4, 0, 9][..], true),
        (&[130, 4, 1, 2], true),
        (&[133, 4, 1, 2], true),
        (&[134, 4, 1, 2], true),
        (&[149, 4, 1, 2], true),
        (&[1, 1, 1, 1], true),
        (&[0, 0, 0, 0], true),
        (&[7, 8, 4, 1, 2, 3, 4, 1], false),
        (&[68, 8, 5, 0, 1, 2, 3, 4], false),
        (&[82, 4, 1, 2], false),
        (&[136, 4, 1, 2], false),
        (&[200, 4, 1, 2], false),
    ] {
        let expected = if counts { option.to_vec() } else { vec![0; option.len()] };
        assert_eq!(seen(&v4(option))[20..], expected, "option {}", option[0]);
    }
}

#[test]
fn a_source_route_counts_as_its_last_stop_whoever_looks() {
    for kind in [131, 137] {
        let mut sent = v4(&[1, kind, 11, 4, 10, 0, 0, 5, 10, 0, 0, 6]);
        let first = seen(&sent);
        assert_eq!(first[16..20], [10, 0, 0, 6]);
        assert_eq!(first[20..], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // RFC 791 §3.1: a stop writes down where it was left by, and goes on to the next address.
        for stop in 0..2 {
            let at = 24 + 4 * stop;
            let next: [u8; 4] = sent[at..at + 4].try_into().unwrap();
            sent[at..at + 4].copy_from_slice(&[192, 0, 2, stop as u8]);
            sent[16..20].copy_from_slice(&next);
            sent[23] += 4;
            sent[8] -= 1;
            mend(&mut sent);
            assert_eq!(seen(&sent), first);
        }
    }
}

#[test]
fn a_routing_header_counts_as_it_will_arrive() {
    for kind in [0, 2] {
        let body: Vec<u8> = [&[kind, 3, 0, 0, 0, 0][..], &[0x22; 16], &[0x33; 16], &[0x44; 16]].concat();
        let mut sent = v6(&[(43, body)]);
        // What is parsed whole has no stops left (RFC 5095): the header alone is looked at.
        let ip = |packet: &[u8]| {
            let mut arrived = packet.to_vec();
            arrived[43] = 0;
            IpHeader::parse(&arrived).unwrap()
        };
        let first = Immutable::of(&ip(&sent), &sent).unwrap().bytes().to_vec();
        assert_eq!(first[24..40], [0x44; 16]);
        // RFC 2460 §4.4: a stop exchanges its own address for the next in the list.
        for stop in 0..3 {
            let at = 48 + 16 * stop;
            let (fixed, list) = sent.split_at_mut(at);
            fixed[24..40].swap_with_slice(&mut list[..16]);
            sent[43] -= 1;
            sent[7] -= 1;
            let seen = Immutable::of(&ip(&sent), &sent).unwrap();
            assert_eq!(seen.bytes(), first, "after stop {stop}");
        }
        assert_eq!(seen(&sent), first);
    }
}

#[test]
fn a_route_of_an_unknown_kind_and_a_fragment_header_are_refused() {
    let route = v6(&[(43, vec![4, 0, 0, 0, 0, 0])]);
    let ip = IpHeader::parse(&route).unwrap();
    let mut ahead = route.clone();
    ahead[43] = 1;
    assert_eq!(Immutable::of(&ip, &ahead).err(), Some(WireError::Ip));
    let atomic = v6(&[(44, vec![0; 6])]);
    assert_eq!(Immutable::of(&IpHeader::parse(&atomic).unwrap(), &atomic).err(), Some(WireError::Fragment));
}

#[test]
fn more_headers_than_there_is_room_for_are_refused() {
    let options = |len: usize| (60, [&[1, 252][..], &[0; 252]].concat()[..len - 2].to_vec());
    assert!(Immutable::of(&IpHeader::parse(&v6(&[options(248)])).unwrap(), &v6(&[options(248)])).is_err());
    let good = |n: usize| (60, [vec![1, (8 * n - 4) as u8], vec![0; 8 * n - 4]].concat());
    let packet = v6(&[good(29), good(29)]);
    assert_eq!(seen(&packet).len(), 40 + 2 * 232);
    let packet = v6(&[good(30), good(30)]);
    assert_eq!(Immutable::of(&IpHeader::parse(&packet).unwrap(), &packet).err(), Some(WireError::Ip));
}

#[test]
fn both_protocols_name_their_sa_and_number() {
    let packet = v4(&[]);
    let told = Protected::of(&IpHeader::parse(&packet).unwrap(), &packet);
    assert_eq!(told, Ok(Protected { spi: Spi(0x1001), seq: 7, ah: true }));
    let mut esp = packet.clone();
    ip::set_upper(&mut esp, 9, 50).unwrap();
    esp[20..28].copy_from_slice(&[0, 0, 0x10, 2, 0, 0, 0, 9]);
    let told = Protected::of(&IpHeader::parse(&esp).unwrap(), &esp);
    assert_eq!(told, Ok(Protected { spi: Spi(0x1002), seq: 9, ah: false }));
    ip::set_upper(&mut esp, 9, 6).unwrap();
    assert_eq!(Protected::of(&IpHeader::parse(&esp).unwrap(), &esp), Err(WireError::Protocol));
    assert_eq!((ah::header_len(16, false), ah::header_len(16, true), ah::header_len(24, true)), (28, 32, 40));
}

/// IPv4 options that are whole, with whether each byte of them counts.
fn options() -> impl Strategy<Value = (Vec<u8>, Vec<bool>)> {
    let option = (prop::sample::select(vec![1u8, 7, 68, 82, 130, 133, 134, 148, 149, 200]), 0usize..6, any::<u8>());
    prop::collection::vec(option, 0..5).prop_map(|list| {
        let (mut bytes, mut counts) = (vec![], vec![]);
        for (kind, len, fill) in list {
            let whole = if kind == 1 { vec![1] } else { [vec![kind, 2 + len as u8], vec![fill; len]].concat() };
            counts.extend(vec![[1, 130, 133, 134, 148, 149].contains(&kind); whole.len()]);
            bytes.extend(whole);
        }
        bytes.truncate(40);
        while !bytes.len().is_multiple_of(4) {
            bytes.push(1);
            counts.push(true);
        }
        (bytes, counts)
    })
}

/// Options headers of IPv6 that are whole, with whether each byte of the whole header counts.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>, Vec<bool>)>> {
    let option = (any::<u8>(), 0usize..8, any::<u8>());
    let body = prop::collection::vec(option, 0..4).prop_map(|list| {
        let (mut bytes, mut counts) = (vec![], vec![]);
        for (kind, len, fill) in list {
            let kind = kind.max(1);
            bytes.extend([kind, len as u8]);
            bytes.extend(vec![fill; len]);
            counts.extend([true; 2]);
            counts.extend(vec![kind & 0x20 == 0; len]);
        }
        while bytes.len() % 8 != 6 {
            bytes.push(0);
            counts.push(true);
        }
        (bytes, counts)
    });
    let hop = prop::option::of(body.clone());
    (hop, prop::option::of(body)).prop_map(|(hop, end)| {
        let all = [hop.map(|(bytes, counts)| (0, bytes, counts)), end.map(|(bytes, counts)| (60, bytes, counts))];
        all.into_iter().flatten().collect()
    })
}

proptest! {
    #[test]
    fn of_ipv4_each_bit_counts_or_does_not((options, option_counts) in options(), at in 0usize..60, bit in 0u8..8) {
        prop_assume!(option_counts.len() == options.len());
        let packet = v4(&options);
        let before = seen(&packet);
        let at = at % (20 + options.len());
        // Version and lengths are no matter of one bit, nor are those of options.
        prop_assume!(!matches!(at, 0 | 2 | 3 | 9));
        let mut changed = packet.clone();
        changed[at] ^= 1 << bit;
        mend(&mut changed);
        let counts = match at {
            1 | 6..=8 | 10 | 11 => false,
            ..20 => true,
            _ => option_counts[at - 20],
        };
        let Ok(ip) = IpHeader::parse(&changed) else { return Ok(()) };
        if let Ok(after) = Immutable::of(&ip, &changed) && (counts || at < 20) {
            prop_assert_eq!(after.bytes() != before, counts);
        }
    }

    #[test]
    fn of_ipv6_each_bit_counts_or_does_not(extensions in extensions(), at in 0usize..200, bit in 0u8..8) {
        let list: Vec<_> = extensions.iter().map(|(number, body, _)| (*number, body.clone())).collect();
        let packet = v6(&list);
        let before = seen(&packet);
        let mut counts: Vec<bool> = (0..40).map(|at| at > 3 && at != 7).collect();
        // The version, as the other four bits of its byte, is told apart below.
        extensions.iter().for_each(|(_, _, body)| counts.extend([true, true].iter().chain(body)));
        let at = at % counts.len();
        let mut changed = packet.clone();
        changed[at] ^= 1 << bit;
        let Ok(ip) = IpHeader::parse(&changed) else { return Ok(()) };
        prop_assume!(ip.upper_offset == counts.len() && ip.upper == 51);
        if let Ok(after) = Immutable::of(&ip, &changed) {
            prop_assert!(after.bytes() == before || counts[at], "byte {} counts", at);
            prop_assert!(after.bytes() != before || !counts[at], "byte {} does not count", at);
        }
    }
}
