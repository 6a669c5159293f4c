//! AH around ESP: what one SA has to know of the other.
#![cfg(not(loom))]

mod plain;

use phalanx_ipsec::*;
use phalanx_wire::{Buffer, DropReason, IpHeader, SaId, VecBuffer, VipId, ip, protocol};
use std::net::IpAddr;

use plain::number;

const AH: Algorithm = Algorithm::AhHmacSha384;

fn address(v6: bool, host: u8) -> IpAddr {
    if v6 { [0xfd77, 0, 0, 0, 0, 0, 0, host.into()].into() } else { [10, 77, 0, host].into() }
}

fn around() -> TunnelName {
    TunnelName::new("around").unwrap()
}

fn params(direction: Direction, algorithm: Algorithm, tunnel: bool, v6: bool) -> SaParams {
    let (local, remote) = if direction == Direction::Outbound { (1, 2) } else { (2, 1) };
    let any = if v6 { Prefix::ANY_V6 } else { Prefix::ANY_V4 };
    SaParams {
        algorithm,
        key: SecretKey::new(algorithm, &[7; 128][..algorithm.material_len()]).unwrap(),
        selectors: Selectors::between(any, any),
        path_mtu: 9000,
        ..plain::params(direction, tunnel, address(v6, local), address(v6, remote))
    }
}

/// Sender and receiver of ESP, then of AH.
fn sas(algorithm: Algorithm, tunnel: bool, v6: bool) -> (OutboundSa, InboundSa, OutboundSa, InboundSa) {
    let esp = |way| SaParams { within: Some(around()), path_mtu: 8900, ..params(way, algorithm, tunnel, v6) };
    let ah = |way| SaParams { id: SaId(2), tunnel: around(), ..params(way, AH, false, v6) };
    (
        OutboundSa::new(esp(Direction::Outbound)).unwrap(),
        InboundSa::new(esp(Direction::Inbound)).unwrap(),
        OutboundSa::new(ah(Direction::Outbound)).unwrap(),
        InboundSa::new(ah(Direction::Inbound)).unwrap(),
    )
}

fn packet(v6: bool, len: usize) -> Vec<u8> {
    let header = if v6 { 40 } else { 20 };
    let mut bytes: Vec<u8> = (0..header + len).map(|n| n as u8).collect();
    let fields = ip::Fields {
        src: address(v6, 1),
        dst: address(v6, 2),
        protocol: protocol::UDP,
        payload_len: len,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut bytes, &fields).unwrap();
    bytes
}

/// Every algorithm of ESP in both modes and families.
fn everything() -> impl Iterator<Item = (Algorithm, bool, bool)> {
    Algorithm::ESP
        .into_iter()
        .flat_map(|one| [false, true].map(|tunnel| (one, tunnel)))
        .flat_map(|(one, tunnel)| [false, true].map(|v6| (one, tunnel, v6)))
}

#[test]
fn a_peek_through_ah_shows_what_is_left_without_both_and_opening_one_after_the_other_gives_it() {
    for (algorithm, tunnel, v6) in everything() {
        let (mut esp_out, mut esp_in, mut ah_out, mut ah_in) = sas(algorithm, tunnel, v6);
        for (seq, len) in [(1, 8), (2, 100), (3, 1400)] {
            let inner = packet(v6, len);
            // The most room that sealing asks for is enough.
            let mut buf = VecBuffer::from_slice(MAX_FRONT, &inner, MAX_BACK);
            esp_out.seal(&mut buf, number(seq)).unwrap();
            assert!(ah_out.begin_from(&mut buf, number(10 + seq), Origin::Sealed).unwrap().is_done());
            let ip = IpHeader::parse(buf.bytes()).unwrap();
            let bundled = ah_in.bundled(buf.bytes(), &ip).unwrap().unwrap();
            assert_eq!((bundled.esp.seq, bundled.esp.ah, bundled.ip.upper), (seq as u32, false, protocol::ESP));

            let mut peeked = Peeked::empty();
            let job = esp_in.peek_job_within(buf.bytes(), &ip, &bundled, seq).unwrap();
            job.ops(esp_in.key(), buf.bytes(), &mut peeked, |op| phalanx_aead::peek_burst(&mut [op]));
            let Ok(Peek::Ready(shown)) = job.read(&mut peeked) else { panic!("{algorithm:?} {tunnel} {v6} {len}") };
            assert_eq!(shown, IpHeader::parse(&inner).unwrap(), "{algorithm:?} {tunnel} {v6} {len}");
            // Behind a short packet in tunnel mode its trailer shows.
            let sight = peeked.bytes().len().min(inner.len());
            assert_eq!(peeked.bytes()[..sight], inner[..sight]);

            ah_in.open(&mut buf, Role::Target).unwrap();
            esp_in.open(&mut buf, Role::Target).unwrap();
            assert_eq!(buf.bytes(), inner);
        }
    }
}

#[test]
fn only_ah_in_transport_mode_around_whole_esp_is_a_bundle() {
    let (mut esp_out, esp_in, mut ah_out, ah_in) = sas(Algorithm::Aes128Gcm16, true, false);
    let mut buf = VecBuffer::from_slice(MAX_FRONT, &packet(false, 100), MAX_BACK);
    esp_out.seal(&mut buf, number(1)).unwrap();
    let esp = buf.bytes().to_vec();
    let ip = IpHeader::parse(&esp).unwrap();
    assert_eq!(esp_in.bundled(&esp, &ip), Ok(None));
    assert_eq!(ah_in.bundled(&esp, &ip), Err(DropReason::UnsupportedProtocol));
    ah_out.seal(&mut buf, number(1)).unwrap();
    let good = buf.bytes().to_vec();
    for cut in 20..good.len() {
        let mut short = good[..cut].to_vec();
        if ip::set_total_len(&mut short, cut).is_ok()
            && let Ok(ip) = IpHeader::parse(&short)
        {
            assert_eq!(ah_in.bundled(&short, &ip).is_ok(), cut >= 20 + 36 + 8, "{cut}");
        }
    }
    let tunnel = InboundSa::new(SaParams { id: SaId(3), ..params(Direction::Inbound, AH, true, false) }).unwrap();
    assert_eq!(tunnel.bundled(&good, &IpHeader::parse(&good).unwrap()), Ok(None));
}

#[test]
fn the_sa_around_another_is_the_one_its_tunnel_has_now_if_it_is_ah_in_transport_mode() {
    let (esp, _, ah, _) = sas(Algorithm::Aes128Gcm16, true, false);
    let mut cache = ShadowCache::new(Limits::default());
    let at = cache.add_outbound(Box::new(esp)).unwrap();
    assert_eq!(cache.around(at), None);
    let ah_at = cache.add_outbound(Box::new(ah)).unwrap();
    assert_eq!((cache.around(at), cache.around(ah_at)), (Some(ah_at), None));
    let next = SaParams { id: SaId(9), tunnel: around(), ..params(Direction::Outbound, AH, false, false) };
    let next_at = cache.add_outbound(Box::new(OutboundSa::new(next).unwrap())).unwrap();
    assert_eq!(cache.around(at), Some(next_at));
    // What is no AH in transport mode goes around nothing; nor does another VIP's.
    for change in [
        (|p: &mut SaParams| p.vip = VipId(2)) as fn(&mut SaParams),
        |p| p.mode = Mode::Tunnel { local: p.local, remote: p.remote },
        |p| {
            *p = SaParams {
                id: p.id,
                tunnel: p.tunnel,
                ..params(Direction::Outbound, Algorithm::NullSha256, false, false)
            }
        },
    ] {
        let mut cache = ShadowCache::new(Limits::default());
        let at = cache.add_outbound(Box::new(sas(Algorithm::Aes128Gcm16, true, false).0)).unwrap();
        let mut other = SaParams { id: SaId(9), tunnel: around(), ..params(Direction::Outbound, AH, false, false) };
        change(&mut other);
        cache.add_outbound(Box::new(OutboundSa::new(other).unwrap())).unwrap();
        assert_eq!(cache.around(at), None);
    }
}

#[test]
fn one_ah_goes_around_one_esp_and_not_around_udp() {
    let ah = SaParams { within: Some(around()), ..params(Direction::Outbound, AH, false, false) };
    assert_eq!(ah.check(), Err(IpsecError::AhInAh));
    let mut esp =
        SaParams { within: Some(around()), ..params(Direction::Outbound, Algorithm::Aes128Gcm16, true, false) };
    assert_eq!(esp.check(), Ok(()));
    // What AH takes of the least path there is.
    esp.path_mtu = 576 - 44;
    assert_eq!(esp.check(), Ok(()));
    esp.encap = Some(Encap { remote_port: 4500, original: None });
    assert_eq!(esp.check(), Err(IpsecError::UdpInAh));
}
