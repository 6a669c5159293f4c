//! What several tests need.
#![allow(dead_code)]

use phalanx_steering::ConnKey;
use phalanx_wire::{Endpoint, Flow, PeerId, TcpFlags, TcpHeader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of many different connections; `n` may be any number.
pub fn key(peer: u32, n: u32) -> ConnKey {
    let local = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100)), 80);
    let remote = match n % 2 {
        0 => IpAddr::V4(Ipv4Addr::from(0x0a63_0000 + (n >> 17))),
        _ => IpAddr::V6(Ipv6Addr::from((0xfd99_u128 << 112) + u128::from(n >> 17))),
    };
    let remote = Endpoint::new(remote, (n >> 1) as u16);
    ConnKey { peer: PeerId(peer), flow: Flow { protocol: 6, local, remote } }
}

/// A segment with these flags.
pub fn segment(flags: u8, seq: u32, ack: u32) -> TcpHeader {
    TcpHeader { src_port: 40000, dst_port: 80, seq, ack, data_offset: 20, flags: TcpFlags(flags), window: 1000 }
}

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
