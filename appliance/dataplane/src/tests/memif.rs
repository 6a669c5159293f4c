//! Router and target in different processes of one box, over memif.

use super::*;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

/// A process whose link port is a memif.
fn process(host: u8, cores: &[(u16, &[usize])], which: usize) -> Bench {
    let mut bench = Bench::of(host, cores, which);
    let world = Arc::get_mut(&mut bench.engine.world).expect("nobody else's");
    (world.ports[LINK].memif, world.ports[LINK].addresses) = (true, Box::new([]));
    bench
}

pub(super) fn pair() -> (Bench, Bench, Client) {
    let whole: &[(u16, &[usize])] = &[(0, &[NETWORK, LINK, APPLICATION])];
    let (mut router, mut target) = (process(1, whole, 0), process(11, whole, 0));
    router.route_vip(&[(1, LinkEnd::Memif(LINK, CoreId(0)))]);
    target.set_vip(None);
    target.add_sas();
    target.order(Command::SetRouterPort(VIP, LINK));
    (router, target, Client::new())
}

#[test]
fn a_packet_crosses_at_once_encrypted_and_without_addresses() {
    let (mut router, mut target, mut client) = pair();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    let sent = router.sent(LINK);
    assert_eq!(sent.len(), 1, "no question goes before it");
    let frame = Frame::parse(&sent[0]).unwrap();
    assert_eq!((frame.dst, frame.src, frame.ethertype), (Mac::BROADCAST, router.mac(LINK), ethertype::LINK));
    assert!(!sent[0].windows(4).any(|bytes| bytes == [10, 99, 0, 10]), "in clear on the link");
    // What Ethernet would pad is not the packet's.
    target.receive_frame(LINK, &[&sent[0][..], &[0; 8]].concat());
    assert_eq!(target.delivered(), [segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)]);
    target.receive_frame(LINK, &sent[0]);
    target.only_dropped(&[(DropReason::Replay, 1)]);
    router.only_dropped(&[]);
}

#[test]
fn link_frames_are_believed_only_from_the_port_that_leads_to_the_router() {
    let (mut router, mut target, mut client) = pair();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    let genuine = router.sent(LINK).pop().unwrap();
    // On a port that is no memif link.
    target.receive_frame(NETWORK, &genuine);
    target.only_dropped(&[(DropReason::NotForUs, 1)]);
    // The VIP's router is over GRE now, or on another port.
    target.order(Command::SetRouter(VIP, super::links::gre(11, 1)));
    target.receive_frame(LINK, &genuine);
    target.order(Command::SetRouterPort(VIP, APPLICATION));
    target.receive_frame(LINK, &genuine);
    assert_eq!(target.drops(DropReason::LinkForged), 2);
    // Of no VIP, of an older epoch, nothing at all.
    target.order(Command::SetRouterPort(VIP, LINK));
    let at = ethernet::HEADER_LEN;
    let changed = |byte: usize, to: u8| {
        let mut frame = genuine.clone();
        frame[at + byte] = to;
        frame
    };
    target.receive_frame(LINK, &changed(2, 77));
    target.receive_frame(LINK, &changed(11, 4));
    target.receive_frame(LINK, &changed(0, 9));
    target.receive_frame(LINK, &changed(17, 5));
    target.receive_frame(LINK, &genuine[..at + 3]);
    let reasons = [
        (DropReason::NotForUs, 1),
        (DropReason::LinkForged, 3),
        (DropReason::LinkEpoch, 1),
        (DropReason::LinkVip, 1),
        (DropReason::LinkVersion, 1),
        (DropReason::Runt, 1),
    ];
    reasons.iter().for_each(|(reason, count)| assert_eq!(target.drops(*reason), *count, "{reason:?}"));
    assert!(target.delivered().is_empty());
    target.receive_frame(LINK, &genuine);
    assert_eq!(target.delivered().len(), 1);
}

#[test]
fn a_packet_is_passed_to_the_core_that_the_router_names() {
    let (mut router, _, mut client) = pair();
    router.set_targets(&[(1, LinkEnd::Memif(LINK, CoreId(1)))], &[(0..=u16::MAX, &[1])]);
    let cores: [(u16, &[usize]); 2] = [(0, &[LINK]), (1, &[NETWORK, APPLICATION])];
    let (mut link, mut target) = (process(11, &cores, 0), process(11, &cores, 1));
    for bench in [&mut link, &mut target] {
        bench.set_vip(None);
        bench.add_sas();
        bench.order(Command::SetRouterPort(VIP, LINK));
    }
    router.receive(NETWORK, &client.tcp(4000, SYN));
    router.sent(LINK).iter().for_each(|frame| link.receive_frame(LINK, frame));
    let parcels: Vec<_> = link.engine.out.parcels[1].drain(..).collect();
    assert_eq!(parcels.len(), 1);
    target.engine.receive_ring(parcels.into_iter(), target.now);
    assert_eq!(target.delivered().len(), 1);
    [link, target].iter().for_each(|bench| bench.only_dropped(&[]));
}

#[test]
fn the_router_core_may_be_another_than_the_one_with_the_link() {
    let cores: [(u16, &[usize]); 2] = [(0, &[NETWORK, APPLICATION]), (1, &[LINK])];
    let (mut router, mut link) = (process(1, &cores, 0), process(1, &cores, 1));
    let (_, mut target, mut client) = pair();
    router.route_vip(&[(1, LinkEnd::Memif(LINK, CoreId(0)))]);
    router.receive(NETWORK, &client.tcp(4000, SYN));
    let parcels: Vec<_> = router.engine.out.parcels[1].drain(..).collect();
    link.engine.receive_ring(parcels.into_iter(), link.now);
    link.sent(LINK).iter().for_each(|frame| target.receive_frame(LINK, frame));
    assert_eq!(target.delivered().len(), 1);
}

#[test]
fn what_is_too_large_for_the_link_crosses_in_fragments() {
    let (mut router, mut target, mut client) = pair();
    router.receive(NETWORK, &client.tcp(4000, SYN));
    router.sent(LINK).iter().for_each(|frame| target.receive_frame(LINK, frame));
    target.delivered();
    Arc::get_mut(&mut router.engine.world).unwrap().ports[LINK].mtu = 600;
    let mut large = segment("10.99.0.10", 4000, "10.77.0.100", 80, ACK);
    large.resize(1400, 7);
    large[2..4].copy_from_slice(&1400u16.to_be_bytes());
    large[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&large[..20]);
    large[10..12].copy_from_slice(&sum.to_be_bytes());
    router.receive(NETWORK, &client.seal(&large));
    let pieces = router.sent(LINK);
    assert_eq!(pieces.len(), 3);
    assert!(pieces.iter().all(|piece| piece.len() <= ethernet::HEADER_LEN + 600));
    pieces.iter().rev().for_each(|piece| target.receive_frame(LINK, piece));
    assert_eq!(target.delivered(), [large]);
    target.only_dropped(&[]);
    router.only_dropped(&[]);
}

#[test]
fn targets_are_set_only_over_ports_that_are_memif_links() {
    let mut router = Bench::new(1);
    router.set_vip(Some(CoreId(0)));
    router.set_targets(&[(1, LinkEnd::Memif(LINK, CoreId(0)))], &[(0..=u16::MAX, &[1])]);
    let refused = std::iter::from_fn(|| router.events.pop())
        .any(|e| matches!(e, Event::Done { result: Err(crate::command::Refused::OutOfRange), .. }));
    assert!(refused);
}
