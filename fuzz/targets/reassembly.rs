//! Fragments as they like: nothing panics, no limit is passed, no buffer is lost, and what comes out is a whole packet.
#![no_main]

mod mend;

use libfuzzer_sys::fuzz_target;
use mend::mend;
use phalanx_wire::fragment::Cut;
use phalanx_wire::{Buffer, IpHeader, Reassembly, ReassemblyLimits, VecBuffer};

const LIMITS: ReassemblyLimits = ReassemblyLimits {
    timeout_ms: 100,
    datagrams: 4,
    datagrams_per_source: 3,
    bytes_per_source: 4000,
    fragments: 6,
    size: 3000,
};

fuzz_target!(|data: &[u8]| {
    let mut table = Reassembly::new(LIMITS);
    let (mut now, mut held, mut rest) = (0, 0usize, data);
    // Fragments, each behind its length in eights, and a byte for the time that passes.
    while let Some(([len, wait], tail)) = rest.split_first_chunk::<2>() {
        let (packet, tail) = tail.split_at(tail.len().min(usize::from(*len) * 8));
        rest = tail;
        now += u64::from(*wait);
        let packet = mend(packet);
        let Ok(ip) = IpHeader::parse(&packet) else { continue };
        recut(&packet, &ip, usize::from(*wait) * 8);
        if ip.fragment.is_none() {
            continue;
        }
        let buffer = VecBuffer::from_slice(0, &packet[..ip.total_len], 0);
        let mut dropped = 0;
        let large = |_: &VecBuffer, len: usize| Some(VecBuffer::with_room(0, len));
        let whole = table.add(buffer, &ip, now, large, |_, _| dropped += 1);
        held = held + 1 - dropped;
        if let Some(whole) = whole {
            let parsed = IpHeader::parse_prefix(whole.bytes());
            assert!(
                whole.bytes().len() <= LIMITS.size && parsed.is_ok_and(|ip| ip.fragment.is_none()) || ip.version == 6
            );
            held = table.fragments();
        }
        assert_eq!(table.fragments(), held);
        assert!(held <= LIMITS.datagrams * LIMITS.fragments && table.datagrams() <= LIMITS.datagrams);
    }
    table.tend(now + LIMITS.timeout_ms, usize::MAX, |_, _| held -= 1);
    assert_eq!((held, table.datagrams(), table.fragments()), (0, 0, 0));
});

/// Cutting a packet loses none of its data.
fn recut(packet: &[u8], ip: &IpHeader, mtu: usize) {
    let Ok(cut) = Cut::new(packet, ip, mtu, 1) else { return };
    let mut data = 0;
    for n in 0..cut.count() {
        let mut out = vec![0; cut.len_of(n)];
        if cut.write(packet, n, &mut out).is_err() {
            return; // past the longest packet
        }
        assert!(out.len() <= mtu);
        let Ok(piece) = IpHeader::parse_prefix(&out) else { return };
        assert!(piece.fragment.is_some() || cut.count() == 1);
        data += piece.upper_len();
    }
    assert!(data >= ip.upper_len());
}
