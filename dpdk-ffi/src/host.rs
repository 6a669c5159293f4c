//! The host's network interfaces behind software ports: what DPDK's drivers do not tell or do.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::Errno;

/// The interface's number in the calling thread's network namespace.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a zero-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

pub(crate) fn interface_mtu(name: &str) -> Result<u16, Errno> {
    let request = interface_request(name, libc::SIOCGIFMTU, 0)?;
    // SAFETY: SIOCGIFMTU filled this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

pub(crate) fn set_interface_mtu(name: &str, mtu: u16) -> Result<(), Errno> {
    interface_request(name, libc::SIOCSIFMTU, i32::from(mtu)).map(drop)
}

fn interface_request(name: &str, code: libc::c_ulong, mtu: i32) -> Result<libc::ifreq, Errno> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= libc::IF_NAMESIZE {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_mtu = mtu;
    // SAFETY: plain numbers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(last());
    }
    // SAFETY: a descriptor just opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: both requests take an ifreq, which is valid and ours.
    if unsafe { libc::ioctl(socket.as_raw_fd(), code, &mut request) } < 0 { Err(last()) } else { Ok(request) }
}

/// Second descriptors of this process's packet sockets on an interface: DPDK's AF_PACKET driver
/// does not ask its sockets what they dropped.
pub(crate) fn packet_sockets(interface: u32) -> Vec<OwnedFd> {
    fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|fd| bound_to(*fd) == Some(interface))
        .filter_map(|fd| {
            // SAFETY: the descriptor is open (it just answered getsockname); only its duplicate is kept.
            unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok()
        })
        .collect()
}

fn bound_to(fd: RawFd) -> Option<u32> {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the buffer is ours and as large as said; any descriptor may be asked.
    let code = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &mut size) };
    let packet = code == 0 && i32::from(address.sll_family) == libc::AF_PACKET;
    packet.then(|| u32::try_from(address.sll_ifindex).ok()).flatten()
}

/// Packets the socket dropped since it was last asked (asking sets its counter to 0).
pub(crate) fn packet_socket_drops(socket: &OwnedFd) -> u64 {
    // SAFETY: all zeros is a valid tpacket_stats.
    let mut stats: libc::tpacket_stats = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the buffer is ours and as large as said.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &mut size,
        )
    };
    if code == 0 { u64::from(stats.tp_drops) } else { 0 }
}

fn last() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Removes the file of a socket at which nobody listens any more: its process was killed, and nobody could bind there again.
pub(crate) fn remove_dead_socket(file: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(file).is_ok_and(|facts| facts.file_type().is_socket());
    // A living listener is of another type of socket (SEQPACKET) and not disturbed by this.
    let refused = || {
        let error = std::os::unix::net::UnixStream::connect(file).err();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if is_socket && refused() {
        let _ = std::fs::remove_file(file); // if not, the driver says what is in its way
    }
}
