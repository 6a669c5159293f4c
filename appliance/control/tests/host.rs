//! Host isolation against a real kernel, in network namespaces of its own: a host with a network port (`net0`), a management
//! interface (`mgmt`), a TAP (`px0`, here a veth so that the other end can be looked at) and a neighbour that is at all three.
//!
//! Needs root, like the appliance itself; without it the test says so and ends.

use phalanx_control::host::{HostError, HostIsolation, HostPlan};
use std::io::Write;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const VIP: &str = "10.77.0.100";
const VIP6: &str = "fd77::100";

/// Runs a shell line; its output, and whether it went well.
fn sh(line: &str) -> (bool, String) {
    let output = Command::new("bash").args(["-c", line]).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[track_caller]
fn must(line: &str) -> String {
    let (good, out) = sh(line);
    assert!(good, "{line}: {out}");
    out
}

/// Namespaces that go with the value.
struct Bed {
    host: String,
    peer: String,
}

impl Drop for Bed {
    fn drop(&mut self) {
        sh(&format!("ip netns pids {0} | xargs -r kill; ip netns pids {1} | xargs -r kill", self.host, self.peer));
        sh(&format!("ip netns del {}; ip netns del {}", self.host, self.peer));
    }
}

fn bed(tag: &str) -> Bed {
    let id = std::process::id();
    let bed = Bed { host: format!("pxh{id}{tag}"), peer: format!("pxp{id}{tag}") };
    let (h, p) = (&bed.host, &bed.peer);
    must(&format!(
        "set -e; ip netns add {h}; ip netns add {p}
         ip -n {h} link set lo up; ip -n {p} link set lo up
         ip -n {h} link add net0 type veth peer name net0 netns {p}
         ip -n {h} link add mgmt type veth peer name mgmt netns {p}
         ip -n {h} link set mgmt addrgenmode none up; ip -n {p} link set mgmt up; ip -n {p} link set net0 up
         ip -n {h} addr add 10.79.0.1/24 dev mgmt; ip -n {p} addr add 10.79.0.2/24 dev mgmt
         ip -n {h} addr add fd79::1/64 dev mgmt nodad; ip -n {p} addr add fd79::2/64 dev mgmt nodad
         ip -n {h} route add default via 10.79.0.2; ip -n {h} -6 route add default via fd79::2
         ip -n {p} addr add 10.77.0.10/24 dev net0"
    ));
    bed
}

/// Runs the test of that name again inside the host's namespace.
fn inside(bed: &Bed, name: &str) {
    if !is_root() {
        return;
    }
    let me = std::env::current_exe().unwrap();
    let status = Command::new("ip")
        .args(["netns", "exec", &bed.host])
        .arg(me)
        .args(["--exact", name, "--nocapture"])
        .env("PX_PEER", &bed.peer)
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside its namespace");
}

fn is_root() -> bool {
    must("id -u").trim() == "0"
}

/// The neighbour's namespace, if we are the inner run.
fn peer() -> Option<String> {
    std::env::var("PX_PEER").ok()
}

fn plan(folder: &Path) -> HostPlan {
    HostPlan {
        node: "t-1".into(),
        state_dir: folder.to_owned(),
        tap: "px0".into(),
        tap_mtu: 1400,
        software_ports: vec!["net0".into()],
    }
}

/// What the data plane does when it starts: the TAP appears. Both ends have one MAC, as a TAP and its process do.
fn tap(peer: &str) {
    must(&format!(
        "set -e; ip link add px0 address 02:00:00:00:00:07 type veth peer name px0 netns {peer}
         ip -n {peer} link set px0 address 02:00:00:00:00:07 arp off up
         ip -n {peer} addr replace 10.99.0.10/32 dev px0
         ip -n {peer} route replace {VIP} dev px0 src 10.99.0.10"
    ));
}

/// Packets from the VIP that came to the neighbour by anything but the TAP.
fn leaked(peer: &str) -> u64 {
    let rules = must(&format!("ip netns exec {peer} nft list table netdev seen"));
    let counts = rules.split("packets ").skip(1).map(|r| r.split(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

/// Counts from now on.
fn reset(peer: &str) {
    let rules = format!("ip saddr {VIP} counter\nip6 saddr {VIP6} counter\narp saddr ip {VIP} counter");
    let hook = |name: &str, rules: &str| {
        format!("chain {name} {{\ntype filter hook ingress device {name} priority 0\n{rules}\n}}\n")
    };
    let table = format!(
        "table netdev seen {{}}\ndelete table netdev seen\ntable netdev seen {{\n{}{}}}\n",
        hook("mgmt", &rules),
        hook("net0", "counter")
    );
    must(&format!("ip netns exec {peer} nft -f - <<'X'\n{table}\nX"));
}

/// Whether the neighbour gets a TCP connection to the VIP through an interface.
fn connects(peer: &str, vip: &str, route: &str) -> bool {
    tries(peer, vip, route).0
}

/// Whether somebody on an interface says that the VIP is his, by ARP or ND.
fn claimed(peer: &str, vip: &str, interface: &str) -> bool {
    tries(peer, vip, &format!("dev {interface}")).1
}

/// Connected; and the VIP was resolved to a MAC address.
fn tries(peer: &str, vip: &str, route: &str) -> (bool, bool) {
    must(&format!("ip -n {peer} route replace {vip} {route}; ip -n {peer} neigh flush all"));
    let connected = sh(&format!("ip netns exec {peer} timeout 1 bash -c '</dev/tcp/{vip}/8080'")).0;
    let resolved = must(&format!("ip -n {peer} neigh show {vip}")).contains("lladdr");
    must(&format!("ip -n {peer} route del {vip}"));
    (connected, resolved)
}

/// A connection that the neighbour keeps open through the TAP.
fn client(peer: &str) -> Child {
    Command::new("ip")
        .args(["netns", "exec", peer, "bash", "-c", &format!("exec 3<>/dev/tcp/{VIP}/8080; cat <&3 >/dev/null")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        if let Ok((stream, _)) = listener.accept() {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("no connection came through the TAP");
}

fn vips() -> [IpAddr; 2] {
    [VIP.parse().unwrap(), VIP6.parse().unwrap()]
}

fn host_state() -> String {
    must(
        "nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -o addr show mgmt; \
         ip -o addr show net0; ip -o link show net0 | sed 's/state [A-Z]*//'; cat /proc/sys/net/ipv6/conf/net0/disable_ipv6",
    )
}

#[test]
fn a_vip_passes_by_the_tap_only_through_life_death_and_the_next_life() {
    let Some(peer) = peer() else {
        if !is_root() {
            eprintln!("not root: host isolation was not tested");
            return;
        }
        return inside(&bed("a"), "a_vip_passes_by_the_tap_only_through_life_death_and_the_next_life");
    };
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("[::]:8080").unwrap();
    must("ip link set net0 up; sleep 0.1; ip link set net0 down");

    // Without isolation an address of the host answers on every interface: what is measured below can be seen at all.
    must(&format!("ip addr add {VIP}/32 dev lo"));
    assert!(connects(&peer, VIP, "via 10.79.0.1"), "the control experiment");
    assert!(claimed(&peer, VIP, "mgmt"), "the control experiment, with ARP for the VIP");
    must(&format!("ip addr del {VIP}/32 dev lo"));
    while listener_drained(&listener) {}
    let before = host_state();

    let mut isolation = HostIsolation::apply(plan(folder.path())).unwrap();
    tap(&peer);
    isolation.attach_tap().unwrap();
    isolation.set_vips(vips()).unwrap();
    for (mtu, is) in [(1346, "mtu 1346 "), (1226, "mtu 1280 ")] {
        isolation.set_mtu(mtu).unwrap();
        assert!(must("ip -o link show dev px0").contains(is), "IPv6 asks for 1280");
    }
    reset(&peer);
    refuses(&peer);

    // By the TAP it works, and the answers go back by the TAP.
    must(&format!("ip -n {peer} route replace {VIP} dev px0 src 10.99.0.10"));
    let mut first = client(&peer);
    let mut stream = accept(&listener);
    stream.write_all(b"hello").unwrap();
    // Another wire, forced: no.
    sh(&format!(
        "ping -c1 -W1 -I mgmt -I {VIP} 10.79.0.2; ping -c1 -W1 -I {VIP} 10.79.0.2; ping -6 -c1 -W1 -I {VIP6} fd79::2"
    ));
    assert_eq!(leaked(&peer), 0, "packets from the VIP on another wire");

    // The process is killed: its TAP goes, everything else stays.
    drop(isolation);
    must("ip link del px0");
    let _ = stream.write_all(b"this must not leave");
    let _ = stream.write_all(&[0; 4000]);
    std::thread::sleep(Duration::from_millis(700));
    refuses(&peer);
    assert_eq!(leaked(&peer), 0, "packets from the VIP after the process died");

    // The next life takes over, even before it knows any VIP, and ends it all.
    let mut isolation = HostIsolation::apply(plan(folder.path())).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(leaked(&peer), 0);
    tap(&peer);
    isolation.attach_tap().unwrap();
    isolation.set_vips(vips()).unwrap();
    let mut second = client(&peer);
    let _other = accept(&listener);
    isolation.remove().unwrap();
    must("ip link del px0");
    assert_eq!(leaked(&peer), 0);
    assert_eq!(must(&format!("ss -Hant state connected src {VIP}; ss -Hant state connected src [::ffff:{VIP}]")), "");
    assert!(!folder.path().join("host.json").exists());
    assert_eq!(host_state(), before, "the host is as it was");
    for client in [&mut first, &mut second] {
        let _ = client.kill();
        let _ = client.wait();
    }
}

fn listener_drained(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

/// By no wire but the TAP is the VIP to be reached, or asked for.
#[track_caller]
fn refuses(peer: &str) {
    assert!(!connects(peer, VIP, "via 10.79.0.1"), "a clear SYN by another interface");
    assert!(!claimed(peer, VIP, "mgmt"), "ARP for the VIP was answered");
    assert!(!connects(peer, VIP, "dev net0"), "a clear SYN by the network port");
    assert!(!connects(peer, VIP6, "via fd79::1"), "a clear SYN by another interface, IPv6");
    assert!(!claimed(peer, VIP6, "mgmt"), "ND for the VIP was answered");
}

#[test]
fn a_vip_that_moves_away_takes_its_sockets_and_rules_with_it() {
    let Some(peer) = peer() else {
        if !is_root() {
            eprintln!("not root: host isolation was not tested");
            return;
        }
        return inside(&bed("b"), "a_vip_that_moves_away_takes_its_sockets_and_rules_with_it");
    };
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
    let mut isolation = HostIsolation::apply(plan(folder.path())).unwrap();
    tap(&peer);
    isolation.attach_tap().unwrap();
    isolation.set_vips(vips()).unwrap();
    let mut open = client(&peer);
    let _stream = accept(&listener);
    isolation.set_vips([VIP6.parse::<IpAddr>().unwrap()]).unwrap();
    assert_eq!(must(&format!("ss -Hant state connected src {VIP}")), "");
    let state = must("nft list ruleset; ip rule; ip -o addr show px0");
    assert!(!state.contains(VIP) && state.contains(VIP6), "{state}");
    isolation.remove().unwrap();
    let _ = open.kill();
    let _ = open.wait();
}

#[test]
fn a_port_that_the_host_uses_is_not_taken_from_it() {
    if peer().is_none() {
        if !is_root() {
            eprintln!("not root: host isolation was not tested");
            return;
        }
        return inside(&bed("c"), "a_port_that_the_host_uses_is_not_taken_from_it");
    }
    let folder = tempfile::tempdir().unwrap();
    must("ip addr add 10.77.0.1/24 dev net0");
    let error = HostIsolation::apply(plan(folder.path())).unwrap_err();
    assert!(matches!(error, HostError::PortInUse { .. }));
    assert!(error.to_string().contains("ip addr flush dev net0"), "{error}");
    assert!(!must("nft list ruleset").contains("phalanx"), "nothing was done");
}
