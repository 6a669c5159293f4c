//! IKE between the network and control, and SAs that are not everywhere yet.

use super::*;
use crate::ike::{IkeDatagram, Mailbox};
use phalanx_wire::{natt, udp};
use std::net::SocketAddr;

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8 | 1).collect()
}

/// A datagram of the client's to a port of the VIP.
fn datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let (client, vip) = (addr("10.77.0.10"), addr("10.77.0.100"));
    let mut bytes = vec![0; udp::LEN];
    bytes.extend(payload);
    let header = udp::UdpHeader { src_port: from, dst_port: to, len: bytes.len() as u16, checksum: 0 };
    header.write(&mut bytes).unwrap();
    udp::set_checksum(client, vip, &mut bytes).unwrap();
    inner("10.77.0.10", "10.77.0.100", protocol::UDP, &bytes)
}

fn heard(mailbox: &Mailbox) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| mailbox.next(|m| (m.local, m.remote, m.bytes.clone()))).collect()
}

#[test]
fn messages_to_both_ports_come_to_control_without_marker_and_a_damaged_one_does_not() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let mailbox = Mailbox::new(4, 9216);
    bench.order(Command::HearIke(mailbox.slot()));
    bench.receive(NETWORK, &datagram(500, 500, &message(28)));
    bench.receive(NETWORK, &datagram(20001, 4500, &[&[0; 4][..], &message(30)].concat()));
    let mut damaged = datagram(500, 500, &message(28));
    *damaged.last_mut().unwrap() ^= 4;
    bench.receive(NETWORK, &damaged);
    let told = [
        (place("10.77.0.100:500"), place("10.77.0.10:500"), message(28)),
        (place("10.77.0.100:4500"), place("10.77.0.10:20001"), message(30)),
    ];
    assert_eq!(heard(&mailbox), told);
    bench.only_dropped(&[(DropReason::BadChecksum, 1)]);
}

#[test]
fn more_messages_than_control_reads_or_than_are_looked_at_are_counted() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let mailbox = Mailbox::new(3, 9216);
    bench.order(Command::HearIke(mailbox.slot()));
    let all = crate::ike::AT_ONCE + 10;
    (0..all).for_each(|_| bench.receive(NETWORK, &datagram(500, 500, &message(28))));
    assert_eq!(heard(&mailbox).len(), 3);
    bench.only_dropped(&[(DropReason::IkeRate, 10), (DropReason::IkeFull, all - 10 - 3)]);
}

#[test]
fn controls_messages_leave_from_the_vip_with_their_marker_and_in_pieces_where_they_are_large() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let send = |port, bytes: Vec<u8>| {
        let (local, remote) = (SocketAddr::new(addr("10.77.0.100"), port), place("10.77.0.10:20001"));
        Command::SendIke(Box::new(IkeDatagram { vip: VIP, local, remote, bytes }))
    };
    bench.order(send(4500, message(40)));
    let packet = bench.client_receives().remove(0);
    let ip = IpHeader::parse(&packet).unwrap();
    assert!(udp::checksum_ok(ip.src, ip.dst, ip.upper_of(&packet)));
    let Ok(natt::Content::Other) = natt::Content::of(&ip, &packet) else { panic!("to the client's own port") };
    assert_eq!(ip.upper_of(&packet)[..4], [0x11, 0x94, 0x4e, 0x21]);
    assert_eq!(ip.upper_of(&packet)[8..], [&[0; 4][..], &message(40)].concat());
    bench.order(send(500, message(4000)));
    let pieces = bench.client_receives();
    assert_eq!(pieces.len(), 3);
    assert!(pieces.iter().all(|piece| piece.len() <= 1500));
    // From an address that is not the VIP's, nothing leaves.
    let local = place("10.77.0.1:500");
    let bytes = message(28);
    bench.order(Command::SendIke(Box::new(IkeDatagram { vip: VIP, local, remote: place("10.77.0.10:500"), bytes })));
    assert!(bench.client_receives().is_empty());
    bench.only_dropped(&[(DropReason::SpoofedVip, 1)]);
}

#[test]
fn packets_of_an_sa_that_is_not_everywhere_wait_and_forged_ones_do_not() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.set_vip(Some(CoreId(0)));
    bench.set_targets(&[(1, LinkEnd::Ring(CoreId(0)))], &[(0..=u16::MAX, &[1])]);
    bench.order(Command::Settled(VIP));
    bench.order(Command::AddEarly(Box::new(InboundSa::new(sa(IN, Direction::Inbound)).unwrap())));
    bench.order(Command::Ceiling(IN, 1 << 30));
    bench.add_sas();
    bench.receive(NETWORK, &client.tcp(1000, TcpFlags::SYN));
    let mut forged = client.tcp(1001, TcpFlags::SYN);
    *forged.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &forged);
    assert_eq!((bench.delivered().len(), bench.stats.stage(Stage::HeldForSa)), (0, 1));
    bench.order(Command::Spread(IN));
    assert_eq!((bench.delivered().len(), bench.engine.router.table.len()), (1, 1));
    bench.receive(NETWORK, &client.tcp(1002, TcpFlags::SYN));
    assert_eq!(bench.delivered().len(), 1);
    bench.only_dropped(&[(DropReason::BadIcv, 1)]);
}

#[test]
fn what_waits_for_an_sa_in_vain_is_given_up_under_a_name_of_its_own() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.set_vip(Some(CoreId(0)));
    bench.order(Command::Settled(VIP));
    bench.order(Command::AddEarly(Box::new(InboundSa::new(sa(IN, Direction::Inbound)).unwrap())));
    (0..70).for_each(|port| bench.receive(NETWORK, &client.tcp(1000 + port, TcpFlags::SYN)));
    bench.only_dropped(&[(DropReason::SaWait, 6)]);
    (0..1100).for_each(|_| bench.pass(1));
    bench.only_dropped(&[(DropReason::SaWait, 70)]);
    assert!(bench.events().is_empty(), "no ceiling was asked for");
}

#[test]
fn what_a_peer_sends_before_its_sa_is_here_waits_for_it_and_what_nobody_offered_does_not() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.set_vip(Some(CoreId(0)));
    bench.set_targets(&[(1, LinkEnd::Ring(CoreId(0)))], &[(0..=u16::MAX, &[1])]);
    bench.order(Command::Settled(VIP));
    let spi = sa(IN, Direction::Inbound).spi;
    bench.receive(NETWORK, &client.tcp(999, TcpFlags::SYN));
    bench.only_dropped(&[(DropReason::UnknownSpi, 1)]);
    bench.order(Command::Expect { vip: VIP, spi, ms: 5000 });
    bench.receive(NETWORK, &client.tcp(1000, TcpFlags::SYN));
    let mut forged = client.tcp(1001, TcpFlags::SYN);
    *forged.last_mut().unwrap() ^= 1;
    bench.receive(NETWORK, &forged);
    assert_eq!(bench.stats.stage(Stage::HeldForSa), 2, "nobody can tell them apart yet");
    // Not everywhere yet: it waits on, the forged one is found out.
    bench.order(Command::AddEarly(Box::new(InboundSa::new(sa(IN, Direction::Inbound)).unwrap())));
    bench.order(Command::Ceiling(IN, 1 << 30));
    bench.add_sas();
    bench.only_dropped(&[(DropReason::UnknownSpi, 1), (DropReason::BadIcv, 1)]);
    assert!(bench.delivered().is_empty());
    bench.order(Command::Spread(IN));
    assert_eq!((bench.delivered().len(), bench.engine.router.table.len()), (1, 1));
}

#[test]
fn for_an_sa_that_does_not_come_few_packets_wait_and_not_for_long() {
    let (mut bench, mut client) = (Bench::new(1), Client::new());
    bench.route_vip(&[]);
    bench.order(Command::RemoveSa(IN));
    bench.order(Command::Expect { vip: VIP, spi: sa(IN, Direction::Inbound).spi, ms: 5000 });
    (0..20).for_each(|port| bench.receive(NETWORK, &client.tcp(1000 + port, TcpFlags::SYN)));
    bench.only_dropped(&[(DropReason::SaWait, 12)]);
    bench.pass(1000);
    bench.only_dropped(&[(DropReason::SaWait, 20)]);
    bench.pass(4000);
    bench.receive(NETWORK, &client.tcp(2000, TcpFlags::SYN));
    bench.only_dropped(&[(DropReason::UnknownSpi, 1), (DropReason::SaWait, 20)]);
}

#[test]
fn a_successor_takes_its_tunnels_packets_when_it_is_told_and_not_before() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let next = SaId(9);
    let expires = bench.start + Duration::from_secs(60);
    let outbound = |id| Box::new(OutboundSa::new(sa(id, Direction::Outbound)).unwrap());
    bench.order(Command::AddSuccessor(outbound(next)));
    for (id, first) in [(OUT, 1), (next, 1)] {
        bench.order(Command::Lease { sa: id, lease: Lease::from_wire(first, 64), expires });
    }
    let spi = |bench: &mut Bench| {
        bench.receive(APPLICATION, &answer(1000, TcpFlags::ACK));
        let packet = bench.client_receives().remove(0);
        u32::from_be_bytes(packet[20..24].try_into().unwrap())
    };
    assert_eq!(spi(&mut bench), 0xc0de + OUT.0 as u32);
    bench.order(Command::UseOutbound(next));
    assert_eq!(spi(&mut bench), 0xc0de + next.0 as u32);
    bench.order(Command::RemoveSa(next));
    assert_eq!(spi(&mut bench), 0xc0de + OUT.0 as u32, "what is left is used");
    bench.order(Command::RemoveSa(OUT));
    bench.order(Command::AddSuccessor(outbound(next)));
    bench.order(Command::Lease { sa: next, lease: Lease::from_wire(100, 64), expires });
    assert_eq!(spi(&mut bench), 0xc0de + next.0 as u32, "nobody is there to wait for");
}

#[test]
fn packets_that_wait_for_numbers_of_an_sa_that_goes_take_its_successor() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let expires = bench.start + Duration::from_secs(60);
    (0..3).for_each(|port| bench.receive(APPLICATION, &answer(1000 + port, TcpFlags::ACK)));
    assert!(bench.client_receives().is_empty(), "there are no numbers yet");
    let next = Box::new(OutboundSa::new(sa(SaId(9), Direction::Outbound)).unwrap());
    bench.order(Command::AddSuccessor(next));
    bench.order(Command::Lease { sa: SaId(9), lease: Lease::from_wire(1, 64), expires });
    bench.order(Command::UseOutbound(SaId(9)));
    assert!(bench.client_receives().is_empty(), "they wait for those of the one before");
    bench.order(Command::RemoveSa(OUT));
    let spis: Vec<_> = bench.client_receives().iter().map(|packet| packet[20..24].to_vec()).collect();
    assert_eq!(spis, vec![(0xc0de_u32 + 9).to_be_bytes().to_vec(); 3]);
    bench.only_dropped(&[]);
}

#[test]
fn a_packet_whose_sa_is_to_be_negotiated_waits_for_it_and_control_is_told_once() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[]);
    let tunnel = TunnelName::new("client:all").unwrap();
    let protect = |bench: &mut Bench, tunnel| {
        let (selectors, action) = (TUNNEL.selectors(), Action::Protect(tunnel));
        let filter = Filter { vip: VIP, selectors, action, log: false };
        bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
    };
    protect(&mut bench, tunnel);
    (0..20).for_each(|port| bench.receive(APPLICATION, &answer(1000 + port, TcpFlags::ACK)));
    let wanted = |event: &Event| matches!(event, Event::SaWanted { vip: VIP, tunnel: of, .. } if *of == tunnel);
    assert_eq!(bench.events().iter().filter(|event| wanted(event)).count(), 1);
    bench.only_dropped(&[(DropReason::SaWait, 4)]);
    let outbound = OutboundSa::new(SaParams { tunnel, ..sa(SaId(9), Direction::Outbound) }).unwrap();
    bench.order(Command::AddOutbound(Box::new(outbound)));
    let expires = bench.start + Duration::from_secs(60);
    bench.order(Command::Lease { sa: SaId(9), lease: Lease::from_wire(1, 64), expires });
    assert_eq!(bench.client_receives().len(), 16);
    // What is wanted in vain is given up, and asked for again meanwhile.
    bench.order(Command::RemoveSa(SaId(9)));
    bench.receive(APPLICATION, &answer(1000, TcpFlags::ACK));
    (0..3100).for_each(|_| bench.pass(1));
    bench.only_dropped(&[(DropReason::SaWait, 5)]);
    assert_eq!(bench.events().iter().filter(|event| wanted(event)).count(), 1);
    // Nobody negotiates what is static.
    protect(&mut bench, TunnelName::new("nobody").unwrap());
    bench.receive(APPLICATION, &answer(1000, TcpFlags::ACK));
    bench.only_dropped(&[(DropReason::NoSa, 1), (DropReason::SaWait, 5)]);
}
