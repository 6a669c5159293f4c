//! Looking into running nodes: metrics, clocks, latencies, rates and the router's sums agree with each other and with what happened.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::NODES;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const PAGES: usize = 40;
const SOON: Duration = Duration::from_secs(10);

#[test]
fn what_a_node_tells_of_itself_is_what_happened() {
    let bed = Bed::up_with(Tunnel::PLAIN, force_a_kernel);
    bed.progress("pages");
    bed.guest_ok(&format!(
        "curl -sS --max-time 10 -o /dev/null 'http://{}/?[1-{PAGES}]' -H 'Connection: close'",
        bed.host()
    ));

    for node in NODES {
        bed.progress(&format!("{node}: metrics, counters, clocks and latencies are of one mind"));
        metrics_are_what_status_says(&bed, node);
        latencies_are_of_all_packets(&bed, node);
    }
    clocks_are_spent_where_the_work_is(&bed);
    bed.progress("the router knows what its targets did and dropped");
    the_router_sums_up(&bed);
    bed.progress("rates, while a download goes on");
    top_shows_rates(&bed);
}

/// One target's ciphers run on other instructions than the others'; nobody should notice.
const FORCED: &str = "portable";

fn force_a_kernel(bed: &Bed) {
    let file = bed.file("etc/t1.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let forced = text.replacen("[node]\n", &format!("[node]\ncipher_kernel = \"{FORCED}\"\n"), 1);
    std::fs::write(&file, forced).expect("a configuration");
}

/// The samples of a scrape by series.
fn metrics(bed: &Bed, node: &str) -> BTreeMap<String, f64> {
    let namespace = bed.namespace(node);
    let curl =
        ["netns", "exec", &namespace, "curl", "-sS", "--fail", "--max-time", "10", "http://127.0.0.1:9469/metrics"];
    let output = Command::new("ip").args(curl).output().expect("ip can be run");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && text.ends_with("# EOF\n"), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample =
        |line: &str| line.rsplit_once(' ').map(|(series, value)| (series.to_owned(), value.parse().expect("a number")));
    samples.map(|line| sample(line).expect("a series and its value")).collect()
}

/// Every counter of a scrape lies between those of two queries around it.
fn metrics_are_what_status_says(bed: &Bed, node: &str) {
    let before = counters(bed, node);
    let scrape = metrics(bed, node);
    let after = counters(bed, node);
    for (series, low) in &before {
        let value = scrape.get(series).copied().unwrap_or(0.0) as u64;
        assert!((*low..=after[series]).contains(&value), "{node}: {series} is {value}, not {low}..={}", after[series]);
    }
    assert_eq!(scrape.get("phalanx_state{state=\"running\"}"), Some(&1.0));
    let kernel = if node == "t1" { FORCED } else { phalanx_aead::Kernel::chosen().name() };
    assert_eq!(bed.query(node, "status")["cipher_kernel"], kernel);
    let build = |series: &&String| series.starts_with("phalanx_build_info{");
    assert!(scrape.keys().find(build).is_some_and(|info| info.contains(&format!("cipher_kernel=\"{kernel}\""))));
    let keys = scrape.keys().filter(|series| series.contains("000102030405")).count();
    assert_eq!(keys, 0, "a key");
}

/// What `status` and `drop` say, named as the metrics are.
fn counters(bed: &Bed, node: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for core in bed.query(node, "status")["cores"].as_array().expect("cores") {
        for (stage, n) in core["stages"].as_object().expect("stages") {
            let series = format!("phalanx_stage_packets_total{{stage=\"{stage}\",core=\"{}\"}}", core["core"]);
            all.insert(series, n.as_u64().expect("a number"));
        }
    }
    for row in bed.query(node, "drop").as_array().expect("reasons") {
        for (core, n) in row["cores"].as_array().expect("cores").iter().enumerate() {
            let reason = row["reason"].as_str().expect("a reason");
            let series = format!("phalanx_drops_total{{reason=\"{reason}\",core=\"{core}\"}}");
            all.insert(series, n.as_u64().expect("a number"));
        }
    }
    all
}

/// Each received packet is in the distribution of the time that packets stay.
fn latencies_are_of_all_packets(bed: &Bed, node: &str) {
    let received = || step_sum(&bed.query(node, "runtime"), "packets", |step| step.starts_with("rx-"));
    let before = received();
    let rows = bed.query(node, "latency");
    let after = received();
    let residence = row_of(&rows, "residence");
    let count = residence["count"].as_u64().expect("a number");
    // A burst that is under way has been received, but it still stays.
    assert!((before.saturating_sub(64)..=after).contains(&count), "{node}: {count}, not {before}..={after}");
    let us = |name: &str| residence[name].as_f64().expect("µs");
    assert!(us("p50_us") > 0.0 && us("p50_us") <= us("p99_us") && us("p99_us") <= us("max_us"), "{residence}");
    let neighbour = row_of(&rows, "neighbour-wait")["count"].as_u64().expect("a number");
    assert!(neighbour > 0, "{node}: the first packet waited for its next hop");
}

fn row_of<'v>(rows: &'v Value, what: &str) -> &'v Value {
    let all_cores = |row: &&Value| row["what"] == what && row["core"].is_null();
    rows.as_array().expect("rows").iter().find(all_cores).unwrap_or_else(|| panic!("no {what}"))
}

/// A figure of the steps that `which` chooses, over all cores.
fn step_sum(runtime: &Value, figure: &str, which: impl Fn(&str) -> bool) -> u64 {
    let steps = runtime.as_array().expect("cores").iter().flat_map(|core| core["steps"].as_array().expect("steps"));
    steps
        .filter(|step| which(step["step"].as_str().expect("a name")))
        .map(|step| step[figure].as_u64().expect("a number"))
        .sum()
}

fn clocks_are_spent_where_the_work_is(bed: &Bed) {
    let spent = |node: &str, wanted: &str| {
        let runtime = bed.query(node, "runtime");
        let sum = |figure: &str| step_sum(&runtime, figure, |step| step == wanted);
        (sum("packets"), sum("clocks"))
    };
    // What takes the router's fast path is looked up while it is sorted.
    for (node, step) in [("r", "sort"), ("r", "peek"), ("r", "decide"), ("t1", "open"), ("t1", "seal"), ("t2", "tx")] {
        let (packets, clocks) = spent(node, step);
        let each = clocks / packets.max(1);
        assert!(packets > 40 && (10..100_000_000).contains(&each), "{node} {step}: {clocks} clocks for {packets}");
    }
}

fn the_router_sums_up(bed: &Bed) {
    let told = |node: &str, reason: &str| {
        let rows = bed.query("r", "drop");
        let row =
            rows.as_array().expect("reasons").iter().find(|row| row["reason"] == reason).expect("all are told").clone();
        let of_nodes: u64 = row["nodes"].as_object().expect("nodes").values().filter_map(Value::as_u64).sum();
        assert_eq!(row["cluster"].as_u64(), row["packets"].as_u64().map(|here| here + of_nodes), "{row}");
        row["nodes"][node].as_u64().unwrap_or(0)
    };
    // The hosts' own chatter on the application ports is dropped on every node.
    for node in ["t1", "t2"] {
        wait_until("the router is told of drops", SOON, || told(node, "not-for-us") > 0);
    }
    let own = crate::looks::drops(bed, "t1")["not-for-us"];
    wait_until("the router is told of all of them", SOON, || told("t1", "not-for-us") >= own);

    let sas = bed.query("r", "sa");
    for sa in sas.as_array().expect("SAs") {
        let holders: Vec<&str> =
            sa["shares"].as_array().expect("shares").iter().filter_map(|share| share["holder"].as_str()).collect();
        assert!(holders.contains(&"t1") && holders.contains(&"t2"), "{sa}");
    }
    let targets = bed.query("r", "target");
    let packets = |t: &Value| t["packets"].as_u64() > Some(100) && t["bytes"].as_u64() > Some(1000);
    assert!(targets.as_array().expect("targets").iter().all(packets), "{targets}");
}

/// The screen is drawn on the terminal's other page, and the terminal is as before afterwards.
fn on_a_terminal(bed: &Bed) {
    let socket = bed.file("r.sock");
    let top =
        format!("stty rows 24 cols 80; {} top --count 1 --socket {}", env!("CARGO_BIN_EXE_phalanx"), socket.display());
    let output = Command::new("script").args(["-qec", &top, "/dev/null"]).stdin(std::process::Stdio::null()).output();
    let output = output.expect("script can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let (before, after) = text.split_once("\x1b[?1049h").expect("the other page");
    assert!(output.status.success() && !before.contains("CORE"), "{text}");
    let (screen, _) = after.rsplit_once("\x1b[?1049l").expect("and back");
    assert!(screen.contains("TUNNEL") && screen.contains("quits"), "{screen}");
}

fn top_shows_rates(bed: &Bed) {
    let download =
        bed.guest_start(&format!("curl -sS --max-time 60 -o /dev/null http://{}:8080/100/1000/400", bed.host()));
    let top = |node: &str, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .arg("top")
            .args(arguments)
            .arg("--socket")
            .arg(bed.file(&format!("{node}.sock")))
            .output()
            .expect("phalanx can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let lines = top("r", &["--json", "--count", "2"]);
    let rates: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rates.len(), 2, "a line for each interval");
    let some = |value: &Value| value.as_f64().is_some_and(|rate| rate > 1.0);
    for now in &rates {
        assert!(some(&now["in_pps"]) && some(&now["sas"][0]["pps"]) && now["seconds"].as_f64() > Some(0.1), "{now}");
    }
    assert!(rates[1]["targets"].as_array().expect("targets").iter().any(|target| some(&target["pps"])), "{}", rates[1]);
    let text = top("t1", &[]);
    assert!(text.contains("t1 of") && text.contains("core 0") && !text.contains('\x1b'), "{text}");
    on_a_terminal(bed);
    let _ = download.finish(Duration::from_secs(60));
}
