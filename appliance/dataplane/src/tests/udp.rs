//! UDP flows, where their ports are distributed.

use super::*;
use phalanx_steering::{ConnKey, ConnState, Listeners, Transport};
use phalanx_wire::{Endpoint, Flow, UdpHeader, udp};

const HERE: LinkEnd = LinkEnd::Ring(CoreId(0));
const TO: u16 = 443;

/// A datagram in an IP packet.
pub(super) fn datagram(from: &str, src_port: u16, to: &str, dst_port: u16) -> Vec<u8> {
    let mut bytes = vec![7; udp::LEN + 9];
    let len = bytes.len() as u16;
    UdpHeader { src_port, dst_port, len, checksum: 0 }.write(&mut bytes).unwrap();
    udp::set_checksum(addr(from), addr(to), &mut bytes).unwrap();
    inner(from, to, protocol::UDP, &bytes)
}

/// From a port of the client to the VIP.
fn ask(shape: Shape, port: u16) -> Vec<u8> {
    datagram(shape.inner, port, shape.vip, TO)
}

fn reply(shape: Shape, port: u16) -> Vec<u8> {
    datagram(shape.vip, TO, shape.inner, port)
}

fn key(shape: Shape, port: u16) -> ConnKey {
    let (local, remote) = (Endpoint::new(addr(shape.vip), TO), Endpoint::new(addr(shape.inner), port));
    ConnKey { peer: PeerId(1), flow: Flow { protocol: protocol::UDP, local, remote } }
}

fn targets(ids: &[u16]) -> TargetSet {
    let rule = PortRule {
        protocol: Transport::Udp,
        ports: vec![TO..=TO],
        targets: ids.iter().map(|id| TargetId(*id)).collect(),
    };
    TargetSet::new(ids.iter().map(|id| entry(*id, HERE)).collect(), Policy::RoundRobin, &[rule]).unwrap()
}

/// A router whose targets are on the same core.
fn distributing(shape: Shape, ids: &[u16]) -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    bench.route_vip(&[]);
    bench.order(Command::SetTargets(VIP, Box::new(targets(ids))));
    bench.lease(1, 100);
    (bench, Client::of(shape))
}

impl Bench {
    fn passed_on(&self) -> [u64; 3] {
        [Stage::SynOpened, Stage::Forwarded, Stage::RouterLocal].map(|stage| self.stats.stage(stage))
    }
}

#[test]
fn a_flow_goes_both_ways_in_every_mode_and_family_and_its_target_tells_of_it() {
    let v6 = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd99::10", ..TUNNEL };
    let transport = |shape: Shape| Shape { inner: shape.client, transport: true, ..shape };
    for shape in [TUNNEL, v6, transport(TUNNEL), transport(v6)] {
        let (mut bench, mut client) = distributing(shape, &[1]);
        let key = key(shape, 4000);
        bench.receive(NETWORK, &client.seal(&ask(shape, 4000)));
        assert!(bench.events().is_empty(), "nobody answered yet");
        bench.receive(APPLICATION, &reply(shape, 4000));
        assert!(bench.events().iter().any(|e| matches!(e, Event::ConnOpened { key: opened, .. } if *opened == key)));
        bench.order(Command::Confirm(VIP, key, TargetId(1)));
        assert_eq!(bench.engine.router.table.lookup(&key).unwrap().state, ConnState::Established);
        bench.receive(NETWORK, &client.seal(&ask(shape, 4000)));
        assert_eq!(bench.delivered(), [ask(shape, 4000), ask(shape, 4000)]);
        assert_eq!(client.open(&bench.client_receives()[0]).unwrap(), reply(shape, 4000));
        assert_eq!(bench.passed_on(), [1, 2, 0]);
        bench.pass(180_000);
        assert!(bench.events().iter().any(|e| matches!(e, Event::ConnClosed { key: closed, .. } if *closed == key)));
        bench.only_dropped(&[]);
    }
}

#[test]
fn flows_of_a_peer_behind_a_nat_are_distributed_too() {
    let (mut bench, mut client) = natt::natted();
    bench.order(Command::SetTargets(VIP, Box::new(targets(&[1]))));
    for _ in 0..2 {
        bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    }
    assert_eq!((bench.delivered().len(), bench.passed_on()), (2, [1, 2, 0]));
    bench.only_dropped(&[]);
}

#[test]
fn flows_go_to_the_targets_in_turn_and_stay_there() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1, 2]);
    for port in (4000..4006).chain(4000..4006) {
        bench.receive(NETWORK, &client.seal(&ask(TUNNEL, port)));
    }
    let table = &bench.engine.router.table;
    assert_eq!([1, 2].map(|id| table.connections_of(TargetId(id))), [3, 3]);
    assert_eq!(bench.passed_on(), [6, 12, 0]);
    bench.only_dropped(&[]);
}

#[test]
fn without_a_rule_for_udp_the_router_takes_datagrams_itself() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    bench.set_targets(&[(1, HERE)], &[(0..=u16::MAX, &[1])]);
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    assert_eq!((bench.delivered().len(), bench.passed_on()), (1, [0, 0, 1]));
    assert!(bench.engine.router.table.is_empty());
}

#[test]
fn only_a_genuine_datagram_that_is_no_replay_begins_a_flow() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    let genuine = client.seal(&ask(TUNNEL, 4000));
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &forged);
    assert!(bench.engine.router.table.is_empty());
    bench.receive(NETWORK, &genuine);
    bench.receive(NETWORK, &genuine);
    assert_eq!(bench.delivered().len(), 1);
    bench.only_dropped(&[(DropReason::Replay, 1), (DropReason::BadIcv, 1)]);
}

#[test]
fn what_a_dead_target_may_have_accepted_begins_no_flow_and_what_is_newer_does() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    let of_flow: Vec<_> = (0..3).map(|_| client.seal(&ask(TUNNEL, 4000))).collect();
    of_flow.iter().for_each(|packet| bench.receive(NETWORK, packet));
    // Its window was never told.
    bench.order(Command::PurgeTarget(VIP, TargetId(1)));
    (0..50).for_each(|_| bench.pass(1));
    assert!(bench.engine.router.table.is_empty());
    bench.order(Command::SetTargets(VIP, Box::new(targets(&[2]))));
    bench.receive(NETWORK, &of_flow[0]);
    bench.receive(NETWORK, &of_flow[2]);
    assert_eq!(bench.delivered().len(), 3);
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    assert_eq!(bench.delivered().len(), 1);
    assert_eq!(bench.engine.router.table.lookup(&key(TUNNEL, 4000)).unwrap().target, TargetId(2));
    bench.only_dropped(&[(DropReason::TooOld, 1), (DropReason::Replay, 1)]);
}

#[test]
fn a_flow_that_ended_begins_anew_only_when_the_last_window_of_its_target_has_come() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    let [first, second] = [0, 1].map(|_| client.seal(&ask(TUNNEL, 4000)));
    [&first, &second].into_iter().for_each(|packet| bench.receive(NETWORK, packet));
    bench.order(Command::EndConn(VIP, key(TUNNEL, 4000), TargetId(1)));
    bench.receive(NETWORK, &second);
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4001)));
    assert_eq!((bench.delivered().len(), bench.drops(DropReason::UnknownConnection)), (3, 1));
    bench.pass(3000);
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    assert_eq!(bench.delivered().len(), 1);
}

#[test]
fn after_a_restart_known_flows_go_on_and_new_ones_wait_until_numbers_have_passed_what_targets_reached() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    bench.order(Command::RaiseLate(IN, 4));
    bench.order(Command::RestoreConn(VIP, key(TUNNEL, 4000), TargetId(1)));
    for port in [4000, 4001, 4000, 4001, 4001] {
        bench.receive(NETWORK, &client.seal(&ask(TUNNEL, port)));
    }
    assert_eq!((bench.delivered().len(), bench.passed_on()), (3, [1, 3, 0]));
    bench.only_dropped(&[(DropReason::TooOld, 2)]);
}

#[test]
fn a_datagram_that_nobody_listens_for_is_answered_by_port_unreachable_through_the_tunnel() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    let nobody = Listeners { known: 1, ..Listeners::default() };
    bench.order(Command::SetTargets(VIP, Box::new(targets(&[1]).with_listeners(nobody))));
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    let packets = bench.client_receives();
    let inside = client.open(&packets[0]).unwrap();
    let ip = IpHeader::parse(&inside).unwrap();
    assert_eq!((ip.upper, &ip.upper_of(&inside)[..2]), (protocol::ICMP, &[3, 3][..]));
    assert!(bench.engine.router.table.is_empty());
    bench.only_dropped(&[(DropReason::NoListener, 1)]);
}

#[test]
fn an_error_about_a_flow_follows_it() {
    let (mut bench, mut client) = distributing(TUNNEL, &[1]);
    bench.receive(NETWORK, &client.seal(&ask(TUNNEL, 4000)));
    bench.delivered();
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(reply(TUNNEL, 4000));
    let sum = phalanx_wire::checksum::internet(&error);
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    bench.receive(NETWORK, &client.seal(&inner(TUNNEL.inner, TUNNEL.vip, protocol::ICMP, &error)));
    assert_eq!((bench.delivered().len(), bench.passed_on()), (1, [1, 2, 0]));
    bench.only_dropped(&[]);
}
