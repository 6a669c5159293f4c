//! Distribution by port list: which new connections go to targets, and which the router handles itself (R10, R24).

use super::*;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const HERE: LinkEnd = LinkEnd::Ring(CoreId(0));
const ALL: RangeInclusive<u16> = 0..=u16::MAX;

/// Two targets on this very core, and rules for them.
fn settled(rules: &[(RangeInclusive<u16>, &[u16])]) -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.route_vip(&[(1, HERE), (2, HERE)]);
    bench.set_targets(&[(1, HERE), (2, HERE)], rules);
    (bench, Client::new())
}

impl Bench {
    /// Lets the client open a connection to each of the VIP's ports; the targets they went to.
    fn opens(&mut self, client: &mut Client, ports: &[u16]) -> Vec<u16> {
        let mut went = Vec::new();
        for &to in ports {
            let before = [1, 2].map(|id| self.engine.router.table.connections_of(TargetId(id)));
            let from = 4000 + self.engine.router.table.len() as u16;
            self.receive(NETWORK, &client.tcp_to(to, from, SYN));
            let after = [1, 2].map(|id| self.engine.router.table.connections_of(TargetId(id)));
            went.extend((0..2).filter(|&at| after[at] > before[at]).map(|at| at as u16 + 1));
        }
        went
    }

    fn kept(&self) -> u64 {
        self.stats.stage(Stage::RouterLocal)
    }
}

#[test]
fn a_new_connection_goes_to_a_target_of_the_first_rule_that_names_its_port() {
    let (mut bench, mut client) = settled(&[(80..=80, &[2]), (70..=90, &[1]), (ALL, &[1, 2])]);
    assert_eq!(bench.opens(&mut client, &[80, 80, 70, 90, 81, 91, 69]), [2, 2, 1, 1, 1, 1, 2]);
    assert_eq!(bench.kept(), 0);
    bench.only_dropped(&[]);
}

#[test]
fn a_port_that_no_rule_names_is_the_routers_own() {
    let (mut bench, mut client) = settled(&[(80..=80, &[1, 2])]);
    let (syn, ack) = (client.tcp_to(22, 4000, SYN), client.tcp_to(22, 4000, ACK));
    for packet in [&syn, &ack, &syn, &ack] {
        bench.receive(NETWORK, packet);
    }
    let expected = [SYN, ACK].map(|flags| segment("10.99.0.10", 4000, "10.77.0.100", 22, flags));
    assert_eq!(bench.delivered(), expected);
    assert_eq!((bench.kept(), bench.stats.stage(Stage::Forwarded)), (2, 0));
    assert!(bench.engine.router.table.is_empty());
    bench.only_dropped(&[(DropReason::Replay, 2)]);
}

#[test]
fn a_syn_to_the_routers_own_port_is_taken_only_if_it_is_genuine_and_the_router_settled() {
    let (mut bench, mut client) = settled(&[(80..=80, &[1])]);
    let genuine = client.tcp_to(22, 4000, SYN);
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &forged);
    bench.receive(NETWORK, &genuine);
    assert_eq!(bench.delivered().len(), 1);
    bench.only_dropped(&[(DropReason::BadIcv, 1)]);

    let mut fresh = Bench::new(1);
    fresh.set_vip(Some(CoreId(0)));
    fresh.add_sas();
    fresh.order(Command::Ceiling(IN, 1 << 30));
    fresh.set_targets(&[(1, HERE)], &[(80..=80, &[1])]);
    fresh.receive(NETWORK, &client.tcp_to(22, 4001, SYN));
    assert!(fresh.delivered().is_empty());
    fresh.only_dropped(&[(DropReason::Settling, 1)]);
}

#[test]
fn without_rules_the_router_serves_everything_itself() {
    let (mut bench, mut client) = settled(&[]);
    bench.opens(&mut client, &[80, 443]);
    assert_eq!((bench.delivered().len(), bench.kept()), (2, 2));
    bench.only_dropped(&[]);
}

#[test]
fn a_port_whose_targets_take_nothing_falls_neither_to_the_next_rule_nor_to_the_router() {
    let (mut bench, mut client) = settled(&[(80..=80, &[3]), (ALL, &[1])]);
    assert!(bench.opens(&mut client, &[80]).is_empty());
    let (target, idle) = (entry(1, HERE), TargetEntry { eligible: false, ..entry(2, HERE) });
    let rule = PortRule { ports: vec![80..=80], targets: vec![TargetId(2)], ..PortRule::default() };
    let set = TargetSet::new(vec![target, idle], Policy::LeastConnections, &[rule]).unwrap();
    bench.order(Command::SetTargets(VIP, Box::new(set)));
    assert!(bench.opens(&mut client, &[80]).is_empty());
    assert!(bench.delivered().is_empty());
    bench.only_dropped(&[(DropReason::NoTarget, 2)]);
}

#[test]
fn known_connections_stay_where_they_are_when_the_rules_change() {
    let (mut bench, mut client) = settled(&[(80..=80, &[2])]);
    assert_eq!(bench.opens(&mut client, &[80]), [2]);
    bench.set_targets(&[(1, HERE), (2, HERE)], &[(443..=443, &[1])]);
    // Its SYN again, and what follows.
    bench.receive(NETWORK, &client.tcp_to(80, 4000, SYN));
    bench.receive(NETWORK, &client.tcp_to(80, 4000, ACK));
    assert_eq!((bench.stats.stage(Stage::Forwarded), bench.kept()), (3, 0));
    // Another one.
    bench.receive(NETWORK, &client.tcp_to(80, 4001, SYN));
    assert_eq!((bench.engine.router.table.len(), bench.kept()), (1, 1));
    assert_eq!(bench.delivered().len(), 4);
    bench.only_dropped(&[]);
}

#[test]
fn rules_take_turns_of_their_own_and_keep_them_when_the_targets_are_set_anew() {
    let rules: [(RangeInclusive<u16>, &[u16]); 2] = [(80..=80, &[1, 2]), (443..=443, &[1, 2])];
    let (mut bench, mut client) = settled(&rules);
    let mut went = Vec::new();
    for port in [80, 80, 80, 443, 80, 443] {
        went.extend(bench.opens(&mut client, &[port]));
        bench.set_targets(&[(1, HERE), (2, HERE)], &rules);
    }
    assert_eq!(went, [1, 2, 1, 1, 2, 2]);
    // Each set that was replaced is given back.
    let given_back = |bench: &Bench| {
        let all = std::iter::from_fn(|| bench.events.pop());
        all.filter(|event| matches!(event, Event::Trash(crate::command::Trash::Targets(_)))).count()
    };
    assert_eq!(given_back(&bench), 7);
}

#[test]
fn while_draining_the_routers_own_ports_are_closed_too() {
    let (mut bench, mut client) = settled(&[(80..=80, &[1])]);
    bench.receive(NETWORK, &client.tcp_to(22, 4000, SYN));
    bench.order(Command::Drain);
    bench.receive(NETWORK, &client.tcp_to(22, 4000, ACK));
    bench.receive(NETWORK, &client.tcp_to(22, 4001, SYN));
    assert_eq!(bench.delivered().len(), 2);
    bench.only_dropped(&[(DropReason::NoTarget, 1)]);
}

#[test]
fn the_rules_are_those_of_the_vip_that_is_connected_to_whatever_tunnel_leads_there() {
    let other = "10.77.0.101";
    let mut bench = Bench::new(1);
    bench.set_vip(Some(CoreId(0)));
    let second = VipEntry {
        id: VipId(2),
        address: addr(other),
        epoch: Epoch(5),
        router_core: Some(CoreId(0)),
        served: true,
        filter_at_router: false,
    };
    bench.order(Command::SetVip(Box::new(second)));
    let mut inbound = sa(IN, Direction::Inbound);
    inbound.selectors = Selectors::between(Prefix::ANY_V4, Prefix::ANY_V4);
    bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound).unwrap())));
    bench.order(Command::Ceiling(IN, 1 << 30));
    bench.order(Command::Settled(VIP));
    for (vip, port) in [(VIP, 80), (VipId(2), 443)] {
        let rule = PortRule { ports: vec![port..=port], targets: vec![TargetId(1)], ..PortRule::default() };
        let set = TargetSet::new(vec![entry(1, HERE)], Policy::RoundRobin, &[rule]).unwrap();
        bench.order(Command::SetTargets(vip, Box::new(set)));
    }
    let mut client = Client::new();
    let mut params = SaParams::clone(client.out.params());
    params.selectors = Selectors::between(Prefix::ANY_V4, Prefix::ANY_V4);
    client.out = OutboundSa::new(params).unwrap();
    let mut connect = |to, port| {
        let before = (bench.engine.router.table.len(), bench.kept());
        bench.receive(NETWORK, &client.seal(&segment("10.99.0.10", 4000, to, port, SYN)));
        (bench.engine.router.table.len() - before.0, bench.kept() - before.1)
    };
    let (distributed, kept) = ((1, 0), (0, 1));
    assert_eq!([connect(other, 443), connect(other, 80)], [distributed, kept]);
    assert_eq!([connect("10.77.0.100", 443), connect("10.77.0.100", 80)], [kept, distributed]);
}
