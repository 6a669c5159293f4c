//! Every check, with the exact lines a user sees.

mod bundles;
mod ike;
mod memif;
mod natt;
mod peers;
mod whole;

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
    assert_eq!(config.node.metrics, None);
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
            "55: a replay `window` is 32 to 65536 packets, a multiple of 32",
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
        ("spi = 0x1001, key =", "spi ="),
        ("spi = 0x2001, key = \"1011", "key_file = \"none\", key = \"1011"),
    ];
    for (from, to) in breakages {
        let report = run(&ROUTER.replace(from, to)).unwrap_err();
        for part in ["0a0b0c", "1a1b1c", "a0a1a2", "04050607"] {
            assert!(!all_of(&report).contains(part), "{from:?} -> {to:?} shows {part}:\n{report}");
        }
    }
    assert!(!format!("{:?}", run(ROUTER).unwrap()).contains("[0, 1, 2, 3"));
}

/// Everything that can be made from a report.
fn all_of(report: &Report) -> String {
    [report.render(false), report.render(true), report.lines().join("\n"), format!("{report:?}")].join("\n")
}

#[test]
fn a_key_under_any_other_name_is_not_shown_either() {
    let peers =
        "[[peer]]\nname = \"branch\"\nvip = \"web\"\nremote = \"10.77.0.20\"\nsecret = \"s\"\nencryption = [\"x\"]\n";
    let text = format!("{ROUTER}{peers}");
    let values: Vec<_> = text.match_indices(" = ").map(|(at, sign)| at + sign.len()).collect();
    assert!(values.len() > 50);
    for start in values {
        let end = start + text[start..].find([',', '\n', '}']).unwrap();
        let wrong = format!("{}\"{KEY_OUT}\"{}", &text[..start], &text[end..]);
        let Err(report) = run(&wrong) else { continue };
        assert!(!all_of(&report).contains(KEY_OUT), "{report}");
    }
}

#[test]
fn a_misspelt_secret_is_one_still() {
    let peer = "[[peer]]\nname = \"branch\"\nvip = \"web\"\nremote = \"10.77.0.20\"\nsecert = \"swordfish, always\"\n";
    let report = run(&format!("{ROUTER}{peer}")).unwrap_err();
    assert!(report.to_string().contains("did you mean `secret`?") && !all_of(&report).contains("fish"), "{report}");
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
    let line = "px.toml:55: this file holds keys, and everybody on this machine may read it (chmod 600 the file, or keep keys apart with `key_file` and `secret_file`)";
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
            proptest::prop_assert!(!all_of(&report).contains("0203040506070809"), "{}", report);
            proptest::prop_assert!(report.errors() > 0);
        }
    }
}

/// A file of the repository.
fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_examples_are_in_order() {
    let router = run(&document("examples/router.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(router.config.sas.len(), 1);
    // The VIP is the only thing a target must not have.
    let target = run(&document("examples/target.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((router.config.warnings, target.config.warnings), (vec![], vec![]));
}

#[test]
fn the_reference_names_every_key() {
    let reference = document("CONFIGURATION.md");
    let known = [ROUTER, &document("examples/router.toml"), &document("examples/target.toml")].join("\n");
    let keys = known.lines().filter_map(|l| l.split_once('=')).map(|(key, _)| key.trim()).filter(|k| !k.contains(' '));
    for key in keys.filter(|k| !k.starts_with('#') && !k.is_empty()) {
        assert!(reference.contains(&format!("`{key}")), "docs/CONFIGURATION.md lacks `{key}`");
    }
}
