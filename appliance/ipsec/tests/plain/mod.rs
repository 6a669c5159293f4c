//! A plain SA, for tests to change, and numbers for its packets.

use phalanx_ipsec::*;
use phalanx_wire::{PeerId, SaId, Spi, VipId};
use std::net::IpAddr;

/// AES-GCM with 64-bit numbers, of all IPv4 packets.
pub fn params(direction: Direction, tunnel: bool, local: IpAddr, remote: IpAddr) -> SaParams {
    SaParams {
        id: SaId(1),
        direction,
        vip: VipId(1),
        peer: PeerId(1),
        tunnel: TunnelName::new("t").unwrap(),
        spi: Spi(0x1234),
        mode: if tunnel { Mode::Tunnel { local, remote } } else { Mode::Transport },
        local,
        remote,
        algorithm: Algorithm::Aes128Gcm16,
        key: SecretKey::new(Algorithm::Aes128Gcm16, &[7; 20]).unwrap(),
        esn: true,
        window: 64,
        selectors: Selectors::between(Prefix::ANY_V4, Prefix::ANY_V4),
        lifesize: Lifesize::UNLIMITED,
        path_mtu: 1500,
        mss_clamp: MssClamp::None,
        copy_dscp: true,
        ecn: true,
        encap: None,
        within: None,
    }
}

pub fn number(seq: u64) -> SeqNo {
    Lease::from_wire(seq, 1).take().unwrap()
}
