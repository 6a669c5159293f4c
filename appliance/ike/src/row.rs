//! What an [`Endpoint`](crate::Endpoint) shows of itself.

use phalanx_ipsec::Selectors;
use phalanx_wire::Spi;
use std::sync::Arc;

use crate::{ChildId, ChildMode, IkeId, Millis, Path};

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeRow {
    /// Its SPI on our side.
    pub id: IkeId,
    /// The initiator's and the responder's SPI.
    pub spis: (u64, u64),
    /// We began it.
    pub initiator: bool,
    /// The peer's name in the configuration, once it is known.
    pub peer: Option<Arc<str>>,
    /// Who the peer proved to be.
    pub identity: Option<String>,
    /// Where it is.
    pub path: Path,
    /// In a word: `connecting`, `established`, `rekeying`, `replaced`, `deleting`.
    pub state: &'static str,
    /// What protects it.
    pub suite: String,
    /// Milliseconds since it is up.
    pub age_ms: Millis,
    /// Milliseconds until it is replaced, if it will be.
    pub rekey_in_ms: Option<Millis>,
    /// Milliseconds since the peer was heard.
    pub silent_ms: Millis,
    /// A NAT in front of us, of the peer.
    pub nat: (bool, bool),
    /// The next message ID that we send, the next that we expect.
    pub message_ids: (u32, u32),
    /// Its CHILD_SAs.
    pub children: Vec<ChildRow>,
}

/// One CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRow {
    /// Its name here.
    pub id: ChildId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// In a word: `installing`, `up`, `rekeying`, `replaced`, `deleting`.
    pub state: &'static str,
    /// Tunnel or transport.
    pub mode: ChildMode,
    /// The SPI that the peer sends with.
    pub inbound: Spi,
    /// The SPI that we send with.
    pub outbound: Spi,
    /// What may go through it.
    pub selectors: Selectors,
    /// Its cipher.
    pub suite: String,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Milliseconds since it is up.
    pub age_ms: Millis,
    /// Milliseconds until it is replaced, if it will be.
    pub rekey_in_ms: Option<Millis>,
    /// The one it takes the place of.
    pub replaces: Option<ChildId>,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What was counted since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, as `phalanx ike` shows them.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Datagrams that came.
    received,
    /// Datagrams that went.
    sent,
    /// Requests sent again, as no answer came.
    retransmitted,
    /// Requests that came again and were answered again.
    answered_again,
    /// IKE SAs that came up, begun by us.
    established_as_initiator,
    /// IKE SAs that came up, begun by peers.
    established_as_responder,
    /// IKE SAs that did not come up.
    failed,
    /// IKE SAs whose peer did not answer any more.
    lost,
    /// IKE SAs with new keys.
    ike_rekeyed,
    /// CHILD_SAs that came up.
    children,
    /// CHILD_SAs that took another one's place.
    children_rekeyed,
    /// CHILD_SAs that were not made.
    children_failed,
    /// Peers asked for a cookie first.
    cookies_sent,
    /// Cookies that were wrong or too old.
    cookies_wrong,
    /// Dropped: not an IKE message.
    malformed,
    /// Dropped: of another major version.
    version,
    /// Dropped: for no IKE SA of ours.
    unknown_sa,
    /// Dropped: integrity check failed.
    integrity,
    /// Dropped: a message ID that is neither the next nor the last one.
    message_id,
    /// Dropped: what the state does not allow.
    unexpected,
    /// Dropped: fragments that do not fit each other, or too many.
    fragments,
    /// Dropped: no peer in the configuration is there.
    no_peer,
    /// Refused: half-open IKE SAs at their limit.
    half_open_limit,
    /// Refused: half-open IKE SAs of one address at their limit.
    source_limit,
    /// Refused: IKE SAs at their limit.
    sa_limit,
    /// Refused: CHILD_SAs of an IKE SA at their limit.
    child_limit,
}
