//! Which instructions the ciphers run on: found once per process, the widest that the processor has.
//!
//! `PHALANX_CIPHER` forces one by its name, for tests and comparisons, and a node's configuration does ([`Kernel::choose`]). Kernels are
//! entered through the functions here only, and a key for a kernel exists only where its features do: that is the proof that lets safe
//! code call them.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::burst::{AES_256, EXACT, LONG, SAME, SINGLE, sorted};
#[cfg(target_arch = "x86_64")]
use crate::key::Head;
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Four, Lanes, One, Two};
#[cfg(target_arch = "x86_64")]
use crate::packet::Packet;
#[cfg(target_arch = "x86_64")]
use crate::wide::WideKey;
use crate::{OpenOp, PeekOp, SealOp};
#[cfg(target_arch = "x86_64")]
use crate::{gcm, long, short, single};

/// The environment variable that forces a kernel.
const FORCED_BY: &str = "PHALANX_CIPHER";

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kernel {
    /// The `aes-gcm` crate, packet by packet.
    Portable,
    /// AES-NI and PCLMULQDQ with AVX: a block at a time.
    AesNi,
    /// VAES and VPCLMULQDQ with AVX2: two.
    Avx2,
    /// The same with AVX-512: four.
    Avx512,
}

impl Kernel {
    /// Every kernel there is, the best last.
    pub const ALL: [Kernel; 4] = [Kernel::Portable, Kernel::AesNi, Kernel::Avx2, Kernel::Avx512];

    /// Its name in configuration, `PHALANX_CIPHER` and status.
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
            Kernel::AesNi => all!("aes" "pclmulqdq" "sse4.1" "ssse3" "avx"),
            Kernel::Avx2 => Kernel::AesNi.is_here() && all!("vaes" "vpclmulqdq" "avx2"),
            Kernel::Avx512 => Kernel::Avx2.is_here() && all!("avx512f" "avx512bw" "avx512dq" "avx512vl" "bmi2"),
        }
    }

    /// The processor has its instructions.
    #[must_use]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_here(self) -> bool {
        self == Kernel::Portable
    }

    /// The one that new keys are made for: what [`Kernel::choose`] took, else what the environment names if the processor has it, else
    /// the best.
    pub fn chosen() -> Kernel {
        *CHOSEN.get_or_init(|| forced_by_environment().ok().flatten().unwrap_or_else(Kernel::best))
    }

    /// Takes the kernel of this process, before its first key: the one that the environment names, else `wanted`, else the best.
    ///
    /// # Errors
    /// [`KernelError`] where that one does not exist or the processor cannot run it, or where another one was taken before.
    pub fn choose(wanted: Option<Kernel>) -> Result<Kernel, KernelError> {
        let kernel = match forced_by_environment()?.or(wanted) {
            Some(kernel) => kernel.that_is_here()?,
            None => Kernel::best(),
        };
        match *CHOSEN.get_or_init(|| kernel) {
            taken if taken == kernel => Ok(kernel),
            taken => Err(KernelError::Late { wanted: kernel, taken }),
        }
    }

    /// Itself.
    ///
    /// # Errors
    /// [`KernelError::NotHere`] where the processor lacks its instructions.
    pub fn that_is_here(self) -> Result<Kernel, KernelError> {
        if self.is_here() { Ok(self) } else { Err(KernelError::NotHere(self)) }
    }

    /// The best that the processor has.
    fn best() -> Kernel {
        Kernel::ALL.into_iter().rev().find(|kernel| kernel.is_here()).unwrap_or(Kernel::Portable)
    }
}

static CHOSEN: OnceLock<Kernel> = OnceLock::new();

fn forced_by_environment() -> Result<Option<Kernel>, KernelError> {
    let Some(name) = std::env::var_os(FORCED_BY) else { return Ok(None) };
    name.to_string_lossy().parse::<Kernel>()?.that_is_here().map(Some)
}

impl std::str::FromStr for Kernel {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Kernel, KernelError> {
        Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| KernelError::Unknown(name.to_owned()))
    }
}

/// Why a kernel is not that of this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No kernel has this name.
    #[error("there is no cipher kernel `{0}`, but {all}", all = Kernel::ALL.map(Kernel::name).join(", "))]
    Unknown(String),
    /// The processor lacks its instructions.
    #[error("this processor cannot run the cipher kernel `{name}`, but {here}", name = .0.name(), here = here())]
    NotHere(Kernel),
    /// Keys may have been made for another one.
    #[error("the ciphers run on `{}` already, `{}` comes too late", .taken.name(), .wanted.name())]
    Late {
        /// What was asked for.
        wanted: Kernel,
        /// What runs.
        taken: Kernel,
    },
}

/// The kernels that this processor can run, in words.
fn here() -> String {
    let names: Vec<_> = Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()).map(Kernel::name).collect();
    names.join(", ")
}

/// `short` and `long`: by vectors of a packet or a step, how many packets a step has.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($seal:ident, $open:ident, $peek:ident, $all:ident, $short:ident, $long:ident, $single:ident, $lanes:ty, $features:literal,
     short { $($vectors:literal: $packets:literal),* }, same { $($texts:literal: $alike:literal),* }, long { $($step:literal),* }) => {
        #[target_feature(enable = $features)]
        fn $seal(ops: &mut [SealOp<'_>]) -> usize {
            $all(ops)
        }

        #[target_feature(enable = $features)]
        fn $open(ops: &mut [OpenOp<'_>]) -> usize {
            $all(ops)
        }

        #[target_feature(enable = $features)]
        fn $peek(ops: &mut [PeekOp<'_>]) {
            // SAFETY: this function has the features.
            ops.iter_mut().for_each(|op| unsafe { peek::<$lanes>(op) });
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn $all<P: Packet>(ops: &mut [P]) -> usize {
            sorted::<$lanes, P>(ops, |class, packets, count| {
                let (aes_256, class) = (class & AES_256 != 0, class & !AES_256);
                if class == SINGLE {
                    // SAFETY: the list has so many, and the function that this is part of has the features.
                    return unsafe { $single::<P>(packets, count, aes_256) };
                }
                // SAFETY: the packets are of that class, and the function that this is part of has the features.
                $(unsafe {
                    if class == $vectors {
                        return $short::<P, $packets, $vectors, false, false>(packets, count, aes_256);
                    }
                    if class == $vectors | EXACT {
                        return $short::<P, $packets, $vectors, true, false>(packets, count, aes_256);
                    }
                })*
                // SAFETY: as above.
                $(unsafe {
                    if class == $texts + 1 | EXACT | SAME {
                        return $short::<P, $alike, $texts, true, true>(packets, count, aes_256);
                    }
                })*
                // SAFETY: as above.
                $(unsafe {
                    if class == $step | LONG {
                        return $long::<P, $step>(packets, count, aes_256);
                    }
                })*
            })
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn $short<P: Packet, const S: usize, const W: usize, const EXACT: bool, const SAME: bool>(
            packets: *const *mut P,
            count: usize,
            aes_256: bool,
        ) {
            // SAFETY: as whoever calls says; this function has the features.
            unsafe { short::short::<$lanes, P, S, W, EXACT, SAME>(packets, count, aes_256) }
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn $single<P: Packet>(packets: *const *mut P, count: usize, aes_256: bool) {
            for at in 0..count {
                // SAFETY: as whoever calls says; this function has the features.
                unsafe {
                    if aes_256 {
                        single::single::<$lanes, P, 14>(*packets.add(at));
                    } else {
                        single::single::<$lanes, P, 10>(*packets.add(at));
                    }
                }
            }
        }

        #[allow(dead_code, reason = "the narrowest has none")]
        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn $long<P: Packet, const E: usize>(packets: *const *mut P, count: usize, aes_256: bool) {
            // SAFETY: as whoever calls says; this function has the features.
            unsafe { long::long::<$lanes, P, E>(packets, count, aes_256) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    seal_128,
    open_128,
    peek_128,
    all_128,
    short_128,
    long_128,
    single_128,
    One,
    "aes,pclmulqdq,sse4.1,ssse3,avx",
    short { 1: 4, 2: 4, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1 },
    same {},
    long {}
);
#[cfg(target_arch = "x86_64")]
kernel!(
    seal_256, open_256, peek_256, all_256, short_256, long_256, single_256, Two, "aes,pclmulqdq,sse4.1,ssse3,vaes,vpclmulqdq,avx2",
    short { 1: 4, 2: 4, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1 }, same {}, long { 2, 3, 4, 5, 6, 7 }
);
#[cfg(target_arch = "x86_64")]
kernel!(
    seal_512,
    open_512,
    peek_512,
    all_512,
    short_512,
    long_512,
    single_512,
    Four,
    "aes,pclmulqdq,sse4.1,ssse3,vaes,vpclmulqdq,avx2,avx512f,avx512bw,avx512dq,avx512vl,bmi2",
    short { 1: 4, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1, 12: 1 },
    same { 1: 4, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1 },
    long { 2, 3, 4, 5, 6, 7, 8, 9 }
);

/// Seals the packets that come first, as long as their keys are for `kernel`, or some of them. Answers how many: none for the portable
/// one only.
#[cfg(target_arch = "x86_64")]
pub(crate) fn seal_run(kernel: Kernel, ops: &mut [SealOp<'_>]) -> usize {
    // SAFETY: a key for a kernel is made only where its features were detected.
    unsafe {
        match kernel {
            Kernel::Portable => 0,
            Kernel::AesNi => seal_128(ops),
            Kernel::Avx2 => seal_256(ops),
            Kernel::Avx512 => seal_512(ops),
        }
    }
}

/// As [`seal_run`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn open_run(kernel: Kernel, ops: &mut [OpenOp<'_>]) -> usize {
    // SAFETY: as for sealing.
    unsafe {
        match kernel {
            Kernel::Portable => 0,
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
pub(crate) fn wide_key(head: Head, key: &[u8]) -> Option<WideKey> {
    // SAFETY: the features were just detected.
    Kernel::AesNi.is_here().then(|| unsafe { WideKey::new(head, key) })
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn peek<V: Lanes>(op: &mut PeekOp<'_>) {
    let len = op.cipher.len().min(op.out.len());
    let (from, to) = (op.cipher.as_ptr(), op.out.as_mut_ptr());
    // SAFETY: as this function's; both have `len` bytes.
    unsafe {
        gcm::stream::<V>(op.key, &op.nonce, op.block, from, to, len);
    }
}
