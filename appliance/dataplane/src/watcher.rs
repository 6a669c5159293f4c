//! What an armed core looks for in each frame it receives: who matches gets a mark and from then on leaves notes.

use std::net::IpAddr;

use phalanx_ipsec::Subject;
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Frame, IpHeader, Protected, Spi, link, protocol};

/// Which packets are watched. What an encrypted packet does not show from the outside, whoever reads the notes decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Tells the marks of this watch from those of earlier ones: 0 to 15.
    pub generation: u8,
    /// ESP and AH packets with this SPI.
    pub spi: Option<Spi>,
    /// ESP and AH packets from this address.
    pub peer: Option<IpAddr>,
    /// Packets in clear with this end on our side.
    pub local: Option<End>,
    /// Packets in clear with this end on the other side.
    pub remote: Option<End>,
}

/// An address and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port; none: every port.
    pub port: Option<u16>,
}

impl End {
    /// Whether a packet's end is this one.
    pub fn is(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.address == address && (self.port.is_none() || self.port == port)
    }
}

impl Watch {
    /// The watch that a mark was given by; see [`Watch::generation`].
    pub fn generation_of(mark: u32) -> u8 {
        (mark >> COUNT_BITS) as u8 & 0xf
    }
}

/// A mark is core + 1 (8 bits), generation (4 bits), and a count.
const COUNT_BITS: u32 = 20;

/// A core that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Watch,
    base: u32,
    count: u32,
}

impl Watcher {
    /// `core` is its position.
    pub(crate) fn new(watch: Watch, core: usize) -> Watcher {
        let core = (core as u32).min(254) + 1; // more cores than that share marks
        Watcher { watch, base: core << 24 | u32::from(watch.generation & 0xf) << COUNT_BITS, count: 0 }
    }

    /// The mark of a frame just received; 0 if it is none to watch.
    pub(crate) fn mark(&mut self, from_application: bool, frame: &[u8]) -> u32 {
        if !self.matches(from_application, frame).unwrap_or(false) {
            return 0;
        }
        self.count = (self.count + 1) & ((1 << COUNT_BITS) - 1);
        self.base | self.count
    }

    /// None: it is too short or malformed to tell.
    fn matches(&self, from_application: bool, frame: &[u8]) -> Option<bool> {
        let watch = &self.watch;
        // What cannot be read matches a watch that asks for nothing in particular.
        let anything = *watch == Watch { generation: watch.generation, ..Watch::default() };
        let header = Frame::parse(frame).ok()?;
        if !matches!(header.ethertype, ethertype::IPV4 | ethertype::IPV6 | ethertype::LINK) {
            return Some(false);
        }
        let mut packet = frame.get(ethernet::HEADER_LEN..)?;
        if header.ethertype == ethertype::LINK {
            packet = packet.get(link::LEN..)?; // memif
        }
        let Ok(mut ip) = IpHeader::parse(packet) else { return Some(anything) };
        if ip.upper == protocol::ICMPV6 && matches!(ip.upper_of(packet).first(), Some(133..=137)) {
            return Some(false); // neighbour discovery is as ARP
        }
        if ip.upper == protocol::GRE {
            let Ok((_, inside)) = link::decapsulate(&ip, packet) else { return Some(anything) };
            packet = packet.get(inside..)?;
            ip = IpHeader::parse(packet).ok()?;
        }
        if from_application {
            let subject = Subject::outbound(&ip, packet);
            return Some(self.ends_match(&subject));
        }
        if watch.peer.is_some_and(|peer| peer != ip.src) {
            return Some(false);
        }
        if !matches!(ip.upper, protocol::ESP | protocol::AH) {
            // ESP in UDP shows nothing here that a reader of the notes could not see.
            let is_udp = ip.upper == protocol::UDP;
            return Some(is_udp || (watch.spi.is_none() && self.ends_match(&Subject::inbound(&ip, packet))));
        }
        let spi = Protected::of(&ip, packet).map(|named| named.spi).ok();
        Some(watch.spi.is_none() || watch.spi == spi)
    }

    fn ends_match(&self, subject: &Subject) -> bool {
        let is = |end: Option<End>, address, port| end.is_none_or(|end| end.is(address, port));
        is(self.watch.local, subject.local, subject.local_port)
            && is(self.watch.remote, subject.remote, subject.remote_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::Mac;

    const CLIENT: [u8; 4] = [10, 77, 0, 10];
    const VIP: [u8; 4] = [10, 77, 0, 100];

    /// A frame with an IPv4 packet; its checksum is written by hand.
    fn frame(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; ethernet::HEADER_LEN + 20];
        ethernet::write(&mut frame, Mac([2; 6]), Mac([4; 6]), ethertype::IPV4).unwrap();
        let fields = phalanx_wire::ip::Fields {
            src: src.into(),
            dst: dst.into(),
            protocol,
            payload_len: payload.len(),
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            dont_fragment: false,
            identification: 0,
        };
        phalanx_wire::ip::write_header(&mut frame[ethernet::HEADER_LEN..], &fields).unwrap();
        [&frame[..], payload].concat()
    }

    fn marked(watch: Watch, from_application: bool, frame: &[u8]) -> bool {
        Watcher::new(watch, 0).mark(from_application, frame) != 0
    }

    #[test]
    fn esp_is_watched_by_spi_and_peer_and_the_rest_by_its_ends() {
        let esp = frame(CLIENT, VIP, protocol::ESP, &[&[0, 0, 16, 1, 0, 0, 0, 9][..], &[0; 40]].concat());
        let tcp = frame(VIP, CLIENT, protocol::TCP, &[&[0, 80, 16, 0][..], &[0; 16]].concat());
        let spi = |spi| Watch { spi: Some(Spi(spi)), ..Watch::default() };
        let peer = |peer: [u8; 4]| Watch { peer: Some(peer.into()), ..Watch::default() };
        let local = |port| Watch { local: Some(End { address: VIP.into(), port }), ..Watch::default() };
        assert!(marked(Watch::default(), false, &esp) && marked(Watch::default(), true, &tcp));
        assert!(marked(spi(4097), false, &esp) && !marked(spi(4098), false, &esp));
        assert!(marked(spi(4098), true, &tcp), "which SA it will take nobody knows yet");
        assert!(marked(peer(CLIENT), false, &esp) && !marked(peer(VIP), false, &esp));
        assert!(
            marked(local(None), true, &tcp)
                && marked(local(Some(80)), true, &tcp)
                && !marked(local(Some(81)), true, &tcp)
        );
        assert!(marked(local(Some(81)), false, &esp), "its connection is not known yet");
        assert!(!marked(Watch::default(), false, &phalanx_wire::arp::announcement_frame(Mac([2; 6]), CLIENT.into())));
        assert!(!marked(Watch::default(), false, &esp[..9]));
    }

    #[test]
    fn marks_tell_core_and_watch_apart_and_are_never_0() {
        let esp = frame(CLIENT, VIP, protocol::ESP, &[0; 48]);
        let mut watcher = Watcher::new(Watch { generation: 15, ..Watch::default() }, 3);
        watcher.count = (1 << COUNT_BITS) - 2;
        let marks: Vec<u32> = (0..3).map(|_| watcher.mark(false, &esp)).collect();
        assert_eq!(marks, [0x04ff_ffff, 0x04f0_0000, 0x04f0_0001]);
        assert!(marks.iter().all(|mark| Watch::generation_of(*mark) == 15));
    }
}
