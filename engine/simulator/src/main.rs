//! `cargo sim` runs simulated worlds and reports the first seed that fails; `cargo power` cuts the
//! power of simulated disks at every moment and reports what is lost.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use leveret_simulator::power;
use leveret_simulator::workload::run::{Plan, Tally, run};

/// Run whole brokers in made-up worlds, each following from its seed.
#[derive(Debug, Parser)]
#[command(name = "leveret-simulator", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    worlds: Worlds,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cut the power of a log's disk at every moment and judge what could be left
    Power(Power),
}

#[derive(Debug, Args)]
struct Power {
    /// Judge this many images, of as many runs as that takes
    #[arg(long, default_value_t = 1_000_000)]
    images: u64,
    /// The first run's seed; the others follow
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Actions of each run
    #[arg(long, default_value_t = power::Plan::of(0).turns)]
    turns: u64,
}

#[derive(Debug, Args)]
struct Worlds {
    /// Run this one seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run the seeds FROM up to, but not including, TO
    #[arg(long, value_name = "FROM..TO", value_parser = parse_seeds, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Turns of clients; in between the world makes steps by chance
    #[arg(long, default_value_t = 600)]
    steps: u64,
    /// Shards; each seed chooses 1 to 4 where this is not given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Power(power)) => cut_power(&power),
        None => run_worlds(arguments.worlds),
    }
}

/// Runs workloads with one seed after the other until enough images have been judged.
fn cut_power(arguments: &Power) -> ExitCode {
    let (mut images, mut seed) = (0, arguments.seed);
    let first = seed;
    while images < arguments.images {
        let plan = power::Plan { seed, turns: arguments.turns };
        match caught(|| power::run(plan, arguments.images - images)) {
            Ok(judged) => images += judged,
            Err(error) => {
                println!("{error}\n");
                println!("seed {seed} failed after {images} good images. To see it again:");
                println!("  cargo power --seed {seed} --turns {}", arguments.turns);
                return ExitCode::FAILURE;
            }
        }
        seed += 1;
    }
    println!("{images} images of {} runs. Nothing was lost and nothing came back.", seed - first);
    ExitCode::SUCCESS
}

fn run_worlds(arguments: Worlds) -> ExitCode {
    let seeds = arguments.seed.map_or(arguments.seeds, |seed| seed..seed.saturating_add(1));
    let mut total = Tally::default();
    let mut runs = 0;
    for seed in seeds {
        let plan = Plan { seed, steps: arguments.steps, shards: arguments.shards };
        match caught(|| run(plan)) {
            Ok(tally) => {
                total.published += tally.published;
                total.delivered += tally.delivered;
                total.lost_by_contract += tally.lost_by_contract;
                total.steps += tally.steps;
                runs += 1;
            }
            Err(error) => {
                let shards = arguments.shards.map_or(String::new(), |n| format!(" --shards {n}"));
                println!("{error}\n");
                println!("seed {seed} failed after {runs} good ones. To see it again:");
                println!("  cargo sim --seed {seed} --steps {}{shards}", arguments.steps);
                return ExitCode::FAILURE;
            }
        }
    }
    let Tally { published, delivered, lost_by_contract, steps } = total;
    println!(
        "{runs} worlds, {steps} steps: {published} messages published, {delivered} deliveries \
         judged, {lost_by_contract} lost to auto-ack clients that left. No fault found."
    );
    ExitCode::SUCCESS
}

/// Treats a panic of the broker like any other finding, so that its seed is reported.
fn caught<T>(run: impl Fn() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let bounds =
        text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    let bounds = bounds.filter(|bounds: &Range<u64>| bounds.start < bounds.end);
    bounds.ok_or_else(|| format!("'{text}' is no range like 0..1000"))
}
