//! What can be wrong with a security association or a table of them. Packets have `DropReason` instead.

use phalanx_aead::Algorithm;
use std::net::IpAddr;

/// Errors of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpsecError {
    /// The keying material does not fit its algorithm.
    #[error("{} takes {want} bytes of keying material, not {len}: a key{}", .algorithm.name(), behind(*.algorithm))]
    Key {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// Bytes that it takes.
        want: usize,
        /// Bytes that were given.
        len: usize,
    },
    /// SPIs 0 to 255 are reserved.
    #[error("SPI {0:#010x} is reserved: 256 is the first that may be used (RFC 4303 section 2.1)")]
    ReservedSpi(u32),
    /// Not a replay window we know how to keep.
    #[error("replay window of {0}: it must be a multiple of 32 from 32 to 65536")]
    Window(u32),
    /// The outer addresses are not of one family.
    #[error("local address {local} and remote address {remote} are not of one family")]
    Family {
        /// The local outer address.
        local: IpAddr,
        /// The remote outer address.
        remote: IpAddr,
    },
    /// The address cannot be an end of an SA.
    #[error("{0} cannot be an end of an SA: it is no unicast address")]
    NotUnicast(IpAddr),
    /// The mode's tunnel ends are not the SA's.
    #[error("the tunnel's ends {tunnel} are not the SA's address {sa}")]
    TunnelEnds {
        /// What the mode says.
        tunnel: IpAddr,
        /// What the SA says.
        sa: IpAddr,
    },
    /// A selector that no packet of this SA could match.
    #[error("the {which} selector does not contain {address}, the only {which} address a transport mode SA has")]
    TransportSelector {
        /// `local` or `remote`.
        which: &'static str,
        /// The SA's address.
        address: IpAddr,
    },
    /// Local and remote selectors are of different families.
    #[error("the local and the remote selector are not of one family")]
    SelectorFamily,
    /// RFC 3948 §1: AH covers the addresses that a NAT changes.
    #[error("AH cannot travel in UDP: it covers the very addresses that a NAT changes")]
    AhInUdp,
    /// No recursion: one AH around one ESP.
    #[error("AH is around ESP, not around AH")]
    AhInAh,
    /// AH around UDP would cover what a NAT changes.
    #[error("ESP in UDP cannot be within AH")]
    UdpInAh,
    /// ESP in UDP towards nowhere.
    #[error("the peer's UDP port is 0")]
    PeerPort,
    /// Original addresses say what a checksum was made over; a tunnel's inner packet is left as it is.
    #[error("original addresses are for transport mode alone")]
    OriginalInTunnel,
    /// RFC 3948 section 3.1.2: without them the checksums inside cannot be repaired.
    #[error("transport mode in UDP needs the original addresses of both ends")]
    NoOriginal,
    /// Transport mode shows one remote address.
    #[error("the remote selector of transport mode in UDP must be one address")]
    ManyShown,
    /// Soft lifesize above the hard one, or a hard one of 0.
    #[error("lifesize: the soft limit {soft} must not be above the hard limit {hard}, nor that be 0")]
    Lifesize {
        /// Bytes until a rekey.
        soft: u64,
        /// Bytes until the end.
        hard: u64,
    },
    /// A path MTU below what the IP version guarantees.
    #[error("path MTU {mtu} is below {least}, the least of the outer IP version")]
    PathMtu {
        /// What was given.
        mtu: u16,
        /// The least there is.
        least: u16,
    },
    /// A tunnel name that is empty, too long or has characters that tables and files cannot show.
    #[error("tunnel name {0:?}: 1 to 31 letters, digits and . _ : -")]
    TunnelName(String),
    /// A prefix whose length is more than the address has bits, or that has bits set behind its length.
    #[error("prefix {0:?}: an address, or address/length without bits behind the length")]
    Prefix(String),
    /// A range of ports whose first is above its last, or that is not written as one.
    #[error("port range {0:?}: a port, first-last, or any")]
    PortRange(String),
    /// The table was made for that many entries and has them.
    #[error("the table of {what} is full ({limit})")]
    TableFull {
        /// Which table.
        what: &'static str,
        /// How many it holds.
        limit: usize,
    },
    /// There is one already.
    #[error("there is already an SA with this {0}")]
    Duplicate(&'static str),
    /// An inbound SA where an outbound one belongs, or the reverse.
    #[error("the SA is of the other direction")]
    Direction,
}

/// What stands behind the key of encryption.
fn behind(algorithm: Algorithm) -> String {
    match (algorithm.salt_len(), algorithm.integrity_key_len()) {
        (0, integrity) if algorithm.encryption_key_len() == 0 => format!(" of integrity of {integrity}"),
        (0, integrity) => format!(" of {}, one of integrity of {integrity}", algorithm.encryption_key_len()),
        (salt, _) => format!(" of {}, a salt of {salt}", algorithm.key_len()),
    }
}
