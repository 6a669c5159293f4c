//! Names of things that must not be mixed up: each is its own type.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    )*};
}

ids! {
    /// A VIP: one address shared by many hosts.
    VipId(u16);
    /// A target: one host, or one core of a host, that runs the application behind a VIP.
    TargetId(u16);
    /// A poll core of a node, numbered by its configuration.
    CoreId(u16);
    /// The reign of one owner of a VIP; the highest one seen is obeyed (I6).
    Epoch(u64);
    /// Security parameters index (RFC 4303 §2.1).
    Spi(u32);
    /// A peer, by the identity its security associations were made with.
    PeerId(u32);
    /// One SA in one direction, unique in the cluster; a static SA has the same after a restart.
    SaId(u64);
}

macro_rules! decimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
decimal!(VipId TargetId CoreId Epoch PeerId);

/// As `ip xfrm` writes it: `0x0000c0de`.
impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Spi {
    /// The first value that may name an SA: 0 is for local use, 1..=255 are reserved (RFC 4303 §2.1).
    pub const FIRST: Spi = Spi(256);
}
