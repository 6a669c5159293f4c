//! Which sockets of this host listen, from the kernel by netlink `NETLINK_SOCK_DIAG`
//! (sock_diag(7), `linux/inet_diag.h`), in the network namespace of this process. There are notifications about sockets that
//! are destroyed but none about such that begin to listen: so it is asked, again and again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const FLAGS: u16 = 0x301;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// The kernel's largest piece of a dump.
const PIECE: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Listening sockets.
    Tcp,
    /// Bound ones without a peer.
    Udp,
}

impl Transport {
    /// IP protocol, and the set of states: `TCP_LISTEN` is 10; a UDP socket without a peer is in `TCP_CLOSE`, 7.
    fn wanted(self) -> (u8, u32) {
        match self {
            Transport::Tcp => (6, 1 << 10),
            Transport::Udp => (17, 1 << 7),
        }
    }
}

/// A socket that takes what comes to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The address it is bound to, unspecified: any.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Of IPv6: it takes no IPv4.
    pub v6_only: bool,
    /// The interface it is bound to; 0: any.
    pub interface: u32,
}

impl Bound {
    /// Whether it takes what comes to this address by an interface.
    pub fn takes(&self, to: IpAddr, by: u32) -> bool {
        let here = self.interface == 0 || self.interface == by;
        here && match (self.address, to) {
            (IpAddr::V4(on), IpAddr::V4(to)) => on.is_unspecified() || on == to,
            (IpAddr::V6(on), IpAddr::V6(to)) => on.is_unspecified() || on == to,
            // ip(7): IPv4 comes to IPv6 sockets as ::ffff:a.b.c.d, unless they say IPV6_V6ONLY.
            (IpAddr::V6(on), IpAddr::V4(to)) => {
                !self.v6_only && (on.is_unspecified() || on.to_ipv4_mapped() == Some(to))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// A netlink socket.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<SockDiag> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        // It answers at once or never.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
        Ok(SockDiag { socket, sequence: 0, buffer: vec![0; PIECE] })
    }

    /// Shows all sockets of a transport, of both IP versions; gives the number of pieces in which they came. Of more than
    /// one piece, sockets that were closed meanwhile may have hidden others.
    ///
    /// # Errors
    /// The kernel's, or an answer that makes no sense.
    pub fn dump(&mut self, transport: Transport, mut show: impl FnMut(Bound)) -> io::Result<usize> {
        let mut pieces = 0;
        for family in [AF_INET, AF_INET6] {
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(family, transport, self.sequence);
            sendto(self.socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
            loop {
                let len = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
                pieces += 1;
                if read(&self.buffer[..len], self.sequence, &mut show)? == More::No {
                    break;
                }
            }
        }
        Ok(pieces)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

fn request(family: u8, transport: Transport, sequence: u32) -> [u8; HEADER + REQUEST] {
    let (protocol, states) = transport.wanted();
    let mut request = [0; HEADER + REQUEST];
    request[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request[16..18].copy_from_slice(&[family, protocol]);
    request[20..24].copy_from_slice(&states.to_ne_bytes());
    request
}

/// Reads one datagram of an answer; what belongs to another question is skipped.
fn read(datagram: &[u8], sequence: u32, show: &mut impl FnMut(Bound)) -> io::Result<More> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag: an answer that makes no sense");
    let mut rest = datagram;
    while rest.len() >= HEADER {
        let len = u32::from_ne_bytes(at(rest, 0).ok_or_else(odd)?) as usize;
        let kind = u16::from_ne_bytes(at(rest, 4).ok_or_else(odd)?);
        let of = u32::from_ne_bytes(at(rest, 8).ok_or_else(odd)?);
        let body = rest.get(HEADER..len).ok_or_else(odd)?;
        match kind {
            _ if of != sequence => {}
            NLMSG_DONE => return Ok(More::No),
            NLMSG_ERROR => {
                let code = i32::from_ne_bytes(at(body, 0).ok_or_else(odd)?);
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => show(bound(body).ok_or_else(odd)?),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(More::Yes)
}

/// `struct inet_diag_msg` and its attributes.
fn bound(message: &[u8]) -> Option<Bound> {
    let (head, attributes) = message.split_at_checked(MESSAGE)?;
    let v6: [u8; 16] = at(head, 8)?;
    let address = match head[0] {
        AF_INET => IpAddr::V4(Ipv4Addr::from(at::<4>(head, 8)?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(v6)),
        _ => return None,
    };
    Some(Bound {
        address,
        port: u16::from_be_bytes(at(head, 4)?),
        v6_only: attribute(attributes, V6_ONLY).is_some_and(|value| value.first() == Some(&1)),
        interface: u32::from_ne_bytes(at(head, 40)?),
    })
}

/// `struct rtattr`: length with its own four bytes, kind, value, padding to four.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(len), Some(kind)) = (at(attributes, 0), at(attributes, 2)) {
        let (len, kind) = (usize::from(u16::from_ne_bytes(len)), u16::from_ne_bytes(kind));
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, UdpSocket};
    use std::time::Instant;

    fn all(transport: Transport) -> Vec<Bound> {
        let mut all = Vec::new();
        SockDiag::open().unwrap().dump(transport, |bound| all.push(bound)).unwrap();
        all
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn listeners_and_bound_datagram_sockets_of_this_host_are_seen_and_their_end_too() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let [on, other] = [tcp.local_addr().unwrap(), udp.local_addr().unwrap()];
        let has = |transport, to: std::net::SocketAddr| {
            all(transport).iter().any(|b| b.port == to.port() && b.takes(to.ip(), 1) && !b.takes(addr("192.0.2.1"), 1))
        };
        assert!(has(Transport::Tcp, on) && has(Transport::Udp, other));
        let connected = std::net::TcpStream::connect(on).unwrap();
        drop(tcp);
        assert!(!has(Transport::Tcp, on), "a connection that goes on is no listener");
        drop(connected);
    }

    #[test]
    fn a_socket_takes_what_its_address_version_and_interface_say() {
        let socket = |address: &str, v6_only, interface| Bound { address: addr(address), port: 80, v6_only, interface };
        let takes = |s: Bound| ["10.77.0.100", "fd77::100"].map(|to| s.takes(addr(to), 7));
        assert_eq!(takes(socket("0.0.0.0", false, 0)), [true, false]);
        assert_eq!(takes(socket("10.77.0.100", false, 0)), [true, false]);
        assert_eq!(takes(socket("10.77.0.11", false, 0)), [false, false]);
        assert_eq!(takes(socket("::", false, 0)), [true, true]);
        assert_eq!(takes(socket("::", true, 0)), [false, true]);
        assert_eq!(takes(socket("fd77::100", false, 0)), [false, true]);
        assert_eq!(takes(socket("::ffff:10.77.0.100", false, 0)), [true, false]);
        assert_eq!(takes(socket("::", false, 7)), [true, true]);
        assert_eq!(takes(socket("::", false, 3)), [false, false], "bound to another interface");
    }

    #[test]
    fn an_error_of_the_kernel_is_one_here() {
        let mut datagram = vec![0; 20];
        datagram[..4].copy_from_slice(&20u32.to_ne_bytes());
        datagram[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        datagram[16..].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(read(&datagram, 0, &mut |_| {}).unwrap_err().raw_os_error(), Some(2));
        assert_eq!(read(&datagram, 1, &mut |_| {}).unwrap(), More::Yes, "of another question");
    }

    /// `-- --nocapture` shows what a look costs.
    #[test]
    fn thousands_of_listeners_are_read_in_pieces() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        // Some are left to the other tests.
        let many = most.saturating_sub(500).min(10_000);
        // The kernel is slow to find a free port among thousands.
        let place = |n: u64| (Ipv4Addr::new(127, 2, 0, (n / 100) as u8), 20_000 + (n % 100) as u16);
        let listeners: Vec<TcpListener> = (0..many).map_while(|n| TcpListener::bind(place(n)).ok()).collect();
        let mut diag = SockDiag::open().unwrap();
        let (start, mut seen) = (Instant::now(), 0);
        let pieces = diag.dump(Transport::Tcp, |_| seen += 1).unwrap();
        println!("{seen} listeners in {pieces} pieces: {:?}", start.elapsed());
        assert!(seen >= listeners.len());
        assert!(listeners.len() < 1000 || pieces > 2, "one piece for each IP version holds fewer");
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), sequence in 0u32..2) {
            let _ = read(&bytes, sequence, &mut |_| {});
            let _ = bound(&bytes);
        }

        #[test]
        fn an_answer_with_a_byte_changed_does_no_harm(at in 0usize..188, to: u8) {
            let mut datagram = vec![0; 100 + 88];
            for (start, len) in [(0, 100u32), (100, 88)] {
                datagram[start..start + 4].copy_from_slice(&len.to_ne_bytes());
                datagram[start + 4..start + 6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
                datagram[start + 16] = AF_INET6;
            }
            datagram[88..92].copy_from_slice(&[5, 0, 11, 0]);
            datagram[at] = to;
            let _ = read(&datagram, 0, &mut |_| {});
        }
    }
}
