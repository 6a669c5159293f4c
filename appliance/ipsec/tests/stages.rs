//! The stages' rules that the oracle's random packets do not single out.
#![cfg(not(loom))]

mod plain;

use phalanx_aead::{open_burst, seal_burst};
use phalanx_ipsec::*;
use phalanx_wire::{Buffer, DropReason, IpHeader, VecBuffer, ip};
use std::net::IpAddr;

use plain::number;

const VIP: &str = "10.77.0.100";
const PEER: &str = "10.77.0.10";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The client's and the server's view of one SA from server to client.
fn pair(tunnel: bool, change: impl Fn(&mut SaParams)) -> (OutboundSa, InboundSa) {
    let [out, inn] =
        [(Direction::Outbound, VIP, PEER), (Direction::Inbound, PEER, VIP)].map(|(direction, local, remote)| {
            let (local, remote) = (address(local), address(remote));
            let mut params = SaParams { esn: false, ..plain::params(direction, tunnel, local, remote) };
            change(&mut params);
            params
        });
    (OutboundSa::new(out).unwrap(), InboundSa::new(inn).unwrap())
}

fn key(algorithm: Algorithm) -> SecretKey {
    SecretKey::new(algorithm, &[7; phalanx_aead::MAX_MATERIAL][..algorithm.material_len()]).unwrap()
}

fn packet(len: usize, ttl: u8) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    let fields = ip::Fields {
        src: address(VIP),
        dst: address(PEER),
        protocol: 17,
        payload_len: len - 20,
        hop_limit: ttl,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut bytes, &fields).unwrap();
    bytes
}

fn buffer(bytes: &[u8]) -> VecBuffer {
    VecBuffer::from_slice(MAX_FRONT, bytes, MAX_BACK)
}

#[test]
fn the_inner_mtu_is_the_longest_packet_that_is_not_too_big() {
    let all = Algorithm::ESP.into_iter().flat_map(|a| [(a, true), (a, false)]);
    for (algorithm, tunnel) in all {
        for mtu in 600..640 {
            let (mut out, mut inn) =
                pair(tunnel, |p| (p.path_mtu, p.algorithm, p.key) = (mtu, algorithm, key(algorithm)));
            let fits = out.inner_mtu();
            let mut buf = buffer(&packet(fits, 64));
            out.seal(&mut buf, number(1)).unwrap();
            let len = buf.bytes().len();
            assert!(len <= usize::from(mtu) && len + algorithm.alignment() > usize::from(mtu), "{}", algorithm.name());
            inn.open(&mut buf, Role::Target).unwrap();
            assert_eq!(buf.bytes(), packet(fits, 64), "{}", algorithm.name());
            let big = packet(fits + 1, 64);
            let mut buf = buffer(&big);
            assert_eq!(out.begin(&mut buf, number(2)).unwrap_err(), DropReason::TooBig);
            assert_eq!(out.admit(&big, Origin::Host), Err(DropReason::TooBig));
            assert_eq!(buf.bytes(), big, "the packet is whole, for the ICMP error that quotes it");
        }
    }
}

#[test]
fn only_a_forwarded_packet_loses_a_hop() {
    for (origin, ttl, left) in
        [(Origin::Host, 64, 64), (Origin::Host, 1, 1), (Origin::Forwarded, 64, 63), (Origin::Forwarded, 2, 1)]
    {
        let (mut out, mut inn) = pair(true, |_| ());
        let mut buf = buffer(&packet(100, ttl));
        let job = out.begin_from(&mut buf, number(1), origin).unwrap();
        seal_burst(&mut [job.op(&out, buf.bytes_mut())]);
        let inner = inn.open(&mut buf, Role::Target).unwrap();
        assert_eq!(inner.header.hop_limit, left, "and opening takes none");
    }
    let (mut out, _) = pair(true, |_| ());
    let mut buf = buffer(&packet(100, 1));
    assert_eq!(out.begin_from(&mut buf, number(1), Origin::Forwarded).unwrap_err(), DropReason::TtlExpired);
    assert_eq!(buf.bytes(), packet(100, 1));
}

#[test]
fn without_64_bit_numbers_an_sa_ends_at_32_bits() {
    let (mut out, _) = pair(true, |_| ());
    assert!(out.begin(&mut buffer(&packet(100, 64)), number(0xffff_ffff)).is_ok());
    let over = out.begin(&mut buffer(&packet(100, 64)), number(1 << 32));
    assert_eq!(over.unwrap_err(), DropReason::SequenceExhausted);
    let (mut out, _) = pair(true, |p| p.esn = true);
    assert!(out.begin(&mut buffer(&packet(100, 64)), number(1 << 32)).is_ok());
}

#[test]
fn the_hard_lifesize_stops_both_ends_and_is_charged_for_what_is_ciphered() {
    // 100 bytes, 2 of padding, 2 of trailer.
    let limit = Lifesize { soft: 104, hard: 300 };
    let (mut out, mut inn) = pair(true, |p| p.lifesize = limit);
    for seq in 1..=2 {
        let mut buf = buffer(&packet(100, 64));
        out.seal(&mut buf, number(seq)).unwrap();
        inn.open(&mut buf, Role::Router).unwrap();
    }
    assert_eq!((out.meter.used(), inn.meter.used()), (208, 208));
    assert_eq!((out.shared().bytes(), inn.shared().packets()), (208, 2));
    assert_eq!(out.admit(&packet(100, 64), Origin::Host), Err(DropReason::HardLifesize));
    assert_eq!(out.begin(&mut buffer(&packet(100, 64)), number(3)).unwrap_err(), DropReason::HardLifesize);
    assert!(out.begin(&mut buffer(&packet(80, 64)), number(4)).is_ok());
}

#[test]
fn a_row_of_packets_is_taken_as_far_as_the_hard_lifesize_reaches_or_not_at_all() {
    let (_, mut inn) = pair(true, |p| p.lifesize = Lifesize { soft: 104, hard: 300 });
    assert!(inn.accept_row(1, 2, 200));
    assert!(!inn.accept_row(3, 2, 101), "101 bytes are not left");
    assert!(!inn.accept_row(2, 2, 50), "2 was taken");
    assert_eq!((inn.meter.used(), inn.window.edge(), inn.shared().packets(), inn.shared().bytes()), (200, 2, 2, 200));
    assert!(inn.accept_row(3, 2, 100));
    assert_eq!((inn.meter.used(), inn.window.edge(), inn.shared().packets(), inn.shared().bytes()), (300, 4, 4, 300));
}

#[test]
fn a_packet_buffer_without_room_is_refused() {
    let (mut out, _) = pair(true, |_| ());
    // 98 bytes need no padding: an outer header of 20, ESP header and IV of 16; trailer of 2, ICV of 16.
    for (front, back, fits) in [(36, 18, true), (35, 18, false), (36, 17, false)] {
        let mut tight = VecBuffer::from_slice(front, &packet(98, 64), back);
        let got = out.begin(&mut tight, number(1)).map(|_| ());
        assert_eq!(got, if fits { Ok(()) } else { Err(DropReason::NoRoom) });
    }
}

#[test]
fn outer_addresses_spi_and_fragments_are_checked_before_any_cipher() {
    let (mut out, inn) = pair(true, |_| ());
    let mut buf = buffer(&packet(100, 64));
    out.seal(&mut buf, number(1)).unwrap();
    let good = buf.bytes().to_vec();
    let ip = IpHeader::parse(&good).unwrap();
    assert!(inn.begin(&good, &ip, 1).is_ok());
    let why = |ip: &IpHeader, bytes: &[u8]| inn.begin(bytes, ip, 1).map(|_| ()).unwrap_err();
    assert_eq!(why(&IpHeader { src: address("10.77.0.11"), ..ip }, &good), DropReason::WrongPeer);
    assert_eq!(why(&IpHeader { dst: address("10.77.0.11"), ..ip }, &good), DropReason::WrongPeer);
    assert_eq!(why(&IpHeader { upper: 51, ..ip }, &good), DropReason::UnsupportedProtocol);
    let part = phalanx_wire::Fragment { offset: 0, more: true, id: 1 };
    assert_eq!(why(&IpHeader { fragment: Some(part), ..ip }, &good), DropReason::Fragment);
    let mut other = good.clone();
    other[23] ^= 1;
    assert_eq!(why(&ip, &other), DropReason::UnknownSpi);
    assert_eq!(why(&IpHeader { total_len: good.len() - 1, ..ip }, &good), DropReason::BadPadding);
    assert_eq!(why(&IpHeader { total_len: 20 + 8 + 8 + 16, ..ip }, &good), DropReason::Runt);
    assert_eq!(why(&IpHeader { total_len: good.len() + 4, ..ip }, &good), DropReason::Runt);
}

#[test]
fn transport_mode_takes_whole_packets_between_its_own_addresses_only() {
    let (mut out, _) = pair(false, |_| ());
    let mut fragment = packet(100, 64);
    phalanx_wire::ipv4::set_fragment(&mut fragment, 0, true).unwrap();
    assert_eq!(out.begin(&mut buffer(&fragment), number(1)).unwrap_err(), DropReason::Fragment);
    let (mut out, _) = pair(false, |p| p.remote = address("10.77.0.11"));
    assert_eq!(out.begin(&mut buffer(&packet(100, 64)), number(1)).unwrap_err(), DropReason::WrongTunnel);
}

#[test]
fn an_inner_packet_that_does_not_fit_its_sa_is_told_from_one_that_does() {
    let (_, inn) = pair(true, |p| p.selectors.local_ports = PortRange::one(80));
    let mut subject =
        Subject { local: address(VIP), remote: address(PEER), protocol: 6, local_port: Some(80), remote_port: Some(5) };
    assert_eq!(inn.fits(&subject), Ok(()));
    subject.local_port = Some(81);
    assert_eq!(inn.fits(&subject), Err(DropReason::WrongTunnel));
}

#[test]
fn a_burst_goes_through_stage_by_stage_and_a_forged_packet_in_it_harms_no_other() {
    let (mut out, mut inn) = pair(true, |p| p.esn = true);
    let plain: Vec<_> = (0..32).map(|i| packet(60 + 7 * i, 64)).collect();
    let mut bufs: Vec<_> = plain.iter().map(|p| buffer(p)).collect();
    let jobs: Vec<_> = bufs.iter_mut().zip(1..).map(|(buf, seq)| out.begin(buf, number(seq)).unwrap()).collect();
    let mut ops: Vec<_> = jobs.into_iter().zip(&mut bufs).map(|(job, buf)| job.op(&out, buf.bytes_mut())).collect();
    seal_burst(&mut ops);
    drop(ops);

    let last = bufs[9].bytes().len() - 1;
    bufs[9].bytes_mut()[last] ^= 1;
    bufs[20] = buffer(bufs[4].bytes());
    let mut jobs = vec![];
    for buf in &bufs {
        let ip = IpHeader::parse(buf.bytes()).unwrap();
        let low = phalanx_wire::EspHeader::parse(ip.upper_of(buf.bytes())).unwrap().seq;
        let seq = inn.window.infer(low).unwrap();
        inn.window.check(seq).unwrap();
        jobs.push(inn.begin(buf.bytes(), &ip, seq).unwrap());
    }
    let mut ops: Vec<_> = jobs.iter().zip(&mut bufs).map(|(job, buf)| job.op(&inn, buf.bytes_mut())).collect();
    open_burst(&mut ops);
    let authentic: Vec<_> = ops.iter().map(|op| op.authentic).collect();
    for (i, job) in jobs.iter().enumerate() {
        match i {
            9 => assert!(!authentic[i]),
            // Both copies passed the check at first; the commit lets one through.
            20 => assert_eq!(inn.accept(job, Role::Target), Err(DropReason::Replay)),
            _ => {
                inn.accept(job, Role::Target).unwrap();
                inn.finish(&mut bufs[i], job).unwrap();
                assert_eq!(bufs[i].bytes(), plain[i]);
            }
        }
    }
    assert_eq!((inn.shared().packets(), inn.shared().replayed()), (30, 1));
}

#[test]
fn an_sa_that_comes_back_keeps_what_it_accepted() {
    let (mut out, mut inn) = pair(true, |_| ());
    let mut buf = buffer(&packet(100, 64));
    out.seal(&mut buf, number(7)).unwrap();
    let wire = buf.bytes().to_vec();
    inn.open(&mut buf, Role::Target).unwrap();
    let mut again = InboundSa::resume(inn.params().clone(), &inn.window.snapshot()).unwrap();
    assert_eq!(again.open(&mut buffer(&wire), Role::Target), Err(DropReason::Replay));
}
