//! A router and target core on real DPDK ports: ESP in at the network, clear at the application, and back.
//!
//! The ports are one end of `net_memif` pairs whose other ends the test holds: what it puts on one wire comes out
//! of the other changed, and nothing else does.

mod common;

use std::time::{Duration, Instant};

use common::{Control, End, framed, params, protect, segment};
use dpdk_ffi::{Burst, Eal, Mempool, MempoolConfig, Port, RxQueue, TxQueue};
use phalanx_dataplane::command::{ConnRow, DumpRequest, DumpWhat, LeaseRow, VipEntry};
use phalanx_dataplane::config::{CoreConfig, EalConfig, HugePages, Idle, Limits, PortConfig, PortRole};
use phalanx_dataplane::{Command, Dataplane, DataplaneConfig, Event, Stage};
use phalanx_ipsec::{Direction, FilterTable, InboundSa, Lease, OutboundSa, Role};
use phalanx_wire::ethernet::{HEADER_LEN, ethertype};
use phalanx_wire::{Arp, Buffer, CoreId, DropReason, Epoch, Frame, Mac, TargetId, TcpFlags, VecBuffer, VipId, arp};

const VIP: &str = "10.77.0.100";
const CLIENT: &str = "10.77.0.10";
const INNER: &str = "10.99.0.10";
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x10]);

fn ours(id: u64, spi: u32) -> End {
    End { id, vip: VipId(1), spi, key: spi as u8, window: 64, outer: [VIP, CLIENT], inner: [VIP, INNER] }
}

fn theirs(id: u64, spi: u32) -> End {
    End { outer: [CLIENT, VIP], inner: [INNER, VIP], ..ours(id, spi) }
}

/// The other end of a port's wire.
struct Wire {
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
    port: Port,
}

impl Wire {
    fn attach(eal: &Eal, pool: &Mempool, device: &str) -> Wire {
        let mut port = Port::open(eal, device).unwrap();
        port.configure(&dpdk_ffi::PortConfig::default(), pool).unwrap();
        let mut queues = port.start().unwrap();
        let (rx, tx) = (queues.rx.remove(0), queues.tx.remove(0));
        Wire { rx, tx, pool: pool.clone(), port }
    }

    fn send(&mut self, frame: &[u8]) {
        let mut burst = Burst::<1>::new();
        burst.push(self.pool.alloc_with(frame).unwrap()).unwrap();
        while !burst.is_empty() {
            self.tx.tx_burst(&mut burst);
        }
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::<32>::new();
        self.rx.rx_burst(&mut burst);
        burst.iter().map(|frame| frame.data().to_vec()).collect()
    }
}

/// The application's and the client's end of everything.
struct Bed {
    network: Wire,
    application: Wire,
    control: Control,
}

impl Bed {
    /// Serves control and wires until a frame of interest comes; ARP for the client is answered on the way.
    fn wait_for(&mut self, from_application: bool) -> Option<Vec<u8>> {
        let until = Instant::now() + Duration::from_millis(if from_application { 2000 } else { 3000 });
        while Instant::now() < until {
            self.control.serve();
            let delivered = self.application.receive();
            if from_application && !delivered.is_empty() {
                return delivered.into_iter().next();
            }
            for frame in self.network.receive() {
                match Frame::parse(&frame).unwrap().ethertype {
                    ethertype::ARP => self.answer_arp(&frame[HEADER_LEN..]),
                    _ => return Some(frame),
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        None
    }

    fn answer_arp(&mut self, message: &[u8]) {
        let asked = Arp::parse(message).unwrap();
        if asked.target_ip.to_string() == CLIENT {
            self.network.send(&arp::reply_frame(CLIENT_MAC, &asked));
        }
    }
}

fn config(socket: &str) -> DataplaneConfig {
    let port = |name: &str, id: usize, role, addresses: &[&str]| PortConfig {
        name: name.into(),
        device: format!("net_memif{id},role=server,socket={socket}-{id}"),
        role,
        mtu: 1500,
        addresses: addresses.iter().map(|address| (common::addr(address), 24)).collect(),
        gateways: vec![],
        host_mac: None,
    };
    DataplaneConfig {
        eal: EalConfig { huge: HugePages::Off, ..EalConfig::default() },
        ports: vec![
            port("network", 0, PortRole::Network, &["10.77.0.1"]),
            port("application", 1, PortRole::Application, &[]),
        ],
        cores: vec![
            CoreConfig { id: CoreId(0), cpu: None, router: true, target: false, ports: vec![0], idle: Idle::SLEEP },
            CoreConfig { id: CoreId(1), cpu: None, router: false, target: true, ports: vec![1], idle: Idle::SLEEP },
        ],
        limits: Limits { packets: 4095, connections: 1024, tracked: 1024, ring: 256, ..Limits::default() },
    }
}

fn set_up(control: &mut Control, role: Direction) {
    control.order(Command::SetVip(Box::new(VipEntry {
        id: VipId(1),
        address: common::addr(VIP),
        epoch: Epoch(1),
        router_core: Some(CoreId(0)),
        served: true,
        filter_at_router: false,
    })));
    control.order(Command::AddInbound(Box::new(InboundSa::new(params(Direction::Inbound, &ours(1, 0x101))).unwrap())));
    if role == Direction::Inbound {
        control.order(Command::SetTargets(VipId(1), common::all_ports_to(CoreId(1))));
        control.order(Command::Settled(VipId(1)));
    } else {
        let sa = OutboundSa::new(params(Direction::Outbound, &ours(2, 0x102))).unwrap();
        control.order(Command::AddOutbound(Box::new(sa)));
    }
    control.order(Command::SetFilters(Box::new(FilterTable::new(vec![protect(&ours(1, 0x101))]))));
}

/// The client's ends of the SAs.
struct Client {
    out: OutboundSa,
    inbound: InboundSa,
    numbers: Lease,
}

impl Client {
    fn new() -> Client {
        Client {
            out: OutboundSa::new(params(Direction::Outbound, &theirs(1, 0x101))).unwrap(),
            inbound: InboundSa::new(params(Direction::Inbound, &theirs(2, 0x102))).unwrap(),
            numbers: Lease::from_wire(1, 100),
        }
    }

    fn seal(&mut self, packet: &[u8], to: Mac) -> Vec<u8> {
        let mut buffer = VecBuffer::from_slice(128, packet, 128);
        self.out.seal(&mut buffer, self.numbers.take().unwrap()).unwrap();
        framed(buffer.bytes(), to, CLIENT_MAC)
    }

    fn open(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut buffer = VecBuffer::from_slice(0, &frame[HEADER_LEN..], 0);
        self.inbound.open(&mut buffer, Role::Target).expect("genuine");
        buffer.bytes().to_vec()
    }
}

/// Wires to both ports, connected; both cores know the VIP and its SAs.
fn bed(eal: &Eal, pool: &Mempool, dataplane: &Dataplane, socket: &str) -> Bed {
    let attach = |id: usize| Wire::attach(eal, pool, &format!("net_memif{},role=client,socket={socket}-{id}", id + 2));
    let (network, application) = (attach(0), attach(1));
    let until = Instant::now() + Duration::from_secs(5);
    while !(network.port.link().up && application.port.link().up) {
        assert!(Instant::now() < until, "the wires do not connect");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut router = Control::new(dataplane.commands(CoreId(0)).unwrap(), dataplane.events(), 8);
    set_up(&mut router, Direction::Inbound);
    router.sender.try_send(0, Command::Ceiling(phalanx_wire::SaId(1), 1 << 20)).unwrap();
    // From here on only the target's core asks for anything.
    let mut control = Control::new(dataplane.commands(CoreId(1)).unwrap(), dataplane.events(), 8);
    set_up(&mut control, Direction::Outbound);
    Bed { network, application, control }
}

/// The router's connections and the target's leases.
fn dumps(dataplane: &Dataplane) -> (ConnRow, LeaseRow) {
    let send = |core, what| {
        let dump = Command::Dump(DumpRequest::new(what, 2048));
        assert!(dataplane.commands(CoreId(core)).unwrap().try_send(99, dump).is_ok());
    };
    send(0, DumpWhat::Routed);
    send(1, DumpWhat::Leases);
    let (mut events, mut rows, mut leases) = (dataplane.events(), Vec::new(), Vec::new());
    let until = Instant::now() + Duration::from_secs(5);
    while rows.is_empty() || leases.is_empty() {
        assert!(Instant::now() < until, "no dump");
        if let Some(Event::Dumped { mut dump, .. }) = events.try_recv() {
            rows.append(&mut dump.connections);
            leases.append(&mut dump.leases);
        }
    }
    assert_eq!((rows.len(), leases.len()), (1, 1));
    (rows[0], leases[0])
}

#[test]
fn a_connection_crosses_router_core_target_core_and_application_and_its_answer_goes_back_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("{}/memif", folder.path().display());
    let config = config(&socket);
    let eal = Eal::init(&config.eal).unwrap();
    let dataplane = Dataplane::start_on(&eal, &config).expect("starts");
    let pool = MempoolConfig { name: "test".into(), count: 1023, ..MempoolConfig::default() };
    let pool = Mempool::new(&eal, &pool).unwrap();
    let mut bed = bed(&eal, &pool, &dataplane, &socket);
    let [mac, host_mac] = [0, 1].map(|port: usize| Mac(dataplane.ports()[port].mac()));
    let mut client = Client::new();

    // In.
    let syn = segment((INNER, 4000), (VIP, 80), TcpFlags::SYN, 0);
    let sealed = client.seal(&syn, mac);
    bed.network.send(&sealed);
    let delivered = bed.wait_for(true).expect("delivered");
    assert_eq!(delivered[HEADER_LEN..], syn);
    assert_eq!(Frame::parse(&delivered).unwrap().dst, host_mac);

    // A replay comes to nothing.
    bed.network.send(&sealed);
    assert_eq!(bed.wait_for(true), None);
    assert_eq!(dataplane.stats(CoreId(0)).unwrap().drops(DropReason::Replay), 1);

    // Back.
    let answer = segment((VIP, 80), (INNER, 4000), TcpFlags::SYN | TcpFlags::ACK, 1000);
    bed.application.send(&framed(&answer, host_mac, CLIENT_MAC));
    let sent = bed.wait_for(false).expect("sent");
    let header = Frame::parse(&sent).unwrap();
    assert_eq!((header.dst, header.src), (CLIENT_MAC, mac));
    assert_eq!(client.open(&sent), answer);
    assert_eq!(client.inbound.window.edge(), 1, "the first number of the first lease");

    let (connection, lease) = dumps(&dataplane);
    assert_eq!((connection.target, connection.key.flow.remote.port), (Some(TargetId(1)), 4000));
    // One used; a second block may have been asked for ahead.
    assert_eq!((lease.highest, lease.left % 8), (1, 7));
    assert_eq!(dataplane.stats(CoreId(1)).unwrap().stage(Stage::Sealed), 1);
    drop(bed);
    dataplane.stop();
    assert_eq!(pool.in_use(), 0);
}
