//! A path that falls: who believes it, who is told, and for how long.

mod common;

use common::*;
use phalanx_cluster::{RouterOutput, TargetOutput, ToTarget};
use phalanx_wire::SaId;

const OUT: SaId = SaId(3);
const MINUTE: u64 = 60_000 * MS;

/// A router with an SA and two targets; the next number to hand out is 4096 or so.
fn spread() -> World {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.connect(1);
    world.connect(2);
    world.add(pair(1, VIP));
    world
}

fn told(world: &World, n: u16) -> Vec<u16> {
    let of = |(node, message): &(phalanx_cluster::NodeName, ToTarget)| match message {
        ToTarget::PathMtu { sa: OUT, mtu } if **node == *name(n) => Some(*mtu),
        _ => None,
    };
    world.to_targets.iter().filter_map(of).collect()
}

/// What the cores of the router (0) or of a target were told.
fn on_cores(world: &World, n: u16) -> Vec<u16> {
    let router = world.log.iter().filter(|_| n == 0).filter_map(|o| match o {
        RouterOutput::PathMtu { sa: OUT, mtu } => Some(*mtu),
        _ => None,
    });
    let targets =
        world.target_log.iter().filter(|(node, _)| n > 0 && **node == *name(n)).filter_map(|(_, o)| match o {
            TargetOutput::PathMtu { sa: OUT, mtu } => Some(*mtu),
            _ => None,
        });
    router.chain(targets).collect()
}

fn next(world: &World) -> u32 {
    world.router.sequence(OUT, world.now).unwrap().next.unwrap() as u32
}

fn hear(world: &mut World, mtu: u16, seq: u32) {
    world.router.path_mtu_told(OUT, mtu, seq, world.now);
    world.settle();
}

#[test]
fn a_path_that_falls_is_told_to_all_cores_and_targets_and_rises_again_after_ten_minutes() {
    let mut world = spread();
    let seq = next(&world).wrapping_sub(1);
    hear(&mut world, 1300, seq);
    assert_eq!(world.router.path_mtu(OUT), Some(1300));
    for n in 0..=2 {
        assert_eq!(on_cores(&world, n), [1300], "node {n}");
    }
    hear(&mut world, 1280, seq);
    world.advance(9 * MINUTE);
    assert_eq!(told(&world, 1), [1300, 1280]);
    world.advance(2 * MINUTE);
    assert_eq!((told(&world, 1), told(&world, 2)), (vec![1300, 1280, 1500], vec![1300, 1280, 1500]));
    assert_eq!(on_cores(&world, 0), [1300, 1280, 1500]);
    assert_eq!(world.router.path_mtu(OUT), Some(1500));
}

#[test]
fn nothing_raises_a_path_or_lowers_it_below_what_every_path_carries() {
    let mut world = spread();
    let seq = next(&world).wrapping_sub(1);
    hear(&mut world, 1300, seq);
    for mtu in [1300, 1301, 1500, 9000, 575, 68, 0] {
        hear(&mut world, mtu, seq);
    }
    hear(&mut world, 576, seq);
    assert_eq!(told(&world, 1), [1300, 576]);
}

#[test]
fn a_packet_that_was_not_sent_lately_says_nothing() {
    let mut world = spread();
    let next = next(&world);
    for seq in [next, next.wrapping_add(1), next.wrapping_sub((1 << 20) + 1), next ^ 0x8000_0000] {
        hear(&mut world, 1300, seq);
    }
    assert!(told(&world, 1).is_empty());
    assert_eq!((world.router.path_mtu(OUT), world.router.path_mtu_refused(OUT)), (Some(1500), 4));
    world.router.path_mtu_told(SaId(99), 1300, 1, world.now);
    world.router.path_mtu_told(SaId(2), 1300, 1, world.now);
    world.settle();
    assert_eq!(world.router.path_mtu(SaId(2)), None, "an inbound SA has none");
}

#[test]
fn a_target_that_comes_back_knows_the_path_as_it_is_then() {
    let mut world = spread();
    let seq = next(&world).wrapping_sub(1);
    hear(&mut world, 1300, seq);
    world.disconnect(1);
    world.connect(1);
    assert_eq!(told(&world, 1), [1300, 1300]);
    assert_eq!(on_cores(&world, 1), [1300, 1500, 1300]);
    world.disconnect(1);
    world.advance(11 * MINUTE);
    world.connect(1);
    assert_eq!(told(&world, 1), [1300, 1300], "nothing is to be said of a path that is as configured");
    assert_eq!(on_cores(&world, 1).last(), Some(&1500));
}
