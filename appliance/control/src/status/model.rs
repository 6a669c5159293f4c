//! The answers. Names of fields are an interface: scripts read them. Numbers that may exceed 2⁵³ and are names rather than
//! amounts (ids, incarnations) are strings in hexadecimal.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Version of the program.
    pub version: String,
    /// `starting`, `running` or `draining`.
    pub state: String,
    /// Since start.
    pub uptime_ms: u64,
    /// `router`, `target`.
    pub roles: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// `hugepages`, or `no-huge`: ordinary memory, slower.
    pub memory: String,
    /// What the ciphers run on: `portable`, `aes-ni`, `vaes-avx2`, `vaes-avx512`.
    pub cipher_kernel: String,
    /// Which kind of coupling facility, and the incarnation of its store.
    pub coupling: String,
    /// One per poll loop.
    pub cores: Vec<CoreStatus>,
    /// One per port.
    pub ports: Vec<PortStatus>,
    /// Packets dropped for any reason; `drop` has the reasons.
    pub drops: u64,
    /// What must hold; see [`INVARIANTS`].
    pub invariants: Vec<Invariant>,
    /// Whether outbound numbers will fit the peers' windows.
    pub predictions: Vec<Prediction>,
}

/// A poll loop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreStatus {
    /// Its number.
    pub core: u16,
    /// Where it is pinned.
    pub cpu: u32,
    /// `router`, `target`.
    pub roles: Vec<String>,
    /// Rounds.
    pub loops: u64,
    /// Rounds with something to do.
    pub busy: u64,
    /// Packets received.
    pub rx: u64,
    /// Packets sent.
    pub tx: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Connections in its table as a router.
    pub connections: u64,
    /// Connections it serves as a target.
    pub tracked: u64,
    /// Packets that wait now.
    pub waiting: u64,
    /// Packets by what was done with them: `forwarded`, `sealed`, `held-for-lease`, …
    pub stages: BTreeMap<String, u64>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// `network`, `link`, `application`.
    pub role: String,
    /// What DPDK opened.
    pub device: String,
    /// The core that polls it.
    pub core: u16,
    /// Link state.
    pub up: bool,
    /// IP bytes.
    pub mtu: u16,
    /// Its MAC address.
    pub mac: String,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the driver lost because nobody fetched them in time.
    pub rx_missed: u64,
    /// Packets the driver did not take for sending.
    pub tx_refused: u64,
}

/// Something that must hold; `violations` must be 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invariant {
    /// `I1`…
    pub name: String,
    /// In words.
    pub meaning: String,
    /// How often it was seen broken.
    pub violations: u64,
}

/// The names and meanings of all invariants.
pub const INVARIANTS: [(&str, &str); 9] = [
    ("I1", "no nonce twice"),
    ("I2", "no packet accepted twice"),
    ("I3", "hard lifesize never exceeded"),
    ("I4", "no packet lost because an SA is not everywhere yet"),
    ("I5", "unauthenticated packets change nothing that lasts"),
    ("I6", "one owner per VIP and epoch"),
    ("I7", "poll loops never wait"),
    ("I8", "keys stay secret"),
    ("I9", "no clear packet of a protected connection"),
];

impl Invariant {
    /// All of them with their counts.
    pub fn all(violations: [u64; 9]) -> Vec<Invariant> {
        let name = |((name, meaning), violations): (&(&str, &str), u64)| Invariant {
            name: (*name).to_owned(),
            meaning: (*meaning).to_owned(),
            violations,
        };
        INVARIANTS.iter().zip(violations).map(name).collect()
    }
}

/// Whether several senders' numbers will fit one peer's replay window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prediction {
    /// Outbound SA.
    pub sa: String,
    /// Its tunnel.
    pub tunnel: String,
    /// The peer's window in packets.
    pub window: u32,
    /// Who sends on it now.
    pub senders: u32,
    /// Numbers per block.
    pub block: u32,
    /// Packets per second it carries now.
    pub rate_pps: u64,
    /// Packets per second up to which no number is late.
    pub fits_pps: u64,
    /// `shared`: fits; `waits`: numbers will be waited for; `late expected`: packets will be lost at the peer.
    pub verdict: String,
}

/// An SA in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaRow {
    /// Unique in the cluster.
    pub id: String,
    /// `inbound`, `outbound`.
    pub direction: String,
    /// The receiver's name for it, `0x00001001`.
    pub spi: String,
    /// VIP.
    pub vip: String,
    /// Tunnel.
    pub tunnel: String,
    /// Outer remote address, where the peer is by now.
    pub peer: String,
    /// ESP in UDP: the peer's port by now.
    pub udp: Option<u16>,
    /// `tunnel`, `transport`.
    pub mode: String,
    /// The tunnel whose AH is around its ESP.
    pub within: Option<String>,
    /// Cipher.
    pub algorithm: String,
    /// 64-bit numbers.
    pub esn: bool,
    /// Packets protected or verified.
    pub packets: u64,
    /// Bytes of them (R21).
    pub bytes: u64,
    /// Bad ICV.
    pub failed: u64,
    /// Replays and too old ones.
    pub replayed: u64,
    /// Highest number verified or handed out.
    pub edge: u64,
    /// Replay window in packets.
    pub window: u32,
    /// Outbound: the longest outer packet now, in bytes. 0 for inbound SAs.
    pub path_mtu: u16,
    /// The same, as configured: the path fell if it is more.
    pub path_mtu_configured: u16,
    /// Messages that its packets were too big which named none that was sent lately.
    pub path_mtu_refused: u64,
    /// `None`: no limit.
    pub soft_bytes: Option<u64>,
    /// `None`: no limit.
    pub hard_bytes: Option<u64>,
    /// Who did how much of it.
    pub shares: Vec<SaShare>,
}

impl SaRow {
    /// Used part of a limit in percent.
    pub fn used(&self, limit: Option<u64>) -> Option<f64> {
        limit.map(|l| 100.0 * self.bytes as f64 / l.max(1) as f64)
    }
}

/// What one node or core did on an SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaShare {
    /// Node, or `core N` of this node.
    pub holder: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bad ICV.
    pub failed: u64,
    /// Replays and too old ones.
    pub replayed: u64,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnRow {
    /// `router`: an entry of the connection table; `target`: a connection served here.
    pub side: String,
    /// VIP.
    pub vip: String,
    /// The peer its packets come through.
    pub peer: String,
    /// Inner protocol.
    pub protocol: String,
    /// Inner local address and port.
    pub local: String,
    /// Inner remote address and port.
    pub remote: String,
    /// Who serves it.
    pub target: String,
    /// `half-open`, `established`, `closing`.
    pub state: String,
    /// Since it was made.
    pub age_ms: u64,
}

/// A VIP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VipRow {
    /// Its name; the address where no name is known.
    pub name: String,
    /// Number in link headers.
    pub id: u16,
    /// Address and prefix length.
    pub address: String,
    /// Epoch of its owner.
    pub epoch: u64,
    /// Its router.
    pub owner: String,
    /// What this node is for it: `router`, `target` or both.
    pub roles: Vec<String>,
    /// Those it is distributed to.
    pub targets: Vec<String>,
    /// Which of its ports go to whom, as `80,1000-2000 -> t1,t2` or `udp 443 -> t1`; the first that names a port decides.
    pub ports: Vec<String>,
    /// Connections known here.
    pub connections: u64,
    /// Whether connections and windows were gathered from the targets.
    pub settled: bool,
}

/// A target, as its router sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRow {
    /// Its name.
    pub name: String,
    /// `attached`, `installing`, `ready`, `draining`, `gone`.
    pub state: String,
    /// Whether it gets new connections.
    pub ready: bool,
    /// VIPs it serves.
    pub vips: Vec<String>,
    /// Those of them for which it gets no new connections.
    pub draining: Vec<String>,
    /// On which TCP ports it listens, by VIP, as `web: 80,8000-8999`, and ` udp 53` if the VIP distributes UDP; a VIP of which it did not tell yet is not there.
    pub listening: Vec<String>,
    /// The load that it reported last, in permille.
    pub load: Option<u16>,
    /// Its share of new connections beside the other targets', for each of `vips`.
    pub weights: Vec<u16>,
    /// Connections it has.
    pub connections: u64,
    /// Packets it protected or verified, as far as reported to this boot of the router.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Live blocks of numbers.
    pub leases: u64,
    /// Of its present run.
    pub incarnation: String,
    /// Since its last message; `None`: never.
    pub last_seen_ms: Option<u64>,
    /// Its address on the link.
    pub link: String,
}

/// Outbound numbers of one SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseRow {
    /// Outbound SA.
    pub sa: String,
    /// Its tunnel.
    pub tunnel: String,
    /// First number of the present grant.
    pub grant_first: u64,
    /// One behind its last.
    pub grant_end: u64,
    /// The next that will be handed out.
    pub next: u64,
    /// Live blocks by holder.
    pub holders: Vec<LeaseHolder>,
    /// Numbers thrown away unused.
    pub thrown_away: u64,
    /// Requests that had to wait.
    pub waits: u64,
    /// Packets per second.
    pub rate_pps: u64,
}

/// Who holds blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseHolder {
    /// Node, or `core N` of this node.
    pub holder: String,
    /// Live blocks.
    pub blocks: u64,
    /// Numbers in them.
    pub numbers: u64,
}

/// A reason for dropping packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DropRow {
    /// Its name.
    pub reason: String,
    /// What it means.
    pub help: String,
    /// Dropped for it, over all cores.
    pub packets: u64,
    /// Per core, in the order of `status`.
    pub cores: Vec<u64>,
    /// On a router: what its targets told, each since its own start.
    pub nodes: BTreeMap<String, u64>,
    /// The sum of `packets` and `nodes`.
    pub cluster: u64,
}

impl DropRow {
    /// All reasons, from the counters of each core; `cores[c][reason]`.
    pub fn all(cores: &[Vec<u64>]) -> Vec<DropRow> {
        use phalanx_wire::DropReason;
        let row = |(i, reason): (usize, &DropReason)| {
            let cores: Vec<u64> = cores.iter().map(|c| c.get(i).copied().unwrap_or(0)).collect();
            let packets = cores.iter().sum();
            let (reason, help) = (reason.name().to_owned(), reason.help().to_owned());
            DropRow { reason, help, packets, cores, nodes: BTreeMap::new(), cluster: packets }
        };
        DropReason::ALL.iter().enumerate().map(row).collect()
    }

    /// Adds what other nodes dropped for it.
    pub fn told(&mut self, nodes: &[(&str, u64)]) {
        self.nodes.extend(nodes.iter().map(|(node, packets)| ((*node).to_owned(), *packets)));
        self.cluster = self.nodes.values().fold(self.packets, |sum, packets| sum.saturating_add(*packets));
    }

    /// Something was dropped for it, here or elsewhere.
    pub fn happened(&self) -> bool {
        self.cluster > 0 || self.packets > 0
    }
}
