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

/// New connections, shared by both targets.
pub fn pages(bed: &Bed, count: usize) {
    let before = [bed.served("t1"), bed.served("t2")];
    let host = bed.host();
    let pages = bed.guest_ok(&format!("curl -sS --max-time 20 'http://{host}/?[1-{count}]' -H 'Connection: close'"));
    assert_eq!(pages.matches("served by").count(), count, "{pages}");
    let served = ["t1", "t2"].map(|target| bed.served(target));
    assert_eq!([served[0] - before[0], served[1] - before[1]], [count / 2, count / 2], "round robin");
}

/// The last part of a node's addresses on every network.
pub fn number(node: &str) -> u8 {
    match node {
        "r" => 1,
        "t1" => 11,
        "t2" => 12,
        other => panic!("no node {other}"),
    }
}

/// MAC address of a node's network port.
pub fn network_mac(node: &str) -> Mac {
    [0x02, 0x70, 0x77, 0x00, 0x01, digits(number(node))]
}

/// MAC address of a node's link port.
pub fn link_mac(node: &str) -> Mac {
    [0x02, 0x70, 0x78, 0x00, 0x00, digits(number(node))]
}

/// The bed writes decimal digits into its MAC addresses: 11 is 0x11.
fn digits(number: u8) -> u8 {
    number / 10 * 16 + number % 10
}

/// What a capture at the network bridge showed.
#[derive(Debug, Default)]
pub struct Wire {
    /// ESP or AH towards the VIP.
    pub to_vip: u64,
    /// ESP or AH towards the client, by the MAC address that sent it.
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
            What::Esp { spi: TO_VIP, .. } | What::Ah { spi: TO_VIP, .. } => self.to_vip += 1,
            What::Esp { spi: TO_CLIENT, .. } | What::Ah { spi: TO_CLIENT, .. } => {
                *self.from_vip.entry(frame.from).or_default() += 1;
            }
            What::Arp { sender, .. } if claimed(sender.into()) => *self.claims.entry(frame.from).or_default() += 1,
            What::Nd { source, about, advertisement }
                if claimed(source.into()) || advertisement && claimed(about.into()) =>
            {
                *self.claims.entry(frame.from).or_default() += 1;
            }
            What::Clear { source, destination, .. } if claimed(source) || claimed(destination) => {
                self.clear.push(frame)
            }
            _ => {}
        }
    }

    /// ESP or AH towards the client that a node's own MAC address sent.
    pub fn answers(&self, node: &str) -> u64 {
        self.from_vip.get(&network_mac(node)).copied().unwrap_or(0)
    }
}

/// Dropped packets of a node by reason.
pub fn drops(bed: &Bed, node: &str) -> BTreeMap<String, u64> {
    let rows = bed.query(node, "drop");
    let row = |row: &serde_json::Value| Some((row["reason"].as_str()?.to_owned(), row["packets"].as_u64()?));
    rows.as_array().expect("a row for each reason").iter().map(|r| row(r).expect("a reason and a number")).collect()
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
    let arguments = ["netns", "exec", &namespace, "cat", "/sys/class/net/vip0/statistics/rx_packets"];
    let output = std::process::Command::new("ip").args(arguments).output().expect("ip can be run");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
}

/// IP packets that a host got twice, byte for byte: a genuine retransmission differs in its IP id, numbers or time stamps. Segments with
/// RST are left out: those are answers to other segments and alike by design.
pub fn delivered_twice(paths: &[&Path]) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    let mut twice = Vec::new();
    for path in paths {
        for captured in Capture::open(path) {
            let packet = captured.get(14..).unwrap_or_default().to_vec();
            let to_us = captured.get(12..14) == Some(&[8, 0]) && packet.get(16..20) == Some(&[10, 77, 0, 100]);
            let reset = packet.get(33).is_some_and(|flags| flags & 4 != 0);
            if to_us && packet[9] == 6 && !reset && !seen.insert(packet.clone()) {
                twice.push(packet);
            }
        }
    }
    twice
}

/// Entries of the router's connection table.
pub fn connections(bed: &Bed) -> usize {
    bed.query("r", "conn").as_array().expect("a list").len()
}

/// Entries of the router's connection table that lead to a target.
pub fn connections_of(bed: &Bed, target: &str) -> usize {
    bed.query("r", "conn").as_array().expect("a list").iter().filter(|c| c["target"] == target).count()
}

/// Every node's own account of what must hold.
pub fn assert_invariants(bed: &Bed) {
    for node in NODES {
        let status = bed.query(node, "status");
        let invariants = status["invariants"].as_array().expect("a list");
        let broken: Vec<_> = invariants.iter().filter(|i| i["violations"].as_u64() != Some(0)).collect();
        assert!(broken.is_empty() && !invariants.is_empty(), "{node}: {broken:?}");
    }
}
