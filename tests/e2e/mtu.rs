//! Paths that are narrower than they seem, and what is inside a tunnel about it: "too big" both ways, the TAP's MTU, segment sizes,
//! ICMP errors to the target that they concern.

use crate::bed::{Bed, Gateway, TO_CLIENT, Tunnel, wait_until};
use crate::looks::{assert_invariants, delivered_on, drops, network_mac};
use crate::raw::RawSender;
use crate::wire::{Capture, Frame, What, internet_checksum, ipv4_frame};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_path_that_narrows_is_followed_over_ipv4_and_liars_are_not() {
    let bed = Bed::up(Tunnel { gateway: Gateway::Route { mtu: 1400 }, ..Tunnel::PLAIN });
    follows(&bed, 1400, 1346);
    narrow(&bed, 1280);
    // With an IPv6 VIP on it the TAP keeps IPv6's least; ICMP errors do the rest for IPv4.
    let esp = follows(&bed, 1280, 1280);
    liars(&bed, &esp);
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), []);
}

#[test]
fn a_path_that_narrows_is_followed_over_ipv6_down_to_what_no_host_would_go_below() {
    let bed = Bed::up(Tunnel { outer: 6, inner: 6, esn: true, gateway: Gateway::Route { mtu: 1400 }, ..Tunnel::PLAIN });
    follows(&bed, 1400, 1326);
    narrow(&bed, 1280);
    follows(&bed, 1280, 1280);
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), []);
}

/// The wire behind the gateway carries less from now on, towards the client.
fn narrow(bed: &Bed, mtu: u16) {
    run("ip", &["-n", &bed.namespace("gw"), "link", "set", "gin", "mtu", &mtu.to_string()]);
}

/// Two downloads, one from each target, find out what the path carries; then nothing is sent that is longer. One ESP packet of them.
fn follows(bed: &Bed, mtu: u16, tap: u16) -> Vec<u8> {
    bed.progress(&format!("a path of {mtu}"));
    downloads(bed);
    for node in ["r", "t1", "t2"] {
        let path = || bed.try_query(node, "sa").map(|rows| outbound(&rows)["path_mtu"].as_u64().unwrap_or(0));
        wait_until(&format!("{node} knows the path"), SOON, || path() == Some(u64::from(mtu)));
        assert_eq!(outbound(&bed.query(node, "sa"))["path_mtu_configured"], 1500);
    }
    for target in ["t1", "t2"] {
        wait_until(&format!("the TAP of {target}"), SOON, || tap_mtu(bed, target) == u32::from(tap));
        bed.capture("sw", &format!("n-{target}"), &format!("{target}-{mtu}"), &["-s", "128"]);
    }
    downloads(bed);
    let mut some = Vec::new();
    for target in ["t1", "t2"] {
        let lengths = outer_lengths(&bed.capture_end(&format!("{target}-{mtu}")), &mut some);
        let longest = lengths.iter().copied().max().unwrap_or(0);
        assert!(longest <= mtu && longest > mtu - 100, "{target} sent {longest} bytes over a path of {mtu}");
        assert!(lengths.len() > 500, "{target}: {} packets", lengths.len());
    }
    some
}

fn downloads(bed: &Bed) {
    let url = format!("http://{}/megabyte", bed.host());
    for _ in 0..2 {
        let size = bed.guest_ok(&format!("curl -sS --max-time 30 -o /dev/null -w '%{{size_download}}' {url}"));
        assert_eq!(size, "1000000");
    }
}

fn outbound(rows: &serde_json::Value) -> serde_json::Value {
    rows.as_array().and_then(|rows| rows.iter().find(|row| row["direction"] == "outbound")).cloned().unwrap_or_default()
}

/// Lengths of the IP packets from the VIP to the client, fragments among them; the last one that begins as ESP goes to `some`.
fn outer_lengths(path: &Path, some: &mut Vec<u8>) -> Vec<u16> {
    let mut lengths = Vec::new();
    for frame in Capture::open(path) {
        match Frame::parse(&frame).what {
            What::Esp { spi: TO_CLIENT, .. } => *some = frame[14..].to_vec(),
            // A fragment of IPv6.
            What::Clear { protocol: 44, .. } => {}
            _ => continue,
        }
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        lengths.push(if frame[12] == 8 { word(16) } else { word(18) + 40 });
    }
    lengths
}

fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().expect("it can be run");
    assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tap_mtu(bed: &Bed, node: &str) -> u32 {
    let path = "/sys/class/net/vip0/mtu";
    run("ip", &["netns", "exec", &bed.namespace(node), "cat", path]).trim().parse().expect("a number")
}

/// An attacker says that `esp`, changed so, was too big for a path of `mtu`.
fn lie(sender: &RawSender, esp: &[u8], mtu: u16, change: impl FnOnce(&mut [u8])) {
    let mut quoted = esp[..28].to_vec();
    change(&mut quoted);
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quoted);
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [source, vip] = [Ipv4Addr::new(10, 77, 0, 66), Ipv4Addr::new(10, 77, 0, 100)];
    sender.send(&ipv4_frame(network_mac("r"), source, vip, 1, &message));
}

fn liars(bed: &Bed, esp: &[u8]) {
    bed.progress("forged \"too big\"");
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let before = drops(bed, "r");
    let path = |field: &str| outbound(&bed.query("r", "sa"))[field].as_u64().expect("a number");
    // Wrong SPI; below the floor; it would have fitted; what is known; a number that was not sent lately.
    lie(&sender, esp, 600, |quoted| quoted[20] ^= 0x40);
    lie(&sender, esp, 68, |_| ());
    lie(&sender, esp, 1400, |_| ());
    lie(&sender, esp, 1280, |quoted| quoted[2..4].copy_from_slice(&1400u16.to_be_bytes()));
    lie(&sender, esp, 600, |quoted| {
        quoted[2..4].copy_from_slice(&1200u16.to_be_bytes());
        quoted[24] ^= 0x40;
    });
    wait_until("the last of them is refused", SOON, || path("path_mtu_refused") == 1);
    for reason in ["mtu-unknown-sa", "mtu-floor", "mtu-implausible", "mtu-not-lower"] {
        let dropped = || drops(bed, "r")[reason] - before.get(reason).copied().unwrap_or(0);
        wait_until(reason, SOON, || dropped() >= 1);
    }
    assert_eq!(path("path_mtu"), 1280);
}

#[test]
fn segment_sizes_are_clamped_and_icmp_errors_reach_the_target_that_they_concern() {
    let bed = Bed::up(Tunnel { sa: "mss_clamp = 1000", ..Tunnel::PLAIN });
    for target in ["t1", "t2"] {
        bed.capture(target, "vip0", &format!("tap-{target}"), &["tcp"]);
    }
    bed.progress("a connection that stays open");
    std::fs::write(bed.file("guest/idle.py"), IDLE).expect("the guest's folder");
    let idle = bed.guest_start("exec /usr/bin/python3 /mnt/idle.py");
    let mut found = None;
    wait_until("the page came and was acknowledged", SOON, || {
        found = ["t1", "t2"].into_iter().find_map(|target| Some((target, last_answer(&bed, target)?)));
        found.is_some()
    });
    let (target, mut answer) = found.expect("found");
    let sizes: Vec<u16> = bed.frames(&format!("tap-{target}")).filter_map(|frame| announced(&frame)).collect();
    assert_eq!(sizes.first(), Some(&1000), "the client's SYN, as the target's kernel got it: {sizes:?}");
    let seen = bed.guest_ok("cat /mnt/idle.mss");
    assert!(seen.trim().parse::<u16>().expect("a size") <= 1000, "the client's kernel heard of it: {seen}");

    bed.progress("an error about it, from the client's end of the tunnel");
    let local = delivered_on(&bed, "r");
    // The number of the next byte, which is what an idle connection's kernel takes for current.
    let next = u32::from_be_bytes(answer[24..28].try_into().expect("4 bytes")) + payload(&answer);
    answer[24..28].copy_from_slice(&next.to_be_bytes());
    let mut error = vec![3, 4, 0, 0, 0, 0, 2, 188];
    error.extend(&answer[..28]);
    let sum = internet_checksum(&error);
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    std::fs::write(bed.file("guest/icmp.bin"), &error).expect("the guest's folder");
    std::fs::write(bed.file("guest/icmp.py"), ICMP).expect("the guest's folder");
    bed.guest_ok("/usr/bin/python3 /mnt/icmp.py");
    let namespace = bed.namespace(target);
    let knows = || run("ip", &["netns", "exec", &namespace, "ss", "-tinH", "src", "10.77.0.100"]).contains("pmtu:700");
    wait_until("the target's kernel lowers the connection's path MTU", SOON, knows);
    assert_eq!(delivered_on(&bed, "r"), local, "the router's own host saw nothing of it");
    assert_invariants(&bed);
    std::fs::write(bed.file("guest/idle.stop"), "").expect("the guest's folder");
    assert_eq!(idle.finish(SOON).0, 0);
}

/// Fetches a page over a connection that stays, and tells the segment size that it was told.
const IDLE: &str = r#"
import os, socket, time
s = socket.create_connection(("10.77.0.100", 80), 10)
s.sendall(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")
page = b""
while b"served by" not in page: page += s.recv(4096)
open("/mnt/idle.mss", "w").write(str(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)))
while not os.path.exists("/mnt/idle.stop"): time.sleep(0.05)
"#;

const ICMP: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.bind(("10.99.0.10", 0))
s.sendto(open("/mnt/icmp.bin", "rb").read(), ("10.77.0.100", 0))
"#;

/// The last packet with data from the VIP's web server on a target's TAP, once the client has acknowledged it.
fn last_answer(bed: &Bed, target: &str) -> Option<Vec<u8>> {
    let (mut answer, mut acknowledged) = (None, false);
    for frame in bed.frames(&format!("tap-{target}")) {
        let packet = &frame[14..];
        if packet[12..16] == [10, 77, 0, 100] && payload(packet) > 0 {
            (answer, acknowledged) = (Some(packet.to_vec()), false);
        }
        acknowledged |= packet[16..20] == [10, 77, 0, 100];
    }
    answer.filter(|_| acknowledged && std::fs::exists(bed.file("guest/idle.mss")).unwrap_or(false))
}

/// Bytes of data in a TCP segment over IPv4 without options.
fn payload(packet: &[u8]) -> u32 {
    u32::from(u16::from_be_bytes([packet[2], packet[3]])) - 20 - u32::from(packet[32] >> 4) * 4
}

/// What a SYN announces, if its first option is that.
fn announced(frame: &[u8]) -> Option<u16> {
    let tcp = frame.get(34..)?;
    let syn = tcp.get(13)? & 2 != 0 && tcp.get(20..22)? == [2, 4];
    syn.then(|| u16::from_be_bytes([tcp[22], tcp[23]]))
}
