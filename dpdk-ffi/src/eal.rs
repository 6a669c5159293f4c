//! The process's one DPDK environment.

use std::ffi::{CString, c_char, c_int};
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use dpdk_sys::rte_mempool;

use crate::device::Device;
use crate::error::{DpdkError, Errno};
use crate::memif;
use crate::thread::Registration;

/// Whether DPDK's memory is in huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// If enough of them are free; otherwise without, and [`Eal::warning`] says so.
    #[default]
    Auto,
    /// Or fail.
    Required,
    /// Never (`--no-huge`): works everywhere, slower, and hardware needs an IOMMU.
    Off,
}

/// Where DPDK's own log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EalLog {
    /// Into a small buffer; the end of it becomes part of the error of a step that failed.
    #[default]
    Capture,
    /// To standard error as DPDK does by itself, for debugging.
    Stderr,
}

/// How to start DPDK.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Megabytes for packet pools, rings and drivers. All there is without huge pages.
    pub memory_mb: u32,
    /// The processors on which DPDK's own few threads (interrupts, alarms) may run; empty: where the
    /// caller may. Poll threads are not meant: they are the caller's, who pins them.
    pub cpus: Vec<usize>,
    /// Only matters where DPDK leaves files; with `--in-memory` it leaves none.
    pub file_prefix: Option<String>,
    /// Software devices to make at start; [`crate::Port::open`] makes them later as well.
    pub vdevs: Vec<String>,
    /// The PCI devices DPDK may take; it looks at no other one, and not at the bus at all if empty.
    pub pci_allow: Vec<String>,
    /// Huge pages.
    pub huge: HugePages,
    /// DPDK's log.
    pub log: EalLog,
}

impl Default for EalConfig {
    fn default() -> Self {
        EalConfig {
            memory_mb: 128,
            cpus: Vec::new(),
            file_prefix: None,
            vdevs: Vec::new(),
            pci_allow: Vec::new(),
            huge: HugePages::Auto,
            log: EalLog::Capture,
        }
    }
}

/// A handle to the process's DPDK environment. Pools, ports, rings and registrations hold one too;
/// when the last is dropped, DPDK is cleaned up. A process can start DPDK once.
#[derive(Clone, Debug)]
pub struct Eal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stop: Option<mpsc::Sender<Vec<Pool>>>,
    thread: Option<JoinHandle<()>>,
    huge: bool,
    warning: Option<String>,
    pci_allow: Vec<String>,
    pools: Mutex<Vec<Pool>>,
}

#[derive(Debug)]
struct Pool(NonNull<rte_mempool>);
// SAFETY: DPDK's pools may be used from any thread.
unsafe impl Send for Pool {}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts DPDK on a thread of its own ("eal"), so that the caller keeps its processor affinity.
    ///
    /// Real-time signals are blocked in the calling thread, and so in those it starts afterwards: the
    /// driver `net_tap` sends one for each packet, and only the "eal" thread shall be interrupted by them.
    ///
    /// # Errors
    /// [`DpdkError::AlreadyInitialised`], [`DpdkError::NoHugePages`], [`DpdkError::BadName`],
    /// [`DpdkError::Init`] with DPDK's own words.
    pub fn init(config: &EalConfig) -> Result<Eal, DpdkError> {
        let pci_allow = canonical_pci(&config.pci_allow)?;
        check_vdevs(&config.vdevs)?;
        // Several processes of this kind start on one box: who counts free huge pages and then takes
        // them must not be overtaken in between.
        let turn = HugePageTurn::take();
        let (huge, warning) = choose_memory(config)?;
        let cpus = if config.cpus.is_empty() { affinity()? } else { config.cpus.clone() };
        let arguments = arguments(config, huge, &cpus, &pci_allow)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(DpdkError::AlreadyInitialised);
        }
        let log = config.log;
        block_realtime_signals(true);

        let (started, result) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("eal".into())
            .spawn(move || eal_thread(arguments, &cpus, log, &started, &stopped))
            .map_err(|error| DpdkError::Host { what: "cannot start DPDK's thread", error })?;
        let outcome = result.recv().unwrap_or(Err(DpdkError::Init { error: Errno(libc::EIO), log: take_log() }));
        drop(turn);
        outcome?;
        let pools = Mutex::new(Vec::new());
        Ok(Eal(Arc::new(Inner { stop: Some(stop), thread: Some(thread), huge, warning, pci_allow, pools })))
    }

    /// Something the operator should know: at most one sentence, e.g. that there were no huge pages.
    pub fn warning(&self) -> Option<&str> {
        self.0.warning.as_deref()
    }

    /// True if DPDK's memory is in huge pages.
    pub fn has_huge_pages(&self) -> bool {
        self.0.huge
    }

    /// Makes the calling thread known to DPDK for as long as the guard lives.
    ///
    /// # Errors
    /// [`DpdkError::Register`] if it is already, or if there are too many.
    pub fn register_thread(&self) -> Result<Registration, DpdkError> {
        Registration::new(self)
    }

    /// DPDK's version, e.g. "DPDK 22.11.11".
    pub fn version() -> String {
        // SAFETY: returns a pointer to a constant, zero-terminated string.
        unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }

    pub(crate) fn remember_pool(&self, pool: NonNull<rte_mempool>) {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner).push(Pool(pool));
    }

    pub(crate) fn allows_pci(&self, address: &str) -> bool {
        self.0.pci_allow.iter().any(|allowed| allowed == address)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let pools = mem::take(self.pools.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(pools);
            let _ = thread.join();
        }
    }
}

/// What DPDK calls its main thread: starts it, waits, cleans up.
fn eal_thread(
    arguments: Vec<CString>,
    cpus: &[usize],
    log: EalLog,
    started: &mpsc::Sender<Result<(), DpdkError>>,
    stopped: &mpsc::Receiver<Vec<Pool>>,
) {
    // EAL takes its control threads' processors from what this thread may use.
    set_affinity(cpus);
    if log == EalLog::Capture {
        // SAFETY: no arguments; called once, before DPDK has other threads.
        unsafe { dpdk_sys::px_log_capture() };
    }
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    let count = pointers.len() as c_int; // a handful
    pointers.push(ptr::null_mut());
    // SAFETY: `argv` is an array of `count` zero-terminated strings and a null; EAL permutes the
    // pointers and copies what it keeps. STARTED makes this the only call in the process.
    let code = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    if code < 0 {
        let _ = started.send(Err(DpdkError::Init { error: Errno::last(), log: take_log() }));
        return;
    }
    ignore_sigio();
    block_realtime_signals(false);
    let _ = started.send(Ok(()));

    let Ok(pools) = stopped.recv() else { return };
    // A packet that somebody still holds keeps the memory mapped until the process ends.
    // SAFETY: all pools live until the clean-up below; counting reads them.
    let held = pools.iter().any(|pool| unsafe { dpdk_sys::rte_mempool_in_use_count(pool.0.as_ptr()) } != 0);
    // memif's server leaves behind in DPDK's memory what the interrupt thread looks at whenever its descriptors change, and it may
    // still have to notice that they did.
    if !held && !memif::was_opened() {
        // SAFETY: the last handle is gone, so there is no port, ring, pool handle or registered
        // thread; and no packet is out, so nobody can touch DPDK's memory again.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

fn arguments(config: &EalConfig, huge: bool, cpus: &[usize], pci: &[String]) -> Result<Vec<CString>, DpdkError> {
    let cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut list = vec!["phalanx".to_owned(), "--no-telemetry".into()];
    list.push(format!("--lcores=0@({cpus})"));
    list.extend(["-m".into(), config.memory_mb.max(16).to_string()]);
    // Neither leaves files behind. EAL refuses --in-memory together with --no-huge, whose memory is
    // private anyway; --no-shconf is the rest of what --in-memory means.
    if huge {
        list.push("--in-memory".into());
    } else {
        list.extend(["--no-huge".into(), "--no-shconf".into()]);
    }
    if config.log == EalLog::Capture {
        list.push("--log-level=notice".into());
    }
    if let Some(prefix) = &config.file_prefix {
        list.push(format!("--file-prefix={prefix}"));
    }
    if pci.is_empty() {
        list.push("--no-pci".into());
    }
    list.extend(pci.iter().map(|address| format!("--allow={address}")));
    list.extend(config.vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
    list.into_iter()
        .map(|text| CString::new(text.clone()).map_err(|_| DpdkError::BadName { name: text, why: "holds a zero byte" }))
        .collect()
}

fn canonical_pci(addresses: &[String]) -> Result<Vec<String>, DpdkError> {
    addresses
        .iter()
        .map(|address| match Device::parse(address)? {
            Device { bus: crate::device::Bus::Pci, name, .. } => Ok(name),
            _ => Err(DpdkError::BadName { name: address.clone(), why: "is not a PCI address such as 0000:01:00.0" }),
        })
        .collect()
}

fn check_vdevs(vdevs: &[String]) -> Result<(), DpdkError> {
    for vdev in vdevs {
        Device::parse(vdev)?.check_host()?;
    }
    Ok(())
}

/// True for huge pages, and what to say if they were wanted but are not there.
fn choose_memory(config: &EalConfig) -> Result<(bool, Option<String>), DpdkError> {
    let wanted_mb = config.memory_mb.max(16);
    let free_mb = free_huge_pages_mb();
    let enough = free_mb >= wanted_mb;
    match config.huge {
        HugePages::Off => Ok((false, None)),
        HugePages::Auto | HugePages::Required if enough => Ok((true, None)),
        HugePages::Required => Err(DpdkError::NoHugePages { wanted_mb, free_mb }),
        HugePages::Auto => Ok((
            false,
            Some(format!(
                "no huge pages: {wanted_mb} MB wanted, {free_mb} MB free; running without, which is slower and \
                 fits software ports only. To reserve them: sysctl -w vm.nr_hugepages={}",
                wanted_mb.div_ceil(2)
            )),
        )),
    }
}

fn free_huge_pages_mb() -> u32 {
    let mut kilobytes = 0_u64;
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size =
            name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")).and_then(|n| n.parse::<u64>().ok());
        let free =
            fs::read_to_string(entry.path().join("free_hugepages")).ok().and_then(|n| n.trim().parse::<u64>().ok());
        kilobytes += size.unwrap_or(0) * free.unwrap_or(0);
    }
    u32::try_from(kilobytes / 1024).unwrap_or(u32::MAX)
}

/// A lock between processes on a folder that every box has; gone with the process.
struct HugePageTurn(#[expect(dead_code, reason = "closing it gives the lock back")] Option<File>);

impl HugePageTurn {
    fn take() -> Self {
        let file = File::open("/sys/kernel/mm/hugepages").ok();
        if let Some(file) = &file {
            // SAFETY: a valid descriptor; without the lock there is only the race it would prevent.
            unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        }
        HugePageTurn(file)
    }
}

fn affinity() -> Result<Vec<usize>, DpdkError> {
    // SAFETY: a zeroed cpu_set_t is valid and empty; the call fills it, its size is given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Err(DpdkError::Host {
                what: "cannot read the processor affinity",
                error: io::Error::last_os_error(),
            });
        }
        set
    };
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: `cpu` is below CPU_SETSIZE.
    Ok((0..most).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

fn set_affinity(cpus: &[usize]) {
    // SAFETY: a zeroed cpu_set_t is valid and empty, and CPU_SET is given bits inside it only. If
    // the host refuses, EAL will say so itself.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        for cpu in cpus.iter().filter(|cpu| **cpu < 8 * size_of::<libc::cpu_set_t>()) {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

pub(crate) fn block_realtime_signals(block: bool) {
    // SAFETY: the set is initialised by sigemptyset, the numbers are valid, and changing this
    // thread's signal mask has no memory effects.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(if block { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, &set, ptr::null_mut());
    }
}

/// If `net_tap`'s queue of real-time signals overflows, the kernel sends SIGIO instead, and that
/// would end the process.
fn ignore_sigio() {
    // SAFETY: both structures are valid; the disposition is changed only if nobody else set one.
    unsafe {
        let mut current: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGIO, ptr::null(), &mut current) == 0 && current.sa_sigaction == libc::SIG_DFL {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
        }
    }
}

/// What DPDK wrote to its log since the last call.
pub(crate) fn take_log() -> String {
    let mut text = vec![0_u8; 8192];
    // SAFETY: the buffer is as large as said; bytes written are counted by the result.
    let len = unsafe { dpdk_sys::px_log_take(text.as_mut_ptr().cast(), text.len()) };
    text.truncate(len);
    String::from_utf8_lossy(&text).into_owned()
}
