//! IKE: strongSwan in the client guest negotiates with the router of the VIP, and both targets have the SAs.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::assert_invariants;
use crate::swan::{Connection, PEER, Swan};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
const IKE: Tunnel = Tunnel { peer: PEER, ..Tunnel::PLAIN };

/// New connections, shared by both targets.
fn pages(bed: &Bed, count: usize) {
    let before = [bed.served("t1"), bed.served("t2")];
    let host = bed.host();
    let pages = bed.guest_ok(&format!("curl -sS --max-time 20 'http://{host}/?[1-{count}]' -H 'Connection: close'"));
    assert_eq!(pages.matches("served by").count(), count, "{pages}");
    let served = ["t1", "t2"].map(|target| bed.served(target));
    assert_eq!([served[0] - before[0], served[1] - before[1]], [count / 2, count / 2], "round robin");
}

/// The router's IKE SAs.
fn sas(bed: &Bed) -> Vec<Value> {
    bed.query("r", "ike")["sas"].as_array().cloned().expect("a list")
}

/// The IKE SA with its one child that is up at the router.
fn up(bed: &Bed) -> Option<(Value, Value)> {
    let ike = sas(bed).into_iter().find(|sa| sa["state"] == "established")?;
    let child = ike["children"].as_array()?.iter().find(|child| child["state"] == "up")?.clone();
    Some((ike, child))
}

fn assert_clean(bed: &Bed) {
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    assert_invariants(bed);
}

/// Nobody has an SA any more.
fn wait_gone(bed: &Bed) {
    for node in ["r", "t1", "t2"] {
        wait_until(&format!("no SA is left at {node}"), SOON, || {
            bed.query(node, "sa").as_array().is_some_and(Vec::is_empty)
        });
    }
    wait_until("no IKE SA is left", SOON, || sas(bed).is_empty());
}

/// Nodes, strongSwan, an SA that the client asked for, pages, and the end of it.
fn they_begin(tunnel: Tunnel, connection: Connection) {
    let bed = Bed::up(tunnel);
    let swan = Swan::start(&bed, &connection);
    bed.progress("the client begins");
    swan.initiate();
    let (ike, child) = up(&bed).expect("an IKE SA with a child");
    bed.progress(&format!("{} {} {}", ike["suite"], child["suite"], child["selectors"]));
    assert_eq!((ike["role"].as_str(), ike["peer"].as_str()), (Some("responder"), Some("client")));
    assert_eq!(child["esn"], tunnel.esn, "{child}");
    pages(&bed, 20);
    let size = bed.guest_ok(&format!("curl -sS -o /dev/null -w '%{{size_download}}' http://{}/megabyte", bed.host()));
    assert_eq!(size, "1000000");
    bed.progress("the client ends it");
    swan.ctl_ok("--terminate --ike vip");
    wait_gone(&bed);
    assert_clean(&bed);
}

#[test]
fn a_client_with_a_secret_negotiates_and_both_targets_serve_it() {
    they_begin(IKE, Connection { esp: "aes128gcm16-noesn", ..Connection::PLAIN });
}

#[test]
fn sixty_four_bit_numbers_are_agreed_upon() {
    they_begin(Tunnel { esn: true, ..IKE }, Connection { esp: "aes256gcm16-esn", ..Connection::PLAIN });
}
