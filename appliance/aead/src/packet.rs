//! A packet as the vector kernels see it, whether it is sealed or opened, and how a group of packets is finished together.

use std::arch::x86_64::*;

use crate::gcm::{self, Sum};
use crate::key::NOBODY;
use crate::lanes::{Lanes, One};
use crate::{Aad, Key, NONCE_LEN, OpenOp, SealOp, TAG_LEN};

/// An operation of either direction.
pub(crate) trait Packet {
    /// Ciphertext comes in.
    const OPEN: bool;
    /// Writes one whose results are nobody's, field by field: as a whole it would be copied, and wait for its parts.
    ///
    /// # Safety
    /// There is room for it; text and tag outlive it and are nobody else's.
    unsafe fn nobody(place: *mut Self, key: &'static Key, text: *mut u8, len: usize, tag: *mut [u8; TAG_LEN]);
    fn key(&self) -> &Key;
    fn nonce(&self) -> &[u8; NONCE_LEN];
    fn aad(&self) -> &Aad;
    /// # Safety
    /// The pointer is to an operation that is all the caller's.
    unsafe fn text(packet: *mut Self) -> *mut u8;
    fn len(&self) -> usize;
    /// The tags of a vector's packets were computed.
    ///
    /// # Safety
    /// Whoever calls has the features of `V` and pointers to operations that are all his.
    unsafe fn settle<V: Lanes>(packets: [*mut Self; 4], tags: V);
    /// The tag of one packet was computed.
    ///
    /// # Safety
    /// As for more.
    unsafe fn settle_one<V: Lanes>(packet: *mut Self, tag: __m128i);
}

/// What both operations have alike.
macro_rules! parts {
    () => {
        #[inline(always)]
        fn key(&self) -> &Key {
            self.key
        }
        #[inline(always)]
        fn nonce(&self) -> &[u8; NONCE_LEN] {
            &self.nonce
        }
        #[inline(always)]
        fn aad(&self) -> &Aad {
            &self.aad
        }
        #[inline(always)]
        unsafe fn text(packet: *mut Self) -> *mut u8 {
            // SAFETY: as the trait says.
            unsafe { (*packet).text.as_mut_ptr() }
        }
        #[inline(always)]
        fn len(&self) -> usize {
            self.text.len()
        }
    };
}

impl Packet for SealOp<'_> {
    const OPEN: bool = false;

    #[inline(always)]
    unsafe fn nobody(place: *mut Self, key: &'static Key, text: *mut u8, len: usize, tag: *mut [u8; TAG_LEN]) {
        // SAFETY: as the trait says.
        unsafe {
            (&raw mut (*place).key).write(key);
            (&raw mut (*place).nonce).write([0; NONCE_LEN]);
            (&raw mut (*place).aad).write(Aad::esp(0, 0, false));
            (&raw mut (*place).text).write(std::slice::from_raw_parts_mut(text, len));
            (&raw mut (*place).tag).write(&mut *tag);
        }
    }
    parts!();
    #[inline(always)]
    unsafe fn settle<V: Lanes>(packets: [*mut Self; 4], tags: V) {
        // SAFETY: as the trait says.
        unsafe {
            for (packet, tag) in packets.into_iter().zip(tags.each()).take(V::BLOCKS) {
                _mm_storeu_si128((*packet).tag.as_mut_ptr().cast(), tag);
            }
        }
    }
    #[inline(always)]
    unsafe fn settle_one<V: Lanes>(packet: *mut Self, tag: __m128i) {
        // SAFETY: as the trait says.
        unsafe { _mm_storeu_si128((*packet).tag.as_mut_ptr().cast(), tag) }
    }
}

impl Packet for OpenOp<'_> {
    const OPEN: bool = true;

    #[inline(always)]
    unsafe fn nobody(place: *mut Self, key: &'static Key, text: *mut u8, len: usize, tag: *mut [u8; TAG_LEN]) {
        // SAFETY: as the trait says.
        unsafe {
            (&raw mut (*place).key).write(key);
            (&raw mut (*place).nonce).write([0; NONCE_LEN]);
            (&raw mut (*place).aad).write(Aad::esp(0, 0, false));
            (&raw mut (*place).text).write(std::slice::from_raw_parts_mut(text, len));
            (&raw mut (*place).tag).write(&*tag);
            (&raw mut (*place).authentic).write(false);
        }
    }
    parts!();
    #[inline(always)]
    unsafe fn settle<V: Lanes>(packets: [*mut Self; 4], tags: V) {
        // SAFETY: as the trait says.
        unsafe {
            let mut expected = [_mm_setzero_si128(); 4];
            for (tag, packet) in expected.iter_mut().zip(packets).take(V::BLOCKS) {
                *tag = load((*packet).tag.as_ptr());
            }
            let same = tags.same(V::blocks(expected));
            for (n, packet) in packets.into_iter().enumerate().take(V::BLOCKS) {
                (*packet).authentic = same >> n & 1 == 1;
            }
            if same != (1 << V::BLOCKS) - 1 {
                for packet in packets.into_iter().take(V::BLOCKS) {
                    if !(*packet).authentic && !std::ptr::eq((*packet).key, &NOBODY) {
                        undo::<V>(packet);
                    }
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn settle_one<V: Lanes>(packet: *mut Self, tag: __m128i) {
        // SAFETY: as the trait says.
        unsafe {
            (*packet).authentic = One(tag).same(One(load((*packet).tag.as_ptr()))) == 1;
            if !(*packet).authentic {
                undo::<V>(packet);
            }
        }
    }
}

/// What was decrypted is nobody's to see: ciphertext again.
#[inline(always)]
unsafe fn undo<V: Lanes>(packet: *mut OpenOp<'_>) {
    // SAFETY: the caller's pointer is to an operation that is all his; features as for the kernel this is part of.
    unsafe {
        let packet = &mut *packet;
        let (key, text) = (packet.key, packet.text.as_mut_ptr());
        gcm::stream::<V>(key, &packet.nonce, 0, text, text, packet.text.len());
    }
}

/// Finishes as many packets as a vector has lanes: associated data, lengths, one reduction for all, and the blocks that mask the tags.
/// `SAME`: they are of one key and one length.
///
/// The associated data of packets with more than `chunk` blocks are in the sum already.
#[inline(always)]
pub(crate) unsafe fn finish<V: Lanes, P: Packet, const SAME: bool>(
    packets: [*mut P; 4],
    sums: [Sum<V>; 4],
    masks: V,
    chunk: usize,
) {
    // SAFETY: the caller's pointers are to operations; powers are blocks; features as for the kernel this is part of.
    unsafe {
        let zero = _mm_setzero_si128();
        let [mut aad, mut lengths, mut before, mut first] = [[zero; 4]; 4];
        for n in 0..V::BLOCKS {
            let packet = &*packets[n].cast_const();
            let (key, len) = (packet.key().wide(), packet.len());
            let bits = |bytes: usize| bytes.wrapping_mul(8) as i64;
            lengths[n] = _mm_set_epi64x(bits(packet.aad().len()), bits(len));
            first[n] = load(key.power(1));
            let blocks = blocks(len);
            let power = if blocks > chunk { ZERO.as_ptr() } else { key.power(blocks.wrapping_add(2)) };
            aad[n] = gcm::aad_block(packet.aad());
            before[n] = load(power);
        }
        let mut sum = Sum::of_each(sums);
        let [before, first] = [before, first].map(|powers| if SAME { V::every(powers[0]) } else { V::blocks(powers) });
        sum.add_two([V::blocks(aad).reverse(), V::blocks(lengths)], [before, first]);
        P::settle::<V>(packets, sum.reduce().reverse().xor(masks));
    }
}

static ZERO: [u8; 16] = [0; 16];

/// The same pointer, of which the compiler does not know that it is: or it would keep in registers what was read there.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // it is not followed
pub(crate) fn opaque(mut pointer: *mut u8) -> *mut u8 {
    // SAFETY: does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// Blocks of a text.
#[inline(always)]
pub(crate) const fn blocks(len: usize) -> usize {
    len.wrapping_add(15) / 16
}

#[inline(always)]
unsafe fn load(from: *const u8) -> __m128i {
    // SAFETY: the caller's pointer is to a block.
    unsafe { _mm_loadu_si128(from.cast()) }
}
