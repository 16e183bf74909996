//! Fuzz targets: each takes any octets and panics when a property of the code does not hold.
//!
//! `fuzz_targets/` holds one line per target. They run on the stable toolchain:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir engine/fuzz decoder
//! ```
//!
//! The transcripts of `engine/amqp/tests/transcripts` are good first inputs for `decoder`.
//! `cargo test` in this folder feeds them, and what it makes of them, to all targets once.
#![forbid(unsafe_code)]

pub mod codec;
pub mod store;
