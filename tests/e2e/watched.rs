//! Watched packets on a running node: `phalanx trace` tells of each what `phalanx explain` tells of a capture of it;
//! `phalanx capture` shows them before and after IPsec.

use crate::bed::{Bed, TO_CLIENT, TO_VIP, Tunnel, wait_until};
use crate::raw::RawSender;
use crate::wire::{Frame, esp_offset, readdress};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A trace that goes on.
pub struct Trace(Child);

impl Trace {
    pub fn start(bed: &Bed, node: &str, which: &[&str]) -> Trace {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
        command.arg("trace").args(which).args(["--json", "--socket"]).arg(bed.file(&format!("{node}.sock")));
        Trace(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("phalanx can be run"))
    }

    /// Its packets, once it has all of them; `meanwhile` makes some.
    pub fn lines(mut self, meanwhile: impl Fn()) -> Vec<Value> {
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

    captures(&bed, &sender, page);

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

/// A packet in a pcapng file.
pub struct Seen {
    pub interface: String,
    pub frame: Vec<u8>,
    pub comment: String,
}

impl Seen {
    fn has(&self, text: &str) -> bool {
        self.frame.windows(text.len()).any(|part| part == text.as_bytes())
    }

    fn spi(&self) -> Option<u32> {
        Frame::parse(&self.frame).esp().map(|(spi, _)| spi)
    }
}

/// The packets of a pcapng file of this machine's byte order (draft-ietf-opsawg-pcapng §3, §4), as far as it is written.
fn pcapng(file: &[u8]) -> Vec<Seen> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("4 bytes")) as usize;
    let half = |at: usize| usize::from(u16::from_ne_bytes(file[at..at + 2].try_into().expect("2 bytes")));
    let option = |mut at: usize, end: usize, code: usize| {
        while at < end && half(at) != code {
            at += 4 + half(at + 2).next_multiple_of(4);
        }
        let text = if at < end { &file[at + 4..at + 4 + half(at + 2)] } else { &[] };
        String::from_utf8(text.to_vec()).expect("text")
    };
    let (mut at, mut interfaces, mut seen) = (0, Vec::new(), Vec::new());
    while at + 12 <= file.len() && at + word(at + 4) <= file.len() {
        let (body, end) = (at + 8, at + word(at + 4) - 4);
        match word(at) {
            1 => interfaces.push(option(body + 8, end, 2)),
            6 => {
                let (data, len) = (body + 20, word(body + 12));
                let interface: &String = &interfaces[word(body)];
                let comment = option(data + len.next_multiple_of(4), end, 1);
                seen.push(Seen { interface: interface.clone(), frame: file[data..data + len].to_vec(), comment });
            }
            _ => {}
        }
        assert!(word(at + 4) >= 12, "a block has a length");
        at = end + 4;
    }
    seen
}

pub fn read(file: &Path) -> Vec<Seen> {
    pcapng(&std::fs::read(file).unwrap_or_default())
}

pub fn start_capture(bed: &Bed, node: &str, which: &[&str], file: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command.arg("capture").args(which).args(["--json", "--socket"]).arg(bed.file(&format!("{node}.sock")));
    command.arg("-w").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("phalanx can be run")
}

/// As with Ctrl-C: what it says of itself.
pub fn end_capture(capture: Child) -> (Value, String) {
    kill(Pid::from_raw(capture.id().cast_signed()), Signal::SIGINT).expect("a child");
    let output = capture.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).expect("JSON"), said)
}

/// A page is fetched and a forged SYN sent meanwhile.
fn captures(bed: &Bed, sender: &RawSender, page: impl Fn()) {
    bed.progress("a capture of the link port of a target ends after its packets");
    let mut few = start_capture(bed, "t2", &["--port", "link", "--count", "3", "--snaplen", "64"], Path::new("-"));
    wait_until("the capture has its packets", SOON, || {
        page();
        few.try_wait().expect("a child").is_some()
    });
    let output = few.wait_with_output().expect("its output");
    let few = pcapng(&output.stdout);
    assert_eq!(few.len(), 3, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(few.iter().all(|seen| seen.interface.starts_with("link ") && seen.frame.len() <= 64));

    bed.progress("captures of a page at a target, and of a forged SYN at the router");
    let (at_target, at_router) = (bed.file("t1.pcapng"), bed.file("r.pcapng"));
    let (target, router) = (start_capture(bed, "t1", &[], &at_target), start_capture(bed, "r", &[], &at_router));
    wait_until("the page is seen before and after IPsec", SOON, || {
        page();
        let (target, router) = (read(&at_target), read(&at_router));
        let any = |seen: &[Seen], on: &str, is: &dyn Fn(&Seen) -> bool| {
            seen.iter().any(|seen| seen.interface == on && is(seen))
        };
        any(&router, "net rx", &|seen| seen.spi() == Some(TO_VIP))
            && any(&target, "app tx (opened)", &|seen| seen.has("GET / HTTP/1.1"))
            && any(&target, "app rx (to seal)", &|seen| seen.has("HTTP/1.1 200 OK"))
            && any(&target, "net tx", &|seen| seen.spi() == Some(TO_CLIENT) && !seen.has("HTTP/1.1 200 OK"))
    });
    let mut syn = readdress(bed.frames("n-r").next().expect("ESP"));
    wait_until("the forged SYN is seen, and why it is dropped", SOON, || {
        let newest = bed.frames("n-r").filter_map(|frame| Frame::parse(&frame).esp()).map(|(_, number)| number).max();
        let at = esp_offset(&syn) + 4;
        syn[at..at + 4].copy_from_slice(&(newest.expect("ESP") + 30).to_be_bytes());
        sender.send(&syn);
        std::thread::sleep(Duration::from_millis(50));
        let dropped = |seen: &Seen| seen.interface == "dropped" && seen.comment == "bad-icv";
        read(&at_router).iter().any(|seen| dropped(seen) && seen.spi() == Some(TO_VIP))
    });
    let third = start_capture(bed, "r", &[], &at_target).wait_with_output().expect("its output");
    assert!(String::from_utf8_lossy(&third.stderr).contains("another capture goes on"), "{third:?}");
    for (capture, file) in [(target, at_target), (router, at_router)] {
        let (summary, said) = end_capture(capture);
        assert_eq!((&summary["packets"], &summary["lost"]), (&Value::from(read(&file).len()), &Value::from(0)));
        assert!(said.contains("plaintext"), "{said}");
        assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
        let tcpdump = Command::new("tcpdump").arg("-nr").arg(&file).output().expect("tcpdump");
        assert!(tcpdump.status.success(), "{}", String::from_utf8_lossy(&tcpdump.stderr));
    }
}
