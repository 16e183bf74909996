//! The Leveret broker as a program: threads, configuration, signals, logs and metrics around the
//! pure shards of `leveret_broker`, driven by the rings of `leveret_ring`.
//!
//! ```text
//!  main ──── notices ◄──── signals
//!   │ spawns
//!   ├─► control      accepts and places connections, orders all changes of the topology
//!   ├─► shard 0 … n  one pinned thread each: ring ► shard ► ring, mail over the mesh
//!   └─► http         status, metrics, `leveret top`
//! ```
#![forbid(unsafe_code)]

mod banner;
mod check;
mod cli;
mod clock;
mod config;
mod cores;
mod failure;
mod host;
mod listeners;
mod log;
mod notice;
mod placement;
mod signal;
mod snapshot;
mod top;

use std::process::ExitCode;

use crate::cli::Command;
use crate::failure::Failure;

/// Does what the command line says and returns how it ended; errors go to stderr.
pub fn run() -> ExitCode {
    let done = match cli::parse() {
        Command::Serve(_arguments) => Ok(()),
        Command::Check(arguments) => return ExitCode::from(check::run(&arguments)),
        Command::Top(arguments) => top::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("leveret: {failure}");
    ExitCode::from(failure.exit_code())
}
