//! Packets of the application that are longer than their SA's path once they are sealed.
//!
//! | inner packet | what becomes of it |
//! |---|---|
//! | IPv4 with DF; IPv6 above 1280 bytes | dropped, and its sender is told what fits (RFC 4301 §8.2.1) |
//! | IPv4 without DF, tunnel mode | cut in pieces, each of them sealed with a number of its own (RFC 4301 §8.1) |
//! | IPv4 without DF, transport mode; IPv6 up to 1280 bytes | sealed whole, the ESP or AH packet cut (RFC 4303 §3.3.4, RFC 4302 §3.3.4, RFC 2473 §7.1) |
//!
//! Transport mode takes whole packets only. And no IPv6 host sends less than 1280 bytes because it is told to.

use phalanx_ipsec::OutboundIndex;
use phalanx_wire::fragment::Cut;
use phalanx_wire::icmp::{self, Complaint};
use phalanx_wire::{AhHeader, Buffer, DropReason, EspHeader, IpHeader, ipv6, protocol, udp};

use crate::clock::Now;
use crate::engine::Engine;
use crate::outbound::{Burst, Outgoing};
use crate::packet::{Marked, Source, filled};
use crate::station::{Way, destination};
use crate::stats::Stage;

/// The host is told at most so often (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f)...
pub(crate) const PER_SECOND: u64 = 1000;
/// ...and so many at once: a falling path concerns all connections through it.
pub(crate) const AT_ONCE: u64 = 100;
/// A packet that would have to be cut into more pieces is too big.
const PIECES: usize = 32;

/// Where the packets of an SA go that need nothing but an Ethernet header.
pub(crate) struct NextHop {
    sa: OutboundIndex,
    way: Way,
}

impl<S: Source> Engine<S> {
    /// A packet that does not fit its SA: told of, or cut before it is sealed.
    pub(crate) fn too_big(&mut self, outgoing: Outgoing<S::Packet>, burst: &mut Burst<S::Packet>, now: Now) {
        let Outgoing { packet, sa: at, log, .. } = outgoing;
        let Some(most) = self.tables.cache.outbound(at).map(|sa| sa.inner_mtu()) else {
            return self.out.drop(packet, DropReason::NoSa);
        };
        match cut_inner(packet.bytes(), most) {
            Ok(cut) if cut.count() <= PIECES => self.in_pieces(&cut, packet, at, log, burst, now),
            _ => {
                self.complain(packet.bytes(), most, now);
                self.out.drop(packet, DropReason::TooBig);
            }
        }
    }

    fn in_pieces(
        &mut self,
        cut: &Cut,
        packet: S::Packet,
        at: OutboundIndex,
        log: bool,
        burst: &mut Burst<S::Packet>,
        now: Now,
    ) {
        // A piece shows nothing of the connection that could be followed.
        let ip = IpHeader::parse(packet.bytes()).map_err(DropReason::from);
        if let Err(reason) = ip.and_then(|ip| self.track_outbound((at, None), &ip, packet.bytes(), log, now)) {
            return self.out.drop(packet, reason);
        }
        self.out.passed(Stage::CutInner, 1);
        for nth in 0..cut.count() {
            match piece(&mut self.source, cut, &packet, nth) {
                Ok(packet) => self.enlist(burst, Outgoing::new(packet, at, log), now),
                Err(reason) => return self.out.drop(packet, reason),
            }
        }
    }

    /// Tells the application's host what fits. The message seems to come from where the packet was going to: a router behind
    /// the tunnel could have sent it, while a VIP as its source would be the host's own address, which no host takes.
    fn complain(&mut self, packet: &[u8], most: usize, now: Now) {
        let Some(from) = destination(packet) else { return };
        // Told of less than 1280, an IPv6 host would not listen (RFC 8201 §4); so much is sealed and cut.
        let most = if from.is_ipv6() { most.max(ipv6::MIN_MTU) } else { most };
        let complaint = Complaint::TooBig { mtu: u16::try_from(most).unwrap_or(u16::MAX) };
        let mut message = [0; icmp::MAX_ERROR_V6];
        let Ok(len) = icmp::write_complaint(&mut message, from, packet, complaint) else { return };
        if !self.outbound.complaints.take(now) {
            return;
        }
        match filled(&mut self.source, &message[..len]) {
            Ok(packet) => {
                self.out.passed(Stage::TooBigTold, 1);
                self.deliver(packet);
            }
            Err(reason) => self.out.stats.dropped(reason, 1),
        }
    }

    /// As [`Self::send_sealed`]; packets of one SA that follow each other have one next hop.
    #[inline]
    pub(crate) fn send_sealed_next(
        &mut self,
        at: OutboundIndex,
        packet: S::Packet,
        latest: &mut Option<NextHop>,
        now: Now,
    ) {
        if latest.as_ref().is_none_or(|next| next.sa != at) && self.next_hop(at, packet.bytes(), latest).is_none() {
            *latest = None;
        }
        match latest {
            Some(next) if next.way.takes(&packet) => self.frame_by(&next.way, packet),
            _ => self.send_sealed(at, packet, now),
        }
    }

    /// If it is known by now, and reached by a port of this core; often it is that of another SA.
    #[inline]
    fn next_hop(&mut self, sa: OutboundIndex, packet: &[u8], latest: &mut Option<NextHop>) -> Option<()> {
        let path = usize::from(self.tables.cache.outbound(sa)?.path_mtu());
        let (port, hop) = self.world.route(destination(packet)?)?;
        let facts = &self.world.ports[port];
        if facts.owner != self.me || facts.memif {
            return None;
        }
        let mac = self.stations[port].as_mut()?.neighbours.known(hop)?;
        let (most, v4) = (path.min(facts.mtu), destination(packet)?.is_ipv4());
        match latest {
            Some(next) if next.way.is(port, mac, v4) => (next.sa, next.way.most) = (sa, most),
            _ => *latest = Some(NextHop { sa, way: Way::new(port, most, (mac, facts.mac), v4)? }),
        }
        Some(())
    }

    /// A sealed packet goes to the network: whole, or in pieces where it is longer than the path and may be cut.
    pub(crate) fn send_sealed(&mut self, at: OutboundIndex, packet: S::Packet, now: Now) {
        let path = self.tables.cache.outbound(at).map_or(usize::MAX, |sa| usize::from(sa.path_mtu()));
        if packet.bytes().len() <= path {
            return self.send_to_network(packet, now);
        }
        match cut_outer(packet.bytes(), path) {
            Ok(cut) if cut.count() <= PIECES => {
                self.out.passed(Stage::CutOuter, 1);
                for nth in 0..cut.count() {
                    match piece(&mut self.source, &cut, &packet, nth) {
                        Ok(piece) => self.send_to_network(piece, now),
                        Err(reason) => return self.out.drop(packet, reason),
                    }
                }
            }
            _ => self.out.drop(packet, DropReason::TooBig),
        }
    }
}

fn piece<S: Source>(source: &mut S, cut: &Cut, packet: &S::Packet, nth: usize) -> Result<S::Packet, DropReason> {
    let mut piece = source.fresh().ok_or(DropReason::NoRoom)?;
    piece.grow_back(cut.len_of(nth))?;
    cut.write(packet.bytes(), nth, piece.bytes_mut())?;
    piece.set_mark(packet.mark());
    Ok(piece)
}

/// How to cut an inner packet, if it may be cut.
fn cut_inner(packet: &[u8], most: usize) -> Result<Cut, DropReason> {
    let ip = IpHeader::parse(packet)?;
    if ip.dont_fragment {
        return Err(DropReason::TooBig);
    }
    Ok(Cut::new(packet, &ip, most, ip.identification.into())?)
}

/// How to cut an ESP or AH packet. Its number names the pieces: it does not come again for as long as they may be under way.
fn cut_outer(packet: &[u8], path: usize) -> Result<Cut, DropReason> {
    let ip = IpHeader::parse(packet)?;
    if ip.version == 4 && ip.dont_fragment {
        return Err(DropReason::TooBig);
    }
    // IPv4's was written when the packet was sealed, or by the host in transport mode.
    let upper = ip.upper_of(packet);
    let id = match ip.upper {
        _ if ip.version == 4 => ip.identification.into(),
        protocol::AH => AhHeader::parse(upper)?.seq,
        protocol::UDP => EspHeader::parse(upper.get(udp::LEN..).unwrap_or_default())?.seq,
        _ => EspHeader::parse(upper)?.seq,
    };
    Ok(Cut::new(packet, &ip, path, id)?)
}
