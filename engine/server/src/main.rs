//! The `leveret` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Faster than the system's for many small pieces that live on one thread.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    leveret_server::run()
}
