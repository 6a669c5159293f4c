//! Payloads and their chain (RFC 7296 §3.2).

use phalanx_wire::Spi;

use super::{ChildSpi, CodecError, HEADER_LEN, Notify, Protocol};

/// More payloads than any message of ours or of others has.
const MOST: usize = 64;

/// Kinds of payload (IANA, "IKEv2 Payload Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadKind {
    Sa = 33,
    KeyExchange = 34,
    IdInitiator = 35,
    IdResponder = 36,
    Certificate = 37,
    CertificateRequest = 38,
    Auth = 39,
    Nonce = 40,
    Notify = 41,
    Delete = 42,
    VendorId = 43,
    SelectorsInitiator = 44,
    SelectorsResponder = 45,
    Encrypted = 46,
    Configuration = 47,
    Eap = 48,
    Fragment = 53,
}

impl PayloadKind {
    fn from_id(id: u8) -> Option<PayloadKind> {
        use PayloadKind::*;
        const KNOWN: [PayloadKind; 17] = [
            Sa,
            KeyExchange,
            IdInitiator,
            IdResponder,
            Certificate,
            CertificateRequest,
            Auth,
            Nonce,
            Notify,
            Delete,
            VendorId,
            SelectorsInitiator,
            SelectorsResponder,
            Encrypted,
            Configuration,
            Eap,
            Fragment,
        ];
        KNOWN.into_iter().find(|kind| *kind as u8 == id)
    }
}

/// One payload without its generic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    pub kind: PayloadKind,
    pub body: &'a [u8],
}

/// An Encrypted payload, or a fragment of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The kind of the first payload inside.
    pub first: u8,
    /// Bytes of the message that are authenticated only.
    pub aad_len: usize,
    /// IV, ciphertext, ICV.
    pub body: &'a [u8],
    /// Which fragment of how many, from 1 on (RFC 7383 §2.5).
    pub fragment: Option<(u16, u16)>,
}

/// A chain of payloads. Unknown ones that are not critical are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads<'a> {
    pub list: Vec<Payload<'a>>,
    pub sealed: Option<Sealed<'a>>,
}

/// Parses a chain whose first payload is of kind `first`. `offset`: bytes of the message in front of `bytes`.
///
/// # Errors
/// Lengths that do not fit, unknown critical payloads.
pub fn payloads(first: u8, bytes: &[u8], offset: usize) -> Result<Payloads<'_>, CodecError> {
    let mut found = Payloads::default();
    let (mut next, mut at) = (first, 0);
    while next != 0 {
        if found.list.len() == MOST {
            return Err(CodecError::TooMany("payloads"));
        }
        let head: &[u8; 4] = bytes.get(at..).and_then(|b| b.first_chunk()).ok_or(CodecError::Length)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body = bytes.get(at + 4..at + len).ok_or(CodecError::Length)?;
        let (kind, critical) = (next, head[1] & 0x80 != 0);
        at += len;
        next = head[0];
        match PayloadKind::from_id(kind) {
            Some(PayloadKind::Encrypted | PayloadKind::Fragment) => {
                // It is the last one; its next payload is the first one inside (RFC 7296 §3.14).
                if at != bytes.len() {
                    return Err(CodecError::Field("something behind the encrypted payload"));
                }
                found.sealed = Some(sealed(kind, next, offset + at - body.len(), body)?);
                return Ok(found);
            }
            Some(kind) => found.list.push(Payload { kind, body }),
            // RFC 7296 §2.5
            None if critical => return Err(CodecError::UnknownCritical(kind)),
            None => {}
        }
    }
    // RFC 7296 §3.2: what the lengths leave over belongs to nothing.
    if at == bytes.len() { Ok(found) } else { Err(CodecError::Length) }
}

fn sealed(kind: u8, first: u8, body_at: usize, body: &[u8]) -> Result<Sealed<'_>, CodecError> {
    if kind != PayloadKind::Fragment as u8 {
        return Ok(Sealed { first, aad_len: body_at, body, fragment: None });
    }
    let (head, body) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
    let (number, total) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
    // RFC 7383 §2.5: both count from 1; only the first fragment names the first payload inside.
    if number == 0 || number > total || (number != 1 && first != 0) {
        return Err(CodecError::Field("fragment numbers"));
    }
    Ok(Sealed { first, aad_len: body_at + 4, body, fragment: Some((number, total)) })
}

impl<'a> Payloads<'a> {
    /// Those of a whole message in clear, header included.
    pub fn of_message(first: u8, message: &'a [u8]) -> Result<Payloads<'a>, CodecError> {
        payloads(first, message.get(HEADER_LEN..).ok_or(CodecError::Length)?, HEADER_LEN)
    }

    /// The body of the first payload of a kind.
    pub fn find(&self, kind: PayloadKind) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The bodies of every payload of a kind.
    pub fn all(&self, kind: PayloadKind) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().filter(move |p| p.kind == kind).map(|p| p.body)
    }

    /// The first payload of a kind, which has to be there.
    pub fn need(&self, kind: PayloadKind, what: &'static str) -> Result<&'a [u8], CodecError> {
        self.find(kind).ok_or(CodecError::Field(what))
    }

    /// Every Notify payload that can be read.
    pub fn notifies(&self) -> impl Iterator<Item = Notify<'a>> {
        self.all(PayloadKind::Notify).filter_map(|body| Notify::parse(body).ok())
    }

    /// The nonce: 16 to 256 bytes (RFC 7296 §3.9).
    pub fn nonce(&self) -> Result<&'a [u8], CodecError> {
        let nonce = self.need(PayloadKind::Nonce, "no nonce")?;
        if (16..=256).contains(&nonce.len()) { Ok(nonce) } else { Err(CodecError::Field("a nonce of a wrong length")) }
    }

    /// Group and public value of the Key Exchange payload, where there is one (RFC 7296 §3.4).
    pub fn key_exchange(&self) -> Result<Option<(u16, &'a [u8])>, CodecError> {
        let Some(body) = self.find(PayloadKind::KeyExchange) else { return Ok(None) };
        let (head, value) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
        Ok(Some((u16::from_be_bytes([head[0], head[1]]), value)))
    }

    /// Method and data of the Authentication payload, where there is one (RFC 7296 §3.8).
    pub fn auth(&self) -> Result<Option<(u8, &'a [u8])>, CodecError> {
        let Some(body) = self.find(PayloadKind::Auth) else { return Ok(None) };
        let (head, data) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
        Ok(Some((head[0], data)))
    }

    /// X.509 certificates, DER (RFC 7296 §3.6, encoding 4); other encodings are left out.
    pub fn certificates(&self) -> Vec<&'a [u8]> {
        self.all(PayloadKind::Certificate).filter_map(|body| body.strip_prefix(&[4])).collect()
    }

    /// Every Delete payload.
    pub fn deletes(&self) -> Result<Vec<Delete>, CodecError> {
        self.all(PayloadKind::Delete).map(Delete::parse).collect()
    }
}

/// A Delete payload (RFC 7296 §3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA that the message belongs to.
    Ike,
    /// SAs of ESP or AH, by the sender's inbound SPIs.
    Children(Vec<ChildSpi>),
    /// Of a protocol that we do not have.
    Other,
}

impl Delete {
    fn parse(body: &[u8]) -> Result<Delete, CodecError> {
        let (head, spis) = body.split_first_chunk::<4>().ok_or(CodecError::Length)?;
        let count = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if spis.len() != count * usize::from(head[1]) {
            return Err(CodecError::Length);
        }
        match (Protocol::from_id(head[0]), head[1]) {
            (Some(Protocol::Ike), 0) => Ok(Delete::Ike),
            (Some(protocol @ (Protocol::Esp | Protocol::Ah)), 4) => {
                let spis = spis.as_chunks::<4>().0.iter();
                Ok(Delete::Children(spis.map(|spi| (protocol, Spi(u32::from_be_bytes(*spi)))).collect()))
            }
            (Some(_), _) => Err(CodecError::Field("an SPI of a wrong length")),
            (None, _) => Ok(Delete::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Exchange, Header, NotifyKind};
    use super::*;

    const ESP: ChildSpi = (Protocol::Esp, Spi(0x100));
    const AH: ChildSpi = (Protocol::Ah, Spi(0x200));

    fn body() -> Body {
        let mut body = Body::new();
        body.nonce(&[7; 32]);
        body.notify(NotifyKind::INITIAL_CONTACT, &[]);
        body.delete_children(&[ESP, AH]);
        body
    }

    #[test]
    fn payloads_are_read_as_they_were_written() {
        let (body, mut more) = (body(), Body::new());
        more.auth(2, b"mac");
        let mut both = body.clone();
        both.append(&more);
        let read = payloads(both.first(), both.bytes(), 0).unwrap();
        assert_eq!(read.nonce(), Ok(&[7; 32][..]));
        assert!(read.notifies().any(|n| n.is(NotifyKind::INITIAL_CONTACT)));
        assert_eq!(read.deletes().unwrap(), [Delete::Children(vec![AH]), Delete::Children(vec![ESP])]);
        assert_eq!(read.auth(), Ok(Some((2, &b"mac"[..]))));
    }

    #[test]
    fn no_cut_off_chain_is_a_chain() {
        let body = body();
        for len in 0..body.bytes().len() {
            assert!(payloads(body.first(), &body.bytes()[..len], 0).is_err(), "{len}");
        }
        assert!(payloads(body.first(), &[body.bytes(), &[0]].concat(), 0).is_err());
    }

    #[test]
    fn what_is_unknown_is_skipped_unless_it_is_critical() {
        // RFC 7296 §2.5
        let chain = [40, 0, 0, 5, 9, 0, 0, 0, 20];
        let (nonce, unknown) = ([1; 16], &chain[..5]);
        let mut bytes = unknown.to_vec();
        bytes.extend([0, 0, 0, 20]);
        bytes.extend(nonce);
        assert_eq!(payloads(200, &bytes, 0).unwrap().nonce(), Ok(&nonce[..]));
        bytes[1] = 0x80;
        assert_eq!(payloads(200, &bytes, 0), Err(CodecError::UnknownCritical(200)));
        // Critical says nothing about a payload that we know.
        bytes[1] = 0;
        bytes[6] = 0x80;
        assert!(payloads(200, &bytes, 0).is_ok());
    }

    #[test]
    fn nothing_comes_behind_what_is_encrypted() {
        let sealed = [41, 0, 0, 8, 1, 2, 3, 4];
        let found = payloads(46, &sealed, 28).unwrap().sealed.unwrap();
        assert_eq!((found.first, found.aad_len, found.body, found.fragment), (41, 32, &[1, 2, 3, 4][..], None));
        assert!(payloads(46, &[&sealed[..], &[0]].concat(), 28).is_err());
        let fragment = [0, 0, 0, 10, 0, 2, 0, 3, 9, 9];
        let found = payloads(53, &fragment, 28).unwrap().sealed.unwrap();
        assert_eq!((found.aad_len, found.body, found.fragment), (36, &[9, 9][..], Some((2, 3))));
        for bad in [[0, 0, 0, 10, 0, 0, 0, 3, 9, 9], [0, 0, 0, 10, 0, 4, 0, 3, 9, 9], [41, 0, 0, 10, 0, 2, 0, 3, 9, 9]]
        {
            assert!(payloads(53, &bad, 28).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_says_how_long_its_message_is_and_of_which_version() {
        let header = Header { spi_i: 1, spi_r: 2, exchange: Exchange::Auth, initiator: true, response: false, id: 3 };
        let mut bytes = Vec::new();
        header.write(46, HEADER_LEN, &mut bytes);
        assert_eq!(Header::parse(&bytes), Ok((header, 46)));
        assert_eq!(Header::parse(&bytes[..27]), Err(CodecError::Length));
        bytes[27] += 1;
        assert_eq!(Header::parse(&bytes), Err(CodecError::Length));
        bytes[27] -= 1;
        bytes[17] = 0x10;
        assert_eq!(Header::parse(&bytes), Err(CodecError::Version(1)));
        bytes[17] = 0x2f;
        assert!(Header::parse(&bytes).is_ok(), "a higher minor version is the same");
    }
}
