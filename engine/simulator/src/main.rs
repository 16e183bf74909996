//! `cargo sim`: runs made-up worlds and tells which of them go wrong.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use leveret_simulator::run::{Plan, Tally, run};

/// Run whole brokers in made-up worlds, each following from its seed.
#[derive(Debug, Parser)]
#[command(name = "leveret-simulator")]
struct Arguments {
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
    let seeds = arguments.seed.map_or(arguments.seeds, |seed| seed..seed.saturating_add(1));
    let mut total = Tally::default();
    let mut runs = 0;
    for seed in seeds {
        let plan = Plan { seed, steps: arguments.steps, shards: arguments.shards };
        match outcome(plan) {
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

/// A panic of the broker is a finding like any other: its seed has to be told.
fn outcome(plan: Plan) -> Result<Tally, String> {
    std::panic::catch_unwind(|| run(plan)).unwrap_or_else(|panic| {
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
