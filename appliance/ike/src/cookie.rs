//! Cookies: a peer shows that it receives what we send to its address before we spend anything on it (RFC 7296 §2.6).

use crate::Millis;
use crate::crypto::{Prf, Random, Secret, same};
use std::net::SocketAddr;

/// How long a secret makes new cookies; it is believed twice as long.
const LIFE_MS: Millis = 60_000;

/// Makes cookies and knows them again, without remembering any.
pub struct Cookies {
    version: u8,
    current: Secret,
    previous: Option<Secret>,
    since: Millis,
}

impl Cookies {
    pub fn new(random: &mut dyn Random) -> Cookies {
        Cookies { version: 0, current: Secret::random(32, random), previous: None, since: 0 }
    }

    /// For one peer and one attempt: Version | prf(secret, Ni | IPi | port | SPIi).
    pub fn make(
        &mut self,
        now: Millis,
        nonce: &[u8],
        remote: SocketAddr,
        spi: u64,
        random: &mut dyn Random,
    ) -> Vec<u8> {
        if now.saturating_sub(self.since) > LIFE_MS {
            let old = std::mem::replace(&mut self.current, Secret::random(32, random));
            let recent = now.saturating_sub(self.since) <= 2 * LIFE_MS;
            self.previous = recent.then_some(old);
            self.version = self.version.wrapping_add(1);
            self.since = now;
        }
        cookie(self.version, &self.current, nonce, remote, spi)
    }

    /// Whether it is one of ours for this peer and attempt, and not too old.
    pub fn is_ours(&self, now: Millis, shown: &[u8], nonce: &[u8], remote: SocketAddr, spi: u64) -> bool {
        let age = now.saturating_sub(self.since);
        let secret = match shown.first() {
            Some(version) if *version == self.version && age <= 2 * LIFE_MS => Some(&self.current),
            Some(version) if version.wrapping_add(1) == self.version && age <= LIFE_MS => self.previous.as_ref(),
            _ => None,
        };
        secret.is_some_and(|secret| same(&cookie(shown[0], secret, nonce, remote, spi), shown))
    }
}

fn cookie(version: u8, secret: &Secret, nonce: &[u8], remote: SocketAddr, spi: u64) -> Vec<u8> {
    let ip = match remote.ip() {
        std::net::IpAddr::V4(a) => a.to_ipv6_mapped(),
        std::net::IpAddr::V6(a) => a,
    };
    let parts: [&[u8]; 4] = [nonce, &ip.octets(), &remote.port().to_be_bytes(), &spi.to_be_bytes()];
    let mac = Prf::HmacSha256.mac(secret.as_bytes(), &parts);
    [&[version], &mac.as_bytes()[..16]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::testing::Seeded;

    #[test]
    fn a_cookie_is_good_for_its_peer_its_attempt_and_a_while() {
        let mut random = Seeded(1);
        let mut cookies = Cookies::new(&mut random);
        let (here, there) = ("10.0.0.1:500".parse().unwrap(), "10.0.0.2:500".parse().unwrap());
        let cookie = cookies.make(0, b"nonce", here, 7, &mut random);
        assert!(cookies.is_ours(1000, &cookie, b"nonce", here, 7));
        assert!(!cookies.is_ours(1000, &cookie, b"nonce", there, 7));
        assert!(!cookies.is_ours(1000, &cookie, b"other", here, 7));
        assert!(!cookies.is_ours(1000, &cookie, b"nonce", here, 8));
        assert!(!cookies.is_ours(1000, &[], b"nonce", here, 7));
        let newer = cookies.make(LIFE_MS + 1, b"nonce", here, 7, &mut random);
        assert_ne!(newer, cookie);
        assert!(cookies.is_ours(LIFE_MS + 2, &cookie, b"nonce", here, 7));
        assert!(!cookies.is_ours(2 * LIFE_MS + 2, &cookie, b"nonce", here, 7));
        assert!(cookies.is_ours(2 * LIFE_MS + 2, &newer, b"nonce", here, 7));
    }
}
