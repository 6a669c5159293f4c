//! Who filters, and what is logged (R12, R14, R16).

use super::links::gre;
use super::*;
use crate::command::Logged;
use phalanx_ipsec::PortRange;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];

fn rule(shape: &Shape, port: Option<u16>, action: Action, log: bool) -> Filter {
    let mut selectors = shape.selectors();
    selectors.local_ports = port.map_or(PortRange::ANY, PortRange::one);
    Filter { vip: VIP, selectors, action, log }
}

impl Bench {
    /// Port 22 is denied, port 443 may be used, the rest too; all but the rest is logged.
    pub(super) fn set_rules(&mut self) {
        let through = Action::Protect(TunnelName::new("client").unwrap());
        let rules = vec![
            rule(&self.shape, Some(22), Action::Deny, true),
            rule(&self.shape, Some(443), through, true),
            rule(&self.shape, None, through, false),
        ];
        self.order(Command::SetFilters(Box::new(FilterTable::new(rules))));
    }

    pub(super) fn filter_at_router(&mut self, router_core: Option<CoreId>) {
        self.order(Command::SetVip(Box::new(VipEntry {
            id: VIP,
            address: addr(self.shape.vip),
            epoch: Epoch(5),
            router_core,
            served: true,
            filter_at_router: true,
        })));
    }

    /// Rank, local port, inbound, denied.
    fn logged(&mut self) -> Vec<(u32, Option<u16>, bool, bool)> {
        let entry = |event| match event {
            Event::Log { logged: Logged { rule, subject, inbound, denied }, .. } => {
                Some((rule.rank, subject.local_port, inbound, denied))
            }
            _ => None,
        };
        self.events().into_iter().filter_map(entry).collect()
    }
}

/// A router and a target, each with a box.
fn two_boxes(at_router: bool) -> (Bench, Bench, Client) {
    let (mut router, mut target, client) = links::two_boxes();
    router.set_rules();
    target.set_rules();
    if at_router {
        router.filter_at_router(Some(CoreId(0)));
        target.filter_at_router(None);
    }
    (router, target, client)
}

#[test]
fn the_target_denies_unless_the_router_does() {
    for at_router in [false, true] {
        let (mut router, mut target, mut client) = two_boxes(at_router);
        for port in [443, 22] {
            router.receive(NETWORK, &client.tcp_to(port, 4000, SYN));
            links::carry(&mut router, &mut target);
        }
        assert_eq!(target.delivered().len(), 1);
        let (denies, forwards) = if at_router { (&router, &target) } else { (&target, &router) };
        denies.only_dropped(&[(DropReason::FilterDeny, 1)]);
        forwards.only_dropped(&[]);
        // What is denied makes no entry where it is denied first.
        assert_eq!(router.engine.router.table.len(), if at_router { 1 } else { 2 });
    }
}

#[test]
fn a_router_that_filters_looks_at_every_packet_of_a_connection_it_forwards() {
    let (mut router, mut target, mut client) = two_boxes(true);
    router.receive(NETWORK, &client.tcp_to(443, 4000, SYN));
    links::carry(&mut router, &mut target);
    // The operator denies the port of a connection that is there.
    let through = Action::Protect(TunnelName::new("client").unwrap());
    let rules = vec![rule(&TUNNEL, Some(443), Action::Deny, true), rule(&TUNNEL, None, through, false)];
    router.order(Command::SetFilters(Box::new(FilterTable::new(rules))));
    router.events();
    let mut forged = client.tcp_to(443, 4000, ACK);
    *forged.last_mut().unwrap() ^= 1;
    router.receive(NETWORK, &forged);
    router.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
    router.only_dropped(&[(DropReason::FilterDeny, 2)]);
    // Nothing was opened, so nothing is known of who sent it: the log has no word of it (I5).
    assert!(router.logged().is_empty());
    links::carry(&mut router, &mut target);
    assert_eq!(target.delivered().len(), 1);
}

#[test]
fn a_packet_that_calls_itself_filtered_is_filtered_all_the_same_unless_its_vip_says_so() {
    let (mut router, mut target, mut client) = two_boxes(true);
    // The router's rules are none that deny; the target's VIP is one that it filters itself.
    router.add_sas();
    target.order(Command::RemoveVip(VIP));
    target.set_vip(None);
    target.order(Command::SetRouter(VIP, gre(11, 1)));
    router.receive(NETWORK, &client.tcp_to(22, 4000, SYN));
    links::carry(&mut router, &mut target);
    assert!(target.delivered().is_empty());
    target.only_dropped(&[(DropReason::FilterDeny, 1)]);
}

#[test]
fn a_connection_is_logged_once_by_the_target_or_by_the_router_that_filters() {
    for at_router in [false, true] {
        let (mut router, mut target, mut client) = two_boxes(at_router);
        target.lease(1, 100);
        let logged = |router: &mut Bench, target: &mut Bench| {
            links::carry(router, target);
            (router.logged(), target.logged())
        };
        let entry = vec![(1, Some(443), true, false)];
        router.receive(NETWORK, &client.tcp_to(443, 4000, SYN));
        assert_eq!(logged(&mut router, &mut target).0, if at_router { entry.clone() } else { vec![] });
        target.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, SYN | ACK));
        router.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
        assert_eq!(logged(&mut router, &mut target), (vec![], if at_router { vec![] } else { entry }));
        for _ in 0..5 {
            router.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
        }
        assert_eq!(logged(&mut router, &mut target), (vec![], vec![]));
    }
}

#[test]
fn what_is_denied_is_logged_once_a_flow_and_not_without_end() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.route_vip(&SELF);
    bench.set_rules();
    bench.filter_at_router(Some(CoreId(0)));
    bench.events();
    for _ in 0..3 {
        bench.receive(NETWORK, &client.tcp_to(22, 4000, SYN));
    }
    assert_eq!(bench.logged(), [(0, Some(22), true, true)]);
    // The other way too: the host's own.
    bench.receive(APPLICATION, &segment("10.77.0.100", 22, "10.99.0.10", 4001, SYN));
    bench.receive(APPLICATION, &segment("10.77.0.100", 22, "10.99.0.10", 4001, SYN));
    assert_eq!(bench.logged(), [(0, Some(22), false, true)]);
    let mut entries = 0;
    for port in 0..200 {
        bench.receive(APPLICATION, &segment("10.77.0.100", 22, "10.99.0.10", 5000 + port, SYN));
        entries += bench.logged().len() as u64;
    }
    assert_eq!(entries, crate::logging::AT_ONCE - 2);
    assert_eq!(bench.stats.stage(Stage::LogsSuppressed), 200 - entries);
    bench.only_dropped(&[(DropReason::FilterDeny, 205)]);
}

/// A box that is router and target, and an established connection to port 443 whose packets were decided about.
fn established() -> (Bench, Client) {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.route_vip(&SELF);
    bench.set_rules();
    bench.lease(1, 100);
    bench.receive(NETWORK, &client.tcp_to(443, 4000, SYN));
    bench.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, SYN | ACK));
    bench.client_receives();
    for _ in 0..3 {
        bench.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
        bench.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, ACK));
    }
    assert_eq!((bench.delivered().len(), bench.client_receives().len()), (4, 3));
    bench.only_dropped(&[]);
    (bench, client)
}

#[test]
fn what_was_decided_for_a_connection_ends_with_the_rules_it_was_decided_by() {
    let (mut bench, mut client) = established();
    let through = Action::Protect(TunnelName::new("client").unwrap());
    let rules = vec![rule(&TUNNEL, Some(443), Action::Deny, false), rule(&TUNNEL, None, through, false)];
    bench.order(Command::SetFilters(Box::new(FilterTable::new(rules))));
    bench.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
    bench.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, ACK));
    bench.only_dropped(&[(DropReason::FilterDeny, 2)]);
    assert_eq!((bench.delivered().len(), bench.client_receives().len()), (0, 0));
}

#[test]
fn what_was_decided_for_a_connection_ends_with_the_sas_it_was_decided_for() {
    let (mut bench, mut client) = established();
    for (id, direction) in [(IN, Direction::Inbound), (OUT, Direction::Outbound)] {
        let mut narrow = bench.shape.sa(id, direction);
        narrow.selectors.local_ports = PortRange::one(80);
        bench.order(Command::RemoveSa(id));
        bench.order(match direction {
            Direction::Inbound => Command::AddInbound(Box::new(InboundSa::new(narrow).unwrap())),
            Direction::Outbound => Command::AddOutbound(Box::new(OutboundSa::new(narrow).unwrap())),
        });
    }
    bench.lease(200, 100);
    bench.receive(NETWORK, &client.tcp_to(443, 4000, ACK));
    bench.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, ACK));
    bench.only_dropped(&[(DropReason::WrongTunnel, 2)]);
}
