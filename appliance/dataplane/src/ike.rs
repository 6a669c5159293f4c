//! IKE at a core: what comes to port 500 or 4500 of a VIP goes to control, what control has to say goes out (RFC 7296 §2).
//!
//! Control allocates all copies before it arms the core. They go round: free, filled by the core, read by control, free again. A
//! core that finds none free, or more messages than its bucket lets through, counts and drops (I7): IKE repeats itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use phalanx_wire::{Buffer, DropReason, VipId, ip, natt, protocol, udp};

use crate::bucket::Bucket;
use crate::clock::Now;
use crate::command::Trash;
use crate::engine::Engine;
use crate::inbound_router::Arrived;
use crate::notes::Fact;
use crate::packet::Source;
use crate::stats::Stage;

/// Messages per second that a core hands over, and how many at once.
pub(crate) const PER_SECOND: u64 = 20_000;
pub(crate) const AT_ONCE: u64 = 2_000;

/// An IKE message, without the marker that stands in front of it on port 4500.
#[derive(Debug)]
pub struct IkeDatagram {
    /// Between which VIP...
    pub vip: VipId,
    /// ...its address with port 500 or 4500...
    pub local: SocketAddr,
    /// ...and whom.
    pub remote: SocketAddr,
    /// From the IKE header on. In a [`Mailbox`] allocated once.
    pub bytes: Vec<u8>,
}

struct Round {
    free: ArrayQueue<Box<IkeDatagram>>,
    filled: ArrayQueue<Box<IkeDatagram>>,
    size: usize,
}

/// Received IKE messages: control's end.
#[derive(Clone)]
pub struct Mailbox(Arc<Round>);

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("filled", &self.0.filled.len()).finish()
    }
}

impl Mailbox {
    /// Allocates so many messages of up to `size` bytes.
    #[must_use]
    pub fn new(messages: usize, size: usize) -> Mailbox {
        let messages = messages.max(1);
        let (free, filled) = (ArrayQueue::new(messages), ArrayQueue::new(messages));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        for _ in 0..messages {
            let bytes = Vec::with_capacity(size);
            let empty = IkeDatagram { vip: VipId(0), local: nowhere, remote: nowhere, bytes };
            let _ = free.push(Box::new(empty)); // as long as that many
        }
        Mailbox(Arc::new(Round { free, filled, size }))
    }

    /// What arms a core: see [`Command::HearIke`](crate::Command::HearIke).
    #[must_use]
    pub fn slot(&self) -> MailSlot {
        MailSlot { round: self.0.clone() }
    }

    /// Shows the next message, if there is one. Cores cannot wake anybody: ask about every millisecond.
    pub fn next<T>(&self, look: impl FnOnce(&IkeDatagram) -> T) -> Option<T> {
        let message = self.0.filled.pop()?;
        let seen = look(&message);
        let _ = self.0.free.push(message); // it came from there
        Some(seen)
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.filled.is_empty()
    }
}

/// The end of a core that hears IKE.
pub struct MailSlot {
    round: Arc<Round>,
}

impl fmt::Debug for MailSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailSlot")
    }
}

impl MailSlot {
    /// Copies a message.
    fn put(&self, vip: VipId, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) -> Result<(), DropReason> {
        if bytes.len() > self.round.size {
            return Err(DropReason::TooBig);
        }
        let mut message = self.round.free.pop().ok_or(DropReason::IkeFull)?;
        (message.vip, message.local, message.remote) = (vip, local, remote);
        message.bytes.clear();
        // It has room for that: no allocation (I7).
        message.bytes.extend_from_slice(bytes);
        let _ = self.round.filled.push(message); // there are as many places as messages
        Ok(())
    }
}

/// What a core has for IKE.
pub(crate) struct IkeSide {
    pub(crate) slot: Option<MailSlot>,
    bucket: Bucket,
}

impl IkeSide {
    pub(crate) fn new() -> IkeSide {
        IkeSide { slot: None, bucket: Bucket::new(PER_SECOND, AT_ONCE) }
    }
}

impl<S: Source> Engine<S> {
    /// An IKE message to one of this core's VIPs.
    pub(crate) fn hear_ike(&mut self, arrived: Arrived<S::Packet>, now: Now) {
        let heard = self.hand_over(&arrived, now);
        let Err(reason) = heard else {
            self.out.passed(Stage::IkeHeard, 1);
            return self.out.note(&arrived.packet, || Fact::Local);
        };
        self.out.drop(arrived.packet, reason);
    }

    fn hand_over(&mut self, arrived: &Arrived<S::Packet>, now: Now) -> Result<(), DropReason> {
        let slot = self.ike.slot.as_ref().ok_or(DropReason::Ike)?;
        let (ip, bytes) = (&arrived.ip, arrived.packet.bytes());
        let natt::Content::Ike(ike) = natt::Content::of(ip, bytes)? else { return Err(DropReason::Ike) };
        if !udp::checksum_ok(ip.src, ip.dst, ip.upper_of(bytes)) {
            return Err(DropReason::BadChecksum);
        }
        let vip = self.tables.vips.at(arrived.vip).ok_or(DropReason::NotForUs)?.entry.id;
        if !self.ike.bucket.take(now) {
            return Err(DropReason::IkeRate);
        }
        slot.put(vip, SocketAddr::new(ip.dst, ike.to), SocketAddr::new(ip.src, ike.from), ike.message)
    }

    /// Sends a message of control's from a VIP; what carried it goes back.
    pub(crate) fn send_ike(&mut self, message: Box<IkeDatagram>, now: Now) {
        let made = self.ike_packet(&message);
        self.mail.answer(crate::command::Event::Trash(Trash::Ike(message)));
        let (port, packet) = match made {
            Ok(made) => made,
            Err(reason) => return self.out.stats.dropped(reason, 1),
        };
        self.out.passed(Stage::IkeSent, 1);
        let mtu = self.world.ports[port].mtu;
        if packet.bytes().len() > mtu {
            return self.cut(packet, mtu, |engine, piece| engine.send(port, piece, now));
        }
        self.send(port, packet, now);
    }

    /// 1. only from a VIP that is routed here (I6); 2. IP and UDP header, marker, message; 3. the checksum.
    fn ike_packet(&mut self, message: &IkeDatagram) -> Result<(usize, S::Packet), DropReason> {
        let (src, dst) = (message.local.ip(), message.remote.ip());
        let ours = self.tables.vips.by_id(message.vip).filter(|vip| vip.entry.router_core.is_some());
        ours.filter(|vip| vip.entry.address == src).ok_or(DropReason::SpoofedVip)?;
        let (port, _) = self.world.route(dst).ok_or(DropReason::NoNeighbour)?;
        let marker: &[u8] = if message.local.port() == natt::PORT { &natt::NON_ESP_MARKER } else { &[] };
        let len = udp::LEN + marker.len() + message.bytes.len();
        let at = ip::header_len(src);
        let mut packet = self.room_for(at + len)?;
        let bytes = packet.bytes_mut();
        let fields = ip::Fields {
            src,
            dst,
            protocol: protocol::UDP,
            payload_len: len,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            // Whatever MTU its path has, a message arrives (RFC 7296 §2).
            dont_fragment: false,
            identification: self.fragments.next_id() as u16,
        };
        ip::write_header(bytes, &fields)?;
        let ports = udp::UdpHeader {
            src_port: message.local.port(),
            dst_port: message.remote.port(),
            len: u16::try_from(len).map_err(|_| DropReason::TooBig)?,
            checksum: 0,
        };
        ports.write(&mut bytes[at..])?;
        let payload = &mut bytes[at + udp::LEN..];
        payload[..marker.len()].copy_from_slice(marker);
        payload[marker.len()..].copy_from_slice(&message.bytes);
        udp::set_checksum(src, dst, &mut bytes[at..])?;
        Ok((port, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_free_place_is_refused_and_places_are_used_again_without_growing() {
        let mailbox = Mailbox::new(2, 8);
        let (slot, place) = (mailbox.slot(), SocketAddr::from(([10, 0, 0, 1], 500)));
        for _ in 0..3 {
            let put = |bytes: &[u8]| slot.put(VipId(1), place, place, bytes);
            assert_eq!(put(b"too large"), Err(DropReason::TooBig));
            assert_eq!((put(b"one"), put(b"two"), put(b"three")), (Ok(()), Ok(()), Err(DropReason::IkeFull)));
            let seen: Vec<(Vec<u8>, usize)> =
                std::iter::from_fn(|| mailbox.next(|m| (m.bytes.clone(), m.bytes.capacity()))).collect();
            assert_eq!(seen, [(b"one".to_vec(), 8), (b"two".to_vec(), 8)]);
            assert!(mailbox.is_empty());
        }
    }
}
