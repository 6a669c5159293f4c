//! The lease protocol as a model, every interleaving of it checked: two targets, requests and replies that are lost,
//! repeated and delayed, retries, restarts of the router and of a target. What it shows of the design, `leases.rs` shows
//! of the code.
//!
//! Time is abstract. A block is *fresh* until it has aged; a target may use it and a router counts it as live only while
//! it is. A router that restarted hands out nothing while blocks of an earlier boot are fresh: that is its quiet time.

use std::collections::BTreeSet;

use stateright::{Checker, Model, Property};

/// The peer's window, the largest block and the size of a grant: small, but with room for every case.
const WINDOW: u8 = 4;
const BLOCK: u8 = 2;
const GRANT: u8 = 4;
const TARGETS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Request { target: usize, boot: u8, nonce: u8, router: u8, done_below: u8 },
    Reply { target: usize, boot: u8, nonce: u8, router: u8, first: u8, end: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Router {
    boot: u8,
    /// What is left of its grant.
    next: u8,
    end: u8,
    /// Per target: its boot as attached, and the highest nonce seen.
    seen: [(u8, u8); TARGETS],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Target {
    boot: u8,
    router: u8,
    nonce: u8,
    waiting: bool,
    /// The block it uses: its first number, the next one, its end.
    lease: Option<(u8, u8, u8)>,
    had_below: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Fresh {
    first: u8,
    /// Below this its holder sends nothing more, as far as the router knows.
    low: u8,
    end: u8,
    target: usize,
    router: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    store: u8,
    router: Router,
    targets: [Target; TARGETS],
    net: BTreeSet<Message>,
    fresh: BTreeSet<Fresh>,
    used: BTreeSet<u8>,
    /// Crashes, losses and repetitions so far.
    faults: u8,
    twice: bool,
    late: bool,
    outside: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Ask(usize),
    Deliver(Message),
    /// Delivered, and it will come again.
    Repeat(Message),
    Lose(Message),
    Use(usize),
    Age(Fresh),
    RouterCrash,
    TargetCrash(usize),
    Attach(usize),
}

/// Bounds of what is explored.
struct Leases {
    numbers: u8,
    nonces: u8,
    faults: u8,
    messages: usize,
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { store: 1, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, target) in state.targets.iter().enumerate() {
            if target.nonce < self.nonces && state.net.len() < self.messages {
                actions.push(Action::Ask(at));
            }
            if target.lease.is_some_and(|(_, next, end)| next < end) {
                actions.push(Action::Use(at));
            }
            if target.router != state.router.boot || state.router.seen[at].0 != target.boot {
                actions.push(Action::Attach(at));
            }
            if state.faults < self.faults {
                actions.push(Action::TargetCrash(at));
            }
        }
        if state.faults < self.faults {
            actions.push(Action::RouterCrash);
        }
        for message in &state.net {
            actions.push(Action::Deliver(*message));
            if state.faults < self.faults {
                actions.push(Action::Repeat(*message));
                actions.push(Action::Lose(*message));
            }
        }
        actions.extend(state.fresh.iter().map(|block| Action::Age(*block)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(at) => state.ask(at),
            Action::Deliver(message) => {
                state.net.remove(&message);
                state.deliver(message);
            }
            Action::Repeat(message) => {
                state.faults += 1;
                state.deliver(message);
            }
            Action::Lose(message) => {
                state.faults += 1;
                state.net.remove(&message);
            }
            Action::Use(at) => state.send(at),
            Action::Age(block) => state.age(block),
            Action::RouterCrash => {
                state.faults += 1;
                state.router = Router { boot: state.router.boot + 1, ..Router::default() };
            }
            Action::TargetCrash(at) => {
                state.faults += 1;
                let boot = state.targets[at].boot + 1;
                state.targets[at] = Target { boot, router: u8::MAX, ..Target::default() };
            }
            Action::Attach(at) => {
                let boot = state.router.boot;
                let target = &mut state.targets[at];
                (target.router, target.waiting, target.lease) = (boot, false, None);
                state.router.seen[at] = (target.boot, 0);
            }
        }
        state.forget_what_changes_nothing();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER[0], |_, state: &State| !state.twice),
            Property::always(NEVER[1], |_, state: &State| !state.late),
            Property::always(NEVER[2], |_, state: &State| !state.outside),
            Property::sometimes("both targets hold numbers at once", |_, state: &State| {
                state.targets.iter().all(|target| target.lease.is_some())
            }),
            Property::sometimes("a second grant is used after a restart", |_, state: &State| {
                state.router.boot > 0 && state.used.last().is_some_and(|last| *last > GRANT)
            }),
            Property::sometimes("the whole window is used", |_, state: &State| state.used.len() > usize::from(WINDOW)),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.store <= self.numbers + 1
    }
}

impl State {
    fn ask(&mut self, at: usize) {
        let target = &mut self.targets[at];
        if target.router != self.router.boot && target.router == u8::MAX {
            return;
        }
        target.nonce += 1;
        target.waiting = true;
        self.net.insert(Message::Request {
            target: at,
            boot: target.boot,
            nonce: target.nonce,
            router: target.router,
            done_below: target.lease.map_or(target.had_below, |(_, next, _)| next),
        });
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request { target, boot, nonce, router, done_below } => {
                let seen = self.router.seen[target];
                if router != self.router.boot || boot != seen.0 || nonce <= seen.1 {
                    return;
                }
                self.router.seen[target] = (boot, nonce);
                self.done(target, done_below);
                if let Some((first, end)) = self.hand_out(target) {
                    self.net.insert(Message::Reply { target, boot, nonce, router, first, end });
                }
            }
            Message::Reply { target: at, boot, nonce, router, first, end } => {
                // Too late: the block has aged.
                let fresh = self.fresh.iter().any(|block| block.first == first);
                let target = &mut self.targets[at];
                let current = target.waiting && nonce == target.nonce && boot == target.boot && router == target.router;
                if !current || first < target.had_below || !fresh {
                    return;
                }
                target.waiting = false;
                target.had_below = end;
                target.lease = Some((first, first, end));
            }
        }
    }

    fn done(&mut self, target: usize, below: u8) {
        let blocks = std::mem::take(&mut self.fresh);
        self.fresh = blocks
            .into_iter()
            .map(|block| match block.target == target && block.router == self.router.boot {
                true => Fresh { low: block.low.max(below.min(block.end)), ..block },
                false => block,
            })
            .collect();
    }

    fn hand_out(&mut self, target: usize) -> Option<(u8, u8)> {
        let boot = self.router.boot;
        if self.fresh.iter().any(|block| block.router != boot) {
            return None;
        }
        if self.router.next == self.router.end {
            (self.router.next, self.router.end) = (self.store, self.store + GRANT);
            self.store += GRANT;
        }
        let first = self.router.next;
        // It knows of its own blocks only.
        let own = self.fresh.iter().filter(|block| block.router == boot && block.low < block.end);
        let oldest = own.map(|block| block.low).min();
        let end = (first + BLOCK).min(oldest.unwrap_or(first) + WINDOW).min(self.router.end);
        if end <= first {
            return None;
        }
        self.router.next = end;
        self.fresh.insert(Fresh { first, low: first, end, target, router: boot });
        Some((first, end))
    }

    fn send(&mut self, at: usize) {
        let Some((_, next, _)) = &mut self.targets[at].lease else { return };
        let number = *next;
        *next += 1;
        self.twice |= !self.used.insert(number);
        self.late |= self.used.last().is_some_and(|highest| number + WINDOW <= *highest);
        let oldest = self.fresh.iter().filter(|block| block.low < block.end).map(|block| block.low).min();
        self.outside |= oldest.is_none_or(|oldest| number < oldest || number >= oldest + WINDOW);
    }

    /// States that differ only in what can have no effect any more are one state: fewer to look at.
    fn forget_what_changes_nothing(&mut self) {
        for target in &mut self.targets {
            target.lease = target.lease.filter(|(_, next, end)| next < end);
        }
        self.fresh.retain(|block| block.low < block.end);
        let (targets, router, fresh) = (&self.targets, &self.router, &self.fresh);
        self.net.retain(|message| match *message {
            Message::Request { target, boot, nonce, router: of, .. } => {
                // Before it is attached, a target's boot may still become known to this router.
                let seen = router.seen[target];
                of == router.boot && boot == targets[target].boot && (boot != seen.0 || nonce > seen.1)
            }
            Message::Reply { target: at, boot, nonce, first, .. } => {
                let target = &targets[at];
                let known = fresh.iter().any(|block| block.first == first);
                target.waiting && boot == target.boot && nonce == target.nonce && known
            }
        });
    }

    /// Its time is over for whoever holds it, then for the router.
    fn age(&mut self, block: Fresh) {
        self.fresh.remove(&block);
        for target in &mut self.targets {
            if target.lease.is_some_and(|(first, _, _)| first == block.first) {
                target.lease = None;
            }
        }
    }
}

const NEVER: [&str; 3] = [
    "no number is used twice",
    "no number is late at the peer",
    "a number lies within the window of the oldest live one",
];

#[test]
fn leases_hold_in_every_interleaving_with_one_fault() {
    let model = Leases { numbers: 8, nonces: 2, faults: 1, messages: 2 };
    let checked = model.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
}

#[test]
fn leases_hold_as_far_as_was_looked_with_three_faults() {
    let model = Leases { numbers: 12, nonces: 3, faults: 3, messages: 3 };
    let checked = model.checker().threads(2).target_state_count(4_000_000).spawn_bfs().join();
    for name in NEVER {
        checked.assert_no_discovery(name);
    }
}
