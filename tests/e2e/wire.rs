//! What the tests see on a wire: captures read back, frames taken apart. Written from the RFCs, not with the appliance's parsers: these
//! are the eyes that judge it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// A MAC address.
pub type Mac = [u8; 6];

/// A classic pcap file in this machine's byte order, as tcpdump writes it. It may be read while it grows: after a `None` the next call
/// goes on where the file ended.
pub struct Capture {
    file: BufReader<File>,
    offset: u64,
}

impl Capture {
    /// Opens a capture file.
    pub fn open(path: &Path) -> Capture {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut header = [0u8; 24];
        file.read_exact(&mut header).expect("a pcap header");
        assert_eq!(header[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "{}: not a pcap file", path.display());
        Capture { file, offset: 24 }
    }

    /// Record header: seconds, microseconds, captured length, length on the wire.
    fn record(&mut self) -> Option<Vec<u8>> {
        let mut record = [0u8; 16];
        self.file.read_exact(&mut record).ok()?;
        let captured = u32::from_ne_bytes(record[8..12].try_into().expect("4 bytes"));
        let mut bytes = vec![0; captured as usize];
        self.file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl Iterator for Capture {
    type Item = Vec<u8>;

    /// The next whole frame, from its Ethernet header.
    fn next(&mut self) -> Option<Vec<u8>> {
        let read = self.record();
        match &read {
            Some(bytes) => self.offset += 16 + bytes.len() as u64,
            // tcpdump had not finished writing this one.
            None => drop(self.file.seek(SeekFrom::Start(self.offset)).expect("a file can be sought")),
        }
        read
    }
}

/// What a frame is, as far as these tests ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// ARP: who sends it, who is asked for or told.
    Arp { sender: Ipv4Addr, target: Ipv4Addr, reply: bool },
    /// Neighbour solicitation or advertisement: the source of the packet and the address it is about.
    Nd { source: Ipv6Addr, about: Ipv6Addr, advertisement: bool },
    /// ESP (RFC 4303).
    Esp { source: IpAddr, destination: IpAddr, spi: u32, sequence: u32 },
    /// AH (RFC 4302).
    Ah { spi: u32, sequence: u32 },
    /// Any other IP packet.
    Clear { source: IpAddr, destination: IpAddr, protocol: u8 },
    /// Nothing of the above.
    Other { ethertype: u16 },
}

/// A frame's sender and content.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Source MAC address.
    pub from: Mac,
    /// Its content.
    pub what: What,
}

impl Frame {
    /// Takes a frame apart; a frame too short for its headers is `Other`.
    pub fn parse(bytes: &[u8]) -> Frame {
        let mac = |i: usize| -> Mac { bytes.get(i..i + 6).and_then(|b| b.try_into().ok()).unwrap_or_default() };
        let ethertype = be16(bytes, 12).unwrap_or(0);
        let payload = bytes.get(14..).unwrap_or_default();
        let what = match ethertype {
            0x0806 => arp(payload),
            0x0800 => ipv4(payload),
            0x86dd => ipv6(payload),
            _ => None,
        };
        Frame { from: mac(6), what: what.unwrap_or(What::Other { ethertype }) }
    }

    /// SPI and low half of the sequence number, if it is ESP.
    pub fn esp(&self) -> Option<(u32, u32)> {
        match self.what {
            What::Esp { spi, sequence, .. } => Some((spi, sequence)),
            _ => None,
        }
    }
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn v4(b: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(be32(b, at)?))
}

fn v6(b: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = b.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets))
}

/// RFC 826 for Ethernet and IPv4.
fn arp(b: &[u8]) -> Option<What> {
    Some(What::Arp { sender: v4(b, 14)?, target: v4(b, 24)?, reply: be16(b, 6)? == 2 })
}

fn ipv4(b: &[u8]) -> Option<What> {
    let header = usize::from(b.first()? & 15) * 4;
    let (source, destination) = (v4(b, 12)?.into(), v4(b, 16)?.into());
    // Only a first fragment has an upper-layer header to look at.
    let first = be16(b, 6)? & 0x1fff == 0;
    upper(b.get(9).copied()?, if first { b.get(header..)? } else { &[] }, source, destination)
}

fn ipv6(b: &[u8]) -> Option<What> {
    let (source, destination) = (v6(b, 8)?, v6(b, 24)?);
    let payload = b.get(40..)?;
    let next = b.get(6).copied()?;
    // RFC 4861 §4.3, §4.4.
    if next == 58 && matches!(payload.first(), Some(135 | 136)) {
        return Some(What::Nd { source, about: v6(payload, 8)?, advertisement: payload[0] == 136 });
    }
    upper(next, payload, source.into(), destination.into())
}

fn upper(protocol: u8, payload: &[u8], source: IpAddr, destination: IpAddr) -> Option<What> {
    match protocol {
        50 if payload.len() >= 8 => {
            Some(What::Esp { source, destination, spi: be32(payload, 0)?, sequence: be32(payload, 4)? })
        }
        51 if payload.len() >= 12 => Some(What::Ah { spi: be32(payload, 4)?, sequence: be32(payload, 8)? }),
        _ => Some(What::Clear { source, destination, protocol }),
    }
}

/// Where ESP's header starts in a frame without IPv6 extension headers.
pub fn esp_offset(frame: &[u8]) -> usize {
    match be16(frame, 12) {
        Some(0x0800) => 14 + usize::from(frame[14] & 15) * 4,
        _ => 14 + 40,
    }
}

/// RFC 1071.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The attacker's own MAC address.
pub const ATTACKER: Mac = [0x02, 0x70, 0x77, 0x00, 0x01, 0x66];

/// A captured frame with the attacker's MAC address as its source.
pub fn readdress(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&ATTACKER);
    frame
}

/// Makes length and checksum of an IPv4 frame's header fit what is there.
pub fn fix_ipv4(frame: &mut [u8]) {
    let length = u16::try_from(frame.len() - 14).expect("a short frame");
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[24..26].fill(0);
    let header = 14 + usize::from(frame[14] & 15) * 4;
    let sum = internet_checksum(&frame[14..header]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An Ethernet frame from the attacker with an IPv4 packet.
pub fn ipv4_frame(to: Mac, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(34 + payload.len());
    frame.extend(to);
    frame.extend(ATTACKER);
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(payload);
    fix_ipv4(&mut frame);
    frame
}

/// A SYN to the VIP that no IPsec protects.
pub fn clear_syn(to: Mac, port: u16) -> Vec<u8> {
    let (source, vip) = (Ipv4Addr::new(10, 77, 0, 66), Ipv4Addr::new(10, 77, 0, 100));
    let mut tcp = [0u8; 20];
    tcp[..2].copy_from_slice(&40_000u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    // RFC 9293 §3.1: the pseudo header is part of the sum.
    let pseudo: Vec<u8> = [&source.octets()[..], &vip.octets(), &[0, 6, 0, 20], &tcp].concat();
    tcp[16..18].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());
    ipv4_frame(to, source, vip, 6, &tcp)
}

/// A link packet as a router would send it to a target, with what is false in it.
pub struct ForgedLink {
    /// The target's port that gets it.
    pub to: Mac,
    /// Who it claims to be from: .1 is the router.
    pub source: u8,
    /// The target's link address.
    pub target: u8,
    /// Version of the link header; 1 is spoken.
    pub version: u8,
    /// VIP; 4 is the one of IPv4.
    pub vip: u16,
    /// Epoch of its owner; epochs count from 1.
    pub epoch: u64,
}

impl ForgedLink {
    /// The frame, saying "already filtered, already opened".
    pub fn frame(&self, inner: &[u8]) -> Vec<u8> {
        let mut gre = vec![0, 0, 0x88, 0xb5, self.version, 3];
        gre.extend(self.vip.to_be_bytes());
        gre.extend(self.epoch.to_be_bytes());
        // No high half of a sequence number, core 0.
        gre.extend([0; 8]);
        gre.extend(inner);
        let link = |last| Ipv4Addr::new(10, 78, 0, last);
        ipv4_frame(self.to, link(self.source), link(self.target), 47, &gre)
    }
}

/// How the sequence numbers of one SA stood in a capture.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Packets.
    pub packets: u64,
    /// Numbers seen more than once, at most the first few.
    pub repeated: Vec<u64>,
    /// The largest distance a packet was behind the highest number before it.
    pub latest: u64,
    /// The highest number.
    pub highest: u64,
    seen: Vec<u64>,
}

impl Sequence {
    /// Counts one packet; the high half of its number is the one nearest to the highest so far (64-bit numbers, RFC 4303 appendix A).
    pub fn add(&mut self, low: u32) {
        let base = self.highest & !0xffff_ffff | u64::from(low);
        let number = [base.wrapping_sub(1 << 32), base, base.wrapping_add(1 << 32)]
            .into_iter()
            .min_by_key(|n| n.abs_diff(self.highest))
            .expect("three of them");
        self.packets += 1;
        let word = usize::try_from(number / 64).expect("a capture's numbers fit");
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.seen[word] & bit != 0 && self.repeated.len() < 8 {
            self.repeated.push(number);
        }
        self.seen[word] |= bit;
        self.latest = self.latest.max(self.highest.saturating_sub(number));
        self.highest = self.highest.max(number);
    }
}

impl Sequence {
    /// I1, as far as a capture can tell.
    pub fn assert_unique(&self) {
        let none: &[u64] = &[];
        assert_eq!(self.repeated, none, "sequence numbers were used twice");
    }
}

/// The sequence numbers of every SPI in a capture.
pub fn sequences(path: &Path) -> HashMap<u32, Sequence> {
    let mut all: HashMap<u32, Sequence> = HashMap::new();
    for frame in Capture::open(path) {
        if let Some((spi, sequence)) = Frame::parse(&frame).esp() {
            all.entry(spi).or_default().add(sequence);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_number_and_a_late_packet_are_noticed() {
        let mut s = Sequence::default();
        for n in [1, 2, 5, 3, 4, 3] {
            s.add(n);
        }
        assert_eq!((s.packets, s.latest, s.highest), (6, 2, 5));
        assert_eq!(s.repeated, [3]);
    }

    #[test]
    fn an_esp_frame_is_told_from_a_clear_one() {
        let mut frame = [0u8; 14 + 20 + 8];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = 50;
        frame[34..42].copy_from_slice(&[0, 0, 0x10, 1, 0, 0, 0, 7]);
        assert_eq!(Frame::parse(&frame).esp(), Some((0x1001, 7)));
        frame[14 + 9] = 6;
        assert!(matches!(Frame::parse(&frame).what, What::Clear { protocol: 6, .. }));
    }
}
