//! The rules as text and commands: pure, so that they can be read and tested.

use super::HostPlan;
use super::tools::{HostError, ip};
use std::fmt::Write;
use std::net::IpAddr;

/// Before conntrack (-200), NAT (-100 and 100) and raw (-300): nothing may rewrite a packet before we have seen it.
const EARLY: i32 = -450;
/// Ours come before the administrator's own rules, which have numbers like 1000 and more, and after `local` (0).
const RULE_PREFERENCE: &str = "77";
/// Behind every route with an interface.
const LAST_METRIC: &str = "4000000000";

/// Name of our tables in nftables. Node names are letters, digits and `-`.
fn table(node: &str) -> String {
    format!("phalanx_{}", node.replace('-', "_"))
}

/// Number of our routing table: from the node's name, so that the next life finds it (FNV-1a, above the usual numbers).
pub(super) fn route_table(node: &str) -> String {
    let hash = node.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (7_000_000 + hash % 1_000_000).to_string()
}

/// One address alone.
pub(super) fn host_prefix(vip: IpAddr) -> String {
    format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 })
}

/// What `nft -f -` is told: our tables as they should be, replacing what they were, in one transaction.
pub(super) fn ruleset(plan: &HostPlan, vips: &[IpAddr]) -> String {
    let mut out = nothing(plan);
    let name = table(&plan.node);
    if !plan.software_ports.is_empty() {
        let _ = writeln!(out, "table netdev {name} {{");
        for (i, port) in plan.software_ports.iter().enumerate() {
            // The data plane's socket gets its copy before this hook, the host's stack would after it.
            let _ = writeln!(
                out,
                "  chain in_{i} {{ type filter hook ingress device \"{port}\" priority -500; policy drop; }}"
            );
        }
        out.push_str("}\n");
    }
    let _ = writeln!(out, "table inet {name} {{");
    chain(&mut out, "enter", "prerouting", &enter(plan, vips));
    // `output` also sees what has no route step behind it (ND); `postrouting` also sees what is forwarded.
    chain(&mut out, "leave", "output", &leave(plan, vips));
    chain(&mut out, "pass", "postrouting", &leave(plan, vips));
    out.push_str("}\n");
    let _ = writeln!(out, "table arp {name} {{");
    let v4 = || vips.iter().filter(|v| v.is_ipv4());
    // A host answers ARP for any of its addresses on any interface; not for a VIP.
    let asked: Vec<String> = v4().map(|v| format!("arp daddr ip {v} drop")).collect();
    let mut claimed: Vec<String> = plan.software_ports.iter().map(|p| format!("oifname \"{p}\" drop")).collect();
    claimed.extend(v4().map(|v| format!("arp saddr ip {v} drop")));
    chain(&mut out, "enter", "input", &asked);
    chain(&mut out, "leave", "output", &claimed);
    out.push_str("}\n");
    out
}

/// What `nft -f -` is told to take our tables away, whether they are there or not.
pub(super) fn nothing(plan: &HostPlan) -> String {
    let name = table(&plan.node);
    ["netdev", "inet", "arp"].iter().map(|f| format!("table {f} {name} {{}}\ndelete table {f} {name}\n")).collect()
}

fn chain(out: &mut String, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(out, "  chain {name} {{\n    type filter hook {hook} priority {EARLY}; policy accept;");
    for rule in rules {
        let _ = writeln!(out, "    {rule}");
    }
    out.push_str("  }\n");
}

/// To a VIP by the TAP only; from the host itself by `lo`.
fn enter(plan: &HostPlan, vips: &[IpAddr]) -> Vec<String> {
    vips.iter().map(|v| format!("{} daddr {v} iifname != {{ \"{}\", \"lo\" }} drop", family(v), plan.tap)).collect()
}

/// Nothing of the host by the data plane's ports; from a VIP by the TAP only; no word of ND about a VIP.
fn leave(plan: &HostPlan, vips: &[IpAddr]) -> Vec<String> {
    let ports = plan.software_ports.iter().map(|p| format!("oifname \"{p}\" drop"));
    let sources =
        vips.iter().map(|v| format!("{} saddr {v} oifname != {{ \"{}\", \"lo\" }} drop", family(v), plan.tap));
    // RFC 4861 §4.4: the target of an advertisement is 8 bytes into the message. (`icmpv6 taddr` needs a newer nft.)
    let claims = vips.iter().filter_map(|v| match v {
        IpAddr::V6(v6) => Some(format!("icmpv6 type nd-neighbor-advert @th,64,128 {:#034x} drop", v6.to_bits())),
        IpAddr::V4(_) => None,
    });
    ports.chain(sources).chain(claims).collect()
}

fn family(vip: &IpAddr) -> &'static str {
    if vip.is_ipv4() { "ip" } else { "ip6" }
}

/// `ip` commands, and those that undo them.
pub(super) struct Commands {
    make: Vec<Vec<String>>,
    undo: Vec<Vec<String>>,
}

impl Commands {
    /// Does them; what exists already is as good.
    pub fn make(&self) -> Result<(), HostError> {
        self.make.iter().try_for_each(|c| ip::existing(&borrow(c)))
    }

    /// Undoes them; what is gone already is as good.
    pub fn undo(&self) -> Result<(), HostError> {
        self.undo.iter().try_for_each(|c| ip::quiet(&borrow(c)))
    }
}

fn borrow(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn words(line: String) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn version(vip: IpAddr) -> &'static str {
    if vip.is_ipv4() { "-4" } else { "-6" }
}

/// What comes from the VIP is routed by our table, which leads nowhere.
pub(super) fn close_routes(plan: &HostPlan, vip: IpAddr) -> Commands {
    let (v, t, from) = (version(vip), route_table(&plan.node), host_prefix(vip));
    let rule = format!("pref {RULE_PREFERENCE} from {from} lookup {t}");
    Commands {
        make: vec![
            words(format!("{v} route replace unreachable default table {t} metric {LAST_METRIC}")),
            words(format!("{v} rule add {rule}")),
        ],
        undo: vec![words(format!("{v} rule del {rule}"))],
    }
}

/// And into the TAP, while that is there.
pub(super) fn open_route(plan: &HostPlan, vip: IpAddr) -> Commands {
    let (v, t, tap) = (version(vip), route_table(&plan.node), &plan.tap);
    let route = format!("default dev {tap} table {t} metric 1");
    Commands {
        make: vec![words(format!("{v} route replace {route}"))],
        undo: vec![words(format!("{v} route del {route}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> HostPlan {
        HostPlan {
            node: "r-1".into(),
            state_dir: "/tmp".into(),
            tap: "px0".into(),
            tap_mtu: 1423,
            software_ports: vec!["net0".into()],
        }
    }

    #[test]
    fn the_rules_read_as_the_design_says() {
        let expected = r#"table netdev phalanx_r_1 {}
delete table netdev phalanx_r_1
table inet phalanx_r_1 {}
delete table inet phalanx_r_1
table arp phalanx_r_1 {}
delete table arp phalanx_r_1
table netdev phalanx_r_1 {
  chain in_0 { type filter hook ingress device "net0" priority -500; policy drop; }
}
table inet phalanx_r_1 {
  chain enter {
    type filter hook prerouting priority -450; policy accept;
    ip daddr 10.77.0.100 iifname != { "px0", "lo" } drop
    ip6 daddr fd77::100 iifname != { "px0", "lo" } drop
  }
  chain leave {
    type filter hook output priority -450; policy accept;
    oifname "net0" drop
    ip saddr 10.77.0.100 oifname != { "px0", "lo" } drop
    ip6 saddr fd77::100 oifname != { "px0", "lo" } drop
    icmpv6 type nd-neighbor-advert @th,64,128 0xfd770000000000000000000000000100 drop
  }
  chain pass {
    type filter hook postrouting priority -450; policy accept;
    oifname "net0" drop
    ip saddr 10.77.0.100 oifname != { "px0", "lo" } drop
    ip6 saddr fd77::100 oifname != { "px0", "lo" } drop
    icmpv6 type nd-neighbor-advert @th,64,128 0xfd770000000000000000000000000100 drop
  }
}
table arp phalanx_r_1 {
  chain enter {
    type filter hook input priority -450; policy accept;
    arp daddr ip 10.77.0.100 drop
  }
  chain leave {
    type filter hook output priority -450; policy accept;
    oifname "net0" drop
    arp saddr ip 10.77.0.100 drop
  }
}
"#;
        assert_eq!(ruleset(&plan(), &["10.77.0.100".parse().unwrap(), "fd77::100".parse().unwrap()]), expected);
    }

    #[test]
    fn packets_from_a_vip_go_to_the_tap_or_nowhere() {
        let closed = close_routes(&plan(), "fd77::100".parse().unwrap());
        let t = route_table("r-1");
        assert_eq!(
            closed.make[0].join(" "),
            format!("-6 route replace unreachable default table {t} metric 4000000000")
        );
        assert_eq!(closed.make[1].join(" "), format!("-6 rule add pref 77 from fd77::100/128 lookup {t}"));
        assert_eq!(closed.undo[0].join(" "), format!("-6 rule del pref 77 from fd77::100/128 lookup {t}"));
        let open = open_route(&plan(), "10.77.0.100".parse().unwrap());
        assert_eq!(open.make[0].join(" "), format!("-4 route replace default dev px0 table {t} metric 1"));
        assert_ne!(route_table("r1"), route_table("r2"));
    }
}
