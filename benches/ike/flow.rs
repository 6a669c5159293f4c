//! A client of the VIP: it negotiates one tunnel, ESP in UDP, and sends requests through it at an even rate, which servers on the
//! targets send back. How long each took, and how many never came back, is what it knows.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use phalanx_ike::{Answer, ChildSa, Command, Endpoint, Keyed, Output, Path};
use phalanx_ipsec::{
    Direction, Encap, InboundSa, Lease, Lifesize, MAX_BACK, MAX_FRONT, Mode, MssClamp, OutboundSa, Role, SaParams,
    TunnelName,
};
use phalanx_wire::udp::{self, UdpHeader};
use phalanx_wire::{Buffer, IpHeader, PeerId, SaId, VecBuffer, VipId, ip, ipv4, protocol};

use super::Seeded;
use super::beside::{CLIENT, LONG, PORT, VIP, elsewhere, peers};
use super::wire::enter;

/// Requests a second, each of so many bytes inside, over so many flows in turn.
const RATE: u32 = 1000;
const BYTES: usize = 200;
const FLOWS: u16 = 16;
/// After the last request answers may take so long; what comes later is lost.
const LATE: Duration = Duration::from_secs(2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 128, 255, 1);
const IKE: u16 = 500;
const NATT: u16 = 4500;
/// Outer IPv4 and UDP header.
const OUTER: usize = ipv4::MIN_LEN + udp::LEN;
/// Inner ones.
const INNER: usize = ipv4::MIN_LEN + udp::LEN;

/// What was seen of the requests of one run.
pub struct Seen {
    pub sent: u32,
    pub answered: u32,
    /// Microseconds from each request to its answer, ascending.
    took: Vec<f64>,
}

impl Seen {
    /// Microseconds in which so many percent of the answers were there.
    pub fn percentile(&self, percent: f64) -> f64 {
        let last = self.took.len().saturating_sub(1);
        self.took.get(((self.took.len() as f64 * percent / 100.0) as usize).min(last)).copied().unwrap_or(f64::NAN)
    }
}

/// Both ends of the tunnel that the client has.
pub struct Flow {
    socket: UdpSocket,
    out: OutboundSa,
    numbers: Lease,
    inbound: InboundSa,
}

/// A server of a target: sends back what comes. Until it is dropped.
pub struct Server {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts one in a target's namespace, on the VIP.
pub fn serve(door: File) -> Server {
    let end = Arc::new(AtomicBool::new(false));
    let stop = end.clone();
    let thread = std::thread::spawn(move || {
        enter(door);
        elsewhere();
        let socket = UdpSocket::bind((VIP, PORT)).expect("the VIP is on the target");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
    });
    Server { end, thread: Some(thread) }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Flow {
    /// Negotiates, in the client's namespace.
    pub fn new(door: File, secret: &str) -> Flow {
        let opened = std::thread::spawn(move || {
            enter(door);
            [IKE, NATT].map(|port| {
                let socket = UdpSocket::bind((CLIENT, port)).expect("the port is free there");
                socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
                socket
            })
        });
        let [ike, socket] = opened.join().expect("sockets");
        let child = negotiate(&ike, &socket, secret);
        let out = OutboundSa::new(params(&child, Direction::Outbound)).expect("an SA");
        let inbound = InboundSa::new(params(&child, Direction::Inbound)).expect("an SA");
        Flow { socket, out, numbers: Lease::from_wire(1, 1 << 30), inbound }
    }

    /// Sends to each server now and then until answers come on all flows: they listen, and everybody knows.
    pub fn wait_until_answered(&mut self) {
        let start = Instant::now();
        while self.paced(200, 400).answered < 200 {
            assert!(start.elapsed() < LONG, "the servers do not answer");
        }
    }

    /// Requests for so many seconds.
    pub fn run(&mut self, seconds: u32) -> Seen {
        self.paced(RATE * seconds, RATE)
    }

    fn paced(&mut self, count: u32, rate: u32) -> Seen {
        let Flow { socket, out, numbers, inbound } = self;
        let (start, sent) = (Instant::now(), AtomicU32::new(0));
        let took = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(socket, inbound, start, count, &sent));
            scope.spawn(|| {
                elsewhere();
                for number in 0..count {
                    let due = start + Duration::from_secs(1) * number / rate;
                    if let Some(early) = due.checked_duration_since(Instant::now()) {
                        std::thread::sleep(early);
                    }
                    let packet = request(number, start.elapsed());
                    let mut buffer = VecBuffer::from_slice(MAX_FRONT, &packet, MAX_BACK);
                    out.seal(&mut buffer, numbers.take().expect("numbers enough")).expect("sealed");
                    socket.send_to(&buffer.bytes()[OUTER..], (VIP, NATT)).expect("a socket");
                    sent.store(number + 1, Ordering::Release);
                }
            });
            receiver.join().expect("it ends")
        });
        Seen { sent: count, answered: took.len() as u32, took }
    }
}

/// Microseconds that each answer took, ascending.
fn receive(socket: &UdpSocket, sa: &mut InboundSa, start: Instant, count: u32, sent: &AtomicU32) -> Vec<f64> {
    elsewhere();
    let (mut took, mut buffer) = (vec![f64::NAN; count as usize], [0; 2048]);
    let (mut left, mut over) = (count, None);
    while left > 0 {
        let heard = socket.recv(&mut buffer);
        let now = start.elapsed();
        if sent.load(Ordering::Acquire) == count && *over.get_or_insert(now + LATE) < now {
            break;
        }
        let Ok(len) = heard else { continue };
        let Some((number, then)) = answer(sa, &buffer[..len]) else { continue };
        // One of an earlier run is nothing.
        if let Some(place) = took.get_mut(number as usize).filter(|place| place.is_nan() && then <= now) {
            *place = (now - then).as_nanos() as f64 / 1e3;
            left -= 1;
        }
    }
    took.retain(|us| !us.is_nan());
    took.sort_unstable_by(f64::total_cmp);
    took
}

/// The inner packet of a request: its number, and when it left.
fn request(number: u32, now: Duration) -> [u8; BYTES] {
    let mut packet = [0; BYTES];
    let (src, dst) = (IpAddr::from(INSIDE), IpAddr::from(VIP));
    let fields = ip::Fields {
        src,
        dst,
        protocol: protocol::UDP,
        payload_len: BYTES - ipv4::MIN_LEN,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut packet, &fields).expect("room");
    let (src_port, len) = (20_000 + (number % u32::from(FLOWS)) as u16, (BYTES - ipv4::MIN_LEN) as u16);
    let header = UdpHeader { src_port, dst_port: PORT, len, checksum: 0 };
    header.write(&mut packet[ipv4::MIN_LEN..]).expect("room");
    packet[INNER..INNER + 4].copy_from_slice(&number.to_be_bytes());
    packet[INNER + 4..INNER + 12].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
    udp::set_checksum(src, dst, &mut packet[ipv4::MIN_LEN..]).expect("a datagram");
    packet
}

/// The number and the time in an answer, if it is a genuine one.
fn answer(sa: &mut InboundSa, datagram: &[u8]) -> Option<(u32, Duration)> {
    let mut outer = [0; OUTER];
    let fields = ip::Fields {
        src: VIP.into(),
        dst: CLIENT.into(),
        protocol: protocol::UDP,
        payload_len: udp::LEN + datagram.len(),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        dont_fragment: true,
        identification: 0,
    };
    ip::write_header(&mut outer, &fields).ok()?;
    let len = (udp::LEN + datagram.len()) as u16;
    UdpHeader { src_port: NATT, dst_port: NATT, len, checksum: 0 }.write(&mut outer[ipv4::MIN_LEN..]).ok()?;
    let mut buffer = VecBuffer::from_slice(0, &[&outer[..], datagram].concat(), 0);
    sa.open(&mut buffer, Role::Target).ok()?;
    let header = IpHeader::parse(buffer.bytes()).ok()?;
    let data = header.upper_of(buffer.bytes()).get(udp::LEN..)?;
    let (number, rest) = data.split_first_chunk()?;
    let then = u64::from_be_bytes(*rest.first_chunk()?);
    Some((u32::from_be_bytes(*number), Duration::from_nanos(then)))
}

/// The client's tunnel: ESP in UDP, so that it needs no other socket.
fn negotiate(ike: &UdpSocket, natt: &UdpSocket, secret: &str) -> ChildSa {
    let mut config = peers(CLIENT, INSIDE, secret);
    let mut peer = (*config.peers[0]).clone();
    peer.force_encapsulation = true;
    config.peers = vec![peer.into()];
    let mut endpoint = Endpoint::new(config, 1, Box::new(Seeded(5)));
    endpoint.command(0, Command::Initiate { peer: "peer".into(), child: None }).expect("it begins");
    let (start, mut buffer, mut child) = (Instant::now(), [0; 2048], None);
    loop {
        let now = start.elapsed().as_millis() as u64;
        for output in endpoint.outputs().collect::<Vec<_>>() {
            match output {
                Output::Send { path, bytes } if path.local.port() == IKE => drop(ike.send_to(&bytes, path.remote)),
                Output::Send { path, bytes } => drop(natt.send_to(&[&[0; 4][..], &bytes].concat(), path.remote)),
                Output::Install(sa) => {
                    endpoint.answer(now, Answer::Installed(sa.id));
                    child = Some(sa);
                }
                _ => {}
            }
        }
        if let Some(child) = child.take_if(|_| endpoint.counters().children == 1) {
            return *child;
        }
        assert!(start.elapsed() < LONG, "the flow's tunnel is not up");
        for (socket, port, marker) in [(ike, IKE, 0), (natt, NATT, 4)] {
            if let Ok((len, remote)) = socket.recv_from(&mut buffer)
                && len > marker
            {
                let path = Path { local: (CLIENT, port).into(), remote };
                endpoint.datagram(now, 1_800_000_000, path, &buffer[marker..len]);
            }
        }
        endpoint.tick(now, 1_800_000_000);
    }
}

/// One direction of it.
fn params(child: &ChildSa, direction: Direction) -> SaParams {
    let Keyed { spi, key } = if direction == Direction::Inbound { &child.inbound } else { &child.outbound };
    let (local, remote) = (child.path.local.ip(), child.path.remote.ip());
    SaParams {
        id: SaId(1),
        direction,
        vip: VipId(1),
        peer: PeerId(1),
        tunnel: TunnelName::new("vip").expect("a name"),
        spi: *spi,
        mode: Mode::Tunnel { local, remote },
        local,
        remote,
        algorithm: child.algorithm,
        key: key.clone(),
        esn: child.esn,
        window: 1024,
        selectors: child.selectors,
        lifesize: Lifesize::UNLIMITED,
        path_mtu: 1500,
        mss_clamp: MssClamp::None,
        copy_dscp: true,
        ecn: true,
        encap: Some(Encap { remote_port: NATT, original: None }),
        within: None,
    }
}
