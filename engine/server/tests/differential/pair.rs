//! Two brokers side by side: runs a sequence on both, judges, and shrinks what differs.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::generator::sequence;
use crate::known::{KNOWN, explanation};
use crate::record::{Difference, Transcript, difference};
use crate::run::Side;
use crate::step::Step;

/// How often a sequence that differs is run again on each side: an outcome that chance gives one
/// time in three is then missed once in 10 million.
const RETRY_COUNT: usize = 20;

/// Runs of one process never share a name.
static RUN_COUNT: AtomicU64 = AtomicU64::new(0);

/// What a sequence showed.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The brokers agree.
    Same,
    /// They differ as `RabbitMQ` differs from itself.
    Chance {
        /// What differed once.
        report: String,
    },
    /// They differ as they should.
    Known {
        /// In [`KNOWN`].
        index: usize,
    },
    /// They differ.
    Different {
        /// Of the sequence.
        seed: u64,
        /// Everything to find out why.
        report: String,
    },
}

/// How two runs of the same steps compare.
#[derive(Debug)]
enum Comparison {
    Same,
    Chance(Difference),
    Known(usize),
    Different(Difference),
}

/// The two brokers of one worker.
#[derive(Debug)]
pub(crate) struct Pair {
    left: Side,
    right: Side,
}

impl Pair {
    /// No connection yet.
    pub(crate) const fn new(left: SocketAddr, right: SocketAddr) -> Self {
        Self { left: Side::new(left), right: Side::new(right) }
    }

    /// Runs the sequence of a seed.
    pub(crate) fn judge(&mut self, seed: u64) -> Verdict {
        let steps = sequence(seed);
        match self.compare(&steps) {
            Comparison::Same => Verdict::Same,
            Comparison::Chance(difference) => {
                Verdict::Chance { report: report(seed, &steps, &difference) }
            }
            Comparison::Known(index) => Verdict::Known { index },
            Comparison::Different(difference) => {
                let (steps, difference) = self.shrink(steps, difference);
                Verdict::Different { seed, report: report(seed, &steps, &difference) }
            }
        }
    }

    /// Prints all that a sequence brings on both sides.
    pub(crate) fn replay(&mut self, seed: u64) {
        let steps = sequence(seed);
        let left = self.left.run(&steps, &next_prefix());
        let right = self.right.run(&steps, &next_prefix());
        for (index, step) in steps.iter().enumerate() {
            println!("{index}: {}", line_of(step));
            print_both(&format!("{:?}", left.steps[index]), &format!("{:?}", right.steps[index]));
        }
        println!("end:");
        print_both(&show_end(&left), &show_end(&right));
        match self.compare(&steps) {
            Comparison::Same => println!("the same"),
            Comparison::Chance(_) => println!("different by chance"),
            Comparison::Known(index) => println!("known: {}", KNOWN[index].reason),
            Comparison::Different(difference) => {
                let (steps, difference) = self.shrink(steps, difference);
                panic!("{}", report(seed, &steps, &difference));
            }
        }
    }

    fn compare(&mut self, steps: &[Step]) -> Comparison {
        let left = self.left.run(steps, &next_prefix());
        let right = self.right.run(steps, &next_prefix());
        let Some(found) = difference(&left, &right) else {
            return Comparison::Same;
        };
        if let Some(index) = explanation(steps, &found) {
            return Comparison::Known(index);
        }
        self.retry(steps, left, right, found)
    }

    /// Looks for a run of the left broker that is like one of the right.
    fn retry(
        &mut self,
        steps: &[Step],
        left: Transcript,
        right: Transcript,
        found: Difference,
    ) -> Comparison {
        let mut lefts = vec![left];
        let mut rights = vec![right];
        for _ in 0..RETRY_COUNT {
            lefts.push(self.left.run(steps, &next_prefix()));
            rights.push(self.right.run(steps, &next_prefix()));
            if lefts.iter().any(|left| rights.contains(left)) {
                return Comparison::Chance(found);
            }
            if lefts.len() == 3 && lefts[1..].iter().all(|left| *left == lefts[0]) {
                // The left side shows no sign of chance: what differs is the right one.
                break;
            }
        }
        Comparison::Different(found)
    }

    /// Takes steps away as long as the sequence still differs.
    fn shrink(&mut self, steps: Vec<Step>, found: Difference) -> (Vec<Step>, Difference) {
        let mut best = (steps, found);
        best.0.truncate(best.1.step + 1);
        let mut size = (best.0.len() / 2).max(1);
        loop {
            let mut start = 0;
            while start < best.0.len() {
                let mut fewer = best.0.clone();
                fewer.drain(start..(start + size).min(fewer.len()));
                match self.compare(&fewer) {
                    Comparison::Different(difference) => best = (fewer, difference),
                    _ => start += size,
                }
            }
            if size == 1 {
                return best;
            }
            size /= 2;
        }
    }
}

/// Ten characters, always, so that texts cut at 255 octets are cut in the same place.
pub(crate) fn next_prefix() -> String {
    format!("d{:08x}-", RUN_COUNT.fetch_add(1, Ordering::Relaxed))
}

fn line_of(step: &Step) -> String {
    let Step { connection, channel, raw, action } = step;
    let raw = if *raw { " (raw)" } else { "" };
    format!("connection {connection} channel {channel}{raw}: {action:?}")
}

fn show_end(transcript: &Transcript) -> String {
    let Transcript { end, contents, exchanges, .. } = transcript;
    format!("{end:?}    {contents:?}\n    {exchanges:?}\n")
}

fn print_both(left: &str, right: &str) {
    if left == right {
        println!("{left}");
    } else {
        println!("  LEFT\n{left}  RIGHT\n{right}");
    }
}

fn report(seed: u64, steps: &[Step], difference: &Difference) -> String {
    let mut text = format!("seed {seed} differs, {} steps:\n", steps.len());
    for (index, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "  {index}: {}", line_of(step));
    }
    let Difference { step, left, right } = difference;
    let _ = write!(text, "at step {step}\n  LEFT\n{left}  RIGHT\n{right}");
    text
}
