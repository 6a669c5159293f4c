//! Which algorithms: what we offer, what we choose from what a peer offers, what a peer chose (RFC 7296 §2.7, §3.3).

use phalanx_ipsec::Algorithm;

use crate::codec::{Proposal, Protocol, Transform, TransformKind};
use crate::crypto::{Cipher, Group, Prf};
use crate::{EspProposal, IkeProposal};

/// What protects an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    pub cipher: Cipher,
    pub prf: Prf,
    pub group: Group,
}

impl IkeSuite {
    /// For tables and events: `aes256-gcm16/prf-sha256/x25519`.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.cipher.name(), self.prf.name(), self.group.name())
    }

    /// The configuration has all of it.
    pub fn is_in(&self, ours: &IkeProposal) -> bool {
        ours.ciphers.contains(&self.cipher) && ours.prfs.contains(&self.prf) && ours.groups.contains(&self.group)
    }
}

/// What protects a CHILD_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSuite {
    pub algorithm: Algorithm,
    /// A key exchange of its own.
    pub group: Option<Group>,
    pub esn: bool,
}

impl EspSuite {
    pub fn protocol(&self) -> Protocol {
        if self.algorithm.is_ah() { Protocol::Ah } else { Protocol::Esp }
    }

    pub fn name(&self) -> String {
        let group = self.group.map_or(String::new(), |group| format!("/{}", group.name()));
        format!("{}{group}{}", self.algorithm.name(), if self.esn { "/esn" } else { "" })
    }
}

/// ESP's algorithms: transform ID and key length attribute of the cipher, and transform ID of the integrity algorithm where there is
/// one beside it (RFC 4106 §8.2, RFC 7634 §4, RFC 4543 §8, RFC 8750 §6, RFC 3602 §5, RFC 4868 §4). The one table to extend.
const ESP: [(Algorithm, u16, Option<u16>, Option<u16>); 17] = [
    (Algorithm::Aes128Gcm16, 20, Some(128), None),
    (Algorithm::Aes256Gcm16, 20, Some(256), None),
    (Algorithm::ChaCha20Poly1305, 28, None, None),
    (Algorithm::Aes128Gcm16Iiv, 30, Some(128), None),
    (Algorithm::Aes256Gcm16Iiv, 30, Some(256), None),
    (Algorithm::ChaCha20Poly1305Iiv, 31, None, None),
    (Algorithm::Aes128Gmac, 21, Some(128), None),
    (Algorithm::Aes256Gmac, 21, Some(256), None),
    (Algorithm::Aes128CbcSha256, 12, Some(128), Some(12)),
    (Algorithm::Aes128CbcSha384, 12, Some(128), Some(13)),
    (Algorithm::Aes128CbcSha512, 12, Some(128), Some(14)),
    (Algorithm::Aes256CbcSha256, 12, Some(256), Some(12)),
    (Algorithm::Aes256CbcSha384, 12, Some(256), Some(13)),
    (Algorithm::Aes256CbcSha512, 12, Some(256), Some(14)),
    (Algorithm::NullSha256, 11, None, Some(12)),
    (Algorithm::NullSha384, 11, None, Some(13)),
    (Algorithm::NullSha512, 11, None, Some(14)),
];

/// AH's algorithms: transform ID of the integrity algorithm, which has no attributes (RFC 4868 §4, RFC 4543 §9).
const AH: [(Algorithm, u16); 5] = [
    (Algorithm::AhHmacSha256, 12),
    (Algorithm::AhHmacSha384, 13),
    (Algorithm::AhHmacSha512, 14),
    (Algorithm::AhGmac128, 9),
    (Algorithm::AhGmac256, 11),
];

/// What a child of the configuration is made by: it offers algorithms of one protocol.
pub fn protocol(ours: &EspProposal) -> Protocol {
    if ours.algorithms.first().is_some_and(|a| a.is_ah()) { Protocol::Ah } else { Protocol::Esp }
}

/// Protocol, cipher (of AH the integrity algorithm, as there is nothing else), and integrity algorithm beside the cipher.
fn transforms(algorithm: Algorithm) -> Option<(Protocol, Transform, Option<Transform>)> {
    if let Some((_, id)) = AH.iter().find(|row| row.0 == algorithm) {
        return Some((Protocol::Ah, Transform::new(TransformKind::Integrity, *id, None), None));
    }
    let row = ESP.iter().find(|row| row.0 == algorithm)?;
    let integrity = row.3.map(|id| Transform::new(TransformKind::Integrity, id, None));
    Some((Protocol::Esp, Transform::new(TransformKind::Encryption, row.1, row.2), integrity))
}

/// Bytes that one direction takes from the keying material: key of encryption and then of integrity (RFC 7296 §2.17), or key and salt
/// (RFC 4106 §8.1).
pub fn esp_key_len(algorithm: Algorithm) -> usize {
    algorithm.material_len()
}

fn group(group: Group) -> Transform {
    Transform::new(TransformKind::KeyExchange, group.id(), None)
}

fn cipher(cipher: Cipher) -> Transform {
    Transform::new(TransformKind::Encryption, cipher.id(), cipher.key_bits())
}

/// Our offer. AEADs and others are proposals apart (RFC 7296 §3.3: no integrity beside an AEAD). `spi`: of a new IKE SA in place
/// of another.
pub fn offer_ike(ours: &IkeProposal, spi: Option<u64>) -> Vec<Proposal> {
    let mut proposals: Vec<Proposal> = Vec::new();
    let mut kinds: Vec<_> = ours.ciphers.iter().map(|c| c.integrity()).collect();
    let mut seen = Vec::new();
    kinds.retain(|kind| {
        let new = !seen.contains(kind);
        seen.push(*kind);
        new
    });
    for integrity in kinds {
        let ciphers = ours.ciphers.iter().filter(|c| c.integrity() == integrity);
        let mut transforms: Vec<_> = ciphers.map(|c| cipher(*c)).collect();
        transforms.extend(integrity.map(|i| Transform::new(TransformKind::Integrity, i.id(), None)));
        transforms.extend(ours.prfs.iter().map(|prf| Transform::new(TransformKind::Prf, prf.id(), None)));
        transforms.extend(ours.groups.iter().map(|g| group(*g)));
        proposals.push(Proposal {
            number: proposals.len() as u8 + 1,
            protocol: Some(Protocol::Ike),
            spi: spi.map_or(Vec::new(), |spi| spi.to_be_bytes().to_vec()),
            transforms,
        });
    }
    proposals
}

/// What we take of a peer's offer, by our preference, and how to say so.
pub fn choose_ike(ours: &IkeProposal, theirs: &[Proposal]) -> Option<(IkeSuite, Proposal)> {
    use TransformKind::{Encryption, Integrity, KeyExchange, Prf};
    for c in &ours.ciphers {
        for p in theirs.iter().filter(|p| p.protocol == Some(Protocol::Ike)) {
            let integrity = c.integrity().map(|i| Transform::new(Integrity, i.id(), None));
            let fits = offers(p, cipher(*c)) && integrity.map_or(without(p, Integrity), |i| offers(p, i));
            let prf = ours.prfs.iter().find(|f| offers(p, Transform::new(Prf, f.id(), None)));
            let exchange = ours.groups.iter().find(|g| offers(p, group(**g)));
            let (true, Some(prf), Some(exchange)) = (fits, prf, exchange) else { continue };
            let Some(others) = others(p, &[Encryption, Integrity, Prf, KeyExchange]) else { continue };
            let mut transforms = vec![cipher(*c)];
            transforms.extend(integrity);
            transforms.extend([Transform::new(Prf, prf.id(), None), group(*exchange)]);
            transforms.extend(others);
            let suite = IkeSuite { cipher: *c, prf: *prf, group: *exchange };
            return Some((suite, Proposal { transforms, ..p.clone() }));
        }
    }
    None
}

/// Our offer for a CHILD_SA: a proposal for AEADs, one for AH, and one for each integrity algorithm, of those that take it, so that
/// whatever a peer combines of one is what we offer (RFC 7296 §3.3). `exchange`: it may have a key exchange of its own, as all but the
/// one in IKE_AUTH may.
pub fn offer_esp(ours: &EspProposal, spi: u32, exchange: bool) -> Vec<Proposal> {
    let all: Vec<_> = ours.algorithms.iter().filter_map(|a| transforms(*a)).collect();
    let mut kinds: Vec<(Protocol, Option<Transform>)> = Vec::new();
    for (protocol, _, beside) in &all {
        if !kinds.contains(&(*protocol, *beside)) {
            kinds.push((*protocol, *beside));
        }
    }
    let mut proposals = Vec::new();
    for kind in kinds {
        let of = all.iter().filter(|(protocol, _, beside)| (*protocol, *beside) == kind);
        let mut transforms: Vec<_> = of.map(|(_, first, _)| *first).collect();
        transforms.extend(kind.1);
        if exchange {
            transforms.extend(ours.groups.iter().map(|g| group(*g)));
        }
        transforms.extend(ours.esn.iter().map(|esn| Transform::new(TransformKind::Esn, u16::from(*esn), None)));
        let (number, spi) = (proposals.len() as u8 + 1, spi.to_be_bytes().to_vec());
        proposals.push(Proposal { number, protocol: Some(kind.0), spi, transforms });
    }
    proposals
}

/// What we take of a peer's offer for a CHILD_SA, and how to say so; the SPI in it is still the peer's.
pub fn choose_esp(ours: &EspProposal, theirs: &[Proposal], exchange: bool) -> Option<(EspSuite, Proposal)> {
    use TransformKind::{Encryption, Esn, Integrity, KeyExchange};
    for algorithm in &ours.algorithms {
        let (protocol, first, beside) = transforms(*algorithm)?;
        for p in theirs.iter().filter(|p| p.protocol == Some(protocol) && p.spi.len() == 4) {
            let alone = || protocol == Protocol::Ah || without(p, Integrity);
            if !offers(p, first) || !beside.map_or_else(alone, |i| offers(p, i)) {
                continue;
            }
            // None at all means 32 bits (before RFC 4304 nobody offered it).
            let silent = !p.transforms.iter().any(|t| t.kind == Esn);
            let esn = |esn: &&bool| (silent && !**esn) || offers(p, Transform::new(Esn, u16::from(**esn), None));
            let Some(esn) = ours.esn.iter().find(esn) else { continue };
            let exchange = match exchange && !ours.groups.is_empty() {
                true => match ours.groups.iter().find(|g| offers(p, group(**g))) {
                    Some(group) => Some(*group),
                    None => continue,
                },
                // RFC 7296 §1.2: no key exchange with IKE_AUTH, whatever is in its proposals.
                false if exchange && !without(p, KeyExchange) => continue,
                false => None,
            };
            // Nobody encrypts with AH (RFC 7296 §3.3.3).
            let kinds = [Integrity, KeyExchange, Esn, Encryption];
            let known = if protocol == Protocol::Ah { &kinds[..3] } else { &kinds[..] };
            let Some(others) = others(p, known) else { continue };
            let mut transforms = vec![first];
            transforms.extend(beside);
            transforms.extend(exchange.map(group));
            transforms.extend((!silent).then(|| Transform::new(Esn, u16::from(*esn), None)));
            transforms.extend(others);
            let suite = EspSuite { algorithm: *algorithm, group: exchange, esn: *esn };
            return Some((suite, Proposal { transforms, ..p.clone() }));
        }
    }
    None
}

/// A peer's choice from our offer is one proposal, with one transform of each kind.
pub fn is_choice(answer: &[Proposal], offered: &[Proposal]) -> bool {
    let [answer] = answer else { return false };
    let mut kinds: Vec<_> = answer.transforms.iter().map(|t| t.kind).collect();
    kinds.sort();
    kinds.dedup();
    let Some(offer) = offered.iter().find(|p| p.number == answer.number && p.protocol == answer.protocol) else {
        return false;
    };
    // What says NONE need not have been offered in so many words (RFC 7296 §3.3.3).
    let was_offered = |t: &Transform| offer.transforms.contains(t) || t.id == 0;
    kinds.len() == answer.transforms.len() && answer.transforms.iter().all(was_offered)
}

fn offers(p: &Proposal, wanted: Transform) -> bool {
    p.transforms.contains(&wanted)
}

/// There is none of this kind, or "none" is a choice.
fn without(p: &Proposal, kind: TransformKind) -> bool {
    !p.transforms.iter().any(|t| t.kind == kind) || offers(p, Transform::new(kind, 0, None))
}

/// What to say about transforms of other kinds than these. Further key exchanges (RFC 9370) are declined where the peer lets us; with
/// anything else the proposal is not acceptable (RFC 7296 §3.3.6).
fn others(p: &Proposal, known: &[TransformKind]) -> Option<Vec<Transform>> {
    let mut declined: Vec<Transform> = Vec::new();
    for t in p.transforms.iter().filter(|t| !known.contains(&t.kind)) {
        let none = Transform::new(t.kind, 0, None);
        let further = matches!(t.kind, TransformKind::Other(6..=12));
        if !further || !offers(p, none) {
            return None;
        }
        if !declined.contains(&none) {
            declined.push(none);
        }
    }
    Some(declined)
}

/// In words: `aes256-gcm16 prf-sha256 x25519 modp2048, aes128-cbc sha1 modp1024`.
pub fn describe(proposals: &[Proposal]) -> String {
    let texts = proposals.iter().map(|p| {
        let protocol = if p.protocol == Some(Protocol::Ah) { "AH " } else { "" };
        let names: Vec<_> =
            p.transforms.iter().filter(|t| t.kind != TransformKind::Esn || t.id == 1).map(name).collect();
        format!("{protocol}{}", names.join(" "))
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn name(t: &Transform) -> String {
    let bits = t.key_bits.map_or(String::new(), |bits| bits.to_string());
    let known = match (t.kind, t.id) {
        (TransformKind::Encryption, 2) => "des",
        (TransformKind::Encryption, 3) => "3des",
        (TransformKind::Encryption, 11) => "null",
        (TransformKind::Encryption, 12) => return format!("aes{bits}-cbc"),
        (TransformKind::Encryption, 13) => return format!("aes{bits}-ctr"),
        (TransformKind::Encryption, 16) => return format!("aes{bits}-ccm16"),
        (TransformKind::Encryption, 18) => return format!("aes{bits}-gcm8"),
        (TransformKind::Encryption, 19) => return format!("aes{bits}-gcm12"),
        (TransformKind::Encryption, 20) => return format!("aes{bits}-gcm16"),
        (TransformKind::Encryption, 21) => return format!("aes{bits}-gmac"),
        (TransformKind::Encryption, 28) => "chacha20-poly1305",
        (TransformKind::Encryption, 30) => return format!("aes{bits}-gcm16-iiv"),
        (TransformKind::Encryption, 31) => "chacha20-poly1305-iiv",
        (TransformKind::Prf, 1) => "prf-md5",
        (TransformKind::Prf, 2) => "prf-sha1",
        (TransformKind::Prf, 4) => "prf-aes-xcbc",
        (TransformKind::Prf, 5) => "prf-sha256",
        (TransformKind::Prf, 6) => "prf-sha384",
        (TransformKind::Prf, 7) => "prf-sha512",
        (TransformKind::Prf, 8) => "prf-aes-cmac",
        (TransformKind::Integrity, 1) => "md5",
        (TransformKind::Integrity, 2) => "sha1",
        (TransformKind::Integrity, 5) => "aes-xcbc",
        (TransformKind::Integrity, 9) => "aes128-gmac",
        (TransformKind::Integrity, 10) => "aes192-gmac",
        (TransformKind::Integrity, 11) => "aes256-gmac",
        (TransformKind::Integrity, 12) => "sha256",
        (TransformKind::Integrity, 13) => "sha384",
        (TransformKind::Integrity, 14) => "sha512",
        (TransformKind::KeyExchange, 0) => "no-key-exchange",
        (TransformKind::KeyExchange, 1) => "modp768",
        (TransformKind::KeyExchange, 2) => "modp1024",
        (TransformKind::KeyExchange, 5) => "modp1536",
        (TransformKind::KeyExchange, 14) => "modp2048",
        (TransformKind::KeyExchange, 15) => "modp3072",
        (TransformKind::KeyExchange, 16) => "modp4096",
        (TransformKind::KeyExchange, 17) => "modp6144",
        (TransformKind::KeyExchange, 18) => "modp8192",
        (TransformKind::KeyExchange, 19) => "ecp256",
        (TransformKind::KeyExchange, 20) => "ecp384",
        (TransformKind::KeyExchange, 21) => "ecp521",
        (TransformKind::KeyExchange, 31) => "x25519",
        (TransformKind::KeyExchange, 32) => "x448",
        (TransformKind::Esn, 1) => "esn",
        (kind, id) => return format!("transform-{}-{id}", kind.id()),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{AesBits, Integrity};

    const GCM: Cipher = Cipher::AesGcm16 { bits: AesBits::B128 };
    const CBC: Cipher = Cipher::AesCbc { bits: AesBits::B256, integrity: Integrity::HmacSha256_128 };

    fn ike(ciphers: &[Cipher], groups: &[Group]) -> IkeProposal {
        IkeProposal { ciphers: ciphers.to_vec(), prfs: vec![Prf::HmacSha256], groups: groups.to_vec() }
    }

    fn esp(groups: &[Group], esn: &[bool]) -> EspProposal {
        EspProposal { algorithms: vec![Algorithm::Aes128Gcm16], groups: groups.to_vec(), esn: esn.to_vec() }
    }

    #[test]
    fn the_choice_is_ours_by_preference_and_one_of_each_kind() {
        let theirs = offer_ike(&ike(&[CBC, GCM, Cipher::ChaCha20Poly1305], &[Group::Modp2048, Group::X25519]), None);
        assert_eq!(theirs.len(), 2, "AEADs and others apart");
        let ours = ike(&[GCM, CBC], &[Group::X25519, Group::Modp2048]);
        let (suite, answer) = choose_ike(&ours, &theirs).unwrap();
        assert_eq!((suite.cipher, suite.group), (GCM, Group::X25519));
        assert_eq!(answer.transforms.len(), 3);
        assert!(is_choice(std::slice::from_ref(&answer), &theirs));
        let other = Proposal { transforms: vec![Transform::new(TransformKind::Prf, 6, None)], ..answer.clone() };
        assert!(!is_choice(&[other], &theirs) && !is_choice(&[answer.clone(), answer], &theirs));
    }

    #[test]
    fn what_is_not_known_makes_a_proposal_unacceptable() {
        // RFC 7296 §3.3.6
        let ours = ike(&[GCM], &[Group::X25519]);
        let mut theirs = offer_ike(&ours, None);
        theirs[0].transforms.push(Transform::new(TransformKind::Other(77), 1, None));
        assert!(choose_ike(&ours, &theirs).is_none());
        // A further key exchange that the peer can do without is declined (RFC 9370 §2.2.1).
        *theirs[0].transforms.last_mut().unwrap() = Transform::new(TransformKind::Other(6), 36, None);
        assert!(choose_ike(&ours, &theirs).is_none());
        theirs[0].transforms.push(Transform::new(TransformKind::Other(6), 0, None));
        let (_, answer) = choose_ike(&ours, &theirs).unwrap();
        assert!(answer.transforms.contains(&Transform::new(TransformKind::Other(6), 0, None)));
        let mut odd = offer_ike(&ours, None);
        odd[0].transforms[0].unknown_attribute = true;
        assert!(choose_ike(&ours, &odd).is_none());
    }

    #[test]
    fn a_child_has_a_key_exchange_where_we_want_one_and_only_there() {
        let with = offer_esp(&esp(&[Group::X25519], &[true]), 0x100, true);
        let without = offer_esp(&esp(&[], &[true]), 0x100, true);
        let group = |ours: &EspProposal, theirs: &[Proposal], exchange| {
            choose_esp(ours, theirs, exchange).map(|(suite, _)| suite.group)
        };
        assert_eq!(group(&esp(&[Group::X25519], &[true]), &with, true), Some(Some(Group::X25519)));
        assert_eq!(group(&esp(&[], &[true]), &without, true), Some(None));
        assert_eq!(group(&esp(&[Group::X25519], &[true]), &without, true), None);
        assert_eq!(group(&esp(&[], &[true]), &with, true), None);
        // With IKE_AUTH there is none, whatever is offered.
        assert_eq!(group(&esp(&[Group::X25519], &[true]), &with, false), Some(None));
    }

    #[test]
    fn integrity_stands_beside_the_ciphers_that_need_it_and_beside_no_other() {
        let all = Algorithm::ALL.map(|a| EspProposal { algorithms: vec![a], ..esp(&[], &[true]) });
        for (ours, theirs) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let offer = offer_esp(theirs, 0x100, true);
            let chosen = choose_esp(ours, &offer, true);
            assert_eq!(chosen.is_some(), ours.algorithms == theirs.algorithms, "{ours:?} {theirs:?}");
            if let Some((suite, answer)) = chosen {
                assert_eq!([suite.algorithm], theirs.algorithms[..]);
                assert!(is_choice(&[answer], &offer));
            }
        }
    }

    #[test]
    fn a_mixed_offer_has_a_proposal_for_each_integrity_algorithm_and_the_choice_is_by_preference() {
        use Algorithm as A;
        let of = |algorithms: &[A]| EspProposal { algorithms: algorithms.to_vec(), ..esp(&[], &[true]) };
        let offer =
            offer_esp(&of(&[A::NullSha256, A::Aes128CbcSha256, A::Aes256CbcSha512, A::Aes128Gcm16]), 0x100, true);
        assert_eq!(describe(&offer), "null aes128-cbc sha256 esn, aes256-cbc sha512 esn, aes128-gcm16 esn");
        assert_eq!(offer.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2, 3]);
        let choice = |ours: &[A]| choose_esp(&of(ours), &offer, true).map(|(suite, p)| (suite.algorithm, p.number));
        assert_eq!(choice(&[A::Aes128Gcm16, A::NullSha256]), Some((A::Aes128Gcm16, 3)));
        assert_eq!(choice(&[A::ChaCha20Poly1305, A::Aes256CbcSha512]), Some((A::Aes256CbcSha512, 2)));
        // Each half was offered, but not both together.
        assert_eq!(choice(&[A::Aes128CbcSha512, A::NullSha512]), None);
    }

    #[test]
    fn ah_has_one_proposal_without_a_cipher_and_takes_none_with_one() {
        use Algorithm as A;
        let ours = EspProposal { algorithms: Algorithm::AH.to_vec(), ..esp(&[], &[true]) };
        let offer = offer_esp(&ours, 0x100, true);
        assert_eq!(describe(&offer), "AH sha256 sha384 sha512 aes128-gmac aes256-gmac esn");
        assert_eq!((offer.len(), offer[0].protocol), (1, Some(Protocol::Ah)));
        let theirs = EspProposal { algorithms: vec![A::AhGmac256, A::AhHmacSha384], ..ours.clone() };
        let (suite, answer) = choose_esp(&theirs, &offer, true).unwrap();
        assert_eq!((suite.algorithm, suite.protocol(), suite.esn), (A::AhGmac256, Protocol::Ah, true));
        assert!(is_choice(std::slice::from_ref(&answer), &offer) && answer.transforms.len() == 2);
        // RFC 7296 §3.3.3: AH has integrity and numbers, and may have a key exchange.
        let mut odd = offer.clone();
        odd[0].transforms.push(Transform::new(TransformKind::Encryption, 12, Some(128)));
        assert!(choose_esp(&theirs, &odd, true).is_none());
        // The integrity algorithm of ESP without a cipher is none of AH.
        odd = offer_esp(&EspProposal { algorithms: vec![A::NullSha384], ..ours }, 0x100, true);
        assert!(choose_esp(&theirs, &odd, true).is_none());
    }

    #[test]
    fn who_says_nothing_about_long_numbers_has_short_ones() {
        let mut theirs = offer_esp(&esp(&[], &[true]), 0x100, true);
        theirs[0].transforms.retain(|t| t.kind != TransformKind::Esn);
        assert!(choose_esp(&esp(&[], &[true]), &theirs, true).is_none());
        let (suite, answer) = choose_esp(&esp(&[], &[true, false]), &theirs, true).unwrap();
        assert!(!suite.esn && answer.transforms.len() == 1);
    }

    #[test]
    fn proposals_are_shown_in_words() {
        let weak = Proposal {
            number: 1,
            protocol: Some(Protocol::Ike),
            spi: vec![],
            transforms: vec![
                Transform::new(TransformKind::Encryption, 3, None),
                Transform::new(TransformKind::Integrity, 2, None),
                Transform::new(TransformKind::KeyExchange, 2, None),
            ],
        };
        assert_eq!(describe(&[weak]), "3des sha1 modp1024");
        assert_eq!(describe(&offer_esp(&esp(&[], &[true]), 1, true)), "aes128-gcm16 esn");
    }
}
