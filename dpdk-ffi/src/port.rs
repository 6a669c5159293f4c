//! A device: attached, configured, started; and the way back.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_link, rte_eth_stats, rte_ether_addr};

use crate::device::{Bus, Device};
use crate::eal::{Eal, take_log};
use crate::error::{DpdkError, Errno};
use crate::host;
use crate::mempool::Mempool;
use crate::queue::{RxQueue, TxQueue};

/// Ethernet header and one VLAN tag: what a frame is longer than the MTU.
const FRAME_OVERHEAD: u16 = 18;

/// How to set up a port.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Receive queues, at least 1. Several share the load by IP addresses where the device can.
    pub rx_queues: u16,
    /// Transmit queues, at least 1.
    pub tx_queues: u16,
    /// Packets the device may hold for a receive queue; adjusted to what it can.
    pub rx_descriptors: u16,
    /// Packets the device may hold for a transmit queue; adjusted to what it can.
    pub tx_descriptors: u16,
    /// The MTU to set, in bytes behind the Ethernet header; `None` leaves it as it is. A device
    /// that has none (net_ring, net_null) ignores it.
    pub mtu: Option<u16>,
    /// Receive what is sent to other addresses too. A device that cannot tell ignores it.
    pub promiscuous: bool,
    /// Receive all multicast (IPv6 neighbour solicitations need it). A device that cannot tell ignores it.
    pub all_multicast: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: None,
            promiscuous: false,
            all_multicast: false,
        }
    }
}

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

/// A device that DPDK has taken. Dropped together with the last of its queues it is stopped, closed
/// and, if it is a software device, removed.
#[derive(Debug)]
pub struct Port {
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
    _eal: Eal,
}

impl PortInner {
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    fn check(&self, step: &'static str, code: i32) -> Result<(), DpdkError> {
        if code >= 0 {
            Ok(())
        } else {
            Err(self.failed(step, code))
        }
    }

    fn failed(&self, step: &'static str, code: i32) -> DpdkError {
        DpdkError::Port {
            device: self.device.text.clone(),
            step,
            error: Errno::from_code(code),
            log: take_log(),
        }
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
        let new = self
            .sockets
            .iter()
            .map(host::packet_socket_drops)
            .sum::<u64>();
        self.dropped.fetch_add(new, Ordering::Relaxed) + new
    }

    fn info(&self) -> Result<rte_eth_dev_info, DpdkError> {
        let mut info = rte_eth_dev_info::default();
        // SAFETY: the port is attached; the structure is ours.
        self.check("read its properties", unsafe {
            dpdk_sys::rte_eth_dev_info_get(self.id, &mut info)
        })?;
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
            CString::new(text).map_err(|_| DpdkError::BadName {
                name: device.text.clone(),
                why: "holds a zero byte",
            })
        };
        let (name, args) = (c(&device.name)?, c(&device.args)?);
        take_log();
        if find(&name).is_none() {
            if device.bus == Bus::Pci && !eal.allows_pci(&device.name) {
                return Err(device.no_pci_device(eal, String::new()));
            }
            // SAFETY: zero-terminated strings that outlive the call; EAL is initialised.
            let code = unsafe {
                dpdk_sys::rte_eal_hotplug_add(
                    device.bus.name().as_ptr(),
                    name.as_ptr(),
                    args.as_ptr(),
                )
            };
            if code < 0 {
                return Err(attach_error(eal, &device, code));
            }
        }
        let Some(id) = find(&name) else {
            return Err(attach_error(eal, &device, -libc::ENODEV));
        };
        let sockets = device
            .packet_interface()
            .and_then(host::interface_index)
            .map_or(Vec::new(), host::packet_sockets);
        let inner = PortInner {
            id,
            device,
            name,
            started: AtomicBool::new(false),
            rx_queues: AtomicU16::new(0),
            sockets,
            dropped: AtomicU64::new(0),
            _eal: eal.clone(),
        };
        Ok(Port {
            inner: Arc::new(inner),
            queues: None,
            spent: false,
        })
    }

    /// Sets up queues and MTU. Packets are received into `pool`.
    ///
    /// # Errors
    /// [`DpdkError::WrongState`] while it runs, [`DpdkError::TooManyQueues`], [`DpdkError::MtuTooLarge`],
    /// [`DpdkError::Port`].
    pub fn configure(&mut self, config: &PortConfig, pool: &Mempool) -> Result<(), DpdkError> {
        let port = &*self.inner;
        if port.started.load(Ordering::Acquire) {
            return Err(DpdkError::WrongState {
                device: port.device.text.clone(),
                why: "stop it before it is configured",
            });
        }
        take_log();
        let info = port.info()?;
        check_queues(port, "receive", config.rx_queues, info.max_rx_queues)?;
        check_queues(port, "transmit", config.tx_queues, info.max_tx_queues)?;
        if let Some(mtu) = config.mtu {
            check_mtu(port, mtu, pool)?;
        }
        let conf = device_conf(config, &info);
        // SAFETY: the port is attached and stopped; the structure outlives the call, which copies it.
        let code = unsafe {
            dpdk_sys::rte_eth_dev_configure(port.id, config.rx_queues, config.tx_queues, &conf)
        };
        port.check("be configured", code)?;
        setup_queues(port, config, pool)?;
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
        let wrong = |why| DpdkError::WrongState {
            device: port.device.text.clone(),
            why,
        };
        let (rx, tx) = self
            .queues
            .ok_or(wrong("configure it before it is started"))?;
        if port.started.load(Ordering::Acquire) {
            return Err(wrong("it is started already"));
        }
        if self.spent {
            return Err(wrong(
                "its driver cannot start again; drop the port and open it anew",
            ));
        }
        take_log();
        // SAFETY: the port is configured and stopped.
        port.check("be started", unsafe {
            dpdk_sys::rte_eth_dev_start(port.id)
        })?;
        port.started.store(true, Ordering::Release);
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
        // Queues hold the port: if this is the only holder, no loop can be inside the driver.
        let Some(port) = Arc::get_mut(&mut self.inner) else {
            return Err(DpdkError::QueuesInUse {
                device: self.inner.device.text.clone(),
            });
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
            return set_packet_mtu(port, interface, mtu);
        }
        // SAFETY: the port is attached.
        match unsafe { dpdk_sys::rte_eth_dev_set_mtu(port.id, mtu) } {
            code if code == -libc::ENOTSUP => Ok(()),
            code => port.check("take this MTU", code),
        }
    }

    /// The MTU, in bytes behind the Ethernet header.
    pub fn mtu(&self) -> u16 {
        if let Some(Ok(mtu)) = self
            .inner
            .device
            .packet_interface()
            .map(host::interface_mtu)
        {
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
        self.inner.check("count", unsafe {
            dpdk_sys::rte_eth_stats_get(self.inner.id, &mut raw)
        })?;
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
        if code == -libc::ENOTSUP {
            Ok(())
        } else {
            self.inner.check("change its reception", code)
        }
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
            // SAFETY: the driver's name is a constant, zero-terminated string.
            Ok(info) if !info.driver_name.is_null() => unsafe { CStr::from_ptr(info.driver_name) }
                .to_string_lossy()
                .into_owned(),
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

fn check_queues(
    port: &PortInner,
    direction: &'static str,
    wanted: u16,
    most: u16,
) -> Result<(), DpdkError> {
    if wanted == 0 || wanted > most {
        return Err(DpdkError::TooManyQueues {
            device: port.device.text.clone(),
            direction,
            wanted,
            most,
        });
    }
    Ok(())
}

/// Packets are one segment: a frame must fit a buffer.
fn check_mtu(port: &PortInner, mtu: u16, pool: &Mempool) -> Result<(), DpdkError> {
    let most = pool.data_room().saturating_sub(FRAME_OVERHEAD);
    if mtu > most {
        let because = "for this packet pool (its data room less 18)";
        return Err(DpdkError::MtuTooLarge {
            device: port.device.text.clone(),
            mtu,
            most,
            because,
        });
    }
    Ok(())
}

/// AF_PACKET: DPDK would refuse more than 1500, although the driver carries what fits its slots.
fn set_packet_mtu(port: &PortInner, interface: &str, mtu: u16) -> Result<(), DpdkError> {
    let most = port.device.packet_mtu_limit();
    if mtu > most {
        let because = "for its slots; add framesz=4096,blocksz=4096 (or 16384 both) to the device \
                       and give the packet pool a data room of as much";
        return Err(DpdkError::MtuTooLarge {
            device: port.device.text.clone(),
            mtu,
            most,
            because,
        });
    }
    let refused = |error| DpdkError::Port {
        device: port.device.text.clone(),
        step: "take this MTU",
        error,
        log: String::new(),
    };
    if host::interface_mtu(interface).map_err(refused)? == mtu {
        return Ok(());
    }
    host::set_interface_mtu(interface, mtu).map_err(refused)
}

fn device_conf(config: &PortConfig, info: &rte_eth_dev_info) -> rte_eth_conf {
    // RTE_ETH_RSS_IP: IPv4, its fragments and others, IPv6, its fragments, others and extension headers.
    const RSS_IP: u64 = 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 13 | 1 << 15;
    let mut conf = rte_eth_conf::default();
    if config.rx_queues > 1 && info.flow_type_rss_offloads & RSS_IP != 0 {
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & RSS_IP;
    }
    conf
}

fn setup_queues(port: &PortInner, config: &PortConfig, pool: &Mempool) -> Result<(), DpdkError> {
    let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
    // SAFETY: the port is configured; both numbers are ours. The pool lives as long as EAL, and null
    // asks for the driver's default queue settings.
    unsafe {
        port.check(
            "size its queues",
            dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(port.id, &mut rx, &mut tx),
        )?;
        let socket = dpdk_sys::rte_eth_dev_socket_id(port.id) as u32; // -1 is "any", as the API wants it
        for queue in 0..config.rx_queues {
            let code = dpdk_sys::rte_eth_rx_queue_setup(
                port.id,
                queue,
                rx,
                socket,
                std::ptr::null(),
                pool.raw(),
            );
            port.check("set up a receive queue", code)?;
        }
        for queue in 0..config.tx_queues {
            let code =
                dpdk_sys::rte_eth_tx_queue_setup(port.id, queue, tx, socket, std::ptr::null());
            port.check("set up a transmit queue", code)?;
        }
    }
    Ok(())
}
