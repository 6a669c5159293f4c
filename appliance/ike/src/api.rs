//! What goes into an [`Endpoint`](crate::Endpoint) and what comes out of it, datagrams apart.

use phalanx_ipsec::{Algorithm, Original, SecretKey, Selectors};
use phalanx_wire::Spi;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::Event;

/// Milliseconds since any fixed point; only differences count.
pub type Millis = u64;

/// Where a datagram came from or goes to. A local port of 4500 says that the four zero bytes of RFC 3948 §2.2 belong in front of it:
/// the caller takes them off and puts them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Our address and port, 500 or 4500.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.local, self.remote)
    }
}

/// An IKE SA: its SPI on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IkeId(pub u64);

/// Sixteen hexadecimal digits, as Wireshark shows it.
impl fmt::Display for IkeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A CHILD_SA, both directions. Never used again by the same [`Endpoint`](crate::Endpoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One direction of a CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The receiver's name for it.
    pub spi: Spi,
    /// Key and salt.
    pub key: SecretKey,
}

/// How packets sit in ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildMode {
    /// Whole, behind a header between the ends of the path.
    Tunnel,
    /// Behind their own header.
    Transport,
}

/// Everything about a CHILD_SA that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// Its name in all that follows.
    pub id: ChildId,
    /// The IKE SA it was made by.
    pub ike: IkeId,
    /// The peer's name in the configuration.
    pub peer: Arc<str>,
    /// The child's name in the configuration.
    pub name: Arc<str>,
    /// The child it takes the place of. Both stay until [`Output::Remove`]; the outbound one changes with [`Output::SwitchOutbound`].
    pub replaces: Option<ChildId>,
    /// We asked for it: the peer may use it from now on. Else it may from our answer on, which waits for [`Answer::Installed`].
    pub initiator: bool,
    /// From the peer.
    pub inbound: Keyed,
    /// To the peer.
    pub outbound: Keyed,
    /// Tunnel or transport.
    pub mode: ChildMode,
    /// The cipher of both directions.
    pub algorithm: Algorithm,
    /// 64-bit sequence numbers, in both directions.
    pub esn: bool,
    /// What may go through it. Transport mode: the ends of the path, whatever the peer called them.
    pub selectors: Selectors,
    /// The outer addresses; in UDP, where `encapsulated`, also the ports.
    pub path: Path,
    /// ESP in UDP: there is a NAT between.
    pub encapsulated: bool,
    /// There is a NAT in front of us, which needs keepalives when nothing else goes out.
    pub keepalive: bool,
    /// Transport mode through a NAT: the addresses that the peer sees (RFC 7296 §2.23.1).
    pub original: Option<Original>,
    /// Our replay window and, as nobody tells, what the peer's is believed to be; packets.
    pub window: u32,
    /// Bytes in one direction at which a successor is due and at which it stops.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub hard_bytes: u64,
}

/// What the [`Endpoint`](crate::Endpoint) wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// A datagram goes out.
    Send {
        /// From where to where.
        path: Path,
        /// Its payload, without the four bytes that port 4500 wants.
        bytes: Vec<u8>,
    },
    /// We are about to offer the peer this inbound SPI: it may use it as soon as it hears of it, which is before we know its
    /// keys. What comes on it from now on is worth keeping, for a moment each, until [`Output::Install`] or so many
    /// milliseconds are over (I4).
    Expect {
        /// From where to where.
        path: Path,
        /// What the peer will send with.
        spi: Spi,
        /// For how long an answer may come.
        ms: Millis,
    },
    /// A CHILD_SA comes to life. Wants [`Answer::Installed`] or [`Answer::Refused`]. Its inbound half may be used at once, its
    /// outbound half too unless it `replaces` another: then [`Output::SwitchOutbound`] says when.
    Install(Box<ChildSa>),
    /// From now on the outbound SA of this child is used in place of the one it replaces.
    SwitchOutbound {
        /// The new one.
        child: ChildId,
    },
    /// A CHILD_SA ends, in both directions. Wants [`Answer::Removed`]: the peer's delete is answered after it.
    Remove {
        /// Which.
        child: ChildId,
    },
    /// The peer is elsewhere now, as an authenticated message shows.
    Moved {
        /// The SAs that change.
        children: Vec<ChildId>,
        /// Their new path.
        path: Path,
    },
    /// One byte 0xff to the peer, which keeps a NAT's mapping (RFC 3948 §2.3); without the four bytes even on port 4500.
    Keepalive {
        /// From where to where.
        path: Path,
    },
    /// Something an administrator may want to know.
    Event(Event),
    /// A line of Wireshark's `ikev2_decryption_table`. Only where [`Config::key_log`](crate::Config) asks for it.
    KeyLog(KeyLine),
}

/// A line with keys: `Debug` shows none of it (I8).
pub struct KeyLine(pub(crate) zeroize::Zeroizing<String>);

impl KeyLine {
    /// The line, keys in clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLine(..)")
    }
}

/// What becomes of an [`Output`], and what children went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All who need it have it.
    Installed(ChildId),
    /// It cannot be, for this reason. It needs no [`Output::Remove`] and gets none.
    Refused(ChildId, String),
    /// Nobody uses it any more.
    Removed(ChildId),
    /// What a child has used since it began, cumulative.
    Used {
        /// Which.
        child: ChildId,
        /// Bytes from the peer.
        inbound_bytes: u64,
        /// Packets from the peer.
        inbound_packets: u64,
        /// Bytes to the peer.
        outbound_bytes: u64,
        /// Packets to the peer, or how far the sequence number has come if that is more.
        outbound_packets: u64,
    },
    /// It has carried as much as it may, as all who use it tell: it stops at once (I3).
    Exhausted {
        /// Which.
        child: ChildId,
    },
    /// The peer used the new SA: its first packet proved genuine.
    Verified {
        /// The new one.
        child: ChildId,
    },
    /// A genuine ESP packet came from elsewhere.
    Moved {
        /// Of which child.
        child: ChildId,
        /// Where the peer is now.
        remote: SocketAddr,
    },
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes an IKE SA with a peer, and its children or the one named.
    Initiate {
        /// Name of a peer.
        peer: String,
        /// Name of one of its children; all of them, if there is none.
        child: Option<String>,
    },
    /// A packet needs an SA that is not there (R20).
    Acquire {
        /// Name of a peer.
        peer: String,
        /// Name of one of its children.
        child: String,
        /// Where the peer is, where the configuration does not tell.
        remote: Option<IpAddr>,
    },
    /// New keys for an IKE SA.
    RekeyIke {
        /// Which.
        ike: IkeId,
    },
    /// The whole IKE SA with its children anew, authentication included.
    Reauthenticate {
        /// Which.
        ike: IkeId,
    },
    /// New keys for a CHILD_SA.
    RekeyChild {
        /// Which.
        child: ChildId,
    },
    /// An end, told to the peer.
    Terminate(Which),
    /// Asks the peer whether it lives.
    Probe {
        /// Over which IKE SA.
        ike: IkeId,
    },
}

/// What ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// One IKE SA and its children.
    Ike(IkeId),
    /// One CHILD_SA.
    Child(ChildId),
    /// Everything with a peer.
    Peer(String),
    /// Everything, as before a stop.
    All,
}

/// What a command began. Whether it succeeds is told by events of the same IKE SA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// The IKE SAs concerned.
    pub ikes: Vec<IkeId>,
    /// What was asked for is there already.
    pub already: bool,
}

/// Why a command cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such peer.
    #[error("there is no peer {0:?}")]
    NoPeer(String),
    /// No such child of the peer.
    #[error("the peer {peer:?} has no child {child:?}")]
    NoChild {
        /// The peer.
        peer: String,
        /// What it has not.
        child: String,
    },
    /// No such IKE SA.
    #[error("there is no IKE SA {0}")]
    NoIke(IkeId),
    /// No such CHILD_SA.
    #[error("there is no CHILD_SA {0}")]
    NoChildSa(ChildId),
    /// It is not in a state for this: it is being set up, replaced or deleted.
    #[error("{0}")]
    NotNow(&'static str),
    /// The peer's address is not configured: it has to begin.
    #[error("the peer {0:?} has no address in the configuration: only it can begin")]
    NoAddress(String),
    /// The table is full.
    #[error("there are {0} IKE SAs, which is the limit")]
    Full(usize),
}
