//! Children of AH: what becomes of them between two endpoints, and where there are none.

mod common;

use common::*;
use phalanx_ike::auth::IdentityPattern;
use phalanx_ike::*;
use phalanx_ipsec::Algorithm;

#[test]
fn children_of_ah_are_agreed_upon_rekeyed_and_deleted_by_either_end() {
    for (n, algorithm) in Algorithm::AH.into_iter().enumerate() {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        change(&mut a, |c| c.proposal.algorithms = Algorithm::AH.to_vec());
        change(&mut b, |c| {
            c.proposal.algorithms = vec![algorithm];
            c.start = false;
        });
        let mut bed = Bed::tried(a, b);
        bed.is_up(1);
        for by in [n % 2, (n + 1) % 2] {
            let child = bed.only_child(by);
            bed.command(by, Command::RekeyChild { child });
            bed.run(5_000);
            bed.is_up(1);
            assert_eq!(bed.nodes[by].installed[&bed.only_child(by)].sa.algorithm, algorithm);
        }
        let child = bed.only_child(1);
        bed.command(1, Command::Terminate(Which::Child(child)));
        bed.run(500);
        assert!(bed.nodes.iter().all(|node| node.installed.is_empty()), "{}", bed.told());
    }
}

#[test]
fn ah_and_esp_have_nothing_in_common() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    change(&mut a, |c| c.proposal.algorithms = vec![Algorithm::AhHmacSha256]);
    let bed = Bed::tried(a, b);
    assert!(bed.nodes[1].installed.is_empty());
    assert!(bed.nodes[1].says("the peer offered AH sha256"), "{}", bed.told());
}

#[test]
fn through_a_nat_there_is_no_ah_and_both_ends_say_so() {
    for (here, there) in [
        (vec![Algorithm::AhHmacSha256], Algorithm::AH[..1].to_vec()),
        (Algorithm::ESP[..1].to_vec(), Algorithm::AH[..1].to_vec()),
    ] {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        (b.remote, b.remote_id) = (Remote::Any, IdentityPattern::Any);
        let says = usize::from(!here[0].is_ah());
        change(&mut a, |c| c.proposal.algorithms = here.clone());
        change(&mut b, |c| c.proposal.algorithms = there.clone());
        let mut bed = Bed::with(a, b);
        bed.nat = Some("192.0.2.1:20000".parse().unwrap());
        bed.initiate(0);
        bed.run(1000);
        assert!(bed.nodes.iter().all(|node| node.installed.is_empty()));
        assert!(bed.nodes[says].says("AH cannot pass the NAT between us"), "{}", bed.told());
    }
}
