//! A core's private tables, and the questions that stages of both directions ask of them.

use phalanx_ipsec::{Action, FilterTable, Flows, InboundIndex, InboundSa, ShadowCache, Subject, TunnelName};
use phalanx_steering::Ruling;
use phalanx_wire::{DropReason, Protected, Spi, VipId};

use crate::config::Limits;
use crate::logging::{Logged, RuleId};
use crate::vips::Vips;

/// Rules are remembered for so many flows at least.
const FLOWS: usize = 8192;

pub(crate) struct Tables {
    pub(crate) vips: Vips,
    pub(crate) cache: ShadowCache,
    pub(crate) filters: Box<FilterTable>,
}

impl Tables {
    /// `flows`: how many of them rules are remembered for.
    pub(crate) fn new(limits: &Limits, flows: usize) -> Tables {
        let cache = phalanx_ipsec::Limits {
            inbound: limits.inbound,
            outbound: limits.outbound,
            tunnels: limits.inbound + limits.outbound,
        };
        let filters = Box::new(FilterTable::default().remembering(Flows::new(flows.max(FLOWS))));
        Tables { vips: Vips::new(limits.vips), cache: ShadowCache::new(cache), filters }
    }

    /// The inbound SA of ESP.
    #[inline]
    pub(crate) fn esp_sa(&self, vip: VipId, spi: Spi) -> Option<InboundIndex> {
        self.cache.find(vip, &Protected { spi, seq: 0, ah: false })
    }

    /// What the rules say about a packet that came out of a tunnel: it must be the one that its rule asks for (RFC 4301
    /// §5.2, step 4).
    #[inline]
    pub(crate) fn permits(&self, vip: VipId, through: &TunnelName, subject: &Subject) -> Ruled {
        self.ruled(vip, subject, |action| says_of_tunnel(action, through))
    }

    /// As [`Tables::permits`], for a packet that has proved nothing: neither remembered nor logged.
    pub(crate) fn would_permit(&self, vip: VipId, through: &TunnelName, subject: &Subject) -> Result<(), DropReason> {
        let at = self.filters.find_unproved(vip, subject).ok_or(DropReason::NoFilter)?;
        says_of_tunnel(self.filters.filter(at).action, through)
    }

    /// What stays true of a connection once its packets through an SA passed tunnel check and filter: until the SA or the
    /// rules are others. Either number takes hours to come again at 1,000 changes a second; a connection that was silent
    /// for so long is forgotten.
    #[inline]
    pub(crate) fn ruling(&self, sa: &InboundSa) -> Ruling {
        Ruling::new(sa.serial(), self.filters.generation())
    }

    /// The VIP's router does the inbound filter (R14).
    #[inline]
    pub(crate) fn filters_at_router(&self, vip: VipId) -> bool {
        self.vips.by_id(vip).is_some_and(|vip| vip.entry.filter_at_router)
    }

    /// What the rules say about a packet that came in clear.
    pub(crate) fn permits_clear(&self, vip: VipId, subject: &Subject) -> Ruled {
        self.ruled(vip, subject, |action| match action {
            Action::Permit => Ok(()),
            Action::Deny | Action::Protect(_) => Err(DropReason::ClearToVip),
        })
    }

    fn ruled(&self, vip: VipId, subject: &Subject, says: impl FnOnce(Action) -> Result<(), DropReason>) -> Ruled {
        let filters = &self.filters;
        let (Some(at), new) = filters.seek(vip, subject) else { return Ruled::by_nobody() };
        let verdict = says(filters.filter(at).action);
        Ruled { verdict, new, log: logged(filters, at, subject, true, verdict.is_err()) }
    }
}

fn says_of_tunnel(action: Action, through: &TunnelName) -> Result<(), DropReason> {
    match action {
        Action::Protect(name) if name == *through => Ok(()),
        Action::Protect(_) => Err(DropReason::WrongTunnel),
        Action::Permit | Action::Deny => Err(DropReason::FilterDeny),
    }
}

/// What rules said about a packet.
pub(crate) struct Ruled {
    pub(crate) verdict: Result<(), DropReason>,
    /// Its flow is a new one.
    pub(crate) new: bool,
    /// What is to be logged, if the rule says so.
    pub(crate) log: Option<Logged>,
}

impl Ruled {
    fn by_nobody() -> Ruled {
        Ruled { verdict: Err(DropReason::NoFilter), new: false, log: None }
    }

    /// What is to be logged of a packet that belongs to no connection that is followed, or is dropped.
    pub(crate) fn at_first_sight(&self) -> Option<Logged> {
        self.log.filter(|_| self.new)
    }
}

/// The entry that rule `at` asks for.
pub(crate) fn logged(
    filters: &FilterTable,
    at: usize,
    subject: &Subject,
    inbound: bool,
    denied: bool,
) -> Option<Logged> {
    let filter = filters.filter(at);
    let rule = RuleId { vip: filter.vip, rank: filters.rank(at) };
    filter.log.then_some(Logged { rule, subject: *subject, inbound, denied })
}
