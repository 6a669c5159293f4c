//! A core's private tables, and the questions that stages of both directions ask of them.

use phalanx_ipsec::{Action, FilterTable, ShadowCache, Subject, TunnelName};
use phalanx_wire::{DropReason, VipId};

use crate::config::Limits;
use crate::vips::Vips;

pub(crate) struct Tables {
    pub(crate) vips: Vips,
    pub(crate) cache: ShadowCache,
    pub(crate) filters: Option<Box<FilterTable>>,
}

impl Tables {
    pub(crate) fn new(limits: &Limits) -> Tables {
        let cache = phalanx_ipsec::Limits {
            inbound: limits.inbound,
            outbound: limits.outbound,
            tunnels: limits.inbound + limits.outbound,
        };
        Tables { vips: Vips::new(limits.vips), cache: ShadowCache::new(cache), filters: None }
    }

    /// What a packet came out of must be the tunnel that its filter asks for (RFC 4301 §5.2, step 4).
    ///
    /// Gives the filter's log flag.
    pub(crate) fn permits(&self, vip: VipId, through: &TunnelName, subject: &Subject) -> Result<bool, DropReason> {
        let filter = self.filters.as_ref().and_then(|filters| filters.lookup(vip, subject));
        match filter.map(|filter| (filter.action, filter.log)) {
            Some((Action::Protect(name), log)) if name == *through => Ok(log),
            Some((Action::Protect(_), _)) => Err(DropReason::WrongTunnel),
            Some((Action::Permit | Action::Deny, _)) => Err(DropReason::FilterDeny),
            None => Err(DropReason::NoFilter),
        }
    }

    /// A filter lets this packet pass in clear.
    pub(crate) fn permits_clear(&self, vip: VipId, subject: &Subject) -> bool {
        let filter = self.filters.as_ref().and_then(|filters| filters.lookup(vip, subject));
        filter.is_some_and(|filter| filter.action == Action::Permit)
    }
}
