//! memif's control messages: 128 bytes and at most one descriptor each, over a unix socket that keeps their limits.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, shutdown, socket, sockopt,
};

const LENGTH: usize = 128;
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// What is said; the driver knows what it means.
pub(crate) struct Message {
    bytes: [u8; LENGTH],
    descriptor: Option<OwnedFd>,
}

impl Message {
    /// The type, in the byte order of the machine.
    pub(crate) fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]])
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Talk(OwnedFd);

impl Talk {
    /// Fails if nobody listens there, or if who does is busy.
    pub(crate) fn connect(file: &Path) -> Result<Talk, Errno> {
        let talk = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
        connect(talk.as_raw_fd(), &UnixAddr::new(file)?)?;
        Ok(Talk(talk))
    }

    /// The process at the other end.
    pub(crate) fn process(&self) -> Option<u32> {
        getsockopt(&self.0, sockopt::PeerCredentials).ok().and_then(|who| u32::try_from(who.pid()).ok())
    }

    /// The next message; `None` if there is none yet.
    ///
    /// # Errors
    /// The conversation is over, or was never one.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Errno> {
        let mut message = Message { bytes: [0; LENGTH], descriptor: None };
        let mut control = nix::cmsg_space!([i32; 1], nix::sys::socket::UnixCredentials);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, described) = {
            let mut parts = [IoSliceMut::new(&mut message.bytes)];
            let got = match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                got => got?,
            };
            let mut descriptors = Vec::new();
            for control in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    // SAFETY: the kernel has just made these for us; nobody else knows of them.
                    descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
            (got.bytes, descriptors.pop())
        };
        message.descriptor = described;
        if length == LENGTH { Ok(Some(message)) } else { Err(Errno::EPIPE) }
    }

    /// Passes a message on.
    pub(crate) fn send(&self, message: &Message) -> Result<(), Errno> {
        let descriptor = message.descriptor.as_ref().map(|descriptor| [descriptor.as_raw_fd()]);
        let control = descriptor.as_ref().map(|descriptor| ControlMessage::ScmRights(descriptor));
        let parts = [IoSlice::new(&message.bytes)];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, control.as_slice(), MsgFlags::MSG_NOSIGNAL, None).map(drop)
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write); // the other end may be gone
    }
}

/// Where others connect: a file, which goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    file: PathBuf,
}

impl Listener {
    pub(crate) fn bind(file: PathBuf) -> Result<Listener, Errno> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&file)?)?;
        let listener = Listener { socket, file };
        listen(&listener.socket, Backlog::new(1)?)?;
        Ok(listener)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Who has connected, if somebody has.
    pub(crate) fn accept(&self) -> Option<Talk> {
        let number = accept4(self.socket.as_raw_fd(), FLAGS).ok()?;
        // SAFETY: the kernel has just made it for us; nobody else knows of it.
        Some(Talk(unsafe { OwnedFd::from_raw_fd(number) }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file); // the next one removes it otherwise
    }
}

impl AsFd for Talk {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of them has something to say, or has ended; which have.
pub(crate) fn wait<const N: usize>(sockets: [&dyn AsFd; N], most: Duration) -> [bool; N] {
    let mut waited = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
    match poll(&mut waited, most) {
        Ok(0) | Err(_) => [false; N],
        Ok(_) => waited.map(|socket| socket.revents().is_some_and(|events| !events.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_descriptor_are_passed_on_and_the_end_is_told() {
        let file = std::env::temp_dir().join(format!("phalanx-talk-{}", std::process::id()));
        assert_eq!(Talk::connect(&file).unwrap_err(), Errno::ENOENT);
        let listener = Listener::bind(file.clone()).unwrap();
        assert!(listener.accept().is_none());
        let one = Talk::connect(&file).unwrap();
        assert_eq!(wait([&listener, &one], Duration::from_secs(5)), [true, false]);
        let other = listener.accept().unwrap();
        assert_eq!((one.process(), other.process()), (Some(std::process::id()), Some(std::process::id())));
        assert!(other.receive().unwrap().is_none());

        let mut message =
            Message { bytes: [7; LENGTH], descriptor: fs::File::open("/dev/null").ok().map(OwnedFd::from) };
        message.bytes[..2].copy_from_slice(&5u16.to_ne_bytes());
        one.send(&message).unwrap();
        assert_eq!(wait([&other], Duration::from_secs(5)), [true]);
        let got = other.receive().unwrap().unwrap();
        assert_eq!((got.kind(), got.bytes), (5, message.bytes));
        let descriptor = got.descriptor.unwrap();
        let target = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap();
        assert_eq!(target, Path::new("/dev/null"));

        one.finish();
        assert!(other.receive().is_err(), "the end");
        drop(other);
        assert!(one.receive().is_err());
        drop(listener);
        assert!(!file.exists());
    }
}
