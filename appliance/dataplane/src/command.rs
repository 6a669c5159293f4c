//! What control tells a core and what a core tells control.
//!
//! Both ways are bounded queues. Everything a core is given was allocated by control, and everything it has no more
//! use for goes back as [`Trash`] for control to free (I7).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

pub use crate::logging::{Logged, RuleId};
use phalanx_ipsec::{FilterTable, InboundSa, Lease, OutboundSa, TunnelName, WindowSnapshot};
use phalanx_steering::{Candidate, ConnKey, Cursor, Distribution, Listeners, Policy, PortRule, SteeringError};
use phalanx_wire::{CoreId, DropReason, Epoch, SaId, Spi, TargetId, VipId};

use crate::capture::Tap;
use crate::ike::{IkeDatagram, MailSlot};
use crate::watcher::Watch;

/// A command with the number its [`Event::Done`] answers to.
#[derive(Debug)]
pub struct Order {
    /// Chosen by control; the core only repeats it.
    pub token: u64,
    /// What to do.
    pub command: Command,
}

/// What control tells a core. Each is answered by one [`Event::Done`], except those that say so.
#[derive(Debug)]
pub enum Command {
    /// Adds a VIP, or changes it: a higher epoch, another router. Every core of the process gets it. Where it is the
    /// router now and was not before, the VIP is not settled; its targets are set anew.
    SetVip(Box<VipEntry>),
    /// Forgets a VIP with its targets and connections. Its SAs are removed one by one.
    RemoveVip(VipId),
    /// Adds an inbound SA; the router itself accepts nothing of it above a ceiling of 0, see [`Command::Ceiling`].
    /// One that is there already (same id, hence same SPI and key) stays with
    /// its windows and the new one comes back as trash: [`Outcome::Kept`].
    AddInbound(Box<InboundSa>),
    /// Adds an inbound SA that not all targets have yet: what comes on it and is genuine waits, bounded, for
    /// [`Command::Spread`] (I4).
    AddEarly(Box<InboundSa>),
    /// The peer is about to hear of an inbound SPI whose SA is not there yet: what comes on it within so many milliseconds
    /// waits, bounded, for [`Command::AddEarly`] (I4).
    Expect {
        /// The VIP it comes to.
        vip: VipId,
        /// The SPI.
        spi: Spi,
        /// For how long it may come.
        ms: u64,
    },
    /// All targets that will be given packets of this inbound SA have it.
    Spread(SaId),
    /// What an outbound SA's packets may measure from now on; at most what was configured.
    PathMtu(SaId, u16),
    /// Adds an outbound SA; of two with one tunnel name the later is used.
    AddOutbound(Box<OutboundSa>),
    /// Adds an outbound SA that waits for its turn: its tunnel's packets go on taking the one they take, if there is one.
    AddSuccessor(Box<OutboundSa>),
    /// From now on the packets of this outbound SA's tunnel take it.
    UseOutbound(SaId),
    /// Removes an SA of either direction; packets that wait for it are dropped.
    RemoveSa(SaId),
    /// Replaces all filters.
    SetFilters(Box<FilterTable>),
    /// Replaces the targets of a VIP and which ports go to them, on its router core. A rule whose ports stay the same goes
    /// on with its turn.
    SetTargets(VipId, Box<TargetSet>),
    /// On targets, on every core (the one with the link port looks at it): from whom link packets for a VIP are believed.
    SetRouter(VipId, GreEnd),
    /// The same for a router that is another process of this box: from this memif port.
    SetRouterPort(VipId, usize),
    /// Sequence numbers for an outbound SA. No [`Event::Done`].
    Lease {
        /// The SA.
        sa: SaId,
        /// The numbers.
        lease: Lease,
        /// After this moment none of them is used: the request's send time + what the sequencer allowed.
        expires: Instant,
    },
    /// Throws away what is left of an outbound SA's numbers: the router that leased them is not the one there now.
    DropLeases(SaId),
    /// The target says that this connection is established. Of another target's connection it says nothing.
    Confirm(VipId, ConnKey, TargetId),
    /// The target says that this connection is over. Send the window of its notice first. Another target's goes on.
    EndConn(VipId, ConnKey, TargetId),
    /// A target died: its connections go, some per round, and what it may have accepted is refused: see
    /// [`Command::RaiseLate`]. `Done` when all are gone.
    PurgeTarget(VipId, TargetId),
    /// A target's session is back and all it has was restored: its connections that were neither made nor restored since
    /// this moment are over. `Done` when all are gone.
    PurgeStale(VipId, TargetId, Instant),
    /// Numbers that a target verified, for the router's window.
    MergeWindow(SaId, Box<WindowSnapshot>),
    /// The router itself accepts nothing at or below this number any more.
    RaiseFloor(SaId, u64),
    /// Of TCP packets without SYN and of UDP, which targets accept, the router itself accepts nothing at or below this number any more.
    RaiseLate(SaId, u64),
    /// The router itself may accept up to this number: it is durable. No [`Event::Done`].
    Ceiling(SaId, u64),
    /// A connection that a target told of after the router's restart.
    RestoreConn(VipId, ConnKey, TargetId),
    /// A target is about to open this connection (R20): from now on its packets go there, unless its ports are another
    /// connection's.
    OpenConn {
        /// Which.
        key: ConnKey,
        /// Who opens it.
        target: TargetId,
        /// The inbound SA that the peer will answer through, where it is known.
        inbound: Option<SaId>,
    },
    /// The router has the entry of a connection that this core's application opens, or why not: see
    /// [`Event::ConnWanted`]. No [`Event::Done`].
    ConnAnswer(ConnKey, Option<DropReason>),
    /// All targets were heard: unknown packets of this VIP are no longer refused as [`Settling`](phalanx_wire::DropReason::Settling).
    Settled(VipId),
    /// No new connections through this router core; those there are go on.
    Drain,
    /// The peer of an encapsulated SA is there now: outbound it is sent to, inbound packets from there are no news. No [`Event::Done`].
    MovePeer(SaId, SocketAddr),
    /// Sends a NAT keepalive from a VIP to a peer (RFC 3948 §2.3). No [`Event::Done`].
    Keepalive(VipId, SocketAddr),
    /// What comes to the IKE ports of VIPs that are routed here goes there from now on.
    HearIke(MailSlot),
    /// Sends an IKE message from a VIP that is routed here. No [`Event::Done`].
    SendIke(Box<IkeDatagram>),
    /// Fills a [`DumpRequest`], which comes back in [`Event::Dumped`] instead of a `Done`.
    Dump(Box<DumpRequest>),
    /// Watches packets from now on, instead of those before; or none any more.
    Watch(Option<Watch>),
    /// Copies what the core sees from now on, instead of a capture before; or nothing any more.
    Capture(Option<Tap>),
    /// Calls a function on the core's thread: how a test puts a watch on it. It must not wait.
    Call(fn()),
    /// Ends the loop after what is under way was sent. No [`Event::Done`].
    Stop,
}

/// A VIP as a core knows it.
#[derive(Clone, Debug)]
pub struct VipEntry {
    /// Its number in the cluster.
    pub id: VipId,
    /// The address.
    pub address: IpAddr,
    /// The router's epoch: link packets of a lower one are refused (I6).
    pub epoch: Epoch,
    /// The core of this process that is its router; none: the router is another box.
    pub router_core: Option<CoreId>,
    /// Outbound connections from this VIP and clear packets to it are this host's business: it serves the VIP.
    pub served: bool,
    /// The router does the inbound filter of what it forwards, targets do not (R14).
    pub filter_at_router: bool,
}

/// All targets of a VIP, and which of them new connections go to.
#[derive(Clone, Debug, Default)]
pub struct TargetSet {
    pub(crate) targets: Vec<TargetEntry>,
    pub(crate) distribution: Distribution,
}

impl TargetSet {
    /// The targets in any order. The first of the rules that names the local port of a new
    /// connection says which of them may be selected for it; a port that no rule names is the router's own (R10, R24).
    ///
    /// # Errors
    /// More than [`Distribution::new`] takes.
    pub fn new(targets: Vec<TargetEntry>, policy: Policy, rules: &[PortRule]) -> Result<TargetSet, SteeringError> {
        let candidate = |target: &TargetEntry| Candidate {
            id: target.id,
            eligible: target.eligible,
            draining: target.draining,
            weight: target.weight,
        };
        let candidates: Vec<Candidate> = targets.iter().map(candidate).collect();
        Ok(TargetSet { distribution: Distribution::new(policy, &candidates, rules)?, targets })
    }

    /// The same, but only targets that listen on a port get its connections (R25); without this all of them do. Bit *n* is
    /// target *n* of [`Self::new`].
    #[must_use]
    pub fn with_listeners(self, listeners: Listeners) -> TargetSet {
        TargetSet { distribution: self.distribution.with_listeners(listeners), targets: self.targets }
    }
}

/// One target of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEntry {
    /// Its number in the cluster.
    pub id: TargetId,
    /// The way there.
    pub link: LinkEnd,
    /// New connections may go there: it acknowledged the VIP's SAs and an application listens.
    pub eligible: bool,
    /// It keeps its connections and gets no new ones.
    pub draining: bool,
    /// Its share of new connections relative to others; 0 gives it none.
    pub weight: u16,
}

/// The way from a router core to a target core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// A core of this process, perhaps the router core itself.
    Ring(CoreId),
    /// Another box.
    Gre(GreEnd, CoreId),
    /// Another process of this box, over this memif port of ours.
    Memif(usize, CoreId),
}

/// A GRE link between two boxes over one of our ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreEnd {
    /// Our port.
    pub port: usize,
    /// Our address on it.
    pub local: IpAddr,
    /// Theirs.
    pub remote: IpAddr,
}

/// What a core tells control.
#[derive(Debug)]
pub enum Event {
    /// A command was carried out, or refused.
    Done {
        /// By this core.
        core: CoreId,
        /// The command's number.
        token: u64,
        /// What came of it.
        result: Result<Outcome, Refused>,
    },
    /// An outbound SA needs sequence numbers; answered by [`Command::Lease`]. Repeated until it is.
    LeaseWanted {
        /// For this core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// So many would do.
        want: u32,
        /// Every number below this that the core ever had is sent or thrown away.
        done_below: u64,
        /// Packets per second of late.
        rate_pps: u32,
    },
    /// As a target: the application opens a connection, whose first packet waits for [`Command::ConnAnswer`] (R20).
    ConnWanted {
        /// On this core.
        core: CoreId,
        /// The VIP of its tunnel.
        vip: VipId,
        /// The connection.
        key: ConnKey,
        /// The outbound SA that it goes through.
        sa: SaId,
    },
    /// As a target: a connection is established.
    ConnOpened {
        /// On this core.
        core: CoreId,
        /// Its VIP.
        vip: VipId,
        /// The connection.
        key: ConnKey,
    },
    /// As a target: a connection is over.
    ConnClosed {
        /// On this core.
        core: CoreId,
        /// Its VIP.
        vip: VipId,
        /// The connection.
        key: ConnKey,
    },
    /// As a router: the numbers accepted come near the ceiling, or wait for it; answered by [`Command::Ceiling`].
    CeilingWanted {
        /// On this core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// An authentic packet with this number came.
        at: u64,
    },
    /// As a router: a plausible "too big" about a packet of an outbound SA. Bounded in rate; answered, if it is believed, by
    /// [`Command::PathMtu`].
    TooBig {
        /// On this core.
        core: CoreId,
        /// The SA.
        sa: SaId,
        /// What the path is said to carry: less than up to now.
        mtu: u16,
        /// The low half of the quoted packet's sequence number.
        seq: u32,
    },
    /// The answer to [`Command::Dump`].
    Dumped {
        /// By this core.
        core: CoreId,
        /// The command's number.
        token: u64,
        /// Filled.
        dump: Box<DumpRequest>,
    },
    /// A genuine packet, newer than all before, came from elsewhere than its peer was (RFC 7296 §2.23); answered by
    /// [`Command::MovePeer`]. Repeated while such packets come.
    PeerSeen {
        /// On this core.
        core: CoreId,
        /// The inbound SA.
        sa: SaId,
        /// Its source.
        remote: SocketAddr,
        /// Its number.
        number: u64,
    },
    /// A packet of the application needs an SA of a negotiated tunnel that has none (R20). Repeated while such packets come.
    SaWanted {
        /// On this core.
        core: CoreId,
        /// The VIP.
        vip: VipId,
        /// The tunnel.
        tunnel: TunnelName,
    },
    /// A rule asked for a log entry (R16).
    Log {
        /// On this core.
        core: CoreId,
        /// What happened.
        logged: crate::logging::Logged,
    },
    /// For control to free.
    Trash(Trash),
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What it says.
    Applied,
    /// An SA of this id was there and stays.
    Kept,
    /// There was nothing of that name; as good as done.
    Absent,
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A table is full.
    #[error("the table is full")]
    TableFull,
    /// It names an SA that is not there.
    #[error("no such SA")]
    NoSuchSa,
    /// It names a VIP that is not there.
    #[error("no such VIP")]
    NoSuchVip,
    /// It names a target that is not there.
    #[error("no such target")]
    NoSuchTarget,
    /// An SA with this VIP and SPI, but of another id, is there.
    #[error("another SA has this SPI")]
    SpiTaken,
    /// The epoch is lower than the one seen (I6).
    #[error("an older epoch")]
    OldEpoch,
    /// Another connection has these ports.
    #[error("another connection has these ports")]
    PortTaken,
    /// A port or core that does not exist.
    #[error("out of range")]
    OutOfRange,
}

/// What a core has no more use for; freed by whoever receives it.
#[derive(Debug)]
#[expect(missing_docs, reason = "each says what it was")]
pub enum Trash {
    Vip(Box<VipEntry>),
    Inbound(Box<InboundSa>),
    Outbound(Box<OutboundSa>),
    Filters(Box<FilterTable>),
    Targets(Box<TargetSet>),
    Window(Box<WindowSnapshot>),
    Tap(Tap),
    Ike(Box<IkeDatagram>),
    MailSlot(MailSlot),
}

/// A piece of a core's tables, filled by the core into memory of control. Until it is [`complete`](Self::complete),
/// empty the rows and send it again.
#[derive(Debug, Default)]
pub struct DumpRequest {
    /// What to write down.
    pub what: DumpWhat,
    /// Where the core goes on.
    pub(crate) table: Cursor,
    pub(crate) row: usize,
    /// Set by the core: nothing is left.
    pub complete: bool,
    /// Connections, up to the capacity it came with.
    pub connections: Vec<ConnRow>,
    /// Leases, up to the capacity it came with.
    pub leases: Vec<LeaseRow>,
    /// Next hops, up to the capacity it came with.
    pub neighbours: Vec<NeighbourRow>,
}

impl DumpRequest {
    /// A request for up to `rows` rows a time.
    pub fn new(what: DumpWhat, rows: usize) -> Box<DumpRequest> {
        let mut dump = Box::new(DumpRequest { what, ..DumpRequest::default() });
        match what {
            // The core shows connections in pieces of 64.
            DumpWhat::Routed | DumpWhat::Tracked => dump.connections.reserve_exact(rows.max(64)),
            DumpWhat::Leases => dump.leases.reserve_exact(rows),
            DumpWhat::Neighbours => dump.neighbours.reserve_exact(rows),
        }
        dump
    }
}

/// Which of a core's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DumpWhat {
    /// The router's connection table.
    #[default]
    Routed,
    /// The connections this core follows as a target: what a restarted router gathers.
    Tracked,
    /// Leases of the outbound SAs.
    Leases,
    /// Next hops of its ports.
    Neighbours,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRow {
    /// Its VIP.
    pub vip: VipId,
    /// Its peer, addresses and ports.
    pub key: ConnKey,
    /// Where it goes; none in a target's table.
    pub target: Option<TargetId>,
    /// Its target said that it is established.
    pub established: bool,
    /// Milliseconds since it was made or confirmed.
    pub age_ms: u64,
}

/// The lease of one outbound SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The SA.
    pub sa: SaId,
    /// Numbers left in it.
    pub left: u64,
    /// The highest number ever sealed with on this core.
    pub highest: u64,
    /// Every number below was used or thrown away.
    pub done_below: u64,
    /// Numbers thrown away because their time was over.
    pub thrown_away: u64,
    /// Packets that wait.
    pub waiting: u32,
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRow {
    /// Of this port.
    pub port: usize,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, once it answered.
    pub mac: Option<phalanx_wire::Mac>,
    /// Milliseconds since it answered or was first asked.
    pub age_ms: u64,
}
