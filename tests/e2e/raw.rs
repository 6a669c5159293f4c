//! Sockets in another network namespace, opened in this process: a raw one to put forged frames on a wire, a listening one to serve.

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Runs `open` in a thread that has moved to the namespace. A socket stays in the namespace it was made in.
fn inside<T: Send>(namespace: &str, open: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace exists");
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).expect("the tests run as root");
                open()
            })
            .join()
            .expect("the thread in the namespace")
    })
}

/// A TCP listener on every address of a namespace.
pub fn listen(namespace: &str, port: u16) -> TcpListener {
    inside(namespace, || TcpListener::bind(("::", port)).expect("the port is free"))
}

/// A UDP socket on an address of a namespace.
pub fn datagrams(namespace: &str, address: &str, port: u16) -> UdpSocket {
    inside(namespace, || UdpSocket::bind((address, port)).expect("the address is there"))
}

/// Sends frames as they are.
pub struct RawSender {
    socket: OwnedFd,
}

impl RawSender {
    /// Opens one interface of a namespace.
    pub fn open(namespace: &str, interface: &str) -> RawSender {
        let socket = inside(namespace, || {
            let address: LinkAddr = nix::ifaddrs::getifaddrs()
                .expect("interfaces can be listed")
                .filter(|i| i.interface_name == interface)
                .find_map(|i| i.address.and_then(|a| a.as_link_addr().copied()))
                .expect("the interface exists");
            // Protocol 0: it sends and never receives.
            let socket =
                socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a raw socket");
            bind(socket.as_raw_fd(), &address).expect("the interface is up");
            socket
        });
        RawSender { socket }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "a frame of {} bytes was not sent", frame.len());
    }

    /// Sends frames evenly at `rate` per second; answers how many.
    pub fn send_at<'a>(&self, rate: u32, frames: impl Iterator<Item = &'a [u8]>) -> u64 {
        let start = Instant::now();
        let mut sent = 0u64;
        for frame in frames {
            let due = start + Duration::from_secs(1) * u32::try_from(sent).expect("fewer frames") / rate;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            self.send(frame);
            sent += 1;
        }
        sent
    }
}
