//! Captures: pcap or pcapng in, pcap out, Ethernet or raw IP.

use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::ENHANCED_PACKET_BLOCK;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

/// Largest packet that is written.
const SNAPLEN: u32 = 262_144;
/// The first bytes of a pcapng file: a section header block.
const NG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Why a capture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It ends or goes wrong after so many packets.
    #[error("packet {0}: {1}")]
    Packet(u64, String),
    /// It does not begin as a capture does.
    #[error("this is no pcap or pcapng file: {0}")]
    Header(String),
    /// Neither Ethernet nor raw IP.
    #[error("link type {0} is not understood: only Ethernet (1) and raw IP (101, 12, 228, 229) are")]
    Link(u32),
}

/// What a packet of a capture begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// An IP header; the number is the file's link type.
    Raw(u32),
}

impl Link {
    fn new(number: u32) -> Result<Link, CaptureError> {
        match number {
            1 => Ok(Link::Ethernet),
            // LINKTYPE_RAW; what BSDs call DLT_RAW; LINKTYPE_IPV4, LINKTYPE_IPV6.
            101 | 12 | 14 | 228 | 229 => Ok(Link::Raw(number)),
            other => Err(CaptureError::Link(other)),
        }
    }

    fn number(self) -> u32 {
        match self {
            Link::Ethernet => 1,
            // What is opened may be of the other version than what it came in.
            Link::Raw(228 | 229) => 101,
            Link::Raw(number) => number,
        }
    }
}

/// One packet of a capture.
#[derive(Debug)]
pub struct Packet {
    /// Since 1970.
    pub time: Duration,
    /// What it begins with.
    pub link: Link,
    /// What was captured of it.
    pub bytes: Vec<u8>,
}

/// Reads a capture packet by packet.
pub struct Reader<R: Read> {
    inner: Inner<std::io::Chain<Cursor<Vec<u8>>, R>>,
    read: u64,
}

enum Inner<R: Read> {
    Pcap(PcapReader<R>, Link),
    Ng(Box<PcapNgReader<R>>),
}

impl<R: Read> Reader<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// No capture, or one of a link that is not understood.
    pub fn new(mut from: R) -> Result<Reader<R>, CaptureError> {
        let mut magic = Vec::new();
        from.by_ref().take(4).read_to_end(&mut magic)?;
        let ng = magic == NG_MAGIC;
        let whole = Cursor::new(magic).chain(from);
        let header = |error: PcapError| CaptureError::Header(in_words(&error));
        let inner = if ng {
            Inner::Ng(Box::new(PcapNgReader::new(whole).map_err(header)?))
        } else {
            let reader = PcapReader::new(whole).map_err(header)?;
            let link = Link::new(reader.header().datalink.into())?;
            Inner::Pcap(reader, link)
        };
        Ok(Reader { inner, read: 0 })
    }

    /// The link type of the whole file, where it has one.
    pub fn link(&self) -> Option<Link> {
        match &self.inner {
            Inner::Pcap(_, link) => Some(*link),
            Inner::Ng(_) => None,
        }
    }

    /// The next packet; none at the end.
    ///
    /// # Errors
    /// The file is damaged or cut off, or an interface has a link that is not understood.
    pub fn packet(&mut self) -> Result<Option<Packet>, CaptureError> {
        let packet = match &mut self.inner {
            Inner::Pcap(reader, link) => next_of_pcap(reader, *link),
            Inner::Ng(reader) => next_of_ng(reader),
        };
        let packet = packet.map_err(|why| CaptureError::Packet(self.read + 1, why))?;
        self.read += u64::from(packet.is_some());
        Ok(packet)
    }
}

fn next_of_pcap<R: Read>(reader: &mut PcapReader<R>, link: Link) -> Result<Option<Packet>, String> {
    let nano = reader.header().ts_resolution == TsResolution::NanoSecond;
    let Some(raw) = reader.next_raw_packet() else { return Ok(None) };
    let RawPcapPacket { ts_sec, ts_frac, data, .. } = raw.map_err(|error| in_words(&error))?;
    let nanos = u64::from(ts_frac) * if nano { 1 } else { 1000 };
    let time = Duration::from_secs(u64::from(ts_sec)) + Duration::from_nanos(nanos);
    Ok(Some(Packet { time, link, bytes: data.into_owned() }))
}

/// The next enhanced packet block; other blocks hold no packets that anybody writes today.
fn next_of_ng<R: Read>(reader: &mut PcapNgReader<R>) -> Result<Option<Packet>, String> {
    loop {
        let block = match reader.next_raw_block() {
            None => return Ok(None),
            Some(block) => block.map_err(|error| in_words(&error))?,
        };
        if block.type_ != ENHANCED_PACKET_BLOCK {
            continue;
        }
        let body = block.body.into_owned();
        let little = reader.section().endianness == Endianness::Little;
        let word = |at: usize| -> Option<u32> {
            let bytes = *body.get(at..)?.first_chunk::<4>()?;
            Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
        };
        let cut = || "the block is too short".to_owned();
        let (interface, high, low) = (word(0).ok_or_else(cut)?, word(4).ok_or_else(cut)?, word(8).ok_or_else(cut)?);
        let len = word(12).ok_or_else(cut)? as usize;
        let bytes = body.get(20..).and_then(|data| data.get(..len)).ok_or_else(cut)?.to_vec();
        let interface = reader.interfaces().get(interface as usize).ok_or("it names an interface that is not there")?;
        let resolution = interface.options.iter().find_map(|option| match option {
            InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
            _ => None,
        });
        let link = Link::new(interface.linktype.into()).map_err(|error| error.to_string())?;
        let time = time_of(u64::from(high) << 32 | u64::from(low), resolution.unwrap_or(6));
        return Ok(Some(Packet { time, link, bytes }));
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 where the highest bit is set.
fn time_of(ticks: u64, resolution: u8) -> Duration {
    let power = u32::from(resolution & 0x7f);
    let per_second = if resolution & 0x80 == 0 { 10u128.checked_pow(power) } else { 1u128.checked_shl(power) };
    let per_second = per_second.filter(|n| *n > 0).unwrap_or(u128::MAX);
    let seconds = (u128::from(ticks) / per_second) as u64; // not above `ticks`
    let rest = u128::from(ticks) % per_second;
    let nanos = rest.checked_mul(1_000_000_000).map_or(0, |rest| rest / per_second);
    Duration::new(seconds, nanos as u32) // below a second
}

/// Writes packets of one link type.
pub struct Writer {
    inner: PcapWriter<BufWriter<File>>,
    link: Link,
    written: u64,
}

impl Writer {
    /// Begins the file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(path: &Path, link: Link) -> Result<Writer, CaptureError> {
        let header = PcapHeader {
            datalink: DataLink::from(link.number()),
            snaplen: SNAPLEN,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let inner = PcapWriter::with_header(BufWriter::new(File::create(path)?), header).map_err(written)?;
        Ok(Writer { inner, link, written: 0 })
    }

    /// Adds an Ethernet frame, without its header if the file has raw IP; the packet's number in the file, from 1.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, time: Duration, frame: &[u8]) -> Result<u64, CaptureError> {
        let bytes = match self.link {
            Link::Ethernet => frame,
            Link::Raw(_) => frame.get(phalanx_wire::ethernet::HEADER_LEN..).unwrap_or(&[]),
        };
        let raw = RawPcapPacket {
            ts_sec: time.as_secs() as u32, // the format ends in 2106
            ts_frac: time.subsec_nanos(),
            incl_len: bytes.len() as u32,
            orig_len: bytes.len() as u32,
            data: bytes.into(),
        };
        self.inner.write_raw_packet(&raw).map_err(written)?;
        self.written += 1;
        Ok(self.written)
    }

    /// Everything is in the file.
    ///
    /// # Errors
    /// It is not.
    pub fn finish(self) -> Result<(), CaptureError> {
        Ok(self.inner.into_writer().flush()?)
    }
}

fn written(error: PcapError) -> CaptureError {
    match error {
        PcapError::IoError(error) => CaptureError::Io(error),
        other => CaptureError::Header(in_words(&other)),
    }
}

fn in_words(error: &PcapError) -> String {
    match error {
        PcapError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends in the middle of it".into()
        }
        PcapError::IoError(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_in_its_link_type() {
        let folder = tempfile::tempdir().unwrap();
        let frame = [&[2; 12][..], &[8, 0], b"an IP packet"].concat();
        for (link, bytes) in
            [(Link::Ethernet, &frame[..]), (Link::Raw(101), b"an IP packet"), (Link::Raw(12), &frame[14..])]
        {
            let path = folder.path().join("a.pcap");
            let mut writer = Writer::new(&path, link).unwrap();
            assert_eq!(writer.add(Duration::new(7, 8), &frame).unwrap(), 1);
            writer.finish().unwrap();
            let mut reader = Reader::new(File::open(&path).unwrap()).unwrap();
            assert_eq!(reader.link(), Some(link));
            let packet = reader.packet().unwrap().unwrap();
            assert_eq!((packet.time, packet.link, &packet.bytes[..]), (Duration::new(7, 8), link, bytes));
            assert!(reader.packet().unwrap().is_none());
            let whole = std::fs::read(&path).unwrap();
            let mut cut = Reader::new(&whole[..whole.len() - 1]).unwrap();
            assert!(cut.packet().unwrap_err().to_string().starts_with("packet 1: the file ends"));
        }
    }

    #[test]
    fn what_is_no_capture_is_refused_with_a_reason() {
        for bad in [&b""[..], b"x", b"no capture at all, but some text", &NG_MAGIC] {
            assert!(matches!(Reader::new(bad), Err(CaptureError::Header(_))));
        }
        let mut wlan = Vec::new();
        let header = PcapHeader { datalink: DataLink::from(105), ..PcapHeader::default() };
        PcapWriter::with_header(&mut wlan, header).unwrap();
        assert!(matches!(Reader::new(&wlan[..]), Err(CaptureError::Link(105))));
    }

    #[test]
    fn a_pcapng_timestamp_has_the_resolution_its_interface_says() {
        assert_eq!(time_of(1_500_000, 6), Duration::from_millis(1500));
        assert_eq!(time_of(1_500_000_000, 9), Duration::from_millis(1500));
        assert_eq!(time_of(3, 0x81), Duration::from_millis(1500));
        assert_eq!(time_of(9, 0), Duration::from_secs(9));
        let _ = (time_of(u64::MAX, 0x7f), time_of(u64::MAX, 0xff), time_of(u64::MAX, 0));
    }
}
