//! One core's state, and what it does with a burst by where it came from. No driver in here: packets come as arrays
//! and go to an [`Outbox`], so that all of it runs in a test.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Buffer, CoreId, DropReason, IpHeader, Mac, protocol};

use crate::ahead::{Begins, SasAhead};
use crate::bucket::Bucket;
use crate::clock::Now;
use crate::config::{CoreConfig, PortRole};
use crate::fragments::Fragments;
use crate::ike::IkeSide;
use crate::inbound_router::{Arrived, RouterSide};
use crate::inbound_target::{Linked, TargetSide};
use crate::inner_fragments::InnerFragments;
use crate::laps::Step;
use crate::mail::Mail;
use crate::neighbour::Neighbours;
use crate::new_connections::NewConnections;
use crate::outbound::OutboundSide;
use crate::outbox::Outbox;
use crate::packet::{BURST, Parcel, Source, trim};
use crate::peers::Movers;
use crate::station::{Station, addressed_to};
use crate::stats::Stage;
use crate::tables::Tables;
use crate::wanted::Wanted;
use crate::watcher::Watcher;
use crate::world::World;

pub(crate) struct Engine<S: Source> {
    /// Position in [`World::cores`].
    pub(crate) me: usize,
    pub(crate) id: CoreId,
    pub(crate) world: Arc<World>,
    pub(crate) tables: Tables,
    pub(crate) router: RouterSide<S::Packet>,
    pub(crate) target: TargetSide,
    pub(crate) outbound: OutboundSide<S::Packet>,
    pub(crate) fragments: Fragments<S::Packet>,
    pub(crate) inner: InnerFragments,
    pub(crate) ike: IkeSide,
    pub(crate) wanted: Wanted<S::Packet>,
    pub(crate) new: NewConnections<S::Packet>,
    /// By port index: this core's network and link ports.
    pub(crate) stations: Box<[Option<Station<S::Packet>>]>,
    /// The port that inner packets are delivered by.
    pub(crate) application: Option<usize>,
    pub(crate) out: Outbox<S::Packet>,
    pub(crate) mail: Mail,
    pub(crate) source: S,
    /// Somebody watches packets.
    pub(crate) watcher: Option<Watcher>,
    /// Peers whose move was told of.
    pub(crate) movers: Movers,
    /// Log entries that may still be made.
    pub(crate) gate: Bucket,
    /// The millisecond of the last round of timers.
    pub(crate) tended_ms: u64,
    /// No packet takes a fast path.
    #[cfg(test)]
    pub(crate) ordinary: bool,
}

/// Packets on their way from one stage to the next. It lies where it was made: stages drain it by reference, for to hand it over is to
/// copy all its places, the empty ones too.
pub(crate) type Batch<T> = ArrayVec<T, BURST>;

impl<S: Source> Engine<S> {
    /// Allocates everything the core will ever need. `seeds` are random.
    pub(crate) fn new(
        config: &CoreConfig,
        world: Arc<World>,
        source: S,
        mail: Mail,
        out: Outbox<S::Packet>,
        seeds: [phalanx_steering::Seed; 2],
    ) -> Result<Engine<S>, phalanx_steering::SteeringError> {
        let me = world.core(config.id).unwrap_or(0);
        let limits = &world.limits;
        let station = |(port, facts): (usize, &crate::world::PortFacts)| {
            let ours = config.ports.contains(&port) && facts.role != PortRole::Application;
            ours.then(|| Station::new(Neighbours::new(limits.neighbours, limits.held, limits.held_each)))
        };
        Ok(Engine {
            me,
            id: config.id,
            tables: Tables::new(limits, if config.target { limits.tracked } else { 0 }),
            router: RouterSide::new(config.router, limits, seeds[0])?,
            target: TargetSide::new(config.target, limits, seeds[1])?,
            outbound: OutboundSide::new(limits),
            fragments: Fragments::new(me, limits),
            inner: InnerFragments::new(limits, seeds[0])?,
            ike: IkeSide::new(),
            wanted: Wanted::default(),
            new: NewConnections::default(),
            stations: world.ports.iter().enumerate().map(station).collect(),
            application: world.application(me),
            out,
            mail,
            source,
            watcher: None,
            movers: Movers::default(),
            gate: Bucket::new(crate::logging::PER_SECOND, crate::logging::AT_ONCE),
            tended_ms: 0,
            #[cfg(test)]
            ordinary: false,
            world,
        })
    }

    /// Whether every packet takes the ordinary way: tests compare it with the fast paths.
    #[inline(always)]
    pub(crate) fn is_ordinary(&self) -> bool {
        #[cfg(test)]
        return self.ordinary;
        #[cfg(not(test))]
        false
    }

    /// Frames from a port of this core.
    pub(crate) fn receive(&mut self, port: usize, frames: impl Iterator<Item = S::Packet>, now: Now) {
        match self.world.ports[port].role {
            PortRole::Network | PortRole::Link => self.receive_wire(port, frames, now),
            PortRole::Application => self.receive_application(frames, now),
        }
    }

    fn receive_wire(&mut self, port: usize, frames: impl Iterator<Item = S::Packet>, now: Now) {
        let mut frames: Batch<S::Packet> = frames.collect();
        if self.has_fast_path(port) {
            self.receive_fast(port, &mut frames, now);
        } else if self.has_fast_link(port) {
            self.receive_linked_fast(port, &mut frames, now);
        } else {
            self.receive_frames(port, &mut frames, now);
        }
    }

    /// 1. for this port? 2. ARP; 3. IP, whole; 4. sort: ESP for a VIP, link packets, our own business, strays.
    pub(crate) fn receive_frames(&mut self, port: usize, frames: &mut Batch<S::Packet>, now: Now) {
        let (mut arrived, mut linked) = (Batch::new(), Batch::new());
        let is_link = self.world.ports[port].role == PortRole::Link;
        let mut ahead = SasAhead::default();
        self.spis_ahead(if is_link { Begins::Link } else { Begins::Network }, frames, &mut ahead);
        let count = frames.len();
        for (at, mut packet) in frames.drain(..).enumerate() {
            self.sas_ahead(&mut ahead, at);
            let frame = match addressed_to(packet.bytes(), self.world.ports[port].mac) {
                Ok(frame) => frame,
                Err(reason) => {
                    self.out.drop(packet, reason);
                    continue;
                }
            };
            match frame.ethertype {
                ethertype::ARP => self.on_arp(port, packet, now),
                ethertype::IPV4 | ethertype::IPV6 => {
                    packet.cut_front(ethernet::HEADER_LEN);
                    self.sort_ip(port, packet, frame.src, now, &mut arrived, &mut linked);
                }
                ethertype::LINK if self.world.ports[port].memif => self.take_memif(port, packet, now, &mut linked),
                _ => self.out.drop(packet, DropReason::NotForUs),
            }
        }
        let stage = if self.world.ports[port].role == PortRole::Link { Stage::RxLink } else { Stage::RxNetwork };
        self.out.passed(stage, count);
        self.out.lap(Step::Sort, count);
        self.route(&mut arrived, now);
        self.open_linked(&mut linked, now);
    }

    /// Finds out what an IP packet from a network or link port is.
    fn sort_ip(
        &mut self,
        port: usize,
        mut packet: S::Packet,
        asker: Mac,
        now: Now,
        arrived: &mut Batch<Arrived<S::Packet>>,
        linked: &mut Batch<Linked<S::Packet>>,
    ) {
        let ip = match IpHeader::parse(packet.bytes()) {
            Ok(ip) => ip,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        trim(&mut packet, ip.total_len);
        if is_nd(&ip, packet.bytes()) {
            return self.on_nd(port, packet, &ip, asker, now);
        }
        let (packet, ip) = if self.is_link_fragment(port, &ip) {
            match self.gather(PortRole::Link, packet, &ip, now) {
                Some(whole) => whole,
                None => return,
            }
        } else {
            (packet, ip)
        };
        if ip.upper == protocol::GRE && self.world.ports[port].has(ip.dst) {
            return self.take_gre(port, packet, &ip, linked);
        }
        if self.world.ports[port].role == PortRole::Network
            && let Some(slot) = self.tables.vips.slot_of(ip.dst)
        {
            return self.sort_for_vip(port, slot, packet, ip, arrived);
        }
        if self.world.ports[port].has(ip.dst) {
            return self.on_own(port, packet, &ip, asker);
        }
        self.out.drop(packet, DropReason::NotForUs);
    }

    /// A packet whose destination is a VIP: to its router core, if that is in this process.
    fn sort_for_vip(
        &mut self,
        port: usize,
        slot: u16,
        packet: S::Packet,
        ip: IpHeader,
        arrived: &mut Batch<Arrived<S::Packet>>,
    ) {
        let router = self.tables.vips.at(slot).and_then(|vip| vip.entry.router_core);
        let Some(core) = router else {
            return self.out.drop(packet, DropReason::NotForUs);
        };
        if core != self.id {
            return match self.world.core(core) {
                Some(core) => self.out.parcel(core, Parcel::Router(port), packet),
                None => self.out.drop(packet, DropReason::NotForUs),
            };
        }
        arrived.push(Arrived { packet, ip, vip: slot });
    }

    /// Parcels from other cores of the process; what they hold was checked there.
    pub(crate) fn receive_ring(&mut self, parcels: impl Iterator<Item = S::Packet>, now: Now) {
        let (mut arrived, mut linked) = (Batch::new(), Batch::new());
        let mut parcels: Batch<S::Packet> = parcels.collect();
        let mut ahead = SasAhead::default();
        self.spis_ahead(Begins::Parcel, &parcels, &mut ahead);
        let count = parcels.len();
        for (at, mut packet) in parcels.drain(..).enumerate() {
            self.sas_ahead(&mut ahead, at);
            match Parcel::unwrap(&mut packet) {
                Ok(Parcel::Send(port)) => self.send(port, packet, now),
                Ok(Parcel::Deliver(port)) => self.deliver_by(port, packet),
                Ok(Parcel::Link) => self.take_link(packet, &mut linked),
                Ok(Parcel::Router(port)) => match IpHeader::parse(packet.bytes()) {
                    Ok(ip) => match self.tables.vips.slot_of(ip.dst) {
                        // The other core may know of a change a little earlier: never pass it on once more.
                        Some(slot) if self.routes(slot) => self.sort_for_vip(port, slot, packet, ip, &mut arrived),
                        _ => self.out.drop(packet, DropReason::NotForUs),
                    },
                    Err(error) => self.out.drop(packet, error.into()),
                },
                Err(reason) => self.out.drop(packet, reason),
            }
        }
        self.out.passed(Stage::RxRing, count);
        self.out.lap(Step::Sort, count);
        self.route(&mut arrived, now);
        self.open_linked(&mut linked, now);
    }

    /// This core is the VIP's router.
    pub(crate) fn routes(&self, slot: u16) -> bool {
        self.tables.vips.at(slot).is_some_and(|vip| vip.entry.router_core == Some(self.id))
    }

    /// The VIP that the inner packet is for, or from: a VIP this host serves.
    #[inline]
    pub(crate) fn served(&self, address: IpAddr) -> Option<u16> {
        let slot = self.tables.vips.slot_of(address)?;
        self.tables.vips.at(slot).filter(|vip| vip.entry.served).map(|_| slot)
    }
}

#[inline]
fn is_nd(ip: &IpHeader, packet: &[u8]) -> bool {
    ip.upper == protocol::ICMPV6 && ip.fragment.is_none() && matches!(ip.upper_of(packet).first(), Some(133..=137)) // RFC 4861 §4
}
