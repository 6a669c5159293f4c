//! Cases for the ESP tests: an SA, a packet for it, and how the peer treats it.

use crate::oracle::{Packet, Sa, cipher};
use phalanx_ipsec::{Algorithm, Direction, Lifesize, Mode, Prefix, SaParams, SecretKey, Selectors, TunnelName};
use phalanx_wire::{PeerId, SaId, Spi, VipId};
use proptest::prelude::*;
use std::net::IpAddr;

/// One SA, one packet, one number.
#[derive(Clone, Debug)]
pub struct Case {
    pub sa: Sa,
    pub packet: Packet,
    pub seq: u64,
    /// As much of it as the cipher has.
    pub iv: [u8; 16],
    /// Of the outer header when it arrives.
    pub outer_class: u8,
    pub copy_dscp: bool,
    pub ecn: bool,
    /// More padding than needed, in units of what the cipher aligns to, as far as it fits a byte.
    pub pad: u8,
    /// Traffic flow confidentiality padding.
    pub tfc: Vec<u8>,
}

impl Case {
    /// The outer header of tunnel mode, as an empty packet.
    pub fn outer(&self) -> Packet {
        Packet {
            src: self.sa.from,
            dst: self.sa.to,
            class: self.outer_class,
            ttl: 64,
            dont_fragment: true,
            id: 0,
            flow_label: 0,
            options: vec![],
            before: vec![],
            after: vec![],
            protocol: 50,
            payload: vec![],
        }
    }
}

/// The SA as our side has it: outbound we are the sender, inbound the receiver.
pub fn params(case: &Case, direction: Direction) -> SaParams {
    let (local, remote) = match direction {
        Direction::Outbound => (case.sa.from, case.sa.to),
        Direction::Inbound => (case.sa.to, case.sa.from),
    };
    let inner_v4 = case.packet.src.is_ipv4();
    let any = if inner_v4 { Prefix::ANY_V4 } else { Prefix::ANY_V6 };
    let algorithm = Algorithm::from_name(case.sa.cipher.name).unwrap();
    // RFC 7296 §2.17, RFC 4106 §8.1: either a key of integrity or a salt.
    let salt = if case.sa.cipher.integrity > 0 { &[][..] } else { &case.sa.salt };
    SaParams {
        id: SaId(1),
        direction,
        vip: VipId(1),
        peer: PeerId(1),
        tunnel: TunnelName::new("t").unwrap(),
        spi: Spi(case.sa.spi),
        mode: if case.sa.tunnel { Mode::Tunnel { local, remote } } else { Mode::Transport },
        local,
        remote,
        algorithm,
        key: SecretKey::new(algorithm, &[&case.sa.key[..], salt].concat()).unwrap(),
        esn: case.sa.esn,
        window: 64,
        selectors: Selectors::between(any, any),
        lifesize: Lifesize::UNLIMITED,
        path_mtu: 9000,
        mss_clamp: phalanx_ipsec::MssClamp::None,
        copy_dscp: case.copy_dscp,
        ecn: case.ecn,
        encap: None,
        within: None,
    }
}

fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// Addresses that no parser objects to.
fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(move |n| {
        let [a, b, c, d] = n.to_be_bytes();
        if v4 {
            IpAddr::from([10, b, c, d.clamp(1, 254)])
        } else {
            IpAddr::from([0xfd77, 0, 0, 0, 0, u16::from(a), u16::from_be_bytes([b, c]), u16::from(d)])
        }
    })
}

/// IPv6 extension headers: number, and a body that makes the header 8 to 40 bytes long.
fn extension(number: u8) -> impl Strategy<Value = Option<(u8, Vec<u8>)>> {
    let header = (0usize..5).prop_map(move |n| {
        let mut body = vec![0; 6 + 8 * n];
        if number != 43 {
            // One PadN option over everything (RFC 8200 §4.2). A routing header has type 0 and no stops left.
            let len = body.len() - 2;
            body[..2].copy_from_slice(&[1, len as u8]);
        }
        (number, body)
    });
    prop::option::weighted(0.4, header)
}

fn packet(v4: bool, src: IpAddr, dst: IpAddr) -> impl Strategy<Value = Packet> {
    let upper = (prop_oneof![Just(6u8), Just(17), Just(1), Just(132)], bytes(0..1400));
    let header = (any::<u8>(), 1u8..=255, any::<bool>(), any::<u16>(), 0u32..1 << 20);
    let options = if v4 { (0usize..=10).prop_map(|n| vec![1; 4 * n]).boxed() } else { Just(vec![]).boxed() };
    // RFC 8200 §4.1: hop-by-hop, destination options for the stops, routing, destination options for the end.
    let extensions = (extension(0), extension(60), extension(43), extension(60));
    (upper, header, options, extensions).prop_map(move |((protocol, payload), header, options, extensions)| {
        let (class, ttl, dont_fragment, id, flow_label) = header;
        let (hop, stops, routing, end) = if v4 { (None, None, None, None) } else { extensions };
        // Without a routing header all destination options are for the end.
        let (before, after) = match routing {
            Some(routing) => ([hop, stops, Some(routing)].into_iter().flatten().collect(), end.into_iter().collect()),
            None => (hop.into_iter().collect(), [stops, end].into_iter().flatten().collect()),
        };
        let flow_label = if v4 { 0 } else { flow_label };
        Packet { src, dst, class, ttl, dont_fragment, id, flow_label, options, before, after, protocol, payload }
    })
}

/// Every combination of mode, outer and inner version, algorithm and number size.
pub fn case() -> impl Strategy<Value = Case> {
    (any::<bool>(), any::<bool>(), any::<bool>())
        .prop_flat_map(|(tunnel, outer_v4, inner_v4)| {
            let inner_v4 = if tunnel { inner_v4 } else { outer_v4 };
            let outer = (address(outer_v4), address(outer_v4));
            let inner = (address(inner_v4), address(inner_v4));
            (Just((tunnel, inner_v4)), outer, inner)
        })
        .prop_flat_map(|((tunnel, inner_v4), (from, to), inner)| {
            let (src, dst) = if tunnel { inner } else { (from, to) };
            let sa = (256u32.., prop::sample::select(&cipher::ALL[..]), bytes(96), any::<[u8; 4]>(), any::<bool>());
            let sa = sa.prop_map(move |(spi, cipher, mut key, salt, esn)| {
                key.truncate(cipher.material());
                Sa { tunnel, from, to, spi, cipher, key, salt, esn }
            });
            let seq = prop_oneof![1u64..1000, Just(u64::from(u32::MAX)), Just(1 << 32), 1u64..1 << 48];
            let arrives = (any::<[u8; 16]>(), any::<u8>(), 0u8..60, bytes(0..40));
            (sa, packet(inner_v4, src, dst), seq, arrives, any::<[bool; 2]>())
        })
        .prop_map(|(sa, packet, seq, (iv, outer_class, pad, tfc), [copy_dscp, ecn])| {
            let seq = if sa.esn { seq } else { seq.min(0xffff_ffff) };
            Case { sa, packet, seq, iv, outer_class, copy_dscp, ecn, pad, tfc }
        })
}
