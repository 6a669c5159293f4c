//! Connections that the application opens (R20): the first packet, the router's entry, the answer.

use super::*;
use crate::command::{Outcome, Refused};
use phalanx_steering::ConnKey;
use proptest::prelude::*;

const ACK: u8 = TcpFlags::ACK;
const SYN: u8 = TcpFlags::SYN;
const PORT: u16 = 40_000;

/// A router that is a target too, with numbers for an hour.
fn bench() -> Bench {
    let mut bench = Bench::new(1);
    bench.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
    let expires = bench.start + Duration::from_secs(3600);
    bench.order(Command::Lease { sa: OUT, lease: Lease::from_wire(1, 1 << 20), expires });
    bench
}

/// From a port of the VIP to the client's port 8000.
fn out(port: u16, flags: u8) -> Vec<u8> {
    segment("10.77.0.100", port, "10.99.0.10", 8000, flags)
}

/// The client's answer.
fn back(client: &mut Client, port: u16, flags: u8) -> Vec<u8> {
    client.seal(&segment("10.99.0.10", 8000, "10.77.0.100", port, flags))
}

/// The connections that the core asked about.
fn wanted(bench: &mut Bench) -> Vec<ConnKey> {
    let key = |event| if let Event::ConnWanted { key, sa: OUT, .. } = event { Some(key) } else { None };
    bench.events().into_iter().filter_map(key).collect()
}

/// What the router's core makes of it.
fn open(bench: &mut Bench, key: ConnKey, target: u16) -> Result<Outcome, Refused> {
    bench.order(Command::OpenConn { key, target: TargetId(target), inbound: Some(IN) });
    let done = |event| if let Event::Done { result, .. } = event { Some(result) } else { None };
    std::iter::from_fn(|| bench.events.pop()).filter_map(done).last().expect("an answer")
}

#[test]
fn the_first_packet_waits_until_the_router_has_the_entry_and_the_answer_finds_its_target() {
    let (mut bench, mut client) = (bench(), Client::new());
    bench.receive(APPLICATION, &out(PORT, SYN));
    let [key] = wanted(&mut bench)[..] else { panic!("asked once") };
    assert_eq!(key.flow.local.port, PORT);
    assert_eq!((bench.client_receives().len(), bench.stats.stage(Stage::HeldForConnection)), (0, 1));
    assert_eq!(open(&mut bench, key, 1), Ok(Outcome::Applied));
    assert!(bench.client_receives().is_empty(), "not before it is told");
    bench.order(Command::ConnAnswer(key, None));
    assert_eq!(bench.client_receives().len(), 1);
    // Said again, as the answer is late: its entry is there, nobody is asked.
    bench.receive(APPLICATION, &out(PORT, SYN));
    assert_eq!((bench.client_receives().len(), wanted(&mut bench).len()), (1, 0));
    bench.receive(NETWORK, &back(&mut client, PORT, SYN | ACK));
    bench.receive(APPLICATION, &out(PORT, ACK));
    assert_eq!((bench.delivered().len(), bench.client_receives().len()), (1, 1));
    assert_eq!((bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::RouterLocal)), (1, 0));
    let opened = |event: &Event| matches!(event, Event::ConnOpened { key: of, .. } if *of == key);
    assert!(bench.events().iter().any(opened), "a connection as any other from now on");
    bench.only_dropped(&[]);
}

#[test]
fn two_targets_cannot_have_the_same_ports() {
    let mut bench = bench();
    bench.receive(APPLICATION, &out(PORT, SYN));
    let [key] = wanted(&mut bench)[..] else { panic!("asked once") };
    assert_eq!(open(&mut bench, key, 2), Ok(Outcome::Applied));
    assert_eq!(open(&mut bench, key, 2), Ok(Outcome::Applied), "asked again");
    assert_eq!(open(&mut bench, key, 1), Err(Refused::PortTaken));
    bench.order(Command::ConnAnswer(key, Some(DropReason::PortTaken)));
    bench.only_dropped(&[(DropReason::PortTaken, 1)]);
    // Nor at once after each other: late packets of the first may have been accepted by the other.
    bench.order(Command::EndConn(VIP, key, TargetId(2)));
    assert_eq!(open(&mut bench, key, 1), Err(Refused::PortTaken));
    bench.pass(3100);
    assert_eq!(open(&mut bench, key, 1), Ok(Outcome::Applied));
}

#[test]
fn what_a_dead_target_may_have_accepted_is_not_of_a_new_connection() {
    let (mut bench, mut client) = (bench(), Client::new());
    bench.order(Command::RaiseLate(IN, 1000));
    bench.receive(APPLICATION, &out(PORT, SYN));
    let [key] = wanted(&mut bench)[..] else { panic!("asked once") };
    assert_eq!(open(&mut bench, key, 1), Ok(Outcome::Applied));
    bench.order(Command::ConnAnswer(key, None));
    client.skip(900);
    bench.receive(NETWORK, &back(&mut client, PORT, SYN | ACK));
    assert!(bench.delivered().is_empty());
    client.skip(200);
    bench.receive(NETWORK, &back(&mut client, PORT, SYN | ACK));
    assert_eq!(bench.delivered().len(), 1);
}

#[test]
fn a_router_that_is_no_target_opens_connections_by_itself_but_not_from_a_targets_port() {
    let mut bench = bench();
    bench.engine.target.enabled = false;
    bench.receive(APPLICATION, &out(PORT, SYN));
    assert_eq!((bench.client_receives().len(), wanted(&mut bench).len()), (1, 0));
    let peer = PeerId(1);
    let packet = out(PORT, SYN);
    let ip = IpHeader::parse(&packet).unwrap();
    let flow = phalanx_wire::Flow::of_outbound(&ip, ip.upper_of(&packet)).unwrap();
    assert_eq!(open(&mut bench, ConnKey { peer, flow }, 1), Ok(Outcome::Applied));
    bench.receive(APPLICATION, &packet);
    bench.only_dropped(&[(DropReason::PortTaken, 1)]);
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Opens(u16),
    Answered(u16, bool),
    Time(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0u16..300).prop_map(Deed::Opens),
        2 => (0u16..300, any::<bool>()).prop_map(|(port, yes)| Deed::Answered(port, yes)),
        1 => (1u64..500).prop_map(Deed::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_waits_goes_or_is_dropped_once_and_never_waits_longer_or_in_greater_number_than_its_bounds(
        deeds in proptest::collection::vec(deed(), 1..300),
    ) {
        let mut bench = bench();
        let (mut received, mut asked) = (0, std::collections::HashMap::new());
        for deed in deeds {
            match deed {
                Deed::Opens(port) => {
                    received += 1;
                    bench.receive(APPLICATION, &out(1000 + port, SYN));
                    for key in wanted(&mut bench) {
                        prop_assert_eq!(key.flow.local.port, 1000 + port);
                        asked.insert(port, key);
                    }
                }
                Deed::Answered(port, yes) => {
                    if let Some(key) = asked.get(&port) {
                        bench.order(Command::ConnAnswer(*key, (!yes).then_some(DropReason::PortTaken)));
                    }
                }
                Deed::Time(ms) => bench.pass(ms),
            }
            let dropped: u64 = DropReason::ALL.iter().map(|reason| bench.drops(*reason)).sum();
            let waiting = bench.engine.new.len() as u64;
            prop_assert_eq!(received, bench.stats.stage(Stage::Sealed) + dropped + waiting);
            prop_assert!(waiting <= 128);
        }
        bench.pass(900);
        prop_assert_eq!(bench.engine.new.len(), 0);
    }
}
