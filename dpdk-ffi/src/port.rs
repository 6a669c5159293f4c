//! A device: attached, configured, started; and the way back.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use dpdk_sys::{rte_eth_dev_info, rte_eth_link, rte_eth_stats, rte_ether_addr};

use crate::device::{Bus, Device};
use crate::eal::{Eal, take_log};
use crate::error::{DpdkError, Errno};
use crate::gate::Inside;
use crate::host;
use crate::memif::{Keeper, Memif};
use crate::mempool::Mempool;
use crate::queue::{RxQueue, TxQueue};
use crate::setup::{self, PortConfig};

/// The link as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// True if there is a carrier.
    pub up: bool,
    /// In Mbit/s; `None` if unknown.
    pub speed_mbps: Option<u32>,
    /// True if both directions work at once.
    pub full_duplex: bool,
}

/// The device's counters since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the device dropped because nobody fetched them in time.
    pub rx_missed: u64,
    /// Broken packets.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped because the pool was exhausted.
    pub rx_no_buffer: u64,
}

/// The queues of a started port, by number.
#[derive(Debug)]
pub struct Queues {
    /// To receive from.
    pub rx: Vec<RxQueue>,
    /// To send to.
    pub tx: Vec<TxQueue>,
}

/// The ports that have a handle, by number.
static OPEN: AtomicU32 = AtomicU32::new(0);
const _: () = assert!(dpdk_sys::RTE_MAX_ETHPORTS <= u32::BITS);

/// A device that DPDK has taken. Dropped together with the last of its queues it is stopped, closed
/// and, if it is a software device, removed.
#[derive(Debug)]
pub struct Port {
    /// Before the rest: it ends the link as long as the port is there.
    keeper: Option<Keeper>,
    inner: Arc<PortInner>,
    queues: Option<(u16, u16)>,
    /// AF_PACKET's stop closes its sockets, and its start does not open new ones.
    spent: bool,
}

/// Lives as long as the port or one of its queues.
#[derive(Debug)]
pub(crate) struct PortInner {
    id: u16,
    device: Device,
    name: CString,
    started: AtomicBool,
    rx_queues: AtomicU16,
    /// AF_PACKET's sockets, which alone know what they dropped; and the sum of their answers.
    sockets: Vec<OwnedFd>,
    dropped: AtomicU64,
    pub(crate) memif: Option<Memif>,
    _eal: Eal,
}

impl PortInner {
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::Release);
    }

    /// Whether the device says that its link is up.
    pub(crate) fn link_up(&self) -> bool {
        let mut link = rte_eth_link::default();
        // SAFETY: the port is attached; the structure is ours.
        let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.id, &mut link) };
        code == 0 && link.link_status() != 0
    }

    /// A burst's way into the driver; `None` if that must not be now.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Option<Inside<'_>>> {
        match &self.memif {
            None => Some(None),
            Some(memif) => memif.gate.enter().map(Some),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn check(&self, step: &'static str, code: i32) -> Result<(), DpdkError> {
        if code >= 0 { Ok(()) } else { Err(self.failed(step, code)) }
    }

    fn failed(&self, step: &'static str, code: i32) -> DpdkError {
        DpdkError::Port { device: self.device.text.clone(), step, error: Errno::from_code(code), log: take_log() }
    }

    /// Stops a started port. `&mut` says that no queue handle is left.
    fn halt(&mut self) -> i32 {
        if self.device.driver() == "net_ring" {
            // Its driver forgets packets that are still in its rings.
            for queue in 0..*self.rx_queues.get_mut() {
                // SAFETY: the port is started, has that queue, and nobody else polls it.
                unsafe { crate::queue::drain(self.id, queue) };
            }
        }
        // SAFETY: the port is started and has no queue handles.
        let code = unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        if code >= 0 {
            *self.started.get_mut() = false;
        }
        code
    }

    fn socket_drops(&self) -> u64 {
        let new = self.sockets.iter().map(host::packet_socket_drops).sum::<u64>();
        self.dropped.fetch_add(new, Ordering::Relaxed) + new
    }

    fn info(&self) -> Result<rte_eth_dev_info, DpdkError> {
        let mut info = rte_eth_dev_info::default();
        // SAFETY: the port is attached; the structure is ours.
        self.check("read its properties", unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, &mut info) })?;
        Ok(info)
    }
}

impl Port {
    /// Attaches a device: a software device is made, a PCI device must be in `EalConfig::pci_allow`.
    ///
    /// # Errors
    /// [`DpdkError::NoDriver`], [`DpdkError::NoInterface`] or [`DpdkError::NoDevice`] name the device and
    /// say what to do; [`DpdkError::Port`] if the driver refuses.
    pub fn open(eal: &Eal, device: &str) -> Result<Port, DpdkError> {
        let device = Device::parse(device)?;
        device.check_host()?;
        let c = |text: &str| {
            CString::new(text).map_err(|_| DpdkError::BadName { name: device.text.clone(), why: "holds a zero byte" })
        };
        let memif = Memif::open(&device)?;
        let args = memif.as_ref().map_or_else(|| device.args.clone(), |memif| memif.arguments(&device));
        let (name, args) = (c(&device.name)?, c(&args)?);
        take_log();
        if find(&name).is_none() {
            if device.bus == Bus::Pci && !eal.allows_pci(&device.name) {
                return Err(device.no_pci_device(eal, String::new()));
            }
            // SAFETY: zero-terminated strings that outlive the call; EAL is initialised.
            let code =
                unsafe { dpdk_sys::rte_eal_hotplug_add(device.bus.name().as_ptr(), name.as_ptr(), args.as_ptr()) };
            if code < 0 {
                return Err(attach_error(eal, &device, code));
            }
        }
        let Some(id) = find(&name) else {
            return Err(attach_error(eal, &device, -libc::ENODEV));
        };
        // Two handles would be two owners of its queues.
        if OPEN.fetch_or(1 << id, Ordering::AcqRel) & 1 << id != 0 {
            let why = "it is open already";
            return Err(DpdkError::WrongState { device: device.text, why });
        }
        let sockets =
            device.packet_interface().and_then(host::interface_index).map_or(Vec::new(), host::packet_sockets);
        let inner = PortInner {
            id,
            device,
            name,
            started: AtomicBool::new(false),
            rx_queues: AtomicU16::new(0),
            sockets,
            dropped: AtomicU64::new(0),
            memif,
            _eal: eal.clone(),
        };
        Ok(Port { keeper: None, inner: Arc::new(inner), queues: None, spent: false })
    }

    /// Sets up queues and MTU. Packets are received into `pool`.
    ///
    /// # Errors
    /// [`DpdkError::WrongState`] while it runs, [`DpdkError::TooManyQueues`], [`DpdkError::MtuTooLarge`],
    /// [`DpdkError::Port`].
    pub fn configure(&mut self, config: &PortConfig, pool: &Mempool) -> Result<(), DpdkError> {
        let port = &*self.inner;
        if port.started.load(Ordering::Acquire) || self.keeper.is_some() {
            return Err(DpdkError::WrongState {
                device: port.device.text.clone(),
                why: "stop it before it is configured",
            });
        }
        take_log();
        let info = port.info()?;
        setup::check_queues(port, "receive", config.rx_queues, info.max_rx_queues)?;
        setup::check_queues(port, "transmit", config.tx_queues, info.max_tx_queues)?;
        if let Some(mtu) = config.mtu {
            setup::check_mtu(port, mtu, pool, &info)?;
        }
        let conf = setup::device_conf(config, &info);
        // SAFETY: the port is attached and stopped; the structure outlives the call, which copies it.
        let code = unsafe { dpdk_sys::rte_eth_dev_configure(port.id, config.rx_queues, config.tx_queues, &conf) };
        port.check("be configured", code)?;
        setup::setup_queues(port, config, pool)?;
        if let Some(mtu) = config.mtu {
            self.set_mtu(mtu)?;
        }
        self.set_reception(config)?;
        self.queues = Some((config.rx_queues, config.tx_queues));
        Ok(())
    }

    /// Starts the port and hands out its queues.
    ///
    /// # Errors
    /// [`DpdkError::WrongState`] if it is not configured or runs already, [`DpdkError::Port`].
    pub fn start(&mut self) -> Result<Queues, DpdkError> {
        let port = &self.inner;
        let wrong = |why| DpdkError::WrongState { device: port.device.text.clone(), why };
        let (rx, tx) = self.queues.ok_or(wrong("configure it before it is started"))?;
        if port.started.load(Ordering::Acquire) || self.keeper.is_some() {
            return Err(wrong("it is started already"));
        }
        if self.spent {
            return Err(wrong("its driver cannot start again; drop the port and open it anew"));
        }
        take_log();
        // A memif client is started whenever its server is there.
        if !port.memif.as_ref().is_some_and(Memif::is_client) {
            // SAFETY: the port is configured and stopped.
            port.check("be started", unsafe { dpdk_sys::rte_eth_dev_start(port.id) })?;
            port.set_started(true);
        }
        if port.memif.is_some() {
            let thread = Keeper::start(port);
            self.keeper = Some(thread.map_err(|error| DpdkError::Host { what: "cannot start memif's thread", error })?);
        }
        let port = &self.inner;
        port.rx_queues.store(rx, Ordering::Relaxed);
        Ok(Queues {
            rx: (0..rx).map(|queue| RxQueue::new(port, queue)).collect(),
            tx: (0..tx).map(|queue| TxQueue::new(port, queue)).collect(),
        })
    }

    /// Stops the port; it may be configured and started again, but for AF_PACKET, whose driver
    /// loses its sockets here.
    ///
    /// # Errors
    /// [`DpdkError::QueuesInUse`] while one of its queues exists, [`DpdkError::Port`].
    pub fn stop(&mut self) -> Result<(), DpdkError> {
        if Arc::strong_count(&self.inner) == 1 + usize::from(self.keeper.is_some()) {
            self.keeper = None;
        }
        // Queues hold the port: if this is the only holder, no loop can be inside the driver.
        let Some(port) = Arc::get_mut(&mut self.inner) else {
            return Err(DpdkError::QueuesInUse { device: self.inner.device.text.clone() });
        };
        if *port.started.get_mut() {
            let code = port.halt();
            port.check("be stopped", code)?;
            self.spent = port.device.packet_interface().is_some();
        }
        Ok(())
    }

    /// Sets the MTU, in bytes behind the Ethernet header. A device that has none ignores it. For
    /// AF_PACKET and TAP it is the MTU of the host's interface.
    ///
    /// # Errors
    /// [`DpdkError::MtuTooLarge`], or [`DpdkError::Port`] if the device refuses.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), DpdkError> {
        let port = &*self.inner;
        take_log();
        if let Some(interface) = port.device.packet_interface() {
            return setup::set_packet_mtu(port, interface, mtu);
        }
        if port.device.memif_mtu_limit().is_some() {
            return Ok(()); // it has none but its buffers
        }
        // SAFETY: the port is attached.
        match unsafe { dpdk_sys::rte_eth_dev_set_mtu(port.id, mtu) } {
            code if code == -libc::ENOTSUP => Ok(()),
            code => port.check("take this MTU", code),
        }
    }

    /// The MTU, in bytes behind the Ethernet header.
    pub fn mtu(&self) -> u16 {
        if let Some(Ok(mtu)) = self.inner.device.packet_interface().map(host::interface_mtu) {
            return mtu;
        }
        let mut mtu = 0;
        // SAFETY: the port is attached; the number is ours.
        unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.inner.id, &mut mtu) };
        mtu
    }

    /// The port's Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        let mut mac = rte_ether_addr::default();
        // SAFETY: the port is attached; the structure is ours.
        unsafe { dpdk_sys::rte_eth_macaddr_get(self.inner.id, &mut mac) };
        mac.addr_bytes
    }

    /// Changes the port's Ethernet address.
    ///
    /// # Errors
    /// [`DpdkError::Port`] if the device refuses.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), DpdkError> {
        let mut mac = rte_ether_addr { addr_bytes: mac };
        take_log();
        // SAFETY: the port is attached; the structure outlives the call, which copies it.
        let code = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(self.inner.id, &mut mac) };
        self.inner.check("take this Ethernet address", code)
    }

    /// The link's state now; a device that does not know is down.
    pub fn link(&self) -> Link {
        let mut link = rte_eth_link::default();
        // SAFETY: the port is attached; the structure is ours.
        let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.inner.id, &mut link) };
        let known = code == 0 && link.link_speed != 0 && link.link_speed != u32::MAX;
        Link {
            up: code == 0 && link.link_status() != 0,
            speed_mbps: known.then_some(link.link_speed),
            full_duplex: link.link_duplex() != 0,
        }
    }

    /// The device's counters. Asks the driver: for status, not for a poll loop.
    ///
    /// # Errors
    /// [`DpdkError::Port`] if the device has none.
    pub fn stats(&self) -> Result<PortStats, DpdkError> {
        let mut raw = rte_eth_stats::default();
        // SAFETY: the port is attached; the structure is ours.
        self.inner.check("count", unsafe { dpdk_sys::rte_eth_stats_get(self.inner.id, &mut raw) })?;
        Ok(PortStats {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed + self.inner.socket_drops(),
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_buffer: raw.rx_nombuf,
        })
    }

    /// Turns reception of everything on or off.
    ///
    /// # Errors
    /// [`DpdkError::Port`] if the device refuses; one that cannot tell addresses apart does not.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), DpdkError> {
        // SAFETY: the port is attached.
        let code = unsafe {
            if on {
                dpdk_sys::rte_eth_promiscuous_enable(self.inner.id)
            } else {
                dpdk_sys::rte_eth_promiscuous_disable(self.inner.id)
            }
        };
        if code == -libc::ENOTSUP { Ok(()) } else { self.inner.check("change its reception", code) }
    }

    /// The host's network interface behind a software port (TAP, AF_PACKET), if there is one.
    pub fn interface(&self) -> Option<String> {
        let index = self.inner.info().ok()?.if_index;
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the size the call demands; a non-null result is zero-terminated in it.
        unsafe {
            if index == 0 || libc::if_indextoname(index, name.as_mut_ptr()).is_null() {
                return None;
            }
            Some(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
        }
    }

    /// The driver's name, e.g. "net_tap".
    pub fn driver(&self) -> String {
        match self.inner.info() {
            Ok(info) if !info.driver_name.is_null() => {
                // SAFETY: the driver's name is a constant, zero-terminated string.
                unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
            }
            _ => self.inner.device.driver().to_owned(),
        }
    }

    /// The device as it was given to [`open`](Self::open).
    pub fn device(&self) -> &str {
        &self.inner.device.text
    }

    /// DPDK's number of the port, as in [`crate::Mbuf::port`].
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    fn set_reception(&mut self, config: &PortConfig) -> Result<(), DpdkError> {
        if config.promiscuous {
            self.set_promiscuous(true)?;
        }
        if config.all_multicast {
            // SAFETY: the port is attached.
            let code = unsafe { dpdk_sys::rte_eth_allmulticast_enable(self.inner.id) };
            if code != -libc::ENOTSUP {
                self.inner.check("receive all multicast", code)?;
            }
        }
        Ok(())
    }
}

impl Drop for PortInner {
    fn drop(&mut self) {
        if *self.started.get_mut() {
            self.halt();
        }
        // SAFETY: the port is attached and stopped, and with the last holder gone nobody polls it.
        // Each step may fail without harm: what cannot be closed goes with the process.
        unsafe {
            dpdk_sys::rte_eth_dev_close(self.id);
            dpdk_sys::rte_eal_hotplug_remove(self.device.bus.name().as_ptr(), self.name.as_ptr());
        }
        OPEN.fetch_and(!(1 << self.id), Ordering::AcqRel);
    }
}

fn find(name: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: a zero-terminated string and a number of ours.
    (unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } == 0).then_some(id)
}

fn attach_error(eal: &Eal, device: &Device, code: i32) -> DpdkError {
    match device.bus {
        Bus::Pci => device.no_pci_device(eal, take_log()),
        // So the vdev bus says that no driver's name is the beginning of the device's: EFAULT when
        // it parses the name, ENOTSUP when it looks for the driver.
        Bus::Vdev if [-libc::EFAULT, -libc::ENOTSUP].contains(&code) => device.no_driver(),
        Bus::Vdev => DpdkError::Port {
            device: device.text.clone(),
            step: "be attached",
            error: Errno::from_code(code),
            log: take_log(),
        },
    }
}
