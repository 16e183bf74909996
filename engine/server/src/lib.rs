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
mod board;
mod boot;
mod check;
mod cli;
mod clock;
mod config;
mod control;
mod cores;
mod driver;
mod failure;
mod host;
mod http;
mod listeners;
mod log;
mod metrics;
mod notice;
mod pages;
mod placement;
mod shared;
mod signal;
mod snapshot;
mod thread;
mod top;

use std::process::ExitCode;

use crate::cli::Command;
use crate::failure::Failure;

/// Does what the command line says and returns how it ended; errors go to stderr.
pub fn run() -> ExitCode {
    let done = match cli::parse() {
        Command::Serve(arguments) => boot::serve(&arguments),
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
