//! Payloads to be sent, one behind the other.

use phalanx_wire::Spi;

use super::{
    ChildSpi, Notify, NotifyKind, PayloadKind, Proposal, Protocol, TrafficSelector, write_proposals, write_selectors,
};

/// Bytes of our nonces: at least half of the longest key of a prf (RFC 7296 §2.10).
pub const NONCE_LEN: usize = 32;

/// A chain of payloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    first: u8,
    /// Where the last payload says what follows.
    next_at: usize,
    bytes: Vec<u8>,
}

impl Body {
    pub fn new() -> Body {
        Body::default()
    }

    /// The kind of the first payload; 0 if there is none.
    pub fn first(&self) -> u8 {
        self.first
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds one payload. `write` makes its body.
    pub fn add(&mut self, kind: PayloadKind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        if start == 0 {
            self.first = kind as u8;
        } else {
            self.bytes[self.next_at] = kind as u8;
        }
        self.next_at = start;
        self.bytes.extend([0; 4]);
        write(&mut self.bytes);
        let len = ((self.bytes.len() - start) as u16).to_be_bytes();
        self.bytes[start + 2..start + 4].copy_from_slice(&len);
    }

    /// All payloads of another one behind these.
    pub fn append(&mut self, other: &Body) {
        if other.bytes.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            *self = other.clone();
            return;
        }
        self.bytes[self.next_at] = other.first;
        self.next_at = self.bytes.len() + other.next_at;
        self.bytes.extend(&other.bytes);
    }

    pub fn sa(&mut self, proposals: &[Proposal]) {
        self.add(PayloadKind::Sa, |out| write_proposals(proposals, out));
    }

    pub fn key_exchange(&mut self, group: u16, public: &[u8]) {
        self.add(PayloadKind::KeyExchange, |out| {
            out.extend(group.to_be_bytes());
            out.extend([0, 0]);
            out.extend(public);
        });
    }

    pub fn nonce(&mut self, nonce: &[u8]) {
        self.add(PayloadKind::Nonce, |out| out.extend(nonce));
    }

    pub fn notify(&mut self, kind: NotifyKind, data: &[u8]) {
        self.add(PayloadKind::Notify, |out| {
            out.extend([0, 0]);
            out.extend(kind.0.to_be_bytes());
            out.extend(data);
        });
    }

    /// About one SA of ESP or AH.
    pub fn notify_child(&mut self, kind: NotifyKind, (protocol, spi): ChildSpi) {
        self.add(PayloadKind::Notify, |out| {
            out.extend([protocol.id(), 4]);
            out.extend(kind.0.to_be_bytes());
            out.extend(spi.0.to_be_bytes());
        });
    }

    pub fn delete_ike(&mut self) {
        self.add(PayloadKind::Delete, |out| out.extend([Protocol::Ike.id(), 0, 0, 0]));
    }

    /// A payload for each protocol (RFC 7296 §3.11).
    pub fn delete_children(&mut self, spis: &[ChildSpi]) {
        for protocol in [Protocol::Ah, Protocol::Esp] {
            let spis: Vec<Spi> = spis.iter().filter(|(of, _)| *of == protocol).map(|(_, spi)| *spi).collect();
            if spis.is_empty() {
                continue;
            }
            self.add(PayloadKind::Delete, |out| {
                out.extend([protocol.id(), 4]);
                out.extend((spis.len() as u16).to_be_bytes());
                spis.iter().for_each(|spi| out.extend(spi.0.to_be_bytes()));
            });
        }
    }

    pub fn selectors(&mut self, initiator: &[TrafficSelector], responder: &[TrafficSelector]) {
        self.add(PayloadKind::SelectorsInitiator, |out| write_selectors(initiator, out));
        self.add(PayloadKind::SelectorsResponder, |out| write_selectors(responder, out));
    }

    pub fn auth(&mut self, method: u8, data: &[u8]) {
        self.add(PayloadKind::Auth, |out| {
            out.extend([method, 0, 0, 0]);
            out.extend(data);
        });
    }

    /// An X.509 certificate (encoding 4), DER.
    pub fn certificate(&mut self, der: &[u8]) {
        self.add(PayloadKind::Certificate, |out| {
            out.push(4);
            out.extend(der);
        });
    }

    /// Asks for certificates under these CAs: SHA-1 of their public keys (RFC 7296 §3.7).
    pub fn certificate_request(&mut self, authorities: &[u8]) {
        self.add(PayloadKind::CertificateRequest, |out| {
            out.push(4);
            out.extend(authorities);
        });
    }
}

/// Whether a notification of a kind is among them.
impl Notify<'_> {
    pub fn is(&self, kind: NotifyKind) -> bool {
        self.kind == kind
    }
}
