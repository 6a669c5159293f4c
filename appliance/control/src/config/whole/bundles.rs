//! `within`: AH around ESP (RFC 4301 §4.4.2.1), one SA of each.

use super::known;
use crate::config::read::{At, Sink};
use crate::config::report::Problem;
use crate::config::section::{Draft, SaDraft, place, text};
use crate::config::{Algorithm, PortRange, SaMode};

pub(super) fn check(draft: &Draft, sink: &Sink) {
    for sa in &draft.sas {
        let Some(within) = &sa.within else { continue };
        if is_ah(sa) {
            let problem = Problem::error("AH is around ESP, not around AH").at(within.span.clone(), "");
            sink.push(problem.at(place(&sa.algorithm, &sa.span), "AH"));
            continue;
        }
        if let Some(udp) = sa.natt.udp.as_ref().filter(|udp| udp.value) {
            let problem =
                Problem::error("ESP in UDP cannot be within AH: it covers the very addresses that a NAT changes");
            sink.push(problem.at(within.span.clone(), "").at(udp.span.clone(), "in UDP"));
        }
        if known(within, draft.sas.iter().filter_map(|s| text(&s.name)), "SA", sink)
            && let Some(ah) = around(draft, sa)
        {
            fits(sa, ah, within, sink);
        }
    }
}

/// The SA that this one says it is within.
pub(super) fn around<'a>(draft: &'a Draft, sa: &SaDraft) -> Option<&'a SaDraft> {
    draft.sas.iter().find(|s| text(&s.name).is_some() && text(&s.name) == text(&sa.within))
}

fn is_ah(sa: &SaDraft) -> bool {
    sa.algorithm.as_ref().is_some_and(|algorithm: &At<Algorithm>| algorithm.value.is_ah())
}

/// What is around ESP is AH in transport mode between the same ends, for whatever comes.
fn fits(sa: &SaDraft, ah: &SaDraft, within: &At<String>, sink: &Sink) {
    let name = &within.value;
    let wrong = |message: String, at, label: &'static str| {
        sink.push(Problem::error(message).at(within.span.clone(), "").at(at, label));
    };
    if !is_ah(ah) {
        return wrong(
            format!("`{name}` is no SA of AH: only that goes around another"),
            place(&ah.algorithm, &ah.span),
            "ESP",
        );
    }
    if let Some(mode) = ah.mode.as_ref().filter(|mode| mode.value != SaMode::Transport) {
        wrong(format!("`{name}` is in tunnel mode: AH goes around ESP in transport mode"), mode.span.clone(), "");
    }
    if text(&sa.vip) != text(&ah.vip) {
        wrong(format!("`{name}` is of another VIP"), place(&ah.vip, &ah.span), "");
    }
    if let (Some(ours), Some(theirs)) = (&sa.peer, &ah.peer)
        && ours.value != theirs.value
    {
        wrong(format!("`{name}` has another peer"), theirs.span.clone(), "");
    }
    let selectors = &ah.selectors;
    if let Some(protocol) = selectors.protocol.as_ref().filter(|protocol| protocol.value.is_some()) {
        wrong(format!("`{name}` is for one protocol, and not for ESP"), protocol.span.clone(), "");
    }
    for ports in [&selectors.local_ports, &selectors.remote_ports].into_iter().flatten() {
        if ports.value != PortRange::ALL {
            wrong(format!("`{name}` is for some ports, and ESP has none"), ports.span.clone(), "");
        }
    }
}
