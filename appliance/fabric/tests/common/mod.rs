//! Arbitrary messages of every kind.
#![allow(dead_code)] // Not every test file uses all of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use phalanx_cluster::messages::{
    ConnRecord, ConnRefusal, Drained, Gathered, Hello, LeaseBlock, LeaseRefusal, LeaseReply, LeaseRequest, Notice,
    PeerAt, RankedFilter, SaReport, ToRouter, ToTarget, VipDef, WindowRecord,
};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Encap, Filter, Lifesize, Mode, Original, PortRange, Prefix, SaParams, SecretKey,
    Selectors, TunnelName, WindowSnapshot,
};
use phalanx_wire::flow::Endpoint;
use phalanx_wire::{CoreId, Epoch, Flow, PeerId, SaId, Spi, VipId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub fn to_router() -> impl Strategy<Value = ToRouter> {
    prop_oneof![
        hello().prop_map(ToRouter::Hello),
        gathered().prop_map(ToRouter::Gathered),
        (any::<u64>(), option::of(".{0,40}")).prop_map(|(request, error)| ToRouter::Ack { request, error }),
        lease_request().prop_map(ToRouter::LeaseRequest),
        vec(report(), 0..4).prop_map(ToRouter::Report),
        notice().prop_map(ToRouter::Notice),
        (vip(), vec(any::<u16>(), 0..5), vec(any::<u16>(), 0..5)).prop_map(|(vip, ports, udp)| ToRouter::Listening {
            vip,
            ports,
            udp
        }),
        any::<u16>().prop_map(ToRouter::Load),
        prop_oneof![Just(Drained::Nothing), Just(Drained::All), vec(vip(), 1..5).prop_map(Drained::Vips),]
            .prop_map(ToRouter::Draining),
        (any::<u64>(), peer_end(), any::<u64>()).prop_map(|(sa, remote, number)| ToRouter::PeerMoved(PeerAt {
            sa: SaId(sa),
            remote,
            number
        })),
        vec(("[a-z-]{1,20}", any::<u64>()), 0..5).prop_map(ToRouter::Dropped),
        (vip(), "[a-z:.-]{1,31}")
            .prop_map(|(vip, tunnel)| ToRouter::SaWanted { vip, tunnel: TunnelName::new(&tunnel).unwrap() }),
        (connection(), any::<u64>()).prop_map(|(conn, sa)| ToRouter::ConnWanted { conn, sa: SaId(sa) }),
        Just(ToRouter::Beat),
    ]
}

pub fn to_target() -> impl Strategy<Value = ToTarget> {
    prop_oneof![
        (any::<u32>(), "[a-z0-9]{0,63}", any::<u64>(), vec(vip_epoch(), 0..4))
            .prop_map(|(version, node, incarnation, epochs)| ToTarget::Welcome { version, node, incarnation, epochs }),
        (any::<u64>(), vip_def()).prop_map(|(request, vip)| ToTarget::InstallVip { request, vip }),
        (any::<u64>(), vip()).prop_map(|(request, vip)| ToTarget::RemoveVip { request, vip }),
        (any::<u64>(), sa(), any::<bool>()).prop_flat_map(|(request, sa, waits)| filters(sa.vip)
            .prop_map(move |filters| { ToTarget::InstallSa { request, sa: Arc::new(sa.clone()), filters, waits } })),
        (any::<u64>(), any::<u64>()).prop_map(|(request, sa)| ToTarget::RemoveSa { request, sa: SaId(sa) }),
        lease_reply().prop_map(ToTarget::LeaseReply),
        any::<u64>().prop_map(|id| ToTarget::NoticeAck { id }),
        (vip(), any::<u32>(), peer_end()).prop_map(|(vip, peer, remote)| ToTarget::PeerMoved {
            vip,
            peer: PeerId(peer),
            remote
        }),
        (connection(), option::of(prop_oneof![Just(ConnRefusal::PortTaken), Just(ConnRefusal::NoRoom)]))
            .prop_map(|(conn, refused)| ToTarget::ConnAnswer { conn, refused }),
        Just(ToTarget::Beat),
    ]
}

fn vip() -> impl Strategy<Value = VipId> {
    any::<u16>().prop_map(VipId)
}

fn core() -> impl Strategy<Value = CoreId> {
    any::<u16>().prop_map(CoreId)
}

fn vip_epoch() -> impl Strategy<Value = (VipId, Epoch)> {
    (vip(), any::<u64>().prop_map(Epoch))
}

fn v4() -> impl Strategy<Value = IpAddr> {
    any::<Ipv4Addr>().prop_map(IpAddr::V4)
}

fn v6() -> impl Strategy<Value = IpAddr> {
    any::<Ipv6Addr>().prop_map(IpAddr::V6)
}

fn peer_end() -> impl Strategy<Value = SocketAddr> {
    (prop_oneof![v4(), v6()], 1..=u16::MAX).prop_map(|(address, port)| SocketAddr::new(address, port))
}

/// Two addresses of one family, each of which can be an end of an SA.
fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let host4 = || (1..224_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d]));
    let host6 = || {
        any::<[u8; 15]>().prop_map(|rest| {
            let mut bytes = [0xfd; 16];
            bytes[1..].copy_from_slice(&rest);
            IpAddr::from(bytes)
        })
    };
    prop_oneof![(host4(), host4()), (host6(), host6())]
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<u32>(), "[a-z0-9]{0,63}", any::<u64>(), any::<u16>(), vec(core(), 0..4))
        .prop_map(|(version, node, incarnation, link_mtu, cores)| Hello { version, node, incarnation, link_mtu, cores })
}

fn connection() -> impl Strategy<Value = ConnRecord> {
    let addresses = prop_oneof![(v4(), v4()), (v6(), v6())];
    (vip(), any::<u32>(), any::<u8>(), addresses, any::<(u16, u16)>(), core(), any::<bool>()).prop_map(
        |(vip, peer, protocol, (local, remote), ports, core, established)| ConnRecord {
            vip,
            peer: PeerId(peer),
            flow: Flow { protocol, local: Endpoint::new(local, ports.0), remote: Endpoint::new(remote, ports.1) },
            core,
            established,
        },
    )
}

fn window() -> impl Strategy<Value = WindowSnapshot> {
    (any::<u64>(), any::<u64>(), vec(any::<u64>(), 0..5)).prop_map(|(edge, floor, mut words)| {
        words.truncate(usize::try_from(edge / 64 + 1).unwrap_or(5));
        if let Some(newest) = words.first_mut() {
            *newest &= u64::MAX >> (63 - edge % 64);
        }
        while words.last() == Some(&0) {
            words.pop();
        }
        WindowSnapshot { edge, floor, words }
    })
}

fn window_record() -> impl Strategy<Value = WindowRecord> {
    (any::<u64>(), window()).prop_map(|(sa, snapshot)| WindowRecord { sa: SaId(sa), snapshot })
}

fn gathered() -> impl Strategy<Value = Gathered> {
    let highest = vec((any::<u64>().prop_map(SaId), any::<u64>()), 0..4);
    (vec(vip_epoch(), 0..4), vec(connection(), 0..4), vec(window_record(), 0..4), highest, any::<bool>()).prop_map(
        |(vips, connections, windows, highest_out, last)| Gathered { vips, connections, windows, highest_out, last },
    )
}

fn lease_request() -> impl Strategy<Value = LeaseRequest> {
    (any::<(u64, u64, u64, u64, u64, u64)>(), any::<(u32, u32, u32)>(), core()).prop_map(|(wide, narrow, core)| {
        LeaseRequest {
            sa: SaId(wide.0),
            core,
            nonce: wide.1,
            incarnation: wide.2,
            router_incarnation: wide.3,
            epoch: Epoch(wide.4),
            want: narrow.0,
            done_below: wide.5,
            rate_pps: narrow.1,
            latency_us: narrow.2,
        }
    })
}

fn report() -> impl Strategy<Value = SaReport> {
    let counts = any::<(u64, u64, u64, u64, u64)>();
    (counts, option::of(window())).prop_map(|((sa, packets, bytes, failed, replayed), window)| SaReport {
        sa: SaId(sa),
        packets,
        bytes,
        failed,
        replayed,
        window,
    })
}

fn notice() -> impl Strategy<Value = Notice> {
    (any::<u64>(), vec(connection(), 0..4), vec(connection(), 0..4), vec(window_record(), 0..4))
        .prop_map(|(id, opened, closed, windows)| Notice { id, opened, closed, windows })
}

fn port_range() -> impl Strategy<Value = PortRange> {
    any::<(u16, u16)>().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

fn prefixes() -> impl Strategy<Value = (Prefix, Prefix)> {
    let any_of = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap());
    prop_oneof![
        Just(any_of("10.0.0.0/8", "0.0.0.0/0")),
        Just(any_of("fd77::/64", "::/0")),
        (v4(), v4()).prop_map(|(a, b)| (Prefix::host(a), Prefix::host(b))),
        (v6(), v6()).prop_map(|(a, b)| (Prefix::host(a), Prefix::host(b))),
    ]
}

fn selectors() -> impl Strategy<Value = Selectors> {
    (prefixes(), option::of(any::<u8>()), port_range(), port_range()).prop_map(
        |((local, remote), protocol, local_ports, remote_ports)| Selectors {
            local,
            remote,
            protocol,
            local_ports,
            remote_ports,
        },
    )
}

fn tunnel() -> impl Strategy<Value = TunnelName> {
    "[a-zA-Z0-9._:-]{1,31}".prop_map(|name| TunnelName::new(&name).unwrap())
}

fn filters(vip: VipId) -> impl Strategy<Value = Vec<RankedFilter>> {
    let action = prop_oneof![Just(Action::Permit), Just(Action::Deny), tunnel().prop_map(Action::Protect)];
    let filter = (any::<u32>(), selectors(), action, any::<bool>()).prop_map(move |(rank, selectors, action, log)| {
        let name = (rank % 2 == 0).then(|| format!("rule {rank}").into());
        RankedFilter { rank, filter: Filter { vip, selectors, action, log }, name }
    });
    vec(filter, 0..4)
}

fn vip_def() -> impl Strategy<Value = VipDef> {
    let address = prop_oneof![(v4(), 0..=32_u8), (v6(), 0..=128_u8)];
    let links = vec(prop_oneof![v4(), v6()], 0..3);
    (vip_epoch(), address, links).prop_flat_map(|((vip, epoch), (address, prefix_len), router_link)| {
        filters(vip).prop_map(move |filters| VipDef {
            vip,
            address,
            prefix_len,
            epoch,
            router_link: router_link.clone(),
            filters,
            filter_at_router: epoch.0 % 2 == 0,
        })
    })
}

/// An SA that passes its own check.
pub fn sa() -> impl Strategy<Value = SaParams> {
    let identity = (any::<u64>(), any::<bool>(), vip(), any::<u32>(), tunnel(), 256..=u32::MAX);
    let cipher = (prop::sample::select(&Algorithm::ALL[..]), vec(any::<u8>(), 96), 1..=2048_u32, any::<(u64, u64)>());
    let rest = (1280..=u16::MAX, any::<[bool; 5]>(), selectors());
    (identity, ends(), cipher, rest).prop_map(|(identity, (local, remote), cipher, rest)| {
        let (id, inbound, vip, peer, tunnel, spi) = identity;
        let (algorithm, key, window, (a, b)) = cipher;
        let (path_mtu, [esn, copy_dscp, ecn, transport, nat], mut selectors) = rest;
        let mode = if transport { Mode::Transport } else { Mode::Tunnel { local, remote } };
        if transport {
            (selectors.local, selectors.remote) = (Prefix::host(local), Prefix::host(remote));
        }
        let original = transport.then_some(Original { local: remote, remote: local });
        let encap = (nat && !algorithm.is_ah()).then_some(Encap { remote_port: path_mtu, original });
        SaParams {
            id: SaId(id),
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            vip,
            peer: PeerId(peer),
            tunnel,
            spi: Spi(spi),
            mode,
            local,
            remote,
            algorithm,
            key: SecretKey::new(algorithm, &key[..algorithm.material_len()]).unwrap(),
            esn,
            window: window * 32,
            selectors,
            lifesize: Lifesize { soft: a.min(b), hard: a.max(b).max(1) },
            path_mtu,
            mss_clamp: match a % 3 {
                0 => phalanx_ipsec::MssClamp::None,
                1 => phalanx_ipsec::MssClamp::Path,
                _ => phalanx_ipsec::MssClamp::Most(536 + b as u16 % 9000),
            },
            copy_dscp,
            ecn,
            encap,
            within: (b % 2 == 0 && encap.is_none() && !algorithm.is_ah()).then_some(tunnel),
        }
    })
}

pub fn lease_reply() -> impl Strategy<Value = LeaseReply> {
    let block =
        (0..u64::MAX - u64::from(u32::MAX), any::<(u32, u32, u32)>()).prop_map(|(first, (len, valid, waited))| {
            Ok(LeaseBlock { first, len, valid_for_us: valid, waited_us: waited })
        });
    let refusal = prop::sample::select(vec![
        LeaseRefusal::Exhausted,
        LeaseRefusal::NoSuchSa,
        LeaseRefusal::WrongEpoch,
        LeaseRefusal::WrongIncarnation,
        LeaseRefusal::NoCoupling,
        LeaseRefusal::StoreBehind,
    ]);
    (any::<(u64, u64, u64, u64, u64)>(), core(), prop_oneof![block, refusal.prop_map(Err)]).prop_map(
        |((sa, nonce, incarnation, router_incarnation, epoch), core, result)| LeaseReply {
            sa: SaId(sa),
            core,
            nonce,
            incarnation,
            router_incarnation,
            epoch: Epoch(epoch),
            result,
        },
    )
}
