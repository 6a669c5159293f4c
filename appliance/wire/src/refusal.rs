//! What an ordinary host answers when nobody listens: a TCP reset (RFC 9293 §3.10.7.1), an ICMP port unreachable
//! (RFC 1122 §4.1.3.1, RFC 4443 §3.1).

use crate::icmp::{Complaint, write_complaint};
use crate::tcp::{self, TcpFlags, TcpHeader};
use crate::{IpHeader, WireError, ip, protocol};

/// Room that any refusal fits in: the largest ICMPv6 error (RFC 4443 §2.4 c).
pub const MAX_LEN: usize = 1280;

/// Writes the whole IP packet that refuses `packet`, which is a whole one; gives its length.
///
/// # Errors
/// [`WireError::Protocol`] where a host says nothing: a reset, a fragment, another protocol, a packet from or to a group.
/// [`WireError::NoRoom`], and what is wrong with `packet` itself.
pub fn write(out: &mut [u8], packet: &[u8]) -> Result<usize, WireError> {
    let ip = IpHeader::parse(packet)?;
    if ip.fragment.is_some() || ip.dst.is_multicast() || ip.src.is_multicast() || ip.src.is_unspecified() {
        return Err(WireError::Protocol);
    }
    match ip.upper {
        protocol::TCP => reset(out, &ip, packet),
        protocol::UDP => write_complaint(out, ip.dst, packet, Complaint::NoPort),
        _ => Err(WireError::Protocol),
    }
}

fn reset(out: &mut [u8], refused: &IpHeader, packet: &[u8]) -> Result<usize, WireError> {
    let tcp = TcpHeader::parse(refused.upper_of(packet))?;
    if tcp.flags.rst() {
        return Err(WireError::Protocol);
    }
    // "If the ACK bit is off, sequence number zero is used: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit is on:
    // <SEQ=SEG.ACK><CTL=RST>."
    let payload = refused.upper_len().saturating_sub(tcp.data_offset) as u32;
    let len = payload + u32::from(tcp.flags.syn()) + u32::from(tcp.flags.fin());
    let (seq, ack, flags) = if tcp.flags.ack() {
        (tcp.ack, 0, TcpFlags::RST)
    } else {
        (0, tcp.seq.wrapping_add(len), TcpFlags::RST | TcpFlags::ACK)
    };
    let fields = ip::Fields {
        src: refused.dst,
        dst: refused.src,
        protocol: protocol::TCP,
        payload_len: tcp::MIN_LEN,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    let header = ip::write_header(out, &fields)?;
    let segment = out.get_mut(header..header + tcp::MIN_LEN).ok_or(WireError::NoRoom)?;
    TcpHeader {
        src_port: tcp.dst_port,
        dst_port: tcp.src_port,
        seq,
        ack,
        data_offset: tcp::MIN_LEN,
        flags: TcpFlags(flags),
        window: 0,
    }
    .write(segment)?;
    tcp::set_checksum(refused.dst, refused.src, segment)?;
    Ok(header + tcp::MIN_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Icmp4, Icmp6, UdpHeader, checksum, udp};
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn packet(src: &str, dst: &str, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let [src, dst]: [IpAddr; 2] = [src, dst].map(|a| a.parse().unwrap());
        let fields = ip::Fields {
            src,
            dst,
            protocol,
            payload_len: upper.len(),
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            dont_fragment: true,
            identification: 7,
        };
        let mut packet = vec![0; ip::header_len(src)];
        ip::write_header(&mut packet, &fields).unwrap();
        packet.extend(upper);
        packet
    }

    fn segment(flags: u8, data: usize) -> Vec<u8> {
        let mut bytes = vec![0; 24 + data];
        let flags = TcpFlags(flags);
        let header =
            TcpHeader { src_port: 40_000, dst_port: 80, seq: u32::MAX, ack: 77, data_offset: 24, flags, window: 9 };
        header.write(&mut bytes).unwrap();
        bytes
    }

    fn refused(packet: &[u8]) -> Result<(IpHeader, Vec<u8>), WireError> {
        let mut out = [0xee; MAX_LEN];
        let len = write(&mut out, packet)?;
        let ip = IpHeader::parse(&out[..len])?;
        assert_eq!(ip.total_len, len);
        Ok((ip, ip.upper_of(&out[..len]).to_vec()))
    }

    #[test]
    fn a_syn_is_answered_by_a_reset_that_acknowledges_it() {
        for (from, to) in [("10.99.0.10", "10.77.0.100"), ("fd99::10", "fd77::100")] {
            let (ip, bytes) = refused(&packet(from, to, protocol::TCP, &segment(TcpFlags::SYN, 3))).unwrap();
            assert_eq!((ip.src.to_string(), ip.dst.to_string()), (to.into(), from.into()));
            let tcp = TcpHeader::parse(&bytes).unwrap();
            assert_eq!((tcp.src_port, tcp.dst_port, tcp.seq, tcp.ack), (80, 40_000, 0, 3), "SEG.SEQ + SYN + 3 bytes");
            assert_eq!(tcp.flags, TcpFlags(TcpFlags::RST | TcpFlags::ACK));
            assert_eq!(checksum::upper(ip.src, ip.dst, protocol::TCP, &bytes), 0);
        }
    }

    #[test]
    fn what_acknowledges_is_answered_at_that_number_and_a_reset_not_at_all() {
        let (_, bytes) = refused(&packet("10.99.0.10", "10.77.0.100", 6, &segment(TcpFlags::ACK, 0))).unwrap();
        let tcp = TcpHeader::parse(&bytes).unwrap();
        assert_eq!((tcp.seq, tcp.ack, tcp.flags), (77, 0, TcpFlags(TcpFlags::RST)));
        let reset = packet("10.99.0.10", "10.77.0.100", 6, &segment(TcpFlags::RST, 0));
        assert_eq!(refused(&reset).err(), Some(WireError::Protocol));
    }

    #[test]
    fn a_datagram_is_answered_by_port_unreachable_that_quotes_it() {
        for (from, to) in [("10.99.0.10", "10.77.0.100"), ("fd99::10", "fd77::100")] {
            let mut datagram = vec![1; udp::LEN + 4];
            let len = datagram.len() as u16;
            UdpHeader { src_port: 1000, dst_port: 53, len, checksum: 0 }.write(&mut datagram).unwrap();
            let whole = packet(from, to, protocol::UDP, &datagram);
            let (ip, bytes) = refused(&whole).unwrap();
            let error = match Icmp4::parse(&bytes) {
                Ok(Icmp4::Error(error)) if ip.version == 4 => error,
                _ => match Icmp6::parse(ip.src, ip.dst, &bytes) {
                    Ok(Icmp6::Error(error)) => error,
                    other => panic!("{other:?}"),
                },
            };
            let expected = if ip.version == 4 { (3, 3) } else { (1, 4) };
            assert_eq!((error.kind, error.code), expected);
            assert_eq!(error.quoted, whole);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_not_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = refused(&bytes);
            // The same as an IPv4 TCP packet.
            let _ = refused(&packet("10.0.0.1", "10.0.0.2", protocol::TCP, &bytes));
        }

        #[test]
        fn a_refusal_is_never_refused_again(flags: u8, data in 0usize..20) {
            if let Ok((ip, bytes)) = refused(&packet("fd99::10", "fd77::100", 6, &segment(flags, data))) {
                let again = packet(&ip.src.to_string(), &ip.dst.to_string(), 6, &bytes);
                prop_assert!(refused(&again).is_err());
            }
        }
    }
}
