//! The processor's time stamp counter: the cheapest clock there is, good for differences on one core.

/// Its value now, in clocks of a rate that is to be measured: on x86 some 20 clocks of work, no system call and no barrier,
/// so work may be counted a few clocks early or late. On other processors it counts nanoseconds.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is part of every x86-64 and reads nothing but the counter. There is no safe way to it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Its value now, in nanoseconds.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn tsc() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_counter_counts_up_while_time_passes() {
        let before = super::tsc();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(super::tsc() > before + 100_000, "not even 50 MHz");
    }
}
