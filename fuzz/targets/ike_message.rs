//! IKE messages from arbitrary bytes: refused, or parts that stay what they are when they are written again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| phalanx_ike::parse_fuzz(data));
