//! The leases one core holds: numbers rise, none comes twice, none after its time.
#![cfg(not(loom))]

use phalanx_ipsec::{Lease, LeaseSlot, Refusal};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn lease(first: u64, len: u32) -> Lease {
    Lease::from_wire(first, len)
}

#[test]
fn an_empty_slot_asks_once_and_again_when_nobody_answers() {
    let mut slot = LeaseSlot::new();
    assert_eq!(slot.wants(0), None, "nobody needs a number yet");
    assert_eq!(slot.take(0), None);
    let want = slot.wants(10).unwrap();
    assert!(want.want >= 1);
    assert_eq!(slot.requested_at(), Some(10));
    assert_eq!(slot.wants(20), None);
    assert!(slot.wants(60_000).is_some(), "a lost request is repeated");
    slot.offer(60_500, lease(7, 4), 70_000).unwrap();
    assert_eq!(slot.requested_at(), None);
    assert_eq!(slot.take(60_600).unwrap().value(), 7);
}

#[test]
fn an_idle_slot_lets_its_numbers_age_and_stays_silent() {
    let mut slot = LeaseSlot::new();
    slot.offer(0, lease(1, 8), 5_000).unwrap();
    assert_eq!(slot.take(10).unwrap().value(), 1);
    assert_eq!(slot.wants(100_000), None);
    assert_eq!((slot.thrown_away(), slot.done_below(), slot.remaining()), (7, 9, 0));
}

#[test]
fn the_next_lease_is_asked_for_before_the_first_is_used_up() {
    let mut slot = LeaseSlot::new();
    slot.offer(0, lease(1, 8), 50_000).unwrap();
    let mut asked_at = None;
    for now in 0..8 {
        slot.take(now * 10).unwrap();
        if slot.wants(now * 10).is_some() {
            asked_at.get_or_insert(slot.remaining());
        }
    }
    assert!(asked_at.unwrap() >= 4);
}

#[test]
fn a_steady_sender_asks_for_what_its_rate_needs() {
    let mut slot = LeaseSlot::new();
    let (mut now, mut first) = (0u64, 1u64);
    let mut last = None;
    // 100,000 packets per second, answers after 1 ms.
    let mut due: Option<(u64, u32)> = None;
    let mut starved = 0;
    for _ in 0..20_000 {
        now += 10;
        if let Some((at, n)) = due
            && now >= at
        {
            slot.offer(now, lease(first, n), now + 20_000).unwrap();
            first += u64::from(n);
            due = None;
        }
        if slot.take(now).is_none() && now > 100_000 {
            starved += 1;
        }
        if let Some(want) = slot.wants(now) {
            due = Some((now + 1_000, want.want));
            last = Some(want);
        }
    }
    let last = last.unwrap();
    assert!((90_000..110_000).contains(&last.rate), "{last:?}");
    assert!((1_800..2_400).contains(&last.want), "for 20 ms: {last:?}");
    assert_eq!(starved, 0, "once the rate is known nobody waits");
}

/// How often a sender of 500 packets a second found no number, when each lease is good for 20 ms and answers take so long in turn.
fn starved(answers_us: [u64; 4]) -> u32 {
    let (mut slot, mut first, mut due, mut starved) = (LeaseSlot::new(), 1, None, 0);
    let mut answers = answers_us.into_iter().cycle();
    for now in (0..4_000_000).step_by(100) {
        if let Some((at, n)) = due.filter(|(at, _)| now >= *at) {
            let _ = slot.offer(now, lease(first, n), at + 20_000);
            (first, due) = (first + u64::from(n), None);
        }
        let begun = now > 100_000;
        starved += u32::from(now % 2_000 == 0 && slot.take(now).is_none() && begun);
        if let (Some(want), None) = (slot.wants(now), due) {
            due = Some((now + answers.next().unwrap_or_default(), want.want.min(16)));
        }
    }
    starved
}

#[test]
fn where_answers_come_now_soon_now_late_numbers_are_asked_for_earlier() {
    assert_eq!(starved([1_000; 4]), 0);
    assert_eq!(starved([500, 500, 6_000, 500]), 0);
    assert_eq!(starved([500, 8_000, 500, 3_000]), 0);
}

#[test]
fn a_reply_that_came_late_or_twice_is_refused() {
    let mut slot = LeaseSlot::new();
    slot.offer(0, lease(100, 10), 1_000).unwrap();
    assert_eq!(slot.offer(1, lease(100, 10), 1_000), Err(Refusal::Stale));
    assert_eq!(slot.offer(1, lease(50, 10), 1_000), Err(Refusal::Stale));
    assert_eq!(slot.offer(1, lease(109, 10), 1_000), Err(Refusal::Stale));
    assert_eq!(slot.refused(), 3);
    assert_eq!(slot.offer(2_000, lease(110, 10), 1_500), Err(Refusal::Expired));
    slot.offer(1, lease(120, 10), 1_000).unwrap();
    assert_eq!(slot.offer(1, lease(130, 10), 1_000), Err(Refusal::Full));
    assert_eq!(slot.thrown_away(), 20);
    slot.clear();
    assert_eq!((slot.done_below(), slot.take(2)), (140, None));
}

#[derive(Clone, Debug)]
enum Step {
    Take,
    Offer { first: u64, len: u32, valid: u64 },
    Wait(u64),
    Wants,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Take),
        3 => (0u64..400, 0u32..20, 0u64..3000).prop_map(|(first, len, valid)| Step::Offer { first, len, valid }),
        2 => (0u64..1500).prop_map(Step::Wait),
        2 => Just(Step::Wants),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_is_offered_numbers_rise_come_once_and_only_in_their_time(steps in prop::collection::vec(step(), 0..300)) {
        let mut slot = LeaseSlot::new();
        let mut now = 0;
        // Every number that an accepted lease brought, and until when.
        let mut valid: Vec<(u64, u64)> = vec![];
        let mut used = BTreeSet::new();
        let mut done = 0;
        for step in steps {
            match step {
                Step::Take => {
                    if let Some(seq) = slot.take(now) {
                        let seq = seq.value();
                        prop_assert!(used.last().is_none_or(|last| *last < seq), "{} after {:?}", seq, used.last());
                        prop_assert!(seq >= done, "{} although all below {} were said to be done", seq, done);
                        prop_assert!(valid.iter().any(|(n, until)| *n == seq && now < *until));
                        used.insert(seq);
                    }
                }
                Step::Offer { first, len, valid: time } => {
                    if slot.offer(now, lease(first, len), now + time).is_ok() {
                        valid.extend((first..first + u64::from(len)).map(|n| (n, now + time)));
                    }
                }
                Step::Wait(time) => now += time,
                Step::Wants => done = slot.wants(now).map_or(done, |want| want.done_below),
                Step::Clear => slot.clear(),
            }
            prop_assert!(slot.done_below() >= done);
            prop_assert!(used.last().is_none_or(|last| slot.done_below() > *last));
        }
    }
}
