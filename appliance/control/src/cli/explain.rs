//! `explain`: a capture through the data plane of a configuration, without running it.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, node};
use crate::explain::{self, ExplainError, Options, Role};

/// What is explained, and as whom.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The configuration of the node that owns the VIPs. Its ports and CPUs need not exist here
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A capture, pcap or pcapng, of Ethernet frames or raw IP packets; `-` is standard input
    #[arg(value_name = "IN.pcap")]
    input: PathBuf,
    /// As whom the packets are taken: `endpoint` does everything itself, `router` sends connections on to the targets of the
    /// configuration, `target` opens what a router sends it
    #[arg(long, value_enum, default_value_t = Role::Endpoint)]
    role: Role,
    /// Write the packets that come out: opened, sealed, or on their way to a target
    #[arg(long, value_name = "OUT.pcap")]
    out: Option<PathBuf>,
    /// The first sequence number to seal with. No store is read or changed
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=explain::LAST_FIRST_SEQ))]
    first_seq: u64,
    /// As a router: the TCP ports that the targets' applications listen on, as in 80,443; default: all
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    listening: Option<Vec<u16>>,
    /// JSON lines; there is nothing else
    #[arg(long, hide = true)]
    json: bool,
}

/// `phalanx explain`
pub(super) fn run(what: &Explain) -> Outcome {
    let config = node::load(&what.config)?;
    node::choose_kernel(&config)?;
    let from: Box<dyn Read> = if what.input.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&what.input);
        Box::new(file.map_err(|error| Failure::new(format!("{}: {error}", what.input.display())))?)
    };
    let options = Options {
        role: what.role,
        out: what.out.as_deref(),
        first_seq: what.first_seq,
        listening: what.listening.as_deref(),
    };
    let mut lines = BufWriter::new(std::io::stdout().lock());
    let result = explain::explain(&config, from, &options, &mut lines);
    // A reader that went away is no error.
    let _ = lines.flush();
    match result {
        Ok(summary) => {
            if summary.sealed > 0 {
                let first = what.first_seq;
                let _ = writeln!(
                    std::io::stderr(),
                    "phalanx: sequence numbers were counted from {first}; no store was read or changed"
                );
            }
            Ok(())
        }
        Err(ExplainError::Config(why)) => {
            Err(Failure { message: format!("{}: {why}", what.config.display()), code: Failure::CONFIGURATION.code })
        }
        Err(ExplainError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(ExplainError::Output(error)) => Err(Failure::new(format!("cannot write: {error}"))),
        Err(ExplainError::Capture(error)) => Err(Failure::new(format!("{}: {error}", what.input.display()))),
        Err(ExplainError::Out(error)) => {
            let out = what.out.as_deref().unwrap_or(std::path::Path::new("OUT.pcap"));
            Err(Failure::new(format!("{}: {error}", out.display())))
        }
    }
}
