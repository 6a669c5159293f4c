//! Filters: their tunnels, and what they let out in clear.

use super::known;
use super::selectors::{overlap, sound};
use crate::config::read::Sink;
use crate::config::report::Problem;
use crate::config::section::{ActionDraft, Draft, FilterDraft, SaDraft, place, text};
use crate::config::{Selectors, build};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// Filters of one VIP: what one message to its targets can carry.
const MOST: usize = 16_384;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    too_many(draft, sink);
    for filter in &draft.filters {
        let Some(vip) = &filter.vip else { continue };
        let address = match draft.vips.iter().find(|v| text(&v.name) == Some(&vip.value)) {
            Some(v) => v.address.as_ref().map(|a| a.value.addr()),
            None => {
                known(vip, draft.vips.iter().filter_map(|v| text(&v.name)), "VIP", sink);
                None
            }
        };
        let tunnel = tunnel(draft, filter, sink);
        let Some(address) = address else { continue };
        let selectors = build::filter_selectors(filter, address);
        if !sound(&filter.selectors, &selectors, &filter.span, sink) {
            continue;
        }
        match (tunnel, filter.action.as_ref().map(|a| a.value)) {
            (Some(sa), _) => fits(filter, &selectors, sa, address, sink),
            (None, Some(ActionDraft::Permit)) => clear(draft, filter, &selectors, address, sink),
            _ => {}
        }
    }
}

fn too_many(draft: &Draft, sink: &Sink) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for filter in &draft.filters {
        let Some(vip) = text(&filter.vip) else { continue };
        let count = counts.entry(vip).or_default();
        *count += 1;
        if *count == MOST + 1 {
            let problem =
                Problem::error(format!("VIP `{vip}` has more than {MOST} filters")).at(filter.span.clone(), "");
            sink.push(problem.help("an SA brings its own rule: only what differs from that needs a filter"));
        }
    }
}

/// The SA a `protect` leads to.
fn tunnel<'a>(draft: &'a Draft, filter: &FilterDraft, sink: &Sink) -> Option<&'a SaDraft> {
    let action = filter.action.as_ref()?;
    let Some(name) = &filter.tunnel else {
        if action.value == ActionDraft::Protect {
            let problem = Problem::error("`protect` needs a `tunnel`: the name of an [[sa]]");
            sink.push(problem.at(action.span.clone(), ""));
        }
        return None;
    };
    if action.value != ActionDraft::Protect {
        sink.push(
            Problem::error("only `protect` has a `tunnel`").at(name.span.clone(), "").at(action.span.clone(), "action"),
        );
        return None;
    }
    if !known(name, draft.sas.iter().filter_map(|s| text(&s.name)), "SA", sink) {
        return None;
    }
    let sa = draft.sas.iter().find(|s| text(&s.name) == Some(&name.value))?;
    if sa.vip.is_some() && text(&sa.vip) != text(&filter.vip) {
        let problem = Problem::error(format!("tunnel `{}` is of another VIP", name.value)).at(name.span.clone(), "");
        sink.push(problem.at(place(&sa.vip, &sa.span), "its VIP"));
        return None;
    }
    Some(sa)
}

/// What an SA carries, unless it contradicts itself.
fn whole(sa: &SaDraft, vip: IpAddr) -> Option<Selectors> {
    let whole = build::selectors(&sa.selectors, vip, IpNet::from(sa.peer.as_ref()?.value));
    (whole.local.addr().is_ipv4() == whole.remote.addr().is_ipv4()).then_some(whole)
}

/// What a filter sends into a tunnel must be able to travel through it (R12 at the other end).
fn fits(filter: &FilterDraft, selectors: &Selectors, sa: &SaDraft, vip: IpAddr, sink: &Sink) {
    let Some(carried) = whole(sa, vip) else { return };
    if !overlap(selectors, &carried) {
        let name = text(&sa.name).unwrap_or_default();
        let problem = Problem::error(format!("nothing this filter matches fits the selectors of `{name}`"));
        let problem = problem
            .at(place(&filter.tunnel, &filter.span), "")
            .at(place(&sa.selectors.remote, &sa.span), "its selectors");
        sink.push(problem);
    }
}

/// A `permit` that takes packets an SA is there for (I9).
fn clear(draft: &Draft, filter: &FilterDraft, selectors: &Selectors, vip: IpAddr, sink: &Sink) {
    let same_vip = draft.sas.iter().filter(|s| text(&s.vip) == text(&filter.vip));
    let Some(sa) = same_vip.into_iter().find(|s| whole(s, vip).is_some_and(|w| overlap(selectors, &w))) else { return };
    let name = text(&sa.name).unwrap_or_default();
    let problem = Problem::warning(format!("this permits in clear what tunnel `{name}` is there to protect"));
    sink.push(problem.at(filter.span.clone(), "").at(place(&sa.name, &sa.span), "the tunnel"));
}
