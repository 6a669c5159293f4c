//! From the application to the network.

use super::*;

const ACK: u8 = TcpFlags::ACK;

fn serving() -> (Bench, Client) {
    let mut bench = Bench::new(11);
    bench.set_vip(None);
    bench.add_sas();
    (bench, Client::new())
}

#[test]
fn an_answer_waits_for_numbers_and_next_hop_and_reaches_the_client_sealed() {
    let (mut bench, mut client) = serving();
    bench.receive(APPLICATION, &answer(4000, ACK));
    assert!(bench.sent(NETWORK).is_empty());
    let events = bench.events();
    assert!(matches!(events[..], [Event::LeaseWanted { sa: OUT, want: 1.., done_below: 0, .. }]), "{events:?}");
    bench.lease(100, 8);
    let packets = bench.client_receives();
    assert_eq!(packets.len(), 1);
    assert_eq!(client.open(&packets[0]).unwrap(), answer(4000, ACK));
    assert_eq!(client.inbound.window.edge(), 100);
    bench.only_dropped(&[]);
}

#[test]
fn packets_keep_their_order_and_numbers_go_up_by_one() {
    let (mut bench, mut client) = serving();
    bench.lease(1, 10);
    for port in 0..10 {
        bench.receive(APPLICATION, &answer(4000 + port, ACK));
    }
    bench.receive(APPLICATION, &answer(4010, ACK)); // waits
    bench.lease(20, 10);
    bench.receive(APPLICATION, &answer(4011, ACK));
    let opened: Vec<_> = bench.client_receives().iter().map(|packet| client.open(packet).unwrap()).collect();
    assert_eq!(opened, (0..12).map(|port| answer(4000 + port, ACK)).collect::<Vec<_>>());
    assert_eq!(client.inbound.window.edge(), 21);
}

#[test]
fn numbers_past_their_time_are_never_used() {
    let (mut bench, _) = serving();
    bench.lease(1, 10);
    bench.pass(100);
    bench.receive(APPLICATION, &answer(4000, ACK));
    assert!(bench.sent(NETWORK).is_empty());
    assert!(matches!(bench.events()[..], [Event::LeaseWanted { done_below: 11, .. }]));
}

#[test]
fn what_waits_is_bounded_and_given_up_after_a_while() {
    let (mut bench, _) = serving();
    for port in 0..70 {
        bench.receive(APPLICATION, &answer(4000 + port, ACK));
    }
    bench.only_dropped(&[(DropReason::LeaseWaitFull, 6)]);
    let asked = |bench: &mut Bench| bench.events().iter().filter(|e| matches!(e, Event::LeaseWanted { .. })).count();
    assert_eq!(asked(&mut bench), 1, "one request is under way");
    (0..100).for_each(|_| bench.pass(1));
    assert!(asked(&mut bench) >= 1, "repeated");
    (0..700).for_each(|_| bench.pass(1));
    bench.only_dropped(&[(DropReason::NoLease, 64), (DropReason::LeaseWaitFull, 6)]);
}

#[test]
fn only_a_served_vip_may_be_the_source_and_noise_is_told_apart() {
    let (mut bench, _) = serving();
    bench.receive(APPLICATION, &segment("10.77.0.11", 80, "10.99.0.10", 4000, ACK));
    bench.receive(APPLICATION, &inner("0.0.0.0", "224.0.0.1", protocol::UDP, &[0; 8]));
    bench.receive_frame(
        APPLICATION,
        &arp::request_frame(CLIENT_MAC, "10.77.0.100".parse().unwrap(), "10.77.0.1".parse().unwrap()),
    );
    bench.only_dropped(&[(DropReason::NotForUs, 2), (DropReason::SpoofedVip, 1)]);
}

#[test]
fn nothing_leaves_in_clear_without_a_filter_that_says_so() {
    let (mut bench, _) = serving();
    bench.receive(APPLICATION, &segment("10.77.0.100", 80, "192.0.2.1", 4000, ACK));
    bench.order(Command::RemoveSa(OUT));
    bench.receive(APPLICATION, &answer(4000, ACK));
    assert!(bench.sent(NETWORK).is_empty());
    bench.only_dropped(&[(DropReason::NoFilter, 1), (DropReason::NoSa, 1)]);
}

#[test]
fn a_hard_lifesize_is_not_exceeded_by_a_byte() {
    let (mut bench, _) = serving();
    bench.order(Command::RemoveSa(OUT));
    let mut params = sa(OUT, Direction::Outbound);
    params.lifesize = Lifesize { soft: 80, hard: 100 };
    bench.order(Command::AddOutbound(Box::new(OutboundSa::new(params).unwrap())));
    bench.lease(1, 10);
    for port in 0..4 {
        bench.receive(APPLICATION, &answer(4000 + port, ACK)); // 40 bytes, 44 with trailer
    }
    assert_eq!(bench.client_receives().len(), 2);
    bench.only_dropped(&[(DropReason::HardLifesize, 2)]);
}

#[test]
fn removing_an_sa_drops_what_waits_for_it() {
    let (mut bench, _) = serving();
    bench.receive(APPLICATION, &answer(4000, ACK));
    bench.order(Command::RemoveSa(OUT));
    bench.only_dropped(&[(DropReason::NoSa, 1)]);
    assert_eq!(bench.engine.outbound.held.held(), 0);
}
