//! Which instructions the ciphers run on: found once per process, the widest that the processor has.
//!
//! `PHALANX_CIPHER` forces one by its name, for tests and comparisons; one that the processor has not is ignored. Kernels are entered
//! through the functions here only, and a key for a kernel exists only where its features do: that is the proof that lets safe code
//! call them.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::gcm::{self, WideKey};
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Four, Lanes, One, Two};
use crate::{OpenOp, PeekOp, SealOp};

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// The `aes-gcm` crate, packet by packet.
    Portable,
    /// AES-NI and PCLMULQDQ: a block at a time.
    AesNi,
    /// VAES and VPCLMULQDQ with AVX2: two.
    Avx2,
    /// The same with AVX-512: four.
    Avx512,
}

impl Kernel {
    /// Every kernel there is, the best last.
    pub const ALL: [Kernel; 4] = [Kernel::Portable, Kernel::AesNi, Kernel::Avx2, Kernel::Avx512];

    /// Its name in `PHALANX_CIPHER` and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Portable => "portable",
            Kernel::AesNi => "aes-ni",
            Kernel::Avx2 => "vaes-avx2",
            Kernel::Avx512 => "vaes-avx512",
        }
    }

    /// The processor has its instructions.
    #[must_use]
    #[cfg(target_arch = "x86_64")]
    pub fn is_here(self) -> bool {
        macro_rules! all {
            ($($feature:tt)*) => { true $(&& std::arch::is_x86_feature_detected!($feature))* };
        }
        match self {
            Kernel::Portable => true,
            Kernel::AesNi => all!("aes" "pclmulqdq" "sse4.1" "ssse3"),
            Kernel::Avx2 => Kernel::AesNi.is_here() && all!("vaes" "vpclmulqdq" "avx2"),
            Kernel::Avx512 => Kernel::Avx2.is_here() && all!("avx512f" "avx512bw" "avx512dq" "avx512vl"),
        }
    }

    /// The processor has its instructions.
    #[must_use]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_here(self) -> bool {
        self == Kernel::Portable
    }

    /// The one that new keys are made for.
    pub fn chosen() -> Kernel {
        static CHOSEN: OnceLock<Kernel> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let forced = std::env::var("PHALANX_CIPHER").ok();
            let forced = Kernel::ALL.into_iter().find(|kernel| forced.as_deref() == Some(kernel.name()));
            let best = || Kernel::ALL.into_iter().rev().find(|kernel| kernel.is_here());
            forced.filter(|kernel| kernel.is_here()).or_else(best).unwrap_or(Kernel::Portable)
        })
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($seal:ident, $open:ident, $peek:ident, $lanes:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        fn $seal(ops: &mut [SealOp<'_>]) {
            // SAFETY: this function has the features.
            ops.iter_mut().for_each(|op| unsafe { seal::<$lanes>(op) });
        }

        #[target_feature(enable = $features)]
        fn $open(ops: &mut [OpenOp<'_>]) {
            // SAFETY: this function has the features.
            ops.iter_mut().for_each(|op| unsafe { open::<$lanes>(op) });
        }

        #[target_feature(enable = $features)]
        fn $peek(ops: &mut [PeekOp<'_>]) {
            // SAFETY: this function has the features.
            ops.iter_mut().for_each(|op| unsafe { peek::<$lanes>(op) });
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(seal_128, open_128, peek_128, One, "aes,pclmulqdq,sse4.1,ssse3");
#[cfg(target_arch = "x86_64")]
kernel!(seal_256, open_256, peek_256, Two, "aes,pclmulqdq,sse4.1,ssse3,vaes,vpclmulqdq,avx2");
#[cfg(target_arch = "x86_64")]
kernel!(
    seal_512,
    open_512,
    peek_512,
    Four,
    "aes,pclmulqdq,sse4.1,ssse3,vaes,vpclmulqdq,avx2,avx512f,avx512bw,avx512dq,avx512vl"
);

/// Seals packets whose keys are all for `kernel`, which is not the portable one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn seal_run(kernel: Kernel, ops: &mut [SealOp<'_>]) {
    // SAFETY: a key for a kernel is made only where its features were detected.
    unsafe {
        match kernel {
            Kernel::Portable => {}
            Kernel::AesNi => seal_128(ops),
            Kernel::Avx2 => seal_256(ops),
            Kernel::Avx512 => seal_512(ops),
        }
    }
}

/// As [`seal_run`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn open_run(kernel: Kernel, ops: &mut [OpenOp<'_>]) {
    // SAFETY: as for sealing.
    unsafe {
        match kernel {
            Kernel::Portable => {}
            Kernel::AesNi => open_128(ops),
            Kernel::Avx2 => open_256(ops),
            Kernel::Avx512 => open_512(ops),
        }
    }
}

/// As [`seal_run`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn peek_run(kernel: Kernel, ops: &mut [PeekOp<'_>]) {
    // SAFETY: as for sealing.
    unsafe {
        match kernel {
            Kernel::Portable => {}
            Kernel::AesNi => peek_128(ops),
            Kernel::Avx2 => peek_256(ops),
            Kernel::Avx512 => peek_512(ops),
        }
    }
}

/// A key for any kernel but the portable one; nothing where the processor has no AES instructions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn wide_key(key: &[u8]) -> Option<WideKey> {
    // SAFETY: the features were just detected.
    Kernel::AesNi.is_here().then(|| unsafe { WideKey::new(key) })
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn seal<V: Lanes>(op: &mut SealOp<'_>) {
    let Some((key, rounds)) = op.key.wide() else { return };
    // SAFETY: as this function's.
    unsafe {
        let tag = match rounds {
            10 => gcm::packet::<V, 10, false>(key, &op.nonce, &op.aad, op.text),
            _ => gcm::packet::<V, 14, false>(key, &op.nonce, &op.aad, op.text),
        };
        std::arch::x86_64::_mm_storeu_si128(op.tag.as_mut_ptr().cast(), tag);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn open<V: Lanes>(op: &mut OpenOp<'_>) {
    let Some((key, rounds)) = op.key.wide() else { return };
    // SAFETY: as this function's.
    unsafe {
        let tag = match rounds {
            10 => gcm::packet::<V, 10, true>(key, &op.nonce, &op.aad, op.text),
            _ => gcm::packet::<V, 14, true>(key, &op.nonce, &op.aad, op.text),
        };
        op.authentic = gcm::same(tag, op.tag);
        if !op.authentic {
            // What was decrypted is nobody's to see: ciphertext again.
            let text = op.text.as_mut_ptr();
            match rounds {
                10 => gcm::stream::<V, 10>(key, &op.nonce, 0, text, text, op.text.len()),
                _ => gcm::stream::<V, 14>(key, &op.nonce, 0, text, text, op.text.len()),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn peek<V: Lanes>(op: &mut PeekOp<'_>) {
    let Some((key, rounds)) = op.key.wide() else { return };
    let len = op.cipher.len().min(op.out.len());
    let (from, to) = (op.cipher.as_ptr(), op.out.as_mut_ptr());
    // SAFETY: as this function's; both have `len` bytes.
    unsafe {
        match rounds {
            10 => gcm::stream::<V, 10>(key, &op.nonce, op.block, from, to, len),
            _ => gcm::stream::<V, 14>(key, &op.nonce, op.block, from, to, len),
        }
    }
}
