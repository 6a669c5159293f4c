//! The steps of configuring a port.

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info};

use crate::error::DpdkError;
use crate::host;
use crate::mempool::Mempool;
use crate::port::PortInner;

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

pub(crate) fn check_queues(port: &PortInner, direction: &'static str, wanted: u16, most: u16) -> Result<(), DpdkError> {
    if wanted == 0 || wanted > most {
        return Err(DpdkError::TooManyQueues { device: port.device().text.clone(), direction, wanted, most });
    }
    Ok(())
}

/// Packets are one segment: a frame must fit a buffer, and the driver must carry it.
pub(crate) fn check_mtu(port: &PortInner, mtu: u16, pool: &Mempool, info: &rte_eth_dev_info) -> Result<(), DpdkError> {
    let too_large = |most, because| DpdkError::MtuTooLarge { device: port.device().text.clone(), mtu, most, because };
    let most = pool.data_room().saturating_sub(FRAME_OVERHEAD);
    if mtu > most {
        return Err(too_large(most, "for this packet pool (its data room less 18)"));
    }
    // Neither is memif's statement of 1500.
    if let Some(most) = port.device().memif_mtu_limit() {
        return if mtu > most { Err(too_large(most, "for its buffers")) } else { Ok(()) };
    }
    // AF_PACKET states a limit that is not its own; `set_packet_mtu` knows better.
    if port.device().packet_interface().is_none() {
        let frame = info.max_rx_pktlen.saturating_sub(u32::from(FRAME_OVERHEAD));
        let most = info.max_mtu.min(u16::try_from(frame).unwrap_or(u16::MAX));
        if mtu > most {
            return Err(too_large(most, "for its driver"));
        }
    }
    Ok(())
}

/// AF_PACKET: DPDK would refuse more than 1500, although the driver carries what fits its slots.
pub(crate) fn set_packet_mtu(port: &PortInner, interface: &str, mtu: u16) -> Result<(), DpdkError> {
    let most = port.device().packet_mtu_limit();
    if mtu > most {
        let because = "for its slots; add framesz=4096,blocksz=4096 (or 16384 both) to the device \
                       and give the packet pool a data room of as much";
        return Err(DpdkError::MtuTooLarge { device: port.device().text.clone(), mtu, most, because });
    }
    let refused = |error| DpdkError::Port {
        device: port.device().text.clone(),
        step: "take this MTU",
        error,
        log: String::new(),
    };
    if host::interface_mtu(interface).map_err(refused)? == mtu {
        return Ok(());
    }
    host::set_interface_mtu(interface, mtu).map_err(refused)
}

pub(crate) fn device_conf(config: &PortConfig, info: &rte_eth_dev_info) -> rte_eth_conf {
    // RTE_ETH_RSS_IP: IPv4, its fragments and others, IPv6, its fragments, others and extension headers.
    const RSS_IP: u64 = 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 13 | 1 << 15;
    let mut conf = rte_eth_conf::default();
    if config.rx_queues > 1 && info.flow_type_rss_offloads & RSS_IP != 0 {
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & RSS_IP;
    }
    conf
}

pub(crate) fn setup_queues(port: &PortInner, config: &PortConfig, pool: &Mempool) -> Result<(), DpdkError> {
    let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
    // SAFETY: the port is configured; both numbers are ours. The pool lives as long as EAL, and null
    // asks for the driver's default queue settings.
    unsafe {
        port.check("size its queues", dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(port.id(), &mut rx, &mut tx))?;
        let socket = dpdk_sys::rte_eth_dev_socket_id(port.id()) as u32; // -1 is "any", as the API wants it
        for queue in 0..config.rx_queues {
            let code = dpdk_sys::rte_eth_rx_queue_setup(port.id(), queue, rx, socket, std::ptr::null(), pool.raw());
            port.check("set up a receive queue", code)?;
        }
        for queue in 0..config.tx_queues {
            let code = dpdk_sys::rte_eth_tx_queue_setup(port.id(), queue, tx, socket, std::ptr::null());
            port.check("set up a transmit queue", code)?;
        }
    }
    Ok(())
}
