//! What the RFCs say of IP headers and of errors about packets, case by case.

mod common;

use common::{packet, v6};
use phalanx_wire::icmp::{Complaint, IcmpError, write_complaint};
use phalanx_wire::{Endpoint, Flow, Fragment, Icmp4, Icmp6, IpHeader, WireError, checksum, ip, ipv4, ipv6, protocol};
use proptest::prelude::*;
use std::net::IpAddr;

#[test]
fn malformed_ipv4_headers_are_refused() {
    let good = packet("10.0.0.1", "10.0.0.2", 6, &[0; 20]);
    let with = |at: usize, byte: u8| {
        let mut p = good.clone();
        p[at] = byte;
        p[10..12].fill(0);
        let sum = checksum::internet(&p[..20]);
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        IpHeader::parse(&p)
    };
    assert!(with(1, 0).is_ok());
    assert_eq!(with(0, 0x44), Err(WireError::Ip), "header shorter than a header");
    assert_eq!(with(0, 0x55), Err(WireError::Ip), "version 5");
    assert_eq!(with(3, 19), Err(WireError::Ip), "total length inside the header");
    assert_eq!(with(3, 41), Err(WireError::Short), "total length beyond the bytes");
    assert_eq!(with(12, 224), Err(WireError::Ip), "from a group");
    let mut beyond = good.clone();
    ipv4::set_fragment(&mut beyond, 0xfff8, false).unwrap();
    assert_eq!(IpHeader::parse(&beyond), Err(WireError::Ip), "ends beyond the longest packet");
    assert_eq!(IpHeader::parse(&[]), Err(WireError::Short));
    assert_eq!(IpHeader::parse(&good[..19]), Err(WireError::Short));
}

proptest! {
    /// Whatever stands in it: also either zero of the checksum.
    #[test]
    fn a_header_is_right_if_its_checksum_comes_to_nothing(mut header: [u8; 20], field in 0usize..3) {
        if field < 2 {
            header[10..12].fill(0);
            let sum = checksum::plain_header(&header);
            header[10..12].copy_from_slice(&[sum.to_be_bytes(), [0xff; 2]][field]);
        }
        prop_assert_eq!(checksum::is_right(&header), checksum::plain_header(&header) == 0);
        prop_assert!(field > 0 || checksum::is_right(&header));
        prop_assert!(!checksum::is_right(&[0; 20]));
    }

    /// What is plain is what the parser says it is: whole in sight or not, and nothing rare about it.
    #[test]
    fn a_plain_header_is_one_that_parses_without_options_and_fragments(
        mut header: [u8; 24],
        (first, flags, right) in (prop_oneof![3 => Just(0x45u8), 1 => any::<u8>()], prop_oneof![3 => Just(0x40u8), 1 => any::<u8>()], any::<bool>()),
        len in 0usize..=24,
    ) {
        (header[0], header[6], header[7]) = (first, flags, if flags == 0x40 { 0 } else { header[7] });
        if right {
            header[10..12].fill(0);
            let sum = checksum::internet(&header[..20]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let (plain, parsed) = (ipv4::Plain::of(&header[..len]), IpHeader::parse_prefix(&header[..len]));
        let expected = parsed.ok().filter(|ip| ip.version == 4 && ip.upper_offset == 20 && ip.fragment.is_none());
        if let Some(plain) = plain {
            let ip = expected.expect("it parses");
            let IpHeader { src, dst, upper: protocol, total_len, .. } = ip;
            prop_assert_eq!((IpAddr::V4(plain.src), IpAddr::V4(plain.dst), plain.protocol, plain.total_len), (src, dst, protocol, total_len));
        } else if let Some(ip) = expected {
            // Addresses that are nobody's are left to the parser.
            prop_assert!(matches!(ip.src, IpAddr::V4(src) if src.octets()[0] >= 240), "{ip:?}");
        }
    }
}

#[test]
fn ipv4_fragments_are_seen_as_such() {
    let mut p = packet("10.0.0.1", "10.0.0.2", 17, &[0; 16]);
    ipv4::set_fragment(&mut p, 0, true).unwrap();
    let ip = IpHeader::parse(&p).unwrap();
    assert_eq!(ip.fragment, Some(Fragment { offset: 0, more: true, id: 0 }));
    assert!(Flow::of_inbound(&ip, ip.upper_of(&p)).is_ok(), "the first has the ports");
    ipv4::set_fragment(&mut p, 8, false).unwrap();
    let ip = IpHeader::parse(&p).unwrap();
    assert_eq!(ip.fragment, Some(Fragment { offset: 8, more: false, id: 0 }));
    assert!(ip.dont_fragment, "the other flag stays");
    assert_eq!(Flow::of_inbound(&ip, ip.upper_of(&p)), Err(WireError::Fragment));
    assert_eq!(ipv4::set_fragment(&mut p, 4, false), Err(WireError::Ip));
}

#[test]
fn in_a_later_ipv6_fragment_even_what_looks_like_an_extension_header_is_data() {
    let later = Fragment { offset: 16, more: true, id: 9 };
    let mut payload = [0; 24];
    ipv6::write_fragment(&mut payload, protocol::DESTINATION, &later).unwrap();
    let p = packet("fd77::1", "fd77::2", protocol::FRAGMENT, &payload);
    let ip = IpHeader::parse(&p).unwrap();
    assert_eq!((ip.fragment, ip.upper), (Some(later), protocol::DESTINATION));
    assert_eq!((ip.upper_offset, ip.upper_field), (48, 40));
    // RFC 8200 §4.5: all but the last come in units of 8 bytes.
    let p = packet("fd77::1", "fd77::2", protocol::FRAGMENT, &payload[..23]);
    assert_eq!(IpHeader::parse(&p), Err(WireError::Ip));
}

/// A packet with these extension headers, each of 8 bytes, and the last as upper-layer protocol.
fn chain(kinds: &[u8]) -> Result<IpHeader, WireError> {
    let mut payload = Vec::new();
    for next in &kinds[1..] {
        payload.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
    }
    IpHeader::parse(&packet("fd77::1", "fd77::2", kinds[0], &payload))
}

#[test]
fn the_walk_over_ipv6_extension_headers_is_bounded() {
    let n = ipv6::MAX_EXTENSIONS;
    let at_most = [vec![protocol::DESTINATION; n], vec![protocol::TCP]].concat();
    assert_eq!(chain(&at_most).unwrap().upper_offset, 40 + 8 * n);
    let one_more = [vec![protocol::DESTINATION; n + 1], vec![protocol::TCP]].concat();
    assert_eq!(chain(&one_more), Err(WireError::Ip));
}

#[test]
fn ipv6_extension_headers_out_of_place_are_refused() {
    use protocol::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING, TCP};
    assert_eq!(chain(&[HOP_BY_HOP, ROUTING, DESTINATION, TCP]).unwrap().upper, TCP);
    assert_eq!(chain(&[DESTINATION, HOP_BY_HOP, TCP]), Err(WireError::Ip));
    assert_eq!(chain(&[FRAGMENT, FRAGMENT, TCP]), Err(WireError::Ip));
    assert_eq!(chain(&[DESTINATION]), Err(WireError::Ip), "the packet ends before it");
}

#[test]
fn esp_ah_and_no_next_header_are_upper_layer_protocols() {
    for upper in [protocol::ESP, protocol::AH, protocol::NO_NEXT] {
        assert_eq!(chain(&[protocol::DESTINATION, upper]).unwrap().upper, upper);
    }
}

#[test]
fn a_routing_header_with_stops_ahead_is_refused() {
    let header = [protocol::TCP, 0, 0, 1, 0, 0, 0, 0];
    let p = packet("fd77::1", "fd77::2", protocol::ROUTING, &header);
    assert_eq!(IpHeader::parse(&p), Err(WireError::Ip));
    assert!(IpHeader::parse_quoted(&p).is_ok());
}

#[test]
fn padding_options_are_made_of_whole_padn_options() {
    for len in (8..=2048).step_by(8) {
        let mut h = vec![0xee; len];
        ipv6::write_padding_options(&mut h, protocol::TCP, len).unwrap();
        assert_eq!((h[0], usize::from(h[1])), (protocol::TCP, len / 8 - 1));
        let mut at = 2;
        while at < len {
            at += if h[at] == 0 { 1 } else { 2 + usize::from(h[at + 1]) };
        }
        assert_eq!(at, len, "options of {len} bytes");
    }
    assert_eq!(ipv6::write_padding_options(&mut [0; 12], 6, 12), Err(WireError::Ip));
}

#[test]
fn set_upper_and_set_total_len_write_only_what_makes_sense() {
    let mut p4 = packet("10.0.0.1", "10.0.0.2", protocol::TCP, &[]);
    let mut p6 = packet("fd77::1", "fd77::2", protocol::TCP, &[]);
    assert_eq!(ip::set_upper(&mut p4, 10, 50), Err(WireError::Ip));
    assert_eq!(ip::set_upper(&mut p6, 7, 50), Err(WireError::Ip));
    assert_eq!(ip::set_upper(&mut p6, 40, 50), Err(WireError::Short));
    assert_eq!(ip::set_total_len(&mut p6, 39), Err(WireError::Ip));
    assert_eq!(ip::set_total_len(&mut p4, 0x1_0000), Err(WireError::Ip));
}

#[test]
fn a_quoted_packet_is_read_though_its_checksum_is_stale() {
    let mut p = packet("10.0.0.1", "10.0.0.2", protocol::TCP, &[0, 80, 0, 81, 0, 0, 0, 0]);
    p[8] -= 1; // a router on the way
    assert_eq!(IpHeader::parse(&p), Err(WireError::Checksum));
    assert!(IpHeader::parse_quoted(&p[..28]).is_ok());
}

/// What a complaint about a TCP packet of 1460 bytes says: its length, the MTU, and the error.
fn complaint_about(from: IpAddr, offending: &[u8], out: &mut [u8]) -> (usize, u32) {
    let too_big = Complaint::TooBig { mtu: 1400 };
    let len = write_complaint(out, from, offending, too_big).unwrap();
    let ip = IpHeader::parse(&out[..len]).unwrap();
    let offended = IpHeader::parse(offending).unwrap();
    assert_eq!((ip.src, ip.dst, ip.total_len), (from, offended.src, len));
    let flow_of = |e: IcmpError<'_>| {
        let flow = e.flow().unwrap();
        assert_eq!(flow.local, Endpoint::new(offended.src, 0x1111));
        assert_eq!(flow.remote.addr, offended.dst);
    };
    let mtu = if from.is_ipv4() {
        let icmp = Icmp4::parse(ip.upper_of(out)).unwrap();
        if let Icmp4::Error(e) = icmp {
            flow_of(e);
        }
        icmp.too_big().map(u32::from)
    } else {
        let icmp = Icmp6::parse(ip.src, ip.dst, ip.upper_of(out)).unwrap();
        if let Icmp6::Error(e) = icmp {
            flow_of(e);
        }
        icmp.too_big()
    };
    (len, mtu.unwrap())
}

#[test]
fn a_complaint_quotes_the_packet_and_names_the_mtu() {
    let mut out = [0; 1500];
    let p = packet("10.0.0.1", "10.0.0.2", protocol::TCP, &[0x11; 1460]);
    // RFC 1812 §4.3.2.3 and RFC 4443 §2.4 c: as much as fits 576 and 1280 bytes.
    assert_eq!(complaint_about([10, 0, 0, 9].into(), &p, &mut out), (576, 1400));
    let p = packet("fd77::1", "fd77::2", protocol::TCP, &[0x11; 1460]);
    assert_eq!(complaint_about(v6("fd77::9").into(), &p, &mut out), (1280, 1400));
    assert_eq!(
        write_complaint(&mut out, [10, 0, 0, 9].into(), &p, Complaint::TimeExceeded),
        Err(WireError::Protocol),
        "IPv4 does not complain about IPv6"
    );
}

const TOO_BIG: Complaint = Complaint::TooBig { mtu: 1300 };

fn complain(p: &[u8], complaint: Complaint) -> Result<usize, WireError> {
    let from = if p[0] >> 4 == 4 { [10, 0, 0, 9].into() } else { v6("fd77::9").into() };
    write_complaint(&mut [0; 1500], from, p, complaint)
}

#[test]
fn nobody_complains_about_errors() {
    let icmp = |kind: u8| packet("10.0.0.1", "10.0.0.2", protocol::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(complain(&icmp(3), Complaint::TimeExceeded), Err(WireError::Protocol));
    assert!(complain(&icmp(8), Complaint::TimeExceeded).is_ok());
    for kind in [1, 127, 137] {
        let error = packet("fd77::1", "fd77::2", protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(complain(&error, TOO_BIG), Err(WireError::Protocol), "type {kind}");
    }
}

#[test]
fn nobody_complains_about_groups_later_fragments_or_to_nobody() {
    let udp = |src, dst| packet(src, dst, protocol::UDP, &[0; 8]);
    assert_eq!(complain(&udp("10.0.0.1", "224.0.0.1"), TOO_BIG), Err(WireError::Protocol));
    assert_eq!(complain(&udp("0.0.0.0", "10.0.0.2"), TOO_BIG), Err(WireError::Protocol));
    let group = udp("fd77::1", "ff02::1");
    assert_eq!(complain(&group, Complaint::TimeExceeded), Err(WireError::Protocol));
    assert!(complain(&group, TOO_BIG).is_ok(), "RFC 4443 §2.4 e.3: path MTU of groups");
    let mut later = udp("10.0.0.1", "10.0.0.2");
    ipv4::set_fragment(&mut later, 8, false).unwrap();
    assert_eq!(complain(&later, TOO_BIG), Err(WireError::Protocol));
}
