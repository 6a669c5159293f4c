//! Poll threads make themselves known to DPDK.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::eal::{Eal, block_realtime_signals};
use crate::error::{DpdkError, Errno};

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
