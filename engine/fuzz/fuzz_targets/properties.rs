//! Content headers: see [`codec::properties`].
#![no_main]

use leveret_fuzz::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| codec::properties(input));
