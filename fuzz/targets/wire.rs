//! Every parser of `phalanx-wire` on arbitrary bytes: no panic, and what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_wire::ethernet::{HEADER_LEN, ethertype};
use phalanx_wire::nd::{self, Nd};
use phalanx_wire::{
    AhHeader, Arp, Buffer, EspHeader, Flow, Frame, Gre, Icmp4, Icmp6, Immutable, IpHeader, LinkHeader, Mac, Protected,
    TcpHeader, UdpHeader, VecBuffer, WireError, icmp, ip, ipv4, ipv6, link, natt, protocol, quoted, tcp, udp,
};
use std::net::IpAddr;

fuzz_target!(|data: &[u8]| {
    // The first byte says where in the packet the rest starts: below Ethernet, below IP, or at the upper layer.
    let Some((start, data)) = data.split_first() else {
        return;
    };
    match start % 4 {
        0 => frame(data),
        1 => packet(data),
        2 => upper(data),
        _ => headless(*start, data),
    }
});

fn frame(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        return;
    };
    let mut out = [0; HEADER_LEN];
    frame.write(&mut out).unwrap();
    assert_eq!(out, data[..HEADER_LEN]);
    match frame.ethertype {
        ethertype::ARP => arp(&data[HEADER_LEN..]),
        _ => packet(&data[HEADER_LEN..]),
    }
}

fn arp(data: &[u8]) {
    let Ok(arp) = Arp::parse(data) else { return };
    let mut out = [0; 28];
    arp.write(&mut out).unwrap();
    assert_eq!(out, data[..28]);
    let _ = phalanx_wire::arp::reply_frame(arp.sender_mac, &arp);
}

/// Most inputs fail at the IPv4 checksum: mended, they get further.
fn packet(data: &[u8]) {
    ip_packet(data);
    let mut mended = data.to_vec();
    let len = data.first().map_or(0, |b| usize::from(b & 15) * 4);
    if len >= 20 && len <= mended.len() && mended[0] >> 4 == 4 {
        mended[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&mended[..len]);
        mended[10..12].copy_from_slice(&sum.to_be_bytes());
        ip_packet(&mended);
    }
}

fn ip_packet(data: &[u8]) {
    let whole = IpHeader::parse(data);
    let prefix = IpHeader::parse_prefix(data);
    let _ = IpHeader::parse_quoted(data);
    if let Ok(ip) = &whole {
        assert_eq!(prefix.as_ref(), Ok(ip), "a whole packet is its own prefix");
        assert!(ip.total_len <= data.len());
    }
    let Ok(ip) = prefix else { return };
    assert!(ip.upper_field < ip.upper_offset && ip.upper_offset <= ip.total_len && ip.upper_offset <= data.len());
    assert_eq!(data[ip.upper_field], ip.upper);
    changes(&ip, data);
    let l4 = ip.upper_of(data);
    if let Ok(seen) = Immutable::of(&ip, data) {
        assert_eq!(seen.bytes().len(), ip.upper_offset);
    }
    let _ = Protected::of(&ip, data);
    let _ = Flow::of_inbound(&ip, l4);
    let _ = Flow::of_outbound(&ip, l4);
    let _ = link::decapsulate(&ip, data);
    let _ = Nd::parse(&ip, data);
    complain(&ip, data);
    let _ = (quoted::EspTooBig::parse(&ip, data), quoted::flow(&ip, data));
    match ip.upper {
        protocol::ICMP => message4(l4),
        protocol::ICMPV6 => message6(&ip, l4),
        _ => upper(l4),
    }
}

/// Each change of a header changes just that, and leaves it a header.
fn changes(ip: &IpHeader, data: &[u8]) {
    let mut b = data.to_vec();
    ip::set_traffic_class(&mut b, !ip.traffic_class).unwrap();
    ip::set_upper(&mut b, ip.upper_field, protocol::TCP).unwrap();
    let left = ip::decrement_ttl(&mut b);
    let changed = IpHeader::parse_prefix(&b).unwrap();
    let hop_limit = left.unwrap_or(ip.hop_limit);
    assert_eq!(left.is_err(), ip.hop_limit <= 1);
    if ip.fragment.is_none() {
        let expected = IpHeader { traffic_class: !ip.traffic_class, upper: protocol::TCP, hop_limit, ..*ip };
        assert_eq!(changed, expected);
    }
    ip::set_total_len(&mut b, ip.upper_offset).unwrap();
}

fn complain(ip: &IpHeader, data: &[u8]) {
    let mut out = [0; 1280];
    for complaint in [icmp::Complaint::TooBig { mtu: 1400 }, icmp::Complaint::TimeExceeded] {
        if let Ok(len) = icmp::write_complaint(&mut out, ip.dst, data, complaint) {
            // A group may not be the source of the complaint; otherwise it is a good packet.
            match IpHeader::parse(&out[..len]) {
                Ok(made) => assert_eq!(made.dst, ip.src),
                Err(e) => assert_eq!(e, WireError::Ip),
            }
        }
    }
}

fn message4(data: &[u8]) {
    let mut message = data.to_vec();
    if message.len() >= 4 {
        message[2..4].fill(0);
        let sum = phalanx_wire::checksum::internet(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let _ = Icmp4::parse(data);
    let Ok(icmp) = Icmp4::parse(&message) else {
        return;
    };
    let mut out = vec![0; message.len()];
    if icmp.write(&mut out).is_ok() {
        assert_eq!(out, message);
    }
    if let Icmp4::Error(e) = icmp {
        let _ = e.flow();
    }
}

fn message6(ip: &IpHeader, data: &[u8]) {
    let mut message = data.to_vec();
    if message.len() >= 4 {
        message[2..4].fill(0);
        let sum = phalanx_wire::checksum::upper(ip.src, ip.dst, protocol::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let _ = Icmp6::parse(ip.src, ip.dst, data);
    neighbour(ip, &message);
    let Ok(icmp) = Icmp6::parse(ip.src, ip.dst, &message) else {
        return;
    };
    let mut out = vec![0; message.len()];
    if icmp.write(ip.src, ip.dst, &mut out).is_ok() {
        assert_eq!(out, message);
    }
    if let Icmp6::Error(e) = icmp {
        let _ = e.flow();
    }
}

/// Neighbour discovery with a right checksum: what was read can be answered and written again.
fn neighbour(ip: &IpHeader, message: &[u8]) {
    let mut packet = vec![0; ip.upper_offset];
    packet.extend(message);
    let mut out = [0; nd::PACKET_LEN];
    let len = match Nd::parse(ip, &packet) {
        Ok(Nd::Solicitation(s)) => {
            let _ = nd::advertisement_frame(Mac([2, 0, 0, 0, 0, 1]), &s, Mac([2, 0, 0, 0, 0, 2]));
            s.write(&mut out)
        }
        Ok(Nd::Advertisement(a)) => a.write(&mut out),
        Err(_) => return,
    };
    let len = len.unwrap();
    let again = IpHeader::parse(&out[..len]).unwrap();
    assert_eq!(Nd::parse(&again, &out[..len]), Nd::parse(ip, &packet));
}

fn upper(data: &[u8]) {
    if let Ok(tcp) = TcpHeader::parse(data) {
        let mut out = [0; 60];
        tcp.write(&mut out).unwrap();
        assert_eq!(TcpHeader::parse(&out), Ok(tcp));
        assert!(tcp.data_offset <= data.len());
    }
    let _ = (TcpHeader::parse_prefix(data), UdpHeader::parse_prefix(data));
    let mut clamped = data.to_vec();
    tcp::clamp_mss(&mut clamped, 1000);
    assert_eq!(tcp::mss(&clamped), tcp::mss(data).map(|mss| mss.min(1000)));
    if let Ok(ip) = IpHeader::parse(data)
        && ip.fragment.is_none()
        && let Ok(natt::Content::Esp(carried)) = natt::Content::of(&ip, data)
    {
        assert_eq!(carried.esp, &data[carried.offset..carried.offset + carried.esp.len()]);
        assert!(carried.port.is_none() || carried.esp[..4] != natt::NON_ESP_MARKER);
    }
    if let Ok(udp) = UdpHeader::parse(data) {
        let mut out = [0; udp::LEN];
        udp.write(&mut out).unwrap();
        assert_eq!(out, data[..udp::LEN]);
    }
    if let Ok(esp) = EspHeader::parse(data) {
        let mut out = [0; 8];
        esp.write(&mut out).unwrap();
        assert_eq!(out, data[..8]);
    }
    if let Ok(ah) = AhHeader::parse(data) {
        assert!(ah.header_len <= data.len());
        let mut out = vec![0; ah.header_len];
        ah.write(&mut out).unwrap();
        assert_eq!(AhHeader::parse(&out), Ok(ah));
    }
    if let Ok(gre) = Gre::parse(data) {
        let mut out = [0; 4];
        gre.write(&mut out).unwrap();
        assert_eq!(out, data[..4]);
    }
    if let Ok(header) = LinkHeader::parse(data) {
        let mut out = [0; link::LEN];
        header.write(&mut out).unwrap();
        assert_eq!(out, data[..link::LEN]);
    }
}

/// A header made of arbitrary fields, then the packet: extension headers and links get reached sooner.
fn headless(start: u8, data: &[u8]) {
    let Some((h, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let v6 = start & 4 != 0;
    let header_len = if v6 { ipv6::LEN } else { ipv4::MIN_LEN };
    let payload_len = if h[0] & 1 == 0 { rest.len() } else { usize::from(h[1]) };
    let probe = h[0] & 4 != 0;
    let (src, dst): (IpAddr, IpAddr) = match (v6, probe) {
        (false, _) => ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        (true, false) => ([0xfd; 16].into(), [0xfe; 16].into()),
        (true, true) => ([0; 16].into(), ipv6::solicited_node([0xfd; 16].into()).into()),
    };
    let fields = ip::Fields {
        src,
        dst,
        protocol: h[2],
        payload_len,
        hop_limit: h[3],
        traffic_class: h[1],
        flow_label: u32::from(h[0]),
        dont_fragment: h[0] & 2 != 0,
        identification: 7,
    };
    let mut buf = VecBuffer::from_slice(link::OVERHEAD_V6, rest, 0);
    buf.grow_front(header_len.min(link::OVERHEAD_V6)).unwrap();
    ip::write_header(buf.bytes_mut(), &fields).unwrap();
    ip_packet(buf.bytes());
}
