//! A capture of what cores saw, as pcapng: an interface for each port and direction and one for what was dropped, its
//! reason as the packet's comment. <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>
//!
//! All interfaces are Ethernet: libpcap reads no file of several link types. What was dropped after it had lost its
//! Ethernet header gets one of zeros.

use std::borrow::Cow;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgParser, PcapNgWriter};
use pcap_file::{DataLink, PcapError};
use phalanx_dataplane::{Place, Shot};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{IpHeader, LinkHeader};

use crate::config::PortRole;

/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;
/// `epb_flags` §4.3.1.
const INBOUND: u32 = 1;
/// See [`INBOUND`].
const OUTBOUND: u32 = 2;
/// For local experiments: what is no IP packet and no frame, like a packet with a link header in front. IEEE 802 §9.2.3.
const LOCAL_EXPERIMENT: u16 = 0x88b5;

/// Writes a file piece by piece.
pub(crate) struct Writer {
    inner: PcapNgWriter<Vec<u8>>,
    /// The interface of what was dropped.
    dropped: u32,
}

impl Writer {
    /// Begins with the interfaces.
    pub(crate) fn new<'a>(ports: impl Iterator<Item = (&'a str, PortRole)>, snaplen: u32) -> Result<Writer, PcapError> {
        let mut inner = PcapNgWriter::new(Vec::new())?;
        let mut dropped = 0;
        let mut names: Vec<String> = Vec::new();
        for (port, role) in ports {
            let (rx, tx) = if role == PortRole::Application { (" (to seal)", " (opened)") } else { ("", "") };
            names.extend([format!("{port} rx{rx}"), format!("{port} tx{tx}")]);
            dropped += 2;
        }
        names.push("dropped".to_owned());
        for name in names {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            let snaplen = snaplen + ethernet::HEADER_LEN as u32;
            let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
            inner.write_block(&interface.into_block())?;
        }
        Ok(Writer { inner, dropped })
    }

    /// A packet; `at` since 1970.
    pub(crate) fn add(&mut self, shot: &Shot, at: Duration) -> Result<(), PcapError> {
        let (interface, option) = match shot.place {
            Place::Received(port) => (2 * port as u32, EnhancedPacketOption::Flags(INBOUND)),
            Place::Sent(port) => (2 * port as u32 + 1, EnhancedPacketOption::Flags(OUTBOUND)),
            Place::Dropped(reason) => (self.dropped, EnhancedPacketOption::Comment(Cow::Borrowed(reason.name()))),
        };
        let missing = match shot.place {
            Place::Dropped(_) => missing_header(&shot.bytes),
            _ => None,
        };
        let mut data = Cow::Borrowed(&shot.bytes[..]);
        let mut len = shot.len;
        if let Some(ethertype) = missing {
            let mut frame = vec![0; ethernet::HEADER_LEN];
            frame[ethernet::HEADER_LEN - 2..].copy_from_slice(&ethertype.to_be_bytes());
            frame.extend_from_slice(&shot.bytes);
            data = Cow::Owned(frame);
            len += ethernet::HEADER_LEN;
        }
        let packet = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: at,
            original_len: len as u32,
            data,
            options: vec![option],
        };
        self.inner.write_block(&packet.into_block()).map(drop)
    }

    /// So many packets are missing up to now, on whichever interface.
    pub(crate) fn lost(&mut self, lost: u64, at: Duration) -> Result<(), PcapError> {
        let statistics = InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: in_halves(at),
            options: vec![
                InterfaceStatisticsOption::Comment(Cow::Borrowed("of all interfaces together")),
                InterfaceStatisticsOption::IsbIfDrop(lost),
            ],
        };
        self.inner.write_block(&statistics.into_block()).map(drop)
    }

    /// Bytes that wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.inner.get_ref().len()
    }

    /// What was written since the last time.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.inner.get_mut())
    }
}

/// A timestamp: high half first, whatever the file's endianness (§4.6), where the library takes it as one number.
fn in_halves(at: Duration) -> u64 {
    let nanos = at.as_nanos() as u64; // until 2554
    if cfg!(target_endian = "little") { nanos.rotate_left(32) } else { nanos }
}

/// The ethertype of the header that is missing in front; none if the bytes are a frame already.
fn missing_header(bytes: &[u8]) -> Option<u16> {
    let ip = |bytes: &[u8]| match bytes.first().map(|byte| byte >> 4) {
        Some(4) => Some(ethertype::IPV4),
        Some(6) => Some(ethertype::IPV6),
        _ => None,
    };
    // Whole, with a checksum in IPv4: no frame looks like this.
    if IpHeader::parse(bytes).is_ok() {
        return ip(bytes);
    }
    let kind = bytes.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    let inside = bytes.get(ethernet::HEADER_LEN..).unwrap_or_default();
    let is_frame = match kind {
        Some(ethertype::ARP) => true,
        Some(kind @ (ethertype::IPV4 | ethertype::IPV6)) => inside.is_empty() || ip(inside) == Some(kind),
        _ => false,
    };
    match ip(bytes) {
        _ if is_frame => None,
        Some(kind) => Some(kind),
        None if LinkHeader::parse(bytes).is_ok() => Some(LOCAL_EXPERIMENT),
        None => None,
    }
}

/// What a file that arrives in pieces holds so far.
#[derive(Default)]
pub(crate) struct Counter {
    /// The beginning of a block that is not whole.
    rest: Vec<u8>,
    parser: Option<PcapNgParser>,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
}

impl Counter {
    /// Takes a piece; the whole blocks there are now.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Vec<u8>, PcapError> {
        self.rest.extend_from_slice(piece);
        let mut left = &self.rest[..];
        loop {
            let parsed = match &mut self.parser {
                None => PcapNgParser::new(left).map(|(rest, parser)| (rest, Err(parser))),
                Some(parser) => parser.next_block(left).map(|(rest, block)| (rest, Ok(block))),
            };
            match parsed {
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(error),
                Ok((rest, Err(parser))) => {
                    self.parser = Some(parser);
                    left = rest;
                }
                Ok((rest, Ok(block))) => {
                    match block {
                        Block::EnhancedPacket(_) => self.packets += 1,
                        Block::InterfaceStatistics(statistics) => {
                            let lost = |option: &InterfaceStatisticsOption| match option {
                                InterfaceStatisticsOption::IsbIfDrop(lost) => Some(*lost),
                                _ => None,
                            };
                            self.lost = statistics.options.iter().find_map(lost).unwrap_or(self.lost);
                        }
                        _ => {}
                    }
                    left = rest;
                }
            }
        }
        let whole = self.rest.len() - left.len();
        let rest = self.rest.split_off(whole);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Reader;
    use phalanx_wire::{CoreId, DropReason, Mac};
    use std::time::Instant;

    fn shot(place: Place, bytes: &[u8], len: usize) -> Shot {
        Shot { core: CoreId(0), place, at: Instant::now(), len, bytes: bytes.to_vec() }
    }

    fn ip_packet() -> Vec<u8> {
        let mut packet = vec![0; 28];
        let fields = phalanx_wire::ip::Fields {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            protocol: 50,
            payload_len: 8,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            dont_fragment: false,
            identification: 0,
        };
        phalanx_wire::ip::write_header(&mut packet, &fields).unwrap();
        packet
    }

    fn written() -> Vec<u8> {
        let ports = [("net", PortRole::Network), ("app", PortRole::Application)];
        let mut writer = Writer::new(ports.into_iter(), 100).unwrap();
        let frame = [&[2; 12][..], &[8, 0], &ip_packet()].concat();
        let at = Duration::new(1_700_000_000, 123_456_789);
        writer.add(&shot(Place::Received(0), &frame[..20], frame.len()), at).unwrap();
        writer.add(&shot(Place::Sent(1), &frame, frame.len()), at).unwrap();
        writer.add(&shot(Place::Dropped(DropReason::BadIcv), &ip_packet(), 28), at).unwrap();
        writer.lost(7, at).unwrap();
        writer.take()
    }

    #[test]
    fn packets_have_their_interface_time_and_reason() {
        let file = written();
        let mut reader = Reader::new(&file[..]).unwrap();
        let packets: Vec<_> = std::iter::from_fn(|| reader.packet().unwrap()).collect();
        assert_eq!(packets.iter().map(|packet| packet.bytes.len()).collect::<Vec<_>>(), [20, 42, 42]);
        assert!(packets.iter().all(|packet| packet.time == Duration::new(1_700_000_000, 123_456_789)));
        assert_eq!(packets[2].bytes[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45, 0]);
        let text = String::from_utf8_lossy(&file).into_owned();
        for word in ["net rx", "net tx", "app rx (to seal)", "app tx (opened)", "dropped", "bad-icv"] {
            assert_eq!(text.matches(word).count(), 1, "{word}");
        }
    }

    #[test]
    fn a_file_that_comes_in_pieces_is_counted_and_passed_on_in_whole_blocks() {
        let file = written();
        for size in [1, 7, 64, file.len()] {
            let mut counter = Counter::default();
            let pieces: Vec<Vec<u8>> = file.chunks(size).map(|piece| counter.take(piece).unwrap()).collect();
            assert_eq!((pieces.concat(), counter.packets, counter.lost), (file.clone(), 3, 7));
            assert!(pieces.iter().all(|piece| piece.len() % 4 == 0), "blocks are");
        }
    }

    #[test]
    fn what_lost_its_ethernet_header_gets_one() {
        let packet = ip_packet();
        let frame = [&[0x45; 12][..], &[8, 0], &packet].concat();
        assert_eq!((missing_header(&packet), missing_header(&frame)), (Some(ethertype::IPV4), None));
        assert_eq!((missing_header(&packet[..9]), missing_header(&frame[..15])), (Some(ethertype::IPV4), None));
        assert_eq!(missing_header(&[0x60; 13]), Some(ethertype::IPV6));
        let arp = phalanx_wire::arp::announcement_frame(Mac([0x60; 6]), [10, 0, 0, 1].into());
        assert_eq!((missing_header(&arp), missing_header(&[])), (None, None));
    }
}
