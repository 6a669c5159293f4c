//! Distribution by port list (R24): from the configuration to what the router core is told and `phalanx vip` shows.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use phalanx_steering::{PortRule, Transport};
use phalanx_wire::{TargetId, VipId};

use super::brain::Brain;
use super::plan::Numbering;
use crate::config::{self, Config, PortRange};

/// A VIP's rules: the first that names a port decides. What they leave over the router serves itself.
pub fn rules(config: &Config, vip: &config::Vip, numbering: &Numbering) -> Vec<PortRule> {
    let all = [PortRange::ALL];
    let rule = |entry: &config::Distribute| {
        let ranges = match &entry.ports {
            config::Ports::All => &all[..],
            config::Ports::Ranges(ranges) => ranges,
        };
        let targets: BTreeSet<TargetId> = match &entry.targets {
            config::Targets::Named(names) => names.iter().filter_map(|name| numbering.id(name)).collect(),
            config::Targets::All => everybody(config).filter_map(|name| numbering.id(name)).collect(),
        };
        let ports = ranges.iter().map(|r| r.first..=r.last).collect();
        PortRule { protocol: entry.protocol, ports, targets: targets.into_iter().collect() }
    };
    vip.distribute.iter().map(rule).collect()
}

/// All targets of a VIP: they get its definition and its SAs.
pub fn targets(config: &Config, vip: &config::Vip, numbering: &Numbering) -> Vec<TargetId> {
    let ids: BTreeSet<TargetId> = rules(config, vip, numbering).into_iter().flat_map(|rule| rule.targets).collect();
    ids.into_iter().collect()
}

/// `targets = "all"`: the other nodes, and this one if it has a core that can be a target.
fn everybody(config: &Config) -> impl Iterator<Item = &str> {
    let me = config.node.name.as_str();
    let others = config.cluster.nodes.iter().map(|node| node.name.as_str()).filter(move |name| *name != me);
    others.chain(config.cores.iter().any(|core| core.target).then_some(me))
}

/// `80,1000-2000 -> t1,t2`; `udp 443 -> t1`.
fn in_words(rule: &PortRule, name: impl Fn(TargetId) -> String) -> String {
    let range = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
        (0, u16::MAX) => "all".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let ports: Vec<String> = rule.ports.iter().map(range).collect();
    let targets: Vec<String> = rule.targets.iter().map(|id| name(*id)).collect();
    let protocol = match rule.protocol {
        Transport::Tcp => "",
        Transport::Udp => "udp ",
        Transport::Both => "tcp+udp ",
    };
    format!("{protocol}{} -> {}", ports.join(","), targets.join(","))
}

impl Brain {
    /// A VIP of ours as the operator wrote it.
    pub(super) fn configured(&self, vip: VipId) -> Option<&config::Vip> {
        self.config.vips.iter().find(|configured| configured.id == vip.0)
    }

    /// The rules of a VIP of ours; none of another router's.
    pub(super) fn rules(&self, vip: VipId) -> Vec<PortRule> {
        self.configured(vip).map_or_else(Vec::new, |vip| rules(&self.config, vip, &self.numbering))
    }

    pub(super) fn rules_in_words(&self, vip: VipId) -> Vec<String> {
        self.rules(vip).iter().map(|rule| in_words(rule, |id| self.target_name(id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What a router with two targets makes of a distribution: its rules in words, and all of its targets.
    fn distributed(roles: &str, distribute: &str) -> (Vec<String>, Vec<u16>) {
        let text = format!(
            r#"
            node = {{ name = "r" }}
            [cluster]
            name = "demo"
            listen = "10.79.0.1:7400"
            certificate = "r.pem"
            key = "r.key"
            ca = "ca.pem"
            node = [
              {{ name = "r", link = ["10.78.0.1"] }},
              {{ name = "t1", link = ["10.78.0.11"] }},
              {{ name = "t2", link = ["10.78.0.12"] }},
            ]
            [[port]]
            name = "net"
            device = "net_af_packet,iface=eth1"
            role = "network"
            addresses = ["10.77.0.1/24"]
            [[port]]
            name = "link"
            device = "net_af_packet,iface=eth2"
            role = "link"
            addresses = ["10.78.0.1/24"]
            mtu = 1600
            [[port]]
            name = "app"
            device = "net_tap,iface=px0"
            role = "application"
            [[core]]
            cpu = 0
            roles = {roles}
            ports = ["net", "link", "app"]
            [[vip]]
            name = "web"
            address = "10.77.0.100/24"
            owner = "r"
            distribute = {distribute}
            "#
        );
        let config = config::check(Path::new("px.toml"), &text, None).expect("in order").config;
        let numbering = Numbering::new(&config);
        let name = |id| numbering.name(id).expect("a node").to_string();
        let words = rules(&config, &config.vips[0], &numbering).iter().map(|rule| in_words(rule, name)).collect();
        let ids = targets(&config, &config.vips[0], &numbering).into_iter().map(|id| id.0).collect();
        (words, ids)
    }

    const ROUTER: &str = r#"["router"]"#;
    const BOTH: &str = r#"["router", "target"]"#;

    #[test]
    fn each_entry_is_a_rule_with_its_ports_and_targets_and_all_of_them_make_the_vips_targets() {
        let web = r#"{ ports = [443, 80, "8000-8999"], targets = ["t2", "t1"] }"#;
        let mail = r#"{ ports = [25], targets = ["t2"] }"#;
        let (words, targets) = distributed(ROUTER, &format!("[{web}, {mail}]"));
        assert_eq!(words, ["80,443,8000-8999 -> t1,t2", "25 -> t2"]);
        assert_eq!(targets, [1, 2]);
    }

    #[test]
    fn a_rule_is_of_tcp_unless_it_says_otherwise() {
        let udp = r#"{ ports = [443], targets = ["t1"], protocol = "udp" }"#;
        let both = r#"{ ports = [53], targets = ["t2"], protocol = "both" }"#;
        let tcp = r#"{ ports = [443], targets = ["t2"], protocol = "tcp" }"#;
        let (words, _) = distributed(ROUTER, &format!("[{udp}, {both}, {tcp}]"));
        assert_eq!(words, ["udp 443 -> t1", "tcp+udp 53 -> t2", "443 -> t2"]);
    }

    #[test]
    fn all_targets_are_the_others_and_the_owner_if_it_has_a_core_for_it() {
        let all = r#"[{ ports = "all", targets = "all" }]"#;
        assert_eq!(distributed(ROUTER, all), (vec!["all -> t1,t2".to_owned()], vec![1, 2]));
        assert_eq!(distributed(BOTH, all), (vec!["all -> r,t1,t2".to_owned()], vec![0, 1, 2]));
    }

    #[test]
    fn the_owner_is_a_target_of_the_rules_that_name_it_only() {
        let entries = r#"[{ ports = [80], targets = ["r", "t1"] }, { ports = [443], targets = ["t1"] }]"#;
        let (words, targets) = distributed(BOTH, entries);
        assert_eq!(words, ["80 -> r,t1", "443 -> t1"]);
        assert_eq!(targets, [0, 1]);
    }

    #[test]
    fn a_vip_without_distribution_has_neither_rules_nor_targets() {
        assert_eq!(distributed(ROUTER, "[]"), (vec![], vec![]));
    }
}
