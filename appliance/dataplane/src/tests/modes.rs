//! The same connection in every mode and family.

use super::*;
use phalanx_wire::ipv6;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const V4: Shape = TUNNEL;
const V6: Shape = Shape { vip: "fd77::100", client: "fd77::10", inner: "fd99::10", ..TUNNEL };

fn shapes() -> Vec<Shape> {
    let transport = |shape: Shape| Shape { inner: shape.client, transport: true, ..shape };
    let all = [V4, V6, transport(V4), transport(V6)];
    let numbered = |&shape: &Shape| [shape, Shape { esn: false, ..shape }];
    let with = |shape: Shape| {
        [
            shape.algorithm,
            Algorithm::AhHmacSha256,
            Algorithm::AhHmacSha384,
            Algorithm::AhHmacSha512,
            Algorithm::AhGmac128,
        ]
        .map(|algorithm| Shape { algorithm, ..shape })
    };
    all.iter().flat_map(numbered).flat_map(with).collect()
}

#[test]
fn a_connection_goes_both_ways_in_every_mode_and_family() {
    for shape in shapes() {
        let (mut bench, mut client) = (Bench::new(1), Client::of(shape));
        bench.shape = shape;
        bench.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
        bench.lease(1, 10);
        let (to, from) = ((shape.inner, 4000, shape.vip, 80), (shape.vip, 80, shape.inner, 4000));
        let way = |(src, src_port, dst, dst_port): (&str, u16, &str, u16), flags| {
            segment(src, src_port, dst, dst_port, flags)
        };
        bench.receive(NETWORK, &client.seal(&way(to, SYN)));
        bench.receive(APPLICATION, &way(from, SYN | ACK));
        bench.receive(NETWORK, &client.seal(&way(to, ACK)));
        assert_eq!(bench.delivered(), [way(to, SYN), way(to, ACK)]);
        let answers = bench.client_receives();
        assert_eq!(client.open(&answers[0]).unwrap(), way(from, SYN | ACK));
        assert_eq!((bench.stats.stage(Stage::Forwarded), bench.stats.stage(Stage::SynOpened)), (2, 1));
        assert!(bench.events().iter().any(|event| matches!(event, Event::ConnOpened { .. })));
        bench.only_dropped(&[]);
    }
}

#[test]
fn a_tcp_header_behind_long_extension_headers_is_found_by_a_second_peek() {
    let (mut bench, mut client) = (Bench::new(1), Client::of(V6));
    bench.shape = V6;
    bench.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
    for (flags, options) in [(SYN, 8), (ACK, 160)] {
        let plain = segment(V6.inner, 4000, V6.vip, 80, flags);
        let mut packet = plain[..ipv6::LEN].to_vec();
        packet.resize(ipv6::LEN + options, 0);
        ipv6::write_padding_options(&mut packet[ipv6::LEN..], protocol::TCP, options).unwrap();
        packet.extend_from_slice(&plain[ipv6::LEN..]);
        ip::set_upper(&mut packet, 6, protocol::DESTINATION).unwrap();
        let len = packet.len();
        ip::set_total_len(&mut packet, len).unwrap();
        bench.receive(NETWORK, &client.seal(&packet));
        assert_eq!(bench.delivered(), [packet]);
    }
    assert_eq!(bench.stats.stage(Stage::Forwarded), 2);
    bench.only_dropped(&[]);
}
