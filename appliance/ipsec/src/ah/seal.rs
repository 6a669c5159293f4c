//! Outbound: AH comes into an IP packet.

use phalanx_wire::{AhHeader, Buffer, DropReason, Immutable, IpHeader, ah, ip, protocol};

use super::{Place, icv};
use crate::Origin;
use crate::esp::seal::{SealJob, insertion_point, write_outer};
use crate::sa::OutboundSa;

/// Where everything goes, decided before a byte is touched.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Bytes of the packet that stay in front of AH: 0 in tunnel mode.
    clear: usize,
    /// Bytes of a new header in front of everything: 0 in transport mode.
    outer: usize,
    pub(crate) payload: usize,
    next_header: u8,
    /// Offset of the byte that will say "AH"; transport mode.
    field: usize,
}

impl OutboundSa {
    pub(crate) fn layout_ah(&self, packet: &[u8], ip: &IpHeader, origin: Origin) -> Result<Layout, DropReason> {
        let hot = &self.hot;
        let layout = if hot.tunnel {
            if origin == Origin::Forwarded && ip.hop_limit <= 1 {
                return Err(DropReason::TtlExpired);
            }
            let next_header = if ip.version == 4 { protocol::IPV4 } else { protocol::IPV6 };
            Layout { clear: 0, outer: ip::header_len(hot.local), payload: ip.total_len, next_header, field: 0 }
        } else {
            // RFC 4302 §3.3.4: whole packets only.
            if ip.fragment.is_some() {
                return Err(DropReason::Fragment);
            }
            if ip.src != hot.local || ip.dst != hot.remote {
                return Err(DropReason::WrongTunnel);
            }
            // RFC 4302 §3.1.1 puts it where RFC 4303 puts ESP.
            let (clear, field, next_header) = insertion_point(packet, ip);
            if clear > ip::header_len(hot.local) {
                // What cannot be read is found out before a number is spent.
                Immutable::of(&IpHeader { upper_offset: clear, ..*ip }, packet)?;
            }
            Layout { clear, outer: 0, payload: ip.total_len - clear, next_header, field }
        };
        let total_len = layout.outer + layout.clear + hot.shape.front() + layout.payload;
        let most = if origin == Origin::Sealed || self.may_be_cut(ip) {
            usize::from(u16::MAX)
        } else {
            usize::from(hot.path_mtu)
        };
        if total_len > most { Err(DropReason::TooBig) } else { Ok(layout) }
    }

    /// [`OutboundSa::begin_from`] of AH, which is all of sealing.
    ///
    /// 1. Decide the layout; 2. charge the lifesize; 3. make room; 4. the header in front; 5. AH; 6. the ICV over all.
    pub(crate) fn begin_ah<B: Buffer>(&mut self, buf: &mut B, seq: u64, origin: Origin) -> Result<SealJob, DropReason> {
        let inner = IpHeader::parse(buf.bytes())?;
        // 1
        let layout = self.layout_ah(buf.bytes(), &inner, origin)?;
        // 2
        self.meter.charge(layout.payload as u64)?;
        // 3
        let len = self.hot.shape.front();
        buf.cut_back(buf.bytes().len() - inner.total_len);
        buf.grow_front(layout.outer + len)?;
        let bytes = buf.bytes_mut();
        let total_len = bytes.len();
        // 4
        if layout.outer > 0 {
            write_outer(&self.hot, &mut bytes[..layout.outer], &inner, (protocol::AH, total_len), seq)?;
            if origin == Origin::Forwarded {
                ip::decrement_ttl(&mut bytes[layout.outer + len..])?;
            }
        } else {
            bytes.copy_within(len..len + layout.clear, 0);
            ip::set_upper(bytes, layout.field, protocol::AH)?;
            ip::set_total_len(bytes, total_len)?;
        }
        // 5
        let at = layout.outer + layout.clear;
        let header = AhHeader { next_header: layout.next_header, header_len: len, spi: self.hot.spi, seq: seq as u32 };
        header.write(&mut bytes[at..])?;
        // 6
        self.write_icv(bytes, at + ah::FIXED_LEN, seq)?;
        self.shared.count(1, layout.payload as u64);
        self.shared.saw_sent(seq);
        Ok(SealJob::done(seq, layout.payload))
    }

    /// With GMAC behind its IV, which is the whole number, as ESP's is (I1).
    fn write_icv(&self, bytes: &mut [u8], at: usize, seq: u64) -> Result<(), DropReason> {
        let (iv, iv_len) = (seq.to_be_bytes(), self.key().algorithm().iv_len());
        let ip = IpHeader::parse(bytes)?;
        let place = Place { packet: bytes, ip: &ip, header_len: self.hot.shape.front() };
        let icv = icv(&self.hot, self.key(), seq, iv, place)?;
        bytes[at..at + iv_len].copy_from_slice(&iv[..iv_len]);
        bytes[at + iv_len..at + iv_len + icv.bytes().len()].copy_from_slice(icv.bytes());
        Ok(())
    }
}
