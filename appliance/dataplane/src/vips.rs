//! The VIPs a core knows: by address for packets, by number for commands and link headers.

use std::net::IpAddr;

use phalanx_steering::ConnectionTable;
use phalanx_wire::{DropReason, Flow, LinkHeader, TargetId, VipId};

use crate::command::{GreEnd, LinkEnd, TargetEntry, TargetSet, VipEntry};
use crate::fixed_map::FixedMap;

pub(crate) struct Vips {
    slots: Box<[Option<Vip>]>,
    by_address: FixedMap<IpAddr, u16>,
    by_id: FixedMap<VipId, u16>,
}

pub(crate) struct Vip {
    pub(crate) entry: Box<VipEntry>,
    /// From whom link packets are believed.
    pub(crate) router: Option<GreEnd>,
    /// The same, if it is another process of this box: the memif port that leads there and nowhere else.
    pub(crate) router_port: Option<usize>,
    pub(crate) targets: Option<Box<TargetSet>>,
    /// All targets were heard since this router took the VIP.
    pub(crate) settled: bool,
}

impl Vip {
    /// The target's place in the set, and the way there.
    #[inline]
    pub(crate) fn target(&self, id: TargetId) -> Option<(usize, &TargetEntry)> {
        self.targets.as_ref()?.targets.iter().enumerate().find(|(_, target)| target.id == id)
    }

    /// What goes in front of a packet of ESP with that number, on its way to a target.
    #[inline]
    pub(crate) fn link_header(&self, to: LinkEnd, seq: u64) -> LinkHeader {
        let (LinkEnd::Ring(core) | LinkEnd::Gre(_, core) | LinkEnd::Memif(_, core)) = to;
        let (vip, epoch, seq_high) = (self.entry.id, self.entry.epoch, (seq >> 32) as u32);
        LinkHeader { vip, epoch, seq_high, around: 0, core, filtered: false, clear: false }
    }

    /// Whether new connections or flows like this one go to targets.
    #[inline]
    pub(crate) fn distributes(&self, flow: Flow) -> bool {
        self.targets.as_ref().is_some_and(|set| set.distribution.names(flow.protocol, flow.local.port))
    }

    /// The target for a new connection or flow.
    pub(crate) fn choose(&mut self, flow: Flow, table: &ConnectionTable) -> Result<TargetId, DropReason> {
        let set = self.targets.as_mut().ok_or(DropReason::NoTarget)?;
        set.distribution.choose(flow.protocol, flow.local.port, |target| table.connections_of(target))
    }

    /// Replaces the targets; gives back the old set.
    pub(crate) fn set_targets(&mut self, mut set: Box<TargetSet>) -> Option<Box<TargetSet>> {
        if let Some(old) = &self.targets {
            set.distribution.succeed(&old.distribution);
        }
        self.targets.replace(set)
    }
}

impl Vips {
    pub(crate) fn new(limit: usize) -> Vips {
        let slots = (0..limit).map(|_| None).collect();
        Vips { slots, by_address: FixedMap::new(limit), by_id: FixedMap::new(limit) }
    }

    #[inline]
    pub(crate) fn slot_of(&self, address: IpAddr) -> Option<u16> {
        self.by_address.value(&address).copied()
    }

    #[inline]
    pub(crate) fn at(&self, slot: u16) -> Option<&Vip> {
        self.slots[usize::from(slot)].as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u16) -> Option<&mut Vip> {
        self.slots[usize::from(slot)].as_mut()
    }

    #[inline]
    pub(crate) fn by_address(&self, address: IpAddr) -> Option<&Vip> {
        self.at(self.slot_of(address)?)
    }

    #[inline]
    pub(crate) fn by_id(&self, id: VipId) -> Option<&Vip> {
        self.at(*self.by_id.value(&id)?)
    }

    pub(crate) fn by_id_mut(&mut self, id: VipId) -> Option<&mut Vip> {
        let slot = *self.by_id.value(&id)?;
        self.at_mut(slot)
    }

    /// Whether link packets from `remote` to `local` on a port are those of some VIP's router (R14).
    pub(crate) fn is_router(&self, port: usize, local: IpAddr, remote: IpAddr) -> bool {
        let end = GreEnd { port, local, remote };
        self.slots.iter().flatten().any(|vip| vip.router == Some(end))
    }

    /// Adds a VIP whose number and address are new; gives it back when there is no room.
    pub(crate) fn add(&mut self, entry: Box<VipEntry>, settled: bool) -> Result<(), Box<VipEntry>> {
        let taken = self.by_id.value(&entry.id).is_some() || self.by_address.value(&entry.address).is_some();
        let Some(slot) = self.slots.iter().position(Option::is_none).filter(|_| !taken) else {
            return Err(entry);
        };
        // The maps have as many places as there are slots: neither is full.
        let _ = self.by_address.insert(entry.address, slot as u16);
        let _ = self.by_id.insert(entry.id, slot as u16);
        self.slots[slot] = Some(Vip { entry, router: None, router_port: None, targets: None, settled });
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: VipId) -> Option<Vip> {
        let slot = self.by_id.remove(&id)?;
        let vip = self.slots[usize::from(slot)].take()?;
        self.by_address.remove(&vip.entry.address);
        Some(vip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::Epoch;

    fn entry(id: u16, address: &str) -> Box<VipEntry> {
        let address = address.parse().unwrap();
        Box::new(VipEntry {
            id: VipId(id),
            address,
            epoch: Epoch(1),
            router_core: None,
            served: true,
            filter_at_router: false,
        })
    }

    #[test]
    fn a_vip_is_found_by_address_and_number_until_it_is_removed() {
        let mut vips = Vips::new(2);
        vips.add(entry(7, "10.77.0.100"), false).unwrap();
        vips.add(entry(8, "fd77::100"), true).unwrap();
        assert!(vips.add(entry(9, "10.77.0.101"), true).is_err(), "full");
        assert_eq!(vips.by_address("fd77::100".parse().unwrap()).unwrap().entry.id, VipId(8));
        assert_eq!(vips.by_id(VipId(7)).unwrap().entry.address.to_string(), "10.77.0.100");
        assert_eq!(vips.remove(VipId(7)).unwrap().entry.id, VipId(7));
        assert!(vips.by_id(VipId(7)).is_none() && vips.slot_of("10.77.0.100".parse().unwrap()).is_none());
        assert!(vips.add(entry(8, "10.77.0.102"), true).is_err(), "number taken");
        assert!(vips.add(entry(9, "fd77::100"), true).is_err(), "address taken");
    }
}
