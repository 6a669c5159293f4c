//! Every check, with the exact lines a user sees.

use super::*;
use std::path::Path;

/// A router that is in order.
const ROUTER: &str = r#"[node]
name = "r1"

[cluster]
name = "demo"
listen = "10.79.0.1:7400"
certificate = "pki/r1.pem"
key = "pki/r1.key"
ca = "pki/ca.pem"
[[cluster.node]]
name = "r1"
link = ["10.78.0.1"]
[[cluster.node]]
name = "t1"
link = ["10.78.0.11"]
[[cluster.node]]
name = "t2"
link = ["10.78.0.12"]

[[port]]
name = "net"
device = "net_af_packet,iface=eth1"
role = "network"
addresses = ["10.77.0.1/24"]
mtu = 1500
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
roles = ["router"]
ports = ["net", "link", "app"]
idle = "sleep"

[[vip]]
name = "web"
address = "10.77.0.100/24"
owner = "r1"
distribute = [{ ports = [80, "8000-8999"], targets = ["t1", "t2"] }]

[[sa]]
name = "client"
vip = "web"
peer = "10.77.0.10"
mode = "tunnel"
remote = "10.99.0.10"
inbound = { spi = 0x1001, key = "000102030405060708090a0b0c0d0e0fa0a1a2a3", window = 64 }
outbound = { spi = 0x2001, key = "101112131415161718191a1b1c1d1e1fa0a1a2a3" }
hard_bytes = 1000000

[[filter]]
action = "protect"
vip = "web"
tunnel = "client"
remote = "10.99.0.10"
"#;

const TARGET: &str = r#"[node]
name = "t1"
[cluster]
name = "demo"
routers = ["r1"]
certificate = "t1.pem"
key = "t1.key"
ca = "ca.pem"
node = [{ name = "r1", address = "10.79.0.1:7400", link = ["10.78.0.1"] }, { name = "t1", link = ["10.78.0.11"] }]
[[port]]
name = "net"
device = "0000:01:00.0"
role = "network"
addresses = ["10.77.0.11/24", "fd77::11/64"]
next_hops = ["10.77.0.254"]
[[port]]
name = "link"
device = "0000:01:00.1"
role = "link"
addresses = ["10.78.0.11/24"]
[[port]]
name = "app"
device = "net_tap,iface=px0"
role = "application"
[[core]]
cpu = 1
roles = ["target"]
ports = ["net", "link", "app"]
"#;

fn run(text: &str) -> Result<Checked, Report> {
    check(Path::new("px.toml"), text, Some(0o100600))
}

/// The lines of what is wrong with `base` once each `from` is `to`.
#[track_caller]
fn wrong(base: &str, changes: &[(&str, &str)]) -> Vec<String> {
    let mut text = base.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must stand once in the base");
        text = text.replace(from, to);
    }
    match run(&text) {
        Ok(checked) => checked.warnings.lines(),
        Err(report) => report.lines(),
    }
}

/// As `wrong`, without the file's name.
#[track_caller]
fn expect(base: &str, changes: &[(&str, &str)], lines: &[&str]) {
    let found = wrong(base, changes);
    let found: Vec<&str> = found.iter().map(|l| l.strip_prefix("px.toml:").unwrap_or(l)).collect();
    assert_eq!(found, lines);
}

const KEY_IN: &str = "000102030405060708090a0b0c0d0e0fa0a1a2a3";
const KEY_OUT: &str = "101112131415161718191a1b1c1d1e1fa0a1a2a3";

#[test]
fn a_router_in_order_becomes_a_configuration_with_its_defaults() {
    let config = run(ROUTER).unwrap().config;
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.node.status_socket, Path::new("/run/phalanx/r1.sock"));
    assert_eq!(config.node.state_dir, Path::new("/var/lib/phalanx/r1"));
    assert_eq!(config.cluster.tls.as_ref().unwrap().key, Path::new("pki/r1.key"));
    assert_eq!(config.cores[0].ports, [0, 1, 2]);
    let sa = &config.sas[0];
    assert_eq!((sa.vip, sa.esn, sa.inbound.window, sa.outbound.window), (0, true, 64, 32));
    assert_eq!((sa.soft_bytes, sa.hard_bytes, sa.path_mtu), (900_000, 1_000_000, 1500));
    assert_eq!(sa.selectors.local.to_string(), "10.77.0.100/32");
    assert_eq!(sa.selectors.remote.to_string(), "10.99.0.10/32");
    assert_eq!(config.vips[0].id, build::default_vip_id("10.77.0.100".parse().unwrap()));
    let ranges = vec![PortRange { first: 80, last: 80 }, PortRange { first: 8000, last: 8999 }];
    assert_eq!(config.vips[0].distribute[0].ports, Ports::Ranges(ranges));
    assert_eq!(config.filters[0].action, Action::Protect("client".to_owned()));
}

#[test]
fn a_target_in_order_needs_neither_vips_nor_sas() {
    let config = run(TARGET).unwrap().config;
    assert_eq!(config.cluster.routers, ["r1"]);
    assert_eq!(config.ports[1].mtu, Some(1600));
    assert!(config.vips.is_empty() && config.sas.is_empty());
}

#[test]
fn one_box_needs_no_certificate_and_no_link() {
    let text = r#"
        node = { name = "solo" }
        cluster = { name = "one" }
        port = [
          { name = "net", device = "net_af_packet,iface=eth1", role = "network", addresses = ["10.77.0.1/24"] },
          { name = "app", device = "net_tap,iface=px0", role = "application" },
        ]
        core = [{ cpu = 0, roles = ["router", "target"], ports = ["net", "app"] }]
        vip = [{ name = "web", address = "10.77.0.100/24", owner = "solo", distribute = [{ ports = "all", targets = "all" }] }]
    "#;
    let config = run(text).unwrap().config;
    assert_eq!((config.cluster.tls, config.cluster.listen), (None, None));
}

#[test]
fn all_mistakes_are_shown_at_once_each_with_its_line() {
    expect(
        ROUTER,
        &[
            ("listen = \"10.79.0.1:7400\"", "listen = \"10.79.0.1\""),
            ("idle = \"sleep\"", "idle = \"sleap\""),
            ("cpu = 0", "cpu = -1"),
            ("role = \"link\"", "rolle = \"link\""),
            ("window = 64", "window = 16"),
            ("owner = \"r1\"", ""),
        ],
        &[
            "6: [cluster]: `listen`: invalid socket address syntax",
            "26: [[port]]: `role` is missing",
            "29: [[port]]: there is no key `rolle` (did you mean `role`?)",
            "38: [[core]]: `cpu`: invalid value: integer `-1`, expected u32",
            "41: [[core]]: `idle` must be one of `spin`, `pause` or `sleep` (did you mean `sleep`?)",
            "43: [[vip]]: `owner` is missing",
            "55: a replay `window` is 32 to 65536 packets",
        ],
    );
}

#[test]
fn a_report_shows_the_file_the_line_and_the_text() {
    let report = run(&ROUTER.replace("mtu = 1600", "mtu = 1520")).unwrap_err();
    let expected = "\
error: the link's MTU 1520 cannot carry the network's 1500 and 44 of header
  --> px.toml:31:7
   |
25 | mtu = 1500
   |       ---- network port
...
31 | mtu = 1520
   |       ^^^^ must be at least 1544

";
    assert_eq!(report.render(false), expected);
    assert!(report.render(true).contains("\u{1b}["));
    assert_eq!((report.errors(), report.warnings()), (1, 0));
}

#[test]
fn what_is_no_toml_is_said_once_and_nothing_is_guessed_behind_it() {
    expect(ROUTER, &[("name = \"demo\"", "name = \"demo")], &["5: not TOML: invalid basic string, expected `\"`"]);
}

#[test]
fn two_sas_with_one_key_and_salt_are_refused_in_any_direction() {
    let message = "two SAs have one key and salt: a number used by both would give the plaintext away";
    expect(ROUTER, &[(KEY_OUT, KEY_IN)], &[&format!("56: {message}")]);
    // The same key with another salt is another nonce space.
    expect(ROUTER, &[(KEY_OUT, "000102030405060708090a0b0c0d0e0fa0a1a2a4")], &[]);
}

fn second_sa(name: &str, spi_in: u32, spi_out: u32, extra: &str) -> String {
    format!(
        "{ROUTER}\n[[sa]]\nname = \"{name}\"\nvip = \"web\"\npeer = \"10.77.0.20\"\nmode = \"tunnel\"\n\
         inbound = {{ spi = {spi_in}, key = \"202122232425262728292a2b2c2d2e2fa0a1a2a3\" }}\n\
         outbound = {{ spi = {spi_out}, key = \"303132333435363738393a3b3c3d3e3fa0a1a2a3\" }}\n{extra}"
    )
}

#[test]
fn an_inbound_spi_names_one_sa_of_a_vip() {
    let text = second_sa("other", 0x1001, 0x2001, "");
    // The outbound SPI is the other peer's own choice.
    expect(&text, &[], &["70: two SAs of `web` have the inbound SPI 0x00001001"]);
    let text = second_sa("client", 0x1002, 0x2001, "remote = \"10.99.0.10\"");
    let overlap = "66: selectors of `client` and `client` overlap: what fits both leaves by `client`";
    expect(&text, &[], &["66: two SAs are called `client`", overlap]);
}

#[test]
fn spis_keys_and_limits_have_their_bounds() {
    let cases: &[(&str, &str, &str)] = &[
        ("spi = 0x1001", "spi = 255", "55: an `spi` is 256 to 4294967295"),
        ("window = 64", "window = 65537", "55: a replay `window` is 32 to 65536 packets"),
        (KEY_IN, "0001", "55: the key has 2 bytes; aes128-gcm16 wants 20 (16 of key and 4 of salt: 40 hex digits)"),
        (KEY_IN, "000g", "55: `key` holds a character that is no hex digit"),
        (
            "hard_bytes = 1000000",
            "hard_bytes = 10\nsoft_bytes = 11",
            "57: the hard limit is below the soft one: the SA would stop before it is renewed",
        ),
        ("hard_bytes = 1000000", "hard_bytes = 0", "57: `hard_bytes` is 0: the SA could carry nothing"),
        ("hard_bytes = 1000000", "path_mtu = 9000", "57: the path MTU 9000 is above the network port's 1500"),
        (
            "hard_bytes = 1000000",
            "algorithm = \"des\"",
            "57: [[sa]]: `algorithm`: must be `aes-128-gcm-16` or `aes-256-gcm-16`",
        ),
    ];
    for (from, to, line) in cases {
        expect(ROUTER, &[(from, to)], &[line]);
    }
}

#[test]
fn vips_do_not_overlap_with_each_other_or_with_anything_of_ours() {
    let vip = |address: &str| format!("{ROUTER}\n[[vip]]\nname = \"w2\"\nowner = \"r1\"\naddress = \"{address}\"\n");
    expect(&vip("10.77.0.100/32"), &[], &["68: two VIPs have the address 10.77.0.100"]);
    expect(&vip("10.77.0.1/24"), &[], &["68: 10.77.0.1 is this port's own address and cannot be a VIP"]);
    expect(
        &vip("10.77.0.255/24"),
        &[],
        &["68: 10.77.0.255 is the network's own or its broadcast address, not a host's"],
    );
    expect(
        &vip("10.78.0.12/24"),
        &[],
        &[
            "68: 10.78.0.12 is a node's link address and cannot be a VIP",
            "68: a VIP cannot stand on the trusted link",
            "68: 10.78.0.12 is in no network port's subnet (peers then need a route to it by this node: nobody will ask for it by ARP or ND)",
        ],
    );
    expect(&vip("fd77::100/64"), &[], &["68: no network port has an IPv6 address, so nobody reaches this VIP"]);
    expect(
        &vip("10.77.0.101"),
        &[],
        &["68: [[vip]]: `address` lacks its prefix length (for example \"10.77.0.101/24\")"],
    );
}

#[test]
fn a_vip_outside_the_subnets_is_a_warning_that_stays_with_the_configuration() {
    let text = ROUTER.replace("10.77.0.100/24", "192.0.2.1/32");
    let checked = run(&text).unwrap();
    assert_eq!(checked.warnings.warnings(), 1);
    assert!(checked.config.warnings[0].contains("192.0.2.1 is in no network port's subnet"));
}

#[test]
fn backups_need_etcd_and_etcd_is_not_in_this_version() {
    let backup = ("owner = \"r1\"", "owner = \"r1\"\nbackups = [{ node = \"t1\", rank = 5 }]");
    let help = "this version has the embedded one only, so a VIP stays with its owner: leave `backups` out";
    expect(
        ROUTER,
        &[backup],
        &[&format!("47: backups need a coupling facility that outlives the owner: etcd ({help})")],
    );
    let etcd = ("name = \"demo\"", "name = \"demo\"\ncoupling = { etcd = [\"https://10.79.0.1:2379\"] }");
    let help = "use `coupling = \"embedded\"`: it lives on the router, and VIPs then have no backups";
    let line = format!("6: etcd as coupling facility is not in this version ({help})");
    expect(ROUTER, &[etcd, backup], &[&line]);
    expect(
        ROUTER,
        &[etcd, ("owner = \"r1\"", "owner = \"r1\"\nbackups = [{ node = \"t9\", rank = 255 }]")],
        &[&line, "48: there is no node `t9` (did you mean `t1`?)", "48: a backup's `rank` is 1 to 254"],
    );
}

#[test]
fn a_name_that_does_not_exist_gets_a_suggestion() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "ports = [\"net\", \"link\"",
            "ports = [\"net\", \"lnik\"",
            "40: there is no port `lnik` (did you mean `link`?)",
        ),
        ("targets = [\"t1\", \"t2\"]", "targets = [\"t1\", \"t3\"]", "47: there is no node `t3` (did you mean `t1`?)"),
        ("tunnel = \"client\"", "tunnel = \"klient\"", "62: there is no SA `klient` (did you mean `client`?)"),
        ("vip = \"web\"\npeer", "vip = \"wep\"\npeer", "51: there is no VIP `wep` (did you mean `web`?)"),
        ("owner = \"r1\"", "owner = \"rx\"", "46: there is no node `rx` (did you mean `r1`?)"),
    ];
    for (from, to, line) in cases {
        let found = wrong(ROUTER, &[(from, to)]);
        assert!(found.iter().any(|l| l == &format!("px.toml:{line}")), "{found:#?}");
    }
}

#[test]
fn a_port_belongs_to_exactly_one_core() {
    let second = "idle = \"sleep\"\n[[core]]\ncpu = 1\nroles = [\"router\"]\nports = [\"net\"]";
    expect(
        ROUTER,
        &[("idle = \"sleep\"", second)],
        &["45: port `net` is used by two cores; it belongs to exactly one"],
    );
    let none = ("ports = [\"net\", \"link\", \"app\"]", "ports = [\"net\", \"link\"]");
    expect(ROUTER, &[none], &["33: no core polls port `app` (add it to a core: `ports = [\"app\"]`)"]);
    expect(ROUTER, &[("iface=eth2", "iface=eth1")], &["28: two ports have the same device"]);
}

#[test]
fn a_router_needs_its_three_ports_and_a_core_that_steers() {
    let text = ROUTER.split("[[port]]").next().unwrap().to_owned() + &ROUTER[ROUTER.find("[[vip]]").unwrap()..];
    expect(
        &text,
        &[],
        &[
            "2: this node is a router and has no [[port]] with role = \"network\"",
            "2: this node is a router and has no [[port]] with role = \"application\"",
            "2: this node is a router and has no [[port]] with role = \"link\"",
            "2: this node is a router and has no [[core]] with roles = [\"router\"]",
        ],
    );
    let line = "2: this node is a router and has no [[core]] with roles = [\"router\"]";
    let more = "39: this role has nothing to do: the node is nobody's target";
    expect(ROUTER, &[("roles = [\"router\"]", "roles = [\"target\"]")], &[line, more]);
    expect(
        TARGET,
        &[("roles = [\"target\"]", "roles = [\"router\"]")],
        &[
            "2: this node is a target and has no [[core]] with roles = [\"target\"]",
            "27: this role has nothing to do: the node owns no VIP",
        ],
    );
}

#[test]
fn static_sas_and_vips_stand_with_their_owner_only() {
    let help = "define it in t1's configuration; a target learns it from there: `routers = [\"t1\"]`";
    let found = wrong(ROUTER, &[("owner = \"r1\"", "owner = \"t1\"")]);
    let help_sa = "static SAs stand in the router's configuration only; targets get them from it";
    assert!(found.contains(&format!("px.toml:46: `t1` owns this VIP, not this node ({help})")), "{found:#?}");
    assert!(found.contains(&format!("px.toml:51: this node does not own `web` ({help_sa})")), "{found:#?}");
}

#[test]
fn selectors_must_fit_the_sa_and_the_filter_the_selectors() {
    let vip_help = "the VIP of this SA is 10.77.0.100";
    let local = ("mode = \"tunnel\"", "mode = \"tunnel\"\nlocal = \"10.1.0.0/16\"");
    let found = wrong(ROUTER, &[local]);
    let line = format!("px.toml:54: `local` 10.1.0.0/16 holds no VIP: nothing that comes through fits ({vip_help})");
    assert!(found.contains(&line), "{found:#?}");
    expect(
        ROUTER,
        &[("mode = \"tunnel\"", "mode = \"transport\"")],
        &[
            "54: in transport mode `remote` is 10.77.0.10 itself, not 10.99.0.10/32 (leave it out, or use mode = \"tunnel\")",
        ],
    );
    expect(
        ROUTER,
        &[("mode = \"tunnel\"\nremote = \"10.99.0.10\"", "mode = \"tunnel\"\nremote = \"fd99::10\"")],
        &["54: local 10.77.0.100/32 and remote fd99::10/128 are of different families"],
    );
    expect(
        ROUTER,
        &[("tunnel = \"client\"\nremote = \"10.99.0.10\"", "tunnel = \"client\"\nremote = \"10.98.0.0/16\"")],
        &["62: nothing this filter matches fits the selectors of `client`"],
    );
    expect(
        ROUTER,
        &[("mode = \"tunnel\"\nremote = \"10.99.0.10\"", "mode = \"tunnel\"\nremote = \"10.99.0.10/24\"")],
        &[
            "54: `remote`: 10.99.0.10/24 has bits behind its prefix length (`10.99.0.0/24` is the block, `10.99.0.10` the one address)",
        ],
    );
}

#[test]
fn a_permit_in_front_of_a_tunnel_is_warned_of() {
    let permit = ("[[filter]]", "[[filter]]\naction = \"permit\"\nvip = \"web\"\n[[filter]]");
    expect(ROUTER, &[permit], &["59: this permits in clear what tunnel `client` is there to protect"]);
    let permit = (
        "[[filter]]",
        "[[filter]]\naction = \"permit\"\nvip = \"web\"\nprotocol = \"icmp\"\nlocal_ports = 80\n[[filter]]",
    );
    expect(ROUTER, &[permit], &["63: this protocol has no ports"]);
}

#[test]
fn what_a_target_needs_of_its_routers_is_asked_for() {
    let no_address = ("name = \"r1\", address = \"10.79.0.1:7400\", ", "name = \"r1\", ");
    expect(TARGET, &[no_address], &["9: router `r1` has no `address`"]);
    let help = "`phalanx pki ca` and `phalanx pki node` make the cluster's certificates";
    expect(TARGET, &[("key = \"t1.key\"\n", "")], &[&format!("3: [cluster]: `key` is missing ({help})")]);
    let help = "links between boxes are one Ethernet segment: GRE is believed only from there";
    let other_net = ("link = [\"10.78.0.1\"]", "link = [\"10.80.0.1\"]");
    expect(TARGET, &[other_net], &[&format!("9: no link port is in one subnet with 10.80.0.1 ({help})")]);
    let help = "a router has [[vip]]s with itself as owner, a target names its routers in [cluster] routers";
    let nothing = format!("2: this node has nothing to do: it owns no [[vip]] and obeys no router ({help})");
    expect(TARGET, &[("routers = [\"r1\"]\n", "")], &[&nothing]);
}

#[test]
fn the_network_and_the_link_are_apart_and_next_hops_are_near() {
    let near = ("addresses = [\"10.78.0.11/24\"]", "addresses = [\"10.77.0.12/24\"]");
    let found = wrong(TARGET, &[near]);
    let line = "px.toml:20: the link is not apart from the network: their subnets overlap".to_owned();
    assert!(found.contains(&line), "{found:#?}");
    expect(TARGET, &[("10.77.0.254", "10.70.0.254")], &["15: the next hop 10.70.0.254 is in no subnet of this port"]);
    let v6 = [
        ("addresses = [\"10.78.0.11/24\"]", "addresses = [\"fd78::11/64\"]\nmtu = 1550"),
        ("link = [\"10.78.0.11\"]", "link = [\"fd78::11\"]"),
        ("link = [\"10.78.0.1\"]", "link = [\"fd78::1\"]"),
    ];
    // 40 + 4 + 20: the IPv6, GRE and link headers.
    expect(TARGET, &v6, &["21: the link's MTU 1550 cannot carry the network's 1500 and 64 of header"]);
}

#[test]
fn ports_are_distributed_once_and_to_nodes_that_can_be_reached() {
    let twice = "distribute = [{ ports = [80], targets = [\"t1\"] }, { ports = \"all\", targets = \"all\" }, ";
    expect(
        ROUTER,
        &[("distribute = [{ ports = [80, \"8000-8999\"], ", &format!("{twice}{{ ports = [90], "))],
        &["47: these ports are distributed already", "47: these ports are distributed already"],
    );
    expect(ROUTER, &[("[\"t1\", \"t2\"]", "[\"t1\", \"t1\"]")], &["47: target `t1` is named twice"]);
    expect(
        ROUTER,
        &[("name = \"t2\"\nlink = [\"10.78.0.12\"]", "name = \"t2\"")],
        &["16: target `t2` has no `link` address"],
    );
    expect(
        ROUTER,
        &[("\"8000-8999\"", "\"8999-8000\"")],
        &["47: `distribute`: `ports`: the range `8999-8000` ends before it begins"],
    );
}

#[test]
fn no_report_ever_shows_a_key() {
    let breakages: &[(&str, &str)] = &[
        ("window = 64", "window = 1"),
        ("name = \"demo\"", "name = \"demo"),
        (KEY_OUT, KEY_IN),
        ("window = 64 }", "window = 64"),
        ("key = \"0001", "key = \"zz0001"),
        ("key = \"0001", "key = 0x0001"),
        ("key = \"0001", "kye = \"0001"),
        ("spi = 0x1001, key", "spi = 0x1001 key"),
        ("a0a1a2a3\", window = 64", "a0a1a2a3, window = 64"),
        ("spi = 0x2001, key = \"1011", "key_file = \"none\", key = \"1011"),
    ];
    for (from, to) in breakages {
        let report = run(&ROUTER.replace(from, to)).unwrap_err();
        for shown in [report.render(false), report.render(true), report.lines().join("\n"), format!("{report:?}")] {
            for part in ["0a0b0c", "1a1b1c", "a0a1a2", "04050607"] {
                assert!(!shown.contains(part), "{from:?} -> {to:?} shows {part}:\n{shown}");
            }
        }
    }
    assert!(!format!("{:?}", run(ROUTER).unwrap()).contains("[0, 1, 2, 3"));
}

#[test]
fn a_short_key_with_blanks_is_masked_too() {
    let report = run(&ROUTER.replace(KEY_IN, "de ad be ef")).unwrap_err().render(false);
    assert!(report.contains("4 bytes, not shown") && !report.contains("ad be"), "{report}");
}

#[test]
fn keys_may_stand_in_files_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.key");
    std::fs::write(&file, format!("{KEY_IN}\n")).unwrap();
    let text = ROUTER.replace(&format!("key = \"{KEY_IN}\""), "key_file = \"in.key\"");
    let path = folder.path().join("px.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let report = check(&path, &text, None).unwrap_err();
    assert!(report.lines()[0].contains("everybody on this machine can get at the key file"), "{report}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = check(&path, &text, None).unwrap().config;
    assert_eq!(config.sas[0].inbound.key.bytes()[..4], [0, 1, 2, 3]);
    std::fs::remove_file(&file).unwrap();
    assert!(check(&path, &text, None).unwrap_err().lines()[0].contains("cannot read the key file"));
}

#[test]
fn keys_in_a_file_that_others_may_read_are_warned_of() {
    let checked = check(Path::new("px.toml"), ROUTER, Some(0o100644)).unwrap();
    let line = "px.toml:55: this file holds keys, and everybody on this machine may read it (chmod 600 the file, or keep keys apart with `key_file`)";
    assert_eq!(checked.config.warnings, [line]);
    assert_eq!(check(Path::new("px.toml"), TARGET, Some(0o100644)).unwrap().config.warnings, [""; 0]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    let report = load(Path::new("/nonexistent/px.toml")).unwrap_err();
    let expected =
        "error: cannot read the configuration: No such file or directory (os error 2)\n--> /nonexistent/px.toml\n\n";
    assert_eq!(report.render(false), expected);
}

#[test]
fn an_empty_file_lacks_its_two_tables() {
    assert_eq!(
        run("").unwrap_err().lines(),
        ["px.toml:1: the file: `node` is missing", "px.toml:1: the file: `cluster` is missing"]
    );
}

proptest::proptest! {
    /// Whatever is cut out of a good file or put into it: a report, never a panic, and no key in it.
    #[test]
    fn no_damage_makes_the_checker_panic_or_talk(at in 0usize..1800, cut in 0usize..40, put in "[\\[\\]{}=\",a-z0-9 \n]{0,6}") {
        let start = at.min(ROUTER.len());
        let end = (start + cut).min(ROUTER.len());
        let text = format!("{}{put}{}", &ROUTER[..start], &ROUTER[end..]);
        if let Err(report) = run(&text) {
            let shown = report.render(false);
            proptest::prop_assert!(!shown.contains("0203040506070809"), "{}", shown);
            proptest::prop_assert!(report.errors() > 0);
        }
    }
}
