//! What is written reads back as it was.

use phalanx_wire::arp::Operation;
use phalanx_wire::nd::Nd;
use phalanx_wire::{
    AhHeader, Arp, Buffer, CoreId, Epoch, EspHeader, Fragment, Frame, Gre, Icmp4, Icmp6, IpHeader, LinkHeader, Mac,
    NeighborAdvertisement, NeighborSolicitation, Spi, TcpFlags, TcpHeader, UdpHeader, VecBuffer, VipId, WireError,
    icmp, ip, ipv4, ipv6, link, protocol,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|mut m| {
        m[0] = m[0] & 0xfe | 2;
        Mac(m)
    })
}

/// Anything but a group, which is never a source.
fn host4() -> impl Strategy<Value = Ipv4Addr> {
    any::<[u8; 4]>().prop_map(|mut a| {
        a[0] %= 224;
        a.into()
    })
}

fn host6() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 16]>().prop_map(|mut a| {
        a[0] &= 0x7f;
        a.into()
    })
}

fn hosts() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        (host4(), host4()).prop_map(|(a, b)| (a.into(), b.into())),
        (host6(), host6()).prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

/// Protocols that are not extension headers.
fn upper() -> impl Strategy<Value = u8> {
    any::<u8>().prop_filter("an extension header", |p| ![0, 43, 44, 60].contains(p))
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

fn link_header() -> impl Strategy<Value = LinkHeader> {
    any::<(u16, u64, u32, u16, u16, bool, bool)>().prop_map(|(vip, epoch, seq_high, around, core, filtered, clear)| {
        LinkHeader { vip: VipId(vip), epoch: Epoch(epoch), seq_high, around, core: CoreId(core), filtered, clear }
    })
}

proptest! {
    #[test]
    fn ethernet_reads_back(dst in any::<[u8; 6]>().prop_map(Mac), src in mac(), ethertype in 0x0600u16..) {
        let frame = Frame { dst, src, ethertype };
        let mut out = [0; 14];
        frame.write(&mut out).unwrap();
        prop_assert_eq!(Frame::parse(&out), Ok(frame));
        prop_assert_eq!(src.to_string().parse(), Ok(src));
    }

    #[test]
    fn arp_reads_back(reply in any::<bool>(), m in (mac(), mac()), a in (host4(), host4())) {
        let operation = if reply { Operation::Reply } else { Operation::Request };
        let arp = Arp { operation, sender_mac: m.0, sender_ip: a.0, target_mac: m.1, target_ip: a.1 };
        let mut out = [0; 28];
        arp.write(&mut out).unwrap();
        prop_assert_eq!(Arp::parse(&out), Ok(arp));
    }

    #[test]
    fn neighbour_discovery_reads_back(
        src in host6(), dst in host6(), target in host6(), m in prop::option::of(mac()), flags in any::<[bool; 3]>(),
    ) {
        let mut out = [0; phalanx_wire::nd::PACKET_LEN];
        prop_assume!(!src.is_unspecified());
        let s = NeighborSolicitation { src, dst, target, source_mac: m };
        let len = s.write(&mut out).unwrap();
        prop_assert_eq!(Nd::parse(&IpHeader::parse(&out[..len]).unwrap(), &out[..len]), Ok(Nd::Solicitation(s)));
        let [router, solicited, override_] = flags;
        let a = NeighborAdvertisement { src, dst, target, router, solicited, override_, target_mac: m };
        let len = a.write(&mut out).unwrap();
        prop_assert_eq!(NeighborAdvertisement::parse(&IpHeader::parse(&out[..len]).unwrap(), &out[..len]), Ok(a));
    }

    #[test]
    fn ipv4_with_options_reads_back(
        src in host4(), dst in any::<[u8; 4]>(), protocol in any::<u8>(), words in 0usize..=10, payload in bytes(100),
        ttl in any::<u8>(), tos in any::<u8>(), identification in any::<u16>(), dont_fragment in any::<bool>(),
        padding in 0usize..20,
    ) {
        let options = vec![1; words * 4];
        let header_len = 20 + options.len();
        let total_len = (header_len + payload.len()) as u16;
        let fields = ipv4::Fields { src, dst: dst.into(), protocol, total_len, ttl, tos, identification, dont_fragment };
        let mut packet = vec![0xee; usize::from(total_len) + padding];
        prop_assert_eq!(ipv4::write_header_with_options(&mut packet, &fields, &options), Ok(header_len));
        packet[header_len..header_len + payload.len()].copy_from_slice(&payload);
        let expected = IpHeader {
            version: 4, src: src.into(), dst: IpAddr::V4(dst.into()), upper: protocol, upper_offset: header_len, upper_field: 9,
            total_len: usize::from(total_len), hop_limit: ttl, traffic_class: tos, flow_label: 0, dont_fragment,
            fragment: None, identification,
        };
        prop_assert_eq!(IpHeader::parse(&packet), Ok(expected));
        prop_assert_eq!(IpHeader::parse_prefix(&packet[..header_len]), Ok(expected));
        prop_assert_eq!(expected.upper_of(&packet), &payload[..]);
        packet.truncate(usize::from(total_len));
        if !payload.is_empty() {
            prop_assert_eq!(IpHeader::parse(&packet[..packet.len() - 1]), Err(WireError::Short));
        }
    }

    #[test]
    fn a_flipped_bit_in_an_ipv4_header_is_noticed((src, dst) in (host4(), host4()), bit in 0usize..160) {
        let fields = ipv4::Fields { src, dst, protocol: 6, total_len: 20, ttl: 9, tos: 0, identification: 1, dont_fragment: true };
        let mut packet = [0; 20];
        ipv4::write_header(&mut packet, &fields).unwrap();
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(IpHeader::parse(&packet).is_err());
    }

    #[test]
    fn ipv6_with_extension_headers_reads_back(
        src in host6(), dst in any::<[u8; 16]>(), upper in upper(), payload in bytes(100),
        options in prop::collection::vec((1usize..40).prop_map(|n| n * 8), 0..6), hop_by_hop in any::<bool>(),
        atomic in prop::option::of(any::<u32>()), hop_limit in any::<u8>(), traffic_class in any::<u8>(), flow_label in 0u32..=0xfffff,
    ) {
        // [options]* [atomic fragment] upper; the first of the options may be hop-by-hop.
        let mut kinds = vec![protocol::DESTINATION; options.len()];
        if hop_by_hop && !kinds.is_empty() {
            kinds[0] = protocol::HOP_BY_HOP;
        }
        let mut lens = options.clone();
        if atomic.is_some() {
            kinds.push(protocol::FRAGMENT);
            lens.push(ipv6::FRAGMENT_LEN);
        }
        kinds.push(upper);
        let upper_offset = 40 + lens.iter().sum::<usize>();
        let total_len = upper_offset + payload.len();
        let mut packet = vec![0xee; total_len];
        let fields = ipv6::Fields {
            src, dst: dst.into(), next_header: kinds[0], payload_len: (total_len - 40) as u16, hop_limit, traffic_class, flow_label,
        };
        ipv6::write_header(&mut packet, &fields).unwrap();
        let (mut at, mut upper_field) = (40, 6);
        for (i, len) in lens.iter().enumerate() {
            match (kinds[i], atomic) {
                (protocol::FRAGMENT, Some(id)) => {
                    ipv6::write_fragment(&mut packet[at..], kinds[i + 1], &Fragment { offset: 0, more: false, id }).unwrap();
                }
                _ => ipv6::write_padding_options(&mut packet[at..], kinds[i + 1], *len).unwrap(),
            }
            upper_field = at;
            at += len;
        }
        let expected = IpHeader {
            version: 6, src: src.into(), dst: IpAddr::V6(dst.into()), upper, upper_offset, upper_field, total_len, hop_limit,
            traffic_class, flow_label, dont_fragment: true, fragment: None, identification: 0,
        };
        prop_assert_eq!(IpHeader::parse(&packet), Ok(expected));
        prop_assert_eq!(IpHeader::parse_prefix(&packet[..upper_offset]), Ok(expected));
        // Cut anywhere before the upper-layer header, more bytes are asked for.
        prop_assert_eq!(IpHeader::parse_prefix(&packet[..upper_offset - 1]), Err(WireError::Short));
    }

    #[test]
    fn a_plain_header_of_either_version_reads_back(
        (src, dst) in hosts(), protocol in upper(), payload in bytes(50), n in any::<(u8, u8, u16)>(),
    ) {
        let fields = ip::Fields {
            src, dst, protocol, payload_len: payload.len(), hop_limit: n.0, traffic_class: n.1, flow_label: 0,
            dont_fragment: true, identification: n.2,
        };
        let mut packet = vec![0; 40 + payload.len()];
        let len = ip::write_header(&mut packet, &fields).unwrap();
        let ip = IpHeader::parse(&packet).unwrap();
        prop_assert_eq!((ip.src, ip.dst, ip.upper, ip.upper_len()), (src, dst, protocol, payload.len()));
        prop_assert_eq!((ip.hop_limit, ip.traffic_class, ip.upper_offset), (n.0, n.1, len));
    }

    #[test]
    fn each_change_of_a_header_changes_just_that(
        (src, dst) in hosts(), protocol in upper(), to in upper(), traffic_class in any::<u8>(), hop_limit in any::<u8>(), len in 0usize..1400,
    ) {
        let fields = ip::Fields {
            src, dst, protocol, payload_len: 1400, hop_limit, traffic_class: 0x5a, flow_label: 0, dont_fragment: false, identification: 77,
        };
        let mut packet = vec![0; 1440];
        let header_len = ip::write_header(&mut packet, &fields).unwrap();
        let before = IpHeader::parse(&packet).unwrap();
        ip::set_traffic_class(&mut packet, traffic_class).unwrap();
        ip::set_upper(&mut packet, before.upper_field, to).unwrap();
        ip::set_total_len(&mut packet, header_len + len).unwrap();
        let left = ip::decrement_ttl(&mut packet);
        prop_assert_eq!(left, if hop_limit > 1 { Ok(hop_limit - 1) } else { Err(WireError::TtlExpired) });
        let expected = IpHeader { traffic_class, upper: to, total_len: header_len + len, hop_limit: left.unwrap_or(hop_limit), ..before };
        prop_assert_eq!(IpHeader::parse(&packet), Ok(expected));
    }

    #[test]
    fn tcp_reads_back(p in any::<(u16, u16, u32, u32, u8, u16)>(), words in 5usize..=15) {
        let tcp = TcpHeader {
            src_port: p.0, dst_port: p.1, seq: p.2, ack: p.3, data_offset: words * 4, flags: TcpFlags(p.4), window: p.5,
        };
        let mut out = [0; 60];
        tcp.write(&mut out).unwrap();
        prop_assert_eq!(TcpHeader::parse(&out), Ok(tcp));
        prop_assert_eq!(TcpHeader::parse_prefix(&out[..20]), Ok(tcp));
        prop_assert_eq!(phalanx_wire::tcp::mss(&out), None);
    }

    #[test]
    fn udp_esp_gre_and_the_link_header_read_back(p in any::<(u16, u16, u16, u32, u32)>(), len in 8u16..100, link in link_header()) {
        let mut out = [0; 100];
        let udp = UdpHeader { src_port: p.0, dst_port: p.1, len, checksum: p.2 };
        udp.write(&mut out).unwrap();
        prop_assert_eq!(UdpHeader::parse(&out), Ok(udp));
        let esp = EspHeader { spi: Spi(p.3), seq: p.4 };
        esp.write(&mut out).unwrap();
        prop_assert_eq!(EspHeader::parse(&out), Ok(esp));
        let gre = Gre { ethertype: p.0 };
        gre.write(&mut out).unwrap();
        prop_assert_eq!(Gre::parse(&out), Ok(gre));
        link.write(&mut out).unwrap();
        prop_assert_eq!(LinkHeader::parse(&out), Ok(link));
    }

    #[test]
    fn ah_reads_back(next_header in any::<u8>(), words in 3usize..=257, spi in any::<u32>(), seq in any::<u32>()) {
        let ah = AhHeader { next_header, header_len: words * 4, spi: Spi(spi), seq };
        let mut out = vec![0; words * 4];
        ah.write(&mut out).unwrap();
        prop_assert_eq!(AhHeader::parse(&out), Ok(ah));
        prop_assert_eq!(AhHeader::parse(&out[..words * 4 - 1]), Err(WireError::Short));
    }

    #[test]
    fn icmp_reads_back((src, dst) in hosts(), identifier in any::<u16>(), sequence in any::<u16>(), data in bytes(100), n in any::<(u8, u32)>()) {
        let mut out = vec![0; 8 + data.len()];
        let echo = icmp::Echo { identifier, sequence, data: &data };
        for m in [Icmp4::EchoRequest(echo), Icmp4::EchoReply(echo), Icmp4::Error(icmp::IcmpError { kind: 3, code: n.0, info: n.1, quoted: &data })] {
            prop_assert_eq!(m.write(&mut out), Ok(8 + data.len()));
            prop_assert_eq!(Icmp4::parse(&out), Ok(m));
        }
        for m in [Icmp6::EchoRequest(echo), Icmp6::EchoReply(echo), Icmp6::Error(icmp::IcmpError { kind: n.0 & 0x7f, code: n.0, info: n.1, quoted: &data })] {
            prop_assert_eq!(m.write(src, dst, &mut out), Ok(8 + data.len()));
            prop_assert_eq!(Icmp6::parse(src, dst, &out), Ok(m));
        }
    }

    #[test]
    fn a_packet_goes_over_a_link_and_comes_out_as_it_was((local, remote) in hosts(), header in link_header(), packet in bytes(200)) {
        let mut buf = VecBuffer::from_slice(link::OVERHEAD_V6, &packet, 0);
        link::encapsulate(&mut buf, local, remote, &header).unwrap();
        prop_assert_eq!(buf.bytes().len(), packet.len() + link::overhead(local));
        let ip = IpHeader::parse(buf.bytes()).unwrap();
        prop_assert_eq!((ip.src, ip.dst, ip.upper), (local, remote, protocol::GRE));
        let (read, at) = link::decapsulate(&ip, buf.bytes()).unwrap();
        prop_assert_eq!(read, header);
        prop_assert_eq!(&buf.bytes()[at..], &packet[..]);
    }
}
