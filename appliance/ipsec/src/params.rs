//! What an SA is, as it is configured, negotiated and distributed.

use phalanx_aead::{Algorithm, Key, MAX_MATERIAL, SALT_LEN};
use phalanx_wire::{PeerId, SaId, Spi, VipId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{IpsecError, Selectors, TunnelName};

/// Which way an SA's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the peer to us.
    Inbound,
    /// From us to the peer.
    Outbound,
}

/// How a packet sits in ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The whole packet, behind a new header between these addresses (RFC 4303 §3.1.2).
    Tunnel {
        /// Our outer address.
        local: IpAddr,
        /// The peer's outer address.
        remote: IpAddr,
    },
    /// Its payload, behind its own header (RFC 4303 §3.1.1).
    Transport,
}

/// How many bytes an SA may protect (R21-R23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lifesize {
    /// Time to rekey.
    pub soft: u64,
    /// Stop.
    pub hard: u64,
}

impl Lifesize {
    /// No limit that a packet could reach.
    pub const UNLIMITED: Lifesize = Lifesize { soft: u64::MAX, hard: u64::MAX };
}

/// What becomes of the largest segment that a TCP end announces (RFC 9293 §3.7.1) in a SYN or SYN-ACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MssClamp {
    /// It stays.
    #[default]
    None,
    /// It becomes what fits the path once sealed, if that is less.
    Path,
    /// It becomes this, if that is less; in bytes.
    Most(u16),
}

/// A key and its salt, or the keys of encryption and integrity. Zeroised on drop; `Debug` shows nothing of it, and there is no
/// `Serialize` (I8).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey {
    bytes: [u8; MAX_MATERIAL],
    len: u8,
}

impl SecretKey {
    /// Key ++ salt (4 bytes), as IKE derives it and `ip xfrm` takes it (RFC 4106 §8.1); encryption key ++ integrity key where integrity
    /// has an algorithm of its own (RFC 7296 §2.17).
    ///
    /// # Errors
    /// [`IpsecError::Key`] when the length is not the algorithm's.
    pub fn new(algorithm: Algorithm, key_and_salt: &[u8]) -> Result<SecretKey, IpsecError> {
        let (want, len) = (algorithm.material_len(), key_and_salt.len());
        if len != want {
            return Err(IpsecError::Key { algorithm, want, len });
        }
        let mut bytes = [0; MAX_MATERIAL];
        bytes[..len].copy_from_slice(key_and_salt);
        Ok(SecretKey { bytes, len: len as u8 })
    }

    /// Key ++ salt in clear: only to be sent over an encrypted, authenticated channel.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The key, expanded.
    pub(crate) fn expand(&self, algorithm: Algorithm) -> Result<Key, IpsecError> {
        let (want, len) = (algorithm.material_len(), self.expose().len());
        let key = self.expose().get(..algorithm.key_len());
        let key = key.and_then(|key| Key::new(algorithm, key).ok());
        key.ok_or(IpsecError::Key { algorithm, want, len })
    }

    /// Zeros where the algorithm has none.
    pub(crate) fn salt(&self, algorithm: Algorithm) -> [u8; SALT_LEN] {
        let (_, salt) = self.expose().split_at(self.expose().len() - algorithm.salt_len());
        salt.first_chunk().copied().unwrap_or_default()
    }

    /// Names the key without telling it: the first half of its SHA-256. Outbound counters live under this name,
    /// so that whoever uses the same key and salt again goes on counting where the last one stopped (I1).
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        // The prefix keeps this hash apart from any other use of the same secret.
        let hash = Sha256::new().chain_update(b"phalanx sa key v1\0").chain_update(self.expose()).finalize();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash[..16]);
        fingerprint
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &SecretKey) -> bool {
        // Every byte is looked at whatever the first ones say: equal time for equal lengths.
        self.len == other.len && self.bytes.iter().zip(&other.bytes).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }
}

impl Eq for SecretKey {}

/// One SA in one direction: everything a node needs to process its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaParams {
    /// Unique in the cluster; see [`SaParams::static_id`].
    pub id: SaId,
    /// Which way.
    pub direction: Direction,
    /// The VIP it belongs to.
    pub vip: VipId,
    /// The peer, by identity.
    pub peer: PeerId,
    /// The tunnel whose packets it carries.
    pub tunnel: TunnelName,
    /// The receiver's name for it.
    pub spi: Spi,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Our outer address, in both modes.
    pub local: IpAddr,
    /// The peer's outer address, in both modes; inbound packets are checked against it.
    pub remote: IpAddr,
    /// Cipher.
    pub algorithm: Algorithm,
    /// Key and salt.
    pub key: SecretKey,
    /// 64-bit sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Replay window in packets: ours if inbound, the peer's if outbound (it bounds lease blocks).
    pub window: u32,
    /// What may go through it; of the inner packet in tunnel mode.
    pub selectors: Selectors,
    /// Byte limits.
    pub lifesize: Lifesize,
    /// What an outer packet may measure, in bytes from its IP header on.
    pub path_mtu: u16,
    /// How large TCP segments may be that are announced through it.
    pub mss_clamp: MssClamp,
    /// Copy the inner DSCP to the outer header; else the outer one is 0 (RFC 4301 §5.1.2).
    pub copy_dscp: bool,
    /// Copy the inner ECN field to the outer header (RFC 6040 normal mode); else the outer one says Not-ECT
    /// (compatibility mode). What arrives is combined as RFC 6040 §4.2 says in either case.
    pub ecn: bool,
    /// ESP in UDP.
    pub encap: Option<crate::Encap>,
    /// Of ESP: the tunnel whose AH is around its packets (RFC 4301 §4.4.2.1, §5.2), one of transport mode between the same ends. The
    /// path MTU is then what its ESP packets may measure, without AH.
    pub within: Option<TunnelName>,
}

impl SaParams {
    /// Whether the parts fit each other.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), IpsecError> {
        if self.spi < Spi::FIRST {
            return Err(IpsecError::ReservedSpi(self.spi.0));
        }
        SecretKey::new(self.algorithm, self.key.expose())?;
        if !crate::window::valid_size(self.window) {
            return Err(IpsecError::Window(self.window));
        }
        let Lifesize { soft, hard } = self.lifesize;
        if soft > hard || hard == 0 {
            return Err(IpsecError::Lifesize { soft, hard });
        }
        let least = self.least_path_mtu();
        if self.path_mtu < least {
            return Err(IpsecError::PathMtu { mtu: self.path_mtu, least });
        }
        self.check_addresses()?;
        self.check_encap()?;
        self.check_within()
    }

    fn check_addresses(&self) -> Result<(), IpsecError> {
        let (local, remote) = (self.local, self.remote);
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(IpsecError::Family { local, remote });
        }
        for address in [local, remote] {
            let broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
            if address.is_unspecified() || address.is_multicast() || broadcast {
                return Err(IpsecError::NotUnicast(address));
            }
        }
        let Selectors { local: ours, remote: theirs, .. } = self.selectors;
        if ours.address().is_ipv4() != theirs.address().is_ipv4() {
            return Err(IpsecError::SelectorFamily);
        }
        match self.mode {
            Mode::Tunnel { local: l, remote: r } => {
                for (tunnel, sa) in [(l, local), (r, remote)] {
                    if tunnel != sa {
                        return Err(IpsecError::TunnelEnds { tunnel, sa });
                    }
                }
            }
            Mode::Transport => {
                for (which, prefix, address) in [("local", ours, local), ("remote", theirs, self.shown())] {
                    if !prefix.contains(address) {
                        return Err(IpsecError::TransportSelector { which, address });
                    }
                }
            }
        }
        Ok(())
    }

    /// The identity of an SA that stands in a configuration: the same after every restart, another one when its
    /// key changes. The first 8 bytes of a SHA-256 over VIP address, SPI, direction and key fingerprint.
    #[must_use]
    pub fn static_id(vip: IpAddr, spi: Spi, direction: Direction, key: &SecretKey) -> SaId {
        let vip = match vip {
            IpAddr::V4(a) => a.to_ipv6_mapped(),
            IpAddr::V6(a) => a,
        };
        let hash = Sha256::new()
            .chain_update(b"phalanx sa id v1\0")
            .chain_update(vip.octets())
            .chain_update(spi.0.to_be_bytes())
            .chain_update([u8::from(direction == Direction::Outbound)])
            .chain_update(key.fingerprint())
            .finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        SaId(u64::from_be_bytes(id))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Prefix;

    fn good() -> SaParams {
        let [local, remote] = ["10.77.0.100", "10.77.0.10"].map(|a| a.parse::<IpAddr>().unwrap());
        SaParams {
            id: SaId(1),
            direction: Direction::Inbound,
            vip: VipId(1),
            peer: PeerId(1),
            tunnel: TunnelName::new("client").unwrap(),
            spi: Spi(0xc0de),
            mode: Mode::Tunnel { local, remote },
            local,
            remote,
            algorithm: Algorithm::Aes128Gcm16,
            key: SecretKey::new(Algorithm::Aes128Gcm16, &[1; 20]).unwrap(),
            esn: true,
            window: 64,
            selectors: Selectors::between(Prefix::host(local), Prefix::ANY_V4),
            lifesize: Lifesize::UNLIMITED,
            path_mtu: 1500,
            mss_clamp: MssClamp::None,
            copy_dscp: true,
            ecn: true,
            encap: None,
            within: None,
        }
    }

    #[test]
    fn parameters_that_fit_each_other_pass() {
        assert_eq!(good().check(), Ok(()));
    }

    #[test]
    fn each_part_that_does_not_fit_is_named() {
        type Case = (fn(&mut SaParams), &'static str);
        let cases: [Case; 10] = [
            (|p| p.spi = Spi(255), "0x000000ff is reserved"),
            (|p| p.window = 48, "window of 48"),
            (|p| p.window = 65568, "window of 65568"),
            (|p| p.algorithm = Algorithm::Aes256Gcm16, "36 bytes of keying material, not 20"),
            (|p| p.remote = "fd77::1".parse().unwrap(), "not of one family"),
            (|p| p.remote = "10.77.0.11".parse().unwrap(), "tunnel's ends"),
            (|p| p.lifesize = Lifesize { soft: 2, hard: 1 }, "soft limit 2"),
            (|p| p.path_mtu = 500, "below 576"),
            (|p| p.selectors.remote = Prefix::ANY_V6, "selector are not of one family"),
            (
                |p| {
                    p.mode = Mode::Transport;
                    p.selectors.remote = "10.99.0.0/24".parse().unwrap();
                },
                "the remote selector does not contain 10.77.0.10",
            ),
        ];
        for (spoil, says) in cases {
            let mut params = good();
            spoil(&mut params);
            let error = params.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        }
    }

    #[test]
    fn no_byte_of_a_key_is_in_any_debug_output() {
        let mut params = good();
        params.key = SecretKey::new(Algorithm::Aes128Gcm16, &[0xab; 20]).unwrap();
        let shown = format!("{params:?}");
        assert!(shown.contains("SecretKey(..)"));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"));
    }

    #[test]
    fn an_identity_depends_on_vip_spi_direction_and_key() {
        let key = |b| SecretKey::new(Algorithm::Aes128Gcm16, &[b; 20]).unwrap();
        let id = |vip: &str, spi, direction, b| SaParams::static_id(vip.parse().unwrap(), Spi(spi), direction, &key(b));
        let one = id("10.0.0.1", 256, Direction::Inbound, 1);
        assert_eq!(one, id("10.0.0.1", 256, Direction::Inbound, 1));
        assert_ne!(one, id("10.0.0.2", 256, Direction::Inbound, 1));
        assert_ne!(one, id("10.0.0.1", 257, Direction::Inbound, 1));
        assert_ne!(one, id("10.0.0.1", 256, Direction::Outbound, 1));
        assert_ne!(one, id("10.0.0.1", 256, Direction::Inbound, 2));
    }

    #[test]
    fn keys_that_differ_in_the_salt_alone_have_different_fingerprints() {
        let mut bytes = [5; 20];
        let a = SecretKey::new(Algorithm::Aes128Gcm16, &bytes).unwrap();
        bytes[19] ^= 1;
        let b = SecretKey::new(Algorithm::Aes128Gcm16, &bytes).unwrap();
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_ne!(a, b);
        assert_eq!(a, a.clone());
    }
}
