//! UDP-encapsulated ESP, judged by RFC 3948's pictures.

use phalanx_wire::natt::{Content, Ike, esp_of, set_checksum, write_header, write_keepalive};
use phalanx_wire::{IpHeader, WireError, ip, udp};
use proptest::prelude::*;
use std::net::IpAddr;

const V4: [&str; 2] = ["10.77.0.20", "10.77.0.100"];
const V6: [&str; 2] = ["fd77::20", "fd77::100"];

/// An IP packet with a UDP datagram to a port.
fn datagram([from, to]: [&str; 2], port: u16, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let at = ip::header_len(src);
    let mut packet = vec![0; at];
    let fields = ip::Fields {
        src,
        dst,
        protocol: 17,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).unwrap();
    packet.extend(
        [20001u16.to_be_bytes(), port.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes(), [0, 0]].concat(),
    );
    packet.extend(payload);
    packet
}

fn content(packet: &[u8]) -> Result<Content<'_>, WireError> {
    Content::of(&IpHeader::parse(packet).unwrap(), packet)
}

#[test]
fn the_first_bytes_behind_port_4500_say_what_it_is() {
    let ike = |message, to| Content::Ike(Ike { message, from: 20001, to });
    for ends in [V4, V6] {
        let esp = datagram(ends, 4500, &[0, 0, 0x10, 1, 0, 0, 0, 7, 1, 2]);
        let Ok(Content::Esp(carried)) = content(&esp) else { panic!("ESP") };
        assert_eq!((carried.esp, carried.port), (&esp[esp.len() - 10..], Some(20001)));
        assert_eq!(carried.offset, esp.len() - 10);
        assert_eq!(content(&datagram(ends, 4500, &[0, 0, 0, 0, 9])), Ok(ike(&[9], 4500)));
        assert_eq!(content(&datagram(ends, 4500, &[0xff])), Ok(Content::Keepalive));
        assert_eq!(content(&datagram(ends, 4501, &[0xff])), Ok(Content::Other));
        assert_eq!(content(&datagram(ends, 500, &[0; 28])), Ok(ike(&[0; 28], 500)), "port 500 is IKE's alone");
        assert_eq!(content(&datagram(ends, 501, &[0; 28])), Ok(Content::Other));
    }
}

#[test]
fn what_is_too_short_to_be_anything_is_an_error() {
    for payload in [&[][..], &[0xfe], &[0xff, 0xff], &[0, 0, 0]] {
        assert_eq!(content(&datagram(V4, 4500, payload)), Err(WireError::Upper), "{payload:?}");
    }
    let mut cut = datagram(V4, 4500, &[1; 16]);
    cut[25] += 1; // the UDP length
    assert_eq!(content(&cut), Err(WireError::Short));
}

#[test]
fn bare_esp_is_esp_and_other_protocols_are_not() {
    let mut packet = datagram(V4, 4500, &[1; 16]);
    ip::set_upper(&mut packet, 9, 50).unwrap();
    let ip = IpHeader::parse(&packet).unwrap();
    let carried = esp_of(&ip, &packet).unwrap();
    assert_eq!((carried.offset, carried.port), (20, None));
    ip::set_upper(&mut packet, 9, 6).unwrap();
    assert_eq!(esp_of(&IpHeader::parse(&packet).unwrap(), &packet), Err(WireError::Protocol));
}

#[test]
fn a_keepalive_is_one_byte_from_port_4500_with_a_checksum_over_ipv6_only() {
    for [from, to] in [V4, V6] {
        let mut out = [0; 64];
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let len = write_keepalive(&mut out, from, to, 20001).unwrap();
        let ip = IpHeader::parse(&out[..len]).unwrap();
        let message = ip.upper_of(&out[..len]);
        assert_eq!((ip.src, ip.dst, message.len(), message[8]), (from, to, 9, 0xff));
        assert_eq!(&message[..4], &[0x11, 0x94, 0x4e, 0x21], "4500 to 20001");
        assert_eq!(message[6..8] == [0, 0], from.is_ipv4());
        assert!(udp::checksum_ok(from, to, message));
        assert!(write_keepalive(&mut out[..len - 1], from, to, 1).is_err());
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(v6: bool, port: u16, esp in prop::collection::vec(any::<u8>(), 8..600)) {
        prop_assume!(esp[..4] != [0; 4]);
        let mut packet = datagram(if v6 { V6 } else { V4 }, port, &esp);
        let at = packet.len() - esp.len() - 8;
        write_header(&mut packet[at..], 4500, esp.len()).unwrap();
        set_checksum(&mut packet).unwrap();
        let ip = IpHeader::parse(&packet).unwrap();
        prop_assert!(udp::checksum_ok(ip.src, ip.dst, ip.upper_of(&packet)));
        let carried = esp_of(&ip, &packet).unwrap();
        prop_assert_eq!((carried.esp, carried.offset, carried.port), (&esp[..], at + 8, Some(4500)));
    }

    #[test]
    fn no_bytes_make_it_panic(v6: bool, port in prop_oneof![Just(4500u16), any::<u16>()], payload in prop::collection::vec(any::<u8>(), 0..64), len: u16) {
        let mut packet = datagram(if v6 { V6 } else { V4 }, port, &payload);
        let at = packet.len() - payload.len() - 8;
        packet[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        let ip = IpHeader::parse(&packet).unwrap();
        if let Ok(Content::Esp(carried)) = Content::of(&ip, &packet) {
            prop_assert_eq!(&packet[carried.offset..carried.offset + carried.esp.len()], carried.esp);
        }
    }
}
