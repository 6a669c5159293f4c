//! What can be wrong with bytes.

use crate::buffer::NoRoom;
use crate::drop_reason::DropReason;
use thiserror::Error;

/// Why bytes are not the header they should be. Converts into the [`DropReason`] that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end inside the header; more of them could make it whole.
    #[error("the bytes end inside a header")]
    Short,
    /// Malformed Ethernet header.
    #[error("malformed Ethernet header")]
    Ethernet,
    /// Malformed ARP message.
    #[error("malformed ARP message")]
    Arp,
    /// A neighbour discovery message that RFC 4861 §7.1 says to ignore.
    #[error("invalid neighbour discovery message")]
    Nd,
    /// Malformed IPv4 or IPv6 header, or extension header.
    #[error("malformed IP header")]
    Ip,
    /// A checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// A fragment other than the first, where an upper-layer header was asked for.
    #[error("the fragment does not hold the upper-layer header")]
    Fragment,
    /// Not one of the protocols or message types asked for.
    #[error("unsupported protocol")]
    Protocol,
    /// Malformed TCP, UDP, ICMP, ESP or AH header.
    #[error("malformed upper-layer header")]
    Upper,
    /// GRE or link header that is not of a link of ours.
    #[error("not a link packet")]
    Link,
    /// Link header of another version.
    #[error("unknown link header version")]
    LinkVersion,
    /// The TTL or hop limit is used up.
    #[error("hop limit used up")]
    TtlExpired,
    /// No space for the header to be written.
    #[error("no room for the header")]
    NoRoom,
}

impl From<WireError> for DropReason {
    fn from(e: WireError) -> Self {
        match e {
            WireError::Short | WireError::Upper => DropReason::Runt,
            WireError::Ethernet => DropReason::BadEthernet,
            WireError::Arp => DropReason::BadArp,
            WireError::Nd => DropReason::BadNd,
            WireError::Ip => DropReason::BadIp,
            WireError::Checksum => DropReason::BadChecksum,
            WireError::Fragment => DropReason::Fragment,
            WireError::Protocol => DropReason::UnsupportedProtocol,
            WireError::Link => DropReason::LinkForged,
            WireError::LinkVersion => DropReason::LinkVersion,
            WireError::TtlExpired => DropReason::TtlExpired,
            WireError::NoRoom => DropReason::NoRoom,
        }
    }
}

impl From<NoRoom> for WireError {
    fn from(_: NoRoom) -> Self {
        WireError::NoRoom
    }
}

impl From<NoRoom> for DropReason {
    fn from(_: NoRoom) -> Self {
        DropReason::NoRoom
    }
}
