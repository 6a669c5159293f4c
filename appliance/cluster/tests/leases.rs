//! The sequencer and the lease client over a network that loses, repeats, delays and reorders, with crashes on both
//! sides: no number is used twice (I1), none is late at the peer's replay window, and once the network heals all get on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use phalanx_cluster::lease_client::{Accepted, LeaseClient, Session, Want};
use phalanx_cluster::messages::{LeaseBlock, LeaseReply, LeaseRequest};
use phalanx_cluster::sequencer::{Holder, Request, Sequencer, SequencerConfig};
use phalanx_cluster::{CouplingError, GrantWanted};
use phalanx_ipsec::Lease;
use phalanx_wire::{CoreId, Epoch, SaId};
use proptest::prelude::*;

const SA: SaId = SaId(1);
const CORE: CoreId = CoreId(0);
const EPOCH: Epoch = Epoch(1);
const HOLDERS: usize = 3;

/// What happens next. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Action {
    Pass(u32),
    Want {
        holder: usize,
        want: u32,
        rate: u32,
    },
    Send {
        holder: usize,
        packets: u32,
    },
    /// A packet under way arrives; any of them, so the network reorders.
    Arrive(usize),
    Request {
        at: usize,
        keep: bool,
        lose: bool,
    },
    Reply {
        at: usize,
        keep: bool,
        lose: bool,
    },
    Grant {
        fails: bool,
    },
    /// All but one go on as fast as they can, while that one's messages and packets stay where they are.
    Race {
        except: usize,
        us: u32,
    },
    RouterCrash,
    TargetCrash(usize),
    Attach(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let at = 0..64usize;
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop_oneof![
        6 => (1..3_000u32).prop_map(Action::Pass),
        1 => (1..60_000u32).prop_map(Action::Pass),
        6 => (0..HOLDERS, 1..64u32, 0..5_000u32).prop_map(|(holder, want, rate)| Action::Want { holder, want, rate }),
        6 => (0..HOLDERS, 1..20u32).prop_map(|(holder, packets)| Action::Send { holder, packets }),
        6 => at.clone().prop_map(Action::Arrive),
        8 => (at.clone(), flags).prop_map(|(at, (keep, lose))| Action::Request { at, keep: keep && !lose, lose }),
        8 => (at, flags).prop_map(|(at, (keep, lose))| Action::Reply { at, keep: keep && !lose, lose }),
        4 => prop::bool::weighted(0.2).prop_map(|fails| Action::Grant { fails }),
        12 => (0..HOLDERS, 1..500u32).prop_map(|(except, us)| Action::Race { except, us }),
        1 => Just(Action::RouterCrash),
        1 => (0..HOLDERS).prop_map(Action::TargetCrash),
        2 => (0..HOLDERS).prop_map(Action::Attach),
    ]
}

struct Target {
    incarnation: u64,
    /// The router's boot as this target knows it; None: no session.
    router: Option<u64>,
    client: LeaseClient,
    leases: VecDeque<(Lease, u64)>,
    had_below: u64,
}

impl Target {
    fn new(incarnation: u64) -> Self {
        let mut client = LeaseClient::new(50_000);
        client.add(SA);
        Self { incarnation, router: None, client, leases: VecDeque::new(), had_below: 0 }
    }

    fn session(&self) -> Option<Session> {
        Some(Session { incarnation: self.incarnation, router_incarnation: self.router? })
    }

    fn drop_expired(&mut self, now: u64) {
        while self.leases.front().is_some_and(|(lease, until)| lease.remaining() == 0 || now >= *until) {
            self.leases.pop_front();
        }
    }
}

/// A packet between its sender and the peer.
struct Packet {
    number: u64,
    holder: usize,
    arrives_by: u64,
}

struct Sim {
    now: u64,
    config: SequencerConfig,
    window: u64,
    esn: bool,
    store: u64,
    sequencer: Sequencer,
    router: u64,
    /// What the router knows of the targets' boots.
    known: [u64; HOLDERS],
    targets: Vec<Target>,
    boots: u64,
    requests: Vec<(usize, LeaseRequest)>,
    replies: Vec<(usize, LeaseReply)>,
    grants: VecDeque<GrantWanted>,
    flying: Vec<Packet>,
    used: BTreeSet<u64>,
    highest_arrived: u64,
}

impl Sim {
    fn new(window: u32, esn: bool, store: u64) -> Self {
        let config = SequencerConfig { grant_min: 64, grant_max: 256, ..SequencerConfig::default() };
        let mut sim = Self {
            now: 1_000_000,
            sequencer: Sequencer::new(config.clone()),
            config,
            window: window.into(),
            esn,
            store,
            router: 1000,
            known: [0; HOLDERS],
            targets: (1..=HOLDERS as u64).map(Target::new).collect(),
            boots: 1000,
            requests: Vec::new(),
            replies: Vec::new(),
            grants: VecDeque::new(),
            flying: Vec::new(),
            used: BTreeSet::new(),
            highest_arrived: 0,
        };
        sim.start_router();
        (0..HOLDERS).for_each(|holder| sim.attach(holder));
        sim
    }

    fn start_router(&mut self) {
        self.boots += 1;
        self.router = self.boots;
        self.known = [0; HOLDERS];
        self.sequencer = Sequencer::new(self.config.clone());
        self.sequencer.add(SA, Arc::from("seq"), self.esn, self.window as u32, self.now).unwrap();
        // Answers of the store to the dead router are lost; what it gave is a gap.
        for wanted in self.grants.drain(..) {
            self.store = (self.store + wanted.n).min(wanted.limit);
        }
        self.pump();
    }

    /// A new session: the target learns the router's boot, throws old numbers away, the router learns the target's.
    fn attach(&mut self, holder: usize) {
        let target = &mut self.targets[holder];
        if target.router != Some(self.router) {
            target.leases.clear();
        }
        target.client.lost(self.now);
        target.router = Some(self.router);
        self.known[holder] = target.incarnation;
        self.pump();
    }

    /// It will never again send below this: what is under way counts as not yet sent.
    fn done_below(&self, holder: usize) -> u64 {
        let target = &self.targets[holder];
        let held = target.leases.front().map_or(target.had_below, |(lease, _)| lease.first());
        let flying = self.flying.iter().filter(|packet| packet.holder == holder).map(|packet| packet.number).min();
        flying.map_or(held, |number| number.min(held))
    }

    fn apply(&mut self, action: &Action) {
        match *action {
            Action::Pass(us) => self.pass(u64::from(us)),
            Action::Want { holder, want, rate } => {
                let want = Want { want, done_below: self.done_below(holder), rate_pps: rate };
                self.targets[holder].client.wanted(CORE, SA, want, self.now);
            }
            Action::Send { holder, packets } => self.send(holder, packets),
            Action::Arrive(at) if !self.flying.is_empty() => {
                let packet = self.flying.remove(at % self.flying.len());
                self.arrive(packet);
            }
            Action::Request { at, keep, lose } if !self.requests.is_empty() => {
                let at = at % self.requests.len();
                let (holder, request) = if keep { self.requests[at] } else { self.requests.remove(at) };
                if !lose {
                    self.at_router(holder, &request);
                }
            }
            Action::Reply { at, keep, lose } if !self.replies.is_empty() => {
                let at = at % self.replies.len();
                let (holder, reply) = if keep { self.replies[at] } else { self.replies.remove(at) };
                if !lose {
                    self.at_target(holder, &reply);
                }
            }
            Action::Grant { fails } => self.grant(fails),
            Action::Race { except, us } => self.race(except, u64::from(us)),
            Action::RouterCrash => self.start_router(),
            Action::TargetCrash(holder) => {
                self.boots += 1;
                self.targets[holder] = Target::new(self.boots);
                self.sequencer.holder_gone(holder as u16);
            }
            Action::Attach(holder) => self.attach(holder),
            _ => {}
        }
        self.pump();
    }

    /// Time passes. A packet is under way no longer than the slack that the sequencer allows for.
    fn pass(&mut self, us: u64) {
        let end = self.now + us;
        while let Some(at) = (0..self.flying.len())
            .filter(|at| self.flying[*at].arrives_by <= end)
            .min_by_key(|at| self.flying[*at].arrives_by)
        {
            let packet = self.flying.remove(at);
            self.now = self.now.max(packet.arrives_by);
            self.arrive(packet);
        }
        self.now = end;
        self.sequencer.expire(self.now);
    }

    fn race(&mut self, except: usize, us: u64) {
        for holder in (0..HOLDERS).filter(|holder| *holder != except) {
            self.apply(&Action::Want { holder, want: 64, rate: 5_000 });
        }
        while !self.grants.is_empty() {
            self.grant(false);
        }
        self.pump();
        for (holder, request) in self.requests.extract_if(.., |(holder, _)| *holder != except).collect::<Vec<_>>() {
            self.at_router(holder, &request);
        }
        self.pump();
        for (holder, reply) in self.replies.extract_if(.., |(holder, _)| *holder != except).collect::<Vec<_>>() {
            self.at_target(holder, &reply);
        }
        for holder in (0..HOLDERS).filter(|holder| *holder != except) {
            self.send(holder, 64);
        }
        for packet in self.flying.extract_if(.., |packet| packet.holder != except).collect::<Vec<_>>() {
            self.arrive(packet);
        }
        self.pass(us);
    }

    fn send(&mut self, holder: usize, packets: u32) {
        for _ in 0..packets {
            let target = &mut self.targets[holder];
            target.drop_expired(self.now);
            let Some((lease, _)) = target.leases.front_mut() else { return };
            let Some(number) = lease.take() else { return };
            let number = number.value();
            assert!(self.used.insert(number), "number {number} is used twice");
            let arrives_by = self.now + self.config.transit_slack_us - 1;
            self.flying.push(Packet { number, holder, arrives_by });
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let Packet { number, .. } = packet;
        // RFC 4303 §3.4.3: left of the window is refused.
        assert!(
            number + self.window > self.highest_arrived,
            "number {number} is late: the peer saw {}, its window is {}",
            self.highest_arrived,
            self.window
        );
        self.highest_arrived = self.highest_arrived.max(number);
    }

    fn at_router(&mut self, holder: usize, request: &LeaseRequest) {
        // What `RouterCluster` checks before its sequencer hears of it.
        if request.router_incarnation != self.router || request.incarnation != self.known[holder] {
            return;
        }
        let LeaseRequest { nonce, incarnation, want, done_below, rate_pps, latency_us, .. } = *request;
        let holder = Holder { node: holder as u16, core: CORE };
        let request = Request { sa: SA, holder, nonce, incarnation, want, done_below, rate_pps, latency_us };
        self.sequencer.request(request, self.now);
    }

    fn at_target(&mut self, holder: usize, reply: &LeaseReply) {
        let target = &mut self.targets[holder];
        let Some(session) = target.session() else { return };
        if let Accepted::Lease(lease, until) = target.client.accept(reply, session, Some(EPOCH), self.now) {
            assert!(lease.first() >= target.had_below, "numbers go up");
            target.had_below = lease.end();
            target.leases.push_back((lease, until));
        }
    }

    fn grant(&mut self, fails: bool) {
        let Some(wanted) = self.grants.pop_front() else { return };
        let first = self.store;
        // A failed answer says nothing about whether it took effect: here it did.
        self.store = (self.store + wanted.n).min(wanted.limit).max(self.store);
        let answer = if fails { Err(CouplingError::Unavailable("test".into())) } else { Ok(first..self.store) };
        self.sequencer.grant(SA, answer, self.now);
    }

    fn pump(&mut self) {
        while let Some(wanted) = self.sequencer.poll_grant_wanted() {
            self.grants.push_back(wanted);
        }
        while let Some(reply) = self.sequencer.poll_reply() {
            let result = reply.result.map(|(lease, valid_for_us)| {
                let (first, len) = lease.into_wire();
                LeaseBlock { first, len, valid_for_us, waited_us: reply.waited_us }
            });
            let (nonce, incarnation) = (reply.nonce, reply.incarnation);
            let message = LeaseReply {
                sa: SA,
                core: CORE,
                nonce,
                incarnation,
                router_incarnation: self.router,
                epoch: EPOCH,
                result,
            };
            self.replies.push((usize::from(reply.holder.node), message));
        }
        for holder in 0..HOLDERS {
            let target = &mut self.targets[holder];
            let Some(session) = target.session() else { continue };
            while let Some(request) = target.client.due(session, |_| Some(EPOCH), self.now) {
                self.requests.push((holder, request));
            }
        }
    }

    /// The network and the store are good from now on; everybody gets what it wants, in a bounded time.
    fn heals(&mut self) {
        (0..HOLDERS).for_each(|holder| self.attach(holder));
        let before: Vec<u64> = self.targets.iter().map(|target| target.had_below).collect();
        for _ in 0..3_000 {
            // A core that was refused asks again.
            for holder in 0..HOLDERS {
                self.apply(&Action::Want { holder, want: 4, rate: 100 });
            }
            while !self.grants.is_empty() {
                self.grant(false);
            }
            self.pump();
            for (holder, request) in std::mem::take(&mut self.requests) {
                self.at_router(holder, &request);
            }
            self.pump();
            for (holder, reply) in std::mem::take(&mut self.replies) {
                self.at_target(holder, &reply);
            }
            if self.targets.iter().zip(&before).all(|(target, before)| target.had_below > *before) {
                return;
            }
            self.pass(1_000);
            self.pump();
        }
        let had: Vec<u64> = self.targets.iter().map(|target| target.had_below).collect();
        let status = self.sequencer.status(SA, self.now);
        panic!("somebody gets nothing after 3 s of good weather: {before:?} {had:?} {status:?}");
    }
}

fn run(window: u32, esn: bool, store: u64, actions: &[Action]) -> Sim {
    let mut sim = Sim::new(window, esn, store);
    for action in actions {
        sim.apply(action);
    }
    sim
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_number_is_used_twice_none_is_late_and_all_get_on(
        window in prop::sample::select(vec![32u32, 64, 1024]),
        actions in prop::collection::vec(action(), 1..400),
    ) {
        run(window, true, 0, &actions).heals();
    }

    #[test]
    fn without_64_bit_numbers_the_end_is_the_end(
        left in 0u64..300,
        actions in prop::collection::vec(action(), 1..400),
    ) {
        let sim = run(32, false, (1 << 32) - left, &actions);
        prop_assert!(sim.used.last().is_none_or(|last| *last < 1 << 32));
    }
}

fn single(config: SequencerConfig, window: u32, granted: u64) -> Sequencer {
    let mut sequencer = Sequencer::new(config);
    sequencer.add(SA, Arc::from("seq"), true, window, 0).unwrap();
    let wanted = sequencer.poll_grant_wanted().unwrap();
    assert_eq!((wanted.n, wanted.limit), (4096, phalanx_ipsec::SEQUENCE_LIMIT));
    sequencer.grant(SA, Ok(granted..granted + wanted.n), 0);
    sequencer
}

fn ask(sequencer: &mut Sequencer, node: u16, nonce: u64, done_below: u64, now: u64) -> Option<(u64, u64, u32)> {
    let holder = Holder { node, core: CORE };
    let request =
        Request { sa: SA, holder, nonce, incarnation: 1, want: 1000, done_below, rate_pps: 100, latency_us: 0 };
    sequencer.request(request, now);
    sequencer.poll_reply().map(|reply| {
        let (lease, valid) = reply.result.unwrap();
        (lease.first(), lease.end(), valid)
    })
}

#[test]
fn blocks_are_half_the_window_shared_by_those_who_send() {
    let mut sequencer = single(SequencerConfig::default(), 64, 0);
    assert_eq!(ask(&mut sequencer, 1, 1, 0, 0), Some((1, 33, 20_000)), "alone: half of 64; 100 packets/s: the longest");
    assert_eq!(ask(&mut sequencer, 2, 1, 0, 0), Some((33, 49, 20_000)), "two: a quarter each");
    assert_eq!(ask(&mut sequencer, 3, 1, 0, 0), None, "1 + 64 - 16 is the bound while 1 is live");
}

#[test]
fn a_request_that_must_wait_is_answered_when_the_oldest_block_dies() {
    let mut sequencer = single(SequencerConfig::default(), 32, 0);
    assert!(ask(&mut sequencer, 1, 1, 0, 0).is_some());
    assert_eq!(ask(&mut sequencer, 2, 1, 0, 0).map(|block| block.1), Some(25), "what is left of the window");
    assert_eq!(ask(&mut sequencer, 3, 1, 0, 10), None);
    assert_eq!(sequencer.next_deadline(), Some(25_000), "20 ms of validity and 5 ms under way");
    sequencer.expire(25_000);
    let reply = sequencer.poll_reply().unwrap();
    assert_eq!((reply.holder.node, reply.waited_us), (3, 24_990));
}

#[test]
fn whoever_is_done_makes_room_at_once() {
    let mut sequencer = single(SequencerConfig::default(), 32, 0);
    assert_eq!(ask(&mut sequencer, 1, 1, 0, 0).map(|block| block.1), Some(17));
    assert_eq!(ask(&mut sequencer, 1, 2, 17, 100).map(|block| (block.0, block.1)), Some((17, 33)));
    assert_eq!(ask(&mut sequencer, 1, 3, 33, 200).map(|block| (block.0, block.1)), Some((33, 49)));
}

#[test]
fn a_repeated_request_gets_nothing() {
    let mut sequencer = single(SequencerConfig::default(), 64, 0);
    assert!(ask(&mut sequencer, 1, 5, 0, 0).is_some());
    assert_eq!(ask(&mut sequencer, 1, 5, 0, 0), None);
    assert_eq!(ask(&mut sequencer, 1, 4, 0, 0), None);
    assert!(ask(&mut sequencer, 1, 6, 33, 0).is_some());
}

#[test]
fn a_sequencer_that_is_not_the_first_is_quiet_until_old_blocks_are_dead() {
    let mut sequencer = single(SequencerConfig::default(), 64, 4096);
    assert_eq!(ask(&mut sequencer, 1, 1, 0, 0), None);
    let quiet = sequencer.next_deadline().unwrap();
    assert!(quiet <= 100_000, "the request is not forgotten without a word");
    let mut served = None;
    for (nonce, now) in [(2, 100_000), (3, 190_000), (4, 205_000)] {
        served = ask(&mut sequencer, 1, nonce, 0, now);
        sequencer.expire(now);
    }
    assert_eq!(served.map(|block| block.0), Some(4096));
}

#[test]
fn the_next_grant_is_asked_for_when_half_is_used() {
    let mut sequencer = single(SequencerConfig::default(), 65_536, 0);
    let mut below = 0;
    for nonce in 1..=2 {
        below = ask(&mut sequencer, 1, nonce, below, 0).unwrap().1;
    }
    assert!(sequencer.poll_grant_wanted().is_none());
    below = ask(&mut sequencer, 1, 3, below, 0).unwrap().1;
    assert!(below > 2048);
    assert!(sequencer.poll_grant_wanted().is_some());
    assert!(sequencer.poll_grant_wanted().is_none(), "once");
}

#[test]
fn a_fast_sa_takes_larger_grants() {
    let mut sequencer = Sequencer::new(SequencerConfig::default());
    sequencer.add(SA, Arc::from("seq"), true, 65_536, 0).unwrap();
    sequencer.grant(SA, Ok(0..4096), 0);
    let holder = Holder { node: 1, core: CORE };
    for nonce in 1..=2 {
        let request = Request {
            sa: SA,
            holder,
            nonce,
            incarnation: 1,
            want: 4096,
            done_below: 0,
            rate_pps: 100_000,
            latency_us: 0,
        };
        sequencer.request(request, 0);
    }
    while sequencer.poll_grant_wanted().is_some_and(|wanted| wanted.n == 4096) {}
    sequencer.grant(SA, Ok(4096..8192), 0);
    let request = Request {
        sa: SA,
        holder,
        nonce: 3,
        incarnation: 1,
        want: 4096,
        done_below: 0,
        rate_pps: 100_000,
        latency_us: 0,
    };
    sequencer.request(request, 0);
    let status = sequencer.status(SA, 0).unwrap();
    assert_eq!(status.prediction.measured_pps, 100_000);
}

#[test]
fn numbers_that_were_given_before_stop_the_sa() {
    let mut sequencer = single(SequencerConfig::default(), 64, 4096);
    assert!(!sequencer.note_seen(SA, 4000), "from before: so it should be");
    assert!(sequencer.note_seen(SA, 5000), "nobody can have had that");
    ask_refused(&mut sequencer);
}

fn ask_refused(sequencer: &mut Sequencer) {
    let holder = Holder { node: 1, core: CORE };
    let request =
        Request { sa: SA, holder, nonce: 1, incarnation: 1, want: 1, done_below: 0, rate_pps: 0, latency_us: 0 };
    sequencer.request(request, 1_000_000);
    let refused = sequencer.poll_reply().unwrap().result.unwrap_err();
    assert_eq!(refused, phalanx_cluster::LeaseRefusal::StoreBehind);
}

#[test]
fn a_grant_below_what_was_seen_stops_the_sa() {
    let mut sequencer = Sequencer::new(SequencerConfig::default());
    sequencer.add(SA, Arc::from("seq"), true, 64, 0).unwrap();
    assert!(!sequencer.note_seen(SA, 9000));
    let outcome = sequencer.grant(SA, Ok(4096..8192), 0);
    assert_eq!(outcome, phalanx_cluster::sequencer::GrantOutcome::StoreBehind);
    ask_refused(&mut sequencer);
}

#[test]
fn the_prediction_says_what_fits() {
    use phalanx_cluster::sequencer::predict;
    let small = predict(32, 2, 2_000, 1_000);
    assert_eq!((small.block, small.fits_pps, small.fits()), (8, 8_000, true));
    let large = predict(4096, 2, 2_000, 2_000_000);
    assert_eq!((large.block, large.fits_pps, large.fits()), (1024, 1_024_000, false));
    assert_eq!(predict(32, 100, 0, 0).block, 1);
}

/// A future that never waits, run to its end.
fn now_or_never<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn the_engine_in_memory_keeps_the_contract() {
    let engine = phalanx_cluster::InMemory::new(7);
    now_or_never(phalanx_cluster::contract::engine_contract(&engine)).unwrap();
}

#[test]
fn a_store_that_failed_once_is_asked_again() {
    let mut sim = Sim::new(32, true, 0);
    sim.apply(&Action::Grant { fails: true });
    sim.heals();
}
