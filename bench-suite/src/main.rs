//! Load tests of AMQP 0-9-1 brokers: the same scenarios against several of them, interleaved run
//! by run, so that the ratio between them survives a noisy machine.
//!
//! `leveret-bench first` answers the first questions one has about a broker: messages per second
//! and per second of its own processor time, without and with acknowledgements, and the memory of
//! an idle connection and of a waiting message.
#![forbid(unsafe_code)]

mod batch;
mod broker;
mod cli;
mod client;
mod confirm_window;
mod deliveries;
mod fault;
mod first;
mod flow;
mod memory;
mod procfs;
mod publisher;
mod report;
mod scenario;
mod sequence;
mod statistics;
#[cfg(test)]
mod stub;

use std::process::ExitCode;

/// Exit code of a measurement that could not be made, or of which a run failed.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli::Command::First(plan) = cli::parse();
    match first::measure(&plan) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(if report.has_failed_runs() { FAILED } else { 0 })
        }
        Err(fault) => {
            eprintln!("leveret-bench: {fault}");
            ExitCode::from(FAILED)
        }
    }
}
