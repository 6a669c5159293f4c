//! The rules of all VIPs and SAs on their way to the cores: one table for many changes.
//!
//! A table takes some time per rule to make. When SAs come by the thousand, each with its rule, one table for each of them
//! would take minutes. So those that came since the last whole table stand beside it, in a small one that is made anew
//! ([`FilterTable::extended`]); changes gather for a time that is a multiple of what that took, and whoever waits for one
//! of them waits for that. Now and then, and when rules go or change, a whole table is made, beside the control core, which
//! has leases to hand out meanwhile.

use std::time::{Duration, Instant};

use phalanx_cluster::messages::RankedFilter;
use phalanx_dataplane::Command;
use phalanx_dataplane::command::Refused;
use phalanx_dataplane::command::{Logged, RuleId};
use phalanx_ipsec::{Action, FilterTable, Subject};
use phalanx_wire::{CoreId, VipId};

use super::books::{Change, RuleSource};
use super::brain::{Brain, Input};
use super::cores::Purpose;

/// So much longer than making a table takes, changes gather; and at least so long.
const GATHER: u32 = 4;
const LEAST: Duration = Duration::from_millis(10);
/// Of so many rules at most the control core makes the table itself.
const FEW: usize = 128;
/// The rules that came since may be so many, and one for so many of the others: then the whole table is made.
const NEWER: usize = 256;
const SHARE: usize = 16;

/// What is to be done about rules.
pub struct RulesDue {
    /// The cores' tables are not what the book says...
    stale: bool,
    /// ...and rules went or changed, or VIPs did: only a whole table will do.
    anew: bool,
    /// The next piece of work waits for the table too.
    asked: bool,
    /// Work that waits, by token.
    waiting: Vec<u64>,
    /// The last whole table, and whose rules came since.
    whole: Option<Box<FilterTable>>,
    newer: Vec<RuleSource>,
    /// A whole table is being made, with so many of them.
    making: Option<usize>,
    /// When the next table may be made: one that is extended, and a whole one.
    next: Instant,
    next_whole: Instant,
}

/// A whole table that was made.
pub struct Made {
    table: Box<FilterTable>,
    took: Duration,
    /// The work that waits for it.
    waiting: Vec<u64>,
}

impl RulesDue {
    /// There is nothing to do.
    pub fn new() -> RulesDue {
        let now = Instant::now();
        RulesDue {
            stale: false,
            anew: false,
            asked: false,
            waiting: Vec::new(),
            whole: None,
            newer: Vec::new(),
            making: None,
            next: now,
            next_whole: now,
        }
    }

    /// There are so many new rules that the next whole table had better be made.
    fn many(&self) -> bool {
        self.newer.len() > NEWER + self.whole.as_ref().map_or(0, |whole| whole.count() / SHARE)
    }
}

impl Brain {
    /// Takes rules in. What is submitted next is done when the cores have them.
    pub(super) fn set_rules(&mut self, source: RuleSource, rules: Vec<RankedFilter>) {
        match self.filters.set(source, rules) {
            Change::Nothing => {}
            Change::Came => {
                self.rules_due.newer.push(source);
                (self.rules_due.stale, self.rules_due.asked) = (true, true);
            }
            Change::Changed => self.rules_are_stale(),
        }
    }

    /// Rules, or the VIPs that there are, changed.
    pub(super) fn rules_are_stale(&mut self) {
        let due = &mut self.rules_due;
        (due.stale, due.anew, due.asked) = (true, true, true);
    }

    /// Whether the work that is submitted now is done only with the table: its token is to be noted then.
    pub(super) fn waits_for_rules(&mut self) -> bool {
        let due = &mut self.rules_due;
        if !std::mem::take(&mut due.asked) {
            return false;
        }
        if !due.stale {
            // The table with these rules was sent: a core does things in order. Or it is being made, and one after it will do.
            due.stale = due.making.is_some();
            due.anew |= due.stale;
        }
        due.stale
    }

    /// The token of work that waits.
    pub(super) fn wait_for_rules(&mut self, token: u64) {
        self.rules_due.waiting.push(token);
    }

    /// Has a table made, if it is time.
    pub(super) fn make_rules(&mut self) {
        let (due, now) = (&mut self.rules_due, Instant::now());
        if !due.stale {
            return;
        }
        if due.anew || due.whole.is_none() {
            if due.making.is_none() && now >= due.next_whole {
                (due.stale, due.anew) = (false, false);
                let waiting = std::mem::take(&mut due.waiting);
                self.make_whole(None, waiting);
            }
            return;
        }
        if now < due.next {
            return;
        }
        if due.many() && due.making.is_none() && now >= due.next_whole {
            // None went, and nobody waits for this one. Even to collect thousands of rules takes milliseconds: those of the last
            // table are copied where the next is made.
            let before = due.whole.clone();
            self.make_whole(before, Vec::new());
        }
        self.extend_rules(Vec::new());
    }

    /// The whole table, of what the book says now: of that table's rules, where none went or changed since, and those that came.
    fn make_whole(&mut self, before: Option<Box<FilterTable>>, waiting: Vec<u64>) {
        let (vips, due) = (self.routers_of_vips(), &mut self.rules_due);
        due.making = Some(due.newer.len());
        let mut rules = if before.is_some() { self.filters.from(&due.newer) } else { self.filters.all() };
        let few = before.as_ref().map_or(0, |before| before.count()) + rules.len() <= FEW;
        let make = move || {
            let begun = Instant::now();
            rules.extend(before.iter().flat_map(|before| before.all()));
            let table = Box::new(super::books::table(rules, &vips));
            Made { table, took: begun.elapsed(), waiting }
        };
        if few {
            return self.rules_made(make());
        }
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || drop(inputs.blocking_send(Input::RulesMade(make()))));
    }

    /// The whole table is made.
    pub(super) fn rules_made(&mut self, made: Made) {
        let due = &mut self.rules_due;
        due.newer.drain(..due.making.take().unwrap_or_default());
        due.next_whole = Instant::now() + (made.took * GATHER).max(LEAST);
        due.whole = Some(made.table);
        if due.newer.is_empty() {
            let table = due.whole.clone();
            table.into_iter().for_each(|table| self.give_rules(&table, made.waiting.clone()));
        } else {
            self.extend_rules(made.waiting);
        }
    }

    /// The last whole table with the rules that came since; `waiting` waits for it too.
    fn extend_rules(&mut self, mut waiting: Vec<u64>) {
        let begun = Instant::now();
        let rules = self.filters.from(&self.rules_due.newer);
        let due = &mut self.rules_due;
        let Some(whole) = &due.whole else { return };
        let Some(table) = whole.extended(rules) else {
            due.waiting.append(&mut waiting);
            (due.stale, due.anew) = (true, true);
            return;
        };
        // What waits for rules to go waits on.
        if !due.anew {
            waiting.append(&mut due.waiting);
            due.stale = false;
        }
        due.next = begun + (begun.elapsed() * GATHER).max(LEAST);
        self.give_rules(&table, waiting);
    }

    fn give_rules(&mut self, table: &FilterTable, waiting: Vec<u64>) {
        if table.worst() > phalanx_ipsec::MANY_STEPS {
            let steps = table.worst();
            self.warn(format!("the filters cross each other so often that a packet may take {steps} steps to look up"));
        }
        let cores = self.cores.all();
        let order = |core| (core, Command::SetFilters(Box::new(table.clone())));
        let commands = cores.into_iter().map(order).collect();
        if let Some(finished) = self.cores.submit(Purpose::Rules(waiting), commands) {
            self.finished(finished);
        }
    }

    /// The cores have the table: so does all that waited for it.
    pub(super) fn rules_given(&mut self, waiting: Vec<u64>, result: Result<(), Refused>) {
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
