//! A configuration, a client with SAs of its own, and captures of what they say to each other.

use std::net::IpAddr;
use std::time::Duration;

use phalanx_ipsec::{Direction, Lease, Mode, OutboundSa, SaParams};
use phalanx_wire::{Buffer, TcpFlags, TcpHeader, VecBuffer, ip, protocol, tcp};
use serde_json::Value;

use super::*;
use crate::config;
use crate::node::plan;

const VIP: &str = "10.77.0.100";
const CLIENT: &str = "10.99.0.9";

fn configuration() -> Config {
    configured(|text| text.to_owned())
}

/// The same, its text changed.
fn configured(change: impl FnOnce(&str) -> String) -> Config {
    let text = r#"
        node = { name = "r" }
        [cluster]
        name = "demo"
        listen = "10.79.0.1:7400"
        certificate = "r.pem"
        key = "r.key"
        ca = "ca.pem"
        node = [{ name = "r", link = ["10.78.0.1"] }, { name = "t1", link = ["10.78.0.11"] }, { name = "t2", link = ["10.78.0.12"] }]
        [[port]]
        name = "net"
        device = "0000:01:00.0"
        role = "network"
        addresses = ["10.77.0.1/24"]
        [[port]]
        name = "link"
        device = "0000:01:00.1"
        role = "link"
        addresses = ["10.78.0.1/24"]
        mtu = 1600
        [[port]]
        name = "app"
        device = "net_tap,iface=px0"
        role = "application"
        [[core]]
        cpu = 900
        roles = ["router"]
        ports = ["net", "link", "app"]
        [[vip]]
        name = "web"
        address = "10.77.0.100/24"
        owner = "r"
        distribute = [{ ports = [80], targets = ["t1", "t2"] }]
        [[sa]]
        name = "client"
        vip = "web"
        peer = "203.0.113.9"
        mode = "tunnel"
        remote = "10.99.0.0/24"
        inbound = { spi = 0x1001, key = "000102030405060708090a0b0c0d0e0f10111213", window = 64 }
        outbound = { spi = 0x2001, key = "202122232425262728292a2b2c2d2e2f30313233", window = 64 }
    "#;
    config::check(Path::new("px.toml"), &change(text), None).expect("in order").config
}

/// A TCP segment in an IP packet.
fn segment(from: (&str, u16), to: (&str, u16), flags: u8) -> Vec<u8> {
    let [src, dst] = [from.0, to.0].map(|address| address.parse::<IpAddr>().unwrap());
    let mut packet = vec![0; 20 + tcp::MIN_LEN];
    let fields = ip::Fields {
        src,
        dst,
        protocol: protocol::TCP,
        payload_len: tcp::MIN_LEN,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).unwrap();
    let flags = TcpFlags(flags);
    let header =
        TcpHeader { src_port: from.1, dst_port: to.1, seq: 1, ack: 0, data_offset: tcp::MIN_LEN, flags, window: 9 };
    header.write(&mut packet[20..]).unwrap();
    tcp::set_checksum(src, dst, &mut packet[20..]).unwrap();
    packet
}

/// What the client sends with the numbers 1, 2, 3...
fn sealed(config: &Config, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    sealed_by(config, 0, packets)
}

/// The same by the SA at this place of the configuration.
fn sealed_by(config: &Config, sa: usize, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let ours = plan::pairs(config).unwrap().remove(sa).inbound;
    let mut theirs = SaParams { direction: Direction::Outbound, ..(*ours).clone() };
    (theirs.local, theirs.remote) = (ours.remote, ours.local);
    if ours.mode != Mode::Transport {
        theirs.mode = Mode::Tunnel { local: theirs.local, remote: theirs.remote };
    }
    (theirs.selectors.local, theirs.selectors.remote) = (ours.selectors.remote, ours.selectors.local);
    let (mut sa, mut numbers) = (OutboundSa::new(theirs).unwrap(), Lease::from_wire(1, 99));
    let mut seal = |packet: &Vec<u8>| {
        let mut buffer = VecBuffer::from_slice(128, packet, 128);
        sa.seal(&mut buffer, numbers.take().unwrap()).unwrap();
        buffer.bytes().to_vec()
    };
    packets.iter().map(&mut seal).collect()
}

/// The lines about a capture of these packets, and what came out.
fn told(config: &Config, role: Role, packets: &[Vec<u8>]) -> (Vec<Value>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let [into, out] = ["in.pcap", "out.pcap"].map(|name| folder.path().join(name));
    let mut writer = Writer::new(&into, Link::Raw(101)).unwrap();
    for (packet, n) in packets.iter().zip(0..) {
        writer.add(Duration::from_millis(n), &[&[0; 14][..], packet].concat()).unwrap();
    }
    writer.finish().unwrap();
    let mut lines = Vec::new();
    let options = Options { role, out: Some(&out), first_seq: 7, listening: None };
    explain(config, std::fs::File::open(&into).unwrap(), &options, &mut lines).unwrap();
    let mut reader = Reader::new(std::fs::File::open(&out).unwrap()).unwrap();
    let came_out = std::iter::from_fn(|| reader.packet().unwrap()).map(|packet| packet.bytes).collect();
    (String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect(), came_out)
}

fn verdicts(lines: &[Value]) -> Vec<String> {
    let word = |line: &Value, key: &str| line[key].as_str().map(str::to_owned);
    let of = |line| [word(line, "verdict"), word(line, "target"), word(line, "reason")].into_iter().flatten();
    lines.iter().map(|line| of(line).collect::<Vec<_>>().join(" ")).collect()
}

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

#[test]
fn a_router_forwards_what_a_target_opens_and_an_endpoint_does_both() {
    let config = configuration();
    let inner: Vec<_> = [(4000, 80, SYN), (4001, 80, SYN), (4000, 80, ACK), (4002, 22, SYN)]
        .map(|(from, to, flags)| segment((CLIENT, from), (VIP, to), flags))
        .into();
    let mut packets = sealed(&config, &inner);
    packets.push(packets[0].clone());
    let (lines, _) = told(&config, Role::Router, &packets);
    assert_eq!(verdicts(&lines), ["forward t1", "forward t2", "forward t1", "local", "drop replay"]);
    assert_eq!((&lines[2]["seq"], &lines[2]["spi"]), (&Value::from(3), &Value::from("0x00001001")));
    assert_eq!(lines[2]["connection"]["remote"], "10.99.0.9:4000");
    for role in [Role::Target, Role::Endpoint] {
        let (lines, came_out) = told(&config, role, &packets);
        assert_eq!(verdicts(&lines), ["open", "open", "open", "open", "drop replay"], "{role:?}");
        assert_eq!(came_out, inner, "{role:?}");
        assert_eq!(lines[3]["out"], serde_json::json!([4]));
    }
}

#[test]
fn ah_around_esp_is_told_of_as_the_esp_in_it() {
    let config = configured(|text| {
        let around = "[[sa]]\nname = \"around\"\nvip = \"web\"\npeer = \"203.0.113.9\"\nmode = \"transport\"\n\
                      algorithm = \"ah-hmac-sha256\"\n";
        let halves = [("inbound", "0x3001", "aa"), ("outbound", "0x4001", "bb")]
            .map(|(way, spi, key)| format!("{way} = {{ spi = {spi}, key = \"{}\" }}\n", key.repeat(32)));
        format!("{text}\nwithin = \"around\"\n{around}{}", halves.concat())
    });
    let pairs = plan::pairs(&config).unwrap();
    assert_eq!((pairs[0].outbound.path_mtu, pairs[1].outbound.path_mtu), (1500 - 28, 1500));
    assert_eq!((pairs[0].filters.len(), pairs[1].filters.len()), (1, 0), "nothing goes through AH alone");
    let inner: Vec<_> = [(4000, 80, SYN), (4000, 80, ACK), (4002, 22, SYN)]
        .map(|(from, to, flags)| segment((CLIENT, from), (VIP, to), flags))
        .into();
    let esp = sealed(&config, &inner);
    let mut packets = sealed_by(&config, 1, &esp);
    packets.extend([packets[0].clone(), esp[1].clone()]);
    let (lines, _) = told(&config, Role::Router, &packets);
    assert_eq!(verdicts(&lines), ["forward t1", "forward t1", "local", "drop replay", "drop missing-ah"]);
    assert_eq!((&lines[1]["seq"], &lines[1]["spi"]), (&Value::from(2), &Value::from("0x00001001")));
    for role in [Role::Target, Role::Endpoint] {
        let (lines, came_out) = told(&config, role, &packets);
        assert_eq!(verdicts(&lines), ["open", "open", "open", "drop replay", "drop missing-ah"], "{role:?}");
        assert_eq!(came_out, inner, "{role:?}");
    }
    let (lines, came_out) = told(&config, Role::Endpoint, &[segment((VIP, 80), (CLIENT, 4000), SYN | ACK)]);
    assert_eq!((verdicts(&lines), came_out[0][9]), (vec!["seal".to_owned()], protocol::AH));
}

#[test]
fn what_a_vip_sends_is_sealed_from_the_first_number_on_and_the_same_every_time() {
    let config = configuration();
    let packets = [
        segment((VIP, 80), (CLIENT, 4000), SYN | ACK),
        segment((VIP, 80), ("192.0.2.1", 4000), ACK),
        segment((VIP, 80), (CLIENT, 4000), ACK),
    ];
    let first = told(&config, Role::Endpoint, &packets);
    assert_eq!(verdicts(&first.0), ["seal", "drop no-filter", "seal"]);
    assert_eq!((&first.0[0]["seq"], &first.0[2]["seq"]), (&Value::from(7), &Value::from(8)));
    assert_eq!(first.0[0]["direction"], "outbound");
    assert_eq!(told(&config, Role::Endpoint, &packets), first);
}

#[test]
fn a_capture_that_breaks_off_is_told_up_to_there() {
    let config = configuration();
    let mut file = Vec::new();
    let options = Options { role: Role::Endpoint, out: None, first_seq: 1, listening: None };
    let nothing = explain(&config, &b"nonsense"[..], &options, &mut file);
    assert!(matches!(nothing, Err(ExplainError::Capture(CaptureError::Header(_)))) && file.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    let mut writer = Writer::new(&path, Link::Raw(101)).unwrap();
    for n in 1..=2 {
        assert_eq!(writer.add(Duration::ZERO, &[0; 60]).unwrap(), n);
    }
    writer.finish().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let cut = explain(&config, &whole[..whole.len() - 3], &options, &mut file);
    assert!(matches!(cut, Err(ExplainError::Capture(CaptureError::Packet(2, _)))));
    assert_eq!(String::from_utf8(file).unwrap().lines().count(), 1);
}
