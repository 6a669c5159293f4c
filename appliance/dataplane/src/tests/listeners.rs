//! New connections go where somebody listens (R25); where nobody does the peer is refused as by any host.

use super::*;
use phalanx_steering::Listeners;

const SYN: u8 = TcpFlags::SYN;
const HERE: LinkEnd = LinkEnd::Ring(CoreId(0));

/// Two targets on this very core, of which `known` told that they listen on port 80 as `on_80` says.
fn told(known: u32, pending: u32, on_80: u32) -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.route_vip(&[(1, HERE), (2, HERE)]);
    bench.tell(known, pending, on_80);
    (bench, Client::new())
}

impl Bench {
    fn tell(&mut self, known: u32, pending: u32, on_80: u32) {
        let mut listeners = Listeners { known, pending, ..Listeners::default() };
        listeners.tcp.add(80, on_80);
        let rule =
            PortRule { ports: vec![0..=u16::MAX], targets: vec![TargetId(1), TargetId(2)], ..PortRule::default() };
        let set = TargetSet::new(vec![entry(1, HERE), entry(2, HERE)], Policy::RoundRobin, &[rule]).unwrap();
        self.order(Command::SetTargets(VIP, Box::new(set.with_listeners(listeners))));
    }

    fn connections(&self) -> [u32; 2] {
        [1, 2].map(|id| self.engine.router.table.connections_of(TargetId(id)))
    }
}

#[test]
fn new_connections_go_to_targets_that_listen_and_those_there_are_go_on() {
    let (mut bench, mut client) = told(0b11, 0, 0b11);
    for from in 4000..4004 {
        bench.receive(NETWORK, &client.tcp(from, SYN));
    }
    assert_eq!(bench.connections(), [2, 2]);
    bench.tell(0b11, 0, 0b10);
    for from in 4004..4008 {
        bench.receive(NETWORK, &client.tcp(from, SYN));
    }
    assert_eq!(bench.connections(), [2, 6], "target 1 listens no more");
    let before = bench.stats.stage(Stage::Forwarded);
    for from in 4000..4008 {
        bench.receive(NETWORK, &client.tcp(from, TcpFlags::ACK));
    }
    assert_eq!(bench.stats.stage(Stage::Forwarded), before + 8);
    bench.only_dropped(&[]);
}

#[test]
fn a_genuine_syn_to_a_port_without_listener_gets_a_sealed_reset_and_makes_no_entry() {
    let (mut bench, mut client) = told(0b11, 0, 0b11);
    bench.lease(1, 8);
    let genuine = client.tcp_to(81, 4000, SYN);
    let mut forged = client.tcp_to(81, 4001, SYN);
    *forged.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &forged);
    bench.receive(NETWORK, &genuine);
    let packets = bench.client_receives();
    assert_eq!(packets.len(), 1, "nothing is said to a forger (I5), and nothing in clear");
    let inner = client.open(&packets[0]).unwrap();
    let ip = IpHeader::parse(&inner).unwrap();
    assert_eq!((ip.src, ip.dst), (addr("10.77.0.100"), addr("10.99.0.10")));
    let tcp = TcpHeader::parse(ip.upper_of(&inner)).unwrap();
    assert_eq!((tcp.src_port, tcp.dst_port, tcp.flags), (81, 4000, TcpFlags(TcpFlags::RST | TcpFlags::ACK)));
    assert_eq!((tcp.seq, tcp.ack), (0, 101));
    assert!(bench.engine.router.table.is_empty());
    assert_eq!(bench.stats.stage(Stage::Refused), 1);
    // A copy is a replay, not another refusal.
    bench.receive(NETWORK, &genuine);
    assert!(bench.client_receives().is_empty());
    bench.only_dropped(&[(DropReason::Replay, 1), (DropReason::BadIcv, 1), (DropReason::NoListener, 1)]);
}

#[test]
fn nobody_is_refused_while_a_target_is_about_to_tell_or_none_is_there() {
    let (mut bench, mut client) = told(0b01, 0b10, 0b00);
    bench.lease(1, 8);
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.tell(0, 0, 0);
    bench.receive(NETWORK, &client.tcp(4001, SYN));
    assert!(bench.client_receives().is_empty());
    bench.only_dropped(&[(DropReason::NoTarget, 2)]);
}

#[test]
fn refusals_go_out_at_a_rate_however_many_are_asked_for() {
    let (mut bench, mut client) = told(0b11, 0, 0);
    bench.lease(1, 1000);
    // The first learns the next hop; what waits for it has a limit of its own.
    bench.receive(NETWORK, &client.tcp(3999, SYN));
    assert_eq!(bench.client_receives().len(), 1);
    let mut refused = 0;
    for from in 4000..4300 {
        bench.receive(NETWORK, &client.tcp(from, SYN));
        refused += bench.client_receives().len();
    }
    assert_eq!(refused, 99);
    bench.pass(10);
    bench.receive(NETWORK, &client.tcp(4300, SYN));
    assert_eq!(bench.client_receives().len(), 1);
    bench.only_dropped(&[(DropReason::NoListener, 302)]);
}
