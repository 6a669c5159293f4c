//! SAs in UDP: what belongs to that, and what transport mode needs then.

use crate::config::SaMode;
use crate::config::read::Sink;
use crate::config::report::Problem;
use crate::config::section::{SaDraft, VipDraft, place};

pub(super) fn check(sa: &SaDraft, vip: &VipDraft, sink: &Sink) {
    let natt = &sa.natt;
    if !natt.is_udp() {
        let given = [
            ("peer_port", natt.peer_port.as_ref().map(|p| p.span.clone())),
            ("original", natt.original.as_ref().map(|o| o.span.clone())),
            ("nat_keepalive", natt.nat_keepalive.as_ref().map(|k| k.span.clone())),
        ];
        for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let problem = Problem::error(format!("`{key}` is for ESP in UDP")).at(span, "");
            sink.push(problem.help("add encapsulation = \"udp\""));
        }
        return;
    }
    if let Some(algorithm) = sa.algorithm.as_ref().filter(|algorithm| algorithm.value.is_ah()) {
        // RFC 3948 §1.
        let problem = Problem::error("AH cannot travel in UDP: it covers the very addresses that a NAT changes");
        sink.push(problem.at(algorithm.span.clone(), "AH").at(place(&natt.udp, &sa.span), "in UDP"));
    }
    match (sa.mode.as_ref().map(|mode| mode.value), &natt.original) {
        (Some(SaMode::Tunnel), Some(original)) => {
            let problem = Problem::error("`original` is for transport mode: what is in a tunnel stays as it is");
            sink.push(problem.at(original.span.clone(), ""));
        }
        (Some(SaMode::Transport), None) => {
            // RFC 3948 §3.1.2.
            let problem = Problem::error("transport mode in UDP needs `original`: checksums inside are made over it");
            let problem = problem.at(place(&natt.udp, &sa.span), "");
            sink.push(problem.help("original = { remote = \"the peer's own address\" }"));
        }
        _ => {}
    }
    let Some(address) = &vip.address else { return };
    let ends = natt.original.iter().flat_map(|original| [&original.local, &original.remote]).flatten();
    for end in ends.filter(|end| end.value.is_ipv4() != address.value.addr().is_ipv4()) {
        let message = format!("{} and the VIP {} are of different families", end.value, address.value.addr());
        sink.push(Problem::error(message).at(end.span.clone(), "").at(address.span.clone(), "the VIP"));
    }
}
