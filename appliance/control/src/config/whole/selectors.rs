//! Selectors alone and against each other.

use crate::config::Selectors;
use crate::config::read::{Sink, Span};
use crate::config::report::Problem;
use crate::config::section::{SelectorsDraft, place};
use ipnet::IpNet;

/// Whether the blocks have an address in common.
pub(super) fn meet(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Whether a packet could be of both.
pub(super) fn overlap(a: &Selectors, b: &Selectors) -> bool {
    let protocols = a.protocol.is_none() || b.protocol.is_none() || a.protocol == b.protocol;
    protocols
        && meet(&a.local, &b.local)
        && meet(&a.remote, &b.remote)
        && a.local_ports.overlaps(&b.local_ports)
        && a.remote_ports.overlaps(&b.remote_ports)
}

/// Reports what no packet could ever match. `whole` is what they mean with defaults filled in; whether it is usable is the answer.
pub(super) fn sound(draft: &SelectorsDraft, whole: &Selectors, table: &Span, sink: &Sink) -> bool {
    let mut sound = true;
    for (name, block) in [("local", &draft.local), ("remote", &draft.remote)] {
        let Some(block) = block else { continue };
        if block.value.addr() != block.value.network() {
            let problem = Problem::error(format!("`{name}`: {} has bits behind its prefix length", block.value));
            let (net, host) = (block.value.trunc(), block.value.addr());
            sink.push(
                problem.at(block.span.clone(), "").help(format!("`{net}` is the block, `{host}` the one address")),
            );
        }
    }
    if whole.local.addr().is_ipv4() != whole.remote.addr().is_ipv4() {
        let problem =
            Problem::error(format!("local {} and remote {} are of different families", whole.local, whole.remote));
        sink.push(problem.at(place(&draft.remote, &place(&draft.local, table)), ""));
        sound = false;
    }
    // TCP, UDP, DCCP, SCTP, UDP-Lite: what shows ports.
    let has_ports = whole.protocol.is_none_or(|p| [6, 17, 33, 132, 136].contains(&p));
    for range in [&draft.local_ports, &draft.remote_ports].into_iter().flatten() {
        if !has_ports {
            sink.push(Problem::error("this protocol has no ports").at(range.span.clone(), ""));
            sound = false;
        }
    }
    sound
}
