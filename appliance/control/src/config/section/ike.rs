//! `[ike]`: what bounds the negotiation, whoever the peer.

use super::node::path;
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use phalanx_ike::{Limits, Retransmission};
use std::path::{Path, PathBuf};

#[derive(Default)]
pub(in crate::config) struct IkeDraft {
    /// Where the section stands, if there is one.
    pub span: Option<Span>,
    /// Those that are not said have their defaults.
    pub limits: Limits,
    pub retransmission: Retransmission,
    pub half_open: Option<Span>,
    pub cookie_threshold: Option<Span>,
    pub half_open_per_source: Option<Span>,
    pub key_log: Option<At<PathBuf>>,
}

impl IkeDraft {
    pub fn read(mut f: Fields<'_, '_>, folder: &Path) -> IkeDraft {
        let mut draft = IkeDraft { span: Some(f.span.clone()), ..IkeDraft::default() };
        let l = &mut draft.limits;
        number(&mut f, "sas", 1, 1 << 20, &mut l.ike_sas);
        draft.half_open = number(&mut f, "half_open", 1, 1 << 20, &mut l.half_open);
        draft.cookie_threshold = number(&mut f, "cookie_threshold", 0, 1 << 20, &mut l.cookie_threshold);
        draft.half_open_per_source = number(&mut f, "half_open_per_source", 1, 1 << 20, &mut l.half_open_per_source);
        number(&mut f, "children", 1, 1024, &mut l.children_per_ike);
        number(&mut f, "half_open_ms", 1_000, 600_000, &mut l.half_open_ms);
        number(&mut f, "install_ms", 100, 60_000, &mut l.install_ms);
        number(&mut f, "replaced_ms", 1_000, 600_000, &mut l.replaced_ms);
        let r = &mut draft.retransmission;
        number(&mut f, "retransmit_ms", 50, 60_000, &mut r.first_ms);
        number(&mut f, "retransmit_tries", 0, 16, &mut r.tries);
        draft.key_log = path(&mut f, "key_log", folder);
        // What is not said gives way to what is.
        let l = &mut draft.limits;
        let least = |said: &Option<Span>, n: &mut usize, most: usize| {
            if said.is_none() {
                *n = most.min(*n);
            }
        };
        least(&draft.half_open, &mut l.half_open, l.ike_sas);
        least(&draft.cookie_threshold, &mut l.cookie_threshold, l.half_open);
        least(&draft.half_open_per_source, &mut l.half_open_per_source, l.half_open);
        f.finish();
        draft
    }
}

/// A number between two others, if it is there; where it stands.
fn number<T: TryFrom<u64>>(
    f: &mut Fields<'_, '_>,
    key: &'static str,
    least: u64,
    most: u64,
    to: &mut T,
) -> Option<Span> {
    let n: At<u64> = f.optional(key)?;
    match T::try_from(n.value) {
        Ok(value) if (least..=most).contains(&n.value) => *to = value,
        _ => {
            let problem = Problem::error(format!("[ike]: `{key}` must be {least} to {most}"));
            f.sink().push(problem.at(n.span, ""));
            return None;
        }
    }
    Some(n.span)
}
