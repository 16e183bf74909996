//! The promise of durability, proved by killing the real binary.
//!
//! ```text
//! cargo crash                                    everything, 50 kills
//! LEVERET_CRASH_CYCLES=2000 cargo crash kills    the long run
//! LEVERET_CRASH_SEED=N cargo crash kills         another run; each prints its seed
//! LEVERET_CRASH_STALL_S=30 cargo crash stand     a disk that stands still for 30 s
//! ```
//!
//! ```text
//!  publishers ──► broker ──► consumers        every thread writes down what it saw
//!                  ▲  ▲
//!     killer ──────┘  └────── topology client
//!        └── history ──► checker
//! ```
//!
//! **What runs.** `killer.rs` starts the broker on one data directory over and over and ends it in
//! every way: SIGKILL at a random moment, at a named fail point of its own, also while it recovers,
//! and in order; with 1, 2 and 3 shards. `load.rs` and `consumer.rs` reconnect after each end.
//! `topology.rs` declares and deletes meanwhile. In the end the queues are drained and `checker.rs`
//! judges; `checker_cases.rs` proves the judge. `disk.rs` has disks that fail, stall and fill up.
//!
//! **Repeating.** A seed chooses messages, acks, moments and ends; threads and the kernel choose
//! the rest, so that a seed repeats a run as far as that allows.
//!
//! **Time.** Nothing passes or fails by the clock; deadlines only bound a hang. One window is in
//! milliseconds: how long before a crash an ack may be forgotten, see `checker::ACK_WINDOW_NS`.
//! While the disk stood still (`stall.rs`) it does not run.

// All of this is test code, though only the functions below bear the attribute.
#![allow(clippy::unwrap_used)]

mod checker;
mod checker_cases;
mod consumer;
mod disk;
mod full_disk;
mod history;
mod home;
mod killer;
mod ledger;
mod load;
#[path = "../process/mod.rs"]
mod process;
#[path = "../differential/random.rs"]
mod random;
mod restart;
mod stall;
mod topology;
mod traffic;
mod unconfirmed;
mod wire;

use killer::{FAIL_POINTS, Round, play};

/// A history is kept in memory and judged at once, so long runs are cut into rounds.
const CYCLES_PER_ROUND: usize = 25;

/// Each fail point is aimed at so often: reached or not depends on what the load is at.
const AIMS_PER_FAIL_POINT: usize = 3;

/// So often is aimed once more at those that were not reached: a busy machine loads less.
const AIMING_ROUNDS_MAX: u64 = 5;

#[test]
fn fifty_kills_lose_nothing() {
    let cycles = number("LEVERET_CRASH_CYCLES").unwrap_or(50) as usize;
    let seed = seed();
    let mut bad = Vec::new();
    for (number, first) in (0..cycles).step_by(CYCLES_PER_ROUND).enumerate() {
        let findings = play(Round {
            seed: seed + number as u64,
            cycles: CYCLES_PER_ROUND.min(cycles - first),
            small_segments: number % 4 != 1,
            fail_points: Vec::new(),
        });
        println!("{findings}");
        if !findings.report.violations.is_empty() {
            bad.push(format!("LEVERET_CRASH_SEED={}: {findings}", seed + number as u64));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_fail_point_loses_nothing() {
    let mut missed = FAIL_POINTS.to_vec();
    for round in 0..AIMING_ROUNDS_MAX {
        let findings = play(Round {
            seed: (seed() ^ 0xFA11) + round,
            cycles: AIMS_PER_FAIL_POINT * missed.len(),
            small_segments: true,
            fail_points: missed.clone(),
        });
        println!("{findings}");
        assert!(findings.report.violations.is_empty(), "{findings}");
        missed.retain(|point| !findings.reached.contains_key(point.name));
        if missed.is_empty() {
            return;
        }
    }
    panic!("never reached: {missed:?}");
}

/// The seed of all runs: what each of them does differs by its own constant.
fn seed() -> u64 {
    number("LEVERET_CRASH_SEED").unwrap_or(4)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
