//! Filters: the SPD as an ordered list, first match decides (RFC 4301 §4.4.1, R4, R16, R17).

use phalanx_wire::VipId;
use serde::{Deserialize, Serialize};

use crate::cache::{ShadowCache, TunnelIndex};
use crate::{IpsecError, Selectors, Subject, TunnelName};

/// What happens to a packet that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Pass in clear.
    Permit,
    /// Drop.
    Deny,
    /// Only through this tunnel's SAs, in both directions.
    Protect(TunnelName),
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Whose packets.
    pub vip: VipId,
    /// Which of them.
    pub selectors: Selectors,
    /// What to do.
    pub action: Action,
    /// Log the connection (R16).
    pub log: bool,
}

/// The rules of one core in order. Replaced as a whole, never changed in place.
#[derive(Clone, Debug, Default)]
pub struct FilterTable {
    filters: Vec<Filter>,
    tunnels: Vec<Option<TunnelIndex>>,
}

impl FilterTable {
    /// Rules in the order in which they are tried.
    #[must_use]
    pub fn new(filters: Vec<Filter>) -> FilterTable {
        let tunnels = vec![None; filters.len()];
        FilterTable { filters, tunnels }
    }

    /// Looks the tunnel names up once, so that a packet finds its outbound SA by a number.
    ///
    /// A core does this when it gets the table; the indexes are the core's own.
    ///
    /// # Errors
    /// [`IpsecError::TableFull`] when the cache knows its limit of tunnels; the rule then has no tunnel index.
    pub fn bind(&mut self, cache: &mut ShadowCache) -> Result<(), IpsecError> {
        for (filter, tunnel) in self.filters.iter().zip(&mut self.tunnels) {
            if let Action::Protect(name) = filter.action {
                *tunnel = Some(cache.intern(filter.vip, name)?);
            }
        }
        Ok(())
    }

    /// The first rule of this VIP that matches.
    #[must_use]
    pub fn lookup(&self, vip: VipId, subject: &Subject) -> Option<&Filter> {
        self.find(vip, subject).map(|at| &self.filters[at])
    }

    /// The index of the first rule that matches, for [`FilterTable::tunnel`].
    #[must_use]
    pub fn find(&self, vip: VipId, subject: &Subject) -> Option<usize> {
        self.find_of(|of| of == vip, subject)
    }

    /// As [`FilterTable::find`], among the rules of all VIPs that `of` names.
    #[must_use]
    pub fn find_of(&self, of: impl Fn(VipId) -> bool, subject: &Subject) -> Option<usize> {
        self.filters.iter().position(|f| of(f.vip) && f.selectors.matches(subject))
    }

    /// The tunnel that rule `at` leads to, once bound.
    #[must_use]
    pub fn tunnel(&self, at: usize) -> Option<TunnelIndex> {
        self.tunnels.get(at).copied().flatten()
    }

    /// All rules in order.
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Limits, PortRange, Prefix};

    fn rule(vip: u16, port: Option<u16>, action: Action) -> Filter {
        let mut selectors = Selectors::between("10.77.0.100".parse().unwrap(), Prefix::ANY_V4);
        selectors.local_ports = port.map_or(PortRange::ANY, PortRange::one);
        Filter { vip: VipId(vip), selectors, action, log: false }
    }

    fn to_port(port: u16) -> Subject {
        Subject {
            local: "10.77.0.100".parse().unwrap(),
            remote: "10.99.0.10".parse().unwrap(),
            protocol: 6,
            local_port: Some(port),
            remote_port: Some(40000),
        }
    }

    #[test]
    fn the_first_match_of_the_right_vip_decides() {
        let tunnel = TunnelName::new("client").unwrap();
        let table = FilterTable::new(vec![
            rule(2, None, Action::Permit),
            rule(1, Some(22), Action::Deny),
            rule(1, None, Action::Protect(tunnel)),
        ]);
        assert_eq!(table.lookup(VipId(1), &to_port(22)).unwrap().action, Action::Deny);
        assert_eq!(table.lookup(VipId(1), &to_port(80)).unwrap().action, Action::Protect(tunnel));
        assert_eq!(table.lookup(VipId(3), &to_port(80)), None);
    }

    #[test]
    fn binding_gives_rules_of_one_tunnel_one_index() {
        let [a, b] = ["a", "b"].map(|n| Action::Protect(TunnelName::new(n).unwrap()));
        let mut table = FilterTable::new(vec![rule(1, Some(1), a), rule(1, Some(2), b), rule(1, Some(3), a)]);
        let mut cache = ShadowCache::new(Limits { inbound: 1, outbound: 1, tunnels: 2 });
        table.bind(&mut cache).unwrap();
        assert_eq!(table.tunnel(0), table.tunnel(2));
        assert_ne!(table.tunnel(0), table.tunnel(1));
        let mut one_more = FilterTable::new(vec![rule(2, None, a)]);
        assert!(matches!(one_more.bind(&mut cache), Err(IpsecError::TableFull { .. })));
    }
}
