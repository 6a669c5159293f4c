//! The `phalanx` command.

mod ask;
mod capture;
mod explain;
mod ike;
mod measured;
mod node;
mod pki;
mod table;
mod top;
mod trace;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::status::{Action, OneSa, OneTarget, OneVip, What};

/// One IP address, many hosts, end-to-end IPsec.
#[derive(Debug, Parser)]
#[command(name = "phalanx", arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node until SIGTERM
    Run {
        /// Its configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show everything that is wrong with a configuration, with its lines; exit 2 if it cannot be run
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// What would happen to each packet of a capture, offline: a JSON line per packet
    Explain(explain::Explain),
    /// The node: ports, cores, invariants, predictions
    Status(Ask),
    /// Security associations: packets, bytes, windows; or delete one
    Sa {
        #[command(flatten)]
        how: Ask,
        #[command(subcommand)]
        action: Option<Sa>,
    },
    /// Connections and their targets
    Conn(Ask),
    /// Virtual addresses, owners, epochs; or take one down and up
    Vip {
        #[command(flatten)]
        how: Ask,
        #[command(subcommand)]
        action: Option<Vip>,
    },
    /// Targets: attached, ready, their share; or drain and resume one
    Target {
        #[command(flatten)]
        how: Ask,
        #[command(subcommand)]
        action: Option<Target>,
    },
    /// Outbound sequence numbers: who holds which
    Lease(Ask),
    /// IKE: its SAs and their children; one in detail, events, counters; begin, new keys, end
    Ike {
        #[command(flatten)]
        how: Ask,
        #[command(subcommand)]
        action: Option<ike::IkeCommand>,
    },
    /// Dropped packets by reason
    Drop(Ask),
    /// Where the poll loops' time goes: clocks and packets of each step
    Runtime(Ask),
    /// How long packets stay and wait: percentiles
    Latency(Ask),
    /// Read the configuration again: VIPs, static SAs and filters; says what waits for a restart
    Reload(Ask),
    /// The next packets that match, each with its decisions
    Trace(trace::Which),
    /// What cores receive, send and drop, before and after IPsec, as pcapng: plaintext
    Capture(capture::How),
    /// What the node does right now: rates, drawn anew every second
    Top(top::How),
    /// The store in which a router keeps what must survive it
    Store {
        #[command(subcommand)]
        action: Store,
    },
    /// The cluster's CA and its nodes' certificates
    Pki {
        #[command(subcommand)]
        action: pki::Pki,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, or print the first one
    Man {
        /// The folder to write them to
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum Target {
    /// Give a target no new connections; those it has go on
    Drain(Which),
    /// Give it its share of new connections again
    Resume(Which),
}

/// Which target an action is about.
#[derive(Args, Clone, Debug)]
struct Which {
    /// The target, told at its router; default: the node that is asked, as a target
    node: Option<String>,
    /// For this VIP only (its name, at a target also its address); default: all
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
}

impl Target {
    fn action(self) -> Action {
        let of = |which: Which| OneTarget { node: which.node, vip: which.vip };
        match self {
            Target::Drain(which) => Action::TargetDrain(of(which)),
            Target::Resume(which) => Action::TargetResume(of(which)),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Sa {
    /// Delete a static SA in both directions, at its router and on all targets
    Delete {
        /// Its tunnel, or the SPI or id of one direction
        sa: String,
    },
}

impl Sa {
    fn action(self) -> Action {
        let Sa::Delete { sa } = self;
        Action::SaDelete(OneSa { sa })
    }
}

#[derive(Debug, Subcommand)]
enum Vip {
    /// Let nobody serve it: its connections end, its SAs go
    Down {
        /// Its name, address or number
        vip: String,
    },
    /// Serve it again
    Up {
        /// Its name, address or number
        vip: String,
    },
}

impl Vip {
    fn action(self) -> Action {
        match self {
            Vip::Down { vip } => Action::VipDown(OneVip { vip }),
            Vip::Up { vip } => Action::VipUp(OneVip { vip }),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Store {
    /// Make a new, empty store. Never where one was lost: first give every static SA a new key
    Create {
        /// The router's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// How a running node is asked.
#[derive(Args, Clone, Debug)]
struct Ask {
    /// JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// The node's socket; default: the only one in /run/phalanx
    #[arg(long, value_name = "PATH", env = "PHALANX_SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// Ask again every so many seconds until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    /// Everything, also what is 0
    #[arg(long)]
    all: bool,
}

/// A failure that was said: the code the process ends with.
type Outcome = Result<(), Failure>;

/// Why a command failed.
#[derive(Debug)]
struct Failure {
    /// Empty: it was said already.
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl std::fmt::Display) -> Failure {
        Failure { message: message.to_string(), code: 1 }
    }

    /// The configuration is wrong and that was shown.
    const CONFIGURATION: Failure = Failure { message: String::new(), code: 2 };
}

/// Runs the command of this process's arguments. `version` is the stamp of the build.
pub fn main(version: &'static str) -> ExitCode {
    let matches = command(version).get_matches();
    let cli = match <Cli as clap::FromArgMatches>::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match dispatch(cli.command, version) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "phalanx: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn command(version: &'static str) -> clap::Command {
    Cli::command().version(version)
}

fn dispatch(command: Command, version: &'static str) -> Outcome {
    match command {
        Command::Run { config } => node::run(&config, version),
        Command::Check { file } => node::check(&file),
        Command::Explain(what) => explain::run(&what),
        Command::Status(how) => ask::ask(What::Status, &how),
        Command::Sa { how, action: None } => ask::ask(What::Sa, &how),
        Command::Sa { how, action: Some(action) } => ask::act(&action.action(), &how),
        Command::Conn(how) => ask::ask(What::Conn, &how),
        Command::Vip { how, action: None } => ask::ask(What::Vip, &how),
        Command::Vip { how, action: Some(action) } => ask::act(&action.action(), &how),
        Command::Reload(how) => ask::act(&Action::Reload, &how),
        Command::Target { how, action: None } => ask::ask(What::Target, &how),
        Command::Target { how, action: Some(action) } => ask::act(&action.action(), &how),
        Command::Lease(how) => ask::ask(What::Lease, &how),
        Command::Ike { how, action: None } => ask::ask(What::Ike, &how),
        Command::Ike { how, action: Some(action) } => ike::run(action, &how),
        Command::Drop(how) => ask::ask(What::Drop, &how),
        Command::Runtime(how) => ask::ask(What::Runtime, &how),
        Command::Latency(how) => ask::ask(What::Latency, &how),
        Command::Trace(which) => trace::run(&which),
        Command::Capture(how) => capture::run(&how),
        Command::Top(how) => top::run(&how),
        Command::Store { action: Store::Create { config } } => node::create_store(&config),
        Command::Pki { action } => pki::run(action),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self::command(version), "phalanx", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Man { dir } => manual(dir, version),
    }
}

fn manual(dir: Option<PathBuf>, version: &'static str) -> Outcome {
    let command = command(version);
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(&dir).map_err(|e| Failure::new(format!("cannot make {}: {e}", dir.display())))?;
            clap_mangen::generate_to(command, &dir)
                .map_err(|e| Failure::new(format!("cannot write to {}: {e}", dir.display())))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page).map_err(Failure::new)?;
            print(&String::from_utf8_lossy(&page));
            Ok(())
        }
    }
}

/// Writes to standard output; a reader that went away is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command("1").debug_assert();
    }

    #[test]
    fn commands_are_what_the_documents_say() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|c| c.command);
        assert!(matches!(parse("phalanx run --config a.toml"), Ok(Command::Run { .. })));
        assert!(matches!(parse("phalanx check a.toml"), Ok(Command::Check { .. })));
        assert!(matches!(parse("phalanx explain --config a in.pcap --role router --out o"), Ok(Command::Explain(_))));
        assert!(parse("phalanx explain --config a in.pcap --first-seq 0").is_err());
        assert!(matches!(parse("phalanx drop --json --socket x"), Ok(Command::Drop(Ask { json: true, .. }))));
        assert!(matches!(parse("phalanx status --watch"), Ok(Command::Status(Ask { watch: Some(1), .. }))));
        assert!(matches!(parse("phalanx store create --config a"), Ok(Command::Store { .. })));
        assert!(matches!(parse("phalanx pki init --dir d"), Ok(Command::Pki { .. })));
        assert!(matches!(parse("phalanx pki issue r1 --dir d"), Ok(Command::Pki { .. })));
        assert!(matches!(parse("phalanx trace --count 3 --dropped=replay --spi 0x1001"), Ok(Command::Trace(_))));
        assert!(matches!(parse("phalanx trace --dropped --local 10.77.0.100:80"), Ok(Command::Trace(_))));
        assert!(parse("phalanx trace --count 0").is_err());
        assert!(matches!(parse("phalanx ike --json"), Ok(Command::Ike { action: None, .. })));
        for line in ["show branch", "events --json", "counters", "initiate branch pages", "rekey 7", "terminate all"] {
            assert!(
                matches!(parse(&format!("phalanx ike {line}")), Ok(Command::Ike { action: Some(_), .. })),
                "{line}"
            );
        }
        let capture = "phalanx capture --core 0 --port net --count 9 --snaplen 96 -w a.pcapng";
        assert!(matches!(parse(capture), Ok(Command::Capture(_))));
        assert!(matches!(parse("phalanx capture -w -"), Ok(Command::Capture(_))));
        assert!(parse("phalanx capture").is_err() && parse("phalanx capture -w - --snaplen 0").is_err());
        assert!(matches!(parse("phalanx runtime --all"), Ok(Command::Runtime(Ask { all: true, .. }))));
        assert!(matches!(parse("phalanx latency --json"), Ok(Command::Latency(Ask { json: true, .. }))));
        assert!(matches!(parse("phalanx top --json --count 2"), Ok(Command::Top(_))));
        assert!(parse("phalanx status --watch 0").is_err());
        assert!(parse("phalanx").is_err());
    }

    #[test]
    fn there_is_a_manual_page_for_every_command() {
        let folder = tempfile::tempdir().unwrap();
        manual(Some(folder.path().to_owned()), "1").unwrap();
        let pages = std::fs::read_dir(folder.path()).unwrap().count();
        assert!(pages >= 15, "{pages}");
    }
}
