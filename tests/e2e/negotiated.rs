//! What the stories about IKE look at: the router's IKE SAs, everybody's SAs, what they carry.

use crate::bed::{Bed, wait_until};
use crate::looks::{NODES, assert_invariants};
use serde_json::Value;
use std::time::Duration;

/// How long a negotiation may take, on a machine that has other things to do.
pub const SOON: Duration = Duration::from_secs(15);

/// Lines of the router's `[[peer]]`: more of the peer, and its child.
macro_rules! peer {
    ($more:expr, $($child:literal),+) => {
        concat!(
            "local_id = \"vip.example\"\nremote_id = \"client.example\"\nsecret = \"swordfish, always\"\n",
            $more,
            "\n[[peer.child]]\nname = \"c\"\n",
            $($child,)+
            "\n"
        )
    };
}
pub(crate) use peer;

/// The router's IKE SAs.
pub fn sas(bed: &Bed) -> Vec<Value> {
    bed.query("r", "ike")["sas"].as_array().cloned().expect("a list")
}

/// An IKE SA with a child that is up at the router.
pub fn up(bed: &Bed) -> Option<(Value, Value)> {
    let ike = sas(bed).into_iter().find(|sa| sa["state"] == "established")?;
    let child = ike["children"].as_array()?.iter().find(|child| child["state"] == "up")?.clone();
    Some((ike, child))
}

/// The same, as soon as it is there.
pub fn wait_up(bed: &Bed) -> (Value, Value) {
    let mut found = None;
    wait_until("an IKE SA and its child are up", SOON, || {
        found = up(bed);
        found.is_some()
    });
    found.expect("it is there")
}

/// What the router says that happened.
pub fn events(bed: &Bed) -> String {
    let events = bed.look("r", &["ike", "events"]);
    let words = events.as_array().expect("a list").iter().filter_map(|event| event["words"].as_str());
    words.collect::<Vec<_>>().join("\n")
}

/// Nobody has anything to complain about.
pub fn assert_clean(bed: &Bed) {
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
    assert_invariants(bed);
}

/// Nobody has an SA any more.
pub fn wait_gone(bed: &Bed) {
    for node in ["r", "t1", "t2"] {
        wait_until(&format!("no SA is left at {node}"), SOON, || {
            bed.query(node, "sa").as_array().is_some_and(Vec::is_empty)
        });
    }
    wait_until("no IKE SA is left", SOON, || sas(bed).is_empty());
}

/// Router and targets have one SA in each direction, sooner or later.
pub fn assert_one_pair(bed: &Bed) {
    for node in NODES {
        wait_until(&format!("{node} has one pair"), SOON, || spis(bed, node).len() == 2);
    }
}

/// The SPIs that a node has, of both directions.
pub fn spis(bed: &Bed, node: &str) -> Vec<String> {
    let rows = bed.query(node, "sa");
    rows.as_array().expect("a list").iter().map(|sa| sa["spi"].as_str().expect("digits").to_owned()).collect()
}
