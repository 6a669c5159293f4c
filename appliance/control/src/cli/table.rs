//! Answers as tables for people.

use super::measured;
use crate::status::Answer;
use crate::status::model::{ConnRow, DropRow, LeaseRow, SaRow, Status, TargetRow, VipRow};
use std::collections::BTreeSet;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

/// The answer as text. `all`: also rows in which nothing happened. `terminal`: colours and the terminal's width.
pub(super) fn render(answer: &Answer, all: bool, terminal: bool) -> String {
    let with = |rows: usize, none: &str, make: &dyn Fn() -> Table| {
        if rows == 0 { format!("{none}\n") } else { format!("{}\n", finish(make(), terminal)) }
    };
    match answer {
        Answer::Status(status) => self::status(status, terminal),
        Answer::Sa(rows) => with(rows.len(), "no security associations", &|| sas(rows)),
        Answer::Conn(rows) => with(rows.len(), "no connections", &|| connections(rows)),
        Answer::Vip(rows) => with(rows.len(), "no VIPs", &|| vips(rows)),
        Answer::Target(rows) => with(rows.len(), "no targets", &|| targets(rows)),
        Answer::Lease(rows) => with(rows.len(), "no outbound SAs", &|| leases(rows)),
        Answer::Ike(status) => with(status.sas.len(), "no IKE SAs", &|| super::ike::list(status)),
        Answer::Drop(rows) => {
            let rows: Vec<&DropRow> = rows.iter().filter(|r| all || r.happened()).collect();
            with(rows.len(), "no packet was dropped", &|| drops(&rows, all))
        }
        Answer::Runtime(rows) => {
            let core = |row| {
                let (head, table) = measured::runtime(row, all);
                format!("{head}\n{}\n", finish(table, terminal))
            };
            rows.iter().map(core).collect::<Vec<String>>().join("\n")
        }
        Answer::Latency(rows) => {
            let count = rows.iter().filter(|row| measured::shown(row, all)).count();
            with(count, "nothing was measured yet", &|| measured::latency(rows, all))
        }
        Answer::Overview(overview) => self::status(&overview.status, terminal),
    }
}

pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|c| Cell::new(c.to_uppercase()).add_attribute(Attribute::Bold)));
    table
}

fn finish(mut table: Table, terminal: bool) -> String {
    if terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.trim_fmt()
}

pub(super) fn number(n: u64) -> Cell {
    Cell::new(n).set_alignment(CellAlignment::Right)
}

/// A count that should be 0.
fn bad(n: u64) -> Cell {
    let cell = number(n);
    if n > 0 { cell.fg(Color::Red) } else { cell }
}

fn flag(good: bool, yes: &str, no: &str) -> Cell {
    if good { Cell::new(yes).fg(Color::Green) } else { Cell::new(no).fg(Color::Yellow) }
}

/// `1.5 s`, `3 min`, `2 h`, `4 d`.
pub(super) fn time(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{:.1} s", ms as f64 / 1e3),
        10_000..600_000 => format!("{} s", ms / 1_000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        36_000_000..864_000_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", n / 1_000_000),
        _ => format!("{} GB", n / 1_000_000_000),
    }
}

fn status(s: &Status, terminal: bool) -> String {
    let mut out = format!(
        "{} of cluster {}: {} for {}, {}; version {}\nmemory: {}; ciphers: {}; coupling facility: {}; dropped packets: {}\n",
        s.node,
        s.cluster,
        s.state,
        time(s.uptime_ms),
        if s.roles.is_empty() { "no role".to_owned() } else { s.roles.join(" and ") },
        s.version,
        s.memory,
        s.cipher_kernel,
        s.coupling,
        s.drops
    );
    for warning in &s.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    let mut section = |t: Table, empty: bool| {
        if !empty {
            out.push_str(&format!("\n{}\n", finish(t, terminal)));
        }
    };
    let mut cores = table(&["core", "cpu", "roles", "loops", "busy", "rx", "tx", "dropped"]);
    for c in &s.cores {
        let head = [Cell::new(c.core), Cell::new(c.cpu), Cell::new(c.roles.join(" "))];
        cores.add_row(head.into_iter().chain([c.loops, c.busy, c.rx, c.tx, c.drops].map(number)));
    }
    section(cores, s.cores.is_empty());
    let mut ports = table(&["port", "role", "device", "core", "link", "mtu", "rx", "tx", "missed", "refused"]);
    for p in &s.ports {
        let head =
            [Cell::new(&p.name), Cell::new(&p.role), Cell::new(&p.device), Cell::new(p.core), flag(p.up, "up", "down")];
        let counts =
            [number(p.mtu.into()), number(p.rx_packets), number(p.tx_packets), bad(p.rx_missed), bad(p.tx_refused)];
        ports.add_row(head.into_iter().chain(counts));
    }
    section(ports, s.ports.is_empty());
    let mut predictions = table(&["tunnel", "window", "senders", "block", "now pps", "fits pps", "prediction"]);
    for p in &s.predictions {
        let verdict = flag(p.verdict == "shared", &p.verdict, &p.verdict);
        let counts = [p.window.into(), p.senders.into(), p.block.into(), p.rate_pps, p.fits_pps].map(number);
        predictions.add_row([Cell::new(&p.tunnel)].into_iter().chain(counts).chain([verdict]));
    }
    section(predictions, s.predictions.is_empty());
    let mut invariants = table(&["invariant", "violations", "must hold"]);
    for i in &s.invariants {
        invariants.add_row([Cell::new(&i.name), bad(i.violations), Cell::new(&i.meaning)]);
    }
    section(invariants, s.invariants.is_empty());
    out
}

fn sas(rows: &[SaRow]) -> Table {
    let mut t = table(&[
        "vip",
        "tunnel",
        "peer",
        "way",
        "spi",
        "mode",
        "algorithm",
        "esn",
        "packets",
        "bytes",
        "edge",
        "window",
        "bad icv",
        "replayed",
        "soft",
        "hard",
        "path mtu",
    ]);
    for r in rows {
        let path_mtu = match (r.path_mtu, r.path_mtu_configured) {
            (0, _) => Cell::new("-"),
            (now, configured) if now < configured => Cell::new(format!("{now} of {configured}")).fg(Color::Yellow),
            (now, _) => Cell::new(now),
        };
        let percent = |limit| match r.used(limit) {
            Some(used) if used >= 100.0 => Cell::new(format!("{used:.0} %")).fg(Color::Red),
            Some(used) => Cell::new(format!("{used:.0} %")),
            None => Cell::new("-"),
        };
        let way = if r.direction == "inbound" { "in" } else { "out" };
        t.add_row([
            Cell::new(&r.vip),
            Cell::new(&r.tunnel),
            Cell::new(r.udp.map_or_else(|| r.peer.clone(), |port| format!("{} udp {port}", r.peer))),
            Cell::new(way),
            Cell::new(&r.spi),
            Cell::new(r.within.as_ref().map_or_else(|| r.mode.clone(), |ah| format!("{} in {ah}", r.mode))),
            Cell::new(&r.algorithm),
            Cell::new(if r.esn { "yes" } else { "no" }),
            number(r.packets),
            Cell::new(bytes(r.bytes)).set_alignment(CellAlignment::Right),
            number(r.edge),
            number(r.window.into()),
            bad(r.failed),
            bad(r.replayed),
            percent(r.soft_bytes),
            percent(r.hard_bytes),
            path_mtu,
        ]);
        for share in r.shares.iter().filter(|_| r.shares.len() > 1) {
            let mut row: Vec<Cell> = vec![Cell::new(""), Cell::new(format!("  {}", share.holder))];
            row.resize_with(8, || Cell::new(""));
            row.extend([number(share.packets), Cell::new(bytes(share.bytes)).set_alignment(CellAlignment::Right)]);
            row.extend([Cell::new(""), Cell::new(""), bad(share.failed), bad(share.replayed)]);
            t.add_row(row);
        }
    }
    t
}

fn connections(rows: &[ConnRow]) -> Table {
    let mut t = table(&["vip", "protocol", "local", "remote", "peer", "target", "state", "age", "side"]);
    for r in rows {
        let cells = [&r.vip, &r.protocol, &r.local, &r.remote, &r.peer, &r.target, &r.state, &time(r.age_ms), &r.side];
        t.add_row(cells);
    }
    t
}

fn vips(rows: &[VipRow]) -> Table {
    let mut t = table(&["vip", "id", "address", "owner", "epoch", "here", "distributes", "connections", "settled"]);
    for r in rows {
        t.add_row([
            Cell::new(&r.name),
            Cell::new(r.id),
            Cell::new(&r.address),
            Cell::new(&r.owner),
            number(r.epoch),
            Cell::new(r.roles.join(" ")),
            Cell::new(r.ports.join("\n")),
            number(r.connections),
            flag(r.settled, "yes", "no"),
        ]);
    }
    t
}

fn targets(rows: &[TargetRow]) -> Table {
    let mut t = table(&[
        "target",
        "state",
        "ready",
        "vips",
        "draining",
        "listening",
        "load",
        "connections",
        "packets",
        "bytes",
        "blocks",
        "link",
        "last seen",
        "incarnation",
    ]);
    for r in rows {
        t.add_row([
            Cell::new(&r.name),
            Cell::new(&r.state),
            flag(r.ready, "yes", "no"),
            Cell::new(r.vips.join(" ")),
            Cell::new(if r.draining.is_empty() { "-".to_owned() } else { r.draining.join(" ") }),
            Cell::new(r.listening.join("\n")),
            Cell::new(r.load.map_or_else(|| "-".to_owned(), |load| format!("{} %", load / 10))),
            number(r.connections),
            number(r.packets),
            Cell::new(bytes(r.bytes)).set_alignment(CellAlignment::Right),
            number(r.leases),
            Cell::new(&r.link),
            Cell::new(r.last_seen_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", time(ms)))),
            Cell::new(&r.incarnation),
        ]);
    }
    t
}

fn leases(rows: &[LeaseRow]) -> Table {
    let mut t = table(&["tunnel", "sa", "grant", "next", "holders", "thrown away", "waits", "pps"]);
    for r in rows {
        let holder = |h: &crate::status::model::LeaseHolder| format!("{}: {} in {}", h.holder, h.numbers, h.blocks);
        let holders: Vec<String> = r.holders.iter().map(holder).collect();
        t.add_row([
            Cell::new(&r.tunnel),
            Cell::new(&r.sa),
            Cell::new(format!("{}..{}", r.grant_first, r.grant_end)),
            number(r.next),
            Cell::new(if holders.is_empty() { "-".to_owned() } else { holders.join(", ") }),
            number(r.thrown_away),
            number(r.waits),
            number(r.rate_pps),
        ]);
    }
    t
}

/// On a router also what its targets told of: their sum, and each of them with `all`.
fn drops(rows: &[&DropRow], all: bool) -> Table {
    let cores = rows.iter().map(|r| r.cores.len()).max().filter(|cores| *cores > 1).unwrap_or(0);
    let told: BTreeSet<&String> = rows.iter().flat_map(|r| r.nodes.keys()).collect();
    let each: Vec<&String> = told.iter().filter(|_| all).copied().collect();
    let mut columns = vec!["reason".to_owned(), "packets".to_owned()];
    columns.extend((0..cores).map(|c| format!("core {c}")));
    columns.extend((!told.is_empty()).then(|| "cluster".to_owned()));
    columns.extend(each.iter().map(|node| (*node).clone()));
    columns.push("meaning".to_owned());
    let mut t = table(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for r in rows {
        let mut row = vec![Cell::new(&r.reason), number(r.packets)];
        row.extend((0..cores).map(|c| number(r.cores.get(c).copied().unwrap_or(0))));
        row.extend((!told.is_empty()).then(|| number(r.cluster)));
        row.extend(each.iter().map(|node| number(r.nodes.get(*node).copied().unwrap_or(0))));
        row.push(Cell::new(&r.help));
        t.add_row(row);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::model::{Invariant, LeaseHolder, SaShare};

    #[test]
    fn a_table_names_its_columns_and_only_a_terminal_gets_colour() {
        let drops = DropRow::all(&[vec![0, 3], vec![0, 4]]);
        let text = render(&Answer::Drop(drops.clone()), false, false);
        let expected = "\
\x20REASON        PACKETS  CORE 0  CORE 1  MEANING
\x20bad-ethernet        7       3       4  The Ethernet header is not one a host sends.
";
        assert_eq!(text, expected);
        assert!(!text.contains('\x1b'));
        assert!(render(&Answer::Drop(drops.clone()), false, true).contains("\x1b["));
        assert!(render(&Answer::Drop(drops), true, false).lines().count() > 40);
        assert_eq!(render(&Answer::Drop(DropRow::all(&[])), false, false), "no packet was dropped\n");
    }

    #[test]
    fn a_router_shows_the_sum_of_the_cluster_and_each_node_on_demand() {
        let mut rows = DropRow::all(&[vec![1]]);
        rows.iter_mut().for_each(|row| row.told(&[("t1", row.packets * 2), ("t2", 0)]));
        let text = render(&Answer::Drop(rows.clone()), false, false);
        let figures =
            |text: &str| text.lines().nth(1).unwrap().split_whitespace().take(5).collect::<Vec<_>>().join(" ");
        assert!(text.contains("CLUSTER") && !text.contains("T1"), "{text}");
        assert!(figures(&text).starts_with("runt 1 3 ") || figures(&text).contains(" 1 3 "), "{text}");
        let text = render(&Answer::Drop(rows), true, false);
        assert!(text.contains("T1") && text.contains("T2") && figures(&text).ends_with(" 1 3 2 0"), "{text}");
    }

    #[test]
    fn an_sa_shows_who_did_what_of_it() {
        let share = |holder: &str, packets| SaShare {
            holder: holder.into(),
            packets,
            bytes: 10 * packets,
            ..SaShare::default()
        };
        let row = SaRow {
            vip: "web".into(),
            tunnel: "client".into(),
            direction: "outbound".into(),
            packets: 5,
            bytes: 50,
            soft_bytes: Some(100),
            shares: vec![share("t1", 2), share("t2", 3)],
            ..SaRow::default()
        };
        let text = render(&Answer::Sa(vec![row]), false, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("out") && lines[1].contains("50 %"), "{text}");
        assert!(lines[2].contains("t1") && lines[3].contains("30 B"), "{text}");
    }

    #[test]
    fn status_says_what_must_hold() {
        let status = Status {
            node: "r1".into(),
            roles: vec!["router".into()],
            invariants: Invariant::all([0; 9]),
            warnings: vec!["look here".into()],
            ..Status::default()
        };
        let text = render(&Answer::Status(Box::new(status)), false, false);
        assert!(
            text.contains("warning: look here") && text.contains("I1") && text.contains("no nonce twice"),
            "{text}"
        );
    }

    #[test]
    fn leases_show_their_holders() {
        let holders = vec![LeaseHolder { holder: "t1".into(), blocks: 2, numbers: 16 }];
        let row = LeaseRow { grant_first: 1, grant_end: 1001, next: 40, holders, ..LeaseRow::default() };
        let text = render(&Answer::Lease(vec![row]), false, false);
        assert!(text.contains("1..1001") && text.contains("t1: 16 in 2"), "{text}");
    }

    #[test]
    fn a_vip_shows_which_ports_go_to_whom() {
        let ports = vec!["80,443 -> t1,t2".into(), "25 -> t2".into()];
        let row = VipRow { name: "web".into(), ports, ..VipRow::default() };
        let text = render(&Answer::Vip(vec![row]), false, false);
        assert!(text.contains("80,443 -> t1,t2") && text.contains("25 -> t2"), "{text}");
    }

    #[test]
    fn amounts_are_readable() {
        assert_eq!([time(1_500), time(90_000), time(900_000)], ["1.5 s", "90 s", "15 min"]);
        assert_eq!([bytes(999), bytes(123_456), bytes(12_345_678)], ["999 B", "123 kB", "12 MB"]);
    }
}
