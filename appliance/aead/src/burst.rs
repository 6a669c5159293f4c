//! A burst becomes lists of packets of one length class each, and each list goes to the kernel that is made for it.

use std::mem::MaybeUninit;

use crate::TAG_LEN;
use crate::key::NOBODY;
use crate::lanes::Lanes;
use crate::long::WIDE;
use crate::packet::{Packet, blocks};
use crate::short::MOST;

/// Packets that are sorted at a time.
const SORTED: usize = 64;
/// A list goes on to a multiple of this.
const GROUP: usize = 4;

/// Up to [`Lanes::MOST`] the vectors of a short packet.
pub(crate) type Class = u8;
/// A long packet, beside the vectors that its last step has.
pub(crate) const LONG: Class = 32;
/// Beside either: its key has 256 bits.
pub(crate) const AES_256: Class = 64;
/// Beside that of a short packet whose text fills all vectors but the last.
pub(crate) const EXACT: Class = 128;
/// Beside that: all are of one key and one length.
pub(crate) const SAME: Class = 16;
/// Of any length.
pub(crate) const SINGLE: Class = 0;

/// Blocks of text up to which the class is looked up: a multiple of what a wide step has, twice.
const LISTED: usize = 1024;

/// The class of a text by its blocks, for vectors of `b` blocks; of one that ends with a block, if that matters.
const fn classes(b: usize, most: usize) -> [Class; LISTED] {
    let mut classes = [0; LISTED];
    let mut blocks = 0;
    while blocks < LISTED {
        let vectors = blocks / b + 1;
        classes[blocks] = if vectors > most {
            long_class(b, (vectors - 2) % WIDE + 2)
        } else if blocks > 0 && blocks.is_multiple_of(b) {
            vectors as u8 | EXACT
        } else {
            vectors as u8
        };
        blocks += 1;
    }
    classes
}

/// Of a long packet whose last step has so many vectors.
const fn long_class(b: usize, last: usize) -> Class {
    // With 16 registers, one block a vector gains nothing by steps, and the widest last ones do not fit.
    if b == 1 || b == 2 && last >= 8 { SINGLE } else { LONG | last as u8 }
}

struct Classes<V>(std::marker::PhantomData<V>);
impl<V: Lanes> Classes<V> {
    const BY_BLOCKS: &'static [Class; LISTED] = &classes(V::BLOCKS, V::MOST);
}

/// The class is the same where it is long and a wide step more or less.
#[cold]
fn longer<V: Lanes>(blocks: usize) -> Class {
    Classes::<V>::BY_BLOCKS[LISTED / 2 + blocks % (LISTED / 2)]
}

#[inline(always)]
fn class<V: Lanes, P: Packet>(packet: &P) -> Class {
    let len = packet.len();
    let blocks = blocks(len);
    let class = if blocks < LISTED { Classes::<V>::BY_BLOCKS[blocks] } else { longer::<V>(blocks) };
    let exact = if len.is_multiple_of(16) { class } else { class & !EXACT };
    exact | if packet.key().aes_256() { AES_256 } else { 0 }
}

/// Bit n: byte n is this one.
#[inline(always)]
fn equal(bytes: &[u8; SORTED], byte: u8) -> u64 {
    use std::arch::x86_64::*;
    let mut all = 0;
    for part in (0..SORTED).step_by(16) {
        // SAFETY: SSE2 is there on every x86-64; 16 bytes are there.
        let same = unsafe {
            let these = _mm_loadu_si128(bytes.as_ptr().add(part).cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(these, _mm_set1_epi8(byte as i8)))
        };
        all |= u64::from(same as u32) << part;
    }
    all
}

/// Shows lists of packets of one class: `work` gets their class, where the list is, and how many it has. Behind them up to a
/// multiple of [`GROUP`] are packets that are nobody's, of the same class. Of the packets it takes those that come first, at most
/// [`SORTED`], as long as their keys are for one kernel; answers how many.
#[inline(always)]
pub(crate) fn sorted<V: Lanes, P: Packet>(
    packets: &mut [P],
    mut work: impl FnMut(Class, *const *mut P, usize),
) -> usize {
    let mut list = [const { MaybeUninit::<*mut P>::uninit() }; SORTED + GROUP];
    let Some((kernel, aes_256, len)) =
        packets.first().map(|packet| (packet.key().kernel(), packet.key().aes_256(), packet.len()))
    else {
        return 0;
    };
    // Most bursts have packets of one length.
    let mut alike = 0usize;
    for (place, packet) in list.iter_mut().zip(packets.iter_mut()).take(SORTED) {
        if packet.len() != len || packet.key().kernel() != kernel || packet.key().aes_256() != aes_256 {
            break;
        }
        place.write(packet);
        alike = alike.wrapping_add(1);
    }
    if alike == packets.len().min(SORTED) && alike > 2 {
        filled::<V, P>(&mut list, class::<V, P>(&packets[0]), alike, &mut work);
        return alike;
    }
    let mut classes = [0; SORTED];
    let (mut count, mut seen) = (0usize, 0u64);
    for (class_of, packet) in classes.iter_mut().zip(packets.iter()) {
        if packet.key().kernel() != kernel {
            break;
        }
        *class_of = class::<V, P>(packet);
        seen |= 1 << (*class_of % 64);
        count = count.wrapping_add(1);
    }
    let mut left = u64::MAX >> SORTED.wrapping_sub(count);
    // Of many lengths few have company: groups would cost more than they gain.
    let mut singles = if 4 * seen.count_ones() as usize > count { left } else { 0 };
    left &= !singles;
    let packets = packets.as_mut_ptr();
    while left != 0 {
        let class = classes[left.trailing_zeros() as usize % SORTED];
        let mut these = equal(&classes, class);
        these &= left;
        left &= !these;
        let but_one = these & these.wrapping_sub(1);
        if but_one & but_one.wrapping_sub(1) == 0 {
            // One or two do not make up for what a group costs.
            singles |= these;
            continue;
        }
        let mut count = 0;
        while these != 0 {
            list[count % SORTED].write(packets.wrapping_add(these.trailing_zeros() as usize));
            count = count.wrapping_add(1);
            these &= these.wrapping_sub(1);
        }
        filled::<V, P>(&mut list, class, count, &mut work);
    }
    while singles != 0 {
        let at = singles.trailing_zeros() as usize;
        list[0].write(packets.wrapping_add(at));
        work(SINGLE | classes[at % SORTED] & AES_256, list.as_ptr().cast(), 1);
        singles &= singles.wrapping_sub(1);
    }
    count
}

/// Works on a list whose last group is filled up.
#[inline(always)]
fn filled<V: Lanes, P: Packet>(
    list: &mut [MaybeUninit<*mut P>; SORTED + GROUP],
    class: Class,
    count: usize,
    work: &mut impl FnMut(Class, *const *mut P, usize),
) {
    let mut nobody = Nobody::new();
    if !count.is_multiple_of(GROUP) {
        let packet = nobody.packet::<V>(class);
        list[count..][..GROUP].fill(MaybeUninit::new(packet));
    }
    let same = V::ROOMY && class & EXACT != 0 && count > 2 && of_one_key(&list[..count]);
    work(if same { class | SAME } else { class }, list.as_ptr().cast(), count);
}

/// All these packets have one key.
#[inline(always)]
fn of_one_key<P: Packet>(list: &[MaybeUninit<*mut P>]) -> bool {
    // SAFETY: the list was written, with pointers to operations that nobody else has now.
    let mut keys = list.iter().map(|packet| unsafe { std::ptr::from_ref((*packet.assume_init().cast_const()).key()) });
    let first = keys.next();
    keys.all(|key| Some(key) == first)
}

/// A packet for the places that are left in a group: of no key, so that what comes out is no secret, unless all others have one key.
struct Nobody<P> {
    text: [MaybeUninit<u8>; 16 * 4 * MOST],
    tag: [u8; TAG_LEN],
    packet: MaybeUninit<P>,
}

impl<P: Packet> Nobody<P> {
    #[inline(always)]
    fn new() -> Nobody<P> {
        Nobody { text: [MaybeUninit::uninit(); 16 * 4 * MOST], tag: [0; TAG_LEN], packet: MaybeUninit::uninit() }
    }

    #[inline(always)]
    fn packet<V: Lanes>(&mut self, class: Class) -> *mut P {
        let vectors = usize::from(class & (LONG - 1)).wrapping_sub(1).min(MOST - 1);
        let len = vectors * V::BYTES;
        self.text[..len].fill(MaybeUninit::new(0));
        let packet = self.packet.as_mut_ptr();
        // SAFETY: text and tag are of this, and used until the list is worked through only.
        unsafe { P::nobody(packet, &NOBODY, self.text.as_mut_ptr().cast(), len, &raw mut self.tag) };
        packet
    }
}
