//! A router with 500 IKE SAs is killed and starts again: everything is there again by itself, nothing of before is left, and no number
//! and no IV comes twice (I1, R6).

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::{NODES, assert_invariants};
use crate::negotiated::{assert_clean, sas, spis};
use crate::swan::Swan;
use crate::wire::{Capture, sequences};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

const PEERS: usize = 500;
/// From its start on, a router has all its peers back within this time, on two CPUs that it shares with all of them.
const BACK: Duration = Duration::from_secs(60);

/// The peers' addresses, all of them the guest's.
fn address(peer: usize) -> String {
    format!("10.90.{}.{}", peer / 250, 1 + peer % 250)
}

#[test]
fn a_router_killed_with_500_ike_sas_has_all_peers_back_by_itself_and_nothing_is_left_or_used_twice() {
    let bed = Bed::up_with(
        Tunnel { peer: "secret = \"unused\"\nremote = \"10.90.9.9\"", esn: true, ..Tunnel::PLAIN },
        |bed| {
            configure_router(bed);
        },
    );
    bed.capture("sw", "n-cl", "n-cl", &["-s", "400", "udp port 500 or udp port 4500 or esp"]);
    prepare_guest(&bed);
    let swan = Swan::start_as(&bed, &charon(), "dos_protection = no\n");
    bed.progress("charon listens; the router begins by itself");
    let first = all_up(&bed);
    everybody_has_what_the_router_has(&bed, &swan);
    pages(&bed);

    bed.kill_hard("r");
    bed.start("r");
    bed.progress("the router was killed and runs again");
    let second = all_up(&bed);
    bed.wait_ready();
    assert!(first.is_disjoint(&second), "they are other SAs");
    everybody_has_what_the_router_has(&bed, &swan);
    pages(&bed);
    assert_clean(&bed);

    let path = bed.capture_end("n-cl");
    for sequence in sequences(&path).values() {
        sequence.assert_unique();
    }
    judge_ivs(&bed, &path);
    assert_invariants(&bed);
}

/// 500 peers with an address each, which are to be begun with. They are behind the guest.
fn configure_router(bed: &Bed) {
    let path = bed.file("etc/r.toml");
    let text = fs::read_to_string(&path).expect("the router's configuration");
    let (before, _) = text.split_once("\n[[peer]]").expect("a peer");
    let mut text = format!("{before}\n[limits]\nsas = 8192\n");
    for peer in 0..PEERS {
        write!(
            text,
            "\n[[peer]]\nname = \"p{peer}\"\nvip = \"vip4\"\nremote = \"{}\"\nlocal_id = \"vip.example\"\nremote_id = \"p{peer}.example\"\n\
             secret = \"the secret of {peer}\"\nstart = true\nliveness = 0\n",
            address(peer)
        )
        .expect("a string");
    }
    fs::write(&path, text).expect("the router's configuration");
    for node in NODES {
        let path = bed.file(&format!("etc/{node}.toml"));
        let mut text = fs::read_to_string(&path).expect("its configuration");
        text = text.replacen("mtu = 1500", "mtu = 1500\nnext_hops = [\"10.77.0.10\"]", 1);
        if node != "r" {
            text.push_str("\n[limits]\nsas = 8192\n");
        }
        fs::write(&path, text).expect("its configuration");
    }
}

fn prepare_guest(bed: &Bed) {
    // As a batch: a process for each address takes the guest many seconds.
    let addresses: String = (0..PEERS).map(|peer| format!("addr replace {}/32 dev lo\n", address(peer))).collect();
    fs::write(bed.file("guest/addresses"), addresses).expect("the guest's folder");
    bed.guest_ok("ip -batch /mnt/addresses");
}

/// The client's 500 connections: what it is asked for it agrees to, and keeps what it has until it is told that it is gone.
fn charon() -> String {
    let (mut connections, mut secrets) = (String::new(), String::new());
    for peer in 0..PEERS {
        let at = address(peer);
        write!(
            connections,
            "p{peer} {{ version = 2\n local_addrs = {at}\n remote_addrs = 10.77.0.100\n proposals = aes128gcm16-prfsha256-x25519\n\
             local {{ auth = psk\n id = p{peer}.example }}\n remote {{ auth = psk\n id = vip.example }}\n\
             children {{ all {{ local_ts = {at}/32\n remote_ts = 10.77.0.100/32\n esp_proposals = aes128gcm16-esn }} }} }}\n"
        )
        .expect("a string");
        write!(
            secrets,
            "ike-{peer} {{ id-1 = p{peer}.example\n id-2 = vip.example\n secret = \"the secret of {peer}\" }}\n"
        )
        .expect("a string");
    }
    format!("connections {{ {connections} }}\nsecrets {{ {secrets} }}\n")
}

/// Waits until there are all children; answers their inbound SPIs.
fn all_up(bed: &Bed) -> BTreeSet<String> {
    let children = || -> BTreeSet<String> {
        let all = sas(bed);
        let up = all.iter().filter(|ike| ike["state"] == "established").filter_map(|ike| ike["children"].as_array());
        let up = up.flatten().filter(|child| child["state"] == "up");
        up.filter_map(|child| Some(child["inbound"].as_str()?.to_owned())).collect()
    };
    let took = wait_until("all peers are there", BACK, || {
        std::thread::sleep(Duration::from_millis(200));
        children().len() == PEERS
    });
    bed.progress(&format!("{PEERS} peers are there after {:.1} s", took.as_secs_f32()));
    children()
}

/// One pair for each peer, the same ones everywhere.
fn everybody_has_what_the_router_has(bed: &Bed, swan: &Swan) {
    let wait = Duration::from_secs(30);
    wait_until("router, targets and client have the same SAs", wait, || {
        let [router, t1, t2] = NODES.map(|node| spis(bed, node).into_iter().collect::<BTreeSet<_>>());
        let kernel = bed.guest_ok("ip xfrm state | grep -c ^src");
        let charon =
            swan.ctl_ok("--stats").lines().find(|line| line.contains("IKE_SAs:")).unwrap_or_default().to_owned();
        let all = router.len() == 2 * PEERS && router == t1 && router == t2 && kernel.trim() == (2 * PEERS).to_string();
        all && charon.contains(&format!("IKE_SAs: {PEERS} total, 0 half-open"))
    });
}

/// A page for each of the peers, from its own address.
fn pages(bed: &Bed) {
    fs::write(bed.file("guest/everybody.py"), EVERYBODY).expect("the guest's folder");
    let script = format!("/usr/bin/python3 /mnt/everybody.py {PEERS}");
    let (code, said) = bed.guest_start(&script).finish(Duration::from_secs(120));
    assert_eq!((code, said.trim()), (0, PEERS.to_string().as_str()), "pages");
    bed.progress("each peer has its page");
}

const EVERYBODY: &str = r#"
import socket, sys
got = 0
for peer in range(int(sys.argv[1])):
    source = f"10.90.{peer // 250}.{1 + peer % 250}"
    with socket.create_connection(("10.77.0.100", 80), 20, (source, 0)) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := s.recv(4096):
            answer += data
    got += b"served by" in answer
print(got)
"#;

/// What the router sealed for IKE: no IV comes twice with one key, but for a message that is sent again as it was; and the epoch in
/// front of it is another one after the start.
fn judge_ivs(bed: &Bed, path: &Path) {
    let mut seen: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut epochs: Vec<u32> = Vec::new();
    for frame in Capture::open(path) {
        let Some((key, iv, message)) = sealed_by_the_vip(&frame) else { continue };
        epochs.push(u32::from_be_bytes(iv[..4].try_into().expect("4 bytes")));
        let before = seen.insert([key, iv.clone()].concat(), message.clone());
        assert!(before.is_none_or(|before| before == message), "an IV was used twice: {iv:02x?}");
    }
    let sorted = epochs.is_sorted();
    epochs.dedup();
    bed.progress(&format!("{} sealed IKE messages, epochs {epochs:?}", seen.len()));
    assert!(seen.len() >= 2 * PEERS && epochs.len() == 2 && sorted, "{epochs:?}");
}

/// Of an Ethernet frame from the VIP with an IKE message whose payload is encrypted (RFC 7296 §3.1, §3.14, RFC 5282): both SPIs with the
/// direction, which stand for the key, the IV, and the message as far as it was captured.
fn sealed_by_the_vip(frame: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let from_vip = frame.get(26..30)? == [10, 77, 0, 100] && frame.get(23) == Some(&17);
    let port = u16::from_be_bytes(frame.get(34..36)?.try_into().ok()?);
    let message = match (from_vip, port) {
        (true, 500) => frame.get(42..)?,
        // RFC 3948 §2.2: four zero bytes, or it is ESP.
        (true, 4500) => frame.get(42..)?.strip_prefix(&[0; 4])?,
        _ => return None,
    };
    let iv_at = match message.get(16)? {
        46 => 28 + 4,
        53 => 28 + 8,
        _ => return None,
    };
    let mut key = message.get(..16)?.to_vec();
    key.push(message.get(19)? & 0x08);
    Some((key, message.get(iv_at..iv_at + 8)?.to_vec(), message.to_vec()))
}
