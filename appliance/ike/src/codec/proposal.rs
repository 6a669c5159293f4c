//! Proposals and their transforms (RFC 7296 §3.3).

use phalanx_wire::Spi;

use super::CodecError;

/// More than anybody offers.
const MOST_PROPOSALS: usize = 32;
const MOST_TRANSFORMS: usize = 64;

/// What a proposal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Ike,
    Ah,
    Esp,
}

/// What names a CHILD_SA in messages: SPIs of ESP and of AH have nothing to do with each other.
pub type ChildSpi = (Protocol, Spi);

impl Protocol {
    pub const fn from_id(id: u8) -> Option<Protocol> {
        match id {
            1 => Some(Protocol::Ike),
            2 => Some(Protocol::Ah),
            3 => Some(Protocol::Esp),
            _ => None,
        }
    }

    pub const fn id(self) -> u8 {
        match self {
            Protocol::Ike => 1,
            Protocol::Ah => 2,
            Protocol::Esp => 3,
        }
    }
}

/// Kinds of transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransformKind {
    Encryption,
    Prf,
    Integrity,
    KeyExchange,
    Esn,
    /// Among them the further key exchanges of RFC 9370, 6 to 12.
    Other(u8),
}

impl TransformKind {
    pub const fn from_id(id: u8) -> TransformKind {
        match id {
            1 => TransformKind::Encryption,
            2 => TransformKind::Prf,
            3 => TransformKind::Integrity,
            4 => TransformKind::KeyExchange,
            5 => TransformKind::Esn,
            other => TransformKind::Other(other),
        }
    }

    pub const fn id(self) -> u8 {
        match self {
            TransformKind::Encryption => 1,
            TransformKind::Prf => 2,
            TransformKind::Integrity => 3,
            TransformKind::KeyExchange => 4,
            TransformKind::Esn => 5,
            TransformKind::Other(other) => other,
        }
    }
}

/// One algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    pub kind: TransformKind,
    pub id: u16,
    /// The key length attribute (RFC 7296 §3.3.5).
    pub key_bits: Option<u16>,
    /// It has an attribute that we do not know, which makes it unacceptable (RFC 7296 §3.3.6).
    pub unknown_attribute: bool,
}

impl Transform {
    pub const fn new(kind: TransformKind, id: u16, key_bits: Option<u16>) -> Transform {
        Transform { kind, id, key_bits, unknown_attribute: false }
    }
}

/// One proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub number: u8,
    /// None: of a protocol that we do not know.
    pub protocol: Option<Protocol>,
    /// 0, 4 or 8 bytes.
    pub spi: Vec<u8>,
    pub transforms: Vec<Transform>,
}

/// The body of a Security Association payload.
pub fn parse_proposals(body: &[u8]) -> Result<Vec<Proposal>, CodecError> {
    let (mut rest, mut proposals) = (body, Vec::new());
    loop {
        let (last, inner, behind) = substructure(rest, 2)?;
        if proposals.len() == MOST_PROPOSALS {
            return Err(CodecError::TooMany("proposals"));
        }
        proposals.push(proposal(inner)?);
        rest = behind;
        match (last, rest.is_empty()) {
            (true, true) => return Ok(proposals),
            (false, false) => {}
            _ => return Err(CodecError::Field("a list of proposals that ends elsewhere than it says")),
        }
    }
}

/// One element of a list of proposals or transforms: whether it is the last, what is in it, what is behind it.
fn substructure(bytes: &[u8], more: u8) -> Result<(bool, &[u8], &[u8]), CodecError> {
    let head = bytes.first_chunk::<4>().ok_or(CodecError::Length)?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (element, behind) = bytes.split_at_checked(len).ok_or(CodecError::Length)?;
    let inner = element.get(4..).ok_or(CodecError::Length)?;
    match head[0] {
        0 => Ok((true, inner, behind)),
        byte if byte == more => Ok((false, inner, behind)),
        _ => Err(CodecError::Field("neither last nor more")),
    }
}

fn proposal(inner: &[u8]) -> Result<Proposal, CodecError> {
    let (&[number, protocol, spi_len, count], rest) = inner.split_first_chunk::<4>().ok_or(CodecError::Length)?;
    let (spi, mut rest) = rest.split_at_checked(usize::from(spi_len)).ok_or(CodecError::Length)?;
    if usize::from(count) > MOST_TRANSFORMS {
        return Err(CodecError::TooMany("transforms"));
    }
    let mut transforms = Vec::with_capacity(usize::from(count));
    for n in 1..=count {
        let (last, inner, behind) = substructure(rest, 3)?;
        if last != (n == count) {
            return Err(CodecError::Field("a list of transforms that ends elsewhere than it says"));
        }
        transforms.push(transform(inner)?);
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(CodecError::Length);
    }
    Ok(Proposal { number, protocol: Protocol::from_id(protocol), spi: spi.to_vec(), transforms })
}

fn transform(inner: &[u8]) -> Result<Transform, CodecError> {
    let (&[kind, _, high, low], mut rest) = inner.split_first_chunk::<4>().ok_or(CodecError::Length)?;
    let mut transform = Transform::new(TransformKind::from_id(kind), u16::from_be_bytes([high, low]), None);
    while !rest.is_empty() {
        let (&[t0, t1, v0, v1], behind) = rest.split_first_chunk::<4>().ok_or(CodecError::Length)?;
        let (kind, value) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([v0, v1]));
        // The first bit says that the value is in place of a length.
        rest = if kind & 0x8000 != 0 { behind } else { behind.get(usize::from(value)..).ok_or(CodecError::Length)? };
        match kind {
            0x800e if transform.key_bits.is_none() => transform.key_bits = Some(value),
            _ => transform.unknown_attribute = true,
        }
    }
    Ok(transform)
}

/// The body of a Security Association payload.
pub fn write_proposals(proposals: &[Proposal], out: &mut Vec<u8>) {
    for (n, proposal) in proposals.iter().enumerate() {
        let start = out.len();
        let more = if n + 1 < proposals.len() { 2 } else { 0 };
        let protocol = proposal.protocol.map_or(0, Protocol::id);
        out.extend([more, 0, 0, 0, proposal.number, protocol, proposal.spi.len() as u8]);
        out.push(proposal.transforms.len() as u8);
        out.extend(&proposal.spi);
        for (n, transform) in proposal.transforms.iter().enumerate() {
            let more = if n + 1 < proposal.transforms.len() { 3 } else { 0 };
            let len = if transform.key_bits.is_some() { 12 } else { 8 };
            out.extend([more, 0, 0, len, transform.kind.id(), 0]);
            out.extend(transform.id.to_be_bytes());
            if let Some(bits) = transform.key_bits {
                out.extend([0x80, 0x0e]);
                out.extend(bits.to_be_bytes());
            }
        }
        let len = ((out.len() - start) as u16).to_be_bytes();
        out[start + 2..start + 4].copy_from_slice(&len);
    }
}
