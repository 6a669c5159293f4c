//! Inbound at the target: what a router sent over a link.

use phalanx_ipsec::Role;
use phalanx_steering::{Seed, SteeringError, Tracker, TrackerLimits};
use phalanx_wire::{Buffer, DropReason, IpHeader, LinkHeader, link};

use crate::bundle::Layers;
use crate::clock::Now;
use crate::command::GreEnd;
use crate::config::Limits;
use crate::engine::{Batch, Engine};
use crate::opening::Opening;
use crate::packet::{Marked, Parcel, Source};
use crate::vips::Vip;

/// The target role of a core.
pub(crate) struct TargetSide {
    pub(crate) enabled: bool,
    pub(crate) tracker: Tracker,
}

/// A packet that a router forwarded, believed so far.
pub(crate) type Linked<P> = Opening<P>;

impl TargetSide {
    pub(crate) fn new(enabled: bool, limits: &Limits, seed: Seed) -> Result<TargetSide, SteeringError> {
        // The tracker of a core that is no target holds next to nothing.
        let connections = if enabled { limits.tracked } else { 1 };
        let tracker = Tracker::new(TrackerLimits { connections, ..TrackerLimits::default() }, seed)?;
        Ok(TargetSide { enabled, tracker })
    }
}

impl<S: Source> Engine<S> {
    /// A GRE packet to one of the port's addresses: 1. link header; 2. believed only from its VIP's router, on its port
    /// (R14); 3. for this core, or passed on within the process.
    pub(crate) fn take_gre(
        &mut self,
        port: usize,
        mut packet: S::Packet,
        ip: &IpHeader,
        linked: &mut Batch<Linked<S::Packet>>,
    ) {
        let (header, inside) = match link::decapsulate(ip, packet.bytes()) {
            Ok(parts) => parts,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        let from = GreEnd { port, local: ip.dst, remote: ip.src };
        let Some(vip) = self.tables.vips.by_id(header.vip) else {
            return self.out.drop(packet, DropReason::LinkVip);
        };
        if vip.router != Some(from) {
            return self.out.drop(packet, DropReason::LinkForged);
        }
        if header.core != self.id {
            packet.cut_front(inside - LinkHeader::LEN);
            return match self.world.core(header.core) {
                Some(core) => self.out.parcel(core, Parcel::Link, packet),
                None => self.out.drop(packet, DropReason::LinkForged),
            };
        }
        packet.cut_front(inside);
        self.believe(&header, packet, linked);
    }

    /// A link packet from another core of this process.
    pub(crate) fn take_link(&mut self, mut packet: S::Packet, linked: &mut Batch<Linked<S::Packet>>) {
        let header = match LinkHeader::parse(packet.bytes()) {
            Ok(header) => header,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        packet.cut_front(LinkHeader::LEN);
        self.believe(&header, packet, linked);
    }

    #[inline]
    pub(crate) fn believe(&self, header: &LinkHeader, packet: S::Packet, linked: &mut Batch<Linked<S::Packet>>) {
        let vip = match self.linked_vip(header) {
            Ok(vip) => vip,
            Err(reason) => return self.out.drop(packet, reason),
        };
        let ip = match IpHeader::parse(packet.bytes()) {
            Ok(ip) => ip,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        match self.believed(header, vip, (&ip, packet.bytes()), packet.mark()) {
            Ok(Layers { sa, seq, around }) => {
                // Not the packet alone says that its filter was looked up: the VIP's definition does too (R14).
                let filtered = header.filtered && self.tables.filters_at_router(header.vip);
                linked.push(Linked { packet, ip, vip: header.vip, sa, seq, around, filtered });
            }
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// 1. Role, VIP, epoch: only the highest is obeyed (I6).
    #[inline]
    fn linked_vip(&self, header: &LinkHeader) -> Result<&Vip, DropReason> {
        let vip = self.tables.vips.by_id(header.vip).filter(|_| self.target.enabled).ok_or(DropReason::LinkVip)?;
        if header.epoch < vip.entry.epoch { Err(DropReason::LinkEpoch) } else { Ok(vip) }
    }

    /// 2. The packet inside is ESP or AH to that VIP; 3. its SA; 4. its number, by this core's window.
    #[inline]
    fn believed(
        &self,
        header: &LinkHeader,
        vip: &Vip,
        (ip, packet): (&IpHeader, &[u8]),
        mark: u32,
    ) -> Result<Layers, DropReason> {
        // No router here sends packets in clear.
        if header.clear || ip.dst != vip.entry.address {
            return Err(DropReason::LinkForged);
        }
        let number = |sa: &_, named: &_, layer| self.linked_number((sa, named, layer), header, mark);
        self.layers(header.vip, (ip, packet), number).map_err(|reason| match reason {
            DropReason::UnsupportedProtocol => DropReason::LinkForged,
            reason => reason,
        })
    }

    /// Opens what a burst of link packets holds.
    #[inline]
    pub(crate) fn open_linked(&mut self, linked: &mut Batch<Linked<S::Packet>>, now: Now) {
        self.open(linked, Role::Target, now);
    }
}
