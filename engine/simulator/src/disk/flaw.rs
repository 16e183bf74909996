//! What can be wrong with a disk: faults that a broker has to bear, and lies that tests have to
//! notice.

use leveret_broker::storage::log::operation::DiskError;

use crate::random::Random;

/// How cruel a disk is. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Longest time one step takes.
    pub step_max_ns: u64,
    /// In percent, of each step: it stalls.
    pub stall_percent: u64,
    /// Longest stall.
    pub stall_max_ns: u64,
    /// The step that fails, counted from 0 over the disk's life, and how.
    pub failure: Option<(u64, Failure)>,
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`; of a write any part may have been done.
    Io,
    /// Only the first part is written.
    Short,
    /// No space for so many new files; then somebody makes some.
    Full(u32),
}

/// Damage to what was written in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// One bit is another.
    Flip,
    /// A block is zeros.
    Blank,
    /// A block holds what it held before its last write: zeros, or another use's bytes.
    Lost,
    /// A block holds another one's bytes.
    Misdirected,
    /// The end of a file is gone.
    Truncated,
}

/// A disk or a driver that does not keep the contract; all of them have been seen in the wild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A commit is answered when it is written, and synced later.
    AcknowledgeUnsynced,
    /// A commit is answered when it comes in, and written later.
    AcknowledgeUnwritten,
    /// A file is ready before its name is durable.
    NoDirectorySync,
    /// Not the whole commit is written, and nobody notices.
    IgnoreShortWrite,
    /// A commit is now and then not synced at all.
    DropSync,
    /// A commit goes to the block behind the one it belongs to.
    WrongOffset,
    /// Another file than the one that may be recycled is.
    RecycleWrongFile,
    /// Files are recycled and removed in any order.
    FilesOutOfOrder,
    /// A read gives what was there before the last write.
    StaleRead,
    /// A process that follows a killed one believes what it reads, synced or not.
    NoSyncAtBoot,
}

/// All of them.
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
    /// What the disk says.
    pub(super) fn error(self) -> DiskError {
        match self {
            Self::Io => DiskError::Failed("EIO".to_owned()),
            Self::Short => DiskError::Failed("short write".to_owned()),
            Self::Full(_) => DiskError::Full,
        }
    }
}

/// Whether an error is one of [`Failure`], not of the disk's own finding.
pub(crate) fn is_injected(error: &DiskError) -> bool {
    [Failure::Io, Failure::Short, Failure::Full(0)].iter().any(|kind| kind.error() == *error)
}

impl DiskFaults {
    /// A fast disk without faults.
    pub const fn none() -> Self {
        Self { step_max_ns: 20_000, stall_percent: 0, stall_max_ns: 0, failure: None }
    }

    /// Faults by chance: a slow disk, a stalling one, a full one. None that ends the log.
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
