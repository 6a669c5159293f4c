//! Datagrams, up to the IKE SA they are for; and those that want a new one (RFC 7296 §2.6, §2.21.1).

use super::Endpoint;
use crate::codec::{Body, CodecError, Exchange, Header, NotifyKind, Payloads};
use crate::sa::{Refusal, clear, respond, respond_again};
use crate::{Event, IkeId, Millis, Output, Path, Reason, What};

impl Endpoint {
    /// A datagram came, without the four bytes of port 4500. `unix`: seconds since 1970, for certificates.
    pub fn datagram(&mut self, now: Millis, unix: u64, path: Path, bytes: &[u8]) {
        self.unix = unix;
        self.counters.received += 1;
        let (header, first) = match Header::parse(bytes) {
            Ok(parsed) => parsed,
            Err(CodecError::Version(version)) => return self.wrong_version(path, version, bytes),
            Err(_) => return self.counters.malformed += 1,
        };
        if header.spi_i == 0 {
            return self.counters.malformed += 1;
        }
        if header.exchange == Exchange::Init && !header.response {
            return self.init_request(now, path, &header, first, bytes);
        }
        // Ours is the SPI of the side that we are on.
        let id = IkeId(if header.initiator { header.spi_r } else { header.spi_i });
        let known = self.sas.get(&id).filter(|sa| {
            let peer = if header.initiator { header.spi_i } else { header.spi_r };
            sa.peer_spi == peer || (header.exchange == Exchange::Init && sa.peer_spi == 0)
        });
        if known.is_none() {
            return self.counters.unknown_sa += 1;
        }
        self.with(now, id, |sa, cx| match header.exchange {
            Exchange::Init => sa.init_answer(cx, &header, first, bytes),
            _ => sa.message(cx, path, &header, first, bytes),
        });
    }

    /// RFC 7296 §2.5: a higher version is told that this one is the highest.
    fn wrong_version(&mut self, path: Path, version: u8, bytes: &[u8]) {
        self.counters.version += 1;
        let mut known = bytes.to_vec();
        known[17] = 0x20;
        let Ok((header, _)) = Header::parse(&known) else { return };
        if version > 2 && !header.response {
            self.tell(path, &header, NotifyKind::INVALID_MAJOR_VERSION, &[]);
        }
    }

    /// An answer in clear that nothing remembers.
    fn tell(&mut self, path: Path, request: &Header, kind: NotifyKind, data: &[u8]) {
        let mut body = Body::new();
        body.notify(kind, data);
        let header = Header { initiator: !request.initiator, response: true, ..*request };
        self.counters.sent += 1;
        self.outputs.push_back(Output::Send { path, bytes: clear(&header, &body) });
    }

    /// Somebody wants an IKE SA. Nothing here costs more than a hash until it showed that it is where it says.
    fn init_request(&mut self, now: Millis, path: Path, header: &Header, first: u8, bytes: &[u8]) {
        let key = (path.remote, header.spi_i);
        if let Some(id) = self.half_open.get(&key).copied() {
            self.with(now, id, |sa, cx| respond_again(sa, cx, path, bytes));
            return;
        }
        if header.id != 0 || header.spi_r != 0 || !header.initiator {
            return self.counters.unexpected += 1;
        }
        let payloads = match Payloads::of_message(first, bytes) {
            Ok(payloads) => payloads,
            Err(CodecError::UnknownCritical(kind)) => {
                self.counters.malformed += 1;
                return self.tell(path, header, NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]);
            }
            Err(_) => return self.counters.malformed += 1,
        };
        let candidates = self.config.candidates(&path);
        if candidates.is_empty() {
            self.counters.no_peer += 1;
            let reason = Reason::NoPeer { local: path.local.ip(), remote: path.remote.ip() };
            return self.grumble(now, path, reason);
        }
        let Ok(nonce) = payloads.nonce() else { return self.counters.malformed += 1 };
        if self.half_open.len() >= self.config.limits.cookie_threshold {
            let shown = payloads.notifies().find(|n| n.kind == NotifyKind::COOKIE).map(|n| n.data);
            if !shown.is_some_and(|shown| self.cookies.is_ours(now, shown, nonce, path.remote, header.spi_i)) {
                self.counters.cookies_wrong += u64::from(shown.is_some());
                self.counters.cookies_sent += 1;
                let cookie = self.cookies.make(now, nonce, path.remote, header.spi_i, &mut *self.random);
                return self.tell(path, header, NotifyKind::COOKIE, &cookie);
            }
        }
        if !self.has_room(path) {
            return;
        }
        let mut effects = Vec::new();
        let made = respond(&mut self.cx(now, &mut effects), &candidates, path, header, &payloads, bytes);
        match made {
            Ok(mut sa) => {
                sa.half_open = Some(key);
                self.half_open.insert(key, sa.id);
                *self.sources.entry(path.remote.ip()).or_default() += 1;
                self.settle(sa);
            }
            Err(Refusal::Notify(kind, data, reason)) => {
                self.tell(path, header, kind, &data);
                if let Some(reason) = reason {
                    self.counters.failed += 1;
                    self.grumble(now, path, reason);
                }
            }
            Err(Refusal::Silence) => self.counters.unexpected += 1,
        }
    }

    /// Limits on half-open IKE SAs, in all and of one address, and on IKE SAs.
    fn has_room(&mut self, path: Path) -> bool {
        let limits = &self.config.limits;
        if self.sas.len() >= limits.ike_sas {
            self.counters.sa_limit += 1;
        } else if self.half_open.len() >= limits.half_open {
            self.counters.half_open_limit += 1;
        } else if self.sources.get(&path.remote.ip()).is_some_and(|n| *n >= limits.half_open_per_source) {
            self.counters.source_limit += 1;
        } else {
            return true;
        }
        false
    }

    /// An event that anybody can cause: only so many.
    fn grumble(&mut self, now: Millis, path: Path, reason: Reason) {
        if self.noise.allows(now) {
            let what = What::Failed(reason);
            self.outputs.push_back(Output::Event(Event { at: now, peer: None, ike: None, remote: path.remote, what }));
        }
    }
}
