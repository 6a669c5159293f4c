//! Packets in pieces: outer fragments to a VIP and of the link are put together before anybody looks at them; what is
//! too large for the link, or for the port to the host's stack, is cut.
//!
//! Fragments are held in the buffers they came in, within the bounds of [`phalanx_wire::reassembly`]. Those of the
//! network and those of the link have a table each: nobody on the network can push out what a router sends.

use phalanx_wire::fragment::Cut;
use phalanx_wire::{Buffer, DropReason, IpHeader, Reassembly, ReassemblyLimits};

use crate::clock::Now;
use crate::config::{Limits, PortRole};
use crate::engine::{Batch, Engine};
use crate::inbound_router::Arrived;
use crate::outbound::{Burst, Outgoing, Way};
use crate::packet::{Marked, Source};
use crate::stats::Stage;

/// Datagrams given up in one round of timers.
const GIVE_UP: usize = 8;
/// Room behind a packet for what sealing adds.
const SPARE: usize = 64;
/// A packet is cut into this many pieces at most.
const PIECES: usize = 32;

pub(crate) struct Fragments<P> {
    network: Reassembly<P>,
    link: Reassembly<P>,
    /// What the host cut, where it has to be whole.
    host: Reassembly<P>,
    /// Packets up to this size go into an ordinary buffer.
    ordinary: usize,
    /// The next identification; its upper bits are the core's.
    id: u32,
}

impl<P: Buffer> Fragments<P> {
    pub(crate) fn new(core: usize, limits: &Limits) -> Fragments<P> {
        let of = |size: usize| ReassemblyLimits { size, ..limits.reassembly };
        let most = limits.reassembly.size.min(usize::from(limits.large_frame));
        Fragments {
            network: Reassembly::new(of(most)),
            // A packet from the network with what a link puts around it.
            link: Reassembly::new(of(usize::from(limits.large_frame))),
            host: Reassembly::new(of(most.saturating_sub(SPARE))),
            ordinary: usize::from(limits.frame).saturating_sub(SPARE),
            id: (core as u32) << 12,
        }
    }

    /// A name for a packet that this core cuts, unlike those of the last 4,096 and of 15 other cores.
    pub(crate) fn next_id(&mut self) -> u32 {
        let core = self.id & !0xfff;
        self.id = core | (self.id + 1) & 0xfff;
        self.id
    }

    /// Fragments held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.network.fragments() + self.link.fragments() + self.host.fragments()
    }
}

impl<S: Source> Engine<S> {
    /// What came in fragments is one packet or nothing yet.
    #[inline(never)]
    pub(crate) fn make_whole(&mut self, arrived: &mut Batch<Arrived<S::Packet>>, now: Now) {
        let mut whole = Batch::new();
        for one in arrived.drain(..) {
            if one.ip.fragment.is_none() {
                whole.push(one);
            } else if let Some((packet, ip)) = self.gather(PortRole::Network, one.packet, &one.ip, now) {
                whole.push(Arrived { packet, ip, vip: one.vip });
            }
        }
        *arrived = whole;
    }

    /// Whether a packet is a fragment from a router that may send link packets by this port (R14).
    pub(crate) fn is_link_fragment(&self, port: usize, ip: &IpHeader) -> bool {
        ip.fragment.is_some() && self.tables.vips.is_router(port, ip.dst, ip.src)
    }

    /// Takes a fragment in; the packet it completes.
    pub(crate) fn gather(
        &mut self,
        from: PortRole,
        packet: S::Packet,
        ip: &IpHeader,
        now: Now,
    ) -> Option<(S::Packet, IpHeader)> {
        let Engine { fragments, source, out, .. } = self;
        let ordinary = fragments.ordinary;
        let table = match from {
            PortRole::Network => &mut fragments.network,
            PortRole::Link => &mut fragments.link,
            PortRole::Application => &mut fragments.host,
        };
        let room = |first: &S::Packet, len: usize| {
            let mut room = if len <= ordinary { source.fresh() } else { source.fresh_large() }?;
            room.set_mark(first.mark());
            Some(room)
        };
        let packet = table.add(packet, ip, now.ms(), room, |packet, reason| out.drop(packet, reason))?;
        match IpHeader::parse(packet.bytes()) {
            Ok(ip) if ip.fragment.is_none() => {
                out.passed(Stage::Reassembled, 1);
                Some((packet, ip))
            }
            Ok(_) => {
                out.drop(packet, DropReason::BadIp);
                None
            }
            Err(error) => {
                out.drop(packet, error.into());
                None
            }
        }
    }

    /// Transport mode takes whole packets only (RFC 4303 §3.3.4), and the host's stack cut this one: it is put together,
    /// sealed as one, and cut outside where its path asks for it.
    pub(crate) fn whole_from_host(&mut self, packet: S::Packet, burst: &mut Burst<S::Packet>, now: Now) {
        let ip = match IpHeader::parse(packet.bytes()) {
            Ok(ip) if ip.fragment.is_some() => ip,
            _ => return self.out.drop(packet, DropReason::Fragment),
        };
        let Some((packet, ip)) = self.gather(PortRole::Application, packet, &ip, now) else { return };
        match self.way_out(&ip, packet.bytes(), packet.mark(), now) {
            Ok(Way::Sa(sa, log)) => self.enlist(burst, Outgoing::new(packet, sa, log), now),
            Ok(Way::TooBig(..)) => self.out.drop(packet, DropReason::TooBig),
            // Its pieces would have gone in clear too.
            Ok(Way::Clear) => self.out.drop(packet, DropReason::Fragment),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// Cuts a packet into fragments of at most `mtu` bytes, and does with each what `each` says.
    pub(crate) fn cut(&mut self, packet: S::Packet, mtu: usize, mut each: impl FnMut(&mut Self, S::Packet)) {
        let ip = match IpHeader::parse(packet.bytes()) {
            Ok(ip) => ip,
            Err(error) => return self.out.drop(packet, error.into()),
        };
        // RFC 6864 §4: what may not be fragmented on its way has no name of its own to keep.
        let named = ip.version == 4 && !ip.dont_fragment;
        let id = if named { u32::from(ip.identification) } else { self.fragments.next_id() };
        let cut = match Cut::new(packet.bytes(), &ip, mtu, id) {
            Ok(cut) if cut.count() <= PIECES => cut,
            _ => return self.out.drop(packet, DropReason::TooBig),
        };
        for n in 0..cut.count() {
            match self.piece_of(&packet, &cut, n) {
                Ok(piece) => each(self, piece),
                // Without this piece the others are worth nothing.
                Err(reason) => return self.out.drop(packet, reason),
            }
        }
        self.out.passed(Stage::Cut, 1);
    }

    fn piece_of(&mut self, packet: &S::Packet, cut: &Cut, n: usize) -> Result<S::Packet, DropReason> {
        let mut piece = self.room_for(cut.len_of(n))?;
        cut.write(packet.bytes(), n, piece.bytes_mut())?;
        piece.set_mark(packet.mark());
        Ok(piece)
    }

    /// A packet of our own with so many bytes to be written.
    pub(crate) fn room_for(&mut self, len: usize) -> Result<S::Packet, DropReason> {
        let ordinary = self.fragments.ordinary;
        let fresh = if len <= ordinary { self.source.fresh() } else { self.source.fresh_large() };
        let mut packet = fresh.ok_or(DropReason::NoRoom)?;
        packet.grow_back(len)?;
        Ok(packet)
    }

    /// Gives up what waited too long.
    pub(crate) fn tend_fragments(&mut self, now: Now) {
        let Engine { fragments, out, .. } = self;
        fragments.network.tend(now.ms(), GIVE_UP, |packet, reason| out.drop(packet, reason));
        fragments.link.tend(now.ms(), GIVE_UP, |packet, reason| out.drop(packet, reason));
        fragments.host.tend(now.ms(), GIVE_UP, |packet, reason| out.drop(packet, reason));
    }
}
