//! Load tests of AMQP 0-9-1 brokers: the same scenarios against several brokers, interleaved run by
//! run, so that the ratio between them is valid even on a noisy machine.
//!
//! `scenario` defines the question, `measurement` the order of runs, `run` how one run is made,
//! `results` the data, and `report` the presentation. Connections under load are values (`load`),
//! and a `driver` moves their octets; `machine` watches processors and memory; `floor` is the least
//! that a broker could do.
#![forbid(unsafe_code)]

mod broker;
mod calibrate;
mod catalogue;
mod cli;
mod client;
mod compare;
mod driver;
mod fault;
mod flamegraph;
mod floor;
mod goals;
mod live;
mod load;
mod machine;
mod measurement;
mod report;
mod results;
mod run;
mod scenario;
mod statistics;
mod topology;

use std::process::ExitCode;

use crate::cli::{Command, Plan};
use crate::fault::Fault;

/// The exit code if a measurement cannot be made or a run failed.
const FAILED: u8 = 1;

/// The exit code for wrong usage, as in clap.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    match obey(cli::parse()) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("leveret-bench: {fault}");
            ExitCode::from(if matches!(fault, Fault::Usage(_)) { WRONG_USAGE } else { FAILED })
        }
    }
}

fn obey(command: Command) -> Result<ExitCode, Fault> {
    match command {
        Command::Run(plan) => return measure(&plan),
        Command::List => list()?,
        Command::Floor(arguments) => floor::process::serve(&arguments)?,
        Command::Calibrate(options) => print!("{}", calibrate::calibrate(&options)?),
        Command::Report { results, out } => {
            let written = report::write(&report::read(&results)?, &out)?;
            announce(&written);
        }
        Command::Compare { old, new, fail_on_worse } => {
            let comparison = compare::compare(&report::read(&old)?, &report::read(&new)?);
            println!("{comparison}");
            if fail_on_worse && comparison.is_worse() {
                return Ok(ExitCode::from(FAILED));
            }
        }
        Command::Goals(options) => goals(&options)?,
        Command::Flamegraph { stacks, svg, title } => flamegraph::write(&stacks, &svg, &title)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(plan: &Plan) -> Result<ExitCode, Fault> {
    let (results, written) = measurement::measure(plan)?;
    println!("{}", report::markdown::markdown(&results));
    announce(&written);
    let mut runs = results.scenarios.iter().flat_map(|scenario| &scenario.runs);
    Ok(ExitCode::from(if runs.any(|run| run.fault.is_some()) { FAILED } else { 0 }))
}

fn announce(written: &report::Written) {
    for path in [&written.results, &written.markdown, &written.html] {
        println!("wrote {}", path.display());
    }
}

fn goals(options: &cli::Goals) -> Result<(), Fault> {
    if options.list {
        goals::scenarios(options.table)?.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let read = options.results.iter().map(|path| report::read(path));
    let subjects = goals::Subjects { ours: &options.subject, rival: &options.beside };
    let table = goals::table(options.table, &read.collect::<Result<Vec<_>, _>>()?, subjects)?;
    match &options.into {
        Some(page) => goals::insert(options.table, page, &table),
        None => {
            print!("{table}");
            Ok(())
        }
    }
}

fn list() -> Result<(), Fault> {
    for entry in catalogue::choose(&[])? {
        println!(
            "{:<20} {}\n{:<20}   {}",
            entry.name, entry.scenario.title, "", entry.scenario.question
        );
    }
    Ok(())
}
