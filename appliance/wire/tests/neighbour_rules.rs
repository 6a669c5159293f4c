//! What the RFCs say of Ethernet, ARP and neighbour discovery, case by case.

mod common;

use common::v6;
use phalanx_wire::nd::{self, Nd};
use phalanx_wire::{Arp, Frame, IpHeader, Mac, WireError, arp, checksum, ethernet, ipv6};
use std::net::{Ipv4Addr, Ipv6Addr};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn lengths_and_group_senders_of_ethernet_are_refused() {
    let mut frame = [0; 14];
    ethernet::write(&mut frame, US, THEM, 0x05ff).unwrap();
    assert_eq!(Frame::parse(&frame), Err(WireError::Ethernet));
    ethernet::write(&mut frame, US, Mac::BROADCAST, 0x0800).unwrap();
    assert_eq!(Frame::parse(&frame), Err(WireError::Ethernet));
    assert_eq!(Frame::parse(&frame[..13]), Err(WireError::Short));
}

#[test]
fn ethernet_addresses_are_read_only_in_their_usual_form() {
    assert_eq!("02:00:00:00:00:01".parse(), Ok(US));
    for bad in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "+2:00:00:00:00:01", "02-00-00-00-00-01"] {
        assert!(bad.parse::<Mac>().is_err(), "{bad}");
    }
}

#[test]
fn multicast_addresses_have_their_group_addresses() {
    // RFC 1112 §6.4: the low 23 bits; RFC 2464 §7: the low 32.
    assert_eq!(Mac::of_multicast([224, 129, 2, 3].into()), Some(Mac([1, 0, 0x5e, 1, 2, 3])));
    assert_eq!(Mac::of_multicast([255; 4].into()), Some(Mac::BROADCAST));
    assert_eq!(Mac::of_multicast(v6("ff02::1:2").into()), Some(Mac([0x33, 0x33, 0, 1, 0, 2])));
    assert_eq!(Mac::of_multicast([10, 0, 0, 1].into()), None);
    // RFC 4291 §2.7.1's own example.
    let address = v6("4037::01:800:200e:8c6c");
    assert_eq!(ipv6::solicited_node(address), v6("ff02::1:ff0e:8c6c"));
    assert_eq!(Some(ipv6::solicited_node_mac(address)), Mac::of_multicast(ipv6::solicited_node(address).into()));
}

#[test]
fn an_arp_request_is_answered_to_who_asked() {
    let (ours, theirs) = (Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 10));
    let frame = arp::request_frame(THEM, theirs, ours);
    assert_eq!(frame.len(), 60);
    let eth = Frame::parse(&frame).unwrap();
    assert_eq!((eth.dst, eth.src, eth.ethertype), (Mac::BROADCAST, THEM, 0x0806));
    let request = Arp::parse(&frame[14..]).unwrap();
    let reply = arp::reply_frame(US, &request);
    assert_eq!(Frame::parse(&reply).unwrap().dst, THEM);
    let reply = Arp::parse(&reply[14..]).unwrap();
    assert_eq!(reply.operation, arp::Operation::Reply);
    assert_eq!((reply.sender_mac, reply.sender_ip), (US, ours));
    assert_eq!((reply.target_mac, reply.target_ip), (THEM, theirs));
}

#[test]
fn arp_of_other_hardware_or_from_a_group_is_refused() {
    let good = arp::announcement_frame(US, Ipv4Addr::new(10, 0, 0, 1));
    assert!(Arp::parse(&good[14..]).is_ok());
    for (at, byte) in [(1, 6), (2, 9), (4, 8), (5, 16), (7, 3), (8, 1), (14, 224)] {
        let mut bad = good;
        bad[14 + at] = byte;
        assert_eq!(Arp::parse(&bad[14..]), Err(WireError::Arp), "byte {at}");
    }
    let mut zero = good;
    zero[22..28].fill(0);
    assert_eq!(Arp::parse(&zero[14..]), Err(WireError::Arp));
}

fn nd_of(frame: &[u8]) -> Result<Nd, WireError> {
    let ip = IpHeader::parse(&frame[14..])?;
    Nd::parse(&ip, &frame[14..])
}

fn advertised(frame: &[u8]) -> nd::NeighborAdvertisement {
    match nd_of(frame) {
        Ok(Nd::Advertisement(a)) => a,
        other => panic!("no advertisement: {other:?}"),
    }
}

/// Changes a byte of the ICMPv6 message and mends its checksum.
fn changed(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut f = frame.to_vec();
    f[54 + at] = byte;
    f[56..58].fill(0);
    let ip = IpHeader::parse(&f[14..]).unwrap();
    let sum = checksum::upper(ip.src, ip.dst, 58, &f[54..]);
    f[56..58].copy_from_slice(&sum.to_be_bytes());
    f
}

#[test]
fn a_neighbour_solicitation_goes_to_the_group_and_is_answered_to_who_asked() {
    let (ours, theirs) = (v6("fd77::100"), v6("fd77::10"));
    let frame = nd::solicitation_frame(THEM, theirs, ours);
    assert_eq!(Frame::parse(&frame).unwrap().dst, Mac([0x33, 0x33, 0xff, 0, 1, 0]));
    let Ok(Nd::Solicitation(asked)) = nd_of(&frame) else { panic!("no solicitation") };
    assert_eq!((asked.dst, asked.target), (v6("ff02::1:ff00:100"), ours));
    assert_eq!((asked.src, asked.source_mac), (theirs, Some(THEM)));
    let answer = nd::advertisement_frame(US, &asked, Mac::ZERO);
    assert_eq!(Frame::parse(&answer).unwrap().dst, THEM);
    let told = advertised(&answer);
    assert_eq!((told.src, told.dst), (ours, theirs));
    assert_eq!((told.target, told.target_mac), (ours, Some(US)));
    assert_eq!((told.router, told.solicited, told.override_), (false, true, true));
    let told = advertised(&nd::announcement_frame(US, ours));
    assert_eq!((told.dst, told.solicited), (nd::ALL_NODES, false));
}

#[test]
fn who_looks_for_duplicates_is_answered_to_all_nodes() {
    let ours = v6("fd77::100");
    let probe = nd::NeighborSolicitation {
        src: Ipv6Addr::UNSPECIFIED,
        dst: ipv6::solicited_node(ours),
        target: ours,
        source_mac: None,
    };
    let mut packet = [0; nd::PACKET_LEN];
    let len = probe.write(&mut packet).unwrap();
    assert_eq!(len, 64);
    let ip = IpHeader::parse(&packet[..len]).unwrap();
    assert_eq!(nd::NeighborSolicitation::parse(&ip, &packet[..len]), Ok(probe));
    let answer = nd::advertisement_frame(US, &probe, THEM);
    assert_eq!(Frame::parse(&answer).unwrap().dst, Mac([0x33, 0x33, 0, 0, 0, 1]));
    let told = advertised(&answer);
    assert_eq!((told.dst, told.solicited), (nd::ALL_NODES, false));
}

#[test]
fn neighbour_discovery_that_rfc_4861_refuses_is_refused() {
    let good = nd::solicitation_frame(THEM, v6("fd77::10"), v6("fd77::100"));
    assert!(nd_of(&good).is_ok());
    let mut hops = good;
    hops[14 + 7] = 254;
    assert_eq!(nd_of(&hops), Err(WireError::Nd), "came through a router");
    let mut flipped = good;
    flipped[85] ^= 1;
    assert_eq!(nd_of(&flipped), Err(WireError::Checksum));
    for (at, byte, what) in [
        (1, 1, "code"),
        (8, 0xff, "target is a group"),
        (25, 0, "option of length zero"),
        (25, 2, "option longer than the message"),
        (26, 1, "link-layer address is a group"),
    ] {
        assert_eq!(nd_of(&changed(&good, at, byte)), Err(WireError::Nd), "{what}");
    }
    assert!(nd_of(&changed(&good, 24, 14)).is_ok(), "an unknown option is skipped");
    assert_eq!(nd_of(&changed(&good, 0, 134)), Err(WireError::Protocol), "a router advertisement");
    let announcement = nd::announcement_frame(US, v6("fd77::100"));
    let solicited_to_a_group = changed(&announcement, 4, 0x60);
    assert_eq!(nd_of(&solicited_to_a_group), Err(WireError::Nd));
}

#[test]
fn a_probe_that_names_its_sender_or_misses_the_group_is_refused() {
    let mut packet = [0; nd::PACKET_LEN];
    for (source_mac, dst) in [(Some(THEM), "ff02::1:ff00:100"), (None, "fd77::100")] {
        let (src, target) = (Ipv6Addr::UNSPECIFIED, v6("fd77::100"));
        let probe = nd::NeighborSolicitation { src, dst: v6(dst), target, source_mac };
        let len = probe.write(&mut packet).unwrap();
        let ip = IpHeader::parse(&packet[..len]).unwrap();
        assert_eq!(Nd::parse(&ip, &packet[..len]), Err(WireError::Nd));
    }
}
