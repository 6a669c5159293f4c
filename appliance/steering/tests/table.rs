//! The connection table against a map, its limits, and its size.

mod common;

use common::key;
use phalanx_steering::{ConnKey, ConnState, ConnectionTable, Cursor, Progress, TableLimits};
use phalanx_wire::{DropReason, PeerId, TargetId};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const LIMITS: TableLimits =
    TableLimits { connections: 24, per_peer: 12, half_open_per_peer: 5, peers: 3, half_open_ms: 10_000 };

fn table(limits: TableLimits) -> ConnectionTable {
    ConnectionTable::new(limits, [0x1234, 0x5678]).expect("limits are good")
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u32, u16),
    Confirm(u32, u32),
    End(u32, u32),
    Retarget(u32, u32, u16),
    Restore(u32, u32, u16),
    Renew(u32, u32),
    Purge(u16),
    PurgePeer(u32, u16),
    Sweep(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, n, target) = (0u32..5, 0u32..12, 0u16..3);
    prop_oneof![
        6 => (peer.clone(), n.clone(), target.clone()).prop_map(|(p, n, t)| Step::Insert(p, n, t)),
        3 => (peer.clone(), n.clone()).prop_map(|(p, n)| Step::Confirm(p, n)),
        2 => (peer.clone(), n.clone()).prop_map(|(p, n)| Step::End(p, n)),
        1 => (peer.clone(), n.clone(), target.clone()).prop_map(|(p, n, t)| Step::Retarget(p, n, t)),
        1 => (peer.clone(), n.clone(), target.clone()).prop_map(|(p, n, t)| Step::Restore(p, n, t)),
        1 => (peer, n).prop_map(|(p, n)| Step::Renew(p, n)),
        1 => target.clone().prop_map(Step::Purge),
        1 => (0u32..5, target).prop_map(|(p, t)| Step::PurgePeer(p, t)),
        1 => (0usize..4).prop_map(Step::Sweep),
        2 => (0u64..4_000).prop_map(Step::Wait),
    ]
}

/// The same rules over a map, without any thought of speed.
#[derive(Default)]
struct Model {
    entries: HashMap<ConnKey, (u16, ConnState, u64)>,
}

impl Model {
    fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = &(u16, ConnState, u64)> {
        self.entries.iter().filter(move |(key, _)| key.peer == peer).map(|(_, entry)| entry)
    }

    fn half_open(&self, peer: PeerId) -> usize {
        self.of_peer(peer).filter(|(_, state, _)| *state == ConnState::HalfOpen).count()
    }

    fn has_room(&self, peer: PeerId) -> bool {
        let peers: HashSet<_> = self.entries.keys().map(|key| key.peer).collect();
        self.entries.len() < LIMITS.connections
            && self.of_peer(peer).count() < LIMITS.per_peer as usize
            && (peers.contains(&peer) || peers.len() < LIMITS.peers)
    }

    fn admits(&self, peer: PeerId) -> Result<(), DropReason> {
        match self.has_room(peer) {
            false => Err(DropReason::TableFull),
            true if self.half_open(peer) >= LIMITS.half_open_per_peer as usize => Err(DropReason::HalfOpenLimit),
            true => Ok(()),
        }
    }

    fn confirm(&mut self, key: &ConnKey, now: u64) -> bool {
        let entry = self.entries.get_mut(key);
        entry.is_some_and(|entry| {
            if entry.1 == ConnState::HalfOpen {
                (entry.1, entry.2) = (ConnState::Established, now);
            }
            true
        })
    }
}

fn apply(step: Step, table: &mut ConnectionTable, model: &mut Model, now: &mut u64) -> Result<(), TestCaseError> {
    match step {
        Step::Insert(peer, n, target) => {
            let key = key(peer, n);
            let expected = match model.entries.get(&key) {
                Some((existing, ..)) => Ok(TargetId(*existing)),
                None => model.admits(key.peer).map(|()| TargetId(target)),
            };
            prop_assert_eq!(table.insert(&key, TargetId(target), *now), expected);
            if expected.is_ok() {
                model.entries.entry(key).or_insert((target, ConnState::HalfOpen, *now));
            }
        }
        Step::Confirm(peer, n) => {
            let key = key(peer, n);
            prop_assert_eq!(table.confirm(&key, *now), model.confirm(&key, *now));
        }
        Step::End(peer, n) => {
            let key = key(peer, n);
            let ended = table.end(&key).map(|conn| (conn.target.0, conn.state, conn.since));
            prop_assert_eq!(ended, model.entries.remove(&key));
        }
        Step::Retarget(peer, n, target) => {
            let key = key(peer, n);
            prop_assert_eq!(table.retarget(&key, TargetId(target)), model.entries.contains_key(&key));
            model.entries.entry(key).and_modify(|entry| entry.0 = target);
        }
        Step::Restore(peer, n, target) => {
            let key = key(peer, n);
            let other = model.entries.get(&key).is_some_and(|entry| entry.0 != target);
            let fits = other || model.confirm(&key, *now) || model.has_room(key.peer);
            prop_assert_eq!(table.restore(&key, TargetId(target), *now).is_ok(), fits);
            if fits && !other {
                model.entries.insert(key, (target, ConnState::Established, *now));
            }
        }
        Step::Renew(peer, n) => {
            let key = key(peer, n);
            let expected = model.entries.get(&key).map(|entry| TargetId(entry.0));
            prop_assert_eq!(table.renew(&key, *now), expected);
            if let Some((_, ConnState::HalfOpen, since)) = model.entries.get_mut(&key) {
                *since = *now;
            }
        }
        Step::Purge(target) => {
            let (mut cursor, mut ended) = (Cursor::default(), HashSet::new());
            while table.purge_target(TargetId(target), &mut cursor, 7, |conn| {
                assert!(ended.insert(conn.key));
            }) == Progress::More
            {}
            let expected: HashSet<_> = model.entries.iter().filter(|(_, e)| e.0 == target).map(|(k, _)| *k).collect();
            prop_assert_eq!(ended, expected);
            model.entries.retain(|_, entry| entry.0 != target);
        }
        Step::PurgePeer(peer, target) => {
            let (mut cursor, mut ended) = (Cursor::default(), HashSet::new());
            let gone = |key: &ConnKey, t: u16| key.peer.0 == peer && t == target;
            while table.purge(
                &mut cursor,
                7,
                |conn| gone(&conn.key, conn.target.0),
                |conn| {
                    assert!(ended.insert(conn.key));
                },
            ) == Progress::More
            {}
            let expected: HashSet<_> = model.entries.iter().filter(|(k, e)| gone(k, e.0)).map(|(k, _)| *k).collect();
            prop_assert_eq!(ended, expected);
            model.entries.retain(|key, entry| !gone(key, entry.0));
        }
        Step::Sweep(budget) => sweep(budget, table, model, *now)?,
        Step::Wait(ms) => *now += ms,
    }
    Ok(())
}

fn sweep(budget: usize, table: &mut ConnectionTable, model: &mut Model, now: u64) -> Result<(), TestCaseError> {
    let mut ended = Vec::new();
    let progress = table.sweep(now, budget, |conn| ended.push(conn));
    for conn in &ended {
        let (_, state, since) = model.entries.remove(&conn.key).expect("what ends was there");
        prop_assert_eq!(state, ConnState::HalfOpen);
        prop_assert!(now - since >= LIMITS.half_open_ms);
    }
    let expired =
        |(_, state, since): &(u16, ConnState, u64)| *state == ConnState::HalfOpen && now - since >= LIMITS.half_open_ms;
    prop_assert_eq!(progress == Progress::More, model.entries.values().any(expired));
    prop_assert!(ended.len() <= budget);
    Ok(())
}

fn agree(table: &ConnectionTable, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.entries.len());
    let (mut cursor, mut seen) = (Cursor::default(), HashMap::new());
    while table.scan(&mut cursor, 5, |conn| {
        assert!(seen.insert(conn.key, (conn.target.0, conn.state, conn.since)).is_none());
    }) == Progress::More
    {}
    prop_assert_eq!(&seen, &model.entries);
    for target in 0..3 {
        let count = model.entries.values().filter(|entry| entry.0 == target).count();
        prop_assert_eq!(table.connections_of(TargetId(target)) as usize, count);
    }
    for peer in (0..5).map(PeerId) {
        let count = table.peer(peer);
        prop_assert_eq!(count.total as usize, model.of_peer(peer).count());
        prop_assert_eq!(count.half_open as usize, model.half_open(peer));
        prop_assert_eq!(table.admits(peer), model.admits(peer));
        for n in 0..12 {
            let key = key(peer.0, n);
            let found = table.lookup(&key).map(|conn| (conn.target.0, conn.state, conn.since));
            prop_assert_eq!(found, model.entries.get(&key).copied());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_table_does_what_a_map_with_the_same_rules_does(steps in prop::collection::vec(step(), 1..120)) {
        let (mut table, mut model, mut now) = (table(LIMITS), Model::default(), 5);
        for step in steps {
            apply(step, &mut table, &mut model, &mut now)?;
            agree(&table, &model)?;
        }
    }
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    let limits = TableLimits { per_peer: 100, half_open_per_peer: 100, ..LIMITS };
    let mut table = table(limits);
    for n in 0..24 {
        assert_eq!(table.insert(&key(1, n), TargetId(1), 0), Ok(TargetId(1)));
    }
    for n in 24..1000 {
        assert_eq!(table.insert(&key(1, n), TargetId(2), 1), Err(DropReason::TableFull));
        assert_eq!(table.restore(&key(1, n), TargetId(2), 1), Err(DropReason::TableFull));
    }
    assert_eq!(table.len(), 24);
    assert!((0..24).all(|n| { table.lookup(&key(1, n)).is_some_and(|conn| conn.target == TargetId(1)) }));
}

#[test]
fn half_open_connections_of_one_peer_do_not_hinder_another() {
    let mut table = table(LIMITS);
    for n in 0..5 {
        table.insert(&key(1, n), TargetId(1), 0).expect("within the limit");
    }
    assert_eq!(table.insert(&key(1, 5), TargetId(1), 0), Err(DropReason::HalfOpenLimit));
    assert!(table.insert(&key(2, 5), TargetId(1), 0).is_ok());
    assert!(table.confirm(&key(1, 0), 1), "an established one leaves room");
    assert!(table.insert(&key(1, 5), TargetId(1), 0).is_ok());
}

#[test]
fn looking_up_does_not_keep_a_half_open_entry_alive() {
    let mut table = table(LIMITS);
    table.insert(&key(1, 1), TargetId(1), 0).expect("room");
    for now in 0..10 {
        assert!(table.lookup(&key(1, 1)).is_some());
        assert_eq!(table.sweep(now * 1000, 10, |_| panic!("not yet")), Progress::Done);
    }
    let mut ended = 0;
    assert_eq!(table.sweep(10_000, 10, |_| ended += 1), Progress::Done);
    assert_eq!((ended, table.len()), (1, 0));
}

#[test]
fn an_ipv4_address_and_its_ipv6_mapped_form_are_two_connections() {
    let mut table = table(LIMITS);
    let v4 = key(1, 0);
    let mut mapped = v4;
    for end in [&mut mapped.flow.local, &mut mapped.flow.remote] {
        if let std::net::IpAddr::V4(address) = end.addr {
            end.addr = address.to_ipv6_mapped().into();
        }
    }
    table.insert(&v4, TargetId(1), 0).expect("room");
    assert_eq!(table.lookup(&mapped), None);
    assert_eq!(table.lookup(&v4).map(|conn| conn.key), Some(v4));
}

#[test]
fn limits_that_hold_nothing_are_refused() {
    for limits in [
        TableLimits { connections: 0, ..LIMITS },
        TableLimits { per_peer: 0, ..LIMITS },
        TableLimits { half_open_per_peer: 0, ..LIMITS },
        TableLimits { peers: 0, ..LIMITS },
        TableLimits { connections: usize::MAX, ..LIMITS },
    ] {
        assert!(ConnectionTable::new(limits, [0, 0]).is_err());
    }
}
