//! What can go otherwise when an IKE SA is set up: what is refused, asked again, cut into pieces, sent through a NAT.

mod common;
mod pki;

use common::*;
use phalanx_ike::auth::{Identity, IdentityPattern, Trust};
use phalanx_ike::crypto::{AesBits, Cipher, Group, Integrity, Prf, Secret};
use phalanx_ike::*;
use phalanx_ipsec::Algorithm;
use std::sync::Arc;

#[test]
fn every_cipher_prf_and_group_works() {
    let ciphers = [
        Cipher::AesGcm16 { bits: AesBits::B128 },
        Cipher::AesGcm16 { bits: AesBits::B256 },
        Cipher::ChaCha20Poly1305,
        Cipher::AesCbc { bits: AesBits::B128, integrity: Integrity::HmacSha256_128 },
        Cipher::AesCbc { bits: AesBits::B256, integrity: Integrity::HmacSha384_192 },
        Cipher::AesCbc { bits: AesBits::B256, integrity: Integrity::HmacSha512_256 },
    ];
    for n in 0..7 {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        for p in [&mut a, &mut b] {
            p.proposal = IkeProposal {
                ciphers: vec![ciphers[n % ciphers.len()]],
                prfs: vec![Prf::ALL[n % 3]],
                groups: vec![Group::ALL[n]],
            };
            change(p, |c| c.proposal.groups = vec![Group::ALL[n]]);
        }
        let mut bed = Bed::tried(a, b);
        bed.is_up(1);
        let (ike, child) = (bed.ike(1), bed.only_child(0));
        bed.command(0, Command::RekeyChild { child });
        bed.run(5_000);
        bed.command(1, Command::RekeyIke { ike });
        bed.run(5_000);
        bed.is_up(1);
    }
}

#[test]
fn every_algorithm_of_esp_is_agreed_upon_with_keys_as_long_as_it_takes() {
    for algorithm in Algorithm::ESP {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        for p in [&mut a, &mut b] {
            change(p, |c| c.proposal.algorithms = vec![algorithm]);
        }
        let mut bed = Bed::tried(a, b);
        let judge = |bed: &Bed| {
            bed.is_up(1);
            let sa = &bed.nodes[0].installed[&bed.only_child(0)].sa;
            assert_eq!(sa.algorithm, algorithm);
            for key in [&sa.inbound.key, &sa.outbound.key] {
                assert_eq!(key.expose().len(), algorithm.material_len(), "{}", algorithm.name());
            }
        };
        judge(&bed);
        let child = bed.only_child(0);
        bed.command(0, Command::RekeyChild { child });
        bed.run(5_000);
        assert_ne!(bed.only_child(0), child);
        judge(&bed);
    }
}

#[test]
fn the_responders_preference_counts_and_costs_one_more_round() {
    let (a, mut b) = (peer(A, B), peer(B, A));
    b.proposal.groups = vec![Group::Ecp256, Group::X25519];
    change(&mut b, |c| c.proposal.algorithms.reverse());
    let bed = Bed::tried(a, b);
    bed.is_up(1);
    assert!(bed.nodes[0].ikes(bed.now)[0].suite.contains("ecp256"));
    assert_eq!(bed.nodes[0].installed[&bed.only_child(0)].sa.algorithm, Algorithm::Aes128Gcm16);
    assert_eq!(bed.nodes[0].sent, 3, "IKE_SA_INIT twice, IKE_AUTH once");
}

#[test]
fn nothing_in_common_is_said_in_words() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.proposal.groups = vec![Group::Modp2048];
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(
        bed.nodes[0].says("accepts nothing of what we offered: aes256-gcm16 prf-sha256 modp2048"),
        "{}",
        bed.told()
    );
    assert!(
        bed.nodes[1]
            .says("the peer offered aes256-gcm16 prf-sha256 modp2048; we accept aes256-gcm16 prf-sha256 x25519"),
        "{}",
        bed.told()
    );
}

#[test]
fn a_wrong_secret_is_refused_at_both_ends() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.credential = Credential::Psk(Secret::new(b"another".to_vec()));
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(bed.nodes[0].says("refused our authentication"), "{}", bed.told());
    assert!(bed.nodes[1].says("could not be authenticated") && bed.nodes[1].says("secret"), "{}", bed.told());
    // The other way about: the responder proves the wrong thing.
    let (a, mut b) = (peer(A, B), peer(B, A));
    b.credential = Credential::Psk(Secret::new(b"another".to_vec()));
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(bed.nodes[0].says("could not be authenticated"), "{}", bed.told());
    assert!(bed.nodes[1].says("refused our authentication"), "{}", bed.told());
}

#[test]
fn who_is_not_expected_is_refused() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.local_id = Identity::Fqdn("mallory.example".to_owned());
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(bed.nodes[1].says("no peer in the configuration at this address has the identity mallory.example"));
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.remote_id = IdentityPattern::Exactly(Identity::Fqdn("somebody.example".to_owned()));
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(bed.nodes[1].says("expects us to be somebody.example; we are 10.77.0.2"), "{}", bed.told());
}

#[test]
fn of_several_peers_at_one_address_the_identity_tells_which() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.local_id = Identity::Fqdn("two.example".to_owned());
    let mut other = peer(B, A);
    other.name = "two".into();
    other.remote = Remote::Any;
    other.remote_id = "*.example".parse().unwrap();
    let mut bed = Bed::new(config(a), Config { peers: vec![Arc::new(b), Arc::new(other)], ..Config::default() });
    bed.initiate(0);
    bed.run(1000);
    bed.is_up(1);
    assert_eq!(bed.nodes[1].ikes(bed.now)[0].peer.as_deref(), Some("two"));
}

#[test]
fn who_is_named_exactly_goes_before_who_is_one_of_many() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    a.local_id = Identity::Fqdn("two.example".to_owned());
    let named = |name: &str, pattern: &str| {
        let (name, remote_id) = (name.into(), pattern.parse().unwrap());
        Arc::new(PeerConfig { name, remote_id, ..b.clone() })
    };
    let peers = vec![named("any", "*"), named("many", "*.example"), named("two", "two.example")];
    let mut bed = Bed::new(config(a), Config { peers, ..Config::default() });
    bed.initiate(0);
    bed.run(1000);
    bed.is_up(1);
    assert_eq!(bed.nodes[1].ikes(bed.now)[0].peer.as_deref(), Some("two"));
}

#[test]
fn without_common_traffic_the_ike_sa_is_up_alone() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    change(&mut a, |c| c.remote = Some("10.3.0.0/16".parse().unwrap()));
    let bed = Bed::tried(a, b);
    bed.is_up(0);
    assert!(
        bed.nodes[0].says("accepts none of the traffic we offered: 10.1.0.0/16 with 10.3.0.0/16"),
        "{}",
        bed.told()
    );
    assert!(bed.nodes[1].says("no common traffic"), "{}", bed.told());
}

#[test]
fn selectors_become_what_both_have() {
    let (mut a, b) = (peer(A, B), peer(B, A));
    change(&mut a, |c| {
        (c.local, c.remote) = (Some("10.0.0.0/8".parse().unwrap()), Some("10.2.7.0/24".parse().unwrap()));
    });
    let bed = Bed::tried(a, b);
    bed.is_up(1);
    let selectors = bed.nodes[0].installed[&bed.only_child(0)].sa.selectors;
    assert_eq!((selectors.local, selectors.remote), ("10.1.0.0/16".parse().unwrap(), "10.2.7.0/24".parse().unwrap()));
}

#[test]
fn transport_mode_is_agreed_by_both_or_not_at_all() {
    let transport = |c: &mut ChildConfig| (c.mode, c.local, c.remote) = (ChildMode::Transport, None, None);
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    change(&mut a, transport);
    change(&mut b, transport);
    let mut bed = Bed::tried(a.clone(), b);
    bed.is_up(1);
    let child = bed.only_child(0);
    let sa = &bed.nodes[0].installed[&child].sa;
    assert_eq!((sa.mode, sa.selectors.remote, sa.original), (ChildMode::Transport, B.parse().unwrap(), None));
    bed.command(1, Command::RekeyChild { child: bed.only_child(1) });
    bed.run(5_000);
    bed.is_up(1);
    let mut b = peer(B, A);
    change(&mut b, |c| (c.local, c.remote) = (None, None));
    let bed = Bed::tried(a, b);
    bed.is_up(0);
    assert!(bed.nodes[0].says("refuses transport mode"), "{}", bed.told());
}

#[test]
fn numbers_of_64_bits_are_agreed_by_preference() {
    for (ours, theirs, esn) in [
        (vec![true, false], vec![false], false),
        (vec![true], vec![true], true),
        (vec![true, false], vec![false, true], false),
    ] {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        change(&mut a, |c| c.proposal.esn = ours.clone());
        change(&mut b, |c| c.proposal.esn = theirs.clone());
        let bed = Bed::tried(a, b);
        bed.is_up(1);
        assert_eq!(bed.nodes[0].installed[&bed.only_child(0)].sa.esn, esn);
    }
}

#[test]
fn through_a_nat_both_float_and_the_peer_is_followed() {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    b.remote = Remote::Any;
    b.remote_id = IdentityPattern::Any;
    a.keepalive_ms = 5_000;
    let mut bed = Bed::with(a, b);
    bed.nat = Some("192.0.2.1:20000".parse().unwrap());
    bed.initiate(0);
    bed.run(1000);
    bed.agree();
    let [there, here] = [1, 0].map(|n| bed.nodes[n].installed.values().next().unwrap().sa.clone());
    assert!(there.encapsulated && here.encapsulated && here.keepalive && !there.keepalive);
    assert_eq!(there.path.remote, "192.0.2.1:24500".parse().unwrap());
    assert_eq!((here.path.local.port(), here.path.remote.port()), (4500, 4500));
    // The NAT forgets and chooses another port.
    bed.nat = Some("192.0.2.1:30000".parse().unwrap());
    let ike = bed.ike(0);
    bed.command(0, Command::Probe { ike });
    bed.run(1000);
    let moved = &bed.nodes[1].installed.values().next().unwrap().sa;
    assert_eq!(moved.path.remote, "192.0.2.1:34500".parse().unwrap());
    assert!(bed.nodes[1].says("the peer moved here from 192.0.2.1:24500"), "{}", bed.told());
    // And the router finds it there.
    let child = bed.only_child(1);
    bed.command(1, Command::RekeyChild { child });
    bed.run(5_000);
    bed.agree();
    assert_eq!(bed.nodes[1].installed.len(), 1);
}

#[test]
fn transport_mode_through_a_nat_knows_the_original_addresses() {
    let transport = |c: &mut ChildConfig| (c.mode, c.local, c.remote) = (ChildMode::Transport, None, None);
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    change(&mut a, transport);
    change(&mut b, transport);
    (b.remote, b.remote_id) = (Remote::Any, IdentityPattern::Any);
    let mut bed = Bed::with(a, b);
    bed.nat = Some("192.0.2.1:20000".parse().unwrap());
    bed.initiate(0);
    bed.run(1000);
    let sa = |n: usize| bed.nodes[n].installed.values().next().unwrap_or_else(|| panic!("{}", bed.told())).sa.clone();
    let (here, there) = (sa(0), sa(1));
    // RFC 7296 §2.23.1: each keeps what the other calls the ends.
    let original = there.original.unwrap();
    assert_eq!((original.local, original.remote), (ip(B), ip(A)));
    assert_eq!(there.selectors.remote, "192.0.2.1".parse().unwrap());
    let original = here.original.unwrap();
    assert_eq!((original.local, original.remote), (ip("192.0.2.1"), ip(B)));
    assert_eq!((here.selectors.local, here.selectors.remote), (A.parse().unwrap(), B.parse().unwrap()));
}

#[test]
fn udp_can_be_had_without_a_nat() {
    for n in 0..2 {
        let (mut a, mut b) = (peer(A, B), peer(B, A));
        if n == 0 {
            a.force_encapsulation = true
        } else {
            b.force_encapsulation = true
        }
        let bed = Bed::tried(a, b);
        bed.is_up(1);
        for n in 0..2 {
            let sa = &bed.nodes[n].installed.values().next().unwrap().sa;
            assert!(sa.encapsulated && sa.path.local.port() == 4500, "{n}");
        }
    }
}

#[test]
fn a_datagram_that_was_forged_or_repeated_moves_nobody() {
    let (a, mut b) = (peer(A, B), peer(B, A));
    (b.remote, b.remote_id) = (Remote::Any, IdentityPattern::Any);
    let mut bed = Bed::with(a, b);
    bed.nat = Some("192.0.2.1:20000".parse().unwrap());
    bed.record = true;
    bed.initiate(0);
    bed.run(1000);
    let before = bed.nodes[1].ikes(bed.now)[0].path;
    let elsewhere = Path { remote: "203.0.113.9:4500".parse().unwrap(), ..before };
    let all: Vec<_> = bed.wire.iter().filter(|(from, _)| *from == 0).map(|(_, bytes)| bytes.clone()).collect();
    for mut bytes in all {
        bed.inject(1, elsewhere, bytes.clone());
        *bytes.last_mut().unwrap() ^= 1;
        bed.inject(1, elsewhere, bytes);
    }
    bed.run(1000);
    let rows = bed.nodes[1].ikes(bed.now);
    let up: Vec<_> = rows.iter().filter(|r| r.state == "established").collect();
    assert_eq!((up.len(), up[0].path), (1, before));
    assert_eq!(bed.nodes[1].installed.len(), 1);
}

#[test]
fn above_the_threshold_a_cookie_comes_first() {
    let mut b = config(peer(B, A));
    b.limits.cookie_threshold = 0;
    let mut bed = Bed::new(config(peer(A, B)), b);
    bed.initiate(0);
    bed.run(1000);
    bed.is_up(1);
    assert_eq!(bed.nodes[1].endpoint.counters().cookies_sent, 1);
    assert_eq!(bed.nodes[0].sent, 3);
}

#[test]
fn a_peer_so_slow_that_each_repetition_gets_a_cookie_is_begun_with_once() {
    let mut b = config(peer(B, A));
    b.limits.cookie_threshold = 0;
    let mut bed = Bed::new(config(peer(A, B)), b);
    bed.weather.delay = 3000;
    bed.initiate(0);
    bed.run(25_000);
    bed.is_up(1);
    let cookies = bed.nodes[1].endpoint.counters().cookies_sent;
    assert!(cookies >= 4, "{cookies}");
    // A second cookie would have made another message, and that another half-open IKE SA.
    assert_eq!((bed.nodes[1].ikes(bed.now).len(), bed.nodes[1].ever), (1, 1));
}

#[test]
fn half_open_ones_are_limited_per_source_and_go_in_time() {
    let mut b = config(peer(B, A));
    (b.limits.half_open_per_source, b.limits.half_open_ms) = (3, 5_000);
    let mut bed = Bed::new(config(peer(A, B)), b);
    bed.record = true;
    bed.initiate(0);
    bed.step(bed.now);
    let init = bed.wire[0].1.clone();
    bed.run(1000);
    let (local, remote) = (format!("{B}:500").parse().unwrap(), format!("{A}:500").parse().unwrap());
    for n in 0..10u8 {
        let mut other = init.clone();
        other[7] ^= n + 1;
        bed.inject(1, Path { local, remote }, other);
    }
    bed.run(100);
    assert_eq!(bed.nodes[1].endpoint.count(), (4, 3));
    assert_eq!(bed.nodes[1].endpoint.counters().source_limit, 7);
    bed.run(6_000);
    assert_eq!(bed.nodes[1].endpoint.count(), (1, 0));
}

#[test]
fn a_thousand_at_a_time_from_one_address_come_up_without_an_error() {
    let one = |n: u32| {
        let mut p = peer(A, B);
        p.name = format!("{n}").as_str().into();
        p.local_id = Identity::Fqdn(format!("{n}.example"));
        (p.start, p.unique) = (true, false);
        Arc::new(p)
    };
    let mut b = peer(B, A);
    b.remote_id = "*.example".parse().unwrap();
    let mut bed = Bed::new(Config { peers: (0..1000).map(one).collect(), ..Config::default() }, config(b));
    bed.run(5_000);
    bed.agree();
    let [a, b] = [0, 1].map(|n| bed.nodes[n].endpoint.counters().clone());
    assert_eq!((a.established_as_initiator, b.established_as_responder), (1000, 1000));
    assert_eq!((a.failed + b.failed, a.retransmitted, b.children), (0, 0, 1000));
    assert!(b.cookies_sent > 800, "above the threshold cookies come first: {}", b.cookies_sent);
    assert_eq!(bed.nodes[1].endpoint.set_up_times().len(), 1000);
}

#[test]
fn a_peer_that_does_not_answer_is_given_up() {
    let mut bed = Bed::with(peer(A, B), peer(B, A));
    bed.weather.lost = 100;
    bed.initiate(0);
    bed.run(60_000);
    bed.is_down();
    assert!(bed.nodes[0].says("the peer does not answer: 7 attempts"), "{}", bed.told());
}

/// Both by certificates of one CA, `alice.example.org` and `bob.example.org`.
fn certified(ca: &pki::Ca, algorithm: &'static rcgen::SignatureAlgorithm) -> (PeerConfig, PeerConfig) {
    let (mut a, mut b) = (peer(A, B), peer(B, A));
    for (p, own, other) in [(&mut a, "alice", "bob"), (&mut b, "bob", "alice")] {
        let issued = ca.issue_for(&pki::numbered(own, own.len() as u8), pki::key(algorithm));
        p.credential = Credential::Certificate(Arc::new(issued.credentials()));
        p.proof = Proof::Certificate(Arc::new(Trust::new([&ca.der[..]], []).unwrap()));
        p.local_id = pki::id(&format!("{own}.example.org"));
        p.remote_id = IdentityPattern::Exactly(pki::id(&format!("{other}.example.org")));
    }
    (a, b)
}

#[test]
fn certificates_of_every_kind_prove_both_ends() {
    let ca = pki::Ca::new("root");
    let kinds =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];
    for kind in kinds {
        let (a, b) = certified(&ca, kind);
        let bed = Bed::tried(a, b);
        bed.is_up(1);
        assert!(bed.nodes[1].says("up with alice.example.org"), "{}", bed.told());
    }
}

#[test]
fn large_messages_are_cut_and_put_together_on_any_network() {
    let ca = pki::Ca::new("root");
    let (mut a, mut b) = certified(&ca, &rcgen::PKCS_RSA_SHA256);
    (a.fragment, b.fragment) = (576, 576);
    let mut bed = Bed::with(a, b);
    bed.record = true;
    bed.weather = Weather { lost: 20, twice: 20, delay: 5, jitter: 50 };
    bed.initiate(0);
    bed.run(30_000);
    bed.weather = Weather::default();
    bed.run(30_000);
    bed.is_up(1);
    assert!(bed.wire.iter().all(|(_, bytes)| bytes.len() + 28 <= 576));
    assert!(bed.wire.iter().any(|(_, bytes)| bytes[16] == 53), "there were fragments");
}

#[test]
fn a_peer_that_cannot_put_fragments_together_gets_none() {
    let ca = pki::Ca::new("root");
    let (mut a, mut b) = certified(&ca, &rcgen::PKCS_RSA_SHA256);
    (a.fragment, b.fragment) = (576, 0);
    let mut bed = Bed::with(a, b);
    bed.record = true;
    bed.initiate(0);
    bed.run(3_000);
    bed.is_up(1);
    assert!(bed.wire.iter().any(|(_, bytes)| bytes.len() > 1000));
}

#[test]
fn a_revoked_certificate_is_refused_with_its_name() {
    let ca = pki::Ca::new("root");
    let (a, mut b) = certified(&ca, &rcgen::PKCS_ECDSA_P256_SHA256);
    let crl = ca.crl(&["alice".len() as u8], 2030);
    b.proof = Proof::Certificate(Arc::new(Trust::new([&ca.der[..]], [&crl[..]]).unwrap()));
    let bed = Bed::tried(a, b);
    bed.is_down();
    assert!(bed.nodes[1].says("revoked") && bed.nodes[1].says("alice"), "{}", bed.told());
}

#[test]
fn a_secret_is_no_certificate() {
    let ca = pki::Ca::new("root");
    let (a, b) = certified(&ca, &rcgen::PKCS_ED25519);
    let plain = PeerConfig { credential: Credential::Psk(Secret::new(b"x".to_vec())), ..a };
    let bed = Bed::tried(plain, b);
    bed.is_down();
    assert!(bed.nodes[1].says("the configuration expects a certificate"), "{}", bed.told());
}
