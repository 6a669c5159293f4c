//! Links to other processes of this box.

use super::*;

const DEVICE: &str = "net_memif,role=server,id=1,socket=/run/phalanx/link";

/// The router, its targets in processes of the same box.
fn router() -> String {
    let changes = [
        ("name = \"r1\"\nlink = [\"10.78.0.1\"]", "name = \"r1\""),
        ("link = [\"10.78.0.11\"]", "link = [\"memif:link\"]"),
        ("link = [\"10.78.0.12\"]", "link = [\"memif:link2\"]"),
        ("device = \"net_af_packet,iface=eth2\"", &format!("device = \"{DEVICE}\"")),
        ("addresses = [\"10.78.0.1/24\"]\nmtu = 1600\n", "mtu = 1520\n"),
        ("ports = [\"net\", \"link\"", "ports = [\"net\", \"link\", \"link2\""),
    ];
    let mut text = ROUTER.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from:?}");
        text = text.replace(from, to);
    }
    let second = "device = \"net_memif,role=client,socket=/run/phalanx/other\"\nrole = \"link\"\n";
    format!("{text}\n[[port]]\nname = \"link2\"\n{second}")
}

#[test]
fn memif_links_lead_to_nodes_and_have_no_addresses() {
    let config = run(&router()).unwrap_or_else(|report| panic!("{report}")).config;
    assert_eq!(config.warnings, [""; 0]);
    let memifs: Vec<_> = config.cluster.nodes.iter().map(|n| (n.name.as_str(), n.memif, n.links.len())).collect();
    assert_eq!(memifs, [("r1", None, 0), ("t1", Some(1), 0), ("t2", Some(3), 0)]);
    assert_eq!((config.ports[1].mtu, config.ports[3].mtu), (Some(1520), Some(1600)));
    assert_eq!(config.ports[1].device.netdev(), None, "no interface of the host");
}

#[test]
fn a_memif_port_leads_to_exactly_one_node_and_a_node_has_one() {
    let base = router();
    let cases: &[(&str, &str, &str)] = &[
        ("memif:link2", "memif:lnk2", "there is no port `lnk2`"),
        ("memif:link2", "memif:link2\", \"memif:app", "a node is reached over one memif port"),
        ("memif:link2", "memif:net", "port `net` is no memif link"),
        ("memif:link2", "memif:link", "`memif:link` is named twice"),
        ("memif:link2", "10.78.0.12", "no link port of ours leads to 10.78.0.12"),
        ("memif:link2", "10.78.0.12", "no node is at the other end of the memif link `link2`"),
        (
            "name = \"r1\"\n[[cluster",
            "name = \"r1\"\nlink = [\"memif:link2\"]\n[[cluster",
            "this node has no link to itself",
        ),
        ("memif:link2", "memif:li nk", "a name is 1 to 31"),
        ("memif:link2", "mem:link2", "invalid IP address syntax"),
    ];
    for (from, to, line) in cases {
        let found = wrong(&base, &[(from, to)]);
        assert!(found.iter().any(|l| l.contains(line)), "{to}: {found:#?}");
    }
}

#[test]
fn a_memif_link_says_what_its_driver_needs() {
    let base = router();
    let cases: &[(&str, &str, &str)] = &[
        ("role=server,", "", "a memif link needs `role=server` or `role=client`"),
        (",socket=/run/phalanx/link", "", "a memif link needs `socket=`"),
        (",socket=/run/phalanx/link", ",socket=link", "a memif link needs `socket=`"),
        ("id=1", "id=one", "`id=one` is no number"),
        ("/run/phalanx/link", "/run/phalanx/other", "two ports have the socket `/run/phalanx/other`"),
        ("id=1", "socket-abstract=yes", "`socket-abstract` must be `no`"),
        ("id=1", "zero-copy=yes", "`zero-copy` and `bsize` cannot be chosen"),
        ("id=1", "bsize=4096", "`zero-copy` and `bsize` cannot be chosen"),
        ("mtu = 1520", "mtu = 1519", "the link's MTU 1519 cannot carry the network's 1500 and 20 of header"),
        ("mtu = 1520", "mtu = 2031", "a memif link's `mtu` is at most 2030"),
        ("mtu = 1520", "addresses = [\"10.78.0.1/24\"]", "a memif link has no addresses and next hops"),
    ];
    for (from, to, line) in cases {
        let found = wrong(&base, &[(from, to)]);
        assert_eq!(found.len(), 1, "{to}: {found:#?}");
        assert!(found[0].contains(line), "{to}: {found:#?}");
    }
}
