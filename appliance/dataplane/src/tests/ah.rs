//! AH at router and target: steered by what is seen without a key, believed by what the integrity check says.

use super::links::{carry, gre};
use super::*;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const SELF: [(u16, LinkEnd); 1] = [(1, LinkEnd::Ring(CoreId(0)))];
const AH: Shape = Shape { algorithm: Algorithm::AhHmacSha256, ..TUNNEL };

fn settled(shape: Shape) -> (Bench, Client) {
    let mut bench = Bench::new(1);
    bench.shape = shape;
    bench.route_vip(&SELF);
    (bench, Client::of(shape))
}

#[test]
fn a_packet_crosses_the_link_as_it_came_and_the_target_answers_by_itself() {
    let (mut router, mut target, mut client) = (Bench::new(1), Bench::new(11), Client::of(AH));
    (router.shape, target.shape) = (AH, AH);
    router.route_vip(&[(1, LinkEnd::Gre(gre(1, 11), CoreId(0)))]);
    target.set_vip(None);
    target.add_sas();
    target.order(Command::SetRouter(VIP, gre(11, 1)));
    let syn = client.tcp(4000, SYN);
    router.receive(NETWORK, &syn);
    let crossed = carry(&mut router, &mut target);
    assert!(crossed.len() == 1 && crossed[0].ends_with(&syn));
    assert_eq!(target.delivered(), [segment("10.99.0.10", 4000, "10.77.0.100", 80, SYN)]);
    assert!(router.delivered().is_empty());
    target.lease(1, 8);
    target.receive(APPLICATION, &answer(4000, SYN | ACK));
    let answers = target.client_receives();
    assert_eq!(IpHeader::parse(&answers[0]).unwrap().upper, protocol::AH);
    assert_eq!(client.open(&answers[0]).unwrap(), answer(4000, SYN | ACK));
    router.only_dropped(&[]);
    target.only_dropped(&[]);
}

#[test]
fn a_replay_and_a_forgery_are_dropped_at_the_router_and_make_no_entry() {
    let (mut bench, mut client) = settled(AH);
    bench.events();
    let syn = client.tcp(4000, SYN);
    for at in [24, 30, 34, 60, syn.len() - 1] {
        let mut forged = syn.clone();
        forged[at] ^= 1;
        bench.receive(NETWORK, &forged);
    }
    assert!(bench.delivered().is_empty() && bench.engine.router.table.is_empty() && bench.events().is_empty());
    let refused = [DropReason::BadIcv, DropReason::UnknownSpi].map(|reason| bench.drops(reason));
    assert_eq!(refused, [4, 1]);
    let ack = client.tcp(4000, ACK);
    for packet in [&syn, &ack, &syn, &ack] {
        bench.receive(NETWORK, packet);
    }
    assert_eq!(bench.delivered().len(), 2);
    assert_eq!(bench.drops(DropReason::Replay), 2);
}

#[test]
fn what_is_not_tcp_is_the_routers_own() {
    for shape in [AH, Shape { transport: true, inner: AH.client, ..AH }] {
        let (mut bench, mut client) = settled(shape);
        let ping = inner(shape.inner, shape.vip, protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
        bench.receive(NETWORK, &client.seal(&ping));
        assert_eq!(bench.delivered(), [ping]);
        assert_eq!(bench.stats.stage(Stage::RouterLocal), 1);
        bench.only_dropped(&[]);
    }
}

#[test]
fn in_one_burst_packets_of_both_protocols_are_each_judged_by_themselves() {
    let (mut bench, mut ah) = settled(AH);
    let esp_in = SaParams { spi: Spi(0xe500), ..TUNNEL.sa(SaId(3), Direction::Inbound) };
    bench.order(Command::AddInbound(Box::new(InboundSa::new(esp_in.clone()).unwrap())));
    bench.order(Command::Ceiling(SaId(3), 1 << 30));
    let mut esp = Client::new();
    let turned = SaParams {
        direction: Direction::Outbound,
        local: esp_in.remote,
        remote: esp_in.local,
        mode: TUNNEL.mode(esp_in.remote, esp_in.local),
        ..esp_in
    };
    esp.out = OutboundSa::new(turned).unwrap();
    let mut burst = Vec::new();
    for port in 0..8 {
        let mut packet = if port % 2 == 0 { ah.tcp(4000 + port, SYN) } else { esp.tcp(4000 + port, SYN) };
        // One of each is damaged.
        let last = packet.len() - 1;
        packet[last] ^= u8::from(port == 2 || port == 5);
        burst.push(packet);
    }
    let frames =
        burst.iter().map(|packet| VecBuffer::from_slice(128, &framed(packet, bench.mac(NETWORK), CLIENT_MAC), 256));
    let frames: Vec<_> = frames.collect();
    bench.engine.receive(NETWORK, frames.into_iter(), bench.now);
    let expected = [0, 1, 3, 4, 6, 7].map(|port| segment("10.99.0.10", 4000 + port, "10.77.0.100", 80, SYN));
    let mut delivered = bench.delivered();
    delivered.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(delivered, expected);
    bench.only_dropped(&[(DropReason::BadIcv, 2)]);
}

#[test]
fn ah_of_another_length_and_a_fragment_header_in_front_are_refused_by_name() {
    let (mut bench, mut client) = settled(AH);
    let mut long = client.tcp(4000, SYN);
    long[21] += 2;
    bench.receive(NETWORK, &long);
    bench.only_dropped(&[(DropReason::BadAh, 1)]);
}

#[test]
fn an_answer_that_does_not_fit_is_told_of_and_one_that_may_be_cut_is() {
    let (mut bench, mut client) = settled(AH);
    bench.lease(1, 100);
    let big = inner("10.77.0.100", "10.99.0.10", protocol::ICMP, &vec![0; 1470 - 20]);
    bench.receive(APPLICATION, &big);
    // RFC 1191 §4: what fits is 1500 bytes without the outer header and AH.
    let told = bench.delivered();
    assert_eq!(told[0][26..28], (1500u16 - 20 - 28).to_be_bytes());
    let mut cut = big.clone();
    cut[6] = 0;
    cut[10..12].fill(0);
    let sum = phalanx_wire::checksum::internet(&cut[..20]);
    cut[10..12].copy_from_slice(&sum.to_be_bytes());
    bench.receive(APPLICATION, &cut);
    let pieces = bench.client_receives();
    assert_eq!(pieces.len(), 2);
    let inside: Vec<usize> = pieces.iter().map(|piece| client.open(piece).unwrap().len() - 20).collect();
    assert_eq!(inside.iter().sum::<usize>(), 1450);
    bench.only_dropped(&[(DropReason::TooBig, 1)]);
}
