//! Who somebody is (RFC 7296 §3.5).

use std::net::{Ipv4Addr, Ipv6Addr};

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A host name.
    Fqdn(String),
    /// A mail address.
    Rfc822(String),
    /// A distinguished name, DER.
    DerDn(Vec<u8>),
    /// Any bytes.
    KeyId(Vec<u8>),
}
