//! The peek (R9): what the beginning of an inner packet shows of its connection.
//!
//! Works on a decrypted prefix, which is not authenticated, as well as on an opened packet. Where the prefix ends too
//! early it says how much more is wanted, so the router never decrypts beyond the TCP header; IPv6 extension headers
//! make that iterative. Whatever is neither plain TCP nor UDP is left to the router as an ordinary endpoint, where the integrity
//! check comes first: nothing here drops a packet.

use std::net::IpAddr;

use phalanx_wire::{Endpoint, Flow, IpHeader, TcpHeader, UdpHeader, WireError, flow, protocol, quoted, tcp, udp};

/// How much to decrypt first: IPv6 and TCP headers without options, in whole cipher blocks.
pub const FIRST_PEEK: usize = 64;

/// How much is decrypted at most; a packet with more in front of its TCP header is opened by the router instead.
pub const MAX_PEEK: usize = 512;

/// What the bytes begin with.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A whole inner IP header: tunnel mode, or a packet that is opened already.
    Packet,
    /// The same, and this is what it says.
    Behind(&'a IpHeader),
    /// The payload of the outer packet: transport mode.
    Payload {
        /// The outer header, whose addresses are the connection's.
        outer: &'a IpHeader,
        /// The protocol named by the ESP trailer or the AH header.
        next_header: u8,
    },
}

/// What a prefix shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Enough.
    Seen(Seen),
    /// The same again with a prefix of this many bytes, which is more than there were and not more than there are.
    NeedMore(usize),
}

/// What an inner packet is, as far as steering asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A TCP segment.
    Tcp {
        /// Its connection, seen from our side.
        flow: Flow,
        /// Its header.
        tcp: TcpHeader,
    },
    /// A UDP datagram.
    Udp {
        /// Its flow, seen from our side.
        flow: Flow,
    },
    /// An ICMP error about a packet that we are said to have sent.
    Error {
        /// The quoted packet's connection, seen from our side; of a protocol with ports.
        flow: Flow,
    },
    /// Another protocol, or a fragment.
    Other {
        /// The local address.
        local: IpAddr,
        /// The protocol behind the last extension header.
        protocol: u8,
        /// A fragment, the first one included.
        fragment: bool,
    },
    /// Not to be made sense of, at least not within [`MAX_PEEK`].
    Opaque,
}

impl Seen {
    /// The local address, which decides whether the inner packet is for a VIP.
    #[inline]
    pub fn local(&self) -> Option<IpAddr> {
        match self {
            Seen::Tcp { flow, .. } | Seen::Udp { flow } | Seen::Error { flow } => Some(flow.local.addr),
            Seen::Other { local, .. } => Some(*local),
            Seen::Opaque => None,
        }
    }

    /// The connection or flow that the packet itself is of.
    #[inline]
    pub fn flow(&self) -> Option<Flow> {
        match self {
            Seen::Tcp { flow, .. } | Seen::Udp { flow } => Some(*flow),
            Seen::Error { .. } | Seen::Other { .. } | Seen::Opaque => None,
        }
    }
}

/// What a packet is that came through an SA: integrity checked, number taken by the window, fit for its tunnel. Only
/// this, and never what was merely peeked at, makes an entry (I5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened(Seen);

impl Opened {
    /// From the whole inner packet, as it comes out of an SA in either mode. The caller vouches that it did.
    #[inline]
    pub fn packet(packet: &[u8]) -> Opened {
        Opened::of(look(Shape::Packet, packet, packet.len()))
    }

    /// The same of a packet whose IP header was read already.
    #[inline]
    pub fn behind(ip: &IpHeader, packet: &[u8]) -> Opened {
        Opened::of(look_behind(ip, packet, packet.len()))
    }

    #[inline]
    fn of(look: Look) -> Opened {
        match look {
            Look::Seen(seen) => Opened(seen),
            Look::NeedMore(_) => Opened(Seen::Opaque),
        }
    }

    /// What it is.
    #[inline]
    pub fn seen(&self) -> &Seen {
        &self.0
    }
}

/// Looks at `prefix`, the first of `whole` bytes that could be decrypted.
#[inline]
pub fn look(shape: Shape<'_>, prefix: &[u8], whole: usize) -> Look {
    match shape {
        Shape::Packet => look_at_packet(prefix, whole),
        Shape::Behind(ip) => look_behind(ip, prefix, whole),
        Shape::Payload { outer, next_header } => look_at_payload(outer, next_header, prefix, whole),
    }
}

/// The IP header and, in IPv6, all extension headers; then [`look_behind`] it.
#[inline]
fn look_at_packet(prefix: &[u8], whole: usize) -> Look {
    let ip = match IpHeader::parse_prefix(prefix) {
        Ok(ip) => ip,
        // How much the next extension header needs is not known before it is read: twice as much, then.
        Err(WireError::Short) => return more(prefix.len() * 2, prefix, whole),
        Err(_) => return Look::Seen(Seen::Opaque),
    };
    look_behind(&ip, prefix, whole)
}

/// 1. what an ICMP error quotes; 2. fragments and other protocols; 3. the TCP or UDP header.
#[inline(always)]
fn look_behind(ip: &IpHeader, prefix: &[u8], whole: usize) -> Look {
    let fragment = ip.fragment.is_some();
    match quoted::flow(ip, prefix) {
        Ok(flow) if flow::has_ports(flow.protocol) => return Look::Seen(Seen::Error { flow }),
        // The quoted packet's ports stand behind its options or extension headers.
        Err(WireError::Short) if prefix.len() < whole.min(ip.total_len) => {
            return more(prefix.len() * 2, prefix, whole);
        }
        _ => {}
    }
    match ip.upper {
        protocol::TCP if !fragment && ip.upper_len() >= tcp::MIN_LEN => look_at_tcp(ip, prefix, ip.upper_offset, whole),
        protocol::UDP if !fragment && ip.upper_len() >= udp::LEN => look_at_udp(ip, prefix, ip.upper_offset, whole),
        protocol::TCP | protocol::UDP if !fragment => Look::Seen(Seen::Opaque),
        protocol => Look::Seen(Seen::Other { local: ip.dst, protocol, fragment }),
    }
}

/// Transport mode: options that travel inside ESP come first (RFC 4303 §3.1.1), then the TCP or UDP header.
fn look_at_payload(outer: &IpHeader, mut next_header: u8, prefix: &[u8], whole: usize) -> Look {
    let mut at = 0;
    while matches!(next_header, protocol::DESTINATION | protocol::ROUTING) {
        let Some(header) = prefix.get(at..at + 2) else {
            return more(at + 2, prefix, whole);
        };
        next_header = header[0];
        at += (usize::from(header[1]) + 1) * 8;
    }
    match next_header {
        protocol::TCP => look_at_tcp(outer, prefix, at, whole),
        protocol::UDP => look_at_udp(outer, prefix, at, whole),
        other => {
            let fragment = other == protocol::FRAGMENT;
            Look::Seen(Seen::Other { local: outer.dst, protocol: other, fragment })
        }
    }
}

#[inline(always)]
fn look_at_tcp(ip: &IpHeader, prefix: &[u8], at: usize, whole: usize) -> Look {
    let Some(header) = prefix.get(at..).filter(|rest| rest.len() >= tcp::MIN_LEN) else {
        return more(at + tcp::MIN_LEN, prefix, whole);
    };
    let Ok(tcp) = TcpHeader::parse_prefix(header) else {
        return Look::Seen(Seen::Opaque);
    };
    let flow = Flow {
        protocol: protocol::TCP,
        local: Endpoint { addr: ip.dst, port: tcp.dst_port },
        remote: Endpoint { addr: ip.src, port: tcp.src_port },
    };
    Look::Seen(Seen::Tcp { flow, tcp })
}

#[inline(always)]
fn look_at_udp(ip: &IpHeader, prefix: &[u8], at: usize, whole: usize) -> Look {
    let Some(header) = prefix.get(at..).filter(|rest| rest.len() >= udp::LEN) else {
        return more(at + udp::LEN, prefix, whole);
    };
    let Ok(udp) = UdpHeader::parse_prefix(header) else {
        return Look::Seen(Seen::Opaque);
    };
    let flow = Flow {
        protocol: protocol::UDP,
        local: Endpoint { addr: ip.dst, port: udp.dst_port },
        remote: Endpoint { addr: ip.src, port: udp.src_port },
    };
    Look::Seen(Seen::Udp { flow })
}

/// Asks for `wanted` bytes, or as many as there are; always for more than before, so that the rounds are bounded.
fn more(wanted: usize, prefix: &[u8], whole: usize) -> Look {
    let most = whole.min(MAX_PEEK);
    if prefix.len() >= most {
        return Look::Seen(Seen::Opaque);
    }
    Look::NeedMore(wanted.max(prefix.len() + 1).max(FIRST_PEEK).min(most))
}
