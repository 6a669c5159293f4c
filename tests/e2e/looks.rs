//! What the stories look at: the nodes' own figures, and what must hold of any capture.

use crate::bed::{Bed, TO_CLIENT, TO_VIP};
use crate::wire::{Capture, Frame, Mac, What};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The nodes of the cluster.
pub const NODES: [&str; 3] = ["r", "t1", "t2"];

/// The addresses of the protected connection: nothing with one of them may be seen in clear.
const PROTECTED: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100)),
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x10)),
];

/// MAC address of a node's network port.
pub fn network_mac(node: &str) -> Mac {
    let last = match node {
        "r" => 0x01,
        "t1" => 0x11,
        "t2" => 0x12,
        other => panic!("no node {other}"),
    };
    [0x02, 0x70, 0x77, 0x00, 0x01, last]
}

/// What a capture at the network bridge showed.
#[derive(Debug, Default)]
pub struct Wire {
    /// ESP towards the VIP.
    pub to_vip: u64,
    /// ESP towards the client, by the MAC address that sent it.
    pub from_vip: BTreeMap<Mac, u64>,
    /// Frames in clear with an address of the protected connection.
    pub clear: Vec<Frame>,
    /// Frames in which somebody claims in ARP or ND to have the VIP, by the MAC address that sent them.
    pub claims: BTreeMap<Mac, u64>,
}

impl Wire {
    /// Reads a whole capture.
    pub fn of(path: &Path) -> Wire {
        let mut wire = Wire::default();
        for captured in Capture::open(path) {
            wire.add(Frame::parse(&captured));
        }
        wire
    }

    fn add(&mut self, frame: Frame) {
        let claimed = |address: IpAddr| PROTECTED.contains(&address);
        match frame.what {
            What::Esp { spi: TO_VIP, .. } => self.to_vip += 1,
            What::Esp { spi: TO_CLIENT, .. } => *self.from_vip.entry(frame.from).or_default() += 1,
            What::Arp { sender, .. } if claimed(sender.into()) => {
                *self.claims.entry(frame.from).or_default() += 1
            }
            What::Nd {
                source,
                about,
                advertisement,
            } if claimed(source.into()) || advertisement && claimed(about.into()) => {
                *self.claims.entry(frame.from).or_default() += 1;
            }
            What::Clear {
                source,
                destination,
                ..
            } if claimed(source) || claimed(destination) => self.clear.push(frame),
            _ => {}
        }
    }

    /// ESP towards the client that a node's own MAC address sent.
    pub fn answers(&self, node: &str) -> u64 {
        self.from_vip.get(&network_mac(node)).copied().unwrap_or(0)
    }
}

/// Dropped packets of a node by reason, those that were never 0 only.
pub fn drops(bed: &Bed, node: &str) -> BTreeMap<String, u64> {
    let all = bed.query(node, "drop");
    let mut by_reason = BTreeMap::new();
    collect_drops(&all, &mut by_reason);
    by_reason
}

/// Adds up every `{ "reason": …, "packets": … }`.
fn collect_drops(value: &serde_json::Value, into: &mut BTreeMap<String, u64>) {
    if let (Some(reason), Some(packets)) = (value["reason"].as_str(), value["packets"].as_u64()) {
        *into.entry(reason.to_owned()).or_default() += packets;
    }
    match value {
        serde_json::Value::Array(list) => list.iter().for_each(|v| collect_drops(v, into)),
        serde_json::Value::Object(map) => map.values().for_each(|v| collect_drops(v, into)),
        _ => {}
    }
}

/// Dropped packets of the whole cluster by reason.
pub fn all_drops(bed: &Bed) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for node in NODES {
        for (reason, n) in drops(bed, node) {
            *sum.entry(reason).or_default() += n;
        }
    }
    sum
}

/// Packets that the appliances handed to their hosts: what came out of all tunnels, in the whole cluster.
pub fn delivered(bed: &Bed) -> u64 {
    NODES.iter().map(|node| delivered_on(bed, node)).sum()
}

/// Packets that one appliance handed to its host.
pub fn delivered_on(bed: &Bed, node: &str) -> u64 {
    let namespace = bed.namespace(node);
    let arguments = [
        "netns",
        "exec",
        &namespace,
        "cat",
        "/sys/class/net/vip0/statistics/rx_packets",
    ];
    let output = std::process::Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip can be run");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or(0)
}

/// IP packets that a host got twice, byte for byte: a genuine retransmission differs in its IP id, numbers or time stamps. Segments with
/// RST are left out: those are answers to other segments and alike by design.
pub fn delivered_twice(paths: &[&Path]) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    let mut twice = Vec::new();
    for path in paths {
        for captured in Capture::open(path) {
            let packet = captured.get(14..).unwrap_or_default().to_vec();
            let to_us = captured.get(12..14) == Some(&[8, 0])
                && packet.get(16..20) == Some(&[10, 77, 0, 100]);
            let reset = packet.get(33).is_some_and(|flags| flags & 4 != 0);
            if to_us && packet[9] == 6 && !reset && !seen.insert(packet.clone()) {
                twice.push(packet);
            }
        }
    }
    twice
}

/// Every connection in the router's table, as objects.
fn router_connections(bed: &Bed) -> Vec<serde_json::Value> {
    let answer = bed.query("r", "conn");
    let list = answer
        .as_array()
        .cloned()
        .or_else(|| answer["connections"].as_array().cloned());
    list.unwrap_or_else(|| panic!("`phalanx conn --json` lists no connections: {answer}"))
}

/// Entries of the router's connection table.
pub fn connections(bed: &Bed) -> usize {
    router_connections(bed).len()
}

/// Entries of the router's connection table that lead to a target.
pub fn connections_of(bed: &Bed, target: &str) -> usize {
    router_connections(bed)
        .iter()
        .filter(|c| c["target"] == target)
        .count()
}
