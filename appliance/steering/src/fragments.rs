//! Inner fragments follow their first one.
//!
//! Only the first fragment of a packet has ports. What is found out about it — its ports, its target — is remembered for
//! the others by source, destination, identification and protocol, for a short time. What goes in here is authentic: it
//! was opened, or comes from our own host; a packet that was only peeked at reads (I5). The memory is allocated once and
//! bounded; when a place is taken by others, the oldest goes, and its fragments find nothing, which is counted there.

use std::net::IpAddr;

use phalanx_wire::{Flow, Fragment, IpHeader, PeerId, protocol};

use crate::SteeringError;
use crate::hash::{Seed, keyed};
use crate::look::{Look, Seen, Shape, look};

/// Fragments are remembered for so long: as long as an outer one waits for the others.
pub const KEEP_MS: u64 = 2000;
/// A later fragment has a number at most this far above its first one's: they are sealed one after the other.
pub const NEAR: u64 = 256;
/// A TCP header without options: a fragment that begins or ends inside it is an attack (RFC 1858, RFC 3128).
const TCP_HEADER: u16 = 20;
/// Places that one name may have.
const WAYS: usize = 4;

/// What all fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    /// Whose SA they come or go through.
    pub peer: PeerId,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Identification.
    pub id: u32,
    /// IPv4 only: later fragments of an IPv6 packet may say something else (RFC 8200 §4.5).
    pub protocol: u8,
}

impl FragmentKey {
    /// Of a fragment.
    #[must_use]
    pub fn of(peer: PeerId, ip: &IpHeader) -> Option<FragmentKey> {
        let id = ip.fragment?.id;
        let protocol = if ip.version == 4 { ip.upper } else { 0 };
        Some(FragmentKey { peer, src: ip.src, dst: ip.dst, id, protocol })
    }

    fn hash(&self, seed: Seed) -> u64 {
        let half = |address: IpAddr| match address {
            IpAddr::V4(a) => [u64::from(a.to_bits()), 4],
            IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
        };
        let ([a, b], [c, d]) = (half(self.src), half(self.dst));
        keyed(seed, [a, b, c, d, u64::from(self.id) << 32 | u64::from(self.peer.0)], u64::from(self.protocol))
    }
}

/// What is known of first fragments. One owner; time, in milliseconds, is an argument.
#[derive(Debug)]
pub struct Firsts<V> {
    sets: Box<[[Option<First<V>>; WAYS]]>,
    seed: Seed,
}

#[derive(Clone, Copy, Debug)]
struct First<V> {
    key: FragmentKey,
    since: u64,
    value: V,
}

impl<V: Copy> Firsts<V> {
    /// Room for `limit` packets at least; `seed` must be random.
    ///
    /// # Errors
    /// Room for nothing.
    pub fn new(limit: usize, seed: Seed) -> Result<Firsts<V>, SteeringError> {
        if limit == 0 {
            return Err(SteeringError::ZeroLimit);
        }
        let sets = limit.div_ceil(WAYS).checked_next_power_of_two().ok_or(SteeringError::TooMany(limit))?;
        Ok(Firsts { sets: vec![[None; WAYS]; sets].into(), seed })
    }

    /// Packets that can be remembered.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Remembers what a first fragment showed. Where there is no room the oldest goes.
    pub fn note(&mut self, key: FragmentKey, value: V, now: u64) {
        let set = self.set(&key);
        let same = |first: &Option<First<V>>| first.is_some_and(|first| first.key == key);
        let age = |first: &Option<First<V>>| first.map_or(0, |first| first.since + 1);
        let places = &mut self.sets[set];
        let at = places.iter().position(same);
        let at = at.or_else(|| (0..WAYS).min_by_key(|&at| age(&places[at]))).unwrap_or(0);
        places[at] = Some(First { key, since: now, value });
    }

    /// What the first fragment of the same packet showed.
    #[must_use]
    pub fn find(&self, key: &FragmentKey, now: u64) -> Option<V> {
        let those = self.sets[self.set(key)].iter().flatten();
        let first = those.into_iter().find(|first| first.key == *key)?;
        (now.saturating_sub(first.since) < KEEP_MS).then_some(first.value)
    }

    fn set(&self, key: &FragmentKey) -> usize {
        key.hash(self.seed) as usize & (self.sets.len() - 1)
    }
}

/// Where the later fragments of a packet go that the router saw the first one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The first one's sequence number.
    pub number: u64,
    /// Its connection, to whose target they go; none: they stay with the router, as the first one did.
    pub flow: Option<Flow>,
}

impl Follow {
    /// A later fragment is sealed soon after its first one. So an old one is never taken for one of a new packet (I2).
    #[must_use]
    pub fn is_near(&self, number: u64) -> bool {
        number > self.number && number - self.number <= NEAR
    }
}

/// An inner fragment, as far as steering asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The first one of a TCP segment, with its header: what it would be if it were whole.
    First(Seen),
    /// Not the first one.
    Later(FragmentKey),
    /// It cuts the TCP header apart.
    Tiny,
}

impl Piece {
    /// Looks at the beginning of an inner packet of `peer`; nothing, unless it is a fragment, of TCP if it is the first.
    #[must_use]
    pub fn of(peer: PeerId, prefix: &[u8]) -> Option<Piece> {
        let ip = IpHeader::parse_prefix(prefix).ok()?;
        let Fragment { offset, .. } = ip.fragment?;
        if is_tiny(&ip) {
            return Some(Piece::Tiny);
        }
        if offset > 0 {
            return FragmentKey::of(peer, &ip).map(Piece::Later);
        }
        if ip.upper != protocol::TCP {
            return None;
        }
        let upper = prefix.get(ip.upper_offset..)?;
        match look(Shape::Payload { outer: &ip, next_header: protocol::TCP }, upper, upper.len()) {
            Look::Seen(seen @ Seen::Tcp { .. }) => Some(Piece::First(seen)),
            _ => None,
        }
    }
}

/// The fragment begins or ends inside the TCP header.
#[must_use]
pub fn is_tiny(ip: &IpHeader) -> bool {
    let Some(Fragment { offset, .. }) = ip.fragment.filter(|_| ip.upper == protocol::TCP) else { return false };
    let end = usize::from(offset) + ip.upper_len();
    (offset > 0 && offset < TCP_HEADER) || (offset == 0 && end < usize::from(TCP_HEADER))
}
