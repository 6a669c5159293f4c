//! The IKE header (RFC 7296 §3.1).

use super::CodecError;

/// Bytes of the header.
pub const HEADER_LEN: usize = 28;

/// Message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// IKE_SA_INIT.
    Init,
    /// IKE_AUTH.
    Auth,
    /// CREATE_CHILD_SA.
    CreateChild,
    /// INFORMATIONAL.
    Informational,
    /// Any other.
    Other(u8),
}

impl Exchange {
    pub const fn from_id(id: u8) -> Exchange {
        match id {
            34 => Exchange::Init,
            35 => Exchange::Auth,
            36 => Exchange::CreateChild,
            37 => Exchange::Informational,
            other => Exchange::Other(other),
        }
    }

    pub const fn id(self) -> u8 {
        match self {
            Exchange::Init => 34,
            Exchange::Auth => 35,
            Exchange::CreateChild => 36,
            Exchange::Informational => 37,
            Exchange::Other(other) => other,
        }
    }
}

/// The header, without next payload and length, which belong to what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub spi_i: u64,
    pub spi_r: u64,
    pub exchange: Exchange,
    /// Sent by the original initiator of the IKE SA.
    pub initiator: bool,
    /// An answer.
    pub response: bool,
    pub id: u32,
}

const INITIATOR: u8 = 0x08;
const RESPONSE: u8 = 0x20;

impl Header {
    /// The header and the kind of the first payload. The length in it is that of the datagram.
    pub fn parse(bytes: &[u8]) -> Result<(Header, u8), CodecError> {
        let head: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(CodecError::Length)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let header = Header {
            spi_i: long(0),
            spi_r: long(8),
            exchange: Exchange::from_id(head[18]),
            initiator: head[19] & INITIATOR != 0,
            response: head[19] & RESPONSE != 0,
            id: word(20),
        };
        if word(24) as usize != bytes.len() {
            return Err(CodecError::Length);
        }
        // RFC 7296 §2.5: minor versions are for information.
        match head[17] >> 4 {
            2 => Ok((header, head[16])),
            other => Err(CodecError::Version(other)),
        }
    }

    /// In front of `len - HEADER_LEN` bytes that begin with a payload of kind `first`.
    pub fn write(&self, first: u8, len: usize, out: &mut Vec<u8>) {
        out.extend(self.spi_i.to_be_bytes());
        out.extend(self.spi_r.to_be_bytes());
        let flags = if self.initiator { INITIATOR } else { 0 } | if self.response { RESPONSE } else { 0 };
        out.extend([first, 0x20, self.exchange.id(), flags]);
        out.extend(self.id.to_be_bytes());
        out.extend((len as u32).to_be_bytes());
    }
}
