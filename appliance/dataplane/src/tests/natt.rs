//! Peers behind NATs: ESP in UDP, packets from elsewhere, keepalives.

use super::*;
use crate::peers::Movers;
use phalanx_ipsec::{Encap, InboundIndex, Original};
use phalanx_wire::natt;
use std::net::SocketAddr;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Transport mode: the client, which calls itself 10.88.0.10 behind its NAT, is shown as another inside.
const TRANSPORT: Shape = Shape { transport: true, ..TUNNEL };
const ITSELF: &str = "10.88.0.10";

/// The SA of the shape, in UDP.
fn in_udp(shape: Shape, id: SaId, direction: Direction) -> SaParams {
    let original = shape.transport.then(|| Original { local: addr(shape.vip), remote: addr(ITSELF) });
    let encap = Some(Encap { remote_port: 4500, original });
    SaParams { encap, ..shape.sa(id, direction) }
}

/// The same as the client has it.
fn clients(shape: Shape, theirs: &SaParams) -> SaParams {
    let mut sa = SaParams { encap: Some(Encap { remote_port: 4500, original: None }), ..theirs.clone() };
    if shape.transport {
        sa.mode = Mode::Transport;
        sa.local = addr(ITSELF);
        sa.selectors.local = Prefix::host(sa.local);
        sa.encap = Some(Encap { remote_port: 4500, original: Some(Original { local: sa.local, remote: sa.remote }) });
    }
    sa
}

pub(super) fn natted() -> (Bench, Client) {
    natted_as(TUNNEL)
}

fn natted_as(shape: Shape) -> (Bench, Client) {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.shape = shape;
    bench.set_vip(Some(CoreId(0)));
    bench.set_targets(&[(1, LinkEnd::Ring(CoreId(0)))], &[(0..=u16::MAX, &[1, 2])]);
    bench.order(Command::Settled(VIP));
    bench.order(Command::AddInbound(Box::new(InboundSa::new(in_udp(shape, IN, Direction::Inbound)).unwrap())));
    bench.order(Command::AddOutbound(Box::new(OutboundSa::new(in_udp(shape, OUT, Direction::Outbound)).unwrap())));
    let action = Action::Protect(TunnelName::new("client").unwrap());
    let filter = Filter { vip: VIP, selectors: shape.selectors(), action, log: false };
    bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
    bench.order(Command::Ceiling(IN, 1 << 30));
    client.out = OutboundSa::new(clients(shape, client.out.params())).unwrap();
    client.inbound = InboundSa::new(clients(shape, client.inbound.params())).unwrap();
    (bench, client)
}

/// What a NAT makes of a packet.
fn through_nat(mut packet: Vec<u8>, from: SocketAddr) -> Vec<u8> {
    ip::set_source(&mut packet, from.ip()).unwrap();
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet
}

/// What the core told of where its peer is.
fn told(bench: &mut Bench) -> Vec<(SocketAddr, u64)> {
    let seen = |event| match event {
        Event::PeerSeen { sa: IN, remote, number, .. } => Some((remote, number)),
        _ => None,
    };
    bench.events().into_iter().filter_map(seen).collect()
}

/// Where the packets that wait for a next hop or were sent go: address and port.
fn sent_to(bench: &mut Bench) -> Vec<SocketAddr> {
    let mut to = Vec::new();
    for _ in 0..2 {
        for frame in bench.sent(NETWORK) {
            let packet = &frame[ethernet::HEADER_LEN..];
            if Frame::parse(&frame).unwrap().ethertype == ethertype::ARP {
                let asked = Arp::parse(packet).unwrap();
                if asked.operation == arp::Operation::Request && asked.sender_ip != asked.target_ip {
                    bench.receive_frame(NETWORK, &arp::reply_frame(CLIENT_MAC, &asked));
                }
            } else {
                let ip = IpHeader::parse(packet).unwrap();
                to.push(SocketAddr::new(ip.dst, u16::from_be_bytes([packet[22], packet[23]])));
            }
        }
    }
    to
}

#[test]
fn a_connection_goes_both_ways_in_udp() {
    let (mut bench, mut client) = natted();
    bench.lease(1, 10);
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(APPLICATION, &answer(4000, SYN | ACK));
    bench.receive(NETWORK, &client.tcp(4000, ACK));
    assert_eq!(bench.delivered().len(), 2);
    let answers = bench.client_receives();
    assert_eq!(client.open(&answers[0]).unwrap(), answer(4000, SYN | ACK));
    assert_eq!((bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::SynOpened)), (2, 1));
    assert_eq!(told(&mut bench), []);
    bench.only_dropped(&[]);
}

#[test]
fn a_target_tells_of_the_first_packet_of_a_row_that_came_from_elsewhere() {
    let (mut bench, mut client) = natted();
    bench.lease(1, 10);
    bench.receive(NETWORK, &client.tcp(4000, SYN));
    bench.receive(APPLICATION, &answer(4000, SYN | ACK));
    let row = [(); 3].map(|()| through_nat(client.tcp(4000, ACK), place("10.77.0.21:30000")));
    let row = row.map(|packet| framed(&packet, bench.mac(NETWORK), CLIENT_MAC));
    bench.engine.receive(NETWORK, row.iter().map(|frame| VecBuffer::from_slice(128, frame, 256)), bench.now);
    assert_eq!(bench.delivered().len(), 4);
    assert_eq!(told(&mut bench), [(place("10.77.0.21:30000"), 2)]);
}

/// What the router filters by is what it peeked; the connection is the one of the SYN that was opened (R14, RFC 3948 §3.1.2).
#[test]
fn in_transport_mode_the_router_peeks_at_the_addresses_that_the_opened_packet_shows() {
    let (mut bench, mut client) = natted_as(TRANSPORT);
    bench.filter_at_router(Some(CoreId(0)));
    bench.set_rules();
    bench.lease(1, 10);
    let mut send = |bench: &mut Bench, port, flags, from| {
        let packet = client.seal(&segment(ITSELF, 4000, "10.77.0.100", port, flags));
        bench.receive(NETWORK, &through_nat(packet, place(from)));
    };
    let shown = |flags| segment("10.99.0.10", 4000, "10.77.0.100", 443, flags);
    for (flags, from) in [(SYN, "10.77.0.10:4500"), (ACK, "10.77.0.10:4500"), (ACK, "10.77.0.21:30000")] {
        send(&mut bench, 443, flags, from);
        assert_eq!(bench.delivered(), [shown(flags)], "with a checksum to match");
    }
    assert_eq!((bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::SynOpened)), (3, 1));
    assert_eq!(bench.engine.router.table.len(), 1);
    bench.only_dropped(&[]);
    // The answer goes out under the addresses that the client knows.
    bench.receive(APPLICATION, &segment("10.77.0.100", 443, "10.99.0.10", 4000, SYN | ACK));
    let mut answer = bench.client_receives().remove(0);
    ip::set_destination(&mut answer, addr(ITSELF)).unwrap();
    let opened = client.open(&answer).unwrap();
    let ip = IpHeader::parse(&opened).unwrap();
    assert_eq!((ip.src, ip.dst), (addr("10.77.0.100"), addr(ITSELF)));
    // And the rules are those of the addresses shown.
    let denied = client.seal(&segment(ITSELF, 4001, "10.77.0.100", 22, SYN));
    bench.receive(NETWORK, &through_nat(denied, place("10.77.0.10:4500")));
    bench.only_dropped(&[(DropReason::FilterDeny, 1)]);
}

#[test]
fn a_genuine_packet_from_elsewhere_is_taken_and_told_of_and_the_router_decides() {
    let (mut bench, mut client) = natted();
    let elsewhere = place("10.77.0.20:20001");
    bench.lease(1, 10);
    bench.receive(NETWORK, &through_nat(client.tcp(4000, SYN), elsewhere));
    assert_eq!(bench.delivered().len(), 1);
    assert_eq!(told(&mut bench), [(elsewhere, 1)]);
    bench.receive(APPLICATION, &answer(4000, SYN | ACK));
    assert_eq!(sent_to(&mut bench), [place("10.77.0.10:4500")], "not before the router says so");
    bench.order(Command::MovePeer(IN, elsewhere));
    bench.order(Command::MovePeer(OUT, elsewhere));
    bench.receive(APPLICATION, &answer(4000, ACK));
    assert_eq!(sent_to(&mut bench), [elsewhere]);
    bench.receive(NETWORK, &through_nat(client.tcp(4000, ACK), elsewhere));
    assert_eq!((bench.delivered().len(), told(&mut bench)), (1, vec![]), "it is known now");
    bench.only_dropped(&[]);
}

#[test]
fn nothing_that_proves_nothing_new_is_told_of() {
    let (mut bench, mut client) = natted();
    let [home, elsewhere] = ["10.77.0.10:4500", "10.77.0.66:5555"].map(place);
    let syn = client.tcp(4000, SYN);
    let late = client.tcp(4000, ACK);
    let newest = client.tcp(4000, ACK);
    bench.receive(NETWORK, &through_nat(syn.clone(), home));
    bench.receive(NETWORK, &through_nat(newest.clone(), home));
    // Seen before, at the router and at the target.
    bench.receive(NETWORK, &through_nat(syn, elsewhere));
    bench.receive(NETWORK, &through_nat(newest, elsewhere));
    // Genuine and never seen, but older than the newest: RFC 7296 §2.23.
    bench.receive(NETWORK, &through_nat(late, elsewhere));
    // Forged: a bit of the ICV, of the text, of the number; of SYNs and of the connection's packets.
    for (flags, at) in [(SYN, -1i32), (ACK, -1), (SYN, 60), (ACK, 60), (SYN, 34), (ACK, 34)] {
        let mut packet = through_nat(client.tcp(4000, flags), elsewhere);
        let at = if at < 0 { packet.len() - 1 } else { at as usize };
        packet[at] ^= 1;
        bench.receive(NETWORK, &packet);
    }
    assert_eq!(bench.delivered().len(), 3);
    assert_eq!(told(&mut bench), []);
    bench.only_dropped(&[(DropReason::Replay, 2), (DropReason::BadIcv, 6)]);
}

#[test]
fn a_bare_packet_from_elsewhere_is_nobodys() {
    let (mut bench, mut client) = natted();
    client.out = Client::new().out;
    let mut syn = client.tcp(4000, SYN);
    bench.receive(NETWORK, &syn);
    assert_eq!(bench.delivered().len(), 1, "RFC 7296 §2.23: the peer itself may do without UDP");
    syn = client.tcp(4001, SYN);
    ip::set_source(&mut syn, addr("10.77.0.20")).unwrap();
    bench.receive(NETWORK, &syn);
    assert_eq!(told(&mut bench), []);
    bench.only_dropped(&[(DropReason::WrongPeer, 1)]);
}

#[test]
fn a_move_is_told_of_once_in_a_while_until_it_is_heard() {
    let (mut bench, mut client) = natted();
    let elsewhere = place("10.77.0.20:20001");
    let mut syn = |bench: &mut Bench, port| bench.receive(NETWORK, &through_nat(client.tcp(port, SYN), elsewhere));
    (0..10).for_each(|port| syn(&mut bench, 4000 + port));
    assert_eq!(told(&mut bench), [(elsewhere, 1)]);
    bench.pass(25);
    syn(&mut bench, 5000);
    assert_eq!(told(&mut bench), [(elsewhere, 11)]);
}

#[test]
fn more_peers_than_may_move_at_a_time_wait_for_a_moment() {
    let mut movers = Movers::default();
    let start = Instant::now();
    let now = |ms| Now::new(start, start + Duration::from_millis(ms));
    let first = (0..100).filter(|at| movers.tell(InboundIndex(*at), now(0))).count();
    assert_eq!(first, 64);
    assert!(!movers.tell(InboundIndex(99), now(10)) && movers.tell(InboundIndex(99), now(21)));
    movers.done(InboundIndex(99));
    assert!(movers.tell(InboundIndex(99), now(21)));
}

#[test]
fn keepalives_are_eaten_ike_has_a_counter_and_what_is_neither_is_a_runt() {
    let (mut bench, _) = natted();
    let to_vip = |port: u16, payload: &[u8]| {
        let mut datagram =
            [[0x4e, 0x21], port.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes(), [0, 0]].concat();
        datagram.extend(payload);
        inner("10.77.0.20", "10.77.0.100", protocol::UDP, &datagram)
    };
    bench.receive(NETWORK, &to_vip(4500, &[0xff]));
    bench.only_dropped(&[]);
    assert_eq!(bench.stats.stage(Stage::NatKeepaliveEaten), 1);
    bench.receive(NETWORK, &to_vip(4500, &[0; 32]));
    bench.receive(NETWORK, &to_vip(500, &[0; 28]));
    bench.receive(NETWORK, &to_vip(4500, &[]));
    bench.receive(NETWORK, &to_vip(4500, &[1, 2, 3, 4, 5]));
    bench.receive(NETWORK, &to_vip(4500, &[1; 40]));
    bench.receive(NETWORK, &to_vip(4501, &[0xff]));
    let reasons =
        [(DropReason::Runt, 2), (DropReason::ClearToVip, 1), (DropReason::Ike, 2), (DropReason::UnknownSpi, 1)];
    bench.only_dropped(&reasons);
}

#[test]
fn a_keepalive_leaves_from_the_vip_for_where_control_says() {
    let (mut bench, _) = natted();
    bench.order(Command::Keepalive(VIP, place("10.77.0.20:20001")));
    assert_eq!(sent_to(&mut bench), [place("10.77.0.20:20001")]);
    assert_eq!(bench.stats.stage(Stage::NatKeepaliveSent), 1);
    bench.order(Command::Keepalive(VipId(9), place("10.77.0.20:20001")));
    assert_eq!(natt::PORT, 4500);
    assert_eq!(sent_to(&mut bench), []);
    bench.only_dropped(&[]);
}
