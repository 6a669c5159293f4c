//! ESP against the oracle: every mode, both IP versions outside and inside, every algorithm, with and without 64-bit
//! numbers, in both directions.
#![cfg(not(loom))]

mod oracle;
mod strategy;

use oracle::cipher::Kind;
use phalanx_ipsec::{InboundSa, Lease, Origin, OutboundSa, Peek, Peeked, Role, Subject};
use phalanx_wire::{Buffer, DropReason, IpHeader, VecBuffer};
use proptest::prelude::*;
use strategy::{Case, case, params};

/// A packet in a buffer as an mbuf has it.
fn buffer(bytes: &[u8]) -> VecBuffer {
    VecBuffer::from_slice(128, bytes, 64)
}

fn number(seq: u64) -> phalanx_ipsec::SeqNo {
    Lease::from_wire(seq, 1).take().unwrap()
}

fn outbound(case: &Case) -> OutboundSa {
    OutboundSa::new(params(case, phalanx_ipsec::Direction::Outbound)).unwrap()
}

/// An inbound SA that follows the sender: its window is where the packet's number is inferred right.
fn inbound(case: &Case) -> InboundSa {
    let mut sa = InboundSa::new(params(case, phalanx_ipsec::Direction::Inbound)).unwrap();
    if case.seq > 1 {
        sa.window.commit(case.seq - 1).unwrap();
    }
    sa
}

/// What the peer's ESP packet looks like on the wire.
fn by_oracle(case: &Case) -> Vec<u8> {
    let (next_header, payload) = if case.sa.tunnel {
        (if case.packet.src.is_ipv4() { 4 } else { 41 }, case.packet.bytes())
    } else {
        case.packet.covered()
    };
    let extra = if case.sa.tunnel { &case.tfc[..] } else { &[] };
    let (align, len) = (case.sa.cipher.align, payload.len() + extra.len() + 2);
    let fill = len.next_multiple_of(align) - len;
    let pad = fill + usize::from(case.pad).min((255 - fill) / align) * align;
    let esp = case.sa.esp(&payload, next_header, case.seq, case.iv, pad as u8, extra);
    if case.sa.tunnel { case.outer().around(50, &esp) } else { case.packet.around(50, &esp) }
}

/// RFC 6040 figure 4, spelled out.
fn combined(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner % 4, outer % 4) {
        (0, 3) => return None,
        (0, _) => 0,
        (_, 3) => 3,
        (3, _) => 3,
        (2, 1) => 1,
        (inner, _) => inner,
    };
    Some(inner - inner % 4 + ecn)
}

/// The packet as it should come out of the tunnel.
fn expected(case: &Case) -> Option<Vec<u8>> {
    let mut packet = case.packet.clone();
    if case.sa.tunnel {
        packet.class = combined(packet.class, case.outer_class)?;
    }
    Some(packet.bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_oracle_opens_what_we_seal(case in case()) {
        let mut sa = outbound(&case);
        let plain = case.packet.bytes();
        let mut buf = buffer(&plain);
        prop_assert_eq!(sa.admit(buf.bytes(), Origin::Host), Ok(()));
        sa.seal(&mut buf, number(case.seq)).unwrap();
        let wire = buf.bytes().to_vec();
        prop_assert_eq!(sa.shared().highest_sent(), case.seq);

        if case.sa.tunnel {
            let outer_len = if case.sa.from.is_ipv4() { 20 } else { 40 };
            let (iv, payload, next_header) = case.sa.open(&wire[outer_len..], case.seq).unwrap();
            prop_assert!(iv.len() != 8 || iv == case.seq.to_be_bytes(), "the IV is the whole number");
            prop_assert_eq!(next_header, if case.packet.src.is_ipv4() { 4 } else { 41 });
            prop_assert_eq!(&payload, &plain, "the inner packet is untouched");
            // RFC 4301 §5.1.2.
            let mut outer = case.outer();
            let copied = case.packet.class;
            outer.class = if case.copy_dscp { copied - copied % 4 } else { 0 } + if case.ecn { copied % 4 } else { 0 };
            outer.dont_fragment = case.packet.dont_fragment || case.packet.src.is_ipv6();
            outer.id = if outer.dont_fragment { 0 } else { case.seq as u16 };
            prop_assert_eq!(&wire, &outer.around(50, &wire[outer_len..]));
        } else {
            let (_, covered) = case.packet.covered();
            let front = plain.len() - covered.len();
            let (iv, payload, next_header) = case.sa.open(&wire[front..], case.seq).unwrap();
            prop_assert!(iv.len() != 8 || iv == case.seq.to_be_bytes(), "the IV is the whole number");
            prop_assert_eq!((next_header, payload), case.packet.covered());
            prop_assert_eq!(&wire, &case.packet.around(50, &wire[front..]), "the header is the same but for protocol and length");
        }
        let text_len = sa.shared().bytes() as usize;
        prop_assert_eq!(wire.len() - plain.len(), if case.sa.tunnel { outer_len(&case) } else { 0 } + 8 + case.sa.cipher.iv + case.sa.cipher.icv + text_len - covered_len(&case));
    }

    #[test]
    fn we_open_what_the_oracle_seals(case in case()) {
        let mut sa = inbound(&case);
        let wire = by_oracle(&case);
        // Ethernet pads short frames; what is behind the packet is not of it.
        let mut buf = buffer(&[&wire[..], &[0; 7]].concat());
        match expected(&case) {
            None => {
                prop_assert_eq!(sa.open(&mut buf, Role::Target), Err(DropReason::BadInner));
            }
            Some(plain) => {
                let inner = sa.open(&mut buf, Role::Target).unwrap();
                prop_assert_eq!(buf.bytes(), &plain[..]);
                prop_assert_eq!(inner.header, IpHeader::parse(&plain).unwrap());
                prop_assert_eq!(sa.fits(&Subject::inbound(&inner.header, &plain)), Ok(()));
            }
        }
        prop_assert_eq!(sa.window.edge(), case.seq);
        prop_assert_eq!(sa.verified.edge(), 0, "a target's packet is not in the router's window");
        prop_assert_eq!(sa.shared().packets(), 1);
        let mut again = buffer(&wire);
        prop_assert_eq!(sa.open(&mut again, Role::Target), Err(DropReason::Replay));
        prop_assert_eq!((sa.shared().packets(), sa.shared().replayed()), (1, 1));
    }

    #[test]
    fn a_changed_packet_is_refused_and_changes_nothing(case in case(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut sa = inbound(&case);
        let mut wire = by_oracle(&case);
        let ip = IpHeader::parse(&wire).unwrap();
        let at = ip.upper_offset + at.index(wire.len() - ip.upper_offset);
        wire[at] ^= 1 << bit;
        let edge = sa.window.edge();
        let mut buf = buffer(&wire);
        prop_assert!(sa.open(&mut buf, Role::Target).is_err());
        let left = buf.bytes();
        // Its library wipes what it decrypted; all else stays ciphertext.
        let wiped = case.sa.cipher.kind == Kind::ChaCha && left.ends_with(&[&[0; 4][..], &wire[wire.len() - 16..]].concat());
        prop_assert!(left == wire || wiped, "no plaintext of it is left behind");
        prop_assert_eq!((sa.window.edge(), sa.shared().packets(), sa.meter.used()), (edge, 0, 0));
    }

    #[test]
    fn a_packet_cut_short_is_refused(case in case(), keep in any::<prop::sample::Index>()) {
        let mut sa = inbound(&case);
        let wire = by_oracle(&case);
        let keep = keep.index(wire.len());
        prop_assert!(sa.open(&mut buffer(&wire[..keep]), Role::Target).is_err());
        // And with a header that says so.
        let ip = IpHeader::parse(&wire).unwrap();
        let mut cut = wire[..keep].to_vec();
        if keep >= ip.upper_offset && phalanx_wire::ip::set_total_len(&mut cut, keep).is_ok() {
            prop_assert!(sa.open(&mut buffer(&cut), Role::Target).is_err());
            let ip = IpHeader::parse(&cut).unwrap();
            let _ = sa.peek(&cut, &ip, case.seq, &mut Peeked::empty());
        }
        prop_assert_eq!(sa.shared().packets(), 0);
    }

    #[test]
    fn a_peek_shows_what_opening_would(case in case()) {
        let mut sa = inbound(&case);
        let wire = by_oracle(&case);
        let ip = IpHeader::parse(&wire).unwrap();
        let mut peeked = Peeked::empty();
        let header = sa.peek(&wire, &ip, case.seq, &mut peeked).unwrap();
        prop_assert_eq!(sa.window.edge(), case.seq - 1, "a peek changes nothing");
        let mut buf = buffer(&wire);
        let Ok(inner) = sa.open(&mut buf, Role::Target) else { return Ok(()) };
        let (mut seen, plain) = (peeked.bytes().to_vec(), buf.bytes());
        if case.sa.tunnel && inner.header.traffic_class != header.traffic_class {
            phalanx_wire::ip::set_traffic_class(&mut seen, inner.header.traffic_class).unwrap();
        }
        let common = seen.len().min(plain.len());
        prop_assert_eq!(&seen[..common], &plain[..common]);
        prop_assert_eq!(IpHeader { traffic_class: header.traffic_class, ..inner.header }, header);
        let shown = peeked.upper(&header).len();
        prop_assert!(shown >= 20.min(inner.header.upper_len()), "{} bytes of the upper-layer header are in sight", shown);
    }

    #[test]
    fn packets_that_nobody_sealed_are_refused_without_harm(
        case in case(), mut bytes in prop::collection::vec(any::<u8>(), 0..200), keep_header in any::<bool>(),
    ) {
        if keep_header {
            let wire = by_oracle(&case);
            let front = IpHeader::parse(&wire).unwrap().upper_offset;
            let mut whole = wire[..front].to_vec();
            whole.extend(&case.sa.spi.to_be_bytes());
            whole.extend(&bytes);
            let len = whole.len();
            phalanx_wire::ip::set_total_len(&mut whole, len).unwrap();
            bytes = whole;
        }
        let mut sa = inbound(&case);
        if let Ok(ip) = IpHeader::parse(&bytes) {
            let mut peeked = Peeked::empty();
            let _ = sa.peek(&bytes, &ip, case.seq, &mut peeked);
            if let Ok(job) = sa.peek_job(&bytes, &ip, case.seq) {
                job.ops(sa.key(), &bytes, &mut peeked, |op| phalanx_aead::peek_burst(&mut [op]));
                prop_assert!(!matches!(job.read(&mut peeked), Ok(Peek::More(_))) || bytes.len() > 128);
            }
        }
        prop_assert!(sa.open(&mut buffer(&bytes), Role::Target).is_err());
        prop_assert_eq!(sa.shared().packets(), 0);
        let mut out = outbound(&case);
        if out.seal(&mut buffer(&bytes), number(case.seq)).is_ok() {
            prop_assert_eq!(out.shared().packets(), 1);
        }
    }

    #[test]
    fn a_packet_that_is_genuine_but_no_packet_inside_is_refused_without_harm(case in case(), inside in prop::collection::vec(any::<u8>(), 0..120), next in prop_oneof![Just(4u8), Just(41), Just(59), Just(6), Just(60), any::<u8>()], pad in any::<u8>()) {
        // The peer has the key, and no manners: what decrypts is anything.
        let mut payload = inside;
        let align = case.sa.cipher.align;
        payload.resize(((payload.len() + 4) / align * align).max(align) - 4, 9);
        let mut text = payload.clone();
        text.extend([9, 9, pad, next]);
        let esp = case.sa.esp(&text[..text.len() - 2], next, case.seq, case.iv, 0, &[]);
        let mut sa = inbound(&case);
        let wire = if case.sa.tunnel { case.outer().around(50, &esp) } else { case.packet.around(50, &esp) };
        let ip = IpHeader::parse(&wire).unwrap();
        let _ = sa.peek(&wire, &ip, case.seq, &mut Peeked::empty());
        let mut buf = buffer(&wire);
        if let Ok(inner) = sa.open(&mut buf, Role::Target) {
            prop_assert_eq!(inner.header.total_len, buf.bytes().len());
        }
    }
}

fn outer_len(case: &Case) -> usize {
    if case.sa.from.is_ipv4() { 20 } else { 40 }
}

fn covered_len(case: &Case) -> usize {
    if case.sa.tunnel { case.packet.bytes().len() } else { case.packet.covered().1.len() }
}
