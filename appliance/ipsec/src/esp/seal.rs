//! Outbound: an IP packet becomes an ESP packet.

use phalanx_aead::{IV_LEN, SealOp};
use phalanx_wire::{Buffer, DropReason, IpHeader, ip, ipv4, ipv6, protocol};
use std::net::IpAddr;

use super::{BLOCK, HEADER_LEN, MAX_PAD, Shape, TRAILER_LEN, ecn};
use crate::sa::{Constants, OutboundSa};
use crate::{Mode, SeqNo, ah, natt};

/// Hop limit of the outer header: "constructed" by RFC 4301 §5.1.2, and IANA's recommended default.
const OUTER_HOP_LIMIT: u8 = 64;

/// Where a packet to be protected comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host: its TTL stays.
    Host,
    /// Another one, whose packet passes through: its TTL is one less afterwards (RFC 4301 §5.1.2, note 5).
    Forwarded,
    /// An SA of ESP, around whose packet AH goes: how long it may be was decided there.
    Sealed,
}

/// A packet laid out and waiting for its cipher. It stands for one use of one nonce, so it is used up by it.
#[derive(Debug)]
pub struct SealJob {
    seq: u64,
    /// Where the text starts, its length, and whether the work is done: 16 bits each. In one number, as parts that are written one by
    /// one and moved together are slow.
    place: u64,
}

impl SealJob {
    /// Of a packet that is sealed already; it has so many bytes.
    pub(crate) fn done(seq: u64, text_len: usize) -> SealJob {
        SealJob::new(seq, 0, text_len, true)
    }

    #[inline(always)]
    fn new(seq: u64, start: usize, text_len: usize, done: bool) -> SealJob {
        SealJob { seq, place: start as u64 & 0xffff | (text_len as u64 & 0xffff) << 16 | u64::from(done) << 32 }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        usize::from(self.place as u16)
    }

    /// There is no operation to do: AH was sealed when it began.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.place >> 32 != 0
    }

    /// The operation for `seal_burst`: of the very SA that began it, over the bytes of the very buffer that it laid out.
    #[inline(always)]
    #[must_use]
    pub fn op<'a>(self, sa: &'a OutboundSa, bytes: &'a mut [u8]) -> SealOp<'a> {
        let (hot, seq) = (&sa.hot, self.seq);
        let (lead, rest) = (hot.shape.lead(), hot.shape.rest());
        let (text, tag) = bytes[self.start() - lead..].split_at_mut(lead + self.text_len() + rest);
        let tag = tag.first_chunk_mut().expect("begin made room for the ICV");
        let nonce = super::nonce(hot.salt, seq.to_be_bytes());
        SealOp { key: sa.key(), nonce, aad: super::aad(hot.spi, seq, hot.esn), text, tag }
    }

    /// Bytes that the cipher is applied to.
    #[inline]
    #[must_use]
    pub fn text_len(&self) -> usize {
        usize::from((self.place >> 16) as u16)
    }
}

/// IPv4, ESP's header and IV.
const PLAIN_FRONT: usize = ipv4::MIN_LEN + HEADER_LEN + IV_LEN;

/// What is in front of sealed packets as most are, but for lengths and numbers.
#[derive(Clone, Copy, Debug)]
pub struct PlainFront {
    bytes: [u8; PLAIN_FRONT],
    outer: ipv4::Template,
    dont_fragment: bool,
}

/// Where everything goes, decided before a byte is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    shape: Shape,
    /// Bytes of the packet that stay in front of ESP: 0 in tunnel mode.
    clear: usize,
    /// Bytes of a new header in front of everything: 0 in transport mode.
    outer: usize,
    /// Bytes of a UDP header in front of ESP.
    encap: usize,
    payload: usize,
    pad: usize,
    next_header: u8,
    /// Offset of the byte that will say "ESP"; transport mode.
    field: usize,
}

impl Layout {
    #[inline]
    fn text_len(&self) -> usize {
        self.payload + self.pad + TRAILER_LEN
    }

    #[inline]
    fn esp_len(&self) -> usize {
        self.shape.front() + self.text_len() + self.shape.icv()
    }

    #[inline]
    fn total_len(&self) -> usize {
        self.outer + self.clear + self.encap + self.esp_len()
    }
}

impl Constants {
    /// See [`OutboundSa::inner_mtu`].
    pub(crate) fn inner_mtu(&self) -> usize {
        if self.shape.is_ah() {
            let outer = if self.tunnel { ip::header_len(self.local) } else { 0 };
            return usize::from(self.path_mtu).saturating_sub(outer + self.shape.front());
        }
        let outer = if self.tunnel { ip::header_len(self.local) } else { 0 };
        let clear = if self.tunnel { 0 } else { ip::header_len(self.local) };
        let around = outer + clear + natt::len(self.encap) + self.shape.front() + self.shape.icv();
        let text = usize::from(self.path_mtu).saturating_sub(around) & !(self.shape.alignment() - 1);
        clear + text.saturating_sub(TRAILER_LEN)
    }
}

impl OutboundSa {
    /// Whether [`OutboundSa::begin`] could take this packet, so that no number is spent on one it could not.
    ///
    /// # Errors
    /// `BadIp`, `TtlExpired`, `TooBig`, `HardLifesize`, `Fragment` (transport mode takes whole packets only),
    /// `WrongTunnel` (transport mode: the packet is not between the SA's addresses).
    #[inline]
    pub fn admit(&self, packet: &[u8], origin: Origin) -> Result<(), DropReason> {
        self.admit_behind(&IpHeader::parse(packet)?, packet, origin)
    }

    /// The same of a packet whose IP header was read already.
    ///
    /// # Errors
    /// Those of [`OutboundSa::admit`].
    #[inline]
    pub fn admit_behind(&self, ip: &IpHeader, packet: &[u8], origin: Origin) -> Result<(), DropReason> {
        let text_len = if self.hot.shape.is_ah() {
            self.layout_ah(packet, ip, origin)?.payload
        } else {
            self.layout(packet, ip, origin)?.text_len()
        };
        if text_len as u64 > self.meter.left() { Err(DropReason::HardLifesize) } else { Ok(()) }
    }

    /// The longest inner packet (tunnel) or packet (transport) that fits the path MTU: what to say in "too big".
    #[must_use]
    pub fn inner_mtu(&self) -> usize {
        self.hot.inner_mtu()
    }

    /// Lays the packet in `buf` out as ESP, in plaintext, for a packet of this host. See [`OutboundSa::begin_from`].
    ///
    /// # Errors
    /// Those of [`OutboundSa::begin_from`].
    #[inline]
    pub fn begin<B: Buffer>(&mut self, buf: &mut B, seq: SeqNo) -> Result<SealJob, DropReason> {
        self.begin_from(buf, seq, Origin::Host)
    }

    /// Lays the packet in `buf` out as ESP, in plaintext: stage one of sealing. Its bytes are counted here.
    ///
    /// 1. Decide the layout; 2. charge the lifesize; 3. make room; 4. write the trailer; 5. ESP header and IV;
    /// 6. the header in front.
    ///
    /// # Errors
    /// Those of [`OutboundSa::admit`], `SequenceExhausted` and `NoRoom`. The packet is as it was, except after `NoRoom`.
    #[inline]
    pub fn begin_from<B: Buffer>(&mut self, buf: &mut B, seq: SeqNo, origin: Origin) -> Result<SealJob, DropReason> {
        let ip = IpHeader::parse(buf.bytes())?;
        self.begin_behind(&ip, buf, seq, origin)
    }

    /// The same of a packet whose IP header was read already.
    ///
    /// # Errors
    /// Those of [`OutboundSa::begin_from`].
    #[inline]
    pub fn begin_behind<B: Buffer>(
        &mut self,
        ip: &IpHeader,
        buf: &mut B,
        seq: SeqNo,
        origin: Origin,
    ) -> Result<SealJob, DropReason> {
        let seq = self.number(seq)?;
        if self.hot.shape.is_ah() {
            return self.begin_ah(buf, seq, origin);
        }
        // 1
        let layout = self.layout(buf.bytes(), ip, origin)?;
        // 2
        self.meter.charge(layout.text_len() as u64)?;
        // 3
        buf.cut_back(buf.bytes().len() - ip.total_len);
        let (shape, front) = (layout.shape, layout.shape.front());
        buf.grow_back(layout.pad + TRAILER_LEN + shape.icv())?;
        buf.grow_front(layout.outer + layout.encap + front)?;
        let bytes = buf.bytes_mut();
        // 4
        let start = layout.outer + layout.clear + layout.encap + front;
        write_trailer(&mut bytes[start + layout.payload..], layout.pad, layout.next_header);
        if layout.clear > 0 {
            let from = layout.encap + front;
            bytes.copy_within(from..from + layout.clear, 0);
        }
        // 5
        self.write_esp_header(&mut bytes[start - front..start], seq);
        // 6
        if layout.encap > 0 {
            let udp = start - front - layout.encap;
            phalanx_wire::natt::write_header(&mut bytes[udp..], self.hot.remote_port, layout.esp_len())?;
        }
        if layout.outer > 0 {
            let carried = (carrier(&layout), layout.total_len());
            write_outer(&self.hot, &mut bytes[..layout.outer], ip, carried, seq)?;
            if origin == Origin::Forwarded {
                ip::decrement_ttl(&mut bytes[start..])?;
            }
        } else {
            ip::set_upper(bytes, layout.field, carrier(&layout))?;
            ip::set_total_len(bytes, layout.total_len())?;
            if layout.encap > 0 {
                ip::set_destination(bytes, self.hot.remote)?;
            }
        }
        Ok(self.laid_out(seq, start, layout.text_len()))
    }

    /// The longest whole packet of IPv4 of this host that [`OutboundSa::admit`] takes through an SA as most are: ESP in tunnel mode over
    /// IPv4, each IV in its packet. `None` of any other SA, and of one that takes none.
    #[inline]
    #[must_use]
    pub fn longest_plain(&self) -> Option<usize> {
        let (hot, shape) = (&self.hot, self.hot.shape);
        let most = usize::from(hot.path_mtu).checked_sub(ipv4::MIN_LEN + shape.front() + shape.icv())?;
        let text_len = most.min(usize::try_from(self.meter.left()).unwrap_or(usize::MAX)) & !(shape.alignment() - 1);
        (hot.rare.is_plain() && !hot.encap).then(|| text_len.checked_sub(TRAILER_LEN)).flatten()
    }

    /// What goes in front of packets of this host that begin with an IPv4 header like this one but for the length, through an SA that has a
    /// [`longest_plain`](OutboundSa::longest_plain).
    #[inline]
    #[must_use]
    pub fn plain_front(&self, inner: &[u8; ipv4::MIN_LEN]) -> Option<PlainFront> {
        let hot = &self.hot;
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (hot.local, hot.remote) else { return None };
        let dont_fragment = ipv4::dont_fragment(inner);
        let fields = ipv4::Fields {
            src,
            dst,
            protocol: protocol::ESP,
            total_len: 0,
            ttl: OUTER_HOP_LIMIT,
            tos: ecn::enter(inner[1], hot.copy_dscp, hot.copy_ecn),
            identification: 0,
            dont_fragment,
        };
        let mut bytes = [0; PLAIN_FRONT];
        let outer = ipv4::Template::write(bytes.first_chunk_mut()?, &fields);
        bytes[ipv4::MIN_LEN..][..4].copy_from_slice(&hot.spi.0.to_be_bytes());
        Some(PlainFront { bytes, outer, dont_fragment })
    }

    /// As [`OutboundSa::begin`], of a packet no longer than [`OutboundSa::longest_plain`], which is all of the buffer, and that
    /// [`OutboundSa::plain_front`] was told of.
    ///
    /// # Errors
    /// `SequenceExhausted`, `HardLifesize` and `NoRoom`.
    #[inline(always)]
    pub fn begin_plain<B: Buffer>(
        &mut self,
        front: &PlainFront,
        buf: &mut B,
        seq: SeqNo,
    ) -> Result<SealJob, DropReason> {
        let (seq, shape, payload) = (self.number(seq)?, self.hot.shape, buf.bytes().len());
        let pad = shape.pad_len(payload);
        let text_len = payload + pad + TRAILER_LEN;
        self.meter.charge(text_len as u64)?;
        buf.grow_back(pad + TRAILER_LEN + shape.icv())?;
        buf.grow_front(PLAIN_FRONT)?;
        let bytes = buf.bytes_mut();
        let total_len = bytes.len() as u16;
        let (out, text) = bytes.split_first_chunk_mut::<PLAIN_FRONT>().ok_or(DropReason::NoRoom)?;
        *out = front.bytes;
        let (header, esp) = out.split_first_chunk_mut().ok_or(DropReason::NoRoom)?;
        front.outer.set(header, total_len, if front.dont_fragment { 0 } else { seq as u16 });
        esp[4..HEADER_LEN].copy_from_slice(&(seq as u32).to_be_bytes());
        esp[HEADER_LEN..].copy_from_slice(&seq.to_be_bytes());
        write_trailer(&mut text[payload..], pad, protocol::IPV4);
        Ok(self.laid_out(seq, PLAIN_FRONT, text_len))
    }

    /// The number, if the SA may use it. RFC 4303 §3.3.3, RFC 4302 §3.3.2: without 64-bit numbers it ends before its counter wraps.
    #[inline]
    fn number(&self, seq: SeqNo) -> Result<u64, DropReason> {
        let seq = seq.value();
        if !self.hot.esn && seq > u64::from(u32::MAX) { Err(DropReason::SequenceExhausted) } else { Ok(seq) }
    }

    /// Counts a packet whose text is in its place.
    #[inline(always)]
    fn laid_out(&self, seq: u64, start: usize, text_len: usize) -> SealJob {
        self.shared.count(1, text_len as u64);
        self.shared.saw_sent(seq);
        SealJob::new(seq, start, text_len, false)
    }

    #[inline]
    fn layout(&self, packet: &[u8], ip: &IpHeader, origin: Origin) -> Result<Layout, DropReason> {
        let hot = &self.hot;
        let (shape, encap) = (hot.shape, natt::len(hot.encap));
        let layout = if hot.tunnel {
            if origin == Origin::Forwarded && ip.hop_limit <= 1 {
                return Err(DropReason::TtlExpired);
            }
            let next_header = if ip.version == 4 { protocol::IPV4 } else { protocol::IPV6 };
            let (outer, payload) = (ip::header_len(hot.local), ip.total_len);
            Layout { shape, clear: 0, outer, encap, payload, pad: shape.pad_len(payload), next_header, field: 0 }
        } else {
            if ip.fragment.is_some() {
                return Err(DropReason::Fragment);
            }
            if ip.src != hot.local || ip.dst != self.params().shown() {
                return Err(DropReason::WrongTunnel);
            }
            let (clear, field, next_header) = insertion_point(packet, ip);
            let payload = ip.total_len - clear;
            Layout { shape, clear, outer: 0, encap, payload, pad: shape.pad_len(payload), next_header, field }
        };
        // Every offset fits 16 bits from here on.
        let most = if self.may_be_cut(ip) { usize::from(u16::MAX) } else { usize::from(hot.path_mtu) };
        if layout.total_len() > most { Err(DropReason::TooBig) } else { Ok(layout) }
    }

    /// Whether the sealed packet may be longer than the path and be fragmented (RFC 4303 §3.3.4), which is the caller's
    /// work: what a host would send so long whatever it is told (RFC 2473 §7.1: 1280 bytes of IPv6), and what may be
    /// fragmented but goes through transport mode, which takes whole packets only.
    #[inline]
    pub(crate) fn may_be_cut(&self, ip: &IpHeader) -> bool {
        if ip.version == 6 { ip.total_len <= ipv6::MIN_MTU } else { !self.hot.tunnel && !ip.dont_fragment }
    }

    /// RFC 4303 §2, RFC 4106 §3.1. The IV is the whole 64-bit number, also where the header shows half of it: under
    /// one key no IV can come twice as long as no number does (I1). That of AES-CBC is made of it when the packet is sealed.
    #[inline(always)]
    fn write_esp_header(&self, out: &mut [u8], seq: u64) {
        let header = u64::from(self.hot.spi.0) << 32 | seq & u64::from(u32::MAX);
        out[..HEADER_LEN].copy_from_slice(&header.to_be_bytes());
        if self.hot.shape.shows_nonce() {
            out[HEADER_LEN..HEADER_LEN + IV_LEN].copy_from_slice(&seq.to_be_bytes());
        }
    }
}

/// Padding 1, 2, 3 .., its length, next header. RFC 4303 §2.4. Behind it in `out` is the ICV's place, of 8 bytes or more.
#[inline(always)]
fn write_trailer(out: &mut [u8], pad: usize, next_header: u8) {
    const PADDING: [u8; MAX_PAD] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    if let (0..4, Some(out)) = (pad, out.first_chunk_mut::<8>()) {
        // As nearly always: in one store.
        let trailer = u64::from(next_header) << 8 | pad as u64;
        let padding = 0x03_02_01 & ((1 << (8 * pad)) - 1);
        *out = (padding | trailer << (8 * pad)).to_le_bytes();
        return;
    }
    out[..pad].copy_from_slice(&PADDING[..pad]);
    out[pad] = pad as u8;
    out[pad + 1] = next_header;
}

/// RFC 4301 §5.1.2. What it carries: its name, and the length of the whole packet.
#[inline]
pub(crate) fn write_outer(
    hot: &Constants,
    out: &mut [u8],
    inner: &IpHeader,
    (protocol, total_len): (u8, usize),
    seq: u64,
) -> Result<(), DropReason> {
    // Inner IPv4 decides whether the outer packet may be fragmented; an IPv6 packet never is on its way.
    let dont_fragment = inner.dont_fragment && total_len <= usize::from(hot.path_mtu);
    let fields = ip::Fields {
        src: hot.local,
        dst: hot.remote,
        protocol,
        payload_len: total_len - out.len(),
        hop_limit: OUTER_HOP_LIMIT,
        traffic_class: ecn::enter(inner.traffic_class, hot.copy_dscp, hot.copy_ecn),
        // RFC 4301 §5.1.2.2 leaves it to us; a copied label would tell flows of the inside apart.
        flow_label: 0,
        dont_fragment,
        // RFC 6864: any value where nobody may fragment; else one that does not come back soon, as the number does not.
        identification: if dont_fragment { 0 } else { seq as u16 },
    };
    ip::write_header(out, &fields)?;
    Ok(())
}

/// What the IP header names.
#[inline]
fn carrier(layout: &Layout) -> u8 {
    if layout.encap > 0 { protocol::UDP } else { protocol::ESP }
}

/// Where ESP and AH go in transport mode (RFC 4303 §3.1.1): behind hop-by-hop options, a routing header and the destination
/// options in front of one; before destination options for the last stop. Gives the offset, the offset of the byte
/// that names what is there, and that name.
pub(crate) fn insertion_point(packet: &[u8], ip: &IpHeader) -> (usize, usize, u8) {
    if ip.version == 4 {
        return (ip.upper_offset, ip.upper_field, ip.upper);
    }
    const FIRST: (usize, usize) = (40, 6);
    let ((mut at, mut field), mut point) = (FIRST, FIRST);
    // `IpHeader::parse` walked the same headers and found them whole.
    while at < ip.upper_offset {
        let this = packet[field];
        // The fragment header has no length field. One of a whole packet (RFC 6946) stays in front like the others.
        let len = if this == protocol::FRAGMENT { 8 } else { (usize::from(packet[at + 1]) + 1) * 8 };
        (field, at) = (at, at + len);
        if matches!(this, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT) {
            point = (at, field);
        }
    }
    (point.0, point.1, packet[point.1])
}

/// The mode's flag for the hot constants.
pub(crate) const fn is_tunnel(mode: &Mode) -> bool {
    matches!(mode, Mode::Tunnel { .. })
}

/// Room that a buffer needs in front for packets between such addresses, of whatever algorithm.
#[must_use]
pub const fn front_room(local: IpAddr) -> usize {
    let esp = phalanx_wire::natt::LEN + HEADER_LEN + BLOCK;
    ip::header_len(local) + if esp > ah::MAX_LEN { esp } else { ah::MAX_LEN }
}
