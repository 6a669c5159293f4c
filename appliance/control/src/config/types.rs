//! The checked configuration. Fields are public: a value of these types came out of the checker.

use super::KeyText;
use ipnet::IpNet;
pub use phalanx_aead::{Algorithm, Kernel};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything one node is told. Made by [`super::load`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The file this came from.
    pub path: PathBuf,
    /// `[node]`
    pub node: Node,
    /// `[cluster]`
    pub cluster: Cluster,
    /// `[memory]`
    pub memory: Memory,
    /// `[limits]`
    pub limits: Limits,
    /// `[ike]`
    pub ike: Ike,
    /// `[[port]]`, in the file's order; cores refer to them by index.
    pub ports: Vec<Port>,
    /// `[[core]]`
    pub cores: Vec<Core>,
    /// `[[vip]]`; all of them owned by this node.
    pub vips: Vec<Vip>,
    /// `[[peer]]`: who negotiates its SAs with this node.
    pub peers: Vec<Peer>,
    /// `[[sa]]`: static SAs, each a pair.
    pub sas: Vec<Sa>,
    /// `[[filter]]`, first match first.
    pub filters: Vec<Filter>,
    /// What was remarked and is no error, one line each; `status` shows it.
    pub warnings: Vec<String>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique in the cluster; the certificate's DNS name.
    pub name: String,
    /// Default `/run/phalanx/NAME.sock`.
    pub status_socket: PathBuf,
    /// Where the coupling store lives. Default `/var/lib/phalanx/NAME`.
    pub state_dir: PathBuf,
    /// Where metrics are served over TCP; `None`: only on the status socket.
    pub metrics: Option<SocketAddr>,
    /// Where somebody else writes this node's load as a target, 0 to 1000; none: it is measured.
    pub load_file: Option<PathBuf>,
    /// What the ciphers run on; none: the best that the processor has.
    pub cipher_kernel: Option<Kernel>,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Name of the cluster.
    pub name: String,
    /// Where targets attach; always `Some` on a node that owns a VIP with targets on other nodes.
    pub listen: Option<SocketAddr>,
    /// Always `Some` where there are other nodes to talk to.
    pub tls: Option<Tls>,
    /// Where what must be unique or survive is kept.
    pub coupling: Coupling,
    /// `[[cluster.node]]`, this node among them.
    pub nodes: Vec<ClusterNode>,
    /// The routers this node obeys as a target. Each is in `nodes` and has an `address`.
    pub routers: Vec<String>,
}

/// This node's certificate for the control channel (PEM files).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// The cluster's CA.
    pub ca: PathBuf,
}

/// `coupling = …`; etcd is refused by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// redb in `state_dir`.
    Embedded,
}

/// `[[cluster.node]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// The node's name.
    pub name: String,
    /// Its control address; needed of routers.
    pub address: Option<SocketAddr>,
    /// Its addresses on the trusted link.
    pub links: Vec<IpAddr>,
    /// It is another process of this box: our memif port that leads there, an index into [`Config::ports`].
    pub memif: Option<usize>,
}

/// `[memory]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// How much DPDK may take; `None`: as much as the tables and pools need.
    pub megabytes: Option<u32>,
    /// Whether hugepages are tried.
    pub hugepages: Hugepages,
}

/// `hugepages = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Use them where the machine has them.
    Auto,
    /// Do without.
    Never,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the connection table, per core.
    pub connections: u32,
    /// Connections one peer may have.
    pub connections_per_peer: u32,
    /// Half-open connections one peer may have.
    pub half_open_per_peer: u32,
    /// Peers that may have connections at a time, per core.
    pub peers: u32,
    /// SAs per core, both directions counted.
    pub sas: u32,
    /// A path MTU that fell is believed for so many seconds.
    pub path_mtu_age: u32,
    /// Packets in fragments that may be incomplete at a time, per core.
    pub fragmented_packets: u32,
    /// How long one may be, in milliseconds.
    pub fragment_ms: u32,
}

/// `[ike]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ike {
    /// How much of anything there may be.
    pub limits: phalanx_ike::Limits,
    /// When a message is sent again.
    pub retransmission: phalanx_ike::Retransmission,
    /// The folder where keys are written down for Wireshark.
    pub key_log: Option<PathBuf>,
}

/// `[[port]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name in cores, status and logs.
    pub name: String,
    /// What DPDK opens.
    pub device: Device,
    /// What it is connected to.
    pub role: PortRole,
    /// Own addresses with their prefix lengths; none on application ports.
    pub addresses: Vec<IpNet>,
    /// Gateways, at most one per family.
    pub next_hops: Vec<IpAddr>,
    /// IP bytes the port carries. `None` only on application ports: derived from the SAs' path MTU.
    pub mtu: Option<u16>,
}

/// `role = …` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortRole {
    /// Towards the peers.
    Network,
    /// The trusted link between nodes.
    Link,
    /// A TAP into this host's own stack.
    Application,
}

/// `device = …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A PCI function, `0000:01:00.0`.
    Pci(String),
    /// A virtual device: driver without number, and its arguments as written.
    Vdev {
        /// `net_af_packet`, `net_tap`, …
        driver: String,
        /// `[("iface", "eth1"), …]`
        args: Vec<(String, String)>,
    },
}

/// `[[core]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// CPU number the loop is pinned to.
    pub cpu: u32,
    /// Steers inbound packets.
    pub router: bool,
    /// Does IPsec for connections.
    pub target: bool,
    /// Indices into [`Config::ports`]; a port belongs to exactly one core.
    pub ports: Vec<usize>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
}

/// `idle = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls without a break.
    Spin,
    /// Polls with the CPU's pause instruction between.
    Pause,
    /// Sleeps for short times.
    Sleep,
}

/// `[[vip]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Name in SAs, filters and status.
    pub name: String,
    /// Number in the link header: unique in the cluster, the same after a restart.
    pub id: u16,
    /// The address with its prefix length.
    pub address: IpNet,
    /// Always this node, in this version.
    pub owner: String,
    /// Whether the VIP may move to a node that asks for it.
    pub movable: Movable,
    /// What is distributed to whom. Empty: the router serves everything itself.
    pub distribute: Vec<Distribute>,
    /// How a target is chosen for a new connection.
    pub select: Select,
    /// Who does the inbound filter of what is forwarded (R14).
    pub filter_at: FilterAt,
}

/// `movable = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movable {
    /// Stays.
    No,
    /// At once.
    Immediately,
    /// When it has no connections.
    WhenIdle,
}

/// `protocol = …` of a distribution.
pub use phalanx_steering::Transport;

/// One entry of `distribute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribute {
    /// Of which protocol.
    pub protocol: Transport,
    /// Which local ports.
    pub ports: Ports,
    /// To whom.
    pub targets: Targets,
}

/// `ports = …` of a distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// These, sorted, disjoint.
    Ranges(Vec<PortRange>),
}

/// Inclusive range of TCP or UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// First.
    pub first: u16,
    /// Last; not below `first`.
    pub last: u16,
}

/// `targets = …` of a distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every node of the cluster that attaches.
    All,
    /// These nodes, no name twice.
    Named(Vec<String>),
}

/// `filter_at = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAt {
    /// The target that a packet goes to.
    Target,
    /// The router, before it forwards.
    Router,
}

/// `select = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// In proportion to what their load leaves.
    Load,
}

/// `[[sa]]`: one tunnel, an SA for each direction.
#[derive(Clone, Debug)]
pub struct Sa {
    /// The tunnel name that filters use.
    pub name: String,
    /// Index into [`Config::vips`]: the outer local address.
    pub vip: usize,
    /// Outer remote address.
    pub peer: IpAddr,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// Cipher of both directions.
    pub algorithm: Algorithm,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// From the peer to us; `window` is ours.
    pub inbound: HalfSa,
    /// From us to the peer; `window` is the peer's.
    pub outbound: HalfSa,
    /// What may travel through it.
    pub selectors: Selectors,
    /// Bytes after which a successor is due; `u64::MAX`: never.
    pub soft_bytes: u64,
    /// Bytes after which it stops; `u64::MAX`: never. Not below `soft_bytes`.
    pub hard_bytes: u64,
    /// Largest outer packet towards the peer.
    pub path_mtu: u16,
    /// What becomes of the segment sizes that TCP announces.
    pub mss_clamp: MssClamp,
    /// Copy the inner DSCP to the outer header.
    pub copy_dscp: bool,
    /// ECN as RFC 6040; otherwise the outer header says "not capable".
    pub ecn: bool,
    /// `encapsulation = "udp"`.
    pub encap: Option<Udp>,
    /// Index into [`Config::sas`]: the SA of AH that is around this one of ESP.
    pub within: Option<usize>,
}

/// ESP in UDP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The peer's port at the start.
    pub peer_port: u16,
    /// Transport mode: what the peer calls us and itself.
    pub original: Option<(IpAddr, IpAddr)>,
    /// Seconds of silence before a keepalive; 0: none.
    pub nat_keepalive: u32,
}

/// `mss_clamp = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// They stay.
    None,
    /// At most what fits the path.
    Path,
    /// At most so many bytes.
    Most(u16),
}

/// `[[peer]]`
#[derive(Clone, Debug)]
pub struct Peer {
    /// Index into [`Config::vips`]: our address.
    pub vip: usize,
    /// Everything that is negotiated.
    pub ike: Arc<phalanx_ike::PeerConfig>,
    /// Largest outer packet towards the peer.
    pub path_mtu: u16,
    /// What becomes of the segment sizes that TCP announces.
    pub mss_clamp: MssClamp,
    /// Copy the inner DSCP to the outer header.
    pub copy_dscp: bool,
    /// ECN as RFC 6040; otherwise the outer header says "not capable".
    pub ecn: bool,
    /// Seconds of silence before a keepalive, where a NAT is in front of us; 0: none.
    pub nat_keepalive: u32,
}

/// One direction of an [`Sa`].
#[derive(Clone, Debug)]
pub struct HalfSa {
    /// 256 or above.
    pub spi: u32,
    /// Key and salt, of the length the algorithm wants.
    pub key: KeyText,
    /// 32..=65536.
    pub window: u32,
}

/// `mode = …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaMode {
    /// A whole packet inside.
    Tunnel,
    /// The payload inside.
    Transport,
}

/// What an SA carries or a filter matches, seen from our side: `local` is the VIP's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors {
    /// Local addresses.
    pub local: IpNet,
    /// Remote addresses, of the same family.
    pub remote: IpNet,
    /// IP protocol; `None`: any.
    pub protocol: Option<u8>,
    /// Local ports; 0-65535 is any.
    pub local_ports: PortRange,
    /// Remote ports.
    pub remote_ports: PortRange,
}

/// `[[filter]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Index into [`Config::vips`].
    pub vip: usize,
    /// What it matches.
    pub selectors: Selectors,
    /// What then happens.
    pub action: Action,
    /// Whether a match is logged (R16).
    pub log: bool,
    /// What the log calls it.
    pub name: Option<String>,
}

/// `action = …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// In clear.
    Permit,
    /// Dropped.
    Deny,
    /// Through the tunnel of this name, which is an [`Sa`] of the same VIP.
    Protect(String),
}
