//! Inbound: an ESP packet becomes an IP packet again.

use phalanx_aead::{IV_LEN, NONCE_LEN, OpenOp};
use phalanx_wire::ipv4::Plain;
use phalanx_wire::{Buffer, DropReason, EspHeader, IpHeader, ip, ipv4, natt, protocol};

use super::{TRAILER_LEN, ecn};
use crate::sa::InboundSa;
use crate::{SaShared, Subject};

/// A packet that waits for its cipher.
#[derive(Clone, Copy, Debug)]
pub struct OpenJob {
    /// The whole sequence number it is opened with; true if the ICV is good.
    pub seq: u64,
    /// Offset of the ciphertext; of what follows AH.
    pub(crate) start: u16,
    text_len: u16,
    /// Offset of the byte that says "ESP".
    field: u16,
    outer_class: u8,
    /// Bytes between IP header and ciphertext.
    front: u8,
    /// What the integrity check said, where it is made already: of AH.
    verdict: Option<bool>,
}

const _: () = assert!(size_of::<OpenJob>() <= 24);

impl OpenJob {
    /// Of a packet that was checked already; what is inside is in `text`.
    pub(crate) fn checked(authentic: bool, seq: u64, text: std::ops::Range<usize>, outer: &IpHeader) -> OpenJob {
        OpenJob {
            seq,
            start: text.start as u16,
            text_len: text.len() as u16,
            field: outer.upper_field as u16,
            outer_class: outer.traffic_class,
            front: 0,
            verdict: Some(authentic),
        }
    }

    /// Of a packet over IPv4 without options, whose ciphertext begins there.
    #[inline]
    pub(super) fn plain(seq: u64, start: usize, text_len: u16, outer_class: u8) -> OpenJob {
        let front = (start - ipv4::MIN_LEN) as u8;
        let (start, field) = (start as u16, ipv4::PROTOCOL_FIELD as u16);
        OpenJob { seq, start, text_len, field, outer_class, front, verdict: None }
    }

    /// Whether the packet is authentic, if that is known without an operation: nothing of AH is encrypted.
    #[inline]
    #[must_use]
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// The operation for `open_burst`, over the packet that the SA's `begin` looked at.
    #[inline]
    #[must_use]
    pub fn op<'a>(&self, sa: &'a InboundSa, packet: &'a mut [u8]) -> OpenOp<'a> {
        let (hot, start, seq) = (&sa.hot, usize::from(self.start), self.seq);
        let (lead, rest) = (hot.shape.lead(), hot.shape.rest());
        let nonce = sa.nonce(packet, start, seq);
        let (text, tag) = packet[start - lead..].split_at_mut(lead + usize::from(self.text_len) + rest);
        let tag = tag.first_chunk().expect("begin found room for the ICV");
        OpenOp { key: sa.key(), nonce, aad: super::aad(hot.spi, seq, hot.esn), text, tag, authentic: false }
    }

    /// Offset of the text.
    #[inline]
    #[must_use]
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// The text in the packet: in tunnel mode, once it is opened, the inner packet and its trailer.
    #[inline]
    #[must_use]
    pub fn text<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet[usize::from(self.start)..].get(..usize::from(self.text_len)).unwrap_or_default()
    }

    /// Bytes that the cipher is applied to.
    #[inline]
    #[must_use]
    pub fn text_len(&self) -> usize {
        usize::from(self.text_len)
    }

    /// The traffic class of the packet around it.
    #[inline]
    #[must_use]
    pub fn outer_class(&self) -> u8 {
        self.outer_class
    }

    /// The length of the packet inside of an authentic one, if that is like one of [`InboundSa::inner`], its own is right and so is the padding.
    #[inline(always)]
    #[must_use]
    pub fn inner_len(&self, packet: &[u8]) -> Option<usize> {
        let text = self.text(packet);
        let (payload_len, protocol::IPV4) = check_trailer(text).ok()? else { return None };
        ipv4::plain_len(text).filter(|len| *len <= payload_len)
    }
}

/// A packet that came out of ESP, authentic and well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its IP header; the buffer begins with it and ends where the packet ends.
    pub header: IpHeader,
}

/// Where the parts of an inbound ESP packet are.
#[derive(Clone, Copy)]
pub(super) struct Located {
    pub(super) start: usize,
    pub(super) text_len: usize,
    front: usize,
}

impl InboundSa {
    /// Finds the parts of the packet: stage one of opening. Nothing is decrypted, changed or counted.
    ///
    /// `seq` is the whole number, from [`crate::ReplayWindow::infer`]; the caller checks the window before and commits after.
    /// Of AH the ICV is looked at here: see [`OpenJob::verdict`].
    ///
    /// # Errors
    /// `WrongPeer` if the outer addresses are not the SA's (see [`InboundSa::elsewhere`]), `Fragment`, `UnsupportedProtocol` (not ESP), `UnknownSpi`
    /// (not this SA's), `Runt`, `BadPadding` (the ciphertext does not end where its algorithm has it end); of AH `BadAh` (not of its algorithm's length).
    #[inline]
    pub fn begin(&self, packet: &[u8], ip: &IpHeader, seq: u64) -> Result<OpenJob, DropReason> {
        if self.hot.shape.is_ah() {
            return self.begin_ah(packet, ip, seq);
        }
        let Located { start, text_len, front } = self.locate(packet, ip)?;
        Ok(OpenJob {
            seq,
            start: start as u16,
            text_len: text_len as u16,
            field: ip.upper_field as u16,
            outer_class: ip.traffic_class,
            front: front as u8,
            verdict: None,
        })
    }

    /// Of the packet whose ciphertext begins at `start`: with the IV in front of it, or with the number as IV.
    #[inline(always)]
    pub(super) fn nonce(&self, packet: &[u8], start: usize, seq: u64) -> [u8; NONCE_LEN] {
        let shown = self.hot.shape.shows_nonce().then(|| packet[..start].last_chunk::<IV_LEN>()).flatten();
        super::nonce(self.hot.salt, shown.copied().unwrap_or(seq.to_be_bytes()))
    }

    #[inline(always)]
    pub(super) fn locate(&self, packet: &[u8], ip: &IpHeader) -> Result<Located, DropReason> {
        if ip.fragment.is_some() {
            return Err(DropReason::Fragment);
        }
        if ip.total_len > packet.len() {
            return Err(DropReason::Runt);
        }
        let natt::Carried { esp, offset, .. } = natt::esp_of(ip, packet)?;
        self.elsewhere(packet, ip)?;
        if ip.dst != self.hot.local {
            return Err(DropReason::WrongPeer);
        }
        if EspHeader::parse(esp)?.spi != self.hot.spi {
            return Err(DropReason::UnknownSpi);
        }
        let shape = self.hot.shape;
        let text_len = esp.len().checked_sub(shape.front() + shape.icv()).filter(|n| *n >= TRAILER_LEN);
        let text_len = text_len.ok_or(DropReason::Runt)?;
        // RFC 4303 §2.4; AES-GCM asks for no more (RFC 4106 §3.2), AES-CBC for whole blocks (RFC 3602 §2.4).
        if text_len & (shape.alignment() - 1) != 0 {
            return Err(DropReason::BadPadding);
        }
        // An IP packet is at most 65575 bytes long, an IPv6 one with its header. Offsets must fit 16 bits.
        let start = offset + shape.front();
        if start + text_len > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        Ok(Located { start, text_len, front: start - ip.upper_offset })
    }

    /// The last stage, for a packet whose ICV was good: padding, next header, then the ESP headers come off.
    ///
    /// Tunnel mode: what is left is the inner packet, its ECN field combined with the outer one (RFC 6040), its TTL and
    /// DSCP as they came. Transport mode: the packet with its own header, protocol, length and checksum set.
    ///
    /// # Errors
    /// `BadPadding`; `BadNextHeader`, also for dummy packets (RFC 4303 §2.6), which are genuine and carry nothing;
    /// `BadInner` for a malformed inner packet and for the ECN combination that must be dropped. The buffer's content
    /// is unspecified then.
    #[inline]
    pub fn finish<B: Buffer>(&self, buf: &mut B, job: &OpenJob) -> Result<Inner, DropReason> {
        if self.hot.shape.is_ah() {
            return self.finish_ah(buf, job);
        }
        let start = usize::from(job.start);
        let text = &buf.bytes()[start..start + usize::from(job.text_len)];
        let (payload_len, next_header) = check_trailer(text)?;
        buf.cut_back(buf.bytes().len() - start - payload_len);
        if self.hot.tunnel {
            return decapsulate(buf, job, next_header);
        }
        let mut inner = unwrap(buf, job, next_header)?;
        if self.hot.encap {
            crate::natt::show(&self.params, &self.hot, buf.bytes_mut(), &mut inner.header)?;
        }
        Ok(inner)
    }

    /// The header of the packet inside, if with a length that is right [`InboundSa::finish`] would do nothing but cut off what is in front and
    /// behind: of a plain packet in a plain one.
    #[inline]
    #[must_use]
    pub fn inner(&self, packet: &[u8], job: &OpenJob) -> Option<Plain> {
        let inner = Plain::of(job.text(packet)).filter(|_| self.hot.rare.is_plain())?;
        let class = job.text(packet)[1];
        (ecn::leave(class, job.outer_class) == Some(class)).then_some(inner)
    }

    /// The tunnel check (R12): the inner packet is one that this SA may carry.
    ///
    /// # Errors
    /// `WrongTunnel`.
    #[inline]
    pub fn fits(&self, inner: &Subject) -> Result<(), DropReason> {
        if self.params.selectors.matches(inner) { Ok(()) } else { Err(DropReason::WrongTunnel) }
    }

    /// Counters and windows that other threads read.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> &std::sync::Arc<SaShared> {
        &self.shared
    }
}

/// RFC 4303 §2.4: padding counts 1, 2, 3, ... and a receiver should look. Gives the payload's length and next header.
#[inline(always)]
fn check_trailer(text: &[u8]) -> Result<(usize, u8), DropReason> {
    const SHORT: u64 = 6;
    if let Some(last) = text.last_chunk::<8>() {
        // As nearly always: all in one word.
        let last = u64::from_be_bytes(*last);
        let (pad, next_header) = (last >> 8 & 0xff, last as u8);
        if pad <= SHORT {
            let right = 0x01_02_03_04_05_06 >> (8 * (SHORT - pad));
            let found = last >> (8 * TRAILER_LEN) & !(u64::MAX << (8 * pad));
            let payload_len = text.len() - TRAILER_LEN - pad as usize;
            return if found == right { Ok((payload_len, next_header)) } else { Err(DropReason::BadPadding) };
        }
    }
    check_long_trailer(text)
}

fn check_long_trailer(text: &[u8]) -> Result<(usize, u8), DropReason> {
    let (rest, trailer) = text.split_last_chunk::<TRAILER_LEN>().ok_or(DropReason::BadPadding)?;
    let [pad, next_header] = *trailer;
    let payload_len = rest.len().checked_sub(usize::from(pad)).ok_or(DropReason::BadPadding)?;
    // Ours has at most 15 bytes; a peer may pad up to 255 to hide lengths.
    if !rest[payload_len..].iter().zip(1..=u8::MAX).all(|(byte, n)| *byte == n) {
        return Err(DropReason::BadPadding);
    }
    Ok((payload_len, next_header))
}

/// Tunnel mode: what is inside of `buf` from the job's start on is an IP packet.
#[inline]
pub(crate) fn decapsulate<B: Buffer>(buf: &mut B, job: &OpenJob, next_header: u8) -> Result<Inner, DropReason> {
    let version = match next_header {
        protocol::IPV4 => 4,
        protocol::IPV6 => 6,
        _ => return Err(DropReason::BadNextHeader),
    };
    buf.cut_front(usize::from(job.start));
    let mut header = IpHeader::parse(buf.bytes()).map_err(|_| DropReason::BadInner)?;
    if header.version != version {
        return Err(DropReason::BadInner);
    }
    // Traffic flow confidentiality padding follows the inner packet (RFC 4303 §2.7).
    buf.cut_back(buf.bytes().len() - header.total_len);
    let class = ecn::leave(header.traffic_class, job.outer_class).ok_or(DropReason::BadInner)?;
    if class != header.traffic_class {
        ip::set_traffic_class(buf.bytes_mut(), class)?;
        header.traffic_class = class;
    }
    Ok(Inner { header })
}

fn unwrap<B: Buffer>(buf: &mut B, job: &OpenJob, next_header: u8) -> Result<Inner, DropReason> {
    if next_header == protocol::NO_NEXT {
        return Err(DropReason::BadNextHeader);
    }
    let bytes = buf.bytes_mut();
    let front = usize::from(job.front);
    let total_len = bytes.len() - front;
    ip::set_upper(bytes, usize::from(job.field), next_header).map_err(|_| DropReason::BadInner)?;
    ip::set_total_len(bytes, total_len).map_err(|_| DropReason::BadInner)?;
    bytes.copy_within(..usize::from(job.start) - front, front);
    buf.cut_front(front);
    let header = IpHeader::parse(buf.bytes()).map_err(|_| DropReason::BadInner)?;
    // Only whole packets go into transport mode (RFC 4303 §3.3.4), so none comes out.
    if header.fragment.is_some() { Err(DropReason::BadInner) } else { Ok(Inner { header }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_packet_is_no_longer_than_what_carries_it() {
        let fields = ipv4::Fields {
            src: std::net::Ipv4Addr::new(10, 0, 0, 1),
            dst: std::net::Ipv4Addr::new(10, 0, 0, 2),
            protocol: protocol::TCP,
            total_len: 0,
            ttl: 64,
            tos: 0,
            identification: 7,
            dont_fragment: true,
        };
        for total_len in 20..60 {
            // 36 bytes, 2 of padding, trailer; in front of them 8.
            let mut packet = [0; 48];
            ipv4::write_header(&mut packet[8..], &ipv4::Fields { total_len, ..fields }).unwrap();
            packet[44..].copy_from_slice(&[1, 2, 2, protocol::IPV4]);
            let job = OpenJob { start: 8, ..OpenJob::plain(1, ipv4::MIN_LEN, 40, 0) };
            let len = usize::from(total_len);
            assert_eq!(job.inner_len(&packet), (len <= 36).then_some(len));
        }
    }

    #[test]
    fn padding_is_looked_at_alike_in_one_word_and_byte_by_byte() {
        for (len, pad) in (2usize..40).flat_map(|len| (0..=len - TRAILER_LEN).map(move |pad| (len, pad))) {
            let mut text = vec![0xee; len];
            let padding = len - TRAILER_LEN - pad..len - TRAILER_LEN;
            text[padding.clone()].iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
            (text[len - 2], text[len - 1]) = (pad as u8, protocol::IPV4);
            assert_eq!(check_trailer(&text), Ok((len - TRAILER_LEN - pad, protocol::IPV4)));
            for at in 0..len {
                let mut other = text.clone();
                other[at] ^= 0x10;
                assert_eq!(check_trailer(&other), check_long_trailer(&other));
                assert!(check_trailer(&other).is_err() || !padding.contains(&at));
            }
        }
    }
}
