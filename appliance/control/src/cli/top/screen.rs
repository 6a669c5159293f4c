//! The picture of `top`: 80 columns and 24 lines are enough, more of both shows more.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::rates::{DropRate, Rates, SaRate};

/// Rows of cores at most, as long as the screen is small.
const CORES: u16 = 4;
/// Lines of the middle part with its two heads.
const MIDDLE: u16 = 8;

/// What comes first among the SAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Packets per second.
    #[default]
    Packets,
    /// Bits per second.
    Bits,
    /// Tunnel.
    Name,
}

impl Sort {
    /// The next one.
    pub fn next(self) -> Sort {
        match self {
            Sort::Packets => Sort::Bits,
            Sort::Bits => Sort::Name,
            Sort::Name => Sort::Packets,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Sort::Packets => "packets/s",
            Sort::Bits => "bits/s",
            Sort::Name => "tunnel",
        }
    }
}

/// Everything on the screen.
pub struct Screen<'a> {
    /// `None`: nothing to compare yet.
    pub rates: Option<&'a Rates>,
    /// Of the SAs.
    pub sort: Sort,
    /// Why there is nothing new.
    pub problem: Option<&'a str>,
}

impl Widget for Screen<'_> {
    fn render(self, area: Rect, to: &mut Buffer) {
        let Some(rates) = self.rates else {
            return Line::raw(self.problem.unwrap_or("looking…")).render(area, to);
        };
        let cores = (rates.cores.len() as u16).min(CORES.max(area.height / 4));
        let areas =
            [Constraint::Length(2), Constraint::Length(cores + 1), Constraint::Length(MIDDLE), Constraint::Min(0)];
        let [head, core_area, middle, sas] = Layout::vertical(areas).spacing(1).areas(area);
        self::head(rates, self.problem).into_iter().zip(head.rows()).for_each(|(line, row)| line.render(row, to));
        self::cores(rates).render(core_area, to);
        let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).spacing(2);
        let [left, right] = halves.areas(middle);
        steps(rates).render(left, to);
        let right_areas = Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]);
        let [upper, lower] = right_areas.areas(right);
        drops(&rates.drops).render(upper, to);
        targets(rates).render(lower, to);
        self::sas(rates, self.sort).render(sas, to);
    }
}

fn head<'a>(rates: &'a Rates, problem: Option<&'a str>) -> [Line<'a>; 2] {
    let uptime = crate::cli::table::time(rates.uptime_ms);
    let keys = "q quits, s sorts";
    let first = format!("{} of {}: {} for {uptime}; {keys}", rates.node, rates.cluster, rates.state);
    let second = match problem {
        Some(problem) => problem.to_owned(),
        None => format!(
            "in {}/s, out {}/s, dropped {}/s; connections {}, waiting {}, violations {}",
            short(rates.in_pps),
            short(rates.out_pps),
            short(rates.drops_pps),
            rates.connections,
            rates.waiting,
            rates.violations
        ),
    };
    let bad = problem.is_some() || rates.violations > 0;
    let style = if bad { Style::new().fg(Color::Red) } else { Style::new() };
    [Line::styled(first, Style::new().add_modifier(Modifier::BOLD)), Line::styled(second, style)]
}

fn cores(rates: &Rates) -> Table<'_> {
    let row = |c: &super::rates::CoreRate| {
        let busy = number(format!("{:.1} %", c.busy_percent), 7);
        let style = if c.busy_percent > 90.0 { Style::new().fg(Color::Yellow) } else { Style::new() };
        Row::new([
            Cell::new(format!("core {}", c.core)),
            Cell::new(c.roles.join(" ")),
            Cell::new(number(short(c.in_pps), 8)),
            Cell::new(number(short(c.out_pps), 8)),
            Cell::new(number(short(c.drops_pps), 9)),
            Cell::new(busy).style(style),
        ])
    };
    let widths = [
        Constraint::Length(8),
        Constraint::Min(13),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(7),
    ];
    table(["CORE", "ROLES", "    IN/S", "   OUT/S", "DROPPED/S", "   BUSY"], widths, rates.cores.iter().map(row))
}

fn steps(rates: &Rates) -> Table<'_> {
    let row = |s: &super::rates::StepRate| {
        let or_dash =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        Row::new([
            s.step.clone(),
            number(format!("{:.1} %", s.percent), 7),
            number(or_dash(s.clocks_per_packet, 0), 8),
            number(or_dash(s.packets_per_call, 1), 7),
        ])
    };
    let widths = [Constraint::Min(13), Constraint::Length(7), Constraint::Length(8), Constraint::Length(7)];
    table(["STEP", "   TIME", "CLKS/PKT", "PKTS/CL"], widths, rates.steps.iter().map(row))
}

fn drops(drops: &[DropRate]) -> Table<'_> {
    let row = |d: &DropRate| {
        let style = if d.pps > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
        Row::new([d.reason.clone(), number(short(d.pps), 7), number(d.packets.to_string(), 10)]).style(style)
    };
    let widths = [Constraint::Min(13), Constraint::Length(7), Constraint::Length(10)];
    table(["DROPPED FOR", "     /S", "    IN ALL"], widths, drops.iter().map(row))
}

fn targets(rates: &Rates) -> Table<'_> {
    let row = |t: &super::rates::TargetRate| {
        Row::new([t.target.clone(), t.state.clone(), number(short(t.pps), 7), number(short(t.bps), 7)])
    };
    let widths = [Constraint::Min(10), Constraint::Length(9), Constraint::Length(7), Constraint::Length(7)];
    table(["TARGET", "STATE", " PKTS/S", " BITS/S"], widths, rates.targets.iter().map(row))
}

fn sas(rates: &Rates, sort: Sort) -> Table<'static> {
    let mut sas: Vec<&SaRate> = rates.sas.iter().collect();
    match sort {
        Sort::Packets => {}
        Sort::Bits => sas.sort_by(|a, b| b.bps.total_cmp(&a.bps)),
        Sort::Name => sas.sort_by(|a, b| (&a.tunnel, &a.direction).cmp(&(&b.tunnel, &b.direction))),
    }
    let row = |sa: &&SaRate| {
        let way = if sa.direction == "inbound" { "in" } else { "out" };
        let (pps, bps) = (number(short(sa.pps), 8), number(short(sa.bps), 8));
        Row::new([
            sa.tunnel.clone(),
            way.to_owned(),
            pps,
            bps,
            number(sa.packets.to_string(), 12),
            sa.holders.join(" "),
        ])
    };
    let more = if rates.sas_left_out > 0 { format!(" ({} more SAs)", rates.sas_left_out) } else { String::new() };
    let title = format!("TUNNEL by {}{more}", sort.name());
    let widths = [
        Constraint::Min(16),
        Constraint::Length(3),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Min(14),
    ];
    let head = [title, "WAY".into(), "  PKTS/S".into(), "  BITS/S".into(), "     PACKETS".into(), "BY".into()];
    table(head, widths, sas.iter().map(row))
}

fn table<'a, const N: usize>(
    head: [impl Into<Cell<'a>>; N],
    widths: [Constraint; N],
    rows: impl Iterator<Item = Row<'a>>,
) -> Table<'a> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Table::new(rows, widths).header(Row::new(head).style(bold)).column_spacing(1)
}

/// Pushed to the right.
fn number(text: String, width: usize) -> String {
    format!("{text:>width$}")
}

/// Five digits at most: `0`, `12`, `3.4k`, `56M`.
fn short(n: f64) -> String {
    match n {
        n if n >= 10e9 => format!("{:.0}G", n / 1e9),
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 10e6 => format!("{:.0}M", n / 1e6),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 10e3 => format!("{:.0}k", n / 1e3),
        n if n >= 1e3 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// The picture as text, without colours.
pub fn plain(screen: Screen<'_>, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen.render(area, &mut buffer);
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    let text: Vec<String> = (0..height).map(line).collect();
    format!("{}\n", text.join("\n").trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::overview;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn rates() -> Rates {
        Rates::between(&overview(10, 100), &overview(11, 300)).unwrap()
    }

    #[test]
    fn everything_is_on_a_screen_of_80_by_24() {
        let rates = rates();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let screen = || Screen { rates: Some(&rates), sort: Sort::Packets, problem: None };
        terminal.draw(|frame| frame.render_widget(screen(), frame.area())).unwrap();
        let text = terminal.backend().to_string();
        for part in [
            "r1 of demo: running for 11 s",
            "in 40k/s",
            "core 1",
            "75.0 %",
            "open",
            "tunnel-b",
            "2.0k",
            "t1",
            "CLKS/PKT",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 24);
        let at = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
        assert!(at("core 0") < at("STEP") && at("DROPPED FOR") < at("TARGET") && at("TARGET") < at("TUNNEL"));
        assert!(at("tunnel-b") < at("tunnel-a"));
    }

    #[test]
    fn any_size_of_the_screen_is_drawn() {
        let rates = rates();
        for (width, height) in [(0, 0), (1, 1), (20, 5), (80, 24), (300, 100)] {
            let _ = plain(Screen { rates: Some(&rates), sort: Sort::Bits, problem: None }, width, height);
        }
    }

    #[test]
    fn sas_are_sorted_as_wanted() {
        let rates = rates();
        let text = plain(Screen { rates: Some(&rates), sort: Sort::Name, problem: None }, 80, 24);
        assert!(text.find("tunnel-a") < text.find("tunnel-b") && text.contains("TUNNEL by tunnel"), "{text}");
        assert_eq!(Sort::Packets.next().next().next(), Sort::Packets);
    }

    #[test]
    fn a_node_that_does_not_answer_is_said_and_the_old_figures_stay() {
        let rates = rates();
        let text = plain(Screen { rates: Some(&rates), sort: Sort::Packets, problem: Some("nobody answers") }, 80, 24);
        assert!(text.contains("nobody answers") && text.contains("core 0"), "{text}");
        assert_eq!(plain(Screen { rates: None, sort: Sort::Packets, problem: None }, 80, 24), "looking…\n");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 12.4, 999.0, 1234.0, 56_789.0, 1.5e6, 123e6, 2e9, 40e9].map(short);
        assert_eq!(numbers, ["0", "12", "999", "1.2k", "57k", "1.5M", "123M", "2.0G", "40G"]);
    }
}
