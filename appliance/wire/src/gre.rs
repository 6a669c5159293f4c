//! GRE in its plain form (RFC 2784, no options): the outside of a link between boxes (R14).

use crate::WireError;

/// Length of the header.
pub const LEN: usize = 4;

/// A GRE header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    /// What is inside, as an ethertype.
    pub ethertype: u16,
}

impl Gre {
    /// Reads the header at the start of `b`.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Link`] if it has a checksum, routing, key, sequence number or another version.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<Gre, WireError> {
        let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
        if h[..2] != [0, 0] {
            return Err(WireError::Link);
        }
        Ok(Gre { ethertype: u16::from_be_bytes([h[2], h[3]]) })
    }

    /// Writes the header at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
        h[..2].fill(0);
        h[2..].copy_from_slice(&self.ethertype.to_be_bytes());
        Ok(())
    }
}

/// Reads the header at the start of `b` and gives the ethertype of what is inside. See [`Gre::parse`].
///
/// # Errors
/// Those of [`Gre::parse`].
#[inline]
pub fn parse(b: &[u8]) -> Result<Gre, WireError> {
    Gre::parse(b)
}

/// Writes a header for `ethertype` at the start of `out`.
///
/// # Errors
/// [`WireError::NoRoom`].
#[inline]
pub fn write(out: &mut [u8], ethertype: u16) -> Result<(), WireError> {
    Gre { ethertype }.write(out)
}
