//! DPDK's interrupt thread: what it is in now, is over later.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits until the interrupt thread has left what it is in now, and is back where it waits; `false` if not until then. There is one
/// such thread, and an alarm is another of its turns.
pub(crate) fn are_past(until: Instant) -> bool {
    let past = Arc::new(AtomicBool::new(false));
    let argument = Arc::into_raw(past.clone());
    // SAFETY: the function lives as long as the program, and its argument until it runs, which is once.
    if unsafe { dpdk_sys::rte_eal_alarm_set(1, Some(turn), argument.cast_mut().cast()) } < 0 {
        // SAFETY: nobody else has it.
        drop(unsafe { Arc::from_raw(argument) });
        return false;
    }
    while !past.load(Ordering::Acquire) {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

extern "C" fn turn(past: *mut libc::c_void) {
    debug_assert_ne!(past, ptr::null_mut());
    // SAFETY: it is from `are_past`, and this is the one time that it comes.
    unsafe { Arc::from_raw(past.cast_const().cast::<AtomicBool>()) }.store(true, Ordering::Release);
}
