//! `[[vip]]` with its distribution (R24).

use crate::config::number::{Name, NodeName};
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use crate::config::{FilterAt, Movable, PortRange, Select, Transport};
use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

pub(in crate::config) struct VipDraft {
    pub name: Option<At<String>>,
    pub id: Option<At<u16>>,
    pub address: Option<At<IpNet>>,
    pub owner: Option<At<String>>,
    pub backups: Vec<BackupDraft>,
    pub movable: Option<At<Movable>>,
    pub distribute: Vec<DistributeDraft>,
    pub select: Option<At<Select>>,
    pub filter_at: Option<At<FilterAt>>,
}

pub(in crate::config) struct BackupDraft {
    pub span: Span,
    pub node: Option<At<String>>,
    pub rank: Option<At<u8>>,
}

pub(in crate::config) struct DistributeDraft {
    pub span: Span,
    pub protocol: Option<At<Transport>>,
    pub ports: PortsDraft,
    pub targets: TargetsDraft,
}

pub(in crate::config) enum PortsDraft {
    /// Absent or wrong, and reported.
    Wrong,
    All(Span),
    Ranges(Vec<At<PortRange>>),
}

pub(in crate::config) enum TargetsDraft {
    Wrong,
    All,
    Named(Vec<At<String>>),
}

impl VipDraft {
    pub fn read(mut f: Fields<'_, '_>) -> VipDraft {
        let movables = [("no", Movable::No), ("immediately", Movable::Immediately), ("when-idle", Movable::WhenIdle)];
        let selects = [
            ("round-robin", Select::RoundRobin),
            ("least-connections", Select::LeastConnections),
            ("load", Select::Load),
        ];
        let draft = VipDraft {
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            id: f.optional("id"),
            address: address(&mut f),
            owner: f.required_parsed::<NodeName>("owner").map(|n| n.map(|n| n.0)),
            backups: f.tables("backups", "a backup of [[vip]]").into_iter().map(BackupDraft::read).collect(),
            movable: f.choice("movable", &movables),
            distribute: f.tables("distribute", "`distribute`").into_iter().map(DistributeDraft::read).collect(),
            select: f.choice("select", &selects),
            filter_at: f.choice("filter_at", &[("target", FilterAt::Target), ("router", FilterAt::Router)]),
        };
        if let Some(id) = &draft.id
            && id.value == 0
        {
            f.sink().push(Problem::error("[[vip]]: `id` must be 1 to 65535").at(id.span.clone(), ""));
        }
        f.finish();
        draft
    }
}

/// Exactly one address, with its prefix length: `"10.77.0.100/24"`.
fn address(f: &mut Fields<'_, '_>) -> Option<At<IpNet>> {
    f.demand("address");
    let value = f.raw("address")?;
    if value.get_ref().is_array() {
        let problem = Problem::error("[[vip]]: a VIP has exactly one `address`")
            .at(value.span(), "")
            .help("write one [[vip]] per address; they may share targets, SAs are per VIP");
        f.sink().push(problem);
        return None;
    }
    if let Some(text) = value.get_ref().as_str()
        && text.parse::<std::net::IpAddr>().is_ok()
    {
        let problem = Problem::error("[[vip]]: `address` lacks its prefix length")
            .at(value.span(), "")
            .help(format!("for example \"{text}/{}\"", if text.contains(':') { 64 } else { 24 }));
        f.sink().push(problem);
        return None;
    }
    f.parsed("address")
}

impl BackupDraft {
    fn read(mut f: Fields<'_, '_>) -> BackupDraft {
        let draft = BackupDraft {
            span: f.span.clone(),
            node: f.required_parsed::<NodeName>("node").map(|n| n.map(|n| n.0)),
            rank: f.required("rank"),
        };
        if let Some(rank) = &draft.rank
            && !(1..=254).contains(&rank.value)
        {
            // R24
            f.sink().push(Problem::error("a backup's `rank` is 1 to 254").at(rank.span.clone(), ""));
        }
        f.finish();
        draft
    }
}

impl DistributeDraft {
    fn read(mut f: Fields<'_, '_>) -> DistributeDraft {
        f.demand("ports");
        f.demand("targets");
        let ports = match f.raw("ports") {
            None => PortsDraft::Wrong,
            Some(v) if v.get_ref().as_str() == Some("all") => PortsDraft::All(v.span()),
            Some(v) => ports(&f, v),
        };
        let targets = match f.raw("targets") {
            None => TargetsDraft::Wrong,
            Some(v) if v.get_ref().as_str() == Some("all") => TargetsDraft::All,
            Some(v) if v.get_ref().is_array() => {
                if v.get_ref().as_array().is_some_and(|a| a.is_empty()) {
                    f.sink().push(Problem::error("`distribute`: `targets` is empty").at(v.span(), ""));
                }
                let names = f.parsed_list::<NodeName>("targets");
                TargetsDraft::Named(names.into_iter().map(|n| n.map(|n| n.0)).collect())
            }
            Some(v) => {
                let problem = Problem::error("`distribute`: `targets` must be \"all\" or a list of nodes");
                f.sink().push(problem.at(v.span(), ""));
                TargetsDraft::Wrong
            }
        };
        let protocols = [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("both", Transport::Both)];
        let protocol = f.choice("protocol", &protocols);
        let span = f.span.clone();
        f.finish();
        DistributeDraft { span, protocol, ports, targets }
    }
}

fn ports(f: &Fields<'_, '_>, value: &Spanned<DeValue<'_>>) -> PortsDraft {
    let wrong = |at: Span, why: String| {
        f.sink().push(Problem::error(format!("`distribute`: `ports`: {why}")).at(at, ""));
    };
    let form = "must be \"all\" or a list such as [80, \"1000-2000\"]";
    let Some(array) = value.get_ref().as_array().filter(|a| !a.is_empty()) else {
        wrong(value.span(), form.to_owned());
        return PortsDraft::Wrong;
    };
    let mut ranges = Vec::new();
    for item in array.iter() {
        match range(item.get_ref()) {
            Some(Ok(range)) => ranges.push(At::new(range, item.span())),
            Some(Err(why)) => wrong(item.span(), why),
            None => wrong(item.span(), form.to_owned()),
        }
    }
    PortsDraft::Ranges(ranges)
}

/// A port as a number, or a range as a string.
pub(super) fn range(value: &DeValue<'_>) -> Option<Result<PortRange, String>> {
    match value {
        DeValue::Integer(n) => Some(n.to_string().parse()),
        DeValue::String(s) => Some(s.parse()),
        _ => None,
    }
}
