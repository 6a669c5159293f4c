//! Two endpoints, a clock that the test moves, a network that it spoils, and what a data plane would have.
#![allow(dead_code)]

use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::crypto::{AesBits, Cipher, Group, Prf, Random, Secret};
use phalanx_ike::*;
use phalanx_ipsec::{Algorithm, PortRange};
use phalanx_wire::Spi;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Repeats itself from its seed.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.next() as u8;
        }
    }
}

pub const A: &str = "10.77.0.1";
pub const B: &str = "10.77.0.2";

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn child(name: &str, local: &str, remote: &str) -> ChildConfig {
    ChildConfig {
        name: name.into(),
        mode: ChildMode::Tunnel,
        local: Some(local.parse().unwrap()),
        remote: Some(remote.parse().unwrap()),
        protocol: None,
        local_ports: PortRange::ANY,
        remote_ports: PortRange::ANY,
        proposal: EspProposal {
            algorithms: vec![Algorithm::Aes256Gcm16, Algorithm::Aes128Gcm16],
            groups: vec![],
            esn: vec![true, false],
        },
        lifetime: Lifetime::default(),
        window: 64,
        start: true,
    }
}

/// One end's view of the other.
pub fn peer(here: &str, there: &str) -> PeerConfig {
    let (local, remote) = if here == A { ("10.1.0.0/16", "10.2.0.0/16") } else { ("10.2.0.0/16", "10.1.0.0/16") };
    let id = |text: &str| -> Identity { ip(text).into() };
    PeerConfig {
        name: "other".into(),
        local: ip(here),
        remote: Remote::Address(ip(there)),
        local_id: id(here),
        remote_id: IdentityPattern::Exactly(id(there)),
        credential: Credential::Psk(Secret::new(b"between us".to_vec())),
        proof: Proof::Psk(Secret::new(b"between us".to_vec())),
        proposal: IkeProposal {
            ciphers: vec![Cipher::AesGcm16 { bits: AesBits::B256 }],
            prfs: vec![Prf::HmacSha256],
            groups: vec![Group::X25519, Group::Ecp256],
        },
        children: vec![Arc::new(child("net", local, remote))],
        lifetime: Lifetime::default(),
        reauthenticate: false,
        liveness_ms: 0,
        keepalive_ms: 20_000,
        fragment: 1280,
        start: false,
        unique: true,
        force_encapsulation: false,
    }
}

/// What a child looks like to packets.
#[derive(Clone, Debug)]
pub struct Installed {
    pub sa: ChildSa,
    pub current: bool,
}

/// One endpoint and its data plane.
pub struct Node {
    pub endpoint: Endpoint,
    pub installed: BTreeMap<ChildId, Installed>,
    /// Those it was told to send with, in order.
    pub switched: Vec<ChildId>,
    pub events: Vec<Event>,
    pub install: Install,
    pub sent: usize,
    /// SPIs that it offered.
    pub expected: BTreeSet<Spi>,
    pub key_lines: Vec<String>,
    pub ever: usize,
}

/// What the data plane does with a child.
#[derive(Clone, Copy, PartialEq)]
pub enum Install {
    After(Millis),
    Refuse,
    Never,
}

impl Node {
    pub fn new(config: Config, seed: u64) -> Node {
        Node {
            endpoint: Endpoint::new(config, 1, Box::new(Seeded(seed))),
            installed: BTreeMap::new(),
            switched: Vec::new(),
            events: Vec::new(),
            install: Install::After(0),
            sent: 0,
            expected: BTreeSet::new(),
            key_lines: Vec::new(),
            ever: 0,
        }
    }

    pub fn says(&self, words: &str) -> bool {
        self.events.iter().any(|e| e.to_string().contains(words))
    }

    pub fn told(&self) -> String {
        self.events.iter().map(|e| format!("{:>7} {e}\n", e.at)).collect()
    }

    pub fn ikes(&self, now: Millis) -> Vec<IkeRow> {
        self.endpoint.list(now)
    }
}

/// What happens to datagrams on the way.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Out of 100.
    pub lost: u64,
    pub twice: u64,
    /// Milliseconds: this and up to as much again by chance, which reorders.
    pub delay: Millis,
    pub jitter: Millis,
}

enum Due {
    Datagram { to: usize, path: Path, bytes: Vec<u8> },
    Answer { to: usize, answer: Answer },
}

/// Both, and what is between them.
pub struct Bed {
    pub nodes: [Node; 2],
    pub now: Millis,
    pub weather: Weather,
    pub random: Seeded,
    due: BTreeMap<(Millis, u64), Due>,
    count: u64,
    /// A NAT in front of the first: its address is this one outside.
    pub nat: Option<SocketAddr>,
    inside: HashMap<u16, SocketAddr>,
    pub wire: Vec<(usize, Vec<u8>)>,
    /// Whether to keep what was sent.
    pub record: bool,
}

impl Bed {
    pub fn new(a: Config, b: Config) -> Bed {
        Bed::seeded(a, b, 1)
    }

    pub fn seeded(a: Config, b: Config, seed: u64) -> Bed {
        Bed {
            nodes: [Node::new(a, seed), Node::new(b, seed ^ 0xffff)],
            now: 1000,
            weather: Weather { delay: 5, ..Weather::default() },
            random: Seeded(seed.rotate_left(17)),
            due: BTreeMap::new(),
            count: 0,
            nat: None,
            inside: HashMap::new(),
            wire: Vec::new(),
            record: false,
        }
    }

    /// With these two views of each other and nothing else.
    pub fn with(a: PeerConfig, b: PeerConfig) -> Bed {
        Bed::new(config(a), config(b))
    }

    /// The same, set up by the first; how it comes out.
    pub fn tried(a: PeerConfig, b: PeerConfig) -> Bed {
        let mut bed = Bed::with(a, b);
        bed.initiate(0);
        bed.run(3_000);
        bed
    }

    fn push(&mut self, at: Millis, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    pub fn inject(&mut self, to: usize, path: Path, bytes: Vec<u8>) {
        self.push(self.now, Due::Datagram { to, path, bytes });
    }

    /// Does what the endpoints want done.
    pub fn collect(&mut self) {
        for n in 0..2 {
            let outputs: Vec<_> = self.nodes[n].endpoint.outputs().collect();
            for output in outputs {
                self.obey(n, output);
            }
        }
    }

    fn obey(&mut self, n: usize, output: Output) {
        match output {
            Output::Send { path, bytes } => self.send(n, path, bytes),
            Output::Expect { spi, ms, .. } => {
                assert!(ms > 0 && self.nodes[n].expected.insert(spi));
            }
            Output::Install(sa) => {
                let id = sa.id;
                let expected = self.nodes[n].expected.contains(&sa.inbound.spi);
                assert_eq!(expected, sa.initiator, "what we offer is expected before the peer hears of it");
                let current = sa.replaces.is_none();
                let node = &mut self.nodes[n];
                node.ever += 1;
                if current {
                    node.switched.push(id);
                }
                assert!(node.installed.values().all(|i| i.sa.inbound.spi != sa.inbound.spi), "an SPI twice");
                let answer = match node.install {
                    Install::After(ms) => Some((ms, Answer::Installed(id))),
                    Install::Refuse => Some((0, Answer::Refused(id, "no room".to_owned()))),
                    Install::Never => None,
                };
                if node.install != Install::Refuse {
                    node.installed.insert(id, Installed { sa: *sa, current });
                }
                if let Some((ms, answer)) = answer {
                    self.push(self.now + ms, Due::Answer { to: n, answer });
                }
            }
            Output::SwitchOutbound { child } => {
                self.nodes[n].switched.push(child);
                if let Some(i) = self.nodes[n].installed.get_mut(&child) {
                    i.current = true;
                    let (spi, old) = (i.sa.outbound.spi, i.sa.replaces);
                    if let Some(old) = old.and_then(|old| self.nodes[n].installed.get_mut(&old)) {
                        old.current = false;
                    }
                    // Traffic flows: the other end sees it soon.
                    let there = self.nodes[1 - n].installed.values().find(|o| o.sa.inbound.spi == spi).map(|o| o.sa.id);
                    if let Some(child) = there {
                        let answer = Answer::Verified { child };
                        self.push(self.now + 10, Due::Answer { to: 1 - n, answer });
                    }
                }
            }
            Output::Remove { child } => {
                assert!(self.nodes[n].installed.remove(&child).is_some(), "removed what is not there");
                self.push(self.now, Due::Answer { to: n, answer: Answer::Removed(child) });
            }
            Output::Moved { children, path } => {
                for child in children {
                    self.nodes[n].installed.get_mut(&child).expect("it is installed").sa.path = path;
                }
            }
            Output::Keepalive { .. } => {}
            Output::Event(event) => self.nodes[n].events.push(event),
            Output::KeyLog(line) => self.nodes[n].key_lines.push(line.expose().to_owned()),
        }
    }

    fn send(&mut self, from: usize, path: Path, bytes: Vec<u8>) {
        self.nodes[from].sent += 1;
        if self.record {
            self.wire.push((from, bytes.clone()));
        }
        let mut there = Path { local: path.remote, remote: path.local };
        if let Some(outside) = self.nat {
            if from == 0 {
                self.inside.insert(path.local.port(), path.local);
                // A port of its own for each inside.
                there.remote = SocketAddr::new(outside.ip(), outside.port() + path.local.port());
            } else {
                let port = path.remote.port().wrapping_sub(outside.port());
                match self.inside.get(&port) {
                    Some(inside) if path.remote.ip() == outside.ip() => there.local = *inside,
                    _ => return,
                }
            }
        }
        let copies = if self.random.below(100) < self.weather.lost {
            0
        } else {
            1 + u32::from(self.random.below(100) < self.weather.twice)
        };
        for _ in 0..copies {
            let at = self.now + self.weather.delay + self.random.below(self.weather.jitter + 1);
            self.push(at, Due::Datagram { to: 1 - from, path: there, bytes: bytes.clone() });
        }
    }

    /// The next moment at which something happens, if it is before `until`.
    pub fn step(&mut self, until: Millis) -> bool {
        self.collect();
        let due = self.due.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|n| n.endpoint.deadline()).min();
        let Some(at) = due.into_iter().chain(timers).min().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.due.first_entry().filter(|e| e.key().0 <= self.now) {
            match entry.remove() {
                Due::Datagram { to, path, bytes } => {
                    self.nodes[to].endpoint.datagram(self.now, 1_800_000_000, path, &bytes);
                }
                Due::Answer { to, answer } => self.nodes[to].endpoint.answer(self.now, answer),
            }
        }
        for node in &mut self.nodes {
            node.endpoint.tick(self.now, 1_800_000_000);
        }
        self.collect();
        true
    }

    pub fn run(&mut self, ms: Millis) {
        let until = self.now + ms;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 200_000, "it goes on for ever");
        }
    }

    pub fn initiate(&mut self, n: usize) {
        let command = Command::Initiate { peer: "other".to_owned(), child: None };
        self.nodes[n].endpoint.command(self.now, command).unwrap();
    }

    pub fn command(&mut self, n: usize, command: Command) -> Begun {
        self.nodes[n].endpoint.command(self.now, command).unwrap()
    }

    pub fn ike(&self, n: usize) -> IkeId {
        self.nodes[n].ikes(self.now)[0].id
    }

    pub fn only_child(&self, n: usize) -> ChildId {
        assert_eq!(self.nodes[n].installed.len(), 1, "{}", self.told());
        *self.nodes[n].installed.keys().next().unwrap()
    }

    pub fn told(&self) -> String {
        format!("A:\n{}B:\n{}", self.nodes[0].told(), self.nodes[1].told())
    }

    /// Both ends have the same SAs: IKE and CHILD, with the same keys.
    pub fn agree(&self) {
        let ikes = |n: usize| {
            let mut spis: Vec<_> = self.nodes[n].ikes(self.now).iter().map(|r| r.spis).collect();
            spis.sort();
            spis
        };
        assert_eq!(ikes(0), ikes(1), "{}", self.told());
        let [a, b] = [0, 1].map(|n| &self.nodes[n].installed);
        assert_eq!(a.len(), b.len(), "{}", self.told());
        for i in a.values() {
            let there = b.values().find(|o| o.sa.inbound.spi == i.sa.outbound.spi);
            let there = there.unwrap_or_else(|| panic!("half an SA\n{}", self.told()));
            assert_eq!(i.sa.inbound, there.sa.outbound);
            assert_eq!(i.sa.outbound, there.sa.inbound);
            let (l, r) = (i.sa.selectors, there.sa.selectors);
            assert_eq!((l.local, l.remote, l.protocol), (r.remote, r.local, r.protocol));
            assert_eq!((i.sa.esn, i.sa.algorithm, i.sa.mode), (there.sa.esn, there.sa.algorithm, there.sa.mode));
        }
    }

    /// Up at both ends, one IKE SA and so many children.
    pub fn is_up(&self, children: usize) {
        self.agree();
        for node in &self.nodes {
            assert_eq!(node.ikes(self.now).len(), 1, "{}", self.told());
            assert_eq!(node.ikes(self.now)[0].state, "established", "{}", self.told());
            assert_eq!(node.installed.len(), children, "{}", self.told());
            assert_eq!(node.installed.values().filter(|i| i.current).count(), children, "{}", self.told());
        }
    }

    pub fn is_down(&self) {
        for node in &self.nodes {
            assert_eq!(node.ikes(self.now).len(), 0, "{}", self.told());
            assert_eq!(node.installed.len(), 0, "{}", self.told());
        }
    }
}

pub fn config(peer: PeerConfig) -> Config {
    Config { peers: vec![Arc::new(peer)], ..Config::default() }
}

pub fn change(peer: &mut PeerConfig, what: impl FnOnce(&mut ChildConfig)) {
    let mut child = (*peer.children[0]).clone();
    what(&mut child);
    peer.children = vec![Arc::new(child)];
}
