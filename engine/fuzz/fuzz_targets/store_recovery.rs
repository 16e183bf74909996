//! Reading a log back: see [`store::recovery`].
#![no_main]

use leveret_fuzz::store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| store::recovery(input));
