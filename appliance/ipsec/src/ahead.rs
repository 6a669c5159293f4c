//! A look ahead: what a burst is about to need of the cache is asked of memory for all its packets at once.
//!
//! With a hundred thousand SAs nothing of them is in a CPU's caches. One after the other each packet would wait for a
//! dozen cache lines, some of which say where the next ones are; so a core goes over its burst in steps, each of which
//! asks for what the step before has brought. Nothing here changes anything.

use phalanx_aead::prefetch;
use phalanx_wire::{Spi, VipId};

use crate::cache::spi_key;
use crate::{InboundIndex, InboundSa, OutboundIndex, OutboundSa, ShadowCache, TunnelIndex};

/// Windows, a meter's and a slot's moving parts: what of an SA stands behind its constants and is touched by each packet.
const MOVING: usize = prefetch::LINE;

impl InboundSa {
    /// What a router needs to find out whether a packet's number is new; then [`InboundSa::peek_ahead`].
    #[inline]
    pub fn check_ahead(&self) {
        prefetch::all(&self.hot);
        prefetch::all(&self.verified);
        prefetch::all(&self.forwarded);
    }

    /// What a router needs to peek into a packet.
    #[inline]
    pub fn peek_ahead(&self) {
        self.key().prefetch_peek();
    }

    /// What a target needs to find a packet's parts; then [`InboundSa::accept_ahead`].
    #[inline]
    pub fn open_ahead(&self) {
        prefetch::all(&self.hot);
        prefetch::part(&self.window, 0, MOVING);
    }

    /// What it needs to open and accept a packet of about `len` bytes: the key, and what other threads see; where that is stands
    /// in what [`InboundSa::open_ahead`] asked for.
    #[inline]
    pub fn accept_ahead(&self, len: usize) {
        self.key().prefetch_gcm(len);
        prefetch::all(self.window.seen());
        prefetch::all(&*self.shared);
    }

    /// What it needs to mark the packet's number in a large window; where that is stands in what [`InboundSa::accept_ahead`] asked for.
    #[inline]
    pub fn mark_ahead(&self) {
        self.window.word_ahead();
    }
}

impl OutboundSa {
    /// What a packet needs until it is laid out; then [`OutboundSa::shared_ahead`] and [`OutboundSa::seal_ahead`].
    #[inline]
    pub fn begin_ahead(&self) {
        prefetch::all(&self.hot);
        prefetch::part(&self.meter, 0, MOVING);
        prefetch::part(&self.lease, 0, 2 * MOVING);
    }

    /// What the cipher needs.
    #[inline]
    pub fn seal_ahead(&self, len: usize) {
        self.key().prefetch_gcm(len);
    }

    /// What other threads see of it.
    #[inline]
    pub fn shared_ahead(&self) {
        prefetch::all(&**self.shared());
    }
}

impl ShadowCache {
    /// Step 1 of an inbound packet: where its SPI is looked up.
    #[inline]
    pub fn spi_ahead(&self, vip: VipId, spi: Spi) {
        self.by_spi.ahead(spi_key(vip, spi));
    }

    /// Step 2: where its SA is.
    #[inline]
    pub fn inbound_ahead(&self, at: InboundIndex) {
        self.inbound.ahead(at.0);
    }

    /// Step 1 of an outbound packet, whose filter has named the tunnel.
    #[inline]
    pub fn tunnel_ahead(&self, tunnel: TunnelIndex) {
        self.current.get(tunnel.0 as usize).into_iter().for_each(prefetch::all);
    }

    /// Step 2: where its SA is.
    #[inline]
    pub fn outbound_ahead(&self, at: OutboundIndex) {
        self.outbound.ahead(at.0);
    }
}
