//! The poll cores as control sees them: orders out, answers gathered.
//!
//! One order may go to several cores; its [`Purpose`] comes back when all have answered. A core whose queue is full gets
//! its commands later, in order: nothing is lost and control never waits.

use std::collections::{HashMap, VecDeque};

use phalanx_cluster::messages::{ConnRecord, NodeName};
use phalanx_dataplane::command::{Order, Outcome, Refused};
use phalanx_dataplane::{Command, CommandSender};
use phalanx_wire::CoreId;

/// Who waits for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The router's own installation with that request number.
    Router(u64),
    /// A target's installation: the router that asked, and its request number.
    Target(NodeName, u64),
    /// A node that opens a connection, as it asked for it.
    Connection(NodeName, ConnRecord),
    /// Nobody; a refusal is logged with this word.
    Nobody(&'static str),
    /// Work that waits for the table of rules, by token.
    Rules(Vec<u64>),
}

/// All cores have answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// Who waited.
    pub purpose: Purpose,
    /// The first refusal, if there was one.
    pub result: Result<(), Refused>,
}

struct Group {
    purpose: Purpose,
    waiting: usize,
    result: Result<(), Refused>,
}

struct Core {
    id: CoreId,
    router: bool,
    target: bool,
    sender: CommandSender,
    /// Orders that did not fit the queue yet.
    backlog: VecDeque<Order>,
}

/// The command side of the data plane.
pub struct Cores {
    cores: Vec<Core>,
    groups: HashMap<u64, Group>,
    next: u64,
}

impl Cores {
    /// Each core with its roles (router, target) and its command queue.
    pub fn new(cores: impl IntoIterator<Item = (CoreId, bool, bool, CommandSender)>) -> Cores {
        let core = |(id, router, target, sender)| Core { id, router, target, sender, backlog: VecDeque::new() };
        Cores { cores: cores.into_iter().map(core).collect(), groups: HashMap::new(), next: 1 }
    }

    /// All cores.
    pub fn all(&self) -> Vec<CoreId> {
        self.cores.iter().map(|c| c.id).collect()
    }

    /// The core that steers. One router core owns all windows of the node's VIPs.
    pub fn router(&self) -> Option<CoreId> {
        self.cores.iter().find(|c| c.router).map(|c| c.id)
    }

    /// The cores that serve.
    pub fn targets(&self) -> Vec<CoreId> {
        self.cores.iter().filter(|c| c.target).map(|c| c.id).collect()
    }

    /// Sends commands as one piece of work. With no command at all it is finished at once.
    pub fn submit(&mut self, purpose: Purpose, commands: Vec<(CoreId, Command)>) -> Option<Finished> {
        if commands.is_empty() {
            return Some(Finished { purpose, result: Ok(()) });
        }
        let waiting = commands.len();
        self.send(purpose, commands, waiting);
        None
    }

    /// As [`Cores::submit`], but it is not finished before [`Cores::release`] names the number returned.
    pub fn submit_held(&mut self, purpose: Purpose, commands: Vec<(CoreId, Command)>) -> u64 {
        let waiting = commands.len() + 1;
        self.send(purpose, commands, waiting)
    }

    fn send(&mut self, purpose: Purpose, commands: Vec<(CoreId, Command)>, waiting: usize) -> u64 {
        let token = self.next;
        self.next += 1;
        self.groups.insert(token, Group { purpose, waiting, result: Ok(()) });
        for (core, command) in commands {
            self.order(core, Order { token, command });
        }
        token
    }

    /// What held a piece of work is over.
    pub fn release(&mut self, token: u64, result: Result<(), Refused>) -> Option<Finished> {
        self.one_less(token, result)
    }

    /// Sends a command that is not answered, or whose answer nobody waits for.
    pub fn tell(&mut self, core: CoreId, command: Command) {
        self.order(core, Order { token: 0, command });
    }

    /// Sends a command whose answer is an event of its own kind, named by the number returned.
    pub fn ask(&mut self, core: CoreId, command: Command) -> u64 {
        let token = self.next;
        self.next += 1;
        self.order(core, Order { token, command });
        token
    }

    /// A core answered.
    pub fn done(&mut self, core: CoreId, token: u64, result: Result<Outcome, Refused>) -> Option<Finished> {
        if let (Err(refused), false) = (result, self.groups.contains_key(&token)) {
            tracing::debug!(core = core.0, %refused, "a command was refused");
        }
        self.one_less(token, result.map(|_| ()))
    }

    fn one_less(&mut self, token: u64, result: Result<(), Refused>) -> Option<Finished> {
        let group = self.groups.get_mut(&token)?;
        if let Err(refused) = result {
            group.result = group.result.and(Err(refused));
        }
        group.waiting -= 1;
        if group.waiting > 0 {
            return None;
        }
        let Group { purpose, result, .. } = self.groups.remove(&token)?;
        Some(Finished { purpose, result })
    }

    /// Sends what did not fit before.
    pub fn flush(&mut self) {
        for core in &mut self.cores {
            while let Some(order) = core.backlog.pop_front() {
                let Order { token, command } = order;
                if let Err(command) = core.sender.try_send(token, command) {
                    core.backlog.push_front(Order { token, command });
                    break;
                }
            }
        }
    }

    fn order(&mut self, id: CoreId, order: Order) {
        let Some(core) = self.cores.iter_mut().find(|c| c.id == id) else { return };
        // Order is kept: behind a backlog nothing may overtake.
        if !core.backlog.is_empty() {
            core.backlog.push_back(order);
        } else if let Err(command) = core.sender.try_send(order.token, order.command) {
            core.backlog.push_back(Order { token: order.token, command });
        }
    }
}
