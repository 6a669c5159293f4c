//! AH against an oracle that restates RFC 4302, RFC 4868 and RFC 4543 for plain headers; options are `phalanx-wire`'s tests'.
#![cfg(not(loom))]

mod plain;

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use phalanx_ipsec::*;
use phalanx_wire::{Buffer, DropReason, IpHeader, SaId, Spi, VecBuffer, VipId, ip, ipv6};
use proptest::prelude::*;
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::net::IpAddr;

use plain::number;

const KEY: [u8; 64] = [0x5c; 64];
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::AhHmacSha256,
    Algorithm::AhHmacSha384,
    Algorithm::AhHmacSha512,
    Algorithm::AhGmac128,
    Algorithm::AhGmac256,
];

#[derive(Clone, Copy, Debug)]
struct Case {
    v6: bool,
    inner_v6: bool,
    tunnel: bool,
    esn: bool,
    algorithm: Algorithm,
    seq: u64,
    len: usize,
}

fn address(v6: bool, host: u8) -> IpAddr {
    if v6 { [0xfd77, 0, 0, 0, 0, 0, 0, host.into()].into() } else { [10, 77, 0, host].into() }
}

fn key_of(algorithm: Algorithm) -> SecretKey {
    // What GMAC has behind its key is the salt.
    let bytes = [&KEY[..algorithm.key_len()], &[1, 2, 3, 4][..algorithm.salt_len()]].concat();
    SecretKey::new(algorithm, &bytes).unwrap()
}

/// The sender's half and the receiver's.
fn pair(case: Case, change: impl Fn(&mut SaParams)) -> (OutboundSa, InboundSa) {
    let [out, inn] = [(Direction::Outbound, 1, 2), (Direction::Inbound, 2, 1)].map(|(direction, local, remote)| {
        let (local, remote) = (address(case.v6, local), address(case.v6, remote));
        let any = if case.tunnel && case.inner_v6 || !case.tunnel && case.v6 { Prefix::ANY_V6 } else { Prefix::ANY_V4 };
        let mut params = SaParams {
            algorithm: case.algorithm,
            key: key_of(case.algorithm),
            esn: case.esn,
            selectors: Selectors::between(any, any),
            path_mtu: 9000,
            ..plain::params(direction, case.tunnel, local, remote)
        };
        change(&mut params);
        params
    });
    (OutboundSa::new(out).unwrap(), InboundSa::new(inn).unwrap())
}

/// An inner packet of UDP's number with `len` bytes behind its header.
fn packet(v6: bool, len: usize) -> Vec<u8> {
    let header = if v6 { 40 } else { 20 };
    let mut bytes: Vec<u8> = (0..header + len).map(|n| n as u8).collect();
    let fields = ip::Fields {
        src: address(v6, 1),
        dst: address(v6, 2),
        protocol: 17,
        payload_len: len,
        hop_limit: 64,
        traffic_class: 0x28,
        flow_label: 0x12345,
        dont_fragment: true,
        identification: 0x4321,
    };
    ip::write_header(&mut bytes, &fields).unwrap();
    bytes
}

fn sealed(out: &mut OutboundSa, inner: &[u8], seq: u64) -> Vec<u8> {
    let mut buf = VecBuffer::from_slice(MAX_FRONT, inner, MAX_BACK);
    out.seal(&mut buf, number(seq)).unwrap();
    buf.bytes().to_vec()
}

fn opened(inn: &mut InboundSa, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut buf = VecBuffer::from_slice(0, bytes, 0);
    inn.open(&mut buf, Role::Target)?;
    Ok(buf.bytes().to_vec())
}

/// RFC 2104 §2.
fn hmac<D: Digest>(block: usize, key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |with: u8| (0..block).map(|n| key.get(n).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = D::new().chain_update(pad(0x36)).chain_update(text).finalize();
    D::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// The field of the ICV that a packet should have: `header` bytes of IP in front, a field of `field` bytes.
fn oracle(case: Case, packet: &[u8], header: usize) -> Vec<u8> {
    let mut text = packet.to_vec();
    if case.v6 {
        text[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        text[7] = 0;
    } else {
        text[1] = 0;
        text[6..9].fill(0);
        text[10..12].fill(0);
    }
    let field = match case.algorithm {
        Algorithm::AhHmacSha256 => 16,
        Algorithm::AhHmacSha384 | Algorithm::AhGmac128 | Algorithm::AhGmac256 => 24,
        _ => 32,
    };
    text[header + 12..header + 12 + field].fill(0);
    if case.esn {
        text.extend(((case.seq >> 32) as u32).to_be_bytes());
    }
    let iv = case.seq.to_be_bytes();
    let nonce: [u8; 12] = [&[1, 2, 3, 4][..], &iv].concat().try_into().unwrap();
    let nonce = nonce.into();
    let gmac = |tag: Vec<u8>| [&iv[..], &tag].concat();
    match case.algorithm {
        Algorithm::AhHmacSha256 => hmac::<Sha256>(64, &KEY[..32], &text)[..16].to_vec(),
        Algorithm::AhHmacSha384 => hmac::<Sha384>(128, &KEY[..48], &text)[..24].to_vec(),
        Algorithm::AhHmacSha512 => hmac::<Sha512>(128, &KEY, &text)[..32].to_vec(),
        Algorithm::AhGmac128 => {
            let key = Aes128Gcm::new_from_slice(&KEY[..16]).unwrap();
            gmac(key.encrypt_inout_detached(&nonce, &text, (&mut [][..]).into()).unwrap().to_vec())
        }
        _ => {
            let key = Aes256Gcm::new_from_slice(&KEY[..32]).unwrap();
            gmac(key.encrypt_inout_detached(&nonce, &text, (&mut [][..]).into()).unwrap().to_vec())
        }
    }
}

fn mend(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (flags, prop::sample::select(ALGORITHMS.to_vec()), any::<u64>(), 8usize..1400).prop_map(
        |((v6, inner_v6, tunnel, esn), algorithm, seq, len)| {
            // What a window of a new SA takes without a hint.
            let seq = 1 + seq % 0x7fff_0000;
            Case { v6, inner_v6, tunnel, esn, algorithm, seq, len }
        },
    )
}

proptest! {
    #[test]
    fn what_is_sealed_is_as_the_rfcs_say_and_opens_to_what_it_was(case in cases()) {
        let (mut out, mut inn) = pair(case, |_| ());
        let inner = packet(if case.tunnel { case.inner_v6 } else { case.v6 }, case.len);
        let bytes = sealed(&mut out, &inner, case.seq);
        let (header, align) = if case.v6 { (40, 8) } else { (20, 4) };
        let icv = oracle(case, &bytes, header);
        let ah = (12 + icv.len()).next_multiple_of(align);
        // RFC 4302 §2: next header, length, reserved, SPI, number, ICV, padding of zeros.
        let next = match (case.tunnel, case.inner_v6) { (false, _) => 17, (true, false) => 4, (true, true) => 41 };
        let mut expected = vec![next, (ah / 4 - 2) as u8, 0, 0, 0, 0, 0x12, 0x34];
        expected.extend((case.seq as u32).to_be_bytes());
        expected.extend(&icv);
        expected.resize(ah, 0);
        prop_assert_eq!(&bytes[header..header + ah], &expected[..]);
        let ip = IpHeader::parse(&bytes).unwrap();
        prop_assert_eq!((ip.upper, ip.total_len), (51, bytes.len()));
        let behind = if case.tunnel { &inner[..] } else { &inner[header..] };
        prop_assert_eq!(&bytes[header + ah..], behind);

        let mut peeked = Peeked::empty();
        let shown = inn.show(&bytes, &ip, &mut peeked).unwrap();
        prop_assert_eq!(shown, IpHeader::parse(&inner).unwrap());
        prop_assert_eq!(peeked.bytes(), &inner[..inner.len().min(MAX_PEEK)]);
        prop_assert_eq!(opened(&mut inn, &bytes), Ok(inner));
        prop_assert_eq!(opened(&mut inn, &bytes), Err(DropReason::Replay));
    }

    #[test]
    fn what_routers_change_is_no_matter_and_any_other_bit_is(case in cases(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut out, mut inn) = pair(case, |_| ());
        let inner = packet(if case.tunnel { case.inner_v6 } else { case.v6 }, case.len);
        let good = sealed(&mut out, &inner, case.seq);
        let at = at.index(good.len());
        let mut bad = good.clone();
        bad[at] ^= 1 << bit;
        let mutable = if case.v6 { (at == 0 && bit < 4) || matches!(at, 1..=3 | 7) } else { matches!(at, 1 | 8 | 10 | 11) };
        mend(&mut bad);
        let result = opened(&mut inn, &bad);
        // IPv4's flag for more fragments and an offset make it a fragment, which is refused as one; the other two flags are no matter.
        let no_matter = mutable || !case.v6 && at == 6 && bit > 5;
        // RFC 6040 §4.2: there are ECN fields that ask for the packet's end.
        let by_ecn = result == Err(DropReason::BadInner) && mutable;
        prop_assert!(result.is_ok() == no_matter || by_ecn, "{:?}", result);
        if result.is_err() && !mutable {
            prop_assert_eq!(opened(&mut inn, &good), Ok(inner));
        }
    }
}

const PLAIN: Case =
    Case { v6: false, inner_v6: false, tunnel: true, esn: false, algorithm: Algorithm::AhHmacSha256, seq: 7, len: 100 };

#[test]
fn the_high_half_of_a_number_is_checked_though_it_is_not_sent() {
    let case = Case { esn: true, seq: 3, ..PLAIN };
    let (mut out, mut inn) = pair(case, |_| ());
    let wrong = sealed(&mut out, &packet(false, 100), (1 << 32) + 3);
    assert_eq!(wrong[28..32], [0, 0, 0, 3]);
    assert_eq!(opened(&mut inn, &wrong), Err(DropReason::BadIcv));
    assert!(opened(&mut inn, &sealed(&mut out, &packet(false, 100), 3)).is_ok());
    let (mut out, _) = pair(PLAIN, |_| ());
    let mut buf = VecBuffer::from_slice(MAX_FRONT, &packet(false, 100), MAX_BACK);
    assert_eq!(out.begin(&mut buf, number(1 << 32)).err(), Some(DropReason::SequenceExhausted));
}

#[test]
fn padding_as_linux_has_it_over_ipv4_is_taken_and_any_other_length_is_not() {
    for (ah, taken) in [(28, true), (32, true), (36, false), (24, false)] {
        let (mut out, mut inn) = pair(PLAIN, |_| ());
        let ours = sealed(&mut out, &packet(false, 100), 7);
        let mut theirs = [&ours[..48], &[0; 8], &ours[48..]].concat();
        theirs.drain(48..48 + 36 - ah);
        theirs[21] = (ah / 4 - 2) as u8;
        ip::set_total_len(&mut theirs, 20 + ah + 120).unwrap();
        if ah >= 28 {
            let icv = oracle(PLAIN, &theirs, 20);
            theirs[32..48].copy_from_slice(&icv);
        }
        let expected = if taken { Ok(packet(false, 100)) } else { Err(DropReason::BadAh) };
        assert_eq!(opened(&mut inn, &theirs), expected, "{ah}");
    }
}

#[test]
fn options_that_cannot_be_read_are_found_out_before_a_number_is_spent() {
    let (out, _) = pair(Case { v6: true, inner_v6: true, tunnel: false, ..PLAIN }, |_| ());
    let mut packet = packet(true, 16);
    packet[6] = 0;
    // An option's type without its length, and padding in its place.
    for (last, admitted) in [(0xf6, Err(DropReason::BadIp)), (0, Ok(()))] {
        packet[40..48].copy_from_slice(&[17, 0, 0, 0, 0, 0, 0, last]);
        assert_eq!(out.admit(&packet, Origin::Host), admitted);
    }
}

#[test]
fn the_inner_mtu_is_the_longest_packet_that_is_not_too_big() {
    for (tunnel, v6) in [(true, false), (false, false), (true, true), (false, true)] {
        for mtu in 1300..1310 {
            let case = Case { tunnel, v6, inner_v6: v6, ..PLAIN };
            let (mut out, _) = pair(case, |p| p.path_mtu = mtu);
            let (fits, header) = (out.inner_mtu(), if v6 { 40 } else { 20 });
            let bytes = sealed(&mut out, &packet(v6, fits - header), 1);
            assert_eq!(bytes.len(), usize::from(mtu));
            let big = packet(v6, fits + 1 - header);
            // No IPv6 host sends less than 1280 bytes, whatever it is told.
            let expected = if v6 && big.len() <= ipv6::MIN_MTU { Ok(()) } else { Err(DropReason::TooBig) };
            assert_eq!(out.admit(&big, Origin::Host), expected);
        }
    }
}

#[test]
fn the_lifesize_counts_what_is_protected() {
    let (mut out, mut inn) = pair(PLAIN, |p| p.lifesize = Lifesize { soft: 100, hard: 250 });
    let first = sealed(&mut out, &packet(false, 100), 1);
    let second = sealed(&mut out, &packet(false, 100), 2);
    assert_eq!(out.admit(&packet(false, 100), Origin::Host), Err(DropReason::HardLifesize));
    assert!(opened(&mut inn, &first).is_ok() && opened(&mut inn, &second).is_ok());
    let (mut again, _) = pair(PLAIN, |_| ());
    assert_eq!(opened(&mut inn, &sealed(&mut again, &packet(false, 100), 3)), Err(DropReason::HardLifesize));
}

#[test]
fn an_sa_of_one_protocol_takes_no_packet_of_the_other_and_both_may_have_one_spi() {
    let esp = |p: &mut SaParams| {
        p.algorithm = Algorithm::Aes128Gcm16;
        p.key = SecretKey::new(Algorithm::Aes128Gcm16, &[7; 20]).unwrap();
        p.id = SaId(2);
    };
    let ((mut out_ah, mut in_ah), (mut out_esp, mut in_esp)) = (pair(PLAIN, |_| ()), pair(PLAIN, esp));
    let (ah, esp) = (sealed(&mut out_ah, &packet(false, 100), 7), sealed(&mut out_esp, &packet(false, 100), 7));
    assert_eq!(opened(&mut in_ah, &esp), Err(DropReason::UnsupportedProtocol));
    assert_eq!(opened(&mut in_esp, &ah), Err(DropReason::UnsupportedProtocol));
    let mut cache = ShadowCache::new(Limits::default());
    let at_ah = cache.add_inbound(Box::new(in_ah)).unwrap();
    let at_esp = cache.add_inbound(Box::new(in_esp)).unwrap();
    let find = |bytes: &[u8]| {
        let named = phalanx_wire::Protected::of(&IpHeader::parse(bytes).unwrap(), bytes).unwrap();
        cache.find(VipId(1), &named)
    };
    assert_eq!((find(&ah), find(&esp)), (Some(at_ah), Some(at_esp)));
    assert_eq!(cache.lookup(VipId(1), Spi(0x1234)), Some(at_esp));
}

#[test]
fn ah_in_udp_is_refused() {
    let (out, _) = pair(PLAIN, |_| ());
    let mut params = SaParams::clone(out.params());
    params.encap = Some(Encap { remote_port: 4500, original: None });
    assert_eq!(params.check(), Err(IpsecError::AhInUdp));
}
