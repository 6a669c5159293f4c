//! Many initiators behind one socket: each another address, begun one after the other whatever becomes of those before.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use phalanx_ike::{Answer, Command, Config, Endpoint, Output, Path, PeerConfig};

use super::Seeded;
use super::beside::{LONG, VIP, peers};
use super::wire::enter;

/// Where they are.
pub const NET: &str = "10.100.0.0/16";
/// Initiators of one state machine: it has their third byte.
const GROUP: u32 = 200;
/// Seconds since 1970.
const UNIX: u64 = 1_800_000_000;

/// What became of them.
pub struct SetUps {
    /// IKE SA and child are up.
    pub up: u32,
    /// Of them, before the last was to begin.
    pub in_time: u32,
    pub failed: u32,
    /// Requests that were sent again.
    pub again: u64,
    /// Milliseconds that each took.
    took: Vec<u64>,
}

impl SetUps {
    /// Milliseconds in which so many percent were up.
    pub fn percentile(&self, percent: f64) -> f64 {
        let last = self.took.len().saturating_sub(1);
        self.took
            .get((self.took.len() as f64 * percent / 100.0) as usize)
            .or(self.took.get(last))
            .map_or(f64::NAN, |ms| *ms as f64)
    }
}

/// So many of them at so many a second; then waits for those that are under way.
pub fn begin(door: File, secret: &str, rate: u32, count: u32) -> SetUps {
    enter(door);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 500)).expect("port 500 is free there");
    socket.set_nonblocking(true).expect("a socket");
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).expect("Linux");
    let endpoints = (0..count.div_ceil(GROUP)).map(|group| machine(group, secret)).collect();
    let mut all = Initiators { socket, endpoints, start: Instant::now(), buffer: vec![0; 65_536] };
    let (mut begun, mut in_time) = (0, 0);
    let last = Duration::from_secs(1) * count / rate;
    loop {
        let due = (all.start.elapsed().as_micros() as u64 * u64::from(rate) / 1_000_000).min(u64::from(count)) as u32;
        while begun < due {
            all.initiate(begun);
            begun += 1;
        }
        all.hear();
        all.tick();
        let (up, failed) = all.count();
        if all.start.elapsed() <= last {
            in_time = up;
        } else if up + failed >= count || all.start.elapsed() > last + LONG {
            let mut took: Vec<u64> = all.endpoints.iter_mut().flat_map(Endpoint::set_up_times).collect();
            took.sort_unstable();
            let again = all.endpoints.iter().map(|one| one.counters().retransmitted).sum();
            return SetUps { up, in_time, failed, again, took };
        }
    }
}

/// One state machine of [`GROUP`] initiators.
fn machine(group: u32, secret: &str) -> Endpoint {
    let one = |n: u32| -> Arc<PeerConfig> {
        let Config { mut peers, .. } = peers(local(group, n), Ipv4Addr::new(10, 128, group as u8, n as u8), secret);
        let mut peer = (*peers.remove(0)).clone();
        peer.name = n.to_string().into();
        peer.into()
    };
    let config = Config { peers: (0..GROUP).map(one).collect(), ..peers(local(group, 0), VIP, secret) };
    Endpoint::new(config, 1, Box::new(Seeded(u64::from(group + 1) << 32)))
}

fn local(group: u32, n: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 100, group as u8, n as u8)
}

struct Initiators {
    socket: UdpSocket,
    endpoints: Vec<Endpoint>,
    start: Instant,
    buffer: Vec<u8>,
}

impl Initiators {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn count(&self) -> (u32, u32) {
        let of = |one: &Endpoint| {
            (one.counters().children as u32, (one.counters().failed + one.counters().children_failed) as u32)
        };
        self.endpoints.iter().map(of).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }

    fn initiate(&mut self, number: u32) {
        let (at, now) = ((number / GROUP) as usize, self.now());
        let command = Command::Initiate { peer: (number % GROUP).to_string(), child: None };
        self.endpoints[at].command(now, command).expect("it begins");
        self.settle(at);
    }

    /// Takes all that there is, or waits for a millisecond.
    fn hear(&mut self) {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(1u8));
        loop {
            let mut space = nix::cmsg_space!(nix::libc::in_pktinfo);
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let heard = recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
            let Ok(heard) = heard else { return };
            let info = heard.cmsgs().expect("room").find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
                _ => None,
            });
            let (Some(local), Some(from), len) = (info, heard.address, heard.bytes) else { continue };
            let (at, now) = (usize::from(local.octets()[2]), self.now());
            let path = Path { local: (local, 500).into(), remote: SocketAddr::V4(SocketAddrV4::from(from)) };
            if let Some(endpoint) = self.endpoints.get_mut(at) {
                endpoint.datagram(now, UNIX, path, &self.buffer[..len]);
                self.settle(at);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for at in 0..self.endpoints.len() {
            if self.endpoints[at].deadline().is_some_and(|deadline| deadline <= now) {
                self.endpoints[at].tick(now, UNIX);
                self.settle(at);
            }
        }
    }

    /// Children are there at once.
    fn settle(&mut self, at: usize) {
        loop {
            let outputs: Vec<Output> = self.endpoints[at].outputs().collect();
            if outputs.is_empty() {
                return;
            }
            let now = self.now();
            for output in outputs {
                match output {
                    Output::Send { path, bytes } => self.send(path, &bytes),
                    Output::Install(sa) => self.endpoints[at].answer(now, Answer::Installed(sa.id)),
                    Output::Remove { child } => self.endpoints[at].answer(now, Answer::Removed(child)),
                    _ => {}
                }
            }
        }
    }

    /// What the socket does not take is lost as on any network.
    fn send(&self, path: Path, bytes: &[u8]) {
        let (IpAddr::V4(from), SocketAddr::V4(to)) = (path.local.ip(), path.remote) else { return };
        let address = |ip: Ipv4Addr| nix::libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: address(from),
            ipi_addr: address(Ipv4Addr::UNSPECIFIED),
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let (parts, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
        let _ = sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to));
    }
}
