//! ARP, ND and ICMP of our own ports.

use super::*;
use phalanx_wire::{Icmp4, ipv6, nd};

fn answers(bench: &mut Bench, frame: &[u8]) -> Vec<Vec<u8>> {
    bench.sent(NETWORK);
    bench.receive_frame(NETWORK, frame);
    bench.sent(NETWORK)
}

fn who_has(address: &str) -> [u8; arp::FRAME_LEN] {
    arp::request_frame(CLIENT_MAC, "10.77.0.10".parse().unwrap(), address.parse().unwrap())
}

fn who_has_v6(address: &str) -> [u8; nd::FRAME_LEN] {
    nd::solicitation_frame(CLIENT_MAC, "fd77::10".parse().unwrap(), address.parse().unwrap())
}

#[test]
fn only_the_router_answers_for_the_vip() {
    let (mut router, mut target) = (Bench::new(1), Bench::new(11));
    router.set_vip(Some(CoreId(0)));
    target.set_vip(None);
    assert_eq!(answers(&mut target, &who_has("10.77.0.100")), [] as [Vec<u8>; 0]);
    let told = answers(&mut router, &who_has("10.77.0.100"));
    let reply = Arp::parse(&told[0][ethernet::HEADER_LEN..]).unwrap();
    assert_eq!((reply.sender_mac, reply.sender_ip.to_string()), (router.mac(NETWORK), "10.77.0.100".into()));
    // Each answers for itself.
    assert_eq!(answers(&mut target, &who_has("10.77.0.11")).len(), 1);
    assert_eq!(answers(&mut target, &who_has_v6("fd77::11")).len(), 1);
    assert_eq!(answers(&mut target, &who_has_v6("fd77::12")).len(), 0);
}

#[test]
fn a_vip_that_comes_to_a_router_is_announced_three_times() {
    let mut router = Bench::new(1);
    router.set_vip(Some(CoreId(0)));
    (0..5000).for_each(|_| router.pass(1));
    let frames = router.sent(NETWORK);
    assert_eq!(frames.len(), 3);
    let arp = Arp::parse(&frames[0][ethernet::HEADER_LEN..]).unwrap();
    assert_eq!((arp.sender_ip, arp.sender_ip.to_string()), (arp.target_ip, "10.77.0.100".into()));
}

#[test]
fn an_echo_to_our_own_address_is_answered() {
    let mut bench = Bench::new(1);
    let mut request = [8, 0, 0, 0, 1, 2, 0, 1, 0xab, 0xcd];
    let sum = phalanx_wire::checksum::internet(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    bench.receive(NETWORK, &inner("10.77.0.10", "10.77.0.1", protocol::ICMP, &request));
    let reply = bench.sent(NETWORK).pop().unwrap()[ethernet::HEADER_LEN..].to_vec();
    let ip = IpHeader::parse(&reply).unwrap();
    assert_eq!((ip.src, ip.dst), (addr("10.77.0.1"), addr("10.77.0.10")));
    let Ok(Icmp4::EchoReply(echo)) = Icmp4::parse(ip.upper_of(&reply)) else { panic!("no reply") };
    assert_eq!(echo.data, [0xab, 0xcd]);
}

#[test]
fn an_advertisement_without_a_question_changes_nothing() {
    let mut bench = Bench::new(1);
    let announcement = nd::announcement_frame(CLIENT_MAC, "fd77::10".parse().unwrap());
    bench.receive_frame(NETWORK, &announcement);
    bench.receive_frame(NETWORK, &arp::announcement_frame(CLIENT_MAC, "10.77.0.10".parse().unwrap()));
    let known = bench.engine.stations[NETWORK].as_ref().unwrap().neighbours.iter().count();
    assert_eq!(known, 0);
}

#[test]
fn frames_for_others_are_not_looked_at() {
    let mut bench = Bench::new(1);
    let packet = inner("10.77.0.10", "10.77.0.1", protocol::UDP, &[0; 8]);
    bench.receive_frame(NETWORK, &framed(&packet, Mac([2, 9, 9, 9, 9, 9]), CLIENT_MAC));
    bench.receive_frame(NETWORK, &framed(&packet, bench.mac(NETWORK), Mac::BROADCAST));
    bench.receive_frame(NETWORK, &[0; 5]);
    bench.only_dropped(&[(DropReason::Runt, 1), (DropReason::BadEthernet, 1), (DropReason::NotForUs, 1)]);
}

#[test]
fn next_hops_of_ipv6_are_asked_by_solicitation() {
    let mut bench = Bench::new(1);
    let mut packet = vec![0; 48];
    let fields = ipv6::Fields {
        src: "fd77::1".parse().unwrap(),
        dst: "fd77::10".parse().unwrap(),
        next_header: protocol::UDP,
        payload_len: 8,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
    };
    ipv6::write_header(&mut packet, &fields).unwrap();
    bench.engine.send(NETWORK, VecBuffer::from_slice(64, &packet, 0), bench.now);
    let question = bench.sent(NETWORK).pop().unwrap();
    let ip = IpHeader::parse(&question[ethernet::HEADER_LEN..]).unwrap();
    let asked = nd::NeighborSolicitation::parse(&ip, &question[ethernet::HEADER_LEN..]).unwrap();
    assert_eq!((asked.src.to_string(), asked.target.to_string()), ("fd77::1".into(), "fd77::10".into()));
    let answer = nd::advertisement_frame(CLIENT_MAC, &asked, bench.mac(NETWORK));
    bench.receive_frame(NETWORK, &answer);
    let sent = bench.sent(NETWORK).pop().unwrap();
    assert_eq!(Frame::parse(&sent).unwrap().dst, CLIENT_MAC);
    assert_eq!(sent[ethernet::HEADER_LEN..], packet);
}
