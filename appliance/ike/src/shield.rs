//! What protects the messages of one IKE SA, whole or in fragments (RFC 7296 §3.14, RFC 7383).

use crate::codec::{Body, HEADER_LEN, Header, PayloadKind, Sealed};
use crate::crypto::{CryptoError, IkeKeys, Opener, Random, Sealer};

/// Bytes of a generic payload header.
const GENERIC: usize = 4;
/// Bytes of fragment number and total.
const NUMBERS: usize = 4;
/// The least room for a fragment, whatever the configuration says: IPv4's 576 bytes.
const LEAST: usize = 576 - 60 - 12;

/// Both directions.
pub struct Shield {
    sealer: Sealer,
    opener: Opener,
}

impl Shield {
    /// `initiator`: we are the one of this IKE SA.
    pub fn new(
        cipher: crate::crypto::Cipher,
        keys: &IkeKeys,
        initiator: bool,
        epoch: u32,
    ) -> Result<Shield, CryptoError> {
        let [i, r] = [(&keys.ei, &keys.ai), (&keys.er, &keys.ar)];
        let (ours, theirs) = if initiator { (i, r) } else { (r, i) };
        Ok(Shield {
            sealer: Sealer::new(cipher, ours.0, ours.1, epoch)?,
            opener: Opener::new(cipher, theirs.0, theirs.1)?,
        })
    }

    /// A message as one datagram, or as several of at most `most` bytes if it is given and the message is longer.
    pub fn seal(
        &mut self,
        header: &Header,
        body: &Body,
        most: Option<usize>,
        random: &mut dyn Random,
    ) -> Result<Vec<Vec<u8>>, CryptoError> {
        let cipher = self.sealer.cipher();
        let whole = HEADER_LEN + GENERIC + cipher.sealed_len(body.bytes().len());
        let Some(most) = most.map(|most| most.max(LEAST)).filter(|most| whole > *most) else {
            return Ok(vec![self.one(header, body.first(), PayloadKind::Encrypted, &[], body.bytes(), random)?]);
        };
        let overhead = HEADER_LEN + GENERIC + NUMBERS + cipher.iv_len() + cipher.icv_len();
        let room = (most - overhead) / cipher.block_len() * cipher.block_len() - 1;
        let chunks: Vec<_> = body.bytes().chunks(room).collect();
        let total = chunks.len() as u16;
        let fragment = |(n, chunk): (usize, &&[u8])| {
            let numbers = [(n as u16 + 1).to_be_bytes(), total.to_be_bytes()];
            // RFC 7383 §2.5.2: only the first one names the first payload.
            let first = if n == 0 { body.first() } else { 0 };
            self.one(header, first, PayloadKind::Fragment, numbers.as_flattened(), chunk, random)
        };
        chunks.iter().enumerate().map(fragment).collect()
    }

    fn one(
        &mut self,
        header: &Header,
        first: u8,
        kind: PayloadKind,
        numbers: &[u8],
        plain: &[u8],
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, CryptoError> {
        let inner = GENERIC + numbers.len() + self.sealer.cipher().sealed_len(plain.len());
        let mut message = Vec::with_capacity(HEADER_LEN + inner);
        header.write(kind as u8, HEADER_LEN + inner, &mut message);
        message.extend([first, 0]);
        message.extend((inner as u16).to_be_bytes());
        message.extend(numbers);
        let sealed = self.sealer.seal(&message, plain, random)?;
        message.extend(sealed);
        Ok(message)
    }

    /// The payloads inside.
    pub fn open(&self, message: &[u8], sealed: &Sealed) -> Result<Vec<u8>, CryptoError> {
        self.opener.open(&message[..sealed.aad_len], sealed.body)
    }
}

/// More fragments than a message of 64 kB in the smallest datagrams.
const MOST: u16 = 128;

/// A message of which only some fragments are here. Each was authenticated before it came in, so that only the peer can fill it.
pub struct Partial {
    id: u32,
    first: u8,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// What became of a fragment.
pub enum Gathered {
    /// The kind of the first payload and all payloads.
    Whole(u8, Vec<u8>),
    /// Others are missing.
    Waiting,
    /// It belongs to nothing, or is there already.
    Useless,
}

impl Partial {
    /// Puts an opened fragment where it belongs (RFC 7383 §2.6).
    pub fn gather(
        place: &mut Option<Box<Partial>>,
        id: u32,
        first: u8,
        (number, total): (u16, u16),
        plain: Vec<u8>,
    ) -> Gathered {
        if total > MOST {
            return Gathered::Useless;
        }
        let total = usize::from(total);
        // A peer that found a smaller path MTU begins anew with more fragments.
        if place.as_ref().is_none_or(|p| p.id != id || p.parts.len() < total) {
            *place = Some(Box::new(Partial { id, first: 0, parts: vec![None; total], missing: total }));
        }
        let Some(partial) = place.as_mut().filter(|p| p.parts.len() == total) else { return Gathered::Useless };
        let slot = &mut partial.parts[usize::from(number) - 1];
        if slot.is_some() {
            return Gathered::Useless;
        }
        *slot = Some(plain);
        partial.missing -= 1;
        if number == 1 {
            partial.first = first;
        }
        if partial.missing > 0 {
            return Gathered::Waiting;
        }
        let first = partial.first;
        let whole = place.take().map_or(Vec::new(), |p| p.parts.into_iter().flatten().flatten().collect());
        Gathered::Whole(first, whole)
    }
}
