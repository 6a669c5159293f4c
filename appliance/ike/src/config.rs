//! What an [`Endpoint`](crate::Endpoint) is told about its peers.

use phalanx_ipsec::{Algorithm, PortRange, Prefix};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::{Credentials, Identity, IdentityPattern, Trust};
use crate::crypto::{Cipher, Group, Prf, Secret};
use crate::{ChildMode, Millis, Path};

/// Everything. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Who we speak with, in the order of the file: among equals the first that fits is taken.
    pub peers: Vec<Arc<PeerConfig>>,
    /// How much of anything there may be.
    pub limits: Limits,
    /// When a message is sent again.
    pub retransmission: Retransmission,
    /// Inbound SPIs that belong to others: static SAs.
    pub taken_spis: BTreeSet<u32>,
    /// Writes every IKE SA's keys for Wireshark. Whoever has them reads everything.
    pub key_log: bool,
}

impl Config {
    /// The peer of that name.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<&Arc<PeerConfig>> {
        self.peers.iter().find(|p| &*p.name == name)
    }

    /// Peers that may be at the other end of a path, those first whose address, then whose identity, is given most closely.
    pub(crate) fn candidates(&self, path: &Path) -> Vec<Arc<PeerConfig>> {
        let fits = |p: &&Arc<PeerConfig>| p.local == path.local.ip() && p.remote.fits(path.remote.ip()) > 0;
        let mut found: Vec<_> = self.peers.iter().filter(fits).cloned().collect();
        found.sort_by_key(|p| std::cmp::Reverse((p.remote.fits(path.remote.ip()), p.remote_id.precision())));
        found
    }
}

/// Bounds. What is beyond is refused and counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IKE SAs in all, half-open ones among them.
    pub ike_sas: usize,
    /// Half-open IKE SAs that peers began.
    pub half_open: usize,
    /// Half-open IKE SAs above which a peer first has to show that it is where it says (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open IKE SAs from one address.
    pub half_open_per_source: usize,
    /// CHILD_SAs of one IKE SA, those being replaced among them.
    pub children_per_ike: usize,
    /// Milliseconds for which an IKE SA may be half-open.
    pub half_open_ms: Millis,
    /// Milliseconds for which a CHILD_SA may take to be installed.
    pub install_ms: Millis,
    /// Milliseconds for which a replaced SA waits for the peer's delete.
    pub replaced_ms: Millis,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ike_sas: 32_768,
            half_open: 8192,
            cookie_threshold: 64,
            half_open_per_source: 1024,
            children_per_ike: 32,
            half_open_ms: 30_000,
            install_ms: 5_000,
            replaced_ms: 30_000,
        }
    }
}

/// A request is sent again after `first_ms`, then after 1.8 times as long each time, `tries` times (RFC 7296 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// Milliseconds until the first repetition.
    pub first_ms: Millis,
    /// Repetitions; then the peer is taken for dead.
    pub tries: u32,
}

impl Retransmission {
    /// Milliseconds from a request until its peer is taken for dead.
    #[must_use]
    pub fn whole_ms(&self) -> Millis {
        let waits = std::iter::successors(Some(self.first_ms), |wait| Some(longer(*wait)));
        waits.take(self.tries as usize + 1).fold(0, Millis::saturating_add)
    }
}

/// The next wait after one.
pub(crate) fn longer(wait: Millis) -> Millis {
    wait.saturating_mul(9) / 5
}

impl Default for Retransmission {
    fn default() -> Retransmission {
        // 0.5 s, 0.9 s, ... : 38 s in all.
        Retransmission { first_ms: 500, tries: 6 }
    }
}

/// Where a peer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Anywhere: it has to begin.
    Any,
    /// At one address.
    Address(IpAddr),
    /// In a block: it has to begin.
    Block(Prefix),
}

impl Remote {
    /// The address to begin with.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Remote::Address(address) => Some(*address),
            Remote::Any | Remote::Block(_) => None,
        }
    }

    /// The peer may be there. More than 0: how closely that was said.
    #[must_use]
    pub fn fits(&self, address: IpAddr) -> u16 {
        match self {
            Remote::Any => 1,
            Remote::Address(a) => u16::from(*a == address) * 1000,
            Remote::Block(block) if block.contains(address) => 2 + u16::from(block.prefix_len()),
            Remote::Block(_) => 0,
        }
    }
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum Credential {
    /// By a secret that both know.
    Psk(Secret),
    /// By a signature with the key of our certificate.
    Certificate(Arc<Credentials>),
}

/// How the peer is to prove who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// By a secret that both know.
    Psk(Secret),
    /// By a signature with the key of a certificate.
    Certificate(Arc<Trust>),
}

/// One peer, or several that are treated alike.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Unique.
    pub name: Arc<str>,
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: Remote,
    /// Who we are.
    pub local_id: Identity,
    /// Who the peer has to be.
    pub remote_id: IdentityPattern,
    /// How we prove it.
    pub credential: Credential,
    /// How the peer proves it.
    pub proof: Proof,
    /// What protects IKE itself.
    pub proposal: IkeProposal,
    /// Its CHILD_SAs.
    pub children: Vec<Arc<ChildConfig>>,
    /// When the IKE SA's keys are replaced, and when it ends.
    pub lifetime: Lifetime,
    /// The IKE SA is made anew with authentication instead of getting new keys.
    pub reauthenticate: bool,
    /// Milliseconds without a sign of the peer after which it is asked for one; 0: never.
    pub liveness_ms: Millis,
    /// Milliseconds without a message after which a NAT in front of us gets a keepalive; 0: never.
    pub keepalive_ms: Millis,
    /// Largest IKE datagram in bytes, IP and UDP headers included, where the peer can put fragments together (RFC 7383); 0: never cut.
    pub fragment: u16,
    /// Begin when configured, and again whenever it ended without our doing.
    pub start: bool,
    /// Other IKE SAs of the same peer end when a new one is authenticated.
    pub unique: bool,
    /// ESP goes in UDP even where no NAT is seen.
    pub force_encapsulation: bool,
}

/// What may protect IKE, each list by preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Encryption, with integrity where the cipher has none of its own.
    pub ciphers: Vec<Cipher>,
    /// Pseudorandom functions.
    pub prfs: Vec<Prf>,
    /// Key exchanges.
    pub groups: Vec<Group>,
}

/// What may protect a CHILD_SA, each list by preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Of ESP, or all of them of AH.
    pub algorithms: Vec<Algorithm>,
    /// A key exchange of its own for every CHILD_SA but those that come with the IKE SA; none: from the IKE SA's keys.
    pub groups: Vec<Group>,
    /// 64-bit sequence numbers: one of these.
    pub esn: Vec<bool>,
}

/// One CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// Unique within its peer.
    pub name: Arc<str>,
    /// Tunnel or transport.
    pub mode: ChildMode,
    /// Our addresses; none: our address.
    pub local: Option<Prefix>,
    /// The peer's addresses; none: its address. As responder any part of it is agreed to.
    pub remote: Option<Prefix>,
    /// One upper-layer protocol, or all.
    pub protocol: Option<u8>,
    /// Our ports.
    pub local_ports: PortRange,
    /// The peer's ports.
    pub remote_ports: PortRange,
    /// What protects it.
    pub proposal: EspProposal,
    /// When it is replaced, and when it ends.
    pub lifetime: Lifetime,
    /// Replay window in packets.
    pub window: u32,
    /// Made together with the IKE SA, and again whenever it ended without our doing.
    pub start: bool,
}

/// Soft limits ask for a successor, hard limits end the SA. 0: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Milliseconds until a successor is made.
    pub soft_ms: Millis,
    /// Milliseconds until the end.
    pub hard_ms: Millis,
    /// Bytes in one direction until a successor is made.
    pub soft_bytes: u64,
    /// Bytes in one direction until the end.
    pub hard_bytes: u64,
    /// Packets in one direction until a successor is made.
    pub soft_packets: u64,
    /// Packets in one direction until the end.
    pub hard_packets: u64,
    /// Soft limits come earlier by up to so many percent, by chance: both ends should not begin at once.
    pub jitter_percent: u8,
}
