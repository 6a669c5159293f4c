//! IKEv2: set-ups and rekeys as the CPU time of one end against the key exchange in them, memory of an IKE SA and its child

#[path = "ike/beside.rs"]
mod beside;
#[path = "ike/flow.rs"]
mod flow;
mod harness;
#[path = "ike/initiators.rs"]
mod initiators;
#[path = "ike/wire.rs"]
mod wire;

use std::cell::Cell;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use harness::{Report, Unit, clock, measure, note};
use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::crypto::{AesBits, Cipher, Group, Prf, Random, Secret};
use phalanx_ike::{
    Answer, ChildConfig, ChildMode, Command, Config, Credential, Endpoint, EspProposal, IkeProposal, Lifetime, Limits,
    Output, Path, PeerConfig, Proof, Remote,
};
use phalanx_ipsec::{Algorithm, PortRange};

const SET_UPS: u32 = 64;
const MANY: u32 = 20_000;
/// What an IKE SA and its child may take, in bytes (docs/REQUIREMENTS.md).
const MOST: usize = 6 * 1024;

fn main() {
    let report = Report::new("ike");
    if std::env::args().any(|argument| argument == "beside") {
        return beside::run(&report);
    }
    set_ups(&report);
    rekeys(&report);
    memory(&report);
    beside::run(&report);
    wire::run(&report);
}

struct Seeded(u64);

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

fn config(local: IpAddr, remote: Remote, remote_id: IdentityPattern) -> Config {
    let secret = || Secret::new(b"a secret of a good length, both know".to_vec());
    let child = ChildConfig {
        name: "net".into(),
        mode: ChildMode::Tunnel,
        local: Some("10.0.0.0/8".parse().expect("a prefix")),
        remote: Some("10.0.0.0/8".parse().expect("a prefix")),
        protocol: None,
        local_ports: PortRange::ANY,
        remote_ports: PortRange::ANY,
        proposal: EspProposal {
            algorithms: vec![Algorithm::Aes128Gcm16],
            groups: vec![Group::X25519],
            esn: vec![true, false],
        },
        lifetime: Lifetime { soft_ms: 3_600_000, hard_ms: 4_000_000, jitter_percent: 10, ..Lifetime::default() },
        window: 64,
        start: true,
    };
    let peer = PeerConfig {
        name: "peer".into(),
        local,
        remote,
        local_id: Identity::from(local),
        remote_id,
        credential: Credential::Psk(secret()),
        proof: Proof::Psk(secret()),
        proposal: IkeProposal {
            ciphers: vec![Cipher::AesGcm16 { bits: AesBits::B128 }],
            prfs: vec![Prf::HmacSha256],
            groups: vec![Group::X25519],
        },
        children: vec![Arc::new(child)],
        lifetime: Lifetime { soft_ms: 3_600_000, hard_ms: 4_000_000, jitter_percent: 10, ..Lifetime::default() },
        reauthenticate: false,
        liveness_ms: 30_000,
        keepalive_ms: 20_000,
        fragment: 1280,
        start: false,
        unique: true,
        force_encapsulation: false,
    };
    let limits = Limits { cookie_threshold: usize::MAX, ..Limits::default() };
    Config { peers: vec![Arc::new(peer)], limits, ..Config::default() }
}

/// One responder, and an initiator at another address each time.
struct Bed {
    responder: Endpoint,
    initiator: Endpoint,
    peers: u32,
    /// Nanoseconds of the two ends.
    spent: [Cell<f64>; 2],
}

const ROUTER: &str = "10.0.0.1";

impl Bed {
    fn new() -> Bed {
        let router = ROUTER.parse().expect("an address");
        let responder = Endpoint::new(config(router, Remote::Any, IdentityPattern::Any), 1, Box::new(Seeded(1)));
        Bed { responder, initiator: peer(0), peers: 0, spent: [Cell::new(0.0), Cell::new(0.0)] }
    }

    fn timed<R>(spent: &Cell<f64>, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        spent.set(spent.get() + start.elapsed().as_nanos() as f64);
        result
    }

    fn set_up(&mut self) {
        self.peers += 1;
        self.initiator = peer(self.peers);
        let [ours, _] = &self.spent;
        Self::timed(ours, || self.initiator.command(1000, Command::Initiate { peer: "peer".into(), child: None }))
            .expect("it begins");
        self.exchange();
        assert_eq!(self.initiator.counters().established_as_initiator, 1);
    }

    /// Until nobody has anything to say. What is to be installed is.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for n in 0..2 {
                let [a, b] = &self.spent;
                let (from, to, mine, theirs) = match n {
                    0 => (&mut self.initiator, &mut self.responder, a, b),
                    _ => (&mut self.responder, &mut self.initiator, b, a),
                };
                let outputs: Vec<_> = from.outputs().collect();
                for output in outputs {
                    quiet = false;
                    match output {
                        Output::Send { path, bytes } => {
                            let there = Path { local: path.remote, remote: path.local };
                            Self::timed(theirs, || to.datagram(1000, 1_800_000_000, there, &bytes));
                        }
                        Output::Install(sa) => Self::timed(mine, || from.answer(1000, Answer::Installed(sa.id))),
                        Output::Remove { child } => Self::timed(mine, || from.answer(1000, Answer::Removed(child))),
                        _ => {}
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn round(&mut self, n: u32, mut work: impl FnMut(&mut Bed)) -> [f64; 2] {
        self.spent.iter().for_each(|spent| spent.set(0.0));
        (0..n).for_each(|_| work(self));
        self.spent.each_ref().map(|spent| spent.get() / f64::from(n))
    }
}

fn peer(n: u32) -> Endpoint {
    let local = IpAddr::from((0x0a01_0000 + n).to_be_bytes());
    let router = ROUTER.parse::<IpAddr>().expect("an address");
    let config = config(local, Remote::Address(router), IdentityPattern::Exactly(router.into()));
    Endpoint::new(config, 1, Box::new(Seeded(u64::from(n) << 20)))
}

/// One key made and one secret agreed upon: what no implementation of the exchange can leave out.
fn key_exchange(other: &[u8], random: &mut Seeded) -> f64 {
    clock(|| {
        let private = Group::X25519.generate(random);
        black_box(private.agree(other).expect("a good public value"));
    })
}

fn set_ups(report: &Report) {
    let mut random = Seeded(7);
    let other = Group::X25519.generate(&mut random);
    let samples = measure(|| {
        // A new one each time: the table stays small.
        let mut bed = Bed::new();
        let [initiator, responder] = bed.round(SET_UPS, Bed::set_up);
        let limit = (0..SET_UPS).map(|_| key_exchange(other.public(), &mut random)).sum::<f64>() / f64::from(SET_UPS);
        [responder, initiator, limit]
    });
    let peer = "its X25519 alone";
    report.row(
        "set-up as responder: PSK, AES-GCM, with child",
        Unit::PerSecond("set-ups"),
        &samples[0],
        peer,
        &samples[2],
    );
    report.row("set-up as initiator", Unit::PerSecond("set-ups"), &samples[1], peer, &samples[2]);
    note(&format!("one set-up as responder takes {:.1} us of CPU", samples[0].best() / 1e3));
}

fn rekeys(report: &Report) {
    let mut random = Seeded(7);
    let other = Group::X25519.generate(&mut random);
    let mut bed = Bed::new();
    bed.set_up();
    let samples = measure(|| {
        let [_, responder] = bed.round(16, |bed| {
            let ike = bed.initiator.list(1000)[0].id;
            bed.initiator.command(1000, Command::RekeyIke { ike }).expect("it is up");
            bed.exchange();
        });
        [responder, key_exchange(other.public(), &mut random)]
    });
    report.row(
        "rekey of an IKE SA as responder",
        Unit::PerSecond("rekeys"),
        &samples[0],
        "its X25519 alone",
        &samples[1],
    );
}

fn memory(report: &Report) {
    let mut bed = Bed::new();
    (0..100).for_each(|_| bed.set_up());
    let before = resident();
    (0..MANY).for_each(|_| bed.set_up());
    let each = (resident() - before) / MANY as usize;
    assert_eq!(bed.responder.count().0, MANY as usize + 100);
    report.bytes("memory of an IKE SA and its child, of 20,000", each, "what it may take", MOST);
}

/// Bytes of this process that are in memory: libraries that allocate by themselves are seen too.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}
