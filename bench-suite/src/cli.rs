//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::broker::{Broker, parse_broker};
use crate::scenario::Scenario;

/// What `--help` says at its end.
const EXAMPLES: &str = "\
Example: two brokers that the caller has started and pinned to core 0, load on core 1
  leveret-bench first --core 1 \\
    --broker rabbitmq=127.0.0.1:5682,pid=1234 --broker leveret=127.0.0.1:5683,pid=1235

Start the brokers afresh: memory is compared with what they hold before the first run.
The report is Markdown on stdout, progress goes to stderr. Exit codes: 0 measured, 1 not
measured or a run failed (a message lost, duplicated or reordered), 2 wrong usage.";

/// Load tests of AMQP 0-9-1 brokers.
#[derive(Debug, Parser)]
#[command(name = "leveret-bench", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The first figures: throughput with and without acks, memory per connection and message
    First(Plan),
}

/// What is measured, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// A broker on this machine and its process; the first one is what the others are compared
    /// with
    #[arg(long = "broker", value_name = "NAME=HOST:PORT,pid=PID", required = true,
          value_parser = parse_broker)]
    pub(crate) brokers: Vec<Broker>,
    /// Only this scenario; may be repeated [default: all]
    #[arg(long = "scenario", value_name = "SCENARIO", value_enum)]
    pub(crate) scenarios: Vec<Scenario>,
    /// Runs of each scenario against each broker
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Measured seconds of a throughput run, after the warm-up
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Core of the load threads; a second one is for the consumer [default: not pinned]
    #[arg(long = "core", value_name = "N")]
    pub(crate) cores: Vec<usize>,
    /// Idle connections that are opened
    #[arg(long, value_name = "N", default_value = "2000",
          value_parser = clap::value_parser!(u32).range(10..=20_000))]
    pub(crate) connections: u32,
    /// Messages that are left waiting
    #[arg(long, value_name = "N", default_value = "500000",
          value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(crate) backlog: u32,
}

/// Reads the command line; ends the process after `--help`, `--version` or a mistake.
pub(crate) fn parse() -> Command {
    Cli::parse().command
}

impl Plan {
    /// The scenarios in the order in which they are run: memory first, while the brokers are
    /// fresh.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let asked =
            |scenario: &&Scenario| self.scenarios.is_empty() || self.scenarios.contains(scenario);
        Scenario::ALL.iter().filter(asked).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, clap::Error> {
        let command = ["leveret-bench", "first", "--broker", "a=127.0.0.1:1,pid=1"];
        let cli = Cli::try_parse_from(command.iter().chain(arguments))?;
        let Command::First(plan) = cli.command;
        Ok(plan)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_but_the_broker_has_a_default() {
        let plan = plan(&[]).unwrap();
        assert_eq!(
            (plan.runs, plan.seconds, plan.connections, plan.backlog),
            (5, 2, 2000, 500_000)
        );
        assert_eq!(plan.scenarios(), Scenario::ALL);
        assert!(Cli::try_parse_from(["leveret-bench", "first"]).is_err());
    }

    #[test]
    fn scenarios_keep_their_order() {
        let asked = ["--scenario", "confirms", "--scenario", "queued-messages"];
        let scenarios = plan(&asked).unwrap().scenarios();
        assert_eq!(scenarios, [Scenario::QueuedMessages, Scenario::Confirms]);
    }

    #[test]
    fn every_number_has_a_limit() {
        for option in ["--runs", "--seconds", "--connections", "--backlog"] {
            assert!(plan(&[option, "0"]).is_err(), "{option} 0");
            assert!(plan(&[option, "4000000000"]).is_err(), "{option} 4000000000");
        }
    }
}
