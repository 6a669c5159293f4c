//! The router's way of a packet, with the same core as its target.

use super::*;
use phalanx_ipsec::WindowSnapshot;
use phalanx_steering::{ConnKey, ConnState};
use phalanx_wire::{Endpoint, Flow, PeerId};
use proptest::prelude::*;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];

fn settled() -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.route_vip(&SELF);
    (bench, Client::new())
}

#[test]
fn a_connection_is_opened_by_a_proved_syn_and_delivered_in_clear() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    assert_eq!(bench.delivered(), [segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)]);
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 1);
    assert_eq!((bench.stats.stage(Stage::SynOpened), bench.stats.stage(Stage::Forwarded)), (1, 2));
    assert_eq!(bench.engine.router.table.len(), 1);
    bench.only_dropped(&[]);
}

#[test]
fn the_target_tells_when_a_connection_is_established_and_over() {
    let (mut bench, mut client) = settled();
    bench.lease(1, 100);
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(APPLICATION, &answer(4000, SYN | ACK));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    let opened =
        bench.events().into_iter().find_map(|e| if let Event::ConnOpened { key, .. } = e { Some(key) } else { None });
    let key = opened.expect("opened");
    bench.order(Command::Confirm(VIP, key, TargetId(1)));
    assert_eq!(bench.engine.router.table.lookup(&key).unwrap().state, ConnState::Established);
    bench.receive(NETWORK, &client.tcp(4000, TcpFlags::RST));
    assert!(bench.events().iter().any(|e| matches!(e, Event::ConnClosed { key: closed, .. } if *closed == key)));
    bench.order(Command::EndConn(VIP, key, TargetId(1)));
    assert!(bench.engine.router.table.is_empty());
}

#[test]
fn a_replay_is_dropped_whatever_it_holds() {
    let (mut bench, mut client) = settled();
    let (syn, ack) = (client.tcp(4000, SYN), client.tcp(4000, ACK));
    for packet in [&syn, &ack, &syn, &ack, &ack] {
        bench.receive(NETWORK, packet);
    }
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::Replay, 3)]);
}

#[test]
fn a_forged_number_ahead_of_genuine_ones_costs_them_nothing() {
    let (mut bench, mut client) = settled();
    let mut bench_receive = |packet: &[u8]| bench.receive(NETWORK, packet);
    bench_receive(&client.tcp(4000, SYN));
    for _ in 0..40 {
        let genuine = client.tcp(4000, ACK);
        let mut forged = genuine.clone();
        forged[24] ^= 0x40; // the sequence number's high byte
        bench_receive(&forged);
        bench_receive(&genuine);
    }
    assert_eq!(bench.delivered().len(), 41);
    bench.only_dropped(&[(DropReason::BadIcv, 40)]);
}

#[test]
fn a_syn_that_is_not_genuine_makes_no_entry_and_asks_for_no_ceiling() {
    let (mut bench, mut client) = settled();
    bench.events();
    let mut syn = client.tcp(4000, SYN);
    *syn.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &syn);
    assert!(bench.delivered().is_empty() && bench.engine.router.table.is_empty() && bench.events().is_empty());
    bench.only_dropped(&[(DropReason::BadIcv, 1)]);
}

#[test]
fn a_router_that_has_not_heard_its_targets_answers_nothing() {
    let mut bench = Bench::new(1);
    let mut client = Client::new();
    bench.set_vip(Some(CoreId(0)));
    bench.add_sas();
    bench.order(Command::Ceiling(IN, 1 << 30));
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    bench.receive(
        NETWORK,
        &client.seal(&inner("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
    );
    assert!(bench.delivered().is_empty());
    bench.only_dropped(&[(DropReason::Settling, 3)]);
}

#[test]
fn connections_of_targets_go_on_before_the_router_is_settled() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.delivered();
    let key = bench_key(&bench);
    // The router starts anew: its tables are empty, its target's are not.
    let mut restarted = Bench::new(1);
    restarted.set_vip(Some(CoreId(0)));
    restarted.set_targets(&SELF, &[(0..=u16::MAX, &[1])]);
    restarted.add_sas();
    restarted.order(Command::RestoreConn(VIP, key, TargetId(1)));
    restarted.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(restarted.delivered().len(), 1);
    restarted.only_dropped(&[]);
}

fn bench_key(bench: &Bench) -> phalanx_steering::ConnKey {
    let mut found = None;
    let _ = bench.engine.router.table.scan(&mut Default::default(), usize::MAX, |conn| found = Some(conn.key));
    found.expect("a connection")
}

#[test]
fn what_the_router_keeps_waits_for_a_durable_ceiling_and_is_not_taken_twice() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.route_vip(&SELF);
    let mut fresh = Bench::new(1);
    std::mem::swap(&mut bench, &mut fresh);
    bench.set_vip(Some(CoreId(0)));
    bench.add_sas();
    bench.order(Command::Settled(VIP));
    bench.events();
    let ping = client.seal(&inner("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]));
    bench.receive(NETWORK, &ping);
    bench.receive(NETWORK, &ping);
    assert!(bench.delivered().is_empty());
    assert!(matches!(bench.events()[..], [Event::CeilingWanted { sa: IN, at: 1, .. }]));
    bench.order(Command::Ceiling(IN, 32));
    assert_eq!(bench.delivered().len(), 1);
    bench.only_dropped(&[(DropReason::Replay, 1)]);
    // Half of the headroom used: the next ceiling is asked for before anything has to wait.
    for _ in 0..16 {
        bench.receive(
            NETWORK,
            &client.seal(&inner("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
        );
    }
    assert_eq!(bench.delivered().len(), 16);
    assert!(matches!(bench.events()[..], [Event::CeilingWanted { at: 17, .. }]));
}

#[test]
fn what_waits_for_a_ceiling_is_given_up_after_a_while() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.set_vip(Some(CoreId(0)));
    bench.add_sas();
    bench.order(Command::Settled(VIP));
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.pass(500);
    let asked = bench.events().iter().filter(|e| matches!(e, Event::CeilingWanted { .. })).count();
    assert_eq!(asked, 2);
    bench.pass(600);
    bench.only_dropped(&[(DropReason::CeilingWait, 1)]);
    assert_eq!(bench.engine.router.held.held(), 0);
}

#[test]
fn a_raised_floor_holds_for_what_the_router_accepts_and_not_for_known_connections() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.order(Command::RaiseFloor(IN, 10));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::TooOld, 1)]);
}

#[test]
fn a_dead_targets_connections_go_and_its_numbers_are_not_accepted_again() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    client.skip(10);
    let last = client.tcp(4000, ACK);
    bench.receive(NETWORK, &last);
    bench.delivered();
    bench.set_targets(&[], &[(0..=u16::MAX, &[1])]);
    bench.order(Command::PurgeTarget(VIP, TargetId(1)));
    (0..50).for_each(|_| bench.pass(1));
    assert!(bench.engine.router.table.is_empty());
    let done = std::iter::from_fn(|| bench.events.pop()).filter(|e| matches!(e, Event::Done { .. })).count();
    assert!(done > 0);
    // The router would process it as an ordinary endpoint now.
    bench.receive(NETWORK, &last);
    assert!(bench.delivered().is_empty());
    bench.only_dropped(&[(DropReason::TooOld, 1)]);
}

fn key(port: u16) -> ConnKey {
    let flow = Flow {
        protocol: 6,
        local: Endpoint::new(addr("10.77.0.100"), 80),
        remote: Endpoint::new(addr("10.99.0.10"), port),
    };
    ConnKey { peer: PeerId(1), flow }
}

#[test]
fn numbers_forwarded_to_a_target_that_died_hold_up_no_new_connection() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    // A copy with a forged number far ahead is forwarded too, and fails at the target.
    let mut forged = client.tcp(4000, ACK);
    forged[26] = 0x20;
    bench.receive(NETWORK, &forged);
    bench.order(Command::PurgeTarget(VIP, TargetId(1)));
    (0..50).for_each(|_| bench.pass(1));
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::BadIcv, 1)]);
}

#[test]
fn nothing_is_forwarded_to_the_next_life_of_a_target_as_long_as_the_last_ones_connections_are_purged() {
    let (mut bench, mut client) = settled();
    let (syn, taken) = (client.tcp(4000, SYN), client.tcp(4000, ACK));
    bench.receive(NETWORK, &syn);
    bench.order(Command::PurgeTarget(VIP, TargetId(1)));
    // The target accepted it before it died and did not tell; it is back with an empty window.
    bench.receive(NETWORK, &taken);
    assert_eq!(bench.delivered().len(), 1);
    bench.pass(1);
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    bench.receive(NETWORK, &client.tcp(4001, ACK));
    assert_eq!(bench.delivered().len(), 2, "its new connections are not held up");
    bench.only_dropped(&[(DropReason::NoTarget, 1)]);
}

#[test]
fn what_a_target_accepted_after_its_notice_of_an_end_is_not_taken_by_the_router() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    // The notice was on its way already when this one was forwarded and accepted.
    let last = client.tcp(4000, ACK);
    bench.receive(NETWORK, &last);
    bench.delivered();
    bench.order(Command::MergeWindow(IN, Box::new(WindowSnapshot { edge: 1, floor: 0, words: vec![0b10] })));
    bench.order(Command::EndConn(VIP, key(4000), TargetId(1)));
    bench.receive(NETWORK, &last);
    assert!(bench.delivered().is_empty());
    // The same client begins again with the same port: what is older is not of this connection.
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(NETWORK, &last);
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::TooOld, 1), (DropReason::UnknownConnection, 1)]);
}

#[test]
fn a_syn_of_an_established_connection_begins_no_other_one_when_it_is_over() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.order(Command::Confirm(VIP, key(4000), TargetId(1)));
    let again = client.tcp(4000, SYN);
    bench.receive(NETWORK, &again);
    bench.order(Command::EndConn(VIP, key(4000), TargetId(1)));
    bench.delivered();
    bench.receive(NETWORK, &again);
    assert!(bench.delivered().is_empty() && bench.engine.router.table.is_empty());
    bench.only_dropped(&[(DropReason::Replay, 1)]);
}

#[test]
fn a_target_speaks_for_its_own_connections_only() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    for order in [
        Command::Confirm(VIP, key(4000), TargetId(2)),
        Command::RestoreConn(VIP, key(4000), TargetId(2)),
        Command::EndConn(VIP, key(4000), TargetId(2)),
    ] {
        bench.order(order);
    }
    let conn = bench.engine.router.table.lookup(&key(4000)).unwrap();
    assert_eq!((conn.target, conn.state), (TargetId(1), ConnState::HalfOpen));
}

#[test]
fn what_targets_may_have_accepted_before_a_restart_is_refused_and_new_connections_are_not() {
    let (mut bench, mut client) = settled();
    bench.order(Command::RaiseLate(IN, 10));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    client.skip(10);
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::TooOld, 1)]);
}

#[test]
fn the_routers_own_connections_go_on_whatever_targets_may_have_accepted() {
    let (mut bench, mut client) = settled();
    bench.set_targets(&SELF, &[(443..=443, &[1])]);
    bench.order(Command::RaiseLate(IN, 60_000));
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!((bench.delivered().len(), bench.engine.router.table.len()), (2, 0));
    bench.only_dropped(&[]);
}

#[test]
fn a_durable_ceiling_far_ahead_leaves_known_connections_alone() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.order(Command::RaiseFloor(IN, 60_000));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[]);
}

#[test]
fn what_a_returned_target_does_not_tell_of_is_over_and_the_rest_goes_on() {
    let (mut bench, mut client) = settled();
    for port in [4000, 4001] {
        bench.receive(NETWORK, &client.tcp(port, SYN));
    }
    bench.pass(5);
    let back = bench.start + Duration::from_millis(bench.now.ms());
    bench.order(Command::RestoreConn(VIP, key(4001), TargetId(1)));
    bench.order(Command::PurgeStale(VIP, TargetId(1), back));
    (0..50).for_each(|_| bench.pass(1));
    assert_eq!(bench.engine.router.table.lookup(&key(4000)), None);
    assert!(bench.engine.router.table.lookup(&key(4001)).is_some());
}

#[test]
fn numbers_that_a_target_reports_are_refused_by_the_router() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    let (a, b) = (client.tcp(4000, ACK), client.tcp(4000, ACK));
    let snapshot = WindowSnapshot { edge: 2, floor: 0, words: vec![0b100] };
    bench.order(Command::MergeWindow(IN, Box::new(snapshot)));
    bench.receive(NETWORK, &a);
    bench.receive(NETWORK, &b);
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::Replay, 1)]);
}

#[test]
fn clear_packets_to_a_vip_end_at_the_router_unless_a_filter_permits_them() {
    let (mut bench, _) = settled();
    let syn = segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN);
    bench.receive(NETWORK, &syn);
    assert!(bench.delivered().is_empty());
    bench.only_dropped(&[(DropReason::ClearToVip, 1)]);
    let selectors = Selectors::between(Prefix::host(addr("10.77.0.100")), Prefix::ANY_V4);
    let filter = Filter { vip: VIP, selectors, action: Action::Permit, log: false };
    bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
    bench.receive(NETWORK, &syn);
    assert_eq!(bench.delivered(), [syn]);
}

#[test]
fn an_inner_packet_outside_its_tunnel_is_dropped() {
    let (mut bench, mut client) = settled();
    let packet = segment("10.98.0.10", 4000, "10.77.0.100", 80, SYN);
    // The client's own check would not let it out: seal it as a packet of the right tunnel and change the address.
    client.out = {
        let mut params = SaParams::clone(client.out.params());
        params.selectors = Selectors::between(Prefix::ANY_V4, Prefix::ANY_V4);
        OutboundSa::new(params).unwrap()
    };
    bench.receive(NETWORK, &client.seal(&packet));
    assert!(bench.engine.router.table.is_empty());
    bench.only_dropped(&[(DropReason::WrongTunnel, 1)]);
}

#[test]
fn no_new_connection_comes_in_while_draining() {
    let (mut bench, mut client) = settled();
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.order(Command::Drain);
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::NoTarget, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// I2, I5: whatever an attacker makes of captured packets, each inner packet is delivered at most once and in
    /// the end every genuine one was.
    #[test]
    fn nothing_is_delivered_twice_and_nothing_genuine_is_lost(
        noise in prop::collection::vec((0usize..24, 0usize..80, any::<u8>(), any::<bool>()), 0..120)
    ) {
        let (mut bench, mut client) = settled();
        let genuine: Vec<Vec<u8>> =
            (0..24).map(|at| client.tcp(4000 + at / 3, if at % 3 == 0 { SYN } else { ACK })).collect();
        let mut noise = noise.into_iter();
        for (at, packet) in genuine.iter().enumerate() {
            for (which, offset, bits, whole) in noise.by_ref().take(5) {
                let mut copy = genuine[which].clone();
                // A whole copy may come early, in the genuine packet's place, so only of what was sent.
                if whole && which < at {
                    bench.receive(NETWORK, &copy);
                } else if bits != 0 && offset != 8 && !(1..8).contains(&offset) {
                    let offset = offset.min(copy.len() - 1);
                    copy[offset] ^= bits;
                    bench.receive(NETWORK, &copy);
                }
            }
            bench.receive(NETWORK, packet);
        }
        prop_assert_eq!(bench.delivered().len(), 24);
        prop_assert_eq!(bench.engine.router.table.len(), 8);
    }
}

#[test]
fn what_is_still_above_a_raised_ceiling_goes_on_waiting_and_is_not_forgotten() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.set_vip(Some(CoreId(0)));
    bench.add_sas();
    bench.order(Command::Settled(VIP));
    let ping = inner("10.99.0.10", "10.77.0.100", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    (0..60).for_each(|_| bench.receive(NETWORK, &client.seal(&ping)));
    bench.order(Command::Ceiling(IN, 10));
    assert_eq!((bench.delivered().len(), bench.engine.router.held.held()), (10, 50));
    bench.order(Command::Ceiling(IN, 40));
    assert_eq!((bench.delivered().len(), bench.engine.router.held.held()), (30, 20));
    (0..1100).for_each(|_| bench.pass(1));
    assert_eq!(bench.engine.router.held.held(), 0);
    bench.only_dropped(&[(DropReason::CeilingWait, 20)]);
}
