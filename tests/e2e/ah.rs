//! AH against Linux's: pages come through the VIP from both targets, what is replayed or changed on the wire does not get in.

use crate::bed::{Bed, Gateway, TO_VIP, Tunnel, wait_until};
use crate::looks::{Wire, all_drops, assert_invariants, delivered, delivered_on, network_mac, pages};
use crate::raw::RawSender;
use crate::wire::{Frame, What, fix_ipv4, readdress};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const PAGES: usize = 20;

#[test]
fn pages_come_over_ah_in_tunnel_mode_and_what_was_changed_or_sent_twice_does_not() {
    let bed = served(Tunnel { algorithm: "ah-hmac-sha256", ..Tunnel::PLAIN });
    attacked(&bed);
    explained(&bed);
}

/// The gateway has a hop less to give, and writes into the options what the ICV may not hang on.
#[test]
fn pages_come_over_ah_in_transport_mode_with_64_bit_numbers_and_routes_are_recorded() {
    let behind = Gateway::Route { mtu: 1500 };
    let bed =
        served(Tunnel { algorithm: "ah-hmac-sha512", mode: "transport", esn: true, gateway: behind, ..Tunnel::PLAIN });
    bed.progress("options of IPv4");
    bed.capture("sw", "n-r", "options", &[]);
    let before = delivered_on(&bed, "r");
    let ping = bed.guest_ok("ping -R -c 3 -i 0.2 -W 2 10.77.0.100");
    bed.capture_end("options");
    assert!(ping.contains(" 3 received") && ping.contains("10.77.0.20"), "{ping}");
    assert!(delivered_on(&bed, "r") >= before + 3, "the router's own host saw the requests");
    // A header of 60 bytes, and AH behind it.
    assert!(bed.frames("options").filter(|frame| frame[14] == 0x4f && frame[23] == 51).count() >= 3);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

#[test]
fn pages_come_over_ah_and_ipv6_in_tunnel_mode_with_64_bit_numbers() {
    let behind = Gateway::Route { mtu: 1500 };
    served(Tunnel { algorithm: "ah-hmac-sha384", outer: 6, inner: 6, esn: true, gateway: behind, ..Tunnel::PLAIN });
}

/// A page whose requests have options for every hop, which may change on the way (0x20), and for the destination.
const EXTENDED: &str = "\
import socket as s
c = s.socket(s.AF_INET6)
c.setsockopt(s.IPPROTO_IPV6, s.IPV6_HOPOPTS, bytes([0, 0, 0x3e, 4, 1, 2, 3, 4]))
c.setsockopt(s.IPPROTO_IPV6, s.IPV6_DSTOPTS, bytes([0, 0, 0x1e, 4, 5, 6, 7, 8]))
c.settimeout(10)
c.connect(('fd77::100', 80))
c.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print(c.makefile().read())
";

#[test]
fn pages_come_over_ah_and_ipv6_in_transport_mode_and_with_extension_headers() {
    let bed = served(Tunnel { algorithm: "ah-hmac-sha256", outer: 6, inner: 6, mode: "transport", ..Tunnel::PLAIN });
    bed.progress("extension headers");
    bed.capture("sw", "n-r", "extended", &[]);
    std::fs::write(bed.file("guest/extended.py"), EXTENDED).expect("the guest's folder");
    let page = bed.guest_ok("/usr/bin/python3 /mnt/extended.py");
    bed.capture_end("extended");
    assert!(page.contains("served by"), "{page}");
    // Hop-by-hop options, destination options, AH: in this order Linux has them.
    let extended =
        |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame[20] == 0 && frame[54] == 60 && frame[62] == 51;
    assert!(bed.frames("extended").filter(extended).count() >= 4);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}

fn served(tunnel: Tunnel) -> Bed {
    let bed = Bed::up(tunnel);
    let host = bed.host();
    let client = if tunnel.gateway == Gateway::None { "n-cl" } else { "n-gw" };
    bed.capture("sw", client, "client", &["-s", "160"]);
    bed.progress("pages from both targets");
    pages(&bed, PAGES);
    bed.progress("a megabyte, in packets as large as the path carries");
    let size =
        bed.guest_ok(&format!("curl -sS --max-time 10 -o /dev/null -w '%{{size_download}}' http://{host}/megabyte"));
    assert_eq!(size, "1000000");
    bed.progress("the router answers ping itself");
    let before = delivered_on(&bed, "r");
    let ping = bed.guest_ok(&format!("ping -c 5 -i 0.2 -W 2 {}", host.trim_matches(['[', ']'])));
    assert!(ping.contains(" 5 received"), "{ping}");
    assert!(delivered_on(&bed, "r") >= before + 5, "the router's own host saw the requests");

    let client = Wire::of(&bed.capture_end("client"));
    assert!(client.to_vip > 100 && client.answers("t1") > 30 && client.answers("t2") > 30, "{client:?}");
    assert!(client.clear.is_empty(), "in clear at the client: {:?}", client.clear);
    assert!(bed.frames("client").all(|frame| !matches!(Frame::parse(&frame).what, What::Esp { .. })));
    let sas = bed.query("r", "sa");
    let algorithms: Vec<_> = sas.as_array().expect("a list").iter().map(|sa| sa["algorithm"].clone()).collect();
    assert_eq!(algorithms, [tunnel.algorithm; 2]);
    assert_invariants(&bed);
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    bed
}

/// What the client sent comes again, and with a bit changed; and with a hop less, which is no matter.
fn attacked(bed: &Bed) {
    bed.progress("an attacker on the wire");
    bed.capture("sw", "n-r", "again", &[]);
    pages(bed, 8);
    bed.capture_end("again");
    let (before, dropped) = (delivered(bed), all_drops(bed));
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let ours = |frame: &Vec<u8>| matches!(Frame::parse(frame).what, What::Ah { spi: TO_VIP, .. });
    let frames: Vec<_> = bed.frames("again").filter(ours).collect();
    assert!(frames.len() > 20);
    for frame in &frames {
        sender.send(&readdress(frame.clone()));
        // Another hop limit and another number: its ICV would be that of the old one.
        let mut changed = readdress(frame.clone());
        changed[22] -= 1;
        changed[14 + 20 + 10] ^= 0x10;
        fix_ipv4(&mut changed);
        sender.send(&changed);
    }
    let more = |reason: &str| all_drops(bed)[reason] - dropped[reason];
    let sent = frames.len() as u64;
    wait_until("each is dropped for its reason", SOON, || {
        more("replay") + more("too-old") >= sent && more("bad-icv") + more("unknown-connection") >= sent / 2
    });
    assert_eq!(delivered(bed), before, "something got in");
    pages(bed, 4);
    assert_eq!(network_mac("r")[5], 1);
}

/// `phalanx explain` tells of the capture what the node did.
fn explained(bed: &Bed) {
    bed.progress("explain");
    let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["explain", "--config"])
        .arg(bed.file("etc/r.toml"))
        .args(["--role", "endpoint", "--listening", "80,8080"])
        .arg(bed.file("pcap/again.pcap"))
        .output()
        .expect("phalanx can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let delivered = text.lines().filter(|line| line.contains("\"spi\":\"0x00001001\"") && line.contains("deliver"));
    assert!(delivered.count() > 20, "{text}");
}
