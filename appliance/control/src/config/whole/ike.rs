//! `[ike]`: bounds that contradict each other, and keys that are to be written down.

use crate::config::read::{Sink, Span};
use crate::config::report::Problem;
use crate::config::section::Draft;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    let ike = &draft.ike;
    let Some(section) = &ike.span else { return };
    if draft.vips.is_empty() {
        let problem = Problem::warning("[ike] does nothing here: this node owns no VIP");
        sink.push(problem.at(section.clone(), "").help("routers negotiate; it belongs into their configuration"));
    }
    let at_most = |what: &str, n: usize, span: &Option<Span>, than: &str, most: usize| {
        if let Some(place) = span.clone().filter(|_| n > most) {
            let message = format!("[ike]: `{what}` is {n}, more than `{than}` ({most})");
            sink.push(Problem::error(message).at(place, ""));
        }
    };
    let l = &ike.limits;
    at_most("half_open", l.half_open, &ike.half_open, "sas", l.ike_sas);
    at_most("half_open_per_source", l.half_open_per_source, &ike.half_open_per_source, "half_open", l.half_open);
    at_most("cookie_threshold", l.cookie_threshold, &ike.cookie_threshold, "half_open", l.half_open);
    if let Some(folder) = &ike.key_log {
        // I8: never without being asked for, never without a word about it.
        let message = format!(
            "KEYS ARE WRITTEN DOWN: whoever can read {} can read everything that IKE and its SAs carry, also what was \
             captured before",
            folder.value.display()
        );
        let problem = Problem::warning(message).at(folder.span.clone(), "asked for here");
        sink.push(problem.help("for looking for faults only: take `key_log` out again, and delete the folder"));
    }
}
