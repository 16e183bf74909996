//! The `leveret` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Faster than the system allocator both for many small blocks that stay on one thread and for
/// large ones.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: leveret_ring::HugePages<mimalloc::MiMalloc> =
    leveret_ring::HugePages(mimalloc::MiMalloc);

fn main() -> ExitCode {
    leveret_server::run()
}
