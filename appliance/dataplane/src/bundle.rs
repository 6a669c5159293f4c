//! AH around ESP on one packet (RFC 4301 §5.2): two SAs of one peer, one after the other, each with a window, numbers and counters of
//! its own. The ESP tunnel's definition names the one that it is within; everything else about a packet is said by the SA of ESP.
//!
//! Whoever opens such a packet takes AH off first, whose ICV covers all of it: a packet that fails there changes nothing of either
//! SA but AH's count of failures. One that fails behind it has used up a number of AH, which its sender gave it.

use phalanx_ipsec::{InboundIndex, InboundSa, OpenJob, Origin, OutboundIndex, PeekJob, Role, SeqNo, ShadowCache};
use phalanx_wire::{Buffer, DropReason, IpHeader, LinkHeader, Protected, VipId};

use crate::clock::Now;
use crate::engine::Engine;
use crate::notes::Fact;
use crate::opening::Opening;
use crate::packet::{Marked, Source};

/// The SA of AH that is around a packet of ESP, and that one's whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Around {
    pub(crate) sa: InboundIndex,
    pub(crate) seq: u64,
}

/// The SAs that a packet names, by numbers that could still be taken; nothing is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    /// That of ESP where there are two: it says whose the packet is.
    pub(crate) sa: InboundIndex,
    pub(crate) seq: u64,
    pub(crate) around: Option<Around>,
}

/// Which number is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Of the only SA, or of the ESP within AH.
    Own,
    /// Of the AH around ESP.
    Around,
}

/// Numbers for one packet.
pub(crate) struct Numbers {
    pub(crate) seq: SeqNo,
    /// And of the AH around it.
    pub(crate) around: Option<(OutboundIndex, SeqNo)>,
}

impl<S: Source> Engine<S> {
    /// The SA of an ESP or AH packet, or of both. `number` says the whole number and whether a window could still take it.
    #[inline]
    pub(crate) fn layers(
        &self,
        vip: VipId,
        (ip, packet): (&IpHeader, &[u8]),
        number: impl Fn(&InboundSa, &Protected, Layer) -> Result<u64, DropReason>,
    ) -> Result<Layers, DropReason> {
        let named = Protected::of(ip, packet)?;
        let (at, sa) = self.named(vip, &named)?;
        if sa.is_within() {
            return Err(DropReason::MissingAh);
        }
        if !sa.is_ah() {
            return Ok(Layers { sa: at, seq: number(sa, &named, Layer::Own)?, around: None });
        }
        self.layers_of_ah(vip, (at, sa, &named), (ip, packet), number)
    }

    #[inline(never)]
    fn layers_of_ah(
        &self,
        vip: VipId,
        (at, sa, named): (InboundIndex, &InboundSa, &Protected),
        (ip, packet): (&IpHeader, &[u8]),
        number: impl Fn(&InboundSa, &Protected, Layer) -> Result<u64, DropReason>,
    ) -> Result<Layers, DropReason> {
        let Some(bundled) = sa.bundled(packet, ip)? else {
            return Ok(Layers { sa: at, seq: number(sa, named, Layer::Own)?, around: None });
        };
        let (esp_at, esp) = self.named(vip, &bundled.esp)?;
        if esp.params().within != Some(sa.params().tunnel) {
            return Err(DropReason::WrongBundle);
        }
        let around = Around { sa: at, seq: number(sa, named, Layer::Around)? };
        Ok(Layers { sa: esp_at, seq: number(esp, &bundled.esp, Layer::Own)?, around: Some(around) })
    }

    #[inline]
    fn named(&self, vip: VipId, named: &Protected) -> Result<(InboundIndex, &InboundSa), DropReason> {
        let at = self.tables.cache.find(vip, named).ok_or(DropReason::UnknownSpi)?;
        Ok((at, self.tables.cache.inbound(at).ok_or(DropReason::UnknownSpi)?))
    }

    /// What the link header says of AH's number.
    #[inline]
    pub(crate) fn around_hint(around: Option<Around>) -> u16 {
        around.map_or(0, |around| (around.seq >> 32) as u16)
    }

    /// The whole number of a packet from a link, if this core's window could still take it.
    #[inline]
    pub(crate) fn linked_number(
        &self,
        (sa, named, layer): (&InboundSa, &Protected, Layer),
        header: &LinkHeader,
        mark: u32,
    ) -> Result<u64, DropReason> {
        let seq = match layer {
            Layer::Own => sa.window.infer_with_hint(named.seq, header.seq_high),
            Layer::Around => sa.window.infer_with_half(named.seq, header.around),
        };
        self.out.notes.note(mark, || Fact::Numbered(sa.id(), named.spi, seq));
        sa.window.check(seq).inspect_err(|_| sa.count_replayed())?;
        Ok(seq)
    }

    /// Takes AH off, if there is one, as the role: 1. ICV; 2. commit, charge; 3. off. What is left is an ordinary packet of ESP.
    pub(crate) fn take_ah_off(
        &mut self,
        opening: &mut Opening<S::Packet>,
        role: Role,
        now: Now,
    ) -> Result<(), DropReason> {
        let Some(around) = opening.around.take() else { return Ok(()) };
        let sa = self.tables.cache.inbound_mut(around.sa).ok_or(DropReason::UnknownSpi)?;
        let job = authentic(sa, opening.packet.bytes(), &opening.ip, around.seq)?;
        sa.accept(&job, role)?;
        if role == Role::Router {
            self.near_ceiling(around.sa, around.seq, now);
        }
        let sa = self.tables.cache.inbound(around.sa).ok_or(DropReason::UnknownSpi)?;
        opening.ip = sa.finish(&mut opening.packet, &job)?.header;
        Ok(())
    }

    /// Begins to open a copy: its AH is checked and comes off.
    pub(crate) fn begin_copy(&mut self, opening: &Opening<S::Packet>, copy: usize) -> Result<OpenJob, DropReason> {
        let esp = self.tables.cache.inbound(opening.sa).ok_or(DropReason::UnknownSpi)?;
        let (packet, copy) = (opening.packet.bytes(), &mut self.router.scratch[copy]);
        let Some(around) = opening.around else {
            let job = esp.begin(packet, &opening.ip, opening.seq)?;
            copy.fill(packet)?;
            return Ok(job);
        };
        let ah = self.tables.cache.inbound(around.sa).ok_or(DropReason::UnknownSpi)?;
        let job = authentic(ah, packet, &opening.ip, around.seq)?;
        copy.fill(packet)?;
        let ip = ah.finish(copy, &job)?.header;
        esp.begin(copy.bytes(), &ip, opening.seq)
    }

    /// Whether this router may accept a packet's numbers itself.
    #[inline]
    pub(crate) fn both_within(&self, opening: &Opening<S::Packet>) -> Result<(), DropReason> {
        if let Some(around) = opening.around {
            self.within(around.sa, around.seq)?;
        }
        self.within(opening.sa, opening.seq)
    }

    /// The SA whose ceiling a packet waits for, and the number that is above it: of two that of AH first.
    pub(crate) fn above(&self, opening: &Opening<S::Packet>) -> (InboundIndex, u64) {
        match opening.around {
            Some(around) if self.within(around.sa, around.seq).is_err() => (around.sa, around.seq),
            _ => (opening.sa, opening.seq),
        }
    }

    /// The router takes the number of AH around an authentic packet that a copy was opened of.
    pub(crate) fn commit_around(&mut self, opening: &Opening<S::Packet>, now: Now) -> Result<(), DropReason> {
        let Some(around) = opening.around else { return Ok(()) };
        let sa = self.tables.cache.inbound_mut(around.sa).ok_or(DropReason::UnknownSpi)?;
        if let Err(reason) = sa.verified.commit(around.seq) {
            sa.count_replayed();
            return Err(reason);
        }
        self.near_ceiling(around.sa, around.seq, now);
        Ok(())
    }

    /// A number of the SA, and where AH goes around its packets one of that SA's. Of those one may come to nothing.
    #[inline]
    pub(crate) fn numbers(&mut self, at: OutboundIndex, now: Now) -> Option<Numbers> {
        let sa = self.tables.cache.outbound_mut(at)?;
        if !sa.is_within() {
            return Some(Numbers { seq: sa.lease.take(now.us())?, around: None });
        }
        let ah = self.tables.cache.around(at)?;
        let around = Some((ah, self.tables.cache.outbound_mut(ah)?.lease.take(now.us())?));
        Some(Numbers { seq: self.tables.cache.outbound_mut(at)?.lease.take(now.us())?, around })
    }

    /// AH goes around a packet that ESP was applied to, and it is sent.
    pub(crate) fn send_around(&mut self, (at, seq): (OutboundIndex, SeqNo), mut packet: S::Packet, now: Now) {
        let number = seq.value();
        let sa = self.tables.cache.outbound_mut(at).ok_or(DropReason::NoSa);
        match sa.and_then(|sa| sa.begin_from(&mut packet, seq, Origin::Sealed)) {
            Ok(_) => {
                self.note_sealed(at, packet.mark(), number);
                self.send_sealed(at, packet, now);
            }
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// Numbers of an SA of AH came: packets of ESP that wait for them go.
    pub(crate) fn release_within(&mut self, ah: OutboundIndex, now: Now) {
        if self.outbound.held.held() == 0 {
            return;
        }
        for at in (0..self.outbound.sas.len() as u32).map(OutboundIndex) {
            if !self.outbound.sas[at.0 as usize].held.is_empty() && self.tables.cache.around(at) == Some(ah) {
                self.release(at, now);
            }
        }
    }
}

/// The peek into a packet of an SA of ESP, within AH or not.
#[inline]
pub(crate) fn peek_job(
    cache: &ShadowCache,
    esp: &InboundSa,
    (packet, ip): (&[u8], &IpHeader),
    Layers { seq, around, .. }: Layers,
) -> Option<PeekJob> {
    let Some(around) = around else { return esp.peek_job(packet, ip, seq).ok() };
    let within = cache.inbound(around.sa)?.bundled(packet, ip).ok()??;
    esp.peek_job_within(packet, ip, &within, seq).ok()
}

/// AH's check, which needs no operation of a burst.
fn authentic(sa: &InboundSa, packet: &[u8], ip: &IpHeader, seq: u64) -> Result<OpenJob, DropReason> {
    let job = sa.begin(packet, ip, seq)?;
    if job.verdict() != Some(true) {
        sa.count_failed();
        return Err(DropReason::BadIcv);
    }
    Ok(job)
}
