//! Tunnel names: what a filter yields and an outbound SA is found by (R4, R17).

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::IpsecError;

/// The name of a tunnel: 1 to 31 letters, digits and `. _ : -`. Held in place, so it is copied like a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TunnelName {
    bytes: [u8; TunnelName::MAX],
    len: u8,
}

const _: () = assert!(size_of::<TunnelName>() == 32);

impl TunnelName {
    /// The longest name in bytes.
    pub const MAX: usize = 31;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`IpsecError::TunnelName`].
    pub fn new(name: &str) -> Result<TunnelName, IpsecError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if name.is_empty() || name.len() > Self::MAX || !name.bytes().all(good) {
            return Err(IpsecError::TunnelName(name.to_owned()));
        }
        let mut bytes = [0; Self::MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(TunnelName { bytes, len: name.len() as u8 })
    }

    /// Its SAs come from IKE: `peer:child`. A static one cannot have a colon in its name.
    #[must_use]
    pub fn is_negotiated(&self) -> bool {
        self.as_str().contains(':')
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl std::str::FromStr for TunnelName {
    type Err = IpsecError;
    fn from_str(s: &str) -> Result<Self, IpsecError> {
        Self::new(s)
    }
}

impl TryFrom<String> for TunnelName {
    type Error = IpsecError;
    fn try_from(s: String) -> Result<Self, IpsecError> {
        Self::new(&s)
    }
}

impl From<TunnelName> for String {
    fn from(name: TunnelName) -> String {
        name.as_str().to_owned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_text_and_refuses_what_tables_cannot_show() {
        assert_eq!(TunnelName::new("client-1.v6").unwrap().as_str(), "client-1.v6");
        assert_eq!(TunnelName::new(&"x".repeat(31)).unwrap().as_str().len(), 31);
        for bad in ["", "two words", "tab\t", "ümlaut", &"x".repeat(32)] {
            assert!(TunnelName::new(bad).is_err(), "{bad:?}");
        }
    }
}
