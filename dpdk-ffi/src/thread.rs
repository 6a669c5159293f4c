//! Poll threads make themselves known to DPDK.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::eal::{Eal, block_realtime_signals};
use crate::error::{DpdkError, Errno};

/// The shortest turn that Linux gives, in nanoseconds (sched(7)).
const SHORT_TURN_NS: u64 = 100_000;

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this thread has an lcore id of its own and with it a cache in every packet pool.
/// Threads without one may do everything too, a little slower. Real-time signals, of which the TAP
/// driver sends one for each packet, are blocked in a registered thread, also afterwards.
#[derive(Debug)]
pub struct Registration {
    _eal: Eal,
    // Belongs to the thread that made it.
    _here: PhantomData<*mut ()>,
}

impl Registration {
    pub(crate) fn new(eal: &Eal) -> Result<Self, DpdkError> {
        if REGISTERED.get() {
            return Err(DpdkError::Register { why: "this thread is registered already".into() });
        }
        block_realtime_signals(true);
        // SAFETY: EAL is initialised, as `eal` proves, and this thread is not registered yet.
        if unsafe { dpdk_sys::rte_thread_register() } != 0 {
            return Err(DpdkError::Register { why: format!("{} (DPDK knows 128 threads at most)", Errno::last()) });
        }
        REGISTERED.set(true);
        Ok(Registration { _eal: eal.clone(), _here: PhantomData })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: this thread was registered by `new` (the value cannot change threads) and only once.
        unsafe { dpdk_sys::rte_thread_unregister() };
        REGISTERED.set(false);
    }
}

/// From now on this thread asks for short turns on its CPU (Linux 6.12 and later; before, nothing changes): when it wakes up it need not
/// wait until another one's turn of some milliseconds is over. For threads that sleep often and have little to do. Its share of the
/// CPU is what it was, and a real-time thread stays one.
pub fn take_short_turns() {
    // SAFETY: all of it is integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: 0 is this thread; the kernel writes at most `size` bytes to where `attributes` is.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if known == 0 && attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = SHORT_TURN_NS;
        // SAFETY: the kernel only reads `attributes`, which say their own size. That it refuses changes nothing.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}
