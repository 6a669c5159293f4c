//! Who a peer says to be and how it proves it, from arbitrary bytes: nothing stops the program, nothing that a log shows can
//! change a terminal, and nobody is believed who has no key.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use phalanx_ike::auth::{Credentials, Identity, IdentityPattern, PublicKey, Trust, verify};
use rustls_pki_types::{CertificateDer, pem::PemObject};

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../appliance/ike/tests/data/", $name))
    };
}

/// In 2030; the certificates are valid for a hundred years.
const NOW: u64 = 1_893_456_000;

struct World {
    trust: Trust,
    good: Vec<u8>,
    keys: Vec<PublicKey>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let trust = Trust::from_pem(data!("ca.pem"), b"").expect("a CA");
    let der = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate").to_vec();
    let (good, rsa) = (der(data!("good.pem")), der(data!("rsa.pem")));
    let key = |der: &[u8], name: &str| trust.verify(&[der], NOW, &name.parse().expect("a name")).expect("believed");
    let keys = vec![key(&good, "good.example.org"), key(&rsa, "rsa.example.org")];
    World { trust, good, keys }
});

/// What a log may show.
fn shown(text: &impl ToString) {
    assert!(!text.to_string().chars().any(char::is_control));
}

/// Pieces with their lengths, two bytes each, in front.
fn pieces(mut data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk() {
        let (piece, behind) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
        pieces.push(piece);
        data = behind;
    }
    pieces
}

fuzz_target!(|data: &[u8]| {
    let Some((&what, data)) = data.split_first() else { return };
    match what % 6 {
        0 => match Identity::decode(data) {
            Ok(identity) => {
                shown(&identity);
                assert_eq!(Identity::decode(&identity.encode()), Ok(identity.clone()));
                assert_eq!(identity.encode()[4..], data[4..]);
                assert!(identity.same_as(&identity) || matches!(identity, Identity::DerDn(_)));
            }
            Err(error) => shown(&error),
        },
        1 => {
            let text = String::from_utf8_lossy(data);
            if let Ok(pattern) = text.parse::<IdentityPattern>() {
                shown(&pattern);
                if let Some(identity) = pattern.exactly() {
                    assert_eq!(Identity::decode(&identity.encode()).as_ref(), Ok(identity));
                    assert!(pattern.matches(identity), "{identity}");
                }
            }
        }
        2 => {
            // Only the very certificate that our CA issued.
            let chain = pieces(data);
            match WORLD.trust.verify(&chain, NOW, &Identity::Fqdn("good.example.org".to_owned())) {
                Ok(_) => assert_eq!(chain[0], WORLD.good),
                Err(error) => shown(&error),
            }
        }
        3 => {
            let (Some((&method, auth)), Some(key)) = (data.split_first(), WORLD.keys.get(data.len() & 1)) else {
                return;
            };
            shown(&verify(key, method, b"octets", auth).expect_err("nobody has the key"));
        }
        4 => {
            let (cas, crls) = (pieces(data), pieces(data));
            match Trust::new(cas.iter().copied(), crls.iter().copied().skip(1)) {
                Ok(trust) => trust.names().iter().for_each(shown),
                Err(error) => shown(&error),
            }
        }
        _ => {
            let (front, behind) = data.split_at(data.len() / 2);
            if let Err(error) = Trust::from_pem(front, behind) {
                shown(&error);
            }
            if let Err(error) = Credentials::from_pem(front, behind) {
                shown(&error);
            }
        }
    }
});
