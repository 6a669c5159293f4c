//! What the two state machines are given and what they want done: values, in the order in which to do them.

use std::net::SocketAddr;
use std::sync::Arc;

use phalanx_ipsec::{Lease, SaParams, TunnelName};
use phalanx_wire::{CoreId, Epoch, Flow, PeerId, SaId, TargetId, VipId};

use crate::messages::{
    ConnRecord, ConnRefusal, LeaseRefusal, NodeName, RankedFilter, ToRouter, ToTarget, VipDef, WindowRecord,
};
use crate::sequencer::{GrantWanted, SequencerConfig};

/// A target of the configuration: a core of a node (`core` given) or a whole node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlan {
    /// Its number.
    pub id: TargetId,
    /// The node it lives on; several targets may live on one node.
    pub node: NodeName,
    /// Which core of that node, if the node has a target per core.
    pub core: Option<CoreId>,
}

/// A VIP that this router owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipPlan {
    /// Its definition, as the targets get it.
    pub def: VipDef,
    /// Its targets.
    pub targets: Vec<TargetId>,
}

/// Times and limits of a router.
#[derive(Debug, Clone)]
pub struct RouterTimes {
    /// A VIP is settled at the latest this long after the start, gathered or not.
    pub settle_us: u64,
    /// An SA is ready at the latest this long after its installation began (R6, I4).
    pub ack_us: u64,
    /// A failed installation is tried again after this.
    pub retry_us: u64,
    /// SAs (pairs) at most.
    pub pairs_max: usize,
    /// A path MTU that fell rises again after this.
    pub path_mtu_us: u64,
}

impl Default for RouterTimes {
    fn default() -> Self {
        Self {
            settle_us: 3_000_000,
            ack_us: 2_000_000,
            retry_us: 5_000_000,
            pairs_max: 65_536,
            path_mtu_us: 600_000_000,
        }
    }
}

/// A router: its name, boot and what it owns.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Its name.
    pub node: NodeName,
    /// Random per boot.
    pub incarnation: u64,
    /// All targets of its VIPs.
    pub targets: Vec<TargetPlan>,
    /// Its VIPs.
    pub vips: Vec<VipPlan>,
    /// The sequencer's sizes.
    pub sequencer: SequencerConfig,
    /// Times and limits.
    pub times: RouterTimes,
}

/// Two SAs, one tunnel: what IKE calls a CHILD_SA. It is named by its inbound SA.
#[derive(Debug, Clone)]
pub struct SaPair {
    /// From the peer.
    pub inbound: Arc<SaParams>,
    /// To the peer.
    pub outbound: Arc<SaParams>,
    /// The dynamic rules that come with it (R2).
    pub filters: Vec<RankedFilter>,
    /// What the coupling facility holds under `keys::ceiling`: 0 for a new SA.
    pub ceiling: u64,
    /// What it holds under `keys::reached`.
    pub reached: u64,
    /// Encapsulated: after so long without a packet to the peer a keepalive goes there, in µs; 0: never (RFC 3948 §4).
    pub keepalive_us: u64,
    /// The peer may use the inbound SA before all targets hold it: what comes by then waits at the router (I4).
    pub early: bool,
    /// The outbound SA takes the tunnel's packets only once [`crate::RouterCluster::use_outbound`] says so, or if there is
    /// no other.
    pub waits: bool,
}

/// A target that does not hold something in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub node: NodeName,
    /// Its error, or "no answer".
    pub why: String,
}

/// What a router wants done, in this order.
#[derive(Debug)]
pub enum RouterOutput {
    /// Send it to that node. To ourselves it means: our own `TargetCluster`.
    Send {
        /// The node.
        node: NodeName,
        /// The message.
        message: ToTarget,
    },
    /// End that node's session: it was refused.
    Disconnect {
        /// The node.
        node: NodeName,
        /// Why, for the log of both.
        reason: String,
    },
    /// Install the SA on the router's own router cores, then [`crate::RouterCluster::local_done`].
    InstallLocal {
        /// To be named in `local_done`.
        request: u64,
        /// The SA.
        sa: Arc<SaParams>,
        /// Its dynamic rules.
        filters: Vec<RankedFilter>,
        /// See [`SaPair::early`] and [`SaPair::waits`]; what concerns its direction.
        early: bool,
        /// See `early`.
        waits: bool,
    },
    /// The tunnel's packets take this outbound SA from now on, on the router's own cores.
    UseLocal(SaId),
    /// Replace the dynamic rules of an SA that is installed there.
    LocalRules {
        /// The SA.
        sa: SaId,
        /// All of its rules.
        filters: Vec<RankedFilter>,
    },
    /// Remove it from them, then [`crate::RouterCluster::local_done`].
    RemoveLocal {
        /// To be named in `local_done`.
        request: u64,
        /// The SA.
        sa: SaId,
    },
    /// The target holds everything: packets may go to it.
    TargetUp {
        /// Which.
        target: TargetId,
    },
    /// It is gone: purge its connections.
    TargetDown {
        /// Which.
        target: TargetId,
        /// Why.
        reason: String,
    },
    /// Ask [`crate::RouterCluster::eligible`] and [`crate::RouterCluster::listened`] again for this VIP.
    EligibleChanged(VipId),
    /// A target told other TCP ports than before; for the log.
    Listens {
        /// Which node.
        node: NodeName,
        /// Of which VIP.
        vip: VipId,
    },
    /// A node reported how busy it is.
    Loaded {
        /// Which.
        node: NodeName,
        /// In permille.
        permille: u16,
    },
    /// Entries that a target told of.
    RestoreConnections(Vec<Connection>),
    /// Merge into the verified windows of the router cores.
    MergeWindows(Vec<WindowRecord>),
    /// A target confirmed a connection (or made it).
    ConnOpened(Connection),
    /// A connection ended on its target. Its windows were merged by an earlier output.
    ConnClosed(Connection),
    /// A target is about to open a connection: make its entry, then send [`ToTarget::ConnAnswer`] with this record (R20).
    OpenConnection {
        /// Who asked.
        node: NodeName,
        /// As it was asked for.
        record: ConnRecord,
        /// The connection.
        conn: Connection,
        /// The inbound SA that the peer will answer through.
        inbound: Option<SaId>,
    },
    /// Every live target of the pair acknowledged, or the time is over: the peer may be told.
    SaReady {
        /// The pair's inbound SA.
        sa: SaId,
        /// Live targets that do not hold it, which therefore get no connections.
        missing: Vec<Missing>,
    },
    /// All stopped using the pair, or the time is over: the delete may be answered (R6).
    SaGone {
        /// The pair's inbound SA.
        sa: SaId,
        /// Live targets that did not confirm.
        missing: Vec<Missing>,
    },
    /// All configured targets of the VIP were gathered, or the time is over.
    Settled {
        /// Which.
        vip: VipId,
        /// Nodes that were not gathered.
        missing: Vec<NodeName>,
    },
    /// The router itself accepts nothing at or below the floor on this inbound SA.
    RaiseFloor {
        /// The inbound SA.
        sa: SaId,
        /// The floor.
        floor: u64,
        /// The floor of what targets accept, TCP without SYN: at least as high.
        late: u64,
    },
    /// The router itself may accept up to this number: it is durable.
    Ceiling {
        /// The inbound SA.
        sa: SaId,
        /// Inclusive.
        upto: u64,
    },
    /// `raise(key, to)` at the coupling facility, then [`crate::RouterCluster::ceiling_raised`].
    RaiseCeiling {
        /// The inbound SA.
        sa: SaId,
        /// The counter.
        key: Arc<str>,
        /// Its new value.
        to: u64,
    },
    /// `raise(key, to)` at the coupling facility, then [`crate::RouterCluster::reached_raised`].
    RaiseReached {
        /// The inbound SA.
        sa: SaId,
        /// The counter.
        key: Arc<str>,
        /// Its new value.
        to: u64,
    },
    /// `raise(key, u64::MAX)` at the coupling facility: no number of this key is ever given again (I1).
    Burn {
        /// The outbound SA.
        sa: SaId,
        /// Its counter.
        key: Arc<str>,
    },
    /// `fetch_add` at the coupling facility, then [`crate::RouterCluster::granted`].
    GrantWanted(GrantWanted),
    /// Numbers for one of the router's own cores.
    LocalLease {
        /// The core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// The numbers.
        lease: Lease,
        /// To be thrown away then.
        valid_until: u64,
    },
    /// No numbers for one of the router's own cores.
    LocalRefused {
        /// The core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// Why.
        refusal: LeaseRefusal,
    },
    /// The path MTU of an outbound SA changed: tell the router's own cores.
    PathMtu {
        /// The SA.
        sa: SaId,
        /// In bytes, from the outer IP header on.
        mtu: u16,
    },
    /// A peer moved: the router's own cores send there from now on.
    PeerMoved {
        /// Its encapsulated SAs.
        sas: Vec<SaId>,
        /// Where it is.
        remote: SocketAddr,
    },
    /// Send a NAT keepalive from the VIP (RFC 3948 §2.3).
    Keepalive {
        /// The VIP.
        vip: VipId,
        /// To the peer there.
        remote: SocketAddr,
    },
    /// A target wants to send through a negotiated tunnel that has no SA (R20).
    SaWanted {
        /// The VIP.
        vip: VipId,
        /// The tunnel.
        tunnel: TunnelName,
    },
    /// The soft lifesize is reached: rekey (R22).
    LifesizeSoft(SaId),
    /// The hard lifesize is reached: stop (I3).
    LifesizeHard(SaId),
    /// Something the operator should read, from the node that noticed it.
    Warn(String),
}

/// A connection and the target that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The VIP.
    pub vip: VipId,
    /// The peer.
    pub peer: PeerId,
    /// Inner protocol, addresses and ports.
    pub flow: Flow,
    /// Where it lives.
    pub target: TargetId,
    /// Both sides answered.
    pub established: bool,
}

/// When the packets of a tunnel take an outbound SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// From its installation on.
    AtOnce,
    /// As long as there is another: later.
    Later,
    /// It is there already, and its turn has come.
    Now,
}

/// A target, as one router's counterpart.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Our name.
    pub node: NodeName,
    /// Random per boot.
    pub incarnation: u64,
    /// The router's name.
    pub router: NodeName,
    /// The largest IP packet our link port carries; 0: only rings.
    pub link_mtu: u16,
    /// Our target cores.
    pub cores: Vec<CoreId>,
    /// When use is reported (R21).
    pub reports: ReportPolicy,
    /// A lease request is repeated, with a new nonce, after this.
    pub lease_retry_us: u64,
    /// SAs at most.
    pub sas_max: usize,
}

/// When a target reports the use of an SA: whatever comes first (R21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportPolicy {
    /// When so many thousandths of the hard lifesize were used since the last report.
    pub share_permille: u16,
    /// When so many packets were.
    pub packets: u64,
    /// When that long ago.
    pub interval_us: u64,
}

impl Default for ReportPolicy {
    fn default() -> Self {
        Self { share_permille: 50, packets: 100_000, interval_us: 1_000_000 }
    }
}

/// What a target wants done, in this order.
#[derive(Debug)]
pub enum TargetOutput {
    /// Send it to the router.
    Send(ToRouter),
    /// Ask the cores for their connections and windows, then [`crate::TargetCluster::gathered`].
    Gather {
        /// To be named in `gathered`.
        token: u64,
    },
    /// Make the cores serve this VIP, then [`crate::TargetCluster::core_done`].
    InstallVip {
        /// To be named in `core_done`.
        request: u64,
        /// The definition.
        vip: VipDef,
    },
    /// The VIP and all its SAs and rules go.
    RemoveVip {
        /// To be named in `core_done`.
        request: u64,
        /// The VIP.
        vip: VipId,
        /// Its SAs.
        sas: Vec<SaId>,
    },
    /// Make the cores hold this SA.
    InstallSa {
        /// To be named in `core_done`.
        request: u64,
        /// The SA.
        sa: Arc<SaParams>,
        /// The rules that come with it.
        filters: Vec<RankedFilter>,
        /// Outbound: when its tunnel's packets take it.
        turn: Turn,
    },
    /// Make them forget it and its rules.
    RemoveSa {
        /// To be named in `core_done`.
        request: u64,
        /// The SA.
        sa: SaId,
    },
    /// A higher epoch of a VIP was seen: tell the other routers' `TargetCluster`s ([`crate::TargetCluster::note_epoch`]) and the cores.
    EpochSeen {
        /// The VIP.
        vip: VipId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The cores must throw away all numbers of these SAs: the router that leased them is not the one there now.
    DropLeases(Vec<SaId>),
    /// Numbers for a core.
    Lease {
        /// The core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// The numbers.
        lease: Lease,
        /// To be thrown away then.
        valid_until: u64,
    },
    /// No numbers for a core.
    LeaseRefused {
        /// The core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// Why.
        refusal: LeaseRefusal,
    },
    /// The router answered [`crate::TargetCluster::conn_wanted`]: tell the core.
    ConnAnswer {
        /// Which connection.
        conn: ConnRecord,
        /// Why it cannot be.
        refused: Option<ConnRefusal>,
    },
    /// The path MTU of an outbound SA changed: tell the cores.
    PathMtu {
        /// The SA.
        sa: SaId,
        /// In bytes, from the outer IP header on.
        mtu: u16,
    },
    /// A peer moved: the cores send there from now on.
    PeerMoved {
        /// Its encapsulated SAs.
        sas: Vec<SaId>,
        /// Where it is.
        remote: SocketAddr,
    },
    /// A router was welcomed; its boot, and the link addresses come with the VIPs.
    RouterUp {
        /// Its boot.
        incarnation: u64,
        /// True: it is not the boot we knew.
        restarted: bool,
    },
    /// The router is not reachable. SAs, VIPs and connections stay.
    RouterDown,
    /// Something the operator should read.
    Warn(String),
}
