//! Parsers are total: arbitrary bytes, and damaged good packets, give a value or an error.

use phalanx_wire::checksum::internet;
use phalanx_wire::nd::Nd;
use phalanx_wire::{
    AhHeader, Arp, DropReason, EspHeader, Flow, Frame, Gre, Icmp4, Icmp6, Immutable, IpHeader, LinkHeader, Protected,
    TcpHeader, UdpHeader, icmp, ip, link, nd, tcp,
};
use proptest::prelude::*;

fn everything(b: &[u8]) {
    let _ =
        (Frame::parse(b), Arp::parse(b), Gre::parse(b), LinkHeader::parse(b), EspHeader::parse(b), AhHeader::parse(b));
    let _ =
        (TcpHeader::parse(b), TcpHeader::parse_prefix(b), tcp::mss(b), UdpHeader::parse(b), UdpHeader::parse_prefix(b));
    let _ = (Icmp4::parse(b), Icmp6::parse([0; 16].into(), [0; 16].into(), b), IpHeader::parse_quoted(b));
    let mut changed = b.to_vec();
    let _ =
        (ip::decrement_ttl(&mut changed), ip::set_traffic_class(&mut changed, 3), ip::set_upper(&mut changed, 9, 6));
    let _ = (ip::set_total_len(&mut changed, b.len()), phalanx_wire::ipv4::set_fragment(&mut changed, 8, true));
    let _ = icmp::write_complaint(&mut [0; 100], [10, 0, 0, 1].into(), b, icmp::Complaint::Unreachable);
    let prefix = IpHeader::parse_prefix(b);
    match IpHeader::parse(b) {
        Ok(ip) => assert_eq!(prefix, Ok(ip)),
        Err(e) => {
            let _ = DropReason::from(e).name();
        }
    }
    if let Ok(ip) = prefix {
        assert!(ip.upper_field < ip.upper_offset && ip.upper_offset <= ip.total_len && ip.upper_offset <= b.len());
        let l4 = ip.upper_of(b);
        let _ = (Immutable::of(&ip, b).map(|seen| seen.bytes().len()), Protected::of(&ip, b));
        let _ = (Flow::of_inbound(&ip, l4), Flow::of_outbound(&ip, l4), link::decapsulate(&ip, b), Nd::parse(&ip, b));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn arbitrary_bytes_never_panic(b in prop::collection::vec(any::<u8>(), 0..200)) {
        everything(&b);
    }

    #[test]
    fn arbitrary_ipv4_headers_with_a_right_checksum_never_panic(mut b in prop::collection::vec(any::<u8>(), 20..200), words in 5usize..16) {
        b[0] = 0x40 | words as u8;
        if b.len() >= words * 4 {
            b[10..12].fill(0);
            let sum = internet(&b[..words * 4]);
            b[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        everything(&b);
    }

    #[test]
    fn arbitrary_chains_of_ipv6_extension_headers_never_panic(
        mut b in prop::collection::vec(any::<u8>(), 40..400), kinds in prop::collection::vec(prop::sample::select(vec![0u8, 43, 44, 60, 6, 58, 59]), 10),
    ) {
        b[0] = 0x60;
        b[8] = 0xfd;
        let payload_len = (b.len() - 40) as u16;
        b[4..6].copy_from_slice(&payload_len.to_be_bytes());
        b[6] = kinds[0];
        for (i, kind) in kinds.iter().skip(1).enumerate() {
            if let Some(h) = b.get_mut(40 + i * 8..42 + i * 8) {
                h.copy_from_slice(&[*kind, 0]);
            }
        }
        everything(&b);
    }

    #[test]
    fn a_damaged_neighbour_discovery_packet_never_panics(at in 0usize..nd::PACKET_LEN, byte in any::<u8>(), len in 0usize..=nd::PACKET_LEN) {
        let mut frame = nd::solicitation_frame(phalanx_wire::Mac([2, 0, 0, 0, 0, 1]), [0xfd; 16].into(), [0xfd; 16].into());
        let packet = &mut frame[14..];
        packet[at] = byte;
        everything(&packet[..len]);
    }
}
