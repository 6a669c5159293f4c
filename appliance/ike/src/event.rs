//! What happened, in words that an administrator can act on.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::{ChildId, IkeId, Millis};

/// Something happened to an IKE SA or a CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Millis,
    /// The peer's name in the configuration, once it is known.
    pub peer: Option<Arc<str>>,
    /// The IKE SA, where there is one.
    pub ike: Option<IkeId>,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An IKE SA is up: both ends are authenticated.
    Established {
        /// We began.
        initiator: bool,
        /// Who the peer proved to be.
        identity: String,
        /// What protects it.
        suite: String,
        /// Milliseconds from the first message on.
        took_ms: Millis,
    },
    /// An IKE SA was not made, or the peer does not answer any more. It is gone, with its children.
    Failed(Reason),
    /// An IKE SA ended as it was meant to, with its children.
    Closed(Ending),
    /// An IKE SA has new keys, and a new name.
    Rekeyed {
        /// The old one.
        old: IkeId,
    },
    /// An IKE SA did not get new keys. It goes on with those it has, and it is tried again.
    RekeyFailed(Reason),
    /// A CHILD_SA is up.
    ChildUp {
        /// Which.
        child: ChildId,
        /// Its name in the configuration.
        name: Arc<str>,
        /// The one it takes the place of.
        replaces: Option<ChildId>,
        /// Its selectors and cipher.
        detail: String,
    },
    /// A CHILD_SA was not made.
    ChildFailed {
        /// Its name in the configuration, if it is known.
        name: Option<Arc<str>>,
        /// Why.
        reason: Reason,
    },
    /// A CHILD_SA is gone.
    ChildDown {
        /// Which.
        child: ChildId,
        /// Its name in the configuration.
        name: Arc<str>,
        /// Why.
        ending: Ending,
    },
    /// The peer is elsewhere now.
    Moved {
        /// Where it was.
        from: SocketAddr,
    },
}

/// Why an SA ended that was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Somebody told us to.
    Command,
    /// The configuration does not have it any more.
    Configuration,
    /// The peer deleted it.
    Peer,
    /// Another one took its place.
    Replaced,
    /// It reached a hard limit before a successor was there.
    HardLimit,
    /// Its IKE SA ended.
    WithIke,
    /// The peer began anew (INITIAL_CONTACT, or its identity came with another IKE SA).
    NewContact,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Command => "by command",
            Ending::Configuration => "not in the configuration any more",
            Ending::Peer => "deleted by the peer",
            Ending::Replaced => "replaced",
            Ending::HardLimit => "it reached its hard limit before a successor was there",
            Ending::WithIke => "its IKE SA ended",
            Ending::NewContact => "the peer began anew",
        })
    }
}

/// Why something was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No peer of the configuration fits the addresses.
    #[error("no peer in the configuration has our address {local} and the peer's {remote}")]
    NoPeer {
        /// Ours.
        local: std::net::IpAddr,
        /// The peer's.
        remote: std::net::IpAddr,
    },
    /// The peer offered nothing that we take.
    #[error("no common proposal: the peer offered {offered}; we accept {accepted}")]
    NoProposal {
        /// What the peer offered.
        offered: String,
        /// What we would have taken.
        accepted: String,
    },
    /// One of us is behind a NAT, and all that the configuration has is AH.
    #[error("AH cannot pass the NAT between us: it covers the addresses that a NAT changes")]
    AhThroughNat,
    /// The peer took nothing that we offered.
    #[error("the peer accepts nothing of what we offered: {offered}")]
    ProposalRefused {
        /// What we offered.
        offered: String,
    },
    /// The peer chose something that was not offered.
    #[error("the peer chose {0}, which was not offered")]
    ChoseOther(String),
    /// The selectors have nothing in common.
    #[error("no common traffic: the peer offered {offered}; we accept {accepted}")]
    NoSelectors {
        /// The peer's.
        offered: String,
        /// Ours.
        accepted: String,
    },
    /// The peer refused our selectors.
    #[error("the peer accepts none of the traffic we offered: {offered}")]
    SelectorsRefused {
        /// Ours.
        offered: String,
    },
    /// One end wants transport mode, the other does not.
    #[error("the peer {peer} transport mode and the configuration says {configured}")]
    Mode {
        /// `wants` or `refuses`.
        peer: &'static str,
        /// `tunnel` or `transport`.
        configured: &'static str,
    },
    /// The identity that the peer claims is in no peer of the configuration that fits its address.
    #[error("no peer in the configuration at this address has the identity {0}")]
    UnknownIdentity(String),
    /// The peer wanted to speak with somebody else.
    #[error("the peer expects us to be {wanted}; we are {we}")]
    OtherIdentity {
        /// Who it wanted.
        wanted: String,
        /// Who we are.
        we: String,
    },
    /// The peer's proof is wrong.
    #[error("the peer {identity} could not be authenticated: {why}")]
    NotAuthenticated {
        /// Who it claims to be.
        identity: String,
        /// In words.
        why: String,
    },
    /// The peer did not believe our proof.
    #[error(
        "the peer refused our authentication (AUTHENTICATION_FAILED): it may have another secret, or expect another identity than {0}"
    )]
    AuthenticationRefused(String),
    /// The peer does not answer.
    #[error("the peer does not answer: {tries} attempts in {ms} ms")]
    NoAnswer {
        /// How often it was asked.
        tries: u32,
        /// In how long.
        ms: Millis,
    },
    /// The peer did not go on.
    #[error("the peer did not finish the set-up within {0} ms")]
    HalfOpen(Millis),
    /// The peer said no, in one of the ways that need no explanation.
    #[error("the peer answered {0}")]
    Notified(String),
    /// What the peer sent makes no sense.
    #[error("the peer's message is not valid: {0}")]
    Syntax(String),
    /// A payload that we do not know and may not skip.
    #[error("the peer sent payload {0}, which is critical and unknown")]
    UnknownCritical(u8),
    /// A public value that cannot be one, or keys that cannot be made.
    #[error("the key exchange failed: {0}")]
    KeyExchange(String),
    /// Cannot be installed.
    #[error("not installed: {0}")]
    NotInstalled(String),
    /// A bound was reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The peer says that it is busy with something that excludes this.
    #[error("the peer is busy (TEMPORARY_FAILURE); it is tried again")]
    Busy,
    /// The peer does not have what we spoke about.
    #[error("the peer does not know that CHILD_SA any more")]
    Unknown,
    /// Our own key could not sign.
    #[error("our own credentials are of no use here: {0}")]
    Credential(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(peer) => write!(f, "{peer} ({})", self.remote)?,
            None => write!(f, "{}", self.remote)?,
        }
        if let Some(ike) = self.ike {
            write!(f, " IKE SA {ike}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Established { initiator, identity, suite, took_ms } => {
                let who = if *initiator { "we began" } else { "the peer began" };
                write!(f, "up with {identity}, {suite}, {who}, {took_ms} ms")
            }
            What::Failed(reason) => write!(f, "failed: {reason}"),
            What::Closed(ending) => write!(f, "closed: {ending}"),
            What::Rekeyed { old } => write!(f, "takes the place of {old}, with new keys"),
            What::RekeyFailed(reason) => write!(f, "no new keys: {reason}"),
            What::ChildUp { child, name, replaces, detail } => {
                write!(f, "child {name} ({child}) up, {detail}")?;
                replaces.map_or(Ok(()), |old| write!(f, ", in place of {old}"))
            }
            What::ChildFailed { name: Some(name), reason } => write!(f, "child {name} failed: {reason}"),
            What::ChildFailed { name: None, reason } => write!(f, "a child failed: {reason}"),
            What::ChildDown { child, name, ending } => write!(f, "child {name} ({child}) gone: {ending}"),
            What::Moved { from } => write!(f, "the peer moved here from {from}"),
        }
    }
}
