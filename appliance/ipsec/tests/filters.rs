//! The tree of rules finds what going through them one by one finds, in few steps, whatever the rules are.
#![cfg(not(loom))]

mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use phalanx_ipsec::{Action, Filter, FilterTable, Flows, PortRange, Prefix, Selectors, Subject};
use phalanx_wire::VipId;
use proptest::prelude::*;
use rules::{filter, first_match, local, packet_of, realistic};

/// Addresses that share long prefixes, so that blocks nest and overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    let bits =
        prop_oneof![Just(0u32), Just(1), Just(0x8000_0000), Just(0x0a4d_0064), Just(u32::MAX), 0u32..8, any::<u32>()];
    (bits, any::<bool>(), 0u32..4).prop_map(|(bits, v4, low)| {
        if v4 {
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 96 | u128::from(low)))
        }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let len = prop_oneof![Just(0u8), Just(128), 0u8..=32, 0u8..=128];
    (address(), len).prop_map(|(address, len)| match address {
        IpAddr::V4(a) => {
            let len = len.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask)), len).unwrap()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Prefix::new(IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask)), len).unwrap()
        }
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(u16::MAX), Just(80), 75u16..90, any::<u16>()]
}

fn range() -> impl Strategy<Value = PortRange> {
    let any_range = (port(), port()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    prop_oneof![Just(PortRange::ANY), port().prop_map(PortRange::one), any_range]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(6u8), Just(17), Just(1), Just(0), Just(255)]
}

fn selectors() -> impl Strategy<Value = Selectors> {
    (prefix(), prefix(), prop::option::of(protocol()), range(), range()).prop_map(
        |(local, remote, protocol, local_ports, remote_ports)| Selectors {
            local,
            remote,
            protocol,
            local_ports,
            remote_ports,
        },
    )
}

/// Rules out of few parts: many agree in some of them, and some in all.
fn rule_set() -> impl Strategy<Value = Vec<Filter>> {
    let parts = (
        prop::collection::vec(prefix(), 1..6),
        prop::collection::vec(prefix(), 1..12),
        prop::collection::vec(range(), 1..8),
    );
    parts.prop_flat_map(|(locals, remotes, ranges)| {
        let one = (
            (prop::sample::select(locals), prop::sample::select(remotes)),
            prop::option::of(protocol()),
            (prop::sample::select(ranges.clone()), prop::sample::select(ranges)),
            1u16..4,
        );
        let of_parts = one.prop_map(|((local, remote), protocol, (local_ports, remote_ports), vip)| Filter {
            vip: VipId(vip),
            selectors: Selectors { local, remote, protocol, local_ports, remote_ports },
            action: Action::Deny,
            log: false,
        });
        let of_anything = selectors().prop_map(|selectors| filter(selectors, Action::Permit));
        prop::collection::vec(prop_oneof![4 => of_parts, 1 => of_anything], 0..120)
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    (address(), address(), protocol(), prop::option::of(port()), prop::option::of(port())).prop_map(
        |(local, remote, protocol, local_port, remote_port)| Subject {
            local,
            remote,
            protocol,
            local_port,
            remote_port,
        },
    )
}

/// Packets of rules, which is where ends meet, without ports at times, and others.
fn packets(rules: &[Filter], others: &[Subject], corners: u32) -> Vec<Subject> {
    let mut all = others.to_vec();
    for (rule, at) in rules.iter().zip(0u32..) {
        let packet = packet_of(rule, corners.rotate_left(at * 5));
        all.extend([packet, Subject { local_port: None, remote_port: None, ..packet }]);
        all.extend(others.first().map(|other| Subject { remote: other.remote, ..packet }));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_first_match_decides_whatever_the_rules(
        rules in rule_set(),
        others in prop::collection::vec(subject(), 1..20),
        corners: u32,
        routers in 0usize..4,
    ) {
        let ranked = (0..).zip(rules.clone()).collect();
        let vips: Vec<(VipId, usize)> = (1..5).map(|vip| (VipId(vip), usize::from(vip) & routers)).collect();
        let table = FilterTable::ranked(ranked, &vips).remembering(Flows::new(64));
        // Twice: the second time flows are known.
        for subject in packets(&rules, &others, corners).into_iter().flat_map(|subject| [subject, subject]) {
            for vip in (1..5).map(VipId) {
                let expected = first_match(&rules, |of| of == vip, &subject);
                prop_assert_eq!(table.find(vip, &subject), expected);
                let (found, steps) = table.find_counted(vip, &subject);
                prop_assert_eq!(found, expected);
                prop_assert!(steps <= table.worst(), "{} of {} steps", steps, table.worst());
                let alike = |of: VipId| usize::from(of.0) & routers == usize::from(vip.0) & routers;
                prop_assert_eq!(table.seek_together(vip, &subject).0, first_match(&rules, alike, &subject));
            }
        }
    }

    #[test]
    fn rules_that_came_since_decide_by_their_ranks_as_if_they_had_always_been_there(
        rules in rule_set(),
        newer: u128,
        others in prop::collection::vec(subject(), 1..20),
        corners: u32,
        routers in 0usize..4,
    ) {
        let vips: Vec<(VipId, usize)> = (1..5).map(|vip| (VipId(vip), usize::from(vip) & routers)).collect();
        let ranked = (0u32..).zip(rules.clone());
        let (late, early): (Vec<_>, Vec<_>) = ranked.partition(|(rank, _)| newer >> rank & 1 == 1);
        let table = FilterTable::ranked(early, &vips).extended(late);
        prop_assume!(table.is_some());
        let table = table.unwrap().remembering(Flows::new(64));
        for subject in packets(&rules, &others, corners).into_iter().flat_map(|subject| [subject, subject]) {
            for vip in (1..5).map(VipId) {
                let rank = |found: Option<usize>| found.map(|at| table.rank(at) as usize);
                let expected = first_match(&rules, |of| of == vip, &subject);
                prop_assert_eq!(rank(table.find(vip, &subject)), expected);
                prop_assert_eq!(table.find(vip, &subject).map(|at| *table.filter(at)), expected.map(|at| rules[at]));
                prop_assert!(table.find_counted(vip, &subject).1 <= table.worst());
                let alike = |of: VipId| usize::from(of.0) & routers == usize::from(vip.0) & routers;
                let together = first_match(&rules, alike, &subject);
                prop_assert_eq!(rank(table.seek_together(vip, &subject).0), together);
            }
        }
    }
}

fn most_steps(table: &FilterTable, packets: impl Iterator<Item = Subject>) -> u32 {
    packets.map(|subject| table.find_counted(rules::VIP, &subject).1).max().unwrap_or(0)
}

/// Not timed, hence counted: tests run on busy machines.
#[test]
fn steps_of_a_new_flow_hardly_grow_with_the_rules() {
    for (count, bound) in [(1, 4), (100, 40), (10_000, 60), (100_000, 80)] {
        let rules = realistic(count);
        let table = FilterTable::new(rules.clone());
        let step = (count / 500).max(1);
        let packets = rules.iter().step_by(step).flat_map(|rule| (0..4).map(move |corner| packet_of(rule, corner * 5)));
        for subject in packets.clone().step_by(16) {
            assert_eq!(table.find(rules::VIP, &subject), first_match(&rules, |_| true, &subject));
        }
        let most = most_steps(&table, packets);
        let (shared, own) = table.bytes();
        println!("{count} rules: {most} steps seen, {} at most, {shared} B shared, {own} B of a core", table.worst());
        assert!(most <= bound && table.worst() <= 2 * bound, "{count} rules: {most} steps, worst {}", table.worst());
        assert!(shared <= 8192 + 512 * count, "{count} rules: {shared} bytes");
    }
}

/// Rules that a tree of cuts would need a piece for each combination of.
#[test]
fn rules_that_cross_each_other_take_bounded_memory_and_are_found_all_the_same() {
    let all = Selectors::between(Prefix::host(local()), Prefix::ANY_V4);
    let crossing = (0..5_000u16).map(|n| {
        // Ranges inside each other one way, and inside out the other way.
        let local_ports = PortRange::new(n, 60_000 - n).unwrap();
        let remote_ports = PortRange::new(30_000 - n * 3, 30_000 + n * 3).unwrap();
        filter(Selectors { local_ports, remote_ports, ..all }, Action::Deny)
    });
    let nested = (0..5_000u32).map(|n| {
        let len = (n % 33) as u8;
        let bits = 0x0a80_0000 & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        let remote = Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), len).unwrap();
        filter(Selectors { remote, local_ports: PortRange::one((n * 7) as u16), ..all }, Action::Deny)
    });
    for rules in [crossing.collect::<Vec<_>>(), nested.collect()] {
        let table = FilterTable::new(rules.clone());
        let (shared, _) = table.bytes();
        println!("{} steps at most, {shared} B", table.worst());
        assert!(shared <= 15_000 * rules.len(), "{shared} bytes");
        for rule in rules.iter().step_by(101) {
            for corner in 0..16 {
                let subject = packet_of(rule, corner);
                let (found, steps) = table.find_counted(rules::VIP, &subject);
                assert_eq!(found, first_match(&rules, |_| true, &subject));
                assert!(steps <= table.worst());
            }
        }
    }
}

#[test]
fn rules_that_say_the_same_count_once() {
    let rule = filter(Selectors::between(Prefix::host(local()), Prefix::ANY_V4), Action::Deny);
    let table = FilterTable::new(vec![rule; 50_000]);
    let (found, steps) = table.find_counted(rules::VIP, &packet_of(&rule, 0));
    assert_eq!(found, Some(0));
    assert!(steps <= 4, "{steps}");
}
