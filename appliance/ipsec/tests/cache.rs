//! The shadow SA cache.
#![cfg(not(loom))]

use phalanx_ipsec::*;
use phalanx_wire::{PeerId, SaId, Spi, VipId};
use proptest::prelude::*;
use std::collections::HashMap;

fn params(id: u64, vip: u16, spi: u32, tunnel: &str, direction: Direction) -> SaParams {
    let [local, remote] = ["10.77.0.100", "10.77.0.10"].map(|a| a.parse().unwrap());
    SaParams {
        id: SaId(id),
        direction,
        vip: VipId(vip),
        peer: PeerId(1),
        tunnel: TunnelName::new(tunnel).unwrap(),
        spi: Spi(spi),
        mode: Mode::Transport,
        local,
        remote,
        algorithm: Algorithm::Aes128Gcm16,
        key: SecretKey::new(Algorithm::Aes128Gcm16, &[7; 20]).unwrap(),
        esn: true,
        window: 32,
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

fn inbound(id: u64, vip: u16, spi: u32) -> Box<InboundSa> {
    Box::new(InboundSa::new(params(id, vip, spi, "t", Direction::Inbound)).unwrap())
}

fn outbound(id: u64, vip: u16, tunnel: &str) -> Box<OutboundSa> {
    Box::new(OutboundSa::new(params(id, vip, 256, tunnel, Direction::Outbound)).unwrap())
}

const LIMITS: Limits = Limits { inbound: 8, outbound: 4, tunnels: 2 };

#[test]
fn a_full_cache_gives_the_sa_back_with_the_reason() {
    let mut cache = ShadowCache::new(LIMITS);
    for i in 0..8 {
        cache.add_inbound(inbound(i, 1, 256 + i as u32)).unwrap();
    }
    let (error, sa) = cache.add_inbound(inbound(8, 1, 300)).unwrap_err();
    assert_eq!(error.to_string(), "the table of inbound SAs is full (8)");
    assert_eq!(sa.id(), SaId(8));
    assert!(matches!(cache.remove(SaId(3)), Some(Removed::Inbound(sa)) if sa.id() == SaId(3)));
    cache.add_inbound(sa).unwrap();
    assert_eq!(cache.len(), (8, 0));
}

#[test]
fn spi_and_identity_are_each_taken_once() {
    let mut cache = ShadowCache::new(LIMITS);
    cache.add_inbound(inbound(1, 1, 256)).unwrap();
    assert_eq!(cache.add_inbound(inbound(2, 1, 256)).unwrap_err().0, IpsecError::Duplicate("VIP, SPI and protocol"));
    assert_eq!(cache.add_inbound(inbound(1, 1, 257)).unwrap_err().0, IpsecError::Duplicate("identity"));
    cache.add_inbound(inbound(2, 2, 256)).unwrap();
    assert_eq!(cache.lookup(VipId(2), Spi(256)).and_then(|at| cache.inbound(at)).map(InboundSa::id), Some(SaId(2)));
    assert_eq!(cache.lookup(VipId(3), Spi(256)), None);
}

#[test]
fn a_tunnels_packets_take_the_newest_sa_and_fall_back_when_it_goes() {
    let mut cache = ShadowCache::new(LIMITS);
    let tunnel = cache.intern(VipId(1), TunnelName::new("a").unwrap()).unwrap();
    assert_eq!(cache.current(tunnel), None);
    let id = |cache: &ShadowCache| cache.current(tunnel).and_then(|at| cache.outbound(at)).map(OutboundSa::id);
    for i in [1, 2] {
        cache.add_outbound(outbound(i, 1, "a")).unwrap();
        assert_eq!(id(&cache), Some(SaId(i)));
    }
    // The same name under another VIP is another tunnel.
    cache.add_outbound(outbound(3, 2, "a")).unwrap();
    assert_eq!(id(&cache), Some(SaId(2)));
    assert!(matches!(cache.remove(SaId(2)), Some(Removed::Outbound(_))));
    assert_eq!(id(&cache), Some(SaId(1)));
    cache.remove(SaId(1));
    assert_eq!(id(&cache), None);
    assert!(cache.remove(SaId(1)).is_none());
    let (error, _) = cache.add_outbound(outbound(4, 3, "b")).unwrap_err();
    assert_eq!(error, IpsecError::TableFull { what: "tunnels", limit: 2 });
}

proptest! {
    #[test]
    fn a_cache_finds_what_a_map_finds(
        steps in prop::collection::vec((0u64..24, 0u16..3, any::<u32>()), 0..200),
    ) {
        let mut cache = ShadowCache::new(LIMITS);
        let mut model: HashMap<u64, (u16, u32)> = HashMap::new();
        for (id, vip, random) in steps {
            if model.remove(&id).is_some() {
                prop_assert!(cache.remove(SaId(id)).is_some());
            } else if model.len() < LIMITS.inbound {
                let taken = |spi: Spi| cache.lookup(VipId(vip), spi).is_some();
                let spi = (random.max(Spi::FIRST.0)..).map(Spi).find(|spi| !taken(*spi)).unwrap();
                cache.add_inbound(inbound(id, vip, spi.0)).unwrap();
                model.insert(id, (vip, spi.0));
            }
            prop_assert_eq!(cache.len().0, model.len());
            for (id, (vip, spi)) in &model {
                let at = cache.lookup(VipId(*vip), Spi(*spi));
                prop_assert_eq!(at, cache.find_inbound(SaId(*id)));
                prop_assert_eq!(at.and_then(|at| cache.inbound(at)).map(InboundSa::id), Some(SaId(*id)));
            }
            let mut ids: Vec<_> = cache.iter_inbound().map(|(_, sa)| sa.id().0).collect();
            ids.sort_unstable();
            let mut expected: Vec<_> = model.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(ids, expected);
        }
    }
}
