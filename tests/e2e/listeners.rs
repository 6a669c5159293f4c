//! Who listens gets connections (R25), who drains or is loaded gets none or fewer, and where nobody listens the client is refused at once.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::client::{Client, Page, now};
use crate::looks::{Wire, assert_invariants};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Long enough on a loaded machine for what takes a tenth of a second.
const SOON: Duration = Duration::from_secs(10);
/// The router knows of a change after this.
const KNOWN: u64 = 200_000;

/// A target as the router sees it.
fn row(bed: &Bed, target: &str) -> Value {
    let rows = bed.query("r", "target");
    rows.as_array().expect("rows").iter().find(|row| row["name"] == target).expect("the target").clone()
}

/// The ports that the router knows a target to listen on, for IPv4.
fn listening(bed: &Bed, target: &str) -> String {
    let row = row(bed, target);
    let all = row["listening"].as_array().expect("a list").iter().filter_map(Value::as_str);
    all.filter_map(|words| words.strip_prefix("vip4: ")).collect()
}

/// `phalanx target ...` on a node: what it says.
fn order(bed: &Bed, node: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .arg("target")
        .args(words)
        .arg("--socket")
        .arg(bed.file(&format!("{node}.sock")))
        .output()
        .expect("phalanx can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn by<'a>(pages: &'a [Page], target: &'a str) -> impl Iterator<Item = &'a Page> {
    pages.iter().filter(move |page| page.by == target)
}

#[test]
fn a_stopped_server_gets_no_connections_and_a_started_one_its_share_again() {
    let bed = Bed::up(Tunnel::PLAIN);
    for port in ["n-cl", "n-r"] {
        bed.capture("sw", port, port, &["-s", "160"]);
    }
    assert_eq!((listening(&bed, "t1").as_str(), listening(&bed, "t2").as_str()), ("80,8080", "80,8080"));
    let client = Client::new(&bed);
    let (on_t1, pages) = (client.stream_from("t1"), client.pages());

    bed.progress("the web server of t1 stops");
    let before = now();
    bed.script("cluster.sh", &["bed_stop", "nginx-t1"]);
    let gone = now();
    wait_until("the router knows", SOON, || listening(&bed, "t1") == "8080");
    let known = now();
    wait_until("pages come after that", SOON, || pages.after(known).len() > 20);
    let after = pages.after(known);
    assert_eq!(by(&after, "t1").count(), 0, "{after:?}");
    let failed = pages.failed_after(known);
    assert!(failed.is_empty(), "connections failed once the router knew: {failed:?}");
    on_t1.goes_on(SOON);
    bed.progress(&format!("stopped within {} ms; {}", (gone - before) / 1000, times(&bed, "8080")));

    bed.progress("nobody listens any more: the client is refused at once, through the tunnel");
    bed.script("cluster.sh", &["bed_stop", "nginx-t2"]);
    wait_until("the router knows", SOON, || listening(&bed, "t2") == "8080");
    let (code, words) = bed.guest(&format!("curl -sv --max-time 10 http://{}/", bed.host()));
    assert_eq!(code, 7, "{words}");
    assert!(words.contains("refused"), "{words}");
    let no_listener = |row: &Value| row["reason"] == "no-listener" && row["packets"].as_u64() > Some(0);
    assert!(bed.query("r", "drop").as_array().expect("rows").iter().any(no_listener));

    bed.progress("both start again");
    for target in ["t1", "t2"] {
        bed.script("cluster.sh", &["web", target]);
    }
    wait_until("the router knows", SOON, || ["t1", "t2"].iter().all(|t| listening(&bed, t) == "80,8080"));
    let known = now();
    wait_until("both serve again", SOON, || {
        let after = pages.after(known);
        by(&after, "t1").count() > 10 && by(&after, "t2").count() > 10
    });
    pages.stop();
    assert!(!on_t1.ended(), "the connection of a target went on all the time");
    on_t1.stop();
    assert_invariants(&bed);
    bed.capture_end("n-r");
    let wire = Wire::of(&bed.capture_end("n-cl"));
    assert!(wire.clear.is_empty(), "in clear: {:?}", wire.clear);
    assert!(wire.answers("r") > 0, "the router refused, under its own address: {wire:?}");
}

/// How long after a target saw a change the router had told its core: from the two logs, on one clock.
fn times(bed: &Bed, ports: &str) -> String {
    let stamp = |node: &str, words: &str| {
        let log = std::fs::read_to_string(bed.file(&format!("log/{node}.log"))).expect("its log");
        let line = log.lines().rfind(|line| line.contains(words) && line.contains(&format!("ports=\"{ports}\"")))?;
        let time = line.split_once('T')?.1.split_once('Z')?.0.to_owned();
        let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
        Some(parts.next()?? * 3600e6 + parts.next()?? * 60e6 + parts.next()?? * 1e6)
    };
    let (seen, known) = (stamp("t1", "listeners here"), stamp("r", "listeners of a target"));
    let (Some(seen), Some(known)) = (seen, known) else { panic!("the logs do not say when") };
    let took = (known - seen).max(0.0) as u64;
    assert!(took < KNOWN, "{took} µs from the target to the router");
    format!("the router knew {took} µs after the target")
}

#[test]
fn targets_drain_and_resume_by_command_and_a_loaded_one_gets_fewer() {
    let load = |bed: &Bed, target: &str, load: &str| {
        std::fs::write(bed.file(&format!("load-{target}")), load).expect("a file");
    };
    let bed = Bed::up_with(Tunnel::PLAIN, |bed| {
        let edit = |node: &str, from: &str, to: &str| {
            let path = bed.file(&format!("etc/{node}.toml"));
            let text = std::fs::read_to_string(&path).expect("a configuration");
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).expect("a configuration");
        };
        edit("r", "select = \"round-robin\"", "select = \"load\"");
        for target in ["t1", "t2"] {
            let file = bed.file(&format!("load-{target}"));
            edit(target, "[node]\n", &format!("[node]\nload_file = \"{}\"\n", file.display()));
            load(bed, target, "0");
        }
    });
    let client = Client::new(&bed);
    let on_t1 = client.stream_from("t1");

    bed.progress("t1 drains by its router's command");
    let said = order(&bed, "r", &["drain", "t1"]).expect("it can");
    assert!(said.contains("t1 gets no new connections for vip4, vip6"), "{said}");
    assert_eq!(
        (row(&bed, "t1")["ready"].as_bool(), row(&bed, "t1")["state"].as_str()),
        (Some(false), Some("draining"))
    );
    served_by(&bed, 10, |t1, t2| (t1, t2) == (0, 10));
    on_t1.goes_on(SOON);
    bed.progress("that outlives the target's session and boot");
    on_t1.stop();
    bed.terminate("t1");
    bed.start("t1");
    wait_until("t1 is back", SOON, || row(&bed, "t1")["state"] == "draining" && listening(&bed, "t1") == "80,8080");
    served_by(&bed, 10, |t1, t2| (t1, t2) == (0, 10));
    let said = order(&bed, "r", &["resume", "t1", "--json"]).expect("it can");
    assert!(serde_json::from_str::<Value>(&said).expect("JSON")["done"].is_string(), "{said}");
    bed.wait_ready();

    bed.progress("t2 drains by its own command, for one VIP");
    let said = order(&bed, "t2", &["drain", "--vip", "10.77.0.100"]).expect("it can");
    assert!(said.contains("t2 gets no new connections for 10.77.0.100"), "{said}");
    wait_until("the router knows", SOON, || row(&bed, "t2")["draining"] == serde_json::json!(["vip4"]));
    served_by(&bed, 10, |t1, t2| (t1, t2) == (10, 0));
    let said = order(&bed, "r", &["resume", "t2"]).expect("it can");
    assert!(said.contains("note: t2 itself wants none"), "{said}");
    order(&bed, "t2", &["resume"]).expect("it can");
    wait_until("the router knows", SOON, || row(&bed, "t2")["draining"] == serde_json::json!([]));

    bed.progress("what cannot be done is refused in words");
    for (node, words, why) in [
        ("r", &["drain"][..], "r is no target itself; name one of its targets: t1, t2"),
        ("r", &["drain", "t3"], "there is no target t3; there is t1, t2"),
        ("r", &["drain", "t1", "--vip", "web"], "there is no VIP web here; there is vip4, vip6"),
        ("t1", &["drain", "t2"], "t1 is no router: ask at t2 itself, or at the router (r)"),
    ] {
        let said = order(&bed, node, words).expect_err("it cannot");
        assert!(said.contains(why), "{said}");
    }

    bed.progress("a loaded target gets fewer, and its share again when it recovers");
    let weight = |target: &str| row(&bed, target)["weights"][0].as_u64().expect("a weight");
    wait_until("both have all of it", SOON, || ["t1", "t2"].map(weight) == [1000, 1000]);
    load(&bed, "t1", "750");
    wait_until("t1 has a quarter of it", SOON, || ["t1", "t2"].map(weight) == [250, 1000]);
    assert_eq!(row(&bed, "t1")["load"], 750);
    served_by(&bed, 20, |t1, t2| (3..=5).contains(&t1) && t1 + t2 == 20);
    load(&bed, "t1", "0");
    wait_until("t1 recovered", SOON, || weight("t1") == 1000);
    served_by(&bed, 10, |t1, t2| (4..=6).contains(&t1) && t1 + t2 == 10);
    assert_invariants(&bed);
}

/// Fetches pages, each over a connection of its own, and judges how many each target served.
fn served_by(bed: &Bed, pages: usize, good: impl Fn(usize, usize) -> bool) {
    let before = ["t1", "t2"].map(|target| bed.served(target));
    bed.guest_ok(&format!("curl -sS --max-time 10 'http://{}/?[1-{pages}]' -H 'Connection: close'", bed.host()));
    let after = ["t1", "t2"].map(|target| bed.served(target));
    let (t1, t2) = (after[0] - before[0], after[1] - before[1]);
    assert!(good(t1, t2), "t1 served {t1}, t2 served {t2}");
}
