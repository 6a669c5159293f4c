//! Peers behind NATs: who decides where they are, who is told, and keepalives (RFC 7296 §2.23, RFC 3948 §4).

mod common;

use common::*;
use phalanx_cluster::messages::PeerAt;
use phalanx_cluster::{RouterOutput, SaPair, TargetOutput, ToTarget, Want};
use phalanx_ipsec::{Encap, SaParams};
use phalanx_wire::{CoreId, SaId};
use std::net::SocketAddr;
use std::sync::Arc;

const SECOND: u64 = 1_000_000;

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// As `pair`, in UDP.
fn in_udp(n: u64, keepalive_us: u64) -> SaPair {
    let udp = |sa: Arc<SaParams>| {
        let encap = Some(Encap { remote_port: 4500, original: None });
        Arc::new(SaParams { encap, ..SaParams::clone(&sa) })
    };
    let pair = pair(n, VIP);
    SaPair { inbound: udp(pair.inbound), outbound: udp(pair.outbound), keepalive_us, ..pair }
}

fn world(keepalive_us: u64) -> World {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.add(in_udp(1, keepalive_us));
    world.connect(1);
    world.connect(2);
    world
}

fn seen(world: &mut World, n: u16, remote: &str, number: u64) {
    world.target(n).peer_seen(PeerAt { sa: SaId(2), remote: place(remote), number });
    world.settle();
}

/// What the cores of target `n` were told, and those of the router.
fn moves(world: &World, n: u16) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let of_target = world.target_log.iter().filter_map(|(node, output)| match output {
        TargetOutput::PeerMoved { sas, remote } if *node == name(n) => {
            assert_eq!(sas, &[SaId(2), SaId(3)]);
            Some(*remote)
        }
        _ => None,
    });
    let of_router = world.log.iter().filter_map(|output| match output {
        RouterOutput::PeerMoved { sas, remote } => {
            assert_eq!(sas, &[SaId(2), SaId(3)]);
            Some(*remote)
        }
        _ => None,
    });
    (of_target.collect(), of_router.collect())
}

#[test]
fn one_target_sees_a_peer_elsewhere_and_all_learn_it() {
    let mut world = world(0);
    seen(&mut world, 1, "10.77.0.20:20001", 5);
    let there = vec![place("10.77.0.20:20001")];
    assert_eq!((moves(&world, 1), moves(&world, 2)), ((there.clone(), there.clone()), (there.clone(), there.clone())));
    assert_eq!(world.router.peer_end(SaId(3)), Some(there[0]));
    seen(&mut world, 2, "10.77.0.20:20001", 6);
    assert_eq!(moves(&world, 2).0.len(), 1, "it is known");
}

#[test]
fn a_packet_that_is_not_newer_moves_nobody() {
    let mut world = world(0);
    seen(&mut world, 1, "10.77.0.20:20001", 100);
    for number in [1, 99, 100] {
        seen(&mut world, 2, "10.77.0.10:4500", number);
    }
    assert_eq!(world.router.peer_end(SaId(2)), Some(place("10.77.0.20:20001")));
    seen(&mut world, 2, "10.77.0.10:4500", 101);
    assert_eq!(world.router.peer_end(SaId(2)), Some(place("10.77.0.10:4500")));
    assert_eq!(moves(&world, 1).0.len(), 2);
}

#[test]
fn nobody_moves_to_where_nothing_can_be_sent_nor_without_udp() {
    let mut world = world(0);
    for nowhere in ["10.77.0.20:0", "0.0.0.0:1", "224.0.0.1:1", "[fd77::20]:1"] {
        seen(&mut world, 1, nowhere, 5);
    }
    assert_eq!(moves(&world, 1).0, []);
    let mut plain = World::ready();
    seen(&mut plain, 1, "10.77.0.20:20001", 5);
    assert_eq!((moves(&plain, 1).0, plain.router.peer_end(SaId(2))), (vec![], None));
}

#[test]
fn who_is_no_target_of_the_vip_moves_nobody() {
    let other = phalanx_wire::VipId(2);
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1]), vip(other, &[2])]), 2);
    world.add(in_udp(1, 0));
    world.connect(1);
    world.connect(2);
    seen(&mut world, 2, "10.77.0.20:20001", 5);
    assert_eq!(world.router.peer_end(SaId(2)), Some(place("10.77.0.10:4500")));
    seen(&mut world, 1, "10.77.0.20:20001", 5);
    let told =
        |node: &str| world.to_targets.iter().any(|(n, m)| &**n == node && matches!(m, ToTarget::PeerMoved { .. }));
    assert!(told("t1") && !told("t2"), "R2");
}

#[test]
fn a_target_that_comes_later_learns_where_the_peer_is_behind_its_sa() {
    let mut world = world(0);
    world.disconnect(2);
    seen(&mut world, 1, "10.77.0.20:20001", 5);
    assert_eq!(moves(&world, 2).0, []);
    world.connect(2);
    assert_eq!(moves(&world, 2).0.last(), Some(&place("10.77.0.20:20001")));
}

#[test]
fn a_pair_that_ends_takes_all_that_is_known_of_its_peer_with_it() {
    let mut world = world(20 * SECOND);
    seen(&mut world, 1, "10.77.0.20:20001", 5);
    world.router.remove_sa(SaId(2), world.now).unwrap();
    world.settle();
    assert_eq!(world.router.peer_end(SaId(2)), None);
    world.add(in_udp(1, 0));
    assert_eq!(world.router.peer_end(SaId(2)), Some(place("10.77.0.10:4500")));
    world.advance(100 * SECOND);
    assert_eq!(keepalives(&world), []);
}

fn keepalives(world: &World) -> Vec<SocketAddr> {
    let to = |output: &RouterOutput| match output {
        RouterOutput::Keepalive { vip, remote } => {
            assert_eq!(*vip, VIP);
            Some(*remote)
        }
        _ => None,
    };
    world.log.iter().filter_map(to).collect()
}

#[test]
fn a_keepalive_goes_to_where_the_peer_is_whenever_nothing_was_sent_for_so_long() {
    let mut world = world(20 * SECOND);
    world.advance(19 * SECOND);
    assert_eq!(keepalives(&world), []);
    world.advance(2 * SECOND);
    assert_eq!(keepalives(&world), [place("10.77.0.10:4500")]);
    seen(&mut world, 1, "10.77.0.20:20001", 5);
    world.advance(61 * SECOND);
    assert_eq!(keepalives(&world)[1..], [place("10.77.0.20:20001"); 3]);
}

#[test]
fn who_sends_needs_no_keepalive() {
    let mut world = world(20 * SECOND);
    for _ in 0..10 {
        world.advance(15 * SECOND);
        let now = world.now;
        world.target(1).lease_wanted(CoreId(0), SaId(3), Want { want: 1, done_below: 0, rate_pps: 1 }, now);
        world.settle();
    }
    assert_eq!(keepalives(&world), []);
}

#[test]
fn keepalives_can_be_switched_off_and_are_of_sas_in_udp_alone() {
    let mut off = world(0);
    off.advance(100 * SECOND);
    let mut plain = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    plain.add(SaPair { keepalive_us: SECOND, ..pair(1, VIP) });
    plain.advance(100 * SECOND);
    assert_eq!((keepalives(&off), keepalives(&plain)), (vec![], vec![]));
}
