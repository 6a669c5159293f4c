//! ESP in UDP: what is added, who may come from where, and what a NAT does to packets of transport mode.
#![cfg(not(loom))]

mod plain;

use phalanx_ipsec::*;
use phalanx_wire::{Buffer, DropReason, IpHeader, VecBuffer, checksum, ip, natt, udp};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The VIP, the client's own address, its NAT's.
fn ends(v6: bool) -> [IpAddr; 3] {
    let ends = if v6 { ["fd77::100", "fd88::10", "fd77::20"] } else { ["10.77.0.100", "10.88.0.10", "10.77.0.20"] };
    ends.map(address)
}

fn params(direction: Direction, tunnel: bool, local: IpAddr, remote: IpAddr, encap: Encap) -> SaParams {
    SaParams {
        selectors: Selectors::between(Prefix::host(local), Prefix::host(remote)),
        encap: Some(encap),
        ..plain::params(direction, tunnel, local, remote)
    }
}

/// What the client sends with, and what the VIP receives with.
fn pair(v6: bool, tunnel: bool) -> (OutboundSa, InboundSa) {
    let [vip, client, nat] = ends(v6);
    let original = |local, remote| (!tunnel).then_some(Original { local, remote });
    let out = Encap { remote_port: 4500, original: original(vip, client) };
    let inn = Encap { remote_port: 20001, original: original(vip, client) };
    let out = params(Direction::Outbound, tunnel, client, vip, out);
    let inn = params(Direction::Inbound, tunnel, vip, nat, inn);
    (OutboundSa::new(out).unwrap(), InboundSa::new(inn).unwrap())
}

/// A packet from the client with a right checksum, if its protocol has one.
fn message(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ip::header_len(src)];
    let fields = ip::Fields {
        src,
        dst,
        protocol,
        payload_len: body.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).unwrap();
    packet.extend(body);
    let at = packet.len() - body.len();
    if let Some(field) = field(protocol) {
        packet[at + field..at + field + 2].fill(0);
        let sum = checksum::upper(src, dst, protocol, &packet[at..]);
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        packet[at + field..at + field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        58 => Some(2),
        _ => None,
    }
}

fn sealed(out: &mut OutboundSa, packet: &[u8], number: u64) -> VecBuffer {
    let mut buf = VecBuffer::from_slice(MAX_FRONT, packet, MAX_BACK);
    out.seal(&mut buf, plain::number(number)).unwrap();
    buf
}

/// What the NAT makes of it.
fn translated(mut buf: VecBuffer, from: SocketAddr) -> VecBuffer {
    let at = IpHeader::parse(buf.bytes()).unwrap().upper_offset;
    ip::set_source(buf.bytes_mut(), from.ip()).unwrap();
    buf.bytes_mut()[at..at + 2].copy_from_slice(&from.port().to_be_bytes());
    buf
}

#[test]
fn a_sealed_packet_is_a_datagram_between_the_ports_without_a_checksum_over_ipv4() {
    for (v6, tunnel) in [(false, true), (true, true), (false, false), (true, false)] {
        let ([vip, client, _], (mut out, _)) = (ends(v6), pair(v6, tunnel));
        let buf = sealed(&mut out, &message(client, vip, 17, &[1; 40]), 7);
        let ip = IpHeader::parse(buf.bytes()).unwrap();
        let datagram = ip.upper_of(buf.bytes());
        let header = udp::UdpHeader::parse(datagram).unwrap();
        assert_eq!((ip.upper, header.src_port, header.dst_port), (17, 4500, 4500));
        assert_eq!(usize::from(header.len), datagram.len());
        assert_eq!(header.checksum == 0, !v6);
        assert!(udp::checksum_ok(ip.src, ip.dst, datagram));
        assert_eq!(datagram[8..12], [0, 0, 0x12, 0x34], "the SPI");
    }
}

#[test]
fn the_path_mtu_counts_the_udp_header() {
    for tunnel in [true, false] {
        let ([vip, client, _], (mut out, _)) = (ends(false), pair(false, tunnel));
        let fits = out.inner_mtu();
        let buf = sealed(&mut out, &message(client, vip, 17, &vec![1; fits - 20]), 1);
        assert!(buf.bytes().len() <= 1500 && buf.bytes().len() > 1496);
        assert_eq!(out.admit(&message(client, vip, 17, &vec![1; fits - 19]), Origin::Host), Err(DropReason::TooBig));
    }
}

#[test]
fn a_genuine_packet_may_come_from_elsewhere_in_udp_and_in_no_other_way() {
    let ([vip, client, nat], (mut out, mut inn)) = (ends(false), pair(false, true));
    let packet = message(client, vip, 17, &[1; 40]);
    let elsewhere = |sa: &InboundSa, buf: &VecBuffer| sa.elsewhere(buf.bytes(), &IpHeader::parse(buf.bytes()).unwrap());
    let home = SocketAddr::new(nat, 20001);
    let moved = SocketAddr::new(address("10.77.0.21"), 40001);
    for (number, from, news) in
        [(1, home, None), (2, moved, Some(moved)), (3, SocketAddr::new(nat, 1), Some(SocketAddr::new(nat, 1)))]
    {
        let mut buf = translated(sealed(&mut out, &packet, number), from);
        assert_eq!(elsewhere(&inn, &buf), Ok(news));
        inn.open(&mut buf, Role::Target).unwrap();
        assert_eq!(buf.bytes(), packet);
    }
    assert_eq!(inn.remote_end(), home, "a packet alone moves nobody");
    inn.move_peer(moved);
    let buf = translated(sealed(&mut out, &packet, 4), moved);
    assert_eq!(elsewhere(&inn, &buf), Ok(None));
    inn.move_peer(SocketAddr::new(address("fd77::1"), 1));
    assert_eq!(inn.remote_end(), moved, "not into another family");
    let zero = translated(sealed(&mut out, &packet, 5), SocketAddr::new(nat, 0));
    assert_eq!(elsewhere(&inn, &zero), Err(DropReason::WrongPeer), "nobody can be answered at port 0");

    // The same SA without UDP: bare packets, from its peer alone; in UDP too (RFC 7296 §2.23), but from there.
    let mut plain = SaParams::clone(inn.params());
    plain.encap = None;
    let plain = InboundSa::new(plain).unwrap();
    assert_eq!(elsewhere(&plain, &translated(sealed(&mut out, &packet, 6), home)), Ok(None));
    assert_eq!(elsewhere(&plain, &translated(sealed(&mut out, &packet, 7), moved)), Err(DropReason::WrongPeer));
    let mut params = SaParams::clone(out.params());
    params.encap = None;
    let mut bare = OutboundSa::new(params).unwrap();
    let mut buf = sealed(&mut bare, &packet, 8);
    assert_eq!(elsewhere(&inn, &buf), Err(DropReason::WrongPeer));
    ip::set_source(buf.bytes_mut(), moved.ip()).unwrap();
    assert_eq!(elsewhere(&inn, &buf), Ok(None));
    inn.open(&mut buf, Role::Target).unwrap();
}

#[test]
fn answers_go_where_the_peer_is_and_show_the_same_address_inside() {
    let [vip, client, nat] = ends(false);
    let encap = Encap { remote_port: 20001, original: Some(Original { local: vip, remote: client }) };
    let mut out = OutboundSa::new(params(Direction::Outbound, false, vip, nat, encap)).unwrap();
    let packet = message(vip, nat, 6, &[1; 40]);
    let moved: SocketAddr = "10.77.0.21:40001".parse().unwrap();
    out.move_peer(moved);
    assert_eq!(out.remote_end(), moved);
    let buf = sealed(&mut out, &packet, 1);
    let ip = IpHeader::parse(buf.bytes()).unwrap();
    let header = udp::UdpHeader::parse(ip.upper_of(buf.bytes())).unwrap();
    assert_eq!((ip.dst, header.dst_port), (moved.ip(), 40001));
    assert_eq!(out.admit(&message(vip, moved.ip(), 6, &[1; 40]), Origin::Host), Err(DropReason::WrongTunnel));
}

#[test]
fn parts_that_do_not_go_together_are_named() {
    let [vip, client, nat] = ends(false);
    let original = Some(Original { local: vip, remote: client });
    let good = |tunnel| params(Direction::Inbound, tunnel, vip, nat, Encap { remote_port: 1, original });
    assert_eq!(good(false).check(), Ok(()));
    assert_eq!(good(true).check(), Err(IpsecError::OriginalInTunnel));
    let mut sa = good(false);
    sa.encap = Some(Encap { remote_port: 1, original: None });
    assert_eq!(sa.check(), Err(IpsecError::NoOriginal));
    sa.encap = Some(Encap { remote_port: 0, original });
    assert_eq!(sa.check(), Err(IpsecError::PeerPort));
    let mut sa = good(false);
    sa.selectors.remote = "10.77.0.0/24".parse().unwrap();
    assert_eq!(sa.check(), Err(IpsecError::ManyShown));
    sa.selectors.remote = Prefix::host(client);
    assert_eq!(sa.check(), Ok(()), "two clients behind one NAT show addresses of their own");
}

proptest! {
    /// RFC 3948 §3.1.2: whatever the NAT did to the outer addresses, what comes out is consistent, and a peek shows the same.
    #[test]
    fn checksums_of_transport_mode_are_right_behind_a_nat(
        v6: bool,
        protocol in prop_oneof![Just(6u8), Just(17), Just(58), Just(132)],
        mut body in prop::collection::vec(any::<u8>(), 20..200),
        port in 1u16..,
    ) {
        prop_assume!(protocol != 58 || v6);
        if protocol == 6 {
            body[12] = 0x50;
        }
        let ([vip, client, nat], (mut out, mut inn)) = (ends(v6), pair(v6, false));
        let packet = message(client, vip, protocol, &body);
        let mut buf = translated(sealed(&mut out, &packet, 1), SocketAddr::new(nat, port));
        let outer = IpHeader::parse(buf.bytes()).unwrap();
        let mut peeked = Peeked::empty();
        let peek = inn.peek(buf.bytes(), &outer, 1, &mut peeked).unwrap();
        let inner = inn.open(&mut buf, Role::Target).unwrap();
        prop_assert_eq!(peek, inner.header);
        prop_assert_eq!(IpHeader::parse(buf.bytes()).unwrap(), inner.header);
        prop_assert_eq!((inner.header.src, inner.header.dst), (nat, vip));
        prop_assert_eq!(buf.bytes(), &message(nat, vip, protocol, &body)[..]);
    }

    #[test]
    fn an_absent_udp_checksum_stays_absent(body in prop::collection::vec(any::<u8>(), 20..60)) {
        let ([vip, client, nat], (mut out, mut inn)) = (ends(false), pair(false, false));
        let mut packet = message(client, vip, 17, &body);
        packet[26..28].fill(0);
        let mut buf = translated(sealed(&mut out, &packet, 1), SocketAddr::new(nat, 9));
        inn.open(&mut buf, Role::Target).unwrap();
        prop_assert_eq!(&buf.bytes()[26..28], &[0, 0]);
    }

    #[test]
    fn what_is_no_esp_in_udp_opens_nothing(v6: bool, port in prop_oneof![Just(4500u16), any::<u16>()], payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let ([vip, _, nat], (_, mut inn)) = (ends(v6), pair(v6, true));
        let mut datagram = vec![0; 8];
        natt::write_header(&mut datagram, port, payload.len()).unwrap();
        datagram.extend(payload);
        let packet = message(nat, vip, 17, &datagram);
        if let Ok(ip) = IpHeader::parse(&packet) {
            let _ = inn.peek(&packet, &ip, 1, &mut Peeked::empty());
        }
        prop_assert!(inn.open(&mut VecBuffer::from_slice(0, &packet, 0), Role::Target).is_err());
        prop_assert_eq!(inn.window.edge(), 0);
    }
}
