//! A key with its salt, as it came from the configuration.

use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Key ++ salt. Wiped when dropped; `Debug` shows its length only (I8).
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(Zeroizing<Vec<u8>>);

impl KeyText {
    /// Reads hex digits. Blanks, colons, underscores and one `0x` in front are allowed. The error never quotes them.
    pub(super) fn from_hex(text: &str) -> Result<KeyText, String> {
        let text = text.trim();
        let text = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2 + 1));
        let mut half: Option<u8> = None;
        for c in text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '_')) {
            let Some(digit) = c.to_digit(16) else { return Err("holds a character that is no hex digit".to_owned()) };
            let digit = digit as u8;
            match half.take() {
                Some(high) => bytes.push(high << 4 | digit),
                None => half = Some(digit),
            }
        }
        if half.is_some() {
            half.zeroize();
            return Err(format!("has an odd number of hex digits ({})", 2 * bytes.len() + 1));
        }
        Ok(KeyText(bytes))
    }

    /// The bytes: key, then salt.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_however_it_is_grouped_and_nothing_quotes_it() {
        assert_eq!(KeyText::from_hex("0x00 11:22_33\n").unwrap().bytes(), [0, 0x11, 0x22, 0x33]);
        assert_eq!(KeyText::from_hex("abc").unwrap_err(), "has an odd number of hex digits (3)");
        assert!(!KeyText::from_hex("beefcafeZZ").unwrap_err().contains("beef"));
        assert_eq!(format!("{:?}", KeyText::from_hex("beef").unwrap()), "KeyText(2 bytes)");
    }
}
