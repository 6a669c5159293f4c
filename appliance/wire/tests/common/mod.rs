//! What the tests of several files make.
#![allow(dead_code)] // each file uses some of it

use phalanx_wire::ip;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv6 address from its text.
pub fn v6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

/// A whole IP packet with a plain header.
pub fn packet(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let fields = ip::Fields {
        src,
        dst,
        protocol,
        payload_len: payload.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    let mut out = vec![0; ip::header_len(src)];
    ip::write_header(&mut out, &fields).unwrap();
    out.extend(payload);
    out
}
