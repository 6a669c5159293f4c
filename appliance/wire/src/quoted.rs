//! Packets of ours that ICMP errors quote (RFC 792, RFC 4443): which ESP or AH packet was too big for a router on its way, and
//! which connection an error inside a tunnel is about.

use crate::icmp::{Icmp4, Icmp6};
use crate::ip::{IpHeader, protocol};
use crate::{EspHeader, Flow, Spi, WireError, ah, udp};
use std::net::IpAddr;

/// UDP port of encapsulated ESP (RFC 3948).
const ESP_IN_UDP: u16 = 4500;

/// A router could not carry an ESP or AH packet that we are said to have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspTooBig {
    /// What it could have carried, in bytes from the outer IP header on. Of a router older than RFC 1191: 0.
    pub mtu: u32,
    /// Source of the quoted packet.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Its length.
    pub len: usize,
    /// Its SPI.
    pub spi: Spi,
    /// The low half of its sequence number.
    pub seq: u32,
    /// It is AH.
    pub ah: bool,
}

impl EspTooBig {
    /// Reads the packet with this header: `None` if it is anything but an ICMP "fragmentation needed" or ICMPv6 "packet too
    /// big" with a good checksum that quotes ESP, plain or in UDP, or AH, up to the sequence number.
    #[must_use]
    pub fn parse(ip: &IpHeader, packet: &[u8]) -> Option<EspTooBig> {
        if ip.fragment.is_some() {
            return None;
        }
        let message = ip.upper_of(packet);
        let (mtu, error) = match ip.upper {
            protocol::ICMP => match Icmp4::parse(message).ok()? {
                told @ Icmp4::Error(error) => (u32::from(told.too_big()?), error),
                _ => return None,
            },
            protocol::ICMPV6 => match Icmp6::parse(ip.src, ip.dst, message).ok()? {
                told @ Icmp6::Error(error) => (told.too_big()?, error),
                _ => return None,
            },
            _ => return None,
        };
        let (quoted, upper) = error.quoted_packet().ok()?;
        if quoted.fragment.is_some_and(|f| f.offset != 0) {
            return None;
        }
        let esp = match quoted.upper {
            protocol::ESP => upper,
            protocol::UDP if upper.first_chunk() == Some(&ESP_IN_UDP.to_be_bytes()) => upper.get(udp::LEN..)?,
            // What the two words behind next header, length and reserved bits are in ESP.
            protocol::AH => upper.get(4..ah::FIXED_LEN)?,
            _ => return None,
        };
        let EspHeader { spi, seq } = EspHeader::parse(esp).ok()?;
        let ah = quoted.upper == protocol::AH;
        Some(EspTooBig { mtu, src: quoted.src, dst: quoted.dst, len: quoted.total_len, spi, seq, ah })
    }
}

/// The flow of ours that the ICMP error with this header is about; `packet` may end behind the quoted ports, so the
/// message's checksum is not looked at.
///
/// # Errors
/// [`WireError::Short`] if more bytes are needed; [`WireError::Protocol`] if it is no error, or quotes a packet that was
/// not sent from where the error went.
#[inline]
pub fn flow(ip: &IpHeader, packet: &[u8]) -> Result<Flow, WireError> {
    if ip.fragment.is_some() || !matches!(ip.upper, protocol::ICMP | protocol::ICMPV6) {
        return Err(WireError::Protocol);
    }
    flow_of_error(ip, packet)
}

#[inline(never)]
fn flow_of_error(ip: &IpHeader, packet: &[u8]) -> Result<Flow, WireError> {
    let message = ip.upper_of(packet);
    let &kind = message.first().ok_or(WireError::Short)?;
    let error = match ip.upper {
        // RFC 792: destination unreachable, source quench, time exceeded, parameter problem.
        protocol::ICMP => matches!(kind, 3 | 4 | 11 | 12),
        // RFC 4443 §2.1.
        _ => kind < 128,
    };
    if !error {
        return Err(WireError::Protocol);
    }
    let quoted = message.get(crate::icmp::LEN..).ok_or(WireError::Short)?;
    let inner = IpHeader::parse_quoted(quoted)?;
    if inner.src != ip.dst {
        return Err(WireError::Protocol);
    }
    Flow::of_outbound(&inner, inner.upper_of(quoted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::icmp::{Complaint, write_complaint};
    use crate::ip::{self, Fields};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A packet of `protocol` with this much of an upper layer, said to be `len` bytes long.
    fn sent(src: &str, dst: &str, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let header = ip::header_len(address(src));
        let mut packet = vec![0; header + upper.len()];
        let fields = Fields {
            src: address(src),
            dst: address(dst),
            protocol,
            payload_len: upper.len(),
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            dont_fragment: true,
            identification: 0,
        };
        ip::write_header(&mut packet, &fields).unwrap();
        packet[header..].copy_from_slice(upper);
        packet
    }

    fn told(from: &str, about: &[u8], mtu: u16) -> Vec<u8> {
        let mut out = vec![0; 1500];
        let len = write_complaint(&mut out, address(from), about, Complaint::TooBig { mtu }).unwrap();
        out.truncate(len);
        out
    }

    fn read(packet: &[u8]) -> Option<EspTooBig> {
        EspTooBig::parse(&IpHeader::parse(packet).unwrap(), packet)
    }

    #[test]
    fn a_router_says_which_esp_packet_was_too_big() {
        let mut esp = vec![0xaa; 1400];
        esp[..8].copy_from_slice(&[0, 0, 0x20, 1, 0, 0, 0, 9]);
        for (vip, peer, router) in [("10.77.0.100", "10.0.0.9", "192.0.2.1"), ("fd77::100", "fd00::9", "2001:db8::1")] {
            let packet = sent(vip, peer, protocol::ESP, &esp);
            let told = told(router, &packet, 1300);
            let expected = EspTooBig {
                mtu: 1300,
                src: address(vip),
                dst: address(peer),
                len: packet.len(),
                spi: Spi(0x2001),
                seq: 9,
                ah: false,
            };
            assert_eq!(read(&told), Some(expected));
            let mut damaged = told.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(read(&damaged), None, "the checksum");
        }
    }

    #[test]
    fn esp_in_udp_and_ah_are_recognised_and_other_protocols_are_not() {
        let esp = [0, 0, 0x20, 1, 0, 0, 0, 9];
        let from = |port: u16| [&port.to_be_bytes()[..], &[0x11, 0x94, 0, 16, 0, 0], &esp].concat();
        let quote =
            |protocol, upper: &[u8]| read(&told("192.0.2.1", &sent("10.77.0.100", "10.0.0.9", protocol, upper), 1300));
        assert_eq!(quote(protocol::UDP, &from(4500)).unwrap().spi, Spi(0x2001));
        assert_eq!(quote(protocol::UDP, &from(53)), None);
        assert_eq!(quote(protocol::UDP, &from(4500)[..15]), None, "cut before the sequence number's end");
        assert_eq!(quote(protocol::TCP, &esp), None);
        assert_eq!(quote(protocol::ESP, &esp[..7]), None);
        let told = quote(protocol::AH, &[&[6, 5, 0, 0][..], &esp, &[0; 16]].concat()).unwrap();
        assert_eq!((told.spi, told.seq, told.ah), (Spi(0x2001), 9, true));
        assert_eq!(quote(protocol::AH, &[&[6, 5, 0, 0][..], &esp[..7]].concat()), None);
    }

    #[test]
    fn an_error_is_about_the_connection_that_it_quotes_wherever_its_packet_ends() {
        for (vip, client) in [("10.77.0.100", "10.99.0.10"), ("fd77::100", "fd99::10")] {
            let segment = sent(vip, client, protocol::TCP, &[&[0, 80, 0x9c, 0x40][..], &[0; 16]].concat());
            let error = told(client, &segment, 1300);
            let ip = IpHeader::parse(&error).unwrap();
            let flow = super::flow(&ip, &error).unwrap();
            assert_eq!(
                (flow.protocol, flow.local.to_string()),
                (protocol::TCP, if vip.contains(':') { format!("[{vip}]:80") } else { format!("{vip}:80") })
            );
            assert_eq!((flow.remote.addr, flow.remote.port), (address(client), 40_000));
            let enough = ip.upper_offset + 8 + ip::header_len(address(vip)) + 4;
            assert_eq!(super::flow(&ip, &error[..enough]), Ok(flow));
            for cut in ip.upper_offset..enough {
                assert_eq!(super::flow(&ip, &error[..cut]), Err(WireError::Short), "{cut}");
            }
        }
    }

    #[test]
    fn an_error_about_somebody_elses_packet_is_about_no_flow_of_ours() {
        let mut error = told("10.99.0.10", &sent("10.77.0.100", "10.99.0.10", protocol::TCP, &[0; 20]), 1300);
        error[20 + 8 + 15] ^= 1; // the quoted source
        let ip = IpHeader::parse(&error).unwrap();
        assert_eq!(flow(&ip, &error), Err(WireError::Protocol));
        let echo = sent("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8; 64]);
        assert_eq!(flow(&IpHeader::parse(&echo).unwrap(), &echo), Err(WireError::Protocol));
    }
}
