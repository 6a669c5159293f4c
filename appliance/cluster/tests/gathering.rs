//! Restarts, windows and connections: nothing is accepted twice, nothing is lost (ARCHITECTURE, "Inbound replay"; I2).

mod common;

use common::*;
use phalanx_cluster::{
    ConnRecord, ConnRefusal, ReportPolicy, RouterOutput, SaReport, TargetOutput, ToRouter, ToTarget, Want, WindowRecord,
};
use phalanx_ipsec::WindowSnapshot;
use phalanx_wire::{CoreId, SaId, TargetId, VipId};

fn conn(port: u16) -> ConnRecord {
    ConnRecord { vip: VIP, peer: PEER, flow: flow(port), core: CoreId(0), established: true }
}

fn window(edge: u64) -> WindowRecord {
    WindowRecord { sa: SaId(2), snapshot: WindowSnapshot { edge, floor: 0, words: vec![1] } }
}

#[test]
fn a_vip_is_settled_when_all_its_targets_were_gathered() {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.add(pair(1, VIP));
    let settled = |world: &World| world.log_position(|o| matches!(o, RouterOutput::Settled { .. }));
    world.connect(1);
    assert_eq!(settled(&world), None);
    world.connect(2);
    assert!(settled(&world).is_some());
}

#[test]
fn a_vip_is_settled_after_its_time_and_the_missing_are_named() {
    let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
    world.connect(1);
    world.advance(2_900 * MS);
    assert!(world.log_position(|o| matches!(o, RouterOutput::Settled { .. })).is_none());
    world.advance(200 * MS);
    let missing = world.log.iter().find_map(|output| match output {
        RouterOutput::Settled { missing, .. } => Some(missing.clone()),
        _ => None,
    });
    assert_eq!(missing.unwrap(), [name(2)]);
}

#[test]
fn a_restarted_router_learns_windows_and_connections_before_it_settles() {
    let mut world = World::ready();
    world.router.ceiling_wanted(SaId(2), 100, world.now);
    world.settle();
    world.connections.insert(name(1), vec![conn(1000), conn(1001)]);
    world.windows.insert(name(1), vec![window(500)]);
    world.windows.insert(name(2), vec![window(90)]);
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.log.clear();
    world.connect(1);
    world.connect(2);
    let merge = world.log_position(|o| matches!(o, RouterOutput::MergeWindows(_))).unwrap();
    let restore = world.log_position(|o| matches!(o, RouterOutput::RestoreConnections(all) if all.len() == 2)).unwrap();
    let floor = world.log_position(|o| matches!(o, RouterOutput::RaiseFloor { floor: 500, .. })).unwrap();
    let settled = world.log_position(|o| matches!(o, RouterOutput::Settled { .. })).unwrap();
    let ceiling = world.log_position(|o| matches!(o, RouterOutput::Ceiling { upto: 532.., .. })).unwrap();
    assert!(merge < restore && restore < floor && floor < settled && floor < ceiling);
    let down = world.log.iter().any(|o| matches!(o, RouterOutput::TargetDown { .. }));
    assert!(!down, "a restarted router purges nothing");
}

#[test]
fn the_durable_ceiling_is_the_floor_when_no_target_knows_more() {
    let mut world = World::ready();
    world.router.ceiling_wanted(SaId(2), 1000, world.now);
    world.settle();
    let upto = world.log.iter().rev().find_map(|output| match output {
        RouterOutput::Ceiling { upto, .. } => Some(*upto),
        _ => None,
    });
    let upto = upto.unwrap();
    assert!(upto >= 1032);
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.log.clear();
    world.advance(3_100 * MS);
    let floor = world.log.iter().find_map(|output| match output {
        RouterOutput::RaiseFloor { floor, .. } => Some(*floor),
        _ => None,
    });
    assert_eq!(floor, Some(upto));
}

#[test]
fn a_store_that_was_down_takes_the_ceiling_later() {
    let mut world = World::ready();
    world.store_down = true;
    world.router.ceiling_wanted(SaId(2), 1000, world.now);
    world.settle();
    world.log.clear();
    world.advance(400 * MS);
    world.store_down = false;
    world.advance(1_000 * MS);
    assert!(world.log_position(|o| matches!(o, RouterOutput::Ceiling { upto: 1032.., .. })).is_some());
}

#[test]
fn a_closing_connections_window_is_merged_before_its_entry_goes() {
    let mut world = World::ready();
    world.log.clear();
    world.target(1).notice(Vec::new(), vec![conn(1000)], vec![window(40)]);
    world.settle();
    let merge = world.log_position(|o| matches!(o, RouterOutput::MergeWindows(_))).unwrap();
    let close = world.log_position(|o| matches!(o, RouterOutput::ConnClosed(c) if c.target == TargetId(1))).unwrap();
    assert!(merge < close);
    assert_eq!(world.target(1).unacknowledged_notices(), 0);
}

#[test]
fn a_repeated_notice_is_acknowledged_but_not_acted_on() {
    let mut world = World::ready();
    world.target(1).notice(vec![conn(1000)], Vec::new(), Vec::new());
    world.settle();
    let notice = world.to_router.iter().rev().find_map(|(_, message)| match message {
        ToRouter::Notice(notice) => Some(notice.clone()),
        _ => None,
    });
    world.log.clear();
    world.to_targets.clear();
    world.router.handle("t1", ToRouter::Notice(notice.unwrap()), world.now).unwrap();
    world.settle();
    assert!(world.log.is_empty());
    assert!(matches!(world.to_targets[..], [(_, ToTarget::NoticeAck { id: 1 })]));
}

#[test]
fn what_happens_while_a_router_gathers_is_told_after_it() {
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    world.add(pair(1, VIP));
    world.slow_gather = true;
    world.connect(1);
    world.target(1).notice(Vec::new(), vec![conn(1000)], Vec::new());
    world.settle();
    assert!(!world.to_router.iter().any(|(_, message)| matches!(message, ToRouter::Notice(_))));
    let (node, token) = world.gathers[0].clone();
    world.gathered(&node, token);
    world.settle();
    let order: Vec<&str> = world.to_router.iter().map(|(_, message)| message.name()).collect();
    assert_eq!(order[..3], ["Hello", "Gathered", "Notice"]);
}

#[test]
fn an_answer_to_an_earlier_gathering_is_thrown_away() {
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    world.slow_gather = true;
    world.connect(1);
    world.disconnect(1);
    world.connect(1);
    let (node, old) = world.gathers[0].clone();
    world.gathered(&node, old);
    world.settle();
    assert!(!world.target(1).attached());
    let (node, token) = world.gathers[1].clone();
    world.gathered(&node, token);
    world.settle();
    assert!(world.target(1).attached());
}

#[test]
fn a_core_that_answers_after_the_session_ended_confirms_nothing_in_the_next() {
    let mut world = World::new(router_config(77, 1, vec![vip(VIP, &[1])]), 1);
    world.deaf = vec![name(1)];
    world.connect(1);
    let (node, stale) = world.held.pop_front().unwrap();
    world.disconnect(1);
    world.connect(1);
    let acks = |world: &World| world.to_router.iter().filter(|(_, m)| matches!(m, ToRouter::Ack { .. })).count();
    world.targets.get_mut(&node).unwrap().core_done(stale, Ok(()));
    world.settle();
    assert_eq!(acks(&world), 0);
    world.release();
    assert_eq!(world.router.eligible(VIP, None), [TargetId(1)]);
}

#[test]
fn much_to_tell_is_told_in_parts() {
    let mut world = World::ready();
    world.connections.insert(name(1), (0..10_000).map(|n| conn(n as u16)).collect());
    world.disconnect(1);
    world.to_router.clear();
    world.log.clear();
    world.connect(1);
    let parts: Vec<usize> = world
        .to_router
        .iter()
        .filter_map(|(_, m)| match m {
            ToRouter::Gathered(part) => Some(part.connections.len()),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [4096, 4096, 1808]);
    let restored: usize = world
        .log
        .iter()
        .map(|o| match o {
            RouterOutput::RestoreConnections(all) => all.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(restored, 10_000);
}

#[test]
fn use_is_reported_by_share_by_packets_and_by_time() {
    let mut world = World::ready();
    let now = world.now;
    // 5 % of 20,000 bytes; the SA was never reported, so it is old enough from the start: begin with one report.
    world
        .target(1)
        .report(vec![SaReport { sa: SaId(2), packets: 1, bytes: 10, failed: 0, replayed: 0, window: None }], now);
    assert!(!world.target(1).report_due(SaId(2), 2, 900, now + 1));
    assert!(world.target(1).report_due(SaId(2), 2, 1010, now + 1));
    assert!(!world.target(1).report_due(SaId(2), 1, 10, now + 10_000_000), "nothing is new");
    assert!(world.target(1).report_due(SaId(2), 2, 20, now + ReportPolicy::default().interval_us));
    assert!(world.target(1).report_due(SaId(2), 100_001, 20, now + 1));
    world.settle();
}

#[test]
fn the_sum_of_all_targets_reaches_the_lifesize() {
    let mut world = World::ready();
    let report = |bytes| vec![SaReport { sa: SaId(3), packets: 1, bytes, failed: 0, replayed: 0, window: None }];
    let now = world.now;
    world.target(1).report(report(6_000), now);
    world.target(2).report(report(5_000), now);
    world.settle();
    assert!(world.log.iter().any(|o| matches!(o, RouterOutput::LifesizeSoft(SaId(3)))));
    assert_eq!(world.router.used(SaId(3)).unwrap().bytes, 11_000);
    world.target(2).report(report(14_000), now);
    world.settle();
    assert!(world.log.iter().any(|o| matches!(o, RouterOutput::LifesizeHard(SaId(3)))));
}

#[test]
fn numbers_of_a_router_that_restarted_are_thrown_away_first() {
    let mut world = World::ready();
    let want = Want { want: 8, done_below: 0, rate_pps: 100 };
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    let first = world.target_log.iter().rev().find_map(|(_, o)| match o {
        TargetOutput::Lease { lease, .. } => Some(lease.end()),
        _ => None,
    });
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.target_log.clear();
    world.connect(1);
    world.connect(2);
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    world.advance(500 * MS);
    let drop =
        world.target_log.iter().position(|(_, o)| matches!(o, TargetOutput::DropLeases(sas) if sas == &[SaId(3)]));
    let lease = world
        .target_log
        .iter()
        .position(|(_, o)| matches!(o, TargetOutput::Lease { lease, .. } if Some(lease.first()) >= first));
    assert!(drop.unwrap() < lease.unwrap());
}

#[test]
fn a_store_that_lost_its_numbers_is_found_out() {
    let mut world = World::ready();
    let want = Want { want: 8, done_below: 0, rate_pps: 100 };
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    // Somebody restores an empty store and starts the router again.
    world.counters.clear();
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.log.clear();
    world.target_log.clear();
    world.connect(1);
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    world.advance(1_000 * MS);
    let leased = world.target_log.iter().any(|(_, o)| matches!(o, TargetOutput::Lease { .. }));
    assert!(!leased, "I1");
}

fn leased(world: &World, n: u16) -> bool {
    world.target_log.iter().any(|(node, o)| **node == *name(n) && matches!(o, TargetOutput::Lease { .. }))
}

#[test]
fn no_number_is_given_before_all_targets_could_say_what_they_remember() {
    let mut world = World::ready();
    let want = Want { want: 8, done_below: 0, rate_pps: 100 };
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    // An old copy of the store is put in place. The target that knows more is slow to come back.
    world.counters.clear();
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.log.clear();
    world.target_log.clear();
    world.connect(2);
    let now = world.now;
    world.target(2).lease_wanted(CoreId(0), SaId(3), want, now);
    world.router.local_lease_wanted(CoreId(5), SaId(3), want, now);
    world.settle();
    world.advance(1_000 * MS);
    world.connect(1);
    world.advance(3_000 * MS);
    let local = world.log.iter().any(|o| matches!(o, RouterOutput::LocalLease { .. }));
    assert!(!leased(&world, 2) && !local, "I1");
}

#[test]
fn numbers_are_given_as_soon_as_all_were_heard_or_their_time_is_over() {
    let want = Want { want: 8, done_below: 0, rate_pps: 100 };
    for missing in [false, true] {
        let mut world = World::new(router_config(77, 2, vec![vip(VIP, &[1, 2])]), 2);
        world.add(pair(1, VIP));
        world.connect(1);
        let now = world.now;
        world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
        world.settle();
        world.advance(500 * MS);
        assert!(!leased(&world, 1));
        if missing {
            world.advance(2_400 * MS);
            assert!(!leased(&world, 1));
            world.advance(1_000 * MS);
        } else {
            world.connect(2);
        }
        assert!(leased(&world, 1));
    }
}

#[test]
fn a_key_whose_store_was_behind_stays_refused_after_another_restart() {
    let mut world = World::ready();
    let want = Want { want: 8, done_below: 0, rate_pps: 100 };
    let now = world.now;
    world.target(1).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    world.counters.clear();
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.connect(1);
    world.connect(2);
    // The next grant would be above all that anybody remembers.
    world.restart_router(router_config(79, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.target_log.clear();
    world.connect(1);
    world.connect(2);
    let now = world.now;
    world.target(2).lease_wanted(CoreId(0), SaId(3), want, now);
    world.settle();
    world.advance(1_000 * MS);
    assert!(!leased(&world, 2), "I1");
}

#[test]
fn what_dead_targets_may_have_accepted_is_refused_when_everybody_restarts() {
    let mut world = World::ready();
    let report = |edge| {
        vec![SaReport {
            sa: SaId(2),
            packets: 1,
            bytes: 1,
            failed: 0,
            replayed: 0,
            window: Some(window(edge).snapshot),
        }]
    };
    let now = world.now;
    world.target(1).report(report(40_000), now);
    world.settle();
    // All nodes die, what the target accepted since its last report included.
    world.disconnect(1);
    world.disconnect(2);
    world.restart_router(router_config(78, 2, vec![vip(VIP, &[1, 2])]), vec![pair(1, VIP)]);
    world.log.clear();
    world.connect(1);
    world.connect(2);
    let floors = world.log.iter().find_map(|o| match o {
        RouterOutput::RaiseFloor { floor, late, .. } => Some((*floor, *late)),
        _ => None,
    });
    let (floor, late) = floors.unwrap();
    assert!(late >= 40_000 + 32_768, "{late}");
    assert!(floor < 1000, "and new connections do not wait: {floor}");
}

/// R20: its first packet waits for the router's entry.
#[test]
fn a_connection_that_a_target_opens_is_asked_of_the_router_of_its_vip() {
    let mut world = World::ready();
    let record = ConnRecord { established: false, ..conn(4000) };
    assert!(world.target(2).conn_wanted(record, SaId(3)));
    world.settle();
    let asked = world.log.iter().find_map(|output| match output {
        RouterOutput::OpenConnection { node, record, conn, inbound } => Some((node.clone(), *record, *conn, *inbound)),
        _ => None,
    });
    let (node, told, connection, inbound) = asked.expect("the router hears of it");
    assert_eq!((&*node, told, inbound), (&*name(2), record, Some(SaId(2))));
    assert_eq!((connection.target, connection.flow, connection.established), (TargetId(2), record.flow, false));
    // Of another VIP there is nobody to ask, and without a session neither.
    assert!(!world.target(2).conn_wanted(ConnRecord { vip: VipId(7), ..record }, SaId(3)));
    world.disconnect(2);
    assert!(!world.target(2).conn_wanted(record, SaId(3)));
}

#[test]
fn what_the_router_answers_about_a_new_connection_reaches_the_core_that_asked() {
    let mut world = World::ready();
    let (record, now) = (ConnRecord { established: false, ..conn(4000) }, world.now);
    let refused = Some(ConnRefusal::PortTaken);
    world.target(1).handle(ToTarget::ConnAnswer { conn: record, refused }, now).unwrap();
    let outputs: Vec<TargetOutput> = std::iter::from_fn(|| world.target(1).poll_output()).collect();
    let told = |output: &TargetOutput| matches!(output, TargetOutput::ConnAnswer { conn, refused: Some(ConnRefusal::PortTaken) } if *conn == record);
    assert!(outputs.iter().any(told), "{outputs:?}");
}
