//! Why a packet was dropped: one list for the whole data path, each the index of its counter and its name in `status`.

use serde::{Serialize, Serializer};
use std::fmt;

macro_rules! reasons {
    ($($variant:ident $name:literal $help:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];
            /// How many there are: the length of an array of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason's name as `status` and the metrics write it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One line for a person who looks at the counter.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => $help,)* }
            }
        }
    };
}

reasons! {
    Runt "runt" "The packet ends inside a header.";
    BadEthernet "bad-ethernet" "The Ethernet header is not one a host sends.";
    NotForUs "not-for-us" "The frame or packet is addressed to nobody here.";
    BadArp "bad-arp" "The ARP message is malformed.";
    BadNd "bad-nd" "The neighbour discovery message fails the checks of RFC 4861 section 7.1.";
    BadIp "bad-ip" "The IP header is malformed.";
    BadChecksum "bad-checksum" "A header or message checksum is wrong.";
    Fragment "fragment" "A fragment where only whole packets are processed.";
    FragmentDuplicate "fragment-duplicate" "A second copy of a fragment that is here already.";
    FragmentOverlap "fragment-overlap" "Fragments of one packet that overlap or contradict each other (RFC 5722).";
    FragmentTooMany "fragment-too-many" "A packet in more fragments than are kept of one.";
    FragmentTooBig "fragment-too-big" "Fragments of a packet that is larger than any that is put together here.";
    FragmentTimeout "fragment-timeout" "Fragments of a packet that did not become whole in time.";
    FragmentLimit "fragment-limit" "Fragments that made room for newer ones: their source, or all of them, reached the limit.";
    FragmentWithoutFirst "fragment-without-first" "An inner fragment whose first one, which says where it belongs, did not come before it.";
    TinyFragment "tiny-fragment" "A fragment that cuts a TCP header apart.";
    UnsupportedProtocol "unsupported-protocol" "A protocol that nobody here speaks.";
    ClearToVip "clear-to-vip" "A packet in clear to an address that only takes protected ones.";
    Ike "ike" "An IKE message to a VIP whose router has no peer that would speak it.";
    IkeRate "ike-rate" "More IKE messages in a second than are looked at.";
    IkeFull "ike-full" "An IKE message while as many wait for the control core as may wait.";
    UnknownSpi "unknown-spi" "No inbound SA has this SPI.";
    WrongPeer "wrong-peer" "The outer source is not the SA's peer.";
    TooOld "too-old" "The sequence number is left of the replay window.";
    Replay "replay" "The sequence number was already accepted.";
    SequenceWrap "sequence-wrap" "The sequence number cannot belong to this SA: it is zero, or past the end of the number space.";
    BadIcv "bad-icv" "The integrity check failed: forged, damaged, or another key.";
    BadAh "bad-ah" "The authentication header is not of the length that its SA's algorithm gives it.";
    MissingAh "missing-ah" "An ESP packet without the AH that its SA's tunnel is within.";
    WrongBundle "wrong-bundle" "AH around ESP whose SA's tunnel is not within that of the AH.";
    BadPadding "bad-padding" "The ESP padding is not the one RFC 4303 section 2.4 prescribes.";
    BadNextHeader "bad-next-header" "The ESP next header does not fit the SA's mode.";
    BadInner "bad-inner" "The decrypted packet is malformed.";
    WrongTunnel "wrong-tunnel" "The inner packet does not fit the selectors of the SA it came through.";
    FilterDeny "filter-deny" "A filter rule says deny.";
    NoFilter "no-filter" "No filter rule matches.";
    NoSa "no-sa" "The filter's tunnel has no outbound SA.";
    NoLease "no-lease" "No outbound sequence numbers arrived in time.";
    LeaseWaitFull "lease-wait-full" "Too many packets wait for outbound sequence numbers.";
    SequenceExhausted "sequence-exhausted" "The outbound SA has used up its sequence numbers.";
    HardLifesize "hard-lifesize" "The SA has protected as many bytes as it may.";
    CeilingWait "ceiling-wait" "The number is above the durable ceiling, which did not move in time.";
    TableFull "table-full" "The connection table is full.";
    HalfOpenLimit "half-open-limit" "The peer has too many half-open connections.";
    SaWait "sa-wait" "A packet that waited in vain: for the targets to have its SA, or for IKE to make one.";
    ConnWait "conn-wait" "The first packet of a connection that a target opens: the router did not answer in time, or too many wait for it.";
    PortTaken "port-taken" "The first packet of a connection from a port of a VIP that another target's connection to the same peer and port has.";
    NoTarget "no-target" "No target can be selected.";
    NoListener "no-listener" "No target listens on the port; the peer was refused as by any host, within a rate.";
    Settling "settling" "The router is still gathering connections and windows after a restart.";
    UnknownConnection "unknown-connection" "No connection is known for this segment.";
    LinkForged "link-forged" "A link packet that did not come from its link, or makes no sense.";
    LinkVersion "link-version" "A link packet of a version that is not spoken here.";
    LinkVip "link-vip" "A link packet for a VIP that this target does not serve.";
    LinkEpoch "link-epoch" "A link packet of an owner that is no longer obeyed.";
    LinkDown "link-down" "The link to the target is down.";
    NoNeighbour "no-neighbour" "The next hop did not answer ARP or ND.";
    NeighbourWaitFull "neighbour-wait-full" "Too many packets wait for next hops.";
    TooBig "too-big" "The packet does not fit the MTU of its way and may not be fragmented.";
    MtuUnknownSa "mtu-unknown-sa" "A message that an ESP packet was too big, about one that no SA here sends.";
    MtuImplausible "mtu-implausible" "A message that an ESP packet was too big, about one that cannot have been sent or was not too big.";
    MtuFloor "mtu-floor" "A message that an ESP packet was too big, with an MTU below what every path carries.";
    MtuNotLower "mtu-not-lower" "A message that an ESP packet was too big, with an MTU that is known already or higher.";
    MtuRate "mtu-rate" "More messages that ESP packets were too big than are listened to.";
    TtlExpired "ttl-expired" "The hop limit is used up.";
    NoRoom "no-room" "The packet buffer has no room for the headers to add, or no buffer is free.";
    QueueFull "queue-full" "A ring between cores or a port's transmit queue is full.";
    PortDown "port-down" "The port to send through is down.";
    NoApplication "no-application" "This core has no application port.";
    SpoofedVip "spoofed-vip" "A packet from the application whose source is no VIP served here, or a VIP's address used from outside.";
}

impl DropReason {
    /// The index of the reason's counter: below [`DropReason::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason whose name this is.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::error::Error for DropReason {}

impl Serialize for DropReason {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_kebab_case_name() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for r in DropReason::ALL {
            // The name is the variant's name in kebab case.
            let mut kebab = String::new();
            for (i, c) in format!("{r:?}").chars().enumerate() {
                if c.is_ascii_uppercase() && i > 0 {
                    kebab.push('-');
                }
                kebab.push(c.to_ascii_lowercase());
            }
            assert_eq!(r.name(), kebab);
            assert!(r.help().ends_with('.'));
            assert_eq!(DropReason::from_name(r.name()), Some(*r));
        }
    }

    #[test]
    fn the_index_of_a_reason_is_its_place_in_the_list() {
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
        }
    }
}
