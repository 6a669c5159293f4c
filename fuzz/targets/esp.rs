//! The transforms of ESP and AH on arbitrary bytes, without and with a good ICV, and sealing of arbitrary inner packets:
//! no panic, what is sealed opens again, and a peek never shows another connection than opening does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_ipsec::{
    Algorithm, Direction, Encap, InboundSa, Lease, Lifesize, Mode, Origin, Original, OutboundSa, Peeked, Prefix, Role,
    SaParams, SecretKey, Selectors, Subject, TunnelName,
};
use phalanx_wire::{Buffer, DropReason, EspHeader, IpHeader, PeerId, SaId, Spi, VecBuffer, VipId, ip, natt, protocol};
use std::net::IpAddr;

const SPI: Spi = Spi(0xc0de);
const FRONT: usize = phalanx_ipsec::MAX_FRONT;
const BACK: usize = phalanx_ipsec::MAX_BACK;

fuzz_target!(|data: &[u8]| {
    let Some(([shape, algorithm, protocol], rest)) = data.split_first_chunk::<3>() else { return };
    let bed = Bed::new(*shape, Algorithm::ALL[usize::from(*algorithm) % Algorithm::ALL.len()]);
    match shape >> 5 {
        0 => bed.open(rest.to_vec()),
        1 => bed.open(bed.outer(bed.carrier(), rest)),
        2 => bed.open(bed.outer(*protocol, rest)),
        3 | 4 if !bed.algorithm.is_ah() => bed.open_good(*protocol, rest),
        5 => bed.seal(rest),
        _ => bed.seal(&bed.inner(*protocol, rest)),
    }
});

/// Two SAs of one tunnel and key: what one seals the other opens.
struct Bed {
    tunnel: bool,
    esn: bool,
    udp: bool,
    local: IpAddr,
    remote: IpAddr,
    algorithm: Algorithm,
}

impl Bed {
    fn new(shape: u8, algorithm: Algorithm) -> Bed {
        let (local, remote) = if shape & 1 == 0 {
            ([10, 77, 0, 100].into(), [10, 77, 0, 10].into())
        } else {
            ([0xfd; 16].into(), [0xfe; 16].map(|b: u8| b & 0xfc).into())
        };
        // AH has no way through UDP.
        let udp = shape & 16 != 0 && !algorithm.is_ah();
        Bed { tunnel: shape & 4 != 0, esn: shape & 8 != 0, udp, local, remote, algorithm }
    }

    fn carrier(&self) -> u8 {
        if self.algorithm.is_ah() { protocol::AH } else { protocol::ESP }
    }

    fn params(&self, direction: Direction) -> SaParams {
        // What the peer sends is what we receive: for sealing, the ends change sides.
        let (local, remote) = match direction {
            Direction::Inbound => (self.local, self.remote),
            Direction::Outbound => (self.remote, self.local),
        };
        let mode = if self.tunnel { Mode::Tunnel { local, remote } } else { Mode::Transport };
        SaParams {
            id: SaId(1),
            direction,
            vip: VipId(1),
            peer: PeerId(1),
            tunnel: TunnelName::new("fuzz").unwrap(),
            spi: SPI,
            mode,
            local,
            remote,
            algorithm: self.algorithm,
            key: SecretKey::new(self.algorithm, &[7; 96][..self.algorithm.material_len()]).unwrap(),
            esn: self.esn,
            window: 32,
            selectors: Selectors::between(Prefix::host(local), Prefix::host(remote)),
            lifesize: Lifesize::UNLIMITED,
            path_mtu: 9000,
            mss_clamp: phalanx_ipsec::MssClamp::None,
            copy_dscp: true,
            ecn: true,
            encap: self.udp.then_some(Encap {
                remote_port: natt::PORT,
                original: (!self.tunnel).then_some(Original { local, remote }),
            }),
            within: None,
        }
    }

    /// A packet between the SA's outer addresses, inbound; ESP as this SA carries it.
    fn outer(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        if self.udp && protocol == protocol::ESP {
            let mut datagram = vec![0; natt::LEN];
            natt::write_header(&mut datagram, natt::PORT, payload.len().min(60_000)).unwrap();
            datagram.extend(payload);
            return plain(self.remote, self.local, protocol::UDP, &datagram);
        }
        plain(self.remote, self.local, protocol, payload)
    }

    /// A packet that the outbound SA may carry.
    fn inner(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        plain(self.remote, self.local, protocol, payload)
    }

    /// Arbitrary bytes where an ESP packet should be. There are no more than 2^64 numbers, so no forged ICV is expected.
    fn open(&self, packet: Vec<u8>) {
        let mut sa = InboundSa::new(self.params(Direction::Inbound)).unwrap();
        if let Ok(ip) = IpHeader::parse(&packet) {
            let _ = sa.peek(&packet, &ip, 1, &mut Peeked::empty());
        }
        let mut buf = VecBuffer::from_slice(0, &packet, 0);
        if sa.open(&mut buf, Role::Target).is_err() {
            assert_eq!(sa.window.edge(), 0, "a packet that is not authentic moved the window (I5)");
        }
    }

    /// An ESP packet with a good ICV over arbitrary plaintext, trailer included.
    fn open_good(&self, number: u8, text: &[u8]) {
        let mut sa = InboundSa::new(self.params(Direction::Inbound)).unwrap();
        let text = &text[..text.len() / self.algorithm.alignment() * self.algorithm.alignment()];
        let seq = u64::from(number).max(1);
        let packet = self.outer(protocol::ESP, &esp(&sa, self.esn, seq, text));
        let Ok(ip) = IpHeader::parse(&packet) else { return };
        let mut peeked = Peeked::empty();
        let peek = sa.peek(&packet, &ip, seq, &mut peeked);
        let mut buf = VecBuffer::from_slice(0, &packet, 0);
        let opened = sa.open(&mut buf, Role::Target);
        if text.len() >= 4 {
            assert_ne!(opened, Err(DropReason::BadIcv));
            assert_eq!(sa.window.edge(), seq, "an authentic number is taken, whatever it carries");
        }
        let Ok(inner) = opened else { return };
        assert_eq!(IpHeader::parse(buf.bytes()), Ok(inner.header));
        assert_eq!(buf.bytes().len(), inner.header.total_len);
        let _ = sa.fits(&Subject::inbound(&inner.header, buf.bytes()));
        let mut again = VecBuffer::from_slice(0, &packet, 0);
        assert_eq!(sa.open(&mut again, Role::Target), Err(DropReason::Replay));
        if let Ok(header) = peek {
            // The ECN field alone may differ: opening combines it with the outer one.
            let combined = IpHeader { traffic_class: inner.header.traffic_class, ..header };
            assert_eq!(combined, inner.header);
            let at = header.upper_offset.min(peeked.bytes().len());
            assert!(buf.bytes()[at..].starts_with(peeked.upper(&header)));
        }
    }

    /// Whatever can be sealed opens again as it was.
    fn seal(&self, packet: &[u8]) {
        let mut out = OutboundSa::new(self.params(Direction::Outbound)).unwrap();
        let mut sa = InboundSa::new(self.params(Direction::Inbound)).unwrap();
        let admitted = out.admit(packet, Origin::Host);
        let mut buf = VecBuffer::from_slice(FRONT, packet, BACK);
        let seq = Lease::from_wire(5, 1).take().unwrap();
        let sealed = out.seal(&mut buf, seq);
        assert_eq!(sealed, admitted, "no number is spent in vain");
        if sealed.is_err() {
            return;
        }
        let ip = IpHeader::parse(packet).unwrap();
        let outer = IpHeader::parse(buf.bytes()).unwrap();
        let carrier = if self.udp { protocol::UDP } else { self.carrier() };
        assert_eq!((outer.upper, outer.total_len), (carrier, buf.bytes().len()));
        assert_eq!(sa.elsewhere(buf.bytes(), &outer), Ok(None));
        assert!(outer.total_len <= 9000);
        let mut peeked = Peeked::empty();
        if let Ok(header) = sa.peek(buf.bytes(), &outer, 5, &mut peeked) {
            assert_eq!((header.src, header.dst, header.upper), (ip.src, ip.dst, ip.upper));
        }
        let inner = sa.open(&mut buf, Role::Target);
        // Transport mode may not hide a fragment, and who sends "no next header" sends a dummy.
        match inner {
            Ok(_) => assert_eq!(buf.bytes(), &packet[..ip.total_len]),
            Err(reason) => {
                assert!(!self.tunnel && reason == DropReason::BadNextHeader, "sealed, but not opened: {reason}");
            }
        }
    }
}

fn plain(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
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
    let mut packet = vec![0; ip::header_len(src)];
    ip::write_header(&mut packet, &fields).unwrap();
    packet.extend(payload);
    packet
}

/// RFC 4303 spelled out: header, IV, ciphertext, ICV.
fn esp(sa: &InboundSa, esn: bool, seq: u64, text: &[u8]) -> Vec<u8> {
    let algorithm = sa.key().algorithm();
    let mut esp = vec![0; 8 + algorithm.iv_len()];
    EspHeader { spi: SPI, seq: seq as u32 }.write(&mut esp).unwrap();
    // RFC 4106 §3.1; AES-CBC's is written when the packet is sealed.
    if algorithm.iv_len() == 8 {
        esp[8..16].copy_from_slice(&seq.to_be_bytes());
    }
    let start = esp.len() - algorithm.text_front();
    esp.extend(text);
    esp.resize(esp.len() + algorithm.icv_len(), 0);
    let mut aad = SPI.0.to_be_bytes().to_vec();
    if esn {
        aad.extend(seq.to_be_bytes());
    } else {
        aad.extend((seq as u32).to_be_bytes());
    }
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&seq.to_be_bytes());
    let (text, tag) = esp[start..].split_last_chunk_mut::<16>().unwrap();
    let aad = phalanx_aead::Aad::new(&aad);
    phalanx_aead::seal_burst(&mut [phalanx_aead::SealOp { key: sa.key(), nonce, aad, text, tag }]);
    esp
}
