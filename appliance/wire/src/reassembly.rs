//! Bounded reassembly of IPv4 (RFC 791, RFC 815) and IPv6 fragments (RFC 8200 §4.5).
//!
//! Fragments stay the packet buffers they came in until their datagram is whole; then it is copied once, into one large
//! buffer. Everything is allocated at construction. Whatever is wrong with a datagram ends all of it: overlaps
//! (RFC 5722), too many fragments, too large, too late, or pushed out where a limit is reached. Then the oldest goes: a
//! genuine datagram's fragments come one after the other, those of an attack lie around.
//!
//! Atomic fragments (RFC 6946) are whole packets: [`IpHeader`] shows no fragment in them, so they never come here.

use std::net::IpAddr;

use crate::ip::{self, IpHeader};
use crate::{Buffer, DropReason, NoRoom, ipv4, ipv6};

/// How much reassembly may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// A datagram is given up so long after its first fragment came, in milliseconds.
    pub timeout_ms: u64,
    /// Datagrams in all, those included that are over but remembered until their time is up.
    pub datagrams: usize,
    /// Datagrams from one source address.
    pub datagrams_per_source: usize,
    /// Bytes in fragments from one source address, their headers included.
    pub bytes_per_source: usize,
    /// Fragments of one datagram.
    pub fragments: usize,
    /// Bytes of a whole packet, its header included.
    pub size: usize,
}

impl Default for ReassemblyLimits {
    fn default() -> ReassemblyLimits {
        ReassemblyLimits {
            timeout_ms: 2000,
            datagrams: 64,
            datagrams_per_source: 16,
            bytes_per_source: 64 << 10,
            fragments: 24,
            size: 9216,
        }
    }
}

/// Fragments of datagrams that are not whole yet. One owner; time is an argument.
#[derive(Debug)]
pub struct Reassembly<B> {
    limits: ReassemblyLimits,
    slots: Box<[Slot<B>]>,
    used: usize,
}

/// What names a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only (RFC 791 §2.3); fragments of an IPv6 packet need not agree on it (RFC 8200 §4.5).
    protocol: u8,
}

#[derive(Debug)]
struct Slot<B> {
    key: Option<Key>,
    since: u64,
    /// It is over, for this reason; further fragments go the same way (RFC 5722 §4).
    over: Option<DropReason>,
    /// Length of the whole data, once the last fragment is here.
    end: Option<usize>,
    /// Bytes of data that are here.
    have: usize,
    /// Bytes of the fragments that are here.
    bytes: usize,
    /// In order of their offsets.
    parts: Box<[Option<Part<B>>]>,
    len: usize,
}

/// One fragment.
#[derive(Debug)]
struct Part<B> {
    packet: B,
    place: Place,
}

/// Where a fragment's data is and belongs.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Offset of the data in the fragment.
    at: usize,
    len: usize,
    /// Offset of the data in the datagram's data.
    offset: usize,
    more: bool,
    /// IPv6: the byte that says "fragment header".
    field: usize,
    ecn: u8,
}

impl Place {
    fn end(&self) -> usize {
        self.offset + self.len
    }

    /// Header bytes in front of the whole packet's data.
    fn head(&self, v4: bool) -> usize {
        if v4 { self.at } else { self.at - ipv6::FRAGMENT_LEN }
    }
}

impl<B: Buffer> Reassembly<B> {
    /// Allocates everything it will need.
    #[must_use]
    pub fn new(limits: ReassemblyLimits) -> Reassembly<B> {
        let slot = || Slot {
            key: None,
            since: 0,
            over: None,
            end: None,
            have: 0,
            bytes: 0,
            parts: (0..limits.fragments).map(|_| None).collect(),
            len: 0,
        };
        Reassembly { limits, slots: (0..limits.datagrams).map(|_| slot()).collect(), used: 0 }
    }

    /// Datagrams that are not whole, those included that are over.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.used
    }

    /// Buffers that are held.
    #[must_use]
    pub fn fragments(&self) -> usize {
        self.slots.iter().map(|slot| slot.len).sum()
    }

    /// Takes in a fragment: `packet` begins with the IP header that `ip` describes and ends with the IP packet. If it
    /// completes its datagram, the result is the whole packet, in the empty buffer that `large` gives for so many bytes;
    /// it may look at the first fragment. What is dropped goes to `dropped` with its reason.
    pub fn add(
        &mut self,
        packet: B,
        ip: &IpHeader,
        now_ms: u64,
        large: impl FnOnce(&B, usize) -> Option<B>,
        mut dropped: impl FnMut(B, DropReason),
    ) -> Option<B> {
        let Some((key, place)) = place(&packet, ip) else {
            dropped(packet, DropReason::BadIp);
            return None;
        };
        let at = match self.find(&key) {
            Some(at) if self.expired(at, now_ms) => {
                self.free(at, DropReason::FragmentTimeout, &mut dropped);
                self.start(key, now_ms, &mut dropped)
            }
            Some(at) => Some(at),
            None => self.start(key, now_ms, &mut dropped),
        };
        let Some(at) = at else {
            dropped(packet, DropReason::FragmentLimit);
            return None;
        };
        if let Some(reason) = self.slots[at].over {
            dropped(packet, reason);
            return None;
        }
        self.fit_bytes(at, packet.bytes().len(), &mut dropped);
        let slot = &mut self.slots[at];
        let full = slot.bytes + packet.bytes().len() > self.limits.bytes_per_source;
        let verdict = if place.head(ip.version == 4) + place.end() > self.limits.size {
            Err(DropReason::FragmentTooBig)
        } else if full {
            Err(DropReason::FragmentLimit)
        } else {
            slot.room_for(&packet, &place)
        };
        match verdict {
            Ok(Some(position)) => slot.insert(position, packet, place),
            Ok(None) => {
                dropped(packet, DropReason::FragmentDuplicate);
                return None;
            }
            Err(reason) => {
                slot.end_all(reason, &mut dropped);
                dropped(packet, reason);
                return None;
            }
        }
        if slot.end != Some(slot.have) {
            return None;
        }
        match slot.assemble(self.limits.size, large) {
            Ok(whole) => {
                slot.clear();
                self.used -= 1;
                Some(whole)
            }
            Err(reason) => {
                self.free(at, reason, &mut dropped);
                None
            }
        }
    }

    /// Gives up what waited too long, at most `budget` datagrams.
    pub fn tend(&mut self, now_ms: u64, budget: usize, mut dropped: impl FnMut(B, DropReason)) {
        let mut left = if self.used == 0 { 0 } else { budget };
        for at in 0..self.slots.len() {
            if left == 0 {
                return;
            }
            if self.slots[at].key.is_some() && self.expired(at, now_ms) {
                self.free(at, DropReason::FragmentTimeout, &mut dropped);
                left -= 1;
            }
        }
    }

    fn find(&self, key: &Key) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        self.slots.iter().position(|slot| slot.key.as_ref() == Some(key))
    }

    fn expired(&self, at: usize, now_ms: u64) -> bool {
        now_ms >= self.slots[at].since + self.limits.timeout_ms
    }

    /// A slot for a new datagram; the oldest of its source, or of all, makes room.
    fn start(&mut self, key: Key, now_ms: u64, dropped: &mut impl FnMut(B, DropReason)) -> Option<usize> {
        let of_source = self.slots.iter().filter(|slot| slot.is_from(key.src)).count();
        if of_source >= self.limits.datagrams_per_source {
            let oldest = self.oldest(|_, slot| slot.is_from(key.src))?;
            self.free(oldest, DropReason::FragmentLimit, dropped);
        } else if self.used == self.slots.len() {
            let oldest = self.oldest(|_, slot| slot.key.is_some())?;
            self.free(oldest, DropReason::FragmentLimit, dropped);
        }
        let at = self.slots.iter().position(|slot| slot.key.is_none())?;
        (self.slots[at].key, self.slots[at].since) = (Some(key), now_ms);
        self.used += 1;
        Some(at)
    }

    /// Other datagrams of its source make room for so many more bytes of the one at `at`, the oldest first.
    fn fit_bytes(&mut self, at: usize, more: usize, dropped: &mut impl FnMut(B, DropReason)) {
        let Some(src) = self.slots[at].key.map(|key| key.src) else { return };
        let of_source = self.slots.iter().filter(|slot| slot.is_from(src));
        let mut bytes = of_source.map(|slot| slot.bytes).sum::<usize>() + more;
        while bytes > self.limits.bytes_per_source {
            let other = |n: usize, slot: &Slot<B>| n != at && slot.bytes > 0 && slot.is_from(src);
            let Some(oldest) = self.oldest(other) else { return };
            bytes -= self.slots[oldest].bytes;
            self.free(oldest, DropReason::FragmentLimit, dropped);
        }
    }

    fn oldest(&self, of: impl Fn(usize, &Slot<B>) -> bool) -> Option<usize> {
        let those = self.slots.iter().enumerate().filter(|(at, slot)| of(*at, slot));
        those.min_by_key(|(_, slot)| slot.since).map(|(at, _)| at)
    }

    fn free(&mut self, at: usize, reason: DropReason, dropped: &mut impl FnMut(B, DropReason)) {
        self.slots[at].end_all(reason, dropped);
        self.slots[at].clear();
        self.used -= 1;
    }
}

impl<B: Buffer> Slot<B> {
    fn is_from(&self, src: IpAddr) -> bool {
        self.key.is_some_and(|key| key.src == src)
    }

    /// Where a fragment goes among the others; nowhere, if it is here already (RFC 8200 §4.5 lets a copy pass).
    fn room_for(&self, packet: &B, new: &Place) -> Result<Option<usize>, DropReason> {
        let parts = &self.parts[..self.len];
        let offset = |part: &Option<Part<B>>| part.as_ref().is_some_and(|part| part.place.offset < new.offset);
        let position = parts.partition_point(offset);
        if let Some(Some(next)) = parts.get(position) {
            let same = next.place.offset == new.offset && next.place.len == new.len && next.place.more == new.more;
            if same && next.data() == &packet.bytes()[new.at..new.at + new.len] {
                return Ok(None);
            }
            if next.place.offset < new.end() {
                return Err(DropReason::FragmentOverlap);
            }
        }
        let before = position.checked_sub(1).and_then(|at| parts[at].as_ref());
        let last = parts.last().and_then(Option::as_ref).map_or(0, |part| part.place.end());
        let past_end = self.end.is_some_and(|end| new.end() > end || !new.more);
        let not_last = !new.more && last > new.end();
        if before.is_some_and(|part| part.place.end() > new.offset) || past_end || not_last {
            return Err(DropReason::FragmentOverlap);
        }
        if self.len == self.parts.len() {
            return Err(DropReason::FragmentTooMany);
        }
        Ok(Some(position))
    }

    fn insert(&mut self, position: usize, packet: B, place: Place) {
        self.have += place.len;
        self.bytes += packet.bytes().len();
        if !place.more {
            self.end = Some(place.end());
        }
        self.parts[self.len] = Some(Part { packet, place });
        self.parts[position..=self.len].rotate_right(1);
        self.len += 1;
    }

    /// Copies header and data into one buffer. No two parts overlap and they are as long as the whole: none is missing.
    fn assemble(&self, most: usize, large: impl FnOnce(&B, usize) -> Option<B>) -> Result<B, DropReason> {
        let (Some(first), Some(end)) = (self.parts.first().and_then(Option::as_ref), self.end) else {
            return Err(DropReason::BadIp);
        };
        let v4 = self.key.is_some_and(|key| key.src.is_ipv4());
        let head = first.place.head(v4);
        if head + end > most {
            return Err(DropReason::FragmentTooBig);
        }
        let ecn = self.ecn()?;
        let mut whole = large(&first.packet, head + end).ok_or(DropReason::NoRoom)?;
        whole.grow_back(head + end).map_err(|NoRoom| DropReason::NoRoom)?;
        let out = whole.bytes_mut();
        out[..head].copy_from_slice(&first.packet.bytes()[..head]);
        for part in self.parts[..self.len].iter().flatten() {
            out[head + part.place.offset..head + part.place.end()].copy_from_slice(part.data());
        }
        if v4 {
            ipv4::set_fragment(out, 0, false)?;
        } else {
            ip::set_upper(out, first.place.field, first.packet.bytes()[head])?;
        }
        ip::set_total_len(out, head + end)?;
        if let Some(class) = ecn {
            ip::set_traffic_class(out, class)?;
        }
        Ok(whole)
    }

    /// RFC 3168 §5.3: a congestion mark on one is one on all, unless some fragment says that it cannot be marked.
    fn ecn(&self) -> Result<Option<u8>, DropReason> {
        const CE: u8 = 3;
        let parts = || self.parts[..self.len].iter().flatten().map(|part| part.place.ecn);
        if !parts().any(|class| class & CE == CE) {
            return Ok(None);
        }
        if parts().any(|class| class & CE == 0) {
            return Err(DropReason::BadIp);
        }
        Ok(parts().next().map(|class| class | CE))
    }

    /// Gives the buffers up; the slot stays, to remember it.
    fn end_all(&mut self, reason: DropReason, dropped: &mut impl FnMut(B, DropReason)) {
        self.over = Some(reason);
        (self.len, self.bytes, self.have, self.end) = (0, 0, 0, None);
        self.parts.iter_mut().filter_map(Option::take).for_each(|part| dropped(part.packet, reason));
    }

    fn clear(&mut self) {
        self.parts[..self.len].iter_mut().for_each(|part| *part = None);
        (self.key, self.over, self.end) = (None, None, None);
        (self.len, self.bytes, self.have) = (0, 0, 0);
    }
}

impl<B: Buffer> Part<B> {
    fn data(&self) -> &[u8] {
        &self.packet.bytes()[self.place.at..self.place.at + self.place.len]
    }
}

/// Name and place of a fragment; none if it cannot be one: without data, or not the last and not in units of 8 bytes.
fn place<B: Buffer>(packet: &B, ip: &IpHeader) -> Option<(Key, Place)> {
    let fragment = ip.fragment?;
    let v4 = ip.version == 4;
    let (at, field) = if v4 {
        (ip.upper_offset, ipv4::PROTOCOL_FIELD)
    } else {
        let (header, field) = ipv6::fragment_header(packet.bytes())?;
        (header + ipv6::FRAGMENT_LEN, field)
    };
    let len = ip.total_len.min(packet.bytes().len()).checked_sub(at)?;
    if len == 0 || (fragment.more && !len.is_multiple_of(8)) {
        return None;
    }
    let (offset, more, ecn) = (usize::from(fragment.offset), fragment.more, ip.traffic_class);
    let key = Key { src: ip.src, dst: ip.dst, id: fragment.id, protocol: if v4 { ip.upper } else { 0 } };
    Some((key, Place { at, len, offset, more, field, ecn }))
}
