//! Notify payloads (RFC 7296 §3.10).

use phalanx_wire::Spi;
use std::fmt;

use super::{ChildSpi, CodecError, Protocol};

/// What is notified (IANA, "IKEv2 Notify Message Types").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NotifyKind(pub u16);

macro_rules! kinds {
    ($($name:ident = $id:literal,)*) => {
        // Some are only shown, never sent or looked for.
        #[allow(dead_code)]
        impl NotifyKind {
            $(pub const $name: NotifyKind = NotifyKind($id);)*
        }

        /// The name in the registry.
        impl fmt::Display for NotifyKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($id => f.write_str(stringify!($name)),)*
                    other => write!(f, "notification {other}"),
                }
            }
        }
    };
}

kinds! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    INVALID_IKE_SPI = 4,
    INVALID_MAJOR_VERSION = 5,
    INVALID_SYNTAX = 7,
    INVALID_MESSAGE_ID = 9,
    INVALID_SPI = 11,
    NO_PROPOSAL_CHOSEN = 14,
    INVALID_KE_PAYLOAD = 17,
    AUTHENTICATION_FAILED = 24,
    SINGLE_PAIR_REQUIRED = 34,
    NO_ADDITIONAL_SAS = 35,
    INTERNAL_ADDRESS_FAILURE = 36,
    FAILED_CP_REQUIRED = 37,
    TS_UNACCEPTABLE = 38,
    INVALID_SELECTORS = 39,
    TEMPORARY_FAILURE = 43,
    CHILD_SA_NOT_FOUND = 44,
    INITIAL_CONTACT = 16384,
    ADDITIONAL_TS_POSSIBLE = 16386,
    NAT_DETECTION_SOURCE_IP = 16388,
    NAT_DETECTION_DESTINATION_IP = 16389,
    COOKIE = 16390,
    USE_TRANSPORT_MODE = 16391,
    REKEY_SA = 16393,
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
    FRAGMENTATION_SUPPORTED = 16430,
    SIGNATURE_HASH_ALGORITHMS = 16431,
}

impl NotifyKind {
    /// Below this are errors (RFC 7296 §3.10.1).
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Debug for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A Notify payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    pub kind: NotifyKind,
    /// The SA of ESP or AH it is about, if it is about one.
    pub spi: Option<ChildSpi>,
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Notify<'a>, CodecError> {
        let (head, rest) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
        let (spi, data) = rest.split_at_checked(usize::from(head[1])).ok_or(CodecError::Length)?;
        let protocol = Protocol::from_id(head[0]).filter(|of| matches!(of, Protocol::Esp | Protocol::Ah));
        let number = spi.first_chunk::<4>().filter(|_| spi.len() == 4).map(|spi| Spi(u32::from_be_bytes(*spi)));
        let spi = protocol.zip(number);
        Ok(Notify { kind: NotifyKind(u16::from_be_bytes([head[2], head[3]])), spi, data })
    }
}
