//! Two endpoints over a network that loses, repeats, delays and reorders: in the end both have the same SAs, or none.

mod common;

use common::*;
use phalanx_ike::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Initiate,
    RekeyChild,
    RekeyIke,
    Reauthenticate,
    EndChild,
    EndIke,
    Probe,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Initiate),
        6 => Just(Act::RekeyChild),
        6 => Just(Act::RekeyIke),
        1 => Just(Act::Reauthenticate),
        1 => Just(Act::EndChild),
        1 => Just(Act::EndIke),
        1 => Just(Act::Probe),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..40u64, 0..40u64, 1..50u64, 0..600u64).prop_map(|(lost, twice, delay, jitter)| Weather {
        lost,
        twice,
        delay,
        jitter,
    })
}

fn follow(bed: &mut Bed, n: usize, act: &Act) {
    let ike = bed.nodes[n].ikes(bed.now).iter().find(|r| r.state == "established").map(|r| r.id);
    let child = bed.nodes[n].installed.keys().next_back().copied();
    let command = match (act, ike, child) {
        (Act::Initiate, ..) => Command::Initiate { peer: "other".to_owned(), child: None },
        (Act::RekeyChild, _, Some(child)) => Command::RekeyChild { child },
        (Act::EndChild, _, Some(child)) => Command::Terminate(Which::Child(child)),
        (Act::RekeyIke, Some(ike), _) => Command::RekeyIke { ike },
        (Act::Reauthenticate, Some(ike), _) => Command::Reauthenticate { ike },
        (Act::EndIke, Some(ike), _) => Command::Terminate(Which::Ike(ike)),
        (Act::Probe, Some(ike), _) => Command::Probe { ike },
        _ => return,
    };
    // What is not there any more cannot be told anything.
    let _ = bed.nodes[n].endpoint.command(bed.now, command);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_come_to_the_same(
        seed in any::<u64>(),
        weather in weather(),
        pfs in any::<bool>(),
        install in 0..400u64,
        acts in prop::collection::vec((0..2usize, 0..3000u64, act()), 0..14),
    ) {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        for p in [&mut a, &mut b] {
            p.liveness_ms = 10_000;
            if pfs {
                change(p, |c| c.proposal.groups = vec![crypto::Group::X25519]);
            }
        }
        let mut bed = Bed::seeded(config(a), config(b), seed);
        bed.nodes[1].install = Install::After(install);
        bed.initiate(0);
        bed.run(500);
        bed.weather = weather;
        for (n, wait, act) in &acts {
            bed.run(*wait);
            follow(&mut bed, *n, act);
        }
        bed.run(20_000);
        bed.weather = Weather { delay: 5, ..Weather::default() };
        bed.run(240_000);
        bed.agree();
        let ikes = bed.nodes[0].ikes(bed.now);
        prop_assert!(ikes.len() <= 1, "{ikes:#?}\n{}", bed.told());
        // Who ends a successor and asks for another one while the old one is still there may get both.
        let ended = acts.iter().any(|(_, _, act)| matches!(act, Act::EndChild));
        prop_assert!(ended || bed.nodes[0].installed.len() <= 1, "{}", bed.told());
        for row in ikes {
            prop_assert_eq!(row.state, "established");
            prop_assert!(row.children.iter().all(|c| c.state == "up"), "{}", bed.told());
        }
    }
}
