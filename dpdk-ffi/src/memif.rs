//! memif's driver talks with the other process through us.
//!
//! The driver hears the other process in DPDK's interrupt thread. When that process ends, it unmaps the shared memory there
//! and then, whoever is just copying a packet in it. And its client connects when the device is started, once. So the
//! driver's socket leads to a thread of ours, which passes on what is said. Only that thread lets bursts into the driver,
//! and only while the driver has nothing to hear: it closes the gate before it tells the driver that the other is gone, and
//! goes on when the driver has closed its end, the last thing the driver does. Packets do not come this way.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::error::{DpdkError, Errno};
use crate::gate::Gate;
use crate::host::remove_dead_socket;
use crate::interrupts;
use crate::port::PortInner;
use crate::seqpacket::{Listener, Message, Talk, wait};

/// How often the thread looks whether it is to end, and a client whether its server is there.
const EVERY: Duration = Duration::from_millis(100);
/// What becomes no link in this time is begun anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the driver is waited for at the end.
const END: Duration = Duration::from_secs(1);

/// Types of messages.
const CONNECTED: u16 = 7;
const DISCONNECT: u16 = 8;

static OPENED: AtomicBool = AtomicBool::new(false);

/// Whether there was ever a memif device in this process.
pub(crate) fn was_opened() -> bool {
    OPENED.load(Ordering::Acquire)
}

/// A memif device's way to the other process.
#[derive(Debug)]
pub(crate) struct Memif {
    /// Open while there is a link.
    pub(crate) gate: Gate,
    client: bool,
    /// Server: for the other process. Client: for our driver.
    listener: Listener,
    /// Client: where the other process listens. Server: where our driver does.
    there: PathBuf,
}

/// Where the two listen.
struct Files {
    ours: PathBuf,
    there: PathBuf,
    client: bool,
}

fn files(device: &Device) -> Option<Files> {
    let (client, socket) = device.memif()?;
    let beside = |what: &str| PathBuf::from(format!("{socket}.{what}"));
    Some(match client {
        false => Files { ours: socket.into(), there: beside("server"), client },
        true => Files { ours: beside("client"), there: socket.into(), client },
    })
}

impl Memif {
    /// For a memif device; before it is made.
    pub(crate) fn open(device: &Device) -> Result<Option<Memif>, DpdkError> {
        let Some(Files { ours, there, client }) = files(device) else { return Ok(None) };
        remove_dead_socket(&ours);
        if !client {
            remove_dead_socket(&there);
        }
        let listener = Listener::bind(ours).map_err(|error| DpdkError::Port {
            device: device.text.clone(),
            step: "listen at its socket",
            error: Errno(error as i32),
            log: String::new(),
        })?;
        OPENED.store(true, Ordering::Release);
        Ok(Some(Memif { gate: Gate::closed(), client, listener, there }))
    }

    /// What the driver is told instead of the device's arguments.
    pub(crate) fn arguments(&self, device: &Device) -> String {
        let file = if self.client { self.listener.file() } else { &self.there };
        let others = device.args.split(',').filter(|a| !a.starts_with("socket=") && !a.starts_with("socket-abstract="));
        let others: String = others.flat_map(|argument| [argument, ","]).collect();
        format!("{others}socket={},socket-abstract=no", file.display())
    }

    pub(crate) fn is_client(&self) -> bool {
        self.client
    }
}

/// The thread that keeps a link.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(port: &Arc<PortInner>) -> io::Result<Keeper> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, port) = (stop.clone(), port.clone());
        let run = move || {
            let Some(memif) = &port.memif else { return };
            if !(Keeping { port: &port, memif, stop: &stopped }.run()) {
                std::mem::forget(port); // its driver may still be at it
            }
        };
        let thread = std::thread::Builder::new().name("phalanx-memif".into()).spawn(run)?;
        Ok(Keeper { stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Keeping<'a> {
    port: &'a PortInner,
    memif: &'a Memif,
    stop: &'a AtomicBool,
}

impl Keeping<'_> {
    /// Answers whether the driver has ended all it began.
    fn run(&self) -> bool {
        while !self.stopped() {
            let Some((other, driver)) = self.meet() else { continue };
            if self.introduce(&other, &driver) {
                let open = self.memif.gate.open();
                // Whatever either says now is the end.
                while !self.stopped() && wait([&other, &driver], EVERY) == [false; 2] {}
                drop(open);
            }
            if !self.part(other, &driver) {
                return false;
            }
        }
        true
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The other process, which is there, and our driver, which has not heard anything yet.
    fn meet(&self) -> Option<(Talk, Talk)> {
        if !self.memif.client {
            wait([&self.memif.listener], EVERY);
            let other = self.memif.listener.accept()?;
            return Some((other, Talk::connect(&self.memif.there).ok()?));
        }
        let Ok(other) = Talk::connect(&self.memif.there) else {
            sleep(EVERY);
            return None;
        };
        // The server speaks first, but not before its process runs.
        while wait([&other], EVERY) == [false] {
            if self.stopped() {
                return None;
            }
        }
        while self.memif.listener.accept().is_some() {}
        // SAFETY: the port is configured and stopped. Its driver connects to a socket of ours that has room.
        if unsafe { dpdk_sys::rte_eth_dev_start(self.port.id()) } < 0 {
            sleep(EVERY);
            return None;
        }
        self.port.set_started(true);
        let driver = self.memif.listener.accept().filter(|driver| driver.process() == Some(std::process::id()));
        if driver.is_none() {
            self.stop_device();
        }
        Some((other, driver?))
    }

    /// Passes on what they say until they are connected, which is when the driver has done all it does for that.
    fn introduce(&self, other: &Talk, driver: &Talk) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !self.stopped() {
            let [from_other, from_driver] = wait([other, driver], EVERY);
            for (speaks, from, to) in [(from_driver, driver, other), (from_other, other, driver)] {
                if !speaks {
                    continue;
                }
                match pass_on(from, to) {
                    Some(CONNECTED) if self.memif.client => return self.has_connected(until),
                    Some(CONNECTED) => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        }
        false
    }

    /// The client's driver does not say when it is done.
    fn has_connected(&self, until: Instant) -> bool {
        while !self.port.link_up() {
            if Instant::now() > until || self.stopped() {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
        interrupts::are_past(until)
    }

    /// Ends the link at both ends; with the gate closed. Not if we end and the driver does not.
    fn part(&self, other: Talk, driver: &Talk) -> bool {
        drop(other);
        driver.finish();
        let mut until = None;
        // It closes its end when it has forgotten everything. (A child of ours holds it too, if it has one just now.)
        while wait([driver], EVERY) == [false] || driver.receive().is_ok() {
            if self.stopped() && *until.get_or_insert(Instant::now() + END) < Instant::now() {
                return false;
            }
        }
        if self.memif.client {
            self.stop_device();
        }
        true
    }

    fn stop_device(&self) {
        // SAFETY: the port is attached and started, and with the gate closed nobody is in its driver's functions.
        if unsafe { dpdk_sys::rte_eth_dev_stop(self.port.id()) } >= 0 {
            self.port.set_started(false);
        }
    }
}

/// The type of the message; `None` at the end.
fn pass_on(from: &Talk, to: &Talk) -> Option<u16> {
    let message: Message = match from.receive() {
        Ok(Some(message)) => message,
        Ok(None) => return Some(0),
        Err(_) => return None,
    };
    (message.kind() != DISCONNECT && to.send(&message).is_ok()).then(|| message.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_led_to_us_and_sockets_of_the_dead_go() {
        use std::os::unix::net::UnixListener;
        let folder = std::env::temp_dir().join(format!("phalanx-memif-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("link");
        let device = |text: String| Device::parse(&text).unwrap();
        let server = device(format!("net_memif0,role=server,socket={},rsize=9,socket-abstract=no", file.display()));
        let client = device(format!("net_memif0,socket={}", file.display()));

        let alive = UnixListener::bind(&file).unwrap();
        let error = Memif::open(&server).unwrap_err().to_string();
        assert!(error.contains("listen at its socket") && error.contains("in use"), "{error}");
        drop(alive);
        let [dead_driver, dead_client] = ["link.server", "link.client"].map(|name| folder.join(name));
        drop((UnixListener::bind(&dead_driver).unwrap(), UnixListener::bind(&dead_client).unwrap()));
        let one = Memif::open(&server).unwrap().unwrap();
        assert!(file.exists() && !dead_driver.exists() && dead_client.exists());
        let other = Memif::open(&client).unwrap().unwrap();
        assert!((one.is_client(), other.is_client()) == (false, true) && Memif::open(&client).is_err());
        let place = folder.display();
        assert_eq!(
            (one.arguments(&server), other.arguments(&client)),
            (
                format!("role=server,rsize=9,socket={place}/link.server,socket-abstract=no"),
                format!("socket={place}/link.client,socket-abstract=no")
            )
        );
        drop((one, other));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::write(&file, "no socket").unwrap();
        assert!(Memif::open(&server).is_err() && file.exists(), "somebody's file");
        assert!(Memif::open(&device("net_ring0".into())).unwrap().is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
