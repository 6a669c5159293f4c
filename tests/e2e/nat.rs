//! A client behind a gateway: one that routes, and one that translates addresses.

use crate::bed::{Bed, Gateway, Tunnel};

#[test]
fn pages_come_over_ipv6_through_a_router_in_between() {
    pages(Tunnel { outer: 6, inner: 6, gateway: Gateway::Route { mtu: 1500 }, ..Tunnel::PLAIN });
}

#[test]
fn pages_come_through_a_nat_that_passes_esp() {
    pages(Tunnel { gateway: Gateway::Nat { mtu: 1500 }, ..Tunnel::PLAIN });
}

fn pages(tunnel: Tunnel) {
    let bed = Bed::up(tunnel);
    let host = bed.host();
    let pages = bed.guest_ok(&format!("curl -sS --max-time 10 'http://{host}/?[1-20]' -H 'Connection: close'"));
    assert_eq!(pages.matches("served by").count(), 20, "{pages}");
    assert_eq!((bed.served("t1"), bed.served("t2")), (10, 10), "round robin");
    assert_eq!(bed.xfrm_errors(), [], "the client's kernel has nothing to complain about");
}
