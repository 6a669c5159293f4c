//! Router and target in different boxes, and on different cores of one.

use super::*;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

pub(super) fn gre(local: u8, remote: u8) -> GreEnd {
    GreEnd { port: LINK, local: addr(&format!("10.78.0.{local}")), remote: addr(&format!("10.78.0.{remote}")) }
}

/// A router (1) with a target (11) in another box.
pub(super) fn two_boxes() -> (Bench, Bench, Client) {
    let (mut router, mut target) = (Bench::new(1), Bench::new(11));
    router.route_vip(&[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))]);
    target.set_vip(None);
    target.add_sas();
    target.order(Command::SetRouter(VIP, gre(11, 1)));
    (router, target, Client::new())
}

/// Carries frames over the link until nobody sends any more; the packets that went from the router to the target.
pub(super) fn carry(router: &mut Bench, target: &mut Bench) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for _ in 0..4 {
        for frame in router.sent(LINK) {
            if Frame::parse(&frame).unwrap().ethertype == ethertype::IPV4 {
                packets.push(frame.clone());
            }
            target.receive_frame(LINK, &frame);
        }
        target.sent(LINK).iter().for_each(|frame| router.receive_frame(LINK, frame));
    }
    packets
}

#[test]
fn a_packet_crosses_the_link_encrypted_and_is_opened_by_the_target() {
    let (mut router, mut target, mut client) = two_boxes();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    let crossed = carry(&mut router, &mut target);
    assert_eq!(crossed.len(), 1);
    assert!(!crossed[0].windows(4).any(|bytes| bytes == [10, 99, 0, 10]), "in clear on the link");
    assert_eq!(target.delivered(), [segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)]);
    assert!(router.delivered().is_empty());
    target.lease(1, 8);
    target.receive(APPLICATION, &answer(4000, SYN | ACK));
    let answers = target.client_receives();
    assert_eq!(client.open(&answers[0]).unwrap(), answer(4000, SYN | ACK));
    assert!(router.sent(NETWORK).iter().all(|f| Frame::parse(f).unwrap().ethertype == ethertype::ARP));
    router.only_dropped(&[]);
    target.only_dropped(&[]);
}

#[test]
fn a_target_follows_the_high_half_of_the_number_over_any_gap() {
    let (mut router, mut target, mut client) = two_boxes();
    client.numbers = Lease::from_wire((7 << 32) + 1, 10);
    // The router knows where the numbers are, the target was idle all the while.
    router.order(Command::MergeWindow(
        IN,
        Box::new(phalanx_ipsec::WindowSnapshot { edge: 7 << 32, floor: 0, words: vec![1] }),
    ));
    router.order(Command::Ceiling(IN, 8 << 32));
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    assert_eq!(target.delivered().len(), 1);
}

#[test]
fn link_packets_are_believed_only_from_their_router_on_their_port() {
    let (mut router, mut target, mut client) = two_boxes();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    target.delivered();
    router.receive(NETWORK, &client.tcp(4000, ACK));
    let genuine = router.sent(LINK).pop().unwrap();
    // From another address.
    let mut forged = genuine[ethernet::HEADER_LEN..].to_vec();
    forged[15] = 66;
    forged[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&forged[..20]);
    forged[10..12].copy_from_slice(&sum.to_be_bytes());
    target.receive(LINK, &forged);
    // On another port.
    target.receive(NETWORK, &genuine[ethernet::HEADER_LEN..]);
    target.only_dropped(&[(DropReason::NotForUs, 1), (DropReason::LinkForged, 1)]);
    target.receive_frame(LINK, &genuine);
    target.receive_frame(LINK, &genuine);
    assert_eq!(target.delivered().len(), 1);
    assert_eq!(target.drops(DropReason::Replay), 1);
}

#[test]
fn an_older_epoch_is_not_obeyed() {
    let (mut router, mut target, mut client) = two_boxes();
    target.order(Command::SetVip(Box::new(VipEntry {
        id: VIP,
        address: addr("10.77.0.100"),
        epoch: Epoch(6),
        router_core: None,
        served: true,
        filter_at_router: false,
    })));
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    assert!(target.delivered().is_empty());
    target.only_dropped(&[(DropReason::LinkEpoch, 1)]);
    target.set_vip(None); // epoch 5 again
    let refused = std::iter::from_fn(|| target.events.pop())
        .any(|e| matches!(e, Event::Done { result: Err(crate::command::Refused::OldEpoch), .. }));
    assert!(refused);
}

#[test]
fn a_target_that_does_not_serve_the_vip_takes_nothing() {
    let (mut router, mut target, mut client) = two_boxes();
    target.order(Command::RemoveVip(VIP));
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    target.only_dropped(&[(DropReason::LinkVip, 1)]);
}

#[test]
fn targets_take_turns_and_a_connection_stays_where_it_is() {
    let (mut router, _, mut client) = two_boxes();
    let targets = [(1, LinkEnd::Gre(gre(1, 11), CoreId(0))), (2, LinkEnd::Gre(gre(1, 12), CoreId(0)))];
    router.set_targets(&targets, &[(0..=u16::MAX, &[1, 2])]);
    for _ in 0..2 {
        for port in 0..6 {
            let flags = if router.engine.router.table.len() < 6 { SYN } else { ACK };
            router.receive(NETWORK, &client.tcp(4000 + port, flags));
        }
    }
    let count = |id| router.engine.router.table.connections_of(TargetId(id));
    assert_eq!((count(1), count(2)), (3, 3));
    assert_eq!(router.stats.stage(Stage::Forwarded), 12);
}

#[test]
fn cores_of_one_box_share_the_work_over_rings() {
    // Core 0 has the network and routes; core 1 is the target and has the application; core 2 has the link.
    let cores: [(u16, &[usize]); 3] = [(0, &[NETWORK]), (1, &[APPLICATION]), (2, &[LINK])];
    let mut router = Bench::of(1, &cores, 0);
    let mut target = Bench::of(1, &cores, 1);
    let mut client = Client::new();
    router.route_vip(&[(1, LinkEnd::Ring(CoreId(1)))]);
    target.set_vip(Some(CoreId(0)));
    target.add_sas();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    let parcels: Vec<_> = router.engine.out.parcels[1].drain(..).collect();
    assert_eq!(parcels.len(), 1);
    target.engine.receive_ring(parcels.into_iter(), target.now);
    assert_eq!(target.delivered().len(), 1);
    // The answer is sealed where the application port is, and sent where the network port is.
    target.lease(1, 8);
    target.receive(APPLICATION, &answer(4000, SYN | ACK));
    let parcels: Vec<_> = target.engine.out.parcels[0].drain(..).collect();
    router.engine.receive_ring(parcels.into_iter(), router.now);
    let answers = router.client_receives();
    assert_eq!(client.open(&answers[0]).unwrap(), answer(4000, SYN | ACK));
    // An ESP packet that comes in elsewhere is handed to the router core.
    let mut elsewhere = Bench::of(1, &[(0, &[LINK]), (1, &[NETWORK, APPLICATION])], 1);
    elsewhere.set_vip(Some(CoreId(0)));
    elsewhere.receive(NETWORK, &client.tcp(4000, ACK));
    let parcels: Vec<_> = elsewhere.engine.out.parcels[0].drain(..).collect();
    router.engine.receive_ring(parcels.into_iter(), router.now);
    assert_eq!(router.engine.out.parcels[1].len(), 1);
    router.only_dropped(&[]);
    target.only_dropped(&[]);
}
