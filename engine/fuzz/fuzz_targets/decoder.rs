//! The frame decoder: see [`codec::decoder`].
#![no_main]

use leveret_fuzz::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| codec::decoder(input));
