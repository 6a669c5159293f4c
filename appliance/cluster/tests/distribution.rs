//! Who is told what, when, and who waits for whom (R2-R6, I4, I6).

mod common;

use common::*;
use phalanx_cluster::{
    ClusterError, Hello, MemberState, PairPhase, RouterOutput, TargetOutput, ToRouter, ToTarget, Turn, VERSION,
};
use phalanx_ipsec::Direction;
use phalanx_wire::{Epoch, SaId, TargetId, VipId};

fn installs(world: &World, n: u16) -> Vec<u64> {
    let of = |(node, message): &(phalanx_cluster::NodeName, ToTarget)| match message {
        ToTarget::InstallSa { sa, .. } if **node == *name(n) => Some(sa.id.0),
        _ => None,
    };
    world.to_targets.iter().filter_map(of).collect()
}

#[test]
fn an_sa_goes_to_the_store_then_to_the_router_then_to_its_targets() {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.connect(1);
    world.store_down = true;
    world.add(pair(1, VIP));
    assert!(world.log_position(|o| matches!(o, RouterOutput::InstallLocal { .. })).is_none(), "R3");
    world.store_down = false;
    world.local_deaf = true;
    world.advance(200 * MS);
    assert!(world.log_position(|o| matches!(o, RouterOutput::InstallLocal { .. })).is_some());
    assert_eq!(installs(&world, 1), [0u64; 0], "the router's own cores come first");
    let local: Vec<u64> = world
        .log
        .iter()
        .filter_map(|o| match o {
            RouterOutput::InstallLocal { request, .. } => Some(*request),
            _ => None,
        })
        .collect();
    for request in local {
        world.router.local_done(request, Ok(()), world.now);
    }
    world.settle();
    assert_eq!(installs(&world, 1), [2, 3]);
    assert!(world.is_ready(2));
}

#[test]
fn an_sa_goes_to_the_targets_of_its_vip_and_to_nobody_else() {
    let other = VipId(2);
    let mut world = World::new(router_config(77, 3, vec![vip(VIP, &[1, 2]), vip(other, &[3])]), 3);
    for n in 1..=3 {
        world.connect(n);
    }
    world.add(pair(1, VIP));
    world.add(pair(5, other));
    assert_eq!(installs(&world, 1), [2, 3]);
    assert_eq!(installs(&world, 2), [2, 3]);
    assert_eq!(installs(&world, 3), [10, 11]);
}

#[test]
fn ready_waits_for_every_live_target_but_only_for_so_long() {
    let mut world = World::ready();
    world.deaf = vec![name(2)];
    world.add(pair(7, VIP));
    assert!(!world.is_ready(14));
    world.advance(1_900 * MS);
    assert!(!world.is_ready(14));
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
    world.advance(200 * MS);
    let missing = world.log.iter().find_map(|output| match output {
        RouterOutput::SaReady { sa: SaId(14), missing } => Some(missing.clone()),
        _ => None,
    });
    assert_eq!(missing.unwrap()[0].node, name(2));
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)], "who lacks an SA gets no connections");
    world.release();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
}

#[test]
fn a_target_that_goes_is_not_waited_for() {
    let mut world = World::ready();
    world.deaf = vec![name(2)];
    world.add(pair(7, VIP));
    assert!(!world.is_ready(14));
    world.disconnect(2);
    assert!(world.is_ready(14));
    assert!(world.log.iter().any(|o| matches!(o, RouterOutput::TargetDown { target: TargetId(2), .. })));
}

#[test]
fn a_target_that_comes_later_gets_everything_before_it_is_eligible() {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.connect(1);
    world.add(pair(1, VIP));
    world.add(pair(2, VIP));
    world.deaf = vec![name(2)];
    world.connect(2);
    assert_eq!(installs(&world, 2), [2, 3, 4, 5]);
    let vip_first = world.to_targets.iter().filter(|(node, _)| **node == *name(2)).map(|(_, m)| m.name());
    assert_eq!(vip_first.collect::<Vec<_>>()[..3], ["Welcome", "InstallVip", "InstallSa"]);
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)]);
    world.release();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
}

#[test]
fn a_reconnected_target_keeps_what_it_has_and_its_cores_are_left_alone() {
    let mut world = World::ready();
    let before = world.target_log.len();
    world.disconnect(1);
    world.connect(1);
    let touched = world.target_log[before..].iter().any(|(_, o)| matches!(o, TargetOutput::InstallSa { .. }));
    assert!(!touched);
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
}

#[test]
fn an_sa_that_was_deleted_while_a_target_was_away_is_removed_from_it() {
    let mut world = World::ready();
    world.disconnect(1);
    world.router.remove_sa(SaId(2), world.now).unwrap();
    world.settle();
    assert!(world.log.iter().any(|o| matches!(o, RouterOutput::SaGone { sa: SaId(2), .. })));
    world.windows.insert(
        name(1),
        vec![phalanx_cluster::WindowRecord { sa: SaId(2), snapshot: phalanx_ipsec::WindowSnapshot::default() }],
    );
    world.connect(1);
    assert_eq!(world.target(1).sas().count(), 0);
}

#[test]
fn a_delete_is_answered_after_all_confirmed_it() {
    let mut world = World::ready();
    world.deaf = vec![name(1)];
    world.router.remove_sa(SaId(3), world.now).unwrap();
    world.settle();
    let gone = |world: &World| world.log.iter().any(|o| matches!(o, RouterOutput::SaGone { sa: SaId(2), .. }));
    assert!(!gone(&world));
    world.release();
    assert!(gone(&world));
    assert_eq!(world.router.pairs().count(), 0);
    assert_eq!(world.target(2).sas().count(), 0);
}

#[test]
fn a_failed_installation_is_told_and_tried_again() {
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    world.connect(1);
    world.failing = vec![name(1)];
    world.add(pair(1, VIP));
    assert!(world.log.iter().any(|o| matches!(o, RouterOutput::Warn(text) if text.contains("the table is full"))));
    world.advance(2_100 * MS);
    assert!(world.is_ready(2), "the others go on without it");
    assert!(world.router.eligible(VIP, None).is_empty());
    world.failing.clear();
    world.advance(5_000 * MS);
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)]);
    assert_eq!(world.target(1).sas().count(), 2);
}

#[test]
fn a_lower_epoch_is_not_obeyed() {
    let mut world = World::ready();
    world.target(1).note_epoch(VIP, Epoch(5));
    let mut higher = vip(VIP, &[1, 2]);
    higher.def.epoch = Epoch(3);
    world.router.set_vip(higher, world.now);
    world.settle();
    let refused = world.to_router.iter().any(|(node, message)| {
        **node == *name(1) && matches!(message, ToRouter::Ack { error: Some(error), .. } if error.contains("epoch 3"))
    });
    assert!(refused);
}

#[test]
fn the_first_message_must_introduce_a_known_node_in_our_version() {
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    assert!(matches!(world.router.connected("stranger", 0), Err(ClusterError::UnknownNode(_))));
    world.router.connected("t1", 0).unwrap();
    let early = world.router.handle("t1", ToRouter::Report(Vec::new()), 0);
    assert!(matches!(early, Err(ClusterError::OutOfTurn { what: "Report", .. })));
    let hello = Hello { version: VERSION + 1, node: "t1".into(), incarnation: 1, link_mtu: 0, cores: Vec::new() };
    let refused = world.router.handle("t1", ToRouter::Hello(hello.clone()), 0).unwrap_err();
    assert_eq!(refused.to_string(), format!("t1 speaks message version {}, this node speaks {VERSION}", VERSION + 1));
    assert!(matches!(world.router.poll_output(), Some(RouterOutput::Disconnect { .. })));
    let hello = Hello { version: VERSION, node: "t2".into(), ..hello };
    assert!(matches!(world.router.handle("t1", ToRouter::Hello(hello), 0), Err(ClusterError::Name { .. })));
}

#[test]
fn a_pair_must_be_one() {
    let mut world = World::ready();
    let mut odd = pair(9, VIP);
    odd.outbound = sa(19, VIP, Direction::Inbound);
    assert_eq!(world.router.add_sa(odd, 0), Err(ClusterError::MixedPair("direction")));
    assert_eq!(world.router.add_sa(pair(1, VIP), 0), Ok(()), "the same again is left alone");
    let mut other = pair(1, VIP);
    other.outbound = sa(33, VIP, Direction::Outbound);
    assert_eq!(world.router.add_sa(other, 0), Err(ClusterError::SaExists(SaId(2))));
    assert_eq!(world.router.add_sa(pair(9, VipId(8)), 0), Err(ClusterError::UnknownVip(VipId(8))));
    assert_eq!(world.router.remove_sa(SaId(99), 0), Err(ClusterError::UnknownSa(SaId(99))));
}

#[test]
fn a_draining_target_and_one_without_a_listener_get_no_connections() {
    let mut world = World::ready();
    world.target(1).listening(VIP, vec![80, 80], vec![53]);
    world.target(2).listening(VIP, vec![81, 80], vec![]);
    world.settle();
    assert_eq!(world.router.eligible(VIP, Some(80)), [TargetId(1), TargetId(2)]);
    assert_eq!(world.router.eligible(VIP, Some(81)), [TargetId(2)]);
    let listened = world.router.listened(TargetId(1), VIP).unwrap();
    assert_eq!((&listened.tcp[..], &listened.udp[..]), (&[80][..], &[53][..]));
    world.target(2).drain(None);
    world.settle();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)]);
    // It says so again when it comes back.
    world.disconnect(2);
    world.connect(2);
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)]);
    world.target(2).resume(None);
    world.settle();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
}

#[test]
fn what_the_operator_drained_stays_so_until_he_takes_it_back_whatever_the_target_says() {
    let mut world = World::ready();
    assert_eq!(world.router.order_drain("t1", None, true), Ok(vec![VIP]));
    world.settle();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(2)]);
    assert!(world.router.drains(TargetId(1), VIP) && !world.router.drains(TargetId(2), VIP));
    world.target(1).resume(None);
    world.disconnect(1);
    world.connect(1);
    assert_eq!(world.router.eligible(VIP, None), [TargetId(2)]);
    assert_eq!(world.router.members()[0].ordered, [VIP]);
    assert_eq!(world.router.order_drain("t1", Some(VIP), false), Ok(vec![VIP]));
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1), TargetId(2)]);
    let unknown = world.router.order_drain("t9", None, true);
    assert_eq!(unknown, Err(ClusterError::UnknownNode("t9".into())));
    let elsewhere = world.router.order_drain("t1", Some(VipId(9)), true);
    assert_eq!(elsewhere, Err(ClusterError::UnknownVip(VipId(9))));
}

#[test]
fn a_target_drains_one_vip_or_all_and_takes_each_back() {
    let other = VipId(2);
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1]), vip(other, &[1])]), 1);
    world.connect(1);
    let mut open = |act: &dyn Fn(&mut phalanx_cluster::TargetCluster)| {
        act(world.target(1));
        world.settle();
        [VIP, other].map(|vip| !world.router.eligible(vip, None).is_empty())
    };
    assert_eq!(open(&|_| {}), [true, true]);
    assert_eq!(open(&|t| t.drain(Some(VIP))), [false, true]);
    assert_eq!(open(&|t| t.drain(Some(VIP))), [false, true]);
    assert_eq!(open(&|t| t.drain(None)), [false, false]);
    assert_eq!(open(&|t| t.resume(Some(other))), [false, true]);
    assert_eq!(open(&|t| t.resume(Some(VIP))), [true, true]);
}

#[test]
fn other_rules_of_a_pair_reach_its_targets_and_leave_its_sas_alone() {
    let mut world = World::ready();
    let before = world.log.len();
    let rule = phalanx_cluster::RankedFilter {
        rank: 9,
        filter: phalanx_ipsec::Filter {
            vip: VIP,
            selectors: pair(1, VIP).outbound.selectors,
            action: phalanx_ipsec::Action::Deny,
            log: false,
        },
        name: None,
    };
    world.router.set_rules(SaId(3), vec![rule.clone()], world.now).unwrap();
    world.settle();
    let local = world.log[before..]
        .iter()
        .any(|o| matches!(o, RouterOutput::LocalRules { sa: SaId(3), filters } if *filters == [rule.clone()]));
    assert!(local, "the router's own cores");
    for n in [1, 2] {
        let told = world.target_log.iter().any(|(node, o)| {
            **node == *name(n) && matches!(o, TargetOutput::InstallSa { filters, .. } if *filters == [rule.clone()])
        });
        assert!(told, "target {n}");
        assert_eq!(world.target(n).sas().count(), 2);
    }
    assert!(!world.log[before..].iter().any(|o| matches!(o, RouterOutput::SaGone { .. })));
    assert_eq!(world.router.set_rules(SaId(99), Vec::new(), 0), Err(ClusterError::UnknownSa(SaId(99))));
}

#[test]
fn a_vip_that_is_given_up_takes_its_sas_along() {
    let mut world = World::ready();
    world.router.remove_vip(VIP, world.now).unwrap();
    world.settle();
    assert_eq!(world.router.pairs().count(), 0);
    for n in [1, 2] {
        assert_eq!((world.target(n).sas().count(), world.target(n).vips().count()), (0, 0));
    }
}

#[test]
fn a_vip_can_change_its_targets() {
    let mut world = World::ready();
    world.router.set_vip(vip(VIP, &[2]), world.now);
    world.settle();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(2)]);
    assert_eq!((world.target(1).sas().count(), world.target(1).vips().count()), (0, 0));
    world.router.set_vip(vip(VIP, &[1, 2]), world.now);
    world.settle();
    assert_eq!(world.target(1).sas().count(), 2);
}

#[test]
fn status_tells_where_everything_stands() {
    let world = World::ready();
    let members = world.router.members();
    assert!(members.iter().all(|member| member.state == MemberState::Ready && member.outstanding == 0));
    let pairs: Vec<_> = world.router.pairs().collect();
    assert_eq!((pairs.len(), pairs[0].phase), (1, PairPhase::Ready));
}

#[test]
fn a_successor_waits_for_its_turn_everywhere_and_who_joins_later_gets_the_same_turn() {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.connect(1);
    world.add(pair(1, VIP));
    world.add(phalanx_cluster::SaPair { waits: true, early: true, ..pair(5, VIP) });
    let turns = |world: &World, n: u16, sa: u64| {
        let of = |(node, o): &(phalanx_cluster::NodeName, TargetOutput)| match o {
            TargetOutput::InstallSa { sa: params, turn, .. } if **node == *name(n) && params.id.0 == sa => Some(*turn),
            _ => None,
        };
        world.target_log.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!((turns(&world, 1, 3), turns(&world, 1, 11)), (vec![Turn::AtOnce], vec![Turn::Later]));
    let early = |o: &RouterOutput| matches!(o, RouterOutput::InstallLocal { sa, early: true, .. } if sa.id == SaId(10));
    assert!(world.log_position(early).is_some());
    world.router.use_outbound(SaId(10), Some(SaId(2)), world.now).unwrap();
    world.settle();
    assert!(world.log_position(|o| matches!(o, RouterOutput::UseLocal(SaId(11)))).is_some());
    assert_eq!(turns(&world, 1, 11), [Turn::Later, Turn::Now]);
    world.router.use_outbound(SaId(10), Some(SaId(2)), world.now).unwrap();
    world.settle();
    assert_eq!(turns(&world, 1, 11).len(), 2, "once is enough");
    world.connect(2);
    assert_eq!((turns(&world, 2, 3), turns(&world, 2, 11)), (vec![Turn::Later], vec![Turn::AtOnce]));
    assert_eq!(world.router.use_outbound(SaId(99), None, 0), Err(ClusterError::UnknownSa(SaId(99))));
}
