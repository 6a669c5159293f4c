//! What can go wrong, said so that the reader knows what to do.

use std::fmt;

/// A positive `errno` value of the system or of DPDK.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// From a DPDK return value, which is negative, or from `rte_errno`, which is not.
    pub(crate) fn from_code(code: i32) -> Self {
        Errno(code.abs())
    }

    /// What the last DPDK call on this thread left in `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer; no arguments, no preconditions.
        Errno(unsafe { dpdk_sys::px_errno() })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Every error of this crate. `log` is what DPDK itself wrote meanwhile; it may be empty.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// DPDK can be initialised once in the life of a process, also after its clean-up.
    #[error("DPDK was already initialised in this process; it can be only once")]
    AlreadyInitialised,
    /// `rte_eal_init` failed.
    #[error("DPDK does not start: {error}{}", logged(log))]
    Init {
        /// The reason as `errno`.
        error: Errno,
        /// DPDK's own words.
        log: String,
    },
    /// The host cannot give what is needed before DPDK even starts.
    #[error("{what}: {error}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The reason.
        error: std::io::Error,
    },
    /// Huge pages were required and there are not enough.
    #[error(
        "{wanted_mb} MB of huge pages are required, {free_mb} MB are free; reserve them:  \
         sysctl -w vm.nr_hugepages={}", wanted_mb.div_ceil(2)
    )]
    NoHugePages {
        /// What the configuration asks for.
        wanted_mb: u32,
        /// What the host has.
        free_mb: u32,
    },
    /// A name or device string that DPDK cannot take.
    #[error("\"{name}\" {why}")]
    BadName {
        /// The offending text.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No driver takes this device: a typing mistake, or its package is missing.
    #[error(
        "device {device}: no driver \"{driver}\" is installed. Check the name, or install the driver:  \
         apt-get install dpdk {package}"
    )]
    NoDriver {
        /// The device as configured.
        device: String,
        /// The driver its name asks for.
        driver: String,
        /// The Debian package that would hold it.
        package: String,
    },
    /// A software port names a network interface of the host that does not exist (in this namespace).
    #[error(
        "device {device}: the host has no network interface \"{interface}\" in this network namespace; \
         create it first (ip link show lists what there is)"
    )]
    NoInterface {
        /// The device as configured.
        device: String,
        /// The interface it asks for.
        interface: String,
    },
    /// The network interface that a TAP port is to make exists already.
    #[error(
        "device {device}: the host has a network interface \"{interface}\" already. Does another program run \
         with it? Choose another name, or remove it:  ip link del {interface}"
    )]
    InterfaceTaken {
        /// The device as configured.
        device: String,
        /// The interface it was to make.
        interface: String,
    },
    /// A PCI device that is not there, not allowed or not usable from user space.
    #[error("device {device}: {why}{}", logged(log))]
    NoDevice {
        /// The device as configured.
        device: String,
        /// What is the matter and what to type.
        why: String,
        /// DPDK's own words.
        log: String,
    },
    /// The device exists, but a step with it failed.
    #[error("device {device}: cannot {step}: {error}{}", logged(log))]
    Port {
        /// The device as configured.
        device: String,
        /// What was tried, as a verb phrase.
        step: &'static str,
        /// The reason.
        error: Errno,
        /// DPDK's own words.
        log: String,
    },
    /// The device has fewer queues than asked for.
    #[error("device {device}: {wanted} {direction} queues wanted, it has {most}")]
    TooManyQueues {
        /// The device as configured.
        device: String,
        /// "receive" or "transmit".
        direction: &'static str,
        /// Asked for.
        wanted: u16,
        /// Available.
        most: u16,
    },
    /// A packet of this MTU does not fit.
    #[error("device {device}: MTU {mtu} is too large, {most} is the most {because}")]
    MtuTooLarge {
        /// The device as configured.
        device: String,
        /// Asked for.
        mtu: u16,
        /// The largest that works.
        most: u16,
        /// Who sets the limit and how to raise it.
        because: &'static str,
    },
    /// The port cannot be stopped or configured while a loop still holds one of its queues.
    #[error("device {device}: its queues are still in use; drop them first")]
    QueuesInUse {
        /// The device as configured.
        device: String,
    },
    /// `start` before `configure`, or `configure` while it runs.
    #[error("device {device}: {why}")]
    WrongState {
        /// The device as configured.
        device: String,
        /// Which order is right.
        why: &'static str,
    },
    /// A packet pool or ring could not be made.
    #[error("cannot make {what} \"{name}\" of {count}: {error}{}{}", hint(error), logged(log))]
    Memory {
        /// "packet pool" or "ring".
        what: &'static str,
        /// Its name.
        name: String,
        /// How many elements.
        count: u32,
        /// The reason.
        error: Errno,
        /// DPDK's own words.
        log: String,
    },
    /// A thread could not be registered.
    #[error("cannot register a poll thread with DPDK: {why}")]
    Register {
        /// What is the matter.
        why: String,
    },
}

fn logged(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { String::new() } else { format!(" (DPDK says: {})", lines.join("; ")) }
}

fn hint(error: &Errno) -> &'static str {
    match error.0 {
        libc::ENOMEM | libc::ENOBUFS => " (raise the memory given to DPDK, or take fewer)",
        libc::EEXIST => " (the name is taken)",
        _ => "",
    }
}
