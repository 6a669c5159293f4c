//! The fast path of a target, as far as the cipher: what comes over a link is nearly always ESP in tunnel mode over IPv4, from the VIP's
//! router and for this core. Such a packet joins what is to be opened after a look at a few fields; whatever is different in any way
//! takes the ordinary way, where alone anything is dropped and counted (`tests/fast.rs`). Packets stay in order: each moves its window.

use std::net::{IpAddr, Ipv4Addr};

use phalanx_ipsec::{InboundIndex, Role};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{Buffer, Epoch, EspHeader, Frame, Likeness, LinkHeader, Mac, VipId, gre, link, protocol};

use crate::ahead::{Begins, SasAhead};
use crate::clock::Now;
use crate::command::GreEnd;
use crate::config::PortRole;
use crate::engine::{Batch, Engine};
use crate::laps::Step;
use crate::opening::Begun;
use crate::packet::{Marked, Source, trim};
use crate::stats::Stage;

/// Ours and the other end of a GRE link; nothing over memif.
type Ends = Option<(Ipv4Addr, Ipv4Addr)>;

/// A VIP that was believed from this port: mostly the next packet is of the same.
#[derive(Clone, Copy)]
struct Believed {
    id: VipId,
    ends: Ends,
    address: Ipv4Addr,
    epoch: Epoch,
    at_router: bool,
}

/// What is in front of a packet over GRE, and the packet's IPv4 header and SPI. Packets that are alike in these, or over memif in what there is
/// of it, are of one kind.
const FRONT_OF_KIND: usize = ethernet::HEADER_LEN + link::OVERHEAD_V4 + OF_PACKET;
const OF_PACKET: usize = ipv4::MIN_LEN + 4;
/// Where the packet begins, over GRE and over memif.
const OVER_GRE: usize = ethernet::HEADER_LEN + link::OVERHEAD_V4;
const OVER_MEMIF: usize = ethernet::HEADER_LEN + LinkHeader::LEN;
const OVER_GRE_ALIKE: Likeness<FRONT_OF_KIND> = Likeness::ALL.but_ipv4(ethernet::HEADER_LEN).but_ipv4(OVER_GRE);
const OVER_MEMIF_ALIKE: Likeness<FRONT_OF_KIND> = {
    let end = OVER_MEMIF + OF_PACKET;
    Likeness::ALL.but_ipv4(OVER_MEMIF).but(end, FRONT_OF_KIND - end)
};

/// What the packet before had, and any of its kind has.
#[derive(Clone, Copy)]
struct Kind {
    vip: VipId,
    sa: InboundIndex,
    seq_high: u32,
    filtered: bool,
}

/// What packets before had.
pub(crate) struct Latest {
    vip: Option<Believed>,
    sa: Option<InboundIndex>,
    kind: Option<Kind>,
    /// What packets of that kind are alike in.
    front: [u8; FRONT_OF_KIND],
}

impl Latest {
    pub(crate) fn nothing() -> Latest {
        Latest { vip: None, sa: None, kind: None, front: [0; FRONT_OF_KIND] }
    }
}

impl<S: Source> Engine<S> {
    /// Whether packets from the port have a fast path: not while somebody looks at each.
    pub(crate) fn has_fast_link(&self, port: usize) -> bool {
        let serves = self.target.enabled && self.world.ports[port].role == PortRole::Link;
        serves && !self.is_ordinary() && self.watcher.is_none() && self.out.tap.is_none()
    }

    /// Frames from a link port: 1. link header, SA and number; 2. opened, or the ordinary way.
    pub(crate) fn receive_linked_fast(&mut self, port: usize, frames: &mut Batch<S::Packet>, now: Now) {
        let (mut packets, mut begun, mut ordinary) = (Batch::new(), Batch::new(), Batch::new());
        let (mut ahead, mut latest) = (SasAhead::default(), Latest::nothing());
        self.spis_ahead(Begins::Link, frames, &mut ahead);
        for (at, mut frame) in frames.drain(..).enumerate() {
            self.sas_ahead(&mut ahead, at);
            // What is watched is told about step by step.
            let plain = frame.mark() == 0;
            let one = if plain { self.begin_fast(port, frame.bytes(), &mut latest) } else { None };
            match one {
                Some((one, front, len)) => {
                    if !ordinary.is_empty() {
                        self.receive_frames(port, &mut ordinary, now);
                    }
                    frame.cut_front(front);
                    trim(&mut frame, len);
                    packets.push(frame);
                    begun.push(one);
                }
                None => {
                    self.open_fast(&mut packets, &mut begun, now);
                    ordinary.push(frame);
                }
            }
        }
        self.open_fast(&mut packets, &mut begun, now);
        if !ordinary.is_empty() {
            self.receive_frames(port, &mut ordinary, now);
        }
    }

    /// Step 2.
    fn open_fast(&mut self, packets: &mut Batch<S::Packet>, begun: &mut Batch<Begun>, now: Now) {
        if packets.is_empty() {
            return;
        }
        self.out.passed(Stage::RxLink, packets.len());
        self.out.lap(Step::Sort, packets.len());
        self.open_begun(packets, begun, Role::Target, now);
        begun.clear();
    }

    /// Step 1; with it where the packet begins in the frame, and its length.
    #[inline(always)]
    pub(crate) fn begin_fast(&self, port: usize, frame: &[u8], latest: &mut Latest) -> Option<(Begun, usize, usize)> {
        // Over memif there may be either.
        let gre = *frame.get(12..14)? == ethertype::IPV4.to_be_bytes();
        let front = if gre { OVER_GRE } else { OVER_MEMIF };
        let alike = |front| if gre { OVER_GRE_ALIKE.holds(front, frame) } else { OVER_MEMIF_ALIKE.holds(front, frame) };
        let kind = match latest.kind {
            Some(kind) if alike(&latest.front) => kind,
            _ => {
                let kind = self.kind_of_linked(port, frame, &mut latest.vip)?;
                // The second one of an SA in a row: there may be more. Where SAs take turns nothing is kept, and nothing compared.
                latest.kind = None;
                if latest.sa == Some(kind.sa) {
                    latest.front = *frame.first_chunk()?;
                    latest.kind = Some(kind);
                }
                latest.sa = Some(kind.sa);
                kind
            }
        };
        let Kind { vip, sa: at, seq_high, filtered } = kind;
        let frame = if gre { &frame[..ethernet::HEADER_LEN + whole(&frame[ethernet::HEADER_LEN..])?] } else { frame };
        let packet = frame.get(front..)?;
        let packet = &packet[..whole(packet)?];
        let sa = self.tables.cache.inbound(at)?;
        let glance = sa.glance(packet.len())?;
        let EspHeader { seq, .. } = EspHeader::parse(&packet[ipv4::MIN_LEN..]).ok()?;
        let seq = sa.window.infer_with_hint(seq, seq_high);
        sa.window.check(seq).ok()?;
        let begun = Begun { job: glance.begin(packet, seq), vip, sa: at, filtered, from: None };
        Some((begun, front, packet.len()))
    }

    #[inline(always)]
    fn kind_of_linked(&self, port: usize, frame: &[u8], latest: &mut Option<Believed>) -> Option<Kind> {
        let (ends, linked) = self.linked(port, frame)?;
        let header = LinkHeader::parse(linked).ok()?;
        if header.core != self.id || header.clear {
            return None;
        }
        let vip = self.believed_from(port, header.vip, ends, latest).filter(|vip| header.epoch >= vip.epoch)?;
        let packet = &linked[LinkHeader::LEN..];
        let ip = Plain::of(packet).filter(|ip| ip.protocol == protocol::ESP && ip.dst == vip.address)?;
        let sa = self.tables.esp_sa(vip.id, EspHeader::parse(&packet[ipv4::MIN_LEN..]).ok()?.spi)?;
        self.tables.cache.inbound(sa).filter(|sa| sa.is_plain(&ip))?;
        Some(Kind { vip: vip.id, sa, seq_high: header.seq_high, filtered: header.filtered && vip.at_router })
    }

    /// Link header and packet of a frame, to its end, and the ends of its GRE.
    #[inline(always)]
    fn linked<'a>(&self, port: usize, frame: &'a [u8]) -> Option<(Ends, &'a [u8])> {
        let (header, facts) = (Frame::parse(frame).ok()?, &self.world.ports[port]);
        let packet = &frame[ethernet::HEADER_LEN..];
        match header.ethertype {
            ethertype::LINK if facts.memif && header.dst == Mac::BROADCAST => Some((None, packet)),
            ethertype::IPV4 if header.dst == facts.mac => {
                let outer = Plain::of(packet).filter(|ip| ip.protocol == protocol::GRE)?;
                let inside = packet.get(ipv4::MIN_LEN..outer.total_len)?;
                let linked = gre::parse(inside).is_ok_and(|gre| gre.ethertype == ethertype::LINK);
                linked.then(|| (Some((outer.dst, outer.src)), &inside[gre::LEN..]))
            }
            _ => None,
        }
    }

    /// The VIP, if its router is at the other end of the link (R14).
    #[inline(always)]
    fn believed_from(&self, port: usize, id: VipId, ends: Ends, latest: &mut Option<Believed>) -> Option<Believed> {
        if let Some(vip) = latest.filter(|vip| vip.id == id && vip.ends == ends) {
            return Some(vip);
        }
        let vip = self.tables.vips.by_id(id)?;
        let believed = match ends {
            Some((local, remote)) => {
                let from = GreEnd { port, local: IpAddr::V4(local), remote: IpAddr::V4(remote) };
                vip.router == Some(from) && self.world.ports[port].has(from.local)
            }
            None => vip.router_port == Some(port),
        };
        let IpAddr::V4(address) = vip.entry.address else { return None };
        let (epoch, at_router) = (vip.entry.epoch, vip.entry.filter_at_router);
        *latest = Some(Believed { id, ends, address, epoch, at_router }).filter(|_| believed);
        *latest
    }
}

/// The length that the packet's header says, if it is all there.
#[inline(always)]
fn whole(packet: &[u8]) -> Option<usize> {
    ipv4::plain_len(packet).filter(|len| *len <= packet.len())
}
