//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::broker::{Broker, parse_broker};
use crate::goals::Which;

/// The end of the `--help` text.
const EXAMPLES: &str = "\
Example: two brokers that the caller has started and pinned to core 0, load on core 1
  leveret-bench run 'throughput-*' latency-20k --load-core 1 \\
    --broker rabbitmq=amqp://127.0.0.1:5682,pid=1234 \\
    --broker leveret=amqp://127.0.0.1:5683,pid=1235 --out report

Start the brokers afresh: memory is compared with what they hold before the first run.
docs/BENCHMARKING.md says how to measure without fooling oneself. Exit codes: 0 measured, 1 not
measured or a run failed (a message lost, duplicated, reordered or changed), 2 wrong usage.";

/// Load tests of AMQP 0-9-1 brokers.
#[derive(Debug, Parser)]
#[command(name = "leveret-bench", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenarios against brokers, interleaved, and write JSON, Markdown and HTML
    Run(Plan),
    /// Name the scenarios that are built in
    List,
    /// Serve the floor: a bare relay that does the least work a broker could do
    #[command(name = "limit")]
    Floor(FloorArguments),
    /// Measure the load client's own ceiling against the floor, with both of its drivers
    Calibrate(Calibrate),
    /// Write Markdown and HTML of a results file again
    Report {
        /// A `results.json`
        results: PathBuf,
        /// Where the reports go
        #[arg(long, value_name = "DIR", default_value = "leveret-bench-report")]
        out: PathBuf,
    },
    /// Say what changed between two results files, and whether it is beyond the noise
    Compare {
        /// The `results.json` from before
        old: PathBuf,
        /// The one from after
        new: PathBuf,
        /// Exit with 1 when something became worse beyond the noise
        #[arg(long)]
        fail_on_worse: bool,
    },
    /// Say which goals are met, as a table in Markdown
    Goals(Goals),
    /// Draw a flame graph of what `perf script` printed
    Flamegraph {
        /// Output of `perf script`
        stacks: PathBuf,
        /// The SVG that is written
        svg: PathBuf,
        /// Its heading
        #[arg(long, default_value = "Flame graph")]
        title: String,
    },
}

/// What is measured, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// Scenarios by name or pattern, for example 'throughput-*' [default: all]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// A scenario file of your own; may be repeated
    #[arg(long = "scenario-file", value_name = "FILE")]
    pub(crate) scenario_files: Vec<PathBuf>,
    /// A broker, and its process where it is on this machine; may be repeated. The first one is
    /// what the others are compared with
    #[arg(long = "broker", value_name = "NAME=URI[,pid=PID]", required = true,
          value_parser = parse_broker)]
    pub(crate) brokers: Vec<Broker>,
    /// Runs of each scenario against each broker
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Measured seconds of a run, after the warm-up, where the scenario does not say
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Core of a load thread; may be repeated [default: one thread, not pinned]
    #[arg(long = "load-core", value_name = "N")]
    pub(crate) load_cores: Vec<usize>,
    /// Core of the floor [default: the first one that the first broker may use]
    #[arg(long, value_name = "N")]
    pub(crate) floor_core: Option<usize>,
    /// Do not measure the floor
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Count system calls in an extra run of each scenario (needs perf or strace)
    #[arg(long)]
    pub(crate) system_calls: bool,
    /// Put brokers under load that are not on a loopback address
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Where results and reports go
    #[arg(long, value_name = "DIR", default_value = "leveret-bench-report")]
    pub(crate) out: PathBuf,
}

/// What is judged, and where the table goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Goals {
    /// Files of results; where several have a scenario, the last one counts
    #[arg(value_name = "RESULTS", required_unless_present = "list")]
    pub(crate) results: Vec<PathBuf>,
    /// Which goals
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Which::Speed)]
    pub(crate) table: Which,
    /// Name the scenarios that the goals need, and do nothing else
    #[arg(long, conflicts_with = "results")]
    pub(crate) list: bool,
    /// The subject that is judged
    #[arg(long, value_name = "NAME", default_value = "leveret")]
    pub(crate) subject: String,
    /// The subject that it stands beside
    #[arg(long, value_name = "NAME", default_value = "rabbitmq")]
    pub(crate) beside: String,
    /// A page of which the table between two comment lines is replaced, instead of printing it
    #[arg(long, value_name = "PAGE")]
    pub(crate) into: Option<PathBuf>,
}

/// The floor as a process of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct FloorArguments {
    /// Where it listens; port 0 for a free one, which is printed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The core that it is pinned to [default: not pinned]
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
}

/// A measurement of the client.
#[derive(Debug, Clone, Args)]
pub(crate) struct Calibrate {
    /// Core of the load thread [default: not pinned]
    #[arg(long = "load-core", value_name = "N")]
    pub(crate) load_core: Option<usize>,
    /// Core of the floor [default: not pinned]
    #[arg(long, value_name = "N")]
    pub(crate) floor_core: Option<usize>,
    /// Interleaved runs of each kind
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Measured seconds of a run
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
}

/// Parses the command line. After `--help`, `--version` or a mistake it ends the process.
pub(crate) fn parse() -> Command {
    Cli::parse().command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, clap::Error> {
        let command = ["leveret-bench", "run", "--broker", "a=amqp://127.0.0.1:1,pid=1"];
        match Cli::try_parse_from(command.iter().chain(arguments))?.command {
            Command::Run(plan) => Ok(plan),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_but_the_broker_has_a_default() {
        let plan = plan(&["throughput-*", "--load-core", "1", "--load-core", "2"]).unwrap();
        assert_eq!((plan.runs, plan.seconds, plan.load_cores), (5, 2, vec![1, 2]));
        assert_eq!(plan.scenarios, ["throughput-*"]);
        assert!(Cli::try_parse_from(["leveret-bench", "run"]).is_err());
    }

    #[test]
    fn every_number_has_a_limit() {
        for option in ["--runs", "--seconds"] {
            assert!(plan(&[option, "0"]).is_err(), "{option} 0");
            assert!(plan(&[option, "4000000000"]).is_err(), "{option} 4000000000");
        }
    }
}
