//! The shadow SA cache (R4): the SAs of one core, found by SPI, by tunnel, or by identity. Bounded, and private to the
//! core: nothing is allocated or freed after it was made; what is taken out goes back to control in its box (I7).

use std::net::{IpAddr, SocketAddr};

use phalanx_wire::{Protected, SaId, Spi, VipId};

use crate::index::Index;
use crate::{InboundSa, IpsecError, OutboundSa, SaParams, TunnelName};

/// How many entries a cache may have of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inbound SAs.
    pub inbound: usize,
    /// Outbound SAs.
    pub outbound: usize,
    /// Tunnel names.
    pub tunnels: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { inbound: 4096, outbound: 4096, tunnels: 4096 }
    }
}

/// Where an inbound SA is; good until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InboundIndex(pub u32);

/// Where an outbound SA is; good until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutboundIndex(pub u32);

/// A tunnel name of a VIP as a number; good for the life of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelIndex(pub u32);

/// An SA that was taken out, to be freed by whoever may free.
#[derive(Debug)]
pub enum Removed {
    /// It was inbound.
    Inbound(Box<InboundSa>),
    /// It was outbound.
    Outbound(Box<OutboundSa>),
}

#[derive(Debug)]
pub(crate) struct Tunnel {
    vip: VipId,
    name: TunnelName,
}

/// The SAs of one core.
#[derive(Debug)]
pub struct ShadowCache {
    limits: Limits,
    pub(crate) inbound: Slab<InboundSa>,
    /// How many SAs there ever were.
    serial: u32,
    pub(crate) by_spi: Index,
    pub(crate) outbound: Slab<OutboundSa>,
    tunnels: Vec<Tunnel>,
    /// By tunnel: the SA that its packets take, the one that was added last.
    pub(crate) current: Vec<Option<OutboundIndex>>,
    /// Numbers of `tunnels`, in the order of their VIPs and names.
    by_name: Vec<u32>,
    inbound_by_id: Index,
    outbound_by_id: Index,
    /// By [`peer_key`]; of two SAs with one key, which only a peer that wants to confuse itself could make, the first.
    outbound_by_spi: Index,
}

impl ShadowCache {
    /// An empty cache with all the memory it will ever have.
    #[must_use]
    pub fn new(limits: Limits) -> ShadowCache {
        ShadowCache {
            limits,
            inbound: Slab::new(limits.inbound),
            serial: 0,
            by_spi: Index::new(limits.inbound, spi_home),
            outbound: Slab::new(limits.outbound),
            tunnels: Vec::with_capacity(limits.tunnels),
            current: Vec::with_capacity(limits.tunnels),
            by_name: Vec::with_capacity(limits.tunnels),
            inbound_by_id: Index::new(limits.inbound, id_home),
            outbound_by_id: Index::new(limits.outbound, id_home),
            outbound_by_spi: Index::new(limits.outbound, id_home),
        }
    }

    /// Adds an inbound SA.
    ///
    /// # Errors
    /// [`IpsecError::TableFull`], [`IpsecError::Duplicate`]; the SA comes back with them.
    #[allow(clippy::result_large_err)] // the error is a box and a cold one
    pub fn add_inbound(&mut self, mut sa: Box<InboundSa>) -> Result<InboundIndex, (IpsecError, Box<InboundSa>)> {
        let (id, spi) = (sa.id(), key_of(sa.params()));
        if self.by_spi.find(spi).is_some() {
            return Err((IpsecError::Duplicate("VIP, SPI and protocol"), sa));
        }
        if self.inbound_by_id.find(id.0).is_some() {
            return Err((IpsecError::Duplicate("identity"), sa));
        }
        let full = IpsecError::TableFull { what: "inbound SAs", limit: self.limits.inbound };
        self.serial = self.serial.wrapping_add(1);
        sa.hot.serial = self.serial;
        let at = self.inbound.insert(sa).map_err(|sa| (full, sa))?;
        self.by_spi.insert(spi, at);
        self.inbound_by_id.insert(id.0, at);
        Ok(InboundIndex(at))
    }

    /// Adds an outbound SA. From now on its tunnel's packets take it.
    ///
    /// # Errors
    /// [`IpsecError::TableFull`], [`IpsecError::Duplicate`]; the SA comes back with them.
    #[allow(clippy::result_large_err)] // the error is a box and a cold one
    pub fn add_outbound(&mut self, sa: Box<OutboundSa>) -> Result<OutboundIndex, (IpsecError, Box<OutboundSa>)> {
        let at = self.insert_outbound(sa)?;
        self.take_over(at);
        Ok(at)
    }

    /// Adds an outbound SA that waits for its turn: its tunnel's packets take it from [`Self::take_over`] on, or at once if
    /// there is no other.
    ///
    /// # Errors
    /// Those of [`Self::add_outbound`].
    #[allow(clippy::result_large_err)] // the error is a box and a cold one
    pub fn add_successor(&mut self, sa: Box<OutboundSa>) -> Result<OutboundIndex, (IpsecError, Box<OutboundSa>)> {
        let (vip, tunnel) = (sa.params().vip, sa.params().tunnel);
        let at = self.insert_outbound(sa)?;
        if self.current_of(vip, tunnel).is_none() {
            self.take_over(at);
        }
        Ok(at)
    }

    /// From now on the tunnel of this outbound SA is its.
    pub fn take_over(&mut self, at: OutboundIndex) {
        let Some(sa) = self.outbound.get(at.0) else { return };
        if let Ok(place) = self.place(sa.params().vip, sa.params().tunnel) {
            self.current[self.by_name[place] as usize] = Some(at);
        }
    }

    #[allow(clippy::result_large_err)] // the error is a box and a cold one
    fn insert_outbound(&mut self, mut sa: Box<OutboundSa>) -> Result<OutboundIndex, (IpsecError, Box<OutboundSa>)> {
        let id = sa.id();
        if self.outbound_by_id.find(id.0).is_some() {
            return Err((IpsecError::Duplicate("identity"), sa));
        }
        if let Err(full) = self.intern(sa.params().vip, sa.params().tunnel) {
            return Err((full, sa));
        }
        sa.around = match sa.params().within.map(|within| self.intern(sa.params().vip, within)).transpose() {
            Ok(around) => around,
            Err(full) => return Err((full, sa)),
        };
        let full = IpsecError::TableFull { what: "outbound SAs", limit: self.limits.outbound };
        self.serial = self.serial.wrapping_add(1);
        sa.hot.serial = self.serial;
        let at = self.outbound.insert(sa).map_err(|sa| (full, sa))?;
        self.outbound_by_id.insert(id.0, at);
        self.index_peer(at);
        Ok(OutboundIndex(at))
    }

    /// Takes an SA out, whichever way it goes.
    pub fn remove(&mut self, id: SaId) -> Option<Removed> {
        if let Some(at) = self.inbound_by_id.remove(id.0) {
            let sa = self.inbound.remove(at)?;
            self.by_spi.remove(key_of(sa.params()));
            return Some(Removed::Inbound(sa));
        }
        let at = self.outbound_by_id.remove(id.0)?;
        self.unindex_peer(at);
        let sa = self.outbound.remove(at)?;
        let (vip, name) = (sa.params().vip, sa.params().tunnel);
        if let Ok(place) = self.place(vip, name) {
            let other = self.outbound.iter().find(|(_, sa)| sa.params().vip == vip && sa.params().tunnel == name);
            let other = other.map(|(at, _)| OutboundIndex(at));
            let current = &mut self.current[self.by_name[place] as usize];
            if *current == Some(OutboundIndex(at)) {
                *current = other;
            }
        }
        Some(Removed::Outbound(sa))
    }

    /// The inbound SA that an ESP packet to this VIP with this SPI came through.
    #[inline]
    #[must_use]
    pub fn lookup(&self, vip: VipId, spi: Spi) -> Option<InboundIndex> {
        self.by_spi.find(spi_key(vip, spi)).map(InboundIndex)
    }

    /// The inbound SA that a packet to this VIP came through: by SPI and protocol (R4).
    #[inline]
    #[must_use]
    pub fn find(&self, vip: VipId, by: &Protected) -> Option<InboundIndex> {
        self.by_spi.find(with_protocol(spi_key(vip, by.spi), by.ah)).map(InboundIndex)
    }

    /// The outbound SA that a tunnel's packets take.
    #[inline]
    #[must_use]
    pub fn current(&self, tunnel: TunnelIndex) -> Option<OutboundIndex> {
        *self.current.get(tunnel.0 as usize)?
    }

    /// The AH SA that goes around the packets of this SA of ESP; none where there should be none, or none is there.
    #[inline]
    #[must_use]
    pub fn around(&self, at: OutboundIndex) -> Option<OutboundIndex> {
        // What says no lies where each packet looks, what says which does not.
        let esp = self.outbound(at).filter(|sa| sa.is_within())?;
        let ah = self.current(esp.around?)?;
        self.outbound(ah).is_some_and(OutboundSa::is_transport_ah).then_some(ah)
    }

    /// The SA that the packets of this VIP's tunnel take.
    #[must_use]
    pub fn current_of(&self, vip: VipId, name: TunnelName) -> Option<OutboundIndex> {
        let place = self.place(vip, name).ok()?;
        self.current[self.by_name[place] as usize]
    }

    /// The outbound SA of the VIP whose packets go to that peer with that SPI, in AH or ESP: what an ICMP error quotes of them.
    #[must_use]
    pub fn sent_by(&self, vip: VipId, peer: IpAddr, spi: Spi, ah: bool) -> Option<OutboundIndex> {
        let at = self.outbound_by_spi.find(with_protocol(peer_key(vip, peer, spi), ah))?;
        let sa = self.outbound.get(at)?;
        let params = sa.params();
        let found = (params.vip, sa.remote_end().ip(), params.spi, params.algorithm.is_ah());
        (found == (vip, peer, spi, ah)).then_some(OutboundIndex(at))
    }

    /// The peer of an outbound SA in UDP is there from now on.
    pub fn move_outbound(&mut self, at: OutboundIndex, to: SocketAddr) {
        self.unindex_peer(at.0);
        self.outbound.get_mut(at.0).into_iter().for_each(|sa| sa.move_peer(to));
        self.index_peer(at.0);
    }

    fn index_peer(&mut self, at: u32) {
        let Some(sa) = self.outbound.get(at) else { return };
        let key = sent_key(sa);
        if self.outbound_by_spi.find(key).is_none() {
            self.outbound_by_spi.insert(key, at);
        }
    }

    fn unindex_peer(&mut self, at: u32) {
        let Some(sa) = self.outbound.get(at) else { return };
        let key = sent_key(sa);
        if self.outbound_by_spi.find(key) == Some(at) {
            self.outbound_by_spi.remove(key);
        }
    }

    /// The inbound SA of that identity.
    #[must_use]
    pub fn find_inbound(&self, id: SaId) -> Option<InboundIndex> {
        self.inbound_by_id.find(id.0).map(InboundIndex)
    }

    /// The outbound SA of that identity.
    #[must_use]
    pub fn find_outbound(&self, id: SaId) -> Option<OutboundIndex> {
        self.outbound_by_id.find(id.0).map(OutboundIndex)
    }

    /// The SA there.
    #[inline]
    #[must_use]
    pub fn inbound(&self, at: InboundIndex) -> Option<&InboundSa> {
        self.inbound.get(at.0)
    }

    /// The SA there, to change.
    #[inline]
    pub fn inbound_mut(&mut self, at: InboundIndex) -> Option<&mut InboundSa> {
        self.inbound.get_mut(at.0)
    }

    /// The SA there.
    #[inline]
    #[must_use]
    pub fn outbound(&self, at: OutboundIndex) -> Option<&OutboundSa> {
        self.outbound.get(at.0)
    }

    /// The SA there, to change.
    #[inline]
    pub fn outbound_mut(&mut self, at: OutboundIndex) -> Option<&mut OutboundSa> {
        self.outbound.get_mut(at.0)
    }

    /// All inbound SAs.
    pub fn iter_inbound(&self) -> impl Iterator<Item = (InboundIndex, &InboundSa)> {
        self.inbound.iter().map(|(at, sa)| (InboundIndex(at), sa))
    }

    /// All inbound SAs, to change.
    pub fn each_inbound_mut(&mut self) -> impl Iterator<Item = &mut InboundSa> {
        self.inbound.entries.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// All outbound SAs.
    pub fn iter_outbound(&self) -> impl Iterator<Item = (OutboundIndex, &OutboundSa)> {
        self.outbound.iter().map(|(at, sa)| (OutboundIndex(at), sa))
    }

    /// The places `0..` that outbound SAs may be at, for a walk in pieces.
    #[must_use]
    pub fn outbound_places(&self) -> u32 {
        self.outbound.entries.len() as u32
    }

    /// How many inbound and outbound SAs there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.inbound.len(), self.outbound.len())
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// The number of a tunnel name, which it gets now if it has none.
    ///
    /// # Errors
    /// [`IpsecError::TableFull`].
    pub fn intern(&mut self, vip: VipId, name: TunnelName) -> Result<TunnelIndex, IpsecError> {
        match self.place(vip, name) {
            Ok(place) => Ok(TunnelIndex(self.by_name[place])),
            Err(_) if self.tunnels.len() == self.limits.tunnels => {
                Err(IpsecError::TableFull { what: "tunnels", limit: self.limits.tunnels })
            }
            Err(place) => {
                let number = self.tunnels.len() as u32;
                self.tunnels.push(Tunnel { vip, name });
                self.current.push(None);
                self.by_name.insert(place, number);
                Ok(TunnelIndex(number))
            }
        }
    }

    /// The number of a tunnel name, if it has one.
    #[must_use]
    pub fn tunnel(&self, vip: VipId, name: TunnelName) -> Option<TunnelIndex> {
        self.place(vip, name).ok().map(|place| TunnelIndex(self.by_name[place]))
    }

    /// Where the name stands in `by_name`, or would stand.
    fn place(&self, vip: VipId, name: TunnelName) -> Result<usize, usize> {
        self.by_name.binary_search_by(|n| {
            let tunnel = &self.tunnels[*n as usize];
            (tunnel.vip, tunnel.name).cmp(&(vip, name))
        })
    }
}

#[inline]
pub(crate) const fn spi_key(vip: VipId, spi: Spi) -> u64 {
    (vip.0 as u64) << 32 | spi.0 as u64
}

/// SPIs of AH are others than those of ESP (RFC 4301 §4.4.2.1); a VIP's number and an SPI leave the upper bits.
#[inline]
const fn with_protocol(key: u64, ah: bool) -> u64 {
    key ^ (ah as u64) << 56
}

fn key_of(params: &SaParams) -> u64 {
    with_protocol(spi_key(params.vip, params.spi), params.algorithm.is_ah())
}

fn sent_key(sa: &OutboundSa) -> u64 {
    let params = sa.params();
    with_protocol(peer_key(params.vip, sa.remote_end().ip(), params.spi), params.algorithm.is_ah())
}

/// VIP, peer and SPI mixed into 64 bits; who finds something by it compares the parts.
fn peer_key(vip: VipId, peer: IpAddr, spi: Spi) -> u64 {
    let address = match peer {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let mixed = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((address >> 64) as u64).rotate_left(29);
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ spi_key(vip, spi)
}

/// We choose SPIs so that this is all it takes: an SPI's low bits are its place. VIPs start apart from each other.
#[inline]
const fn spi_home(key: u64) -> u64 {
    (key & 0xffff_ffff).wrapping_add((key >> 32).wrapping_mul(0x9e37_79b1))
}

/// Identities of static SAs are hashes already; others may count.
const fn id_home(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Boxes at numbered places; places are reused.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    fn new(limit: usize) -> Slab<T> {
        Slab { entries: (0..limit).map(|_| None).collect(), free: (0..limit as u32).rev().collect() }
    }

    fn insert(&mut self, value: Box<T>) -> Result<u32, Box<T>> {
        let Some(at) = self.free.pop() else { return Err(value) };
        self.entries[at as usize] = Some(value);
        Ok(at)
    }

    fn remove(&mut self, at: u32) -> Option<Box<T>> {
        let value = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(value)
    }

    /// Asks for the memory that says where the box is.
    #[inline]
    pub(crate) fn ahead(&self, at: u32) {
        self.entries.get(at as usize).into_iter().for_each(phalanx_aead::prefetch::all);
    }

    #[inline]
    fn get(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.as_deref()
    }

    #[inline]
    fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)?.as_deref_mut()
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().zip(0..).filter_map(|(entry, at)| Some((at, entry.as_deref()?)))
    }

    #[inline]
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
