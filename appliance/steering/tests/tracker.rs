//! The tracker against the ways a TCP connection can go.

mod common;

use common::{ACK, FIN, RST, SYN, key, segment};
use phalanx_steering::{ConnEvent, ConnKey, ConnState, Cursor, Progress, Ruling, Tracker, TrackerLimits};
use proptest::prelude::*;
use std::collections::HashMap;

const HOUR: u64 = 3_600_000;

fn tracker(connections: usize) -> Tracker {
    let limits = TrackerLimits { connections, ..TrackerLimits::default() };
    Tracker::new(limits, [3, 4]).expect("limits are good")
}

/// A tracker and one connection in it, with a clock that moves a millisecond per packet.
struct Talk {
    tracker: Tracker,
    key: ConnKey,
    now: u64,
}

impl Talk {
    fn new() -> Self {
        Talk { tracker: tracker(100), key: key(1, 1), now: 0 }
    }

    fn peer(&mut self, flags: u8, seq: u32, ack: u32, payload: usize) -> Option<ConnEvent> {
        self.now += 1;
        self.tracker.inbound(&self.key, &segment(flags, seq, ack), payload, self.now)
    }

    fn us(&mut self, flags: u8, seq: u32, ack: u32, payload: usize) -> Option<ConnEvent> {
        self.now += 1;
        self.tracker.outbound(&self.key, &segment(flags, seq, ack), payload, self.now)
    }

    fn opened() -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.peer(SYN, 1000, 0, 0), None);
        assert_eq!(talk.us(SYN | ACK, 5000, 1001, 0), None);
        assert_eq!(talk.peer(ACK, 1001, 5001, 0), Some(ConnEvent::Opened));
        talk
    }

    fn sweep_at(&mut self, now: u64) -> Vec<(ConnKey, ConnEvent)> {
        self.now = now;
        let mut out = Vec::new();
        assert_eq!(self.tracker.sweep(now, 100, |key, event| out.push((key, event))), Progress::Done);
        out
    }

    fn state(&self) -> Option<ConnState> {
        self.tracker.state(&self.key)
    }
}

#[test]
fn a_connection_opens_once_the_handshake_is_complete_and_only_once() {
    let mut talk = Talk::opened();
    assert_eq!(talk.state(), Some(ConnState::Established));
    assert_eq!(talk.peer(ACK, 1001, 5001, 100), None);
    assert_eq!(talk.us(ACK, 5001, 1101, 1000), None);
}

#[test]
fn an_acknowledgement_of_something_else_does_not_open() {
    let mut talk = Talk::new();
    assert_eq!(talk.peer(SYN, u32::MAX, 0, 0), None);
    assert_eq!(talk.us(SYN | ACK, u32::MAX, 0, 0), None);
    assert_eq!(talk.peer(ACK, 0, u32::MAX - 5, 0), None);
    assert_eq!(talk.state(), Some(ConnState::HalfOpen));
    assert_eq!(talk.peer(ACK, 0, 0, 0), Some(ConnEvent::Opened), "numbers wrap");
}

#[test]
fn a_lost_last_ack_of_the_handshake_is_made_up_for_by_the_first_data() {
    let mut talk = Talk::new();
    talk.peer(SYN, 1000, 0, 0);
    talk.peer(SYN, 1000, 0, 0);
    talk.us(SYN | ACK, 5000, 1001, 0);
    talk.us(SYN | ACK, 5000, 1001, 0);
    assert_eq!(talk.peer(ACK, 1001, 5001, 77), Some(ConnEvent::Opened));
}

#[test]
fn a_close_from_either_side_is_reported_when_both_fins_are_acknowledged() {
    let mut talk = Talk::opened();
    assert_eq!(talk.peer(FIN | ACK, 1001, 5001, 10), None);
    assert_eq!(talk.us(ACK, 5001, 1012, 0), None);
    assert_eq!(talk.us(ACK, 5001, 1012, 500), None, "the other half is open still");
    assert_eq!(talk.us(FIN | ACK, 5501, 1012, 0), None);
    assert_eq!(talk.peer(ACK, 1012, 5501, 0), None, "acknowledges the data, not the FIN");
    assert_eq!(talk.peer(ACK, 1012, 5502, 0), Some(ConnEvent::Closed));
    assert_eq!(talk.state(), None);
}

#[test]
fn what_acknowledged_the_first_fin_need_not_come_again_with_the_second() {
    let mut talk = Talk::opened();
    assert_eq!(talk.peer(FIN | ACK, 1001, 5001, 0), None);
    assert_eq!(talk.us(ACK, 5001, 1002, 0), None);
    assert_eq!(talk.us(FIN, 5001, 0, 0), None);
    assert_eq!(talk.peer(ACK, 1002, 5002, 0), Some(ConnEvent::Closed));
}

#[test]
fn a_simultaneous_close_is_reported_once() {
    let mut talk = Talk::opened();
    assert_eq!(talk.us(FIN | ACK, 5001, 1001, 0), None);
    assert_eq!(talk.peer(FIN | ACK, 1001, 5001, 0), None);
    assert_eq!(talk.us(ACK, 5002, 1002, 0), None);
    assert_eq!(talk.peer(ACK, 1002, 5002, 0), Some(ConnEvent::Closed));
    assert_eq!(talk.peer(ACK, 1002, 5002, 0), None);
}

#[test]
fn a_reset_from_either_side_closes_at_once() {
    let mut talk = Talk::opened();
    assert_eq!(talk.peer(RST, 1001, 0, 0), Some(ConnEvent::Closed));
    assert_eq!(talk.us(RST, 5001, 0, 0), None);
    let mut talk = Talk::opened();
    assert_eq!(talk.us(RST | ACK, 5001, 1001, 0), Some(ConnEvent::Closed));
    let mut refused = Talk::new();
    refused.peer(SYN, 1000, 0, 0);
    assert_eq!(refused.us(RST | ACK, 0, 1001, 0), Some(ConnEvent::Closed), "nobody listens");
}

#[test]
fn late_packets_of_a_closed_connection_do_not_open_it_again_but_a_new_syn_does() {
    let mut talk = Talk::opened();
    talk.peer(RST, 1001, 0, 0);
    for flags in [ACK, FIN | ACK, SYN | ACK, RST] {
        assert_eq!(talk.peer(flags, 1001, 5001, 0), None);
        assert_eq!(talk.us(flags, 5001, 1001, 0), None);
        assert_eq!(talk.state(), None);
    }
    assert_eq!(talk.peer(SYN, 9000, 0, 0), None);
    assert_eq!(talk.state(), Some(ConnState::HalfOpen));
    talk.us(SYN | ACK, 7000, 9001, 0);
    assert_eq!(talk.peer(ACK, 9001, 7001, 0), Some(ConnEvent::Opened));
}

#[test]
fn packets_of_unknown_connections_make_no_entry() {
    let mut talk = Talk::new();
    for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | FIN, SYN | RST, 0] {
        assert_eq!(talk.us(flags, 1, 1, 0), None);
        assert_eq!(talk.peer(flags, 1, 1, 0), None);
    }
    assert_eq!(talk.tracker.len(), 0);
}

#[test]
fn a_handshake_has_ten_seconds_from_its_first_syn() {
    let mut talk = Talk::new();
    talk.peer(SYN, 1000, 0, 0);
    assert_eq!(talk.sweep_at(5_000), []);
    talk.peer(SYN, 1000, 0, 0);
    talk.us(SYN | ACK, 5000, 1001, 0);
    assert_eq!(talk.sweep_at(10_000), []);
    assert_eq!(talk.sweep_at(10_001), [(talk.key, ConnEvent::Closed)]);
    assert_eq!(talk.peer(ACK, 1001, 5001, 0), None, "too late");
    assert_eq!(talk.state(), None);
}

#[test]
fn silence_of_two_hours_closes_and_packets_of_either_side_are_not_silence() {
    let mut talk = Talk::opened();
    for hour in 1..10 {
        assert_eq!(talk.sweep_at(hour * HOUR), []);
        match hour % 2 {
            0 => assert_eq!(talk.us(ACK, 5001, 1001, 0), None),
            _ => assert_eq!(talk.peer(ACK, 1001, 5001, 0), None),
        }
    }
    assert_eq!(talk.sweep_at(10 * HOUR), []);
    assert_eq!(talk.sweep_at(11 * HOUR + 10), [(talk.key, ConnEvent::Closed)]);
}

#[test]
fn a_half_closed_connection_may_be_as_silent_as_an_open_one_but_a_last_ack_may_not() {
    let mut talk = Talk::opened();
    talk.peer(FIN | ACK, 1001, 5001, 0);
    talk.us(ACK, 5001, 1002, 0);
    assert_eq!(talk.sweep_at(HOUR), []);
    talk.us(FIN | ACK, 5001, 1002, 0);
    assert_eq!(talk.sweep_at(HOUR + 59_000), []);
    assert_eq!(talk.sweep_at(HOUR + 60_001), [(talk.key, ConnEvent::Closed)]);
}

#[test]
fn a_restored_connection_is_established_and_expires_and_closes_as_any_other() {
    let mut talk = Talk::new();
    assert!(talk.tracker.restore(&talk.key, 0));
    assert_eq!(talk.state(), Some(ConnState::Established));
    assert_eq!(talk.peer(ACK, 77, 88, 0), None, "not opened again");
    assert_eq!(talk.sweep_at(2 * HOUR - 1), []);
    talk.us(FIN | ACK, 88, 77, 0);
    talk.peer(FIN | ACK, 77, 89, 0);
    assert_eq!(talk.us(ACK, 89, 78, 0), Some(ConnEvent::Closed));
    assert!(talk.tracker.restore(&key(1, 9), talk.now));
    let end = talk.now + 2 * HOUR;
    assert_eq!(talk.sweep_at(end), [(key(1, 9), ConnEvent::Closed)]);
}

#[test]
fn our_side_may_open_too() {
    let mut talk = Talk::new();
    assert_eq!(talk.us(SYN, 1000, 0, 0), None);
    assert_eq!(talk.peer(SYN | ACK, 5000, 1001, 0), None);
    assert_eq!(talk.us(ACK, 1001, 5001, 0), Some(ConnEvent::Opened));
}

#[test]
fn a_full_tracker_refuses_the_new_keeps_the_old_and_forgets_what_lingers() {
    let mut tracker = tracker(10);
    let syn = segment(SYN, 1, 0);
    for n in 0..10 {
        assert_eq!(tracker.inbound(&key(1, n), &syn, 0, 0), None);
    }
    assert_eq!(tracker.inbound(&key(1, 10), &syn, 0, 0), Some(ConnEvent::Refused));
    assert_eq!(tracker.len(), 10);
    assert_eq!(tracker.inbound(&key(1, 3), &segment(RST, 2, 0), 0, 0), Some(ConnEvent::Closed));
    assert_eq!(tracker.inbound(&key(1, 10), &syn, 0, 0), None);
    assert_eq!(tracker.inbound(&key(1, 3), &syn, 0, 0), Some(ConnEvent::Refused));
}

#[test]
fn a_sweep_does_no_more_than_it_may() {
    let mut tracker = tracker(100);
    for n in 0..100 {
        tracker.inbound(&key(1, n), &segment(SYN, 1, 0), 0, 0);
    }
    let mut closed = 0;
    for round in 1..10 {
        assert_eq!(tracker.sweep(20_000, 10, |_, _| closed += 1), Progress::More);
        assert_eq!(closed, round * 10);
    }
    assert_eq!(tracker.sweep(20_000, 10, |_, _| closed += 1), Progress::Done);
    assert_eq!((closed, tracker.len()), (100, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// Whatever comes: opened is said at most once before closed, closed exactly once per opened or begun connection,
    /// and what a scan shows is what has begun and not closed.
    #[test]
    fn events_of_any_packets_alternate_and_the_scan_agrees_with_them(
        packets in prop::collection::vec((0u32..6, any::<bool>(), 0u8..32, 0u32..3, 0u32..4, 0u64..6_000), 1..200)
    ) {
        let (mut tracker, mut now) = (tracker(4), 0);
        let mut model = HashMap::<ConnKey, ConnState>::new();
        for (n, inbound, flags, seq, ack, wait) in packets {
            now += wait;
            let mut swept = Vec::new();
            let _ = tracker.sweep(now, 3, |key, event| swept.push((key, event)));
            for (key, event) in swept {
                prop_assert_eq!(event, ConnEvent::Closed);
                prop_assert!(model.remove(&key).is_some());
            }
            let (key, tcp) = (key(1, n), segment(flags, seq, ack));
            let begins = tcp.flags.opens() && !model.contains_key(&key);
            let event = match inbound {
                true => tracker.inbound(&key, &tcp, 0, now),
                false => tracker.outbound(&key, &tcp, 0, now),
            };
            match event {
                Some(ConnEvent::Opened) => prop_assert_eq!(model.insert(key, ConnState::Established), Some(ConnState::HalfOpen)),
                Some(ConnEvent::Closed) => prop_assert!(model.remove(&key).is_some()),
                Some(ConnEvent::Refused) => prop_assert!(begins && model.len() == 4),
                None if begins => prop_assert!(model.insert(key, ConnState::HalfOpen).is_none()),
                None => {}
            }
            let (mut cursor, mut seen) = (Cursor::default(), HashMap::new());
            while tracker.scan(&mut cursor, 3, |key, state| { seen.insert(key, state); }) == Progress::More {}
            prop_assert_eq!(&seen, &model);
            prop_assert_eq!(tracker.len(), model.len());
        }
    }
}

fn flow(n: u32) -> ConnKey {
    let mut key = key(1, n);
    key.flow.protocol = 17;
    key
}

#[test]
fn a_udp_flow_is_established_when_both_sides_have_sent_and_over_when_it_is_silent() {
    let mut tracker = tracker(100);
    assert_eq!(tracker.datagram_out(&flow(1), 0), None);
    assert!(tracker.is_empty(), "what we send of an unknown flow begins nothing");
    assert_eq!(tracker.datagram_in(&flow(1), 0), None);
    assert_eq!(tracker.state(&flow(1)), Some(ConnState::HalfOpen));
    assert_eq!(tracker.datagram_out(&flow(1), 10), Some(ConnEvent::Opened));
    assert_eq!(tracker.datagram_out(&flow(1), 20), None, "once");
    assert_eq!(tracker.datagram_in(&flow(1), 100_000), None);
    assert!(tracker.restore(&flow(2), 100_000), "one that moved here is as any other");
    let mut over = Vec::new();
    assert_eq!(tracker.sweep(279_999, 10, |key, event| over.push((key, event))), Progress::Done);
    assert!(over.is_empty());
    assert_eq!(tracker.sweep(280_000, 10, |key, event| over.push((key, event))), Progress::Done);
    assert_eq!(over, [1, 2].map(|n| (flow(n), ConnEvent::Closed)));
    assert!(tracker.is_empty());
}

#[test]
fn a_udp_flow_that_nobody_answers_lasts_if_the_peer_goes_on_and_ends_if_not() {
    let mut tracker = tracker(100);
    for n in [1, 2] {
        assert_eq!(tracker.datagram_in(&flow(n), 0), None);
        assert_eq!(tracker.datagram_in(&flow(n), 4_999), None);
    }
    assert_eq!(tracker.datagram_in(&flow(2), 5_000), Some(ConnEvent::Opened));
    let mut over = Vec::new();
    assert_eq!(tracker.sweep(10_000, 10, |key, _| over.push(key)), Progress::Done);
    assert_eq!(over, [flow(1)]);
    assert_eq!(tracker.state(&flow(2)), Some(ConnState::Established));
}

#[test]
fn a_udp_flow_that_finds_no_room_is_refused() {
    let mut tracker = tracker(8);
    let mut n = 0;
    while tracker.len() < tracker.capacity() {
        assert_eq!(tracker.datagram_in(&flow(n), 0), None);
        n += 1;
    }
    assert_eq!(tracker.datagram_in(&flow(n), 0), Some(ConnEvent::Refused));
}

#[test]
fn a_late_datagram_of_a_flow_that_is_over_begins_none_and_a_later_one_does() {
    let mut tracker = tracker(100);
    tracker.datagram_in(&flow(1), 0);
    tracker.datagram_out(&flow(1), 0);
    assert_eq!(tracker.sweep(180_000, 10, |_, _| ()), Progress::Done);
    assert_eq!(tracker.datagram_in(&flow(1), 180_999), None);
    assert_eq!(tracker.datagram_out(&flow(1), 180_999), None);
    assert_eq!(tracker.state(&flow(1)), None);
    tracker.datagram_in(&flow(1), 181_000);
    assert_eq!(tracker.state(&flow(1)), Some(ConnState::HalfOpen));
    let mut over = 0;
    assert_eq!(tracker.sweep(191_000, 10, |_, _| over += 1), Progress::Done);
    assert_eq!(over, 1);
    assert_eq!(tracker.sweep(196_000, 10, |_, _| over += 1), Progress::Done);
    assert_eq!((over, tracker.is_empty()), (1, true), "told once");
}

#[test]
fn what_rules_said_is_remembered_only_while_a_connection_is_established() {
    let said = Ruling::new(7, 1);
    let mut talk = Talk::new();
    assert_eq!(talk.tracker.ruling(talk.tracker.find(&talk.key)), Ruling::default(), "of no connection nothing is");
    talk.peer(SYN, 1000, 0, 0);
    talk.tracker.rule(talk.tracker.find(&talk.key), said);
    assert_eq!(talk.tracker.ruling(talk.tracker.find(&talk.key)), Ruling::default(), "half-open");
    talk.us(SYN | ACK, 5000, 1001, 0);
    talk.peer(ACK, 1001, 5001, 0);
    talk.tracker.rule(talk.tracker.find(&talk.key), said);
    assert_eq!(talk.tracker.ruling(talk.tracker.find(&talk.key)), said);
    talk.peer(RST, 1001, 5001, 0);
    talk.peer(SYN, 9000, 0, 0);
    assert_eq!(
        talk.tracker.ruling(talk.tracker.find(&talk.key)),
        Ruling::default(),
        "the next connection of this name"
    );
}

#[test]
fn other_words_are_other_rulings() {
    assert_ne!(Ruling::new(7, 1), Ruling::new(7, 2));
    assert_ne!(Ruling::new(7, 1), Ruling::new(8, 1));
    assert_ne!(Ruling::new(0, 0), Ruling::default(), "nothing is no ruling");
}

#[test]
fn what_was_sought_is_found_as_by_its_key() {
    let mut tracker = tracker(100);
    for port in 1..50 {
        tracker.inbound(&key(1, port), &segment(SYN, 1, 0), 0, 0);
    }
    for port in 1..60 {
        let sought = tracker.seek(&key(1, port));
        tracker.entry_ahead(&sought);
        let (sought, plain) = (tracker.find_sought(&sought), tracker.find(&key(1, port)));
        assert_eq!(format!("{sought:?}"), format!("{plain:?}"), "port {port}");
    }
}

#[test]
fn what_ended_and_what_took_its_place_since_it_was_sought_are_not_mistaken_for_it() {
    let mut tracker = tracker(100);
    let open = |tracker: &mut Tracker, port| _ = tracker.inbound(&key(1, port), &segment(SYN, 1, 0), 0, 0);
    for port in 1..100 {
        open(&mut tracker, port);
        let sought = tracker.seek(&key(1, port));
        tracker.entry_ahead(&sought);
        assert!(tracker.forget_connection(&key(1, port)));
        for other in 1000 + 50 * port..1040 + 50 * port {
            assert_eq!(format!("{:?}", tracker.find_sought(&sought)), "Found(None)", "port {port}");
            open(&mut tracker, other);
        }
        open(&mut tracker, port);
        assert_eq!(format!("{:?}", tracker.find_sought(&sought)), format!("{:?}", tracker.find(&key(1, port))));
        (1000 + 50 * port..1040 + 50 * port)
            .chain([port])
            .for_each(|port| _ = tracker.forget_connection(&key(1, port)));
    }
}
