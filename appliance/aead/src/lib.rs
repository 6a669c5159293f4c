//! The ciphers of ESP over a burst of packets: AES-GCM as RFC 4106 uses it by kernels of our own, the others by libraries.
//!
//! The interface is the one a vectorised kernel wants: arrays of independent operations, each with its own key, nonce
//! and text in place. Behind it stands a [`Kernel`] for what the processor has; all of them give the same bytes as the portable one,
//! which is the `aes-gcm` crate. The other algorithms ([`Algorithm`]) have the portable kernel only: their packets are none of the
//! vector kernels', which see runs of packets of one kernel.
//!
//! * [`seal_burst`]: plaintext becomes ciphertext in place, the tag is written apart from it.
//! * [`open_burst`]: ciphertext becomes plaintext where the tag is right; where it is not, no plaintext is left.
//! * [`peek_burst`]: *unauthenticated* plaintext of a part of a packet, for the router that must see a TCP header.
//!
//! What encrypts nothing (AH) has an [`IntegrityKey`] instead, which is fed in pieces.
//!
//! [`prefetch`] is for whoever goes through a burst of SAs. It and the kernels are the only unsafe code here.
//!
//! Nonces are the caller's duty: this crate cannot know that a nonce is new (I1 is kept in `phalanx-ipsec`).

#![deny(unsafe_code)]
#![deny(missing_docs)]

mod algorithm;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions: see `kernel` for when they may run
mod burst;
mod chacha;
mod etm;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod gcm;
mod integrity;
#[allow(unsafe_code)] // enters the kernels
mod kernel;
mod key;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod lanes;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod long;
mod ops;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod packet;
mod portable;
pub mod prefetch;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod short;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod single;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // vector instructions
mod wide;

pub use algorithm::{Algorithm, MAX_MATERIAL};
pub use integrity::{Hash, Icv, IntegrityKey, Mac};
pub use kernel::{Kernel, KernelError};
pub use key::{AeadError, Key};
pub use ops::{Aad, BURST, OpenOp, PeekOp, SealOp, open_burst, peek_burst, seal_burst};

/// Bytes of a nonce: salt (4) and explicit IV (8). RFC 4106 §4.
pub const NONCE_LEN: usize = 12;

/// Bytes of the salt that follows the key in keying material. RFC 4106 §8.1.
pub const SALT_LEN: usize = 4;

/// Bytes of a tag: the ICV of AEADs, of which we offer no shorter (RFC 4106 §6), and the end of any other.
pub const TAG_LEN: usize = 16;

/// Bytes of the explicit IV in each packet of AES-GCM and its like. RFC 4106 §3.1.
pub const IV_LEN: usize = 8;
