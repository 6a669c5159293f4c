//! Connections that the application opens (R20): the first packet waits, bounded, until the VIP's router has the connection's
//! entry. Without it the answer would find nobody: a router takes what it does not know for its own.

use phalanx_ipsec::OutboundIndex;
use phalanx_steering::ConnKey;
use phalanx_wire::{Buffer, DropReason, Flow, IpHeader, SaId, TargetId, TcpFlags, TcpHeader, ipv6, protocol};

use crate::clock::Now;
use crate::command::{Event, Outcome, Refused};
use crate::engine::Engine;
use crate::notes::{Fact, For};
use crate::outbound::{Burst, Outgoing};
use crate::packet::Source;
use crate::stats::Stage;
use crate::waiting::Waiting;

/// Packets that wait at a time, each of another connection.
const PACKETS: usize = 128;
/// None waits longer than this: its sender repeats it after a second (RFC 6298 §2.1).
const WAIT_MS: u64 = 900;

/// Where a TCP header has its flags (RFC 9293 §3.1).
const FLAGS_AT: usize = 13;

/// See the module.
pub(crate) type NewConnections<P> = Waiting<ConnKey, P, PACKETS>;

/// By the shortest look, which each packet pays for: false is certain.
#[inline]
fn may_open(packet: &[u8]) -> bool {
    let at = match packet {
        [first, ..] if first >> 4 == 4 && packet.get(9) == Some(&protocol::TCP) => usize::from(first & 15) * 4,
        [first, ..] if first >> 4 == 6 && packet.get(ipv6::NEXT_HEADER_FIELD) == Some(&protocol::TCP) => ipv6::LEN,
        // Extension headers are rare.
        [first, ..] => return first >> 4 == 6 && packet.get(ipv6::NEXT_HEADER_FIELD) != Some(&protocol::UDP),
        [] => return false,
    };
    packet.get(at + FLAGS_AT).is_some_and(|flags| flags & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN)
}

impl<S: Source> Engine<S> {
    /// A packet of the application whose SA is found: into the burst, or aside, if it opens a connection.
    #[inline]
    pub(crate) fn out_or_aside(&mut self, burst: &mut Burst<S::Packet>, one: Outgoing<S::Packet>, now: Now) {
        match self.opens(one.sa, one.packet.bytes()) {
            None => self.enlist(burst, one, now),
            // As an ordinary endpoint: what the router does not know is its own.
            Some(key) if !self.target.enabled => match self.router.table.lookup(&key) {
                Some(_) => self.out.drop(one.packet, DropReason::PortTaken),
                None => self.enlist(burst, one, now),
            },
            Some(key) => self.want_connection(key, one, now),
        }
    }

    /// The connection that a packet opens: a SYN, of none that is known.
    fn opens(&self, at: OutboundIndex, packet: &[u8]) -> Option<ConnKey> {
        let ip = Some(packet).filter(|packet| may_open(packet)).and_then(|packet| IpHeader::parse(packet).ok())?;
        if ip.upper != protocol::TCP || ip.fragment.is_some() {
            return None;
        }
        let upper = ip.upper_of(packet);
        TcpHeader::parse_prefix(upper).ok().filter(|tcp| tcp.flags.opens())?;
        let key = ConnKey { peer: self.tables.cache.outbound(at)?.peer(), flow: Flow::of_outbound(&ip, upper).ok()? };
        self.target.tracker.state(&key).is_none().then_some(key)
    }

    fn want_connection(&mut self, key: ConnKey, one: Outgoing<S::Packet>, now: Now) {
        let Some(sa) = self.tables.cache.outbound(one.sa) else { return self.out.drop(one.packet, DropReason::NoSa) };
        let (vip, sa) = (sa.params().vip, sa.id());
        if !self.new.has_room(&key, 1) {
            return self.out.drop(one.packet, DropReason::ConnWait);
        }
        self.out.passed(Stage::HeldForConnection, 1);
        self.out.note(&one.packet, || Fact::Held(For::Connection));
        self.new.push(key, one.packet, now.ms());
        self.mail.tell(Event::ConnWanted { core: self.id, vip, key, sa });
    }

    /// The router has the entry, or will not have it.
    pub(crate) fn connection_answered(&mut self, key: &ConnKey, refused: Option<DropReason>, now: Now) {
        let Some(packet) = self.new.take(key) else { return };
        match refused {
            // Its SA may be another one by now.
            None => self.send_own(packet, now),
            Some(reason) => self.out.drop(packet, reason),
        }
    }

    /// As the router: an entry for a connection that a target is about to open.
    pub(crate) fn open_for_target(
        &mut self,
        key: &ConnKey,
        target: TargetId,
        inbound: Option<SaId>,
        now: Now,
    ) -> Result<Outcome, Refused> {
        // I2: late packets of one that ended a moment ago may have been accepted by another target.
        if self.router.ended.has(key, now.ms()) {
            return Err(Refused::PortTaken);
        }
        match self.router.table.insert(key, target, now.ms()) {
            Ok(owner) if owner == target => {}
            Ok(_) => return Err(Refused::PortTaken),
            Err(_) => return Err(Refused::TableFull),
        }
        // I2: what a target that is gone may have accepted is not of it.
        if let Some(at) = inbound.and_then(|sa| self.tables.cache.find_inbound(sa))
            && let Some(sa) = self.tables.cache.inbound(at)
        {
            self.router.table.begin(key, sa.spi(), sa.notes.late.saturating_add(1));
        }
        Ok(Outcome::Applied)
    }

    /// Gives up what waited too long.
    pub(crate) fn tend_new_connections(&mut self, now: Now) {
        while let Some(packet) = self.new.expired(now.ms(), WAIT_MS) {
            self.out.drop(packet, DropReason::ConnWait);
        }
    }
}
