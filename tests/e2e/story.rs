//! One fault at a time, and all eyes on it: `top`, `trace`, `capture` and `explain` tell the same story.

use crate::bed::{Bed, TO_VIP, Tunnel, wait_until};
use crate::looks::network_mac;
use crate::raw::RawSender;
use crate::watched::{Trace, end_capture, read, start_capture};
use crate::wire::{Frame, readdress};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn all_eyes_tell_the_same_of_one_fault() {
    let bed = Bed::up(Tunnel::PLAIN);
    bed.capture("sw", "n-r", "n-r", &["esp", "and", "dst", "host", "10.77.0.100"]);
    bed.guest_ok("curl -sS --max-time 5 -o /dev/null http://10.77.0.100/");
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let again = bed.frames("n-r").last().expect("ESP");

    at_the_router(&bed, "replay", &|| sender.send(&readdress(again.clone())));
    at_the_router(&bed, "bad-icv", &|| sender.send(&forged(&bed, "10.99.0.10", true)));
    at_the_router(&bed, "wrong-tunnel", &|| sender.send(&forged(&bed, "10.99.0.66", false)));
    at_the_router(&bed, "no-listener", &|| {
        // 7: refused; 28 would be a timeout.
        assert_eq!(bed.guest("curl -sS --max-time 5 http://10.77.0.100:5201/").0, 7);
    });
    bed.capture_end("n-r");
    too_big(&bed);
}

/// The router drops what `inject` makes, for that reason, before the eyes of all.
fn at_the_router(bed: &Bed, reason: &str, inject: &dyn Fn()) {
    bed.progress(reason);
    let trace = trace_and_capture(bed, "r", reason, inject);
    // A wire that was looked at from the beginning: every window is as it was.
    let capture = bed.file("pcap/n-r.pcap");
    // One node that does everything knows what a router is told by its targets; but only a router has some.
    let role = if reason == "no-listener" { "router" } else { "endpoint" };
    let told = explained(bed, &["--role", role, "--listening", "80,8080"], &capture);
    let same =
        told.iter().find(|line| line["spi"] == trace["spi"] && line["seq"] == trace["seq"] && line["reason"] == reason);
    assert!(same.is_some(), "{trace} is not what explain tells: {:?}", told.last());
}

/// A packet of the application that may not be cut and does not fit once it is sealed. The host itself would not send it.
fn too_big(bed: &Bed) {
    bed.progress("too-big");
    let t1 = bed.namespace("t1");
    let host = |words: &str| Command::new("ip").args(["netns", "exec", &t1, "bash", "-c", words]).output().expect("ip");
    bed.capture("t1", "vip0", "vip0", &["icmp", "and", "src", "host", "10.77.0.100"]);
    trace_and_capture(bed, "t1", "too-big", &|| {
        host("ip link set vip0 mtu 1500; ip route flush cache; ping -M do -s 1472 -c 1 -W 1 -I 10.77.0.100 10.99.0.10");
    });
    let capture = bed.capture_end("vip0");
    let told = explained(bed, &[], &capture);
    assert!(!told.is_empty() && told.iter().all(|line| line["reason"] == "too-big"), "{told:?}");
}

/// What `trace` tells of the packet that `capture` shows dropped and `top` counts.
fn trace_and_capture(bed: &Bed, node: &str, reason: &str, inject: &dyn Fn()) -> Value {
    let file = bed.file(&format!("{reason}.pcapng"));
    let film = start_capture(bed, node, &[], &file);
    wait_until("the capture begins", SOON, || file.exists());
    let top = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["top", "--json", "--count", "4", "--socket"])
        .arg(bed.file(&format!("{node}.sock")))
        .stdout(Stdio::piped())
        .spawn()
        .expect("phalanx can be run");
    let lines = Trace::start(bed, node, &["--count", "1", &format!("--dropped={reason}")]).lines(|| {
        inject();
        std::thread::sleep(Duration::from_millis(300));
    });
    assert_eq!((lines[0]["verdict"].as_str(), lines[0]["reason"].as_str()), (Some("drop"), Some(reason)));
    wait_until("the capture shows it", SOON, || {
        read(&file).iter().any(|seen| seen.interface == "dropped" && seen.comment == reason)
    });
    end_capture(film);
    let top = top.wait_with_output().expect("its output");
    let rates = String::from_utf8(top.stdout).expect("text");
    let counted = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let drops = line["drops"].as_array().expect("a list").clone();
        drops.iter().any(|drop| drop["reason"] == reason && drop["packets"].as_u64() > Some(0))
    };
    assert!(rates.lines().any(counted), "top does not tell of {reason}: {rates}");
    lines[0].clone()
}

fn explained(bed: &Bed, how: &[&str], capture: &std::path::Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["explain", "--config"])
        .arg(bed.file("etc/r.toml"))
        .args(how)
        .arg(capture)
        .output()
        .expect("phalanx can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A SYN sealed with the client's key, from an inner address, with a number that the client did not reach yet; or with a
/// bit of its ICV changed. scapy seals it.
fn forged(bed: &Bed, inner: &str, spoil: bool) -> Vec<u8> {
    let key = std::fs::read_to_string(bed.file("etc/to-vip.key")).expect("the key");
    let numbers = bed.frames("n-r").filter_map(|frame| Frame::parse(&frame).esp()).filter(|(spi, _)| *spi == TO_VIP);
    let number = numbers.map(|(_, number)| number).max().expect("ESP") + 3;
    let script = format!(
        "import struct\nfrom scapy.layers.inet import IP, TCP\nfrom scapy.layers.ipsec import ESP, SecurityAssociation\n\
         sa = SecurityAssociation(ESP, spi={TO_VIP}, seq_num={number}, crypt_algo='AES-GCM', crypt_key=bytes.fromhex('{}'), \
         tunnel_header=IP(src='10.77.0.10', dst='10.77.0.100'))\n\
         p = IP(src='{inner}', dst='10.77.0.100') / TCP(sport=1234, dport=80, flags='S')\n\
         print(bytes(sa.encrypt(p, iv=struct.pack('!Q', {number}))).hex())",
        key.trim()
    );
    // Debian's packages are for Debian's Python.
    let output = Command::new("/usr/bin/python3").args(["-c", &script]).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let hex = String::from_utf8(output.stdout).expect("hexadecimal");
    let bytes =
        (0..hex.trim().len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal"));
    let mut frame = [&network_mac("r")[..], &[0x02, 0x70, 0x77, 0, 1, 0x66], &[8, 0]].concat();
    frame.extend(bytes);
    let last = frame.len() - 1;
    frame[last] ^= u8::from(spoil);
    frame
}
