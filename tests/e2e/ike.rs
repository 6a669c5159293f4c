//! IKE: strongSwan in the client guest negotiates with the router of the VIP, and both targets have the SAs.

use crate::bed::{Bed, Gateway, Tunnel, wait_until};
use crate::client::Client;
use crate::looks::{assert_invariants, drops, pages};
use crate::negotiated::{SOON, assert_clean, assert_one_pair, events, peer, sas, up, wait_gone, wait_up};
use crate::swan::{Connection, Swan, issue, revoke};
use serde_json::Value;
use std::time::Duration;

const IKE: Tunnel = Tunnel { peer: peer!("", "remote = \"10.99.0.10\""), ..Tunnel::PLAIN };
const IKE_V6: Tunnel = Tunnel {
    outer: 6,
    inner: 6,
    peer: peer!("proposal = \"aes256-sha512-modp3072\"", "remote = \"fd99::10\""),
    ..Tunnel::PLAIN
};
const TRANSPORT: Tunnel = Tunnel { mode: "transport", peer: peer!("", "mode = \"transport\""), ..Tunnel::PLAIN };
/// The router knows where the client is.
const KNOWN: Tunnel =
    Tunnel { peer: peer!("remote = \"10.77.0.10\"\nliveness = 1", "remote = \"10.99.0.10\""), ..Tunnel::PLAIN };

/// Both ends have certificates of that kind.
macro_rules! certified {
    ($kind:literal) => {
        certified!($kind, "")
    };
    ($kind:literal, $more:literal) => {
        Tunnel {
            peer: concat!(
                "local_id = \"vip.example\"\nremote_id = \"*.example\"\ncertificate = \"vip-",
                $kind,
                ".pem\"\nkey = \"vip-",
                $kind,
                ".key\"\nca = \"ca-ike.pem\"\n",
                $more,
                "\n[[peer.child]]\nname = \"c\"\nremote = \"10.99.0.10\"\n"
            ),
            esn: true,
            ..Tunnel::PLAIN
        }
    };
}

const CERTIFIED: Connection<'static> = Connection { auth: "pubkey", local: "certs = client.pem", ..Connection::PLAIN };

/// Nodes, strongSwan, an SA that the client asked for, pages, and the end of it.
fn they_begin(tunnel: Tunnel, connection: Connection) {
    let bed = Bed::up(tunnel);
    let swan = Swan::start(&bed, &connection);
    bed.progress("the client begins");
    swan.initiate();
    let (ike, child) = up(&bed).unwrap_or_else(|| panic!("{:?}\n{}", sas(&bed), swan.log()));
    bed.progress(&format!("{} {} {}", ike["suite"], child["suite"], child["selectors"]));
    assert_eq!((ike["role"].as_str(), ike["peer"].as_str()), (Some("responder"), Some("client")));
    assert_eq!(ike["identity"], "client.example");
    assert_eq!(child["esn"], tunnel.esn, "{child}");
    pages(&bed, 20);
    let size = bed.guest_ok(&format!("curl -sS -o /dev/null -w '%{{size_download}}' http://{}/megabyte", bed.host()));
    assert_eq!(size, "1000000");
    bed.progress("the client ends it");
    swan.ctl_ok("--terminate --ike vip");
    wait_gone(&bed);
    assert_clean(&bed);
}

#[test]
fn a_client_with_a_secret_negotiates_and_both_targets_serve_it() {
    they_begin(IKE, Connection { esp: "aes128gcm16-noesn", ..Connection::PLAIN });
}

#[test]
fn sixty_four_bit_numbers_and_longer_keys_are_agreed_upon() {
    let ike = "aes256gcm16-prfsha384-ecp384";
    they_begin(Tunnel { esn: true, ..IKE }, Connection { ike, esp: "aes256gcm16-esn", ..Connection::PLAIN });
}

#[test]
fn a_client_negotiates_over_ipv6() {
    they_begin(Tunnel { esn: true, ..IKE_V6 }, Connection { ike: "aes256-sha512-modp3072", ..Connection::PLAIN });
}

#[test]
fn transport_mode_is_agreed_upon() {
    they_begin(TRANSPORT, Connection { esp: "aes128gcm16-noesn", ..Connection::PLAIN });
}

#[test]
fn a_client_behind_a_nat_negotiates_and_is_served_in_udp() {
    let tunnel = Tunnel { gateway: Gateway::Nat { mtu: 1500 }, esn: true, ..IKE };
    they_begin(tunnel, Connection { ike: "chacha20poly1305-prfsha256-x25519", ..Connection::PLAIN });
}

#[test]
fn certificates_with_ecdsa_prove_who_both_are() {
    they_begin(certified!("ecdsa"), CERTIFIED);
}

#[test]
fn certificates_with_rsa_prove_who_both_are() {
    they_begin(certified!("rsa", "any_extended_key_usage = true"), CERTIFIED);
}

#[test]
fn certificates_with_ed25519_prove_who_both_are() {
    they_begin(certified!("ed25519"), CERTIFIED);
}

#[test]
fn certificates_that_are_expired_revoked_or_of_somebody_else_are_refused_in_words() {
    let bed = Bed::up(certified!("ecdsa", "crl = \"crl.pem\"\nrequire_crl = true"));
    let refused = |connection: &Connection, words: &str| {
        let swan = Swan::start(&bed, connection);
        let before = events(&bed).len();
        let (code, said) = swan.ctl("--initiate --child c --timeout 10");
        assert_ne!(code, 0, "{said}");
        wait_until(&format!("the router says {words:?}"), SOON, || events(&bed)[before..].contains(words));
        bed.progress(events(&bed)[before..].trim());
    };
    let swan = Swan::start(&bed, &CERTIFIED);
    swan.initiate();
    pages(&bed, 20);
    swan.ctl_ok("--terminate --ike vip");
    wait_gone(&bed);
    let named = "--dn 'O=Bed, CN=client.example' --san client.example";
    issue(&bed, &format!("{named} --not-before '01.01.20 00:00:00' --not-after '01.01.21 00:00:00'"));
    refused(&CERTIFIED, "expired on");
    issue(&bed, "--dn 'O=Bed, CN=mallory' --san mallory.elsewhere");
    refused(&Connection { id: "mallory.elsewhere", ..CERTIFIED }, "mallory.elsewhere");
    issue(&bed, &format!("{named} --flag serverAuth"));
    refused(&CERTIFIED, "extendedKeyUsage");
    revoke(&bed);
    bed.order("r", &["reload"]);
    refused(&CERTIFIED, "is revoked");
    assert!(sas(&bed).is_empty());
    assert_clean(&bed);
}

#[test]
fn a_target_that_sends_first_has_an_sa_negotiated_and_its_first_packet_arrives() {
    let bed = Bed::up(KNOWN);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    let heard = bed.guest_start(
        "exec timeout 20 /usr/bin/python3 -c \"import socket as s
r = s.socket(s.AF_INET, s.SOCK_RAW, s.IPPROTO_TCP)
print('ready', file=open('/mnt/raw', 'w'), flush=True)
while True:
    p = r.recv(2000)
    if p[22:24] == (8000).to_bytes(2, 'big'): break
print('a SYN' if p[33] == 2 else p.hex())\"",
    );
    wait_until("the client listens", SOON, || bed.file("guest/raw").exists());
    assert!(sas(&bed).is_empty());
    bed.progress("one SYN, once");
    // Its kernel sends it again only after a second.
    let script = "import socket as s\nc = s.socket(); c.bind(('10.77.0.100', 0)); c.settimeout(0.6)\n\
                  try: c.connect(('10.99.0.10', 8000))\nexcept OSError as e: print(e)";
    let sent = std::process::Command::new("ip")
        .args(["netns", "exec", &bed.namespace("t1"), "/usr/bin/python3", "-c", script])
        .output()
        .expect("ip");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(heard.finish(Duration::from_secs(25)), (0, "a SYN\n".to_owned()), "{}\n{}", events(&bed), swan.log());
    let (ike, _) = wait_up(&bed);
    assert_eq!(ike["role"], "initiator");
    pages(&bed, 20);
    assert_clean(&bed);
}

/// Python in a node's namespace.
fn python(bed: &Bed, node: &str, script: &str) -> std::process::Output {
    let python = ["netns", "exec", &bed.namespace(node), "/usr/bin/python3", "-c", script];
    std::process::Command::new("ip").args(python).output().expect("ip")
}

#[test]
fn a_target_opens_connections_to_the_client_and_gets_its_pages() {
    let bed = Bed::up(KNOWN);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    let _server = bed.guest_start(
        "mkdir -p /tmp/page; echo 'a page of the client' > /tmp/page/index.html; cd /tmp/page;
         exec timeout 60 /usr/bin/python3 -m http.server 8000",
    );
    wait_until("the client serves", SOON, || bed.guest("curl -sS -o /dev/null http://127.0.0.1:8000/").0 == 0);
    assert!(sas(&bed).is_empty());
    bed.progress("the first connection of all has an SA negotiated");
    let fetch = |target: &str| {
        let curl = "curl -sS --max-time 10 --interface 10.77.0.100 http://10.99.0.10:8000/";
        let (namespace, words) = (bed.namespace(target), curl.split(' '));
        let all = ["netns", "exec", &namespace].into_iter().chain(words);
        let output = std::process::Command::new("ip").args(all).output().expect("ip");
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(page, "a page of the client\n", "{target}: {output:?}\n{}\n{}", events(&bed), swan.log());
    };
    fetch("t1");
    let (ike, _) = wait_up(&bed);
    assert_eq!(ike["role"], "initiator");
    bed.progress("more of them, from both targets");
    (0..10).for_each(|_| ["t1", "t2"].iter().for_each(|target| fetch(target)));
    bed.progress("two of them from one port");
    let script = |then: &str| {
        format!(
            "import socket as s\nc = s.socket(); c.bind(('10.77.0.100', 45000)); c.settimeout(3)\n\
             try: c.connect(('10.99.0.10', 8000))\nexcept OSError as e: print(type(e).__name__)\nelse: print('open')\n{then}"
        )
    };
    let lasts = "import sys, time; sys.stdout.flush(); time.sleep(8)";
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| python(&bed, "t1", &script(lasts)));
        let has = |node: &str| {
            let rows = bed.query(node, "conn");
            rows.as_array().is_some_and(|rows| rows.iter().any(|row| row.to_string().contains("45000")))
        };
        wait_until("the router knows the first", SOON, || has("r"));
        let second = python(&bed, "t2", &script(""));
        assert_eq!(String::from_utf8_lossy(&second.stdout), "TimeoutError\n", "{second:?}");
        first.join().expect("a thread")
    });
    assert_eq!(String::from_utf8_lossy(&first.stdout), "open\n", "{first:?}");
    assert!(drops(&bed, "t2").get("port-taken").is_some_and(|n| *n >= 1), "{:?}", drops(&bed, "t2"));
    pages(&bed, 20);
    assert_clean(&bed);
}

#[test]
fn the_router_begins_and_ends() {
    let bed = Bed::up(KNOWN);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    bed.order("r", &["ike", "initiate", "client"]);
    let (ike, child) = wait_up(&bed);
    assert_eq!((ike["role"].as_str(), child["esn"].as_bool()), (Some("initiator"), Some(true)));
    pages(&bed, 20);
    assert!(swan.sas().contains("ESTABLISHED"));
    bed.order("r", &["ike", "terminate", "client"]);
    wait_gone(&bed);
    wait_until("the client heard it", SOON, || swan.sas().trim().is_empty());
    assert_clean(&bed);
}

#[test]
fn what_does_not_fit_fails_with_words_that_help() {
    let bed = Bed::up(IKE);
    let cases = [
        (Connection { secret: "sailfish", ..Connection::PLAIN }, "could not be authenticated"),
        (Connection { id: "mallory.example", ..Connection::PLAIN }, "mallory.example"),
        (Connection { ike: "aes128-sha1-modp1024", ..Connection::PLAIN }, "no common proposal: the peer offered"),
        (Connection { esp: "aes128-sha256", ..Connection::PLAIN }, "no common proposal: the peer offered"),
    ];
    for (connection, words) in cases {
        let swan = Swan::start(&bed, &connection);
        let before = events(&bed).len();
        let (code, said) = swan.ctl("--initiate --child c --timeout 10");
        assert_ne!(code, 0, "{connection:?}: {said}");
        wait_until(&format!("the router says {words:?}"), SOON, || events(&bed)[before..].contains(words));
        bed.progress(events(&bed)[before..].trim());
    }
    let swan = Swan::start(&bed, &Connection::PLAIN);
    swan.initiate();
    pages(&bed, 20);
    assert_clean(&bed);
}

#[test]
fn new_keys_from_either_side_lose_nothing() {
    let bed = Bed::up(KNOWN);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    swan.initiate();
    let client = Client::new(&bed);
    let streams = ["t1", "t2"].map(|target| client.stream_from(target));
    for round in 0..3 {
        for (who, what) in [("we", "child"), ("they", "child"), ("we", "ike"), ("they", "ike")] {
            let (ike, child) = wait_up(&bed);
            let id = |of: &Value| of["id"].as_str().map_or_else(|| of["id"].to_string(), ToOwned::to_owned);
            let old = if what == "ike" { id(&ike) } else { id(&child) };
            match (who, what) {
                ("we", _) => drop(bed.order("r", &["ike", "rekey", &old])),
                (_, "child") => drop(swan.ctl_ok("--rekey --child c")),
                _ => drop(swan.ctl_ok("--rekey --ike vip")),
            }
            wait_until(&format!("round {round}: {who} have a new {what}"), SOON, || {
                let all = sas(&bed);
                all.len() == 1
                    && up(&bed).is_some_and(|(ike, child)| (if what == "ike" { id(&ike) } else { id(&child) }) != old)
                    && all[0]["children"].as_array().is_some_and(|children| children.len() == 1)
            });
            streams.iter().for_each(|stream| stream.goes_on(SOON));
        }
    }
    pages(&bed, 20);
    assert_one_pair(&bed);
    assert_clean(&bed);
}

#[test]
fn a_target_that_stands_still_delays_a_negotiation_no_longer_than_its_bound_and_never_gets_connections_without_the_sa()
{
    let bed = Bed::up(IKE);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    bed.freeze("t2", true);
    let start = std::time::Instant::now();
    // The first attempt may fail because of it, the next finds it gone.
    while swan.ctl("--initiate --child c --timeout 10").0 != 0 {
        assert!(start.elapsed() < SOON, "{}", events(&bed));
    }
    bed.progress(&format!("up after {:?}", start.elapsed()));
    let before = bed.served("t1");
    let all = bed.guest_ok(&format!("curl -sS --max-time 20 'http://{}/?[1-10]' -H 'Connection: close'", bed.host()));
    assert_eq!((all.matches("served by t1").count(), bed.served("t1") - before), (10, 10), "{all}");
    bed.freeze("t2", false);
    bed.wait_ready();
    pages(&bed, 20);
    assert_clean(&bed);
}

#[test]
fn a_router_that_was_killed_negotiates_anew_and_connections_go_on() {
    let bed = Bed::up(KNOWN);
    let swan =
        Swan::start(&bed, &Connection { more: "dpd_delay = 1s", child: "dpd_action = restart", ..Connection::PLAIN });
    swan.initiate();
    pages(&bed, 20);
    bed.kill_hard("r");
    bed.start("r");
    bed.wait_ready();
    bed.order("r", &["ike", "initiate", "client"]);
    wait_up(&bed);
    pages(&bed, 20);
    assert_one_pair(&bed);
    assert_invariants(&bed);
}
