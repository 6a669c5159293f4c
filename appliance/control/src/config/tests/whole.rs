//! What sections say about each other.

use super::*;

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
        ("window = 64", "window = 100", "55: a replay `window` is 32 to 65536 packets, a multiple of 32"),
        ("window = 64", "window = 65537", "55: a replay `window` is 32 to 65536 packets, a multiple of 32"),
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
            "mss_clamp = 535",
            "57: [[sa]]: `mss_clamp` must be \"none\", \"path\" or 536 to 65535",
        ),
        (
            "hard_bytes = 1000000",
            "mss_clamp = \"maybe\"",
            "57: [[sa]]: `mss_clamp` must be \"none\", \"path\" or 536 to 65535",
        ),
        (
            "hard_bytes = 1000000",
            "algorithm = \"des\"",
            "57: [[sa]]: `algorithm`: must be one of aes128-gcm16, aes256-gcm16, chacha20-poly1305, aes128-gcm16-iiv, \
             aes256-gcm16-iiv, chacha20-poly1305-iiv, aes128-gmac, aes256-gmac, aes128-cbc-sha256, aes128-cbc-sha384, \
             aes128-cbc-sha512, aes256-cbc-sha256, aes256-cbc-sha384, aes256-cbc-sha512, null-sha256, null-sha384, \
             null-sha512, ah-hmac-sha256, ah-hmac-sha384, ah-hmac-sha512, ah-aes128-gmac, ah-aes256-gmac",
        ),
    ];
    for (from, to, line) in cases {
        expect(ROUTER, &[(from, to)], &[line]);
    }
}

/// The router with SAs of that algorithm, and keys of so many bytes.
fn with_keys(algorithm: &str, len: usize) -> String {
    ROUTER
        .replace("hard_bytes = 1000000", &format!("algorithm = \"{algorithm}\""))
        .replace(KEY_IN, &"1a".repeat(len))
        .replace(KEY_OUT, &"2b".repeat(len))
}

#[test]
fn every_algorithm_of_esp_takes_keys_of_its_own_length() {
    for algorithm in Algorithm::ESP {
        let config = run(&with_keys(algorithm.name(), algorithm.material_len())).expect("in order").config;
        assert_eq!(config.sas[0].algorithm, algorithm);
        for len in [algorithm.material_len() - 1, algorithm.material_len() + 1] {
            assert!(run(&with_keys(algorithm.name(), len)).is_err(), "{} with {len} bytes", algorithm.name());
        }
    }
}

#[test]
fn a_key_of_another_length_is_refused_with_its_line_and_what_it_is_made_of() {
    let cases = [
        ("chacha20-poly1305", 32, "36 (32 of key and 4 of salt: 72 hex digits)"),
        ("aes-128-gmac", 16, "20 (16 of key and 4 of salt: 40 hex digits)"),
        ("aes256-cbc-sha384", 64, "80 (32 of encryption key and 48 of integrity key: 160 hex digits)"),
        ("null-sha512", 32, "64 (64 of integrity key: 128 hex digits)"),
    ];
    for (written, len, wants) in cases {
        let name = written.replace("aes-128", "aes128");
        let line = |at: usize| format!("{at}: the key has {len} bytes; {name} wants {wants}");
        let mut lines = vec![line(55), line(56)];
        if written.ends_with("gmac") || written.starts_with("null") {
            lines.push(format!("57: {}", encrypts_nothing(&name)));
        }
        expect(&with_keys(written, len), &[], &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn encrypts_nothing(name: &str) -> String {
    format!("{name} encrypts nothing: whoever is on the way can read what goes through")
}

#[test]
fn an_sa_of_esp_that_hides_nothing_is_warned_of_and_one_of_ah_is_not() {
    for algorithm in Algorithm::ESP {
        let checked = run(&with_keys(algorithm.name(), algorithm.material_len())).expect("a warning is no error");
        let line = format!("px.toml:57: {}", encrypts_nothing(algorithm.name()));
        let clear = algorithm.name().ends_with("gmac") || algorithm.name().starts_with("null");
        assert_eq!(checked.config.warnings, if clear { vec![line] } else { vec![] });
    }
    assert!(run(&with_keys("ah-hmac-sha256", 32)).unwrap().config.warnings.is_empty());
}

#[test]
fn tables_have_room_for_one_and_for_no_more_than_memory_could_hold() {
    let text = format!("{ROUTER}\n[limits]\nconnections_per_peer = 0\npeers = 1048577\n");
    let lines =
        ["66: [limits]: `connections_per_peer` must be 1 to 16777216", "67: [limits]: `peers` must be 1 to 1048576"];
    expect(&text, &[], &lines);
    let limits = |more: &str| {
        let text = format!("{ROUTER}\n[limits]\n{more}");
        run(&text).expect("in order").config.limits
    };
    let (few, many) = (limits(""), limits("sas = 100000\nconnections_per_peer = 1000000\n"));
    assert_eq!((few.connections_per_peer, few.peers), (65_536, 4_096));
    assert_eq!((many.connections_per_peer, many.peers), (1_000_000, 50_000));
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
    let once = "distribute = [{ ports = [80], targets = [\"t1\"], protocol = \"udp\" }, ";
    let again = |protocol: &str| format!("{once}{{ protocol = \"{protocol}\", ports = [80, \"8000-8999\"], ");
    let entry = "distribute = [{ ports = [80, \"8000-8999\"], ";
    expect(ROUTER, &[(entry, &again("tcp"))], &[]);
    expect(ROUTER, &[(entry, &again("both"))], &["47: these ports are distributed already"]);
    let wrong = "47: `distribute`: `protocol` must be one of `tcp`, `udp` or `both` (did you mean `tcp`?)";
    expect(ROUTER, &[(entry, &again("tpc"))], &[wrong]);
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
fn distribution_has_bounds() {
    let ports: Vec<String> = (0..17).map(|n| (9000 + 2 * n).to_string()).collect();
    let help = "put the others into another entry with the same targets";
    let line = format!("47: `ports` has at most 16 ports and ranges ({help})");
    expect(ROUTER, &[("80, \"8000-8999\"", &ports.join(", "))], &[&line]);
    expect(ROUTER, &[("80, \"8000-8999\"", &ports[1..].join(", "))], &[]);
    let entries: Vec<String> = ports.iter().map(|port| format!("{{ ports = [{port}], targets = [\"t1\"] }}")).collect();
    let entry = "{ ports = [80, \"8000-8999\"], targets = [\"t1\", \"t2\"] }";
    expect(ROUTER, &[(entry, &entries.join(", "))], &["47: `distribute` has at most 16 entries"]);
    expect(ROUTER, &[(entry, &entries[1..].join(", "))], &[]);
    let node = "[[cluster.node]]\nname = \"t1\"\n";
    let nodes: String =
        (1..=30).map(|n| format!("[[cluster.node]]\nname = \"n{n}\"\nlink = [\"10.78.0.{}\"]\n", 100 + n)).collect();
    let many = [(node, &*format!("{nodes}{node}")), (entry, "{ ports = \"all\", targets = \"all\" }")];
    expect(ROUTER, &many, &["137: a VIP has at most 32 targets, these are 33"]);
}

#[test]
fn a_cipher_kernel_is_one_that_there_is_and_none_is_the_best() {
    let forced = |kernel: &str| format!("name = \"r1\"\ncipher_kernel = \"{kernel}\"\n\n[cluster]");
    let kernel =
        |text: &str| run(&ROUTER.replace("name = \"r1\"\n\n[cluster]", text)).unwrap().config.node.cipher_kernel;
    assert_eq!(kernel(&forced("portable")), Some(Kernel::Portable));
    assert_eq!(kernel(&forced("auto")), None);
    assert_eq!(run(ROUTER).unwrap().config.node.cipher_kernel, None);
    let mistake = "3: [node]: `cipher_kernel` must be one of `auto`, `portable`, `aes-ni`, `vaes-avx2` or `vaes-avx512` \
                   (did you mean `vaes-avx512`?)";
    expect(ROUTER, &[("name = \"r1\"\n\n[cluster]", &forced("vaes-avx521"))], &[mistake]);
}

#[test]
fn an_sa_of_ah_has_keys_of_its_algorithm_without_a_salt_and_spis_of_its_own() {
    let ah = |name: &str, len: usize| {
        let text = ROUTER.replace("hard_bytes = 1000000", &format!("algorithm = \"{name}\""));
        text.replace(KEY_IN, &"a1".repeat(len)).replace(KEY_OUT, &"b2".repeat(len))
    };
    for (name, len) in [
        ("ah-hmac-sha256", 32),
        ("ah-hmac-sha-384", 48),
        ("ah-hmac-sha512", 64),
        ("ah-aes-128-gmac", 20),
        ("ah-aes256-gmac", 36),
    ] {
        assert!(run(&ah(name, len)).unwrap().config.sas[0].algorithm.is_ah());
    }
    let wants = "the key has 20 bytes; ah-hmac-sha256 wants 32 (32 of integrity key: 64 hex digits)";
    expect(&ah("ah-hmac-sha256", 20), &[], &[&format!("55: {wants}"), &format!("56: {wants}")]);
}
