//! What a loss of power does to a log: every image it could leave is judged.
//!
//! ```text
//!   Workload: a real Log on a made-up Disk ──► trace: steps of the disk, what clients know
//!                                                │
//!   images: each moment × what is not synced ◄───┘
//!      └──► reader ──► held, damage ──► Expected::check
//! ```

pub mod differential;
pub mod expected;
pub mod images;
pub mod reader;
mod session;
#[cfg(test)]
mod tests;
mod workload;

use self::differential::compare;
use self::images::{Traced, judge_all};
use self::workload::Workload;

/// The default number of turns of a workload, which gives some thousand images.
const TURNS: u64 = 400;

/// One in this many images is also given to the broker's recovery, which takes as long as all other
/// checks together.
const COMPARED_EACH: u64 = 4;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of all choices.
    pub seed: u64,
    /// Turns of the workload.
    pub turns: u64,
}

impl Plan {
    /// A workload of the default length.
    pub const fn of(seed: u64) -> Self {
        Self { seed, turns: TURNS }
    }
}

/// Runs a workload and checks every image that a power cut could have left, at most `limit`.
/// Returns the number of images.
///
/// # Errors
/// What is wrong with the first bad image.
pub fn run(plan: Plan, limit: u64) -> Result<u64, String> {
    judge(&Workload::new(plan.seed).run(plan.turns)?, plan.seed, limit)
}

fn judge(trace: &[Traced], seed: u64, limit: u64) -> Result<u64, String> {
    let mut judged = 0_u64;
    judge_all(trace, seed, limit, |image, expected| {
        let reading = reader::read(image);
        judged += 1;
        if judged.is_multiple_of(COMPARED_EACH) {
            compare(image, session::SHARD, &reading)?;
        }
        expected.check(&reading)
    })
}
