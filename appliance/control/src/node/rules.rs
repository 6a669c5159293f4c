//! The rules of all VIPs and SAs on their way to the cores: one table for many changes.
//!
//! A table takes some microseconds per rule to make. When SAs come by the thousand, each with its rule, one table for
//! each of them would take minutes: so changes gather for a time that is a multiple of what the last table took, and
//! whoever waits for one of them waits for that.

use std::time::{Duration, Instant};

use phalanx_cluster::messages::RankedFilter;
use phalanx_dataplane::Command;
use phalanx_dataplane::command::Refused;
use phalanx_dataplane::command::{Logged, RuleId};
use phalanx_ipsec::{Action, Subject};
use phalanx_wire::{CoreId, VipId};

use super::books::RuleSource;
use super::brain::Brain;
use super::cores::Purpose;

/// So much longer than making a table takes, changes gather.
const GATHER: u32 = 4;

/// What is to be done about rules.
pub struct RulesDue {
    /// The cores' tables are not what the book says.
    stale: bool,
    /// The next piece of work waits for the table too.
    asked: bool,
    /// Work that waits, by token.
    waiting: Vec<u64>,
    /// When the last table was made, and how long that took.
    made: Instant,
    took: Duration,
}

impl RulesDue {
    /// There is nothing to do.
    pub fn new() -> RulesDue {
        RulesDue { stale: false, asked: false, waiting: Vec::new(), made: Instant::now(), took: Duration::ZERO }
    }
}

impl Brain {
    /// Takes rules in. What is submitted next is done when the cores have them.
    pub(super) fn set_rules(&mut self, source: RuleSource, rules: Vec<RankedFilter>) {
        if self.filters.set(source, rules) {
            self.rules_are_stale();
        }
    }

    /// Rules, or the VIPs that there are, changed.
    pub(super) fn rules_are_stale(&mut self) {
        (self.rules_due.stale, self.rules_due.asked) = (true, true);
    }

    /// Whether the work that is submitted now is done only with the table: its token is to be noted then.
    pub(super) fn waits_for_rules(&mut self) -> bool {
        std::mem::take(&mut self.rules_due.asked)
    }

    /// The token of work that waits.
    pub(super) fn wait_for_rules(&mut self, token: u64) {
        self.rules_due.waiting.push(token);
    }

    /// Makes the table and sends it, if it is time.
    pub(super) fn make_rules(&mut self) {
        let due = &mut self.rules_due;
        if !due.stale || due.made.elapsed() < due.took * GATHER {
            return;
        }
        let waiting = std::mem::take(&mut due.waiting);
        let begun = Instant::now();
        let vips = self.routers_of_vips();
        let table = self.filters.table(&vips);
        let due = &mut self.rules_due;
        (due.stale, due.made, due.took) = (false, Instant::now(), begun.elapsed());
        if table.worst() > phalanx_ipsec::MANY_STEPS {
            let steps = table.worst();
            self.warn(format!("the filters cross each other so often that a packet may take {steps} steps to look up"));
        }
        let cores = self.cores.all();
        let order = |core| (core, Command::SetFilters(Box::new(table.clone())));
        let commands = cores.into_iter().map(order).collect();
        self.submit(Purpose::Rules(waiting), commands);
    }

    /// The cores have the table: so does all that waited for it.
    pub(super) fn rules_made(&mut self, waiting: Vec<u64>, result: Result<(), Refused>) {
        for token in waiting {
            if let Some(finished) = self.cores.release(token, result) {
                self.finished(finished);
            }
        }
    }

    /// One line for a connection or flow whose rule asks for it (R16).
    pub(super) fn log_by_rule(&self, core: CoreId, logged: &Logged) {
        let RuleId { vip, rank } = logged.rule;
        // A rule that is gone by now has no name any more.
        let rule = self.filters.find(vip, rank);
        let name = rule.and_then(|rule| rule.name.as_deref().map(str::to_owned)).unwrap_or_else(|| format!("#{rank}"));
        let action = match rule.map(|rule| rule.filter.action) {
            _ if logged.denied => "deny".to_owned(),
            Some(Action::Protect(tunnel)) => format!("protect {tunnel}"),
            Some(Action::Permit) => "permit".to_owned(),
            Some(Action::Deny) | None => "gone".to_owned(),
        };
        let vip = self.vips.get(&vip).map_or_else(|| vip.0.to_string(), |state| state.entry.address.to_string());
        let Subject { local, remote, protocol, local_port, remote_port } = logged.subject;
        let end = |address: std::net::IpAddr, port: Option<u16>| match port {
            Some(port) => std::net::SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        let (local, remote) = (end(local, local_port), end(remote, remote_port));
        let way = if logged.inbound { "in" } else { "out" };
        tracing::info!(
            target: "phalanx::rule", rule = %name, %action, way, %vip, %local, %remote, protocol, core = core.0, "logged by rule"
        );
    }

    /// All VIPs, each with a number of its router: those of one router share their rules.
    fn routers_of_vips(&self) -> Vec<(VipId, usize)> {
        let number = |name: &str| self.routers.keys().position(|router| **router == *name).map_or(0, |at| at + 1);
        self.vips.iter().map(|(vip, state)| (*vip, number(self.router_of(state)))).collect()
    }
}
