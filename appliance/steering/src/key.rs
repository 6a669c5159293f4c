//! What names a connection, and its packed form in a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use phalanx_wire::{Endpoint, Flow, PeerId};

use crate::hash::{Seed, keyed};

/// A connection: who it is with, and the inner protocol, addresses and ports. Two peers that use the same inner
/// address stay apart (ARCHITECTURE "Who gets a new connection").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ConnKey {
    /// The peer whose SA the packets come through.
    pub peer: PeerId,
    /// Inner protocol, addresses and ports; the local end is ours.
    pub flow: Flow,
}

/// A [`ConnKey`] in 42 bytes with an alignment that lets a table entry fit a cache line.
#[derive(Clone, Copy, Eq, Default)]
#[repr(C)]
pub(crate) struct PackedKey {
    local: [u8; 16],
    remote: [u8; 16],
    /// In halves, for the alignment.
    peer: [u16; 2],
    local_port: u16,
    remote_port: u16,
    protocol: u8,
    /// Bit 0: the local address is IPv6; bit 1: the remote one is. So an IPv4 address never equals an IPv4-mapped one. [`SOME`]: this is a
    /// key at all; what is free in a table has none, which is all zeros.
    families: u8,
}

const SOME: u8 = 4;

/// Word by word, and no branch between: where tags are the same, keys nearly always are.
impl PartialEq for PackedKey {
    #[inline]
    fn eq(&self, other: &PackedKey) -> bool {
        let addresses = (u128::from_ne_bytes(self.local) ^ u128::from_ne_bytes(other.local))
            | (u128::from_ne_bytes(self.remote) ^ u128::from_ne_bytes(other.remote));
        let rest = (self.ends() ^ other.ends()) | (self.kind() ^ other.kind());
        addresses | u128::from(rest) == 0
    }
}

impl PackedKey {
    /// Two IPv4 addresses take one word.
    #[inline(always)]
    pub(crate) fn hash(&self, seed: Seed) -> u64 {
        if self.families == SOME {
            let word = |[a, b, c, d, ..]: [u8; 16]| u64::from(u32::from_ne_bytes([a, b, c, d]));
            return keyed(seed, [word(self.local) << 32 | word(self.remote), self.ends()], self.kind());
        }
        let halves = |address: [u8; 16]| {
            let bits = u128::from_ne_bytes(address);
            [(bits >> 64) as u64, bits as u64]
        };
        let ([a, b], [c, d]) = (halves(self.local), halves(self.remote));
        keyed(seed, [a, b, c, d, self.ends()], self.kind())
    }

    #[inline]
    fn ends(&self) -> u64 {
        u64::from(self.peer().0) << 32 | u64::from(self.local_port) << 16 | u64::from(self.remote_port)
    }

    #[inline]
    fn kind(&self) -> u64 {
        u64::from(self.protocol) << 8 | u64::from(self.families)
    }

    #[inline]
    pub(crate) fn peer(&self) -> PeerId {
        PeerId(join(self.peer))
    }
}

impl From<&ConnKey> for PackedKey {
    #[inline]
    fn from(key: &ConnKey) -> Self {
        let (local, local_is_v6) = pack(key.flow.local.addr);
        let (remote, remote_is_v6) = pack(key.flow.remote.addr);
        PackedKey {
            local,
            remote,
            peer: split(key.peer.0),
            local_port: key.flow.local.port,
            remote_port: key.flow.remote.port,
            protocol: key.flow.protocol,
            families: SOME | local_is_v6 | remote_is_v6 << 1,
        }
    }
}

impl From<&PackedKey> for ConnKey {
    fn from(key: &PackedKey) -> Self {
        let local = Endpoint { addr: unpack(&key.local, key.families & 1), port: key.local_port };
        let remote = Endpoint { addr: unpack(&key.remote, key.families >> 1 & 1), port: key.remote_port };
        ConnKey { peer: key.peer(), flow: Flow { protocol: key.protocol, local, remote } }
    }
}

/// A number in halves, for a field that asks for little alignment.
#[inline]
pub(crate) const fn split(number: u32) -> [u16; 2] {
    [number as u16, (number >> 16) as u16]
}

#[inline]
pub(crate) const fn join([low, high]: [u16; 2]) -> u32 {
    (high as u32) << 16 | low as u32
}

#[inline(always)]
fn pack(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (bytes, 0)
        }
        IpAddr::V6(v6) => (v6.octets(), 1),
    }
}

fn unpack(bytes: &[u8; 16], is_v6: u8) -> IpAddr {
    match is_v6 {
        0 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => Ipv6Addr::from(*bytes).into(),
    }
}

/// A number of 48 bits in a field that asks for little room and alignment: milliseconds of the caller's clock, for 8,900
/// years; sequence numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp([u16; 3]);

impl Stamp {
    pub(crate) const BITS: u32 = 48;

    #[inline]
    pub(crate) const fn at(ms: u64) -> Self {
        Stamp([ms as u16, (ms >> 16) as u16, (ms >> 32) as u16])
    }

    #[inline]
    pub(crate) const fn ms(self) -> u64 {
        (self.0[2] as u64) << 32 | (self.0[1] as u64) << 16 | self.0[0] as u64
    }
}
