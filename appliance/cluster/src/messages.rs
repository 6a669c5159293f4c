//! What travels between a router and its targets. Plain values; how they look on the wire is the fabric's matter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use phalanx_ipsec::{Filter, SaParams, TunnelName, WindowSnapshot};
use phalanx_wire::{CoreId, Epoch, Flow, PeerId, SaId, VipId};

/// The version of these messages. Both sides must speak the same.
pub const VERSION: u32 = 4;

/// A node's name: the DNS name in its certificate.
pub type NodeName = Arc<str>;

/// One connection as its target knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnRecord {
    /// Its VIP.
    pub vip: VipId,
    /// The peer: two peers with the same inner address stay apart.
    pub peer: PeerId,
    /// Inner protocol, addresses and ports.
    pub flow: Flow,
    /// The target's core that serves it.
    pub core: CoreId,
    /// Both sides answered; else half open.
    pub established: bool,
}

/// Why a target cannot open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnRefusal {
    /// Another connection has these ports, or had them a moment ago.
    PortTaken,
    /// The router's table is full, or the peer's share of it.
    NoRoom,
}

/// A target's replay window of one inbound SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRecord {
    /// The SA.
    pub sa: SaId,
    /// Edge, floor and bits.
    pub snapshot: WindowSnapshot,
}

/// A filter and its place: lower ranks are looked up first, whatever order they arrive in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankedFilter {
    /// The place.
    pub rank: u32,
    /// The rule.
    pub filter: Filter,
    /// What the operator calls it, for the log (R16).
    pub name: Option<Arc<str>>,
}

/// A VIP as its router defines it to a target (R24).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipDef {
    /// Its number in the cluster.
    pub vip: VipId,
    /// Its address.
    pub address: IpAddr,
    /// Its mask.
    pub prefix_len: u8,
    /// Who obeys: the highest epoch seen (I6).
    pub epoch: Epoch,
    /// From which addresses link packets for this VIP are believed: the router's end of the link (R14).
    pub router_link: Vec<IpAddr>,
    /// The standing rules of the VIP: those that name no SA of their own.
    pub filters: Vec<RankedFilter>,
    /// The router does the inbound filter (R14).
    pub filter_at_router: bool,
}

/// What a target holds, told to a router that just welcomed it; in several parts when it is long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gathered {
    /// VIPs it serves for this router and the highest epoch seen of each.
    pub vips: Vec<(VipId, Epoch)>,
    /// Its connections.
    pub connections: Vec<ConnRecord>,
    /// The windows of all its inbound SAs.
    pub windows: Vec<WindowRecord>,
    /// All its outbound SAs and the highest number it ever held of each (I1: a store that is behind shows here).
    pub highest_out: Vec<(SaId, u64)>,
    /// Whether this is the last part.
    pub last: bool,
}

/// A core asks for outbound sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// For this outbound SA.
    pub sa: SaId,
    /// For this core of the target.
    pub core: CoreId,
    /// Grows with every request of this incarnation; a retry has a new one.
    pub nonce: u64,
    /// The target's boot.
    pub incarnation: u64,
    /// The router's boot, as the target knows it.
    pub router_incarnation: u64,
    /// The VIP's epoch, as the target knows it.
    pub epoch: Epoch,
    /// How many numbers it would like; 0: none, it only says what it is done with.
    pub want: u32,
    /// It will never again send a number below this one.
    pub done_below: u64,
    /// Packets per second it sends on this SA.
    pub rate_pps: u32,
    /// How long its latest requests took to be answered, in µs; 0: unknown.
    pub latency_us: u32,
}

/// Numbers `first .. first + len`, to be used within `waited_us + valid_for_us` of the *sending* of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseBlock {
    /// The first number.
    pub first: u64,
    /// How many.
    pub len: u32,
    /// For how long, in µs.
    pub valid_for_us: u32,
    /// How long the request waited at the router, in µs.
    pub waited_us: u32,
}

/// Why there are no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LeaseRefusal {
    /// The counter is used up: 2^32 - 1 without 64-bit numbers. The SA stops.
    #[error("the SA's sequence numbers are used up")]
    Exhausted,
    /// This router has no such outbound SA, or not for this target.
    #[error("this router has no such SA for this target")]
    NoSuchSa,
    /// Asked in another epoch of the VIP.
    #[error("the VIP is in another epoch")]
    WrongEpoch,
    /// Asked of, or by, an earlier boot.
    #[error("the request is from before a restart")]
    WrongIncarnation,
    /// The coupling facility does not answer.
    #[error("the coupling facility does not answer")]
    NoCoupling,
    /// The coupling facility gave numbers that were given before: it was lost or restored. The SA needs a new key (I1).
    #[error("the coupling facility is behind: numbers would repeat; the SA needs a new key")]
    StoreBehind,
}

/// The answer to the [`LeaseRequest`] with the same core and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseReply {
    /// The SA.
    pub sa: SaId,
    /// The core that asked.
    pub core: CoreId,
    /// The request's nonce.
    pub nonce: u64,
    /// The target's boot, from the request.
    pub incarnation: u64,
    /// The router's boot.
    pub router_incarnation: u64,
    /// The VIP's epoch.
    pub epoch: Epoch,
    /// Numbers, or why not.
    pub result: Result<LeaseBlock, LeaseRefusal>,
}

/// An SA's use on one target since that target's boot: cumulative, so lost and repeated reports do no harm (R21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaReport {
    /// The SA (of one direction).
    pub sa: SaId,
    /// Packets protected or verified.
    pub packets: u64,
    /// Bytes of ESP payload protected or verified.
    pub bytes: u64,
    /// Packets whose ICV was bad.
    pub failed: u64,
    /// Packets whose number was known or too old.
    pub replayed: u64,
    /// Inbound: the verified window.
    pub window: Option<WindowSnapshot>,
}

/// Connections that came and went on a target. Windows are merged before the ends take effect (ARCHITECTURE, "Inbound replay").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    /// Grows; repeated until acknowledged.
    pub id: u64,
    /// New connections.
    pub opened: Vec<ConnRecord>,
    /// Ended connections.
    pub closed: Vec<ConnRecord>,
    /// The windows of the ended connections' SAs up to their ends.
    pub windows: Vec<WindowRecord>,
}

/// Where a genuine packet of an encapsulated SA came from, which is not where its peer was thought to be (RFC 7296 §2.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAt {
    /// The inbound SA.
    pub sa: SaId,
    /// The packet's source.
    pub remote: SocketAddr,
    /// Its number: what is older moves nobody.
    pub number: u64,
}

/// A target introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// Its name, as in its certificate.
    pub node: String,
    /// Random per boot.
    pub incarnation: u64,
    /// The largest IP packet its link port carries; 0: it has only rings.
    pub link_mtu: u16,
    /// Its target cores.
    pub cores: Vec<CoreId>,
}

/// For which VIPs a target wants no new connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Drained {
    /// It takes them all.
    #[default]
    Nothing,
    /// Not for these; never empty.
    Vips(Vec<VipId>),
    /// Not for any.
    All,
}

impl Drained {
    /// Whether this VIP is among them.
    #[must_use]
    pub fn has(&self, vip: VipId) -> bool {
        match self {
            Drained::Nothing => false,
            Drained::Vips(vips) => vips.contains(&vip),
            Drained::All => true,
        }
    }
}

/// From a target to a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRouter {
    /// The first message.
    Hello(Hello),
    /// After `Welcome`: what it holds.
    Gathered(Gathered),
    /// The cores did what `request` asked, or why not.
    Ack {
        /// Of the install or remove.
        request: u64,
        /// None: done.
        error: Option<String>,
    },
    /// Numbers wanted.
    LeaseRequest(LeaseRequest),
    /// Use of SAs.
    Report(Vec<SaReport>),
    /// Connections.
    Notice(Notice),
    /// On which ports of the VIP an application listens: the whole set, each time it changes (R25).
    Listening {
        /// The VIP.
        vip: VipId,
        /// The TCP ports.
        ports: Vec<u16>,
        /// UDP ports that a socket is bound to.
        udp: Vec<u16>,
    },
    /// How busy the target is, in permille, each time it changes.
    Load(u16),
    /// For which VIPs no new connections are wanted: the whole set, each time it changes.
    Draining(Drained),
    /// A peer is behind a NAT and seems to have moved.
    PeerMoved(PeerAt),
    /// Its application wants to send through a negotiated tunnel that has no SA (R20).
    SaWanted {
        /// The VIP.
        vip: VipId,
        /// The tunnel.
        tunnel: TunnelName,
    },
    /// Its application opens a connection: its first packet waits for [`ToTarget::ConnAnswer`] (R20).
    ConnWanted {
        /// Which.
        conn: ConnRecord,
        /// The outbound SA that it goes through.
        sa: SaId,
    },
    /// Packets it dropped since its boot, by the reason's name; only reasons that happened. Nothing depends on it.
    Dropped(Vec<(String, u64)>),
    /// Still there. Made and eaten by the fabric.
    Beat,
}

/// From a router to a target.
#[derive(Debug, Clone, PartialEq)]
pub enum ToTarget {
    /// The answer to `Hello`.
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// The router's name.
        node: String,
        /// The router's boot.
        incarnation: u64,
        /// Its VIPs that this target serves, and their epochs.
        epochs: Vec<(VipId, Epoch)>,
    },
    /// Serve this VIP, or: its definition changed.
    InstallVip {
        /// To be named in the `Ack`.
        request: u64,
        /// The definition.
        vip: VipDef,
    },
    /// Serve it no more; its SAs go too.
    RemoveVip {
        /// To be named in the `Ack`.
        request: u64,
        /// The VIP.
        vip: VipId,
    },
    /// Hold this SA. One that is there already, with the same key and SPI, keeps its window.
    InstallSa {
        /// To be named in the `Ack`.
        request: u64,
        /// The SA; keys travel only over mutual TLS (I8).
        sa: Arc<SaParams>,
        /// The dynamic rules that come with it (R2); only with the outbound one of a pair.
        filters: Vec<RankedFilter>,
        /// An outbound SA whose turn has not come: its tunnel's packets take another one as long as there is one.
        waits: bool,
    },
    /// Forget this SA and its rules (R6).
    RemoveSa {
        /// To be named in the `Ack`.
        request: u64,
        /// The SA.
        sa: SaId,
    },
    /// Numbers.
    LeaseReply(LeaseReply),
    /// The path of an outbound SA carries packets of at most that length now. Not acknowledged; said again after each
    /// `InstallSa` of an SA whose path is lower than configured.
    PathMtu {
        /// The SA.
        sa: SaId,
        /// In bytes, from the outer IP header on.
        mtu: u16,
    },
    /// The notice took effect.
    NoticeAck {
        /// Its id.
        id: u64,
    },
    /// The router's entry of a connection that the target opens is there, or will not be.
    ConnAnswer {
        /// Which, as it was asked for.
        conn: ConnRecord,
        /// Why not.
        refused: Option<ConnRefusal>,
    },
    /// A peer moved: its encapsulated SAs send there from now on.
    PeerMoved {
        /// The VIP of its SAs.
        vip: VipId,
        /// Which.
        peer: PeerId,
        /// Where it is.
        remote: SocketAddr,
    },
    /// Still there. Made and eaten by the fabric.
    Beat,
}

impl ToRouter {
    /// The message's name, for errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Gathered(_) => "Gathered",
            Self::Ack { .. } => "Ack",
            Self::LeaseRequest(_) => "LeaseRequest",
            Self::Report(_) => "Report",
            Self::Notice(_) => "Notice",
            Self::Listening { .. } => "Listening",
            Self::Load(_) => "Load",
            Self::Draining(_) => "Draining",
            Self::PeerMoved(_) => "PeerMoved",
            Self::SaWanted { .. } => "SaWanted",
            Self::ConnWanted { .. } => "ConnWanted",
            Self::Dropped(_) => "Dropped",
            Self::Beat => "Beat",
        }
    }
}

impl ToTarget {
    /// The message's name, for errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "Welcome",
            Self::InstallVip { .. } => "InstallVip",
            Self::RemoveVip { .. } => "RemoveVip",
            Self::InstallSa { .. } => "InstallSa",
            Self::RemoveSa { .. } => "RemoveSa",
            Self::LeaseReply(_) => "LeaseReply",
            Self::PathMtu { .. } => "PathMtu",
            Self::NoticeAck { .. } => "NoticeAck",
            Self::ConnAnswer { .. } => "ConnAnswer",
            Self::PeerMoved { .. } => "PeerMoved",
            Self::Beat => "Beat",
        }
    }
}
