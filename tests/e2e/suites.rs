//! Everything that IKE can agree upon with strongSwan: each key exchange, cipher and pseudorandom function, in both modes, over both IP
//! versions, with 32- and 64-bit numbers, through a NAT, begun by either end. A row is a negotiation, a page and pings, new keys, the same,
//! an end.

use crate::bed::{Bed, Gateway, Tunnel, wait_until};
use crate::negotiated::{SOON, assert_clean, assert_one_pair, peer, sas, up, wait_gone, wait_up};
use crate::swan::{Connection, Swan};

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    We,
    They,
}
use By::{They, We};

/// What the client proposes for IKE and for ESP: the router takes all of it.
type Row = (&'static str, &'static str, By);

/// A router that takes whatever there is, from a peer that is there.
macro_rules! anything {
    ($remote:literal, $child:literal) => {
        anything!(
            $remote,
            $child,
            "aes128gcm16-aes256gcm16-chacha20poly1305-aes128gmac-aes256gmac-aes128-aes256-null-sha256-sha384-sha512-x25519-ecp256-ecp384-ecp521-modp2048-modp3072-modp4096"
        )
    };
    ($remote:literal, $child:literal, $esp:literal) => {
        peer!(
            concat!(
                $remote,
                "\nproposal = \"aes256gcm16-aes128gcm16-chacha20poly1305-aes256-aes128-sha512-sha384-sha256-\
                 prfsha512-prfsha384-prfsha256-x25519-ecp256-ecp384-ecp521-modp2048-modp3072-modp4096\""
            ),
            $child,
            "\nproposal = \"",
            $esp,
            "\""
        )
    };
}

/// Each key exchange, cipher, integrity algorithm and pseudorandom function, for IKE and for a child's own keys.
const ALL: [Row; 16] = [
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519-esn", They),
    ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256-noesn", We),
    ("aes128gcm16-prfsha384-ecp384", "aes256gcm16-ecp384-esn", They),
    ("aes256gcm16-prfsha512-ecp521", "aes256gcm16-ecp521-noesn", We),
    ("aes256gcm16-prfsha384-modp2048", "aes128gcm16-modp2048-esn", They),
    ("aes256gcm16-prfsha256-modp3072", "aes128gcm16-modp3072-noesn", We),
    ("aes128gcm16-prfsha512-modp4096", "aes128gcm16-modp4096-esn", They),
    ("chacha20poly1305-prfsha256-x25519", "aes256gcm16-x25519-noesn", We),
    ("chacha20poly1305-prfsha512-ecp384", "aes128gcm16-ecp384-esn", They),
    ("aes128-sha256-ecp256", "aes128gcm16-ecp256-esn", We),
    ("aes128-sha384-modp2048", "aes256gcm16-modp2048-esn", They),
    ("aes128-sha512-x25519", "aes128gcm16-x25519-noesn", We),
    ("aes256-sha256-modp3072", "aes256gcm16-modp3072-noesn", They),
    ("aes256-sha384-ecp384", "aes128gcm16-ecp384-noesn", We),
    ("aes256-sha512-ecp521", "aes256gcm16-ecp521-esn", They),
    ("aes256-sha512-prfsha256-modp4096", "aes256gcm16-modp4096-esn", We),
];

/// Each algorithm of ESP beside AES-GCM, in both kinds of numbers.
const ESP: [Row; 12] = [
    ("aes128gcm16-prfsha256-x25519", "chacha20poly1305-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "aes128gmac-x25519-esn", We),
    ("aes128gcm16-prfsha256-x25519", "aes256gmac-x25519-noesn", They),
    ("aes128gcm16-prfsha256-x25519", "aes128-sha256-x25519-noesn", We),
    ("aes128gcm16-prfsha256-x25519", "aes128-sha384-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "aes128-sha512-x25519-noesn", We),
    ("aes128gcm16-prfsha256-x25519", "aes256-sha256-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "aes256-sha384-x25519-noesn", We),
    ("aes128gcm16-prfsha256-x25519", "aes256-sha512-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "null-sha256-x25519-esn", We),
    ("aes128gcm16-prfsha256-x25519", "null-sha384-x25519-noesn", They),
    ("aes128gcm16-prfsha256-x25519", "null-sha512-x25519-esn", We),
];

/// One of each kind of them, where only packets differ.
const ESP_SOME: [Row; 4] = [
    ("aes128gcm16-prfsha256-x25519", "chacha20poly1305-x25519-noesn", They),
    ("aes128gcm16-prfsha256-x25519", "aes128gmac-x25519-esn", We),
    ("aes128gcm16-prfsha256-x25519", "aes256-sha384-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "null-sha512-x25519-noesn", We),
];

/// Each algorithm of AH that strongSwan's kernel has.
const AH: [Row; 4] = [
    ("aes128gcm16-prfsha256-x25519", "ah-sha256-x25519-esn", They),
    ("aes128gcm16-prfsha256-x25519", "ah-sha384-x25519-noesn", We),
    ("aes128gcm16-prfsha256-x25519", "ah-sha512-x25519-esn", We),
    ("aes128gcm16-prfsha256-x25519", "ah-sha256-noesn", They),
];

/// A few of each kind, where only packets differ.
const SOME: [Row; 4] = [
    ("aes256gcm16-prfsha384-x25519", "aes128gcm16-x25519-esn", They),
    ("aes256-sha512-modp2048", "aes256gcm16-modp2048-noesn", We),
    ("chacha20poly1305-prfsha256-ecp256", "aes256gcm16-x25519-esn", We),
    ("aes128-sha256-ecp384", "aes128gcm16-ecp256-noesn", They),
];

const V4: Tunnel = Tunnel { peer: anything!("remote = \"10.77.0.10\"", "remote = \"10.99.0.10\""), ..Tunnel::PLAIN };
const V6: Tunnel =
    Tunnel { outer: 6, inner: 6, peer: anything!("remote = \"fd77::10\"", "remote = \"fd99::10\""), ..Tunnel::PLAIN };
const TRANSPORT_V4: Tunnel =
    Tunnel { mode: "transport", peer: anything!("remote = \"10.77.0.10\"", "mode = \"transport\""), ..Tunnel::PLAIN };
const TRANSPORT_V6: Tunnel =
    Tunnel { outer: 6, inner: 6, peer: anything!("remote = \"fd77::10\"", "mode = \"transport\""), ..TRANSPORT_V4 };
const NAT: Gateway = Gateway::Nat { mtu: 1500 };

/// The rows one after the other on one bed. Behind a NAT only the client can begin.
fn rows(tunnel: Tunnel, rows: &[Row]) {
    let bed = Bed::up(tunnel);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    for (ike, esp, by) in rows {
        let by = if tunnel.gateway == Gateway::None { *by } else { They };
        swan.reload(&Connection { ike, esp, ..Connection::PLAIN });
        match by {
            They => swan.initiate(),
            We => drop(bed.order("r", &["ike", "initiate", "client"])),
        }
        let (sa, child) = wait_up(&bed);
        bed.progress(&format!("{by:?} began: {} and {}", sa["suite"], child["suite"]));
        assert_eq!(child["esn"], esp.ends_with("-esn"), "{child}");
        assert_eq!(sa["role"], if by == We { "initiator" } else { "responder" });
        page(&bed);
        match by {
            They => drop(bed.order("r", &["ike", "rekey", "client"])),
            We => drop(swan.ctl_ok("--rekey --child c")),
        }
        wait_until("it has new keys", SOON, || up(&bed).is_some_and(|(_, new)| new["id"] != child["id"]));
        assert_one_pair(&bed);
        page(&bed);
        match by {
            They => drop(swan.ctl_ok("--terminate --ike vip")),
            We => drop(bed.order("r", &["ike", "terminate", "client"])),
        }
        wait_gone(&bed);
        wait_until("the client has nothing either", SOON, || swan.sas().trim().is_empty());
    }
    assert!(sas(&bed).is_empty());
    assert_clean(&bed);
}

fn page(bed: &Bed) {
    let host = bed.host();
    let page = bed.guest_ok(&format!("curl -sS --max-time 20 http://{host}/"));
    assert!(page.contains("served by"), "{page}");
    // Of every length of padding.
    for size in [56, 57, 58, 59, 1200] {
        let ping = bed.guest_ok(&format!("ping -c 1 -W 2 -s {size} {}", host.trim_matches(['[', ']'])));
        assert!(ping.contains(" 1 received"), "{ping}");
    }
}

#[test]
fn each_key_exchange_cipher_and_pseudorandom_function_is_agreed_upon() {
    rows(V4, &ALL);
}

#[test]
fn each_algorithm_of_esp_is_agreed_upon_and_carries_pages_and_pings() {
    rows(V4, &ESP);
}

#[test]
fn algorithms_of_esp_in_transport_mode_over_ipv6() {
    rows(TRANSPORT_V6, &ESP_SOME);
}

#[test]
fn algorithms_of_esp_in_transport_mode_from_behind_a_nat() {
    rows(Tunnel { gateway: NAT, peer: anything!("", "mode = \"transport\""), ..TRANSPORT_V4 }, &ESP_SOME);
}

#[test]
fn each_algorithm_of_ah_is_agreed_upon_and_carries_pages_and_pings() {
    const PEER: &str =
        anything!("remote = \"10.77.0.10\"", "remote = \"10.99.0.10\"", "ah-sha256-sha384-sha512-x25519");
    rows(Tunnel { peer: PEER, ..V4 }, &AH[..3]);
}

#[test]
fn algorithms_of_ah_in_transport_mode_over_ipv6() {
    const PEER: &str = anything!("remote = \"fd77::10\"", "mode = \"transport\"", "ah-sha512-sha384-sha256");
    rows(Tunnel { peer: PEER, ..TRANSPORT_V6 }, &AH[3..]);
}

#[test]
fn suites_over_ipv6() {
    rows(V6, &SOME);
}

#[test]
fn suites_in_transport_mode() {
    rows(TRANSPORT_V4, &SOME);
}

#[test]
fn suites_in_transport_mode_over_ipv6() {
    rows(TRANSPORT_V6, &SOME);
}

#[test]
fn suites_from_behind_a_nat() {
    rows(Tunnel { gateway: NAT, peer: anything!("", "remote = \"10.99.0.10\""), ..V4 }, &SOME);
}

#[test]
fn suites_from_behind_a_nat_over_ipv6() {
    rows(Tunnel { gateway: NAT, peer: anything!("", "remote = \"fd99::10\""), ..V6 }, &SOME);
}

#[test]
fn suites_in_transport_mode_from_behind_a_nat() {
    rows(Tunnel { gateway: NAT, peer: anything!("", "mode = \"transport\""), ..TRANSPORT_V4 }, &SOME);
}
