//! Asks for memory ahead of its use, so that a burst waits for all of its SAs at once and not for one after the other.
//!
//! A hint only: it reads nothing, changes nothing, and where there is no such instruction it does nothing.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// All cache lines of a value.
#[inline(always)]
pub fn all<T: ?Sized>(value: &T) {
    part(value, 0, size_of_val(value));
}

/// The cache lines of `len` bytes of a value from its byte `from` on; what lies behind its end is not asked for.
#[inline(always)]
pub fn part<T: ?Sized>(value: &T, from: usize, len: usize) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    let end = from.saturating_add(len).min(size_of_val(value));
    if from >= end {
        return;
    }
    // From the beginning of its first line on: each line once.
    let mut at = start.wrapping_add(from).wrapping_sub(start.addr().wrapping_add(from) % LINE);
    while at < start.wrapping_add(end) {
        line(at);
        at = at.wrapping_add(LINE);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code)]
fn line(at: *const u8) {
    // SAFETY: SSE is there on every x86-64, and a prefetch of any address whatever has no effect but on caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_any_value_may_be_asked_for() {
        let values = [7u64; 100];
        for from in [0, 1, 799, 800, usize::MAX] {
            for len in [0, 1, 64, 800, usize::MAX] {
                part(&values[..], from, len);
            }
        }
        all(&values);
        all(&());
        all::<[u8]>(&[]);
        assert_eq!(values, [7; 100]);
    }
}
