//! What the RFCs, and the link header's layout, say of upper-layer headers, case by case.

mod common;

use common::{packet, v6};
use phalanx_wire::{
    AhHeader, Buffer, CoreId, Endpoint, Epoch, Flow, Gre, IpHeader, LinkHeader, TcpFlags, TcpHeader, UdpHeader,
    VecBuffer, VipId, WireError, ipv4, link, protocol, tcp,
};
use std::net::IpAddr;

/// A SYN as a Linux client sends it (but for the TCP checksum): 10.0.0.1:52662 > 10.0.0.2:80, MSS 1460, SACK,
/// timestamps, window scale.
const SYN: [u8; 60] = [
    0x45, 0x00, 0x00, 0x3c, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x06, 0x0a, 0x74, 0x0a, 0x00, 0x00, 0x01, //
    0x0a, 0x00, 0x00, 0x02, 0xcd, 0xb6, 0x00, 0x50, 0x1a, 0x2b, 0x3c, 0x4d, 0x00, 0x00, 0x00, 0x00, //
    0xa0, 0x02, 0xfa, 0xf0, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, //
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
];

#[test]
fn a_syn_of_a_linux_client_is_read() {
    let ip = IpHeader::parse(&SYN).unwrap();
    assert_eq!((ip.version, ip.upper, ip.upper_offset, ip.total_len), (4, protocol::TCP, 20, 60));
    assert_eq!((ip.hop_limit, ip.dont_fragment, ip.identification), (64, true, 0x1c46));
    let segment = ip.upper_of(&SYN);
    let tcp = TcpHeader::parse(segment).unwrap();
    assert_eq!((tcp.src_port, tcp.dst_port), (52662, 80));
    assert_eq!((tcp.seq, tcp.window, tcp.data_offset), (0x1a2b_3c4d, 64240, 40));
    assert!(tcp.flags.opens());
    assert_eq!(tcp::mss(segment), Some(1460));
}

#[test]
fn a_flow_is_the_same_from_both_directions() {
    let ip = IpHeader::parse(&SYN).unwrap();
    let flow = Flow::of_inbound(&ip, ip.upper_of(&SYN)).unwrap();
    assert_eq!(flow.local, Endpoint::new([10, 0, 0, 2].into(), 80));
    assert_eq!(flow.remote, Endpoint::new([10, 0, 0, 1].into(), 52662));
    let sent = Flow::of_outbound(&ip, ip.upper_of(&SYN)).unwrap();
    assert_eq!((sent.local, sent.remote), (flow.remote, flow.local));
    assert_eq!(flow.to_string(), "6 10.0.0.2:80 <-> 10.0.0.1:52662");
    assert_eq!(Flow::of_inbound(&ip, &SYN[20..23]), Err(WireError::Short));
    let esp = packet("fd77::1", "fd77::2", protocol::ESP, &[]);
    let flow = Flow::of_inbound(&IpHeader::parse(&esp).unwrap(), &[]).unwrap();
    assert_eq!((flow.local.port, flow.remote.port), (0, 0), "no ports");
}

#[test]
fn only_a_bare_syn_opens_a_connection() {
    use TcpFlags as F;
    for (bits, opens) in [
        (F::SYN, true),
        (F::SYN | F::ECE | F::CWR, true),
        (F::SYN | F::PSH, true),
        (F::SYN | F::ACK, false),
        (F::SYN | F::RST, false),
        (F::SYN | F::FIN, false),
        (F::ACK, false),
        (0, false),
    ] {
        assert_eq!(TcpFlags(bits).opens(), opens, "{}", TcpFlags(bits));
    }
    assert_eq!(TcpFlags(F::SYN | F::ACK).to_string(), "SYN|ACK");
}

#[test]
fn malformed_tcp_options_end_the_search_for_the_mss() {
    let mut segment = SYN[20..].to_vec();
    for len in [0, 1, 41, 255] {
        segment[20] = 8;
        segment[21] = len;
        assert_eq!(tcp::mss(&segment), None, "option length {len}");
    }
    segment[20..24].copy_from_slice(&[1, 1, 0, 0]); // no-operations, then the end
    assert_eq!(tcp::mss(&segment), None);
    assert_eq!(tcp::mss(&SYN[20..59]), None, "cut short");
    segment[20..].fill(1);
    segment[39] = 2;
    assert_eq!(tcp::mss(&segment), None, "the option's length is missing");
}

#[test]
fn a_tcp_data_offset_inside_the_header_is_refused() {
    let mut segment = SYN[20..].to_vec();
    segment[12] = 0x40;
    assert_eq!(TcpHeader::parse_prefix(&segment), Err(WireError::Upper));
    segment[12] = 0xf0;
    assert_eq!(TcpHeader::parse(&segment), Err(WireError::Short));
    assert!(TcpHeader::parse_prefix(&segment).is_ok());
}

#[test]
fn udp_and_ah_lengths_inside_their_headers_are_refused() {
    assert_eq!(UdpHeader::parse(&[0, 1, 0, 2, 0, 7, 0, 0]), Err(WireError::Upper));
    assert_eq!(UdpHeader::parse(&[0, 1, 0, 2, 0, 9, 0, 0]), Err(WireError::Short));
    assert!(UdpHeader::parse_prefix(&[0, 1, 0, 2, 0, 9, 0, 0]).is_ok());
    assert_eq!(AhHeader::parse(&[6, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]), Err(WireError::Upper));
}

#[test]
fn gre_with_any_option_is_refused() {
    assert!(Gre::parse(&[0, 0, 0x88, 0xb5]).is_ok());
    for [a, b] in [[0x80, 0], [0x20, 0], [0x10, 0], [0, 1]] {
        assert_eq!(Gre::parse(&[a, b, 0x88, 0xb5]), Err(WireError::Link));
    }
}

#[test]
fn link_headers_of_the_future_are_refused() {
    let mut good = [0; link::LEN];
    good[0] = 1;
    good[3] = 7;
    assert_eq!(LinkHeader::parse(&good).unwrap().vip, VipId(7));
    for (at, byte) in [(0, 0), (0, 2), (1, 4)] {
        let mut bad = good;
        bad[at] = byte;
        assert_eq!(LinkHeader::parse(&bad), Err(WireError::LinkVersion), "byte {at}");
    }
}

#[test]
fn the_link_header_has_the_layout_that_other_nodes_expect() {
    let header = LinkHeader {
        vip: VipId(0x0102),
        epoch: Epoch(0x0304_0506_0708_090a),
        seq_high: 0x0b0c_0d0e,
        core: CoreId(0x0f10),
        around: 0x1112,
        filtered: true,
        clear: false,
    };
    let mut out = [0xff; 20];
    header.write(&mut out).unwrap();
    assert_eq!(out, [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    let clear = LinkHeader { filtered: false, clear: true, ..header };
    clear.write(&mut out).unwrap();
    assert_eq!(out[1], 2);
    assert_eq!((link::OVERHEAD_V4, link::OVERHEAD_V6), (44, 64));
}

#[test]
fn a_link_packet_that_does_not_fit_leaves_the_buffer_as_it_was() {
    let mut bytes = [0; 20];
    bytes[0] = 1;
    let header = LinkHeader::parse(&bytes).unwrap();
    let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut tight = VecBuffer::from_slice(43, b"packet", 0);
    assert_eq!(link::encapsulate(&mut tight, a, b, &header), Err(WireError::NoRoom));
    assert_eq!(tight.bytes(), b"packet");
    let mut long = VecBuffer::from_slice(44, &[0; 0xffff], 0);
    assert_eq!(link::encapsulate(&mut long, a, b, &header), Err(WireError::Ip));
    assert_eq!(link::encapsulate(&mut long, a, v6("fd77::1").into(), &header), Err(WireError::Ip));
    assert_eq!(long.bytes().len(), 0xffff);
}

#[test]
fn what_is_not_a_link_packet_is_refused_as_one() {
    let inside = [&[0, 0, 0x88, 0xb5, 1][..], &[0; 19]].concat();
    let good = packet("10.0.0.1", "10.0.0.2", protocol::GRE, &inside);
    let read = |p: &[u8]| link::decapsulate(&IpHeader::parse(p).unwrap(), p);
    assert_eq!(read(&good).unwrap().1, 44);
    let udp = packet("10.0.0.1", "10.0.0.2", protocol::UDP, &inside);
    assert_eq!(read(&udp), Err(WireError::Link));
    let plain = [&[0, 0, 0x08, 0x00, 1][..], &[0; 19]].concat();
    let plain = packet("10.0.0.1", "10.0.0.2", protocol::GRE, &plain);
    assert_eq!(read(&plain), Err(WireError::Link));
    let short = packet("10.0.0.1", "10.0.0.2", protocol::GRE, &inside[..23]);
    assert_eq!(read(&short), Err(WireError::Short));
    let mut fragment = good;
    ipv4::set_fragment(&mut fragment, 0, true).unwrap();
    assert_eq!(read(&fragment), Err(WireError::Link));
}
