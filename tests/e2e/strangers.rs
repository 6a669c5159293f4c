//! Other peers than the guest: strongSwan with IPsec in user space beside it, and ike-scan, which looks what answers.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::pages;
use crate::negotiated::{SOON, assert_clean, events, sas, wait_gone};
use crate::raw::datagrams;
use crate::swan::{Connection, Swan};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Several clients are one peer of the configuration, each with an inner address of its own.
const ROAD: Tunnel = Tunnel {
    peer: "local_id = \"vip.example\"\nremote_id = \"*.example\"\nsecret = \"swordfish, always\"\n\
           [[peer.child]]\nname = \"c\"\nremote = \"10.99.0.0/24\"\n",
    ..Tunnel::PLAIN
};

/// Runs a program in the namespace of the other host on the network: its exit code and what it says.
fn run(bed: &Bed, program: &[&str]) -> (Option<i32>, String) {
    let namespace = bed.namespace("at");
    let output = Command::new("ip").args(["netns", "exec", &namespace]).args(program).output().expect("ip can be run");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn run_ok(bed: &Bed, program: &[&str]) -> String {
    let (code, said) = run(bed, program);
    assert_eq!(code, Some(0), "{program:?}: {said}");
    said
}

/// strongSwan with `kernel-libipsec` there.
struct UserSwan<'a> {
    bed: &'a Bed,
}

impl UserSwan<'_> {
    fn start<'a>(bed: &'a Bed, ike: &str, esp: &str) -> UserSwan<'a> {
        let folder = bed.file("user");
        fs::create_dir_all(&folder).expect("its folder");
        let text = format!(
            "connections {{ vip {{ version = 2\n local_addrs = 10.77.0.66\n remote_addrs = 10.77.0.100\n proposals = {ike}\n\
             local {{ auth = psk\n id = user.example }}\n remote {{ auth = psk\n id = vip.example }}\n\
             children {{ c {{ mode = tunnel\n local_ts = 10.99.0.66/32\n remote_ts = 10.77.0.100/32\n esp_proposals = {esp} }} }} }} }}\n\
             secrets {{ ike-1 {{ id-1 = user.example\n id-2 = vip.example\n secret = \"swordfish, always\" }} }}\n"
        );
        fs::write(folder.join("swanctl.conf"), text).expect("its configuration");
        bed.script("cluster.sh", &["user_swan"]);
        UserSwan { bed }
    }

    fn ctl(&self, words: &[&str]) -> String {
        let folder = self.bed.file("user");
        let vici = format!("unix://{}", folder.join("vici").display());
        let output = Command::new("swanctl").args(words).args(["--uri", &vici]).output().expect("swanctl");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "swanctl {words:?}: {said}{}", self.log());
        said
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bed.file("user/log")).unwrap_or_default()
    }
}

#[test]
fn a_peer_whose_ipsec_is_in_user_space_is_served_beside_one_with_a_kernels() {
    let bed = Bed::up(ROAD);
    let swan = Swan::start(&bed, &Connection::PLAIN);
    swan.initiate();
    let user = UserSwan::start(&bed, "aes256gcm16-prfsha256-ecp256", "aes256gcm16-noesn");
    user.ctl(&["--initiate", "--child", "c", "--timeout", "20"]);
    let of = |identity: &str| -> Option<Value> { sas(&bed).into_iter().find(|ike| ike["identity"] == identity) };
    let child = of("user.example").unwrap_or_else(|| panic!("{}", events(&bed)))["children"][0].clone();
    bed.progress(&format!("in user space: {} {}", child["suite"], child["selectors"]));
    let fetch = |count: usize| {
        let url = format!("http://10.77.0.100/?[1-{count}]");
        let curl = ["curl", "-sS", "--max-time", "20", "--interface", "10.99.0.66", "-H", "Connection: close", &url];
        let said = run_ok(&bed, &curl);
        assert_eq!(said.matches("served by").count(), count, "{said}");
    };
    fetch(20);
    pages(&bed, 20);
    for (who, order) in [("we", None), ("they", Some(["--rekey", "--child", "c"]))] {
        let old = of("user.example").expect("it is up")["children"][0]["id"].to_string();
        match order {
            Some(words) => drop(user.ctl(&words)),
            None => drop(bed.order("r", &["ike", "rekey", &old])),
        }
        wait_until(&format!("{who} have new keys"), SOON, || {
            of("user.example").is_some_and(|ike| {
                let children = ike["children"].as_array().expect("a list").clone();
                children.len() == 1 && format!("{}", children[0]["id"]) != old && children[0]["state"] == "up"
            })
        });
        fetch(10);
    }
    let url = "http://10.77.0.100/megabyte";
    let curl = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "--interface",
        "10.99.0.66",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        url,
    ];
    assert_eq!(run_ok(&bed, &curl), "1000000");
    user.ctl(&["--terminate", "--ike", "vip"]);
    wait_until("it is gone and the other one is not", SOON, || sas(&bed).len() == 1);
    pages(&bed, 20);
    swan.ctl_ok("--terminate --ike vip");
    wait_gone(&bed);
    assert_clean(&bed);
}

#[test]
fn ike_scan_is_told_that_nothing_fits_and_a_proposal_that_fits_is_answered() {
    let bed = Bed::up(ROAD);
    run_ok(&bed, &["ip", "address", "replace", "10.77.0.66/24", "dev", "net0"]);
    // It proposes AES-CBC, 3DES, DES with SHA-1 and MD5, and nothing else.
    let scan = ["ike-scan", "--ikev2", "--dhgroup=14", "--sport=0", "--retry=2", "--timeout=2000", "-v", "10.77.0.100"];
    let said = run_ok(&bed, &scan);
    bed.progress(said.lines().find(|line| line.starts_with("10.77.0.100")).unwrap_or_default());
    assert!(said.contains("NO_PROPOSAL_CHOSEN") && said.contains("1 returned notify"), "{said}");
    wait_until("the router says what was offered", SOON, || {
        events(&bed).contains("no common proposal: the peer offered")
    });
    // The first version of IKE is not spoken: it hears nothing, and nothing comes of it.
    let (_, said) = run(&bed, &["ike-scan", "--sport=0", "--retry=2", "--timeout=500", "10.77.0.100"]);
    assert!(said.contains("0 returned handshake"), "{said}");

    let (message, answer) = probe(&bed);
    assert_eq!(answer[..8], message[..8], "the same initiator");
    assert_ne!(answer[8..16], [0; 8], "a responder");
    // RFC 7296 §3.1: an SA payload first, version 2.0, IKE_SA_INIT, a response.
    assert_eq!(answer[16..20], [33, 0x20, 34, 0x20], "{answer:02x?}");
    bed.progress(&format!("{} bytes answer a proposal that fits", answer.len()));
    let swan = Swan::start(&bed, &Connection::PLAIN);
    swan.initiate();
    pages(&bed, 20);
    assert_clean(&bed);
}

/// IKE_SA_INIT with AES-GCM, HMAC-SHA2-256 and X25519 (RFC 7296 §3.3, RFC 8031), and the answer to it.
fn probe(bed: &Bed) -> (Vec<u8>, Vec<u8>) {
    let transforms: [&[u8]; 3] =
        [&[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 0, 128], &[3, 0, 0, 8, 2, 0, 0, 5], &[0, 0, 0, 8, 4, 0, 0, 31]];
    let proposal = [&[0, 0, 0, 36, 1, 1, 0, 3][..], &transforms.concat()].concat();
    let security = [&[34, 0, 0, 40][..], &proposal].concat();
    let mut point = [0; 32];
    point[0] = 9;
    let exchange = [&[40, 0, 0, 40, 0, 31, 0, 0][..], &point].concat();
    let nonce = [&[0, 0, 0, 36][..], &[7; 32]].concat();
    let body = [security, exchange, nonce].concat();
    let length = u32::try_from(28 + body.len()).expect("a short message").to_be_bytes();
    let head = [&[1; 8][..], &[0; 8], &[33, 0x20, 34, 0x08], &[0; 4], &length].concat();
    let message = [head, body].concat();
    let socket = datagrams(&bed.namespace("at"), "10.77.0.66", 0);
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let mut answer = vec![0; 2000];
    // The first one may be spent on finding the way.
    for _ in 0..10 {
        socket.send_to(&message, "10.77.0.100:500").expect("a route");
        if let Ok((length, _)) = socket.recv_from(&mut answer) {
            answer.truncate(length);
            return (message, answer);
        }
    }
    panic!("nobody answers: {}", events(bed));
}
