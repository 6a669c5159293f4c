//! The life of IKE and CHILD_SAs between two endpoints on a good network.

mod common;

use common::*;
use phalanx_ike::*;

fn up() -> Bed {
    let mut bed = Bed::with(peer(A, B), peer(B, A));
    bed.initiate(0);
    bed.run(1000);
    bed.is_up(1);
    bed
}

#[test]
fn an_ike_sa_and_its_child_come_up() {
    let bed = up();
    assert!(bed.nodes[0].says("up with 10.77.0.2"), "{}", bed.told());
    assert!(bed.nodes[1].says("the peer began"));
    let [a, b] = [0, 1].map(|n| bed.nodes[n].installed.values().next().unwrap().sa.clone());
    assert!(a.initiator && !b.initiator && a.esn);
    assert_eq!(a.selectors.local, "10.1.0.0/16".parse().unwrap());
}

#[test]
fn a_child_gets_new_keys_from_either_side() {
    for (n, groups) in [(0, vec![]), (1, vec![phalanx_ike::crypto::Group::Ecp256])] {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        for p in [&mut a, &mut b] {
            change(p, |c| c.proposal.groups = groups.clone());
        }
        let mut bed = Bed::with(a, b);
        bed.initiate(0);
        bed.run(1000);
        let old = bed.only_child(n);
        bed.command(n, Command::RekeyChild { child: old });
        bed.run(10_000);
        bed.is_up(1);
        assert_ne!(bed.only_child(n), old);
        assert_eq!(bed.nodes[n].endpoint.counters().children_rekeyed, 1);
    }
}

#[test]
fn both_replace_the_same_child_at_once_and_one_is_left() {
    for seed in 0..8 {
        let mut bed = Bed::seeded(config(peer(A, B)), config(peer(B, A)), seed);
        bed.initiate(0);
        bed.run(1000);
        for n in 0..2 {
            let child = bed.only_child(n);
            bed.command(n, Command::RekeyChild { child });
        }
        bed.run(60_000);
        bed.is_up(1);
    }
}

#[test]
fn the_ike_sa_gets_new_keys_from_either_side_and_keeps_its_children() {
    for n in 0..2 {
        let mut bed = up();
        let (ike, child) = (bed.ike(n), bed.only_child(n));
        bed.command(n, Command::RekeyIke { ike });
        bed.run(5_000);
        bed.is_up(1);
        assert_ne!(bed.ike(n), ike);
        assert_eq!(bed.only_child(n), child);
        // The new one works.
        bed.command(1 - n, Command::RekeyChild { child: bed.only_child(1 - n) });
        bed.run(10_000);
        bed.is_up(1);
    }
}

#[test]
fn both_replace_the_ike_sa_at_once_and_one_is_left() {
    for seed in 0..8 {
        let mut bed = Bed::seeded(config(peer(A, B)), config(peer(B, A)), seed);
        bed.initiate(0);
        bed.run(1000);
        for n in 0..2 {
            let ike = bed.ike(n);
            bed.command(n, Command::RekeyIke { ike });
        }
        bed.run(60_000);
        bed.is_up(1);
    }
}

#[test]
fn a_child_and_the_ike_sa_are_replaced_at_once() {
    for seed in 0..8 {
        let mut bed = Bed::seeded(config(peer(A, B)), config(peer(B, A)), seed);
        bed.initiate(0);
        bed.run(1000);
        let child = bed.only_child(0);
        bed.command(0, Command::RekeyChild { child });
        let ike = bed.ike(1);
        bed.command(1, Command::RekeyIke { ike });
        bed.run(60_000);
        bed.is_up(1);
        assert_ne!(bed.only_child(0), child);
        assert_ne!(bed.ike(1), ike);
    }
}

#[test]
fn everything_ends_when_told_to() {
    for n in 0..2 {
        let mut bed = up();
        bed.command(n, Command::Terminate(Which::Peer("other".to_owned())));
        bed.run(5_000);
        bed.is_down();
        assert!(bed.nodes[n].says("closed: by command") && bed.nodes[1 - n].says("closed: deleted by the peer"));
    }
}

#[test]
fn both_end_it_at_once_and_neither_begins_again() {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    a.start = true;
    b.start = false;
    let mut bed = Bed::with(a, b);
    bed.run(1000);
    bed.is_up(1);
    for n in 0..2 {
        bed.command(n, Command::Terminate(Which::All));
    }
    bed.run(60_000);
    bed.is_down();
}

#[test]
fn both_delete_the_same_child_at_once() {
    let mut bed = up();
    for n in 0..2 {
        let child = bed.only_child(n);
        bed.command(n, Command::Terminate(Which::Child(child)));
    }
    bed.run(500);
    bed.is_up(0);
}

#[test]
fn one_deletes_the_child_that_the_other_replaces() {
    let mut bed = up();
    let child = bed.only_child(0);
    bed.command(0, Command::Terminate(Which::Child(child)));
    let child = bed.only_child(1);
    bed.command(1, Command::RekeyChild { child });
    bed.run(60_000);
    bed.agree();
}

#[test]
fn a_child_that_should_be_there_comes_back_when_the_peer_deletes_it() {
    for n in 0..2 {
        let mut bed = up();
        let child = bed.only_child(n);
        bed.command(n, Command::Terminate(Which::Child(child)));
        bed.run(500);
        bed.is_up(0);
        // The configuration wants it to be there: who did not delete it makes it again.
        bed.run(5_000);
        bed.is_up(1);
    }
}

#[test]
fn soft_limits_ask_for_a_successor_and_hard_limits_end() {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    let life = Lifetime { soft_ms: 10_000, hard_ms: 20_000, jitter_percent: 10, ..Lifetime::default() };
    change(&mut a, |c| c.lifetime = life.clone());
    a.lifetime = Lifetime { soft_ms: 33_000, hard_ms: 50_000, jitter_percent: 10, ..Lifetime::default() };
    change(&mut b, |c| c.start = false);
    let mut bed = Bed::with(a, b);
    bed.initiate(0);
    bed.run(125_000);
    bed.is_up(1);
    let counters = bed.nodes[0].endpoint.counters();
    assert!((12..=14).contains(&counters.children_rekeyed), "{}", counters.children_rekeyed);
    assert!((3..=4).contains(&counters.ike_rekeyed), "{}", counters.ike_rekeyed);
    assert!(!bed.nodes[0].says("hard limit"));
}

#[test]
fn bytes_and_packets_count_as_well() {
    let mut a = peer(A, B);
    change(&mut a, |c| c.lifetime = Lifetime { soft_bytes: 1000, hard_bytes: 2000, ..Lifetime::default() });
    let mut bed = Bed::with(a, peer(B, A));
    bed.initiate(0);
    bed.run(1000);
    let used = |child, bytes| Answer::Used {
        child,
        inbound_bytes: bytes,
        inbound_packets: 3,
        outbound_bytes: 10,
        outbound_packets: 1,
    };
    let first = bed.only_child(0);
    bed.nodes[0].endpoint.answer(bed.now, used(first, 999));
    bed.run(5000);
    assert_eq!(bed.only_child(0), first);
    bed.nodes[0].endpoint.answer(bed.now, used(first, 1000));
    bed.run(5000);
    bed.is_up(1);
    let second = bed.only_child(0);
    assert_ne!(second, first);
    bed.nodes[0].endpoint.answer(bed.now, used(second, 2000));
    bed.collect();
    assert!(!bed.nodes[0].installed.contains_key(&second), "a hard limit stops at once");
    bed.run(5000);
    bed.is_up(1);
    assert!(bed.nodes[0].says("hard limit"));
}

#[test]
fn a_child_that_carried_all_it_may_stops_at_once_though_the_peer_owes_an_answer() {
    let mut bed = Bed::with(peer(A, B), peer(B, A));
    bed.initiate(0);
    bed.run(1000);
    let child = bed.only_child(0);
    bed.weather.lost = 100;
    bed.command(0, Command::RekeyChild { child });
    bed.run(100);
    bed.nodes[0].endpoint.answer(bed.now, Answer::Exhausted { child });
    bed.collect();
    assert!(!bed.nodes[0].installed.contains_key(&child));
    assert!(bed.nodes[0].installed.is_empty());
}

#[test]
fn at_a_high_rate_a_successor_is_asked_for_before_the_soft_limit() {
    let mut a = peer(A, B);
    change(&mut a, |c| c.lifetime = Lifetime { soft_bytes: 900_000, hard_bytes: 1_000_000, ..Lifetime::default() });
    let mut bed = Bed::with(a, peer(B, A));
    bed.initiate(0);
    bed.run(1000);
    let child = bed.only_child(0);
    for second in 1..=6u64 {
        assert_eq!(bed.only_child(0), child, "{second}");
        let outbound_bytes = second * 80_000;
        let used =
            Answer::Used { child, inbound_bytes: 0, inbound_packets: 0, outbound_bytes, outbound_packets: second };
        bed.nodes[0].endpoint.answer(bed.now, used);
        bed.run(1000);
        // 10 s ahead at 80 kB/s
        if outbound_bytes + 800_000 >= 1_000_000 {
            break;
        }
    }
    bed.is_up(1);
    assert_ne!(bed.only_child(0), child);
    assert_eq!(bed.nodes[0].endpoint.counters().children_rekeyed, 1);
}

#[test]
fn packets_from_the_peer_are_a_sign_of_life() {
    let mut a = peer(A, B);
    a.liveness_ms = 5_000;
    let mut bed = Bed::with(a, peer(B, A));
    bed.initiate(0);
    bed.run(1000);
    let (sent, child) = (bed.nodes[0].sent, bed.only_child(0));
    for n in 1..10 {
        let used = Answer::Used { child, inbound_bytes: n, inbound_packets: n, outbound_bytes: 0, outbound_packets: 0 };
        bed.nodes[0].endpoint.answer(bed.now, used);
        bed.run(2_000);
    }
    assert_eq!(bed.nodes[0].sent, sent);
    bed.run(10_000);
    assert!(bed.nodes[0].sent > sent);
}

#[test]
fn the_answer_waits_until_the_child_is_installed() {
    let mut bed = Bed::with(peer(A, B), peer(B, A));
    bed.nodes[1].install = Install::After(300);
    bed.initiate(0);
    bed.run(250);
    assert_eq!(bed.nodes[0].installed.len(), 0);
    bed.run(1000);
    bed.is_up(1);
}

#[test]
fn a_child_that_is_never_installed_is_refused_in_bounded_time() {
    for install in [Install::Refuse, Install::Never] {
        let mut bed = Bed::with(peer(A, B), peer(B, A));
        bed.nodes[1].install = install;
        bed.initiate(0);
        bed.run(5_200);
        bed.agree();
        assert_eq!(bed.nodes[0].installed.len(), 0);
        assert!(bed.nodes[1].says("not installed"), "{}", bed.told());
        bed.nodes[1].install = Install::After(0);
        bed.run(10_000);
        bed.is_up(1);
    }
}

#[test]
fn what_the_initiator_cannot_install_is_deleted() {
    let mut bed = Bed::with(peer(A, B), peer(B, A));
    bed.nodes[0].install = Install::Refuse;
    bed.initiate(0);
    bed.run(5_000);
    bed.agree();
    assert_eq!(bed.nodes[1].installed.len(), 0, "{}", bed.told());
}

#[test]
fn reauthentication_makes_everything_anew_without_a_gap() {
    let mut bed = up();
    let (ike, child) = (bed.ike(0), bed.only_child(0));
    bed.command(0, Command::Reauthenticate { ike });
    bed.run(500);
    assert_eq!(bed.nodes[0].installed.len(), 2);
    bed.run(10_000);
    bed.is_up(1);
    assert_ne!((bed.ike(0), bed.only_child(0)), (ike, child));
}

#[test]
fn a_peer_that_forgot_everything_begins_anew() {
    let mut bed = up();
    let mut a = config(peer(A, B));
    a.retransmission = Retransmission { first_ms: 500, tries: 3 };
    bed.nodes[0] = Node::new(a, 99);
    bed.initiate(0);
    bed.run(5_000);
    bed.is_up(1);
    assert!(bed.nodes[1].says("the peer began anew"), "{}", bed.told());
}

#[test]
fn both_begin_at_once_and_one_ike_sa_is_left() {
    for seed in 0..4 {
        let mut bed = Bed::seeded(config(peer(A, B)), config(peer(B, A)), seed);
        bed.initiate(0);
        bed.initiate(1);
        bed.run(60_000);
        bed.agree();
        assert_eq!(bed.nodes[0].ikes(bed.now).len(), 1, "{}", bed.told());
    }
}

#[test]
fn a_dead_peer_is_noticed_and_begun_with_again() {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    (a.start, a.liveness_ms, b.liveness_ms) = (true, 5_000, 5_000);
    let mut bed = Bed::with(a, b);
    bed.run(30_000);
    bed.is_up(1);
    bed.weather.lost = 100;
    bed.run(60_000);
    assert!(bed.nodes[0].says("does not answer") && bed.nodes[1].says("does not answer"), "{}", bed.told());
    assert_eq!(bed.nodes[0].installed.len() + bed.nodes[1].installed.len(), 0);
    bed.weather.lost = 0;
    bed.run(70_000);
    bed.is_up(1);
}

#[test]
fn a_new_configuration_touches_only_what_changed() {
    let mut bed = up();
    let (ike, child) = (bed.ike(0), bed.only_child(0));
    bed.nodes[0].endpoint.reconfigure(bed.now, config(peer(A, B)));
    bed.run(5_000);
    assert_eq!((bed.ike(0), bed.only_child(0)), (ike, child));
    let mut other = peer(A, B);
    change(&mut other, |c| c.remote = Some("10.2.1.0/24".parse().unwrap()));
    bed.nodes[0].endpoint.reconfigure(bed.now, config(other));
    bed.run(5_000);
    bed.is_up(1);
    assert_eq!(bed.ike(0), ike);
    assert_eq!(bed.nodes[0].installed[&bed.only_child(0)].sa.selectors.remote, "10.2.1.0/24".parse().unwrap());
    bed.nodes[0].endpoint.reconfigure(bed.now, Config::default());
    bed.run(5_000);
    bed.is_down();
}

#[test]
fn what_a_successor_of_this_router_needs_to_know_can_be_told() {
    let mut bed = up();
    bed.record = true;
    let ike = bed.ike(0);
    bed.command(0, Command::Probe { ike });
    let state = bed.nodes[0].endpoint.exchange_state(ike).unwrap();
    bed.run(1000);
    assert_eq!(state.request, [bed.wire[0].1.clone()], "the request that waits for its answer");
    let there = bed.nodes[1].endpoint.exchange_state(bed.ike(1)).unwrap();
    assert_eq!(there.answer, [bed.wire[1].1.clone()], "the answer that may have to be sent again");
    assert_eq!((there.next_request, there.expected_request), (0, state.next_request + 1));
}

#[test]
fn an_ike_sa_ends_when_its_algorithms_are_not_configured_any_more() {
    let mut bed = up();
    let mut other = peer(B, A);
    other.proposal.groups = vec![phalanx_ike::crypto::Group::Ecp384];
    bed.nodes[1].endpoint.reconfigure(bed.now, config(other));
    bed.run(5_000);
    bed.is_down();
    assert!(bed.nodes[1].says("not in the configuration any more"), "{}", bed.told());
}
