//! The same method sequences against `RabbitMQ` 3.10 and Leveret: replies, close codes and texts,
//! deliveries, confirms, returns and queue contents must be the same.
//!
//! `cargo differential` starts a private `RabbitMQ` node (installed from Debian where it is
//! missing) and the `leveret` binary, and compares 10,000 generated sequences. Environment:
//!
//! - `LEVERET_DIFFERENTIAL_SEQUENCES`: how many sequences.
//! - `LEVERET_DIFFERENTIAL_SEED`: replays the sequence of one seed, step by step.
//! - `LEVERET_DIFFERENTIAL_FIRST_SEED`: where to begin, 0 unless told.
//! - `LEVERET_DIFFERENTIAL_SHARDS`: shards of Leveret, 2 unless told.
//! - `LEVERET_DIFFERENTIAL_RIGHT=host:port`: compares with this broker in the place of Leveret;
//!   `rabbitmq` compares `RabbitMQ` with itself, which shows that the test is deterministic.
//!
//! `RabbitMQ`'s queues and channels are processes of their own, so some outcomes are up to chance.
//! A sequence that differs is therefore run again on both sides: it only counts where no run of
//! the left broker gave what the right one gives. What counts is shrunk and printed with its seed.

mod generator;
mod known;
mod leveret;
mod link;
mod node;
mod pair;
mod random;
mod record;
mod routing;
mod run;
mod step;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::known::KNOWN;
use crate::leveret::Leveret;
use crate::node::Node;
use crate::pair::{Pair, Verdict};
use crate::routing::Kind;

/// What the issue of the project asks for.
const SEQUENCE_COUNT: u64 = 10_000;

/// Two brokers and the test share the machine; more workers only wait for each other.
const WORKER_COUNT: usize = 6;

/// After so many failures the rest would only repeat them.
const FAILURE_COUNT_MAX: usize = 5;

/// How many of the sequences that are up to chance are printed, for those who want to know why.
const CHANCE_COUNT_SHOWN: usize = 12;

/// The broker to be compared, and what keeps it running.
#[derive(Debug)]
struct Right {
    address: SocketAddr,
    _leveret: Option<Leveret>,
}

impl Right {
    fn of_environment(left: &Node) -> Self {
        match env::var("LEVERET_DIFFERENTIAL_RIGHT").as_deref() {
            Ok("rabbitmq") => Self { address: left.address(), _leveret: None },
            Ok(address) => {
                let mut addresses = address.to_socket_addrs().expect("host:port");
                Self { address: addresses.next().expect("an address"), _leveret: None }
            }
            Err(_) => {
                let shard_count = number("LEVERET_DIFFERENTIAL_SHARDS").unwrap_or(2);
                let leveret = Leveret::start("differential", shard_count as usize);
                Self { address: leveret.address(), _leveret: Some(leveret) }
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number: {value}")))
}

#[test]
fn generated_sequences_have_the_same_outcome() {
    let node = Node::shared();
    let right = Right::of_environment(&node);
    if let Some(seed) = number("LEVERET_DIFFERENTIAL_SEED") {
        Pair::new(node.address(), right.address).replay(seed);
        return;
    }
    let first = number("LEVERET_DIFFERENTIAL_FIRST_SEED").unwrap_or(0);
    let count = number("LEVERET_DIFFERENTIAL_SEQUENCES").unwrap_or(SEQUENCE_COUNT);
    let mut results = Results::default();
    let next = AtomicU64::new(first);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WORKER_COUNT {
            scope.spawn(|| {
                let mut pair = Pair::new(node.address(), right.address);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || results.enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let verdict = pair.judge(seed);
                    results.add(verdict);
                }
            });
        }
    });
    results.judge_alone(&mut Pair::new(node.address(), right.address));
    results.report(count, started);
}

/// 20 rounds of 30 queues and 60 messages are 36,000 pairs of pattern and key, and as many after
/// half of the bindings are gone.
const ROUTING_ROUND_COUNT: u64 = 20;

#[test]
fn topics_match_the_same() {
    routes_are_the_same(Kind::Topic);
}

#[test]
fn headers_match_the_same() {
    routes_are_the_same(Kind::Headers);
}

fn routes_are_the_same(kind: Kind) {
    let node = Node::shared();
    let right = Right::of_environment(&node);
    let first = number("LEVERET_DIFFERENTIAL_FIRST_SEED").unwrap_or(0);
    let rounds = first..first + ROUTING_ROUND_COUNT;
    let failures: Vec<String> = rounds
        .filter_map(|seed| routing::compare(kind, node.address(), right.address, seed).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What all workers found.
#[derive(Debug, Default)]
struct Results {
    found: Mutex<Found>,
    enough: AtomicBool,
}

#[derive(Debug, Default)]
struct Found {
    same: u64,
    /// By chance, with what differed.
    chance: Vec<String>,
    known: BTreeMap<usize, u64>,
    /// Seed and report.
    failures: Vec<(u64, String)>,
}

impl Results {
    /// Judges once more, with nobody else at work, what differed: where the machine is short of
    /// time RabbitMQ answers later than the test waits, and three times in a row.
    fn judge_alone(&mut self, pair: &mut Pair) {
        let found = self.found.get_mut().expect("no worker panicked");
        for (seed, report) in std::mem::take(&mut found.failures) {
            match pair.judge(seed) {
                Verdict::Different { seed, report } => found.failures.push((seed, report)),
                Verdict::Same | Verdict::Chance { .. } | Verdict::Known { .. } => {
                    found.chance.push(report);
                }
            }
        }
    }

    fn add(&self, verdict: Verdict) {
        let mut found = self.found.lock().expect("no worker panicked");
        match verdict {
            Verdict::Same => found.same += 1,
            Verdict::Chance { report } => found.chance.push(report),
            Verdict::Known { index } => *found.known.entry(index).or_default() += 1,
            Verdict::Different { seed, report } => found.failures.push((seed, report)),
        }
        if found.failures.len() >= FAILURE_COUNT_MAX {
            self.enough.store(true, Ordering::Relaxed);
        }
    }

    fn report(self, count: u64, started: Instant) {
        let found = self.found.into_inner().expect("no worker panicked");
        let mut text = format!(
            "{} sequences the same, {} different by chance, in {:.1} s\n",
            found.same,
            found.chance.len(),
            started.elapsed().as_secs_f64()
        );
        for (index, known) in KNOWN.iter().enumerate() {
            let used = found.known.get(&index).copied().unwrap_or(0);
            let _ = writeln!(text, "{used} known: {}", known.reason);
        }
        println!("{text}");
        for report in found.chance.iter().take(CHANCE_COUNT_SHOWN) {
            println!("by chance: {report}");
        }
        let failures: Vec<String> = found.failures.into_iter().map(|(_, report)| report).collect();
        assert!(failures.is_empty(), "{text}\n{}", failures.join("\n\n"));
        let known: u64 = found.known.values().sum();
        let chance = found.chance.len() as u64;
        assert_eq!(found.same + known + chance, count, "every sequence was judged");
        // Chance must stay the exception, or it would hide what it should not.
        assert!(chance <= count / 50 + 1, "too much is up to chance\n{text}");
    }
}
