//! `trace`: the next packets that match, each with its decisions.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Failure, Outcome, ask, print};
use crate::status::{Ends, MOST, Trace, stream};

/// Which packets.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// End after so many packets
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,
    /// Of the SA with this SPI
    #[arg(long, value_name = "SPI", value_parser = spi)]
    spi: Option<u32>,
    /// To or from this peer: the outer address
    #[arg(long, value_name = "ADDR")]
    peer: Option<IpAddr>,
    /// Of connections with this end on our side
    #[arg(long, value_name = "ADDR[:PORT]")]
    local: Option<Ends>,
    /// Of connections with this end on the peer's side
    #[arg(long, value_name = "ADDR[:PORT]")]
    remote: Option<Ends>,
    /// Only what is dropped, for any reason or for this one
    #[arg(long, value_name = "REASON", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    dropped: Option<String>,
    /// A line of JSON for each packet
    #[arg(long)]
    json: bool,
    /// The node's socket; default: the only one in /run/phalanx
    #[arg(long, value_name = "PATH", env = "PHALANX_SOCKET")]
    socket: Option<PathBuf>,
}

/// Decimal, or hexadecimal behind `0x`.
fn spi(text: &str) -> Result<u32, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// `phalanx trace`
pub(super) fn run(which: &Which) -> Outcome {
    let socket = ask::socket(which.socket.as_deref())?;
    let trace = Trace {
        count: which.count,
        spi: which.spi,
        peer: which.peer,
        local: which.local,
        remote: which.remote,
        dropped: which.dropped.is_some(),
        reason: which.dropped.clone().filter(|reason| !reason.is_empty()),
    };
    trace.check().map_err(Failure::new)?;
    let body = serde_json::to_vec(&trace).map_err(Failure::new)?;
    let mut n = 0;
    let each = |line: &[u8]| {
        n += 1;
        let text = String::from_utf8_lossy(line);
        print(&if which.json { format!("{text}\n") } else { in_words(n, &text) });
    };
    ask::runtime()?.block_on(stream(&socket, "/v1/trace", body, each)).map_err(Failure::new)
}

/// A packet for people: what came of it, then each decision.
fn in_words(n: u64, line: &str) -> String {
    let Ok(packet) = serde_json::from_str::<Value>(line) else { return format!("{line}\n") };
    let text = |key: &str| packet[key].as_str().unwrap_or_default().to_owned();
    let mut words = vec![n.to_string(), text("verdict")];
    words.extend(["reason", "target", "spi"].map(text).into_iter().filter(|word| !word.is_empty()));
    words.extend(packet["seq"].as_u64().map(|seq| format!("number {seq}")));
    if let Some(connection) = packet["connection"].as_object() {
        let end = |key: &str| connection.get(key).and_then(Value::as_str).unwrap_or_default();
        words.push(format!("{} {} with {}", end("protocol"), end("remote"), end("local")));
    }
    let mut out = words.join("  ");
    out.push('\n');
    for decision in packet["decisions"].as_array().into_iter().flatten() {
        let (core, what) = (&decision["core"], decision["what"].as_str().unwrap_or_default());
        out.push_str(&format!("    core {core}: {what}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_in_words() {
        let line = r#"{"verdict":"drop","spi":"0x00001001","seq":7,"connection":null,"target":null,"reason":"replay",
            "decisions":[{"core":0,"what":"received from port net"},{"core":0,"what":"dropped: replay"}]}"#;
        let words =
            "1  drop  replay  0x00001001  number 7\n    core 0: received from port net\n    core 0: dropped: replay\n";
        assert_eq!(in_words(1, line), words);
        assert_eq!((spi("4097"), spi("0x1001")), (Ok(4097), Ok(4097)));
    }
}
