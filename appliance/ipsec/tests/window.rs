//! The replay window against a model that is nothing but the words of RFC 4303: a set of accepted numbers.
#![cfg(not(loom))]

use phalanx_ipsec::{ReplayWindow, Role, WindowSnapshot};
use phalanx_wire::DropReason;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// RFC 4303 §3.4.3: accepted numbers are remembered; right of the window moves it, in it once, left of it never.
#[derive(Clone, Debug)]
struct Model {
    accepted: BTreeSet<u64>,
    top: u64,
    floor: u64,
    size: u64,
    esn: bool,
}

impl Model {
    fn new(size: u32, esn: bool) -> Model {
        Model { accepted: BTreeSet::new(), top: 0, floor: 0, size: u64::from(size), esn }
    }

    fn check(&self, seq: u64) -> Result<(), DropReason> {
        if seq == 0 || (!self.esn && seq > 0xffff_ffff) {
            Err(DropReason::SequenceWrap)
        } else if seq <= self.floor || seq + self.size <= self.top {
            Err(DropReason::TooOld)
        } else if self.accepted.contains(&seq) {
            Err(DropReason::Replay)
        } else {
            Ok(())
        }
    }

    fn commit(&mut self, seq: u64) -> Result<(), DropReason> {
        self.check(seq)?;
        self.accepted.insert(seq);
        self.top = self.top.max(seq);
        Ok(())
    }

    /// RFC 4303 appendix A2: of all numbers with these low bits the one in 2^32 numbers from the window's left edge on.
    fn infer(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(u64::from(low));
        }
        let left = i128::from(self.top) - i128::from(self.size) + 1;
        let range = left..left + (1i128 << 32);
        let high = i128::from(self.top >> 32);
        let candidates = (high - 1..=high + 1).map(|h| (h << 32) + i128::from(low));
        candidates.into_iter().find(|seq| range.contains(seq)).and_then(|seq| u64::try_from(seq).ok())
    }
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![Just(32u32), Just(64), Just(96), Just(128), Just(1024), Just(65536), (1u32..=2048).prop_map(|n| 32 * n),]
}

/// Where a run begins: at the start, before and behind the wraps of the low half, and anywhere.
fn start() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), Just((1 << 32) - 40), Just((1 << 33) - 3), Just(7 << 32), (0u64..1 << 40),]
}

/// Steps relative to the edge: near it, about a window behind, far ahead.
fn step(size: u32) -> impl Strategy<Value = i64> {
    let size = i64::from(size);
    prop_oneof![
        4 => -8i64..8,
        2 => -size - 3..3,
        2 => -size - 2..-size + 3,
        1 => 0..3 * size,
        1 => 0i64..200_000,
    ]
}

fn runs() -> impl Strategy<Value = (u32, bool, u64, Vec<i64>)> {
    (size(), any::<bool>(), start()).prop_flat_map(|(size, esn, start)| {
        let start = if esn { start } else { start.min(0xffff_ff00) };
        (Just(size), Just(esn), Just(start), prop::collection::vec(step(size), 1..300))
    })
}

fn at(model: &Model, step: i64) -> u64 {
    model.top.saturating_add_signed(step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_window_decides_as_the_set_does((size, esn, start, steps) in runs()) {
        let mut window = ReplayWindow::new(size, esn);
        let mut model = Model::new(size, esn);
        prop_assert_eq!(window.commit(start), model.commit(start));
        for step in steps {
            let seq = at(&model, step);
            prop_assert_eq!(window.check(seq), model.check(seq), "check {}", seq);
            prop_assert_eq!(window.commit(seq), model.commit(seq), "commit {}", seq);
            prop_assert_eq!(window.edge(), model.top);
        }
    }

    /// A row of numbers is committed as one by one, or not at all.
    #[test]
    fn a_row_is_taken_as_its_numbers_are((size, esn, start, steps) in runs(), counts in prop::collection::vec(0u32..200, 64)) {
        let mut window = ReplayWindow::new(size, esn);
        let mut model = Model::new(size, esn);
        let _ = (window.commit(start), model.commit(start));
        for (step, count) in steps.into_iter().zip(counts) {
            let (first, before) = (at(&model, step), window.snapshot());
            let row = first..first + u64::from(count);
            let ahead = first > window.edge() && count > 0 && count <= size && row.clone().all(|seq| model.check(seq).is_ok());
            prop_assert_eq!(window.commit_row(first, count), ahead);
            if ahead {
                row.for_each(|seq| model.commit(seq).unwrap());
            } else {
                prop_assert_eq!(window.snapshot(), before);
            }
            prop_assert_eq!(window.edge(), model.top);
            let low = model.top.saturating_sub(u64::from(size) + 70);
            for seq in (low..low + 140).chain(model.top.saturating_sub(300)..model.top + 70) {
                prop_assert_eq!(window.check(seq), model.check(seq), "check {}", seq);
            }
        }
    }

    #[test]
    fn the_high_half_is_inferred_as_appendix_a_says((size, esn, start, steps) in runs(), lows in prop::collection::vec(any::<u32>(), 16)) {
        let mut window = ReplayWindow::new(size, esn);
        let mut model = Model::new(size, esn);
        let _ = (window.commit(start), model.commit(start));
        for step in steps {
            let seq = at(&model, step);
            prop_assert_eq!(window.infer(seq as u32), model.infer(seq as u32), "{:#x} at {:#x}", seq, model.top);
            let _ = (window.commit(seq), model.commit(seq));
        }
        for low in lows {
            prop_assert_eq!(window.infer(low), model.infer(low), "{:#x} at {:#x}", low, model.top);
        }
    }

    #[test]
    fn a_peer_that_counts_through_the_wrap_is_followed_whatever_order_packets_come_in(
        size in size(), shuffle in prop::collection::vec(0u64..20, 200),
    ) {
        let mut window = ReplayWindow::new(size, true);
        let start = (5u64 << 32) - 100;
        // The packet before told where the peer is.
        window.commit(start - 1).unwrap();
        let mut order: Vec<u64> = (0..200).collect();
        order.sort_by_key(|i| i + shuffle[*i as usize]);
        for i in order {
            let seq = start + i;
            prop_assert_eq!(window.infer(seq as u32), Some(seq));
            prop_assert_eq!(window.commit(seq), Ok(()));
            prop_assert_eq!(window.commit(seq), Err(DropReason::Replay));
        }
    }

    #[test]
    fn a_merge_refuses_what_either_accepted_and_nothing_else_in_the_window(
        sizes in (size(), size()), start in start(), apart in -70_000i64..70_000,
        mine in prop::collection::vec(step(1024), 0..80), theirs in prop::collection::vec(step(1024), 0..80), floor in prop::option::of(0u64..100),
    ) {
        let mut windows = [ReplayWindow::new(sizes.0, true), ReplayWindow::new(sizes.1, true)];
        let mut models = [Model::new(sizes.0, true), Model::new(sizes.1, true)];
        for (i, (steps, start)) in [(mine, start), (theirs, start.saturating_add_signed(apart))].into_iter().enumerate() {
            let _ = (windows[i].commit(start), models[i].commit(start));
            for step in steps {
                let seq = at(&models[i], step);
                let _ = (windows[i].commit(seq), models[i].commit(seq));
            }
        }
        if let Some(floor) = floor {
            windows[1].raise_floor(start + floor);
            models[1].floor = start + floor;
            models[1].top = models[1].top.max(start + floor);
        }
        let snapshot = windows[1].snapshot();
        windows[0].merge(&snapshot);
        // What the sender's window still spans is what a snapshot can tell.
        let [mut model, other] = models;
        let known = other.accepted.iter().filter(|seq| **seq + other.size > other.top);
        model.accepted.extend(known);
        model.top = model.top.max(other.top);
        model.floor = model.floor.max(other.floor);
        prop_assert_eq!(windows[0].edge(), model.top);
        // Words are merged whole: what the other had accepted a little left of its window is refused as well.
        for seq in (model.top.saturating_sub(model.size + 70)..model.top + 70).chain(model.accepted.clone()) {
            let (window, model) = (windows[0].check(seq), model.check(seq));
            prop_assert!(window == model || (window == Err(DropReason::Replay) && other.accepted.contains(&seq)), "{seq}: {window:?} {model:?}");
        }
    }

    #[test]
    fn a_floor_refuses_everything_up_to_it_and_the_high_half_follows_it(size in size(), floor in 1u64..1 << 40, ahead in 1u64..1 << 20) {
        let mut window = ReplayWindow::new(size, true);
        window.commit(3).unwrap();
        window.raise_floor(floor);
        prop_assert_eq!(window.check(floor), Err(DropReason::TooOld));
        prop_assert_eq!(window.infer((floor + ahead) as u32), Some(floor + ahead));
        prop_assert_eq!(window.commit(floor + ahead), Ok(()));
        window.raise_floor(floor - 1);
        prop_assert_eq!(window.check(floor), Err(DropReason::TooOld));
    }

    #[test]
    fn a_snapshot_holds_exactly_what_was_accepted((size, esn, start, steps) in runs()) {
        let mut window = ReplayWindow::new(size, esn);
        let mut model = Model::new(size, esn);
        let _ = (window.commit(start), model.commit(start));
        for step in steps {
            let seq = at(&model, step);
            let _ = (window.commit(seq), model.commit(seq));
        }
        let snapshot = window.snapshot();
        prop_assert_eq!(snapshot.edge, model.top);
        for seq in model.top.saturating_sub(u64::from(size) - 1)..=model.top {
            prop_assert_eq!(snapshot.contains(seq), model.accepted.contains(&seq), "{}", seq);
        }
        let mut reused = WindowSnapshot::with_room_for(size);
        let memory = reused.words.as_ptr();
        window.snapshot_into(&mut reused);
        prop_assert_eq!(memory, reused.words.as_ptr(), "snapshot_into allocated");
        prop_assert_eq!(reused, snapshot);
    }

    #[test]
    fn no_snapshot_however_wrong_makes_a_window_panic_or_accept_twice(
        size in size(), esn in any::<bool>(), edge in any::<u64>(), floor in any::<u64>(), words in prop::collection::vec(any::<u64>(), 0..40), seqs in prop::collection::vec(any::<u64>(), 0..20),
    ) {
        let mut window = ReplayWindow::new(size, esn);
        let mut taken = BTreeSet::new();
        for seq in seqs {
            if window.commit(seq).is_ok() {
                prop_assert!(taken.insert(seq));
            }
            window.merge(&WindowSnapshot { edge, floor: floor.min(edge), words: words.clone() });
            let _ = (window.infer(seq as u32), window.snapshot());
        }
        for seq in taken {
            prop_assert!(window.check(seq).is_err());
        }
    }
}

#[test]
fn a_hint_leads_a_window_that_slept_through_a_wrap() {
    let mut window = ReplayWindow::new(64, true);
    window.commit(10).unwrap();
    assert_eq!(window.infer(11), Some(11));
    let seq = window.infer_with_hint(11, 2);
    assert_eq!(seq, (2 << 32) + 11);
    window.commit(seq).unwrap();
    assert_eq!(window.infer(12), Some((2 << 32) + 12));
    assert_eq!(ReplayWindow::new(64, false).infer_with_hint(11, 2), 11);
}

#[test]
fn a_window_that_began_empty_is_led_by_what_is_known_of_the_peer() {
    let mut window = ReplayWindow::new(64, true);
    let reached = (3 << 32) + 5;
    assert_eq!(window.infer(6), Some(6));
    assert_eq!(window.infer_above(6, reached), Some(reached + 1));
    assert_eq!(window.infer_above(u32::MAX, reached), Some((3 << 32) - 1));
    assert_eq!(window.check(reached + 1), Ok(()));
    window.commit((4 << 32) + 100).unwrap();
    assert_eq!(window.infer_above(101, reached), Some((4 << 32) + 101), "what it knows itself is newer");
}

#[test]
fn a_bound_far_ahead_of_the_peer_does_not_make_its_next_numbers_unintelligible() {
    // After a restart: the ceiling was raised ahead of a fast peer by more than its small window.
    let mut window = ReplayWindow::new(64, true);
    for ahead in [0, 1, 64, 4096, 65_536] {
        for edge in [5, 70_000, (7 << 32) + 10, (7 << 32) - 10] {
            assert_eq!(window.infer_above(edge as u32 + 1, edge + ahead), Some(edge + 1), "{edge} + {ahead}");
        }
    }
    // What it was told by its targets since is behind the bound, and changes nothing.
    window.commit(100).unwrap();
    assert_eq!(window.infer_above(101, 4096), Some(101));
}

#[test]
fn without_64_bit_numbers_there_is_nothing_above_32_bits() {
    let mut window = ReplayWindow::new(64, false);
    window.commit(u64::from(u32::MAX)).unwrap();
    assert_eq!(window.check(1 << 32), Err(DropReason::SequenceWrap));
    assert_eq!(window.infer(3), Some(3));
    assert_eq!(window.check(3), Err(DropReason::TooOld));
}

#[test]
fn a_reader_never_sees_a_number_that_was_not_accepted_while_the_writer_runs() {
    // The writer accepts multiples of 3 only, in leaps that go round the ring.
    let mut window = ReplayWindow::new(64, true);
    let shared = window.shared().clone();
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        let mut seen = 0u32;
        while last < 3_000_000 {
            let snapshot = shared.of(Role::Target).snapshot();
            assert!(snapshot.edge >= last);
            last = snapshot.edge;
            for seq in last.saturating_sub(63)..=last {
                if snapshot.contains(seq) {
                    assert!(seq.is_multiple_of(3) && seq > 0, "{seq} was never accepted");
                    seen += 1;
                }
            }
            assert!(last == 0 || snapshot.contains(last));
        }
        seen
    });
    let mut seq = 0;
    while seq < 3_000_000 {
        seq += [3, 3, 3, 60, 3, 600, 3, 0x300][(seq / 3 % 8) as usize];
        window.commit(seq).unwrap();
    }
    assert!(reader.join().unwrap() > 0);
}

#[test]
fn half_of_the_high_half_is_enough_unless_a_window_is_2_to_48_behind() {
    let mut window = ReplayWindow::new(64, true);
    for edge in [0, 1, 1 << 32, 7 << 32, (1 << 48) - 1, 1 << 48, (1 << 50) + 5] {
        window.raise_floor(edge);
        for ahead in [1, 1 << 31, 1 << 32, 1 << 40, (1 << 48) - (1 << 33)] {
            let seq = edge + ahead;
            assert_eq!(window.infer_with_half(seq as u32, (seq >> 32) as u16), seq, "{edge} {ahead}");
        }
        let behind = edge.saturating_sub(100);
        assert_eq!(window.infer_with_half(behind as u32, (behind >> 32) as u16), behind);
    }
    assert_eq!(ReplayWindow::new(64, false).infer_with_half(9, 3), 9);
}
