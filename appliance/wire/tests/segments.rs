//! Clamped segments: the rest of them stays as it was.

use phalanx_wire::tcp;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_clamped_segment_announces_the_least_and_keeps_its_checksum(
        filler in prop::collection::vec(any::<u8>(), 0..8), mss in any::<u16>(), most in any::<u16>(), data in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let [src, dst] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|octets: [u8; 4]| octets.into());
        // No-operations put the option at an even or odd offset.
        let mut options = vec![1; filler.len()];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        options.resize(options.len().next_multiple_of(4), 0);
        let mut segment = [&[0; 20][..], &options, &data].concat();
        segment[12] = ((20 + options.len()) / 4 * 16) as u8;
        segment[13] = 2;
        tcp::set_checksum(src, dst, &mut segment).unwrap();
        let before = segment.clone();
        prop_assert_eq!(tcp::clamp_mss(&mut segment, most), most < mss);
        prop_assert_eq!(tcp::mss(&segment), Some(mss.min(most)));
        prop_assert!(tcp::checksum_ok(src, dst, &segment));
        prop_assert_eq!(segment == before, mss <= most);
    }

    #[test]
    fn clamping_bytes_that_are_no_segment_does_nothing_bad(mut bytes in prop::collection::vec(any::<u8>(), 0..80), most in any::<u16>()) {
        let before = bytes.clone();
        let changed = tcp::clamp_mss(&mut bytes, most);
        prop_assert_eq!(changed, before != bytes || tcp::mss(&before).is_some_and(|mss| mss > most));
        prop_assert!(tcp::mss(&bytes).is_none_or(|mss| mss <= most));
    }
}
