//! Long packets, in steps of `W` vectors: AES of one step beside the hash of another, the head of a packet beside the tail of the one
//! before it.

use std::arch::x86_64::*;

use crate::gcm::{self, Sum};
use crate::lanes::Lanes;
use crate::packet::{Packet, blocks, finish, opaque};
use crate::wide::{POWERS, WideKey, last_round};

/// A packet on its way through AES.
struct Cipher<'k, V> {
    key: &'k WideKey,
    stream: Stream<V>,
    text: *mut u8,
    left: usize,
}

/// A packet on its way through GHASH.
struct Hash<'k, V> {
    key: &'k WideKey,
    text: *const u8,
    left: usize,
    /// Of the next block.
    power: *const u8,
    /// Steps until what is summed up is reduced; none when there is no such end before the packet's.
    until: usize,
    /// Associated data until they are in a sum; reversed.
    aad: Option<__m128i>,
    /// What was hashed before, to be added to the next block; reversed.
    carry: __m128i,
    sum: Sum<V>,
}

/// Vectors of a step: a power of two, and so are its blocks, see [`Stream`].
pub(crate) const WIDE: usize = 8;

/// What a packet's counter blocks have in common. Steps begin at counter 2, so that the low bits of a block's counter are the same in
/// each step, and are a constant; the high bits are those of the step, or of the next one for the last two blocks.
struct Stream<V> {
    /// Nonce and first round key.
    base: V,
    /// The same with the counter that a step begins with less 2.
    now: V,
    next: V,
    /// Of the next step.
    counter: V,
}

#[repr(align(64))]
struct Low([u8; 16 * 4 * (WIDE + 1)]);

/// Low bits of the counters of a step of `blocks` blocks, and some more for the last one.
const fn low(blocks: usize) -> Low {
    let mut low = [0; 16 * 4 * (WIDE + 1)];
    let mut block = 0;
    while block < 4 * (WIDE + 1) {
        low[16 * block + 15] = ((block + 2) % blocks) as u8;
        block += 1;
    }
    Low(low)
}

impl<V: Lanes> Stream<V> {
    const BLOCKS: usize = WIDE * V::BLOCKS;
    const LOW: &'static Low = &low(Self::BLOCKS);

    #[inline(always)]
    unsafe fn new(key: &WideKey, nonce: __m128i) -> Stream<V> {
        // SAFETY: features as for the kernel this is part of.
        unsafe {
            let base = V::every(nonce).xor(key.round(0));
            // A counter stands first in the reversed block, last in the block.
            let counter = V::every(_mm_set_epi32(0, 0, 0, Self::BLOCKS as i32));
            Stream { base, now: base, next: base.xor(counter.reverse()), counter }
        }
    }

    /// The first counter blocks of a step with the first round key.
    #[inline(always)]
    unsafe fn step<const N: usize>(&mut self, states: &mut [V; N]) {
        for (w, state) in states.iter_mut().enumerate() {
            let first = w * V::BLOCKS + 2;
            // SAFETY: the table has as many blocks as a step; features as for the kernel this is part of.
            unsafe {
                let high = if first + V::BLOCKS <= Self::BLOCKS {
                    self.now
                } else if first >= Self::BLOCKS {
                    self.next
                } else {
                    self.now.with_upper(self.next)
                };
                *state = high.xor(V::load(Self::LOW.0.as_ptr().add(w * V::BYTES)));
            }
        }
        // SAFETY: as above.
        unsafe {
            self.counter = self.counter.advance(Self::BLOCKS as u32);
            self.now = self.next;
            self.next = self.base.xor(self.counter.reverse());
        }
    }
}

impl<'k, V: Lanes> Cipher<'k, V> {
    #[inline(always)]
    unsafe fn new<P: Packet + 'k>(packet: *mut P) -> Cipher<'k, V> {
        // SAFETY: the caller's pointer is to an operation, whose key outlives the call; features as for the kernel this is part of.
        unsafe {
            let this = &*packet.cast_const();
            let key = this.key().wide();
            let stream = Stream::new(key, gcm::nonce_block(this.nonce()));
            Cipher { key, stream, left: this.len(), text: P::text(packet) }
        }
    }
}

impl<'k, V: Lanes> Hash<'k, V> {
    #[inline(always)]
    unsafe fn new<P: Packet + 'k>(packet: *mut P) -> Hash<'k, V> {
        // SAFETY: as for the cipher.
        unsafe {
            let this = &*packet.cast_const();
            let zero = _mm_setzero_si128();
            let aad = crate::lanes::One(gcm::aad_block(this.aad())).reverse().0;
            let (key, left, text) = (this.key().wide(), this.len(), P::text(packet));
            let mut hash =
                Hash { key, text, left, power: text, until: 0, aad: Some(aad), carry: zero, sum: Sum::new() };
            hash.begin();
            hash
        }
    }

    /// A chunk begins.
    #[inline(always)]
    unsafe fn begin(&mut self) {
        let left = blocks(self.left);
        let chunk = chunk::<V>();
        let goes_on = left > whole::<V>();
        self.power = self.key.power(if goes_on { chunk } else { left.wrapping_add(1) });
        self.until = if goes_on { chunk / (WIDE * V::BLOCKS) } else { 0 };
    }

    /// A step ends.
    #[inline(always)]
    unsafe fn end(&mut self) {
        self.text = self.text.wrapping_add(WIDE * V::BYTES);
        self.power = self.power.wrapping_add(WIDE * V::BYTES);
        self.left = self.left.wrapping_sub(WIDE * V::BYTES);
        // SAFETY: features as for the kernel this is part of.
        self.carry = unsafe { _mm_setzero_si128() };
        if self.until > 0 {
            self.until = self.until.wrapping_sub(1);
            if self.until == 0 {
                // SAFETY: a power is a block; features as for the kernel this is part of.
                unsafe {
                    if let Some(aad) = self.aad.take() {
                        self.sum.add_block(aad, self.key.power(chunk::<V>() + 1));
                    }
                    self.carry = self.sum.total();
                    self.sum = Sum::new();
                    self.begin();
                }
            }
        }
    }
}

/// Blocks between two reductions.
const fn chunk<V: Lanes>() -> usize {
    64 / (WIDE * V::BLOCKS) * (WIDE * V::BLOCKS)
}

/// The most blocks that are not a chunk and something more: a chunk less a wide step, and the longest last step.
const fn whole<V: Lanes>() -> usize {
    chunk::<V>() + V::BLOCKS - 1
}

const _: () = assert!(whole::<crate::lanes::Four>() + 2 <= POWERS);

/// Bytes of text in a vector, where so many are left in a step.
#[inline(always)]
fn part<V: Lanes>(left: usize, w: usize) -> usize {
    left.saturating_sub(w * V::BYTES).min(V::BYTES)
}

/// One step: `A` vectors through AES and `H` through GHASH, each either [`WIDE`], or what is left of a packet if `AES_END` or
/// `HASH_END` say so. What went through AES; when sealing, it is the `done` of the step that hashes it.
#[inline(always)]
unsafe fn step<V: Lanes, P: Packet, const A: usize, const AES_END: bool, const H: usize, const HASH_END: bool>(
    aes: &mut Cipher<'_, V>,
    hash: &mut Hash<'_, V>,
    done: &[V; H],
    aes_256: bool,
) -> [V; A] {
    // SAFETY: both have so much text left; features as for the kernel this is part of.
    unsafe {
        let mut states = [V::zero(); A];
        if A > 0 {
            aes.stream.step(&mut states);
        }
        if AES_END {
            let one = V::every(_mm_set_epi32(1 << 24, 0, 0, 0));
            states[A - 1] = states[A - 1].with_last(aes.stream.base.xor(one));
        }
        macro_rules! round {
            ($($round:literal)*) => { $({
                if A > 0 {
                    let key = aes.key.round::<V>($round);
                    for state in &mut states {
                        *state = state.aes(key);
                    }
                }
                let pairs = H.div_ceil(2);
                for pair in pairs * ($round - 1) / 9..pairs * $round / 9 {
                    let mut texts = [V::zero(); 2];
                    let mut powers = [V::zero(); 2];
                    for n in 0..2.min(H - 2 * pair) {
                        // The first vector comes last: what was carried to it may take its time.
                        let w = (2 * pair + n + 1) % H;
                        powers[n] = V::load(hash.power.wrapping_add(w * V::BYTES));
                        let from = hash.text.wrapping_add(w * V::BYTES);
                        let end = HASH_END && w + 2 >= H;
                        let text = match (P::OPEN || !V::ROOMY, end) {
                            (true, true) => V::load_part(from, part::<V>(hash.left, w)),
                            (true, false) => V::load(from),
                            (false, true) => done[w].part(part::<V>(hash.left, w)),
                            (false, false) => done[w],
                        };
                        texts[n] = text.reverse();
                        if w == 0 {
                            texts[n] = texts[n].xor(V::first(hash.carry));
                        }
                    }
                    if H - 2 * pair > 1 {
                        hash.sum.add_two(texts, powers);
                    } else {
                        hash.sum.add(texts[0], powers[0]);
                    }
                    hash.sum.pin();
                }
                if A > 0 {
                    for state in &mut states {
                        *state = state.pin();
                    }
                }
            })* };
        }
        round!(1 2 3 4 5 6 7 8 9);
        if A > 0 && aes_256 {
            for round in 10..14 {
                let key = aes.key.round::<V>(round);
                for state in &mut states {
                    *state = state.aes(key);
                }
            }
        }
        if A > 0 {
            let key = aes.key.round::<V>(last_round(aes_256));
            let text = opaque(aes.text);
            for (w, state) in states.iter_mut().enumerate() {
                let place = text.wrapping_add(w * V::BYTES);
                if AES_END && w + 2 >= A {
                    let len = part::<V>(aes.left, w);
                    *state = state.aes_last(key.xor(V::load_part(place, len)));
                    state.store_part(place, len);
                } else {
                    *state = state.aes_last(key.xor(V::load(place)));
                    state.store(place);
                }
            }
            aes.text = aes.text.wrapping_add(A * V::BYTES);
            aes.left = aes.left.wrapping_sub(A * V::BYTES);
        }
        if H > 0 && !HASH_END {
            hash.end();
        }
        states
    }
}

/// Packets whose sums wait for others: as many as a vector has lanes are finished together.
struct Group<V, P> {
    packets: *const *mut P,
    count: usize,
    sums: [Sum<V>; 4],
    lasts: [V; 4],
}

impl<V: Lanes, P: Packet> Group<V, P> {
    /// A packet is hashed.
    #[inline(always)]
    unsafe fn settle(&mut self, at: usize, last: V, sum: Sum<V>) {
        self.sums[at % V::BLOCKS] = sum;
        self.lasts[at % V::BLOCKS] = last;
        let next = at.wrapping_add(1);
        if next.is_multiple_of(V::BLOCKS) || next == self.count {
            // SAFETY: the list goes on to a multiple of a group; features as for the kernel this is part of.
            unsafe {
                let group = self.packets.add(at / V::BLOCKS * V::BLOCKS);
                let mut packets = [*group; 4];
                for (n, packet) in packets.iter_mut().enumerate().take(V::BLOCKS) {
                    *packet = *group.add(n);
                }
                finish::<V, P, false>(packets, self.sums, V::lasts(self.lasts), whole::<V>());
            }
        }
    }
}

/// Seals or opens `count` packets, each of at least one step of [`WIDE`] vectors and then `E` more, of which the last has the block
/// that masks the tag in its last lane, and the last two may not be full: so 2 to `WIDE` + 1. The list goes on behind them up to a multiple of 4, with packets that may be worked on too.
#[inline(always)]
pub(crate) unsafe fn long<V: Lanes, P: Packet, const E: usize>(packets: *const *mut P, count: usize, aes_256: bool) {
    // SAFETY: the list is as long as said above; features as for the kernel this is part of.
    unsafe {
        let mut group = Group { packets, count, sums: [Sum::<V>::new(); 4], lasts: [V::zero(); 4] };
        let mut packet = *packets;
        let mut cipher = Cipher::<V>::new(packet);
        let mut hash = Hash::<V>::new(packet);
        let (none, nothing) = ([V::zero(); WIDE], [V::zero(); E]);
        if P::OPEN {
            for at in 0..count {
                packet = *packets.add(at);
                (cipher, hash) = (Cipher::new(packet), Hash::new(packet));
                for _ in 0..wide::<V, P>(packet) {
                    step::<V, P, WIDE, false, WIDE, false>(&mut cipher, &mut hash, &none, aes_256);
                }
                let last = step::<V, P, E, true, E, true>(&mut cipher, &mut hash, &nothing, aes_256);
                group.settle(at, last[E - 1], hash.sum);
            }
            return;
        }
        let mut done = step::<V, P, WIDE, false, 0, false>(&mut cipher, &mut hash, &[], aes_256);
        for at in 0..count {
            for _ in 1..wide::<V, P>(packet) {
                done = step::<V, P, WIDE, false, WIDE, false>(&mut cipher, &mut hash, &done, aes_256);
            }
            let last = step::<V, P, E, true, WIDE, false>(&mut cipher, &mut hash, &done, aes_256);
            if at.wrapping_add(1) < count {
                packet = *packets.add(at).add(1);
                cipher = Cipher::new(packet);
                done = step::<V, P, WIDE, false, E, true>(&mut cipher, &mut hash, &last, aes_256);
            } else {
                step::<V, P, 0, false, E, true>(&mut cipher, &mut hash, &last, aes_256);
            }
            group.settle(at, last[E - 1], hash.sum);
            hash = Hash::new(packet);
        }
    }
}

/// How many wide steps it takes.
#[inline(always)]
unsafe fn wide<V: Lanes, P: Packet>(packet: *mut P) -> usize {
    // SAFETY: the caller's pointer is to an operation.
    let len = unsafe { (*packet.cast_const()).len() };
    (blocks(len) / V::BLOCKS).wrapping_sub(1) / WIDE
}
