//! Watched packets on a running node: `phalanx trace` tells of each what `phalanx explain` tells of a capture of it.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::raw::RawSender;
use crate::wire::readdress;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A trace that goes on.
struct Trace(Child);

impl Trace {
    fn start(bed: &Bed, node: &str, which: &[&str]) -> Trace {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command.arg("trace").args(which).args(["--json", "--socket"]).arg(bed.file(&format!("{node}.sock")));
        Trace(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("phalanx can be run"))
    }

    /// Its packets, once it has all of them; `meanwhile` makes some.
    fn lines(mut self, meanwhile: impl Fn()) -> Vec<Value> {
        wait_until("the trace has its packets", SOON, || {
            meanwhile();
            self.0.try_wait().expect("a child").is_some()
        });
        let output = self.0.wait_with_output().expect("its output");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// As when somebody presses Ctrl-C.
    fn interrupt(mut self) {
        self.0.kill().expect("a child");
        self.0.wait().expect("a child");
    }
}

fn said(line: &Value, words: &str) -> bool {
    line["decisions"].as_array().expect("a list").iter().any(|d| d["what"].as_str().expect("text").contains(words))
}

#[test]
fn a_trace_tells_each_packets_way_and_why_one_is_dropped() {
    let bed = Bed::up(Tunnel::PLAIN);
    bed.capture("sw", "n-r", "n-r", &["esp", "and", "dst", "host", "10.77.0.100"]);
    let page = || drop(bed.guest("curl -sS --max-time 5 -o /dev/null http://10.77.0.100/"));

    bed.progress("the router forwards");
    let lines = Trace::start(&bed, "r", &["--count", "3", "--local", "10.77.0.100:80"]).lines(page);
    assert_eq!(lines.len(), 3);
    for line in &lines {
        assert_eq!((line["verdict"].as_str(), line["spi"].as_str()), (Some("forward"), Some("0x00001001")), "{line}");
        assert_eq!(line["connection"]["local"], "10.77.0.100:80");
        assert!(line["target"] == "t1" || line["target"] == "t2", "{line}");
        assert!(said(line, "received from port net") && said(line, "forwarded to target t"), "{line}");
    }

    bed.progress("a target opens and seals");
    let lines = Trace::start(&bed, "t1", &["--count", "8"]).lines(page);
    let of = |verdict: &str| lines.iter().filter(|line| line["verdict"] == verdict).collect::<Vec<_>>();
    let (opened, sealed) = (of("open"), of("seal"));
    assert!(!opened.is_empty() && !sealed.is_empty(), "{lines:?}");
    assert!(opened.iter().all(|line| said(line, "authentic; inside: tcp") && said(line, "delivered")), "{opened:?}");
    assert!(sealed.iter().all(|line| said(line, "the filter leads to SA 0x00002001")), "{sealed:?}");

    bed.progress("one trace at a time, and none is left behind by who goes away");
    let mut first = Trace::start(&bed, "r", &["--dropped=no-lease"]);
    wait_until("the second one is refused", SOON, || {
        if first.0.try_wait().expect("a child").is_some() {
            first = Trace::start(&bed, "r", &["--dropped=no-lease"]); // it came second
        }
        let second = Trace::start(&bed, "r", &["--count", "1"]);
        page();
        let output = second.0.wait_with_output().expect("its output");
        String::from_utf8_lossy(&output.stderr).contains("another trace")
    });
    first.interrupt();
    Trace::start_when_free(&bed).lines(page);

    bed.progress("a replay");
    let esp = bed.frames("n-r").last().expect("ESP");
    let sender = RawSender::open(&bed.namespace("at"), "net0");
    let replay = || {
        sender.send(&readdress(esp.clone()));
        std::thread::sleep(Duration::from_millis(50));
    };
    let lines = Trace::start(&bed, "r", &["--count", "2", "--dropped=replay"]).lines(replay);
    assert!(lines.iter().all(|line| line["verdict"] == "drop" && line["reason"] == "replay"), "{lines:?}");

    bed.progress("the same in a capture");
    let capture = bed.capture_end("n-r");
    let explain = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["explain", "--config"])
        .arg(bed.file("etc/r.toml"))
        .arg(&capture)
        .output()
        .expect("phalanx can be run");
    let text = String::from_utf8_lossy(&explain.stdout);
    let number = &lines[0]["seq"];
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let same = told.iter().filter(|line| &line["seq"] == number);
    let reasons: Vec<&Value> = same.map(|line| &line["reason"]).collect();
    assert_eq!((reasons[0], reasons[1]), (&Value::Null, &Value::from("replay")), "{reasons:?}");
}

impl Trace {
    /// A trace of one packet, as soon as no other goes on.
    fn start_when_free(bed: &Bed) -> Trace {
        let mut trace = Trace::start(bed, "r", &["--count", "1"]);
        wait_until("the trace before is over", SOON, || {
            std::thread::sleep(Duration::from_millis(200));
            let ended = trace.0.try_wait().expect("a child");
            let refused = ended.is_some_and(|status| !status.success());
            if refused {
                trace = Trace::start(bed, "r", &["--count", "1"]);
            }
            !refused
        });
        trace
    }
}
