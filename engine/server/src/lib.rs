//! The Leveret broker as a program: threads, configuration, signals, logs and metrics around the
//! pure shards of `leveret_broker`, driven by the rings of `leveret_ring`.
//!
//! ```text
//!  main ──── notices ◄──── signals
//!   │ spawns
//!   ├─► control      accepts and places connections, orders all changes of the topology
//!   ├─► files        makes, opens and removes the segments of the shards' logs
//!   ├─► metadata     stores what the control state decides about durable objects
//!   ├─► shard 0 … n  one pinned thread each: ring ► shard ► ring, mail over the mesh
//!   ├─► monitor      memory and disk space, alarms
//!   └─► http         status, metrics, `leveret top`
//! ```
#![forbid(unsafe_code)]

mod acceptor;
mod arrivals;
mod banner;
mod board;
mod boot;
mod check;
mod cli;
mod clock;
mod config;
mod control;
mod cores;
mod disk;
mod driver;
mod fail_point;
mod failure;
mod host;
mod http;
mod listeners;
mod log;
mod memory;
mod metadata;
mod metrics;
mod monitor;
mod notice;
mod pages;
mod placement;
mod polling;
mod recover;
mod resources;
mod shared;
mod signal;
mod snapshot;
mod store;
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
        Command::Dump(arguments) => store::dump::run(&arguments),
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
