//! What nodes tell each other, from arbitrary bytes: refused, or a message that stays itself when it is sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| phalanx_fabric::decode_fuzz(data));
