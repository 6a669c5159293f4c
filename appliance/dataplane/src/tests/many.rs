//! A hundred thousand connections of one peer through the engine, each with real packets from its SYN to its end.

use super::*;
use phalanx_steering::ConnKey;

const MANY: u32 = 100_000;
const HALF_OPEN: u32 = 4;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];
const ALL_PORTS: &[usize] = &[NETWORK, LINK, APPLICATION];

/// Client's port and ours.
fn ports(n: u32) -> (u16, u16) {
    (1000 + (n % 50_000) as u16, 80 + (n / 50_000) as u16)
}

impl Bench {
    fn client_sends(&mut self, client: &mut Client, n: u32, flags: u8) {
        let (from, to) = ports(n);
        self.receive(NETWORK, &client.tcp_to(to, from, flags));
        self.sent(APPLICATION);
    }

    fn server_sends(&mut self, n: u32, flags: u8) {
        let (from, to) = ports(n);
        self.receive(APPLICATION, &segment("10.77.0.100", to, "10.99.0.10", from, flags));
        self.client_receives();
    }

    fn opened(&mut self) -> Option<ConnKey> {
        self.events().into_iter().find_map(|e| if let Event::ConnOpened { key, .. } = e { Some(key) } else { None })
    }

    fn closed(&mut self) -> Option<ConnKey> {
        self.events().into_iter().find_map(|e| if let Event::ConnClosed { key, .. } = e { Some(key) } else { None })
    }
}

fn bench() -> Bench {
    let limits = Limits {
        connections: MANY as usize,
        connections_per_peer: MANY,
        half_open_per_peer: HALF_OPEN,
        tracked: 2 * MANY as usize,
        ..Limits::default()
    };
    let mut bench = Bench::limited(1, &[(0, ALL_PORTS)], 0, limits);
    bench.route_vip(&SELF);
    bench
}

#[test]
fn a_hundred_thousand_connections_of_one_peer_open_are_used_and_end() {
    let (mut bench, mut client) = (bench(), Client::new());
    // A flood that nobody answers takes what one peer may, and goes with time.
    (0..MANY / 1000).for_each(|n| bench.client_sends(&mut client, n, SYN));
    assert_eq!(bench.engine.router.table.half_open(), HALF_OPEN as usize);
    (0..3).for_each(|_| bench.pass(6_000));
    assert!(bench.engine.router.table.is_empty() && bench.engine.target.tracker.is_empty());
    bench.only_dropped(&[(DropReason::HalfOpenLimit, u64::from(MANY / 1000 - HALF_OPEN))]);

    bench.lease(1, 1 << 20);
    for n in 0..MANY {
        bench.client_sends(&mut client, n, SYN);
        bench.server_sends(n, SYN | ACK);
        bench.client_sends(&mut client, n, ACK);
        let key = bench.opened().unwrap_or_else(|| panic!("connection {n} did not open"));
        bench.order(Command::Confirm(VIP, key, TargetId(1)));
    }
    assert_eq!((bench.engine.router.table.len(), bench.engine.target.tracker.len()), (MANY as usize, MANY as usize));

    let new = bench.stats.stage(Stage::SynOpened);
    (MANY..MANY + 10).for_each(|n| bench.client_sends(&mut client, n, SYN));
    assert_eq!((bench.drops(DropReason::TableFull), bench.stats.stage(Stage::SynOpened)), (10, new));

    let (forwarded, opened) = (bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::Opened));
    (0..MANY).for_each(|n| bench.client_sends(&mut client, n, ACK));
    assert_eq!(bench.stats.stage(Stage::Forwarded) - forwarded, u64::from(MANY), "each is where it was");
    assert_eq!(bench.stats.stage(Stage::Opened) - opened, u64::from(MANY));

    for n in 0..MANY {
        bench.client_sends(&mut client, n, TcpFlags::RST);
        let key = bench.closed().unwrap_or_else(|| panic!("connection {n} did not end"));
        bench.order(Command::EndConn(VIP, key, TargetId(1)));
    }
    assert!(bench.engine.router.table.is_empty() && bench.engine.target.tracker.is_empty());
    let floods = u64::from(MANY / 1000 - HALF_OPEN);
    bench.only_dropped(&[(DropReason::TableFull, 10), (DropReason::HalfOpenLimit, floods)]);
}
