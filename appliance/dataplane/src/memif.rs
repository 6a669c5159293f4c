//! Links to other processes of this box, over memif: a frame to everybody with an EtherType of our own, then the link
//! header and the packet. A port leads to one other process and nowhere else, so there are no addresses to resolve and
//! none to believe: what counts is the port (R14).

use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Buffer, DropReason, IpHeader, LinkHeader, Mac};

use crate::clock::Now;
use crate::config::PortRole;
use crate::engine::{Batch, Engine};
use crate::inbound_target::Linked;
use crate::packet::{Parcel, Source, prepend, trim};

impl<S: Source> Engine<S> {
    /// As the router: puts the link header in front; the core that has the port does the rest.
    pub(crate) fn forward_memif(&mut self, port: usize, mut packet: S::Packet, header: &LinkHeader, now: Now) {
        match put_in_front(&mut packet, header) {
            Ok(()) => self.send(port, packet, now),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// Sends a link header and the packet behind it. What is too large crosses in fragments of the packet, each behind a
    /// link header of its own.
    pub(crate) fn send_memif(&mut self, port: usize, mut packet: S::Packet) {
        let mtu = self.world.ports[port].mtu;
        if packet.bytes().len() <= mtu {
            return self.frame_memif(port, packet);
        }
        let Some(&header) = packet.bytes().first_chunk::<{ LinkHeader::LEN }>() else {
            return self.out.drop(packet, DropReason::Runt);
        };
        packet.cut_front(LinkHeader::LEN);
        self.cut(packet, mtu - LinkHeader::LEN, |engine, mut piece| match prepend(&mut piece, &header) {
            Ok(()) => engine.frame_memif(port, piece),
            Err(reason) => engine.out.drop(piece, reason),
        });
    }

    fn frame_memif(&mut self, port: usize, mut packet: S::Packet) {
        let mut header = [0; ethernet::HEADER_LEN];
        let written = ethernet::write(&mut header, Mac::BROADCAST, self.world.ports[port].mac, ethertype::LINK);
        match written.map_err(DropReason::from).and_then(|()| prepend(&mut packet, &header)) {
            Ok(()) => self.out.frame(port, packet),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// As the target: 1. link header; 2. believed only from the port that leads to its VIP's router (R14); 3. fragments
    /// are put together; 4. for this core, or passed on within the process.
    pub(crate) fn take_memif(
        &mut self,
        port: usize,
        mut packet: S::Packet,
        now: Now,
        linked: &mut Batch<Linked<S::Packet>>,
    ) {
        packet.cut_front(ethernet::HEADER_LEN);
        let header = match LinkHeader::parse(packet.bytes()) {
            Ok(header) => header,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        let Some(vip) = self.tables.vips.by_id(header.vip) else {
            return self.out.drop(packet, DropReason::LinkVip);
        };
        if vip.router_port != Some(port) {
            return self.out.drop(packet, DropReason::LinkForged);
        }
        packet.cut_front(LinkHeader::LEN);
        let ip = match IpHeader::parse(packet.bytes()) {
            Ok(ip) => ip,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        trim(&mut packet, ip.total_len);
        if ip.fragment.is_some() {
            // All have the same link header but for what the router learnt meanwhile: the last one's counts.
            match self.gather(PortRole::Link, packet, &ip, now) {
                Some((whole, _)) => packet = whole,
                None => return,
            }
        }
        if header.core == self.id {
            return self.believe(&header, packet, linked);
        }
        let Some(core) = self.world.core(header.core) else {
            return self.out.drop(packet, DropReason::LinkForged);
        };
        match put_in_front(&mut packet, &header) {
            Ok(()) => self.out.parcel(core, Parcel::Link, packet),
            Err(reason) => self.out.drop(packet, reason),
        }
    }
}

fn put_in_front(packet: &mut impl Buffer, header: &LinkHeader) -> Result<(), DropReason> {
    let mut bytes = [0; LinkHeader::LEN];
    header.write(&mut bytes)?;
    prepend(packet, &bytes)
}
