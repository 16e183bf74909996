//! What can be wrong with a disk: faults that a broker must bear, and lies that tests must notice.

use leveret_broker::storage::log::operation::DiskError;

use crate::random::Random;

/// The faults of a disk. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// The longest time that one step takes.
    pub step_max_ns: u64,
    /// In percent of the steps: it stalls.
    pub stall_percent: u64,
    /// The longest stall.
    pub stall_max_ns: u64,
    /// The step that fails, counted from 0 over the life of the disk, and how it fails.
    pub failure: Option<(u64, Failure)>,
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`; any part of a write may have been done.
    Io,
    /// Only the first part is written.
    Short,
    /// No space for this many new files; after that there is space again.
    Full(u32),
}

/// Damage to data that was written correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit is flipped.
    Flip,
    /// A block is zeros.
    Blank,
    /// A block has its content from before the last write: zeros, or data of an earlier use.
    Lost,
    /// A block has the content of another one.
    Misdirected,
    /// The end of a file is gone.
    Truncated,
}

/// A disk or driver that breaks its contract. All of these have been observed in practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A commit is acknowledged when it is written, and synced later.
    AcknowledgeUnsynced,
    /// A commit is acknowledged when it is submitted, and written later.
    AcknowledgeUnwritten,
    /// A file is reported as ready before its name is durable.
    NoDirectorySync,
    /// A commit is written only in part, without an error.
    IgnoreShortWrite,
    /// A commit is sometimes not synced at all.
    DropSync,
    /// A commit is written one block too far.
    WrongOffset,
    /// The wrong file is recycled.
    RecycleWrongFile,
    /// Files are recycled and removed in any order.
    FilesOutOfOrder,
    /// A read returns the content from before the last write.
    StaleRead,
    /// After a process was killed, the next one believes what it reads without syncing it.
    NoSyncAtBoot,
}

/// All flaws.
pub const FLAWS: [Flaw; 10] = [
    Flaw::AcknowledgeUnsynced,
    Flaw::AcknowledgeUnwritten,
    Flaw::NoDirectorySync,
    Flaw::IgnoreShortWrite,
    Flaw::DropSync,
    Flaw::WrongOffset,
    Flaw::RecycleWrongFile,
    Flaw::FilesOutOfOrder,
    Flaw::StaleRead,
    Flaw::NoSyncAtBoot,
];

impl Failure {
    /// The error that the disk reports.
    pub(super) fn error(self) -> DiskError {
        match self {
            Self::Io => DiskError::Failed("EIO".to_owned()),
            Self::Short => DiskError::Failed("short write".to_owned()),
            Self::Full(_) => DiskError::Full,
        }
    }
}

/// Whether an error was injected as a [`Failure`] and not detected by the disk itself.
pub(crate) fn is_injected(error: &DiskError) -> bool {
    [Failure::Io, Failure::Short, Failure::Full(0)].iter().any(|kind| kind.error() == *error)
}

impl DiskFaults {
    /// A fast disk without faults.
    pub const fn none() -> Self {
        Self { step_max_ns: 20_000, stall_percent: 0, stall_max_ns: 0, failure: None }
    }

    /// Random faults: a slow, stalling or full disk. None of them ends the log.
    pub fn random(random: &mut Random) -> Self {
        let full = Failure::Full(random.between(1, 6) as u32);
        let at = random.below(300);
        Self {
            step_max_ns: random.pick(&[1_000, 100_000, 3_000_000]),
            stall_percent: random.pick(&[0, 0, 1, 10]),
            stall_max_ns: random.pick(&[50_000_000, 30_000_000_000]),
            failure: random.chance(30).then_some((at, full)),
        }
    }
}
