//! intel-ipsec-mb as a contestant; `ipsec_mb.c` has the loops.

use std::ffi::c_int;
use std::ptr::NonNull;

use arrayvec::ArrayVec;
use phalanx_aead::{Algorithm, BURST, Kernel};

use super::{Bed, Cipher, IPSEC_MB, PEEK, Packet, Wanted, clock};

#[repr(C)]
struct Manager([u8; 0]);
#[repr(C)]
struct ExpandedKey([u8; 0]);

#[repr(C)]
struct PeerOp {
    key: *const ExpandedKey,
    nonce: *const u8,
    aad: *const u8,
    text: *mut u8,
    len: u64,
    tag: *mut u8,
}

unsafe extern "C" {
    fn peer_manager(vectors: c_int) -> *mut Manager;
    fn peer_key(manager: *mut Manager, key: *const u8, bits: c_int) -> *mut ExpandedKey;
    fn peer_seal(manager: *mut Manager, bits: c_int, ops: *const PeerOp, n: usize);
    fn peer_open(manager: *mut Manager, bits: c_int, ops: *const PeerOp, n: usize) -> usize;
    fn peer_peek(manager: *mut Manager, bits: c_int, ops: *const PeerOp, n: usize);
}

/// Lives as long as the program: nothing is freed.
pub struct IpsecMb {
    manager: NonNull<Manager>,
    bits: c_int,
    keys: Vec<NonNull<ExpandedKey>>,
}

impl IpsecMb {
    pub fn new(bed: &Bed) -> IpsecMb {
        let bits = if bed.algorithm == Algorithm::Aes128Gcm16 { 128 } else { 256 };
        let vectors = match bed.kernel {
            Kernel::Avx512 | Kernel::Portable => 0,
            Kernel::Avx2 => 2,
            Kernel::AesNi => 1,
        };
        // SAFETY: takes a number, gives a manager or null.
        let manager = NonNull::new(unsafe { peer_manager(vectors) }).expect("intel-ipsec-mb has no memory");
        let expand = |key: &Vec<u8>| {
            assert_eq!(key.len() * 8, bits as usize);
            // SAFETY: the manager is initialised, the key has as many bytes as `bits` says.
            NonNull::new(unsafe { peer_key(manager.as_ptr(), key.as_ptr(), bits) }).expect("no memory for a key")
        };
        IpsecMb { manager, bits, keys: bed.keys.iter().map(expand).collect() }
    }

    fn ops(&self, bed: &mut Bed, most: usize) -> ArrayVec<PeerOp, BURST> {
        let keys = self.keys.iter().cycle().skip(bed.first);
        let packets = bed.packets.iter_mut().zip(keys);
        let op = |(packet, key): (&mut Packet, &NonNull<ExpandedKey>)| PeerOp {
            key: key.as_ptr(),
            nonce: packet.nonce.as_ptr(),
            aad: packet.aad.as_ptr(),
            text: packet.text.as_mut_ptr(),
            len: packet.text.len().min(most) as u64,
            tag: packet.tag.as_mut_ptr(),
        };
        packets.map(op).collect()
    }
}

impl Cipher for IpsecMb {
    fn name(&self, wanted: Wanted) -> &'static str {
        match wanted {
            Wanted::Peek => "intel-ipsec-mb, same bytes",
            _ => IPSEC_MB,
        }
    }

    fn seal(&mut self, bed: &mut Bed) -> f64 {
        let ops = self.ops(bed, usize::MAX);
        // SAFETY: each operation points into a packet of the bed, which is borrowed until the call is over; nonce 12,
        // aad 8, tag 16 bytes, text as long as it says.
        clock(|| unsafe { peer_seal(self.manager.as_ptr(), self.bits, ops.as_ptr(), ops.len()) })
    }

    fn open(&mut self, bed: &mut Bed) -> (f64, usize) {
        let ops = self.ops(bed, usize::MAX);
        let mut authentic = 0;
        // SAFETY: as in `seal`.
        let ns = clock(|| authentic = unsafe { peer_open(self.manager.as_ptr(), self.bits, ops.as_ptr(), ops.len()) });
        (ns, authentic)
    }

    fn peek(&mut self, bed: &mut Bed) -> f64 {
        let ops = self.ops(bed, PEEK);
        // SAFETY: as in `seal`; the text's length is bounded by its memory.
        clock(|| unsafe { peer_peek(self.manager.as_ptr(), self.bits, ops.as_ptr(), ops.len()) })
    }
}
