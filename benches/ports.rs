//! the data plane through real DPDK ports: router in, target in and out; against the same ports with nothing between them

#[path = "path/bed.rs"]
mod bed;
#[path = "path/counting.rs"]
mod counting;
#[path = "ports/feed.rs"]
mod feed;
mod harness;
#[path = "ports/lab.rs"]
mod lab;
#[path = "ports/secgw.rs"]
mod secgw;
#[path = "path/shape.rs"]
mod shape;
#[path = "ports/subject.rs"]
mod subject;

use std::process::ExitCode;

use bed::Bed;
use feed::Feed;
use harness::{Report, Unit, note};
use lab::{Lab, Measured};
use phalanx_dataplane::Stage;
use secgw::Secgw;
use shape::{ACK, APPLICATION, LINK, NETWORK, SYN, Shape, Side};
use subject::{Forwarder, Subject};

/// Inner packets, IP header included.
const SIZES: [usize; 3] = [64, 512, 1420];
/// Frames of a capture.
const CAPTURED: usize = 256;
/// A core that had nothing to do in more of its rounds, which are short then, was not what set the pace.
const IDLE: f64 = 0.2;

/// Where packets go: the port they come by, and what counts those that came through.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    side: Side,
    from: usize,
    done: Stage,
}

const ROUTER_IN: Way = Way { name: "router-in", side: Side::Router, from: NETWORK, done: Stage::Forwarded };
const TARGET_IN: Way = Way { name: "target-in", side: Side::Target, from: LINK, done: Stage::Delivered };
const TARGET_OUT: Way = Way { name: "target-out", side: Side::Target, from: APPLICATION, done: Stage::Sealed };

fn main() -> ExitCode {
    let report = Report::new("ports");
    let mut lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => {
            note(&why);
            return ExitCode::FAILURE;
        }
    };
    let mut bed = Bed::new(Shape::ONE);
    for way in [ROUTER_IN, TARGET_IN, TARGET_OUT] {
        memif(&report, &mut lab, &mut bed, way);
    }
    let secgw = Secgw::build(&lab);
    if secgw.is_none() {
        note("DPDK's ipsec-secgw is not here and is left out as a peer; to have it: apt-get install dpdk-doc make");
    }
    for size in SIZES {
        replay(&report, &mut lab, &mut bed, size, secgw.as_ref());
    }
    ExitCode::SUCCESS
}

/// All ports are memifs. Who is behind them sends as much as the core takes, each ESP packet with a number of its own.
fn memif(report: &Report, lab: &mut Lab, bed: &mut Bed, way: Way) {
    let mut alone = Forwarder::on_memifs(lab);
    let empty = SIZES.map(|size| alone.measure(lab, &mut Feed::Same(bed.frames(size, ACK, ACK)[way.from].clone())));
    drop(alone);
    let mut subject = Subject::on_memifs(lab, way.side);
    // Numbers go on from size to size: it is one SA.
    let mut number = connect(lab, bed, &mut subject, 1 << 20);
    for (size, empty) in SIZES.into_iter().zip(empty) {
        let mut feed = Feed::new(bed, way.from, size, ACK, number);
        let whole = subject.measure(lab, way, &mut feed);
        number = feed.number().unwrap_or(number);
        show(report, &format!("{} {size} B, memif to memif", way.name), &whole, &empty);
    }
}

/// What an endless replay can show: segments of the application, each of which is sealed with a number of its own. ESP packets that
/// come again are replays.
fn replay(report: &Report, lab: &mut Lab, bed: &mut Bed, size: usize, secgw: Option<&Secgw>) {
    let [inbound, _, segment] = bed.frames(size, ACK, ACK);
    // Not replayed here: for programs that do not look at numbers.
    lab.write(&format!("in-{size}"), &vec![inbound; CAPTURED]);
    let mut frames = vec![bed.frames(size, ACK, SYN | ACK)[APPLICATION].clone()];
    frames.resize(CAPTURED, segment);
    let capture = lab.write(&format!("out-{size}"), &frames);
    let mut alone = Forwarder::on_captures(lab, &capture);
    let empty = alone.measure(lab, &mut Feed::None);
    drop(alone);
    let mut subject = Subject::on_captures(lab, &capture);
    connect(lab, bed, &mut subject, 1 << 20);
    let whole = subject.measure(lab, TARGET_OUT, &mut Feed::None);
    let name = format!("target-out {size} B, net_pcap to nowhere");
    show(report, &name, &whole, &empty);
    drop(subject);
    if let Some(secgw) = secgw {
        report.row(&name, Unit::NsPerPacket, &whole.times, "DPDK's ipsec-secgw", &secgw.measure(lab, &capture));
    }
}

/// The handshake of the one connection that there is. Answers the next number.
fn connect(lab: &Lab, bed: &mut Bed, subject: &mut Subject, mut number: u64) -> u64 {
    let steps: &[(Way, u8)] = match subject.side {
        Side::Router => &[(ROUTER_IN, SYN)],
        Side::Target => &[(TARGET_IN, SYN), (TARGET_OUT, SYN | ACK), (TARGET_IN, ACK)],
    };
    for &(way, flags) in steps {
        // A capture sends by itself.
        let captured = !subject.has(way.from);
        let mut feed = if captured { Feed::None } else { Feed::new(bed, way.from, 64, flags, number) };
        subject.once(lab, way, &mut feed);
        number = feed.number().unwrap_or(number);
    }
    number
}

fn show(report: &Report, name: &str, whole: &Measured, empty: &Measured) {
    let peer = "the same ports, nothing between them";
    report.row(name, Unit::NsPerPacket, &whole.times, peer, &empty.times);
    report.row(name, Unit::PerSecond("packets"), &whole.times, peer, &empty.times);
    if whole.idle > IDLE {
        note(&format!(
            "{name}: nothing came in {:.0} % of the core's rounds: who sends set the pace",
            100.0 * whole.idle
        ));
    }
}
