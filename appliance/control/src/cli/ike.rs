//! `phalanx ike`: IKE SAs and their children as tables.

use clap::Subcommand;
use comfy_table::{Cell, Table};

use super::table::{number, table, time};
use super::{Ask, Failure, Outcome, ask, print};
use crate::status::ike::{IkeSa, IkeStatus};
use crate::status::{Action, OneIke, OnePeer, What, fetch};

#[derive(Debug, Subcommand)]
pub(super) enum IkeCommand {
    /// One IKE SA with all that is known of it
    Show {
        /// Its id, its peer's name, or the number of one of its children
        sa: String,
    },
    /// What happened of late, and why something did not
    Events,
    /// What was counted since the start
    Counters,
    /// Begin with a peer
    Initiate {
        /// Its name in the configuration
        peer: String,
        /// One of its children; default: all
        child: Option<String>,
    },
    /// New keys for an IKE SA, a child, or all children of a peer
    Rekey {
        /// Id of an IKE SA, number of a child, or name of a peer
        sa: String,
    },
    /// End an IKE SA with its children, a child, everything with a peer, or `all`; the peer is told
    Terminate {
        /// Id of an IKE SA, number of a child, or name of a peer
        sa: String,
    },
}

pub(super) fn run(command: IkeCommand, how: &Ask) -> Outcome {
    match command {
        IkeCommand::Initiate { peer, child } => ask::act(&Action::IkeInitiate(OnePeer { peer, child }), how),
        IkeCommand::Rekey { sa } => ask::act(&Action::IkeRekey(OneIke { sa }), how),
        IkeCommand::Terminate { sa } => ask::act(&Action::IkeTerminate(OneIke { sa }), how),
        IkeCommand::Show { sa } => look(how, |status| {
            let meant: Vec<&IkeSa> = status.sas.iter().filter(|row| is(row, &sa)).collect();
            let json = if meant.is_empty() { None } else { serde_json::to_string(&meant).ok() };
            json.map(|json| (json, meant.into_iter().map(detail).collect::<Vec<_>>().join("\n")))
                .ok_or_else(|| format!("there is no IKE SA {sa}; `phalanx ike` shows those that are"))
        }),
        IkeCommand::Events => look(how, |status| {
            let json = serde_json::to_string(&status.events).map_err(|error| error.to_string())?;
            Ok((json, events(status)))
        }),
        IkeCommand::Counters => look(how, |status| {
            let parts = serde_json::json!({ "counters": status.counters, "set_up": status.set_up });
            let json = parts.to_string();
            Ok((json, counters(status, how.all)))
        }),
    }
}

/// Asks for everything and shows a part of it: as JSON, or for people.
fn look(how: &Ask, part: impl FnOnce(&IkeStatus) -> Result<(String, String), String>) -> Outcome {
    let socket = ask::socket(how.socket.as_deref())?;
    let json = ask::runtime()?.block_on(fetch(&socket, What::Ike)).map_err(Failure::new)?;
    let status: IkeStatus = serde_json::from_slice(&json).map_err(Failure::new)?;
    let (json, text) = part(&status).map_err(Failure::new)?;
    print(&if how.json { format!("{json}\n") } else { text });
    Ok(())
}

fn is(row: &IkeSa, text: &str) -> bool {
    row.id == text || row.peer.as_deref() == Some(text) || row.children.iter().any(|c| c.id.to_string() == text)
}

/// A row for each IKE SA, and one for each of its children.
pub(super) fn list(status: &IkeStatus) -> Table {
    let mut rows = table(&["ike sa", "peer", "identity", "remote", "state", "age", "new keys in", "suite"]);
    for sa in &status.sas {
        rows.add_row([
            Cell::new(&sa.id),
            Cell::new(sa.peer.as_deref().unwrap_or("?")),
            Cell::new(sa.identity.as_deref().unwrap_or("?")),
            Cell::new(&sa.remote),
            Cell::new(&sa.state),
            Cell::new(time(sa.age_ms)),
            Cell::new(sa.rekey_in_ms.map_or_else(|| "-".to_owned(), time)),
            Cell::new(&sa.suite),
        ]);
        for child in &sa.children {
            rows.add_row([
                Cell::new(format!("  child {}", child.id)),
                Cell::new(&child.tunnel),
                Cell::new(&child.selectors),
                Cell::new(format!("{} / {}", child.inbound, child.outbound)),
                Cell::new(&child.state),
                Cell::new(time(child.age_ms)),
                Cell::new(child.rekey_in_ms.map_or_else(|| "-".to_owned(), time)),
                Cell::new(&child.suite),
            ]);
        }
    }
    rows
}

fn detail(sa: &IkeSa) -> String {
    let nat = match (sa.nat_here, sa.nat_there) {
        (false, false) => "none",
        (true, false) => "in front of us",
        (false, true) => "in front of the peer",
        (true, true) => "in front of both",
    };
    let unknown = || "?".to_owned();
    let lines = [
        ("peer", sa.peer.clone().unwrap_or_else(unknown)),
        ("identity", sa.identity.clone().unwrap_or_else(unknown)),
        ("between", format!("{} and {}", sa.local, sa.remote)),
        ("we are", sa.role.clone()),
        ("state", sa.state.clone()),
        ("suite", sa.suite.clone()),
        ("spi initiator", sa.spi_initiator.clone()),
        ("spi responder", sa.spi_responder.clone()),
        ("up for", time(sa.age_ms)),
        ("new keys in", sa.rekey_in_ms.map_or_else(|| "never".to_owned(), time)),
        ("peer heard", format!("{} ago", time(sa.silent_ms))),
        ("nat", nat.to_owned()),
        ("next message", format!("{} out, {} in", sa.next_out, sa.next_in)),
    ];
    let mut text = format!("IKE SA {}\n", sa.id);
    lines.iter().for_each(|(name, value)| text.push_str(&format!("  {name:<14} {value}\n")));
    for child in &sa.children {
        text.push_str(&format!("  child {} ({}), {}, {}\n", child.id, child.tunnel, child.mode, child.state));
        text.push_str(&format!("    {}: {}\n", child.suite, child.selectors));
        let new = child.rekey_in_ms.map_or_else(|| "never".to_owned(), time);
        text.push_str(&format!("    in {} out {}, up for {}, ", child.inbound, child.outbound, time(child.age_ms)));
        text.push_str(&format!("successor in {new}\n"));
    }
    text
}

fn events(status: &IkeStatus) -> String {
    if status.events.is_empty() {
        return "nothing happened yet\n".to_owned();
    }
    // Hours, minutes and seconds of the day, UTC.
    let clock = |ms: u64| {
        let s = ms / 1000 % 86_400;
        format!("{:02}:{:02}:{:02}.{:03}", s / 3600, s / 60 % 60, s % 60, ms % 1000)
    };
    let line = |e: &crate::status::ike::IkeEvent| {
        format!("{} {} {}\n", clock(e.unix_ms), if e.failure { "!" } else { " " }, e.words)
    };
    status.events.iter().map(line).collect()
}

fn counters(status: &IkeStatus, all: bool) -> String {
    let mut rows = table(&["counted", "since the start"]);
    for (name, n) in status.counters.iter().filter(|(_, n)| all || **n > 0) {
        rows.add_row([Cell::new(name), number(*n)]);
    }
    rows.force_no_tty();
    let times = &status.set_up;
    let mut took = table(&["set-ups that took up to", "how many"]);
    for bucket in times.buckets.iter().filter(|bucket| all || bucket.count > 0) {
        let up_to = bucket.up_to_ms.map_or_else(|| "longer".to_owned(), |ms| format!("{ms} ms"));
        took.add_row([Cell::new(up_to), number(bucket.count)]);
    }
    took.force_no_tty();
    format!(
        "{}\n\n{}\nset-ups: {}; of the latest half within {} ms, 99 % within {} ms, the longest {} ms\n",
        rows.trim_fmt(),
        took.trim_fmt(),
        times.count,
        times.p50_ms,
        times.p99_ms,
        times.max_ms
    )
}
