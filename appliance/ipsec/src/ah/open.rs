//! Inbound: the integrity of a packet with AH is checked, then AH comes off. What is inside needs no key to be seen (R9).

use phalanx_wire::{AhHeader, Buffer, DropReason, IpHeader, ah, ip, protocol};

use super::{Place, field_len, icv};
use crate::esp::open::{Inner, OpenJob, decapsulate};
use crate::esp::peek::{MAX_PEEK, Peeked};
use crate::sa::InboundSa;

impl InboundSa {
    /// [`InboundSa::begin`] of AH: finds the parts and checks the ICV; [`OpenJob::verdict`] says what came of it.
    pub(crate) fn begin_ah(&self, packet: &[u8], ip: &IpHeader, seq: u64) -> Result<OpenJob, DropReason> {
        let header = self.locate_ah(packet, ip)?;
        let at = ip.upper_offset + ah::FIXED_LEN;
        let (iv_len, field) = (self.key().algorithm().iv_len(), field_len(self.key().algorithm()));
        let (iv, sent) = packet[at..at + field].split_at(iv_len);
        let iv = iv.first_chunk().copied().unwrap_or_default();
        let place = Place { packet, ip, header_len: header.header_len };
        let authentic = icv(&self.hot, self.key(), seq, iv, place)?.fits(sent);
        let start = ip.upper_offset + header.header_len;
        if ip.total_len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        Ok(OpenJob::checked(authentic, seq, start..ip.total_len, ip))
    }

    pub(super) fn locate_ah(&self, packet: &[u8], ip: &IpHeader) -> Result<AhHeader, DropReason> {
        if ip.fragment.is_some() {
            return Err(DropReason::Fragment);
        }
        if ip.total_len > packet.len() {
            return Err(DropReason::Runt);
        }
        if ip.upper != protocol::AH {
            return Err(DropReason::UnsupportedProtocol);
        }
        self.elsewhere(packet, ip)?;
        if ip.dst != self.hot.local {
            return Err(DropReason::WrongPeer);
        }
        let header = AhHeader::parse(ip.upper_of(packet))?;
        if header.spi != self.hot.spi {
            return Err(DropReason::UnknownSpi);
        }
        // RFC 4302 §2.2: what the algorithm asks for, and the padding. Linux pads as for IPv6 over IPv4, too.
        let least = ah::FIXED_LEN + field_len(self.key().algorithm());
        if header.header_len != self.hot.shape.front() && header.header_len != least.next_multiple_of(8) {
            return Err(DropReason::BadAh);
        }
        Ok(header)
    }

    /// [`InboundSa::finish`] of AH.
    pub(crate) fn finish_ah<B: Buffer>(&self, buf: &mut B, job: &OpenJob) -> Result<Inner, DropReason> {
        let (start, end) = (usize::from(job.start), usize::from(job.start) + job.text_len());
        let bytes = buf.bytes_mut();
        // As `begin_ah` found it.
        let outer = IpHeader::parse(bytes)?;
        let AhHeader { next_header, header_len, .. } = AhHeader::parse(outer.upper_of(bytes))?;
        if self.hot.tunnel {
            buf.cut_back(buf.bytes().len().saturating_sub(end));
            return decapsulate(buf, job, next_header);
        }
        if next_header == protocol::NO_NEXT {
            return Err(DropReason::BadNextHeader);
        }
        ip::set_upper(bytes, outer.upper_field, next_header).map_err(|_| DropReason::BadInner)?;
        ip::set_total_len(bytes, end - header_len).map_err(|_| DropReason::BadInner)?;
        bytes.copy_within(..start - header_len, header_len);
        buf.cut_back(buf.bytes().len().saturating_sub(end));
        buf.cut_front(header_len);
        let header = IpHeader::parse(buf.bytes()).map_err(|_| DropReason::BadInner)?;
        if header.fragment.is_some() { Err(DropReason::BadInner) } else { Ok(Inner { header }) }
    }

    /// The beginning of what is inside of a packet with AH, as it will be once that is off: *not authenticated* (I5).
    ///
    /// # Errors
    /// Those of [`InboundSa::begin`]; `UnsupportedProtocol` for headers that leave no room for a peek; `BadInner` for what makes no
    /// packet; of an SA of ESP, `UnsupportedProtocol`.
    pub fn show(&self, packet: &[u8], ip: &IpHeader, into: &mut Peeked) -> Result<IpHeader, DropReason> {
        let AhHeader { next_header, header_len, .. } = self.locate_ah(packet, ip)?;
        let inside = &packet[ip.upper_offset + header_len..ip.total_len];
        if self.hot.tunnel {
            into.fill(&[], inside);
        } else {
            if ip.upper_offset > MAX_PEEK / 2 {
                return Err(DropReason::UnsupportedProtocol);
            }
            into.fill(&packet[..ip.upper_offset], inside);
            let bytes = into.bytes_mut();
            ip::set_upper(bytes, ip.upper_field, next_header).map_err(|_| DropReason::BadInner)?;
            ip::set_total_len(bytes, ip.total_len - header_len).map_err(|_| DropReason::BadInner)?;
        }
        IpHeader::parse_prefix(into.bytes()).map_err(|_| DropReason::BadInner)
    }
}
