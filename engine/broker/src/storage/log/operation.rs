//! What the log asks of a disk, and what the disk tells it.
//!
//! ```text
//!   Log::poll_operation ──► DiskOperation ──► ring, files, or a simulated disk
//!   Log::handle         ◄── DiskEvent     ◄──
//! ```
//! A disk carries out operations in any order and answers each exactly once. Only those that make
//! and remove files, [`DiskOperation::Prepare`] and [`DiskOperation::Remove`], have an order: each
//! is durable before the next begins, or messages come back whose settle records went before them.
//! What it promises is in the words of [`DiskOperation`]; whether it keeps them decides what a
//! confirm is worth.

use super::blocks::Blocks;

/// Something for the disk to do.
#[derive(Debug)]
pub enum DiskOperation {
    /// Have a segment file ready for writing: `size_bytes` long, laid out, its directory entry
    /// durable. Where `recycled` names a segment, its file is renamed for this one, and with the
    /// answer the old name is gone durably; otherwise a new one is made and zeroed. Answered with
    /// [`DiskEvent::Prepared`].
    Prepare {
        /// The number of the new segment.
        segment: u32,
        /// The size of its file, a multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
        size_bytes: u32,
        /// A segment whose file may be reused; it has at least that size.
        recycled: Option<u32>,
    },
    /// Write whole blocks, and in the mode `flush` make them durable before answering. At most one
    /// of these is under way per log. Answered with [`DiskEvent::Committed`].
    Commit {
        /// The segment, prepared before.
        segment: u32,
        /// Where, a multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
        offset: u32,
        /// What; comes back with the answer.
        blocks: Blocks,
    },
    /// Read whole blocks. Answered with [`DiskEvent::Read`].
    Read {
        /// Given back with the answer.
        read: ReadId,
        /// The segment.
        segment: u32,
        /// Where, a multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
        offset: u32,
        /// How much, a multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
        length: u32,
    },
    /// Remove a segment's file, or (`damaged`) move it to `quarantine/`, and make that durable.
    /// Answered with [`DiskEvent::Removed`], and not at all where it could not be done: settle
    /// records elsewhere then still keep its messages from coming back.
    Remove {
        /// The segment.
        segment: u32,
        /// It has damage that somebody may want to look at.
        damaged: bool,
    },
}

/// Tells reads apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What came of a [`DiskOperation`].
#[derive(Debug)]
pub enum DiskEvent {
    /// The segment can be written, or cannot.
    Prepared {
        /// Which.
        segment: u32,
        /// Where not: [`DiskError::Full`] is tried again, everything else ends the log.
        result: Result<(), DiskError>,
    },
    /// The blocks are written (and durable in the mode `flush`), wholly, or the log is at its end.
    Committed {
        /// Of [`DiskOperation::Commit`].
        segment: u32,
        /// Of [`DiskOperation::Commit`].
        offset: u32,
        /// Back for reuse.
        blocks: Blocks,
        /// A short write is an error. None is ever tried again: nobody knows what the disk has.
        result: Result<(), DiskError>,
    },
    /// The segment's file is gone, durably.
    Removed {
        /// Which.
        segment: u32,
    },
    /// Blocks were read, wholly, or could not be.
    Read {
        /// Of [`DiskOperation::Read`].
        read: ReadId,
        /// As many bytes as asked for.
        result: Result<Blocks, DiskError>,
    },
}

/// Why the disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No space, or none within the quota. Passes when somebody makes some.
    #[error("no space left on the device")]
    Full,
    /// Anything else, in the operating system's words.
    #[error("{0}")]
    Failed(String),
}
