//! What `explain` does with arbitrary bytes: its reader of captures, and a whole core that gets frames of any kind, sealed ones
//! among them. No panic; nothing that is not authentic is delivered.
#![no_main]

use std::io::Read;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use phalanx_dataplane::command::{LinkEnd, TargetEntry, TargetSet, VipEntry};
use phalanx_dataplane::config::{CoreConfig, EalConfig, Idle, Limits, PortConfig, PortRole};
use phalanx_dataplane::{Command, DataplaneConfig, Fact, LoneCore, LonePacket};
use phalanx_ipsec::{
    Action, Algorithm, Direction, Filter, FilterTable, InboundSa, Lease, OutboundSa, Prefix, SaParams, SecretKey,
    Selectors, TunnelName,
};
use phalanx_steering::{Policy, PortRule};
use phalanx_wire::{Buffer, CoreId, Epoch, Mac, PeerId, SaId, Spi, TargetId, VecBuffer, VipId, ethernet};

#[allow(dead_code, missing_docs)] // of its crate, this uses the reader alone
#[rustfmt::skip] // formatted where it belongs
#[path = "../../appliance/control/src/explain/capture.rs"]
mod capture;

const PORTS: [PortRole; 3] = [PortRole::Network, PortRole::Link, PortRole::Application];
const VIP: [u8; 4] = [10, 77, 0, 100];
const CLIENT: [u8; 4] = [10, 77, 0, 10];
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    if kind & 1 == 0 { read(rest) } else { receive(Bed::new(kind & 2 != 0, kind & 4 != 0), rest) }
});

/// Packet by packet to the end or to an error, within what was there.
fn read(data: &[u8]) {
    let Ok(mut reader) = capture::Reader::new(data.take(1 << 20)) else { return };
    let mut bytes = 0;
    while let Ok(Some(packet)) = reader.packet() {
        bytes += packet.bytes.len();
        assert!(bytes <= data.len(), "more was read than there is");
    }
}

/// Frames as two bytes of length and what to do with them.
fn receive(mut bed: Bed, mut data: &[u8]) {
    while let Some(([how, len], rest)) = data.split_first_chunk::<2>() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        data = rest;
        bed.take(*how, frame);
    }
}

struct Bed {
    core: LoneCore,
    client: OutboundSa,
    /// AH around its packets.
    around: Option<OutboundSa>,
    numbers: Lease,
    marks: u32,
}

impl Bed {
    fn new(steers: bool, bundle: bool) -> Bed {
        let port = |role| PortConfig {
            name: "port".into(),
            device: "none".into(),
            role,
            mtu: 1600,
            addresses: if role == PortRole::Network { vec![([10, 77, 0, 1].into(), 24)] } else { vec![] },
            gateways: vec![],
            host_mac: None,
        };
        let core =
            CoreConfig { id: CoreId(0), cpu: None, router: true, target: true, ports: vec![0, 1, 2], idle: Idle::Spin };
        let limits = Limits { inbound: 4, outbound: 4, connections: 16, tracked: 16, held: 16, ..Limits::default() };
        let eal = EalConfig::default();
        let config = DataplaneConfig { eal, ports: PORTS.map(port).into(), cores: vec![core], limits };
        let mut core = LoneCore::new(&config, &[MAC; 3]).expect("tables");
        let (id, address) = (VipId(1), VIP.into());
        core.obey(Command::SetVip(Box::new(VipEntry {
            id,
            address,
            epoch: Epoch(1),
            router_core: Some(CoreId(0)),
            served: true,
            filter_at_router: false,
        })));
        if steers {
            let link = LinkEnd::Ring(CoreId(0));
            let target = TargetEntry { id: TargetId(1), link, eligible: true, draining: false, weight: 1 };
            let rule = PortRule { ports: vec![0..=u16::MAX], targets: vec![TargetId(1)], ..PortRule::default() };
            let set = TargetSet::new(vec![target], Policy::RoundRobin, &[rule]).expect("a rule");
            core.obey(Command::SetTargets(id, Box::new(set)));
        }
        core.obey(Command::Settled(id));
        let within = bundle.then(|| TunnelName::new("around").expect("a name"));
        let esp = |direction| SaParams { within, ..params(direction, VIP, CLIENT) };
        core.obey(Command::AddInbound(Box::new(InboundSa::new(esp(Direction::Inbound)).expect("an SA"))));
        core.obey(Command::Ceiling(SaId(1), u64::MAX));
        let outbound = esp(Direction::Outbound);
        let rule =
            Filter { vip: id, selectors: outbound.selectors, action: Action::Protect(outbound.tunnel), log: false };
        core.obey(Command::AddOutbound(Box::new(OutboundSa::new(outbound).expect("an SA"))));
        core.obey(Command::SetFilters(Box::new(FilterTable::new(vec![rule]))));
        let expires = std::time::Instant::now() + Duration::from_secs(3600);
        core.obey(Command::Lease { sa: SaId(2), lease: Lease::from_wire(1, 1 << 20), expires });
        let mut other_end = params(Direction::Outbound, CLIENT, VIP);
        other_end.spi = Spi(0xc0de);
        let client = OutboundSa::new(other_end).expect("an SA");
        let around = bundle.then(|| {
            let [inbound, outbound] = [Direction::Inbound, Direction::Outbound].map(|way| ah(params(way, VIP, CLIENT)));
            core.obey(Command::AddInbound(Box::new(InboundSa::new(inbound).expect("an SA"))));
            core.obey(Command::Ceiling(SaId(3), u64::MAX));
            core.obey(Command::AddOutbound(Box::new(OutboundSa::new(outbound).expect("an SA"))));
            core.obey(Command::Lease { sa: SaId(4), lease: Lease::from_wire(1, 1 << 20), expires });
            OutboundSa::new(ah(params(Direction::Outbound, CLIENT, VIP))).expect("an SA")
        });
        Bed { core, client, around, numbers: Lease::from_wire(1, 1 << 20), marks: 0 }
    }

    /// A frame as it is, an IP packet in a frame, or one that the client seals first.
    fn take(&mut self, how: u8, bytes: &[u8]) {
        let port = usize::from(how % 3);
        let mut packet = VecBuffer::from_slice(128, bytes, 128);
        let sealed = match how >> 4 {
            0 => return self.core.pass(Duration::from_millis(u64::from(how) * 50)),
            1..=6 => false,
            _ => self.client.seal(&mut packet, self.numbers.take().expect("numbers enough")).is_ok(),
        };
        let wrapped = match &mut self.around {
            Some(ah) if sealed && how & 4 == 0 => {
                ah.seal(&mut packet, self.numbers.take().expect("numbers enough")).is_ok()
            }
            around => around.is_none(),
        };
        let mut frame = packet.bytes().to_vec();
        if how & 8 != 0 || sealed {
            let kind = if frame.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
            let mut header = [0; ethernet::HEADER_LEN];
            ethernet::write(&mut header, MAC, Mac([2; 6]), kind).expect("room");
            frame.splice(0..0, header);
        }
        self.marks += 1;
        let mut packet = LonePacket::new();
        packet.set(&frame);
        packet.watch(self.marks);
        self.core.receive(port, std::iter::once(packet));
        while self.core.event().is_some() {}
        let came_out = [0, 1, 2].map(|port| self.core.sent(port).count());
        let mut facts = Vec::new();
        while let Some(note) = self.core.note() {
            if note.mark == self.marks {
                facts.push(note.fact);
            }
        }
        let opened = facts.iter().any(|fact| matches!(fact, Fact::Opened(_)));
        assert!(came_out[2] == 0 || (opened && sealed && wrapped), "delivered without an integrity check: {facts:?}");
    }
}

/// AH around the packets of that SA.
fn ah(esp: SaParams) -> SaParams {
    let key = SecretKey::new(Algorithm::AhHmacSha256, &[7; 32]).expect("a key");
    let (id, tunnel, mode) =
        (SaId(esp.id.0 + 2), TunnelName::new("around").expect("a name"), phalanx_ipsec::Mode::Transport);
    SaParams { id, tunnel, mode, algorithm: Algorithm::AhHmacSha256, key, ..esp }
}

/// The tunnel from the VIP's side, or turned around.
fn params(direction: Direction, local: [u8; 4], remote: [u8; 4]) -> SaParams {
    let inbound = direction == Direction::Inbound || local == CLIENT;
    let selectors = Selectors::between(Prefix::host(local.into()), Prefix::host(remote.into()));
    SaParams {
        id: if inbound { SaId(1) } else { SaId(2) },
        direction,
        vip: VipId(1),
        peer: PeerId(1),
        tunnel: TunnelName::new("client").expect("a name"),
        spi: if inbound { Spi(0xc0de) } else { Spi(0xc0df) },
        mode: phalanx_ipsec::Mode::Tunnel { local: local.into(), remote: remote.into() },
        local: local.into(),
        remote: remote.into(),
        algorithm: Algorithm::Aes128Gcm16,
        key: SecretKey::new(Algorithm::Aes128Gcm16, &[u8::from(inbound); 20]).expect("a key"),
        esn: true,
        window: 64,
        selectors,
        lifesize: phalanx_ipsec::Lifesize::UNLIMITED,
        path_mtu: 1500,
        mss_clamp: phalanx_ipsec::MssClamp::None,
        copy_dscp: true,
        ecn: true,
        encap: None,
        within: None,
    }
}
