//! AH around ESP on one packet: both are believed by their own ICV, window and lease, and what is inside is what ESP's tunnel says.

use super::links::{carry, gre};
use super::*;
use phalanx_ipsec::InboundIndex;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];
const AH_IN: SaId = SaId(3);
const AH_OUT: SaId = SaId(4);
const TRANSPORT: Shape = Shape { transport: true, inner: TUNNEL.client, ..TUNNEL };
const V6: Shape = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd77::10", transport: true, ..TUNNEL };
/// Bytes of AH with HMAC-SHA-256 over IPv4.
const AH_LEN: u16 = 28;

fn around() -> TunnelName {
    TunnelName::new("around").unwrap()
}

/// AH around what is between these ends; its SPIs are those of ESP, which are others (RFC 4301 §4.4.2.1).
fn ah_of(shape: Shape) -> Shape {
    Shape { algorithm: Algorithm::AhHmacSha256, transport: true, inner: shape.client, ..shape }
}

fn around_sa(shape: Shape, id: SaId, direction: Direction) -> SaParams {
    let like = if direction == Direction::Inbound { IN } else { OUT };
    SaParams { id, tunnel: around(), ..ah_of(shape).sa(like, direction) }
}

/// The SAs of both tunnels, ESP within AH.
fn add_sas(bench: &mut Bench) {
    let shape = bench.shape;
    let path_mtu = 1500 - if addr(shape.vip).is_ipv4() { AH_LEN } else { 32 };
    let esp = |id, direction| SaParams { within: Some(around()), path_mtu, ..shape.sa(id, direction) };
    bench.order(Command::AddInbound(Box::new(InboundSa::new(esp(IN, Direction::Inbound)).unwrap())));
    bench.order(Command::AddOutbound(Box::new(OutboundSa::new(esp(OUT, Direction::Outbound)).unwrap())));
    add_ah(bench);
    let tunnel = TunnelName::new("client").unwrap();
    let filter = Filter { vip: VIP, selectors: shape.selectors(), action: Action::Protect(tunnel), log: false };
    bench.order(Command::SetFilters(Box::new(FilterTable::new(vec![filter]))));
}

fn add_ah(bench: &mut Bench) {
    let ah = |id, direction| around_sa(bench.shape, id, direction);
    let (inbound, outbound) = (ah(AH_IN, Direction::Inbound), ah(AH_OUT, Direction::Outbound));
    bench.order(Command::AddInbound(Box::new(InboundSa::new(inbound).unwrap())));
    bench.order(Command::AddOutbound(Box::new(OutboundSa::new(outbound).unwrap())));
}

/// A router with targets.
fn router(shape: Shape, targets: &[(u16, LinkEnd)]) -> Bench {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    bench.set_vip(Some(CoreId(0)));
    bench.set_targets(targets, &[(0..=u16::MAX, &[1, 2])]);
    bench.order(Command::Settled(VIP));
    add_sas(&mut bench);
    [IN, AH_IN].into_iter().for_each(|sa| bench.order(Command::Ceiling(sa, 1 << 30)));
    bench
}

fn lease(bench: &mut Bench, sa: SaId, first: u64, len: u32) {
    let expires = bench.start + Duration::from_millis(bench.now.ms() + 100);
    bench.order(Command::Lease { sa, lease: Lease::from_wire(first, len), expires });
}

/// The client with both SAs.
struct Both {
    shape: Shape,
    esp: Client,
    ah: Client,
}

impl Both {
    fn of(shape: Shape) -> Both {
        Both { shape, esp: Client::of(shape), ah: Client::of(ah_of(shape)) }
    }

    fn segment(&self, port: u16, flags: u8) -> Vec<u8> {
        segment(self.shape.inner, port, self.shape.vip, 80, flags)
    }

    fn answer(&self, port: u16, flags: u8) -> Vec<u8> {
        segment(self.shape.vip, 80, self.shape.inner, port, flags)
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let esp = self.esp.seal(packet);
        self.ah.seal(&esp)
    }

    fn tcp(&mut self, port: u16, flags: u8) -> Vec<u8> {
        let packet = self.segment(port, flags);
        self.seal(&packet)
    }

    fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let esp = self.ah.open(packet)?;
        assert_eq!(IpHeader::parse(&esp).unwrap().upper, protocol::ESP);
        self.esp.open(&esp)
    }
}

/// Of the bench's inbound SAs: what it took, what failed, what was a replay.
fn counts(bench: &Bench, sa: SaId) -> (u64, u64, u64) {
    let at: InboundIndex = bench.engine.tables.cache.find_inbound(sa).unwrap();
    let shared = bench.engine.tables.cache.inbound(at).unwrap().shared();
    (shared.packets(), shared.failed(), shared.replayed())
}

#[test]
fn a_packet_crosses_the_link_as_it_came_and_both_come_off_and_on_at_the_target() {
    for shape in [TUNNEL, TRANSPORT, V6] {
        let (mut router, mut target, mut client) =
            (router(shape, &[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))]), Bench::new(11), Both::of(shape));
        target.shape = shape;
        target.set_vip(None);
        add_sas(&mut target);
        target.order(Command::SetRouter(VIP, gre(11, 1)));
        for flags in [SYN, ACK] {
            let sent = client.tcp(4000, flags);
            assert_eq!(IpHeader::parse(&sent).unwrap().upper, protocol::AH);
            router.receive(NETWORK, &sent);
            let crossed = carry(&mut router, &mut target);
            assert!(crossed.len() == 1 && crossed[0].ends_with(&sent));
            assert_eq!(target.delivered(), [client.segment(4000, flags)]);
        }
        assert!(router.delivered().is_empty());
        assert_eq!([counts(&target, IN).0, counts(&target, AH_IN).0], [2, 2]);
        lease(&mut target, OUT, 1, 8);
        lease(&mut target, AH_OUT, 1, 8);
        let answer = client.answer(4000, SYN | ACK);
        target.receive(APPLICATION, &answer);
        let answers = target.client_receives();
        assert_eq!(client.open(&answers[0]).unwrap(), answer);
        router.only_dropped(&[]);
        target.only_dropped(&[]);
    }
}

#[test]
fn what_is_not_distributed_the_router_opens_itself() {
    for shape in [TUNNEL, TRANSPORT] {
        let (mut bench, mut client) = (router(shape, &SELF), Both::of(shape));
        let ping = inner(shape.inner, shape.vip, protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
        let sealed = client.seal(&ping);
        bench.receive(NETWORK, &sealed);
        assert_eq!(bench.delivered(), [ping]);
        assert_eq!(bench.stats.stage(Stage::RouterLocal), 1);
        bench.receive(NETWORK, &sealed);
        bench.only_dropped(&[(DropReason::Replay, 1)]);
    }
}

#[test]
fn a_bad_icv_of_ah_changes_nothing_of_either_and_one_of_esp_within_good_ah_counts_for_esp() {
    for (shape, own) in [(TUNNEL, false), (TRANSPORT, false), (TUNNEL, true), (TRANSPORT, true)] {
        let (mut bench, mut client) = (router(shape, &SELF), Both::of(shape));
        let inside = |client: &Both| match own {
            true => inner(shape.inner, shape.vip, protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
            false => client.segment(4000, SYN),
        };
        let packet = inside(&client);
        let good = client.seal(&packet);
        let mut forged = good.clone();
        forged[40] ^= 1;
        bench.receive(NETWORK, &forged);
        assert_eq!((counts(&bench, AH_IN), counts(&bench, IN)), ((0, 1, 0), (0, 0, 0)));
        // The ICV of ESP, the last bytes, covered by that of AH.
        let mut esp = client.esp.seal(&packet);
        *esp.last_mut().unwrap() ^= 1;
        let damaged = client.ah.seal(&esp);
        bench.receive(NETWORK, &damaged);
        assert_eq!(counts(&bench, IN), (0, 1, 0), "{own}");
        assert!(bench.delivered().is_empty() && bench.engine.router.table.is_empty());
        // Neither used up the numbers of the packet that was forged.
        bench.receive(NETWORK, &good);
        assert_eq!(bench.delivered(), [packet]);
        bench.only_dropped(&[(DropReason::BadIcv, 2)]);
    }
}

#[test]
fn a_replay_of_either_layer_is_dropped_whatever_the_other_says() {
    for shape in [TUNNEL, TRANSPORT] {
        let (mut bench, mut client) = (router(shape, &SELF), Both::of(shape));
        bench.receive(NETWORK, &client.tcp(4000, SYN));
        assert_eq!(bench.delivered().len(), 1);
        // One packet of ESP within AH twice, as only the peer itself could make it: known to the window of ESP.
        let esp = client.esp.seal(&client.segment(4000, ACK));
        let twice = [client.ah.seal(&esp), client.ah.seal(&esp)];
        twice.iter().for_each(|packet| bench.receive(NETWORK, packet));
        assert_eq!((bench.delivered().len(), counts(&bench, IN).2), (1, 1));
        // Another packet of ESP under a number of AH that is known.
        client.ah.numbers = Lease::from_wire(2, 1);
        bench.receive(NETWORK, &client.tcp(4000, ACK));
        assert_eq!(counts(&bench, AH_IN).2, 1);
        assert!(bench.delivered().is_empty());
        bench.only_dropped(&[(DropReason::Replay, 2)]);
        // Its number of ESP is still good.
        client.esp.numbers = Lease::from_wire(3, 1);
        client.ah.numbers = Lease::from_wire(10, 1);
        bench.receive(NETWORK, &client.tcp(4000, ACK));
        assert_eq!(bench.delivered().len(), 1);
    }
}

#[test]
fn esp_without_its_ah_and_ah_around_other_esp_are_dropped_by_name() {
    let (mut bench, mut client) = (router(TUNNEL, &SELF), Both::of(TUNNEL));
    let packet = client.segment(4000, SYN);
    let esp = client.esp.seal(&packet);
    bench.receive(NETWORK, &esp);
    bench.only_dropped(&[(DropReason::MissingAh, 1)]);
    // AH in AH is none of it, whatever the inner one names, and what no SA has is unknown.
    let mut stranger = client.esp.seal(&packet);
    stranger[20] ^= 0x80;
    bench.receive(NETWORK, &client.ah.seal(&stranger));
    bench.only_dropped(&[(DropReason::UnknownSpi, 1), (DropReason::MissingAh, 1)]);
    // The same SAs, ESP alone: AH around it is too much.
    let mut bench = Bench::new(1);
    bench.route_vip(&SELF);
    add_ah(&mut bench);
    bench.receive(NETWORK, &client.seal(&packet));
    bench.only_dropped(&[(DropReason::WrongBundle, 1)]);
    assert_eq!((counts(&bench, AH_IN), counts(&bench, IN)), ((0, 0, 0), (0, 0, 0)));
}

#[test]
fn the_wrong_order_is_refused() {
    let (mut bench, mut client) = (router(TRANSPORT, &SELF), Both::of(TRANSPORT));
    let ah = client.ah.seal(&client.segment(4000, SYN));
    bench.receive(NETWORK, &client.esp.seal(&ah));
    bench.only_dropped(&[(DropReason::MissingAh, 1)]);
    let twice = client.ah.seal(&ah);
    bench.receive(NETWORK, &twice);
    assert!(bench.delivered().is_empty() && bench.engine.router.table.is_empty());
}

#[test]
fn a_packet_waits_for_numbers_of_both_and_none_is_used_twice() {
    for first in [OUT, AH_OUT] {
        let (mut bench, mut client) = (router(TUNNEL, &SELF), Both::of(TUNNEL));
        bench.receive(NETWORK, &client.tcp(4000, SYN));
        bench.delivered();
        let answer = client.answer(4000, SYN | ACK);
        bench.receive(APPLICATION, &answer);
        let wanted = |bench: &mut Bench| {
            let wanted = |event: Event| if let Event::LeaseWanted { sa, .. } = event { Some(sa) } else { None };
            bench.events().into_iter().filter_map(wanted).collect::<Vec<_>>()
        };
        let mut asked = wanted(&mut bench);
        asked.sort_unstable();
        assert_eq!(asked, [OUT, AH_OUT]);
        lease(&mut bench, first, 1, 8);
        assert!(bench.client_receives().is_empty());
        lease(&mut bench, if first == OUT { AH_OUT } else { OUT }, 1, 8);
        let answers = bench.client_receives();
        assert_eq!(client.open(&answers[0]), Ok(answer.clone()));
        for _ in 0..3 {
            bench.receive(APPLICATION, &answer);
        }
        for packet in bench.client_receives() {
            // The client's windows see that numbers are new.
            assert_eq!(client.open(&packet), Ok(answer.clone()));
        }
        bench.only_dropped(&[]);
    }
}

#[test]
fn a_packet_whose_second_number_never_comes_is_given_up() {
    let (mut bench, client) = (router(TUNNEL, &SELF), Both::of(TUNNEL));
    bench.receive(APPLICATION, &client.answer(4000, ACK));
    for n in 0..600 {
        bench.pass(1);
        // Those of ESP come again and again.
        if n % 50 == 0 {
            lease(&mut bench, OUT, 1 + 8 * n, 8);
        }
    }
    assert!(bench.client_receives().is_empty());
    bench.only_dropped(&[(DropReason::NoLease, 1)]);
}

#[test]
fn nothing_leaves_without_the_ah_that_should_be_around_it() {
    let (mut bench, client) = (router(TUNNEL, &SELF), Both::of(TUNNEL));
    bench.order(Command::RemoveSa(AH_OUT));
    lease(&mut bench, OUT, 1, 8);
    bench.receive(APPLICATION, &client.answer(4000, ACK));
    assert!(bench.client_receives().is_empty());
    bench.only_dropped(&[(DropReason::NoSa, 1)]);
}

#[test]
fn packets_are_as_long_as_the_path_with_both_around_them_and_no_longer() {
    for shape in [TUNNEL, TRANSPORT] {
        let (mut bench, mut client) = (router(shape, &SELF), Both::of(shape));
        lease(&mut bench, OUT, 1, 100);
        lease(&mut bench, AH_OUT, 1, 100);
        let at = bench.engine.tables.cache.find_outbound(OUT).unwrap();
        let fits = bench.engine.tables.cache.outbound(at).unwrap().inner_mtu();
        let ping = |len: usize| inner(shape.vip, shape.inner, protocol::ICMP, &vec![0; len - 20]);
        bench.receive(APPLICATION, &ping(fits));
        let sent = bench.client_receives();
        assert!((1497..=1500).contains(&sent[0].len()), "{}", sent[0].len());
        assert_eq!(client.open(&sent[0]), Ok(ping(fits)));
        bench.receive(APPLICATION, &ping(fits + 4));
        // RFC 1191 §4: the application's host is told what fits.
        let told = bench.delivered();
        assert_eq!(usize::from(u16::from_be_bytes([told[0][26], told[0][27]])), fits);
        bench.only_dropped(&[(DropReason::TooBig, 1)]);
    }
}

#[test]
fn in_transport_mode_what_may_be_cut_is_cut_around_ah() {
    let (mut bench, mut client) = (router(TRANSPORT, &SELF), Both::of(TRANSPORT));
    lease(&mut bench, OUT, 1, 100);
    lease(&mut bench, AH_OUT, 1, 100);
    let mut big = inner(TRANSPORT.vip, TRANSPORT.inner, protocol::ICMP, &vec![0; 1480]);
    whole(&mut big);
    bench.receive(APPLICATION, &big);
    let pieces = bench.client_receives();
    assert!(pieces.len() == 2 && pieces.iter().all(|piece| piece[9] == protocol::AH));
    let mut put_together = pieces[0].clone();
    put_together.extend_from_slice(&pieces[1][20..]);
    whole(&mut put_together);
    assert_eq!(client.open(&put_together), Ok(big));
    bench.only_dropped(&[]);
}

/// Of this length, no fragment, and it may become some.
fn whole(packet: &mut [u8]) {
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6] = 0;
    packet[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn above_either_ceiling_a_packet_of_the_routers_own_waits() {
    for high in [IN, AH_IN] {
        let mut bench = Bench::new(1);
        bench.set_vip(Some(CoreId(0)));
        bench.set_targets(&SELF, &[(0..=u16::MAX, &[1, 2])]);
        bench.order(Command::Settled(VIP));
        add_sas(&mut bench);
        let other = if high == IN { AH_IN } else { IN };
        bench.order(Command::Ceiling(other, 1 << 30));
        let mut client = Both::of(TUNNEL);
        bench.receive(NETWORK, &client.tcp(4000, SYN));
        assert!(bench.delivered().is_empty());
        let wanted = |event: &Event| matches!(event, Event::CeilingWanted { sa, .. } if *sa == high);
        assert!(bench.events().iter().any(wanted));
        bench.order(Command::Ceiling(high, 100));
        assert_eq!(bench.delivered().len(), 1);
        bench.only_dropped(&[]);
    }
}

#[test]
fn a_target_that_comes_late_finds_both_numbers_by_the_routers_word() {
    let shape = TUNNEL;
    let mut router = router(shape, &[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))]);
    let mut target = Bench::new(11);
    target.set_vip(None);
    add_sas(&mut target);
    target.order(Command::SetRouter(VIP, gre(11, 1)));
    let mut client = Both::of(shape);
    // Numbers far above what the target has seen; the router knows by its windows.
    let (esp, ah) = ((3 << 32) + 7, (5 << 32) + 9);
    for (sa, edge) in [(IN, esp), (AH_IN, ah)] {
        router.order(Command::Ceiling(sa, edge + 1000));
        router.order(Command::RaiseFloor(sa, edge));
    }
    client.esp.numbers = Lease::from_wire(esp + 1, 10);
    client.ah.numbers = Lease::from_wire(ah + 1, 10);
    router.receive(NETWORK, &client.tcp(4000, SYN));
    carry(&mut router, &mut target);
    assert_eq!(target.delivered(), [client.segment(4000, SYN)]);
    router.only_dropped(&[]);
    target.only_dropped(&[]);
}
