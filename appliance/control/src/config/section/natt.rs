//! What an `[[sa]]` says about NATs.

use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use std::net::IpAddr;

/// Without traffic for so long a NAT's mapping may go: RFC 3948 §4 has a keepalive every 20 seconds.
pub(in crate::config) const KEEPALIVE_S: u32 = 20;

pub(in crate::config) struct NattDraft {
    /// Whether it is in UDP.
    pub udp: Option<At<bool>>,
    pub peer_port: Option<At<u16>>,
    pub original: Option<OriginalDraft>,
    pub nat_keepalive: Option<At<u32>>,
}

pub(in crate::config) struct OriginalDraft {
    pub span: Span,
    pub local: Option<At<IpAddr>>,
    pub remote: Option<At<IpAddr>>,
}

impl NattDraft {
    pub fn read(f: &mut Fields<'_, '_>) -> NattDraft {
        let draft = NattDraft {
            udp: f.choice("encapsulation", &[("none", false), ("udp", true)]),
            peer_port: f.optional("peer_port"),
            original: f.table("original", "`original` of [[sa]]").map(OriginalDraft::read),
            nat_keepalive: f.optional("nat_keepalive"),
        };
        if let Some(port) = draft.peer_port.as_ref().filter(|port| port.value == 0) {
            f.sink().push(Problem::error("[[sa]]: `peer_port` must be 1 to 65535").at(port.span.clone(), ""));
        }
        if let Some(pause) = draft.nat_keepalive.as_ref().filter(|pause| pause.value > 3600) {
            let problem = Problem::error("[[sa]]: `nat_keepalive` must be 0 (never) to 3600 seconds");
            f.sink().push(problem.at(pause.span.clone(), ""));
        }
        draft
    }

    pub fn is_udp(&self) -> bool {
        self.udp.as_ref().is_some_and(|udp| udp.value)
    }
}

impl OriginalDraft {
    fn read(mut f: Fields<'_, '_>) -> OriginalDraft {
        let draft =
            OriginalDraft { span: f.span.clone(), local: f.parsed("local"), remote: f.required_parsed("remote") };
        f.finish();
        draft
    }
}
