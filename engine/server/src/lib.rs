//! The Leveret broker as a program: threads, configuration, signals, logs and metrics around the
//! pure shards of `leveret_broker`, driven by the rings of `leveret_ring`.
//!
//! ```text
//!  main ◄──── ThreadEvents of all others: ready, stopped, failed, a signal came
//!   │ spawns
//!   ├─► signals      waits for SIGTERM and SIGINT
//!   ├─► shard 0 … n  one pinned thread each: ring ► shard ► ring, mail over the mesh;
//!   │                shard 0 also accepts all AMQP connections and spreads them over the shards
//!   ├─► control      orders all changes of the topology
//!   ├─► metadata     commits the durable ones of these changes to metadata.redb
//!   ├─► files        lays out, opens and removes the segment files of the shards' logs
//!   ├─► monitor      memory and disk space, alarms
//!   └─► http         status, metrics, the data of `leveret top`
//! ```
#![forbid(unsafe_code)]

mod boot;
mod clock;
mod config;
mod data;
mod fail_point;
mod failure;
mod host;
mod http;
mod listeners;
mod log;
mod shard;
mod shared_state;
mod thread;
mod watch;

use std::process::ExitCode;

use crate::boot::cli::Command;
use crate::failure::Failure;

/// Runs the command that the command line names and returns the exit code; errors go to stderr.
pub fn run() -> ExitCode {
    let done = match boot::cli::parse() {
        Command::Serve(arguments) => boot::serve(&arguments),
        Command::Check(arguments) => return ExitCode::from(boot::check::run(&arguments)),
        Command::Dump(arguments) => data::store::dump::run(&arguments),
        Command::Top(arguments) => http::top::run(&arguments),
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
