//! Certificates that fit no packet: RSA keys of 4096 bits and a CA between. IKE's messages go in fragments of their own (RFC 7383), and
//! none is so large that IP has to cut it.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::{network_mac, pages};
use crate::negotiated::{SOON, assert_clean, wait_gone, wait_up};
use crate::swan::{Connection, Swan};
use crate::wire::Capture;
use std::fs;
use std::path::Path;

const CHAIN: Tunnel = Tunnel {
    peer: "remote = \"10.77.0.10\"\nlocal_id = \"vip.example\"\nremote_id = \"*.example\"\ncertificate = \"vip-chain.pem\"\n\
           key = \"vip-chain.key\"\nca = \"ca-ike.pem\"\nfragment = 576\n[[peer.child]]\nname = \"c\"\nremote = \"10.99.0.10\"\n",
    esn: true,
    ..Tunnel::PLAIN
};

#[test]
fn large_certificates_go_in_fragments_of_the_size_that_was_configured_whoever_begins() {
    let bed = Bed::up(CHAIN);
    for size in [576, 1280] {
        let path = bed.file("etc/r.toml");
        let text = fs::read_to_string(&path).expect("the router's configuration");
        fs::write(&path, text.replace("fragment = 576", &format!("fragment = {size}"))).expect("the same");
        bed.order("r", &["reload"]);
        let connection = Connection { auth: "pubkey", local: "certs = client.pem", ..Connection::PLAIN };
        let swan = Swan::start_with(&bed, &connection, &format!("fragment_size = {size}\n"));
        for by in ["they", "we"] {
            let name = format!("{by}-{size}");
            bed.capture("sw", "n-cl", &name, &["udp or ip[6:2] & 0x3fff != 0"]);
            match by {
                "they" => swan.initiate(),
                _ => drop(bed.order("r", &["ike", "initiate", "client"])),
            }
            let (ike, _) = wait_up(&bed);
            assert_eq!(ike["role"], if by == "we" { "initiator" } else { "responder" });
            pages(&bed, 4);
            let seen = Fragments::of(&bed.capture_end(&name));
            bed.progress(&format!("{by} began, {size} bytes: {seen:?}"));
            // Chains of about 2,900 bytes and a signature of 512, each way.
            let least = 3400 / size;
            assert!(seen.ours >= least && seen.theirs >= least, "{seen:?}");
            assert!(seen.largest <= size && seen.cut_by_ip == 0, "{seen:?}");
            swan.ctl_ok("--terminate --ike vip");
            wait_gone(&bed);
            wait_until("the client has nothing either", SOON, || swan.sas().trim().is_empty());
        }
    }
    assert_clean(&bed);
}

/// What a capture has of IKE's fragments.
#[derive(Debug, Default)]
struct Fragments {
    ours: usize,
    theirs: usize,
    /// Bytes of the largest IP packet with IKE.
    largest: usize,
    cut_by_ip: usize,
}

impl Fragments {
    fn of(path: &Path) -> Fragments {
        let mut seen = Fragments::default();
        for frame in Capture::open(path) {
            let word = |at: usize| usize::from(frame[at]) << 8 | usize::from(frame[at + 1]);
            if frame.len() < 14 + 28 + 28 || frame[12..14] != [8, 0] {
                continue;
            }
            if word(20) & 0x3fff != 0 {
                seen.cut_by_ip += 1;
                continue;
            }
            // RFC 3948 §2.2: on port 4500 four zero bytes, or it is ESP.
            let ike = if word(34) == 4500 || word(36) == 4500 { 46 } else { 42 };
            if frame[23] != 17 || ike == 46 && frame[42..46] != [0; 4] {
                continue;
            }
            seen.largest = seen.largest.max(word(16));
            // RFC 7383 §2.5: payload 53 is an encrypted fragment.
            match frame[ike + 16] == 53 {
                true if frame[6..12] == network_mac("r") => seen.ours += 1,
                true => seen.theirs += 1,
                false => {}
            }
        }
        seen
    }
}
