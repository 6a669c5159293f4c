//! Two IKE endpoints and somebody between them who repeats, holds back, spoils and invents datagrams, in an order that the input
//! chooses. Whoever has no keys changes nothing: the IKE SA that was up stays, and works. Whoever has them breaks nothing else.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::crypto::{AesBits, Cipher, Group, Prf, Random, Secret};
use phalanx_ike::{
    Answer, ChildConfig, ChildMode, Command, Config, Credential, Endpoint, EspProposal, IkeId, IkeProposal, Lifetime,
    Limits, Output, Path, PeerConfig, Proof, Remote, Which,
};
use phalanx_ipsec::{Algorithm, PortRange};

fuzz_target!(|data: &[u8]| {
    let Some(([mode], mut rest)) = data.split_first_chunk::<1>() else { return };
    let with_keys = mode & 1 != 0;
    let mut bed = Bed::new(mode & 2 != 0);
    let up = [0, 1].map(|n| bed.ends[n].list(bed.now)[0].id);
    while let Some(([what, which, at, value], tail)) = rest.split_first_chunk::<4>() {
        let (bytes, tail) =
            if what & 7 == 6 { tail.split_at(tail.len().min(usize::from(*at))) } else { (&[][..], tail) };
        rest = tail;
        bed.step(*what, *which, *at, *value, bytes, with_keys);
        let limits = Limits::default();
        for n in 0..2 {
            assert!(bed.ends[n].count().0 <= LIMIT && bed.ends[n].count().1 <= LIMIT);
            let [ikes, spis, owners, orphans] = bed.ends[n].taken();
            let children = LIMIT * limits.children_per_ike;
            assert!(ikes <= 3 * LIMIT && spis <= children && owners <= children && orphans <= children);
        }
    }
    if !with_keys {
        bed.still_works(up);
    }
});

const LIMIT: usize = 24;

struct Counted(u64);

impl Random for Counted {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

struct Bed {
    ends: [Endpoint; 2],
    now: u64,
    /// Every datagram so far, and who sent it.
    sent: Vec<(usize, Path, Vec<u8>)>,
    /// How many of them went their way.
    delivered: usize,
    installed: [Vec<phalanx_ike::ChildId>; 2],
}

fn config(n: usize, pfs: bool) -> Config {
    let addresses = ["10.77.0.1", "10.77.0.2"].map(|a| a.parse::<std::net::IpAddr>().unwrap());
    let (local, remote) = (addresses[n], addresses[1 - n]);
    let secret = || Secret::new(b"between us".to_vec());
    let nets = ["10.1.0.0/16", "10.2.0.0/16"].map(|p| p.parse().unwrap());
    let child = ChildConfig {
        name: "net".into(),
        mode: ChildMode::Tunnel,
        local: Some(nets[n]),
        remote: Some(nets[1 - n]),
        protocol: None,
        local_ports: PortRange::ANY,
        remote_ports: PortRange::ANY,
        proposal: EspProposal {
            algorithms: vec![Algorithm::Aes128Gcm16],
            groups: if pfs { vec![Group::X25519] } else { vec![] },
            esn: vec![true, false],
        },
        lifetime: Lifetime::default(),
        window: 64,
        start: false,
    };
    let peer = PeerConfig {
        name: "other".into(),
        local,
        remote: Remote::Address(remote),
        local_id: Identity::from(local),
        remote_id: IdentityPattern::Exactly(Identity::from(remote)),
        credential: Credential::Psk(secret()),
        proof: Proof::Psk(secret()),
        proposal: IkeProposal {
            ciphers: vec![Cipher::AesGcm16 { bits: AesBits::B128 }],
            prfs: vec![Prf::HmacSha256],
            groups: vec![Group::X25519],
        },
        children: vec![Arc::new(child)],
        lifetime: Lifetime::default(),
        reauthenticate: false,
        liveness_ms: 0,
        keepalive_ms: 0,
        fragment: 576,
        start: false,
        unique: false,
        force_encapsulation: false,
    };
    let limits =
        Limits { ike_sas: LIMIT, half_open: LIMIT / 2, cookie_threshold: 4, half_open_ms: 5_000, ..Limits::default() };
    Config { peers: vec![Arc::new(peer)], limits, ..Config::default() }
}

impl Bed {
    /// With an IKE SA and a child up.
    fn new(pfs: bool) -> Bed {
        let end = |n: usize| Endpoint::new(config(n, pfs), 1, Box::new(Counted(n as u64 + 1)));
        let ends = [end(0), end(1)];
        let mut bed = Bed { ends, now: 1000, sent: Vec::new(), delivered: 0, installed: [vec![], vec![]] };
        bed.ends[0].command(bed.now, Command::Initiate { peer: "other".into(), child: None }).unwrap();
        bed.settle();
        assert_eq!(bed.installed.each_ref().map(Vec::len), [1, 1]);
        bed
    }

    fn collect(&mut self) {
        // An answer may bring outputs, which want answers.
        for _ in 0..64 {
            let mut quiet = true;
            for n in 0..2 {
                let outputs: Vec<_> = self.ends[n].outputs().collect();
                quiet &= outputs.is_empty();
                for output in outputs {
                    self.obey(n, output);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn obey(&mut self, n: usize, output: Output) {
        match output {
            Output::Send { path, bytes } => self.sent.push((n, path, bytes)),
            Output::Install(sa) => {
                self.installed[n].push(sa.id);
                self.ends[n].answer(self.now, Answer::Installed(sa.id));
            }
            Output::Remove { child } => {
                let at = self.installed[n].iter().position(|c| *c == child).expect("it is installed");
                self.installed[n].remove(at);
                self.ends[n].answer(self.now, Answer::Removed(child));
            }
            Output::Event(event) => drop(event.to_string()),
            Output::Expect { .. }
            | Output::SwitchOutbound { .. }
            | Output::Moved { .. }
            | Output::Keepalive { .. }
            | Output::KeyLog(_) => {}
        }
    }

    fn deliver(&mut self, at: usize, spoil: impl FnOnce(&mut Vec<u8>)) {
        let Some((from, path, bytes)) = self.sent.get(at) else { return };
        let (to, there) = (1 - from, Path { local: path.remote, remote: path.local });
        let mut bytes = bytes.clone();
        spoil(&mut bytes);
        self.ends[to].datagram(self.now, 1_800_000_000, there, &bytes);
        self.collect();
    }

    /// Everything on its way arrives, and what is due happens.
    fn settle(&mut self) {
        self.collect();
        for _ in 0..64 {
            while self.delivered < self.sent.len() {
                self.delivered += 1;
                self.deliver(self.delivered - 1, |_| ());
            }
            self.advance(300);
            if self.delivered == self.sent.len() {
                return;
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now += ms;
        for end in &mut self.ends {
            end.tick(self.now, 1_800_000_000);
        }
        self.collect();
    }

    fn step(&mut self, what: u8, which: u8, at: u8, value: u8, bytes: &[u8], with_keys: bool) {
        let n = usize::from(which & 1);
        let some = self.sent.len().saturating_sub(1 + usize::from(which));
        match what & 7 {
            0 => {
                self.delivered += usize::from(self.delivered < self.sent.len());
                self.deliver(self.delivered.saturating_sub(1), |_| ());
            }
            1 => self.deliver(some, |_| ()),
            2 => self.deliver(some, |b| {
                let len = b.len();
                b[(usize::from(at) + 256 * usize::from(what >> 6)) % len] ^= value;
            }),
            3 => self.deliver(some, |b| {
                b.truncate(usize::from(at) + 20);
                let len = (b.len() as u32).to_be_bytes();
                b.get_mut(24..28).map(|field| field.copy_from_slice(&len));
            }),
            4 => self.advance(u64::from(value) * 8),
            5 => self.command(n, at),
            6 if with_keys => {
                let ids: Vec<IkeId> = self.ends[n].list(self.now).iter().map(|row| row.id).collect();
                if let Some(id) = ids.get(usize::from(which >> 1) % ids.len().max(1)) {
                    self.ends[n].inject(self.now, *id, 34 + (what >> 3) % 4, what & 128 != 0, value, bytes);
                    self.collect();
                }
            }
            6 => self.deliver(some, |b| {
                let from = b.len().min(28);
                b.splice(from.., bytes.iter().copied());
                let len = (b.len() as u32).to_be_bytes();
                b.get_mut(24..28).map(|field| field.copy_from_slice(&len));
                b.get_mut(16).map(|first| *first = value);
            }),
            _ => self.settle(),
        }
    }

    fn command(&mut self, n: usize, what: u8) {
        let Some(row) = self.ends[n].list(self.now).into_iter().next() else { return };
        let child = row.children.first().map(|c| c.id);
        let command = match (what % 5, child) {
            (0, Some(child)) => Command::RekeyChild { child },
            (1, _) => Command::RekeyIke { ike: row.id },
            (2, _) => Command::Probe { ike: row.id },
            (3, Some(child)) if what & 128 != 0 => Command::Terminate(Which::Child(child)),
            _ => Command::Initiate { peer: "other".into(), child: None },
        };
        let _ = self.ends[n].command(self.now, command);
        self.collect();
    }

    /// Nothing is lost of what was up; both ends have the same.
    fn still_works(mut self, _up: [IkeId; 2]) {
        for _ in 0..8 {
            self.settle();
            self.advance(40_000);
        }
        self.settle();
        let live = |n: usize| {
            let mut rows = self.ends[n].list(self.now);
            rows.retain(|row| row.state == "established");
            let mut spis: Vec<_> = rows.iter().map(|row| row.spis).collect();
            spis.sort_unstable();
            spis
        };
        // Time may have gone by while datagrams were held back: then an end gives up, in words. Else both have the same.
        let lost = self.ends.iter().any(|end| end.counters().lost + end.counters().failed > 0);
        assert!(lost || live(0) == live(1), "{:?} {:?}", live(0), live(1));
        assert!(lost || !live(0).is_empty());
        assert!(lost || self.installed[0].len() == self.installed[1].len());
    }
}
